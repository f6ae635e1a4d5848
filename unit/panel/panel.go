// Package panel shows a job to the person at the machine: which step runs, how far it is, and what to do if it
// failed.
//
// A View is the whole picture, and a Panel draws it. The job talks to a Board, which passes each view to all its
// panels and never waits for one. A slow panel misses views in between, but never the last one. It misses a new step
// only if many views are waiting. What a panel draws on (console, serial line, LCD) is its own business.
//
// A panel may have keys. A question appears on all panels at once, and a key on any of them counts. Each question
// ends by itself after a while, because there may be nobody at the machine.
package panel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"gprovision/model/fault"
	"gprovision/model/step"
)

// View is what a person sees at one moment. The zero value is an empty panel.
type View struct {
	// Job is the name of the job, such as "restore".
	Job string
	// Step is the text of the running step, at most 20 characters. It is empty between steps.
	Step string
	// Index is the number of the step, from 1. Total is the number of steps. Both are 0 if unknown.
	Index, Total int
	// Progress is how far the step is. It is nil if the step cannot tell.
	Progress *Progress
	// Message is a line that is neither a step nor a failure, such as "done, rebooting".
	Message string
	// Problem is why the job ended, or nil.
	Problem *Problem
	// Ask is the question that waits for an answer, or nil. It takes precedence over everything else.
	Ask *Asked
}

// Progress is how far a step is. Done and Total have the same unit, usually bytes.
type Progress struct {
	Done, Total int64
	// Rate is in units per second, over the last seconds. It is 0 if unknown.
	Rate float64
	// Left is the time left at this rate. It is negative if unknown.
	Left time.Duration
}

// Percent returns 0 to 100, or -1 if Total is unknown. It is 100 only when everything is done.
func (p Progress) Percent() int {
	switch {
	case p.Total <= 0:
		return -1
	case p.Done >= p.Total:
		return 100
	case p.Done <= 0:
		return 0
	}
	return min(99, int(float64(p.Done)/float64(p.Total)*100))
}

// String returns text such as "45 % 120.3 MB/s 0:35 left".
func (p Progress) String() string {
	var parts []string
	if n := p.Percent(); n >= 0 {
		parts = append(parts, fmt.Sprintf("%3d %%", n))
	} else {
		parts = append(parts, size(float64(p.Done)))
	}
	if p.Rate > 0 {
		parts = append(parts, size(p.Rate)+"/s")
	}
	if left := p.leftText(); left != "" {
		parts = append(parts, left+" left")
	}
	return strings.Join(parts, "  ")
}

// leftText returns the time left, such as "0:35" or "1:02:03". It is empty if unknown.
func (p Progress) leftText() string {
	if p.Left < 0 || p.Rate <= 0 || p.Done >= p.Total {
		return ""
	}
	s := int64((p.Left + time.Second - 1) / time.Second)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

func size(n float64) string {
	for _, u := range []struct {
		f float64
		s string
	}{{1e12, "TB"}, {1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}} {
		if n >= u.f {
			return fmt.Sprintf("%.1f %s", n/u.f, u.s)
		}
	}
	return fmt.Sprintf("%.0f B", n)
}

// Problem is a failure in the form for a person.
type Problem struct {
	// Code, Title and Short come from the fault.Fault.
	Code, Title, Short string
	// Text and Hint are its sentences.
	Text, Hint string
	// Detail is the cause. The person may read it out to support.
	Detail string
	// Note is a word of the cause that the person may write down (WithNote). A display, which has no room for the cause, shows it too.
	Note string
}

// noted is an error with a note.
type noted struct {
	error
	note string
}

func (n noted) Unwrap() error { return n.error }

// WithNote returns an error whose Problem has a note.
func WithNote(err error, note string) error { return noted{err, note} }

// ProblemOf turns an error into a Problem. An error without a fault is fault.Internal. nil stays nil.
func ProblemOf(err error) *Problem {
	if err == nil {
		return nil
	}
	if e, ok := err.(*step.Error); ok { // the view names the step
		err = e.Err
	}
	f := fault.Of(err)
	if f == nil {
		f = fault.Internal
	}
	var n noted
	errors.As(err, &n)
	return &Problem{Code: f.Code, Title: f.Title, Short: f.Short, Text: f.Text, Hint: f.Hint, Detail: fault.Detail(err), Note: n.note}
}

// Panel draws views, one call at a time. Show may be slow and may fail. The next view is tried all the same. If a
// Panel has a method Close() error, its Board calls that.
type Panel interface {
	Show(View) error
}

// Board passes views to any number of panels. New makes one. Any goroutine may call any method.
type Board struct {
	turn    chan struct{} // held by the caller that asks
	pressed chan Press

	mu      sync.Mutex
	last    View
	shown   bool
	feeds   []*feed
	closed  bool
	inputs  int        // panels with keys
	typists int        // of those, panels with letter keys
	asked   int        // questions so far
	keys    chan press // keys for the question, nil if there is none
}

// New returns a Board without panels.
func New() *Board {
	return &Board{turn: make(chan struct{}, 1), pressed: make(chan Press, 1)}
}

// Add adds a panel to the Board. The panel gets the last view at once, and the Board owns it from then on. The name
// is for errors.
func (b *Board) Add(name string, p Panel) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	f := &feed{name: name, panel: p, wake: make(chan struct{}, 1), moved: make(chan struct{}), done: make(chan struct{})}
	if b.shown {
		f.push(b.last)
	}
	b.feeds = append(b.feeds, f)
	go f.run()
	if in, ok := p.(Input); ok && in.Keys() != nil {
		b.listen(f, in)
	}
}

