package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"

	"gprovision/cli/shown"
	"gprovision/hw/console"
	"gprovision/hw/lcd"
	"gprovision/hw/lcd/simulator"
)

// LCDCmd holds the verbs about displays with keys.
type LCDCmd struct {
	Demo     LCDDemoCmd     `cmd:"" help:"Show on a display what it can do, and print the keys that are pressed."`
	Simulate LCDSimulateCmd `cmd:"" help:"Be a display: draw it in the terminal and take its keys from the keyboard."`
	Attach   LCDAttachCmd   `cmd:"" help:"Draw the display of a virtual unit in the terminal and take its keys from the keyboard."`
}

// LCDDemoCmd is "gprov lcd demo".
type LCDDemoCmd struct {
	Port  string        `placeholder:"DEVICE" help:"Serial port of the display, such as /dev/ttyS1. Default: a display on USB, which is found by itself."`
	Pause time.Duration `default:"5s" help:"How long each picture is shown."`
	Wait  time.Duration `default:"1m" help:"How long the last picture waits for keys."`
	Poll  bool          `help:"Ask for the keys in place of having them reported."`
}

// Help returns the examples of the verb.
func (*LCDDemoCmd) Help() string {
	return `The display is a Crystalfontz 631 or 635. The demo ends when the person at the display leaves its menu, or presses nothing for a while.

Examples:

  gprov lcd demo
  gprov lcd demo --port /dev/ttyS1 --pause 2s
  gprov lcd simulate --link /tmp/lcd   # in one terminal
  gprov lcd demo --port /tmp/lcd       # in another`
}

