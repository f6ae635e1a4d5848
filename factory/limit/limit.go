// Package limit slows down who asks too often: a token bucket for each key, such as a network address.
//
// It keeps a bounded number of keys. When there are too many, the fullest buckets are forgotten, which only ever makes the
// limit milder for those who asked least.
package limit

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

const maxKeys = 4096

// Limiter allows each key a burst of calls, refilled at a rate. It is safe for concurrent use.
type Limiter struct {
	every time.Duration
	burst int
	now   func() time.Time

	mu      sync.Mutex
	buckets map[string]bucket
}

type bucket struct {
	left float64
	at   time.Time
}

// New returns a Limiter that allows burst calls at once and one more after each pause of every.
func New(burst int, every time.Duration) *Limiter {
	return &Limiter{every: every, burst: burst, now: time.Now, buckets: map[string]bucket{}}
}

// Allow takes one call of key from its bucket and reports whether there was one.
func (l *Limiter) Allow(key string) bool { return l.take(key, 1) }

// Ready reports whether key has a call left, without taking it.
func (l *Limiter) Ready(key string) bool { return l.take(key, 0) }

// Give puts one call of key back into its bucket.
func (l *Limiter) Give(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b, ok := l.buckets[key]; ok {
		b.left = min(float64(l.burst), b.left+1)
		l.buckets[key] = b
	}
}

func (l *Limiter) take(key string, n float64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	b, ok := l.buckets[key]
	if !ok {
		if len(l.buckets) >= maxKeys {
			l.prune(now)
		}
		b = bucket{left: float64(l.burst), at: now}
	}
	b.left = min(float64(l.burst), b.left+float64(now.Sub(b.at))/float64(l.every))
	b.at = now
	allowed := b.left >= 1
	if allowed {
		b.left -= n
	}
	l.buckets[key] = b
	return allowed
}

// prune forgets full buckets, and the fullest half of the others if that is not enough: who has asked most stays known.
func (l *Limiter) prune(now time.Time) {
	left := func(b bucket) float64 { return b.left + float64(now.Sub(b.at))/float64(l.every) }
	for k, b := range l.buckets {
		if left(b) >= float64(l.burst) {
			delete(l.buckets, k)
		}
	}
	if len(l.buckets) < maxKeys/2 {
		return
	}
	keys := slices.SortedFunc(maps.Keys(l.buckets), func(a, b string) int { return cmp.Compare(left(l.buckets[b]), left(l.buckets[a])) })
	for _, k := range keys[:len(keys)-maxKeys/2] {
		delete(l.buckets, k)
	}
}

// Remote returns the address without its port, as a key. IPv6 addresses are cut to their /64.
func Remote(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
		return ip.Mask(net.CIDRMask(64, 128)).String()
	}
	return host
}
