package panel

import (
	"context"
	"fmt"
	"strings"
	"time"

	"gprovision/hw/lcd"
)

// lcdPatience limits how long Show waits for a slow display.
const lcdPatience = 2 * time.Second

// LCD returns a Panel that draws on a display with keys. The display may come and go. The panel owns it: closing the
// panel closes it.
func LCD(d *lcd.Display) Input {
	p := &lcdPanel{d: d, keys: make(chan Key, 16)}
	go p.listen()
	return p
}

type lcdPanel struct {
	d    *lcd.Display
	keys chan Key

	scene scene
	began time.Time
}

// scene identifies what a View shows. While it stays the same, text keeps scrolling and the spinner keeps turning.
type scene struct {
	job, step, message string
	index              int
	problem            Problem
	ask, selected      int
}

func sceneOf(v View) scene {
	s := scene{job: v.Job, step: v.Step, message: v.Message, index: v.Index}
	if v.Problem != nil {
		s.problem = *v.Problem
	}
	if v.Ask != nil {
		s.ask, s.selected = v.Ask.ID, v.Ask.Selected
	}
	return s
}

// Show draws v. A missing display is no error.
func (p *lcdPanel) Show(v View) error {
	if s := sceneOf(v); s != p.scene || p.began.IsZero() {
		p.scene, p.began = s, time.Now()
	}
	before := time.Since(p.began)
	p.d.Show(func(m lcd.Model, elapsed time.Duration) lcd.Frame { return frame(v, m, before+elapsed) })
	ctx, cancel := context.WithTimeout(context.Background(), lcdPatience)
	defer cancel()
	return p.d.Flush(ctx)
}

func (p *lcdPanel) Keys() <-chan Key { return p.keys }

func (p *lcdPanel) Close() error { return p.d.Close() }

// listen translates the display's keys into those of a panel. A key counts when it is released, so that the key that
// ends one screen does not act on the next.
func (p *lcdPanel) listen() {
	defer close(p.keys)
	roles := map[lcd.Role]Key{lcd.Previous: KeyUp, lcd.Next: KeyDown, lcd.Choose: KeyEnter, lcd.Cancel: KeyCancel}
	for e := range p.d.Keys() {
		if !e.Release {
			continue
		}
		select {
		case p.keys <- roles[e.Key.Role()]:
		default: // nobody takes them: drop it
		}
	}
}

// frame draws v on a display of 2 or 4 rows.
func frame(v View, m lcd.Model, elapsed time.Duration) lcd.Frame {
	switch {
	case v.Ask != nil:
		return askFrame(v.Ask, m, elapsed)
	case v.Problem != nil:
		return lcd.Alarm(problemPicture(*v.Problem))(m, elapsed)
	case v.Message != "":
		lines := lcd.Wrap(v.Message, lcd.Columns)
		if m.Rows() > 2 && v.Job != "" {
			return lcd.Frame{Lines: append([]string{v.Job}, lcd.Scroll(lines, m.Rows()-1, elapsed)...)}
		}
		return lcd.Frame{Lines: lcd.Scroll(lines, m.Rows(), elapsed)}
	}
	return stepFrame(v, m, elapsed)
}

func askFrame(a *Asked, m lcd.Model, elapsed time.Duration) lcd.Frame {
	if len(a.Options) == 0 { // somebody types on another panel
		return lcd.Frame{Lines: append(lcd.Wrap(a.Title, lcd.Columns), lcd.Wrap(a.Typed, lcd.Columns)...)}
	}
	text := a.Title
	if a.Text != "" {
		text += ":\n" + a.Text
	}
	return lcd.Menu{Text: text, Options: a.Options, Selected: a.Selected}.Picture(m, elapsed)
}

// problemPicture puts the code and the title in the first row, and what is wrong with the note in the second. If there are more
// rows, it adds what to do.
func problemPicture(p Problem) lcd.Picture {
	return func(m lcd.Model, elapsed time.Duration) lcd.Frame {
		f := lcd.Frame{Lines: []string{p.Code + " " + p.Title, lcd.Marquee(strings.TrimSpace(p.Short+"  "+p.Note), lcd.Columns, elapsed)}}
		if m.Rows() > 2 {
			f.Lines = append(f.Lines, lcd.Scroll(lcd.Wrap(p.Hint, lcd.Columns), m.Rows()-2, elapsed)...)
		}
		for i := range f.Lamps {
			f.Lamps[i].Red = 100
		}
		return f
	}
}

// stepFrame draws the running step, its place among the others, and its progress.
func stepFrame(v View, m lcd.Model, elapsed time.Duration) lcd.Frame {
	count, done, left, bar := "", "", string(lcd.Spinner(elapsed)), ""
	if v.Total > 0 {
		count = fmt.Sprintf("%d/%d", v.Index, v.Total)
	}
	if p := v.Progress; p != nil {
		if n := p.Percent(); n >= 0 {
			done, bar = fmt.Sprintf("%d %%", n), lcd.Bar(lcd.Columns, n)
		} else {
			done = size(float64(p.Done))
		}
		if s := p.leftText(); s != "" {
			left = s
		}
	}
	title := v.Step
	if title == "" {
		title = v.Job
	}
	if m.Rows() == 2 {
		if count != "" && done != "" {
			count += " "
		}
		return lcd.Frame{Lines: []string{title, lcd.Between(count+done, left, lcd.Columns)}}
	}
	return lcd.Frame{Lines: []string{lcd.Between(v.Job, count, lcd.Columns), v.Step, bar, lcd.Between(done, left, lcd.Columns)}}
}
