package machine

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/unit/state"
)

func TestMainArgs(t *testing.T) {
	u := state.Unit{Main: []state.Disk{{Table: layout.Table{Partitions: []layout.Partition{{Role: layout.Primary, UUID: "0011"}}}}}}
	for name, tc := range map[string]struct {
		policy policy.Policy
		unit   string
		want   string
	}{
		"none":          {policy.Policy{BootArgs: "quiet"}, "", "quiet real_root=PARTUUID=0011"},
		"of the list":   {policy.Policy{BootArgs: "quiet"}, "nomodeset iommu=off init=/bin/sh", "quiet nomodeset real_root=PARTUUID=0011"},
		"nothing left":  {policy.Policy{}, "iommu=off", "real_root=PARTUUID=0011"},
		"policy's stay": {policy.Policy{BootArgs: "panic=10 console=tty0"}, "panic=900 console=ttyS0", "panic=10 console=tty0 console=ttyS0 real_root=PARTUUID=0011"},
		"locked":        {policy.Policy{BootArgs: "quiet", Locked: true}, "nomodeset console=ttyS0", "quiet real_root=PARTUUID=0011"},
	} {
		u.BootArgs = tc.unit
		if got := (&Machine{Policy: tc.policy}).MainArgs(u); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}

func TestPutFileFollowsNoLink(t *testing.T) {
	dir, other := t.TempDir(), filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("not ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "norm_boot")
	for _, link := range []string{path, path + ".new"} {
		if err := os.Symlink(other, link); err != nil {
			t.Fatal(err)
		}
	}
	if err := Regular(path); err == nil {
		t.Error("a link counts as a regular file")
	}
	if _, err := PutFile(path, 0o600, bytes.NewReader([]byte("artifact"))); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(other); err != nil || string(b) != "not ours" {
		t.Errorf("the file behind the link holds %q, %v", b, err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "artifact" || Regular(path) != nil {
		t.Errorf("the file holds %q, %v", b, err)
	}
	if _, err := os.Lstat(path + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the new name is left behind: %v", err)
	}
}

// swapping replaces the file being written while its source is read. So the device returns other data than was
// written.
type swapping struct {
	io.Reader
	path string
}

func (s swapping) Read(b []byte) (int, error) {
	if err := errors.Join(os.Remove(s.path), os.WriteFile(s.path, []byte("artifacT"), 0o600)); err != nil {
		return 0, err
	}
	return s.Reader.Read(b)
}

func TestPutFileReadsBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "norm_boot")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := PutFile(path, 0o600, swapping{strings.NewReader("artifact"), path + ".new"}); fault.Of(err) != fault.ReadBack {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "old" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}

func TestMakeDirReplacesLinks(t *testing.T) {
	volume, outside := t.TempDir(), t.TempDir()
	keep := filepath.Join(outside, "gprov", "data")
	if err := os.MkdirAll(keep, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(volume, "boot")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := MakeDir(volume, "boot/gprov/0011"); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeOtherArtifacts(filepath.Join(volume, BootDir), "0011"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(keep); err != nil {
		t.Errorf("a directory outside of the volume was changed: %v", err)
	}
	if st, err := os.Lstat(filepath.Join(volume, "boot", "gprov", "0011")); err != nil || !st.IsDir() {
		t.Errorf("the directory is not on the volume: %v", err)
	}
}

// TestOnlyTable: what an interrupted restore leaves is told apart from somebody else's data.
func TestOnlyTable(t *testing.T) {
	gpt := layout.Table{Kind: layout.GPT, UUID: "11111111-2222-4333-8444-555555555555"}
	mbr := layout.Table{Kind: layout.MBR, UUID: "deadbeef"}
	own := filesystem.Info{Type: "gpt", Class: filesystem.Table, UUID: gpt.UUID}
	protective := filesystem.Info{Type: "mbr", Class: filesystem.Table, UUID: "00000000"}
	ext4 := filesystem.Info{Type: "ext4", Class: filesystem.FS}
	for _, tc := range []struct {
		name string
		all  []filesystem.Info
		t    layout.Table
		want bool
	}{
		{"nothing", nil, gpt, true},
		{"one copy of the table", []filesystem.Info{own}, gpt, true},
		{"the whole table", []filesystem.Info{own, own, protective}, gpt, true},
		{"another table", []filesystem.Info{{Type: "gpt", Class: filesystem.Table, UUID: "21111111-2222-4333-8444-555555555555"}, protective}, gpt, false},
		{"an MBR", []filesystem.Info{{Type: "mbr", Class: filesystem.Table, UUID: "00000001"}}, gpt, false},
		{"the table and a filesystem", []filesystem.Info{own, ext4}, gpt, false},
		{"a filesystem", []filesystem.Info{ext4}, gpt, false},
		{"own MBR", []filesystem.Info{{Type: "mbr", Class: filesystem.Table, UUID: "deadbeef"}}, mbr, true},
		{"another MBR", []filesystem.Info{{Type: "mbr", Class: filesystem.Table, UUID: "deadbee0"}}, mbr, false},
		{"a GPT where an MBR was", []filesystem.Info{own, protective}, mbr, false},
	} {
		if got := onlyTable(tc.all, tc.t); got != tc.want {
			t.Errorf("%s: %t", tc.name, got)
		}
	}
}

func TestCheckRecovery(t *testing.T) {
	onDisk := func() layout.Table {
		return layout.Table{Kind: layout.GPT, UUID: "d", Partitions: []layout.Partition{
			{Number: 1, Start: layout.MiB, Size: layout.ESPSize, Type: layout.TypeESP, UUID: "a"},
			{Number: 2, Start: 600 * layout.MiB, Size: layout.GiB, Type: layout.TypeLinux, UUID: "b"},
		}}
	}
	recorded := func(change func(*layout.Table)) layout.Table {
		r := onDisk()
		r.Partitions[0].Role, r.Partitions[1].Role = layout.ESP, layout.Recovery
		change(&r)
		return r
	}
	for _, tc := range []struct {
		name   string
		fw     layout.Firmware
		change func(*layout.Table)
		ok     bool
	}{
		{"as it is", layout.UEFI, func(*layout.Table) {}, true},
		{"no ESP", layout.UEFI, func(r *layout.Table) { r.Partitions[0].Role = layout.Other }, false},
		{"no ESP on BIOS", layout.BIOS, func(r *layout.Table) { r.Partitions[0].Role = layout.Other }, true},
		{"the volume as ESP", layout.UEFI, func(r *layout.Table) {
			r.Partitions[0].Role, r.Partitions[1].Role = layout.Recovery, layout.ESP
		}, false},
		{"another number", layout.UEFI, func(r *layout.Table) { r.Partitions[0].Number = 3 }, false},
		{"another place", layout.BIOS, func(r *layout.Table) { r.Partitions[1].Start += layout.MiB }, false},
		{"a partition more", layout.UEFI, func(r *layout.Table) { r.Partitions = append(r.Partitions, r.Partitions[0]) }, false},
		{"another kind", layout.BIOS, func(r *layout.Table) { r.Kind = layout.MBR }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := checkRecovery(tc.fw, recorded(tc.change), onDisk()); (err == nil) != tc.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}
