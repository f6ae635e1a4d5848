package pid1

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gprovision/model/layout"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/journal"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
)

// The destroy law: a job that destroys may be cut off, or fail, at any of its calls. Started anew, as often as that takes, it ends where a
// job ends that nothing happened to; and until then the unit is not taken for complete.

// provisioned returns a machine that was provisioned and not restored yet: its main disk is blank.
func provisioned(t *testing.T, k machinetest.Kind) *machinetest.Rig {
	t.Helper()
	r := machinetest.NewUnit(t, k)
	machinetest.Provision(r, onRig(t, r).m)
	return r
}

// twoDisks is a unit on UEFI firmware with one main disk.
var twoDisks = machinetest.Kind{Firmware: layout.UEFI}

// onRig is init of a machine that was just switched on.
func onRig(t *testing.T, r *machinetest.Rig) *unit {
	t.Helper()
	m := machinetest.Machine(r)
	u := newUnit(m, offRig(t), journal.New(journal.Options{}))
	m.Log, u.names = u.log, m.Site.Names
	u.modules = noModules(t)
	u.memory.Since = time.Now().Add(-time.Hour) // every disk that will come is there
	return u
}

// die ends what init goes on with beside its jobs: a log that is written after the power was cut would be that of a ghost.
func (u *unit) die(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_ = u.journal.Detach(ctx, "file") // what it could not write any more is of no matter
	_ = u.queue.Release()
}

// boots switches the machine on again and again, the first time with fault, until it would start its system. It says what each boot did.
func boots(t *testing.T, r *machinetest.Rig, faults ...func(n int, call string) error) (did []string) {
	t.Helper()
	rebooted := false
	for range 8 {
		var fault func(int, string) error
		if len(faults) > 0 {
			fault, faults = faults[0], faults[1:]
		}
		r.Start(fault)
		u := onRig(t, r)
		f := u.look(t.Context())
		d := decide.Decide(f.Facts, u.m.Policy)
		if rebooted && fault == nil && d.Job != decide.Boot {
			t.Errorf("a unit reboots whose restore is not at its end: %s", d)
		}
		if d.Job == decide.Boot && fault == nil {
			return append(did, string(d.Job))
		}
		out := u.pass(t.Context())
		did = append(did, fmt.Sprintf("%s: %s %v", d, out.Kind, out.Err))
		rebooted = out.Kind == job.RebootNow
		if (out.Kind == job.HoldOn) != (out.Err != nil) {
			t.Errorf("a pass ends with %+v", out)
		}
		if slices.ContainsFunc(r.Written(), func(name string) bool { return !strings.HasPrefix(name, "vd") }) {
			t.Errorf("a disk that is not planned was written to: %s", r.Written())
		}
		u.die(t)
	}
	t.Errorf("the unit does not come to its system: %s", strings.Join(did, "; "))
	return did
}

// ends is where a machine has come to: its table, its system, its firmware's entries and the names on its recovery volume. Times, random
// numbers and logs are left out.
func ends(t *testing.T, r *machinetest.Rig) string {
	t.Helper()
	r.Start(nil)
	u := onRig(t, r)
	f := u.look(t.Context())
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s, request %v\n", f.Recovery, f.Main, f.Request != nil)
	disks, err := u.m.Disks()
	if err != nil {
		t.Error(err)
	}
	for _, d := range disks {
		table, err := r.Table(d.Path)
		fmt.Fprintf(&out, "%s %+v %v\n", d.Name, table, err)
	}
	for line := range strings.Lines(machinetest.Tree(t, r.Volume(f.Unit.System().FSUUID))) {
		if !strings.Contains(line, " /"+u.m.Site.Names.Mark+" ") {
			out.WriteString(line)
		}
	}
	for _, d := range f.Unit.Main {
		for _, p := range d.Table.Partitions {
			if p.Role == layout.ESP {
				out.WriteString(machinetest.Tree(t, r.Volume(p.FSUUID)))
			}
		}
	}
	for _, fs := range dataOf(t, r) {
		out.WriteString(machinetest.Tree(t, r.Volume(fs)))
	}
	for line := range strings.Lines(machinetest.Tree(t, r.Volume(f.Unit.Recovery.Table.Find(layout.Recovery).FSUUID))) {
		mode, rest, _ := strings.Cut(line, " ")
		name, _, _ := strings.Cut(rest, " ")
		if !strings.HasPrefix(name, "/log/") && !strings.Contains(name, "queue") && !strings.Contains(name, "history") {
			fmt.Fprintln(&out, mode, name)
		}
	}
	out.WriteString(machinetest.Tree(t, r.Firmware()))
	return out.String()
}

// begun looks at a machine whose power was cut when the first write to the main disk was due: the recovery volume has a request that has
// the restore taken up again, and the old system is not taken for complete any more.
func begun(t *testing.T, r *machinetest.Rig) {
	t.Helper()
	r.Start(nil)
	u := onRig(t, r)
	f := u.look(t.Context())
	if f.Request == nil {
		t.Error("the main disk is written to, and no request is on the recovery volume")
	}
	if f.Main == decide.MainMarked {
		t.Error("the main disk is written to, and its system has its mark")
	}
}

