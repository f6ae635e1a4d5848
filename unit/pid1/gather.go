package pid1

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/hw/host"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/site"
	"gprovision/unit/decide"
	"gprovision/unit/job/rescue"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// recoveryPatience is how long a missing recovery volume may hold up a complete main system.
const recoveryPatience = 10 * time.Second

// Found is what gathering found beside the facts: handles that a job needs.
type Found struct {
	decide.Facts
	// Unit and Volume belong to the recovery volume, if that was found. It is mounted read-only.
	Unit   state.Unit
	Volume *state.Volume
	// RecoveryPart is the partition of the recovery volume, also of a damaged one if only one can be it.
	RecoveryPart *machine.Found
	// newer says that the record of a damaged one was written by a newer init: no repair makes that readable.
	newer bool
	// tables are the partition tables that were read from the end of their disk, because the first copy is damaged.
	tables []backupTable
	// badRequest is why the request on the recovery volume cannot be used; nil if there is none, or a good one.
	badRequest error
	// badOriginal is why the image that the unit was provisioned with cannot be restored, as far as that shows without reading it; nil if
	// nothing speaks against it, or it is not there.
	badOriginal error
	// MainPart is the partition or array of the main system, if there is one. It is not mounted. An array is on no disk.
	MainPart *machine.Found
	// Planned are the disks that the platform plans as main disks, where MainPart is nil or an array and they are there.
	Planned []block.Disk
	// members are the names of the disks with members of the unit's array, degraded says that it lacks some, and awaits that more
	// are waited for.
	members          []string
	degraded, awaits bool
	// Unreadable says that the main partition is there and cannot be read at all.
	Unreadable bool
	// Mark is the main system's mark.
	Mark state.Mark
	// Mends is how many boots in a row repaired what starts the unit.
	Mends int
	// Pending is what this boot has to do if it is a normal one.
	Pending state.Pending
	// Media are the emergency media, Offer the one whose image OfferFile may be restored; nil if there is none.
	Media     []rescue.Medium
	Offer     *rescue.Medium
	OfferFile rescue.File
	// Sticks are the recovery sticks, the one that this boot came from first; FromStick says that there is such a one.
	Sticks    []rescue.Stick
	FromStick bool
	// originMissing says that no disk is there that this boot can have come from: a slow stick, perhaps.
	originMissing bool
	// LastMedium is the medium that the unit was restored from last, and lastPresent says that it is there.
	LastMedium  state.Medium
	lastPresent bool
	// Notes say what speaks for and against the candidates that were looked at.
	Notes []string
}

func (f *Found) note(format string, a ...any) { f.Notes = append(f.Notes, fmt.Sprintf(format, a...)) }

// Gather looks at the machine and waits for what is missing: for as long as the policy says for a main disk that does not
// answer, and shorter for a recovery volume beside a complete system. changed wakes it when a device came or went.
func (u *unit) Gather(ctx context.Context, changed <-chan struct{}, start time.Time) (*Found, error) {
	for {
		f := u.look(ctx)
		wait, more := u.hopes(f, time.Since(start))
		if !more || u.wanted {
			u.tellOfSilence()
			return f, nil
		}
		u.m.Log.Debug("waiting for devices", "recovery", string(f.Recovery), "main", string(f.Main), "left", wait.Round(time.Second).String())
		u.forget(f)
		t := time.NewTimer(wait)
		ports, stop := u.usbChanged(ctx)
		select {
		case <-changed:
		case <-ports:
		case <-t.C:
		case <-u.m.Panel.Pressed():
			u.wanted = true
		case <-ctx.Done():
			t.Stop()
			stop()
			return nil, ctx.Err()
		}
		t.Stop()
		stop()
	}
}

// hopes says whether it is worth to look again, and how long until then if nothing changes. waited is how long the unit has waited.
func (u *unit) hopes(f *Found, waited time.Duration) (wait time.Duration, more bool) {
	if u.provisions() || f.Choice.Kind == decide.ChoosePowerOff { // nothing that could come is used
		return 0, false
	}
	wait = max(u.patience(f), u.mediaPatience(f, waited)) - waited
	// Members that are missing: the next look starts the array without them. It must not come before that is allowed.
	return max(wait, 0), wait > 0 || f.awaits
}

