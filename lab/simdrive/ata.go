package simdrive

import (
	"encoding/binary"
	"time"

	"gprovision/hw/drive"
)

// ataState is what only ATA drives have.
type ataState struct {
	visible  int64 // sectors that can be addressed
	enabled  bool  // a password is set
	locked   bool
	password [32]byte
	tries    int
	prepared bool  // the last command was SECURITY ERASE PREPARE
	native   bool  // the last command was READ NATIVE MAX ADDRESS
	overlay  int64 // sectors that a device configuration overlay hides
	thawed   bool  // it lost its power, and firmware did not freeze it since
}

// powerLost is what the drive forgets: it is locked again, and a host protected area is closed.
func (s *ataState) powerLost(visible int64) {
	s.visible, s.locked, s.tries, s.prepared, s.thawed = visible, s.enabled, 0, false, false
}

// frozen reports whether the security commands are frozen.
func (d *Drive) frozen() bool { return d.f.Frozen && !d.ata.thawed }

// native is how many sectors there are with a host protected area, and without what an overlay hides.
func (d *Drive) native() int64 { return d.c.Sectors + d.c.Area + d.c.Overlay - d.ata.overlay }

// taskfile is an ATA command as ATA PASS-THROUGH (16) has it.
type taskfile struct {
	command  byte
	features uint16
	count    uint16
	lba      uint64
	data     []byte
	timeout  time.Duration
}

// registers are what an ATA drive answers with.
type registers struct {
	status, err, device byte
	count               uint16
	lba                 uint64
}

// aborted is the answer to a command that is refused.
func aborted() registers { return registers{status: 0x51, err: 0x04} }

// done is the answer to one that is complete.
func done() registers { return registers{status: 0x50} }

// translated answers a command that reaches an ATA drive through a controller or a bridge.
func (d *Drive) translated(c drive.SCSICommand) (answer, error) {
	switch c.CDB[0] {
	case 0x00:
		return good(nil), nil
	case 0x03:
		return good(answer{}.sense()), nil
	case 0x12:
		if d.c.USB {
			return d.inquiry(c.CDB, "BRIDGE"), nil
		}
		return d.inquiry(c.CDB, "ATA"), nil
	case 0xa2, 0xb5:
		return d.securityProtocol(c), nil
	case 0x85:
	case 0xa1:
		c.CDB = passThrough16(c.CDB)
	default:
		if a, ok := d.asked(c.CDB); ok {
			return a, nil
		}
		return illegal(), nil
	}
	b := c.CDB
	if b[1]>>1&0xf == pioIn && (c.Direction != drive.FromDrive || len(c.Data) < 512) || pioReads(b[14], b[4]) && b[1]>>1&0xf != pioIn {
		return illegalField(), nil
	}
	t := taskfile{command: b[14], features: uint16(b[4]), count: uint16(b[6]), timeout: c.Timeout, data: c.Data}
	t.lba = uint64(b[8]) | uint64(b[10])<<8 | uint64(b[12])<<16
	if b[1]&1 != 0 {
		t.features |= uint16(b[3]) << 8
		t.count |= uint16(b[5]) << 8
		t.lba |= uint64(b[7])<<24 | uint64(b[9])<<32 | uint64(b[11])<<40
	} else {
		t.lba |= uint64(b[13]&0x0f) << 24
	}
	r, err := d.ataCommand(t)
	if err != nil {
		return answer{}, err
	}
	failed := r.status&1 != 0
	if !failed && (b[2]&0x20 == 0 || d.f.HidesStatus) {
		return good(c.Data), nil
	}
	a := check(1, 0x00, 0x1d)
	if failed {
		a = check(0x0b, 0, 0)
	}
	if !d.f.HidesStatus {
		a.registers = r.descriptor(b[1]&1 != 0)
	}
	return a, nil
}

// pioIn is the protocol of a command that data come from (SAT-4, ATA PASS-THROUGH).
const pioIn = 4

// pioReads reports whether data come from an ATA command.
func pioReads(command, features byte) bool {
	return command == 0xec || command == 0x2f || command == 0xb0 && features != 0xda || command == 0xb1 && features == 0xc2
}

// passThrough16 is the command block of ATA PASS-THROUGH (12) as the one of 16 bytes.
func passThrough16(b []byte) []byte {
	return []byte{0x85, b[1] &^ 1, b[2], 0, b[3], 0, b[4], 0, b[5], 0, b[6], 0, b[7], b[8], b[9], b[11]}
}

