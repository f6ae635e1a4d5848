package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/hw/raid"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/state"
	"gprovision/unit/sysroot"
)

// target is a disk that is written to.
type target struct {
	block.Disk
	// table is what the disk gets. recorded says that it has it already: only broken copies of it are written.
	table    layout.Table
	recorded bool
	// keep are the roles of partitions that are not touched.
	keep []layout.Role
}

// chooseDisk takes the disks that were found, and no other: while the image was checked somebody may have changed disks. It lays
// them out, so that all that can be wrong with them is known before anything is destroyed.
func (j *restoring) chooseDisk(ctx context.Context) error {
	own, err := j.RecoveryDisk(j.Unit)
	if err != nil {
		return err
	}
	if (j.Unit.Array != nil) != j.Identity.Variant.HasRAID() {
		return fault.Newf(fault.PlanChanged, "the platform's RAID level is %d; the unit's record has an array: %t", j.Identity.Variant.SwRaidlevel, j.Unit.Array != nil)
	}
	if j.Unit.OneDisk() != j.Identity.Variant.OneDisk() {
		return fault.Newf(fault.PlanChanged, "the platform's recovery volume is on the main disk: %t; the unit's: %t", j.Identity.Variant.OneDisk(), j.Unit.OneDisk())
	}
	if !j.begun {
		disks, err := j.mainDisks()
		if err != nil {
			return err
		}
		j.disks = nil
		for _, d := range disks {
			j.disks = append(j.disks, target{Disk: d})
		}
	}
	for i := range j.disks {
		d := &j.disks[i]
		if (d.Name == own.Name) != j.Unit.OneDisk() {
			return fault.Newf(fault.MainForeign, "the main disk is %s, the recovery device %s", d.Name, own.Name)
		}
		if err := j.layOut(i); err != nil {
			return err
		}
		carries, err := j.Carries(d.Path)
		if err != nil {
			return fault.Because(fault.DiskWrite, err)
		}
		j.Log.Info("plan", "disk", d.Name, "model", d.Model, "serial", d.Serial, "bytes", d.Size, "carries", carries,
			"table", string(d.table.Kind), "recorded", d.recorded, "kept", fmt.Sprint(d.keep), "image", j.image.Name.String())
	}
	return j.checkRoom(ctx)
}

// mainDisks looks again for the disks that the decision was made for, in the order of the record.
func (j *restoring) mainDisks() ([]block.Disk, error) {
	if j.Main != nil && j.Unit.Array == nil {
		parts, err := j.Partitions(platform.AllowedMain)
		if err != nil {
			return nil, err
		}
		parts = slices.DeleteFunc(parts, func(p machine.Found) bool { return p.Partition.UUID != j.Main.Partition.UUID })
		if len(parts) != 1 || parts[0].Path != j.Main.Path {
			return nil, fault.Newf(fault.MainMissing, "%s is not what it was when the restore began", j.Main.Path)
		}
		return []block.Disk{parts[0].Disk}, nil
	}
	if len(j.Planned) == 0 {
		return nil, fault.Newf(fault.MainMissing, "no disk was found that the platform plans")
	}
	if len(j.Planned) != len(j.Unit.Main) {
		return nil, fault.Newf(fault.PlanChanged, "the platform asks for %d main disks, the unit's record has %d", len(j.Planned), len(j.Unit.Main))
	}
	disks, err := j.Disks()
	if err != nil {
		return nil, err
	}
	var out []block.Disk
	for _, p := range j.Planned {
		i := slices.IndexFunc(disks, func(d block.Disk) bool { return sameDisk(d, p) })
		if i < 0 {
			return nil, fault.Newf(fault.MainMissing, "%s is not what it was when the restore began", p.Path)
		}
		if j.Blank {
			blank, why, err := j.BlankDisk(disks[i].Path)
			if err != nil {
				return nil, fault.Because(fault.MainMissing, err)
			}
			if !blank {
				return nil, fault.Newf(fault.MainForeign, "%s was blank when the restore began and carries %s now", disks[i].Path, why)
			}
		}
		out = append(out, disks[i])
	}
	return j.inOrder(out), nil
}

// inOrder puts each disk at the place where the record has it, and those that it does not have at the places that are left.
func (j *restoring) inOrder(disks []block.Disk) []block.Disk {
	out := make([]block.Disk, len(disks))
	taken := make([]bool, len(disks))
	place := func(fits func(d block.Disk, i int) bool) {
		for i := range out {
			for k, d := range disks {
				if out[i].Path == "" && !taken[k] && fits(d, i) {
					out[i], taken[k] = d, true
				}
			}
		}
	}
	place(func(d block.Disk, i int) bool {
		r := j.Unit.Main[i]
		return (r.Serial != "" || r.WWN != "") && r.Serial == d.Serial && r.WWN == d.WWN
	})
	place(func(block.Disk, int) bool { return true })
	return out
}

