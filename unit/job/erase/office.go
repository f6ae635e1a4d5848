package erase

import (
	"context"
	"errors"
	"sync"
	"time"

	"gprovision/model/record"
	"gprovision/unit/report"
	"gprovision/unit/state"
)

// server is what an erase says to the factory server.
type server interface {
	// DriveBefore tells it what a drive was before the erase.
	DriveBefore(ctx context.Context, b record.EraseBefore) error
	// Erased gives it the certificate. It may be repeated.
	Erased(ctx context.Context, s record.EraseSubmission) (record.EraseReply, error)
}

// How long an erase waits for the network, once, and for an answer of the server.
const (
	networkPatience = time.Minute
	answerPatience  = 30 * time.Second
)

// office is the way to the server. A nil office leads nowhere.
type office struct {
	until time.Time // how long somebody waits for it
	ready chan struct{}
	once  sync.Once
	to    server
}

func newOffice() *office {
	return &office{until: time.Now().Add(networkPatience), ready: make(chan struct{})}
}

// found says that the server is there.
func (o *office) found(to server) { o.once.Do(func() { o.to = to; close(o.ready) }) }

// await returns the server, or nil if it is not there in time.
func (o *office) await(ctx context.Context) server {
	if o == nil {
		return nil
	}
	select {
	case <-o.ready:
		return o.to
	default:
	}
	t := time.NewTimer(time.Until(o.until))
	defer t.Stop()
	select {
	case <-o.ready:
		return o.to
	case <-t.C:
	case <-ctx.Done():
	}
	return nil
}

// connect makes the way to the server, if the unit has one.
func (j *erasing) connect(ctx context.Context) {
	if j.office != nil || j.f.Unit.Server == "" {
		return
	}
	o := newOffice()
	err := j.book.volume.View(func(v *state.Volume) error {
		j.env.Connect(ctx, v, j.f.Unit, j.f.Unit.Server, func(c *report.Client) { o.found(c) })
		return nil
	})
	if err != nil {
		j.env.Machine.Log.Warn("the server hears nothing of the erase", "err", err)
		return
	}
	j.office = o
}

// tellBefore tells the server what a drive was, if it answers.
func (j *erasing) tellBefore(ctx context.Context, name string, before []byte) {
	s := j.office.await(ctx)
	if s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	if err := s.DriveBefore(ctx, record.EraseBefore{Run: run(j.entry.ID), Name: name, State: before}); err != nil {
		j.env.Machine.Log.Warn("the server is not told what the drive was", "disk", name, "err", err)
	}
}

// submit gives the certificate to the server, and keeps what that says beside it. It reports whether the server has it. All else that the
// server is to hear goes first: it may end this life of the unit.
func (j *erasing) submit(ctx context.Context, file, sig []byte, accepted bool) bool {
	s := j.office.await(ctx)
	if s == nil {
		return false
	}
	if q := j.env.Queue; q.Sending() {
		first, cancel := context.WithTimeout(ctx, answerPatience)
		err := q.Flush(first)
		cancel()
		if err != nil {
			j.env.Machine.Log.Warn("the server does not have all records of the erase", "err", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	reply, err := s.Erased(ctx, record.EraseSubmission{Certificate: file, Signature: sig, Accepted: accepted})
	if err != nil {
		j.env.Machine.Log.Warn("the server does not take the certificate", "err", err)
		return false
	}
	err = j.book.change(func(v *state.Volume) error {
		return errors.Join(state.WriteEraseFile(v, voucherFile, reply.Voucher), state.WriteEraseFile(v, proofFile, reply.Proof))
	})
	if err != nil {
		j.env.Machine.Log.Warn("what the server says to the certificate cannot be kept", "err", err)
	}
	return true
}
