// Package durable puts files in place so that they are there whole or not at all, whatever happens meanwhile, and are still there after a
// power cut: the new content is written beside the old one and synced, takes its name, and the directory is synced.
//
// It knows paths, and names inside an os.Root for trees that nobody vouches for. What is too large to hold in memory its writer puts in
// place.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Owner says to whom a written file belongs. The zero IDs are root's.
type Owner struct {
	Mode     fs.FileMode // permission bits only
	UID, GID int
}

// Write replaces the file path with content of these permissions, durably. A link of that name is replaced, not followed. The directory
// must be there. Whoever runs it owns a new file.
func Write(path string, content []byte, perm fs.FileMode) error {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := errors.Join(writeFile(root, filepath.Base(path), content, Owner{Mode: perm}), root.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Leftover reports whether a file of that name is what a write leaves that was cut off. It may be removed.
func Leftover(name string) bool {
	return strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".new")
}

// Sync makes what is at path durable: the content of a file, the names in a directory.
func Sync(path string) error {
	f, err := os.Open(path)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// WriteIn replaces a file inside root, durably.
// A link of that name is replaced, not followed. The directory must be there. When not running as root, the owner of a new
// file is left as it is.
func WriteIn(root *os.Root, name string, b []byte, o Owner) error {
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
	return SyncIn(root, dir)
}

// RemoveIn removes a file inside root durably. That it is not there is no error.
func RemoveIn(root *os.Root, name string) error {
	err := root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return SyncIn(root, filepath.Dir(name))
}

// SyncIn makes the names in a directory inside root durable.
func SyncIn(root *os.Root, name string) error {
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
