package tpm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Commands, handles and properties (part 2, TPM_CC, TPM_RH, TPM_RS, TPM_CAP, TPM_PT).
const (
	ccClear         = 0x126
	ccCreatePrimary = 0x131
	ccFlushContext  = 0x165
	ccGetCapability = 0x17a
	ccReadClock     = 0x181

	rhOwner    = 0x40000001
	rsPassword = 0x40000009
	rhLockout  = 0x4000000a

	capHandles    = 1
	capProperties = 6

	manufacturer = 0x105
	permanent    = 0x200

	withoutSessions = 0x8001
	withSessions    = 0x8002
)

// Persistent handles (TCG Registry of Reserved TPM 2.0 Handles).
const (
	firstPersistent   = 0x81000000
	firstEndorsement  = 0x81010000
	behindEndorsement = 0x81020000
	firstPlatform     = 0x81800000
)

const (
	headerSize  = 10
	maxAnswer   = 4096 // that of the kernel's driver
	mostHandles = 64
	curveBytes  = 32
)

// Code is a response code that is not TPM_RC_SUCCESS (part 2, TPM_RC).
type Code uint32

// Codes of a hierarchy that one cannot use without knowing its password, or at all.
const (
	hierarchyOff Code = 0x85
	authFail     Code = 0x8e
	badAuth      Code = 0xa2
)

func (c Code) Error() string {
	name := map[Code]string{
		0x101: " (TPM_RC_FAILURE: it is in failure mode)", 0x120: " (TPM_RC_DISABLED)", 0x921: " (TPM_RC_LOCKOUT)",
		authFail: " (TPM_RC_AUTH_FAIL)", badAuth: " (TPM_RC_BAD_AUTH)", hierarchyOff: " (TPM_RC_HIERARCHY)",
	}
	return fmt.Sprintf("the TPM answers 0x%03x%s", uint32(c), name[c.plain()])
}

// plain returns the code without the number of the parameter, handle or session that it is about.
func (c Code) plain() Code {
	if c&0x80 != 0 {
		return c & 0xbf
	}
	return c
}

// session is an open TPM.
type session struct{ rw io.ReadWriter }

// do sends a command and returns the parameters of the answer, with the handles in front. If there are handles, the first is used by its
// empty password.
func (s session) do(code uint32, handles []uint32, params []byte) ([]byte, error) {
	var body []byte
	for _, h := range handles {
		body = binary.BigEndian.AppendUint32(body, h)
	}
	tag := uint16(withoutSessions)
	if len(handles) > 0 { // part 1, password authorizations: no nonce, no attributes, no password
		tag = withSessions
		auth := append(binary.BigEndian.AppendUint32(nil, rsPassword), 0, 0, 0, 0, 0)
		body = append(binary.BigEndian.AppendUint32(body, uint32(len(auth))), auth...)
	}
	body = append(body, params...)
	out := binary.BigEndian.AppendUint16(nil, tag)
	out = binary.BigEndian.AppendUint32(out, uint32(headerSize+len(body)))
	out = binary.BigEndian.AppendUint32(out, code)
	if _, err := s.rw.Write(append(out, body...)); err != nil {
		return nil, fmt.Errorf("send command 0x%x: %w", code, err)
	}
	in := make([]byte, maxAnswer)
	n, err := io.ReadAtLeast(s.rw, in, headerSize)
	if err != nil {
		return nil, fmt.Errorf("answer to command 0x%x: %w", code, err)
	}
	size := binary.BigEndian.Uint32(in[2:])
	if size < headerSize || size > maxAnswer || uint32(n) > size {
		return nil, fmt.Errorf("answer to command 0x%x: %w: %d bytes of %d", code, ErrAnswer, n, size)
	}
	if _, err := io.ReadFull(s.rw, in[n:size]); err != nil {
		return nil, fmt.Errorf("answer to command 0x%x: %w", code, err)
	}
	if rc := Code(binary.BigEndian.Uint32(in[6:])); rc != 0 {
		return nil, fmt.Errorf("command 0x%x: %w", code, rc)
	}
	return in[headerSize:size], nil
}

