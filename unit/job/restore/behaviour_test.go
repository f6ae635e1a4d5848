package restore

import (
	"archive/tar"
	"bytes"
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

	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/job"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/keytest"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
)

// TestDataStay: what is on the data partition outlives a restore, as does the array of the data, and the unit's record names it again.
func TestDataStay(t *testing.T) {
	for name, kind := range map[string]machinetest.Kind{
		"two disks": {Firmware: layout.UEFI, Data: true},
		"one disk":  {Firmware: layout.BIOS, OneDisk: true, Data: true},
		"mirror":    {Firmware: layout.UEFI, Mirror: true, Data: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, kind)
			u, err := r.restore(nil)
			if err != nil {
				t.Fatal(err)
			}
			fs := ""
			if kind.Mirror {
				fs = u.DataArray.FSUUID
			} else {
				fs = u.Main[0].Table.Find(layout.Data).FSUUID
			}
			if err := os.WriteFile(filepath.Join(r.Volume(fs), "precious"), []byte("data"), 0o600); err != nil {
				t.Fatal(err)
			}
			again, err := r.restore(nil)
			if err != nil {
				t.Fatalf("%v; log:\n%s", err, &r.log)
			}
			if got := read(t, r.Volume(fs), "precious"); got != "data" {
				t.Errorf("the data are %q", got)
			}
			if diff := cmp.Diff(u.Main, again.Main); diff != "" {
				t.Errorf("the record has other main disks:\n%s", diff)
			}
		})
	}
}

// TestNetworkStays: a network configuration that a person made outlives a restore, unless the restore data say otherwise, or it is not one.
func TestNetworkStays(t *testing.T) {
	const own = "[Match]\nName=eth7\n\n[Network]\nDHCP=yes\n"
	for name, c := range map[string]struct {
		data    state.RestoreData
		archive []byte // on the recovery volume, in the place of the system's own
		want    bool
	}{
		"a person's":               {want: true},
		"dropped":                  {data: state.RestoreData{IgnoreNetCfg: true}},
		"an archive that is none":  {archive: []byte("no archive")},
		"an archive of other data": {archive: tarOf(t, "passwd", "root::0:0:::")},
		"an archive as saved":      {archive: tarOf(t, "10-own.network", own), want: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, machinetest.Kind{Firmware: layout.UEFI})
			if c.archive == nil {
				if _, err := r.restore(nil); err != nil {
					t.Fatal(err)
				}
				dir, _ := r.system()
				if err := os.WriteFile(filepath.Join(dir, "etc/systemd/network/10-own.network"), []byte(own), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			r.onVolume(func(v *state.Volume) error {
				if c.archive != nil {
					return v.WriteNetwork(c.archive)
				}
				return v.WriteRestoreData(c.data)
			})
			if _, err := r.restore(nil); err != nil {
				t.Fatal(err)
			}
			dir, _ := r.system()
			b, err := os.ReadFile(filepath.Join(dir, "etc/systemd/network/10-own.network"))
			if got := string(b) == own; got != c.want {
				t.Errorf("kept: %t, %v; log:\n%s", got, err, &r.log)
			}
			if _, err := os.Stat(filepath.Join(dir, "etc/systemd/network/.config-preserved")); (err == nil) != c.want {
				t.Errorf("the flag for configuration managements: %v", err)
			}
			if _, err := os.Stat(filepath.Join(dir, "etc/passwd")); err != nil || strings.Contains(read(t, dir, "etc/passwd"), "root::") {
				t.Errorf("/etc/passwd is not the release's: %v", err)
			}
		})
	}
}

