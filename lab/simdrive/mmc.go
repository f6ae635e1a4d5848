package simdrive

import (
	"encoding/binary"
	"errors"
	"strconv"

	"gprovision/hw/drive"
)

// The bits of a card status that are answered.
const (
	cardReady      = 1<<8 | 4<<9
	cardError      = 1 << 19
	cardEraseParam = 1 << 27
	cardEraseSeq   = 1 << 28
	cardSwitch     = 1 << 7
)

// MMC answers commands in a row.
func (d *Drive) MMC(cs ...drive.MMCCommand) ([]uint32, error) {
	if d.c.Protocol != MMC {
		return nil, errors.ErrUnsupported
	}
	var out []uint32
	start, end := int64(-1), int64(-1)
	for _, c := range cs {
		if _, err := d.arrive(binary.BigEndian.AppendUint32([]byte{byte(c.Index)}, c.Argument)); err != nil {
			return nil, err
		}
		if d.running() {
			return nil, drive.ErrTimeout
		}
		status := uint32(cardReady)
		switch c.Index {
		case 8:
			d.extCSD(c.Data)
		case 35:
			start = int64(c.Argument) / int64(d.addressed())
		case 36:
			end = int64(c.Argument)/int64(d.addressed()) + 1
		case 38:
			s, err := d.mmcErase(c, start, end)
			if err != nil {
				return nil, err
			}
			status |= s
		case 6:
			s, err := d.mmcSwitch(c)
			if err != nil {
				return nil, err
			}
			status |= s
		default:
			status |= 1 << 22
		}
		out = append(out, status)
	}
	return out, nil
}

// addressed is how many units of an address a sector has: 512 up to 2 GiB.
func (d *Drive) addressed() int {
	if d.c.Sectors*512 > 2<<30 {
		return 1
	}
	return 512
}

// mmcErase is ERASE and TRIM: what was there stays in cells that nothing is mapped to. SECURE ERASE reaches those too.
func (d *Drive) mmcErase(c drive.MMCCommand, start, end int64) (uint32, error) {
	o := operation{method: drive.MMCSanitize, areas: []extent{{start, end}}, keep: true}
	if c.Argument == 1<<31 {
		o.method, o.keep, o.deep = drive.MMCSecureErase, false, true
	}
	switch {
	case start < 0 || end < 0:
		return cardEraseSeq, nil
	case start >= end || end > d.c.Sectors:
		return cardEraseParam, nil
	case c.Argument > 1 && !(o.deep && d.knows(o.method)):
		return cardEraseParam, nil
	}
	return d.mmcRun(c, o)
}

// mmcSwitch is SWITCH: Sanitize only.
func (d *Drive) mmcSwitch(c drive.MMCCommand) (uint32, error) {
	if c.Argument != 3<<24|165<<16|1<<8|1 || !d.knows(drive.MMCSanitize) {
		return cardSwitch, nil
	}
	return d.mmcRun(c, operation{method: drive.MMCSanitize, deep: true})
}

func (d *Drive) mmcRun(c drive.MMCCommand, o operation) (uint32, error) {
	op := d.begin(o)
	how, err := d.run(c.Timeout)
	if err == nil && how != completed && !op.secret {
		return cardError, nil
	}
	return 0, err
}

// extCSD makes the data of EXT_CSD.
func (d *Drive) extCSD(b []byte) {
	clear(b)
	binary.LittleEndian.PutUint32(b[212:], uint32(d.c.Sectors))
	b[192], b[226], b[168] = 5, 32, 4 // eMMC 4.41
	b[231] = 1 << 4
	if d.says(drive.MMCSecureErase) {
		b[231] |= 1
	}
	if d.says(drive.MMCSanitize) {
		b[192] = 8
		b[231] |= 1 << 6
	}
	copy(b[254:262], d.c.Firmware)
	d.mmcHealth(b)
}

// cid makes the identification register of the serial number 0x and eight digits.
func (d *Drive) cid() (b [16]byte) {
	model, serial := d.identity()
	copy(b[3:9], model)
	n, _ := strconv.ParseUint(serial[:min(len(serial), 10)], 0, 32)
	if len(serial) > 10 { // that of another drive
		n++
	}
	binary.BigEndian.PutUint32(b[10:], uint32(n))
	return b
}
