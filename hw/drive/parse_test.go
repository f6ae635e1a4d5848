package drive

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"

	"gprovision/model/edit"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestKernelStructures(t *testing.T) {
	if n := unsafe.Sizeof(nvmePassthru{}); n != 72 {
		t.Errorf("struct nvme_passthru_cmd has %d bytes", n)
	}
	if n := unsafe.Sizeof(sgHeader{}); unsafe.Sizeof(uintptr(0)) == 8 && n != 88 {
		t.Errorf("struct sg_io_hdr has %d bytes", n)
	}
	if n := unsafe.Sizeof(mmcCommand{}); n != 72 {
		t.Errorf("struct mmc_ioc_cmd has %d bytes", n)
	}
}

func TestParseSense(t *testing.T) {
	tests := []struct {
		name, hex string
		want      Sense
	}{
		{"fixed, sanitize in progress", "70 00 02 00000000 0a 00000000 04 1b 00 80 4000",
			Sense{Key: 2, ASC: 0x04, ASCQ: 0x1b, Progress: 0x4000, HasProgress: true}},
		{"descriptors, sanitize in progress", "72 02 04 1b 000000 08 02 06 0000 80 8000 00",
			Sense{Key: 2, ASC: 0x04, ASCQ: 0x1b, Progress: 0x8000, HasProgress: true}},
		{"progress of another kind", "72 00 04 1b 000000 08 0a 06 02 04 1b 00 1234",
			Sense{ASC: 0x04, ASCQ: 0x1b, Progress: 0x1234, HasProgress: true}},
		{"the field pointer of an illegal request is no progress", "70 00 05 00000000 0a 00000000 24 00 00 c0 0001", Sense{Key: 5, ASC: 0x24}},
		{"sanitize failed", "72 03 31 03 00000000", Sense{Key: 3, ASC: 0x31, ASCQ: 0x03}},
		{"ATA, descriptor", "72 01 00 1d 000000 0e 09 0c 01 04 c0 05 06 0b 07 0c 08 0d 40 50",
			Sense{Key: 1, ASCQ: 0x1d, HasATA: true,
				ATA: Registers{Status: 0x50, Error: 0x04, Device: 0x40, Count: 0xc005, LBA: 0x0807060d0c0b, Upper: true}}},
		{"ATA, descriptor of a 28-bit command", "72 01 00 1d 000000 0e 09 0c 00 00 ff 05 ff 0b ff 0c ff 0d 40 50",
			Sense{Key: 1, ASCQ: 0x1d, HasATA: true, ATA: Registers{Status: 0x50, Device: 0x40, Count: 5, LBA: 0x0d0c0b, Upper: true}}},
		{"ATA, fixed, as SAT has it", "f0 00 0b 04 51 40 05 0a e00b0c0d 00 00 00 000000",
			Sense{Key: 0x0b, HasATA: true, ATA: Registers{Status: 0x51, Error: 0x04, Device: 0x40, Count: 5, LBA: 0x0d0c0b}}},
		{"ATA, fixed, as Linux 6.1 has it for an aborted SANITIZE DEVICE of QEMU's disk", "70000b000000000a0441400000000000a072",
			Sense{Key: 0x0b, HasATA: true, ATA: Registers{Status: 0x41, Error: 0x04, Device: 0x40, LBA: 0x72}}},
		{"ATA, descriptor, as Linux 6.1 has it for READ NATIVE MAX ADDRESS EXT", "7201001d0000000e090c0100000000ff00ff00014050",
			Sense{Key: 1, ASCQ: 0x1d, HasATA: true, ATA: Registers{Status: 0x50, Device: 0x40, LBA: 0x1ffff, Upper: true}}},
		{"a bridge that does not know the command", "70 00 05 00005051 0a 50515051 20 00 00 000000", Sense{Key: 5, ASC: 0x20}},
		{"cut off in a descriptor", "72 01 00 1d 000000 0e 09 0c 01", Sense{Key: 1, ASCQ: 0x1d}},
	}
	for _, tt := range tests {
		got, ok := ParseSense(unhex(t, tt.hex))
		if !ok || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v %t\nwant %+v", tt.name, got, ok, tt.want)
		}
	}
	for _, b := range [][]byte{nil, {0x70}, {0x72, 1}, {0x00, 0, 0, 0}, {0x7f, 0, 0, 0}} {
		if s, ok := ParseSense(b); ok {
			t.Errorf("% x is no sense data: %+v", b, s)
		}
	}
}

