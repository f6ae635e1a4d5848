package panel

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

// ConsoleOptions say how a console is drawn.
type ConsoleOptions struct {
	// Terminal redraws the progress in its line. Without it each report is a line of its own, and there are few: a serial
	// console is slow, and it is often recorded.
	Terminal bool
	// Now is the clock, default time.Now.
	Now func() time.Time
}

// Console returns a Panel that writes lines of text to w. If w is an io.Closer it is closed with the panel.
func Console(w io.Writer, o ConsoleOptions) Panel {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &console{w: w, o: o}
}

type console struct {
	w io.Writer
	o ConsoleOptions

	last    View
	at      time.Time // of the last progress line
	percent int       // of the last progress line
	open    bool      // the terminal's line is not ended
}

func (c *console) Show(v View) error {
	var b strings.Builder
	head := clean(v.Job)
	if v.Total > 0 {
		head += fmt.Sprintf(" [%d/%d]", v.Index, v.Total)
	}
	if v.Step != "" {
		head += " " + clean(v.Step)
	}
	head = strings.TrimSpace(head)
	fresh := v.Job != c.last.Job || v.Step != c.last.Step || v.Index != c.last.Index
	if fresh {
		c.at, c.percent = time.Time{}, 0
	}
	if fresh && head != "" && v.Progress == nil {
		c.end(&b)
		fmt.Fprintf(&b, "%s\n", head)
	}
	if v.Progress != nil && c.due(*v.Progress) {
		line := head + "  " + v.Progress.String()
		if c.o.Terminal {
			b.WriteString("\r" + line + "\x1b[K")
			c.open = true
		} else {
			b.WriteString(line + "\n")
		}
		c.at, c.percent = c.o.Now(), v.Progress.Percent()
	}
	if v.Message != "" && v.Message != c.last.Message {
		c.end(&b)
		fmt.Fprintf(&b, "%s\n", clean(v.Message))
	}
	if p := v.Problem; p != nil && (c.last.Problem == nil || *p != *c.last.Problem) {
		c.end(&b)
		fmt.Fprintf(&b, "\n*** %s  %s\n", p.Code, clean(p.Text))
		if head != "" {
			fmt.Fprintf(&b, "    in:     %s\n", head)
		}
		if p.Detail != "" {
			fmt.Fprintf(&b, "    cause:  %s\n", clean(p.Detail))
		}
		fmt.Fprintf(&b, "    to do:  %s\n\n", clean(p.Hint))
	}
	c.last = v
	if b.Len() == 0 {
		return nil
	}
	_, err := io.WriteString(c.w, b.String())
	return err
}

// due says whether a progress is worth a line. A terminal is redrawn five times a second; elsewhere there is a line after a
// second if 5 % were done since the last one, after ten seconds in any case, and at the end.
func (c *console) due(p Progress) bool {
	since, n := c.o.Now().Sub(c.at), p.Percent()
	switch {
	case n == 100:
		return c.percent != 100
	case c.at.IsZero():
		return true
	case c.o.Terminal:
		return since >= 200*time.Millisecond
	}
	return since >= time.Second && n >= c.percent+5 || since >= 10*time.Second
}

func (c *console) end(b *strings.Builder) {
	if c.open {
		b.WriteByte('\n')
		c.open = false
	}
}

func (c *console) Close() error {
	var b strings.Builder
	if c.end(&b); b.Len() > 0 {
		io.WriteString(c.w, b.String())
	}
	if w, ok := c.w.(io.Closer); ok {
		return w.Close()
	}
	return nil
}

// clean keeps text from moving the cursor: everything below a blank, and the second control range, becomes a question mark.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// Active returns the devices of all consoles that the kernel writes to, in its order, from class/tty/console/active in sysfs:
// "/dev/tty0" is the screen, the last one is what /dev/console is. When that file is missing or empty it is /dev/console
// alone. Consoles that show nothing are left out.
func Active(sys fs.FS) []string {
	b, _ := fs.ReadFile(sys, "class/tty/console/active")
	var out []string
	for _, name := range strings.Fields(string(b)) {
		if name == "ttynull" || strings.ContainsAny(name, "/.") {
			continue
		}
		out = append(out, "/dev/"+name)
	}
	if len(out) == 0 {
		return []string{"/dev/console"}
	}
	return out
}

// IsScreen says whether a device that Active returned is a screen, which can be redrawn, and not a serial line.
func IsScreen(device string) bool {
	n, ok := strings.CutPrefix(device, "/dev/tty")
	return ok && n != "" && strings.Trim(n, "0123456789") == ""
}

// OpenConsole opens a console for writing. It does not become the controlling terminal, and a serial line is not waited for.
// The caller closes it.
func OpenConsole(device string) (*os.File, error) {
	f, err := os.OpenFile(device, os.O_WRONLY|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open console: %w", err)
	}
	return f, nil
}
