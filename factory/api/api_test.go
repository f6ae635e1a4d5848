package api_test

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/bcrypt"

	"gprovision/factory/api"
	"gprovision/factory/login"
	"gprovision/factory/store"
	"gprovision/factory/vault"
	"gprovision/model/fault"
	"gprovision/model/record"
	"gprovision/model/secret"
	"gprovision/unit/report"
)

const password = "correct horse"

// station is a factory server in this process.
type station struct {
	t    *testing.T
	url  string
	pool *x509.CertPool
	db   *store.DB
	hub  *api.Hub
	ids  []age.Identity
	ca   *api.Authority
	aud  string
	in   *login.Service
	http *http.Client
	log  *logText
}

// logText is a log that can be read during writing.
type logText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t *testing.T, withOperator bool) *station {
	t.Helper()
	return startIn(t, t.TempDir(), withOperator)
}

// startIn starts the server on the content of a directory.
func startIn(t *testing.T, dir string, withOperator bool) *station {
	t.Helper()
	return startWith(t, dir, withOperator, func(*api.Config) {})
}

// startWith starts it with other settings too.
func startWith(t *testing.T, dir string, withOperator bool, change func(*api.Config)) *station {
	t.Helper()
	ca, err := api.OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), filepath.Join(dir, "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	logins, err := login.New(db, bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if err := logins.SetPassword(t.Context(), "admin", password); err != nil {
		t.Fatal(err)
	}
	private, public, err := vault.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	ids, err := age.ParseIdentities(strings.NewReader(private.Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	var to []age.Recipient
	if withOperator {
		if to, err = vault.ParseRecipients(public); err != nil {
			t.Fatal(err)
		}
	}
	s := &station{t: t, db: db, hub: &api.Hub{}, ids: ids, ca: ca, aud: ca.Audience(), in: logins, pool: x509.NewCertPool(), log: &logText{}}
	mux := http.NewServeMux()
	conf := api.Config{
		Store: db, Vault: vault.New(db, to), Login: logins, Audience: s.aud, Hub: s.hub, Log: slog.New(slog.NewTextHandler(s.log, nil)),
	}
	change(&conf)
	api.New(conf).Register(mux)
	srv := httptest.NewUnstartedServer(mux)
	crypt, err := ca.TLS([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	srv.Listener = tls.NewListener(srv.Listener, crypt)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.Start()
	t.Cleanup(srv.Close)
	s.url = strings.Replace(srv.URL, "http:", "https:", 1)
	s.pool.AppendCertsFromPEM(ca.PEM())
	s.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.pool}}}
	t.Cleanup(s.http.CloseIdleConnections)
	return s
}

