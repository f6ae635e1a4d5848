package lcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// DisplayOptions say where a Display finds its LCD.
type DisplayOptions struct {
	// Dial opens the port of the LCD, and names it. It is called again and again while there is none.
	Dial func(ctx context.Context) (port io.ReadWriteCloser, name string, err error)
	// Log hears when an LCD comes and goes; nil for nobody.
	Log *slog.Logger
	// Poll asks for the keys at this interval in place of having them reported. 0 has them reported.
	Poll time.Duration
	// Retry is the time between two searches for an LCD. Default 2 s. Display.Hint shortens it.
	Retry time.Duration
	// Check is how often an idle LCD is asked whether it is still there and has not been switched off meanwhile. Default 5 s.
	Check time.Duration
	// Conn is how patient the connection is.
	Conn Options
}

// frameTime is the time between two looks at a moving picture.
const frameTime = 250 * time.Millisecond

// Display shows pictures on an LCD that may come and go. Make it with NewDisplay; close it. All methods may be called from any
// goroutine, and none but Flush and Close waits for the LCD.
type Display struct {
	o      DisplayOptions
	keys   chan KeyEvent
	wake   chan struct{}
	hint   chan struct{}
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of Close; set before done is closed

	mu      sync.Mutex
	picture Picture
	since   time.Time
	shown   uint64 // number of the picture that is to be seen
	drawn   uint64 // number of the picture that is seen
	model   Model  // 0 while there is none
	moved   chan struct{}
}

