package unitcmd

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gprovision/unit/state"
	"gprovision/unit/sysroot"
)

func TestSystemdUnit(t *testing.T) {
	f := newFake(t)
	if f.run("systemd-unit", "--list") != 0 {
		t.Fatal(f.err.String())
	}
	names := strings.Fields(f.out.String())
	if len(names) < 3 {
		t.Fatalf("units: %q", names)
	}
	for _, name := range names {
		if code := f.run("systemd-unit", name); code != 0 || !strings.Contains(f.out.String(), "[Install]\nWantedBy=multi-user.target") {
			t.Errorf("%s: exit status %d: %s", name, code, f.out.String())
		}
	}
	for name, says := range map[string]string{ // when they run, as docs/running-system.md has it
		"gprov-boot-ok.service": "\nAfter=multi-user.target ", "gprov-save-network.path": "\nPathChanged=/etc/systemd/network\n",
	} {
		if f.run("systemd-unit", name); !strings.Contains(f.out.String(), says) {
			t.Errorf("%s does not say %q", name, says)
		}
	}
	if code := f.run("systemd-unit", "../unitcmd.go"); code != 2 || !strings.Contains(f.err.String(), "gprov-save-network.path") {
		t.Errorf("exit status %d: %s", code, f.err.String())
	}
}

// system puts a root filesystem with systemd's own targets into a new directory, and gprov-unit with its units into that.
func system(t *testing.T, f *fake) string {
	t.Helper()
	root := t.TempDir()
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if code := f.run("install", "--root", root, "--program", program); code != 0 {
			t.Fatalf("exit status %d: %s", code, f.err.String())
		}
	}
	return root
}

func TestInstall(t *testing.T) {
	f := newFake(t)
	root := system(t, f)
	if st, err := os.Stat(filepath.Join(root, "usr/sbin/gprov-unit")); err != nil || st.Mode() != 0o755 {
		t.Errorf("program: %v, %v", st, err)
	}
	for _, name := range unitNames() {
		want, _ := units.ReadFile("systemd/" + name)
		if b, err := os.ReadFile(filepath.Join(root, "usr/lib/systemd/system", name)); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s: %v", name, err)
		}
		if to, err := os.Readlink(filepath.Join(root, "etc/systemd/system/multi-user.target.wants", name)); err != nil || to != "/usr/lib/systemd/system/"+name {
			t.Errorf("%s is not enabled: %q, %v", name, to, err)
		}
	}

	// What lies in the image leads nothing out of it.
	outside, hostile := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(hostile, "usr")); err != nil {
		t.Fatal(err)
	}
	if code := f.run("install", "--root", hostile); code != 1 {
		t.Errorf("through a link: exit status %d", code)
	}
	if list, _ := os.ReadDir(outside); len(list) > 0 {
		t.Errorf("outside: %v", list)
	}
	if code := f.run("install", "--root", hostile, "--program", "/nonsense"); code != 2 {
		t.Errorf("no program: exit status %d", code)
	}
}

