// Package restore is the job that writes the newest good release to the main disk and makes it boot.
//
// No main disk is touched before one image is known to be good. The first step that changes the main disk clears
// the mark, the last one that does so sets it. A request on the recovery volume stays until then. Running any prefix of
// the steps, losing power and starting again ends in the same place. If an image turns out bad while it is written, the
// next good one is tried.
package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"syscall"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/hw/host"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/model/record"
	"gprovision/model/release"
	"gprovision/model/step"
	"gprovision/unit/image"
	"gprovision/unit/job"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/state"
	"gprovision/unit/sysroot"
	"gprovision/unit/uplink"
)

// goal is what a restore is to bring about, and from what.
type goal struct {
	// Volume is the state on the recovery volume, which is mounted writable.
	Volume *state.Volume
	// Unit is the record of this unit.
	Unit state.Unit
	// Request is the pending request. It is nil when the restore follows from the main disk's state.
	Request *state.Request
	// Image is the only image to restore, on a medium that stays mounted. It is nil for those of the recovery volume. Request says that it
	// was asked for and need not be written yet.
	Image *image.Image
	// Back is the file name of the image that init goes back to by itself, or "". There is no Request then, no other image is taken, and
	// nothing is destroyed unless it is good.
	Back string
	// Main is the partition of the main system where it was found, or nil.
	Main *machine.Found
	// Planned are the disks that the platform plans, where Main is nil or an array. No other disk is written to.
	Planned []block.Disk
	// Blank reports whether the restore follows from Planned being blank. They must still be so when the first write is due.
	Blank bool
}

// restoring is one restore in progress.
type restoring struct {
	*machine.Machine
	goal
	env    job.Env
	data   state.RestoreData
	config sysroot.Config  // of the system, as far as it does not depend on what is restored
	image  image.Image     // that is tried
	proof  *image.Proof    // of the image, nil if it is not signed
	need   filesystem.Need // of the image
	wrote  bool            // the image was begun to be written
	disks  []target
	begun  bool   // the main disks were changed by an earlier try
	root   string // mount point of the main system
}

// restore restores the unit. On success the mark is set and the next boot starts the new system.
func restore(ctx context.Context, e job.Env, g goal) error {
	if g.Unit.ImagePrefix == "" {
		g.Unit.ImagePrefix = e.Machine.Site.Names.ImagePrefix
	}
	j := &restoring{Machine: e.Machine, env: e, goal: g, root: e.Machine.Places.Main}
	err := j.run(ctx)
	if err != nil && ctx.Err() == nil {
		if err := j.count(state.Counts.RestoreFailed); err != nil {
			j.Log.Warn("the restore that failed cannot be counted", "err", err)
		}
	}
	return err
}

func (j *restoring) run(ctx context.Context) error {
	j.readData()
	var err error
	if j.config, err = identity(j.Machine, j.Volume); err != nil {
		return err
	}
	images, err := j.candidates()
	if err != nil {
		return err
	}
	var first error
	small := true // all of them only have no room
	for i, im := range images {
		err := j.try(ctx, im)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
		if !badImage(err) || ctx.Err() != nil {
			return err
		}
		small = small && errors.Is(err, image.ErrNoRoom)
		j.Log.Warn("image cannot be restored", "image", im.Name.String(), "err", err, "left", len(images)-i-1, journal.ForPerson())
	}
	if len(images) > 1 && !small {
		return fault.Newf(fault.NoImage, "none of %d images can be restored; the first: %v", len(images), first)
	}
	return first
}

// identity returns what makes a system the unit's. A unit that lacks it gets no system, so nothing is destroyed before it is read.
func identity(m *machine.Machine, v *state.Volume) (c sysroot.Config, err error) {
	hash, err := v.ReadHash()
	if err != nil {
		return c, state.Fault(fmt.Errorf("read the admin password's hash: %w", err))
	}
	key, err := v.ReadKey()
	if err != nil {
		return c, state.Fault(err)
	}
	facts, err := platform.Facts(m.Identity)
	if err != nil {
		return c, err
	}
	names, err := m.Site.Names.Chosen().Marshal()
	if err != nil {
		return c, err
	}
	return sysroot.Config{HostPrefix: m.Site.Names.HostPrefix, Serial: m.Serial, ConfDir: m.Site.Names.ConfDir,
		Secret: key.Seed(), Hash: hash, Facts: facts, Names: names}, nil
}