// NewDisplay begins to look for the LCD.
func NewDisplay(o DisplayOptions) *Display {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Retry == 0 {
		o.Retry = 2 * time.Second
	}
	if o.Check == 0 {
		o.Check = 5 * time.Second
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &Display{o: o, keys: make(chan KeyEvent, 16), wake: make(chan struct{}, 1), hint: make(chan struct{}, 1), cancel: cancel,
		done: make(chan struct{}), moved: make(chan struct{})}
	go d.run(ctx)
	return d
}

// Show replaces the picture. A picture that was not drawn yet is never seen.
func (d *Display) Show(p Picture) {
	d.mu.Lock()
	d.picture, d.since = p, time.Now()
	d.shown++
	d.mu.Unlock()
	poke(d.wake)
}

// Keys are the keys that were pressed (polling) or released (both). They are dropped while nobody receives them. The channel is
// closed with the Display.
func (d *Display) Keys() <-chan KeyEvent { return d.keys }

// Model is the kind of LCD that is there, 0 for none.
func (d *Display) Model() Model {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.model
}

// Hint says that a device came, which may be the LCD.
func (d *Display) Hint() { poke(d.hint) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// change changes what Flush waits for.
func (d *Display) change(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	close(d.moved)
	d.moved = make(chan struct{})
}

// Flush waits until the LCD shows the picture. Without an LCD it returns at once.
func (d *Display) Flush(ctx context.Context) error {
	for {
		d.mu.Lock()
		waiting, moved := d.model != 0 && d.drawn != d.shown, d.moved
		d.mu.Unlock()
		if !waiting {
			return nil
		}
		select {
		case <-moved:
		case <-d.done:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("the LCD is busy: %w", ctx.Err())
		}
	}
}

// Close gives the LCD its settings back and its port free. The picture stays. Closing twice is fine.
func (d *Display) Close() error {
	d.cancel()
	<-d.done
	return d.err
}

// run looks for an LCD and serves it until it is lost, again and again.
func (d *Display) run(ctx context.Context) {
	defer close(d.done)
	defer close(d.keys)
	said := ""
	for ctx.Err() == nil {
		c, name, err := d.dial(ctx)
		if err != nil {
			if s := err.Error(); s != said && ctx.Err() == nil { // each reason once
				d.o.Log.Debug("no LCD", "err", err)
				said = s
			}
		} else {
			said = ""
			d.o.Log.Info("LCD", "model", c.Model().String(), "version", c.Version(), "port", name)
			d.change(func() { d.model, d.drawn = c.Model(), 0 })
			err = d.serve(ctx, c)
			d.change(func() { d.model = 0 })
			if ctx.Err() != nil {
				d.err = c.Close()
				return
			}
			d.o.Log.Warn("LCD lost", "port", name, "err", err)
			_ = c.shut() // what is lost has no settings to restore
		}
		t := time.NewTimer(d.o.Retry)
		select {
		case <-t.C:
		case <-d.hint:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

func (d *Display) dial(ctx context.Context) (*Conn, string, error) {
	port, name, err := d.o.Dial(ctx)
	if err != nil {
		return nil, "", err
	}
	c, err := Connect(ctx, port, d.o.Conn)
	return c, name, err
}

// serve keeps the picture on c until c or ctx ends. At the end of ctx it draws what was shown just before.
func (d *Display) serve(ctx context.Context, c *Conn) error {
	s := newSurface(c)
	err := d.keep(ctx, s)
	if ctx.Err() == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return d.draw(ctx, s)
}

func (d *Display) keep(ctx context.Context, s *surface) error {
	c := s.c
	mask := c.Model().KeyMask()
	var polls <-chan time.Time
	if d.o.Poll > 0 {
		mask = 0
		t := time.NewTicker(d.o.Poll)
		defer t.Stop()
		polls = t.C
	}
	if err := c.ReportKeys(ctx, 0, mask); err != nil {
		return err
	}
	frames, checks := time.NewTicker(frameTime), time.NewTicker(d.o.Check)
	defer frames.Stop()
	defer checks.Stop()
	keys := c.Keys()
	for {
		if err := d.draw(ctx, s); err != nil {
			return err
		}
		select {
		case <-d.wake:
		case <-frames.C:
		case e, ok := <-keys:
			if !ok {
				return c.lost()
			}
			d.pass(e)
		case <-polls:
			p, err := c.PollKeys(ctx)
			if err != nil {
				return err
			}
			for _, k := range c.Model().Keys() {
				if p.Pressed&k.Mask() != 0 {
					d.pass(KeyEvent{Key: k})
				}
				if p.Released&k.Mask() != 0 {
					d.pass(KeyEvent{Key: k, Release: true})
				}
			}
		case <-checks.C:
			now, err := c.Status(ctx)
			if err != nil {
				return err
			}
			if now.Press != 0 || now.Release != mask {
				d.o.Log.Info("LCD was switched off and on")
				*s = *newSurface(c)
				if err := c.ReportKeys(ctx, 0, mask); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *Display) pass(e KeyEvent) {
	select {
	case d.keys <- e:
	default:
	}
}

func (d *Display) draw(ctx context.Context, s *surface) error {
	d.mu.Lock()
	p, since, n := d.picture, d.since, d.shown
	d.mu.Unlock()
	if p == nil {
		return nil
	}
	if err := s.apply(ctx, p(s.c.Model(), time.Since(since))); err != nil {
		return err
	}
	d.mu.Lock()
	fresh := d.drawn != n
	d.mu.Unlock()
	if fresh {
		d.change(func() { d.drawn = n })
	}
	return nil
}

// unknown is what is on the LCD before anything was written.
const unknown = -1

// surface is what an LCD shows, as far as it is known, so that only changes are sent: there are LCDs that hang when they get
// too many packets.
type surface struct {
	c         *Conn
	cells     [4][Columns]int
	legend    Legend
	legendSet bool
	cursor    [2]int
	style     int
	backlight int
	before    int // the backlight that the LCD had
	lamps     [Lamps]Lamp
	lampsSet  bool
}

func newSurface(c *Conn) *surface {
	s := &surface{c: c, cursor: [2]int{unknown, unknown}, style: unknown, backlight: unknown, before: unknown}
	for row := range s.cells {
		s.forget(row, 0, Columns)
	}
	if st, ok := c.Found(); ok && st.Backlight > 0 && st.Backlight <= 100 {
		s.before = int(st.Backlight)
	}
	return s
}

func (s *surface) forget(row, from, to int) {
	for col := from; col < to; col++ {
		s.cells[row][col] = unknown
	}
}

// done makes a refusal a success: the LCD cannot do it, and to ask again and again would not help.
func done(err error) (bool, error) {
	var r *RefusedError
	if err == nil || errors.As(err, &r) {
		return true, nil
	}
	return false, err
}

// apply makes the LCD show f.
func (s *surface) apply(ctx context.Context, f Frame) error {
	m := s.c.Model()
	width := f.Legend.Width(m)
	if m == Model631 && (!s.legendSet || s.legend != f.Legend) {
		if ok, err := done(s.c.Legend(ctx, f.Legend)); !ok {
			return err
		}
		// The legend lies over the text; what is below it when it goes is the LCD's affair.
		for row := range m.Rows() {
			s.forget(row, Columns-3, Columns)
		}
	}
	s.legend, s.legendSet = f.Legend, true
	for row := range m.Rows() {
		line := ""
		if row < len(f.Lines) {
			line = f.Lines[row]
		}
		text := Encode(pad(line, width))
		if m == Model635 && width < Columns {
			text = append(text, Encode(mark635(f.Legend, row))...)
		}
		if err := s.write(ctx, row, text); err != nil {
			return err
		}
	}
	return s.settings(ctx, f)
}

// mark635 is what stands for a legend in the last column of a 635.
func mark635(l Legend, row int) string {
	switch {
	case row == 0 && l[0] == SignUp:
		return "▲"
	case row == 3 && l[2] == SignDown:
		return "▼"
	}
	return " "
}

// write sends the part of a line that changed, as one packet.
func (s *surface) write(ctx context.Context, row int, text []byte) error {
	from, to := -1, 0
	for col, b := range text {
		if s.cells[row][col] != int(b) {
			if from < 0 {
				from = col
			}
			to = col + 1
		}
	}
	if from < 0 {
		return nil
	}
	if ok, err := done(s.c.Write(ctx, from, row, text[from:to])); !ok {
		return err
	}
	for col := from; col < to; col++ {
		s.cells[row][col] = int(text[col])
	}
	s.cursor = [2]int{unknown, unknown} // writing may move it
	return nil
}

func (s *surface) settings(ctx context.Context, f Frame) error {
	if at := [2]int{f.Cursor.Col, f.Cursor.Row}; f.Style != CursorHidden && s.cursor != at {
		if ok, err := done(s.c.Cursor(ctx, f.Cursor.Col, f.Cursor.Row)); !ok && !errors.Is(err, ErrRange) {
			return err
		}
		s.cursor = at
	}
	if s.style != int(f.Style) {
		if ok, err := done(s.c.CursorStyle(ctx, f.Style)); !ok {
			return err
		}
		s.style = int(f.Style)
	}
	level := f.Backlight
	if level == 0 {
		level = s.before // a screen that was dark is lit, so that it can be read
		if level == unknown {
			level = 60
		}
	}
	if s.backlight == unknown && level == s.before {
		s.backlight = level
	}
	if s.backlight != level {
		if ok, err := done(s.c.Backlight(ctx, min(level, 100))); !ok {
			return err
		}
		s.backlight = level
	}
	for i, l := range f.Lamps {
		if s.c.Model() != Model635 || s.lampsSet && s.lamps[i] == l || !s.lampsSet && f.Lamps == ([Lamps]Lamp{}) {
			continue
		}
		if ok, err := done(s.c.Lamp(ctx, i, l)); !ok {
			return err
		}
		s.lamps[i] = l
	}
	if f.Lamps != ([Lamps]Lamp{}) {
		s.lampsSet = true
	}
	return nil
}
