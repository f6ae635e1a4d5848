package console

import (
	"io"
	"time"
	"unicode/utf8"
)

// Key is what was pressed: a character, or one of the keys below, which are no characters.
type Key rune

// The keys that are no characters. Unknown is a key that this package has no name for, such as F1.
const (
	Unknown Key = -1 - iota
	Up
	Down
	Left
	Right
	Enter
	Escape
	Backspace
	Tab
)

// Lone is how long after an ESC the rest of a key's sequence may come. Without one the ESC is the Escape key. Remote consoles
// send a sequence in pieces.
const Lone = 200 * time.Millisecond

// maxSequence is the most bytes of a control sequence; a longer one is noise.
const maxSequence = 32

// Decoder turns the bytes of a terminal into keys: what the Linux console, VT100 and xterm send (ECMA-48, console_codes(4)). A
// character comes as UTF-8. Bytes that are neither, and what a terminal answers to a program's enquiry, are passed over. The
// zero value is ready.
type Decoder struct {
	held []byte
	cr   bool // the last byte was a carriage return
}

// Feed takes one byte. ok says that it ended a key.
func (d *Decoder) Feed(c byte) (k Key, ok bool) {
	cr := d.cr
	d.cr = false
	if len(d.held) == 0 {
		return d.first(c, cr)
	}
	if c == 0x1b && d.held[0] == 0x1b && len(d.held) > 1 { // a new sequence; the old one was never ended
		d.held = append(d.held[:0], c)
		return 0, false
	}
	d.held = append(d.held, c)
	switch {
	case d.held[0] != 0x1b:
		return d.character()
	case len(d.held) == 2 && c == 0x1b: // Escape, and what may be another one
		d.held = d.held[:1]
		return Escape, true
	case len(d.held) == 2 && (c == '[' || c == 'O'):
		return 0, false
	case len(d.held) == 2: // a letter with Alt
		return d.end(Unknown)
	case len(d.held) == 3 && d.held[1] == '[' && c == '[': // F1 to F5 of the Linux console: ESC [ [ A
		return 0, false
	case len(d.held) == 4 && d.held[2] == '[':
		return d.end(Unknown)
	case c >= 0x20 && c < 0x40 && len(d.held) < maxSequence:
		return 0, false
	case c < 0x40 || c > 0x7e:
		d.held = d.held[:0]
		return 0, false
	}
	return d.sequence(c)
}

func (d *Decoder) first(c byte, cr bool) (Key, bool) {
	switch {
	case c == '\r':
		d.cr = true
		return Enter, true
	case c == '\n': // some terminals send both
		return Enter, !cr
	case c == '\t':
		return Tab, true
	case c == 0x7f || c == '\b':
		return Backspace, true
	case c == 0x03: // Ctrl-C
		return Escape, true
	case c == 0x1b || c >= utf8.RuneSelf:
		d.held = append(d.held[:0], c)
		if c != 0x1b {
			return d.character()
		}
		return 0, false
	case c < ' ':
		return 0, false
	}
	return Key(c), true
}

// character ends a UTF-8 sequence as soon as it is whole, or cannot become so.
func (d *Decoder) character() (Key, bool) {
	if !utf8.FullRune(d.held) {
		return 0, false
	}
	r, n := utf8.DecodeRune(d.held)
	if r == utf8.RuneError || r < 0xa0 {
		last := d.held[len(d.held)-1]
		long := len(d.held) > 1 && n == 1
		d.held = d.held[:0]
		if long && (last < utf8.RuneSelf) { // noise before something that counts
			return d.first(last, false)
		}
		return 0, false
	}
	return d.end(Key(r))
}

// sequence ends a control sequence at its final byte.
func (d *Decoder) sequence(final byte) (Key, bool) {
	switch final {
	case 'A':
		return d.end(Up)
	case 'B':
		return d.end(Down)
	case 'C':
		return d.end(Right)
	case 'D':
		return d.end(Left)
	case 'M':
		if d.held[1] == 'O' { // Enter of the number block
			return d.end(Enter)
		}
	case 'R', 'c', 'n', 'y', 't', 'x': // answers: cursor position, kind of terminal, status, mode, window, settings
		if d.held[1] == '[' {
			d.held = d.held[:0]
			return 0, false
		}
	}
	return d.end(Unknown)
}

func (d *Decoder) end(k Key) (Key, bool) {
	d.held = d.held[:0]
	return k, true
}

// Pending reports whether an ESC waits for the rest of its sequence.
func (d *Decoder) Pending() bool { return len(d.held) > 0 && d.held[0] == 0x1b }

// Flush ends what is pending after the time Lone: an ESC alone is the Escape key; half a sequence is nothing.
func (d *Decoder) Flush() (k Key, ok bool) {
	ok = len(d.held) == 1 && d.held[0] == 0x1b
	d.held = d.held[:0]
	return Escape, ok
}

// Keys reads keys from r until it ends, and then closes the channel. A key that nobody takes is kept, and r is not read on.
func Keys(r io.Reader) <-chan Key {
	bytes, keys := make(chan byte), make(chan Key, 16)
	go func() {
		defer close(bytes)
		var b [64]byte
		for {
			n, err := r.Read(b[:])
			for _, c := range b[:n] {
				bytes <- c
			}
			if err != nil {
				return
			}
		}
	}()
	go func() {
		defer close(keys)
		var d Decoder
		lone := time.NewTimer(Lone)
		defer lone.Stop()
		for {
			var late <-chan time.Time
			if d.Pending() {
				lone.Reset(Lone)
				late = lone.C
			}
			var k Key
			var ok bool
			select {
			case c, more := <-bytes:
				if !more {
					return
				}
				k, ok = d.Feed(c)
			case <-late:
				k, ok = d.Flush()
			}
			if ok {
				keys <- k
			}
		}
	}()
	return keys
}
