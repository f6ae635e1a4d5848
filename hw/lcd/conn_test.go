package lcd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gprovision/hw/lcd"
	"gprovision/hw/lcd/simulator"
)

// plug connects a simulated LCD and returns the other end.
func plug(s *simulator.LCD) net.Conn {
	ours, theirs := net.Pipe()
	go func() { _ = s.Serve(theirs) }()
	return ours
}

func connect(t *testing.T, s *simulator.LCD) *lcd.Conn {
	t.Helper()
	c, err := lcd.Connect(t.Context(), plug(s), lcd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var models = []lcd.Model{lcd.Model631, lcd.Model635}

func TestCommands(t *testing.T) {
	for _, m := range models {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			s := simulator.New(m)
			before := s.Screen()
			c := connect(t, s)
			if c.Model() != m || c.Version() != "CFA"+m.String()+":h1.1,u2.0" {
				t.Errorf("found %v, %q", c.Model(), c.Version())
			}
			if st, ok := c.Found(); !ok || int(st.Backlight) != before.Backlight || st.Press != m.KeyMask() {
				t.Errorf("found %+v, %v", st, ok)
			}
			err := errors.Join(c.Clear(ctx), c.Write(ctx, 3, 1, lcd.Encode("hé [x]|$")), c.Cursor(ctx, 19, m.Rows()-1), c.CursorStyle(ctx, lcd.CursorInvertingBlock),
				c.Backlight(ctx, 77), c.Contrast(ctx, 120), c.ReportKeys(ctx, 0, 0xff), c.Legend(ctx, lcd.LegendUp), c.Lamp(ctx, 1, lcd.Lamp{Red: 100, Green: 30}),
				c.Glyph(ctx, 7, [8]byte{1, 2, 4, 8}), c.WriteFlash(ctx, []byte("gprov")))
			if err != nil {
				t.Fatal(err)
			}
			got := s.Screen()
			if got.Lines()[0] != "" && m == lcd.Model635 || got.Lines()[1][:11] != "   h? [x]|$" {
				t.Errorf("it shows %q", got.Lines())
			}
			if got.Cursor.Col != 19 || got.Cursor.Row != m.Rows()-1 || got.Style != lcd.CursorInvertingBlock || got.Backlight != 77 || got.Keypad != 77 || got.Contrast != 120 ||
				got.PressMask != 0 || got.RelMask != m.KeyMask() {
				t.Errorf("it is set to %+v", got)
			}
			if m == lcd.Model631 && (got.Legend != lcd.LegendUp || got.Lines()[0] != "                 ▲ ✓") || m == lcd.Model635 && got.Lamps[1] != (lcd.Lamp{Red: 100, Green: 30}) {
				t.Errorf("legend %v, lamps %v, %q", got.Legend, got.Lamps, got.Lines())
			}
			if b, err := c.ReadFlash(ctx); err != nil || string(b[:6]) != "gprov\x00" {
				t.Errorf("flash %q, %v", b, err)
			}
			for what, err := range map[string]error{
				"column": c.Write(ctx, 18, 0, []byte("abc")), "row": c.Write(ctx, 0, m.Rows(), []byte("a")), "empty": c.Write(ctx, 0, 0, nil), "cursor": c.Cursor(ctx, 20, 0),
				"backlight": c.Backlight(ctx, 101), "contrast": c.Contrast(ctx, 255), "lamp": c.Lamp(ctx, 4, lcd.Lamp{}), "glyph": c.Glyph(ctx, 8, [8]byte{}), "flash": c.WriteFlash(ctx, make([]byte, 17)),
			} {
				if !errors.Is(err, lcd.ErrRange) {
					t.Errorf("%s: %v", what, err)
				}
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			after := s.Screen()
			if after.Backlight != before.Backlight || after.Contrast != before.Contrast || after.PressMask != before.PressMask || after.RelMask != before.RelMask {
				t.Errorf("handed back as %+v", after)
			}
			if after.Lines()[1] != got.Lines()[1] {
				t.Errorf("the text is gone: %q", after.Lines())
			}
			if err := c.Clear(ctx); !errors.Is(err, lcd.ErrLost) {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	for _, m := range models {
		synctest.Test(t, func(t *testing.T) {
			s := simulator.New(m)
			c := connect(t, s)
			defer c.Close()
			if err := c.ReportKeys(t.Context(), 0xff, 0xff); err != nil {
				t.Fatal(err)
			}
			for _, k := range m.Keys() {
				s.Tap(k)
				for _, release := range []bool{false, true} {
					if e := <-c.Keys(); e.Key != k || e.Release != release {
						t.Errorf("%v: got %+v", k, e)
					}
				}
			}
			if p, err := c.PollKeys(t.Context()); err != nil || p != (lcd.Poll{Pressed: m.KeyMask(), Released: m.KeyMask()}) {
				t.Errorf("poll: %+v, %v", p, err)
			}
			s.Press(m.Keys()[2])
			if p, err := c.PollKeys(t.Context()); err != nil || p != (lcd.Poll{Down: m.Keys()[2].Mask(), Pressed: m.Keys()[2].Mask()}) {
				t.Errorf("poll: %+v, %v", p, err)
			}
			if e := <-c.Keys(); e.Code() != [3]byte{0, 15, 3}[m] {
				t.Errorf("code %d of %v", e.Code(), e)
			}
			// Nobody receives: nothing is stuck.
			for range 50 {
				s.Tap(m.Keys()[0])
			}
			if err := c.Ping(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// A line that loses and damages packets costs time and nothing else.
func TestRetries(t *testing.T) {
	for name, f := range map[string]simulator.Faults{
		"lost requests":      {Drop: 3},
		"damaged answers":    {Corrupt: 2},
		"incomplete answers": {Cut: 3},
		"slow":               {Delay: 250 * time.Millisecond},
		"all":                {Drop: 5, Corrupt: 4, Cut: 7, Delay: 20 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := simulator.New(lcd.Model635)
				c := connect(t, s)
				defer c.Close()
				s.SetFaults(f)
				began := time.Now()
				for i := range 30 {
					text := fmt.Sprintf("line %d", i)
					if err := c.Write(t.Context(), 0, i%4, lcd.Encode(text)); err != nil {
						t.Fatal(err)
					}
					if got := s.Screen().Lines()[i%4]; got[:len(text)] != text {
						t.Errorf("shows %q, want %q", got, text)
					}
				}
				if took := time.Since(began); took > 20*time.Second {
					t.Errorf("30 lines took %v", took)
				}
				s.SetFaults(simulator.Faults{})
			})
		})
	}
}

func TestNoReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulator.New(lcd.Model631)
		c := connect(t, s)
		s.SetFaults(simulator.Faults{Deaf: true})
		began := time.Now()
		if err := c.Clear(t.Context()); !errors.Is(err, lcd.ErrNoReply) {
			t.Errorf("deaf: %v", err)
		}
		if took := time.Since(began); took < 1800*time.Millisecond || took > 2*time.Second {
			t.Errorf("gave up after %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Clear(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cancelled: %v", err)
		}
		s.SetFaults(simulator.Faults{Refuse: []lcd.Command{lcd.CmdClear}})
		var refused *lcd.RefusedError
		began = time.Now()
		if err := c.Clear(t.Context()); !errors.As(err, &refused) || refused.Command != lcd.CmdClear || time.Since(began) > 100*time.Millisecond {
			t.Errorf("refused after %v: %v", time.Since(began), err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A device that is no LCD is left alone soon.
func TestForeignDevice(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"silent": func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"echo":   func(c net.Conn) { _, _ = io.Copy(c, c) },
		"chatty": func(c net.Conn) {
			go func() { _, _ = io.Copy(io.Discard, c) }()
			for {
				if _, err := c.Write([]byte("login: \x40\x05")); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		},
		"gone": func(c net.Conn) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				go serve(theirs)
				began := time.Now()
				if _, err := lcd.Connect(t.Context(), ours, lcd.Options{}); err == nil {
					t.Error("taken for an LCD")
				}
				if took := time.Since(began); took > time.Second {
					t.Errorf("it took %v", took)
				}
				theirs.Close()
				time.Sleep(time.Second) // of the bubble: whatever serves ends
			})
		})
	}
	if _, err := lcd.ParseModel("PowerPanel 1.0"); err == nil {
		t.Error("a foreign version is taken for an LCD")
	}
	for version, want := range map[string]lcd.Model{"CFA635:h1.1,u2.0": lcd.Model635, "cfa635:h1.0": lcd.Model635, "CFA631:h1.3,u1.0": lcd.Model631, "CFA633:h1.5": lcd.Model631} {
		if m, err := lcd.ParseModel(version); err != nil || m != want {
			t.Errorf("%s: %v, %v", version, m, err)
		}
	}
}

// Packets keep their distance.
func TestGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, simulator.New(lcd.Model635))
		defer c.Close()
		began := time.Now()
		for range 10 {
			if err := c.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 100*time.Millisecond {
			t.Errorf("10 packets took %v", took)
		}
	})
}

func TestFade(t *testing.T) {
	var got []int
	for i := range 20 {
		got = append(got, lcd.Fade(lcd.Model631, i))
	}
	if want := []int{8, 0xb, 0xe, 0x11, 0x13, 0x16, 0x18, 0x19, 0x1b, 0x1b, 0x1c, 0x1b, 0x1b, 0x19, 0x18, 0x16, 0x13, 0x11, 0xe, 0xb}; !slices.Equal(got, want) {
		t.Errorf("631: %x", got)
	}
	got = nil
	for i := range 20 {
		got = append(got, lcd.Fade(lcd.Model635, i))
	}
	if want := []int{0, 0xf, 0x1e, 0x2d, 0x3a, 0x46, 0x50, 0x59, 0x5f, 0x62, 0x64, 0x62, 0x5f, 0x59, 0x50, 0x46, 0x3a, 0x2d, 0x1e, 0xf}; !slices.Equal(got, want) {
		t.Errorf("635: %x", got)
	}
}
