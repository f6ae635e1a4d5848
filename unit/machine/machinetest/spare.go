package machinetest

import (
	"syscall"

	"gprovision/model/layout"
)

// SpareSize is how much is free on each filesystem, in bytes: not a multiple of what is written at once.
const SpareSize = 2*layout.MiB + 3*4096

// Spare is the free space of a filesystem. It has nothing to do with the directory that stands for that.
type Spare struct {
	r *Rig
	b []byte
}

// OpenSpare opens the free space of a filesystem, as filesystem.OpenSpare does. Its calls are counted as those through doors.
func OpenSpare(r *Rig) (*Spare, error) {
	if err := r.pass("open spare"); err != nil {
		return nil, err
	}
	return &Spare{r, make([]byte, 0, SpareSize)}, nil
}

// ReadAt implements io.ReaderAt.
func (s *Spare) ReadAt(p []byte, off int64) (int, error) {
	if err := s.r.pass("read spare"); err != nil {
		return 0, err
	}
	return copy(p, s.b[off:]), nil
}

// WriteAt implements io.WriterAt.
func (s *Spare) WriteAt(p []byte, off int64) (int, error) {
	if err := s.r.pass("write spare"); err != nil {
		return 0, err
	}
	end := min(off+int64(len(p)), SpareSize)
	s.b = s.b[:max(end, int64(len(s.b)))]
	n := copy(s.b[off:end], p)
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

// Sync returns once everything written is on the medium.
func (s *Spare) Sync() error { return s.r.pass("sync spare") }

// BlockSize returns the size of the filesystem's blocks in bytes.
func (s *Spare) BlockSize() int64 { return 4096 }

// Free returns how many bytes no file has.
func (s *Spare) Free() (int64, error) { return SpareSize - int64(len(s.b)), s.r.pass("size of spare") }

// Bypass reports that reads come past the page cache.
func (s *Spare) Bypass() bool { return true }

// Discard gives the space back and tells the device of it.
func (s *Spare) Discard() (int64, error) {
	n := int64(len(s.b))
	return n, s.r.pass("discard spare")
}

// Close gives the space back.
func (s *Spare) Close() error { return nil }
