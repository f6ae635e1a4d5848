package panel

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// ConsoleOptions say how to draw on a console.
type ConsoleOptions struct {
	// Terminal makes the console redraw the progress in place. Without it, each report is a line of its own. There
	// are few of those: a serial console is slow, and often recorded.
	//
	// A question clears a terminal. Without Terminal, a question is a numbered list that is written once, and each
	// move of the selection is a line. Nobody knows what is at the other end of a serial line: it may not understand
	// control sequences.
	Terminal bool
	// Keys are the keys typed on the console. nil means that nobody can type.
	Keys <-chan Key
	// Size returns how many columns and lines the console has, 0 if that is unknown. It may be nil.
	Size func() (columns, lines int)
	// Now is the clock. The default is time.Now.
	Now func() time.Time
}

// Console returns a Panel that writes lines of text to w. Closing the panel closes w if w is an io.Closer.
func Console(w io.Writer, o ConsoleOptions) Panel {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &consolePanel{w: w, o: o}
}

type consolePanel struct {
	w io.Writer
	o ConsoleOptions

	last    View
	at      time.Time // of the last progress line
	percent int       // of the last progress line
	open    bool      // the line has not ended
}

func (c *consolePanel) Keys() <-chan Key { return c.o.Keys }

func (c *consolePanel) Types() bool { return true }

func (c *consolePanel) Show(v View) error {
	var b strings.Builder
	if c.last.Ask != nil && v.Ask == nil {
		if c.end(&b); c.o.Terminal { // restore what the question covered
			b.WriteString(clear)
			c.last = View{}
		}
	}
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
	if v.Progress != nil && v.Ask == nil && c.isDue(*v.Progress) {
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
	if v.Ask != nil {
		c.writeQuestion(&b, v.Ask)
	}
	c.last = v
	if b.Len() == 0 {
		return nil
	}
	_, err := io.WriteString(c.w, b.String())
	return err
}

// clear empties a terminal and moves the cursor to its first line.
const clear = "\x1b[2J\x1b[H"

// writeQuestion writes a question, or what has changed in it.
func (c *consolePanel) writeQuestion(b *strings.Builder, a *Asked) {
	was := c.last.Ask
	if was == nil || was.ID != a.ID || was.Repeat != a.Repeat {
		was = nil
	}
	switch {
	case len(a.Options) == 0:
		c.writePrompt(b, was, a)
	case a.Pictures != nil:
		if was == nil || was.Selected != a.Selected {
			c.writePicture(b, a)
		}
	case was == nil || c.o.Terminal && was.Selected != a.Selected:
		c.writeOptions(b, a)
	case was.Selected != a.Selected:
		option(b, a, a.Selected)
	}
}

// writeOptions writes a question with options.
func (c *consolePanel) writeOptions(b *strings.Builder, a *Asked) {
	c.end(b)
	if c.o.Terminal {
		b.WriteString(clear)
	}
	fmt.Fprintf(b, "\n%s\n", clean(a.Title))
	if a.Text != "" {
		fmt.Fprintf(b, "%s\n", clean(a.Text))
	}
	for i := range a.Options {
		option(b, a, i)
	}
	if c.o.Keys != nil {
		fmt.Fprintf(b, "press a number, or the arrow keys and Enter; q goes back\n")
	}
}

// writePicture writes the selected picture with one line below it, which does not end: the picture may fill a screen.
func (c *consolePanel) writePicture(b *strings.Builder, a *Asked) {
	c.end(b)
	if c.o.Terminal {
		b.WriteString(clear)
	}
	for _, l := range a.Pictures[a.Selected] {
		fmt.Fprintf(b, "%s\n", clean(l))
	}
	fmt.Fprintf(b, "%s: arrow keys or %.1s for the others, q goes back", clean(a.Options[a.Selected]), clean(a.Options[a.Selected]))
	c.open = true
}

func option(b *strings.Builder, a *Asked, i int) {
	mark := ' '
	if i == a.Selected {
		mark = '>'
	}
	fmt.Fprintf(b, "%c %2d  %s\n", mark, i+1, clean(a.Options[i]))
}

// writePrompt writes a prompt, and then the typed text. To go back a character it needs no more of a terminal than a
// backspace.
func (c *consolePanel) writePrompt(b *strings.Builder, was, a *Asked) {
	typed := ""
	if was == nil {
		c.end(b)
		fmt.Fprintf(b, "\n%s: ", clean(a.Title))
		c.open = true
	} else {
		typed = was.Typed
	}
	for !strings.HasPrefix(a.Typed, typed) {
		_, n := utf8.DecodeLastRuneInString(typed)
		typed = typed[:len(typed)-n]
		b.WriteString("\b \b")
	}
	b.WriteString(clean(a.Typed[len(typed):]))
}

// isDue reports whether to write a line of progress. A terminal is redrawn five times a second. Elsewhere a line is due
// one second after the last if another 5 % are done, after ten seconds in any case, and at the end.
func (c *consolePanel) isDue(p Progress) bool {
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

func (c *consolePanel) end(b *strings.Builder) {
	if c.open {
		b.WriteByte('\n')
		c.open = false
	}
}

func (c *consolePanel) Close() error {
	var b strings.Builder
	if c.end(&b); b.Len() > 0 {
		io.WriteString(c.w, b.String())
	}
	if w, ok := c.w.(io.Closer); ok {
		return w.Close()
	}
	return nil
}

// clean keeps text from moving the cursor. It turns everything below a blank, and the second control range, into
// question marks.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
