package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// MakeRoom removes logs, oldest first, until the volume has room for need more bytes or no log is left. It returns
// the names of the removed logs. Too little room in the end is no error.
func (v *Volume) MakeRoom(need int64) (removed []string, err error) {
	err = v.inside(func(r *os.Root) error {
		d, err := r.Open(LogDir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("make room: %w", err)
		}
		defer d.Close()
		list, err := d.ReadDir(-1)
		if err != nil {
			return fmt.Errorf("make room: %w", err)
		}
		var logs []fs.FileInfo
		for _, e := range list {
			if i, err := e.Info(); err == nil && i.Mode().IsRegular() && strings.HasSuffix(e.Name(), ".log") {
				logs = append(logs, i)
			}
		}
		slices.SortFunc(logs, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
		for _, l := range logs {
			if enough, err := hasRoom(r, need); err != nil || enough {
				return err
			}
			if err := r.Remove(LogDir + "/" + l.Name()); err != nil {
				return fmt.Errorf("make room: %w", err)
			}
			removed = append(removed, l.Name())
			if err := d.Sync(); err != nil { // ext4 frees blocks at the end of a transaction
				return fmt.Errorf("make room: %w", err)
			}
		}
		return nil
	})
	return removed, err
}

// roomFile is a file that tests whether there is room. It is removed at once.
const roomFile = ".room"

// hasRoom reports whether the volume has room for need more bytes. It tries, because the statistics of ext4 include
// blocks that it reserves for itself.
func hasRoom(r *os.Root, need int64) (bool, error) {
	f, err := r.OpenFile(roomFile, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, unix.ENOSPC) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("make room: %w", err)
	}
	full := unix.Fallocate(int(f.Fd()), 0, 0, need)
	if err := errors.Join(f.Close(), r.Remove(roomFile)); err != nil {
		return false, fmt.Errorf("make room: %w", err)
	}
	if full != nil && !errors.Is(full, unix.ENOSPC) {
		return false, fmt.Errorf("make room: %w", full)
	}
	return full == nil, nil
}
