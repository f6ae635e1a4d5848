package limit

import (
	"sync"
	"time"
)

// Flight limits the calls in progress: their number, and the bytes that they hold in memory. No single key can fill
// it. When it is full, a new call may replace another: the oldest of the key with the most calls. That key must have
// more calls than the key of the new call, and the call must still be waiting for its sender. A Flight is safe for
// concurrent use.
type Flight struct {
	calls, perKey int
	bytes         int64

	mu   sync.Mutex
	open []*call // oldest first
	held int64
}

type call struct {
	key    string
	bytes  int64
	cancel func() // nil: the call no longer waits for its sender
}

// NewFlight returns a Flight for at most calls calls of together bytes bytes, and at most perKey calls of one key.
func NewFlight(calls int, bytes int64, perKey int) *Flight {
	return &Flight{calls: calls, bytes: bytes, perKey: perKey}
}

// Enter starts a call of a key that will hold bytes. ok is false if there is no room. The caller calls received once
// it has all data from the sender. From then on the call keeps its place. The caller calls leave when the call ends.
// cancel must make the call end soon. It is called at most once, if the call must make room, possibly before Enter
// returns.
func (f *Flight) Enter(key string, bytes int64, cancel func()) (received, leave func(), ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	mine := f.count(key)
	if mine >= f.perKey || bytes > f.bytes {
		return nil, nil, false
	}
	for len(f.open) >= f.calls || f.held+bytes > f.bytes {
		victim := f.victim(mine + 1)
		if victim == nil {
			return nil, nil, false
		}
		victim.cancel()
		f.remove(victim)
	}
	c := &call{key: key, bytes: bytes, cancel: cancel}
	f.open = append(f.open, c)
	f.held += bytes
	received = func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		c.cancel = nil
	}
	leave = func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.remove(c)
	}
	return received, leave, true
}

func (f *Flight) count(key string) int {
	n := 0
	for _, c := range f.open {
		if c.key == key {
			n++
		}
	}
	return n
}

// victim returns the oldest waiting call of the key with the most calls. It returns nil if no key with a waiting call
// has more than more calls.
func (f *Flight) victim(more int) *call {
	var worst *call
	most := more
	for _, c := range f.open {
		if n := f.count(c.key); c.cancel != nil && n > most {
			worst, most = c, n
		}
	}
	return worst
}

// remove removes a call. It may be repeated.
func (f *Flight) remove(c *call) {
	for i, o := range f.open {
		if o == c {
			f.open = append(f.open[:i], f.open[i+1:]...)
			f.held -= c.bytes
			return
		}
	}
}

// BodyTime returns how long the body of a request may take to arrive: ten seconds, plus one for each 64 KiB.
func BodyTime(bytes int64) time.Duration {
	return 10*time.Second + time.Duration(bytes/(64<<10))*time.Second
}
