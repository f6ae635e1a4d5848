package pid1

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"

	"gprovision/hw/block"
	"gprovision/hw/host"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/site"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/report"
	"gprovision/unit/state"
)

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("GPROV_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// ownMounts gives the test the mount points of a unit. A mount table of its own would hold on to what other tests have mounted, so the
// test has those of the machine to itself, also where other processes run the same tests.
func ownMounts(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "mounting needs root")
	}
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "gprov-test-mounts.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	for _, dir := range []string{machine.RealPlaces().Recovery, machine.RealPlaces().Main} {
		switch err := os.Mkdir(dir, 0o700); {
		case err == nil:
			t.Cleanup(func() { os.Remove(dir) })
		case !errors.Is(err, fs.ErrExist):
			skip(t, fmt.Sprintf("mount points: %v", err))
		}
		if used, err := host.IsMountPoint(dir); err != nil || used {
			skip(t, fmt.Sprintf("%s is in use: %v", dir, err))
		}
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	}
}

// loopDisk is a sparse disk on a loop device.
func loopDisk(t *testing.T, size int64) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, size)); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "-f", "--show", file).CombinedOutput()
	if err != nil {
		skip(t, fmt.Sprintf("losetup: %s", out))
	}
	dev := string(bytes.TrimSpace(out))
	t.Cleanup(func() {
		d, err := block.Open(dev, true) // partitions that were added one by one keep the device busy
		if err == nil {
			_, err = d.WriteAt(make([]byte, layout.MiB), 0)
		}
		if err == nil {
			err = errors.Join(d.RereadTable(), d.Close())
		}
		if out, e := exec.Command("losetup", "-d", dev).CombinedOutput(); err != nil || e != nil {
			t.Errorf("loop device stays: %v %s", err, out)
		}
	})
	return dev
}

// virtio is the part of /sys that has loop devices, as if they were disks of virtio. It shows the kernel's partitions at this moment.
func virtio(t *testing.T, devices ...string) fstest.MapFS {
	t.Helper()
	sys := fstest.MapFS{}
	for i, dev := range devices {
		name := filepath.Base(dev)
		dir := fmt.Sprintf("devices/pci0000:00/virtio%d/block/%s", i, name)
		sys["block/"+name] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("../" + dir)}
		own := os.DirFS("/sys/block/" + name)
		files := []string{"size", "ro", "removable", "queue/logical_block_size"}
		parts, err := fs.Glob(own, name+"p*")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			files = append(files, p+"/partition", p+"/start", p+"/size")
		}
		for _, file := range files {
			b, err := fs.ReadFile(own, file)
			if err != nil {
				t.Fatal(err)
			}
			sys[dir+"/"+file] = &fstest.MapFile{Data: b}
		}
	}
	return sys
}

const testSerial = "SN-0001"

// testUnit is a unit with a recovery device and a main disk of virtio. Its log goes to out.
func testUnit(t *testing.T, out *bytes.Buffer) *unit {
	t.Helper()
	log := slog.New(slog.NewTextHandler(out, nil))
	m := &machine.Machine{Log: log, Site: site.Stock(), Panel: panel.New(), Firmware: layout.UEFI, Serial: testSerial, BootID: "b1"}
	m.Doors = machine.Real(log, nil)
	m.List = func() ([]block.Disk, error) { return block.List(m.Sys) } // which tests set later
	m.Identity.Variant = platform.Variant{DevCodeName: "VIRT"}
	m.Identity.Variant.RecoveryMedia.Bus, m.Identity.Variant.MainDisk.Bus = []platform.Bus{platform.Virtio}, []platform.Bus{platform.Virtio}
	return &unit{log: log, m: m, queue: report.NewQueue("b1")}
}

