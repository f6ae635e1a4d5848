package pid1

import (
	"os"
	"testing"
	"time"

	"gprovision/model/fault"
	"gprovision/model/page"
	"gprovision/unit/job"
	"gprovision/unit/panel"
	"gprovision/unit/splash"
)

// TestNumbersOfThePages: how long a unit waits, as docs/ says it.
func TestNumbersOfThePages(t *testing.T) {
	docs := os.DirFS("../../docs")
	long := 99 // so often that the pause does not grow any more
	for _, tc := range []struct {
		page, says string
		have, want time.Duration
	}{
		{"decide.md", "The pause grows from a minute", pause(fault.MainMissing, 0), time.Minute},
		{"decide.md", "grows from a minute to an hour", pause(fault.MainMissing, long), time.Hour},
		{"decide.md", "(from 30 seconds to 5 minutes where the network is at fault)", pause(fault.NoNetwork, 0), 30 * time.Second},
		{"decide.md", "(from 30 seconds to 5 minutes where the network is at fault)", pause(fault.NoNetwork, long), 5 * time.Minute},
		{"decide.md", "armed as soon as its driver is loaded, with 60 seconds", alive, time.Minute},
		{"screens.md", "after a minute at first, then after twice as long each time, up to an hour", pause(fault.MainMissing, 1), 2 * time.Minute},
		{"screens.md", "(30 seconds to 5 minutes where the network or the server is at fault)", pause(fault.NoServer, long), 5 * time.Minute},
		{"screens.md", "a code for eight seconds", job.ReadingTime, 8 * time.Second},
		{"screens.md", "A menu that nobody answers is gone after five minutes", panel.AskTimeout, 5 * time.Minute},
		{"screens.md", "no answer within a minute is no", panel.ConfirmTimeout, time.Minute},
		{"screens.md", "the system has not said within five minutes that it is up", splash.Patience, 5 * time.Minute},
		{"lcd.md", "or after five minutes with `OS did not say that it runs`", splash.Patience, 5 * time.Minute},
		{"sticks.md", "Without an answer within a minute nothing is changed", panel.ConfirmTimeout, time.Minute},
		{"errors.md", "nobody said yes to the restore within a minute", panel.ConfirmTimeout, time.Minute},
	} {
		if tc.have != tc.want {
			t.Errorf("docs/%s says %q, and it is %s", tc.page, tc.says, tc.have)
		}
		if err := page.Says(docs, tc.page, tc.says); err != nil {
			t.Error(err)
		}
	}
}
