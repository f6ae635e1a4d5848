package lab_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gprovision/factory/api"
	"gprovision/factory/store"
	"gprovision/lab"
	"gprovision/model/layout"
	"gprovision/model/manifest"
	"gprovision/model/policy"
	"gprovision/model/record"
	"gprovision/model/secret"
	"gprovision/site"
	"gprovision/unit/pid1"
)

// How long a stage may take on two shared processors without KVM.
const (
	bootPatience = 4 * time.Minute
	jobPatience  = 8 * time.Minute
)

const (
	serial   = "LAB-0001"
	password = secret.Secret("lab-test-password")
)

// life is what all tests of a unit's life share. It is built once, when the first of them runs.
type life struct {
	dir    string
	key    string // of all that it is made of
	gprov  string
	init   string
	debian string       // root filesystem
	tiny   *lab.Product // with two releases of the tiny system
	images []string     // of tiny, the older one first
	// modules are what the tiny system loads itself.
	modules []lab.Module
	// finished returns a unit that was provisioned and restored itself, and the memory of its server.
	finished map[layout.Firmware]func() (*finishedUnit, error)
}

// updates is where the units of the tests may fetch images.
const updates = "10.77.0.1:9443"

type finishedUnit struct {
	snapshot *lab.Snapshot
	product  *lab.Product // with the server's database
	firstLife
}

// firstLife is what was seen of a unit's first life.
type firstLife struct {
	Config lab.Config
	Up     lab.Event  // what the tiny system said
	Took   []string   // how long each stage took
	Server api.Detail // what the server knows of it
	Record []store.Event
}

// theLife builds the fixture. What it makes is removed by TestMain.
var theLife = sync.OnceValues(func() (*life, error) {
	p, err := thePrograms()
	if err != nil {
		return nil, err
	}
	l := *p
	if err := l.makeTiny(context.Background()); err != nil {
		return nil, err
	}
	l.finished = map[layout.Firmware]func() (*finishedUnit, error){}
	for _, fw := range []layout.Firmware{layout.UEFI, layout.BIOS} {
		l.finished[fw] = sync.OnceValues(func() (*finishedUnit, error) { return l.finish(fw) })
	}
	return &l, nil
})

// thePrograms is the part of theLife that is quick to make: the programs, with that of the tiny system, and the root filesystem.
var thePrograms = sync.OnceValues(func() (*life, error) {
	base := tempBase()
	if err := removeLeft(base, "fixture"); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(base, ownDir("fixture"))
	if err != nil {
		return nil, err
	}
	l := &life{dir: dir, gprov: filepath.Join(dir, "gprov"), init: filepath.Join(dir, "init")}
	if l.debian, err = debianRoot(); err != nil {
		return nil, err
	}
	for _, name := range []string{"gprov", "init", "gprov-unit"} {
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, name), "gprovision/cmd/"+name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w: %s", name, err, out)
		}
	}
	if err := lab.BuildTiny(context.Background(), slog.New(slog.DiscardHandler), filepath.Join(dir, "tiny")); err != nil {
		return nil, err
	}
	return l, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if l, err := theProgramsIfBuilt(); err == nil && l != nil {
		if code == 0 {
			_ = os.RemoveAll(l.dir)
		} else {
			fmt.Printf("the tests' common files are kept in %s until the tests are run again\n", l.dir)
		}
	}
	os.Exit(code)
}

// built reports whether thePrograms was called.
var built sync.Map

func theProgramsIfBuilt() (*life, error) {
	if _, ok := built.Load("programs"); !ok {
		return nil, nil
	}
	return thePrograms()
}