func sameDisk(a, b block.Disk) bool {
	return a.Path == b.Path && a.Size == b.Size && a.Model == b.Model && a.Serial == b.Serial && a.WWN == b.WWN
}

// layOut decides which table a disk gets. One that is to be preserved in part keeps the recorded one: the only disk of a unit,
// and a disk with the data partition of the record.
func (j *restoring) layOut(i int) error {
	d, record := &j.disks[i], j.Unit.Main[i].Table
	d.keep = nil
	dev, err := j.Open(d.Path, machine.Read)
	if err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	defer dev.Close()
	now, err := j.ReadTable(d.Path)
	if err != nil {
		j.Log.Warn("partition table cannot be read", "disk", d.Name, "err", err)
	}
	d.recorded = (j.Unit.OneDisk() || dataOf(record) != nil) && record.On(now)
	if j.Unit.OneDisk() && !d.recorded {
		return fault.Newf(fault.TableChanged, "the partition table of %s is not the recorded one", d.Path)
	}
	data := Data{State: NoData}
	if p := dataOf(record); p != nil && (j.Request == nil || !j.Request.DropsData()) {
		if data, err = LookForData(dev, *p, j.Unit.DataArray); err != nil {
			return fault.Because(fault.DiskWrite, err)
		}
	}
	// In a table that is as recorded the partition is ours, whatever became of its content. Elsewhere only its content proves that
	// it is.
	if data.State == OurData || d.recorded && data.State == OtherData {
		d.keep = []layout.Role{dataOf(record).Role}
	}
	if data.State == OtherData && d.recorded {
		j.Log.Warn("the data partition does not hold what it should, and is left as it is", "disk", d.Name, "holds", data.Holds, journal.ForPerson())
	}
	if d.recorded || data.State == OurData {
		if record.Find(j.carrier()) == nil || j.Firmware == layout.UEFI && record.Find(layout.ESP) == nil {
			return fault.Newf(fault.RecoveryDamaged, "the unit's record has no partition for the main system or its ESP")
		}
		d.table = record
		return nil
	}
	m := *j.Machine
	if j.Unit.Array != nil && j.Unit.DataArray == nil {
		m.Identity.Variant.DataPartition = nil // the unit was provisioned without
	}
	fresh, err := m.LayMain(d.Disk, 0, machine.NewIDs())
	if err != nil {
		return err
	}
	others := []layout.Table{j.Unit.Recovery.Table}
	for _, o := range j.disks[:i] {
		others = append(others, o.table)
	}
	d.table = Adapt(record, fresh, others...)
	return nil
}

// carrier is the role of the partitions that carry the main system.
func (j *restoring) carrier() layout.Role {
	if j.Unit.Array != nil {
		return layout.Member
	}
	return layout.Primary
}

// dataOf returns the partition of a table whose content a restore preserves, or nil.
func dataOf(t layout.Table) *layout.Partition {
	if p := t.Find(layout.Data); p != nil {
		return p
	}
	return t.Find(layout.DataMember)
}

// DataState says what was found at the place of the data partition.
type DataState string

// The states of a data partition.
const (
	NoData    DataState = "none"  // nothing: a fresh filesystem is made
	OurData   DataState = "ours"  // the recorded filesystem, or a member of the recorded array
	OtherData DataState = "other" // something else
)

// Data is what was found at the place of the data partition.
type Data struct {
	State DataState
	Holds string // what it is, for a person
}

// LookForData says what disk holds at the place of the recorded partition p. array is that of the data, nil if they are on no array.
func LookForData(disk interface {
	io.ReaderAt
	Size() int64
}, p layout.Partition, array *state.Array) (Data, error) {
	if p.Start > disk.Size()-p.Size {
		return Data{State: NoData}, nil
	}
	part := io.NewSectionReader(disk, p.Start, p.Size)
	if p.Role == layout.DataMember {
		member, err := machine.ReadMember(disk, p)
		if err == nil && array != nil && member.UUID == array.UUID {
			return Data{OurData, member.String()}, nil
		}
		if err == nil {
			return Data{OtherData, member.String()}, nil
		}
		if !errors.Is(err, raid.ErrNone) {
			return Data{}, err
		}
	}
	info, err := filesystem.Probe(part, p.Size)
	if err != nil {
		return Data{}, err
	}
	if info.Type == "ext4" && info.UUID == p.FSUUID {
		return Data{OurData, info.Type}, nil
	}
	blank, why, err := filesystem.Blank(part, p.Size)
	if err != nil {
		return Data{}, err
	}
	if blank {
		return Data{State: NoData}, nil
	}
	return Data{OtherData, why}, nil
}

