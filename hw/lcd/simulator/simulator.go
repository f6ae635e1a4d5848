// Package simulator behaves like a Crystalfontz 631 or 635 on any connection: it obeys the commands, keeps screen, cursor, keys
// and lamps, and makes faults on demand. It is for tests, for virtual machines and for those who have no LCD at hand.
//
// What the maker's data sheets leave open it does strictly: a command with wrong data is refused.
package simulator

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"gprovision/hw/lcd"
)

// Faults are what goes wrong. The zero value is a faultless LCD.
type Faults struct {
	// Drop loses every n-th request, Corrupt flips a bit in every n-th answer or report, Cut leaves out a byte of every n-th. 0: none.
	Drop, Corrupt, Cut int
	// Delay passes before each answer.
	Delay time.Duration
	// Deaf answers nothing.
	Deaf bool
	// Refuse are commands that are refused.
	Refuse []lcd.Command
}

// Screen is what a person sees, and what the LCD is set to.
type Screen struct {
	Model              lcd.Model
	Cells              [][]byte // characters of the LCD, by rows
	Cursor             struct{ Col, Row int }
	Style              lcd.CursorStyle
	Backlight, Keypad  int // brightness, 0 to 100
	Contrast           int
	Legend             lcd.Legend
	Lamps              [lcd.Lamps]lcd.Lamp
	PressMask, RelMask byte
}

// Lines are the rows as text, without blanks at their ends. The legend of a 631 covers its three columns.
func (s Screen) Lines() []string {
	signs := []rune(" X✓▲▼►◄+- ")
	var out []string
	for i, row := range s.Cells {
		line := lcd.Decode(row)
		if s.Model == lcd.Model631 && s.Legend != (lcd.Legend{}) {
			line = string([]rune(line)[:lcd.Columns-3]) + string([]rune{signs[s.Legend[2*i]%10], ' ', signs[s.Legend[2*i+1]%10]})
		}
		out = append(out, strings.TrimRight(line, " "))
	}
	return out
}

// String is the lines with line feeds between them.
func (s Screen) String() string { return strings.Join(s.Lines(), "\n") }

// Contains reports whether the text is to be seen, in one line.
func (s Screen) Contains(text string) bool {
	return slices.ContainsFunc(s.Lines(), func(l string) bool { return strings.Contains(l, text) })
}

// LCD is a simulated LCD. Make it with New; all methods may be called from any goroutine.
type LCD struct {
	mu       sync.Mutex
	s        Screen
	boot     Screen // after power on
	flash    []byte
	keys     lcd.Poll
	faults   Faults
	received []lcd.Packet
	asked    int // requests that came
	said     int // packets that were sent
	out      io.Writer
	changed  chan struct{}

	writing sync.Mutex
}

// New returns an LCD that was just switched on.
func New(m lcd.Model) *LCD {
	l := &LCD{changed: make(chan struct{}), flash: make([]byte, lcd.FlashSize)}
	l.boot = Screen{Model: m, Backlight: 40, Keypad: 40, Contrast: 95, PressMask: m.KeyMask(), RelMask: m.KeyMask()}
	for range m.Rows() {
		l.boot.Cells = append(l.boot.Cells, bytes.Repeat([]byte{' '}, lcd.Columns))
	}
	copy(l.boot.Cells[0], "Crystalfontz "+m.String())
	l.s = l.boot.clone()
	return l
}

func (s Screen) clone() Screen {
	cells := s.Cells
	s.Cells = nil
	for _, row := range cells {
		s.Cells = append(s.Cells, bytes.Clone(row))
	}
	return s
}

// PowerCycle switches the LCD off and on again, while its port stays.
func (l *LCD) PowerCycle() {
	l.change(func() {
		l.s = l.boot.clone()
		l.keys = lcd.Poll{}
	})
}

