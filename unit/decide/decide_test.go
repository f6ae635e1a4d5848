package decide

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/unit/state"
)

// TestDecide is the table of spec 4 once more, as cases.
func TestDecide(t *testing.T) {
	req := &state.Request{ID: "0123456789abcdef", Kind: state.KindRestore}
	normal := policy.Policy{}
	mfg := policy.Policy{Provision: true}
	damage := policy.Policy{RestoreOnDamage: true}
	tries := policy.Policy{FailedBoots: 3}
	own := &state.Request{ID: "fedcba9876543210", Kind: state.KindRestore, Auto: true}
	const url = "http://server/manufData.json"
	for _, tc := range []struct {
		name  string
		f     Facts
		p     policy.Policy
		job   Job
		fault *fault.Fault
	}{
		{"provision", Facts{ManifestURL: url, Recovery: RecoveryMissing, Main: MainBlank}, mfg, Provision, nil},
		{"provision again", Facts{ManifestURL: url, Recovery: RecoveryFound, Main: MainMarked}, mfg, Provision, nil},
		{"mfgurl without the policy", Facts{ManifestURL: url, Recovery: RecoveryFound, Main: MainMarked}, normal, Boot, nil},
		{"provisioning artifact without mfgurl", Facts{Recovery: RecoveryMissing, Main: MainBlank}, mfg, Hold, fault.NoManifestURL},
		{"two recovery volumes", Facts{Recovery: RecoveryAmbiguous, Main: MainMarked}, normal, Hold, fault.RecoveryAmbiguous},
		{"two main disks", Facts{Recovery: RecoveryFound, Main: MainAmbiguous}, normal, Hold, fault.MainAmbiguous},
		{"two main disks and a request", Facts{Recovery: RecoveryFound, Main: MainAmbiguous, Request: req}, normal, Hold, fault.MainAmbiguous},
		{"request, blank disk", Facts{Recovery: RecoveryFound, Main: MainBlank, Request: req}, normal, Restore, nil},
		{"request, complete system", Facts{Recovery: RecoveryFound, Main: MainMarked, Request: req}, normal, Restore, nil},
		{"request, already fulfilled", Facts{Recovery: RecoveryFound, Main: MainMarked, Request: req, Fulfilled: req.ID}, normal, Boot, nil},
		{"request, half-written disk", Facts{Recovery: RecoveryFound, Main: MainDamaged, Request: req}, normal, Restore, nil},
		{"request, data on the recorded disk", Facts{Recovery: RecoveryFound, Main: MainForeign, Request: req, Recorded: true}, normal, Restore, nil},
		{"request, another disk with data", Facts{Recovery: RecoveryFound, Main: MainForeign, Request: req}, normal, Hold, fault.MainForeign},
		{"another disk with data, a restore is chosen", Facts{Recovery: RecoveryFound, Main: MainForeign, Choice: Choice{Kind: ChooseLatest}},
			normal, Restore, nil},
		{"own request, data on the recorded disk", Facts{Recovery: RecoveryFound, Main: MainForeign, Request: own, Recorded: true}, normal, Hold, fault.MainForeign},
		{"own request, half-written disk", Facts{Recovery: RecoveryFound, Main: MainBegun, Request: own, Recorded: true}, normal, Restore, nil},
		{"own request, half-written filesystem", Facts{Recovery: RecoveryFound, Main: MainDamaged, Request: own, Recorded: true}, normal, Restore, nil},
		{"half-written disk, no request", Facts{Recovery: RecoveryFound, Main: MainBegun, Recorded: true}, normal, Hold, fault.MainForeign},
		{"errors in the recovery volume", Facts{Recovery: RecoveryFound, RecoveryErrors: true, Main: MainMarked}, normal, RepairRecovery, nil},
		{"errors in the recovery volume stay", Facts{Recovery: RecoveryFound, RecoveryErrors: true, RecoveryRepairs: 2, Main: MainMarked}, normal, Boot, nil},
		{"errors in the recovery volume stay, no mark", Facts{Recovery: RecoveryFound, RecoveryErrors: true, RecoveryRepairs: 2, Main: MainUnmarked}, normal, Restore, nil},
		{"recovery cannot be read, not tried", Facts{Recovery: RecoveryDamaged, RecoveryRepairable: true, Main: MainMarked}, normal, RepairRecovery, nil},
		{"recovery cannot be read, tried", Facts{Recovery: RecoveryDamaged, RecoveryRepairable: true, RecoveryRepairs: 1, Main: MainMarked}, normal, Boot, nil},
		{"recovery cannot be read, tried, no mark", Facts{Recovery: RecoveryDamaged, RecoveryRepairable: true, RecoveryRepairs: 1, Main: MainUnmarked}, damage, Hold, fault.RecoveryDamaged},
		{"recovery cannot be read, a rebuild is chosen", Facts{Recovery: RecoveryDamaged, RecoveryRepairable: true, Main: MainMarked, Choice: Choice{Kind: ChooseRebuild}}, normal, RepairRecovery, nil},
		{"recovery cannot be read, tried, a rebuild is chosen", Facts{Recovery: RecoveryDamaged, RecoveryRepairable: true, RecoveryRepairs: 1, Main: MainMarked, Choice: Choice{Kind: ChooseRebuild}}, normal, Rebuild, nil},
		{"recovery cannot be read, provisioning", Facts{Recovery: RecoveryDamaged, RecoveryRepairable: true, ManifestURL: url}, mfg, Provision, nil},
		{"table damaged", Facts{Recovery: RecoveryFound, TableDamaged: true, Main: MainMarked}, normal, RepairTable, nil},
		{"table damaged, and a request", Facts{Recovery: RecoveryFound, TableDamaged: true, Main: MainUnmarked, Request: req}, normal, RepairTable, nil},
		{"table damaged, a restore is chosen", Facts{Recovery: RecoveryFound, TableDamaged: true, Main: MainMarked, Choice: Choice{Kind: ChooseLatest}}, normal, Restore, nil},
		{"boots not good", Facts{Recovery: RecoveryFound, Main: MainMarked, Attempts: 3, Previous: "x"}, tries, Restore, nil},
		{"boots not good, the policy does not count", Facts{Recovery: RecoveryFound, Main: MainMarked, Attempts: 3, Previous: "x"}, normal, Boot, nil},
		{"boots not good, one is left", Facts{Recovery: RecoveryFound, Main: MainMarked, Attempts: 2, Previous: "x"}, tries, Boot, nil},
		{"boots not good, no other image", Facts{Recovery: RecoveryFound, Main: MainMarked, Attempts: 3}, tries, Boot, nil},
		{"boots not good, main damaged", Facts{Recovery: RecoveryFound, Main: MainDamaged, Attempts: 3, Previous: "x"}, tries, Repair, nil},
		{"boots not good, main missing", Facts{Recovery: RecoveryFound, Main: MainAbsent, Attempts: 3, Previous: "x"}, tries, Hold, fault.MainMissing},
		{"request, no disk", Facts{Recovery: RecoveryFound, Main: MainAbsent, Request: req}, normal, Hold, fault.MainMissing},
		{"complete system", Facts{Recovery: RecoveryFound, Main: MainMarked}, normal, Boot, nil},
		{"complete system, recovery gone", Facts{Recovery: RecoveryMissing, Main: MainMarked}, normal, Boot, nil},
		{"complete system, recovery damaged", Facts{Recovery: RecoveryDamaged, Main: MainMarked}, normal, Boot, nil},
		{"no mark", Facts{Recovery: RecoveryFound, Main: MainUnmarked}, normal, Restore, nil},
		{"no mark, recovery gone", Facts{Recovery: RecoveryMissing, Main: MainUnmarked}, normal, Hold, fault.NoRecovery},
		{"complete system, recovery newer", Facts{Recovery: RecoveryNewer, Main: MainMarked}, normal, Boot, nil},
		{"no mark, recovery newer", Facts{Recovery: RecoveryNewer, Main: MainUnmarked}, normal, Hold, fault.RecoveryNewer},
		{"recovery newer, a restore is chosen", Facts{Recovery: RecoveryNewer, Main: MainMarked, Choice: Choice{Kind: ChooseLatest}}, normal, Hold, fault.RecoveryNewer},
		{"recovery newer, a rebuild is chosen", Facts{Recovery: RecoveryNewer, Main: MainMarked, Choice: Choice{Kind: ChooseRebuild}}, normal, Boot, nil},
		{"no mark, recovery damaged", Facts{Recovery: RecoveryDamaged, Main: MainUnmarked}, normal, Hold, fault.RecoveryDamaged},
		{"complete system, another mainboard", Facts{Recovery: RecoveryOtherBoard, Main: MainMarked}, normal, Boot, nil},
		{"no mark, another mainboard", Facts{Recovery: RecoveryOtherBoard, Main: MainUnmarked}, normal, Hold, fault.OtherBoard},
		{"damaged, another mainboard", Facts{Recovery: RecoveryOtherBoard, Main: MainDamaged}, damage, Hold, fault.OtherBoard},
		{"another mainboard, a restore is chosen", Facts{Recovery: RecoveryOtherBoard, Main: MainMarked, Choice: Choice{Kind: ChooseLatest}},
			normal, Hold, fault.OtherBoard},
		{"another mainboard, it is adopted", Facts{Recovery: RecoveryOtherBoard, Main: MainMarked, Choice: Choice{Kind: ChooseAdopt}},
			normal, AdoptBoard, nil},
		{"another mainboard, it is adopted, no mark", Facts{Recovery: RecoveryOtherBoard, Main: MainUnmarked, Choice: Choice{Kind: ChooseAdopt}},
			normal, AdoptBoard, nil},
		{"another mainboard, provisioning", Facts{Recovery: RecoveryOtherBoard, Main: MainMarked, ManifestURL: url}, mfg, Provision, nil},
		{"own mainboard, it is adopted", Facts{Recovery: RecoveryFound, Main: MainMarked, Choice: Choice{Kind: ChooseAdopt}}, normal, Boot, nil},
		{"complete system, other firmware", Facts{Recovery: RecoveryOtherFirmware, Main: MainMarked}, normal, Boot, nil},
		{"no mark, other firmware", Facts{Recovery: RecoveryOtherFirmware, Main: MainUnmarked}, normal, Hold, fault.OtherFirmware},
		{"other firmware, a restore is chosen", Facts{Recovery: RecoveryOtherFirmware, Main: MainMarked, Choice: Choice{Kind: ChooseLatest}},
			normal, Hold, fault.OtherFirmware},
		{"other firmware, nothing to adopt", Facts{Recovery: RecoveryOtherFirmware, Main: MainUnmarked, Choice: Choice{Kind: ChooseAdopt}},
			normal, Hold, fault.OtherFirmware},
		{"blank disk", Facts{Recovery: RecoveryFound, Main: MainBlank}, normal, Restore, nil},
		{"foreign disk", Facts{Recovery: RecoveryFound, Main: MainForeign}, normal, Hold, fault.MainForeign},
		{"disk missing", Facts{Recovery: RecoveryFound, Main: MainAbsent}, normal, Hold, fault.MainMissing},
		{"disk missing, policy restores damage", Facts{Recovery: RecoveryFound, Main: MainAbsent}, damage, Hold, fault.MainMissing},
		{"damaged", Facts{Recovery: RecoveryFound, Main: MainDamaged}, normal, Repair, nil},
		{"damaged, repaired once", Facts{Recovery: RecoveryFound, Main: MainDamaged, Repairs: 1}, normal, Repair, nil},
		{"damaged, repairs used up", Facts{Recovery: RecoveryFound, Main: MainDamaged, Repairs: 2}, normal, Hold, fault.MainDamaged},
		{"damaged, repairs used up, policy restores", Facts{Recovery: RecoveryFound, Main: MainDamaged, Repairs: 2}, damage, Restore, nil},
		{"damaged, policy restores, recovery gone", Facts{Recovery: RecoveryMissing, Main: MainDamaged, Repairs: 2}, damage, Hold, fault.NoRecovery},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := Decide(tc.f, tc.p)
			if d.Job != tc.job || d.Fault != tc.fault {
				t.Errorf("got %s with fault %v, want %s with %v", d, d.Fault, tc.job, tc.fault)
			}
		})
	}
}

