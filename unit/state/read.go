package state

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// ReadFile reads a regular file of at most most bytes inside root. The error is ErrDamaged for a larger file and for
// anything that is not a regular file. It never blocks on a FIFO or a device. It follows links only inside root.
func ReadFile(root *os.Root, name string, most int64) ([]byte, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: %w: not a regular file", name, ErrDamaged)
	}
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("read %s: %w: more than %d bytes", name, ErrDamaged, most)
	}
	return b, nil
}
