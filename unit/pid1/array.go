package pid1

import (
	"context"

	"gprovision/hw/raid"
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
