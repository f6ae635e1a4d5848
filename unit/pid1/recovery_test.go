package pid1

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gprovision/hw/block"
	"gprovision/hw/host"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/site"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	"gprovision/unit/state"
)

const testSerial = "SN-0001"

// testUnit is a unit with a recovery device and a main disk of virtio. Its log goes to out.
func testUnit(t *testing.T, out *bytes.Buffer) *unit {
	t.Helper()
	log := slog.New(slog.NewTextHandler(out, nil))
	m := &machine.Machine{Log: log, Site: site.Stock(), Panel: panel.New(), Firmware: layout.UEFI, Serial: testSerial, BootID: "b1"}
	m.Doors = machine.Real(log, nil, nil)
	m.List = func() ([]block.Disk, error) { return block.List(m.Sys) } // which tests set later
	m.Identity.Variant = platform.Variant{DevCodeName: "VIRT"}
	m.Identity.Variant.RecoveryMedia.Bus, m.Identity.Variant.MainDisk.Bus = []platform.Bus{platform.Virtio}, []platform.Bus{platform.Virtio}
	u := newUnit(m, offRig(t), journal.New(journal.Options{}))
	u.log, u.names, u.modules = log, m.Site.Names, noModules(t)
	return u
}

// mountVolume mounts the recovery volume on a partition for a test that changes it.
func mountVolume(u *unit, part string) error {
	return u.m.Mount(part, u.m.Places.Recovery, "ext4", host.MountOptions{})
}

// recoveryDisk makes a recovery device of the unit with these main disks, and returns the device and its volume's partition.
func recoveryDisk(t *testing.T, u *unit, main ...state.Disk) (dev, part string) {
	t.Helper()
	const size = 1200 * layout.MiB
	dev = machinetest.LoopDisk(t, size)
	table, err := layout.ForRecovery(layout.UEFI, layout.Device{Size: size, SectorSize: 512}, u.m.Labels(), machine.NewIDs())
	if err == nil {
		err = u.m.WriteTable(dev, table)
	}
	if err == nil {
		err = u.m.Format(t.Context(), dev, table, []layout.Role{layout.Recovery})
	}
	if err != nil {
		t.Fatal(err)
	}
	part = block.PartitionPath(dev, table.Find(layout.Recovery).Number)
	if err := mountVolume(u, part); err != nil {
		machinetest.Skip(t, fmt.Sprintf("mount ext4: %v", err))
	}
	rec := state.Unit{Serial: testSerial, Platform: "VIRT", Firmware: layout.UEFI, Recovery: state.Disk{Size: size, Table: table}, Main: []state.Disk{{Size: 1}}}
	if len(main) > 0 {
		rec.Main = main
	}
	err = state.Open(u.m.Places.Recovery).WriteUnit(rec)
	if err := errors.Join(err, u.m.Unmount(u.m.Places.Recovery)); err != nil {
		t.Fatal(err)
	}
	return dev, part
}

// TestDamagedRecovery: a recovery volume that is really damaged is told from a missing one, and repaired; one that stays damaged is not
// tried again in the same boot, and nothing is ever formatted.
func TestDamagedRecovery(t *testing.T) {
	for name, c := range map[string]struct {
		damage   func(t *testing.T, dev, part string)
		dog      bool // a watchdog ended the boot before
		state    decide.RecoveryState
		repaired bool
	}{
		"first superblock is gone": {func(t *testing.T, _, part string) { machinetest.Overwrite(t, part, 1024, make([]byte, 1024)) }, false, decide.RecoveryDamaged, true},
		"label is changed":         {func(t *testing.T, _, part string) { machinetest.Overwrite(t, part, 1024+0x78, []byte{'X'}) }, false, decide.RecoveryDamaged, true},
		"group descriptors": {func(t *testing.T, _, part string) {
			machinetest.Overwrite(t, part, 4096, bytes.Repeat([]byte{0xff}, 4096))
		}, false, decide.RecoveryDamaged, true},
		"the record has lost its name": {func(t *testing.T, _, part string) {
			machinetest.Debugfs(t, part, "unlink /state/unit.json")
			machinetest.Overwrite(t, part, 1024, make([]byte, 1024))
		}, false, decide.RecoveryDamaged, true},
		"the directory of the record has lost its name, and an earlier repair found it": {func(t *testing.T, _, part string) {
			machinetest.Debugfs(t, part, "unlink /state")
			if out, err := exec.Command("e2fsck", "-fy", part).CombinedOutput(); err == nil || !bytes.Contains(out, []byte("nconnected")) {
				t.Fatalf("e2fsck: %v: %s", err, out)
			}
		}, false, decide.RecoveryDamaged, true},
		"a watchdog ended the boot before": {func(t *testing.T, _, part string) { machinetest.Overwrite(t, part, 1024, make([]byte, 1024)) }, true, decide.RecoveryDamaged, false},
		"all superblocks are gone": {func(t *testing.T, _, part string) {
			machinetest.Overwrite(t, part, 0, make([]byte, 256*layout.MiB))
		}, false, decide.RecoveryMissing, false},
		"other data in its place": {func(t *testing.T, _, part string) {
			machinetest.Overwrite(t, part, 0, append([]byte("LUKS\xba\xbe\x00\x01"), make([]byte, 4096)...))
		}, false, decide.RecoveryMissing, false},
		"record is damaged for good": {func(t *testing.T, _, part string) {
			machinetest.Debugfs(t, part, "rm /state/unit.json", "write /dev/null /state/unit.json")
		}, false, decide.RecoveryDamaged, false},
		"record is of a newer version": {func(t *testing.T, _, part string) {
			newer := filepath.Join(t.TempDir(), "newer")
			if err := os.WriteFile(newer, []byte(`{"version":99,"serial":["another form"]}`), 0o600); err != nil {
				t.Fatal(err)
			}
			machinetest.Debugfs(t, part, "rm /state/unit.json", "write "+newer+" /state/unit.json")
		}, false, decide.RecoveryNewer, false},
	} {
		t.Run(name, func(t *testing.T) {
			machinetest.OwnMounts(t)
			var out bytes.Buffer
			u := testUnit(t, &out)
			u.memory.Expired = c.dog
			dev, part := recoveryDisk(t, u)
			c.damage(t, dev, part)
			u.m.Sys = machinetest.VirtIO(t, dev)
			f := u.look(t.Context())
			if f.Recovery != c.state {
				t.Fatalf("found %s, want %s; notes %q", f.Recovery, c.state, f.Notes)
			}
			f.Main = decide.MainMarked
			d := decide.Decide(f.Facts, u.m.Policy)
			if c.state == decide.RecoveryMissing || c.state == decide.RecoveryNewer || c.dog {
				if d.Job != decide.Boot {
					t.Errorf("%s, want a normal boot", d)
				}
				return
			}
			if d.Job != decide.RepairRecovery {
				t.Fatalf("%s, want a repair; notes %q", d, f.Notes)
			}
			if o := u.runJob(context.Background(), decide.Decision{Job: decide.RepairRecovery}, f); o.Kind != job.DecideAgain {
				t.Errorf("after the repair: %+v", o)
			}
			again := u.look(t.Context())
			again.Main = decide.MainMarked
			if d := decide.Decide(again.Facts, u.m.Policy); d.Job != decide.Boot {
				t.Errorf("after the repair: %s, want a normal boot", d)
			}
			if got := again.Recovery == decide.RecoveryFound; got != c.repaired {
				t.Fatalf("after the repair: %s; log:\n%s", again.Recovery, out.String())
			}
			if c.repaired != strings.Contains(out.String(), "state=succeeded") || !c.repaired != strings.Contains(out.String(), "code=G213") {
				t.Errorf("the log does not say how the repair ended:\n%s", out.String())
			}
			if c.repaired && again.RecoveryRepairs != 1 {
				t.Errorf("%d repairs are counted, want 1", again.RecoveryRepairs)
			}
			u.memory.RecoveryRepairs = 0 // the next boot: what was counted is on the volume
			if next := u.look(t.Context()); c.repaired && next.RecoveryRepairs != 1 {
				t.Errorf("the next boot knows of %d repairs, want 1", next.RecoveryRepairs)
			}
			if strings.Contains(out.String(), "mke2fs") {
				t.Errorf("something was formatted:\n%s", out.String())
			}
		})
	}
}

