package panel

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Key is what a person pressed: one of the keys below or, from a blank on, one byte of typed text (UTF-8).
type Key uint8

// The keys. A panel that cannot tell what was pressed says KeyOther.
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

// Input is a Panel with keys. Keys returns the same channel each time; a key that is pressed while nobody takes it may be
// dropped. The panel closes the channel when no more keys can come. A nil channel means that it has no keys after all.
type Input interface {
	Panel
	Keys() <-chan Key
}

// Typist is an Input that can tell letters, and so may be asked for a line of text.
type Typist interface {
	Input
	Types() bool
}

// Press is a key and the name of the panel on which it was pressed.
type Press struct {
	Key   Key
	Panel string
}

// Question is what a person is to choose.
type Question struct {
	// Title is a word or two, at most 20 characters; Text is a sentence, and may be "".
	Title, Text string
	// Options are what there is to choose from, at least one. The shortest display has 20 characters for each.
	Options []string
	// Default is the index of the option that is selected at first.
	Default int
	// Timeout is how long the question waits in all; 0 means AskTimeout.
	Timeout time.Duration
}

// Asked is a question on the panels, and where the person is in it. Without Options it asks for a line of text.
type Asked struct {
	Question
	// ID counts the questions of a Board, so that a panel can tell a new one from the one that it shows.
	ID int
	// Selected is the index of the selected option.
	Selected int
	// Typed is what was typed so far; always "" where it is secret.
	Typed string
	// Repeat counts how often the person wanted to see the whole question once more.
	Repeat int
}

// How long a question waits that does not say it, and a confirmation.
const (
	AskTimeout     = 5 * time.Minute
	ConfirmTimeout = time.Minute
)

// What a question may end with, beside the error of its context.
var (
	ErrTimeout   = errors.New("nobody answered in time")
	ErrCancelled = errors.New("cancelled by the person at the machine")
	ErrNoInput   = errors.New("no panel has keys")
)

// maxTyped is the most bytes of a typed line.
const maxTyped = 4096

// press is a key on its way to a question.
type press struct {
	Press
	types bool
}

// Ask shows a question on all panels and returns the index of the option that was chosen on any of them. One question is
// asked at a time; another one waits for its turn. Keys that were pressed before do not count. The selection moves with the
// arrow keys or an option's first letter; Enter chooses, a digit chooses at once, Cancel or "q" gives up. Any other key
// shows the question again. The errors are ErrTimeout, ErrCancelled, ErrNoInput and that of ctx.
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

// choose moves the selection, and reports whether it is final.
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
		if i, ok := a.initial(k); ok {
			a.Selected = i
		} else {
			a.Repeat++
		}
	}
	return false, nil
}

// initial finds the next option, after the selected one, that begins with a letter.
func (a *Asked) initial(k Key) (int, bool) {
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

// Confirm asks whether something shall really be done. No is the default, and no answer within ConfirmTimeout is no. The
// errors are ErrNoInput and that of ctx.
func (b *Board) Confirm(ctx context.Context, title, text string) (bool, error) {
	i, err := b.Ask(ctx, Question{Title: title, Text: text, Options: []string{"No", "Yes"}, Timeout: ConfirmTimeout})
	if errors.Is(err, ErrTimeout) || errors.Is(err, ErrCancelled) {
		return false, nil
	}
	return i == 1 && err == nil, err
}

// Line asks for a typed line, which may be empty, and returns it with the name of the panel on which it was ended. Each panel
// that can type has a line of its own. A secret one is not shown. The errors are those of Ask.
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

// question shows q on all panels until on says that it is done, or gives an error.
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
	// Whoever reads the keys never waits for the question, and what finds no room is lost: a line that is pasted must fit.
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
	defer b.ask(nil)
	timeout := time.NewTimer(q.Timeout)
	defer timeout.Stop()
	for {
		shown := a
		b.ask(&shown)
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

// ask replaces the question on the panels; nil takes it away.
func (b *Board) ask(a *Asked) {
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

// Pressed returns the channel of keys that were pressed while no question was asked. It holds the first one until somebody takes
// it; those after it are dropped.
func (b *Board) Pressed() <-chan Press { return b.pressed }

// Pause waits, unless a person presses a key.
func (b *Board) Pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-b.pressed:
	case <-ctx.Done():
	}
}

// Forget drops a key that waits in Pressed.
func (b *Board) Forget() {
	select {
	case <-b.pressed:
	default:
	}
}

// listen takes the keys of one panel until it is closed.
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

// press gives a key to the question, or to whoever waits for Pressed. It never waits.
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
