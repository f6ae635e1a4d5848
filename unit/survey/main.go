package survey

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// mainLook is the part of a survey that looks for the main system.
type mainLook struct {
	s *Survey
	f *Findings
}

// hasRecord reports whether there is a record to know the main system by.
func (l mainLook) hasRecord() bool {
	return l.f.Recovery == decide.RecoveryFound || l.f.Recovery.Elsewhere()
}

// lookForMain finds the partition of the main system by its recorded identifier, on a bus that the platform allows.
// Without a recovery volume, the kernel argument real_root names the partition.
func (l mainLook) lookForMain(ctx context.Context) {
	if l.f.StandIn { // they were erased, and one of them carries that volume
		l.f.Main, l.f.Recorded = decide.MainForeign, true
		return
	}
	root := l.s.Args.Root
	if l.hasRecord() {
		if l.f.Unit.Array != nil {
			l.lookForArray(ctx)
			return
		}
		root = decide.Root{}
		if p := l.f.Unit.Main[0].Table.Find(layout.Primary); p != nil {
			root = decide.Root{By: decide.ByPARTUUID, Ident: p.UUID}
		}
	}
	if !l.hasRecord() && root.By == decide.ByUUID && l.s.Eyes.Variant().HasRAID() {
		l.guessArray(ctx, root.Ident)
		return
	}
	parts, err := l.s.Eyes.Partitions(platform.AllowedMain)
	if err != nil {
		note(&l.f.Notes, "main: %v", err)
		return
	}
	var hits []machine.Found
	probe := func(path string) (filesystem.Info, error) {
		info, _, err := l.s.Eyes.ProbePartition(path)
		return info, err
	}
	for _, p := range parts {
		if namesPart(root, p, probe) {
			hits = append(hits, p)
		}
	}
	switch {
	case len(hits) > 1:
		l.f.Main = decide.MainAmbiguous
		note(&l.f.Notes, "main: %s and %s", hits[0].Path, hits[1].Path)
	case len(hits) == 1:
		l.f.MainPart, l.f.Recorded = &hits[0], l.hasRecord()
		l.judgeMain()
	default:
		l.lookForPlannedDisk()
	}
}

// judgeMain mounts the main system read-only and reads its mark.
func (l mainLook) judgeMain() {
	info, noted, err := l.s.Eyes.ProbePartition(l.f.MainPart.Path)
	if err != nil {
		l.f.Main, l.f.Unreadable = decide.MainDamaged, true
		note(&l.f.Notes, "main: %s cannot be read: %v", l.f.MainPart.Path, err)
		return
	}
	if info.Type != "ext4" {
		l.f.Main = otherContent(info)
		note(&l.f.Notes, "main: %s carries %q instead of ext4", l.f.MainPart.Path, info.Type)
		return
	}
	if noted {
		l.f.Main = decide.MainDamaged
		note(&l.f.Notes, "main: the kernel has noted errors in the filesystem of %s", l.f.MainPart.Path)
		return
	}
	err = l.s.checkReplayed(l.f, l.f.MainPart.Path)
	if errors.Is(err, errReplay) {
		return
	}
	if err == nil {
		err = l.s.Eyes.Mount(l.f.MainPart.Path, l.s.Eyes.Places().Main, "ext4")
	}
	if err != nil {
		l.f.Main = decide.MainDamaged
		note(&l.f.Notes, "main: %v", err)
		return
	}
	defer func() {
		if err := l.s.Eyes.Unmount(l.s.Eyes.Places().Main); err != nil {
			note(&l.f.Notes, "main: %v", err)
		}
	}()
	mark, err := l.readMark()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.f.Main = decide.MainUnmarked
	case err != nil:
		l.f.Main = decide.MainDamaged
		note(&l.f.Notes, "main: mark: %v", err)
	default:
		l.f.Main, l.f.Mark, l.f.Fulfilled = decide.MainMarked, mark, mark.Request
	}
}

// otherContent judges a main partition that has no ext4. A blank partition, or one that looks like a bad superblock,
// is damage. Anything else that is recognised is somebody's data: a repair could find old copies of superblocks and
// write over it.
func otherContent(info filesystem.Info) decide.MainState {
	switch info.Type {
	case "", "ext2", "jbd":
		return decide.MainDamaged
	}
	return decide.MainForeign
}

func (l mainLook) readMark() (state.Mark, error) {
	root, err := os.OpenRoot(l.s.Eyes.Places().Main)
	if err != nil {
		return state.Mark{}, err
	}
	defer root.Close()
	b, err := state.ReadFile(root, l.s.Names.Mark, state.MaxMark)
	if err != nil {
		return state.Mark{}, err
	}
	return state.ParseMark(b)
}

