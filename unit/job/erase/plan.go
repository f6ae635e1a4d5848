package erase

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"gprovision/hw/block"
	"gprovision/hw/drive"
	"gprovision/hw/filesystem"
	"gprovision/model/erasure"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/model/policy"
	"gprovision/unit/machine"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// plan is what an erase reaches, and what it does not.
type plan struct {
	Disks []planned `json:"disks"`
	// NotReached is what of the unit is not erased beside its drives.
	NotReached []string `json:"notReached,omitempty"`
	// Kept is what stays on purpose.
	Kept []string `json:"kept,omitempty"`
	// NoRebuild is why the recovery device is not erased and made anew, although that is asked for.
	NoRebuild string `json:"noRebuild,omitempty"`
}

// planned is a drive that is to be erased.
type planned struct {
	// Disks are the device, or all namespaces of its NVM subsystem, as they were when the plan was made.
	Disks []block.Disk `json:"disks"`
	// Spans are the parts of the device that are erased where something else on the drive is to stay; empty: all of it.
	Spans []span `json:"spans,omitempty"`
	// Missing reports that the record has it and nothing of it is there.
	Missing bool `json:"missing,omitempty"`
	// Grows reports that a device configuration overlay is taken away: the device has more sectors then, for good.
	Grows bool `json:"grows,omitempty"`
	// Role is what the drive is for; empty: a main disk. A recovery device that is erased and made anew is the last of a plan.
	Role       erasure.Role  `json:"role,omitempty"`
	Media      erasure.Media `json:"media"`
	Path       erasure.Path  `json:"path"`
	NotReached []string      `json:"notReached,omitempty"`
}

// span is a part of a device, in bytes.
type span struct {
	Start int64 `json:"start"`
	Size  int64 `json:"size"`
}

func (p planned) disk() block.Disk { return p.Disks[0] }

// bytes is how much of it is erased.
func (p planned) bytes() (n int64) {
	for _, s := range p.Spans {
		n += s.Size
	}
	if n == 0 {
		for _, d := range p.Disks {
			n += d.Size
		}
	}
	return n
}

// unerased is what a certificate says of a drive that nothing was done to.
func (p planned) unerased(why string) erasure.Drive {
	d := p.known()
	d.Bytes = erasure.Count(p.bytes())
	d.Evidence.Samples = erasure.Samples{Blocks: d.Bytes / erasure.Count(d.BlockSize), Reset: erasure.ResetNone}
	d.NotReached = append(d.NotReached, erasure.Printable(why))
	return d
}

// known is what is known of a drive without asking it.
func (p planned) known() erasure.Drive {
	d := p.disk()
	return erasure.Drive{
		Role: cmp.Or(p.Role, erasure.MainDisk), Name: d.Name, Bus: string(d.Bus),
		Model: erasure.Printable(strings.TrimSpace(d.Vendor + " " + d.Model)), Serial: erasure.Printable(d.Serial),
		BlockSize: uint32(d.SectorSize), NotReached: slices.Clone(p.NotReached),
		Evidence: erasure.Evidence{Media: p.Media, Path: p.Path},
	}
}

// planner makes a plan from the unit's record and from what is there.
type planner struct {
	m     *machine.Machine
	f     *survey.Findings
	disks []block.Disk
}

// makePlan plans the erase of all main disks of the platform, and changes nothing. The recovery device is part of it only if the policy has
// it made anew, and what a person has plugged in never is.
func makePlan(m *machine.Machine, f *survey.Findings) (plan, error) {
	disks, err := m.Disks()
	if err != nil {
		return plan{}, err
	}
	p := planner{m, f, disks}
	mains, lost, err := p.mains()
	if err != nil {
		return plan{}, err
	}
	var out plan
	for _, d := range mains {
		if slices.ContainsFunc(out.Disks, func(o planned) bool { return slices.ContainsFunc(o.Disks, same(d)) }) {
			continue // a further namespace
		}
		one, err := p.planned(d, mains)
		if err != nil {
			return plan{}, err
		}
		out.Disks = append(out.Disks, one)
	}
	for i, r := range lost {
		out.Disks = append(out.Disks, planned{
			Disks: []block.Disk{{Name: fmt.Sprintf("missing-%d", i+1), Bus: block.Bus(r.Bus), Model: r.Model, Serial: r.Serial, Size: r.Size,
				SectorSize: max(512, r.SectorSize)}},
			Missing: true, Media: erasure.UnknownMedia, Path: erasure.Direct,
		})
	}
	if m.Policy.Erase.Recovery == policy.RecoveryRebuild && !asksWhole(f) {
		if d, why := planDevice(p); why == "" {
			out.Disks = append(out.Disks, d)
		} else {
			m.Log.Warn("the recovery device is not erased as a whole", "why", why)
			out.NoRebuild = why
		}
	}
	out.NotReached, out.Kept = p.notReached(), p.kept()
	return out, nil
}

