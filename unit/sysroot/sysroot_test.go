package sysroot

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"gprovision/model/layout"
	"gprovision/model/secret"
	"gprovision/unit/state"
)

// needs skips a test if a program is missing, or fails it if nothing may be skipped.
func needs(t *testing.T, program string) string {
	t.Helper()
	p, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatalf("%s is not there", program)
		}
		t.Skipf("%s is not there", program)
	}
	return p
}

func put(t *testing.T, dir, name, content string, mode fs.FileMode) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(p, mode); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// image makes a small root filesystem like that of a release.
func image(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	put(t, dir, "etc/passwd", "root:x:0:0:root:/root:/bin/bash\nadmin:x:1001:1001::/home/admin:/bin/bash\n", 0o644)
	put(t, dir, "etc/group", "root:x:0:\nshadow:x:42:\nsystemd-journal:x:999:\nadmin:x:1001:\n", 0o644)
	put(t, dir, "etc/shadow", "root:*:19000:0:99999:7:::\nadmin:!:19000:0:99999:7:::\n", 0o640)
	put(t, dir, "etc/hosts", "127.0.0.1\tlocalhost\n::1 localhost ip6-localhost\n10.0.0.1 server\n", 0o644)
	put(t, dir, "etc/machine-id", "uninitialized\n", 0o444)
	put(t, dir, "var/lib/dbus/machine-id", "0123\n", 0o644)
	put(t, dir, "etc/timezone", "Europe/Berlin\n", 0o644)
	put(t, dir, "old.disktag", "", 0o444)
	return dir
}

func TestHostify(t *testing.T) {
	for serial, want := range map[string]string{
		"sadfl.": "gp-sadfl0", "AFDS": "gp-afds", "#$%@%%": "gp------0", "": "gp0",
		"SN 0001/x": "gp-sn-0001-x", "ÄB": "gp--b",
		strings.Repeat("a", 100): "gp-" + strings.Repeat("a", 60), strings.Repeat("a", 59) + "-b": "gp-" + strings.Repeat("a", 59) + "0",
	} {
		got := Hostify("gp-", serial)
		if got != want {
			t.Errorf("%q: got %q, want %q", serial, got, want)
		}
		if !hostForm.MatchString(got) {
			t.Errorf("%q is not a host name", got)
		}
	}
}

func TestMachineID(t *testing.T) {
	a, err := MachineID([]byte(strings.Repeat("a", 32)))
	if err != nil || !idForm.MatchString(a) || a[12] != '4' {
		t.Errorf("got %q, %v", a, err)
	}
	again, _ := MachineID([]byte(strings.Repeat("a", 32)))
	b, _ := MachineID([]byte(strings.Repeat("b", 32)))
	if a != again || a == b {
		t.Errorf("got %s, %s, %s", a, again, b)
	}
	if _, err := MachineID([]byte("SN-0001")); err == nil {
		t.Error("a serial number passed for a secret")
	}
}

func config() Config {
	main := layout.Table{Kind: layout.GPT, Partitions: []layout.Partition{{Role: layout.ESP, Number: 1, UUID: "e-1"}, {Role: layout.Primary, Number: 2, UUID: "p-2"}}}
	rec := layout.Table{Kind: layout.GPT, Partitions: []layout.Partition{{Role: layout.Recovery, Number: 2, UUID: "r-2"}}}
	mounts, err := Mounts(main, rec, "RECOVERY", true)
	if err != nil {
		panic(err)
	}
	return Config{HostPrefix: "gp-", Serial: "SN-0001", ConfDir: "/etc/provisioning", Secret: []byte(strings.Repeat("s", 32)),
		Hash: "$2b$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234", Facts: []byte(`{"DevCodeName":"VIRT"}`), Names: []byte(`{"version":1}`),
		Release: "WIDGET.LNX.SHINY.2026-11-22.0001", Mounts: mounts}
}

