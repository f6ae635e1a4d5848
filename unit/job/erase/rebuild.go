package erase

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"gprovision/hw/block"
	"gprovision/hw/durable"
	"gprovision/hw/host"
	"gprovision/model/erasure"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/step"
	"gprovision/unit/job"
	"gprovision/unit/job/erase/engine"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/state"
	"gprovision/unit/volume"
)

// standIn is the copy of the recovery volume on a main disk that stands in for it while its device is erased.
//
// At each moment one of the two counts, and which one that is changes by one atomic write on the stand-in: that its state names its own
// partition (state.Erase.StandIn). Until then the old recovery volume counts, and the copy is begun anew after a power cut. From then on
// the survey takes the stand-in, whatever is on the recovery device: that is erased, made anew, and filled. When it is proved the stand-in
// takes its word back. After each of these two the unit surveys and decides again, as it would after a power cut. The last device that is
// left has only then what could start the unit taken away.
type standIn struct {
	// Disk is the number of the main disk in the plan.
	Disk int `json:"disk"`
	// Table is the partition table of that disk meanwhile.
	Table layout.Table `json:"table"`
	// Cleared reports whether all of it is overwritten, since it is not needed any more.
	Cleared bool `json:"cleared,omitempty"`
}

// copyMount is how a copy of the recovery volume is mounted while it is made. Nothing is on a main disk then.
func copyMount() host.MountOptions { return host.MountOptions{NoExec: true, NoSUID: true, NoDev: true} }

// recoveryDevice returns the number in the plan of the recovery device that is to be erased and made anew, -1 if none is.
func recoveryDevice(e *entry) int {
	if i := len(e.Plan.Disks) - 1; i >= 0 && e.Plan.Disks[i].Role == erasure.RecoveryVolume {
		return i
	}
	return -1
}

// planDevice plans the recovery device, or says why it cannot be erased as a whole and made anew.
func planDevice(p planner) (out planned, why string) {
	if p.f.Unit.OneDisk() {
		return out, "the recovery volume is on a main disk"
	}
	d, err := p.m.RecoveryDisk(p.f.Unit)
	if err == nil && d.Name != p.f.RecoveryPart.Disk.Name {
		err = fmt.Errorf("%s has the partitions of the record", d.Name)
	}
	if err == nil {
		out, err = p.planned(d, []block.Disk{d})
	}
	if err != nil {
		return out, err.Error()
	}
	if out.shares() {
		return out, "another namespace of its NVM subsystem is not a part of it"
	}
	out.Role = erasure.RecoveryVolume
	return out, ""
}

// standInSteps returns the job where a stand-in counts: the recovery device is erased, and made anew unless data may be left there.
func standInSteps(j *erasing) []step.Step {
	return []step.Step{
		{Name: "lock-others", Say: "Locking others", Run: j.lockOthers},
		{Name: "erase-recovery", Say: "Erasing recovery", Run: j.eraseDisks},
		{Name: "copy-back", Say: "Copying back", Run: func(ctx context.Context) error { return copyBack(ctx, j) }},
		{Name: "certify", Say: "Certificate", Run: j.certify},
	}
}

// homeSteps returns the job where the recovery device was erased and made anew.
func homeSteps(j *erasing) []step.Step {
	return []step.Step{
		{Name: "lock-others", Say: "Locking others", Run: j.lockOthers},
		{Name: "clear-copy", Say: "Clearing copy", Run: func(context.Context) error { return clearCopy(j) }},
		{Name: "certify", Say: "Certificate", Run: j.certify},
	}
}

// choosePlace chooses the main disk for the stand-in: the first one whose erase is proved and that has room for what stays. Where there is
// none the recovery device is left out of the plan.
func choosePlace(j *erasing) error {
	device := recoveryDevice(&j.entry)
	if device < 0 || j.entry.StandIn != nil {
		return nil
	}
	var need int64
	err := j.book.change(func(v *state.Volume) (err error) {
		n, err := state.Forget(v)
		if j.entry.Unlinked += n; err == nil {
			need, err = roomFor(v)
		}
		return errors.Join(err, writeJSON(v, runFile, j.entry))
	})
	if err != nil {
		return err
	}
	why := "the erase of no main disk is proved"
	for i, p := range j.entry.Plan.Disks[:device] {
		if p.shares() || j.entry.Drives[i].Done.Outcome != erasure.Proved {
			continue
		}
		d := p.disk()
		table, err := layout.ForStandIn(j.env.Machine.Firmware, layout.Device{Size: d.Size, SectorSize: d.SectorSize}, need, machine.NewIDs())
		if err != nil {
			why = fmt.Sprintf("what stays does not fit on %s: %v", d.Name, err)
			continue
		}
		j.env.Machine.Log.Info("the recovery device is erased too: what stays is copied to a main disk", "disk", d.Name, "bytes", need)
		return j.note(func() { j.entry.StandIn = &standIn{Disk: i, Table: table} })
	}
	j.env.Machine.Log.Warn("the recovery device is not erased as a whole", "why", why, journal.ForPerson())
	j.parts = nil
	return j.note(func() {
		j.entry.Plan.Disks, j.entry.Drives = j.entry.Plan.Disks[:device], j.entry.Drives[:device]
		j.entry.Plan.NoRebuild = why
	})
}