// SetFaults changes what goes wrong from now on.
func (l *LCD) SetFaults(f Faults) {
	l.change(func() { l.faults, l.asked, l.said = f, 0, 0 })
}

// Screen returns what is to be seen now.
func (l *LCD) Screen() Screen {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.s.clone()
}

// Received returns the requests that came, without lost ones and at most the last thousand.
func (l *LCD) Received() []lcd.Packet {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.received)
}

func (l *LCD) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

// Wait waits until the screen is as ok wants it, and returns it. On the end of ctx the error has the last screen.
func (l *LCD) Wait(ctx context.Context, ok func(Screen) bool) (Screen, error) {
	for {
		l.mu.Lock()
		s, changed := l.s.clone(), l.changed
		l.mu.Unlock()
		if ok(s) {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s, fmt.Errorf("the LCD shows %q: %w", s.Lines(), context.Cause(ctx))
		}
	}
}

// Press and Release move a key. They are reported as the LCD was told to; nothing is reported while nothing is connected.
func (l *LCD) Press(k lcd.Key) {
	l.move(lcd.KeyEvent{Key: k})
}

// Release lets a key go.
func (l *LCD) Release(k lcd.Key) {
	l.move(lcd.KeyEvent{Key: k, Release: true})
}

// Tap presses a key and lets it go.
func (l *LCD) Tap(k lcd.Key) {
	l.Press(k)
	l.Release(k)
}

func (l *LCD) move(e lcd.KeyEvent) {
	l.mu.Lock()
	if !slices.Contains(l.s.Model.Keys(), e.Key) {
		l.mu.Unlock()
		return
	}
	bit := e.Key.Mask()
	mask := l.s.PressMask
	if e.Release {
		mask = l.s.RelMask
		l.keys.Down &^= bit
		l.keys.Released |= bit
	} else {
		l.keys.Down |= bit
		l.keys.Pressed |= bit
	}
	out := l.out
	l.mu.Unlock()
	if mask&bit != 0 && out != nil {
		_ = l.send(out, lcd.Packet{Kind: lcd.Report, Command: lcd.ReportKey, Data: []byte{e.Code()}}) // a lost key is no matter of the finger
	}
}

