package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gprovision/model/record"
)

// server is a Sender that keeps each event only once, as the factory server does.
type server struct {
	mu    sync.Mutex
	seen  map[string]bool
	order []string
	calls int
	err   func(events []record.Event) error
}

func (s *server) Send(_ context.Context, events []record.Event) (record.BatchReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.err != nil {
		if err := s.err(events); err != nil {
			return record.BatchReply{}, err
		}
	}
	if s.seen == nil {
		s.seen = map[string]bool{}
	}
	for _, e := range events {
		k := fmt.Sprintf("%s/%d/%s", e.Boot, e.Seq, e.Message)
		if !s.seen[k] {
			s.seen[k] = true
			s.order = append(s.order, k)
		}
	}
	return record.BatchReply{Stored: len(events)}, nil
}

func (s *server) got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.order...)
}

func message(s string) record.Event { return record.Event{Kind: record.KindLog, Message: s} }

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestQueueSends(t *testing.T) {
	q := NewQueue("b1")
	s := &server{}
	for i := range 3 {
		e := q.Add(message(fmt.Sprint("m", i)))
		if e.Seq != uint64(i+1) || e.Boot != "b1" || e.Source != record.Observed || e.Time.IsZero() {
			t.Errorf("%+v", e)
		}
	}
	q.Start(s)
	must(t, q.Flush(within(t)))
	if got := fmt.Sprint(s.got()); got != "[b1/1/m0 b1/2/m1 b1/3/m2]" || s.calls != 1 {
		t.Error(got, s.calls)
	}
	q.Add(message("m3"))
	must(t, q.Flush(within(t)))
	if st := q.stats(); st.waiting != 0 || st.sent != 4 || st.err != nil {
		t.Errorf("%+v", st)
	}
	must(t, q.Close())
}

