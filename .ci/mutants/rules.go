package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"os"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

// mutant is one small change of the code, behind the switch with its number.
type mutant struct {
	// id is the function, what was done, and to what: it stays the same while other code moves.
	id string
	at token.Position
}

// rewriter puts mutants into one file. Whatever it does is text around the text that is there, so that mutants may lie within each other.
type rewriter struct {
	info  *types.Info
	fset  *token.FileSet
	src   []byte
	base  int // the file's first position
	edits []edit
	all   *[]mutant
	seen  map[string]int // how often an identifier was given
	stack []ast.Node
}

// edit is text that goes before or behind a node, or in the place of an operator.
type edit struct {
	at, cut int
	behind  bool
	text    string
}

// mutateFile returns the file with its mutants, which are added to all.
func mutateFile(p *packages.Package, f *ast.File, all *[]mutant, seen map[string]int) (string, error) {
	name := p.Fset.Position(f.Pos()).Filename
	src, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	r := &rewriter{info: p.TypesInfo, fset: p.Fset, src: src, base: int(f.FileStart), all: all, seen: seen}
	ast.Inspect(f, r.visit)
	slices.SortStableFunc(r.edits, func(a, b edit) int {
		if a.at != b.at {
			return a.at - b.at
		}
		if a.behind != b.behind {
			if a.behind {
				return -1
			}
			return 1
		}
		return 0
	})
	var out strings.Builder
	last := 0
	for i := 0; i < len(r.edits); {
		k := i
		for k < len(r.edits) && r.edits[k].at == r.edits[i].at && r.edits[k].behind == r.edits[i].behind {
			k++
		}
		same := r.edits[i:k]
		if same[0].behind { // the outer node was visited first, and ends last
			slices.Reverse(same)
		}
		for _, e := range same {
			out.Write(src[last:e.at])
			out.WriteString(e.text)
			last = e.at + e.cut
		}
		i = k
	}
	out.Write(src[last:])
	return out.String(), nil
}

func (r *rewriter) visit(n ast.Node) bool {
	if n == nil {
		r.stack = r.stack[:len(r.stack)-1]
		return true
	}
	if !r.change(n) {
		return false
	}
	r.stack = append(r.stack, n)
	return true
}

// change puts mutants at a node, and reports whether there may be some within it.
func (r *rewriter) change(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GenDecl:
		return n.Tok == token.VAR
	case *ast.ArrayType, *ast.TypeSpec:
		return false
	case *ast.ExprStmt:
		if isLog(n.X) {
			return false
		}
	case *ast.BlockStmt:
		r.statements(n.List)
	case *ast.CaseClause:
		r.statements(n.Body)
	case *ast.CommClause:
		r.statements(n.Body)
	case *ast.IfStmt:
		r.condition(n.Cond)
	case *ast.ForStmt:
		r.condition(n.Cond)
	case *ast.SwitchStmt:
		if n.Tag == nil {
			for _, c := range n.Body.List {
				for _, e := range c.(*ast.CaseClause).List {
					r.condition(e)
				}
			}
		}
	case *ast.ReturnStmt:
		r.result(n)
	case *ast.BinaryExpr:
		if r.info.Types[n].Value != nil {
			return false
		}
		r.binary(n)
	}
	return true
}

// isLog reports whether a call only logs.
func isLog(e ast.Expr) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Debug", "Info", "Warn", "Error"}, sel.Sel.Name) {
		return false
	}
	on := ""
	switch x := sel.X.(type) {
	case *ast.Ident:
		on = x.Name
	case *ast.SelectorExpr:
		on = x.Sel.Name
	}
	return strings.EqualFold(on, "log")
}

func (r *rewriter) offset(p token.Pos) int { return int(p) - r.base }

func (r *rewriter) text(from, to token.Pos) string { return string(r.src[r.offset(from):r.offset(to)]) }

