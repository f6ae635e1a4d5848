package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"gprovision/hw/drive"
	"gprovision/model/erasure"
)

// link is the way to the drive, and to where the state is kept.
type link struct {
	ctx       context.Context
	env       Env
	state     *State
	drive     *drive.Drive
	guard     func() error
	permit    drive.Permit
	areas     view
	blockSize int
	password  []byte // of the Target
	full      bool   // likewise
	// gate is held while the drive is asked whether it is still at work; stuck reports that an operation did not end in its time.
	gate  sync.Mutex
	stuck bool
}

// free returns an error where the drive is known to be at work without an end. Linux sends a read of a SCSI drive that says so again and
// again for three minutes (scsi_io_completion_action, six times the timeout of the disk), so that reading its places would take days: the
// drive is asked first.
func (l *link) free() error {
	l.gate.Lock()
	defer l.gate.Unlock()
	if !l.stuck || l.drive.SCSI == nil {
		return nil
	}
	o, err := l.drive.SCSI.Operation()
	if err != nil || o.Sanitizing || o.Formatting {
		return errors.Join(errStalled, err)
	}
	l.stuck = false
	return nil
}

// gated is blocks that are let alone while the drive is at work without an end.
type gated struct {
	Blocks
	free func() error
}

func (g gated) ReadAt(p []byte, off int64) (int, error) {
	if err := g.free(); err != nil {
		return 0, err
	}
	return g.Blocks.ReadAt(p, off)
}

func (g gated) WriteAt(p []byte, off int64) (int, error) {
	if err := g.free(); err != nil {
		return 0, err
	}
	return g.Blocks.WriteAt(p, off)
}

func (g gated) Sync() error {
	if err := g.free(); err != nil {
		return err
	}
	return g.Blocks.Sync()
}

func (g gated) Discard(off, n int64) error {
	d, ok := g.Blocks.(discarder)
	if !ok {
		return errors.ErrUnsupported
	}
	if err := g.free(); err != nil {
		return err
	}
	return d.Discard(off, n)
}

// gateAreas puts a gate before the blocks of areas.
func (l *link) gateAreas(areas []Area) (out view) {
	for _, a := range areas {
		a.Blocks = gated{a.Blocks, l.free}
		out = append(out, a)
	}
	return out
}

func (l *link) store() error {
	if err := l.env.Store(*l.state); err != nil {
		return fmt.Errorf("%w: store its state: %w", errStop, err)
	}
	return nil
}

// The shares of the time that marking all blocks takes, and looking at them again: two passes and one, and the method may take as long as
// two.
const (
	sharedByMarks = 0.4
	sharedByLook  = 0.2
)

// tell tells how much of the present method is done.
func (l *link) tell(part float64) {
	if l.full {
		part = sharedByMarks + part*(1-sharedByMarks-sharedByLook)
	}
	l.progress(part)
}

// progress tells how much of all is done, as far as the present method.
func (l *link) progress(part float64) {
	if l.env.Progress != nil {
		l.env.Progress(part)
	}
}

// allowed returns an error unless the drive may be written now.
func (l *link) allowed() error {
	if l.drive == nil {
		if err := l.guard(); err != nil {
			return fmt.Errorf("%w: %w", drive.ErrNotPermitted, err)
		}
		return nil
	}
	return l.again(func() error { return l.drive.Check(l.permit) })
}

// again does what a busy drive did not take once more, up to ten times.
func (l *link) again(do func() error) error {
	err := do()
	for i := 0; i < 10 && busy(err); i++ {
		if e := l.env.Wait(l.ctx, time.Second); e != nil {
			return e
		}
		err = do()
	}
	return err
}

// command sends a command and records it.
func (l *link) command(m erasure.Method, name, arguments string, send func() error) error {
	c := erasure.Command{Method: m, Name: name, Arguments: erasure.Printable(arguments), Started: l.now()}
	err := l.again(send)
	c.Status, c.Ended = "good", l.now()
	if err != nil {
		c.Status = erasure.Printable(err.Error())
	}
	if len(l.state.Commands) < erasure.MaxList {
		l.state.Commands = append(l.state.Commands, c)
	}
	return err
}

// now is the time as certificates have it.
func (l *link) now() time.Time { return l.env.Now().UTC().Truncate(time.Second) }

// blocks returns how many blocks there are.
func (l *link) blocks() uint64 {
	return uint64(l.areas.size()) / uint64(l.blockSize)
}

func (l *link) sampler() *sampler {
	return newSampler(l.areas, l.blockSize, l.state.Seed)
}

// ready waits until the first block can be read: a minute, and where the drive does not say what it does as long as that may take.
func (l *link) ready(long bool) {
	bound := time.Minute
	if long {
		bound = l.bound(0)
	}
	buf := aligned(l.blockSize)
	for start := l.env.Now(); l.env.Now().Sub(start) < bound; {
		if _, err := l.areas.ReadAt(buf, 0); err == nil {
			return
		}
		if l.env.Wait(l.ctx, bound/20) != nil {
			return
		}
	}
}

