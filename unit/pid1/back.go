package pid1

import (
	"fmt"
	"time"

	"gprovision/model/release"
	"gprovision/unit/restore"
	"gprovision/unit/state"
)

// previous returns the file name of the image to go back to from the installed one, or "".
func (u *unit) previous(f *Found) string {
	prefix := f.Unit.ImagePrefix
	if prefix == "" {
		prefix = u.m.Site.Names.ImagePrefix
	}
	images, _, err := restore.ListImages(f.Volume.Path(state.ImageDir), prefix, false)
	if err != nil {
		f.note("images: %v", err)
		return ""
	}
	h, err := f.Volume.History()
	if err != nil {
		f.note("history: %v", err)
	}
	var names []release.Name
	for _, im := range images {
		if restore.CheckAge(im.Name, u.m.Policy) == nil {
			names = append(names, im.Name)
		}
	}
	return goBack(names, h, f.Mark.Release)
}

// goBack chooses the previous good image among images, the newest first: the one that was used last of those that once started
// well; else the newest that is older than the installed one. One with too many failures is not taken, nor the installed one.
func goBack(images []release.Name, h release.History, installed string) string {
	var now *release.Name
	known := map[string]release.Name{}
	for _, n := range images {
		known[n.Base()] = n
		if n.Base() == installed {
			now = &n
		}
	}
	for _, r := range h.ImageResults {
		if n, ok := known[r.Image]; ok && r.Image != installed && r.BootAttempts > r.BootFailures && h.Check(r.Image) {
			return n.String()
		}
	}
	for _, n := range images {
		if now != nil && n.Compare(*now) < 0 && h.Check(n.Base()) {
			return n.String()
		}
	}
	return ""
}

// giveUp notes in the history that the installed image does not start, so that it is not chosen again by itself.
func (u *unit) giveUp(f *Found) {
	damaged, err := f.Volume.ChangeHistory(time.Now(), func(h *release.History) {
		h.Boot(f.Mark.Release, false, release.MaxFailures+1, time.Now(), fmt.Sprintf("%d boots were not marked good", f.Attempts))
	})
	if damaged != nil {
		u.log.Warn("history cannot be read, beginning a new one", "err", damaged)
	}
	if err != nil {
		u.log.Warn("history cannot be written", "err", err)
	}
}
