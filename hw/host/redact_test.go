package host

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	const secret, part = "pa.s+w0rd (x)", "w0rd"
	for in, want := range map[string]string{
		"":                                   "",
		"nothing":                            "nothing",
		"a pa.s+w0rd (x) b":                  "a *** b",
		"pa.s+w0rd (x)pa.s+w0rd (x)":         "******",
		"PA.S+W0RD (X)":                      "***",
		"pa.s\n+w0r\r\nd (x)":                "***",
		"pa.s+w0rd (x":                       "pa.s+*** (x",
		"paXs+w0rd (x)":                      "paXs+*** (x)",
		"70612e732b7730726420287829":         "***",
		"70612E732B77 30726420287829":        "***",
		"key: cGEucyt3MHJkICh4KQ== and more": "key: ***== and more",
	} {
		out := &tail{max: 1 << 20}
		if _, err := out.Write([]byte(in)); err != nil {
			t.Fatal(err)
		}
		if got := string(redact(out, []string{part, "", secret})); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestRedactEnd: of a secret whose beginning was not kept the end is not shown either.
func TestRedactEnd(t *testing.T) {
	secret := strings.Repeat("0123456789", 30)
	out := &tail{max: 3 * overlap}
	for _, s := range []string{"before", secret, strings.Repeat("x", 3*overlap-100)} {
		if _, err := out.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.HasPrefix(out.bytes(), []byte("0123")) {
		t.Fatal("the secret's end is not at the beginning of what is kept")
	}
	if got := redact(out, []string{secret}); bytes.Contains(got, []byte("0")) || len(got) != 2*overlap {
		t.Errorf("%d bytes: %.80q", len(got), got)
	}
}

// TestExecRedacts: neither the output nor the log has a secret, and both have the rest.
func TestExecRedacts(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r, err := Exec(t.Context(), log, Command{Path: "sh", Args: []string{"-c", `echo "the word is $0, no more"; exit 1`, "hunter2"},
		Secret: true, Show: []string{"-c", "say"}, Redact: []string{"hunter2"}})
	if err != nil || string(r.Output) != "the word is ***, no more\n" {
		t.Errorf("%q, %v", r.Output, err)
	}
	if s := b.String(); strings.Contains(s, "hunter2") || !strings.Contains(s, "the word is ***, no more") {
		t.Errorf("the log: %s", s)
	}
}
