package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gprovision/model/record"
)

// maxString is the longest message or text attribute to keep, in bytes. A longer one is cut and ends in an ellipsis.
const maxString = 16 << 10

// Attr is one attribute of a Record. Its key includes the names of its groups, joined by dots.
type Attr struct {
	Key string
	// Value is a string, bool, int64, uint64, float64, json.RawMessage, or a time.Duration or time.Time.
	Value any
}

// Record is one entry of the log, made of plain data only.
type Record struct {
	Time    time.Time
	Level   slog.Level
	Message string
	// Job and Step are the values of the attributes with these names. They are empty if there are none.
	Job, Step string
	// Kind is the kind of event that the server gets. It is empty for a line of the log.
	Kind record.Kind
	// Person reports whether the record is for the person at the machine. All other records are for technicians.
	Person bool
	// Passing reports whether the record says nothing any more as soon as the next one is there.
	Passing bool
	// Attrs are all other attributes, in order.
	Attrs []Attr
}

// marker is the type behind ForPerson and Passing. It is a type of its own so that no text can pass for one.
type marker int

const (
	person marker = iota + 1
	passing
)

// String is for other handlers.
func (m marker) String() string { return "true" }

// MarshalJSON is for other handlers.
func (m marker) MarshalJSON() ([]byte, error) { return []byte("true"), nil }

// ForPerson returns an attribute that marks a record as meant for the person at the machine.
func ForPerson() slog.Attr { return slog.Any("person", person) }

// Passing returns an attribute that marks a record that says nothing any more as soon as the next one is there, such as how far a step is.
// It is in no file and on no event port.
func Passing() slog.Attr { return slog.Any("passing", passing) }

// Kind returns an attribute that makes a record an event of a kind. The server gets it as such, also if it gets no log.
func Kind(k record.Kind) slog.Attr { return slog.Any("kind", k) }

// Job returns the attribute that names the job of a record.
func Job(name string) slog.Attr { return slog.String("job", name) }

// Step returns the attribute that names the step of a record.
func Step(name string) slog.Attr { return slog.String("step", name) }

// Attr returns the value of the last attribute with that key. It reports false if there is none.
func (r Record) Attr(key string) (any, bool) {
	for i := len(r.Attrs) - 1; i >= 0; i-- {
		if r.Attrs[i].Key == key {
			return r.Attrs[i].Value, true
		}
	}
	return nil, false
}

// LevelName returns the level of r as debug, info, warn or error. A level in between counts as the one below it.
func (r Record) LevelName() string {
	switch {
	case r.Level >= slog.LevelError:
		return "error"
	case r.Level >= slog.LevelWarn:
		return "warn"
	case r.Level >= slog.LevelInfo:
		return "info"
	}
	return "debug"
}

// size returns roughly how much memory r takes, in bytes.
func (r Record) size() int {
	n := 160 + len(r.Message)
	for _, a := range r.Attrs {
		n += 48 + len(a.Key)
		switch v := a.Value.(type) {
		case string:
			n += len(v)
		case json.RawMessage:
			n += len(v)
		}
	}
	return n
}

// MarshalJSON returns r as one JSON object without a newline. It has time, level and msg, then job, step and
// person if set, then the attributes. An attribute with one of these names gets the prefix "attr.". Of
// two attributes with the same key, the later wins. Durations are in seconds.
func (r Record) MarshalJSON() ([]byte, error) { return r.appendJSON(nil), nil }

func reserved(key string) bool {
	switch key {
	case "time", "level", "msg", "job", "step", "person":
		return true
	}
	return false
}

func (r Record) appendJSON(b []byte) []byte {
	b = append(b, `{"time":"`...)
	b = r.Time.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	b = append(b, `","level":"`...)
	b = append(b, r.LevelName()...)
	b = append(b, `","msg":`...)
	b = appendString(b, r.Message)
	for _, f := range [...]struct{ key, value string }{{"job", r.Job}, {"step", r.Step}} {
		if f.value != "" {
			b = append(b, ',', '"')
			b = append(b, f.key...)
			b = append(b, '"', ':')
			b = appendString(b, f.value)
		}
	}
	if r.Person {
		b = append(b, `,"person":true`...)
	}
	for i, a := range r.Attrs {
		if laterSame(r.Attrs[i+1:], a.Key) {
			continue
		}
		key := a.Key
		if reserved(key) {
			key = "attr." + key
		}
		b = append(b, ',')
		b = appendString(b, key)
		b = append(b, ':')
		b = appendValue(b, a.Value)
	}
	return append(b, '}')
}

func laterSame(rest []Attr, key string) bool {
	for _, a := range rest {
		if a.Key == key {
			return true
		}
	}
	return false
}

func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		return appendString(b, v)
	case bool:
		return strconv.AppendBool(b, v)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case uint64:
		return strconv.AppendUint(b, v, 10)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return appendString(b, strconv.FormatFloat(v, 'g', -1, 64))
		}
		return strconv.AppendFloat(b, v, 'g', -1, 64)
	case time.Duration:
		return strconv.AppendFloat(b, v.Seconds(), 'f', -1, 64)
	case time.Time:
		return appendString(b, v.UTC().Format(time.RFC3339Nano))
	case json.RawMessage:
		return append(b, v...)
	}
	return append(b, "null"...)
}

