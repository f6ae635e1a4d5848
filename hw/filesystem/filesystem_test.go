package filesystem_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gprovision/hw/filesystem"
	"gprovision/model/layout"
)

const (
	id    = "0badcafe-0123-4567-89ab-cdef00112233"
	label = "RECOVERY"
)

func needTool(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		skipTest(t, program+" is not installed")
	}
}

func skipTest(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("GPROV_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// runTool is a Runner that runs real programs.
func runTool(ctx context.Context, path string, args ...string) ([]byte, int, error) {
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	var x *exec.ExitError
	if errors.As(err, &x) && x.ExitCode() >= 0 {
		return out, x.ExitCode(), nil
	}
	return out, 0, err
}

// sparseFile makes a file of zeros.
func sparseFile(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	needTool(t, name)
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// blkid is what libblkid says of a file.
func blkid(t *testing.T, name string, offset int64) map[string]string {
	t.Helper()
	m := map[string]string{}
	for line := range strings.Lines(tool(t, "blkid", "-p", "-O", fmt.Sprint(offset), "-o", "export", name)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		m[k] = strings.ReplaceAll(v, "\\ ", " ")
	}
	return m
}

func TestExt4(t *testing.T) {
	needTool(t, filesystem.Mke2fs)
	needTool(t, filesystem.E2fsck)
	const size = 300 << 30
	f := sparseFile(t, size)
	start := time.Now()
	if err := filesystem.MakeExt4(t.Context(), runTool, f.Name(), label, id); err != nil {
		t.Fatal(err)
	}
	t.Logf("300 GiB in %v", time.Since(start))
	got, err := filesystem.Probe(f, size)
	if err != nil {
		t.Fatal(err)
	}
	if want := (filesystem.Info{Type: "ext4", Class: filesystem.FS, Label: label, UUID: id, Offset: 1024}); got != want {
		t.Errorf("%+v", got)
	}
	b := blkid(t, f.Name(), 0)
	if b["TYPE"] != "ext4" || b["LABEL"] != label || b["UUID"] != id || b["BLOCK_SIZE"] != "4096" {
		t.Errorf("blkid: %v", b)
	}
	if blank, why, err := filesystem.Blank(f, size); blank || err != nil || why != "ext4 signature at byte 1024" {
		t.Error(blank, why, err)
	}
	for _, bad := range [][2]string{{strings.Repeat("x", 17), id}, {label, "123"}} {
		if err := filesystem.MakeExt4(t.Context(), runTool, f.Name(), bad[0], bad[1]); err == nil {
			t.Errorf("%v accepted", bad)
		}
	}
	if err := filesystem.MakeExt4(t.Context(), runTool, f.Name()+"-none", label, id); err == nil {
		t.Error("a device that is not there was accepted")
	}
}

func TestCheckExt4(t *testing.T) {
	needTool(t, "debugfs")
	needTool(t, filesystem.Mke2fs)
	needTool(t, filesystem.E2fsck)
	const size = 1 << 30
	zero := func(at, n int64) func(*os.File) error {
		return func(f *os.File) error { _, err := f.WriteAt(make([]byte, n), at); return err }
	}
	for _, c := range []struct {
		name   string
		damage func(*os.File) error
		force  bool
		want   filesystem.State
		backup bool
	}{
		{name: "good", want: filesystem.Clean},
		{name: "good, forced", force: true, want: filesystem.Clean},
		{name: "not unmounted", want: filesystem.Repaired, force: true, damage: func(f *os.File) error { // wrong count of free blocks
			return debugfs(f.Name(), "set_super_value free_blocks_count 17")
		}},
		{name: "root directory gone", force: true, want: filesystem.Repaired, damage: func(f *os.File) error { return debugfs(f.Name(), "clri <2>") }},
		{name: "superblock gone", want: filesystem.Repaired, backup: true, damage: zero(0, 4096)},
		{name: "superblock and group descriptors gone", want: filesystem.Repaired, backup: true, damage: zero(0, 64<<10)},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := sparseFile(t, size)
			if err := filesystem.MakeExt4(t.Context(), runTool, f.Name(), label, id); err != nil {
				t.Fatal(err)
			}
			if c.damage != nil {
				if err := c.damage(f); err != nil {
					t.Fatal(err)
				}
			}
			got, err := filesystem.CheckExt4(t.Context(), runTool, f.Name(), c.force)
			if err != nil {
				t.Fatal(err)
			}
			if got.State != c.want || got.Backup != c.backup {
				t.Errorf("%s backup=%t\n%s", got.State, got.Backup, got.Output)
			}
			if out, err := exec.Command(filesystem.E2fsck, "-f", "-n", f.Name()).CombinedOutput(); err != nil {
				t.Errorf("e2fsck -n afterwards: %v\n%s", err, out)
			}
			if i, err := filesystem.Probe(f, size); err != nil || i.UUID != id {
				t.Errorf("%+v %v", i, err)
			}
		})
	}
	f := sparseFile(t, size)
	if got, err := filesystem.CheckExt4(t.Context(), runTool, f.Name(), false); err == nil {
		t.Errorf("an empty disk is %s", got.State)
	}
	if got, err := filesystem.CheckExt4(t.Context(), runTool, f.Name()+"-none", false); err == nil {
		t.Errorf("a missing device is %s", got.State)
	}
}

func debugfs(name, command string) error {
	out, err := exec.Command("debugfs", "-w", "-R", command, name).CombinedOutput()
	if err != nil {
		return fmt.Errorf("debugfs: %w: %s", err, out)
	}
	return nil
}

// TestCheckDecision plays every kind of exit status of e2fsck.
func TestCheckDecision(t *testing.T) {
	stop := errors.New("stopped")
	for _, c := range []struct {
		exits []int // -1 stands for a program that cannot be run
		want  filesystem.State
		fails bool
	}{
		{exits: []int{0}, want: filesystem.Clean},
		{exits: []int{1}, want: filesystem.Repaired},
		{exits: []int{3}, want: filesystem.Repaired},
		{exits: []int{4, 1}, want: filesystem.Repaired},
		{exits: []int{4, 4}, want: filesystem.Damaged},
		{exits: []int{5, 5}, want: filesystem.Damaged},
		{exits: []int{8, 1, 0}, want: filesystem.Repaired},
		{exits: []int{8, 1, 4}, want: filesystem.Damaged},
		{exits: []int{4, 12, 1, 1}, want: filesystem.Repaired},
		{exits: []int{8, 8}, fails: true},
		{exits: []int{16}, fails: true},
		{exits: []int{32}, fails: true},
		{exits: []int{128}, fails: true},
		{exits: []int{-1}, fails: true},
		{exits: []int{4, -1}, fails: true},
	} {
		n := 0
		run := func(context.Context, string, ...string) ([]byte, int, error) {
			if n == len(c.exits) {
				t.Fatalf("%v: e2fsck runs too often", c.exits)
			}
			n++
			if c.exits[n-1] < 0 {
				return nil, 0, stop
			}
			return []byte("output"), c.exits[n-1], nil
		}
		got, err := filesystem.CheckExt4(t.Context(), run, "/dev/x", false)
		if got.State != c.want || (err != nil) != c.fails || n != len(c.exits) {
			t.Errorf("%v: %q %v after %d runs", c.exits, got.State, err, n)
		}
	}
}

// image is a file as a filesystem.Device.
type image struct {
	*os.File
	size   int64
	sector int
}

func (i image) Size() int64     { return i.size }
func (i image) SectorSize() int { return i.sector }

func TestFAT32(t *testing.T) {
	for _, c := range []struct {
		start, size int64
		sector      int
	}{
		{0, layout.ESPSize, 512}, {0, layout.ESPSize, 4096}, {1 << 20, 40 << 20, 512}, {0, 300 << 20, 4096},
		{0, 270 << 30, 512}, // a FAT of more than 2^16 sectors
	} {
		t.Run(fmt.Sprintf("%d MiB %d", c.size>>20, c.sector), func(t *testing.T) {
			all := c.start + c.size + c.start
			f := sparseFile(t, all)
			// Old data must not shine through, and what is around must stay.
			old := bytes.Repeat([]byte("OLD DATA"), 1<<17)
			for at := int64(0); at < min(all, 8<<20); at += int64(len(old)) {
				f.WriteAt(old, at)
			}
			d := image{File: f, size: all, sector: c.sector}
			p := layout.Partition{Number: 1, Start: c.start, Size: c.size, FSLabel: "ESP", FSUUID: "1D1B-D1A2"}
			if err := filesystem.MakeFAT32(d, p); err != nil {
				t.Fatal(err)
			}
			around := make([]byte, c.start)
			if _, err := f.ReadAt(around, 0); err != nil || !bytes.Equal(around, old[:c.start]) {
				t.Errorf("data before the partition changed: %v", err)
			}
			if info, err := f.Stat(); err != nil || info.Size() != all {
				t.Errorf("size changed: %v", err)
			}
			head := make([]byte, 8*c.sector)
			if _, err := f.ReadAt(head, p.Start); err != nil || !bytes.Equal(head[:2*c.sector], head[6*c.sector:]) {
				t.Errorf("sectors 6 and 7 are no copies of 0 and 1: %v", err)
			}
			if at := binary.LittleEndian.Uint32(head[28:]); int64(at) != p.Start/int64(c.sector) {
				t.Errorf("it says that it begins at sector %d", at)
			}
			got, err := filesystem.Probe(io.NewSectionReader(f, p.Start, p.Size), p.Size)
			if want := (filesystem.Info{Type: "vfat", Class: filesystem.FS, Label: "ESP", UUID: "1D1B-D1A2"}); err != nil || got != want {
				t.Errorf("%+v %v", got, err)
			}
			part := f
			if c.start > 0 {
				part = sparseFile(t, p.Size)
				if _, err := io.Copy(part, io.NewSectionReader(f, p.Start, p.Size)); err != nil {
					t.Fatal(err)
				}
			}
			b := blkid(t, part.Name(), 0)
			if b["TYPE"] != "vfat" || b["LABEL"] != "ESP" || b["UUID"] != "1D1B-D1A2" || b["VERSION"] != "FAT32" {
				t.Errorf("blkid: %v", b)
			}
			out := tool(t, "fsck.vfat", "-n", "-v", part.Name())
			if strings.Contains(out, "uninitialized") || strings.Contains(out, "wrong") {
				t.Errorf("fsck.vfat: %s", out)
			}
			if !strings.Contains(out, fmt.Sprintf("%10d bytes per logical sector", c.sector)) {
				t.Errorf("sector size:\n%s", out)
			}
		})
	}
}

func TestFAT32Mtools(t *testing.T) {
	needTool(t, "mcopy")
	f := sparseFile(t, layout.ESPSize)
	if err := filesystem.MakeFAT32(image{f, layout.ESPSize, 512}, layout.Partition{Size: layout.ESPSize, FSLabel: "ESP", FSUUID: "0000-0001"}); err != nil {
		t.Fatal(err)
	}
	src := filepath.Join(t.TempDir(), "src")
	data := bytes.Repeat([]byte("boot"), 3<<20)
	if err := os.WriteFile(src, data, 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "mmd", "-i", f.Name(), "::/EFI", "::/EFI/BOOT")
	tool(t, "mcopy", "-i", f.Name(), src, "::/EFI/BOOT/BOOTX64.EFI")
	out, err := exec.Command("mtype", "-i", f.Name(), "::/EFI/BOOT/BOOTX64.EFI").Output()
	if err != nil || !bytes.Equal(out, data) {
		t.Errorf("read back %d bytes: %v", len(out), err)
	}
	tool(t, "fsck.vfat", "-n", f.Name())
}

func TestFAT32Refused(t *testing.T) {
	f := sparseFile(t, 512<<20)
	good := layout.Partition{Start: 1 << 20, Size: 400 << 20, FSLabel: "ESP", FSUUID: "1234-ABCD"}
	with := func(g func(*layout.Partition)) layout.Partition { p := good; g(&p); return p }
	for name, c := range map[string]struct {
		p      layout.Partition
		sector int
	}{
		"no serial":          {with(func(p *layout.Partition) { p.FSUUID = "" }), 512},
		"long serial":        {with(func(p *layout.Partition) { p.FSUUID = id }), 512},
		"lower case":         {with(func(p *layout.Partition) { p.FSLabel = "esp" }), 512},
		"not ASCII":          {with(func(p *layout.Partition) { p.FSLabel = "ÄSP" }), 512},
		"control character":  {with(func(p *layout.Partition) { p.FSLabel = "E\x01P" }), 512},
		"long label":         {with(func(p *layout.Partition) { p.FSLabel = "ABCDEFGHIJKL" }), 512},
		"too small":          {with(func(p *layout.Partition) { p.Size = 16 << 20 }), 512},
		"too small for 4096": {with(func(p *layout.Partition) { p.Size = 128 << 20 }), 4096},
		"too large":          {with(func(p *layout.Partition) { p.Start, p.Size = 0, 512<<32 }), 512},
		"outside":            {with(func(p *layout.Partition) { p.Start = 400 << 20 }), 512},
		"empty":              {with(func(p *layout.Partition) { p.Size = 0 }), 512},
		"sector size":        {good, 1024},
	} {
		written := &failing{image: image{f, max(512<<20, c.p.Size), c.sector}, left: 1 << 20}
		if err := filesystem.MakeFAT32(written, c.p); err == nil || written.left < 1<<20 {
			t.Errorf("%s: accepted, or written to before it was refused: %v", name, err)
		}
	}
}

// failing is an image whose writes fail after some.
type failing struct {
	image
	left int
}

var errFull = errors.New("no write is left")

func (f *failing) WriteAt(p []byte, off int64) (int, error) {
	if f.left--; f.left < 0 {
		return 0, errFull
	}
	return f.image.WriteAt(p, off)
}

// TestFAT32Fails lets each write fail. The error is told, and what the next try makes is the same as at the first.
func TestFAT32Fails(t *testing.T) {
	p := layout.Partition{Number: 1, Start: 1 << 20, Size: 40 << 20, FSLabel: "ESP", FSUUID: "1D1B-D1A2"}
	all := func(f *os.File) []byte {
		b := make([]byte, p.Size)
		if _, err := f.ReadAt(b, p.Start); err != nil {
			t.Fatal(err)
		}
		return b
	}
	whole := sparseFile(t, p.Start+p.Size)
	if err := filesystem.MakeFAT32(image{whole, p.Start + p.Size, 512}, p); err != nil {
		t.Fatal(err)
	}
	f := sparseFile(t, p.Start+p.Size)
	for n := 0; ; n++ {
		err := filesystem.MakeFAT32(&failing{image: image{f, p.Start + p.Size, 512}, left: n}, p)
		if err == nil {
			if n < 6 {
				t.Errorf("%d writes make a filesystem", n)
			}
			break
		}
		if !errors.Is(err, errFull) {
			t.Fatalf("after %d writes: %v", n, err)
		}
		if info, err := filesystem.Probe(io.NewSectionReader(f, p.Start, p.Size), p.Size); err != nil || info.Type != "" {
			t.Errorf("after %d writes it is taken for %+v", n, info)
		}
	}
	if !bytes.Equal(all(f), all(whole)) {
		t.Error("the same partition got other bytes")
	}
}

// TestProbeTools compares with blkid what real tools made.
func TestProbeTools(t *testing.T) {
	for _, c := range []struct {
		name string
		size int64
		make []string // %s is the file
		want filesystem.Info
	}{
		{"ext2", 64 << 20, []string{"/sbin/mke2fs", "-q", "-F", "-t", "ext2", "-L", "two", "-U", id, "%s"}, filesystem.Info{Type: "ext2", Label: "two", UUID: id, Offset: 1024}},
		{"ext3", 64 << 20, []string{"/sbin/mke2fs", "-q", "-F", "-t", "ext3", "-L", "sixteen_letters_", "-U", id, "%s"}, filesystem.Info{Type: "ext4", Label: "sixteen_letters_", UUID: id, Offset: 1024}},
		{"ext4 1k", 64 << 20, []string{"/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-U", id, "%s"}, filesystem.Info{Type: "ext4", UUID: id, Offset: 1024}},
		{"fat12", 1440 << 10, []string{"mkfs.vfat", "-n", "FLOPPY", "-i", "0badcafe", "%s"}, filesystem.Info{Type: "vfat", Label: "FLOPPY", UUID: "0BAD-CAFE"}},
		{"fat16", 64 << 20, []string{"mkfs.vfat", "-F", "16", "-n", "OLD STICK", "-i", "0badcafe", "%s"}, filesystem.Info{Type: "vfat", Label: "OLD STICK", UUID: "0BAD-CAFE"}},
		{"fat32", 64 << 20, []string{"mkfs.vfat", "-F", "32", "-n", "STICK", "-i", "0badcafe", "%s"}, filesystem.Info{Type: "vfat", Label: "STICK", UUID: "0BAD-CAFE"}},
		{"fat32 without label", 64 << 20, []string{"mkfs.vfat", "-F", "32", "-i", "00000001", "%s"}, filesystem.Info{Type: "vfat", UUID: "0000-0001"}},
		{"fat32 4096", 512 << 20, []string{"mkfs.vfat", "-S", "4096", "-n", "BIG", "-i", "00000001", "%s"}, filesystem.Info{Type: "vfat", Label: "BIG", UUID: "0000-0001"}},
		{"swap", 8 << 20, []string{"mkswap", "-q", "-L", "sw", "-U", id, "%s"}, filesystem.Info{Type: "swap", Class: filesystem.Swap, Label: "sw", UUID: id, Offset: 4086}},
		{"swap 64k", 8 << 20, []string{"mkswap", "-q", "-p", "65536", "-U", id, "%s"}, filesystem.Info{Type: "swap", Class: filesystem.Swap, UUID: id, Offset: 65526}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := sparseFile(t, c.size)
			args := append([]string(nil), c.make...)
			for i := range args {
				if args[i] == "%s" {
					args[i] = f.Name()
				}
			}
			tool(t, args[0], args[1:]...)
			if c.want.Class == "" {
				c.want.Class = filesystem.FS
			}
			all, err := filesystem.ProbeAll(f, c.size)
			if err != nil {
				t.Fatal(err)
			}
			if len(all) != 1 || all[0] != c.want {
				t.Errorf("%+v, want %+v", all, c.want)
			}
			b := blkid(t, f.Name(), 0)
			if b["LABEL"] != c.want.Label || b["UUID"] != c.want.UUID {
				t.Errorf("blkid says %v", b)
			}
			if blank, why, err := filesystem.Blank(f, c.size); blank || err != nil {
				t.Error(why, err)
			}
		})
	}
}

