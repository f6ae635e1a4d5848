package rescue

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gprovision/hw/block"
	"gprovision/hw/host"
	"gprovision/model/layout"
	"gprovision/model/signature"
	"gprovision/unit/image"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/job"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/job/restore"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
)

// The destroy law of a rebuild: it may be cut off, or fail, at any of its calls. Until its record is written no boot takes the volume for
// the unit's; begun anew it ends where one ends that nothing happened to. No disk but the planned one is ever written to, and of the only
// disk of a unit nothing but the volume's partition and the place of the boot loader.

// fresh is the name of the image on the stick.
const fresh = imagetest.Prefix + "2026-11-23.0001"

// dead is a unit with a complete main system whose recovery volume is lost, and a stick with an image that it trusts.
type dead struct {
	*machinetest.Rig
	kind machinetest.Kind
	was  state.Unit // the record on the volume that is lost
	im   image.Image
	keys []signature.PublicKey
}

func newDead(t *testing.T, k machinetest.Kind) *dead {
	t.Helper()
	r := machinetest.NewUnit(t, k)
	m := machinetest.Machine(r)
	d := &dead{Rig: r, kind: k, was: machinetest.Provision(r, m)}
	disks, err := m.Disks()
	if err != nil {
		t.Fatal(err)
	}
	e, f := jobtest.Look(t, m)
	if out := restore.Run(t.Context(), e, f); out.Kind != job.RebootNow {
		t.Fatalf("%+v", out)
	}
	jobtest.End(t, e)
	r.Start(nil)
	if m = machinetest.Machine(r); k.OneDisk {
		err = m.ClearPartition(d.volume(disks, d.was))
	} else {
		r.Replace("vda", "NEW")
	}
	if err != nil {
		t.Fatal(err)
	}
	images := imagetest.New(t)
	d.im = images.Put(t, fresh+".upd", fresh, imagetest.XZ(t, imagetest.System(t, fresh)))
	d.keys = []signature.PublicKey{images.Key.Public()}
	r.Start(nil)
	return d
}

// volume returns the partition of the recovery volume of u.
func (d *dead) volume(disks []block.Disk, u state.Unit) string {
	i := slices.IndexFunc(disks, func(b block.Disk) bool { return b.Name == d.device() })
	return block.PartitionPath(disks[i].Path, u.Recovery.Table.Find(layout.Recovery).Number)
}

// device is the disk that the recovery volume belongs on.
func (d *dead) device() string {
	if d.kind.OneDisk {
		return "vdb"
	}
	return "vda"
}

// clone returns the same unit once more, switched on.
func (d *dead) clone(t *testing.T) *dead {
	t.Helper()
	c := *d
	c.Rig = d.Clone(t)
	return &c
}

// machine is the unit after it was switched on. Its policy wants signed images.
func (d *dead) machine() *machine.Machine {
	m := machinetest.Machine(d.Rig)
	m.Policy.AllowUnsigned, m.Keys = false, d.keys
	return m
}

var sticks = map[string]bool{"sda": true}

// rebuild plans and runs a rebuild on a machine that was just switched on. planned is the number of calls that the plan made.
func (d *dead) rebuild(t *testing.T) (planned int, err error) {
	t.Helper()
	m := d.machine()
	plan, err := planRebuild(t.Context(), m, sticks)
	planned = len(d.Calls())
	if w := d.Written(); len(w) > 0 {
		t.Errorf("a plan writes to %s", w)
	}
	if err != nil {
		return planned, err
	}
	e := jobtest.Env(m)
	e.Key = key
	return planned, plan.run(t.Context(), e, d.im)
}

// key is the unit's key that each rebuild makes, so that they can be compared.
var key = state.NewKey()

// record returns the record on the recovery volume; nil if a boot would find none.
func (d *dead) record(t *testing.T) *state.Unit {
	t.Helper()
	d.Start(nil)
	m := d.machine()
	parts, err := m.Partitions(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		info, _, err := m.ProbePartition(p.Path)
		if err != nil || info.Label != m.Site.Names.Recovery {
			continue
		}
		if err := m.Mount(p.Path, m.Places.Recovery, "ext4", host.MountOptions{ReadOnly: true}); err != nil {
			t.Fatal(err)
		}
		u, err := state.Open(m.Places.Recovery).ReadUnit()
		if err := m.Unmount(m.Places.Recovery); err != nil {
			t.Fatal(err)
		}
		if err == nil {
			return &u
		}
	}
	return nil
}

// others is what must stay as it is: all disks and filesystems but the place of the recovery volume.
func (d *dead) others(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, name := range []string{"vdb", "vdc", "sda"} {
		var from, to int64
		if name == d.device() {
			p := d.was.Recovery.Table.Find(layout.Recovery)
			from, to = p.Start, p.Start+p.Size
		}
		if name != "vdc" || d.kind.Mirror {
			fmt.Fprintln(&out, name, d.Bytes(name, from, to))
		}
	}
	out.WriteString(machinetest.Tree(t, d.Volume(d.was.System().FSUUID)))
	for _, m := range d.was.Main {
		if p := m.Table.Find(layout.ESP); p != nil {
			out.WriteString(machinetest.Tree(t, d.Volume(p.FSUUID)))
		}
	}
	return out.String()
}