func TestConfigure(t *testing.T) {
	dir := image(t)
	c := config()
	for i := 0; i < 2; i++ { // the second time changes nothing
		if err := Configure(dir, slog.New(slog.DiscardHandler), c); err != nil {
			t.Fatal(err)
		}
		id, _ := MachineID(c.Secret)
		for name, want := range map[string]string{
			"etc/hostname":                             "gp-sn-0001\n",
			"etc/hosts":                                "127.0.0.1   gp-sn-0001 localhost\n::1 localhost ip6-localhost\n10.0.0.1 server\n",
			"etc/machine-id":                           id + "\n",
			"etc/timezone":                             "Etc/UTC\n",
			"etc/provisioning/serial":                  "SN-0001",
			"etc/provisioning/platform_facts.json":     `{"DevCodeName":"VIRT"}`,
			"etc/provisioning/names.json":              `{"version":1}`,
			"etc/passwd":                               "root:x:0:0:root:/root:/bin/bash\nadmin:x:1001:1001::/home/admin:/bin/bash\n",
			"etc/shadow":                               "root:*:19000:0:99999:7:::\nadmin:" + c.Hash + ":19000:0:99999:7:::\n",
			"WIDGET.LNX.SHINY.2026-11-22.0001.disktag": "",
			"etc/fstab": "# Written by the factory restore.\nPARTUUID=p-2 / ext4 errors=remount-ro,discard 0 1\n" +
				"PARTUUID=r-2 /mnt/RECOVERY ext4 ro,nofail,noexec,nosuid,nodev,x-systemd.device-timeout=90s 0 0\nPARTUUID=e-1 /boot/efi vfat noauto,nofail,umask=0077 0 0\n",
			"etc/systemd/network/90-ethernet.network":          "# all Ethernet ports\n# default generated by factory restore\n\n[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\nLLMNR=no\n",
			"etc/systemd/network-defaults/90-ethernet.network": "# all Ethernet ports\n# default generated by factory restore\n\n[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\nLLMNR=no\n",
		} {
			if got := get(t, dir, name); got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
		if l, err := os.Readlink(filepath.Join(dir, "etc/localtime")); err != nil || l != "/usr/share/zoneinfo/Etc/UTC" {
			t.Errorf("localtime: %q, %v", l, err)
		}
		for name, want := range map[string]fs.FileMode{
			"etc/shadow": 0o640, "etc/machine-id": 0o444, "etc/provisioning": fs.ModeDir | 0o755, "mnt/RECOVERY": fs.ModeDir | 0o700, "mnt": fs.ModeDir | 0o755,
			"var/log/journal": fs.ModeDir | fs.ModeSetgid | 0o755,
		} {
			st, err := os.Stat(filepath.Join(dir, name))
			if err != nil || st.Mode() != want {
				t.Errorf("mode of %s: %v, %v, want %v", name, st.Mode(), err, want)
			}
			if name == "var/log/journal" && os.Geteuid() == 0 && st.Sys().(*syscall.Stat_t).Gid != 999 {
				t.Errorf("group of the journal is %d", st.Sys().(*syscall.Stat_t).Gid)
			}
		}
		for _, gone := range []string{"old.disktag", "var/lib/dbus/machine-id", "etc/.hosts.new", "etc/.localtime.new"} {
			if _, err := os.Lstat(filepath.Join(dir, gone)); err == nil {
				t.Errorf("%s is still there", gone)
			}
		}
	}
}

func TestMark(t *testing.T) {
	dir := t.TempDir()
	m := state.Mark{Version: state.Version, Release: "W.L.S.2026-11-22.0001", Request: "0123456789abcdef", Serial: "x", Time: time.Unix(1e9, 0).UTC()}
	if err := SetMark(dir, "boot.normal", m); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, err := s.ReadMark("boot.normal"); err != nil || got != m {
		t.Errorf("got %+v, %v", got, err)
	}
	for i := 0; i < 2; i++ {
		if err := ClearMark(dir, "boot.normal"); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.ReadMark("boot.normal"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("cleared mark: %v", err)
	}
	if err := SetMark(dir, "../boot.normal", m); err == nil {
		t.Error("a mark outside was accepted")
	}
}

// TestHostileImage: an image must not lead a write outside itself, and must not block the restore.
func TestHostileImage(t *testing.T) {
	outside := t.TempDir()
	put(t, outside, "shadow", "root:*:::::::\nadmin:!:::::::\n", 0o600)
	put(t, outside, "passwd", "admin:x:0:0::/:/bin/sh\n", 0o600)

	t.Run("etc is a link", func(t *testing.T) {
		for _, target := range []string{outside, "../../../../../../../.." + outside} {
			dir := t.TempDir()
			if err := os.Symlink(target, filepath.Join(dir, "etc")); err != nil {
				t.Fatal(err)
			}
			if err := Configure(dir, slog.New(slog.DiscardHandler), config()); err == nil {
				t.Error("configured through a link")
			}
			s, _ := Open(dir)
			defer s.Close()
			if err := s.SetPassword("admin", config().Hash); err == nil {
				t.Error("accounts were read through a link")
			}
			for name, f := range map[string]func() error{
				"hostname": func() error { return s.SetHostname("x") },
				"timezone": func() error { return s.SetTimezone("Etc/UTC") }, "facts": func() error { return s.SetFacts("/etc/provisioning", []byte("x")) },
				"fstab": func() error { return s.SetMounts(config().Mounts) }, "network": func() error { _, err := s.SetNetwork("/etc/provisioning", Network{}, nil); return err },
			} {
				if err := f(); err != nil {
					t.Errorf("%s: %v", name, err) // it goes where the link leads inside the image
				}
			}
		}
		list, _ := os.ReadDir(outside)
		if len(list) != 2 || get(t, outside, "shadow") != "root:*:::::::\nadmin:!:::::::\n" {
			t.Errorf("outside changed: %v", list)
		}
	})
	t.Run("files are links", func(t *testing.T) {
		dir := image(t)
		for _, n := range []string{"hostname", "machine-id", "localtime", "fstab"} {
			os.Remove(filepath.Join(dir, "etc", n))
			if err := os.Symlink(filepath.Join(outside, n), filepath.Join(dir, "etc", n)); err != nil {
				t.Fatal(err)
			}
		}
		if err := Configure(dir, slog.New(slog.DiscardHandler), config()); err != nil {
			t.Fatal(err)
		}
		if list, _ := os.ReadDir(outside); len(list) != 2 {
			t.Errorf("outside changed: %v", list)
		}
	})
	t.Run("shadow is a link", func(t *testing.T) {
		dir := image(t)
		os.Remove(filepath.Join(dir, "etc/shadow"))
		os.Symlink(filepath.Join(outside, "shadow"), filepath.Join(dir, "etc/shadow"))
		s, _ := Open(dir)
		defer s.Close()
		if err := s.SetPassword("admin", config().Hash); err != nil {
			t.Error(err)
		}
		if st, err := os.Lstat(filepath.Join(dir, "etc/shadow")); err != nil || !st.Mode().IsRegular() {
			t.Errorf("a link into a directory that is lost at each boot stays: %v", err)
		}
		if strings.Contains(get(t, outside, "shadow"), "$2b") {
			t.Error("wrote through a link")
		}
	})
	t.Run("FIFOs", func(t *testing.T) {
		dir := image(t)
		for _, n := range []string{"etc/hosts", "etc/systemd/network"} {
			p := filepath.Join(dir, n)
			os.Remove(p)
			os.MkdirAll(filepath.Dir(p), 0o755)
			if err := syscall.Mkfifo(p, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		s, _ := Open(dir)
		defer s.Close()
		if err := s.SetHostname("x"); !errors.Is(err, state.ErrDamaged) {
			t.Errorf("hosts: %v", err)
		}
		if _, err := s.SetNetwork("/etc/provisioning", Network{}, nil); err == nil {
			t.Error("network: no error")
		}
	})
}

func TestHosts(t *testing.T) {
	for old, want := range map[string]string{
		"":                                   "127.0.0.1   n localhost\n",
		"::1 localhost":                      "::1 localhost\n127.0.0.1   n localhost\n",
		"127.0.0.1 old localhost\n1.1.1.1 a": "127.0.0.1   n localhost\n1.1.1.1 a\n",
		"127.0.0.1 old.example.com old localhost db.internal # the product's\n":   "127.0.0.1   n localhost db.internal # the product's\n",
		"127.0.0.1   localhost localhost.localdomain localhost4\n::1 localhost\n": "127.0.0.1   n localhost localhost.localdomain localhost4\n::1 localhost\n",
		"127.0.0.1 localhost\n127.0.1.1 old.example.com old\n":                    "127.0.0.1   n localhost\n",
		"127.0.0.1 localhost\r\n10.0.0.1 server\r\n":                              "127.0.0.1   n localhost\n10.0.0.1 server\n",
		"127.0.0.1 myapp\n127.0.0.1 localhost\n":                                  "127.0.0.1 myapp\n127.0.0.1   n localhost\n",
		"127.0.0.1 n localhost older\n":                                           "127.0.0.1   n localhost older\n",
		"# 127.0.0.1 localhost\n":                                                 "# 127.0.0.1 localhost\n127.0.0.1   n localhost\n",
		"127.0.0.1 localhosting\n":                                                "127.0.0.1 localhosting\n127.0.0.1   n localhost\n",
	} {
		if got := string(hosts([]byte(old), "n", "old")); got != want {
			t.Errorf("%q: got %q, want %q", old, got, want)
		}
	}
}

func TestSetPassword(t *testing.T) {
	hash := config().Hash
	for name, c := range map[string]struct{ passwd, shadow, wantPasswd, wantShadow string }{
		"locked":        {"admin:x:1:1::/:/b\n", "a:*:::::::\nadmin:!old:1:2:3:4:5:6:\nz:!:::::::\n", "admin:x:1:1::/:/b\n", "a:*:::::::\nadmin:" + hash + ":1:2:3:4:5:6:\nz:!:::::::\n"},
		"no line":       {"admin:x:1:1::/:/b\n", "a:*:::::::", "admin:x:1:1::/:/b\n", "a:*:::::::\nadmin:" + hash + "::0:99999:7:::\n"},
		"no shadow":     {"admin:x:1:1::/:/b\n", "", "admin:x:1:1::/:/b\n", "admin:" + hash + "::0:99999:7:::\n"},
		"empty passwd":  {"a::0:0::/:/b\nadmin::1:1::/:/b", "admin:*:::::::\n", "a::0:0::/:/b\nadmin:x:1:1::/:/b", "admin:" + hash + ":::::::\n"},
		"another admin": {"admin:x:1:1::/:/b\nadmin2:x:2:2::/:/b\n", "admin2:!:::::::\nadmin:!:::::::\n", "admin:x:1:1::/:/b\nadmin2:x:2:2::/:/b\n", "admin2:!:::::::\nadmin:" + hash + ":::::::\n"},
	} {
		dir := t.TempDir()
		put(t, dir, "etc/passwd", c.passwd, 0o644)
		put(t, dir, "etc/group", "shadow:x:42:\n", 0o644)
		if c.shadow != "" {
			put(t, dir, "etc/shadow", c.shadow, 0o640)
		}
		s, _ := Open(dir)
		if err := s.SetPassword("admin", hash); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := get(t, dir, "etc/passwd"); got != c.wantPasswd {
			t.Errorf("%s: passwd %q", name, got)
		}
		if got := get(t, dir, "etc/shadow"); got != c.wantShadow {
			t.Errorf("%s: shadow %q, want %q", name, got, c.wantShadow)
		}
		st, _ := os.Stat(filepath.Join(dir, "etc/shadow"))
		if st.Mode() != 0o640 || os.Geteuid() == 0 && c.shadow == "" && st.Sys().(*syscall.Stat_t).Gid != 42 {
			t.Errorf("%s: shadow has mode %v", name, st.Mode())
		}
		for _, bad := range []string{"", "hunter2", "$2b$x:y", hash + "\nroot::::::::"} {
			if err := s.SetPassword("admin", bad); err == nil {
				t.Errorf("%q was accepted", bad)
			}
		}
		if err := s.SetPassword("nobody", hash); !errors.Is(err, ErrNoAccount) {
			t.Errorf("unknown user: %v", err)
		}
		s.Close()
	}
}

func TestHashPassword(t *testing.T) {
	const text = "corréct horse: 'battery' $taple"
	h, err := HashPassword(text)
	if err != nil {
		t.Fatal(err)
	}
	if !state.IsPasswordHash(h) || bcrypt.CompareHashAndPassword([]byte(h), []byte(text)) != nil || bcrypt.CompareHashAndPassword([]byte(h), []byte("x")) == nil {
		t.Errorf("got %q", h)
	}
	for _, bad := range []secret.Secret{"", "a\nb", "a\x00b", secret.Secret(strings.Repeat("x", 73))} {
		if _, err := HashPassword(bad); err == nil {
			t.Errorf("%q was accepted", bad.Reveal())
		} else if len(bad) > 3 && strings.Contains(err.Error(), bad.Reveal()) {
			t.Error("the error holds the password")
		}
	}
}

// TestHashPasswordAgainstCrypt: login uses the C library's crypt(3), so that has the last word.
func TestHashPasswordAgainstCrypt(t *testing.T) {
	perl := needs(t, "perl")
	for _, p := range []string{"a", "correct horse battery staple", "pässwörd ☃", strings.Repeat("y", 72)} {
		h, err := HashPassword(secret.Secret(p))
		if err != nil {
			t.Fatal(err)
		}
		c := exec.Command(perl, "-e", `print crypt($ENV{P}, $ENV{H})`)
		c.Env = []string{"P=" + p, "H=" + h}
		out, err := c.Output()
		if err != nil || string(out) != h {
			t.Errorf("crypt of %q: %s (%v), want %s", p, out, err, h)
		}
	}
}

// TestShadowAgainstPwck: the tool of the shadow package checks our files.
func TestShadowAgainstPwck(t *testing.T) {
	pwck := needs(t, "pwck")
	dir := t.TempDir()
	put(t, dir, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\nadmin::1000:0::/root:/bin/sh\n", 0o644)
	put(t, dir, "etc/shadow", "root:*:19000:0:99999:7:::\n", 0o640)
	s, _ := Open(dir)
	defer s.Close()
	h, _ := HashPassword("x")
	if err := s.SetPassword("admin", h); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(pwck, "-r", "-q", filepath.Join(dir, "etc/passwd"), filepath.Join(dir, "etc/shadow")).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestFstabAgainstFindmnt(t *testing.T) {
	findmnt := needs(t, "findmnt")
	b, err := Fstab([]Mount{{"PARTUUID=11111111-2222-4333-8444-555555555555", "/", "ext4", "errors=remount-ro", 1}, {"UUID=12AB-34CD", "/mnt/a b#c", "vfat", "ro,nofail", 0}})
	if err != nil {
		t.Fatal(err)
	}
	f := filepath.Join(t.TempDir(), "fstab")
	os.WriteFile(f, b, 0o644)
	out, err := exec.Command(findmnt, "--tab-file", f, "--noheadings", "--raw", "--notruncate", "--output", "SOURCE,TARGET,FSTYPE,OPTIONS,PASSNO").CombinedOutput()
	want := "PARTUUID=11111111-2222-4333-8444-555555555555 / ext4 errors=remount-ro 1\nUUID=12AB-34CD /mnt/a\\x20b#c vfat ro,nofail 0\n"
	if err != nil || string(out) != want {
		t.Errorf("got %s (%v), want %s", out, err, want)
	}
	for _, m := range []Mount{{}, {"x", "rel", "ext4", "ro", 0}, {"x", "/a\nb", "ext4", "ro", 0}, {"x", "/a", "ext4", "ro", -1}} {
		if _, err := Fstab([]Mount{m}); err == nil {
			t.Errorf("%+v was accepted", m)
		}
	}
}

func TestMountsOfMBR(t *testing.T) {
	main := layout.Table{Kind: layout.MBR, Partitions: []layout.Partition{{Role: layout.Primary, UUID: "deadbeef-01"}}}
	m, err := Mounts(main, layout.Table{Partitions: []layout.Partition{{Role: layout.Recovery, FSUUID: "f"}}}, "RECOVERY", false)
	if err != nil || len(m) != 2 || m[0].Source != "PARTUUID=deadbeef-01" || m[1].Source != "UUID=f" {
		t.Errorf("got %+v, %v", m, err)
	}
	if _, err := Mounts(layout.Table{}, layout.Table{}, "RECOVERY", false); err == nil {
		t.Error("no error without partitions")
	}
}

// TestNetworkFiles: the test vectors of the original system: two prefixes, diagnostic port 0, names p0 and p1.
func TestNetworkFiles(t *testing.T) {
	files, err := NetworkFiles(Network{MACs: []string{"56:78:90:00:00:03", "00:11:22:00:00:01", "12:34:56:00:00:01", "56:78:90:00:00:02"},
		Prefixes: []string{"56:78:90", "12:34:56"}, Diag: []int{0}, Names: []string{"p0", "p1"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 6 {
		t.Fatalf("%d files", len(files))
	}
	var names []string
	dhcp := 0
	for _, f := range files {
		c := string(f.Content)
		dhcp += strings.Count(c, "DHCP=yes")
		if strings.HasSuffix(f.Name, ".link") {
			for _, l := range strings.Split(c, "\n") {
				if a, ok := strings.CutPrefix(l, "Alias="); ok {
					names = append(names, f.Name+" "+a)
				}
			}
		}
	}
	if got := strings.Join(names, ", "); got != "10-123456000001.link DIAG, 10-567890000002.link p0, 10-567890000003.link p1" || dhcp != 2 {
		t.Errorf("got %s, DHCP %d times", got, dhcp)
	}
	if want := "# p0\n# default generated by factory restore\n\n[Match]\nMACAddress=56:78:90:00:00:02\n\n[Network]\nDHCP=yes\nLLMNR=no\n# no static IP\n# no static DNS\n# no static routes\n"; string(files[3].Content) != want {
		t.Errorf("got %s", files[3].Content)
	}

	files, err = NetworkFiles(Network{MACs: []string{"aa:00:00:00:00:02", "AA:00:00:00:00:01", "aa:00:00:00:00:03"}, Prefixes: []string{"*"}, Diag: []int{1, 0}})
	if err != nil || len(files) != 1 {
		t.Errorf("without names: %d files, %v", len(files), err)
	}
	files, err = NetworkFiles(Network{MACs: []string{"aa:00:00:00:00:02", "AA:00:00:00:00:01", "aa:00:00:00:00:03", "aa:00:00:00:00:04"}, Diag: []int{1, 0}, Names: []string{"wan"}})
	if err != nil || len(files) != 8 || !strings.Contains(string(files[0].Content), "Alias=DIAG0") || !strings.Contains(string(files[2].Content), "Alias=DIAG1") ||
		!strings.Contains(string(files[4].Content), "Alias=wan") || !strings.Contains(string(files[6].Content), "Alias=1\n") {
		t.Errorf("several: %s, %v", files, err)
	}
	if _, err := NetworkFiles(Network{MACs: []string{"nonsense"}, Names: []string{"a"}}); err == nil {
		t.Error("a wrong address was accepted")
	}
	if _, err := NetworkFiles(Network{MACs: []string{"aa:00:00:00:00:02"}, Names: []string{"a\n[Match]"}}); err == nil {
		t.Error("a name with a newline was accepted")
	}
}

func TestImageKeepsItsNetwork(t *testing.T) {
	dir := image(t)
	put(t, dir, "etc/systemd/network/20-own.network", "[Match]\nName=*\n", 0o644)
	s, _ := Open(dir)
	defer s.Close()
	used, err := s.SetNetwork("/etc/provisioning", Network{}, nil)
	if err != nil || used != NetworkImage {
		t.Errorf("used %v, %v", used, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "etc/systemd/network/90-ethernet.network")); err == nil {
		t.Error("the defaults stand beside the image's own")
	}
	get(t, dir, "etc/systemd/network-defaults/90-ethernet.network")
}

func TestJournalDirWithoutGroup(t *testing.T) {
	dir := t.TempDir()
	s, _ := Open(dir)
	defer s.Close()
	if err := s.MakeJournalDir(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "var/log/journal")); err != nil || st.Mode() != fs.ModeDir|0o755 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// FuzzAccounts feeds the functions that edit the image's files.
func FuzzAccounts(f *testing.F) {
	f.Add("admin:x:1:1::/:/b\n", "admin:!:::::::\n", "shadow:x:42:\n", "127.0.0.1 localhost\n")
	f.Add("admin", ":::", "\x00", "")
	f.Fuzz(func(t *testing.T, passwd, shadow, group, old string) {
		out, _ := setField([]byte(shadow), "admin", "$2b$x")
		if strings.Count(string(out), "\n") != strings.Count(shadow, "\n") {
			t.Fatalf("lines changed: %q -> %q", shadow, out)
		}
		setField([]byte(passwd), "admin", "x")
		if h := hosts([]byte(old), "n"); !strings.Contains(string(h), "127.0.0.1   n localhost\n") {
			t.Fatalf("%q -> %q", old, h)
		}
	})
}
