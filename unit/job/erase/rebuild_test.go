package erase

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/bootloader"
	"gprovision/hw/host"
	"gprovision/lab/simdrive"
	"gprovision/model/bootimage"
	"gprovision/model/challenge"
	"gprovision/model/erasure"
	"gprovision/model/fault"
	"gprovision/model/grub"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/model/policy"
	"gprovision/model/signature"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/keytest"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// largeDisk is the size of a main disk that is looked at in samples only, and has room for a stand-in.
const largeDisk = smallDrive

// kept are the files that stay, whatever is erased.
func (w *world) kept() []string {
	image := state.ImageDir + "/" + machinetest.Original + ".upd"
	return []string{state.UnitFile, state.KeyFile, state.HashFile, image, w.machine().Site.Names.BootFile}
}

// newRebuild makes a unit with a small recovery device, full of what its customer left there, and a main disk that takes commands. Its
// policy has the recovery device made anew, and an erase is requested.
func newRebuild(t *testing.T, fw layout.Firmware, recovery block.Disk) *world {
	t.Helper()
	w := &world{t: t, r: machinetest.NewUnit(t, machinetest.Kind{Firmware: fw}), sims: map[string]*simdrive.Drive{}, clock: &simdrive.Clock{}}
	w.u = machinetest.Provision(w.r, machinetest.Machine(w.r))
	content := t.TempDir()
	must(t, os.CopyFS(content, os.DirFS(w.r.Volume(w.u.Recovery.Table.Find(layout.Recovery).FSUUID))))
	w.r.Remove("vda")
	w.r.Remove("vdb")
	table, at := w.u.Recovery.Table, int64(layout.MiB)
	table.Partitions = slices.Clone(table.Partitions)
	for i, p := range table.Partitions {
		size := int64(3 * layout.MiB)
		if p.Role == layout.ESP {
			size = 36 * layout.MiB
		}
		table.Partitions[i].Start, table.Partitions[i].Size = at, size
		at += size
	}
	recovery.Size = max(recovery.Size, at+layout.MiB)
	w.r.AddDisk(recovery)
	c := w.newSim()
	w.r.AddDisk(block.Disk{Name: "nvme0n1", Bus: block.NVMe, Model: c.Model, Serial: c.Serial, Size: largeDisk})
	w.variant = func(v *platform.Variant) {
		v.Disksize, v.RecoveryMedia.Bus = largeDisk, []platform.Bus{platform.Bus(recovery.Bus)}
	}
	w.policy.Erase.Recovery = policy.RecoveryRebuild
	w.u.Recovery = machine.DiskRecord(w.disk(recovery.Name), table)
	w.u.Main = []state.Disk{machine.DiskRecord(w.disk("nvme0n1"), w.u.Main[0].Table)}
	m, path := w.machine(), w.disk(recovery.Name).Path
	must(t, m.WriteTable(path, table))
	must(t, m.Format(t.Context(), path, table, []layout.Role{layout.ESP, layout.Recovery}))
	must(t, m.Mount(partOf(path, table), m.Places.Recovery, "ext4", host.MountOptions{}))
	must(t, os.CopyFS(m.Places.Recovery, os.DirFS(content)))
	v := state.Open(m.Places.Recovery)
	q, err := state.NewRequest(state.KindErase, "", "a test", time.Now())
	must(t, errors.Join(err, v.WriteUnit(w.u), v.WriteRequest(q), os.WriteFile(v.Path(state.NetworkFile), pattern, 0o600),
		m.PutRecoveryArtifact(w.u, v.Path()), m.Unmount(m.Places.Recovery)))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	p := table.Find(layout.Recovery)
	_, err = f.WriteAt(bytes.Repeat(pattern, int(p.Size-layout.MiB)/len(pattern)), p.Start+layout.MiB)
	must(t, errors.Join(err, f.Close()))
	if recovery.Size < largeDisk {
		w.full = w.left(recovery.Name)
	}
	return w
}

// vda is a recovery device without commands.
func vda() block.Disk { return block.Disk{Name: "vda", Bus: block.VirtIO, Serial: "RECOVERY"} }

