// Package web is the dashboard: a login, the list of units with their states, and a page for each unit. The pages are
// plain HTML from templates. They update while a person looks at them, and load nothing from other servers.
//
// Pages show what units send. So html/template escapes everything, and a content security policy forbids scripts that
// are not ours. Every change is a form with the token of the session.
package web

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"gprovision/factory/api"
	"gprovision/factory/login"
	"gprovision/factory/notary"
	"gprovision/factory/store"
	"gprovision/model/record"
	"gprovision/model/secret"
)

//go:embed page/*.html
var pages embed.FS

//go:embed static
var static embed.FS

// Config is what the dashboard works with.
type Config struct {
	Store *store.DB
	Login *login.Service
	Hub   *api.Hub
	Log   *slog.Logger
	// Problems, if not nil, returns a sentence for each problem of the server's set-up. The first page shows them.
	Problems func() []string
	// ByPerson reports whether an approval needs the key's fingerprint.
	ByPerson bool
	// Witnesses are asked to cosign the log of certificates.
	Witnesses []notary.Witness
}

// Web serves the dashboard.
type Web struct {
	Config
	t      *template.Template
	notary *notary.Notary
}

// Limits of what a page shows. A value of more than maxText bytes is cut.
const (
	unitsPerPage  = 500
	eventsPerPage = 200
	maxText       = 512
)

// New returns a dashboard. The error is one of the templates.
func New(c Config) (*Web, error) {
	t, err := template.New("").Funcs(template.FuncMap{"class": class, "words": describe, "text": display, "level": level, "verdict": verdict, "path": url.PathEscape,
		"outcome": outcomeClass, "seconds": seconds}).ParseFS(pages, "page/*.html")
	if err != nil {
		return nil, fmt.Errorf("dashboard: %w", err)
	}
	return &Web{c, t, notary.New(c.Store, c.Log, c.Witnesses...)}, nil
}

// Register adds the pages to a mux.
func (s *Web) Register(mux *http.ServeMux) {
	files, err := fs.Sub(static, "static")
	if err == nil { // the directory is embedded
		mux.Handle("GET /static/", s.guard(http.StripPrefix("/static/", http.FileServerFS(files)).ServeHTTP))
	}
	mux.Handle("GET /login", s.guard(func(w http.ResponseWriter, r *http.Request) {
		s.page(w, http.StatusOK, "login.html", view{Title: "Log in"})
	}))
	mux.Handle("POST /login", s.guard(s.enter))
	mux.Handle("POST /logout", s.withForm(func(w http.ResponseWriter, r *http.Request, _ login.Who) {
		s.Login.End(w, r)
		http.Redirect(w, r, "/login", http.StatusSeeOther)
	}))
	mux.Handle("GET /{$}", s.withLogin(s.units))
	mux.Handle("GET /units/{unit}", s.withLogin(s.unit))
	mux.Handle("GET /units/{unit}/documents/{id}", s.withLogin(s.document))
	mux.Handle("GET /live", s.withLogin(func(w http.ResponseWriter, r *http.Request, who login.Who) {
		api.Stream(w, r, s.Hub, s.Login, who)
	}))
	mux.Handle("POST /units/{unit}/release", s.withForm(s.release))
	mux.Handle("POST /units/{unit}/enrolments/{id}/approve", s.withForm(s.approve))
	mux.Handle("POST /units/{unit}/enrolments/{id}/reject", s.withForm(s.reject))
	mux.Handle("POST /units/{unit}/join", s.withForm(s.join))
	mux.Handle("GET /ports", s.withLogin(s.ports))
	mux.Handle("POST /ports/{mac}/release", s.withForm(s.releasePort))
	mux.Handle("POST /ports/{mac}/unshare", s.withForm(s.unsharePort))
	mux.Handle("POST /ports/share", s.withForm(s.sharePort))
	mux.Handle("GET /erases", s.withLogin(s.erases))
	mux.Handle("POST /erases", s.withFormUpTo(api.MaxErase, s.submitErase))
	mux.Handle("GET /units/{unit}/erases/{id}/{file}", s.withLogin(s.eraseFile))
}

// guard sets the headers that every page has.
func (s *Web) guard(f http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		f(w, r)
	})
}

