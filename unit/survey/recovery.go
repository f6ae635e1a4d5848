package survey

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"gprovision/hw/block"
	"gprovision/model/erasure"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/model/release"
	"gprovision/unit/decide"
	"gprovision/unit/image"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// Reasons why a partition is not the recovery volume of this unit.
var (
	errUnreadable = errors.New("the volume cannot be read")
	errForeign    = errors.New("the volume is not of this unit")
	// These two are of a volume that names its own partition: it is whole.
	errOtherBoard    = errors.New("the volume is of a unit with another mainboard")
	errOtherFirmware = errors.New("the volume is of a unit with the other kind of firmware")
)

// elsewhere is a whole recovery volume that was provisioned in another machine, or for other firmware.
type elsewhere struct {
	part  machine.Found
	unit  state.Unit
	state decide.RecoveryState
}

// candidate is a partition that proved to be this unit's recovery volume, and what was read from it.
type candidate struct {
	part    machine.Found
	noted   bool // the kernel has recorded errors in its filesystem
	request *state.Request
	erase   decide.EraseFacts
	last    state.Medium
	notes   []string
	VolumeFindings
}

// recoveryLook is the part of a survey that looks for the recovery volume.
type recoveryLook struct {
	s *Survey
	f *Findings
}

// lookForRecovery finds the recovery volume: an ext4 partition on a bus that the platform allows, whose own record
// names this unit and this partition. A label proves nothing. It only sets the order: partitions with the running
// artifact's label come first, and the others only if none of those is the unit's. A unit keeps the labels that it
// was provisioned with, so they may differ.
func (l recoveryLook) lookForRecovery() {
	parts, err := l.s.Eyes.Partitions(func(v platform.Variant, c platform.Candidate) bool {
		return platform.AllowedRecovery(v, c) || platform.AllowedMain(v, c)
	})
	if err != nil {
		note(&l.f.Notes, "recovery: %v", err)
		return
	}
	standIns, parts := l.standIns(parts)
	if l.adoptStandIn(standIns) {
		return
	}
	var hits []candidate
	var damaged, others []machine.Found
	for _, p := range parts {
		info, noted, err := l.s.Eyes.ProbePartition(p.Path)
		if err != nil || info.Type != "ext4" || info.Label != l.s.Names.Recovery {
			if l.lostRecovery(p) {
				damaged = append(damaged, p)
			} else if err == nil && info.Type == "ext4" {
				others = append(others, p)
			}
			continue
		}
		c := candidate{part: p, noted: noted}
		err = l.s.checkReplayed(l.f, p.Path)
		switch {
		case err == nil:
			err = l.readCandidate(&c, info.UUID)
		case !errors.Is(err, errReplay):
			err = fmt.Errorf("%w: %w", errUnreadable, err)
		}
		switch {
		case err == nil:
			hits = append(hits, c)
		case errors.Is(err, errReplay):
		case errors.Is(err, errUnreadable):
			damaged = append(damaged, p)
			note(&l.f.Notes, "recovery: %s: %v", p.Path, err)
			l.f.newer = l.f.newer || errors.Is(err, state.ErrNewer)
		default:
			l.noteElsewhere(c, err)
			note(&l.f.Notes, "recovery: %s ignored: %v", p.Path, err)
		}
	}
	if len(l.f.Replay) > 0 {
		return
	}
	if len(hits) == 0 {
		var newer []machine.Found
		hits, newer = l.otherLabels(others)
		damaged = append(damaged, newer...)
	}
	switch {
	case len(l.f.Replay) > 0:
	case len(hits) > 1:
		l.f.Recovery = decide.RecoveryAmbiguous
		note(&l.f.Notes, "recovery: %s and %s", hits[0].part.Path, hits[1].part.Path)
	case len(hits) == 1:
		l.adopt(hits[0])
	case len(damaged) > 0:
		l.judgeDamaged(damaged)
	case len(l.f.elsewhere) == 1: // with two, nobody knows which one belongs to the main disk
		e := l.f.elsewhere[0]
		l.f.Recovery, l.f.RecoveryPart, l.f.Unit = e.state, &e.part, e.unit
	}
}

