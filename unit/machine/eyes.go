package machine

import (
	"cmp"
	"context"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/hw/host"
	"gprovision/hw/raid"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/model/policy"
	"gprovision/model/signature"
)

// Eyes look at a machine and cannot change its disks. Code that has only Eyes has no way to write. They open devices
// for reading, and mount filesystems read-only without replaying the journal, since a replay writes. They start
// arrays so that nothing is written to the members.
type Eyes struct{ m *Machine }

// EyesOf returns the eyes of a machine.
func EyesOf(m *Machine) Eyes { return Eyes{m} }

// Board is the serial number that the machine has in its firmware.
func (e Eyes) Board() string { return cmp.Or(e.m.Identity.Serial, e.m.Serial) }

// Firmware is the firmware that started the machine.
func (e Eyes) Firmware() layout.Firmware { return e.m.Firmware }

// Variant is the platform.
func (e Eyes) Variant() platform.Variant { return e.m.Identity.Variant }

// Policy is the boot artifact's policy.
func (e Eyes) Policy() policy.Policy { return e.m.Policy }

// Keys are the policy's keys.
func (e Eyes) Keys() []signature.PublicKey { return e.m.Keys }

// Places is where volumes are mounted.
func (e Eyes) Places() Places { return e.m.Places }

// Disks lists the disks of the machine.
func (e Eyes) Disks() ([]block.Disk, error) { return e.m.Disks() }

// Partitions is Machine.Partitions.
func (e Eyes) Partitions(allow func(platform.Variant, platform.Candidate) bool) ([]Found, error) {
	return e.m.Partitions(allow)
}

// PartitionsOn is Machine.PartitionsOn.
func (e Eyes) PartitionsOn(disks []block.Disk, allow func(platform.Variant, platform.Candidate) bool) []Found {
	return e.m.PartitionsOn(disks, allow)
}

// ReadTable reads the partition table of a disk.
func (e Eyes) ReadTable(path string) (layout.Table, error) { return e.m.ReadTable(path) }

// ProbePartition is Machine.ProbePartition.
func (e Eyes) ProbePartition(path string) (info filesystem.Info, noted bool, err error) {
	return e.m.ProbePartition(path)
}

// AwaitsReplay reports whether the ext4 filesystem on a partition has a journal to replay (filesystem.AwaitsReplay).
func (e Eyes) AwaitsReplay(path string) (bool, error) {
	dev, err := e.m.Open(path, Read)
	if err != nil {
		return false, err
	}
	defer dev.Close()
	return filesystem.AwaitsReplay(dev)
}

// LostExt4 is Machine.LostExt4.
func (e Eyes) LostExt4(path, label string) (bool, error) { return e.m.LostExt4(path, label) }

// BlankDisk is Machine.BlankDisk.
func (e Eyes) BlankDisk(path string) (blank bool, why string, err error) { return e.m.BlankDisk(path) }

// OnlyTable is Machine.OnlyTable.
func (e Eyes) OnlyTable(path string, t layout.Table) (bool, error) { return e.m.OnlyTable(path, t) }

// BackupTable is Machine.BackupTable.
func (e Eyes) BackupTable(d block.Disk) (*layout.Table, error) { return e.m.BackupTable(d) }

// Carries is Machine.Carries.
func (e Eyes) Carries(path string) (string, error) { return e.m.Carries(path) }

// Members is Machine.Members.
func (e Eyes) Members() ([]raid.Part, error) { return e.m.Members() }

// StartArray is Machine.StartArray.
func (e Eyes) StartArray(ctx context.Context, a raid.Array) error { return e.m.StartArray(ctx, a) }

// StopArray is Machine.StopArray.
func (e Eyes) StopArray(ctx context.Context) error { return e.m.StopArray(ctx) }

// Mount mounts a filesystem read-only at an existing directory. It does not replay the journal of ext4. So the mount
// shows the truth only where AwaitsReplay returned false.
func (e Eyes) Mount(source, dir, fstype string) error {
	o := host.MountOptions{ReadOnly: true, NoSUID: true, NoDev: true, NoExec: true}
	if fstype == "ext4" {
		o.Data = "noload"
	}
	return e.m.Mount(source, dir, fstype, o)
}

// Unmount unmounts a directory.
func (e Eyes) Unmount(dir string) error { return e.m.Unmount(dir) }

// StartedFrom returns the GUID of the partition that the EFI stub started from (efi.Vars.StartedFrom).
func (e Eyes) StartedFrom() (string, error) { return e.m.Vars.StartedFrom() }
