package gprovision

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// The rules of size. What broke one when it was made is listed in .ci/tidy with its number, and each number may only go down.
const (
	maxFields    = 12  // of a type of unit that has methods
	maxMethods   = 25  // of a type of unit
	maxFuncLines = 70  // of a function outside of tests
	maxColumns   = 140 // of a line, a tab being one
)

// ratchet is a rule with the numbers that are over its limit, and the list of those that may be.
type ratchet struct {
	file  string // the list
	over  string // what a number over the limit is, with a verb for it
	limit int
	found map[string]int // what was measured; those within the limit may be missing
}

// ratchets measures the module.
func ratchets(t *testing.T) []ratchet {
	fset := token.NewFileSet()
	files := load(t, fset)
	fields, methods := sizes(files)
	return []ratchet{
		{".ci/tidy/fields.txt", "fields of a type that has methods", maxFields, fields},
		{".ci/tidy/methods.txt", "methods of a type", maxMethods, methods},
		{".ci/tidy/functions.txt", "lines of a function", maxFuncLines, functionLines(fset, files)},
		{".ci/tidy/wide.txt", fmt.Sprintf("lines above %d columns", maxColumns), 0, wideLines(t)},
	}
}

// TestTidy fails for what is too large and not listed, and for a list that is longer or has a higher number than it must have. With
// GPROV_TIDY=lower it shortens the lists first; it never makes one longer.
func TestTidy(t *testing.T) {
	for _, r := range ratchets(t) {
		if len(r.found) == 0 {
			t.Errorf("%s: nothing was measured", r.file)
		}
		b, err := os.ReadFile(r.file)
		if err != nil {
			t.Fatal(err)
		}
		if os.Getenv("GPROV_TIDY") == "lower" {
			b = r.lower(b)
			if err := os.WriteFile(r.file, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for _, v := range r.violations(string(b)) {
			t.Error(v)
		}
	}
}

// entry splits a line of a list: a name and its number. ok is false for a comment and an empty line.
func entry(line string) (name string, n int, ok bool, err error) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return "", 0, false, nil
	}
	name, number, _ := strings.Cut(line, " ")
	n, err = strconv.Atoi(number)
	return name, n, true, err
}

// violations returns what is over the limit and not listed, and what is listed and need not be.
func (r ratchet) violations(list string) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	listed := map[string]int{}
	for line := range strings.Lines(list) {
		name, n, ok, err := entry(line)
		if err != nil {
			say("%s: %q is no name and number", r.file, line)
		}
		if _, twice := listed[name]; ok && twice {
			say("%s: %s is listed twice", r.file, name)
		}
		if ok {
			listed[name] = n
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.found)) {
		n := r.found[name]
		was, ok := listed[name]
		switch {
		case n > r.limit && !ok:
			say("%s: %d %s, at most %d: make it smaller (nothing is added to %s)", name, n, r.over, r.limit, r.file)
		case n > r.limit && n > was:
			say("%s: %d %s, it had %d: make it smaller (no number of %s goes up)", name, n, r.over, was, r.file)
		case n > r.limit && n < was:
			say("%s: %d %s, and %s still has %d: make tidy", name, n, r.over, r.file, was)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		if r.found[name] <= r.limit {
			say("%s: %s need not be listed any more: make tidy", r.file, name)
		}
	}
	return out
}

// lower returns the list with what it must have and nothing else: no new line, no higher number.
func (r ratchet) lower(list []byte) []byte {
	var out strings.Builder
	for line := range strings.Lines(string(list)) {
		name, n, ok, err := entry(line)
		if !ok || err != nil {
			out.WriteString(line)
		} else if r.found[name] > r.limit {
			fmt.Fprintf(&out, "%s %d\n", name, min(n, r.found[name]))
		}
	}
	return []byte(out.String())
}

// structure is a type as it was written: its own fields, and the types that it embeds.
type structure struct {
	own    int
	embeds []string
}

