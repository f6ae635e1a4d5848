package survey

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/efi"
	"gprovision/hw/usb"
	"gprovision/model/layout"
	"gprovision/unit/decide"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
)

// bench is a complete unit on a machine in memory, after some change. A survey looks at all of it.
type bench struct {
	*machinetest.Rig
	t   *testing.T
	rec state.Unit
	m   *machine.Machine
	s   *Survey
	// fault returns the error for a call of the survey, by the call's name.
	fault func(call string) error
}

func newBench(t *testing.T, k machinetest.Kind) *bench {
	t.Helper()
	r := machinetest.NewUnit(t, k)
	m := machinetest.Machine(r)
	rec := machinetest.Provision(r, m)
	machinetest.Complete(r, m, rec)
	return onRig(t, r, rec)
}

// clone returns a copy of the unit for a test that changes it.
func (b *bench) clone(t *testing.T) *bench {
	t.Helper()
	return onRig(t, b.Clone(t), b.rec)
}

func onRig(t *testing.T, r *machinetest.Rig, rec state.Unit) *bench {
	b := &bench{Rig: r, t: t, rec: rec, m: machinetest.Machine(r), fault: func(string) error { return nil }}
	b.s = &Survey{Eyes: machine.EyesOf(b.m), Names: b.m.Site.Names,
		Memory: Memory{Since: time.Now().Add(-time.Hour)}}
	return b
}

// look surveys the machine. No survey may write anything.
func (b *bench) look() *Findings {
	b.t.Helper()
	stays := false
	b.Start(func(_ int, call string) error {
		word, _, _ := strings.Cut(call, " ")
		if slices.Contains([]string{"write", "discard", "sync", "mdadm", "read-only"}, word) || strings.HasSuffix(call, "writable") ||
			word == "open" && !strings.HasSuffix(call, " 0") {
			b.t.Errorf("a survey writes: %s", call)
			return syscall.EROFS
		}
		err := b.fault(call)
		stays = stays || word == "unmount" && err != nil
		return err
	})
	f := b.s.Look(b.t.Context())
	for _, dir := range []string{b.m.Places.Recovery, b.m.Places.Main} {
		if on, err := b.m.Mounted(dir); on && !stays || err != nil {
			b.t.Errorf("after a survey %s is mounted: %v", dir, err)
		}
	}
	if _, err := os.Stat(filepath.Join(b.m.Places.Sysfs, "block/md0")); err == nil { // an array is running
		how, err := os.ReadFile(filepath.Join(b.m.Places.Sysfs, "module/md_mod/parameters/start_ro"))
		if string(how) != "1" {
			b.t.Errorf("an array is assembled so that its members are written to: %q, %v", how, err)
		}
	}
	return f
}

// at returns the device node of a disk, or of the partition with a role in the record, such as "vda" or "vda
// recovery".
func (b *bench) at(where string) string {
	b.t.Helper()
	name, role, _ := strings.Cut(where, " ")
	disks, err := b.m.Disks()
	if err != nil {
		b.t.Fatal(err)
	}
	i := slices.IndexFunc(disks, func(d block.Disk) bool { return d.Name == name })
	if role == "" {
		return disks[i].Path
	}
	table := map[string]state.Disk{
		"vda": b.rec.Recovery, "vdx": b.rec.Recovery, "vdb": b.rec.Main[0], "vdc": b.rec.Main[len(b.rec.Main)-1],
	}[name].Table
	return block.PartitionPath(disks[i].Path, table.Find(layout.Role(role)).Number)
}

// noted changes a superblock as if the kernel had recorded errors in the filesystem.
func noted(sb []byte) { sb[0x3a] |= 2 }

