package unitcmd

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gprovision/hw/host"
	"gprovision/hw/watchdog"
	"gprovision/model/layout"
	"gprovision/model/record"
	"gprovision/site"
	"gprovision/unit/state"
)

// fake is a running system in a temporary directory whose recovery volume is a directory too.
type fake struct {
	*Context
	root     string
	out, err bytes.Buffer
	ops      []string // mounts in order
	mounted  bool
	readOnly bool
	uid      int
	now      time.Time
	// stopped are the watchdogs that were to be stopped, watchdog is the answer.
	stopped  []string
	watchdog error
	started  int // how often the display was told that the system runs
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{root: t.TempDir(), mounted: true, readOnly: true, now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	dir := filepath.Join(f.root, "mnt/RECOVERY")
	f.Context = &Context{Context: t.Context(), Stdin: strings.NewReader(""), Stdout: &f.out, Stderr: &f.err, Site: site.Stock(), Root: f.root, System: System{
		UID: func() int { return f.uid },
		Now: func() time.Time { return f.now },
		Mounts: func() ([]host.MountInfo, error) {
			if !f.mounted {
				return nil, nil
			}
			return []host.MountInfo{{Target: "/"}, {Target: dir, Source: "/dev/vdb2", ReadOnly: f.readOnly}}, nil
		},
		Mount: func(source, target, _ string, o host.MountOptions) error {
			f.ops = append(f.ops, "mount "+source)
			f.mounted, f.readOnly = true, o.ReadOnly
			return nil
		},
		Remount: func(target string, o host.MountOptions) error {
			if target != dir || !o.NoExec || !o.NoDev || !o.NoSUID {
				t.Errorf("remount of %s with %+v", target, o)
			}
			f.ops = append(f.ops, map[bool]string{true: "ro", false: "rw"}[o.ReadOnly])
			f.readOnly = o.ReadOnly
			return nil
		},
		Run: func(_ context.Context, path string, args ...string) ([]byte, int, error) {
			f.ops = append(f.ops, path+" "+strings.Join(args, " "))
			return nil, 0, nil
		},
		StopWatchdog: func(device string) error { f.stopped = append(f.stopped, device); return f.watchdog },
		Started:      func(context.Context) error { f.started++; return nil },
	}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f.put(t, "etc/provisioning/serial", "SN-0001")
	f.put(t, "etc/provisioning/platform_facts.json", `{"DevCodeName":"VIRT"}`)
	f.put(t, "etc/fstab", "# x\nPARTUUID=1234 / ext4 defaults 0 1\nPARTUUID=abcd /mnt/RECOVERY ext4 ro 0 0\n")
	m, _ := state.Mark{Release: "WIDGET.LNX.SHINY.2026-11-22.0001", Request: "0123456789abcdef", Time: f.now}.Marshal()
	f.put(t, "boot.normal", string(m))
	b, _ := state.Boot{ID: "boot-1", Job: "boot", Reason: "the main system is complete", Attempts: 1, Milliseconds: 2300, Build: 7,
		Defects:  []string{"G225: the array of the main system lacks a disk"},
		Watchdog: state.Watchdog{Device: "/dev/watchdog0", Identity: "i6300ESB timer", Running: true, Seconds: 300, Expired: true}}.Marshal()
	f.put(t, state.BootFile, string(b))
	f.put(t, "sys/class/watchdog/watchdog0/state", "active\n")
	f.fill(t, state.Open(dir))
	return f
}

func (f *fake) fill(t *testing.T, v *state.Volume) {
	t.Helper()
	u := state.Unit{Serial: "SN-0001", Platform: "VIRT", Firmware: layout.UEFI, Created: f.now,
		Recovery: state.Disk{Size: 1 << 30, Table: layout.Table{}}, Main: []state.Disk{{Size: 8 << 30}}}
	err := errors.Join(v.WriteUnit(u), v.WriteKey(state.NewKey()), v.WriteCounts(state.Counts{BootAttempts: 3, Repairs: 1, Restores: 1}),
		os.MkdirAll(v.Path(state.ImageDir), 0o755), os.WriteFile(v.Path(state.ImageDir, "WIDGET.LNX.SHINY.2026-11-22.0001.upd"), nil, 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fake) put(t *testing.T, name, content string) {
	t.Helper()
	p := filepath.Join(f.root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func (f *fake) volume() *state.Volume { return state.Open(filepath.Join(f.root, "mnt/RECOVERY")) }

// run runs one command line and returns its exit status; output and mounts are those of this run.
func (f *fake) run(args ...string) int {
	f.out.Reset()
	f.err.Reset()
	f.ops = nil
	return Run(f.Context, args, "test")
}

func TestStatus(t *testing.T) {
	f := newFake(t)
	if code := f.run("status"); code != 0 {
		t.Fatalf("exit status %d: %s", code, f.err.String())
	}
	for _, want := range []string{"SN-0001", "VIRT uefi", "WIDGET.LNX.SHINY.2026-11-22.0001", "2026-11-22 12:00:00 UTC", "/dev/vdb2, read-only", "attempt 1", "3 boots since", "none",
		"2.3s after the start", "/dev/watchdog0 (i6300ESB timer), running; it ended the boot before", "normal unknown", "G225: the array"} {
		if !strings.Contains(f.out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, f.out.String())
		}
	}
	if f.run("status", "--json") != 0 {
		t.Fatal(f.err.String())
	}
	var st Status
	if err := json.Unmarshal(f.out.Bytes(), &st); err != nil || st.Serial != "SN-0001" || st.Mark.Request != "0123456789abcdef" || st.Recovery.Counts.BootAttempts != 3 || len(st.Recovery.Images) != 1 || st.Recovery.Request != nil {
		t.Errorf("%v: %s", err, f.out.String())
	}
	if len(f.ops) > 0 {
		t.Errorf("status changed mounts: %q", f.ops)
	}

	if strings.Contains(f.out.String(), "pending") {
		t.Errorf("nothing is to do, and it says: %s", f.out.String())
	}
	if err := f.volume().WritePending(state.Pending{RecoveryArtifact: true}); err != nil {
		t.Fatal(err)
	}
	if f.run("status") != 0 || !strings.Contains(f.out.String(), "pending:") {
		t.Errorf("got %s", f.out.String())
	}

	if err := f.volume().WriteCounts(state.Counts{RestoreFailures: 2, Restores: 3}); err != nil {
		t.Fatal(err)
	}
	if f.run("status") != 0 || !strings.Contains(f.out.String(), "2 restores that failed, 3 that succeeded") {
		t.Errorf("got %s", f.out.String())
	}

	// A damaged file is told and hides nothing else.
	f.put(t, "mnt/RECOVERY/state/count.json", "nonsense")
	if f.run("status") != 0 || !strings.Contains(f.out.String(), "count.json") || !strings.Contains(f.out.String(), "VIRT uefi") {
		t.Errorf("got %s", f.out.String())
	}
	f.mounted = false
	if f.run("status") != 0 || !strings.Contains(f.out.String(), "not mounted") || !strings.Contains(f.out.String(), "SN-0001") {
		t.Errorf("got %s", f.out.String())
	}
	os.Remove(filepath.Join(f.root, "boot.normal"))
	if code := f.run("status"); code != 1 || !strings.Contains(f.err.String(), "no mark") {
		t.Errorf("without a mark: %d, %s", code, f.err.String())
	}
}

func TestBootOK(t *testing.T) {
	f := newFake(t)
	if code := f.run("boot-ok"); code != 0 {
		t.Fatalf("exit status %d: %s", code, f.err.String())
	}
	c, err := f.volume().ReadCounts()
	if err != nil || c.BootAttempts != 0 || c.Repairs != 0 || c.Restores != 1 || !c.LastGood.Equal(f.now) {
		t.Errorf("counts: %+v, %v", c, err)
	}
	if b, err := f.volume().ReadHistory(); err != nil || !bytes.Contains(b, []byte("WIDGET.LNX.SHINY.2026-11-22.0001")) {
		t.Errorf("history: %s, %v", b, err)
	}
	if got := strings.Join(f.ops, ","); got != "rw,ro" || f.started != 1 {
		t.Errorf("mounts: %s, display told %d times", got, f.started)
	}
	// Not mounted: it mounts what fstab names, if that is there.
	f.mounted = false
	if code := f.run("boot-ok"); code != 1 || !strings.Contains(f.err.String(), "missing") || !strings.Contains(f.err.String(), "hint:") {
		t.Errorf("without a device: %d, %s", code, f.err.String())
	}
	f.put(t, "dev/disk/by-partuuid/abcd", "")
	if code := f.run("boot-ok"); code != 0 || strings.Join(f.ops, ",") != "mount /dev/disk/by-partuuid/abcd,rw,ro" {
		t.Errorf("exit status %d, mounts %q, %s", code, f.ops, f.err.String())
	}
	// Damaged counts are made anew, those of a newer version are not touched.
	f.put(t, "mnt/RECOVERY/state/count.json", "nonsense")
	if f.run("boot-ok") != 0 {
		t.Error(f.err.String())
	}
	f.put(t, "mnt/RECOVERY/state/count.json", `{"version":99}`)
	if code := f.run("boot-ok"); code != 1 || strings.Join(f.ops, ",") != "rw,ro" {
		t.Errorf("newer counts: exit status %d, mounts %q", code, f.ops)
	}
	if b, _ := os.ReadFile(f.volume().Path(state.CountsFile)); string(b) != `{"version":99}` {
		t.Errorf("newer counts were rewritten: %s", b)
	}
	f.uid = 1000
	if code := f.run("boot-ok"); code != 1 || !strings.Contains(f.err.String(), "sudo") {
		t.Errorf("without rights: %d, %s", code, f.err.String())
	}
}

// server takes events as the factory server does.
type server struct {
	*httptest.Server
	mu     sync.Mutex
	events []record.Event
}

// TestBootOKWatchdog: a watchdog that init left running is stopped, unless somebody has it.
func TestBootOKWatchdog(t *testing.T) {
	for _, tc := range []struct {
		err            error
		stdout, stderr string
	}{{nil, "RuntimeWatchdogSec", ""}, {watchdog.ErrBusy, "", ""}, {watchdog.ErrNoStop, "", "may end this boot"}} {
		f := newFake(t)
		f.watchdog = tc.err
		if code := f.run("boot-ok", "--wait", "0"); code != 0 || strings.Join(f.stopped, " ") != "/dev/watchdog0" {
			t.Errorf("%v: exit status %d, stopped %q", tc.err, code, f.stopped)
		}
		if out, text := f.out.String(), f.err.String(); !strings.Contains(out, tc.stdout) || !strings.Contains(text, tc.stderr) || strings.Contains(out+text, "atchdog") != (tc.stdout+tc.stderr != "") {
			t.Errorf("%v: %s%s", tc.err, out, text)
		}
	}
}

func newServer(t *testing.T) *server {
	s := &server{}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/time":
			json.NewEncoder(w).Encode(record.TimeReply{Time: time.Now()})
		case "/v1/events":
			var b record.Batch
			if err := json.NewDecoder(r.Body).Decode(&b); err != nil || r.Header.Get("Gprov-Signature") == "" {
				t.Errorf("request: %v, signature %q", err, r.Header.Get("Gprov-Signature"))
			}
			s.mu.Lock()
			s.events = append(s.events, b.Events...)
			s.mu.Unlock()
			json.NewEncoder(w).Encode(record.BatchReply{})
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func (s *server) states() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, e := range s.events {
		if st, ok := record.StateOf(e); ok {
			out = append(out, e.Boot+" "+st.String())
		}
	}
	return strings.Join(out, ", ")
}

func TestBootOKTellsTheServer(t *testing.T) {
	s := newServer(t)
	f := newFake(t)
	f.now = time.Now()
	v := f.volume()
	u, err := v.ReadUnit()
	if err != nil {
		t.Fatal(err)
	}
	u.Server = s.URL
	if err := v.WriteUnit(u); err != nil {
		t.Fatal(err)
	}

	// Init handed over no certificates: the event waits on the volume, and nothing fails.
	if code := f.run("boot-ok", "--wait", "1s"); code != 0 || !strings.Contains(f.err.String(), "certificates") || s.states() != "" {
		t.Fatalf("exit status %d, server has %q: %s", code, s.states(), f.err.String())
	}
	queue, _ := filepath.Glob(v.Path(state.QueueDir, "*.jsonl"))
	if len(queue) == 0 {
		t.Error("nothing waits on the volume")
	}
	// At the next boot both are sent, the older one first.
	b, _ := state.Boot{ID: "boot-2", Job: "boot", Attempts: 1, ServerCA: s.ca()}.Marshal()
	f.put(t, state.BootFile, string(b))
	if code := f.run("boot-ok"); code != 0 || f.err.Len() > 0 {
		t.Fatalf("exit status %d: %s", code, f.err.String())
	}
	if got := s.states(); got != "boot-1 running succeeded, boot-2 running succeeded" {
		t.Errorf("server has %q", got)
	}
	if got := strings.Join(f.ops, ","); got != "rw,ro,rw,ro" {
		t.Errorf("mounts: %s", got)
	}
	if queue, _ = filepath.Glob(v.Path(state.QueueDir, "*.jsonl")); len(queue) != 0 {
		t.Errorf("still waiting: %q", queue)
	}
	// The server is gone.
	s.Close()
	if code := f.run("boot-ok", "--wait", "100ms"); code != 0 || !strings.Contains(f.err.String(), "does not answer") {
		t.Errorf("exit status %d: %s", code, f.err.String())
	}
}

func TestRestore(t *testing.T) {
	f := newFake(t)
	for name, c := range map[string]struct {
		args     []string
		terminal bool
		answer   string
		code     int
		image    string // of the request, "" for none
		ops      string
		say      string
	}{
		"nobody to ask": {args: []string{"restore"}, code: 2, say: "--yes"},
		"no":            {args: []string{"restore"}, terminal: true, answer: "no\n", code: 1, say: "not confirmed"},
		"end of input":  {args: []string{"restore"}, terminal: true, code: 1, say: "not confirmed"},
		"yes":           {args: []string{"restore"}, terminal: true, answer: "yes\n", image: "latest", ops: "rw,ro"},
		"original":      {args: []string{"restore", "--image", "original", "-y"}, image: "original", ops: "rw,ro"},
		"named":         {args: []string{"restore", "--image", "WIDGET.LNX.SHINY.2026-11-22.0001.upd", "--yes"}, image: "WIDGET.LNX.SHINY.2026-11-22.0001.upd", ops: "rw,ro"},
		"not there":     {args: []string{"restore", "--image", "WIDGET.LNX.SHINY.2026-11-22.0009.upd", "--yes"}, code: 1, ops: "rw,ro", say: "G201"},
		"a path":        {args: []string{"restore", "--image", "../x.upd", "--yes"}, code: 2, say: "image"},
		"reboot":        {args: []string{"restore", "--yes", "--reboot"}, image: "latest", ops: "rw,ro,systemctl reboot"},
	} {
		f.Terminal, f.Stdin = c.terminal, strings.NewReader(c.answer)
		f.volume().DeleteRequest()
		code := f.run(c.args...)
		if code != c.code || !strings.Contains(f.err.String(), c.say) || strings.Join(f.ops, ",") != c.ops {
			t.Errorf("%s: exit status %d, mounts %q: %s", name, code, f.ops, f.err.String())
		}
		r, err := f.volume().ReadRequest()
		if c.image == "" && !errors.Is(err, fs.ErrNotExist) || c.image != "" && (err != nil || r.Image != c.image || r.Kind != state.KindRestore) {
			t.Errorf("%s: request %+v, %v", name, r, err)
		}
	}
	f.run("restore", "--yes")
	f.run("status")
	if !strings.Contains(f.out.String(), "restore latest, by gprov-unit restore") {
		t.Errorf("got %s", f.out.String())
	}
	if f.run("restore", "--cancel") != 0 {
		t.Error(f.err.String())
	}
	if _, err := f.volume().ReadRequest(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("cancelled: %v", err)
	}
	f.uid = 1000
	if code := f.run("restore", "--yes"); code != 1 || len(f.ops) > 0 {
		t.Errorf("without rights: %d, %q", code, f.ops)
	}
}

func TestCommandLine(t *testing.T) {
	f := newFake(t)
	for line, want := range map[string]int{"--help": 0, "--version": 0, "": 0, "nonsense": 2, "status --nonsense": 2, "systemd-unit": 0, "restore --help": 0} {
		if code := f.run(strings.Fields(line)...); code != want {
			t.Errorf("%q: exit status %d, want %d: %s", line, code, want, f.err.String())
		}
	}
	f.run("systemd-unit")
	if !strings.Contains(f.out.String(), "ExecStart=/usr/sbin/gprov-unit boot-ok") {
		t.Errorf("got %s", f.out.String())
	}
	f.run("--version")
	if f.out.String() != "gprov-unit test\n" {
		t.Errorf("got %q", f.out.String())
	}
}

// A real ext4, mounted read-only, with the real mount calls.
func TestOnARealVolume(t *testing.T) {
	skip := func(why string) {
		t.Helper()
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	if os.Geteuid() != 0 {
		skip("only root may mount")
	}
	for _, p := range []string{"mke2fs", "mount", "umount"} {
		if _, err := exec.LookPath(p); err != nil {
			skip(p + " is not there")
		}
	}
	f := newFake(t)
	f.System = Real()
	image, dir := filepath.Join(t.TempDir(), "recovery.img"), filepath.Join(f.root, "mnt/RECOVERY")
	do := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v: %s", name, args, err, out)
		}
	}
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 16<<20)); err != nil {
		t.Fatal(err)
	}
	do("mke2fs", "-q", "-t", "ext4", "-F", "-L", "RECOVERY", image)
	do("mount", "-o", "loop", image, dir)
	t.Cleanup(func() { exec.Command("umount", dir).Run() })
	f.fill(t, f.volume())
	do("mount", "-o", "remount,ro", dir)

	if code := f.run("boot-ok"); code != 0 {
		t.Fatalf("exit status %d: %s", code, f.err.String())
	}
	if c, err := f.volume().ReadCounts(); err != nil || c.BootAttempts != 0 {
		t.Errorf("counts: %+v, %v", c, err)
	}
	if code := f.run("restore", "--yes"); code != 0 {
		t.Errorf("exit status %d: %s", code, f.err.String())
	}
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err == nil {
		t.Error("the volume is still writable")
	}
	if code := f.run("status"); code != 0 || !strings.Contains(f.out.String(), "read-only") || !strings.Contains(f.out.String(), "restore latest") {
		t.Errorf("exit status %d: %s%s", code, f.out.String(), f.err.String())
	}
}

// The program for units must stay small: nothing of the server, the builders or the lab, not even through others.
func TestImports(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{"gprovision/cmd/gprov-unit": ""}
	todo := []string{"gprovision/cmd/gprov-unit"}
	for len(todo) > 0 {
		pkg := todo[0]
		todo = todo[1:]
		dir := filepath.Join(root, filepath.FromSlash(strings.TrimPrefix(pkg, "gprovision/")))
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("package %s has no files: %v", pkg, err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range f.Imports {
				p, err := strconv.Unquote(i.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(p, "sqlite") {
					t.Errorf("%s imports %s", pkg, p)
				}
				if _, ok := seen[p]; ok || !strings.HasPrefix(p, "gprovision/") {
					continue
				}
				seen[p] = pkg
				todo = append(todo, p)
			}
		}
	}
	for p, by := range seen {
		wing := strings.Split(strings.TrimPrefix(p, "gprovision/"), "/")[0]
		if wing == "factory" || wing == "lab" || wing == "forge" || p == "gprovision/cli" {
			t.Errorf("%s imports %s", by, p)
		}
	}
	if len(seen) < 8 {
		t.Errorf("only %d packages were seen", len(seen))
	}
}
