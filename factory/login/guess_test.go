package login

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"gprovision/factory/store"
	"gprovision/model/secret"
)

// guesses tries wrong passwords in parallel and counts those that were compared with the right one.
func guesses(t *testing.T, s *Service, n int, operator, remote func(i int) string) (compared int) {
	t.Helper()
	for range cap(s.busy) { // no hash is computed before all have started
		s.busy <- struct{}{}
	}
	var wg, begun sync.WaitGroup
	var mu sync.Mutex
	begun.Add(n)
	for i := range n {
		wg.Go(func() {
			begun.Done()
			switch err := s.Check(context.Background(), operator(i), secret.Secret(fmt.Sprint("guess ", i)), remote(i)); {
			case errors.Is(err, ErrWrong):
				mu.Lock()
				compared++
				mu.Unlock()
			case !errors.Is(err, ErrSlow):
				t.Error(err)
			}
		})
	}
	begun.Wait()
	for range cap(s.busy) {
		<-s.busy
	}
	wg.Wait()
	return compared
}

// TestGuesses guesses 200 times at once, from one address and from many, at one name and at many. Few guesses are
// checked, and the operator can log in from elsewhere at any time.
func TestGuesses(t *testing.T) {
	same := func(s string) func(int) string { return func(int) string { return s } }
	many := func(format string) func(int) string { return func(i int) string { return fmt.Sprintf(format, i) } }
	for name, c := range map[string]struct {
		operator, remote func(int) string
		most             int
	}{
		"one address":  {same(Admin), same("10.0.0.2:1"), 20},
		"many names":   {many("x%d"), same("10.0.0.2:1"), 20},
		"many places":  {same(Admin), many("10.0.0.%d:1"), 520},
		"all at first": {same(Admin), many("[2001:db8:0:%x::1]:1"), 520},
	} {
		s := service(t)
		n := 0
		for range 5 {
			n += guesses(t, s, 200, c.operator, c.remote)
			began := time.Now()
			if err := s.Check(t.Context(), Admin, "correct horse", "10.1.0.1:1"); err != nil || time.Since(began) > 5*time.Second {
				t.Errorf("%s: the operator comes in after %v: %v", name, time.Since(began), err)
			}
		}
		// Guesses from many places have two tries each, and one more a minute.
		if n > c.most {
			t.Errorf("%s: %d of 1000 guesses were looked at", name, n)
		}
	}
	s := service(t)
	for i := range 40 {
		s.Check(t.Context(), Admin, "guess", fmt.Sprintf("10.3.0.%d:1", i))
	}
	if n := guesses(t, s, 600, same(Admin), func(i int) string { return fmt.Sprintf("10.4.0.%d:1", i%20) }); n > 20*2 {
		t.Errorf("%d guesses from 20 places were looked at after 40 from others", n)
	}
	if err := s.Check(t.Context(), Admin, "correct horse", "10.5.0.1:1"); err != nil {
		t.Error("the operator from a new place:", err)
	}
}

// TestGuessesWhileOperatorWaits holds up every hash and fills the queue from some places. A try from another place
// still gets in.
func TestGuessesWhileOperatorWaits(t *testing.T) {
	s := service(t)
	for range cap(s.busy) {
		s.busy <- struct{}{}
	}
	done := make(chan error, 1000)
	for i := range 200 {
		go func() { done <- s.Check(context.Background(), Admin, "guess", fmt.Sprintf("10.0.0.%d:1", i%50)) }()
	}
	for range 200 - 64 { // all but those in the queue are refused
		if err := <-done; !errors.Is(err, ErrSlow) {
			t.Fatal(err)
		}
	}
	good := make(chan error, 1)
	go func() { good <- s.Check(context.Background(), Admin, "correct horse", "10.9.0.1:1") }()
	if err := <-done; !errors.Is(err, ErrSlow) {
		t.Error("nobody makes room:", err)
	}
	for range cap(s.busy) {
		<-s.busy
	}
	if err := <-good; err != nil {
		t.Error(err)
	}
	for range 63 {
		<-done
	}
}

// TestRightPasswords logs in again and again: right passwords are not counted.
func TestRightPasswords(t *testing.T) {
	s := service(t)
	for range 50 {
		if err := s.Check(t.Context(), Admin, "correct horse", "10.0.0.1:1"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStoreFails: an unreadable database is reported as that, and counts against nobody.
func TestStoreFails(t *testing.T) {
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(db, bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	for range 30 {
		if err := s.Check(t.Context(), Admin, "correct horse", "10.0.0.1:1"); err == nil || errors.Is(err, ErrWrong) || errors.Is(err, ErrSlow) {
			t.Fatal(err)
		}
	}
	r := httptest.NewRequest("GET", "/x", nil)
	r.AddCookie(&http.Cookie{Name: cookieName, Value: "x"})
	if _, err := s.From(r); err == nil || errors.Is(err, ErrWrong) {
		t.Error(err)
	}
}

// TestLive ends the activities of a login.
func TestLive(t *testing.T) {
	session := func(s *Service) (*http.Request, Who) {
		w := httptest.NewRecorder()
		if err := s.Start(t.Context(), w, Admin); err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("GET", "/x", nil)
		r.AddCookie(w.Result().Cookies()[0])
		who, err := s.From(r)
		if err != nil {
			t.Fatal(err)
		}
		return r, who
	}
	for name, c := range map[string]struct {
		basic bool
		slow  bool // only the next check notices
		end   func(s *Service, r *http.Request)
	}{
		"logout":       {end: func(s *Service, r *http.Request) { s.End(httptest.NewRecorder(), r) }},
		"new password": {end: func(s *Service, _ *http.Request) { s.SetPassword(t.Context(), Admin, "another one") }},
		"basic":        {basic: true, end: func(s *Service, _ *http.Request) { s.SetPassword(t.Context(), Admin, "another one") }},
		"elsewhere": {slow: true, end: func(s *Service, r *http.Request) {
			c, _ := r.Cookie(cookieName)
			s.store.EndSession(t.Context(), c.Value)
		}},
		"elsewhere, basic":  {basic: true, slow: true, end: func(s *Service, _ *http.Request) { s.store.SetLogin(t.Context(), Admin, []byte("x")) }},
		"the asker goes":    {end: func(*Service, *http.Request) {}},
		"nothing, then end": {end: func(s *Service, r *http.Request) { session(s); s.End(httptest.NewRecorder(), r) }},
	} {
		s := service(t)
		s.recheck = time.Hour
		if c.slow {
			s.recheck = time.Millisecond
		}
		r, who := session(s)
		if c.basic {
			r = httptest.NewRequest("GET", "/x", nil)
			r.SetBasicAuth(Admin, "correct horse")
			var err error
			if who, err = s.From(r); err != nil {
				t.Fatal(err)
			}
		}
		_, other := session(s)
		ctx, cancel := context.WithCancel(t.Context())
		live, stop := s.Live(ctx, who)
		others, stopOthers := s.Live(t.Context(), other)
		if live.Err() != nil {
			t.Errorf("%s: it has ended at once", name)
		}
		c.end(s, r)
		if name == "the asker goes" {
			cancel()
		}
		select {
		case <-live.Done():
		case <-time.After(20 * time.Second):
			t.Errorf("%s: it goes on", name)
		}
		if ended := others.Err() != nil; ended && (name == "logout" || name == "elsewhere") {
			t.Errorf("%s: another session has ended, too", name)
		}
		stop()
		stopOthers()
		cancel()
		if len(s.live) != 0 {
			t.Errorf("%s: something is left", name)
		}
	}
}