// scribble writes to a device.
func (b *bench) scribble(where string, off int64, content []byte) {
	b.t.Helper()
	dev, err := b.m.Open(b.at(where), machine.Write)
	if err == nil {
		_, err = dev.WriteAt(content, off)
		err = errors.Join(err, dev.Close())
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// super changes the superblock of an ext4 filesystem, which stays valid, and writes it to an offset of the device.
func (b *bench) super(where string, off int64, change func(sb []byte)) {
	b.t.Helper()
	sb := make([]byte, 1024)
	dev, err := b.m.Open(b.at(where), machine.Read)
	if err == nil {
		_, err = dev.ReadAt(sb, 1024)
		err = errors.Join(err, dev.Close())
	}
	if err != nil {
		b.t.Fatal(err)
	}
	change(sb)
	binary.LittleEndian.PutUint32(sb[0x3fc:], ^crc32.Checksum(sb[:0x3fc], crc32.MakeTable(crc32.Castagnoli)))
	b.scribble(where, off, sb)
}

// dirty changes a superblock so that the journal must be replayed.
func dirty(sb []byte) { sb[0x60] |= 4 }

func label(l string) func(sb []byte) {
	return func(sb []byte) { copy(sb[0x78:0x88], append([]byte(l), make([]byte, 16)...)) }
}

// loseSuper destroys the first superblock of an ext4 filesystem. The backup that a repair would use stays valid.
func (b *bench) loseSuper(where string) {
	b.t.Helper()
	b.super(where, 32768*4096, func(sb []byte) { sb[0x5a] = 1 })
	b.scribble(where, 1024, make([]byte, 1024))
}

// volume returns the content of the recovery volume, and root that of the main system. Neither passes a door.
func (b *bench) volume() *state.Volume {
	b.t.Helper()
	dir := b.Volume(b.rec.Recovery.Table.Find(layout.Recovery).FSUUID)
	if dir == "" {
		b.t.Fatal("no disk carries the recovery volume")
	}
	return state.Open(dir)
}

func (b *bench) root() string { return b.Volume(b.rec.System().FSUUID) }

// record rewrites the unit's record with a change.
func (b *bench) record(change func(u *state.Unit)) {
	b.t.Helper()
	u, err := b.volume().ReadUnit()
	if err != nil {
		b.t.Fatal(err)
	}
	change(&u)
	if err := b.volume().WriteUnit(u); err != nil {
		b.t.Fatal(err)
	}
}

// copyDisk adds a copy of the recovery device: its table, and the starts of its filesystems.
func (b *bench) copyDisk(to string) {
	b.t.Helper()
	from, err := b.m.Open(b.at("vda"), machine.Read)
	if err != nil {
		b.t.Fatal(err)
	}
	defer from.Close()
	path := b.AddDisk(block.Disk{Name: to, Bus: block.VirtIO, Serial: "COPY", Size: from.Size()})
	dev, err := b.m.Open(path, machine.Write)
	if err != nil {
		b.t.Fatal(err)
	}
	places := []int64{0, from.Size() - layout.MiB}
	for _, p := range b.rec.Recovery.Table.Partitions {
		places = append(places, p.Start)
	}
	part := make([]byte, layout.MiB)
	for _, off := range places {
		_, rerr := from.ReadAt(part, off)
		_, werr := dev.WriteAt(part, off)
		err = errors.Join(err, rerr, werr)
	}
	if err := errors.Join(err, dev.RereadTable(), dev.Close()); err != nil {
		b.t.Fatal(err)
	}
}

// fail makes each call whose name starts so return an input error.
func (b *bench) fail(begin string) {
	b.fault = func(call string) error {
		if strings.HasPrefix(call, begin) {
			return syscall.EIO
		}
		return nil
	}
}

func (b *bench) write(path string, content string) {
	b.t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// TestRecoveryVolume: what counts as the unit's recovery volume, what as a damaged one, and what is left alone. It
// also checks what the unit would do then. Nothing here leads to a restore.
func TestRecoveryVolume(t *testing.T) {
	start := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	const found, missing, damaged = decide.RecoveryFound, decide.RecoveryMissing, decide.RecoveryDamaged
	for name, c := range map[string]struct {
		change func(b *bench)
		want   decide.RecoveryState
		repair bool // a repair is possible
		job    decide.Job
		note   string
	}{
		"whole": {func(*bench) {}, found, false, decide.Boot, ""},
		"of another unit": {func(b *bench) {
			b.record(func(u *state.Unit) { u.Serial = "SN-0002" })
			b.Remove("vdb")
		}, missing, false, decide.Hold, "its serial number"},
		"of another unit, of which the main disk is not": {func(b *bench) {
			b.record(func(u *state.Unit) {
				u.Serial = "SN-0002"
				u.Main[0].Table.Find(layout.Primary).UUID = machine.NewIDs().UUID()
				u.Main[0].Serial = "OTHER"
			})
		}, missing, false, decide.Hold, "does not belong to the main disk"},
		"with another mainboard": {func(b *bench) { b.record(func(u *state.Unit) { u.Serial = "SN-0002" }) }, decide.RecoveryOtherBoard, false,
			decide.Boot, `"SN-0002", and the machine has "`},
		"with another mainboard, and no mark": {func(b *bench) {
			b.record(func(u *state.Unit) { u.Serial = "SN-0002" })
			b.unmark()
		}, decide.RecoveryOtherBoard, false, decide.Hold, "its serial number"},
		"with another mainboard, and a damaged main system": {func(b *bench) {
			b.record(func(u *state.Unit) { u.Serial = "SN-0002" })
			b.super("vdb primary", 1024, noted)
		}, decide.RecoveryOtherBoard, false, decide.Hold, "its serial number"},
		"with a mainboard that was adopted": {func(b *bench) {
			b.record(func(u *state.Unit) { u.Serial = "SN-0002" })
			if err := errors.Join(state.AddBoard(b.volume(), "X"), state.AddBoard(b.volume(), machinetest.Serial)); err != nil {
				b.t.Fatal(err)
			}
		}, found, false, decide.Boot, ""},
		"with another mainboard than the adopted one": {func(b *bench) {
			b.record(func(u *state.Unit) { u.Serial = "SN-0002" })
			if err := state.AddBoard(b.volume(), "X"); err != nil {
				b.t.Fatal(err)
			}
		}, decide.RecoveryOtherBoard, false, decide.Boot, "its serial number"},
		"with another mainboard, and nobody knows which were adopted": {func(b *bench) {
			b.record(func(u *state.Unit) { u.Serial = "SN-0002" })
			b.write(b.volume().Path(state.BoardsFile), "{")
		}, decide.RecoveryOtherBoard, false, decide.Boot, "not known"},
		"with another mainboard, and another label": {func(b *bench) {
			b.record(func(u *state.Unit) { u.Serial = "SN-0002" })
			b.super("vda recovery", 1024, label("OLDNAME"))
		}, decide.RecoveryOtherBoard, false, decide.Boot, "its serial number"},
		"two with another mainboard": {func(b *bench) {
			b.record(func(u *state.Unit) { u.Serial = "SN-0002" })
			b.copyDisk("vdx")
		}, missing, false, decide.Hold, "its serial number"},
		"provisioned for other firmware": {func(b *bench) { b.m.Firmware = layout.BIOS }, decide.RecoveryOtherFirmware, false, decide.Boot,
			"provisioned for uefi, and the machine started with bios"},
		"provisioned for other firmware, and no mark": {func(b *bench) {
			b.m.Firmware = layout.BIOS
			b.unmark()
		}, decide.RecoveryOtherFirmware, false, decide.Hold, "provisioned for uefi"},
		"with another mainboard and other firmware": {func(b *bench) {
			b.record(func(u *state.Unit) { u.Serial = "SN-0002" })
			b.m.Firmware = layout.BIOS
			b.unmark()
		}, decide.RecoveryOtherFirmware, false, decide.Hold, "provisioned for uefi"},
		"its record names another partition": {func(b *bench) {
			b.record(func(u *state.Unit) {
				u.Recovery.Table.Partitions = slices.Clone(u.Recovery.Table.Partitions)
				u.Recovery.Table.Find(layout.Recovery).FSUUID = machine.NewIDs().UUID()
			})
		}, missing, false, decide.Hold, "names another partition"},
		"never provisioned to the end": {func(b *bench) {
			if err := os.Remove(b.volume().Path(state.UnitFile)); err != nil {
				b.t.Fatal(err)
			}
		}, missing, false, decide.Hold, "it has no record"},
		"its record lost its name": {func(b *bench) {
			v := b.volume()
			if err := errors.Join(os.Mkdir(v.Path("lost+found"), 0o700), os.Rename(v.Path(state.UnitFile), v.Path("lost+found/#12"))); err != nil {
				b.t.Fatal(err)
			}
		}, damaged, true, decide.RepairRecovery, "found without a name"},
		"its record is cut off": {func(b *bench) { b.write(b.volume().Path(state.UnitFile), `{"version":1,"ser`) }, damaged, true,
			decide.RepairRecovery, "cannot be read"},
		"its record is of a newer init": {func(b *bench) {
			b.write(b.volume().Path(state.UnitFile), fmt.Sprintf(`{"version":%d}`, state.Version+1))
		}, decide.RecoveryNewer, false, decide.Hold, ""},
		"with another label": {func(b *bench) { b.super("vda recovery", 1024, label("OLDNAME")) }, found, false, decide.Boot, "OLDNAME"},
		"with another label, of a newer init": {func(b *bench) {
			b.super("vda recovery", 1024, label("OLDNAME"))
			b.write(b.volume().Path(state.UnitFile), fmt.Sprintf(`{"version":%d}`, state.Version+1))
		}, decide.RecoveryNewer, false, decide.Hold, ""},
		"with another label, of another unit": {func(b *bench) {
			b.record(func(u *state.Unit) { u.Serial = "SN-0002" })
			b.super("vda recovery", 1024, label("OLDNAME"))
			b.Remove("vdb")
		}, missing, false, decide.Hold, ""},
		"two of them":        {func(b *bench) { b.copyDisk("vdx") }, decide.RecoveryAmbiguous, false, decide.Hold, "vdx"},
		"superblock is lost": {func(b *bench) { b.loseSuper("vda recovery") }, damaged, true, decide.RepairRecovery, "superblock"},
		"superblock is lost, and a watchdog ended the boot before": {func(b *bench) {
			b.loseSuper("vda recovery")
			b.s.Memory.Expired = true
		}, damaged, false, decide.Hold, "a watchdog ended"},
		"superblock is lost, repaired in this boot": {func(b *bench) {
			b.loseSuper("vda recovery")
			b.s.Memory.RecoveryRepairs = 1
		}, damaged, true, decide.Hold, ""},
		"two that are lost: nobody knows which one": {func(b *bench) {
			b.copyDisk("vdx")
			b.loseSuper("vda recovery")
			b.loseSuper("vdx recovery")
		}, damaged, false, decide.Hold, "none is repaired"},
		"one that is lost beside a whole one": {func(b *bench) {
			b.copyDisk("vdx")
			b.loseSuper("vdx recovery")
		}, found, false, decide.Boot, ""},
		"superblock is lost, in a partition with another name": {func(b *bench) {
			table := b.rec.Recovery.Table
			table.Partitions = slices.Clone(table.Partitions)
			table.Find(layout.Recovery).Name = "PHOTOS"
			if err := b.m.WriteTable(b.at("vda"), table, layout.ESP, layout.Recovery); err != nil {
				b.t.Fatal(err)
			}
			b.loseSuper("vda recovery")
		}, missing, false, decide.Hold, ""},
		"superblock is lost, with the label that the artifact's names replaced": {func(b *bench) {
			b.loseSuper("vda recovery")
			b.s.SiteLabel, b.s.Names.Recovery = b.s.Names.Recovery, "NEWNAME"
		}, damaged, true, decide.RepairRecovery, "superblock"},
		"it cannot be mounted":         {func(b *bench) { b.fail("mount /dev/vda") }, damaged, true, decide.RepairRecovery, "cannot be read"},
		"its partition cannot be read": {func(b *bench) { b.fail("open /dev/vda2") }, missing, false, decide.Hold, "cannot be read"},
		"its disk cannot be read":      {func(b *bench) { b.fail("open /dev/vda ") }, missing, false, decide.Hold, ""},
		"its disk is gone":             {func(b *bench) { b.Remove("vda") }, missing, false, decide.Hold, ""},
		"disks cannot be listed":       {func(b *bench) { b.fail("list disks") }, missing, false, decide.Hold, "input/output error"},
		"the kernel has noted errors":  {func(b *bench) { b.super("vda recovery", 1024, noted) }, found, false, decide.RepairRecovery, ""},
		"first copy of its table damaged": {func(b *bench) { b.scribble("vda", 512, make([]byte, 512)) }, found, false, decide.RepairTable,
			"the first copy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start.clone(t)
			c.change(b)
			f := b.look()
			d := decide.Decide(f.Facts, b.m.Policy)
			if f.Recovery != c.want || f.RecoveryRepairable != c.repair || len(f.Replay) > 0 || d.Job != c.job {
				t.Errorf("found %s, to be repaired %t, %q; %s; notes %q", f.Recovery, f.RecoveryRepairable, f.Replay, d, f.Notes)
			}
			if c.want == found && (f.RecoveryPart == nil || f.RecoveryPart.Path != b.at("vda recovery") ||
				!strings.HasPrefix(f.Unit.Serial, "SN-000")) {
				t.Errorf("found is %+v of %q", f.RecoveryPart, f.Unit.Serial)
			}
			if c.repair && (f.RecoveryPart == nil || f.RecoveryPart.Path != b.at("vda recovery")) {
				t.Errorf("to be repaired is %+v", f.RecoveryPart)
			}
			if !strings.Contains(strings.Join(f.Notes, "\n"), c.note) {
				t.Errorf("notes %q", f.Notes)
			}
		})
	}
}

// TestReplay: a journal to replay comes before everything else, because the mark and the record may differ after the
// replay. A filesystem whose journal cannot be replayed counts as damaged, and never as one without a mark.
func TestReplay(t *testing.T) {
	start := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	for name, c := range map[string]struct {
		where    string
		change   func(b *bench)
		replay   bool
		recovery decide.RecoveryState
		main     decide.MainState
	}{
		"recovery volume":                    {"vda recovery", func(*bench) {}, true, "", ""},
		"recovery volume with another label": {"vda recovery", func(b *bench) { b.super("vda recovery", 1024, label("OLDNAME")) }, true, "", ""},
		"another's volume": {"vda recovery", func(b *bench) {
			b.record(func(u *state.Unit) { u.Serial = "SN-0002" })
			b.super("vda recovery", 1024, label("OLDNAME"))
		}, false, decide.RecoveryOtherBoard, decide.MainMarked},
		"main system":              {"vdb primary", func(*bench) {}, true, "", ""},
		"main system without mark": {"vdb primary", func(b *bench) { b.unmark() }, true, "", ""},
		"recovery volume, it cannot be replayed": {"vda recovery", func(b *bench) {
			b.s.Memory.Replayed = map[string]error{b.at("vda recovery"): syscall.EIO}
		}, false, decide.RecoveryDamaged, ""},
		"main system, it cannot be replayed": {"vdb primary", func(b *bench) {
			b.unmark()
			b.s.Memory.Replayed = map[string]error{b.at("vdb primary"): syscall.EIO}
		}, false, decide.RecoveryFound, decide.MainDamaged},
		"main system, replayed and no other": {"vdb primary", func(b *bench) {
			b.unmark()
			b.s.Memory.Replayed = map[string]error{b.at("vdb primary"): nil}
		}, false, decide.RecoveryFound, decide.MainDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start.clone(t)
			c.change(b)
			b.super(c.where, 1024, dirty)
			f := b.look()
			if (len(f.Replay) > 0) != c.replay || c.replay && !slices.Equal(f.Replay, []string{b.at(c.where)}) {
				t.Errorf("to be replayed is %q; notes %q", f.Replay, f.Notes)
			}
			if c.replay { // nothing else counts, but at least no destructive job may follow
				if d := decide.Decide(f.Facts, b.m.Policy); d.Job == decide.Restore {
					t.Errorf("%s", d)
				}
				return
			}
			if f.Recovery != c.recovery || c.main != "" && f.Main != c.main {
				t.Errorf("found %s and %s; notes %q", f.Recovery, f.Main, f.Notes)
			}
		})
	}
}

// TestAnyLookFails: whichever look at a complete unit fails, nothing destructive follows.
func TestAnyLookFails(t *testing.T) {
	for _, k := range []machinetest.Kind{
		{Firmware: layout.UEFI}, {Firmware: layout.UEFI, Mirror: true}, {Firmware: layout.BIOS, OneDisk: true},
	} {
		b := newBench(t, k)
		for n := 1; ; n++ {
			calls, failed := 0, ""
			b.fault = func(call string) error {
				if calls++; calls == n {
					failed = call
					return syscall.EIO
				}
				return nil
			}
			f := b.look()
			if failed == "" {
				if d := decide.Decide(f.Facts, b.m.Policy); d.Job != decide.Boot || n < 20 {
					t.Errorf("of %d looks none fails: %s", n, d)
				}
				break
			}
			switch d := decide.Decide(f.Facts, b.m.Policy); d.Job {
			case decide.Boot, decide.Hold, decide.Repair, decide.RepairRecovery:
			default:
				t.Errorf("%s fails: %s; notes %q", failed, d, f.Notes)
			}
		}
	}
}

// unmark removes the mark of the main system.
func (b *bench) unmark() {
	b.t.Helper()
	if err := os.Remove(filepath.Join(b.root(), b.m.Site.Names.Mark)); err != nil {
		b.t.Fatal(err)
	}
}

// TestMainSystem: what counts as a complete main system, what as one to restore, and what a person has to look at.
func TestMainSystem(t *testing.T) {
	start := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	mark := func(b *bench) string { return filepath.Join(b.root(), b.m.Site.Names.Mark) }
	for name, c := range map[string]struct {
		change   func(b *bench)
		want     decide.MainState
		recorded bool
		job      decide.Job
	}{
		"whole":           {func(*bench) {}, decide.MainMarked, true, decide.Boot},
		"no mark":         {(*bench).unmark, decide.MainUnmarked, true, decide.Restore},
		"an empty mark":   {func(b *bench) { b.write(mark(b), "") }, decide.MainMarked, true, decide.Boot},
		"a damaged mark":  {func(b *bench) { b.write(mark(b), `{"version":1,"rel`) }, decide.MainDamaged, true, decide.Repair},
		"a mark of zeros": {func(b *bench) { b.write(mark(b), "\x00\x00\x00") }, decide.MainDamaged, true, decide.Repair},
		"a mark that is a directory": {func(b *bench) {
			b.unmark()
			if err := os.Mkdir(mark(b), 0o700); err != nil {
				b.t.Fatal(err)
			}
		}, decide.MainDamaged, true, decide.Repair},
		"a mark that leads elsewhere": {func(b *bench) {
			b.unmark()
			if err := os.Symlink("boot/norm_boot", mark(b)); err != nil {
				b.t.Fatal(err)
			}
		}, decide.MainDamaged, true, decide.Repair},
		"it cannot be mounted":        {func(b *bench) { b.fail("mount /dev/vdb") }, decide.MainDamaged, true, decide.Repair},
		"it cannot be read":           {func(b *bench) { b.fail("open /dev/vdb2") }, decide.MainDamaged, true, decide.Repair},
		"the kernel has noted errors": {func(b *bench) { b.super("vdb primary", 1024, noted) }, decide.MainDamaged, true, decide.Repair},
		"its superblock is gone": {func(b *bench) { b.scribble("vdb primary", 0, make([]byte, 65536)) }, decide.MainDamaged, true,
			decide.Repair},
		"somebody's data in its place": {func(b *bench) {
			b.scribble("vdb primary", 0, append([]byte("LUKS\xba\xbe\x00\x01"), make([]byte, 65536)...))
		}, decide.MainForeign, true, decide.Hold},
		"two of them": {func(b *bench) {
			b.AddDisk(block.Disk{Name: "vdx", Bus: block.VirtIO, Serial: "COPY", Size: 2 * machinetest.MainSize}) // not in the plan
			if err := b.m.WriteTable(b.at("vdx"), b.rec.Main[0].Table); err != nil {
				b.t.Fatal(err)
			}
		}, decide.MainAmbiguous, false, decide.Hold},
		"its disk is gone":        {func(b *bench) { b.Remove("vdb") }, decide.MainAbsent, false, decide.Hold},
		"its disk cannot be read": {func(b *bench) { b.fail("open /dev/vdb ") }, decide.MainAbsent, false, decide.Hold},
		"its disk is blank":       {func(b *bench) { b.Replace("vdb", "MAIN") }, decide.MainBlank, true, decide.Restore},
		"another blank disk":      {func(b *bench) { b.Replace("vdb", "NEW") }, decide.MainBlank, false, decide.Restore},
		"another disk, with data": {func(b *bench) {
			b.Replace("vdb", "NEW")
			b.scribble("vdb", 0, bytes.Repeat([]byte{0x5a}, 4096))
		}, decide.MainForeign, false, decide.Hold},
		"its disk, with somebody's data and no table": {func(b *bench) {
			b.Replace("vdb", "MAIN")
			b.scribble("vdb", 0, append([]byte("LUKS\xba\xbe\x00\x01"), make([]byte, 504)...))
		}, decide.MainForeign, true, decide.Hold},
		"a restore was cut off within the table": {func(b *bench) {
			b.Replace("vdb", "MAIN")
			if err := b.m.WriteTable(b.at("vdb"), b.rec.Main[0].Table); err != nil {
				b.t.Fatal(err)
			}
			b.scribble("vdb", 1024, make([]byte, 32*512)) // the entries
			b.scribble("vdb", machinetest.MainSize-33*512, make([]byte, 33*512))
		}, decide.MainBegun, true, decide.Hold},
		"another blank disk beside it": {func(b *bench) {
			b.Remove("vdb")
			b.AddDisk(block.Disk{Name: "vdx", Bus: block.VirtIO, Serial: "X", Size: machinetest.MainSize})
			b.AddDisk(block.Disk{Name: "vdy", Bus: block.VirtIO, Serial: "Y", Size: machinetest.MainSize})
		}, decide.MainAmbiguous, false, decide.Hold},
		"the first copy of its table damaged": {func(b *bench) { b.scribble("vdb", 512, make([]byte, 512)) }, decide.MainMarked, true,
			decide.RepairTable},
		"the same, tried before": {func(b *bench) {
			b.scribble("vdb", 512, make([]byte, 512))
			b.s.Memory.TablesTried = true
		}, decide.MainMarked, true, decide.Boot},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start.clone(t)
			c.change(b)
			f := b.look()
			d := decide.Decide(f.Facts, b.m.Policy)
			if f.Recovery != decide.RecoveryFound || f.Main != c.want || f.Recorded != c.recorded || d.Job != c.job {
				t.Errorf("found %s and %s, recorded %t; %s; notes %q", f.Recovery, f.Main, f.Recorded, d, f.Notes)
			}
			if f.Main == decide.MainMarked && name == "whole" && f.Mark.Release != machinetest.Original {
				t.Errorf("its mark says %+v", f.Mark)
			}
			if unreadable := name == "it cannot be read"; f.Unreadable != unreadable {
				t.Errorf("it cannot be read at all: %t", f.Unreadable)
			}
		})
	}
}

