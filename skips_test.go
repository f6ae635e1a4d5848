package gprovision

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSkips fails for a test that would be skipped by continuous integration without a word. Whoever skips, skips only with -short, or
// looks at GPROV_NO_SKIP first, under which what is missing is a failure.
func TestSkips(t *testing.T) {
	fset, seen := token.NewFileSet(), 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			for _, skip := range skips(fn) {
				if seen++; !excused(fn, skip) {
					t.Errorf("%s: a skip that GPROV_NO_SKIP does not turn into a failure", fset.Position(skip.Pos()))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 20 {
		t.Errorf("this test sees only %d skips", seen)
	}
}

// skips returns the calls of a function that skip a test, those of testing and of the helpers that do nothing else.
func skips(fn *ast.FuncDecl) (out []*ast.CallExpr) {
	ast.Inspect(fn, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if sel, ok := call.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
			if x, ok := sel.X.(*ast.Ident); ok && slices.Contains([]string{"t", "b", "f", "tb"}, x.Name) {
				out = append(out, call)
			}
		}
		return true
	})
	return out
}

// excused reports whether a skip is one of -short, by an if around it, or stands in a function that looks at GPROV_NO_SKIP before it. The
// half of a benchmark that another process starts looks whether it was started.
func excused(fn *ast.FuncDecl, skip *ast.CallExpr) (ok bool) {
	ast.Inspect(fn, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BasicLit:
			ok = ok || n.Pos() < skip.Pos() && (n.Value == `"GPROV_NO_SKIP"` || n.Value == `"GPROV_BENCH_CHILD"`)
		case *ast.IfStmt:
			if n.Body.Pos() < skip.Pos() && skip.Pos() < n.Body.End() {
				ast.Inspect(n.Cond, func(c ast.Node) bool {
					sel, is := c.(*ast.SelectorExpr)
					ok = ok || is && sel.Sel.Name == "Short"
					return true
				})
			}
		}
		return true
	})
	return ok
}
