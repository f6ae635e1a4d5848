package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/slogtest"
	"testing/synctest"
	"time"

	"gprovision/model/record"
	"gprovision/model/secret"
)

// keep is a sink that keeps its records. A test can block or break it.
type keep struct {
	mu     sync.Mutex
	got    []Record
	gate   chan struct{} // if not nil, each Write takes one
	err    error
	closed bool
}

func (k *keep) Write(r Record) error {
	if k.gate != nil {
		<-k.gate
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return k.err
	}
	k.got = append(k.got, r)
	return nil
}

func (k *keep) Close() error { k.closed = true; return nil }

func (k *keep) messages() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var m []string
	for _, r := range k.got {
		m = append(m, r.Message)
	}
	return m
}

func (k *keep) set(err error) { k.mu.Lock(); k.err = err; k.mu.Unlock() }

func TestReplayThenLive(t *testing.T) {
	j := New(Options{})
	log := j.Logger()
	log.Info("one")
	log.Debug("two", Job("restore"), Step("wipe"), "n", 3, Passing(), Kind(record.KindState))
	k := &keep{}
	if err := j.Attach("k", k); err != nil {
		t.Fatal(err)
	}
	if err := j.Attach("k", k); !errors.Is(err, ErrAttached) {
		t.Errorf("attached twice: %v", err)
	}
	log.Warn("three", ForPerson())
	if err := j.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := k.messages(); fmt.Sprint(got) != "[one two three]" {
		t.Errorf("got %q", got)
	}
	r := k.got[1]
	if v, _ := r.Attr("n"); r.Job != "restore" || r.Step != "wipe" || !r.Passing || r.Kind != record.KindState || r.Person || v != int64(3) {
		t.Errorf("got %+v", r)
	}
	if r := k.got[2]; !r.Person || r.Passing || r.Kind != "" {
		t.Error("the audience was lost")
	}
	for i := 0; i < 2; i++ {
		if err := j.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if !k.closed {
		t.Error("the sink was not closed")
	}
	log.Info("after the end")
	if err := j.Attach("late", &keep{}); !errors.Is(err, ErrClosed) {
		t.Errorf("attached to a closed journal: %v", err)
	}
}

func TestStuckSinkBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := New(Options{Records: 10})
		stuck, fine := &keep{gate: make(chan struct{})}, &keep{}
		j.Attach("stuck", stuck)
		j.Attach("fine", fine)
		for i := range 100 {
			j.Logger().Info(fmt.Sprint(i))
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := j.Flush(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "stuck") || strings.Contains(err.Error(), "fine") {
			t.Errorf("flush: %v", err)
		}
		if n := len(fine.messages()); n != 100 {
			t.Errorf("the other sink has %d of 100", n)
		}
		// The sink recovers. It gets the record that it hung on, then the count, then the newest records.
		close(stuck.gate)
		if err := j.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := stuck.messages()
		if got[0] != "0" || got[1] != "records dropped, this log was too slow" || got[len(got)-1] != "99" || len(got) != 22 {
			t.Errorf("got %q", got)
		}
		if n, _ := stuck.got[1].Attr("count"); n != uint64(79) || j.Dropped()["stuck"] != 79 || j.Dropped()["fine"] != 0 {
			t.Errorf("count %v, dropped %v", n, j.Dropped())
		}
		j.Close(t.Context())
	})
}

func TestStuckSinkIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := New(Options{})
		k := &keep{gate: make(chan struct{})}
		j.Attach("stuck", k)
		j.Logger().Info("x")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := j.Detach(ctx, "stuck"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("detach: %v", err)
		}
		if err := j.Detach(ctx, "stuck"); err != nil {
			t.Errorf("detach twice: %v", err)
		}
		close(k.gate)
	})
}

