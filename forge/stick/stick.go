// Package stick writes recovery sticks: disks that start a unit on UEFI and on BIOS, with an image to restore and room for a
// support bundle.
//
// A stick is a GPT disk: a BIOS boot partition with GRUB; an ext4 partition of our own type with the image, its signature, and
// kernel and initramfs for BIOS; an ESP with the boot artifact; and a FAT32 partition that everybody can read, for the bundle.
// unit/medium recognises it by the type of the second partition. docs/sticks.md says what a person does with it.
//
// Nothing is mounted, and no privileges are needed for a file. A device is only written if the kernel says that it is removable or
// on USB, and that nobody uses it.
package stick

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"gprovision/forge/boot"
	"gprovision/forge/tool"
	"gprovision/hw/block"
	"gprovision/hw/bootloader"
	"gprovision/hw/filesystem"
	"gprovision/hw/partition"
	"gprovision/model/bootimage"
	"gprovision/model/fault"
	"gprovision/model/grub"
	"gprovision/model/layout"
	"gprovision/model/naming"
	"gprovision/model/release"
	"gprovision/model/signature"
)

// bootDir is where kernel and initramfs for BIOS lie, and bundleSize the least size of the partition for the bundle, bytes.
const (
	bootDir    = "boot/gprov"
	bundleSize = 128 * layout.MiB
)

// Options say what is made.
type Options struct {
	// Artifact is the boot artifact: the stick does what its policy allows.
	Artifact string
	// Image is a release image, with its signature beside it.
	Image string
	// Names are those of an artifact that has none itself.
	Names naming.Names
	// Out is the file or the device to write. A file is replaced when it is complete.
	Out string
	// Size is that of the disk in a file, bytes. 0: no larger than needed.
	Size int64
	// Confirmed reports whether a person knows what is lost on a device.
	Confirmed bool
	// Sys is /sys.
	Sys fs.FS
	// Progress is called with the bytes that were copied to a device and then read back from it; it may be nil.
	Progress func(done, total int64)
}

// Report is what was made.
type Report struct {
	// Out is the file or the device, Device says which of the two it is.
	Out    string `json:"out"`
	Device bool   `json:"device"`
	// Bytes is the length of what was written, and SHA256 the hash of a file, hexadecimal.
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256,omitempty"`
	// Image is the name of the image, and Signer the identifier of the key that signed it, "" if nobody did.
	Image  string `json:"image"`
	Signer string `json:"signer,omitempty"`
	// Build is the build number of the artifact, nil if it has none.
	Build *uint64 `json:"build"`
	// BIOS reports whether the stick starts BIOS machines too: the artifact has a boot loader for them.
	BIOS bool `json:"bios"`
}

// NotConfirmedError says what would be lost on a device.
type NotConfirmedError struct{ Disk block.Disk }

func (e *NotConfirmedError) Error() string {
	d := e.Disk
	return fmt.Sprintf("everything on %s would be lost: %d bytes, %d partitions, %s %s %s", d.Path, d.Size, len(d.Partitions), d.Vendor, d.Model, d.Serial)
}

// maker is a stick in the making.
type maker struct {
	Options
	log      *slog.Logger
	artifact []byte
	boot     boot.Inspection
	name     release.Name
	dir      string // for files on the way
	id       string // of the partition by which a unit knows the stick, its GUID
	rep      Report
}

// Make makes a stick. The image's signature is checked with the keys of the artifact's policy: a stick that no unit would restore
// from is not made. A device that no person confirmed is a *NotConfirmedError.
func Make(ctx context.Context, log *slog.Logger, o Options) (Report, error) {
	m := &maker{Options: o, log: log, rep: Report{Out: o.Out}}
	near := filepath.Dir(o.Out)
	var err error
	if m.rep.Device, err = isDevice(o.Out); err != nil {
		return Report{}, err
	}
	if m.rep.Device {
		d, err := removable(o.Sys, o.Out)
		if err != nil {
			return Report{}, err
		}
		if !o.Confirmed {
			return Report{}, &NotConfirmedError{d}
		}
		m.Out, m.Size, near = d.Path, 0, ""
	}
	if err := m.readArtifact(); err != nil {
		return Report{}, fmt.Errorf("boot artifact %s: %w", o.Artifact, err)
	}
	if err := m.checkImage(); err != nil {
		return Report{}, fmt.Errorf("image %s: %w", o.Image, err)
	}
	if m.dir, err = os.MkdirTemp(near, ".stick-"); err != nil {
		return Report{}, err
	}
	defer os.RemoveAll(m.dir)
	if err := m.make(ctx); err != nil {
		return Report{}, fmt.Errorf("make stick: %w", err)
	}
	return m.rep, nil
}