// TestRootWithoutVolume: without a recovery volume, the boot entry names the partition of the main system. If it
// names none, nothing is started.
func TestRootWithoutVolume(t *testing.T) {
	start := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	for name, c := range map[string]struct {
		root func(u state.Unit) string
		want decide.MainState
	}{
		"by the partition":  {func(u state.Unit) string { return "PARTUUID=" + u.System().UUID }, decide.MainMarked},
		"by its name":       {func(u state.Unit) string { return "PARTLABEL=" + u.System().Name }, decide.MainMarked},
		"by the filesystem": {func(u state.Unit) string { return "UUID=" + strings.ToUpper(u.System().FSUUID) }, decide.MainMarked},
		"by its label":      {func(u state.Unit) string { return "LABEL=" + u.System().FSLabel }, decide.MainMarked},
		"another partition": {func(state.Unit) string { return "PARTUUID=" + machine.NewIDs().UUID() }, decide.MainForeign},
		"not at all":        {func(state.Unit) string { return "" }, decide.MainForeign},
	} {
		t.Run(name, func(t *testing.T) {
			b := start.clone(t)
			b.Remove("vda")
			b.s.Args = decide.ParseArgs("real_root="+c.root(b.rec), false)
			f := b.look()
			if f.Recovery != decide.RecoveryMissing || f.Main != c.want || f.Recorded {
				t.Errorf("found %s and %s, recorded %t; notes %q", f.Recovery, f.Main, f.Recorded, f.Notes)
			}
			if d := decide.Decide(f.Facts, b.m.Policy); (d.Job == decide.Boot) != (c.want == decide.MainMarked) || d.Job == decide.Restore {
				t.Errorf("%s", d)
			}
		})
	}
}