// read fills values, in order, from an answer.
func read(answer []byte, values ...any) (rest []byte, err error) {
	r := bytes.NewReader(answer)
	for _, v := range values {
		if err := binary.Read(r, binary.BigEndian, v); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
		}
	}
	return answer[len(answer)-r.Len():], nil
}

// capability asks for at most so many capabilities of a kind, and returns the list with its length in front.
func (s session) capability(kind, first, most uint32) ([]byte, error) {
	var params []byte
	for _, n := range []uint32{kind, first, most} {
		params = binary.BigEndian.AppendUint32(params, n)
	}
	b, err := s.do(ccGetCapability, nil, params)
	if err != nil {
		return nil, err
	}
	var more uint8
	var got uint32
	b, err = read(b, &more, &got)
	if err == nil && got != kind {
		err = fmt.Errorf("%w: asked for capability %d, got %d", ErrAnswer, kind, got)
	}
	return b, err
}

// property returns one of the properties.
func (s session) property(which uint32) (uint32, error) {
	b, err := s.capability(capProperties, which, 1)
	if err != nil {
		return 0, err
	}
	var count, got, value uint32
	if _, err = read(b, &count, &got, &value); err == nil && (count != 1 || got != which) {
		err = fmt.Errorf("%w: asked for property 0x%x, got 0x%x", ErrAnswer, which, got)
	}
	return value, err
}

// maker returns the four letters of who made it, without blanks and zeros around them.
func (s session) maker() (string, error) {
	n, err := s.property(manufacturer)
	return strings.Trim(string(binary.BigEndian.AppendUint32(nil, n)), " \x00"), err
}

func (s session) resets() (uint32, error) {
	b, err := s.do(ccReadClock, nil, nil)
	if err != nil {
		return 0, err
	}
	var time, clock uint64 // part 2, TPMS_TIME_INFO
	var resets uint32
	_, err = read(b, &time, &clock, &resets)
	return resets, err
}

func (s session) persistent() (out []uint32, err error) {
	b, err := s.capability(capHandles, firstPersistent, mostHandles)
	if err != nil {
		return nil, err
	}
	var count uint32
	if b, err = read(b, &count); err != nil {
		return nil, err
	}
	if count > mostHandles {
		return nil, fmt.Errorf("%w: %d handles", ErrAnswer, count)
	}
	for range count {
		var h uint32
		if b, err = read(b, &h); err != nil {
			return nil, err
		}
		if h < firstEndorsement || h >= behindEndorsement && h < firstPlatform {
			out = append(out, h)
		}
	}
	return out, nil
}

// template is TPM2B_SENSITIVE_CREATE and TPM2B_PUBLIC of the key: ECC on P-256, restricted, for decrypting, AES 128 CFB, no scheme; no
// further information, and no PCRs.
func template() []byte {
	public := []byte{0, 0x23, 0, 0x0b, 0, 0x03, 0x04, 0x72, 0, 0, 0, 0x06, 0, 0x80, 0, 0x43, 0, 0x10, 0, 0x03, 0, 0x10}
	point := append([]byte{0, curveBytes}, make([]byte, curveBytes)...)
	public = slices.Concat(public, point, point)
	return slices.Concat([]byte{0, 4, 0, 0, 0, 0, 0, byte(len(public))}, public, make([]byte, 6))
}

// key returns the digest of the primary key of the storage hierarchy. It is made twice: one that is not the same both times says nothing.
// It is no error if the hierarchy has a password, or is off.
func (s session) key() ([]byte, error) {
	var digests [2][]byte
	for i := range digests {
		b, err := s.do(ccCreatePrimary, []uint32{rhOwner}, template())
		if c, ok := errors.AsType[Code](err); ok && slices.Contains([]Code{authFail, badAuth, hierarchyOff}, c.plain()) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		var handle, all uint32
		var size uint16
		rest, err := read(b, &handle, &all, &size)
		if err != nil {
			return nil, err
		}
		public := make([]byte, size)
		_, err = read(rest, public)
		_, flushed := s.do(ccFlushContext, nil, binary.BigEndian.AppendUint32(nil, handle))
		if err := errors.Join(err, flushed); err != nil {
			return nil, err
		}
		sum := sha256.Sum256(public)
		digests[i] = sum[:]
	}
	if !bytes.Equal(digests[0], digests[1]) {
		return nil, nil
	}
	return digests[0], nil
}
