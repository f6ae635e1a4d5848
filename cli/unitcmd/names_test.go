package unitcmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gprovision/hw/host"
)

// TestOwnNames: the running system goes by the names that the restore has left in it; it finds the recovery volume where fstab has it.
func TestOwnNames(t *testing.T) {
	f := newFake(t)
	if err := os.Rename(filepath.Join(f.root, "mnt/RECOVERY"), filepath.Join(f.root, "mnt/ACMEREC")); err != nil {
		t.Fatal(err)
	}
	f.System.Mounts = func() ([]host.MountInfo, error) {
		return []host.MountInfo{{Target: filepath.Join(f.root, "mnt/ACMEREC"), Source: "/dev/vdb2", ReadOnly: true}}, nil
	}
	f.put(t, "etc/provisioning/names.json", `{"version": 1, "recoveryLabel": "ACMEREC", "imagePrefix": "ACME.LNX.FOX."}`)
	if code := f.run("status"); code != 0 || !strings.Contains(f.out.String(), "/dev/vdb2, read-only") || f.err.Len() > 0 {
		t.Errorf("exit status %d:\n%s%s", code, f.out.String(), f.err.String())
	}
	if n := f.Site.Names; n.ImagePrefix != "ACME.LNX.FOX." || n.Mark != "boot.normal" {
		t.Errorf("names are %+v", n)
	}
	// Names that cannot be used are said, and the defaults do what they can.
	f = newFake(t)
	f.put(t, "etc/provisioning/names.json", `{"version": 1, "recoveryLabel": "../../etc"}`)
	if code := f.run("status"); code != 0 || !strings.Contains(f.out.String(), "/dev/vdb2, read-only") || !strings.Contains(f.err.String(), "warning: the unit's names cannot be read") {
		t.Errorf("exit status %d:\n%s%s", code, f.out.String(), f.err.String())
	}
}
