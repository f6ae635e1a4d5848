// Package cli holds the verbs of the gprov command. Each verb is a type with kong tags and a Run method, importable and
// callable in process; cmd/gprov only calls Main.
package cli

import (
	"context"
	"io"

	"gprovision/site"
)

// Context is what every verb gets.
type Context struct {
	context.Context
	// Stdout and Stderr show what they get in a visible form, see package shown.
	Stdout, Stderr io.Writer
	// Terminal reports whether Stdout is a terminal: progress bars there, plain lines elsewhere.
	Terminal bool
	Site     site.Site
	// Version is the build's revision.
	Version string
}

// UsageError is an error that ends the program with status 2: the command was called in a wrong way.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *UsageError) Unwrap() error { return e.Err }

// HintError is an error with a sentence that says what to do next.
type HintError struct {
	Err  error
	Hint string
}

func (e *HintError) Error() string { return e.Err.Error() }

// Unwrap returns the error without its hint.
func (e *HintError) Unwrap() error { return e.Err }
