package decide

import (
	"os"
	"slices"
	"strings"
	"testing"

	"gprovision/model/page"
)

// TestPage: ParseArgs understands each argument in docs/kernel-arguments.md, and a locked artifact only those that
// the page names. Each type of real_root is valid.
func TestPage(t *testing.T) {
	docs := os.DirFS("../../docs")
	rows, err := page.Rows(docs, "kernel-arguments.md", "# Kernel arguments")
	if err != nil {
		t.Fatal(err)
	}
	values := strings.NewReplacer("MAC", "01-52-54-00-aa-bb-cc", "TYPE=ID", "PARTUUID=a")
	var locked []string
	for _, row := range rows[1:] {
		word := values.Replace(page.Codes(row[0])[0])
		if ParseArgs(word, false) == (Args{}) {
			t.Errorf("%s means nothing", word)
		}
		if ParseArgs(word, true) != (Args{}) {
			name, _, _ := strings.Cut(word, "=")
			locked = append(locked, name)
		}
		// An argument that takes any value on the page really takes any. The others take only that one.
		name, value, _ := strings.Cut(word, "=")
		anyValue := strings.HasPrefix(row[1], "any value: ")
		if fixed := value != strings.ToUpper(value) || value == "1"; fixed && name != "BOOTIF" {
			if other := ParseArgs(name+"=other", false); (other != Args{}) != anyValue {
				t.Errorf("%s=other means %+v", name, other)
			}
		}
	}
	if !slices.Equal(locked, []string{"real_root", "gprov.stick"}) {
		t.Errorf("a locked artifact takes %v", locked)
	}
	if err := page.Says(docs, "kernel-arguments.md", "With a locked policy all are ignored but `real_root=PARTUUID=` and `gprov.stick`.",
		"The last of several equal ones counts, but for `FACTORY_RESTORE=1`, which counts wherever it stands."); err != nil {
		t.Error(err)
	}
	if a := ParseArgs("mfgurl=a mfgurl=b FACTORY_RESTORE=1 FACTORY_RESTORE=0", false); a.ManifestURL != "b" || !a.Forced {
		t.Errorf("of several the last does not count: %+v", a)
	}

	rows, err = page.Rows(docs, "kernel-arguments.md", "## real_root")
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, row := range rows[1:] {
		types = append(types, page.Codes(row[0])...)
	}
	want := []string{"PARTUUID", "PARTLABEL", "UUID", "LABEL", "ID", "PATH"}
	if !slices.Equal(types, want) {
		t.Errorf("the page has %v", types)
	}
	for _, typ := range types {
		if ParseRoot(typ+"=x") != ParseRoot(strings.ToLower(typ)+"=x") || ParseRoot(typ+"=x") == (Root{}) {
			t.Errorf("%s in upper and lower case: %v, %v", typ, ParseRoot(typ+"=x"), ParseRoot(strings.ToLower(typ)+"=x"))
		}
	}
}
