package drive

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// SCSI is a drive with the commands of SCSI: SAS disks, and what stands behind most bridges.
type SCSI struct {
	dev    Device
	permit permitter
}

// The operation codes (SPC and SBC, each command's own section).
const (
	opRequestSense      = 0x03
	opFormatUnit        = 0x04
	opInquiry           = 0x12
	opSanitize          = 0x48
	opATAPassThrough16  = 0x85
	opServiceActionIn16 = 0x9e
	opReadDefectData12  = 0xb7
	opMaintenanceIn     = 0xa3
)

// The additional sense codes that are told apart (SPC, ASC and ASCQ assignments).
const (
	ascNotReady      = 0x04 // with ascqFormat, ascqSanitize
	ascFormatFailed  = 0x31 // with the two below
	ascqFormat       = 0x04 // 04h/04h: format in progress
	ascqSanitize     = 0x1b // 04h/1Bh: sanitize in progress
	ascqFormatFailed = 0x01 // 31h/01h: format command failed
	ascqSanitizeFail = 0x03 // 31h/03h: sanitize command failed
)

// send sends a command that asks, and wants good status.
func (s *SCSI) send(c SCSICommand) (SCSIResult, error) {
	r, err := s.dev.SCSI(c)
	if err != nil {
		return r, fmt.Errorf("SCSI command %02Xh: %w", c.CDB[0], err)
	}
	if r.Status != statusGood {
		sense, _ := ParseSense(r.Sense)
		return r, SenseError{Opcode: c.CDB[0], Status: r.Status, Sense: sense}
	}
	return r, nil
}

// read sends a command that asks for data, and returns those that came.
func (s *SCSI) read(cdb []byte, n int) ([]byte, error) {
	b := make([]byte, n)
	var r SCSIResult
	err := untilTold(func() (err error) {
		r, err = s.send(SCSICommand{CDB: cdb, Direction: FromDrive, Data: b})
		return err
	})
	if err != nil {
		return nil, err
	}
	return b[:max(0, n-max(0, r.Residual))], nil
}

// Inquiry is what a drive says of itself (SPC, standard INQUIRY data).
type Inquiry struct {
	Type     byte // peripheral device type: 0 is a disk
	Vendor   string
	Product  string
	Revision string
	Protect  bool // the drive knows protection information
	Raw      []byte
}

// ParseInquiry reads standard INQUIRY data.
func ParseInquiry(b []byte) (Inquiry, error) {
	if len(b) < 36 {
		return Inquiry{}, fmt.Errorf("INQUIRY data have %d bytes, want at least 36", len(b))
	}
	return Inquiry{
		Type: b[0] & 0x1f, Vendor: text(b[8:16]), Product: text(b[16:32]), Revision: text(b[32:36]), Protect: b[5]&1 != 0, Raw: b,
	}, nil
}

// inquiry is the command block of INQUIRY (SPC, INQUIRY); page 0 stands for the standard data.
func inquiry(page byte, n int) []byte {
	cdb := []byte{opInquiry, 0, page, byte(n >> 8), byte(n), 0}
	if page != 0 {
		cdb[1] = 1 // EVPD
	}
	return cdb
}

// Inquiry asks for the standard data.
func (s *SCSI) Inquiry() (Inquiry, error) {
	b, err := s.read(inquiry(0, 96), 96)
	if err != nil {
		return Inquiry{}, fmt.Errorf("read identity: %w", err)
	}
	return ParseInquiry(b)
}

// Page asks for a page of vital product data and returns what is behind its header of four bytes.
func (s *SCSI) Page(page byte) ([]byte, error) {
	b, err := s.read(inquiry(page, 252), 252)
	if err != nil {
		return nil, fmt.Errorf("read page %02Xh: %w", page, err)
	}
	return ParsePage(page, b)
}