// blames reports whether a try that ended with err is noted against its image. One that has no room is as good as it was, and will have it
// on a larger disk. One that filled the disk is not taken first again, whatever was thought of its size.
func (j *restoring) blames(err error) bool {
	return badImage(err) && (!errors.Is(err, image.ErrNoRoom) || j.wrote)
}

// badImage reports whether err speaks against the image and not against the unit.
func badImage(err error) bool {
	switch fault.Of(err) {
	case fault.ImageCorrupt, fault.ImageSignature, fault.ImageUnsigned, fault.ImageName, fault.Policy:
		return true
	case fault.DiskTooSmall:
		return errors.Is(err, image.ErrNoRoom) // a disk that is too small for the unit itself is not the image's fault
	}
	return false
}

// badImages reports whether err, of restore, is that there is no image, or none that is good.
func badImages(err error) bool { return badImage(err) || fault.Of(err) == fault.NoImage }

// candidates returns the images to try, in order: as the request wants, those with a bad history last.
func (j *restoring) candidates() ([]image.Image, error) {
	if j.Image != nil {
		return []image.Image{*j.Image}, nil
	}
	choice := state.Latest
	switch {
	case j.Back != "":
		choice = j.Back
	case j.Request != nil:
		choice = j.Request.Image
	case j.env.Survey.Args.Oldest:
		choice = state.Original
	}
	dir := filepath.Join(j.Places.Recovery, state.ImageDir)
	if st, err := os.Lstat(dir); err == nil && !st.IsDir() {
		return nil, fault.Newf(fault.RecoveryDamaged, "%s is not a directory", state.ImageDir)
	}
	images, bad, err := image.List(dir, j.Unit.ImagePrefix, choice == state.Original)
	if err != nil {
		return nil, fault.Because(fault.RecoveryDamaged, err)
	}
	for _, b := range bad {
		j.Log.Warn("image ignored", "file", b.File, "err", b.Err)
	}
	if len(images) == 0 {
		if len(bad) > 0 {
			return nil, fault.Because(fault.NoImage, bad[0].Err)
		}
		return nil, fault.Newf(fault.NoImage, "no file %s*.upd in Image", j.Unit.ImagePrefix)
	}
	first := choice
	switch choice {
	case "", state.Latest:
		first = ""
	case state.Original:
		first = j.Unit.Original
	}
	past := j.history()
	images, found := image.Order(images, first, past)
	if j.Back != "" {
		if !found {
			return nil, fault.Newf(fault.NoImage, "%s is not there any more", j.Back)
		}
		return images[:1], nil
	}
	if first != "" && !found {
		j.Log.Warn("the image that was asked for is not there", "image", first, "instead", images[0].Name.String(), journal.ForPerson())
	}
	return images, nil
}

func (j *restoring) try(ctx context.Context, im image.Image) error {
	j.image, j.proof, j.wrote = im, nil, false
	err := j.env.Run(ctx, record.JobRestore, "restore", j.steps())
	if err != nil {
		j.unmount()
		if j.blames(err) {
			j.record(false)
		}
	}
	return err
}

// steps returns the job as data. Nothing before clear-mark changes the main disk.
func (j *restoring) steps() []step.Step {
	return []step.Step{
		{Name: "check-image", Say: "Checking image", Run: j.checkImage},
		{Name: "choose-disk", Say: "Choosing disk", Run: j.chooseDisk},
		{Name: "note-request", Say: "Noting request", Run: j.noteRequest},
		{Name: "save-network", Say: "Saving network", Run: j.saveNetwork},
		{Name: "clear-mark", Say: "Clearing mark", Run: j.clearMark},
		{Name: "partition-main", Say: "Partitioning", Run: j.partition},
		{Name: "format-main", Say: "Formatting", Run: j.format},
		{Name: "write-release", Say: "Writing release", Run: j.write},
		{Name: "configure", Say: "Configuring", Run: j.configure},
		{Name: "boot-main", Say: "Making it boot", Run: j.bootMain},
		{Name: "update-recovery", Say: "Updating recovery", Run: j.updateRecovery},
		{Name: "boot-entries", Say: "Boot entries", Run: j.bootEntries},
		{Name: "prune-images", Say: "Removing old images", Run: j.prune},
		{Name: "set-mark", Say: "Finishing", Run: j.setMark},
		{Name: "clear-request", Say: "Finishing", Run: j.clearRequest},
	}
}