// TestMirror: an array starts with all its members, or after the wait without some, and never in a way that writes to
// a member. Without a recovery volume its filesystem identifies it.
func TestMirror(t *testing.T) {
	start := newBench(t, machinetest.Kind{Firmware: layout.UEFI, Mirror: true})
	lose := func(b *bench) {
		b.Remove("vda")
		b.s.Args = decide.ParseArgs("real_root=UUID="+b.rec.Array.FSUUID, false)
	}
	now := func(b *bench) { b.s.Memory.Since = time.Now() }
	without := func(disks ...string) func(b *bench) {
		return func(b *bench) {
			for _, d := range disks {
				b.Remove(d)
			}
		}
	}
	broken := func(b *bench) { b.fail("run mdadm --assemble") }
	const marked, absent = decide.MainMarked, decide.MainAbsent
	for name, c := range map[string]struct {
		change           []func(b *bench)
		want             decide.MainState
		awaits, degraded bool
		runs             bool
		job              decide.Job
	}{
		"whole":          {nil, marked, false, false, true, decide.Boot},
		"a disk is slow": {[]func(*bench){now, without("vdc")}, absent, true, false, false, decide.Hold},
		"a disk is gone": {[]func(*bench){without("vdc")}, marked, false, true, true, decide.Boot},
		"both are gone":  {[]func(*bench){without("vdc", "vdb")}, absent, false, false, false, decide.Hold},
		"both are blank": {[]func(*bench){func(b *bench) {
			b.Replace("vdb", "MAIN")
			b.Replace("vdc", "MAIN2")
		}}, decide.MainBlank, false, false, false, decide.Restore},
		"a new disk in its place": {[]func(*bench){func(b *bench) { b.Replace("vdc", "NEW") }}, marked, false, true, true, decide.Boot},
		"it does not start":       {[]func(*bench){broken}, decide.MainDamaged, false, false, false, decide.Repair},
		"its members cannot be looked for": {[]func(*bench){func(b *bench) {
			n := 0
			b.fault = func(call string) error {
				if call == "list disks" {
					if n++; n == 3 {
						return syscall.EIO
					}
				}
				return nil
			}
		}}, absent, false, false, false, decide.Hold},
		"no mark":                      {[]func(*bench){(*bench).unmark}, decide.MainUnmarked, false, false, true, decide.Restore},
		"no volume":                    {[]func(*bench){lose}, marked, false, false, true, decide.Boot},
		"no volume, a disk is gone":    {[]func(*bench){lose, without("vdc")}, marked, false, true, true, decide.Boot},
		"no volume, a disk is slow":    {[]func(*bench){lose, now, without("vdc")}, absent, true, false, false, decide.Hold},
		"no volume, it does not start": {[]func(*bench){lose, broken}, absent, false, false, false, decide.Hold},
		"no volume, another filesystem is named": {[]func(*bench){lose, func(b *bench) { b.s.Args.Root.Ident = machine.NewIDs().UUID() }},
			absent, false, false, false, decide.Hold},
		"no volume, another kind of array": {[]func(*bench){lose, func(b *bench) { b.m.Identity.Variant.SwRaidlevel = 5 }},
			absent, false, false, false, decide.Hold},
		"no volume, disks cannot be listed": {[]func(*bench){lose, func(b *bench) { b.fail("list disks") }},
			absent, false, false, false, decide.Hold},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start.clone(t)
			for _, change := range c.change {
				change(b)
			}
			f := b.look()
			d := decide.Decide(f.Facts, b.m.Policy)
			if f.Main != c.want || f.Awaits != c.awaits || f.Degraded != c.degraded || d.Job != c.job {
				t.Errorf("found %s, awaits %t, degraded %t; %s; notes %q", f.Main, f.Awaits, f.Degraded, d, f.Notes)
			}
			assembled := slices.ContainsFunc(b.Calls(), func(c string) bool { return strings.HasPrefix(c, "run mdadm --assemble") })
			_, err := os.Stat(filepath.Join(b.m.Places.Sysfs, "block/md0"))
			if runs := err == nil; runs != c.runs || c.awaits && assembled {
				t.Errorf("the array runs: %t, was tried: %t", runs, assembled)
			}
			left := b.s.MemberTime()
			if c.awaits != (left > 0) {
				t.Errorf("members are waited for for %s", left)
			}
		})
	}
}

