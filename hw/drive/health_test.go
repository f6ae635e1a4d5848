package drive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gprovision/model/edit"
)

// nvmeHealthData is the log page of a drive in use: 38 °C, 3 % used, 100 % spare.
func nvmeHealthData() []byte {
	b := make([]byte, 512)
	copy(b, []byte{0, 0x37, 0x01, 100, 10, 3})
	for at, n := range map[int]uint64{32: 11_520_000, 48: 15_625_000, 64: 1, 80: 1, 96: 1, 112: 812, 128: 9_438, 144: 60, 160: 0, 176: 12} {
		binary.LittleEndian.PutUint64(b[at:], n)
	}
	return b
}

func TestParseNVMeHealth(t *testing.T) {
	h, err := ParseNVMeHealth(nvmeHealthData())
	want := Health{
		Failing: new(false), Temperature: new(int64(38)), Used: new(int64(3)), Spare: new(int64(100)), PowerOn: new(int64(9438)),
		Starts: new(int64(812)), Uncorrectable: new(int64(0)), Written: new(int64(8_000_000_000_000)),
	}
	if d := cmp.Diff(want, h); d != "" || err != nil {
		t.Error(d, err)
	}
	for bit := range 6 {
		b := nvmeHealthData()
		b[0] = 1 << bit
		if h, err := ParseNVMeHealth(b); err != nil || !*h.Failing || len(h.Warnings) != 1 {
			t.Errorf("critical warning %d: %v %q %v", bit, *h.Failing, h.Warnings, err)
		}
	}
	b := nvmeHealthData()
	copy(b[1:], []byte{0, 0})  // no temperature
	copy(b[160+8:], []byte{1}) // more than 64 bits
	binary.LittleEndian.PutUint64(b[48:], math.MaxInt64)
	if h, err := ParseNVMeHealth(b); err != nil || h.Temperature != nil || *h.Uncorrectable != math.MaxInt64 || *h.Written != math.MaxInt64 {
		t.Errorf("%v %d %d %v", h.Temperature, *h.Uncorrectable, *h.Written, err)
	}
	if _, err := ParseNVMeHealth(b[:511]); err == nil {
		t.Error("511 bytes are accepted")
	}
}

// attribute is an entry of SMART READ DATA.
func attribute(id, flags, value byte, raw uint64) []byte {
	return append([]byte{id, flags, 0, value, value}, binary.LittleEndian.AppendUint64(nil, raw)[:7]...)
}

// smartData puts entries of 12 bytes where they belong.
func smartData(entries ...[]byte) []byte {
	b := make([]byte, 512)
	b[0] = 16
	copy(b[2:], bytes.Join(entries, nil))
	var sum byte
	for _, c := range b {
		sum += c
	}
	b[511] = -sum
	return b
}

// TestAttributes has the attributes of a disk as smartctl prints them: 39 (0 18 0 0 0) as temperature, 17 h and 30 min of power.
func TestAttributes(t *testing.T) {
	disk := smartData(attribute(5, 0x33, 100, 0), attribute(9, 0x32, 99, 30<<24|17), attribute(12, 0x32, 100, 41),
		attribute(190, 0x22, 61, 39|30<<16), attribute(194, 0x22, 39, 39|18<<32), attribute(196, 0x32, 100, 3),
		attribute(197, 0x12, 100, 2), attribute(198, 0x10, 100, 5),
		attribute(199, 0x3e, 200, 7), attribute(187, 0x32, 100, 1))
	var h Health
	h.attributes(ParseAttributes(disk, nil), false)
	want := Health{
		Temperature: new(int64(39)), PowerOn: new(int64(17)), Starts: new(int64(41)), Reallocated: new(int64(0)), Pending: new(int64(2)),
		Uncorrectable: new(int64(5)), LinkErrors: new(int64(7)),
	}
	if d := cmp.Diff(want, h); d != "" {
		t.Error(d)
	}
	h = Health{}
	h.attributes(ParseAttributes(smartData(attribute(196, 0x32, 100, 3), attribute(190, 0x22, 61, 200)), nil), false)
	if d := cmp.Diff(Health{Reallocated: new(int64(3))}, h); d != "" {
		t.Error("events where sectors are not counted, and no temperature of 200 °C: ", d)
	}
}

