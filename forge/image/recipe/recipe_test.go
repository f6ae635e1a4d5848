package recipe

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/forge/tool"
)

const full = `version: 1
suite: bookworm
variant: minbase
components: [main, contrib]
packages: [systemd, "linux-image-amd64", libc6:amd64, e2fsprogs=1.47.0-2, zstd/bookworm-backports]
exclude: ["/usr/share/doc/*"]
files:
  - {path: /etc/motd, content: "it's \"here\" $HOME\n", mode: "0600"}
  - {path: /opt/app, source: app, mode: "0755", owner: "service:service"}
  - {path: /opt/data, directory: true}
  - {path: /etc/localtime, link: /usr/share/zoneinfo/UTC}
users:
  - {name: admin, uid: 1001, groups: [wheel], keys: ["ssh-ed25519 AAAA it's me"]}
  - {name: service, system: true}
  - {name: kiosk, uid: 2000, home: /srv/kiosk, shell: /bin/sh}
commands:
  - systemctl enable systemd-networkd
  - |
    echo one
    echo 'two'
remove: ["/boot/initrd*"]
`

func TestParse(t *testing.T) {
	r, err := Parse([]byte(full))
	if err != nil || r.Suite != "bookworm" || len(r.Files) != 4 || len(r.Commands) != 2 || r.Users[0].UID != 1001 {
		t.Fatalf("%+v, %v", r, err)
	}
	bad := map[string]string{
		"":                                                               "empty",
		"suite: [":                                                       "recipe",
		"suite: bookworm\nsuit: x":                                       "field suit not found",
		"suite: bookworm\n---\nsuite: x":                                 "second document",
		"packages: [x]":                                                  "suite",
		"version: 2\nsuite: x":                                           "version 2",
		"suite: Book worm":                                               "suite",
		"suite: x\nvariant: custom":                                      "variant",
		"suite: x\npackages: ['a b']":                                    "package",
		"suite: x\npackages: ['--x']":                                    "package",
		"suite: x\npackages: ['a,b']":                                    "package",
		"suite: x\nsources: ['rm -rf']":                                  "source",
		"suite: x\nsources: [\"deb a b c\\nx\"]":                         "source",
		"suite: x\nkeys: [a]":                                            "keys",
		"suite: x\nremove: ['x']":                                        "pattern",
		"suite: x\nremove: ['/']":                                        "pattern",
		"suite: x\nremove: ['/a;b']":                                     "pattern",
		"suite: x\nremove: ['/../x']":                                    "pattern",
		"suite: x\nremove: [\"/a'b\"]":                                   "pattern",
		"suite: x\nexclude: ['/a b']":                                    "pattern",
		"suite: x\ncommands: ['']":                                       "command",
		"suite: x\nusers: [{name: root}]":                                "root",
		"suite: x\nusers: [{name: 'a;b'}]":                               "user",
		"suite: x\nusers: [{name: a, home: '/x y'}]":                     "home",
		"suite: x\nusers: [{name: a, shell: 'sh'}]":                      "shell",
		"suite: x\nusers: [{name: a, keys: [k]}]":                        "only admin",
		"suite: x\nusers: [{name: admin, system: true}]":                 "log in",
		"suite: x\nusers: [{name: a}, {name: a}]":                        "twice",
		"suite: x\nusers: [{name: a, uid: -1}]":                          "uid",
		"suite: x\nusers: [{name: a, groups: ['x y']}]":                  "group",
		"suite: x\nfiles: [{path: etc/x, content: x}]":                   "absolute path",
		"suite: x\nfiles: [{path: /etc/../x, content: x}]":               "absolute path",
		"suite: x\nfiles: [{path: /x}]":                                  "one of content",
		"suite: x\nfiles: [{path: /x, content: a, source: b}]":           "one of content",
		"suite: x\nfiles: [{path: /x, content: a, mode: '999'}]":         "mode",
		"suite: x\nfiles: [{path: /x, content: a, owner: 'a b'}]":        "owner",
		"suite: x\nfiles: [{path: /x, content: a}, {path: /x, link: b}]": "twice",
		"suite: x\ncomponents: ['a b']":                                  "component",
		"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nsuite: x":            "field",
		strings.Repeat("#", MaxSize+1):                                   "bytes",
	}
	for text, want := range bad {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
}

// TestScript runs the script of a recipe with a chroot that only tells what it is asked.
func TestScript(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Fatal(err)
	}
	dir, work := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "app"), []byte("program"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Parse([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	script, err := r.script(dir, work)
	if err != nil {
		t.Fatal(err)
	}
	fake := `#!/bin/sh
shift
printf '%s|' "$@" >> "$LOG"; echo >> "$LOG"
case "$1 $2" in
"getent passwd") [ "$3" = admin ] && echo "admin:x:1001:1001::/home/admin:/bin/bash" || exit 2;;
"sh -c") case "$3" in cut*) printf 'root\nadmin\n';; *cat*) printf 'content:' >> "$LOG"; cat >> "$LOG"; echo >> "$LOG";; esac;;
esac
`
	if err := os.WriteFile(filepath.Join(work, "chroot"), []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	hook := filepath.Join(work, "hook")
	if err := os.WriteFile(hook, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/machine-id"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(work, "log")
	cmd := exec.Command("sh", hook, root)
	cmd.Env = append(os.Environ(), "PATH="+work+":"+os.Getenv("PATH"), "LOG="+log)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, script)
	}
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	said := string(b)
	for _, want := range []string{
		"content:it's \"here\" $HOME\n", "chmod|0600|--|/etc/motd|", "content:program", "chmod|0755|--|/opt/app|", "chown|service:service|--|/opt/app|",
		"ln|-sfn|--|/usr/share/zoneinfo/UTC|/etc/localtime|", "mkdir|-p|--|/opt/data|", "useradd|-r|-M|-U|-s|/usr/sbin/nologin|service|",
		"useradd|-m|-U|-s|/bin/sh|-u|2000|-d|/srv/kiosk|kiosk|",
		"usermod|-a|-G|wheel|admin|", "content:ssh-ed25519 AAAA it's me\n", "/bin/sh|-ec|systemctl enable systemd-networkd|", "/bin/sh|-ec|echo one\necho 'two'\n|",
		"usermod|-p|!*|root|", "usermod|-p|!*|admin|", "rm -rf -- /boot/initrd*|", "rm -rf -- /etc/ssh/ssh_host_*|", ": > /etc/machine-id|",
		"rm -rf -- /var/lib/apt/lists/*|",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("%q was not asked for:\n%s", want, said)
		}
	}
	// Commands come in order and after all else, and what they did to accounts and left behind is undone after them.
	at := 0
	for _, next := range []string{"/etc/motd|", "useradd|", "chown|service:service|", "systemctl enable systemd-networkd|", "echo one",
		"usermod|-p|", "rm -rf -- /boot/initrd*|", "rm -rf -- /etc/ssh/", ": > /etc/machine-id|"} {
		i := strings.Index(said[at:], next)
		if i < 0 {
			t.Fatalf("%q does not come behind the one before:\n%s", next, said)
		}
		at += i
	}
	for _, step := range []string{"useradd|", "chown|", "/etc/motd|"} {
		if strings.LastIndex(said, step) > strings.Index(said, "systemctl enable") {
			t.Errorf("%q comes after the commands:\n%s", step, said)
		}
	}
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "useradd|") && strings.HasSuffix(line, "|admin|\n") {
			t.Error("admin was made twice")
		}
	}
	r.Files[1].Source = "none"
	if _, err := r.script(dir, work); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a source that is missing: %v", err)
	}
	r.Files[1].Source = "."
	if _, err := r.script(dir, work); err == nil {
		t.Error("a directory as a source")
	}
	if r, err = Parse([]byte("suite: bookworm")); err != nil {
		t.Fatal(err)
	}
	if script, err := r.script(dir, work); err != nil || !strings.Contains(script, "inside useradd -m -U -s /bin/bash admin") {
		t.Errorf("admin is not made without being named: %v\n%s", err, script)
	}
}

