package lcd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"
)

var (
	// ErrNoReply is returned when the LCD answered none of several attempts.
	ErrNoReply = errors.New("the LCD does not answer")
	// ErrLost is returned when the port is gone, as after unplugging.
	ErrLost = errors.New("the connection to the LCD is lost")
)

// RefusedError is returned when the LCD answers that it did not do what was asked.
type RefusedError struct{ Command Command }

func (e *RefusedError) Error() string { return fmt.Sprintf("the LCD refuses %s", e.Command) }

// Options are how patient a Conn is. The zero value is right for all LCDs.
type Options struct {
	// Gap is the least time between two packets, counted from the last one sent or received. Default 10 ms.
	Gap time.Duration
	// Timeout is how long one attempt waits for a reply. Default 300 ms; the data sheets promise 250.
	Timeout time.Duration
	// Attempts is how often a packet is sent before giving up. Default 6.
	Attempts int
}

func (o Options) complete() Options {
	if o.Gap == 0 {
		o.Gap = 10 * time.Millisecond
	}
	if o.Timeout == 0 {
		o.Timeout = 300 * time.Millisecond
	}
	if o.Attempts == 0 {
		o.Attempts = 6
	}
	return o
}

// Status is what an LCD says of its settings.
type Status struct {
	Press, Release byte // masks of the keys that are reported
	Contrast       byte
	Backlight      byte // 0 to 100
}

// Poll is what happened to the keys since the last poll, as masks of Key.Mask.
type Poll struct{ Down, Pressed, Released byte }

// Conn is an LCD on an open port. Make it with Connect; close it. All methods may be called from any goroutine; each waits until
// the LCD has answered. Their errors are ErrNoReply, ErrLost, a *RefusedError, ErrRange, or that of the context.
type Conn struct {
	port    io.ReadWriteCloser
	o       Options
	model   Model
	version string

	mu      sync.Mutex // one request at a time
	last    time.Time  // a packet was sent
	found   *Status    // what the LCD was set to before; nil if it did not say
	touched bool       // its settings were changed
	pings   uint64

	heard   clock // a packet was received
	replies chan Packet
	keys    chan KeyEvent
	done    chan struct{} // the reader has ended
	cause   error         // why; set before done is closed
}

// clock is a point in time that two goroutines share.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) set() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = time.Now()
}

func (c *clock) get() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// Connect finds out which LCD is on the port, and what it is set to. A port on which no Crystalfontz LCD answers is closed and an
// error; that takes two attempts, so that a foreign device is left alone soon. The port belongs to the Conn from then on.
func Connect(ctx context.Context, port io.ReadWriteCloser, o Options) (*Conn, error) {
	c := &Conn{port: port, o: o.complete(), replies: make(chan Packet, 8), keys: make(chan KeyEvent, 16), done: make(chan struct{})}
	go c.read()
	patient := c.o.Attempts
	c.o.Attempts = min(2, patient)
	err := c.Ping(ctx)
	c.o.Attempts = patient
	var version []byte
	if err == nil {
		version, err = c.Do(ctx, CmdVersion, nil)
	}
	if err == nil {
		c.version = string(bytes.TrimRight(version, "\x00 "))
		c.model, err = ParseModel(c.version)
	}
	if err != nil {
		c.shut()
		return nil, fmt.Errorf("connect to LCD: %w", err)
	}
	if s, err := c.Status(ctx); err == nil {
		c.found = &s
	}
	return c, nil
}

// Model is the kind of LCD.
func (c *Conn) Model() Model { return c.model }

// Version is what the LCD says of its hardware and firmware.
func (c *Conn) Version() string { return c.version }

// Found is what the LCD was set to when it was connected, false if it did not say.
func (c *Conn) Found() (Status, bool) {
	if c.found == nil {
		return Status{}, false
	}
	return *c.found, true
}

// Keys are the keys that the LCD reports, see ReportKeys. It is closed when the connection ends. What nobody receives in time is
// dropped.
func (c *Conn) Keys() <-chan KeyEvent { return c.keys }

