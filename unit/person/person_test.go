package person

import (
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/model/page"
	"gprovision/model/policy"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/medium"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/survey"
)

// withKeys returns a person at a unit whose panel has keys.
func withKeys(p policy.Policy) *Person {
	m := &machine.Machine{Log: slog.New(slog.DiscardHandler), Panel: panel.New(), Policy: p}
	m.Panel.Add("script", &script.Panel{Answer: func(panel.Asked) []panel.Key { return nil }})
	return &Person{Machine: m}
}

// TestOfferMenu: a boot from a recovery stick shows the menu once, if there is something to choose.
func TestOfferMenu(t *testing.T) {
	for name, c := range map[string]struct {
		from     bool
		medium   decide.MediumState
		recovery decide.RecoveryState
		p        policy.Policy
		want     bool
	}{
		"from the stick":               {from: true, medium: decide.MediumOffered, recovery: decide.RecoveryFound, want: true},
		"a stick is only there":        {medium: decide.MediumOffered, recovery: decide.RecoveryFound},
		"nothing on it for this unit":  {from: true, medium: decide.NoMedium, recovery: decide.RecoveryFound, want: true},
		"a restore goes on":            {from: true, medium: decide.MediumConfirmed, recovery: decide.RecoveryFound},
		"left in":                      {from: true, medium: decide.MediumDone, recovery: decide.RecoveryFound},
		"left in, and the volume died": {from: true, medium: decide.MediumDone, recovery: decide.RecoveryMissing, want: true},
		"nobody is asked": {from: true, medium: decide.MediumOffered, recovery: decide.RecoveryFound,
			p: policy.Policy{MediumWithoutConfirmation: true}},
		"nobody is asked, the volume is not": {from: true, medium: decide.MediumOffered, recovery: decide.RecoveryDamaged,
			p: policy.Policy{MediumWithoutConfirmation: true}, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := withKeys(c.p)
			f := &survey.Findings{Facts: decide.Facts{Medium: c.medium, Recovery: c.recovery},
				MediaFindings: survey.MediaFindings{FromStick: c.from}}
			if got := p.offersMenu(f, false); got != c.want {
				t.Errorf("got %v", got)
			}
			if p.offersMenu(f, false) {
				t.Error("the menu is offered twice")
			}
		})
	}
	p := &Person{Machine: &machine.Machine{Panel: panel.New()}}
	if p.offersMenu(&survey.Findings{Facts: decide.Facts{Medium: decide.MediumOffered}, MediaFindings: survey.MediaFindings{FromStick: true}},
		false) {
		t.Error("a menu that nobody can use is offered")
	}
}

// TestStickMenu: a rebuild is offered only for a lost volume, and only from a recovery stick with an image.
func TestStickMenu(t *testing.T) {
	image := []medium.File{{Base: "x"}}
	for name, c := range map[string]struct {
		media    []medium.Medium
		recovery decide.RecoveryState
		want     bool
	}{
		"lost":              {[]medium.Medium{{}, {Stick: true, Files: image}}, decide.RecoveryMissing, true},
		"damaged":           {[]medium.Medium{{Stick: true, Files: image}}, decide.RecoveryDamaged, true},
		"there":             {[]medium.Medium{{Stick: true, Files: image}}, decide.RecoveryFound, false},
		"two":               {[]medium.Medium{{Stick: true, Files: image}}, decide.RecoveryAmbiguous, false},
		"no image":          {[]medium.Medium{{Stick: true}}, decide.RecoveryMissing, false},
		"no recovery stick": {[]medium.Medium{{Files: image}}, decide.RecoveryMissing, false},
	} {
		items := withKeys(policy.Policy{}).items(&survey.Findings{Facts: decide.Facts{Recovery: c.recovery},
			MediaFindings: survey.MediaFindings{Media: c.media}}, false)
		has := func(k decide.ChoiceKind) bool {
			return slices.ContainsFunc(items, func(i item) bool { return i.choice == k })
		}
		if has(decide.ChooseRebuild) != c.want || !has(decide.ChooseSupport) || has(decide.ChooseShell) {
			t.Errorf("%s: %v", name, items)
		}
	}
}

