package state

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"gprovision/model/release"
)

// TestHistory: what is written can be read again, whatever it is. The next change sets a damaged history aside, and
// nothing else.
func TestHistory(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	v := Open(t.TempDir())
	if h, err := v.History(); err != nil || len(h.ImageResults) != 0 {
		t.Errorf("none: %+v, %v", h, err)
	}
	imaged := func(h *release.History) { h.Imaging("A.upd", false, now) }
	for i := range 2 {
		if damaged, err := v.ChangeHistory(now, imaged); damaged != nil || err != nil {
			t.Fatal(damaged, err)
		}
		if h, err := v.History(); err != nil || h.ImageResults[0].ImagingFailures != uint(i+1) {
			t.Errorf("%+v, %v", h, err)
		}
	}
	aside := v.Path(release.BadHistory(now))
	for name, text := range map[string]string{"damaged": "{", "too large": strings.Repeat(" ", release.MaxHistory+1)} {
		if err := os.WriteFile(v.Path(HistoryFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := v.History(); err == nil {
			t.Errorf("%s: it is read", name)
		}
		if _, err := os.Stat(aside); err == nil {
			t.Errorf("%s: reading it set it aside", name)
		}
		if damaged, err := v.ChangeHistory(now, imaged); damaged == nil || err != nil {
			t.Errorf("%s: %v, %v", name, damaged, err)
		}
		if b, err := os.ReadFile(aside); err != nil || string(b) != text {
			t.Errorf("%s: set aside are %d bytes, %v", name, len(b), err)
		}
		if h, err := v.History(); err != nil || len(h.ImageResults) != 1 || h.ImageResults[0].ImagingFailures != 1 {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
		os.Remove(aside)
	}
	newer := `{"version":99,"ImageResults":{}}`
	if err := os.WriteFile(v.Path(HistoryFile), []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := v.ChangeHistory(now, imaged); !errors.Is(err, release.ErrNewerHistory) {
		t.Errorf("newer: %v", err)
	}
	if b, err := os.ReadFile(v.Path(HistoryFile)); err != nil || string(b) != newer {
		t.Errorf("a newer history was changed: %q, %v", b, err)
	}
}

// TestLargestHistory: the largest history can be read, and exceeds an earlier limit.
func TestLargestHistory(t *testing.T) {
	v := Open(t.TempDir())
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	_, err := v.ChangeHistory(now, func(h *release.History) {
		for i := range 256 {
			for range 70 {
				h.Boot("IMAGE-"+strings.Repeat("x", 200)+string(rune('A'+i%26))+string(rune('A'+i/26)), false, 1, now, strings.Repeat(`"\`, 2000))
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	h, err := v.History()
	if err != nil || len(h.ImageResults) != 256 {
		t.Fatalf("%d images, %v", len(h.ImageResults), err)
	}
	if h.ImageResults[0].BootFailures != 70 || len(h.ImageResults[0].Notes) == 0 || h.ImageResults[255].BootFailures != 70 || len(h.ImageResults[255].Notes) != 0 {
		t.Errorf("the newest has %d notes, the oldest %d", len(h.ImageResults[0].Notes), len(h.ImageResults[255].Notes))
	}
	if c := (Counts{}).RestoreFailed().Restored().RestoreFailed().Good(now); c.RestoreFailures != 2 || c.Restores != 1 {
		t.Errorf("%+v", c)
	}
}
