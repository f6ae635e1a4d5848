package smbios_test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	uroot "github.com/u-root/u-root/pkg/smbios"

	"gprovision/hw/smbios"
	"gprovision/model/edit"
)

// qemu is a machine of QEMU 7.2 with SeaBIOS and -smbios options for each value below: what its firmware left in memory.
func qemu(t testing.TB) (entry, data []byte) {
	t.Helper()
	entry, err := os.ReadFile("testdata/qemu.entry")
	if err != nil {
		t.Fatal(err)
	}
	data, err = os.ReadFile("testdata/qemu.dmi")
	if err != nil {
		t.Fatal(err)
	}
	return entry, data
}

func tree(entry, data []byte) fstest.MapFS {
	return fstest.MapFS{"firmware/dmi/tables/smbios_entry_point": {Data: entry}, "firmware/dmi/tables/DMI": {Data: data}}
}

func TestQEMU(t *testing.T) {
	i, err := smbios.Read(tree(qemu(t)))
	if err != nil {
		t.Fatal(err)
	}
	if i.Version != "2.8" {
		t.Errorf("version %s", i.Version)
	}
	for k, want := range map[string]string{
		"bios-vendor": "ACME", "bios-version": "1.02", "bios-release-date": "11/22/2026",
		"system-manufacturer": "GPROV_QEMU", "system-product-name": "mfg_test", "system-version": "v1", "system-serial-number": "SN-0001",
		"system-uuid": "1d1bd1a2-0fd9-41e9-bbb5-a98bac570b2a", "system-sku-number": "SKU-42", "system-family": "Shiny",
		"baseboard-manufacturer": "BoardCo", "baseboard-product-name": "B1", "baseboard-version": "r2", "baseboard-serial-number": "BSN", "baseboard-asset-tag": "BA",
		"chassis-manufacturer": "CaseCo", "chassis-type": "Other", "chassis-version": "c1", "chassis-serial-number": "CSN", "chassis-asset-tag": "CA",
		"processor-manufacturer": "CPUCo\nCPUCo", "processor-version": "someVersion\nsomeVersion",
		"processor-family": "Other\nOther", "processor-frequency": "2000 MHz\n2000 MHz", "bios-revision": "3.4", "firmware-revision": "",
		"no-such-keyword": "",
	} {
		if got := i.Keyword(k); got != want {
			t.Errorf("%s: %q, want %q", k, got, want)
		}
	}
	for _, f := range []struct {
		typ, n     int
		name, want string
	}{
		{1, 0, "SKU Number:", "SKU-42"}, {3, 0, "SKU Number", "CS"}, {4, 1, "Version", "someVersion"}, {4, 2, "Version", ""}, {4, -1, "Version", ""},
		{17, 0, "Part Number:", "PN"}, {17, 0, "Serial Number:", "MSN"}, {1, 1, "Serial Number", ""}, {2, 0, "Colour", ""}, {99, 0, "Vendor",
			""}, {11, 0, "String 2", "two=2"}, {17, 0, "Form Factor", "DIMM"}, {4, 0, "Core Count", "1"},
	} {
		if got := i.Field(f.typ, f.n, f.name); got != f.want {
			t.Errorf("%+v: %q", f, got)
		}
	}
}

