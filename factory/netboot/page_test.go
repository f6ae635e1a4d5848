package netboot

import (
	"os"
	"testing"
	"time"

	"gprovision/model/page"
)

// TestNumbersOfThePage: docs/errors.md gives the right numbers.
func TestNumbersOfThePage(t *testing.T) {
	for says, ok := range map[string]bool{
		"A token is good once, for one port and half an hour": TokenLife == 30*time.Minute,
	} {
		if !ok {
			t.Errorf("the page says %q, and it is not so", says)
		}
		if err := page.Says(os.DirFS("../../docs"), "errors.md", says); err != nil {
			t.Error(err)
		}
	}
}
