// Package machine is the unit as a job sees it: its firmware, platform, policy and disks, and its own initramfs. It
// also holds what several jobs do in the same way: find partitions, put boot artifacts in place, prove what was
// written.
//
// It decides nothing and reboots nothing.
package machine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/hw/partition"
	"gprovision/model/bootimage"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/model/policy"
	"gprovision/model/signature"
	"gprovision/model/step"
	"gprovision/site"
	"gprovision/unit/panel"
	"gprovision/unit/state"
)

// Machine is one unit during one boot.
type Machine struct {
	Doors
	Log      *slog.Logger
	Panel    *panel.Board
	Site     site.Site
	Policy   policy.Policy
	Keys     []signature.PublicKey // the policy's keys, parsed
	Firmware layout.Firmware
	// Identity is the platform, and how this machine was recognised as one.
	Identity platform.Identity
	// Serial identifies the unit: the serial number that it was provisioned with.
	Serial string
	Build  bootimage.Build
	// Sys is /sys.
	Sys fs.FS
	// Initramfs is the directory with the files of the boot artifact. It is "/" on a unit.
	Initramfs string
	// BootID identifies this boot.
	BootID string
	// Cmdline is the kernel command line, without secrets.
	Cmdline string
}

// Track returns a meter for a step of total units of work, and a function that ends it. The meter moves the panels
// and informs the observer of the step that ctx belongs to.
func (m *Machine) Track(ctx context.Context, total int64) (*panel.Meter, func()) {
	meter := panel.NewMeter(nil, total)
	return meter, meter.Watch(ctx, time.Second, func(p panel.Progress) {
		m.Panel.Progress(p)
		step.Report(ctx, p.Done, p.Total)
	})
}

// ReadBuild reads the boot artifact's build record below the directory initramfs.
func ReadBuild(initramfs string) (bootimage.Build, error) {
	b, err := os.ReadFile(filepath.Join(initramfs, bootimage.BuildPath))
	if err != nil {
		return bootimage.Build{}, err
	}
	return bootimage.ParseBuild(b)
}

// NewIDs returns random identifiers for new partition tables.
func NewIDs() layout.IDs {
	return layout.IDs{UUID: func() string { return uuid.Must(uuid.NewRandomFromReader(rand.Reader)).String() }}
}

// Labels returns the labels of the Site and the platform in the form that package layout takes.
func (m *Machine) Labels() layout.Labels {
	l := layout.Labels{Recovery: m.Site.Names.Recovery, Primary: m.Site.Names.Primary}
	if d := m.Identity.Variant.DataPartition; d != nil {
		l.Data = d.Label
	}
	return l
}

// LayMain lays out a main disk of this platform. volume is the size of the recovery volume on that disk
// (platform.Variant.Parts).
func (m *Machine) LayMain(d block.Disk, volume int64, ids layout.IDs) (layout.Table, error) {
	return layout.ForMain(m.Firmware, layout.Device{Size: d.Size, SectorSize: d.SectorSize}, m.Labels(), m.Identity.Variant.Parts(volume), ids)
}

// Disks lists the disks of the machine.
func (m *Machine) Disks() ([]block.Disk, error) { return m.List() }

// Candidates converts disks to the form that platform takes to choose among them.
func Candidates(disks []block.Disk) []platform.Candidate {
	var out []platform.Candidate
	for _, d := range disks {
		out = append(out, platform.Candidate{Name: d.Name, Path: d.Path, Bus: string(d.Bus), Model: d.Model, Vendor: d.Vendor, Serial: d.Serial,
			Size: d.Size})
	}
	return out
}

// Found is a partition on a disk.
type Found struct {
	Disk      block.Disk
	Table     layout.Table
	Partition layout.Partition
	// Path is the device node of the partition.
	Path string
}

// Partitions returns all partitions of the disks that allow accepts. A nil allow accepts every disk. A disk that
// cannot be read proves nothing: it is logged and skipped.
func (m *Machine) Partitions(allow func(platform.Variant, platform.Candidate) bool) ([]Found, error) {
	disks, err := m.Disks()
	if err != nil {
		return nil, err
	}
	return m.PartitionsOn(disks, allow), nil
}