// TestTwoDamagedRecoveries: it is not clear which is the unit's, so none is changed.
func TestTwoDamagedRecoveries(t *testing.T) {
	machinetest.OwnMounts(t)
	u := testUnit(t, &bytes.Buffer{})
	a, partA := recoveryDisk(t, u)
	b, partB := recoveryDisk(t, u)
	for _, part := range []string{partA, partB} {
		machinetest.Overwrite(t, part, 1024, make([]byte, 1024))
	}
	u.m.Sys = machinetest.VirtIO(t, a, b)
	f := u.look(t.Context())
	if f.Recovery != decide.RecoveryDamaged || f.RecoveryRepairable || f.RecoveryPart != nil {
		t.Errorf("%s, can be repaired: %t; notes %q", f.Recovery, f.RecoveryRepairable, f.Notes)
	}
	f.Main = decide.MainUnmarked
	if d := decide.Decide(f.Facts, u.m.Policy); d.Job != decide.Hold || d.Fault != fault.RecoveryDamaged {
		t.Errorf("%s", d)
	}
}

// TestManyRecoveries has two volumes: two of the unit's own are ambiguous, and beside one of another unit the own one is taken, whichever
// comes first. Nothing stays mounted.
func TestManyRecoveries(t *testing.T) {
	for name, foreign := range map[string]int{"two of its own": -1, "own after foreign": 0, "own before foreign": 1} {
		t.Run(name, func(t *testing.T) {
			machinetest.OwnMounts(t)
			u := testUnit(t, &bytes.Buffer{})
			devs, parts := make([]string, 2), make([]string, 2)
			for i := range devs {
				devs[i], parts[i] = recoveryDisk(t, u)
				if i != foreign {
					continue
				}
				if err := mountVolume(u, parts[i]); err != nil {
					t.Fatal(err)
				}
				rec, err := state.Open(u.m.Places.Recovery).ReadUnit()
				if err == nil {
					rec.Serial = "SN-0002"
					err = state.Open(u.m.Places.Recovery).WriteUnit(rec)
				}
				if err := errors.Join(err, u.m.Unmount(u.m.Places.Recovery)); err != nil {
					t.Fatal(err)
				}
			}
			u.m.Sys = machinetest.VirtIO(t, devs...)
			f := u.look(t.Context())
			mounts, err := os.ReadFile("/proc/self/mounts")
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(mounts, []byte(u.m.Places.Recovery)) {
				t.Errorf("after a survey something is mounted:\n%s", mounts)
			}
			if foreign < 0 {
				if f.Recovery != decide.RecoveryAmbiguous {
					t.Errorf("%s; notes %q", f.Recovery, f.Notes)
				}
				return
			}
			own := parts[1-foreign]
			if f.Recovery != decide.RecoveryFound || f.RecoveryPart.Path != own || f.Unit.Serial != testSerial {
				t.Errorf("%s, want %s; notes %q", f.Recovery, own, f.Notes)
			}
		})
	}
}
