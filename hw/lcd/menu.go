package lcd

import (
	"strings"
	"time"
	"unicode/utf8"
)

// Frame is a picture on an LCD. The zero value is an empty screen.
type Frame struct {
	// Lines are the rows from the top, as Unicode text; see Encode. What is too long is cut, missing rows are blank.
	Lines []string
	// Legend says what the keys do.
	Legend Legend
	// Cursor is where the cursor is, if Style is not CursorHidden.
	Cursor struct{ Col, Row int }
	Style  CursorStyle
	// Backlight is 1 to 100. 0 leaves the brightness as the LCD had it before, if it had any.
	Backlight int
	// Lamps are those of a 635.
	Lamps [Lamps]Lamp
}

// Picture draws a Frame for a model. elapsed is the time since the picture was shown: pictures may move. It is called several times
// a second and must be a function of its arguments.
type Picture func(m Model, elapsed time.Duration) Frame

// Text is a picture of text that scrolls if it does not fit.
func Text(text string) Picture {
	return func(m Model, elapsed time.Duration) Frame {
		return Frame{Lines: Scroll(Wrap(text, Columns), m.Rows(), elapsed)}
	}
}

// Busy is a picture of a text with a Spinner behind it.
func Busy(text string) Picture {
	return func(m Model, elapsed time.Duration) Frame {
		lines := Wrap(text, Columns-2)
		lines = lines[:min(len(lines), m.Rows())]
		lines[len(lines)-1] += " " + string(Spinner(elapsed))
		return Frame{Lines: lines}
	}
}

// Alarm is p with a backlight that swells and fades, a second and a half each time.
func Alarm(p Picture) Picture {
	return func(m Model, elapsed time.Duration) Frame {
		f := p(m, elapsed)
		f.Backlight = max(1, Fade(m, int(elapsed/(75*time.Millisecond))))
		return f
	}
}

// Menu is a choice among options. Key moves it; Picture draws it. With a text above, and options so short that all fit into one
// line, it is drawn as a question, its options side by side; otherwise as a list.
type Menu struct {
	// Text is what is asked; it scrolls where it does not fit.
	Text    string
	Options []string
	// Selected is the option that is chosen next.
	Selected int
}

// Answers of Menu.Key besides the index of an option.
const (
	Undecided = -1
	Cancelled = -2
)

// Key moves the selection, or ends the choice: it returns the index of the option that was chosen, Cancelled, or Undecided.
// Pressed keys count for nothing, released ones do: so a key that ends one screen does not act on the next. A list ends at both
// ends; a question goes round.
func (q *Menu) Key(e KeyEvent) int {
	if !e.Release {
		return Undecided
	}
	n := len(q.Options)
	round := q.inRow()
	switch e.Key.Role() {
	case Cancel:
		return Cancelled
	case Choose:
		if q.Selected >= 0 && q.Selected < n {
			return q.Selected
		}
	case Next:
		if q.Selected < n-1 {
			q.Selected++
		} else if round {
			q.Selected = 0
		}
	case Previous:
		if q.Selected > 0 {
			q.Selected--
		} else if round {
			q.Selected = max(0, n-1)
		}
	}
	return Undecided
}

// inRow reports whether the options stand side by side. They must do so on both models, or keys would act differently.
func (q *Menu) inRow() bool {
	n := 0
	for _, o := range q.Options {
		n += utf8.RuneCountInString(o) + 2
	}
	return q.Text != "" && n <= LegendLeftRight.Width(Model631)
}

// Picture draws the menu as it is now.
func (q Menu) Picture(m Model, elapsed time.Duration) Frame {
	if q.inRow() {
		return q.row(m, elapsed)
	}
	return q.list(m, elapsed)
}

// above is the text over the options.
func (q Menu) above(rows, width int, elapsed time.Duration) []string {
	if rows == 1 {
		return []string{Marquee(strings.ReplaceAll(q.Text, "\n", " "), width, elapsed)}
	}
	lines := Scroll(Wrap(q.Text, width), rows, elapsed)
	return append(lines[:len(lines):len(lines)], make([]string, rows-len(lines))...)
}

func (q Menu) row(m Model, elapsed time.Duration) Frame {
	f := Frame{Legend: LegendLeftRight}
	if last := len(q.Options) - 1; q.Selected <= 0 && last > 0 {
		f.Legend = LegendRight
	} else if last == 0 {
		f.Legend = LegendChoose
	} else if q.Selected >= last {
		f.Legend = LegendLeft
	}
	f.Lines = q.above(m.Rows()-1, f.Legend.Width(m), elapsed)
	var b strings.Builder
	for i, o := range q.Options {
		if i == q.Selected {
			b.WriteString("►" + o + "◄")
		} else {
			b.WriteString(" " + o + " ")
		}
	}
	f.Lines = append(f.Lines, b.String())
	return f
}

func (q Menu) list(m Model, elapsed time.Duration) Frame {
	f := Frame{Legend: LegendUpDown}
	switch last := len(q.Options) - 1; {
	case last <= 0:
		f.Legend = LegendChoose
	case q.Selected <= 0:
		f.Legend = LegendDown
	case q.Selected >= last:
		f.Legend = LegendUp
	}
	width := f.Legend.Width(m)
	rows := m.Rows()
	if q.Text != "" {
		f.Lines = q.above(1, width, elapsed)
		rows--
	}
	first := min(max(0, q.Selected-rows/2), max(0, len(q.Options)-rows))
	for i := first; i < min(first+rows, len(q.Options)); i++ {
		mark := " "
		if i == q.Selected {
			mark = "►"
		}
		f.Lines = append(f.Lines, mark+Marquee(q.Options[i], width-1, elapsed))
	}
	return f
}