// size is how large the main system is, bytes.
func (j *restoring) size() int64 {
	least := j.disks[0].table.Find(j.carrier()).Size
	for _, d := range j.disks {
		least = min(least, d.table.Find(j.carrier()).Size)
	}
	if j.Unit.Array == nil {
		return least
	}
	return raid.Size(j.Unit.Array.Level, len(j.disks), least)
}

// Adapt returns the table fresh, which fits the disk, with the identifiers of the recorded one wherever both have the same
// role, so that boot entries and records stay right on a replaced disk of another size. Identifiers that a table of this kind
// cannot have, or that stand twice there or in the tables of other disks, are not taken: the record is not trusted.
func Adapt(recorded, fresh layout.Table, others ...layout.Table) layout.Table {
	if recorded.Kind != fresh.Kind {
		return fresh
	}
	out := fresh
	out.UUID = recorded.UUID
	out.Partitions = nil
	seen := map[string]bool{}
	for _, other := range others {
		seen[other.UUID] = true
		for _, p := range other.Partitions {
			seen[p.UUID], seen[p.FSUUID] = true, true
		}
	}
	ids := []string{out.UUID}
	for _, p := range fresh.Partitions {
		r := recorded.Find(p.Role)
		if r != nil {
			if len(r.UUID) != len(p.UUID) || len(r.FSUUID) != len(p.FSUUID) {
				return fresh
			}
			p.UUID, p.FSUUID = r.UUID, r.FSUUID
		}
		if out.Kind == layout.MBR && p.UUID != fmt.Sprintf("%s-%02x", out.UUID, p.Number) {
			return fresh
		}
		ids = append(ids, p.UUID)
		if p.FSUUID != "" {
			ids = append(ids, p.FSUUID)
		}
		out.Partitions = append(out.Partitions, p)
	}
	for _, id := range ids {
		if seen[id] {
			return fresh
		}
		seen[id] = true
	}
	return out
}

// partition writes the tables. Where one stays as it is, what is made anew in it is cleared, so that no old signature is left.
func (j *restoring) partition(ctx context.Context) error {
	if j.Unit.Array != nil {
		if err := j.StopArray(ctx); err != nil {
			return fault.Because(fault.DiskWrite, err)
		}
	}
	for _, d := range j.disks {
		if err := j.writeTable(d); err != nil {
			return fault.Because(fault.DiskWrite, err)
		}
	}
	return nil
}

func (j *restoring) writeTable(d target) error {
	if !d.recorded {
		return j.WriteTable(d.Path, d.table, d.keep...)
	}
	if err := j.RepairTable(d.Path, d.table); err != nil {
		return err
	}
	for _, p := range d.table.Partitions {
		if slices.Contains(j.fresh(d), p.Role) {
			if err := j.ClearPartition(block.PartitionPath(d.Path, p.Number)); err != nil {
				return err
			}
		}
	}
	return nil
}

// fresh are the roles whose content is made anew on a disk.
func (j *restoring) fresh(d target) []layout.Role {
	roles := []layout.Role{j.carrier()}
	if !j.Unit.OneDisk() {
		roles = append(roles, layout.ESP)
	}
	for _, r := range []layout.Role{layout.Data, layout.DataMember} {
		if p := d.table.Find(r); p != nil && !slices.Contains(d.keep, r) {
			roles = append(roles, r)
		}
	}
	return roles
}

func (j *restoring) format(ctx context.Context) error {
	for _, d := range j.disks {
		if err := j.Format(ctx, d.Path, d.table, j.fresh(d)); err != nil {
			return fault.Because(fault.DiskWrite, err)
		}
	}
	a := j.Unit.Array
	if a == nil {
		return nil
	}
	var members []string
	for _, d := range j.disks {
		members = append(members, block.PartitionPath(d.Path, d.table.Find(layout.Member).Number))
	}
	if err := j.CreateArray(ctx, *a, members); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	if err := j.MakeExt4(ctx, machine.ArrayPath, a.FSLabel, a.FSUUID); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	return j.formatData(ctx)
}

