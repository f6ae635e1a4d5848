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

// The array of the main system, and that of the data. The latter is not started for a boot: the running system does that.
const (
	ArrayPath     = "/dev/md0"
	ArrayName     = "gprov"
	DataArrayPath = "/dev/md1"
	DataArrayName = "gprov-data"
)

// Members returns the members of arrays among the partitions on main disks. A partition that cannot be read is logged and left
// out.
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

// StartArray starts an array at ArrayPath from the members that can be used. Nothing is written to them before something is
// written to the array. An array that runs with the same members is left alone, another one is stopped.
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

// StopArray stops the array at ArrayPath if there is one.
func (m *Machine) StopArray(ctx context.Context) error {
	if raid.Known(m.Places.Sysfs, ArrayPath) {
		return raid.Stop(ctx, raid.Runner(m.Run), ArrayPath)
	}
	return nil
}

// CreateArray makes the array of the record over partitions and starts it. What they hold is lost.
func (m *Machine) CreateArray(ctx context.Context, a state.Array, members []string) error {
	return raid.Create(ctx, raid.Runner(m.Run), raid.Plan{Device: ArrayPath, Level: a.Level, UUID: a.UUID, Name: ArrayName, Members: members})
}

// CreateDataArray makes the array of the data over partitions, with an empty filesystem. What they hold is lost. It is not started
// afterwards.
func (m *Machine) CreateDataArray(ctx context.Context, a state.Array, members []string) error {
	err := raid.Create(ctx, raid.Runner(m.Run), raid.Plan{Device: DataArrayPath, Level: a.Level, UUID: a.UUID, Name: DataArrayName, Members: members})
	if err != nil {
		return err
	}
	err = m.MakeExt4(ctx, DataArrayPath, a.FSLabel, a.FSUUID)
	return errors.Join(err, raid.Stop(ctx, raid.Runner(m.Run), DataArrayPath))
}

// ProbeDataArray says what is on the array of the data, of which a has the members. Nothing is written to them, and it is not started
// afterwards. blank says that it provably carries nothing.
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

// ReadMember reads what a partition, or what is at its place on a disk, says of its array. The error is raid.ErrNone if it is none.
func ReadMember(disk io.ReaderAt, p layout.Partition) (raid.Member, error) {
	return raid.Read(io.NewSectionReader(disk, p.Start, p.Size), p.Size)
}

// Carries says what a disk carries, for the log of a plan: a member of an array, on itself or in a partition, before all else.
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
