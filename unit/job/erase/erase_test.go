package erase

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/drive"
	"gprovision/hw/host"
	"gprovision/lab/simdrive"
	"gprovision/model/challenge"
	"gprovision/model/erasure"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/model/policy"
	"gprovision/model/record"
	"gprovision/model/signature"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/keytest"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/report"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// diskSize is that of the main disks, which are read and written as a whole.
const diskSize = 8 * layout.MiB

// pattern is a customer's data.
var pattern = bytes.Repeat([]byte("a customer's data. "), 27)[:512]

// world is a unit with a small main disk.
type world struct {
	t    *testing.T
	r    *machinetest.Rig
	u    state.Unit
	sims map[string]*simdrive.Drive
	// clock is that of the simulated drives.
	clock *simdrive.Clock
	// full is how many sectors of a customer's data are on the recovery device before.
	full int
	// variant changes the platform; nil: not at all.
	variant func(*platform.Variant)
	// policy changes the policy of each boot.
	policy policy.Policy
	// server is the factory server; nil: there is none.
	server server
	// choice is what a person chose in the menu, and panel where; nil: nobody is there.
	choice decide.ChoiceKind
	panel  panel.Panel
	// spare changes how free space behaves; nil: not at all.
	spare func(spare) spare
	// with changes what the job gets.
	with func(*job.Env, *survey.Findings)
	// end ends the boot that goes on.
	end context.CancelFunc
	// tpm is nil where there is none.
	tpm *simTPM
}

// newWorld makes a unit whose main disk vdb has a complete system and is full of a customer's data, and whose recovery volume asks for an
// erase.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, r: machinetest.NewUnit(t, machinetest.Kind{Firmware: layout.UEFI}), sims: map[string]*simdrive.Drive{},
		clock: &simdrive.Clock{}}
	m := w.machine()
	w.u = machinetest.Provision(w.r, m)
	w.r.Remove("vdb")
	w.r.AddDisk(block.Disk{Name: "vdb", Bus: block.VirtIO, Serial: "MAIN", Size: diskSize})
	ids := machine.NewIDs()
	table := layout.Table{Kind: layout.GPT, UUID: ids.UUID(), Partitions: []layout.Partition{{
		Role: layout.Primary, Number: 1, Start: layout.MiB, Size: 6 * layout.MiB, Type: layout.TypeLinux, UUID: ids.UUID(), Name: "PRIMARY",
		FSUUID: ids.UUID(), FSLabel: "PRIMARY",
	}}}
	disk := w.disk("vdb")
	must(t, m.WriteTable(disk.Path, table))
	disk = w.disk("vdb")
	root := disk.Partitions[0].Path
	must(t, m.MakeExt4(t.Context(), root, "PRIMARY", table.Partitions[0].FSUUID))
	full, err := os.OpenFile(disk.Path, os.O_WRONLY, 0)
	if err == nil {
		_, err = full.WriteAt(bytes.Repeat(pattern, 5*layout.MiB/len(pattern)), 2*layout.MiB)
		err = errors.Join(err, full.Close())
	}
	must(t, err)
	mark, err := state.Mark{Release: machinetest.Original, Serial: w.u.Serial}.Marshal()
	must(t, err)
	must(t, m.Mount(root, m.Places.Main, "ext4", host.MountOptions{}))
	must(t, os.WriteFile(filepath.Join(m.Places.Main, m.Site.Names.Mark), mark, 0o600))
	must(t, m.Unmount(m.Places.Main))
	w.u.Main = []state.Disk{machine.DiskRecord(disk, table)}
	w.volume(func(v *state.Volume) error {
		q, err := state.NewRequest(state.KindErase, "", "a test", time.Now())
		return errors.Join(err, v.WriteUnit(w.u), v.WriteRequest(q), os.WriteFile(v.Path(state.NetworkFile), pattern, 0o600))
	})
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// machine is the unit as a job gets it.
func (w *world) machine() *machine.Machine {
	m := machinetest.Machine(w.r)
	unsigned := m.Policy.AllowUnsigned
	m.Policy = w.policy
	m.Policy.AllowUnsigned = unsigned
	m.Build.Time = time.Now().Add(-100 * time.Hour)
	if !w.u.OneDisk() {
		m.Identity.Variant.Disksize = diskSize
	} else {
		m.Identity.Variant.Disksize = w.u.Main[0].Size
		m.Identity.Variant.RecoveryMedia.Bus = []platform.Bus{platform.Virtio, platform.NVMe, platform.SATA}
	}
	m.Identity.Variant.NumDataDisks = max(1, len(w.u.Main))
	m.Identity.Variant.MainDisk.Bus = []platform.Bus{platform.Virtio, platform.NVMe, platform.SATA}
	if w.variant != nil {
		w.variant(&m.Identity.Variant)
	}
	plain := m.Open
	m.Open = func(path string, how machine.Access) (machine.Device, error) {
		sim := w.sims[filepath.Base(path)]
		if sim == nil || how != machine.Erase {
			return plain(path, how)
		}
		dev, err := plain(path, machine.Read)
		if err != nil {
			return nil, err
		}
		c, err := drive.On(sim, nil)
		return &machine.Drive{
			Device: dev, Commands: c, Blocks: &locked{Area: sim.Device()}, State: sim.State, Release: func() error { return nil },
			Rescan: func() error { sim.Rescan(); return nil },
		}, err
	}
	return m
}

// locked is blocks of a simulated drive, which takes one request at a time.
type locked struct {
	mu sync.Mutex
	*simdrive.Area
}

func (l *locked) ReadAt(p []byte, off int64) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Area.ReadAt(p, off)
}

func (l *locked) WriteAt(p []byte, off int64) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Area.WriteAt(p, off)
}

func (w *world) disk(name string) block.Disk {
	w.t.Helper()
	disks, err := machinetest.Machine(w.r).Disks()
	must(w.t, err)
	i := slices.IndexFunc(disks, func(d block.Disk) bool { return d.Name == name })
	if i < 0 {
		w.t.Fatalf("no disk %s", name)
	}
	return disks[i]
}

