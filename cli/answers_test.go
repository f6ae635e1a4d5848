package cli

import (
	"go/ast"
	goparser "go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"gprovision/cli/unitcmd"
)

// TestEveryAnswerHasAVersion: each verb of gprov and gprov-unit with --json prints by answer.JSON where it is given, which writes the version,
// and nothing else there.
func TestEveryAnswerHasAVersion(t *testing.T) {
	verbs := map[string]bool{} // type of the verb, or of what verbs have in common
	for _, grammar := range []any{&Commands{}, &unitcmd.Commands{}} {
		k, err := kong.New(grammar, kong.Vars{"version": ""}, kong.Exit(func(int) {}))
		if err != nil {
			t.Fatal(err)
		}
		for _, leaf := range k.Model.Leaves(false) {
			if hasFlag(leaf, "json") {
				verbs[declares(leaf.Target.Type())] = false
			}
		}
	}
	if len(verbs) < 17 {
		t.Errorf("only %d verbs with --json: %v", len(verbs), slices.Sorted(maps.Keys(verbs)))
	}

	helpers := map[string]bool{} // functions that get the flag as asJSON, and whether what they print by it has a version
	passes := map[string]string{}
	for _, dir := range []string{".", "unitcmd"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := goparser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || fn.Body == nil {
					continue
				}
				verb := receiver(fn)
				ast.Inspect(fn.Body, func(n ast.Node) bool {
					switch n := n.(type) {
					case *ast.IfStmt:
						if !givenJSON(n.Cond) {
							break
						}
						calls, other := prints(n.Body)
						if calls != 1 || other != "" {
							t.Errorf("%s: %s.%s calls answer.JSON %d times for --json, and prints by %q", name, verb, fn.Name.Name, calls, other)
						}
						if verb != "" {
							verbs[verb] = true
						} else {
							helpers[fn.Name.Name] = true
						}
					case *ast.CallExpr:
						if callee, ok := n.Fun.(*ast.Ident); ok && slices.ContainsFunc(n.Args, givenJSON) {
							passes[verb] = callee.Name
						}
					}
					return true
				})
			}
		}
	}
	for verb, helper := range passes {
		if helpers[helper] {
			verbs[verb] = true
		}
	}
	for verb, found := range verbs {
		if !found {
			t.Errorf("%s has --json, and no answer with a version", verb)
		}
	}
}

// declares returns the name of the type that has the flag: a verb, or one inside it.
func declares(verb reflect.Type) string {
	f, _ := verb.FieldByName("JSON")
	for _, i := range f.Index[:len(f.Index)-1] {
		verb = verb.Field(i).Type
	}
	return verb.Name()
}

// receiver returns the name of a method's type, or nothing.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	x := fn.Recv.List[0].Type
	if p, ok := x.(*ast.StarExpr); ok {
		x = p.X
	}
	id, ok := x.(*ast.Ident)
	if !ok {
		return ""
	}
	return id.Name
}

// givenJSON reports whether an expression is the flag.
func givenJSON(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.SelectorExpr:
		return x.Sel.Name == "JSON"
	case *ast.Ident:
		return x.Name == "asJSON"
	}
	return false
}

// prints counts the calls of answer.JSON, and names another one that gets the standard output.
func prints(body ast.Node) (calls int, other string) {
	ast.Inspect(body, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		f, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if id, ok := f.X.(*ast.Ident); ok && id.Name == "answer" && f.Sel.Name == "JSON" {
			calls++
			return true
		}
		if stdout(f.X) || slices.ContainsFunc(call.Args, stdout) {
			other = f.Sel.Name
		}
		return true
	})
	return calls, other
}

func stdout(x ast.Expr) bool {
	s, ok := x.(*ast.SelectorExpr)
	return ok && s.Sel.Name == "Stdout"
}
