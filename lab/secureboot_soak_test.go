//go:build soak

package lab_test

import (
	"strings"
	"testing"

	"gprovision/lab"
)

// TestSoakLifeSecureBoot is the life of a unit whose boot artifact is signed and locked: it takes no kernel argument but its own. Then its
// main disk's artifact is changed: the firmware refuses it, and the recovery device starts the unit and repairs it.
func TestSoakLifeSecureBoot(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	u := l.secure(t, network(t))
	took, err := live(u)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", strings.Join(took, ", "))
	e := up(t, u)
	whole(t, e, "2")
	if got := strings.TrimSpace(e.Text("cmdline")); got != l.tiny.Policy.BootArgs {
		t.Errorf("the kernel was started with %q, want %q", got, l.tiny.Policy.BootArgs)
	}
	// Inside the artifact: it begins behind the tables of the main disk's ESP, and has more than 20 MiB.
	tell(t, u, map[string]any{"do": "patch", "path": "/dev/vdb1", "text": "changed", "at": 10 << 20})
	if err := u.Tell(map[string]any{"do": "reboot"}); err != nil {
		t.Fatal(err)
	}
	mended := lab.Msg("boot files of the main disk are right")
	if _, err := await(u, bootPatience, mended); err != nil {
		t.Fatal(err)
	}
	up(t, u)
	if err := u.Tell(map[string]any{"do": "reboot"}); err != nil {
		t.Fatal(err)
	}
	up(t, u)
	seen(t, u, 1, mended, "repair")
	seen(t, u, 1, jobState("restore", "started"), "restore")
}
