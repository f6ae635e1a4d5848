// Package burnin lets a unit work before anything is written to it, as its manifest asks for: processors, memory, main disks. What they
// compute and keep is compared, temperatures are limited, and what the kernel says of machine checks, memory, links and I/O meanwhile
// fails it.
//
// Nothing that fails ends the process: a worker that panics, and memory that cannot be read, are results. A disk is written only if it is
// blank, and it is blank afterwards, also where the power goes in between.
package burnin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/hardware"
	"gprovision/model/manifest"
	"gprovision/unit/machine"
)

// stage is one burn-in.
type stage struct {
	m     *machine.Machine
	want  manifest.BurnIn
	main  []block.Disk
	parts parts
	lines []hardware.Line
	// done and total are how far the part is that runs.
	done, total atomic.Int64
}

// part is one part of a burn-in.
type part struct {
	say    string
	wanted bool
	run    func(ctx context.Context)
}

// Plan says what a burn-in does, a line for each part.
func Plan(b manifest.BurnIn) (out []string) {
	if b.ProcessorMinutes > 0 {
		out = append(out, fmt.Sprintf("all processors compute for %d minutes", b.ProcessorMinutes))
	}
	if b.MemoryMinutes > 0 {
		out = append(out, fmt.Sprintf("the free memory is written and read back for %d minutes", b.MemoryMinutes))
	}
	switch b.Disks {
	case manifest.BurnRead:
		out = append(out, "the main disks are read")
	case manifest.BurnWrite:
		out = append(out, "the main disks, which must be blank, are written and read back")
	}
	return out
}

// Run does what want asks for, with the main disks of the plan. proc is /proc. It returns the lines of what was found, which are whole also
// where the error says that the unit did not stand it (fault.BurnInFailed).
func Run(ctx context.Context, m *machine.Machine, proc fs.FS, want manifest.BurnIn, main []block.Disk) ([]hardware.Line, error) {
	s := &stage{m: m, want: want, main: main, parts: realParts(proc)}
	err := s.run(ctx)
	return s.lines, err
}

func (s *stage) run(ctx context.Context) error {
	if s.want.Disks == manifest.BurnWrite {
		if s.refuse(); s.failed() {
			return s.judge()
		}
	}
	w := s.watch()
	defer w.close()
	for _, p := range []part{
		{"Burn-in processors", s.want.ProcessorMinutes > 0, s.processors},
		{"Burn-in memory", s.want.MemoryMinutes > 0, s.memory},
		{"Burn-in disks", s.want.Disks != "", s.disks},
	} {
		if !p.wanted || s.failed() || w.wrong() {
			continue
		}
		s.m.Log.Info("burn-in", "part", p.say)
		s.done.Store(0)
		s.total.Store(0)
		s.m.Panel.Message(p.say)
		w.during(ctx, p.run)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.lines = append(s.lines, w.lines()...)
	return s.judge()
}

// add adds a line that was compared.
func (s *stage) add(name, found, expected, rule string, ok bool) {
	s.lines = append(s.lines, hardware.Line{Name: name, Found: found, Expected: expected, Rule: rule, Checked: true, OK: ok})
}

// note adds a line that was not compared, such as a measurement.
func (s *stage) note(name, found, why string) {
	s.lines = append(s.lines, hardware.Line{Name: name, Found: found, Rule: why})
}

// failed reports whether a line does not hold.
func (s *stage) failed() bool {
	for _, l := range s.lines {
		if l.Wrong() {
			return true
		}
	}
	return false
}

// judge returns what does not hold as a fault, or nil.
func (s *stage) judge() error {
	var bad []string
	for _, l := range s.lines {
		if l.Wrong() {
			bad = append(bad, fmt.Sprintf("%s: %s, want %s", l.Name, l.Found, l.Expected))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fault.Newf(fault.BurnInFailed, "%s", strings.Join(bad, "; "))
}

// guarded runs a worker. A panic, and memory that cannot be read or written, are its error.
func guarded(work func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
			if a, ok := r.(interface{ Addr() uintptr }); ok {
				err = badAddress{a.Addr(), err}
			}
		}
	}()
	return work()
}

// badAddress is an address of memory that cannot be read or written.
type badAddress struct {
	addr uintptr
	err  error
}

func (b badAddress) Error() string { return b.err.Error() }

// all runs n workers beside one another, and returns their errors.
func all(n int, work func(i int) error) []error {
	errs, ended := make([]error, n), make(chan struct{})
	for i := range n {
		go func() {
			defer func() { ended <- struct{}{} }()
			errs[i] = guarded(func() error { return work(i) })
		}()
	}
	for range n {
		<-ended
	}
	return errs
}

// stopped is why a part ended before its time, "" if it did not.
func stopped(ctx context.Context) string {
	if ctx.Err() == nil {
		return ""
	}
	return "stopped: " + context.Cause(ctx).Error()
}

// few joins the first texts of many.
func few(texts []string, most int) string {
	if len(texts) > most {
		return strings.Join(texts[:most], ", ") + fmt.Sprintf(" and %d more", len(texts)-most)
	}
	return strings.Join(texts, ", ")
}

// perSecond is a speed in megabytes a second.
func perSecond(bytes int64, took time.Duration) int64 {
	return int64(float64(bytes) / 1e6 / max(took.Seconds(), 1e-6))
}

// speed is a speed as text.
func speed(bytes int64, took time.Duration) string {
	return fmt.Sprintf("%d MB/s", perSecond(bytes, took))
}

// errHot is why a burn-in stops that makes a part too hot.
var errHot = errors.New("too hot")