// TestQueueSurvives interrupts a process at different places. The next process sends what was not sent, oldest first.
func TestQueueSurvives(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queue")
	q := NewQueue("b1")
	q.Add(message("early"))
	must(t, q.Persist(dir))
	q.Add(message("later"))
	must(t, q.Sync(within(t)))
	if q.stats().unsaved != 0 {
		t.Error("not saved")
	}
	if err := NewQueue("b1").Persist(dir); err == nil {
		t.Error("two processes in one directory")
	}
	// The power fails: there is no Close, only the lock is released. The last line is torn.
	q.disk.lock.Close()
	files, _ := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	f, err := os.OpenFile(files[len(files)-1], os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	f.WriteString(`{"boot":"b1","seq":3,"ki`)
	f.Close()
	must(t, os.WriteFile(filepath.Join(dir, "000000000099.jsonl"), []byte("garbage\n{}\n{\"boot\":\"../x\"}\n"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "x.tmp"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, ".000000000098.jsonl.new"), nil, 0o600))

	next := NewQueue("b2")
	next.Add(message("new"))
	must(t, next.Persist(dir))
	s := &server{}
	next.Start(s)
	must(t, next.Flush(within(t)))
	if got := fmt.Sprint(s.got()); got != "[b1/1/early b1/2/later b2/1/new]" {
		t.Error(got)
	}
	must(t, next.Close())
	left, err := os.ReadDir(dir)
	must(t, err)
	if len(left) != 2 { // the lock and the counter
		t.Errorf("left behind: %v", left)
	}
}

// TestQueueNumbers checks that two processes of one boot never use the same number.
func TestQueueNumbers(t *testing.T) {
	dir := t.TempDir()
	used := map[uint64]bool{}
	for i := range 4 {
		q := NewQueue("b1")
		var e record.Event
		if i%2 == 0 {
			must(t, q.Persist(dir))
			e = q.Add(message("x"))
			must(t, q.Sync(within(t)))
		} else {
			q.Add(message("x"))
			must(t, q.Persist(dir))
			e = q.items[len(q.items)-1].event
		}
		if used[e.Seq] {
			t.Errorf("number %d twice", e.Seq)
		}
		used[e.Seq] = true
		if i < 2 {
			must(t, q.Close())
		} else {
			q.disk.lock.Close() // interrupted
		}
	}
	s := &server{}
	q := NewQueue("b9")
	must(t, q.Persist(dir))
	q.Start(s)
	must(t, q.Flush(within(t)))
	if len(s.got()) != 3 { // the last one was interrupted before it could save
		t.Log(s.got())
	}
	if len(s.got()) < 3 {
		t.Error("lost", s.got())
	}
	must(t, q.Close())
}

func TestQueueRelease(t *testing.T) {
	dir := t.TempDir()
	q := NewQueue("b1")
	must(t, q.Persist(dir))
	for i := range 3000 { // more than one file
		q.Add(message(strings.Repeat("x", 300) + fmt.Sprint(i)))
	}
	must(t, q.Release())
	must(t, q.Release())
	q.Add(message("in memory"))
	if err := q.Sync(t.Context()); err == nil {
		t.Error("saved without a directory")
	}
	s := &server{}
	q.Start(s)
	must(t, q.Flush(within(t)))
	if n := len(s.got()); n != 3001 {
		t.Error(n)
	}
	must(t, q.Close())
	// The content of the files is sent again, but the server knows it: nothing is lost, and nothing counts twice.
	again := NewQueue("b2")
	must(t, again.Persist(dir))
	if n := again.stats().waiting; n != 3000 {
		t.Error(n)
	}
	again.Start(s)
	must(t, again.Flush(within(t)))
	if n := len(s.got()); n != 3001 {
		t.Error(n)
	}
	must(t, again.Close())
	if files, _ := filepath.Glob(filepath.Join(dir, "*.jsonl")); len(files) != 0 {
		t.Error(files)
	}
}

// TestQueueTakeOver: what one process of a boot left in memory, another saves and sends, and the numbers go on.
func TestQueueTakeOver(t *testing.T) {
	ram, dir := filepath.Join(t.TempDir(), "ram"), filepath.Join(t.TempDir(), "queue")
	first := NewQueue("b1")
	first.Add(message("one"))
	first.Add(message("two"))
	if err := errors.Join(first.Persist(ram), first.Close()); err != nil {
		t.Fatal(err)
	}
	q := NewQueue("b1")
	if err := q.Persist(dir); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing left
		if err := q.TakeOver(within(t), ram); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(ram); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the events are still there: %v", err)
	}
	if st := q.stats(); st.waiting != 2 || st.unsaved != 0 {
		t.Errorf("after taking over: %+v", st)
	}
	q.Add(message("three"))
	s := &server{}
	q.Start(s)
	if err := errors.Join(q.Flush(within(t)), q.Close()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(s.got(), " "); got != "b1/1/one b1/2/two b1/3/three" {
		t.Errorf("server has %s", got)
	}
}

// TestQueueBounded fills the queue: log records are dropped and states stay, both in memory and in the files.
func TestQueueBounded(t *testing.T) {
	dir := t.TempDir()
	q := NewQueue("b1")
	q.max = 64 << 10
	must(t, q.Persist(dir))
	for i := range 1000 {
		q.Add(message(strings.Repeat("x", 200)))
		if i%100 == 0 {
			q.Add(record.Event{Kind: record.KindState, Attrs: record.State{Job: record.JobRestore, Phase: record.Step, Percent: i / 10}.Attrs()})
			must(t, q.Sync(within(t)))
		}
	}
	must(t, q.Sync(within(t)))
	st := q.stats()
	if q.size > q.max || st.dropped == 0 || st.dropped+st.waiting != 1010 {
		t.Errorf("%d bytes, %+v", q.size, st)
	}
	must(t, q.Close())
	var disk int64
	states := 0
	files, _ := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		must(t, err)
		disk += int64(len(b))
		states += strings.Count(string(b), `"kind":"state"`)
	}
	if states != 10 || disk > 2*int64(q.max) {
		t.Errorf("%d states in %d bytes", states, disk)
	}
}