// Lost is closed when the connection ends.
func (c *Conn) Lost() <-chan struct{} { return c.done }

func (c *Conn) read() {
	defer close(c.done)
	defer close(c.keys)
	d := Decoder{Kinds: []Kind{Reply, Report, Refusal}}
	buf := make([]byte, 256)
	fed := time.Now()
	for {
		n, err := c.port.Read(buf)
		if n > 0 {
			// What began long ago and is not complete now either is damaged.
			stale := d.Pending() && time.Since(fed) >= c.o.Timeout
			fed = time.Now()
			d.Feed(buf[:n])
			c.dispatch(&d)
			for stale && d.Pending() {
				d.Skip()
				c.dispatch(&d)
			}
		}
		if err != nil {
			c.cause = err
			return
		}
		if n == 0 { // a port with a timeout of its own
			time.Sleep(20 * time.Millisecond)
		}
	}
}

func (c *Conn) dispatch(d *Decoder) {
	for {
		p, ok := d.Next()
		if !ok {
			return
		}
		c.heard.set()
		if p.Kind != Report {
			select {
			case c.replies <- p:
			default: // nobody waits for so many
			}
			continue
		}
		if e, ok := keyEvent(append(p.Data, 0)[0]); ok && p.Command == ReportKey && len(p.Data) == 1 {
			select {
			case c.keys <- e:
			default:
			}
		}
	}
}

// Do sends a command and returns the data of the reply. It is how commands are sent that have no method.
func (c *Conn) Do(ctx context.Context, cmd Command, data []byte) ([]byte, error) {
	return c.do(ctx, cmd, data, func([]byte) bool { return true })
}

// do is Do for a reply that accept knows to be the right one.
func (c *Conn) do(ctx context.Context, cmd Command, data []byte, accept func([]byte) bool) ([]byte, error) {
	b, err := Packet{Kind: Request, Command: cmd, Data: data}.Append(nil)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for range c.o.Attempts {
		if err := c.send(ctx, b); err != nil {
			return nil, fmt.Errorf("%s: %w", cmd, err)
		}
		reply, err := c.await(ctx, cmd, accept)
		if !errors.Is(err, ErrNoReply) {
			return reply, err
		}
	}
	return nil, fmt.Errorf("%s: %w", cmd, ErrNoReply)
}

// send waits for the gap, forgets late replies and writes b.
func (c *Conn) send(ctx context.Context, b []byte) error {
	quiet := c.last
	if h := c.heard.get(); h.After(quiet) {
		quiet = h
	}
	if err := c.wait(ctx, c.o.Gap-time.Since(quiet)); err != nil {
		return err
	}
	for len(c.replies) > 0 {
		<-c.replies
	}
	sent := make(chan error, 1)
	go func() { // a port may be stuck
		_, err := c.port.Write(b)
		sent <- err
	}()
	defer func() { c.last = time.Now() }()
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case err := <-sent:
		if err != nil {
			return fmt.Errorf("%w: %w", ErrLost, err)
		}
		return nil
	case <-c.done:
		return c.lost()
	case <-t.C:
		return fmt.Errorf("%w: the port takes nothing", ErrLost)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Conn) wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-c.done:
		return c.lost()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Conn) lost() error { return fmt.Errorf("%w: %w", ErrLost, c.cause) }

