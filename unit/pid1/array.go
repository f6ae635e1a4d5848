package pid1

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
	"gprovision/model/platform"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// memberPatience is how long missing members of an array are waited for, after init's start or a hold, before it is started without them:
// what mdadm's own timer gives them in a running system (mdadm-last-resort).
const memberPatience = 30 * time.Second

// loadRAID loads what arrays of this platform need.
func (u *unit) loadRAID() {
	if v := u.m.Identity.Variant; v.HasRAID() {
		if err := u.modules.Load(raid.Modules(v.SwRaidlevel)...); err != nil {
			u.m.Log.Warn("drivers of the array cannot be loaded", "level", v.SwRaidlevel, "err", err)
		}
	}
}

// lookForArray finds the array that carries the main system by its recorded identifier, and starts it when all its members are
// there, or as many as it needs after the others were waited for. What is no array of this unit stays as it is.
func (u *unit) lookForArray(ctx context.Context, f *Found) {
	if u.provisions() { // nothing but this boot's plan counts, and a started array would hold its disks
		f.note("main: the array is not looked for")
		return
	}
	parts, err := u.m.Members()
	if err != nil {
		f.note("main: %v", err)
		return
	}
	a := raid.Find(parts, f.Unit.Array.UUID)
	for _, p := range append(a.Parts, a.Stale...) {
		f.members = append(f.members, p.Disk)
	}
	for _, p := range a.Stale {
		f.note("main: %s is not up to date, or a spare", p.Path)
	}
	if !a.Enough() {
		f.note("main: %d of %d members of the array %s are there: too few", len(a.Parts), len(f.Unit.Main), f.Unit.Array.UUID)
		u.lookForPlannedDisk(f)
		return
	}
	if !a.Complete() && time.Since(u.since) < min(memberPatience, u.m.Policy.RootWait()) {
		f.awaits = true
		f.note("main: %d of %d members of the array %s are there: waiting for the others", len(a.Parts), a.Active, a.UUID)
		return
	}
	u.useArray(ctx, f, a)
}

// guessArray finds the array of the main system without a record: the one whose filesystem the boot entry names.
func (u *unit) guessArray(ctx context.Context, f *Found, fsUUID string) {
	parts, err := u.m.Members()
	if err != nil {
		f.note("main: %v", err)
		return
	}
	for _, id := range raid.UUIDs(parts) {
		a := raid.Find(parts, id)
		if !a.Enough() || a.Level != u.m.Identity.Variant.SwRaidlevel {
			continue
		}
		if !a.Complete() && time.Since(u.since) < min(memberPatience, u.m.Policy.RootWait()) {
			f.awaits = true
			continue
		}
		if err := u.m.StartArray(ctx, a); err != nil {
			f.note("main: %v", err)
			continue
		}
		if info, _, err := u.m.ProbePartition(machine.ArrayPath); err == nil && strings.EqualFold(info.UUID, fsUUID) {
			u.useArray(ctx, f, a)
			return
		}
	}
}

// awaitMembers gives members of arrays that are missing the time that they have in a normal boot.
func (u *unit) awaitMembers(ctx context.Context) {
	if !u.m.Identity.Variant.HasRAID() {
		return
	}
	for {
		left := min(memberPatience, u.m.Policy.RootWait()) - time.Since(u.since)
		parts, err := u.m.Members()
		if err != nil || left <= 0 || allComplete(parts) {
			return
		}
		t := time.NewTimer(left)
		select {
		case <-u.changed:
		case <-t.C:
		case <-ctx.Done():
			left = 0
		}
		t.Stop()
		if left == 0 {
			return
		}
	}
}

// allComplete says whether there are arrays, and no more members of them may be hoped for.
func allComplete(parts []raid.Part) bool {
	ids := raid.UUIDs(parts)
	return len(ids) > 0 && !slices.ContainsFunc(ids, func(id string) bool { return !raid.Find(parts, id).Complete() })
}

// useArray starts an array and judges the system on it.
func (u *unit) useArray(ctx context.Context, f *Found, a raid.Array) {
	f.MainPart, f.Recorded = &machine.Found{Path: machine.ArrayPath}, f.Recovery == decide.RecoveryFound
	if chosen, err := u.arrayDisks(f); err == nil { // for a restore
		f.Planned = chosen
	} else {
		f.note("main: a restore is not possible: %v", err)
	}
	if a.Degraded() {
		f.degraded = true
		f.note("main: the array %s has %d of %d members", a.UUID, len(a.Parts), a.Disks)
	}
	if err := u.m.StartArray(ctx, a); err != nil {
		f.Main, f.Unreadable = decide.MainDamaged, true
		f.note("main: %v", err)
		return
	}
	u.judgeMain(f)
}

// arrayDisks returns the planned disks for an array of which some members are there. A disk in the place of another one must be
// blank: what somebody else left on it is no part of the unit. One of the unit's own whose member is lost is what a restore leaves that
// was cut off.
func (u *unit) arrayDisks(f *Found) ([]block.Disk, error) {
	chosen, err := u.plannedDisks(f)
	if err != nil {
		return nil, err
	}
	for _, d := range chosen {
		if slices.Contains(f.members, d.Name) {
			continue
		}
		blank, _, err := u.m.BlankDisk(d.Path)
		if err != nil {
			return nil, err
		}
		if !blank && !u.lostMember(f, d) {
			what, err := u.m.Carries(d.Path)
			return nil, errors.Join(fmt.Errorf("%s is no member of the array and carries: %s", d.Path, what), err)
		}
	}
	return chosen, nil
}

// lostMember says whether a disk is one of the unit's record, and nothing is recognised on it but its recorded table: that whole, or on
// a disk that is known by its serial number in part.
func (u *unit) lostMember(f *Found, d block.Disk) bool {
	now, err := u.m.ReadTable(d.Path)
	if err != nil {
		f.note("main: %s: %v", d.Path, err)
	}
	return slices.ContainsFunc(f.Unit.Main, func(r state.Disk) bool {
		if !recorded(d, r, err == nil && r.Table.Kind != layout.None && r.Table.On(now)) {
			return false
		}
		only, err := u.m.OnlyTable(d.Path, r.Table)
		if err != nil {
			f.note("main: %s: %v", d.Path, err)
		}
		return only
	})
}

// mainDisks returns the paths of the disks that start the main system, in the order of the record: "" for one that is not there,
// or whose table is not the recorded one.
func (u *unit) mainDisks(f *Found) ([]string, error) {
	out := make([]string, len(f.Unit.Main))
	if f.Unit.Array == nil {
		out[0] = f.MainPart.Disk.Path
		return out, nil
	}
	parts, err := u.m.Partitions(platform.AllowedMain)
	if err != nil {
		return nil, err
	}
	for i, r := range f.Unit.Main {
		for _, p := range parts {
			if r.Table.On(p.Table) {
				out[i] = p.Disk.Path
			}
		}
	}
	return out, nil
}
