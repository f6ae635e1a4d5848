package machine

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"gprovision/hw/bmc"
)

// TestFindBMC: a machine that has no controller, and of which none is expected, loses no time. Else the drivers are loaded, and their
// device is waited for.
func TestFindBMC(t *testing.T) {
	acpi := fstest.MapFS{"bus/acpi/devices/IPI0001:00/status": &fstest.MapFile{}}
	for name, tc := range map[string]struct {
		sys      fstest.MapFS
		expected bool
		waits    bool
	}{"none": {fstest.MapFS{}, false, false}, "expected": {fstest.MapFS{}, true, true}, "announced": {acpi, false, true}} {
		synctest.Test(t, func(t *testing.T) {
			var loaded []string
			began := time.Now()
			_, err := FindBMC(t.Context(), tc.sys, tc.expected, func(names ...string) error { loaded = append(loaded, names...); return nil })
			waited := time.Since(began)
			if !errors.Is(err, bmc.ErrNone) || tc.waits != (waited > 0) || waited > 2*bmcPatience ||
				tc.waits != slices.Contains(loaded, "ipmi_devintf") {
				t.Errorf("%s: %v after %s, with %q", name, err, waited, loaded)
			}
		})
	}
	failed := errors.New("no such module")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := FindBMC(ctx, acpi, false, func(...string) error { return failed }); !errors.Is(err, failed) || !errors.Is(err, bmc.ErrNone) {
		t.Errorf("a driver that cannot be loaded: %v", err)
	}
}