func TestWearAttributes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		list  [][]byte
		flash bool
		want  *int64
	}{
		{"SSD_Life_Left", [][]byte{attribute(231, 0x13, 93, 0)}, true, new(int64(7))},
		{"Media_Wearout_Indicator", [][]byte{attribute(233, 0x32, 60, 0)}, true, new(int64(40))},
		{"Percent_Lifetime_Remain", [][]byte{attribute(202, 0x30, 99, 1)}, true, new(int64(1))},
		{"Wear_Leveling_Count", [][]byte{attribute(177, 0x13, 98, 35)}, true, new(int64(2))},
		{"life left before a number of writes", [][]byte{attribute(233, 0x32, 100, 9999), attribute(231, 0x13, 80, 0)}, true, new(int64(20))},
		{"a disk that rotates has temperature 231", [][]byte{attribute(231, 0x22, 60, 40)}, false, nil},
		{"a value of 0 is none", [][]byte{attribute(233, 0x32, 0, 50)}, true, nil},
		{"nor is one above 100", [][]byte{attribute(233, 0x32, 200, 50)}, true, nil},
	} {
		var h Health
		h.attributes(ParseAttributes(smartData(tt.list...), nil), tt.flash)
		if d := cmp.Diff(Health{Used: tt.want}, h); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

func TestThresholds(t *testing.T) {
	limits := smartData([]byte{5, 36, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, []byte{10, 97, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	for _, tt := range []struct {
		name    string
		a       []byte
		failing bool
	}{
		{"above", attribute(5, 0x33, 37, 0), false},
		{"at it", attribute(5, 0x33, 36, 0), true},
		{"below", attribute(5, 0x33, 1, 0), true},
		{"no value", attribute(5, 0x33, 0, 0), false},
		{"old, not failing", attribute(5, 0x32, 1, 0), false},
		{"another attribute", attribute(10, 0x13, 96, 0), true},
		{"no threshold", attribute(11, 0x13, 1, 0), false},
	} {
		list := ParseAttributes(smartData(tt.a), limits)
		if len(list) != 1 || list[0].failing() != tt.failing {
			t.Errorf("%s: %+v", tt.name, list)
		}
	}
	wrong := slices.Clone(limits)
	wrong[511]++
	if list := ParseAttributes(smartData(attribute(5, 0x33, 1, 0)), wrong); len(list) != 1 || list[0].Threshold != 0 {
		t.Errorf("thresholds with a wrong checksum: %+v", list)
	}
	if list := ParseAttributes(wrong, nil); list != nil {
		t.Errorf("data with a wrong checksum: %+v", list)
	}
}

// statistic puts a statistic into a page of the log.
func statistic(page byte, at int, flags byte, n uint64) []byte {
	b := make([]byte, 512)
	b[0], b[2] = 1, page
	binary.LittleEndian.PutUint64(b[at:], n|uint64(flags)<<56)
	return b
}

func TestStatistics(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	for _, tt := range []struct {
		name string
		page byte
		b    []byte
		want Health
	}{
		{"power-on resets", 1, statistic(1, 8, 0xc0, 34), Health{Starts: n(34)}},
		{"hours", 1, statistic(1, 16, 0xc0, 9438), Health{PowerOn: n(9438)}},
		{"sectors written", 1, statistic(1, 24, 0xc0, 1<<40), Health{Written: n(4096 << 40)}},
		{"reallocated", 3, statistic(3, 32, 0xc0, 8), Health{Reallocated: n(8)}},
		{"candidates", 3, statistic(3, 56, 0xc0, 9), Health{Pending: n(9)}},
		{"uncorrectable", 4, statistic(4, 8, 0xc0, 2), Health{Uncorrectable: n(2)}},
		{"temperature", 5, statistic(5, 8, 0xc0, 44), Health{Temperature: n(44)}},
		{"frost", 5, statistic(5, 8, 0xc0, 0xf6), Health{Temperature: n(-10)}},
		{"checksums", 6, statistic(6, 24, 0xc0, 5), Health{LinkErrors: n(5)}},
		{"used", 7, statistic(7, 8, 0xc0, 101), Health{Used: n(101)}},
		{"with more flags", 7, statistic(7, 8, 0xe8, 12), Health{Used: n(12)}},
		{"known, not valid", 7, statistic(7, 8, 0x80, 12), Health{}},
		{"temperature, not valid", 5, statistic(5, 8, 0x80, 44), Health{}},
		{"another page than was asked for", 7, statistic(5, 8, 0xc0, 12), Health{}},
		{"nothing", 7, nil, Health{}},
	} {
		var h Health
		h.statistics(tt.page, tt.b, 4096)
		if d := cmp.Diff(tt.want, h); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
	list := make([]byte, 512)
	copy(list[8:], []byte{6, 0, 1, 2, 3, 7, 0xff, 5})
	if got := parseStatisticsList(list); !slices.Equal(got, []byte{1, 3, 7}) {
		t.Errorf("pages % x", got)
	}
}

func TestMMCHealth(t *testing.T) {
	for _, tt := range []struct {
		name     string
		bytes    [3]byte // PRE_EOL_INFO, TYP_A, TYP_B
		revision byte
		want     Health
	}{
		{"new", [3]byte{1, 1, 1}, 8, Health{Failing: new(false), Used: new(int64(10))}},
		{"the worse of the two", [3]byte{1, 2, 9}, 8, Health{Failing: new(false), Used: new(int64(90))}},
		{"not said", [3]byte{0, 0, 0}, 7, Health{}},
		{"older than the fields", [3]byte{3, 11, 11}, 6, Health{}},
		{"80 % of the reserve", [3]byte{2, 5, 0}, 8, Health{Failing: new(true), Used: new(int64(50)),
			Warnings: []string{"80 % of its reserved blocks are used"}}},
		{"90 % of it, beyond its life", [3]byte{3, 0, 11}, 8, Health{Failing: new(true), Used: new(int64(101)),
			Warnings: []string{"90 % of its reserved blocks are used", "it has exceeded the life that its maker gives it"}}},
	} {
		b := extCSD()
		b[192] = tt.revision
		copy(b[267:], tt.bytes[:])
		x, err := ParseExtCSD(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, x.Health()); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

func TestLogParameters(t *testing.T) {
	for _, tt := range []struct {
		name string
		page byte
		hex  string
		want Health
	}{
		{"uncorrected reads", 0x03, "0300 000e 0000 60 02 1234 0006 60 04 00000102", Health{Uncorrectable: new(int64(258))}},
		{"temperature, and that of reference", 0x0d, "0d00 000c 0000 01 02 00 1f 0001 01 02 00 41", Health{Temperature: new(int64(31))}},
		{"no temperature", 0x0d, "0d00 0006 0000 01 02 00 ff", Health{}},
		{"starts", 0x0e, "0e00 0010 0001 01 06 32303236 3330 0004 03 04 000000ea", Health{}},
		{"starts, whole", 0x0e, "0e00 0012 0001 01 06 32303236 3330 0004 03 04 000000ea", Health{Starts: new(int64(234))}},
		{"endurance", 0x11, "1100 0008 0001 03 04 000000 05", Health{Used: new(int64(5))}},
		{"minutes of power", 0x15, "1500 0010 0000 03 0c 00010000 00 00 0000 0000 0000", Health{PowerOn: new(int64(1092))}},
		{"no exception", 0x2f, "2f00 0008 0000 03 04 00 00 1e 00", Health{Failing: new(false)}},
		{"prediction of failure", 0x2f, "2f00 0008 0000 03 04 5d 10 1e 00",
			Health{Failing: new(true), Warnings: []string{"it says that it fails: 5Dh/10h"}}},
		{"warning", 0x2f, "2f00 0008 0000 03 04 0b 01 1e 00", Health{Failing: new(true), Warnings: []string{"it gives a warning: 0Bh/01h"}}},
		{"another page than was asked for", 0x11, "0d00 0008 0001 03 04 000000 05", Health{}},
	} {
		var h Health
		h.logParameters(tt.page, parseLogPage(tt.page, unhex(t, tt.hex)))
		if d := cmp.Diff(tt.want, h); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

// TestHealthBytes holds what is sent to ask each kind of drive, byte by byte, and that a drive which knows nothing of it says nothing.
func TestHealthBytes(t *testing.T) {
	s := &scripted{nvme: func(NVMeCommand) (NVMeResult, error) { return NVMeResult{Status: 0x4109}, nil }}
	if h, err := (&NVMe{s, allow}).health(); err != nil || h.Failing != nil {
		t.Errorf("%+v %v", h, err)
	}
	if want := "02000000ffffffff"; len(s.sent) != 1 || s.sent[0][:16] != want || s.sent[0][80:88] != "02007f00" {
		t.Errorf("%q", s.sent)
	}
	s.nvme = func(NVMeCommand) (NVMeResult, error) { return NVMeResult{Status: 0x82}, nil } // not ready: no answer
	if _, err := (&NVMe{s, allow}).health(); !errors.As(err, new(StatusError)) {
		t.Errorf("%v", err)
	}

	identify := identifyData()
	binary.LittleEndian.PutUint16(identify[2*82:], 1)
	binary.LittleEndian.PutUint16(identify[2*84:], 1<<14|1<<5)
	binary.LittleEndian.PutUint16(identify[2*85:], 1)
	seal(identify)
	aborted := unhex(t, "72 0b 00 00 000000 0e 09 0c 00 04 0000 00 00 00 00 00 00 40 51")
	s = &scripted{scsi: func(c SCSICommand) (SCSIResult, error) {
		if c.CDB[14] == ataIdentify {
			copy(c.Data, identify)
			return SCSIResult{}, nil
		}
		return SCSIResult{Status: statusCheckCondition, Sense: aborted}, nil
	}}
	if h, err := (&ATA{s, allow}).health(); err != nil || h.Failing != nil {
		t.Errorf("%+v %v", h, err)
	}
	want := []string{
		"85080e00000001000000000000" + "00ec00", "85080e00d0000100000" + "04f00c200b000", "85080e00d1000100000" + "04f00c200b000",
		"85062000da000000000" + "04f00c200b000", "85090e000000010004000000000" + "02f00",
	}
	for i, w := range want {
		if i >= len(s.sent) || s.sent[i] != w {
			t.Errorf("command %d: %q, want %q", i, s.sent, w)
		}
	}

	refusal := unhex(t, "72 05 20 00 000000 00")
	s = &scripted{scsi: func(c SCSICommand) (SCSIResult, error) {
		return SCSIResult{Status: statusCheckCondition, Sense: refusal}, nil
	}}
	if h, err := (&SCSI{s, allow}).health(); err != nil || h.Failing != nil {
		t.Errorf("%+v %v", h, err)
	}
	if len(s.sent) != 2 || s.sent[0] != "4d004000000000"+"00fc00" {
		t.Errorf("%q", s.sent)
	}
}

// TestSMARTOff asks a drive whose SMART is switched off for nothing of it.
func TestSMARTOff(t *testing.T) {
	s := &scripted{scsi: func(c SCSICommand) (SCSIResult, error) {
		b := identifyData()
		binary.LittleEndian.PutUint16(b[2*82:], 1)
		copy(c.Data, seal(b))
		return SCSIResult{}, nil
	}}
	if _, err := (&ATA{s, allow}).health(); err != nil || len(s.sent) != 1 {
		t.Errorf("%q %v", s.sent, err)
	}
}

func FuzzHealth(f *testing.F) {
	f.Add([]byte{}, byte(0))
	f.Add([]byte{0, 3, 0, 1}, byte(0x2f))
	f.Fuzz(func(t *testing.T, script []byte, page byte) {
		var h Health
		b := edit.Apply(nvmeHealthData(), script)
		if n, err := ParseNVMeHealth(b); err == nil && (*n.Used > 255 || *n.Spare > 255 || *n.PowerOn < 0 || *n.Written < 0) {
			t.Errorf("%+v", n)
		}
		b = edit.Apply(smartData(attribute(5, 0x33, 100, 1), attribute(231, 0x13, 50, 0)), script)
		h.attributes(ParseAttributes(b, b), true)
		b = edit.Apply(statistic(7, 8, 0xc0, 3), script)
		h.statistics(page&7, b, 512)
		h.statistics(page&7, parseStatisticsList(b), 512)
		h.logParameters(page, parseLogPage(page, b))
		h.logParameters(page, script)
		for _, n := range []*int64{h.PowerOn, h.Starts, h.Reallocated, h.Pending, h.Uncorrectable, h.LinkErrors, h.Written, h.Used} {
			if n != nil && *n < 0 {
				t.Errorf("a count below 0: %+v", h)
			}
		}
	})
}
