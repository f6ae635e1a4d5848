package block

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Direct reads a file or a device from the medium and not from the page cache, to find out whether what was written can be
// read. A disk may still answer from a cache of its own. Reads of its methods may come from several goroutines.
type Direct struct {
	path   string
	file   *os.File
	direct bool
	align  int64 // of offsets, lengths and memory

	mu    sync.Mutex
	next  int64  // where Read goes on
	buf   []byte // aligned in memory
	at, n int64  // what buf holds
}

const directBuffer = 1 << 20

// OpenDirect opens a file or a block device for reading past the page cache (O_DIRECT). Data that was written but is still on
// its way is written out first. Where the filesystem refuses O_DIRECT, such as tmpfs, the page cache is emptied instead as far
// as the kernel does it (POSIX_FADV_DONTNEED); Bypass tells which of the two it is. The caller closes it.
func OpenDirect(path string) (*Direct, error) {
	r := &Direct{path: path, align: 4096}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	r.direct = err == nil
	if errors.Is(err, unix.EINVAL) {
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open for direct reading: %w", err)
	}
	r.file = f
	if err := f.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EROFS) {
		f.Close()
		return nil, fmt.Errorf("open for direct reading: %w", err)
	}
	raw := make([]byte, directBuffer+r.align)
	skip := -int64(uintptr(unsafe.Pointer(&raw[0]))) & (r.align - 1)
	r.buf = raw[skip:][:directBuffer]
	if !r.direct {
		r.drop()
	}
	return r, nil
}

// Bypass reports whether reads do not use the page cache. If not, they do not use what was in it before, as far as the kernel
// dropped that.
func (r *Direct) Bypass() bool { return r.direct }

// Read implements io.Reader, from the start on.
func (r *Direct) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := r.piece(p, r.next)
	r.next += int64(n)
	return n, err
}

// ReadAt implements io.ReaderAt. Neighbouring pieces of up to 1 MiB come from one reading of the medium.
func (r *Direct) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read %s: negative offset", r.path)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	done := 0
	for done < len(p) {
		n, err := r.piece(p[done:], off+int64(done))
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// piece reads at least one byte, or returns an error.
func (r *Direct) piece(p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if off < r.at || off >= r.at+r.n {
		if err := r.fill(off &^ (r.align - 1)); err != nil {
			return 0, err
		}
		if off >= r.at+r.n {
			return 0, io.EOF
		}
	}
	return copy(p, r.buf[off-r.at:r.n]), nil
}

// fill reads one buffer at an aligned offset. A read that ends at an unaligned place has met the end.
func (r *Direct) fill(off int64) error {
	r.at, r.n = off, 0
	if !r.direct {
		defer r.drop()
	}
	for r.n < int64(len(r.buf)) {
		n, err := unix.Pread(int(r.file.Fd()), r.buf[r.n:], off+r.n)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			r.n = 0
			return fmt.Errorf("read %s at %d: %w", r.path, off, err)
		}
		r.n += int64(n)
		if n == 0 || r.n%r.align != 0 {
			break
		}
	}
	return nil
}

// drop lets the kernel forget what it has of the file. It is advice: there is nothing to do about a refusal.
func (r *Direct) drop() { _ = unix.Fadvise(int(r.file.Fd()), 0, 0, unix.FADV_DONTNEED) }

// Close closes the file.
func (r *Direct) Close() error { return r.file.Close() }
