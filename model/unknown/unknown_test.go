package unknown

import (
	"encoding/json"
	"testing"
	"time"
)

type part struct {
	UUID string `json:"uuid"`
	Size int    `json:"size"`
}

type place struct {
	Room string `json:"room"`
}

type base struct{ Common int }

type file struct {
	base
	Version int               `json:"version"`
	Name    string            `json:"name,omitempty"`
	Time    time.Time         `json:"time,omitzero"`
	Parts   []part            `json:"parts,omitempty"`
	Places  []place           `json:"places,omitempty"`
	In      *place            `json:"in,omitempty"`
	Any     map[string]string `json:"any,omitempty"`
	Hidden  int               `json:"-"`

	unknown Keys
}

func TestKept(t *testing.T) {
	for _, c := range []struct {
		name, in, out string
		change        func(*file)
	}{
		{"none", `{"version":1,"name":"a"}`, `{"Common":0,"version":1,"name":"b"}`, func(f *file) { f.Name = "b" }},
		{"at the top", `{"version":1,"new":{"x":[1,2.50]},"big":12345678901234567890}`, `{"Common":0,"big":12345678901234567890,"new":{"x":[1,2.50]},"version":1}`, nil},
		{"known by encoding/json", `{"VERSION":1,"Hidden":7,"common":3}`, `{"Common":3,"Hidden":7,"version":1}`, nil},
		{"in an object", `{"version":1,"in":{"room":"a","door":2}}`, `{"Common":0,"in":{"door":2,"room":"b"},"version":1}`, func(f *file) { f.In.Room = "b" }},
		{"in an object that goes", `{"version":1,"in":{"room":"a","door":2}}`, `{"Common":0,"version":1}`, func(f *file) { f.In = nil }},
		{"in a list, by its name", `{"version":1,"parts":[{"uuid":"a","size":1,"new":1},{"uuid":"b","size":2,"new":2}]}`,
			`{"Common":0,"parts":[{"uuid":"c","size":0},{"new":2,"size":9,"uuid":"b"}],"version":1}`,
			func(f *file) { f.Parts = []part{{UUID: "c"}, {UUID: "b", Size: 9}} }},
		{"in a list, by its place", `{"version":1,"places":[{"room":"a"},{"room":"b","new":2}]}`, `{"Common":0,"places":[{"room":"a"},{"new":2,"room":"c"}],"version":1}`,
			func(f *file) { f.Places[1].Room = "c" }},
		{"in a list of another length", `{"version":1,"places":[{"room":"a"},{"room":"b","new":2}]}`, `{"Common":0,"places":[{"room":"a"}],"version":1}`,
			func(f *file) { f.Places = f.Places[:1] }},
		{"a map knows all", `{"version":1,"any":{"x":"y"},"time":"2026-11-22T10:00:00Z"}`, `{"Common":0,"version":1,"time":"2026-11-22T10:00:00Z","any":{"x":"y"}}`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f file
			if err := json.Unmarshal([]byte(c.in), &f); err != nil {
				t.Fatal(err)
			}
			f.unknown = Of([]byte(c.in), f)
			if c.change != nil {
				c.change(&f)
			}
			b, err := json.Marshal(f)
			if err == nil {
				b, err = f.unknown.Put(b)
			}
			if err != nil || string(b) != c.out {
				t.Errorf("got %s, %v\nwant %s", b, err, c.out)
			}
		})
	}
}

func FuzzKept(f *testing.F) {
	f.Add([]byte(`{"version":1,"new":1,"parts":[{"uuid":"a","x":2}],"in":{"y":3}}`))
	f.Add([]byte(`{"version":1,"version":2,"VERSION":3,"in":{},"In":{"a":1}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var v file
		if json.Unmarshal(in, &v) != nil {
			return
		}
		keys := Of(in, v)
		b, err := json.Marshal(v)
		if err != nil {
			return
		}
		out, err := keys.Put(b)
		if err != nil {
			t.Fatal(err)
		}
		var again file
		if err := json.Unmarshal(out, &again); err != nil {
			t.Fatalf("%s became %s: %v", in, out, err)
		}
		if c, err := json.Marshal(again); err != nil || string(c) != string(b) {
			t.Fatalf("what is known has changed: %s, then %s", b, c)
		}
		if Of(out, again) != keys {
			t.Fatalf("kept are %s, then %s", keys, Of(out, again))
		}
	})
}