// newSim makes the main disk a fresh one, full of data.
func (w *world) newSim() simdrive.Config {
	c := simdrive.NVMeDisk(1)
	c.SectorSize, c.Sectors = 512, largeDisk/512
	w.sims["nvme0n1"] = simdrive.New(c, simdrive.Faults{}, w.clock)
	return c
}

// counts lets do have the recovery volume that counts.
func (w *world) counts(do func(*survey.Findings, *state.Volume)) {
	w.t.Helper()
	e, f := w.look()
	if f.Recovery != decide.RecoveryFound {
		w.t.Fatalf("no recovery volume counts: %s, %q", f.Recovery, f.Notes)
	}
	must(w.t, e.Volume.View(func(v *state.Volume) error { do(f, v); return nil }))
}

// starts reports whether firmware starts the recovery artifact from a disk. The error is of one that it would start, and come to nothing.
func (w *world) starts(d block.Disk) (bool, error) {
	w.t.Helper()
	m := w.machine()
	want, err := os.ReadFile(filepath.Join(w.r.Firmware(), "..", "artifact"))
	must(w.t, err)
	t, err := m.ReadTable(d.Path)
	must(w.t, err)
	content := func(p layout.Partition) string {
		info, _, err := m.ProbePartition(block.PartitionPath(d.Path, p.Number))
		if err != nil || info.UUID == "" {
			return ""
		}
		return w.r.Volume(info.UUID)
	}
	if m.Firmware == layout.UEFI {
		for _, p := range t.Partitions {
			if dir := content(p); p.Type == layout.TypeESP && dir != "" {
				got, err := os.ReadFile(filepath.Join(dir, "EFI/BOOT/BOOTX64.EFI"))
				return err == nil && bytes.Equal(got, want), nil
			}
		}
		return false, nil
	}
	dev, err := m.Open(d.Path, machine.Read)
	must(w.t, err)
	defer dev.Close()
	first := make([]byte, 512)
	_, err = dev.ReadAt(first, 0)
	must(w.t, err)
	if first[510] != 0x55 || first[511] != 0xaa || bytes.HasPrefix(first, []byte{0xcd, 0x18}) {
		return false, nil // the firmware goes on to the next disk
	}
	boot, err := os.ReadFile(filepath.Join(m.Initramfs, bootimage.GRUBBootPath))
	must(w.t, err)
	core, err := os.ReadFile(filepath.Join(m.Initramfs, bootimage.GRUBCorePath))
	must(w.t, err)
	if err := bootloader.Verify(dev, t, bootloader.Images{Boot: boot, Core: core}); err != nil {
		return false, err
	}
	for _, p := range t.Partitions {
		dir := content(p)
		config, err := os.ReadFile(filepath.Join(dir, grub.ConfigPath))
		if dir == "" || err != nil {
			continue
		}
		kernels, err := filepath.Glob(filepath.Join(dir, machine.BootDir, "*/vmlinuz"))
		must(w.t, err)
		for _, k := range kernels {
			got, err := os.ReadFile(k)
			must(w.t, err)
			if !bytes.Equal(got, want) || !strings.Contains(string(config), strings.TrimPrefix(k, dir)) {
				continue
			}
			// Files have no place on a disk here. Where a block beside them was written nobody knows what is left of them.
			if d.Serial != w.u.Recovery.Serial || w.sims[d.Name] != nil {
				return true, nil // too large to look at
			}
			if n := w.left(d.Name); n != 0 && n != w.full {
				return false, fmt.Errorf("%d of %d blocks are as they were", n, w.full)
			}
			return true, nil
		}
	}
	return false, errors.New("its boot loader finds nothing")
}

