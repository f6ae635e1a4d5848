package netboot

import (
	"errors"
	"hash/fnv"
	"net/netip"
	"sync"
	"time"
)

const (
	leaseTime   = time.Hour
	offerTime   = 2 * time.Minute  // how long to keep an offered address for a client that has not requested it yet
	declineTime = 10 * time.Minute // how long to keep back an address that a client found in use
)

// errNoAddress means that all addresses of the range are taken.
var errNoAddress = errors.New("all addresses of the range are taken")

// leases hands out the addresses of a range. The hardware address of a client determines its first choice. So the
// client gets the same address each time, even after a restart of the server, unless two clients have the same first
// choice.
type leases struct {
	r    Range
	self netip.Addr
	now  func() time.Time

	mu   sync.Mutex
	byHW map[string]lease
	byIP map[netip.Addr]string // hardware address, or "" for a declined one
	bad  map[netip.Addr]time.Time
}

type lease struct {
	ip    netip.Addr
	until time.Time
	// taken reports whether the client has requested the address. If not, it was only offered.
	taken bool
}

func newLeases(r Range, self netip.Addr) *leases {
	return &leases{r: r, self: self, now: time.Now, byHW: map[string]lease{}, byIP: map[netip.Addr]string{}, bad: map[netip.Addr]time.Time{}}
}

// offer returns the address for a client and reserves it for a while. wish is the address that the client prefers. It
// counts only if it is valid and free.
func (l *leases) offer(hw string, wish netip.Addr) (netip.Addr, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if le, ok := l.byHW[hw]; ok && l.usable(le.ip, hw, now) {
		if until := now.Add(offerTime); until.After(le.until) {
			l.byHW[hw] = lease{le.ip, until, le.taken}
		}
		return le.ip, nil
	}
	take := func(ip netip.Addr) (netip.Addr, error) {
		if old, ok := l.byIP[ip]; ok && old != hw {
			delete(l.byHW, old)
		}
		if old, ok := l.byHW[hw]; ok {
			delete(l.byIP, old.ip)
		}
		l.byHW[hw], l.byIP[ip] = lease{ip, now.Add(offerTime), false}, hw
		return ip, nil
	}
	if wish.IsValid() && l.r.contains(wish) && l.usable(wish, hw, now) {
		return take(wish)
	}
	h := fnv.New32a()
	h.Write([]byte(hw))
	n := l.r.size()
	first := h.Sum32() % n
	for _, evict := range []bool{false, true} { // give away the remembered address of an absent client only if no other is free
		for i := range n {
			ip := l.r.at((first + i) % n)
			if _, used := l.byIP[ip]; (evict || !used) && l.usable(ip, hw, now) {
				return take(ip)
			}
		}
	}
	// The oldest offer that nobody took makes room. So a client that floods the network with requests keeps no
	// address from others.
	oldest := ""
	for other, le := range l.byHW {
		if !le.taken && !now.Before(l.bad[le.ip]) && (oldest == "" || le.until.Before(l.byHW[oldest].until) || le.until.Equal(l.byHW[oldest].until) && other < oldest) {
			oldest = other
		}
	}
	if oldest != "" {
		return take(l.byHW[oldest].ip)
	}
	return netip.Addr{}, errNoAddress
}

// usable reports whether hw may have ip now.
func (l *leases) usable(ip netip.Addr, hw string, now time.Time) bool {
	if ip == l.self || now.Before(l.bad[ip]) {
		return false
	}
	holder, ok := l.byIP[ip]
	return !ok || holder == hw || !now.Before(l.byHW[holder].until)
}

// confirm turns the address of a client into a lease. It reports whether the client may have the address.
func (l *leases) confirm(hw string, ip netip.Addr) bool {
	if !l.r.contains(ip) {
		return false
	}
	if got, err := l.offer(hw, ip); err != nil || got != ip {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.byHW[hw] = lease{ip, l.now().Add(leaseTime), true}
	return true
}

// release ends the lease of a client but remembers its address.
func (l *leases) release(hw string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if le, ok := l.byHW[hw]; ok {
		l.byHW[hw] = lease{le.ip, l.now(), false}
	}
}

// decline keeps back an address for a while, because the client found it in use.
func (l *leases) decline(hw string, ip netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if le, ok := l.byHW[hw]; ok && le.ip == ip {
		delete(l.byHW, hw)
		delete(l.byIP, ip)
		l.bad[ip] = l.now().Add(declineTime)
	}
}
