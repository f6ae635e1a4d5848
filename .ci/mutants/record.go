package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A record has a line with the hash of the package's code, and then a line for each mutant: what became of it, and its identifier.

func (b *bench) recordFile(pkg string) string {
	return filepath.Join(b.record, strings.ReplaceAll(pkg, "/", "_"))
}

// readRecord returns the identifiers of the mutants that died before, with the same code. There are none where nothing is recorded.
func (b *bench) readRecord(pkg string) (map[string]bool, error) {
	if b.record == "" {
		return nil, nil
	}
	text, err := os.ReadFile(b.recordFile(pkg))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	code, err := b.code(pkg)
	if err != nil {
		return nil, err
	}
	head, rest, _ := strings.Cut(string(text), "\n")
	if head != code {
		fmt.Printf("%s: the record is of other code, and does not count\n", pkg)
		return nil, nil
	}
	died := map[string]bool{}
	for line := range strings.Lines(rest) {
		if v, id, _ := strings.Cut(strings.TrimSpace(line), "\t"); verdict(v) == dies {
			died[id] = true
		}
	}
	return died, nil
}

func (b *bench) writeRecord(pkg string, mutants []mutant, verdicts []verdict) error {
	if b.record == "" {
		return nil
	}
	code, err := b.code(pkg)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	fmt.Fprintln(&out, code)
	for i, m := range mutants {
		fmt.Fprintf(&out, "%s\t%s\n", verdicts[i], m.id)
	}
	return errors.Join(os.MkdirAll(b.record, 0o755), os.WriteFile(b.recordFile(pkg), out.Bytes(), 0o644))
}

// code returns the hash of a package's files, as they are with the mutants in, tests apart.
func (b *bench) code(pkg string) (string, error) {
	files, err := filepath.Glob(filepath.Join(b.tree, pkg, "*.go"))
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n", filepath.Base(f), len(text))
		h.Write(text)
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}