func (j *restoring) checkImage(ctx context.Context) error {
	j.Log.Info("checking image", "image", j.image.Name.String(), "bytes", j.image.Size, journal.ForPerson())
	meter, stop := j.Track(ctx, j.image.Size)
	defer stop()
	var err error
	j.proof, j.need, err = image.Proven(ctx, j.image, j.Policy, j.Keys, meter.Set)
	return err
}

// noteRequest writes a request when there is none, so that a restore that is cut off is taken up again, and records the table
// that the main disk will have. Both are on the recovery volume before the main disk is changed.
func (j *restoring) noteRequest(context.Context) error {
	fresh := j.Image != nil
	if j.Request == nil {
		choice, why := state.Latest, "init: the main system was not complete"
		switch {
		case j.Back != "":
			choice, why = j.Back, "init: the installed system did not start"
		case j.env.Survey.Args.Oldest:
			choice = state.Original
		}
		r, err := state.NewRequest(state.KindRestore, choice, why, time.Now())
		if err != nil {
			return err
		}
		r.Auto = true
		j.Request = &r
		fresh = true
	}
	if fresh {
		err := j.Volume.WriteRequest(*j.Request)
		if errors.Is(err, syscall.ENOSPC) {
			j.Log.Warn("the recovery volume is full: a restore that is cut off is not taken up again by itself", "err", err, journal.ForPerson())
			err = nil
		}
		if err != nil {
			return fault.Because(volumeFault(err), err)
		}
	}
	main := make([]state.Disk, len(j.disks))
	for i, d := range j.disks {
		main[i] = machine.DiskRecord(d.Disk, d.table)
	}
	if reflect.DeepEqual(main, j.Unit.Main) && j.Unit.BootArgs == j.data.BootArgs {
		return nil
	}
	j.Unit.BootArgs = j.data.BootArgs
	if j.Unit.OneDisk() {
		j.Unit.Recovery = main[0]
	}
	j.Unit.Main = main
	if err := j.Volume.WriteUnit(j.Unit); err != nil {
		return fault.Because(volumeFault(err), err)
	}
	return nil
}

// volumeFault is the kind of a failed write to the recovery volume.
func volumeFault(err error) *fault.Fault {
	if errors.Is(err, syscall.ENOSPC) {
		return fault.NoSpace
	}
	return fault.RecoveryDamaged
}

func (j *restoring) clearMark(ctx context.Context) error {
	j.begun = true
	if j.Main == nil {
		return nil
	}
	if err := j.Mount(j.Main.Path, j.root, "ext4", host.MountOptions{}); err != nil {
		j.Log.Info("main system cannot be mounted, no mark to clear", "err", err)
		return nil
	}
	err := sysroot.ClearMark(j.root, j.Site.Names.Mark)
	if uerr := j.Unmount(j.root); err == nil {
		err = uerr
	}
	if err != nil {
		j.Log.Warn("mark cannot be cleared, the partition is made anew", "err", err)
	}
	return nil
}

func (j *restoring) write(ctx context.Context) error {
	j.wrote = true
	if err := j.Mount(j.system(), j.root, "ext4", host.MountOptions{}); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	f, err := os.Open(j.image.Path)
	if err != nil {
		return fault.Because(fault.ImageCorrupt, err)
	}
	defer f.Close()
	proven := j.proof.Reader(f)
	most, err := image.Limit(ctx, proven, j.image)
	if err != nil {
		return err
	}
	r, err := release.NewReader(ctx, proven, j.image.Size, runtime.NumCPU())
	if err != nil {
		return fault.Because(fault.ImageCorrupt, err)
	}
	defer r.Close()
	meter, stop := j.Track(ctx, r.Size())
	defer stop()
	stats, err := filesystem.Unpack(ctx, j.root, r, filesystem.UnpackOptions{Sync: true, MaxBytes: most, Progress: func(s filesystem.UnpackStats) { meter.Set(s.Read) }})
	if err != nil {
		return classify(err)
	}
	for _, d := range stats.Dropped {
		j.Log.Warn("extended attribute left out: this filesystem or kernel has no place for it", "attribute", d.Attribute, "entries", d.Entries, "first", d.First)
	}
	j.Log.Info("release written", "image", j.image.Name.String(), "entries", stats.Entries, "bytes", stats.Bytes)
	return nil
}

