package lab_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"gprovision/lab"
	"gprovision/model/layout"
	"gprovision/site"
	"gprovision/unit/state"
)

// oldUnit is a unit whose disks hold what old programs have left there. It starts with whichever boot artifact GRUB loads from them.
type oldUnit struct {
	*loopUnit
	artifacts map[string]*loopUnit // by what they are: each with the same disks
	said      []lab.Event          // since the last start
	names     site.Names           // that its running system has
}

// newOldUnit makes a unit of two disks, which may be those of the cache, copied.
func newOldUnit(t *testing.T, dir, disks string, artifacts map[string]string) *oldUnit {
	t.Helper()
	c := config(layout.BIOS, lab.VirtIO)
	c.MAC, c.SMBIOS.UUID = "52:54:00:77:00:01", "4c4c4544-0010-4a10-8010-b6c04f303030"
	u := &oldUnit{artifacts: map[string]*loopUnit{}, names: site.Stock().Names}
	var files []string
	for _, d := range c.Disks {
		file := filepath.Join(dir, d.Name)
		files = append(files, file)
		if disks == "" {
			run(t, "truncate", "-s", fmt.Sprint(d.Size), file)
		} else {
			run(t, "cp", "--sparse=always", filepath.Join(disks, d.Name), file)
		}
	}
	for name, artifact := range artifacts {
		u.artifacts[name] = newLoopUnit(t, filepath.Join(dir, name), c, artifact, files...)
		u.loopUnit = u.artifacts[name]
	}
	return u
}

// choose finds out as GRUB does what the unit starts with: the main disk's artifact if its system has a mark and that can be loaded, else the
// recovery device's. It returns which artifact that is, and the kernel arguments.
func (u *oldUnit) choose(t *testing.T) (name string, a *loopUnit, args string) {
	t.Helper()
	disks := []int{0}
	if _, err := u.grub(1, "cat", "/"+u.names.Mark); err == nil {
		disks = []int{1, 0}
	}
	for _, disk := range disks {
		kernel, initrd, args, ok := u.loads(disk)
		if !ok {
			continue
		}
		for name, a := range u.artifacts {
			_, err1 := u.grub(disk, "cmp", kernel, a.kernel)
			_, err2 := u.grub(disk, "cmp", initrd, a.initrd)
			if err1 == nil && err2 == nil {
				return name, a, args
			}
		}
		t.Fatalf("disk %d: GRUB loads %s and %s, and those are of no artifact", disk, kernel, initrd)
	}
	t.Fatal("GRUB finds nothing to start")
	return "", nil, ""
}

// session starts the unit, as often as it wants to be, until its system runs, and has that run gprov-unit with each of the commands. Then
// the power is cut. It returns with which artifacts it started, and what was decided.
func (u *oldUnit) session(t *testing.T, version string, commands ...[]string) (started, jobs []string) {
	t.Helper()
	u.said = nil
	for len(started) < 4 {
		name, a, args := u.choose(t)
		started = append(started, name)
		held, up := "", false
		volume := "/mnt/" + u.names.Recovery
		todo := []map[string]any{{"do": "mount", "path": volume, "text": "ro"}}
		for _, c := range commands {
			todo = append(todo, map[string]any{"do": "run", "path": "/usr/sbin/gprov-unit", "args": c})
		}
		todo = append(todo, map[string]any{"do": "unmount", "path": volume})
		next := func() bool { // whether all is done
			if len(todo) == 0 {
				return true
			}
			b, err := json.Marshal(todo[0])
			if err == nil {
				_, err = a.port.Write(append(b, '\n'))
			}
			if err != nil {
				t.Error(err)
				return true
			}
			return false
		}
		end := a.boot(t, args, func(e lab.Event) bool {
			u.said = append(u.said, e)
			switch e.Msg() {
			case "decision":
				jobs = append(jobs, e.Text("job"))
			case "hold":
				held = e.String()
				return true
			case "tiny system up":
				up = true
				completeAs(t, e, version, u.names)
				todo[0]["device"] = a.loops[0] + "p1"
				return next()
			case "done":
				if e.Text("error") != "" {
					t.Errorf("%v: %s", todo[0], e.Text("error"))
					return true
				}
				todo = todo[1:]
				return next()
			}
			return false
		})
		switch {
		case held != "":
			t.Fatalf("started with %v, jobs %v: the unit holds: %s", started, jobs, held)
		case up:
			return started, jobs
		case end != endReboot:
			t.Fatalf("started with %v, jobs %v: it ends with a %s", started, jobs, end)
		}
	}
	t.Fatalf("started with %v, jobs %v: the system does not run", started, jobs)
	return nil, nil
}

