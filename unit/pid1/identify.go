package pid1

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"gprovision/hw/smbios"
	"gprovision/model/bootimage"
	"gprovision/model/fault"
	"gprovision/model/platform"
	"gprovision/model/record"
	"gprovision/unit/journal"
)

// identity is what there is to recognise a machine by.
type identity struct {
	table *platform.Table
	dmi   platform.DMI
}

// identify finds out which platform this machine is and what its serial number is.
func (u *unit) identify() (identity, error) {
	dmi, err := smbios.Read(u.m.Sys)
	if err != nil {
		return identity{}, fault.Because(fault.PlatformUnknown, err)
	}
	table, err := readPlatforms(u.m.Initramfs)
	if err != nil {
		return identity{}, fault.Because(fault.PlatformUnknown, err)
	}
	for _, p := range table.Notes() {
		u.log.Warn("appliance table", "value", p.Path, "err", p.Text)
	}
	of := identity{table, dmi}
	id, err := platform.Identify(table, dmi)
	if err != nil && u.args.ProtoIdent != "" && u.m.Policy.Provision {
		u.log.Warn("no platform fits, taking the one that the kernel argument names", "platform", u.args.ProtoIdent, "err", err)
		id, err = platform.Named(table, u.args.ProtoIdent, dmi)
	}
	if err != nil {
		return of, fault.Because(fault.PlatformUnknown, err)
	}
	if err := id.CheckSerial(); err != nil {
		return of, err
	}
	if err := record.CheckUnit(id.Serial); err != nil {
		return of, fault.Because(fault.NoSerial, err)
	}
	u.m.Identity, u.m.Serial = id, id.Serial
	u.log.Info("platform", "platform", id.Variant.DevCodeName, "serial", id.Serial, journal.ForPerson())
	return of, nil
}

// readPlatforms returns the artifact's appliance table, or the built-in one if the artifact has none.
func readPlatforms(initramfs string) (*platform.Table, error) {
	b, err := os.ReadFile(filepath.Join(initramfs, bootimage.PlatformsPath))
	if errors.Is(err, fs.ErrNotExist) {
		return platform.Default(), nil
	}
	if err != nil {
		return nil, err
	}
	return platform.Parse(b)
}

// identifyByRecord is for a machine that fits no platform of the table. One that was provisioned as a platform which somebody named
// (PROTO_IDENT) has that in its record, and is known to be the same machine by its serial number. identifyByRecord waits for the
// recovery device as long as for a main disk. why is the error with which the machine was not recognised.
func (u *unit) identifyByRecord(ctx context.Context, table *platform.Table, dmi platform.DMI, why error) error {
	t := time.NewTimer(u.m.Policy.RootWait())
	defer t.Stop()
	for {
		if u.takeRecordedPlatform(table, dmi) {
			return nil
		}
		select {
		case <-u.changed.changes:
		case <-t.C:
			return why
		case <-ctx.Done():
			return why
		}
	}
}

// takeRecordedPlatform looks once for a record that names a platform of the table. If there is one, the machine is that platform from
// then on.
func (u *unit) takeRecordedPlatform(table *platform.Table, dmi platform.DMI) bool {
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
