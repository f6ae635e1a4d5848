// Command soak runs the soak tests of this module: those that take too long for every change (build tag soak, names that begin with
// TestSoak). It is for developers and continuous integration, runs in the root of the module, and needs what the tests need.
//
//	soak [all]      every test, to the end whatever fails, and a table of results and times; -renew writes the times into the list
//	soak next       which tests continuous integration chooses at the present commit
//	soak ci -began T  those tests, as many as end by minute 70 after T (seconds since 1970)
//
// The list of tests with their measured times is list.txt; a test holds it equal to the tests that exist.
package main

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gprovision/forge/tool"
)

// listFile is where the list is, from the root of the module.
const listFile = "lab/soak/list.txt"

//go:embed list.txt
var listed string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := command(ctx, os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		code = 2
	}
	os.Exit(code)
}

// command runs one of the commands. The code is 1 if a test is red.
func command(ctx context.Context, args []string, w io.Writer) (code int, err error) {
	items, err := parseList(listed)
	if err != nil {
		return 0, err
	}
	verb := "all"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		verb, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("soak "+verb, flag.ContinueOnError)
	renew := flags.Bool("renew", false, "write the measured times into the list (all)")
	began := flags.Int64("began", time.Now().Unix(), "when the whole run began, seconds since 1970 (ci)")
	commit := flags.Int("commit", 0, "the number of commits up to the one in question; 0: of the present one (next, ci)")
	if err := flags.Parse(args); err != nil {
		return 0, err
	}
	if *commit == 0 && verb != "all" {
		if *commit, err = commits(ctx); err != nil {
			return 0, err
		}
	}
	switch verb {
	case "all":
		results := run(ctx, w, items, goTest, patient, time.Time{})
		if *renew {
			if err := os.WriteFile(listFile, []byte(renewed(items, results)), 0o644); err != nil {
				return 0, err
			}
		}
		return verdict(w, results), nil
	case "next":
		fmt.Fprintf(w, "at commit %d of a turn of %d:\n", *commit, len(turns(items)))
		for _, it := range choose(items, *commit) {
			fmt.Fprintf(w, "%5d s  %s\n", it.seconds, it.name)
		}
		return 0, nil
	case "ci":
		start := time.Unix(*began, 0)
		chosen, left := fitting(choose(items, *commit), time.Until(start.Add(lastEnd)))
		for _, it := range left {
			fmt.Fprintf(w, "not started, it could not end in time: %s\n", it.name)
		}
		return verdict(w, run(ctx, w, chosen, goTest, strict, start.Add(hardStop))), nil
	}
	return 0, fmt.Errorf("there is no command %q", verb)
}

// commits counts the commits up to the present one.
func commits(ctx context.Context) (int, error) {
	var out strings.Builder
	if err := tool.Run(ctx, nil, tool.Command{Name: "git", Package: "git", Args: []string{"rev-list", "--count", "HEAD"}, Stdout: &out}); err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(out.String()))
}
