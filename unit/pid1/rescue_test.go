package pid1

import (
	"testing"

	"gprovision/unit/decide"
	"gprovision/unit/job/rescue"
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
		facts    decide.Facts
		last     state.Medium
		answered map[string]string
		want     decide.MediumState
		offer    string
	}{
		"none":                             {want: decide.NoMedium},
		"nothing that can be used":         {media: medium(), want: decide.MediumUnusable},
		"fresh":                            {media: medium(a), want: decide.MediumOffered, offer: a},
		"left in, by the mark":             {media: medium(a), facts: decide.Facts{Main: decide.MainMarked, Fulfilled: a}, want: decide.MediumDone, offer: a},
		"left in, by the record":           {media: medium(a), last: state.Medium{ID: a}, want: decide.MediumDone, offer: a},
		"taken out and back":               {media: medium(a), facts: decide.Facts{Main: decide.MainMarked, Fulfilled: a}, last: state.Medium{ID: a, Removed: true}, want: decide.MediumOffered, offer: a},
		"another one beside the first":     {media: medium(a, b), facts: decide.Facts{Main: decide.MainMarked, Fulfilled: a}, want: decide.MediumOffered, offer: b},
		"cut off":                          {media: medium(b, a), facts: decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainUnmarked, Request: &state.Request{ID: a}}, want: decide.MediumConfirmed, offer: a},
		"refused in this boot":             {media: medium(a), answered: map[string]string{a: "no"}, want: decide.MediumDone, offer: a},
		"a request of something else":      {media: medium(a), facts: decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainUnmarked, Request: &state.Request{ID: b}}, want: decide.MediumOffered, offer: a},
		"refused, and the next one is not": {media: medium(a, b), answered: map[string]string{a: "no"}, want: decide.MediumOffered, offer: b},
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
