package panel

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Key is what a person pressed. It is one of the keys below or, from a blank on, one byte of typed text (UTF-8).
type Key uint8

// The keys. A panel that cannot tell which key was pressed reports KeyOther.
const (
	KeyOther Key = iota
	KeyUp
	KeyDown
	KeyLeft
	KeyRight
	KeyEnter
	KeyCancel
	KeyBackspace
)

// Input is a Panel with keys. Keys always returns the same channel. If nobody receives a key, the panel may drop it.
// The panel closes the channel when no more keys can come. A nil channel means that the panel has no keys after all.
type Input interface {
	Panel
	Keys() <-chan Key
}

// Typist is an Input with letter keys, so that it can be asked for a line of text.
type Typist interface {
	Input
	Types() bool
}

// Press is a key and the name of the panel where it was pressed.
type Press struct {
	Key   Key
	Panel string
}

// Question is a choice for the person.
type Question struct {
	// Title is a word or two, at most 20 characters. Text is a sentence, or empty.
	Title, Text string
	// Pictures are what a console draws in place of text and options, as many as there are options: the one of the selected option. Each is
	// lines that fit into Board.Room. A display shows no picture. It may be nil.
	Pictures [][]string
	// Options are the answers to choose from, at least one. The smallest display has 20 characters for each.
	Options []string
	// Default is the index of the option selected at first.
	Default int
	// Timeout limits how long the question waits in total. 0 means AskTimeout.
	Timeout time.Duration
}

// Asked is a question on the panels and the state of its answer. Without Options it asks for a line of text.
type Asked struct {
	Question
	// ID numbers the questions of a Board, so that a panel can tell a new question from the one it shows.
	ID int
	// Selected is the index of the selected option.
	Selected int
	// Typed is the text typed so far. It is always empty for a secret.
	Typed string
	// Repeat counts how often the person asked to see the whole question again.
	Repeat int
}

// Default time limits of a question and of a confirmation.
const (
	AskTimeout     = 5 * time.Minute
	ConfirmTimeout = time.Minute
)

// How a question may end without an answer. The other way is the error of its context.
var (
	ErrTimeout   = errors.New("nobody answered in time")
	ErrCancelled = errors.New("cancelled by the person at the machine")
	ErrNoInput   = errors.New("no panel has keys")
)

// maxTyped is the size limit of a typed line, in bytes.
const maxTyped = 4096

// press is a key on its way to a question.
type press struct {
	Press
	types bool
}

// Ask shows a question on all panels and returns the index of the option chosen on any of them. It asks one question
// at a time: another waits for its turn. Keys pressed before do not count. The arrow keys or an option's first letter
// move the selection. Enter chooses it, a digit chooses an option at once, and Cancel or "q" gives up. Any other key
// shows the question again. The errors are ErrTimeout, ErrCancelled, ErrNoInput and the error of ctx.
func (b *Board) Ask(ctx context.Context, q Question) (int, error) {
	if len(q.Options) == 0 {
		return 0, errors.New("ask: there are no options")
	}
	var a Asked
	err := b.question(ctx, q, false, func(now *Asked, p press) (bool, error) {
		done, err := now.choose(p.Key)
		a = *now
		return done, err
	})
	return a.Selected, err
}

// choose moves the selection. It reports whether the choice is final.
func (a *Asked) choose(k Key) (done bool, err error) {
	n := len(a.Options)
	switch {
	case k == KeyUp || k == KeyLeft:
		a.Selected = (a.Selected + n - 1) % n
	case k == KeyDown || k == KeyRight:
		a.Selected = (a.Selected + 1) % n
	case k == KeyEnter:
		return true, nil
	case k == KeyCancel || k == 'q' || k == 'Q':
		return false, ErrCancelled
	case k >= '1' && k <= '9' && int(k-'1') < n:
		a.Selected = int(k - '1')
		return true, nil
	default:
		if i, ok := a.optionByLetter(k); ok {
			a.Selected = i
		} else {
			a.Repeat++
		}
	}
	return false, nil
}

// optionByLetter returns the next option after the selected one that starts with the letter k.
func (a *Asked) optionByLetter(k Key) (int, bool) {
	if k <= ' ' || k >= utf8.RuneSelf {
		return 0, false
	}
	for d := 1; d <= len(a.Options); d++ {
		i := (a.Selected + d) % len(a.Options)
		if o := a.Options[i]; o != "" && strings.EqualFold(o[:1], string(rune(k))) {
			return i, true
		}
	}
	return 0, false
}

// Confirm asks whether to really do something. The default is No, and no answer within ConfirmTimeout counts as No.
// The errors are ErrNoInput and the error of ctx.
func (b *Board) Confirm(ctx context.Context, title, text string) (bool, error) {
	i, err := b.Ask(ctx, Question{Title: title, Text: text, Options: []string{"No", "Yes"}, Timeout: ConfirmTimeout})
	if errors.Is(err, ErrTimeout) || errors.Is(err, ErrCancelled) {
		return false, nil
	}
	return i == 1 && err == nil, err
}

