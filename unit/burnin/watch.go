package burnin

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"gprovision/hw/host"
	"gprovision/hw/sensor"
	"gprovision/model/hardware"
	"gprovision/model/step"
	"gprovision/unit/panel"
)

// How often the kernel's log and the sensors are looked at, and with each how many of these looks the disks are asked.
const (
	lookEvery = 2 * time.Second
	diskEvery = 8
)

// trouble are the messages of the kernel that fail a burn-in, by what they are about.
var trouble = []struct {
	what string
	is   *regexp.Regexp
}{
	{"machine check", regexp.MustCompile(`\[Hardware Error\]|Machine check|mce: .*(error|exception|events logged)`)},
	{"memory error", regexp.MustCompile(`EDAC .*\b(CE|UE)\b|Memory failure: `)},
	{"PCIe error", regexp.MustCompile(`AER: .*error|PCIe Bus Error|DPC: (containment|error)`)},
	{"link reset", regexp.MustCompile(`ata\d.*(hard resetting link|SATA link down|exception Emask|failed command|limiting SATA link)` +
		`|nvme.*(controller is down|timeout, |reset controller)|rejecting I/O to offline device`)},
	{"I/O error", regexp.MustCompile(`I/O error|critical (medium|target) error|Medium Error|Unrecovered read error`)},
	{"lock-up", regexp.MustCompile(`soft lockup|hard LOCKUP|detected stall|general protection fault|kernel BUG at`)},
}

// reading is the hottest that was read of a kind of sensor, and how many there are.
type reading struct {
	celsius int
	at      string
	sensors int
}

// watcher watches the machine while the parts run.
type watcher struct {
	s     *stage
	log   *host.KernelLog
	why   string // why the log is not watched
	bad   []string
	looks int
	board reading
	disk  reading
}

// watch begins to watch. What cannot be watched is a line that was not checked.
func (s *stage) watch() *watcher {
	w := &watcher{s: s, why: "this machine does not show it"}
	if open := s.m.Board.KernelLog; open != nil {
		var err error
		if w.log, err = open(); err != nil {
			w.why = err.Error()
			s.m.Log.Warn("the kernel's log is not watched", "err", err)
		}
	}
	w.look()
	return w
}

func (w *watcher) close() {
	if w.log == nil {
		return
	}
	if err := w.log.Close(); err != nil {
		w.s.m.Log.Warn("the kernel's log stays open", "err", err)
	}
}

// during runs a part, shows how far it is, and stops it when something is too hot.
func (w *watcher) during(ctx context.Context, run func(ctx context.Context)) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ended := make(chan struct{})
	watching, enough := context.WithCancel(ctx)
	go func() {
		defer close(ended)
		t := time.NewTicker(lookEvery)
		defer t.Stop()
		for {
			w.look()
			if err := guarded(func() error { w.show(ctx); return nil }); err != nil {
				w.s.m.Log.Warn("how far the burn-in is cannot be shown", "err", err)
			}
			if w.hot() {
				stop(errHot)
			}
			select {
			case <-watching.Done():
				return
			case <-t.C:
			}
		}
	}()
	run(ctx)
	enough()
	<-ended
	w.look()
}

// show shows how far the part is that runs.
func (w *watcher) show(ctx context.Context) {
	done, total := w.s.done.Load(), w.s.total.Load()
	w.s.m.Panel.Progress(panel.Progress{Done: done, Total: total, Left: -1})
	step.Report(ctx, done, total)
}

// look looks at the kernel's log and at the sensors.
func (w *watcher) look() {
	if err := guarded(w.lookOnce); err != nil {
		w.s.m.Log.Warn("the machine cannot be watched", "err", err)
	}
	w.looks++
}

func (w *watcher) lookOnce() error {
	if w.log != nil {
		messages, lost, err := w.log.New()
		if err != nil {
			return err
		}
		if lost {
			w.bad = append(w.bad, "more messages than the kernel keeps")
		}
		for _, m := range messages {
			if what := troubleIn(m); what != "" {
				w.bad = append(w.bad, fmt.Sprintf("%s: %q", what, m))
				w.s.m.Log.Error("the kernel says", "about", what, "message", m)
			}
		}
	}
	all, err := sensor.Temperatures(w.s.m.Sys)
	if err != nil {
		return err
	}
	board := 0
	for _, t := range all {
		if t.Disk {
			continue // the disks are asked themselves
		}
		board++
		w.board.take(t.Celsius, t.String())
	}
	w.board.sensors = max(w.board.sensors, board)
	if w.s.m.Board.Health == nil || w.looks%diskEvery != 0 {
		return nil
	}
	disks := 0
	for _, d := range w.s.main {
		h, err := w.s.m.Board.Health(d.Path)
		if err != nil || h.Temperature == nil {
			continue
		}
		disks++
		w.disk.take(int(*h.Temperature), d.Name)
	}
	w.disk.sensors = max(w.disk.sensors, disks)
	return nil
}

// take keeps the hottest.
func (r *reading) take(celsius int, at string) {
	if r.at == "" || celsius > r.celsius {
		r.celsius, r.at = celsius, at
	}
}

// troubleIn says what a message of the kernel that fails a burn-in is about, "" for all others.
func troubleIn(message string) string {
	for _, t := range trouble {
		if t.is.MatchString(message) {
			return t.what
		}
	}
	return ""
}

func (w *watcher) hot() bool {
	over := func(r reading, limit int) bool { return limit > 0 && r.sensors > 0 && r.celsius > limit }
	return over(w.board, w.s.want.CelsiusMax) || over(w.disk, w.s.want.DiskCelsiusMax)
}

// wrong reports whether the burn-in has failed by what was seen.
func (w *watcher) wrong() bool { return w.hot() || len(w.bad) > 0 }

// lines returns what was seen.
func (w *watcher) lines() (out []hardware.Line) {
	temperature := func(name string, r reading, limit int) {
		l := hardware.Line{Name: name, Found: "no sensor", Rule: "there is nothing to read"}
		if limit > 0 {
			l.Expected = fmt.Sprintf("at most %d °C", limit)
		}
		if r.sensors > 0 {
			l.Found = fmt.Sprintf("%d °C at %s", r.celsius, r.at)
			l.Rule = fmt.Sprintf("the hottest of %d sensors while it ran", r.sensors)
			l.Checked, l.OK = limit > 0, limit > 0 && r.celsius <= limit
		}
		out = append(out, l)
	}
	temperature("burn-in temperature", w.board, w.s.want.CelsiusMax)
	temperature("burn-in disk temperature", w.disk, w.s.want.DiskCelsiusMax)
	const name = "burn-in kernel messages"
	if w.log == nil {
		return append(out, hardware.Line{Name: name, Found: "unknown", Expected: "none", Rule: w.why})
	}
	l := hardware.Line{Name: name, Found: "none", Expected: "none", Checked: true, OK: len(w.bad) == 0,
		Rule: "none of machine checks, memory, PCIe, link, I/O errors and lock-ups"}
	if !l.OK {
		l.Found = fmt.Sprintf("%d: %s", len(w.bad), few(w.bad, 5))
	}
	return append(out, l)
}
