package repair_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/partition"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/record"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/job/repair"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
	"gprovision/unit/survey"
	"gprovision/unit/volume"
)

// bench is a complete unit on a machine that is not there, with e2fsck as a script.
type bench struct {
	*machinetest.Rig
	t    *testing.T
	unit state.Unit
	m    *machine.Machine
	log  bytes.Buffer
	// exits are the exit codes of e2fsck, one for each run; then 0. ran are its arguments, the device without its directory.
	exits []int
	ran   []string
	// onFsck is asked while e2fsck runs.
	onFsck func()
}

func newBench(t *testing.T, k machinetest.Kind, exits ...int) *bench {
	t.Helper()
	b := &bench{Rig: machinetest.NewUnit(t, k), t: t, exits: exits, onFsck: func() {}}
	m := machinetest.Machine(b.Rig)
	b.unit = machinetest.Provision(b.Rig, m)
	machinetest.Complete(b.Rig, m, b.unit)
	b.start(nil)
	return b
}

// clone is the same unit once more, with e2fsck as another script.
func (b *bench) clone(t *testing.T, exits ...int) *bench {
	t.Helper()
	c := &bench{Rig: b.Clone(t), t: t, unit: b.unit, exits: exits, onFsck: func() {}}
	c.start(nil)
	return c
}

// start switches the machine on.
func (b *bench) start(fault func(n int, call string) error) {
	b.Start(fault)
	b.log.Reset()
	b.m = machinetest.Machine(b.Rig)
	b.m.Log = slog.New(slog.NewTextHandler(&b.log, nil))
	run := b.m.Run
	b.m.Run = func(ctx context.Context, path string, args ...string) ([]byte, int, error) {
		switch filepath.Base(path) {
		case "e2fsck":
		case "mdadm": // of the survey
			return run(ctx, path, args...)
		default:
			b.t.Errorf("a repair starts %s %s", path, args)
		}
		args = slices.Clone(args)
		out, exit, err := run(ctx, path, args...)
		args[len(args)-1] = filepath.Base(args[len(args)-1])
		b.ran = append(b.ran, strings.Join(args, " "))
		b.onFsck()
		if err == nil && len(b.exits) > 0 {
			exit, b.exits = b.exits[0], b.exits[1:]
		}
		return out, exit, err
	}
}

func (b *bench) survey() *survey.Survey {
	return &survey.Survey{Eyes: machine.EyesOf(b.m), Names: b.m.Site.Names,
		Memory: survey.Memory{Since: time.Now().Add(-time.Hour)}}
}

// env is what a job gets whose recovery volume is on the partition at path.
func (b *bench) env(path string) job.Env {
	e := jobtest.Env(b.m)
	if path != "" {
		e.Volume = volume.At(b.m, path)
	}
	return e
}

// found is what a survey finds. It has the recovery volume and the main system.
func (b *bench) found() *survey.Findings {
	b.t.Helper()
	f := b.survey().Look(b.t.Context())
	if f.Recovery != decide.RecoveryFound || f.MainPart == nil {
		b.t.Fatalf("found %s, %s: %q", f.Recovery, f.Main, f.Notes)
	}
	return f
}

// counts reads the counts, without passing a door.
func (b *bench) counts() state.Counts {
	b.t.Helper()
	c, err := state.Open(b.Volume(b.unit.Recovery.Table.Find(layout.Recovery).FSUUID)).ReadCounts()
	if err != nil {
		b.t.Error(err)
	}
	return c
}

// last is how a job ended, as the server hears it.
func (b *bench) last(e job.Env) record.State {
	b.t.Helper()
	all := machinetest.Heard(b.t, e.Queue)
	if len(all) == 0 || all[0].Phase != record.Started || all[0].Job != record.JobRepair {
		b.t.Fatalf("the server hears %+v", all)
	}
	return all[len(all)-1]
}

// The runs of e2fsck: careful, thorough, by the copy of the superblock.
const (
	preen  = "-p -f %s"
	yes    = "-f -y %s"
	byCopy = "-f -y -b 32768 -B 4096 %s"
)

