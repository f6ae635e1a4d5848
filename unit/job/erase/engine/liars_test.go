package engine

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"gprovision/hw/drive"
	"gprovision/lab/simdrive"
	"gprovision/model/erasure"
)

// smaller makes a drive of the library so small that every block of it is a sample.
func smaller(c simdrive.Config) simdrive.Config {
	if c.Sectors = 600; c.Protocol == simdrive.NVMe {
		c.Sectors = 300
	}
	for i := range c.Others {
		c.Others[i] = int64(50 - 20*i)
	}
	c.Area, c.Overlay = min(c.Area, 40), min(c.Overlay, 30)
	return c
}

// caught says what became of the methods that were not good enough, those with the same end together. That there was no negative control
// says nothing where the rest is not good enough.
func caught(res Result) string {
	var out []string
	last := ""
	for i, a := range res.Attempts {
		why := a.Refused
		switch {
		case why != "":
			why = "refused"
		case i < len(res.Attempts)-1 || a.Verdict.Outcome != erasure.Proved:
			why = reasons(a.Verdict)
		default:
			continue
		}
		if n := len(out); why == last {
			out[n-1] = strings.TrimSuffix(out[n-1], ": "+why) + ", " + string(a.Method) + ": " + why
		} else {
			out = append(out, string(a.Method)+": "+why)
		}
		last = why
	}
	return strings.Join(out, "; ")
}

func reasons(v erasure.Verdict) string {
	var out []string
	for _, r := range v.Reasons {
		if r != "control" || v.Reasons[0] == r {
			out = append(out, string(r))
		}
	}
	return strings.Join(out, ", ")
}

// left says what is left on a drive.
func left(d *simdrive.Drive) string {
	switch readable, hidden := d.Residue(); {
	case readable > 0:
		return "data"
	case hidden > 0:
		return "hidden copies"
	}
	return "nothing"
}

// TestLiars erases every liar of the library. None is proved that a host could know better of, and the page has what came of each.
func TestLiars(t *testing.T) {
	var table strings.Builder
	table.WriteString("| drive | outcome | left on it | what was not good enough, and why |\n|---|---|---|---|\n")
	for _, l := range simdrive.Liars(1) {
		g := newRig(t, smaller(l.Config), l.Faults)
		res := g.finish()
		d := res.Drive
		valid(t, d)
		by := string(d.Outcome)
		if d.Outcome == erasure.Proved || d.Outcome == erasure.Weaker {
			by = fmt.Sprintf("%s, %s, by %s", d.Outcome, d.Level, d.Evidence.Method)
		}
		rest := left(g.sim)
		told := d.Outcome == erasure.Proved || d.Outcome == erasure.Weaker && d.Evidence.Hidden == 0
		if rest == "data" && told && !l.Secret {
			t.Errorf("%s: %s, and data is left: %s", l.Name, by, caught(res))
		}
		why := caught(res)
		if len(res.Attempts) == 0 {
			why = "no method was tried: " + reasons(erasure.Verdict{Reasons: d.Reasons})
		}
		if l.Faults.SwapAfter > 0 {
			why += " (the permit)"
		}
		if l.Secret {
			by += " (no host can know better)"
		}
		fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", l.Name, by, rest, why)
	}
	page(t, "liars", table.String())
}

