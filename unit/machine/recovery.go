package machine

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gprovision/hw/block"
	"gprovision/hw/efi"
	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/grub"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/model/policy"
	"gprovision/model/signature"
	"gprovision/unit/state"
)

// The titles of our boot entries.
const (
	NormalEntry   = grub.NormalTitle
	RecoveryEntry = "Recovery"
	// ForcedEntry never starts by itself. A person chooses it in the menu of the firmware or, on BIOS, of the boot
	// loader.
	ForcedEntry = grub.ForcedTitle
	// EraseEntry never starts by itself either.
	EraseEntry = grub.EraseTitle
)

// ForcedArg returns the kernel argument that tells init what a person chose in a boot menu. It is empty if the policy
// forbids the choice, or forbids making it by kernel argument.
func (m *Machine) ForcedArg() string {
	if m.Policy.Locked || m.Policy.ForcedRestore == policy.ForcedRestoreNever {
		return ""
	}
	return policy.ForcedRestoreArg
}

// EraseArg returns the kernel argument of EraseEntry. It is empty where there is no such entry: where the policy forbids
// ForcedEntry, and for a locked policy, with which only panels, requests and the running system may ask for an erase.
func EraseArg(m *Machine) string {
	if m.ForcedArg() == "" {
		return ""
	}
	return policy.EraseArg
}

// PutRecoveryArtifact makes the recovery device boot the recovery artifact on the recovery volume, which is mounted
// at dir. It writes nothing if the device does so already.
func (m *Machine) PutRecoveryArtifact(u state.Unit, dir string) error {
	disk, err := m.RecoveryDisk(u)
	if err != nil {
		return err
	}
	return PutRecoveryArtifactOn(m, disk.Path, u, dir)
}

// PutRecoveryArtifactOn is PutRecoveryArtifact for a disk that the caller vouches for: it has the table of u.Recovery.
func PutRecoveryArtifactOn(m *Machine, disk string, u state.Unit, dir string) error {
	artifact := filepath.Join(dir, m.Site.Names.BootFile)
	if err := Regular(artifact); err != nil {
		return err
	}
	if m.Firmware == layout.UEFI {
		return m.putESP(disk, *u.Recovery.Table.Find(layout.ESP), RemovablePath, artifact)
	}
	main := u.System()
	if main == nil {
		return fault.Newf(fault.RecoveryDamaged, "the unit's record has no partition for the main system")
	}
	entry := grub.Entry{Title: RecoveryEntry, Args: m.KernelArgs(), Forced: m.ForcedArg(), Erase: EraseArg(m)}
	err := m.PutArtifactBIOS(dir, artifact, entry, func(e grub.Entry) []byte {
		return grub.RecoveryConfig(grub.Recovery{Main: main.FSUUID, Mark: "/" + m.Site.Names.Mark, Entry: e})
	})
	if err != nil {
		return err
	}
	return m.InstallLoader(disk, u.Recovery.Table)
}

// PutMainArtifact makes the main disks boot the artifact of the system mounted at root. On BIOS that mount must be
// writable. disks are the paths of the main disks in the order of the record, "" for a missing array member. It
// writes nothing if the disks do so already.
func (m *Machine) PutMainArtifact(u state.Unit, disks []string, root string) error {
	artifact := filepath.Join(root, "boot", m.Site.Names.BootFile)
	main := u.System()
	if main == nil || len(disks) != len(u.Main) {
		return fault.Newf(fault.RecoveryDamaged, "the unit's record has no partition for the main system, or not one table for each disk")
	}
	if m.Firmware == layout.UEFI {
		for i, disk := range disks {
			if disk == "" {
				continue
			}
			esp := u.Main[i].Table.Find(layout.ESP)
			if esp == nil {
				return fault.Newf(fault.RecoveryDamaged, "the unit's record has no ESP on %s", disk)
			}
			if err := m.putESP(disk, *esp, NormalFile(u), artifact); err != nil {
				return err
			}
		}
		return nil
	}
	entry := grub.Entry{Title: NormalEntry, Args: m.MainArgs(u), Forced: m.ForcedArg(), Erase: EraseArg(m)}
	if volume := u.Recovery.Table.Find(layout.Recovery); volume != nil {
		entry.Fallback = volume.FSUUID
	}
	if err := m.PutArtifactBIOS(root, artifact, entry, grub.MainConfig); err != nil {
		return err
	}
	for i, disk := range disks { // each array member can start the system
		if disk == "" {
			continue
		}
		if err := m.InstallLoader(disk, u.Main[i].Table); err != nil {
			return err
		}
	}
	return nil
}