// TestProvisioningLooksAtNothing: a provisioning uses nothing that is on the disks. No array is started, since that
// would hold the disks. No table is read from its copy, and no medium is looked at.
func TestProvisioningLooksAtNothing(t *testing.T) {
	b := newBench(t, machinetest.Kind{Firmware: layout.UEFI, Mirror: true})
	b.m.Policy.Provision, b.s.Args.ManifestURL = true, "http://server.example/manifest.json"
	b.scribble("vdb", 512, make([]byte, 512))
	f := b.look()
	if d := decide.Decide(f.Facts, b.m.Policy); d.Job != decide.Provision || len(f.Tables) > 0 || len(f.Media) > 0 || f.MainPart != nil {
		t.Errorf("%s; found %+v", d, f)
	}
	if slices.ContainsFunc(b.Calls(), func(c string) bool { return strings.HasPrefix(c, "run ") || strings.Contains(c, "/dev/sda") }) {
		t.Errorf("it does %q", b.Calls())
	}
}

// TestVolumeFindings: what lies on the recovery volume reaches the decision. What is damaged there is reported and
// does not count.
func TestVolumeFindings(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef"
	b := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	v := b.volume()
	if f := b.look(); f.Request != nil || f.BadRequest != nil || f.LastMedium.ID != "" || f.Pending.RecoveryArtifact || f.Attempts != 0 {
		t.Errorf("found is %+v", f)
	}
	request := state.Request{ID: id, Kind: state.KindRestore, Image: state.Latest, By: "a person", Time: time.Now()}
	if err := errors.Join(v.WriteRequest(request), v.WriteCounts(state.Counts{Repairs: 2, RecoveryRepairs: 1, BootAttempts: 4}),
		v.WritePending(state.Pending{RecoveryArtifact: true}), v.WriteMedium(state.Medium{ID: id, Image: "x.upd"})); err != nil {
		t.Fatal(err)
	}
	f := b.look()
	if f.Request == nil || f.Request.ID != id || f.Repairs != 2 || f.RecoveryRepairs != 1 || f.Attempts != 4 || f.LastMedium.ID != id ||
		!f.Pending.RecoveryArtifact || !f.RestoreRequested() {
		t.Errorf("found is %+v; notes %q", f, f.Notes)
	}
	if d := decide.Decide(f.Facts, b.m.Policy); d.Job != decide.Restore {
		t.Errorf("%s", d)
	}
	done, err := state.Mark{Release: machinetest.Original, Request: id, Serial: machinetest.Serial}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	b.write(filepath.Join(b.root(), b.m.Site.Names.Mark), string(done))
	if f := b.look(); f.Fulfilled != id || decide.Decide(f.Facts, b.m.Policy).Job != decide.Boot {
		t.Errorf("a request that is fulfilled: %+v; %s", f.Facts, decide.Decide(f.Facts, b.m.Policy))
	}
	for _, file := range []string{state.RequestFile, state.CountsFile, state.PendingFile, state.MediumFile} {
		b.write(v.Path(file), `{"version":1,"x`)
	}
	f = b.look()
	if f.Request != nil || f.BadRequest == nil || f.BadCounts == nil || f.Attempts != 0 || f.LastMedium.ID != "" ||
		f.Pending.RecoveryArtifact {
		t.Errorf("found is %+v", f)
	}
	for _, note := range []string{"request ignored", "counts ignored", "pending work ignored", "last medium"} {
		if !strings.Contains(strings.Join(f.Notes, "\n"), note) {
			t.Errorf("nothing is said of %s: %q", note, f.Notes)
		}
	}
	if d := decide.Decide(f.Facts, b.m.Policy); d.Job != decide.Boot {
		t.Errorf("%s", d)
	}
	if err := errors.Join(os.Remove(v.Path(state.RequestFile)), os.Mkdir(v.Path(state.RequestFile), 0o700)); err != nil {
		t.Fatal(err)
	}
	if f := b.look(); f.Request != nil || decide.Decide(f.Facts, b.m.Policy).Job != decide.Boot {
		t.Errorf("a request that is no file: %+v, %v", f.Request, f.BadRequest)
	}
}