// mains returns the main disks that are there, and those of the record that are not.
func (p planner) mains() (out []block.Disk, lost []state.Disk, err error) {
	u, own := p.f.Unit, p.f.RecoveryPart.Disk.Name
	foreign := map[string]bool{}
	for _, m := range p.f.Media {
		foreign[m.Disk.Name] = true
	}
	for _, s := range p.f.Sticks {
		foreign[s.Disk.Name] = true
	}
	found := make([]bool, len(u.Main))
	for i, c := range machine.Candidates(p.disks) {
		d := p.disks[i]
		at := slices.IndexFunc(u.Main, func(r state.Disk) bool {
			return (r.Serial != "" || r.WWN != "") && r.Serial == d.Serial && r.WWN == d.WWN && r.Size == d.Size
		})
		is := at >= 0 || slices.ContainsFunc(p.f.Planned, same(d)) || slices.Contains(p.f.Members, d.Name) ||
			p.f.MainPart != nil && p.f.MainPart.Disk.Name == d.Name || u.OneDisk() && d.Name == own
		switch {
		case !is || foreign[d.Name]:
			continue
		case !platform.AllowedMain(p.m.Identity.Variant, c):
			return nil, nil, fault.Newf(fault.MainForeign, "the platform allows no main disk such as %s", d.Path)
		case d.Name == own && !u.OneDisk():
			return nil, nil, fault.Newf(fault.MainForeign, "%s is the recovery device, and a main disk too", d.Path)
		}
		if out = append(out, d); at >= 0 {
			found[at] = true
		}
	}
	if len(out) == 0 {
		return nil, nil, fault.Newf(fault.MainMissing, "no main disk of this unit is there")
	}
	for i, r := range u.Main {
		if !found[i] && len(lost) < len(u.Main)-len(out) {
			lost = append(lost, r)
		}
	}
	return out, lost, nil
}

// same returns what reports whether a disk is d, whatever partitions it has now.
func same(d block.Disk) func(block.Disk) bool {
	return func(o block.Disk) bool {
		return o.Name == d.Name && o.Path == d.Path && o.Bus == d.Bus && o.Size == d.Size && o.Model == d.Model && o.Serial == d.Serial &&
			o.WWN == d.WWN
	}
}

// planned plans one drive. mains are all main disks.
func (p planner) planned(d block.Disk, mains []block.Disk) (planned, error) {
	out := planned{Disks: []block.Disk{d}, Media: media(d), Path: p.path(d),
		Grows: d.Bus == block.SATA && p.m.Policy.Erase.DCO == policy.DCORestore}
	for _, kind := range p.carries(d.Path) {
		p.m.Log.Info("plan", "disk", d.Name, "model", d.Model, "serial", d.Serial, "bytes", d.Size, "carries", kind)
	}
	switch {
	case out.Path == erasure.RAID:
		out.NotReached = append(out.NotReached, "the physical drives behind the volume")
	case d.Bus == block.MMC:
		out.NotReached = append(out.NotReached, "boot areas and RPMB")
	}
	if p.f.Unit.OneDisk() && !asksWhole(p.f) {
		var err error
		out.Spans, err = p.around(d)
		out.NotReached = append(out.NotReached, "the recovery volume is on the same drive: no command was sent that reaches all of it")
		return out, err
	}
	shared := false
	for _, o := range p.disks {
		if o.Name == d.Name || p.subsystem(o) == "" || p.subsystem(o) != p.subsystem(d) {
			continue
		}
		if shared = shared || !slices.ContainsFunc(mains, same(o)); !shared {
			out.Disks = append(out.Disks, o)
		}
	}
	if shared {
		out.Disks, out.Spans = out.Disks[:1], []span{{0, d.Size}}
		out.NotReached = append(out.NotReached, "another namespace stays: no command was sent that reaches the whole NVM subsystem")
	}
	return out, nil
}

