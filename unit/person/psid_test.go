package person

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"gprovision/hw/drive"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
)

// TestParsePSID: a PSID has 32 letters and digits, and what is wrong with another text is said without repeating it.
func TestParsePSID(t *testing.T) {
	const psid = "0123456789ABCDEF0123456789ABCDEZ"
	for _, text := range []string{psid, strings.ToLower(psid), " 01234567-89ABCDEF 0123456789ABCDEZ "} {
		if got, err := ParsePSID(text); got != psid || err != nil {
			t.Errorf("%q: %d characters, %v", text, len(got), err)
		}
	}
	for text, want := range map[string]string{
		psid[1:]: "it has 31 characters, and 32 are on the label", psid + "0": "it has 33 characters, and 32 are on the label", "": "it has 0",
		"O123_56": "character 5 is neither", psid[1:] + "\u00e4": "character 32 is neither",
	} {
		got, err := ParsePSID(text)
		if got != "" || !errors.Is(err, ErrPSID) || !strings.Contains(err.Error(), want) || text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestAskPSID: a text that is no PSID is asked for again, with what is wrong. Nothing, and nobody, is no PSID.
func TestAskPSID(t *testing.T) {
	const psid = "0123456789ABCDEF0123456789ABCDEF"
	for name, c := range map[string]struct {
		types []string // nil: nobody is there
		want  drive.PSID
	}{
		"at once": {[]string{psid}, psid}, "at the second try": {[]string{"0123", psid}, psid}, "nothing": {[]string{""}, ""},
		"nobody": {nil, ""}, "nothing after all": {[]string{"?", " "}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := panel.New()
			asked := 0
			s := &script.Panel{}
			s.Answer = func(panel.Asked) (keys []panel.Key) {
				for _, k := range []byte(c.types[asked]) {
					keys = append(keys, panel.Key(k))
				}
				asked++
				return append(keys, panel.KeyEnter)
			}
			if c.types != nil {
				b.Add("script", s)
			}
			got, err := AskPSID(t.Context(), b, "sda")
			if got != c.want || err != nil || asked != len(c.types) {
				t.Errorf("%d characters after %d questions, %v", len(got), asked, err)
			}
			if shown := s.Last().Message; (asked > 1) != strings.HasPrefix(shown, "Try again: not a PSID") {
				t.Errorf("shown %q", shown)
			}
			if text := fmt.Sprintf("%v %+v %#v %s", got, got, got, got); got != "" && strings.Contains(text, psid) {
				t.Error("it shows itself")
			}
		})
	}
	ended, end := context.WithCancel(t.Context())
	end()
	b := panel.New()
	b.Add("script", &script.Panel{})
	if _, err := AskPSID(ended, b, "sda"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
