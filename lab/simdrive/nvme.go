package simdrive

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"time"

	"gprovision/hw/drive"
)

// The statuses that are answered (NVMe figure 102), generic ones.
const (
	invalidOpcode      = 0x01
	invalidField       = 0x02
	internalError      = 0x06
	invalidNamespace   = 0x0b
	operationDenied    = 0x15
	sanitizeFailed     = 0x1c
	sanitizeInProgress = 0x1d
	namespaceNotReady  = 0x82
)

// NVMe answers an admin command.
func (d *Drive) NVMe(c drive.NVMeCommand) (drive.NVMeResult, error) {
	if d.c.Protocol != NVMe {
		return drive.NVMeResult{}, errors.ErrUnsupported
	}
	s := c.Submission()
	busy, err := d.arrive(s[:])
	switch {
	case err != nil:
		return drive.NVMeResult{}, err
	case busy:
		return drive.NVMeResult{Status: namespaceNotReady}, nil
	case d.running() && !d.op.lasting:
		return drive.NVMeResult{}, drive.ErrTimeout
	}
	status, err := d.admin(c)
	if status != 0 {
		status |= 1 << 14 // do not retry
	}
	return drive.NVMeResult{Status: status}, err
}

// admin returns the status of a command.
func (d *Drive) admin(c drive.NVMeCommand) (uint16, error) {
	how, running, _ := d.reported()
	switch c.Opcode {
	case 0x06:
		return d.nvmeIdentify(c), nil
	case 0x02:
		return d.nvmeLog(c), nil
	case 0x81, 0x82:
		return d.nvmeSecurity(c), nil
	case 0x80, 0x84:
		if d.locked {
			return operationDenied, nil
		}
	default:
		return invalidOpcode, nil
	}
	switch {
	case d.verifying && c.Opcode == 0x84 && c.CDW10&7 == 5:
		d.endVerification()
		return 0, nil
	case running:
		return sanitizeInProgress, nil
	case c.Opcode == 0x84:
		return d.nvmeSanitize(c), nil
	case how == failed:
		return sanitizeFailed, nil
	}
	return d.nvmeFormat(c)
}

// nvmeIdentify answers Identify.
func (d *Drive) nvmeIdentify(c drive.NVMeCommand) uint16 {
	clear(c.Data)
	attached := uint32(1 + len(d.c.Others) - d.c.Unattached)
	allocated := uint32(1 + len(d.c.Others))
	switch cns := c.CDW10 & 0xff; {
	case cns == 0x01:
		d.controller(c.Data)
	case cns == 0x02:
		list(c.Data, c.NSID, attached)
	case cns == 0x10 && d.c.Unattached > 0:
		list(c.Data, c.NSID, allocated)
	case cns == 0x00 && c.NSID > 0 && c.NSID <= attached, cns == 0x11 && c.NSID > 0 && c.NSID <= allocated:
		a := d.all()[c.NSID-1]
		for i := range 3 {
			binary.LittleEndian.PutUint64(c.Data[8*i:], uint64(a.end-a.start))
		}
		c.Data[128+2] = byte(bits.Len(uint(d.c.SectorSize)) - 1)
	case cns == 0x00 && c.NSID > 0 && c.NSID <= 32, cns == 0x11 && c.NSID > 0 && c.NSID <= 32:
	case cns == 0x00, cns == 0x11:
		return invalidNamespace
	default:
		return invalidField
	}
	return 0
}

// controller makes the data of Identify Controller.
func (d *Drive) controller(b []byte) {
	model, serial := d.identity()
	pad(b[4:24], serial)
	pad(b[24:64], model)
	pad(b[64:72], d.c.Firmware)
	le := binary.LittleEndian
	le.PutUint32(b[80:], 2<<16|1<<8)
	var sanicap uint32
	for i, m := range []drive.Method{drive.NVMeSanitizeCrypto, drive.NVMeSanitizeBlock, drive.NVMeSanitizeOverwrite} {
		if d.says(m) {
			sanicap |= 1 << i
		}
	}
	if d.c.NoKeep && sanicap != 0 {
		sanicap |= 1 << 29
	}
	if d.c.Verify {
		sanicap |= 1 << 3
	}
	if d.c.Purges {
		sanicap |= 1 << 5
	}
	le.PutUint32(b[328:], sanicap)
	le.PutUint32(b[516:], 32)
	var oacs uint16
	if d.says(drive.NVMeFormatUser) {
		oacs |= 1 << 1
	}
	if d.c.Unattached > 0 {
		oacs |= 1 << 3
	}
	if d.c.Encrypts {
		oacs |= 1 << 0
	}
	le.PutUint16(b[256:], oacs)
	if d.says(drive.NVMeFormatCrypto) {
		b[524] = 1 << 2
	}
}