func TestSources(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := Recipe{Suite: "bookworm"}
	if _, err := r.sources(dir); !errors.Is(err, ErrNoSource) {
		t.Errorf("no sources: %v", err)
	}
	put("sources.list", "# x\ndeb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main # end\ndeb-src http://mirror.example/debian bookworm main\ndeb http://mirror.example/debian bookworm-backports main\n")
	put("sources.list.d/a.sources", "Types: deb deb-src\nURIs: http://other.example/\n http://third.example/\nSuites: bookworm-security sid\nComponents: main non-free\nSigned-By:\n -----BEGIN\n .\n -----END\n\nTypes: deb\nURIs: http://off.example\nSuites: bookworm\nComponents: main\nEnabled: no\n\nTypes: deb-src\nURIs: http://src.example\nSuites: bookworm\nComponents: main\n")
	put("sources.list.d/b.save", "deb http://no.example bookworm main\n")
	got, err := r.sources(dir)
	want := "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\nSigned-By: /k.gpg\n\n" +
		"Types: deb\nURIs: http://other.example/ http://third.example/\nSuites: bookworm-security\nComponents: main non-free\nSigned-By:\n -----BEGIN\n .\n -----END\n\n"
	if err != nil || got != want {
		t.Errorf("got %v\n%s\nwant\n%s", err, got, want)
	}
	r.Components = []string{"main"}
	if got, err := r.sources(dir); err != nil || strings.Contains(got, "non-free") {
		t.Errorf("components: %v\n%s", err, got)
	}
	r.Sources = []string{"deb http://own.example x main"}
	if got, err := r.sources(dir); err != nil || got != "deb http://own.example x main\n" {
		t.Errorf("own sources: %v\n%s", err, got)
	}
}