// TestTiers: a restore keeps and loses what docs/reset.md says of the tier that was asked for.
func TestTiers(t *testing.T) {
	const own = "[Match]\nName=eth7\n\n[Network]\nDHCP=yes\n"
	for _, kind := range []machinetest.Kind{{Firmware: layout.UEFI, Data: true}, {Firmware: layout.BIOS, OneDisk: true, Data: true},
		{Firmware: layout.UEFI, Mirror: true, Data: true}} {
		for flag, asked := range map[string]string{
			"--settings": state.KindRestoreSettings, "--system": state.KindRestore, "--everything": state.KindRestoreEverything,
		} {
			keeps := jobtest.ResetPage(t, flag)
			t.Run(fmt.Sprintf("%s, one disk %t, mirror %t", asked, kind.OneDisk, kind.Mirror), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, kind)
				u, err := r.restore(nil)
				if err != nil {
					t.Fatal(err)
				}
				data := func(u state.Unit) string {
					if kind.Mirror {
						return r.Volume(u.DataArray.FSUUID)
					}
					return r.Volume(u.Main[0].Table.Find(layout.Data).FSUUID)
				}
				dir, _ := r.system()
				err = errors.Join(os.WriteFile(filepath.Join(data(u), "precious"), nil, 0o600), os.WriteFile(filepath.Join(dir, "usr/own"), nil, 0o600),
					os.WriteFile(filepath.Join(dir, "etc/systemd/network/10-own.network"), []byte(own), 0o644))
				if err != nil {
					t.Fatal(err)
				}
				stays := []string{state.KeyFile, state.HashFile, state.ImageDir + "/" + machinetest.Original + ".upd"}
				before := map[string]string{}
				r.onVolume(func(v *state.Volume) error {
					for _, name := range stays {
						before[name] = read(t, v.Path(), name)
					}
					q, err := state.NewRequest(asked, "", "a person", time.Now())
					_, herr := v.ChangeHistory(time.Now(), func(h *release.History) { h.Imaging(earlier, true, time.Now()) })
					return errors.Join(err, herr, v.WriteRequest(q), v.WriteNetwork(tarOf(t, "10-own.network", own)),
						v.WriteRestoreData(state.RestoreData{Preserve: true, BootArgs: "quiet"}),
						os.MkdirAll(v.Path(state.LogDir), 0o700), os.WriteFile(v.Path(state.LogDir, "before.log"), nil, 0o600))
				})
				u, err = r.restore(nil)
				if err != nil {
					t.Fatalf("%v; log:\n%s", err, &r.log)
				}
				dir, _ = r.system()
				exists := func(dir, name string) bool { _, err := os.Stat(filepath.Join(dir, name)); return err == nil }
				same := func(what string, there bool, row string) {
					if there != keeps(row) {
						t.Errorf("%s is there: %t", what, there)
					}
				}
				same("a file of the system before", exists(dir, "usr/own"), "installed system")
				same("the network file", exists(dir, "etc/systemd/network/10-own.network"), "saved network files")
				same("a file on the data partition", exists(data(u), "precious"), "data partition")
				same("the argument of the restore data", u.BootArgs != "", "restore data (`fr.data`)")
				r.onVolume(func(v *state.Volume) error {
					same(state.RestoreDataFile, exists(v.Path(), state.RestoreDataFile), "restore data (`fr.data`)")
					same(state.NetworkFile, exists(v.Path(), state.NetworkFile), "saved network files")
					for _, name := range stays {
						same(name, read(t, v.Path(), name) == before[name], "images, unit's key, hash of the admin password")
					}
					same("a log", exists(v.Path(state.LogDir), "before.log"), "logs, history of images")
					h, err := v.History()
					same("an older image of the history", err == nil && slices.ContainsFunc(h.ImageResults, func(r release.Result) bool {
						return r.Image == earlier
					}), "logs, history of images")
					if exists(v.Path(), state.RequestFile) {
						t.Error("the request is still there")
					}
					return nil
				})
			})
		}
	}
}

