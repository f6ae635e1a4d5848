package host

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// moduleIndex is what depmod knows of a directory of modules. Names are normal.
type moduleIndex struct {
	modules map[string]module
	builtin map[string]bool
	soft    map[string]softdep
	// aliases are grouped by what stands before the first wildcard, so that a look-up tries the beginnings of a modalias
	// and compares a handful of patterns, not all.
	aliases map[string][]alias
	longest int // length of the longest key of aliases
}

type module struct {
	path   string // below the directory
	needs  []string
	drives bool // has the alias of a device
}

type softdep struct{ pre, post []string }

type alias struct{ pattern, module string }

// normal makes - and _ the same, as modprobe does.
func normal(name string) string { return strings.ReplaceAll(name, "-", "_") }

// normalPattern is normal, sparing what stands in brackets: there a dash means a range.
func normalPattern(p string) string {
	if !strings.ContainsRune(p, '[') {
		return normal(p)
	}
	b := []byte(p)
	inside := false
	for i, c := range b {
		switch {
		case c == '[':
			inside = true
		case c == ']':
			inside = false
		case c == '-' && !inside:
			b[i] = '_'
		}
	}
	return string(b)
}

// moduleName is the name of the module in a file.
func moduleName(file string) string {
	base := path.Base(file)
	if i := strings.Index(base, ".ko"); i >= 0 {
		base = base[:i]
	}
	return normal(base)
}

func readModuleIndex(dir fs.FS) (*moduleIndex, error) {
	x := &moduleIndex{modules: map[string]module{}, builtin: map[string]bool{}, soft: map[string]softdep{}, aliases: map[string][]alias{}}
	for _, f := range []struct {
		name  string
		parse func(line string) error
	}{
		{"modules.dep", x.addDep},
		{"modules.builtin", x.addBuiltin},
		{"modules.softdep", x.addSoft},
		{"modules.alias", x.addAlias},
	} {
		r, err := dir.Open(f.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		err = eachLine(r, f.parse)
		if cerr := r.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", f.name, err)
		}
	}
	return x, nil
}

func eachLine(r io.Reader, do func(string) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 1<<16), 1<<20)
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if err := do(line); err != nil {
			return fmt.Errorf("line %q: %w", line, err)
		}
	}
	return s.Err()
}

// addDep takes "kernel/a/b.ko: kernel/c/d.ko ...". The needs are listed from the nearest to the farthest.
func (x *moduleIndex) addDep(line string) error {
	file, needs, ok := strings.Cut(line, ":")
	if !ok || !fs.ValidPath(file) {
		return errors.New("want PATH: PATHS")
	}
	m := module{path: file}
	for _, n := range strings.Fields(needs) {
		m.needs = append(m.needs, moduleName(n))
	}
	// The farthest has no needs of its own: load it first.
	for i, j := 0, len(m.needs)-1; i < j; i, j = i+1, j-1 {
		m.needs[i], m.needs[j] = m.needs[j], m.needs[i]
	}
	x.modules[moduleName(file)] = m
	return nil
}

func (x *moduleIndex) addBuiltin(line string) error {
	x.builtin[moduleName(line)] = true
	return nil
}

// addSoft takes "softdep NAME pre: A B post: C".
func (x *moduleIndex) addSoft(line string) error {
	f := strings.Fields(line)
	if len(f) < 2 || f[0] != "softdep" {
		return nil
	}
	name := normal(f[1])
	s := x.soft[name]
	var to *[]string
	for _, w := range f[2:] {
		switch {
		case w == "pre:":
			to = &s.pre
		case w == "post:":
			to = &s.post
		case to != nil:
			*to = append(*to, normal(w))
		}
	}
	x.soft[name] = s
	return nil
}

// addAlias takes "alias PATTERN MODULE".
func (x *moduleIndex) addAlias(line string) error {
	rest, ok := strings.CutPrefix(line, "alias ")
	pattern, module, both := strings.Cut(rest, " ")
	if !ok || !both || strings.Contains(module, " ") {
		return nil
	}
	p := normalPattern(pattern)
	key := p
	if i := strings.IndexAny(p, `*?[\`); i >= 0 {
		key = p[:i]
	}
	module = normal(module)
	x.aliases[key] = append(x.aliases[key], alias{p, module})
	if m, ok := x.modules[module]; ok && !m.drives && strings.Contains(p, ":") { // a bus stands before the colon
		m.drives = true
		x.modules[module] = m
	}
	x.longest = max(x.longest, len(key))
	return nil
}

// match returns the modules with an alias that fits s, in the order of modules.alias within one key, without repetition.
func (x *moduleIndex) match(s string) []string {
	s = normal(s)
	var out []string
	seen := map[string]bool{}
	for n := min(len(s), x.longest); n >= 0; n-- {
		for _, a := range x.aliases[s[:n]] {
			if !seen[a.module] && glob(a.pattern, s) {
				seen[a.module] = true
				out = append(out, a.module)
			}
		}
	}
	return out
}

// glob is fnmatch(3) without flags: * ? [a-z] [!a-z] and \. A slash is a character like others, unlike in path.Match.
// Its time is bounded by len(p)*len(s).
func glob(p, s string) bool {
	pi, si := 0, 0
	star, mark := -1, 0
	for si < len(s) {
		if pi < len(p) && p[pi] == '*' {
			star, mark = pi, si
			pi++
			continue
		}
		if n, ok := one(p[pi:], s[si]); ok {
			pi += n
			si++
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		pi, si = star+1, mark
	}
	for pi < len(p) && p[pi] == '*' {
		pi++
	}
	return pi == len(p)
}

// one matches a single character and returns how much of the pattern that took.
func one(p string, c byte) (int, bool) {
	if p == "" {
		return 0, false
	}
	switch p[0] {
	case '?':
		return 1, true
	case '\\':
		if len(p) > 1 {
			return 2, p[1] == c
		}
	case '[':
		if n, ok, valid := class(p, c); valid {
			return n, ok
		}
	}
	return 1, p[0] == c
}

// class matches a bracket expression at the start of p.
func class(p string, c byte) (n int, ok, valid bool) {
	i := 1
	negate := i < len(p) && (p[i] == '!' || p[i] == '^')
	if negate {
		i++
	}
	for first := true; i < len(p) && (first || p[i] != ']'); first = false {
		lo, hi := p[i], p[i]
		if i+2 < len(p) && p[i+1] == '-' && p[i+2] != ']' {
			hi = p[i+2]
			i += 2
		}
		ok = ok || lo <= c && c <= hi
		i++
	}
	if i >= len(p) {
		return 0, false, false
	}
	return i + 1, ok != negate, true
}
