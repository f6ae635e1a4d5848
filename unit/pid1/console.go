package pid1

import (
	"context"
	"io"

	"gprovision/hw/console"
	"gprovision/model/policy"
	"gprovision/unit/panel"
)

// keys returns the keys of a console, or nil where the policy takes none from it.
func (u *unit) keys(t *console.TTY) <-chan panel.Key {
	kind := policy.Serial
	if console.IsScreen(t.Name()) {
		kind = policy.Keyboard
	}
	if !u.m.Policy.Takes(kind) {
		return nil
	}
	if err := t.Raw(); err != nil {
		u.log.Warn("console takes no keys", "device", t.Name(), "err", err)
		return nil
	}
	u.ttys = append(u.ttys, t)
	return panel.Typed(console.Keys(t))
}

// leave gives consoles and display to the installed system as they were; enter takes them again if that does not start.
func (u *unit) leave(ctx context.Context, root string) {
	u.consoles((*console.TTY).Restore)
	u.startSplash(ctx, root)
}

func (u *unit) enter() {
	u.consoles((*console.TTY).Raw)
	u.endSplash()
}

func (u *unit) consoles(do func(*console.TTY) error) {
	for _, t := range u.ttys {
		if err := do(t); err != nil {
			u.log.Warn("console", "device", t.Name(), "err", err)
		}
	}
}

// print writes text to a console that takes keys; "" means all of them.
func (u *unit) print(console, text string) {
	for _, t := range u.ttys {
		if console != "" && t.Name() != console {
			continue
		}
		if _, err := io.WriteString(t, text); err != nil {
			u.log.Debug("console", "device", t.Name(), "err", err)
		}
	}
}