func isDevice(path string) (bool, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	switch {
	case st.Mode().IsRegular():
		return false, nil
	case st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0:
		return true, nil
	}
	return false, fmt.Errorf("%s is neither a file nor a disk", path)
}

// removable finds a disk and proves that it is one that a person plugs in.
func removable(sys fs.FS, path string) (block.Disk, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return block.Disk{}, err
	}
	disks, err := block.List(sys)
	if err != nil {
		return block.Disk{}, err
	}
	for _, d := range disks {
		if d.Path != real {
			continue
		}
		switch {
		case d.Bus != block.USB && !d.Removable:
			return d, fmt.Errorf("%s is neither removable nor on USB (%s, %s %s): nothing is written to it", path, d.Bus, d.Vendor, d.Model)
		case d.ReadOnly:
			return d, fmt.Errorf("%s is read-only", path)
		case d.SectorSize != 512:
			return d, fmt.Errorf("%s has sectors of %d bytes, a stick needs 512", path, d.SectorSize)
		}
		return d, nil
	}
	return block.Disk{}, fmt.Errorf("%s is not a whole disk that can be written", path)
}

func (m *maker) readArtifact() error {
	var err error
	if m.artifact, err = os.ReadFile(m.Artifact); err != nil {
		return err
	}
	r := bytes.NewReader(m.artifact)
	if m.boot, err = boot.Inspect(r, r.Size()); err != nil {
		return err
	}
	if m.boot.Policy == nil {
		return errors.New("it has no policy")
	}
	m.rep.Build, m.rep.BIOS = m.boot.Build, len(m.boot.GRUB.Boot) > 0 && len(m.boot.GRUB.Core) > 0
	return nil
}

// checkImage proves the image as a unit with this artifact would.
func (m *maker) checkImage() error {
	var err error
	if m.name, err = release.ParseName(filepath.Base(m.Image), ""); err != nil {
		return err
	}
	m.rep.Image = m.name.String()
	if err := m.boot.Judge(m.name.Prefix, m.Names); err != nil {
		return err
	}
	f, err := os.Open(m.Image)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := release.CheckHeader(f); err != nil {
		return err
	}
	sig, err := os.ReadFile(m.Image + signature.Suffix)
	if errors.Is(err, fs.ErrNotExist) && m.boot.Policy.AllowUnsigned {
		return nil
	}
	if err != nil {
		return err
	}
	keys, err := signature.ParsePublicKeys(m.boot.Policy.Keys)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := signature.VerifyAs(keys, sig, io.NewSectionReader(f, 0, st.Size()), signature.ImageComment(m.name.Base())); err != nil {
		return fmt.Errorf("with the keys of the artifact's policy: %w", err)
	}
	info, err := signature.Parse(sig)
	m.rep.Signer = info.KeyID
	return err
}

func (m *maker) make(ctx context.Context) error {
	m.id = uuid.NewString()
	root, used, err := m.stage()
	if err != nil {
		return err
	}
	t := m.layout(used)
	last := t.Partitions[len(t.Partitions)-1]
	size := last.Start + last.Size + layout.MiB
	file := filepath.Join(m.dir, "stick.img")
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	if err := m.makeExt4(ctx, file, t.Partitions[1], root); err != nil {
		return err
	}
	dev, err := block.OpenImage(file, true, 512)
	if err != nil {
		return err
	}
	defer dev.Close()
	for _, p := range t.Partitions[2:] {
		if err := filesystem.MakeFAT32(dev, p); err != nil {
			return err
		}
	}
	if err := filesystem.PutFAT32(dev, t.Partitions[2], "EFI/BOOT/BOOTX64.EFI", m.artifact); err != nil {
		return err
	}
	if m.rep.Device {
		return m.write(ctx, dev, t)
	}
	if err := m.startable(dev, t); err != nil {
		return err
	}
	return m.finish(file, size)
}

