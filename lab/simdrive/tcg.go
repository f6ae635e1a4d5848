package simdrive

import (
	"bytes"
	"encoding/binary"

	"gprovision/hw/drive"
)

// tcgState is what a drive that encrypts holds for whoever asks next.
type tcgState struct {
	answer  []byte
	session uint32
	// allowed reports that the session is authorized by the PSID.
	allowed bool
}

// reverts is what a revert counts as where faults of erasing are concerned; no drive offers it by this name.
const reverts drive.Method = "tcg-revert"

// comID is the one number by which the drives are talked to.
const comID = 0x07fe

// trusted is the trusted computing protocol: data are sent to a communication identifier, or received from it. ok is false for a field
// that is not known.
func (d *Drive) trusted(send bool, protocol byte, id uint16, data []byte) (answer []byte, ok bool) {
	switch {
	case protocol != 1:
		return nil, false
	case !send && id == 1:
		return d.discovery(), true
	case id != comID || d.c.PSID == "":
		return nil, false
	case !send:
		return d.tcg.answer, true
	}
	d.tcg.answer = d.method(data)
	return nil, true
}

// discovery makes the data of Level 0 Discovery: a header, TPer, Locking, and Opal 2 or Enterprise if it can be reverted.
func (d *Drive) discovery() []byte {
	b := make([]byte, 80)
	copy(b[48:], []byte{0, 1, 0x10, 12, 0x11})
	copy(b[64:], []byte{0, 2, 0x10, 12, 0x09})
	code := []byte{2, 3}
	if d.c.Enterprise {
		code = []byte{1, 0}
		b[68] |= 0x02
	}
	if d.locked {
		b[68] |= 0x06
	}
	if d.c.PSID != "" {
		b = append(append(b, code...), 0x10, 16, comID>>8, comID&0xff, 0, 1)
		b = append(b, make([]byte, 12)...)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// method answers StartSession with the PSID, and Revert in that session; of the Enterprise SSC a session without it, Authenticate with it,
// and RevertSP. There is one session. It looks for what it knows in the packet and reads no tokens: hw/drive tests the bytes.
func (d *Drive) method(b []byte) []byte {
	if len(b) < 56 {
		return nil
	}
	n := min(int(binary.BigEndian.Uint32(b[52:])), len(b)-56)
	m, session := b[56:56+n], binary.BigEndian.Uint32(b[20:])
	start, revert := []byte("\xa8\x00\x00\x00\x00\x00\x00\xff\x02"), []byte("\xa8\x00\x00\x00\x06\x00\x00\x02\x02")
	authenticate := []byte("\xa8\x00\x00\x00\x06\x00\x00\x00\x0c")
	if d.c.Enterprise {
		revert = []byte("\xa8\x00\x00\x00\x06\x00\x00\x00\x11")
	}
	right := bytes.Contains(m, append([]byte{byte(len(d.c.PSID))}, d.c.PSID...))
	mine := session == d.tcg.session && session != 0
	switch {
	case bytes.Contains(m, start) && d.tcg.session != 0:
		return tcgPacket("\xf0\xf1", 7) // no sessions available
	case bytes.Contains(m, start) && session == 0 && (right || d.c.Enterprise):
		d.tcg.session, d.tcg.allowed = 0x1001, !d.c.Enterprise
		return tcgPacket("\xf8\xa8\x00\x00\x00\x00\x00\x00\x00\xff\xa8\x00\x00\x00\x00\x00\x00\xff\x03\xf0\x01\x82\x10\x01\xf1", 0)
	case bytes.Contains(m, start):
		return tcgPacket("\xf0\xf1", 1) // not authorized
	case bytes.Contains(m, authenticate) && mine && d.c.Enterprise:
		d.tcg.allowed = right
		return tcgPacket(map[bool]string{true: "\xf0\x01\xf1", false: "\xf0\x00\xf1"}[right], 0)
	case bytes.Contains(m, revert) && mine && d.tcg.allowed:
		d.tcg.session = 0
		return tcgPacket("\xf0\xf1", d.revert())
	case mine && string(m) == "\xfa":
		d.tcg.session = 0
	}
	return tcgPacket("\xf0\xf1", 0x0c)
}

// revert makes the keys anew, and returns a status.
func (d *Drive) revert() byte {
	o := operation{method: reverts, areas: d.all(), deep: true}
	o.done = func() { d.locked = d.f.Locked && d.f.StaysLocked }
	op := d.begin(o)
	how, err := d.run(0)
	if err != nil || how != completed {
		return 0x3f
	}
	if op.secret {
		o.done()
	}
	return 0
}

// tcgPacket is an answer in its three headers.
func tcgPacket(method string, status byte) []byte {
	method += "\xf9\xf0" + string(status) + "\x00\x00\xf1"
	b := make([]byte, 56, 56+len(method))
	binary.BigEndian.PutUint16(b[4:], comID)
	binary.BigEndian.PutUint32(b[52:], uint32(len(method)))
	return append(b, method...)
}
