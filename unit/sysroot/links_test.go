package sysroot

import (
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// follow returns where a name of the system at dir leads when the system runs, as a path below dir. It does not ask
// the kernel.
func follow(dir, name string) (string, bool) {
	done := "/"
	todo := strings.Split(name, "/")
	for links := 0; len(todo) > 0; {
		next := todo[0]
		todo = todo[1:]
		if next == "" || next == "." {
			continue
		}
		at := path.Join(done, next) // ".." at the top stays there
		st, err := os.Lstat(filepath.Join(dir, at))
		if err != nil {
			return filepath.Join(dir, at), false
		}
		if st.Mode()&fs.ModeSymlink == 0 {
			done = at
			continue
		}
		if links++; links > 40 {
			return "", false
		}
		target, err := os.Readlink(filepath.Join(dir, at))
		if err != nil {
			return "", false
		}
		if path.IsAbs(target) {
			done = "/"
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return filepath.Join(dir, done), true
}

// TestLinks configures images in which each name that an edit touches goes through links, in every way that leads
// somewhere inside the image, or nowhere. The running system must see the result, and nothing may land outside.
func TestLinks(t *testing.T) {
	const store = "srv/elsewhere-of-gprovision"
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		t.Setenv("TMPDIR", "/dev/shm") // each edit is synced
	}
	up := func(name string) string { return strings.Repeat("../", strings.Count(name, "/")) }
	layouts := map[string]func(t *testing.T, dir, name string){
		"absolute": func(t *testing.T, dir, name string) {
			moveAway(t, dir, name, store+"/x")
			symlink(t, dir, "/"+store+"/x", name)
		},
		"relative": func(t *testing.T, dir, name string) {
			moveAway(t, dir, name, store+"/x")
			symlink(t, dir, up(name)+store+"/x", name)
		},
		"above the top": func(t *testing.T, dir, name string) {
			moveAway(t, dir, name, store+"/x")
			symlink(t, dir, strings.Repeat("../", 20)+store+"/x", name)
		},
		"chain": func(t *testing.T, dir, name string) {
			moveAway(t, dir, name, store+"/x")
			symlink(t, dir, "x", store+"/two")
			symlink(t, dir, "../"+path.Base(store)+"/two", store+"/one")
			symlink(t, dir, "/"+store+"/one", name)
		},
		"dangling": func(t *testing.T, dir, name string) {
			os.RemoveAll(filepath.Join(dir, name))
			symlink(t, dir, "/"+store+"/not/there", name)
		},
		"dangling, relative": func(t *testing.T, dir, name string) {
			os.RemoveAll(filepath.Join(dir, name))
			symlink(t, dir, up(name)+store+"/not/there", name)
		},
		"dangling at the end of a chain": func(t *testing.T, dir, name string) {
			os.RemoveAll(filepath.Join(dir, name))
			symlink(t, dir, "not/../there", store+"/one")
			symlink(t, dir, "/"+store+"/one", name)
		},
		"loop": func(t *testing.T, dir, name string) {
			os.RemoveAll(filepath.Join(dir, name))
			symlink(t, dir, path.Base(name)+".loop", name)
			symlink(t, dir, path.Base(name), name+".loop")
		},
		"loop to itself": func(t *testing.T, dir, name string) {
			os.RemoveAll(filepath.Join(dir, name))
			symlink(t, dir, "/"+name, name)
		},
	}
	// The image needs its accounts in any case.
	needed := map[string]bool{"etc": true, "etc/passwd": true}
	for _, name := range []string{
		"etc", "etc/fstab", "etc/hosts", "etc/hostname", "etc/machine-id", "etc/timezone", "etc/localtime", "etc/passwd", "etc/shadow", "etc/group",
		"etc/mdadm", "etc/mdadm/mdadm.conf", "etc/provisioning", "etc/provisioning/serial", "etc/provisioning/platform_facts.json", "etc/provisioning/names.json", "etc/provisioning/network.json",
		"etc/systemd", "etc/systemd/network", "etc/systemd/network-defaults", "etc/systemd/network/90-ethernet.network",
		"mnt", "mnt/RECOVERY", "boot", "boot/efi", "var", "var/log", "var/log/journal", "var/lib", "var/lib/dbus", "var/lib/dbus/machine-id",
	} {
		for what, lay := range layouts {
			if needed[name] && (strings.HasPrefix(what, "dangling") || strings.HasPrefix(what, "loop")) {
				continue
			}
			t.Run(name+" "+what, func(t *testing.T) {
				top := t.TempDir()
				dir := filepath.Join(top, "system")
				if err := os.Rename(image(t), dir); err != nil {
					t.Fatal(err)
				}
				lay(t, dir, name)
				c := config()
				c.Array = "ARRAY /dev/md0\n"
				for range 2 { // each edit may be repeated
					if err := Configure(dir, slog.New(slog.DiscardHandler), c); err != nil {
						t.Fatal(err)
					}
				}
				for file, want := range map[string]string{
					"etc/fstab": "PARTUUID=p-2", "etc/hosts": "gp-sn-0001", "etc/hostname": "gp-sn-0001\n", "etc/shadow": c.Hash, "etc/mdadm/mdadm.conf": c.Array,
					"etc/provisioning/serial": c.Serial, "etc/provisioning/platform_facts.json": "VIRT", "etc/provisioning/names.json": string(c.Names), "etc/provisioning/network.json": "90-ethernet.network",
					"etc/systemd/network/90-ethernet.network": "DHCP=yes", "etc/systemd/network-defaults/90-ethernet.network": "DHCP=yes", "etc/machine-id": "\n",
				} {
					at, _ := follow(dir, file)
					if b, err := os.ReadFile(at); err != nil || !strings.Contains(string(b), want) {
						t.Errorf("the system's /%s is %q, %v, want %q in it", file, b, err, want)
					}
				}
				for d, want := range map[string]fs.FileMode{"mnt/RECOVERY": fs.ModeDir | 0o700, "boot/efi": fs.ModeDir | 0o700, "var/log/journal": fs.ModeDir | fs.ModeSetgid | 0o755} {
					at, _ := follow(dir, d)
					st, err := os.Lstat(at)
					if err != nil {
						t.Errorf("the system's /%s: %v", d, err)
					} else if name != d && name != "etc/group" && st.Mode() != want || !st.IsDir() {
						t.Errorf("the system's /%s has mode %v, want %v", d, st.Mode(), want)
					}
				}
				if above, _ := follow(dir, "etc"); os.Geteuid() == 0 {
					if target, err := os.Readlink(filepath.Join(above, "localtime")); err != nil || target != "/usr/share/zoneinfo/Etc/UTC" {
						t.Errorf("the system's /etc/localtime: %q, %v", target, err)
					}
				}
				list, err := os.ReadDir(top)
				if err != nil || len(list) != 1 {
					t.Errorf("something is outside: %v, %v", list, err)
				}
				if _, err := os.Lstat("/" + store); err == nil {
					t.Fatalf("/%s is on this machine now", store)
				}
			})
		}
	}
}

// TestVolatileLinks: a file that is a link into a directory that is lost at each boot is written where the system
// sees it.
func TestVolatileLinks(t *testing.T) {
	for _, target := range []string{"/run/hosts", "../run/hosts", "/var/run/x/hosts", "/dev/null", "/tmp/hosts"} {
		dir := image(t)
		if err := os.Mkdir(filepath.Join(dir, "run"), 0o755); err != nil {
			t.Fatal(err)
		}
		symlink(t, dir, "/run", "var/run")
		os.Remove(filepath.Join(dir, "etc/hosts"))
		symlink(t, dir, target, "etc/hosts")
		if err := Configure(dir, slog.New(slog.DiscardHandler), config()); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Lstat(filepath.Join(dir, "etc/hosts")); err != nil || !st.Mode().IsRegular() {
			t.Errorf("%s: %v, %v", target, st, err)
		}
	}
}

func moveAway(t *testing.T, dir, name, to string) {
	t.Helper()
	to = filepath.Join(dir, to)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, name), to); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, dir, to, name string) {
	t.Helper()
	at := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}
