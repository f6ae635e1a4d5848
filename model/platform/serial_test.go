package platform

import (
	"strings"
	"testing"

	"gprovision/model/fault"
)

// TestFillers: what all boards of a model have in place of a serial number is none: two units would be one.
func TestFillers(t *testing.T) {
	fillers := []string{
		"", " ", "To Be Filled By O.E.M.", "To be filled by O.E.M.", "to be filled by oem ", "Default string", "Default", "default_string", "System Serial Number",
		"Base Board Serial Number", "Chassis Serial Number", "Serial Number xxxxxx", "Serial", "SN", "S/N", "Type2 - Board Serial Number", "Type1ProductConfigId",
		"Not Specified", "Not Set", "Not Applicable", "Not Available", "Not Defined", "Undefined", "None", "(none)", "N/A", "(null string)", "<BAD INDEX>", "Unknown", "Unknow",
		"INVALID", "Empty", "OEM", "O.E.M.", "EVAL", "IATPASS", "Tulip Computers", "SN-123456fvgv3i0b8o5n6n7k",
		"Not Settable", "Not Present", "Unspecified", "SerNum0", "Chassis Manufacture", "System Product Name", "Default Asset Tag",
		"No Asset Information", "System Serial", "Generic", "Standard",
		"5EKPM18320000397", "$(DEFAULT_STRING)", "Change Me", "SKU Number",
		// UUIDs.
		"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "03000200-0400-0500-0006-000700080009",
		"00020003-0004-0005-0006-000700080009",
		"00010203-0405-0607-0809-0a0b0c0d0e0f", "03020100-0504-0706-0809-0a0b0c0d0e0f", "01010101-0101-0101-0101-010101010101",
		"fefefefe-fefe-fefe-fefe-fefefefefefe",
		"deadbeef-dead-beef-dead-beefdeadbeef", "12345678-1234-5678-1234-567812345678", "12345678-1234-5678-90ab-cddeefaabbcc",
		"00112233-4455-6677-8899-aabbccddeeff",
		// Runs and single characters.
		"0x00000000", "0x12345678", "ABABABABABABABAB",
		"0123456789", "1234567890", "123456789", "12345678", "12345", "1234", "12345678901234567", "123456789000", "9876543210", "87654321", "0123456789ABCDEF", "abcdef",
		"MB-1234567890", "SYS-1234567890", "SYS-9876543210", "SN-12345", "SSN12345678901234567", "Asset-1234567890", "SN-00000000",
		"0", "1", "00000000", "11111111", "XXXXXXXXXX", "xxxxxxxx", "NNNNNNN", "...", "-", "*", "$", "........", "0.0.0", "x.x", "\x00\x00", "\ufffd\ufffd",
	}
	for n := 1; n < 40; n++ {
		for _, c := range []string{"0", "1", "9", "F", "x", ".", " ", "-"} {
			fillers = append(fillers, strings.Repeat(c, n))
		}
	}
	for _, s := range fillers {
		for _, s := range []string{s, strings.ToUpper(s), strings.ToLower(s), "  " + s + "\n"} {
			if err := (Identity{Serial: s}).CheckSerial(); fault.Of(err) != fault.NoSerial {
				t.Errorf("%q is taken for a serial number", s)
			}
		}
	}
}

// TestSerials: numbers as makers give them are none of that, also short ones, and such as begin or end like a filler.
func TestSerials(t *testing.T) {
	for _, s := range []string{
		"S1", "SN-0001", "SN-0003", "SN 1/2", "SN1", "42", "123", "1001", "10000001", "00000001", "0042", "100000", "12346", "0123456780", "1234567891", "1234567890A", "A1234567890",
		"5CD9363GC3", "PJLXA028JCO02M", "VMware-56 4d 12 34 56 78 9a bc-de f0 12 34 56 78 9a bc", "MB-1234567891", "SYS-4711", "NA0001", "NONE-0042", "OEM4711", "DEMO-0001",
		"AB", "Unknown-7", "Default1", "SerNum42", "SKU-42", "Standard-7", "0x12345679", "1212121", "12121212", "ABAB-1212", "CN1234567890123",
		"4c4c4544-0042-3510-8052-b3c04f4b4e32",
		"03d40274-0435-05dc-8506-010700080009", "1d1bd1a2-0fd9-41e9-bbb5-a98bac570b2a", "5EKPM18320000398", "00000000000000000001", "Chassis 7",
	} {
		if err := (Identity{Serial: s}).CheckSerial(); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzCheckSerial(f *testing.F) {
	f.Add("SN-0001")
	f.Fuzz(func(t *testing.T, s string) {
		a, b := (Identity{Serial: s}).CheckSerial(), (Identity{Serial: " " + s + " "}).CheckSerial()
		if (a == nil) != (b == nil) {
			t.Errorf("%q: %v, with blanks around it %v", s, a, b)
		}
	})
}
