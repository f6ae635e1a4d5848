package rescue

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/efi"
	"gprovision/hw/host"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/model/signature"
	"gprovision/model/step"
	"gprovision/unit/machine"
	"gprovision/unit/restore"
	"gprovision/unit/state"
	"gprovision/unit/sysroot"
)

// Mount points while a recovery volume is rebuilt.
const (
	recoveryMount = "/mnt/recovery"
	mainMount     = "/mnt/main"
)

// spare is what must be left on a new recovery volume beside images and boot files, bytes.
const spare = 256 * layout.MiB

// Rebuild is how a dead recovery volume is made anew: on the device that the platform plans for it, with the identity of the complete
// main system that is there, and the image of a recovery stick. The unit's key was on the dead volume: a new one is made, which the
// server does not know.
type Rebuild struct {
	*machine.Machine
	// Device is the new recovery device. All data on it is lost; Content says what it carries, "" if it is blank.
	Device  block.Disk
	Content string
	// Main is the partition of the main system.
	Main machine.Found
	unit state.Unit
	hash string
}

// PlanRebuild finds out whether and how the recovery volume can be rebuilt. It changes nothing. Disks in skip, by name, are neither
// looked at nor taken: sticks and media. Its errors are fault.NoRebuild.
func PlanRebuild(m *machine.Machine, skip map[string]bool) (*Rebuild, error) {
	r := &Rebuild{Machine: m}
	if v := m.Identity.Variant; v.OneDisk() || v.HasRAID() {
		return nil, fault.Newf(fault.NoRebuild, "the platform %s has its recovery volume on the main disk, or its system on an array", v.DevCodeName)
	}
	for _, do := range []func(map[string]bool) error{r.findMain, r.chooseDevice} {
		if err := do(skip); err != nil {
			return nil, &fault.Occurrence{Fault: fault.NoRebuild, Cause: err}
		}
	}
	if err := r.record(); err != nil {
		return nil, &fault.Occurrence{Fault: fault.NoRebuild, Cause: err}
	}
	return r, nil
}

// findMain finds the only complete main system of this unit: one whose mark names the unit's serial number.
func (r *Rebuild) findMain(skip map[string]bool) error {
	parts, err := r.Partitions(platform.AllowedMain)
	if err != nil {
		return err
	}
	var found []machine.Found
	var why []error
	for _, p := range parts {
		if skip[p.Disk.Name] || p.Partition.Type != layout.TypeLinux && p.Partition.Type != layout.TypeMBRLinux {
			continue
		}
		info, noted, err := machine.ProbePartition(p.Path)
		if err == nil && (info.Type != "ext4" || info.Label != r.Site.Names.Primary) {
			continue
		}
		if err == nil && noted {
			err = errors.New("the kernel has noted errors in its filesystem")
		}
		if err == nil {
			err = r.salvage(p.Path)
		}
		if err != nil {
			why = append(why, fmt.Errorf("%s: %w", p.Path, err))
			continue
		}
		p.Partition.FSUUID, p.Partition.FSLabel = info.UUID, info.Label
		found = append(found, p)
	}
	switch len(found) {
	case 0:
		return errors.Join(errors.New("no disk has the complete main system of this unit"), errors.Join(why...))
	case 1:
		r.Main = found[0]
		return nil
	}
	return fmt.Errorf("%s and %s both have a main system of this unit", found[0].Path, found[1].Path)
}

// salvage reads from a main system what the unit needs to stay the one it is, and proves that a boot artifact is there.
func (r *Rebuild) salvage(part string) error {
	if err := host.Mount(part, mainMount, "ext4", host.MountOptions{ReadOnly: true, NoExec: true, NoSUID: true, NoDev: true}); err != nil {
		return err
	}
	return errors.Join(r.readSystem(mainMount), host.Unmount(mainMount))
}

