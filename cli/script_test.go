package cli

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/rogpeppe/go-internal/testscript"

	"gprovision/cli/unitcmd"
	"gprovision/site"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"gprov": func() { os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr, site.Stock(), "r42")) },
		"gprov-unit": func() {
			os.Exit(unitcmd.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, site.Stock(), "r42"))
		},
	})
}

// TestScript runs gprov as a person or a script does: testdata/script says what is typed, and what must come of it.
func TestScript(t *testing.T) {
	for _, p := range []string{"bash", "tar", "xz"} {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("GPROV_NO_SKIP") == "1" {
				t.Fatalf("program %s is missing", p)
			}
			t.Skipf("program %s is missing", p)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("SOURCE_DATE_EPOCH", "1795305600") // 2026-11-22 00:00 UTC
			return nil
		},
		Condition: func(c string) (bool, error) {
			if c == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", c)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": status, "flip": flip},
	})
}

// status N PROGRAM ARGS... runs a program that must end with the exit status N.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N PROGRAM ARGS...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("%v: status %s, want %s", args[1:], got, args[0])
	}
}

// flip FILE changes one bit in the middle of a file.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: flip FILE")
	}
	name := ts.MkAbs(args[0])
	b, err := os.ReadFile(name)
	ts.Check(err)
	b[len(b)/2] ^= 1
	ts.Check(os.WriteFile(name, b, 0o644))
}

// TestHelp checks that every verb says in one sentence what it does, shows how it is called, and that each flag is explained.
func TestHelp(t *testing.T) {
	k, err := parser(&Context{Stdout: io.Discard, Stderr: io.Discard, Version: "r42"}, &Commands{})
	if err != nil {
		t.Fatal(err)
	}
	var walk func(*kong.Node)
	walk = func(n *kong.Node) {
		path := strings.TrimSpace("gprov " + n.Path())
		if n.Type == kong.ApplicationNode {
			path = "gprov"
		}
		if !strings.HasSuffix(n.Help, ".") {
			t.Errorf("%s: the help is %q, want a sentence", path, n.Help)
		}
		if n.Leaf() || n.Type == kong.ApplicationNode {
			if _, examples, ok := strings.Cut(n.Detail, "Example"); !ok || !strings.Contains(examples, path) {
				t.Errorf("%s: --help shows no example", path)
			}
		}
		for _, f := range n.Flags {
			if f.Help == "" {
				t.Errorf("%s --%s: no help", path, f.Name)
			}
		}
		for _, p := range n.Positional {
			if p.Help == "" {
				t.Errorf("%s <%s>: no help", path, p.Name)
			}
		}
		for _, c := range n.Children {
			walk(c)
		}
	}
	walk(k.Model.Node)
}