// volume changes the recovery volume of a machine that is switched off.
func (w *world) volume(do func(*state.Volume) error) {
	w.t.Helper()
	must(w.t, do(state.Open(w.r.Volume(w.u.Recovery.Table.Find(layout.Recovery).FSUUID))))
}

// look surveys the machine after it was switched on.
func (w *world) look() (job.Env, *survey.Findings) {
	w.t.Helper()
	w.r.Start(nil)
	return jobtest.Look(w.t, w.machine())
}

// boot switches the machine on and runs the job, with a fault at its calls, counted from its first one.
func (w *world) boot(faults ...func(n int, call string) error) job.Outcome {
	w.t.Helper()
	e, f := w.look()
	if w.with != nil {
		w.with(&e, f)
	}
	for _, fault := range faults {
		before := len(w.r.Calls())
		w.r.Fail(func(n int, call string) error { return fault(n-before, call) })
	}
	j := &erasing{env: e, f: f, book: &book{volume: e.Volume}, now: time.Now, wait: func(ctx context.Context, d time.Duration) error {
		w.clock.Advance(d)
		return ctx.Err()
	}, findTPM: func() (chip, error) {
		if w.tpm == nil {
			return nil, nil
		}
		return w.tpm, nil
	}}
	j.openSpare = func(string) (spare, error) {
		s, err := machinetest.OpenSpare(w.r)
		if err != nil || w.spare == nil {
			return s, err
		}
		return w.spare(s), nil
	}
	if w.server != nil {
		j.office = newOffice()
		j.office.found(w.server)
	}
	j.f.Choice.Kind = w.choice
	if w.panel != nil {
		e.Machine.Panel.Add("person", w.panel)
	}
	ctx, end := context.WithCancel(w.t.Context())
	defer end()
	w.end = end
	out := j.run(ctx)
	jobtest.End(w.t, e)
	return out
}

// left returns how many sectors of a disk hold the customer's data.
func (w *world) left(name string) (n int) {
	w.t.Helper()
	b, err := os.ReadFile(w.disk(name).Path)
	must(w.t, err)
	for at := 0; at+512 <= len(b); at += 512 {
		if bytes.Equal(b[at:at+512], pattern) {
			n++
		}
	}
	return n
}

// certificate returns the certificate of the last erase, which the unit's key has signed.
func (w *world) certificate() erasure.Certificate {
	w.t.Helper()
	var c erasure.Certificate
	w.volume(func(v *state.Volume) error {
		file, err := state.ReadEraseFile(v, certificateFile)
		if err != nil {
			return err
		}
		sig, err := state.ReadEraseFile(v, signatureFile)
		if err != nil {
			return err
		}
		if c, err = erasure.ParseSigned(file, sig); err != nil {
			return err
		}
		key, err := v.ReadKey()
		if err == nil && !key.Public().(ed25519.PublicKey).Equal(ed25519.PublicKey(c.Key)) {
			err = errors.New("another key has signed it")
		}
		return err
	})
	return c
}

// state returns what init knows of the erase.
func (w *world) state() (e state.Erase, r state.Request) {
	w.t.Helper()
	w.volume(func(v *state.Volume) (err error) {
		if e, err = state.ReadErase(v); err != nil {
			return err
		}
		r, err = v.ReadRequest()
		return err
	})
	return e, r
}

// marked reports whether the main system counts as complete.
func (w *world) marked() bool {
	w.t.Helper()
	_, f := w.look()
	return f.Mark.Release != ""
}

// TestErase: a unit on a virtio disk is erased, weaker than proved; what follows from that is up to the policy.
func TestErase(t *testing.T) {
	w := newWorld(t)
	if w.left("vdb") == 0 || !w.marked() {
		t.Fatal("there is nothing to erase")
	}
	if out := w.boot(); out.Kind != job.HoldOn || fault.Of(out.Err) != fault.EraseWeaker {
		t.Fatalf("%+v", out)
	}
	if n := w.left("vdb"); n != 0 {
		t.Errorf("%d sectors of the customer's data are left", n)
	}
	if got := w.r.Written(); !slices.Equal(got, []string{"vdb"}) {
		t.Errorf("written to: %q", got)
	}
	if !w.disk("sda").ReadOnly || w.disk("vda").ReadOnly {
		t.Error("a stick that is not of the plan may be written to, or the recovery device may not")
	}
	c := w.certificate()
	if c.Outcome != erasure.Weaker || c.Level != erasure.Clear || len(c.Drives) != 1 || c.Drives[0].Serial != "MAIN" ||
		c.Unit != machinetest.Serial {
		t.Errorf("certificate: %+v", c)
	}
	v := c.Volume
	if v == nil || v.Outcome != erasure.Weaker || !slices.Equal(v.Reasons, []erasure.Reason{"from-within"}) || v.Unlinked != 1 ||
		v.Free != machinetest.SpareSize || v.Filled != v.Free || v.ReadBack != v.Free || v.Left != 0 || v.Discarded != v.Free ||
		v.Name == "" || *c.Recovery != (erasure.Result{Outcome: erasure.Weaker, Level: erasure.Clear}) {
		t.Errorf("recovery volume: %+v", v)
	}
	if got := c.Drives[0].Reasons; !slices.Contains(got, "overwrite") || c.Drives[0].Evidence.Method != erasure.Overwrite {
		t.Errorf("reasons: %q", got)
	}
	if s := c.Drives[0].Evidence.Samples; s.Read != diskSize/512 {
		t.Errorf("%d blocks of a small disk were read", s.Read)
	}
	if e, r := w.state(); e.Outcome != erasure.Weaker || e.Resolved || r.Kind != state.KindErase {
		t.Errorf("%+v, %+v", e, r)
	}
	w.volume(func(v *state.Volume) error {
		if _, err := os.Stat(v.Path(state.NetworkFile)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the customer's network is still known: %v", err)
		}
		return nil
	})
	// It survives reboots, nothing is erased again, and the policy may let it pass.
	if out := w.boot(); fault.Of(out.Err) != fault.EraseWeaker || len(w.r.Written()) != 0 {
		t.Errorf("%+v, written %q", out, w.r.Written())
	}
	w.policy.Erase.Accept = policy.AcceptRestore
	if out := w.boot(); out.Kind != job.RebootNow {
		t.Errorf("%+v", out)
	}
	if e, r := w.state(); !e.Resolved || r.Kind != state.KindRestore || w.certificate().Run != c.Run {
		t.Errorf("%+v, %+v", e, r)
	}
}

