package machine

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"gprovision/hw/block"
	"gprovision/hw/bootloader"
	"gprovision/hw/durable"
	"gprovision/hw/efi"
	"gprovision/hw/host"
	"gprovision/model/bootimage"
	"gprovision/model/fault"
	"gprovision/model/grub"
	"gprovision/model/layout"
	"gprovision/unit/state"
)

// Files on an ESP.
const (
	// RemovablePath is the file that UEFI firmware starts from a disk without a boot entry (UEFI 2.10, 3.5.1.1).
	RemovablePath = `\EFI\BOOT\BOOTX64.EFI`
	// NormalPath is the release's own artifact on a unit with one disk. RemovablePath is the recovery artifact there.
	NormalPath = `\EFI\gprov\normal.efi`
)

// NormalFile returns the file on the main disk's ESP that starts the main system of u.
func NormalFile(u state.Unit) string {
	if u.OneDisk() {
		return NormalPath
	}
	return RemovablePath
}

// PutFile writes r to path and returns the SHA-256 of the content. It writes to a new name, syncs, reads back from
// the device, and only then renames. The directory must exist (MakeDir). A file at the new name, or a link at path,
// is replaced, not followed.
func PutFile(path string, mode fs.FileMode, r io.Reader) (sum [32]byte, err error) {
	fresh := path + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return sum, err
	}
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, mode)
	if err != nil {
		return sum, err
	}
	defer os.Remove(fresh)
	h := sha256.New()
	if _, err = io.Copy(io.MultiWriter(f, h), r); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return sum, fmt.Errorf("write %s: %w", fresh, err)
	}
	h.Sum(sum[:0])
	back, err := HashOnDevice(fresh)
	if err != nil {
		return sum, err
	}
	if back != sum {
		return sum, fault.Newf(fault.ReadBack, "%s reads back as %x, written %x", path, back[:8], sum[:8])
	}
	if err := os.Rename(fresh, path); err != nil {
		return sum, err
	}
	return sum, durable.Sync(filepath.Dir(path))
}

// MakeDir makes the directory rel below the mounted volume. It removes anything in the way that is not a directory,
// such as a link to another place. So what is later written to the directory, or deleted from it, stays on the
// volume.
func MakeDir(volume, rel string) error {
	dir := volume
	for _, name := range strings.Split(filepath.Clean(rel), string(filepath.Separator)) {
		parent := dir
		dir = filepath.Join(dir, name)
		st, err := os.Lstat(dir)
		if err == nil && st.IsDir() {
			continue
		}
		if err == nil {
			err = os.Remove(dir)
		} else if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err == nil {
			err = os.Mkdir(dir, 0o755)
		}
		if err == nil {
			err = durable.Sync(parent)
		}
		if err != nil {
			return fmt.Errorf("make directory %s: %w", dir, err)
		}
	}
	return nil
}

// Regular returns an error unless path is a regular file. Links fail, and so do files on which a reader would block.
func Regular(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	return nil
}

// HashOnDevice returns the SHA-256 of a file. It reads from the device and bypasses the page cache.
func HashOnDevice(path string) (sum [32]byte, err error) {
	f, err := block.OpenDirect(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, fmt.Errorf("read back %s: %w", path, err)
	}
	h.Sum(sum[:0])
	return sum, nil
}

// PutArtifactESP copies the boot artifact src to a file on the ESP of device esp. The path of the file is separated
// by backslashes. If the file has this content already, nothing on the ESP is written.
func (m *Machine) PutArtifactESP(esp, file, src string) error {
	same := false
	err := m.OnESP(esp, file, func(path string) (err error) {
		same, err = sameContent(path, src)
		return err
	})
	if err != nil || same {
		return err
	}
	return m.withMounted(esp, "vfat", host.MountOptions{}, func(dir string) error {
		dst := onESP(dir, file)
		rel, err := filepath.Rel(dir, filepath.Dir(dst))
		if err != nil {
			return err
		}
		if err := MakeDir(dir, rel); err != nil {
			return err
		}
		in, err := os.Open(src)
		if err != nil {
			return err
		}
		defer in.Close()
		_, err = PutFile(dst, 0o644, in)
		return err
	})
}

// OnESP mounts the ESP on device esp read-only while do runs. do gets the path of file below the mount point. The
// file need not exist. Its name is separated by backslashes.
func (m *Machine) OnESP(esp, file string, do func(path string) error) error {
	return m.withMounted(esp, "vfat", host.MountOptions{ReadOnly: true, NoExec: true, NoSUID: true, NoDev: true}, func(dir string) error {
		return do(onESP(dir, file))
	})
}