// standIns takes from partitions those on main disks with the label of a stand-in, and leaves those where a recovery volume may be.
func (l recoveryLook) standIns(parts []machine.Found) (standIns []candidate, rest []machine.Found) {
	v := l.s.Eyes.Variant()
	for _, p := range parts {
		c := machine.Candidates([]block.Disk{p.Disk})[0]
		if platform.AllowedMain(v, c) && (p.Table.Kind != layout.GPT || p.Partition.Name == layout.StandInLabel) {
			info, noted, err := l.s.Eyes.ProbePartition(p.Path)
			if err == nil && info.Type == "ext4" && info.Label == layout.StandInLabel {
				standIns = append(standIns, candidate{part: p, noted: noted})
				continue
			}
		}
		if platform.AllowedRecovery(v, c) {
			rest = append(rest, p)
		}
	}
	return standIns, rest
}

// adoptStandIn looks whether one of these stands in for the unit's recovery volume, whose device is being erased. Such a one counts before
// the volume itself, which is old or not made anew to its end. It reports whether nothing more is to be looked at now.
func (l recoveryLook) adoptStandIn(standIns []candidate) bool {
	var hits []candidate
	for _, c := range standIns {
		err := l.s.checkReplayed(l.f, c.part.Path)
		if err == nil {
			err = l.s.view(c.part.Path, func(v *state.Volume) error {
				var err error
				if c.Unit, err = l.s.proveStandIn(v, c.part); err != nil {
					return err
				}
				l.readVolume(&c, v)
				return nil
			})
		}
		if err != nil {
			note(&l.f.Notes, "recovery: %s does not stand in for it: %v", c.part.Path, err)
			continue
		}
		hits = append(hits, c)
	}
	switch {
	case len(l.f.Replay) > 0:
	case len(hits) > 1:
		l.f.Recovery = decide.RecoveryAmbiguous
		note(&l.f.Notes, "recovery: %s and %s stand in for it", hits[0].part.Path, hits[1].part.Path)
	case len(hits) == 1:
		hits[0].StandIn = true
		note(&hits[0].notes, "recovery: %s stands in for it while its device is erased", hits[0].part.Path)
		l.adopt(hits[0])
	default:
		return false
	}
	return true
}

// proveStandIn reads the record of a volume that may stand in for the unit's recovery volume: it must be that of this machine, and the
// volume must say that it stands in as long as the erase goes on.
func (s *Survey) proveStandIn(v *state.Volume, p machine.Found) (state.Unit, error) {
	rec, err := v.ReadUnit()
	if err != nil {
		return rec, err
	}
	e, err := state.ReadErase(v)
	switch {
	case err != nil:
		return rec, err
	case e.StandIn == "" || e.StandIn != p.Partition.UUID:
		return rec, fmt.Errorf("%w: it is not complete, or not needed any more", errForeign)
	case rec.Firmware != s.Eyes.Firmware():
		return rec, errOtherFirmware
	}
	return rec, s.checkBoard(v, rec)
}

// otherLabels returns the recovery volumes of this unit among partitions whose label the artifact does not know. It
// also returns those whose record is newer than this init. A journal is replayed only on a volume that proved to be
// the unit's without the replay.
func (l recoveryLook) otherLabels(parts []machine.Found) (hits []candidate, newer []machine.Found) {
	for _, p := range parts {
		info, noted, err := l.s.Eyes.ProbePartition(p.Path)
		if err != nil {
			continue
		}
		c := candidate{part: p, noted: noted}
		switch err := l.readCandidate(&c, info.UUID); {
		case err == nil:
			if err := l.s.checkReplayed(l.f, p.Path); errors.Is(err, errReplay) {
				continue
			} else if err != nil {
				note(&c.notes, "recovery: %s: %v", p.Path, err)
			}
			note(&c.notes, "recovery: %s has the label %q", p.Path, info.Label)
			hits = append(hits, c)
		case errors.Is(err, state.ErrNewer):
			newer = append(newer, p)
			l.f.newer = true
			note(&l.f.Notes, "recovery: %s: %v", p.Path, err)
		default:
			l.noteElsewhere(c, err)
			note(&l.f.Notes, "recovery: %s ignored: %v", p.Path, err)
		}
	}
	return hits, newer
}

