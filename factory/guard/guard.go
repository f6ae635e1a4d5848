// Package guard keeps the parts of the factory server apart: a panic of one request, one packet or one service ends that, is written
// to the log with its stack, and leaves all else running.
//
// It cannot help against what the runtime ends the program for, such as two goroutines in one map at the same time.
package guard

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
)

// ErrPanic is in the error that Call returns after a panic.
var ErrPanic = errors.New("panic")

// Call runs f. A panic in it is logged under the name of the part, and returned as an error with ErrPanic.
func Call(log *slog.Logger, part string, f func() error) (err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		err = fmt.Errorf("%w in %s: %v", ErrPanic, part, p)
		log.Error("panic", "part", part, "value", fmt.Sprint(p), "stack", string(debug.Stack()))
	}()
	return f()
}

// Handler returns a handler that answers with status 500 where h panics before it has answered, and cuts the connection where it
// has begun to.
func Handler(log *slog.Logger, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := &tracked{ResponseWriter: w}
		abort := false
		err := Call(log, "HTTP "+r.Method+" "+r.URL.Path, func() error {
			defer func() {
				if p := recover(); p != nil {
					if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
						abort = true // the handler means to
						return
					}
					panic(p)
				}
			}()
			h.ServeHTTP(t, r)
			return nil
		})
		switch {
		case abort, err != nil && t.begun:
			panic(http.ErrAbortHandler)
		case err != nil:
			http.Error(w, "the server has trouble of its own, see its log", http.StatusInternalServerError)
		}
	})
}

// tracked notes whether an answer has begun. http.ResponseController and sendfile reach what is below.
type tracked struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader begins the answer.
func (t *tracked) WriteHeader(status int) {
	t.begun = true
	t.ResponseWriter.WriteHeader(status)
}

// Write begins the answer.
func (t *tracked) Write(p []byte) (int, error) {
	t.begun = true
	return t.ResponseWriter.Write(p)
}

// ReadFrom begins the answer, and lets the kernel copy a file.
func (t *tracked) ReadFrom(r io.Reader) (int64, error) {
	t.begun = true
	return io.Copy(t.ResponseWriter, r)
}

// Unwrap returns what is below.
func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }
