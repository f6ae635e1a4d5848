package erase

import (
	"os"
	"path/filepath"
	"testing"

	"gprovision/hw/efi"
	"gprovision/model/erasure"
)

// TestDumps: crash dumps are gone from the firmware's variables, all others are as they were, and what cannot be removed is said.
func TestDumps(t *testing.T) {
	for name, stuck := range map[string]bool{"gone": false, "left": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			dump := filepath.Join(w.r.Firmware(), "dump-type0-1-1-1700000000-C-"+efi.CrashDumps)
			must(t, os.WriteFile(filepath.Join(w.r.Firmware(), "Boot0001-"+efi.Global), []byte("\a\x00\x00\x00an entry"), 0o600))
			before, err := os.ReadDir(w.r.Firmware())
			must(t, err)
			if stuck { // a directory that is not empty cannot be removed
				must(t, os.MkdirAll(filepath.Join(dump, "x"), 0o755))
			} else {
				must(t, os.WriteFile(dump, []byte("\a\x00\x00\x00a customer's log"), 0o600))
			}
			w.boot()
			after, err := os.ReadDir(w.r.Firmware())
			must(t, err)
			want, n := erasure.Cleared, len(before)
			if stuck {
				want, n = erasure.NotCleared, n+1
			}
			if p := w.certificate().Parts; len(p) != 1 || p[0].State != want || len(after) != n {
				t.Errorf("%+v; %d variables, then %d", p, len(before), len(after))
			}
		})
	}
}
