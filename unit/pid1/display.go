package pid1

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"gprovision/hw/console"
	"gprovision/hw/host"
	"gprovision/hw/lcd"
	"gprovision/model/platform"
	"gprovision/unit/panel"
	"gprovision/unit/splash"
)

// display is the display with keys that the platform may have.
type display struct {
	lcd atomic.Pointer[lcd.Display]
	// fresh reports whether the installed system has not run well yet.
	fresh bool
	// splash shows the start of the installed system.
	splash *os.Process
}

// attachDisplay makes the platform's display a panel. It may come later, or come and go. On a machine that is not recognised one on
// USB is used too, since somebody has to be told.
func (u *unit) attachDisplay() {
	v := u.m.Identity.Variant
	if v.DevCodeName != "" && v.Lcd == platform.NoLCD {
		return
	}
	if v.LcdPort != "" && slices.Contains(console.Active(u.m.Sys), "/dev/"+v.LcdPort) {
		u.log.Warn("the display's port is a console: the display is not used", "port", v.LcdPort)
		return
	}
	d := lcd.NewDisplay(lcd.DisplayOptions{Dial: lcd.Dialer(u.m.Sys, v.LcdPort), Log: u.log})
	u.display.lcd.Store(d)
	u.m.Panel.Add("display", panel.LCD(d))
}

// event has the display looked for when a device came that may be it.
func (x *display) event(e host.Uevent) {
	if d := x.lcd.Load(); d != nil && (e.Subsystem == "tty" || e.Action == host.Missed) {
		d.Hint()
	}
}

// releaseDisplay shows what was shown last for certain and gives the display back as it was found, in bounded time. It reports whether
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
	p, err := splash.Start(ctx, root, u.m.Identity.Variant.LcdPort, u.display.fresh)
	if err != nil {
		u.log.Warn("the display does not show the start of the system", "err", err)
		return
	}
	u.display.splash = p
}

// endSplash takes the display back.
func (u *unit) endSplash() {
	if p := u.display.splash; p != nil {
		u.display.splash = nil
		if err := host.End(p); err != nil {
			u.log.Warn("splash", "err", err)
		}
	}
	u.attachDisplay()
}
