package gprovision

import (
	"debug/buildinfo"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"testing"
)

// TestToolchain fails unless the Makefile, .ci/run and go.mod name the same Go, and it is the one that this runs under and that programs
// are built by. An older one has holes in net/http that anybody on the network can use.
func TestToolchain(t *testing.T) {
	want := ""
	for file, line := range map[string]string{"Makefile": `(?m)^export GOTOOLCHAIN := (go\S+)$`, ".ci/run": `(?m)^export GOTOOLCHAIN=(go\S+)$`,
		"go.mod": `(?m)^toolchain (go\S+)$`, ".ci/vuln/go.mod": `(?m)^toolchain (go\S+)$`, ".ci/deadcode/go.mod": `(?m)^toolchain (go\S+)$`,
		".ci/staticcheck/go.mod": `(?m)^toolchain (go\S+)$`, ".ci/mutants/go.mod": `(?m)^toolchain (go\S+)$`} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(line).FindAllSubmatch(b, -1)
		if len(m) != 1 {
			t.Fatalf("%s names no toolchain, or several", file)
		}
		if got := string(m[0][1]); want != "" && got != want {
			t.Errorf("%s names %s, another file %s", file, got, want)
		} else {
			want = got
		}
	}
	if runtime.Version() != want {
		t.Errorf("this runs under %s, want %s: export GOTOOLCHAIN=%s", runtime.Version(), want, want)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	programs := []string{self}
	if !testing.Short() {
		dir := t.TempDir()
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", dir+"/", "./cmd/...").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		built, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(built) < 3 {
			t.Fatal(built, err)
		}
		programs = append(programs, built...)
	}
	for _, p := range programs {
		i, err := buildinfo.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if i.GoVersion != want {
			t.Errorf("%s was built by %s, want %s", filepath.Base(p), i.GoVersion, want)
		}
	}
}

// TestProtocols fails for a server or a client that speaks another protocol than HTTP/1.1 without saying so: HTTP/2 is much code that
// strangers reach, and nothing here needs it.
func TestProtocols(t *testing.T) {
	fset := token.NewFileSet()
	seen := 0
	for _, f := range load(t, fset) {
		says, n := http1(fset, f.ast)
		seen += n
		for _, s := range says {
			t.Error(s)
		}
	}
	if seen < 5 {
		t.Errorf("only %d servers and clients were found", seen)
	}
}

// http1 returns what in a file speaks by default, and how many servers and transports it holds.
func http1(fset *token.FileSet, f *ast.File) (out []string, seen int) {
	name := ""
	for _, i := range f.Imports {
		if p, _ := strconv.Unquote(i.Path.Value); p == "net/http" {
			name = "http"
			if i.Name != nil {
				name = i.Name.Name
			}
		}
	}
	if name == "" {
		return nil, 0
	}
	of := func(e ast.Expr) string {
		if s, ok := e.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == name {
				return s.Sel.Name
			}
		}
		return ""
	}
	must := map[string]string{"Server": "Protocols", "Transport": "Protocols", "Client": "Transport"}
	never := []string{"DefaultClient", "DefaultTransport", "Get", "Head", "Post", "PostForm", "ListenAndServe", "ListenAndServeTLS", "Serve", "ServeTLS"}
	zero := func(n ast.Node, t ast.Expr) {
		if want := must[of(t)]; want != "" {
			out = append(out, fmt.Sprintf("%s: %s.%s without %s", fset.Position(n.Pos()), name, of(t), want))
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			zero(n, n.Type)
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "new" {
				zero(n, n.Args[0])
			}
		case *ast.CompositeLit:
			want := must[of(n.Type)]
			if want == "" {
				return true
			}
			seen++
			if !slices.ContainsFunc(n.Elts, func(e ast.Expr) bool {
				kv, ok := e.(*ast.KeyValueExpr)
				return ok && kv.Key.(*ast.Ident).Name == want
			}) {
				out = append(out, fmt.Sprintf("%s: %s.%s without %s", fset.Position(n.Pos()), name, of(n.Type), want))
			}
		case *ast.SelectorExpr:
			if s := of(n); slices.Contains(never, s) {
				out = append(out, fmt.Sprintf("%s: %s.%s speaks whatever it likes", fset.Position(n.Pos()), name, s))
			}
			if slices.Contains([]string{"SetHTTP2", "SetUnencryptedHTTP2"}, n.Sel.Name) {
				out = append(out, fmt.Sprintf("%s: %s", fset.Position(n.Pos()), n.Sel.Name))
			}
		}
		return true
	})
	return out, seen
}

// TestProtocolsFinds: each way to a server or client that speaks HTTP/2 is found.
func TestProtocolsFinds(t *testing.T) {
	for code, want := range map[string]int{
		"http.Client{Transport: &http.Transport{Protocols: p}}": 0, "http.Server{Protocols: p}": 0, "(*http.Client)(nil)": 0, "new(int)": 0,
		"http.Client{}": 1, "&http.Server{}": 1, "http.Client{Transport: &http.Transport{}}": 1, "new(http.Server)": 1, "http.DefaultClient": 1,
		"p.SetHTTP2": 1, "p.SetUnencryptedHTTP2": 1, "http.Get": 1,
	} {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, "x.go", "package x\n\nimport \"net/http\"\n\nvar p http.Protocols\nvar x = "+code+"\n", 0)
		if err != nil {
			t.Fatal(err)
		}
		if says, _ := http1(fset, f); len(says) != want {
			t.Errorf("%s: %q", code, says)
		}
	}
}
