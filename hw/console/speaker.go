package console

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// kdmktone is the ioctl KDMKTONE (linux/kd.h), and clock the frequency in Hz of the timer behind the speaker (console_ioctl(4)).
const (
	kdmktone = 0x4b30
	clock    = 1193180
)

// Beep sounds the PC speaker through a virtual terminal, such as /dev/tty0, and returns at once. The tone is hertz high, from
// 20, and as long as d, at most a minute. A kernel without the driver pcspkr accepts it and stays silent.
func (t *TTY) Beep(hertz int, d time.Duration) error {
	if hertz < 20 || d <= 0 || d > time.Minute {
		return errors.New("beep: out of range")
	}
	tone := int(d/time.Millisecond)<<16 | clock/hertz
	if err := t.control(func(fd int) error { return unix.IoctlSetInt(fd, kdmktone, tone) }); err != nil {
		return fmt.Errorf("beep: %w", err)
	}
	return nil
}