// putESP puts the artifact in a file on the ESP p of a disk. An ESP without a FAT filesystem is formatted: it held
// only our own boot files.
func (m *Machine) putESP(disk string, p layout.Partition, file, artifact string) error {
	path := block.PartitionPath(disk, p.Number)
	info, _, err := m.ProbePartition(path)
	if err != nil {
		return err
	}
	if info.Type != "vfat" {
		m.Log.Warn("the ESP carries no FAT, making it anew", "partition", path, "found", info.Type)
		if err := m.makeESP(disk, p); err != nil {
			return err
		}
	}
	return m.PutArtifactESP(path, file, artifact)
}

// makeESP formats an ESP. Other partitions of the disk may be mounted.
func (m *Machine) makeESP(disk string, p layout.Partition) error {
	dev, err := m.Open(disk, Share)
	if err != nil {
		return err
	}
	return errors.Join(filesystem.MakeFAT32(dev, p), dev.Close())
}

// UpdateRecovery replaces the recovery artifact by the boot artifact fresh, and reports whether it did. own is the
// recovery artifact's file on the recovery volume. It does so if fresh is trusted and has a higher build number, or
// if own cannot be read. It never goes back to an older build. Equal numbers with different content are logged. A
// signature beside fresh is copied too. The recovery device still boots the old artifact until PutRecoveryArtifact
// runs, in a later step.
//
// trusted means that a key of the policy vouches for fresh, by the artifact's own signature or that of the image it
// comes from. The build number alone is no reason to trust it.
func UpdateRecovery(log *slog.Logger, own, fresh string, trusted bool) (bool, error) {
	a, err := ReadArtifact(fresh)
	if err != nil {
		return false, fmt.Errorf("read the boot artifact of the release: %w", err)
	}
	b, err := ReadArtifact(own)
	switch {
	case err != nil:
		log.Warn("recovery artifact cannot be read, replacing it", "err", err, "trusted", trusted)
	case a.Build < b.Build:
		return false, nil
	case a.Build == b.Build:
		x, err := HashOnDevice(fresh)
		if err != nil {
			return false, err
		}
		if y, err := HashOnDevice(own); err != nil || x != y {
			log.Warn("boot artifacts have the same build number and different content", "build", a.Build, "release", hex.EncodeToString(x[:]),
				"recovery", hex.EncodeToString(y[:]), "err", err)
		}
		return false, nil
	case !trusted:
		log.Warn("the recovery artifact stays: the newer one is not signed, and comes from no signed image", "build", b.Build, "release", a.Build)
		return false, nil
	}
	in, err := os.Open(fresh)
	if err != nil {
		return false, err
	}
	defer in.Close()
	if Regular(own) != nil {
		if err := os.RemoveAll(own); err != nil {
			return false, err
		}
	}
	if err := os.RemoveAll(own + signature.Suffix); err != nil {
		return false, err
	}
	if _, err = PutFile(own, 0o600, in); err != nil {
		return false, err
	}
	return true, copySignature(fresh, own)
}

// copySignature copies the signature beside one file, if there is one, to the place beside another with the same
// content.
func copySignature(from, to string) error {
	if Regular(from+signature.Suffix) != nil {
		return nil
	}
	in, err := os.Open(from + signature.Suffix)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = PutFile(to+signature.Suffix, 0o600, io.LimitReader(in, signature.MaxSize))
	return err
}

