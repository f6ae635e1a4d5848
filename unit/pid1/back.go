package pid1

import (
	"fmt"
	"time"

	"gprovision/model/release"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// giveUp notes in the history that the installed image does not start, so that it is not chosen again by itself.
func (u *unit) giveUp(v *state.Volume, f *survey.Findings) {
	damaged, err := v.ChangeHistory(time.Now(), func(h *release.History) {
		h.Boot(f.Mark.Release, false, release.MaxFailures+1, time.Now(), fmt.Sprintf("%d boots were not marked good", f.Attempts))
	})
	if damaged != nil {
		u.log.Warn("history cannot be read, beginning a new one", "err", damaged)
	}
	if err != nil {
		u.log.Warn("history cannot be written", "err", err)
	}
}