// TestResetPage: what an erase leaves on the recovery volume is what docs/reset.md says.
func TestResetPage(t *testing.T) {
	w := newWorld(t)
	keeps := jobtest.ResetPage(t, "--erase")
	const unit, use = "images, unit's key, hash of the admin password", "logs, history of images"
	rows := map[string]string{
		state.KeyFile: unit, state.HashFile: unit, state.ImageDir + "/" + machinetest.Original + ".upd": unit,
		state.LogDir + "/before.log": use, state.HistoryFile: use,
		state.NetworkFile: "saved network files", state.RestoreDataFile: "restore data (`fr.data`)",
	}
	w.volume(func(v *state.Volume) error {
		return errors.Join(os.MkdirAll(v.Path(state.LogDir), 0o700), os.WriteFile(v.Path(state.LogDir, "before.log"), nil, 0o600),
			v.WriteHistory([]byte("{}")), v.WriteNetwork([]byte("network")), v.WriteRestoreData(state.RestoreData{BootArgs: "quiet"}))
	})
	if out := w.boot(); fault.Of(out.Err) != fault.EraseWeaker {
		t.Fatalf("%+v", out)
	}
	w.volume(func(v *state.Volume) error {
		for file, row := range rows {
			if _, err := os.Stat(v.Path(file)); (err == nil) != keeps(row) {
				t.Errorf("%s: %v", file, err)
			}
		}
		return nil
	})
}

// TestLaw cuts the power at each call and lets each call fail. Nothing is ever taken for complete, and in the end all is erased.
func TestLaw(t *testing.T) {
	w := newWorld(t)
	start := w.r.Clone(t)
	w.policy.Erase.Accept = policy.AcceptRestore
	if out := w.boot(func(int, string) error { return nil }); out.Kind != job.RebootNow {
		t.Fatalf("%+v", out)
	}
	var calls []string
	w.r = start.Clone(t)
	w.boot(func(_ int, call string) error { calls = append(calls, call); return nil })
	at := machinetest.Sampled(calls)
	each := 3
	if testing.Short() {
		each = 32
	}
	first := slices.IndexFunc(calls, func(c string) bool { return c == "write /dev/vdb" }) + 1
	at = slices.DeleteFunc(at, func(n int) bool { return n%each != 0 && n != first && n != first-1 && n < len(calls)-3 })
	t.Logf("%d calls, %d of them tried", len(calls), len(at))
	for _, err := range []error{machinetest.ErrCut, syscall.EIO} {
		for _, n := range at {
			w.r = start.Clone(t)
			call := ""
			out := w.boot(func(k int, c string) error {
				if k != n {
					return nil
				}
				call = c
				return fmt.Errorf("call %d, %s: %w", n, c, err)
			})
			if n >= first && w.marked() {
				t.Errorf("%v at call %d, %s: the main system counts as complete", err, n, call)
			}
			for boots := 0; out.Kind != job.RebootNow && boots < 6; boots++ {
				if e, r := w.erase(); e == nil && r.Kind != state.KindErase {
					t.Errorf("%v at call %d, %s: nothing says that an erase is to go on", err, n, call)
				}
				out = w.boot()
				if f := fault.Of(out.Err); f == fault.EraseFailed || f == fault.EraseUnknown { // a flush that failed is not forgotten: another run
					w.volume(func(v *state.Volume) error {
						q, err := state.NewRequest(state.KindErase, "", "another run", time.Now())
						return errors.Join(err, v.WriteRequest(q))
					})
				}
			}
			v := w.certificate().Volume
			if v == nil || v.Name == "" || errors.Is(err, machinetest.ErrCut) && v.Outcome != erasure.Weaker {
				t.Errorf("%v at call %d, %s: recovery volume: %+v", err, n, call, v)
			}
			e, r := w.state()
			if out.Kind != job.RebootNow || !e.Resolved || e.Outcome != erasure.Weaker || r.Kind != state.KindRestore || w.left("vdb") != 0 ||
				w.certificate().Outcome != erasure.Weaker {
				t.Fatalf("%v at call %d, %s: ends elsewhere: %+v, %+v, %+v, %d sectors left", err, n, call, out, e, r, w.left("vdb"))
			}
		}
	}
}

// erase returns what is known of an erase; nil if nothing is.
func (w *world) erase() (*state.Erase, state.Request) {
	w.t.Helper()
	var e *state.Erase
	var r state.Request
	w.volume(func(v *state.Volume) error {
		if x, err := state.ReadErase(v); err == nil {
			e = &x
		}
		r, _ = v.ReadRequest()
		return nil
	})
	return e, r
}

// TestFailed: a disk that does not take writes has failed. That survives reboots until another run.
func TestFailed(t *testing.T) {
	w := newWorld(t)
	w.policy.Erase.Accept = policy.AcceptRestore
	deaf := func(_ int, call string) error {
		if call == "write /dev/vdb" {
			return syscall.EIO
		}
		return nil
	}
	if out := w.boot(deaf); out.Kind != job.HoldOn || fault.Of(out.Err) != fault.EraseFailed || w.left("vdb") == 0 {
		t.Fatalf("%+v", out)
	}
	if c := w.certificate(); c.Outcome != erasure.Failed || w.marked() {
		t.Errorf("certificate: %+v", c)
	}
	if out := w.boot(); fault.Of(out.Err) != fault.EraseFailed || len(w.r.Written()) != 0 {
		t.Errorf("after a reboot: %+v", out)
	}
	w.volume(func(v *state.Volume) error {
		q, err := state.NewRequest(state.KindErase, "", "another run", time.Now())
		return errors.Join(err, v.WriteRequest(q))
	})
	if out := w.boot(); out.Kind != job.RebootNow || w.left("vdb") != 0 {
		t.Errorf("another run: %+v", out)
	}
}