// ends is where a rebuild has come to, without the identifiers that it made: the record, the volume, the ESP.
func (d *dead) ends(t *testing.T) string {
	t.Helper()
	u := d.record(t)
	if u == nil {
		t.Fatal("the volume has no record")
	}
	m := d.machine()
	if _, err := m.RecoveryDisk(*u); err != nil {
		t.Errorf("a boot does not take the volume for the unit's: %v", err)
	}
	if d.kind.Firmware == layout.UEFI {
		if change, err := m.EnsureEntries(m.Vars, *u); err != nil || !change.Empty() {
			t.Errorf("boot entries lacked %+v, %v", change, err)
		}
	}
	var out strings.Builder
	fmt.Fprintln(&out, u.Serial, u.Platform, u.Firmware, u.ImagePrefix, u.Original, u.Array, u.DataArray)
	for _, m := range u.Main {
		fmt.Fprintf(&out, "%d %s", m.Size, m.Serial)
		for _, p := range m.Table.Partitions {
			if p.Role == layout.Recovery {
				p.FSUUID = ""
			}
			fmt.Fprintf(&out, " %+v", p)
		}
	}
	fmt.Fprintf(&out, "\n%s:", u.Recovery.Serial)
	for _, p := range u.Recovery.Table.Partitions {
		fmt.Fprintf(&out, " %s %d %d", p.Role, p.Start, p.Size)
	}
	out.WriteString("\n")
	for line := range strings.Lines(machinetest.Tree(t, d.Volume(u.Recovery.Table.Find(layout.Recovery).FSUUID))) {
		if !strings.Contains(line, "/unit.json ") && !strings.Contains(line, " /log/rebuild") {
			out.WriteString(line)
		}
	}
	if p := u.Recovery.Table.Find(layout.ESP); p != nil {
		out.WriteString(machinetest.Tree(t, d.Volume(p.FSUUID)))
	}
	return out.String()
}

// TestRebuildLaw rebuilds the recovery volume of each kind of unit: whole, and cut off or failing at its calls.
func TestRebuildLaw(t *testing.T) {
	for name, c := range map[string]struct {
		kind  machinetest.Kind
		short int // of how many calls one is tried in short tests
	}{
		"UEFI, two disks":       {machinetest.Kind{Firmware: layout.UEFI, Data: true}, 5},
		"BIOS, two disks":       {machinetest.Kind{Firmware: layout.BIOS}, 5},
		"UEFI, one disk":        {machinetest.Kind{Firmware: layout.UEFI, OneDisk: true, Data: true}, 3},
		"BIOS, one disk":        {machinetest.Kind{Firmware: layout.BIOS, OneDisk: true}, 3},
		"UEFI, mirror and data": {machinetest.Kind{Firmware: layout.UEFI, Mirror: true, Data: true}, 9},
		"BIOS, mirror":          {machinetest.Kind{Firmware: layout.BIOS, Mirror: true}, 9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := newDead(t, c.kind)
			before := start.others(t)
			whole := start.clone(t)
			planned, err := whole.rebuild(t)
			if err != nil {
				t.Fatal(err)
			}
			calls := whole.Calls()
			u, was := whole.record(t), start.was
			if u == nil || u.System() == nil || u.System().FSUUID != was.System().FSUUID || u.Original != fresh+".upd" ||
				len(u.Main) != len(was.Main) {
				t.Fatalf("the record is %+v", u)
			}
			if diff := cmp.Diff(before, whole.others(t)); diff != "" {
				t.Errorf("something changed beside the volume:\n%s", diff)
			}
			want := whole.ends(t)
			each := 1
			if testing.Short() {
				each = c.short
			}
			at := slices.DeleteFunc(machinetest.Sampled(calls), func(n int) bool { return n%each != 0 })
			t.Logf("%d calls, %d of them tried", len(calls), len(at))
			for _, cause := range []error{machinetest.ErrCut, syscall.EIO} {
				for _, n := range at {
					if n <= planned && !errors.Is(cause, machinetest.ErrCut) {
						continue // what cannot be looked at is planned for as if it were not there
					}
					d := start.clone(t)
					call := ""
					d.Start(func(k int, c string) error {
						if k != n {
							return nil
						}
						call = c
						return fmt.Errorf("call %d, %s: %w", n, c, cause)
					})
					_, err := d.rebuild(t)
					written := d.Written()
					if d.record(t) == nil {
						if err == nil {
							t.Fatalf("%v at call %d, %s: no record, and no error", cause, n, call)
						}
						if _, err := d.rebuild(t); err != nil {
							t.Fatalf("%v at call %d, %s: cannot be done anew: %v", cause, n, call, err)
						}
					}
					if slices.ContainsFunc(append(written, d.Written()...), func(name string) bool { return !strings.HasPrefix(name, d.device()) }) {
						t.Errorf("%v at call %d, %s: written to are %s and %s", cause, n, call, written, d.Written())
					}
					if diff := cmp.Diff(before, d.others(t)); diff != "" {
						t.Fatalf("%v at call %d, %s: something changed beside the volume:\n%s", cause, n, call, diff)
					}
					if diff := cmp.Diff(want, d.ends(t)); diff != "" {
						t.Fatalf("%v at call %d, %s: ends elsewhere:\n%s", cause, n, call, diff)
					}
				}
			}
		})
	}
}
