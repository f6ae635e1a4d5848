package survey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/raid"
	"gprovision/model/layout"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// memberPatience limits the wait for missing members of an array, from init's start or a hold. After it the array
// starts without them. A running system waits as long: it is mdadm's own timer (mdadm-last-resort).
const memberPatience = 30 * time.Second

// lookForArray finds the array of the main system by its recorded identifier. It starts the array once all members
// are there. After the wait for missing members it starts it with as few as it needs. Arrays that are not this unit's
// are left alone.
func (l mainLook) lookForArray(ctx context.Context) {
	if l.s.Provisions() { // only this boot's plan counts, and a started array would hold its disks
		note(&l.f.Notes, "main: the array is not looked for")
		return
	}
	parts, err := l.s.Eyes.Members()
	if err != nil {
		note(&l.f.Notes, "main: %v", err)
		return
	}
	a := raid.Find(parts, l.f.Unit.Array.UUID)
	for _, p := range append(a.Parts, a.Stale...) {
		l.f.Members = append(l.f.Members, p.Disk)
	}
	for _, p := range a.Stale {
		note(&l.f.Notes, "main: %s is not up to date, or a spare", p.Path)
	}
	if !a.Enough() {
		note(&l.f.Notes, "main: %d of %d members of the array %s are there: too few", len(a.Parts), len(l.f.Unit.Main), l.f.Unit.Array.UUID)
		l.lookForPlannedDisk()
		return
	}
	if !a.Complete() && time.Since(l.s.Memory.Since) < min(memberPatience, l.s.Eyes.Policy().RootWait()) {
		l.f.Awaits = true
		note(&l.f.Notes, "main: %d of %d members of the array %s are there: waiting for the others", len(a.Parts), a.Active, a.UUID)
		return
	}
	l.useArray(ctx, a)
}

// guessArray finds the array of the main system without a record: it is the one with the filesystem that the boot
// entry names.
func (l mainLook) guessArray(ctx context.Context, fsUUID string) {
	parts, err := l.s.Eyes.Members()
	if err != nil {
		note(&l.f.Notes, "main: %v", err)
		return
	}
	for _, id := range raid.UUIDs(parts) {
		a := raid.Find(parts, id)
		if !a.Enough() || a.Level != l.s.Eyes.Variant().SwRaidlevel {
			continue
		}
		if !a.Complete() && time.Since(l.s.Memory.Since) < min(memberPatience, l.s.Eyes.Policy().RootWait()) {
			l.f.Awaits = true
			continue
		}
		if err := l.s.Eyes.StartArray(ctx, a); err != nil {
			note(&l.f.Notes, "main: %v", err)
			continue
		}
		if info, _, err := l.s.Eyes.ProbePartition(machine.ArrayPath); err == nil && strings.EqualFold(info.UUID, fsUUID) {
			l.useArray(ctx, a)
			return
		}
		// Nothing of this boot needs it. A disk of an array that runs cannot be used for anything else.
		if err := l.s.Eyes.StopArray(ctx); err != nil {
			note(&l.f.Notes, "main: %v", err)
		}
	}
}

// useArray starts an array and judges the system on it.
func (l mainLook) useArray(ctx context.Context, a raid.Array) {
	l.f.MainPart, l.f.Recorded = &machine.Found{Path: machine.ArrayPath}, l.hasRecord()
	if chosen, err := l.arrayDisks(); err == nil { // for a restore
		l.f.Planned = chosen
	} else {
		note(&l.f.Notes, "main: a restore is not possible: %v", err)
	}
	if a.Degraded() {
		l.f.Degraded = true
		note(&l.f.Notes, "main: the array %s has %d of %d members", a.UUID, len(a.Parts), a.Disks)
	}
	if err := l.s.Eyes.StartArray(ctx, a); err != nil {
		l.f.Main, l.f.Unreadable = decide.MainDamaged, true
		note(&l.f.Notes, "main: %v", err)
		return
	}
	l.judgeMain()
}

// arrayDisks returns the planned disks for an array that has some of its members. A disk that takes the place of
// another must be blank: foreign data on it is no part of the unit. The exception is one of the unit's own disks
// whose member is lost. A restore that was cut short leaves such a disk.
func (l mainLook) arrayDisks() ([]block.Disk, error) {
	chosen, err := l.plannedDisks()
	if err != nil {
		return nil, err
	}
	for _, d := range chosen {
		if slices.Contains(l.f.Members, d.Name) {
			continue
		}
		blank, _, err := l.s.Eyes.BlankDisk(d.Path)
		if err != nil {
			return nil, err
		}
		if !blank && !l.lostMember(d) {
			what, err := l.s.Eyes.Carries(d.Path)
			return nil, errors.Join(fmt.Errorf("%s is no member of the array and carries: %s", d.Path, what), err)
		}
	}
	return chosen, nil
}

// lostMember reports whether a disk is in the unit's record and carries nothing recognised but its recorded table.
// The table must be whole. If the disk is known by its serial number, a part of the table is enough.
func (l mainLook) lostMember(d block.Disk) bool {
	now, err := l.s.Eyes.ReadTable(d.Path)
	if err != nil {
		note(&l.f.Notes, "main: %s: %v", d.Path, err)
	}
	return slices.ContainsFunc(l.f.Unit.Main, func(r state.Disk) bool {
		if !matchesRecord(d, r, err == nil && r.Table.Kind != layout.None && r.Table.On(now)) {
			return false
		}
		only, err := l.s.Eyes.OnlyTable(d.Path, r.Table)
		if err != nil {
			note(&l.f.Notes, "main: %s: %v", d.Path, err)
		}
		return only
	})
}

// MemberTime returns how long to wait for missing array members. It is 0 if none is missing, or if there is no more
// hope for one.
func (s *Survey) MemberTime() time.Duration {
	left := min(memberPatience, s.Eyes.Policy().RootWait()) - time.Since(s.Memory.Since)
	parts, err := s.Eyes.Members()
	if err != nil || left <= 0 || allComplete(parts) {
		return 0
	}
	return left
}

// allComplete reports whether there are arrays and none of them may still gain members.
func allComplete(parts []raid.Part) bool {
	ids := raid.UUIDs(parts)
	return len(ids) > 0 && !slices.ContainsFunc(ids, func(id string) bool { return !raid.Find(parts, id).Complete() })
}
