package release

import (
	"errors"
	"math/rand"
	"slices"
	"strings"
	"testing"
)

const prefix = "WIDGET.LNX.SHINY."

func TestParseName(t *testing.T) {
	good := []string{
		prefix + "2018-04-26.6940.upd", prefix + "2026-11-22.0001.upd", prefix + "2024-02-29.1.upd",
		prefix + "2026-11-22.18446744073709551615.upd", prefix + "2026-11-22.00000000000000000001.upd", prefix + "2026-01-01.0.upd",
	}
	for _, s := range good {
		n, err := ParseName(s, prefix)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if n.String() != s || n.Base()+Suffix != s || n.Prefix != prefix {
			t.Errorf("%s: prints as %s", s, n)
		}
		if again, err := ParseVersion(n.Version()); err != nil || again.Compare(n) != 0 {
			t.Errorf("%s: version %s: %v", s, n.Version(), err)
		}
	}
	bad := map[string]string{
		"":                                              "no .upd",
		prefix + "2018-04-26.6940":                      "no .upd",
		prefix + "2018-04-26.6940.UPD":                  "no .upd",
		"OTHER.LNX.SHINY.2018-04-26.6940.upd":           "begin with",
		"WIDGET.LNX.2018-04-26.6940.upd":                "begin with",
		prefix + "X.2018-04-26.6940.upd":                "parts",
		prefix + "2015-02-33.1593.upd":                  "calendar",
		prefix + "2015-02-29.1593.upd":                  "calendar",
		prefix + "0000-01-01.1593.upd":                  "calendar",
		prefix + "2015-2-3.1593.upd":                    "calendar",
		prefix + "02033.1593.upd":                       "calendar",
		prefix + "2-3.1593.upd":                         "calendar",
		prefix + "a3.1593.upd":                          "calendar",
		prefix + "2015-02-03.193o.upd":                  "build number",
		prefix + "2015-02-03..upd":                      "1 to 20 digits",
		prefix + "2015-02-03.+1.upd":                    "build number",
		prefix + "2015-02-03.18446744073709551616.upd":  "too large",
		prefix + "2015-02-03.000000000000000000001.upd": "1 to 20 digits",
		"/x/" + prefix + "2015-02-03.1.upd":             "begin with",
		prefix + "2015-02-03.1.upd\n":                   "no .upd",
		prefix + strings.Repeat("1", 300) + ".upd":      "characters",
	}
	for s, want := range bad {
		if _, err := ParseName(s, prefix); !errors.Is(err, ErrName) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", s, err, want)
		}
	}
	if _, err := ParseName("A.B.C.2026-01-01.1.upd", ""); err != nil {
		t.Error(err)
	}
	for _, s := range []string{"../A.B.C.2026-01-01.1.upd", "A.B C.D.2026-01-01.1.upd", "A..C.2026-01-01.1.upd", "Ä.B.C.2026-01-01.1.upd"} {
		if _, err := ParseName(s, ""); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", s, err)
		}
	}
	for p, ok := range map[string]bool{prefix: true, "": false, "A.B.C": false, "A.B.": false, "A.B.C.D.": false, "A..C.": false, "A.B/.C.": false, "A/.B.C.": false, "A.B.C/.": false,
		"az.AZ.09-_.": true, "`.B.C.": false, "{.B.C.": false, "@.B.C.": false, "[.B.C.": false, ":.B.C.": false} {
		if (CheckPrefix(p) == nil) != ok {
			t.Errorf("CheckPrefix(%q): %v", p, CheckPrefix(p))
		}
	}
}

// TestSort uses the names of the original system's test; the days that no calendar has are now malformed.
func TestSort(t *testing.T) {
	want := []string{"2018-04-26.6940", "2018-04-05.7038", "2018-04-05.7037", "2016-09-02.4808", "2016-08-31.4798",
		"2015-12-03.2000", "2015-12-03.70", "2015-12-03.10", "2015-12-03.9"}
	var files []string
	for _, w := range want {
		files = append(files, prefix+w+Suffix)
	}
	files = append(files, prefix+"2015-05-33.1593.upd", prefix+"2015-02-33.1593.upd", prefix+"02033.1.upd", "readme.txt", "x.minisig")
	for range 20 {
		rand.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
		names, malformed := ParseNames(files, prefix)
		if len(malformed) != 3 {
			t.Errorf("malformed: %v", malformed)
		}
		var got []string
		for _, n := range names {
			got = append(got, n.Version())
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %v\nwant %v", got, want)
		}
	}
}

func TestRetain(t *testing.T) {
	all := []string{"2026-05-05.5", "2026-04-04.4", "2026-03-03.3", "2026-02-02.2", "2026-01-01.1"}
	names := func(vs ...string) (out []Name) {
		for _, v := range vs {
			n, err := ParseName(prefix+v+Suffix, prefix)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, n)
		}
		return out
	}
	tests := []struct {
		have    []string
		running string
		n       int
		keep    []string
	}{
		{all, "", 2, []string{all[0], all[1], all[4]}},
		{all, all[2], 2, []string{all[0], all[1], all[2], all[4]}},
		{all, all[4], 1, []string{all[0], all[4]}},
		{all, "", 0, []string{all[0], all[4]}},
		{all, "", 9, all},
		{all[:2], "", 2, all[:2]},
		{all[:1], "", 2, all[:1]},
		{nil, "", 2, nil},
	}
	for i, tt := range tests {
		in := names(tt.have...)
		slices.Reverse(in)
		running := ""
		if tt.running != "" {
			running = prefix + tt.running + Suffix
		}
		keep, drop := Retain(in, running, tt.n)
		if want := names(tt.keep...); !slices.Equal(keep, want) {
			t.Errorf("%d: keep %v, want %v", i, keep, want)
		}
		if len(keep)+len(drop) != len(tt.have) {
			t.Errorf("%d: %d kept, %d dropped of %d", i, len(keep), len(drop), len(tt.have))
		}
	}
}

func FuzzParseName(f *testing.F) {
	f.Add(prefix + "2018-04-26.6940.upd")
	f.Add(prefix + "2018-04-26.00.upd")
	f.Add("a.b.c.2018-04-26.1.upd")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s, "")
		if err != nil {
			return
		}
		if n.String() != s || strings.ContainsAny(s, "/\x00") || CheckPrefix(n.Prefix) != nil {
			t.Errorf("%q parsed as %q", s, n)
		}
		if _, err := ParseName(s, n.Prefix); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	})
}
