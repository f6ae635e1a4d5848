package simdrive

import (
	"encoding/binary"
	"math"

	"gprovision/hw/drive"
)

// number returns a number that the drive says of its state, and whether it says it.
func number(n *int64) (uint64, bool) {
	if n == nil {
		return 0, false
	}
	return uint64(*n), true
}

// warns reports whether the drive warns of its end.
func (d *Drive) warns() bool { return d.c.Health.Failing != nil && *d.c.Health.Failing }

// reallocated is how many sectors the drive says that it has reallocated: those of its state, and those that hold old data.
func (d *Drive) reallocated() uint64 {
	n, _ := number(d.c.Health.Reallocated)
	return n + uint64(d.remapped())
}

// nvmeHealth makes the SMART / Health Information log page. What the drive does not say is 0, as the page has nothing for that.
func (d *Drive) nvmeHealth(b []byte) {
	h, le := d.c.Health, binary.LittleEndian
	if d.warns() {
		b[0] = 1 << 2
	}
	if n, ok := number(h.Temperature); ok {
		le.PutUint16(b[1:], uint16(int64(n)+273))
	}
	spare, ok := number(h.Spare)
	if !ok {
		spare = 100
	}
	b[3], b[4] = byte(spare), 10
	used, _ := number(h.Used)
	b[5] = byte(min(used, 255))
	written, _ := number(h.Written)
	le.PutUint64(b[48:], (written+511_999)/512_000)
	for at, n := range map[int]*int64{112: h.Starts, 128: h.PowerOn, 160: h.Uncorrectable} {
		v, _ := number(n)
		le.PutUint64(b[at:], v)
	}
}

// attribute is one of SMART READ DATA.
type attribute struct {
	id, value, threshold byte
	raw                  uint64
}

// attributes are those that the drive has.
func (d *Drive) attributes() []attribute {
	h := d.c.Health
	out := []attribute{{5, 100, 36, d.reallocated()}}
	if d.warns() {
		out[0].value = 4
	}
	for _, a := range []struct {
		id byte
		n  *int64
	}{{9, h.PowerOn}, {12, h.Starts}, {187, h.Uncorrectable}, {194, h.Temperature}, {197, h.Pending}, {199, h.LinkErrors}} {
		if n, ok := number(a.n); ok {
			out = append(out, attribute{a.id, 100, 0, n})
		}
	}
	if used, ok := number(h.Used); ok && d.c.Flash {
		out = append(out, attribute{231, byte(100 - min(used, 99)), 10, 0})
	}
	return out
}

// smart answers SMART with a feature that asks.
func (d *Drive) smart(t taskfile) registers {
	switch {
	case t.lba != 0xc24f00:
		return aborted()
	case t.features == 0xda:
		r := done()
		r.lba = 0xc24f00
		if d.warns() {
			r.lba = 0x2cf400
		}
		return r
	case t.features != 0xd0 && t.features != 0xd1:
		return aborted()
	}
	clear(t.data)
	b := t.data[2:]
	for _, a := range d.attributes() {
		b[0] = a.id
		if t.features == 0xd1 {
			b[1] = a.threshold
		} else {
			b[1], b[3], b[4] = 1, a.value, a.value
			var raw [8]byte
			binary.LittleEndian.PutUint64(raw[:], a.raw)
			copy(b[5:11], raw[:])
		}
		b = b[12:]
	}
	var sum byte
	for _, c := range t.data {
		sum += c
	}
	t.data[511] = -sum
	return done()
}

// statistics answers READ LOG EXT for a page of the Device Statistics log.
func (d *Drive) statistics(t taskfile) registers {
	page := byte(t.lba >> 8)
	if t.lba&0xff != 4 || len(t.data) < 512 || page > 7 {
		return aborted()
	}
	h, b := d.c.Health, t.data
	clear(b)
	b[0], b[2] = 1, page
	put := func(at, size int, n *int64) {
		v, ok := number(n)
		binary.LittleEndian.PutUint64(b[at:], v&(1<<(8*size)-1))
		b[at+7] = 0x80
		if ok {
			b[at+7] |= 0x40
		}
	}
	switch page {
	case 0:
		copy(b[8:], []byte{7, 0, 1, 3, 4, 5, 6, 7})
	case 1:
		put(8, 4, h.Starts)
		put(16, 4, h.PowerOn)
		if h.Written != nil {
			put(24, 6, new(*h.Written/int64(d.c.SectorSize)))
		}
	case 3:
		put(56, 4, h.Pending)
	case 4:
		put(8, 4, h.Uncorrectable)
	case 5:
		put(8, 1, h.Temperature)
	case 6:
		put(24, 4, h.LinkErrors)
	case 7:
		if d.c.Flash {
			put(8, 1, h.Used)
		}
	}
	return done()
}

// logSense answers LOG SENSE.
func (d *Drive) logSense(cdb []byte) answer {
	h := d.c.Health
	var b []byte
	put := func(code uint16, data ...byte) {
		b = append(b, byte(code>>8), byte(code), 3, byte(len(data)))
		b = append(b, data...)
	}
	word := func(n uint64) []byte { return binary.BigEndian.AppendUint32(nil, uint32(min(n, math.MaxUint32))) }
	page := cdb[2] & 0x3f
	switch page {
	case 0x00:
		b = []byte{0x00, 0x03, 0x0d, 0x0e, 0x11, 0x15, 0x2f}
	case 0x03: // reads: corrected, and not
		put(3, word(7)...)
		if n, ok := number(h.Uncorrectable); ok {
			put(6, binary.BigEndian.AppendUint64(nil, n)...)
		}
	case 0x0d:
		temperature := byte(0xff)
		if n, ok := number(h.Temperature); ok {
			temperature = byte(n)
		}
		put(0, 0, temperature)
	case 0x0e:
		put(1, []byte("202630")...) // date of manufacture
		if n, ok := number(h.Starts); ok {
			put(4, word(n)...)
		}
	case 0x11:
		if n, ok := number(h.Used); ok {
			put(1, 0, 0, 0, byte(n))
		}
	case 0x15:
		if n, ok := number(h.PowerOn); ok {
			put(0, append(word(60*n), make([]byte, 8)...)...)
		}
	case 0x2f:
		if d.warns() {
			put(0, 0x5d, 0x10, 0, 0)
		} else {
			put(0, 0, 0, 0, 0)
		}
	default:
		return illegalField()
	}
	return good(append([]byte{page, 0, byte(len(b) >> 8), byte(len(b))}, b...))
}

// mmcHealth makes the bytes of EXT_CSD that say how worn it is.
func (d *Drive) mmcHealth(b []byte) {
	b[267] = 1
	if d.warns() {
		b[267] = 2
	}
	if used, ok := number(d.c.Health.Used); ok {
		b[268] = byte(min(max(used+9, 10)/10, 11))
	}
}

// NewDisk is the state of a drive that nobody has used.
func NewDisk() drive.Health {
	return drive.Health{
		Failing: new(false), Temperature: new(int64(31)), Used: new(int64(0)), Spare: new(int64(100)), PowerOn: new(int64(2)),
		Starts: new(int64(5)), Reallocated: new(int64(0)), Pending: new(int64(0)), Uncorrectable: new(int64(0)),
		LinkErrors: new(int64(0)), Written: new(int64(0)),
	}
}