// sizes counts fields and methods of the types of unit that have methods, those of embedded types of unit too.
func sizes(files []sourceFile) (fields, methods map[string]int) {
	structs, own := map[string]structure{}, map[string]int{}
	for _, f := range files {
		if wing, _ := wingOf(f.dir); wing != "unit" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv != nil {
					own[f.dir+"."+receiver(n.Recv.List[0].Type)]++
				}
				return false
			case *ast.TypeSpec:
				if st, ok := n.Type.(*ast.StructType); ok {
					structs[f.dir+"."+n.Name.Name] = structureOf(f, st)
				}
				return false
			}
			return true
		})
	}
	var count func(name string) (nf, nm int)
	count = func(name string) (nf, nm int) {
		nf, nm = structs[name].own, own[name]
		for _, e := range structs[name].embeds {
			ef, em := count(e)
			nf, nm = nf+max(1, ef), nm+em
		}
		return nf, nm
	}
	fields, methods = map[string]int{}, map[string]int{}
	for name := range own {
		fields[name], methods[name] = count(name)
	}
	return fields, methods
}

// structureOf reads one type.
func structureOf(f sourceFile, st *ast.StructType) structure {
	var out structure
	for _, field := range st.Fields.List {
		out.own += len(field.Names)
		if len(field.Names) > 0 {
			continue
		}
		e := field.Type
		if star, ok := e.(*ast.StarExpr); ok {
			e = star.X
		}
		sel, ok := e.(*ast.SelectorExpr)
		if !ok {
			out.embeds = append(out.embeds, f.dir+"."+receiver(e))
			continue
		}
		for _, imp := range f.ast.Imports {
			p, _ := strconv.Unquote(imp.Path.Value)
			name := importName(p)
			if imp.Name != nil {
				name = imp.Name.Name
			}
			if name == sel.X.(*ast.Ident).Name {
				out.embeds = append(out.embeds, strings.TrimPrefix(p, module+"/")+"."+sel.Sel.Name)
			}
		}
	}
	return out
}

// functionLines counts the lines of each function. One that only returns a table is data.
func functionLines(fset *token.FileSet, files []sourceFile) map[string]int {
	out := map[string]int{}
	for _, f := range files {
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil || returnsTable(fn.Body) {
				continue
			}
			name := f.dir + "."
			if fn.Recv != nil {
				name += receiver(fn.Recv.List[0].Type) + "."
			}
			name += fn.Name.Name
			out[name] = max(out[name], fset.Position(fn.End()).Line-fset.Position(fn.Pos()).Line+1)
		}
	}
	return out
}

// returnsTable reports whether a function only returns a literal, and each function inside of it only returns something too.
func returnsTable(body *ast.BlockStmt) bool {
	returns := func(body *ast.BlockStmt) *ast.ReturnStmt {
		if len(body.List) != 1 {
			return nil
		}
		ret, _ := body.List[0].(*ast.ReturnStmt)
		return ret
	}
	ret := returns(body)
	if ret == nil || len(ret.Results) != 1 {
		return false
	}
	if _, ok := ret.Results[0].(*ast.CompositeLit); !ok {
		return false
	}
	table := true
	ast.Inspect(ret, func(n ast.Node) bool {
		if fn, ok := n.(*ast.FuncLit); ok && returns(fn.Body) == nil {
			table = false
		}
		return table
	})
	return table
}

// wideLines counts the lines above maxColumns of each Go file, tests too. What lies in testdata stays as it was written.
func wideLines(t *testing.T) map[string]int {
	t.Helper()
	out := map[string]int{}
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != "." && p != ".ci" && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") {
			return fs.SkipDir
		}
		if d.IsDir() || path.Ext(p) != ".go" {
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > maxColumns {
				out[filepath.ToSlash(p)]++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestDecisionsDiffer fails if two rows of the table of decisions give the same sentence: whoever reads it in a log or on a screen could
// not tell which row it was.
func TestDecisionsDiffer(t *testing.T) {
	fset := token.NewFileSet()
	var of []sourceFile
	for _, f := range load(t, fset) {
		if f.dir == "unit/decide" {
			of = append(of, f)
		}
	}
	rows, says := sentences(fset, of)
	for _, s := range says {
		t.Error(s)
	}
	if rows < 30 {
		t.Errorf("only %d rows were found", rows)
	}
}

// sentences counts the decisions in the files, and returns those whose sentence another one has, or that have none.
func sentences(fset *token.FileSet, files []sourceFile) (rows int, says []string) {
	first := map[string]token.Position{}
	for _, f := range files {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			lit, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			if id, ok := lit.Type.(*ast.Ident); !ok || id.Name != "Decision" {
				return true
			}
			rows++
			at, sentence := fset.Position(lit.Pos()), ""
			for _, e := range lit.Elts {
				if kv, ok := e.(*ast.KeyValueExpr); ok && kv.Key.(*ast.Ident).Name == "Reason" {
					if b, ok := kv.Value.(*ast.BasicLit); ok {
						sentence, _ = strconv.Unquote(b.Value)
					} else {
						return true // it is made of what was found
					}
				}
			}
			if other, twice := first[sentence]; twice || sentence == "" {
				says = append(says, fmt.Sprintf("%s: the sentence %q is that of %s", at, sentence, other))
			}
			first[sentence] = at
			return true
		})
	}
	return rows, says
}

