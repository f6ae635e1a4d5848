package machine

import (
	"path/filepath"

	"gprovision/hw/block"
	"gprovision/hw/bootloader"
	"gprovision/hw/efi"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/unit/state"
)

// The descriptions of our boot entries.
const (
	NormalEntry   = "Normal Boot"
	RecoveryEntry = "Recovery"
)

// PutRecoveryArtifact makes the recovery device boot the recovery artifact that lies on the recovery volume, mounted at dir.
// Nothing is written where it does already.
func (m *Machine) PutRecoveryArtifact(u state.Unit, dir string) error {
	artifact := filepath.Join(dir, m.Site.Names.BootFile)
	disk, err := m.diskOf(u.Recovery.Table)
	if err != nil {
		return err
	}
	if m.Firmware == layout.UEFI {
		return PutArtifactESP(block.PartitionPath(disk, u.Recovery.Table.Find(layout.ESP).Number), artifact)
	}
	main := u.Main[0].Table.Find(layout.Primary)
	entry := bootloader.Entry{Title: RecoveryEntry, Args: m.KernelArgs("")}
	return m.PutArtifactBIOS(disk, u.Recovery.Table, dir, artifact, entry, func(e bootloader.Entry) []byte {
		return bootloader.RecoveryConfig(bootloader.Recovery{Main: main.FSUUID, Mark: "/" + m.Site.Names.Mark, Entry: e})
	})
}

// EnsureEntries makes the firmware start the main disk first and the recovery device second. It writes only what is missing
// or wrong.
func (m *Machine) EnsureEntries(vars *efi.Vars, u state.Unit) error {
	normal, err := Entry(NormalEntry, u.Main[0].Table, u.Main[0].SectorSize, m.KernelArgs(u.Main[0].Table.Find(layout.Primary).UUID))
	if err != nil {
		return err
	}
	recovery, err := Entry(RecoveryEntry, u.Recovery.Table, u.Recovery.SectorSize, m.KernelArgs(""))
	if err != nil {
		return err
	}
	change, err := efi.Ensure(vars, []efi.Entry{normal, recovery})
	if err != nil {
		return err
	}
	m.Log.Info("boot entries", "written", change.Written, "deleted", change.Deleted)
	return nil
}

// diskOf returns the node of the one disk that carries the table.
func (m *Machine) diskOf(t layout.Table) (string, error) {
	parts, err := m.Partitions(nil)
	if err != nil {
		return "", err
	}
	found := ""
	for _, p := range parts {
		if p.Partition.UUID != t.Partitions[0].UUID || p.Disk.Path == found {
			continue
		}
		if found != "" {
			return "", fault.Newf(fault.RecoveryAmbiguous, "%s and %s carry the same partition", found, p.Disk.Path)
		}
		found = p.Disk.Path
	}
	if found == "" {
		return "", fault.Newf(fault.NoRecovery, "no disk carries the partition %s", t.Partitions[0].UUID)
	}
	return found, nil
}