// judge checks a unit that was switched off, wherever that was: one recovery volume counts, firmware starts the unit from its device and
// comes to nothing on no other, what stays is there, and the unit goes on with the erase.
func (w *world) judge(stays map[string][]byte) error {
	w.t.Helper()
	must(w.t, os.WriteFile(filepath.Join(w.r.Firmware(), "..", "artifact"), stays[w.machine().Site.Names.BootFile], 0o600))
	_, f := w.look()
	if f.Recovery != decide.RecoveryFound {
		return fmt.Errorf("no recovery volume counts: %s, %q", f.Recovery, f.Notes)
	}
	var bad error
	for _, name := range []string{w.u.Recovery.Serial, w.u.Main[0].Serial} {
		disks, err := w.machine().Disks()
		must(w.t, err)
		d := disks[slices.IndexFunc(disks, func(d block.Disk) bool { return d.Serial == name })]
		ok, err := w.starts(d)
		if err != nil {
			bad = errors.Join(bad, fmt.Errorf("%s: %w", d.Name, err))
		}
		if d.Name == f.RecoveryPart.Disk.Name && !ok {
			bad = errors.Join(bad, fmt.Errorf("%s has the volume that counts and does not start", d.Name))
		}
	}
	w.counts(func(_ *survey.Findings, v *state.Volume) {
		for name, want := range stays {
			if got, err := os.ReadFile(v.Path(name)); err != nil || !bytes.Equal(got, want) {
				bad = errors.Join(bad, fmt.Errorf("%s on %s: %d bytes, %w", name, f.RecoveryPart.Path, len(got), err))
			}
		}
	})
	if d := decide.Decide(f.Facts, w.policy); d.Job != decide.Erase && f.Erasing.Erase != nil && !f.Erasing.Erase.Resolved {
		bad = errors.Join(bad, fmt.Errorf("decides %s", d))
	}
	return bad
}

// stays returns the content of what stays.
func (w *world) stays() map[string][]byte {
	out := map[string][]byte{}
	w.counts(func(_ *survey.Findings, v *state.Volume) {
		for _, name := range w.kept() {
			b, err := os.ReadFile(v.Path(name))
			must(w.t, err)
			out[name] = b
		}
	})
	return out
}

// TestRebuild: what stays is copied to the proved main disk, the recovery device is erased and made anew, and the copy is overwritten. All
// that is in the certificate. Whether the policy is locked changes nothing.
func TestRebuild(t *testing.T) {
	t.Run("BIOS, without commands", func(t *testing.T) {
		testRebuild(t, newRebuild(t, layout.BIOS, vda()), erasure.Weaker)
	})
	t.Run("UEFI, locked policy, with commands", func(t *testing.T) {
		w, _ := newRebuildSim(t, layout.UEFI, largeDisk, simdrive.Faults{})
		w.policy.Locked = true
		testRebuild(t, w, erasure.Proved)
	})
}

// newRebuildSim is newRebuild with a recovery device that takes commands, of a size, or as small as it can be.
func newRebuildSim(t *testing.T, fw layout.Firmware, size int64, f simdrive.Faults) (*world, *simdrive.Drive) {
	t.Helper()
	c := simdrive.NVMeDisk(2)
	c.Serial, c.Number.Minor, c.Encrypts = "RECOVERY", 8, f.Locked
	w := newRebuild(t, fw, block.Disk{Name: "nvme1n1", Bus: block.NVMe, Model: c.Model, Serial: c.Serial, Size: size})
	c.SectorSize, c.Sectors = 512, w.u.Recovery.Size/512
	w.sims["nvme1n1"] = simdrive.New(c, f, w.clock)
	return w, w.sims["nvme1n1"]
}

// leftOnDevice returns how many sectors of the customer's data are on the recovery device.
func (w *world) leftOnDevice() int64 {
	if sim := w.sims["nvme1n1"]; sim != nil {
		n, _ := sim.Residue()
		return n
	}
	return int64(w.left("vda"))
}

