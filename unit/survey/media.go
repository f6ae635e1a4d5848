package survey

import (
	"context"
	"slices"

	"gprovision/hw/block"
	"gprovision/site"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/medium"
)

// Finder returns a finder of media for a unit with these names.
func (s *Survey) Finder(names site.Names) medium.Finder {
	return medium.Finder{Eyes: s.Eyes, Names: names}
}

// lookForMedia looks for emergency media on the disks that are not the unit's own.
func (s *Survey) lookForMedia(ctx context.Context, f *Findings) {
	if s.Provisions() {
		return
	}
	own := map[string]bool{}
	for _, p := range []*machine.Found{f.RecoveryPart, f.MainPart} {
		if p != nil {
			own[p.Disk.Name] = true
		}
	}
	for _, d := range f.Planned {
		own[d.Name] = true
	}
	for _, name := range f.Members {
		own[name] = true
	}
	// One list serves both looks. So a stick that appears in between is seen by both or by neither. If this boot came
	// from it, the unit then waits for it.
	disks, err := s.Eyes.Disks()
	if err != nil {
		note(&f.Notes, "media: %v", err)
		return
	}
	s.lookForSticks(f, disks, own)
	found, notes := s.Finder(f.Names).Find(ctx, disks, own)
	f.Notes = append(f.Notes, notes...)
	f.Media = found
	s.judgeMedia(f)
}

// judgeMedia sets the facts about media.
func (s *Survey) judgeMedia(f *Findings) {
	present := map[string]bool{}
	for i, m := range f.Media {
		for _, r := range m.Refused {
			note(&f.Notes, "medium %s: %s: %v", m.Path, r.File, r.Err)
		}
		if len(m.Files) == 0 && f.Medium == decide.NoMedium {
			f.Medium = decide.MediumUnusable
		}
		for _, file := range m.Files {
			present[file.ID] = true
			is := s.stateOf(f, file)
			if f.Offer == nil || is != decide.MediumDone && f.Medium == decide.MediumDone || is == decide.MediumConfirmed {
				f.Medium, f.Offer, f.OfferFile = is, &f.Media[i], file
			}
		}
	}
	f.LastPresent = present[f.LastMedium.ID]
}

func (s *Survey) stateOf(f *Findings, file medium.File) decide.MediumState {
	again := f.LastMedium.ID == file.ID && f.LastMedium.Removed
	switch {
	case s.Memory.Answered[file.ID] != "":
		note(&f.Notes, "medium: %s is left alone: %s", file.Base, s.Memory.Answered[file.ID])
		return decide.MediumDone
	case f.RestoreRequested() && f.Request.ID == file.ID:
		return decide.MediumConfirmed
	case !again && (f.LastMedium.ID == file.ID || f.Fulfilled == file.ID):
		note(&f.Notes, "medium: the unit was restored from %s already: remove the medium", file.Base)
		return decide.MediumDone
	}
	return decide.MediumOffered
}

// lookForSticks finds the recovery sticks and marks the one that this boot came from.
func (s *Survey) lookForSticks(f *Findings, disks []block.Disk, own map[string]bool) {
	sticks := s.Finder(f.Names).Sticks(disks, own)
	f.Sticks = sticks
	from := s.startedFrom(f)
	i := slices.IndexFunc(sticks, func(s medium.Stick) bool { return s.Carries(from) })
	if i < 0 {
		f.OriginMissing = from != "" && !s.hasPartition(disks, from)
		return
	}
	f.FromStick = true
	sticks[0], sticks[i] = sticks[i], sticks[0]
	note(&f.Notes, "this boot came from the recovery stick %s", sticks[0].Disk.Name)
}

// hasPartition reports whether any of the disks has a partition with that GUID that the kernel knows.
func (s *Survey) hasPartition(disks []block.Disk, id string) bool {
	return slices.ContainsFunc(s.Eyes.PartitionsOn(disks, nil), func(p machine.Found) bool { return p.Partition.UUID == id })
}

// HasFile reports whether a plugged-in medium has the image with this identifier.
func (m *MediaFindings) HasFile(id string) bool {
	return slices.ContainsFunc(m.Media, func(m medium.Medium) bool {
		return slices.ContainsFunc(m.Files, func(file medium.File) bool { return file.ID == id })
	})
}

// StickImage returns the newest image of a recovery stick. ok is false if there is none.
func (m *MediaFindings) StickImage() (on medium.Medium, file medium.File, ok bool) {
	for _, on := range m.Media {
		if on.Stick && len(on.Files) > 0 {
			return on, on.Files[0], true
		}
	}
	return medium.Medium{}, medium.File{}, false
}
