package erase

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/host"
	"gprovision/lab/simdrive"
	"gprovision/model/erasure"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// somebody is a person at a panel, who answers questions by their titles with the number of an option, and presses a key at what stays
// until it was read.
type somebody struct {
	*script.Panel
	seen string
	// asked are the titles of the questions.
	asked []string
}

func newSomebody(answers map[string]int) *somebody {
	s := &somebody{Panel: &script.Panel{}}
	s.Answer = func(q panel.Asked) []panel.Key {
		s.asked = append(s.asked, q.Title)
		return []panel.Key{panel.Key('1' + answers[q.Title])}
	}
	return s
}

func (s *somebody) Show(v panel.View) error {
	err := s.Panel.Show(v)
	now := v.Message
	if v.Problem != nil {
		now = v.Problem.Code + v.Problem.Detail
	}
	if v.Ask == nil && now != s.seen && (v.Problem != nil || strings.HasPrefix(now, "Erased")) {
		s.seen = now
		s.Press('x')
	}
	return err
}

// shown are the messages and the details of problems that somebody has seen.
func (s *somebody) shown() string {
	var out []string
	for _, v := range s.Views() {
		out = append(out, v.Message)
		if v.Problem != nil {
			out = append(out, v.Problem.Detail)
		}
	}
	return strings.Join(slices.Compact(out), "\n")
}

// wholeSize is that of the only disk of a unit that is erased as a whole.
const wholeSize = 24 * layout.MiB

// newWhole makes a unit with one disk, on which the recovery volume is too, a complete system, and all else full of a customer's data. Its
// policy lets that be erased as a whole, and a person has chosen it.
func newWhole(t *testing.T, disk block.Disk) *world {
	t.Helper()
	w := &world{t: t, r: machinetest.NewUnit(t, machinetest.Kind{Firmware: layout.UEFI, OneDisk: true}), sims: map[string]*simdrive.Drive{},
		clock: &simdrive.Clock{}}
	m := machinetest.Machine(w.r)
	w.u = machinetest.Provision(w.r, m)
	content := t.TempDir()
	must(t, os.CopyFS(content, os.DirFS(w.r.Volume(w.u.Recovery.Table.Find(layout.Recovery).FSUUID))))
	w.r.Remove("vdb")
	disk.Size = wholeSize
	w.r.AddDisk(disk)
	table := w.u.Main[0].Table
	recovery, primary := *table.Find(layout.Recovery), *table.Find(layout.Primary)
	recovery.Number, recovery.Start, recovery.Size = 1, layout.MiB, 8*layout.MiB
	primary.Number, primary.Start, primary.Size = 2, 9*layout.MiB, 14*layout.MiB
	table.Partitions = []layout.Partition{recovery, primary}
	w.u.Main = []state.Disk{machine.DiskRecord(w.disk(disk.Name), table)}
	w.u.Recovery = w.u.Main[0]
	w.policy.Erase.OneDisk = policy.OneDiskWhole
	m = w.machine()
	path := w.disk(disk.Name).Path
	must(t, m.WriteTable(path, table))
	must(t, m.Format(t.Context(), path, table, []layout.Role{layout.Recovery, layout.Primary}))
	must(t, m.Mount(block.PartitionPath(path, 1), m.Places.Recovery, "ext4", host.MountOptions{}))
	must(t, os.CopyFS(m.Places.Recovery, os.DirFS(content)))
	v := state.Open(m.Places.Recovery)
	must(t, errors.Join(v.WriteUnit(w.u), v.DeleteRequest(), m.Unmount(m.Places.Recovery)))
	full, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	for _, p := range table.Partitions { // the heads stay
		_, err = full.WriteAt(bytes.Repeat(pattern, int(p.Size-layout.MiB)/len(pattern)), p.Start+layout.MiB)
		must(t, err)
	}
	must(t, full.Close())
	mark, err := state.Mark{Release: machinetest.Original, Serial: w.u.Serial}.Marshal()
	must(t, err)
	must(t, m.Mount(block.PartitionPath(path, 2), m.Places.Main, "ext4", host.MountOptions{}))
	must(t, os.WriteFile(filepath.Join(m.Places.Main, m.Site.Names.Mark), mark, 0o600))
	must(t, m.Unmount(m.Places.Main))
	return w
}