func FuzzParseSense(f *testing.F) {
	f.Add([]byte{0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 4, 0x1b, 0, 0x80, 1, 2})
	f.Add([]byte{0x72, 1, 0, 0x1d, 0, 0, 0, 14, 9, 12, 1, 4, 0xc0, 5, 6, 11, 7, 12, 8, 13, 0x40, 0x50})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := ParseSense(b)
		if !ok && s != (Sense{}) {
			t.Errorf("no sense data, and %+v", s)
		}
		if s.HasATA && !s.ATA.Upper && s.ATA.Status&0x40 == 0 {
			t.Errorf("a drive that is not ready has answered: %+v", s)
		}
	})
}

// identifyData is a disk with all that is read of it.
func identifyData() []byte {
	b := make([]byte, 512)
	put := func(word int, v uint16) { binary.LittleEndian.PutUint16(b[2*word:], v) }
	chars := func(first, last int, s string) {
		for len(s) < 2*(last-first+1) {
			s += " "
		}
		for i := range last - first + 1 {
			put(first+i, uint16(s[2*i])<<8|uint16(s[2*i+1]))
		}
	}
	put(0, 0x0040)
	chars(10, 19, "SER 0123456789")
	chars(23, 26, "FW1.0")
	chars(27, 46, "ACME Disk 2000")
	put(59, 0xf000)
	put(60, 0xffff)
	put(61, 0x0fff)
	put(82, 1<<10|1<<1)
	put(83, 1<<14|1<<10|1<<11)
	put(84, 1<<14|1<<8)
	put(89, 0x8000|137) // 274 minutes
	put(90, 0x00ff)
	binary.LittleEndian.PutUint64(b[200:], 1<<31)
	put(106, 1<<14|1<<12)
	for i, w := range []uint16{0x5000, 0xc500, 0xa1b2, 0xc3d4} {
		put(108+i, w)
	}
	put(117, 2048)
	put(119, 1<<14|1<<8)
	put(128, 1<<0|1<<3|1<<5)
	put(217, 7200)
	return seal(b)
}

// seal makes the checksum right.
func seal(b []byte) []byte {
	b[510], b[511] = 0xa5, 0
	var sum byte
	for _, c := range b {
		sum += c
	}
	b[511] = -sum
	return b
}

