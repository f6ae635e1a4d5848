package login

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"gprovision/factory/store"
	"gprovision/model/secret"
)

func service(t *testing.T) *Service {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s, err := New(db, bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetPassword(t.Context(), Admin, "correct horse"); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCheck(t *testing.T) {
	s := service(t)
	ctx := t.Context()
	for name, c := range map[string]struct {
		operator string
		password secret.Secret
		want     error
	}{
		"right":    {Admin, "correct horse", nil},
		"wrong":    {Admin, "correct horsf", ErrWrong},
		"nobody":   {"nobody", "correct horse", ErrWrong},
		"empty":    {Admin, "", ErrWrong},
		"too long": {Admin, secret.Secret(strings.Repeat("x", 200)), ErrWrong},
	} {
		if err := s.Check(ctx, c.operator, c.password, "10.0.0.1:1"); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, p := range []secret.Secret{"short", secret.Secret(strings.Repeat("x", MaxPassword+1))} {
		if s.SetPassword(ctx, Admin, p) == nil {
			t.Error("a password of a bad length is set")
		}
	}
	var err error
	for range 20 {
		err = s.Check(ctx, Admin, "guess", "10.0.0.2:5")
	}
	if !errors.Is(err, ErrSlow) {
		t.Error("guessing is not slowed down:", err)
	}
	if err := s.Check(ctx, Admin, "correct horse", "10.0.0.2:6"); !errors.Is(err, ErrSlow) {
		t.Error("the right password gives away that it is right:", err)
	}
	if err := s.Check(ctx, Admin, "correct horse", "10.0.0.3:6"); err != nil {
		t.Error("others are hindered:", err)
	}
}

func TestSession(t *testing.T) {
	s := service(t)
	w := httptest.NewRecorder()
	if err := s.Start(t.Context(), w, Admin); err != nil {
		t.Fatal(err)
	}
	c := w.Result().Cookies()[0]
	if !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Domain != "" || c.Path != "/" || !strings.HasPrefix(c.Name, "__Host-") {
		t.Errorf("%+v", c)
	}
	request := func(form string) *http.Request {
		r := httptest.NewRequest("POST", "/x", strings.NewReader(url.Values{"form": {form}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.AddCookie(c)
		return r
	}
	who, err := s.From(request(""))
	if err != nil || who.Operator != Admin || who.Form == "" || strings.Contains(who.Form, c.Value) {
		t.Fatal(who, err)
	}
	if who.Genuine(request("")) || who.Genuine(request("x")) || !who.Genuine(request(who.Form)) {
		t.Error("forged forms")
	}
	if (Who{}).Genuine(request("")) {
		t.Error("nobody is genuine")
	}
	s.End(httptest.NewRecorder(), request(""))
	if _, err := s.From(request("")); !errors.Is(err, ErrWrong) {
		t.Error("the session goes on:", err)
	}
	r := httptest.NewRequest("GET", "/x", nil)
	if _, err := s.From(r); !errors.Is(err, ErrWrong) {
		t.Error(err)
	}
	r.SetBasicAuth(Admin, "correct horse")
	if who, err := s.From(r); err != nil || who.Form != "" || !who.Genuine(r) {
		t.Error(who, err)
	}
}
