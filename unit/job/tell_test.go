package job

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"context"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/record"
	"gprovision/model/step"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/medium"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/report"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// TestKeepLog: the log of a job is on the recovery volume from the start of the boot on, with what the server does not have; and when the
// log cannot be kept nothing holds the volume, which could not be unmounted else.
func TestKeepLog(t *testing.T) {
	b := newBench(t)
	v := state.Open(t.TempDir())
	if err := os.Mkdir(v.Path(state.LogDir), 0o700); err != nil {
		t.Fatal(err)
	}
	b.Machine.Log.Info("before the volume was there")
	b.Began(record.JobRestore)
	if err := b.KeepLog(v, "restore"); err != nil {
		t.Fatal(err)
	}
	logDir := v.Path(state.LogDir)
	open := filesBelow(t, logDir)
	if err := b.KeepLog(v, "restore"); !errors.Is(err, journal.ErrAttached) {
		t.Errorf("the log is kept twice: %v", err)
	}
	if now := filesBelow(t, logDir); len(now) != len(open) {
		t.Errorf("open were %q, and now are %q", open, now)
	}
	b.Machine.Log.Info("after that")
	if err := errors.Join(b.Journal.Detach(t.Context(), "file"), b.Queue.Release()); err != nil {
		t.Error(err)
	}
	if now := filesBelow(t, v.Path()); len(now) > 0 {
		t.Errorf("afterwards %q are open", now)
	}
	logs, err := filepath.Glob(filepath.Join(v.Path(state.LogDir), "restore*.log"))
	kept := ""
	for _, l := range logs {
		text, rerr := os.ReadFile(l)
		kept, err = kept+string(text), errors.Join(err, rerr)
	}
	for _, line := range []string{"before the volume was there", "after that"} {
		if err != nil || strings.Count(kept, line) != 1 {
			t.Errorf("kept in %q is %q, %v", logs, kept, err)
		}
	}
	next := report.NewQueue("b2")
	if err := next.Persist(v.Path(state.QueueDir)); err != nil {
		t.Fatal(err)
	}
	if heard := machinetest.Heard(t, next); len(heard) != 1 || heard[0].Job != record.JobRestore {
		t.Errorf("the next boot has %+v for the server", heard)
	}
}

// filesBelow returns what this process has open below a directory.
func filesBelow(t *testing.T, dir string) (out []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range all {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, dir+"/") {
			out = append(out, to)
		}
	}
	return out
}

// listener is a server that takes all events.
type listener struct {
	*report.Client
	mu  sync.Mutex
	got []record.Event
}