// Show replaces the view on all panels, except for a question: that stays until it is answered. It never waits.
func (b *Board) Show(v View) {
	b.change(func(last *View) {
		v.Ask = last.Ask
		*last = v
	})
}

func (b *Board) change(f func(last *View)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	f(&b.last)
	b.shown = true
	v := b.last
	for _, f := range b.feeds {
		f.push(v)
	}
}

// Message shows one line and keeps the job.
func (b *Board) Message(text string) {
	b.change(func(v *View) { *v = View{Job: v.Job, Message: text, Ask: v.Ask} })
}

// Progress shows the progress of the running step and keeps the rest of the view.
func (b *Board) Progress(p Progress) {
	b.change(func(v *View) { v.Progress, v.Message, v.Problem = &p, "", nil })
}

// Fail shows why the job ended. It keeps the job and the step.
func (b *Board) Fail(err error) {
	p := ProblemOf(err)
	b.change(func(v *View) { v.Problem, v.Message = p, "" })
}

// Observe returns an observer for step.Run. It shows each step of the job as it starts. A failure is shown by whoever gets the
// error: see Fail.
func (b *Board) Observe(job string) func(step.Event) {
	return func(e step.Event) {
		if e.State == step.Started {
			b.Show(View{Job: job, Step: cmp.Or(e.Step.Say, e.Step.Name), Index: e.Index + 1, Total: e.Total})
		}
	}
}

// Flush waits until every panel shows the last view, or ctx is done. The error names the panels that do not show it.
func (b *Board) Flush(ctx context.Context) error {
	b.mu.Lock()
	feeds := slices.Clone(b.feeds)
	b.mu.Unlock()
	var errs []error
	for _, f := range feeds {
		errs = append(errs, f.flush(ctx))
	}
	return errors.Join(errs...)
}

// Close flushes, for as long as ctx allows, and closes all panels. Later views are dropped. It is fine to call Close
// twice.
func (b *Board) Close(ctx context.Context) error {
	b.mu.Lock()
	feeds := b.feeds
	b.feeds, b.closed = nil, true
	b.mu.Unlock()
	var errs []error
	for _, f := range feeds {
		errs = append(errs, f.flush(ctx))
		f.mu.Lock()
		f.closing = true
		f.kick()
		f.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
		}
	}
	return errors.Join(errs...)
}

// maxWaiting limits how many views may wait for one panel.
const maxWaiting = 32

type feed struct {
	name  string
	panel Panel

	mu      sync.Mutex
	waiting []View
	busy    bool
	closing bool
	wake    chan struct{}
	moved   chan struct{} // closed and replaced on progress
	done    chan struct{}
}

func (f *feed) push(v View) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.waiting)
	switch {
	case n > 0 && sameStep(f.waiting[n-1], v):
		f.waiting[n-1] = v
	case n >= maxWaiting:
		f.waiting = append(f.waiting[1:], v)
	default:
		f.waiting = append(f.waiting, v)
	}
	f.kick()
}

// sameStep reports whether b may replace a. Both must be about the same step, and a must not say anything that b
// hides.
func sameStep(a, b View) bool {
	return a.Job == b.Job && a.Step == b.Step && a.Index == b.Index && a.Problem == nil && (a.Message == "" || a.Message == b.Message)
}

func (f *feed) kick() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *feed) run() {
	defer close(f.done)
	for {
		f.mu.Lock()
		switch {
		case len(f.waiting) > 0:
			v := f.waiting[0]
			f.waiting = f.waiting[1:]
			f.busy = true
			f.mu.Unlock()
			guard(func() error { return f.panel.Show(v) })
			f.mu.Lock()
			f.busy = false
			close(f.moved)
			f.moved = make(chan struct{})
			f.mu.Unlock()
		case f.closing:
			f.mu.Unlock()
			if c, ok := f.panel.(interface{ Close() error }); ok {
				guard(c.Close)
			}
			return
		default:
			f.mu.Unlock()
			<-f.wake
		}
	}
}

// guard keeps a panic of a panel away from the job. It drops the error of a panel: the only better place for it would
// be the log, and the panels stand beside that.
func guard(f func() error) {
	defer func() { _ = recover() }()
	_ = f()
}

func (f *feed) flush(ctx context.Context) error {
	f.mu.Lock()
	for len(f.waiting) > 0 || f.busy {
		moved := f.moved
		f.mu.Unlock()
		select {
		case <-moved:
		case <-f.done:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("panel %s is stuck: %w", f.name, ctx.Err())
		}
		f.mu.Lock()
	}
	f.mu.Unlock()
	return nil
}
