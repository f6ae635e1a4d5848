package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/tools/go/packages"
)

// test is a test of a package, as it ran without a mutation.
type test struct {
	bin, pkg, name string
	took           time.Duration
}

// slow is from when on a test is run by itself, after all others.
const slow = time.Second

// verdict is what became of a mutant.
type verdict string

const (
	dies      verdict = "dies"
	survives  verdict = "survives"
	unreached verdict = "no test reaches it"
	untried   verdict = "not tried"
)

// measure tries the mutants of the chosen packages, of all if some is false. It is an error if fewer of them die than the figure says.
func (b *bench) measure(ctx context.Context, here string, figures []figure, chosen []string, some, renew bool) error {
	arguments, err := readArguments(filepath.Join(here, "survivors.txt"))
	if err != nil {
		return err
	}
	var bad error
	measured := map[string]float64{}
	for _, f := range figures {
		if some && !slices.Contains(chosen, f.name) {
			fmt.Printf("%s: not tried; the figure is: %s\n", f.name, f)
			continue
		}
		percent, whole, err := b.measurePackage(ctx, f, arguments)
		switch {
		case err != nil && !errors.Is(err, errLate):
			return errors.Join(bad, fmt.Errorf("%s: %w", f.name, err))
		case err != nil || !whole:
			fmt.Printf("%s: the time was up; nothing is held against the figure, which is: %s\n", f.name, f)
		case renew:
			measured[f.name] = percent
		case f.dies < 0:
			fmt.Printf("%s: there is no figure yet to hold this against: make mutants PKG=%s RENEW=1\n", f.name, f.name)
		case percent < f.dies:
			bad = errors.Join(bad, fmt.Errorf("%s: %.1f %% of the mutants die, and %s did", f.name, percent, f))
		case percent > f.dies:
			fmt.Printf("%s: the figure can go up: make mutants PKG=%s RENEW=1\n", f.name, f.name)
		}
	}
	if len(measured) > 0 {
		bad = errors.Join(bad, writeFigures(filepath.Join(here, "figures.txt"), measured))
	}
	return bad
}

// measurePackage tries the mutants of one package. whole says that there was time for all.
func (b *bench) measurePackage(ctx context.Context, f figure, arguments map[string]string) (percent float64, whole bool, err error) {
	began := time.Now()
	mutants, undo, err := b.plant(ctx, f.name)
	defer func() { err = errors.Join(err, undo()) }()
	if err != nil {
		return 0, false, err
	}
	tests, reach, err := b.survey(ctx, f.tests)
	if err != nil {
		return 0, false, err
	}
	if len(mutants) == 0 || len(tests) == 0 {
		return 0, false, fmt.Errorf("there are %d mutants and %d tests", len(mutants), len(tests))
	}
	died, err := b.readRecord(f.name)
	if err != nil {
		return 0, false, err
	}
	verdicts := make([]verdict, len(mutants))
	var wg sync.WaitGroup
	next := make(chan int)
	errs := make([]error, b.workers)
	for w := range b.workers {
		wg.Go(func() {
			for i := range next {
				if errs[w] == nil && ctx.Err() == nil && !b.late() {
					verdicts[i], errs[w] = b.tryMutant(ctx, i+1, reach[i+1])
				} else {
					verdicts[i] = untried
				}
			}
		})
	}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(len(mutants)) { // what there is time for is a sample
		if died[mutants[i].id] {
			verdicts[i] = dies
			continue
		}
		next <- i
	}
	close(next)
	wg.Wait()
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return 0, false, err
	}
	if err := b.writeRecord(f.name, mutants, verdicts); err != nil {
		return 0, false, err
	}
	count := map[verdict]int{}
	for i, v := range verdicts {
		count[v]++
		say(mutants[i], v, f.name+" "+mutants[i].id, arguments)
	}
	tried := len(mutants) - count[untried]
	percent = math.Floor(1000*float64(count[dies])/float64(max(tried, 1))) / 10
	fmt.Printf("%s: %d of %d mutants tried in %s: %d die (%.1f %%), %d survive, %d are reached by no test\n", f.name, tried, len(mutants),
		time.Since(began).Round(time.Second), count[dies], percent, count[survives], count[unreached])
	if len(died) > 0 {
		fmt.Printf("%s: %d had died before, and were not tried again\n", f.name, len(died))
	}
	return percent, count[untried] == 0, nil
}

// say prints a mutant that lives, with what is said for it.
func say(m mutant, v verdict, id string, arguments map[string]string) {
	why, argued := arguments[id]
	switch {
	case v == dies && argued:
		fmt.Printf("%s: it dies: take it out of survivors.txt\n", id)
	case v == survives || v == unreached:
		fmt.Printf("%s:%d: %s: %s\n", m.at.Filename, m.at.Line, v, id)
		if argued {
			fmt.Printf("\t%s\n", why)
		}
	}
}