// TestExitCodes: what each exit code of e2fsck leads to, on either volume. The job decides anew after each, and what the server hears is
// what is so: a filesystem with errors left, or one that nothing is known of, is no success.
func TestExitCodes(t *testing.T) {
	start := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	for name, c := range map[string]struct {
		exits []int
		runs  []string
		good  bool
		say   string // in what the server hears of a failure
	}{
		"clean":                           {[]int{0}, []string{preen}, true, ""},
		"repaired":                        {[]int{1}, []string{preen}, true, ""},
		"repaired, would reboot":          {[]int{3}, []string{preen}, true, ""},
		"thorough":                        {[]int{4, 1}, []string{preen, yes}, true, ""},
		"errors stay":                     {[]int{4, 4}, []string{preen, yes}, false, "errors are left"},
		"some repaired, errors stay":      {[]int{4, 5}, []string{preen, yes}, false, "errors are left"},
		"superblock lost":                 {[]int{8, 1, 0}, []string{preen, byCopy, yes}, true, ""},
		"superblock lost, errors stay":    {[]int{8, 1, 4}, []string{preen, byCopy, yes}, false, "errors are left"},
		"no superblock at all":            {[]int{8, 8}, []string{preen, byCopy}, false, "status 8"},
		"stopped":                         {[]int{32}, []string{preen}, false, "status 32"},
		"usage":                           {[]int{16}, []string{preen}, false, "status 16"},
		"library":                         {[]int{128}, []string{preen}, false, "status 128"},
		"killed":                          {[]int{-1}, []string{preen}, false, "status -1"},
		"stopped at the thorough one":     {[]int{4, 32}, []string{preen, yes}, false, "status 32"},
		"superblock lost at the thorough": {[]int{4, 12, 1, 1}, []string{preen, yes, byCopy, yes}, true, ""},
	} {
		for _, recovery := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", recovery ", recovery), func(t *testing.T) {
				t.Parallel()
				b := start.clone(t, c.exits...)
				f := b.found()
				e := b.env(f.RecoveryPart.Path)
				part, kind, do := f.MainPart.Path, fault.MainDamaged, func() job.Outcome { return repair.Main(t.Context(), e, f) }
				if recovery {
					part, kind = f.RecoveryPart.Path, fault.RecoveryDamaged
					do = func() job.Outcome { return repair.Recovery(t.Context(), e, f) }
				}
				if out := do(); !reflect.DeepEqual(out, job.Outcome{Kind: job.DecideAgain}) {
					t.Errorf("it ends with %+v", out)
				}
				var want []string
				for _, r := range c.runs {
					want = append(want, fmt.Sprintf(r, filepath.Base(part)))
				}
				if !slices.Equal(b.ran, want) {
					t.Errorf("e2fsck ran with %q, want %q", b.ran, want)
				}
				last := b.last(e)
				if c.good != (last.Phase == record.Succeeded) || !c.good && (last.Code != kind.Code || !strings.Contains(last.Text, c.say)) {
					t.Errorf("the server hears %+v", last)
				}
				counts := state.Counts{Repairs: 1}
				if recovery {
					if counts = (state.Counts{RecoveryRepairs: 1}); !c.good { // what cannot be trusted is not written to
						counts = state.Counts{}
					}
				}
				if got := b.counts(); got.Repairs != counts.Repairs || got.RecoveryRepairs != counts.RecoveryRepairs {
					t.Errorf("counted are %+v, want %+v", got, counts)
				}
			})
		}
	}
}

// TestWhenItCounts: a repair of the main system counts before it works, one of the recovery volume after; and while e2fsck runs nothing is
// mounted.
func TestWhenItCounts(t *testing.T) {
	b := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	f := b.found()
	e := b.env(f.RecoveryPart.Path)
	look := func(want state.Counts) func() {
		return func() {
			if got := b.counts(); got.Repairs != want.Repairs || got.RecoveryRepairs != want.RecoveryRepairs {
				t.Errorf("while e2fsck runs, counted are %+v, want %+v", got, want)
			}
			for _, dir := range []string{b.m.Places.Recovery, b.m.Places.Main} {
				if on, err := b.m.Mounted(dir); on || err != nil {
					t.Errorf("while e2fsck runs, %s is mounted: %v", dir, err)
				}
			}
		}
	}
	b.onFsck = look(state.Counts{Repairs: 1})
	repair.Main(t.Context(), e, f)
	b.onFsck = look(state.Counts{Repairs: 1})
	repair.Recovery(t.Context(), e, f)
	look(state.Counts{Repairs: 1, RecoveryRepairs: 1})()
	if len(b.ran) != 2 {
		t.Errorf("e2fsck ran with %q", b.ran)
	}
}

