package provision

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/hw/host"
	"gprovision/hw/partition"
	"gprovision/model/layout"
	"gprovision/model/naming"
	"gprovision/model/platform"
	"gprovision/model/policy"
	"gprovision/site"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// TestKeyWhateverLabel: a unit that is provisioned again finds its key on its recovery volume also where the artifact calls such a volume
// otherwise. Without it the server would give it no credentials. What has another label may be anybody's: nothing is written to it.
func TestKeyWhateverLabel(t *testing.T) {
	if _, err := exec.LookPath("mke2fs"); err != nil {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal(err)
		}
		t.Skip("mke2fs is not installed (Debian package e2fsprogs)")
	}
	j, log := testJob(t, policy.Policy{})
	j.Identity.Variant = platform.Variant{DevCodeName: "VIRT"}
	j.Identity.Variant.RecoveryMedia.Bus = []platform.Bus{platform.Virtio}
	acme := j.Site.Names.Of(naming.Names{RecoveryLabel: "ACMEREC"})

	// A disk with its table, and its volume as a file of its own.
	const size = 1200 * layout.MiB
	dir := t.TempDir()
	disk, part := filepath.Join(dir, "vda"), filepath.Join(dir, "vda2")
	table, err := layout.ForRecovery(layout.UEFI, layout.Device{Size: size, SectorSize: 512}, layout.Labels{Recovery: acme.Recovery, Primary: acme.Primary}, machine.NewIDs())
	if err != nil {
		t.Fatal(err)
	}
	volume := *table.Find(layout.Recovery)
	for path, n := range map[string]int64{disk: size, part: volume.Size} {
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, n)); err != nil {
			t.Fatal(err)
		}
	}
	open := func(path string, write bool) *block.Device {
		d, err := block.OpenImage(path, write, 512)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := open(disk, true)
	if err := errors.Join(partition.Write(d, table), d.Close(), filesystem.MakeExt4(t.Context(), host.Runner(j.Log), part, volume.FSLabel, volume.FSUUID)); err != nil {
		t.Fatal(err)
	}
	var options []string
	j.Doors = machine.Doors{
		List: func() ([]block.Disk, error) {
			return []block.Disk{{Name: "vda", Path: disk, Bus: block.VirtIO, Size: size, SectorSize: 512,
				Partitions: []block.Partition{{Number: volume.Number, Start: volume.Start, Size: volume.Size, Path: part}}}}, nil
		},
		Open: func(path string, how machine.Access) (machine.Device, error) {
			return open(path, how != machine.Read), nil
		},
		Mount: func(_, _, _ string, o host.MountOptions) error {
			if !o.ReadOnly {
				t.Error("it is mounted writable")
			}
			options = append(options, o.Data)
			return nil
		},
		Unmount: func(string) error { return nil },
		Places:  machine.Places{Recovery: filepath.Join(dir, "content")},
	}
	key := state.NewKey()
	if err := errors.Join(os.Mkdir(j.Places.Recovery, 0o700), state.Open(j.Places.Recovery).WriteKeyOf(key, j.Serial)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, data string
		names      site.Names
	}{{"its own label", "", acme}, {"another label", "noload", site.Stock().Names}} {
		j.Site.Names, j.env.Key, options = c.names, nil, nil
		if err := j.findKey(t.Context()); err != nil || !j.env.Key.Equal(key) || len(options) != 1 || options[0] != c.data {
			t.Errorf("%s: mounted with %q, %v; log:\n%s", c.what, options, err, log)
		}
	}
	j.env.Key, j.Serial = nil, "S2"
	if err := j.findKey(t.Context()); err != nil || j.env.Key != nil {
		t.Errorf("another unit has the key too: %v", err)
	}
}