func tarOf(t *testing.T, name, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))})
	if err == nil {
		_, err = w.Write([]byte(content))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRestoreData: kernel arguments reach the boot entry of the restored system, if they are on the list and the artifact is not locked;
// the data are used once, unless they say otherwise.
func TestRestoreData(t *testing.T) {
	for name, c := range map[string]struct {
		text   string
		locked bool
		args   string
		stays  bool
		begins bool // a new history
	}{
		"allowed":        {`{"Version":1,"BootArgs":"console=ttyS7"}`, false, "console=ttyS7", false, false},
		"not allowed":    {`{"Version":1,"BootArgs":"console=ttyS7 init=/bin/sh"}`, false, "console=ttyS7", false, false},
		"locked":         {`{"Version":1,"BootArgs":"console=ttyS7"}`, true, "", false, false},
		"kept":           {`{"Version":1,"BootArgs":"console=ttyS7","Preserve":true}`, false, "console=ttyS7", true, false},
		"a new history":  {`{"Version":1,"ClearHistory":true}`, false, "", false, true},
		"no restoredata": {`{"Version":1,`, false, "", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, machinetest.Kind{Firmware: layout.BIOS})
			r.onVolume(func(v *state.Volume) error {
				var h release.History
				h.Imaging(earlier+".upd", false, time.Now())
				b, err := h.Marshal()
				return errors.Join(err, v.WriteHistory(b), os.WriteFile(v.Path(state.RestoreDataFile), []byte(c.text), 0o600))
			})
			u, err := r.restore(func(e job.Env, _ *goal) { e.Machine.Policy.Locked = c.locked })
			if err != nil {
				t.Fatal(err)
			}
			config := read(t, r.Volume(u.System().FSUUID), "boot/grub/grub.cfg")
			if u.BootArgs != c.args || strings.Contains(config, "ttyS7") != (c.args != "") || strings.Contains(config, "init=/bin/sh") {
				t.Errorf("arguments %q; boot loader:\n%s", u.BootArgs, config)
			}
			r.onVolume(func(v *state.Volume) error {
				if _, err := os.Stat(v.Path(state.RestoreDataFile)); (err == nil) != c.stays {
					t.Errorf("the file afterwards: %v", err)
				}
				h, err := v.History()
				if _, old := h.Find(earlier + ".upd"); old == c.begins {
					t.Errorf("history %+v, %v", h, err)
				}
				return nil
			})
		})
	}
}

// TestWhichImage: the image that is restored is the one that was asked for, or else the newest that is good; of a bad one the history
// knows.
func TestWhichImage(t *testing.T) {
	key := keytest.New(t)
	damaged := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)/2] ^= 1
		return b
	}
	noBoot := func([]byte) []byte { return imagetest.XZ(t, imagetest.Tar(t, "")) }
	large := func([]byte) []byte { // it needs 4 TiB
		meta := fmt.Sprintf(`{"version":1,"name":%q,"build":1,"bytes":2048,"inodes":1,"blocks":%d}`, later, 1<<30)
		return imagetest.WithArtifact(t, meta, imagetest.BzImage(7, ""))
	}
	type images map[string]func([]byte) []byte // what becomes of each before it is signed
	type change = func(job.Env, *goal)
	wants := func(image string) change { return func(_ job.Env, o *goal) { o.Request.Image = image } }
	backTo := func(base string) change { return func(_ job.Env, o *goal) { o.Request, o.Back = nil, base+".upd" } }
	oldest := func(e job.Env, o *goal) { o.Request, e.Survey.Args.Oldest = nil, true }
	const original = machinetest.Original
	for name, c := range map[string]struct {
		put    images // beside the original
		change change
		want   string // "": none
		bad    []string
		fault  *fault.Fault
	}{
		"newest":                       {images{later: nil}, nil, later, nil, nil},
		"original":                     {images{later: nil}, wants(state.Original), original, nil, nil},
		"oldest, without a request":    {images{later: nil}, oldest, original, nil, nil},
		"by name":                      {images{later: nil, earlier: nil}, wants(earlier + ".upd"), earlier, nil, nil},
		"by a name that is gone":       {images{later: nil}, wants(earlier + ".upd"), later, nil, nil},
		"back to":                      {images{later: nil}, backTo(original), original, nil, nil},
		"back to one that is gone":     {images{later: nil}, backTo(earlier), "", nil, fault.NoImage},
		"the newest is damaged":        {images{later: damaged}, nil, original, []string{later}, nil},
		"the newest cannot be started": {images{later: noBoot}, nil, original, []string{later}, nil},
		"there is no room for it":      {images{later: large}, nil, original, nil, nil},
		"back to a damaged one":        {images{earlier: damaged}, backTo(earlier), "", []string{earlier}, fault.ImageCorrupt},
		"a bad original":               {images{original: damaged, later: nil}, wants(state.Original), later, []string{original}, nil},
		"none is good":                 {images{original: damaged, later: damaged}, nil, "", []string{later, original}, fault.NoImage},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, machinetest.Kind{Firmware: layout.UEFI})
			for base, change := range c.put {
				r.put(base, key, change)
			}
			_, err := r.restore(func(e job.Env, o *goal) {
				e.Machine.Keys = []signature.PublicKey{key.Public()}
				if c.change != nil {
					c.change(e, o)
				}
			})
			if fault.Of(err) != c.fault || (err == nil) != (c.want != "") {
				t.Fatalf("got %v, want %v", err, c.fault)
			}
			if _, mark := r.system(); mark.Release != c.want {
				t.Errorf("restored is %q, want %q; log:\n%s", mark.Release, c.want, &r.log)
			}
			r.onVolume(func(v *state.Volume) error {
				h, err := v.History()
				for _, base := range []string{earlier, original, later} {
					if res, _ := h.Find(base + ".upd"); (res.ImagingFailures > 0) != slices.Contains(c.bad, base) {
						t.Errorf("history of %s: %+v, %v", base, res, err)
					}
				}
				return nil
			})
		})
	}
}

