package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"

	"gprovision/hw/durable"
	"gprovision/model/release"
)

// History returns the history of images. If the file is missing, the history is empty. It is empty on every error
// too: a history that cannot be read, or has a newer format (release.ErrNewerHistory), does not count.
func (v *Volume) History() (release.History, error) {
	b, err := v.ReadHistory()
	if errors.Is(err, fs.ErrNotExist) {
		return release.History{}, nil
	}
	if err != nil {
		return release.History{}, err
	}
	h, err := release.ParseHistory(b)
	if err != nil {
		return release.History{}, err
	}
	return h, nil
}

// ChangeHistory reads the history, lets change modify it, and writes it again. A damaged history is set aside and a
// new one begins, and damaged says why. At worst the damaged one is hostile input, and it is no reason to go without
// a history. A history of a newer format stays as it is: that is an error.
func (v *Volume) ChangeHistory(now time.Time, change func(*release.History)) (damaged, err error) {
	h, damaged := v.History()
	if errors.Is(damaged, release.ErrNewerHistory) {
		return nil, damaged
	}
	if damaged != nil {
		if err := v.setHistoryAside(now); err != nil {
			return damaged, err
		}
	}
	change(&h)
	b, err := h.Marshal()
	if err == nil {
		err = v.WriteHistory(b)
	}
	return damaged, err
}

// setHistoryAside renames a damaged history to release.BadHistory.
func (v *Volume) setHistoryAside(now time.Time) error {
	return v.inside(func(r *os.Root) error {
		err := r.Rename(HistoryFile, path.Join(LogDir, path.Base(release.BadHistory(now))))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("set %s aside: %w", HistoryFile, err)
		}
		return durable.SyncIn(r, LogDir)
	})
}
