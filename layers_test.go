package gprovision

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the path of this module.
const module = "gprovision"

// rows is the house: a package imports only from rows below its own, or from its own wing. Wings of one row never import each other.
// docs/design.md has the same table.
func rows() [][]string {
	return [][]string{
		{"cmd"},
		{"cli"},
		{"lab"},
		{"unit", "factory", "forge"},
		{"hw", "site"},
		{"model"},
	}
}

// modelCodecs are the modules that packages of model may use: they compute, and touch nothing outside.
func modelCodecs() []string {
	return []string{
		"aead.dev/minisign",
		"github.com/boombuler/barcode/qr",
		"github.com/google/shlex",
		"github.com/klauspost/compress/zstd",
		"github.com/mikelolasagasti/xz",
		"github.com/u-root/u-root/pkg/cpio",
		"golang.org/x/crypto/blake2b",
		"golang.org/x/crypto/scrypt",
		"golang.org/x/mod/sumdb/note",
		"golang.org/x/mod/sumdb/tlog",
		"golang.org/x/tools/txtar",
	}
}

// modelForbids are packages of the standard library that touch files, networks or processes.
func modelForbids() []string {
	return []string{"io/ioutil", "net", "net/http", "os", "os/exec", "os/signal", "os/user", "path/filepath", "plugin", "syscall", "testing",
		"testing/fstest", "unsafe"}
}

// pureDirs are the packages outside of model that compute and touch nothing outside, with what they know beside model.
func pureDirs() map[string][]string {
	return map[string][]string{
		"unit/decide": {"unit/state"}, // the types of what a unit remembers
	}
}

// serverRooms are the parts of the server that nobody but factory needs: who has them puts together a server of his own.
func serverRooms() []string { return []string{"factory/guard", "factory/limit", "factory/web"} }

// hwKnows are the packages of model that drivers may know: what a partition table is, and what a structure of SMBIOS says. All else there
// is the product's: its codes, records, policy, names.
func hwKnows() []string { return []string{"model/dmi", "model/layout"} }

// doors are what packages of unit reach through machine.Doors only.
func doors() map[string][]string {
	return map[string][]string{
		"hw/block": {"List", "Open", "OpenShared", "WriteBlock"},
		"hw/efi":   {"New"},
		"hw/host":  {"IsMountPoint", "Mount", "Runner", "SetClock", "Unmount"},
		"hw/tpm":   {"Find", "New"},
	}
}

// hands are what unit/survey may not have: it looks at a machine with machine.Eyes, which cannot write.
func hands() map[string][]string {
	return map[string][]string{
		"unit/machine": {"Doors", "Machine", "PutFile", "Real"},
		"unit/volume":  {"At", "Handle"},
		"os": {"Chmod", "Create", "Link", "Mkdir", "MkdirAll", "OpenFile", "Remove", "RemoveAll", "Rename", "Symlink", "Truncate",
			"WriteFile"},
	}
}

// mayRun names the places that may start programs.
func mayRun(dir, file string) bool {
	return dir == "hw/host" || dir == "forge/tool" || dir == "lab" && file == "run.go" ||
		dir == "unit/machine/machinetest" // that one is for tests alone
}

// sourceFile is one Go file.
type sourceFile struct {
	dir  string // from the root, with slashes
	name string
	ast  *ast.File
}

