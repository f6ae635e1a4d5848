package stick

import (
	"os"
	"strconv"
	"testing"

	"gprovision/model/layout"
	"gprovision/model/page"
)

// TestPage: the partitions of docs/sticks.md are those of a stick.
func TestPage(t *testing.T) {
	rows, err := page.Rows(os.DirFS("../../docs"), "sticks.md", "| partition | content |")
	if err != nil {
		t.Fatal(err)
	}
	parts := (&maker{}).layout(0).Partitions
	if len(rows) != len(parts) {
		t.Fatalf("the page has %d partitions, a stick %d", len(rows), len(parts))
	}
	kinds := map[string]string{
		layout.TypeBIOSBoot: "BIOS boot", layout.TypeStick: "ext4", layout.TypeESP: "ESP, FAT32", layout.TypeData: "FAT32",
	}
	for i, p := range parts {
		want := strconv.Itoa(p.Number) + ", " + kinds[p.Type]
		if p.FSLabel != "" && p.FSLabel != "ESP" {
			want += " `" + p.FSLabel + "`"
		}
		if rows[i][0] != want {
			t.Errorf("the page says %q, it is %q", rows[i][0], want)
		}
	}
}
