package web

import (
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"gprovision/factory/api"
	"gprovision/factory/login"
	"gprovision/factory/store"
	docs "gprovision/model/page"
	"gprovision/model/record"
)

const password = "correct horse"

type site struct {
	*testing.T
	dir string // the server's data
	url string
	db  *store.DB
	hub *api.Hub
	web *Web
	c   *http.Client
}

func start(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	db, err := store.Open(t.Context(), filepath.Join(dir, "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	l, err := login.New(db, bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SetPassword(t.Context(), login.Admin, password); err != nil {
		t.Fatal(err)
	}
	s := &site{T: t, dir: dir, db: db, hub: &api.Hub{}}
	w, err := New(Config{Store: db, Login: l, Hub: s.hub, Log: slog.New(slog.DiscardHandler), Problems: func() []string { return []string{"the server has no operator key"} }})
	if err != nil {
		t.Fatal(err)
	}
	ca, err := api.OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := ca.TLS([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	s.web = w
	w.Register(mux)
	srv := httptest.NewUnstartedServer(mux)
	srv.Listener = tls.NewListener(srv.Listener, conf)
	srv.Start()
	t.Cleanup(srv.Close)
	s.url = strings.Replace(srv.URL, "http:", "https:", 1)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.PEM())
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.c = &http.Client{Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	t.Cleanup(s.c.CloseIdleConnections)
	return s
}

func (s *site) do(method, path string, form url.Values) (int, string, *http.Response) {
	s.Helper()
	r, err := http.NewRequestWithContext(s.Context(), method, s.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		s.Fatal(err)
	}
	if method == "POST" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := s.c.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	return resp.StatusCode, string(b), resp
}

func (s *site) login() {
	s.Helper()
	if st, page, _ := s.do("POST", "/login", url.Values{"operator": {"admin"}, "password": {password}}); st != 200 || !strings.Contains(page, "<h1>Units</h1>") {
		s.Fatal(st, page)
	}
}

const evil = `<script>alert("x")</script>`

// fill makes units in several states.
func (s *site) fill() {
	s.Helper()
	for i, id := range []string{"SN 1/2", "SN-0002", "SN-0003", "SN-0004"} {
		mac := fmt.Sprintf("52:54:00:00:00:%02x", i)
		now := time.Now()
		err := s.db.AddToken(s.Context(), id, store.Token{MAC: mac, Serial: id, Created: now, Expires: now.Add(time.Hour)})
		if err == nil {
			_, _, err = s.db.Enrol(s.Context(), store.EnrolInput{Unit: id, PublicKey: make([]byte, 32), Token: id, Boot: "b", Platform: "WIDGET-1U", MACs: []string{mac}})
		}
		if err != nil {
			s.Fatal(err)
		}
		var n uint64
		add := func(kind record.Kind, level, message string, attrs map[string]any) {
			n++
			if _, err := s.db.AddEvents(s.Context(), id, []record.Event{{Boot: "b", Seq: n, Time: now, Kind: kind, Source: record.Observed, Level: level, Message: message, Attrs: attrs}}); err != nil {
				s.Fatal(err)
			}
		}
		state := func(st record.State) { add(record.KindState, "", "", st.Attrs()) }
		state(record.State{Job: record.JobProvision, Phase: record.Started, Percent: -1})
		add(record.KindLog, "INFO", "download "+evil, map[string]any{"url": "http://10.7.0.1:8080/files/x.upd", "bytes": 1234})
		add(record.KindFact, "", "", map[string]any{"name": "cpu", "value": evil})
		add(record.KindQA, "", "", map[string]any{"name": "memory", "found": "8 GiB", "expected": "8 GiB", "rule": "equal", "ok": true})
		add(record.KindQA, "", "", map[string]any{"name": "disk", "found": evil, "expected": "NVMe 512 GB", "rule": "at least", "ok": false})
		switch i {
		case 0:
			state(record.State{Job: record.JobProvision, Phase: record.Succeeded, Percent: 100})
		case 1:
			state(record.State{Job: record.JobProvision, Phase: record.Step, Step: "download-files", Percent: 40})
		case 2:
			state(record.State{Job: record.JobProvision, Phase: record.Failed, Percent: -1, Code: "G142", Text: "a file is not the one the manifest names", Hint: "make the manifest again " + evil})
		case 3:
			state(record.State{Job: record.JobRunning, Phase: record.Started, Percent: -1})
		}
	}
	if _, _, err := s.db.Enrol(s.Context(), store.EnrolInput{Unit: "SN-0005", PublicKey: make([]byte, 32), Boot: "b", Remote: "10.7.0.77"}); err != nil {
		s.Fatal(err)
	}
	now := time.Now()
	if err := s.db.AddToken(s.Context(), "t", store.Token{MAC: "52:54:00:00:00:99", Serial: "SN-0006", Created: now, Expires: now.Add(time.Hour)}); err != nil {
		s.Fatal(err)
	}
}

func TestLoginNeeded(t *testing.T) {
	s := start(t)
	s.fill()
	for _, path := range []string{"/", "/units/SN-0002", "/units/SN-0002/documents/1"} {
		if _, page, _ := s.do("GET", path, nil); !strings.Contains(page, `name="password"`) || strings.Contains(page, "SN-0002") {
			t.Errorf("%s without login: %s", path, page)
		}
	}
	if st, _, _ := s.do("GET", "/live", nil); st != 401 {
		t.Error(st)
	}
	if st, page, _ := s.do("POST", "/login", url.Values{"operator": {"admin"}, "password": {"wrong"}}); st != 401 || !strings.Contains(page, "wrong name or password") {
		t.Error(st, page)
	}
	s.do("POST", "/units/SN%201%2F2/release", nil)
	if u, err := s.db.Unit(t.Context(), "SN 1/2"); err != nil || !u.Released.IsZero() {
		t.Error("released without login", err)
	}
}

func TestPages(t *testing.T) {
	s := start(t)
	s.fill()
	s.login()
	_, page, resp := s.do("GET", "/", nil)
	for _, want := range []string{"the server has no operator key", `href="/units/SN%201%2F2"`, "provision succeeded", "download-files 40%", `value="40"`, "G142: a file is not", ">running<", "waits for approval", "SN-0006", "52:54:00:00:00:01", "WIDGET-1U"} {
		if !strings.Contains(page, want) {
			t.Errorf("first page: no %q", want)
		}
	}
	if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Error(csp)
	}
	for _, unit := range []string{"SN%201%2F2", "SN-0003"} {
		_, page, _ := s.do("GET", "/units/"+unit, nil)
		if strings.Contains(page, "<script>") || !strings.Contains(page, "&lt;script&gt;") || !strings.Contains(page, "NVMe 512 GB") {
			t.Errorf("%s:\n%s", unit, page)
		}
	}
	if st, _, _ := s.do("GET", "/units/nobody", nil); st != 404 {
		t.Error(st)
	}
	for _, path := range []string{"/static/app.js", "/static/style.css"} {
		if st, text, _ := s.do("GET", path, nil); st != 200 || len(text) < 500 || regexp.MustCompile(`https?://`).MatchString(text) {
			t.Error(path, st)
		}
	}
}

// TestOldScheme: beside a unit that signs as version 0.1.0 did, the page says so, and until when that is taken.
func TestOldScheme(t *testing.T) {
	s := start(t)
	s.fill()
	s.login()
	db, err := sql.Open("sqlite", filepath.Join(s.dir, "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), `INSERT INTO old_signers (unit, last) VALUES ('SN-0002', 1)`); err != nil {
		t.Fatal(err)
	}
	for unit, old := range map[string]bool{"SN-0002": true, "SN-0003": false} {
		if _, text, _ := s.do("GET", "/units/"+unit, nil); strings.Contains(text, "signed as version 0.1.0 did") != old {
			t.Errorf("%s: %s", unit, text)
		}
	}
	if err := docs.Says(os.DirFS("../../docs"), "formats/records.md", "Releases after the end of 2027 refuse it from everybody"); err != nil {
		t.Error(err)
	}
	if _, text, _ := s.do("GET", "/units/SN-0002", nil); !strings.Contains(text, "Releases after 2027 refuse that") {
		t.Errorf("the page says no end: %s", text)
	}
}

func (s *site) form() string {
	s.Helper()
	_, page, _ := s.do("GET", "/", nil)
	m := regexp.MustCompile(`name="form" value="([^"]+)"`).FindStringSubmatch(page)
	if m == nil {
		s.Fatal("no form")
	}
	return m[1]
}

func TestChanges(t *testing.T) {
	s := start(t)
	s.fill()
	s.login()
	if st, _, _ := s.do("POST", "/units/SN%201%2F2/release", url.Values{"form": {"forged"}}); st != 403 {
		t.Error("a forged form:", st)
	}
	ch, end := s.hub.Subscribe()
	defer end()
	if st, page, _ := s.do("POST", "/units/SN%201%2F2/release", url.Values{"form": {s.form()}}); st != 200 || !strings.Contains(page, "Released for another provisioning by admin") {
		t.Error(st, page)
	}
	if got := <-ch; got != "SN 1/2" {
		t.Error("told of", got)
	}
	list, err := s.db.Enrolments(t.Context(), "SN-0005")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if _, page, _ := s.do("GET", "/units/SN-0005", nil); !strings.Contains(page, "10.7.0.77") || !strings.Contains(page, "Approve") {
		t.Error(page)
	}
	if st, page, _ := s.do("POST", fmt.Sprintf("/units/SN-0005/enrolments/%d/approve", list[0].ID), url.Values{"form": {s.form()}}); st != 200 || strings.Contains(page, "waits for approval") {
		t.Error(st, page)
	}
	if k, err := s.db.ActiveKey(t.Context(), "SN-0005"); err != nil || k.ApprovedBy != "admin" {
		t.Error(k, err)
	}
	if _, page, _ := s.do("POST", "/logout", url.Values{"form": {s.form()}}); !strings.Contains(page, `name="password"`) {
		t.Error("not logged out")
	}
	if _, page, _ := s.do("GET", "/", nil); !strings.Contains(page, `name="password"`) {
		t.Error("not logged out")
	}
}

// TestBrowser opens the dashboard in a real browser. It logs in, sees a change without a reload, and checks that the
// page's own policy refuses none of our scripts. With GPROV_SCREENSHOT=DIR it saves pictures there.
func TestBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal("the Debian package chromium is missing")
		}
		t.Skip("the Debian package chromium is missing")
	}
	s := start(t)
	s.fill()
	s.login()
	s.erased()
	browser(t, s, chromium)
}

