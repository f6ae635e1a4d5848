package panel_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
)

// buttons is a panel without letter keys, such as a display.
type buttons struct {
	script.Panel
}

func (b *buttons) Types() bool { return false }

// showOnly is a panel without keys.
type showOnly struct{ s script.Panel }

func (p *showOnly) Show(v panel.View) error { return p.s.Show(v) }

func board(t *testing.T, panels ...panel.Panel) *panel.Board {
	b := panel.New()
	for i, p := range panels {
		b.Add(string(rune('a'+i)), p)
	}
	t.Cleanup(func() { b.Close(context.Background()) })
	return b
}

// inBubble runs f with a virtual clock, and closes the board so that no goroutine is left.
func inBubble(t *testing.T, f func(t *testing.T, b *panel.Board, one, two *script.Panel)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		one, two := &script.Panel{}, &script.Panel{}
		b := board(t, one, two)
		f(t, b, one, two)
	})
}

func TestAsk(t *testing.T) {
	menu := panel.Question{Title: "Menu", Options: []string{"Resume", "Power off", "Restore latest", "Restore original"}}
	for _, tc := range []struct {
		name string
		keys []panel.Key
		want int
		err  error
	}{
		{"the default", []panel.Key{panel.KeyEnter}, 0, nil},
		{"down", []panel.Key{panel.KeyDown, panel.KeyDown, panel.KeyEnter}, 2, nil},
		{"right and left", []panel.Key{panel.KeyRight, panel.KeyRight, panel.KeyLeft, panel.KeyEnter}, 1, nil},
		{"round the top", []panel.Key{panel.KeyUp, panel.KeyEnter}, 3, nil},
		{"round the bottom", []panel.Key{panel.KeyDown, panel.KeyDown, panel.KeyDown, panel.KeyDown, panel.KeyEnter}, 0, nil},
		{"a digit", []panel.Key{'3'}, 2, nil},
		{"a digit that is no option", []panel.Key{'9', '0', panel.KeyEnter}, 0, nil},
		{"a letter", []panel.Key{'p', panel.KeyEnter}, 1, nil},
		{"a letter again and again", []panel.Key{'R', 'r', panel.KeyEnter}, 3, nil},
		{"cancel", []panel.Key{panel.KeyCancel}, 0, panel.ErrCancelled},
		{"q", []panel.Key{panel.KeyDown, 'q'}, 1, panel.ErrCancelled},
		{"nonsense", []panel.Key{panel.KeyOther, 0xc3, 'x', ' ', panel.KeyEnter}, 0, nil},
		{"nothing", nil, 0, panel.ErrTimeout},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *panel.Board, one, two *script.Panel) {
				one.Press('4') // pressed before the question: it must not count
				synctest.Wait()
				began := time.Now()
				one.Answer = func(panel.Asked) []panel.Key {
					time.Sleep(time.Millisecond) // virtual time: by then the other panel shows it
					return tc.keys
				}
				got, err := b.Ask(t.Context(), menu)
				if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) || err == nil && got != tc.want {
					t.Errorf("got %d, %v; want %d, %v", got, err, tc.want, tc.err)
				}
				if tc.err == panel.ErrTimeout && time.Since(began) != panel.AskTimeout {
					t.Errorf("it waited %s", time.Since(began))
				}
				synctest.Wait()
				seen := false
				for _, v := range two.Views() {
					seen = seen || v.Ask != nil && v.Ask.Title == "Menu" && len(v.Ask.Options) == 4
				}
				if !seen || two.Last().Ask != nil {
					t.Errorf("the other panel shows the question: %t, and after its end %+v", seen, two.Last())
				}
			})
		})
	}
}

