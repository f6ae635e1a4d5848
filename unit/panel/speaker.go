package panel

import "time"

// Speaker returns a Panel that makes a failed job audible: three beeps for each new problem. beep sounds the speaker
// for the given time. It may return before the tone ends.
func Speaker(beep func(time.Duration) error) Panel { return &speaker{beep: beep} }

type speaker struct {
	beep func(time.Duration) error
	last *Problem
}

func (s *speaker) Show(v View) error {
	was := s.last
	s.last = v.Problem
	if v.Problem == nil || was != nil && *was == *v.Problem {
		return nil
	}
	const tone = 150 * time.Millisecond
	for range 3 {
		if err := s.beep(tone); err != nil {
			return err
		}
		time.Sleep(2 * tone)
	}
	return nil
}
