package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"gprovision/cli/shown"
	"gprovision/hw/lcd/simulator"
	"gprovision/lab"
)

// show tells a person what the demo does: lines with the time since the start, on a terminal with a progress bar below.
type show struct {
	w        io.Writer
	terminal bool
	start    time.Time

	mu      sync.Mutex
	stages  []stageTime
	current string // the running step
	last    int    // its last percentage that was shown
	bar     bool   // a bar is on the terminal's last line
	ended   bool
}

type stageTime struct {
	name, part string
	took       time.Duration
}

func newShow(c *Context) *show {
	return &show{w: shown.Raw(c.Stdout), terminal: c.Terminal, start: time.Now()}
}

func (s *show) line(format string, args ...any) {
	if s.ended {
		return
	}
	s.wipe()
	t := time.Since(s.start).Round(time.Second)
	fmt.Fprintf(s.w, "%2d:%02d  %s\n", int(t.Minutes()), int(t.Seconds())%60, shown.Line(fmt.Sprintf(format, args...)))
}

func (s *show) wipe() {
	if s.bar {
		fmt.Fprint(s.w, "\r\x1b[K")
		s.bar = false
	}
}

// say shows a sentence.
func (s *show) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line("        "+format, args...)
}

// stage begins a stage of a part of the demo. The function that it returns ends it.
func (s *show) stage(name, part string) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line("%-8s%s …", part, name)
	began := time.Now()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		took := time.Since(began)
		s.stages = append(s.stages, stageTime{name, part, took})
		s.line("%-8s%s: %s", part, name, seconds(took))
	}
}

// step shows that a step of a job begins.
func (s *show) step(job, name string, index, total int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current, s.last = job+" "+name, 0
	s.line("          %2d/%d %s", index, total, name)
}

// percent shows how far a step is. It is left out when the step is not the running one any more.
func (s *show) percent(job, name string, percent int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == job+" "+name {
		s.draw(name, percent)
	}
}

// picture shows the unit's display.
func (s *show) picture(p simulator.Screen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(displayBox(p)) {
		s.line("%-8s%s", "display", strings.TrimRight(line, " \n"))
	}
}

// progress shows how far something is that this program does itself.
func (s *show) progress(name string, done, total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if total <= 0 {
		return
	}
	if s.current != name {
		s.current, s.last = name, 0
	}
	s.draw(name, int(100*done/total))
}

func (s *show) draw(name string, percent int) {
	if s.ended || percent <= s.last {
		return
	}
	if s.terminal {
		s.last, s.bar = percent, true
		fmt.Fprintf(s.w, "\r\x1b[K          %-20s [%-40s] %3d %%", name, strings.Repeat("#", min(percent, 100)*40/100), percent)
		return
	}
	if percent/25 > s.last/25 {
		s.line("              %s %d %%", name, percent/25*25)
	}
	s.last = percent
}

// end stops showing. It may be repeated.
func (s *show) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
	s.ended = true
}

// table shows how long each stage took.
func (s *show) table(a lab.Accel) {
	fmt.Fprintf(s.w, "\n%-8s  %-42s %9s\n", "part", "stage", "time")
	var unit, all time.Duration
	for _, t := range s.stages {
		name := []rune(t.name)
		if len(name) > 42 {
			name = append(name[:41], '…')
		}
		fmt.Fprintf(s.w, "%-8s  %-42s %9s\n", t.part, string(name), seconds(t.took))
		all += t.took
		if t.part == "unit" {
			unit += t.took
		}
	}
	how := "with KVM"
	if !a.KVM {
		how = "without KVM"
	}
	fmt.Fprintf(s.w, "%-8s  %-42s %9s\n", "", "from power-on to login, "+how, seconds(unit))
	fmt.Fprintf(s.w, "%-8s  %-42s %9s\n", "", "in all", seconds(all))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