func TestAskStays(t *testing.T) {
	inBubble(t, func(t *testing.T, b *panel.Board, one, two *script.Panel) {
		b.Show(panel.View{Job: "restore", Step: "Writing release"})
		one.Answer = func(a panel.Asked) []panel.Key {
			b.Progress(panel.Progress{Done: 1, Total: 2})
			b.Message("hello")
			b.Show(panel.View{Job: "repair"})
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := b.Ask(ctx, panel.Question{Title: "Sure", Options: []string{"a"}}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		for _, v := range two.Views() {
			if v.Job == "repair" && v.Ask == nil && v.Message != "" {
				t.Errorf("the question went with %+v", v)
			}
		}
		if v := two.Last(); v.Job != "repair" || v.Ask != nil {
			t.Errorf("at the end: %+v", v)
		}
	})
}

// TestQuestionsTakeTurns asks twice at once. Both questions are answered, one after the other.
func TestQuestionsTakeTurns(t *testing.T) {
	inBubble(t, func(t *testing.T, b *panel.Board, one, two *script.Panel) {
		two.Answer = func(a panel.Asked) []panel.Key { return []panel.Key{panel.Key('0' + len(a.Title))} }
		got := make(chan int, 2)
		for _, title := range []string{"x", "xx"} {
			go func() {
				i, err := b.Ask(t.Context(), panel.Question{Title: title, Options: []string{"a", "b"}})
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
		if _, err := b.Ask(t.Context(), panel.Question{Options: []string{"a"}}); !errors.Is(err, panel.ErrNoInput) {
			t.Errorf("ask: %v", err)
		}
		if yes, err := b.Confirm(t.Context(), "x", ""); yes || !errors.Is(err, panel.ErrNoInput) {
			t.Errorf("confirm: %t, %v", yes, err)
		}
		if b.HasKeys() {
			t.Error("a panel without keys has keys")
		}
		b.Add("buttons", &buttons{})
		if _, _, err := b.Line(t.Context(), "Password", true); !errors.Is(err, panel.ErrNoInput) {
			t.Errorf("a line from a panel without letters: %v", err)
		}
		if !b.HasKeys() {
			t.Error("buttons are keys")
		}
		if _, err := b.Ask(t.Context(), panel.Question{}); err == nil {
			t.Error("a question without options was asked")
		}
	})
}

func TestConfirm(t *testing.T) {
	for name, tc := range map[string]struct {
		keys []panel.Key
		want bool
	}{
		"enter is no":  {[]panel.Key{panel.KeyEnter}, false},
		"yes":          {[]panel.Key{panel.KeyRight, panel.KeyEnter}, true},
		"2":            {[]panel.Key{'2'}, true},
		"y alone":      {[]panel.Key{'y'}, false},
		"y and enter":  {[]panel.Key{'y', panel.KeyEnter}, true},
		"cancel is no": {[]panel.Key{panel.KeyDown, panel.KeyCancel}, false},
		"nothing":      {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *panel.Board, one, two *script.Panel) {
				one.Answer = func(panel.Asked) []panel.Key { return tc.keys }
				began := time.Now()
				if yes, err := b.Confirm(t.Context(), "Restore", "All data is lost"); yes != tc.want || err != nil {
					t.Errorf("got %t, %v", yes, err)
				}
				if time.Since(began) > panel.ConfirmTimeout {
					t.Errorf("it waited %s", time.Since(began))
				}
			})
		})
	}
}

func TestPressed(t *testing.T) {
	inBubble(t, func(t *testing.T, b *panel.Board, one, two *script.Panel) {
		two.Press(panel.KeyUp, 'x', panel.KeyEnter)
		synctest.Wait()
		if p := <-b.Pressed(); p != (panel.Press{panel.KeyUp, "b"}) {
			t.Errorf("got %+v", p)
		}
		two.Press(panel.KeyDown)
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
			one, two, lcd := &script.Panel{}, &script.Panel{}, &buttons{}
			b := board(t, one, two, lcd)
			shown := ""
			press := func(s *script.Panel, keys ...panel.Key) {
				for _, k := range keys {
					synctest.Wait()
					if a := lcd.Panel.Last().Ask; a != nil {
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
			press(one, []panel.Key("hid")...)
			press(&lcd.Panel, panel.KeyEnter, panel.KeyUp) // ends no line: nobody can type there
			press(two, []panel.Key("hunté2")...)
			press(two, panel.KeyBackspace, panel.KeyBackspace, panel.KeyUp, 'e', 'r', 'q', '2', panel.KeyEnter)
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
			press(two, 'a', panel.KeyCancel)
			if err := <-ended; !errors.Is(err, panel.ErrCancelled) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestSlowPanelDoesNotHoldUpAQuestion answers on one panel while another hangs.
func TestSlowPanelDoesNotHoldUpAQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck, quick := &slow{gate: make(chan struct{})}, &script.Panel{Answer: func(panel.Asked) []panel.Key { return []panel.Key{'2'} }}
		b := board(t, stuck, quick)
		if i, err := b.Ask(t.Context(), panel.Question{Title: "x", Options: []string{"a", "b"}}); i != 1 || err != nil {
			t.Errorf("got %d, %v", i, err)
		}
		close(stuck.gate)
	})
}

// unplugged is a panel whose keys can end.
type unplugged struct{ keys chan panel.Key }

func (u unplugged) Show(panel.View) error  { return nil }
func (u unplugged) Keys() <-chan panel.Key { return u.keys }

// TestInputThatEnds closes the keys of the only panel with keys.
func TestInputThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := unplugged{make(chan panel.Key)}
		b := board(t, u)
		if !b.HasKeys() {
			t.Error("the keys do not count")
		}
		close(u.keys)
		synctest.Wait()
		if b.HasKeys() {
			t.Error("closed keys still count")
		}
	})
}

// TestPastedLine: a pasted line is read whole, however long the question takes for each key.
func TestPastedLine(t *testing.T) {
	text := strings.Repeat("G1ENB8XF ", 400)
	b := board(t, &script.Panel{Answer: func(panel.Asked) []panel.Key { return keysOf(text) }})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	got, _, err := b.Line(ctx, "answer", false)
	if err != nil || got != text {
		t.Errorf("%d of %d characters were read, %v", len(got), len(text), err)
	}
}

// keysOf returns the keys that type a text and end it.
func keysOf(text string) (keys []panel.Key) {
	for _, c := range []byte(text) {
		keys = append(keys, panel.Key(c))
	}
	return append(keys, panel.KeyEnter)
}