// load parses every Go file of the module except tests, test data and separate modules.
func load(t *testing.T, fset *token.FileSet) []sourceFile {
	t.Helper()
	var out []sourceFile
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != "." && (strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") || d.Name() == "testdata" || d.Name() == "bin") {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil && p != "." {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		out = append(out, sourceFile{filepath.ToSlash(filepath.Dir(p)), filepath.Base(p), f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestLayers holds the rules of the house. Each line it prints names a file, a line and the rule.
func TestLayers(t *testing.T) {
	fset := token.NewFileSet()
	files := load(t, fset)
	if len(files) == 0 {
		t.Fatal("no sources found")
	}
	for _, v := range violations(fset, files) {
		t.Error(v)
	}
}

// violations returns what breaks the rules, in the order of the files.
func violations(fset *token.FileSet, files []sourceFile) []string {
	var out []string
	globals := map[string]map[string]bool{} // directory -> names of package variables
	for _, f := range files {
		if globals[f.dir] == nil {
			globals[f.dir] = map[string]bool{}
		}
		for _, d := range f.ast.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
				for _, s := range g.Specs {
					for _, n := range s.(*ast.ValueSpec).Names {
						globals[f.dir][n.Name] = true
					}
				}
			}
		}
	}
	for _, f := range files {
		say := func(n ast.Node, format string, args ...any) {
			out = append(out, fmt.Sprintf("%s: %s", fset.Position(n.Pos()), fmt.Sprintf(format, args...)))
		}
		names := map[string]string{} // name in this file -> import path
		for _, imp := range f.ast.Imports {
			p, _ := strconv.Unquote(imp.Path.Value)
			name := importName(p)
			if imp.Name != nil {
				name = imp.Name.Name
			}
			names[name] = p
			if why := badImport(f.dir, f.name, p); why != "" {
				say(imp, "%s", why)
			}
		}
		checkUses(f, names, say)
		checkGlobals(f, globals[f.dir], names, say)
	}
	return out
}

// importName guesses the name of a package from its path; imports with another one name it.
func importName(p string) string {
	b := path.Base(p)
	if len(b) > 1 && b[0] == 'v' && strings.Trim(b[1:], "0123456789") == "" {
		b = path.Base(path.Dir(p))
	}
	return strings.TrimPrefix(b, "go-")
}

func wingOf(dir string) (wing string, row int) {
	wing, _, _ = strings.Cut(dir, "/")
	for i, r := range rows() {
		if slices.Contains(r, wing) {
			return wing, i
		}
	}
	return wing, -1
}

// jobOf returns the job that a package below unit/job belongs to, or "".
func jobOf(dir string) string {
	rest, ok := strings.CutPrefix(dir, "unit/job/")
	if !ok {
		return ""
	}
	job, _, _ := strings.Cut(rest, "/")
	return job
}

// badImport says why the file may not import p, or "".
func badImport(dir, file, p string) string {
	wing, row := wingOf(dir)
	if row < 0 {
		return fmt.Sprintf("the directory %q has no place in the house; the wings are %v (docs/design.md)", dir, rows())
	}
	if rest, ok := strings.CutPrefix(p, module+"/"); ok {
		if own, pure := pureDirs()[dir]; pure && !strings.HasPrefix(rest, "model/") && !slices.Contains(own, rest) {
			return fmt.Sprintf("%s is pure: it knows model and %v, and not %s", dir, own, rest)
		}
		other, otherRow := wingOf(rest)
		switch {
		case jobOf(dir) != "" && jobOf(rest) != "" && jobOf(dir) != jobOf(rest):
			return fmt.Sprintf("%s may not import %s: no job knows another; put what both need beside unit/job", dir, rest)
		case wing == "hw" && other == "model" && !slices.Contains(hwKnows(), rest):
			return fmt.Sprintf("%s may not import %s: drivers know no product, and return errors of their own; say above what they mean", dir, rest)
		case wing != "factory" && slices.Contains(serverRooms(), rest):
			return fmt.Sprintf("%s may not import %s: the server is put together in factory, call factory.New", dir, rest)
		case otherRow < 0:
			return fmt.Sprintf("it imports %s, which has no place in the house", p)
		case other == wing:
		case otherRow < row:
			return fmt.Sprintf("%s may not import %s: it is above it in the house", dir, rest)
		case otherRow == row:
			return fmt.Sprintf("%s may not import %s: %s and %s never import each other; put what both need into model, hw or site", dir, rest,
				wing, other)
		}
		return ""
	}
	if p == "C" {
		return "cgo is not used: CGO_ENABLED=0"
	}
	if _, pure := pureDirs()[dir]; wing == "model" || pure {
		if strings.Contains(strings.Split(p, "/")[0], ".") {
			if !slices.Contains(modelCodecs(), p) {
				return fmt.Sprintf("model uses the standard library and pure codecs only, and %s is not in modelCodecs of layers_test.go", p)
			}
		} else if slices.Contains(modelForbids(), p) {
			return fmt.Sprintf("%s does no input or output of its own, and %s does: pass a reader, a writer or an fs.FS in", dir, p)
		}
	}
	if p == "os/exec" && !mayRun(dir, file) {
		return "programs are started in hw/host (units), forge/tool (builders) and lab/run.go only"
	}
	if strings.HasPrefix(p, "github.com/u-root/u-root/pkg/mount") && dir != "hw/host" && (wing == "unit" || wing == "hw") {
		return "only hw/host mounts"
	}
	return ""
}

