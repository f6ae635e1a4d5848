package person

import (
	"strings"
	"testing"
	"time"

	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/unit/decide"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
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

// TestResetMenu: what the rows of the reset menu lead to, what they say is lost, and the way back.
func TestResetMenu(t *testing.T) {
	yes, no := []panel.Key{panel.KeyDown, panel.KeyEnter}, []panel.Key{panel.KeyEnter}
	with := state.Unit{Main: []state.Disk{{Table: layout.Table{Partitions: []layout.Partition{{Role: layout.Data}}}}}}
	for _, tc := range []struct {
		name   string
		unit   state.Unit
		main   decide.MainState
		row    panel.Key // in the reset menu
		answer [][]panel.Key
		want   decide.ChoiceKind
		says   string
	}{
		{"settings", with, decide.MainMarked, '1', [][]panel.Key{yes}, decide.ChooseSettings,
			"settings will be lost. The data partition stays."},
		{"settings, no data partition", state.Unit{}, decide.MainMarked, '1', [][]panel.Key{yes}, decide.ChooseSettings,
			"there is no data partition."},
		{"system", with, decide.MainMarked, '2', [][]panel.Key{yes}, decide.ChooseLatest, "Network settings stay. The data partition stays."},
		{"everything", with, decide.MainMarked, '3', [][]panel.Key{yes}, decide.ChooseEverything, "all data on the main disks will be lost"},
		{"a disk of somebody", with, decide.MainForeign, '2', [][]panel.Key{yes}, decide.ChooseLatest, "not of this unit"},
		{"erase", with, decide.MainMarked, '4', [][]panel.Key{yes, yes}, decide.ChooseErase, "the unit restores itself"},
		{"erase, once", with, decide.MainMarked, '4', [][]panel.Key{yes, no}, decide.NoChoice, "Nobody can bring them back."},
		{"not confirmed", with, decide.MainMarked, '3', [][]panel.Key{no}, decide.NoChoice, "lost"},
		{"back", with, decide.MainMarked, 'q', nil, decide.NoChoice, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := withKeys(policy.Policy{})
			f := &survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound, Main: tc.main}}
			f.Unit = tc.unit
			var titles, texts []string
			asked := 0
			p.Machine.Panel.Add("person", &script.Panel{Answer: func(a panel.Asked) []panel.Key {
				titles, texts = append(titles, a.Title), append(texts, a.Text)
				switch {
				case len(titles) == 1:
					return []panel.Key{panel.KeyUp, panel.KeyEnter} // the last row
				case len(titles) == 2:
					return []panel.Key{tc.row}
				case a.Title == "Menu" || a.Title == "Reset or erase":
					return []panel.Key{'q'}
				}
				asked++
				return tc.answer[asked-1]
			}})
			c, err := p.Menu(t.Context(), f, nil, false)
			if err != nil || c.Kind != tc.want || titles[1] != "Reset or erase" || asked != len(tc.answer) {
				t.Errorf("%+v, %v; asked %q", c, err, titles)
			}
			if !strings.Contains(strings.Join(texts, "\n"), tc.says) {
				t.Errorf("it says %q", texts)
			}
		})
	}
}
