package pid1

import (
	"bytes"
	"errors"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/platform"
	"gprovision/model/policy"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
)

// oddDMI is a machine that fits no platform.
type oddDMI struct{ serial string }

func (d oddDMI) Keyword(k string) string {
	if k == "system-serial-number" {
		return d.serial
	}
	return "odd"
}
func (oddDMI) Field(int, int, string) string { return "" }

// TestNamedPlatform: a unit that was provisioned as a platform which somebody named is that again at each later boot, and no other
// machine becomes one.
func TestNamedPlatform(t *testing.T) {
	for _, tc := range []struct {
		name, serial string
		change       func(*state.Unit)
		want         bool
	}{
		{"named", testSerial, func(r *state.Unit) { r.Named = true }, true},
		{"recognised once, and not now", testSerial, func(*state.Unit) {}, false},
		{"another machine", "SN-0002", func(r *state.Unit) { r.Named = true }, false},
		{"a platform that the table has no more", testSerial, func(r *state.Unit) { r.Named, r.Platform = true, "GONE" }, false},
		{"no serial number", "Default string", func(r *state.Unit) { r.Named = true }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			machinetest.OwnMounts(t)
			var out bytes.Buffer
			u := testUnit(t, &out)
			u.changed, u.m.Policy = make(chan struct{}), policy.Policy{RootWaitSeconds: 1}
			v := u.m.Identity.Variant
			v.SerNumField, v.DmiMbMfg = "system-serial-number", "Acme"
			table := &platform.Table{Variants: []platform.Variant{{DevCodeName: "OTHER", SerNumField: "system-serial-number"}, v}}
			dev, part := recoveryDisk(t, u)
			if err := mountVolume(u, part); err != nil {
				t.Fatal(err)
			}
			vol := state.Open(u.m.Places.Recovery)
			rec, err := vol.ReadUnit()
			if err == nil {
				tc.change(&rec)
				err = vol.WriteUnit(rec)
			}
			if err := errors.Join(err, u.m.Unmount(u.m.Places.Recovery)); err != nil {
				t.Fatal(err)
			}
			u.m.Sys = machinetest.VirtIO(t, dev)
			u.m.Identity, u.m.Serial = platform.Identity{}, ""
			why := fault.Newf(fault.PlatformUnknown, "odd")
			err = u.identifyByRecord(t.Context(), table, oddDMI{tc.serial}, why)
			if tc.want && (err != nil || u.m.Identity.Variant.DevCodeName != "VIRT" || u.m.Identity.From != "name" || u.m.Serial != testSerial) {
				t.Errorf("%v, %+v\n%s", err, u.m.Identity, &out)
			}
			if !tc.want && (!errors.Is(err, why) || u.m.Serial != "" || u.m.Identity.Variant.DevCodeName != "") {
				t.Errorf("%v, it became %q", err, u.m.Identity.Variant.DevCodeName)
			}
			if used, err := u.m.Mounted(u.m.Places.Recovery); err != nil || used {
				t.Error("the volume stays mounted", err)
			}
		})
	}
}