// TestQueueRefused checks that one bad event does not hold up the others, and that a server in trouble loses nothing.
func TestQueueRefused(t *testing.T) {
	q := NewQueue("b1")
	bad := &Refusal{Status: 400, Problem: record.Problem{Code: record.ProblemSyntax, Error: "bad"}}
	s := &server{err: func(ev []record.Event) error {
		for _, e := range ev {
			if e.Message == "bad" {
				return bad
			}
		}
		return nil
	}}
	for i := range 10 {
		m := fmt.Sprint("m", i)
		if i == 6 {
			m = "bad"
		}
		q.Add(message(m))
	}
	q.Start(s)
	must(t, q.Flush(within(t)))
	must(t, q.Flush(within(t))) // the fact about the lost event, in case it was not known yet when the first Flush began
	if st := q.stats(); st.sent != 10 || st.dropped != 1 {
		t.Errorf("%+v", st)
	}
	s.mu.Lock()
	away := true
	s.err = func([]record.Event) error {
		if away {
			return errors.New("no network")
		}
		return nil
	}
	s.mu.Unlock()
	q.Add(message("x"))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for q.stats().err == nil {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if err := q.Flush(ctx); err == nil || !strings.Contains(err.Error(), "no network") {
		t.Error(err)
	}
	s.mu.Lock()
	away = false
	s.mu.Unlock()
	q.Start(s) // a new sender does not wait for the pause of the old one
	must(t, q.Flush(within(t)))
	must(t, q.Close())
}

// TestQueueStuckDisk checks that Add does not wait for a disk that hangs.
func TestQueueStuckDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "q")
	q := NewQueue("b1")
	must(t, q.Persist(dir))
	must(t, os.RemoveAll(dir)) // every write fails from now on
	q.Add(message("x"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := q.Sync(ctx); err == nil {
		t.Error("saved into nothing")
	}
	s := &server{}
	q.Start(s)
	must(t, q.Flush(within(t)))
	if err := q.Close(); err == nil {
		t.Error("no word of the broken directory")
	}
}

// TestQueueConcurrent adds events from many goroutines during sending and saving.
func TestQueueConcurrent(t *testing.T) {
	dir := t.TempDir()
	q := NewQueue("b1")
	s := &server{}
	q.Start(s)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				q.Add(message("x"))
			}
		})
	}
	must(t, q.Persist(dir))
	wg.Wait()
	must(t, q.Flush(within(t)))
	if n := len(s.got()); n != 1600 {
		t.Error(n)
	}
	must(t, q.Close())
	if files, _ := filepath.Glob(filepath.Join(dir, "*.jsonl")); len(files) != 0 {
		t.Error(files)
	}
}

func FuzzQueueFile(f *testing.F) {
	f.Add([]byte(`{"boot":"b","seq":1,"time":"2026-01-01T00:00:00Z","kind":"log","source":"observed"}` + "\n"))
	f.Add([]byte("{\n\n}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, it := range parseLines(strings.NewReader(string(b))) {
			if err := it.event.Validate(); err != nil {
				t.Error(err)
			}
			if !json.Valid(it.line) {
				t.Errorf("%q", it.line)
			}
		}
	})
}

// TestSyncWhileSent: a sender that empties the queue at that very moment does not disturb a Sync.
func TestSyncWhileSent(t *testing.T) {
	q := NewQueue("b1")
	must(t, q.Persist(filepath.Join(t.TempDir(), "queue")))
	stop := make(chan struct{})
	var sender sync.WaitGroup
	sender.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				q.removeBatch(q.nextBatch(record.MaxBatch), true)
			}
		}
	})
	ctx := within(t)
	for range 400 {
		q.Add(message("m"))
		must(t, q.Sync(ctx))
	}
	close(stop)
	sender.Wait()
	must(t, q.Close())
}

// TestReleaseWhileLogging: an event queued during Release keeps its number to itself. The next process of the same
// boot starts after it.
func TestReleaseWhileLogging(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queue")
	for range 5 {
		q := NewQueue("b1")
		must(t, q.Persist(dir))
		stop := make(chan struct{})
		var logger sync.WaitGroup
		logger.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					q.Add(message("m"))
				}
			}
		})
		must(t, q.Release())
		close(stop)
		logger.Wait()
		saved, next := uint64(0), (&disk{dir: dir}).reserved("b1")
		d := &disk{dir: dir, live: map[uint64]int{}}
		items, err := d.load()
		must(t, err)
		for _, it := range items {
			saved = max(saved, it.event.Seq)
		}
		if saved >= next {
			t.Fatalf("the event %d is saved, and the next process begins with %d", saved, next)
		}
	}
}

// stats is the state of a Queue.
type stats struct {
	waiting int // not known to be at the server
	unsaved int // of those, not in a file; all of them before Persist
	sent    int
	dropped int   // lost because the queue was full, or because the server refused them for good
	err     error // the newest error of sending or saving, nil after a success
}

func (q *Queue) stats() stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := stats{waiting: len(q.items), sent: q.sent, dropped: q.dropped, err: q.lastErr}
	for _, it := range q.items {
		if it.seg == 0 {
			s.unsaved++
		}
	}
	return s
}