// vdb is a disk without commands.
func vdb() block.Disk { return block.Disk{Name: "vdb", Bus: block.VirtIO, Serial: "MAIN"} }

// chooses has somebody at the machine in the next boots, who has chosen the erase if choice says so.
func (w *world) chooses(s *somebody, choice decide.Choice) {
	w.with = func(e *job.Env, f *survey.Findings) {
		if s != nil {
			e.Machine.Panel.Add("somebody", s)
		}
		f.Choice = choice
	}
	w.choice = choice.Kind
}

func wholeErase() decide.Choice { return decide.Choice{Kind: decide.ChooseErase, Whole: true} }

// decision is what the unit decides when it is switched on.
func (w *world) decision() decide.Decision {
	w.t.Helper()
	e, f := w.look()
	return decide.Decide(f.Facts, e.Machine.Policy)
}

// hasTable reports whether anything of a partition table is on the disk: firmware may use more of it than we do.
func (w *world) hasTable() bool {
	b, err := os.ReadFile(w.disk("vdb").Path)
	must(w.t, err)
	return bytes.Contains(b[:margin], []byte("EFI PART")) || bytes.Contains(b[len(b)-margin:], []byte("EFI PART"))
}

// key is the public key of the unit.
func (w *world) key() (key ed25519.PublicKey) {
	w.t.Helper()
	w.volume(func(v *state.Volume) error {
		k, err := v.ReadKey()
		if err == nil {
			key = k.Public().(ed25519.PublicKey)
		}
		return err
	})
	return key
}

// TestWhole: the only disk of a unit is erased as a whole. The certificate, which the unit's key has signed, is at the server, the screen
// says so, and the unit is switched off. Nothing starts from that disk any more.
func TestWhole(t *testing.T) {
	w := newWhole(t, vdb())
	if d := w.decision(); d.Job != decide.Boot || w.left("vdb") == 0 {
		t.Fatalf("%s; there is nothing to erase", d)
	}
	w.volume(func(v *state.Volume) error { // an older request asks for less
		q, err := state.NewRequest(state.KindErase, "", "an older one", time.Now())
		return errors.Join(err, v.WriteRequest(q))
	})
	key, chip := w.key(), withTPM(w)
	s, p := &told{onBefore: func() {}}, newSomebody(nil)
	w.server = s
	w.chooses(p, wholeErase())
	if out := w.boot(); out.Kind != job.PowerOffNow {
		t.Fatalf("%+v; shown %s", out, p.shown())
	}
	if n := w.left("vdb"); n != 0 || !slices.Equal(w.r.Written(), []string{"vdb"}) {
		t.Errorf("%d sectors are left, written to %q", n, w.r.Written())
	}
	if len(s.before) != 1 || len(s.erased) != 2 || s.erased[0].Accepted || !s.erased[1].Accepted {
		t.Fatalf("told %+v, %d certificates", s.before, len(s.erased))
	}
	c, err := erasure.ParseSigned(s.erased[0].Certificate, s.erased[0].Signature)
	must(t, err)
	d := c.Drives[0]
	if len(c.Parts) != 1 || c.Parts[0].State != erasure.Cleared || chip.clears != 1 {
		t.Errorf("the TPM: %+v", c.Parts)
	}
	if !key.Equal(ed25519.PublicKey(c.Key)) || c.Outcome != erasure.Weaker || d.Evidence.Part || d.Bytes != wholeSize || len(c.Kept) != 0 ||
		strings.Contains(fmt.Sprint(c.NotReached, d.NotReached), "recovery volume") {
		t.Errorf("certificate: %+v", c)
	}
	if text := p.shown(); !strings.Contains(text, ": server; nothing is left on this unit") || len(p.asked) != 0 {
		t.Errorf("shown %s, asked %q", text, p.asked)
	}
	if w.hasTable() {
		t.Error("there is a partition table")
	}
	if d := w.decision(); d.Job != decide.Hold {
		t.Errorf("afterwards: %s", d)
	}
}

