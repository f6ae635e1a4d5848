package splash

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"gprovision/hw/lcd"
	"gprovision/hw/lcd/simulator"
	"gprovision/unit/state"
)

func begin(t *testing.T, s *simulator.LCD, patience time.Duration) (socket string, stop func(), done chan error) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "splash")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	d := lcd.NewDisplay(lcd.DisplayOptions{Dial: func(context.Context) (io.ReadWriteCloser, string, error) {
		ours, theirs := net.Pipe()
		go func() { _ = s.Serve(theirs) }()
		return ours, "simulator", nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	done = make(chan error, 1)
	go func() {
		done <- errors.Join(show(ctx, d, l, starting, patience), l.Close())
	}()
	return socket, cancel, done
}

func sees(t *testing.T, s *simulator.LCD, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := s.Wait(ctx, func(sc simulator.Screen) bool { return sc.Contains(text) }); err != nil {
		t.Errorf("%q: %v", text, err)
	}
}

func TestShow(t *testing.T) {
	s := simulator.New(lcd.Model631)
	before := s.Screen()
	socket, stop, done := begin(t, s, time.Minute)
	sees(t, s, starting)
	if err := end(t.Context(), socket); err != nil {
		t.Error(err)
	}
	// It returned. The display is free and in the state in which it was found.
	if sc := s.Screen(); !sc.Contains(Started) || sc.PressMask != before.PressMask || sc.RelMask != before.RelMask || sc.Backlight != before.Backlight {
		t.Errorf("it shows %q, %+v", sc.Lines(), sc)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	stop()
	if err := end(t.Context(), socket); err != nil {
		t.Errorf("told twice: %v", err)
	}

	s = simulator.New(lcd.Model635)
	_, stop, done = begin(t, s, 300*time.Millisecond)
	sees(t, s, "OS did not say")
	if err := <-done; err != nil {
		t.Error(err)
	}
	stop()

	s = simulator.New(lcd.Model635)
	_, stop, done = begin(t, s, time.Minute)
	sees(t, s, starting)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if sc := s.Screen(); sc.RelMask != lcd.Model635.KeyMask() || sc.Contains(Started) {
		t.Errorf("after the signal: %+v", sc)
	}
}

func TestFresh(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		restored, good time.Time
		want           bool
	}{
		{now, time.Time{}, true}, {now, now.Add(-time.Hour), true}, {now, now.Add(time.Hour), false}, {time.Time{}, time.Time{}, false}, {time.Time{}, now, false},
	} {
		if got := Fresh(state.Mark{Time: tc.restored}, state.Counts{LastGood: tc.good}); got != tc.want {
			t.Errorf("restored %v, good %v: %v", tc.restored, tc.good, got)
		}
	}
}