// PartitionsOn is Partitions for a given list of disks.
func (m *Machine) PartitionsOn(disks []block.Disk, allow func(platform.Variant, platform.Candidate) bool) []Found {
	var out []Found
	for i, c := range Candidates(disks) {
		if allow != nil && !allow(m.Identity.Variant, c) {
			continue
		}
		t, err := m.ReadTable(c.Path)
		if err != nil {
			m.Log.Warn("partition table cannot be read", "disk", c.Name, "err", err)
			continue
		}
		for _, p := range t.Partitions {
			if path, ok := deviceNode(disks[i], p); ok {
				out = append(out, Found{Disk: disks[i], Table: t, Partition: p, Path: path})
			}
		}
	}
	return out
}

// deviceNode returns the device node of a partition. It reports false unless the kernel has a partition with that number,
// start and size.
func deviceNode(d block.Disk, p layout.Partition) (string, bool) {
	for _, k := range d.Partitions {
		if k.Number == p.Number && k.Start == p.Start && k.Size == p.Size {
			return k.Path, true
		}
	}
	return "", false
}

// ReadTable reads the partition table of a disk.
func (m *Machine) ReadTable(path string) (layout.Table, error) {
	dev, err := m.Open(path, Read)
	if err != nil {
		return layout.Table{}, err
	}
	defer dev.Close()
	return partition.Read(dev)
}

// ProbePartition returns the filesystem on a partition. For ext4, noted reports whether the kernel has recorded
// errors in it.
func (m *Machine) ProbePartition(path string) (info filesystem.Info, noted bool, err error) {
	dev, err := m.Open(path, Read)
	if err != nil {
		return info, false, err
	}
	defer dev.Close()
	if info, err = filesystem.Probe(dev, dev.Size()); err == nil && info.Type == "ext4" {
		noted, err = filesystem.NotedErrors(dev)
	}
	return info, noted, err
}

// LostExt4 reports whether a partition carried an ext4 filesystem with this label and its first superblock is lost or
// damaged. The backup superblock that a repair would use must be valid, and nothing else may be recognised on the
// partition.
func (m *Machine) LostExt4(path, label string) (bool, error) {
	dev, err := m.Open(path, Read)
	if err != nil {
		return false, err
	}
	defer dev.Close()
	info, err := filesystem.Probe(dev, dev.Size())
	if err != nil {
		return false, err
	}
	switch info.Type {
	case "", "ext2", "ext4", "jbd":
	default:
		return false, nil
	}
	if sound, err := filesystem.SoundExt4(dev); err != nil || sound {
		return false, err
	}
	was, ok, err := filesystem.ExtCopy(dev, dev.Size())
	return ok && was.Label == label, err
}

// BlankDisk reports whether a disk provably carries nothing. If not, it also returns what was found.
func (m *Machine) BlankDisk(path string) (bool, string, error) {
	dev, err := m.Open(path, Read)
	if err != nil {
		return false, "", err
	}
	defer dev.Close()
	return filesystem.Blank(dev, dev.Size())
}

// OnlyTable reports whether the only thing recognised on a disk is the partition table t, whole or in part. A write
// of the table that was cut short leaves a disk so. There may be other data that nothing recognises.
func (m *Machine) OnlyTable(path string, t layout.Table) (bool, error) {
	dev, err := m.Open(path, Read)
	if err != nil {
		return false, err
	}
	defer dev.Close()
	all, err := filesystem.ProbeAll(dev, dev.Size())
	if err != nil {
		return false, err
	}
	return onlyTable(all, t), nil
}

func onlyTable(all []filesystem.Info, t layout.Table) bool {
	const none = "00000000" // the disk signature of the MBR that protects a GPT
	for _, i := range all {
		own := i.Type == string(t.Kind) && i.UUID == t.UUID || t.Kind == layout.GPT && i.Type == string(layout.MBR) && i.UUID == none
		if i.Class != filesystem.Table || !own {
			return false
		}
	}
	return true
}

// How much is wiped at either end of a disk. It is more than any table, array member or first boot stage reaches.
const (
	wipeHead = 100 * layout.MiB
	wipeTail = 8 * layout.MiB
)

