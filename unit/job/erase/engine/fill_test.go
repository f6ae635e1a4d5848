package engine

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"syscall"
	"testing"
)

// spare is a file on a filesystem in memory. What is written in one piece may reach a part of it only.
type spare struct {
	data  []byte
	size  int64 // of the filesystem
	write func(off int64) error
	read  func(p []byte, off int64) error
	sync  error
}

func (s *spare) WriteAt(p []byte, off int64) (int, error) {
	if err := s.write(off); err != nil {
		return 0, err
	}
	n := min(int64(len(p)), s.size-off)
	s.data = append(s.data[:off], p[:n]...)
	if n < int64(len(p)) {
		return int(n), syscall.ENOSPC
	}
	return int(n), nil
}

func (s *spare) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, s.data[off:])
	if err := s.read(p, off); err != nil {
		return 0, err
	}
	return n, nil
}

func (s *spare) Sync() error { return s.sync }

// TestFill: all of the space is filled with what nobody knows, and what is read back is counted.
func TestFill(t *testing.T) {
	const size = 3*chunk + 5*4096 + 100 // the last block is not whole
	const whole = 3*chunk + 5*4096
	lost := errors.New("lost")
	for name, c := range map[string]struct {
		change              func(*spare)
		filled, back, other int64
		flushed, early      bool
	}{
		"all of it":        {func(*spare) {}, whole, whole, 0, true, false},
		"an empty one":     {func(s *spare) { s.size = 0 }, 0, 0, 0, true, false},
		"less than a step": {func(s *spare) { s.size = 2 * 4096 }, 8192, 8192, 0, true, false},
		"another bit is read": {func(s *spare) {
			s.read = func(p []byte, off int64) error {
				if off <= 2*chunk+5000 && off+int64(len(p)) > 2*chunk+5000 {
					p[2*chunk+5000-off] ^= 1
				}
				return nil
			}
		}, whole, whole - 4096, 4096, true, false},
		"a block cannot be read": {func(s *spare) {
			s.read = func(p []byte, off int64) error {
				if off <= chunk && off+int64(len(p)) > chunk {
					return lost
				}
				return nil
			}
		}, whole, whole - 4096, 0, true, false},
		"a write fails": {func(s *spare) {
			s.write = func(off int64) error {
				if off == 2*chunk {
					return lost
				}
				return nil
			}
		}, 2 * chunk, 2 * chunk, 0, true, true},
		"a flush fails": {func(s *spare) { s.sync = lost }, whole, 0, 0, false, true},
	} {
		s := &spare{size: size, write: func(int64) error { return nil }, read: func([]byte, int64) error { return nil }}
		c.change(s)
		last := 0.0
		f, err := Fill(t.Context(), s, 4096, s.size, rand.Reader, func(part float64) {
			if part < last || part > 1 {
				t.Errorf("%s: %f is done after %f", name, part, last)
			}
			last = part
		})
		if err != nil || int64(f.Written) != c.filled || int64(f.ReadBack) != c.back || int64(f.Different) != c.other || f.Flushed != c.flushed ||
			(f.Why != "") != c.early {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
		if len(s.data) > chunk && (bytes.Count(s.data, make([]byte, 16)) > 0 || bytes.Equal(s.data[:4096], s.data[chunk:chunk+4096])) {
			t.Errorf("%s: it is filled with something that can be guessed", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := &spare{size: size, write: func(int64) error { cancel(); return nil }}
	if f, err := Fill(ctx, s, 4096, size, rand.Reader, func(float64) {}); !errors.Is(err, context.Canceled) || f.ReadBack > 0 {
		t.Errorf("cancelled: %+v, %v", f, err)
	}
}
