package fault

import (
	"errors"
	"fmt"
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

// TestDetail: beside a code and a text nobody reads them a second time, and nothing else is left out.
func TestDetail(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{fs.ErrNotExist, "file does not exist"},
		{NoSpace, ""},
		{Because(NoSpace, nil), ""},
		{Newf(NoSpace, "want 5, have 3"), "want 5, have 3"},
		{fmt.Errorf("plan: %w", Newf(NoSpace, "want 5, have 3")), "plan: want 5, have 3"},
		{fmt.Errorf("%w; from the network: no answer", Newf(NoImage, "none is good")), "none is good; from the network: no answer"},
		{Rename(ManifestMissing, Newf(Download, "get http://h/m: no such file")), "G141: a file cannot be downloaded: get http://h/m: no such file"},
		{Rename(Download, Newf(Download, "get http://h/m: no such file")), "get http://h/m: no such file"},
	} {
		if got := Detail(tc.err); got != tc.want {
			t.Errorf("%v: got %q, want %q", tc.err, got, tc.want)
		}
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
