package policy

import (
	"strings"
	"testing"

	"gprovision/model/signature"
)

func TestCheckManifest(t *testing.T) {
	for name, tc := range map[string]struct {
		p       Policy
		comment string
		want    string
	}{
		"wants nothing":      {Policy{}, "whatever", ""},
		"product":            {Policy{ManifestProduct: "FOX"}, signature.ManifestComment("FOX", "1"), ""},
		"any serial":         {Policy{ManifestProduct: "FOX"}, signature.ManifestComment("FOX", "b7"), ""},
		"other product":      {Policy{ManifestProduct: "FOX"}, signature.ManifestComment("OWL", "1"), `"OWL"`},
		"longer product":     {Policy{ManifestProduct: "FOX"}, signature.ManifestComment("FOX 2", "1"), `"FOX 2"`},
		"lower case":         {Policy{ManifestProduct: "FOX"}, signature.ManifestComment("fox", "1"), `"fox"`},
		"equal serial":       {Policy{OldestManifest: 12}, signature.ManifestComment("FOX", "12"), ""},
		"newer serial":       {Policy{OldestManifest: 12}, signature.ManifestComment("FOX", "100"), ""},
		"older serial":       {Policy{OldestManifest: 12}, signature.ManifestComment("FOX", "9"), "serial number 9"},
		"serial is no text":  {Policy{OldestManifest: 12}, signature.ManifestComment("FOX", "x13"), `"x13"`},
		"serial in hex":      {Policy{OldestManifest: 12}, signature.ManifestComment("FOX", "0x13"), `"0x13"`},
		"serial with a sign": {Policy{OldestManifest: 12}, signature.ManifestComment("FOX", "+13"), `"+13"`},
		"serial too large":   {Policy{OldestManifest: 12}, signature.ManifestComment("FOX", "18446744073709551616"), "18446744073709551616"},
		"an image":           {Policy{OldestManifest: 12}, "image WIDGET.LNX.SHINY.2026-11-22.0013", "manifest"},
		"names nothing":      {Policy{ManifestProduct: "FOX"}, "manifest ", "manifest"},
		"no serial":          {Policy{ManifestProduct: "FOX"}, "manifest FOX", "manifest"},
	} {
		err := tc.p.CheckManifest(tc.comment)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}

func TestParseRefusesManifests(t *testing.T) {
	for in, want := range map[string]string{
		`"keys":["x"],"manifestProduct":"FOX","oldestManifest":7`: "",
		`"keys":["x"],"manifestProduct":"FOX BOX"`:                "",
		`"keys":["x"],"manifestProduct":"FOX "`:                   "manifestProduct",
		`"keys":["x"],"manifestProduct":"F\u00d6X"`:               "manifestProduct",
		`"keys":["x"],"oldestManifest":-1`:                        "oldestManifest",
		`"keys":["x"],"oldestManifest":"7"`:                       "oldestManifest",
		`"allowUnsigned":true,"oldestManifest":7`:                 "no keys",
		`"allowUnsigned":true,"manifestProduct":"FOX"`:            "no keys",
	} {
		_, err := Parse([]byte(`{"version":1,` + in + `}`))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", in, err)
		}
	}
}
