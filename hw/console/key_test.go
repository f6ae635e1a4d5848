package console

import (
	"io"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

func decode(in string) []Key {
	var d Decoder
	var out []Key
	for _, c := range []byte(in) {
		if k, ok := d.Feed(c); ok {
			out = append(out, k)
		}
	}
	if k, ok := d.Flush(); ok {
		out = append(out, k)
	}
	return out
}

func TestDecoder(t *testing.T) {
	for in, want := range map[string][]Key{
		"a1 ~":                      {'a', '1', ' ', '~'},
		"é€😀":                       {'é', '€', '😀'},
		"\r":                        {Enter},
		"\n":                        {Enter},
		"\r\n\n":                    {Enter, Enter},
		"\r\r":                      {Enter, Enter},
		"\t\x7f\b":                  {Tab, Backspace, Backspace},
		"\x1b":                      {Escape},
		"\x1b\x1b":                  {Escape, Escape},
		"\x03":                      {Escape},
		"\x1b[A\x1b[B\x1b[C\x1b[D":  {Up, Down, Right, Left},
		"\x1bOA\x1bOB\x1bOC\x1bOD":  {Up, Down, Right, Left},
		"\x1b[1;5A":                 {Up},
		"\x1bOM":                    {Enter},
		"\x1b\x1b[A":                {Escape, Up},
		"\x1b[5~x":                  {Unknown, 'x'}, // page up
		"\x1b[[Ax":                  {Unknown, 'x'}, // F1 of the Linux console
		"\x1bOPx":                   {Unknown, 'x'}, // F1 of VT100
		"\x1bx":                     {Unknown},      // Alt-x
		"\x1b[24;80R\x1b[?1;2cx":    {'x'},          // answers of a terminal
		"\x1b[12\x1b[A":             {Up},           // cut off
		"\x1b[1\x07x":               {'x'},          // broken
		"\x1b[":                     nil,            // never ended
		"\x00\x01\x1f\xff\xfe\x80x": {'x'},          // noise of a line
		"\xc3x\xc3\xa9":             {'x', 'é'},     // half a character
		"\xc2\x9bA":                 {'A'},          // a C1 control character is none
		"\x1b[1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;x": {'1', ';', '1', ';', '1', ';', 'x'},
	} {
		if got := decode(in); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %v, want %v", in, got, want)
		}
	}
}

// TestLoneEscape sends an ESC, and the rest of a sequence too late and in time.
func TestLoneEscape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		keys := Keys(r)
		send := func(s string) {
			if _, err := io.WriteString(w, s); err != nil {
				t.Error(err)
			}
		}
		began := time.Now()
		send("\x1b")
		if k := <-keys; k != Escape || time.Since(began) != Lone {
			t.Errorf("got %d after %s", k, time.Since(began))
		}
		send("\x1b")
		time.Sleep(Lone / 2)
		send("[")
		time.Sleep(Lone / 2)
		send("A")
		if k := <-keys; k != Up {
			t.Errorf("got %d, want Up", k)
		}
		send("\x1b[")
		time.Sleep(2 * Lone)
		send("A")
		if k := <-keys; k != 'A' {
			t.Errorf("got %d, want A", k)
		}
		w.Close()
		if k, ok := <-keys; ok {
			t.Errorf("got %d after the end", k)
		}
	})
}

func FuzzDecoder(f *testing.F) {
	for _, s := range []string{"\x1b[A", "\x1bOM\r\n", "\x1b[[A", "é\x1b", "\x1b[24;80R", "\xff\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var d Decoder
		n := 0
		for _, c := range b {
			k, ok := d.Feed(c)
			if ok {
				n++
				if k >= 0 && (k < ' ' || k >= 0x7f && k < 0xa0 || !utf8.ValidRune(rune(k))) || k < Tab {
					t.Fatalf("%q gives the key %d", b, k)
				}
			}
			if len(d.held) > maxSequence {
				t.Fatalf("%d bytes are held", len(d.held))
			}
		}
		if _, ok := d.Flush(); ok {
			n++
		}
		if n > len(b) {
			t.Fatalf("%d keys from %d bytes", n, len(b))
		}
		if k, ok := d.Feed('x'); !ok || k != 'x' {
			t.Fatalf("after %q and a pause x is %d", b, k)
		}
	})
}
