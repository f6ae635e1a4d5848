package pid1

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"gprovision/hw/block"
	"gprovision/hw/durable"
	"gprovision/hw/host"
	"gprovision/model/layout"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
)

// TestClearedMark: a mark that was removed and synced is gone, also where a power cut came before the filesystem wrote it to its place.
// Until
// the journal is replayed the mark is still seen: then nothing may be concluded from it.
func TestClearedMark(t *testing.T) {
	machinetest.OwnMounts(t)
	u := testUnit(t, &bytes.Buffer{})
	main, rec := mainDisk(t, u)
	recovery, _ := recoveryDisk(t, u, rec)
	part := func(dev string) string { return block.PartitionPath(dev, rec.Table.Find(layout.Primary).Number) }
	if err := u.m.Mount(part(main), u.m.Places.Main, "ext4", host.MountOptions{}); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(u.m.Places.Main)
	if err == nil {
		err = errors.Join(durable.RemoveIn(root, u.m.Site.Names.Mark), root.Close()) // it syncs the directory, and nothing else
	}
	if err != nil {
		t.Fatal(err)
	}
	cut := machinetest.AfterCut(t, main)
	if err := u.m.Unmount(u.m.Places.Main); err != nil {
		t.Fatal(err)
	}

	eyes := machine.EyesOf(u.m)
	if err := eyes.Mount(part(cut), u.m.Places.Main, "ext4"); err != nil {
		t.Fatal(err)
	}
	_, seen := os.Lstat(u.m.Places.Main + "/" + u.m.Site.Names.Mark)
	if err := eyes.Unmount(u.m.Places.Main); err != nil {
		t.Fatal(err)
	}
	if seen != nil {
		t.Fatalf("the filesystem has written its journal to its place already, nothing is shown here: %v", seen)
	}

	u.m.List = func() ([]block.Disk, error) { return block.List(machinetest.VirtIO(t, cut, recovery)) }
	first := u.surveyor().Look(t.Context())
	if len(first.Replay) != 1 || first.Replay[0] != part(cut) || first.Main == decide.MainMarked {
		t.Errorf("before the replay: main %s, to be replayed %q; notes %q", first.Main, first.Replay, first.Notes)
	}
	f := u.look(t.Context())
	if f.Recovery != decide.RecoveryFound || f.Main != decide.MainUnmarked {
		t.Errorf("found %s and %s; notes %q", f.Recovery, f.Main, f.Notes)
	}
	if d := decide.Decide(f.Facts, u.m.Policy); d.Job != decide.Restore {
		t.Errorf("%s, want a restore", d)
	}
}