// page fails unless a part of docs/erase.md is as it must be. With GPROV_GENERATE=1 it is written.
func page(t *testing.T, part, want string) {
	t.Helper()
	const name = "../../../../docs/erase.md"
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := fmt.Sprintf("<!-- %s -->\n", part), fmt.Sprintf("<!-- end of %s -->\n", part)
	head, rest, ok := strings.Cut(string(b), begin)
	have, tail, ok2 := strings.Cut(rest, end)
	switch {
	case !ok || !ok2:
		t.Fatalf("docs/erase.md has no part %s", part)
	case have == want:
	case os.Getenv("GPROV_GENERATE") == "":
		t.Errorf("docs/erase.md is not as the test %s has it: go generate ./unit/job/erase/engine", t.Name())
	default:
		if err := os.WriteFile(name, []byte(head+begin+want+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// defence is one part of what catches liars, with a liar that nothing else catches.
type defence struct {
	name, liar string
	config     simdrive.Config
	faults     simdrive.Faults
	rig        func(*rig) // how the machine is, with the defence and without
	method     erasure.Method
	// off takes the defence out of the evidence of the method. Where it is nil hide takes it out of the machine.
	off  func(*erasure.Evidence)
	hide func(*rig)
}

// dropped is blocks of which some writes do not reach the medium. Reads of everything are one byte where empty says so.
type dropped struct {
	Blocks
	block int64 // -1: all
	empty bool
}

func (d dropped) WriteAt(p []byte, off int64) (int, error) {
	switch end := off + int64(len(p)); {
	case d.block < 0:
		return len(p), nil
	case d.block*sector < off || d.block*sector >= end:
		return d.Blocks.WriteAt(p, off)
	}
	keep := make([]byte, sector)
	if _, err := d.Blocks.ReadAt(keep, d.block*sector); err != nil {
		return 0, err
	}
	n, err := d.Blocks.WriteAt(p, off)
	if err == nil {
		_, err = d.Blocks.WriteAt(keep, d.block*sector)
	}
	return n, err
}

func (d dropped) ReadAt(p []byte, off int64) (int, error) {
	if d.empty {
		for i := range p {
			p[i] = 0xff
		}
		return len(p), nil
	}
	return d.Blocks.ReadAt(p, off)
}

// blind is blocks that read as zeros after a Sanitize, whatever is on them.
type blind struct {
	Blocks
	erased *bool
}

func (b blind) ReadAt(p []byte, off int64) (int, error) {
	n, err := b.Blocks.ReadAt(p, off)
	if *b.erased {
		clear(p)
	}
	return n, err
}

// intercepted is a device whose NVMe commands and resets somebody answers first.
type intercepted struct {
	drive.Device
	nvme  func(c drive.NVMeCommand) (answered bool, r drive.NVMeResult)
	reset func() bool
}

func (i intercepted) NVMe(c drive.NVMeCommand) (drive.NVMeResult, error) {
	if i.nvme != nil {
		if ok, r := i.nvme(c); ok {
			return r, nil
		}
	}
	return i.Device.NVMe(c)
}

func (i intercepted) Reset() error {
	if i.reset != nil && i.reset() {
		return nil
	}
	return i.Device.Reset()
}

// changedAll is samples that say nothing but that the data is gone.
func changedAll(p *erasure.Places) {
	p.Changed, p.Unchanged = p.Changed+p.Unchanged, 0
}

// seen is samples of a drive that was looked at, and all of it is gone.
func seen(e *erasure.Evidence) {
	n := e.Samples.Blocks
	ends, random := erasure.Places{Changed: 2}, erasure.Places{Changed: n}
	e.Samples = erasure.Samples{Blocks: n, Read: n, Ends: ends, Random: random, Reset: erasure.ResetDone}
}

// unsampled is a block of a drive of 40,000 that no sample of the rigs' first seed is at.
const unsampled = 21111

func defences() []defence {
	nvme, disk, flash := smaller(simdrive.NVMeDisk(1)), smaller(simdrive.SATADisk(1)), smaller(simdrive.SATAFlash(1))
	bare := func(c simdrive.Config, methods ...drive.Method) simdrive.Config { c.Methods = methods; return c }
	large := small(bare(simdrive.SATADisk(1)), 40_000)
	spaces := nvme
	spaces.Others, spaces.Unattached = []int64{50}, 1
	overlay := bare(disk, drive.ATASanitizeOverwrite)
	overlay.Overlay = 30
	shows, purges := nvme, nvme
	shows.Verify, purges.Purges = true, true
	looks := func(full bool) func(*rig) {
		return func(g *rig) { g.target = func(t *Target) { t.Full = full } }
	}
	plain := nvme
	plain.NoKeep, plain.Noise = true, false
	full := func(e *erasure.Evidence) {
		w := e.Word.Overwrite
		w.Written, w.ReadBack, w.Different = w.Sectors, w.Sectors, 0
	}
	return []defence{
		{"secret samples", "leaves a sixteenth", nvme, simdrive.Faults{KeepStratum: 7}, nil, erasure.NVMeSanitizeCrypto,
			func(e *erasure.Evidence) { changedAll(&e.Samples.Random) }, nil},
		{"all blocks are looked at, if that is asked for", "leaves a block that is no sample", small(simdrive.SATADisk(1), 40_000),
			simdrive.Faults{KeepBlock: unsampled + 1}, looks(true), erasure.ATASanitizeOverwrite, nil, looks(false)},
		{"the ends are samples", "leaves the last sector", small(simdrive.SATADisk(1), 40_000), simdrive.Faults{KeepLast: true}, nil,
			erasure.ATASanitizeOverwrite, func(e *erasure.Evidence) { changedAll(&e.Samples.Ends) }, nil},
		{"a canary counts only if it was read back", "an empty drive that drops writes, and does nothing", nvme, simdrive.Faults{Nothing: true},
			func(g *rig) { g.blocks = func(b Blocks) Blocks { return dropped{b, -1, true} } }, erasure.NVMeSanitizeCrypto,
			func(e *erasure.Evidence) {
				s := &e.Samples
				s.Random.Changed, s.Uninformative, s.Ends.Changed = s.Uninformative, 0, 2
			}, nil},
		{"the log before", "said it some time ago, and forgets where the data are", plain,
			simdrive.Faults{OldCompleted: true, OldFor: 1000 * hour, MapOnly: true}, nil, erasure.NVMeSanitizeCrypto,
			func(e *erasure.Evidence) { e.Word.NVMeSanitize.Before.Status = 0 }, nil},
		{"the log names the command", "says that its last erase had other parameters, and forgets where the data are", nvme,
			simdrive.Faults{WrongEcho: true, MapOnly: true}, nil, erasure.NVMeSanitizeCrypto,
			func(e *erasure.Evidence) { e.Word.NVMeSanitize.After.Command = e.Word.NVMeSanitize.Command }, nil},
		{"the drive says that it purged", "does not say so, and forgets where the data are", purges,
			simdrive.Faults{NotPurged: true, MapOnly: true}, nil, erasure.NVMeSanitizeCrypto,
			func(e *erasure.Evidence) { e.Word.NVMeSanitize.PurgeRequired = false }, nil},
		{"the media are looked at before they are unmapped", "shows its media, and does nothing but unmap them", shows,
			simdrive.Faults{Nothing: true}, nil, erasure.NVMeSanitizeCrypto,
			func(e *erasure.Evidence) { changedAll(&e.Samples.Random); changedAll(&e.Samples.Ends) }, nil},
		{"media that were to be shown were seen", "never shows its media, and forgets where the data are", shows,
			simdrive.Faults{NeverVerifies: true, MapOnly: true}, nil, erasure.NVMeSanitizeCrypto, seen, nil},
		{"places are looked at once more before the next method", "has unmapped its blocks, and does nothing once more", shows,
			simdrive.Faults{Nothing: true}, nil, erasure.NVMeSanitizeBlock,
			func(e *erasure.Evidence) { changedAll(&e.Samples.Random); changedAll(&e.Samples.Ends) }, nil},
		{"the status of each namespace", "a namespace that is not attached fails to be formatted", bare(spaces, drive.NVMeFormatUser),
			simdrive.Faults{}, func(g *rig) {
				g.dev = func(d drive.Device) drive.Device {
					return intercepted{Device: d, nvme: func(c drive.NVMeCommand) (bool, drive.NVMeResult) {
						return c.Opcode == 0x80 && c.NSID == 2, drive.NVMeResult{Status: 6}
					}}
				}
			}, erasure.NVMeFormatUser, func(e *erasure.Evidence) { e.Word.NVMeFormat.Formats[1].Status = 0 }, nil},
		{"security is disabled afterwards", "a secure erase leaves the password set",
			bare(disk, drive.ATASecurityEnhanced, drive.ATASecurityNormal), simdrive.Faults{KeepsPassword: true}, nil, erasure.ATASecurityEnhanced,
			func(e *erasure.Evidence) { e.Word.ATASecurity.Disabled = true }, nil},
		{"each block is written, or listed", "has sectors that cannot be written", large, simdrive.Faults{BadSectors: 1}, nil,
			erasure.Overwrite, full, nil},
		{"the stream is read back", "drops the writes to one block", large, simdrive.Faults{}, func(g *rig) {
			g.blocks = func(b Blocks) Blocks { return dropped{b, unsampled, false} }
		}, erasure.Overwrite, full, nil},
		{"the reset before the samples", "keeps writes in its cache", bare(disk), simdrive.Faults{CacheOnly: true}, nil, erasure.Overwrite, nil,
			func(g *rig) {
				g.dev = func(d drive.Device) drive.Device { return intercepted{Device: d, reset: func() bool { return true }} }
			}},
		{"the reset before a canary counts", "shows its media, keeps writes in its cache, and does nothing", shows,
			simdrive.Faults{CacheOnly: true, Nothing: true, Remapped: 100, HidesRemapped: true}, nil, erasure.NVMeSanitizeBlock, nil, func(g *rig) {
				erases := false
				g.dev = func(d drive.Device) drive.Device {
					return intercepted{Device: d, nvme: func(c drive.NVMeCommand) (bool, drive.NVMeResult) {
						erases = erases || c.Opcode == 0x84
						return false, drive.NVMeResult{}
					}, reset: func() bool {
						early := !erases
						erases = false
						return early
					}}
				}
			}},
		{"the negative control", "reads as zeros after a Sanitize that does nothing", nvme, simdrive.Faults{Nothing: true}, func(g *rig) {
			erased := new(bool)
			g.blocks = func(b Blocks) Blocks { return blind{b, erased} }
			g.dev = func(d drive.Device) drive.Device {
				return intercepted{Device: d, nvme: func(c drive.NVMeCommand) (bool, drive.NVMeResult) {
					*erased = *erased || c.Opcode == 0x84
					return false, drive.NVMeResult{}
				}}
			}
		}, erasure.NVMeSanitizeCrypto, func(*erasure.Evidence) {}, nil},
		{"what cannot be looked at is counted", "erases the first namespace only, the other is not attached", spaces,
			simdrive.Faults{FirstOnly: true}, nil, erasure.NVMeSanitizeCrypto, func(e *erasure.Evidence) { e.Hidden = 0 }, nil},
		{"what an overlay hides is counted", "leaves what a device configuration overlay hides", overlay,
			simdrive.Faults{KeepOverlay: true}, nil, erasure.ATASanitizeOverwrite, func(e *erasure.Evidence) { e.Hidden = 0 }, nil},
		{"the drive's replaced sectors are asked for", "has reallocated sectors", bare(disk), simdrive.Faults{Remapped: 100}, nil,
			erasure.Overwrite, func(e *erasure.Evidence) { e.Reallocated = new(erasure.Count) }, nil},
		{"an overwrite proves nothing of flash", "flash without methods", bare(flash), simdrive.Faults{}, nil, erasure.Overwrite,
			func(e *erasure.Evidence) { e.Media = erasure.Rotating }, nil},
	}
}

// TestDefences fails unless each defence is needed: with it the outcome of its liar is worse than without.
func TestDefences(t *testing.T) {
	rank := map[erasure.Outcome]int{erasure.Proved: 0, erasure.Weaker: 1, erasure.Unknown: 2, erasure.Failed: 3}
	var table strings.Builder
	table.WriteString("| defence | liar | with it | why | without it |\n|---|---|---|---|---|\n")
	for _, d := range defences() {
		with := attempt(t, d, false)
		without := with
		if d.off != nil {
			e := clone(t, with.Evidence)
			e.Control = erasure.Control{Written: true, Reported: true, Zeroed: true}
			d.off(&e)
			without.Verdict = erasure.Judge(e, "")
		} else {
			without = attempt(t, d, true)
		}
		a, b := with.Verdict, without.Verdict
		if rank[a.Outcome] <= rank[b.Outcome] || rank[b.Outcome] > 1 {
			t.Errorf("%s: %s is %s (%s) with it and %s (%s) without", d.name, d.liar, a.Outcome, reasons(a), b.Outcome, reasons(b))
		}
		fmt.Fprintf(&table, "| %s | %s | %s | %s | %s |\n", d.name, d.liar, a.Outcome, reasons(a), b.Outcome)
	}
	page(t, "defences", table.String())
}

// attempt erases a defence's liar and returns what came of its method.
func attempt(t *testing.T, d defence, hide bool) Attempt {
	t.Helper()
	g := newRig(t, d.config, d.faults)
	if d.rig != nil {
		d.rig(g)
	}
	if hide {
		d.hide(g)
	}
	res := g.finish()
	for _, a := range res.Attempts {
		if a.Method == d.method && a.Refused == "" {
			if hide && left(g.sim) == "nothing" {
				t.Errorf("%s: %s is no liar", d.name, d.liar)
			}
			return a
		}
	}
	t.Fatalf("%s: %s was not tried: %s", d.name, d.method, caught(res))
	return Attempt{}
}

// TestDoubtfulDriveIsNamed fails unless an erase that another drive answers to ends early and failed.
func TestDoubtfulDriveIsNamed(t *testing.T) {
	for n := range 40 {
		g := newRig(t, smaller(simdrive.NVMeDisk(1)), simdrive.Faults{SwapAfter: n + 2})
		res, err, _ := g.run(t.Context())
		if res.Drive.Outcome == erasure.Proved && left(g.sim) != "nothing" || err == nil && res.Drive.Outcome != erasure.Proved ||
			err != nil && !errors.Is(err, drive.ErrNotPermitted) {
			t.Errorf("after %d commands: %s, %v", n+2, res.Drive.Outcome, err)
		}
	}
}
