package lcd

import (
	"os"
	"testing"
	"time"

	"gprovision/model/page"
)

// TestNumbersOfThePage: what docs/lcd.md says, and is.
func TestNumbersOfThePage(t *testing.T) {
	for says, ok := range map[string]bool{
		"is repeated when none comes (six times, 300 ms each)": (Options{}).complete().Attempts == 6 && (Options{}).complete().Timeout == 300*time.Millisecond,
	} {
		if !ok {
			t.Errorf("the page says %q, and it is not so", says)
		}
		if err := page.Says(os.DirFS("../../docs"), "lcd.md", says); err != nil {
			t.Error(err)
		}
	}
}