// descriptor is ATA Status Return.
func (r registers) descriptor(ext bool) []byte {
	b := []byte{0x09, 12, 0, r.err, 0, byte(r.count), 0, byte(r.lba), 0, byte(r.lba >> 8), 0, byte(r.lba >> 16), r.device | 0x40, r.status}
	if ext {
		b[2], b[4], b[6], b[8], b[10] = 1, byte(r.count>>8), byte(r.lba>>24), byte(r.lba>>32), byte(r.lba>>40)
	} else {
		b[12] |= byte(r.lba>>24) & 0x0f
	}
	return b
}

// ataCommand answers an ATA command.
func (d *Drive) ataCommand(t taskfile) (registers, error) {
	prepared, native := d.ata.prepared, d.ata.native
	d.ata.prepared, d.ata.native = false, false
	_, running, _ := d.reported()
	switch {
	case t.command == 0xec:
		d.ataIdentify(t.data)
		return done(), nil
	case t.command == 0xb4:
		return d.ataSanitize(t), nil
	case running || d.said == failed:
		return aborted(), nil
	case t.command >= 0xf1 && t.command <= 0xf6:
		return d.ataSecurity(t, prepared)
	}
	switch t.command {
	case 0x27, 0xf8:
		d.ata.native = true
		r := done()
		r.lba = uint64(d.native() - 1)
		return r, nil
	case 0xb1:
		return d.configuration(t), nil
	case 0xb0:
		return d.smart(t), nil
	case 0x2f:
		return d.statistics(t), nil
	case 0x37, 0xf9:
		if !native || d.ata.locked || int64(t.lba) >= d.native() {
			return aborted(), nil
		}
		if !d.f.AreaStays {
			d.ata.visible = int64(t.lba) + 1
		}
		return done(), nil
	}
	return aborted(), nil
}

// configuration answers DEVICE CONFIGURATION IDENTIFY and RESTORE.
func (d *Drive) configuration(t taskfile) registers {
	switch {
	case d.c.Overlay == 0:
		return aborted()
	case t.features == 0xc2:
		clear(t.data)
		binary.LittleEndian.PutUint64(t.data[6:], uint64(d.c.Sectors+d.c.Area+d.c.Overlay-1))
		t.data[510] = 0xa5
		var sum byte
		for _, c := range t.data {
			sum += c
		}
		t.data[511] = -sum
		return done()
	case t.features != 0xc0, d.ata.visible < d.native(), d.ata.locked, d.frozen(), d.f.OverlayStays:
		return aborted()
	}
	d.ata.overlay = 0
	d.ata.visible = d.native()
	return done()
}

// ataIdentify makes the data of IDENTIFY DEVICE.
func (d *Drive) ataIdentify(b []byte) {
	clear(b)
	put := func(word int, v uint16) { binary.LittleEndian.PutUint16(b[2*word:], v) }
	chars := func(first, last int, s string) {
		field := make([]byte, 2*(last-first+1))
		pad(field, s)
		for i := 0; i < len(field); i += 2 {
			put(first+i/2, uint16(field[i])<<8|uint16(field[i+1]))
		}
	}
	model, serial := d.identity()
	put(0, 0x0040)
	chars(10, 19, serial)
	chars(23, 26, d.c.Firmware)
	chars(27, 46, model)
	var sanitize uint16
	for bit, m := range map[int]drive.Method{13: drive.ATASanitizeCrypto, 15: drive.ATASanitizeBlock, 14: drive.ATASanitizeOverwrite} {
		if d.says(m) {
			sanitize |= 1<<bit | 1<<12
		}
	}
	put(59, sanitize)
	binary.LittleEndian.PutUint32(b[120:], uint32(min(d.ata.visible, 1<<28-1)))
	set := uint16(0)
	if d.c.Area > 0 {
		set = 1 << 10
	}
	put(82, set|1<<1|1<<0)
	overlay := uint16(0)
	if d.c.Overlay > 0 {
		overlay = 1 << 11
	}
	put(83, 1<<14|1<<10|overlay)
	put(84, 1<<14|1<<5)
	put(85, set|1<<0)
	binary.LittleEndian.PutUint64(b[200:], uint64(d.ata.visible))
	for i, m := range []drive.Method{drive.ATASecurityNormal, drive.ATASecurityEnhanced} {
		if minutes := d.c.Times[m] / time.Minute; minutes > 0 {
			put(89+i, 0x8000|uint16(min((minutes+1)/2, 0x7fff)))
		}
	}
	if d.c.SectorSize > 512 {
		put(106, 1<<14|1<<12)
		put(117, uint16(d.c.SectorSize/2))
	}
	put(128, d.securityWord())
	put(217, d.rotation())
	b[510] = 0xa5
	var sum byte
	for _, c := range b {
		sum += c
	}
	b[511] = -sum
}

