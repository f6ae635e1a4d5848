package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// handMade is a mutation of hand.txt.
type handMade struct {
	name     string
	pkg      string // whose test must notice it
	test     string
	from, to string
}

// handLimit is how long the test of a mutation made by hand may take.
const handLimit = 5 * time.Minute

func parseHand(text string) ([]handMade, error) {
	var out []handMade
	for block := range strings.SplitSeq(text, "\n\n") {
		var h handMade
		for line := range strings.Lines(block) {
			switch {
			case strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "":
			case line[0] == '-':
				h.from += line[1:]
			case line[0] == '+':
				h.to += line[1:]
			case strings.HasPrefix(line, "test "):
				if _, err := fmt.Sscanf(line, "test ./%s %s", &h.pkg, &h.test); err != nil {
					return nil, fmt.Errorf("%q: %w", line, err)
				}
			default:
				h.name = strings.TrimSpace(line)
			}
		}
		h.from, h.to = strings.TrimSuffix(h.from, "\n"), strings.TrimSuffix(h.to, "\n")
		if h == (handMade{}) {
			continue
		}
		if h.name == "" || h.pkg == "" || h.from == "" || h.to == "" {
			return nil, fmt.Errorf("a mutation needs a name, a test, lines with - and lines with +: %+v", h)
		}
		out = append(out, h)
	}
	return out, nil
}

// find returns the file of unit or hw that has the text, and how it reads after the mutation.
func (b *bench) find(h handMade) (name, text string, err error) {
	var in []string
	for _, wing := range []string{"unit", "hw"} {
		err := filepath.WalkDir(filepath.Join(b.tree, wing), func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(p) != ".go" || strings.HasSuffix(p, "_test.go") {
				return err
			}
			src, err := os.ReadFile(p)
			for range strings.Count(string(src), h.from) {
				in = append(in, p)
				text = strings.Replace(string(src), h.from, h.to, 1)
			}
			return err
		})
		if err != nil {
			return "", "", err
		}
	}
	if len(in) != 1 {
		return "", "", fmt.Errorf("%s: its lines are found %d times in unit and hw: bring hand.txt up to date", h.name, len(in))
	}
	name, err = filepath.Rel(b.tree, in[0])
	return name, text, err
}

// checkHand makes all mutations of hand.txt at a time. It is an error if one cannot be made any more, if what they make does not
// compile, or if a test that must notice one is gone.
func (b *bench) checkHand(ctx context.Context, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	all, err := parseHand(string(text))
	if err != nil {
		return err
	}
	var bad error
	for _, h := range all {
		name, text, err := b.find(h)
		if err != nil {
			bad = errors.Join(bad, err)
			continue
		}
		if err := os.WriteFile(filepath.Join(b.tree, name), []byte(text), 0o644); err != nil {
			return err
		}
		if err := b.hasTest(h); err != nil {
			bad = errors.Join(bad, err)
		}
	}
	cmd := exec.CommandContext(ctx, "go", "build", "./unit/...", "./hw/...")
	cmd.Dir = b.tree
	if out, err := cmd.CombinedOutput(); err != nil {
		bad = errors.Join(bad, fmt.Errorf("with its mutations the code does not compile, bring hand.txt up to date: %w\n%s", err, out))
	}
	return bad
}

// hasTest is an error if the test of a mutation is not in its package.
func (b *bench) hasTest(h handMade) error {
	files, err := filepath.Glob(filepath.Join(b.tree, h.pkg, "*_test.go"))
	if err != nil {
		return err
	}
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if strings.Contains(string(src), "func "+h.test+"(") {
			return nil
		}
	}
	return fmt.Errorf("%s: there is no %s in %s: bring hand.txt up to date", h.name, h.test, h.pkg)
}

// tryHand tries the mutations made by hand. It is an error if one is not noticed, or cannot be made any more.
func (b *bench) tryHand(ctx context.Context, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	all, err := parseHand(string(text))
	if err != nil {
		return err
	}
	var bad error
	pass := map[string]bool{} // whether a test passes where nothing was changed
	for i, h := range all {
		key := h.pkg + " " + h.test
		var survives bool
		var err error
		if !pass[key] {
			pass[key], err = b.try(ctx, h)
			if err == nil && !pass[key] {
				return errors.Join(bad, fmt.Errorf("%s is red without a mutation; or it is skipped here: the tests do not run as root", key))
			}
		}
		if err == nil {
			survives, err = b.mutate(ctx, h)
		}
		switch {
		case errors.Is(err, errLate):
			fmt.Printf("by hand: the time is up, %d of %d were tried\n", i, len(all))
			return bad
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			bad = errors.Join(bad, err)
		case survives:
			bad = errors.Join(bad, fmt.Errorf("%s: %s does not notice it", h.name, key))
		default:
			fmt.Printf("dies      %s (%s)\n", h.name, key)
		}
	}
	return bad
}

// mutate makes a mutation, and reports whether its test passes all the same.
func (b *bench) mutate(ctx context.Context, h handMade) (survives bool, err error) {
	name, text, err := b.find(h)
	if err != nil {
		return false, err
	}
	undo, err := b.edit(name, text)
	if err != nil {
		return false, err
	}
	survives, err = b.try(ctx, h)
	return survives, errors.Join(err, undo())
}

func (b *bench) try(ctx context.Context, h handMade) (passes bool, err error) {
	bin, err := b.build(ctx, h.pkg)
	if err != nil {
		return false, fmt.Errorf("%s: %w", h.name, err)
	}
	return b.run(ctx, bin, h.pkg, only(h.test), handLimit, "GPROV_NO_SKIP=1") // a test that is skipped passes, and notices nothing
}
