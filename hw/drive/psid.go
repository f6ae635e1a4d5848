package drive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// PSID is the number that is printed on the label of a drive that encrypts: whoever holds the drive may set it back by it. It shows itself
// as [secret].
type PSID string

// String returns [secret].
func (PSID) String() string { return "[secret]" }

// GoString returns [secret].
func (PSID) GoString() string { return "[secret]" }

// The tokens of method calls (TCG 3.2.2.3.1) and the lengths of the headers of ComPacket, Packet and Subpacket before them (TCG 3.2.3).
const (
	tokenStartList  = 0xf0
	tokenEndList    = 0xf1
	tokenStartName  = 0xf2
	tokenEndName    = 0xf3
	tokenCall       = 0xf8
	tokenEndOfData  = 0xf9
	tokenEndSession = 0xfa
	tokenEmpty      = 0xff
	tcgHeaders      = 20 + 24 + 12
	tcgBuffer       = 2048
	tcgHostSession  = 1 // the number that this host gives its one session
	nvmeSecuritySnd = 0x81
	opSecurityOut   = 0xb5
)

// The identifiers (TCG 6.3, as opaluid and opalmethod of sed-opal.c have them). methodAuthenticate is that of the Enterprise SSC.
const (
	uidSessionManager = "\x00\x00\x00\x00\x00\x00\x00\xff"
	uidThisSP         = "\x00\x00\x00\x00\x00\x00\x00\x01"
	uidAdminSP        = "\x00\x00\x02\x05\x00\x00\x00\x01"
	uidPSID           = "\x00\x00\x00\x09\x00\x01\xff\x01"
	methodStart       = "\x00\x00\x00\x00\x00\x00\xff\x02"
	methodSync        = "\x00\x00\x00\x00\x00\x00\xff\x03"
	methodRevert      = "\x00\x00\x00\x06\x00\x00\x02\x02"

	methodRevertSP     = "\x00\x00\x00\x06\x00\x00\x00\x11"
	methodAuthenticate = "\x00\x00\x00\x06\x00\x00\x00\x0c"
)

// statusNotAuthorized is that of a PSID that is another one.
const statusNotAuthorized = 1

// TCGError is a method that a drive did not carry out: 01h is that the PSID is another one, 12h that there were too many wrong ones (TCG
// 5.1.5).
type TCGError struct{ Status uint64 }

func (e TCGError) Error() string {
	return fmt.Sprintf("the drive refuses to be reverted: status %02Xh", e.Status)
}

// Revert sets a drive that encrypts back to what it was when it was made, by the number on its label: its keys are made anew, so that
// nothing that was on it can be read, and it is not locked any more. The whole drive is reached. wait is called between questions for an
// answer that is not there yet, and ends it by an error.
func (d *Drive) Revert(p Permit, psid PSID, wait func() error) error {
	if psid == "" || len(psid) > 1023 {
		return fmt.Errorf("revert: a PSID of %d characters", len(psid))
	}
	if err := d.permit(p); err != nil {
		return err
	}
	if d.NVMe != nil {
		if err := d.NVMe.within(p, allNamespaces); err != nil {
			return err
		}
	}
	l, known, err := d.Locking()
	switch {
	case err != nil:
		return fmt.Errorf("revert: %w", err)
	case !known || l.ComID == 0:
		return fmt.Errorf("revert: %w", errors.ErrUnsupported)
	}
	start, revert := opalRevert(psid)
	if l.Enterprise {
		start, revert = enterpriseRevert()
	}
	answer, err := d.converse(l.ComID, 0, start, wait)
	if err != nil {
		return fmt.Errorf("revert: begin session: %w", err)
	}
	session, err := answer.session()
	if err != nil {
		return fmt.Errorf("revert: begin session: %w", err)
	}
	if l.Enterprise {
		err = d.authenticate(l.ComID, session, psid, wait)
	}
	if err == nil {
		if answer, err = d.converse(l.ComID, session, revert, wait); err == nil { // the drive ends the session
			err = answer.err()
		}
	}
	if err != nil { // else the session is open, and there may be no other
		_, _ = d.exchange(l.ComID, session, []byte{tokenEndSession}, wait)
		return fmt.Errorf("revert: %w", err)
	}
	return nil
}

