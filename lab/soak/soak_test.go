package main

import (
	"context"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func list(t *testing.T) []item {
	t.Helper()
	items, err := parseList(listed)
	if err != nil {
		t.Fatal(err)
	}
	return items
}

// TestListIsComplete: the tests of the list are those of the sources, each once.
func TestListIsComplete(t *testing.T) {
	var want, got []string
	err := filepath.WalkDir("../..", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." {
			return fs.SkipDir
		}
		if !strings.HasSuffix(p, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, 0)
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && strings.HasPrefix(fn.Name.Name, "TestSoak") {
				rel, err := filepath.Rel("../..", filepath.Dir(p))
				if err != nil {
					return err
				}
				want = append(want, "./"+path.Join(filepath.ToSlash(rel))+" "+fn.Name.Name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range list(t) {
		got = append(got, it.pkg+" "+it.name)
	}
	slices.Sort(want)
	slices.Sort(got)
	if len(want) < 30 || !slices.Equal(got, want) {
		t.Errorf("%s has\n%s\nand the tests are\n%s", listFile, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestBudget: all tests end within three hours, and continuous integration comes to each of them within two days of twenty commits, after other
// tests that take no longer than they should.
func TestBudget(t *testing.T) {
	items := list(t)
	first, rest := split(items)
	if all := need(rest)*2/3 + time.Duration(first.seconds)*time.Second; all > 3*time.Hour {
		t.Errorf("all tests take %s", all)
	}
	groups := turns(items)
	if len(groups) > 2*20 {
		t.Errorf("it takes %d commits to run all", len(groups))
	}
	for _, g := range groups {
		if n := need(g); n > lastEnd-otherTests {
			t.Errorf("%v needs %s and is never run: shorten or split it", g, n)
		}
	}
	seen := map[string]int{}
	for commit := 1000; commit < 1000+len(groups); commit++ {
		fit, left := fitting(choose(items, commit), lastEnd-otherTests)
		if len(left) > 0 {
			t.Errorf("at commit %d nothing is left for %v", commit, left)
		}
		for _, it := range fit {
			seen[it.name]++
		}
	}
	for _, it := range rest {
		if seen[it.name] != 1 {
			t.Errorf("%s is run %d times in a turn", it.name, seen[it.name])
		}
	}
}

// TestFitting: what cannot end in time is not started, and comes first another time.
func TestFitting(t *testing.T) {
	items := []item{{"./lab", fixture, 100}, {"./lab", "A", 200}, {"./lab", "B", 200}, {"./lab", "C", 200}}
	names := func(items []item) (out []string) {
		for _, it := range items {
			out = append(out, it.name)
		}
		return out
	}
	for _, c := range []struct {
		commit    int
		left      time.Duration
		fit, over []string
	}{
		{0, time.Hour, []string{fixture, "A", "B", "C"}, nil},
		{1, time.Hour, []string{fixture, "B", "C", "A"}, nil},
		{0, 490 * time.Second, []string{fixture, "A", "B", "C"}, nil}, // (60 + (600+200)/3) * 1.5
		{1, 488 * time.Second, []string{fixture, "B", "C"}, []string{"A"}},
		{0, 389 * time.Second, nil, []string{"A", "B", "C"}},
		{0, -time.Minute, nil, []string{"A", "B", "C"}},
	} {
		fit, over := fitting(choose(items, c.commit), c.left)
		if !slices.Equal(names(fit), c.fit) || !slices.Equal(names(over), c.over) {
			t.Errorf("commit %d, %s: started are %q, left are %q", c.commit, c.left, names(fit), names(over))
		}
	}
}

// script is a tester whose tests do what their names say.
func script(calls *[][]string) tester {
	return func(ctx context.Context, pkg string, names []string, w io.Writer) error {
		*calls = append(*calls, names)
		say := func(action, test string) {
			_ = json.NewEncoder(w).Encode(line{Action: action, Test: test, Output: "said by " + test + "\n"})
		}
		for _, n := range names {
			say("run", n)
			say("output", n)
			say("run", n+"/sub")
			say("fail", n+"/sub")
			switch {
			case strings.HasPrefix(n, "Hang"):
				<-ctx.Done()
				return ctx.Err()
			case strings.HasPrefix(n, "Crash"):
				return errors.New("a crash")
			case strings.HasPrefix(n, "Fail"):
				say("fail", n)
			default:
				say("pass", n)
			}
		}
		return nil
	}
}

// TestRun: what fails, hangs or ends its process does not keep the others from being run, and is red with its reason.
func TestRun(t *testing.T) {
	items := []item{{"./lab", fixture, 1}}
	for _, n := range []string{"A", "Fail", "B", "Hang", "C", "Crash", "D"} {
		items = append(items, item{"./lab", n, 1})
	}
	var calls [][]string
	var said strings.Builder
	results := run(t.Context(), &said, items, script(&calls), func(item) time.Duration { return time.Millisecond }, time.Time{})
	got := map[string]string{}
	for _, r := range results {
		got[r.name] += r.state
	}
	want := map[string]string{fixture: passed, "A": passed, "Fail": failed, "B": passed, "Hang": ended, "C": passed, "Crash": lost, "D": passed}
	for n, state := range want {
		if got[n] != state {
			t.Errorf("%s is %q, want %q", n, got[n], state)
		}
	}
	if len(got) != len(want) || len(calls) != 3 || calls[1][0] != fixture || calls[1][1] != "C" || calls[2][1] != "D" {
		t.Errorf("results %v, runs %q", got, calls)
	}
	var table strings.Builder
	if verdict(&table, results) != 1 || !strings.Contains(table.String(), "it ran over its time: 1ms, measured were 1 s") || !strings.Contains(said.String(), "said by Fail") {
		t.Errorf("%s\n%s", said.String(), table.String())
	}
	if s := said.String(); strings.Contains(s, "said by A") {
		t.Errorf("what a good test says is shown: %s", s)
	}
}

// TestRunStops: at the time for all, everything is ended and red.
func TestRunStops(t *testing.T) {
	var calls [][]string
	results := run(t.Context(), io.Discard, []item{{"./lab", "A", 1}, {"./lab", "Hang", 1}, {"./lab", "B", 1}}, script(&calls), patient, time.Now().Add(10*time.Millisecond))
	var got []string
	for _, r := range results {
		got = append(got, r.name+" "+r.state)
	}
	if want := []string{"A ok", "Hang ENDED", "B ENDED"}; !slices.Equal(got, want) || verdict(io.Discard, results) != 1 {
		t.Errorf("got %q, want %q", got, want)
	}
	if verdict(io.Discard, results[:1]) != 0 {
		t.Error("a test that passed is red")
	}
}

// TestRunWithoutTests: where nothing can be built, everything is red.
func TestRunWithoutTests(t *testing.T) {
	broken := func(context.Context, string, []string, io.Writer) error { return errors.New("build failed") }
	results := run(t.Context(), io.Discard, []item{{"./lab", "A", 1}}, broken, patient, time.Time{})
	if len(results) != 1 || results[0].state != lost || !strings.Contains(results[0].why, "build failed") {
		t.Errorf("got %+v", results)
	}
}

func TestRenewed(t *testing.T) {
	items := []item{{"./lab", "A", 1}, {"./forge/boot", "B", 2}}
	text := renewed(items, []result{{item: items[0], state: passed, took: 9500 * time.Millisecond}, {item: items[1], state: failed, took: time.Hour}})
	got, err := parseList(text)
	if want := []item{{"./lab", "A", 10}, {"./forge/boot", "B", 2}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%s: %v, %v", text, got, err)
	}
	if _, err := parseList("x ./lab A"); err == nil {
		t.Error("a line that is none is taken")
	}
}
