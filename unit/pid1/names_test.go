package pid1

import (
	"bytes"
	"errors"
	"testing"

	"gprovision/model/naming"
	"gprovision/site"
	"gprovision/unit/decide"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
)

// TestOtherLabels: a unit finds its recovery volume and keeps its own names, whatever the artifact that runs calls such a volume. A new
// release with other labels, or an older artifact without names, changes nothing of it.
func TestOtherLabels(t *testing.T) {
	acme := site.Stock().Names.Of(naming.Names{ImagePrefix: "ACME.LNX.FOX.", RecoveryLabel: "ACMEREC", PrimaryLabel: "ACMEROOT", HostPrefix: "acme-"})
	later := site.Stock().Names.Of(naming.Names{ImagePrefix: "ACME.LNX.FOX.", RecoveryLabel: "FOXREC", PrimaryLabel: "FOXROOT", HostPrefix: "fox-"})
	for name, c := range map[string]struct{ made, runs site.Names }{
		"a company takes names of its own":      {site.Stock().Names, acme},
		"and changes them":                      {acme, later},
		"an artifact of before names were data": {acme, site.Stock().Names},
	} {
		t.Run(name, func(t *testing.T) {
			machinetest.OwnMounts(t)
			var log bytes.Buffer
			u := testUnit(t, &log)
			u.m.Site.Names = c.made
			dev, part := recoveryDisk(t, u)
			u.rewrite(t, part, func(r *state.Unit) { r.ImagePrefix = c.made.ImagePrefix })
			u.m.Sys = machinetest.VirtIO(t, dev)
			u.names = c.runs
			for range 2 { // facts are gathered again and again
				f := u.look(t.Context())
				if f.Recovery != decide.RecoveryFound {
					t.Fatalf("recovery volume: %s\n%v", f.Recovery, f.Notes)
				}
				want := c.runs
				want.ImagePrefix, want.Recovery = c.made.ImagePrefix, c.made.Recovery
				if got := u.m.Site.Names; got != want {
					t.Errorf("names are %+v, want %+v", got, want)
				}
				if p := f.Names.ImagePrefix; p != c.made.ImagePrefix {
					t.Errorf("images begin with %s", p)
				}
			}
			t.Run("of another unit", func(t *testing.T) {
				u.m.Serial = "SN-0002"
				f := u.look(t.Context())
				if f.Recovery != decide.RecoveryMissing {
					t.Errorf("recovery volume of another unit: %s", f.Recovery)
				}
				if u.m.Site.Names != c.runs {
					t.Errorf("names are %+v, want the artifact's", u.m.Site.Names)
				}
			})
		})
	}
}

// TestLostLabels: a recovery volume that has lost its superblock is repaired if it has the label of the artifact that runs, or that of the Site
// before that. One with a label that neither knows is missing: nothing else says that it is one.
func TestLostLabels(t *testing.T) {
	acme := site.Stock().Names.Of(naming.Names{RecoveryLabel: "ACMEREC", PrimaryLabel: "ACMEROOT"})
	fox := site.Stock().Names.Of(naming.Names{RecoveryLabel: "FOXREC", PrimaryLabel: "FOXROOT"})
	for name, c := range map[string]struct {
		made, runs site.Names
		site       string
		want       decide.RecoveryState
	}{
		"the artifact's own":               {acme, acme, "RECOVERY", decide.RecoveryDamaged},
		"a company takes names of its own": {site.Stock().Names, acme, "RECOVERY", decide.RecoveryDamaged},
		"and changes them":                 {acme, fox, "RECOVERY", decide.RecoveryMissing},
	} {
		t.Run(name, func(t *testing.T) {
			machinetest.OwnMounts(t)
			u := testUnit(t, &bytes.Buffer{})
			u.m.Site.Names = c.made
			dev, part := recoveryDisk(t, u)
			machinetest.Overwrite(t, part, 1024, make([]byte, 1024))
			u.m.Sys = machinetest.VirtIO(t, dev)
			u.names, u.siteLabel = c.runs, c.site
			f := u.look(t.Context())
			if f.Recovery != c.want || f.RecoveryRepairable != (c.want == decide.RecoveryDamaged) {
				t.Errorf("%s, repairable: %t, want %s; notes %q", f.Recovery, f.RecoveryRepairable, c.want, f.Notes)
			}
		})
	}
}

// TestLabelsOfRecord: a record lies on a hostile volume. Labels that no provisioning could have written are not used.
func TestLabelsOfRecord(t *testing.T) {
	machinetest.OwnMounts(t)
	var log bytes.Buffer
	u := testUnit(t, &log)
	dev, part := recoveryDisk(t, u)
	u.rewrite(t, part, func(r *state.Unit) {
		for i := range r.Recovery.Table.Partitions {
			r.Recovery.Table.Partitions[i].FSLabel = "../../etc"
		}
	})
	u.m.Sys = machinetest.VirtIO(t, dev)
	f := u.look(t.Context())
	if f.Recovery != decide.RecoveryFound || u.m.Site.Names != site.Stock().Names {
		t.Errorf("%s, names %+v", f.Recovery, u.m.Site.Names)
	}
}

// rewrite rewrites the record on a recovery volume.
func (u *unit) rewrite(t *testing.T, part string, f func(*state.Unit)) {
	t.Helper()
	if err := mountVolume(u, part); err != nil {
		t.Fatal(err)
	}
	v := state.Open(u.m.Places.Recovery)
	rec, err := v.ReadUnit()
	if err == nil {
		f(&rec)
		err = v.WriteUnit(rec)
	}
	if err := errors.Join(err, u.m.Unmount(u.m.Places.Recovery)); err != nil {
		t.Fatal(err)
	}
}
