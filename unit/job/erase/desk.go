package erase

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"gprovision/hw/block"
	"gprovision/hw/drive"
	"gprovision/model/erasure"
	"gprovision/model/policy"
	"gprovision/unit/job/erase/engine"
	"gprovision/unit/machine"
	"gprovision/unit/state"
	"gprovision/unit/volume"
)

// desk is a drive of the plan while it is erased. One that also carries the recovery volume is let go whenever that is mounted; who reads
// and writes waits meanwhile.
type desk struct {
	m     *machine.Machine
	p     planned
	sleep *sleeper

	mu     sync.RWMutex
	drives []*machine.Drive // one of each disk; nil while it is let go
	sizes  []int64          // bytes, of each disk
	number []drive.Number   // as it was opened first
}

var errAway = errors.New("the drive is not open")

// sit opens the disks of a drive. Nobody else can begin to use them until leave.
func (d *desk) sit() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open()
}

func (d *desk) open() error {
	disks, err := d.m.Disks()
	if err != nil {
		return err
	}
	if found, err := d.p.again(disks); d.p.Grows && err == nil {
		d.p = found
	}
	for i, disk := range d.p.Disks {
		if !slices.ContainsFunc(disks, same(disk)) {
			return errors.Join(fmt.Errorf("%w: %s of the plan is not there", drive.ErrNotPermitted, disk.Name), d.close())
		}
		o, err := machine.OpenDrive(d.m, disk.Path, i == 0 && !d.p.shares())
		if err != nil {
			return errors.Join(fmt.Errorf("open %s: %w", disk.Name, err), d.close())
		}
		d.drives = append(d.drives, o)
		s, err := o.State()
		if err == nil && len(d.number) > i && d.number[i] != s.Number {
			err = fmt.Errorf("%w: %s is another disk now", drive.ErrNotPermitted, disk.Name)
		}
		if err != nil {
			return errors.Join(err, d.close())
		}
		if len(d.number) == i {
			d.number, d.sizes = append(d.number, s.Number), append(d.sizes, s.Size)
		}
	}
	return nil
}

// leave lets the disks go.
func (d *desk) leave() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.close()
}

func (d *desk) close() (err error) {
	for _, o := range d.drives {
		err = errors.Join(err, o.Close())
	}
	d.drives = nil
	return err
}

// with lets do have an open disk.
func (d *desk) with(i int, do func(*machine.Drive) error) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if len(d.drives) <= i {
		return errAway
	}
	return do(d.drives[i])
}

// allowed returns an error unless a drive that takes no commands may be written now: each disk is the one of the plan, and nobody uses it.
func (d *desk) allowed() error {
	disks, err := d.m.Disks()
	if err != nil {
		return err
	}
	for i, want := range d.p.Disks {
		if !slices.ContainsFunc(disks, same(want)) {
			return fmt.Errorf("%s is not what it was when the plan was made", want.Name)
		}
		err := d.with(i, func(o *machine.Drive) error {
			s, err := o.State()
			switch {
			case err != nil:
				return err
			case s.Number != d.number[i] || s.Size != want.Size:
				return fmt.Errorf("%s is another disk now", want.Name)
			case len(s.Users) > 0 || !s.Claimed:
				return fmt.Errorf("%s is in use: %q", want.Name, s.Users)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// blocks are those of one disk of a desk.
type blocks struct {
	d *desk
	i int
}

func (b blocks) ReadAt(p []byte, off int64) (n int, err error) {
	err = b.d.with(b.i, func(o *machine.Drive) error { n, err = o.Blocks.ReadAt(p, off); return err })
	return n, err
}

func (b blocks) WriteAt(p []byte, off int64) (n int, err error) {
	err = b.d.with(b.i, func(o *machine.Drive) error { n, err = o.Blocks.WriteAt(p, off); return err })
	return n, err
}

func (b blocks) Sync() error {
	return b.d.with(b.i, func(o *machine.Drive) error { return o.Blocks.Sync() })
}

func (b blocks) Discard(off, n int64) error {
	return b.d.with(b.i, func(o *machine.Drive) error { return o.Blocks.Discard(off, n) })
}

// smallDrive is the size below which all of a drive is read, whatever the policy says, in bytes.
const smallDrive = 64 << 30

// target is the drive as the engine erases it.
func (d *desk) target() (engine.Target, error) {
	asked := d.m.Policy.Erase
	t := engine.Target{
		Known: d.p.known(), Require: erasure.Level(asked.Require), Whole: !d.p.shares(), Guard: d.allowed,
		Full:    asked.Verify == policy.VerifyFull || d.p.bytes() < smallDrive,
		Restore: d.p.Grows,
	}
	if !t.Whole {
		t.Known.Bytes = erasure.Count(d.p.disk().Size)
		for _, s := range d.p.Spans {
			t.Areas = append(t.Areas, engine.Area{Blocks: blocks{d, 0}, Offset: s.Start, Size: func() int64 { return s.Size }})
		}
		return t, nil
	}
	for i := range d.p.Disks {
		t.Areas = append(t.Areas, engine.Area{Blocks: blocks{d, i}, Size: func() int64 { return d.size(i) }})
	}
	o := d.drives[0]
	if o.Commands == nil {
		return t, nil
	}
	var err error
	if t.Permit, err = d.p.permit(o, d.p.disk().Size); err != nil {
		return t, err
	}
	t.Drive = o.Commands
	t.Reopen = func(sectors uint64) (drive.Permit, error) {
		if err := o.Rescan(); err != nil {
			return drive.Permit{}, err
		}
		size := int64(sectors) * int64(d.p.disk().SectorSize)
		p, err := d.p.permit(o, size)
		if err == nil {
			d.mu.Lock()
			d.sizes[0] = size
			d.mu.Unlock()
		}
		return p, err
	}
	return t, nil
}

func (d *desk) size(i int) int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.sizes[i]
}

// book is where an erase writes down how far it is: the recovery volume, which is mounted for that moment only. Drives that share something
// with it are let go meanwhile.
type book struct {
	mu     sync.Mutex
	volume *volume.Handle
	shared []*desk
	// memory is where it is written down instead where the recovery volume is erased too; nil: that stays.
	memory *state.Volume
	// left reports that another volume counts now: the unit is to be surveyed again.
	left bool
	// artifact is the SHA-256 of the boot artifact that was on such a volume.
	artifact string
}

// view lets do read what is written down.
func (b *book) view(do func(*state.Volume) error) error {
	if b.memory != nil {
		return do(b.memory)
	}
	return b.volume.View(do)
}

// change lets do change the recovery volume.
func (b *book) change(do func(*state.Volume) error) (err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.memory != nil {
		return do(b.memory)
	}
	var away []*desk
	for _, d := range b.shared {
		d.mu.Lock() // who reads and writes waits
		defer d.mu.Unlock()
		if len(d.drives) > 0 {
			away = append(away, d)
			err = errors.Join(err, d.close())
		}
	}
	if err == nil {
		err = b.volume.Change(do)
	}
	for _, d := range away {
		err = errors.Join(err, d.open())
	}
	return err
}

// shares reports whether a drive carries the recovery volume too, or is a part of the same NVM subsystem.
func (p planned) shares() bool { return len(p.Spans) > 0 }

// others are the disks that no plan has.
func (p plan) others(disks []block.Disk) (out []block.Disk) {
	for _, d := range disks {
		if !slices.ContainsFunc(p.Disks, func(o planned) bool { return slices.ContainsFunc(o.Disks, same(d)) }) {
			out = append(out, d)
		}
	}
	return out
}