// checkUses finds calls of the system that only certain places may do.
func checkUses(f sourceFile, names map[string]string, say func(ast.Node, string, ...any)) {
	wing, _ := wingOf(f.dir)
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok {
			checkAttributes(c, names, say)
		}
		if l, ok := n.(*ast.BasicLit); ok && wing == "hw" && strings.Contains(l.Value, "gprov") && !strings.HasPrefix(l.Value, `"`+module+"/") {
			say(l, "drivers know no product, and this text names it")
		}
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		id, ok := s.X.(*ast.Ident)
		if !ok || id.Obj != nil { // a local name hides the import
			return true
		}
		p, what := names[id.Name], s.Sel.Name
		system := p == "golang.org/x/sys/unix" || p == "syscall"
		switch {
		case system && (strings.HasPrefix(what, "Ioctl") || what == "SYS_IOCTL"):
			if wing != "hw" && !(f.dir == "lab" && f.name == "tap.go") {
				say(s, "ioctls are done in hw, and in lab/tap.go, only")
			}
		case system && (what == "Reboot" || what == "SYS_REBOOT" || what == "KexecFileLoad"):
			if f.dir != "hw/host" && f.dir != "lab/tiny" { // lab/tiny is the system inside a virtual unit
				say(s, "only hw/host asks the kernel to reboot")
			}
		case system && slices.Contains([]string{"Exec", "ForkExec", "StartProcess", "SYS_EXECVE"}, what), p == "os" && what == "StartProcess":
			if !mayRun(f.dir, f.name) {
				say(s, "programs are started in hw/host (units), forge/tool (builders) and lab/run.go only")
			}
		case system && slices.Contains([]string{"Mount", "Unmount", "MoveMount", "OpenTree", "PivotRoot", "Chroot", "Fsopen", "Fsmount",
			"SYS_MOUNT", "SYS_UMOUNT2"}, what):
			if f.dir != "hw/host" && wing != "lab" && wing != "forge" {
				say(s, "only hw/host mounts")
			}
		case wing == "unit" && !strings.HasPrefix(f.dir, "unit/machine") && slices.Contains(doors()[strings.TrimPrefix(p, module+"/")], what):
			say(s, "a job reaches disks, mounts, firmware and clock through the doors of its machine (unit/machine, Doors): tests could not stand in for this")
		case f.dir == "unit/survey" && slices.Contains(hands()[strings.TrimPrefix(p, module+"/")], what):
			say(s, "a survey changes nothing, and has no way to: it looks with machine.Eyes")
		case p == module+"/hw/host" && slices.Contains([]string{"Reboot", "PowerOff"}, what):
			if f.dir != "unit/pid1" {
				say(s, "only unit/pid1 ends the machine: return an Outcome instead")
			}
		}
		return true
	})
}

// taken are the names that a record has of its own: slog's, and that of the journal's mark.
func taken() []string {
	return []string{slog.TimeKey, slog.LevelKey, slog.MessageKey, slog.SourceKey, "person"}
}

