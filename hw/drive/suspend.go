package drive

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Machine is how a machine suspends: the files of /sys/power and of one real-time clock.
type Machine struct {
	// Read and Write are those of files by their absolute names.
	Read  func(name string) ([]byte, error)
	Write func(name string, content []byte) error
	// Wait returns after a while, or earlier with an error.
	Wait func(time.Duration) error
}

// The files (admin-guide/pm/sleep-states and rtc of the documentation of Linux).
const (
	powerState = "/sys/power/state"
	memSleep   = "/sys/power/mem_sleep"
	rtcAlarm   = "/sys/class/rtc/rtc0/wakealarm"
	rtcNow     = "/sys/class/rtc/rtc0/since_epoch"
)

// Unfreeze suspends the machine to memory for some seconds, so that its drives lose their power and firmware does not freeze them again.
// The error is errors.ErrUnsupported, and the machine stays awake, where deep sleep is not offered or no alarm of the clock is seen to go
// off: nobody might wake it up. Whoever calls it has stopped the watchdog, and looks at all drives anew afterwards.
func (m Machine) Unfreeze() (err error) {
	states, err := m.Read(powerState)
	if err != nil || !has(states, "mem") {
		return fmt.Errorf("suspend: %w: no sleep to memory", errors.ErrUnsupported)
	}
	sleeps, err := m.Read(memSleep)
	if err != nil || !has(sleeps, "deep") {
		return fmt.Errorf("suspend: %w: no deep sleep", errors.ErrUnsupported)
	}
	if err := m.goesOff(); err != nil {
		return fmt.Errorf("suspend: %w: %w", errors.ErrUnsupported, err)
	}
	if err := m.Write(memSleep, []byte("deep")); err != nil {
		return fmt.Errorf("suspend: %w", err)
	}
	defer func() {
		err = errors.Join(err, m.Write(memSleep, []byte(chosen(sleeps))), m.Write(rtcAlarm, []byte("0")))
	}()
	if err := m.alarm(10); err != nil {
		return fmt.Errorf("suspend: %w", err)
	}
	if err := m.Write(powerState, []byte("mem")); err != nil { // returns when the machine is awake again
		return fmt.Errorf("suspend: %w", err)
	}
	return nil
}

// goesOff sets an alarm while the machine is awake and returns an error unless it is over in its time: the kernel empties the file then.
func (m Machine) goesOff() error {
	if err := m.alarm(2); err != nil {
		return err
	}
	for range 10 {
		if err := m.Wait(time.Second); err != nil {
			return err
		}
		if b, err := m.Read(rtcAlarm); err == nil && len(bytes.TrimSpace(b)) == 0 {
			return nil
		}
	}
	return errors.Join(errors.New("the alarm of the clock does not go off"), m.Write(rtcAlarm, []byte("0")))
}

// alarm sets the alarm so many seconds ahead of the clock's own time, and looks whether it is set.
func (m Machine) alarm(seconds int64) error {
	b, err := m.Read(rtcNow)
	if err != nil {
		return err
	}
	now, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return fmt.Errorf("the time of the clock: %w", err)
	}
	if err := m.Write(rtcAlarm, []byte("0")); err != nil { // one that is set would be kept
		return err
	}
	at := strconv.FormatInt(now+seconds, 10)
	if err := m.Write(rtcAlarm, []byte(at)); err != nil {
		return err
	}
	if b, err = m.Read(rtcAlarm); err != nil || strings.TrimSpace(string(b)) != at {
		return errors.Join(err, errors.New("the alarm of the clock cannot be set"))
	}
	return nil
}

// has reports whether a list of words has one, in brackets or not.
func has(list []byte, word string) bool {
	for w := range strings.FieldsSeq(string(list)) {
		if strings.Trim(w, "[]") == word {
			return true
		}
	}
	return false
}

// chosen returns the word in brackets, the first if there is none.
func chosen(list []byte) string {
	words := strings.Fields(string(list))
	for _, w := range words {
		if strings.HasPrefix(w, "[") {
			return strings.Trim(w, "[]")
		}
	}
	return words[0]
}
