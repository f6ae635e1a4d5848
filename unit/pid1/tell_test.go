package pid1

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"gprovision/model/fault"
	"gprovision/model/record"
	"gprovision/model/step"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/report"
)

// listener is a server that keeps the states that it hears of.
type listener struct {
	mu     sync.Mutex
	states []record.State
}

func (l *listener) Send(_ context.Context, events []record.Event) (record.BatchReply, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		if s, ok := record.StateOf(e); ok {
			l.states = append(l.states, s)
		}
	}
	return record.BatchReply{Stored: len(events)}, nil
}

// TestFailureIsToldOnce: a failure has its sentence once for the server and once on the panel, whatever lies around it.
func TestFailureIsToldOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		cause error
		f     *fault.Fault
		say   string // what lies behind the sentence
	}{
		"a kind":                 {fault.Newf(fault.NoSpace, "want 5, have 3"), fault.NoSpace, "want 5, have 3"},
		"no kind":                {errors.New("out of luck"), fault.Internal, "out of luck"},
		"a kind by itself":       {fault.Because(fault.NoServer, nil), fault.NoServer, ""},
		"a kind without a cause": {fault.NoServer, fault.NoServer, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var screen bytes.Buffer
			u := &unit{log: slog.New(slog.DiscardHandler), m: &machine.Machine{Panel: panel.New()}, queue: report.NewQueue("b1")}
			u.m.Panel.Add("console", panel.Console(&screen, panel.ConsoleOptions{}))
			err := step.Run(t.Context(), []step.Step{{Name: "look", Say: "Looking", Run: func(context.Context) error { return tc.cause }}}, u.observer(record.JobRestore))
			u.failed(record.JobRestore, err)
			u.m.Panel.Fail(err)

			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			server := &listener{}
			u.queue.Start(server)
			if err := errors.Join(u.queue.Flush(ctx), u.queue.Close(), u.m.Panel.Close(ctx)); err != nil {
				t.Fatal(err)
			}
			last := server.states[len(server.states)-1]
			if last.Code != tc.f.Code || strings.Count(last.Text, tc.f.Text) != 1 || strings.Contains(last.Text, tc.f.Code) || strings.Count(last.Text, tc.say) < 1 {
				t.Errorf("the server hears %+v", last)
			}
			if n := strings.Count(screen.String(), tc.f.Text); n != 1 {
				t.Errorf("the panel shows it %d times:\n%s", n, &screen)
			}
		})
	}
}

// TestBlaming: a step of the boot fails in the same way for whoever watches it and whoever ran it.
func TestBlaming(t *testing.T) {
	var seen error
	steps := blaming(fault.SwitchRoot, []step.Step{{Name: "mount", Run: func(context.Context) error { return errors.New("no such device") }}})
	err := step.Run(t.Context(), steps, func(e step.Event) { seen = e.Err })
	if fault.Of(err) != fault.SwitchRoot || fault.Of(seen) != fault.SwitchRoot {
		t.Errorf("ran: %v, watched: %v", err, seen)
	}
}

// TestAfterFailedSetup: what a person can choose on a unit that could not be set up does something, and silence does not.
func TestAfterFailedSetup(t *testing.T) {
	enter, down, back := panel.KeyEnter, panel.KeyDown, panel.Key('q')
	for name, tc := range map[string]struct {
		wanted bool
		keys   [][]panel.Key // one list for each question
		want   OutcomeKind
	}{
		"try again":         {true, [][]panel.Key{{enter}}, RebootNow},
		"power off":         {true, [][]panel.Key{{down, enter}, {down, enter}}, PowerOffNow},
		"power off, and no": {true, [][]panel.Key{{down, enter}, {enter}, {back}}, HoldOn},
		"gives up":          {true, [][]panel.Key{{back}}, HoldOn},
		"nobody is there":   {false, nil, HoldOn},
	} {
		t.Run(name, func(t *testing.T) {
			u := &unit{log: slog.New(slog.DiscardHandler), m: &machine.Machine{Panel: panel.New()}}
			u.wanted, u.held = tc.wanted, true
			u.m.Panel.Add("script", &script.Panel{Answer: func(panel.Asked) []panel.Key {
				keys := tc.keys[0]
				tc.keys = tc.keys[1:]
				return keys
			}})
			if got := u.chosenOutcome(t.Context()); got.Kind != tc.want || u.wanted {
				t.Errorf("got %s, want %s", got.Kind, tc.want)
			}
		})
	}
}
