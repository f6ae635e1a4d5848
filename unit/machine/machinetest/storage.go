package machinetest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/hw/partition"
	"gprovision/hw/raid"
	"gprovision/model/layout"
)

// storage is the disks of a machine and the arrays on them. It is behind the doors.
type storage struct {
	t       *testing.T
	sys     string // the directory that stands for /sys
	disks   []*disk
	arrays  map[string]*array // running arrays, by device node
	written map[string]bool   // devices opened for writing
}

// array is a running mirror, the only kind of array here.
type array struct {
	members []string // device nodes
	size    int64
}

// dataOffset is where the content of an array starts in a member, in bytes.
const dataOffset = layout.MiB

// find returns the disk of a device node, and where on the disk the device lies.
func (s *storage) find(path string) (d *disk, at, size int64, err error) {
	if a := s.arrays[path]; a != nil {
		d, at, _, err := s.find(a.members[0])
		return d, at + dataOffset, a.size, err
	}
	for _, d := range s.disks {
		if d.Path == path {
			return d, 0, d.Size, nil
		}
		for _, p := range d.Partitions {
			if p.Path == path {
				return d, p.Start, p.Size, nil
			}
		}
	}
	return nil, 0, 0, fmt.Errorf("open %s: %w", path, syscall.ENOENT)
}

// reread makes the kernel reread the partitions of a disk.
func (s *storage) reread(d *disk) {
	f, err := os.Open(d.file)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer f.Close()
	t, err := partition.Read(&device{d: d, f: f, size: d.Size, quiet: true})
	d.Partitions = nil
	if err != nil {
		return
	}
	for _, p := range t.Partitions {
		path := block.PartitionPath(d.Path, p.Number)
		d.Partitions = append(d.Partitions, block.Partition{Number: p.Number, Path: path, Start: p.Start, Size: p.Size})
	}
}

func (s *storage) begin(device string, members []string) error {
	a := &array{members: members, size: 1 << 62}
	sys := filepath.Join(s.sys, "block", filepath.Base(device))
	err := errors.Join(os.MkdirAll(filepath.Join(sys, "md"), 0o755), os.MkdirAll(filepath.Join(sys, "slaves"), 0o755),
		os.WriteFile(filepath.Join(sys, "md/array_state"), []byte("read-auto\n"), 0o600))
	for _, m := range members {
		_, _, size, ferr := s.find(m)
		a.size = min(a.size, size-dataOffset)
		err = errors.Join(err, ferr, os.WriteFile(filepath.Join(sys, "slaves", filepath.Base(m)), nil, 0o600))
	}
	s.arrays[device] = a
	return err
}

func (s *storage) end(device string) {
	delete(s.arrays, device)
	if err := os.RemoveAll(filepath.Join(s.sys, "block", filepath.Base(device))); err != nil {
		s.t.Error(err)
	}
}

// put writes to a device behind the doors.
func (s *storage) put(path string, b []byte, off int64) error {
	if a := s.arrays[path]; a != nil {
		for _, m := range a.members {
			if err := s.put(m, b, off+dataOffset); err != nil {
				return err
			}
		}
		return nil
	}
	d, at, _, err := s.find(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(d.file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = writeSparse(f, b, at+off)
	return errors.Join(err, f.Close())
}

// writes records a write to a device. For an array it records the members.
func (s *storage) writes(path string) {
	if a := s.arrays[path]; a != nil {
		for _, m := range a.members {
			s.written[m] = true
		}
		return
	}
	s.written[path] = true
}

// look lets do read a device from an offset.
func (s *storage) look(path string, from int64, do func(d *device) error) error {
	d, at, size, err := s.find(path)
	if err != nil {
		return err
	}
	f, err := os.Open(d.file)
	if err != nil {
		return err
	}
	defer f.Close()
	return do(&device{d: d, f: f, at: at + from, size: size - from, quiet: true})
}

// probe returns what is on a device.
func (s *storage) probe(path string) (info filesystem.Info, err error) {
	err = s.look(path, 0, func(d *device) error {
		info, err = filesystem.Probe(d, d.size)
		return err
	})
	return info, err
}

// member reads the array metadata on a device.
func (s *storage) member(path string) (m raid.Member, err error) {
	err = s.look(path, 0, func(d *device) error {
		m, err = raid.Read(d, d.size)
		return err
	})
	return m, err
}

// carries returns the filesystem on a partition, or on the array that the partition is a member of.
func (s *storage) carries(path string) (info filesystem.Info, err error) {
	if _, err := s.member(path); err != nil {
		return s.probe(path)
	}
	err = s.look(path, dataOffset, func(d *device) error {
		info, err = filesystem.Probe(d, d.size)
		return err
	})
	return info, err
}

// cleared returns the filesystems of a disk that a write of zeros destroys, because it reaches their start.
func (s *storage) cleared(d *disk, b []byte, at int64) (uuids []string) {
	const head = 4096
	for _, p := range d.Partitions {
		from := p.Start - at
		if from < 0 || from+head > int64(len(b)) || !bytes.Equal(b[from:from+head], make([]byte, head)) {
			continue
		}
		if info, err := s.carries(p.Path); err == nil && info.UUID != "" {
			uuids = append(uuids, info.UUID)
		}
	}
	return uuids
}
