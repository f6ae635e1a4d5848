package machinetest

import (
	"errors"
	"slices"
	"strings"

	"gprovision/hw/drive"
	"gprovision/unit/machine"
)

// asDrive makes an open disk one that is to be erased. It takes no commands, as one of virtio.
func asDrive(r *Rig, d *device) *machine.Drive {
	return &machine.Drive{
		Device: d, Blocks: raw{d},
		Release: func() error {
			r.mu.Lock()
			defer r.mu.Unlock()
			d.d.claimed = false
			return nil
		},
		State: func() (drive.State, error) {
			if err := r.pass("state %s", d.path); err != nil {
				return drive.State{}, err
			}
			return stateOf(r, d.d), nil
		},
		Rescan: func() error { return r.pass("rescan %s", d.path) },
	}
}

// stateOf says what the machine knows of a disk that is open.
func stateOf(r *Rig, d *disk) drive.State {
	r.mu.Lock()
	defer r.mu.Unlock()
	number := drive.Number{Major: 252, Minor: uint32(16 * (1 + slices.Index(r.store.disks, d)))}
	s := drive.State{Number: number, Size: d.Size, Claimed: true}
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
	return s
}

// raw is the blocks of a disk.
type raw struct{ *device }

func (raw) Discard(int64, int64) error { return errors.ErrUnsupported }