// TestDamaged: without a certificate that holds nothing counts as erased.
func TestDamaged(t *testing.T) {
	w := newWorld(t)
	w.boot()
	w.policy.Erase.Accept = policy.AcceptRestore
	w.volume(func(v *state.Volume) error {
		b, err := state.ReadEraseFile(v, certificateFile)
		return errors.Join(err, state.WriteEraseFile(v, certificateFile, bytes.Replace(b, []byte("weaker"), []byte("proved"), 1)))
	})
	if out := w.boot(); fault.Of(out.Err) != fault.EraseUnknown {
		t.Errorf("%+v", out)
	}
	w.volume(func(v *state.Volume) error { return state.RemoveEraseFile(v, runFile) })
	if out := w.boot(); fault.Of(out.Err) != fault.EraseUnknown {
		t.Errorf("%+v", out)
	}
}

// simulated makes a simulated drive the main disk of a unit.
func simulated(t *testing.T, c simdrive.Config, f simdrive.Faults) *world {
	t.Helper()
	w := newWorld(t)
	c.SectorSize, c.Sectors = 512, diskSize/512
	sim := simdrive.New(c, f, w.clock)
	w.r.Remove("vdb")
	d := block.Disk{Name: "nvme0n1", Bus: block.NVMe, Model: c.Model, Serial: c.Serial, Size: diskSize}
	if c.Protocol == simdrive.ATA {
		d.Name, d.Bus, d.Rotational, d.Vendor = "sdb", block.SATA, !c.Flash, "ATA"
	}
	w.r.AddDisk(d)
	w.sims[d.Name] = sim
	w.u.Main[0] = machine.DiskRecord(w.disk(d.Name), w.u.Main[0].Table)
	w.volume(func(v *state.Volume) error { return v.WriteUnit(w.u) })
	return w
}

// TestSimulated: drives that take commands are erased by them, and one that lies is not taken for erased.
func TestSimulated(t *testing.T) {
	for name, c := range map[string]struct {
		config  simdrive.Config
		faults  simdrive.Faults
		policy  policy.Erase
		outcome erasure.Outcome
		level   erasure.Level
		fault   *fault.Fault
	}{
		"honest NVMe": {simdrive.NVMeDisk(1), simdrive.Faults{}, policy.Erase{Require: policy.ErasePurge}, erasure.Proved, erasure.Purge, nil},
		"honest SATA": {simdrive.SATADisk(1), simdrive.Faults{}, policy.Erase{}, erasure.Proved, erasure.Purge, nil},
		"fails":       {simdrive.NVMeDisk(1), simdrive.Faults{FailAtEnd: true}, policy.Erase{}, erasure.Failed, "", fault.EraseFailed},
		"too weak": {simdrive.SATADisk(1), simdrive.Faults{Nothing: true}, policy.Erase{Require: policy.ErasePurge}, erasure.Failed, "",
			fault.EraseFailed},
	} {
		t.Run(name, func(t *testing.T) {
			w := simulated(t, c.config, c.faults)
			w.policy.Erase = c.policy
			out := w.boot()
			if fault.Of(out.Err) != c.fault || (out.Kind == job.RebootNow) != (c.fault == nil) {
				t.Errorf("%+v", out)
			}
			got := w.certificate()
			if got.Outcome != c.outcome || c.level != "" && got.Level != c.level {
				t.Errorf("%s %s: %q", got.Outcome, got.Level, got.Drives[0].Reasons)
			}
			for _, sim := range w.sims {
				if readable, _ := sim.Residue(); readable > 0 && c.fault == nil {
					t.Errorf("%d sectors are left", readable)
				}
			}
		})
	}
}

// TestPermit: the permit of the plan is refused for every other disk of the machine, and for one that is in use.
func TestPermit(t *testing.T) {
	w := simulated(t, simdrive.NVMeDisk(1), simdrive.Faults{})
	other := simdrive.NVMeDisk(2)
	other.SectorSize, other.Sectors, other.Serial, other.Number = 512, diskSize/512, "N0002", drive.Number{Major: 259, Minor: 8}
	w.r.AddDisk(block.Disk{Name: "nvme1n1", Bus: block.USB, Model: other.Model, Serial: other.Serial, Size: diskSize, Removable: true})
	w.sims["nvme1n1"] = simdrive.New(other, simdrive.Faults{}, w.clock)
	e, f := w.look()
	p, err := makePlan(e.Machine, f)
	must(t, err)
	if len(p.Disks) != 1 || p.Disks[0].disk().Name != "nvme0n1" {
		t.Fatalf("the plan is %+v", p)
	}
	open := func(name string) *machine.Drive {
		t.Helper()
		d, err := machine.OpenDrive(e.Machine, w.disk(name).Path, true)
		must(t, err)
		return d
	}
	own := open("nvme0n1")
	permit, err := p.Disks[0].permit(own, diskSize)
	must(t, err)
	if err := own.Commands.Check(permit); err != nil {
		t.Errorf("the disk of the plan: %v", err)
	}
	if err := open("nvme1n1").Commands.Check(permit); !errors.Is(err, drive.ErrNotPermitted) {
		t.Errorf("another disk: %v", err)
	}
	if _, err := p.Disks[0].permit(open("nvme1n1"), diskSize); !errors.Is(err, drive.ErrNotPermitted) {
		t.Errorf("a permit is made for another disk: %v", err)
	}
	for _, change := range []func(d *block.Disk){
		func(d *block.Disk) { d.Serial = "N0003" }, func(d *block.Disk) { d.Model = "Other" }, func(d *block.Disk) { d.Size = 2 * diskSize },
	} {
		q := planned{Disks: slices.Clone(p.Disks[0].Disks)}
		change(&q.Disks[0])
		if _, err := q.permit(own, q.disk().Size); !errors.Is(err, drive.ErrNotPermitted) {
			t.Errorf("a permit is made for %+v: %v", q.disk(), err)
		}
	}
	w.sims["nvme0n1"].SetUsers("mounted at /")
	if err := own.Commands.Check(permit); !errors.Is(err, drive.ErrNotPermitted) {
		t.Errorf("a disk that is mounted: %v", err)
	}
	for _, name := range []string{"vda", "sda"} { // the recovery volume, and a stick of somebody
		d := &desk{m: e.Machine, p: planned{Disks: []block.Disk{w.disk(name)}}}
		must(t, d.sit())
		d.p.Disks[0].Serial = "MAIN"
		if err := d.allowed(); err == nil {
			t.Errorf("%s may be written to", name)
		}
		must(t, d.leave())
		if err := d.sit(); !errors.Is(err, drive.ErrNotPermitted) {
			t.Errorf("%s is opened for the disk of the plan: %v", name, err)
		}
	}
	for _, s := range w.sims["nvme1n1"].Sent() {
		if s.Command[0] == 0x84 || s.Command[0] == 0x80 { // Sanitize, Format NVM
			t.Error("a disk that is not of the plan was sent an erase")
		}
	}
}

