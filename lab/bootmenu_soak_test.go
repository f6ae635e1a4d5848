//go:build soak

package lab_test

import (
	"testing"

	"gprovision/model/layout"
)

// TestSoakForcedRestore does the same on UEFI firmware, whose menu takes minutes on a serial line.
func TestSoakForcedRestore(t *testing.T) {
	t.Parallel()
	forcedRestore(t, layout.UEFI)
}
