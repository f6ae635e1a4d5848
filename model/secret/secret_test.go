package secret

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestNeverPrinted(t *testing.T) {
	const text = "hunter2hunter2"
	s := Secret(text)
	type box struct {
		S Secret
		P *Secret
		m Secret
		M map[string]Secret
	}
	b := box{S: s, P: &s, m: s, M: map[string]Secret{"k": s}}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10s", "%T %v"} {
		if strings.Count(verb, "%") == 2 {
			fmt.Fprintf(&out, verb+"\n", s, s)
		} else {
			fmt.Fprintf(&out, verb+"\n", s)
		}
		if verb == "%v" || verb == "%s" {
			fmt.Fprintf(&out, verb+" "+verb+"\n", []Secret{s}, map[string]Secret{"a": s})
		}
	}
	fmt.Fprintln(&out, s, &b.S, []any{s}, fmt.Errorf("wrapped %w", fmt.Errorf("%v", s)))
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("x", "s", s, "p", &s, "any", slog.AnyValue(s), slog.Group("g", "s", s))
	}
	j, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(j)
	for _, bad := range []string{text, fmt.Sprintf("%x", text), fmt.Sprintf("%X", text)} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("output holds the secret:\n%s", out.String())
		}
	}
	if s.Reveal() != text || s.Empty() || !Secret("").Empty() {
		t.Error("Reveal or Empty is wrong")
	}
	if !s.Equal(text) || s.Equal("hunter") {
		t.Error("Equal is wrong")
	}
}

func TestReadFromJSON(t *testing.T) {
	var v struct{ S Secret }
	if err := json.Unmarshal([]byte(`{"S":"abc"}`), &v); err != nil || v.S.Reveal() != "abc" {
		t.Fatalf("got %q, %v", v.S.Reveal(), err)
	}
}
