//go:build soak

package lab_test

import (
	"strings"
	"testing"
	"time"

	"gprovision/model/layout"
)

// TestSoakGRUBLocked tries on the serial line of a unit with the default policy each key that opens GRUB's command line, or its editor, or leaves
// the menu: nothing does without a password, and there is none. The entries of the menu start all the same.
func TestSoakGRUBLocked(t *testing.T) {
	t.Parallel()
	erase := strings.Repeat("\b", 32) // more than there is to erase: once this opened the rescue shell
	for name, key := range map[string]string{"command line": "c", "editor": "e", "leave": escape} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := needLife(t)
			u := l.fork(t, network(t), layout.BIOS, nil)
			s := newScreen(t, u)
			start(t, u)
			s.shows(t, u, bootPatience, "ESC for the boot menu", "")
			keys(t, u, key+escape)
			s.shows(t, u, time.Minute, "Forced Factory Restore", "")
			s.shows(t, u, time.Minute, "Enter username:", key)
			// The firmware's console reads the same line, so that one of two keys may be lost: enter is pressed again until it is not. That is
			// also why Escape may be there once more, which leads back to the menu.
			if key != escape {
				keys(t, u, erase+"x")
				s.shows(t, u, time.Minute, "Enter password:", enter)
			}
			keys(t, u, erase+"x")
			s.shows(t, u, bootPatience, "gprovision: ", enter) // in the menu it starts the first entry
			whole(t, up(t, u), "2")
			seen(t, u, 0, jobState("restore", "started"), "restore")
			noPrompt(t, u)
		})
	}
}
