// Package rescue makes a dead recovery volume anew: from the complete main system that is there, and the image of a recovery stick.
//
// Run shows the plan to a person first, who has to say yes. Each refusal is told, and leads back to the menu.
package rescue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/hw/host"
	"gprovision/hw/raid"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/naming"
	"gprovision/model/platform"
	"gprovision/model/record"
	"gprovision/model/signature"
	"gprovision/model/step"
	"gprovision/unit/decide"
	"gprovision/unit/image"
	"gprovision/unit/job"
	"gprovision/unit/machine"
	"gprovision/unit/state"
	"gprovision/unit/sysroot"
)

// spare is what must be left on a new recovery volume beside images and boot files, bytes.
const spare = 256 * layout.MiB

// rebuild is how a dead recovery volume is made anew: on the device that the platform plans for it, or in its partition of the only disk,
// with the identity of the complete main system that is there, and the image of a recovery stick. The unit's key was on the dead volume.
// A new one is made, which the server does not know.
type rebuild struct {
	*machine.Machine
	// Device is the disk of the new recovery volume.
	Device block.Disk
	// Content says what is lost: what the whole disk carries, or the volume's partition on the only disk of a unit.
	Content string
	// Main is the partition of the main system, or the started array, which is on no disk.
	Main machine.Found
	// array is the array that carries the main system, of a unit that has one.
	array raid.Array
	// members are the partitions with members of the array, by the names of their device nodes.
	members map[string]machine.Found
	// parts are the members of all arrays on main disks.
	parts []raid.Part
	// unit is the record that the unit gets, and hash that of its password.
	unit state.Unit
	hash string
}

// planRebuild plans how the recovery volume is rebuilt. It changes nothing, but may start arrays. It leaves out the disks that skip names,
// which are sticks and media. It takes an array that lacks members as it is, if that can do without them. The caller has waited for
// members. Its errors are fault.NoRebuild.
func planRebuild(ctx context.Context, m *machine.Machine, skip map[string]bool) (*rebuild, error) {
	r := &rebuild{Machine: m}
	find, choose, record := r.findMain, r.chooseDevice, r.record
	switch v := m.Identity.Variant; {
	case v.OneDisk():
		choose, record = r.choosePartition, r.recordOneDisk
	case v.HasRAID():
		find, record = r.findArray, r.recordArray
	}
	for _, do := range []func() error{func() error { return find(ctx, skip) }, func() error { return choose(skip) }, func() error { return record(ctx) }} {
		if err := do(); err != nil {
			return nil, &fault.Occurrence{Fault: fault.NoRebuild, Cause: err}
		}
	}
	return r, nil
}

// loss says to a person what the work destroys.
func (r *rebuild) loss() string {
	what := fmt.Sprintf("%s (%.1f GB, %s %s)", r.Device.Name, float64(r.Device.Size)/1e9, r.Device.Model, r.Device.Serial)
	if r.unit.OneDisk() {
		what = fmt.Sprintf("partition %d of %s", r.unit.Recovery.Table.Find(layout.Recovery).Number, what)
	}
	return fmt.Sprintf("All data on %s will be lost. It carries %s.", what, r.Content)
}

// findMain finds the only complete main system of this unit: one whose mark names the unit's serial number.
func (r *rebuild) findMain(_ context.Context, skip map[string]bool) error {
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
		info, err := r.isMain(p.Path)
		if errors.Is(err, errOther) {
			continue
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
		return errors.Join(errNoSystem, errors.Join(why...))
	case 1:
		r.Main = found[0]
		return nil
	}
	return fmt.Errorf("%s and %s both have a main system of this unit", found[0].Path, found[1].Path)
}

var (
	errNoSystem = errors.New("no disk has the complete main system of this unit: nothing of the unit is left, provision it again")
	errOther    = errors.New("no main system")
)

// isMain says what filesystem is on a device if that is the complete main system of this unit. The error is errOther if it is something
// else.
func (r *rebuild) isMain(path string) (filesystem.Info, error) {
	info, noted, err := r.ProbePartition(path)
	if err != nil {
		return info, err
	}
	if info.Type != "ext4" {
		return info, errOther
	}
	if noted {
		err = errors.New("the kernel has noted errors in its filesystem")
	} else {
		err = r.salvage(path)
	}
	// The mark says whose system it is, not the label. What has another label, and no such mark, may be anything.
	if err != nil && info.Label != r.Site.Names.Primary {
		r.Log.Info("filesystem without the unit's main system", "path", path, "label", info.Label, "why", err)
		return info, errOther
	}
	return info, err
}

