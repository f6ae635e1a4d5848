package panel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gprovision/model/fault"
	"gprovision/model/step"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
)

type slow struct {
	script.Panel
	gate chan struct{}
}

func (s *slow) Show(v panel.View) error { <-s.gate; return s.Panel.Show(v) }

type broken struct{}

func (broken) Show(panel.View) error { panic("no display") }

func TestSlowPanelBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := panel.New()
		s, quick := &slow{gate: make(chan struct{})}, &script.Panel{}
		b.Add("slow", s)
		b.Add("quick", quick)
		b.Add("broken", broken{})
		for i := 1; i <= 3; i++ {
			b.Show(panel.View{Job: "restore", Step: fmt.Sprint("step ", i), Index: i, Total: 3})
			synctest.Wait()
			for n := range 100 {
				b.Progress(panel.Progress{Done: int64(n + 1), Total: 100})
				synctest.Wait()
			}
		}
		b.Fail(fault.Newf(fault.ImageCorrupt, "block 7"))
		synctest.Wait()
		if n := len(quick.Views()); n != 304 {
			t.Errorf("the quick panel saw %d views of 304", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "slow") {
			t.Errorf("flush: %v", err)
		}
		close(s.gate)
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		v := s.Views()
		last := v[len(v)-1]
		if last.Problem == nil || last.Problem.Code != "G205" || last.Index != 3 {
			t.Errorf("the last view is %+v", last)
		}
		steps := map[int]bool{}
		for _, x := range v {
			steps[x.Index] = true
		}
		if len(v) > 6 || len(steps) != 3 {
			t.Errorf("the slow panel saw %d views of %d steps", len(v), len(steps))
		}
		b.Show(panel.View{Message: "after the end"})
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestLatePanelSeesTheLastView(t *testing.T) {
	b := panel.New()
	b.Show(panel.View{Message: "one"})
	b.Show(panel.View{Message: "two"})
	s := &script.Panel{}
	b.Add("late", s)
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v := s.Views(); len(v) != 1 || v[0].Message != "two" {
		t.Errorf("got %+v", v)
	}
	b.Close(t.Context())
}

func TestProblem(t *testing.T) {
	p := panel.ProblemOf(&step.Error{Step: "x", Err: fault.Because(fault.NoSpace, errors.New("want 5, have 3"))})
	if p.Code != "G144" || p.Hint == "" || p.Detail != "want 5, have 3" {
		t.Errorf("got %+v", p)
	}
	if p := panel.ProblemOf(io.EOF); p.Code != "G902" || p.Detail != "EOF" {
		t.Errorf("got %+v", p)
	}
	if panel.ProblemOf(nil) != nil {
		t.Error("a problem without an error")
	}
}

// job runs a job of three steps on a console and returns what the console shows.
func job(t *testing.T, terminal bool) string {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	b := panel.New()
	b.Add("console", panel.Console(&out, panel.ConsoleOptions{Terminal: terminal, Now: func() time.Time { return now }}))
	sync := func() {
		if err := b.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	steps := []step.Step{
		{Name: "format-main", Say: "Format main disk", Run: func(context.Context) error { sync(); return nil }},
		{Name: "write-image", Say: "Write image", Run: func(ctx context.Context) error {
			sync()
			m := panel.NewMeter(func() time.Time { return now }, 200e6)
			for range 200 {
				now = now.Add(100 * time.Millisecond)
				m.Add(1e6)
				b.Progress(m.Progress())
				sync()
			}
			return nil
		}},
		{Name: "make-boot", Run: func(context.Context) error {
			return fault.Newf(fault.BootSetup, "write entry: \x1b[31mno space")
		}},
	}
	err := step.Run(t.Context(), steps, b.Observe("restore"))
	if err == nil {
		t.Fatal("the job should fail")
	}
	b.Fail(err)
	b.Show(panel.View{Message: "retry in 60 s"})
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestPlainConsole(t *testing.T) {
	got := job(t, false)
	for _, want := range []string{
		"restore [1/3] Format main disk\n", "restore [2/3] Write image\n", "restore [2/3] Write image  100 %  10.0 MB/s\n", "restore [3/3] make-boot\n",
		"50 %  10.0 MB/s  0:10 left\n",
		"\n*** G136  the unit cannot be made bootable\n    in:     restore [3/3] make-boot\n    cause:  write entry: ?[31mno space\n    to do:  see the log; on UEFI check that the firmware lets boot entries be written\n",
		"retry in 60 s\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
	if strings.ContainsAny(got, "\r\x1b") {
		t.Errorf("control characters in plain output: %q", got)
	}
	if n := strings.Count(got, " %"); n < 15 || n > 22 {
		t.Errorf("%d progress lines in 20 s for 100 %%:\n%s", n, got)
	}
}

func TestTerminalRedraws(t *testing.T) {
	got := job(t, true)
	if n := strings.Count(got, "\n"); n > 12 {
		t.Errorf("%d lines, the progress should stay in one:\n%q", n, got)
	}
	if n := strings.Count(got, "\r"); n < 50 || n > 110 {
		t.Errorf("redrawn %d times in 20 s", n)
	}
	if !strings.Contains(got, "100 %  10.0 MB/s\x1b[K\nrestore [3/3] make-boot\n") {
		t.Errorf("the line is not ended: %q", got)
	}
}

func TestMeter(t *testing.T) {
	now := time.Unix(100, 0)
	m := panel.NewMeter(func() time.Time { return now }, 1000)
	if p := m.Progress(); p.Percent() != 0 || p.Rate != 0 || p.Left >= 0 {
		t.Errorf("at the start: %+v", p)
	}
	for range 100 {
		now = now.Add(100 * time.Millisecond)
		m.Add(5)
	}
	if p := m.Progress(); p.Percent() != 50 || p.Rate < 49 || p.Rate > 51 || p.Left < 9*time.Second || p.Left > 11*time.Second {
		t.Errorf("half way: %+v", p)
	}
	now = now.Add(time.Hour) // it stands still
	if p := m.Progress(); p.Rate > 1 {
		t.Errorf("standing still: %+v", p)
	}
	m.Set(999)
	if p := m.Progress(); p.Percent() != 99 {
		t.Errorf("nearly done is %d %%", p.Percent())
	}
	m.Set(1000)
	if p := m.Progress(); p.Percent() != 100 || p.Left != 0 {
		t.Errorf("done: %+v", p)
	}

	// The rate of a resumed download starts where the download does.
	m = panel.NewMeter(func() time.Time { return now }, 1000)
	now = now.Add(time.Second)
	m.Set(500)
	for range 10 {
		now = now.Add(time.Second)
		m.Add(1)
	}
	if p := m.Progress(); p.Rate > 1.5 || p.Done != 510 {
		t.Errorf("resumed: %+v", p)
	}

	m = panel.NewMeter(nil, 0)
	n, err := io.Copy(io.Discard, m.Reader(strings.NewReader("0123456789")))
	if p := m.Progress(); err != nil || n != 10 || p.Done != 10 || p.Percent() != -1 || !strings.HasPrefix(p.String(), "10 B") {
		t.Errorf("without a total: %+v %q", p, p.String())
	}
	for want, p := range map[string]panel.Progress{
		" 45 %  120.3 MB/s  0:35 left":  {Done: 45, Total: 100, Rate: 120.3e6, Left: 34500 * time.Millisecond},
		"  0 %  1.0 kB/s  2:00:01 left": {Done: 0, Total: 100, Rate: 1000, Left: 2*time.Hour + time.Second},
		"100 %":                         {Done: 5, Total: 5},
	} {
		if p.String() != want {
			t.Errorf("got %q, want %q", p.String(), want)
		}
	}
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := panel.NewMeter(nil, 10)
		n := 0
		var last panel.Progress
		stop := m.Watch(t.Context(), time.Second, func(p panel.Progress) { n, last = n+1, p })
		time.Sleep(5500 * time.Millisecond)
		m.Set(10)
		stop()
		if n != 7 || last.Percent() != 100 {
			t.Errorf("%d calls, last %+v", n, last)
		}
	})
}
