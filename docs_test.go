package gprovision

import (
	"fmt"
	"go/ast"
	"go/token"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gprovision/model/fault"
)

// TestDocComments fails for each package without a doc comment and each exported name without one.
func TestDocComments(t *testing.T) {
	fset := token.NewFileSet()
	files := load(t, fset)
	documented := map[string]bool{}
	for _, f := range files {
		documented[f.dir] = documented[f.dir] || f.ast.Doc.Text() != ""
	}
	for _, f := range files {
		if !documented[f.dir] {
			documented[f.dir] = true // say it once
			t.Errorf("%s: package %s has no doc comment: what it does, what it does not, what always holds", f.dir, f.ast.Name.Name)
		}
		for _, v := range undocumented(fset, f.ast) {
			t.Error(v)
		}
	}
}

// undocumented returns a line for each exported name of the file without a doc comment. Methods of types that are not
// exported, and Error and String, which say all by their names, are passed over.
func undocumented(fset *token.FileSet, f *ast.File) []string {
	var out []string
	say := func(n ast.Node, kind, name string) {
		out = append(out, fmt.Sprintf("%s: %s %s has no doc comment", fset.Position(n.Pos()), kind, name))
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			name := d.Name.Name
			if d.Recv != nil {
				recv := receiver(d.Recv.List[0].Type)
				if !ast.IsExported(recv) || name == "Error" || name == "String" {
					continue
				}
				name = recv + "." + name
			}
			if d.Name.IsExported() && d.Doc.Text() == "" {
				say(d, "func", name)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() && s.Doc.Text() == "" && (d.Doc.Text() == "" || d.Lparen.IsValid()) && s.Comment.Text() == "" {
						say(s, "type", s.Name.Name)
					}
				case *ast.ValueSpec:
					for _, n := range s.Names {
						if n.IsExported() && s.Doc.Text() == "" && s.Comment.Text() == "" && d.Doc.Text() == "" {
							say(s, d.Tok.String(), n.Name)
						}
					}
				}
			}
		}
	}
	return out
}

func receiver(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

// TestFaultsAreDocumented fails unless docs/errors.md has a heading for each fault code, once, with its title, and unless each fits
// a display of two lines of 20 characters.
func TestFaultsAreDocumented(t *testing.T) {
	b, err := os.ReadFile("docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	heading := regexp.MustCompile(`(?m)^### (G\d{3}) (.+)$`)
	found := map[string][]string{}
	for _, m := range heading.FindAllStringSubmatch(string(b), -1) {
		found[m[1]] = append(found[m[1]], m[2])
	}
	last := ""
	for _, f := range fault.All() {
		switch have := found[f.Code]; {
		case len(have) == 0:
			t.Errorf("docs/errors.md has no heading '### %s %s'", f.Code, f.Title)
		case len(have) > 1:
			t.Errorf("docs/errors.md has %d headings for %s", len(have), f.Code)
		case have[0] != f.Title:
			t.Errorf("docs/errors.md calls %s %q, model/fault calls it %q", f.Code, have[0], f.Title)
		}
		delete(found, f.Code)
		if !regexp.MustCompile(`^G\d{3}$`).MatchString(f.Code) || f.Code <= last {
			t.Errorf("the code %q is not G and three digits, or not in order", f.Code)
		}
		last = f.Code
		if n := len(f.Code + " " + f.Title); n > 20 {
			t.Errorf("%s: the first line %q has %d characters, a display has 20", f.Code, f.Code+" "+f.Title, n)
		}
		if n := len(f.Short); n > 20 || n == 0 {
			t.Errorf("%s: the second line %q has %d characters, want 1 to 20", f.Code, f.Short, n)
		}
		if strings.ContainsFunc(f.Title+f.Short, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%s: a display shows ASCII only", f.Code)
		}
		for what, s := range map[string]string{"text": f.Text, "hint": f.Hint} {
			if s == "" || strings.HasSuffix(s, ".") {
				t.Errorf("%s: the %s is %q, want one sentence without a full stop", f.Code, what, s)
			}
		}
	}
	for code := range found {
		t.Errorf("docs/errors.md has %s, model/fault does not", code)
	}
}

// TestFaultsOccur fails for a code that people can read about and that nothing ever says.
func TestFaultsOccur(t *testing.T) {
	said := map[string]bool{}
	var all []string
	for _, f := range load(t, token.NewFileSet()) {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if p, ok := n.X.(*ast.Ident); ok && p.Name == "fault" {
					said[n.Sel.Name] = true
				}
			case *ast.ValueSpec:
				if f.dir == "model/fault" && f.name == "table.go" {
					all = append(all, n.Names[0].Name)
				}
			}
			return true
		})
	}
	if len(all) != len(fault.All()) {
		t.Errorf("this test sees %d of %d faults", len(all), len(fault.All()))
	}
	for _, name := range all {
		if !said[name] {
			t.Errorf("nothing says fault.%s", name)
		}
	}
}

