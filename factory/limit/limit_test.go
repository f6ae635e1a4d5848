package limit

import (
	"fmt"
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	now := time.Unix(0, 0)
	l := New(2, time.Second)
	l.now = func() time.Time { return now }
	for i, want := range []bool{true, true, false} {
		if l.Allow("a") != want {
			t.Errorf("call %d of a burst of two: %t", i+1, !want)
		}
	}
	if !l.Allow("b") {
		t.Error("one key hinders another")
	}
	now = now.Add(time.Second)
	if !l.Allow("a") || l.Allow("a") {
		t.Error("not one more after a second")
	}
	for i := range 3 * maxKeys {
		l.Allow(fmt.Sprint(i))
	}
	if len(l.buckets) > maxKeys {
		t.Errorf("%d buckets", len(l.buckets))
	}
	for in, want := range map[string]string{"10.0.0.1:80": "10.0.0.1", "[2001:db8::1]:80": "2001:db8::", "x": "x"} {
		if got := Remote(in); got != want {
			t.Errorf("Remote(%q) = %q", in, got)
		}
	}
}
