package answer

import (
	"strings"
	"testing"
)

func TestJSON(t *testing.T) {
	for _, c := range []struct {
		v    any
		want string // empty: refused
	}{
		{map[string]int{}, "{\n  \"version\": 1\n}\n"},
		{struct {
			B string   `json:"b"`
			A []string `json:"a"`
		}{"x\"}", []string{}}, "{\n  \"version\": 1,\n  \"b\": \"x\\\"}\",\n  \"a\": []\n}\n"},
		{[]int{1}, ""},
		{nil, ""},
		{"text", ""},
		{map[string]int{"version": 7}, ""},
		{func() {}, ""},
	} {
		var out strings.Builder
		err := JSON(&out, c.v)
		if out.String() != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%T: %q, %v", c.v, out.String(), err)
		}
	}
}
