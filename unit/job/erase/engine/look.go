package engine

import (
	"errors"
	"fmt"

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
	for _, o := range r.caps.Obstacles {
		r.out.NotReached = append(r.out.NotReached, erasure.Printable(o))
	}
	return r.link.again(func() error {
		switch {
		case d.NVMe != nil:
			return r.lookNVMe(d.NVMe)
		case d.ATA != nil:
			id, err := d.ATA.Identify()
			r.out.Firmware = erasure.Printable(id.Firmware)
			return err
		}
		i, err := d.SCSI.Inquiry()
		r.out.Firmware = erasure.Printable(i.Revision)
		return err
	})
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
	r.hidden = erasure.Count(native - min(native, id.Sectors))
	if id.DCO {
		if all, err := a.FactorySectors(); err == nil && all > native {
			r.hidden += erasure.Count(all - native)
		}
	}
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
	err := r.link.command(r.present(), "SET MAX ADDRESS", fmt.Sprintf("sectors=%d, volatile", sectors), func() error {
		return a.SetSectors(r.link.permit, id, sectors)
	})
	if err != nil {
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