// withLogin wraps the handler of a page that needs a login.
func (s *Web) withLogin(f func(http.ResponseWriter, *http.Request, login.Who)) http.Handler {
	return s.guard(func(w http.ResponseWriter, r *http.Request) {
		who, err := s.Login.From(r)
		if err != nil && !errors.Is(err, login.ErrWrong) && !errors.Is(err, login.ErrSlow) {
			s.serverError(w, err)
			return
		}
		if err != nil || who.Form == "" { // pages need a session; programs use /v1
			if r.Header.Get("Gprov-Part") != "" || r.URL.Path == "/live" {
				http.Error(w, "an operator's login is needed", http.StatusUnauthorized)
				return
			}
			http.Redirect(w, r, "/login", http.StatusSeeOther)
			return
		}
		f(w, r, who)
	})
}

// withForm wraps the handler of a form.
func (s *Web) withForm(f func(http.ResponseWriter, *http.Request, login.Who)) http.Handler {
	return s.withFormUpTo(64<<10, f)
}

// withFormUpTo is withForm for a form of at most so many bytes.
func (s *Web) withFormUpTo(most int64, f func(http.ResponseWriter, *http.Request, login.Who)) http.Handler {
	return s.withLogin(func(w http.ResponseWriter, r *http.Request, who login.Who) {
		r.Body = http.MaxBytesReader(w, r.Body, most)
		if !who.Genuine(r) {
			http.Error(w, "this form is too old or was forged: go back and load the page again", http.StatusForbidden)
			return
		}
		f(w, r, who)
	})
}

// view is the data of the templates.
type view struct {
	Title, Form, Unit, Problem string
	Units                      []api.UnitView
	More, From                 int // the number of units after this page, and the offset of the next page
	Waiting                    []store.Token
	Problems                   []string
	Detail                     detail
	Ports                      api.PortList
	ByPerson                   bool
	Drives                     []store.DriveModel
	Keys                       record.NoteKeys
}

type detail struct {
	api.Detail
	QA, Events []store.Event
	// QAChecked and QAOpen are the numbers of QA lines that were compared and that were not. QACut reports whether
	// there are more lines.
	QAChecked, QAOpen int
	QACut             bool
	Older             int64 // the ID of the oldest event shown, or 0 if there are no older ones
}