// Wipe zeros the head and the tail of a disk and makes the kernel forget its partitions.
func (m *Machine) Wipe(path string) error {
	return m.withDisk(path, func(dev Device) error {
		if err := partition.Wipe(dev, min(wipeHead, dev.Size()), min(wipeTail, dev.Size())); err != nil {
			return err
		}
		return dev.RereadTable()
	})
}

// passOn is boot code for BIOS. Int 0x18 tells the firmware that this disk cannot be started, so that it tries the
// next device. An endless halt follows.
var passOn = []byte{0xcd, 0x18, 0xf4, 0xeb, 0xfd}

// WriteTable wipes the places of older tables and filesystems, writes t and waits for the device nodes of the
// partitions. Partitions with a role in keep keep their content. It also writes boot code that sends BIOS firmware on
// to the next device: without any, the firmware would hang until a boot loader is installed.
func (m *Machine) WriteTable(path string, t layout.Table, keep ...layout.Role) error {
	return m.withDisk(path, func(dev Device) error {
		if err := partition.Wipe(dev, layout.MiB, layout.MiB); err != nil {
			return err
		}
		if _, err := dev.WriteAt(passOn, 0); err != nil {
			return fmt.Errorf("write boot code: %w", err)
		}
		for _, p := range t.Partitions {
			if slices.Contains(keep, p.Role) {
				continue
			}
			if err := zeroEnds(dev, p.Start, p.Size); err != nil {
				return err
			}
		}
		if err := partition.Write(dev, t); err != nil {
			return err
		}
		return dev.RereadTable()
	})
}

// BackupTable returns the table at the end of a disk whose first copy is damaged. For all other disks it returns nil.
// It makes the kernel know the partitions, which it does not do by itself. Nothing is written.
func (m *Machine) BackupTable(d block.Disk) (*layout.Table, error) {
	dev, err := m.Open(d.Path, Read)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	t, ok, err := partition.Backup(dev)
	if err != nil || !ok {
		return nil, err
	}
	for _, p := range t.Partitions {
		if _, known := deviceNode(d, p); !known {
			return &t, dev.RereadTable()
		}
	}
	return &t, nil
}

// RepairTable writes t again if either of its copies on the disk is not valid. Nothing else changes. Partitions of
// the disk may be mounted.
func (m *Machine) RepairTable(path string, t layout.Table) error {
	dev, err := m.Open(path, Share)
	if err != nil {
		return err
	}
	defer dev.Close()
	if partition.Verify(dev, t) == nil {
		return nil
	}
	if err := partition.Write(dev, t); err != nil {
		return err
	}
	return dev.RereadTable()
}

// ClearPartition zeros both ends of a partition, so that nothing is recognised in it.
func (m *Machine) ClearPartition(path string) error {
	return m.withDisk(path, func(dev Device) error { return zeroEnds(dev, 0, dev.Size()) })
}

// zeroEnds zeros both ends of a partition, because an array member may have its signature at either.
func zeroEnds(dev Device, at, size int64) error {
	n := min(size, int64(len(zeros)))
	return errors.Join(zero(dev, at, n), zero(dev, at+size-n, n))
}

// zeros are written where filesystems were. Nothing writes to them, so they take no memory.
var zeros [4 * layout.MiB]byte

// zero zeros n bytes of a device, as many as zeros has at most.
func zero(dev Device, at, n int64) error {
	if _, err := dev.WriteAt(zeros[:n], at); err != nil {
		return fmt.Errorf("zero %d bytes at %d: %w", n, at, err)
	}
	return nil
}