// recoveryDisk makes a recovery device of the unit with these main disks, and returns the device and its volume's partition.
func recoveryDisk(t *testing.T, u *unit, main ...state.Disk) (dev, part string) {
	t.Helper()
	const size = 1200 * layout.MiB
	dev = loopDisk(t, size)
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
	if err := u.mountVolume(part, false); err != nil {
		skip(t, fmt.Sprintf("mount ext4: %v", err))
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

func overwrite(t *testing.T, path string, at int64, b []byte) {
	t.Helper()
	d, err := block.Open(path, true)
	if err == nil {
		_, err = d.WriteAt(b, at)
		err = errors.Join(err, d.Sync(), d.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func debugfs(t *testing.T, part string, commands ...string) {
	t.Helper()
	for _, c := range commands {
		if out, err := exec.Command("debugfs", "-w", "-R", c, part).CombinedOutput(); err != nil {
			skip(t, fmt.Sprintf("debugfs: %s", out))
		}
	}
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
		"first superblock is gone": {func(t *testing.T, _, part string) { overwrite(t, part, 1024, make([]byte, 1024)) }, false, decide.RecoveryDamaged, true},
		"label is changed":         {func(t *testing.T, _, part string) { overwrite(t, part, 1024+0x78, []byte{'X'}) }, false, decide.RecoveryDamaged, true},
		"group descriptors": {func(t *testing.T, _, part string) {
			overwrite(t, part, 4096, bytes.Repeat([]byte{0xff}, 4096))
		}, false, decide.RecoveryDamaged, true},
		"the record has lost its name": {func(t *testing.T, _, part string) {
			debugfs(t, part, "unlink /state/unit.json")
			overwrite(t, part, 1024, make([]byte, 1024))
		}, false, decide.RecoveryDamaged, true},
		"the directory of the record has lost its name, and an earlier repair found it": {func(t *testing.T, _, part string) {
			debugfs(t, part, "unlink /state")
			if out, err := exec.Command("e2fsck", "-fy", part).CombinedOutput(); err == nil || !bytes.Contains(out, []byte("nconnected")) {
				t.Fatalf("e2fsck: %v: %s", err, out)
			}
		}, false, decide.RecoveryDamaged, true},
		"a watchdog ended the boot before": {func(t *testing.T, _, part string) { overwrite(t, part, 1024, make([]byte, 1024)) }, true, decide.RecoveryDamaged, false},
		"all superblocks are gone": {func(t *testing.T, _, part string) {
			overwrite(t, part, 0, make([]byte, 256*layout.MiB))
		}, false, decide.RecoveryMissing, false},
		"other data in its place": {func(t *testing.T, _, part string) {
			overwrite(t, part, 0, append([]byte("LUKS\xba\xbe\x00\x01"), make([]byte, 4096)...))
		}, false, decide.RecoveryMissing, false},
		"record is damaged for good": {func(t *testing.T, _, part string) {
			debugfs(t, part, "rm /state/unit.json", "write /dev/null /state/unit.json")
		}, false, decide.RecoveryDamaged, false},
		"record is of a newer version": {func(t *testing.T, _, part string) {
			newer := filepath.Join(t.TempDir(), "newer")
			if err := os.WriteFile(newer, []byte(`{"version":99,"serial":["another form"]}`), 0o600); err != nil {
				t.Fatal(err)
			}
			debugfs(t, part, "rm /state/unit.json", "write "+newer+" /state/unit.json")
		}, false, decide.RecoveryNewer, false},
	} {
		t.Run(name, func(t *testing.T) {
			ownMounts(t)
			var out bytes.Buffer
			u := testUnit(t, &out)
			u.dog.fact.Expired = c.dog
			dev, part := recoveryDisk(t, u)
			c.damage(t, dev, part)
			u.m.Sys = virtio(t, dev)
			f := lookRecovery(u)
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
			if o := u.repairRecovery(context.Background(), f); o.Kind != DecideAgain {
				t.Errorf("after the repair: %+v", o)
			}
			again := lookRecovery(u)
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
			u.recoveryRepairs = 0 // the next boot: what was counted is on the volume
			if next := lookRecovery(u); c.repaired && next.RecoveryRepairs != 1 {
				t.Errorf("the next boot knows of %d repairs, want 1", next.RecoveryRepairs)
			}
			if strings.Contains(out.String(), "mke2fs") {
				t.Errorf("something was formatted:\n%s", out.String())
			}
		})
	}
}

// lookRecovery looks for the recovery volume, as each pass does, and leaves it unmounted.
func lookRecovery(u *unit) *Found {
	f := &Found{Facts: decide.Facts{Recovery: decide.RecoveryMissing, RecoveryRepairs: u.recoveryRepairs}}
	u.lookForRecovery(f)
	u.forget(f)
	return f
}

// TestTwoDamagedRecoveries: it is not clear which is the unit's, so none is changed.
func TestTwoDamagedRecoveries(t *testing.T) {
	ownMounts(t)
	u := testUnit(t, &bytes.Buffer{})
	a, partA := recoveryDisk(t, u)
	b, partB := recoveryDisk(t, u)
	for _, part := range []string{partA, partB} {
		overwrite(t, part, 1024, make([]byte, 1024))
	}
	u.m.Sys = virtio(t, a, b)
	f := lookRecovery(u)
	if f.Recovery != decide.RecoveryDamaged || f.RecoveryRepairable || f.RecoveryPart != nil {
		t.Errorf("%s, can be repaired: %t; notes %q", f.Recovery, f.RecoveryRepairable, f.Notes)
	}
	f.Main = decide.MainUnmarked
	if d := decide.Decide(f.Facts, u.m.Policy); d.Job != decide.Hold || d.Fault != fault.RecoveryDamaged {
		t.Errorf("%s", d)
	}
}

// TestManyRecoveries has two volumes: two of the unit's own are ambiguous, and beside one of another unit the own one is taken, whichever
// comes first. It is mounted then, read-only, and with two nothing is.
func TestManyRecoveries(t *testing.T) {
	for name, foreign := range map[string]int{"two of its own": -1, "own after foreign": 0, "own before foreign": 1} {
		t.Run(name, func(t *testing.T) {
			ownMounts(t)
			u := testUnit(t, &bytes.Buffer{})
			devs, parts := make([]string, 2), make([]string, 2)
			for i := range devs {
				devs[i], parts[i] = recoveryDisk(t, u)
				if i != foreign {
					continue
				}
				if err := u.mountVolume(parts[i], false); err != nil {
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
			u.m.Sys = virtio(t, devs...)
			f := &Found{Facts: decide.Facts{Recovery: decide.RecoveryMissing}}
			u.lookForRecovery(f)
			defer u.forget(f)
			var mounted []string
			mounts, err := os.ReadFile("/proc/self/mounts")
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(mounts)) {
				if w := strings.Fields(line); w[1] == u.m.Places.Recovery {
					mounted = append(mounted, w[0]+" "+w[3][:2])
				}
			}
			if foreign < 0 {
				if f.Recovery != decide.RecoveryAmbiguous || len(mounted) > 0 {
					t.Errorf("%s, mounted %q; notes %q", f.Recovery, mounted, f.Notes)
				}
				return
			}
			own := parts[1-foreign]
			if f.Recovery != decide.RecoveryFound || f.RecoveryPart.Path != own || f.Unit.Serial != testSerial || len(mounted) != 1 || mounted[0] != own+" ro" {
				t.Errorf("%s, mounted %q, want %s; notes %q", f.Recovery, mounted, own, f.Notes)
			}
		})
	}
}
