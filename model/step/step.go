// Package step runs the named steps of a job in order and stops at the first failure.
//
// It knows nothing of jobs, panels or disks: a job is a slice of steps, and whoever wants to watch passes an observer.
// A panic inside a step is a failure of that step, never a success.
package step

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"
)

// Step is one named part of a job.
type Step struct {
	// Name identifies the step in logs, hooks and tests: lower case words joined by dashes, such as "format-main".
	Name string
	// Say is what a person at the machine reads while the step runs, at most 20 characters.
	Say string
	// Run does the work. It must be repeatable: a job that was cut off is started again from its first step.
	Run func(ctx context.Context) error
}

// State says where a step stands.
type State string

// The states of a step, in the order in which an observer sees them. A step may move any number of times, or not at all.
const (
	Started State = "started"
	Moved   State = "moved"
	Done    State = "done"
	Failed  State = "failed"
)

// Event tells an observer that a step changed its state.
type Event struct {
	Step    Step
	Index   int // of this step, from 0
	Total   int // number of steps of the job
	State   State
	Elapsed time.Duration // since the step started; 0 for Started
	Err     error         // only for Failed
	// Progress is how far the step is, only for Moved.
	Progress Progress
}

// Progress is how far a step is, in whatever it counts.
type Progress struct {
	Done, Total int64 // a Total of 0 or less is not known
}

// reporter is the key of a context's value: who is told how far the step is that the context belongs to.
type reporter struct{}

// Report tells the observer of the step that ctx belongs to how far it is. It may be called beside the step's own work, and does nothing
// where ctx is of no step.
func Report(ctx context.Context, done, total int64) {
	if tell, ok := ctx.Value(reporter{}).(func(Progress)); ok {
		tell(Progress{Done: done, Total: total})
	}
}

// Error is the failure of one step.
type Error struct {
	Step string
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("step %s: %v", e.Step, e.Err) }

// Unwrap returns the error of the step itself.
func (e *Error) Unwrap() error { return e.Err }

// PanicError is the error of a step that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Run runs the steps in order and returns the first failure as *Error. The observer, if there is one, is called
// synchronously before and after each step, and from any goroutine while a step reports how far it is (Report). Run looks at ctx before
// each step; a cancelled ctx is a failure of that step.
func Run(ctx context.Context, steps []Step, observe func(Event)) error {
	if observe == nil {
		observe = func(Event) {}
	}
	for i, s := range steps {
		observe(Event{Step: s, Index: i, Total: len(steps), State: Started})
		start := time.Now()
		err := ctx.Err()
		if err == nil {
			err = guard(context.WithValue(ctx, reporter{}, func(p Progress) {
				observe(Event{Step: s, Index: i, Total: len(steps), State: Moved, Elapsed: time.Since(start), Progress: p})
			}), s)
		}
		e := Event{Step: s, Index: i, Total: len(steps), State: Done, Elapsed: time.Since(start)}
		if err != nil {
			e.State, e.Err = Failed, err
			observe(e)
			return &Error{Step: s.Name, Err: err}
		}
		observe(e)
	}
	return nil
}

func guard(ctx context.Context, s Step) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return s.Run(ctx)
}