// systemd's own judge reads the units.
func TestUnitsAgainstSystemd(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal("systemd-analyze is not there")
		}
		t.Skip("systemd-analyze is not there")
	}
	root := system(t, newFake(t))
	for _, name := range unitNames() {
		// Other units, such as multi-user.target, are those of this machine. The program is not installed here.
		path := filepath.Join(t.TempDir(), name)
		b, err := os.ReadFile(filepath.Join(root, "usr/lib/systemd/system", name))
		if err != nil {
			t.Fatal(err)
		}
		b = bytes.ReplaceAll(b, []byte("/usr/sbin/gprov-unit"), []byte("/bin/true"))
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(analyze, "verify", "--man=no", "--recursive-errors=no", path).CombinedOutput()
		if err != nil || bytes.Contains(out, []byte(name)) {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}

func TestSaveNetwork(t *testing.T) {
	f := newFake(t)
	if code := f.run("save-network"); code != 1 || !strings.Contains(f.err.String(), "hint:") {
		t.Errorf("never restored: exit status %d: %s", code, f.err.String())
	}
	s, err := sysroot.Open(f.root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.SetNetwork(f.Site.Names.ConfDir, sysroot.Network{}, nil); err != nil {
		t.Fatal(err)
	}
	check := func(what, say, ops, saved string) {
		t.Helper()
		if code := f.run("save-network"); code != 0 || !strings.Contains(f.out.String(), say) || strings.Join(f.ops, ",") != ops {
			t.Errorf("%s: exit status %d, mounts %q: %s%s", what, code, f.ops, f.out.String(), f.err.String())
		}
		b, err := f.volume().ReadNetwork()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		if b != nil {
			files, refused, err := sysroot.UnpackNetwork(b)
			if err != nil || refused != nil {
				t.Errorf("%s: %v, %v", what, err, refused)
			}
			for _, file := range files {
				names = append(names, file.Name)
			}
		}
		if got := strings.Join(names, " "); got != saved {
			t.Errorf("%s: saved are %q, want %q", what, got, saved)
		}
	}
	check("as restored", "nothing to save", "", "")
	f.put(t, "etc/systemd/network/10-static.network", "[Match]\nName=eth0\n[Network]\nAddress=192.0.2.2/24\n")
	check("changed", "a restore brings it back", "rw,ro", "10-static.network 90-ethernet.network")
	check("again", "saved already", "", "10-static.network 90-ethernet.network")
	f.put(t, "etc/systemd/network/20-wg.netdev", "[NetDev]\nName=wg0\nKind=wireguard\n[WireGuard]\nPrivateKey=c2VjcmV0\n")
	check("a key", "saved already", "", "10-static.network 90-ethernet.network")
	if !strings.Contains(f.err.String(), "20-wg.netdev") || strings.Contains(f.err.String(), "c2VjcmV0") {
		t.Errorf("got %s", f.err.String())
	}
	os.Remove(filepath.Join(f.root, "etc/systemd/network/20-wg.netdev"))
	os.Remove(filepath.Join(f.root, "etc/systemd/network/10-static.network"))
	check("taken back", "removed", "rw,ro", "")
	f.uid = 1000
	if f.run("save-network") != 1 {
		t.Error("without rights")
	}
}

func TestRestoreData(t *testing.T) {
	f := newFake(t)
	read := func() state.RestoreData {
		d, err := f.volume().ReadRestoreData()
		if err != nil {
			t.Fatal(err)
		}
		d.Version = 0
		return d
	}
	if f.run("restore", "--yes", "--ignore-network", "--clear-history", "--boot-args", "quiet console=ttyS1,115200") != 0 {
		t.Fatal(f.err.String())
	}
	if d := read(); d != (state.RestoreData{IgnoreNetCfg: true, ClearHistory: true, BootArgs: "quiet console=ttyS1,115200"}) {
		t.Errorf("got %+v", d)
	}
	if f.run("restore", "--yes") != 0 {
		t.Fatal(f.err.String())
	}
	if d := read(); d != (state.RestoreData{BootArgs: "quiet console=ttyS1,115200"}) {
		t.Errorf("got %+v", d)
	}
	if code := f.run("restore", "--yes", "--boot-args", "init=/bin/sh"); code != 2 || !strings.Contains(f.err.String(), "init=/bin/sh") {
		t.Errorf("exit status %d: %s", code, f.err.String())
	}
	// Damaged data are made anew, those of a newer version are not touched, and then nothing is asked for.
	f.put(t, "mnt/RECOVERY/fr.data", "nonsense")
	if f.run("restore", "--yes", "--ignore-network") != 0 || !read().IgnoreNetCfg {
		t.Error(f.err.String())
	}
	f.run("restore", "--cancel")
	if read().IgnoreNetCfg {
		t.Error("a request that is taken back still drops the network")
	}
	f.put(t, "mnt/RECOVERY/fr.data", `{"Version":99}`)
	if code := f.run("restore", "--yes", "--ignore-network"); code != 1 {
		t.Errorf("newer: exit status %d", code)
	}
	if _, err := f.volume().ReadRequest(); err == nil {
		t.Error("a restore is asked for in another way than wanted")
	}
}

func TestSupportBundle(t *testing.T) {
	f := newFake(t)
	f.put(t, "mnt/RECOVERY/log/recov20261122_120000.log", `{"msg":"hello"}`+"\n")
	f.put(t, "mnt/RECOVERY/state/admin.hash", `{"version":1,"hash":"$2b$10$abcdefghijklmnop"}`)
	out := filepath.Join(t.TempDir(), "bundle.tar.gz")
	if code := f.run("support-bundle", "--out", out); code != 0 {
		t.Fatalf("exit status %d: %s", code, f.err.String())
	}
	if st, err := os.Stat(out); err != nil || st.Mode() != 0o600 {
		t.Errorf("bundle: %v, %v", st, err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	names := bundle(t, b)
	for _, want := range []string{"log/recov20261122_120000.log", "state/count.json", "system/boot.normal"} {
		if !strings.Contains(names, want) {
			t.Errorf("%s is not in the bundle: %s", want, names)
		}
	}
	if got := strings.Join(f.ops, ","); !strings.Contains(got, "journalctl --boot --no-pager") || strings.Contains(got, "rw") {
		t.Errorf("got %s", got)
	}
	// Without a recovery volume the rest is told all the same.
	f.mounted = false
	os.Remove(filepath.Join(f.root, "etc/fstab"))
	if code := f.run("support-bundle", "--out", "-"); code != 0 || !strings.Contains(bundle(t, f.out.Bytes()), "system/boot.normal") {
		t.Errorf("without a volume: exit status %d: %s", code, f.err.String())
	}
	f.uid = 1000
	if f.run("support-bundle", "--out", out) != 1 {
		t.Error("without rights")
	}
}

// bundle returns the names in a bundle, one a line, and fails if it holds a secret.
func bundle(t *testing.T, b []byte) string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return strings.Join(names, "\n")
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, []byte("$2b$10")) || strings.Contains(h.Name, "unit.key") {
			t.Errorf("%s holds a secret", h.Name)
		}
	}
}
