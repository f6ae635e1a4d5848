package gprovision

import (
	"go/ast"
	"go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestScreens holds that docs/screens.md explains every text that a unit shows to a person: steps, messages, questions, choices.
func TestScreens(t *testing.T) {
	b, err := os.ReadFile("docs/screens.md")
	if err != nil {
		t.Fatal(err)
	}
	spans := strings.Join(regexp.MustCompile("`[^`\n]+`").FindAllString(string(b), -1), "\n")
	texts := map[string]token.Position{}
	fset := token.NewFileSet()
	for _, f := range load(t, fset) {
		if strings.HasPrefix(f.dir, "unit/") {
			ast.Inspect(f.ast, func(n ast.Node) bool {
				for _, e := range shown(n) {
					// What is put together is told by how it begins.
					text, _, _ := strings.Cut(literal(e), "%")
					if text = strings.TrimSpace(text); text != "" {
						texts[text] = fset.Position(e.Pos())
					}
				}
				return true
			})
		}
	}
	for _, want := range []string{"Writing release", "Press a key for menu", "Menu", "Restore latest", "Power off", "Rebuild recovery", "Saved", "Saving", "OS is running", "recovery shell"} {
		if _, ok := texts[want]; !ok {
			t.Errorf("this test does not see %q", want)
		}
	}
	for _, text := range slices.Sorted(maps.Keys(texts)) {
		if !strings.Contains(spans, "`"+text) && !strings.Contains(spans, " "+text) {
			t.Errorf("%s: docs/screens.md does not explain %q", texts[text], text)
		}
	}
}

// shown are the expressions of a node that a person at the machine reads.
func shown(n ast.Node) []ast.Expr {
	switch n := n.(type) {
	case *ast.KeyValueExpr:
		if k, ok := n.Key.(*ast.Ident); ok && slices.Contains([]string{"Say", "Step", "Title", "label", "warn"}, k.Name) {
			return []ast.Expr{n.Value}
		}
	case *ast.CallExpr:
		s, ok := n.Fun.(*ast.SelectorExpr)
		if !ok {
			return nil
		}
		switch arg := n.Args; {
		case s.Sel.Name == "Message" && len(arg) == 1:
			return arg
		case slices.Contains([]string{"Confirm", "Line"}, s.Sel.Name) && len(arg) == 3:
			return arg[1:]
		case s.Sel.Name == "choose" && len(arg) == 5: // a menu
			return arg[1:2]
		}
	case *ast.CompositeLit: // a row of the menu
		if len(n.Elts) != 4 {
			return nil
		}
		if k, ok := n.Elts[1].(*ast.SelectorExpr); ok && strings.HasPrefix(k.Sel.Name, "Choose") {
			return []ast.Expr{n.Elts[0], n.Elts[2]}
		}
	case *ast.ValueSpec: // of unit/splash, and the like
		if len(n.Names) == 1 && slices.Contains([]string{"starting", "preparing", "Started", "silent"}, n.Names[0].Name) {
			return n.Values
		}
	}
	return nil
}

// literal is the text at the beginning of an expression, "" if there is none.
func literal(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, _ := strconv.Unquote(e.Value)
		return s
	case *ast.BinaryExpr:
		return literal(e.X)
	case *ast.CallExpr:
		if len(e.Args) > 0 { // fmt.Sprintf
			return literal(e.Args[0])
		}
	}
	return ""
}
