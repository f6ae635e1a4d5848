package drive

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// scripted is a device that answers from a script and writes down what was sent.
type scripted struct {
	sent   []string // hexadecimal, with the data that went to the drive behind a space
	nvme   func(NVMeCommand) (NVMeResult, error)
	scsi   func(SCSICommand) (SCSIResult, error)
	mmc    func(...MMCCommand) ([]uint32, error)
	resets int
	state  State
}

func (s *scripted) NVMe(c NVMeCommand) (NVMeResult, error) {
	b := c.Submission()
	s.sent = append(s.sent, hex.EncodeToString(b[:]))
	if s.nvme == nil {
		return NVMeResult{}, errors.ErrUnsupported
	}
	return s.nvme(c)
}

func (s *scripted) SCSI(c SCSICommand) (SCSIResult, error) {
	line := hex.EncodeToString(c.CDB)
	if c.Direction == ToDrive {
		line += " " + hex.EncodeToString(c.Data)
	}
	s.sent = append(s.sent, line)
	if s.scsi == nil {
		return SCSIResult{}, nil
	}
	return s.scsi(c)
}

func (s *scripted) MMC(cs ...MMCCommand) ([]uint32, error) {
	line := ""
	for _, c := range cs {
		line += hex.EncodeToString(c.frame())
	}
	s.sent = append(s.sent, line)
	if s.mmc == nil {
		return nil, errors.ErrUnsupported
	}
	return s.mmc(cs...)
}

func (s *scripted) Reset() error { s.resets++; return nil }

func (s *scripted) State() (State, error) { return s.state, nil }

func allow(Permit) error { return nil }

