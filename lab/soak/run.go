package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"gprovision/forge/tool"
)

// What becomes of a test.
const (
	passed  = "ok"
	failed  = "FAILED"
	ended   = "ENDED" // by this program
	lost    = "LOST"  // the process of the tests ended without a word of it
	skipped = "SKIPPED"
)

// result is what became of a test.
type result struct {
	item
	state string
	why   string
	took  time.Duration
}

// limit is how long a test may run before it is ended. The machine may be busier than the one that the times are from.
type limit func(item) time.Duration

func patient(it item) time.Duration {
	return 10*time.Minute + 4*time.Duration(it.seconds)*time.Second
}

func strict(it item) time.Duration {
	return 2*time.Minute + 2*time.Duration(it.seconds)*time.Second
}

// tester runs tests of a package, by their names, and writes what go test -json writes. It ends when they do, or ctx does.
type tester func(ctx context.Context, pkg string, names []string, w io.Writer) error

// goTest is the tester that there is.
func goTest(ctx context.Context, pkg string, names []string, w io.Writer) error {
	return tool.Run(ctx, nil, tool.Command{Name: "go", Package: "golang-go", Stdout: w, Args: []string{"test", "-json", "-count=1", "-tags", "soak", "-timeout", "0",
		"-parallel", fmt.Sprint(workers), "-run", "^(" + strings.Join(names, "|") + ")$", pkg}})
}

// total returns how many seconds the tests of a package take one after another.
func total(items []item, pkg string) (seconds int) {
	for _, it := range items {
		if it.pkg == pkg {
			seconds += it.seconds
		}
	}
	return seconds
}

// run runs the tests to the end, whatever happens to some of them, and says so on w as it goes. A test that runs over its time ends the process
// that it shares with others; those are run in a new one. At stop, if that is not zero, everything is ended.
func run(ctx context.Context, w io.Writer, items []item, test tester, most limit, stop time.Time) (out []result) {
	packages := []string{}
	for _, it := range items {
		if !slices.Contains(packages, it.pkg) {
			packages = append(packages, it.pkg)
		}
	}
	// What takes least comes first, so that one knows early of what fails there.
	slices.SortFunc(packages, func(a, b string) int { return cmp.Or(cmp.Compare(total(items, a), total(items, b)), cmp.Compare(a, b)) })
	for _, pkg := range packages {
		left := slices.DeleteFunc(slices.Clone(items), func(it item) bool { return it.pkg != pkg })
		first, _ := split(left)
		for len(left) > 0 {
			again := left
			if first.name != "" && left[0] != first { // each process makes it for itself
				again = slices.Insert(slices.Clone(left), 0, first)
			}
			r := round{w: w, items: again, most: most, stop: stop, running: map[string]*clock{}, output: map[string]*strings.Builder{}}
			r.run(ctx, pkg, test)
			for _, d := range r.done {
				if slices.Contains(left, d.item) {
					out = append(out, d)
				}
			}
			before := len(left)
			left = slices.DeleteFunc(left, func(it item) bool {
				return slices.ContainsFunc(r.done, func(d result) bool { return d.name == it.name })
			})
			over := ctx.Err() != nil || !stop.IsZero() && !time.Now().Before(stop)
			if over || len(left) == before {
				for _, it := range left {
					state, why := lost, "the tests' process ended: "+r.end
					if over {
						state, why = ended, "there was no time left for it"
					}
					out = append(out, result{item: it, state: state, why: why})
				}
				break
			}
		}
	}
	return out
}

// clock counts how long a test has run; a test that waits for its turn does not.
type clock struct {
	before time.Duration
	since  time.Time // zero while it waits
}

func (c *clock) now() time.Duration {
	if c.since.IsZero() {
		return c.before
	}
	return c.before + time.Since(c.since)
}

// round is one process of tests.
type round struct {
	w       io.Writer
	items   []item
	most    limit
	stop    time.Time
	done    []result
	running map[string]*clock
	output  map[string]*strings.Builder
	end     string // how the process ended
}

// errOver says why the process is ended.
var errOver = errors.New("a test ran over its time")

// line is one of go test -json.
type line struct {
	Action, Test, Output string
}

