package drive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
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
	// Enterprise reports that it is of the Enterprise SSC and of no other: its methods have another form, and Enabled is so from the factory.
	Enterprise bool
	// ComID is the number by which the drive is talked to, 0 if no feature that is known here says one.
	ComID uint16
	Raw   []byte
}

// The security protocol of TCG and what it is asked for: protocol 01h, ComID 0001h.
const (
	protocolTCG       = 0x01
	comDiscovery      = 0x0001
	featureLocking    = 0x0002
	featureEnterprise = 0x0100

	nvmeSecurityReceive  = 0x82
	opSecurityProtocolIn = 0xa2
)

// Locking asks with Level 0 Discovery. known is false for a drive that does not know the question, as each eMMC. An ATA drive is asked by
// SECURITY PROTOCOL IN, which its controller translates (SAT): Linux does not pass TRUSTED RECEIVE through.
func (d *Drive) Locking() (l Locking, known bool, err error) {
	if d.MMC != nil {
		return Locking{}, false, nil
	}
	if d.NVMe != nil {
		c, err := d.NVMe.Controller()
		if err != nil {
			return Locking{}, false, err
		}
		if c.OACS&1 == 0 { // Security Send and Security Receive
			return Locking{}, false, nil
		}
	}
	b, err := d.securityIn(comDiscovery, 512)
	if e := (StatusError{}); errors.As(err, &e) || refused(err) {
		return Locking{}, false, nil
	}
	if err != nil {
		return Locking{}, false, err
	}
	l, err = ParseLocking(b)
	return l, err == nil, err
}

// securityIn receives what the drive has for a communication identifier.
func (d *Drive) securityIn(comID uint16, n int) ([]byte, error) {
	if d.NVMe == nil {
		return (&SCSI{dev: d.dev}).read(securityProtocolIn(comID, n), n)
	}
	b := make([]byte, n)
	return b, d.NVMe.send(securityReceive(comID, b))
}

// securityReceive is Security Receive (NVMe figures 376 and 377): protocol in bits 31:24, its own field in bits 23:8, length in Dword 11.
func securityReceive(comID uint16, b []byte) NVMeCommand {
	return NVMeCommand{Opcode: nvmeSecurityReceive, CDW10: protocolTCG<<24 | uint32(comID)<<8, CDW11: uint32(len(b)), Data: b}
}

// securityProtocolIn is SECURITY PROTOCOL IN (SPC): its own field in bytes 2 and 3, length in bytes 6 to 9.
func securityProtocolIn(comID uint16, n int) []byte {
	return []byte{opSecurityProtocolIn, protocolTCG, byte(comID >> 8), byte(comID), 0, 0, 0, 0, byte(n >> 8), byte(n), 0, 0}
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
		switch {
		case code == featureLocking && rest[3] >= 1:
			bits := rest[4]
			l.Supported, l.Enabled, l.Locked, l.Encrypts = bits&1 != 0, bits&2 != 0, bits&4 != 0, bits&8 != 0
		case slices.Contains(opals(), code) && rest[3] >= 2:
			l.ComID, l.Enterprise = binary.BigEndian.Uint16(rest[4:]), false
		case code == featureEnterprise && rest[3] >= 2 && l.ComID == 0: // Enterprise SSC 1.01, 3.6.2.7
			l.ComID, l.Enterprise = binary.BigEndian.Uint16(rest[4:]), true
		}
	}
	return l, nil
}

// opals are the features that begin with the ComID: Opal 1 and 2, Opalite, Pyrite 1 and 2, Ruby (TCG, the SSC of each). That of the
// Enterprise SSC does too, but its methods have another form.
func opals() []uint16 { return []uint16{0x0200, 0x0203, 0x0301, 0x0302, 0x0303, 0x0304} }
