package pid1

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"gprovision/model/fault"
)

// TestPause: a unit that holds for the same reason waits longer each time, and never for ever.
func TestPause(t *testing.T) {
	for _, f := range []*fault.Fault{fault.MainMissing, fault.NoNetwork} {
		last := time.Duration(0)
		for n := range 40 {
			p := pause(f, n)
			if p < last || p > time.Hour || n == 1 && p <= last {
				t.Fatalf("%s: pause %d is %s after %s", f.Code, n, p, last)
			}
			last = p
		}
	}
	if p := pause(fault.BurnInFailed, 0); p < 365*24*time.Hour || until(p) != "when somebody wants it" || until(time.Minute) != "1m0s" {
		t.Errorf("what has failed its burn-in tries again after %s, %s", p, until(p))
	}
}

// TestPlausible: which clocks an artifact believes.
func TestPlausible(t *testing.T) {
	build := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for clock, want := range map[time.Time]bool{
		time.Unix(0, 0): false, build.Add(-time.Second): false, build: true, build.AddDate(1, 0, 0): true, build.AddDate(10, 0, 0): true,
		build.AddDate(10, 0, 1): false, time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC): false,
	} {
		if got := plausible(clock, build); got != want {
			t.Errorf("%s: %t", clock, got)
		}
	}
}

// TestGuard: a panic is the failure of what ran, and is logged with its place.
func TestGuard(t *testing.T) {
	var log bytes.Buffer
	u := testUnit(t, &log)
	if err := u.guard("work", func() error { panic("odd") }); fault.Of(err) != fault.Internal || !strings.Contains(err.Error(), "odd") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(log.String(), "odd") || !strings.Contains(log.String(), "pid1_test.go") {
		t.Errorf("the log has %s", log.String())
	}
	if err := u.guard("work", func() error { return nil }); err != nil {
		t.Error(err)
	}
}