func testRebuild(t *testing.T, w *world, outcome erasure.Outcome) {
	stays := w.stays()
	must(t, w.judge(stays))
	if out := w.boot(); out.Kind != job.DecideAgain {
		t.Fatalf("%+v", out)
	}
	must(t, w.judge(stays))
	if w.leftOnDevice() == 0 {
		t.Error("the recovery device is erased before the stand-in counts")
	}
	end := int64(0)
	w.counts(func(f *survey.Findings, v *state.Volume) {
		if !f.StandIn || f.RecoveryPart.Disk.Name != "nvme0n1" {
			t.Errorf("%s counts", f.RecoveryPart.Path)
		}
		end = f.RecoveryPart.Partition.Start + f.RecoveryPart.Partition.Size
		if _, err := os.Stat(v.Path(state.NetworkFile)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("what the customer left is copied: %v", err)
		}
	})
	if out := w.boot(); out.Kind != job.DecideAgain {
		t.Fatalf("%+v", out)
	}
	must(t, w.judge(stays))
	if n := w.leftOnDevice(); n != 0 {
		t.Errorf("%d sectors are left on the recovery device", n)
	}
	main, err := os.OpenFile(w.disk("nvme0n1").Path, os.O_RDWR, 0)
	must(t, err)
	defer main.Close()
	for _, at := range []int64{0, layout.MiB, end / 2 &^ 511, end - 512, largeDisk - 512} { // what was there
		_, err = main.WriteAt(pattern, at)
		must(t, err)
	}
	if out := w.boot(); out.Kind != job.RebootNow {
		t.Fatalf("%+v", out)
	}
	for _, at := range []int64{0, layout.MiB, end / 2 &^ 511, end - 512, largeDisk - 512} {
		got := make([]byte, 512)
		if _, err := main.ReadAt(got, at); err != nil || !bytes.Equal(got, make([]byte, 512)) {
			t.Errorf("the copy is not overwritten at %d: %v", at, err)
		}
	}
	must(t, w.judge(stays))
	c := w.certificate()
	if c.Outcome != erasure.Proved || c.Volume != nil || len(c.Drives) != 2 || c.Recovery == nil || c.Recovery.Outcome != outcome {
		t.Fatalf("%+v", c)
	}
	if d := c.Drives[1]; d.Role != erasure.RecoveryVolume || d.Serial != "RECOVERY" || d.Evidence.Part {
		t.Errorf("%+v", d)
	}
	if !slices.ContainsFunc(c.NotReached, func(s string) bool { return strings.Contains(s, "old cells of nvme0n1") }) {
		t.Errorf("not reached: %q", c.NotReached)
	}
	for _, what := range []string{"key", "password", "images"} {
		if !strings.Contains(strings.Join(c.Kept, "; "), what) {
			t.Errorf("kept: %q, without %s", c.Kept, what)
		}
	}
	if e, r := w.state(); !e.Resolved || e.Outcome != erasure.Proved || e.StandIn != "" || r.Kind != state.KindRestore {
		t.Errorf("%+v, %+v", e, r)
	}
	if readable, _ := w.sims["nvme0n1"].Residue(); readable != 0 {
		t.Errorf("%d sectors are left on the main disk", readable)
	}
}

// TestRebuildLaw cuts the power at each call of the three passes, and lets each call fail. Wherever that is one device starts the unit, and
// in the end all is erased.
func TestRebuildLaw(t *testing.T) {
	w := newRebuild(t, layout.BIOS, vda())
	stays := w.stays()
	var starts [3]*machinetest.Rig
	var calls [3][]string
	for b := range starts {
		starts[b] = w.r.Clone(t)
		out := w.boot(func(_ int, call string) error { calls[b] = append(calls[b], call); return nil })
		if want := []job.Kind{job.DecideAgain, job.DecideAgain, job.RebootNow}[b]; out.Kind != want {
			t.Fatalf("pass %d: %+v", b, out)
		}
	}
	each := 6
	if testing.Short() {
		each = 24
	}
	for b, start := range starts {
		at := slices.DeleteFunc(machinetest.Sampled(calls[b]), func(n int) bool { return n%each != 0 && n < len(calls[b])-4 })
		if first := slices.Index(calls[b], "write /dev/vda") + 1; first > 0 { // from here on the device is less and less what it was
			for k := range 8 {
				at = append(at, first+3*k)
			}
		}
		t.Logf("pass %d: %d calls, %d of them tried", b, len(calls[b]), len(at))
		for _, err := range []error{machinetest.ErrCut, syscall.EIO} {
			for _, n := range at {
				w.r = start.Clone(t)
				w.newSim()
				call := ""
				out := w.boot(func(k int, c string) error {
					if k != n {
						return nil
					}
					call = c
					return fmt.Errorf("call %d, %s: %w", n, c, err)
				})
				what := fmt.Sprintf("%v at call %d of pass %d, %s", err, n, b, call)
				for boots := 0; out.Kind != job.RebootNow && boots < 9; boots++ {
					if err := w.judge(stays); err != nil {
						t.Fatalf("%s, then %d boots: %v", what, boots, err)
					}
					if f := fault.Of(out.Err); f == fault.EraseFailed || f == fault.EraseUnknown {
						w.choice = decide.ChooseErase // another run
					}
					out = w.boot()
					w.choice = decide.NoChoice
				}
				if err := w.judge(stays); err != nil {
					t.Fatalf("%s, in the end: %v", what, err)
				}
				e, r := w.state()
				c := w.certificate()
				if out.Kind != job.RebootNow || !e.Resolved || e.Outcome != erasure.Proved || r.Kind != state.KindRestore || w.left("vda") != 0 ||
					c.Outcome != erasure.Proved || len(c.Drives) != 2 || c.Recovery.Outcome != erasure.Weaker {
					t.Fatalf("%s: ends elsewhere: %+v, %+v, %+v, %d sectors left", what, out, e, r, w.left("vda"))
				}
			}
		}
	}
}

