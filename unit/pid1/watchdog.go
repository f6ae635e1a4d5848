package pid1

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
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

// pet pets the watchdog while init shall, and says whether there still is one.
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

// watchBoot stops petting: from now on the unit has the given time to start its system.
func (g *guardian) watchBoot(d time.Duration) error {
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

// resume goes back to petting after a boot that did not come to its hand-over.
func (g *guardian) resume() error {
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

// handOver gives the watchdog to the running system: it runs on if that takes it over, and is stopped otherwise. It returns what
// the running system is told.
func (g *guardian) handOver(taken bool) (state.Watchdog, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.timer == nil {
		return g.fact, nil
	}
	var err error
	if taken {
		g.fact.Running = true
		err = g.timer.Leave()
	} else {
		err = g.timer.Stop()
	}
	g.timer = nil
	return g.fact, err
}

// bootOK is the link that enables gprov-unit's service, which stops the watchdog if nobody else has it.
const bootOK = "etc/systemd/system/multi-user.target.wants/gprov-boot-ok.service"

// takesOver says whether the installed system takes over a watchdog that runs: its systemd is told to (RuntimeWatchdogSec,
// systemd-system.conf(5)), or its boots are marked good by our service.
func takesOver(root fs.FS) bool {
	if _, err := fs.Lstat(root, bootOK); err == nil {
		return true
	}
	// A file of the same name in etc hides the one in usr/lib; names are sorted over all directories; the last value counts.
	files := map[string]string{}
	for _, dir := range []string{"usr/lib/systemd", "etc/systemd"} {
		if _, err := fs.Stat(root, dir+"/system.conf"); err == nil {
			files[""] = dir + "/system.conf"
		}
		list, _ := fs.Glob(root, dir+"/system.conf.d/*.conf")
		for _, f := range list {
			files[path.Base(f)] = f
		}
	}
	var names []string
	for n := range files {
		names = append(names, n)
	}
	slices.SortFunc(names, cmp.Compare[string])
	value := ""
	for _, n := range names {
		if v, ok := setting(root, files[n], "RuntimeWatchdogSec"); ok {
			value = v
		}
	}
	switch strings.ToLower(value) {
	case "", "0", "0s", "off", "no", "infinity":
		return false
	}
	return true
}

const maxConf = 1 << 20

// setting returns the last value of a key in a file of systemd's form.
func setting(root fs.FS, name, key string) (value string, ok bool) {
	st, err := fs.Stat(root, name)
	if err != nil || !st.Mode().IsRegular() || st.Size() > maxConf {
		return "", false
	}
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(b)) {
		k, v, is := strings.Cut(line, "=")
		if is && strings.TrimSpace(k) == key {
			value, ok = strings.TrimSpace(v), true
		}
	}
	return value, ok
}

// systemTakesOver is takesOver for the mounted main system.
func (u *unit) systemTakesOver() (bool, error) {
	r, err := os.OpenRoot(u.m.Places.Main)
	if err != nil {
		return false, err
	}
	defer r.Close()
	return takesOver(r.FS()), nil
}