// onESP returns the path of a file on an ESP that is mounted at dir.
func onESP(dir, file string) string {
	return filepath.Join(dir, filepath.FromSlash(strings.ReplaceAll(strings.TrimPrefix(file, `\`), `\`, "/")))
}

func sameContent(a, b string) (bool, error) {
	x, err := HashOnDevice(a)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, nil // unreadable: write it again
	}
	y, err := HashOnDevice(b)
	return x == y, err
}

// withMounted mounts a device while do runs.
func (m *Machine) withMounted(dev, fstype string, o host.MountOptions, do func(dir string) error) error {
	dir, err := os.MkdirTemp(m.Places.Run, "mount-")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	if err := m.Mount(dev, dir, fstype, o); err != nil {
		return err
	}
	err = do(dir)
	if uerr := m.Unmount(dir); err == nil {
		err = uerr
	}
	return err
}

// BootDir holds the kernel, initramfs and boot loader configuration for BIOS. It is relative to the root of an ext4
// volume.
const BootDir = "boot/gprov"

// PutArtifactBIOS unpacks the boot artifact src below the mounted volume and writes the boot loader's configuration.
// It writes a kernel and an initramfs, or a single file if the kernel holds its initramfs. It fills in entry's paths
// to them, and config renders the configuration. InstallLoader makes a disk start the result.
func (m *Machine) PutArtifactBIOS(volume, src string, entry grub.Entry, config func(grub.Entry) []byte) error {
	kernel, initrd, err := unpackArtifact(volume, src)
	if err != nil {
		return fmt.Errorf("take kernel and initramfs out of %s: %w", src, err)
	}
	if entry.Kernel = "/" + kernel; initrd != "" {
		entry.Initrd = "/" + initrd
	}
	if err := entry.Check(); err != nil {
		return err
	}
	if err := MakeDir(volume, strings.TrimPrefix(filepath.Dir(grub.ConfigPath), "/")); err != nil {
		return err
	}
	if _, err := PutFile(filepath.Join(volume, grub.ConfigPath), 0o600, bytes.NewReader(config(entry))); err != nil {
		return err
	}
	return removeOtherArtifacts(filepath.Join(volume, BootDir), filepath.Base(filepath.Dir(kernel)))
}

// InstallLoader makes a disk with the table t start GRUB on BIOS firmware. It writes nothing if the disk does so
// already.
func (m *Machine) InstallLoader(disk string, t layout.Table) error {
	boot, err := os.ReadFile(filepath.Join(m.Initramfs, bootimage.GRUBBootPath))
	if err != nil {
		return errors.Join(ErrNoGRUB, err)
	}
	core, err := os.ReadFile(filepath.Join(m.Initramfs, bootimage.GRUBCorePath))
	if err != nil {
		return errors.Join(ErrNoGRUB, err)
	}
	images := bootloader.Images{Boot: boot, Core: core}
	dev, err := m.Open(disk, Share)
	if err != nil {
		return err
	}
	defer dev.Close()
	if bootloader.Verify(dev, t, images) == nil {
		return nil
	}
	if err := bootloader.Install(dev, t, images); err != nil {
		return loaderFault(err)
	}
	return loaderFault(bootloader.Verify(dev, t, images))
}

// loaderFault turns an error of package bootloader into a fault.
func loaderFault(err error) error {
	switch {
	case errors.Is(err, bootloader.ErrSectors):
		return fault.Because(fault.Disk4KnBIOS, err)
	case errors.Is(err, bootloader.ErrUnfit):
		return fault.Because(fault.BootSetup, err)
	case errors.Is(err, bootloader.ErrDevice):
		return fault.Because(fault.DiskWrite, err)
	case errors.Is(err, bootloader.ErrReadBack):
		return fault.Because(fault.ReadBack, err)
	}
	return err
}

// unpackArtifact writes the kernel and the initramfs of src to the volume and returns their paths below it. initrd is
// empty if the kernel holds it.
func unpackArtifact(volume, src string) (kernel, initrd string, err error) {
	f, im, err := openArtifact(src)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	sum, err := HashOnDevice(src)
	if err != nil {
		return "", "", err
	}
	dir := filepath.Join(BootDir, hex.EncodeToString(sum[:6]))
	if err := MakeDir(volume, dir); err != nil {
		return "", "", err
	}
	kernel = filepath.Join(dir, "vmlinuz")
	if im.UKI == nil {
		_, err := PutFile(filepath.Join(volume, kernel), 0o600, f)
		return kernel, "", err
	}
	initrd = filepath.Join(dir, "initrd")
	if _, err := PutFile(filepath.Join(volume, kernel), 0o600, im.UKI.Linux()); err != nil {
		return "", "", err
	}
	if _, err := PutFile(filepath.Join(volume, initrd), 0o600, im.UKI.Initrd()); err != nil {
		return "", "", err
	}
	return kernel, initrd, nil
}

// openArtifact opens a boot artifact of either form. It follows no link and never blocks, because a recovery volume
// may be hostile. The file is positioned at its start. The image reads from the file, so the caller closes it when
// done with both.
func openArtifact(path string) (*os.File, *bootimage.Image, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	var im *bootimage.Image
	if err == nil {
		im, err = bootimage.Parse(f, st.Size())
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, im, nil
}

func removeOtherArtifacts(dir, keep string) error {
	all, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.Name() != keep {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return durable.Sync(dir)
}

// Entry returns the UEFI boot entry that starts a file on the ESP of t.
func Entry(description string, t layout.Table, sectorSize int, file, args string) (efi.Entry, error) {
	esp := t.Find(layout.ESP)
	if esp == nil {
		return efi.Entry{}, fault.Newf(fault.BootSetup, "no ESP in the table of %q", description)
	}
	return efi.Entry{Description: description, Partition: *esp, SectorSize: sectorSize, Path: file, Args: args}, nil
}

// Artifact is what the headers of a boot artifact say.
type Artifact struct {
	// Build is the build number.
	Build uint64
	// Monolithic reports whether the kernel holds its initramfs and needs no modules. Such an artifact starts any
	// release.
	Monolithic bool
}

// ReadArtifact reads the headers of a boot artifact of either form. It follows no link.
func ReadArtifact(path string) (Artifact, error) {
	f, im, err := openArtifact(path)
	if err != nil {
		return Artifact{}, err
	}
	defer f.Close()
	n, err := im.BuildNumber()
	if err != nil {
		return Artifact{}, err
	}
	return Artifact{Build: n, Monolithic: im.Form == bootimage.FormBzImage}, nil
}