// faults are what the unit said was wrong.
func (u *oldUnit) faults() (out []string) {
	for _, e := range u.said {
		if e.Text("code") != "" {
			out = append(out, e.String())
		}
	}
	return out
}

// unit returns the disks of a unit that old programs have provisioned, restored and started, from the cache if they were made before.
func (o old) unit(t *testing.T, product string) string {
	t.Helper()
	needLoop(t)
	if err := lab.Usable(); err != nil {
		skip(t, err.Error())
	}
	cache, err := lab.OpenCache("")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := cache.Get(t.Context(), "unit-"+o.version, lab.Key("unit 1", filepath.Base(product)), func(path string) error {
		return errors.Join(os.MkdirAll(path, 0o755), o.makeUnit(t, path, product))
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// makeUnit lives the first life of a unit: the old server's boot script starts the old artifact.
func (o old) makeUnit(t *testing.T, dir, product string) error {
	t.Helper()
	work := workDir(t, 2<<30)
	data := filepath.Join(work, "data")
	if err := os.CopyFS(data, os.DirFS(filepath.Join(product, "data"))); err != nil {
		return err
	}
	n := network(t)
	s, err := lab.StartServer(t.Context(), logger(t), n, lab.ServerConfig{Program: o.program("gprov"), Data: data, Password: password})
	if err != nil {
		return err
	}
	defer s.Stop()
	u := newOldUnit(t, work, "", map[string]string{"provision": filepath.Join(data, "files", lab.ProvisionFile), "boot": filepath.Join(data, "files", lab.BootFile)})
	p := u.artifacts["provision"]
	p.station = n
	args, err := bootScript(t.Context(), n, p.config)
	if err != nil {
		return err
	}
	succeeded := false
	end := p.boot(t, args, func(e lab.Event) bool {
		succeeded = succeeded || jobState("provision", "succeeded")(e)
		return bad(e)
	})
	if end != endReboot || !succeeded {
		return fmt.Errorf("provisioning by %s ends with a %s; events are in %s", o.version, end, p.dir)
	}
	s.Stop()
	if started, jobs := u.session(t, "1"); !slices.Equal(jobs, []string{"restore", "boot"}) {
		return fmt.Errorf("after it the unit starts with %v and does %v", started, jobs)
	}
	for _, d := range u.disks {
		run(t, "cp", "--sparse=always", d, filepath.Join(dir, filepath.Base(d)))
	}
	return nil
}

var kernelLine = regexp.MustCompile(`(?m)^kernel \S+ (.*) \|\| goto failed$`)

// bootScript fetches the boot script as iPXE of a BIOS unit does, and returns the kernel's arguments.
func bootScript(ctx context.Context, n *lab.Network, c lab.Config) (string, error) {
	q := url.Values{"mac": {c.MAC}, "serial": {c.SMBIOS.Serial}, "uuid": {c.SMBIOS.UUID}, "platform": {"pcbios"}}
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+lab.ServerAddr.Addr().String()+":8080/boot.ipxe?"+q.Encode(), nil)
	if err != nil {
		return "", err
	}
	a, err := (&http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: n.Dial, DisableKeepAlives: true}}).Do(r)
	if err != nil {
		return "", err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	m := kernelLine.FindStringSubmatch(string(text))
	if err != nil || m == nil {
		return "", fmt.Errorf("the boot script starts no kernel: %w: %s", err, text)
	}
	return m[1], nil
}

// newestImage is the image that takes units of old releases to the newest.
const newestImage = "WIDGET.LNX.SHINY.2026-11-27.0002.upd"

// newests are what newest has made, by version.
var newests sync.Map

// newest is the company's next release, made once by the programs at hand: with the key and for the server of before.
func (o old) newest(t *testing.T, l *life, product string) string {
	t.Helper()
	f, _ := newests.LoadOrStore(o.version, sync.OnceValues(func() (string, error) {
		dir := filepath.Join(l.dir, "newest-"+o.version)
		return dir, o.makeNewest(l, product, dir)
	}))
	dir, err := f.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func (o old) makeNewest(l *life, product, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	f, err := os.Create(at("tiny.tar"))
	if err != nil {
		return err
	}
	if err := errors.Join(lab.TinyRoot(f, filepath.Join(l.dir, "tiny"), "2", nil, filepath.Join(l.dir, "gprov-unit")), f.Close()); err != nil {
		return err
	}
	key := filepath.Join(product, "product.key")
	for _, args := range [][]string{
		{"boot", "build", "--rootfs", l.debian, "--policy", filepath.Join(product, "policy.json"), "--init", l.init, "--out", at(lab.BootFile)},
		{"image", "build", "--rootfs", at("tiny.tar"), "--add", at(lab.BootFile) + ":/boot/" + lab.BootFile, "--out", dir, "--name", newestImage, "--key", key, "--preset", "0"},
		{"manifest", "make", "--out", at(lab.ManifestFile), "--image", at(newestImage), "--boot", at(lab.BootFile), "--specs", filepath.Join(product, "specs.json"),
			"--log-endpoint", "https://" + lab.ServerAddr.Addr().String() + ":8443", "--key", key, "--product", lab.PlatformName, "--serial", "2"},
	} {
		cmd := exec.Command(l.gprov, args...)
		cmd.Env = append(os.Environ(), "BUILD_NUMBER=2")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("gprov %v: %w: %s", args, err, out)
		}
	}
	return nil
}

// TestOldUnitLives takes a unit that old programs have provisioned through its later life: its own gprov-unit fetches the newest release, its
// own init restores it, the newest goes on from there and restores in turn, and "Restore original" leads back to the old release, which reads
// the volume that the newest has written to, and restores from it.
func TestOldUnitLives(t *testing.T) {
	eachEnd(t, testOldUnit)
}

func testOldUnit(t *testing.T, r released) {
	needLoop(t)
	o, l := r.programs(t), programs(t)
	product := o.product(t, l.debian)
	disks, next := o.unit(t, product), o.newest(t, l, product)
	u := newOldUnit(t, workDir(t, 4<<30), disks, map[string]string{r.version: filepath.Join(product, "data", "files", lab.BootFile), "newest": filepath.Join(next, lab.BootFile)})

	// The newest release comes to the unit as a file.
	err := mounted(t, u.disks[1], 0, func(dir string) {
		for _, suffix := range []string{"", ".minisig"} {
			run(t, "cp", filepath.Join(next, newestImage+suffix), filepath.Join(dir, "root"))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	old, newest := r.version, "newest"
	boot, restore := []string{"boot"}, []string{"restore", "boot"}
	for _, s := range []struct {
		what    string
		version string     // that runs in the end
		started []string   // artifacts, one for each start
		jobs    []string   // decided on
		then    [][]string // commands of the running system's gprov-unit
	}{
		{"the old system fetches the newest release", "1", []string{old}, boot, [][]string{{"status", "--json"}, {"fetch", "/root/" + newestImage}}},
		{"it starts again, and a restore is asked for", "1", []string{old}, boot, [][]string{{"boot-ok", "--wait", "0s"}, {"restore", "--image", newestImage, "--yes"}}},
		{"the old init restores the newest release, which starts", "2", []string{old, newest}, restore, [][]string{{"status", "--json"}, {"boot-ok", "--wait", "0s"}, {"restore", "--image", "latest", "--yes"}}},
		{"the newest restores itself", "2", []string{newest, newest}, restore, [][]string{{"boot-ok", "--wait", "0s"}, {"restore", "--image", "original", "--yes"}}},
		{"the newest restores the original, which reads the volume", "1", []string{newest, old}, restore, [][]string{{"status", "--json"}, {"boot-ok", "--wait", "0s"}, {"restore", "--image", "original", "--yes"}}},
		{"the original restores itself", "1", []string{old, old}, restore, [][]string{{"status", "--json"}}},
	} {
		began := time.Now()
		started, jobs := u.session(t, s.version, s.then...)
		if !slices.Equal(started, s.started) || !slices.Equal(jobs, s.jobs) {
			t.Errorf("%s: it starts with %v and does %v, want %v and %v", s.what, started, jobs, s.started, s.jobs)
		}
		for _, d := range u.faults() {
			t.Errorf("%s: %s", s.what, d)
		}
		t.Logf("%s: %s", s.what, time.Since(began).Round(time.Second))
		if t.Failed() {
			return
		}
	}
	err = mounted(t, u.disks[0], syscall.MS_RDONLY, func(dir string) {
		v := state.Open(dir)
		if c, err := v.ReadCounts(); err != nil || c.Restores != 5 || c.RestoreFailures != 0 {
			t.Errorf("the counts are %+v, %v, want 5 restores", c, err)
		}
		if rec, err := v.ReadUnit(); err != nil || rec.Original != oldImage || rec.Serial != serial {
			t.Errorf("the unit's record is %+v, %v", rec, err)
		}
	})
	if err != nil {
		t.Error(err)
	}
}
