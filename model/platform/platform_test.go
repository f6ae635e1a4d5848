package platform

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/source"
)

// table is a small table with the two processors of the original's tests.
const table = `{
  "_comment": "a comment",
  "Variants": [
    {"Familyname": "cpu", "DevCodeName": "cputest1", "DmiMbMfg": "cputest", "DmiProdName": "cputest", "DmiProdModelRegex": ".*",
     "CPU": "someVersion", "SerNumField": "system-serial-number", "NICInfo": {"SharedDiagPorts": [], "WANIndex": 0, "DefaultNamesNoDiag": []},
     "NumDataDisks": 1, "Disksize": 21474836480, "SwRaidlevel": -1, "RecoveryMedia": {"ValidateRDMethod": "USB", "FsType": "ext3"}, "Lcd": "none"},
    {"Familyname": "cpu", "DevCodeName": "cputest2", "DmiMbMfg": "cputest", "DmiProdName": "cputest", "DmiProdModelRegex": ".*",
     "CPU": "someOtherVersion", "SerNumField": "system-serial-number", "NICInfo": {"SharedDiagPorts": [], "WANIndex": 0, "DefaultNamesNoDiag": []},
     "NumDataDisks": 2, "Disksize": 21474836480, "SwRaidlevel": 1, "RecoveryMedia": {"ValidateRDMethod": "sata", "FsType": "ext4"}, "Lcd": "635"},
    {"Familyname": "acme", "DevCodeName": "fox", "DmiMbMfg": "ACME", "DmiProdName": "Fox", "DmiProdModelRegex": "^F-[12]",
     "SerNumField": "baseboard-serial-number", "NICInfo": {"SharedDiagPorts": [], "WANIndex": 0, "DefaultNamesNoDiag": []},
     "NumDataDisks": 1, "Disksize": 500000000000, "SwRaidlevel": -1, "RecoveryMedia": {"FsType": "ext4", "Bus": ["mmc", "usb"], "Size": 8000000000}, "Lcd": "none"},
    {"Familyname": "acme", "DevCodeName": "owl", "DmiMbMfg": "ACME", "DmiProdName": "Fox", "DmiProdModelRegex": "^rev B$", "DmiPMOverrideTyp": 2, "DmiPMOverrideFld": "Version:",
     "SerNumField": "system-serial-number", "NICInfo": {"SharedDiagPorts": [], "WANIndex": 0, "DefaultNamesNoDiag": []},
     "NumDataDisks": 1, "Disksize": 500000000000, "SwRaidlevel": -1, "RecoveryMedia": {"FsType": "ext4"}, "Lcd": "none"}
  ]
}`

type someDMI struct {
	words  map[string]string
	fields map[string]string
	cpus   []string
}

func (d someDMI) Keyword(k string) string {
	if k == "processor-version" {
		return strings.Join(d.cpus, "\n")
	}
	return d.words[k]
}
func (d someDMI) Field(typ, n int, name string) string {
	return d.fields[fmt.Sprintf("%d[%d] %s", typ, n, name)]
}