func (c *Conn) await(ctx context.Context, cmd Command, accept func([]byte) bool) ([]byte, error) {
	t := time.NewTimer(c.o.Timeout)
	defer t.Stop()
	for {
		select {
		case p := <-c.replies:
			switch {
			case p.Command != cmd:
			case p.Kind == Refusal:
				return nil, &RefusedError{cmd}
			case accept(p.Data):
				return p.Data, nil
			}
		case <-t.C:
			return nil, ErrNoReply
		case <-c.done:
			return nil, c.lost()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// order sends a command whose reply says nothing but that it was done.
func (c *Conn) order(ctx context.Context, cmd Command, data ...byte) error {
	_, err := c.do(ctx, cmd, data, func(b []byte) bool { return len(b) == 0 })
	return err
}

// change is order for a command that changes what Close restores.
func (c *Conn) change(ctx context.Context, cmd Command, data ...byte) error {
	c.mu.Lock()
	c.touched = true
	c.mu.Unlock()
	return c.order(ctx, cmd, data...)
}

// Ping asks whether the LCD is there.
func (c *Conn) Ping(ctx context.Context) error {
	c.mu.Lock()
	c.pings++
	data := binary.LittleEndian.AppendUint64(nil, c.pings*0x9e3779b97f4a7c15) // all bits take part
	c.mu.Unlock()
	_, err := c.do(ctx, CmdPing, data, func(b []byte) bool { return bytes.Equal(b, data) })
	return err
}

// Status asks for the LCD's settings.
func (c *Conn) Status(ctx context.Context) (Status, error) {
	b, err := c.do(ctx, CmdStatus, nil, func(b []byte) bool { return len(b) >= 15 })
	if err != nil {
		return Status{}, err
	}
	return Status{Press: b[5], Release: b[6], Contrast: b[13], Backlight: b[14]}, nil
}

// Clear blanks the screen and puts the cursor into the first place.
func (c *Conn) Clear(ctx context.Context) error { return c.order(ctx, CmdClear) }

// Write writes characters of the LCD (see Encode) from a place on. They must fit into the line.
func (c *Conn) Write(ctx context.Context, col, row int, text []byte) error {
	if col < 0 || row < 0 || row >= c.model.Rows() || len(text) == 0 || col+len(text) > Columns {
		return fmt.Errorf("write %d characters at %d,%d: %w", len(text), col, row, ErrRange)
	}
	return c.order(ctx, CmdWrite, append([]byte{byte(col), byte(row)}, text...)...)
}

// Cursor moves the cursor.
func (c *Conn) Cursor(ctx context.Context, col, row int) error {
	if col < 0 || col >= Columns || row < 0 || row >= c.model.Rows() {
		return fmt.Errorf("cursor to %d,%d: %w", col, row, ErrRange)
	}
	return c.order(ctx, CmdCursor, byte(col), byte(row))
}

// CursorStyle says how the cursor looks.
func (c *Conn) CursorStyle(ctx context.Context, s CursorStyle) error {
	return c.order(ctx, CmdCursorStyle, byte(s))
}

// Backlight sets the brightness of display and keys, 0 to 100. Close restores it.
func (c *Conn) Backlight(ctx context.Context, level int) error {
	if level < 0 || level > 100 {
		return fmt.Errorf("backlight %d: %w", level, ErrRange)
	}
	return c.change(ctx, CmdBacklight, byte(level))
}

// Contrast sets the contrast, 0 (light) to 254 (dark). Close restores it.
func (c *Conn) Contrast(ctx context.Context, level int) error {
	if level < 0 || level > 254 {
		return fmt.Errorf("contrast %d: %w", level, ErrRange)
	}
	return c.change(ctx, CmdContrast, byte(level))
}

// ReportKeys chooses which keys the LCD reports when they are pressed and released, as masks. Close restores it.
func (c *Conn) ReportKeys(ctx context.Context, press, release byte) error {
	return c.change(ctx, CmdReportKeys, press&c.model.KeyMask(), release&c.model.KeyMask())
}

// PollKeys asks for the keys.
func (c *Conn) PollKeys(ctx context.Context) (Poll, error) {
	b, err := c.do(ctx, CmdPollKeys, nil, func(b []byte) bool { return len(b) == 3 })
	if err != nil {
		return Poll{}, err
	}
	return Poll{Down: b[0], Pressed: b[1], Released: b[2]}, nil
}

// Legend shows the signs beside the keys of a 631. A 635 has none: nothing is sent.
func (c *Conn) Legend(ctx context.Context, l Legend) error {
	if c.model != Model631 {
		return nil
	}
	return c.order(ctx, CmdLegend, l.data()...)
}

// Lamps is the number of lamps of a 635.
const Lamps = 4

// Lamp is the colour of a lamp: the brightness of its two parts, 0 to 100.
type Lamp struct{ Red, Green byte }

// Lamp sets one of the lamps of a 635, 0 at the top. A 631 has none: nothing is sent.
func (c *Conn) Lamp(ctx context.Context, i int, l Lamp) error {
	if i < 0 || i >= Lamps || l.Red > 100 || l.Green > 100 {
		return fmt.Errorf("lamp %d: %w", i, ErrRange)
	}
	if c.model != Model635 {
		return nil
	}
	// Outputs 5 and 6 are green and red of the lamp at the bottom, 11 and 12 of that at the top.
	green := byte(11 - 2*i)
	return errors.Join(c.order(ctx, CmdOutput, green, l.Green), c.order(ctx, CmdOutput, green+1, l.Red))
}

// Glyph sets one of the 8 characters of one's own, 0 to 7: 8 rows from the top, of 6 dots in the lower bits, the leftmost in bit 5.
func (c *Conn) Glyph(ctx context.Context, i int, rows [8]byte) error {
	if i < 0 || i > 7 {
		return fmt.Errorf("glyph %d: %w", i, ErrRange)
	}
	return c.order(ctx, CmdGlyph, append([]byte{byte(i)}, rows[:]...)...)
}

// FlashSize is how many bytes an LCD keeps for its user.
const FlashSize = 16

// ReadFlash reads the bytes that the LCD keeps for its user.
func (c *Conn) ReadFlash(ctx context.Context) ([]byte, error) {
	return c.do(ctx, CmdReadFlash, nil, func(b []byte) bool { return len(b) == FlashSize })
}

// WriteFlash replaces the bytes that the LCD keeps for its user; shorter data is filled with zeros.
func (c *Conn) WriteFlash(ctx context.Context, b []byte) error {
	if len(b) > FlashSize {
		return fmt.Errorf("write %d bytes to flash: %w", len(b), ErrRange)
	}
	data := make([]byte, FlashSize)
	copy(data, b)
	return c.order(ctx, CmdWriteFlash, data...)
}

// StoreBootState makes what the LCD shows now what it shows after power on. Its memory bears this some ten thousand times.
func (c *Conn) StoreBootState(ctx context.Context) error { return c.order(ctx, CmdStoreBootState) }

// Reboot restarts the LCD, which then shows what StoreBootState stored. It does not answer for some seconds.
func (c *Conn) Reboot(ctx context.Context) error { return c.order(ctx, CmdReboot, 8, 18, 99) }

// handBack is how long Close tries to restore settings.
const handBack = 2 * time.Second

// Close gives the LCD its settings back, as far as they were changed, and closes the port in any case. What is on the screen stays.
func (c *Conn) Close() error {
	var err error
	c.mu.Lock()
	touched := c.touched
	c.touched = false
	c.mu.Unlock()
	if s := c.found; s != nil && touched {
		ctx, cancel := context.WithTimeout(context.Background(), handBack)
		defer cancel()
		err = errors.Join(c.order(ctx, CmdReportKeys, s.Press, s.Release), c.order(ctx, CmdBacklight, s.Backlight))
		if now, e := c.Status(ctx); e == nil && now.Contrast != s.Contrast {
			err = errors.Join(err, c.order(ctx, CmdContrast, s.Contrast))
		}
		if err != nil {
			err = fmt.Errorf("restore settings of LCD: %w", err)
		}
	}
	return errors.Join(err, c.shut())
}

func (c *Conn) shut() error {
	err := c.port.Close()
	t := time.NewTimer(time.Second) // for a port whose Close does not end its Read
	defer t.Stop()
	select {
	case <-c.done:
	case <-t.C:
	}
	if err != nil {
		return fmt.Errorf("close port of LCD: %w", err)
	}
	return nil
}

// Fade returns the brightness of step i of 20 of one slow blink (it goes on after that): half a sine, as bright as the model bears
// without dazzling.
func Fade(m Model, i int) int {
	a, b := 20.0, 8.0
	if m == Model635 {
		a, b = 100, 0
	}
	return int(math.Sin(math.Pi*float64(i%20)/20)*a + b)
}