func TestMemoryIsBounded(t *testing.T) {
	for name, o := range map[string]Options{"records": {Records: 5}, "bytes": {Bytes: 5 * 170}} {
		j := New(o)
		for i := range 1000 {
			j.Logger().Info(fmt.Sprintf("%03d", i))
		}
		r := j.Records()
		if len(r) != 5 || r[0].Message != "995" || j.Dropped()["memory"] != 995 {
			t.Errorf("%s: %d records, %v", name, len(r), j.Dropped())
		}
		k := &keep{}
		j.Attach("late", k)
		j.Flush(t.Context())
		if n, _ := k.got[0].Attr("count"); n != uint64(995) || len(k.got) != 6 {
			t.Errorf("%s: the late sink was told %v", name, k.got[0])
		}
		j.Close(t.Context())
	}
}

func TestFailingSink(t *testing.T) {
	j := New(Options{})
	bad, good := &keep{err: errors.New("no space left on device")}, &keep{}
	j.Attach("bad", bad)
	j.Attach("good", good)
	for range 3 {
		j.Logger().Info("x")
		j.Flush(t.Context())
	}
	n := 0
	for _, r := range good.got {
		if r.Message == "log sink fails" {
			n++
			if s, _ := r.Attr("sink"); s != "bad" {
				t.Errorf("got %v", r)
			}
		}
	}
	if n != 1 {
		t.Errorf("told %d times, want once: %q", n, good.messages())
	}
	bad.set(nil)
	j.Logger().Info("y")
	j.Flush(t.Context())
	if got := bad.messages(); len(got) != 2 || got[1] != "y" {
		t.Errorf("got %q", got)
	}
	if c, _ := bad.got[0].Attr("count"); c != uint64(4) { // three, and the one about the failure
		t.Errorf("count %v", c)
	}
	j.Attach("panics", panics{})
	if err := j.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSecretsAreHidden(t *testing.T) {
	const text = "hunter2hunter2"
	s := secret.Secret(text)
	type hold struct {
		Name   string
		Open   secret.Secret
		closed secret.Secret
	}
	j := New(Options{})
	var out, port bytes.Buffer
	j.Attach("console", Console(&out, Filter{Level: slog.LevelDebug}))
	j.Attach("port", EventPort(&port))
	u, _ := url.Parse("https://admin:" + text + "@host/")
	j.Logger().With("s", s).WithGroup("g").Info("m", "p", &s, "hold", hold{"n", s, s}, "ptr", &hold{"n", s, s},
		"list", []secret.Secret{s}, "map", map[string]any{"k": s}, "err", fmt.Errorf("with %v", s), "url", u, "fn", func() {})
	if err := j.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{out.String(), port.String()} {
		if strings.Contains(s, text) || !strings.Contains(s, secret.Hidden) {
			t.Errorf("got %s", s)
		}
	}
}

func TestJSONLine(t *testing.T) {
	r := Record{Time: time.Date(2026, 11, 22, 10, 11, 12, 345678999, time.FixedZone("x", 3600)), Level: slog.LevelWarn, Message: "write \"image\"\n", Job: "restore", Step: "write-image",
		Person: true, Passing: true, Kind: record.KindState, Attrs: []Attr{{"bytes", int64(12)}, {"level", "spoof"}, {"took", 1500 * time.Millisecond}, {"bytes", int64(13)}, {"x", json.RawMessage(`[1,2]`)}, {"f", 0.5}}}
	b, err := json.Marshal(r)
	want := `{"time":"2026-11-22T09:11:12.345678Z","level":"warn","msg":"write \"image\"\n","job":"restore","step":"write-image","person":true,"attr.level":"spoof","took":1.5,"bytes":13,"x":[1,2],"f":0.5}`
	if err != nil || string(b) != want {
		t.Errorf("got  %s (%v)\nwant %s", b, err, want)
	}
	if got, want := r.Text(), `WARN  restore/write-image: write "image"\n level=spoof took=1.5s bytes=13 x=[1,2] f=0.5`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	s := Record{Message: "\x1b[2Jä%d\xff"}.Text()
	if strings.Contains(s, "\x1b") || strings.Contains(s, "\xff") || !strings.Contains(s, "ä%d") {
		t.Errorf("terminal escape went through: %q", s)
	}
}

// TestHandlerRules: the handler keeps the rules of log/slog. Ours has no groups within a line, so the test splits the
// keys at their dots.
func TestHandlerRules(t *testing.T) {
	var last *keep
	var j *Journal
	slogtest.Run(t, func(*testing.T) slog.Handler {
		j, last = New(Options{}), &keep{}
		j.Attach("k", last)
		return j.Handler()
	}, func(t *testing.T) map[string]any {
		j.Flush(t.Context())
		b, err := json.Marshal(last.got[len(last.got)-1])
		if err != nil {
			t.Fatal(err)
		}
		var flat map[string]any
		if err := json.Unmarshal(b, &flat); err != nil {
			t.Fatal(err)
		}
		out := map[string]any{}
		for k, v := range flat {
			parts := strings.Split(k, ".")
			m := out
			for _, p := range parts[:len(parts)-1] {
				if m[p] == nil {
					m[p] = map[string]any{}
				}
				m = m[p].(map[string]any)
			}
			m[parts[len(parts)-1]] = v
		}
		if strings.Contains(t.Name(), "zero-time") {
			delete(out, "time") // a record without a time gets the time of its arrival
		}
		return out
	})
}

func TestConsoleFilter(t *testing.T) {
	j := New(Options{})
	var all, person bytes.Buffer
	j.Attach("all", Console(&all, Filter{}))
	j.Attach("person", Console(&person, Filter{PersonOnly: true}))
	log := j.Logger()
	log.Debug("detail")
	log.Info("technical")
	log.Info("hello", ForPerson())
	log.Error("broken")
	j.Close(t.Context())
	if s := all.String(); strings.Contains(s, "detail") || strings.Count(s, "\n") != 3 {
		t.Errorf("all: %s", s)
	}
	if s := person.String(); strings.Contains(s, "technical") || !strings.Contains(s, "hello") || !strings.Contains(s, "broken") {
		t.Errorf("person: %s", s)
	}
}

// panics is a sink that panics.
type panics struct{}

func (panics) Write(Record) error { panic("x") }

// TestFollow: who follows has each record once, those of before in order first, and the later ones before the call that logs returns. What
// is passing is in no file and on no port.
func TestFollow(t *testing.T) {
	j := New(Options{})
	var port bytes.Buffer
	var got []string
	j.Attach("port", EventPort(&port))
	j.Logger().Info("before")
	j.Follow(func(r Record) { got = append(got, r.Message) })
	j.Logger().Info("passing", Passing())
	j.Logger().Info("after")
	if fmt.Sprint(got) != "[before passing after]" {
		t.Errorf("got %q", got)
	}
	j.Close(t.Context())
	if out := port.String(); strings.Contains(out, "passing") || !strings.Contains(out, "before") || !strings.Contains(out, "after") {
		t.Errorf("port %s", out)
	}
	j.Logger().Info("closed")
	if len(got) != 3 {
		t.Errorf("a closed journal goes on: %q", got)
	}
}

func TestFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	open := func(prefix string, limit int64) Sink {
		s, err := File(dir, FileOptions{Prefix: prefix, Cap: limit, Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	names := func() string {
		var n []string
		list, _ := os.ReadDir(dir)
		for _, e := range list {
			n = append(n, e.Name())
		}
		return strings.Join(n, " ")
	}
	j := New(Options{})
	j.Attach("file", open("recov", 0))
	j.Logger().Info("kept", "n", 1)
	j.Logger().Info("hidden", Passing())
	if err := j.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	j.Attach("second", open("recov", 0)) // the same second
	j.Close(t.Context())
	if names() != "recov20261122_100000-2.log recov20261122_100000.log" {
		t.Fatalf("files: %s", names())
	}
	b, _ := os.ReadFile(filepath.Join(dir, "recov20261122_100000.log"))
	if s := string(b); !strings.Contains(s, `"msg":"kept"`) || strings.Contains(s, "hidden") || strings.Count(s, "\n") != 1 {
		t.Errorf("got %s", s)
	}

	// Rotation and the cap: files of others stay, and the oldest logs go.
	for _, name := range []string{"recovery_history.json", "other.log"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 5000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const limit = 8000
	now = now.Add(time.Hour)
	s := open("provision", limit)
	for i := range 300 {
		now = now.Add(time.Second)
		if err := s.Write(Record{Time: now, Message: fmt.Sprintf("%04d %s", i, strings.Repeat("x", 100))}); err != nil {
			t.Fatal(err)
		}
	}
	s.(*file).Close()
	var sum int64
	logs, _ := filepath.Glob(filepath.Join(dir, "*[0-9].log"))
	for _, p := range logs {
		st, _ := os.Stat(p)
		sum += st.Size()
		if st.Size() > limit/8 {
			t.Errorf("%s has %d bytes", p, st.Size())
		}
	}
	if sum > limit || sum < limit/2 || len(logs) < 5 {
		t.Errorf("%d bytes in %d files", sum, len(logs))
	}
	if !strings.Contains(names(), "recovery_history.json") || !strings.Contains(names(), "other.log") || strings.Contains(names(), "recov2026") {
		t.Errorf("files: %s", names())
	}
	b, _ = os.ReadFile(logs[len(logs)-1])
	if !bytes.Contains(b, []byte("0299 ")) {
		t.Error("the newest record is missing")
	}
	if _, err := File(dir, FileOptions{Prefix: "../x"}); err == nil {
		t.Error("a prefix with a path was accepted")
	}
}

func TestFileRefusesALinkOutside(t *testing.T) {
	volume, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(volume, "log")); err != nil {
		t.Fatal(err)
	}
	if _, err := File(filepath.Join(volume, "log"), FileOptions{Prefix: "recov"}); err == nil {
		t.Error("the log would lie outside the volume")
	}
}

func TestFileOnAFullDisk(t *testing.T) {
	s, err := File(filepath.Join(t.TempDir(), "log"), FileOptions{Prefix: "recov", Cap: 100})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Write(Record{Message: strings.Repeat("x", 200)}); err == nil {
		t.Error("wrote more than the cap")
	}
	if err := s.Write(Record{Message: "y"}); err != nil {
		t.Error(err)
	}
}

func TestFindPort(t *testing.T) {
	sys := fstest.MapFS{
		"class/virtio-ports/vport0p1/name": {Data: []byte("org.qemu.guest_agent.0\n")},
		"class/virtio-ports/vport2p1/name": {Data: []byte(PortName + "\n")},
	}
	if p, ok := FindPort(sys, PortName); !ok || p != "/dev/vport2p1" {
		t.Errorf("got %q, %v", p, ok)
	}
	if _, ok := FindPort(fstest.MapFS{}, PortName); ok {
		t.Error("found a port on a machine without one")
	}
}

func TestManyWriters(t *testing.T) {
	j := New(Options{})
	k := &keep{}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 200 {
				j.Logger().Info("x", "i", i, "n", n)
			}
		})
	}
	j.Attach("k", k)
	wg.Wait()
	if err := j.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(k.got) != 1600 {
		t.Errorf("%d of 1600 records", len(k.got))
	}
}

// FuzzLine checks that every record becomes one line of valid JSON and one line of text.
func FuzzLine(f *testing.F) {
	f.Add("m", "k", "v", int64(1))
	f.Add("\x00\n\xff", "time", "\"\\\r\n", int64(-1))
	f.Fuzz(func(t *testing.T, msg, key, value string, n int64) {
		j := New(Options{})
		j.Logger().With(key, value).Info(msg, key, n, "any", map[string]string{key: value})
		r := j.Records()[0]
		b, err := json.Marshal(r)
		if err != nil || bytes.ContainsAny(b, "\n\r") {
			t.Fatalf("%q: %v", b, err)
		}
		if s := r.Text(); strings.ContainsAny(s, "\n\r\x1b\x00") {
			t.Fatalf("%q", s)
		}
	})
}