// add makes a mutant: before and behind are put around the node, with its number in the place of %d.
func (r *rewriter) add(n ast.Node, what, before, behind string) {
	words := strings.Join(strings.Fields(r.text(n.Pos(), n.End())), " ")
	if len(words) > 80 {
		words = words[:80] + "…"
	}
	id := fmt.Sprintf("%s: %s: %s", r.function(), what, words)
	r.seen[id]++
	if k := r.seen[id]; k > 1 {
		id = fmt.Sprintf("%s (%d)", id, k)
	}
	*r.all = append(*r.all, mutant{id, r.fset.Position(n.Pos())})
	number := fmt.Sprint(len(*r.all))
	r.edits = append(r.edits,
		edit{at: r.offset(n.Pos()), text: strings.ReplaceAll(before, "%d", number)},
		edit{at: r.offset(n.End()), behind: true, text: strings.ReplaceAll(behind, "%d", number)})
}

// function names the declared function around the node.
func (r *rewriter) function() string {
	for _, n := range r.stack {
		if f, ok := n.(*ast.FuncDecl); ok {
			if f.Recv == nil {
				return f.Name.Name
			}
			recv := r.text(f.Recv.List[0].Type.Pos(), f.Recv.List[0].Type.End())
			return strings.TrimPrefix(recv, "*") + "." + f.Name.Name
		}
	}
	return "var"
}

// signature is that of the innermost function around the node.
func (r *rewriter) signature() *types.Signature {
	for _, n := range slices.Backward(r.stack) {
		switch f := n.(type) {
		case *ast.FuncLit:
			s, _ := r.info.TypeOf(f).(*types.Signature)
			return s
		case *ast.FuncDecl:
			s, _ := r.info.Defs[f.Name].Type().(*types.Signature)
			return s
		}
	}
	return nil
}

// statements leaves out statements, one at a time.
func (r *rewriter) statements(list []ast.Stmt) {
	for _, s := range list {
		switch s := s.(type) {
		case *ast.ExprStmt:
			if call, ok := s.X.(*ast.CallExpr); !ok || isLog(call) || r.text(call.Fun.Pos(), call.Fun.End()) == "panic" {
				continue
			}
		case *ast.AssignStmt:
			if s.Tok == token.DEFINE || r.text(s.Lhs[0].Pos(), s.Lhs[0].End()) == "_" {
				continue
			}
		case *ast.BranchStmt:
			if s.Tok != token.BREAK && s.Tok != token.CONTINUE {
				continue
			}
		case *ast.IncDecStmt, *ast.SendStmt, *ast.DeferStmt:
		default:
			continue
		}
		r.add(s, "left out", "if !mutantOn(%d) { ", " }")
	}
}

// condition negates what is not a comparison or made of several, which binary does.
func (r *rewriter) condition(e ast.Expr) {
	if e == nil || !r.isBool(e) || r.info.Types[e].Value != nil {
		return
	}
	if b, ok := ast.Unparen(e).(*ast.BinaryExpr); ok && mutable(b.Op) {
		return
	}
	r.add(e, "negated", "((", ") != mutantOn(%d))")
}

func mutable(op token.Token) bool { return op.Precedence() <= token.EQL.Precedence() }

func (r *rewriter) isBool(e ast.Expr) bool {
	t := r.info.TypeOf(e)
	return t != nil && types.Identical(types.Default(t), types.Typ[types.Bool])
}

// result has a function return no error, or the opposite of true or false.
func (r *rewriter) result(n *ast.ReturnStmt) {
	s := r.signature()
	if s == nil || len(n.Results) == 0 || len(n.Results) != s.Results().Len() {
		return
	}
	last := n.Results[len(n.Results)-1]
	switch t := s.Results().At(len(n.Results) - 1).Type(); {
	case types.Identical(t, types.Universe.Lookup("error").Type()) && !r.info.Types[last].IsNil():
		others := r.text(n.Results[0].Pos(), last.Pos())
		r.add(n, "no error", "if mutantOn(%d) { return "+others+"nil }; ", "")
	case types.Identical(t, types.Typ[types.Bool]) && r.isBool(last):
		if b, ok := ast.Unparen(last).(*ast.BinaryExpr); !ok || !mutable(b.Op) {
			r.add(last, "negated", "((", ") != mutantOn(%d))")
		}
	}
}