// checkAttributes finds attributes of the log with the name of something that each record has. They would hide it, or be hidden.
func checkAttributes(c *ast.CallExpr, names map[string]string, say func(ast.Node, string, ...any)) {
	s, ok := c.Fun.(*ast.SelectorExpr)
	if !ok {
		return
	}
	var keys []ast.Expr
	id, _ := s.X.(*ast.Ident)
	switch what := s.Sel.Name; {
	case id != nil && names[id.Name] == "log/slog" && what != "Log" && len(c.Args) == 2:
		keys = c.Args[:1]
	case slices.Contains([]string{"Debug", "Info", "Warn", "Error", "Log", "ShowFailure", "logState"}, what) && len(c.Args) > 1:
		keys = c.Args[1:]
	case what == "With":
		keys = c.Args
	}
	for _, k := range keys {
		l, ok := k.(*ast.BasicLit)
		if !ok || l.Kind != token.STRING {
			continue
		}
		// The journal's own attribute is a mark.
		if key, _ := strconv.Unquote(l.Value); slices.Contains(taken(), key) && !(id != nil && id.Name == "slog" && key == "person") {
			say(l, "an attribute named %s hides what each record of the log has under this name", key)
		}
	}
}

// checkGlobals finds func init, and package variables that change after their declaration.
func checkGlobals(f sourceFile, globals map[string]bool, names map[string]string, say func(ast.Node, string, ...any)) {
	isGlobal := func(id *ast.Ident) bool {
		if !globals[id.Name] {
			return false
		}
		if id.Obj == nil {
			return true // not declared in this file
		}
		spec, ok := id.Obj.Decl.(*ast.ValueSpec)
		if !ok {
			return false
		}
		for _, d := range f.ast.Decls {
			if g, ok := d.(*ast.GenDecl); ok && slices.Contains(g.Specs, ast.Spec(spec)) {
				return true
			}
		}
		return false
	}
	// target returns the package variable that an assignment to e changes, or "".
	target := func(e ast.Expr) string {
		for {
			switch x := e.(type) {
			case *ast.ParenExpr:
				e = x.X
			case *ast.IndexExpr:
				e = x.X
			case *ast.StarExpr:
				e = x.X
			case *ast.SelectorExpr:
				if id, ok := x.X.(*ast.Ident); ok && id.Obj == nil && names[id.Name] != "" && !globals[id.Name] {
					return id.Name + "." + x.Sel.Name
				}
				e = x.X
			case *ast.Ident:
				if isGlobal(x) {
					return x.Name
				}
				return ""
			default:
				return ""
			}
		}
	}
	for _, d := range f.ast.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil && d.Name.Name == "init" {
				say(d, "func init is not used: pass values in from main")
			}
		case *ast.GenDecl:
			if d.Tok != token.VAR {
				continue
			}
			for _, s := range d.Specs {
				spec := s.(*ast.ValueSpec)
				if sel, ok := spec.Type.(*ast.SelectorExpr); ok {
					if id, ok := sel.X.(*ast.Ident); ok && (names[id.Name] == "sync" || names[id.Name] == "sync/atomic") {
						say(spec, "the package variable %s holds state (%s.%s): put it into a value that is passed on", spec.Names[0].Name, id.Name,
							sel.Sel.Name)
					}
				}
			}
		}
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				return true
			}
			for _, l := range n.Lhs {
				if v := target(l); v != "" {
					say(n, "the package variable %s is assigned after its declaration", v)
				}
			}
		case *ast.IncDecStmt:
			if v := target(n.X); v != "" {
				say(n, "the package variable %s is changed after its declaration", v)
			}
		case *ast.RangeStmt:
			if n.Tok == token.ASSIGN {
				for _, l := range []ast.Expr{n.Key, n.Value} {
					if v := target(l); l != nil && v != "" {
						say(n, "the package variable %s is assigned after its declaration", v)
					}
				}
			}
		case *ast.UnaryExpr:
			if id, ok := n.X.(*ast.Ident); ok && n.Op == token.AND && isGlobal(id) {
				say(n, "the address of the package variable %s is taken: whoever has it can change it", id.Name)
			}
		}
		return true
	})
}