// roomFor returns how large a filesystem for a copy of a volume must be, in bytes: with journal, tables, and what the erase writes.
func roomFor(v *state.Volume) (n int64, err error) {
	err = eachFile(v.Path(), func(_ string, info fs.FileInfo) error {
		n += info.Size()
		return nil
	})
	return n + n/16 + 256*layout.MiB, err
}

// eachFile calls do for all directories and regular files below a directory, with their names below it. A link is no file of ours.
func eachFile(dir string, do func(name string, info fs.FileInfo) error) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name == "lost+found" {
			return fs.SkipDir
		}
		if name == "." || !d.IsDir() && !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return do(name, info)
	})
}

// copyVolume copies a volume to an empty filesystem that is mounted at dir, and compares what both devices hold then. It leaves out what
// is made for the device itself, and what says which volume counts.
func copyVolume(ctx context.Context, m *machine.Machine, v *state.Volume, dir string) error {
	var total int64
	if err := eachFile(v.Path(), func(_ string, info fs.FileInfo) error { total += info.Size(); return nil }); err != nil {
		return err
	}
	meter, stop := m.Track(ctx, total)
	defer stop()
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	return eachFile(v.Path(), func(name string, info fs.FileInfo) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		to := filepath.Join(dir, name)
		switch {
		case name == filepath.Dir(machine.BootDir):
			return fs.SkipDir
		case info.IsDir():
			if err := os.Mkdir(to, 0o700); err != nil {
				return err
			}
			return errors.Join(os.Chmod(to, info.Mode().Perm()), durable.Sync(filepath.Dir(to)))
		case name == state.EraseFile || name == state.RequestFile:
			return nil
		}
		return copyFile(to, v.Path(name), info.Mode().Perm(), meter.Reader)
	})
}

