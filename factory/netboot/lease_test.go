package netboot

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestLeaseFlood has more machines ask for an address than there are, and take none: one that comes then gets its address, and keeps it.
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
	flood(9) // while the unit decides
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
