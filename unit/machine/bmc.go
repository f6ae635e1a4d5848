package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"gprovision/hw/bmc"
	"gprovision/hw/smbios"
)

// How long the kernel may take from when the drivers of a management controller are loaded until it offers its device, and how often that
// is looked for.
const (
	bmcPatience = 5 * time.Second
	bmcLook     = 50 * time.Millisecond
)

// FindBMC opens the management controller of the machine whose /sys is sys. Drivers are loaded, and their device is waited for, only where
// the firmware announces a controller or one is expected: a machine without one loses no time.
func FindBMC(ctx context.Context, sys fs.FS, expected bool, load func(names ...string) error) (*bmc.Controller, error) {
	if bmc.Ready(sys) {
		return bmc.Open(bmc.Path)
	}
	has := func(int) bool { return false }
	if dmi, err := smbios.Read(sys); err == nil {
		has = dmi.Has
	}
	if !expected && !bmc.Announced(sys, has) {
		return nil, bmc.ErrNone
	}
	var failed error
	for _, name := range bmc.Modules() { // each alone: which of them the machine needs is not known
		failed = errors.Join(failed, load(name))
	}
	ctx, cancel := context.WithTimeout(ctx, bmcPatience)
	defer cancel()
	for {
		c, err := bmc.Open(bmc.Path)
		if !errors.Is(err, bmc.ErrNone) {
			return c, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", err, failed)
		case <-time.After(bmcLook):
		}
	}
}

// OpenBMC opens the management controller of m. The error is bmc.ErrNone if there is none.
func OpenBMC(ctx context.Context, m *Machine) (*bmc.Controller, error) {
	if m.Board.BMC == nil {
		return nil, bmc.ErrNone
	}
	return m.Board.BMC(ctx, m.Identity.Variant.IPMI)
}

// Light lights the identify light of m for a while, at most bmc.LongestLight, or puts it out with 0. The error is bmc.ErrNone if there is
// no controller.
func Light(ctx context.Context, m *Machine, d time.Duration) error {
	c, err := OpenBMC(ctx, m)
	if err != nil {
		return err
	}
	return errors.Join(c.Identify(ctx, d), c.Close())
}
