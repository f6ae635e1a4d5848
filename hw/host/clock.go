package host

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// SetClock sets the system clock, and the real-time clock to the same time in UTC (rtc(4), RTC_SET_TIME on /dev/rtc0). A
// machine without a real-time clock is no error.
func SetClock(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return fmt.Errorf("set the system clock: %w", err)
	}
	f, err := os.Open("/dev/rtc0")
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the real-time clock: %w", err)
	}
	defer f.Close()
	t = t.UTC()
	rtc := unix.RTCTime{
		Sec: int32(t.Second()), Min: int32(t.Minute()), Hour: int32(t.Hour()),
		Mday: int32(t.Day()), Mon: int32(t.Month()) - 1, Year: int32(t.Year()) - 1900,
	}
	if err := unix.IoctlSetRTCTime(int(f.Fd()), &rtc); err != nil {
		return fmt.Errorf("set the real-time clock: %w", err)
	}
	return nil
}