// pad writes a field of ASCII.
func pad(b []byte, s string) {
	for i := copy(b, s); i < len(b); i++ {
		b[i] = ' '
	}
}

// list makes a list of namespaces.
func list(b []byte, after, last uint32) {
	for id := after + 1; id <= last && len(b) >= 4; id++ {
		binary.LittleEndian.PutUint32(b, id)
		b = b[4:]
	}
}

// nvmeSecurity answers Security Send and Security Receive.
func (d *Drive) nvmeSecurity(c drive.NVMeCommand) uint16 {
	if !d.c.Encrypts {
		return invalidOpcode
	}
	data, ok := d.trusted(c.Opcode == 0x81, byte(c.CDW10>>24), uint16(c.CDW10>>8), c.Data)
	switch {
	case !ok:
		return invalidField
	case c.Opcode == 0x82:
		clear(c.Data)
		copy(c.Data, data)
	}
	return 0
}

// nvmeLog answers Get Log Page for 02h and 81h.
func (d *Drive) nvmeLog(c drive.NVMeCommand) uint16 {
	if c.CDW10&0xff == 0x02 && len(c.Data) >= 512 {
		clear(c.Data)
		d.nvmeHealth(c.Data)
		return 0
	}
	if c.CDW10&0xff != 0x81 || len(c.Data) < 32 {
		return 1<<8 | 0x09 // invalid log page
	}
	clear(c.Data)
	how, running, echo := d.reported()
	status, progress := map[outcome]uint16{never: 0, completed: 1, failed: 3}[how], uint16(0xffff)
	switch {
	case d.verifying:
		status = 2 | 1<<8
		c.Data[36] = 5
	case running:
		status, progress = 2, uint16(min(d.part(), 0xfffe))
	default:
		status |= uint16(d.passes) << 3
		if d.untouched || d.op != nil {
			status |= 1 << 8
		}
	}
	if d.canceled {
		status |= 1 << 9
	}
	if d.purged && !running {
		status |= 1 << 11
	}
	le := binary.LittleEndian
	le.PutUint16(c.Data, progress)
	le.PutUint16(c.Data[2:], status)
	le.PutUint32(c.Data[4:], echo)
	for i, m := range []drive.Method{drive.NVMeSanitizeOverwrite, drive.NVMeSanitizeBlock, drive.NVMeSanitizeCrypto} {
		le.PutUint32(c.Data[8+4*i:], 0xffffffff)
		if t := d.c.Times[m]; t > 0 {
			le.PutUint32(c.Data[8+4*i:], uint32(t/time.Second))
		}
	}
	return 0
}

// nvmeSanitize answers Sanitize.
func (d *Drive) nvmeSanitize(c drive.NVMeCommand) uint16 {
	m := map[uint32]drive.Method{2: drive.NVMeSanitizeBlock, 3: drive.NVMeSanitizeOverwrite, 4: drive.NVMeSanitizeCrypto}[c.CDW10&7]
	switch {
	case c.CDW10&7 == 1 && d.said == failed: // it failed in restricted completion mode
		return sanitizeFailed
	case c.CDW10&7 == 1:
		return 0
	case d.f.SanitizeFrozen, !d.knows(m), d.c.NoKeep && c.CDW10&(1<<9) != 0, !d.c.Purges && c.CDW10&(1<<11) != 0:
		return invalidField
	case c.CDW10&(1<<10) != 0 && (!d.c.Verify || c.CDW10&(1<<9) != 0 || m == drive.NVMeSanitizeOverwrite):
		return invalidField
	}
	o := operation{method: m, areas: d.all(), deep: true, lasting: true, echo: c.CDW10, verify: c.CDW10&(1<<10) != 0,
		purge: c.CDW10&(1<<11) != 0}
	if m == drive.NVMeSanitizeOverwrite {
		o.fill.word, o.passes = bits.ReverseBytes32(c.CDW11), int(c.CDW10>>4&0xf)
	}
	d.begin(o)
	return 0
}

// nvmeFormat answers Format NVM.
func (d *Drive) nvmeFormat(c drive.NVMeCommand) (uint16, error) {
	m := map[uint32]drive.Method{1: drive.NVMeFormatUser, 2: drive.NVMeFormatCrypto}[c.CDW10>>9&7]
	switch {
	case c.NSID == 0 || int(c.NSID) > 1+len(d.c.Others):
		return invalidNamespace, nil
	case !d.knows(m):
		return invalidField, nil
	}
	d.begin(operation{method: m, areas: d.all()[c.NSID-1 : c.NSID], deep: len(d.c.Others) == 0})
	how, err := d.run(c.Timeout)
	if err == nil && how != completed {
		return internalError, nil
	}
	d.untouched = false
	return 0, err
}
