package simdrive

import (
	"encoding/binary"
	"errors"

	"gprovision/hw/drive"
)

// scsiState is what only SCSI drives have.
type scsiState struct {
	attention bool // a reset is to be told of
}

// answer is how a SCSI command ends.
type answer struct {
	status         byte // 00h, 02h, 08h
	key, asc, ascq byte
	progress       int64 // in 65,536ths, if not 0
	data           []byte
	length         int    // how much a command that moves blocks says that it moves
	registers      []byte // the descriptor of ATA Status Return
}

// good is an answer with data.
func good(data []byte) answer { return answer{data: data} }

// check is check condition.
func check(key, asc, ascq byte) answer { return answer{status: 2, key: key, asc: asc, ascq: ascq} }

// illegal is the answer to a command that is not known; illegalField is one to a field of it.
func illegal() answer      { return check(5, 0x20, 0) }
func illegalField() answer { return check(5, 0x24, 0) }

// sense makes sense data of descriptor format.
func (a answer) sense() []byte {
	b := []byte{0x72, a.key, a.asc, a.ascq, 0, 0, 0, 0}
	if a.progress > 0 {
		b = append(b, 0x02, 6, 0, 0, 0x80, 0, 0, 0)
		binary.BigEndian.PutUint16(b[len(b)-3:], uint16(min(a.progress, 0xffff)))
	}
	b = append(b, a.registers...)
	b[7] = byte(len(b) - 8)
	return b
}

// SCSI answers a command block.
func (d *Drive) SCSI(c drive.SCSICommand) (drive.SCSIResult, error) {
	if d.c.Protocol == NVMe || d.c.Protocol == MMC {
		return drive.SCSIResult{}, errors.ErrUnsupported
	}
	var a answer
	var busy bool
	var err error
	transfer := isTransfer(c.CDB[0])
	if transfer {
		err = d.live(0)
	} else {
		busy, err = d.arrive(c.CDB)
	}
	if err != nil {
		return drive.SCSIResult{}, err
	}
	switch {
	case busy:
		a.status = 8
	case d.running() && !d.op.lasting && d.c.Protocol == ATA:
		return drive.SCSIResult{}, drive.ErrTimeout // the link is busy until the command is done
	case transfer:
		if a, err = d.transfer(c); err != nil {
			return drive.SCSIResult{}, err
		}
	case d.c.Protocol == ATA:
		if a, err = d.translated(c); err != nil {
			return drive.SCSIResult{}, err
		}
	default:
		if a, err = d.scsiCommand(c); err != nil {
			return drive.SCSIResult{}, err
		}
	}
	r := drive.SCSIResult{Status: a.status}
	if a.status == 2 {
		r.Sense = a.sense()
	}
	if c.Direction == drive.FromDrive {
		r.Residual = len(c.Data) - copy(c.Data, a.data)
	}
	if transfer && a.status == 0 {
		r.Residual = len(c.Data) - a.length // below 0 if it would have moved more
	}
	return r, nil
}

// scsiCommand answers a command of a SCSI drive.
func (d *Drive) scsiCommand(c drive.SCSICommand) (answer, error) {
	switch c.CDB[0] {
	case 0x12:
		return d.inquiry(c.CDB, "LAB"), nil
	case 0x03:
		return d.requestSense(), nil
	}
	if c.CDB[0] == 0xa2 || c.CDB[0] == 0xb5 {
		return d.securityProtocol(c), nil
	}
	if d.scsi.attention {
		d.scsi.attention = false
		return check(6, 0x29, 0x00), nil // power on, reset, or bus device reset occurred
	}
	if c.CDB[0] == 0xa3 && c.CDB[1]&0x1f == 0x0c {
		return d.supported(c.CDB), nil
	}
	if a := d.condition(); a.status != 0 && !(c.CDB[0] == 0x48 && !d.running()) && !(c.CDB[0] == 0x04 && d.said != failed && !d.running()) {
		return a, nil
	}
	switch c.CDB[0] {
	case 0x00:
		return good(nil), nil
	case 0xb7:
		if c.CDB[1]&0x18 != 0x08 {
			return illegalField(), nil
		}
		b := []byte{0, 0x08, 0, 0, 0, 0, 0, 0}
		binary.BigEndian.PutUint32(b[4:], uint32(4*d.reallocated()))
		return good(b), nil
	case 0x4d:
		return d.logSense(c.CDB), nil
	case 0x48:
		return d.scsiSanitize(c), nil
	case 0x04:
		return d.scsiFormat(c)
	}
	if a, ok := d.asked(c.CDB); ok {
		return a, nil
	}
	return illegal(), nil
}

// securityProtocol answers SECURITY PROTOCOL IN and OUT.
func (d *Drive) securityProtocol(c drive.SCSICommand) answer {
	if !d.c.Encrypts {
		return illegal()
	}
	data, ok := d.trusted(c.CDB[0] == 0xb5, c.CDB[1], binary.BigEndian.Uint16(c.CDB[2:]), c.Data)
	if !ok {
		return illegalField()
	}
	return good(data)
}

