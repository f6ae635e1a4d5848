// Package login says which operator is asking: by a session cookie after the login page, or by HTTP basic authentication
// for programs. Passwords are kept as bcrypt hashes, wrong ones are slowed down, and forms carry a token against forgery.
//
// It knows one kind of operator, who may do everything. It does not decide what a page shows.
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
	// MaxPassword is the largest length of a password in bytes: bcrypt looks at no more.
	MaxPassword = 72
	// MinPassword is the smallest length of a password in bytes.
	MinPassword = 8
)

// Why a login is refused.
var (
	// ErrWrong says that the name or the password is wrong.
	ErrWrong = errors.New("wrong name or password")
	// ErrSlow says that there were too many wrong passwords, or that too many are being tried at this moment.
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
	// Each try is counted before its hash is computed, so that many at the same time are as slow as many in a row; the right password is
	// counted back. An address has ten tries, and one more every six seconds. Once there were many tries for one name, or for all
	// of them, from wherever, an address has two and one more a minute. So nobody's guesses keep out a person who comes from elsewhere.
	address, strict, name, all *limit.Limiter
	queue                      *limit.Flight // those who wait for a hash, few of them of one address
	busy                       chan struct{} // bounds how many hashes are computed at once
	dummy                      []byte
	cost                       int

	recheck time.Duration // how often Live looks whether a login still holds
	mu      sync.Mutex
	live    map[*living]bool
}

// living is something that goes on as long as a login holds.
type living struct {
	who Who
	end context.CancelFunc
}

// New returns a Service whose new hashes have a bcrypt cost, mostly Cost.
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

// endAll ends what goes on for those whom f chooses.
func (s *Service) endAll(f func(Who) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.live {
		if f(l.who) {
			l.end()
		}
	}
}

// counted is a call that was taken from a limiter.
type counted struct {
	l   *limit.Limiter
	key string
}

// try counts a try from an address. back counts it back; it is not ok if there are too many.
func (s *Service) try(operator, key string) (back func(), ok bool) {
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

// Check says whether the password is right. remote is the address of who asks. The errors are ErrWrong and ErrSlow, and those of the
// store, which say nothing about the password. It takes as long for operators that do not exist.
func (s *Service) Check(ctx context.Context, operator string, password secret.Secret, remote string) error {
	_, err := s.check(ctx, operator, password, remote)
	return err
}

// check is Check, and returns the hash that the password has.
func (s *Service) check(ctx context.Context, operator string, password secret.Secret, remote string) ([]byte, error) {
	key := limit.Remote(remote)
	back, ok := s.try(operator, key)
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
		s.endAll(func(w Who) bool { return w.session == c.Value })
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

	session string // its identifier, or empty
	hash    []byte // that of the password, without a session
}

// Live returns a context that ends when who asked may not ask any more: the session was ended or has expired, or the password is another
// one. What is ended in this process ends at once, all else within ten seconds. The caller calls stop.
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
		for s.holds(ctx, who) {
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

// holds reports whether a login still holds. A store that cannot be read ends nothing.
func (s *Service) holds(ctx context.Context, who Who) bool {
	if who.session != "" {
		_, err := s.store.Session(ctx, who.session)
		return !errors.Is(err, store.ErrNotFound)
	}
	h, err := s.store.Login(ctx, who.Operator)
	return err == nil && bytes.Equal(h, who.hash) || err != nil && !errors.Is(err, store.ErrNotFound)
}

// From returns who asks, or ErrWrong or ErrSlow, or an error of the store.
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

// ReadPassword returns the first line of a file.
func ReadPassword(path string) (secret.Secret, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return secret.Secret(strings.TrimRight(line, "\r")), nil
}