// TestDmidecode compares all fields of these tables, and of those of the machine that runs the test where it shows them, with what
// dmidecode prints.
func TestDmidecode(t *testing.T) {
	if _, err := exec.LookPath("dmidecode"); err != nil {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	entry, data := qemu(t)
	compare(t, entry, data)
	const own = "/sys/firmware/dmi/tables/"
	entry, err1 := os.ReadFile(own + "smbios_entry_point")
	data, err2 := os.ReadFile(own + "DMI")
	if err := errors.Join(err1, err2); err != nil {
		t.Log("this machine shows no tables:", err)
		return
	}
	compare(t, entry, data)
}

func compare(t *testing.T, entry, data []byte) {
	t.Helper()
	i, err := smbios.Parse(entry, data)
	if err != nil {
		t.Fatal(err)
	}
	// The file that dmidecode reads has the tables behind 32 bytes, and an entry point of 64 bits that says so.
	var major, minor byte
	if _, err := fmt.Sscanf(i.Version, "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	e := binary.LittleEndian.AppendUint32([]byte("_SM3_\x00\x18"+string([]byte{major, minor, 0, 1, 0})), uint32(len(data)))
	e = append(e, 32, 0, 0, 0, 0, 0, 0, 0)
	sum := byte(0)
	for _, b := range e {
		sum += b
	}
	e[5] = -sum
	file := filepath.Join(t.TempDir(), "dump")
	if err := os.WriteFile(file, append(append(e, make([]byte, 8)...), data...), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("dmidecode", "--from-dump", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "\t") {
			want = append(want, strings.Join(strings.Fields(line), " "))
		}
	}
	for _, s := range i.Tables {
		for _, f := range s.Fields() {
			got = append(got, strings.Join(strings.Fields(f.Name+": "+f.Value), " "))
			for _, item := range f.List {
				got = append(got, strings.Join(strings.Fields(item), " "))
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || len(want) < 50 {
		t.Errorf("%d lines compared: %s", len(want), diff)
	}
}

// TestSecondOpinion compares with the typed structures of u-root.
func TestSecondOpinion(t *testing.T) {
	entry, data := qemu(t)
	i, err := smbios.Parse(entry, data)
	if err != nil {
		t.Fatal(err)
	}
	u, err := uroot.ParseInfo(entry, data)
	if err != nil {
		t.Fatal(err)
	}
	s, err := u.GetSystemInfo()
	if err != nil {
		t.Fatal(err)
	}
	got := []string{i.Keyword("system-manufacturer"), i.Keyword("system-product-name"), i.Keyword("system-serial-number"), i.Keyword("system-uuid"), i.Keyword("system-sku-number")}
	if diff := cmp.Diff([]string{s.Manufacturer, s.ProductName, s.SerialNumber, s.UUID.String(), s.SKUNumber}, got); diff != "" {
		t.Error(diff)
	}
}

// TestEntry64 reads the same tables behind the entry point that the same firmware makes for version 3.
func TestEntry64(t *testing.T) {
	_, data := qemu(t)
	entry, err := hex.DecodeString("5f534d335f68180300000100f201000090590f0000000000")
	if err != nil {
		t.Fatal(err)
	}
	// The kernel may show more than the tables: what follows their end does not count.
	i, err := smbios.Parse(entry, append(append([]byte(nil), data...), "garbage"...))
	if err != nil || i.Version != "3.0" || i.Keyword("system-serial-number") != "SN-0001" {
		t.Errorf("%s %q %v", i.Version, i.Keyword("system-serial-number"), err)
	}
}

func TestOddTables(t *testing.T) {
	entry, _ := qemu(t)
	data := "\x01\x1b\x01\x00\x01\x00\x07\x02" + strings.Repeat("\xff", 16) + "\x06\x00\x00" + "  Acme\x01 Corp  \x00SN\xff9\x00\x00" +
		"\x02\x04\x02\x00\x00\x00" + "\x04\x1a\x03\x00\x01\x03\x00\x00" + strings.Repeat("\x00", 16) + "\x00\x00" + "LGA\x00\x00" +
		"\x03\x20\x04\x00cut"
	i, err := smbios.Parse(entry, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]string{
		"system-manufacturer": "Acme. Corp", "system-product-name": "Not Specified", "system-version": "<BAD INDEX>",
		"system-serial-number": "SN.9", "system-uuid": "Not Present",
		"baseboard-manufacturer": "", "processor-version": "", "chassis-type": "",
	} {
		if got := i.Keyword(k); got != want {
			t.Errorf("%s: %q", k, got)
		}
	}
	if p := i.Tables.Of(4); len(p) != 1 || p[0].Populated() || p[0].Field("Socket Designation") != "LGA" {
		t.Errorf("%+v", p)
	}
	if _, err := smbios.Parse(entry, []byte("\x01\x1b\x01")); err == nil {
		t.Error("cut tables are taken")
	}
	if _, err := smbios.Parse([]byte("_SM_"), []byte(data)); err == nil {
		t.Error("a cut entry point is taken")
	}
}

// TestOldUUID shows that the bytes of a UUID stand in another order before version 2.6.
func TestOldUUID(t *testing.T) {
	entry, data := qemu(t)
	entry[7], entry[4] = 5, entry[4]+3 // minor version 5, and the checksum with it
	i, err := smbios.Parse(entry, data)
	if err != nil || i.Version != "2.5" || i.Keyword("system-uuid") != "a2d11b1d-d90f-e941-bbb5-a98bac570b2a" {
		t.Errorf("%s %q %v", i.Version, i.Keyword("system-uuid"), err)
	}
}

// TestDraftVersion: firmware that calls version 2.3 "2.31" has the UUID of that time.
func TestDraftVersion(t *testing.T) {
	for minor, want := range map[byte]string{0x1f: "2.3", 0x21: "2.3", 0x33: "2.6", 7: "2.7"} {
		entry, data := qemu(t)
		entry[4] -= minor - entry[7]
		entry[7] = minor
		i, err := smbios.Parse(entry, data)
		if old := strings.HasPrefix(i.Keyword("system-uuid"), "a2d11b1d"); err != nil || i.Version != want || old != (want == "2.3") {
			t.Errorf("%#x: %s %q %v", minor, i.Version, i.Keyword("system-uuid"), err)
		}
	}
}

// TestShortEntry: firmware that says 1Eh of the length of its entry point has tables all the same.
func TestShortEntry(t *testing.T) {
	entry, data := qemu(t)
	short := append([]byte(nil), entry[:0x1e]...)
	short[5] = 0x1e
	short[4] = 0
	for _, b := range append([]byte(nil), short...) {
		short[4] -= b
	}
	i, err := smbios.Parse(short, data)
	if err != nil || i.Keyword("system-serial-number") != "SN-0001" {
		t.Errorf("%q, %v", i.Keyword("system-serial-number"), err)
	}
	short[4]++
	if _, err := smbios.Parse(short, data); err == nil {
		t.Error("a wrong checksum is taken")
	}
	// What cannot be parsed leaves what the kernel has of it.
	fsys := tree(short, data)
	fsys["class/dmi/id/product_serial"] = &fstest.MapFile{Data: []byte("SN-7\n")}
	if i, err := smbios.Read(fsys); err != nil || i.Keyword("system-serial-number") != "SN-7" {
		t.Errorf("%q, %v", i.Keyword("system-serial-number"), err)
	}
	delete(fsys, "class/dmi/id/product_serial")
	if _, err := smbios.Read(fsys); err == nil || errors.Is(err, smbios.ErrNone) {
		t.Errorf("nothing to read: %v", err)
	}
}

func TestClass(t *testing.T) {
	i, err := smbios.Read(fstest.MapFS{
		"class/dmi/id/product_family": {Data: []byte("\n")},
		"class/dmi/id/product_serial": {Data: []byte("SN-1 \n")}, "class/dmi/id/product_uuid": {Data: []byte("1D1BD1A2-0FD9-41E9-BBB5-A98BAC570B2A\n")},
		"class/dmi/id/product_sku": {Data: []byte("S\n")},
	})
	if err != nil || i.Keyword("system-serial-number") != "SN-1" || i.Keyword("system-uuid") != "1d1bd1a2-0fd9-41e9-bbb5-a98bac570b2a" ||
		i.Field(1, 0, "SKU Number:") != "S" || i.Keyword("system-family") != "Not Specified" || i.Field(1, 1, "SKU Number") != "" {
		t.Errorf("%+v %v", i, err)
	}
	if _, err := smbios.Read(fstest.MapFS{}); !errors.Is(err, smbios.ErrNone) {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	entry, data := qemu(f)
	tables := [][]byte{data, []byte("\x03\x16\x00\x00\x01\x01\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x01\x00\x00")}
	for _, s := range edit.Scripts() {
		f.Add(uint8(0), s, []byte{})
		f.Add(uint8(1), []byte{}, s)
	}
	f.Fuzz(func(t *testing.T, which uint8, entryScript, script []byte) {
		e, data := edit.Apply(entry, entryScript), edit.Apply(tables[int(which)%len(tables)], script)
		for _, e := range [][]byte{e, entry} {
			i, err := smbios.Parse(e, data)
			if err != nil {
				continue
			}
			for typ := range 18 {
				for _, name := range []string{"SKU Number", "UUID", "Type", "Version"} {
					if s := i.Field(typ, 0, name); strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
						t.Errorf("%q", s)
					}
				}
			}
			i.Keyword("processor-version")
		}
	})
}