// Line asks for a line of text, which may be empty. It returns the line and the name of the panel where it was
// completed. Each panel with letter keys has a line of its own. A secret line is not shown. The errors are those of
// Ask.
func (b *Board) Line(ctx context.Context, prompt string, secret bool) (text string, panel string, err error) {
	lines := map[string][]byte{}
	err = b.question(ctx, Question{Title: prompt}, true, func(a *Asked, p press) (bool, error) {
		line := lines[p.Panel]
		switch {
		case p.Key == KeyCancel:
			return false, ErrCancelled
		case !p.types:
			return false, nil
		case p.Key == KeyEnter:
			text, panel = string(line), p.Panel
			return true, nil
		case p.Key == KeyBackspace:
			_, n := utf8.DecodeLastRune(line)
			line = line[:len(line)-n]
		case p.Key >= ' ' && len(line) < maxTyped:
			line = append(line, byte(p.Key))
		}
		lines[p.Panel] = line
		if !secret && utf8.Valid(line) {
			a.Typed = string(line)
		}
		return false, nil
	})
	return text, panel, err
}

// question shows q on all panels until on reports that it is done or returns an error.
func (b *Board) question(ctx context.Context, q Question, typed bool, on func(*Asked, press) (done bool, err error)) error {
	if q.Timeout <= 0 {
		q.Timeout = AskTimeout
	}
	if q.Default < 0 || q.Default >= len(q.Options) {
		q.Default = 0
	}
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-b.turn }()
	// Code that reads keys never waits for the question, and keys without room are lost. So a pasted line must fit.
	room := 64
	if typed {
		room += maxTyped
	}
	keys := make(chan press, room)
	b.mu.Lock()
	if b.closed || b.inputs == 0 || typed && b.typists == 0 {
		b.mu.Unlock()
		return fmt.Errorf("ask %q: %w", q.Title, ErrNoInput)
	}
	b.asked++
	a := Asked{Question: q, ID: b.asked, Selected: q.Default}
	b.keys = keys
	b.mu.Unlock()
	defer b.setQuestion(nil)
	timeout := time.NewTimer(q.Timeout)
	defer timeout.Stop()
	for {
		shown := a
		b.setQuestion(&shown)
		select {
		case p := <-keys:
			if done, err := on(&a, p); done || err != nil {
				return err
			}
		case <-timeout.C:
			return ErrTimeout
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// setQuestion replaces the question on the panels. nil removes it.
func (b *Board) setQuestion(a *Asked) {
	b.change(func(v *View) {
		v.Ask = a
		if a == nil {
			b.keys = nil
		}
	})
}

// HasKeys reports whether any panel has keys now.
func (b *Board) HasKeys() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.inputs > 0
}

// Room returns how many columns and lines a picture may have on the smallest console with keys. It is 0 if there is none. What is at the
// other end of a serial line is not known: it counts as 80 by 24, and only where no console has a size.
func (b *Board) Room() (columns, lines int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	unknown := false
	for _, f := range b.feeds {
		c, ok := f.panel.(*consolePanel)
		if !ok || c.o.Keys == nil {
			continue
		}
		w, h := 0, 0
		if c.o.Size != nil {
			w, h = c.o.Size()
		}
		switch {
		case w <= 0 || h <= 0:
			unknown = true
		case columns == 0:
			columns, lines = w, h
		default:
			columns, lines = min(columns, w), min(lines, h)
		}
	}
	if columns == 0 && unknown {
		columns, lines = 80, 24
	}
	return columns, max(0, lines-1) // one is for what is said below it
}

// Pressed returns the channel of keys pressed while there was no question. It holds the first such key until somebody
// takes it, and drops the later ones.
func (b *Board) Pressed() <-chan Press { return b.pressed }

// Pause waits for d. It ends early if a person presses a key or ctx ends.
func (b *Board) Pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-b.pressed:
	case <-ctx.Done():
	}
}

// Forget drops the key that waits in Pressed, if any.
func (b *Board) Forget() {
	select {
	case <-b.pressed:
	default:
	}
}

// listen takes the keys of one panel until the panel closes them.
func (b *Board) listen(f *feed, in Input) {
	t, ok := in.(Typist)
	types := ok && t.Types()
	count := func(n int) {
		b.inputs += n
		if types {
			b.typists += n
		}
	}
	count(1) // Add holds the lock
	go func() {
		defer func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			count(-1)
		}()
		for {
			select {
			case k, ok := <-in.Keys():
				if !ok {
					return
				}
				b.press(press{Press{k, f.name}, types})
			case <-f.done:
				return
			}
		}
	}()
}

// press passes a key to the question or, if there is none, to Pressed. It never waits.
func (b *Board) press(p press) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.keys != nil {
		select {
		case b.keys <- p:
		default:
		}
		return
	}
	select {
	case b.pressed <- p.Press:
	default:
	}
}
