package site

import (
	"os"
	"testing"

	"gprovision/model/page"
)

// TestDefaultsOfThePage: the defaults of docs/formats/names.md are the names of the stock Site.
func TestDefaultsOfThePage(t *testing.T) {
	rows, err := page.Rows(os.DirFS("../docs"), "formats/names.md", "| key | default | meaning |")
	if err != nil {
		t.Fatal(err)
	}
	n := Stock().Names.Chosen()
	want := map[string]string{
		"imagePrefix": n.ImagePrefix, "recoveryLabel": n.RecoveryLabel, "primaryLabel": n.PrimaryLabel, "hostPrefix": n.HostPrefix,
	}
	for _, row := range rows {
		key := page.Codes(row[0])[0]
		if key == "version" {
			continue
		}
		if said := page.Codes(row[1]); len(said) != 1 || said[0] != want[key] {
			t.Errorf("the page says that %s is %v, it is %q", key, said, want[key])
		}
		delete(want, key)
	}
	if len(want) > 0 {
		t.Errorf("the page does not have %v", want)
	}
}
