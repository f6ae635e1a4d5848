// Package source reads a JSON text that a person wrote, and keeps the line of each value, so that whoever checks the
// text can say where it is wrong.
//
// It knows JSON and nothing of what the text means. Keys are compared as encoding/json compares them: without regard to
// case. A path names a value from the root, such as "Files[2].Src"; the root itself is "".
package source

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Problem is one thing that is wrong in a text.
type Problem struct {
	// Line is where it is, from 1. 0: it concerns the whole text.
	Line int `json:"line"`
	// Path names the value, such as "Files[2].Src". Empty: the whole text.
	Path string `json:"path,omitempty"`
	// Text says what is wrong, in one sentence without a full stop.
	Text string `json:"text"`
	// Hint says what to do about it. May be empty.
	Hint string `json:"hint,omitempty"`
	// Warning says that the text can be used as it is, and that a person should look all the same.
	Warning bool `json:"warning,omitempty"`
}

// String returns the problem in one line, without the hint.
func (p Problem) String() string {
	var b strings.Builder
	if p.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", p.Line)
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	if p.Warning {
		b.WriteString("warning: ")
	}
	return b.String() + p.Text
}

// Error returns the same as String.
func (p Problem) Error() string { return p.String() }

// Join returns the problems that are no warnings as one error, or nil if there are none.
func Join(ps []Problem) error {
	var errs []error
	for _, p := range ps {
		if !p.Warning {
			errs = append(errs, p)
		}
	}
	return errors.Join(errs...)
}

// kind is the kind of a JSON value.
type kind string

const (
	object  kind = "an object"
	array   kind = "a list"
	text    kind = "a string"
	number  kind = "a number"
	boolean kind = "true or false"
	null    kind = "null"
)

// node is one value of the text.
type node struct {
	kind       kind
	start, end int // bytes
	members    []member
	items      []*node
	literal    string // of a number
}

type member struct {
	name  string
	start int // of the key
	value *node
}

// maxDepth is how deep values may lie inside each other.
const maxDepth = 64

// Text is a parsed text. It keeps the bytes it was parsed from: they must not be changed.
type Text struct {
	raw   []byte
	root  *node
	at    map[string]int // lower-case path -> byte offset
	lines []int          // offset of each line's start
}

// Parse reads one JSON value, at most 64 levels deep. The error, if there is one, is a Problem with its line.
func Parse(b []byte) (*Text, error) {
	t := &Text{raw: b, at: map[string]int{}, lines: []int{0}}
	for i, c := range b {
		if c == '\n' {
			t.lines = append(t.lines, i+1)
		}
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, Problem{Line: 1, Text: "the file is empty", Hint: "a JSON object is expected"}
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		p := Problem{Line: 1, Text: "not valid JSON: " + err.Error(), Hint: "look at this line and the one before it: a comma, a quote or a bracket is missing or too many"}
		var se *json.SyntaxError
		if errors.As(err, &se) {
			p.Line = t.line(int(se.Offset) - 1)
		}
		return nil, p
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	root, err := t.value(d, 0)
	if err != nil {
		return nil, Problem{Line: t.line(int(d.InputOffset())), Text: "not valid JSON: " + err.Error()}
	}
	t.root = root
	t.index("", root)
	return t, nil
}

func (t *Text) value(d *json.Decoder, depth int) (*node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("more than %d brackets inside each other", maxDepth)
	}
	start := t.skip(int(d.InputOffset()))
	tok, err := d.Token()
	if err != nil {
		return nil, err
	}
	n := &node{start: start}
	switch v := tok.(type) {
	case json.Delim:
		if v == '{' {
			n.kind = object
			for d.More() {
				m := member{start: t.skip(int(d.InputOffset()))}
				key, err := d.Token()
				if err != nil {
					return nil, err
				}
				m.name, _ = key.(string)
				if m.value, err = t.value(d, depth+1); err != nil {
					return nil, err
				}
				n.members = append(n.members, m)
			}
		} else {
			n.kind = array
			for d.More() {
				item, err := t.value(d, depth+1)
				if err != nil {
					return nil, err
				}
				n.items = append(n.items, item)
			}
		}
		if _, err := d.Token(); err != nil {
			return nil, err
		}
	case string:
		n.kind = text
	case json.Number:
		n.kind, n.literal = number, v.String()
	case bool:
		n.kind = boolean
	default:
		n.kind = null
	}
	n.end = int(d.InputOffset())
	return n, nil
}

// skip returns the offset of the next token at or after from.
func (t *Text) skip(from int) int {
	for from < len(t.raw) && strings.IndexByte(" \t\r\n,:", t.raw[from]) >= 0 {
		from++
	}
	return from
}

func (t *Text) index(path string, n *node) {
	if _, ok := t.at[strings.ToLower(path)]; !ok || path == "" {
		t.at[strings.ToLower(path)] = n.start
	}
	for _, m := range n.members {
		p := Under(path, m.name)
		t.at[strings.ToLower(p)] = m.start // the last of equal keys counts, as in encoding/json
		t.index(p, m.value)
	}
	for i, item := range n.items {
		t.index(path+"["+strconv.Itoa(i)+"]", item)
	}
}

