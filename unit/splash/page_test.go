package splash

import (
	"os"
	"testing"

	"gprovision/model/page"
)

// TestPage: what docs/lcd.md says of the start of the system is what the display shows, and how it is ended.
func TestPage(t *testing.T) {
	err := page.Says(os.DirFS("../../docs"), "lcd.md", "shows `"+starting+"`, or `"+preparing+"`", "with `"+silent+"`",
		"(`pkill -USR1 "+name+"`)")
	if err != nil {
		t.Error(err)
	}
}
