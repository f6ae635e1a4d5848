package image

import (
	"os"
	"testing"

	"gprovision/hw/filesystem"
	"gprovision/model/page"
)

// TestNumbersOfThePage: what docs/formats/release-image.md says, and is.
func TestNumbersOfThePage(t *testing.T) {
	for says, ok := range map[string]bool{
		"The builder writes blocks of 8 MiB": defaultBlock == 8<<20,
		"a file of 128 KiB or more has a hole in the image wherever it has 64 KiB of zeros or more, on borders of 4096 bytes": minSparse == 128<<10 && minHole == 64<<10 && zeroUnit == 4096,
		"(Where that makes 20,000 parts or more, holes are longer: 128 KiB, and so on.)":                                      filesystem.MaxExtents == 20_000,
	} {
		if !ok {
			t.Errorf("the page says %q, and it is not so", says)
		}
		if err := page.Says(os.DirFS("../../docs"), "formats/release-image.md", says); err != nil {
			t.Error(err)
		}
	}
}
