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
	`notpresent notprovided badindex outofspec ` +
	// boards
	`baseboardserialnumber boardserialnumber mainboardserialnumber motherboardserialnumber chassisserialnumber enclosureserialnumber productserialnumber type2boardserialnumber ` +
	`serial serialno sn ssn noserialnumber noserial nosn notset unset notfound notassigned empty blank reserved dummy sample placeholder tbd todo test ` +
	`filledbyoem fillbyoem tobefilledbyoems oemid oemserial oemserialnumber defaultserial defaultserialnumber defaultoem assettag noassettag system chassis baseboard dell `

// labels are what may stand in front of a run that fills.
var labels = []string{"serialnumber", "serial", "asset", "ssn", "bsn", "csn", "sys", "sn", "mb"}

// CheckSerial returns a fault.NoSerial unless the serial number is one: not one of the texts that makers of boards put there for want of
// a number, not one character again and again, and not a run such as 12345678, of whatever length and behind whatever label.
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
	if s == "" || oneChar(s) || run(s) || listed(s) || listed(strings.TrimRight(s, "x")) {
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
