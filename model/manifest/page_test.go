package manifest

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gprovision/model/page"
)

// TestKeysOfThePage: the tables of docs/formats/manifest.md have each key that there is, and no other.
func TestKeysOfThePage(t *testing.T) {
	docs := os.DirFS("../../docs")
	word := regexp.MustCompile(`[A-Za-z0-9]+`)
	fields := func(of any) (out []string) {
		s := reflect.TypeOf(of)
		for i := range s.NumField() {
			out = append(out, s.Field(i).Name)
		}
		return out
	}
	for heading, types := range map[string][]any{
		"## Top level":             {Manifest{}},
		"## File":                  {File{}},
		"## Specification":         {Specs{}},
		"## Step":                  {Step{}},
		"## Management controller": {BMC{}},
		"## Burn-in":               {BurnIn{}},
	} {
		rows, err := page.Rows(docs, "formats/manifest.md", heading)
		if err != nil {
			t.Fatal(err)
		}
		var have []string
		for _, r := range rows[1:] {
			have = append(have, page.Codes(r[0])[0])
		}
		for _, key := range fields(types[0]) {
			if i := slices.Index(have, key); i >= 0 {
				have = slices.Delete(have, i, i+1)
			} else if key != "DevCodeName" || heading != "## Management controller" && heading != "## Burn-in" { // it selects the entry
				t.Errorf("%s lacks %s", heading, key)
			}
		}
		if len(have) > 0 {
			t.Errorf("%s has %q, which are no keys", heading, have)
		}
	}
	b, err := os.ReadFile("../../docs/formats/manifest.md")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{}
	text := regexp.MustCompile("(?s)```.*?```").ReplaceAllString(string(b), "")
	for _, c := range page.Codes(text) { // those of small types stand in braces behind the key that has them, or in the text
		for _, w := range word.FindAllString(c, -1) {
			said[w] = true
		}
	}
	for _, of := range []any{CPU{}, Disk{}, Firmware{}, Devices{}, BusDevice{}, PlatformSteps{}, Command{}} {
		for _, key := range fields(of) {
			if !said[key] {
				t.Errorf("the page does not have %s of %T", key, of)
			}
		}
	}
	for _, value := range append(powerRestores(), burnDisks()...) {
		if value != "" && !strings.Contains(text, "`"+value+"`") {
			t.Errorf("the page does not have %s", value)
		}
	}
}