// findArray finds the only array that has the complete main system of this unit, and starts it.
func (r *rebuild) findArray(ctx context.Context, skip map[string]bool) error {
	parts, err := r.Members()
	if err != nil {
		return err
	}
	parts = slices.DeleteFunc(parts, func(p raid.Part) bool { return skip[p.Disk] })
	r.parts = parts
	var found []raid.Array
	var why []error
	for _, id := range raid.UUIDs(parts) {
		a := raid.Find(parts, id)
		switch err := r.tryArray(ctx, a); {
		case err == nil:
			found = append(found, a)
		case !errors.Is(err, errOther):
			why = append(why, fmt.Errorf("array %s: %w", id, err))
		}
	}
	if len(found) == 1 {
		r.array = found[0]
		err := r.StartArray(ctx, r.array)
		return errors.Join(err, r.lookUpMembers())
	}
	err = r.StopArray(ctx)
	if len(found) > 1 {
		return errors.Join(fmt.Errorf("the arrays %s and %s both have a main system of this unit", found[0].UUID, found[1].UUID), err)
	}
	return errors.Join(errNoSystem, errors.Join(why...), err)
}

// tryArray starts an array as a normal boot does and looks whether the main system is on it.
func (r *rebuild) tryArray(ctx context.Context, a raid.Array) error {
	if v := r.Identity.Variant; a.Level != v.SwRaidlevel || a.Disks != v.NumDataDisks {
		return fmt.Errorf("it has level %d and %d places, the platform wants level %d and %d", a.Level, a.Disks, v.SwRaidlevel, v.NumDataDisks)
	}
	if !a.Enough() {
		return fmt.Errorf("%d of %d members are there: too few", len(a.Parts), a.Disks)
	}
	if err := r.StartArray(ctx, a); err != nil {
		return err
	}
	info, err := r.isMain(machine.ArrayPath)
	if err == nil {
		r.Main = machine.Found{Path: machine.ArrayPath, Partition: layout.Partition{FSUUID: info.UUID, FSLabel: info.Label}}
	}
	return err
}

// lookUpMembers finds the partitions of the array's members, those that are out of date too.
func (r *rebuild) lookUpMembers() error {
	all, err := r.Partitions(platform.AllowedMain)
	if err != nil {
		return err
	}
	r.members = map[string]machine.Found{}
	for _, p := range append(slices.Clone(r.array.Parts), r.array.Stale...) {
		i := slices.IndexFunc(all, func(f machine.Found) bool { return f.Path == p.Path })
		if i < 0 {
			return fmt.Errorf("%s is not what it was", p.Path)
		}
		r.members[p.Path] = all[i]
	}
	return nil
}

// salvage reads from a main system what the unit needs to stay the one it is, and proves that a boot artifact is there.
func (r *rebuild) salvage(part string) error {
	if err := r.Mount(part, r.Places.Main, "ext4", host.MountOptions{ReadOnly: true, NoExec: true, NoSUID: true, NoDev: true}); err != nil {
		return err
	}
	return errors.Join(r.readSystem(r.Places.Main), r.Unmount(r.Places.Main))
}

