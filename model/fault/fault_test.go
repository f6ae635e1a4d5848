package fault

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"testing"
)

func TestNearestFaultWins(t *testing.T) {
	inner := Newf(ImageCorrupt, "block 3")
	if got := Of(Because(Internal, inner)); got != ImageCorrupt {
		t.Errorf("got %v, want ImageCorrupt", got)
	}
	err := Because(Download, fs.ErrNotExist)
	if !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, Download) {
		t.Errorf("%v hides its cause or its kind", err)
	}
	if Of(fs.ErrNotExist) != nil {
		t.Error("a plain error has a Fault")
	}
}

func TestAllIsComplete(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "table.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	ast.Inspect(f, func(n ast.Node) bool {
		if u, ok := n.(*ast.UnaryExpr); ok && u.Op == token.AND {
			declared++
		}
		return true
	})
	seen := map[string]bool{}
	for _, f := range All() {
		if seen[f.Code] {
			t.Errorf("code %s stands twice", f.Code)
		}
		seen[f.Code] = true
	}
	if declared != len(All()) {
		t.Errorf("%d faults are declared, All returns %d", declared, len(All()))
	}
}
