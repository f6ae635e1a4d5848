package support

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
)

// TestNoBundle: without a recovery stick nothing is written anywhere, the person is told why, and the menu comes again.
func TestNoBundle(t *testing.T) {
	r := machinetest.NewUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	machinetest.Provision(r, machinetest.Machine(r))
	r.Start(nil)
	e, f := jobtest.Look(t, machinetest.Machine(r))
	screen := script.Reader{Panel: &script.Panel{}}
	e.Machine.Panel.Add("script", screen)
	if out := Run(t.Context(), e, f); out.Kind != job.DecideAgain || !out.Menu {
		t.Errorf("%+v", out)
	}
	if p := screen.Last().Problem; p == nil || p.Code != fault.NoBundle.Code {
		t.Errorf("shown %+v", p)
	}
	if w := r.Written(); len(w) > 0 {
		t.Errorf("written to: %q", w)
	}
}

// TestStick: the bundle lies whole on the recovery stick, also where the recovery volume is lost, and the person reads
// its name. A stick that cannot be written to is told with its code. Neither changes the unit, and the menu comes again.
func TestStick(t *testing.T) {
	start := machinetest.NewUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	machinetest.Provision(start, machinetest.Machine(start))
	m, ids := machinetest.Machine(start), machine.NewIDs()
	path := start.AddDisk(block.Disk{Name: "sdb", Bus: block.USB, Removable: true, Serial: "STICK", Size: layout.GiB})
	table := layout.Table{Kind: layout.GPT, UUID: ids.UUID(), Partitions: []layout.Partition{
		{Role: layout.ESP, Number: 1, Start: layout.MiB, Size: 100 * layout.MiB, Type: layout.TypeStick, UUID: ids.UUID(), FSUUID: "0000-0001",
			FSLabel: layout.StickLabel},
		{Role: layout.ESP, Number: 2, Start: 200 * layout.MiB, Size: 100 * layout.MiB, Type: layout.TypeData, UUID: ids.UUID(),
			FSUUID: "0000-0002", FSLabel: layout.BundleLabel},
	}}
	start.Start(nil)
	if err := m.WriteTable(path, table); err != nil {
		t.Fatal(err)
	}
	if err := m.Format(t.Context(), path, table, []layout.Role{layout.ESP}); err != nil {
		t.Fatal(err)
	}
	const volume, log = "support/recovery/state/unit.json", "support/init/log.txt"
	for name, c := range map[string]struct {
		fails string // what calls begin with that fail
		lost  bool   // the recovery volume is
		has   []string
	}{
		"saved":                {"-", false, []string{volume, log}},
		"the volume is lost":   {"-", true, []string{log}},
		"a stick that is full": {"mount /dev/sdb2 writable", false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := start.Clone(t)
			r.Start(nil)
			e, f := jobtest.Look(t, machinetest.Machine(r))
			if c.lost {
				f.Recovery = decide.RecoveryMissing
			}
			e.Machine.Log.Info("a record of this boot")
			screen := script.Reader{Panel: &script.Panel{}}
			e.Machine.Panel.Add("script", screen)
			r.Fail(func(_ int, call string) error {
				if strings.HasPrefix(call, c.fails) {
					return syscall.EROFS
				}
				return nil
			})
			if out := Run(t.Context(), e, f); out.Kind != job.DecideAgain || !out.Menu {
				t.Errorf("%+v", out)
			}
			if views := screen.Views(); !slices.ContainsFunc(views, func(v panel.View) bool { return v.Step == "Saving" }) {
				t.Errorf("shown: %+v", views)
			}
			for _, name := range r.Written() {
				if !strings.HasPrefix(name, "sdb") {
					t.Errorf("written to: %s", name)
				}
			}
			saved, err := filepath.Glob(filepath.Join(r.Volume("0000-0002"), "*"))
			if err != nil || len(saved) != min(1, len(c.has)) {
				t.Fatalf("on the stick: %q, %v", saved, err)
			}
			if c.has == nil {
				if p := screen.Last().Problem; p == nil || p.Code != fault.NoBundle.Code {
					t.Errorf("shown %+v", p)
				}
				return
			}
			if got := screen.Last().Message; got != "Saved "+filepath.Base(saved[0]) || !strings.Contains(got, machinetest.Serial) {
				t.Errorf("shown %q, saved %q", got, saved)
			}
			bundle, err := os.ReadFile(saved[0])
			if err != nil {
				t.Fatal(err)
			}
			files := read(t, bundle)
			for _, name := range []string{volume, log} {
				if _, ok := files[name]; ok != slices.Contains(c.has, name) {
					t.Errorf("%s: %t", name, ok)
				}
			}
			if !strings.Contains(files[log], "a record of this boot") || !strings.Contains(files["support/init/facts.txt"], "recovery volume: ") {
				t.Errorf("log %q, facts %q", files[log], files["support/init/facts.txt"])
			}
		})
	}
}