// Serve obeys what comes on rw until reading ends; the error is that of reading or writing, nil at its regular end. One connection
// at a time.
func (l *LCD) Serve(rw io.ReadWriter) error {
	l.change(func() { l.out = rw })
	defer l.change(func() { l.out = nil })
	d := lcd.Decoder{Kinds: []lcd.Kind{lcd.Request}}
	buf := make([]byte, 256)
	for {
		n, err := rw.Read(buf)
		d.Feed(buf[:n])
		for {
			p, ok := d.Next()
			if !ok {
				break
			}
			if err := l.answer(rw, p); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func nth(count, n int) bool { return n > 0 && count%n == 0 }

func (l *LCD) answer(w io.Writer, p lcd.Packet) error {
	l.mu.Lock()
	f := l.faults
	l.asked++
	lost := f.Deaf || nth(l.asked, f.Drop)
	if !lost {
		l.received = append(l.received[max(0, len(l.received)-999):], p)
	}
	l.mu.Unlock()
	if lost {
		return nil
	}
	reply := lcd.Packet{Kind: lcd.Refusal, Command: p.Command}
	if !slices.Contains(f.Refuse, p.Command) {
		l.change(func() {
			if data, ok := l.obey(p); ok {
				reply.Kind, reply.Data = lcd.Reply, data
			}
		})
	}
	time.Sleep(f.Delay)
	return l.send(w, reply)
}

func (l *LCD) send(w io.Writer, p lcd.Packet) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	b, err := p.Append(nil)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.said++
	if nth(l.said, l.faults.Corrupt) {
		b[l.said%len(b)] ^= 1 << (l.said % 8)
	}
	if nth(l.said, l.faults.Cut) {
		i := l.said % len(b)
		b = append(b[:i], b[i+1:]...)
	}
	l.mu.Unlock()
	_, err = w.Write(b)
	return err
}

// obey does what a request says, and returns the data of the reply, false to refuse it.
func (l *LCD) obey(p lcd.Packet) ([]byte, bool) {
	s, d := &l.s, p.Data
	rows := s.Model.Rows()
	switch n := len(d); {
	case p.Command == lcd.CmdPing && n <= 16:
		return d, true
	case p.Command == lcd.CmdVersion && n == 0:
		return []byte("CFA" + s.Model.String() + ":h1.1,u2.0"), true
	case p.Command == lcd.CmdWriteFlash && n == lcd.FlashSize:
		l.flash = bytes.Clone(d)
	case p.Command == lcd.CmdReadFlash && n == 0:
		return bytes.Clone(l.flash), true
	case p.Command == lcd.CmdStoreBootState && n == 0:
		l.boot = s.clone()
	case p.Command == lcd.CmdReboot && bytes.Equal(d, []byte{8, 18, 99}):
		*s, l.keys = l.boot.clone(), lcd.Poll{}
	case p.Command == lcd.CmdClear && n == 0:
		for _, row := range s.Cells {
			copy(row, bytes.Repeat([]byte{' '}, lcd.Columns))
		}
		s.Cursor.Col, s.Cursor.Row = 0, 0
	case p.Command == lcd.CmdGlyph && n == 9 && d[0] < 8:
	case p.Command == lcd.CmdCursor && n == 2 && d[0] < lcd.Columns && int(d[1]) < rows:
		s.Cursor.Col, s.Cursor.Row = int(d[0]), int(d[1])
	case p.Command == lcd.CmdCursorStyle && n == 1 && d[0] <= 4:
		s.Style = lcd.CursorStyle(d[0])
	case p.Command == lcd.CmdContrast && n == 1 && d[0] < 255:
		s.Contrast = int(d[0])
	case p.Command == lcd.CmdBacklight && (n == 1 || n == 2) && d[0] <= 100 && d[n-1] <= 100:
		s.Backlight, s.Keypad = int(d[0]), int(d[n-1])
	case p.Command == lcd.CmdReportKeys && n == 2 && d[0]&^s.Model.KeyMask() == 0 && d[1]&^s.Model.KeyMask() == 0:
		s.PressMask, s.RelMask = d[0], d[1]
	case p.Command == lcd.CmdPollKeys && n == 0:
		k := l.keys
		l.keys.Pressed, l.keys.Released = 0, 0
		return []byte{k.Down, k.Pressed, k.Released}, true
	case p.Command == lcd.CmdStatus && n == 0:
		b := make([]byte, 15)
		b[5], b[6], b[13], b[14] = s.PressMask, s.RelMask, byte(s.Contrast), byte(s.Backlight)
		return b, true
	case p.Command == lcd.CmdWrite && n >= 3 && d[0] < lcd.Columns && int(d[1]) < rows:
		copy(s.Cells[d[1]][d[0]:], d[2:])
	case p.Command == lcd.CmdLegend && s.Model == lcd.Model631 && n == 1 && d[0] == 0:
		s.Legend = lcd.Legend{}
	case p.Command == lcd.CmdLegend && s.Model == lcd.Model631 && n == 5 && d[0] == 1 && slices.Max(d[1:]) <= byte(lcd.SignNone):
		s.Legend = lcd.Legend{lcd.Sign(d[1]), lcd.Sign(d[2]), lcd.Sign(d[3]), lcd.Sign(d[4])}
	case p.Command == lcd.CmdOutput && s.Model == lcd.Model635 && n == 2 && d[0] >= 5 && d[0] <= 12 && d[1] <= 100:
		lamp := &s.Lamps[(12-d[0])/2]
		if d[0]%2 == 0 {
			lamp.Red = d[1]
		} else {
			lamp.Green = d[1]
		}
	default:
		return nil, false
	}
	return nil, true
}
