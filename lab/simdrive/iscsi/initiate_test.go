package iscsi

import (
	"fmt"
	"io"
)

// session is what an initiator has to know of a session that was logged in, to go on with it.
type session struct {
	cmdSN     uint32 // of the next command
	expStatSN uint32
}

// login logs in at a target of this package: InitialR2T, ImmediateData, and as much data as the target takes.
func login(conn io.ReadWriter, initiator, target string) (session, error) {
	var text string
	for _, k := range [][2]string{
		{"InitiatorName", initiator}, {"TargetName", target}, {"SessionType", "Normal"}, {"HeaderDigest", "None"}, {"DataDigest", "None"},
		{"InitialR2T", "Yes"}, {"ImmediateData", "Yes"}, {"MaxRecvDataSegmentLength", fmt.Sprint(maxReceive)},
		{"MaxBurstLength", fmt.Sprint(maxBurst)}, {"FirstBurstLength", fmt.Sprint(firstBurst)}, {"MaxOutstandingR2T", "1"},
		{"MaxConnections", "1"}, {"ErrorRecoveryLevel", "0"}, {"DefaultTime2Wait", "0"}, {"DefaultTime2Retain", "0"},
	} {
		text += k[0] + "=" + k[1] + "\x00"
	}
	p := pdu{data: []byte(text)}
	const operational = 1
	p.head[0], p.head[1] = 0x40|opLogin, 0x80|operational<<2|stageFull
	p.head[8] = 0x80 // ISID: a random one
	p.put(atCmdSN, 1)
	if _, err := conn.Write(p.bytes()); err != nil {
		return session{}, fmt.Errorf("log in: %w", err)
	}
	a, err := readPDU(conn, maxReceive)
	switch {
	case err != nil:
		return session{}, fmt.Errorf("log in: %w", err)
	case a.opcode() != opLoginAnswer || a.head[36] != 0 || !a.final() || a.head[1]&3 != stageFull:
		return session{}, fmt.Errorf("log in: PDU %02Xh, status %02X%02Xh", a.opcode(), a.head[36], a.head[37])
	}
	return session{cmdSN: 1, expStatSN: a.number(atCmdSN) + 1}, nil
}
