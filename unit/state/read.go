package state

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// ReadFile reads a regular file inside root, of at most the given number of bytes. A larger one, and whatever is not a
// regular file, is ErrDamaged; it never waits for a FIFO or a device. Links are followed inside root only.
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
