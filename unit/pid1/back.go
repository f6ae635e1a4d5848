package pid1

import (
	"fmt"
	"time"

	"gprovision/model/release"
	"gprovision/unit/image"
	"gprovision/unit/state"
)

// previous returns the file name of the image to go back to from the installed one, or "".
func (u *unit) previous(f *Found) string {
	prefix := f.Unit.ImagePrefix
	if prefix == "" {
		prefix = u.m.Site.Names.ImagePrefix
	}
	images, _, err := image.List(f.Volume.Path(state.ImageDir), prefix, false)
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
		if image.CheckAge(im.Name, u.m.Policy) == nil {
			names = append(names, im.Name)
		}
	}
	return image.GoBack(names, h, f.Mark.Release)
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