// patience says how long after init's start more may be hoped for than f has.
func (u *unit) patience(f *Found) time.Duration {
	long := u.m.Policy.RootWait()
	switch {
	case f.awaits:
		return min(memberPatience, long)
	case f.Main == decide.MainMarked && f.Recovery == decide.RecoveryFound:
		return 0
	case f.Main == decide.MainMarked, f.RecoveryRepairable && f.RecoveryRepairs == 0: // before a damaged one is repaired another may appear
		return min(recoveryPatience, long)
	case f.FromStick: // a person is there, who can have it looked for again
		return min(recoveryPatience, long)
	case f.Recovery == decide.RecoveryFound && f.RestoreRequested() && f.MainPart == nil && (f.Main == decide.MainBlank || f.Main == decide.MainForeign):
		// Another disk may be in the place of one that is slow to answer.
		if f.Recorded {
			return 0
		}
		return long
	case f.Recovery == decide.RecoveryFound && f.RestoreRequested() && f.Main != decide.MainAbsent:
		return 0
	case f.Recovery == decide.RecoveryFound && (f.Main == decide.MainUnmarked || f.Main == decide.MainDamaged && !f.Unreadable):
		return 0
	}
	return long
}

// recorded says whether d is the main disk of the unit's record. A disk without a serial number is only taken for it if it is
// like it and carries nothing that could be somebody's.
func recorded(d block.Disk, r state.Disk, nothing bool) bool {
	if string(d.Bus) != r.Bus || d.Model != r.Model || d.Size != r.Size || d.Serial != r.Serial || d.WWN != r.WWN {
		return false
	}
	return nothing || d.Serial != "" || d.WWN != ""
}

// records returns the records of disks, in their order; nil if one has none, or a record has no disk.
func records(disks []block.Disk, main []state.Disk, nothing bool) []state.Disk {
	if len(disks) != len(main) {
		return nil
	}
	left := slices.Clone(main)
	var out []state.Disk
	for _, d := range disks {
		i := slices.IndexFunc(left, func(r state.Disk) bool { return recorded(d, r, nothing) })
		if i < 0 {
			return nil
		}
		out, left = append(out, left[i]), slices.Delete(left, i, i+1)
	}
	return out
}

// look gathers once. It mounts the recovery volume read-only and changes nothing.
func (u *unit) look(ctx context.Context) *Found {
	f := &Found{Facts: decide.Facts{EraseAsked: u.args.Erase, ManifestURL: u.args.ManifestURL, Recovery: decide.RecoveryMissing, Main: decide.MainAbsent,
		Repairs: u.repairs, RecoveryRepairs: u.recoveryRepairs, ShellAsked: u.args.Shell && !u.shellDone, Choice: u.choice}}
	u.ownNames()
	u.useBackupTables(f)
	u.lookForRecovery(f)
	u.judgeTables(f)
	u.lookForMain(ctx, f)
	u.lookForMedia(ctx, f)
	if f.Worn(u.m.Policy) && f.Main == decide.MainMarked && !u.backFailed {
		f.Previous = u.previous(f)
	}
	if u.args.Shell && !u.m.Policy.Shell {
		f.note("frmode=shell is ignored: the policy has no shell")
	}
	return f
}

// ownNames makes the artifact's names count again, until a record says what those of the unit are.
func (u *unit) ownNames() {
	if u.names == (site.Names{}) {
		u.names = u.m.Site.Names
	}
	u.m.Site.Names = u.names
}

// forget releases what look mounted.
func (u *unit) forget(*Found) {
	for _, dir := range []string{u.m.Places.Main, u.m.Places.Recovery} {
		if yes, err := u.m.Mounted(dir); err == nil && yes {
			if err := u.m.Unmount(dir); err != nil {
				u.m.Log.Warn("volume cannot be unmounted", "dir", dir, "err", err)
			}
		}
	}
}

