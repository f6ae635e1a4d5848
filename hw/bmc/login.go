package bmc

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// ErrNoAnswer means that nobody answers at a controller's address: its port may share a cable with one of the machine itself, which
// cannot reach it then, or be on another network.
var ErrNoAnswer = errors.New("the management controller does not answer at its address")

// port is that of RMCP (section 13.1.1).
const port = 623

// How long a login waits for each answer, and how often it asks.
const (
	loginTries = 3
	loginWait  = time.Second
)

// suite is a cipher suite (table 22-20) by its algorithms for authentication and integrity; both encrypt with AES-CBC-128.
type suite struct {
	authentication, integrity byte
	hash                      func() hash.Hash
}

// suites are those that are tried, number 17 and number 3.
func suites() []suite { return []suite{{3, 4, sha256.New}, {1, 1, sha1.New}} }

// Types of payload (table 13-16).
const (
	openRequest, openResponse = 0x10, 0x11
	rakp1, rakp2              = 0x12, 0x13
	rakp3, rakp4              = 0x14, 0x15
)

// Status codes of RMCP+ (table 13-15).
const (
	statusRole  = 0x09
	statusName  = 0x0d
	statusCheck = 0x0f
	statusSuite = 0x11
)

// Login logs in at the address of a controller as an administrator, with the handshake of RMCP+ (sections 13.17 to 13.24). It ends once
// the controller has accepted the session, before a command is sent; the controller ends that session by itself after a minute. The
// error is ErrNoAnswer if nobody answers, and ErrPassword if the controller has another password or no such user.
func Login(ctx context.Context, address netip.Addr, user, password string) error {
	return loginAt(ctx, net.JoinHostPort(address.String(), strconv.Itoa(port)), user, password)
}

func loginAt(ctx context.Context, address, user, password string) error {
	var last error
	for _, s := range suites() {
		var again bool
		if again, last = s.login(ctx, address, user, password); last == nil || !again {
			break
		}
	}
	if last != nil {
		return fmt.Errorf("log in at %s: %w", address, last)
	}
	return nil
}

// login logs in with one suite. It reports whether another suite may do where this one does not.
func (s suite) login(ctx context.Context, address, user, password string) (again bool, err error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "udp", address)
	if err != nil {
		return false, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })()

	console, random := make([]byte, 4), make([]byte, 16)
	rand.Read(console) // this side's name for the session; it never fails
	rand.Read(random)
	console[0] |= 1 // 0 is no name
	const highest = 0
	open := append([]byte{1, highest, 0, 0}, console...)
	for kind, algorithm := range []byte{s.authentication, s.integrity, 1} {
		open = append(open, byte(kind), 0, 0, 8, algorithm, 0, 0, 0)
	}
	r, err := ask(ctx, c, openRequest, openResponse, open)
	switch {
	case err != nil:
		return false, err
	case r[1] != 0:
		return true, statusError("Open Session", r[1])
	case len(r) < 36 || !bytes.Equal(r[4:8], console):
		return false, errors.New("the answer to Open Session is malformed")
	}
	managed := r[8:12]
	if r[16] != s.authentication || r[24] != s.integrity { // not what was asked for
		return true, statusError("Open Session", statusSuite)
	}

	role := []byte{0x10 | administrator, byte(len(user))} // by the name alone
	role = append(role, user...)
	first := append(append([]byte{2, 0, 0, 0}, managed...), random...)
	first = append(append(first, role[0], 0, 0, role[1]), user...)
	r, err = ask(ctx, c, rakp1, rakp2, first)
	size := s.hash().Size()
	switch {
	case err != nil:
		return false, err
	case r[1] != 0:
		return false, statusError("RAKP 1", r[1])
	case len(r) < 40+size || !bytes.Equal(r[4:8], console):
		return false, errors.New("RAKP 2 is malformed")
	}
	theirs, guid := r[8:24], r[24:40]
	if !hmac.Equal(r[40:40+size], s.code(password, console, managed, random, theirs, guid, role)) {
		return false, fmt.Errorf("%w: RAKP 2 was not made with it", ErrPassword)
	}
	third := append(append([]byte{3, 0, 0, 0}, managed...), s.code(password, theirs, console, role)...)
	r, err = ask(ctx, c, rakp3, rakp4, third)
	switch {
	case err != nil:
		return false, err
	case r[1] == 0 && (len(r) < 8 || !bytes.Equal(r[4:8], console)):
		return false, errors.New("RAKP 4 is malformed")
	}
	return false, statusError("RAKP 3", r[1])
}

// code returns the authentication code of a message with the user's password as the key.
func (s suite) code(password string, parts ...[]byte) []byte {
	h := hmac.New(s.hash, []byte(password))
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// statusError returns the error of a status, or nil.
func statusError(message string, status byte) error {
	switch status {
	case 0:
		return nil
	case statusName:
		return fmt.Errorf("%w: it has no such user", ErrPassword)
	case statusCheck:
		return fmt.Errorf("%w: it refuses %s", ErrPassword, message)
	case statusRole:
		return fmt.Errorf("%w: the user is no administrator there", ErrPassword)
	case statusSuite:
		return errors.New("the management controller does not know the cipher suite")
	}
	return fmt.Errorf("the management controller refuses %s: status 0x%02x", message, status)
}

// ask sends a message and returns the answer to it: a tag, a status, and more where the status is 0. Whatever else comes is left alone.
func ask(ctx context.Context, c net.Conn, kind, answer byte, payload []byte) ([]byte, error) {
	packet := []byte{6, 0, 0xff, 7, 6, kind, 0, 0, 0, 0, 0, 0, 0, 0} // RMCP, RMCP+, no session, no number
	packet = append(binary.LittleEndian.AppendUint16(packet, uint16(len(payload))), payload...)
	buf := make([]byte, 1500)
	for range loginTries {
		if _, err := c.Write(packet); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoAnswer, err)
		}
		if err := c.SetReadDeadline(time.Now().Add(loginWait)); err != nil {
			return nil, err
		}
		for {
			n, err := c.Read(buf)
			if cause := ctx.Err(); cause != nil {
				return nil, cause
			}
			if err != nil {
				break // nothing came, or the machine says that nobody is there
			}
			if r, ok := answered(buf[:n], answer); ok && r[0] == payload[0] {
				return bytes.Clone(r), nil
			}
		}
	}
	return nil, ErrNoAnswer
}

// answered returns the payload of a packet that is an answer of a kind.
func answered(b []byte, kind byte) ([]byte, bool) {
	const head = 16
	if len(b) < head+2 || b[0] != 6 || b[3]&0x1f != 7 || b[4]&0x0f != 6 || b[5]&0x3f != kind {
		return nil, false
	}
	n := int(binary.LittleEndian.Uint16(b[14:]))
	if n < 2 || head+n > len(b) {
		return nil, false
	}
	return b[head : head+n], true
}
