package pid1

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gprovision/model/fault"
	"gprovision/model/platform"
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
	t.Parallel()
	start := provisioned(t, twoDisks)
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
			synctest.Test(t, func(t *testing.T) {
				r := start.Clone(t)
				onVolume(t, r, func(v *state.Volume) error {
					rec, err := v.ReadUnit()
					if err != nil {
						return err
					}
					tc.change(&rec)
					return v.WriteUnit(rec)
				})
				r.Start(nil)
				u := onRig(t, r)
				u.m.Policy.RootWaitSeconds = 1
				v := u.m.Identity.Variant
				v.SerNumField, v.DmiMbMfg = "system-serial-number", "Acme"
				table := &platform.Table{Variants: []platform.Variant{{DevCodeName: "OTHER", SerNumField: "system-serial-number"}, v}}
				u.m.Identity, u.m.Serial = platform.Identity{}, ""
				why := fault.Newf(fault.PlatformUnknown, "odd")
				began := time.Now()
				err := u.identifyByRecord(t.Context(), table, oddDMI{tc.serial}, why)
				if tc.want && (err != nil || u.m.Identity.Variant.DevCodeName != "VIRT" || u.m.Identity.From != "name" || u.m.Serial != testSerial) {
					t.Errorf("%v, %+v", err, u.m.Identity)
				}
				became, waited := u.m.Identity.Variant.DevCodeName, time.Since(began)
				if !tc.want && (!errors.Is(err, why) || u.m.Serial != "" || became != "" || waited != time.Second) {
					t.Errorf("%v, it became %q after %s", err, became, waited)
				}
				if used, err := u.m.Mounted(u.m.Places.Recovery); err != nil || used {
					t.Error("the volume stays mounted", err)
				}
			})
		})
	}
}