// askedFor is what a person's request for a restore makes of a machine whose main system is complete.
func askedFor(t *testing.T, r *machinetest.Rig) {
	t.Helper()
	boots(t, r)
	for _, fs := range dataOf(t, r) {
		if err := os.WriteFile(filepath.Join(r.Volume(fs), "precious"), []byte("a restore leaves it alone"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	onVolume(t, r, func(v *state.Volume) error {
		q, err := state.NewRequest(state.KindRestore, state.Latest, "a person", time.Now())
		return errors.Join(err, v.WriteRequest(q))
	})
}

// dataOf returns the filesystems of the data, by the record.
func dataOf(t *testing.T, r *machinetest.Rig) (out []string) {
	t.Helper()
	onVolume(t, r, func(v *state.Volume) error {
		rec, err := v.ReadUnit()
		if err != nil {
			return err
		}
		if rec.DataArray != nil {
			out = append(out, rec.DataArray.FSUUID)
		}
		for _, d := range rec.Main {
			if p := d.Table.Find(layout.Data); p != nil {
				out = append(out, p.FSUUID)
			}
		}
		return nil
	})
	return out
}

// newDisk is what remains when the main disk of a machine is replaced: a blank one, and no request.
func newDisk(t *testing.T, r *machinetest.Rig) {
	t.Helper()
	onVolume(t, r, (*state.Volume).DeleteRequest)
}

// onVolume changes the recovery volume of a machine.
func onVolume(t *testing.T, r *machinetest.Rig, do func(v *state.Volume) error) {
	t.Helper()
	r.Start(nil)
	u := onRig(t, r)
	u.look(t.Context())
	if err := u.volume.Change(do); err != nil {
		t.Fatal(err)
	}
}

// TestDestroyLaw cuts a restore at each call and lets each call fail: on all units but the first one, and where the tests are to be short,
// at some of them.
func TestDestroyLaw(t *testing.T) {
	bios := machinetest.Kind{Firmware: layout.BIOS}
	mirror := machinetest.Kind{Firmware: layout.UEFI, Mirror: true, Data: true}
	for name, c := range map[string]struct {
		kind    machinetest.Kind
		prepare func(t *testing.T, r *machinetest.Rig)
		each    int // of how many calls one is tried: in short tests, and in others
		long    int
	}{
		"blank main disk":             {twoDisks, newDisk, 4, 1},
		"a person's request":          {twoDisks, askedFor, 4, 1},
		"BIOS":                        {bios, askedFor, 12, 3},
		"BIOS, one disk":              {machinetest.Kind{Firmware: layout.BIOS, OneDisk: true, Data: true}, askedFor, 12, 3},
		"UEFI, one disk, provisioned": {machinetest.Kind{Firmware: layout.UEFI, OneDisk: true}, nil, 16, 4},
		"a mirror, blank disks":       {mirror, newDisk, 16, 4},
		"a mirror, asked for":         {mirror, askedFor, 16, 4},
		"a mirror under BIOS":         {machinetest.Kind{Firmware: layout.BIOS, Mirror: true}, askedFor, 24, 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := provisioned(t, c.kind)
			if c.prepare != nil {
				c.prepare(t, start)
			}
			whole := start.Clone(t)
			if did := boots(t, whole); len(did) != 2 || !strings.HasPrefix(did[0], "restore: ") {
				t.Fatalf("without a cut: %s", did)
			}
			for _, fs := range dataOf(t, whole) {
				if kept := start.Volume(fs); kept != "" && machinetest.Tree(t, kept) != machinetest.Tree(t, whole.Volume(fs)) {
					t.Error("the data are not what they were")
				}
			}
			want := ends(t, whole)
			counted := start.Clone(t)
			counted.Start(func(int, string) error { return nil })
			u := onRig(t, counted)
			u.pass(t.Context())
			u.die(t)
			calls := counted.Calls()
			first := slices.IndexFunc(calls, func(c string) bool {
				return strings.HasPrefix(c, "write /dev/vdb") && !strings.HasPrefix(c, "write /dev/vdb1")
			}) + 1
			if first == 0 {
				t.Fatalf("the main disk is never written to: %q", calls)
			}
			each := c.long
			if testing.Short() {
				each = c.each
			}
			at := slices.DeleteFunc(machinetest.Sampled(calls), func(n int) bool { return n%each != 0 && n != first })
			t.Logf("%d calls, %d of them tried", len(calls), len(at))
			for _, err := range []error{machinetest.ErrCut, syscall.EIO} {
				for _, n := range at {
					r := start.Clone(t)
					call := ""
					cut := func(k int, c string) error {
						if k != n {
							return nil
						}
						call = c
						return fmt.Errorf("call %d, %s: %w", n, c, err)
					}
					if n == first && errors.Is(err, machinetest.ErrCut) {
						r.Start(cut)
						u := onRig(t, r)
						u.pass(t.Context())
						u.die(t)
						begun(t, r)
					}
					did := boots(t, r, cut)
					if diff := cmp.Diff(want, ends(t, r)); diff != "" {
						t.Fatalf("%v at call %d, %s: %s: ends elsewhere:\n%s", err, n, call, strings.Join(did, "; "), diff)
					}
				}
			}
		})
	}
}
