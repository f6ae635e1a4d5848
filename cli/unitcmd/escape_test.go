package unitcmd

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"gprovision/unit/state"
)

// TestNoVerbDrivesTheTerminal puts texts of somebody evil into every file of the running system and of the recovery volume that a verb
// reads: nothing that drives a terminal may come out, and no line that such a text begins.
func TestNoVerbDrivesTheTerminal(t *testing.T) {
	const evil = "\x1b]0;x\a\x1b[2J\u009b2J\revil\nFORGED good"
	in, err := json.Marshal(evil)
	if err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	base := []string{"etc/provisioning/serial", "etc/provisioning/platform_facts.json", "etc/provisioning/network.json", "etc/fstab", "boot.normal", "boot/norm_boot", state.BootFile, state.PolicyFile,
		"sys/class/watchdog/watchdog0/state", "mnt/RECOVERY/state/unit.json", "mnt/RECOVERY/state/count.json", "mnt/RECOVERY/state/request.json", "mnt/RECOVERY/state/pending.json",
		"mnt/RECOVERY/" + state.HistoryFile, "mnt/RECOVERY/" + state.RestoreDataFile, "etc/systemd/network/10.network", "new.upd", "new.upd.minisig"}
	if err := errors.Join(os.MkdirAll(filepath.Join(f.root, "mnt/RECOVERY", state.ImageDir), 0o700),
		os.WriteFile(filepath.Join(f.root, "mnt/RECOVERY", state.ImageDir, "WIDGET"+strings.ReplaceAll(evil, "/", "")+".upd"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	verbs := [][]string{{"status"}, {"status", "--json"}, {"boot-ok"}, {"restore", "--yes"}, {"restore", "--yes", "--image", evil}, {"restore", "--cancel"}, {"restore", "--yes", "--boot-args", evil},
		{"fetch", filepath.Join(f.root, "new.upd")}, {"fetch", evil}, {"save-network"}, {"systemd-unit", evil}, {"install", "--root", f.root, "--program", filepath.Join(f.root, "new.upd")}}
	shown := ""
	for _, content := range []string{evil, `{"DevCodeName":` + string(in) + `,"Release":` + string(in) + `,"serial":` + string(in) + `,"version":1,"job":` + string(in) + `}`} {
		for _, name := range base {
			before, err := os.ReadFile(filepath.Join(f.root, name))
			f.put(t, name, content)
			for _, args := range verbs {
				f.run(args...)
				out := f.out.String() + f.err.String()
				shown += out
				for _, r := range out {
					if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
						t.Errorf("%q with %s prints %q: %q", args, name, r, out)
						break
					}
				}
				if strings.HasPrefix(out, "FORGED") || strings.Contains(out, "\nFORGED") {
					t.Errorf("%q with %s lets a file begin a line: %s", args, name, out)
				}
			}
			if err == nil {
				f.put(t, name, string(before))
			} else if err := os.RemoveAll(filepath.Join(f.root, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !strings.Contains(shown, "evil") {
		t.Error("nothing of it was ever shown")
	}
}
