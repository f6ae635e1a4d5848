//go:build soak

package lab_test

import (
	"os"
	"path/filepath"
	"testing"

	"gprovision/lab"
	"gprovision/model/layout"
)

// TestSoakOtherMainboard puts the disks of a unit on a mainboard with another serial number, and an empty memory for boot entries. The
// complete system starts without its recovery volume. A restore waits for a person, who adopts the mainboard; then the unit is whole.
func TestSoakOtherMainboard(t *testing.T) {
	t.Parallel()
	for _, fw := range []layout.Firmware{layout.UEFI, layout.BIOS} {
		t.Run(string(fw), func(t *testing.T) {
			l := needLife(t)
			u := l.fork(t, network(t), fw, func(c *lab.Config) { c.SMBIOS.Serial = "SN-NEWBOARD" })
			if fw == layout.UEFI {
				empty, err := os.ReadFile("/usr/share/OVMF/OVMF_VARS_4M.fd")
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(u.Dir, "vars.fd"), empty, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			start(t, u)
			whole(t, up(t, u), "2")
			other := lab.All(lab.Field("code", "G217"),
				lab.Msg("the recovery volume is of a unit with another mainboard: the unit starts without it"))
			seen(t, u, 1, other, "another mainboard")
			again(t, u, "") // its mark is lost
			at := len(u.Console())
			expect(t, u, bootPatience, lab.All(lab.Msg("hold"), lab.Field("code", "G217")))
			seen(t, u, 0, jobState("restore", "started"), "restore")

			h := &consoleHand{u: u, at: at, key: func(t *testing.T, k string) {
				keys(t, u, map[string]string{"down": down, "ret": enter, "spc": "x"}[k])
			}}
			h.key(t, "spc")
			h.choose(t, "Menu", "Adopt mainboard")
			h.choose(t, "Adopt mainboard", "Yes")
			whole(t, up(t, u), "2")
			seen(t, u, 1, lab.Msg("another mainboard was adopted"), "adopted")
			seen(t, u, 1, jobState("restore", "succeeded"), "restore")

			if err := u.Tell(map[string]any{"do": "reboot"}); err != nil {
				t.Fatal(err)
			}
			whole(t, up(t, u), "2")
			seen(t, u, 1, other, "another mainboard")
			seen(t, u, 1, jobState("restore", "started"), "restore")
		})
	}
}
