package netboot

import (
	"log/slog"
	"sync"
	"time"
)

// seldom logs warnings that a stranger can cause at will. It logs each kind once an hour, and there are few kinds.
type seldom struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	said map[string]time.Time
}

const (
	seldomEvery = time.Hour
	seldomKinds = 64
)

func newSeldom(log *slog.Logger) *seldom {
	return &seldom{log: log, now: time.Now, said: map[string]time.Time{}}
}

// Warn logs a message with its reason and further attributes. It does nothing if it has logged the same message with
// the same reason within the last hour.
func (s *seldom) Warn(msg, reason string, args ...any) {
	s.mu.Lock()
	now := s.now()
	at, known := s.said[msg+reason]
	say := now.Sub(at) >= seldomEvery && (known || len(s.said) < seldomKinds)
	if say {
		s.said[msg+reason] = now
	}
	s.mu.Unlock()
	if say {
		s.log.Warn(msg, append([]any{"error", reason, "further", "not logged for an hour"}, args...)...)
	}
}
