package dmi

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

//go:generate env GPROV_GENERATE=1 go test -count=1 -run ^TestPage$ .

// TestPage holds the lists of docs/formats/dmi.md. With GPROV_GENERATE=1 it writes them.
func TestPage(t *testing.T) {
	const name, mark = "../../docs/formats/dmi.md", "go generate ./model/dmi -->\n"
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	head, have, ok := strings.Cut(string(b), mark)
	if !ok {
		t.Fatal("the page has no mark")
	}
	var w strings.Builder
	w.WriteString("\n## Keywords\n\n| keyword | field |\n|---|---|\n")
	for _, k := range Keywords() {
		typ, field, _ := KeywordField(k)
		fmt.Fprintf(&w, "| `%s` | `%d %s` |\n", k, typ, field)
	}
	w.WriteString("\n## Fields\n\n`#` is a number from 1.\n\n| type | structure | fields |\n|---|---|---|\n")
	for typ := range 46 {
		if _, known := layouts()[typ]; known {
			fmt.Fprintf(&w, "| %d | %s | `%s` |\n", typ, named("structure", typ), strings.Join(Names(typ), "`, `"))
		}
	}
	fmt.Fprintf(&w, "| others | | `%s` |\n", strings.Join(Names(128), "`, `"))
	if os.Getenv("GPROV_GENERATE") == "1" {
		if err := os.WriteFile(name, []byte(head+mark+w.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have != w.String() {
		t.Error("docs/formats/dmi.md is not what the code has: go generate ./model/dmi")
	}
}
