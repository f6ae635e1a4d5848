package machine_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gprovision/hw/block"
	"gprovision/hw/host"
	"gprovision/hw/raid"
	"gprovision/model/bootimage"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/model/step"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	"gprovision/unit/state"
)

// restored returns a unit with a main system of a few files. The main system and the recovery volume are mounted.
func restored(t *testing.T, k machinetest.Kind) (*machinetest.Rig, *machine.Machine, state.Unit, []string) {
	t.Helper()
	r := machinetest.NewUnit(t, k)
	m := machinetest.Machine(r)
	u := machinetest.Provision(r, m)
	var disks, members []string
	for i, name := range []string{"vdb", "vdc"}[:len(u.Main)] {
		dev := at(t, m)[name]
		disks = append(disks, dev)
		if !k.OneDisk {
			if err := m.WriteTable(dev, u.Main[i].Table); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Format(t.Context(), dev, u.Main[i].Table, []layout.Role{layout.Primary}); err != nil {
			t.Fatal(err)
		}
		if p := u.Main[i].Table.Find(layout.Member); p != nil {
			members = append(members, block.PartitionPath(dev, p.Number))
		}
	}
	system := machine.ArrayPath
	if u.Array == nil {
		system = block.PartitionPath(disks[0], u.System().Number)
	} else {
		err := m.CreateArray(t.Context(), *u.Array, members)
		if err = errors.Join(err, m.MakeExt4(t.Context(), system, "PRIMARY", u.Array.FSUUID)); err != nil {
			t.Fatal(err)
		}
	}
	recovery, err := m.RecoveryDisk(u)
	if err == nil {
		volume := block.PartitionPath(recovery.Path, u.Recovery.Table.Find(layout.Recovery).Number)
		err = m.Mount(volume, m.Places.Recovery, "ext4", host.MountOptions{})
		err = errors.Join(err, m.Mount(system, m.Places.Main, "ext4", host.MountOptions{}))
	}
	boot := filepath.Join(m.Places.Main, "boot")
	err = errors.Join(err, os.Mkdir(boot, 0o755), os.WriteFile(filepath.Join(boot, "norm_boot"), imagetest.BzImage(9, "system"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return r, m, u, disks
}

// writes returns the writing calls since the machine's call n.
func writes(r *machinetest.Rig, n int) (out []string) {
	for _, c := range r.Calls()[n:] {
		if strings.HasPrefix(c, "write") || strings.Contains(c, "writable") || strings.Contains(c, "mke2fs") {
			out = append(out, c)
		}
	}
	return out
}

// TestArtifacts: each main disk starts the main system, and the recovery device the recovery artifact. A disk that
// does so already is not written to.
func TestArtifacts(t *testing.T) {
	for name, k := range map[string]machinetest.Kind{
		"UEFI":           {Firmware: layout.UEFI},
		"BIOS":           {Firmware: layout.BIOS},
		"UEFI, one disk": {Firmware: layout.UEFI, OneDisk: true},
		"BIOS, one disk": {Firmware: layout.BIOS, OneDisk: true},
		"UEFI, mirror":   {Firmware: layout.UEFI, Mirror: true},
		"BIOS, mirror":   {Firmware: layout.BIOS, Mirror: true},
	} {
		t.Run(name, func(t *testing.T) {
			r, m, u, disks := restored(t, k)
			for n := range 2 {
				before := len(r.Calls())
				if err := m.PutMainArtifact(u, disks, m.Places.Main); err != nil {
					t.Fatal(err)
				}
				if err := m.PutRecoveryArtifact(u, m.Places.Recovery); err != nil {
					t.Fatal(err)
				}
				if w := writes(r, before); n > 0 && len(w) > 0 {
					t.Errorf("written again is %q", w)
				}
			}
			if k.Firmware == layout.BIOS {
				for _, dev := range disks {
					if b := peek(t, m, dev, 2, 0); !bytes.Equal(b, []byte{0, 0}) { // the rig's loader
						t.Errorf("%s begins with %x", filepath.Base(dev), b)
					}
				}
				for dir, want := range map[string]string{
					m.Places.Main:     u.Recovery.Table.Find(layout.Recovery).FSUUID,
					m.Places.Recovery: u.System().FSUUID,
				} {
					config, err := os.ReadFile(filepath.Join(dir, "boot/grub/grub.cfg"))
					if err != nil || !bytes.Contains(config, []byte(want)) || !bytes.Contains(config, []byte("vmlinuz")) {
						t.Errorf("the loader at %s does not know %s: %v\n%s", filepath.Base(dir), want, err, config)
					}
				}
				return
			}
			for i, d := range u.Main {
				esp := block.PartitionPath(disks[i], d.Table.Find(layout.ESP).Number)
				if k.OneDisk == (machine.NormalFile(u) == machine.RemovablePath) {
					t.Errorf("the main system starts by %s", machine.NormalFile(u))
				}
				err := m.OnESP(esp, machine.NormalFile(u), func(path string) error {
					a, err := machine.ReadArtifact(path)
					if a.Build != 9 {
						t.Errorf("disk %d starts build %d", i, a.Build)
					}
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestESPIsMadeAnew: an ESP without a FAT filesystem is formatted and gets its artifact.
func TestESPIsMadeAnew(t *testing.T) {
	_, m, u, disks := restored(t, machinetest.Kind{Firmware: layout.UEFI})
	p := u.Main[0].Table.Find(layout.ESP)
	esp := block.PartitionPath(disks[0], p.Number)
	if info, _, err := m.ProbePartition(esp); err != nil || info.Type != "" {
		t.Fatalf("it carries %+v, %v", info, err)
	}
	if err := m.PutMainArtifact(u, disks, m.Places.Main); err != nil {
		t.Fatal(err)
	}
	if info, _, err := m.ProbePartition(esp); err != nil || info.Type != "vfat" || !strings.EqualFold(info.UUID, p.FSUUID) {
		t.Errorf("it carries %+v, %v", info, err)
	}
}

// TestArtifactsRefused: a record or an artifact that cannot be right is refused before any byte is written.
func TestArtifactsRefused(t *testing.T) {
	type change func(t *testing.T, m *machine.Machine, u *state.Unit)
	recorded := func(do func(recovery, main *layout.Table)) change {
		return func(_ *testing.T, _ *machine.Machine, u *state.Unit) { do(&u.Recovery.Table, &u.Main[0].Table) }
	}
	const uefi, bios = layout.UEFI, layout.BIOS
	for name, c := range map[string]struct {
		fw     layout.Firmware
		main   bool // the artifact of the main disk
		want   error
		change change
	}{
		"no recovery partition":      {uefi, false, fault.RecoveryDamaged, recorded(func(r, _ *layout.Table) { r.Partitions = nil })},
		"another recovery partition": {uefi, false, fault.NoRecovery, recorded(func(r, _ *layout.Table) { r.Find(layout.Recovery).UUID = "x" })},
		"another kind of table":      {uefi, false, fault.RecoveryDamaged, recorded(func(r, _ *layout.Table) { r.Kind = layout.MBR })},
		"another ESP":                {uefi, false, fault.RecoveryDamaged, recorded(func(r, _ *layout.Table) { r.Find(layout.ESP).Start++ })},
		"no main system":             {bios, false, fault.RecoveryDamaged, recorded(func(_, m *layout.Table) { m.Partitions = nil })},
		"a link": {uefi, false, nil, func(t *testing.T, m *machine.Machine, _ *state.Unit) {
			file := filepath.Join(m.Places.Recovery, "norm_boot")
			if err := errors.Join(os.Rename(file, file+"2"), os.Symlink(file+"2", file)); err != nil {
				t.Fatal(err)
			}
		}},
		"main: no boot loader": {bios, true, machine.ErrNoGRUB, func(t *testing.T, m *machine.Machine, _ *state.Unit) {
			m.Initramfs = t.TempDir()
		}},
		"main: no artifact": {bios, true, nil, func(t *testing.T, m *machine.Machine, _ *state.Unit) {
			if err := os.WriteFile(filepath.Join(m.Places.Main, "boot/norm_boot"), []byte("no kernel"), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		"main: no ESP":    {uefi, true, fault.RecoveryDamaged, recorded(func(_, m *layout.Table) { m.Find(layout.ESP).Role = layout.Other })},
		"main: no system": {uefi, true, fault.RecoveryDamaged, recorded(func(_, m *layout.Table) { m.Partitions = nil })},
		"main: one more": {uefi, true, fault.RecoveryDamaged, func(_ *testing.T, _ *machine.Machine, u *state.Unit) {
			u.Main = append(u.Main, u.Main[0])
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r, m, u, disks := restored(t, machinetest.Kind{Firmware: c.fw})
			for _, d := range []*state.Disk{&u.Recovery, &u.Main[0]} {
				d.Table.Partitions = slices.Clone(d.Table.Partitions)
			}
			c.change(t, m, &u)
			before := len(r.Calls())
			var err error
			if c.main {
				err = m.PutMainArtifact(u, disks, m.Places.Main)
			} else {
				err = m.PutRecoveryArtifact(u, m.Places.Recovery)
			}
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if w := writes(r, before); len(w) > 0 {
				t.Errorf("written is %q", w)
			}
		})
	}
}

// TestTwoRecoveries: with two recovery devices, nobody guesses which is the unit's.
func TestTwoRecoveries(t *testing.T) {
	r := machinetest.NewUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	m := machinetest.Machine(r)
	u := machinetest.Provision(r, m)
	copied := r.AddDisk(block.Disk{Name: "vdz", Bus: block.VirtIO, Serial: "COPY", Size: machinetest.RecoverySize})
	if err := m.WriteTable(copied, u.Recovery.Table); err != nil {
		t.Fatal(err)
	}
	if d, err := m.RecoveryDisk(u); !errors.Is(err, fault.RecoveryAmbiguous) {
		t.Errorf("got %+v, %v", d, err)
	}
}

// TestEntries: the firmware starts each main disk, then the recovery. Its menu has a forced restore if the policy
// allows it. Correct entries are not written again.
func TestEntries(t *testing.T) {
	disk, mirror := machinetest.Kind{Firmware: layout.UEFI}, machinetest.Kind{Firmware: layout.UEFI, Mirror: true}
	const normal, recovery, forced, erase = machine.NormalEntry, machine.RecoveryEntry, machine.ForcedEntry, machine.EraseEntry
	for name, c := range map[string]struct {
		kind   machinetest.Kind
		policy string
		locked bool
		want   []string // sorted
	}{
		"a disk":            {disk, "", false, []string{erase, forced, normal, recovery}},
		"no forced restore": {disk, policy.ForcedRestoreNever, false, []string{normal, recovery}},
		"locked":            {disk, "", true, []string{forced, normal, recovery}},
		"a mirror":          {mirror, "", false, []string{erase, forced, normal, normal + " (disk 2)", recovery}},
	} {
		t.Run(name, func(t *testing.T) {
			r := machinetest.NewUnit(t, c.kind)
			m := machinetest.Machine(r)
			u := machinetest.Provision(r, m)
			m.Policy.ForcedRestore, m.Policy.Locked = policy.ForcedRestoreUnattended, c.locked
			if _, err := m.EnsureEntries(m.Vars, u); err != nil {
				t.Fatal(err)
			}
			m.Policy.ForcedRestore = c.policy
			if _, err := m.EnsureEntries(m.Vars, u); err != nil {
				t.Fatal(err)
			}
			entries, err := m.Vars.Entries()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range entries {
				got = append(got, e.Description)
				if args := strings.ReplaceAll(string(e.Optional), "\x00", ""); strings.Contains(args, policy.EraseArg) != (e.Description == erase) {
					t.Errorf("%s has the arguments %q", e.Description, args)
				}
				if hd, ok := e.HardDrive(); !ok || hd.Signature == [16]byte{} {
					t.Errorf("%s starts from no partition", e.Description)
				}
			}
			if slices.Sort(got); !slices.Equal(got, c.want) {
				t.Errorf("entries %q, want %q", got, c.want)
			}
			if change, err := m.EnsureEntries(m.Vars, u); err != nil || !change.Empty() {
				t.Errorf("written again: %+v, %v", change, err)
			}
			u.Main[0].Table.Partitions, u.Array = nil, nil
			if _, err := m.EnsureEntries(m.Vars, u); !errors.Is(err, fault.RecoveryDamaged) {
				t.Errorf("a record without a main system: %v", err)
			}
		})
	}
}

// TestForcedArg: a choice in a boot menu reaches init only if the policy allows it.
func TestForcedArg(t *testing.T) {
	const asks, never, unattended = policy.ForcedRestoreAsks, policy.ForcedRestoreNever, policy.ForcedRestoreUnattended
	for want, all := range map[string][]policy.Policy{
		policy.ForcedRestoreArg: {{}, {ForcedRestore: asks}, {ForcedRestore: unattended}},
		"":                      {{ForcedRestore: never}, {Locked: true}, {Locked: true, ForcedRestore: unattended}},
	} {
		for _, p := range all {
			if got := (&machine.Machine{Policy: p}).ForcedArg(); got != want {
				t.Errorf("%+v: %q", p, got)
			}
		}
	}
}

// TestArrays: an array that runs with the right members is left alone, any other is stopped. The data array never
// keeps running.
func TestArrays(t *testing.T) {
	r, m, u, disks := restored(t, machinetest.Kind{Firmware: layout.UEFI, Mirror: true, Data: true})
	if err := m.UnmountAll(); err != nil {
		t.Fatal(err)
	}
	members, err := m.Members()
	if err != nil || len(members) != 2 {
		t.Fatalf("members %+v, %v", members, err)
	}
	a := raid.Find(members, u.Array.UUID)
	starts := func(do func() error) (n int) {
		before := len(r.Calls())
		if err := do(); err != nil {
			t.Error(err)
		}
		for _, c := range r.Calls()[before:] {
			if strings.Contains(c, "mdadm --assemble") || strings.Contains(c, "mdadm --stop") {
				n++
			}
		}
		return n
	}
	half := a
	half.Parts = half.Parts[:1]
	start := func(a raid.Array) func() error { return func() error { return m.StartArray(t.Context(), a) } }
	for _, c := range []struct {
		what string
		do   func() error
		want int
	}{
		{"runs already", start(a), 0},
		{"another set of members", start(half), 2},
		{"the same again", start(half), 0},
		{"stop", func() error { return m.StopArray(t.Context()) }, 1},
		{"stop what does not run", func() error { return m.StopArray(t.Context()) }, 0},
		{"start", start(a), 1},
	} {
		if got := starts(c.do); got != c.want {
			t.Errorf("%s: mdadm starts or stops %d times, want %d", c.what, got, c.want)
		}
	}
	if err := m.StopArray(t.Context()); err != nil {
		t.Fatal(err)
	}
	var places []string
	for i, d := range disks {
		places = append(places, block.PartitionPath(d, u.Main[i].Table.Find(layout.DataMember).Number))
	}
	if err := m.CreateDataArray(t.Context(), *u.DataArray, places); err != nil {
		t.Fatal(err)
	}
	if members, err = m.Members(); err != nil || len(members) != 4 {
		t.Fatalf("members %+v, %v", members, err)
	}
	info, blank, err := m.ProbeDataArray(t.Context(), raid.Find(members, u.DataArray.UUID))
	if err != nil || blank || info.Type != "ext4" || info.UUID != u.DataArray.FSUUID {
		t.Errorf("the array of the data carries %+v, blank %t, %v", info, blank, err)
	}
	if err := m.ClearPartition(places[0]); err != nil {
		t.Errorf("a member is in use, so the array of the data runs: %v", err)
	}
}

// TestCarries: the log of a plan says what a disk carries. Array members come first.
func TestCarries(t *testing.T) {
	r := machinetest.NewUnit(t, machinetest.Kind{Firmware: layout.UEFI, Mirror: true})
	m := machinetest.Machine(r)
	u := machinetest.Provision(r, m)
	disks := at(t, m)
	if err := m.WriteTable(disks["vdb"], u.Main[0].Table); err != nil {
		t.Fatal(err)
	}
	member := block.PartitionPath(disks["vdb"], u.Main[0].Table.Find(layout.Member).Number)
	if err := m.CreateArray(t.Context(), *u.Array, []string{member, disks["vdc"]}); err != nil {
		t.Fatal(err)
	}
	for disk, want := range map[string]string{
		"sda": "nothing", "vda": "gpt", "vdb": "partition 2: member of the RAID 1 array", "vdc": "member of the RAID 1 array",
	} {
		if got, err := m.Carries(disks[disk]); err != nil || !strings.Contains(got, want) {
			t.Errorf("%s carries %q, %v, want %q", disk, got, err, want)
		}
	}
}

// TestReadBuild: the build record of the boot artifact is read.
func TestReadBuild(t *testing.T) {
	dir := t.TempDir()
	if _, err := machine.ReadBuild(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the file: %v", err)
	}
	file := filepath.Join(dir, bootimage.BuildPath)
	for text, want := range map[string]uint64{`{"build":7,"kernel":"6.1"}`: 7, `{"build":-1}`: 0, ``: 0} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		if b, err := machine.ReadBuild(dir); b.Number != want || (err == nil) != (want > 0) {
			t.Errorf("%q gives %+v, %v", text, b, err)
		}
	}
}

// TestTrack: the observer of a step gets its progress, including the last.
func TestTrack(t *testing.T) {
	var last step.Progress
	m := &machine.Machine{Panel: panel.New()}
	err := step.Run(t.Context(), []step.Step{{Name: "long", Run: func(ctx context.Context) error {
		meter, end := m.Track(ctx, 10)
		meter.Set(7)
		end()
		return nil
	}}}, func(e step.Event) {
		if e.State == step.Moved {
			last = e.Progress
		}
	})
	if err != nil || last != (step.Progress{Done: 7, Total: 10}) {
		t.Errorf("told was %+v, %v", last, err)
	}
}
