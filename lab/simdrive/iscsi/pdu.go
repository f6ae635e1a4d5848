package iscsi

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The opcodes (RFC 7143, 11.2.1.2).
const (
	opNopOut       = 0x00
	opCommand      = 0x01
	opManage       = 0x02
	opLogin        = 0x03
	opDataOut      = 0x05
	opLogout       = 0x06
	opNopIn        = 0x20
	opResponse     = 0x21
	opManageAnswer = 0x22
	opLoginAnswer  = 0x23
	opDataIn       = 0x25
	opLogoutAnswer = 0x26
	opReadyToMove  = 0x31
	opReject       = 0x3f
)

// headSize is the length of a basic header segment.
const headSize = 48

// noTag is the tag that stands for none.
const noTag = 0xffffffff

// The places of fields that most PDUs have (RFC 7143, 11).
const (
	atLUN      = 8
	atTag      = 16
	atTransfer = 20 // target transfer tag; the expected length in a command, the referenced task in a request to manage tasks
	atCmdSN    = 24 // from the target it is StatSN
	atExpStat  = 28 // from the target it is ExpCmdSN
	atMaxCmdSN = 32
	atDataSN   = 36
	atOffset   = 40
	atLength   = 44
)

// pdu is one protocol data unit without digests.
type pdu struct {
	head [headSize]byte
	data []byte
}

func (p *pdu) opcode() byte              { return p.head[0] & 0x3f }
func (p *pdu) immediate() bool           { return p.head[0]&0x40 != 0 }
func (p *pdu) final() bool               { return p.head[1]&0x80 != 0 }
func (p *pdu) number(at int) uint32      { return binary.BigEndian.Uint32(p.head[at:]) }
func (p *pdu) put(at int, number uint32) { binary.BigEndian.PutUint32(p.head[at:], number) }

// lun returns the logical unit number of the first level (SAM-5, 4.7.7): peripheral or flat addressing. Any other is one that is not there.
func (p *pdu) lun() int {
	switch p.head[atLUN] >> 6 {
	case 0:
		return int(p.head[atLUN+1]) | int(p.head[atLUN]&0x3f)<<16 // a bus number but 0 leads nowhere
	case 1:
		return int(p.head[atLUN]&0x3f)<<8 | int(p.head[atLUN+1])
	}
	return -1
}

// readPDU reads one PDU whose data are at most so many bytes. Additional header segments are passed over.
func readPDU(r io.Reader, most int) (pdu, error) {
	var p pdu
	if _, err := io.ReadFull(r, p.head[:]); err != nil {
		return pdu{}, err
	}
	n := int(p.number(4) & 0xffffff)
	if n > most {
		return pdu{}, fmt.Errorf("PDU %02Xh: %d bytes of data, at most %d", p.opcode(), n, most)
	}
	if _, err := io.CopyN(io.Discard, r, 4*int64(p.head[4])); err != nil {
		return pdu{}, fmt.Errorf("PDU %02Xh: additional header: %w", p.opcode(), unexpected(err))
	}
	b := make([]byte, (n+3)&^3)
	if _, err := io.ReadFull(r, b); err != nil {
		return pdu{}, fmt.Errorf("PDU %02Xh: data: %w", p.opcode(), unexpected(err))
	}
	p.data = b[:n]
	return p, nil
}

// unexpected makes the end of a stream in the middle of a PDU one that nobody takes for an orderly end.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// bytes is a PDU as it goes over the wire, padded to four bytes.
func (p *pdu) bytes() []byte {
	binary.BigEndian.PutUint32(p.head[4:], uint32(len(p.data)))
	b := append(append([]byte(nil), p.head[:]...), p.data...)
	return append(b, make([]byte, -len(p.data)&3)...)
}
