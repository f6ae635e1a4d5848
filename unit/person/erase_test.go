package person

import (
	"io"
	"log/slog"
	"testing"

	"gprovision/model/erasure"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// TestEraseNeedsTwoYes: what follows from DATA_ERASE on the kernel command line.
func TestEraseNeedsTwoYes(t *testing.T) {
	const yes, no = true, false
	asked := decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainMarked, Erasing: decide.EraseFacts{EraseAsked: true}}
	with := func(change func(*decide.Facts)) decide.Facts { f := asked; change(&f); return f }
	table := layout.Table{UUID: "one"}
	oneDisk := state.Unit{Recovery: state.Disk{Table: table}, Main: []state.Disk{{Table: table}}}
	whole := policy.Policy{Erase: policy.Erase{OneDisk: policy.OneDiskWhole}}
	for _, tc := range []struct {
		name    string
		f       decide.Facts
		unit    state.Unit
		p       policy.Policy
		answers []bool // nil: no panel has keys
		asks    int
		want    decide.Job
		whole   bool
	}{
		{"twice yes", asked, state.Unit{}, policy.Policy{}, []bool{yes, yes}, 2, decide.Erase, false},
		{"once yes", asked, state.Unit{}, policy.Policy{}, []bool{yes, no}, 2, decide.Hold, false},
		{"no", asked, state.Unit{}, policy.Policy{}, []bool{no}, 1, decide.Hold, false},
		{"nobody can answer", asked, state.Unit{}, policy.Policy{}, nil, 0, decide.Hold, false},
		{"one disk", asked, oneDisk, policy.Policy{}, []bool{yes, yes}, 2, decide.Erase, false},
		{"one disk, whole", asked, oneDisk, whole, []bool{yes, yes}, 2, decide.Erase, true},
		{"two disks, whole", asked, state.Unit{}, whole, []bool{yes, yes}, 2, decide.Erase, false},
		{"a request", with(func(f *decide.Facts) { f.Request = &state.Request{Kind: state.KindErase} }),
			state.Unit{}, policy.Policy{}, []bool{no}, 0, decide.Erase, false},
		{"begun before", with(func(f *decide.Facts) { f.Erasing.Erase = &state.Erase{} }),
			state.Unit{}, policy.Policy{}, []bool{no}, 0, decide.Erase, false},
		{"resumed in the menu", with(func(f *decide.Facts) { f.Choice.Kind = decide.ChooseResume }),
			state.Unit{}, policy.Policy{}, []bool{yes, yes}, 0, decide.Boot, false},
		{"no recovery volume", with(func(f *decide.Facts) { f.Recovery = decide.RecoveryMissing }),
			state.Unit{}, policy.Policy{}, []bool{yes, yes}, 0, decide.Hold, false},
		{"not asked", with(func(f *decide.Facts) { f.Erasing.EraseAsked = false }),
			state.Unit{}, policy.Policy{}, []bool{yes, yes}, 0, decide.Boot, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &Person{Machine: &machine.Machine{Log: slog.New(slog.DiscardHandler), Panel: panel.New(), Policy: tc.p}}
			asks := 0
			if tc.answers != nil {
				p.Machine.Panel.Add("script", &script.Panel{Answer: func(panel.Asked) []panel.Key {
					asks++
					if tc.answers[asks-1] {
						return []panel.Key{panel.KeyDown, panel.KeyEnter}
					}
					return []panel.Key{panel.KeyEnter}
				}})
			}
			f := &survey.Findings{Facts: tc.f}
			f.Unit = tc.unit
			facts := tc.f
			if c, chosen := p.Erase(t.Context(), f); chosen {
				facts.Choice = c
			}
			if d := decide.Decide(facts, tc.p); d.Job != tc.want || asks != tc.asks || facts.Choice.Whole != tc.whole {
				t.Errorf("%s, asked %d times, whole %t", d, asks, facts.Choice.Whole)
			}
		})
	}
}

// TestEndedErase: what the menu offers after an erase that is not resolved.
func TestEndedErase(t *testing.T) {
	const id = "0123456789abcdef"
	for name, c := range map[string]struct {
		erase    *state.Erase
		keys     []string
		screen   bool
		resolve  bool
		showable bool
	}{
		"none":                 {nil, []string{"key"}, true, false, false},
		"goes on":              {&state.Erase{ID: id}, []string{"key"}, true, false, false},
		"failed":               {&state.Erase{ID: id, Outcome: erasure.Failed}, []string{"key"}, true, true, true},
		"unknown":              {&state.Erase{ID: id, Outcome: erasure.Unknown}, []string{"key"}, true, true, true},
		"no screen":            {&state.Erase{ID: id, Outcome: erasure.Unknown}, []string{"key"}, false, false, false},
		"failed, no keys":      {&state.Erase{ID: id, Outcome: erasure.Failed}, nil, true, false, true},
		"weaker":               {&state.Erase{ID: id, Outcome: erasure.Weaker}, []string{"key"}, true, false, true},
		"resolved":             {&state.Erase{ID: id, Outcome: erasure.Failed, Resolved: true}, []string{"key"}, true, false, false},
		"its state is damaged": {&state.Erase{Outcome: erasure.Unknown}, []string{"key"}, true, false, false},
	} {
		p := withKeys(policy.Policy{SupportKeys: c.keys})
		if c.screen {
			p.Machine.Panel.Add("screen", panel.Console(io.Discard, panel.ConsoleOptions{Keys: make(chan panel.Key)}))
		}
		f := &survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound}}
		f.Erasing.Erase = c.erase
		has := map[decide.ChoiceKind]bool{}
		for _, it := range p.items(f, false) {
			has[it.choice] = true
		}
		if has[decide.ChooseResolve] != c.resolve || has[decide.ChooseCodes] != c.showable {
			t.Errorf("%s: the menu has %v", name, has)
		}
	}
}
