package block

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Raw is an open disk that is read and written past the page cache (O_DIRECT): offsets, lengths and addresses of buffers are multiples of
// the sector size. Its methods may be called at the same time.
type Raw struct{ file *os.File }

// OpenRaw opens a disk for reading and writing without a claim. The caller sees to it that nobody else uses it, and closes it.
func OpenRaw(path string) (*Raw, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil, fmt.Errorf("open raw disk: %w", err)
	}
	return &Raw{f}, nil
}

// ReadAt implements io.ReaderAt.
func (r *Raw) ReadAt(p []byte, off int64) (int, error) { return r.file.ReadAt(p, off) }

// WriteAt implements io.WriterAt.
func (r *Raw) WriteAt(p []byte, off int64) (int, error) { return r.file.WriteAt(p, off) }

// Sync returns when all that was written is on the medium.
func (r *Raw) Sync() error { return r.file.Sync() }

// Discard tells the disk that n bytes from an offset are not needed any more (BLKDISCARD).
func (r *Raw) Discard(off, n int64) error {
	if err := ioctl(r.file, unix.BLKDISCARD, unsafe.Pointer(&[2]uint64{uint64(off), uint64(n)})); err != nil {
		return fmt.Errorf("BLKDISCARD: %w", err)
	}
	return nil
}

// Close closes the disk without syncing.
func (r *Raw) Close() error { return r.file.Close() }
