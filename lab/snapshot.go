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

// Cut makes a snapshot in dir of what the disks of a unit hold that started from s and whose power was cut. logs are their write logs,
// in the order of s.Config.Disks, and lengths how long these were then: see Glance. What the unit had flushed is there; of the rest what
// keep says.
func (s *Snapshot) Cut(ctx context.Context, log *slog.Logger, dir string, logs []string, lengths []int64, keep func(WriteEntry) bool) (*Snapshot, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make snapshot: %w", err)
	}
	out := &Snapshot{Config: s.Config, Dir: dir}
	for i, d := range s.Config.Disks {
		raw := filepath.Join(dir, d.Name+".raw")
		if err := run(ctx, log, "qemu-utils", "qemu-img", "convert", "-q", "-O", "raw", s.diskPath(d.Name), raw); err != nil {
			return nil, fmt.Errorf("copy disk %s: %w", d.Name, err)
		}
		if err := Replay(raw, logs[i], lengths[i], keep); err != nil {
			return nil, fmt.Errorf("disk %s: %w", d.Name, err)
		}
		if err := run(ctx, log, "qemu-utils", "qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", raw, out.diskPath(d.Name)); err != nil {
			return nil, fmt.Errorf("copy disk %s: %w", d.Name, err)
		}
		if err := os.Remove(raw); err != nil {
			return nil, err
		}
	}
	if s.Config.Firmware == layout.UEFI {
		if err := copyFile(filepath.Join(dir, "vars.fd"), filepath.Join(s.Dir, "vars.fd")); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Replay does to a raw disk what the first length bytes of a write log say, apart from what was neither flushed nor kept.
func Replay(disk, log string, length int64, keep func(WriteEntry) bool) (err error) {
	l, err := os.Open(log)
	if err != nil {
		return err
	}
	defer l.Close()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	w, err := ReadWriteLog(l, length, st.Size())
	if err != nil {
		return err
	}
	n := w.Within(length)
	safe := w.Flushed(n)
	if err := w.Apply(f, 0, safe, nil); err != nil {
		return err
	}
	return w.Apply(f, safe, n, func(e WriteEntry) bool { return e.FUA || keep(e) })
}
