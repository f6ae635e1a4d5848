package person

import (
	"testing"
	"time"

	"gprovision/model/release"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// TestDescribe: an image's line in the menu says what the image is to this unit. The mark has the image's name
// without ".upd".
func TestDescribe(t *testing.T) {
	const prefix, running, original = "WIDGET.LNX.SHINY.", "WIDGET.LNX.SHINY.2026-11-05.0001", "WIDGET.LNX.SHINY.2026-11-01.0001.upd"
	f := &survey.Findings{}
	f.Mark = state.Mark{Release: running}
	f.Unit.Original = original
	var h release.History
	for range release.MaxFailures + 1 {
		h.Imaging("WIDGET.LNX.SHINY.2026-11-03.0001", false, time.Now())
	}
	for name, want := range map[string]string{
		running + ".upd": "2026-11-05.0001 (running)", original: "2026-11-01.0001 (original)",
		"WIDGET.LNX.SHINY.2026-11-03.0001.upd": "2026-11-03.0001 (failed often)",
		"WIDGET.LNX.SHINY.2026-11-04.0001.upd": "2026-11-04.0001",
	} {
		if got := Describe(name, prefix, f, h); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	f.Unit.Original = running + ".upd"
	if got := Describe(running+".upd", prefix, f, h); got != "2026-11-05.0001 (running, original)" {
		t.Error(got)
	}
}
