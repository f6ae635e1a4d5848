package api

import "sync"

// Hub notifies watchers that something about a unit has changed. It is safe for concurrent use, and its zero value is ready.
type Hub struct {
	mu   sync.Mutex
	subs map[chan string]bool
}

// Publish notifies the watchers that something about a unit has changed. It never waits. A watcher that is too slow
// misses changes and gets an empty name. It should then read everything again.
func (h *Hub) Publish(unit string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ch := range h.subs {
		select {
		case ch <- unit:
		default:
			select { // make room for the one message that stands for all
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

// Subscribe returns a channel with the names of units that change, and a function that ends the subscription. The channel is never closed.
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
