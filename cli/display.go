package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/term"

	"gprovision/cli/shown"
	"gprovision/hw/console"
	"gprovision/hw/lcd/simulator"
)

// displaySocket is the name of the socket of a virtual unit's display in the unit's directory.
const displaySocket = "display"

// listenDisplay makes the socket at which terminals attach to a display, for this user alone. A socket that was left there is replaced.
func listenDisplay(path string) (net.Listener, error) {
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() == os.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove old socket of display: %w", err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		err = fmt.Errorf("make socket of display: %w", err)
		if len(path) > 107 { // unix(7)
			err = &HintError{err, "the path of a socket has at most 107 bytes: use a shorter --dir"}
		}
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("make socket of display: %w", err), l.Close())
	}
	return l, nil
}

// serveDisplay draws a display for each connection on l, as for a terminal, and takes its keys, until l is closed. The key q ends a
// connection; the end of ctx ends all.
func serveDisplay(ctx context.Context, l net.Listener, sim *simulator.LCD) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(ctx, func() { _ = c.Close() })()
			go func() {
				keys := console.Keys(c)
				pressKeys(sim, keys)
				cancel()
				for range keys { // what was typed behind the q
				}
			}()
			_ = drawDisplay(ctx, c, sim, true) // who went away needs no picture
			_ = c.Close()
		}()
	}
}

// A display is written in rows, one after the other: followDisplay shows it when it has stayed as it is for settled, or keeps on moving for
// longer than restless.
const (
	settled  = 500 * time.Millisecond
	restless = 2 * time.Second
)

// followDisplay shows a display each time that other words are on it, until ctx ends. What moves without words, such as a spinner, a
// count or a bar, is no news.
func followDisplay(ctx context.Context, sim *simulator.LCD, show func(simulator.Screen)) {
	last := ""
	for {
		s, err := sim.Wait(ctx, func(s simulator.Screen) bool { return displayWords(s) != last })
		if err != nil {
			return
		}
		for end := time.Now().Add(restless); err == nil && time.Now().Before(end); {
			before := s.String()
			still, cancel := context.WithTimeout(ctx, settled)
			s, err = sim.Wait(still, func(s simulator.Screen) bool { return s.String() != before })
			cancel()
		}
		if words := displayWords(s); words != last && ctx.Err() == nil {
			last = words
			show(s)
		}
	}
}

// displayWords are the words on a display.
func displayWords(s simulator.Screen) string {
	return strings.Join(strings.FieldsFunc(s.String(), func(r rune) bool { return !unicode.IsLetter(r) }), " ")
}

// LCDAttachCmd is "gprov lcd attach".
type LCDAttachCmd struct {
	Socket string `arg:"" optional:"" default:"vm/display" type:"path" help:"The socket of the display, which is DIR/display for 'gprov vm --dir DIR'."`
}

// Help returns the examples of the verb.
func (*LCDAttachCmd) Help() string {
	return `The display is one of 'gprov vm --display'. The arrow keys, Enter and Escape are its keys (on a 631: up and down are the left ones, Enter and
Escape the right ones), q detaches; the unit goes on.

Examples:

  sudo gprov vm --dir /tmp/unit --data /srv/factory --display 635   # in one terminal
  sudo gprov lcd attach /tmp/unit/display                           # in another`
}

// Run shows the display, until q, or until the unit is gone.
func (a *LCDAttachCmd) Run(c *Context) (err error) {
	var d net.Dialer
	conn, err := d.DialContext(c, "unix", a.Socket)
	if err != nil {
		return &HintError{fmt.Errorf("attach to display: %w", err), "start a unit with a display, gprov vm --display 635, and attach as the same user"}
	}
	defer conn.Close()
	defer context.AfterFunc(c, func() { _ = conn.Close() })()
	if in := (&console.TTY{File: os.Stdin}); c.Terminal && term.IsTerminal(int(os.Stdin.Fd())) {
		if err := in.Raw(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, in.Restore()) }()
		go func() { _, _ = io.Copy(conn, in) }() // ends with the connection, or with this program
	}
	if _, err := io.Copy(shown.Raw(c.Stdout), conn); err != nil && c.Err() == nil {
		return fmt.Errorf("draw display: %w", err)
	}
	return nil
}
