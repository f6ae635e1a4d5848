package recipe

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gprovision/model/page"
)

// TestPage holds docs/formats/recipe.md against the types: its example is one, and its keys are those that there are.
func TestPage(t *testing.T) {
	docs := os.DirFS("../../../docs")
	b, err := os.ReadFile("../../../docs/formats/recipe.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(b), "```yaml\n")
	example, _, ok := strings.Cut(example, "```")
	if !ok {
		t.Fatal("the page has no example")
	}
	if _, err := Parse([]byte(example)); err != nil {
		t.Error(err)
	}
	rows, err := page.Rows(docs, "formats/recipe.md", "| key | meaning |")
	if err != nil {
		t.Fatal(err)
	}
	row := map[string]string{}
	for _, r := range rows {
		for _, key := range page.Codes(r[0]) {
			row[key] = r[1]
		}
	}
	row["version"], row["keys"] = "", "" // in the text, and in the row of sources
	for key, v := range map[string]any{"": Recipe{}, "files": File{}, "users": User{}} {
		for f := range reflect.TypeOf(v).Fields() {
			name := f.Tag.Get("yaml")
			if _, ok := row[name]; key == "" && !ok || key != "" && !strings.Contains(row[key], "`"+name) {
				t.Errorf("the page does not have %s %s", key, name)
			}
		}
	}
	for key := range row {
		if _, err := Parse([]byte("suite: bookworm\n" + key + ":\n")); err != nil && !strings.Contains(err.Error(), "already defined") {
			t.Errorf("the page has %s: %v", key, err)
		}
	}
	for _, v := range page.Codes(row["variant"]) {
		if _, err := Parse([]byte("suite: bookworm\nvariant: " + v + "\n")); err != nil {
			t.Error(err)
		}
	}
	if len(page.Codes(row["variant"])) != 7 || !slices.Contains(page.Codes(row["variant"]), "apt") {
		t.Errorf("the row of variant: %q", row["variant"])
	}
}