// TestInUse: a disk without commands is not opened while a part of it is mounted, and not written to when it is in use, not claimed any
// more, or another one.
func TestInUse(t *testing.T) {
	w := newWorld(t)
	e, f := w.look()
	p, err := makePlan(e.Machine, f)
	must(t, err)
	m, d := e.Machine, &desk{m: e.Machine, p: p.Disks[0]}
	must(t, m.Mount(f.MainPart.Path, m.Places.Main, "ext4", host.MountOptions{ReadOnly: true}))
	if err := d.sit(); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("it is mounted: %v", err)
	}
	must(t, m.Unmount(m.Places.Main))
	must(t, d.sit())
	must(t, d.allowed())
	real := d.drives[0].State
	for what, change := range map[string]func(*drive.State){
		"in use": func(s *drive.State) { s.Users = []string{"mounted at /"} }, "not claimed": func(s *drive.State) { s.Claimed = false },
		"of another size": func(s *drive.State) { s.Size++ }, "another disk": func(s *drive.State) { s.Number.Minor++ },
	} {
		d.drives[0].State = func() (drive.State, error) {
			s, err := real()
			change(&s)
			return s, err
		}
		if err := d.allowed(); err == nil {
			t.Errorf("it may be written to, and is %s", what)
		}
	}
	d.drives[0].State = real
	must(t, d.allowed())
	w.r.Replace("vdb", "OTHER")
	if err := d.allowed(); err == nil {
		t.Error("it was replaced by another disk")
	}
	must(t, d.leave())
}

// TestTwo: two disks are erased at once, each has its line in the certificate, and one that fails makes the whole fail.
func TestTwo(t *testing.T) {
	for name, deaf := range map[string]bool{"both": false, "one fails": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.policy.Erase.Accept = policy.AcceptRestore
			w.r.AddDisk(block.Disk{Name: "vdc", Bus: block.VirtIO, Serial: "MAIN2", Size: diskSize})
			second := w.u.Main[0]
			second.Serial = "MAIN2"
			w.u.Main = append(w.u.Main, second)
			must(t, os.WriteFile(w.disk("vdc").Path, bytes.Repeat(pattern, diskSize/len(pattern)), 0o600))
			w.volume(func(v *state.Volume) error { return v.WriteUnit(w.u) })
			out := w.boot(func(_ int, call string) error {
				if deaf && call == "write /dev/vdc" {
					return syscall.EIO
				}
				return nil
			})
			c := w.certificate()
			if len(c.Drives) != 2 || c.Drives[0].Name != "vdb" || c.Drives[1].Name != "vdc" || c.Drives[0].Outcome != erasure.Weaker {
				t.Fatalf("%+v", c)
			}
			if w.left("vdb") != 0 || (w.left("vdc") != 0) != deaf || (c.Outcome == erasure.Failed) != deaf || (out.Kind == job.HoldOn) != deaf {
				t.Errorf("%s, %d and %d sectors are left: %+v", c.Outcome, w.left("vdb"), w.left("vdc"), out)
			}
		})
	}
}

// TestMissing: a main disk of the record that is not there is not erased, and the certificate says so.
func TestMissing(t *testing.T) {
	w := newWorld(t)
	lost := w.u.Main[0]
	lost.Serial, lost.Table = "LOST", layout.Table{}
	w.u.Main = append(w.u.Main, lost)
	e, f := w.look()
	f.Unit = w.u
	p, err := makePlan(e.Machine, f)
	must(t, err)
	if len(p.Disks) != 2 || p.Disks[0].Missing || !p.Disks[1].Missing || p.Disks[1].disk().Serial != "LOST" {
		t.Fatalf("%+v", p.Disks)
	}
	d := p.Disks[1].unerased("the drive is not there")
	if v := erasure.Judge(d.Evidence, ""); v.Outcome != erasure.Failed || len(d.NotReached) != 1 {
		t.Errorf("%+v", d)
	}
}