// run runs the process to its end.
func (r *round) run(ctx context.Context, pkg string, test tester) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var names []string
	for _, it := range r.items {
		names = append(names, it.name)
	}
	reader, writer := io.Pipe()
	lines, finished := make(chan line), make(chan error, 1)
	go func() {
		err := test(ctx, pkg, names, writer)
		finished <- err
		_ = writer.Close()
	}()
	go func() {
		defer close(lines)
		s := bufio.NewScanner(reader)
		s.Buffer(nil, 64<<20)
		for s.Scan() {
			var l line
			if json.Unmarshal(s.Bytes(), &l) == nil {
				lines <- l
			}
		}
		_, _ = io.Copy(io.Discard, reader)
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for open := true; open; {
		select {
		case l, more := <-lines:
			if open = more; more {
				r.take(l)
			}
		case <-tick.C:
			if r.overrun() {
				cancel(errOver)
			}
		}
	}
	if err := <-finished; err != nil {
		r.end = err.Error()
	}
	// Who ran when the process died by itself is to blame, as far as one can know.
	for name, c := range r.running {
		if !errors.Is(context.Cause(ctx), errOver) && ctx.Err() == nil {
			r.finish(name, lost, "the tests' process ended while it ran: "+r.end, c.now())
		}
	}
}

// take follows one line. Subtests belong to their test.
func (r *round) take(l line) {
	name, _, sub := strings.Cut(l.Test, "/")
	if name == "" {
		return
	}
	if l.Action == "output" {
		b := r.output[name]
		if b == nil {
			b = &strings.Builder{}
			r.output[name] = b
		}
		b.WriteString(l.Output)
		return
	}
	if sub {
		return
	}
	c := r.running[name]
	switch l.Action {
	case "run":
		r.running[name] = &clock{since: time.Now()}
	case "pause":
		if c != nil {
			c.before, c.since = c.now(), time.Time{}
		}
	case "cont":
		if c != nil {
			c.since = time.Now()
		}
	case "pass", "fail", "skip":
		if c != nil {
			r.finish(name, map[string]string{"pass": passed, "fail": failed, "skip": skipped}[l.Action], "", c.now())
		}
	}
}

// finish notes what became of a test.
func (r *round) finish(name, state, why string, took time.Duration) {
	delete(r.running, name)
	at := slices.IndexFunc(r.items, func(it item) bool { return it.name == name })
	if at < 0 {
		return
	}
	if b := r.output[name]; b != nil && state != passed {
		fmt.Fprintf(r.w, "%s\n", b)
	}
	delete(r.output, name)
	fmt.Fprintf(r.w, "%s  %-8s %6.0f s  %s %s\n", time.Now().Format("15:04:05"), state, took.Seconds(), name, why)
	r.done = append(r.done, result{r.items[at], state, why, took})
}

// overrun reports whether a test has run over its time, which is the end of it and of its process.
func (r *round) overrun() (over bool) {
	late := !r.stop.IsZero() && !time.Now().Before(r.stop)
	for _, it := range r.items {
		c := r.running[it.name]
		if c == nil {
			continue
		}
		most := r.most(it)
		switch {
		case c.now() > most:
			r.finish(it.name, ended, fmt.Sprintf("it ran over its time: %s, measured were %d s", most, it.seconds), c.now())
			over = true
		case late && !c.since.IsZero():
			r.finish(it.name, ended, "it ran when the time for all was over", c.now())
			over = true
		}
	}
	return over || late
}

// verdict writes the table. The code is 1 unless every test passed.
func verdict(w io.Writer, results []result) (code int) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nTEST\tRESULT\tSECONDS\tMEASURED BEFORE\t")
	sum := time.Duration(0)
	for _, r := range results {
		if r.state != passed {
			code = 1
		}
		sum += r.took
		fmt.Fprintf(t, "%s\t%s\t%.0f\t%d\t%s\n", r.name, r.state, r.took.Seconds(), r.seconds, r.why)
	}
	fmt.Fprintf(t, "%d tests\t\t%.0f\t\t\n", len(results), sum.Seconds())
	if err := t.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		return 1
	}
	return code
}
