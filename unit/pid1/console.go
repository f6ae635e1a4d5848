package pid1

import (
	"context"
	"io"
	"log/slog"
	"time"

	"gprovision/hw/console"
	"gprovision/model/policy"
	"gprovision/unit/journal"
	"gprovision/unit/panel"
)

// beepHertz is how high the speaker's tone is.
const beepHertz = 880

// attachConsoles shows panels and log on every console that the kernel uses.
func (u *unit) attachConsoles() {
	u.terminals.log = u.log
	filter := journal.Filter{Level: slog.LevelInfo}
	if u.args.Verbose {
		filter.Level = slog.LevelDebug
	}
	for _, device := range console.Active(u.m.Sys) {
		f, err := u.kernel.Console(device)
		if err != nil {
			u.log.Debug("console cannot be opened", "device", device, "err", err)
			continue
		}
		kind := policy.Serial
		if console.IsScreen(device) {
			kind = policy.Keyboard
		}
		var keys <-chan panel.Key
		if u.m.Policy.Takes(kind) {
			keys = u.terminals.takeKeys(f)
		}
		u.m.Panel.Add(device, panel.Console(f, panel.ConsoleOptions{Terminal: console.IsScreen(device), Keys: keys, Size: f.Size}))
		if console.IsScreen(device) { // the speaker is reached through it
			u.m.Panel.Add(device+" speaker", panel.Speaker(func(d time.Duration) error { return f.Beep(beepHertz, d) }))
		}
		if err := u.journal.Attach(device, journal.Console(f, filter)); err != nil {
			u.log.Debug("console cannot be used", "device", device, "err", err)
		}
	}
}

// terminals are the consoles that take keys.
type terminals struct {
	log *slog.Logger
	all []*console.TTY
}

// takeKeys adds a console and returns its keys. They are nil if it has none to give.
func (x *terminals) takeKeys(t *console.TTY) <-chan panel.Key {
	if err := t.Raw(); err != nil {
		x.log.Warn("console takes no keys", "device", t.Name(), "err", err)
		return nil
	}
	x.all = append(x.all, t)
	return panel.Typed(console.Keys(t))
}

// restore makes the consoles what they were before init took their keys.
func (x *terminals) restore() { x.each((*console.TTY).Restore) }

// retake undoes restore.
func (x *terminals) retake() { x.each((*console.TTY).Raw) }

func (x *terminals) each(do func(*console.TTY) error) {
	for _, t := range x.all {
		if err := do(t); err != nil {
			x.log.Warn("console", "device", t.Name(), "err", err)
		}
	}
}

// print writes text to a console by its device node, or to all of them if that is empty.
func (x *terminals) print(device, text string) {
	for _, t := range x.all {
		if device != "" && t.Name() != device {
			continue
		}
		if _, err := io.WriteString(t, text); err != nil {
			x.log.Debug("console", "device", t.Name(), "err", err)
		}
	}
}

// leaveScreens gives consoles and display to the system mounted on root.
func (u *unit) leaveScreens(ctx context.Context, root string) {
	u.terminals.restore()
	u.startSplash(ctx, root)
}

// retakeScreens takes consoles and display back from a system that does not start.
func (u *unit) retakeScreens() {
	u.terminals.retake()
	u.endSplash()
}
