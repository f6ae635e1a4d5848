package drive

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Claim is a whole disk that nobody else can begin to use until Close. No command is sent to it: it is for disks that take none, such as
// those of virtio, where a [Permit] cannot be checked and whoever writes asks for the state instead.
type Claim struct {
	f   *os.File
	dev *file
}

// OpenClaim claims a whole disk as [Open] does, and needs root as that.
func OpenClaim(path string) (*Claim, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return nil, fmt.Errorf("claim disk: %w", err)
	}
	return &Claim{f, newFile(f, true)}, nil
}

// State says what the machine knows of the disk at this moment.
func (c *Claim) State() (State, error) { return c.dev.State() }

// Close ends the claim.
func (c *Claim) Close() error { return c.f.Close() }