func (r *rebuild) readSystem(dir string) error {
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
func (r *rebuild) chooseDevice(skip map[string]bool) error {
	disks, err := r.Disks()
	if err != nil {
		return err
	}
	r.Device, err = Planned(r.Identity.Variant, slices.DeleteFunc(disks, func(d block.Disk) bool { return skip[d.Name] || r.isMainDisk(d) }))
	if err != nil {
		return err
	}
	return r.lookAt(r.Device.Path)
}

// isMainDisk reports whether a disk has the main system, or a member of it. While disks of the array are missing it may also be the one
// that is to replace such a disk: then it is one of the size that the platform has for them.
func (r *rebuild) isMainDisk(d block.Disk) bool {
	if len(r.members) == 0 {
		return d.Name == r.Main.Disk.Name
	}
	for _, p := range r.members {
		if p.Disk.Name == d.Name {
			return true
		}
	}
	v := r.Identity.Variant
	return len(r.members) < r.array.Disks && platform.AllowedMain(v, machine.Candidates([]block.Disk{d})[0]) && platform.Within(d.Size, v.Disksize, v.TargetTolerance())
}

// lookAt says what the place of the new recovery volume carries, on a device that is written to.
func (r *rebuild) lookAt(path string) (err error) {
	if r.Device.ReadOnly {
		return fmt.Errorf("%s is read-only", r.Device.Path)
	}
	if r.Content, err = r.Carries(path); err != nil {
		return fmt.Errorf("%s cannot be read: %w", path, err)
	}
	return nil
}

// choosePartition finds the recovery volume's partition on the only disk of the unit, which has the main system. A volume whose record can
// be read there, or is one of a newer program, is not dead: nothing says why the unit does not take it.
func (r *rebuild) choosePartition(map[string]bool) error {
	r.Device = r.Main.Disk
	t, err := OneDisk(r.Machine, r.Main)
	if err != nil {
		return err
	}
	r.unit.Recovery.Table = t
	part := block.PartitionPath(r.Device.Path, t.Find(layout.Recovery).Number)
	if err := r.Mount(part, r.Places.Recovery, "ext4", host.MountOptions{ReadOnly: true, NoExec: true, NoSUID: true, NoDev: true}); err == nil {
		rec, err := state.Open(r.Places.Recovery).ReadUnit()
		if err := r.Unmount(r.Places.Recovery); err != nil {
			return err
		}
		if err == nil {
			return fmt.Errorf("%s carries a recovery volume that can be read, of the unit %q", part, rec.Serial)
		}
		if errors.Is(err, state.ErrNewer) {
			return fmt.Errorf("%s carries a recovery volume: %w", part, err)
		}
	}
	return r.lookAt(part)
}

// OneDisk gives the partitions of the only disk of a unit their roles, and those that nothing else names the labels and fresh identifiers
// of their filesystems. main is the partition of the main system. The disk must have a table as provisioning makes it for this platform
// and firmware: nothing but the identifiers and the size of the recovery volume may be another.
func OneDisk(m *machine.Machine, main machine.Found) (layout.Table, error) {
	for _, p := range main.Table.Partitions {
		plan, err := m.LayMain(main.Disk, p.Size, machine.NewIDs())
		if err != nil || !alike(plan, main.Table) {
			continue
		}
		if plan.Find(layout.Primary).Number != main.Partition.Number {
			return layout.Table{}, fmt.Errorf("%s is not the partition for the main system", main.Path)
		}
		plan.UUID = main.Table.UUID
		for i, q := range plan.Partitions {
			plan.Partitions[i].UUID, plan.Partitions[i].Name = main.Table.Partitions[i].UUID, main.Table.Partitions[i].Name
			if was := plan.Partitions[i].Name; q.Role == layout.Recovery && was != "" && (naming.Names{Version: naming.Version, RecoveryLabel: was}).Validate() == nil {
				plan.Partitions[i].FSLabel = was // the unit keeps the label that it was provisioned with
			}
			if q.Role == layout.Primary {
				plan.Partitions[i].FSUUID, plan.Partitions[i].FSLabel = main.Partition.FSUUID, main.Partition.FSLabel
			}
		}
		return plan, nil
	}
	return layout.Table{}, fmt.Errorf("the partition table of %s is not one that provisioning makes for the platform %s on %s firmware", main.Disk.Path, m.Identity.Variant.DevCodeName, m.Firmware)
}

// alike reports whether a disk has the partitions of a plan in their order, but for identifiers, roles and filesystems, and in a GPT for
// the names of recovery volume and main system: a unit keeps those that it was provisioned with.
func alike(plan, disk layout.Table) bool {
	bare := func(p layout.Partition) layout.Partition {
		p.Role, p.UUID, p.FSUUID, p.FSLabel = layout.Other, "", "", ""
		return p
	}
	return plan.Kind == disk.Kind && slices.EqualFunc(plan.Partitions, disk.Partitions, func(x, y layout.Partition) bool {
		if plan.Kind == layout.GPT && (x.Role == layout.Recovery || x.Role == layout.Primary) {
			y.Name = x.Name
		}
		return bare(x) == bare(y)
	})
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
func (r *rebuild) record(context.Context) error {
	main, err := Roles(r.Firmware, r.Main.Table, r.Main.Partition, layout.Primary, r.Identity.Variant.DataPartition != nil)
	if err == nil {
		main, err = r.filesystems(r.Main.Disk, main)
	}
	if err != nil {
		return err
	}
	return r.recordDevice(machine.DiskRecord(r.Main.Disk, main))
}

// recordOneDisk is record for the only disk of a unit.
func (r *rebuild) recordOneDisk(context.Context) error {
	t, err := r.filesystems(r.Device, r.unit.Recovery.Table)
	if err != nil {
		return err
	}
	disk := machine.DiskRecord(r.Device, t)
	r.unit = r.newUnit(disk, disk)
	return nil
}

// recordArray is record for an array.
func (r *rebuild) recordArray(ctx context.Context) error {
	main := make([]state.Disk, r.array.Disks)
	var peer block.Disk
	for _, p := range append(slices.Clone(r.array.Parts), r.array.Stale...) { // what is in use comes first
		if p.Place < 0 || p.Place >= len(main) || main[p.Place].Table.Kind != layout.None {
			continue
		}
		f := r.members[p.Path]
		t, err := Roles(r.Firmware, f.Table, f.Partition, layout.Member, r.Identity.Variant.DataPartition != nil)
		if err == nil {
			t, err = r.filesystems(f.Disk, t)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.Disk.Path, err)
		}
		main[p.Place], peer = machine.DiskRecord(f.Disk, t), f.Disk
	}
	for i, d := range main {
		if d.Table.Kind != layout.None {
			continue
		}
		// Nothing is left of it: the disk that a restore puts there gets new identifiers.
		d := block.Disk{Size: peer.Size, SectorSize: peer.SectorSize, Bus: peer.Bus}
		t, err := r.LayMain(d, 0, machine.NewIDs())
		if err != nil {
			return err
		}
		main[i] = machine.DiskRecord(d, t)
	}
	if err := r.recordDevice(main...); err != nil {
		return err
	}
	r.unit.Array = &state.Array{Level: r.array.Level, UUID: r.array.UUID, FSUUID: r.Main.Partition.FSUUID, FSLabel: r.Main.Partition.FSLabel}
	return r.recordData(ctx)
}

// recordData finds the array of the data: the one that the disks of the main system have members of at its place. Where nothing is left of
// it, or of its filesystem, it gets new identifiers.
func (r *rebuild) recordData(ctx context.Context) error {
	if r.Identity.Variant.DataPartition == nil {
		return nil
	}
	var own []raid.Part
	for _, f := range r.members {
		for _, p := range r.parts {
			if p.Disk == f.Disk.Name && p.Path != f.Path {
				own = append(own, p)
			}
		}
	}
	ids := machine.NewIDs()
	data := state.Array{Level: r.array.Level, UUID: ids.UUID(), FSUUID: ids.UUID(), FSLabel: r.Labels().Data}
	switch found := raid.UUIDs(own); {
	case len(found) > 1:
		return fmt.Errorf("the main disks have members of the arrays %s and %s beside the main system", found[0], found[1])
	case len(found) == 1:
		a := raid.Find(own, found[0])
		data.UUID = a.UUID
		if !a.Enough() {
			r.Log.Warn("the array of the data lacks too many disks, what its filesystem is cannot be said", "members", len(a.Parts), "of", a.Disks)
			break
		}
		info, _, err := r.ProbeDataArray(ctx, a)
		if err != nil {
			return fmt.Errorf("array of the data: %w", err)
		}
		if info.Type == "ext4" {
			data.FSUUID, data.FSLabel = info.UUID, info.Label
		}
	}
	r.unit.DataArray = &data
	return nil
}

// recordDevice makes the record with a recovery device of its own.
func (r *rebuild) recordDevice(main ...state.Disk) error {
	d := r.Device
	table, err := layout.ForRecovery(r.Firmware, layout.Device{Size: d.Size, SectorSize: d.SectorSize}, r.Labels(), machine.NewIDs())
	if err != nil {
		return err
	}
	r.unit = r.newUnit(machine.DiskRecord(d, table), main...)
	return nil
}

func (r *rebuild) newUnit(recovery state.Disk, main ...state.Disk) state.Unit {
	return state.Unit{
		Version: state.Version, Serial: r.Serial, Platform: r.Identity.Variant.DevCodeName, Firmware: r.Firmware, ImagePrefix: r.Site.Names.ImagePrefix,
		Created: time.Now().UTC(), Recovery: recovery, Main: main,
	}
}

// filesystems returns the table of a disk with what is in the partitions that a restore may leave as they are. Where the filesystem of the
// data is lost the record has a new identifier for it.
func (r *rebuild) filesystems(d block.Disk, t layout.Table) (layout.Table, error) {
	t.Partitions = slices.Clone(t.Partitions)
	for i, p := range t.Partitions {
		if p.Role != layout.ESP && p.Role != layout.Data {
			continue
		}
		info, _, err := r.ProbePartition(block.PartitionPath(d.Path, p.Number))
		if err != nil {
			return t, err
		}
		if p.Role == layout.Data {
			t.Partitions[i].FSUUID, t.Partitions[i].FSLabel = machine.NewIDs().UUID(), r.Labels().Data
		}
		if info.Type == map[layout.Role]string{layout.ESP: "vfat", layout.Data: "ext4"}[p.Role] {
			t.Partitions[i].FSUUID, t.Partitions[i].FSLabel = info.UUID, info.Label
		}
	}
	return t, nil
}

// Roles gives the partitions of a main disk their roles: system is that of the main system, or of a member of its array, as role says. On a
// platform with a data partition, which withData says, another one like it is that, so that no restore destroys it. A disk that was made
// for other firmware is refused.
func Roles(fw layout.Firmware, t layout.Table, system layout.Partition, role layout.Role, withData bool) (layout.Table, error) {
	t.Partitions = slices.Clone(t.Partitions)
	esp := false
	for i, p := range t.Partitions {
		switch {
		case p.Number == system.Number:
			t.Partitions[i] = system
			t.Partitions[i].Role = role
		case p.Type == layout.TypeESP:
			t.Partitions[i].Role, esp = layout.ESP, true
		case p.Type == layout.TypeBIOSBoot:
			t.Partitions[i].Role = layout.BIOSBoot
		case withData && role == layout.Primary && (p.Type == layout.TypeLinux || p.Type == layout.TypeMBRLinux):
			t.Partitions[i].Role = layout.Data
		case withData && role == layout.Member && (p.Type == layout.TypeRAID || p.Type == layout.TypeMBRRAID):
			t.Partitions[i].Role = layout.DataMember
		}
	}
	if esp != (fw == layout.UEFI) {
		return t, fmt.Errorf("the main disk was not made for %s firmware: start the stick the other way", fw)
	}
	return t, nil
}

// run rebuilds the volume. im is a proven image of a medium that is mounted. The unit's record is written last: until then no boot
// takes the volume for one of the unit's, and the work may begin anew. Afterwards nothing is mounted.
func (r *rebuild) run(ctx context.Context, e job.Env, im image.Image) error {
	volume := state.Open(r.Places.Recovery)
	r.unit.Original = im.Name.String()
	defer func() {
		for _, dir := range []string{r.Places.Main, r.Places.Recovery} {
			if yes, err := r.Mounted(dir); err == nil && yes {
				if err := r.Unmount(dir); err != nil {
					r.Log.Warn("volume cannot be unmounted", "dir", dir, "err", err)
				}
			}
		}
	}()
	err := e.Run(ctx, record.Job(decide.Rebuild), "rebuild", []step.Step{
		{Name: "check-room", Say: "Checking room", Run: func(context.Context) error { return r.checkRoom(im) }},
		{Name: "mount-main", Say: "Reading system", Run: func(context.Context) error {
			return r.Mount(r.Main.Path, r.Places.Main, "ext4", host.MountOptions{ReadOnly: true, NoExec: true, NoSUID: true, NoDev: true})
		}},
		{Name: "partition-recovery", Say: "Partitioning", Run: func(context.Context) error { return r.partition() }},
		{Name: "format-recovery", Say: "Formatting", Run: r.format},
		{Name: "write-files", Say: "Copying image", Run: func(ctx context.Context) error { return r.writeFiles(ctx, volume, im) }},
		{Name: "credentials", Say: "Credentials", Run: func(context.Context) error {
			return errors.Join(volume.WriteKey(e.Key), volume.WriteHash(r.hash))
		}},
		{Name: "boot-recovery", Say: "Making it boot", Run: func(context.Context) error { return r.PutRecoveryArtifact(r.unit, r.Places.Recovery) }},
		{Name: "boot-entries", Say: "Boot entries", Run: func(context.Context) error {
			if r.Firmware != layout.UEFI {
				return nil
			}
			_, err := r.EnsureEntries(r.Vars, r.unit)
			return err
		}},
		{Name: "write-record", Say: "Writing record", Run: func(context.Context) error {
			if err := keepLog(e.Journal, volume); err != nil {
				r.Log.Warn("log cannot be kept on the recovery volume", "err", err)
			}
			return volume.WriteUnit(r.unit)
		}},
	})
	if err != nil && fault.Of(err) == nil {
		err = fault.Because(fault.NoRebuild, err)
	}
	return err
}

// checkRoom is the last look before anything is lost: the image fits, and the device is still the one that was shown to the person.
func (r *rebuild) checkRoom(im image.Image) error {
	if room := r.unit.Recovery.Table.Find(layout.Recovery).Size; im.Size+spare > room {
		return fault.Newf(fault.NoRebuild, "the image has %d bytes, and the volume %d", im.Size, room)
	}
	disks, err := r.Disks()
	if err != nil {
		return err
	}
	same := slices.ContainsFunc(disks, func(d block.Disk) bool {
		return d.Path == r.Device.Path && d.Size == r.Device.Size && d.Model == r.Device.Model && d.Serial == r.Device.Serial && d.WWN == r.Device.WWN
	})
	if same && r.unit.OneDisk() {
		now, err := r.ReadTable(r.Device.Path)
		if err != nil {
			return err
		}
		same = r.unit.Recovery.Table.On(now)
	}
	if !same {
		return fault.Newf(fault.NoRebuild, "%s is not what it was", r.Device.Path)
	}
	return nil
}

// volume is the partition of the new recovery volume.
func (r *rebuild) volume() string {
	return block.PartitionPath(r.Device.Path, r.unit.Recovery.Table.Find(layout.Recovery).Number)
}

// partition makes room for the new recovery volume. On the only disk of a unit that is its partition, and no byte beside it.
func (r *rebuild) partition() error {
	if r.unit.OneDisk() {
		return r.ClearPartition(r.volume())
	}
	return r.WriteTable(r.Device.Path, r.unit.Recovery.Table)
}

func (r *rebuild) format(ctx context.Context) error {
	roles := []layout.Role{layout.ESP, layout.Recovery}
	if r.unit.OneDisk() {
		roles = []layout.Role{layout.Recovery}
	}
	if err := r.Format(ctx, r.Device.Path, r.unit.Recovery.Table, roles); err != nil {
		return err
	}
	if err := r.Mount(r.volume(), r.Places.Recovery, "ext4", host.MountOptions{NoExec: true, NoSUID: true, NoDev: true}); err != nil {
		return err
	}
	return os.Chmod(r.Places.Recovery, 0o700)
}

// writeFiles copies the image with its signature, and the boot artifact of the main system.
func (r *rebuild) writeFiles(ctx context.Context, v *state.Volume, im image.Image) error {
	if err := machine.MakeDir(v.Path(), state.ImageDir); err != nil {
		return err
	}
	file := v.Path(state.ImageDir, im.Name.String())
	for _, f := range []struct{ from, to string }{
		{im.Path + signature.Suffix, file + signature.Suffix},
		{im.Path, file},
		{filepath.Join(r.Places.Main, "boot", r.Site.Names.BootFile), v.Path(r.Site.Names.BootFile)},
	} {
		err := copyFile(f.from, f.to)
		if errors.Is(err, os.ErrNotExist) && f.from == im.Path+signature.Suffix && r.Policy.AllowUnsigned {
			continue
		}
		if err != nil {
			return err
		}
	}
	if err := r.newerArtifact(v.Path(r.Site.Names.BootFile)); err != nil {
		return err
	}
	// It lay on a medium while it was proven, and on its way here.
	im.Path = file
	meter, stop := r.Track(ctx, im.Size)
	defer stop()
	return image.Prove(ctx, im, r.Policy, r.Keys, meter.Set)
}

// newerArtifact replaces the recovery artifact own by the one that the ESP of the only disk starts, if that has a higher build number: it
// goes upwards only. Then the ESP stays as it is.
func (r *rebuild) newerArtifact(own string) error {
	esp := r.unit.Recovery.Table.Find(layout.ESP)
	if esp == nil || !r.unit.OneDisk() {
		return nil
	}
	return r.OnESP(block.PartitionPath(r.Device.Path, esp.Number), machine.RemovablePath, func(file string) error {
		if _, err := machine.ReadArtifact(file); err != nil {
			r.Log.Warn("the ESP has no recovery artifact, it gets that of the main system", "err", err)
			return nil
		}
		// Trusted no more than before: it is what this disk's recovery starts already, and stays where it is.
		_, err := machine.UpdateRecovery(r.Log, own, file, true)
		return err
	})
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