// TestDecideSays checks the sentence of rows that lead to the same job, and facts that count in a single row.
func TestDecideSays(t *testing.T) {
	req := &state.Request{ID: "0123456789abcdef", Kind: state.KindRestore}
	shell, mfg, tries := policy.Policy{Shell: true}, policy.Policy{Provision: true}, policy.Policy{FailedBoots: 3}
	found := func(main MainState, change func(f *Facts)) Facts {
		f := Facts{Recovery: RecoveryFound, Main: main}
		change(&f)
		return f
	}
	none, original := func(*Facts) {}, func(f *Facts) { f.Choice.Kind = ChooseOriginal }
	const complete, opened = "the main system is complete", "the recovery shell is asked for, and the policy has it"
	for _, tc := range []struct {
		f    Facts
		p    policy.Policy
		want string
	}{
		{found(MainAbsent, none), policy.Policy{}, "the main disk is missing"},
		{found(MainAbsent, func(f *Facts) { f.Request = req }), policy.Policy{}, "a restore is requested and the main disk is missing"},
		{found(MainAbsent, original), policy.Policy{}, "a person chose a restore and the main disk is missing"},
		{found(MainMarked, original), policy.Policy{}, "a person at the machine chose a restore"},
		{found(MainMarked, func(f *Facts) { f.Choice = Choice{Kind: ChooseImage, Image: "x"} }), policy.Policy{},
			"a person at the machine chose a restore"},
		{found(MainForeign, none), policy.Policy{}, "the main disk holds data that is not of this unit"},
		{found(MainMarked, none), tries, complete},
		{found(MainMarked, func(f *Facts) { f.Choice.Kind = ChooseMedium }), policy.Policy{}, complete},
		{found(MainMarked, func(f *Facts) { f.Recovery, f.RecoveryErrors = RecoveryMissing, true }), policy.Policy{}, complete},
		{found(MainMarked, func(f *Facts) { f.Recovery, f.TableDamaged = RecoveryMissing, true }), policy.Policy{}, complete},
		{found(MainUnmarked, none), mfg, "the main system has no mark"},
		{found(MainMarked, none), shell, complete},
		{found(MainMarked, func(f *Facts) { f.ShellAsked = true }), policy.Policy{}, complete},
		{found(MainMarked, func(f *Facts) { f.ShellAsked = true }), shell, opened},
		{found(MainMarked, func(f *Facts) { f.Choice.Kind = ChooseShell }), shell, opened},
	} {
		if d := Decide(tc.f, tc.p); d.Reason != tc.want {
			t.Errorf("%+v: %s, want %q", tc.f, d, tc.want)
		}
	}
	if f := (Facts{Recovery: RecoveryFound, Main: MainBlank, Request: req, Fulfilled: req.ID}); !f.RestoreRequested() {
		t.Error("a request counts as fulfilled by a system that is not there")
	}
}