// TestDependenciesAreDocumented fails unless the table in docs/design.md has each module that go.mod requires directly, with
// the reason, and no other.
func TestDependenciesAreDocumented(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	design, err := os.ReadFile("docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(design), "\n## Dependencies\n")
	if !ok {
		t.Fatal("docs/design.md has no heading Dependencies")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	reasons := map[string]int{}
	for _, row := range regexp.MustCompile(`(?m)^\| *([\w./-]+\.[\w./-]+) *\| *\S.* *\|$`).FindAllStringSubmatch(table, -1) {
		reasons[row[1]]++
	}
	direct := regexp.MustCompile(`(?m)^(?:require |\t)([\w./-]+) v\S+$`).FindAllStringSubmatch(string(mod), -1)
	if len(direct) == 0 {
		t.Fatal("go.mod requires nothing directly")
	}
	for _, m := range direct {
		if reasons[m[1]] != 1 {
			t.Errorf("docs/design.md has %d lines for the dependency %s, want 1 with the reason for it", reasons[m[1]], m[1])
		}
		delete(reasons, m[1])
	}
	for m := range reasons {
		t.Errorf("docs/design.md has the dependency %s, go.mod does not require it directly", m)
	}
}

// TestFormats fails unless each page of docs/formats says which version the format has and which command checks it, and
// docs/formats/README.md leads to it.
func TestFormats(t *testing.T) {
	list, err := os.ReadFile("docs/formats/README.md")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob("docs/formats/*.md")
	if err != nil {
		t.Fatal(err)
	}
	checked := regexp.MustCompile("[Cc]hecked by\\s`gprov")
	for _, p := range pages {
		name := filepath.Base(p)
		if name == "README.md" {
			continue
		}
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(list), "]("+name+")") {
			t.Errorf("docs/formats/README.md does not lead to %s", name)
		}
		if !checked.Match(b) {
			t.Errorf("%s does not say \"Checked by `gprov ...`\"", p)
		}
		if !strings.Contains(strings.ToLower(string(b)), "version") {
			t.Errorf("%s does not say which version the format has", p)
		}
	}
}

// TestLinks fails for each relative link in a Markdown file that leads nowhere.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)(?: "[^"]*")?\)`)
	for _, p := range texts(t) {
		if !strings.HasSuffix(p, ".md") {
			continue
		}
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(withoutCode(string(b)), "\n") {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				u, err := url.Parse(m[1])
				if err != nil || u.Scheme != "" || u.Host != "" {
					continue
				}
				target := p
				if u.Path != "" {
					target = filepath.Join(filepath.Dir(p), filepath.FromSlash(u.Path))
				}
				if _, err := os.Stat(target); err != nil {
					t.Errorf("%s:%d: the link to %s leads nowhere", p, i+1, m[1])
				} else if u.Fragment != "" && strings.HasSuffix(target, ".md") && !hasAnchor(t, target, u.Fragment) {
					t.Errorf("%s:%d: %s has no heading for #%s", p, i+1, target, u.Fragment)
				}
			}
		}
	}
}