// TestWholeCommands: a drive that takes commands gets those that reach all of it, and is proved.
func TestWholeCommands(t *testing.T) {
	c := simdrive.NVMeDisk(1)
	c.SectorSize, c.Sectors = 512, wholeSize/512
	w := newWhole(t, block.Disk{Name: "nvme0n1", Bus: block.NVMe, Model: c.Model, Serial: c.Serial})
	sim := simdrive.New(c, simdrive.Faults{}, w.clock)
	w.sims["nvme0n1"] = sim
	s, p := &told{onBefore: func() {}}, newSomebody(nil)
	w.server = s
	w.chooses(p, wholeErase())
	if out := w.boot(); out.Kind != job.PowerOffNow {
		t.Fatalf("%+v; shown %s", out, p.shown())
	}
	got, err := erasure.ParseSigned(s.erased[0].Certificate, s.erased[0].Signature)
	must(t, err)
	if readable, _ := sim.Residue(); readable != 0 || got.Outcome != erasure.Proved || got.Level != erasure.Purge || len(s.erased) != 1 {
		t.Errorf("%d sectors are left, %s %s, %d certificates", readable, got.Outcome, got.Level, len(s.erased))
	}
	if text := p.shown(); !strings.Contains(text, "Erased: main disks proved (purge), nothing is left on this unit; certificate ") {
		t.Errorf("shown %s", text)
	}
}

// TestWholeRefused: without the policy's word, a person who chose it, and a place for the certificate nothing is written.
func TestWholeRefused(t *testing.T) {
	request := func(v *state.Volume) error {
		q, err := state.NewRequest(state.KindErase, "", "a test", time.Now())
		q.Whole = true
		return errors.Join(err, v.WriteRequest(q))
	}
	begun := func(v *state.Volume) error {
		return state.WriteErase(v, state.Erase{ID: "0123456789abcdef", Started: time.Now().UTC(), Whole: true})
	}
	for name, c := range map[string]struct {
		change func(*state.Volume) error
		policy policy.Erase
		choice decide.Choice
		person *somebody
		want   *fault.Fault
	}{
		"a request":                   {request, policy.Erase{OneDisk: policy.OneDiskWhole}, decide.Choice{}, newSomebody(nil), fault.Policy},
		"no word of the policy":       {nil, policy.Erase{}, wholeErase(), newSomebody(nil), fault.Policy},
		"begun, and no word any more": {begun, policy.Erase{}, decide.Choice{}, newSomebody(nil), fault.Policy},
		"begun, and nobody is there":  {begun, policy.Erase{OneDisk: policy.OneDiskWhole}, decide.Choice{}, nil, fault.EraseNowhere},
		"nobody wants it nowhere":     {nil, policy.Erase{OneDisk: policy.OneDiskWhole}, wholeErase(), newSomebody(nil), fault.EraseNowhere},
		"nobody can say it":           {nil, policy.Erase{OneDisk: policy.OneDiskWhole}, wholeErase(), nil, fault.EraseNowhere},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWhole(t, vdb())
			if c.change != nil {
				w.volume(c.change)
			}
			w.policy.Erase = c.policy
			w.chooses(c.person, c.choice)
			if out := w.boot(); out.Kind != job.HoldOn || fault.Of(out.Err) != c.want {
				t.Errorf("%+v", out)
			}
			if len(w.r.Written()) != 0 || !w.marked() {
				t.Errorf("written to %q, complete: %t", w.r.Written(), w.marked())
			}
		})
	}
}

