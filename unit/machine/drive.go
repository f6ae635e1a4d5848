package machine

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"gprovision/hw/block"
	"gprovision/hw/drive"
)

// Drive is a whole disk that was opened to be erased. Nobody else can begin to use it until Close.
type Drive struct {
	// Commands sends commands to it. It is nil where there are none, as of a virtio disk, and where they were not wanted.
	Commands *drive.Drive
	// Blocks reads and writes past the caches of this machine.
	Blocks Blocks
	// State says what the machine knows of it at this moment.
	State func() (drive.State, error)
	// Rescan makes the kernel ask the drive for its size again.
	Rescan func() error
	// Close ends the claim.
	Close func() error
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
func openDrive(d block.Disk, commands bool) (*Drive, error) {
	free, err := block.Open(d.Path, true) // waits until the kernel has let it go after an unmount
	if err != nil {
		return nil, err
	}
	if err := free.Close(); err != nil {
		return nil, err
	}
	out := &Drive{Rescan: func() error { return os.WriteFile("/sys/block/"+d.Name+"/device/rescan", []byte("1"), 0) }}
	var end func() error
	if commands {
		if c, err := drive.Open(d.Path, nil); err == nil {
			out.Commands, out.State, end = c, c.State, c.Close
		} else if errors.Is(err, unix.EBUSY) {
			return nil, err
		}
	}
	if out.Commands == nil {
		c, err := drive.OpenClaim(d.Path)
		if err != nil {
			return nil, err
		}
		out.State, end = c.State, c.Close
	}
	raw, err := block.OpenRaw(d.Path)
	if err != nil {
		return nil, errors.Join(err, end())
	}
	out.Blocks, out.Close = raw, func() error { return errors.Join(raw.Close(), end()) }
	return out, nil
}
