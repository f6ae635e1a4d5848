package policy

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"gprovision/model/page"
)

// TestDefaultsOfThePage: what docs/formats/policy.md says that 0, or nothing, means is what counts.
func TestDefaultsOfThePage(t *testing.T) {
	rows, err := page.Rows(os.DirFS("../../docs"), "formats/policy.md", "# Policy")
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]string{}
	for _, s := range (Policy{Version: 1}).Show() {
		counts[s.Key] = strings.TrimSuffix(s.Value, " s")
	}
	zero, seen := regexp.MustCompile(`\b0 means (\w+)`), 0
	for _, r := range rows[1:] {
		key := page.Codes(r[0])[0]
		if m := zero.FindStringSubmatch(r[2]); m != nil {
			if seen++; counts[key] != m[1] {
				t.Errorf("the page says that 0 of %s means %s, and it means %s", key, m[1], counts[key])
			}
		} else if r[1] == "number" && key != "version" {
			t.Errorf("the page does not say what 0 of %s means", key)
		}
	}
	if seen != 8 {
		t.Errorf("%d defaults are on the page", seen)
	}
	if err := page.Says(os.DirFS("../../docs"), "formats/policy.md", "at most 1024 characters", "of seconds and counts are 0 to 3600"); err != nil {
		t.Error(err)
	}
	for text, good := range map[string]bool{`"graceSeconds":3600`: true, `"graceSeconds":3601`: false, `"keepImages":3601`: false, `"failedBoots":-1`: false,
		`"bootArgs":"` + strings.Repeat("a", 1024) + `"`: true, `"bootArgs":"` + strings.Repeat("a", 1025) + `"`: false} {
		if _, err := Parse([]byte(`{"version":1,"keys":["x"],` + text + `}`)); (err == nil) != good {
			t.Errorf("%.30s: %v", text, err)
		}
	}
}