// TestTidyFinds feeds the rules small sources and lists that break one each.
func TestTidyFinds(t *testing.T) {
	fset := token.NewFileSet()
	parse := func(dir, src string) sourceFile {
		t.Helper()
		f, err := parser.ParseFile(fset, dir+"/x.go", src, 0)
		if err != nil {
			t.Fatal(err)
		}
		return sourceFile{dir, "x.go", f}
	}

	fields, methods := sizes([]sourceFile{
		parse("unit/a", `package a
type A struct { b, c int; *D }
func (*A) M() {}
type D struct { e int }
func (D) N() {}
type Plain struct { f, g, h, i int }`),
		parse("unit/b", "package b\nimport \"gprovision/unit/a\"\ntype B struct { a.A; x int; error }\nfunc (B) O() {}"),
		parse("hw/c", "package c\ntype C struct { x int }\nfunc (C) P() {}"),
	})
	if got := fmt.Sprint(fields, methods); got != "map[unit/a.A:3 unit/a.D:1 unit/b.B:5] map[unit/a.A:2 unit/a.D:1 unit/b.B:3]" {
		t.Errorf("fields and methods are %s", got)
	}

	lines := functionLines(fset, []sourceFile{parse("x", `package x
func (*A) M() {
}
func table() []A {
	return []A{
		{func() bool { return true }},
	}
}
func steps() []A {
	return []A{{func() bool {
		f()
		return true
	}}}
}`)})
	if got := fmt.Sprint(lines); got != "map[x.A.M:2 x.steps:6]" {
		t.Errorf("the lines of functions are %s", got)
	}

	rows, says := sentences(fset, []sourceFile{parse("unit/decide", `package decide
var x = []Decision{{Reason: "no type here"}}
var a, b, c, d = Decision{Reason: "one"}, Decision{Job: Boot}, Decision{Reason: "one"}, Decision{Reason: f()}`)})
	if rows != 4 || len(says) != 2 {
		t.Errorf("%d rows, %q", rows, says)
	}

	r := ratchet{file: "list", over: "lines", limit: 10, found: map[string]int{"small": 10, "new": 11, "grew": 13, "shrank": 14, "same": 15}}
	list := "# why\ngrew 12\nshrank 15\nsame 15\nsmall 11\ngone 11\nsame 15\nodd\n"
	want := []string{
		"same is listed twice", `"odd\n" is no name`, "grew: 13 lines, it had 12", "new: 11 lines, at most 10",
		"shrank: 14 lines, and list still has 15", "gone need not be listed", "odd need not be listed", "small need not be listed",
	}
	got := r.violations(list)
	if len(got) != len(want) {
		t.Errorf("violations: %q", got)
	}
	for _, w := range want {
		if !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, w) }) {
			t.Errorf("nothing says %q: %q", w, got)
		}
	}
	lowered := string(r.lower([]byte("# why\ngrew 12\nshrank 15\nsame 15\nsmall 11\ngone 11\n")))
	if lowered != "# why\ngrew 12\nshrank 14\nsame 15\n" {
		t.Errorf("lowered: %q", lowered)
	}
}

// TestImports fails for a group of imports of more than one kind: the standard library, other modules, this module.
func TestImports(t *testing.T) {
	fset, seen := token.NewFileSet(), 0
	kind := func(p string) string {
		switch first, _, _ := strings.Cut(p, "/"); {
		case first == module:
			return "this module"
		case strings.Contains(first, "."):
			return "other modules"
		}
		return "the standard library"
	}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") || strings.Contains(file, "testdata") {
			return err
		}
		f, err := parser.ParseFile(fset, file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		last, before := 0, ""
		for _, i := range f.Imports {
			line, p := fset.Position(i.Pos()).Line, kind(strings.Trim(i.Path.Value, `"`))
			if seen++; line == last+1 && p != before {
				t.Errorf("%s:%d: %s and %s are in one group of imports", file, line, before, p)
			}
			last, before = line, p
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 1000 {
		t.Errorf("this test sees only %d imports", seen)
	}
}
