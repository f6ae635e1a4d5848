//go:build soak

package lab_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gprovision/factory/api"
	"gprovision/forge/image"
	"gprovision/lab"
	"gprovision/model/layout"
)

// serveUpdates serves the files of p at updates, with a certificate of its authority.
func serveUpdates(t *testing.T, n *lab.Network, p *lab.Product) {
	t.Helper()
	serveFrom(t, n, p, http.FileServer(http.Dir(p.Path(""))))
}

// serveFrom serves files at updates, with a certificate of p's authority.
func serveFrom(t *testing.T, n *lab.Network, p *lab.Product, files http.Handler) {
	t.Helper()
	authority, err := api.OpenAuthority(p.Dir)
	if err != nil {
		t.Fatal(err)
	}
	config, err := authority.TLS([]string{lab.ServerAddr.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	var l net.Listener
	if err := n.Visit(func() error { l, err = net.Listen("tcp", updates); return err }); err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: files}
	done := make(chan error, 1)
	go func() { done <- s.Serve(tls.NewListener(l, config)) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-done); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// unitCommand runs gprov-unit in the tiny system, and returns what it prints.
func unitCommand(t *testing.T, u *lab.Unit, args ...string) string {
	t.Helper()
	if err := u.Tell(map[string]any{"do": "run", "path": "/usr/sbin/gprov-unit", "args": args}); err != nil {
		t.Fatal(err)
	}
	e := expect(t, u, jobPatience, lab.All(lab.Msg("done"), lab.Field("do", "run")))
	if e.Text("error") != "" {
		t.Fatalf("gprov-unit %q: %s", args, e.Text("error"))
	}
	t.Logf("gprov-unit %s:\n%s", strings.Join(args, " "), e.Text("text"))
	return e.Text("text")
}

// TestSoakUpdate takes a running unit to a new release: its own network configuration is saved, the release is fetched from a web server,
// the next boot has the recovery device start the new recovery artifact, and the restore brings the release and the network
// configuration.
func TestSoakUpdate(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	n, p := network(t), product(t, l.tiny)
	l.serve(t, n, p)
	for _, name := range []string{lab.BootFile, lab.ProvisionFile} {
		if err := os.Remove(p.Path(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Artifacts(t.Context(), logger(t), l.debian, l.init, 2); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "tiny3.tar")
	f, err := os.Create(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(lab.TinyRoot(f, filepath.Join(l.dir, "tiny"), "3", l.modules, filepath.Join(l.dir, "gprov-unit")), f.Close()); err != nil {
		t.Fatal(err)
	}
	image, err := p.Release(t.Context(), logger(t), root, 3, "0", nil)
	if err != nil {
		t.Fatal(err)
	}
	serveUpdates(t, n, p)

	u := l.fork(t, n, layout.UEFI, nil)
	start(t, u)
	up(t, u)
	mount := map[string]any{"do": "mount", "path": "/mnt/RECOVERY", "device": "/dev/vda2", "text": "ro"}
	tell(t, u, mount)
	const own = "/etc/systemd/network/10-own.network"
	const text = "[Match]\nName=eth0\n\n[Network]\nAddress=192.0.2.2/24\n"
	tell(t, u, map[string]any{"do": "write", "path": own, "text": text})
	if got := unitCommand(t, u, "save-network"); !strings.Contains(got, "is saved") {
		t.Errorf("got %s", got)
	}
	tell(t, u, map[string]any{"do": "network"})
	if got := unitCommand(t, u, "fetch", "https://"+updates+"/"+image); !strings.Contains(got, image+" is on the recovery volume, and good") || !strings.Contains(got, "recovery artifact is replaced") {
		t.Errorf("got %s", got)
	}
	if got := unitCommand(t, u, "fetch", "https://"+updates+"/"+image); !strings.Contains(got, "already, and good") {
		t.Errorf("got %s", got)
	}
	if got := unitCommand(t, u, "status"); !strings.Contains(got, "/dev/vda2, read-only") || !strings.Contains(got, image) {
		t.Errorf("got %s", got)
	}
	unitCommand(t, u, "support-bundle", "--out", "/tmp/bundle.tar.gz")

	tell(t, u, map[string]any{"do": "unmount", "path": "/mnt/RECOVERY"})
	reboot(t, u)
	expect(t, u, bootPatience, lab.Msg("the recovery device boots the fetched recovery artifact"))
	if e := up(t, u); e.Text("version") != "2" {
		t.Errorf("the fetch changed the running system: version %s", e.Text("version"))
	}
	tell(t, u, mount)
	unitCommand(t, u, "boot-ok", "--wait", "0s")
	unitCommand(t, u, "restore", "--image", image, "--yes")
	// What is only in the old system counts too: the restore looks for itself.
	tell(t, u, map[string]any{"do": "write", "path": own, "text": text + "# last\n"})
	tell(t, u, map[string]any{"do": "unmount", "path": "/mnt/RECOVERY"})
	reboot(t, u)
	expect(t, u, bootPatience, jobState("restore", "started"))
	if e := up(t, u); e.Text("version") != "3" {
		t.Errorf("version %s after the restore", e.Text("version"))
	}
	if got := tell(t, u, map[string]any{"do": "read", "path": own}); got != text+"# last\n" {
		t.Errorf("the network configuration is %q", got)
	}
	tell(t, u, map[string]any{"do": "read", "path": "/etc/systemd/network/.config-preserved"})
}

// reboot reboots a running tiny system.
func reboot(t *testing.T, u *lab.Unit) {
	t.Helper()
	if err := u.Tell(map[string]any{"do": "reboot"}); err != nil {
		t.Fatal(err)
	}
	expect(t, u, time.Minute, lab.Msg("init"))
}

// stalling serves the files in a directory with ETags. Of the file with the given name it gives the first one who asks for all of it only a
// part, and then nothing more.
type stalling struct {
	dir, name string
	part      int64         // bytes
	sent      chan struct{} // closed when they are on their way
	end       context.Context

	mu     sync.Mutex
	ranges []string // what was asked for of the file, in order; "": all of it
}

func (s *stalling) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := path.Base(r.URL.Path)
	f, err := os.Open(filepath.Join(s.dir, name))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	w.Header().Set("ETag", `"`+name+`"`)
	if name == s.name {
		s.mu.Lock()
		s.ranges = append(s.ranges, r.Header.Get("Range"))
		first := len(s.ranges) == 1
		s.mu.Unlock()
		if first {
			st, err := f.Stat()
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Length", fmt.Sprint(st.Size()))
			if _, err := io.CopyN(w, f, s.part); err != nil {
				return
			}
			close(s.sent)
			select {
			case <-r.Context().Done():
			case <-s.end.Done():
			}
			return
		}
	}
	http.ServeContent(w, r, name, time.Time{}, f)
}

// TestSoakUpdateResumes cuts the power of a unit that fetches a large release: after the reboot the same command takes up what had arrived, and
// proves the whole.
func TestSoakUpdateResumes(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	n, p := network(t), product(t, l.tiny)
	const much, part, least = 112 << 20, 96 << 20, 64 << 20 // what is least on the disk lies two notes behind what was sent, buffers in between
	noise := filepath.Join(t.TempDir(), "noise")
	b := make([]byte, much)
	rand.NewChaCha8([32]byte{1}).Read(b)
	if err := os.WriteFile(noise, b, 0o644); err != nil {
		t.Fatal(err)
	}
	name, err := p.Release(t.Context(), logger(t), l.tinyRoot(2), 3, "0", nil, image.File{Local: noise, Dest: "usr/lib/noise", Mode: 0o644})
	if err != nil {
		t.Fatal(err)
	}
	l.serve(t, n, p)
	s := &stalling{dir: p.Path(""), name: name, part: part, sent: make(chan struct{}), end: t.Context()}
	serveFrom(t, n, p, s)
	u := l.fork(t, n, layout.UEFI, nil)
	mount := map[string]any{"do": "mount", "path": "/mnt/RECOVERY", "device": "/dev/vda2", "text": "ro"}
	fetch := []string{"fetch", "--json", "https://" + updates + "/" + name}
	start(t, u)
	up(t, u)
	tell(t, u, mount)
	tell(t, u, map[string]any{"do": "network"})
	if err := u.Tell(map[string]any{"do": "run", "path": "/usr/sbin/gprov-unit", "args": fetch}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.sent:
	case <-time.After(jobPatience):
		t.Fatal("the image is not fetched")
	}
	u.Cut()
	start(t, u)
	if e := up(t, u); e.Text("version") != "2" {
		t.Errorf("version %s runs", e.Text("version"))
	}
	tell(t, u, mount)
	if got := unitCommand(t, u, "status"); strings.Contains(got, name) {
		t.Errorf("half an image counts: %s", got)
	}
	tell(t, u, map[string]any{"do": "network"})
	got := unitCommand(t, u, fetch...)
	found := regexp.MustCompile(`"resumed": (\d+)`).FindStringSubmatch(got)
	if found == nil {
		t.Fatalf("nothing was taken up: %s", got)
	}
	resumed, err := strconv.ParseInt(found[1], 10, 64)
	if err != nil || resumed < least || resumed > part {
		t.Errorf("of %d bytes %s were taken up, want at least %d", part, found[1], least)
	}
	s.mu.Lock()
	asked := slices.Clone(s.ranges)
	s.mu.Unlock()
	if want := []string{"", "bytes=" + found[1] + "-"}; !slices.Equal(asked, want) {
		t.Errorf("asked for were %q, want %q", asked, want)
	}
	if got := unitCommand(t, u, fetch...); !strings.Contains(got, `"present": true`) {
		t.Errorf("the image is not there, or not good: %s", got)
	}
	if got := unitCommand(t, u, "status"); !strings.Contains(got, name) {
		t.Errorf("got %s", got)
	}
}
