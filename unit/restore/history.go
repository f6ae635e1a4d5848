package restore

import (
	"errors"
	"io/fs"
	"syscall"
	"time"

	"gprovision/model/release"
)

// history reads the history of images. One that cannot be parsed is renamed and a new one begun: it is hostile input at worst
// and no reason to refuse a restore. One that is only newer is left as it is: ours says that it may be written.
func (j *job) history() (h release.History, ours bool) {
	b, err := j.Volume.ReadHistory()
	if errors.Is(err, fs.ErrNotExist) {
		return release.History{}, true
	}
	if err == nil {
		if h, err = release.ParseHistory(b); err == nil {
			return h, true
		}
	}
	if errors.Is(err, release.ErrNewerHistory) {
		j.Log.Warn("the history is newer than this program and counts for nothing", "err", err)
		return release.History{}, false
	}
	j.Log.Warn("history cannot be read, beginning a new one", "err", err)
	if err := j.Volume.SetHistoryAside(time.Now()); err != nil {
		j.Log.Warn("bad history cannot be renamed", "err", err)
	}
	return release.History{}, true
}

func (j *job) record(success bool) {
	h, ours := j.history()
	if !ours {
		return
	}
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