// plant puts all mutants into a package of the tree. undo takes them out.
func (b *bench) plant(ctx context.Context, pkg string) (mutants []mutant, undo func() error, err error) {
	var undos []func() error
	undo = func() error {
		var all error
		for _, u := range undos {
			all = errors.Join(all, u())
		}
		return all
	}
	const mode = packages.NeedName | packages.NeedFiles | packages.NeedImports | packages.NeedSyntax | packages.NeedTypes |
		packages.NeedTypesInfo
	loaded, err := packages.Load(&packages.Config{Context: ctx, Dir: b.tree, Mode: mode}, "./"+pkg)
	if err != nil {
		return nil, undo, err
	}
	seen := map[string]int{}
	for _, p := range loaded {
		if len(p.Errors) > 0 {
			return nil, undo, p.Errors[0]
		}
		for _, f := range p.Syntax {
			text, err := mutateFile(p, f, &mutants, seen)
			if err != nil {
				return nil, undo, err
			}
			name, err := filepath.Rel(b.tree, p.Fset.Position(f.Pos()).Filename)
			if err != nil {
				return nil, undo, err
			}
			u, err := b.edit(name, text)
			if err != nil {
				return nil, undo, err
			}
			undos = append(undos, u)
		}
		own := filepath.Join(b.tree, pkg, "mutants_switches.go")
		undos = append(undos, func() error { return os.Remove(own) })
		if err := os.WriteFile(own, fmt.Appendf(nil, switches, p.Name), 0o644); err != nil {
			return nil, undo, err
		}
	}
	for i, m := range mutants {
		if rel, err := filepath.Rel(b.tree, m.at.Filename); err == nil {
			mutants[i].at.Filename = rel
		}
	}
	return mutants, undo, nil
}

// survey runs each test of the packages by itself, and says which mutants it reaches. One that is red without a mutation does not count.
func (b *bench) survey(ctx context.Context, pkgs []string) (tests []test, reach map[int][]test, err error) {
	reach = map[int][]test{}
	for _, pkg := range pkgs {
		bin, err := b.build(ctx, pkg)
		if err != nil {
			return nil, nil, err
		}
		names, err := b.list(ctx, bin, pkg)
		if err != nil {
			return nil, nil, err
		}
		for _, name := range names {
			trace, err := os.CreateTemp(b.tmp, "trace-")
			if err == nil {
				err = errors.Join(trace.Chmod(0o666), trace.Close())
			}
			if err != nil {
				return nil, nil, err
			}
			began := time.Now()
			passed, err := b.run(ctx, bin, pkg, only(name), handLimit, "MUTANT_TRACE="+trace.Name())
			if err != nil {
				return nil, nil, err
			}
			if !passed {
				fmt.Printf("%s %s is red without a mutation, and does not count\n", pkg, name)
				continue
			}
			t := test{bin, pkg, name, time.Since(began)}
			tests = append(tests, t)
			text, err := os.ReadFile(trace.Name())
			if err != nil {
				return nil, nil, err
			}
			for line := range strings.Lines(string(text)) {
				n, err := strconv.Atoi(strings.TrimSpace(line))
				if err != nil {
					return nil, nil, err
				}
				if !slices.Contains(reach[n], t) { // a test may have started itself again
					reach[n] = append(reach[n], t)
				}
			}
		}
	}
	return tests, reach, nil
}

func only(name string) string { return "^" + regexp.QuoteMeta(name) + "$" }

// tryMutant runs the tests that reach a mutant, quick ones first, until one notices it.
func (b *bench) tryMutant(ctx context.Context, n int, tests []test) (verdict, error) {
	if len(tests) == 0 {
		return unreached, nil
	}
	type batch struct {
		bin, pkg string
		names    []string
		took     time.Duration
	}
	var batches []batch
	for _, t := range slices.SortedFunc(slices.Values(tests), func(a, b test) int { return int(a.took - b.took) }) {
		i := slices.IndexFunc(batches, func(b batch) bool { return b.bin == t.bin })
		if i < 0 || t.took >= slow {
			batches = append(batches, batch{bin: t.bin, pkg: t.pkg})
			i = len(batches) - 1
		}
		batches[i].names = append(batches[i].names, regexp.QuoteMeta(t.name))
		batches[i].took += t.took
	}
	for _, c := range batches {
		passed, err := b.run(ctx, c.bin, c.pkg, "^("+strings.Join(c.names, "|")+")$", 10*time.Second+5*c.took, fmt.Sprintf("MUTANT=%d", n))
		if errors.Is(err, errLate) {
			return untried, nil
		}
		if err != nil {
			return untried, err
		}
		if !passed {
			return dies, nil
		}
	}
	return survives, nil
}
