package pid1

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"gprovision/hw/console"
	"gprovision/hw/host"
	"gprovision/hw/lcd"
	"gprovision/model/platform"
	"gprovision/unit/panel"
)

// display is the display with keys that the platform may have.
type display struct {
	lcd atomic.Pointer[lcd.Display]
	// fresh reports whether the installed system has not run well yet.
	fresh bool
	// end ends the process that shows the start of the installed system. It is nil if there is none.
	end func() error
}

// attachDisplay makes the platform's display a panel. The display may come later, or come and go. On a machine that is not recognised
// one on USB is used too, since somebody has to be told.
func (u *unit) attachDisplay() {
	v := u.m.Identity.Variant
	if v.DevCodeName != "" && v.Lcd == platform.NoLCD {
		return
	}
	if v.LcdPort != "" && slices.Contains(console.Active(u.m.Sys), "/dev/"+v.LcdPort) {
		u.log.Warn("the display's port is a console: the display is not used", "port", v.LcdPort)
		return
	}
	d := lcd.NewDisplay(lcd.DisplayOptions{Dial: u.kernel.Display(v.LcdPort), Log: u.log})
	u.display.lcd.Store(d)
	u.m.Panel.Add("display", panel.LCD(d))
}

// hint has the display looked for when a device came that may be it.
func (x *display) hint(e host.Uevent) {
	if d := x.lcd.Load(); d != nil && (e.Subsystem == "tty" || e.Action == host.Missed) {
		d.Hint()
	}
}

// releaseDisplay waits until the display shows the last view, and gives it back as it was found, in bounded time. It reports whether
// there was one.
func (u *unit) releaseDisplay() bool {
	d := u.display.lcd.Swap(nil)
	if d == nil {
		return false
	}
	there := d.Model() != 0
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = u.m.Panel.Flush(ctx) // a console that is stuck is no matter of the display
	done := make(chan error, 1)
	go func() { done <- d.Close() }()
	var err error
	select {
	case err = <-done:
	case <-time.After(5 * time.Second):
		err = errors.New("it does not let go")
	}
	if err != nil {
		u.log.Warn("display", "err", err)
	}
	return there
}

// startSplash leaves the display, if there is one, to a process that shows the start of the installed system.
func (u *unit) startSplash(ctx context.Context, root string) {
	if !u.releaseDisplay() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	end, err := u.kernel.Splash(ctx, root, u.m.Identity.Variant.LcdPort, u.display.fresh)
	if err != nil {
		u.log.Warn("the display does not show the start of the system", "err", err)
		return
	}
	u.display.end = end
}

// endSplash takes the display back.
func (u *unit) endSplash() {
	if end := u.display.end; end != nil {
		u.display.end = nil
		if err := end(); err != nil {
			u.log.Warn("splash", "err", err)
		}
	}
	u.attachDisplay()
}
