package filesystem

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// spareName is the name that a Spare has for a moment.
const spareName = ".spare"

// fitrim is the ioctl FITRIM, _IOWR('X', 121, struct fstrim_range) (linux/fs.h).
const fitrim = 0xc0185879

// checkpoint is the ioctl EXT4_IOC_CHECKPOINT, _IOW('f', 43, __u32), of Linux 5.14 and later (fs/ext4/ext4.h,
// Documentation/filesystems/ext4/journal.rst).
const checkpoint = 0x4004662b

// Spare is a file that takes the free space of a mounted filesystem, so that it can be overwritten from within. It has no name: whatever
// ends the program, the power too, gives the space back, at the next mount at the latest. Its methods may be called at the same time.
type Spare struct {
	dir, file *os.File
	block     int64
	direct    bool
	// kept is the file of sysfs with the number of blocks that ext4 keeps back, "" if there is none; before is what was in it.
	kept   string
	before []byte
}

// OpenSpare opens a Spare of no size on the filesystem that is mounted at dir, with O_DIRECT where the filesystem has that. An ext4
// filesystem gives away the blocks too that it keeps back from everybody (/sys/fs/ext4/*/reserved_clusters,
// Documentation/ABI/testing/sysfs-fs-ext4), until Close. A directory at which nothing is mounted is an error: what it is part of would be
// filled, the memory of this machine perhaps. The caller closes it.
func OpenSpare(dir string) (*Spare, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open spare file: %w", err)
	}
	s := &Spare{dir: d, direct: true}
	if err := s.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open spare file: %w", err), s.Close())
	}
	s.takeAll()
	return s, nil
}

func (s *Spare) open() error {
	st, err := s.stat()
	if err != nil {
		return err
	}
	var own, above unix.Stat_t
	if err := errors.Join(unix.Fstat(int(s.dir.Fd()), &own), unix.Stat(filepath.Join(s.dir.Name(), ".."), &above)); err != nil {
		return err
	}
	if own.Dev == above.Dev {
		return fmt.Errorf("nothing is mounted at %s", s.dir.Name())
	}
	s.block = st.Bsize
	name := filepath.Join(s.dir.Name(), spareName)
	const flags = os.O_RDWR | os.O_CREATE | os.O_TRUNC | unix.O_NOFOLLOW
	s.file, err = os.OpenFile(name, flags|unix.O_DIRECT, 0o600)
	if errors.Is(err, unix.EINVAL) {
		s.direct = false
		s.file, err = os.OpenFile(name, flags, 0o600)
	}
	if err != nil {
		return err
	}
	return os.Remove(name)
}

// takeAll makes ext4 give away the blocks that it keeps back. Where it does not, Free says later what is left.
func (s *Spare) takeAll() {
	var st unix.Stat_t
	if err := unix.Fstat(int(s.dir.Fd()), &st); err != nil {
		return
	}
	device, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return
	}
	kept := filepath.Join("/sys/fs/ext4", filepath.Base(device), "reserved_clusters")
	before, err := os.ReadFile(kept)
	if err == nil {
		err = os.WriteFile(kept, []byte("0"), 0)
	}
	if err == nil {
		s.kept, s.before = kept, before
	}
}

func (s *Spare) stat() (st unix.Statfs_t, err error) {
	if err = unix.Fstatfs(int(s.dir.Fd()), &st); err != nil {
		err = fmt.Errorf("look at filesystem %s: %w", s.dir.Name(), err)
	}
	return st, err
}

// BlockSize returns the size of the filesystem's blocks in bytes. Offsets, lengths and addresses of buffers are multiples of it.
func (s *Spare) BlockSize() int64 { return s.block }

// Free returns how many bytes of the filesystem no file has, this one counted too.
func (s *Spare) Free() (int64, error) {
	st, err := s.stat()
	return int64(st.Bfree) * st.Bsize, err
}

// Bypass reports whether reads do not use the page cache.
func (s *Spare) Bypass() bool { return s.direct }

// ReadAt implements io.ReaderAt.
func (s *Spare) ReadAt(p []byte, off int64) (int, error) { return s.file.ReadAt(p, off) }

// WriteAt implements io.WriterAt. The error is ENOSPC where the filesystem has no more blocks.
func (s *Spare) WriteAt(p []byte, off int64) (int, error) { return s.file.WriteAt(p, off) }

// Sync returns when all that was written is on the medium, in its place: also the blocks in which ext4 keeps where the file lies. Those are
// in the filesystem's journal at first, and where the file goes before they are in their places, these keep what was there before.
func (s *Spare) Sync() error {
	if err := s.file.Sync(); err != nil {
		return err
	}
	st, err := s.stat()
	if err != nil || st.Type != unix.EXT4_SUPER_MAGIC {
		return err
	}
	flags := uint32(0)
	for {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, s.file.Fd(), checkpoint, uintptr(unsafe.Pointer(&flags)))
		switch e {
		case 0, unix.ENODEV: // it has no journal
			return nil
		case unix.EINTR:
			continue
		}
		return fmt.Errorf("write the journal's blocks to their places (EXT4_IOC_CHECKPOINT): %w", e)
	}
}

// Discard gives the space back, and tells the device that no file has it (FITRIM). It returns how many bytes that were. The error is
// errors.ErrUnsupported where filesystem or device cannot be told. The file cannot be used any more.
func (s *Spare) Discard() (int64, error) {
	if err := errors.Join(s.file.Close(), unix.Syncfs(int(s.dir.Fd()))); err != nil { // ext4 frees blocks at the end of a transaction
		return 0, fmt.Errorf("give the spare file back: %w", err)
	}
	r := struct{ start, n, least uint64 }{n: ^uint64(0)}
	for {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, s.dir.Fd(), fitrim, uintptr(unsafe.Pointer(&r)))
		switch e {
		case 0:
			return int64(r.n), nil
		case unix.EINTR:
			continue
		}
		return 0, fmt.Errorf("discard free space (FITRIM): %w", e)
	}
}

// Close gives the space back, if Discard has not. The filesystem keeps back again what it did before.
func (s *Spare) Close() error {
	var err error
	if s.file != nil {
		if err = s.file.Close(); errors.Is(err, os.ErrClosed) {
			err = nil
		}
	}
	if s.kept != "" {
		err = errors.Join(err, os.WriteFile(s.kept, s.before, 0))
	}
	return errors.Join(err, s.dir.Close())
}