// TestDecideIsTotal tries all combinations. There is always a decision. No decision destroys without a recovery
// volume and proof. Hold always has a fault.
func TestDecideIsTotal(t *testing.T) {
	req, own := &state.Request{ID: "0123456789abcdef"}, &state.Request{ID: "0123456789abcdef", Auto: true}
	for _, r := range []RecoveryState{RecoveryMissing, RecoveryFound, RecoveryAmbiguous, RecoveryDamaged, RecoveryNewer, RecoveryOtherBoard,
		RecoveryOtherFirmware} {
		for _, m := range []MainState{MainAbsent, MainAmbiguous, MainBlank, MainBegun, MainForeign, MainMarked, MainUnmarked, MainDamaged} {
			for _, q := range []*state.Request{nil, req, own} {
				for _, p := range []policy.Policy{{}, {Provision: true}, {RestoreOnDamage: true}, {FailedBoots: 2}} {
					for n := range 16 {
						f := Facts{Recovery: r, Main: m, Request: q, Repairs: n % 4, RecoveryRepairs: n % 3, RecoveryErrors: n&1 != 0, Recorded: n&4 != 0, Attempts: n % 4,
							RecoveryRepairable: r == RecoveryDamaged && n&2 != 0, TableDamaged: n == 9}
						f.Erasing.EraseAsked = n == 5
						if n&8 != 0 {
							f.Previous = "other"
						}
						d := Decide(f, p)
						if d.Fault == fault.Internal {
							t.Errorf("%+v: no rule fits", f)
						}
						if (d.Job == Hold) != (d.Fault != nil) {
							t.Errorf("%+v: %s has fault %v", f, d, d.Fault)
						}
						if d.Job == Restore && (r != RecoveryFound || m == MainAbsent || m == MainAmbiguous) {
							t.Errorf("%+v: %s", f, d)
						}
						if d.Job == Restore && m == MainForeign && (q != req || !f.Recorded) {
							t.Errorf("%+v: %s over data that are not of this unit", f, d)
						}
						if d.Job == Restore && m == MainMarked && q == nil && (p.FailedBoots == 0 || f.Attempts < p.FailedBoots || f.Previous == "" || !d.Back) {
							t.Errorf("%+v: %s over a complete system", f, d)
						}
						if d.Job == Restore && q == nil && (m == MainForeign || m == MainBegun || (m == MainDamaged && !p.RestoreOnDamage)) {
							t.Errorf("%+v: %s although nobody asked", f, d)
						}
					}
				}
			}
		}
	}
}