// noteElsewhere remembers a volume that is whole and of another machine, by the error of its proof.
func (l recoveryLook) noteElsewhere(c candidate, err error) {
	state := decide.RecoveryOtherBoard
	switch {
	case errors.Is(err, errOtherFirmware):
		state = decide.RecoveryOtherFirmware
	case !errors.Is(err, errOtherBoard):
		return
	}
	l.f.elsewhere = append(l.f.elsewhere, elsewhere{c.part, c.Unit, state})
}

// adopt makes a candidate the unit's recovery volume.
func (l recoveryLook) adopt(c candidate) {
	l.f.Recovery, l.f.RecoveryErrors, l.f.Request, l.f.LastMedium, l.f.VolumeFindings = decide.RecoveryFound, c.noted, c.request, c.last,
		c.VolumeFindings
	c.erase.EraseAsked = l.f.Erasing.EraseAsked
	l.f.Erasing = c.erase
	l.f.RecoveryPart = &c.part
	l.f.Names = l.s.Names.Of(l.f.Unit.Names())
	l.f.Notes = append(l.f.Notes, c.notes...)
	l.f.Repairs, l.f.RecoveryRepairs = max(l.f.Repairs, l.f.Counts.Repairs), max(l.f.RecoveryRepairs, l.f.Counts.RecoveryRepairs)
	l.f.Attempts = l.f.Counts.BootAttempts
}

// readCandidate proves that a candidate is this unit's recovery volume and reads what lies there.
func (l recoveryLook) readCandidate(c *candidate, fsUUID string) error {
	return l.s.view(c.part.Path, func(v *state.Volume) error {
		var err error
		if c.Unit, err = l.s.prove(v, c.part, fsUUID); err != nil {
			return err
		}
		l.readVolume(c, v)
		return nil
	})
}

// Proves returns nil if the volume on p is this unit's recovery volume. fsUUID is the UUID of its filesystem.
func (s *Survey) Proves(p machine.Found, fsUUID string) error {
	return s.view(p.Path, func(v *state.Volume) error {
		_, err := s.prove(v, p, fsUUID)
		return err
	})
}