// remapped is how many sectors the drive says that it has reallocated.
func (d *Drive) remapped() int64 {
	if d.f.HidesRemapped {
		return 0
	}
	return d.f.Remapped
}

func (d *Drive) securityWord() uint16 {
	var w uint16
	for bit, on := range []bool{
		d.says(drive.ATASecurityNormal), d.ata.enabled, d.ata.locked, d.frozen(), d.ata.tries >= 5, d.says(drive.ATASecurityEnhanced),
	} {
		if on {
			w |= 1 << bit
		}
	}
	return w
}

// ataSanitize answers SANITIZE DEVICE.
func (d *Drive) ataSanitize(t taskfile) registers {
	refuse := func(reason uint64) registers {
		r := aborted()
		r.lba = reason
		return r
	}
	how, running, _ := d.reported()
	if t.features == 0 { // SANITIZE STATUS EXT
		r := done()
		switch {
		case running:
			r.count, r.lba = 1<<14, uint64(min(d.part(), 0xfffe))
		case how == failed:
			return refuse(1)
		case how == completed:
			r.count, r.lba = 1<<15, 0xffff
		default:
			r.lba = 0xffff
		}
		if d.f.SanitizeFrozen {
			r.count |= 1 << 13
		}
		return r
	}
	m := map[uint64]drive.Method{
		0x0011<<48 | 0x43727970: drive.ATASanitizeCrypto, 0x0012<<48 | 0x426b4572: drive.ATASanitizeBlock,
		0x0014<<48 | 0x4f57<<32: drive.ATASanitizeOverwrite,
	}
	key := uint64(t.features)<<48 | t.lba
	if t.features == 0x0014 {
		key &^= 0xffffffff
	}
	switch {
	case running, d.ata.locked, d.locked:
		return refuse(0)
	case d.f.SanitizeFrozen:
		return refuse(3)
	case !d.knows(m[key]):
		return refuse(2)
	}
	o := operation{method: m[key], areas: d.all(), deep: true, lasting: true}
	if t.features == 0x0014 {
		o.fill.word, o.passes = uint32(t.lba), int(t.count&0xf)
	}
	d.begin(o)
	return done()
}

// ataSecurity answers the commands of the security feature set.
func (d *Drive) ataSecurity(t taskfile, prepared bool) (registers, error) {
	s := &d.ata
	if !d.knows(drive.ATASecurityNormal) || d.frozen() || d.locked {
		return aborted(), nil
	}
	if t.command == 0xf3 {
		s.prepared = true
		return done(), nil
	}
	if len(t.data) < 512 || t.data[0]&1 != 0 { // the master password of the lab's drives is not known
		return aborted(), nil
	}
	var given [32]byte
	copy(given[:], t.data[2:34])
	right := s.enabled && given == s.password && s.tries < 5
	switch t.command {
	case 0xf1:
		if s.locked {
			return aborted(), nil
		}
		s.enabled, s.password = true, given
	case 0xf2:
		if !right {
			s.tries++
			return aborted(), nil
		}
		s.locked = false
	case 0xf6:
		if s.locked || !right {
			return aborted(), nil
		}
		s.enabled = false
	case 0xf4:
		m := drive.ATASecurityNormal
		if t.data[0]&2 != 0 {
			m = drive.ATASecurityEnhanced
		}
		if !prepared || !right || !d.knows(m) {
			return aborted(), nil
		}
		return d.secureErase(t, m)
	default:
		return aborted(), nil
	}
	return done(), nil
}

// secureErase is SECURITY ERASE UNIT: it ends with no password.
func (d *Drive) secureErase(t taskfile, m drive.Method) (registers, error) {
	o := operation{method: m, areas: d.all(), deep: m == drive.ATASecurityEnhanced}
	o.done = func() {
		if !d.f.KeepsPassword {
			d.ata.enabled, d.ata.locked = false, false
		}
	}
	op := d.begin(o)
	how, err := d.run(t.timeout)
	if err != nil {
		return registers{}, err
	}
	if how != completed {
		return aborted(), nil
	}
	if op.secret {
		o.done()
	}
	return done(), nil
}
