package journal

import (
	"os"
	"testing"

	"gprovision/model/page"
)

// TestNumbersOfThePage: docs/formats/recovery-volume.md gives the right numbers.
func TestNumbersOfThePage(t *testing.T) {
	for says, ok := range map[string]bool{
		"All logs together stay below 64 MiB: a file is ended at an eighth of that": DefaultCap == 64<<20, // TestFile tests the eighth
	} {
		if !ok {
			t.Errorf("the page says %q, and it is not so", says)
		}
		if err := page.Says(os.DirFS("../../docs"), "formats/recovery-volume.md", says); err != nil {
			t.Error(err)
		}
	}
}