// copyFile copies a file. What both devices hold is compared afterwards.
func copyFile(to, from string, mode fs.FileMode, through func(io.Reader) io.Reader) error {
	in, err := os.OpenFile(from, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	sum, err := machine.PutFile(to, mode, through(in))
	if err != nil {
		return err
	}
	was, err := machine.HashOnDevice(from)
	if err == nil && was != sum {
		err = fault.Newf(fault.ReadBack, "%s holds %x, its copy %x", from, was[:8], sum[:8])
	}
	return err
}

// makeVolume makes a recovery volume on a disk, a copy of the one that counts, that starts the unit. The record u has its disk and table.
// What it says of the erase is left to the caller, who gets it mounted.
func makeVolume(ctx context.Context, j *erasing, u state.Unit, disk string, last func(*state.Volume) error) error {
	m, t := j.env.Machine, u.Recovery.Table
	if err := m.WriteTable(disk, t); err != nil {
		return err
	}
	if err := m.Format(ctx, disk, t, []layout.Role{layout.ESP, layout.Recovery}); err != nil {
		return err
	}
	return j.book.view(func(v *state.Volume) error {
		dir := m.Places.Main
		if err := m.Mount(partOf(disk, t), dir, "ext4", copyMount()); err != nil {
			return err
		}
		err := copyVolume(ctx, m, v, dir)
		if err == nil {
			err = machine.PutRecoveryArtifactOn(m, disk, u, dir)
		}
		if err == nil {
			err = last(state.Open(dir))
		}
		return errors.Join(err, m.Unmount(dir))
	})
}

func partOf(disk string, t layout.Table) string {
	return block.PartitionPath(disk, t.Find(layout.Recovery).Number)
}

// copyOut makes the stand-in, if there is to be one. From its last write on the stand-in counts.
func copyOut(ctx context.Context, j *erasing) error {
	s, m := j.entry.StandIn, j.env.Machine
	if s == nil {
		return nil
	}
	d := j.entry.Plan.Disks[s.Disk].disk()
	u := j.f.Unit
	u.Recovery = machine.DiskRecord(d, s.Table)
	err := makeVolume(ctx, j, u, d.Path, func(*state.Volume) error { return nil })
	if err == nil {
		err = machine.EnsureRecoveryEntry(m, u.Recovery)
	}
	if err != nil {
		return fmt.Errorf("copy what stays to %s: %w", d.Name, err)
	}
	e := j.state("")
	e.StandIn = s.Table.Find(layout.Recovery).UUID
	if err := volume.At(m, partOf(d.Path, s.Table)).Change(func(v *state.Volume) error { return state.WriteErase(v, e) }); err != nil {
		return err
	}
	m.Log.Info("a main disk stands in for the recovery device", "disk", d.Name, journal.ForPerson())
	j.book.left = true
	return nil
}

// copyBack makes the recovery device anew from the stand-in, unless data may be left on it and support has not said that the unit goes on.
// It ends with the write by which the stand-in does not count any more.
func copyBack(ctx context.Context, j *erasing) error {
	m, i := j.env.Machine, recoveryDevice(&j.entry)
	if o := j.entry.Drives[i].Done.Outcome; o != erasure.Proved && o != erasure.Weaker && j.entry.ResolvedBy == "" {
		return nil
	}
	d, u := j.entry.Plan.Disks[i].disk(), j.f.Unit
	err := makeVolume(ctx, j, u, d.Path, func(v *state.Volume) error {
		e := j.state("")
		e.StandIn = ""
		return state.WriteErase(v, e)
	})
	if err == nil {
		err = machine.EnsureRecoveryEntry(m, u.Recovery)
	}
	if err == nil {
		err = proveVolume(j, d.Name)
	}
	if err != nil {
		return fmt.Errorf("make the recovery device %s anew: %w", d.Name, err)
	}
	err = j.book.change(func(v *state.Volume) error {
		e := j.state("")
		e.StandIn = ""
		return state.WriteErase(v, e)
	})
	if err != nil {
		return err
	}
	m.Log.Info("the recovery device is made anew", "disk", d.Name, journal.ForPerson())
	j.book.left = true
	return nil
}

// proveVolume returns nil if a survey takes what is on a disk for the unit's recovery volume.
func proveVolume(j *erasing, name string) error {
	parts, err := j.env.Machine.Partitions(nil)
	if err != nil {
		return err
	}
	want := j.f.Unit.Recovery.Table.Find(layout.Recovery)
	for _, p := range parts {
		if p.Disk.Name == name && p.Partition.UUID == want.UUID {
			return j.env.Survey.Proves(p, want.FSUUID)
		}
	}
	return errors.New("its partition is not there")
}

// clearCopy overwrites what stood in for the recovery volume, from which nothing starts any more.
func clearCopy(j *erasing) error {
	s := j.entry.StandIn
	if s == nil || s.Cleared {
		return nil
	}
	d := &desk{m: j.env.Machine, p: j.entry.Plan.Disks[s.Disk]}
	last := s.Table.Partitions[len(s.Table.Partitions)-1]
	size := d.p.disk().Size
	d.p.Disks = d.p.Disks[:1]
	d.p.Spans = []span{{0, last.Start + last.Size}, {size - margin, margin}} // no commands
	if err := d.sit(); err != nil {
		return err
	}
	err := func() error {
		for _, s := range d.p.Spans {
			if err := d.allowed(); err != nil {
				return err
			}
			if err := (engine.Area{Blocks: blocks{d, 0}, Offset: s.Start, Size: func() int64 { return s.Size }}).Zero(); err != nil {
				return err
			}
			if err := (blocks{d, 0}).Discard(s.Start, s.Size); err != nil {
				j.env.Machine.Log.Info("the copy is overwritten and not discarded", "disk", d.p.disk().Name, "err", err)
			}
		}
		return nil
	}()
	if err := errors.Join(err, d.leave()); err != nil {
		return err
	}
	return j.note(func() { s.Cleared = true })
}

// notCleared says what of the stand-in may be left.
func notCleared(e *entry) []string {
	if e.StandIn == nil {
		return nil
	}
	return []string{erasure.Printable(fmt.Sprintf("old cells of %s: a copy of what stays was there while the recovery device was erased, "+
		"and was overwritten", e.Plan.Disks[e.StandIn.Disk].disk().Name))}
}

// anotherRun begins the erase of the recovery device once more, which has come to nothing. The main disks were erased before, and one of
// them carries what the unit starts from: nothing is done to them.
func anotherRun(j *erasing, v *state.Volume, r state.Request) error {
	if err := readEntry(v, &j.entry); err != nil {
		return err
	}
	i := recoveryDevice(&j.entry)
	if i < 0 || j.entry.Drives[i].Done == nil {
		return nil // it goes on
	}
	s, err := readState(v, i)
	if err != nil {
		return err
	}
	j.entry.ID, j.entry.By, j.entry.Drives[i] = r.ID, r.By, progress{}
	if err := writeJSON(v, stateFile(i), engine.State{Password: s.Password}); err != nil {
		return err
	}
	for _, name := range []string{certificateFile, voucherFile, proofFile} {
		if err := state.RemoveEraseFile(v, name); err != nil {
			return err
		}
	}
	return errors.Join(writeJSON(v, runFile, j.entry), state.WriteErase(v, j.state("")))
}

// goOn has the recovery device made anew although data may be left on it: support has said so.
func goOn(j *erasing, by string) job.Outcome {
	if j.entry.ResolvedBy == "" {
		if err := j.note(func() { j.entry.ResolvedBy = by }); err != nil {
			return stopped(err)
		}
	}
	if err := j.book.change(func(v *state.Volume) error { return state.WriteErase(v, j.state("")) }); err != nil {
		return stopped(err)
	}
	return job.Outcome{Kind: job.DecideAgain}
}

// state is what init is to know of the erase.
func (j *erasing) state(o erasure.Outcome) state.Erase {
	e := state.Erase{ID: j.entry.ID, By: j.entry.By, Started: j.entry.Started, Outcome: o}
	if j.f.StandIn {
		e.StandIn = j.f.RecoveryPart.Partition.UUID
	}
	return e
}
