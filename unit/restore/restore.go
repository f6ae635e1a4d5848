// Package restore is the job that writes the newest good release to the main disk and makes it boot.
//
// No main disk is touched before one image is known to be good. The first step that destroys clears the mark, the last step
// sets it; a request on the recovery volume stays until then. Running any prefix of the steps, losing power and starting again
// ends in the same place. If an image turns out bad while it is written, the next good one is tried.
package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/bootloader"
	"gprovision/hw/efi"
	"gprovision/hw/filesystem"
	"gprovision/hw/host"
	"gprovision/hw/nic"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/model/step"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/state"
	"gprovision/unit/sysroot"
)

// Options is what the job needs beside the machine.
type Options struct {
	// Recovery is the mount point of the recovery volume, writable.
	Recovery string
	// Volume is the state on it, and Unit its record of this unit.
	Volume *state.Volume
	Unit   state.Unit
	// Request is the pending request; nil when the restore follows from the main disk's state.
	Request *state.Request
	// Oldest asks for the original image where no request says otherwise.
	Oldest bool
	// Main is the partition of the main system where it was found; nil on a blank disk.
	Main *machine.Found
	// Observe is called at each change of a step.
	Observe func(step.Event)
}

// job is one restore in progress.
type job struct {
	*machine.Machine
	Options
	request state.Request
	image   Image
	disk    block.Disk
	root    string // mount point of the main system
}

// Run restores the unit. On success the mark is set and the next boot starts the new system.
func Run(ctx context.Context, m *machine.Machine, o Options) error {
	j := &job{Machine: m, Options: o, root: "/mnt/main"}
	images, err := j.candidates()
	if err != nil {
		return err
	}
	var first error
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
		j.Log.Warn("image cannot be restored", "image", im.Name.String(), "err", err, "left", len(images)-i-1, journal.ForPerson())
	}
	if len(images) > 1 {
		return fault.Newf(fault.NoImage, "none of %d images can be restored; the first: %v", len(images), first)
	}
	return first
}

// badImage says whether err speaks against the image and not against the unit.
func badImage(err error) bool {
	switch fault.Of(err) {
	case fault.ImageCorrupt, fault.ImageSignature, fault.ImageUnsigned, fault.ImageName, fault.Policy:
		return true
	}
	return false
}

// candidates returns the images to try, in order: as the request wants, those with a bad history last.
func (j *job) candidates() ([]Image, error) {
	choice := state.Latest
	switch {
	case j.Request != nil:
		choice = j.Request.Image
	case j.Oldest:
		choice = state.Original
	}
	images, bad, err := ListImages(filepath.Join(j.Recovery, "Image"), j.Unit.ImagePrefix, choice == state.Original)
	if err != nil {
		return nil, fault.Because(fault.RecoveryDamaged, err)
	}
	for _, b := range bad {
		j.Log.Warn("image ignored", "file", b.File, "err", b.Err)
	}
	if choice != state.Latest && choice != state.Original {
		for i, im := range images {
			if im.Name.String() == choice {
				images[0], images[i] = images[i], images[0]
			}
		}
	}
	if len(images) == 0 {
		if len(bad) > 0 {
			return nil, fault.Because(fault.NoImage, bad[0].Err)
		}
		return nil, fault.Newf(fault.NoImage, "no file %s*.upd in Image", j.Unit.ImagePrefix)
	}
	history := j.history()
	var good, worn []Image
	for _, im := range images {
		if history.Check(im.Name.String()) {
			good = append(good, im)
		} else {
			worn = append(worn, im)
		}
	}
	return append(good, worn...), nil
}

func (j *job) try(ctx context.Context, im Image) error {
	j.image = im
	steps := j.Site.Weave("restore", j.steps())
	err := step.Run(ctx, steps, j.Observe)
	if err != nil {
		j.unmount()
		if badImage(err) {
			j.record(false)
		}
	}
	return err
}