// withoutCode blanks fenced blocks and spans of code, and keeps the lines.
func withoutCode(s string) string {
	fenced := false
	var out []string
	span := regexp.MustCompile("`[^`]*`")
	for _, line := range strings.Split(s, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			line = ""
		}
		if fenced {
			line = ""
		}
		out = append(out, span.ReplaceAllString(line, ""))
	}
	return strings.Join(out, "\n")
}

// hasAnchor reports whether a Markdown file has a heading for the anchor, as GitHub makes them.
func hasAnchor(t *testing.T, file, anchor string) bool {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	drop := regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	for _, line := range strings.Split(string(b), "\n") {
		if title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			if strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), ""), " ", "-") == strings.ToLower(anchor) {
				return true
			}
		}
	}
	return false
}

// TestNoForeignPaths fails for each file that names a directory of the machine it was written on.
func TestNoForeignPaths(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	foreign := []*regexp.Regexp{
		regexp.MustCompile(`(^|[^\w.-])/Users/\w`),
		regexp.MustCompile(`(^|[^\w.-])/home/[\w.-]+/(go|src|work|git|code|projects?)\b`),
	}
	// The checkout itself, and its parent where that is no common directory.
	for _, p := range []string{here, filepath.Dir(here)} {
		if strings.Count(p, "/") >= 2 {
			foreign = append(foreign, regexp.MustCompile(`(^|[^\w.-])`+regexp.QuoteMeta(p)+`($|[^\w.-])`))
		} else if p != here && len(p) > 1 && !slices.Contains([]string{"/tmp", "/src", "/root", "/home", "/var", "/opt", "/srv", "/mnt", "/usr", "/run", "/build"}, p) {
			foreign = append(foreign, regexp.MustCompile(`(^|[^\w.-])`+regexp.QuoteMeta(p)+`/\w`))
		}
	}
	for _, p := range texts(t) {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(b), "\n") {
			for _, re := range foreign {
				if re.MatchString(line) && p != "docs_test.go" {
					t.Errorf("%s:%d: it names a directory of the machine it was written on: %s", p, i+1, strings.TrimSpace(line))
				}
			}
		}
	}
}

