// Package shown is what stands between the bytes of others and a person's terminal: names in images, sentences in manifests and answers
// of servers can hold sequences that move the cursor, change what was said before, or type commands. All that the verbs of gprov and
// gprov-unit print goes through a Writer; what draws on a terminal (bars, displays) and what hands out bytes as they are (a bundle)
// asks for Raw. It does not judge what is true, and does not lay anything out.
package shown

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Writer passes on what is printable, line breaks and tabs. All else it writes as an escape of visible characters: \u001b, or \x9b for a
// byte that is no UTF-8. In the strings of a JSON text the first form means the same character. A rune may come in pieces: its end is
// waited for, until the next Write or Flush.
type Writer struct {
	w    io.Writer
	rest []byte
}

// New returns a Writer on w, or w itself if it is one.
func New(w io.Writer) *Writer {
	if s, ok := w.(*Writer); ok {
		return s
	}
	return &Writer{w: w}
}

// Raw returns what a Writer writes to, for what must not be changed; any other writer as it is.
func Raw(w io.Writer) io.Writer {
	if s, ok := w.(*Writer); ok {
		return s.w
	}
	return w
}

// Write writes p in its visible form. It returns len(p) if that succeeded, else 0.
func (s *Writer) Write(p []byte) (int, error) {
	text := append(s.rest, p...)
	s.rest = nil
	if n := cut(text); n > 0 {
		s.rest = bytes.Clone(text[len(text)-n:])
		text = text[:len(text)-n]
	}
	if err := s.put(text); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush writes what is left of a rune whose end never came.
func (s *Writer) Flush() error {
	rest := s.rest
	s.rest = nil
	return s.put(rest)
}

func (s *Writer) put(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	_, err := s.w.Write([]byte(visible(string(text), "\n\t")))
	return err
}

// cut returns how many bytes at the end of text begin a rune that is not whole.
func cut(text []byte) int {
	for n := 1; n <= min(utf8.UTFMax-1, len(text)); n++ {
		if b := text[len(text)-n:]; utf8.RuneStart(b[0]) {
			if utf8.FullRune(b) {
				return 0
			}
			return n
		}
	}
	return 0
}

// Line returns text in its visible form, as one line: line breaks and tabs too are written as escapes. It is for values inside of a
// line, which would otherwise begin lines of their own.
func Line(text string) string { return visible(text, "") }

// Lines returns the lines of text in their visible form, all but the first one indented, so that none of them is taken for another
// statement of the program.
func Lines(text string) string {
	return strings.ReplaceAll(visible(strings.TrimRight(text, "\n"), "\n"), "\n", "\n  ")
}

// visible writes everything that is neither printable nor one of keep as an escape.
func visible(text, keep string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case unicode.IsPrint(r) || strings.ContainsRune(keep, r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00 // as JSON has it, RFC 8259, section 7
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += n
	}
	return b.String()
}
