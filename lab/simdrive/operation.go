package simdrive

import (
	"errors"
	"time"

	"gprovision/hw/drive"
)

// operation is an erase under way.
type operation struct {
	method drive.Method
	f      Faults // those that hit it; else none
	start  time.Duration
	takes  time.Duration
	fill   fill
	areas  []extent
	deep   bool // it reaches hidden copies
	// lasting is a sanitize operation: it goes on after power was lost.
	lasting bool
	secret  bool // it is said to be complete
	fails   bool
	echo    uint32
	passes  int
	keep    bool   // what was erased stays in hidden copies
	purge   bool   // it purges or fails
	verify  bool   // it ends in the media verification state
	done    func() // what is done at the end, if it does not fail
}

// extent is sectors from start to before end.
type extent struct{ start, end int64 }

// begin starts an erase.
func (d *Drive) begin(o operation) *operation {
	if d.f.hit(o.method) {
		o.f = d.f
	}
	o.start, o.takes = d.clock.Now(), d.c.Times[o.method]
	if o.takes == 0 {
		o.takes = time.Minute
		if isCrypto(o.method) {
			o.takes = 2 * time.Second
		}
	}
	o.takes *= time.Duration(max(1, o.f.Slow))
	o.secret = o.f.TooEarly
	o.fails = o.f.FailAtEnd || d.faulty < o.f.FailFirst
	if o.fails {
		d.faulty++
	}
	o.fill.born, o.fill.fails = d.mark, o.f.Unreadable
	if isCrypto(o.method) && d.c.Noise {
		o.fill.seed = random(d.c.Seed+uint64(len(d.sent))).next() | 1
	}
	d.op, d.canceled = &o, false
	if d.f.CacheOnly {
		clear(d.cache)
	}
	return d.op
}

func isCrypto(m drive.Method) bool {
	return m == drive.NVMeSanitizeCrypto || m == drive.NVMeFormatCrypto || m == drive.ATASanitizeCrypto || m == drive.SCSISanitizeCrypto ||
		m == reverts
}

// part returns how much of an operation is done, in 65,536ths.
func (d *Drive) part() int64 {
	n := int64(d.clock.Now()-d.op.start) << 16 / int64(d.op.takes)
	if d.op.f.Stall {
		n = min(n, 1<<15)
	}
	return min(n, 1<<16)
}

// settle ends an operation whose time has come.
func (d *Drive) settle() {
	if d.op == nil || d.op.f.Stall || d.clock.Now() < d.op.start+d.op.takes {
		return
	}
	o := d.op
	if o.fails {
		d.wipe(o, 1<<16*19/20)
		d.end(failed)
		return
	}
	d.wipe(o, 1<<16)
	d.end(completed)
	if o.done != nil {
		o.done()
	}
}

// end is what the drive says when an operation is over.
func (d *Drive) end(how outcome) {
	o := d.op
	d.op = nil
	if !o.lasting {
		d.ended = how
		return
	}
	d.said, d.passes, d.echo, d.untouched = how, o.passes, o.echo, how == completed
	d.verifying = o.verify && how == completed && !d.f.NeverVerifies
	d.purged = o.purge && how == completed && !d.f.NotPurged
	if d.f.WrongEcho {
		d.echo ^= 7
	}
}

// wipe erases the first part of what an operation is for, in 65,536ths, with the faults that hit it.
func (d *Drive) wipe(o *operation, part int64) {
	f := o.f
	if f.Nothing {
		return
	}
	areas := o.areas
	if f.FirstOnly && len(areas) > 0 { // a sanitize of an eMMC reaches cells only
		areas = areas[:1]
	}
	if block := f.KeepBlock - 1; block >= 0 && len(areas) > 0 { // in the first area
		areas = append([]extent{{areas[0].start, block}, {block + 1, areas[0].end}}, areas[1:]...)
	}
	for _, a := range areas {
		n := a.end - a.start
		a.end = a.start + n*part>>16
		if f.KeepLast && part == 1<<16 {
			a.end--
		}
		if f.KeepStratum > 0 {
			from, to := a.start+n*int64(f.KeepStratum-1)/16, a.start+n*int64(f.KeepStratum)/16
			d.m.put(a.start, min(a.end, from), o.fill, f.MapOnly || o.keep)
			d.m.put(max(a.start, to), a.end, o.fill, f.MapOnly || o.keep)
			continue
		}
		d.m.put(a.start, a.end, o.fill, f.MapOnly || o.keep)
	}
	if o.deep && part == 1<<16 && !f.KeepHidden && !f.MapOnly {
		clear(d.m.hidden)
	}
}