func (s *Web) page(w http.ResponseWriter, status int, name string, v view) {
	var b bytes.Buffer
	if err := s.t.ExecuteTemplate(&b, name, v); err != nil {
		s.serverError(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

func (s *Web) serverError(w http.ResponseWriter, err error) {
	if errors.Is(err, store.ErrNotFound) {
		http.Error(w, "there is no such thing", http.StatusNotFound)
		return
	}
	for _, e := range []error{store.ErrCompleted, store.ErrFingerprint, store.ErrTaken, store.ErrInput} {
		if errors.Is(err, e) {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
	}
	s.Log.Error("page failed", "error", err.Error())
	http.Error(w, "the server has trouble of its own, see its log", http.StatusInternalServerError)
}

func (s *Web) enter(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" {
		http.Error(w, "log in on this server's own page", http.StatusForbidden)
		return
	}
	operator := r.PostFormValue("operator")
	err := s.Login.Check(r.Context(), operator, secret.Secret(r.PostFormValue("password")), r.RemoteAddr)
	if err == nil {
		err = s.Login.Start(r.Context(), w, operator)
	}
	switch {
	case err == nil:
		s.Log.Info("login", "operator", operator, "remote", r.RemoteAddr)
		http.Redirect(w, r, "/", http.StatusSeeOther)
	case errors.Is(err, login.ErrWrong), errors.Is(err, login.ErrSlow):
		s.Log.Warn("login refused", "remote", r.RemoteAddr, "error", err.Error())
		status := http.StatusUnauthorized
		if errors.Is(err, login.ErrSlow) {
			status = http.StatusTooManyRequests
		}
		s.page(w, status, "login.html", view{Title: "Log in", Problem: err.Error()})
	default:
		s.serverError(w, err)
	}
}

func (s *Web) units(w http.ResponseWriter, r *http.Request, who login.Who) {
	from, _ := strconv.Atoi(r.URL.Query().Get("from"))
	units, total, err := s.Store.Units(r.Context(), from, unitsPerPage)
	if err != nil {
		s.serverError(w, err)
		return
	}
	v := view{Title: "Units", Form: who.Form}
	if next := max(from, 0) + len(units); next < total {
		v.More, v.From = total-next, next
	}
	for _, u := range units {
		v.Units = append(v.Units, api.View(u))
	}
	if v.Waiting, err = s.Store.Tokens(r.Context()); err != nil {
		s.serverError(w, err)
		return
	}
	if s.Problems != nil {
		v.Problems = s.Problems()
	}
	s.page(w, http.StatusOK, "units.html", v)
}

func (s *Web) unit(w http.ResponseWriter, r *http.Request, who login.Who) {
	id := r.PathValue("unit")
	d, err := api.ReadDetail(r.Context(), s.Store, id)
	if err != nil {
		s.serverError(w, err)
		return
	}
	before, _ := strconv.ParseInt(r.URL.Query().Get("before"), 10, 64)
	v := view{Title: id, Form: who.Form, Unit: id, Detail: detail{Detail: d}, ByPerson: s.ByPerson}
	var more bool
	var moreQA bool
	if v.Detail.Events, more, err = s.Store.Events(r.Context(), id, before, eventsPerPage); err == nil {
		v.Detail.QA, moreQA, err = s.Store.Events(r.Context(), id, 0, maxQA, record.KindQA)
	}
	if err != nil {
		s.serverError(w, err)
		return
	}
	if n := len(v.Detail.Events); more && n > 0 {
		v.Detail.Older = v.Detail.Events[n-1].ID
	}
	v.Detail.check(moreQA)
	s.page(w, http.StatusOK, "unit.html", v)
}

func (s *Web) document(w http.ResponseWriter, r *http.Request, _ login.Who) {
	id, _ := strconv.ParseInt(r.PathValue("id"), 10, 64)
	d, err := s.Store.Document(r.Context(), r.PathValue("unit"), id)
	if err != nil {
		s.serverError(w, err)
		return
	}
	api.ServeDocument(w, d)
}

func (s *Web) release(w http.ResponseWriter, r *http.Request, who login.Who) {
	s.finishChange(w, r, who, "released", s.Store.Release(r.Context(), r.PathValue("unit"), who.Operator))
}

func (s *Web) approve(w http.ResponseWriter, r *http.Request, who login.Who) {
	id, _ := strconv.ParseInt(r.PathValue("id"), 10, 64)
	typed := r.PostFormValue("fingerprint")
	err := api.NeedFingerprint(s.ByPerson, typed)
	if err == nil {
		err = s.Store.Approve(r.Context(), r.PathValue("unit"), id, who.Operator, typed)
	}
	s.finishChange(w, r, who, "approved", err)
}

func (s *Web) reject(w http.ResponseWriter, r *http.Request, who login.Who) {
	id, _ := strconv.ParseInt(r.PathValue("id"), 10, 64)
	s.finishChange(w, r, who, "rejected", s.Store.Reject(r.Context(), r.PathValue("unit"), id, who.Operator))
}

func (s *Web) join(w http.ResponseWriter, r *http.Request, who login.Who) {
	s.finishChange(w, r, who, "mainboard joined", s.Store.Join(r.Context(), r.PathValue("unit"), strings.TrimSpace(r.PostFormValue("serial")), strings.TrimSpace(r.PostFormValue("mac")), who.Operator))
}

func (s *Web) ports(w http.ResponseWriter, r *http.Request, who login.Who) {
	l, err := api.ReadPorts(r.Context(), s.Store)
	if err != nil {
		s.serverError(w, err)
		return
	}
	s.page(w, http.StatusOK, "ports.html", view{Title: "Ports", Form: who.Form, Ports: l})
}

func (s *Web) releasePort(w http.ResponseWriter, r *http.Request, who login.Who) {
	s.finishPortChange(w, r, who, "port released", s.Store.ReleasePort(r.Context(), r.PathValue("mac"), who.Operator))
}

func (s *Web) sharePort(w http.ResponseWriter, r *http.Request, who login.Who) {
	s.finishPortChange(w, r, who, "adapter shared", s.Store.SharePort(r.Context(), strings.TrimSpace(r.PostFormValue("mac")), r.PostFormValue("note"), who.Operator))
}

func (s *Web) unsharePort(w http.ResponseWriter, r *http.Request, who login.Who) {
	s.finishPortChange(w, r, who, "adapter not shared", s.Store.UnsharePort(r.Context(), r.PathValue("mac")))
}

// finishPortChange completes a change of ports and shows their page again.
func (s *Web) finishPortChange(w http.ResponseWriter, r *http.Request, who login.Who, what string, err error) {
	if err != nil {
		s.serverError(w, err)
		return
	}
	s.Log.Info(what, "mac", r.PathValue("mac")+r.PostFormValue("mac"), "operator", who.Operator)
	s.Hub.Publish("")
	http.Redirect(w, r, "/ports", http.StatusSeeOther)
}

// finishChange completes a change. It notifies the watchers and shows the unit's page again.
func (s *Web) finishChange(w http.ResponseWriter, r *http.Request, who login.Who, what string, err error) {
	unit := r.PathValue("unit")
	if err != nil {
		s.serverError(w, err)
		return
	}
	s.Log.Info(what, "unit", unit, "operator", who.Operator)
	s.Hub.Publish(unit)
	http.Redirect(w, r, "/units/"+url.PathEscape(unit), http.StatusSeeOther)
}

// class returns the style class of a state.
func class(u api.UnitView) string {
	switch record.Phase(u.Phase) {
	case record.Failed:
		return "bad"
	case record.Succeeded:
		return "good"
	case record.Started, record.Step:
		if record.Job(u.Job) == record.JobRunning {
			return "good"
		}
		return "busy"
	}
	return "wait"
}

// level returns the style class of a log level.
func level(s string) string {
	switch s {
	case "ERROR":
		return "bad"
	case "WARN":
		return "wait"
	}
	return "dim"
}

// describe returns an event as one line of text.
func describe(e store.Event) string {
	var parts []string
	if st, ok := record.StateOf(e.Event); ok {
		parts = append(parts, st.String())
		for _, s := range []string{st.Code, st.Text} {
			if s != "" {
				parts = append(parts, s)
			}
		}
		return strings.Join(parts, " ")
	}
	if e.Message != "" {
		parts = append(parts, e.Message)
	}
	for _, k := range slices.Sorted(maps.Keys(e.Attrs)) {
		s := display(e.Attrs[k])
		if _, ok := e.Attrs[k].(string); ok && (s == "" || strings.ContainsAny(s, " \"\n")) {
			s = strconv.Quote(s)
		}
		parts = append(parts, k+"="+s)
	}
	return cut(strings.Join(parts, " "), 4*maxText)
}

// cut shortens a text and marks where it did.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + fmt.Sprintf(" [%d bytes]", len(s))
}

// Limits of a hardware check on a page. A machine has a few hundred lines of about a hundred bytes.
const (
	maxQA      = 2000      // lines to read
	maxQABytes = 200 << 10 // bytes to show
)

// check keeps the lines of the newest hardware check, in the order of the check, and counts them. more reports
// whether there are older lines that were not read.
func (d *detail) check(more bool) {
	if len(d.QA) == 0 {
		return
	}
	first := d.QA[0]
	own := func(e store.Event) bool {
		return e.Boot == first.Boot && fmt.Sprint(e.Attrs["try"]) == fmt.Sprint(first.Attrs["try"])
	}
	d.QACut = more && own(d.QA[len(d.QA)-1])
	size := 0
	d.QA = slices.DeleteFunc(d.QA, func(e store.Event) bool {
		if !own(e) {
			return true
		}
		for _, k := range []string{"name", "found", "expected", "rule"} {
			size += len(display(e.Attrs[k]))
		}
		d.QACut = d.QACut || size > maxQABytes
		return size > maxQABytes
	})
	slices.Reverse(d.QA)
	for _, e := range d.QA {
		if verdict(e) == notChecked {
			d.QAOpen++
		}
	}
	d.QAChecked = len(d.QA) - d.QAOpen
}

// notChecked is the verdict of a line in which nothing was compared.
const notChecked = "not checked"

// verdict returns the result of a line of the hardware check: ok, differs or not checked. For older units, the rule
// in the line shows that nothing was compared.
func verdict(e store.Event) string {
	ok, _ := e.Attrs["ok"].(bool)
	checked, said := e.Attrs["checked"].(bool)
	rule, _ := e.Attrs["rule"].(string)
	switch {
	case said && !checked, !said && (rule == "not specified" || strings.HasPrefix(rule, "not compared")):
		return notChecked
	case ok:
		return "ok"
	}
	return "differs"
}

// display returns a value for people, cut to the room on a page. A string stays as it is. Everything else becomes JSON.
func display(v any) string { return cut(format(v), maxText) }

func format(v any) string {
	if raw, ok := v.(json.RawMessage); ok {
		var parsed any
		if json.Unmarshal(raw, &parsed) == nil {
			v = parsed
		}
	}
	if s, ok := v.(string); ok || v == nil {
		return s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // html/template escapes it for the page
	if err := e.Encode(v); err != nil {
		return ""
	}
	return strings.TrimSpace(b.String())
}
