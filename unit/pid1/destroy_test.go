package pid1

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gprovision/hw/block"
	"gprovision/hw/host"
	"gprovision/model/layout"
	"gprovision/model/release"
	"gprovision/unit/decide"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/report"
	"gprovision/unit/state"
)

// The destroy law: a job that destroys may be cut off, or fail, at any of its calls. Started anew, as often as that takes, it ends where a job
// ends that nothing happened to; and until then the unit is not taken for complete.

// rigDisks are the sizes of the recovery device and of the main disk.
const rigRecovery, rigMain = 2 * layout.GiB, 8 * layout.GiB

// provisioned returns a machine that was provisioned and not restored yet: its main disk is blank.
func provisioned(t *testing.T) *machinetest.Rig {
	t.Helper()
	r := machinetest.New(t)
	recovery := r.AddDisk(block.Disk{Name: "vda", Bus: block.VirtIO, Serial: "RECOVERY", Size: rigRecovery})
	r.AddDisk(block.Disk{Name: "vdb", Bus: block.VirtIO, Serial: "MAIN", Size: rigMain})
	r.AddDisk(block.Disk{Name: "sda", Bus: block.USB, Removable: true, Serial: "SOMEBODY'S", Size: layout.GiB})
	u := onRig(t, r)
	table, err := layout.ForRecovery(layout.UEFI, layout.Device{Size: rigRecovery, SectorSize: 512}, u.m.Labels(), machine.NewIDs())
	if err == nil {
		err = u.m.WriteTable(recovery, table)
	}
	if err == nil {
		err = u.m.Format(t.Context(), recovery, table, []layout.Role{layout.ESP, layout.Recovery})
	}
	if err != nil {
		t.Fatal(err)
	}
	disks, err := u.m.Disks()
	if err != nil {
		t.Fatal(err)
	}
	main, err := u.m.LayMain(disks[1], 0, machine.NewIDs())
	if err == nil {
		err = u.mountVolume(block.PartitionPath(recovery, table.Find(layout.Recovery).Number), false)
	}
	if err != nil {
		t.Fatal(err)
	}
	v := state.Open(u.m.Places.Recovery)
	for _, d := range []string{state.ImageDir, state.LogDir, state.Dir} {
		if err := os.MkdirAll(v.Path(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	base := imagetest.Prefix + "2026-11-22.0001"
	err = errors.Join(
		v.WriteKey(state.NewKey()),
		v.WriteHash("$2b$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"),
		os.WriteFile(v.Path(u.m.Site.Names.BootFile), imagetest.BzImage(7, ""), 0o600),
		os.WriteFile(v.Path(state.ImageDir, base+".upd"), imagetest.XZ(t, smallSystem(t, base)), 0o600),
		u.m.PutRecoveryArtifact(state.Unit{Serial: testSerial, Recovery: machine.DiskRecord(disks[0], table), Main: []state.Disk{machine.DiskRecord(disks[1], main)}}, v.Path()),
		v.WriteUnit(state.Unit{Serial: testSerial, Platform: "VIRT", Firmware: layout.UEFI, ImagePrefix: imagetest.Prefix, Original: base + ".upd",
			Recovery: machine.DiskRecord(disks[0], table), Main: []state.Disk{machine.DiskRecord(disks[1], main)}}),
		u.m.Unmount(u.m.Places.Recovery),
	)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// smallSystem is the tar of a release of a few files.
func smallSystem(t *testing.T, base string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(h tar.Header, content string) {
		h.Uid, h.Gid, h.Size = os.Geteuid(), os.Getegid(), int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	put(tar.Header{Name: release.MetaPath, Typeflag: tar.TypeReg, Mode: 0o644}, fmt.Sprintf(`{"version":1,"name":%q,"build":1,"bytes":4000000}`, base))
	for _, d := range []string{"boot/", "etc/", "home/", "var/", "usr/"} {
		put(tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755}, "")
	}
	for name, text := range map[string]string{
		"boot/norm_boot": string(imagetest.BzImage(7, "")), "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nadmin:x:1001:1001::/home/admin:/bin/bash\n",
		"etc/group": "root:x:0:\nadmin:x:1001:\n", "etc/shadow": "root:*:19000:0:99999:7:::\nadmin:!:19000:0:99999:7:::\n",
		"etc/hosts": "127.0.0.1\tlocalhost\n", "usr/program": strings.Repeat("program ", 1000),
	} {
		put(tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, text)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// onRig is init of a machine that was just switched on.
func onRig(t *testing.T, r *machinetest.Rig) *unit {
	t.Helper()
	u := testUnit(t, &bytes.Buffer{})
	u.journal = journal.New(journal.Options{})
	u.log = u.journal.Logger()
	u.m.Log, u.m.Doors = u.log, r.Doors()
	u.m.Sys = fstest.MapFS{"class/net": {Mode: fs.ModeDir}, "block": {Mode: fs.ModeDir}}
	u.m.Policy.AllowUnsigned = true
	u.m.Identity.Variant.NumDataDisks, u.m.Identity.Variant.Disksize, u.m.Identity.Variant.SwRaidlevel = 1, rigMain, -1
	u.changed, u.stopNetwork, u.queue = make(chan struct{}, 1), func() {}, report.NewQueue("b1")
	u.since = time.Now().Add(-time.Hour) // every disk that will come is there
	var err error
	if u.modules, err = host.NewModules(t.TempDir(), "none"); err != nil {
		t.Fatal(err)
	}
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
		u.forget(f)
		if rebooted && fault == nil && d.Job != decide.Boot {
			t.Errorf("a unit reboots whose restore is not at its end: %s", d)
		}
		if d.Job == decide.Boot && fault == nil {
			return append(did, string(d.Job))
		}
		out := u.pass(t.Context())
		did = append(did, fmt.Sprintf("%s: %s %v", d, out.Kind, out.Err))
		rebooted = out.Kind == RebootNow
		if (out.Kind == HoldOn) != (out.Err != nil) {
			t.Errorf("a pass ends with %+v", out)
		}
		if slices.ContainsFunc(r.Written(), func(name string) bool { return !strings.HasPrefix(name, "vda") && !strings.HasPrefix(name, "vdb") }) {
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
	u.forget(f)
	table, err := r.Table(filepath.Join(filepath.Dir(f.RecoveryPart.Disk.Path), "vdb"))
	if err != nil {
		t.Error(err)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s, request %v\n%+v\n", f.Recovery, f.Main, f.Request != nil, table)
	for line := range strings.Lines(machinetest.Tree(t, r.Volume(f.Unit.System().FSUUID))) {
		if !strings.Contains(line, " /"+u.m.Site.Names.Mark+" ") {
			out.WriteString(line)
		}
	}
	for _, p := range f.Unit.Main[0].Table.Partitions {
		if p.Role == layout.ESP {
			out.WriteString(machinetest.Tree(t, r.Volume(p.FSUUID)))
		}
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
	u.forget(f)
	if f.Request == nil {
		t.Error("the main disk is written to, and no request is on the recovery volume")
	}
	if f.Main == decide.MainMarked {
		t.Error("the main disk is written to, and its system has its mark")
	}
}

// sampled returns the numbers of calls at which something is to happen: of a run of equal ones the first, one in the middle and the last.
func sampled(calls []string) (out []int) {
	for i := 0; i < len(calls); {
		k := i
		for k < len(calls) && calls[k] == calls[i] {
			k++
		}
		out = append(out, i+1, (i+k)/2+1, k)
		i = k
	}
	return slices.Compact(out)
}

// TestDestroyLaw cuts a restore at each call and lets each call fail.
func TestDestroyLaw(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T) *machinetest.Rig{
		"blank main disk": provisioned,
		"a person's request": func(t *testing.T) *machinetest.Rig {
			r := provisioned(t)
			boots(t, r)
			r.Start(nil)
			u := onRig(t, r)
			f := u.look(t.Context())
			q, err := state.NewRequest(state.KindRestore, state.Latest, "a person", time.Now())
			if err == nil {
				err = u.change(f, func(v *state.Volume) error { return v.WriteRequest(q) })
			}
			u.forget(f)
			if err != nil {
				t.Fatal(err)
			}
			return r
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := prepare(t)
			whole := start.Clone(t)
			if did := boots(t, whole); len(did) != 2 || !strings.HasPrefix(did[0], "restore: ") {
				t.Fatalf("without a cut: %s", did)
			}
			want := ends(t, whole)
			counted := start.Clone(t)
			counted.Start(func(int, string) error { return nil })
			u := onRig(t, counted)
			u.pass(t.Context())
			u.die(t)
			calls := counted.Calls()
			first := slices.Index(calls, "open /dev/vdb 1") + 1
			if first == 0 {
				t.Fatalf("the main disk is never opened for writing: %q", calls)
			}
			at := sampled(calls)
			if testing.Short() {
				at = slices.DeleteFunc(at, func(n int) bool { return n%4 != 0 && n != first })
			}
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