// TestNoRebuild: where no main disk is proved, or the recovery device is not what the record says, it is not touched:
// the free space of the volume is filled as ever, and the certificate says why.
func TestNoRebuild(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*world)
		why    string
	}{
		"no main disk is proved": {func(w *world) {
			w.policy.Erase.Require = policy.ErasePurge
			f := simdrive.NVMeDisk(1)
			f.SectorSize, f.Sectors = 512, largeDisk/512
			w.sims["nvme0n1"] = simdrive.New(f, simdrive.Faults{FailAtEnd: true}, w.clock)
		}, "no main disk is proved"},
		"another record": {func(w *world) {
			w.u.Recovery.Table.Partitions[0].Size -= layout.MiB
			w.volume(func(v *state.Volume) error { return v.WriteUnit(w.u) })
		}, "is not as the unit's record has it"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newRebuild(t, layout.BIOS, vda())
			c.change(w)
			out := w.boot()
			if out.Kind == job.DecideAgain || slices.Contains(w.r.Written(), "vda") {
				t.Fatalf("%+v, written %q", out, w.r.Written())
			}
			v := w.certificate().Volume
			if v == nil || v.Filled == 0 || !strings.Contains(strings.Join(v.NotReached, "; "), c.why) {
				t.Errorf("%+v", v)
			}
			if n := len(w.certificate().Drives); n != 1 {
				t.Errorf("%d drives", n)
			}
		})
	}
}

