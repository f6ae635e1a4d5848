package panel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gprovision/hw/lcd"
	"gprovision/hw/lcd/simulator"
	"gprovision/model/fault"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
)

// rig is a panel in the suite: what can be seen of it, and its keys.
type rig struct {
	panel panel.Panel
	shows func(text string) bool
	press func(panel.Key)
}

// paper is a console that keeps everything.
type paper struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (p *paper) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.Write(b)
}

// take reports whether text was written since the last time it was found.
func (p *paper) take(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, rest, ok := strings.Cut(p.b.String(), text)
	if ok {
		p.b.Reset()
		p.b.WriteString(rest)
	}
	return ok
}

func consoleRig(terminal bool) rig {
	keys, out := make(chan panel.Key, 16), &paper{}
	return rig{panel.Console(out, panel.ConsoleOptions{Terminal: terminal, Keys: keys}), out.take, func(k panel.Key) { keys <- k }}
}

// lcdOf makes a display on a simulated LCD.
func lcdOf(s *simulator.LCD) *lcd.Display {
	return lcd.NewDisplay(lcd.DisplayOptions{Dial: func(context.Context) (io.ReadWriteCloser, string, error) {
		ours, theirs := net.Pipe()
		go func() { _ = s.Serve(theirs) }()
		return ours, "simulator", nil
	}})
}

func lcdRig(m lcd.Model) rig {
	s := simulator.New(m)
	keys := map[panel.Key]lcd.Key{panel.KeyUp: lcd.KeyUp, panel.KeyDown: lcd.KeyDown, panel.KeyEnter: lcd.KeyEnter, panel.KeyCancel: lcd.KeyExit}
	if m == lcd.Model631 {
		keys = map[panel.Key]lcd.Key{panel.KeyUp: lcd.KeyUL, panel.KeyDown: lcd.KeyLL, panel.KeyEnter: lcd.KeyUR, panel.KeyCancel: lcd.KeyLR}
	}
	return rig{panel.LCD(lcdOf(s)), func(text string) bool { return s.Screen().Contains(text) }, func(k panel.Key) { s.Tap(keys[k]) }}
}

// scriptRig sees what is in the views.
func scriptRig() rig {
	s := &script.Panel{}
	return rig{s, func(text string) bool {
		v := s.Last()
		all := []string{v.Job, v.Step, fmt.Sprintf("%d/%d", v.Index, v.Total), v.Message}
		if v.Progress != nil {
			all = append(all, v.Progress.String())
		}
		if v.Problem != nil {
			all = append(all, v.Problem.Code)
		}
		if v.Ask != nil {
			all = append(append(all, v.Ask.Title, v.Ask.Text), v.Ask.Options...)
		}
		return strings.Contains(strings.Join(all, "\n"), text)
	}, func(k panel.Key) { s.Press(k) }}
}

// TestPanels checks what every panel for a person must do.
func TestPanels(t *testing.T) {
	for name, makeRig := range map[string]func() rig{
		"serial line": func() rig { return consoleRig(false) },
		"screen":      func() rig { return consoleRig(true) },
		"script":      scriptRig,
		"631":         func() rig { return lcdRig(lcd.Model631) },
		"635":         func() rig { return lcdRig(lcd.Model635) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := makeRig()
				b := board(t, r.panel)
				sees := func(texts ...string) {
					t.Helper()
					for _, text := range texts {
						for end := time.Now().Add(time.Minute); !r.shows(text); time.Sleep(100 * time.Millisecond) {
							if time.Now().After(end) {
								t.Errorf("%q is not seen within a minute", text)
								break
							}
						}
					}
				}
				ask := func(want int, fails error, keys ...panel.Key) {
					t.Helper()
					done := make(chan struct{})
					go func() {
						defer close(done)
						i, err := b.Ask(t.Context(), panel.Question{Title: "Menu", Options: []string{"Resume", "Power off", "Restore latest"}})
						if !errors.Is(err, fails) || (err == nil) != (fails == nil) || err == nil && i != want {
							t.Errorf("answered %d, %v", i, err)
						}
					}()
					sees("Menu", "Resume")
					for _, k := range keys {
						time.Sleep(time.Second)
						r.press(k)
					}
					<-done
				}

				b.Show(panel.View{Job: "restore", Step: "Writing release", Index: 7, Total: 14})
				sees("7/14", "Writing release")
				b.Progress(panel.Progress{Done: 45, Total: 100, Rate: 1, Left: 55 * time.Second})
				sees("45 %", "0:55")
				b.Message("Press a key for menu")
				sees("Press a key for menu")
				r.press(panel.KeyDown)
				if p := <-b.Pressed(); p.Key != panel.KeyDown {
					t.Errorf("pressed %+v", p)
				}
				ask(0, nil, panel.KeyEnter)
				ask(2, nil, panel.KeyDown, panel.KeyDown, panel.KeyEnter)
				ask(2, nil, panel.KeyUp, panel.KeyEnter)
				ask(0, panel.ErrCancelled, panel.KeyDown, panel.KeyCancel)
				go func() {
					time.Sleep(30 * time.Second)
					r.press(panel.KeyDown)
					time.Sleep(time.Second)
					r.press(panel.KeyEnter)
				}()
				done := make(chan struct{})
				go func() {
					defer close(done)
					if yes, err := b.Confirm(t.Context(), "Restore latest", "All data on the main disk will be lost."); !yes || err != nil {
						t.Errorf("confirmed %v, %v", yes, err)
					}
				}()
				sees("All data", "will be lost", "Yes")
				<-done
				b.Fail(fault.Newf(fault.NoSpace, "want 5, have 3"))
				sees("G144")
				b.Show(panel.View{Message: "Powering off"})
				sees("Powering off")
				if err := b.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
