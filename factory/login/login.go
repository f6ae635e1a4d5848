// Package login finds out which operator sends a request: by the session cookie of the login page or, for programs,
// by HTTP basic authentication. It stores passwords as bcrypt hashes. Wrong passwords slow down further tries. Forms
// carry a token against forgery.
//
// There is only one kind of operator, who may do everything. The package does not decide what a page shows.
package login

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"gprovision/factory/limit"
	"gprovision/factory/store"
	"gprovision/model/secret"
)

// Admin is the name of the operator that exists from the start.
const Admin = "admin"

const (
	cookieName = "__Host-gprov" // the prefix makes browsers insist on TLS, path / and no domain
	lifetime   = 12 * time.Hour
	// Cost is the usual cost of a bcrypt hash.
	Cost = 11
	// MaxPassword is the maximum length of a password in bytes. bcrypt ignores the rest.
	MaxPassword = 72
	// MinPassword is the minimum length of a password in bytes.
	MinPassword = 8
)

// Reasons to refuse a login.
var (
	// ErrWrong means that the name or the password is wrong.
	ErrWrong = errors.New("wrong name or password")
	// ErrSlow means that there were too many wrong passwords, or that too many are being checked right now.
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
	// Each try is counted before its hash is computed, so that parallel tries are as slow as successive ones. The
	// right password takes its count back. An address has ten tries, and one more every six seconds. After many tries
	// for one name, or for all names together, from any addresses, each address has two tries and one more a minute.
	// So guessing does not lock out a person at another address.
	address, strict, name, all *limit.Limiter
	queue                      *limit.Flight // tries that wait for a hash, few per address
	busy                       chan struct{} // limits how many hashes are computed at the same time
	dummy                      []byte
	cost                       int

	recheck time.Duration // how often Live checks a login
	mu      sync.Mutex
	live    map[*living]bool
}

// living is an activity that lasts as long as a login is valid.
type living struct {
	who Who
	end context.CancelFunc
}

// New returns a Service that makes hashes with a bcrypt cost, usually Cost.
func New(s Store, cost int) (*Service, error) {
	dummy, err := bcrypt.GenerateFromPassword([]byte("nobody has this password"), cost)
	if err != nil {
		return nil, err
	}
	return &Service{
		store: s, address: limit.New(10, 6*time.Second), strict: limit.New(2, time.Minute), name: limit.New(30, 2*time.Second), all: limit.New(100, time.Second),
		queue: limit.NewFlight(64, 64, 4), busy: make(chan struct{}, 2), dummy: dummy, cost: cost, recheck: 10 * time.Second, live: map[*living]bool{},
	}, nil
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
	if err := s.store.SetLogin(ctx, operator, h); err != nil {
		return err
	}
	s.endAll(func(w Who) bool { return w.Operator == operator })
	return nil
}

// endAll ends the activities of the logins that f selects.
func (s *Service) endAll(f func(Who) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.live {
		if f(l.who) {
			l.end()
		}
	}
}

// counted is a call that was taken from a Limiter.
type counted struct {
	l   *limit.Limiter
	key string
}

// countTry counts a try from an address. ok is false if there were too many. back takes the count back.
func (s *Service) countTry(operator, key string) (back func(), ok bool) {
	var taken []counted
	take := func(l *limit.Limiter, key string) bool {
		if !l.Allow(key) {
			return false
		}
		taken = append(taken, counted{l, key})
		return true
	}
	back = func() {
		for _, c := range taken {
			c.l.Give(c.key)
		}
	}
	named, all := take(s.name, operator), take(s.all, "")
	if !take(s.address, key) || !(named && all) && !take(s.strict, key) {
		back()
		return nil, false
	}
	return back, true
}

// Check returns nil if the password is right. It takes as long for an operator that does not exist. remote is the
// address of the client. The errors are ErrWrong, ErrSlow and those of the store, which do not depend on the
// password.
func (s *Service) Check(ctx context.Context, operator string, password secret.Secret, remote string) error {
	_, err := s.check(ctx, operator, password, remote)
	return err
}

