package panel

import (
	"io"
	"strings"
	"testing"
	"time"

	"gprovision/hw/lcd"
	"gprovision/model/fault"
)

// TestRoom: a picture has the room of the smallest screen with keys; a serial line counts only where there is none.
func TestRoom(t *testing.T) {
	console := func(w, h int, keys bool) Panel {
		o := ConsoleOptions{Size: func() (int, int) { return w, h }}
		if keys {
			o.Keys = make(chan Key)
		}
		return Console(io.Discard, o)
	}
	for name, c := range map[string]struct {
		panels  []Panel
		columns int
		lines   int
	}{
		"nothing":            {nil, 0, 0},
		"a screen":           {[]Panel{console(128, 48, true)}, 128, 47},
		"two screens":        {[]Panel{console(128, 37, true), console(100, 48, true)}, 100, 36},
		"nobody can type":    {[]Panel{console(128, 48, false)}, 0, 0},
		"a serial line":      {[]Panel{console(0, 0, true), Console(io.Discard, ConsoleOptions{Keys: make(chan Key)})}, 80, 23},
		"a screen beside it": {[]Panel{console(0, 0, true), console(128, 48, true)}, 128, 47},
	} {
		b := New()
		for _, p := range c.panels {
			b.Add("console", p)
		}
		if w, h := b.Room(); w != c.columns || h != c.lines {
			t.Errorf("%s: %d by %d, want %d by %d", name, w, h, c.columns, c.lines)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestNoteOnADisplay: what a person shall write down is on displays of both sizes, within the time that scrolling takes, and one that fits
// a row stands there whole.
func TestNoteOnADisplay(t *testing.T) {
	const note = "6Q2M-9ZJ4-T0XK-8VBH"
	p := ProblemOf(WithNote(fault.Newf(fault.EraseFailed, "data is left"), note))
	if p.Code != fault.EraseFailed.Code || p.Detail != "data is left" || p.Note != note {
		t.Fatalf("%+v", p)
	}
	for _, m := range []lcd.Model{lcd.Model631, lcd.Model635} {
		seen := false
		for at := range 600 {
			seen = seen || strings.Contains(strings.Join(frame(View{Problem: p}, m, time.Duration(at)*100*time.Millisecond).Lines, "\n"), note)
		}
		if !seen {
			t.Errorf("%s does not show it", m)
		}
	}
}
