//go:build soak

package lab_test

import "testing"

// TestSoakEveryRelease holds what docs/compatibility.md says for all releases, where the other tests take the first and the last.
func TestSoakEveryRelease(t *testing.T) {
	all := releases(t)
	for _, r := range all {
		t.Run(r.version, func(t *testing.T) {
			t.Run("state", func(t *testing.T) { testOldState(t, r) })
			t.Run("database", func(t *testing.T) { testOldDatabase(t, r) })
			t.Run("requests", func(t *testing.T) { testOldRequests(t, r) })
			t.Run("images", func(t *testing.T) { testImages(t, r) })
			t.Run("unit", func(t *testing.T) { testOldUnit(t, r) })
		})
	}
}
