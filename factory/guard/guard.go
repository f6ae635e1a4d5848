// Package guard keeps the parts of the factory server apart. A panic ends only the request, the packet or the service
// in which it happens. It is logged with its stack.
//
// The package cannot help where the Go runtime itself ends the program, for example after concurrent writes to a map.
package guard

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
)

// ErrPanic means that a function given to Call panicked.
var ErrPanic = errors.New("panic")

// Call runs f. It logs a panic of f with the name of the part, and returns it as an error that wraps ErrPanic.
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

// Handler returns h, guarded. If h panics before it has started to answer, the answer is status 500. If it has
// started, the connection is cut.
func Handler(log *slog.Logger, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := &tracked{ResponseWriter: w}
		abort := false
		err := Call(log, "HTTP "+r.Method+" "+r.URL.Path, func() error {
			defer func() {
				if p := recover(); p != nil {
					if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
						abort = true // the handler wants the connection to be cut
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

// tracked records whether an answer has started. http.ResponseController and sendfile still reach the ResponseWriter
// inside.
type tracked struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader implements http.ResponseWriter.
func (t *tracked) WriteHeader(status int) {
	t.begun = true
	t.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (t *tracked) Write(p []byte) (int, error) {
	t.begun = true
	return t.ResponseWriter.Write(p)
}

// ReadFrom implements io.ReaderFrom, so that the kernel can copy a file.
func (t *tracked) ReadFrom(r io.Reader) (int64, error) {
	t.begun = true
	return io.Copy(t.ResponseWriter, r)
}

// Unwrap returns the ResponseWriter inside, for http.ResponseController.
func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }
