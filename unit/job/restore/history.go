package restore

import (
	"errors"
	"syscall"
	"time"

	"gprovision/model/release"
)

// history reads the history of images. One that cannot be read counts for nothing. The first record of this restore sets it aside.
func (j *restoring) history() release.History {
	h, err := j.Volume.History()
	if err != nil {
		j.Log.Warn("the history of images cannot be read and counts for nothing", "err", err)
	}
	return h
}

// record notes what became of the image.
func (j *restoring) record(success bool) {
	damaged, err := j.Volume.ChangeHistory(time.Now(), func(h *release.History) { h.Imaging(j.image.Name.String(), success, time.Now()) })
	if damaged != nil {
		j.Log.Warn("a new history of images begins", "err", damaged)
	}
	if err != nil {
		j.Log.Warn("history cannot be written", "err", err)
	}
}

// isDiskError reports whether an error is what the kernel answers when a disk is bad, gone or cannot be written.
func isDiskError(err error) bool {
	for _, e := range []error{syscall.EIO, syscall.EROFS, syscall.ENODEV, syscall.ENXIO, syscall.EUCLEAN, syscall.EREMOTEIO, syscall.ETIMEDOUT, syscall.ENOLINK} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
