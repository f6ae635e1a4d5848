package bootloader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"gprovision/model/layout"
)

// disk is a disk in memory that may lose power after some writes.
type disk struct {
	b      []byte
	sector int
	writes int // left; negative: no end
	lies   bool
}

var errPower = errors.New("power is gone")

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, d.b[off:])
	if d.lies {
		p[0] ^= 1
	}
	return n, nil
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	if d.writes == 0 {
		return 0, errPower
	}
	d.writes--
	return copy(d.b[off:], p), nil
}

func (d *disk) SectorSize() int { return d.sector }
func (d *disk) Sync() error     { return nil }

func newDisk() *disk {
	d := &disk{b: make([]byte, 4<<20), sector: 512, writes: -1}
	copy(d.b[codeEnd:], bytes.Repeat([]byte{0xcc}, 70))
	d.b[510], d.b[511] = 0x55, 0xaa
	return d
}

func images(core byte) Images {
	boot := make([]byte, 512)
	boot[510], boot[511], boot[driveCheck], boot[0] = 0x55, 0xaa, 0xeb, 0xee
	c := bytes.Repeat([]byte{core}, 100*512-3)
	binary.LittleEndian.PutUint16(c[blocklistAt+10:], loadSegment)
	return Images{Boot: boot, Core: c}
}

var (
	mbrTable = layout.Table{Kind: layout.MBR, Partitions: []layout.Partition{{Number: 1, Start: layout.MiB, Size: 2 * layout.MiB}}}
	gptTable = layout.Table{Kind: layout.GPT, Partitions: []layout.Partition{
		{Number: 1, Start: layout.MiB, Size: layout.MiB, Type: layout.TypeBIOSBoot}, {Number: 2, Start: 2 * layout.MiB, Size: layout.MiB}}}
)

func TestInstall(t *testing.T) {
	for _, c := range []struct {
		name          string
		table         layout.Table
		first, second uint64 // places of core.img, sectors
	}{
		{"MBR", mbrTable, 1, 1 + 2047/2},
		{"GPT", gptTable, 2048, 2048 + 1024},
	} {
		d := newDisk()
		before := append([]byte(nil), d.b[codeEnd:512]...)
		if err := Verify(d, c.table, images(1)); err == nil {
			t.Errorf("%s: verified before it was installed", c.name)
		}
		for i, at := range []uint64{c.first, c.second, c.first} {
			im := images(byte(i + 1))
			if err := Install(d, c.table, im); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if err := Verify(d, c.table, im); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if got := binary.LittleEndian.Uint64(d.b[kernelAt:]); got != at {
				t.Errorf("%s: round %d leads to sector %d, want %d", c.name, i, got, at)
			}
			if got := binary.LittleEndian.Uint64(d.b[at*512+blocklistAt:]); got != at+1 {
				t.Errorf("%s: core.img goes on at %d, want %d", c.name, got, at+1)
			}
			if got := binary.LittleEndian.Uint16(d.b[at*512+blocklistAt+8:]); got != 99 {
				t.Errorf("%s: core.img has %d more sectors, want 99", c.name, got)
			}
		}
		if !bytes.Equal(d.b[codeEnd:512], before) {
			t.Errorf("%s: the partition table was touched", c.name)
		}
		d.b[c.first*512+5000] ^= 1
		if err := Verify(d, c.table, images(3)); err == nil {
			t.Errorf("%s: a damaged core.img was verified", c.name)
		}
	}
}

// TestPowerCut cuts the power before each write: what was installed before still verifies, or the new one does.
func TestPowerCut(t *testing.T) {
	for cut := range 3 {
		d := newDisk()
		if err := Install(d, mbrTable, images(1)); err != nil {
			t.Fatal(err)
		}
		d.writes = cut
		err := Install(d, mbrTable, images(2))
		if (err != nil) != (cut < 2) || err != nil && !errors.Is(err, errPower) {
			t.Fatalf("cut after %d writes: %v", cut, err)
		}
		if Verify(d, mbrTable, images(1)) != nil && Verify(d, mbrTable, images(2)) != nil {
			t.Errorf("cut after %d writes: the disk does not boot", cut)
		}
		d.writes = -1
		if err := Install(d, mbrTable, images(2)); err != nil {
			t.Fatal(err)
		}
		if err := Verify(d, mbrTable, images(2)); err != nil {
			t.Error(err)
		}
	}
}

func TestInstallRefuses(t *testing.T) {
	change := func(f func(*Images)) Images {
		im := images(1)
		f(&im)
		return im
	}
	small := layout.Table{Kind: layout.MBR, Partitions: []layout.Partition{{Start: 63 * 512}}}
	for _, c := range []struct {
		name  string
		disk  func(*disk)
		table layout.Table
		im    Images
		want  error
	}{
		{"4Kn", func(d *disk) { d.sector = 4096 }, mbrTable, images(1), ErrSectors},
		{"small gap", nil, small, images(1), ErrUnfit},
		{"no BIOS boot partition", nil, layout.Table{Kind: layout.GPT}, images(1), ErrUnfit},
		{"no table", nil, layout.Table{}, images(1), ErrUnfit},
		{"blank sector 0", func(d *disk) { d.b[510] = 0 }, mbrTable, images(1), ErrUnfit},
		{"short boot.img", nil, mbrTable, change(func(i *Images) { i.Boot = i.Boot[:440] }), ErrUnfit},
		{"foreign boot.img", nil, mbrTable, change(func(i *Images) { i.Boot[driveCheck] = 0 }), ErrUnfit},
		{"foreign core.img", nil, mbrTable, change(func(i *Images) { i.Core[blocklistAt+10] = 0 }), ErrUnfit},
		{"empty core.img", nil, mbrTable, change(func(i *Images) { i.Core = nil }), ErrUnfit},
		{"bad disk", func(d *disk) { d.lies = true }, mbrTable, images(1), ErrReadBack},
		{"write error", func(d *disk) { d.writes = 0 }, mbrTable, images(1), ErrDevice},
	} {
		d := newDisk()
		if c.disk != nil {
			c.disk(d)
		}
		if err := Install(d, c.table, c.im); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

// TestImagesOfDebian installs the boot.img of Debian's package, with a core.img made by its tool.
func TestImagesOfDebian(t *testing.T) {
	boot, err := os.ReadFile("/usr/lib/grub/i386-pc/boot.img")
	if err != nil {
		needs(t, "package grub-pc-bin")
	}
	out := filepath.Join(t.TempDir(), "core.img")
	if msg, err := exec.Command("grub-mkimage", "-O", "i386-pc", "-p", "/boot/grub", "-o", out, "biosdisk", "part_msdos", "ext2").CombinedOutput(); err != nil {
		needs(t, "grub-mkimage: "+string(msg))
	}
	core, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	d := newDisk()
	im := Images{Boot: boot, Core: core}
	if err := Install(d, gptTable, im); err != nil {
		t.Fatal(err)
	}
	if err := Verify(d, gptTable, im); err != nil {
		t.Error(err)
	}
}

func needs(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("GPROV_NO_SKIP") == "1" {
		t.Fatalf("needs %s", what)
	}
	t.Skipf("needs %s", what)
}