// EnsureEntries makes the firmware start the main disk first and the recovery device second. Where the policy allows
// it, the firmware's menu offers a forced restore and an erase too. It writes only what is missing or wrong.
func (m *Machine) EnsureEntries(vars *efi.Vars, u state.Unit) (efi.Change, error) {
	main := u.System()
	if main == nil {
		return efi.Change{}, fault.Newf(fault.RecoveryDamaged, "the unit's record has no partition for the main system")
	}
	var entries []efi.Entry
	for i, d := range u.Main {
		name := NormalEntry
		if i > 0 { // each array member can start the system
			name = fmt.Sprintf("%s (disk %d)", NormalEntry, i+1)
		}
		normal, err := Entry(name, d.Table, d.SectorSize, NormalFile(u), m.MainArgs(u))
		if err != nil {
			return efi.Change{}, err
		}
		entries = append(entries, normal)
	}
	recovery, err := recoveryEntry(m, u.Recovery)
	if err != nil {
		return efi.Change{}, err
	}
	want := append(entries, recovery)
	if m.Policy.ForcedRestore != policy.ForcedRestoreNever {
		forced := recovery
		forced.Description, forced.MenuOnly = ForcedEntry, true
		forced.Args = strings.TrimSpace(forced.Args + " " + m.ForcedArg())
		want = append(want, forced)
	}
	if arg := EraseArg(m); arg != "" {
		erase := recovery
		erase.Description, erase.MenuOnly = EraseEntry, true
		erase.Args = strings.TrimSpace(erase.Args + " " + arg)
		want = append(want, erase)
	}
	change, err := efi.Ensure(vars, want, ForcedEntry, EraseEntry)
	if err != nil {
		return change, fault.Because(fault.BootSetup, err)
	}
	if !change.Empty() {
		m.Log.Info("boot entries", "written", change.Written, "deleted", change.Deleted)
	}
	return change, nil
}

// recoveryEntry returns the boot entry that starts the recovery artifact on a disk.
func recoveryEntry(m *Machine, d state.Disk) (efi.Entry, error) {
	return Entry(RecoveryEntry, d.Table, d.SectorSize, RemovablePath, m.KernelArgs())
}

// EnsureRecoveryEntry makes UEFI firmware start the recovery artifact on a disk first. Other firmware goes by its own order of disks.
func EnsureRecoveryEntry(m *Machine, d state.Disk) error {
	if m.Firmware != layout.UEFI {
		return nil
	}
	e, err := recoveryEntry(m, d)
	if err != nil {
		return err
	}
	change, err := efi.Ensure(m.Vars, []efi.Entry{e})
	if err != nil {
		return fault.Because(fault.BootSetup, err)
	}
	m.Log.Info("boot entries", "written", change.Written, "deleted", change.Deleted)
	return nil
}

// RecoveryDisk returns the disk of the recovery volume that u records. The platform must allow its bus. The record
// lies on the volume itself and is not trusted, so the partitions that will be written to must be on the disk as
// recorded.
func (m *Machine) RecoveryDisk(u state.Unit) (block.Disk, error) {
	volume := u.Recovery.Table.Find(layout.Recovery)
	if volume == nil {
		return block.Disk{}, fault.Newf(fault.RecoveryDamaged, "the unit's record has no partition for the recovery volume")
	}
	parts, err := m.Partitions(platform.AllowedRecovery)
	if err != nil {
		return block.Disk{}, err
	}
	var found []Found
	for _, p := range parts {
		if p.Partition.UUID == volume.UUID {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 0:
		return block.Disk{}, fault.Newf(fault.NoRecovery, "no disk carries the partition %s", volume.UUID)
	case 1:
	default:
		return block.Disk{}, fault.Newf(fault.RecoveryAmbiguous, "%s and %s carry the same partition", found[0].Path, found[1].Path)
	}
	if err := checkRecovery(m.Firmware, u.Recovery.Table, found[0].Table); err != nil {
		return block.Disk{}, fault.Because(fault.RecoveryDamaged, err)
	}
	return found[0].Disk, nil
}

// checkRecovery compares the recorded table of the recovery device with the one on the disk. The table on the disk
// has no roles.
func checkRecovery(fw layout.Firmware, recorded, real layout.Table) error {
	if recorded.Kind != real.Kind || len(recorded.Partitions) != len(real.Partitions) {
		return errors.New("the unit's record has another partition table than its recovery device")
	}
	for _, r := range recorded.Partitions {
		same := slices.ContainsFunc(real.Partitions, func(p layout.Partition) bool {
			return p.Number == r.Number && p.Start == r.Start && p.Size == r.Size && p.UUID == r.UUID && p.Type == r.Type
		})
		if !same {
			return fmt.Errorf("partition %d of the recovery device is not as the unit's record has it", r.Number)
		}
	}
	if esp := recorded.Find(layout.ESP); fw == layout.UEFI && (esp == nil || esp.Type != layout.TypeESP) {
		return errors.New("the unit's record has no ESP on its recovery device")
	}
	return nil
}
