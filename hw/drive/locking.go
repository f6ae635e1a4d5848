package drive

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Locking is what a drive that encrypts by itself says of that (TCG Storage Architecture Core Specification 2.01, Level 0 Discovery; big
// endian).
type Locking struct {
	Supported bool // it can lock itself
	Enabled   bool // somebody has set it up to do so
	Locked    bool // it lets nobody at a range now
	Encrypts  bool // what it stores is encrypted
	// Features are the codes of all feature descriptors, such as 0203h for Opal 2.
	Features []uint16
	Raw      []byte
}

// The security protocol of TCG and what it is asked for: protocol 01h, ComID 0001h.
const (
	protocolTCG    = 0x01
	comDiscovery   = 0x0001
	featureLocking = 0x0002

	nvmeSecurityReceive  = 0x82
	opSecurityProtocolIn = 0xa2
)

// Locking asks with Level 0 Discovery. known is false for a drive that does not know the question. An ATA drive is asked by SECURITY
// PROTOCOL IN, which its controller translates (SAT): Linux does not pass TRUSTED RECEIVE through.
func (d *Drive) Locking() (l Locking, known bool, err error) {
	b := make([]byte, 512)
	switch {
	case d.NVMe != nil:
		c, err := d.NVMe.Controller()
		if err != nil {
			return Locking{}, false, err
		}
		if c.OACS&1 == 0 { // Security Send and Security Receive
			return Locking{}, false, nil
		}
		err = d.NVMe.send(securityReceive(b))
		if e := (StatusError{}); errors.As(err, &e) {
			return Locking{}, false, nil
		}
		if err != nil {
			return Locking{}, false, err
		}
	default:
		b, err = (&SCSI{dev: d.dev}).read(securityProtocolIn(len(b)), len(b))
		if refused(err) {
			return Locking{}, false, nil
		}
		if err != nil {
			return Locking{}, false, err
		}
	}
	l, err = ParseLocking(b)
	return l, err == nil, err
}

// securityReceive is Security Receive (NVMe figures 376 and 377): protocol in bits 31:24, its own field in bits 23:8, length in Dword 11.
func securityReceive(b []byte) NVMeCommand {
	return NVMeCommand{Opcode: nvmeSecurityReceive, CDW10: protocolTCG<<24 | comDiscovery<<8, CDW11: uint32(len(b)), Data: b}
}

// securityProtocolIn is SECURITY PROTOCOL IN (SPC): its own field in bytes 2 and 3, length in bytes 6 to 9.
func securityProtocolIn(n int) []byte {
	return []byte{opSecurityProtocolIn, protocolTCG, comDiscovery >> 8, comDiscovery & 0xff, 0, 0, 0, 0, byte(n >> 8), byte(n), 0, 0}
}

// ParseLocking reads the data of Level 0 Discovery: a header of 48 bytes with the length of what follows in its first four, then
// descriptors with code, version, length of what follows, and that.
func ParseLocking(b []byte) (Locking, error) {
	if len(b) < 48 {
		return Locking{}, fmt.Errorf("level 0 discovery has %d bytes", len(b))
	}
	n := int64(binary.BigEndian.Uint32(b)) + 4
	if n < 48 {
		return Locking{}, fmt.Errorf("level 0 discovery says that it has %d bytes", n)
	}
	l := Locking{Raw: b[:min(n, int64(len(b)))]}
	for rest := l.Raw[48:]; len(rest) >= 4 && len(rest) >= 4+int(rest[3]); rest = rest[4+int(rest[3]):] {
		code := binary.BigEndian.Uint16(rest)
		l.Features = append(l.Features, code)
		if code == featureLocking && rest[3] >= 1 {
			bits := rest[4]
			l.Supported, l.Enabled, l.Locked, l.Encrypts = bits&1 != 0, bits&2 != 0, bits&4 != 0, bits&8 != 0
		}
	}
	return l, nil
}