// TestWorn: a system that used up its boots without a good one goes back to another image, if the policy lets one be
// restored. If there is none, it boots on.
func TestWorn(t *testing.T) {
	start := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	const earlier = imagetest.Prefix + "2026-11-20.0001"
	for name, c := range map[string]struct {
		change func(b *bench)
		want   string
		job    decide.Job
	}{
		"worn":                      {func(*bench) {}, earlier + ".upd", decide.Restore},
		"one boot is left":          {func(b *bench) { b.attempts(2) }, "", decide.Boot},
		"no other image":            {func(b *bench) { b.remove(earlier + ".upd") }, "", decide.Boot},
		"going back did not work":   {func(b *bench) { b.s.Memory.BackFailed = true }, "", decide.Boot},
		"the policy has none of it": {func(b *bench) { b.m.Policy.FailedBoots = 0 }, "", decide.Boot},
		"the other is too old":      {func(b *bench) { b.m.Policy.OldestBuild = "2026-11-21.0001" }, "", decide.Boot},
		"images cannot be listed": {func(b *bench) {
			dir := b.volume().Path(state.ImageDir)
			if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
				b.t.Fatal(err)
			}
		}, "", decide.Boot},
	} {
		t.Run(name, func(t *testing.T) {
			b := start.clone(t)
			b.m.Policy.FailedBoots = 3
			b.attempts(3)
			b.write(b.volume().Path(state.ImageDir, earlier+".upd"), string(imagetest.XZ(t, imagetest.System(t, earlier))))
			c.change(b)
			f := b.look()
			d := decide.Decide(f.Facts, b.m.Policy)
			if f.Previous != c.want || d.Job != c.job {
				t.Errorf("goes back to %q, %s; notes %q", f.Previous, d, f.Notes)
			}
		})
	}
}

