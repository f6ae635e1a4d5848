package filesystem_test

import (
	"fmt"
	"os"
	"testing"

	"gprovision/hw/filesystem"
)

// TestExtCopy: what is left of an ext4 whose first superblock is lost, by kinds of loss.
func TestExtCopy(t *testing.T) {
	needTool(t, "mke2fs")
	const size = 200 << 20
	for name, c := range map[string]struct {
		zero        []int64 // bytes where 1024 zeros are written
		flip        int64   // a byte that is changed
		sound, copy bool
	}{
		"whole":                    {sound: true, copy: true},
		"first superblock is gone": {zero: []int64{1024}, copy: true},
		"first superblock changed": {flip: 1024 + 0x78, copy: true}, // the label
		"copy is gone":             {zero: []int64{32768 * 4096}, sound: true},
		"copy changed":             {flip: 32768*4096 + 0x68, sound: true},
		"both are gone":            {zero: []int64{1024, 32768 * 4096}},
	} {
		t.Run(name, func(t *testing.T) {
			f := sparseFile(t, size)
			if err := filesystem.MakeExt4(t.Context(), runTool, f.Name(), label, id); err != nil {
				t.Fatal(err)
			}
			for _, at := range c.zero {
				write(t, f, make([]byte, 1024), at)
			}
			if c.flip != 0 {
				b := make([]byte, 1)
				if _, err := f.ReadAt(b, c.flip); err != nil {
					t.Fatal(err)
				}
				write(t, f, []byte{b[0] ^ 1}, c.flip)
			}
			sound, err := filesystem.SoundExt4(f)
			if err != nil || sound != c.sound {
				t.Errorf("sound: %t, %v", sound, err)
			}
			info, ok, err := filesystem.ExtCopy(f, size)
			if err != nil || ok != c.copy {
				t.Errorf("copy: %t, %v", ok, err)
			}
			if ok && (info.Label != label || info.UUID != id) {
				t.Errorf("copy says %+v", info)
			}
		})
	}
	if _, ok, err := filesystem.ExtCopy(sparseFile(t, 1<<20), 1<<20); ok || err != nil {
		t.Errorf("a device without room for a copy: %t, %v", ok, err)
	}
	if _, err := filesystem.SoundExt4(bad{at: 1500}); err == nil {
		t.Error("a superblock that cannot be read gives no error")
	}
	if _, _, err := filesystem.ExtCopy(bad{at: 32768*4096 + 5}, size); err == nil {
		t.Error("a copy that cannot be read gives no error")
	}
}

func write(t *testing.T, f *os.File, b []byte, at int64) {
	t.Helper()
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(fmt.Errorf("damage the image: %w", err))
	}
}
