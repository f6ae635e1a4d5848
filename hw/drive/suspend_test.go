package drive

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"
)

// sleeper is a machine that can sleep, or not.
type sleeper struct {
	files  map[string]string
	broken bool // its alarm never goes off
	fails  string
	slept  string // what mem_sleep said when it slept
	now    int64
}

func (s *sleeper) machine() Machine {
	return Machine{
		Read: func(name string) ([]byte, error) {
			if c, ok := s.files[name]; ok {
				return []byte(c), nil
			}
			return nil, fs.ErrNotExist
		},
		Write: func(name string, content []byte) error {
			if name == s.fails {
				return errors.New("no")
			}
			switch c := string(content); {
			case name == rtcAlarm && c == "0":
				s.files[name] = ""
			case name == powerState:
				s.slept = s.files[memSleep] + ", alarm " + s.files[rtcAlarm]
				s.files[rtcAlarm] = ""
			default:
				s.files[name] = c
			}
			return nil
		},
		Wait: func(d time.Duration) error {
			if s.now += int64(d / time.Second); s.now >= 1002 && !s.broken {
				s.files[rtcAlarm] = ""
			}
			return nil
		},
	}
}

func newSleeper() *sleeper {
	return &sleeper{now: 1000, files: map[string]string{
		powerState: "freeze mem disk\n", memSleep: "s2idle [shallow] deep\n", rtcAlarm: "999\n", rtcNow: "1000\n",
	}}
}

// TestUnfreeze fails unless a machine sleeps only where it will surely wake up, and is afterwards as it was.
func TestUnfreeze(t *testing.T) {
	s := newSleeper()
	if err := s.machine().Unfreeze(); err != nil || s.slept != "deep, alarm 1010" {
		t.Errorf("%v, slept %q", err, s.slept)
	}
	if s.files[memSleep] != "shallow" || s.files[rtcAlarm] != "" {
		t.Errorf("afterwards %v", s.files)
	}
	for name, change := range map[string]func(*sleeper){
		"no sleep":               func(s *sleeper) { s.files[powerState] = "freeze disk\n" },
		"no deep sleep":          func(s *sleeper) { s.files[memSleep] = "[s2idle]\n" },
		"no power management":    func(s *sleeper) { delete(s.files, powerState) },
		"no choice of sleep":     func(s *sleeper) { delete(s.files, memSleep) },
		"no clock":               func(s *sleeper) { delete(s.files, rtcNow) },
		"a clock without a time": func(s *sleeper) { s.files[rtcNow] = "x" },
		"no alarm":               func(s *sleeper) { s.fails = rtcAlarm },
		"an alarm that stays":    func(s *sleeper) { s.broken = true },
	} {
		s := newSleeper()
		change(s)
		if err := s.machine().Unfreeze(); !errors.Is(err, errors.ErrUnsupported) || s.slept != "" {
			t.Errorf("%s: %v, slept %q", name, err, s.slept)
		}
	}
	for _, name := range []string{memSleep, powerState} {
		s := newSleeper()
		s.fails = name
		err := s.machine().Unfreeze()
		if err == nil || !strings.Contains(err.Error(), "suspend") || s.files[rtcAlarm] != "" && name == powerState {
			t.Errorf("%s cannot be written: %v, alarm %q", name, err, s.files[rtcAlarm])
		}
	}
}