// lookForRecovery finds the recovery volume: an ext4 partition on a bus that the platform allows, whose own record names this unit and
// this partition. A label proves nothing: those that have the one of the artifact that runs are looked at first, and the others
// where none of these is the unit's, since a unit keeps the labels that it was provisioned with.
func (u *unit) lookForRecovery(f *Found) {
	parts, err := u.m.Partitions(platform.AllowedRecovery)
	if err != nil {
		f.note("recovery: %v", err)
		return
	}
	var hits, damaged, others []machine.Found
	mounted := "" // a candidate that proved itself stays mounted, unless there is another
	for _, p := range parts {
		info, noted, err := u.m.ProbePartition(p.Path)
		if err != nil || info.Type != "ext4" || info.Label != u.m.Site.Names.Recovery {
			if u.lostRecovery(f, p) {
				damaged = append(damaged, p)
			} else if err == nil && info.Type == "ext4" {
				others = append(others, p)
			}
			continue
		}
		if mounted != "" {
			u.forget(f)
			mounted = ""
		}
		switch err := u.provesRecovery(p, info.UUID); {
		case err == nil:
			hits, mounted = append(hits, p), p.Path
			f.RecoveryErrors = noted
		case errors.Is(err, errUnreadable):
			damaged = append(damaged, p)
			f.note("recovery: %s: %v", p.Path, err)
			f.newer = f.newer || errors.Is(err, state.ErrNewer)
		default:
			f.note("recovery: %s ignored: %v", p.Path, err)
		}
	}
	if len(hits) == 0 {
		var newer []machine.Found
		hits, newer = u.otherLabels(f, others)
		damaged = append(damaged, newer...)
	}
	switch {
	case len(hits) > 1:
		u.forget(f)
		f.Recovery = decide.RecoveryAmbiguous
		f.note("recovery: %s and %s", hits[0].Path, hits[1].Path)
		return
	case len(hits) == 0 && len(damaged) > 0:
		u.judgeDamaged(f, damaged)
		return
	case len(hits) == 0:
		return
	}
	if mounted == "" {
		if err := u.mountVolume(hits[0].Path, true); err != nil {
			f.note("recovery: %s: %v", hits[0].Path, err)
			u.judgeDamaged(f, hits)
			return
		}
	}
	f.Recovery, f.RecoveryPart, f.Volume = decide.RecoveryFound, &hits[0], state.Open(u.m.Places.Recovery)
	u.readVolume(f)
}

// otherLabels returns the recovery volumes of this unit among partitions with a label that the artifact does not know, and those whose
// record is newer than this init. Nothing is written to any of them, not even their journal is replayed, and none stays mounted.
func (u *unit) otherLabels(f *Found, parts []machine.Found) (hits, newer []machine.Found) {
	for _, p := range parts {
		info, noted, err := u.m.ProbePartition(p.Path)
		if err != nil {
			continue
		}
		switch err := u.proves(p, info.UUID, "noload"); {
		case err == nil:
			u.forget(f)
			hits = append(hits, p)
			f.RecoveryErrors = noted
			f.note("recovery: %s has the label %q", p.Path, info.Label)
		case errors.Is(err, state.ErrNewer):
			newer = append(newer, p)
			f.newer = true
			f.note("recovery: %s: %v", p.Path, err)
		}
	}
	return hits, newer
}

var (
	errUnreadable = errors.New("the volume cannot be read")
	errForeign    = errors.New("the volume is not of this unit")
)

// provesRecovery mounts a candidate read-only, reads its record and compares that with the machine and with the partition itself. One
// that proves nothing is unmounted.
func (u *unit) provesRecovery(p machine.Found, fsUUID string) error { return u.proves(p, fsUUID, "") }

// proves is provesRecovery with options of the filesystem.
func (u *unit) proves(p machine.Found, fsUUID, data string) (err error) {
	if err := u.mountWith(p.Path, true, data); err != nil {
		return fmt.Errorf("%w: %v", errUnreadable, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, u.m.Unmount(u.m.Places.Recovery))
		}
	}()
	v := state.Open(u.m.Places.Recovery)
	rec, err := v.ReadUnit()
	if errors.Is(err, fs.ErrNotExist) {
		lost, err := v.HasLostUnit(u.recordFits(p, fsUUID))
		if lost {
			return fmt.Errorf("%w: its record lies among the files that a repair has found without a name", errUnreadable)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errUnreadable, err)
		}
		return fmt.Errorf("%w: it has no record; it was never provisioned to the end", errForeign)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return u.checkRecord(rec, p, fsUUID)
}

// recordFits says whether a record is that of the volume on p.
func (u *unit) recordFits(p machine.Found, fsUUID string) func(state.Unit) bool {
	return func(rec state.Unit) bool { return u.checkRecord(rec, p, fsUUID) == nil }
}

