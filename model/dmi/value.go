package dmi

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

type valueOf = func(Structure) string

func empty(Structure) string { return "" }

func byteAt(at int) func(Structure) int { return func(s Structure) int { return s.u8(at) } }

// behind is a length: fixed, and each for as many as the byte at count says.
func behind(fixed, count, each int) func(Structure) int {
	return func(s Structure) int { return fixed + each*s.u8(count) }
}

// ifBit is a length that no structure has, unless a bit is set.
func ifBit(at, bit int) func(Structure) int {
	return func(s Structure) int {
		if s.u8(at)>>bit&1 != 0 {
			return 0
		}
		return math.MaxInt
	}
}

func flag(at, bit int, yes, no string) valueOf {
	return func(s Structure) string {
		if s.u8(at)>>bit&1 != 0 {
			return yes
		}
		return no
	}
}

func handleList(count, at int) func(Structure) []string {
	return func(s Structure) []string { return s.handles(at, s.u8(count)) }
}

func dotted(a, b int) string { return fmt.Sprintf("%d.%d", a, b) }

func nibbles(b int) string { return dotted(b>>4, b&0xf) }

// byteSize is a size of eight bytes.
func byteSize(at int) valueOf {
	return func(s Structure) string {
		switch n := s.u64(at); n {
		case 0:
			return none
		case math.MaxUint64:
			return unknown
		default:
			return size(n, 0)
		}
	}
}

// scaled is a signed number of two bytes, divided.
func scaled(at int, by float64, format string) valueOf {
	return func(s Structure) string {
		if v := int16(s.u16(at)); v != math.MinInt16 {
			return fmt.Sprintf(format, float64(v)/by)
		}
		return unknown
	}
}

func scaledUnsigned(at int, by float64, format string) valueOf {
	return func(s Structure) string {
		if v := s.u16(at); v != 0x8000 {
			return fmt.Sprintf(format, float64(v)/by)
		}
		return unknown
	}
}

// busAddress is that of a PCI device: segment, bus, device and function; ones all over: it has none.
func busAddress(at int) valueOf {
	return func(s Structure) string {
		segment, bus, df := s.u16(at), s.u8(at+2), s.u8(at+3)
		if segment == 0xffff && bus == 0xff && df == 0xff {
			return absent
		}
		return fmt.Sprintf("%04x:%02x:%02x.%x", segment, bus, df>>3, df&7)
	}
}