// TestPlace: the stand-in is on the first main disk whose erase is proved and that has room for what stays.
func TestPlace(t *testing.T) {
	w := newRebuild(t, layout.BIOS, vda())
	const image, need = 4 * layout.MiB, (4 + 256 + 1) * layout.MiB // and what is there already
	const large = need + 2*layout.MiB
	w.volume(func(v *state.Volume) error {
		f, err := os.Create(v.Path(state.ImageDir, "large.upd"))
		return errors.Join(err, f.Truncate(image), f.Close())
	})
	type (
		two   [2]erasure.Outcome
		sizes [2]int64
	)
	for name, c := range map[string]struct {
		outcomes two
		sizes    sizes
		at       int // -1: nowhere
		why      string
	}{
		"the first":            {two{erasure.Proved, erasure.Proved}, sizes{largeDisk, largeDisk}, 0, ""},
		"the first is weaker":  {two{erasure.Weaker, erasure.Proved}, sizes{largeDisk, largeDisk}, 1, ""},
		"the first has failed": {two{erasure.Failed, erasure.Proved}, sizes{largeDisk, largeDisk}, 1, ""},
		"the first is small":   {two{erasure.Proved, erasure.Proved}, sizes{large - 1, largeDisk}, 1, ""},
		"just enough":          {two{erasure.Proved, erasure.Proved}, sizes{large, largeDisk}, 0, ""},
		"none is proved":       {two{erasure.Weaker, erasure.Unknown}, sizes{largeDisk, largeDisk}, -1, "no main disk is proved"},
		"none has room":        {two{erasure.Proved, erasure.Proved}, sizes{8 * layout.MiB, large - 1}, -1, "does not fit"},
		"the proved has none":  {two{erasure.Proved, erasure.Weaker}, sizes{large - 1, largeDisk}, -1, "does not fit"},
	} {
		e, f := w.look()
		j := &erasing{env: e, f: f, book: &book{volume: e.Volume}, entry: entry{ID: "0123456789abcdef"}}
		var err error
		j.entry.Plan, err = makePlan(e.Machine, f)
		must(t, err)
		second := j.entry.Plan.Disks[0]
		second.Disks = slices.Clone(second.Disks)
		j.entry.Plan.Disks = slices.Insert(j.entry.Plan.Disks, 1, second)
		j.entry.Drives = make([]progress, 3)
		for i := range 2 {
			j.entry.Plan.Disks[i].Disks[0].Size = c.sizes[i]
			j.entry.Drives[i].Done = &erasure.Drive{Outcome: c.outcomes[i]}
		}
		must(t, choosePlace(j))
		switch s := j.entry.StandIn; {
		case c.at >= 0 && (s == nil || s.Disk != c.at || recoveryDevice(&j.entry) != 2):
			t.Errorf("%s: %+v, %q", name, s, j.entry.Plan.NoRebuild)
		case c.at < 0 && (s != nil || recoveryDevice(&j.entry) >= 0 || !strings.Contains(j.entry.Plan.NoRebuild, c.why)):
			t.Errorf("%s: %+v, %q", name, s, j.entry.Plan.NoRebuild)
		}
	}
}

// TestRebuildShared: a recovery device that is a namespace of a larger NVM subsystem is not planned, and neither is one of a unit with one
// disk.
func TestRebuildShared(t *testing.T) {
	w, _ := newRebuildSim(t, layout.BIOS, 0, simdrive.Faults{})
	e, f := w.look()
	p, err := makePlan(e.Machine, f)
	must(t, err)
	if len(p.Disks) != 2 || p.Disks[1].Role != erasure.RecoveryVolume || p.NoRebuild != "" {
		t.Fatalf("%+v", p)
	}
	same := &fstest.MapFile{Data: []byte("x\n")}
	e.Machine.Sys = fstest.MapFS{"block/nvme0n1/device/subsysnqn": same, "block/nvme1n1/device/subsysnqn": same}
	if p, err = makePlan(e.Machine, f); err != nil || len(p.Disks) != 1 || !strings.Contains(p.NoRebuild, "NVM subsystem") {
		t.Errorf("%+v, %v", p, err)
	}
	one := newWhole(t, vdb())
	one.policy.Erase.Recovery = policy.RecoveryRebuild
	_, f = one.look()
	m := one.machine()
	if p, err = makePlan(m, f); err != nil || len(p.Disks) != 1 || !strings.Contains(p.NoRebuild, "on a main disk") {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestRebuildDrives: a recovery device that lies, or is locked, is not taken for erased: the unit holds, and starts from the stand-in.
func TestRebuildDrives(t *testing.T) {
	for name, c := range map[string]struct {
		faults  simdrive.Faults
		outcome erasure.Outcome
		fault   *fault.Fault
	}{
		"lies":   {simdrive.Faults{Nothing: true}, erasure.Failed, fault.EraseFailed},
		"locked": {simdrive.Faults{Locked: true}, erasure.Failed, fault.EraseFailed},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newRebuildSim(t, layout.BIOS, 0, c.faults)
			w.policy.Erase.Require = policy.ErasePurge
			stays := w.stays()
			var out job.Outcome
			for range 3 {
				if out = w.boot(); out.Kind != job.DecideAgain {
					break
				}
			}
			if fault.Of(out.Err) != c.fault || (out.Kind == job.RebootNow) != (c.fault == nil) {
				t.Fatalf("%+v", out)
			}
			w.counts(func(f *survey.Findings, v *state.Volume) {
				if f.StandIn != (c.fault != nil) {
					t.Errorf("%s counts", f.RecoveryPart.Path)
				}
				file, err := state.ReadEraseFile(v, certificateFile)
				must(t, err)
				got, err := erasure.Parse(file)
				must(t, err)
				if got.Outcome != erasure.Proved || got.Recovery.Outcome != c.outcome || got.Ending() != c.outcome {
					t.Errorf("%s, recovery %s, ends %s", got.Outcome, got.Recovery.Outcome, got.Ending())
				}
				for name, want := range stays {
					if got, err := os.ReadFile(v.Path(name)); err != nil || !bytes.Equal(got, want) {
						t.Errorf("%s: %v", name, err)
					}
				}
			})
		})
	}
}