func (s *station) client(unit, boot string, seed byte) *report.Client {
	s.t.Helper()
	c, err := report.New(report.Config{Endpoint: s.url, CA: s.pool, Unit: unit, Boot: boot, Poll: time.Millisecond, Key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

func (s *station) token(mac, serial string) secret.Secret {
	s.t.Helper()
	tok := fmt.Sprintf("token%d", time.Now().UnixNano())
	if err := s.db.AddToken(s.t.Context(), tok, store.Token{MAC: mac, Serial: serial, Created: time.Now(), Expires: time.Now().Add(time.Minute)}); err != nil {
		s.t.Fatal(err)
	}
	return secret.Secret(tok)
}

// operator sends a request of the operator and returns the status and the body.
func (s *station) operator(method, path, body string) (int, []byte) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.SetBasicAuth("admin", password)
	resp, err := s.http.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, b
}

// approve approves the key of a unit by its fingerprint.
func (s *station) approve(unit, fingerprint string) {
	s.t.Helper()
	_, b := s.operator("GET", unit, "")
	var d api.Detail
	if err := json.Unmarshal(b, &d); err != nil {
		s.t.Fatal(err)
	}
	for _, e := range d.Enrolments {
		if e.Status == store.Pending && e.Fingerprint == fingerprint {
			if status, b := s.operator("POST", fmt.Sprintf("%s/enrolments/%d/approve", unit, e.ID), fmt.Sprintf(`{"fingerprint":%q}`, fingerprint)); status != 200 {
				s.t.Fatal(status, string(b))
			}
			return
		}
	}
	s.t.Fatalf("no key %s waits: %s", fingerprint, b)
}

const mac = "52:54:00:00:00:01"

func stateEvent(boot string, seq uint64, job record.Job, phase record.Phase) record.Event {
	return record.Event{Boot: boot, Seq: seq, Time: time.Now(), Kind: record.KindState, Source: record.Observed, Attrs: record.State{Job: job, Phase: phase, Percent: -1}.Attrs()}
}

// TestLife takes a unit's real client through its whole life with the server.
func TestLife(t *testing.T) {
	s := start(t, true)
	ctx := t.Context()
	c := s.client("SN 1/2", "boot-1", 1)
	if at, err := c.Time(ctx); err != nil || time.Since(at).Abs() > time.Minute {
		t.Fatal(at, err)
	}
	if err := c.Permit(ctx, record.JobProvision); fault.Of(err) != fault.ServerRefused {
		t.Errorf("before enrolment: %v", err)
	}
	if err := c.Enrol(ctx, record.EnrolRequest{Token: s.token(mac, "SN 1/2"), MACs: []string{mac}, Platform: "WIDGET"}, nil); err != nil {
		t.Fatal(err)
	}
	if released, err := c.Released(ctx, record.JobProvision); err != nil || released {
		t.Fatal("nobody released it", released, err)
	}
	for want := 1; want >= 0; want-- { // the second time nothing is new
		r, err := c.Send(ctx, []record.Event{stateEvent("boot-1", 1, record.JobProvision, record.Started)})
		if err != nil || r.Stored != want || r.Known != 1-want {
			t.Fatal(r, err)
		}
	}
	first, err := c.Credentials(ctx)
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Credentials(ctx)
	if err != nil || second.OS == first.OS || second.Generation != 2 {
		t.Fatal("not fresh", err)
	}
	if err := c.Confirm(ctx, 1); fault.Of(err) != fault.NoCredentials {
		t.Error(err)
	}
	for range 2 {
		if err := c.Confirm(ctx, 2); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Credentials(ctx); fault.Of(err) != fault.NoCredentials || !strings.Contains(err.Error(), "confirmed") {
		t.Errorf("after the confirmation: %v", err)
	}
	if err := c.Document(ctx, record.Document{Name: "qa.html", Type: "QA Verification", Body: []byte("<script>")}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Send(ctx, []record.Event{stateEvent("boot-1", 2, record.JobProvision, record.Succeeded)}); err != nil {
		t.Fatal(err)
	}
	if err := c.Permit(ctx, record.JobProvision); fault.Of(err) != fault.NotReleased {
		t.Errorf("a second time: %v", err)
	}
	// Somebody with a stolen token cannot take over a completed unit.
	thief := s.client("SN 1/2", "boot-2", 2)
	if err := thief.Enrol(ctx, record.EnrolRequest{Token: s.token(mac, "SN 1/2"), MACs: []string{mac}}, nil); fault.Of(err) != fault.EnrolRefused {
		t.Errorf("thief: %v", err)
	}
	if _, err := thief.Credentials(ctx); fault.Of(err) != fault.ServerRefused {
		t.Errorf("thief: %v", err)
	}

	unit := "/v1/units/" + url.PathEscape("SN 1/2")
	status, b := s.operator("POST", unit+"/credentials/read", `{}`)
	var v store.Secret
	if err := json.Unmarshal(b, &v); err != nil || status != 200 || v.Generation != 2 {
		t.Fatal(status, string(b))
	}
	opened, err := vault.Open(s.ids, "SN 1/2", 2, v.Ciphertext)
	if err != nil || opened != second {
		t.Error("the operator reads something else", err)
	}
	status, b = s.operator("GET", unit, "")
	var d api.Detail
	if err := json.Unmarshal(b, &d); err != nil || status != 200 || len(d.Readings) != 1 || d.Readings[0].Operator != "admin" || len(d.Documents) != 1 {
		t.Fatal(status, string(b), err)
	}
	s.conforms("Detail", b)
	status, b = s.operator("GET", fmt.Sprintf("%s/documents/%d", unit, d.Documents[0].ID), "")
	if status != 200 || string(b) != "<script>" {
		t.Error(status, string(b))
	}
	if status, b = s.operator("GET", unit+"/events?limit=1&kind=state", ""); status != 200 || !strings.Contains(string(b), `"succeeded"`) || strings.Contains(string(b), `"started"`) {
		t.Error(status, string(b))
	}

	if status, b := s.operator("POST", unit+"/release", ""); status != 200 {
		t.Fatal(status, string(b))
	}
	// The unit's recovery device was replaced, and its key with it. A person compares the fingerprints.
	again := s.client("SN 1/2", "boot-3", 3)
	err = again.Enrol(ctx, record.EnrolRequest{Token: s.token(mac, "SN 1/2"), MACs: []string{mac}}, func(string) { s.approve(unit, again.Fingerprint()) })
	if err != nil {
		t.Fatal(err)
	}
	if released, err := again.Released(ctx, record.JobProvision); err != nil || !released {
		t.Fatal(err)
	}
	if cr, err := again.Credentials(ctx); err != nil || cr.Generation != 3 {
		t.Fatal(cr.Generation, err)
	}
	if err := c.Permit(ctx, record.JobProvision); fault.Of(err) != fault.ServerRefused {
		t.Errorf("the replaced key: %v", err)
	}
	for _, p := range []secret.Secret{first.OS, second.OS, second.IPMI} {
		if strings.Contains(s.log.String(), p.Reveal()) {
			t.Error("a password is in the log")
		}
	}
}

// TestApproval: an operator decides about a key without a token.
func TestApproval(t *testing.T) {
	s := start(t, true)
	c := s.client("S1", "b", 1)
	asked := 0
	err := c.Enrol(t.Context(), record.EnrolRequest{MACs: []string{mac}}, func(reason string) {
		asked++
		if !strings.Contains(reason, "operator") {
			t.Errorf("reason %q", reason)
		}
		list, err := s.db.Enrolments(t.Context(), "S1")
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		if status, b := s.operator("POST", fmt.Sprintf("/v1/units/S1/enrolments/%d/approve", list[0].ID), ""); status != 200 {
			t.Fatal(status, string(b))
		}
	})
	if err != nil || asked != 1 {
		t.Fatal(err, asked)
	}
	if err := c.Permit(t.Context(), record.JobProvision); err != nil {
		t.Error(err)
	}
}

func TestNoOperatorKey(t *testing.T) {
	s := start(t, false)
	c := s.client("S1", "b", 1)
	if err := c.Enrol(t.Context(), record.EnrolRequest{Token: s.token(mac, "S1"), MACs: []string{mac}}, nil); err != nil {
		t.Fatal(err)
	}
	_, err := c.Credentials(t.Context())
	for _, err := range []error{c.Permit(t.Context(), record.JobProvision), err} { // the first is before anything is erased
		if fault.Of(err) != fault.NoCredentials || !strings.Contains(err.Error(), "operator key") {
			t.Error(err)
		}
	}
}

// TestClock: a unit whose clock is years off gets through.
func TestClock(t *testing.T) {
	s := start(t, true)
	for _, off := range []time.Duration{-3 * 365 * 24 * time.Hour, 200 * 24 * time.Hour} {
		c, err := report.New(report.Config{Endpoint: s.url, CA: s.pool, Unit: "S1", Boot: "b", Key: ed25519.NewKeyFromSeed(make([]byte, 32)),
			Now: func() time.Time { return time.Now().Add(off) }})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Enrol(t.Context(), record.EnrolRequest{Token: s.token(mac, "S1"), MACs: []string{mac}}, nil); err != nil {
			t.Errorf("clock off by %v: %v", off, err)
		}
		if at, err := c.Time(t.Context()); err != nil || time.Since(at).Abs() > time.Minute {
			t.Error(at, err)
		}
		c.Close()
	}
}

// TestStrangers sends what nobody should send.
func TestStrangers(t *testing.T) {
	s := start(t, true)
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	signed := func(k ed25519.PrivateKey, method, path, unit, body string) (int, record.Problem) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if k != nil {
			for h, v := range record.SignRequest(k, s.aud, method, path, unit, time.Now(), []byte(body)) {
				r.Header.Set(h, v)
			}
		}
		resp, err := s.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var p record.Problem
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode >= 300 {
			if err := json.Unmarshal(b, &p); err != nil {
				t.Errorf("%s: %s", path, b)
			}
			s.conforms("Problem", b)
		}
		return resp.StatusCode, p
	}
	req := record.EnrolRequest{Unit: "S1", PublicKey: key.Public().(ed25519.PublicKey), Boot: "b", Token: s.token(mac, "S1"), MACs: []string{mac}}
	body, err := req.Wire()
	if err != nil {
		t.Fatal(err)
	}
	if st, p := signed(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32)), "POST", "/v1/enrol", "S1", string(body)); st != 401 || p.Code != record.ProblemSignature {
		t.Error("enrolment with a key that the sender does not have:", st, p)
	}
	if st, _ := signed(key, "POST", "/v1/enrol", "S2", string(body)); st != 400 {
		t.Error("two names:", st)
	}
	if st, _ := signed(key, "POST", "/v1/enrol", "S1", string(body)); st != 200 {
		t.Fatal(st)
	}
	good := `{"events":[{"boot":"b","seq":1,"time":"2026-01-01T00:00:00Z","kind":"log","source":"observed"}]}`
	for name, c := range map[string]struct {
		key        ed25519.PrivateKey
		path, unit string
		body       string
		status     int
		code       string
	}{
		"no signature":   {nil, "/v1/events", "S1", good, 401, record.ProblemSignature},
		"wrong key":      {ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32)), "/v1/events", "S1", good, 401, record.ProblemSignature},
		"unknown unit":   {key, "/v1/events", "S9", good, 403, record.ProblemNotEnrolled},
		"not JSON":       {key, "/v1/events", "S1", "{", 400, record.ProblemSyntax},
		"foreign event":  {key, "/v1/events", "S1", strings.Replace(good, `"boot"`, `"unit":"S2","boot"`, 1), 400, record.ProblemSyntax},
		"bad event":      {key, "/v1/events", "S1", strings.Replace(good, `"log"`, `"x"`, 1), 400, record.ProblemSyntax},
		"too many":       {key, "/v1/events", "S1", `{"events":[` + strings.Repeat(`{},`, 500) + `{}]}`, 413, record.ProblemTooLarge},
		"too large":      {key, "/v1/events", "S1", strings.Repeat(" ", record.MaxBody+1), 413, record.ProblemTooLarge},
		"path in name":   {key, "/v1/documents", "S1", `{"name":"../x","type":"t","boot":"b","body":""}`, 400, record.ProblemSyntax},
		"no generation":  {key, "/v1/credentials/confirm", "S1", `{}`, 400, record.ProblemSyntax},
		"another job":    {key, "/v1/permit", "S1", `{"job":"erase","boot":"b"}`, 400, record.ProblemSyntax},
		"no such thing":  {key, "/v1/nothing", "S1", ``, 404, record.ProblemNotFound},
		"no login":       {nil, "/v1/units/S1/release", "", ``, 401, record.ProblemLogin},
		"unit as person": {key, "/v1/units/S1/credentials/read", "S1", `{}`, 401, record.ProblemLogin},
	} {
		if st, p := signed(c.key, "POST", c.path, c.unit, c.body); st != c.status || p.Code != c.code {
			t.Errorf("%s: status %d, %+v; want %d %s", name, st, p, c.status, c.code)
		}
	}
	if st, _ := signed(key, "POST", "/v1/events", "S1", good); st != 200 {
		t.Error(st)
	}
}