// formatData makes the array of the data where none of the disks has a member of it. It also does so where all that is there of it
// provably carries nothing: that is what a restore leaves that was cut off in this place. What cannot be looked at is left alone, and
// does not keep the unit from having a system.
func (j *restoring) formatData(ctx context.Context) error {
	a := j.Unit.DataArray
	if a == nil {
		return nil
	}
	var places []string
	var parts []raid.Part
	kept, foreign := false, false
	for _, d := range j.disks {
		p := d.table.Find(layout.DataMember)
		if p == nil {
			j.Log.Warn("a main disk has no place for the data, their array is left as it is", "disk", d.Name, journal.ForPerson())
			return nil
		}
		path := block.PartitionPath(d.Path, p.Number)
		places = append(places, path)
		if !slices.Contains(d.keep, layout.DataMember) {
			continue
		}
		kept = true
		member, err := j.readMember(d.Path, *p)
		if err == nil && member.UUID == a.UUID {
			parts = append(parts, raid.Part{Member: member, Path: path, Disk: d.Name})
		} else {
			foreign = true
		}
	}
	if kept {
		found := raid.Find(parts, a.UUID)
		carries, blank, err := j.probeData(ctx, found)
		if err != nil || foreign || !blank {
			if err != nil || foreign || found.Degraded() || carries != "ext4" {
				j.Log.Warn("the array of the data is not as it should be, and is left as it is", "members", len(found.Parts), "of", len(places), "carries", carries, "err", err, journal.ForPerson())
			}
			return nil
		}
		for _, d := range j.disks { // a member would be taken for one that is in use
			if err := j.ClearPartition(block.PartitionPath(d.Path, d.table.Find(layout.DataMember).Number)); err != nil {
				return fault.Because(fault.DiskWrite, err)
			}
		}
	}
	j.Log.Info("making the array of the data", "raidLevel", a.Level, "members", places)
	if err := j.CreateDataArray(ctx, *a, places); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	return nil
}

// probeData says what the array of the data carries, if it can be started, and whether that is provably nothing.
func (j *restoring) probeData(ctx context.Context, a raid.Array) (carries string, blank bool, err error) {
	if !a.Enough() {
		return "", false, errors.New("too few members are there")
	}
	info, blank, err := j.ProbeDataArray(ctx, a)
	return info.Type, blank, err
}

func (j *restoring) readMember(disk string, p layout.Partition) (raid.Member, error) {
	dev, err := j.Open(disk, machine.Read)
	if err != nil {
		return raid.Member{}, err
	}
	defer dev.Close()
	return machine.ReadMember(dev, p)
}

// system is the device of the main system's filesystem.
func (j *restoring) system() string {
	if j.Unit.Array != nil {
		return machine.ArrayPath
	}
	d := j.disks[0]
	return block.PartitionPath(d.Path, d.table.Find(layout.Primary).Number)
}

// arrayConf is the mdadm.conf of the restored system.
func (j *restoring) arrayConf() string {
	if j.Unit.Array == nil {
		return ""
	}
	conf := "# Written by the factory restore.\n" + raid.Conf(machine.ArrayPath, j.Unit.Array.UUID)
	if a := j.Unit.DataArray; a != nil {
		conf += raid.Conf(machine.DataArrayPath, a.UUID)
	}
	return conf
}

// mounts are the lines of the restored system's fstab.
func (j *restoring) mounts() ([]sysroot.Mount, error) {
	v, main := j.Identity.Variant, j.disks[0].table
	if j.Unit.Array != nil { // the system is in none of the partitions
		main.Partitions = append(slices.Clone(main.Partitions), *j.Unit.System())
	}
	out, err := sysroot.Mounts(main, j.Unit.Recovery.Table, j.Site.Names.Recovery, v.DiskIsSSD)
	if err != nil {
		return nil, err
	}
	p, d := main.Find(layout.Data), v.DataPartition
	if a := j.Unit.DataArray; a != nil {
		p = &layout.Partition{FSUUID: a.FSUUID}
	}
	if p == nil || d == nil {
		return out, nil
	}
	source := "PARTUUID=" + p.UUID
	if p.UUID == "" {
		source = "UUID=" + p.FSUUID
	}
	options := "nofail,errors=remount-ro,x-systemd.device-timeout=90s"
	if v.DiskIsSSD {
		options += ",discard"
	}
	return append(out, sysroot.Mount{Source: source, Target: d.Mount, Type: "ext4", Options: options, Pass: 2}), nil
}