func password(t *testing.T) Password {
	t.Helper()
	p, err := NewPassword([]byte("pw"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// block returns the hexadecimal digits of a security command's data.
func block(first string) string {
	return first + "00" + "7077" + strings.Repeat("00", 508)
}

// TestSCSIBytes holds each command block of SCSI and ATA, byte by byte, as the standards of doc.go draw them.
func TestSCSIBytes(t *testing.T) {
	hpa := Identify{HPA: true, LBA48: true}
	small := Identify{HPA: true}
	pattern := Pattern{Word: 0x11223344, Passes: 3, Invert: true}
	pass := strings.Repeat("00", 8)
	tests := []struct {
		name string
		do   func(*SCSI, *ATA) error
		want []string
	}{
		{"INQUIRY", func(s *SCSI, _ *ATA) error { _, err := s.Inquiry(); return err }, []string{"120000006000"}},
		{"page 80h", func(s *SCSI, _ *ATA) error { _, err := s.Page(0x80); return err }, []string{"12018000fc00"}},
		{"page B1h", func(s *SCSI, _ *ATA) error { _, err := s.Rotation(); return err }, []string{"1201b100fc00"}},
		{"READ CAPACITY (16)", func(s *SCSI, _ *ATA) error { _, err := s.Capacity(); return err },
			[]string{"9e100000000000000000" + "00000020" + "0000"}},
		{"REPORT SUPPORTED OPERATION CODES", func(s *SCSI, _ *ATA) error { _, err := s.Supports(0x04, -1); return err },
			[]string{"a30c01040000" + "00000040" + "0000"}},
		{"the same with a service action", func(s *SCSI, _ *ATA) error { _, err := s.Supports(0x48, 3); return err },
			[]string{"a30c02480003" + "00000040" + "0000"}},
		{"REQUEST SENSE", func(s *SCSI, _ *ATA) error { _, err := s.Operation(); return err }, []string{"03010000fc00"}},
		{"SANITIZE cryptographic erase", func(s *SCSI, _ *ATA) error { return s.Sanitize(Permit{}, CryptoErase, Pattern{}) },
			[]string{"48830000000000000000"}},
		{"SANITIZE block erase", func(s *SCSI, _ *ATA) error { return s.Sanitize(Permit{}, BlockErase, Pattern{}) },
			[]string{"48820000000000000000"}},
		{"SANITIZE overwrite", func(s *SCSI, _ *ATA) error { return s.Sanitize(Permit{}, Overwrite, pattern) },
			[]string{"48810000000000000800 8300000411223344"}},
		{"SANITIZE exit failure mode", func(s *SCSI, _ *ATA) error { return s.ExitFailureMode(Permit{}) }, []string{"481f0000000000000000"}},
		{"FORMAT UNIT", func(s *SCSI, _ *ATA) error { return s.Format(Permit{}) }, []string{"041000000000 00020000"}},

		{"IDENTIFY DEVICE", func(_ *SCSI, a *ATA) error { _, err := a.Identify(); return err },
			[]string{"85080e00000001" + "000000000000" + "00ec00"}},
		{"CRYPTO SCRAMBLE EXT", func(_ *SCSI, a *ATA) error { return a.Sanitize(Permit{}, CryptoErase, Pattern{}) },
			[]string{"85072000110000" + "43" + "70" + "00" + "79" + "00" + "72" + "40b400"}},
		{"BLOCK ERASE EXT", func(_ *SCSI, a *ATA) error { return a.Sanitize(Permit{}, BlockErase, Pattern{}) },
			[]string{"85072000120000" + "42" + "72" + "00" + "45" + "00" + "6b" + "40b400"}},
		{"OVERWRITE EXT", func(_ *SCSI, a *ATA) error { return a.Sanitize(Permit{}, Overwrite, pattern) },
			[]string{"85072000140083" + "11" + "44" + "57" + "33" + "4f" + "22" + "40b400"}},
		{"SANITIZE STATUS EXT", func(_ *SCSI, a *ATA) error { _, err := a.SanitizeStatus(); return err },
			[]string{"85072000000000" + "000000000000" + "40b400"}},
		{"SECURITY SET PASSWORD", func(_ *SCSI, a *ATA) error { return a.SetPassword(Permit{}, password(t)) },
			[]string{"850a060000000100" + "0000000000" + "00f100 " + block("00")}},
		{"SECURITY UNLOCK", func(_ *SCSI, a *ATA) error { return a.Unlock(Permit{}, password(t)) },
			[]string{"850a060000000100" + "0000000000" + "00f200 " + block("00")}},
		{"SECURITY DISABLE PASSWORD", func(_ *SCSI, a *ATA) error { return a.DisablePassword(Permit{}, password(t)) },
			[]string{"850a060000000100" + "0000000000" + "00f600 " + block("00")}},
		{"SECURITY ERASE UNIT", func(_ *SCSI, a *ATA) error { return a.SecureErase(Permit{}, password(t), false, time.Hour) },
			[]string{"850620000000" + pass[:14] + "00f300", "850a060000000100" + "0000000000" + "00f400 " + block("00")}},
		{"SECURITY ERASE UNIT, enhanced", func(_ *SCSI, a *ATA) error { return a.SecureErase(Permit{}, password(t), true, time.Hour) },
			[]string{"850620000000" + pass[:14] + "00f300", "850a060000000100" + "0000000000" + "00f400 " + block("02")}},
		{"READ NATIVE MAX ADDRESS EXT", func(_ *SCSI, a *ATA) error { _, err := a.NativeSectors(hpa); return err },
			[]string{"85072000000000" + "000000000000" + "402700"}},
		{"READ NATIVE MAX ADDRESS", func(_ *SCSI, a *ATA) error { _, err := a.NativeSectors(small); return err },
			[]string{"85062000000000" + "000000000000" + "40f800"}},
		{"GET NATIVE MAX ADDRESS EXT", func(_ *SCSI, a *ATA) error { _, err := a.NativeSectors(Identify{AccessibleMax: true}); return err },
			[]string{"85072000000000" + "000000000000" + "407800"}},
		{"SET MAX ADDRESS EXT", func(_ *SCSI, a *ATA) error { return a.SetSectors(Permit{}, hpa, 0x060504030201+1) },
			[]string{"85072000000000" + "000000000000" + "402700", "85072000000000" + "04" + "01" + "05" + "02" + "06" + "03" + "403700"}},
		{"SET MAX ADDRESS", func(_ *SCSI, a *ATA) error { return a.SetSectors(Permit{}, small, 0x04030201+1) },
			[]string{"85062000000000" + "000000000000" + "40f800", "85062000000000" + "00" + "01" + "00" + "02" + "00" + "03" + "44f900"}},
		{"SECURITY PROTOCOL IN", func(s *SCSI, _ *ATA) error { _, _, err := (&Drive{SCSI: s, dev: s.dev}).Locking(); return err },
			[]string{"a20100010000" + "00000200" + "0000"}},
		{"READ DEFECT DATA (12)", func(s *SCSI, _ *ATA) error { _, _, err := s.reallocated(); return err }, []string{"b70800000000000000080000"}},
		{"SMART READ DATA", func(_ *SCSI, a *ATA) error { _, _, err := a.reallocated(); return err },
			[]string{"85080e00d00001" + "00" + "00" + "00" + "4f" + "00" + "c2" + "00b000"}},
		{"DEVICE CONFIGURATION IDENTIFY", func(_ *SCSI, a *ATA) error { _, err := a.FactorySectors(); return err },
			[]string{"85080e00c20001" + "000000000000" + "00b100"}},
		{"DEVICE CONFIGURATION RESTORE", func(_ *SCSI, a *ATA) error { return a.RestoreConfiguration(Permit{}) },
			[]string{"85062000c00000" + "000000000000" + "40b100"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dev := &scripted{}
			err := tt.do(&SCSI{dev, allow}, &ATA{dev, allow})
			if !reflect.DeepEqual(dev.sent, tt.want) {
				t.Errorf("sent %q\nwant %q (error %v)", dev.sent, tt.want, err)
			}
		})
	}
}

// TestNVMeBytes holds each submission queue entry.
func TestNVMeBytes(t *testing.T) {
	// Index 5 and 1<<4, metadata with the data; protection type 2, first bytes.
	ns := Namespace{ID: 2, BlockSize: 512, Format: 0x35, Protection: 0x0a}
	entry := func(opcode, nsid, cdw10, cdw11 string) string {
		return opcode + "000000" + nsid + strings.Repeat("00", 32) + cdw10 + cdw11 + strings.Repeat("00", 16)
	}
	sanitize := func(o SanitizeOptions) func(*NVMe) error {
		return func(n *NVMe) error { return n.Sanitize(Permit{whole: true}, o) }
	}
	tests := []struct {
		name string
		do   func(*NVMe) error
		want string
	}{
		{"Identify Controller", func(n *NVMe) error { _, err := n.Controller(); return err }, entry("06", "00000000", "01000000", "00000000")},
		{"Identify Namespace", func(n *NVMe) error { _, err := n.identify(cnsNamespace, 7); return err },
			entry("06", "07000000", "00000000", "00000000")},
		{"active namespaces", func(n *NVMe) error { _, err := n.Active(); return err }, entry("06", "00000000", "02000000", "00000000")},
		{"allocated namespaces", func(n *NVMe) error { _, err := n.Allocated(); return err }, entry("06", "00000000", "10000000", "00000000")},
		{"Sanitize Status", func(n *NVMe) error { _, err := n.SanitizeLog(); return err }, entry("02", "ffffffff", "81807f00", "00000000")},
		{"crypto erase", sanitize(SanitizeOptions{Erasure: CryptoErase}), entry("84", "00000000", "04000000", "00000000")},
		{"block erase, kept allocated", sanitize(SanitizeOptions{Erasure: BlockErase, KeepAllocated: true}),
			entry("84", "00000000", "02020000", "00000000")},
		{"block erase, verified, purge or fail", sanitize(SanitizeOptions{Erasure: BlockErase, Verify: true, Purge: true}),
			entry("84", "00000000", "020c0000", "00000000")},
		{"overwrite", sanitize(SanitizeOptions{Erasure: Overwrite, Pattern: Pattern{Word: 0x11223344, Passes: 3, Invert: true}}),
			entry("84", "00000000", "33010000", "44332211")},
		{"exit failure mode", func(n *NVMe) error { return n.ExitFailureMode(Permit{}) }, entry("84", "00000000", "01000000", "00000000")},
		{"exit media verification", func(n *NVMe) error { return n.EndVerification(Permit{}) }, entry("84", "00000000", "05000000", "00000000")},
		{"Security Receive", func(n *NVMe) error { return n.send(securityReceive(comDiscovery, make([]byte, 512))) },
			entry("82", "00000000", "00010001", "00020000")},
		{"Format, user data", func(n *NVMe) error { return n.Format(Permit{whole: true}, ns, false, time.Hour) },
			entry("80", "02000000", "55130000", "00000000")},
		{"Format, cryptographic", func(n *NVMe) error { return n.Format(Permit{whole: true}, ns, true, time.Hour) },
			entry("80", "02000000", "55150000", "00000000")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dev := &scripted{nvme: func(NVMeCommand) (NVMeResult, error) { return NVMeResult{}, nil }}
			err := tt.do(&NVMe{dev, allow})
			if n := len(dev.sent); n == 0 || dev.sent[n-1] != tt.want {
				t.Errorf("sent %q\nwant %q (error %v)", dev.sent, tt.want, err)
			}
			for _, s := range dev.sent[:max(0, len(dev.sent)-1)] { // Format asks the controller first
				if s != entry("06", "00000000", "01000000", "00000000") {
					t.Errorf("sent %s before", s)
				}
			}
		})
	}
}

// TestNothingIsSent fails for a command that must not be sent: without an erasure, without passes, for all namespaces, with a password
// that is none, or a password through a bridge.
func TestNothingIsSent(t *testing.T) {
	dev := &scripted{nvme: func(NVMeCommand) (NVMeResult, error) { return NVMeResult{}, nil }, state: State{USB: true}}
	s, a, n := &SCSI{dev, allow}, &ATA{dev, allow}, &NVMe{dev, allow}
	for name, err := range map[string]error{
		"SCSI, no erasure":    s.Sanitize(Permit{}, 0, Pattern{}),
		"SCSI, no passes":     s.Sanitize(Permit{}, Overwrite, Pattern{}),
		"ATA, no erasure":     a.Sanitize(Permit{}, 0, Pattern{}),
		"ATA, 16 passes":      a.Sanitize(Permit{}, Overwrite, Pattern{Passes: 16}),
		"NVMe, no erasure":    n.Sanitize(Permit{}, SanitizeOptions{}),
		"NVMe, no passes":     n.Sanitize(Permit{}, SanitizeOptions{Erasure: Overwrite}),
		"NVMe, kept, looked":  n.Sanitize(Permit{}, SanitizeOptions{Erasure: BlockErase, KeepAllocated: true, Verify: true}),
		"NVMe, no namespace":  n.Format(Permit{}, Namespace{}, true, 0),
		"NVMe, all":           n.Format(Permit{}, Namespace{ID: allNamespaces, BlockSize: 512}, true, 0),
		"ATA, no area":        a.SetSectors(Permit{}, Identify{}, 1),
		"ATA, no sectors":     a.SetSectors(Permit{}, Identify{HPA: true}, 0),
		"set password by USB": a.SetPassword(Permit{}, password(t)),
		"erase by USB":        a.SecureErase(Permit{}, password(t), true, 0),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if len(dev.sent) != 0 {
		t.Errorf("sent %q", dev.sent)
	}
	for _, b := range [][]byte{nil, make([]byte, 32), make([]byte, 33)} {
		if _, err := NewPassword(b); err == nil {
			t.Errorf("a password of %d zeros is none", len(b))
		}
	}
}