// subsystem returns the name of the NVM subsystem of a disk, "" if it is in none.
func (p planner) subsystem(d block.Disk) string {
	b, err := fs.ReadFile(p.m.Sys, "block/"+d.Name+"/device/subsysnqn")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// margin is what stays at either end of a drive with the recovery volume: partition tables and a boot loader, in bytes.
const margin = layout.MiB

// around returns all of a drive but its table, the recovery volume, and what starts the unit from it.
func (p planner) around(d block.Disk) ([]span, error) {
	record := p.f.Unit.Main[0].Table
	now, err := p.m.ReadTable(d.Path)
	if err != nil || !record.On(now) {
		return nil, fault.Because(fault.TableChanged, errors.Join(fmt.Errorf("the partition table of %s is not the recorded one", d.Path), err))
	}
	keep := []span{{0, margin}, {d.Size - margin, margin}}
	for _, part := range record.Partitions {
		switch part.Role {
		case layout.Primary, layout.Data, layout.Member, layout.DataMember:
		default:
			keep = append(keep, span{part.Start, part.Size})
		}
	}
	slices.SortFunc(keep, func(a, b span) int { return int((a.Start - b.Start) / layout.MiB) })
	var out []span
	at := int64(0)
	for _, k := range keep {
		if k.Start > at {
			out = append(out, span{at, k.Start - at})
		}
		at = max(at, k.Start+k.Size)
	}
	if len(out) == 0 {
		return nil, fault.Newf(fault.TableChanged, "nothing of %s is to be erased", d.Path)
	}
	return out, nil
}

// media says what the data of a disk is on.
func media(d block.Disk) erasure.Media {
	switch {
	case d.Bus == block.NVMe || d.Bus == block.MMC:
		return erasure.Flash
	case d.Bus != block.SATA && d.Bus != block.SCSI:
		return erasure.UnknownMedia
	case d.Rotational:
		return erasure.Rotating
	}
	return erasure.Flash
}

// path says how a disk is reached.
func (p planner) path(d block.Disk) erasure.Path {
	switch {
	case d.Bus == block.USB:
		return erasure.USB
	case d.Bus == block.VirtIO:
		return erasure.Virtual
	case slices.Contains(raidDrivers(), p.driver(d)):
		return erasure.RAID
	}
	return erasure.Direct
}

// raidDrivers are the drivers of controllers that show volumes for drives, as /sys/class/scsi_host/hostN/proc_name has them.
func raidDrivers() []string {
	return []string{
		"3w-9xxx", "3w-sas", "3w-xxxx", "aacraid", "arcmsr", "hpsa", "hptiop", "ips", "megaraid", "megaraid_sas", "mvumi", "pmcraid", "smartpqi",
		"stex",
	}
}

// driver returns the driver of the controller of a disk, "" if it is not known.
func (p planner) driver(d block.Disk) string {
	link, err := fs.ReadLink(p.m.Sys, "block/"+d.Name)
	if err != nil {
		return ""
	}
	host := regexp.MustCompile(`/(host\d+)/`).FindStringSubmatch(link)
	if host == nil {
		return ""
	}
	b, err := fs.ReadFile(p.m.Sys, path.Join("class/scsi_host", host[1], "proc_name"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// carries describes what is recognised on a disk and its partitions, so that a log says which array metadata is gone.
func (p planner) carries(path string) (out []string) {
	dev, err := p.m.Open(path, machine.Read)
	if err != nil {
		return []string{err.Error()}
	}
	defer dev.Close()
	look := func(where string, r io.ReaderAt, size int64) {
		all, err := filesystem.ProbeAll(r, size)
		if err != nil {
			out = append(out, where+err.Error())
		}
		for _, i := range all {
			out = append(out, strings.TrimSpace(fmt.Sprintf("%s%s %s", where, i.Type, i.UUID)))
		}
	}
	look("", dev, dev.Size())
	if t, err := p.m.ReadTable(path); err == nil {
		for _, part := range t.Partitions {
			if part.Start >= 0 && part.Size > 0 && part.Start <= dev.Size()-part.Size {
				look(fmt.Sprintf("partition %d: ", part.Number), io.NewSectionReader(dev, part.Start, part.Size), part.Size)
			}
		}
	}
	if out == nil {
		return []string{"nothing"}
	}
	return out
}

// notReached is what may hold a customer's secrets and is no disk.
func (p planner) notReached() []string {
	out := []string{"passwords and settings of the firmware, and its variables that are not ours"}
	if list, err := fs.ReadDir(p.m.Sys, "class/ipmi"); err == nil && len(list) > 0 {
		out = append(out, "accounts, settings and event log of the management controller")
	}
	if _, err := fs.Stat(p.m.Sys, "firmware/acpi/tables/TPM2"); err == nil {
		if _, err := fs.Stat(p.m.Sys, "class/tpm/tpm0"); err != nil {
			out = append(out, "a TPM that the kernel has no driver for")
		}
	}
	slices.Sort(out)
	return out
}

// kept is what stays on the unit on purpose.
func (p planner) kept() []string {
	if asksWhole(p.f) {
		return nil
	}
	out := []string{"the unit's record and its key", "the hash of the administrator's password", "release images and boot artifacts",
		"restore data that are marked to stay", "this certificate"}
	if p.f.Unit.OneDisk() {
		out = append(out, "the partition table and what starts the unit, on the main disk")
	}
	if p.m.Firmware == layout.UEFI {
		out = append(out, "boot entries of the firmware")
	}
	return out
}

// again finds the disks of a plan among those that are there now: names may have changed over a reboot. A disk without a serial number is
// the one of the same name.
func (p planned) again(disks []block.Disk) (planned, error) {
	out := p
	out.Disks = nil
	for _, want := range p.Disks {
		var hits []block.Disk
		for _, d := range disks {
			named := want
			if want.Serial != "" || want.WWN != "" {
				named.Name, named.Path = d.Name, d.Path
			}
			if p.Grows {
				named.Size = max(named.Size, d.Size)
			}
			if same(named)(d) {
				hits = append(hits, d)
			}
		}
		if len(hits) > 1 { // cheap drives have the same serial number
			hits = slices.DeleteFunc(hits, func(d block.Disk) bool { return d.Name != want.Name })
		}
		if len(hits) != 1 {
			return p, fmt.Errorf("%w: %s %s %s of the plan is not there", drive.ErrNotPermitted, want.Name, want.Model, want.Serial)
		}
		out.Disks = append(out.Disks, hits[0])
	}
	return out, nil
}

// permit makes the permit for a drive that is open: from the plan, and from what the very device says. It is the only place that makes one.
func (p planned) permit(d *machine.Drive, size int64) (drive.Permit, error) {
	id, err := d.Commands.Identity()
	if err != nil {
		return drive.Permit{}, fmt.Errorf("%w: %w", drive.ErrNotPermitted, err)
	}
	want := p.disk()
	switch {
	case id.Size != size:
		return drive.Permit{}, fmt.Errorf("%w: %s is to have %d bytes, and it has %d", drive.ErrNotPermitted, want.Name, size, id.Size)
	case !strings.Contains(id.Model, strings.TrimSpace(want.Model)):
		return drive.Permit{}, fmt.Errorf("%w: %s is to be %q, and it is %q", drive.ErrNotPermitted, want.Name, want.Model, id.Model)
	case want.Bus != block.USB && want.Serial != "" && id.Serial != strings.TrimSpace(want.Serial): // a bridge has a number of its own
		return drive.Permit{}, fmt.Errorf("%w: %s is to be %q, and it is %q", drive.ErrNotPermitted, want.Name, want.Serial, id.Serial)
	}
	return drive.NewWholePermit(id)
}