// TestRefuses: what is not as it was when the restore was decided ends it before anything on a main disk changes, and with a code that says
// what it is.
func TestRefuses(t *testing.T) {
	uefi, mirror := machinetest.Kind{Firmware: layout.UEFI}, machinetest.Kind{Firmware: layout.UEFI, Mirror: true}
	one := machinetest.Kind{Firmware: layout.UEFI, OneDisk: true}
	file := func(name, content string) func(r *rig, _ *machine.Machine, o *goal) { // without content it is not there
		return func(r *rig, _ *machine.Machine, o *goal) {
			err := os.Remove(o.Volume.Path(name))
			if content != "" {
				err = os.WriteFile(o.Volume.Path(name), []byte(content), 0o600)
			}
			if err != nil {
				r.t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		kind    machinetest.Kind
		restore bool // before
		change  func(r *rig, m *machine.Machine, o *goal)
		want    *fault.Fault
	}{
		"a record without a recovery volume": {uefi, true, func(_ *rig, _ *machine.Machine, o *goal) {
			o.Unit.Recovery.Table.Partitions = nil
		}, fault.RecoveryDamaged},
		"a record with an array": {uefi, true, func(_ *rig, _ *machine.Machine, o *goal) {
			o.Unit.Array = &state.Array{Level: 1}
		}, fault.PlanChanged},
		"a platform with an array": {uefi, true, func(_ *rig, m *machine.Machine, _ *goal) {
			m.Identity.Variant.NumDataDisks, m.Identity.Variant.SwRaidlevel = 2, 1
		}, fault.PlanChanged},
		"a platform with one disk": {uefi, true, func(_ *rig, m *machine.Machine, _ *goal) {
			m.Identity.Variant.RecoveryMedia.Layout = platform.OnMain
		}, fault.PlanChanged},
		"no disk":            {uefi, false, func(_ *rig, _ *machine.Machine, o *goal) { o.Planned = nil }, fault.MainMissing},
		"too few disks":      {mirror, true, func(_ *rig, _ *machine.Machine, o *goal) { o.Planned = o.Planned[:1] }, fault.PlanChanged},
		"another disk":       {uefi, false, func(r *rig, _ *machine.Machine, _ *goal) { r.Replace("vdb", "ANOTHER") }, fault.MainMissing},
		"another one, again": {uefi, true, func(r *rig, _ *machine.Machine, _ *goal) { r.Replace("vdb", "ANOTHER") }, fault.MainMissing},
		"the disk is gone":   {mirror, false, func(r *rig, _ *machine.Machine, _ *goal) { r.Remove("vdc") }, fault.MainMissing},
		"not blank any more": {uefi, false, func(r *rig, m *machine.Machine, o *goal) {
			o.Blank = true
			if err := m.MakeExt4(r.t.Context(), o.Planned[0].Path, "HOLIDAYS", "0f4bd1a3-0000-4000-8000-000000000000"); err != nil {
				r.t.Fatal(err)
			}
		}, fault.MainForeign},
		"the recovery device itself": {uefi, false, func(r *rig, m *machine.Machine, o *goal) {
			disks, err := m.Disks()
			if err != nil {
				r.t.Fatal(err)
			}
			o.Planned = disks[:1]
		}, fault.MainForeign},
		"another table on the only disk": {one, true, func(_ *rig, _ *machine.Machine, o *goal) {
			o.Unit.Main[0].Table.Partitions = slices.Clone(o.Unit.Main[0].Table.Partitions)
			o.Unit.Main[0].Table.Find(layout.Primary).Size -= layout.MiB
		}, fault.TableChanged},
		"no images": {uefi, true, func(r *rig, _ *machine.Machine, o *goal) {
			if err := os.RemoveAll(o.Volume.Path(state.ImageDir)); err != nil {
				r.t.Fatal(err)
			}
		}, fault.NoImage},
		"no image": {uefi, true, func(r *rig, _ *machine.Machine, o *goal) {
			if err := os.Remove(o.Volume.Path(state.ImageDir, machinetest.Original+".upd")); err != nil {
				r.t.Fatal(err)
			}
		}, fault.NoImage},
		"only what looks like an image": {uefi, true, func(r *rig, _ *machine.Machine, o *goal) {
			file := o.Volume.Path(state.ImageDir, machinetest.Original+".upd")
			if err := errors.Join(os.Remove(file), os.Mkdir(file, 0o700)); err != nil {
				r.t.Fatal(err)
			}
		}, fault.ImageName},
		"a link in the place of the images": {uefi, true, func(r *rig, _ *machine.Machine, o *goal) {
			dir := o.Volume.Path(state.ImageDir)
			if err := errors.Join(os.Rename(dir, dir+"2"), os.Symlink(dir+"2", dir)); err != nil {
				r.t.Fatal(err)
			}
		}, fault.RecoveryDamaged},
		"no password":   {uefi, true, file(state.HashFile, ""), fault.RecoveryDamaged},
		"a damaged one": {uefi, true, file(state.HashFile, "plain"), fault.RecoveryDamaged},
		"no key":        {uefi, true, file(state.KeyFile, ""), fault.RecoveryDamaged},
		"a damaged key": {uefi, true, file(state.KeyFile, "{"), fault.RecoveryDamaged},
		"a newer key":   {uefi, true, file(state.KeyFile, `{"version":99}`), fault.RecoveryNewer},
		"unsigned":      {uefi, true, func(_ *rig, m *machine.Machine, _ *goal) { m.Policy.AllowUnsigned = false }, fault.ImageUnsigned},
		"too old":       {uefi, true, func(_ *rig, m *machine.Machine, _ *goal) { m.Policy.OldestBuild = "2026-11-23.0001" }, fault.Policy},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.kind)
			if c.restore {
				if _, err := r.restore(nil); err != nil {
					t.Fatal(err)
				}
			}
			dir, _ := r.system()
			now := func() string {
				if dir == "" {
					return r.Bytes("vdb", 0, 0)
				}
				return r.Bytes("vdb", 0, 0) + machinetest.Tree(t, dir)
			}
			before := ""
			_, err := r.restore(func(e job.Env, o *goal) {
				c.change(r, e.Machine, o)
				before = now()
			})
			if fault.Of(err) != c.want || err == nil {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if now() != before {
				t.Errorf("the main system is changed; log:\n%s", &r.log)
			}
			if slices.ContainsFunc(r.Written(), func(n string) bool { return n == "sda" }) {
				t.Errorf("written to are %s", r.Written())
			}
		})
	}
}

