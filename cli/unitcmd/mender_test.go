package unitcmd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gprovision/unit/state"
)

// station is a machine with the real Mender client, the update module, and a gprov-unit that notes what it is asked for.
type station struct {
	t   *testing.T
	dir string
	f   *fake
}

func newStation(t *testing.T) *station {
	t.Helper()
	for program, pkg := range map[string]string{"mender": "mender-client", "mender-artifact": "mender-artifact", "unshare": "util-linux"} {
		if _, err := exec.LookPath(program); err != nil || os.Geteuid() != 0 {
			if os.Getenv("GPROV_NO_SKIP") == "1" {
				t.Fatalf("%s (Debian package %s) or root's rights are missing", program, pkg)
			}
			t.Skipf("%s (Debian package %s) or root's rights are missing", program, pkg)
		}
	}
	s := &station{t, t.TempDir(), newFake(t)}
	if code := s.f.run("install", "--root", s.dir, "--program", "/bin/true", "--mender"); code != 0 {
		t.Fatal(s.f.err.String())
	}
	s.write("unit", `#!/bin/sh
echo "$@" >>`+s.path("asked")+`
case "$*" in "$(cat `+s.path("fails")+`)"*) exit 1 ;; esac
test "$1" != status || cat `+s.path("status")+"\n")
	s.write("fails", "nothing")
	s.write("etc/artifact_info", "artifact_name=release-1\n")
	s.write("data/device_type", "device_type=widget\n")
	s.write("mender.conf", "{}\n")
	s.write(image2, "image")
	s.write(image2+".minisig", "signature")
	s.do("mender-artifact", "write", "module-image", "-T", "gprov", "-t", "widget", "-n", "release-2", "-f", s.path(image2), "-f", s.path(image2+".minisig"), "-o", s.path("release-2.mender"))
	s.runs(release1)
	return s
}

const (
	release1 = "WIDGET.LNX.SHINY.2026-11-22.0001"
	release2 = "WIDGET.LNX.SHINY.2026-11-23.0001"
	image2   = release2 + ".upd"
)

func (s *station) path(name string) string { return filepath.Join(s.dir, name) }

func (s *station) write(name, text string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.path(name), []byte(text), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

func (s *station) do(name string, args ...string) {
	s.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
}

// runs has the machine run a release: status says so in its own words.
func (s *station) runs(release string) {
	s.t.Helper()
	m, err := state.Mark{Release: release, Request: "0123456789abcdef", Time: s.f.now}.Marshal()
	if err != nil {
		s.t.Fatal(err)
	}
	s.f.put(s.t, "boot.normal", string(m))
	if s.f.run("status", "--json") != 0 {
		s.t.Fatal(s.f.err.String())
	}
	s.write("status", s.f.out.String())
}

// mender runs the client and returns its exit status, what gprov-unit was asked for beside its status, and the release that the client
// believes to be there. The module lies where the client looks for it in a mount namespace of its own.
func (s *station) mender(args ...string) (ok bool, asked []string, believes string) {
	s.t.Helper()
	os.Remove(s.path("asked"))
	client := fmt.Sprintf("mender --no-syslog --log-level error --data %s --config %[2]s --fallback-config %[2]s ", s.path("data"), s.path("mender.conf"))
	script := fmt.Sprintf("mount --bind %s /usr/share/mender/modules/v3 && mount --bind %s /etc/mender || exit 99\n%s%s; echo $? >%s; %sshow-artifact",
		s.path("usr/share/mender/modules/v3"), s.path("etc"), client, strings.Join(args, " "), s.path("code"), client)
	c := exec.Command("unshare", "--mount", "sh", "-c", script)
	c.Env = append(os.Environ(), "GPROV_UNIT="+s.path("unit"))
	out, err := c.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%q: %v: %s", args, err, out)
	}
	code, _ := os.ReadFile(s.path("code"))
	lines, _ := os.ReadFile(s.path("asked"))
	for line := range strings.Lines(string(lines)) {
		if line = strings.TrimSpace(line); line != "status --json" {
			verb, rest, _ := strings.Cut(line, " ")
			if verb == "fetch" {
				line = "fetch " + filepath.Base(rest)
			}
			asked = append(asked, line)
		}
	}
	all := strings.Fields(string(out))
	s.t.Logf("mender %s: status %s\n%s", strings.Join(args, " "), code, out)
	return string(code) == "0\n", asked, all[len(all)-1]
}

// TestMender installs, commits and rolls back with the real client in its standalone mode.
func TestMender(t *testing.T) {
	install := func(s *station) {
		t.Helper()
		ok, asked, _ := s.mender("install", s.path("release-2.mender"))
		if want := []string{"fetch " + image2, "restore --image " + image2 + " --yes"}; !ok || !slices.Equal(asked, want) {
			t.Fatalf("install: %v, asked for %q, want %q", ok, asked, want)
		}
	}
	for _, c := range []struct {
		name     string
		runs     string // after the restart
		verb     string
		ok       bool
		asked    []string
		believes string
	}{
		{"committed", release2, "commit", true, []string{"boot-ok --wait 30s"}, "release-2"},
		{"rolled back after the restart", release2, "rollback", true, []string{"restore --image " + release1 + ".upd --yes"}, "release-1"},
		{"rolled back before it", release1, "rollback", true, []string{"restore --cancel"}, "release-1"},
		{"committed before the restart", release1, "commit", false, []string{"restore --cancel"}, "release-1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStation(t)
			install(s)
			s.runs(c.runs)
			ok, asked, believes := s.mender(c.verb)
			if ok != c.ok || !slices.Equal(asked, c.asked) || believes != c.believes {
				t.Errorf("%s: %v, asked for %q, the client believes in %s", c.verb, ok, asked, believes)
			}
		})
	}
	for _, fails := range []string{"fetch", "restore --image"} {
		t.Run(fails+" fails", func(t *testing.T) {
			s := newStation(t)
			s.write("fails", fails)
			if ok, asked, believes := s.mender("install", s.path("release-2.mender")); ok || believes != "release-1" || !slices.Contains(asked, "restore --cancel") {
				t.Errorf("%v, asked for %q, the client believes in %s", ok, asked, believes)
			}
		})
	}
}