// TestAround: where the recovery volume is on the main disk, all but that and what starts the unit is erased.
func TestAround(t *testing.T) {
	r := machinetest.NewUnit(t, machinetest.Kind{Firmware: layout.UEFI, OneDisk: true, Data: true})
	m := machinetest.Machine(r)
	u := machinetest.Provision(r, m)
	r.Start(nil)
	e, f := jobtest.Look(t, machinetest.Machine(r))
	p, err := makePlan(e.Machine, f)
	must(t, err)
	if len(p.Disks) != 1 || !p.Disks[0].shares() {
		t.Fatalf("%+v", p)
	}
	table := u.Main[0].Table
	for _, part := range table.Partitions {
		var n int64
		for _, s := range p.Disks[0].Spans {
			n += max(0, min(s.Start+s.Size, part.Start+part.Size)-max(s.Start, part.Start))
		}
		want := int64(0)
		if part.Role == layout.Primary || part.Role == layout.Data {
			want = min(part.Start+part.Size, machinetest.MainSize-margin) - part.Start
		}
		if n != want {
			t.Errorf("%s: %d bytes are erased, want %d", part.Role, n, want)
		}
	}
	for _, s := range p.Disks[0].Spans {
		if s.Start < margin || s.Start+s.Size > machinetest.MainSize-margin || s.Start%4096 != 0 || s.Size%4096 != 0 {
			t.Errorf("%+v is erased", s)
		}
	}
	// A table that is not the recorded one is left alone.
	f.Unit.Main[0].Table.Partitions[0].Size += layout.MiB
	if _, err := makePlan(e.Machine, f); fault.Of(err) != fault.TableChanged {
		t.Errorf("another table: %v", err)
	}
}

// TestShared: a drive with the recovery volume on it is open while it is written to, and not while the volume is mounted.
func TestShared(t *testing.T) {
	r := machinetest.NewUnit(t, machinetest.Kind{Firmware: layout.UEFI, OneDisk: true})
	machinetest.Provision(r, machinetest.Machine(r))
	r.Start(nil)
	e, f := jobtest.Look(t, machinetest.Machine(r))
	d := &desk{m: e.Machine, p: planned{Disks: []block.Disk{f.RecoveryPart.Disk}, Spans: []span{{7 * layout.GiB, layout.MiB}}}}
	b := &book{volume: e.Volume, shared: []*desk{d}}
	must(t, d.sit())
	content := make([]byte, 4096)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	for range 2 {
		if _, err := (blocks{d, 0}).WriteAt(content, 7*layout.GiB); err != nil {
			t.Fatal(err)
		}
		must(t, d.allowed())
		err := b.change(func(v *state.Volume) error { return state.WriteEraseFile(v, "note", []byte("x")) })
		if err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, 4096)
	if _, err := (blocks{d, 0}).ReadAt(got, 7*layout.GiB); err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(got, content) {
		t.Errorf("another content: %v", err)
	}
	must(t, d.leave())
	if _, err := (blocks{d, 0}).ReadAt(got, 0); !errors.Is(err, errAway) {
		t.Errorf("after it was left: %v", err)
	}
}

// TestSharedRun: where the recovery volume is on the same drive an erase goes on as planned, writes down how far it is, and reaches nothing
// but its ranges.
func TestSharedRun(t *testing.T) {
	const at = 7 * layout.GiB
	w := &world{t: t, r: machinetest.NewUnit(t, machinetest.Kind{Firmware: layout.UEFI, OneDisk: true}), clock: &simdrive.Clock{}}
	m := machinetest.Machine(w.r)
	w.u = machinetest.Provision(w.r, m)
	disk := w.disk("vdb")
	f, err := os.OpenFile(disk.Path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt(bytes.Repeat(pattern, 3*layout.MiB/len(pattern)), at-layout.MiB)
	must(t, err)
	e := entry{ID: "0123456789abcdef", Started: time.Now().UTC().Truncate(time.Second), Drives: make([]progress, 1)}
	e.Plan.Disks = []planned{{
		Disks: []block.Disk{disk}, Spans: []span{{at, layout.MiB}}, Media: erasure.UnknownMedia, Path: erasure.Virtual,
	}}
	w.volume(func(v *state.Volume) error {
		return errors.Join(writeJSON(v, runFile, e), state.WriteErase(v, state.Erase{ID: e.ID, Started: e.Started}), v.DeleteRequest())
	})
	if out := w.boot(); fault.Of(out.Err) != fault.EraseWeaker {
		t.Fatalf("%+v", out)
	}
	got := make([]byte, 3*layout.MiB)
	_, err = f.ReadAt(got, at-layout.MiB)
	must(t, err)
	around := append(slices.Clone(got[:layout.MiB]), got[2*layout.MiB:]...)
	if bytes.Contains(got[layout.MiB:2*layout.MiB], pattern) || !bytes.Equal(around, bytes.Repeat(pattern, len(around)/len(pattern))) {
		t.Error("the range is not erased, or something around it is")
	}
	c := w.certificate()
	if d := c.Drives[0]; !d.Evidence.Part || !slices.Contains(d.Reasons, "part") || d.Bytes != machinetest.MainSize ||
		c.Outcome != erasure.Weaker {
		t.Errorf("%+v", d)
	}
}

// told is a server that notes what it is told.
type told struct {
	before   []record.EraseBefore
	erased   []record.EraseSubmission
	err      error
	onBefore func()
}

func (s *told) DriveBefore(_ context.Context, b record.EraseBefore) error {
	s.onBefore()
	s.before = append(s.before, b)
	return errors.Join(b.Validate(), s.err)
}

func (s *told) Erased(_ context.Context, e record.EraseSubmission) (record.EraseReply, error) {
	s.erased = append(s.erased, e)
	return record.EraseReply{Voucher: []byte("voucher"), Proof: []byte("proof")}, s.err
}

// TestServer: the server hears what a drive was before anything is written, gets the certificate, and hears that it was accepted. One that
// refuses all that changes nothing.
func TestServer(t *testing.T) {
	for name, refuses := range map[string]error{"answers": nil, "refuses": errors.New("not now")} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.policy.Erase.Accept = policy.AcceptRestore
			all := w.left("vdb")
			s := &told{err: refuses}
			s.onBefore = func() {
				if n := w.left("vdb"); n != all || slices.Contains(w.r.Calls(), "write /dev/vdb") {
					t.Errorf("%d of %d sectors are left before the server was told", n, all)
				}
			}
			w.server = s
			if out := w.boot(); out.Kind != job.RebootNow {
				t.Fatalf("%+v", out)
			}
			if len(s.before) != 1 || s.before[0].Name != "vdb" || len(s.erased) != 2 || s.erased[0].Accepted || !s.erased[1].Accepted {
				t.Errorf("told: %+v, %d certificates", s.before, len(s.erased))
			}
			if c, err := erasure.ParseSigned(s.erased[1].Certificate, s.erased[1].Signature); err != nil || c.Run != s.before[0].Run {
				t.Errorf("run %s: %v", c.Run, err)
			}
			w.volume(func(v *state.Volume) error {
				b, err := state.ReadEraseFile(v, proofFile)
				if (err == nil) != (refuses == nil) || err == nil && string(b) != "proof" {
					t.Errorf("kept: %q, %v", b, err)
				}
				return nil
			})
		})
	}
}