// binary changes an operator, or leaves out one side of && and ||.
func (r *rewriter) binary(n *ast.BinaryExpr) {
	x, y := r.text(n.X.Pos(), n.X.End()), r.text(n.Y.Pos(), n.Y.End())
	switch n.Op {
	case token.LAND, token.LOR:
		behind := " || mutantOn(%d))"
		if n.Op == token.LOR {
			behind = " && !mutantOn(%d))"
		}
		for _, side := range []ast.Expr{n.X, n.Y} {
			if b, ok := side.(*ast.BinaryExpr); (!ok || b.Op != n.Op) && r.isBool(side) {
				r.add(side, "side left out", "(", behind)
			}
		}
	case token.EQL, token.NEQ, token.LSS, token.LEQ, token.GTR, token.GEQ:
		if !r.isBool(n) {
			return
		}
		r.add(n, "negated", "((", ") != mutantOn(%d))")
		switch n.Op {
		case token.LSS, token.GTR:
			r.add(n, "with equality", "(", " || mutantOn(%d) && ("+x+") == ("+y+"))")
		case token.LEQ, token.GEQ:
			r.add(n, "without equality", "(", " && !(mutantOn(%d) && ("+x+") == ("+y+")))")
		}
	case token.ADD, token.SUB, token.MUL, token.QUO, token.REM:
		t, ok := r.info.TypeOf(n).Underlying().(*types.Basic)
		if !ok || t.Info()&types.IsInteger == 0 || t.Info()&types.IsUntyped != 0 {
			return
		}
		name := map[token.Token]string{token.ADD: "Add", token.SUB: "Sub", token.MUL: "Mul", token.QUO: "Quo", token.REM: "Rem"}[n.Op]
		r.add(n, "another operator", "mutant"+name+"(%d, ", ")")
		r.edits = append(r.edits, edit{at: r.offset(n.OpPos), cut: len(n.Op.String()), text: ","})
	}
}

// switches is the file that a package with mutants gets.
const switches = `package %s

import (
	"fmt"
	"os"
	"strconv"
	"sync"
)

var (
	mutantNow, _ = strconv.Atoi(os.Getenv("MUTANT"))
	mutantTrace  = os.Getenv("MUTANT_TRACE")
	mutantSeen   sync.Map
)

func mutantOn(n int) bool {
	if mutantTrace != "" {
		mutantReached(n)
	}
	return n == mutantNow
}

func mutantReached(n int) {
	if _, known := mutantSeen.LoadOrStore(n, true); known {
		return
	}
	f, err := os.OpenFile(mutantTrace, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err == nil {
		_, err = fmt.Fprintln(f, n)
		_ = f.Close()
	}
	if err != nil {
		panic(err)
	}
}

type mutantNumber interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr
}

func mutantAdd[T mutantNumber](n int, a, b T) T {
	if mutantOn(n) {
		return a - b
	}
	return a + b
}

func mutantSub[T mutantNumber](n int, a, b T) T {
	if mutantOn(n) {
		return a + b
	}
	return a - b
}

func mutantMul[T mutantNumber](n int, a, b T) T {
	if mutantOn(n) {
		return a / b
	}
	return a * b
}

func mutantQuo[T mutantNumber](n int, a, b T) T {
	if mutantOn(n) {
		return a * b
	}
	return a / b
}

func mutantRem[T mutantNumber](n int, a, b T) T {
	if mutantOn(n) {
		return a * b
	}
	return a %% b
}
`
