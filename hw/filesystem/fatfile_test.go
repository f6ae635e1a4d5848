package filesystem_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/model/layout"
)

// TestPutFAT32 has fsck.fat and mtools look at a file in two directories.
func TestPutFAT32(t *testing.T) {
	for _, name := range []string{"fsck.fat", "mcopy"} {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("GPROV_NO_SKIP") == "1" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	path := filepath.Join(t.TempDir(), "fat")
	p := layout.Partition{Number: 1, Size: 64 << 20, FSLabel: "ESP", FSUUID: "1234-ABCD"}
	made := func(size int64) *block.Device {
		p.Size = size
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		d, err := block.OpenImage(path, true, 512)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		if err := filesystem.MakeFAT32(d, p); err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, size := range []int64{35 << 20, 64 << 20, 300 << 20} {
		d := made(size)
		for _, n := range []int{1, 511, 512, 513, 5_000_001} {
			d = made(size)
			content := bytes.Repeat([]byte{byte(n)}, n)
			if err := filesystem.PutFAT32(d, p, "EFI/BOOT/BOOTX64.EFI", content); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("fsck.fat", "-n", path).CombinedOutput(); err != nil {
				t.Errorf("%d bytes in %d: fsck.fat: %v\n%s", n, size, err, out)
			}
			out, err := exec.Command("mcopy", "-i", path, "::/EFI/BOOT/BOOTX64.EFI", "-").Output()
			if err != nil || !bytes.Equal(out, content) {
				t.Errorf("%d bytes in %d: mcopy gives %d bytes, %v", n, size, len(out), err)
			}
		}
		if err := filesystem.PutFAT32(d, p, "A/B", []byte("x")); err == nil || !strings.Contains(err.Error(), "already") {
			t.Errorf("a second file: %v", err)
		}
	}
	d := made(35 << 20)
	for name, content := range map[string][]byte{"BIG": make([]byte, 35<<20), "EMPTY": nil, "lower": {1}, "A/../B": {1}, "TOOLONGNAME": {1}, "": {1}} {
		if err := filesystem.PutFAT32(d, p, name, content); err == nil {
			t.Errorf("%q with %d bytes was written", name, len(content))
		}
	}
}
