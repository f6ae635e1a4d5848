package pid1

import (
	"errors"
	"sync"
	"time"

	"gprovision/hw/watchdog"
	"gprovision/unit/state"
)

const (
	// alive is how long the watchdog waits while init runs.
	alive = 60 * time.Second
	// petting is how often init pets it.
	petting = 10 * time.Second
	// reboots is how long it waits for a machine that reboots, its firmware included: a driver may leave it running.
	reboots = 10 * time.Minute
)

// guardian keeps the hardware watchdog from resetting the machine while init lives. The zero value has none.
type guardian struct {
	mu    sync.Mutex
	timer *watchdog.Timer // nil: there is none, or it was given away
	watch bool            // nobody pets it any more: the running system must take over in time
	fact  state.Watchdog
}

// armWatchdog starts the watchdog, if there is one and the policy wants it, and keeps petting it.
func (u *unit) armWatchdog() {
	if u.m.Policy.Watchdog() == 0 {
		return
	}
	dev, err := watchdog.Find(u.m.Sys)
	if errors.Is(err, watchdog.ErrNone) {
		u.log.Debug("no watchdog")
		return
	}
	var t *watchdog.Timer
	if err == nil {
		t, err = watchdog.Open(dev)
	}
	if err != nil {
		u.log.Warn("watchdog cannot be used", "err", err)
		return
	}
	d, err := t.SetTimeout(alive)
	if err != nil {
		u.log.Warn("watchdog keeps the time of its driver", "err", err)
	}
	u.dog.timer = t
	u.memory.Expired = t.Expired()
	u.dog.fact = state.Watchdog{Device: t.Path(), Identity: t.Identity(), Expired: t.Expired()}
	u.log.Info("watchdog armed", "device", t.Path(), "identity", t.Identity(), "timeout", d.String(), "ended the last boot", t.Expired())
	u.background("pet watchdog", func() {
		for range time.Tick(petting) {
			if !u.dog.pet() {
				return
			}
		}
	})
}

// pet pets the watchdog while init shall, and reports whether there still is one.
func (g *guardian) pet() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.timer == nil {
		return false
	}
	if !g.watch {
		_ = g.timer.Pet() // there is nobody to tell but the watchdog itself
	}
	return true
}

// WatchBoot stops petting: from now on the unit has the given time to start its system.
func (g *guardian) WatchBoot(d time.Duration) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.timer == nil {
		return nil
	}
	g.watch = true
	got, err := g.timer.SetTimeout(d)
	g.fact.Seconds = int(got / time.Second)
	return err
}

// Resume goes back to petting after a boot that did not come to its hand-over.
func (g *guardian) Resume() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.timer == nil || !g.watch {
		return nil
	}
	g.watch = false
	_, err := g.timer.SetTimeout(alive)
	return err
}

// end is for a machine that goes off or reboots. A reboot that hangs is ended by the watchdog.
func (g *guardian) end(off bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.timer
	g.timer = nil // nobody pets it any more
	if t == nil {
		return nil
	}
	if off {
		return t.Stop()
	}
	_, err := t.SetTimeout(reboots)
	return errors.Join(err, t.Leave())
}

// Told returns what the running system is told of a watchdog that is handed over.
func (g *guardian) Told(taken bool) state.Watchdog {
	g.mu.Lock()
	defer g.mu.Unlock()
	told := g.fact
	told.Running = told.Running || taken && g.timer != nil
	return told
}

// HandOver gives the watchdog to the running system: it runs on if that takes it over, and is stopped otherwise.
func (g *guardian) HandOver(taken bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.timer
	g.timer = nil
	switch {
	case t == nil:
		return nil
	case taken:
		g.fact.Running = true
		return t.Leave()
	}
	return t.Stop()
}