func TestParseIdentify(t *testing.T) {
	b := identifyData()
	got, err := ParseIdentify(b)
	if err != nil {
		t.Fatal(err)
	}
	want := Identify{
		Model: "ACME Disk 2000", Serial: "SER 0123456789", Firmware: "FW1.0", Sectors: 1 << 31, SectorSize: 4096,
		LBA48: true, HPA: true, DCO: true, AccessibleMax: true, Rotation: 7200, WWN: 0x5000c500a1b2c3d4,
		Sanitize: []Erasure{CryptoErase, BlockErase, Overwrite}, Raw: b,
		Security: Security{
			Supported: true, Frozen: true, Enhanced: true, EraseTime: 274 * time.Minute, EnhancedTime: 510 * time.Minute, TimesAreFloor: true,
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	for name, change := range map[string]func([]byte) []byte{
		"short":            func(b []byte) []byte { return b[:511] },
		"wrong checksum":   func(b []byte) []byte { b[100]++; return b },
		"a packet device":  func(b []byte) []byte { b[1] |= 0x80; return seal(b) },
		"no sectors":       func(b []byte) []byte { clear(b[120:124]); clear(b[200:208]); return seal(b) },
		"sectors of 2 GiB": func(b []byte) []byte { b[237] = 0x40; return seal(b) },
	} {
		if id, err := ParseIdentify(change(identifyData())); err == nil {
			t.Errorf("%s: %+v", name, id)
		}
	}
	// Words 83 and 119 count only if they say that they are valid; without word 59, bit 12, there is no sanitize.
	b = identifyData()
	b[167] &^= 0x40
	b[239] &^= 0x40
	b[119] &^= 0x10
	got, err = ParseIdentify(seal(b))
	if err != nil || got.LBA48 || got.HPA || got.DCO || got.AccessibleMax || got.Sanitize != nil || got.Sectors != 0x0fffffff {
		t.Errorf("%+v %v", got, err)
	}
}

func FuzzParseIdentify(f *testing.F) {
	for _, s := range edit.Scripts() {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, script []byte, sealed bool) {
		b := edit.Apply(identifyData(), script)
		if sealed && len(b) >= 512 {
			b = seal(b[:512])
		}
		id, err := ParseIdentify(b)
		if err != nil {
			return
		}
		if id.Sectors == 0 || id.Sectors > 1<<48 || id.SectorSize < 512 || len(id.Model) > 40 || len(id.Serial) > 20 || len(id.Sanitize) > 3 {
			t.Errorf("%+v", id)
		}
	})
}

// controllerData is a controller with all that is read of it.
func controllerData() []byte {
	b := make([]byte, 4096)
	copy(b[4:], "S1234               ACME NVMe 1T                            FW 2.1  ")
	binary.LittleEndian.PutUint32(b[80:], 0x00010400)
	binary.LittleEndian.PutUint16(b[256:], 1<<1|1<<3)
	binary.LittleEndian.PutUint64(b[296:], 4096)
	binary.LittleEndian.PutUint32(b[328:], 0b1101)
	binary.LittleEndian.PutUint32(b[516:], 32)
	b[524] = 1<<2 | 1<<1
	return b
}

func namespaceData() []byte {
	b := make([]byte, 4096)
	for i, v := range []uint64{1 << 20, 1 << 19, 1 << 18} {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	b[26], b[29] = 0x21, 0x0a                              // format 1 + 1<<4
	binary.LittleEndian.PutUint32(b[128+4*17:], 12<<16|16) // 4,096 bytes and 16 beside
	return b
}

func sanitizeData() []byte {
	b := make([]byte, 512)
	copy(b, []byte{0xff, 0xff, 0x19, 0x03, 0x33, 1, 0, 0})
	for i, v := range []uint32{3600, 0xffffffff, 2} {
		binary.LittleEndian.PutUint32(b[8+4*i:], v)
	}
	return b
}

func TestParseNVMe(t *testing.T) {
	c, err := ParseController(controllerData())
	if err != nil {
		t.Fatal(err)
	}
	if c.Model != "ACME NVMe 1T" || c.Serial != "S1234" || c.Firmware != "FW 2.1" || c.Version != 0x00010400 || c.NN != 32 ||
		c.Unallocated != 4096 {
		t.Errorf("%+v", c)
	}
	if got := c.Erasures(); !reflect.DeepEqual(got, []Erasure{CryptoErase, Overwrite}) {
		t.Errorf("erasures %v", got)
	}
	if !c.CanVerify() || !c.CanKeepAllocated() || !c.CanFormat() || !c.CanManage() || !c.CanFormatCrypto() || !c.FormatsAll() {
		t.Errorf("%+v", c)
	}
	ns, err := ParseNamespace(3, namespaceData())
	if err != nil || ns.ID != 3 || ns.Blocks != 1<<20 || ns.Capacity != 1<<19 || ns.Used != 1<<18 ||
		ns.BlockSize != 4096 || ns.Metadata != 16 || ns.lbaFormat() != 17 {
		t.Errorf("%+v %v", ns, err)
	}
	if _, err := ParseNamespace(3, make([]byte, 4096)); err == nil {
		t.Error("a namespace that is not there")
	}
	l, err := ParseSanitizeLog(sanitizeData())
	if err != nil || l.State() != Sanitized || !l.GlobalDataErased() || !l.VerificationCanceled() ||
		l.Passes() != 3 || l.CDW10 != 0x133 || l.Progress != 0xffff {
		t.Errorf("%+v %v", l, err)
	}
	if l.Purged() || l.Verifying() {
		t.Errorf("%+v", l)
	}
	b := sanitizeData()
	b[2], b[3], b[36] = 0x02, 0x08, 0x05
	if l, err := ParseSanitizeLog(b); err != nil || !l.Purged() || !l.Verifying() {
		t.Errorf("%+v %v", l, err)
	}
	if l.Overwrite != time.Hour || l.BlockErase != 0 || l.CryptoErase != 2*time.Second {
		t.Errorf("%+v", l)
	}
}

func FuzzParseNVMe(f *testing.F) {
	for _, s := range edit.Scripts() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		c, err := ParseController(edit.Apply(controllerData(), script))
		if err == nil && (len(c.Model) > 40 || len(c.Serial) > 20 || len(c.Erasures()) > 3) {
			t.Errorf("%+v", c)
		}
		if ns, err := ParseNamespace(1, edit.Apply(namespaceData(), script)); err == nil && (ns.Blocks == 0 || ns.BlockSize < 512) {
			t.Errorf("%+v", ns)
		}
		if l, err := ParseSanitizeLog(edit.Apply(sanitizeData(), script)); err == nil && (l.Passes() > 31 || l.State() > 7) {
			t.Errorf("%+v", l)
		}
	})
}

