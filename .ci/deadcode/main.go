// Command deadcode names the functions that no command reaches: golang.org/x/tools/cmd/deadcode, at the version that go.mod here pins.
// What only tests reach is dead too: it belongs into a _test.go file, or into a package that only tests import.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

func main() {
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	if err := run(root); err != nil {
		fmt.Fprintln(os.Stderr, "deadcode:", err)
		os.Exit(1)
	}
}

// kept returns the functions that no command reaches and that stay, with the reason.
func kept() map[string]string {
	return map[string]string{
		"gprovision/model/fault.All": "the codes are a contract: tests compare docs/errors.md with it",
	}
}

func run(root string) error {
	tool, err := exec.Command("go", "tool", "-n", "deadcode").Output() // builds it
	if err != nil {
		return fmt.Errorf("build it: %w", err)
	}
	var out, errs bytes.Buffer
	c := exec.Command(strings.TrimSpace(string(tool)), "-json", "./cmd/...")
	c.Dir, c.Stdout, c.Stderr = root, &out, &errs
	c.Env = append(os.Environ(), "GOGC=400") // it lives for seconds, half of which it would collect garbage
	if err := c.Run(); err != nil {
		return fmt.Errorf("%w\n%s", err, &errs)
	}
	var packages []struct {
		Path  string
		Funcs []struct {
			Name     string
			Position struct {
				File string
				Line int
			}
		}
	}
	if err := json.Unmarshal(out.Bytes(), &packages); err != nil {
		return fmt.Errorf("read what it says: %w", err)
	}
	var dead []string
	stay := kept()
	for _, p := range packages {
		for _, f := range p.Funcs {
			name := p.Path + "." + f.Name
			if _, ok := stay[name]; !ok {
				dead = append(dead, fmt.Sprintf("%s:%d: no command reaches %s", f.Position.File, f.Position.Line, name))
			}
			delete(stay, name)
		}
	}
	for name := range stay {
		dead = append(dead, fmt.Sprintf("%s is on the list of what stays, and is reached or gone", name))
	}
	if len(dead) > 0 {
		return fmt.Errorf("remove it, move it to the tests, or use it:\n%s", strings.Join(dead, "\n"))
	}
	return nil
}