// TestSSE checks the stream of changes.
func TestSSE(t *testing.T) {
	s := start(t, true)
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/v1/changes", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("admin", password)
	resp, err := s.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Scan() // the stream is ready: changes from now on arrive
	s.hub.Publish("S \"1\n")
	var got []string
	for len(got) < 2 && lines.Scan() {
		if lines.Text() != "" {
			got = append(got, lines.Text())
		}
	}
	if !slices.Equal(got, []string{"event: unit", `data: "S \"1\n"`}) {
		t.Errorf("%q", got)
	}
}

// TestHub: a watcher that does not read learns that it missed something, and holds up nobody.
func TestHub(t *testing.T) {
	h := &api.Hub{}
	ch, end := h.Subscribe()
	for range 1000 {
		h.Publish("S1")
	}
	missed := false
	for len(ch) > 0 {
		missed = <-ch == "" || missed
	}
	if !missed {
		t.Error("not told")
	}
	end()
	h.Publish("S1")
	if len(ch) > 0 {
		t.Error("told after the end")
	}
}

func TestAuthority(t *testing.T) {
	dir := t.TempDir()
	a, err := api.OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := api.OpenAuthority(dir)
	if err != nil || !bytes.Equal(a.PEM(), b.PEM()) {
		t.Error("another CA at the second start", err)
	}
	if st, err := os.Stat(filepath.Join(dir, api.CAKeyFile)); err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st.Mode(), err)
	}
	conf, err := b.TLS([]string{"10.0.0.1", "server", "", "10.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := conf.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.PEM())
	for _, when := range []time.Time{time.Date(2020, 6, 1, 0, 0, 0, 0, time.UTC), time.Now().AddDate(1, 0, 0)} {
		for _, host := range []string{"10.0.0.1", "server"} {
			if _, err := c.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: host, CurrentTime: when}); err != nil {
				t.Errorf("%s at %v: %v", host, when, err)
			}
		}
	}
	if len(c.Leaf.IPAddresses) != 1 || c.Leaf.IsCA {
		t.Errorf("%v", c.Leaf.IPAddresses)
	}
	if err := os.Remove(filepath.Join(dir, api.CAKeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := api.OpenAuthority(dir); err == nil {
		t.Error("a new CA beside an old certificate")
	}
}

func document(t *testing.T) map[string]any {
	t.Helper()
	var doc map[string]any
	if err := yaml.Unmarshal(openAPI(t), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func openAPI(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestOpenAPI compares the document with the handlers. Both have the same requests, and the copy in docs is
// identical.
func TestOpenAPI(t *testing.T) {
	doc := document(t)
	var said []string
	for path, v := range doc["paths"].(map[string]any) {
		for method := range v.(map[string]any) {
			if method != "parameters" {
				said = append(said, strings.ToUpper(method)+" "+path)
			}
		}
	}
	var have []string
	for _, r := range api.New(api.Config{}).Routes() {
		have = append(have, r.Method+" "+r.Path)
	}
	slices.Sort(said)
	slices.Sort(have)
	if !slices.Equal(said, have) {
		t.Errorf("document: %v\nhandlers: %v", said, have)
	}
	copied, err := os.ReadFile("../../docs/formats/api/openapi.yaml")
	if err != nil || !bytes.Equal(copied, openAPI(t)) {
		t.Errorf("docs/formats/api/openapi.yaml is stale, run go generate ./factory/api: %v", err)
	}
	s := start(t, true)
	st, b := s.operator("GET", "/v1/time", "")
	if st != 200 {
		t.Error(st)
	}
	s.conforms("TimeReply", b)
	if st, b := s.operator("GET", "/v1/openapi.yaml", ""); st != 200 || !bytes.Equal(b, openAPI(t)) {
		t.Error(st)
	}
	if st, b := s.operator("GET", "/v1/units", ""); st != 200 || string(b) != `{"units":[],"total":0,"waiting":[]}` {
		t.Error(st, string(b))
	}
}

// conforms validates an answer against a schema of the document.
func (s *station) conforms(schema string, answer []byte) {
	s.t.Helper()
	b, err := json.Marshal(document(s.t))
	if err != nil {
		s.t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		s.t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource("mem:///api.json", doc); err != nil {
		s.t.Fatal(err)
	}
	sch, err := c.Compile("mem:///api.json#/components/schemas/" + schema)
	if err != nil {
		s.t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(answer))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := sch.Validate(v); err != nil {
		s.t.Errorf("%s: %v\n%s", schema, err, answer)
	}
}

// TestUntrusted: a unit does not talk to a server that the policy's CA does not vouch for, nor without encryption.
func TestUntrusted(t *testing.T) {
	s, other := start(t, true), start(t, true)
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	c, err := report.New(report.Config{Endpoint: s.url, CA: other.pool, Unit: "S1", Boot: "b", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	if err := c.Enrol(t.Context(), record.EnrolRequest{}, nil); fault.Of(err) != fault.NoServer || time.Since(began) > 10*time.Second {
		t.Error(err)
	}
	for _, conf := range []report.Config{{Endpoint: strings.Replace(s.url, "https", "http", 1), CA: s.pool}, {Endpoint: s.url}} {
		conf.Unit, conf.Boot, conf.Key = "S1", "b", key
		if _, err := report.New(conf); fault.Of(err) != fault.PlainSecrets {
			t.Error(err)
		}
	}
	if _, err := report.New(report.Config{Endpoint: "10.0.0.1:1/x", CA: s.pool, Unit: "S1", Boot: "b", Key: key}); err == nil || errors.Is(err, record.ErrPlain) {
		t.Error(err)
	}
}