// classify tells a bad image from a bad disk: what the kernel answers to a write is the disk's fault, all else the image's. That a
// disk is full says nothing against the disk, only that the image does not fit.
func classify(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, syscall.ENOSPC) {
		return fault.Because(fault.DiskTooSmall, fmt.Errorf("%w: %w", image.ErrNoRoom, err))
	}
	if isDiskError(err) {
		return fault.Because(fault.DiskWrite, err)
	}
	return fault.Because(fault.ImageCorrupt, err)
}

func (j *restoring) configure(context.Context) error {
	macs, err := uplink.MACs(j.Sys)
	if err != nil {
		return err
	}
	mounts, err := j.mounts()
	if err != nil {
		return err
	}
	v, c := j.Identity.Variant, j.config
	c.Release, c.Mounts, c.Array, c.Preserved = j.image.Name.Base(), mounts, j.arrayConf(), j.preserved()
	c.Network = sysroot.Network{MACs: macs, Prefixes: v.MACPrefixes(), Diag: v.NICInfo.SharedDiagPorts, Names: v.NICInfo.DefaultNamesNoDiag}
	if err := sysroot.Configure(j.root, j.Log, c); err != nil {
		return classify(err)
	}
	return nil
}

// bootEntries repairs the firmware's entries. Firmware that does not let them be written starts both devices all the same, by
// the removable path: no reason to leave the unit without a system.
func (j *restoring) bootEntries(context.Context) error {
	if j.Firmware != layout.UEFI {
		return nil
	}
	if _, err := j.EnsureEntries(j.Vars, j.Unit); err != nil {
		j.Log.Warn("boot entries cannot be repaired, the firmware finds the devices by itself", "err", err, journal.ForPerson())
	}
	return nil
}

// prune makes room. An image that cannot be removed does not make the restored system a bad one.
func (j *restoring) prune(context.Context) error {
	dir := filepath.Join(j.Places.Recovery, state.ImageDir)
	images, _, err := image.List(dir, j.Unit.ImagePrefix, false)
	if err != nil {
		j.Log.Warn("images cannot be listed, none is removed", "err", err)
		return nil
	}
	for _, im := range image.Surplus(images, j.image.Name.String(), j.Unit.Original, j.Policy.Keep()) {
		j.Log.Info("removing old image", "image", im.Name.String())
		if err := im.Remove(); err != nil {
			j.Log.Warn("old image cannot be removed", "image", im.Name.String(), "err", err)
		}
	}
	return nil
}

func (j *restoring) setMark(context.Context) error {
	mark := state.Mark{Request: j.Request.ID, Release: j.image.Name.Base(), Serial: j.Serial, Time: time.Now().UTC()}
	if err := sysroot.SetMark(j.root, j.Site.Names.Mark, mark); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	return because(fault.DiskWrite, j.Unmount(j.root))
}

// clearRequest ends the job on the recovery volume. The mark names the request already, so a failure here changes nothing.
func (j *restoring) clearRequest(context.Context) error {
	j.record(true)
	if err := errors.Join(j.Volume.DeleteRequest(), j.dropData(), j.count(state.Counts.Restored)); err != nil {
		j.Log.Warn("request cannot be removed; the mark names it as fulfilled", "err", err)
	}
	return nil
}

// count counts the restore.
func (j *restoring) count(change func(state.Counts) state.Counts) error {
	c, err := j.Volume.ReadCounts()
	if errors.Is(err, state.ErrNewer) {
		return err
	}
	if err != nil {
		j.Log.Warn("counts cannot be read, beginning at zero", "err", err)
	}
	return j.Volume.WriteCounts(change(c))
}

func (j *restoring) unmount() {
	if yes, err := j.Mounted(j.root); err == nil && yes {
		if err := j.Unmount(j.root); err != nil {
			j.Log.Warn("main system cannot be unmounted", "err", err)
		}
	}
}

func because(f *fault.Fault, err error) error {
	if err == nil {
		return nil
	}
	return fault.Because(f, err)
}