func listen(t *testing.T) *listener {
	t.Helper()
	l := &listener{}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/time" {
			if err := json.NewEncoder(w).Encode(record.TimeReply{Time: time.Now()}); err != nil {
				t.Error(err)
			}
			return
		}
		var batch record.Batch
		err := json.NewDecoder(r.Body).Decode(&batch)
		if err != nil || r.URL.Path != "/v1/events" {
			t.Errorf("the server gets %s: %v", r.URL, err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.got = append(l.got, batch.Events...)
		if err := json.NewEncoder(w).Encode(record.BatchReply{Stored: len(batch.Events)}); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	var err error
	l.Client, err = report.New(report.Config{Endpoint: server.URL, CA: pool, Unit: "S1", Key: state.NewKey(), Boot: "b1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// TestOnce: what happens is once in the log on the recovery volume and once at the server, of whatever kind it is, whether it was before
// there was a server or afterwards, and however often a job begins to report. A fault is once on the panels. Its text says a thing once.
func TestOnce(t *testing.T) {
	b := newBench(t)
	screen, l := &script.Panel{}, listen(t)
	b.Machine.Panel.Add("script", script.Reader{Panel: screen})
	v := state.Open(t.TempDir())
	if err := b.KeepLog(v, "restore"); err != nil {
		t.Fatal(err)
	}
	const cause = "the third block is bad"
	b.Machine.Log.Info("before there was a server")
	b.Began(record.JobRestore)
	err := b.Run(t.Context(), record.JobRestore, "restore", []step.Step{
		{Name: "check", Say: "Checking", Run: func(ctx context.Context) error {
			step.Report(ctx, 1, 2)
			b.Machine.Log.Info("hardware", journal.Kind(record.KindQA), "name", "memory", "ok", true, journal.ForPerson())
			return nil
		}},
		{Name: "connect", Say: "Connecting", Run: func(context.Context) error {
			for range 2 {
				b.ToServer(l.Client)
			}
			b.Machine.Log.Info("fact", journal.Kind(record.KindFact), "name", record.FactDefects, "value", []string{"G211"})
			return nil
		}},
		{Name: "write", Say: "Writing", Run: func(ctx context.Context) error {
			step.Report(ctx, 1, 2)
			return fault.Newf(fault.ImageCorrupt, cause)
		}},
	})
	b.Ended(record.JobRestore, err)
	b.Machine.Panel.Fail(err) // as process 1 does for a unit that holds
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := errors.Join(b.Queue.Flush(ctx), b.Queue.Close(), b.Journal.Detach(ctx, "file"), b.Machine.Panel.Flush(ctx)); err != nil {
		t.Fatal(err)
	}

	var told, kept []string // what the server is to have: a line for each record
	for _, r := range b.Journal.Records() {
		told = append(told, event(r).Message)
		if !r.Passing {
			kept = append(kept, r.Message)
		}
	}
	want := []string{"before there was a server", "restore started", "restore: check", "restore: check 50%", "hardware", "step done",
		"restore: connect", "fact", "step done", "restore: write", "restore: write 50%", "step failed", "restore failed"}
	if !slices.Equal(told, want) {
		t.Errorf("logged is %q", told)
	}
	var heard []string
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.got {
		heard = append(heard, e.Message)
		if (e.Kind == record.KindLog) != (e.Level != "") {
			t.Errorf("%+v", e)
		}
	}
	slices.Sort(heard)
	slices.Sort(told)
	if !slices.Equal(heard, told) {
		t.Errorf("the server gets %q, logged is %q", heard, told)
	}
	logs, err := filepath.Glob(v.Path(state.LogDir, "*.log"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("logs are %q, %v", logs, err)
	}
	text, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		var r struct{ Msg string }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Error(err)
		}
		lines = append(lines, r.Msg)
	}
	if !slices.Equal(lines, kept) {
		t.Errorf("the volume has %q, logged is %q", lines, kept)
	}
	for _, once := range []string{cause, fault.ImageCorrupt.Text, fault.ImageCorrupt.Hint} {
		if n := strings.Count(string(text), once); n != 1 {
			t.Errorf("the log says %d times %q:\n%s", n, once, text)
		}
	}
	var problems []*panel.Problem
	for _, view := range screen.Views() {
		if view.Problem != nil {
			problems = append(problems, view.Problem)
		}
	}
	if len(problems) != 1 || problems[0].Detail != cause {
		t.Errorf("the panels have %d problems: %+v", len(problems), problems)
	}
}

// plugIn plugs in a medium with an image.
func (b *bench) plugIn(t *testing.T, content []byte) (medium.Medium, string) {
	t.Helper()
	const fsUUID = "0000-00B1"
	path := b.AddDisk(block.Disk{Name: "sdb", Bus: block.USB, Size: layout.GiB})
	p := layout.Partition{Number: 1, Start: layout.MiB, Size: 100 * layout.MiB, Type: layout.TypeData, UUID: machine.NewIDs().UUID(),
		Role: layout.ESP, FSUUID: fsUUID, FSLabel: "PHOTOS"}
	table := layout.Table{Kind: layout.GPT, UUID: machine.NewIDs().UUID(), Partitions: []layout.Partition{p}}
	err := b.Machine.WriteTable(path, table)
	if err == nil {
		err = b.Machine.Format(t.Context(), path, table, []layout.Role{layout.ESP})
	}
	const name = imagetest.Prefix + "2026-11-23.0001.upd"
	if err == nil {
		err = os.WriteFile(filepath.Join(b.Rig.Volume(fsUUID), layout.EmergencyPrefix+name), content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	b.Survey = &survey.Survey{Eyes: machine.EyesOf(b.Machine), Names: b.Machine.Site.Names}
	return medium.Medium{Path: block.PartitionPath(path, 1), Type: "vfat", UUID: fsUUID}, layout.EmergencyPrefix + name
}

// TestMedium: an image on a medium is proven by reading it whole, from a mount that cannot be written to and is gone afterwards; one that
// is not as it was made does not pass.
func TestMedium(t *testing.T) {
	good := imagetest.XZ(t, imagetest.System(t, imagetest.Prefix+"2026-11-23.0001"))
	bad := slices.Clone(good)
	bad[len(bad)/2] ^= 1
	for _, content := range [][]byte{good, bad} {
		b := newBench(t)
		on, file := b.plugIn(t, content)
		b.Start(nil)
		dir, done, err := b.MountMedium(on)
		if err != nil {
			t.Fatal(err)
		}
		scanned, refused, err := medium.Scan(dir, on.UUID, imagetest.Prefix, b.Machine.Policy, nil)
		if err != nil || len(refused) > 0 || len(scanned) != 1 || scanned[0].Base != file {
			t.Fatalf("on it are %+v, %+v, %v", scanned, refused, err)
		}
		if err := b.ProveOnMedium(t.Context(), scanned[0].Image(dir)); (err == nil) != (&content[0] == &good[0]) {
			t.Errorf("the image is proven: %v", err)
		}
		done()
		if on, err := b.Machine.Mounted(dir); on || err != nil {
			t.Errorf("it stays mounted: %v", err)
		}
		if calls := b.Calls(); !slices.Contains(calls, "mount /dev/sdb1 read-only") || len(b.Written()) > 0 {
			t.Errorf("done was %q, and written to %q", calls, b.Written())
		}
		if b.log.Len() > 0 {
			t.Errorf("the log says:\n%s", &b.log)
		}
	}
}

// TestMediumTroubles: a medium that cannot be mounted is an error, one that cannot be unmounted is told of.
func TestMediumTroubles(t *testing.T) {
	b := newBench(t)
	on, _ := b.plugIn(t, nil)
	none := on
	none.Path += "9"
	if _, _, err := b.MountMedium(none); err == nil {
		t.Error("a medium that is not there is mounted")
	}
	_, done, err := b.MountMedium(on)
	if err != nil {
		t.Fatal(err)
	}
	b.Fail(func(_ int, call string) error {
		if strings.HasPrefix(call, "unmount") {
			return errors.New("somebody is on it")
		}
		return nil
	})
	done()
	if !strings.Contains(b.log.String(), "somebody is on it") {
		t.Errorf("the log says:\n%s", &b.log)
	}
}

// TestRefuseMedium: a person reads why the medium is not used, as long as that takes, and support finds it in the log.
func TestRefuseMedium(t *testing.T) {
	b := newBench(t)
	p := &script.Panel{}
	b.Machine.Panel.Add("script", script.Reader{Panel: p})
	b.RefuseMedium(t.Context(), errors.New("its signature is bad"))
	last := p.Last()
	if last.Problem == nil || last.Problem.Code != fault.MediumUnusable.Code {
		t.Errorf("the person sees %+v", last)
	}
	if !strings.Contains(b.log.String(), fault.MediumUnusable.Code) || !strings.Contains(b.log.String(), "its signature is bad") {
		t.Errorf("the log says:\n%s", &b.log)
	}
}
