package pid1

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	timer timer // nil if there is none, or it was given away
	// booting reports whether nobody pets it any more, since the running system must take over in time.
	booting bool
	// fact is what the running system is told of it.
	fact   state.Watchdog
	kernel *doors
	log    *slog.Logger
}

// armWatchdog starts the watchdog, if there is one and the policy wants it, and keeps petting it until it is given away or ctx ends.
func (u *unit) armWatchdog(ctx context.Context) {
	if u.m.Policy.Watchdog() == 0 {
		return
	}
	t, err := u.kernel.Watchdog()
	if errors.Is(err, watchdog.ErrNone) {
		u.log.Debug("no watchdog")
		return
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
		tick := time.NewTicker(petting)
		defer tick.Stop()
		for u.dog.pet() {
			select {
			case <-tick.C:
			case <-ctx.Done():
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
	if !g.booting {
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
	g.booting = true
	got, err := g.timer.SetTimeout(d)
	g.fact.Seconds = int(got / time.Second)
	return err
}

// Resume goes back to petting after a boot that did not come to its hand-over.
func (g *guardian) Resume() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.timer == nil || !g.booting {
		return nil
	}
	g.booting = false
	_, err := g.timer.SetTimeout(alive)
	return err
}

// Unfreeze suspends the machine for some seconds with the watchdog stopped.
func (g *guardian) Unfreeze() error {
	g.mu.Lock() // who pets it waits
	defer g.mu.Unlock()
	if g.timer == nil {
		return g.kernel.Unfreeze()
	}
	err := g.timer.Stop() // ends its use in any case
	if err == nil {
		err = g.kernel.Unfreeze()
	} else {
		err = fmt.Errorf("the machine stays awake: %w", err)
	}
	g.timer = nil
	t, again := g.kernel.Watchdog()
	if again == nil {
		g.timer = t
		_, again = t.SetTimeout(alive)
	}
	if again != nil {
		g.log.Warn("watchdog is not as before the machine slept", "err", again)
	}
	return err
}

// leaveForReboot ends the petting and gives the machine time to reboot. If that hangs, the watchdog ends it.
func (g *guardian) leaveForReboot() error {
	t := g.take()
	if t == nil {
		return nil
	}
	_, err := t.SetTimeout(reboots)
	return errors.Join(err, t.Leave())
}

// stopForPowerOff stops the watchdog: it must not start a machine that is off.
func (g *guardian) stopForPowerOff() error {
	t := g.take()
	if t == nil {
		return nil
	}
	return t.Stop()
}

// take returns the timer, which nobody pets any more. It is nil if there is none.
func (g *guardian) take() timer {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.timer
	g.timer = nil
	return t
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
