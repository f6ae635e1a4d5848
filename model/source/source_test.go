package source

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

type inner struct {
	Name string
	Size int64
	Num  uint8 `json:"num,omitempty"`
}

type outer struct {
	inner
	List []inner
	Map  map[string]string
	On   bool
	Ptr  *int
}

func TestMatch(t *testing.T) {
	tests := []struct {
		name, in string
		want     []string
	}{
		{"fine", `{"Name":"a","list":[{"Size":1}],"Map":{"a":"b"},"On":true,"Ptr":null,"other":{"x":[1]}}`, nil},
		{"types", "{\n\"Name\":1,\n\"List\":[{\"Size\":\"x\"},\n5],\n\"On\":\"yes\"}", []string{
			"line 2: Name: found a number, want a string",
			"line 3: List[0].Size: found a string, want a whole number",
			"line 4: List[1]: found a number, want an object",
			"line 5: On: found a string, want true or false",
		}},
		{"numbers", `{"Size":1.5,"num":256,"Ptr":1e3}`, []string{
			"line 1: Size: 1.5 is not a whole number in range",
			"line 1: num: 256 is not a whole number of 0 or more in range",
			"line 1: Ptr: 1e3 is not a whole number in range",
		}},
		{"twice", "{\"Name\":\"a\",\n\"name\":\"b\",\"_\":1,\"_\":2}", []string{"line 2: name: warning: the key occurs twice in this object, and the last one counts"}},
		{"map", `{"Map":{"a":1}}`, []string{"line 1: Map.a: found a number, want a string"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x, err := Parse([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range x.Match(outer{}) {
				got = append(got, p.String())
			}
			if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestSyntax(t *testing.T) {
	for in, want := range map[string]int{"": 1, "{\n\"a\": 1\n\"b\": 2}": 3, "{}x": 1, "\n\n[1,]": 3, "{\"a\":": 1} {
		_, err := Parse([]byte(in))
		p, ok := err.(Problem)
		if !ok || p.Line != want {
			t.Errorf("%q: got %v, want a problem in line %d", in, err, want)
		}
	}
}

func TestLine(t *testing.T) {
	x, err := Parse([]byte("{\n\"A\": [\n{\"B\": 1},\n{\n\"C\": 2}]}"))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"": 1, "A": 2, "a[0].b": 3, "A[1].C": 5, "A[1].Missing": 4, "A[7].x": 2, "No": 1} {
		if got := x.Line(path); got != want {
			t.Errorf("Line(%q) = %d, want %d", path, got, want)
		}
	}
	if !x.Has("A[1].C") || x.Has("A[1].D") {
		t.Error("Has is wrong")
	}
}

func FuzzMatch(f *testing.F) {
	for _, s := range []string{`{}`, `[]`, `{"Name":"a","List":[{"Size":1}]}`, `{"Size":-0,"num":-1}`, `{"Map":{"a":null}}`, `"x"`, `{"Ptr":"1"}`, `{"Inner":3}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := Parse(b)
		var v outer
		jsonErr := json.Unmarshal(b, &v)
		if err != nil {
			if jsonErr == nil && !strings.Contains(err.Error(), "inside each other") {
				t.Fatalf("Parse refuses what encoding/json accepts: %v", err)
			}
			return
		}
		if Join(x.Match(outer{})) == nil && jsonErr != nil {
			t.Fatalf("Match accepts what encoding/json refuses: %v", jsonErr)
		}
	})
}

func TestDecode(t *testing.T) {
	const text = `{"a": 1}`
	for name, tc := range map[string]struct {
		in  string
		bad bool
	}{
		"plain":                    {text, false},
		"byte order mark":          {"\xef\xbb\xbf" + text, false},
		"UTF-16, little, mark":     {"\xff\xfe{\x00}\x00", true},
		"UTF-16, big, mark":        {"\xfe\xff\x00{\x00}", true},
		"UTF-16, little, no mark":  {"{\x00}\x00", true},
		"UTF-16, big, without one": {"\x00{\x00}", true},
	} {
		got, err := Decode([]byte(tc.in))
		if (err != nil) != tc.bad || !tc.bad && string(got) != text {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		txt, err := Parse([]byte(tc.in))
		var p Problem
		switch {
		case tc.bad && (!errors.As(err, &p) || !strings.Contains(p.Text, "UTF-16") || !strings.Contains(p.Hint, "UTF-8")):
			t.Errorf("%s: %v", name, err)
		case !tc.bad && (err != nil || string(txt.Bytes()) != text):
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnknown(t *testing.T) {
	type part struct {
		Size int `json:"size"`
	}
	type shape struct {
		Name  string          `json:"name"`
		Parts []part          `json:"parts"`
		Named map[string]part `json:"named"`
		One   *part           `json:"one"`
	}
	txt, err := Parse([]byte(`{"NAME":"x","nmae":1,"_note":{"size":1},
"parts":[{"size":1},{"sise":2,"_size":3}],
"named":{"anything":{"colour":1}},"one":{"size":1,"zzz":1}}`))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, p := range txt.Unknown(shape{}) {
		got += p.String() + " / " + p.Hint + "\n"
	}
	for _, want := range []string{"line 1: nmae: no such key is known / is name meant?", "line 2: parts[1].sise: no such key is known / is size meant?", "line 3: named.anything.colour", "line 3: one.zzz"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if n := strings.Count(got, "\n"); n != 4 {
		t.Errorf("%d problems:\n%s", n, got)
	}
}
