package machinetest

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"gprovision/hw/block"
	"gprovision/hw/drive"
	"gprovision/unit/machine"
)

// openDrive opens a disk to erase it. It takes no commands, as one of virtio.
func (r *Rig) openDrive(d block.Disk, _ bool) (*machine.Drive, error) {
	dev, err := r.open(d.Path, machine.Write)
	if err != nil {
		return nil, err
	}
	return &machine.Drive{
		Blocks: raw{dev.(*device)},
		State: func() (drive.State, error) {
			if err := r.pass("state %s", d.Path); err != nil {
				return drive.State{}, err
			}
			return r.StateOf(d.Name)
		},
		Rescan: func() error { return r.pass("rescan %s", d.Path) },
		Close:  dev.Close,
	}, nil
}

// StateOf says what the machine knows of a disk that is open.
func (r *Rig) StateOf(name string) (drive.State, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.store.disks, func(d *disk) bool { return d.Name == name })
	if i < 0 {
		return drive.State{}, fmt.Errorf("%s: %w", name, os.ErrNotExist)
	}
	d := r.store.disks[i]
	s := drive.State{Number: drive.Number{Major: 252, Minor: uint32(16 * (i + 1))}, Size: d.Size, Claimed: true}
	on := func(path string) bool { return strings.HasPrefix(path, d.Path) }
	for dir, m := range r.mounts {
		if on(m.source) {
			s.Users = append(s.Users, "mounted at "+dir)
		}
	}
	for path, a := range r.store.arrays {
		if slices.ContainsFunc(a.members, on) {
			s.Users = append(s.Users, "held by "+path)
		}
	}
	return s, nil
}

// raw is the blocks of a disk.
type raw struct{ *device }

func (raw) Discard(int64, int64) error { return errors.ErrUnsupported }