// steps returns the job as data. Nothing before clear-mark changes the main disk.
func (j *job) steps() []step.Step {
	return []step.Step{
		{Name: "check-image", Say: "Checking image", Run: j.checkImage},
		{Name: "choose-disk", Say: "Choosing disk", Run: j.chooseDisk},
		{Name: "note-request", Say: "Noting request", Run: j.noteRequest},
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

func (j *job) checkImage(ctx context.Context) error {
	j.Log.Info("checking image", "image", j.image.Name.String(), "bytes", j.image.Size, journal.ForPerson())
	meter, stop := j.Track(ctx, j.image.Size)
	defer stop()
	return Prove(ctx, j.image, j.Policy, j.Keys, meter.Set)
}

// chooseDisk takes the disk that carries the main system of this unit, else the one that the platform plans.
func (j *job) chooseDisk(context.Context) error {
	disks, err := j.Disks()
	if err != nil {
		return err
	}
	own, err := j.recoveryDisk(disks)
	if err != nil {
		return err
	}
	if j.Main != nil {
		j.disk = j.Main.Disk
	} else {
		chosen, err := platform.ChooseMain(j.Identity.Variant, machine.Candidates(disks), "/dev/"+own)
		if err != nil {
			return err
		}
		for _, d := range disks {
			if d.Name == chosen[0].Name {
				j.disk = d
			}
		}
	}
	if j.disk.Name == own {
		return fault.Newf(fault.MainForeign, "the main disk %s is the recovery device", own)
	}
	need, err := j.need()
	if err != nil {
		return err
	}
	if j.disk.Size < need {
		return fault.Newf(fault.DiskTooSmall, "%s has %d bytes, the release needs %d", j.disk.Name, j.disk.Size, need)
	}
	j.Log.Info("plan", "disk", j.disk.Name, "model", j.disk.Model, "serial", j.disk.Serial, "bytes", j.disk.Size,
		"table", string(j.Unit.Main[0].Table.Kind), "image", j.image.Name.String())
	return nil
}

// need is the least size of a main disk for the image: what it unpacks to and an eighth more, the ESP, and the journal of ext4.
func (j *job) need() (int64, error) {
	f, err := os.Open(j.image.Path)
	if err != nil {
		return 0, fault.Because(fault.ImageCorrupt, err)
	}
	defer f.Close()
	r, err := release.NewReader(context.Background(), f, j.image.Size, 1)
	if err != nil {
		return 0, fault.Because(fault.ImageCorrupt, err)
	}
	defer r.Close()
	return max(layout.MinPrimary, r.Size()+r.Size()/8+layout.ESPSize+64*layout.MiB), nil
}

func (j *job) recoveryDisk(disks []block.Disk) (string, error) {
	parts, err := j.Partitions(nil)
	if err != nil {
		return "", err
	}
	want := j.Unit.Recovery.Table.Find(layout.Recovery)
	for _, p := range parts {
		if want != nil && p.Partition.UUID == want.UUID {
			return p.Disk.Name, nil
		}
	}
	return "", fault.Newf(fault.NoRecovery, "no disk carries the partition of the recovery volume")
}

// noteRequest writes a request when there is none, so that a restore that is cut off is taken up again.
func (j *job) noteRequest(context.Context) error {
	if j.Request != nil {
		j.request = *j.Request
		return nil
	}
	choice := state.Latest
	if j.Oldest {
		choice = state.Original
	}
	r, err := state.NewRequest(state.KindRestore, choice, "init: the main system was not complete", time.Now())
	if err != nil {
		return err
	}
	if err := j.Volume.WriteRequest(r); err != nil {
		return fault.Because(fault.RecoveryDamaged, err)
	}
	j.request, j.Request = r, &r
	return nil
}

func (j *job) clearMark(ctx context.Context) error {
	if j.Main == nil {
		return nil
	}
	if err := host.Mount(j.Main.Path, j.root, "ext4", host.MountOptions{}); err != nil {
		j.Log.Info("main system cannot be mounted, no mark to clear", "err", err)
		return nil
	}
	err := sysroot.ClearMark(j.root, j.Site.Names.Mark)
	if uerr := host.Unmount(j.root); err == nil {
		err = uerr
	}
	if err != nil {
		j.Log.Warn("mark cannot be cleared, the partition is made anew", "err", err)
	}
	return nil
}

func (j *job) table() (layout.Table, error) {
	t := j.Unit.Main[0].Table
	fresh, err := layout.ForMain(j.Firmware, layout.Device{Size: j.disk.Size, SectorSize: j.disk.SectorSize}, j.Labels(), machine.NewIDs())
	if err != nil {
		return t, err
	}
	return Adapt(t, fresh), nil
}

// Adapt returns the table fresh, which fits the disk, with the identifiers of the recorded one wherever both have the same
// role, so that boot entries and records stay right on a replaced disk of another size.
func Adapt(recorded, fresh layout.Table) layout.Table {
	if recorded.Kind != fresh.Kind {
		return fresh
	}
	out := fresh
	out.UUID = recorded.UUID
	out.Partitions = nil
	for _, p := range fresh.Partitions {
		if r := recorded.Find(p.Role); r != nil {
			p.UUID, p.FSUUID = r.UUID, r.FSUUID
		}
		out.Partitions = append(out.Partitions, p)
	}
	return out
}

func (j *job) partition(context.Context) error {
	t, err := j.table()
	if err != nil {
		return err
	}
	if err := machine.WriteTable(j.disk.Path, t); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	j.Unit.Main[0] = machine.DiskRecord(j.disk, t)
	return because(fault.RecoveryDamaged, j.Volume.WriteUnit(j.Unit))
}

func (j *job) format(ctx context.Context) error {
	if err := j.Format(ctx, j.disk.Path, j.Unit.Main[0].Table); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	return nil
}

func (j *job) primaryPath() string {
	return block.PartitionPath(j.disk.Path, j.Unit.Main[0].Table.Find(layout.Primary).Number)
}

func (j *job) write(ctx context.Context) error {
	if err := host.Mount(j.primaryPath(), j.root, "ext4", host.MountOptions{}); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	f, err := os.Open(j.image.Path)
	if err != nil {
		return fault.Because(fault.ImageCorrupt, err)
	}
	defer f.Close()
	r, err := release.NewReader(ctx, f, j.image.Size, runtime.NumCPU())
	if err != nil {
		return fault.Because(fault.ImageCorrupt, err)
	}
	defer r.Close()
	meter, stop := j.Track(ctx, r.Size())
	defer stop()
	stats, err := filesystem.Unpack(ctx, j.root, r, filesystem.UnpackOptions{Sync: true, Progress: func(s filesystem.UnpackStats) { meter.Set(s.Read) }})
	if err != nil {
		return classify(err)
	}
	j.Log.Info("release written", "image", j.image.Name.String(), "entries", stats.Entries, "bytes", stats.Bytes)
	return nil
}

// classify tells a bad image from a bad disk: what the kernel answers to a write is the disk's fault, all else the image's.
func classify(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	var pe *os.PathError
	if isDiskError(err) || (errors.As(err, &pe) && isDiskError(pe.Err)) {
		return fault.Because(fault.DiskWrite, err)
	}
	return fault.Because(fault.ImageCorrupt, err)
}

func (j *job) configure(ctx context.Context) error {
	hash, err := j.Volume.ReadHash()
	if err != nil {
		return fault.Because(fault.RecoveryDamaged, fmt.Errorf("read the admin password's hash: %w", err))
	}
	key, err := j.Volume.ReadKey()
	if err != nil {
		return fault.Because(fault.RecoveryDamaged, err)
	}
	facts, err := platform.Facts(j.Identity)
	if err != nil {
		return err
	}
	ports, err := nic.List(j.Sys)
	if err != nil {
		return err
	}
	var macs []string
	for _, p := range nic.Real(ports) {
		macs = append(macs, p.MAC)
	}
	v := j.Identity.Variant
	mounts, err := sysroot.Mounts(j.Unit.Main[0].Table, j.Unit.Recovery.Table, j.Site.Names.Recovery, v.DiskIsSSD)
	if err != nil {
		return err
	}
	err = sysroot.Configure(j.root, j.Log, sysroot.Config{
		HostPrefix: j.Site.Names.HostPrefix,
		Serial:     j.Serial,
		ConfDir:    j.Site.Names.ConfDir,
		Secret:     key.Seed(),
		Hash:       hash,
		Facts:      facts,
		Release:    j.image.Name.Base(),
		Mounts:     mounts,
		Network:    sysroot.Network{MACs: macs, Prefixes: v.MACPrefixes(), Diag: v.NICInfo.SharedDiagPorts, Names: v.NICInfo.DefaultNamesNoDiag},
	})
	if err != nil && isDiskError(err) {
		return fault.Because(fault.DiskWrite, err)
	}
	return because(fault.ImageCorrupt, err)
}

func (j *job) bootMain(ctx context.Context) error {
	artifact := filepath.Join(j.root, "boot", j.Site.Names.BootFile)
	if _, err := os.Stat(artifact); err != nil {
		return fault.Newf(fault.ImageCorrupt, "the image has no /boot/%s", j.Site.Names.BootFile)
	}
	t := j.Unit.Main[0].Table
	if j.Firmware == layout.UEFI {
		esp := block.PartitionPath(j.disk.Path, t.Find(layout.ESP).Number)
		if err := machine.PutArtifactESP(esp, artifact); err != nil {
			return fault.Because(fault.BootSetup, err)
		}
		return nil
	}
	args := j.KernelArgs(t.Find(layout.Primary).UUID)
	fallback := j.Unit.Recovery.Table.Find(layout.Recovery).FSUUID
	entry := bootloader.Entry{Title: machine.NormalEntry, Args: args, Fallback: fallback}
	return because(fault.BootSetup, j.PutArtifactBIOS(j.disk.Path, t, j.root, artifact, entry, bootloader.MainConfig))
}

// updateRecovery replaces the recovery artifact by the release's own if that has a higher build number. Equal numbers with
// different content are reported.
func (j *job) updateRecovery(ctx context.Context) error {
	fresh := filepath.Join(j.root, "boot", j.Site.Names.BootFile)
	own := filepath.Join(j.Recovery, j.Site.Names.BootFile)
	newer, err := j.newer(fresh, own)
	if err != nil {
		return fault.Because(fault.BootSetup, err)
	}
	if newer {
		in, err := os.Open(fresh)
		if err != nil {
			return err
		}
		defer in.Close()
		if _, err := machine.PutFile(own, 0o600, in); err != nil {
			return fault.Because(fault.BootSetup, err)
		}
	}
	return because(fault.BootSetup, j.PutRecoveryArtifact(j.Unit, j.Recovery))
}

func (j *job) newer(fresh, own string) (bool, error) {
	a, err := machine.ArtifactBuild(fresh)
	if err != nil {
		return false, fmt.Errorf("build number of the release's boot artifact: %w", err)
	}
	b, err := machine.ArtifactBuild(own)
	if err != nil {
		j.Log.Warn("recovery artifact cannot be read, replacing it", "err", err)
		return true, nil
	}
	if a == b {
		x, err := machine.HashOnDevice(fresh)
		if err != nil {
			return false, err
		}
		if y, err := machine.HashOnDevice(own); err != nil || x != y {
			j.Log.Warn("boot artifacts have the same build number and different content", "build", a)
		}
	}
	return a > b, nil
}

func (j *job) bootEntries(context.Context) error {
	if j.Firmware != layout.UEFI {
		return nil
	}
	return because(fault.BootSetup, j.EnsureEntries(efi.New(efi.DefaultDir), j.Unit))
}

func (j *job) prune(context.Context) error {
	images, _, err := ListImages(filepath.Join(j.Recovery, "Image"), j.Unit.ImagePrefix, false)
	if err != nil {
		return err
	}
	var names []release.Name
	for _, im := range images {
		names = append(names, im.Name)
	}
	_, drop := release.Retain(names, j.image.Name.String(), j.Policy.Keep())
	for _, n := range drop {
		path := filepath.Join(j.Recovery, "Image", n.String())
		j.Log.Info("removing old image", "image", n.String())
		if err := errors.Join(os.Remove(path), removeIfThere(path+signature.Suffix)); err != nil {
			return err
		}
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (j *job) setMark(context.Context) error {
	mark := state.Mark{Request: j.request.ID, Release: j.image.Name.Base(), Serial: j.Serial, Time: time.Now().UTC()}
	if err := sysroot.SetMark(j.root, j.Site.Names.Mark, mark); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	return because(fault.DiskWrite, host.Unmount(j.root))
}

// clearRequest ends the job on the recovery volume. The mark names the request already, so a failure here changes nothing.
func (j *job) clearRequest(context.Context) error {
	j.record(true)
	if err := errors.Join(j.Volume.DeleteRequest(), j.restored()); err != nil {
		j.Log.Warn("request cannot be removed; the mark names it as fulfilled", "err", err)
	}
	return nil
}

// restored counts the restore.
func (j *job) restored() error {
	c, err := j.Volume.ReadCounts()
	if err != nil {
		j.Log.Warn("counts cannot be read, beginning at zero", "err", err)
	}
	return j.Volume.WriteCounts(c.Restored())
}

func (j *job) unmount() {
	if yes, err := host.IsMountPoint(j.root); err == nil && yes {
		if err := host.Unmount(j.root); err != nil {
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
