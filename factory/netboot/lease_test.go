package netboot

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestLeaseFlood: more machines than there are addresses request one, and take none. A machine that comes later still
// gets an address and keeps it.
func TestLeaseFlood(t *testing.T) {
	r := Range{netip.MustParseAddr("10.7.0.100"), netip.MustParseAddr("10.7.0.109")}
	l := newLeases(r, netip.MustParseAddr("10.7.0.1"))
	now := time.Unix(1000, 0)
	l.now = func() time.Time { now = now.Add(time.Millisecond); return now }
	flood := func(n int) {
		for i := range n {
			if _, err := l.offer(fmt.Sprint("flood", n, i), netip.Addr{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	flood(50)
	ip, err := l.offer("unit", netip.Addr{})
	if err != nil {
		t.Fatal("the flood took all addresses:", err)
	}
	flood(9) // while the unit makes up its mind
	if !l.confirm("unit", ip) {
		t.Fatal("the offer is gone")
	}
	flood(51)
	if got, err := l.offer("unit", netip.Addr{}); err != nil || got != ip {
		t.Error("the lease is gone:", got, err)
	}
	if len(l.byHW) > 10 || len(l.byIP) > 10 {
		t.Errorf("%d clients, %d addresses", len(l.byHW), len(l.byIP))
	}
}
