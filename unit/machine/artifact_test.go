package machine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gprovision/model/bootimage"
	"gprovision/unit/image/imagetest"
)

// uki returns a unified kernel image with a build number, around the smallest stub.
func uki(t *testing.T, build int, initrd string) []byte {
	t.Helper()
	const pe, opt = 0x80, 0x80 + 24
	const table = opt + 112 + 16*8
	stub := make([]byte, 1024+512)
	copy(stub, "MZ")
	binary.LittleEndian.PutUint32(stub[60:], pe)
	copy(stub[pe:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(stub[pe+4:], 0x8664)
	binary.LittleEndian.PutUint16(stub[pe+6:], 1)
	binary.LittleEndian.PutUint16(stub[pe+20:], 112+16*8)
	binary.LittleEndian.PutUint16(stub[opt:], 0x20b)
	binary.LittleEndian.PutUint32(stub[opt+32:], 4096)
	binary.LittleEndian.PutUint32(stub[opt+36:], 512)
	binary.LittleEndian.PutUint32(stub[opt+56:], 8192)
	binary.LittleEndian.PutUint32(stub[opt+60:], 1024)
	binary.LittleEndian.PutUint32(stub[opt+108:], 16)
	copy(stub[table:], ".text")
	binary.LittleEndian.PutUint32(stub[table+8:], 100)
	binary.LittleEndian.PutUint32(stub[table+12:], 4096)
	binary.LittleEndian.PutUint32(stub[table+16:], 512)
	binary.LittleEndian.PutUint32(stub[table+20:], 1024)
	var b bytes.Buffer
	err := bootimage.WriteUKI(&b, stub, []bootimage.Part{
		{Name: bootimage.SectionOSRel, Data: fmt.Appendf(nil, "BUILD_ID=%d\n", build)},
		{Name: bootimage.SectionInitrd, Data: []byte(initrd)},
		{Name: bootimage.SectionLinux, Data: imagetest.BzImage(1, "kernel")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func put(t *testing.T, path string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadArtifact(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		file []byte
		want Artifact
	}{
		"uki":     {uki(t, 42, "initrd"), Artifact{Build: 42}},
		"bzImage": {imagetest.BzImage(300, ""), Artifact{Build: 300, Monolithic: true}},
	} {
		if got, err := ReadArtifact(put(t, filepath.Join(dir, name), c.file)); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if err := os.Symlink("uki", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "text"), []byte("no artifact"))
	for _, name := range []string{"link", "fifo", "text", "missing", "."} {
		if _, err := ReadArtifact(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestUnpackArtifact(t *testing.T) {
	volume := t.TempDir()
	src := filepath.Join(t.TempDir(), "norm_boot")
	read := func(rel string) string {
		b, err := os.ReadFile(filepath.Join(volume, rel))
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	kernel, initrd, err := unpackArtifact(volume, put(t, src, uki(t, 7, "the initramfs")))
	if err != nil {
		t.Fatal(err)
	}
	if read(kernel) != string(imagetest.BzImage(1, "kernel")) || read(initrd) != "the initramfs" {
		t.Error("kernel and initramfs of the unified kernel image are other ones")
	}
	whole := imagetest.BzImage(7, "the initramfs is inside")
	kernel, initrd, err = unpackArtifact(volume, put(t, src, whole))
	if err != nil {
		t.Fatal(err)
	}
	if read(kernel) != string(whole) || initrd != "" {
		t.Errorf("a bzImage is not its own kernel, or has the initramfs %q", initrd)
	}
}

func TestUpdateRecovery(t *testing.T) {
	mono := imagetest.BzImage
	for _, c := range []struct {
		name       string
		own, fresh []byte
		replaced   bool
		say        string
		untrusted  bool
	}{
		{"higher", uki(t, 7, "a"), uki(t, 8, "b"), true, "", false},
		{"lower", uki(t, 8, "a"), uki(t, 7, "b"), false, "", false},
		{"equal", uki(t, 7, "a"), uki(t, 7, "a"), false, "", false},
		{"equal number, other content", uki(t, 7, "a"), uki(t, 7, "b"), false, "same build number and different content", false},
		{"bzImage, higher", mono(7, "a"), mono(8, "b"), true, "", false},
		{"bzImage, lower", mono(8, "a"), mono(7, "b"), false, "", false},
		{"bzImage, equal number, other content", mono(7, "a"), mono(7, "b"), false, "same build number and different content", false},
		{"other form, higher", uki(t, 7, "a"), mono(8, "b"), true, "", false},
		{"unreadable", []byte("damaged"), uki(t, 1, "b"), true, "cannot be read", false},
		{"missing", nil, uki(t, 1, "b"), true, "cannot be read", false},
		{"higher, and nothing vouches for it", uki(t, 7, "a"), uki(t, 8, "b"), false, "the recovery artifact stays", true},
		{"bzImage, higher, and nothing vouches for it", mono(7, "a"), mono(8, "b"), false, "the recovery artifact stays", true},
		{"unreadable, and nothing vouches for the other", []byte("damaged"), uki(t, 1, "b"), true, "cannot be read", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			own, fresh := filepath.Join(dir, "own"), put(t, filepath.Join(dir, "fresh"), c.fresh)
			if c.own != nil {
				put(t, own, c.own)
			}
			var log strings.Builder
			got, err := UpdateRecovery(slog.New(slog.NewTextHandler(&log, nil)), own, fresh, !c.untrusted)
			if err != nil || got != c.replaced || !strings.Contains(log.String(), c.say) || c.say == "" && log.Len() > 0 {
				t.Errorf("replaced %v, %v, log %s", got, err, log.String())
			}
			want := c.own
			if c.replaced {
				want = c.fresh
			}
			if b, err := os.ReadFile(own); err != nil || !bytes.Equal(b, want) {
				t.Errorf("the recovery artifact has %d bytes, want %d: %v", len(b), len(want), err)
			}
		})
	}
	dir := t.TempDir()
	own := put(t, filepath.Join(dir, "own"), uki(t, 7, "a"))
	none := put(t, filepath.Join(dir, "fresh"), []byte("no artifact"))
	if _, err := UpdateRecovery(slog.New(slog.DiscardHandler), own, none, true); err == nil {
		t.Error("what is no artifact becomes the recovery artifact")
	}
}
