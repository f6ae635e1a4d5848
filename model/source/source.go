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
	// Warning reports whether the text can be used as it is although a person should look at it.
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

// ErrUTF16 says that a text is not in UTF-8, but in UTF-16, as some editors and shells write it.
var ErrUTF16 = errors.New("the text is in UTF-16, want UTF-8")

// Decode returns a text without the byte order mark that some editors put in front of UTF-8. The error for a text in UTF-16, with or
// without a mark, is ErrUTF16.
func Decode(b []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(b, []byte("\xef\xbb\xbf")):
		return b[3:], nil
	case bytes.HasPrefix(b, []byte("\xff\xfe")), bytes.HasPrefix(b, []byte("\xfe\xff")):
		return nil, ErrUTF16
	case len(b) >= 2 && (b[0] == 0) != (b[1] == 0): // each text here begins with an ASCII character
		return nil, ErrUTF16
	}
	return b, nil
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
	b, err := Decode(b)
	if err != nil {
		return nil, Problem{Line: 1, Text: err.Error(), Hint: "save it as UTF-8: in Notepad by Save As, in PowerShell by -Encoding utf8"}
	}
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

// Bytes returns the text as encoding/json takes it: without a byte order mark.
func (t *Text) Bytes() []byte { return t.raw }

// Has reports whether the text has a value at path.
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

// Unknown returns a problem for each key that encoding/json would pass over when it decodes into v, a struct or a pointer to one, with
// the known key that it is most like. Keys with an underscore in front are comments. Values of types that judge their own are passed over.
func (t *Text) Unknown(v any) []Problem {
	typ := reflect.TypeOf(v)
	var ps []Problem
	t.unknown("", t.root, typ, &ps)
	return ps
}

func (t *Text) unknown(path string, n *node, typ reflect.Type, ps *[]Problem) {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if _, ok := reflect.New(typ).Interface().(json.Unmarshaler); ok {
		return
	}
	switch {
	case typ.Kind() == reflect.Struct && n.kind == object:
		fields := fieldsOf(typ)
		for _, m := range n.members {
			if ft, name, ok := find(fields, m.name); ok {
				t.unknown(Under(path, name), m.value, ft, ps)
			} else if !strings.HasPrefix(m.name, "_") {
				p := Problem{Line: t.line(m.start), Path: Under(path, m.name), Text: "no such key is known", Hint: "begin it with an underscore if it is a comment"}
				if like := closest(m.name, fields); like != "" {
					p.Hint = "is " + like + " meant? A key that begins with an underscore is a comment"
				}
				*ps = append(*ps, p)
			}
		}
	case typ.Kind() == reflect.Map && n.kind == object:
		for _, m := range n.members {
			t.unknown(Under(path, m.name), m.value, typ.Elem(), ps)
		}
	case typ.Kind() == reflect.Slice && n.kind == array:
		for i, item := range n.items {
			t.unknown(path+"["+strconv.Itoa(i)+"]", item, typ.Elem(), ps)
		}
	}
}

// closest returns the field whose name takes the fewest changes to make of name, empty if none is like it.
func closest(name string, fields []field) string {
	best, least := "", 1+len(name)/3
	for _, f := range fields {
		if d := distance(strings.ToLower(name), strings.ToLower(f.name)); d <= least && (best == "" || d < least) {
			best, least = f.name, d
		}
	}
	return best
}

// distance is how many characters must be put in, left out or changed to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j]+1, before+1)
		}
	}
	return row[len(b)]
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
