package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// figure is a line of figures.txt.
type figure struct {
	name  string
	dies  float64  // percent of its mutants, rounded down to a tenth; below zero: not measured yet
	tests []string // the packages whose tests count
}

func (f figure) String() string {
	if f.dies < 0 {
		return "not measured"
	}
	return fmt.Sprintf("%.1f %%", f.dies)
}

func readFigures(file string) ([]figure, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out []figure
	for line := range strings.Lines(string(b)) {
		w := strings.Fields(line)
		if len(w) == 0 || strings.HasPrefix(w[0], "#") {
			continue
		}
		if len(w) < 3 {
			return nil, fmt.Errorf("%s: %q is no package, figure and packages whose tests count", file, line)
		}
		f := figure{w[0], -1, w[2:]}
		if w[1] != "-" {
			if f.dies, err = strconv.ParseFloat(w[1], 64); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
		}
		out = append(out, f)
	}
	return out, nil
}

// writeFigures puts new figures into the file, whose comments stay.
func writeFigures(file string, measured map[string]float64) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var out strings.Builder
	for line := range strings.Lines(string(b)) {
		w := strings.Fields(line)
		if len(w) >= 3 {
			if n, ok := measured[w[0]]; ok {
				line = fmt.Sprintf("%-22s %5.1f  %s\n", w[0], n, strings.Join(w[2:], " "))
			}
		}
		out.WriteString(line)
	}
	return os.WriteFile(file, []byte(out.String()), 0o644)
}

// readArguments reads survivors.txt: a package and a mutant's identifier on a line, and below it, indented, why nobody could notice it.
func readArguments(file string) (map[string]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	out, of := map[string]string{}, ""
	for line := range strings.Lines(string(b)) {
		text := strings.TrimSpace(line)
		switch {
		case text == "" || strings.HasPrefix(line, "#"):
		case line[0] != ' ' && line[0] != '\t':
			of = text
			out[of] = ""
		default:
			out[of] = strings.TrimSpace(out[of] + " " + text)
		}
	}
	for id, why := range out {
		if why == "" {
			return nil, fmt.Errorf("%s: nothing says why nobody notices %q", file, id)
		}
	}
	return out, nil
}
