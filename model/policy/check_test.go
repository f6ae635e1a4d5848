package policy

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"gprovision/model/signature"
)

func testKey(t *testing.T) string {
	t.Helper()
	k, err := signature.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k.Public().String()
}

func TestCheck(t *testing.T) {
	key := testKey(t)
	for name, tc := range map[string]struct{ in, want string }{
		"good":           {`"keys":["KEY"]`, ""},
		"comment":        {`"keys":["KEY"],"_why":{"a":1},"_":2`, ""},
		"letters mixed":  {`"keys":["KEY"],"lokced":true`, "line 2: lokced: no such key is known"},
		"one missing":    {`"keys":["KEY"],"failedBoot":3`, "failedBoot: no such key"},
		"of another":     {`"keys":["KEY"],"nothingLikeIt":3`, "nothingLikeIt"},
		"wrong type":     {`"keys":["KEY"],"locked":"yes"`, "line 2: locked: found a string, want true or false"},
		"number as text": {`"keys":["KEY"],"failedBoots":"3"`, "failedBoots: found a string"},
		"fraction":       {`"keys":["KEY"],"failedBoots":2.5`, "failedBoots: 2.5 is not a whole number"},
		"one, not many":  {`"keys":"KEY"`, "keys: found a string, want a list"},
		"twice":          {`"keys":["KEY"],"locked":true,"locked":false`, "warning: the key occurs twice"},
		"no key":         {`"keys":["RWx"]`, "keys[0]"},
		"support key":    {`"keys":["KEY"],"supportKeys":["nonsense"]`, "supportKeys[0]"},
		"out of range":   {`"keys":["KEY"],"graceSeconds":-1`, "line 2: graceSeconds: policy graceSeconds is -1"},
		"trusts nobody":  {`"locked":true`, "no keys"},
		"unsigned too":   {`"keys":["KEY"],"allowUnsigned":true`, "allowUnsigned: warning: who can hide a signature"},
		"no server":      {`"keys":["KEY"],"provision":true`, "provision: warning: without serverCA"},
	} {
		_, ps := Check([]byte("{\"version\":1,\n" + strings.ReplaceAll(tc.in, "KEY", key) + "\n}"))
		text := ""
		for _, p := range ps {
			text += p.String() + "\n"
		}
		if (tc.want == "") != (text == "") || !strings.Contains(text, tc.want) {
			t.Errorf("%s: got %q, want %q", name, text, tc.want)
		}
	}
	if _, ps := Check([]byte(`{"version":1,"keys":["` + key + `"],"lokced":true}`)); len(ps) != 1 || !strings.Contains(ps[0].Hint, "is locked meant?") {
		t.Errorf("the hint is %v", ps)
	}
	for name, in := range map[string]string{"mark": "\xef\xbb\xbf{\"version\":1,\"keys\":[\"" + key + "\"]}"} {
		if _, ps := Check([]byte(in)); len(ps) > 0 {
			t.Errorf("%s: %v", name, ps)
		}
		if _, err := Parse([]byte(in)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// keys returns the names of all keys of the format.
func keys() []string {
	var out []string
	for f := range reflect.TypeFor[Policy]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Type.Kind() != reflect.Struct {
			out = append(out, name)
			continue
		}
		for inner := range f.Type.Fields() {
			key, _, _ := strings.Cut(inner.Tag.Get("json"), ",")
			out = append(out, name+"."+key)
		}
	}
	return out
}

// TestShow holds Show and the format's page against the type: each key is in both, once, in one order.
func TestShow(t *testing.T) {
	page, err := os.ReadFile("../../docs/formats/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := Policy{Version: 1}.Show()
	seen := map[string]bool{}
	for _, s := range shown {
		if seen[s.Key] || s.Value == "" || s.Means == "" || s.Set && s.Key != "version" {
			t.Errorf("%+v", s)
		}
		seen[s.Key] = true
	}
	for _, k := range keys() {
		if !seen[k] {
			t.Errorf("%s is not shown", k)
		}
		if !strings.Contains(string(page), "| `"+k+"` |") {
			t.Errorf("%s is not on the page", k)
		}
	}
	if len(shown) != len(keys()) {
		t.Errorf("%d are shown of %d", len(shown), len(keys()))
	}
	for _, s := range (Policy{Version: 1, GraceSeconds: 7, Locked: true, ForcedRestore: ForcedRestoreNever}).Show() {
		want, ok := map[string]string{"graceSeconds": "7 s", "locked": "yes", "forcedRestore": "never"}[s.Key]
		if s.Set != (ok || s.Key == "version") || ok && s.Value != want {
			t.Errorf("%+v", s)
		}
	}
}

// TestTakes: keys are read from where the policy says, and from nowhere else.
func TestTakes(t *testing.T) {
	for _, c := range []struct {
		panels           []string
		keyboard, serial bool
	}{{nil, false, false}, {[]string{Serial}, false, true}, {[]string{Keyboard}, true, false}, {[]string{Keyboard, Serial}, true, true}} {
		p := Policy{Panels: c.panels}
		if p.Takes(Keyboard) != c.keyboard || p.Takes(Serial) != c.serial {
			t.Errorf("%q: keyboard %t, serial %t", c.panels, p.Takes(Keyboard), p.Takes(Serial))
		}
	}
}
