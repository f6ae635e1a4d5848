package machine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"gprovision/hw/block"
	"gprovision/hw/drive"
)

// Drive is a whole disk that was opened to be erased. Nobody else can begin to use it until Close.
type Drive struct {
	// Device is the same disk as all see it, through the caches of this machine.
	Device
	// Commands sends commands to it. It is nil where there are none, as of a virtio disk, and where they were not wanted.
	Commands *drive.Drive
	// Blocks reads and writes past the caches of this machine.
	Blocks Blocks
	// State says what the machine knows of it at this moment.
	State func() (drive.State, error)
	// Rescan makes the kernel ask the drive for its size again.
	Rescan func() error
	// Release ends the claim on it.
	Release func() error
}

// Close closes the disk, and ends the claim on it.
func (d *Drive) Close() error { return errors.Join(d.Release(), d.Device.Close()) }

// OpenDrive opens a whole disk to erase it, with its commands if those are wanted and it takes any.
func OpenDrive(m *Machine, path string, commands bool) (*Drive, error) {
	how := Claim
	if commands {
		how = Erase
	}
	dev, err := m.Open(path, how)
	if err != nil {
		return nil, err
	}
	d, ok := dev.(*Drive)
	if !ok {
		return nil, errors.Join(fmt.Errorf("open %s: it is no drive", path), dev.Close())
	}
	return d, nil
}

// Blocks are the blocks of a disk, without a cache of this machine in between. Offsets, lengths and addresses are multiples of the
// sector size.
type Blocks interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns once everything written is on the medium.
	Sync() error
	// Discard tells the disk that n bytes from an offset are not needed any more.
	Discard(off, n int64) error
}

// openDrive opens a disk of this machine, with its commands if those are wanted and it takes any.
func openDrive(path string, commands bool) (Device, error) {
	free, err := block.Open(path, true) // waits until the kernel has let it go after an unmount
	if err != nil {
		return nil, err
	}
	if err := free.Close(); err != nil {
		return nil, err
	}
	out := &Drive{Rescan: func() error { return os.WriteFile("/sys/block/"+filepath.Base(path)+"/device/rescan", []byte("1"), 0) }}
	if commands {
		if c, err := drive.Open(path, nil); err == nil {
			out.Commands, out.State, out.Release = c, c.State, c.Close
		} else if errors.Is(err, unix.EBUSY) {
			return nil, err
		}
	}
	if out.Commands == nil {
		c, err := drive.OpenClaim(path)
		if err != nil {
			return nil, err
		}
		out.State, out.Release = c.State, c.Close
	}
	raw, err := block.OpenRaw(path)
	if err != nil {
		return nil, errors.Join(err, out.Release())
	}
	claim := out.Release
	out.Blocks, out.Release = raw, func() error { return errors.Join(raw.Close(), claim()) }
	if out.Device, err = block.OpenShared(path); err != nil {
		return nil, errors.Join(err, out.Release())
	}
	return out, nil
}
