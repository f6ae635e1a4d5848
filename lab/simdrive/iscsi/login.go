package iscsi

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// What this target takes (RFC 7143, 13).
const (
	maxReceive = 256 << 10 // MaxRecvDataSegmentLength, of this side
	maxBurst   = 256 << 10
	firstBurst = 64 << 10
	usualSend  = 8192 // of the other side, unless it says another
)

// terms are what both sides have agreed on.
type terms struct {
	send      int // most data in a PDU to the initiator
	burst     int // most data in a sequence
	first     int // most data that come with a command
	immediate bool
}

// The reasons why a login is refused: status class and detail (RFC 7143, 11.13.5).
const (
	loginGood          = 0x0000
	loginError         = 0x0200
	loginFailed        = 0x0201
	loginNotFound      = 0x0203
	loginNoSuchSession = 0x0209
)

// The stages of a login.
const (
	stageSecurity = 0
	stageFull     = 3
)

// login answers a login request. The error is for what cannot be answered.
func (c *connection) login(p pdu) error {
	answer := pdu{head: p.head}
	answer.head[0] = opLoginAnswer
	answer.head[2], answer.head[3] = 0, 0 // version
	if !c.greeted {
		c.expected = p.number(atCmdSN)
	}
	stage, next := p.head[1]>>2&3, p.head[1]&3
	text, status := c.agree(p, stage)
	if p.head[1]&0x40 != 0 { // more of the text is to follow
		status = loginError
	}
	c.number(&answer)
	for at := atDataSN; at < headSize; at++ {
		answer.head[at] = 0
	}
	answer.head[36], answer.head[37] = byte(status>>8), byte(status)
	switch {
	case status != loginGood:
		answer.head[1] = 0
		if err := c.send(&answer); err != nil {
			return err
		}
		return fmt.Errorf("login: refused with status %04Xh", status)
	case p.final() && next == stageFull:
		answer.head[14], answer.head[15] = 0, 1 // TSIH
		c.full = true
	}
	answer.data = []byte(text)
	c.greeted = true
	return c.send(&answer)
}

// agree answers the keys of a login request.
func (c *connection) agree(p pdu, stage byte) (text string, status int) {
	keys, err := parseText(p.data)
	if err != nil {
		return "", loginError
	}
	var out strings.Builder
	say := func(key, value string) { fmt.Fprintf(&out, "%s=%s\x00", key, value) }
	if !c.greeted {
		value := func(name string) string {
			i := slices.IndexFunc(keys, func(k [2]string) bool { return k[0] == name })
			if i < 0 {
				return ""
			}
			return keys[i][1]
		}
		switch {
		case value("SessionType") == "Discovery":
			return "", loginNoSuchSession
		case value("TargetName") != c.t.name:
			return "", loginNotFound
		}
		say("TargetPortalGroupTag", "1")
	}
	if stage != stageSecurity && !c.declared {
		c.declared = true
		say("MaxRecvDataSegmentLength", strconv.Itoa(maxReceive))
	}
	for _, k := range keys {
		value, err := c.key(k[0], k[1])
		if err != nil {
			return "", loginFailed
		}
		if value != "" {
			say(k[0], value)
		}
	}
	return out.String(), loginGood
}

// key answers one key; with nothing, if that is one which is only declared.
func (c *connection) key(key, value string) (string, error) {
	number := func(most int) (int, error) {
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n < 512 {
			return 0, fmt.Errorf("%s=%q", key, value)
		}
		return int(min(n, uint64(most))), nil
	}
	var err error
	switch key {
	case "InitiatorName", "InitiatorAlias", "TargetName", "SessionType":
		return "", nil
	case "MaxRecvDataSegmentLength":
		c.terms.send, err = number(maxReceive)
		return "", err
	case "AuthMethod", "HeaderDigest", "DataDigest":
		if !slices.Contains(strings.Split(value, ","), "None") {
			return "", fmt.Errorf("%s=%q", key, value)
		}
		return "None", nil
	case "MaxBurstLength":
		c.terms.burst, err = number(maxBurst)
		return strconv.Itoa(c.terms.burst), err
	case "FirstBurstLength":
		c.terms.first, err = number(firstBurst)
		return strconv.Itoa(c.terms.first), err
	case "ImmediateData":
		c.terms.immediate = value == "Yes"
		return value, nil
	case "InitialR2T", "DataPDUInOrder", "DataSequenceInOrder":
		return "Yes", nil
	case "MaxConnections", "MaxOutstandingR2T":
		return "1", nil
	case "DefaultTime2Wait":
		return value, nil
	case "DefaultTime2Retain", "ErrorRecoveryLevel":
		return "0", nil
	case "IFMarker", "OFMarker":
		return "No", nil
	}
	return "NotUnderstood", nil
}

// parseText reads keys and values, each of which ends with a zero (RFC 7143, 6.1).
func parseText(b []byte) ([][2]string, error) {
	var out [][2]string
	for pair := range strings.SplitSeq(string(b), "\x00") {
		if pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" || len(key) > 63 {
			return nil, fmt.Errorf("no key and value: %.80q", pair)
		}
		out = append(out, [2]string{key, value})
	}
	return out, nil
}