// stage puts what belongs on the ext4 partition into a directory and returns how many bytes it has.
func (m *maker) stage() (root string, used int64, err error) {
	root = filepath.Join(m.dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return "", 0, err
	}
	put := func(name string, r io.Reader) error {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		n, err := io.Copy(f, r)
		used += n
		return errors.Join(err, f.Close())
	}
	if m.rep.BIOS {
		if err := m.stageBIOS(put); err != nil {
			return "", 0, err
		}
	}
	for _, suffix := range []string{"", signature.Suffix} {
		from, to := m.Image+suffix, layout.EmergencyPrefix+m.name.String()+suffix
		st, err := os.Stat(from)
		if errors.Is(err, fs.ErrNotExist) && suffix != "" {
			continue // checkImage says whether it is needed
		}
		if err != nil {
			return "", 0, err
		}
		if os.Link(from, filepath.Join(root, to)) == nil {
			used += st.Size()
			continue
		}
		in, err := os.Open(from) // on another filesystem
		if err != nil {
			return "", 0, err
		}
		err = put(to, in)
		if err := errors.Join(err, in.Close()); err != nil {
			return "", 0, err
		}
	}
	return root, used, nil
}

// stageBIOS takes kernel and initramfs out of the boot artifact.
func (m *maker) stageBIOS(put func(string, io.Reader) error) error {
	i, err := bootimage.Parse(bytes.NewReader(m.artifact), int64(len(m.artifact)))
	if err != nil {
		return err
	}
	e := grub.Entry{Title: "Recovery stick", Kernel: "/" + bootDir + "/vmlinuz", Args: strings.TrimSpace(m.boot.Policy.BootArgs + " " + layout.StickArg + "=" + m.id)}
	var kernel io.Reader = bytes.NewReader(m.artifact)
	if i.UKI != nil {
		kernel, e.Initrd = i.UKI.Linux(), "/"+bootDir+"/initrd"
		if err := put(e.Initrd, i.UKI.Initrd()); err != nil {
			return err
		}
	}
	if err := e.Check(); err != nil {
		return err
	}
	return errors.Join(put(e.Kernel, kernel), put(grub.ConfigPath, bytes.NewReader(grub.MainConfig(e))))
}

// layout returns the partitions for so many bytes of files on the ext4 partition.
func (m *maker) layout(used int64) layout.Table {
	whole := func(n int64) int64 { return (n + layout.MiB - 1) / layout.MiB * layout.MiB }
	t := layout.Table{Kind: layout.GPT, UUID: uuid.NewString()}
	at := int64(layout.MiB)
	add := func(p layout.Partition) {
		p.Number, p.Start = len(t.Partitions)+1, at
		if p.UUID == "" {
			p.UUID = uuid.NewString()
		}
		at += p.Size
		t.Partitions = append(t.Partitions, p)
	}
	fat := func() string { id := fmt.Sprintf("%08X", uuid.New().ID()); return id[:4] + "-" + id[4:] }
	add(layout.Partition{Role: layout.BIOSBoot, Type: layout.TypeBIOSBoot, Name: "BIOS boot", Size: layout.BIOSBootSize})
	add(layout.Partition{Type: layout.TypeStick, UUID: m.id, Name: "gprovision stick", FSLabel: layout.StickLabel, FSUUID: uuid.NewString(), Size: whole(used+used/16) + 32*layout.MiB})
	add(layout.Partition{Role: layout.ESP, Type: layout.TypeESP, Name: "ESP", FSLabel: "ESP", FSUUID: fat(), Size: max(64*layout.MiB, whole(int64(len(m.artifact))+16*layout.MiB))})
	rest := m.Size/layout.MiB*layout.MiB - layout.MiB - at
	add(layout.Partition{Type: layout.TypeData, Name: "support", FSLabel: layout.BundleLabel, FSUUID: fat(), Size: max(bundleSize, rest)})
	return t
}

