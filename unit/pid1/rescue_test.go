package pid1

import (
	"testing"

	"gprovision/model/policy"
	"gprovision/unit/rescue"
	"gprovision/unit/state"
)

// TestJudgeMedia has media in all states, over several boots.
func TestJudgeMedia(t *testing.T) {
	const a, b = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	medium := func(ids ...string) []rescue.Medium {
		m := rescue.Medium{Path: "/dev/sda1"}
		for _, id := range ids {
			m.Files = append(m.Files, rescue.File{Base: id, ID: id})
		}
		return []rescue.Medium{m}
	}
	for name, c := range map[string]struct {
		media    []rescue.Medium
		facts    Facts
		last     state.Medium
		answered map[string]string
		want     MediumState
		offer    string
	}{
		"none":                             {want: NoMedium},
		"nothing that can be used":         {media: medium(), want: MediumUnusable},
		"fresh":                            {media: medium(a), want: MediumOffered, offer: a},
		"left in, by the mark":             {media: medium(a), facts: Facts{Main: MainMarked, Fulfilled: a}, want: MediumDone, offer: a},
		"left in, by the record":           {media: medium(a), last: state.Medium{ID: a}, want: MediumDone, offer: a},
		"taken out and back":               {media: medium(a), facts: Facts{Main: MainMarked, Fulfilled: a}, last: state.Medium{ID: a, Removed: true}, want: MediumOffered, offer: a},
		"another one beside the first":     {media: medium(a, b), facts: Facts{Main: MainMarked, Fulfilled: a}, want: MediumOffered, offer: b},
		"cut off":                          {media: medium(b, a), facts: Facts{Recovery: RecoveryFound, Main: MainUnmarked, Request: &state.Request{ID: a}}, want: MediumConfirmed, offer: a},
		"refused in this boot":             {media: medium(a), answered: map[string]string{a: "no"}, want: MediumDone, offer: a},
		"a request of something else":      {media: medium(a), facts: Facts{Recovery: RecoveryFound, Main: MainUnmarked, Request: &state.Request{ID: b}}, want: MediumOffered, offer: a},
		"refused, and the next one is not": {media: medium(a, b), answered: map[string]string{a: "no"}, want: MediumOffered, offer: b},
	} {
		t.Run(name, func(t *testing.T) {
			u := &unit{media: media{answered: c.answered}}
			f := &Found{Facts: c.facts, Media: c.media, LastMedium: c.last}
			u.judgeMedia(f)
			if f.Medium != c.want || (f.Offer == nil) != (c.offer == "") || f.OfferFile.ID != c.offer {
				t.Errorf("%q and %q, want %q and %q; notes %v", f.Medium, f.OfferFile.ID, c.want, c.offer, f.Notes)
			}
		})
	}
	// What was answered is forgotten when the medium is taken out.
	u := &unit{media: media{answered: map[string]string{a: "no"}}}
	u.judgeMedia(&Found{})
	if len(u.media.answered) > 0 {
		t.Error("a medium that is gone is still refused")
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
