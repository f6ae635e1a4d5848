package sysroot

import (
	"os"
	"testing"

	"gprovision/model/page"
)

// TestNumbersOfThePage: what docs/formats/recovery-volume.md says, and is.
func TestNumbersOfThePage(t *testing.T) {
	for says, ok := range map[string]bool{
		"and 128 files of at most 64 KiB": maxNetworkFiles == 128 && maxNetworkFile == 64<<10,
	} {
		if !ok {
			t.Errorf("the page says %q, and it is not so", says)
		}
		if err := page.Says(os.DirFS("../../docs"), "formats/recovery-volume.md", says); err != nil {
			t.Error(err)
		}
	}
}
