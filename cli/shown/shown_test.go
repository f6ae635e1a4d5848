package shown

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

func TestWriter(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ttext\n":               "plain\ttext\n",
		"grün – 製品":                   "grün – 製品",
		"\x1b[2J\x1b]0;x\a":           `\u001b[2J\u001b]0;x\u0007`,
		"good\rbad \b\x7f":            `good\u000dbad \u0008\u007f`,
		"\u009b2J":                    `\u009b2J`, // the same as ESC [, in one character
		"\x9b2J":                      `\x9b2J`,
		"\u202egpj.exe":               `\u202egpj.exe`,
		"a\u200bb\ufeff":              `a\u200bb\ufeff`,
		"\U000e0001":                  `\udb40\udc01`,
		"\xe3\x82":                    `\xe3\x82`,
		"\ufffd":                      "\ufffd",
		string([]byte{0xc0, 0x9b}):    `\xc0\x9b`,
		"\x1bPq\x1b\\ and \x1b_x\x1b": `\u001bPq\u001b\ and \u001b_x\u001b`,
	} {
		for _, piece := range []int{1, 2, 3, 1000} { // whatever the pieces in which it comes
			var b bytes.Buffer
			w := New(&b)
			for rest := []byte(in); len(rest) > 0; rest = rest[min(piece, len(rest)):] {
				p := rest[:min(piece, len(rest))]
				if n, err := w.Write(p); n != len(p) || err != nil {
					t.Fatalf("%q: wrote %d, %v", in, n, err)
				}
			}
			if err := w.Flush(); err != nil || b.String() != want {
				t.Errorf("%q in pieces of %d: got %q, %v, want %q", in, piece, b.String(), err, want)
			}
		}
	}
}

func TestWriterKeepsJSON(t *testing.T) {
	want := "a\x1b\u009b\u202e\U000e0001\u007f\"\\"
	var b bytes.Buffer
	if err := json.NewEncoder(New(&b)).Encode(want); err != nil {
		t.Fatal(err)
	}
	var got string
	if err := json.Unmarshal(b.Bytes(), &got); err != nil || got != want {
		t.Errorf("got %q, %v from %s", got, err, b.Bytes())
	}
	if strings.ContainsFunc(strings.TrimSpace(b.String()), func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("%q", b.String())
	}
}

func TestRaw(t *testing.T) {
	var b bytes.Buffer
	w := New(&b)
	if Raw(w) != &b || Raw(&b) != &b || New(w) != w {
		t.Error("not the writer below")
	}
}

func TestLines(t *testing.T) {
	if got := Line("a\nb\tc\x1b"); got != `a\u000ab\u0009c\u001b` {
		t.Errorf("got %q", got)
	}
	if got := Lines("first\ngood x\n"); got != "first\n  good x" {
		t.Errorf("got %q", got)
	}
}