func (b *bench) attempts(n int) {
	b.t.Helper()
	if err := b.volume().WriteCounts(state.Counts{BootAttempts: n}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) remove(image string) {
	b.t.Helper()
	if err := os.Remove(b.volume().Path(state.ImageDir, image)); err != nil {
		b.t.Fatal(err)
	}
}

// TestShellRefused: a kernel argument does not open a shell that the policy forbids, and the findings say so.
func TestShellRefused(t *testing.T) {
	b := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	b.s.Args = decide.ParseArgs("frmode=shell", false)
	for _, allowed := range []bool{false, true} {
		b.m.Policy.Shell = allowed
		f := b.look()
		if d := decide.Decide(f.Facts, b.m.Policy); (d.Job == decide.Shell) != allowed {
			t.Errorf("%s", d)
		}
		if said := strings.Contains(strings.Join(f.Notes, "\n"), "frmode=shell is ignored"); said == allowed {
			t.Errorf("notes %q", f.Notes)
		}
	}
}

// TestRecordNames: a platform that a person named is believed only if a record of this unit has that name.
func TestRecordNames(t *testing.T) {
	start := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	for name, c := range map[string]struct {
		change func(b *bench)
		want   bool
		err    error
	}{
		"named":                {func(b *bench) { b.record(func(u *state.Unit) { u.Named = true }) }, true, nil},
		"recognised":           {func(*bench) {}, false, nil},
		"another platform":     {func(b *bench) { b.record(func(u *state.Unit) { u.Named, u.Platform = true, "OTHER" }) }, false, nil},
		"of another mainboard": {func(b *bench) { b.record(func(u *state.Unit) { u.Named, u.Serial = true, "SN-0002" }) }, false, nil},
		"for other firmware":   {func(b *bench) { b.record(func(u *state.Unit) { u.Named, u.Firmware = true, layout.BIOS }) }, false, nil},
		"with another label": {func(b *bench) {
			b.record(func(u *state.Unit) { u.Named = true })
			b.super("vda recovery", 1024, label("OLDNAME"))
		}, true, nil},
		"it cannot be read": {func(b *bench) { b.record(func(u *state.Unit) { u.Named = true }); b.fail("mount") }, false, nil},
		"no disks":          {func(b *bench) { b.fail("list") }, false, syscall.EIO},
	} {
		t.Run(name, func(t *testing.T) {
			b := start.clone(t)
			c.change(b)
			b.Start(func(_ int, call string) error { return b.fault(call) })
			if got, err := b.s.RecordNames("VIRT"); got != c.want || !errors.Is(err, c.err) {
				t.Errorf("got %t, %v", got, err)
			}
		})
	}
}

// stick plugs in a recovery stick with an image. It returns the GUID of its partition and the directory of its
// content.
func (b *bench) stick(name, fsUUID, image string) (id, dir string) {
	b.t.Helper()
	path := b.AddDisk(block.Disk{Name: name, Bus: block.USB, Serial: name, Size: layout.GiB})
	p := layout.Partition{Number: 1, Start: layout.MiB, Size: 100 * layout.MiB, Type: layout.TypeStick, UUID: machine.NewIDs().UUID(),
		Role: layout.ESP, FSUUID: fsUUID, FSLabel: "STICK"}
	table := layout.Table{Kind: layout.GPT, UUID: machine.NewIDs().UUID(), Partitions: []layout.Partition{p}}
	err := b.m.WriteTable(path, table)
	if err == nil {
		err = b.m.Format(b.t.Context(), path, table, []layout.Role{layout.ESP})
	}
	if err != nil {
		b.t.Fatal(err)
	}
	dir = b.Volume(fsUUID)
	b.write(filepath.Join(dir, layout.EmergencyPrefix+image+".upd"), string(imagetest.XZ(b.t, imagetest.System(b.t, image))))
	return p.UUID, dir
}

// TestStick: the survey knows the recovery stick that started the unit, even beside another one, and offers its
// image. If that stick is not there yet, the unit waits for it. A unit that did not start from a stick waits for
// none.
func TestStick(t *testing.T) {
	const image, newer = imagetest.Prefix + "2026-11-23.0001", imagetest.Prefix + "2026-11-24.0001"
	b := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	_, _ = b.stick("sdb", "0000-00B1", newer)
	second, _ := b.stick("sdc", "0000-00C1", image)
	from := func(id string) *Findings {
		b.t.Helper()
		v := make([]byte, 0, 80)
		for _, c := range id + "\x00" {
			v = binary.LittleEndian.AppendUint16(v, uint16(c))
		}
		if _, err := b.m.Vars.Set("LoaderDevicePartUUID", efi.Loader, 6, v); err != nil {
			t.Fatal(err)
		}
		return b.look()
	}
	f := from(strings.ToUpper(second))
	if !f.FromStick || f.OriginMissing || len(f.Sticks) != 2 || f.Sticks[0].Disk.Name != "sdc" {
		t.Errorf("started from a stick: %+v; notes %q", f.MediaFindings, f.Notes)
	}
	on, file, ok := f.StickImage()
	if !ok || len(f.Media) != 2 || !on.Stick || file.Base == "" || !f.HasFile(file.ID) || f.HasFile("0123") {
		t.Errorf("its image is %+v on %+v; %+v", file, on, f.Media)
	}
	if d := decide.Decide(f.Facts, b.m.Policy); d.Job != decide.Rescue || f.Offer == nil {
		t.Errorf("%s; offered %+v", d, f.Offer)
	}
	b.s.Memory.Answered = map[string]string{}
	for _, m := range f.Media {
		for _, file := range m.Files {
			b.s.Memory.Answered[file.ID] = "a person refused it"
		}
	}
	f = b.look()
	if d := decide.Decide(f.Facts, b.m.Policy); d.Job != decide.Boot {
		t.Errorf("after a person refused: %s", d)
	}
	f = from(b.rec.Recovery.Table.Find(layout.ESP).UUID)
	if f.FromStick || f.OriginMissing {
		t.Errorf("started from the unit's own disk: %+v", f.MediaFindings)
	}
	b.Remove("sdc")
	f = from(second)
	if f.FromStick || !f.OriginMissing {
		t.Errorf("started from a stick that is not there yet: %+v", f.MediaFindings)
	}
	if wait, more := new(Wait).ShouldLookAgain(b.s, f, usb.State{}, time.Second); !more || wait != usbExpected-time.Second {
		t.Errorf("it is waited for for %s, %t", wait, more)
	}
	b.Remove("sdb")
	f = b.look()
	if _, _, ok := f.StickImage(); ok || len(f.Media) > 0 {
		t.Errorf("without a stick: %+v", f.Media)
	}
	if err := os.WriteFile(filepath.Join(b.Firmware(), "LoaderDevicePartUUID-"+efi.Loader), []byte{6, 0, 0, 0, 1}, 0o600); err != nil {
		t.Fatal(err)
	}
	if f = b.look(); f.FromStick || f.OriginMissing || !strings.Contains(strings.Join(f.Notes, "\n"), "EFI stub") {
		t.Errorf("of where it started from nothing can be used: %+v, %q", f.MediaFindings, f.Notes)
	}
}

// TestProves: after a repair, the record alone proves that a volume is the unit's.
func TestProves(t *testing.T) {
	b := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	f := b.look()
	id := b.rec.Recovery.Table.Find(layout.Recovery).FSUUID
	if err := b.s.Proves(*f.RecoveryPart, id); err != nil {
		t.Error(err)
	}
	if err := b.s.Proves(*f.RecoveryPart, machine.NewIDs().UUID()); !errors.Is(err, errForeign) {
		t.Errorf("another filesystem on its partition: %v", err)
	}
	b.record(func(u *state.Unit) { u.Serial = "SN-0002" })
	if err := b.s.Proves(*f.RecoveryPart, id); !errors.Is(err, errOtherBoard) {
		t.Errorf("another unit's: %v", err)
	}
	b.fail("mount")
	b.Start(func(_ int, call string) error { return b.fault(call) })
	if err := b.s.Proves(*f.RecoveryPart, id); !errors.Is(err, errUnreadable) {
		t.Errorf("one that cannot be mounted: %v", err)
	}
}
