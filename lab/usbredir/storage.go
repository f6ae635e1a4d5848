package usbredir

import (
	"encoding/binary"
	"fmt"
	"io"
	"unicode/utf16"
)

// What the stick says of itself. The numbers are those of no maker: 0x1d6b/0x0104 is Linux's own composite gadget.
const (
	vendorID      = 0x1d6b
	productID     = 0x0104
	deviceVersion = 0x0100

	classStorage     = 0x08
	subclassSCSI     = 0x06
	protocolBulkOnly = 0x50

	endpointIn  = 0x81
	endpointOut = 0x02
	bulkPacket  = 512 // USB 2.0, 5.8.3

	sectorSize = 512
)

// Image is the content of a stick.
type Image interface {
	io.ReaderAt
	io.WriterAt
}

// storage is the device behind the wire: descriptors (USB 2.0, chapter 9), bulk-only transport ("Universal Serial Bus Mass Storage Class,
// Bulk-Only Transport", 1.0), and the SCSI commands (SPC-3, SBC-3) that systems and firmware send to a stick.
type storage struct {
	image  Image
	size   int64
	serial string

	// The command under way: bytes that wait to be fetched, or are still to come, and the status behind them.
	phase    phase
	tag      uint32
	reply    []byte
	want     uint32 // bytes that the host means to move
	gone     uint32 // of them, those that went over the wire
	used     uint32 // of them, those that were data
	writing  int64  // where what comes is written; below 0: nowhere
	failed   bool
	sense    [3]byte // key, code, qualifier of the last command that failed
	inverted bool    // a command block that is none: everything stalls until the reset
}

type phase int

const (
	awaitCommand phase = iota
	sendData
	takeData
	sendStatus
)

// reset ends the command under way (bulk-only transport 3.1, USB reset).
func (s *storage) reset() {
	s.phase, s.reply, s.inverted = awaitCommand, nil, false
}

// control answers a control request. ok is false where the device stalls.
func (s *storage) control(c control) (data []byte, ok bool) {
	switch uint16(c.requestType)<<8 | uint16(c.request) {
	case 0x8006: // GET_DESCRIPTOR
		data, ok = s.descriptor(byte(c.value>>8), byte(c.value))
	case 0x8000, 0x8100, 0x8200: // GET_STATUS
		data, ok = []byte{0, 0}, true
	case 0xa1fe: // Get Max LUN
		data, ok = []byte{0}, true
	case 0x21ff: // Bulk-Only Mass Storage Reset
		s.reset()
		ok = true
	case 0x0201, 0x0005: // CLEAR_FEATURE of an endpoint, SET_ADDRESS
		ok = true
	}
	return data[:min(len(data), int(c.length))], ok
}

func (s *storage) descriptor(kind, index byte) ([]byte, bool) {
	le := binary.LittleEndian
	switch {
	case kind == 1 && index == 0: // device
		b := []byte{18, 1, 0x00, 0x02, 0, 0, 0, 64}
		for _, v := range []uint16{vendorID, productID, deviceVersion} {
			b = le.AppendUint16(b, v)
		}
		return append(b, 1, 2, 3, 1), true
	case kind == 2 && index == 0: // configuration with its interface and endpoints
		b := []byte{9, 2, 0, 0, 1, 1, 0, 0x80, 50}
		b = append(b, 9, 4, 0, 0, 2, classStorage, subclassSCSI, protocolBulkOnly, 0)
		for _, e := range []byte{endpointIn, endpointOut} {
			b = append(b, 7, 5, e, 2, bulkPacket&0xff, bulkPacket>>8, 0)
		}
		le.PutUint16(b[2:], uint16(len(b)))
		return b, true
	case kind == 3 && index == 0: // languages
		return []byte{4, 3, 0x09, 0x04}, true
	case kind == 3 && index <= 3:
		text := []string{"gprovision", "stick", s.serial}[index-1]
		b := []byte{0, 3}
		for _, u := range utf16.Encode([]rune(text)) {
			b = le.AppendUint16(b, u)
		}
		b = b[:min(len(b), 254)]
		b[0] = byte(len(b))
		return b, true
	}
	return nil, false
}

// isCommand reports whether bytes are a command block wrapper.
func isCommand(b []byte) bool { return len(b) == 31 && binary.LittleEndian.Uint32(b) == 0x43425355 }

// out takes what the host sends. ok is false where the device stalls.
func (s *storage) out(b []byte) (ok bool, err error) {
	switch {
	case s.inverted:
		return false, nil
	case s.phase == takeData:
		return true, s.take(b)
	case s.phase != awaitCommand, !isCommand(b), b[13] != 0, b[14] == 0 || b[14] > 16:
		s.inverted = true // bulk-only transport, 6.6.1
		return false, nil
	}
	le := binary.LittleEndian
	s.tag, s.want = le.Uint32(b[4:]), le.Uint32(b[8:])
	s.gone, s.used, s.failed, s.writing, s.reply = 0, 0, false, -1, nil
	toHost := b[12]&in != 0
	if err := s.command(b[15 : 15+int(b[14])]); err != nil {
		return false, err
	}
	switch {
	case s.want == 0:
		s.phase = sendStatus
	case toHost:
		s.phase = sendData
		s.reply = s.reply[:min(uint64(len(s.reply)), uint64(s.want))]
	default:
		s.phase, s.reply = takeData, nil
	}
	return true, nil
}

