package drive

import (
	"errors"
	"fmt"
)

// Drive is an open drive. One of NVMe, ATA, SCSI and MMC is set: the protocol that it speaks.
type Drive struct {
	NVMe *NVMe
	ATA  *ATA
	SCSI *SCSI
	MMC  *MMC

	dev    Device
	permit permitter
	close  func() error
}

// On finds out which protocol a device speaks. Each command that is sent is told to tell, which may be nil.
//
// A SCSI device is an ATA drive if its vendor is ATA, as that of each disk on an ATA controller, or if it has page 89h (SAT, ATA
// Information), and if it answers IDENTIFY DEVICE.
func On(dev Device, tell func(Exchange)) (*Drive, error) {
	if tell != nil {
		dev = observed{dev, tell}
	}
	d := &Drive{dev: dev, close: func() error { return nil }}
	permit := func(p Permit) error { return p.check(dev, d.who) }
	d.permit = permit
	n := &NVMe{dev, permit}
	switch _, err := n.Controller(); {
	case err == nil:
		d.NVMe = n
		return d, nil
	case !errors.Is(err, errors.ErrUnsupported):
		return nil, fmt.Errorf("find protocol: %w", err)
	}
	m := &MMC{dev, permit}
	switch _, err := m.ExtCSD(); {
	case err == nil:
		d.MMC = m
		return d, nil
	case !errors.Is(err, errors.ErrUnsupported):
		return nil, fmt.Errorf("find protocol: %w", err)
	}
	s := &SCSI{dev, permit}
	inquiry, err := s.Inquiry()
	if err != nil {
		return nil, fmt.Errorf("find protocol: %w", err)
	}
	if inquiry.Type != 0 {
		return nil, fmt.Errorf("find protocol: %s %s is no disk", inquiry.Vendor, inquiry.Product)
	}
	translated := inquiry.Vendor == "ATA"
	if !translated {
		_, err := s.Page(0x89)
		translated = err == nil
	}
	if translated {
		a := &ATA{dev, permit}
		if _, err := a.Identify(); err == nil {
			d.ATA = a
			return d, nil
		}
	}
	d.SCSI = s
	return d, nil
}

// Close closes the drive, and ends the claim on it.
func (d *Drive) Close() error { return d.close() }

// Check asks drive and machine whether a permit allows a command at this moment: for whoever is about to write blocks.
func (d *Drive) Check(p Permit) error { return d.permit(p) }

// Reset resets the controller of an NVMe drive, or a SCSI device, so that nothing of what it holds in its caches answers for the medium. An
// eMMC has none that Linux offers: the error is errors.ErrUnsupported.
func (d *Drive) Reset(p Permit) error {
	if err := d.permit(p); err != nil {
		return err
	}
	if err := d.dev.Reset(); err != nil {
		return fmt.Errorf("reset drive: %w", err)
	}
	return nil
}

// State says what the machine knows of the drive at this moment.
func (d *Drive) State() (State, error) { return d.dev.State() }

// who asks the drive for its model and serial number.
func (d *Drive) who() (model, serial string, err error) {
	switch {
	case d.NVMe != nil:
		c, err := d.NVMe.Controller()
		return c.Model, c.Serial, err
	case d.ATA != nil:
		id, err := d.ATA.Identify()
		return id.Model, id.Serial, err
	case d.MMC != nil:
		return d.MMC.identity()
	}
	i, err := d.SCSI.Inquiry()
	if err != nil {
		return "", "", err
	}
	serial, err = d.SCSI.Serial()
	if refused(err) || err == nil && serial == "" { // the page is optional, that of names is not
		serial, err = d.SCSI.Name()
	}
	return text([]byte(i.Vendor + " " + i.Product)), serial, err
}

// Identity asks the drive who it is, and the kernel how large it is and which number it has.
func (d *Drive) Identity() (Identity, error) {
	s, err := d.dev.State()
	if err != nil {
		return Identity{}, err
	}
	model, serial, err := d.who()
	if err != nil {
		return Identity{}, err
	}
	return Identity{Model: model, Serial: serial, Size: s.Size, Number: s.Number}, nil
}