// ParsePage checks the header of a page of vital product data and returns what is behind it.
func ParsePage(page byte, b []byte) ([]byte, error) {
	if len(b) < 4 || b[1] != page {
		return nil, fmt.Errorf("the answer of %d bytes is not page %02Xh", len(b), page)
	}
	return b[4:min(len(b), 4+int(binary.BigEndian.Uint16(b[2:])))], nil
}

// Serial returns the unit serial number, page 80h (SPC, Unit Serial Number).
func (s *SCSI) Serial() (string, error) {
	b, err := s.Page(0x80)
	return text(b), err
}

// Name returns the first name of the logical unit that is unique in the world, page 83h: its kind and hexadecimal digits. It is empty if
// there is none.
func (s *SCSI) Name() (string, error) {
	b, err := s.Page(0x83)
	return parseName(b), err
}

// parseName looks for the first designator of a logical unit of type NAA, EUI-64 or T10 vendor (SPC, Device Identification, designation
// descriptor).
func parseName(b []byte) string {
	kinds := map[byte]string{1: "t10.", 2: "eui.", 3: "naa."}
	for len(b) >= 4 && len(b) >= 4+int(b[3]) {
		d := b[4 : 4+int(b[3])]
		if kind, ok := kinds[b[1]&0x0f]; ok && b[1]>>4&3 == 0 { // association 0: the logical unit
			if b[0]&0x0f == 1 {
				return kind + hex.EncodeToString(d)
			}
			return kind + text(d)
		}
		b = b[4+len(d):]
	}
	return ""
}

// Rotation is the speed of a medium in rotations a minute: 0 is not said, 1 is no medium that rotates (SBC, Block Device Characteristics;
// ACS-3 7.12.7.85).
type Rotation uint16

// Rotation asks for page B1h (SBC, Block Device Characteristics). Drives without the page do not say it.
func (s *SCSI) Rotation() (Rotation, error) {
	b, err := s.Page(0xb1)
	if err != nil || len(b) < 2 {
		return 0, err
	}
	return Rotation(binary.BigEndian.Uint16(b)), nil
}

// Capacity is how large a SCSI drive is (SBC 5.21.2).
type Capacity struct {
	Blocks          uint64
	BlockSize       uint32
	Protection      bool // it is formatted with protection information
	Thin            bool // blocks can be unmapped
	UnmappedAreZero bool // and are read as zeros
}

// Capacity asks with READ CAPACITY (16).
func (s *SCSI) Capacity() (Capacity, error) {
	cdb := make([]byte, 16)
	cdb[0], cdb[1], cdb[13] = opServiceActionIn16, 0x10, 32
	b, err := s.read(cdb, 32)
	if err != nil {
		return Capacity{}, fmt.Errorf("read capacity: %w", err)
	}
	return parseCapacity(b)
}

func parseCapacity(b []byte) (Capacity, error) {
	if len(b) < 12 {
		return Capacity{}, fmt.Errorf("the answer to READ CAPACITY has %d bytes", len(b))
	}
	c := Capacity{Blocks: binary.BigEndian.Uint64(b) + 1, BlockSize: binary.BigEndian.Uint32(b[8:])}
	if len(b) >= 16 {
		c.Protection, c.Thin, c.UnmappedAreZero = b[12]&1 != 0, b[14]&0x80 != 0, b[14]&0x40 != 0
	}
	if c.Blocks == 0 || c.BlockSize == 0 {
		return Capacity{}, errors.New("the drive says that it has no size")
	}
	return c, nil
}

// supportStandard is how a drive says that it knows a command as the standard has it; 1 is that it does not, 5 that it has a way of its
// own.
const supportStandard = 3

// Supports reports whether a drive says that it knows a command, by REPORT SUPPORTED OPERATION CODES. A service action below 0 is for a
// command that has none. A drive that does not know this question returns an error.
func (s *SCSI) Supports(op byte, action int) (bool, error) {
	support, err := s.support(op, action)
	return support == supportStandard, err
}