// checkRecord compares a record with the machine and with the partition that it lies on. The error is errForeign.
func (u *unit) checkRecord(rec state.Unit, p machine.Found, fsUUID string) error {
	want := rec.Recovery.Table.Find(layout.Recovery)
	switch {
	case rec.Serial != u.m.Serial:
		return fmt.Errorf("%w: its serial number is %q", errForeign, rec.Serial)
	case want == nil || want.UUID != p.Partition.UUID || want.FSUUID != fsUUID:
		return fmt.Errorf("%w: its record names another partition", errForeign)
	case rec.Firmware != u.m.Firmware:
		return fmt.Errorf("%w: it was provisioned for %s firmware", errForeign, rec.Firmware)
	}
	return nil
}

func (u *unit) mountVolume(part string, readOnly bool) error { return u.mountWith(part, readOnly, "") }

// mountWith is mountVolume with options of the filesystem.
func (u *unit) mountWith(part string, readOnly bool, data string) error {
	return u.m.Mount(part, u.m.Places.Recovery, "ext4", host.MountOptions{ReadOnly: readOnly, NoExec: true, NoSUID: true, NoDev: true, Data: data})
}

func (u *unit) readVolume(f *Found) {
	var err error
	if f.Unit, err = f.Volume.ReadUnit(); err != nil {
		f.Recovery = decide.RecoveryDamaged
		f.note("recovery: %v", err)
		return
	}
	u.m.UnitArgs = f.Unit.BootArgs
	u.m.Site.Names = u.m.Site.Names.Of(f.Unit.Names())
	switch r, err := f.Volume.ReadRequest(); {
	case err == nil:
		f.Request = &r
	case errors.Is(err, state.ErrDamaged):
		f.badRequest = err
		f.note("request ignored: %v", err)
	case !errors.Is(err, fs.ErrNotExist):
		f.note("request ignored: %v", err)
	}
	f.badOriginal = u.judgeOriginal(f)
	c, err := f.Volume.ReadCounts()
	if err != nil {
		f.note("counts ignored: %v", err)
	}
	f.Repairs, f.RecoveryRepairs = max(f.Repairs, c.Repairs), max(f.RecoveryRepairs, c.RecoveryRepairs)
	f.Attempts, f.Mends = c.BootAttempts, c.Mends
	if f.Pending, err = f.Volume.ReadPending(); err != nil {
		f.note("pending work ignored: %v", err)
	}
}

// lookForMain finds the partition of the main system by its recorded identifier, on a bus that the platform allows. Without a
// recovery volume the kernel argument real_root says where it is.
func (u *unit) lookForMain(ctx context.Context, f *Found) {
	root := u.args.Root
	if f.Recovery == decide.RecoveryFound {
		if f.Unit.Array != nil {
			u.lookForArray(ctx, f)
			return
		}
		root = decide.Root{}
		if p := f.Unit.Main[0].Table.Find(layout.Primary); p != nil {
			root = decide.Root{By: decide.ByPARTUUID, Ident: p.UUID}
		}
	}
	if f.Recovery != decide.RecoveryFound && root.By == decide.ByUUID && u.m.Identity.Variant.HasRAID() {
		u.guessArray(ctx, f, root.Ident)
		return
	}
	parts, err := u.m.Partitions(platform.AllowedMain)
	if err != nil {
		f.note("main: %v", err)
		return
	}
	var hits []machine.Found
	probe := func(path string) (filesystem.Info, error) {
		info, _, err := u.m.ProbePartition(path)
		return info, err
	}
	for _, p := range parts {
		if namesPart(root, p, probe) {
			hits = append(hits, p)
		}
	}
	switch {
	case len(hits) > 1:
		f.Main = decide.MainAmbiguous
		f.note("main: %s and %s", hits[0].Path, hits[1].Path)
	case len(hits) == 1:
		f.MainPart, f.Recorded = &hits[0], f.Recovery == decide.RecoveryFound
		u.judgeMain(f)
	default:
		u.lookForPlannedDisk(f)
	}
}