func appendString(b []byte, s string) []byte {
	j, err := json.Marshal(s) // a string always works; bytes that are not UTF-8 become U+FFFD
	if err != nil {
		return append(b, `""`...)
	}
	return append(b, j...)
}

// Text returns r for people, as one line without a newline: level, job and step, message, attributes. It escapes
// characters that could move a terminal's cursor.
func (r Record) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-5s ", strings.ToUpper(r.LevelName()))
	if r.Job != "" {
		b.WriteString(plain(r.Job))
		if r.Step != "" {
			b.WriteString("/" + plain(r.Step))
		}
		b.WriteString(": ")
	}
	b.WriteString(plain(r.Message))
	for i, a := range r.Attrs {
		if laterSame(r.Attrs[i+1:], a.Key) {
			continue
		}
		b.WriteString(" " + plain(a.Key) + "=" + word(a.Value))
	}
	return b.String()
}

func word(v any) string {
	var s string
	switch v := v.(type) {
	case string:
		s = v
	case time.Duration:
		return v.Round(time.Millisecond).String()
	case time.Time:
		return v.UTC().Format(time.RFC3339)
	case json.RawMessage:
		return plain(string(v))
	default:
		s = fmt.Sprint(v)
	}
	if s == "" || strings.ContainsAny(s, " =\"'\t\n\r") || plain(s) != s {
		return strconv.Quote(s)
	}
	return s
}

// plain writes every character that is not printable as a Go escape.
func plain(s string) string {
	for _, c := range s {
		if c == utf8.RuneError || !strconv.IsPrint(c) {
			q := strconv.Quote(s)
			return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
		}
	}
	return s
}

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}

// handler is the slog.Handler. prefix holds the open groups.
type handler struct {
	j      *Journal
	base   Record
	prefix string
}

func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.j.o.Level.Level() }

func (h *handler) Handle(_ context.Context, sr slog.Record) error {
	r := h.base
	r.Attrs = append([]Attr(nil), h.base.Attrs...)
	r.Time, r.Level, r.Message = sr.Time, sr.Level, clip(sr.Message, maxString)
	if r.Time.IsZero() {
		r.Time = h.j.o.Now()
	}
	sr.Attrs(func(a slog.Attr) bool {
		r.put(h.prefix, a)
		return true
	})
	h.j.add(r)
	return nil
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := &handler{j: h.j, base: h.base, prefix: h.prefix}
	n.base.Attrs = append([]Attr(nil), h.base.Attrs...)
	for _, a := range attrs {
		n.base.put(h.prefix, a)
	}
	return n
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return &handler{j: h.j, base: h.base, prefix: h.prefix + name + "."}
}

func (r *Record) put(prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return
	}
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, g := range v.Group() {
			r.put(prefix, g)
		}
		return
	}
	switch m := v.Any().(type) {
	case marker:
		r.Person, r.Passing = r.Person || m == person, r.Passing || m == passing
		return
	case record.Kind:
		r.Kind = m
		return
	}
	f := freeze(v)
	if s, ok := f.(string); ok && prefix == "" {
		switch a.Key {
		case "job":
			r.Job = s
			return
		case "step":
			r.Step = s
			return
		}
	}
	r.Attrs = append(r.Attrs, Attr{clip(prefix+a.Key, 256), f})
}

// freeze turns a value into plain data that never changes.
func freeze(v slog.Value) any {
	switch v.Kind() {
	case slog.KindString:
		return clip(v.String(), maxString)
	case slog.KindBool:
		return v.Bool()
	case slog.KindInt64:
		return v.Int64()
	case slog.KindUint64:
		return v.Uint64()
	case slog.KindFloat64:
		return v.Float64()
	case slog.KindDuration:
		return v.Duration()
	case slog.KindTime:
		return v.Time()
	}
	return freezeAny(v.Any())
}

func freezeAny(v any) (out any) {
	defer func() {
		if p := recover(); p != nil {
			out = fmt.Sprintf("!unprintable %T", v)
		}
	}()
	if e, ok := v.(error); ok {
		return clip(e.Error(), maxString)
	}
	if u, ok := v.(interface{ Redacted() string }); ok { // url.URL: leave out its password
		return clip(u.Redacted(), maxString)
	}
	if s, ok := v.(fmt.Stringer); ok {
		return clip(s.String(), maxString)
	}
	// Use JSON, not %v. The latter prints unexported fields and bypasses the methods that would hide them.
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("!unprintable %T", v)
	}
	if len(b) > maxString {
		return clip(string(b), maxString)
	}
	var s string
	if json.Unmarshal(b, &s) == nil && len(b) > 0 && b[0] == '"' {
		return s
	}
	return json.RawMessage(b)
}
