package stick

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/bootloader"
	"gprovision/hw/partition"
	"gprovision/model/bootimage"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/model/signature"
)

const imageName = "WIDGET.LNX.SHINY.2026-11-22.0007.upd"

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("GPROV_NO_SKIP") == "1" {
		t.Fatalf("GPROV_NO_SKIP=1, but: %s", why)
	}
	t.Skip(why)
}

func output(t *testing.T, ok func(int) bool, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		skip(t, name+" is not installed")
	case errors.As(err, &exit) && ok(exit.ExitCode()):
	case err != nil:
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func clean(code int) bool { return code == 0 }

// kit is what a stick is made of.
type kit struct {
	dir, artifact, image string
	grub                 bootloader.Images
	content              []byte
}

func newKit(t *testing.T, change func(*policy.Policy)) kit {
	t.Helper()
	key, err := signature.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	k := kit{dir: t.TempDir()}
	k.image, k.artifact = filepath.Join(k.dir, imageName), filepath.Join(k.dir, "norm_boot")
	k.content = append([]byte{0xfd, '7', 'z', 'X', 'Z', 0, 0, 10, 0xe1, 0xfb, 0x0c, 0xa1}, bytes.Repeat([]byte("release "), 200_000)...)
	sig, err := key.Sign(bytes.NewReader(k.content), signature.ImageComment(strings.TrimSuffix(imageName, ".upd")))
	if err != nil {
		t.Fatal(err)
	}
	p := policy.Policy{Version: policy.Version, Keys: []string{key.Public().String()}, BootArgs: "console=ttyS0,115200"}
	if change != nil {
		change(&p)
	}
	k.grub = bootloader.Images{Boot: make([]byte, 512), Core: bytes.Repeat([]byte{7}, 40_000)}
	k.grub.Boot[510], k.grub.Boot[511], k.grub.Boot[0x66] = 0x55, 0xaa, 0xeb
	binary.LittleEndian.PutUint16(k.grub.Core[0x1f4+10:], 0x820)
	for name, b := range map[string][]byte{k.image: k.content, k.image + signature.Suffix: sig, k.artifact: artifact(t, p, k.grub)} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

// artifact is a unified kernel image that looks right.
func artifact(t *testing.T, p policy.Policy, grub bootloader.Images) []byte {
	t.Helper()
	stub, err := os.ReadFile("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
	if err != nil {
		skip(t, "there is no EFI stub (Debian package systemd-boot-efi)")
	}
	text, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var tree bootimage.Tree
	for name, b := range map[string][]byte{"etc/gprovision/policy.json": text, "usr/lib/gprov/grub/boot.img": grub.Boot, "usr/lib/gprov/grub/core.img": grub.Core} {
		if b == nil {
			continue
		}
		if err := tree.Add(bootimage.File{Name: name, Mode: 0o644, Data: b}); err != nil {
			t.Fatal(err)
		}
	}
	var initrd, out bytes.Buffer
	if err := tree.Write(&initrd, time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	kernel := make([]byte, 2048)
	kernel[0x1f1], kernel[0x211] = 1, 1
	copy(kernel[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(kernel[0x1fe:], 0xaa55)
	binary.LittleEndian.PutUint16(kernel[0x206:], 0x020f)
	binary.LittleEndian.PutUint16(kernel[0x20e:], 0x100)
	copy(kernel[0x300:], "6.1.0 (x@y) #1 SMP\x00")
	err = bootimage.WriteUKI(&out, stub, []bootimage.Part{
		{Name: bootimage.SectionOSRel, Data: []byte("ID=x\nBUILD_ID=7\n")}, {Name: bootimage.SectionUname, Data: []byte("6.1.0")},
		{Name: bootimage.SectionInitrd, Data: initrd.Bytes()}, {Name: bootimage.SectionLinux, Data: kernel}})
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func (k kit) options() Options {
	return Options{Artifact: k.artifact, Image: k.image, Out: filepath.Join(k.dir, "stick.img"), Sys: fstest.MapFS{"block": {Mode: fs.ModeDir | 0o755}}}
}

func log() *slog.Logger { return slog.New(slog.DiscardHandler) }

// TestMake has sgdisk, e2fsck, fsck.fat, debugfs and mtools look at a stick.
func TestMake(t *testing.T) {
	k := newKit(t, nil)
	o := k.options()
	o.Size = 600 << 20
	r, err := Make(t.Context(), log(), o)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(o.Out); err != nil || st.Size() != r.Bytes || r.Bytes != o.Size || !r.BIOS || r.Device || *r.Build != 7 || r.Image != imageName || r.Signer == "" {
		t.Errorf("report %+v, %v", r, err)
	}
	dev, err := block.OpenImage(o.Out, false, 512)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	table, err := partition.Read(dev)
	if err != nil || len(table.Partitions) != 4 || table.Partitions[1].Type != layout.TypeStick {
		t.Fatalf("table %+v, %v", table, err)
	}
	if err := bootloader.Verify(dev, table, k.grub); err != nil {
		t.Error(err)
	}
	if out := output(t, clean, "sgdisk", "-v", o.Out); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk: %s", out)
	}
	cut := func(p layout.Partition) string {
		b := make([]byte, p.Size)
		if _, err := dev.ReadAt(b, p.Start); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(k.dir, p.UUID)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	ext4 := cut(table.Partitions[1])
	output(t, clean, "e2fsck", "-fn", ext4)
	artifact, err := os.ReadFile(k.artifact)
	if err != nil {
		t.Fatal(err)
	}
	i, err := bootimage.Parse(bytes.NewReader(artifact), int64(len(artifact)))
	if err != nil {
		t.Fatal(err)
	}
	initrd := make([]byte, i.UKI.Initrd().Size())
	if _, err := i.UKI.Initrd().ReadAt(initrd, 0); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"EmergencyFile_" + imageName: k.content, "boot/gprov/initrd": initrd} {
		to := filepath.Join(k.dir, "dumped")
		output(t, clean, "debugfs", "-R", "dump "+name+" "+to, ext4)
		if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s on the stick is not what it was: %v", name, err)
		}
	}
	if out := output(t, clean, "debugfs", "-R", "cat boot/grub/grub.cfg", ext4); !strings.Contains(out, "/boot/gprov/vmlinuz") || !strings.Contains(out, "'console=ttyS0,115200'") || !strings.Contains(out, "'gprov.stick="+table.Partitions[1].UUID+"'") {
		t.Errorf("configuration of GRUB: %s", out)
	}
	if out := output(t, clean, "debugfs", "-R", "ls -l EmergencyFile_"+imageName+".minisig", ext4); strings.Contains(out, "not found") {
		t.Errorf("signature: %s", out)
	}
	for _, p := range table.Partitions[2:] {
		output(t, clean, "fsck.fat", "-n", cut(p))
	}
	output(t, clean, "mcopy", "-n", "-i", cut(table.Partitions[2]), "::/EFI/BOOT/BOOTX64.EFI", filepath.Join(k.dir, "booted"))
	if got, err := os.ReadFile(filepath.Join(k.dir, "booted")); err != nil || !bytes.Equal(got, artifact) {
		t.Errorf("the ESP has another artifact: %v", err)
	}
	// Nothing is left beside it.
	if left, _ := filepath.Glob(filepath.Join(k.dir, ".stick-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestCopy copies a stick to a larger disk with an old table.
func TestCopy(t *testing.T) {
	k := newKit(t, nil)
	m := &maker{Options: k.options(), log: log(), dir: t.TempDir()}
	target := filepath.Join(k.dir, "device")
	old := bytes.Repeat([]byte{0xa5}, 8<<20)
	if err := errors.Join(os.WriteFile(target, old, 0o600), os.Truncate(target, 300<<20), m.readArtifact(), m.checkImage()); err != nil {
		t.Fatal(err)
	}
	m.Out, m.rep.Device = target, true
	steps := 0
	m.Progress = func(done, total int64) { steps++ }
	if err := m.make(t.Context()); err != nil {
		t.Fatal(err)
	}
	dev, err := block.OpenImage(target, false, 512)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	table, err := partition.Read(dev)
	if err != nil || len(table.Partitions) != 4 || steps == 0 {
		t.Fatalf("table %+v, %v, %d steps", table, err, steps)
	}
	if err := errors.Join(partition.Verify(dev, table), bootloader.Verify(dev, table, k.grub)); err != nil {
		t.Error(err)
	}
	output(t, clean, "e2fsck", "-fn", target+"?offset="+"2097152")
	if err := os.Truncate(target, 64<<20); err != nil {
		t.Fatal(err)
	}
	if err := m.copyTo(t.Context(), small(t, target), small(t, target), layout.Table{Partitions: table.Partitions}); err == nil {
		t.Error("a stick was written to a disk that is too small")
	}
}

func small(t *testing.T, path string) *block.Device {
	t.Helper()
	d, err := block.OpenImage(path, true, 512)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestRefused(t *testing.T) {
	other, err := signature.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		policy func(*policy.Policy)
		change func(*testing.T, kit, *Options)
		want   string
	}{
		"another key": {func(p *policy.Policy) { p.Keys = []string{other.Public().String()} }, nil, "no trusted key"},
		"changed": {nil, func(t *testing.T, k kit, _ *Options) {
			if err := os.WriteFile(k.image, k.content[:len(k.content)-1], 0o600); err != nil {
				t.Fatal(err)
			}
		}, "does not hold"},
		"unsigned":    {nil, func(t *testing.T, k kit, _ *Options) { os.Remove(k.image + ".minisig") }, "no such file"},
		"no artifact": {nil, func(t *testing.T, k kit, o *Options) { o.Artifact = k.image }, "boot artifact"},
		"a name":      {nil, func(t *testing.T, k kit, o *Options) { o.Image = k.artifact }, "name of a release image"},
		"a directory": {nil, func(t *testing.T, k kit, o *Options) { o.Out = k.dir }, "neither a file nor a disk"},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKit(t, c.policy)
			o := k.options()
			if c.change != nil {
				c.change(t, k, &o)
			}
			if _, err := Make(t.Context(), log(), o); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want something about %q", err, c.want)
			}
			if _, err := os.Stat(filepath.Join(k.dir, "stick.img")); err == nil {
				t.Error("a stick was made all the same")
			}
		})
	}
	k := newKit(t, func(p *policy.Policy) { p.AllowUnsigned = true })
	if err := os.Remove(k.image + ".minisig"); err != nil {
		t.Fatal(err)
	}
	if r, err := Make(t.Context(), log(), k.options()); err != nil || r.Signer != "" {
		t.Errorf("an unsigned image that the policy allows: %+v, %v", r, err)
	}
}

// TestRemovable has a USB stick, an internal disk, and what is no whole disk.
func TestRemovable(t *testing.T) {
	dir := t.TempDir()
	sys := fstest.MapFS{"block": {Mode: fs.ModeDir | 0o755}}
	disk := func(at, name string, files map[string]string) {
		sys["block/"+name] = &fstest.MapFile{Mode: fs.ModeSymlink | 0o777, Data: []byte("../devices/" + at + "/block/" + name)}
		for f, v := range files {
			sys["devices/"+at+"/block/"+name+"/"+f] = &fstest.MapFile{Data: []byte(v)}
		}
	}
	disk("pci0/usb1/1-2/host4", "null", map[string]string{"size": "15728640", "queue/logical_block_size": "512"})
	disk("pci0/ata1/host0", "zero", map[string]string{"size": "15728640", "queue/logical_block_size": "512"})
	disk("pci0/usb1/1-3/host5", "full", map[string]string{"size": "15728640", "queue/logical_block_size": "512", "ro": "1"})
	disk("pci0/usb1/1-4/host6", "random", map[string]string{"size": "15728640", "queue/logical_block_size": "4096"})
	for path, want := range map[string]string{"/dev/null": "", "/dev/zero": "neither removable", "/dev/full": "read-only", "/dev/random": "4096", "/dev/urandom": "not a whole disk",
		filepath.Join(dir, "missing"): "no such file"} {
		_, err := removable(sys, path)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	link := filepath.Join(dir, "by-id")
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	if d, err := removable(sys, link); err != nil || d.Path != "/dev/null" || d.Bus != block.USB {
		t.Errorf("by a link: %+v, %v", d, err)
	}
}