// Under returns the path of the member called name of the object at path.
func Under(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (t *Text) line(offset int) int {
	lo, hi := 0, len(t.lines)
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; t.lines[mid] <= offset {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo + 1
}

// Has says whether the text has a value at path.
func (t *Text) Has(path string) bool {
	_, ok := t.at[strings.ToLower(path)]
	return ok
}

// Line returns the line of the value at path, from 1; for a value that is not there the line of the nearest one around it.
func (t *Text) Line(path string) int {
	for {
		if o, ok := t.at[strings.ToLower(path)]; ok {
			return t.line(o)
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			cut = 0
		}
		path = path[:cut]
	}
}

// Match compares the text with the shape that encoding/json would decode into v, a struct or a pointer to one: a problem
// for each value of another type, and a warning for each key that occurs twice in one object. Keys that v does not know, and
// null, are passed over. A type with UnmarshalJSON or UnmarshalText judges its own values. If Match reports no problem that is more than
// a warning, json.Unmarshal into the same type succeeds.
func (t *Text) Match(v any) []Problem {
	typ := reflect.TypeOf(v)
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	var ps []Problem
	t.match("", t.root, typ, &ps)
	return ps
}

func (t *Text) match(path string, n *node, typ reflect.Type, ps *[]Problem) {
	wrong := func(want string) {
		*ps = append(*ps, Problem{Line: t.line(n.start), Path: path, Text: fmt.Sprintf("found %s, want %s", n.kind, want)})
	}
	if n.kind == object {
		t.twice(path, n, ps)
	}
	if n.kind == null {
		return
	}
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	ptr := reflect.New(typ)
	if u, ok := ptr.Interface().(json.Unmarshaler); ok {
		if err := u.UnmarshalJSON(t.raw[n.start:n.end]); err != nil {
			*ps = append(*ps, Problem{Line: t.line(n.start), Path: path, Text: err.Error()})
		}
		return
	}
	if _, ok := ptr.Interface().(encoding.TextUnmarshaler); ok {
		if n.kind != text {
			wrong(string(text))
		} else if err := json.Unmarshal(t.raw[n.start:n.end], ptr.Interface()); err != nil {
			*ps = append(*ps, Problem{Line: t.line(n.start), Path: path, Text: err.Error()})
		}
		return
	}
	switch typ.Kind() {
	case reflect.Struct:
		if n.kind != object {
			wrong(string(object))
			return
		}
		fields := fieldsOf(typ)
		for _, m := range n.members {
			if ft, name, ok := find(fields, m.name); ok {
				t.match(Under(path, name), m.value, ft, ps)
			}
		}
	case reflect.Map:
		if n.kind != object {
			wrong(string(object))
			return
		}
		for _, m := range n.members {
			t.match(Under(path, m.name), m.value, typ.Elem(), ps)
		}
	case reflect.Slice:
		if n.kind != array {
			wrong(string(array))
			return
		}
		for i, item := range n.items {
			t.match(path+"["+strconv.Itoa(i)+"]", item, typ.Elem(), ps)
		}
	case reflect.String:
		if n.kind != text {
			wrong(string(text))
		}
	case reflect.Bool:
		if n.kind != boolean {
			wrong(string(boolean))
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if n.kind != number {
			wrong("a whole number")
		} else if _, err := strconv.ParseInt(n.literal, 10, typ.Bits()); err != nil {
			*ps = append(*ps, Problem{Line: t.line(n.start), Path: path, Text: fmt.Sprintf("%s is not a whole number in range", n.literal)})
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if n.kind != number {
			wrong("a whole number")
		} else if _, err := strconv.ParseUint(n.literal, 10, typ.Bits()); err != nil {
			*ps = append(*ps, Problem{Line: t.line(n.start), Path: path, Text: fmt.Sprintf("%s is not a whole number of 0 or more in range", n.literal)})
		}
	default:
		if err := json.Unmarshal(t.raw[n.start:n.end], ptr.Interface()); err != nil {
			*ps = append(*ps, Problem{Line: t.line(n.start), Path: path, Text: err.Error()})
		}
	}
}

// twice warns of keys that occur twice. Keys with an underscore in front are comments and may.
func (t *Text) twice(path string, n *node, ps *[]Problem) {
	seen := map[string]bool{}
	for _, m := range n.members {
		if strings.HasPrefix(m.name, "_") {
			continue
		}
		low := strings.ToLower(m.name)
		if seen[low] {
			*ps = append(*ps, Problem{Line: t.line(m.start), Path: Under(path, m.name), Text: "the key occurs twice in this object, and the last one counts", Hint: "remove one of them", Warning: true})
		}
		seen[low] = true
	}
}

type field struct {
	name string
	typ  reflect.Type
}

// fieldsOf returns the fields as encoding/json sees them; embedded structs are taken apart.
func fieldsOf(typ reflect.Type) []field {
	var out []field
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			out = append(out, fieldsOf(f.Type)...)
		case f.IsExported():
			if name == "" {
				name = f.Name
			}
			out = append(out, field{name, f.Type})
		}
	}
	return out
}

func find(fields []field, name string) (reflect.Type, string, bool) {
	for _, f := range fields {
		if f.name == name {
			return f.typ, f.name, true
		}
	}
	for _, f := range fields {
		if strings.EqualFold(f.name, name) {
			return f.typ, f.name, true
		}
	}
	return nil, "", false
}