// TestRebuildFails: a recovery device that takes no writes has failed, which survives reboots. The unit starts from the stand-in until
// another run erases that device, or support has it made anew as it is.
func TestRebuildFails(t *testing.T) {
	w := newRebuild(t, layout.BIOS, vda())
	stays := w.stays()
	if out := w.boot(); out.Kind != job.DecideAgain {
		t.Fatalf("%+v", out)
	}
	deaf := func(_ int, call string) error {
		if call == "write /dev/vda" {
			return syscall.EIO
		}
		return nil
	}
	out := w.boot(deaf)
	for range tries {
		if fault.Of(out.Err) != fault.EraseStopped {
			break
		}
		must(t, w.judge(stays))
		out = w.boot(deaf)
	}
	if fault.Of(out.Err) != fault.EraseFailed {
		t.Fatalf("%+v", out)
	}
	must(t, w.judge(stays))
	if out := w.boot(); fault.Of(out.Err) != fault.EraseFailed || slices.Contains(w.r.Written(), "vda") {
		t.Fatalf("after a reboot: %+v", out)
	}
	failed := w.r
	t.Run("another run", func(t *testing.T) {
		w.t, w.r = t, failed.Clone(t)
		w.choice = decide.ChooseErase
		defer func() { w.choice = decide.NoChoice }()
		if out := w.boot(); out.Kind != job.DecideAgain {
			t.Fatalf("%+v", out)
		}
		w.choice = decide.NoChoice
		if out := w.boot(); out.Kind != job.RebootNow || w.left("vda") != 0 || w.certificate().Recovery.Outcome != erasure.Weaker {
			t.Fatalf("%+v", out)
		}
		must(t, w.judge(stays))
	})
	t.Run("support", func(t *testing.T) {
		w.t, w.r = t, failed.Clone(t)
		key := keytest.New(t)
		w.policy.SupportKeys = []string{key.Public().String()}
		w.choice = decide.ChooseResolve
		w.panel = &script.Panel{Answer: func(a panel.Asked) []panel.Key { return answer(t, key, a) }}
		if out := w.boot(); out.Kind != job.DecideAgain {
			t.Fatalf("%+v", out)
		}
		w.choice, w.panel = decide.NoChoice, nil
		for _, want := range []job.Kind{job.DecideAgain, job.RebootNow} {
			if out := w.boot(); out.Kind != want {
				t.Fatalf("%+v", out)
			}
			must(t, w.judge(stays))
		}
		if e, r := w.state(); !e.Resolved || e.ResolvedBy != key.Public().ID() || e.Outcome != erasure.Failed || r.Kind != state.KindRestore {
			t.Errorf("%+v, %+v", e, r)
		}
		if w.certificate().Recovery.Outcome != erasure.Failed {
			t.Error("the certificate is another one")
		}
	})
}

// answer answers the challenge that a person is asked.
func answer(t *testing.T, key signature.PrivateKey, a panel.Asked) []panel.Key {
	t.Helper()
	q, err := challenge.Parse(strings.TrimPrefix(a.Title, "answer to "))
	must(t, err)
	text, err := q.Answer(key)
	must(t, err)
	return append([]panel.Key(text), panel.KeyEnter)
}

