package pid1

import (
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
