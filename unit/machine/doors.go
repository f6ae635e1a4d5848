package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/bmc"
	"gprovision/hw/drive"
	"gprovision/hw/efi"
	"gprovision/hw/filesystem"
	"gprovision/hw/host"
	"gprovision/hw/nic"
	"gprovision/hw/tpm"
)

// Device is an open disk or partition. Offsets and sizes are in bytes. Whoever opened it closes it.
type Device interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() int64
	// SectorSize returns the size of a logical sector: 512 or 4096 bytes.
	SectorSize() int
	// Sync returns once everything written is on the medium.
	Sync() error
	// RereadTable makes the kernel reread the partition table.
	RereadTable() error
	// SetReadOnly makes the kernel refuse writes to the device, or accept them again.
	SetReadOnly(on bool) error
	// Discard tells the device that its content is no longer needed. It stops after bound.
	Discard(ctx context.Context, bound time.Duration, progress func(done int64)) block.Discarded
}

// FindTPM returns the TPM of a machine, or nil if it has none. A machine without the real sysfs has none.
func FindTPM(p Places) (*tpm.TPM, error) { return tpm.Find(p.Sysfs, "/dev") }

// Access is how a device is opened.
type Access int

// The ways to open a device.
const (
	Read   Access = iota // read only
	Write                // write, with nobody else using the device
	Share                // write, though partitions of the disk may be mounted
	Erase                // a whole disk, to erase it: the device is a Drive
	Claim                // as Erase, without commands
	Direct               // read only, past the caches of this machine: offsets, lengths and addresses are multiples of the sector size
)

// Places are the directories where volumes are mounted, one for each kind, and the sysfs that shows the arrays.
type Places struct {
	Recovery string // the recovery volume
	Main     string // the main system
	Medium   string // emergency media, each in a directory of its own below this
	Run      string // /run of the running system, handed over with its content; short-lived mounts lie below it
	Sysfs    string // where the kernel lists its arrays and takes settings for starting them
}

// InRun translates a path below /run of the running system to where the file is now.
func (p Places) InRun(file string) string { return p.Run + strings.TrimPrefix(file, "/run") }

// RealPlaces returns the places on a unit. They are fixed: later jobs and the running system's init find the volumes
// there.
func RealPlaces() Places {
	return Places{Recovery: "/mnt/recovery", Main: "/mnt/main", Medium: "/mnt/medium", Run: "/run", Sysfs: "/sys"}
}

// Doors are the only ways by which init and its jobs reach disks, filesystems, programs, firmware and the clock. On a
// unit they come from Real. In tests they lead to a machine in memory (package machinetest).
type Doors struct {
	// List lists the disks of the machine.
	List func() ([]block.Disk, error)
	// Open opens a disk or a partition by its device node.
	Open func(path string, how Access) (Device, error)
	// WriteBlock writes one block at an offset of a partition that may be mounted (block.WriteBlock).
	WriteBlock func(path string, b []byte, off int64) error
	// Mount mounts a device at an existing directory. It loads the filesystem's driver first.
	Mount func(source, dir, fstype string, o host.MountOptions) error
	// Unmount unmounts a directory.
	Unmount func(dir string) error
	// UnmountAll unmounts every volume in Places, however deep.
	UnmountAll func() error
	// Mounted reports whether something is mounted at a directory.
	Mounted func(dir string) (bool, error)
	// Run starts a program and waits for it.
	Run filesystem.Runner
	// Vars are the variables of UEFI firmware.
	Vars *efi.Vars
	// Places is where volumes are mounted.
	Places Places
	// Board is what is on the mainboard beside all that.
	Board Board
}

// Board are the doors to parts of the mainboard.
type Board struct {
	// SetClock sets the system clock and the real-time clock.
	SetClock func(time.Time) error
	// BMC opens the management controller, which the caller closes. expected means that the platform has one. The error is bmc.ErrNone if
	// there is none. A nil BMC is that of a machine without one.
	BMC func(ctx context.Context, expected bool) (*bmc.Controller, error)
	// Health asks a disk for its state, while it may be in use. The error is errors.ErrUnsupported for one that takes no commands. A nil
	// Health is that of a machine whose disks say nothing.
	Health func(path string) (drive.Health, error)
	// Fastest asks how many megabits a second a network port can do at most (nic.Fastest). A nil Fastest is that of a machine whose ports
	// do not say.
	Fastest func(port string) (int, error)
	// KernelLog opens the kernel's log for what is still to come; the caller closes it. A nil KernelLog is that of a machine whose kernel
	// says nothing.
	KernelLog func() (*host.KernelLog, error)
}

// askHealth asks a disk of this machine.
func askHealth(path string) (drive.Health, error) {
	d, err := drive.OpenShared(path, nil)
	if err != nil {
		return drive.Health{}, err
	}
	h, err := d.Health()
	return h, errors.Join(err, d.Close())
}

// Real returns the doors of the machine that this process runs on. sys is /sys. load loads the kernel's driver for a
// filesystem. If it is nil, the kernel needs no drivers.
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
			case Direct:
				d, err = block.OpenUncached(path)
			case Erase, Claim:
				return openDrive(path, how == Erase)
			default:
				err = fmt.Errorf("open %s: there is no way %d to open a device", path, how)
			}
			if err != nil {
				return nil, err // keep a nil pointer out of the interface
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
		Board:      Board{SetClock: host.SetClock, Health: askHealth, Fastest: nic.Fastest, KernelLog: host.OpenKernelLog},
	}
}