// programs returns what theLife has but products and units, for tests without virtual machines.
func programs(t *testing.T) *life {
	t.Helper()
	built.Store("programs", true)
	l, err := thePrograms()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// needLife skips where no virtual unit can run, waits for a slot and returns the fixture.
func needLife(t *testing.T) *life {
	t.Helper()
	needLab(t)
	built.Store("programs", true)
	l, err := theLife()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// makeTiny makes the product that most tests share, or takes it from the cache.
func (l *life) makeTiny(ctx context.Context) error {
	var err error
	if l.key, err = l.contents(); err != nil {
		return err
	}
	if l.modules, err = lab.ReadModules(l.debian, lab.TinyModules()...); err != nil {
		return err
	}
	dir, err := l.kept(ctx, "product", l.key, func(dir string) error {
		p, err := lab.NewProduct(filepath.Join(dir, "data"))
		if err != nil {
			return err
		}
		return errors.Join(tinyPolicy(p), l.releaseTiny(ctx, p, dir))
	})
	if err != nil {
		return err
	}
	if l.tiny, err = lab.OpenProduct(filepath.Join(dir, "data")); err != nil {
		return err
	}
	if l.images, err = filepath.Glob(l.tiny.Path("*.upd")); err != nil || len(l.images) != 2 {
		return fmt.Errorf("the product has the images %q: %w", l.images, err)
	}
	for i, name := range l.images { // sorted by their build numbers, as they are of one day
		l.images[i] = filepath.Base(name)
	}
	return tinyPolicy(l.tiny)
}

// tinyPolicy changes the first policy of the tests' product. A person may choose at the serial console, and open the shell.
func tinyPolicy(p *lab.Product) (err error) {
	p.Policy.Panels, p.Policy.GraceSeconds, p.Policy.Shell = []string{policy.Serial}, 1, true
	p.Policy.FetchHosts, p.Policy.FetchCA = []string{updates}, p.Policy.ServerCA
	p.Policy.RootWaitSeconds = 20
	p.Policy.NetworkRecovery = "https://" + updates + "/" + lab.ManifestFile
	p.Policy.FailedBoots, p.Policy.WatchdogSeconds = 9, 30
	p.Platforms, err = platforms()
	return err
}

// tinyRoot is the root filesystem of the tiny system's release n, 1 or 2.
func (l *life) tinyRoot(n int) string {
	return filepath.Join(l.dir, "product", fmt.Sprintf("tiny%d.tar", n))
}

// releaseTiny makes the artifacts, two releases and the manifest of p, and the root filesystems in dir.
func (l *life) releaseTiny(ctx context.Context, p *lab.Product, dir string) error {
	log := slog.New(slog.DiscardHandler)
	if err := p.Artifacts(ctx, log, l.debian, l.init, 1); err != nil {
		return err
	}
	var images []string
	for n := uint64(1); n <= 2; n++ {
		root := filepath.Join(dir, fmt.Sprintf("tiny%d.tar", n))
		f, err := os.Create(root)
		if err != nil {
			return err
		}
		err = lab.TinyRoot(f, filepath.Join(l.dir, "tiny"), fmt.Sprint(n), l.modules, filepath.Join(l.dir, "gprov-unit"))
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		name, err := p.Release(ctx, log, root, n, "0", nil)
		if err != nil {
			return err
		}
		images = append(images, name)
	}
	return p.Manifest([]string{images[1], images[0]}, specifications)
}

// config is a unit as the built-in appliance table describes it.
func config(fw layout.Firmware, bus lab.Bus) lab.Config {
	c := lab.Config{
		Name: "unit", Firmware: fw,
		SMBIOS: lab.SMBIOS{Manufacturer: lab.PlatformManufacturer, Product: lab.PlatformProduct, Serial: serial},
		Disks:  []lab.Disk{{Name: "recovery", Bus: bus, Size: lab.RecoverySize}, {Name: "main", Bus: bus, Size: lab.MainSize}},
	}
	if fw == layout.BIOS {
		c.Disks[0].BootIndex = 1
	}
	return c
}

// stages is a whole first life, from empty disks to the running system.
var stages = []struct {
	name  string
	until lab.Match
	limit time.Duration
}{
	{"network boot", jobState("provision", "started"), bootPatience},
	{"provision", jobState("provision", "succeeded"), jobPatience},
	{"boot into restore", jobState("restore", "started"), bootPatience},
	{"restore", jobState("restore", "succeeded"), jobPatience},
	{"boot", jobState("boot", "started"), bootPatience},
	{"hand-over", lab.Msg("handing over"), time.Minute},
}

func jobState(job, state string) lab.Match {
	return lab.All(lab.Msg("state"), lab.Field("job", job), lab.Field("state", state))
}

// bad are the events after which nothing good follows.
var bad = lab.Any(lab.Msg("hold"), lab.Msg("GUEST_PANICKED"))

// await waits for an event, and fails early when the unit holds instead.
func await(u *lab.Unit, limit time.Duration, m lab.Match) (lab.Event, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, fmt.Errorf("nothing within %v", limit))
	defer cancel()
	e, err := u.Events.Wait(ctx, lab.Any(m, bad))
	if err == nil && !m(e) {
		err = fmt.Errorf("instead of what was awaited: %s %s %s", e.Msg(), e.Text("code"), e.Text("err"))
	}
	return e, err
}

// live follows a unit through its whole first life.
func live(u *lab.Unit) (took []string, err error) {
	for _, s := range stages {
		began := time.Now()
		if _, err := await(u, s.limit, s.until); err != nil {
			return took, fmt.Errorf("%s: %w\nevents:\n%s\nconsole:\n%s", s.name, err, u.Events.Tail(20), tail(u.Console(), 2000))
		}
		took = append(took, fmt.Sprintf("%s %.0f s", s.name, time.Since(began).Seconds()))
	}
	return took, nil
}

// finish makes a finished unit, or takes it from the cache.
func (l *life) finish(fw layout.Firmware) (*finishedUnit, error) {
	ctx := context.Background()
	// Its disks trust the key of this very product.
	key := lab.Key(l.key, l.tiny.Policy.Keys[0])
	dir, err := l.kept(ctx, "finished-"+string(fw), key, func(dir string) error { return l.liveIn(ctx, fw, dir) })
	if err != nil {
		return nil, err
	}
	f := &finishedUnit{product: l.tiny.In(filepath.Join(dir, "data"))}
	b, err := os.ReadFile(filepath.Join(dir, "first-life.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &f.firstLife); err != nil {
		return nil, err
	}
	f.snapshot = &lab.Snapshot{Config: f.Config, Dir: filepath.Join(dir, "snapshot")}
	return f, nil
}

// liveIn lets a unit live its first life, and leaves in dir its disks, the data of its server and what was seen of it.
func (l *life) liveIn(ctx context.Context, fw layout.Firmware, dir string) (err error) {
	log := slog.New(slog.DiscardHandler)
	n, err := lab.NewNetwork(ctx, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	p, err := l.tiny.Copy(filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	s, err := lab.StartServer(ctx, log, n, lab.ServerConfig{Program: l.gprov, Data: p.Dir, Password: password})
	if err != nil {
		return err
	}
	defer s.Stop()
	machine := filepath.Join(dir, "unit")
	u, err := lab.NewUnit(ctx, log, n, machine, config(fw, lab.VirtIO))
	if err != nil {
		return err
	}
	defer func() {
		u.Close()
		err = errors.Join(err, os.RemoveAll(machine))
	}()
	if err := u.Start(ctx); err != nil {
		return err
	}
	first := firstLife{Config: u.Config}
	if first.Took, err = live(u); err != nil {
		return err
	}
	if first.Up, err = await(u, time.Minute, lab.Msg("tiny system up")); err != nil {
		return err
	}
	if first.Server, err = s.Unit(ctx, serial); err != nil {
		return err
	}
	if first.Record, err = s.Events(ctx, serial); err != nil {
		return err
	}
	if err := u.Tell(map[string]string{"do": "poweroff"}); err != nil {
		return err
	}
	end, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := u.Wait(end); err != nil {
		return err
	}
	if _, err := u.Snapshot(ctx, filepath.Join(dir, "snapshot")); err != nil {
		return err
	}
	b, err := json.Marshal(first)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "first-life.json"), b, 0o644)
}

// fork returns a unit that starts where a finished one was switched off.
func (l *life) fork(t *testing.T, n *lab.Network, fw layout.Firmware, change func(*lab.Config), blank ...string) *lab.Unit {
	t.Helper()
	f, err := l.finished[fw]()
	if err != nil {
		t.Fatal(err)
	}
	u, err := f.snapshot.Fork(t.Context(), logger(t), n, filepath.Join(workDir(t, 2<<30), "unit"), change, blank...)
	if err != nil {
		t.Fatal(err)
	}
	return watched(t, u)
}

// serve starts a server for p on n.
func (l *life) serve(t *testing.T, n *lab.Network, p *lab.Product) *lab.Server {
	t.Helper()
	s, err := lab.StartServer(t.Context(), logger(t), n, lab.ServerConfig{Program: l.gprov, Data: p.Dir, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("last lines of the server:\n%s", s.Log())
		}
	})
	return s
}

// product returns a copy of p with a server's memory of its own.
func product(t *testing.T, p *lab.Product) *lab.Product {
	t.Helper()
	out, err := p.Copy(filepath.Join(workDir(t, 1<<30), "data"))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// up waits for the tiny system, without anything bad on the way.
func up(t *testing.T, u *lab.Unit) lab.Event {
	t.Helper()
	e, err := await(u, jobPatience, lab.Msg("tiny system up"))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// seen fails the test unless as many events match.
func seen(t *testing.T, u *lab.Unit, want int, m lab.Match, what string) {
	t.Helper()
	if got := len(u.Events.Seen(m)); got != want {
		t.Errorf("%s: seen %d times, want %d", what, got, want)
	}
}

// tell has the tiny system do something and fails the test if it cannot.
func tell(t *testing.T, u *lab.Unit, do map[string]any) string {
	t.Helper()
	if err := u.Tell(do); err != nil {
		t.Fatal(err)
	}
	e := expect(t, u, time.Minute, lab.All(lab.Msg("done"), lab.Field("do", do["do"].(string))))
	if e.Text("error") != "" {
		t.Fatalf("tell the tiny system %v: %s", do, e.Text("error"))
	}
	return e.Text("text")
}

// recoveryOf mounts the recovery volume of a running tiny system and returns the directory.
func recoveryOf(t *testing.T, u *lab.Unit) string {
	t.Helper()
	partition := map[layout.Firmware]string{layout.UEFI: "/dev/vda2", layout.BIOS: "/dev/vda1"}[u.Firmware] // on UEFI the ESP comes first
	tell(t, u, map[string]any{"do": "mount", "path": "/run/rec", "device": partition})
	return "/run/rec"
}

// again makes a running tiny system lose its mark and start again. dir is what is mounted, or empty.
func again(t *testing.T, u *lab.Unit, dir string) {
	t.Helper()
	if dir != "" {
		tell(t, u, map[string]any{"do": "unmount", "path": dir})
	}
	tell(t, u, map[string]any{"do": "remove", "path": "/boot.normal"})
	if err := u.Tell(map[string]any{"do": "reboot"}); err != nil {
		t.Fatal(err)
	}
}

// whole checks what a restored tiny system says of itself.
func whole(t *testing.T, e lab.Event, version string) {
	t.Helper()
	complete(t, e, version)
	if got := e.Text("args"); got != "["+pid1.SystemInit+"]" {
		t.Errorf("the system was started as %s", got)
	}
}

// complete is the part of whole that holds for the systems and the inits of all releases.
func complete(t *testing.T, e lab.Event, version string) {
	t.Helper()
	completeAs(t, e, version, site.Stock().Names)
}

// completeAs is complete for a unit with names of its own.
func completeAs(t *testing.T, e lab.Event, version string, n site.Names) {
	t.Helper()
	if got := e.Text("version"); got != version {
		t.Errorf("release %q runs, want %q", got, version)
	}
	if e.Text("mark") == "" || e.Text("machineID") == "" || !strings.HasPrefix(strings.TrimSpace(e.Text("hostname")), n.HostPrefix) ||
		!strings.Contains(e.Text("fstab"), " / ") || !strings.Contains(e.Text("fstab"), " /mnt/"+n.Recovery+" ") {
		t.Errorf("the restored system is not complete: %s", e)
	}
}

func TestLifeUEFI(t *testing.T) { testLife(t, layout.UEFI) }
func TestLifeBIOS(t *testing.T) { testLife(t, layout.BIOS) }

func testLife(t *testing.T, fw layout.Firmware) {
	t.Parallel()
	l := needLife(t)
	f, err := l.finished[fw]()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", strings.Join(f.Took, ", "))
	whole(t, f.Up, "2")
	if d := f.Server; !d.Unit.Completed() || !d.Unit.Confirmed || d.Unit.Platform != lab.PlatformName || len(d.Enrolments) != 1 {
		t.Errorf("the server knows of the unit: %+v", d)
	}
	kinds := map[record.Kind]int{}
	for _, e := range f.Record {
		kinds[e.Kind]++
	}
	if kinds[record.KindQA] == 0 || kinds[record.KindState] == 0 || kinds[record.KindLog] == 0 {
		t.Errorf("the server has records %v, want some of qa, state and log", kinds)
	}
	u := l.fork(t, network(t), fw, nil)
	start(t, u)
	whole(t, up(t, u), "2")
	seen(t, u, 0, jobState("restore", "started"), "restore of a finished unit")
}

// TestPowerCuts cuts the power three times in one life, in provisioning and in the restore: it ends as every other life.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fw    layout.Firmware
		steps []string
	}{
		{layout.UEFI, []string{"boot-entries", "write-release", "set-mark"}},
		{layout.BIOS, []string{"write-files", "boot-main", "set-mark"}},
	} {
		t.Run(string(c.fw), func(t *testing.T) {
			t.Parallel()
			l := needLife(t)
			n := network(t)
			l.serve(t, n, product(t, l.tiny))
			u := newUnit(t, n, config(c.fw, lab.VirtIO))
			for i, job := range []string{"provision", "restore", "restore"} {
				start(t, u)
				if _, err := await(u, 2*bootPatience+jobPatience, lab.All(lab.Msg("step"), lab.Field("job", job), lab.Field("step", c.steps[i]))); err != nil {
					t.Fatal(err)
				}
				u.Cut()
			}
			start(t, u)
			whole(t, up(t, u), "2")
			if c.fw == layout.BIOS { // on UEFI an entry that is written already may start the recovery device
				seen(t, u, 2, jobState("provision", "started"), "provisioning")
			}
		})
	}
}

// TestCorruptImage damages the newest image on the recovery volume: the next one is restored.
func TestCorruptImage(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	u := l.fork(t, network(t), layout.UEFI, nil)
	start(t, u)
	up(t, u)
	dir := recoveryOf(t, u)
	tell(t, u, map[string]any{"do": "patch", "path": dir + "/Image/" + l.images[1], "text": "damage", "at": 100000})
	again(t, u, dir)
	whole(t, up(t, u), "1")
}

// TestRenamedImage gives an old image, with its own good signature, the name of a newer one: it is refused.
func TestRenamedImage(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	u := l.fork(t, network(t), layout.UEFI, nil)
	start(t, u)
	up(t, u)
	dir := recoveryOf(t, u)
	forged := strings.Replace(l.images[0], ".0001.upd", ".0009.upd", 1)
	for _, suffix := range []string{"", ".minisig"} {
		tell(t, u, map[string]any{"do": "copy", "path": dir + "/Image/" + l.images[0] + suffix, "to": dir + "/Image/" + forged + suffix})
	}
	again(t, u, dir)
	whole(t, up(t, u), "2")
	seen(t, u, 1, lab.Msg("image cannot be restored"), "refusal of the renamed image")
}

// TestNoImage removes all images: the unit says so and stays where it is.
func TestNoImage(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	u := l.fork(t, network(t), layout.UEFI, nil)
	start(t, u)
	up(t, u)
	dir := recoveryOf(t, u)
	for _, image := range l.images {
		tell(t, u, map[string]any{"do": "remove", "path": dir + "/Image/" + image})
	}
	again(t, u, dir)
	if e := expect(t, u, bootPatience, lab.Msg("hold")); e.Text("code") != "G201" {
		t.Errorf("the unit holds with %s, want G201", e.Text("code"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if e, err := u.Events.Wait(ctx, lab.Any(lab.Msg("RESET"), lab.Msg("hold"), lab.Msg("decision"))); err == nil {
		t.Errorf("the unit does not stay there: %s", e)
	}
}

// TestProvisionAgain provisions a finished unit with a running system: at first the server does not allow it and it boots
// what it has, then it is released and starts a new life.
func TestProvisionAgain(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	f, err := l.finished[layout.BIOS]()
	if err != nil {
		t.Fatal(err)
	}
	n, p := network(t), product(t, f.product)
	copyDatabase(t, f.product, p)
	s := l.serve(t, n, p)
	u := l.fork(t, n, layout.BIOS, nil)
	start(t, u, lab.FromNetwork())
	before := up(t, u)
	seen(t, u, 0, jobState("provision", "started"), "provisioning of a unit that is not released")
	if err := s.Release(t.Context(), serial); err != nil {
		t.Fatal(err)
	}
	if err := u.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := await(u, bootPatience+jobPatience, jobState("provision", "succeeded")); err != nil {
		t.Fatal(err)
	}
	// From here on nobody presses the key for the network any more.
	expect(t, u, time.Minute, lab.Msg("RESET"))
	u.Cut()
	start(t, u)
	if _, err := await(u, bootPatience, jobState("restore", "started")); err != nil {
		t.Fatal(err)
	}
	e := up(t, u)
	whole(t, e, "2")
	// The system is another one, on partitions of another identity. The key is found again, and the machine-id comes from it.
	if e.Text("fstab") == before.Text("fstab") || e.Text("mark") == before.Text("mark") {
		t.Error("the unit boots its old system")
	}
	if e.Text("machineID") != before.Text("machineID") {
		t.Error("the unit has not kept its key")
	}
}

func copyDatabase(t *testing.T, from, to *lab.Product) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(from.Dir, "gprov.db*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no database in %s: %v", from.Dir, err)
	}
	for _, f := range files {
		in, err := os.Open(f)
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(filepath.Join(to.Dir, filepath.Base(f)))
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(out, in)
		if err := errors.Join(err, in.Close(), out.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBlankMainDisk replaces the main disk by an empty one.
func TestBlankMainDisk(t *testing.T) {
	t.Parallel()
	for _, fw := range []layout.Firmware{layout.UEFI, layout.BIOS} {
		t.Run(string(fw), func(t *testing.T) {
			t.Parallel()
			l := needLife(t)
			u := l.fork(t, network(t), fw, nil, "main")
			start(t, u)
			whole(t, up(t, u), "2")
			seen(t, u, 1, jobState("restore", "succeeded"), "restore")
		})
	}
}

// TestSlowMainDisk has a main disk that answers only 8 seconds after init started: the unit waits and boots.
func TestSlowMainDisk(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	u := l.fork(t, network(t), layout.UEFI, func(c *lab.Config) { c.Disks[1].Late = true })
	start(t, u)
	expect(t, u, bootPatience, lab.Msg("init"))
	<-time.After(8 * time.Second) // this is what is tested, nothing is waited for
	if err := u.Plug(t.Context(), "main"); err != nil {
		t.Fatal(err)
	}
	whole(t, up(t, u), "2")
	seen(t, u, 0, jobState("restore", "started"), "restore")
}

// TestStrangeSticks plugs USB sticks with the labels of our volumes into a finished unit: nothing changes.
func TestStrangeSticks(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	sticks := []string{"PRIMARY", "RECOVERY"}
	u := l.fork(t, network(t), layout.UEFI, func(c *lab.Config) {
		for _, label := range sticks {
			c.Disks = append(c.Disks, lab.Disk{Name: "stick-" + strings.ToLower(label), Bus: lab.USB, Size: 256 << 20})
		}
	})
	for _, label := range sticks {
		makeStick(t, filepath.Join(u.Dir, "stick-"+strings.ToLower(label)+".qcow2"), label)
	}
	start(t, u)
	whole(t, up(t, u), "2")
	seen(t, u, 0, jobState("restore", "started"), "restore")
}

// makeStick fills a disk with a partition that holds an ext4 filesystem with a label.
func makeStick(t *testing.T, path, label string) {
	t.Helper()
	raw := path + ".raw"
	for _, c := range [][]string{
		{"truncate", "-s", "256M", raw},
		{"sgdisk", "-n", "1:2048:0", "-t", "1:8300", raw},
		{"mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "-E", "offset=1048576", raw, "250M"},
		{"qemu-img", "convert", "-O", "qcow2", raw, path},
	} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", c, err, out)
		}
	}
	if err := os.Remove(raw); err != nil {
		t.Fatal(err)
	}
}

// TestBadInput has something wrong before the provisioning: the unit says what, on its console and at the server where that
// hears of it, and writes nothing.
func TestBadInput(t *testing.T) {
	t.Parallel()
	unlinked := func(name string) func(*testing.T, *lab.Product) {
		return func(t *testing.T, p *lab.Product) {
			if err := os.Remove(p.Path(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	replaced := func(name, text string) func(*testing.T, *lab.Product) {
		return func(t *testing.T, p *lab.Product) {
			if err := p.Replace(name, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	changed := func(change func(*manifest.Manifest)) func(*testing.T, *lab.Product) {
		return func(t *testing.T, p *lab.Product) {
			for _, name := range []string{lab.ManifestFile, lab.ManifestFile + ".minisig"} {
				if err := os.Remove(p.Path(name)); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Manifest([]string{imageOf(p)}, change); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name    string
		code    string
		product func(*testing.T, *lab.Product)
		unit    func(*lab.Config)
	}{
		{"not JSON", "G112", replaced(lab.ManifestFile, "{no"), nil},
		{"not signed", "G113", unlinked(lab.ManifestFile + ".minisig"), nil},
		{"wrong hash", "G142", changed(func(m *manifest.Manifest) { m.Files[0].Sha256 = strings.Repeat("0", 64) }), nil},
		{"half an image", "G143", func(t *testing.T, p *lab.Product) {
			b, err := os.ReadFile(p.Path(imageOf(p)))
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Replace(imageOf(p), b[:len(b)/2]); err != nil {
				t.Fatal(err)
			}
		}, nil},
		{"other hardware", "G122", changed(func(m *manifest.Manifest) { m.ValidationData[0].RamMegs = 99999 }), nil},
		{"small disk", "G132", nil, func(c *lab.Config) { c.Disks[1].Size = 1 << 30 }},
		{"two main disks", "G133", nil, func(c *lab.Config) {
			c.Disks = append(c.Disks, lab.Disk{Name: "other", Bus: lab.VirtIO, Size: lab.MainSize})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := needLife(t)
			n, p := network(t), product(t, l.tiny)
			if c.product != nil {
				c.product(t, p)
			}
			l.serve(t, n, p)
			cfg := config(layout.UEFI, lab.VirtIO)
			if c.unit != nil {
				c.unit(&cfg)
			}
			u := newUnit(t, n, cfg)
			start(t, u)
			e := expect(t, u, bootPatience+jobPatience, lab.Msg("hold"))
			if e.Text("code") != c.code {
				t.Errorf("the unit holds with %s, want %s", e.Text("code"), c.code)
			}
			shown(t, u, 0, c.code) // the serial line may be slower than the event
		})
	}
}

// TestManifestGoesAway removes the manifest after the unit was told of it: a server without one offers no provisioning.
func TestManifestGoesAway(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	n, p := network(t), product(t, l.tiny)
	l.serve(t, n, p)
	u := newUnit(t, n, config(layout.UEFI, lab.VirtIO))
	start(t, u)
	expect(t, u, bootPatience, lab.Msg("init"))
	if err := os.Remove(p.Path(lab.ManifestFile)); err != nil {
		t.Fatal(err)
	}
	if e := expect(t, u, jobPatience, lab.Msg("hold")); e.Text("code") != "G111" {
		t.Errorf("the unit holds with %s, want G111", e.Text("code"))
	}
	shown(t, u, 0, "G111")
}

// TestServerGoesAway kills the server in the middle of a download and starts it again: the unit goes on.
func TestServerGoesAway(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	n, p := network(t), product(t, l.tiny)
	s := l.serve(t, n, p)
	u := newUnit(t, n, config(layout.UEFI, lab.VirtIO))
	start(t, u)
	expect(t, u, bootPatience+jobPatience, lab.All(lab.Msg("step"), lab.Field("step", "write-files")))
	s.Kill()
	expect(t, u, jobPatience, lab.Any(lab.Msg("download interrupted, trying again"), lab.Msg("hold")))
	l.serve(t, n, p)
	e := expect(t, u, 2*jobPatience, lab.Msg("tiny system up"))
	whole(t, e, "2")
}

// imageOf returns the name of an image in the files of p.
func imageOf(p *lab.Product) string {
	list, _ := filepath.Glob(p.Path("*.upd"))
	return filepath.Base(list[len(list)-1])
}
