package splash

import (
	"os"
	"testing"

	"gprovision/model/page"
)

// TestPage: docs/lcd.md says what the display shows while the system starts, and how that ends.
func TestPage(t *testing.T) {
	err := page.Says(os.DirFS("../../docs"), "lcd.md", "shows `"+starting+"`, or `"+preparing+"`", "with `"+silent+"`",
		"(`pkill -USR1 "+name+"`)")
	if err != nil {
		t.Error(err)
	}
}