// TestDecideDocs: the table in docs/decide.md equals the one in the code.
func TestDecideDocs(t *testing.T) {
	b, err := os.ReadFile("../../docs/decide.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| what was found") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	var want []string
	for _, r := range rules() {
		code := ""
		if r.then.Fault != nil {
			code = r.then.Fault.Code + " "
		}
		want = append(want, "| "+r.then.Reason+" | "+string(r.then.Job)+" | "+code+"|")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("code and docs/decide.md differ:\n%s", diff)
	}
}

// TestComplete: which recovery volumes belong to a unit that somebody uses.
func TestComplete(t *testing.T) {
	provisioned, person := &state.Request{ID: "0123456789abcdef", By: state.ByProvisioning}, &state.Request{ID: "0123456789abcdef", By: "root on tty1"}
	for _, tc := range []struct {
		name string
		f    Facts
		want bool
	}{
		{"a bare machine", Facts{Recovery: RecoveryMissing, Main: MainBlank}, false},
		{"half-written: no record", Facts{Recovery: RecoveryMissing, Main: MainForeign}, false},
		{"written, never restored", Facts{Recovery: RecoveryFound, Main: MainBlank, Request: provisioned}, false},
		{"written, its restore cut off", Facts{Recovery: RecoveryFound, Main: MainUnmarked, Request: provisioned}, false},
		{"restored", Facts{Recovery: RecoveryFound, Main: MainMarked, Request: provisioned, Fulfilled: provisioned.ID}, true},
		{"restored from another request", Facts{Recovery: RecoveryFound, Main: MainMarked, Request: provisioned}, true},
		{"a person wants a restore", Facts{Recovery: RecoveryFound, Main: MainDamaged, Request: person}, true},
		{"no request", Facts{Recovery: RecoveryFound, Main: MainMarked}, true},
		{"main disk gone", Facts{Recovery: RecoveryFound, Main: MainAbsent}, true},
		{"two volumes of this unit", Facts{Recovery: RecoveryAmbiguous, Main: MainMarked}, true},
	} {
		if got := tc.f.Complete(); got != tc.want {
			t.Errorf("%s: %t", tc.name, got)
		}
	}
}