// all returns what an erase of the whole drive reaches: each namespace, or everything with a host protected area.
func (d *Drive) all() []extent {
	total := d.c.Sectors + d.c.Area + d.c.Overlay
	at := total
	switch {
	case d.f.KeepArea:
		at = d.c.Sectors
	case d.f.KeepOverlay:
		at = d.c.Sectors + d.c.Area
	}
	out := []extent{{0, at}}
	at = total
	for _, n := range d.c.Others {
		out = append(out, extent{at, at + n})
		at += n
	}
	return out
}

// run waits for an operation as long as its command does.
func (d *Drive) run(timeout time.Duration) (outcome, error) {
	if timeout == 0 {
		timeout = 30 * time.Second
	}
	o := d.op
	if o.secret {
		return completed, d.live(time.Millisecond)
	}
	wait := o.start + o.takes - d.clock.Now()
	if o.f.Stall || wait > timeout {
		if err := d.live(timeout); err != nil {
			return failed, err
		}
		return failed, drive.ErrTimeout
	}
	if err := d.live(wait); err != nil {
		return failed, err
	}
	return d.ended, nil
}

// running reports whether an operation is under way that the drive admits.
func (d *Drive) running() bool { return d.op != nil && !d.op.secret }

// reported is what the drive says of sanitize operations now: how the last one ended, whether one is under way, and its parameters.
func (d *Drive) reported() (how outcome, running bool, echo uint32) {
	if d.op == nil || !d.op.lasting {
		return d.said, d.verifying, d.echo
	}
	old := d.f.OldFor
	if old == 0 {
		old = 3 * time.Second
	}
	if d.f.OldCompleted && d.clock.Now() < d.op.start+old {
		return completed, false, d.echo
	}
	if d.op.secret {
		return completed, false, d.op.echo
	}
	return d.said, true, d.op.echo
}

// endVerification ends the media verification state, if the drive is in it: all blocks are deallocated.
func (d *Drive) endVerification() {
	if !d.verifying {
		return
	}
	d.verifying = false
	for _, a := range d.all() {
		d.m.put(a.start, a.end, fill{born: d.mark}, false)
	}
}

// PowerCut takes the power away until PowerOn: caches, unlocked passwords and opened areas are lost. A sanitize operation waits and goes on
// afterwards, every other erase is over where it was.
func (d *Drive) PowerCut() {
	if d.off {
		return
	}
	d.settle()
	d.off, d.offAt, d.cutAt = true, d.clock.Now(), 0
	d.interrupt(true)
	d.ata.powerLost(d.c.Sectors)
}

// PowerOn gives it back.
func (d *Drive) PowerOn() {
	if !d.off {
		return
	}
	d.off = false
	if d.op != nil {
		d.op.start += d.clock.Now() - d.offAt
	}
	if d.ata.overlay < d.c.Overlay {
		d.ata.visible = d.native()
	}
	d.kernel = d.ata.visible
}

// Reset resets the controller, or the device.
func (d *Drive) Reset() error {
	if err := d.live(time.Second); err != nil {
		return err
	}
	if d.c.Protocol == MMC {
		return errors.ErrUnsupported
	}
	d.interrupt(d.c.Protocol == NVMe)
	return nil
}

// interrupt is what a reset and a loss of power have in common. An erase that does not last is over if ends says so.
func (d *Drive) interrupt(ends bool) {
	clear(d.cache)
	d.tcg = tcgState{}
	d.scsi.attention = true
	d.canceled = d.canceled || d.verifying
	d.endVerification()
	o := d.op
	switch {
	case o == nil:
	case o.f.ForgetOnReset:
		d.op = nil
	case o.f.DoneOnReset:
		d.wipe(o, d.part())
		d.end(completed)
	case o.secret && d.off:
		d.wipe(o, d.part())
		d.end(completed)
	case !o.lasting && ends:
		d.wipe(o, d.part())
		d.end(failed)
	}
}
