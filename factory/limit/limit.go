// Package limit slows down clients that ask too often. Each key, such as a network address, has a token bucket.
//
// It keeps a limited number of keys. When there are too many, it forgets the fullest buckets. The only effect is a
// milder limit for the clients that have asked least.
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

// Limiter allows each key a burst of calls, which is refilled at a rate. It is safe for concurrent use.
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

// New returns a Limiter that allows burst calls at once, and one more for each period of length every.
func New(burst int, every time.Duration) *Limiter {
	return &Limiter{every: every, burst: burst, now: time.Now, buckets: map[string]bucket{}}
}

// Allow takes one call from the bucket of key and reports whether there was one.
func (l *Limiter) Allow(key string) bool {
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
		b.left--
	}
	l.buckets[key] = b
	return allowed
}

// Give puts one call back into the bucket of key.
func (l *Limiter) Give(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b, ok := l.buckets[key]; ok {
		b.left = min(float64(l.burst), b.left+1)
		l.buckets[key] = b
	}
}

// prune forgets full buckets and, if that is not enough, the fullest half of the others. The keys that have asked
// most are kept.
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

// Remote returns an address without its port, as a key. It shortens an IPv6 address to its /64.
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
