package update

import (
	"os"
	"testing"

	"gprovision/model/page"
)

// TestNumbersOfThePage: docs/running-system.md gives the right numbers.
func TestNumbersOfThePage(t *testing.T) {
	for says, ok := range map[string]bool{
		"downloads if 192 MiB stay free beside the image": reserve == 192<<20,
	} {
		if !ok {
			t.Errorf("the page says %q, and it is not so", says)
		}
		if err := page.Says(os.DirFS("../../docs"), "running-system.md", says); err != nil {
			t.Error(err)
		}
	}
}