// TestLayersFinds feeds the checker small sources that break one rule each.
func TestLayersFinds(t *testing.T) {
	tests := []struct {
		file, src, want string
	}{
		{"model/x/x.go", `package x; import "gprovision/hw/block"; var _ = block.List`, "above"},
		{"model/x/x.go", `package x; import "gprovision/model/y"; var _ = y.Y`, ""},
		{"model/x/x.go", `package x; import "os"; var _ = os.Args`, "no input or output"},
		{"model/x/x.go", `package x; import "github.com/a/b"; var _ = b.C`, "pure codecs"},
		{"model/x/x.go", `package x; import "github.com/mikelolasagasti/xz"; var _ = xz.C`, ""},
		{"hw/x/x.go", `package x; import "gprovision/site"; var _ = site.Stock`, "never import each other"},
		{"hw/x/x.go", `package x; import "gprovision/model/fault"; var _ = fault.X`, "drivers know no product"},
		{"hw/x/x.go", `package x; import "gprovision/model/layout"; var _ = layout.X`, ""},
		{"hw/x/x.go", `package x; import "gprovision/model/dmi"; var _ = dmi.X`, ""},
		{"hw/x/x.go", `package x; const c = "Written by gprovision"`, "drivers know no product"},
		{"unit/x/x.go", `package x; import "gprovision/forge/y"; var _ = y.Y`, "never import each other"},
		{"unit/x/x.go", `package x; import ("gprovision/unit/y"; "gprovision/hw/z"; "gprovision/site"; "gprovision/model/m"); var _ = y.Y`, ""},
		{"lab/x.go", `package lab; import ("gprovision/unit/y"; "gprovision/factory/z"); var _ = y.Y`, ""},
		{"cli/x.go", `package cli; import "gprovision/factory/web"; var _ = web.New`, "call factory.New"},
		{"cli/x.go", `package cli; import ("gprovision/factory"; "gprovision/factory/store"); var _, _ = factory.New, store.Open`, ""},
		{"factory/x.go", `package factory; import "gprovision/factory/web"; var _ = web.New`, ""},
		{"lab/x.go", `package lab; import "gprovision/cli"; var _ = cli.X`, "above"},
		{"other/x.go", `package x; import "fmt"; var _ = fmt.Sprint`, "no place in the house"},
		{"unit/job/a/x.go", `package x; import "gprovision/unit/job/b"; var _ = b.B`, "no job knows another"},
		{"unit/job/a/x.go", `package x; import ("gprovision/unit/job/a/c"; "gprovision/unit/image"); var _, _ = c.C, image.X`, ""},
		{"unit/job/a/x.go", `package x; import "gprovision/hw/host"; func f() { host.Mount("", "", "", host.MountOptions{}) }`,
			"doors of its machine"},
		{"unit/machine/x.go", `package x; import "gprovision/hw/host"; func f() { host.Mount("", "", "", host.MountOptions{}) }`, ""},
		{"unit/decide/x.go", `package x; import "os"; var _ = os.Open`, "does no input or output"},
		{"unit/decide/x.go", `package x; import "gprovision/hw/host"; var _ = host.Run`, "is pure"},
		{"unit/decide/x.go", `package x; import ("gprovision/unit/state"; "gprovision/model/m"); var _, _ = state.X, m.X`, ""},
		{"unit/x/x.go", `package x; import "os/exec"; var _ = exec.Command`, "programs are started"},
		{"lab/x.go", `package lab; import "os/exec"; var _ = exec.Command`, "programs are started"},
		{"lab/run.go", `package lab; import "os/exec"; var _ = exec.Command`, ""},
		{"unit/x/x.go", `package x; import "os"; func f() { os.StartProcess("", nil, nil) }`, "programs are started"},
		{"unit/x/x.go", `package x; import "golang.org/x/sys/unix"; func f() { unix.Mount("", "", "", 0, "") }`, "only hw/host mounts"},
		{"hw/host/x.go", `package host; import "golang.org/x/sys/unix"; func f() { unix.Mount("", "", "", 0, ""); unix.Reboot(0) }`, ""},
		{"unit/x/x.go", `package x; import "golang.org/x/sys/unix"; func f() { unix.IoctlSetInt(0, 0, 0) }`, "ioctls"},
		{"lab/tap.go", `package lab; import "golang.org/x/sys/unix"; func f() { unix.IoctlSetInt(0, 0, 0) }`, ""},
		{"unit/x/x.go", `package x; import "golang.org/x/sys/unix"; func f() { unix.Reboot(0) }`, "reboot"},
		{"unit/x/x.go", `package x; import "gprovision/hw/host"; func f() { host.Reboot() }`, "Outcome"},
		{"unit/pid1/x.go", `package pid1; import "gprovision/hw/host"; func f() { host.Reboot() }`, ""},
		{"unit/x/x.go", `package x; func init() {}`, "func init"},
		{"unit/x/x.go", `package x; type t int; func (t) init() {}`, ""},
		{"unit/x/x.go", `package x; var v int; func f() { v = 1 }`, "package variable v"},
		{"unit/x/x.go", `package x; var v int; func f() { v++ }`, "package variable v"},
		{"unit/x/x.go", `package x; var v map[string]int; func f() { v["a"] = 1 }`, "package variable v"},
		{"unit/x/x.go", `package x; var v struct{ a struct{ b int } }; func f() { v.a.b = 1 }`, "package variable v"},
		{"unit/x/x.go", `package x; var v int; func f() { for v = range 3 {} }`, "package variable v"},
		{"unit/x/x.go", `package x; var v int; func f() *int { return &v }`, "address of the package variable v"},
		{"unit/x/x.go", `package x; var v int; func f() { v := 2; v = 1; _ = v }`, ""},
		{"unit/x/x.go", `package x; var v int; func f(v int) { v = 1; _ = v }`, ""},
		{"unit/x/x.go", `package x; import "net/http"; func f() { http.DefaultClient = nil }`, "package variable http.DefaultClient"},
		{"unit/x/x.go", `package x; import "sync"; var mu sync.Mutex`, "holds state"},
		{"unit/x/x.go", `package x; import "errors"; var errX = errors.New("x"); func f() error { err := errX; err = nil; return err }`, ""},
		{"unit/x/x.go", `package x; import "C"`, "cgo"},
		{"unit/x/x.go", `package x; func f() { x.log.Info("array", "level", 1) }`, "named level hides"},
		{"unit/x/x.go", `package x; func f() { log.With("time", 1) }`, "named time hides"},
		{"unit/x/x.go", `package x; import "log/slog"; var _ = slog.String("msg", "")`, "named msg hides"},
		{"unit/x/x.go", `package x; func f() { e.ShowFailure("m", err, "source", "s") }`, "named source hides"},
		{"unit/x/x.go", `package x; func f() { log.Info("level", "raidLevel", 1) }`, ""},
	}
	for _, tt := range tests {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, tt.file, tt.src, 0)
		if err != nil {
			t.Fatal(err)
		}
		got := violations(fset, []sourceFile{{path.Dir(tt.file), path.Base(tt.file), f}})
		if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) == 0 || !strings.Contains(got[0], tt.want)) {
			t.Errorf("%s: %s\n\tgot %q, want %q", tt.file, tt.src, got, tt.want)
		}
	}
	// A variable of another file of the same package.
	fset := token.NewFileSet()
	a, _ := parser.ParseFile(fset, "unit/x/a.go", "package x; var v int", 0)
	b, _ := parser.ParseFile(fset, "unit/x/b.go", "package x; func f() { v = 1 }", 0)
	if got := violations(fset, []sourceFile{{"unit/x", "a.go", a}, {"unit/x", "b.go", b}}); len(got) != 1 {
		t.Errorf("across files: %q", got)
	}
}
