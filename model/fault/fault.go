// Package fault lists what can go wrong in a way that a person has to act on: a short code, a text and a hint for each.
//
// A Fault is a kind of failure, not an occurrence: code wraps the cause with Because and the layers above find the kind
// with Of. docs/errors.md explains each code with its remedy, and a test keeps both lists equal.
package fault

import (
	"errors"
	"fmt"
	"strings"
)

// Fault is one kind of failure. All Faults are declared in this package.
type Fault struct {
	// Code is the letter G and three digits.
	Code string
	// Title is the first line of a 20x2 display, behind the code: at most 15 characters.
	Title string
	// Short is the second line of a 20x2 display: at most 20 characters, what to do.
	Short string
	// Text is one sentence for the console and the server.
	Text string
	// Hint is one sentence that says what to do next.
	Hint string
}

func (f *Fault) Error() string { return f.Code + ": " + f.Text }

// Occurrence is a Fault together with what caused it.
type Occurrence struct {
	Fault *Fault
	Cause error // may be nil
}

func (o *Occurrence) Error() string {
	if o.Cause == nil {
		return o.Fault.Error()
	}
	return fmt.Sprintf("%s: %s: %v", o.Fault.Code, o.Fault.Text, o.Cause)
}

// Unwrap lets errors.Is find both the Fault and the cause.
func (o *Occurrence) Unwrap() []error {
	if o.Cause == nil {
		return []error{o.Fault}
	}
	return []error{o.Fault, o.Cause}
}

// Because returns an error of kind f caused by cause. If cause is already the occurrence of some Fault it is returned
// unchanged: the place that was nearest to the trouble names it.
func Because(f *Fault, cause error) error {
	if cause != nil && Of(cause) != nil {
		return cause
	}
	return &Occurrence{Fault: f, Cause: cause}
}

// Rename returns an error of kind f caused by cause, also where the cause has a kind of its own that says less: a download that
// fails because there is no such file is a missing manifest. What speaks of the network or the server keeps its kind.
func Rename(f *Fault, cause error) error {
	switch Of(cause) {
	case NoNetwork, NoServer:
		return cause
	}
	return &Occurrence{Fault: f, Cause: cause}
}

// Newf returns an error of kind f with a formatted cause.
func Newf(f *Fault, format string, args ...any) error {
	return &Occurrence{Fault: f, Cause: fmt.Errorf(format, args...)}
}

// Of returns the Fault inside err, or nil.
func Of(err error) *Fault {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	return nil
}

// Detail returns what an error says beside the code and the text of its own kind, or "": who shows those has said them already.
// Other kinds inside of it keep their code and text.
func Detail(err error) string {
	if err == nil {
		return ""
	}
	f := Of(err)
	if f == nil {
		return err.Error()
	}
	var rest []string
	for part := range strings.SplitSeq(err.Error(), f.Error()) {
		if part = strings.TrimPrefix(strings.TrimSuffix(part, ": "), ": "); part != "" {
			rest = append(rest, part)
		}
	}
	return strings.Join(rest, ": ")
}
