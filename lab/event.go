package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// EventPort is the name of the virtio-serial port on which a unit writes its events, one JSON object on each line.
const EventPort = "org.gprovision.events"

// Event is one line that a unit wrote, or something that happened to its machine.
type Event struct {
	// At is when the host read it.
	At time.Time `json:"at"`
	// Power counts how often the machine was switched on, from 1.
	Power int `json:"power"`
	// Machine is true for an event of QEMU: its msg is the name of QMP's event in upper case, such as RESET.
	Machine bool `json:"machine,omitempty"`
	// Fields are the members of the object. Numbers are float64.
	Fields map[string]any `json:"fields"`
}

// Msg is the field "msg".
func (e Event) Msg() string { return e.Text("msg") }

// Text returns a field as text, or "" if it is not there. A name with dots leads into objects.
func (e Event) Text(name string) string {
	switch v := e.field(name).(type) {
	case nil:
		return ""
	case string:
		return v
	default:
		return fmt.Sprint(v)
	}
}

// Number returns a field as a number, or 0.
func (e Event) Number(name string) float64 {
	v, _ := e.field(name).(float64)
	return v
}

func (e Event) field(name string) any {
	var v any = e.Fields
	for part := range strings.SplitSeq(name, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[part]
	}
	return v
}

// String is the event as one line of JSON without its time.
func (e Event) String() string {
	b, err := json.Marshal(e.Fields)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Match chooses events.
type Match func(Event) bool

// Msg matches events with this msg.
func Msg(text string) Match { return func(e Event) bool { return e.Msg() == text } }

// Field matches events in which the field has this text.
func Field(name, text string) Match { return func(e Event) bool { return e.Text(name) == text } }

// All matches events that every one of ms matches.
func All(ms ...Match) Match {
	return func(e Event) bool {
		for _, m := range ms {
			if !m(e) {
				return false
			}
		}
		return true
	}
}

// Any matches events that one of ms matches.
func Any(ms ...Match) Match {
	return func(e Event) bool {
		for _, m := range ms {
			if m(e) {
				return true
			}
		}
		return false
	}
}

// Events keeps what a unit said, over all its boots. It is safe for several goroutines.
type Events struct {
	mu      sync.Mutex
	list    []Event
	next    int           // first event that no Wait has passed
	changed chan struct{} // closed and replaced at each change
	down    bool          // the machine is off: nothing will come until it is switched on
	log     io.Writer     // JSON lines of Event
}

func newEvents(log io.Writer) *Events {
	return &Events{changed: make(chan struct{}), log: log, down: true}
}

func (s *Events) add(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, e)
	if s.log != nil {
		if b, err := json.Marshal(e); err == nil {
			_, _ = s.log.Write(append(b, '\n'))
		}
	}
	s.wake()
}

func (s *Events) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
	s.wake()
}

func (s *Events) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// read takes events from a port until its end. A line that is no JSON object becomes the field "raw".
func (s *Events) read(r io.Reader, power int) {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), 4<<20)
	for sc.Scan() {
		e := Event{At: time.Now(), Power: power}
		if json.Unmarshal(sc.Bytes(), &e.Fields) != nil || e.Fields == nil {
			e.Fields = map[string]any{"raw": sc.Text()}
		}
		s.add(e)
	}
}

// DownError says that a machine was switched off, or went off by itself, while something was awaited from it.
type DownError struct{ Last string }

func (e *DownError) Error() string {
	return "the machine is off before the awaited event; its last event was " + e.Last
}

// Wait returns the first event that m matches, after the one that the Wait before returned. The error is a *DownError when
// the machine is off and no event is left, or that of ctx.
func (s *Events) Wait(ctx context.Context, m Match) (Event, error) {
	s.mu.Lock()
	at := s.next
	s.mu.Unlock()
	e, at, err := s.find(ctx, at, m)
	if err != nil {
		return Event{}, err
	}
	s.mu.Lock()
	s.next = at + 1
	s.mu.Unlock()
	return e, nil
}

func (s *Events) find(ctx context.Context, at int, m Match) (Event, int, error) {
	for {
		s.mu.Lock()
		list, down, changed := s.list, s.down, s.changed
		s.mu.Unlock()
		for ; at < len(list); at++ {
			if m(list[at]) {
				return list[at], at, nil
			}
		}
		last := "none"
		if len(list) > 0 {
			last = list[len(list)-1].String()
		}
		if down {
			return Event{}, 0, &DownError{Last: last}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Event{}, 0, fmt.Errorf("wait for an event, the last one was %s: %w", last, context.Cause(ctx))
		}
	}
}

// Follow calls f for each event from the first one on, until ctx ends. It does not move the place where Wait looks.
func (s *Events) Follow(ctx context.Context, f func(Event)) {
	for at := 0; ; at++ {
		for {
			s.mu.Lock()
			list, changed := s.list, s.changed
			s.mu.Unlock()
			if at < len(list) {
				f(list[at])
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

// Seen returns all events so far that m matches.
func (s *Events) Seen(m Match) []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Event
	for _, e := range s.list {
		if m(e) {
			out = append(out, e)
		}
	}
	return out
}

// Tail returns the last n events, one on each line.
func (s *Events) Tail(n int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, e := range s.list[max(0, len(s.list)-n):] {
		fmt.Fprintf(&b, "%s %s\n", e.At.Format("15:04:05.000"), e)
	}
	return b.String()
}