// lookForPlannedDisk handles a missing main partition: it looks whether the planned disks are there, and whether they
// are blank.
func (l mainLook) lookForPlannedDisk() {
	chosen, err := l.plannedDisks()
	switch {
	case errors.Is(err, fault.DiskAmbiguous):
		l.f.Main = decide.MainAmbiguous
		note(&l.f.Notes, "main: %v", err)
		return
	case err != nil:
		note(&l.f.Notes, "main: %v", err)
		return
	}
	l.f.Planned = chosen
	l.f.Main = decide.MainBlank
	for _, c := range chosen {
		blank, why, err := l.s.Eyes.BlankDisk(c.Path)
		switch {
		case err != nil:
			l.f.Main = decide.MainAbsent
			note(&l.f.Notes, "main: %s cannot be read: %v", c.Path, err)
			return
		case !blank:
			l.f.Main = decide.MainForeign
			note(&l.f.Notes, "main: %s carries %s", c.Path, why)
		}
	}
	if !l.hasRecord() {
		return
	}
	if l.f.Main == decide.MainForeign && l.begunMain() {
		l.f.Main = decide.MainBegun
	}
	l.f.Recorded = recordsOf(l.f.Planned, l.f.Unit.Main, l.f.Main != decide.MainForeign) != nil
}

// begunMain reports whether the planned disks are the recorded ones and carry nothing recognised but their recorded
// tables.
func (l mainLook) begunMain() bool {
	own := recordsOf(l.f.Planned, l.f.Unit.Main, true)
	for i, r := range own {
		only, err := l.s.Eyes.OnlyTable(l.f.Planned[i].Path, r.Table)
		if err != nil {
			note(&l.f.Notes, "main: %s: %v", l.f.Planned[i].Path, err)
		}
		if !only {
			return false
		}
	}
	return own != nil
}

// plannedDisks returns the disks that the platform plans as main disks.
func (l mainLook) plannedDisks() ([]block.Disk, error) {
	disks, err := l.s.Eyes.Disks()
	if err != nil {
		return nil, err
	}
	recovery := ""
	if l.f.RecoveryPart != nil {
		recovery = l.f.RecoveryPart.Disk.Path
	}
	chosen, err := platform.ChooseMain(l.s.Eyes.Variant(), machine.Candidates(disks), recovery)
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

// matchesRecord reports whether d is the disk r of the unit's record. A disk with neither serial number nor WWN counts
// only if nothing is true: it must carry nothing that could be somebody's.
func matchesRecord(d block.Disk, r state.Disk, nothing bool) bool {
	if string(d.Bus) != r.Bus || d.Model != r.Model || d.Size != r.Size || d.Serial != r.Serial || d.WWN != r.WWN {
		return false
	}
	return nothing || d.Serial != "" || d.WWN != ""
}

// recordsOf returns the records of disks, in the order of the disks. It returns nil if a disk has no record, or a
// record no disk.
func recordsOf(disks []block.Disk, main []state.Disk, nothing bool) []state.Disk {
	if len(disks) != len(main) {
		return nil
	}
	left := slices.Clone(main)
	var out []state.Disk
	for _, d := range disks {
		i := slices.IndexFunc(left, func(r state.Disk) bool { return matchesRecord(d, r, nothing) })
		if i < 0 {
			return nil
		}
		out, left = append(out, left[i]), slices.Delete(left, i, i+1)
	}
	return out
}

// namesPart reports whether r names the partition p. It calls probe for the content of the partition only if r names
// a filesystem.
func namesPart(r decide.Root, p machine.Found, probe func(path string) (filesystem.Info, error)) bool {
	onDisk := func(names []string) bool {
		for _, n := range names {
			if block.PartitionName(n, p.Partition.Number) == r.Ident {
				return true
			}
		}
		return false
	}
	switch r.By {
	case decide.ByPARTUUID:
		return strings.EqualFold(p.Partition.UUID, r.Ident)
	case decide.ByPARTLABEL:
		return p.Partition.Name == r.Ident
	case decide.ByID:
		return onDisk(p.Disk.IDs())
	case decide.ByPATH:
		return onDisk(p.Disk.Ports)
	case decide.ByUUID, decide.ByLABEL:
		info, err := probe(p.Path)
		if err != nil || info.Class != filesystem.FS {
			return false
		}
		if r.By == decide.ByUUID {
			return info.UUID != "" && strings.EqualFold(info.UUID, r.Ident)
		}
		return info.Label == r.Ident
	}
	return false
}