func (r *Rebuild) readSystem(dir string) error {
	s, err := sysroot.Open(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	mark, err := s.ReadMark(r.Site.Names.Mark)
	if err != nil {
		return fmt.Errorf("mark: %w", err)
	}
	if mark.Serial != r.Serial {
		return fmt.Errorf("its mark names the unit %q", mark.Serial)
	}
	hash, err := s.Password(sysroot.Admin)
	if err != nil {
		return fmt.Errorf("password: %w", err)
	}
	if _, err := machine.ReadArtifact(filepath.Join(dir, "boot", r.Site.Names.BootFile)); err != nil {
		return fmt.Errorf("boot artifact: %w", err)
	}
	r.hash = hash
	return nil
}

// chooseDevice chooses the new recovery device and looks at what it carries.
func (r *Rebuild) chooseDevice(skip map[string]bool) error {
	disks, err := r.Disks()
	if err != nil {
		return err
	}
	r.Device, err = Planned(r.Identity.Variant, slices.DeleteFunc(disks, func(d block.Disk) bool { return skip[d.Name] || d.Name == r.Main.Disk.Name }))
	if err != nil {
		return err
	}
	if r.Device.ReadOnly {
		return fmt.Errorf("%s is read-only", r.Device.Path)
	}
	blank, content, err := machine.BlankDisk(r.Device.Path)
	if err != nil {
		return fmt.Errorf("%s cannot be read: %w", r.Device.Path, err)
	}
	if !blank {
		r.Content = content
	}
	return nil
}

// Planned chooses among disks the recovery device as a provisioning would. Where the platform names no size, it is the only one that
// is left on the buses for it.
func Planned(v platform.Variant, disks []block.Disk) (block.Disk, error) {
	var want *platform.Want
	if v.RecoveryMedia.Size == 0 {
		left := slices.DeleteFunc(machine.Candidates(disks), func(c platform.Candidate) bool { return !platform.AllowedRecovery(v, c) })
		if len(left) != 1 {
			return block.Disk{}, fmt.Errorf("the platform names no size of the recovery device, and %d disks could be it", len(left))
		}
		want = &platform.Want{Size: left[0].Size}
	}
	c, err := platform.ChooseRecovery(v, want, machine.Candidates(disks))
	if err != nil {
		return block.Disk{}, err
	}
	return disks[slices.IndexFunc(disks, func(d block.Disk) bool { return d.Path == c.Path })], nil
}

// record makes the unit's record from what is on the disks.
func (r *Rebuild) record() error {
	main, err := Roles(r.Firmware, r.Main.Table, r.Main.Partition, r.Identity.Variant.DataPartition != nil)
	if err != nil {
		return err
	}
	for i, p := range main.Partitions {
		if p.Role != layout.ESP && p.Role != layout.Data {
			continue
		}
		info, _, err := machine.ProbePartition(block.PartitionPath(r.Main.Disk.Path, p.Number))
		if err != nil {
			return err
		}
		if p.Role == layout.Data {
			main.Partitions[i].FSUUID, main.Partitions[i].FSLabel = machine.NewIDs().UUID(), r.Labels().Data
		}
		if info.Type == map[layout.Role]string{layout.ESP: "vfat", layout.Data: "ext4"}[p.Role] {
			main.Partitions[i].FSUUID, main.Partitions[i].FSLabel = info.UUID, info.Label
		}
	}
	d := r.Device
	table, err := layout.ForRecovery(r.Firmware, layout.Device{Size: d.Size, SectorSize: d.SectorSize}, r.Labels(), machine.NewIDs())
	if err != nil {
		return err
	}
	r.unit = state.Unit{
		Version: state.Version, Serial: r.Serial, Platform: r.Identity.Variant.DevCodeName, Firmware: r.Firmware, ImagePrefix: r.Site.Names.ImagePrefix,
		Created: time.Now().UTC(), Recovery: machine.DiskRecord(d, table), Main: []state.Disk{machine.DiskRecord(r.Main.Disk, main)},
	}
	return nil
}

// Roles gives the partitions of a main disk their roles: system is that of the main system. On a platform with a data partition, which
// withData says, another one for Linux is that, so that no restore destroys it. A disk that was made for other firmware is refused.
func Roles(fw layout.Firmware, t layout.Table, system layout.Partition, withData bool) (layout.Table, error) {
	t.Partitions = slices.Clone(t.Partitions)
	esp := false
	for i, p := range t.Partitions {
		switch {
		case p.Number == system.Number:
			t.Partitions[i] = system
			t.Partitions[i].Role = layout.Primary
		case p.Type == layout.TypeESP:
			t.Partitions[i].Role, esp = layout.ESP, true
		case p.Type == layout.TypeBIOSBoot:
			t.Partitions[i].Role = layout.BIOSBoot
		case withData && (p.Type == layout.TypeLinux || p.Type == layout.TypeMBRLinux):
			t.Partitions[i].Role = layout.Data
		}
	}
	if esp != (fw == layout.UEFI) {
		return t, fmt.Errorf("the main disk was not made for %s firmware: start the stick the other way", fw)
	}
	return t, nil
}

// Run rebuilds the volume. im is a proven image of a medium that is mounted. The unit's record is written last: until then no boot
// takes the volume for one of the unit's, and the work may begin anew. Afterwards nothing is mounted.
func (r *Rebuild) Run(ctx context.Context, im restore.Image, key ed25519.PrivateKey, keepLog func(*state.Volume) error, observe func(step.Event)) error {
	volume := state.Open(recoveryMount)
	r.unit.Original = im.Name.String()
	defer func() {
		for _, dir := range []string{mainMount, recoveryMount} {
			if yes, err := host.IsMountPoint(dir); err == nil && yes {
				if err := host.Unmount(dir); err != nil {
					r.Log.Warn("volume cannot be unmounted", "dir", dir, "err", err)
				}
			}
		}
	}()
	err := step.Run(ctx, r.Site.Weave("rebuild", []step.Step{
		{Name: "check-room", Say: "Checking room", Run: func(context.Context) error { return r.checkRoom(im) }},
		{Name: "mount-main", Say: "Reading system", Run: func(context.Context) error {
			return host.Mount(r.Main.Path, mainMount, "ext4", host.MountOptions{ReadOnly: true, NoExec: true, NoSUID: true, NoDev: true})
		}},
		{Name: "partition-recovery", Say: "Partitioning", Run: func(context.Context) error {
			return machine.WriteTable(r.Device.Path, r.unit.Recovery.Table)
		}},
		{Name: "format-recovery", Say: "Formatting", Run: r.format},
		{Name: "write-files", Say: "Copying image", Run: func(ctx context.Context) error { return r.writeFiles(ctx, volume, im) }},
		{Name: "credentials", Say: "Credentials", Run: func(context.Context) error {
			return errors.Join(volume.WriteKey(key), volume.WriteHash(r.hash))
		}},
		{Name: "boot-recovery", Say: "Making it boot", Run: func(context.Context) error { return r.PutRecoveryArtifact(r.unit, recoveryMount) }},
		{Name: "boot-entries", Say: "Boot entries", Run: func(context.Context) error {
			if r.Firmware != layout.UEFI {
				return nil
			}
			_, err := r.EnsureEntries(efi.New(efi.DefaultDir), r.unit)
			return err
		}},
		{Name: "write-record", Say: "Writing record", Run: func(context.Context) error {
			if err := keepLog(volume); err != nil {
				r.Log.Warn("log cannot be kept on the recovery volume", "err", err)
			}
			return volume.WriteUnit(r.unit)
		}},
	}), observe)
	if err != nil && fault.Of(err) == nil {
		err = fault.Because(fault.NoRebuild, err)
	}
	return err
}

// checkRoom is the last look before anything is lost: the image fits, and the device is still the one that was shown to the person.
func (r *Rebuild) checkRoom(im restore.Image) error {
	if room := r.unit.Recovery.Table.Find(layout.Recovery).Size; im.Size+spare > room {
		return fault.Newf(fault.NoRebuild, "the image has %d bytes, and the volume %d", im.Size, room)
	}
	disks, err := r.Disks()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(disks, func(d block.Disk) bool {
		return d.Path == r.Device.Path && d.Size == r.Device.Size && d.Model == r.Device.Model && d.Serial == r.Device.Serial && d.WWN == r.Device.WWN
	}) {
		return fault.Newf(fault.NoRebuild, "%s is not what it was", r.Device.Path)
	}
	return nil
}

func (r *Rebuild) format(ctx context.Context) error {
	t := r.unit.Recovery.Table
	if err := r.Format(ctx, r.Device.Path, t, []layout.Role{layout.ESP, layout.Recovery}); err != nil {
		return err
	}
	part := block.PartitionPath(r.Device.Path, t.Find(layout.Recovery).Number)
	if err := host.Mount(part, recoveryMount, "ext4", host.MountOptions{NoExec: true, NoSUID: true, NoDev: true}); err != nil {
		return err
	}
	return os.Chmod(recoveryMount, 0o700)
}

// writeFiles copies the image with its signature, and the boot artifact of the main system.
func (r *Rebuild) writeFiles(ctx context.Context, v *state.Volume, im restore.Image) error {
	if err := machine.MakeDir(v.Path(), state.ImageDir); err != nil {
		return err
	}
	image := v.Path(state.ImageDir, im.Name.String())
	for _, f := range []struct{ from, to string }{
		{im.Path + signature.Suffix, image + signature.Suffix},
		{im.Path, image},
		{filepath.Join(mainMount, "boot", r.Site.Names.BootFile), v.Path(r.Site.Names.BootFile)},
	} {
		err := copyFile(f.from, f.to)
		if errors.Is(err, os.ErrNotExist) && f.from == im.Path+signature.Suffix && r.Policy.AllowUnsigned {
			continue
		}
		if err != nil {
			return err
		}
	}
	// It lay on a medium while it was proven, and on its way here.
	im.Path = image
	meter, stop := r.Track(ctx, im.Size)
	defer stop()
	return restore.Prove(ctx, im, r.Policy, r.Keys, meter.Set)
}

func copyFile(from, to string) error {
	if err := machine.Regular(from); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = machine.PutFile(to, 0o600, in)
	return err
}
