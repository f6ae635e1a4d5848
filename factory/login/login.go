// Package login says which operator is asking: by a session cookie after the login page, or by HTTP basic authentication
// for programs. Passwords are kept as bcrypt hashes, wrong ones are slowed down, and forms carry a token against forgery.
//
// It knows one kind of operator, who may do everything. It does not decide what a page shows.
package login

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/crypto/bcrypt"

	"gprovision/factory/limit"
	"gprovision/model/secret"
)

// Admin is the name of the operator that exists from the start.
const Admin = "admin"

const (
	cookieName = "__Host-gprov" // the prefix makes browsers insist on TLS, path / and no domain
	lifetime   = 12 * time.Hour
	// Cost is the usual cost of a bcrypt hash.
	Cost = 11
	// MaxPassword is the largest length of a password in bytes: bcrypt looks at no more.
	MaxPassword = 72
	// MinPassword is the smallest length of a password in bytes.
	MinPassword = 8
)

// Why a login is refused.
var (
	// ErrWrong says that the name or the password is wrong.
	ErrWrong = errors.New("wrong name or password")
	// ErrSlow says that there were too many wrong passwords from this address.
	ErrSlow = errors.New("too many wrong passwords: wait a minute")
)

// Store keeps hashes and sessions. *store.DB is one.
type Store interface {
	SetLogin(ctx context.Context, operator string, hash []byte) error
	Login(ctx context.Context, operator string) ([]byte, error)
	AddSession(ctx context.Context, id, operator string, expires time.Time) error
	Session(ctx context.Context, id string) (string, error)
	EndSession(ctx context.Context, id string) error
}

// Service checks logins. It is safe for concurrent use.
type Service struct {
	store Store
	wrong *limit.Limiter
	busy  chan struct{} // bounds how many hashes are computed at once
	dummy []byte
	cost  int
}

// New returns a Service whose new hashes have a bcrypt cost, mostly Cost.
func New(s Store, cost int) (*Service, error) {
	dummy, err := bcrypt.GenerateFromPassword([]byte("nobody has this password"), cost)
	if err != nil {
		return nil, err
	}
	return &Service{store: s, wrong: limit.New(10, 6*time.Second), busy: make(chan struct{}, 2), dummy: dummy, cost: cost}, nil
}

// SetPassword sets an operator's password and ends the sessions of that operator.
func (s *Service) SetPassword(ctx context.Context, operator string, password secret.Secret) error {
	if n := len(password); n < MinPassword || n > MaxPassword {
		return fmt.Errorf("the password has %d bytes, want %d to %d", n, MinPassword, MaxPassword)
	}
	h, err := bcrypt.GenerateFromPassword([]byte(password.Reveal()), s.cost)
	if err != nil {
		return fmt.Errorf("hash password: %w", err)
	}
	return s.store.SetLogin(ctx, operator, h)
}

// Check says whether the password is right. remote is the address of who asks. The errors are ErrWrong and ErrSlow. It takes
// as long for operators that do not exist.
func (s *Service) Check(ctx context.Context, operator string, password secret.Secret, remote string) error {
	key := limit.Remote(remote)
	if !s.wrong.Ready(key) {
		return ErrSlow
	}
	select {
	case s.busy <- struct{}{}:
		defer func() { <-s.busy }()
	case <-ctx.Done():
		return ctx.Err()
	}
	h, err := s.store.Login(ctx, operator)
	known := err == nil
	if !known {
		h = s.dummy
	}
	p := []byte(password.Reveal())
	if bcrypt.CompareHashAndPassword(h, p[:min(len(p), MaxPassword)]) != nil || !known || len(p) > MaxPassword {
		s.wrong.Allow(key)
		return ErrWrong
	}
	return nil
}

// Start begins a session and sets its cookie.
func (s *Service) Start(ctx context.Context, w http.ResponseWriter, operator string) error {
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		return err
	}
	id := base64.RawURLEncoding.EncodeToString(b)
	expires := time.Now().Add(lifetime)
	if err := s.store.AddSession(ctx, id, operator, expires); err != nil {
		return err
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: id, Path: "/", Expires: expires, Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	return nil
}

// End ends the session of a request and removes its cookie.
func (s *Service) End(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(cookieName); err == nil {
		s.store.EndSession(r.Context(), c.Value)
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode})
}

// Who says who asks.
type Who struct {
	// Operator is the name.
	Operator string
	// Form is the token that forms of this session must carry. It is empty for basic authentication, where no browser can
	// be tricked into sending a request, since no page here asks for it.
	Form string
}

// From returns who asks, or ErrWrong or ErrSlow.
func (s *Service) From(r *http.Request) (Who, error) {
	if name, password, ok := r.BasicAuth(); ok {
		if err := s.Check(r.Context(), name, secret.Secret(password), r.RemoteAddr); err != nil {
			return Who{}, err
		}
		return Who{Operator: name}, nil
	}
	c, err := r.Cookie(cookieName)
	if err != nil {
		return Who{}, ErrWrong
	}
	op, err := s.store.Session(r.Context(), c.Value)
	if err != nil {
		return Who{}, ErrWrong
	}
	m := hmac.New(sha256.New, []byte(c.Value))
	m.Write([]byte("form"))
	return Who{Operator: op, Form: base64.RawURLEncoding.EncodeToString(m.Sum(nil))}, nil
}

// Genuine says whether a request that changes something was meant by who asks: its token, from the form field "form" or the
// header Gprov-Form, is that of the session.
func (w Who) Genuine(r *http.Request) bool {
	if w.Form == "" {
		return w.Operator != ""
	}
	got := r.Header.Get("Gprov-Form")
	if got == "" {
		got = r.PostFormValue("form")
	}
	return hmac.Equal([]byte(got), []byte(w.Form))
}
