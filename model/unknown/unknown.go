// Package unknown keeps the keys of a JSON object that a program does not know: a newer version of it may have written them, and they must
// survive when the file is read, changed and written again.
//
// Of compares what was read with the Go value that it was decoded into, at every level where the value has structs. Put adds what was
// found to the JSON of a later value. A struct keeps its Keys in a field that encoding/json does not see; being a string, Keys leave it
// comparable. A value that was not read from a file has none, so a new document never inherits keys of an old one.
//
// It reads hostile input: it descends no further than the Go type does, and does not judge what it keeps. The caller limits the size.
package unknown

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Keys are the unknown keys of one object and of the objects inside it, with their values. The zero value is none.
type Keys string

// tree is what Keys hold, decoded.
type tree struct {
	// Keys are unknown keys with their values.
	Keys map[string]json.RawMessage `json:"k,omitempty"`
	// Fields are those of known keys whose values are objects.
	Fields map[string]tree `json:"f,omitempty"`
	// Elements are those of objects in a list, by the name that the list gives them.
	Elements map[string]tree `json:"e,omitempty"`
}

func (t tree) empty() bool { return len(t.Keys) == 0 && len(t.Fields) == 0 && len(t.Elements) == 0 }

// Of returns the keys of the JSON object raw that the type of value, a struct, does not know. raw is what value was decoded from.
func Of(raw []byte, value any) Keys {
	t := find(raw, reflect.TypeOf(value))
	if t.empty() {
		return ""
	}
	b, err := json.Marshal(t)
	if err != nil {
		return "" // a value that is no JSON was not decoded either
	}
	return Keys(b)
}

// Put adds the keys to b, the JSON of a struct. What b has itself stays as it is. Objects in lists get theirs back if they are found again:
// by the value of a key "uuid" or "Image", else by their place in a list that is as long as it was.
func (k Keys) Put(b []byte) ([]byte, error) {
	if k == "" {
		return b, nil
	}
	var t tree
	if err := json.Unmarshal([]byte(k), &t); err != nil {
		return nil, fmt.Errorf("keys that are not known: %w", err)
	}
	out, err := put(b, t)
	if err != nil {
		return nil, fmt.Errorf("keys that are not known: %w", err)
	}
	return out, nil
}

func find(raw []byte, typ reflect.Type) (t tree) {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if decodesItself(typ) {
		return t
	}
	switch typ.Kind() {
	case reflect.Struct:
		var object map[string]json.RawMessage
		if json.Unmarshal(raw, &object) != nil {
			return t
		}
		known := fields(typ)
		for key, value := range object {
			field, ok := known[strings.ToLower(key)]
			if !ok {
				if t.Keys == nil {
					t.Keys = map[string]json.RawMessage{}
				}
				t.Keys[key] = value
				continue
			}
			if inner := find(value, field.Type); !inner.empty() {
				if t.Fields == nil {
					t.Fields = map[string]tree{}
				}
				t.Fields[field.Name] = inner
			}
		}
	case reflect.Slice, reflect.Array:
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) != nil {
			return t
		}
		for i, element := range list {
			if inner := find(element, typ.Elem()); !inner.empty() {
				if t.Elements == nil {
					t.Elements = map[string]tree{}
				}
				t.Elements[name(element, i, len(list))] = inner
			}
		}
	}
	return t
}

func decodesItself(typ reflect.Type) bool {
	return reflect.PointerTo(typ).Implements(reflect.TypeFor[json.Unmarshaler]())
}

// fields returns the keys of a struct in lower case, as encoding/json finds them, and how they are written.
func fields(typ reflect.Type) map[string]struct {
	Name string
	Type reflect.Type
} {
	out := map[string]struct {
		Name string
		Type reflect.Type
	}{}
	for _, f := range reflect.VisibleFields(typ) {
		tag := f.Tag.Get("json")
		key, _, _ := strings.Cut(tag, ",")
		if !f.IsExported() || tag == "-" || f.Anonymous && key == "" {
			continue
		}
		if key == "" {
			key = f.Name
		}
		out[strings.ToLower(key)] = struct {
			Name string
			Type reflect.Type
		}{key, f.Type}
	}
	return out
}

// name is how an object of a list is found again.
func name(element []byte, i, length int) string {
	var id struct {
		UUID  string `json:"uuid"`
		Image string
	}
	if json.Unmarshal(element, &id) == nil {
		switch {
		case id.UUID != "":
			return "uuid " + id.UUID
		case id.Image != "":
			return "image " + id.Image
		}
	}
	return "place " + strconv.Itoa(i) + " of " + strconv.Itoa(length)
}

func put(b []byte, t tree) ([]byte, error) {
	if len(t.Elements) > 0 {
		var list []json.RawMessage
		if err := json.Unmarshal(b, &list); err != nil {
			return b, nil // it is no list any more
		}
		for i, element := range list {
			inner, ok := t.Elements[name(element, i, len(list))]
			if !ok {
				continue
			}
			var err error
			if list[i], err = put(element, inner); err != nil {
				return nil, err
			}
		}
		return json.Marshal(list)
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(b, &object); err != nil || object == nil {
		return b, nil // it is no object any more
	}
	for key, inner := range t.Fields {
		value, ok := object[key]
		if !ok { // it is empty now: what was inside went with it
			continue
		}
		var err error
		if object[key], err = put(value, inner); err != nil {
			return nil, err
		}
	}
	for key, value := range t.Keys {
		if _, ok := object[key]; !ok {
			object[key] = bytes.Clone(value)
		}
	}
	return json.Marshal(object)
}