// uuid writes a UUID. Its first three fields are little-endian since version 2.6 (section 7.2.1). All zeros and all ones mean that there is
// none.
func uuid(b []byte, version int) string {
	b = slices.Clone(b)
	switch {
	case !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }):
		return "Not Settable"
	case !slices.ContainsFunc(b, func(c byte) bool { return c != 0xff }):
		return "Not Present"
	}
	if version >= 0x206 {
		slices.Reverse(b[:4])
		slices.Reverse(b[4:6])
		slices.Reverse(b[6:8])
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func hexLines(s Structure) []string {
	var out []string
	for line := range slices.Chunk(s.Data, 16) {
		out = append(out, strings.ToUpper(fmt.Sprintf("% x", line)))
	}
	return out
}

func rawStrings(s Structure) []Field {
	var list []string
	for i := range s.Strings {
		list = append(list, s.str(i+1))
	}
	if len(list) == 0 {
		return nil
	}
	return []Field{{Name: "Strings", List: list}}
}

// BIOS, type 0.

func biosAddress(s Structure) string {
	if s.u16(6) == 0 {
		return absent
	}
	return fmt.Sprintf("0x%04X0", s.u16(6))
}

func biosRuntime(s Structure) string {
	n := (0x10000 - s.u16(6)) << 4
	switch {
	case s.u16(6) == 0:
		return absent
	case n&0x3ff != 0:
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%d kB", n>>10)
}

func biosROM(s Structure) string {
	if n := s.u8(9); n != 0xff || len(s.Data) < 0x1a {
		return size(uint64(n+1)<<6, 1)
	}
	units := [4]string{"MB", "GB", outOfSpec, outOfSpec}
	return fmt.Sprintf("%d %s", s.u16(0x18)&0x3fff, units[s.u16(0x18)>>14])
}

func biosCharacteristics(s Structure) []string {
	if s.u8(0xa)&8 != 0 {
		return append([]string{"BIOS characteristics not supported"}, bitNames("bios-more", s.biosMore())...)
	}
	return append(bitNames("bios", s.u64(0xa)), bitNames("bios-more", s.biosMore())...)
}

func (s Structure) biosMore() uint64 { return uint64(s.u16(0x12)) }

func revision(at int) valueOf {
	return func(s Structure) string {
		if s.u8(at) == 0xff || s.u8(at+1) == 0xff {
			return absent
		}
		return dotted(s.u8(at), s.u8(at+1))
	}
}

// System and chassis, types 1 and 3.

func systemUUID(s Structure) string {
	return uuid(s.Data[8:0x18], s.Version)
}

// chassisEnd is where what a chassis contains ends, and so many bytes more.
func chassisEnd(more int) func(Structure) int {
	return func(s Structure) int { return 0x15 + s.u8(0x13)*s.u8(0x14) + more }
}

func chassisElements(s Structure) []string {
	each := s.u8(0x14)
	if each < 3 {
		return nil
	}
	var out []string
	for i := range s.u8(0x13) {
		at := 0x15 + i*each
		name := named("board", s.u8(at))
		if s.u8(at)&0x80 != 0 {
			name = named("structure", s.u8(at)&0x7f)
		}
		if from, to := s.u8(at+1), s.u8(at+2); from == to {
			name += fmt.Sprintf(" (%d)", from)
		} else {
			name += fmt.Sprintf(" (%d-%d)", from, to)
		}
		out = append(out, name)
	}
	return out
}

// Old memory controllers and modules, types 5 and 6.

// voltages is one byte: a voltage if its first bit is set, else which of three are supported.
func voltages(at int) valueOf {
	return func(s Structure) string {
		v := s.u8(at)
		if v&0x80 != 0 {
			return fmt.Sprintf("%.1f V", float64(v&0x7f)/10)
		}
		var out []string
		for i, name := range []string{"5.0 V", "3.3 V", "2.9 V"} {
			if v>>i&1 != 0 {
				out = append(out, name)
			}
		}
		if len(out) == 0 {
			return unknown
		}
		return strings.Join(out, " ")
	}
}

func moduleLimit(times func(Structure) int) valueOf {
	return func(s Structure) string {
		n := uint32(1)
		if times != nil {
			n = uint32(times(s))
		}
		return fmt.Sprintf("%d MB", n<<(s.u8(8)&0x1f))
	}
}

func banks(s Structure) string {
	var out []string
	for _, n := range []int{s.u8(5) >> 4, s.u8(5) & 0xf} {
		if n != 0xf {
			out = append(out, strconv.Itoa(n))
		}
	}
	return orNone(out, " ")
}

func moduleSize(at int) valueOf {
	return func(s Structure) string {
		v, out := s.u8(at), ""
		switch v & 0x7f {
		case 0x7f:
			return "Not Installed"
		case 0x7e:
			out = "Disabled"
		case 0x7d:
			out = "Not Determinable"
		default:
			out = fmt.Sprintf("%d MB", uint32(1)<<(v&0x1f))
		}
		if v&0x80 != 0 {
			return out + " (Double-bank Connection)"
		}
		return out + " (Single-bank Connection)"
	}
}

func moduleErrors(s Structure) string {
	if s.u8(0xb)&4 != 0 {
		return "See Event Log"
	}
	return [4]string{"OK", "Uncorrectable Errors", "Correctable Errors", "Correctable and Uncorrectable Errors"}[s.u8(0xb)&3]
}

// Caches, type 7.

func cacheConfiguration(s Structure) string {
	v := s.u16(5)
	return fmt.Sprintf("%s, %s, Level %d", flag(5, 7, "Enabled", "Disabled")(s), flag(5, 3, "Socketed", "Not Socketed")(s), v&7+1)
}

// cacheSize is two bytes, or four elsewhere in a structure that has them, with the unit in the first bit.
func cacheSize(at, wideAt int) valueOf {
	return func(s Structure) string {
		n, big := uint64(s.u16(at)&0x7fff), s.u16(at)&0x8000 != 0
		if len(s.Data) >= wideAt+4 {
			n, big = uint64(s.u32(wideAt)&0x7fffffff), s.u32(wideAt)>>31 != 0
		}
		if big {
			n <<= 6
		}
		return size(n, 1)
	}
}

// Slots, type 9.

func slotType(s Structure) string {
	width := named("slot-width", s.u8(6))
	if w := s.u8(6); w == 1 || w == 2 {
		width = ""
	}
	return width + " " + named("slot", s.u8(5))
}

// slotID is the number of the slot, for those kinds of slot that have one.
func slotID(s Structure) string {
	switch named("slot-id", s.u8(5)) {
	case "number", "PCI Express":
		return strconv.Itoa(s.u8(9))
	case "socket":
		return fmt.Sprintf("Adapter %d, Socket %d", s.u8(9), s.u8(0xa))
	}
	return absent
}

// slotCharacteristics counts the bits of the second byte only where one of the lower ones is set.
func slotCharacteristics(s Structure) []string {
	a, b := s.u8(0xb), s.u8(0xc)
	if a&1 != 0 || a&0xfe == 0 && b&7 == 0 {
		return nil
	}
	return append(bitNames("slot", uint64(a)), bitNames("slot-more", uint64(b))...)
}

func slotHeading(s Structure) string {
	switch {
	case s.u8(0xb)&1 != 0:
		return unknown
	case len(slotCharacteristics(s)) == 0:
		return none
	}
	return ""
}

func slotPeers(s Structure) []Field {
	var out []Field
	for i := range s.u8(0x12) {
		at := 0x13 + 5*i
		out = append(out, Field{Name: fmt.Sprintf("Peer Device %d", i+1), Value: fmt.Sprintf("%s (Width %d)", peerAddress(s, at), s.u8(at+4))})
	}
	return out
}

func peerAddress(s Structure, at int) string {
	df := s.u8(at + 3)
	return fmt.Sprintf("%04x:%02x:%02x.%x", s.u16(at), s.u8(at+2), df>>3, df&7)
}

func slotGeneration(s Structure) string {
	if v := s.u8(0x13 + 5*s.u8(0x12)); v != 0 && named("slot-id", s.u8(5)) == "PCI Express" {
		return strconv.Itoa(v)
	}
	return absent
}

func slotWidth(s Structure) string {
	if v := s.u8(0x14 + 5*s.u8(0x12)); v != 0 {
		return named("slot-width", v)
	}
	return absent
}

func slotPitch(s Structure) string {
	if v := s.u16(0x15 + 5*s.u8(0x12)); v != 0 {
		return fmt.Sprintf("%d.%02d mm", v/100, v%100)
	}
	return absent
}

// Small ones: on board devices, strings, languages, groups, types 10 to 14.

func onBoardDevices(s Structure) []Field {
	var out []Field
	for i := range (len(s.Data) - 4) / 2 {
		at := 4 + 2*i
		out = append(out, Field{Name: "Type", Value: named("onboard", s.u8(at)&0x7f)}, Field{Name: "Status", Value: flag(at, 7, "Enabled",
			"Disabled")(s)},
			Field{Name: "Description", Value: s.str(s.u8(at + 1))})
	}
	return out
}

func numberedStrings(name string) func(Structure) []Field {
	return func(s Structure) []Field {
		var out []Field
		for i := range s.u8(4) {
			out = append(out, Field{Name: fmt.Sprintf("%s %d", name, i+1), Value: s.str(i + 1)})
		}
		return out
	}
}

func languageFormat(s Structure) string {
	if s.Version < 0x201 {
		return absent
	}
	return flag(5, 0, "Abbreviated", "Long")(s)
}

func languages(s Structure) []string {
	var out []string
	for i := range s.u8(4) {
		out = append(out, s.str(i+1))
	}
	return out
}

func groupItems(s Structure) []string {
	var out []string
	for at := 5; at+3 <= len(s.Data); at += 3 {
		out = append(out, fmt.Sprintf("0x%04X (%s)", s.u16(at+1), named("structure", s.u8(at))))
	}
	return out
}

// Event log, type 15.

func logHeader(s Structure) string {
	if s.u16(8) == s.u16(6) {
		return absent
	}
	n := int32(s.u16(8) - s.u16(6))
	if n > 1 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%d byte", uint32(n))
}

func logAddress(s Structure) string {
	switch s.u8(0xa) {
	case 0, 1, 2:
		return fmt.Sprintf("Index 0x%04X, Data 0x%04X", s.u16(0x10), s.u16(0x12))
	case 3:
		return fmt.Sprintf("0x%08X", s.u32(0x10))
	case 4:
		return fmt.Sprintf("0x%04X", s.u16(0x10))
	}
	return unknown
}

func logStatus(s Structure) string {
	return flag(0xb, 0, "Valid", "Invalid")(s) + ", " + flag(0xb, 1, "Full", "Not Full")(s)
}

func logDescriptors(s Structure) []Field {
	n, each := s.u8(0x15), s.u8(0x16)
	if each < 2 || len(s.Data) < 0x17+n*each {
		return nil
	}
	var out []Field
	for i := range n {
		at := 0x17 + i*each
		out = append(out, Field{Name: fmt.Sprintf("Descriptor %d", i+1), Value: named("log-type", s.u8(at))},
			Field{Name: fmt.Sprintf("Data Format %d", i+1), Value: named("log-data", s.u8(at+1))})
	}
	return out
}

// Batteries, type 22. What a maker did not write may be in the battery's own words (SBDS).

func batteryOwn(at int) valueOf {
	return func(s Structure) string {
		if s.u8(at) == 0 && len(s.Data) >= 0x1a {
			return absent
		}
		return s.str(s.u8(at))
	}
}

func unless(at int, value valueOf) valueOf {
	return func(s Structure) string {
		if s.u8(at) != 0 {
			return absent
		}
		return value(s)
	}
}

func batteryDate(s Structure) string {
	v := s.u16(0x12)
	return fmt.Sprintf("%d-%02d-%02d", 1980+v>>9, v>>5&0xf, v&0x1f)
}

func batteryChemistry(s Structure) string {
	switch {
	case s.u8(9) != 2:
		return named("chemistry", s.u8(9))
	case len(s.Data) < 0x1a:
		return unknown
	}
	return absent
}

func batterySmartChemistry(s Structure) string {
	if s.u8(9) != 2 {
		return absent
	}
	return s.str(s.u8(0x14))
}

func batteryCapacity(s Structure) string {
	n := s.u16(0xa)
	if n == 0 {
		return unknown
	}
	if len(s.Data) >= 0x16 {
		n *= s.u8(0x15)
	}
	return fmt.Sprintf("%d mWh", n)
}

// Power, boot integrity and management, types 25 to 38.

// powerOn is a time in binary coded decimals; what is out of range stands for any.
func powerOn(s Structure) string {
	part := func(at, from, to int) string {
		if v := s.u8(at); v >= from && v <= to && v&0xf <= 9 {
			return fmt.Sprintf("%02X", v)
		}
		return "*"
	}
	return fmt.Sprintf("%s-%s %s:%s:%s", part(4, 1, 0x12), part(5, 1, 0x31), part(6, 0, 0x23), part(7, 0, 0x59), part(8, 0, 0x59))
}

func integrityChecksum(s Structure) string {
	sum := byte(0)
	for _, b := range s.Data {
		sum += b
	}
	if sum == 0 {
		return "OK"
	}
	return "Invalid"
}

func integrityEntry(s Structure) string { return fmt.Sprintf("%04X:%04X", s.u16(0xa), s.u16(8)) }

func threshold(at int) valueOf {
	return func(s Structure) string {
		if v := int16(s.u16(at)); v != math.MinInt16 {
			return strconv.Itoa(int(v))
		}
		return absent
	}
}

func channelDevices(s Structure) []Field {
	var out []Field
	for i := range s.u8(6) {
		at := 7 + 3*i
		out = append(out, Field{Name: fmt.Sprintf("Device %d Load", i+1), Value: strconv.Itoa(s.u8(at))},
			Field{Name: fmt.Sprintf("Device %d Handle", i+1), Value: fmt.Sprintf("0x%04X", s.u16(at+1))})
	}
	return out
}

// ssif is the kind of IPMI interface that is on the SMBus.
const ssif = 4

func ipmiStorage(missing bool) valueOf {
	return func(s Structure) string {
		switch v := s.u8(7); {
		case v == 0xff && missing:
			return "Not Present"
		case v != 0xff && !missing:
			return strconv.Itoa(v)
		}
		return absent
	}
}

func ipmiBase(s Structure) string {
	if s.u8(4) == ssif {
		return fmt.Sprintf("0x%02X (SMBus)", s.u8(8)>>1)
	}
	address, where := s.u64(8), "Memory-mapped"
	if address&1 != 0 {
		where = "I/O"
	}
	low := uint64(0)
	if len(s.Data) >= 0x12 { // the lowest bit is elsewhere
		low = uint64(s.u8(0x10) >> 4 & 1)
	}
	return fmt.Sprintf("0x%016X (%s)", address&^1|low, where)
}

func ipmiInterrupt(s Structure) []Field {
	if s.u8(4) == ssif {
		return nil
	}
	out := []Field{{Name: "Register Spacing", Value: named("ipmi-spacing", s.u8(0x10)>>6)}}
	if s.u8(0x10)&8 != 0 {
		out = append(out, Field{Name: "Interrupt Polarity", Value: flag(0x10, 1, "Active High", "Active Low")(s)},
			Field{Name: "Interrupt Trigger Mode", Value: flag(0x10, 0, "Level", "Edge")(s)})
	}
	return out
}

// Power supplies, additional information, types 39 and 40.

func supplyStatus(s Structure) string {
	if s.u8(0xe)&2 == 0 {
		return "Not Present"
	}
	return "Present, " + named("supply-status", s.u16(0xe)>>7&7)
}

func additional(s Structure) []Field {
	var out []Field
	at := 5
	for range s.u8(4) {
		n := s.u8(at)
		if n < 5 || at+n > len(s.Data) {
			break
		}
		value := "Unexpected size"
		switch n - 5 {
		case 1:
			value = fmt.Sprintf("0x%02x", s.u8(at+5))
		case 2:
			value = fmt.Sprintf("0x%04x", s.u16(at+5))
		case 4:
			value = fmt.Sprintf("0x%08x", s.u32(at+5))
		}
		out = append(out, Field{Name: "Referenced Handle", Value: fmt.Sprintf("0x%04x", s.u16(at+1))}, Field{Name: "Referenced Offset",
			Value: fmt.Sprintf("0x%02x", s.u8(at+3))},
			Field{Name: "String", Value: s.str(s.u8(at + 4))}, Field{Name: "Value", Value: value})
		at += n
	}
	return out
}

// TPM and firmware, types 43 and 45.

func tpmVendor(s Structure) string {
	v, _, _ := strings.Cut(string(s.Data[4:8]), "\x00")
	return printable(v)
}

func tpmFirmware(s Structure) string {
	switch s.u8(8) {
	case 1:
		return dotted(s.u8(0xc), s.u8(0xd))
	case 2:
		return dotted(s.u16(0xc), s.u16(0xa))
	}
	return absent
}

func tpmCharacteristics(s Structure) []string {
	if s.u8(0x13)&4 != 0 {
		return []string{"TPM Device characteristics not supported"}
	}
	return bitNames("tpm", s.u64(0x13))
}

func firmwareCharacteristics(s Structure) []string {
	return []string{"Updatable: " + flag(0x14, 0, "Yes", "No")(s), "Write-Protect: " + flag(0x14, 1, "Yes", "No")(s)}
}

// Management controllers, type 42 and Redfish over it (DSP0270).

func hostInterfaceNames() []string {
	out := []string{
		"Host Interface Type", "Interface Type", "Vendor ID", "Device Type", "idVendor", "idProduct", "VendorID", "DeviceID", "SubVendorID",
		"SubDeviceID", "Protocol ID", "Service UUID", "Host IP Assignment Type", "Host IP Address Format", "Redfish Service IP Discovery Type",
		"Redfish Service IP Address Format", "Redfish Service Port", "Redfish Service Vlan", "Redfish Service Hostname",
	}
	for format := range 4 {
		for _, of := range []string{" Address", " Mask", " Redfish Service Address", " Redfish Service Mask"} {
			out = append(out, addressFormat(format)+of)
		}
	}
	return out
}

// addressFormat is the kind of an address.
func addressFormat(n int) string {
	if n < 3 {
		return [3]string{unknown, "IPv4", "IPv6"}[n]
	}
	return outOfSpec
}

func hostInterface(s Structure) []Field {
	if s.Version < 0x302 { // only the kind, and who made it
		if len(s.Data) < 5 {
			return nil
		}
		out := []Field{{Name: "Interface Type", Value: named("host-interface", s.u8(4))}}
		if s.u8(4) == 0xf0 && len(s.Data) >= 9 {
			out = append(out, Field{Name: "Vendor ID", Value: fmt.Sprintf("0x%02X%02X%02X%02X", s.u8(5), s.u8(6), s.u8(7), s.u8(8))})
		}
		return out
	}
	n := s.u8(5)
	if len(s.Data) < max(0xb, 6+n) {
		return nil
	}
	out := []Field{{Name: "Host Interface Type", Value: named("host-interface", s.u8(4))}}
	if s.u8(4) != 0x40 {
		return out
	}
	if n > 0 {
		out = append(out, hostDevice(Structure{Data: s.Data[6 : 6+n]})...)
	}
	at := 6 + n
	if at >= len(s.Data) {
		return out
	}
	protocols := s.u8(at)
	at++
	for range protocols {
		if at+2 > len(s.Data) || at+2+s.u8(at+1) > len(s.Data) {
			break
		}
		kind, n := s.u8(at), s.u8(at+1)
		out = append(out, Field{Name: "Protocol ID", Value: fmt.Sprintf("%02x (%s)", kind, named("host-protocol", kind))})
		if kind == 4 {
			out = append(out, redfish(Structure{Data: s.Data[at+2 : at+2+n], Version: s.Version})...)
		}
		at += 2 + n
	}
	return out
}

// hostDevice is the device behind a network interface of a controller.
func hostDevice(s Structure) []Field {
	kind := s.u8(0)
	out := []Field{{Name: "Device Type", Value: named("host-device", kind)}}
	word := func(name string, at int) Field { return Field{Name: name, Value: fmt.Sprintf("0x%04x", s.u16(at))} }
	switch {
	case kind == 2 && len(s.Data) >= 6:
		out = append(out, word("idVendor", 1), word("idProduct", 3))
	case kind == 3 && len(s.Data) >= 9:
		out = append(out, word("VendorID", 1), word("DeviceID", 3), word("SubVendorID", 5), word("SubDeviceID", 7))
	case kind == 4 && len(s.Data) >= 5:
		out = append(out, Field{Name: "Vendor ID", Value: fmt.Sprintf("0x%02x:0x%02x:0x%02x:0x%02x", s.u8(1), s.u8(2), s.u8(3), s.u8(4))})
	}
	return out
}

// redfish is a record of Redfish over IP.
func redfish(s Structure) []Field {
	if len(s.Data) < 91 {
		return nil
	}
	var out []Field
	add := func(name, value string) { out = append(out, Field{Name: name, Value: value}) }
	address := func(at, format int) string {
		switch format {
		case 1:
			return netip.AddrFrom4([4]byte(s.Data[at : at+4])).String()
		case 2:
			return netip.AddrFrom16([16]byte(s.Data[at : at+16])).String()
		}
		return outOfSpec
	}
	add("Service UUID", uuid(s.Data[:16], s.Version))
	how, format := s.u8(16), s.u8(17)
	add("Host IP Assignment Type", named("redfish-assignment", how))
	add("Host IP Address Format", addressFormat(format))
	if how == 1 || how == 3 {
		add(addressFormat(format)+" Address", address(18, format))
		add(addressFormat(format)+" Mask", address(34, format))
	}
	how, format = s.u8(50), s.u8(51)
	add("Redfish Service IP Discovery Type", named("redfish-assignment", how))
	add("Redfish Service IP Address Format", addressFormat(format))
	if how == 1 || how == 3 {
		add(addressFormat(format)+" Redfish Service Address", address(52, format))
		add(addressFormat(format)+" Redfish Service Mask", address(68, format))
		add("Redfish Service Port", strconv.Itoa(s.u16(84)))
		add("Redfish Service Vlan", strconv.FormatUint(uint64(s.u32(86)), 10))
	}
	host := outOfSpec
	if n := s.u8(90); 91+n <= len(s.Data) {
		host, _, _ = strings.Cut(string(s.Data[91:91+n]), "\x00")
		host = printable(host)
	}
	add("Redfish Service Hostname", host)
	return out
}
