package drive

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestRevertBytes holds what is sent to a drive that is reverted, as block/sed-opal.c of Linux builds it, and what its answers mean.
func TestRevertBytes(t *testing.T) {
	const psid = "0123456789ABCDEF0123456789ABCDEF"
	level0 := unhex(t, "0000005c 00000001 0000000000000000"+strings.Repeat("00", 32)+"0002 10 0c 0f0000000000000000000000"+
		"0203 10 10 07fe0001 000000000000000000000000"+strings.Repeat("00", 12))
	headers := func(session string, method int) string {
		padded := (method + 3) &^ 3
		return fmt.Sprintf("00000000"+"07fe0000"+"0000000000000000"+"%08x"+session+"00000000"+"00000000"+"00000000"+"%08x"+
			"000000000000"+"0000"+"%08x", 36+padded, 12+padded, method)
	}
	start := "f8" + "a800000000000000ff" + "a8000000000000ff02" + "f0" + "01" + "a80000020500000001" + "01" +
		"f200" + "d020" + hex.EncodeToString([]byte(psid)) + "f3" + "f203" + "a8000000090001ff01" + "f3" + "f1" + "f9f0000000f1"
	revert := "f8" + "a80000020500000001" + "a80000000600000202" + "f0f1" + "f9f0000000f1"
	sync := "f8a800000000000000ffa8000000000000ff03f00182" + "1001" + "f1f9f0000000f1"
	tests := []struct {
		name, first, second string
		later               bool // the answer is there at the second question only
		want                string
	}{
		{"it is reverted", sync, "f0f1f9f0000000f1", false, ""},
		{"it takes its time", sync, "f0f1f9f0000000f1", true, ""},
		{"another PSID", "f8a800000000000000ffa8000000000000ff03f00100f1f9f0010000f1", "", false, "status 01h"},
		{"too many wrong ones", "f8a800000000000000ffa8000000000000ff03f00100f1f9f0120000f1", "", false, "status 12h"},
		{"no session", "f0f1f9f0000000f1", "", false, "no session"},
		{"no status", sync, "f0f1", false, "without a status"},
		{"cut off", sync, "f0f1f9f00000a8", false, "cut off"},
		{"it fails", sync, "f0f1f9f03f0000f1", false, "status 3Fh"},
	}
	for _, tt := range tests {
		var answers [][]byte
		dev := &scripted{}
		for _, a := range []string{tt.first, tt.second} {
			if tt.later && a == tt.second {
				answers = append(answers, append(unhex(t, "00000000 07fe0000 00000001 00000000 00000000"), make([]byte, 100)...))
			}
			answers = append(answers, unhex(t, headers(strings.Repeat("0", 16), len(a)/2)+a+"000000"))
		}
		var out []string
		dev.scsi = func(c SCSICommand) (SCSIResult, error) {
			switch {
			case c.Direction == ToDrive:
				out = append(out, hex.EncodeToString(c.Data))
			case c.CDB[3] == 1:
				return SCSIResult{Residual: len(c.Data) - copy(c.Data, level0)}, nil
			case len(answers) == 0: // to the end of the session
				return SCSIResult{Residual: len(c.Data) - copy(c.Data, unhex(t, headers("0000100100000001", 1)+"fa000000"))}, nil
			default:
				n := copy(c.Data, answers[0])
				answers = answers[1:]
				return SCSIResult{Residual: len(c.Data) - n}, nil
			}
			return SCSIResult{}, nil
		}
		waits := 0
		err := (&Drive{SCSI: &SCSI{dev, allow}, dev: dev, permit: allow}).Revert(Permit{}, psid, func() error { waits++; return nil })
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) || (waits > 0) != tt.later {
			t.Errorf("%s: %v, %d waits, want %q", tt.name, err, waits, tt.want)
		}
		whole := func(session, method string) string {
			b := headers(session, len(method)/2) + method
			return b + strings.Repeat("0", 1024-len(b))
		}
		if out[0] != whole("0000000000000000", start) || len(out) > 1 && out[1] != whole("0000100100000001", revert) ||
			len(out) > 2 && out[2] != whole("0000100100000001", "fa") ||
			(len(out) > 2) != (len(out) > 1 && tt.want != "") {
			t.Errorf("%s: sent %q", tt.name, out)
		}
		if dev.sent[1] != "b50107fe0000"+"00000200"+"0000 "+out[0] || dev.sent[2] != "a20107fe0000"+"00000800"+"0000" {
			t.Errorf("%s: sent %.40q", tt.name, dev.sent)
		}
	}
	if s := fmt.Sprintf("%v %+v %#v %s", PSID(psid), PSID(psid), PSID(psid), PSID(psid)); s != "[secret] [secret] [secret] [secret]" {
		t.Error(s)
	}
	for _, p := range []PSID{"", PSID(strings.Repeat("x", 1024))} {
		if err := (&Drive{permit: allow}).Revert(Permit{}, p, nil); err == nil {
			t.Errorf("a PSID of %d characters", len(p))
		}
	}
	dev := &scripted{}
	if err := (&Drive{SCSI: &SCSI{dev, allow}, dev: dev, permit: allow}).Revert(Permit{}, "x", nil); err == nil {
		t.Error("a drive that does not encrypt")
	}
	stop := errors.New("stop")
	if _, _, err := unpack(make([]byte, 10)); err == nil || errors.Is(err, stop) {
		t.Error(err)
	}
}