// take takes data of a command.
func (s *storage) take(b []byte) error {
	b = b[:min(uint64(len(b)), uint64(s.want-s.gone))]
	if s.writing >= 0 {
		if _, err := s.image.WriteAt(b, s.writing+int64(s.gone)); err != nil {
			return fmt.Errorf("write to the stick's image: %w", err)
		}
		s.used += uint32(len(b))
	}
	if s.gone += uint32(len(b)); s.gone == s.want {
		s.phase = sendStatus
	}
	return nil
}

// in returns the next bytes for the host, at most n. ready is false while there are none: the host has to wait. ok is false where the device
// stalls. Data that ends early ends with a packet that is not full (bulk-only transport, 6.7.2).
func (s *storage) in(n int) (b []byte, ok, ready bool) {
	switch {
	case s.inverted:
		return nil, false, true
	case s.phase == sendData:
		b = s.reply[:min(len(s.reply), n)]
		s.reply = s.reply[len(b):]
		s.gone += uint32(len(b))
		s.used += uint32(len(b))
		if s.gone == s.want || len(b) < n {
			s.phase = sendStatus
		}
		return b, true, true
	case s.phase == sendStatus:
		le := binary.LittleEndian
		b = le.AppendUint32(nil, 0x53425355)
		b = le.AppendUint32(b, s.tag)
		b = le.AppendUint32(b, s.want-s.used)
		b = append(b, 0)
		if s.failed {
			b[12] = 1
		}
		s.phase = awaitCommand
		return b[:min(len(b), n)], true, true
	}
	return nil, true, false
}

// fail ends a command with a sense key, an additional code and its qualifier (SPC-3, 4.5).
func (s *storage) fail(key, code, qualifier byte) {
	s.failed, s.reply, s.sense = true, nil, [3]byte{key, code, qualifier}
}

// command runs a SCSI command: it sets the reply, or where to write what comes.
func (s *storage) command(c []byte) error {
	be := binary.BigEndian
	block := make([]byte, 16)
	copy(block, c)
	sectors := uint64(s.size / sectorSize)
	switch c = block; c[0] {
	case 0x00, 0x1b, 0x1e, 0x2f, 0x35: // TEST UNIT READY, START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL, VERIFY(10), SYNCHRONIZE CACHE(10)
	case 0x03: // REQUEST SENSE, fixed format
		s.reply = make([]byte, 18)
		s.reply[0], s.reply[2], s.reply[7], s.reply[12], s.reply[13] = 0x70, s.sense[0], 10, s.sense[1], s.sense[2]
		s.sense = [3]byte{}
	case 0x12: // INQUIRY
		if c[1]&1 != 0 {
			s.fail(5, 0x24, 0) // no pages of vital product data
			break
		}
		s.reply = append([]byte{0, 0x80, 4, 2, 31, 0, 0, 0}, fmt.Sprintf("%-8s%-16s%-4s", "GPROV", "stick", "1")...)
	case 0x1a: // MODE SENSE(6): no pages, nothing is write-protected
		s.reply = []byte{3, 0, 0, 0}
	case 0x5a: // MODE SENSE(10)
		s.reply = []byte{0, 6, 0, 0, 0, 0, 0, 0}
	case 0x25: // READ CAPACITY(10)
		s.reply = be.AppendUint32(nil, uint32(min(sectors-1, 0xffffffff)))
		s.reply = be.AppendUint32(s.reply, sectorSize)
	case 0x28: // READ(10)
		return s.read(uint64(be.Uint32(c[2:])), uint64(be.Uint16(c[7:])), sectors)
	case 0x88: // READ(16)
		return s.read(be.Uint64(c[2:]), uint64(be.Uint32(c[10:])), sectors)
	case 0x2a: // WRITE(10)
		s.write(uint64(be.Uint32(c[2:])), uint64(be.Uint16(c[7:])), sectors)
	case 0x8a: // WRITE(16)
		s.write(be.Uint64(c[2:]), uint64(be.Uint32(c[10:])), sectors)
	case 0x9e: // READ CAPACITY(16)
		if c[1]&0x1f != 0x10 {
			s.fail(5, 0x24, 0)
			break
		}
		s.reply = be.AppendUint64(make([]byte, 0, 32), sectors-1)
		s.reply = be.AppendUint32(s.reply, sectorSize)[:32]
	default:
		s.fail(5, 0x20, 0) // not known
	}
	return nil
}

func (s *storage) read(at, count, sectors uint64) error {
	if !s.within(at, count, sectors) {
		return nil
	}
	s.reply = make([]byte, count*sectorSize)
	if _, err := s.image.ReadAt(s.reply, int64(at)*sectorSize); err != nil {
		return fmt.Errorf("read the stick's image: %w", err)
	}
	return nil
}

func (s *storage) write(at, count, sectors uint64) {
	if s.within(at, count, sectors) {
		s.writing = int64(at) * sectorSize
	}
}

// within reports whether a command may have these sectors; if not, it fails.
func (s *storage) within(at, count, sectors uint64) bool {
	switch {
	case at > sectors || count > sectors-at:
		s.fail(5, 0x21, 0)
	case count*sectorSize != uint64(s.want):
		s.fail(5, 0x24, 0) // the transport says another length
	default:
		return true
	}
	return false
}