// TestOldImagesGo: after a restore the recovery volume keeps the image that was restored, the original and the newest ones.
func TestOldImagesGo(t *testing.T) {
	r := newRig(t, machinetest.Kind{Firmware: layout.BIOS})
	key := keytest.New(t)
	var all []string
	for _, n := range []string{"2026-11-23.0001", "2026-11-24.0001", "2026-11-25.0001", "2026-11-26.0001"} {
		r.put(imagetest.Prefix+n, key, nil)
		all = append(all, imagetest.Prefix+n+".upd")
	}
	if _, err := r.restore(func(e job.Env, o *goal) {
		e.Machine.Keys = []signature.PublicKey{key.Public()}
		o.Request.Image = all[0]
	}); err != nil {
		t.Fatal(err)
	}
	r.onVolume(func(v *state.Volume) error {
		list, err := os.ReadDir(v.Path(state.ImageDir))
		var got []string
		for _, e := range list {
			if !strings.HasSuffix(e.Name(), signature.Suffix) {
				got = append(got, e.Name())
			}
		}
		if want := []string{machinetest.Original + ".upd", all[0], all[2], all[3]}; !slices.Equal(got, want) {
			t.Errorf("left are %q, want %q", got, want)
		}
		return err
	})
}

// TestRecoveryIsUpdated: the recovery device gets the boot artifact of the release if that is newer and somebody vouches for it, or if it
// has none that can be started.
func TestRecoveryIsUpdated(t *testing.T) {
	old := imagetest.BzImage(6, "old")
	for name, c := range map[string]struct {
		own    []byte
		signed bool
		keep   bool // KERNEL_OVERRIDE=recovery
		want   []byte
	}{
		"older, a signed release":             {old, true, false, imagetest.BzImage(7, "")},
		"older, an unsigned release":          {old, false, false, old},
		"older, and to be kept":               {old, true, true, old},
		"newer":                               {imagetest.BzImage(8, "new"), true, false, imagetest.BzImage(8, "new")},
		"unreadable, an unsigned release":     {[]byte("no artifact"), false, false, imagetest.BzImage(7, "")},
		"unreadable, and to be kept":          {[]byte("no artifact"), false, true, imagetest.BzImage(7, "")},
		"the same number and another content": {imagetest.BzImage(7, "other"), true, false, imagetest.BzImage(7, "other")},
	} {
		for _, fw := range []layout.Firmware{layout.UEFI, layout.BIOS} {
			t.Run(name+"/"+string(fw), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, machinetest.Kind{Firmware: fw})
				key := keytest.New(t)
				r.put(later, key, nil)
				r.onVolume(func(v *state.Volume) error { return os.WriteFile(v.Path("norm_boot"), c.own, 0o600) })
				u, err := r.restore(func(e job.Env, o *goal) {
					if e.Survey.Args.KeepRecovery = c.keep; c.signed {
						e.Machine.Keys = []signature.PublicKey{key.Public()}
						return
					}
					o.Request.Image = machinetest.Original + ".upd"
				})
				if err != nil {
					t.Fatal(err)
				}
				_, o := r.boot(nil)
				if got := read(t, o.Volume.Path("norm_boot")); got != string(c.want) {
					t.Errorf("the recovery artifact is another one; log:\n%s", &r.log)
				}
				if fw == layout.UEFI {
					if got := read(t, r.Volume(u.Recovery.Table.Find(layout.ESP).FSUUID), "EFI/BOOT/BOOTX64.EFI"); got != string(c.want) {
						t.Error("the recovery device starts another one")
					}
				}
			})
		}
	}
}

