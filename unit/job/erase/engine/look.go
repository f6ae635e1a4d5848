package engine

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"gprovision/hw/drive"
	"gprovision/model/erasure"
)

// look asks the drive who it is, what it can do and what it hides, and sends nothing that changes anything.
func (r *run) look() error {
	d := r.t.Drive
	if d == nil {
		return nil
	}
	var id drive.Identity
	err := r.link.again(func() (err error) { id, err = d.Identity(); return err })
	if err != nil {
		return fmt.Errorf("%w: ask who it is: %w", errStop, err)
	}
	if err := r.link.again(func() (err error) { r.caps, err = d.Capabilities(); return err }); err != nil {
		return fmt.Errorf("%w: ask what it can do: %w", errStop, err)
	}
	r.out.Model, r.out.Serial, r.out.Bytes = erasure.Printable(id.Model), erasure.Printable(id.Serial), erasure.Count(id.Size)
	var locking drive.Locking
	if err := r.link.again(func() (err error) { locking, _, err = d.Locking(); return err }); stops(err) {
		return err
	}
	r.out.Evidence.Locked = r.caps.Locked || locking.Locked
	for _, w := range r.caps.Words {
		r.out.Capabilities = append(r.out.Capabilities, erasure.Capability{Name: w.Name, Value: fmt.Sprintf("%#x", w.Value)})
	}
	r.unreached()
	r.hidden = erasure.Count(r.caps.Hidden / int64(max(1, r.t.Known.BlockSize)))
	return r.link.again(func() error {
		switch {
		case d.NVMe != nil:
			return r.lookNVMe(d.NVMe)
		case d.ATA != nil:
			id, err := d.ATA.Identify()
			r.out.Firmware = erasure.Printable(id.Firmware)
			return err
		case d.MMC != nil:
			x, err := d.MMC.ExtCSD()
			r.out.Firmware = erasure.Printable(x.Firmware)
			return err
		}
		i, err := d.SCSI.Inquiry()
		r.out.Firmware = erasure.Printable(i.Revision)
		return err
	})
}

// unreached lists what no method reaches, and why methods of the drive cannot be used.
func (r *run) unreached() {
	r.out.NotReached = slices.Clone(r.t.Known.NotReached)
	for _, o := range slices.Concat(r.caps.Unreached, r.caps.Obstacles) {
		r.out.NotReached = append(r.out.NotReached, erasure.Printable(o))
	}
}

// unfreeze lets a drive be unfrozen that has no method else. The error is one that ends the erase.
func (r *run) unfreeze() error {
	if !r.caps.Frozen || len(r.caps.Methods) > 0 || r.t.Unfreeze == nil || r.s.Unfrozen || !r.t.Whole {
		return nil
	}
	r.s.Unfrozen = true // before: a machine that does not wake up must not be put to sleep again
	if err := r.link.store(); err != nil {
		return err
	}
	if err := r.t.Unfreeze(); err != nil {
		r.out.NotReached = append(r.out.NotReached, erasure.Printable(err.Error()))
		return nil
	}
	if err := r.link.again(func() (err error) { r.caps, err = r.t.Drive.Capabilities(); return err }); err != nil {
		return fmt.Errorf("%w: ask what it can do: %w", errStop, err)
	}
	r.unreached()
	return nil
}

// revert sets a drive that encrypts back by its PSID. Nothing could be read before, so it is an attempt that proves nothing by itself; what
// it leaves is erased by the other methods. The error is one that ends the erase.
func (r *run) revert() error {
	d := r.t.Drive
	if r.t.PSID == "" || d == nil || r.s.Reverted || !r.t.Whole {
		return nil
	}
	asked := 0
	err := r.link.command(erasure.TCGRevert, "Revert", "of the whole drive, by its PSID", func() error {
		return d.Revert(r.link.permit, r.t.PSID, func() error {
			if asked++; asked > 600 {
				return errStalled
			}
			return r.link.env.Wait(r.link.ctx, time.Second)
		})
	})
	if stops(err) {
		return err
	}
	r.s.Reverted = true
	a := Attempt{Method: erasure.TCGRevert}
	if err != nil {
		a.Refused = err.Error()
	} else {
		var l drive.Locking
		err = r.link.again(func() (err error) { l, _, err = d.Locking(); return err })
		if stops(err) {
			return err
		}
		r.out.Evidence.Locked = r.caps.Locked || err != nil || l.Locked
		a.Evidence = r.out.Evidence
		a.Evidence.Method, a.Evidence.Samples.Blocks = erasure.TCGRevert, erasure.Count(r.link.blocks())
		a.Evidence.Word.TCG = &erasure.TCGWord{Reverted: true, Unlocked: err == nil && !l.Locked && (l.Enterprise || !l.Enabled)}
		a.Verdict = erasure.Judge(a.Evidence, r.t.Require)
	}
	r.s.Attempts = append(r.s.Attempts, a)
	return r.link.store()
}