// Run shows the pictures.
func (d *LCDDemoCmd) Run(c *Context) error {
	open := lcd.Dialer(os.DirFS("/sys"), "")
	if d.Port != "" {
		open = func(context.Context) (io.ReadWriteCloser, string, error) {
			p, err := lcd.OpenPort(d.Port)
			if err != nil {
				return nil, "", err
			}
			return p, d.Port, nil
		}
	}
	o := lcd.DisplayOptions{Dial: open, Log: slog.New(slog.NewTextHandler(c.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	if d.Poll {
		o.Poll = 100 * time.Millisecond
	}
	// Once by hand, so that what is wrong is said and not tried again and again.
	port, name, err := open(c)
	if err != nil {
		return &HintError{err, "name the port with --port; gprov lcd simulate makes a display without hardware"}
	}
	conn, err := lcd.Connect(c, port, lcd.Options{})
	if err != nil {
		return &HintError{fmt.Errorf("%s: %w", name, err), "is a Crystalfontz 631 or 635 there?"}
	}
	model, version := conn.Model(), conn.Version()
	if err := conn.Close(); err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout, "%s: LCD %s, %d rows of %d characters, version %s\n", name, model, model.Rows(), lcd.Columns, version)
	display := lcd.NewDisplay(o)
	return errors.Join(d.show(c, display, model), display.Close())
}

func (d *LCDDemoCmd) show(c *Context, display *lcd.Display, model lcd.Model) error {
	for _, s := range demoPictures(model) {
		fmt.Fprintln(c.Stdout, s.name)
		display.Show(s.picture)
		t := time.NewTimer(d.Pause)
		for showing := true; showing; {
			select {
			case e := <-display.Keys():
				printKey(c.Stdout, e)
			case <-t.C:
				showing = false
			case <-c.Done():
				t.Stop()
				return nil
			}
		}
	}
	fmt.Fprintln(c.Stdout, "menu")
	menu := lcd.Menu{Text: "What next?", Options: []string{"Press some keys", "A long line that does not fit", "Leave the demo"}}
	for {
		display.Show(menu.Picture)
		select {
		case e, ok := <-display.Keys():
			if !ok {
				return nil
			}
			printKey(c.Stdout, e)
			if i := menu.Key(e); i == lcd.Cancelled || i == len(menu.Options)-1 {
				display.Show(lcd.Text("Good bye"))
				return nil
			}
		case <-time.After(d.Wait):
			return nil
		case <-c.Done():
			return nil
		}
	}
}

func printKey(w io.Writer, e lcd.KeyEvent) {
	what := "pressed"
	if e.Release {
		what = "released"
	}
	fmt.Fprintf(w, "key %s %s\n", e.Key, what)
}

type demoPicture struct {
	name    string
	picture lcd.Picture
}

func demoPictures(model lcd.Model) []demoPicture {
	progress := func(m lcd.Model, elapsed time.Duration) lcd.Frame {
		n := min(100, int(elapsed/(50*time.Millisecond)))
		f := lcd.Frame{Lines: []string{lcd.Between("Progress", fmt.Sprintf("%d %%", n), lcd.Columns), lcd.Bar(lcd.Columns, n)}}
		for i := range f.Lamps {
			if n >= (i+1)*25 {
				f.Lamps[lcd.Lamps-1-i].Green = 100
			}
		}
		return f
	}
	cursors := func(m lcd.Model, elapsed time.Duration) lcd.Frame {
		f := lcd.Frame{Lines: []string{"Cursor"}, Style: lcd.CursorStyle(elapsed/time.Second)%4 + 1}
		f.Cursor.Row = 1
		return f
	}
	return []demoPicture{
		{"text", lcd.Text("Hello. This is a " + model.String() + ".")},
		{"text that scrolls", lcd.Text("A long text is broken into lines at its blanks, and if there are more lines than the display has rows, it moves up.")},
		{"characters", lcd.Text("ÄÖÜäöüñ $@_~[\\]{|} »« ▲▼►◄ █")},
		{"spinner", lcd.Busy("Something goes on")},
		{"progress", progress},
		{"cursor", cursors},
		{"alarm", lcd.Alarm(lcd.Text("Something is wrong"))},
		{"question", lcd.Menu{Text: "A question looks like this. Is that all right?", Options: []string{"No", "Yes"}}.Picture},
	}
}

// LCDSimulateCmd is "gprov lcd simulate".
type LCDSimulateCmd struct {
	Model   string        `enum:"631,635" default:"635" help:"631 or 635."`
	Link    string        `type:"path" placeholder:"FILE" help:"Make a link to the pseudo terminal, under a name that is known."`
	Drop    int           `placeholder:"N" help:"Lose every Nth request."`
	Corrupt int           `placeholder:"N" help:"Damage every Nth answer."`
	Delay   time.Duration `help:"Wait before each answer."`
}

// Help returns the examples of the verb.
func (*LCDSimulateCmd) Help() string {
	return `It prints the name of a pseudo terminal. Programs that open it find a Crystalfontz display there. On a terminal the arrow keys, Enter and
Escape are its keys (on a 631: up and down are the left ones, Enter and Escape the right ones), q ends it.

Examples:

  gprov lcd simulate
  gprov lcd simulate --model 631 --link /tmp/lcd
  gprov lcd simulate --drop 7   # a bad line`
}

// Run is the display, until q or a signal.
func (s *LCDSimulateCmd) Run(c *Context) (err error) {
	model := lcd.Model635
	if s.Model == lcd.Model631.String() {
		model = lcd.Model631
	}
	ours, tty, err := pty.Open()
	if err != nil {
		return fmt.Errorf("open pseudo terminal: %w", err)
	}
	defer ours.Close()
	defer tty.Close() // open all the time: else the end of one program would be the end of the line
	if _, err := term.MakeRaw(int(tty.Fd())); err != nil {
		return fmt.Errorf("set pseudo terminal: %w", err)
	}
	if s.Link != "" {
		if err := os.Symlink(tty.Name(), s.Link); err != nil {
			return fmt.Errorf("make link: %w", err)
		}
		defer os.Remove(s.Link)
	}
	fmt.Fprintf(c.Stdout, "LCD %s on %s\n", model, tty.Name())
	sim := simulator.New(model)
	sim.SetFaults(simulator.Faults{Drop: s.Drop, Corrupt: s.Corrupt, Delay: s.Delay})
	ctx, cancel := context.WithCancel(c)
	defer cancel()
	go func() {
		_ = sim.Serve(ours) // ends with the pseudo terminal
		cancel()
	}()
	if in := (&console.TTY{File: os.Stdin}); c.Terminal && term.IsTerminal(int(os.Stdin.Fd())) {
		if err := in.Raw(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, in.Restore()) }()
		go func() {
			pressKeys(sim, console.Keys(in))
			cancel()
		}()
	}
	return drawDisplay(ctx, shown.Raw(c.Stdout), sim, c.Terminal)
}

// pressKeys presses the keys of the display until q.
func pressKeys(sim *simulator.LCD, keys <-chan console.Key) {
	on := map[console.Key]lcd.Key{console.Up: lcd.KeyUp, console.Down: lcd.KeyDown, console.Left: lcd.KeyLeft, console.Right: lcd.KeyRight, console.Enter: lcd.KeyEnter, console.Escape: lcd.KeyExit}
	if sim.Screen().Model == lcd.Model631 {
		on = map[console.Key]lcd.Key{console.Up: lcd.KeyUL, console.Down: lcd.KeyLL, console.Left: lcd.KeyUL, console.Right: lcd.KeyLL, console.Enter: lcd.KeyUR, console.Escape: lcd.KeyLR}
	}
	for k := range keys {
		if k == 'q' {
			return
		}
		if key, ok := on[k]; ok {
			sim.Tap(key)
		}
	}
}

// drawDisplay draws the display each time that it changes, until ctx ends: over itself on a terminal, else one below the other.
func drawDisplay(ctx context.Context, w io.Writer, sim *simulator.LCD, terminal bool) error {
	last := ""
	for {
		s, err := sim.Wait(ctx, func(s simulator.Screen) bool { return displayPicture(s) != last })
		if err != nil {
			return nil // ctx ended
		}
		if terminal && last != "" {
			fmt.Fprintf(w, "\x1b[%dA", strings.Count(last, "\n"))
		}
		last = displayPicture(s)
		if _, err := io.WriteString(w, last); err != nil {
			return err
		}
	}
}

// displayPicture draws a display as text, and says how bright it is.
func displayPicture(s simulator.Screen) string {
	return displayBox(s) + fmt.Sprintf("light %3d\n", s.Backlight)
}

// displayBox draws what is on a display, and the lamps beside it.
func displayBox(s simulator.Screen) string {
	var b strings.Builder
	edge := strings.Repeat("─", lcd.Columns)
	b.WriteString("┌" + edge + "┐\n")
	for row, line := range s.Lines() {
		fmt.Fprintf(&b, "│%s%s│", line, strings.Repeat(" ", lcd.Columns-len([]rune(line))))
		if s.Model == lcd.Model635 {
			fmt.Fprintf(&b, " %-5s", lampColour(s.Lamps[row]))
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "└%s┘\n", edge)
	return b.String()
}

func lampColour(l lcd.Lamp) string {
	switch {
	case l.Red > 0 && l.Green > 0:
		return "amber"
	case l.Red > 0:
		return "red"
	case l.Green > 0:
		return "green"
	}
	return "off"
}