// condition is what a drive answers to all that needs its medium: good if it is ready.
func (d *Drive) condition() answer {
	how, running, _ := d.reported()
	switch {
	case running:
		a := check(2, 0x04, 0x1b)
		a.progress = max(1, d.part())
		return a
	case d.running():
		a := check(2, 0x04, 0x04)
		a.progress = max(1, d.part())
		return a
	case how == failed:
		return check(3, 0x31, 0x03)
	case d.ended == failed:
		return check(3, 0x31, 0x01)
	}
	return good(nil)
}

// requestSense answers REQUEST SENSE, with good status and sense data of descriptor format as its data.
func (d *Drive) requestSense() answer {
	a := d.condition()
	if d.scsi.attention {
		a, d.scsi.attention = check(6, 0x29, 0x00), false
	}
	if d.f.HidesStatus {
		a = answer{}
	}
	return good(a.sense())
}

// inquiry answers INQUIRY.
func (d *Drive) inquiry(cdb []byte, vendor string) answer {
	model, serial := d.identity()
	page := func(b []byte) answer {
		return good(append([]byte{0, cdb[2], byte(len(b) >> 8), byte(len(b))}, b...))
	}
	switch {
	case cdb[1]&1 == 0:
		b := make([]byte, 96)
		b[2], b[3], b[4] = 6, 2, 91
		pad(b[8:16], vendor)
		pad(b[16:32], model)
		if vendor == "LAB" {
			pad(b[16:32], model[len("LAB "):])
		}
		pad(b[32:36], d.c.Firmware)
		return good(b)
	case cdb[2] == 0x80:
		return page([]byte(serial))
	case cdb[2] == 0x83:
		return page([]byte{1, 3, 0, 8, 0x50, 0, 0xc5, 0, 0, 0, 0, byte(d.c.Seed)})
	case cdb[2] == 0xb1:
		b := make([]byte, 60)
		binary.BigEndian.PutUint16(b, d.rotation())
		return page(b)
	}
	if b, ok := d.pages(cdb[2]); ok {
		return page(b)
	}
	return illegalField()
}

func (d *Drive) rotation() uint16 {
	if d.c.Flash {
		return 1
	}
	return 7200
}

// scsiMethods are the service actions of SANITIZE.
func scsiMethods() map[byte]drive.Method {
	return map[byte]drive.Method{1: drive.SCSISanitizeOverwrite, 2: drive.SCSISanitizeBlock, 3: drive.SCSISanitizeCrypto}
}

// supported answers REPORT SUPPORTED OPERATION CODES for one command.
func (d *Drive) supported(cdb []byte) answer {
	var known bool
	switch cdb[3] {
	case 0x48:
		known = d.says(scsiMethods()[cdb[5]])
	case 0x04:
		known = d.says(drive.SCSIFormatUnit)
	default:
		known = cdb[3] == 0x00 || cdb[3] == 0x03 || cdb[3] == 0x12 || cdb[3] == 0x9e || cdb[3] == 0xa3
	}
	if known {
		return good([]byte{0, 3, 0, 0})
	}
	return good([]byte{0, 1, 0, 0})
}

// scsiSanitize answers SANITIZE.
func (d *Drive) scsiSanitize(c drive.SCSICommand) answer {
	action := c.CDB[1] & 0x1f
	m := scsiMethods()[action]
	switch {
	case d.locked:
		return check(7, 0x20, 0x02) // access denied, no access rights
	case action == 0x1f && d.said == failed: // AUSE was 0
		return illegalField()
	case action == 0x1f:
		return good(nil)
	case d.f.SanitizeFrozen:
		return check(2, 0x04, 0x00)
	case !d.knows(m):
		return illegalField()
	}
	o := operation{method: m, areas: d.all(), deep: true, lasting: true}
	if m == drive.SCSISanitizeOverwrite {
		if len(c.Data) != 8 || c.Data[0]&0x1f == 0 || c.Data[3] != 4 {
			return check(5, 0x26, 0) // invalid field in parameter list
		}
		o.fill.word, o.passes = binary.BigEndian.Uint32(c.Data[4:]), int(c.Data[0]&0x1f)
	}
	d.begin(o)
	return good(nil)
}

// scsiFormat answers FORMAT UNIT, at once if IMMED is set.
func (d *Drive) scsiFormat(c drive.SCSICommand) (answer, error) {
	switch {
	case !d.knows(drive.SCSIFormatUnit):
		return illegal(), nil
	case d.locked:
		return check(7, 0x20, 0x02), nil
	}
	d.begin(operation{method: drive.SCSIFormatUnit, areas: d.all()})
	if len(c.Data) >= 4 && c.Data[1]&2 != 0 {
		return good(nil), nil
	}
	how, err := d.run(c.Timeout)
	if err == nil && how != completed {
		return check(3, 0x31, 0x01), nil
	}
	return good(nil), err
}