// TestRebuildHides: the first that is written to the recovery device takes away what BIOS firmware starts from it, and nothing else.
func TestRebuildHides(t *testing.T) {
	w := newRebuild(t, layout.BIOS, vda())
	if out := w.boot(); out.Kind != job.DecideAgain {
		t.Fatalf("%+v", out)
	}
	path := w.disk("vda").Path
	before, err := os.ReadFile(path)
	must(t, err)
	writes := 0
	w.boot(func(_ int, call string) error {
		if call == "write /dev/vda" {
			if writes++; writes == 2 {
				return machinetest.ErrCut
			}
		}
		return nil
	})
	after, err := os.ReadFile(path)
	must(t, err)
	if bytes.Equal(before[:firstBlock], make([]byte, firstBlock)) || !bytes.Equal(after[:firstBlock], make([]byte, firstBlock)) {
		t.Error("a boot loader is left")
	}
	if !bytes.Equal(before[firstBlock:], after[firstBlock:]) {
		t.Error("more is written at once")
	}
}

// TestStandInProof: a stand-in counts only as long as it says so itself, for the partition that it is on, in the machine and with the
// firmware of its record. Two that do are one too many.
func TestStandInProof(t *testing.T) {
	w := newRebuild(t, layout.BIOS, vda())
	if out := w.boot(); out.Kind != job.DecideAgain {
		t.Fatalf("%+v", out)
	}
	begun := w.r
	erase := func(change func(*state.Erase)) func(*state.Volume) error {
		return func(v *state.Volume) error {
			e, err := state.ReadErase(v)
			change(&e)
			return errors.Join(err, state.WriteErase(v, e))
		}
	}
	for name, c := range map[string]struct {
		change func(*state.Volume) error
		counts bool
	}{
		"as it is":         {func(*state.Volume) error { return nil }, true},
		"it has ended":     {erase(func(e *state.Erase) { e.Outcome = erasure.Failed }), true},
		"took it back":     {erase(func(e *state.Erase) { e.StandIn = "" }), false},
		"another place":    {erase(func(e *state.Erase) { e.StandIn = w.u.Recovery.Table.Find(layout.Recovery).UUID }), false},
		"no erase":         {func(v *state.Volume) error { return os.Remove(v.Path(state.EraseFile)) }, false},
		"no record":        {func(v *state.Volume) error { return os.Remove(v.Path(state.UnitFile)) }, false},
		"another board":    {func(v *state.Volume) error { u := w.u; u.Serial = "OTHER"; return v.WriteUnit(u) }, false},
		"another firmware": {func(v *state.Volume) error { u := w.u; u.Firmware = layout.UEFI; return v.WriteUnit(u) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w.t, w.r = t, begun.Clone(t)
			e, _ := w.look()
			must(t, e.Volume.Change(c.change))
			w.counts(func(f *survey.Findings, _ *state.Volume) {
				if f.StandIn != c.counts || (f.RecoveryPart.Disk.Name == "nvme0n1") != c.counts {
					t.Errorf("%s counts: %q", f.RecoveryPart.Path, f.Notes)
				}
			})
		})
	}
	t.Run("two", func(t *testing.T) {
		w.t, w.r = t, begun.Clone(t)
		e, f := w.look()
		table := f.RecoveryPart.Table
		table.Partitions = slices.Clone(table.Partitions)
		table.UUID, table.Partitions[0].UUID = "01020304", "01020304-01"
		w.r.AddDisk(block.Disk{Name: "nvme2n1", Bus: block.NVMe, Serial: "SECOND", Size: largeDisk})
		m, path, id := e.Machine, w.disk("nvme2n1").Path, machine.NewIDs().UUID()
		must(t, m.WriteTable(path, table))
		part := block.PartitionPath(path, 1)
		must(t, m.MakeExt4(t.Context(), part, layout.StandInLabel, id))
		must(t, m.Mount(part, m.Places.Main, "ext4", copyMount()))
		must(t, e.Volume.View(func(v *state.Volume) error { return copyVolume(t.Context(), m, v, m.Places.Main) }))
		must(t, errors.Join(state.WriteErase(state.Open(m.Places.Main), state.Erase{ID: "0123456789abcdef", StandIn: "01020304-01"}),
			m.Unmount(m.Places.Main)))
		if _, f := w.look(); f.Recovery != decide.RecoveryAmbiguous {
			t.Errorf("%s, %q", f.Recovery, f.Notes)
		}
	})
}
