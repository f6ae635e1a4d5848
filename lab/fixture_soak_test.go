//go:build soak

package lab_test

import (
	"testing"

	"gprovision/model/layout"
)

// TestSoakFixture makes the units that the other tests start from, or takes them from the cache, before any of them runs: their times are
// their own then.
func TestSoakFixture(t *testing.T) {
	l := needLife(t)
	done := make(chan error, len(l.finished))
	for _, fw := range []layout.Firmware{layout.UEFI, layout.BIOS} {
		go func() {
			_, err := l.finished[fw]()
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
