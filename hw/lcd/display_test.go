package lcd_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gprovision/hw/lcd"
	"gprovision/hw/lcd/simulator"
)

// socket is where an LCD may be plugged in.
type socket struct {
	mu   sync.Mutex
	lcd  *simulator.LCD
	port io.Closer
}

func (s *socket) plug(l *simulator.LCD) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lcd = l
	if l == nil && s.port != nil {
		s.port.Close()
	}
}

func (s *socket) dial(context.Context) (io.ReadWriteCloser, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lcd == nil {
		return nil, "", lcd.ErrNotFound
	}
	p := plug(s.lcd)
	s.port = p
	return p, "test", nil
}

// waitFor waits on the virtual clock until the LCD shows the text.
func waitFor(t *testing.T, s *simulator.LCD, text string) simulator.Screen {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sc, err := s.Wait(ctx, func(sc simulator.Screen) bool { return sc.Contains(text) })
	if err != nil {
		t.Fatal(err)
	}
	return sc
}

func TestDisplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := &socket{}
		d := lcd.NewDisplay(lcd.DisplayOptions{Dial: at.dial})
		d.Show(lcd.Text("hello, world of tiny displays"))
		if err := d.Flush(t.Context()); err != nil || d.Model() != 0 {
			t.Errorf("without an LCD: %v, %v", err, d.Model())
		}
		time.Sleep(10 * time.Second)

		// It comes.
		small := simulator.New(lcd.Model631)
		at.plug(small)
		d.Hint()
		began := time.Now()
		sc := waitFor(t, small, "displays")
		if !slices.Equal(sc.Lines(), []string{"hello, world of tiny", "displays"}) || time.Since(began) > time.Second {
			t.Errorf("after %v: %q", time.Since(began), sc.Lines())
		}
		if d.Model() != lcd.Model631 {
			t.Errorf("model %v", d.Model())
		}
		if sc.Backlight != 40 || sc.PressMask != 0 || sc.RelMask != 0xf {
			t.Errorf("set to %+v", sc)
		}
		small.Tap(lcd.KeyUR)
		if e := <-d.Keys(); e != (lcd.KeyEvent{Key: lcd.KeyUR, Release: true}) {
			t.Errorf("key %+v", e)
		}

		// A picture that stands still sends nothing but the check, a change only what is different.
		n := len(small.Received())
		time.Sleep(12 * time.Second)
		if got := small.Received()[n:]; len(got) > 3 {
			t.Errorf("idle, and it sent %v", got)
		}
		n = len(small.Received())
		d.Show(lcd.Text("hello, world of tiny things"))
		if err := d.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if got := small.Received()[n:]; len(got) != 1 || string(got[0].Data) != "\x00\x01things  " {
			t.Errorf("it sent %v", got)
		}

		// It is switched off and on, and forgets all.
		small.PowerCycle()
		waitFor(t, small, "things")

		// It goes, and another one comes. The same picture fits that one.
		at.plug(nil)
		time.Sleep(time.Second)
		if d.Model() != 0 {
			t.Error("it is gone and not missed")
		}
		large := simulator.New(lcd.Model635)
		at.plug(large)
		waitFor(t, large, "things")
		before := large.Screen()
		d.Show(func(m lcd.Model, _ time.Duration) lcd.Frame {
			f := lcd.Frame{Lines: []string{"a line that is much too long for it", "", m.String()}, Backlight: 80, Style: lcd.CursorUnderscore, Legend: lcd.LegendUpDown}
			f.Cursor.Row, f.Lamps[3] = 2, lcd.Lamp{Green: 100}
			return f
		})
		if err := d.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		sc = large.Screen()
		if !slices.Equal(sc.Lines(), []string{"a line that is much▲", "", "635", "                   ▼"}) || sc.Backlight != 80 || sc.Style != lcd.CursorUnderscore || sc.Cursor.Row != 2 || sc.Lamps[3].Green != 100 {
			t.Errorf("shows %q, %+v", sc.Lines(), sc)
		}
		d.Show(func(lcd.Model, time.Duration) lcd.Frame { return lcd.Frame{Lines: []string{"bye", "", "635"}} })
		time.Sleep(5 * time.Millisecond) // it is being drawn
		if err := errors.Join(d.Close(), d.Close()); err != nil {
			t.Error(err)
		}
		if sc = large.Screen(); sc.Backlight != before.Backlight || sc.PressMask != 0x3f || sc.RelMask != 0x3f || sc.Lines()[0] != "bye" || sc.Lines()[2] != "635" {
			t.Errorf("handed back as %+v", sc)
		}
		if _, open := <-d.Keys(); open {
			t.Error("keys after Close")
		}
	})
}

// The legend of a 631 covers three columns; when it goes they come back.
func TestLegendGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulator.New(lcd.Model631)
		d := lcd.NewDisplay(lcd.DisplayOptions{Dial: (&socket{lcd: s}).dial})
		full := []string{"01234567890123456789", "abcdefghijklmnopqrst"}
		for range 2 {
			d.Show(func(lcd.Model, time.Duration) lcd.Frame { return lcd.Frame{Lines: full, Legend: lcd.LegendUpDown} })
			waitFor(t, s, "abcdefghijklmnopq▼ X")
			d.Show(func(lcd.Model, time.Duration) lcd.Frame { return lcd.Frame{Lines: full} })
			waitFor(t, s, full[1])
			if got := s.Screen().Lines(); !slices.Equal(got, full) {
				t.Errorf("shows %q", got)
			}
		}
		d.Close()
	})
}

// A bad line, a dark LCD, and commands that the LCD does not know.
func TestDisplayOnABadLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulator.New(lcd.Model635)
		at := &socket{lcd: s}
		d := lcd.NewDisplay(lcd.DisplayOptions{Dial: at.dial, Poll: 100 * time.Millisecond})
		s.SetFaults(simulator.Faults{Drop: 4, Corrupt: 5, Cut: 6, Refuse: []lcd.Command{lcd.CmdBacklight, lcd.CmdCursorStyle}})
		d.Show(lcd.Busy("Waiting for the end of the day"))
		waitFor(t, s, "of the day")
		// An answer to a poll that is damaged takes its keys with it; a request that is lost does not.
		s.SetFaults(simulator.Faults{Drop: 2})
		s.Tap(lcd.KeyDown)
		if e := <-d.Keys(); e.Key != lcd.KeyDown || e.Release {
			t.Errorf("key %+v", e)
		}
		if e := <-d.Keys(); e.Key != lcd.KeyDown || !e.Release {
			t.Errorf("key %+v", e)
		}
		turns := map[string]bool{}
		for range 8 {
			turns[s.Screen().Lines()[1]] = true
			time.Sleep(time.Second)
		}
		if len(turns) < 3 {
			t.Errorf("the spinner stands: %v", turns)
		}
		// It answers no more: it is lost, and found when it answers again.
		s.SetFaults(simulator.Faults{Deaf: true})
		time.Sleep(10 * time.Second)
		if d.Model() != 0 {
			t.Error("deaf, and not missed")
		}
		s.SetFaults(simulator.Faults{})
		d.Show(lcd.Alarm(lcd.Text("alarm")))
		waitFor(t, s, "alarm")
		levels := map[int]bool{}
		for range 20 {
			levels[s.Screen().Backlight] = true
			time.Sleep(100 * time.Millisecond)
		}
		if len(levels) < 4 {
			t.Errorf("the backlight stands: %v", levels)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}
