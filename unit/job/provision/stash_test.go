package provision

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"gprovision/hw/block"
	"gprovision/model/layout"
	"gprovision/model/manifest"
	"gprovision/model/platform"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
)

// stashes has the station serve a manifest with files for the unit's own store: an archive, and another one that is no archive if it has
// content.
func (b *bench) stashes(archive, other string) {
	b.t.Helper()
	b.files["stash.txz"] = []byte(archive)
	files := []string{"stash.txz"}
	if other != "" {
		b.files["extra/license.key"] = []byte(other)
		files = append(files, "extra/license.key")
	}
	b.obeys(func(m *manifest.Manifest) {
		for _, name := range files {
			f, err := manifest.Measure(manifest.File{Src: name}, strings.NewReader(string(b.files[name])))
			if err != nil {
				b.t.Fatal(err)
			}
			m.StashFiles = append(m.StashFiles, f)
		}
	}, "7")
}

// stash returns the content of a file of the unit's own store, which only root may see.
func (b *bench) stash(u state.Unit, name string) string {
	b.t.Helper()
	dir := filepath.Join(b.Volume(u.Recovery.Table.Find(layout.Recovery).FSUUID), state.StashDir)
	for path, want := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, filepath.Join(dir, name): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode() != want {
			b.t.Errorf("%s: %v, %v", path, st, err)
		}
	}
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(content)
}

// TestStash: the files of the unit's own store are there after provisioning, only for root, and after a restore, and the script of an
// archive among them ran once, in the directory of what came with it. Nothing of that stays in memory.
func TestStash(t *testing.T) {
	g := newGoods(t)
	ran := filepath.Join(t.TempDir(), "ran")
	archive := testArchive(t, "run.sh", "#!/bin/sh\nset -e\necho says $(cat data) >> "+ran+"\ncat "+ran+"\n", "data", "hello")
	for name, free := range map[string]int{"kept in memory": 1000, "fetched twice": 0} {
		b := newBench(t, g, machinetest.Kind{Firmware: layout.UEFI})
		b.stashes(archive, "a license")
		t.Setenv("TMPDIR", t.TempDir())
		if err := b.provision(nil, func(j *provisioning) { j.Proc = proc(free) }); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, b.log)
		}
		if got, err := os.ReadFile(ran); err != nil || string(got) != "says hello\n" {
			t.Errorf("%s: the script did %q, %v", name, got, err)
		}
		if err := os.Remove(ran); err != nil {
			t.Error(err)
		}
		if !strings.Contains(b.log.String(), `output="says hello\n"`) {
			t.Errorf("%s: the log has no output of the script:\n%s", name, b.log)
		}
		if left, err := filepath.Glob(filepath.Join(os.TempDir(), "stash-*")); err != nil || len(left) > 0 {
			t.Errorf("%s: what was unpacked stays: %v, %v", name, left, err)
		}
		for _, after := range []string{"provisioning", "restore"} {
			b.Start(nil)
			u, _ := b.record(b.machine())
			if b.stash(u, "license.key") != "a license" || b.stash(u, "stash.txz") != archive {
				t.Errorf("%s: the store has something else after the %s", name, after)
			}
			if after == "restore" {
				break
			}
			if err := b.restore(); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, b.log)
			}
			if _, err := os.Stat(ran); err == nil {
				t.Errorf("%s: a restore runs the script", name)
			}
		}
	}
}

// TestOriginal provisions a unit of the default appliance table of the system that this one replaces, by the sample manifest of that, both
// as they were: only placeholders and the station's address are filled in.
func TestOriginal(t *testing.T) {
	table, err := os.ReadFile("../../../model/platform/testdata/original.json")
	if err != nil {
		t.Fatal(err)
	}
	variants, err := platform.Parse(table)
	if err != nil {
		t.Fatal(err)
	}
	variant, ok := variants.ByName("QEMU-mfg-test")
	if !ok {
		t.Fatal("the table has no QEMU-mfg-test")
	}
	sample, err := os.ReadFile("../../../model/manifest/testdata/original.json")
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, newGoods(t), machinetest.Kind{Firmware: layout.UEFI})
	b.AddDisk(block.Disk{Name: "sdr", Bus: block.USB, Vendor: "QEMU", Model: "QEMU HARDDISK", Serial: "REC", Size: 10 << 30})
	b.AddDisk(block.Disk{Name: "sdm", Bus: block.SATA, Vendor: "ATA", Model: "roothdd", Serial: "MAIN", Size: 20 << 30})
	const image = "linux_mfg/Image/" + benchRelease + ".upd"
	b.files[image], b.files[image+".minisig"] = b.files[benchRelease+".upd"], b.files[benchRelease+".upd.minisig"]
	b.files["norm_boot"], b.files["norm_boot.minisig"] = b.files["kernel.efi"], b.files["kernel.efi.minisig"]
	b.files["linux_mfg/stash.txz"] = []byte(testArchive(t, "stash.sh", "#!/bin/sh\necho stash command executing...\n"))
	b.files["sampleCmd.sh"] = []byte("#!/bin/sh\necho sample command executing...\n")
	sum := func(name string) string {
		s := sha1.Sum(b.files[name])
		return hex.EncodeToString(s[:])
	}
	filled := strings.NewReplacer("http://10.0.2.2:8901/", b.url+"/files/",
		"http://10.0.2.2:65432/", strings.Replace(b.url, "https:", "http:", 1)+"/",
		"WIDGET.LNX.SHINY.YYYY-MM-DD.NNNN", benchRelease, "KName", "norm_boot", "CredEndpt", manifest.Vault,
		"updsum", sum(image), "ksum", sum("norm_boot"), "mfgsum", sum("linux_mfg/stash.txz"), "cmdsum", sum("sampleCmd.sh"))
	b.serves(filled.Replace(string(sample)), b.goods.key, "7")

	fits := func(j *provisioning) {
		list := j.List
		j.List = func() ([]block.Disk, error) { // of the disks of the bench these two are there
			all, err := list()
			var out []block.Disk
			for _, d := range all {
				if d.Name == "sdr" || d.Name == "sdm" {
					out = append(out, d)
				}
			}
			return out, err
		}
		j.Identity.Variant, j.Policy.AllowSHA1 = variant, true
		mem := proc(0)
		mem["meminfo"] = &fstest.MapFile{Data: fmt.Appendf(nil, "MemTotal: %d kB\nMemAvailable: 1000000 kB\n", 1234<<10)}
		j.Proc = mem
		for i := range 4 {
			j.Sys.(fstest.MapFS)[fmt.Sprintf("devices/system/cpu/cpu%d/topology/physical_package_id", i)] = &fstest.MapFile{Data: fmt.Append(nil, i)}
		}
	}
	if err := b.provision(nil, fits); err != nil {
		t.Fatalf("%v\n%s", err, b.log)
	}
	for _, says := range []string{"sample command executing...", "stash command executing..."} {
		if !strings.Contains(b.log.String(), says) {
			t.Errorf("the log lacks %q:\n%s", says, b.log)
		}
	}
	b.Start(nil)
	m := b.machine()
	m.Identity.Variant = variant
	u, _ := b.record(m)
	if b.stash(u, "stash.txz") != string(b.files["linux_mfg/stash.txz"]) {
		t.Error("the store has something else")
	}
	if u.Platform != "QEMU-mfg-test" || u.Server != b.url || u.Recovery.Serial != "REC" || u.Main[0].Serial != "MAIN" {
		t.Errorf("the record says %+v", u)
	}
	if err := b.opens(u); err != nil {
		t.Errorf("the password that the operator reads: %v", err)
	}
}