// TestOffice: who asks for the server waits a while for it, and not for one that is nowhere.
func TestOffice(t *testing.T) {
	var none *office
	if none.await(t.Context()) != nil {
		t.Error("there is a server")
	}
	o := newOffice()
	s := &told{}
	go o.found(s)
	if o.await(t.Context()) != s {
		t.Error("the server was not awaited")
	}
	late := newOffice()
	late.until = time.Now()
	if late.await(t.Context()) != nil {
		t.Error("a server that is not there")
	}
}

// deaf is a server that answers nothing: it takes neither records nor a certificate before who asks gives up.
type deaf struct {
	told
	asked time.Time
	left  time.Duration
}

func (*deaf) Send(ctx context.Context, _ []record.Event) (record.BatchReply, error) {
	<-ctx.Done()
	return record.BatchReply{}, ctx.Err()
}

func (s *deaf) Erased(ctx context.Context, _ record.EraseSubmission) (record.EraseReply, error) {
	end, _ := ctx.Deadline()
	s.asked, s.left = time.Now(), time.Until(end)
	<-ctx.Done()
	return record.EraseReply{}, ctx.Err()
}

// TestAnswerPatience: a server that does not take the records in their time has as much time again for the certificate.
func TestAnswerPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, q := &deaf{}, report.NewQueue("boot")
		q.Add(record.Event{Kind: record.KindLog, Message: "a record of the erase"})
		q.Start(s)
		j := &erasing{env: job.Env{Machine: &machine.Machine{Log: slog.New(slog.DiscardHandler)}, Queue: q}, office: newOffice()}
		j.office.found(s)
		began := time.Now()
		if j.submit(t.Context(), nil, nil, false) {
			t.Error("the server has it")
		}
		if first := s.asked.Sub(began); first != answerPatience || s.left != answerPatience || time.Since(began) != 2*answerPatience {
			t.Errorf("the records had %s, the certificate %s, both %s", first, s.left, time.Since(began))
		}
		must(t, q.Close())
	})
}

// TestSupportResolves: after an erase that has failed the unit goes on for an answer of support to this unit's own challenge for this
// certificate, and for nothing else. What the certificate says stays, and who it was is written down.
func TestSupportResolves(t *testing.T) {
	w := newWorld(t)
	deaf := func(_ int, call string) error {
		if call == "write /dev/vdb" {
			return syscall.EIO
		}
		return nil
	}
	if out := w.boot(deaf); fault.Of(out.Err) != fault.EraseFailed {
		t.Fatalf("%+v", out)
	}
	var file []byte
	w.volume(func(v *state.Volume) (err error) { file, err = state.ReadEraseFile(v, certificateFile); return err })
	own, revoked := keytest.New(t), keytest.New(t)
	old := challenge.NewErase(machinetest.Serial, file)
	by := func(k signature.PrivateKey, c challenge.Challenge) string {
		t.Helper()
		a, err := c.Answer(k)
		must(t, err)
		return a
	}
	nothing := func(challenge.Challenge) string { return "" }
	failed := w.r.Clone(t)
	for name, c := range map[string]struct {
		kind     decide.ChoiceKind
		keys     []signature.PrivateKey
		types    func(challenge.Challenge) string
		resolved string
	}{
		"answered": {decide.ChooseResolve, []signature.PrivateKey{own}, func(q challenge.Challenge) string { return by(own, q) },
			own.Public().ID()},
		"by a key that is revoked": {decide.ChooseResolve, []signature.PrivateKey{own},
			func(q challenge.Challenge) string { return by(revoked, q) }, ""},
		"by that key, in an older artifact": {decide.ChooseResolve, []signature.PrivateKey{own, revoked},
			func(q challenge.Challenge) string { return by(revoked, q) }, revoked.Public().ID()},
		"an answer of before": {decide.ChooseResolve, []signature.PrivateKey{own},
			func(challenge.Challenge) string { return by(own, old) }, ""},
		"for another unit": {decide.ChooseResolve, []signature.PrivateKey{own},
			func(challenge.Challenge) string { return by(own, challenge.NewErase("ANOTHER", file)) }, ""},
		"for another certificate": {decide.ChooseResolve, []signature.PrivateKey{own},
			func(challenge.Challenge) string { return by(own, challenge.NewErase(machinetest.Serial, []byte("x"))) }, ""},
		"for the shell": {decide.ChooseResolve, []signature.PrivateKey{own},
			func(challenge.Challenge) string { return by(own, challenge.New(machinetest.Serial)) }, ""},
		"given up":           {decide.ChooseResolve, []signature.PrivateKey{own}, nothing, ""},
		"no keys":            {decide.ChooseResolve, nil, func(q challenge.Challenge) string { return by(own, q) }, ""},
		"nobody chose that":  {decide.NoChoice, []signature.PrivateKey{own}, func(q challenge.Challenge) string { return by(own, q) }, ""},
		"another was chosen": {decide.ChooseLatest, []signature.PrivateKey{own}, nothing, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{t: t, r: failed.Clone(t), u: w.u, clock: w.clock}
			for _, k := range c.keys {
				w.policy.SupportKeys = append(w.policy.SupportKeys, k.Public().String())
			}
			asked := 0
			w.choice = c.kind
			w.panel = &script.Panel{Answer: func(a panel.Asked) []panel.Key {
				q, err := challenge.Parse(strings.TrimPrefix(a.Title, "answer to "))
				if asked++; err != nil || q.Serial() != machinetest.Serial || q.Digest() != challenge.Digest(file) || q == old {
					t.Errorf("asked %q: %v", a.Title, err)
				}
				text := c.types(q)
				if asked > 1 {
					text = ""
				}
				return append([]panel.Key(text), panel.KeyEnter)
			}}
			out := w.boot()
			e, r := w.state()
			if w.certificate().Outcome != erasure.Failed || e.Outcome != erasure.Failed || len(w.r.Written()) != 0 {
				t.Errorf("the outcome is another one: %+v, written %q", e, w.r.Written())
			}
			if c.resolved == "" {
				if fault.Of(out.Err) != fault.EraseFailed || e.Resolved || e.ResolvedBy != "" || r.Kind != state.KindErase {
					t.Errorf("%+v, %+v", out, e)
				}
				return
			}
			if out.Kind != job.RebootNow || !e.Resolved || e.ResolvedBy != c.resolved || time.Since(e.ResolvedAt).Abs() > time.Hour ||
				r.Kind != state.KindRestore || asked != 1 {
				t.Errorf("%+v, %+v, %+v", out, e, r)
			}
		})
	}
}

