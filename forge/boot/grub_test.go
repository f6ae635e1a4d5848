package boot

import (
	"slices"
	"strings"
	"testing"

	"gprovision/model/grub"
)

// TestGRUBTakesNoCommands: core.img locks GRUB's command line before it does anything else, never comes to the prompt that follows the end
// of its script, and has no command that shows a file.
func TestGRUBTakesNoCommands(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(grubStart), "\n")
	if !strings.HasPrefix(grubStart, "set superusers=nobody\nexport superusers\n") {
		t.Errorf("it is not locked first: %q", lines)
	}
	if lines[len(lines)-1] != "reboot" || slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "normal") }) {
		t.Errorf("it ends where GRUB asks for commands: %q", lines)
	}
	if !slices.Contains(lines, "configfile ($root)"+grub.ConfigPath) {
		t.Errorf("it reads no configuration: %q", lines)
	}
	for _, m := range slices.Concat(grubModules, grubRAID) {
		if slices.Contains([]string{"minicmd", "cat", "ls", "hexdump", "memrw", "memdisk", "loopback", "password", "password_pbkdf2", "crypto", "chain", "net", "tftp", "http"}, m) {
			t.Errorf("core.img has %s", m)
		}
	}
}