// support returns the field SUPPORT (SPC, one-command parameter data).
func (s *SCSI) support(op byte, action int) (byte, error) {
	b, err := s.read(reportOpcode(op, action, 64), 64)
	if err != nil {
		return 0, fmt.Errorf("ask for command %02Xh: %w", op, err)
	}
	if len(b) < 2 {
		return 0, fmt.Errorf("ask for command %02Xh: the answer has %d bytes", op, len(b))
	}
	return b[1] & 7, nil
}

// reportOpcode is the command block for one command (SPC): reporting options 001b without, 010b with a service action.
func reportOpcode(op byte, action, n int) []byte {
	cdb := []byte{opMaintenanceIn, 0x0c, 1, op, 0, 0, 0, 0, byte(n >> 8), byte(n), 0, 0}
	if action >= 0 {
		cdb[2], cdb[4], cdb[5] = 2, byte(action>>8), byte(action)
	}
	return cdb
}

// Erasure is a way of a sanitize operation, the same three in all protocols.
type Erasure int

// The ways, strongest first.
const (
	CryptoErase Erasure = iota + 1 // the key that all was encrypted with is changed
	BlockErase                     // the medium's own way, such as erasing flash
	Overwrite                      // a pattern is written everywhere
)

func (e Erasure) String() string {
	return map[Erasure]string{CryptoErase: "crypto erase", BlockErase: "block erase", Overwrite: "overwrite"}[e]
}

// Pattern is what a sanitize operation by Overwrite writes.
type Pattern struct {
	Word   uint32 // repeated over the medium
	Passes int    // 1 to 15
	Invert bool   // each pass is the complement of the one before
}

func (p Pattern) check(e Erasure) error {
	if e == Overwrite && (p.Passes < 1 || p.Passes > 15) {
		return fmt.Errorf("an overwrite of %d passes: want 1 to 15", p.Passes)
	}
	return nil
}

// Sanitize starts a sanitize operation (SBC 5.30) and returns when the drive has accepted it; it goes on in the background, over power
// cuts too. AUSE stays 0: after a failure only another one is accepted.
func (s *SCSI) Sanitize(p Permit, e Erasure, w Pattern) error {
	c, err := sanitizeSCSI(e, w)
	if err != nil {
		return err
	}
	return s.destroy(p, c)
}

// sanitizeSCSI is the command block (SBC tables 109 and 110), with IMMED, and for an overwrite its parameter list (SBC table 111).
func sanitizeSCSI(e Erasure, w Pattern) (SCSICommand, error) {
	action, ok := map[Erasure]byte{Overwrite: 1, BlockErase: 2, CryptoErase: 3}[e]
	if !ok {
		return SCSICommand{}, fmt.Errorf("there is no erasure %d", e)
	}
	c := SCSICommand{CDB: make([]byte, 10)}
	c.CDB[0], c.CDB[1] = opSanitize, 0x80|action
	if e != Overwrite {
		return c, nil
	}
	if err := w.check(e); err != nil {
		return SCSICommand{}, err
	}
	c.CDB[8] = 8
	c.Direction, c.Data = ToDrive, []byte{byte(w.Passes), 0, 0, 4, 0, 0, 0, 0}
	if w.Invert {
		c.Data[0] |= 0x80
	}
	binary.BigEndian.PutUint32(c.Data[4:], w.Word)
	return c, nil
}

// ExitFailureMode makes a drive whose sanitize operation failed usable again (SBC 5.30.2.5). What was on it may still be there: it is for
// a person who said so.
func (s *SCSI) ExitFailureMode(p Permit) error {
	cdb := make([]byte, 10)
	cdb[0], cdb[1] = opSanitize, 0x1f
	return s.destroy(p, SCSICommand{CDB: cdb})
}

// Format starts FORMAT UNIT (SBC 5.4), which goes on in the background. Block size and protection information stay; defects that the
// drive knows stay known.
func (s *SCSI) Format(p Permit) error { return s.destroy(p, formatUnit()) }

// formatUnit has FMTDATA for the short header (SBC table 42): IMMED, and an empty list of defects. FFMT is 0: a fast format writes nothing.
func formatUnit() SCSICommand {
	return SCSICommand{CDB: []byte{opFormatUnit, 0x10, 0, 0, 0, 0}, Direction: ToDrive, Data: []byte{0, 0x02, 0, 0}}
}