// TestHostileUnit: a unit sends values of every type in every place, as much as it may. Its page still works, and has
// a limit.
func TestHostileUnit(t *testing.T) {
	s := start(t)
	s.fill()
	s.login()
	var n uint64 = 100
	add := func(kind record.Kind, message string, attrs map[string]any) {
		n++
		if _, err := s.db.AddEvents(t.Context(), "SN-0002", []record.Event{{Boot: "b2", Seq: n, Time: time.Now(), Kind: kind, Source: record.Observed, Message: message, Attrs: attrs}}); err != nil {
			t.Fatal(err)
		}
	}
	values := []any{nil, "true", true, 1, 1.5, "", []any{"a", 1}, map[string]any{"x": nil}}
	for _, v := range values {
		for _, kind := range []record.Kind{record.KindQA, record.KindState, record.KindFact, record.KindLog, record.KindDocument} {
			attrs := map[string]any{}
			for _, name := range []string{"ok", "name", "found", "expected", "rule", "job", "state", "step", "percent", "code", "text", "hint", "value"} {
				attrs[name] = v
			}
			add(kind, "", attrs)
		}
	}
	for _, name := range []string{record.FactMACs, record.FactBMCMACs, record.FactPlatform, record.FactDefects} {
		for _, v := range values {
			add(record.KindFact, "", map[string]any{"name": name, "value": v})
		}
	}
	st, page, _ := s.do("GET", "/units/SN-0002", nil)
	if st != 200 || !strings.Contains(page, "Hardware check") || strings.Count(page, `<span class="good">ok</span>`) != 1 {
		t.Error(st, page)
	}
	large := strings.Repeat("'", 50<<10) // five bytes each on the page
	for i := range 1000 {
		add(record.KindFact, large[:record.MaxMessage], map[string]any{"name": fmt.Sprint(i, large[:120]), "value": large[:7<<10], "x": large[:8<<10]})
	}
	for range 100 {
		add(record.KindQA, "", map[string]any{"name": large[:9000], "found": large[:9000], "expected": large[:9000], "rule": large[:9000], "ok": true})
	}
	st, page, _ = s.do("GET", "/units/SN-0002", nil)
	if st != 200 || len(page) > 4<<20 || !strings.Contains(page, "Older events") {
		t.Errorf("status %d, %d bytes", st, len(page))
	}
}