// texts returns all text files of the checkout, without what is built or hidden.
func texts(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != "." && (p == ".git" || p == "bin" || p == "data") {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil || info.Size() > 1<<20 {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if !slices.Contains(b[:min(len(b), 8000)], 0) {
			out = append(out, filepath.ToSlash(p))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestNamedTestsExist fails for a test that a page names and that is not there, or not in the package that the page gives behind it: a
// statement that it should hold would be held by nothing. A subtest is there if a test file of the package has its name in quotes, or its
// testdata has a file of that name.
func TestNamedTestsExist(t *testing.T) {
	have := map[string][]string{} // the packages that have a test of this name
	files := map[string]string{}  // what is in the test files of a package
	function := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]+)\(`)
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, "_test.go") {
			return err
		}
		b, err := os.ReadFile(file)
		dir := filepath.ToSlash(filepath.Dir(file))
		files[dir] += string(b)
		for _, m := range function.FindAllStringSubmatch(string(b), -1) {
			have[m[1]] = append(have[m[1]], dir)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named, placed, parts := 0, 0, 0
	name := regexp.MustCompile(`\b(Test[A-Z][A-Za-z0-9_]*)(?:/([A-Za-z0-9_/-]+))?` + "`?" + `(?: \(([a-z0-9]+(?:/[a-z0-9]+)*)\))?`)
	for _, page := range texts(t) {
		if !strings.HasSuffix(page, ".md") {
			continue
		}
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range name.FindAllStringSubmatch(string(b), -1) {
			in, ok := have[m[1]]
			if named++; !ok {
				t.Errorf("%s names the test %s, and there is none", page, m[1])
			}
			if m[2] != "" {
				parts++
				if !slices.ContainsFunc(in, func(dir string) bool { return hasSubtest(t, dir, files[dir], m[2]) }) {
					t.Errorf("%s names %s/%s, and %q have no such subtest", page, m[1], m[2], in)
				}
			}
			if st, err := os.Stat(m[3]); m[3] == "" || err != nil || !st.IsDir() {
				continue
			}
			if placed++; ok && !slices.Contains(in, m[3]) {
				t.Errorf("%s has the test %s in %s, and it is in %q", page, m[1], m[3], in)
			}
		}
	}
	if named < 100 || placed < 20 || parts < 10 {
		t.Errorf("only %d tests are named, %d with their package, %d subtests", named, placed, parts)
	}
}

// hasSubtest reports whether all parts of a subtest's name are in quotes in the test files of a package, or name a file of its testdata.
func hasSubtest(t *testing.T, dir, files, name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		quoted := strings.Contains(files, `"`+part+`"`) || strings.Contains(files, `"`+strings.ReplaceAll(part, "_", " ")+`"`)
		scripts, err := filepath.Glob(dir + "/testdata/*/" + part + ".*")
		if err != nil {
			t.Fatal(err)
		}
		if !quoted && len(scripts) == 0 {
			return false
		}
	}
	return true
}

// TestGlossary fails for a word of the glossary that no source file uses, and for a file, key or verb named there that none has. The place
// holders of its names, NAME and *, stand for what is not looked for.
func TestGlossary(t *testing.T) {
	b, err := os.ReadFile("docs/glossary.md")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, dir := range []string{"cli", "cmd", "factory", "forge", "hw", "lab", "model", "site", "unit"} {
		err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
				return err
			}
			b, err := os.ReadFile(file)
			all.Write(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	code := all.String()
	// Where a comment goes on in the next line a word may be parted.
	words := strings.ToLower(regexp.MustCompile(`\s+(//\s+)?`).ReplaceAllString(code, " "))
	seen := 0
	for _, m := range regexp.MustCompile(`(?m)^\*\*([^*]+)\*\*`).FindAllStringSubmatch(string(b), -1) {
		for word := range strings.SplitSeq(m[1], ", ") {
			if seen++; !regexp.MustCompile(`\b` + regexp.QuoteMeta(strings.ToLower(word)) + `s?\b`).MatchString(words) {
				t.Errorf("docs/glossary.md has the word %s, and the code does not", word)
			}
		}
	}
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(string(b), -1) {
		if seen++; !strings.Contains(code, strings.TrimSuffix(strings.TrimPrefix(m[1], "NAME"), "*")) {
			t.Errorf("docs/glossary.md names %s, and the code does not", m[1])
		}
	}
	if seen < 60 {
		t.Errorf("only %d words and names are seen", seen)
	}
}

// stepsOf returns the names of the steps of a job, in order: those of its function steps.
func stepsOf(t *testing.T, job string) []string {
	t.Helper()
	var names []string
	for _, f := range load(t, token.NewFileSet()) {
		if f.dir != "unit/job/"+job {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "steps" {
				ast.Inspect(fn, func(n ast.Node) bool {
					if kv, ok := n.(*ast.KeyValueExpr); ok {
						if k, ok := kv.Key.(*ast.Ident); ok && k.Name == "Name" {
							names = append(names, literal(kv.Value))
						}
					}
					return true
				})
			}
		}
	}
	if len(names) == 0 {
		t.Fatalf("this test does not see the steps of %s", job)
	}
	return names
}

// TestStepsOfTheReadme fails for a step of a job in README.md that is not where the README has it.
func TestStepsOfTheReadme(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	seen := 0
	for _, line := range strings.Split(string(b), "\n") {
		if m := regexp.MustCompile(`the unit decides: ([a-z]+),`).FindStringSubmatch(line); m != nil && m[1] != "boot" {
			steps = stepsOf(t, m[1])
		}
		m := regexp.MustCompile(`^ +\d+:\d\d +(\d+)/(\d+) ([a-z-]+)$`).FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if want := fmt.Sprintf("%d/%d", slices.Index(steps, m[3])+1, len(steps)); m[1]+"/"+m[2] != want {
			t.Errorf("README.md has the step %s as %s/%s, it is %s", m[3], m[1], m[2], want)
		}
		seen++
	}
	if seen < 5 {
		t.Errorf("only %d steps are seen", seen)
	}
}

// TestBenchmarksPage fails for a command or a variable that docs/benchmarks.md names and the benchmarks do not use, or the other way round.
func TestBenchmarksPage(t *testing.T) {
	page, err := os.ReadFile("docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, name := range []string{"lab/bench_test.go", "lab/bench_boot_test.go"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(b)
	}
	variables := func(s string) []string {
		all := regexp.MustCompile(`GPROV_BENCH_[A-Z]+`).FindAllString(s, -1)
		slices.Sort(all)
		return slices.DeleteFunc(slices.Compact(all), func(v string) bool { return v == "GPROV_BENCH_CHILD" })
	}
	if said, have := variables(string(page)), variables(code.String()); !slices.Equal(said, have) {
		t.Errorf("docs/benchmarks.md has %v, the benchmarks %v", said, have)
	}
	_, measured, _ := strings.Cut(string(page), "\n## What is measured\n")
	measured, _, _ = strings.Cut(measured, "\n## ")
	seen := 0
	for _, m := range regexp.MustCompile("`((?:tar|xz|minisign|mkinitramfs|dracut) ?[^`]*)`").FindAllStringSubmatch(measured, -1) {
		// FILE, DIR and "..." stand for what the code puts in.
		for _, part := range regexp.MustCompile(`\.\.\.|\bFILE\b|\bDIR\b|\\\||&&`).Split(m[1], -1) {
			if part = strings.TrimSpace(part); part == "" {
				continue
			}
			if seen++; !strings.Contains(code.String(), part) {
				t.Errorf("docs/benchmarks.md measures %q, the benchmarks have no %q", m[1], part)
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d parts of commands are seen", seen)
	}
	for says, has := range map[string]string{
		"five rounds (three for builds)": `"GPROV_BENCH_ROUNDS", 5), benchCount(t, "GPROV_BENCH_BUILDS", 3)`,
	} {
		if !strings.Contains(string(page), says) || !strings.Contains(code.String(), has) {
			t.Errorf("docs/benchmarks.md says %q, the benchmarks %q", says, has)
		}
	}
}

// TestRooms fails unless the page of each wing, its README.md, has a row for each package below it that says what is in it, and
// no other row, and unless the picture of docs/design.md has the names of those that are not a part of another. A wing without packages
// below it says all in its package comment.
func TestRooms(t *testing.T) {
	rooms := map[string][]string{}
	for _, f := range load(t, token.NewFileSet()) {
		if wing, room, ok := strings.Cut(f.dir, "/"); ok && wing != "cmd" && !slices.Contains(rooms[wing], room) {
			rooms[wing] = append(rooms[wing], room)
		}
	}
	if len(rooms) < 7 {
		t.Fatalf("this test does not see the wings: %v", rooms)
	}
	design, err := os.ReadFile("docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	_, picture, _ := strings.Cut(string(design), "\n## The house in one picture\n")
	picture, _, _ = strings.Cut(picture, "\n## ")
	row := regexp.MustCompile(`(?m)^\| \[([a-z0-9/]+)\]\(([a-z0-9/]+)/\) \| [^|]*\S[^|]* \|[^|]*\|$`)
	for wing, have := range rooms {
		b, err := os.ReadFile(wing + "/README.md")
		if err != nil {
			t.Errorf("%v: a table with a row for each of %v", err, have)
			continue
		}
		var said []string
		for _, m := range row.FindAllStringSubmatch(string(b), -1) {
			if said = append(said, m[1]); m[1] != m[2] {
				t.Errorf("%s/README.md: %s leads to %s", wing, m[1], m[2])
			}
		}
		for _, room := range have {
			if !slices.Contains(said, room) {
				t.Errorf("%s/README.md has no row | [%s](%s/) | what is in it | what is not |", wing, room, room)
			}
			if strings.Contains(strings.TrimPrefix(room, "job/"), "/") {
				continue // a part of its room
			}
			if !regexp.MustCompile(`\b` + path.Base(room) + `\b`).MatchString(picture) {
				t.Errorf("the picture of docs/design.md does not have %s/%s", wing, room)
			}
		}
		for _, room := range said {
			if !slices.Contains(have, room) {
				t.Errorf("%s/README.md has a row for %s, and there is no such package", wing, room)
			}
		}
	}
}

// TestExamples fails for a package of hw, each of which says that it is usable alone, without an example of that.
func TestExamples(t *testing.T) {
	example := regexp.MustCompile(`(?m)^func Example[A-Za-z0-9_]*\(\) \{$`)
	seen := map[string]bool{}
	for _, f := range load(t, token.NewFileSet()) {
		if !strings.HasPrefix(f.dir, "hw/") || seen[f.dir] {
			continue
		}
		seen[f.dir] = true
		b, err := os.ReadFile(f.dir + "/example_test.go")
		if err != nil || !example.Match(b) {
			t.Errorf("%s/example_test.go has no function Example: %v", f.dir, err)
		}
	}
	if len(seen) < 10 {
		t.Errorf("this test does not see the packages of hw: %v", seen)
	}
}

// TestTour fails for a file, a test or a symbol that docs/tour.md names and that is not there. A symbol is written PACKAGE.NAME, or
// PACKAGE.TYPE.METHOD.
func TestTour(t *testing.T) {
	b, err := os.ReadFile("docs/tour.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	seen := 0
	for _, p := range regexp.MustCompile(`\b(?:unit|factory|forge|hw|model|lab|cli|cmd|site)/[\w./-]*\w`).FindAllString(text, -1) {
		if seen++; !exists(p) {
			t.Errorf("docs/tour.md names %s, and there is none", p)
		}
	}
	have := symbols(t)
	file := []string{"go", "md", "upd", "minisig", "json", "txtar", "txt", "ipxe", "pxe"}
	for _, m := range regexp.MustCompile(`\b([a-z]\w*)\.([A-Za-z]\w*)(\.[A-Z]\w*)?`).FindAllStringSubmatch(text, -1) {
		if slices.Contains(file, m[2]) {
			continue
		}
		if seen++; !have[m[0]] {
			t.Errorf("docs/tour.md names %s, and there is none", m[0])
		}
	}
	if seen < 80 {
		t.Errorf("only %d files and symbols are seen", seen)
	}
	if files := regexp.MustCompile(`(?m)^\| \[[a-z0-9_/]+\.go\]\(`).FindAllString(text, -1); len(files) != 8 {
		t.Errorf("docs/tour.md has %d files to read, not eight", len(files))
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// symbols returns all that is declared, as PACKAGE.NAME and PACKAGE.TYPE.METHOD.
func symbols(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, f := range load(t, token.NewFileSet()) {
		pkg := f.ast.Name.Name + "."
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				name := d.Name.Name
				out[pkg+name] = true // pid1.pass, whoever has it
				if d.Recv != nil {
					out[pkg+receiver(d.Recv.List[0].Type)+"."+name] = true
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						out[pkg+s.Name.Name] = true
					case *ast.ValueSpec:
						for _, n := range s.Names {
							out[pkg+n.Name] = true
						}
					}
				}
			}
		}
	}
	return out
}