// screen is a terminal of 100 by 37 and the person before it, who looks at the codes once and then presses another key.
type screen struct {
	t    *testing.T
	keys chan panel.Key
	// codes are the pictures of all codes that were shown, and asked is how often they were offered.
	codes []string
	asked int
}

func (s *screen) Write(b []byte) (int, error) {
	const empty = "\x1b[2J\x1b[H"
	text := string(b)
	if i := strings.LastIndex(text, empty); i >= 0 && strings.Contains(text, "Code ") {
		lines := strings.Split(text[i+len(empty):], "\n")
		if len(lines) > 37 || !strings.HasPrefix(lines[len(lines)-1], "Code ") {
			s.t.Errorf("%d lines, the last one is %q", len(lines), lines[len(lines)-1])
		}
		s.codes = append(s.codes, text[i+len(empty):])
		var n, of int
		if _, err := fmt.Sscanf(lines[len(lines)-1], "Code %d of %d: ", &n, &of); err != nil {
			s.t.Error(err)
		}
		s.keys <- map[bool]panel.Key{true: 'c', false: 'q'}[n < of]
	}
	if strings.Contains(text, "(C shows it as codes)") {
		s.asked++
		s.keys <- panel.Key("cx"[min(s.asked, 2)-1])
	}
	return len(b), nil
}

// photograph makes a picture of a screen of 8 by 16 pixels each character, and has another program read the code on it.
func photograph(t *testing.T, screen string) string {
	t.Helper()
	picture := image.NewGray(image.Rect(0, 0, 100*8, 37*16))
	for y, line := range strings.Split(screen, "\n") {
		x := 0
		for _, c := range line {
			for at := range 8 * 16 {
				if upper := at < 8*8; c == '█' || upper && c == '▀' || !upper && c == '▄' {
					picture.SetGray(x*8+at%8, y*16+at/8, color.Gray{Y: 170})
				}
			}
			x++
		}
	}
	file := filepath.Join(t.TempDir(), "screen.png")
	f, err := os.Create(file)
	if err == nil {
		err = errors.Join(png.Encode(f, picture), f.Close())
	}
	must(t, err)
	out, err := exec.CommandContext(t.Context(), "zbarimg", "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", file).Output()
	if err != nil {
		t.Fatalf("the code is not read: %v\n%s", err, screen)
	}
	return string(out)
}

// TestCodesOnAScreen: where the certificate reached nothing but the recovery volume, the codes on a screen give it back byte for byte, to a
// reader that knows nothing of how they were drawn. They are there from the menu, and at a key while the outcome is shown.
func TestCodesOnAScreen(t *testing.T) {
	if _, err := exec.LookPath("zbarimg"); err != nil {
		if os.Getenv("GPROV_NO_SKIP") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	w := newWorld(t)
	if out := w.boot(); fault.Of(out.Err) != fault.EraseWeaker {
		t.Fatalf("%+v", out)
	}
	var want [2][]byte
	w.volume(func(v *state.Volume) (err error) {
		for i, name := range []string{certificateFile, signatureFile} {
			b, rerr := state.ReadEraseFile(v, name)
			want[i], err = b, errors.Join(err, rerr)
		}
		return err
	})
	s := &screen{t: t, keys: make(chan panel.Key, 256)}
	w.choice = decide.ChooseCodes
	w.panel = panel.Console(s, panel.ConsoleOptions{Terminal: true, Keys: s.keys, Size: func() (int, int) { return 100, 37 }})
	if out := w.boot(); out.Kind != job.RebootNow || s.asked != 2 {
		t.Fatalf("%+v, offered %d times", out, s.asked)
	}
	n := len(s.codes) / 2
	if n < 2 || len(s.codes) != 2*n {
		t.Fatalf("%d codes", len(s.codes))
	}
	for _, codes := range [][]string{s.codes[:n], s.codes[n:]} {
		var texts strings.Builder
		for i, c := range codes {
			if says := fmt.Sprintf("Code %d of %d: ", i+1, n); !strings.Contains(c, says) {
				t.Errorf("it does not say %q", says)
			}
			texts.WriteString(photograph(t, c))
		}
		file, sig, err := erasure.ParseCodes(texts.String())
		if err != nil || !bytes.Equal(file, want[0]) || !bytes.Equal(sig, want[1]) {
			t.Errorf("another certificate came back: %v", err)
		}
	}
}