// TestAdoptMenu: a mainboard is adopted only where the disks are of a unit with another one, and only by a yes to a sentence that has both
// serial numbers.
func TestAdoptMenu(t *testing.T) {
	for _, state := range []decide.RecoveryState{decide.RecoveryMissing, decide.RecoveryFound, decide.RecoveryDamaged, decide.RecoveryNewer,
		decide.RecoveryOtherFirmware, decide.RecoveryOtherBoard} {
		f := &survey.Findings{Facts: decide.Facts{Recovery: state}}
		f.Unit.Serial = "SN-OLD"
		p := withKeys(policy.Policy{})
		p.Machine.Identity.Serial = "SN-NEW"
		items := p.items(f, false)
		i := slices.IndexFunc(items, func(i item) bool { return i.choice == decide.ChooseAdopt })
		if (i >= 0) != (state == decide.RecoveryOtherBoard) {
			t.Errorf("%s: %v", state, items)
		}
		if i >= 0 && (!strings.Contains(items[i].warn, "SN-OLD") || !strings.Contains(items[i].warn, "SN-NEW")) {
			t.Errorf("it is asked %q", items[i].warn)
		}
	}
}

// TestForcedRestoreNeedsAYes: what follows from the choice in a boot menu.
func TestForcedRestoreNeedsAYes(t *testing.T) {
	unattended := policy.Policy{ForcedRestore: policy.ForcedRestoreUnattended}
	yes, no := []panel.Key{panel.KeyDown, panel.KeyEnter}, []panel.Key{panel.KeyEnter}
	whole := decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainMarked}
	with := func(change func(*decide.Facts)) decide.Facts { f := whole; change(&f); return f }
	for _, tc := range []struct {
		name string
		f    decide.Facts
		p    policy.Policy
		keys []panel.Key // nil: no panel has keys
		want decide.Job
		asks bool
	}{
		{"yes", whole, policy.Policy{}, yes, decide.Restore, true},
		{"no", whole, policy.Policy{}, no, decide.Boot, true},
		{"nobody can answer", whole, policy.Policy{}, nil, decide.Boot, false},
		{"unattended", whole, unattended, nil, decide.Restore, false},
		{"unattended, a disk of somebody", with(func(f *decide.Facts) { f.Main = decide.MainForeign }), unattended, nil, decide.Hold, false},
		{"a disk of somebody, yes", with(func(f *decide.Facts) { f.Main = decide.MainForeign }), unattended, yes, decide.Restore, true},
		{"resumed in the menu", with(func(f *decide.Facts) { f.Choice.Kind = decide.ChooseResume }), unattended, nil, decide.Boot, false},
		{"no recovery volume", with(func(f *decide.Facts) { f.Recovery = decide.RecoveryMissing }), unattended, nil, decide.Boot, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &Person{Machine: &machine.Machine{Log: slog.New(slog.DiscardHandler), Panel: panel.New(), Policy: tc.p}}
			asked := false
			if tc.keys != nil {
				p.Machine.Panel.Add("script", &script.Panel{Answer: func(panel.Asked) []panel.Key { asked = true; return tc.keys }})
			}
			for range 2 { // a second pass of the same boot does not ask again
				asked = false
				facts := tc.f
				if c, chosen := p.Forced(t.Context(), &survey.Findings{Facts: tc.f}); chosen {
					facts.Choice = c
				}
				if d := decide.Decide(facts, tc.p); d.Job != tc.want || asked != tc.asks {
					t.Errorf("%s, asked %t", d, asked)
				}
				if tc.asks = false; tc.want == decide.Restore {
					tc.want = decide.Decide(tc.f, tc.p).Job
				}
			}
		})
	}
}

// TestGraceTime: how long a person may open the menu, as docs/formats/policy.md has it.
func TestGraceTime(t *testing.T) {
	for name, c := range map[string]struct {
		policy, platform int
		keys, provisions bool
		want             time.Duration
	}{
		"nothing said":              {0, 0, true, false, 3 * time.Second},
		"the policy":                {7, 0, true, false, 7 * time.Second},
		"the platform goes before":  {7, 2, true, false, 2 * time.Second},
		"no panel has keys":         {7, 2, false, false, 0},
		"the artifact provisions":   {7, 2, true, true, 0},
		"nothing said, and no keys": {0, 0, false, false, 0},
	} {
		p := &Person{Machine: &machine.Machine{Panel: panel.New(), Log: slog.New(slog.DiscardHandler)}}
		if c.keys {
			p = withKeys(policy.Policy{})
		}
		p.Machine.Policy.GraceSeconds, p.Machine.Identity.Variant.GraceSeconds = c.policy, c.platform
		began := time.Now()
		p.BeginGrace(c.provisions)
		if took := time.Since(began); p.grace.Before(began.Add(c.want)) || p.grace.After(began.Add(c.want+took)) {
			t.Errorf("%s: %s, want %s", name, p.grace.Sub(began), c.want)
		}
		first := p.grace
		if p.BeginGrace(c.provisions); p.grace != first {
			t.Errorf("%s: it begins twice", name)
		}
	}
	if err := page.Says(os.DirFS("../../docs"), "formats/policy.md", "0 means 3. The platform's `GraceSeconds` goes before it"); err != nil {
		t.Error(err)
	}
}
