package drive

import (
	"encoding/binary"
	"fmt"
)

// Sense is what sense data say, of either format.
type Sense struct {
	Key  byte // sense key
	ASC  byte // additional sense code
	ASCQ byte // and its qualifier
	// Progress is the progress indication, in 65,536ths; valid if HasProgress.
	Progress    uint16
	HasProgress bool
	// ATA is the state of an ATA drive after a command that was passed through; valid if HasATA.
	ATA    Registers
	HasATA bool
}

// The sense keys that are told apart (SPC, sense key and sense code definitions).
const (
	keyNone           = 0x0
	keyRecovered      = 0x1
	keyNotReady       = 0x2
	keyIllegalRequest = 0x5
	keyUnitAttention  = 0x6
)

func (s Sense) String() string {
	return fmt.Sprintf("sense key %Xh, code %02Xh/%02Xh", s.Key, s.ASC, s.ASCQ)
}

// is reports whether the additional sense code and its qualifier are the given ones.
func (s Sense) is(asc, ascq byte) bool { return s.ASC == asc && s.ASCQ == ascq }

// unknownCommand reports whether a command was refused before it reached a drive: its code or a field of it is not known.
func (s Sense) unknownCommand() bool {
	return s.Key == keyIllegalRequest && (s.ASC == 0x20 || s.ASC == 0x24)
}

// Registers are the fields of an ATA drive's answer. Those of 16 and 48 bits are not whole if Upper is false: a sense of fixed format has
// only their lower parts, and says no more than whether the rest was zero.
type Registers struct {
	Status byte
	Error  byte
	Device byte
	Count  uint16
	LBA    uint64
	Upper  bool
}

// The bits of the status field that make an answer an error (ACS-3 6.2: ERROR, DEVICE FAULT).
const statusFailed = 0x01 | 0x20

// ParseSense reads sense data of fixed (70h, 71h) or descriptor format (72h, 73h), SPC 4.5. What is cut off is left out; ok is false if
// not even the key is there.
func ParseSense(b []byte) (s Sense, ok bool) {
	if len(b) < 1 {
		return s, false
	}
	switch b[0] & 0x7f {
	case 0x70, 0x71:
		return parseFixed(b)
	case 0x72, 0x73:
		return parseDescriptors(b)
	}
	return s, false
}

// parseFixed reads sense data of fixed format (SPC, fixed format sense data).
func parseFixed(b []byte) (s Sense, ok bool) {
	if len(b) < 3 {
		return s, false
	}
	s.Key = b[2] & 0x0f
	if len(b) < 14 {
		return s, true
	}
	s.ASC, s.ASCQ = b[12], b[13]
	if len(b) >= 18 && b[15]&0x80 != 0 && (s.Key == keyNone || s.Key == keyNotReady) {
		s.Progress, s.HasProgress = binary.BigEndian.Uint16(b[16:]), true
	}
	// SAT 12.2.2.7: the fields lie in INFORMATION and COMMAND-SPECIFIC INFORMATION. A drive's status is never 0: DRDY, bit 6, is set. Linux
	// before 6.11 put the fields of a command that failed behind byte 8 instead (commit 38dab832c3f4). Who does not know the command at all
	// has no fields.
	switch {
	case s.unknownCommand():
	case b[4]&0x40 != 0:
		s.ATA = Registers{Error: b[3], Status: b[4], Device: b[5], Count: uint16(b[6])}
		s.ATA.LBA = uint64(b[9]) | uint64(b[10])<<8 | uint64(b[11])<<16
		s.HasATA = true
	case b[4] == 0 && b[9]&0x40 != 0 && len(b) >= 18:
		s.ATA = Registers{Error: b[8], Status: b[9], Device: b[10], Count: uint16(b[11])}
		s.ATA.LBA = uint64(b[17]) // the two bytes above it are behind the 18 that the kernel returns
		s.HasATA = true
	}
	return s, true
}

// parseDescriptors reads sense data of descriptor format (SPC, descriptor format sense data).
func parseDescriptors(b []byte) (s Sense, ok bool) {
	if len(b) < 4 {
		return s, false
	}
	s.Key, s.ASC, s.ASCQ = b[1]&0x0f, b[2], b[3]
	if len(b) < 8 {
		return s, true
	}
	rest := b[8:min(len(b), 8+int(b[7]))]
	for len(rest) >= 2 && len(rest) >= 2+int(rest[1]) {
		d := rest[:2+int(rest[1])]
		switch {
		case d[0] == 0x02 && len(d) >= 7 && d[4]&0x80 != 0 && (s.Key == keyNone || s.Key == keyNotReady): // sense key specific
			s.Progress, s.HasProgress = binary.BigEndian.Uint16(d[5:]), true
		case d[0] == 0x0a && len(d) >= 8: // another progress indication
			s.Progress, s.HasProgress = binary.BigEndian.Uint16(d[6:]), true
		case d[0] == 0x09 && len(d) >= 14: // ATA Status Return, SAT 12.2.2.6
			s.ATA, s.HasATA = parseStatusReturn(d), true
		}
		rest = rest[len(d):]
	}
	return s, true
}

// parseStatusReturn reads the ATA Status Return descriptor (SAT 12.2.2.6). Its fields of 16 and 48 bits interleave lower and upper bytes.
func parseStatusReturn(d []byte) Registers {
	r := Registers{Error: d[3], Device: d[12], Status: d[13], Upper: true}
	r.Count = uint16(d[5])
	r.LBA = uint64(d[7]) | uint64(d[9])<<8 | uint64(d[11])<<16
	if d[2]&1 != 0 {
		r.Count |= uint16(d[4]) << 8
		r.LBA |= uint64(d[6])<<24 | uint64(d[8])<<32 | uint64(d[10])<<40
	}
	return r
}