// bound is how long an operation may take: three times as long as the drive says, and where it says nothing a day and the time that 10 MB
// a second need.
func (l *link) bound(estimate time.Duration) time.Duration {
	if estimate > 0 {
		return 3*estimate + time.Hour
	}
	return 24*time.Hour + time.Duration(l.blocks()*uint64(l.blockSize)/10_000_000)*time.Second
}

// failed reports whether the drive takes nothing but another Sanitize.
func (l *link) failed() bool {
	failed := false
	switch d := l.drive; {
	case d == nil:
	case d.NVMe != nil:
		_ = l.again(func() error {
			l, err := d.NVMe.SanitizeLog()
			failed = err == nil && l.State() == drive.SanitizeFailed
			return err
		})
	case d.ATA != nil:
		_ = l.again(func() error {
			s, err := d.ATA.SanitizeStatus()
			failed = err == nil && s.Failed
			return err
		})
	case d.MMC != nil:
	default:
		_ = l.again(func() error {
			o, err := d.SCSI.Operation()
			failed = err == nil && o.SanitizeFailed
			return err
		})
	}
	return failed
}

// idle waits until the drive does nothing by itself. seen reports whether it did.
func (l *link) idle() (seen bool, err error) {
	d := l.drive
	if d == nil || d.MMC != nil {
		return false, nil
	}
	return l.watch(0, func() (p progress, err error) {
		switch {
		case d.NVMe != nil:
			s, err := d.NVMe.SanitizeLog()
			return progress{sanitizing(s), s.Progress}, err
		case d.ATA != nil:
			s, err := d.ATA.SanitizeStatus()
			return progress{s.InProgress, s.Progress}, err
		}
		o, err := d.SCSI.Operation()
		return progress{o.Sanitizing || o.Formatting, o.Progress}, err
	})
}

// reallocated returns how many sectors the drive has replaced, and nothing where it does not say.
func (l *link) reallocated() *erasure.Count {
	if l.drive == nil {
		return nil
	}
	var n uint64
	var known bool
	if err := l.again(func() (err error) { n, known, err = l.drive.Reallocated(); return err }); err != nil || !known {
		return nil
	}
	c := erasure.Count(min(n, erasure.MaxCount))
	return &c
}

// watch asks until an operation is over. seen reports whether it was under way.
func (l *link) watch(estimate time.Duration, ask func() (progress, error)) (seen bool, err error) {
	bound := l.bound(estimate)
	start := l.env.Now()
	moved, pause, last := start, time.Second, uint16(0)
	for {
		var p progress
		if err := l.again(func() (err error) { p, err = ask(); return err }); err != nil || !p.running {
			return seen, err
		}
		now := l.env.Now()
		if p.part != last {
			moved, last = now, p.part
		}
		l.tell(float64(p.part) / 0x10000)
		if seen = true; now.Sub(start) > bound || now.Sub(moved) > max(time.Hour, bound/4) {
			l.gate.Lock()
			l.stuck = true
			l.gate.Unlock()
			return seen, errStalled
		}
		if err := l.env.Wait(l.ctx, pause); err != nil {
			return seen, err
		}
		pause = min(pause*3/2, 30*time.Second)
	}
}

// clearPassword takes a password of ours away from the drive, and forgets it when the drive says that there is none.
func (l *link) clearPassword() error {
	if len(l.state.Password) == 0 || l.drive == nil || l.drive.ATA == nil {
		return nil
	}
	a := l.drive.ATA
	p, err := drive.NewPassword(l.state.Password)
	if err != nil {
		return err
	}
	enabled := true
	err = l.again(func() error {
		id, err := a.Identify()
		if err != nil {
			return err
		}
		if enabled = id.Security.Enabled; !enabled {
			return nil
		}
		if id.Security.Locked {
			if err := a.Unlock(l.permit, p); err != nil {
				return err
			}
		}
		if err := a.DisablePassword(l.permit, p); err != nil {
			return err
		}
		id, err = a.Identify()
		enabled = id.Security.Enabled
		return err
	})
	if err != nil || enabled {
		return errors.Join(err, errors.New("the password is still set"))
	}
	l.state.Password = nil
	return l.store()
}

// namespaces returns all namespaces of the subsystem, or those that are attached where the controller knows no others.
func (l *link) namespaces(n *drive.NVMe, c drive.Controller) ([]drive.Namespace, error) {
	list := n.Active
	if c.CanManage() {
		list = n.Allocated
	}
	ids, err := list()
	if err != nil {
		return nil, err
	}
	var out []drive.Namespace
	for _, id := range ids {
		s, err := n.Namespace(id)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}
