package platform

import (
	"strings"
	"unicode"

	"gprovision/model/fault"
)

// fillers are the texts that makers of boards leave in place of a serial number, without all that is no letter or digit. They are from
// the lists by which inventories tell machines apart: blacklist_serials of OCS Inventory, glpi_blacklists of GLPI and FusionInventory,
// ffIsSmbiosValueSet of fastfetch; from what dmidecode prints for a string that is missing or wrong; and from boards that were met.
const fillers = ` ` +
	// OCS Inventory, GLPI, FusionInventory
	`na nullstring null invalid eval iatpass none tobefilledbyoem tulipcomputers serialnumber sn123456fvgv3i0b8o5n6n7k unknow unknown systemserialnumber systemserialnumb ` +
	// fastfetch
	`tobefilled tobefilledbyoembymorestring oem notspecified notapplicable notdefined notavailable undefined default defaultstring type1productconfigid ` +
	// dmidecode
	`notpresent notprovided notsettable badindex outofspec ` +
	// boards
	`baseboardserialnumber boardserialnumber mainboardserialnumber motherboardserialnumber chassisserialnumber enclosureserialnumber productserialnumber type2boardserialnumber ` +
	`serial serialno sn ssn noserialnumber noserial nosn notset unset notfound notassigned empty blank reserved dummy sample placeholder tbd todo test ` +
	`filledbyoem fillbyoem tobefilledbyoems oemid oemserial oemserialnumber defaultserial defaultserialnumber defaultoem assettag ` +
	`noassettag system chassis baseboard dell ` +
	`serialnum sernum sernum0 sernum1 sernum2 sernum3 systemserial chassisserial boardserial invalidserial invalidserialnumber ` +
	`unknownserial unknownserialnumber noserialnum ` +
	`unspecified notused nil changeme standard generic filler 5ekpm18320000397 ` +
	// what stands in neighbouring fields, copied
	`systemmanufacturer systemproductname systemname systemversion systemsku skunumber baseboardmanufacturer baseboardproductname ` +
	`baseboardversion ` +
	`chassismanufacturer chassismanufacture chassisversion chassisassettag assettagnumber assettagnum0 defaultassettag ` +
	`noassetinformation partnumber productname ` +
	// UUIDs of boards that nobody gave one: bytes that count, whole, in the order of SMBIOS or with gaps
	`03000200040005000006000700080009 00020003000400050006000700080009 000102030405060708090a0b0c0d0e0f 030201000504070608090a0b0c0d0e0f ` +
	`00112233445566778899aabbccddeeff 33221100554477668899aabbccddeeff 12345678123412341234123456789abc 123456781234567890abcddeefaabbcc `

// labels are what may stand in front of a run that fills.
var labels = []string{"serialnumber", "serial", "0x", "asset", "ssn", "bsn", "csn", "sys", "sn", "mb"}

// CheckSerial returns a fault.NoSerial unless the serial number is one: not one of the texts that makers of boards put there for want of
// a number, not one character or a few again and again, and not a run such as 12345678, of whatever length and behind whatever label.
func (id Identity) CheckSerial() error {
	if filler(id.Serial) {
		return fault.Newf(fault.NoSerial, "%s is %q", id.Variant.SerNumField, id.Serial)
	}
	return nil
}

// filler reports whether s stands in place of a serial number. Only letters and digits count, in any case.
func filler(s string) bool {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, s)
	if s == "" || oneChar(s) || run(s) || repeats(s) || listed(s) || listed(strings.TrimRight(s, "x")) {
		return true
	}
	for _, l := range labels {
		if rest, ok := strings.CutPrefix(s, l); ok && len(rest) >= minRun && (oneChar(rest) || run(rest)) {
			return true
		}
	}
	return false
}

func listed(s string) bool { return s != "" && strings.Contains(fillers, " "+s+" ") }

// oneChar reports whether s is one character again and again.
func oneChar(s string) bool { return strings.Trim(s, string([]rune(s)[:1])) == "" }

// repeats reports whether s is at least twice the same up to eight characters, and sixteen or more in all, as in the UUIDs
// fefefefe-fefe-fefe-fefe-fefefefefefe and 12345678-1234-5678-1234-567812345678.
func repeats(s string) bool {
	if len(s) < 16 {
		return false
	}
	for n := 1; n <= 8; n++ {
		if s[n:] == s[:len(s)-n] {
			return true
		}
	}
	return false
}

// minRun is how long a run is at least: a company that counts its units has a 12 and a 123.
const minRun = 4

// run reports whether each character of s follows the one before it, up or down: digits, which go round, hexadecimal digits or letters. A
// run of all digits may be filled up with zeros.
func run(s string) bool {
	if t := strings.TrimRight(s, "0"); t == "123456789" {
		return true
	}
	if len(s) < minRun {
		return false
	}
	up, down := true, true
	for i := range len(s) - 1 {
		up, down = up && follows(s[i], s[i+1]), down && follows(s[i+1], s[i])
	}
	return up || down
}

func follows(a, b byte) bool { return b == a+1 || a == '9' && (b == '0' || b == 'a') }