// lookNVMe counts what is outside of the areas: namespaces that are not among them, and room that belongs to none.
func (r *run) lookNVMe(n *drive.NVMe) error {
	c, err := n.Controller()
	if err != nil {
		return err
	}
	r.out.Firmware = erasure.Printable(c.Firmware)
	spaces, err := r.link.namespaces(n, c)
	if err != nil || !r.t.Whole {
		return err
	}
	var bytes uint64
	for _, s := range spaces {
		bytes += s.Blocks * uint64(s.BlockSize)
	}
	block := uint64(r.t.Known.BlockSize)
	r.hidden = erasure.Count((bytes - min(bytes, uint64(view(r.t.Areas).size()))) / block)
	r.apart = erasure.Count(min(c.Unallocated/block, erasure.MaxCount/2))
	return nil
}

// open opens a host protected area until the power goes, and counts what stays hidden. It may be repeated.
func (r *run) open() error {
	if r.t.Drive == nil || r.t.Drive.ATA == nil || !r.t.Whole {
		return nil
	}
	a := r.t.Drive.ATA
	id, native, err := r.sizes(a)
	if err != nil {
		return r.unopened(err)
	}
	if native > id.Sectors && id.HPA && r.t.Reopen != nil && !id.Security.Locked {
		if r.closed == 0 {
			r.closed = id.Sectors
		}
		if err := r.resize(a, id, native); err != nil {
			return err
		}
		if id, native, err = r.sizes(a); err != nil {
			return r.unopened(err)
		}
	}
	r.hidden, r.overlay = erasure.Count(native-min(native, id.Sectors)), 0
	if !id.DCO {
		return nil
	}
	var all uint64
	err = r.link.again(func() (err error) { all, err = a.FactorySectors(); return err })
	switch {
	case stops(err):
		return err
	case err != nil || all <= native:
		return nil
	case r.t.Restore && r.t.Reopen != nil && !id.Security.Locked && !r.s.Restored:
		r.s.Restored = true // once: a drive that refuses is asked no second time
		err := r.changed("DEVICE CONFIGURATION RESTORE", fmt.Sprintf("sectors=%d, for good", all), all, func() error {
			return a.RestoreConfiguration(r.link.permit)
		})
		if err != nil {
			return err
		}
		return r.open()
	}
	r.overlay = erasure.Count(all - native)
	r.hidden += r.overlay
	return nil
}

// unopened returns an error that ends the erase; any other leaves one sector at least hidden, since nobody said how many there are.
func (r *run) unopened(err error) error {
	if stops(err) {
		return err
	}
	r.hidden = max(1, r.hidden)
	return nil
}

// sizes asks how many sectors there are now, and how many with a host protected area.
func (r *run) sizes(a *drive.ATA) (id drive.Identify, native uint64, err error) {
	err = r.link.again(func() (err error) {
		if id, err = a.Identify(); err != nil {
			return err
		}
		native, err = a.NativeSectors(id)
		if errors.Is(err, errors.ErrUnsupported) {
			native, err = id.Sectors, nil
		}
		return err
	})
	return id, native, err
}

// resize changes the number of sectors. The error is one that ends the erase: a drive that refuses stays as it is.
func (r *run) resize(a *drive.ATA, id drive.Identify, sectors uint64) error {
	return r.changed("SET MAX ADDRESS", fmt.Sprintf("sectors=%d, volatile", sectors), sectors, func() error {
		return a.SetSectors(r.link.permit, id, sectors)
	})
}

// changed sends a command that changes the number of sectors, as resize does.
func (r *run) changed(name, arguments string, sectors uint64, send func() error) error {
	if err := r.link.command(r.present(), name, arguments, send); err != nil {
		if stops(err) {
			return err
		}
		return nil
	}
	p, err := r.t.Reopen(sectors)
	if err != nil {
		return fmt.Errorf("%w: open it again after its size was changed: %w", errStop, err)
	}
	r.link.permit = p
	return nil
}

// present is the method whose turn it is; an overwrite before the first.
func (r *run) present() erasure.Method {
	if len(r.s.Left) > 0 {
		return r.s.Left[0]
	}
	return erasure.Overwrite
}

// putBack closes a host protected area again.
func (r *run) putBack() error {
	if r.closed == 0 {
		return nil
	}
	id, _, err := r.sizes(r.t.Drive.ATA)
	if err != nil || id.Sectors == r.closed {
		return err
	}
	return r.resize(r.t.Drive.ATA, id, r.closed)
}