func TestProbeISO(t *testing.T) {
	needTool(t, "xorriso")
	name := filepath.Join(t.TempDir(), "iso")
	tool(t, "xorriso", "-as", "mkisofs", "-quiet", "-V", "DEBIAN_12", "-o", name, t.TempDir())
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	got, err := filesystem.Probe(f, info.Size())
	b := blkid(t, name, 0)
	if err != nil || got.Type != "iso9660" || got.Label != "DEBIAN_12" || got.UUID != b["UUID"] {
		t.Errorf("%+v %v; blkid says %v", got, err, b)
	}
}

// signatures are made by hand, from the descriptions of the formats. Negative places count from the end.
func signatures() map[string][]struct {
	at   int64
	data string
} {
	type s = struct {
		at   int64
		data string
	}
	md1 := "\xfc\x4e\x2b\xa9\x01\x00\x00\x00" + strings.Repeat("\x00", 8) + "\x0b\xad\xca\xfe\x01\x23\x45\x67\x89\xab\xcd\xef\x00\x11\x22\x33" + "unit:0"
	return map[string][]s{
		"md":        {{0, md1}},
		"md 1.2":    {{4096, md1}},
		"md 1.0":    {{-8192, md1}},
		"md 0.90":   {{-65536, "\xfc\x4e\x2b\xa9\x00\x00\x00\x00\x5a"}},
		"md 0.90b":  {{-65536, "\xa9\x2b\x4e\xfc\x00\x00\x00\x00\x5a"}},
		"imsm":      {{-1024, "Intel Raid ISM Cfg Sig. 1.3.00"}},
		"imsm 4Kn":  {{-8192, "Intel Raid ISM Cfg Sig. 1.3.00"}},
		"ddf":       {{-512, "\xde\x11\xde\x11"}},
		"ddf 257":   {{-257 * 512, "\xde\x11\xde\x11"}},
		"lvm":       {{512, "LABELONE" + strings.Repeat("\x00", 12) + "\x20\x00\x00\x00LVM2 001abcdefghijklmnopqrstuvwxyz012345"}},
		"zfs":       {{128 << 10, "\x0c\xb1\xba\x00\x00\x00\x00\x00"}},
		"zfs end":   {{-(128 << 10) + 5*1024, "\x00\x00\x00\x00\x00\xba\xb1\x0c"}},
		"bcache":    {{4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"}},
		"bcachefs":  {{4096 + 24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"}},
		"drbd":      {{-4096 + 60, "\x83\x74\x02\x6c"}},
		"luks":      {{0, "LUKS\xba\xbe\x00\x01"}},
		"luks 2":    {{0, "LUKS\xba\xbe\x00\x02"}},
		"luks copy": {{0x4000, "SKUL\xba\xbe\x00\x02"}},
		"luks far":  {{0x400000, "SKUL\xba\xbe\x00\x02"}},
		"bitlocker": {{3, "-FVE-FS-"}, {510, "\x55\xaa"}},
		"xfs":       {{0, "XFSB"}},
		"btrfs":     {{0x10040, "_BHRfS_M"}},
		"ntfs":      {{3, "NTFS    "}, {510, "\x55\xaa"}},
		"ntfs end":  {{-512 + 3, "NTFS    "}},
		"exfat":     {{3, "EXFAT   "}, {510, "\x55\xaa"}},
		"f2fs":      {{1024, "\x10\x20\xf5\xf2"}},
		"squashfs":  {{0, "hsqs"}},
		"iso9660":   {{0x8000, "\x01CD001"}},
		"udf":       {{0x8000 + 2048, "\x00NSR03"}},
		"jfs":       {{0x8000, "JFS1"}},
		"reiserfs":  {{0x10034, "ReIsEr2Fs"}},
		"apfs":      {{32, "NXSB"}},
		"hfsplus":   {{1024, "H+\x00\x04"}},
		"erofs":     {{1024, "\xe2\xe1\xf5\xe0"}},
		"ocfs2":     {{0x800, "OCFSV2"}},
		"vmfs":      {{0x100000, "\x0d\xd0\x01\xc0"}},
		"suspend":   {{4086, "S1SUSPEND\x00"}},
		"gpt":       {{512, "EFI PART"}},
		"gpt 4Kn":   {{4096, "EFI PART"}},
		"gpt end":   {{-512, "EFI PART"}},
		"gpt end 4": {{-4096, "EFI PART"}},
		"mbr":       {{446, "\x80\x00\x02\x00\x83\x00\x00\x00\x01\x00\x00\x00\x01"}, {510, "\x55\xaa"}},
		"mbr empty": {{510, "\x55\xaa"}},
	}
}

func TestSignatures(t *testing.T) {
	const size = 16 << 20
	for name, parts := range signatures() {
		data := make([]byte, size)
		for _, p := range parts {
			at := p.at
			if at < 0 {
				at += size
			}
			copy(data[at:], p.data)
		}
		typ, _, _ := strings.Cut(name, " ")
		got, err := filesystem.Probe(bytes.NewReader(data), size)
		if err != nil || got.Type != typ || got.Class == "" {
			t.Errorf("%s: %+v %v", name, got, err)
		}
		switch name {
		case "md", "md 1.2", "md 1.0":
			if got.UUID != id || got.Label != "unit:0" {
				t.Errorf("%s: %+v", name, got)
			}
		case "lvm":
			if got.UUID != "abcdef-ghij-klmn-opqr-stuv-wxyz-012345" {
				t.Errorf("%+v", got)
			}
		}
		if blank, why, err := filesystem.Blank(bytes.NewReader(data), size); blank || err != nil || !strings.HasPrefix(why, typ+" signature") {
			t.Errorf("%s: blank=%t %q %v", name, blank, why, err)
		}
	}
}

func TestProbePrefers(t *testing.T) {
	const size = 64 << 20
	f := sparseFile(t, size)
	tool(t, "/sbin/mke2fs", "-q", "-F", "-t", "ext4", f.Name())
	for _, s := range signatures()["md 1.0"] {
		f.WriteAt([]byte(s.data), size+s.at)
	}
	got, err := filesystem.Probe(f, size)
	all, err2 := filesystem.ProbeAll(f, size)
	if err != nil || err2 != nil || got.Type != "md" || len(all) != 2 || all[1].Type != "ext4" {
		t.Errorf("%+v %+v %v %v", got, all, err, err2)
	}
}

func TestBlank(t *testing.T) {
	const size = 8 << 20
	zero := make([]byte, size)
	if blank, why, err := filesystem.Blank(bytes.NewReader(zero), size); !blank || err != nil || why != "" {
		t.Error(why, err)
	}
	for _, at := range []int{0, 1<<20 - 1, size - 1<<20, size - 1} {
		zero[at] = 1
		if blank, why, err := filesystem.Blank(bytes.NewReader(zero), size); blank || err != nil || why != fmt.Sprintf("data at byte %d", at) {
			t.Errorf("%d: %q %v", at, why, err)
		}
		zero[at] = 0
	}
	zero[4<<20] = 1
	if blank, _, err := filesystem.Blank(bytes.NewReader(zero), size); !blank || err != nil {
		t.Error("what is between the ends counts")
	}
	for _, size := range []int64{1, 512, 4096, 1 << 20} {
		if blank, why, err := filesystem.Blank(bytes.NewReader(zero), size); !blank || err != nil {
			t.Errorf("%d bytes: %q %v", size, why, err)
		}
	}
	if blank, _, err := filesystem.Blank(bytes.NewReader(nil), 0); blank || err == nil {
		t.Error("a disk without a size is blank")
	}
	if blank, _, err := filesystem.Blank(bytes.NewReader(zero[:1<<20]), size); blank || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error("a disk that ends too early is blank", err)
	}
}

// bad fails for one byte of a disk of zeros.
type bad struct{ at int64 }

var errSector = errors.New("bad sector")

func (b bad) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if b.at >= off && b.at < off+int64(len(p)) {
		return int(b.at - off), errSector
	}
	return len(p), nil
}

func TestUnreadable(t *testing.T) {
	const size = 8 << 20
	for _, at := range []int64{0, 1024, 0x10040, 1<<20 - 1, size - 1, size - 65536, size - 1<<20} {
		if blank, _, err := filesystem.Blank(bad{at}, size); blank || !errors.Is(err, errSector) {
			t.Errorf("%d: blank=%t %v", at, blank, err)
		}
	}
	if _, err := filesystem.Probe(bad{1100}, size); !errors.Is(err, errSector) {
		t.Error(err)
	}
}

// padded is data with zeros around: a start, a gap, and an end.
type padded struct {
	head, tail []byte
	size       int64
}

func (p padded) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	if off < int64(len(p.head)) {
		copy(b, p.head[off:])
	}
	if at := p.size - int64(len(p.tail)); off+int64(len(b)) > at {
		if off >= at {
			copy(b, p.tail[off-at:])
		} else {
			copy(b[at-off:], p.tail)
		}
	}
	return len(b), nil
}

func FuzzProbe(f *testing.F) {
	for name, parts := range signatures() {
		head, tail := make([]byte, 8192), make([]byte, 8192)
		for _, p := range parts {
			switch at := p.at; {
			case at >= 0 && at < 8000:
				copy(head[at:], p.data)
			case at < 0 && at >= -8192:
				copy(tail[8192+at:], p.data)
			}
		}
		f.Add(head, tail, int64(len(name))<<20)
	}
	fat := make([]byte, 512)
	copy(fat, "\xeb\x58\x90mkfs.fat\x00\x02\x01\x20\x00\x02\x00\x00\x00\x00\xf8")
	binary.LittleEndian.PutUint32(fat[36:], 0xffffffff)
	binary.LittleEndian.PutUint32(fat[44:], 0xffffffff)
	fat[510], fat[511] = 0x55, 0xaa
	f.Add(fat, []byte{}, int64(600))
	f.Fuzz(func(t *testing.T, head, tail []byte, size int64) {
		if size < 0 || int64(len(head)) > size || int64(len(tail)) > size-int64(len(head)) {
			return
		}
		all, err := filesystem.ProbeAll(padded{head, tail, size}, size)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range all {
			if i.Type == "" || i.Class == "" || i.Offset < 0 || i.Offset >= size || strings.ContainsAny(i.Label+i.UUID, "\n\r\x00\x1b") {
				t.Errorf("%+v", i)
			}
		}
		if size == 0 {
			return
		}
		if blank, _, err := filesystem.Blank(padded{head, tail, size}, size); err != nil || blank && len(all) > 0 {
			t.Errorf("blank=%t %v", blank, err)
		}
	})
}