// opalRevert is how a session with the Admin SP begins that the PSID authorizes, and the method by which that reverts (TCG 5.2.3.1, and the
// PSID feature set of Opal).
func opalRevert(psid PSID) (start, revert []byte) {
	start = slices.Concat(call(uidSessionManager, methodStart), []byte{tokenStartList, tcgHostSession}, atom(uidAdminSP), []byte{1},
		[]byte{tokenStartName, 0}, atom(string(psid)), []byte{tokenEndName}, // HostChallenge
		[]byte{tokenStartName, 3}, atom(uidPSID), []byte{tokenEndName, tokenEndList}) // HostSigningAuthority
	return start, append(call(uidAdminSP, methodRevert), tokenStartList, tokenEndList)
}

// enterpriseRevert is the same for the Enterprise SSC, whose parameters have names, and whose session is authorized by a method of its own.
// Nobody has to end such a session: it ends after a minute. Makers document RevertSP by the PSID (Seagate, Enterprise Self-Encrypting Drive
// User's Guide, 2.5); the bytes are those of sedutil (DtaSession, DtaDevEnterprise).
func enterpriseRevert() (start, revert []byte) {
	start = slices.Concat(call(uidSessionManager, methodStart), []byte{tokenStartList, tcgHostSession}, atom(uidAdminSP), []byte{1},
		[]byte{tokenStartName}, atom("SessionTimeout"), []byte{0x82, 60000 >> 8, 60000 & 0xff, tokenEndName, tokenEndList})
	return start, append(call(uidThisSP, methodRevertSP), tokenStartList, tokenEndList)
}

// authenticate authorizes a session of the Enterprise SSC by the PSID. A drive answers another one with false.
func (d *Drive) authenticate(comID uint16, session uint32, psid PSID, wait func() error) error {
	answer, err := d.converse(comID, session, slices.Concat(call(uidThisSP, methodAuthenticate), []byte{tokenStartList}, atom(uidPSID),
		[]byte{tokenStartName}, atom("Challenge"), atom(string(psid)), []byte{tokenEndName, tokenEndList}), wait)
	if err == nil {
		err = answer.err()
	}
	if err == nil && (answer[0].control != tokenStartList || answer[1] != token{number: 1}) {
		err = TCGError{Status: statusNotAuthorized}
	}
	return err
}

// converse calls a method of a session, with the status list that each call ends with, and returns the answer.
func (d *Drive) converse(comID uint16, session uint32, method []byte, wait func() error) (tokens, error) {
	return d.exchange(comID, session, slices.Concat(method, []byte{tokenEndOfData, tokenStartList, 0, 0, 0, tokenEndList}), wait)
}

