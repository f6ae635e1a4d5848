package panel

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// buttons is a panel whose keys are no letters, as on a display.
type buttons struct {
	Script
}

func (b *buttons) Types() bool { return false }

// showOnly has no keys.
type showOnly struct{ s Script }

func (p *showOnly) Show(v View) error { return p.s.Show(v) }

func board(t *testing.T, panels ...Panel) *Board {
	b := New()
	for i, p := range panels {
		b.Add(string(rune('a'+i)), p)
	}
	t.Cleanup(func() { b.Close(context.Background()) })
	return b
}

func last(s *Script) View {
	v := s.Views()
	if len(v) == 0 {
		return View{}
	}
	return v[len(v)-1]
}

// inBubble runs f with a virtual clock, and closes the board so that no goroutine is left.
func inBubble(t *testing.T, f func(t *testing.T, b *Board, one, two *Script)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		one, two := &Script{}, &Script{}
		b := board(t, one, two)
		f(t, b, one, two)
	})
}

func TestAsk(t *testing.T) {
	menu := Question{Title: "Menu", Options: []string{"Resume", "Power off", "Restore latest", "Restore original"}}
	for _, tc := range []struct {
		name string
		keys []Key
		want int
		err  error
	}{
		{"the default", []Key{KeyEnter}, 0, nil},
		{"down", []Key{KeyDown, KeyDown, KeyEnter}, 2, nil},
		{"right and left", []Key{KeyRight, KeyRight, KeyLeft, KeyEnter}, 1, nil},
		{"round the top", []Key{KeyUp, KeyEnter}, 3, nil},
		{"round the bottom", []Key{KeyDown, KeyDown, KeyDown, KeyDown, KeyEnter}, 0, nil},
		{"a digit", []Key{'3'}, 2, nil},
		{"a digit that is no option", []Key{'9', '0', KeyEnter}, 0, nil},
		{"a letter", []Key{'p', KeyEnter}, 1, nil},
		{"a letter again and again", []Key{'R', 'r', KeyEnter}, 3, nil},
		{"cancel", []Key{KeyCancel}, 0, ErrCancelled},
		{"q", []Key{KeyDown, 'q'}, 1, ErrCancelled},
		{"nonsense", []Key{KeyOther, 0xc3, 'x', ' ', KeyEnter}, 0, nil},
		{"nothing", nil, 0, ErrTimeout},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *Board, one, two *Script) {
				one.Press('4') // before the question: it must not count
				synctest.Wait()
				began := time.Now()
				one.Answer = func(Asked) []Key {
					time.Sleep(time.Millisecond) // of the bubble: the other panel has shown it by then
					return tc.keys
				}
				got, err := b.Ask(t.Context(), menu)
				if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) || err == nil && got != tc.want {
					t.Errorf("got %d, %v; want %d, %v", got, err, tc.want, tc.err)
				}
				if tc.err == ErrTimeout && time.Since(began) != AskTimeout {
					t.Errorf("it waited %s", time.Since(began))
				}
				synctest.Wait()
				seen := false
				for _, v := range two.Views() {
					seen = seen || v.Ask != nil && v.Ask.Title == "Menu" && len(v.Ask.Options) == 4
				}
				if !seen || last(two).Ask != nil {
					t.Errorf("the other panel shows the question: %t, and after its end %+v", seen, last(two))
				}
			})
		})
	}
}

func TestAskStays(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Board, one, two *Script) {
		b.Show(View{Job: "restore", Step: "Writing release"})
		one.Answer = func(a Asked) []Key {
			b.Progress(Progress{Done: 1, Total: 2})
			b.Message("hello")
			b.Show(View{Job: "repair"})
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := b.Ask(ctx, Question{Title: "Sure", Options: []string{"a"}}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		for _, v := range two.Views() {
			if v.Job == "repair" && v.Ask == nil && v.Message != "" {
				t.Errorf("the question went with %+v", v)
			}
		}
		if v := last(two); v.Job != "repair" || v.Ask != nil {
			t.Errorf("at the end: %+v", v)
		}
	})
}

// TestQuestionsTakeTurns asks twice at once: both are answered, one after the other.
func TestQuestionsTakeTurns(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Board, one, two *Script) {
		two.Answer = func(a Asked) []Key { return []Key{Key('0' + len(a.Title))} }
		got := make(chan int, 2)
		for _, title := range []string{"x", "xx"} {
			go func() {
				i, err := b.Ask(t.Context(), Question{Title: title, Options: []string{"a", "b"}})
				if err != nil || i != len(title)-1 {
					t.Errorf("%s: got %d, %v", title, i, err)
				}
				got <- i
			}()
		}
		if sum := <-got + <-got; sum != 1 {
			t.Errorf("the answers' sum is %d", sum)
		}
	})
}

func TestNoInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := board(t, &showOnly{})
		if _, err := b.Ask(t.Context(), Question{Options: []string{"a"}}); !errors.Is(err, ErrNoInput) {
			t.Errorf("ask: %v", err)
		}
		if yes, err := b.Confirm(t.Context(), "x", ""); yes || !errors.Is(err, ErrNoInput) {
			t.Errorf("confirm: %t, %v", yes, err)
		}
		if b.HasKeys() {
			t.Error("a panel without keys has keys")
		}
		b.Add("buttons", &buttons{})
		if _, _, err := b.Line(t.Context(), "Password", true); !errors.Is(err, ErrNoInput) {
			t.Errorf("a line from a panel without letters: %v", err)
		}
		if !b.HasKeys() {
			t.Error("buttons are keys")
		}
		if _, err := b.Ask(t.Context(), Question{}); err == nil {
			t.Error("a question without options was asked")
		}
	})
}

func TestConfirm(t *testing.T) {
	for name, tc := range map[string]struct {
		keys []Key
		want bool
	}{
		"enter is no":  {[]Key{KeyEnter}, false},
		"yes":          {[]Key{KeyRight, KeyEnter}, true},
		"2":            {[]Key{'2'}, true},
		"y alone":      {[]Key{'y'}, false},
		"y and enter":  {[]Key{'y', KeyEnter}, true},
		"cancel is no": {[]Key{KeyDown, KeyCancel}, false},
		"nothing":      {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *Board, one, two *Script) {
				one.Answer = func(Asked) []Key { return tc.keys }
				began := time.Now()
				if yes, err := b.Confirm(t.Context(), "Restore", "All data is lost"); yes != tc.want || err != nil {
					t.Errorf("got %t, %v", yes, err)
				}
				if time.Since(began) > ConfirmTimeout {
					t.Errorf("it waited %s", time.Since(began))
				}
			})
		})
	}
}

func TestPressed(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Board, one, two *Script) {
		two.Press(KeyUp, 'x', KeyEnter)
		synctest.Wait()
		if p := <-b.Pressed(); p != (Press{KeyUp, "b"}) {
			t.Errorf("got %+v", p)
		}
		two.Press(KeyDown)
		synctest.Wait()
		b.Forget()
		b.Forget()
		select {
		case p := <-b.Pressed():
			t.Errorf("got %+v after all was forgotten", p)
		default:
		}
	})
}

func TestLine(t *testing.T) {
	for _, secret := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			one, two, lcd := &Script{}, &Script{}, &buttons{}
			b := board(t, one, two, lcd)
			shown := ""
			press := func(s *Script, keys ...Key) {
				for _, k := range keys {
					synctest.Wait()
					if a := last(&lcd.Script).Ask; a != nil {
						shown += a.Typed + "|"
					}
					s.Press(k)
				}
			}
			ended := make(chan error)
			go func() {
				text, panel, err := b.Line(t.Context(), "Password", secret)
				if text != "hunterq2" || panel != "b" {
					t.Errorf("got %q from %s", text, panel)
				}
				ended <- err
			}()
			press(one, []Key("hid")...)
			press(&lcd.Script, KeyEnter, KeyUp) // ends no line: nothing can be typed there
			press(two, []Key("hunté2")...)
			press(two, KeyBackspace, KeyBackspace, KeyUp, 'e', 'r', 'q', '2', KeyEnter)
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if secret && strings.Trim(shown, "|") != "" || !secret && shown != "|h|hi|hid|hid|hid|h|hu|hun|hunt|hunt|hunté|hunté2|hunté|hunt|hunt|hunte|hunter|hunterq|hunterq2|" {
				t.Errorf("secret %t, shown %q", secret, shown)
			}
			go func() {
				_, _, err := b.Line(t.Context(), "Again", secret)
				ended <- err
			}()
			press(two, 'a', KeyCancel)
			if err := <-ended; !errors.Is(err, ErrCancelled) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestSlowPanelDoesNotHoldUpAQuestion answers on one panel while another one is stuck.
func TestSlowPanelDoesNotHoldUpAQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck, quick := &slow{gate: make(chan struct{})}, &Script{Answer: func(Asked) []Key { return []Key{'2'} }}
		b := board(t, stuck, quick)
		if i, err := b.Ask(t.Context(), Question{Title: "x", Options: []string{"a", "b"}}); i != 1 || err != nil {
			t.Errorf("got %d, %v", i, err)
		}
		close(stuck.gate)
	})
}

// TestInputThatEnds closes the keys of the only panel that has any.
func TestInputThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Script{}
		b := board(t, s)
		s.Keys()
		close(s.keys)
		synctest.Wait()
		if b.HasKeys() {
			t.Error("closed keys still count")
		}
	})
}