// TestWholeNowhere: a person may have no certificate.
func TestWholeNowhere(t *testing.T) {
	w := newWhole(t, vdb())
	p := newSomebody(map[string]int{"No certificate": 1, "Certificate nowhere": 1})
	w.chooses(p, wholeErase())
	if out := w.boot(); out.Kind != job.PowerOffNow || w.left("vdb") != 0 {
		t.Errorf("%+v, %d sectors are left", out, w.left("vdb"))
	}
	if !slices.Equal(p.asked, []string{"No certificate", "Certificate nowhere"}) || !strings.Contains(p.shown(), ": nowhere; nothing") {
		t.Errorf("asked %q, shown %s", p.asked, p.shown())
	}
}

// TestWholeCodes: where there is neither server nor stick a console shows the certificate as QR codes.
func TestWholeCodes(t *testing.T) {
	w := newWhole(t, vdb())
	p := newSomebody(map[string]int{"Certificate nowhere": 2})
	w.chooses(p, wholeErase())
	w.panel = panel.Console(io.Discard, panel.ConsoleOptions{Keys: make(chan panel.Key)})
	pictures := 0
	answer := p.Answer
	p.Answer = func(q panel.Asked) []panel.Key {
		pictures += len(q.Pictures)
		return answer(q)
	}
	if out := w.boot(); out.Kind != job.PowerOffNow || w.left("vdb") != 0 {
		t.Fatalf("%+v; shown %s", out, p.shown())
	}
	if pictures == 0 || !strings.Contains(p.shown(), ": codes on the screen; nothing") ||
		!slices.Equal(p.asked, []string{"Certificate nowhere", "Certificate"}) {
		t.Errorf("%d pictures, asked %q, shown %s", pictures, p.asked, p.shown())
	}
}