func parse(t *testing.T, s string) *Table {
	t.Helper()
	tab, err := Parse([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func TestIdentify(t *testing.T) {
	tab := parse(t, table)
	board := func(mfg, prod string) map[string]string {
		return map[string]string{"baseboard-manufacturer": mfg, "baseboard-product-name": prod, "system-manufacturer": "Other", "system-product-name": "Thing",
			"system-serial-number": "S1", "baseboard-serial-number": " B1 "}
	}
	system := func(mfg, prod string) map[string]string {
		m := board("QEMU", "")
		m["system-manufacturer"], m["system-product-name"] = mfg, prod
		return m
	}
	bare := map[string]string{"1[0] SKU Number": "Not Specified"}
	for _, v := range []Variant{{DevCodeName: "words", DmiProdModelRegex: "^Not Specified$"}, {DevCodeName: "nothing",
		DmiProdModelRegex: "^$"}} {
		v.DmiMbMfg, v.DmiProdName, v.SerNumField = "bare", v.DevCodeName, "system-serial-number"
		tab.Variants = append(tab.Variants, v)
	}
	tests := []struct {
		name               string
		dmi                someDMI
		want, serial, from string
	}{
		{"first processor", someDMI{words: board("cputest", "cputest"), cpus: []string{"someVersion"}}, "cputest1", "S1", "baseboard"},
		{"second processor", someDMI{words: board("cputest", "cputest"), cpus: []string{"someOtherVersion", ""}}, "cputest2", "S1", "baseboard"},
		{"system strings", someDMI{words: system("cputest", "cputest"), cpus: []string{"someVersion"}}, "cputest1", "S1", "system"},
		{"wrong processor", someDMI{words: board("cputest", "cputest"), cpus: []string{"x"}}, "", "", ""},
		{"sku", someDMI{words: board("ACME", "Fox"), fields: map[string]string{"1[0] SKU Number": "F-2b"}}, "fox", "B1", "baseboard"},
		{"override", someDMI{words: board("ACME", "Fox"), fields: map[string]string{"2[0] Version": "rev B"}}, "owl", "S1", "baseboard"},
		{"unknown", someDMI{words: board("ACME", "Ox")}, "", "", ""},
		{"no sku, as dmidecode prints it", someDMI{words: board("bare", "words"), fields: bare}, "words", "S1", "baseboard"},
		{"no sku, as nothing", someDMI{words: board("bare", "nothing"), fields: bare}, "nothing", "S1", "baseboard"},
		{"a processor without a name", someDMI{words: board("cputest", "cputest"), cpus: []string{"someVersion", "Not Specified"}}, "cputest1",
			"S1", "baseboard"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			id, err := Identify(tab, tt.dmi)
			if tt.want == "" {
				if fault.Of(err) != fault.PlatformUnknown {
					t.Fatalf("got %v, want PlatformUnknown", err)
				}
				// Who reads it has to see both: what the machine says, and what the table has.
				for _, says := range []string{tt.dmi.words["baseboard-product-name"], tt.dmi.words["system-product-name"], "fox", "owl", "cputest1"} {
					if !strings.Contains(err.Error(), fmt.Sprintf("%q", says)) && !strings.Contains(err.Error(), says+" (") {
						t.Errorf("%v: it does not say %q", err, says)
					}
				}
				return
			}
			if err != nil || id.Variant.DevCodeName != tt.want || id.Serial != tt.serial || id.From != tt.from {
				t.Fatalf("got %s %q %s, %v", id.Variant.DevCodeName, id.Serial, id.From, err)
			}
		})
	}
	if id, err := Named(tab, "fox", someDMI{}); err != nil || id.Mfg != "ACME" || id.From != "name" {
		t.Errorf("Named: %+v, %v", id, err)
	}
	if _, err := Named(tab, "wolf", someDMI{}); fault.Of(err) != fault.PlatformUnknown {
		t.Errorf("Named of an unknown: %v", err)
	}
}

// TestOriginalTable: the default table of the system that this one replaces is good as it is, and finds its machines. What it says of 9p
// is a warning.
func TestOriginalTable(t *testing.T) {
	b, err := os.ReadFile("testdata/original.json")
	if err != nil {
		t.Fatal(err)
	}
	ps := Check(b)
	const says = "Variants[0].RecoveryMedia: warning: a recovery volume over 9p"
	if err := source.Join(ps); err != nil || len(ps) != 1 || !strings.Contains(ps[0].String(), says) {
		t.Errorf("check says %v", ps)
	}
	tab, err := Parse(b)
	if err != nil || len(tab.Notes()) > 0 {
		t.Fatalf("%v, %v", tab.Notes(), err)
	}
	for product, want := range map[string]string{"9p2k_dev": "QEMU", "mfg_test": "QEMU-mfg-test", "mfg_test_ipmi": "QEMU-mfg-test"} {
		id, err := Identify(tab, someDMI{words: map[string]string{"baseboard-manufacturer": "QEMU", "system-manufacturer": "GPROV_QEMU",
			"system-product-name": product, "system-serial-number": "QEMU01234"}})
		if err == nil {
			err = id.CheckSerial()
		}
		if v := id.Variant; err != nil || v.DevCodeName != want || id.Serial != "QEMU01234" || v.IPMI != (product == "mfg_test_ipmi") {
			t.Errorf("%s: %+v, %v", product, id, err)
		}
	}
}

func TestFits(t *testing.T) {
	tests := []struct {
		spec  string
		found []string
		want  bool
	}{
		{"", nil, true},
		{"", []string{"a"}, true},
		{"a", []string{"a"}, true},
		{"a", []string{"b"}, false},
		{"a", []string{"a", "a"}, false},
		{"a\na", []string{"a", "a"}, true},
		{"a\nb", []string{"b", "a"}, true},
		{"a\nb", []string{"a"}, true},
		{"a\nb\n", []string{"a", "b", "c"}, false},
		{" a \n\n", []string{"a "}, true},
		{"a", nil, true},
	}
	for _, tt := range tests {
		if got := fits(cpus(tt.spec), tt.found); got != tt.want {
			t.Errorf("fits(%q, %q) = %v", tt.spec, tt.found, got)
		}
	}
}

func TestCheckSerial(t *testing.T) {
	for s, ok := range map[string]bool{"A123": true, "": false, "  ": false, "To be filled by O.E.M.": false, "0000000": false, "Default string": false, "0123456789": false, "X0": true} {
		if err := (Identity{Serial: s}).CheckSerial(); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestEnumerations(t *testing.T) {
	tab := parse(t, strings.NewReplacer(`"Lcd": "635"`, `"Lcd": "9"`, `"sata"`, `"floppy"`).Replace(table))
	if v := tab.Variants[0]; v.RecoveryMedia.ValidateRDMethod != ValidateUSB || v.RecoveryMedia.LocateRDMethod != ByLabel || v.RecoveryBuses()[0] != USB {
		t.Errorf("variant 0: %+v", v.RecoveryMedia)
	}
	if v := tab.Variants[1]; v.RecoveryMedia.ValidateRDMethod != ValidateUSB || v.Lcd != NoLCD {
		t.Errorf("variant 1: %+v %s", v.RecoveryMedia, v.Lcd)
	}
	if len(tab.Notes()) != 2 {
		t.Errorf("notes: %v", tab.Notes())
	}
	if v := tab.Variants[2]; len(v.RecoveryBuses()) != 2 {
		t.Errorf("buses: %v", v.RecoveryBuses())
	}
	if v := tab.Variants[3]; v.RecoveryBuses() != nil {
		t.Errorf("buses: %v", v.RecoveryBuses())
	}
}

// data returns the table with a data partition.
func data(text string) string {
	return strings.Replace(table, `"Lcd": "none"`, `"Lcd": "none", "DataPartition": {`+text+`}`, 1)
}

func TestParts(t *testing.T) {
	one, err := Parse([]byte(strings.Replace(data(`"Label": "DATA", "Mount": "/data", "SystemSize": 1073741824`), `"ValidateRDMethod": "USB"`, `"Layout": "partition"`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := one.Variants[0].Parts(7), (layout.Parts{Recovery: 7, Data: true, System: 1 << 30}); got != want {
		t.Errorf("one disk: got %+v, want %+v", got, want)
	}
	two := Variant{SwRaidlevel: 1, NumDataDisks: 2}
	if got, want := two.Parts(7), (layout.Parts{Member: true}); got != want {
		t.Errorf("RAID: got %+v, want %+v", got, want)
	}
	both, err := Parse([]byte(strings.Replace(data(`"Label": "DATA", "Mount": "/data", "Size": 1073741824`), `"NumDataDisks": 1, "Disksize": 21474836480, "SwRaidlevel": -1`, `"NumDataDisks": 2, "Disksize": 21474836480, "SwRaidlevel": 1`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := both.Variants[0].Parts(7), (layout.Parts{Member: true, Data: true, DataSize: 1 << 30}); got != want {
		t.Errorf("RAID with data: got %+v, want %+v", got, want)
	}
}

func TestRefused(t *testing.T) {
	for name, s := range map[string]string{
		"layout":                       strings.Replace(table, `"Bus": ["mmc", "usb"]`, `"Layout": "ring"`, 1),
		"one disk, and two main disks": strings.NewReplacer(`"ValidateRDMethod": "USB"`, `"Layout": "partition"`, `"NumDataDisks": 1`, `"NumDataDisks": 2`).Replace(table),
		"data too small":               data(`"Label": "DATA", "Mount": "/data", "Size": 1`),
		"data without size":            data(`"Label": "DATA", "Mount": "/data"`),
		"data with both sizes":         data(`"Label": "DATA", "Mount": "/data", "Size": 1073741824, "SystemSize": 1073741824`),
		"data over the system":         data(`"Label": "DATA", "Mount": "/usr", "Size": 1073741824`),
		"data at no path":              data(`"Label": "DATA", "Mount": "data", "Size": 1073741824`),
		"data with a bad label":        data(`"Label": "DA TA", "Mount": "/data", "Size": 1073741824`),
		"version":                      strings.Replace(table, `"_comment": "a comment"`, `"Version": 2`, 1),
		"type":                         strings.Replace(table, `"NumDataDisks": 1`, `"NumDataDisks": "1"`, 1),
		"syntax":                       table[:len(table)-2],
		"array":                        "[]",
	} {
		if _, err := Parse([]byte(s)); err == nil {
			t.Errorf("%s: Parse accepts it", name)
		}
		if len(Check([]byte(s))) == 0 {
			t.Errorf("%s: Check accepts it", name)
		}
	}
}

func TestCheck(t *testing.T) {
	if ps := Check([]byte(table)); len(ps) > 0 {
		t.Errorf("the table is fine, but: %v", ps)
	}
	if ps := Check(defaultTable); len(ps) > 0 {
		t.Errorf("the default table: %v", ps)
	}
	tests := []struct {
		name, old, new, want string
	}{
		{"same", `"CPU": "someOtherVersion"`, `"CPU": "\nsomeVersion"`, "line 7: Variants[1]: cputest2 can never be chosen: Variants[0] (cputest1) asks for the same DMI strings and processors, and comes first"},
		{"regexp", `"^F-[12]"`, `"^F-[12"`, "line 10: Variants[2].DmiProdModelRegex: not a regular expression"},
		{"enum", `"USB"`, `"usbb"`, `line 6: Variants[0].RecoveryMedia.ValidateRDMethod: "usbb" is not known, usb is taken`},
		{"missing", `"SerNumField": "baseboard-serial-number", `, ``, "line 10: Variants[2].SerNumField: the key is missing"},
		{"keyword", `"baseboard-serial-number"`, `"baseboard-serial"`,
			`line 11: Variants[2].SerNumField: dmidecode has no keyword "baseboard-serial"; near it are "baseboard-serial-number"`},
		{"field", `"Version:"`, `"Vresion:"`, `line 13: Variants[3].DmiPMOverrideFld: a structure of type 2 has no field "Vresion"`},
		{"raid", `"SwRaidlevel": 1`, `"SwRaidlevel": 5`, "line 9: Variants[1].SwRaidlevel: RAID level 5 needs 3 disks, NumDataDisks is 2"},
		{"bus", `"mmc"`, `"floppy"`, `line 12: Variants[2].RecoveryMedia.Bus[0]: the bus "floppy" is not known`},
		{"type", `"Disksize": 21474836480, "SwRaidlevel": 1`, `"Disksize": "20G"`, "line 9: Variants[1].Disksize: found a string, want a whole number"},
	}
	for _, tt := range tests {
		s := strings.Replace(table, tt.old, tt.new, 1)
		if s == table {
			t.Fatalf("%s: nothing replaced", tt.name)
		}
		ps := Check([]byte(s))
		if len(ps) == 0 || !strings.HasPrefix(ps[0].String(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.name, ps, tt.want)
		}
	}
}

func TestFacts(t *testing.T) {
	tab := parse(t, table)
	id := Identity{Variant: tab.Variants[1], Mfg: "m", Prod: "p", SKU: "k", Serial: "s"}
	b, err := Facts(id)
	if err != nil {
		t.Fatal(err)
	}
	var flat map[string]any
	if err := json.Unmarshal(b, &flat); err != nil || flat["Familyname"] != "cpu" || flat["Serial"] != "s" || flat["Lcd"] != "635" {
		t.Fatalf("%v: %s", err, b)
	}
	if flat["DevCodeName"] != "cputest2" || flat["SKU"] != "k" || flat["Prod"] != "p" || flat["Mfg"] != "m" {
		t.Errorf("%v", flat)
	}
	id.Variant.Lcd = "7"
	if _, err := Facts(id); err == nil {
		t.Error("a value that is not known was written")
	}
}

// TestSizeFilter has the vectors of the original system.
func TestSizeFilter(t *testing.T) {
	var disks []Candidate
	for s := int64(19500); s <= 20400; s += 100 {
		disks = append(disks, Candidate{Size: s})
	}
	for _, s := range []int64{20010, 512110190592, 500000000000, 1000204886016, 1000204886016} {
		disks = append(disks, Candidate{Size: s})
	}
	tests := []struct {
		target           int64
		count, set, goal int
		want             int
	}{
		{19990, 2, 1, 1, 2}, {199900, 2, 1, 1, 0}, {199900, 2, 1, 100, 2}, {512110190592, 1, 0, 0, 1}, {500000000000, 2, 1, 1, 0},
		{512110190592, 2, 3, 3, 2}, {512110190592, 2, 2, 3, 0}, {512110190592, 2, 3, 2, 0}, {512110190592, 13, 94, 100, 0},
		{512110190592, 13, 100, 99, 0}, {512110190592, 13, 100, 100, 13}, {1000204886016, 2, 0, 0, 2}, {700204886016, 4, 50, 43, 0},
		{700204886016, 4, 51, 43, 4}, {700204886016, 4, 51, 42, 0},
	}
	for _, tt := range tests {
		if got := len(sizeFilter(disks, tt.target, tt.count, tt.set, tt.goal)); got != tt.want {
			t.Errorf("%+v: got %d", tt, got)
		}
	}
}

func disk(name string, bus Bus, size int64) Candidate {
	return Candidate{Name: name, Path: "/dev/" + name, Bus: string(bus), Size: size, Model: "M-" + name, Vendor: "ATA"}
}

// tellsDisks holds that an error has each disk with its size and its bus.
func tellsDisks(t *testing.T, err error, disks []Candidate) {
	t.Helper()
	for _, d := range disks {
		for _, says := range []string{d.Name, strconv.FormatInt(d.Size, 10), d.Bus} {
			if err != nil && !strings.Contains(err.Error(), says) {
				t.Errorf("%v: it does not say %s of %s", err, says, d.Name)
			}
		}
	}
}

func TestChooseMain(t *testing.T) {
	const G = 1000_000_000
	v := Variant{NumDataDisks: 1, Disksize: 500 * G}
	two := v
	two.NumDataDisks = 2
	bus := v
	bus.MainDisk.Bus = []Bus{NVMe}
	a, b, c, stick := disk("a", SATA, 500*G), disk("b", NVMe, 501*G), disk("c", SATA, 512*G), disk("s", USB, 500*G)
	tests := []struct {
		name     string
		v        Variant
		disks    []Candidate
		recovery string
		want     string
		fault    *fault.Fault
	}{
		{"one", v, []Candidate{a}, "", "a", nil},
		{"recovery is left out", v, []Candidate{stick, a}, "/dev/s", "a", nil},
		{"two alike", v, []Candidate{a, b}, "", "", fault.DiskAmbiguous},
		{"the nearer one", v, []Candidate{c, a}, "", "a", nil},
		{"bus", bus, []Candidate{a, b}, "", "b", nil},
		{"pair", two, []Candidate{c, a, b}, "", "a b", nil},
		{"three for a pair", two, []Candidate{a, b, stick}, "", "", fault.DiskAmbiguous},
		{"none", v, nil, "", "", fault.DiskMissing},
		{"only the recovery device", v, []Candidate{a}, "/dev/a", "", fault.DiskMissing},
		{"one of a pair", two, []Candidate{a}, "", "", fault.DiskMissing},
		{"too small", v, []Candidate{disk("x", SATA, 100*G)}, "", "", fault.DiskTooSmall},
		{"one of the pair too small", two, []Candidate{a, disk("x", SATA, 100*G)}, "", "", fault.DiskTooSmall},
		{"too large", v, []Candidate{disk("x", SATA, 900*G)}, "", "", fault.DiskMissing},
		{"pair differs", two, []Candidate{disk("x", SATA, 490*G), disk("y", SATA, 510*G)}, "", "", fault.DiskTooSmall},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ChooseMain(tt.v, tt.disks, tt.recovery)
			if fault.Of(err) != tt.fault {
				t.Fatalf("got %v, want %v", err, tt.fault)
			}
			tellsDisks(t, err, tt.disks)
			var names []string
			for _, d := range got {
				names = append(names, d.Name)
			}
			if s := strings.Join(names, " "); s != tt.want {
				t.Errorf("got %q, want %q", s, tt.want)
			}
		})
	}
}

func TestChooseRecovery(t *testing.T) {
	const G = 1000_000_000
	plain := Variant{}
	sized := Variant{RecoveryMedia: RecoveryMedia{Size: 8 * G}}
	usb := Variant{RecoveryMedia: RecoveryMedia{ValidateRDMethod: ValidateUSB}}
	a, b, big := disk("a", USB, 8*G), disk("b", SATA, 8*G+1), disk("c", NVMe, 500*G)
	tests := []struct {
		name  string
		v     Variant
		want  *Want
		disks []Candidate
		name2 string
		fault *fault.Fault
	}{
		{"by size of the table", sized, nil, []Candidate{a, big}, "a", nil},
		{"nothing said", plain, nil, []Candidate{a}, "", fault.ManifestIncomplete},
		{"two", sized, nil, []Candidate{a, b}, "", fault.DiskAmbiguous},
		{"bus", usb, &Want{Size: 8 * G, TolerancePct: 1}, []Candidate{a, b}, "a", nil},
		{"model", plain, &Want{Size: 8 * G, TolerancePct: 1, Model: "M-b"}, []Candidate{a, b}, "b", nil},
		{"vendor", plain, &Want{Size: 8 * G, TolerancePct: 1, Vendor: "QEMU"}, []Candidate{a, b}, "", fault.DiskMissing},
		{"exact", plain, &Want{Size: 8 * G}, []Candidate{a, b}, "a", nil},
		{"too small", plain, &Want{Size: 16 * G, TolerancePct: 1, Model: "M-a"}, []Candidate{a, big}, "", fault.DiskTooSmall},
		{"missing, and smaller disks are there", plain, &Want{Size: 16 * G, TolerancePct: 1}, []Candidate{a, b}, "", fault.DiskMissing},
		{"missing, and a smaller one of another model is there", plain, &Want{Size: 16 * G, Model: "M-x"}, []Candidate{a}, "", fault.DiskMissing},
		{"size of the table with the model of the manifest", sized, &Want{Model: "M-a"}, []Candidate{a, b}, "a", nil},
		{"none", sized, nil, []Candidate{big}, "", fault.DiskMissing},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ChooseRecovery(tt.v, tt.want, tt.disks)
			if fault.Of(err) != tt.fault || got.Name != tt.name2 {
				t.Fatalf("got %s, %v", got.Name, err)
			}
			if tt.fault != fault.DiskAmbiguous { // which has those that fit
				tellsDisks(t, err, tt.disks)
			}
		})
	}
}

func TestKernelArgs(t *testing.T) {
	if got := (Variant{Console: "ttyS0,115200", BootArgs: "quiet"}).KernelArgs(); got != "console=ttyS0,115200 quiet" {
		t.Error(got)
	}
	if got := (Variant{}).KernelArgs(); got != "" {
		t.Error(got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(table))
	f.Add(defaultTable)
	f.Add([]byte(`{"Variants":[{"Lcd":"635","CPU":"a\nb","RecoveryMedia":{"Layout":"x"}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		tab, err := Parse(b)
		problems := Check(b)
		if err != nil {
			if len(problems) == 0 {
				t.Fatalf("Parse says %v, Check nothing", err)
			}
			return
		}
		out, err := tab.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(out)
		if err != nil {
			t.Fatalf("cannot read what was written: %v\n%s", err, out)
		}
		if len(again.Notes()) > 0 {
			t.Fatalf("notes after writing: %v", again.Notes())
		}
		for _, v := range tab.Variants {
			_, err := Identify(&Table{Variants: []Variant{v}}, someDMI{})
			if err != nil && !errors.Is(err, fault.PlatformUnknown) {
				t.Fatal(err)
			}
			v.MACPrefixes()
		}
	})
}

func TestFitsText(t *testing.T) {
	for _, tt := range []struct {
		want, have string
		fits       bool
	}{
		{"", "anything", true}, {" ", "", true}, {"SSD 860", " SSD 860 ", true}, {"SSD 860", "SSD 8600", false}, {"SSD", "", false},
		{"*", "", true}, {"SSD*", "SSD 860", true}, {"SSD*", "An SSD", false}, {"*860", "SSD 860", true}, {"*860", "SSD 860 PRO", false},
		{"S*8*0", "SSD 860", true}, {"S*9*0", "SSD 860", false}, {"ab*ba", "aba", false}, {"ab*ba", "abba", true}, {"a*b*c", "a-b-b-c", true},
		{"SSD [8]", "SSD [8]", true}, {"SSD ?60", "SSD 860", false}, {"**", "x", true}, {"*x*", "x", true}, {"*x*", "y", false},
	} {
		if got := Fits(tt.want, tt.have); got != tt.fits {
			t.Errorf("%q fits %q: %t", tt.have, tt.want, got)
		}
	}
}
