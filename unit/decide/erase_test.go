package decide

import (
	"testing"

	"gprovision/model/erasure"
	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/unit/state"
)

// TestDecideErase: what asks for an erase, what keeps it from being done, and what it goes before.
func TestDecideErase(t *testing.T) {
	const id = "0123456789abcdef"
	ask := &state.Request{ID: id, Kind: state.KindErase}
	ended := func(id string, o erasure.Outcome, resolved bool) *state.Erase {
		return &state.Erase{ID: id, Outcome: o, Resolved: resolved}
	}
	asked := func(f *Facts) { f.Erasing.EraseAsked = true }
	chosen := func(f *Facts) { f.Choice.Kind = ChooseErase }
	requested := func(f *Facts) { f.Request = ask }
	begun := func(f *Facts) { f.Erasing.Erase = ended(id, "", false) }
	recovery := func(s RecoveryState) func(*Facts) { return func(f *Facts) { f.Recovery = s } }
	main := func(s MainState) func(*Facts) { return func(f *Facts) { f.Main = s } }
	erase := func(e *state.Erase) func(*Facts) { return func(f *Facts) { f.Erasing.Erase = e } }
	choose := func(k ChoiceKind) func(*Facts) { return func(f *Facts) { f.Choice.Kind = k } }
	noKey := func(f *Facts) { f.Erasing.NoKey = true }
	url := func(f *Facts) { f.ManifestURL = "http://server/manufData.json" }
	for _, tc := range []struct {
		name   string
		change []func(*Facts)
		job    Job
		fault  *fault.Fault
	}{
		{"on the command line", []func(*Facts){asked}, Hold, fault.EraseNotConfirmed},
		{"on the command line, resumed in the menu", []func(*Facts){asked, choose(ChooseResume)}, Boot, nil},
		{"on the command line, a restore is chosen", []func(*Facts){asked, choose(ChooseLatest)}, Restore, nil},
		{"on the command line, with a request", []func(*Facts){asked, requested}, Erase, nil},
		{"on the command line, provisioning", []func(*Facts){asked, url}, Hold, fault.EraseNotConfirmed},
		{"on the command line, provisioning a bare machine", []func(*Facts){asked, url, recovery(RecoveryMissing)}, Hold, fault.NoRecovery},
		{"chosen", []func(*Facts){chosen}, Erase, nil},
		{"requested", []func(*Facts){requested}, Erase, nil},
		{"requested, and resumed", []func(*Facts){requested, choose(ChooseResume)}, Erase, nil},
		{"requested, no mark", []func(*Facts){requested, main(MainUnmarked)}, Erase, nil},
		{"requested, provisioning", []func(*Facts){requested, url}, Erase, nil},
		{"requested, no key", []func(*Facts){requested, noKey}, Hold, fault.RecoveryDamaged},
		{"chosen, no key", []func(*Facts){chosen, noKey}, Hold, fault.RecoveryDamaged},
		{"requested, no disk", []func(*Facts){requested, main(MainAbsent)}, Hold, fault.MainMissing},
		{"requested, two disks", []func(*Facts){requested, main(MainAmbiguous)}, Hold, fault.MainAmbiguous},
		{"requested, done before", []func(*Facts){requested, erase(ended(id, erasure.Proved, true))}, Boot, nil},
		{"requested, done before, no mark", []func(*Facts){requested, erase(ended(id, erasure.Proved, true)), main(MainBlank)}, Restore, nil},
		{"requested once more", []func(*Facts){requested, erase(ended("fedcba9876543210", erasure.Proved, true))}, Erase, nil},
		{"power off", []func(*Facts){requested, choose(ChoosePowerOff)}, PowerOff, nil},
		{"failed, support is asked", []func(*Facts){erase(ended(id, erasure.Failed, false)), choose(ChooseResolve)}, Erase, nil},
		{"failed, its codes are chosen", []func(*Facts){requested, erase(ended(id, erasure.Failed, false)), choose(ChooseCodes)}, Erase, nil},
		{"failed, resolved", []func(*Facts){requested, erase(ended(id, erasure.Failed, true)), main(MainBlank)}, Restore, nil},
		{"support bundle", []func(*Facts){begun, choose(ChooseSupport)}, Support, nil},
		{"begun", []func(*Facts){begun}, Erase, nil},
		{"begun, the disk looks complete", []func(*Facts){begun, main(MainMarked), choose(ChooseResume)}, Erase, nil},
		{"begun, a restore is chosen", []func(*Facts){begun, choose(ChooseLatest)}, Erase, nil},
		{"begun, provisioning", []func(*Facts){begun, url}, Erase, nil},
		{"begun, no disk", []func(*Facts){begun, main(MainAbsent)}, Erase, nil},
		{"begun, the recovery volume is away", []func(*Facts){begun, recovery(RecoveryMissing)}, Boot, nil},
		{"failed", []func(*Facts){erase(ended(id, erasure.Failed, false))}, Erase, nil},
		{"unknown", []func(*Facts){erase(ended("", erasure.Unknown, false)), main(MainBlank)}, Erase, nil},
		{"weaker, accepted", []func(*Facts){erase(ended(id, erasure.Weaker, true)), main(MainBlank)}, Restore, nil},
		{"known by a newer init", []func(*Facts){func(f *Facts) { f.Erasing.EraseNewer = true }}, Hold, fault.RecoveryNewer},
		{"chosen, recovery missing", []func(*Facts){chosen, recovery(RecoveryMissing)}, Hold, fault.NoRecovery},
		{"chosen, recovery newer", []func(*Facts){chosen, recovery(RecoveryNewer)}, Hold, fault.RecoveryNewer},
		{"chosen, two recovery volumes", []func(*Facts){chosen, recovery(RecoveryAmbiguous)}, Hold, fault.RecoveryAmbiguous},
		{"chosen, recovery damaged", []func(*Facts){chosen, recovery(RecoveryDamaged)}, Hold, fault.RecoveryDamaged},
		{"chosen, recovery damaged, not tried",
			[]func(*Facts){chosen, recovery(RecoveryDamaged), func(f *Facts) { f.RecoveryRepairable = true }}, RepairRecovery, nil},
		{"chosen, recovery damaged, tried", []func(*Facts){chosen, recovery(RecoveryDamaged),
			func(f *Facts) { f.RecoveryRepairable, f.RecoveryRepairs = true, 1 }}, Hold, fault.RecoveryDamaged},
	} {
		f := Facts{Recovery: RecoveryFound, Main: MainMarked}
		for _, c := range tc.change {
			c(&f)
		}
		if d := Decide(f, policy.Policy{Provision: f.ManifestURL != ""}); d.Job != tc.job || d.Fault != tc.fault {
			t.Errorf("%s: %s with fault %v, want %s with %v", tc.name, d, d.Fault, tc.job, tc.fault)
		}
	}
}