func TestDecideMedium(t *testing.T) {
	healthy := Facts{Recovery: RecoveryFound, Main: MainMarked}
	for name, c := range map[string]struct {
		change func(*Facts)
		want   Job
	}{
		"offered":                  {func(f *Facts) { f.Medium = MediumOffered }, Rescue},
		"offered, main blank":      {func(f *Facts) { f.Medium, f.Main = MediumOffered, MainBlank }, Rescue},
		"offered, and a request":   {func(f *Facts) { f.Medium, f.Request = MediumOffered, &state.Request{ID: "x"} }, Rescue},
		"offered, main missing":    {func(f *Facts) { f.Medium, f.Main = MediumOffered, MainAbsent }, Hold},
		"offered, no recovery":     {func(f *Facts) { f.Medium, f.Recovery = MediumOffered, RecoveryMissing }, Boot},
		"done":                     {func(f *Facts) { f.Medium = MediumDone }, Boot},
		"done, and chosen":         {func(f *Facts) { f.Medium, f.Choice.Kind = MediumDone, ChooseMedium }, Rescue},
		"unusable":                 {func(f *Facts) { f.Medium = MediumUnusable }, Boot},
		"unusable, and chosen":     {func(f *Facts) { f.Medium, f.Choice.Kind = MediumUnusable, ChooseMedium }, Boot},
		"cut off":                  {func(f *Facts) { f.Medium, f.Main = MediumConfirmed, MainUnmarked }, Rescue},
		"a person resumes":         {func(f *Facts) { f.Medium, f.Choice.Kind = MediumOffered, ChooseResume }, Boot},
		"a person wants another":   {func(f *Facts) { f.Medium, f.Choice.Kind = MediumOffered, ChooseLatest }, Restore},
		"two recovery volumes":     {func(f *Facts) { f.Medium, f.Recovery = MediumOffered, RecoveryAmbiguous }, Hold},
		"two main disks":           {func(f *Facts) { f.Medium, f.Main = MediumOffered, MainAmbiguous }, Hold},
		"support bundle":           {func(f *Facts) { f.Medium, f.Choice.Kind = MediumOffered, ChooseSupport }, Support},
		"bundle, all is lost":      {func(f *Facts) { f.Recovery, f.Main, f.Choice.Kind = RecoveryDamaged, MainAbsent, ChooseSupport }, Support},
		"rebuild":                  {func(f *Facts) { f.Recovery, f.Main, f.Choice.Kind = RecoveryMissing, MainForeign, ChooseRebuild }, Rebuild},
		"rebuild a damaged one":    {func(f *Facts) { f.Recovery, f.Choice.Kind = RecoveryDamaged, ChooseRebuild }, Rebuild},
		"rebuild one that is back": {func(f *Facts) { f.Choice.Kind = ChooseRebuild }, Boot},
		"rebuild one of two":       {func(f *Facts) { f.Recovery, f.Choice.Kind = RecoveryAmbiguous, ChooseRebuild }, Hold},
		"switched off by the way":  {func(f *Facts) { f.Medium, f.Choice.Kind = MediumOffered, ChoosePowerOff }, PowerOff},
	} {
		f := healthy
		c.change(&f)
		if d := Decide(f, policy.Policy{}); d.Job != c.want {
			t.Errorf("%s: %s, want %s", name, d, c.want)
		}
	}
}
