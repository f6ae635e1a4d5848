package machine

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/efi"
	"gprovision/hw/filesystem"
	"gprovision/hw/host"
)

// Device is an open disk or partition. Offsets and sizes are in bytes. Who opened it closes it.
type Device interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() int64
	// SectorSize is that of a logical sector: 512 or 4096 bytes.
	SectorSize() int
	// Sync returns when all that was written is on the medium.
	Sync() error
	// RereadTable makes the kernel know the partitions that the table has now.
	RereadTable() error
	// SetReadOnly makes the kernel refuse writes to the device, or take them again.
	SetReadOnly(on bool) error
	// Discard tells the device that its content is not needed any more, for as long as bound.
	Discard(ctx context.Context, bound time.Duration, progress func(done int64)) block.Discarded
}

// Access is how a device is opened.
type Access int

// The ways to open a device.
const (
	Read  Access = iota // only for reading
	Write               // for writing, while nobody else uses it
	Share               // for writing, while partitions of the disk may be mounted
)

// Places are the directories at which volumes are mounted, one for each kind, and where the kernel is asked about arrays.
type Places struct {
	Recovery string // the recovery volume
	Main     string // the main system
	Medium   string // below it emergency media, each in a directory of its own
	Run      string // what the running system has as /run: it is handed over with its content; below it is mounted what is for a moment
	Sysfs    string // what the kernel says of its arrays, and is told about starting them
}

// InRun returns where a file lies that the running system has below /run.
func (p Places) InRun(file string) string { return p.Run + strings.TrimPrefix(file, "/run") }

// RealPlaces are those of a unit. Jobs that run after each other, and the running system's init, find each other's volumes there.
func RealPlaces() Places {
	return Places{Recovery: "/mnt/recovery", Main: "/mnt/main", Medium: "/mnt/medium", Run: "/run", Sysfs: "/sys"}
}

// Doors are the ways by which init and its jobs reach disks, filesystems, programs, firmware and clock. On a unit they are those of Real;
// in tests they lead to a machine that is not there (package machinetest).
type Doors struct {
	// List lists the disks of the machine.
	List func() ([]block.Disk, error)
	// Open opens a disk or a partition by its device node.
	Open func(path string, how Access) (Device, error)
	// WriteBlock writes one block at an offset of a partition that may be mounted (block.WriteBlock).
	WriteBlock func(path string, b []byte, off int64) error
	// Mount mounts a device at a directory, which is there. The driver of the filesystem is loaded first.
	Mount func(source, dir, fstype string, o host.MountOptions) error
	// Unmount unmounts what is mounted at a directory.
	Unmount func(dir string) error
	// UnmountAll unmounts whatever is mounted in Places, however deep.
	UnmountAll func() error
	// Mounted reports whether something is mounted at a directory.
	Mounted func(dir string) (bool, error)
	// Run starts a program and waits for it.
	Run filesystem.Runner
	// Vars are the variables of UEFI firmware.
	Vars *efi.Vars
	// Places are where volumes are mounted.
	Places Places
	// SetClock sets the system's clock and the real-time clock.
	SetClock func(time.Time) error
}

// Real returns the doors of the machine that this runs on. sys is /sys, and load loads what the kernel needs for a filesystem; nil: it has
// all that it needs.
func Real(log *slog.Logger, sys fs.FS, load func(fstype string) error) Doors {
	return Doors{
		List: func() ([]block.Disk, error) { return block.List(sys) },
		Open: func(path string, how Access) (Device, error) {
			var d *block.Device
			var err error
			switch how {
			case Read:
				d, err = block.Open(path, false)
			case Write:
				d, err = block.Open(path, true)
			case Share:
				d, err = block.OpenShared(path)
			default:
				err = fmt.Errorf("open %s: there is no way %d to open a device", path, how)
			}
			if err != nil {
				return nil, err // not a nil pointer in an interface
			}
			return d, nil
		},
		WriteBlock: block.WriteBlock,
		Mount: func(source, dir, fstype string, o host.MountOptions) error {
			if load != nil {
				if err := load(fstype); err != nil {
					return err
				}
			}
			return host.Mount(source, dir, fstype, o)
		},
		Unmount:    host.Unmount,
		UnmountAll: func() error { return host.UnmountBelow("/mnt") },
		Mounted:    host.IsMountPoint,
		Run:        host.Runner(log),
		Vars:       efi.New(efi.DefaultDir),
		Places:     RealPlaces(),
		SetClock:   host.SetClock,
	}
}
