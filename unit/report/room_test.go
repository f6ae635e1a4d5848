package report

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gprovision/model/record"
)

func refusal(code string) error {
	return &Refusal{Status: http.StatusInsufficientStorage, Problem: record.Problem{Code: code, Error: "no room"}}
}

// taken is a server that keeps events and refuses some batches.
type taken struct {
	server
	mu     sync.Mutex
	events []record.Event
}

func (s *taken) refuse(code string, f func(record.Event) bool) *taken {
	s.err = func(events []record.Event) error {
		if slices.ContainsFunc(events, f) {
			return refusal(code)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, events...)
		return nil
	}
	return s
}

// told returns what the server got, in order and in short.
func (s *taken) told() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, e := range s.events {
		switch {
		case e.Attrs["name"] == FactDropped:
			out = append(out, fmt.Sprint("dropped ", e.Attrs["value"]))
		default:
			out = append(out, string(e.Kind)+" "+e.Level+e.Message)
		}
	}
	return strings.Join(out, ", ")
}

func leveled(level, text string) record.Event {
	return record.Event{Kind: record.KindLog, Level: level, Message: text}
}

// TestQueueQuota: the server refuses log records for good. Debug records are dropped first, and all others of that
// boot if necessary. The states arrive, and so does the number of lost records.
func TestQueueQuota(t *testing.T) {
	for name, c := range map[string]struct {
		refused func(record.Event) bool
		want    string
	}{
		"debug only": {isDebug, "log INFO1, log INFO2, state , dropped 3"},
		"all":        {func(e record.Event) bool { return e.Kind == record.KindLog }, "state , dropped 3, dropped 5"},
		"one state":  {func(e record.Event) bool { return e.Kind != record.KindFact }, "dropped 3, dropped 5, dropped 6"},
	} {
		q := NewQueue("b")
		for i, level := range []string{"DEBUG", "INFO", "DEBUG", "DEBUG", "INFO"} {
			q.Add(leveled(level, map[int]string{1: "1", 4: "2"}[i]))
		}
		q.Add(record.Event{Kind: record.KindState})
		s := (&taken{}).refuse(record.ProblemQuota, c.refused)
		q.Start(s)
		must(t, q.Flush(within(t)))
		must(t, q.Flush(within(t))) // what the first one reported last
		if got := s.told(); got != c.want {
			t.Errorf("%s: %s; want %s", name, got, c.want)
		}
		must(t, q.Close())
	}
}

// TestQueueDiskFull: while the server has room for nothing else, states pass the log records. Those arrive later.
func TestQueueDiskFull(t *testing.T) {
	q := NewQueue("b")
	now := time.Now()
	var mu sync.Mutex
	q.now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	full := true
	s := (&taken{}).refuse(record.ProblemFull, func(e record.Event) bool {
		mu.Lock()
		defer mu.Unlock()
		return full && !isUrgent(e)
	})
	q.Add(leveled("INFO", "early"))
	q.Add(record.Event{Kind: record.KindState})
	q.Add(record.Event{Kind: record.KindQA})
	q.Start(s)
	ctx := within(t)
	for q.stats().waiting > 1 {
		q.mu.Lock()
		ch := q.changed
		waiting := len(q.items)
		q.mu.Unlock()
		if waiting > 1 {
			select {
			case <-ch:
			case <-ctx.Done():
				t.Fatal("states do not arrive:", s.told())
			}
		}
	}
	if got := s.told(); got != "state , qa " {
		t.Error(got)
	}
	mu.Lock()
	full, now = false, now.Add(2*time.Minute)
	mu.Unlock()
	q.Add(leveled("INFO", "late"))
	must(t, q.Flush(ctx))
	if got := s.told(); got != "state , qa , log INFOearly, log INFOlate" {
		t.Error(got)
	}
	if st := q.stats(); st.dropped != 0 {
		t.Errorf("%+v", st)
	}
	must(t, q.Close())
}

// TestQueueTalksTooMuch: a boot that has sent a lot leaves out its debug records, and nothing else.
func TestQueueTalksTooMuch(t *testing.T) {
	q := NewQueue("b")
	s := (&taken{}).refuse("", func(record.Event) bool { return false })
	q.Start(s)
	if e := q.Add(leveled("DEBUG", "first")); e.Seq != 1 {
		t.Error(e)
	}
	must(t, q.Flush(within(t)))
	q.mu.Lock()
	q.spent = debugBytes + 1
	q.mu.Unlock()
	for range 500 {
		if e := q.Add(leveled("DEBUG", "more")); e.Seq != 0 {
			t.Fatal(e)
		}
	}
	q.Add(leveled("INFO", "last"))
	must(t, q.Flush(within(t)))
	got := s.told()
	if !strings.HasPrefix(got, "log DEBUGfirst, dropped 100, ") || !strings.HasSuffix(got, "log INFOlast, dropped 500") || strings.Contains(got, "more") {
		t.Error(got)
	}
	if strings.Count(got, "dropped") > 6 {
		t.Error("it tells of each one:", got)
	}
	var p *Refusal
	if errors.As(q.stats().err, &p) {
		t.Error(p)
	}
	must(t, q.Close())
}
