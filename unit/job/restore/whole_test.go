package restore

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/host"
	"gprovision/hw/raid"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/model/signature"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/job"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
)

// later and earlier are releases beside the one that the unit was provisioned with.
const later, earlier = imagetest.Prefix + "2026-11-24.0001", imagetest.Prefix + "2026-11-20.0001"

// rig is a unit on a machine that is not there, provisioned.
type rig struct {
	*machinetest.Rig
	t   *testing.T
	log bytes.Buffer // of the last boot
}

func newRig(t *testing.T, k machinetest.Kind) *rig {
	t.Helper()
	r := &rig{Rig: machinetest.NewUnit(t, k), t: t}
	machinetest.Provision(r.Rig, machinetest.Machine(r.Rig))
	return r
}

// boot switches the machine on and mounts the recovery volume, writable.
func (r *rig) boot(fault func(n int, call string) error) (job.Env, goal) {
	r.t.Helper()
	r.Start(fault)
	m := machinetest.Machine(r.Rig)
	r.log.Reset()
	m.Log = slog.New(slog.NewTextHandler(&r.log, nil))
	parts, err := m.Partitions(platform.AllowedRecovery)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, p := range parts {
		if info, _, err := m.ProbePartition(p.Path); err == nil && info.Label == m.Site.Names.Recovery {
			if err := m.Mount(p.Path, m.Places.Recovery, "ext4", host.MountOptions{}); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	e, o := jobtest.Env(m), goal{Volume: state.Open(m.Places.Recovery)}
	if o.Unit, err = o.Volume.ReadUnit(); err != nil {
		r.t.Fatal(err)
	}
	if q, err := o.Volume.ReadRequest(); err == nil {
		o.Request = &q
	}
	disks, err := m.Disks()
	if err != nil {
		r.t.Fatal(err)
	}
	o.Planned = slices.DeleteFunc(disks, func(d block.Disk) bool { return d.Size != machinetest.MainSize })
	if o.Unit.Array != nil {
		members, err := m.Members()
		if err != nil {
			r.t.Fatal(err)
		}
		if a := raid.Find(members, o.Unit.Array.UUID); a.Complete() {
			if err := m.StartArray(r.t.Context(), a); err != nil {
				r.t.Fatal(err)
			}
			o.Main = &machine.Found{Path: machine.ArrayPath}
		}
		return e, o
	}
	for _, p := range parts {
		if p.Partition.UUID == o.Unit.System().UUID && r.Volume(o.Unit.System().FSUUID) != "" {
			o.Main = &p
		}
	}
	return e, o
}

// restore runs one restore as change has its goal.
func (r *rig) restore(change func(e job.Env, o *goal)) (state.Unit, error) {
	r.t.Helper()
	e, o := r.boot(nil)
	if change != nil {
		change(e, &o)
	}
	err := restore(r.t.Context(), e, o)
	u, rerr := o.Volume.ReadUnit()
	if rerr != nil {
		r.t.Error(rerr)
	}
	return u, err
}

// onVolume looks at the recovery volume, or changes it.
func (r *rig) onVolume(do func(v *state.Volume) error) {
	r.t.Helper()
	_, o := r.boot(nil)
	if err := do(o.Volume); err != nil {
		r.t.Fatal(err)
	}
}

// system returns where the restored system lies, with its mark.
func (r *rig) system() (string, state.Mark) {
	r.t.Helper()
	_, o := r.boot(nil)
	dir := r.Volume(o.Unit.System().FSUUID)
	b, err := os.ReadFile(filepath.Join(dir, "boot.normal"))
	if err != nil {
		return dir, state.Mark{}
	}
	m, err := state.ParseMark(b)
	if err != nil {
		r.t.Error(err)
	}
	return dir, m
}

// put puts a release on the recovery volume.
func (r *rig) put(base string, key signature.PrivateKey, change func([]byte) []byte) {
	r.t.Helper()
	f := imagetest.Fixture{Dir: r.t.TempDir(), Key: key}
	content := imagetest.XZ(r.t, imagetest.System(r.t, base))
	if change != nil {
		content = change(content)
	}
	f.Put(r.t, base+".upd", base, content)
	r.onVolume(func(v *state.Volume) error {
		if err := os.RemoveAll(v.Path(state.ImageDir, base+".upd")); err != nil {
			return err
		}
		return os.CopyFS(v.Path(state.ImageDir), os.DirFS(f.Dir))
	})
}

func read(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// TestWhole restores each kind of unit after provisioning and once more on request, and looks at what the next boot and the running system
// see.
func TestWhole(t *testing.T) {
	for name, kind := range map[string]machinetest.Kind{
		"UEFI":               {Firmware: layout.UEFI, Data: true},
		"BIOS":               {Firmware: layout.BIOS},
		"UEFI, one disk":     {Firmware: layout.UEFI, OneDisk: true},
		"BIOS, one disk":     {Firmware: layout.BIOS, OneDisk: true, Data: true},
		"UEFI, mirror":       {Firmware: layout.UEFI, Mirror: true},
		"BIOS, mirror, data": {Firmware: layout.BIOS, Mirror: true, Data: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, kind)
			for n, by := range []string{state.ByProvisioning, "a person"} {
				id := ""
				r.onVolume(func(v *state.Volume) error {
					q, err := v.ReadRequest()
					if n > 0 {
						q, err = state.NewRequest(state.KindRestore, state.Latest, by, time.Now())
						err = errors.Join(err, v.WriteRequest(q))
					}
					id = q.ID
					return err
				})
				u, err := r.restore(nil)
				if err != nil {
					t.Fatalf("%s: %v; log:\n%s", by, err, &r.log)
				}
				if got := r.Written(); slices.Contains(got, "sda") {
					t.Errorf("written to are %s", got)
				}
				dir, mark := r.system()
				if mark.Request != id || id == "" || mark.Release != machinetest.Original || mark.Serial != machinetest.Serial {
					t.Errorf("%s: the mark says %+v, the request was %q", by, mark, id)
				}
				if host := read(t, dir, "etc/hostname"); !strings.Contains(host, machinetest.Serial[3:]) {
					t.Errorf("the host name is %q", host)
				}
				r.mounts(u, kind, read(t, dir, "etc/fstab"))
				if kind.Mirror && !strings.Contains(read(t, dir, "etc/mdadm/mdadm.conf"), "ARRAY /dev/md0 ") {
					t.Errorf("mdadm.conf is %s", read(t, dir, "etc/mdadm/mdadm.conf"))
				}
				r.bootable(u)
				r.onVolume(func(v *state.Volume) error {
					if _, err := v.ReadRequest(); !errors.Is(err, os.ErrNotExist) {
						t.Errorf("%s: the request stays: %v", by, err)
					}
					if counts, err := v.ReadCounts(); err != nil || counts.Restores != n+1 || counts.RestoreFailures != 0 {
						t.Errorf("%s: counts %+v, %v", by, counts, err)
					}
					if h, err := v.History(); err != nil || !h.Check(machinetest.Original+".upd") {
						t.Errorf("%s: history %+v, %v", by, h, err)
					}
					return nil
				})
			}
		})
	}
}

// bootable checks that firmware and boot loader start the restored system, and the recovery volume beside it.
func (r *rig) bootable(u state.Unit) {
	r.t.Helper()
	e, o := r.boot(nil)
	m := e.Machine
	if m.Firmware == layout.BIOS {
		config := read(r.t, r.Volume(u.System().FSUUID), "boot/grub/grub.cfg")
		if !strings.Contains(config, "real_root=") || !strings.Contains(config, u.Recovery.Table.Find(layout.Recovery).FSUUID) {
			r.t.Errorf("the main disk's boot loader does\n%s", config)
		}
		return
	}
	if change, err := m.EnsureEntries(m.Vars, u); err != nil || !change.Empty() {
		r.t.Errorf("boot entries lacked %+v, %v", change, err)
	}
	for i, d := range u.Main {
		file := strings.ReplaceAll(machine.NormalFile(u), `\`, "/")
		if !bytes.Equal([]byte(read(r.t, r.Volume(d.Table.Find(layout.ESP).FSUUID), file)), imagetest.BzImage(7, "")) {
			r.t.Errorf("main disk %d does not start the release", i)
		}
	}
	if !bytes.Equal([]byte(read(r.t, o.Volume.Path("norm_boot"))), imagetest.BzImage(7, "")) {
		r.t.Error("the recovery artifact is another one")
	}
}

// mounts checks that the restored system mounts what it has, and no more.
func (r *rig) mounts(u state.Unit, kind machinetest.Kind, fstab string) {
	r.t.Helper()
	main := u.Main[0].Table
	want := []string{"PARTUUID=" + u.Recovery.Table.Find(layout.Recovery).UUID + " /mnt/RECOVERY ext4"}
	if kind.Mirror {
		want = append(want, "UUID="+u.Array.FSUUID+" / ext4")
	} else {
		want = append(want, "PARTUUID="+main.Find(layout.Primary).UUID+" / ext4")
	}
	if p := main.Find(layout.ESP); p != nil {
		want = append(want, "PARTUUID="+p.UUID+" /boot/efi vfat")
	}
	switch {
	case kind.Data && kind.Mirror:
		want = append(want, "UUID="+u.DataArray.FSUUID+" /data ext4")
	case kind.Data:
		want = append(want, "PARTUUID="+main.Find(layout.Data).UUID+" /data ext4")
	}
	lines := strings.Split(strings.TrimSpace(fstab), "\n")[1:]
	if len(lines) != len(want) || slices.ContainsFunc(want, func(w string) bool {
		return !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, w+" ") })
	}) {
		r.t.Errorf("fstab is\n%s\nwant\n%s", fstab, strings.Join(want, "\n"))
	}
}