// TestFromMedium: an image of a medium is restored although it is on no recovery volume, and the mark names the wish of that medium.
func TestFromMedium(t *testing.T) {
	r := newRig(t, machinetest.Kind{Firmware: layout.UEFI})
	f := imagetest.New(t)
	im := f.Put(t, later+".upd", later, imagetest.XZ(t, imagetest.System(t, later)))
	q, err := state.NewRequest(state.KindRestore, later+".upd", "a medium", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.restore(func(e job.Env, o *goal) {
		e.Machine.Keys, e.Machine.Policy.AllowUnsigned = []signature.PublicKey{f.Key.Public()}, false
		o.Image, o.Request = &im, &q
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, mark := r.system(); mark.Request != q.ID || mark.Release != later {
		t.Errorf("the mark says %+v", mark)
	}
	r.onVolume(func(v *state.Volume) error {
		if _, err := v.ReadRequest(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the request stays: %v", err)
		}
		return nil
	})
}

// TestDiskFails: a disk that cannot be written to is the disk's fault: no other image is tried, none gets a bad name, and the unit asks for
// the restore again.
func TestDiskFails(t *testing.T) {
	for _, call := range []string{"write /dev/vdb", "run mke2fs", "mount /dev/vdb2", "sync /dev/vdb"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, machinetest.Kind{Firmware: layout.UEFI})
			r.put(later, keytest.New(t), nil)
			e, o := r.boot(nil)
			o.Request.Image = machinetest.Original + ".upd"
			begun := len(r.Calls())
			r.Fail(func(n int, c string) error {
				if n > begun && strings.HasPrefix(c, call) {
					return syscall.EIO
				}
				return nil
			})
			err := restore(t.Context(), e, o)
			if got := fault.Of(err); got != fault.DiskWrite && got != fault.BootSetup {
				t.Errorf("got %v", err)
			}
			if !strings.HasPrefix(call, "mount") && (err == nil || !strings.Contains(err.Error(), "vdb")) { // mount(2) names it by its door
				t.Errorf("it does not name the device: %v", err)
			}
			r.onVolume(func(v *state.Volume) error {
				if h, err := v.History(); err != nil || len(h.ImageResults) > 0 {
					t.Errorf("history %+v, %v", h, err)
				}
				_, err := v.ReadRequest()
				return err
			})
			if _, mark := r.system(); mark.Release != "" {
				t.Errorf("the system has the mark %+v", mark)
			}
		})
	}
}