func (s *SCSI) destroy(p Permit, c SCSICommand) error {
	c.Timeout = 2 * time.Minute
	return s.permit.send(p, func() error {
		_, err := s.send(c)
		return err
	})
}

// Operation is what a drive says of what goes on in the background.
type Operation struct {
	Sanitizing     bool
	Formatting     bool
	SanitizeFailed bool
	FormatFailed   bool
	// Idle reports whether the drive has nothing to say: there is no operation, or it has ended well. It keeps no word of which of the two.
	Idle bool
	// Progress is how far it is, in 65,536ths; 0 if the drive does not say.
	Progress uint16
	Sense    Sense
}

// Operation asks with REQUEST SENSE (SPC). What the drive has to tell of a reset is passed over: it would hide what goes on.
func (s *SCSI) Operation() (Operation, error) {
	for range 4 {
		sense, err := s.requestSense()
		if err != nil {
			return Operation{}, fmt.Errorf("ask for progress: %w", err)
		}
		if sense.Key != keyUnitAttention {
			return operation(sense), nil
		}
	}
	return Operation{}, errors.New("ask for progress: the drive tells of one reset after another")
}

// requestSense returns sense data in descriptor format, which some drives have as their data and some as the sense of an answer that is
// not good.
func (s *SCSI) requestSense() (Sense, error) {
	b := make([]byte, 252)
	cdb := []byte{opRequestSense, 1, 0, 0, byte(len(b)), 0} // DESC
	r, err := s.dev.SCSI(SCSICommand{CDB: cdb, Direction: FromDrive, Data: b})
	if err != nil {
		return Sense{}, err
	}
	b = b[:len(b)-min(max(0, r.Residual), len(b))]
	if r.Status == statusCheckCondition {
		b = r.Sense
	}
	sense, ok := ParseSense(b)
	if !ok || r.Status != statusGood && r.Status != statusCheckCondition {
		return Sense{}, SenseError{Opcode: opRequestSense, Status: r.Status, Sense: sense}
	}
	return sense, nil
}

func operation(s Sense) Operation {
	return Operation{
		Sanitizing:     s.Key != keyIllegalRequest && s.is(ascNotReady, ascqSanitize),
		Formatting:     s.Key != keyIllegalRequest && s.is(ascNotReady, ascqFormat),
		SanitizeFailed: s.is(ascFormatFailed, ascqSanitizeFail),
		FormatFailed:   s.is(ascFormatFailed, ascqFormatFailed),
		Idle:           s.Key == keyNone && s.is(0, 0),
		Progress:       s.Progress, Sense: s,
	}
}

// text returns a field of ASCII that is padded with spaces, without what cannot be printed.
func text(b []byte) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, string(b)))
}

// reallocated asks for the length of the list of grown defects, READ DEFECT DATA (12) of SBC, in block format: only its header is
// transferred. A drive that does not know the command does not say.
func (s *SCSI) reallocated() (n uint64, known bool, err error) {
	const grown, short = 1 << 3, 0 // REQ_GLIST; short block format, four bytes for each
	b, err := s.read([]byte{opReadDefectData12, grown | short, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0}, 8)
	if e := (SenseError{}); errors.As(err, &e) && e.Status == statusCheckCondition {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read defects: %w", err)
	}
	n, known = parseDefects(b)
	return n, known, nil
}

// parseDefects reads the header of a defect list: valid lists and format in byte 1, length in bytes 4 to 7.
func parseDefects(b []byte) (n uint64, known bool) {
	if len(b) < 8 || b[1]&(1<<3) == 0 {
		return 0, false
	}
	size := uint64(4)
	if format := b[1] & 7; format != 0 {
		size = 8 // long block, bytes from index, physical sector
	}
	return uint64(binary.BigEndian.Uint32(b[4:])) / size, true
}