func (m *Machine) withDisk(path string, do func(Device) error) error {
	dev, err := m.Open(path, Write)
	if err != nil {
		return err
	}
	if err := do(dev); err != nil {
		dev.Close()
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := dev.Sync(); err != nil {
		dev.Close()
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return dev.Close()
}

// Format makes filesystems on the partitions of t that have one of the roles: FAT32 on the ESP, ext4 on the others.
// The disk must already have the table t.
func (m *Machine) Format(ctx context.Context, path string, t layout.Table, roles []layout.Role) error {
	for _, p := range t.Partitions {
		if !slices.Contains(roles, p.Role) {
			continue
		}
		part := block.PartitionPath(path, p.Number)
		switch p.Role {
		case layout.ESP:
			if err := m.withDisk(path, func(dev Device) error { return filesystem.MakeFAT32(dev, p) }); err != nil {
				return fmt.Errorf("make FAT32: %w", err)
			}
		case layout.Recovery, layout.Primary, layout.Data:
			if err := m.MakeExt4(ctx, part, p.FSLabel, p.FSUUID); err != nil {
				return fmt.Errorf("make ext4 on %s: %w", part, err)
			}
		}
	}
	return nil
}

// discardBound limits the time to discard a partition's old content before a filesystem is made.
const discardBound = 20 * time.Second

// MakeExt4 makes an ext4 filesystem on a device (filesystem.MakeExt4). It first discards the old content, if the
// device does that quickly.
func (m *Machine) MakeExt4(ctx context.Context, path, label, uuid string) error {
	err := m.withDisk(path, func(dev Device) error {
		meter, end := m.Track(ctx, dev.Size())
		defer end()
		began := time.Now()
		d := dev.Discard(ctx, discardBound, meter.Set)
		m.Log.Info("what was on the device is discarded", "device", path, "bytes", d.Bytes, "of", dev.Size(), "seconds",
			time.Since(began).Seconds(), "left", d.Why)
		return nil
	})
	if err != nil { // not fatal: if the device is bad, mke2fs will say so
		m.Log.Info("what was on the device is not discarded", "device", path, "err", err)
	}
	return filesystem.MakeExt4(ctx, m.Run, path, label, uuid)
}

// MainArgs returns the arguments of a boot entry that starts the main system of u.
func (m *Machine) MainArgs(u state.Unit) string {
	root := "UUID=" + u.System().FSUUID
	if u.Array == nil {
		root = "PARTUUID=" + u.System().UUID
	}
	if own := m.unitArgs(u.BootArgs); own != "" {
		return m.KernelArgs(own, "real_root="+root)
	}
	return m.KernelArgs("real_root=" + root)
}

// unitArgs returns those kernel arguments of a unit's record that may be used. The record lies on the recovery
// volume, so a locked artifact takes none of it. Any other takes the arguments on the allowed list, unless it sets
// the same argument itself. Consoles are the exception: they add up.
func (m *Machine) unitArgs(args string) string {
	if m.Policy.Locked {
		return ""
	}
	kept, _ := state.AllowedArgs(args)
	said := map[string]bool{}
	for _, a := range strings.Fields(m.KernelArgs()) {
		key, _, _ := strings.Cut(a, "=")
		said[key] = key != "console"
	}
	return strings.Join(slices.DeleteFunc(strings.Fields(kept), func(a string) bool {
		key, _, _ := strings.Cut(a, "=")
		return said[key]
	}), " ")
}

// KernelArgs returns the arguments of a boot entry that leaves the decision to init, followed by more.
func (m *Machine) KernelArgs(more ...string) string {
	var args []string
	if m.Policy.BootArgs != "" {
		args = append(args, m.Policy.BootArgs)
	}
	if a := m.Identity.Variant.KernelArgs(); a != "" {
		args = append(args, a)
	}
	return strings.Join(append(args, more...), " ")
}

// DiskRecord returns a disk in the form of the unit's record.
func DiskRecord(d block.Disk, t layout.Table) state.Disk {
	return state.Disk{Size: d.Size, SectorSize: d.SectorSize, Bus: string(d.Bus), Model: d.Model, Serial: d.Serial, WWN: d.WWN, Table: t}
}

// SetReadOnly makes the kernel refuse writes to a disk until the next boot, or accept them again.
func (m *Machine) SetReadOnly(path string, on bool) error {
	dev, err := m.Open(path, Read)
	if err != nil {
		return err
	}
	defer dev.Close()
	return dev.SetReadOnly(on)
}

// ErrNoGRUB means that the boot artifact carries no boot loader for BIOS.
var ErrNoGRUB = errors.New("the boot artifact carries no GRUB images")