// TestMakeArguments starts a program in the place of mmdebstrap that tells its arguments.
func TestMakeArguments(t *testing.T) {
	for _, p := range []string{"sh", "apt-config"} {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("GPROV_NO_SKIP") == "1" {
				t.Fatalf("program %s is missing", p)
			}
			t.Skipf("program %s is missing", p)
		}
	}
	bin, dir := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		filepath.Join(bin, "mmdebstrap"): "#!/bin/sh\nfor a; do last=$a; echo \"$a\"; done > " + dir + "/args\necho $SOURCE_DATE_EPOCH >> " + dir + "/args\ncat \"$last\" >> " + dir + "/args\n",
		filepath.Join(dir, "key.gpg"):    "key",
	} {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	r := Recipe{Suite: "trixie", Packages: []string{"a", "b"}, Exclude: []string{"/x*"}, Sources: []string{"deb http://own.example trixie main"}, Keys: []string{"key.gpg"}}
	log := slog.New(slog.DiscardHandler)
	if err := r.Make(context.Background(), log, MakeOptions{Dir: dir, Out: "/nowhere/out.tar", Time: time.Unix(1790000000, 0)}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "args"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"--variant=apt\n", "--include=a,b\n", "--dpkgopt=path-exclude=/x*\n", "--keyring=" + dir + "/key.gpg\n", "\ntrixie\n/nowhere/out.tar\n",
		"\n1790000000\n", "\ndeb http://own.example trixie main\n"} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("%q is not in\n%s", want, b)
		}
	}
	// What is wrong is found before anything is downloaded.
	if err := os.Remove(filepath.Join(dir, "args")); err != nil {
		t.Fatal(err)
	}
	r.Keys = []string{"none.gpg"}
	if err := r.Make(context.Background(), log, MakeOptions{Dir: dir, Out: "/nowhere/out.tar"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("keys that are missing: %v", err)
	}
	lacks := Recipe{Suite: "trixie", Sources: r.Sources, Files: []File{{Path: "/x", Source: "none"}}}
	if err := lacks.Make(context.Background(), log, MakeOptions{Dir: dir, Out: "/nowhere/out.tar"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is missing: %v", err)
	}
	err = Recipe{Suite: "trixie"}.Make(context.Background(), log, MakeOptions{Dir: dir, Out: "/nowhere/out.tar", Apt: dir})
	if !errors.Is(err, ErrNoSource) {
		t.Errorf("no source of the suite: %v", err)
	}
	if err := (Recipe{}).Make(context.Background(), log, MakeOptions{}); err == nil {
		t.Error("an empty recipe was made")
	}
	if _, err := os.Stat(filepath.Join(dir, "args")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("mmdebstrap was started: %v", err)
	}
	if err := os.WriteFile(filepath.Join(bin, "mmdebstrap"), []byte("#!/bin/sh\necho E: no such suite >&2; exit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.Keys = nil
	var failed *tool.Error
	if err := r.Make(context.Background(), log, MakeOptions{Dir: dir, Out: "/nowhere/out.tar"}); !errors.As(err, &failed) || !strings.Contains(err.Error(), "no such suite") {
		t.Errorf("mmdebstrap fails: %v", err)
	}
}

// TestAptOptions: of the host's settings those go along that say how packages are fetched, and nothing else.
func TestAptOptions(t *testing.T) {
	bin := t.TempDir()
	const dump = `APT::Install-Recommends "true";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::https::Proxy::mirror.example "DIRECT";
Acquire::http::Timeout "30";
Acquire::Retries "3";
Acquire::http::Proxy-Auto-Detect "/usr/bin/detect";
Acquire::ForceIPv4 "";
DPkg::Post-Invoke:: "rm -rf /";
Acquire::Check-Valid-Until "false";
`
	script := "#!/bin/sh\n[ \"$1\" = dump ] && cat <<'END'\n" + dump + "END\n"
	if err := os.WriteFile(filepath.Join(bin, "apt-config"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	got, err := aptOptions(context.Background(), nil)
	want := []string{`Acquire::Check-Valid-Until "false"`, `Acquire::Retries "3"`, `Acquire::http::Proxy "http://proxy.example:3128"`,
		`Acquire::http::Proxy-Auto-Detect "/usr/bin/detect"`,
		`Acquire::http::Timeout "30"`, `Acquire::https::Proxy::mirror.example "DIRECT"`}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v\nwant %q", got, err, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte("suite: x\nfiles: [{path: \"/a'b\", content: \"'\"}]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err != nil {
			return
		}
		if err := r.check(); err != nil {
			t.Error(err)
		}
	})
}
