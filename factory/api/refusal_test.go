package api_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"gprovision/model/record"
)

// TestRefusals: every refusal has a sentence, a code that the records' page knows, and the server's clock.
func TestRefusals(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "../../model/record/record.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Problem") && len(v.Values) == 1 {
			known[strings.Trim(v.Values[0].(*ast.BasicLit).Value, `"`)] = true
		}
		return true
	})
	if len(known) < 15 {
		t.Fatalf("this test does not see the codes: %v", known)
	}
	s := start(t, true)
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	if err := s.client("S1", "b", 1).Enrol(t.Context(), record.EnrolRequest{Token: s.token(mac, "S1"), MACs: []string{mac}}, nil); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		method, path, body string
		signed             bool
	}{
		"no such request":        {"GET", "/v1/none", "", false},
		"another method":         {"DELETE", "/v1/time", "", false},
		"nothing at all":         {"GET", "/v1/", "", false},
		"not signed":             {"POST", "/v1/permit", "{}", false},
		"an enrolment of nobody": {"POST", "/v1/enrol", "{}", false},
		"no login":               {"GET", "/v1/units", "", false},
		"no login, to change":    {"POST", "/v1/units/S1/release", "", false},
		"no JSON":                {"POST", "/v1/permit", "{", true},
		"another job":            {"POST", "/v1/permit", `{"job":"erase","boot":"b"}`, true},
		"a confirmation":         {"POST", "/v1/credentials/confirm", `{"generation":7}`, true},
		"a document":             {"POST", "/v1/documents", `{}`, true},
		"events of another unit": {"POST", "/v1/events", `{"events":[{"unit":"S2","boot":"b","seq":1,"kind":"log","source":"observed"}]}`, true},
		"too large":              {"POST", "/v1/permit", strings.Repeat(" ", 1<<20), true},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, s.url+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if c.signed {
			for k, v := range record.SignRequest(key, s.aud, c.method, c.path, "S1", time.Now(), []byte(c.body)) {
				r.Header.Set(k, v)
			}
		}
		resp, err := s.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		var p record.Problem
		if err != nil || json.Unmarshal(b, &p) != nil || p.Error == "" || !known[p.Code] || time.Since(p.Time).Abs() > time.Minute {
			t.Errorf("%s: %d, %q, %v", name, resp.StatusCode, b, err)
		}
		if resp.StatusCode < 400 {
			t.Errorf("%s is no refusal: %d %s", name, resp.StatusCode, b)
		}
	}
}