func FuzzNamespaceList(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0}, uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, after uint32) {
		list, err := parseNamespaceList(b, after)
		if err != nil {
			return
		}
		for _, id := range list {
			if id <= after {
				t.Errorf("%d after %d", id, after)
			}
			after = id
		}
	})
}

// TestNamespaceLists reads a list of more than one part, and ends at one that repeats itself.
func TestNamespaceLists(t *testing.T) {
	lists := func(of func(after uint32, i int) uint32) *NVMe {
		return &NVMe{&scripted{nvme: func(c NVMeCommand) (NVMeResult, error) {
			for i := range 1024 {
				if id := of(c.NSID, i); id <= 1500 {
					binary.LittleEndian.PutUint32(c.Data[4*i:], id)
				}
			}
			return NVMeResult{}, nil
		}}, allow}
	}
	all, err := lists(func(after uint32, i int) uint32 { return after + uint32(i) + 1 }).Active()
	if err != nil || len(all) != 1500 || all[1499] != 1500 {
		t.Errorf("%d namespaces, %v", len(all), err)
	}
	if _, err := lists(func(_ uint32, i int) uint32 { return uint32(i) + 1 }).Allocated(); err == nil {
		t.Error("a list that begins again is read for ever")
	}
}

func TestParseSCSI(t *testing.T) {
	b := make([]byte, 96)
	copy(b[8:], "ACME    Disk 3000       R1.2")
	i, err := ParseInquiry(b)
	if err != nil || i.Vendor != "ACME" || i.Product != "Disk 3000" || i.Revision != "R1.2" || i.Type != 0 {
		t.Errorf("%+v %v", i, err)
	}
	page, err := ParsePage(0x80, unhex(t, "00 80 0004 20415a39 ffff"))
	if err != nil || text(page) != "AZ9" {
		t.Errorf("%q %v", page, err)
	}
	if _, err := ParsePage(0x83, unhex(t, "00 80 0004 20415a39")); err == nil {
		t.Error("another page")
	}
	names := map[string]string{
		"01 93 0008 5000c500a1b2c3d6 01 03 0008 5000c500a1b2c3d4": "naa.5000c500a1b2c3d4", // that of a port comes first
		"02 01 0004 41434d45": "t10.ACME",
		"01 03 0009 5000":     "",
	}
	for in, want := range names {
		if got := parseName(unhex(t, in)); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
	c, err := parseCapacity(unhex(t, "00000000 000fffff 00001000 01 00 c000"))
	if want := (Capacity{Blocks: 1 << 20, BlockSize: 4096, Protection: true, Thin: true, UnmappedAreZero: true}); err != nil || c != want {
		t.Errorf("%+v %v", c, err)
	}
	for _, in := range []string{"", "ffffffffffffffff 00000200", "0000000000000001 00000000"} {
		if c, err := parseCapacity(unhex(t, in)); err == nil {
			t.Errorf("%q: %+v", in, c)
		}
	}
}

// discovery is that of an Opal 2 drive that is locked: TPer, Locking, Opal 2.
const discovery = "0000004c 00000001 0000000000000000" + "0000000000000000000000000000000000000000000000000000000000000000" +
	"0001 10 0c 110000000000000000000000" + "0002 10 0c 0f0000000000000000000000"

func TestParseLocking(t *testing.T) {
	b := append(unhex(t, discovery), 0xff, 0xff, 0xff, 0xff)
	l, err := ParseLocking(b)
	if err != nil || !l.Supported || !l.Enabled || !l.Locked || !l.Encrypts || fmt.Sprint(l.Features) != "[1 2]" || len(l.Raw) != 80 {
		t.Errorf("%+v %v", l, err)
	}
	b = append(b[:80], unhex(t, "0203 10 10 07fe0001 000000000000000000000000")...)
	b[3] = 96
	if l, err := ParseLocking(b); err != nil || l.ComID != 0x07fe || !l.Locked {
		t.Errorf("%+v %v", l, err)
	}
	b[68] = 0x09
	if l, err := ParseLocking(b); err != nil || !l.Supported || l.Enabled || l.Locked || !l.Encrypts {
		t.Errorf("%+v %v", l, err)
	}
	for features, enterprise := range map[string]bool{
		"0100 10 10 07ff0001 000000000000000000000000" + "0203 10 10 07fe0001 000000000000000000000000": false,
		"0203 10 10 07fe0001 000000000000000000000000" + "0100 10 10 07ff0001 000000000000000000000000": false,
		"0100 10 10 07fe0001 000000000000000000000000":                                                  true,
	} {
		b := append(unhex(t, discovery), unhex(t, features)...)
		b[3] = byte(len(b) - 4)
		if l, err := ParseLocking(b); err != nil || l.ComID != 0x07fe || l.Enterprise != enterprise || !l.Locked {
			t.Errorf("%s: %+v %v", features, l, err)
		}
	}
	for _, b := range [][]byte{nil, make([]byte, 47), make([]byte, 48)} {
		if l, err := ParseLocking(b); err == nil {
			t.Errorf("%d bytes: %+v", len(b), l)
		}
	}
}

func FuzzParseLocking(f *testing.F) {
	f.Add([]byte{0, 0, 0, 60}, []byte{0, 2, 16, 12, 15})
	f.Fuzz(func(t *testing.T, head, features []byte) {
		b := append(append(append([]byte(nil), head...), make([]byte, max(0, 48-len(head)))...), features...)
		if l, err := ParseLocking(b); err == nil && len(l.Features) > (len(b)-48)/4 {
			t.Errorf("%d features in %d bytes", len(l.Features), len(b))
		}
	})
}

func TestParseReallocated(t *testing.T) {
	b := make([]byte, 512)
	copy(b[2:], []byte{1, 0, 0, 100, 100, 9, 9, 9})
	copy(b[14:], []byte{5, 0x33, 0, 100, 100, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0xff})
	var sum byte
	for _, c := range b {
		sum += c
	}
	b[511] = -sum
	if n, known := parseSMART(b); !known || n != 0x665544332211 {
		t.Errorf("%x %t", n, known)
	}
	b[511]++
	if n, known := parseSMART(b); known {
		t.Errorf("a wrong checksum: %x", n)
	}
	if n, known := parseSMART(make([]byte, 512)); known {
		t.Errorf("no attribute: %x", n)
	}
	for in, want := range map[string]uint64{"0008000000000010": 4, "000b000000000010": 2, "000d000000000000": 0} {
		if n, known := parseDefects(unhex(t, in)); !known || n != want {
			t.Errorf("%s: %d %t", in, n, known)
		}
	}
	for _, in := range []string{"", "0000000000000010", "00080000"} {
		if n, known := parseDefects(unhex(t, in)); known {
			t.Errorf("%s: %d", in, n)
		}
	}
}

func FuzzParseSCSI(f *testing.F) {
	f.Add([]byte{0, 0x83, 0, 12, 1, 3, 0, 8, 0x50, 0, 0xc5, 0, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		if i, err := ParseInquiry(b); err == nil && (len(i.Vendor) > 8 || len(i.Product) > 16) {
			t.Errorf("%+v", i)
		}
		if page, err := ParsePage(0x83, b); err == nil && strings.ContainsFunc(parseName(page), func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q", parseName(page))
		}
		if n, known := parseDefects(b); !known && n != 0 {
			t.Errorf("%d defects that are not known", n)
		}
		if n, known := parseSMART(b); !known && n != 0 {
			t.Errorf("%d sectors that are not known", n)
		}
		if c, err := parseCapacity(b); err == nil && (c.Blocks == 0 || c.BlockSize == 0) {
			t.Errorf("%+v", c)
		}
	})
}

// TestATAAnswers tells what a drive answered from what nobody passed on.
func TestATAAnswers(t *testing.T) {
	answer := func(status byte, sense string) *ATA {
		return &ATA{&scripted{scsi: func(SCSICommand) (SCSIResult, error) {
			return SCSIResult{Status: status, Sense: unhex(t, sense)}, nil
		}}, allow}
	}
	s, err := answer(2, "72 01 00 1d 000000 0e 09 0c 01 00 80 00 00 ff 00 ff 00 00 40 50").SanitizeStatus()
	if err != nil || !s.Completed || s.InProgress || s.Failed || s.Progress != 0xffff {
		t.Errorf("completed: %+v %v", s, err)
	}
	s, err = answer(2, "72 01 00 1d 000000 0e 09 0c 01 00 40 00 00 00 00 80 00 00 40 50").SanitizeStatus()
	if err != nil || s.Completed || !s.InProgress || s.Progress != 0x8000 {
		t.Errorf("in progress: %+v %v", s, err)
	}
	s, err = answer(2, "72 0b 00 00 000000 0e 09 0c 01 04 00 00 00 01 00 00 00 00 40 51").SanitizeStatus()
	if err != nil || !s.Failed {
		t.Errorf("failed: %+v %v", s, err)
	}
	for name, a := range map[string]*ATA{
		"good status":                      answer(0, ""),
		"good status and no registers":     answer(2, "72 01 00 1d 00000000"),
		"fixed format has no upper halves": answer(2, "70 00 01 00 50 40 00 0a 80ffff00 00 1d 00 000000"),
	} {
		if s, err := a.SanitizeStatus(); !errors.Is(err, ErrNoRegisters) {
			t.Errorf("%s: %+v %v", name, s, err)
		}
	}
	frozen := ATAError{}
	if s, err := answer(2, "72 0b 00 00 000000 0e 09 0c 01 04 00 00 00 03 00 00 00 00 40 51").SanitizeStatus(); !errors.As(err, &frozen) {
		t.Errorf("another reason: %+v %v", s, err)
	}
	err = answer(2, "70 00 0b 00000000 0a 04 51 40 05 00 00 00 00 00 00 00 00").SetPassword(Permit{}, password(t))
	if !errors.As(err, &frozen) || frozen.Registers.Error != 4 {
		t.Errorf("aborted: %v", err)
	}
	refused := SenseError{}
	if err := answer(2, "70 00 05 00000000 0a 00000000 20 00 00 000000").Sanitize(Permit{}, BlockErase, Pattern{}); !errors.As(err, &refused) {
		t.Errorf("a bridge refused: %v", err)
	}
	for _, sense := range []string{"", "72 05"} {
		if err := answer(2, sense).Sanitize(Permit{}, BlockErase, Pattern{}); !errors.As(err, &refused) {
			t.Errorf("check condition with the sense data %q: %v", sense, err)
		}
	}
	n, err := answer(2, "72 01 00 1d 000000 0e 09 0c 00 00 00 00 00 01 00 02 00 03 44 50").NativeSectors(Identify{HPA: true})
	if err != nil || n != 0x04030201+1 {
		t.Errorf("28 bits: %x %v", n, err)
	}
}

// TestSCSIOperation reads what goes on.
func TestSCSIOperation(t *testing.T) {
	ask := func(status byte, sense string) (Operation, error) {
		return (&SCSI{&scripted{scsi: func(c SCSICommand) (SCSIResult, error) {
			if b := unhex(t, sense); status == 0 {
				return SCSIResult{Residual: len(c.Data) - copy(c.Data, b)}, nil
			}
			return SCSIResult{Status: status, Sense: unhex(t, sense)}, nil
		}}, allow}).Operation()
	}
	o, err := ask(0, "72 02 04 1b 000000 08 02 06 0000 80 8000 00")
	if err != nil || !o.Sanitizing || o.Progress != 0x8000 || o.SanitizeFailed || o.Formatting {
		t.Errorf("%+v %v", o, err)
	}
	o, err = ask(2, "70 00 03 00000000 0a 00000000 31 03 00 000000")
	if err != nil || !o.SanitizeFailed || o.Sanitizing || o.Idle {
		t.Errorf("%+v %v", o, err)
	}
	o, err = ask(0, "72 00 00 00 00000000")
	if err != nil || !o.Idle || o.Sanitizing || o.Formatting || o.SanitizeFailed || o.FormatFailed {
		t.Errorf("%+v %v", o, err)
	}
	if o, err := ask(0, ""); err == nil {
		t.Errorf("an empty answer: %+v", o)
	}
	if o, err := ask(8, "72 00 00 00 00000000"); err == nil {
		t.Errorf("busy: %+v", o)
	}
	if o, err := ask(2, ""); err == nil {
		t.Errorf("check condition and nothing else: %+v", o)
	}
	if o, err := ask(0, "72 06 29 00 00000000"); err == nil {
		t.Errorf("a reset for ever: %+v", o)
	}
	if o, err := ask(0, "72 02 04 01 00000000"); err != nil || o.Idle {
		t.Errorf("becoming ready: %+v %v", o, err)
	}
}

// TestBusyIsNoAnswer fails if a drive that is busy is taken for one that does not say who it is, or what it has replaced.
func TestBusyIsNoAnswer(t *testing.T) {
	dev := &scripted{scsi: func(c SCSICommand) (SCSIResult, error) {
		if c.CDB[0] == opInquiry && c.CDB[1] == 0 {
			return SCSIResult{}, nil
		}
		if c.CDB[0] == opInquiry && c.CDB[2] == 0x83 {
			copy(c.Data, []byte{0, 0x83, 0, 12, 1, 3, 0, 8, 0x50, 0, 0, 0, 0, 0, 0, 1})
			return SCSIResult{}, nil
		}
		return SCSIResult{Status: 0x08}, nil
	}}
	d := &Drive{SCSI: &SCSI{dev: dev}, dev: dev}
	if id, err := d.Identity(); err == nil {
		t.Errorf("it is %v", id)
	}
	if n, known, err := d.Reallocated(); err == nil {
		t.Errorf("it has replaced %d, known %t", n, known)
	}
}