func (m *maker) makeExt4(ctx context.Context, file string, p layout.Partition, root string) error {
	// Without a journal there is nothing to replay: the stick can be read without being written.
	err := tool.Run(ctx, m.log, tool.Command{Name: "mke2fs", Package: "e2fsprogs", Args: []string{
		"-t", "ext4", "-F", "-q", "-b", "4096", "-m", "0", "-N", "1024", "-O", "^has_journal,^metadata_csum_seed", "-L", p.FSLabel, "-U", p.FSUUID,
		"-E", fmt.Sprintf("nodiscard,root_owner=0:0,offset=%d", p.Start), "-d", root, file, fmt.Sprintf("%dk", p.Size>>10)}})
	if err != nil {
		return fmt.Errorf("make ext4: %w", err)
	}
	return nil
}

// startable writes the table and, if the artifact has one, the boot loader for BIOS.
func (m *maker) startable(dev *block.Device, t layout.Table) error {
	if err := partition.Write(dev, t); err != nil {
		return err
	}
	if !m.rep.BIOS {
		return nil
	}
	err := bootloader.Install(dev, t, m.boot.GRUB)
	switch {
	case errors.Is(err, bootloader.ErrDevice):
		return fault.Because(fault.DiskWrite, err)
	case errors.Is(err, bootloader.ErrReadBack):
		return fault.Because(fault.ReadBack, err)
	}
	return err // of the artifact, or of the layout: no code of a unit says more
}

// finish gives a file its name.
func (m *maker) finish(file string, size int64) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o644), f.Sync()); err != nil {
		return err
	}
	m.rep.Bytes, m.rep.SHA256 = size, hex.EncodeToString(h.Sum(nil))
	return os.Rename(file, m.Out)
}

// write copies the stick to the device.
func (m *maker) write(ctx context.Context, from *block.Device, t layout.Table) error {
	dev, err := block.Open(m.Out, true)
	if err != nil {
		return fmt.Errorf("%w (is one of its partitions mounted?)", err)
	}
	return errors.Join(m.copyTo(ctx, dev, from, t), dev.Close())
}

// copyTo copies all partitions and reads them back. The device has no table before that, and gets it last.
func (m *maker) copyTo(ctx context.Context, dev, from *block.Device, t layout.Table) error {
	if dev.Size() < from.Size() {
		return fmt.Errorf("%s has %d bytes, the stick needs %d", m.Out, dev.Size(), from.Size())
	}
	if err := partition.Wipe(dev, 2*layout.MiB, layout.MiB); err != nil {
		return err
	}
	begin, end := t.Partitions[1].Start, from.Size()-layout.MiB
	want, err := m.each(ctx, from, begin, end, func(b []byte, at int64) error { _, err := dev.WriteAt(b, at); return err })
	if err == nil {
		err = dev.Sync()
	}
	if err != nil {
		return err
	}
	direct, err := block.OpenDirect(m.Out)
	if err != nil {
		return err
	}
	defer direct.Close()
	have, err := m.each(ctx, direct, begin, end, func([]byte, int64) error { return nil })
	if err != nil {
		return err
	}
	if have != want {
		return fmt.Errorf("%s returns other data than was written: it is broken", m.Out)
	}
	if err := m.startable(dev, t); err != nil {
		return err
	}
	m.rep.Bytes = from.Size()
	return dev.RereadTable()
}

// each reads a range of a disk, hands it to do in pieces and returns its hash.
func (m *maker) each(ctx context.Context, from io.ReaderAt, begin, end int64, do func(b []byte, at int64) error) (sum [32]byte, err error) {
	h := sha256.New()
	buf := make([]byte, 4*layout.MiB)
	for at := begin; at < end; {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		b := buf[:min(int64(len(buf)), end-at)]
		if n, err := from.ReadAt(b, at); n < len(b) {
			return sum, fmt.Errorf("read %d bytes at %d: %w", len(b), at, err)
		}
		h.Write(b)
		if err := do(b, at); err != nil {
			return sum, err
		}
		at += int64(len(b))
		if m.Progress != nil {
			m.Progress(at-begin, end-begin)
		}
	}
	return [32]byte(h.Sum(nil)), nil
}
