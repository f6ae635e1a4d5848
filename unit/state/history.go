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

// History returns the history of images; one that is missing is empty. It never goes along with an error: what cannot be read, or is of a
// newer format (release.ErrNewerHistory), counts for nothing.
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

// ChangeHistory writes the history again as change leaves it. A damaged one is set aside and a new one begun: it is hostile input at worst, and
// no reason to do without; damaged is why. One of a newer format is left as it is: that is an error.
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
