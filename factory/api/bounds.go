package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"gprovision/factory/limit"
	"gprovision/factory/store"
	"gprovision/model/record"
)

// Limits on the requests held in memory at the same time. Enrolments, and requests of units of version 0.1.0, have
// lower limits of their own: a part of each must be read before its signature can be checked.
const (
	flights, flightBytes, flightsPerHost = 50, 64 << 20, 16
	oldFlights, oldBytes, oldPerHost     = 8, 24 << 20, 4
	enrolFlights, enrolBytes             = 32, 2 << 20
)

// admit enters a request into a Flight and sets a deadline for its body. If there is no room, ok is false and admit
// has answered the request. The caller calls leave once it has released the body.
func (s *Server) admit(w http.ResponseWriter, r *http.Request, f *limit.Flight, most int64) (received, leave func(), ok bool) {
	n := r.ContentLength
	if n < 0 {
		s.refuse(w, http.StatusLengthRequired, record.ProblemSyntax, "the request does not say how long it is")
		return nil, nil, false
	}
	if n > most {
		s.refuse(w, http.StatusRequestEntityTooLarge, record.ProblemTooLarge, fmt.Sprintf("the request is larger than %d bytes", most))
		return nil, nil, false
	}
	c := http.NewResponseController(w)
	received, leave, ok = f.Enter(limit.Remote(r.RemoteAddr), n, func() { c.SetReadDeadline(time.Unix(1, 0)) })
	if !ok {
		w.Header().Set("Retry-After", "1")
		s.refuse(w, http.StatusTooManyRequests, record.ProblemBusy, "too many requests at the same time")
		return nil, nil, false
	}
	if err := c.SetReadDeadline(s.Now().Add(limit.BodyTime(n))); err != nil && !errors.Is(err, http.ErrNotSupported) {
		leave()
		s.serverError(w, r, err)
		return nil, nil, false
	}
	return received, leave, true
}

// body reads the body of an admitted request. If it does not arrive, ok is false and body has answered the request.
func (s *Server) body(w http.ResponseWriter, r *http.Request, received func()) ([]byte, bool) {
	b := make([]byte, r.ContentLength)
	_, err := io.ReadFull(r.Body, b)
	received()
	if err == nil {
		return b, true
	}
	text := "the request was cut off"
	if errors.Is(err, os.ErrDeadlineExceeded) {
		text = "the request took too long"
	}
	s.refuse(w, http.StatusRequestTimeout, record.ProblemBusy, text) // the client may send the request again
	return nil, false
}

// noRoom reports whether err means that there is no room for a unit's records. If so, noRoom has answered the
// request.
func (s *Server) noRoom(w http.ResponseWriter, unit string, err error) bool {
	code := ""
	switch {
	case errors.Is(err, store.ErrQuota):
		code = record.ProblemQuota
	case errors.Is(err, store.ErrDisk):
		code = record.ProblemFull
		w.Header().Set("Retry-After", "60")
	default:
		return false
	}
	s.Log.Warn("records refused", "unit", unit, "reason", err.Error())
	s.refuse(w, http.StatusInsufficientStorage, code, err.Error())
	return true
}
