package pid1

import (
	"context"
	"time"

	"gprovision/model/platform"
)

// identifyByRecord is for a machine that no platform of the table fits: one that was provisioned as a platform which somebody named
// (PROTO_IDENT) has that in its record, and is the same machine by its serial number. It waits for the recovery device as for a main disk. The
// error is that with which the machine was not recognised.
func (u *unit) identifyByRecord(ctx context.Context, table *platform.Table, dmi platform.DMI, why error) error {
	t := time.NewTimer(u.m.Policy.RootWait())
	defer t.Stop()
	for {
		if u.named(table, dmi) {
			return nil
		}
		select {
		case <-u.changed:
		case <-t.C:
			return why
		case <-ctx.Done():
			return why
		}
	}
}

// named looks once, and makes the machine what the record of its recovery volume names.
func (u *unit) named(table *platform.Table, dmi platform.DMI) bool {
	for _, v := range table.Variants {
		id, err := platform.Named(table, v.DevCodeName, dmi)
		if err != nil || id.CheckSerial() != nil {
			continue
		}
		u.m.Identity, u.m.Serial = id, id.Serial
		found, err := u.surveyor().RecordNames(v.DevCodeName)
		if err != nil {
			u.log.Warn("disks cannot be read", "err", err)
		}
		if found {
			u.log.Warn("no platform fits, taking the one that the unit was provisioned as", "platform", v.DevCodeName, "serial", id.Serial)
			return true
		}
	}
	u.m.Identity, u.m.Serial = platform.Identity{}, ""
	return false
}
