package machinetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"gprovision/model/record"
	"gprovision/unit/report"
)

// Heard sends the content of a queue to a server that accepts everything, and closes the queue. It returns the states
// that the server got.
func Heard(t *testing.T, q *report.Queue) []record.State {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	server := &listener{}
	q.Start(server)
	if err := errors.Join(q.Flush(ctx), q.Close()); err != nil {
		t.Fatal(err)
	}
	return server.states
}

// listener is a server that keeps the states that it gets.
type listener struct {
	mu     sync.Mutex
	states []record.State
}

func (l *listener) Send(_ context.Context, events []record.Event) (record.BatchReply, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		if s, ok := record.StateOf(e); ok {
			l.states = append(l.states, s)
		}
	}
	return record.BatchReply{Stored: len(events)}, nil
}
