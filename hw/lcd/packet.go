package lcd

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// MaxData is the most bytes of data that a packet carries.
const MaxData = 22

// ErrRange is returned for a place, a length or a level that the LCD does not have.
var ErrRange = errors.New("out of range")

// Command is what a packet is about: six bits.
type Command byte

// The commands of both models (data sheets of the CFA631 and CFA635, "command codes").
const (
	CmdPing           Command = 0x00 // up to 16 bytes, which come back
	CmdVersion        Command = 0x01 // answers such as "CFA635:h1.1,u2.0"
	CmdWriteFlash     Command = 0x02 // 16 bytes that survive a power cut
	CmdReadFlash      Command = 0x03
	CmdStoreBootState Command = 0x04 // makes the present screen what is shown after power on
	CmdReboot         Command = 0x05
	CmdClear          Command = 0x06 // blanks the screen, cursor to the first place
	CmdGlyph          Command = 0x09 // one of 8 characters of one's own
	CmdCursor         Command = 0x0b // column, row
	CmdCursorStyle    Command = 0x0c
	CmdContrast       Command = 0x0d
	CmdBacklight      Command = 0x0e
	CmdReportKeys     Command = 0x17 // mask of presses, mask of releases
	CmdPollKeys       Command = 0x18 // answers the masks of keys that are down, were pressed, were released
	CmdStatus         Command = 0x1e // answers 15 bytes: [5] and [6] key masks, [13] contrast, [14] backlight
	CmdWrite          Command = 0x1f // column, row, text
	CmdLegend         Command = 0x20 // 631: signs beside the keys
	CmdOutput         Command = 0x22 // 635: the lamps
)

// ReportKey is the number of the report of a key: one byte, its code.
const ReportKey Command = 0x00

// String returns the command's name for logs.
func (c Command) String() string {
	names := map[Command]string{
		CmdPing: "ping", CmdVersion: "version", CmdWriteFlash: "write flash", CmdReadFlash: "read flash", CmdStoreBootState: "store boot state",
		CmdReboot: "reboot", CmdClear: "clear", CmdGlyph: "glyph", CmdCursor: "cursor", CmdCursorStyle: "cursor style", CmdContrast: "contrast",
		CmdBacklight: "backlight", CmdReportKeys: "report keys", CmdPollKeys: "poll keys", CmdStatus: "status", CmdWrite: "write",
		CmdLegend: "legend", CmdOutput: "output",
	}
	if s, ok := names[c]; ok {
		return s
	}
	return fmt.Sprintf("command %#02x", byte(c))
}

// Kind is who sends a packet and why: the two upper bits of its first byte.
type Kind byte

// The kinds.
const (
	Request Kind = iota // to the LCD
	Reply               // from the LCD: it did what was asked
	Report              // from the LCD, unasked: a key
	Refusal             // from the LCD: it did not do what was asked
)

func (k Kind) String() string { return [...]string{"request", "reply", "report", "refusal"}[k&3] }

// Packet is one frame of the protocol: kind and command in one byte, the length of the data, the data, and a CRC, low byte
// first.
type Packet struct {
	Kind    Kind
	Command Command
	Data    []byte
}

// String returns the packet for logs.
func (p Packet) String() string {
	what := p.Command.String()
	if p.Kind == Report {
		what = fmt.Sprintf("%d", p.Command)
	}
	return fmt.Sprintf("%s %s [% x]", p.Kind, what, p.Data)
}

// Append appends the bytes of the packet to b. More than MaxData bytes of data, or a command of more than six bits, are an
// ErrRange.
func (p Packet) Append(b []byte) ([]byte, error) {
	if p.Command > 0x3f || p.Kind > Refusal || len(p.Data) > MaxData {
		return b, fmt.Errorf("packet with command %#x and %d bytes: %w", byte(p.Command), len(p.Data), ErrRange)
	}
	start := len(b)
	b = append(b, byte(p.Kind)<<6|byte(p.Command), byte(len(p.Data)))
	b = append(b, p.Data...)
	crc := CRC(b[start:])
	return append(b, byte(crc), byte(crc>>8)), nil
}

// CRC returns the checksum of a packet without its last two bytes: CRC-16/X-25 (ITU-T X.25, reflected polynomial 0x8408, all
// ones at the beginning, complemented at the end).
func CRC(b []byte) uint16 {
	crc := uint16(0xffff)
	for _, x := range b {
		crc ^= uint16(x)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0x8408
			} else {
				crc >>= 1
			}
		}
	}
	return ^crc
}

// Decoder finds packets in a stream of bytes that may be damaged. After a damaged packet it begins again one byte later, so that
// no undamaged packet behind it is lost. The zero value takes no kind of packet; set Kinds.
type Decoder struct {
	// Kinds are those that may come. Another one is damage.
	Kinds []Kind
	// Skipped counts the bytes that were no part of a packet.
	Skipped int

	buf []byte
}

// Feed adds bytes that were read.
func (d *Decoder) Feed(b []byte) { d.buf = append(d.buf, b...) }

// Next returns the next packet, if all of it is there. Its data is the caller's.
func (d *Decoder) Next() (Packet, bool) {
	for len(d.buf) >= 4 {
		kind, n := Kind(d.buf[0]>>6), int(d.buf[1])
		if n > MaxData || !slices.Contains(d.Kinds, kind) {
			d.Skip()
			continue
		}
		if len(d.buf) < n+4 {
			return Packet{}, false
		}
		crc := CRC(d.buf[:n+2])
		if d.buf[n+2] != byte(crc) || d.buf[n+3] != byte(crc>>8) {
			d.Skip()
			continue
		}
		p := Packet{Kind: kind, Command: Command(d.buf[0] & 0x3f), Data: bytes.Clone(d.buf[2 : n+2])}
		d.buf = append(d.buf[:0], d.buf[n+4:]...)
		return p, true
	}
	return Packet{}, false
}

// Pending reports whether a packet has begun and is not complete.
func (d *Decoder) Pending() bool { return len(d.buf) > 0 }

// Skip gives up the packet that has begun: its first byte is dropped. For a packet whose rest does not come.
func (d *Decoder) Skip() {
	if len(d.buf) > 0 {
		d.buf = append(d.buf[:0], d.buf[1:]...)
		d.Skipped++
	}
}
