package api

import (
	"os"
	"testing"

	"gprovision/model/page"
)

// TestNumbersOfThePage: what docs/security.md says that the server reads of strangers is what it reads, and the limits are those that
// were chosen.
func TestNumbersOfThePage(t *testing.T) {
	if flights != 50 || flightBytes != 64<<20 {
		t.Errorf("%d requests of together %d bytes are open at most, want 50 of 64 MiB", flights, flightBytes)
	}
	if maxSmall != 64<<10 || oldBytes != 24<<20 {
		t.Errorf("%d bytes of an enrolment are read, %d of old units", maxSmall, oldBytes)
	}
	err := page.Says(os.DirFS("../../docs"), "security.md", "beyond 64 KiB of an enrolment and 24 MiB in all of units of version 0.1.0")
	if err != nil {
		t.Error(err)
	}
}
