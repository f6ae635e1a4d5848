package api

import "sync"

// Hub tells those who watch that something about a unit has changed. It is safe for concurrent use, and its zero value is
// ready.
type Hub struct {
	mu   sync.Mutex
	subs map[chan string]bool
}

// Publish says that something about a unit has changed. It never waits: a watcher that is too slow misses changes and is told
// so with an empty name, on which it should look at everything anew.
func (h *Hub) Publish(unit string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ch := range h.subs {
		select {
		case ch <- unit:
		default:
			select { // make room for the one message that says it all
			case <-ch:
			default:
			}
			select {
			case ch <- "":
			default:
			}
		}
	}
}

// Subscribe returns a channel of the names of units that change, and a function that ends it. The channel is not closed.
func (h *Hub) Subscribe() (<-chan string, func()) {
	ch := make(chan string, 64)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs == nil {
		h.subs = map[chan string]bool{}
	}
	h.subs[ch] = true
	return ch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.subs, ch)
	}
}
