// Command mutants breaks the code on purpose, one small change at a time, and tells which changes no unit test notices.
//
//	mutants -root DIR [-packages LIST] [-base COMMIT] [-minutes N] [-workers N] [-record DIR] [-renew]
//
// There are two kinds. Those made by hand are in hand.txt: each is a way to lose data, and the named test must fail. The others are made
// by rules (rules.go) in the packages of figures.txt: the share that is noticed may not fall below the figure there, and -renew writes
// what was measured. Survivors that change nothing anybody could notice are argued in survivors.txt.
//
// All mutants of a package are compiled in at once, each behind a switch that an environment variable closes. So a mutant costs a run of
// the tests that reach it and no compilation, and a test of another package counts as well. That is why this is not gremlins, which
// compiles for each mutant and runs the tests of its own package or those of the whole module.
//
// A package can take an hour. With -record it can be measured in pieces, and after a new test only what lived is tried again. A record
// counts only for the same code; it does not notice that a test became weaker, which a run without it does.
//
// Everything happens in a copy of the tree. Changed code that handles disks must not run as root: as root, the tests run as nobody.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context) error {
	root := flag.String("root", "../..", "the root of the module")
	only := flag.String("packages", "", "measure these packages only, with spaces between; hand: those made by hand")
	base := flag.String("base", "", "measure the packages only that changed since this commit")
	minutes := flag.Int("minutes", 0, "measure for as many minutes; 0: to the end")
	workers := flag.Int("workers", runtime.NumCPU(), "how many mutants are tried at a time")
	renew := flag.Bool("renew", false, "write the figures")
	record := flag.String("record", "", "a directory that keeps what became of each mutant; those that died are not tried again")
	check := flag.Bool("check", false, "see only that each mutation made by hand can be made, and that all of them compile")
	flag.Parse()
	b, err := newBench(*root, *workers)
	if err != nil {
		return err
	}
	defer b.close()
	b.record = *record
	if *minutes > 0 {
		b.end = time.Now().Add(time.Duration(*minutes) * time.Minute)
	}
	here := filepath.Join(*root, ".ci/mutants")
	if *check {
		return b.checkHand(ctx, filepath.Join(here, "hand.txt"))
	}
	figures, err := readFigures(filepath.Join(here, "figures.txt"))
	if err != nil {
		return err
	}
	chosen, hand := strings.Fields(*only), true
	if len(chosen) > 0 {
		hand = slices.Contains(chosen, "hand")
	} else if *base != "" {
		if chosen, hand, err = changed(ctx, *root, *base, figures); err != nil {
			return err
		}
	}
	var all error
	if hand {
		all = b.tryHand(ctx, filepath.Join(here, "hand.txt"))
	}
	return errors.Join(all, b.measure(ctx, here, figures, chosen, *base != "" || *only != "", *renew))
}

// changed returns the packages of figures that changed since a commit, and whether anything did that mutants made by hand are about.
func changed(ctx context.Context, root, base string, figures []figure) (packages []string, hand bool, err error) {
	cmd := exec.CommandContext(ctx, "git", "-C", root, "diff", "--name-only", base)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, false, fmt.Errorf("git diff %s: %w", base, err)
	}
	for name := range strings.Lines(string(out)) {
		name = strings.TrimSpace(name)
		dir := filepath.Dir(name)
		hand = hand || strings.HasPrefix(name, "unit/") || strings.HasPrefix(name, ".ci/mutants/")
		is := func(f figure) bool { return f.name == dir }
		if filepath.Ext(name) == ".go" && slices.ContainsFunc(figures, is) && !slices.Contains(packages, dir) {
			packages = append(packages, dir)
		}
	}
	return packages, hand, nil
}
