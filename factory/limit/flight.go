package limit

import (
	"sync"
	"time"
)

// Flight bounds what is under way at the same time: how many calls, and how many bytes they may hold in memory. Nobody can fill it for
// long: who comes when it is full takes the place of the oldest call of the key that has most, if that one has more than the newcomer and
// still waits for its sender. It is safe for concurrent use.
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
	cancel func() // nil: it does not wait for anybody
}

// NewFlight returns a Flight for so many calls and bytes, of them at most perKey calls of one key.
func NewFlight(calls int, bytes int64, perKey int) *Flight {
	return &Flight{calls: calls, bytes: bytes, perKey: perKey}
}

// Enter begins a call of a key that will hold bytes. cancel makes it end soon: it is called, at most once, if the call has to make room,
// and before Enter returns. received says that the call has all from its sender, so that it need not go any more; leave ends it.
// ok is false if there is no room.
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

// victim returns the oldest call that waits, of the key that has most of them and more than so many calls, or nil.
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

// remove forgets a call; one that is forgotten already is none.
func (f *Flight) remove(c *call) {
	for i, o := range f.open {
		if o == c {
			f.open = append(f.open[:i], f.open[i+1:]...)
			f.held -= c.bytes
			return
		}
	}
}

// BodyTime is how long the body of a request may take to arrive: ten seconds, and one more for each 64 KiB.
func BodyTime(bytes int64) time.Duration {
	return 10*time.Second + time.Duration(bytes/(64<<10))*time.Second
}
