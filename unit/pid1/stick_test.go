package pid1

import (
	"io/fs"
	"log/slog"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"gprovision/hw/host"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/machine"
	"gprovision/unit/medium"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/survey"
)

// withKeys returns a unit with a panel that has keys.
func withKeys(p policy.Policy) *unit {
	u := &unit{log: slog.New(slog.DiscardHandler), m: &machine.Machine{Panel: panel.New(), Policy: p}}
	u.m.Panel.Add("script", &script.Panel{Answer: func(panel.Asked) []panel.Key { return nil }})
	return u
}

// TestOfferMenu: a boot from a recovery stick shows the menu once, where there is something to choose.
func TestOfferMenu(t *testing.T) {
	for name, c := range map[string]struct {
		from     bool
		medium   decide.MediumState
		recovery decide.RecoveryState
		p        policy.Policy
		want     bool
	}{
		"from the stick":                     {from: true, medium: decide.MediumOffered, recovery: decide.RecoveryFound, want: true},
		"a stick is only there":              {medium: decide.MediumOffered, recovery: decide.RecoveryFound},
		"nothing on it for this unit":        {from: true, medium: decide.NoMedium, recovery: decide.RecoveryFound, want: true},
		"a restore goes on":                  {from: true, medium: decide.MediumConfirmed, recovery: decide.RecoveryFound},
		"left in":                            {from: true, medium: decide.MediumDone, recovery: decide.RecoveryFound},
		"left in, and the volume died":       {from: true, medium: decide.MediumDone, recovery: decide.RecoveryMissing, want: true},
		"nobody is asked":                    {from: true, medium: decide.MediumOffered, recovery: decide.RecoveryFound, p: policy.Policy{MediumWithoutConfirmation: true}},
		"nobody is asked, the volume is not": {from: true, medium: decide.MediumOffered, recovery: decide.RecoveryDamaged, p: policy.Policy{MediumWithoutConfirmation: true}, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			u := withKeys(c.p)
			f := &survey.Findings{Facts: decide.Facts{Medium: c.medium, Recovery: c.recovery}, MediaFindings: survey.MediaFindings{FromStick: c.from}}
			if got := u.offerMenu(f); got != c.want {
				t.Errorf("got %v", got)
			}
			if u.offerMenu(f) {
				t.Error("the menu is offered twice")
			}
		})
	}
	u := &unit{m: &machine.Machine{Panel: panel.New()}}
	if u.offerMenu(&survey.Findings{Facts: decide.Facts{Medium: decide.MediumOffered}, MediaFindings: survey.MediaFindings{FromStick: true}}) {
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
		items := withKeys(policy.Policy{}).items(&survey.Findings{Facts: decide.Facts{Recovery: c.recovery}, MediaFindings: survey.MediaFindings{Media: c.media}})
		has := func(k decide.ChoiceKind) bool {
			return slices.ContainsFunc(items, func(i item) bool { return i.choice == k })
		}
		if has(decide.ChooseRebuild) != c.want || !has(decide.ChooseSupport) || has(decide.ChooseShell) {
			t.Errorf("%s: %v", name, items)
		}
	}
}

// TestNoBundle: without a recovery stick nothing is written anywhere.
func TestNoBundle(t *testing.T) {
	if _, err := withKeys(policy.Policy{}).saveBundle(t.Context(), &survey.Findings{}); fault.Of(err) != fault.NoBundle {
		t.Errorf("got %v", err)
	}
}

// TestChoiceCountsOnce: what was chosen in one pass does not decide the next one.
func TestChoiceCountsOnce(t *testing.T) {
	u := &unit{log: slog.New(slog.DiscardHandler), m: &machine.Machine{Log: slog.New(slog.DiscardHandler), Panel: panel.New(), Sys: fstest.MapFS{"block": {Mode: fs.ModeDir}}, Firmware: layout.BIOS}}
	u.m.Doors = machine.Real(u.log, u.m.Sys)
	var err error
	if u.modules, err = host.NewModules(t.TempDir(), "none"); err != nil {
		t.Fatal(err)
	}
	u.memory.Since, u.memory.Choice = time.Now().Add(-time.Hour), decide.Choice{Kind: decide.ChoosePowerOff}
	if out := u.pass(t.Context()); out.Kind != job.HoldOn || fault.Of(out.Err) != fault.MainMissing {
		t.Errorf("got %+v", out)
	}
}
