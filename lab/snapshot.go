package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"gprovision/model/layout"
)

// Snapshot is the state of a unit that was off: its disks and its firmware's variables. It is never written; any number of
// units may start from it, at the same time too. It lies in a directory, which must stay while they exist.
type Snapshot struct {
	// Config is that of the unit.
	Config Config
	// Dir is the directory.
	Dir string
}

// Snapshot freezes the state of u, which must be off, into the directory dir. The unit itself goes on from it.
func (u *Unit) Snapshot(ctx context.Context, dir string) (*Snapshot, error) {
	if u.On() {
		return nil, errors.New("a snapshot needs a unit that is off")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make snapshot: %w", err)
	}
	s := &Snapshot{Config: u.Config, Dir: dir}
	for _, d := range u.Disks {
		if err := os.Rename(u.diskPath(d.Name), s.diskPath(d.Name)); err != nil {
			return nil, fmt.Errorf("make snapshot: %w", err)
		}
		if err := makeDisk(ctx, u.log, u.diskPath(d.Name), s.diskPath(d.Name), 0); err != nil {
			return nil, err
		}
	}
	if u.Firmware == layout.UEFI {
		if err := copyFile(filepath.Join(dir, "vars.fd"), u.varsPath()); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Snapshot) diskPath(name string) string { return filepath.Join(s.Dir, name+".qcow2") }

// Fork makes a unit in dir that starts from s. change, which may be nil, changes its configuration first: a disk that
// disappears from it is unplugged, a new one is empty, and one named in blank is replaced by an empty one.
func (s *Snapshot) Fork(ctx context.Context, log *slog.Logger, n *Network, dir string, change func(*Config), blank ...string) (*Unit, error) {
	c := s.Config
	c.Disks = append([]Disk(nil), s.Config.Disks...)
	if change != nil {
		change(&c)
	}
	u, err := openUnit(log, n, dir, c)
	if err != nil {
		return nil, err
	}
	for _, d := range u.Disks {
		base := s.diskPath(d.Name)
		if _, err := os.Stat(base); err != nil {
			base = ""
		}
		for _, name := range blank {
			if name == d.Name {
				base = ""
			}
		}
		if err := makeDisk(ctx, log, u.diskPath(d.Name), base, d.Size); err != nil {
			return nil, err
		}
	}
	if u.Firmware == layout.UEFI {
		if err := copyFile(u.varsPath(), filepath.Join(s.Dir, "vars.fd")); err != nil {
			return nil, err
		}
	}
	return u, nil
}
