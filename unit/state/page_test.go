package state

import (
	"os"
	"testing"

	"gprovision/model/page"
)

// TestNumbersOfThePages: docs/ describes the files on the recovery volume as they are.
func TestNumbersOfThePages(t *testing.T) {
	for _, tc := range []struct {
		page, says string
		ok         bool
	}{
		{"decide.md", "one block of 4096 bytes, written to its place", CountsSize == 4096},
		{"errors.md", "The file is kept as `state/request.json.bad`, the last one only, its first 16 KiB",
			BadRequestFile == "state/request.json.bad" && maxSmall == 16<<10},
		{"formats/names.md", "its record (`state/unit.json`", UnitFile == "state/unit.json"},
	} {
		if !tc.ok {
			t.Errorf("docs/%s says %q, and it is not so", tc.page, tc.says)
		}
		if err := page.Says(os.DirFS("../../docs"), tc.page, tc.says); err != nil {
			t.Error(err)
		}
	}
}
