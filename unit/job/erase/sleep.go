package erase

import "sync"

// sleeper puts the machine to sleep for the sake of frozen drives: once for all of them, and at a moment when nothing is done to any drive,
// since each loses its power.
type sleeper struct {
	sleep func() error

	mu      sync.Mutex
	changed sync.Cond
	busy    int // drives that something may be done to
	slept   bool
	err     error // what came of it
}

// newSleeper is one for so many drives, each of which leaves when its erase is over.
func newSleeper(drives int, sleep func() error) *sleeper {
	s := &sleeper{sleep: sleep, busy: drives}
	s.changed.L = &s.mu
	return s
}

// leave says that nothing more is done to a drive.
func (s *sleeper) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
	s.changed.Broadcast()
}

// unfreeze returns when the machine has slept, or could not. It waits until each other drive is erased or waits here too.
func (s *sleeper) unfreeze() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
	s.changed.Broadcast()
	for s.busy > 0 && !s.slept {
		s.changed.Wait()
	}
	if !s.slept {
		s.slept, s.err = true, s.sleep()
	}
	s.busy++
	return s.err
}