// TestRevertEnterpriseBytes holds the same for a drive of the Enterprise SSC, as sedutil builds it: a session that nobody has authorized,
// the PSID as a challenge, and RevertSP.
func TestRevertEnterpriseBytes(t *testing.T) {
	const psid = "0123456789ABCDEF0123456789ABCDEF"
	start := "f8" + "a800000000000000ff" + "a8000000000000ff02" + "f0" + "01" + "a80000020500000001" + "01" +
		"f2" + "ae" + hex.EncodeToString([]byte("SessionTimeout")) + "82ea60" + "f3" + "f1" + "f9f0000000f1"
	authenticate := "f8" + "a80000000000000001" + "a8000000060000000c" + "f0" + "a8000000090001ff01" +
		"f2" + "a9" + hex.EncodeToString([]byte("Challenge")) + "d020" + hex.EncodeToString([]byte(psid)) + "f3" + "f1" + "f9f0000000f1"
	revert := "f8" + "a80000000000000001" + "a80000000600000011" + "f0f1" + "f9f0000000f1"
	sync, yes, no := "f8a800000000000000ffa8000000000000ff03f00182"+"1001"+"f1f9f0000000f1", "f001f1f9f0000000f1", "f000f1f9f0000000f1"
	for _, tt := range []struct {
		name    string
		answers []string
		sent    []string
		want    string
	}{
		{"it is reverted", []string{sync, yes, "f0f1f9f0000000f1"}, []string{start, authenticate, revert}, ""},
		{"another PSID", []string{sync, no, "fa"}, []string{start, authenticate, "fa"}, "status 01h"},
		{"it has no PSID", []string{sync, "f0f1f9f0010000f1", "fa"}, []string{start, authenticate, "fa"}, "status 01h"},
		{"it says nothing", []string{sync, "f0f1f9f0000000f1", "fa"}, []string{start, authenticate, "fa"}, "status 01h"},
		{"too many wrong ones", []string{sync, "f0f1f9f0120000f1", "fa"}, []string{start, authenticate, "fa"}, "status 12h"},
		{"it does not revert", []string{sync, yes, "f0f1f9f03f0000f1", "fa"}, []string{start, authenticate, revert, "fa"}, "status 3Fh"},
		{"no session", []string{"f0f1f9f0070000f1"}, []string{start}, "status 07h"},
	} {
		var sent []string
		dev := &scripted{scsi: func(c SCSICommand) (SCSIResult, error) {
			b := unhex(t, "00000050 00000001 0000000000000000"+strings.Repeat("00", 32)+"0002 10 0c 0f0000000000000000000000"+
				"0100 10 10 07fe0001 000000000000000000000000")
			switch {
			case c.Direction == ToDrive:
				n := int(c.Data[54])<<8 | int(c.Data[55])
				sent = append(sent, hex.EncodeToString(c.Data[56:56+n]))
				return SCSIResult{}, nil
			case c.CDB[3] != 1:
				a := unhex(t, tt.answers[len(sent)-1])
				b = append(make([]byte, 56), a...)
				b[55] = byte(len(a))
			}
			return SCSIResult{Residual: len(c.Data) - copy(c.Data, b)}, nil
		}}
		err := (&Drive{SCSI: &SCSI{dev, allow}, dev: dev, permit: allow}).Revert(Permit{}, psid, func() error { return nil })
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if strings.Join(sent, "\n") != strings.Join(tt.sent, "\n") {
			t.Errorf("%s: sent\n%s\nwant\n%s", tt.name, strings.Join(sent, "\n"), strings.Join(tt.sent, "\n"))
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add([]byte{0xf8, 0xa8, 1, 2, 3, 4, 5, 6, 7, 8, 0xd0, 1, 9, 0xe2, 0, 0, 1, 7, 0xf9, 0xff, 0x82, 1, 2})
	f.Fuzz(func(t *testing.T, method []byte) {
		b := packet(1, 2, append(method, tokenEndOfData, tokenStartList, 0, 0, 0, tokenEndList))
		answer, ready, err := unpack(b)
		if err == nil && !ready {
			t.Error("a packet that says that there is more")
		}
		if _, err := answer.session(); err == nil && answer.err() != nil {
			t.Error("a session without a status")
		}
	})
}