// TestCutRepair: a power cut at any call of a repair leaves it counted if e2fsck was started: one that crashes is not done for ever.
func TestCutRepair(t *testing.T) {
	start := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	for n := 1; ; n++ {
		b := start.clone(t)
		f := b.found()
		b.start(func(k int, _ string) error {
			if k == n {
				return machinetest.ErrCut
			}
			return nil
		})
		repair.Main(t.Context(), b.env(f.RecoveryPart.Path), f)
		if len(b.Calls()) < n { // nothing was cut
			if n < 5 {
				t.Errorf("a repair has %d calls", n)
			}
			return
		}
		b.Start(nil)
		counted := func() bool { // the volume may not have a count yet
			c, err := state.Open(b.Volume(b.unit.Recovery.Table.Find(layout.Recovery).FSUUID)).ReadCounts()
			return err == nil && c.Repairs == 1
		}()
		if len(b.ran) > 0 && !counted {
			t.Errorf("cut at call %d, e2fsck was started and it is not counted", n)
		}
	}
}

// TestNothingToCountOn: that a repair cannot be counted is no reason not to repair.
func TestNothingToCountOn(t *testing.T) {
	start := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	for name, c := range map[string]struct {
		change func(f *survey.Findings)
		fault  func(n int, call string) error
	}{
		"no recovery volume": {func(f *survey.Findings) {
			f.Recovery, f.RecoveryPart = decide.RecoveryMissing, nil
		}, func(_ int, call string) error {
			if strings.HasPrefix(call, "mount") {
				return errors.New("what is mounted here?")
			}
			return nil
		}},
		"it cannot be mounted": {func(*survey.Findings) {}, func(_ int, call string) error {
			if strings.HasPrefix(call, "mount /dev/vda") {
				return syscall.EIO
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := start.clone(t)
			f := b.found()
			c.change(f)
			path := ""
			if f.RecoveryPart != nil {
				path = f.RecoveryPart.Path
			}
			b.start(c.fault)
			e := b.env(path)
			if out := repair.Main(t.Context(), e, f); out.Kind != job.DecideAgain {
				t.Errorf("it ends with %+v", out)
			}
			if last := b.last(e); len(b.ran) != 1 || last.Phase != record.Succeeded {
				t.Errorf("e2fsck ran with %q, the server hears %+v", b.ran, last)
			}
			if !strings.Contains(b.log.String(), "count") {
				t.Errorf("nobody is told that it is not counted:\n%s", &b.log)
			}
		})
	}
}

// TestInUse: a filesystem that somebody uses is not checked.
func TestInUse(t *testing.T) {
	b := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	f := b.found()
	b.start(func(_ int, call string) error {
		if strings.HasPrefix(call, "open") && strings.HasSuffix(call, fmt.Sprintf("%s %d", filepath.Base(f.MainPart.Path), machine.Write)) {
			return syscall.EBUSY
		}
		return nil
	})
	e := b.env(f.RecoveryPart.Path)
	repair.Main(t.Context(), e, f)
	if last := b.last(e); len(b.ran) > 0 || last.Code != fault.MainDamaged.Code || last.Phase != record.Failed {
		t.Errorf("e2fsck ran with %q, the server hears %+v", b.ran, last)
	}
}

// lost is what a survey finds whose recovery volume cannot be read.
func lost(f *survey.Findings) *survey.Findings {
	damaged := *f
	damaged.VolumeFindings = survey.VolumeFindings{RecoveryPart: f.RecoveryPart}
	damaged.Recovery, damaged.RecoveryRepairable = decide.RecoveryDamaged, true
	return &damaged
}

// TestAdopted: a recovery volume that could not be read is taken as the unit's after its repair if its record says so, also if e2fsck has
// found that without its name; and one of somebody else is not written to.
func TestAdopted(t *testing.T) {
	start := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	move := func(dir string) error {
		if err := os.Mkdir(filepath.Join(dir, "lost+found"), 0o700); err != nil {
			return err
		}
		return os.Rename(filepath.Join(dir, state.UnitFile), filepath.Join(dir, "lost+found/#12"))
	}
	other := func(change func(*state.Unit)) func(dir string) error {
		return func(dir string) error {
			v := state.Open(dir)
			u, err := v.ReadUnit()
			if err != nil {
				return err
			}
			u.Main, u.Recovery.Table.Partitions = slices.Clone(u.Main), slices.Clone(u.Recovery.Table.Partitions)
			change(&u)
			return v.WriteUnit(u)
		}
	}
	for name, c := range map[string]struct {
		change func(dir string) error
		own    bool
	}{
		"own":                            {func(string) error { return nil }, true},
		"its record had lost its name":   {move, true},
		"no record":                      {func(dir string) error { return os.Remove(filepath.Join(dir, state.UnitFile)) }, false},
		"of another unit":                {other(func(u *state.Unit) { u.Serial = "SN-0002" }), false},
		"provisioned for other firmware": {other(func(u *state.Unit) { u.Firmware = layout.BIOS }), false},
		"a copy: its record names another": {other(func(u *state.Unit) {
			u.Recovery.Table.Find(layout.Recovery).UUID = machine.NewIDs().UUID()
		}), false},
		"of another unit, without its name": {both(other(func(u *state.Unit) { u.Serial = "SN-0002" }), move), false},
		"its record is cut off":             {func(dir string) error { return os.Truncate(filepath.Join(dir, state.UnitFile), 40) }, false},
		"lost twice: none can be said to be it": {both(move, func(dir string) error {
			b, err := os.ReadFile(filepath.Join(dir, "lost+found/#12"))
			return errors.Join(err, os.WriteFile(filepath.Join(dir, "lost+found/#13"), b, 0o600))
		}), false},
	} {
		t.Run(name, func(t *testing.T) {
			b := start.clone(t, 1)
			f := lost(b.found())
			dir := b.Volume(b.unit.Recovery.Table.Find(layout.Recovery).FSUUID)
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			before := machinetest.Tree(t, dir)
			e := b.env(f.RecoveryPart.Path)
			if out := repair.Recovery(t.Context(), e, f); out.Kind != job.DecideAgain {
				t.Errorf("it ends with %+v", out)
			}
			last := b.last(e)
			if !c.own {
				if last.Code != fault.RecoveryDamaged.Code || machinetest.Tree(t, dir) != before {
					t.Errorf("the server hears %+v; the volume was\n%s\nand is\n%s", last, before, machinetest.Tree(t, dir))
				}
				return
			}
			if n := b.counts().RecoveryRepairs; last.Phase != record.Succeeded || n != 1 {
				t.Errorf("the server hears %+v, counted are %d repairs; log:\n%s", last, n, &b.log)
			}
			if f := b.found(); f.Unit.Serial != machinetest.Serial || f.RecoveryRepairs != 1 {
				t.Errorf("found afterwards: %+v", f.Unit)
			}
		})
	}
}

func both(first, then func(dir string) error) func(dir string) error {
	return func(dir string) error { return errors.Join(first(dir), then(dir)) }
}

// TestStaysBroken: a recovery volume that e2fsck does not repair is not mounted, and nothing is taken from it.
func TestStaysBroken(t *testing.T) {
	b := newBench(t, machinetest.Kind{Firmware: layout.UEFI}, 4, 4)
	f := lost(b.found())
	b.start(nil)
	e := b.env(f.RecoveryPart.Path)
	repair.Recovery(t.Context(), e, f)
	if last := b.last(e); last.Code != fault.RecoveryDamaged.Code {
		t.Errorf("the server hears %+v", last)
	}
	if slices.ContainsFunc(b.Calls(), func(c string) bool { return strings.HasPrefix(c, "mount") }) {
		t.Errorf("it is mounted: %q", b.Calls())
	}
}

// damageTable overwrites the first copy of the partition table of a disk.
func damageTable(t *testing.T, m *machine.Machine, path string) {
	t.Helper()
	dev, err := m.Open(path, machine.Write)
	if err == nil {
		_, err = dev.WriteAt(make([]byte, 512), 512)
		err = errors.Join(err, dev.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// disks are the paths of the disks by their names.
func (b *bench) disks() map[string]string {
	b.t.Helper()
	all, err := b.m.Disks()
	if err != nil {
		b.t.Fatal(err)
	}
	out := map[string]string{}
	for _, d := range all {
		out[d.Name] = d.Path
	}
	return out
}

// verify returns nil if both copies of a table are on a disk.
func (b *bench) verify(path string, table layout.Table) error {
	dev, err := b.m.Open(path, machine.Read)
	if err != nil {
		return err
	}
	return errors.Join(partition.Verify(dev, table), dev.Close())
}

// TestTables: the copy at the end goes to the beginning of the disk that it is from, and of no other; a disk that is not of the unit's
// record is left alone, and one that takes no write keeps no other from its repair. What is not the table is not changed.
func TestTables(t *testing.T) {
	start := newBench(t, machinetest.Kind{Firmware: layout.UEFI, Mirror: true})
	for name, c := range map[string]struct {
		damage  []string
		broken  string // takes no write
		foreign bool   // the stick has a table whose first copy is damaged, too
		mended  []string
	}{
		"main disk":                       {[]string{"vdb"}, "", false, []string{"vdb"}},
		"recovery device":                 {[]string{"vda"}, "", false, []string{"vda"}},
		"all":                             {[]string{"vda", "vdb", "vdc"}, "", false, []string{"vda", "vdb", "vdc"}},
		"one beside somebody's":           {[]string{"vdc"}, "", true, []string{"vdc"}},
		"the first of two takes no write": {[]string{"vda", "vdc"}, "vda", false, []string{"vdc"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := start.clone(t)
			disks := b.disks()
			tables := map[string]layout.Table{"vda": b.unit.Recovery.Table, "vdb": b.unit.Main[0].Table, "vdc": b.unit.Main[1].Table}
			const tableEnd = 34 * 512
			before := map[string]string{}
			for disk := range tables {
				before[disk] = b.Bytes(disk, 0, tableEnd)
			}
			for _, d := range c.damage {
				damageTable(t, b.m, disks[d])
			}
			b.start(nil)
			f := b.found()
			if len(f.Tables) != len(c.damage) || !f.TableDamaged {
				t.Fatalf("found are %+v; notes %q", f.Tables, f.Notes)
			}
			if c.foreign {
				theirs := f.Tables[0]
				theirs.Disk, theirs.Recorded = block.Disk{Name: "sda", Path: disks["sda"]}, false
				f.Tables = append(f.Tables, theirs)
			}
			b.start(func(_ int, call string) error {
				if c.broken != "" && strings.HasPrefix(call, "write") && strings.HasSuffix(call, c.broken) {
					return syscall.EIO
				}
				return nil
			})
			e := b.env(f.RecoveryPart.Path)
			if out := repair.Table(t.Context(), e, f); out.Kind != job.DecideAgain {
				t.Errorf("it ends with %+v", out)
			}
			last := b.last(e)
			if c.broken == "" && last.Phase != record.Succeeded ||
				c.broken != "" && (last.Code != fault.TableDamaged.Code || !strings.Contains(last.Text, c.broken)) {
				t.Errorf("the server hears %+v", last)
			}
			for _, name := range b.Written() {
				if !slices.Contains(c.damage, name) {
					t.Errorf("%s is opened for writing", name)
				}
			}
			for disk, table := range tables {
				whole := !slices.Contains(c.damage, disk) || slices.Contains(c.mended, disk)
				if err := b.verify(disks[disk], table); (err == nil) != whole {
					t.Errorf("%s: whole %t: %v", disk, whole, err)
				}
				if now := b.Bytes(disk, 0, tableEnd); now != before[disk] {
					t.Errorf("%s: what is not the first copy of the table is changed", disk)
				}
			}
			if len(b.ran) > 0 {
				t.Errorf("e2fsck ran with %q", b.ran)
			}
		})
	}
}

// TestCutTable: cut off at any call, and begun anew by what a survey finds then, a repair of a table ends with a whole one. At no time
// is the table lost.
func TestCutTable(t *testing.T) {
	start := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	damageTable(t, start.m, start.disks()["vdb"])
	for n := 1; ; n++ {
		b := start.clone(t)
		f := b.found()
		b.start(func(k int, _ string) error {
			if k == n {
				return machinetest.ErrCut
			}
			return nil
		})
		repair.Table(t.Context(), b.env(f.RecoveryPart.Path), f)
		whole := len(b.Calls()) < n
		b.start(nil)
		f = b.found() // the main system too: by one of the copies
		if f.Main != decide.MainMarked || whole && len(f.Tables) > 0 {
			t.Fatalf("cut at call %d, the main system is %s: %q", n, f.Main, f.Notes)
		}
		if f.TableDamaged {
			repair.Table(t.Context(), b.env(f.RecoveryPart.Path), f)
		}
		if err := b.verify(b.disks()["vdb"], b.unit.Main[0].Table); err != nil {
			t.Fatalf("cut at call %d: %v", n, err)
		}
		if whole {
			return
		}
	}
}

// boards are the mainboards that are known as adopted.
func (b *bench) boards() []string {
	b.t.Helper()
	boards, err := state.ReadBoards(state.Open(b.Volume(b.unit.Recovery.Table.Find(layout.Recovery).FSUUID)))
	if err != nil {
		b.t.Error(err)
	}
	return boards.Serials
}

// moved makes the machine one with another mainboard, and returns what a survey finds then.
func (b *bench) moved() *survey.Findings {
	b.t.Helper()
	b.m.Identity.Serial = "SN-NEW"
	f := b.survey().Look(b.t.Context())
	if f.Recovery != decide.RecoveryOtherBoard || f.Main != decide.MainMarked {
		b.t.Fatalf("found %s, %s: %q", f.Recovery, f.Main, f.Notes)
	}
	return f
}

// TestBoard: an adopted mainboard is in the record, and nothing else is changed. Cut at any call the unit has its record as before or with
// the mainboard, and it can be adopted again.
func TestBoard(t *testing.T) {
	start := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	for n := 1; ; n++ {
		b := start.clone(t)
		f := b.moved()
		b.start(func(k int, _ string) error {
			if k == n {
				return machinetest.ErrCut
			}
			return nil
		})
		b.m.Identity.Serial = "SN-NEW"
		e := b.env(f.RecoveryPart.Path)
		out := repair.Board(t.Context(), e, f)
		whole := len(b.Calls()) < n
		if out.Kind != job.DecideAgain {
			t.Fatalf("it ends with %+v", out)
		}
		b.start(nil)
		b.m.Identity.Serial = "SN-NEW"
		f = b.survey().Look(t.Context())
		if f.Unit.Serial != machinetest.Serial || f.Main != decide.MainMarked {
			t.Fatalf("cut at call %d, found %s of %q, %s: %q", n, f.Recovery, f.Unit.Serial, f.Main, f.Notes)
		}
		if f.Recovery != decide.RecoveryFound {
			if whole {
				t.Fatalf("found %s: %q; log:\n%s", f.Recovery, f.Notes, &b.log)
			}
			repair.Board(t.Context(), b.env(f.RecoveryPart.Path), f)
			b.found()
		}
		if got := b.boards(); !slices.Equal(got, []string{"SN-NEW"}) {
			t.Fatalf("cut at call %d, the mainboards are %q", n, got)
		}
		if whole {
			if last := b.last(e); n < 3 || last.Phase != record.Succeeded {
				t.Errorf("%d calls, the server hears %+v", n, last)
			}
			return
		}
	}
}

// TestBoardOfAnother: a volume that has become another unit's since the survey is left alone.
func TestBoardOfAnother(t *testing.T) {
	b := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	f := b.moved()
	dir := b.Volume(b.unit.Recovery.Table.Find(layout.Recovery).FSUUID)
	u := b.unit
	u.Serial = "SN-0003"
	if err := state.Open(dir).WriteUnit(u); err != nil {
		t.Fatal(err)
	}
	before := machinetest.Tree(t, dir)
	e := b.env(f.RecoveryPart.Path)
	repair.Board(t.Context(), e, f)
	if last := b.last(e); last.Phase != record.Failed || machinetest.Tree(t, dir) != before {
		t.Errorf("the server hears %+v; the volume was\n%s\nand is\n%s", last, before, machinetest.Tree(t, dir))
	}
}