// TestWholeStick: a stick that is plugged in when the erase is over takes the certificate.
func TestWholeStick(t *testing.T) {
	w := newWhole(t, vdb())
	p := newSomebody(map[string]int{"No certificate": 1})
	w.chooses(p, wholeErase())
	dir := ""
	answer := p.Answer
	p.Answer = func(q panel.Asked) []panel.Key {
		if q.Title == "Certificate nowhere" && dir == "" {
			dir = w.stick()
		}
		return answer(q)
	}
	if out := w.boot(); out.Kind != job.PowerOffNow || !strings.Contains(p.shown(), ": stick sdb; nothing") {
		t.Fatalf("%+v; shown %s", out, p.shown())
	}
	files, err := filepath.Glob(filepath.Join(dir, "erase-*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("on the stick: %q, %v", files, err)
	}
	file, err := os.ReadFile(files[0])
	must(t, err)
	sig, err := os.ReadFile(files[0] + ".minisig")
	must(t, err)
	if _, err := erasure.ParseSigned(file, sig); err != nil {
		t.Error(err)
	}
}

// stick plugs in a recovery stick and returns the directory of its partition for bundles.
func (w *world) stick() string {
	w.t.Helper()
	path := w.r.AddDisk(block.Disk{Name: "sdb", Bus: block.USB, Removable: true, Serial: "STICK", Size: layout.GiB})
	ids := machine.NewIDs()
	table := layout.Table{Kind: layout.GPT, UUID: ids.UUID(), Partitions: []layout.Partition{
		{Role: layout.ESP, Number: 1, Start: layout.MiB, Size: 100 * layout.MiB, Type: layout.TypeStick, UUID: ids.UUID(), FSUUID: "0000-0001",
			FSLabel: layout.StickLabel},
		{Role: layout.ESP, Number: 2, Start: 200 * layout.MiB, Size: 100 * layout.MiB, Type: layout.TypeData, UUID: ids.UUID(),
			FSUUID: "0000-0002", FSLabel: layout.BundleLabel},
	}}
	m := machinetest.Machine(w.r)
	must(w.t, m.WriteTable(path, table))
	must(w.t, m.Format(w.t.Context(), path, table, []layout.Role{layout.ESP}))
	return w.r.Volume("0000-0002")
}

// TestWholeAgain: a disk that has failed is erased again if a person wants that, with another certificate.
func TestWholeAgain(t *testing.T) {
	w := newWhole(t, vdb())
	s, p := &told{onBefore: func() {}}, newSomebody(nil)
	w.server = s
	w.chooses(p, wholeErase())
	deaf := true
	answer := p.Answer
	p.Answer = func(q panel.Asked) []panel.Key {
		deaf = deaf && q.Title != "Erase failed"
		return answer(q)
	}
	out := w.boot(func(_ int, call string) error {
		if deaf && call == "write /dev/vdb" {
			return syscall.EIO
		}
		return nil
	})
	if out.Kind != job.PowerOffNow || w.left("vdb") != 0 || len(s.erased) != 3 {
		t.Fatalf("%+v, %d sectors are left, %d certificates; shown %s", out, w.left("vdb"), len(s.erased), p.shown())
	}
	first, err := erasure.ParseSigned(s.erased[0].Certificate, s.erased[0].Signature)
	must(t, err)
	second, err := erasure.ParseSigned(s.erased[1].Certificate, s.erased[1].Signature)
	must(t, err)
	if first.Outcome != erasure.Failed || second.Outcome != erasure.Weaker || first.Run == second.Run {
		t.Errorf("%s of %s, then %s of %s", first.Outcome, first.Run, second.Outcome, second.Run)
	}
}

// TestWholeLaw cuts the power at each call. The unit is then as it was, or goes on, or finds nothing on its disk and says so: it never
// starts, restores or repairs what is half erased.
func TestWholeLaw(t *testing.T) {
	w := newWhole(t, vdb())
	start, all := w.r.Clone(t), w.left("vdb")
	w.server = &told{onBefore: func() {}}
	var calls []string
	w.chooses(newSomebody(nil), wholeErase())
	if out := w.boot(func(_ int, call string) error { calls = append(calls, call); return nil }); out.Kind != job.PowerOffNow {
		t.Fatalf("%+v", out)
	}
	first := slices.Index(calls, "write /dev/vdb") + 1
	at := []int{1, 3, 8, first - 1, first, first + 1, first + 2, first + 3, first + 4}
	parts := 24
	if testing.Short() {
		parts = 8
	} else {
		at = append(at, machinetest.Sampled(calls[:first])...)
	}
	for part := 1; part < parts; part++ {
		at = append(at, first+part*(len(calls)-first)/parts)
	}
	t.Logf("%d calls, %d of them tried", len(calls), len(at))
	ends := map[decide.Job]int{}
	for _, n := range at {
		w.r = start.Clone(t)
		call := ""
		w.chooses(newSomebody(nil), wholeErase())
		w.boot(func(k int, c string) error {
			if k != n {
				return nil
			}
			call = c
			w.end() // else it waits for somebody who reads what it shows
			return machinetest.ErrCut
		})
		d := w.decision()
		ends[d.Job]++
		switch d.Job {
		case decide.Boot:
			if w.left("vdb") != all {
				t.Errorf("cut at call %d, %s: a unit starts that has lost something", n, call)
			}
		case decide.Hold:
			if w.hasTable() {
				t.Errorf("cut at call %d, %s: %s, and the disk has a table", n, call, d)
			}
		case decide.Erase:
			if w.left("vdb") != all {
				t.Errorf("cut at call %d, %s: the unit starts from a disk that is half erased", n, call)
			}
			w.chooses(newSomebody(nil), decide.Choice{}) // nobody has to choose it once more
			if out := w.boot(); out.Kind != job.PowerOffNow || w.left("vdb") != 0 {
				t.Errorf("cut at call %d, %s: taken up: %+v, %d sectors are left", n, call, out, w.left("vdb"))
			}
		default:
			t.Errorf("cut at call %d, %s: %s", n, call, d)
		}
	}
	if ends[decide.Boot] == 0 || ends[decide.Hold] == 0 || ends[decide.Erase] == 0 {
		t.Errorf("what followed: %v", ends)
	}
}
