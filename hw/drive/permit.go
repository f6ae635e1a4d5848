package drive

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrNotPermitted says that a command was not sent, since there is no permit for this drive or the drive is in use.
var ErrNotPermitted = errors.New("not permitted")

// Number is the number of a block device in the kernel.
type Number struct{ Major, Minor uint32 }

func (n Number) String() string { return fmt.Sprintf("%d:%d", n.Major, n.Minor) }

// Identity is which drive one is. All of it must be the same: cheap drives have the same serial number, and numbers of the kernel are
// given away again.
type Identity struct {
	Model  string
	Serial string
	Size   int64 // bytes, as the kernel has it
	Number Number
}

func (i Identity) String() string {
	return fmt.Sprintf("%s %s, %d bytes, %s", i.Model, i.Serial, i.Size, i.Number)
}

// State is what the machine knows of a drive.
type State struct {
	Number Number
	Size   int64 // bytes
	// Claimed reports whether the drive is open exclusively, so that nobody can begin to use it meanwhile.
	Claimed bool
	// Users are those who use the drive, one of its partitions, or another namespace of the same NVM subsystem: mounts, swap, arrays and
	// mappings.
	Users []string
	// NSID is the namespace that is open, of an NVMe drive.
	NSID uint32
	// USB reports whether the drive is behind a USB bridge.
	USB bool
	// CID is the identification register of an eMMC, which the kernel has read from it; else zeros.
	CID [16]byte
}

// Permit allows destroying what is on one drive, or on one namespace of an NVMe drive. The zero Permit allows nothing.
type Permit struct {
	of    Identity
	whole bool
}

// NewPermit makes a permit for a drive. Whoever calls it has decided that the drive is to be erased: there is to be one such place in a
// program, and it takes the identity from what was planned and shown, not from what happens to be there.
func NewPermit(of Identity) (Permit, error) {
	if of.Model == "" || of.Serial == "" || of.Size <= 0 || of.Number == (Number{}) {
		return Permit{}, fmt.Errorf("%w: the drive %q is not named fully", ErrNotPermitted, of)
	}
	return Permit{of: of}, nil
}

// NewWholePermit makes a permit for all namespaces of the NVM subsystem that a namespace belongs to, also for those that are not
// attached. Whoever calls it has decided that of each of them. For a drive that is no part of a subsystem, or has one namespace only, it
// allows what NewPermit does.
func NewWholePermit(of Identity) (Permit, error) {
	p, err := NewPermit(of)
	p.whole = err == nil
	return p, err
}

// permitter checks a permit before a command is sent.
type permitter func(Permit) error

// send checks the permit and sends a command. A drive that instead tells of a reset has not taken the command, which is sent again after
// another check.
func (check permitter) send(p Permit, command func() error) error {
	return untilTold(func() error {
		if err := check(p); err != nil {
			return err
		}
		return command()
	})
}

// untilTold sends a command again that was not taken since the drive had a unit attention condition to tell of (SPC): a reset, or new
// parameters. Each condition is told once.
func untilTold(send func() error) error {
	var err error
	for range 4 {
		err = send()
		if e := (SenseError{}); !errors.As(err, &e) || e.Status != statusCheckCondition || e.Sense.Key != keyUnitAttention {
			break
		}
	}
	return err
}

// check looks at everything anew: the machine first, which sends nothing, then the drive. who asks the drive for model and serial number.
func (p Permit) check(dev Device, who func() (model, serial string, err error)) error {
	if p == (Permit{}) {
		return fmt.Errorf("%w: there is no permit", ErrNotPermitted)
	}
	s, err := dev.State()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotPermitted, err)
	}
	switch {
	case s.Number != p.of.Number:
		return fmt.Errorf("%w: the permit is for %s, this is device %s", ErrNotPermitted, p.of, s.Number)
	case s.Size != p.of.Size:
		return fmt.Errorf("%w: the permit is for %s, this drive has %d bytes", ErrNotPermitted, p.of, s.Size)
	case len(s.Users) > 0:
		return fmt.Errorf("%w: the drive is in use: %s", ErrNotPermitted, strings.Join(slices.Sorted(slices.Values(s.Users)), ", "))
	case !s.Claimed:
		return fmt.Errorf("%w: the drive is not open exclusively", ErrNotPermitted)
	}
	model, serial, err := who()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotPermitted, err)
	}
	if model != p.of.Model || serial != p.of.Serial {
		return fmt.Errorf("%w: the permit is for %s, this is %s %s", ErrNotPermitted, p.of, model, serial)
	}
	return nil
}
