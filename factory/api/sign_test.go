package api_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite"

	"gprovision/model/fault"
	"gprovision/model/record"
	"gprovision/unit/report"
)

// oldDB makes a database like that of version 0.1.0, with units that have a key each.
func oldDB(t *testing.T, path string, units map[string]ed25519.PublicKey) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	p, err := goose.NewProvider(goose.DialectSQLite3, db, os.DirFS("../store/migrations"), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UpTo(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for unit, key := range units {
		for _, q := range []string{
			`INSERT INTO units (id, first_seen, last_seen) VALUES (?1, 1, 1)`,
			`INSERT INTO enrolments (unit, public_key, status, boot, created) VALUES (?1, ?2, 'active', 'b0', 1)`,
			`INSERT INTO events (unit, boot, seq, time, received, kind, source, level, message, attrs) VALUES (?1, 'b0', 1, 1, 1, 'log', 'observed', '', 'early', '{}')`,
		} {
			if _, err := db.ExecContext(t.Context(), q, unit, []byte(key)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// old sends a request like a unit of version 0.1.0.
func (s *station) old(key ed25519.PrivateKey, path, unit, body string) (int, record.Problem) {
	s.t.Helper()
	now := time.Now()
	return s.raw(path, body, map[string]string{
		record.HeaderUnit: unit, record.HeaderTime: strconv.FormatInt(now.UnixMilli(), 10),
		record.HeaderSignature: base64.StdEncoding.EncodeToString(ed25519.Sign(key, record.SigningStringV1("POST", path, unit, now, record.BodyHash([]byte(body))))),
	})
}

// raw sends a request with the given headers.
func (s *station) raw(path, body string, headers map[string]string) (int, record.Problem) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), "POST", s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for k, v := range headers {
		r.Header.Set(k, v)
	}
	resp, err := s.http.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	var p record.Problem
	b, _ := io.ReadAll(resp.Body)
	json.Unmarshal(b, &p)
	return resp.StatusCode, p
}

const oneEvent = `{"events":[{"boot":"b","seq":1,"time":"2026-01-01T00:00:00Z","kind":"log","source":"observed"}]}`

// TestOldUnits: units of version 0.1.0 may speak if they were enrolled under that version. The server marks them.
func TestOldUnits(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	dir := t.TempDir()
	oldDB(t, filepath.Join(dir, "x.db"), map[string]ed25519.PublicKey{"OLD": key.Public().(ed25519.PublicKey)})
	s := startIn(t, dir, true)
	marked := func() bool {
		t.Helper()
		u, err := s.db.Unit(t.Context(), "OLD")
		if err != nil {
			t.Fatal(err)
		}
		return u.OldScheme
	}
	if marked() {
		t.Error("marked before it has said a word")
	}
	for _, c := range []struct{ path, body string }{{"/v1/events", oneEvent}, {"/v1/permit", `{"job":"provision","boot":"b"}`}, {"/v1/credentials", `{"boot":"b"}`}, {"/v1/credentials/confirm", `{"generation":1}`}} {
		if status, p := s.old(key, c.path, "OLD", c.body); status != 200 {
			t.Errorf("%s: %d %+v", c.path, status, p)
		}
	}
	if !marked() {
		t.Error("not marked")
	}
	if status, b := s.operator("GET", "/v1/units/OLD", ""); status != 200 || !strings.Contains(string(b), `"oldScheme":true`) {
		t.Error(status, string(b))
	}
	// The body was changed, or is not the one in the stamp.
	now := time.Now()
	headers := map[string]string{
		record.HeaderUnit: "OLD", record.HeaderTime: strconv.FormatInt(now.UnixMilli(), 10), record.HeaderHash: record.BodyHash([]byte(oneEvent)),
		record.HeaderSignature: base64.StdEncoding.EncodeToString(ed25519.Sign(key, record.SigningStringV1("POST", "/v1/events", "OLD", now, record.BodyHash([]byte(oneEvent))))),
	}
	if status, p := s.raw("/v1/events", strings.Replace(oneEvent, `"seq":1`, `"seq":2`, 1), headers); status != 401 || p.Code != record.ProblemSignature {
		t.Error("another body:", status, p)
	}
	// The same unit enrols again like that version, with another key.
	next := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
	req := record.EnrolRequest{Unit: "OLD", PublicKey: next.Public().(ed25519.PublicKey), Boot: "b2"}
	body, err := req.Wire()
	if err != nil {
		t.Fatal(err)
	}
	if status, p := s.old(next, "/v1/enrol", "OLD", string(body)); status != 202 {
		t.Error("enrolment:", status, p)
	}
	// A newer system on the unit removes the mark.
	c := s.client("OLD", "b3", 1)
	if _, err := c.Send(t.Context(), []record.Event{stateEvent("b3", 1, record.JobRunning, record.Started)}); err != nil {
		t.Fatal(err)
	}
	if marked() {
		t.Error("still marked")
	}

	// A current unit may not go back to the old scheme, not even to enrol.
	c = s.client("NEW", "b", 3)
	if err := c.Enrol(t.Context(), record.EnrolRequest{Token: s.token(mac, "NEW"), MACs: []string{mac}}, nil); err != nil {
		t.Fatal(err)
	}
	if status, p := s.old(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, 32)), "/v1/events", "NEW", oneEvent); status != 403 || p.Code != record.ProblemOldScheme {
		t.Error("a newer unit in the old scheme:", status, p)
	}
	req.Unit = "STRANGER"
	if body, err = req.Wire(); err != nil {
		t.Fatal(err)
	}
	if status, p := s.old(next, "/v1/enrol", "STRANGER", string(body)); status != 403 || p.Code != record.ProblemOldScheme {
		t.Error("an unknown unit in the old scheme:", status, p)
	}
}

// TestRelay: a server that the unit also trusts passes on what the unit sent it. The other server refuses it.
func TestRelay(t *testing.T) {
	real, thief := start(t, true), start(t, true)
	for _, s := range []*station{real, thief} {
		if err := s.client("S1", "b", 1).Enrol(t.Context(), record.EnrolRequest{Token: s.token(mac, "S1"), MACs: []string{mac}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	relayed := 0
	relay := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method == "GET" {
			fmt.Fprintf(w, `{"time":%q}`, time.Now().UTC().Format(time.RFC3339Nano))
			return
		}
		for _, audience := range []string{r.Header.Get(record.HeaderAudience), real.aud} {
			h := map[string]string{}
			for k := range r.Header {
				h[k] = r.Header.Get(k)
			}
			h[record.HeaderAudience] = audience
			status, p := real.raw(r.URL.Path, string(body), h)
			if status != 401 {
				t.Errorf("%s with audience %s: %d %+v", r.URL.Path, audience, status, p)
			}
			relayed++
		}
		http.Error(w, "{}", http.StatusForbidden)
	}))
	conf, err := thief.ca.TLS([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	relay.Listener = tls.NewListener(relay.Listener, conf)
	relay.Start()
	defer relay.Close()
	both := x509.NewCertPool()
	both.AppendCertsFromPEM(real.ca.PEM())
	both.AppendCertsFromPEM(thief.ca.PEM())
	c, err := report.New(report.Config{Endpoint: relay.Listener.Addr().String(), CA: both, Unit: "S1", Boot: "b", Key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Credentials(t.Context()); err == nil {
		t.Error("credentials through a relay")
	}
	if _, err := c.Send(t.Context(), []record.Event{stateEvent("b", 9, record.JobProvision, record.Succeeded)}); err == nil {
		t.Error("events through a relay")
	}
	if relayed != 4 {
		t.Errorf("%d requests were relayed", relayed)
	}
	if list, err := real.db.Secrets(t.Context(), "S1"); err != nil || len(list) != 0 {
		t.Error("the relay has got credentials made", list, err)
	}
}

// TestServerMoves: another server takes over the address that a unit uses. The unit signs its next request for that
// server. A request for the first never travels over a connection to the second.
func TestServerMoves(t *testing.T) {
	first, second := start(t, true), start(t, true)
	for _, s := range []*station{first, second} {
		if err := s.client("S1", "b", 1).Enrol(t.Context(), record.EnrolRequest{Token: s.token(mac, "S1"), MACs: []string{mac}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cut := context.WithCancel(t.Context())
	defer func() { cut() }()
	var to atomic.Pointer[station]
	to.Store(first)
	var current atomic.Pointer[context.Context]
	current.Store(&ctx)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", strings.TrimPrefix(to.Load().url, "https://"))
			if err != nil {
				in.Close()
				continue
			}
			context.AfterFunc(*current.Load(), func() { in.Close(); out.Close() })
			go io.Copy(in, out)
			go func() { io.Copy(out, in); out.Close() }()
		}
	}()
	both := x509.NewCertPool()
	both.AppendCertsFromPEM(first.ca.PEM())
	both.AppendCertsFromPEM(second.ca.PEM())
	c, err := report.New(report.Config{Endpoint: l.Addr().String(), CA: both, Unit: "S1", Boot: "b", Key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	move := func(s *station) {
		to.Store(s)
		cut()
		next, stop := context.WithCancel(t.Context())
		cut = stop
		current.Store(&next)
	}
	for i, s := range []*station{first, second, first} {
		move(s)
		if err := c.Permit(t.Context(), record.JobProvision); err != nil {
			t.Fatalf("server %d: %v", i, err)
		}
		if _, err := c.Send(t.Context(), []record.Event{stateEvent("b", uint64(i+1), record.JobProvision, record.Started)}); err != nil {
			t.Fatalf("server %d: %v", i, err)
		}
	}
	for _, s := range []*station{first, second} {
		if strings.Contains(s.log.String(), "signature refused") {
			t.Error("a request reached the wrong server:", s.log.String())
		}
	}
	move(start(t, true))
	if err := c.Permit(t.Context(), record.JobProvision); fault.Of(err) != fault.NoServer {
		t.Error("a server that nobody vouches for:", err)
	}
}

// TestBodyAfterSignature announces large bodies with bad signatures, and sends none of them. The answer comes all the
// same.
func TestBodyAfterSignature(t *testing.T) {
	s := start(t, true)
	c := s.client("S1", "b", 1)
	if err := c.Enrol(t.Context(), record.EnrolRequest{Token: s.token(mac, "S1"), MACs: []string{mac}}, nil); err != nil {
		t.Fatal(err)
	}
	right, wrong := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)), ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
	for name, f := range map[string]func() map[string]string{
		"wrong key": func() map[string]string {
			return record.SignRequest(wrong, s.aud, "POST", "/v1/events", "S1", time.Now(), nil)
		},
		"old scheme": func() map[string]string {
			h := record.SignRequest(right, s.aud, "POST", "/v1/events", "S1", time.Now(), nil)
			delete(h, record.HeaderAudience)
			return h
		},
		"old clock": func() map[string]string {
			return record.SignRequest(right, s.aud, "POST", "/v1/events", "S1", time.Now().Add(-time.Hour), nil)
		},
	} {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{RootCAs: s.pool})
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n", record.MaxBody)
		for k, v := range f() {
			fmt.Fprintf(conn, "%s: %s\r\n", k, v)
		}
		io.WriteString(conn, "\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: the server waits for the body: %v", name, err)
		} else if resp.StatusCode != 401 && resp.StatusCode != 403 {
			t.Errorf("%s: status %d", name, resp.StatusCode)
		}
		conn.Close()
	}
}
