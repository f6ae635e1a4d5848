package naming

import (
	"reflect"
	"strings"
	"testing"

	"gprovision/model/source"
)

const acme = `{
  "version": 1,
  "_why": "the product of ACME",
  "imagePrefix": "ACME.LNX.FOX.",
  "recoveryLabel": "ACMEREC",
  "primaryLabel": "ACMEROOT",
  "hostPrefix": "acme-"
}`

func TestCheck(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"good":                 {`"imagePrefix":"ACME.LNX.FOX.","recoveryLabel":"R","primaryLabel":"P","hostPrefix":"a"`, ""},
		"comment":              {`"_imagePrefix":"anything"`, ""},
		"nothing":              {`"_":1`, ""},
		"typing error":         {`"imagePrefx":"ACME.LNX.FOX."`, "line 2: imagePrefx: no such key is known"},
		"a number":             {`"hostPrefix":7`, "line 2: hostPrefix: found a number, want a string"},
		"no final dot":         {`"imagePrefix":"ACME.LNX.FOX"`, "line 2: imagePrefix: image prefix \"ACME.LNX.FOX\" is not three parts"},
		"two parts":            {`"imagePrefix":"ACME.LNX."`, "is not three parts"},
		"a path":               {`"imagePrefix":"../LNX.FOX."`, "is not three parts"},
		"long prefix":          {`"imagePrefix":"` + strings.Repeat("A", 101) + `.LNX.FOX."`, "imagePrefix: it has 110 characters, want at most 100"},
		"16 bytes":             {`"recoveryLabel":"ACME_RECOVERY_01"`, ""},
		"17 bytes":             {`"recoveryLabel":"ACME_RECOVERY_012"`, "line 2: recoveryLabel: label \"ACME_RECOVERY_012\" has 17 bytes, and ext4 has room for 16"},
		"bytes, not letters":   {`"primaryLabel":"ÄÖÜÄÖÜÄÖÜ"`, "has 18 bytes"},
		"other letters":        {`"primaryLabel":"Füchse"`, "is not letters, digits"},
		"a directory":          {`"recoveryLabel":".."`, "is not letters, digits"},
		"a path as label":      {`"recoveryLabel":"a/b"`, "is not letters, digits"},
		"blank":                {`"recoveryLabel":"A B"`, "is not letters, digits"},
		"two of the same":      {`"recoveryLabel":"ACME","primaryLabel":"acme"`, "line 2: primaryLabel: label \"acme\" is that of the recovery volume too"},
		"label of the ESP":     {`"primaryLabel":"esp"`, "is that of another partition"},
		"label of sticks":      {`"recoveryLabel":"GPROVSTICK"`, "is that of another partition"},
		"label of bundles":     {`"recoveryLabel":"SUPPORT"`, "is that of another partition"},
		"capital host":         {`"hostPrefix":"ACME-"`, "line 2: hostPrefix: \"ACME-\" is not 1 to 32"},
		"host of a dash":       {`"hostPrefix":"-acme"`, "hostPrefix: \"-acme\""},
		"domain":               {`"hostPrefix":"acme.example."`, "hostPrefix:"},
		"long host":            {`"hostPrefix":"` + strings.Repeat("a", 33) + `"`, "hostPrefix:"},
		"all that is wrong":    {`"imagePrefix":"x","hostPrefix":"X"`, "hostPrefix:"},
		"twice is only warned": {`"hostPrefix":"a","hostPrefix":"b"`, "warning: the key occurs twice"},
	} {
		b := []byte("{\"version\":1,\n" + tc.in + "\n}")
		n, ps := Check(b)
		text := ""
		for _, p := range ps {
			text += p.String() + "\n"
		}
		if (tc.want == "") != (text == "") || !strings.Contains(text, tc.want) {
			t.Errorf("%s: got %q, want %q", name, text, tc.want)
		}
		// What passes here is read by every init, and gives the same.
		if got, err := Parse(b); source.Join(ps) == nil && (err != nil || got != n) {
			t.Errorf("%s: %+v and %+v, %v", name, n, got, err)
		}
	}
	for in, want := range map[string]string{`{}`: "version 0 is not known", `{"version":2}`: "version 2 is not known", ``: "", `[]`: "", `{"version":1} x`: ""} {
		if _, ps := Check([]byte(in)); source.Join(ps) == nil || !strings.Contains(source.Join(ps).Error(), want) {
			t.Errorf("%q: %v", in, ps)
		}
		if _, err := Parse([]byte(in)); err == nil {
			t.Errorf("%q is taken", in)
		}
	}
}

func TestParse(t *testing.T) {
	want := Names{1, "ACME.LNX.FOX.", "ACMEREC", "ACMEROOT", "acme-"}
	for name, in := range map[string]string{"plain": acme, "mark of UTF-8": "\xef\xbb\xbf" + acme, "a key of a later version": strings.Replace(acme, "{", `{"colour":"red",`, 1)} {
		if n, err := Parse([]byte(in)); err != nil || n != want {
			t.Errorf("%s: %+v, %v", name, n, err)
		}
	}
	if _, err := Parse([]byte(acme + strings.Repeat(" ", MaxSize))); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("large: %v", err)
	}
	b, err := want.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := Parse(b); err != nil || n != want {
		t.Errorf("%s: %+v, %v", b, n, err)
	}
}

func TestOr(t *testing.T) {
	def := Names{1, "WIDGET.LNX.SHINY.", "RECOVERY", "PRIMARY", "gp-"}
	if got := (Names{Version: 1, ImagePrefix: "ACME.LNX.FOX."}).Or(def); got != (Names{1, "ACME.LNX.FOX.", "RECOVERY", "PRIMARY", "gp-"}) {
		t.Errorf("%+v", got)
	}
	// A field that Or forgets would be empty.
	for i, v := 0, reflect.ValueOf((Names{}).Or(def)); i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("%s is not taken over", v.Type().Field(i).Name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(acme))
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`{"version":1,"recoveryLabel":"..","primaryLabel":"a/b","hostPrefix":"-"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := Parse(b)
		checked, ps := Check(b)
		if err != nil {
			if source.Join(ps) == nil {
				t.Fatalf("a builder takes what init refuses: %v", err)
			}
			return
		}
		if source.Join(ps) == nil && checked != n {
			t.Fatalf("%+v and %+v", n, checked)
		}
		for _, s := range []string{n.RecoveryLabel, n.PrimaryLabel, n.HostPrefix, n.ImagePrefix} {
			if strings.ContainsAny(s, "/ \n\\\"'$") || strings.HasPrefix(s, ".") {
				t.Fatalf("%q is taken", s)
			}
		}
		text, err := n.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Parse(text); err != nil || again != n {
			t.Fatalf("%s: %+v, %v", text, again, err)
		}
	})
}