// check does what Check does. It also returns the hash of the password.
func (s *Service) check(ctx context.Context, operator string, password secret.Secret, remote string) ([]byte, error) {
	key := limit.Remote(remote)
	back, ok := s.countTry(operator, key)
	if !ok {
		return nil, ErrSlow
	}
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	received, leave, ok := s.queue.Enter(key, 1, cancel)
	if !ok {
		back()
		return nil, ErrSlow
	}
	defer leave()
	select {
	case s.busy <- struct{}{}:
		defer func() { <-s.busy }()
	case <-wait.Done():
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		back()
		return nil, ErrSlow
	}
	received()
	h, err := s.store.Login(ctx, operator)
	known := err == nil
	if errors.Is(err, store.ErrNotFound) {
		h, err = s.dummy, nil
	}
	if err != nil {
		back()
		return nil, fmt.Errorf("read login: %w", err)
	}
	p := []byte(password.Reveal())
	if bcrypt.CompareHashAndPassword(h, p[:min(len(p), MaxPassword)]) != nil || !known || len(p) > MaxPassword {
		return nil, ErrWrong
	}
	back()
	return h, nil
}

// Start starts a session and sets its cookie.
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
		s.endAll(func(w Who) bool { return w.session == c.Value })
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode})
}

// Who is the operator who sends a request.
type Who struct {
	// Operator is the operator's name.
	Operator string
	// Form is the token that forms of this session must carry. It is empty for basic authentication: no page here
	// asks for that, so no browser can be tricked into sending it.
	Form string

	session string // identifier of the session; empty without one
	hash    []byte // hash of the password; empty with a session
}

// Live returns a context that ends when a login stops being valid: when its session ends or expires, or when the
// password changes. If that happens in this process, the context ends at once, otherwise within ten seconds. The
// caller calls stop.
func (s *Service) Live(ctx context.Context, who Who) (live context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	l := &living{who, cancel}
	s.mu.Lock()
	s.live[l] = true
	s.mu.Unlock()
	go func() {
		defer cancel()
		t := time.NewTicker(s.recheck)
		defer t.Stop()
		for s.stillValid(ctx, who) {
			select {
			case <-t.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() {
		cancel()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.live, l)
	}
}

// stillValid reports whether a login is still valid. If the store cannot be read, it counts as valid.
func (s *Service) stillValid(ctx context.Context, who Who) bool {
	if who.session != "" {
		_, err := s.store.Session(ctx, who.session)
		return !errors.Is(err, store.ErrNotFound)
	}
	h, err := s.store.Login(ctx, who.Operator)
	return err == nil && bytes.Equal(h, who.hash) || err != nil && !errors.Is(err, store.ErrNotFound)
}

// From returns the operator who sends a request. The errors are ErrWrong, ErrSlow and those of the store.
func (s *Service) From(r *http.Request) (Who, error) {
	if name, password, ok := r.BasicAuth(); ok {
		h, err := s.check(r.Context(), name, secret.Secret(password), r.RemoteAddr)
		if err != nil {
			return Who{}, err
		}
		return Who{Operator: name, hash: h}, nil
	}
	c, err := r.Cookie(cookieName)
	if err != nil {
		return Who{}, ErrWrong
	}
	op, err := s.store.Session(r.Context(), c.Value)
	if errors.Is(err, store.ErrNotFound) {
		return Who{}, ErrWrong
	}
	if err != nil {
		return Who{}, fmt.Errorf("read session: %w", err)
	}
	m := hmac.New(sha256.New, []byte(c.Value))
	m.Write([]byte("form"))
	return Who{Operator: op, session: c.Value, Form: base64.RawURLEncoding.EncodeToString(m.Sum(nil))}, nil
}

// Genuine reports whether the operator meant to send a request that changes something. Its token, in the form field
// "form" or the header Gprov-Form, must be that of the session.
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

// ReadPassword returns the first line of a file.
func ReadPassword(path string) (secret.Secret, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return secret.Secret(strings.TrimRight(line, "\r")), nil
}