// judgeMain mounts the main system read-only and reads its mark.
func (u *unit) judgeMain(f *Found) {
	info, noted, err := u.m.ProbePartition(f.MainPart.Path)
	if err != nil {
		f.Main, f.Unreadable = decide.MainDamaged, true
		f.note("main: %s cannot be read: %v", f.MainPart.Path, err)
		return
	}
	if info.Type != "ext4" {
		f.Main = otherContent(info)
		f.note("main: %s carries %q instead of ext4", f.MainPart.Path, info.Type)
		return
	}
	if noted {
		f.Main = decide.MainDamaged
		f.note("main: the kernel has noted errors in the filesystem of %s", f.MainPart.Path)
		return
	}
	if err := u.m.Mount(f.MainPart.Path, u.m.Places.Main, "ext4", host.MountOptions{ReadOnly: true}); err != nil {
		f.Main = decide.MainDamaged
		f.note("main: %v", err)
		return
	}
	defer func() {
		if err := u.m.Unmount(u.m.Places.Main); err != nil {
			f.note("main: %v", err)
		}
	}()
	mark, err := u.readMark()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Main = decide.MainUnmarked
	case err != nil:
		f.Main = decide.MainDamaged
		f.note("main: mark: %v", err)
	default:
		f.Main, f.Mark, f.Fulfilled = decide.MainMarked, mark, mark.Request
	}
}

// otherContent says what a main partition without ext4 means. Nothing, or what a bad superblock looks like, is damage. What is
// recognised as something else is somebody's data: a repair could find old copies of superblocks and write over it.
func otherContent(info filesystem.Info) decide.MainState {
	switch info.Type {
	case "", "ext2", "jbd":
		return decide.MainDamaged
	}
	return decide.MainForeign
}

func (u *unit) readMark() (state.Mark, error) {
	root, err := os.OpenRoot(u.m.Places.Main)
	if err != nil {
		return state.Mark{}, err
	}
	defer root.Close()
	b, err := state.ReadFile(root, u.m.Site.Names.Mark, state.MaxMark)
	if err != nil {
		return state.Mark{}, err
	}
	return state.ParseMark(b)
}

// lookForPlannedDisk is for a main partition that is nowhere: are the disks that the platform plans there, and are they blank?
func (u *unit) lookForPlannedDisk(f *Found) {
	chosen, err := u.plannedDisks(f)
	switch {
	case errors.Is(err, fault.DiskAmbiguous):
		f.Main = decide.MainAmbiguous
		f.note("main: %v", err)
		return
	case err != nil:
		f.note("main: %v", err)
		return
	}
	f.Planned = chosen
	f.Main = decide.MainBlank
	for _, c := range chosen {
		blank, why, err := u.m.BlankDisk(c.Path)
		switch {
		case err != nil:
			f.Main = decide.MainAbsent
			f.note("main: %s cannot be read: %v", c.Path, err)
			return
		case !blank:
			f.Main = decide.MainForeign
			f.note("main: %s carries %s", c.Path, why)
		}
	}
	if f.Recovery != decide.RecoveryFound {
		return
	}
	if f.Main == decide.MainForeign && u.begunMain(f) {
		f.Main = decide.MainBegun
	}
	f.Recorded = records(f.Planned, f.Unit.Main, f.Main != decide.MainForeign) != nil
}

// begunMain says whether the planned disks are the recorded ones, and nothing is recognised on them but their recorded tables.
func (u *unit) begunMain(f *Found) bool {
	own := records(f.Planned, f.Unit.Main, true)
	for i, r := range own {
		only, err := u.m.OnlyTable(f.Planned[i].Path, r.Table)
		if err != nil {
			f.note("main: %s: %v", f.Planned[i].Path, err)
		}
		if !only {
			return false
		}
	}
	return own != nil
}

// plannedDisks returns the disks that the platform plans as main disks.
func (u *unit) plannedDisks(f *Found) ([]block.Disk, error) {
	disks, err := u.m.Disks()
	if err != nil {
		return nil, err
	}
	recovery := ""
	if f.RecoveryPart != nil {
		recovery = f.RecoveryPart.Disk.Path
	}
	chosen, err := platform.ChooseMain(u.m.Identity.Variant, machine.Candidates(disks), recovery)
	if err != nil {
		return nil, err
	}
	var out []block.Disk
	for _, c := range chosen {
		for _, d := range disks {
			if d.Path == c.Path {
				out = append(out, d)
			}
		}
	}
	return out, nil
}
