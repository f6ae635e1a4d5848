package pid1

import (
	"context"

	"gprovision/hw/raid"
	"gprovision/model/platform"
	"gprovision/unit/survey"
)

// loadRAID loads what arrays of this platform need.
func (u *unit) loadRAID() {
	if v := u.m.Identity.Variant; v.HasRAID() {
		if err := u.modules.Load(raid.Modules(v.SwRaidlevel)...); err != nil {
			u.m.Log.Warn("drivers of the array cannot be loaded", "level", v.SwRaidlevel, "err", err)
		}
	}
}

// awaitMembers gives members of arrays that are missing the time that they have in a normal boot.
func (u *unit) awaitMembers(ctx context.Context) {
	if !u.m.Identity.Variant.HasRAID() {
		return
	}
	for left := u.surveyor().MemberTime(); left > 0 && u.await(ctx, left) == nil; left = u.surveyor().MemberTime() {
	}
}

// mainDisks returns the paths of the disks that start the main system, in the order of the record: "" for one that is not there,
// or whose table is not the recorded one.
func (u *unit) mainDisks(f *survey.Findings) ([]string, error) {
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
