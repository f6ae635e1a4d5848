package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// qmp speaks the QEMU Machine Protocol (docs/interop/qmp-spec.txt in QEMU) on one connection. Close ends it.
type qmp struct {
	conn io.ReadWriteCloser

	mu      sync.Mutex
	next    int
	pending map[int]chan qmpAnswer
	end     error
}

type qmpAnswer struct {
	value json.RawMessage
	err   error
}

// qmpMessage is whatever QEMU sends: a greeting, an answer or an event.
type qmpMessage struct {
	Return json.RawMessage `json:"return"`
	Error  *qmpError       `json:"error"`
	ID     *int            `json:"id"`
	Event  string          `json:"event"`
	Data   map[string]any  `json:"data"`
}

type qmpError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *qmpError) Error() string { return "qemu: " + e.Desc }

// newQMP leaves the negotiation mode. events is called for each event, from one goroutine.
func newQMP(ctx context.Context, conn io.ReadWriteCloser, events func(name string, data map[string]any)) (*qmp, error) {
	q := &qmp{conn: conn, pending: map[int]chan qmpAnswer{}}
	go q.read(events)
	if _, err := q.call(ctx, "qmp_capabilities", nil); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return q, nil
}

func (q *qmp) read(events func(string, map[string]any)) {
	d := json.NewDecoder(q.conn)
	for {
		var m qmpMessage
		if err := d.Decode(&m); err != nil {
			q.fail(err)
			return
		}
		switch {
		case m.Event != "":
			events(m.Event, m.Data)
		case m.ID != nil:
			a := qmpAnswer{value: m.Return}
			if m.Error != nil {
				a.err = m.Error
			}
			q.answer(*m.ID, a)
		}
	}
}

func (q *qmp) answer(id int, a qmpAnswer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c := q.pending[id]; c != nil {
		c <- a
		delete(q.pending, id)
	}
}

func (q *qmp) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.end = err
	for id, c := range q.pending {
		c <- qmpAnswer{err: err}
		delete(q.pending, id)
	}
}

// call runs one command and returns its answer.
func (q *qmp) call(ctx context.Context, command string, args map[string]any) (json.RawMessage, error) {
	answer := make(chan qmpAnswer, 1)
	q.mu.Lock()
	if q.end != nil {
		q.mu.Unlock()
		return nil, fmt.Errorf("qemu command %s: the machine is off: %w", command, q.end)
	}
	q.next++
	id := q.next
	q.pending[id] = answer
	q.mu.Unlock()
	request := map[string]any{"execute": command, "id": id}
	if args != nil {
		request["arguments"] = args
	}
	b, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("qemu command %s: %w", command, err)
	}
	if _, err := q.conn.Write(append(b, '\n')); err != nil {
		return nil, fmt.Errorf("qemu command %s: %w", command, err)
	}
	select {
	case a := <-answer:
		if a.err != nil {
			return nil, fmt.Errorf("qemu command %s: %w", command, a.err)
		}
		return a.value, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("qemu command %s: %w", command, context.Cause(ctx))
	}
}