// exchange sends tokens to a session and asks for the answer until it is there.
func (d *Drive) exchange(comID uint16, session uint32, sent []byte, wait func() error) (tokens, error) {
	b := packet(comID, session, sent)
	var err error
	if d.NVMe != nil {
		err = d.NVMe.send(NVMeCommand{
			Opcode: nvmeSecuritySnd, CDW10: protocolTCG<<24 | uint32(comID)<<8, CDW11: uint32(len(b)), Data: b, Timeout: time.Minute,
		})
	} else {
		cdb := securityProtocolIn(comID, len(b))
		cdb[0] = opSecurityOut
		err = untilTold(func() error {
			_, err := (&SCSI{dev: d.dev}).send(SCSICommand{CDB: cdb, Direction: ToDrive, Data: b, Timeout: time.Minute})
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	for {
		b, err := d.securityIn(comID, tcgBuffer)
		if err != nil {
			return nil, err
		}
		answer, ready, err := unpack(b)
		if ready || err != nil {
			return answer, err
		}
		if err := wait(); err != nil {
			return nil, err
		}
	}
}

// call is the beginning of a method call: its object and its name.
func call(object, method string) []byte {
	return slices.Concat([]byte{tokenCall}, atom(object), atom(method))
}

// atom is bytes as one token, with a header of one or two bytes (TCG 3.2.2.3.1.2, .3).
func atom(s string) []byte {
	if len(s) < 16 {
		return append([]byte{0xa0 | byte(len(s))}, s...)
	}
	return append([]byte{0xd0 | byte(len(s)>>8), byte(len(s))}, s...)
}

// packet makes what is sent: tokens in three headers, in whole blocks.
func packet(comID uint16, session uint32, tokens []byte) []byte {
	padded := (len(tokens) + 3) &^ 3
	b := make([]byte, (tcgHeaders+padded+511)&^511)
	be := binary.BigEndian
	be.PutUint16(b[4:], comID)
	be.PutUint32(b[16:], uint32(24+12+padded))
	if session != 0 {
		be.PutUint32(b[20:], session)
		be.PutUint32(b[24:], tcgHostSession)
	}
	be.PutUint32(b[40:], uint32(12+padded))
	be.PutUint32(b[52:], uint32(len(tokens)))
	copy(b[tcgHeaders:], tokens)
	return b
}

// token is one of an answer: a control token, a number, or bytes.
type token struct {
	control byte
	number  uint64
	bytes   string
}

type tokens []token

// unpack reads an answer. ready is false if the drive has none yet: it says that there is more, and that it cannot be had (TCG 3.2.3.2,
// OutstandingData and MinTransfer).
func unpack(b []byte) (t tokens, ready bool, err error) {
	be := binary.BigEndian
	if len(b) < tcgHeaders {
		return nil, false, fmt.Errorf("an answer of %d bytes", len(b))
	}
	if be.Uint32(b[8:]) != 0 && be.Uint32(b[12:]) == 0 {
		return nil, false, nil
	}
	n := be.Uint32(b[52:])
	if n == 0 || int64(n) > int64(len(b)-tcgHeaders) {
		return nil, false, fmt.Errorf("an answer with %d bytes of tokens", n)
	}
	for rest := b[tcgHeaders : tcgHeaders+int(n)]; len(rest) > 0; {
		one, size := parseToken(rest)
		if size > len(rest) {
			return nil, false, errors.New("an answer whose last token is cut off")
		}
		if one.control != tokenEmpty {
			t = append(t, one)
		}
		rest = rest[size:]
	}
	return t, true, nil
}

// parseToken reads the first token (TCG 3.2.2.3.1). Its size is more than there is if it is cut off.
func parseToken(b []byte) (t token, size int) {
	header, n, isBytes := 1, 0, false
	switch c := b[0]; {
	case c < 0x80:
		return token{number: uint64(c & 0x3f)}, 1
	case c < 0xc0:
		n, isBytes = int(c&0x0f), c&0x20 != 0
	case c < 0xe0 && len(b) >= 2:
		header, n, isBytes = 2, int(c&0x07)<<8|int(b[1]), c&0x10 != 0
	case c < 0xe4 && len(b) >= 4:
		header, n, isBytes = 4, int(b[1])<<16|int(b[2])<<8|int(b[3]), c&0x02 != 0
	case c >= 0xf0:
		return token{control: c}, 1
	default:
		return token{}, len(b) + 1
	}
	if size = header + n; size > len(b) {
		return token{}, size
	}
	if isBytes {
		return token{bytes: string(b[header:size])}, size
	}
	for _, c := range b[header:size] {
		t.number = t.number<<8 | uint64(c)
	}
	return t, size
}

// err returns the status list at the end of an answer, as an error if it is none of success.
func (t tokens) err() error {
	n := len(t)
	if n < 6 || t[n-6].control != tokenEndOfData || t[n-5].control != tokenStartList || t[n-1].control != tokenEndList {
		return errors.New("an answer without a status")
	}
	if s := t[n-4].number; s != 0 {
		return TCGError{Status: s}
	}
	return nil
}

// session returns the number that the drive gave the session, from SyncSession (TCG 5.2.3.2).
func (t tokens) session() (uint32, error) {
	if err := t.err(); err != nil {
		return 0, err
	}
	if len(t) < 6 || t[0].control != tokenCall || t[2].bytes != methodSync || t[4].number != tcgHostSession || t[5].number == 0 {
		return 0, errors.New("the drive began no session")
	}
	return uint32(t[5].number), nil
}
