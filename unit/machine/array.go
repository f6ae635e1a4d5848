package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"gprovision/hw/filesystem"
	"gprovision/hw/partition"
	"gprovision/hw/raid"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/unit/state"
)

// The arrays of the main system and of the data. Init starts only the first. The running system starts the second.
const (
	ArrayPath     = "/dev/md0"
	ArrayName     = "gprov"
	DataArrayPath = "/dev/md1"
	DataArrayName = "gprov-data"
)

// Members returns the array members among the partitions of the main disks. It logs and skips a partition that it
// cannot read.
func (m *Machine) Members() ([]raid.Part, error) {
	parts, err := m.Partitions(platform.AllowedMain)
	if err != nil {
		return nil, err
	}
	var out []raid.Part
	for _, p := range parts {
		member, err := m.readMember(p.Path)
		if errors.Is(err, raid.ErrNone) {
			continue
		}
		if err != nil {
			m.Log.Warn("partition cannot be read", "partition", p.Path, "err", err)
			continue
		}
		out = append(out, raid.Part{Member: member, Path: p.Path, Disk: p.Disk.Name})
	}
	return out, nil
}

func (m *Machine) readMember(path string) (raid.Member, error) {
	dev, err := m.Open(path, Read)
	if err != nil {
		return raid.Member{}, err
	}
	defer dev.Close()
	return raid.Read(dev, dev.Size())
}

// StartArray starts an array at ArrayPath from its usable members. The kernel writes nothing to them until somebody
// writes to the array. An array that already runs with the same members is left alone. Any other array at ArrayPath
// is stopped first.
func (m *Machine) StartArray(ctx context.Context, a raid.Array) error {
	running, err := raid.Running(m.Places.Sysfs, ArrayPath)
	if err != nil {
		return err
	}
	if running {
		now, err := filepath.Glob(filepath.Join(m.Places.Sysfs, "block", filepath.Base(ArrayPath), "slaves", "*"))
		if err != nil {
			return err
		}
		same := len(now) == len(a.Parts) && !slices.ContainsFunc(a.Parts, func(p raid.Part) bool {
			return !slices.ContainsFunc(now, func(s string) bool { return filepath.Base(s) == filepath.Base(p.Path) })
		})
		if same {
			return nil
		}
	}
	if err := m.StopArray(ctx); err != nil {
		return err
	}
	if err := raid.StartReadOnly(m.Places.Sysfs); err != nil {
		m.Log.Warn("members may be written to before the array is", "err", err)
	}
	return raid.Assemble(ctx, raid.Runner(m.Run), ArrayPath, a)
}

// StopArray stops the array at ArrayPath, if there is one.
func (m *Machine) StopArray(ctx context.Context) error {
	if raid.Known(m.Places.Sysfs, ArrayPath) {
		return raid.Stop(ctx, raid.Runner(m.Run), ArrayPath)
	}
	return nil
}

// CreateArray makes the recorded array from partitions and starts it. The partitions lose their content.
func (m *Machine) CreateArray(ctx context.Context, a state.Array, members []string) error {
	return raid.Create(ctx, raid.Runner(m.Run), raid.Plan{Device: ArrayPath, Level: a.Level, UUID: a.UUID, Name: ArrayName, Members: members})
}

// CreateDataArray makes the data array from partitions and puts an empty filesystem on it. It stops the array again.
// The partitions lose their content.
func (m *Machine) CreateDataArray(ctx context.Context, a state.Array, members []string) error {
	err := raid.Create(ctx, raid.Runner(m.Run), raid.Plan{Device: DataArrayPath, Level: a.Level, UUID: a.UUID, Name: DataArrayName, Members: members})
	if err != nil {
		return err
	}
	err = m.MakeExt4(ctx, DataArrayPath, a.FSLabel, a.FSUUID)
	return errors.Join(err, raid.Stop(ctx, raid.Runner(m.Run), DataArrayPath))
}

// ProbeDataArray returns what is on the data array with the members in a. blank reports whether it provably carries
// nothing. Nothing is written to the members, and the array is stopped again.
func (m *Machine) ProbeDataArray(ctx context.Context, a raid.Array) (info filesystem.Info, blank bool, err error) {
	if err := raid.StartReadOnly(m.Places.Sysfs); err != nil {
		return info, false, err
	}
	if err := raid.Assemble(ctx, raid.Runner(m.Run), DataArrayPath, a); err != nil {
		return info, false, err
	}
	info, _, err = m.ProbePartition(DataArrayPath)
	if err == nil {
		blank, _, err = m.BlankDisk(DataArrayPath)
	}
	return info, blank, errors.Join(err, raid.Stop(ctx, raid.Runner(m.Run), DataArrayPath))
}

// ReadMember reads the array metadata in a partition, or at the partition's place on a disk. The error is
// raid.ErrNone where there is none.
func ReadMember(disk io.ReaderAt, p layout.Partition) (raid.Member, error) {
	return raid.Read(io.NewSectionReader(disk, p.Start, p.Size), p.Size)
}

// Carries describes what is on a disk, for the log of a plan. It names an array member first, whether the disk or a
// partition is one.
func (m *Machine) Carries(path string) (string, error) {
	dev, err := m.Open(path, Read)
	if err != nil {
		return "", err
	}
	defer dev.Close()
	member, err := raid.Read(dev, dev.Size())
	if err == nil {
		return member.String(), nil
	}
	if !errors.Is(err, raid.ErrNone) {
		return "", err
	}
	t, err := partition.Read(dev)
	if err != nil && !errors.Is(err, partition.ErrDamaged) {
		return "", err
	}
	for _, p := range t.Partitions {
		if p.Start > dev.Size()-p.Size {
			continue
		}
		member, err := raid.Read(io.NewSectionReader(dev, p.Start, p.Size), p.Size)
		if err == nil {
			return fmt.Sprintf("partition %d: %s", p.Number, member), nil
		}
		if !errors.Is(err, raid.ErrNone) {
			return "", err
		}
	}
	blank, why, err := filesystem.Blank(dev, dev.Size())
	if err != nil || !blank {
		return why, err
	}
	return "nothing", nil
}