// TestIsTakenUpAgain: a restore that nobody asked for leaves a request before it destroys anything, which asks for what it was to restore.
func TestIsTakenUpAgain(t *testing.T) {
	for name, c := range map[string]struct {
		change func(e job.Env, o *goal)
		want   string
	}{
		"blank":    {func(_ job.Env, o *goal) { o.Blank = true }, state.Latest},
		"original": {func(e job.Env, _ *goal) { e.Survey.Args.Oldest = true }, state.Original},
		"back":     {func(_ job.Env, o *goal) { o.Back = machinetest.Original + ".upd" }, machinetest.Original + ".upd"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, machinetest.Kind{Firmware: layout.UEFI})
			r.onVolume((*state.Volume).DeleteRequest)
			e, o := r.boot(nil)
			c.change(e, &o)
			r.Fail(func(_ int, call string) error {
				if call == "open /dev/vdb 1" {
					return machinetest.ErrCut
				}
				return nil
			})
			if err := restore(t.Context(), e, o); !errors.Is(err, machinetest.ErrCut) {
				t.Fatalf("got %v", err)
			}
			r.onVolume(func(v *state.Volume) error {
				q, err := v.ReadRequest()
				if q.Image != c.want || !q.Auto || q.Kind != state.KindRestore {
					t.Errorf("the request is %+v", q)
				}
				return err
			})
			if _, err := r.restore(nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDiscard: a platform whose disks are flash has its filesystems on them mounted with discard, and no other has.
func TestDiscard(t *testing.T) {
	for _, flash := range []bool{true, false} {
		r := newRig(t, machinetest.Kind{Firmware: layout.UEFI, Data: true})
		if _, err := r.restore(func(e job.Env, _ *goal) { e.Machine.Identity.Variant.DiskIsSSD = flash }); err != nil {
			t.Fatal(err)
		}
		dir, _ := r.system()
		seen := 0
		for line := range strings.Lines(read(t, dir, "etc/fstab")) {
			f := strings.Fields(line)
			if len(f) < 4 || f[1] != "/" && f[1] != "/data" {
				continue
			}
			if seen++; slices.Contains(strings.Split(f[3], ","), "discard") != flash {
				t.Errorf("flash %t: %s", flash, line)
			}
		}
		if seen != 2 {
			t.Errorf("%d of the two filesystems are in fstab", seen)
		}
	}
}
