package limit

import (
	"sync"
	"time"
)

// Flight limits the calls that are under way at the same time: their number, and the bytes that they hold in memory. No key can keep it
// full. When it is full, a new call takes the place of another one: the oldest of the key with most calls, provided that this key has more
// of them than the new call's and that the call still waits for its sender. It is safe for concurrent use.
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
	cancel func() // nil: the call does not wait for its sender any more
}

// NewFlight returns a Flight for at most so many calls and bytes, and at most perKey calls of one key.
func NewFlight(calls int, bytes int64, perKey int) *Flight {
	return &Flight{calls: calls, bytes: bytes, perKey: perKey}
}

// Enter begins a call of a key that will hold bytes. It is not ok if there is no room. The caller calls received when the call has all data
// from its sender, after which the call keeps its place, and leave when the call ends. cancel must make the call end soon. It is called at
// most once, if the call has to make room, possibly before Enter returns.
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

// victim returns the oldest of the waiting calls whose key has most calls, or nil if no key with a waiting call has more calls than more.
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

// remove forgets a call. It may be repeated.
func (f *Flight) remove(c *call) {
	for i, o := range f.open {
		if o == c {
			f.open = append(f.open[:i], f.open[i+1:]...)
			f.held -= c.bytes
			return
		}
	}
}

// BodyTime returns how long the body of a request may take to arrive: ten seconds, and one more for each 64 KiB.
func BodyTime(bytes int64) time.Duration {
	return 10*time.Second + time.Duration(bytes/(64<<10))*time.Second
}
