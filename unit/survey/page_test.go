package survey

import (
	"os"
	"testing"
	"time"

	"gprovision/model/page"
)

// TestNumbersOfThePages: docs/ gives the right times for what a unit waits for.
func TestNumbersOfThePages(t *testing.T) {
	docs := os.DirFS("../../docs")
	for _, tc := range []struct {
		page, says string
		have, want time.Duration
	}{
		{"sticks.md", "it waits for up to 30 seconds", usbPending, 30 * time.Second},
		{"sticks.md", "for up to 60 seconds if it is a storage device that has no disk yet", usbStorage, time.Minute},
		{"sticks.md", "is waited for, for 10 seconds", usbExpected, 10 * time.Second},
		{"errors.md", "An array that lacks a disk and can do without starts after half a minute.", memberPatience, 30 * time.Second},
		{"design.md", "when some are missing, after half a minute, if it can do without them", memberPatience, 30 * time.Second},
	} {
		if tc.have != tc.want {
			t.Errorf("docs/%s says %q, and it is %s", tc.page, tc.says, tc.have)
		}
		if err := page.Says(docs, tc.page, tc.says); err != nil {
			t.Error(err)
		}
	}
}
