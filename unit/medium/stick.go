package medium

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"gprovision/hw/block"
	"gprovision/hw/host"
	"gprovision/model/layout"
	"gprovision/unit/machine"
)

// Stick is a recovery stick.
type Stick struct {
	Disk  block.Disk
	Table layout.Table
}

// Sticks returns the recovery sticks among disks. It skips disks in own, and sticks whose partitions the kernel has
// not read yet.
func (f Finder) Sticks(disks []block.Disk, own map[string]bool) (out []Stick) {
	for _, d := range disks {
		if own[d.Name] || !isPluggable(d) {
			continue
		}
		t, err := f.Eyes.ReadTable(d.Path)
		if err != nil {
			continue
		}
		images := stickPartition(t)
		if images > 0 && slices.ContainsFunc(d.Partitions, func(p block.Partition) bool { return p.Number == images }) {
			out = append(out, Stick{d, t})
		}
	}
	return out
}

// Carries reports whether the stick has a partition with the GUID id. Boot loader and EFI stub identify the stick
// that they started from by such a GUID.
func (s Stick) Carries(id string) bool {
	return id != "" && slices.ContainsFunc(s.Table.Partitions, func(p layout.Partition) bool { return p.UUID == id })
}

// bundlePartition returns the device node of a stick's partition for support bundles.
func (s Stick) bundlePartition(m *machine.Machine) (string, error) {
	for _, p := range s.Disk.Partitions {
		i := slices.IndexFunc(s.Table.Partitions, func(t layout.Partition) bool { return t.Number == p.Number && t.Type == layout.TypeData })
		if i < 0 {
			continue
		}
		if info, _, err := m.ProbePartition(p.Path); err == nil && info.Type == "vfat" && info.Label == layout.BundleLabel {
			return p.Path, nil
		}
	}
	return "", fmt.Errorf("the stick %s has no FAT partition %s", s.Disk.Name, layout.BundleLabel)
}

// Save writes a file to the stick's partition for support bundles and reads it back from the device. If the file
// cannot be written whole, it is removed.
func (s Stick) Save(m *machine.Machine, name string, content []byte) error {
	part, err := s.bundlePartition(m)
	if err != nil {
		return err
	}
	on := func(dir string) error {
		return m.Mount(part, dir, "vfat", host.MountOptions{NoSUID: true, NoDev: true, NoExec: true})
	}
	dir, done, err := mount(m.Places.Medium, on, m.Unmount)
	if err != nil {
		return err
	}
	_, err = machine.PutFile(filepath.Join(dir, name), 0o600, bytes.NewReader(content))
	return errors.Join(err, done())
}
