package restore

import (
	"errors"
	"io/fs"
	"syscall"
	"time"

	"gprovision/model/release"
)

// history reads the history of images. One that cannot be parsed is renamed and a new one begun: it is hostile input at worst
// and no reason to refuse a restore.
func (j *job) history() release.History {
	b, err := j.Volume.ReadHistory()
	if errors.Is(err, fs.ErrNotExist) {
		return release.History{}
	}
	if err == nil {
		var h release.History
		if h, err = release.ParseHistory(b); err == nil {
			return h
		}
	}
	j.Log.Warn("history cannot be read, beginning a new one", "err", err)
	if err := j.Volume.SetHistoryAside(time.Now()); err != nil {
		j.Log.Warn("bad history cannot be renamed", "err", err)
	}
	return release.History{}
}

func (j *job) record(success bool) {
	h := j.history()
	h.Imaging(j.image.Name.String(), success, time.Now())
	b, err := h.Marshal()
	if err == nil {
		err = j.Volume.WriteHistory(b)
	}
	if err != nil {
		j.Log.Warn("history cannot be written", "err", err)
	}
}

// isDiskError says whether an error is what the kernel answers when a disk is bad, gone or cannot be written.
func isDiskError(err error) bool {
	for _, e := range []error{syscall.EIO, syscall.EROFS, syscall.ENODEV, syscall.ENXIO, syscall.EUCLEAN, syscall.EREMOTEIO, syscall.ETIMEDOUT, syscall.ENOLINK} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