// prove reads the record of a volume and compares it with the machine and with the partition p below it.
func (s *Survey) prove(v *state.Volume, p machine.Found, fsUUID string) (state.Unit, error) {
	rec, err := v.ReadUnit()
	if errors.Is(err, fs.ErrNotExist) {
		lost, err := v.HasLostUnit(s.RecordFits(p, fsUUID))
		if lost {
			return rec, fmt.Errorf("%w: its record lies among the files that a repair has found without a name", errUnreadable)
		}
		if err != nil {
			return rec, fmt.Errorf("%w: %w", errUnreadable, err)
		}
		return rec, fmt.Errorf("%w: it has no record; it was never provisioned to the end", errForeign)
	}
	if err != nil {
		return rec, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	if err := s.checkPlace(rec, p, fsUUID); err != nil {
		return rec, err
	}
	return rec, s.checkBoard(v, rec)
}

// checkBoard returns errOtherBoard unless a record is of this machine's mainboard, or of one that this one took the place of.
func (s *Survey) checkBoard(v *state.Volume, rec state.Unit) error {
	if rec.Serial == s.Eyes.Board() {
		return nil
	}
	err := fmt.Errorf("%w: its serial number is %q, and the machine has %q", errOtherBoard, rec.Serial, s.Eyes.Board())
	switch boards, berr := state.ReadBoards(v); {
	case berr != nil:
		return fmt.Errorf("%w; the mainboards that were adopted are not known: %w", err, berr)
	case slices.Contains(boards.Serials, s.Eyes.Board()):
		return nil
	}
	return err
}

// RecordFits reports whether a record is that of the volume on p.
func (s *Survey) RecordFits(p machine.Found, fsUUID string) func(state.Unit) bool {
	return func(rec state.Unit) bool { return s.checkPlace(rec, p, fsUUID) == nil && rec.Serial == s.Eyes.Board() }
}

// checkPlace compares a record with the firmware of the machine and with the partition that the record lies on. The error is errForeign or
// errOtherFirmware.
func (s *Survey) checkPlace(rec state.Unit, p machine.Found, fsUUID string) error {
	want := rec.Recovery.Table.Find(layout.Recovery)
	switch {
	case want == nil || want.UUID != p.Partition.UUID || want.FSUUID != fsUUID:
		return fmt.Errorf("%w: its record names another partition", errForeign)
	case rec.Firmware != s.Eyes.Firmware():
		return fmt.Errorf("%w: it was provisioned for %s, and the machine started with %s", errOtherFirmware, rec.Firmware, s.Eyes.Firmware())
	}
	return nil
}

// readVolume reads from the unit's volume what a survey needs.
func (l recoveryLook) readVolume(c *candidate, v *state.Volume) {
	switch r, err := v.ReadRequest(); {
	case err == nil:
		c.request = &r
	case errors.Is(err, state.ErrDamaged):
		c.BadRequest = err
		note(&c.notes, "request ignored: %v", err)
	case !errors.Is(err, fs.ErrNotExist):
		note(&c.notes, "request ignored: %v", err)
	}
	l.readErase(c, v)
	prefix := l.s.Names.Of(c.Unit.Names()).ImagePrefix
	c.BadOriginal = l.judgeOriginal(v, c.Unit.Original, prefix)
	if c.Counts, c.BadCounts = v.ReadCounts(); c.BadCounts != nil {
		note(&c.notes, "counts ignored: %v", c.BadCounts)
	} else {
		c.CountsPlace, c.BadCounts = v.CountsPlace()
	}
	var err error
	if c.Pending, err = v.ReadPending(); err != nil {
		note(&c.notes, "pending work ignored: %v", err)
	}
	switch m, err := v.ReadMedium(); {
	case err == nil:
		c.last = m
	case !errors.Is(err, fs.ErrNotExist):
		note(&c.notes, "last medium: %v", err)
	}
	if p := l.s.Eyes.Policy(); p.FailedBoots > 0 && c.Counts.BootAttempts >= p.FailedBoots {
		l.readImages(c, v, prefix)
	}
}

// readErase reads what is known of an erase of the unit, and the unit's key if an erase is to be done.
func (l recoveryLook) readErase(c *candidate, v *state.Volume) {
	switch e, err := state.ReadErase(v); {
	case err == nil:
		c.erase.Erase = &e
	case errors.Is(err, state.ErrNewer):
		c.erase.EraseNewer = true
		note(&c.notes, "erase: %v", err)
	case !errors.Is(err, fs.ErrNotExist): // perhaps one that is not at its end
		c.erase.Erase = &state.Erase{Outcome: erasure.Unknown}
		note(&c.notes, "erase: %v", err)
	}
	asked := c.request != nil && c.request.Kind == state.KindErase || l.s.Args.Erase || l.s.Memory.Choice.Kind == decide.ChooseErase
	if !asked && c.erase.Erase == nil {
		return
	}
	if _, err := v.ReadKey(); err != nil {
		c.erase.NoKey = true
		note(&c.notes, "erase: the unit's key: %v", err)
	}
}

// readImages reads which images the unit may go back to.
func (l recoveryLook) readImages(c *candidate, v *state.Volume, prefix string) {
	images, _, err := image.List(v.Path(state.ImageDir), prefix, false)
	if err != nil {
		note(&c.notes, "images: %v", err)
		return
	}
	if c.history, err = v.History(); err != nil {
		note(&c.notes, "history: %v", err)
	}
	for _, im := range images {
		if image.CheckAge(im.Name, l.s.Eyes.Policy()) == nil {
			c.images = append(c.images, im.Name)
		}
	}
}

// previousImage returns the file name of the image to go back to from the installed one. It is empty if there is none.
func previousImage(f *Findings) string { return image.GoBack(f.images, f.history, f.Mark.Release) }

// judgeOriginal returns what speaks against the image that the unit was provisioned with. It does not read the
// content of the image.
func (l recoveryLook) judgeOriginal(v *state.Volume, original, prefix string) error {
	if original == "" {
		return nil
	}
	name, err := release.ParseName(original, prefix)
	if err != nil {
		return fault.Because(fault.ImageName, err)
	}
	err = image.Glance(image.Image{Path: v.Path(state.ImageDir, original), Name: name}, l.s.Eyes.Policy(), l.s.Eyes.Keys())
	if errors.Is(err, fs.ErrNotExist) && fault.Of(err) != fault.ImageUnsigned {
		return nil
	}
	return err
}

// lostRecovery reports whether a partition was a recovery volume and a repair may bring it back. Its first superblock
// is lost, and the copy that a repair would use has the label of a recovery volume: the artifact's, or the Site's
// before that. In a GPT the partition must have that name too. A partition that cannot be read at all is noted, but
// is no candidate: nothing is known about it.
func (l recoveryLook) lostRecovery(p machine.Found) bool {
	for _, label := range slices.Compact([]string{l.s.Names.Recovery, cmp.Or(l.s.SiteLabel, l.s.Names.Recovery)}) {
		if l.lostWith(p, label) {
			return true
		}
	}
	return false
}

func (l recoveryLook) lostWith(p machine.Found, label string) bool {
	if p.Table.Kind == layout.GPT && p.Partition.Name != label {
		return false
	}
	lost, err := l.s.Eyes.LostExt4(p.Path, label)
	if err != nil {
		note(&l.f.Notes, "recovery: %s cannot be read: %v", p.Path, err)
		return false
	}
	if lost {
		note(&l.f.Notes, "recovery: the superblock of %s is lost", p.Path)
	}
	return lost
}

// judgeDamaged judges a recovery volume that cannot be read. Its filesystem can be repaired if only one partition can
// be the volume. A volume whose record is merely newer than this init is not damaged. After a boot that the watchdog
// ended, nothing is repaired: a device that hangs must not keep a complete system from starting. The record shows
// which unit the volume belongs to, but only after the repair.
func (l recoveryLook) judgeDamaged(damaged []machine.Found) {
	l.f.Recovery = decide.RecoveryDamaged
	if len(damaged) != 1 {
		note(&l.f.Notes, "recovery: %d partitions could be the damaged one: none is repaired", len(damaged))
		return
	}
	l.f.RecoveryPart = &damaged[0]
	switch {
	case l.f.newer:
		l.f.Recovery = decide.RecoveryNewer
	case l.s.Memory.Expired:
		note(&l.f.Notes, "recovery: %s is not repaired in this boot: a watchdog ended the one before", damaged[0].Path)
	default:
		l.f.RecoveryRepairable = true
	}
}

// RecordNames reports whether a recovery volume in this machine was provisioned as the platform with this code, by
// its own record. A person named the code. An error means that the disks could not be listed.
func (s *Survey) RecordNames(code string) (bool, error) {
	parts, err := s.Eyes.Partitions(platform.AllowedRecovery)
	if err != nil {
		return false, err
	}
	for _, p := range parts {
		info, _, err := s.Eyes.ProbePartition(p.Path)
		if err != nil || info.Type != "ext4" { // whatever the label
			continue
		}
		named := false
		err = s.view(p.Path, func(v *state.Volume) error {
			rec, err := s.prove(v, p, info.UUID)
			named = err == nil && rec.Named && rec.Platform == code
			return err
		})
		if err == nil && named {
			return true, nil
		}
	}
	return false, nil
}
