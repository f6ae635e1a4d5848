package state

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Owner says to whom a written file belongs. The zero IDs are root's.
type Owner struct {
	Mode     fs.FileMode // permission bits only
	UID, GID int
}

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

// WriteFile replaces a file inside root atomically and durably: a new file beside it, sync, rename, sync of the directory.
// A link of that name is replaced, not followed. The directory must be there. When not running as root, the owner of a new
// file is left as it is.
func WriteFile(root *os.Root, name string, b []byte, o Owner) error {
	if err := writeFile(root, name, b, o); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func writeFile(root *os.Root, name string, b []byte, o Owner) error {
	dir, base := filepath.Split(name)
	temp := dir + "." + base + ".new"
	if err := root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil && os.Geteuid() == 0 {
		err = f.Chown(o.UID, o.GID)
	}
	if err == nil {
		err = f.Chmod(o.Mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		root.Remove(temp)
		return err
	}
	if dir == "" {
		dir = "."
	}
	return SyncDir(root, dir)
}

// Remove removes a file inside root durably. That it is not there is no error.
func Remove(root *os.Root, name string) error {
	err := root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return SyncDir(root, filepath.Dir(name))
}

// SyncDir makes the names in a directory inside root durable.
func SyncDir(root *os.Root, name string) error {
	d, err := root.Open(name)
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", name, err)
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", name, err)
	}
	return nil
}
