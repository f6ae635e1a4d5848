package inventory

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gprovision/hw/block"
	"gprovision/hw/smbios"
	"gprovision/model/capture"
	"gprovision/model/dmi"
	"gprovision/model/hardware"
	"gprovision/model/layout"
	"gprovision/model/manifest"
	"gprovision/model/platform"
)

//go:generate env GPROV_GENERATE=1 go test -count=1 -run ^TestMutations$ .

// change is a change of one thing in a machine.
type change struct {
	// kind is the row of docs/qa.md, what the thing.
	kind, what string
	apply      func(files)
	// lines are those that must not hold then, and no other. There are none where a specification does not speak of the thing.
	lines []string
}

// kinds are the rows of docs/qa.md.
var kinds = []string{
	"all processors of another model", "one processor of another model", "a logical processor less", "a logical processor more",
	"an empty socket", "the processor as the firmware names it",
	"memory, by half", "a module removed", "a module added", "a module of half the size", "a slower module", "a module of another part number",
	"a module in another slot", "a module with another serial number", "memory without error correction",
	"another TPM", "no TPM", "Secure Boot switched", "older microcode", "newer microcode",
	"another version of the firmware", "another date of the firmware", "another board", "another revision of the board",
	"a serial number of another form", "another serial number",
	"a port removed", "a port added, own address", "a port added, foreign address", "a foreign address in place of an own one",
	"an own address out of order", "another foreign address", "a port without hardware", "a wireless port",
	"a PCI device removed", "a PCI device replaced", "a PCI device added, of a kind that is there",
	"a slower PCI Express link", "a narrower PCI Express link", "a faster PCI Express link",
	"a PCI device added that must not be there", "a PCI device added, of another kind", "a PCI device in another slot",
	"a USB device removed", "a USB device replaced", "a USB device added, of a kind that is there", "a USB device added, of another kind",
	"a main disk removed", "a main disk added", "a main disk of half the size", "a main disk of twice the size",
	"a main disk of another model", "a main disk of another vendor", "a main disk with another serial number",
	"a main disk at another port", "a main disk larger by 0.4 %",
	"the recovery device removed", "the recovery device of half the size", "the recovery device of another model", "two recovery devices",
	"the recovery device with another serial number", "a USB stick plugged in",
}

// files are those of a machine.
type files map[string]capture.Entry

// target returns where a link leads, and "" for what is no link.
func (f files) target(name string) string {
	e := f[name]
	if e.Link == "" {
		return ""
	}
	return path.Join(path.Dir(name), e.Link)
}

// inside returns the links of a directory of /sys that lead to dir or below it.
func (f files) inside(list, dir string) (out []string) {
	for name := range f {
		if to := f.target(name); path.Dir(name) == "sys/"+list && (to == dir || strings.HasPrefix(to, dir+"/")) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// lists are the directories by which devices are found.
func lists() []string { return []string{"bus/pci/devices", "bus/usb/devices", "class/net", "block"} }

// remove takes a device out, with all that hangs on it.
func (f files) remove(dir string) {
	for _, l := range lists() {
		for _, name := range f.inside(l, dir) {
			delete(f, name)
		}
	}
	maps.DeleteFunc(f, func(name string, _ capture.Entry) bool { return strings.HasPrefix(name, dir+"/") })
}

// put copies a device to another place. The names by which it and what hangs on it are found get a suffix, for they are there already.
func (f files) put(dir, to, suffix string) {
	for _, l := range lists() {
		for _, name := range f.inside(l, dir) {
			f.link(name+suffix, to+strings.TrimPrefix(f.target(name), dir))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		rest, ok := strings.CutPrefix(name, dir+"/")
		if !ok {
			continue
		}
		if e := f[name]; e.Link == "" {
			f[to+"/"+rest] = capture.Entry{Name: to + "/" + rest, Data: e.Data}
		} else if inner, ok := strings.CutPrefix(f.target(name), dir); ok {
			f.link(to+"/"+rest, to+inner)
		} else {
			f.link(to+"/"+rest, f.target(name))
		}
	}
}

// move puts a device at another place.
func (f files) move(dir, to string) {
	f.put(dir, to, "")
	maps.DeleteFunc(f, func(name string, _ capture.Entry) bool { return strings.HasPrefix(name, dir+"/") })
}

func (f files) link(name, target string) {
	up := strings.Repeat("../", strings.Count(name, "/")-1)
	f[name] = capture.Entry{Name: name, Link: up + strings.TrimPrefix(target, "sys/")}
}

func (f files) set(name, text string) { f[name] = capture.Entry{Name: name, Data: []byte(text)} }

func (f files) text(name string) string { return strings.TrimSpace(string(f[name].Data)) }

// machine reads the machine, as a unit of the variant.
func (f files) machine(v platform.Variant) (hardware.Machine, platform.Identity, error) {
	proc, sys := trees(f)
	disks, err := block.List(sys)
	if err != nil {
		return hardware.Machine{}, platform.Identity{}, err
	}
	m, err := Read(proc, sys, disks)
	if m.DMI != nil {
		m.Serial = m.DMI.Keyword(v.SerNumField)
	}
	return m, platform.Identity{Variant: v, From: "baseboard", Serial: m.Serial}, err
}

// specify is a specification that speaks of all that one can speak of.
func specify(t *testing.T, f files, v platform.Variant) manifest.Specs {
	t.Helper()
	m, id, err := f.machine(v)
	if err != nil {
		t.Fatal(err)
	}
	recovery := ""
	var all []platform.Candidate
	for _, d := range m.Disks {
		all = append(all, d.Candidate)
	}
	if c, err := platform.ChooseRecovery(v, nil, all); err == nil {
		recovery = c.Path
	}
	dump, err := hardware.Dump(m, v, recovery)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := manifest.Parse([]byte(`{"ValidationData":[` + string(dump) + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	s := parsed.ValidationData[0]
	s.Devices.PCI = append(s.Devices.PCI, forbidden)
	if m.DMI == nil {
		return s
	}
	s.SerNumRegex = "^" + regexp.MustCompile("[0-9]").ReplaceAllString(regexp.QuoteMeta(id.Serial), "[0-9]") + "$"
	s.DmiMatches = map[string]string{}
	for _, k := range []string{"bios-release-date", "baseboard-product-name", "baseboard-version"} {
		s.DmiMatches[k] = m.DMI.Keyword(k)
	}
	for typ, fields := range map[int][]string{4: {"Version"}, 17: {"Locator", "Size", "Speed", "Part Number"}} {
		for i := range f.structures(typ) {
			for _, name := range fields {
				s.DmiMatches[fmt.Sprintf("%d[%d] %s", typ, i, name)] = m.DMI.Field(typ, i, name)
			}
		}
	}
	return s
}

// forbidden is a device that the specification does not allow.
var forbidden = manifest.BusDevice{HumanDescription: "not allowed", Vendor: 0x10de, Device: 0x1eb8, Class: 0x0302}

// tables returns the structures of SMBIOS.
func (f files) tables() dmi.Tables {
	_, sys := trees(f)
	info, err := smbios.Read(sys)
	if err != nil {
		return nil
	}
	return info.Tables
}

// structures are those of one type.
func (f files) structures(typ int) (out []dmi.Structure) {
	for _, s := range f.tables() {
		if s.Type == typ {
			out = append(out, s)
		}
	}
	return out
}

// edit changes the n-th structure of a type.
func edit(typ, n int, do func(s *dmi.Structure)) func(files) {
	return func(f files) {
		all := f.tables()
		for i := range all {
			if all[i].Type != typ {
				continue
			}
			if n == 0 {
				all[i].Data, all[i].Strings = slices.Clone(all[i].Data), slices.Clone(all[i].Strings)
				do(&all[i])
			}
			n--
		}
		setTables(f, all)
	}
}

// text gives a field of a structure another text.
func text(at int, value string) func(*dmi.Structure) {
	return func(s *dmi.Structure) {
		s.Strings = append(s.Strings, value)
		s.Data[at] = byte(len(s.Strings))
	}
}

func megs(s dmi.Structure) int {
	n := int(binary.LittleEndian.Uint16(s.Data[moduleSize:]))
	if n == 0x7fff {
		n = int(binary.LittleEndian.Uint32(s.Data[0x1c:]))
	}
	return n
}

func setMegs(s *dmi.Structure, n int) {
	copy(s.Data[moduleSize:], word(min(n, 0x7fff)))
	binary.LittleEndian.PutUint32(s.Data[0x1c:], uint32(n))
}

func both(all ...func(files)) func(files) {
	return func(f files) {
		for _, do := range all {
			do(f)
		}
	}
}

// changer makes the changes of one machine.
type changer struct {
	f    files
	m    hardware.Machine
	v    platform.Variant
	spec manifest.Specs
	out  []change
}

func (c *changer) add(kind, what string, apply func(files), lines ...string) {
	slices.Sort(lines)
	c.out = append(c.out, change{kind, what, apply, slices.Compact(lines)})
}

// processors.
func (c *changer) processors() {
	const name = "proc/cpuinfo"
	blocks := strings.SplitAfter(string(c.f[name].Data), "\n\n")
	blocks = slices.DeleteFunc(blocks, func(s string) bool { return strings.TrimSpace(s) == "" })
	last := len(blocks) - 1
	replace := func(blocks ...string) func(files) { return func(f files) { f.set(name, strings.Join(blocks, "")) } }
	other := func(s string) string { return strings.ReplaceAll(s, c.m.CPU.Model, "Another CPU @ 1.00GHz") }
	c.add("all processors of another model", name, func(f files) { f.set(name, other(strings.Join(blocks, ""))) }, "processor model")
	c.add("a logical processor more", name, replace(append(slices.Clone(blocks), blocks[last])...), "logical processors")
	sockets := map[string][]string{}
	for file := range c.f {
		if strings.HasSuffix(file, "/topology/physical_package_id") {
			sockets[c.f.text(file)] = append(sockets[c.f.text(file)], file)
		}
	}
	for i := range c.f.structures(4) {
		c.add("the processor as the firmware names it", strconv.Itoa(i), edit(4, i, text(processorVersion, "Another CPU")),
			fmt.Sprintf("DMI 4[%d] Version", i))
	}
	if last == 0 {
		return
	}
	c.add("one processor of another model", name, replace(append(slices.Clone(blocks[:last]), other(blocks[last]))...), "processor model")
	gone := fmt.Sprintf("sys/devices/system/cpu/cpu%d/topology/physical_package_id", last)
	lines := []string{"logical processors"}
	if len(sockets[c.f.text(gone)]) == 1 && len(sockets) > 1 {
		lines = append(lines, "processor sockets")
	}
	c.add("a logical processor less", name, both(replace(blocks[:last]...), func(f files) { delete(f, gone) }), lines...)
	if len(sockets) > 1 {
		keep := len(blocks) / len(sockets)
		first := c.f.text("sys/devices/system/cpu/cpu0/topology/physical_package_id")
		c.add("an empty socket", name, both(replace(blocks[:keep]...), func(f files) {
			for id, all := range sockets {
				for _, file := range all {
					if id != first {
						delete(f, file)
					}
				}
			}
		}), "logical processors", "processor sockets")
	}
}

// memory changes what the kernel sees, and the modules.
func (c *changer) memory() {
	seen := int(c.m.RamMegs)
	total := func(n int) func(files) {
		return func(f files) { f.set("proc/meminfo", fmt.Sprintf("MemTotal: %d kB\n", n<<10)) }
	}
	line := func(n int) []string {
		if d := max(n, seen) - min(n, seen); d*100 >= int(c.spec.RamMegs) {
			return []string{"memory"}
		}
		return nil
	}
	c.add("memory, by half", "meminfo", total(seen/2), "memory")
	all := c.f.structures(17)
	present, empty := 0, -1
	for i, s := range all {
		if len(s.Data) < moduleConfigured {
			return // tables of before SMBIOS 2.6
		}
		if megs(s) > 0 {
			present++
		} else if empty < 0 {
			empty = i
		}
	}
	for i, s := range all {
		field := func(n int, names ...string) (out []string) {
			for _, name := range names {
				out = append(out, fmt.Sprintf("DMI 17[%d] %s", n, name))
			}
			return out
		}
		size := megs(s)
		filled := []string{"Size", "Part Number"}
		speed := int(binary.LittleEndian.Uint16(s.Data[moduleSpeed:]))
		if speed > 0 {
			filled = append(filled, "Speed")
		}
		take := func(s *dmi.Structure) {
			setMegs(s, 0)
			copy(s.Data[moduleSpeed:], word(0))
			s.Data[modulePart] = 0
		}
		place := func(at *dmi.Structure) {
			setMegs(at, size)
			copy(at.Data[moduleSpeed:], word(speed))
			text(modulePart, s.Strings[s.Data[modulePart]-1])(at)
		}
		what := fmt.Sprintf("module %d", i)
		if size == 0 || s.Data[modulePart] == 0 {
			continue
		}
		modules := func(lines ...string) []string { return append(lines, "memory modules") }
		if present > 1 {
			c.add("a module removed", what, both(edit(17, i, take), total(seen-size)),
				modules(append(line(seen-size), field(i, filled...)...)...)...)
		}
		if empty >= 0 {
			c.add("a module added", what, both(edit(17, empty, place), total(seen+size)),
				modules(append(line(seen+size), field(empty, filled...)...)...)...)
			c.add("a module in another slot", what, both(edit(17, i, take), edit(17, empty, place)),
				modules(append(field(i, filled...), field(empty, filled...)...)...)...)
		}
		half := func(s *dmi.Structure) { setMegs(s, size/2) }
		c.add("a module of half the size", what, both(edit(17, i, half), total(seen-size/2)),
			modules(append(line(seen-size/2), field(i, "Size")...)...)...)
		if speed > 0 {
			slower := func(s *dmi.Structure) {
				copy(s.Data[moduleSpeed:], word(speed-266))
				copy(s.Data[moduleConfigured:], word(speed-266))
			}
			c.add("a slower module", what, edit(17, i, slower), modules(field(i, "Speed")...)...)
		}
		c.add("a module of another part number", what, edit(17, i, text(modulePart, "ANOTHER")), modules(field(i, "Part Number")...)...)
		c.add("a module with another serial number", what, edit(17, i, text(moduleSerial, "FFFF0000")))
	}
}

// firmware, board and serial number.
func (c *changer) firmware() {
	if len(c.f.tables()) == 0 {
		return
	}
	c.add("another version of the firmware", "BIOS", edit(0, 0, text(biosVersion, "0.0.1")), "firmware BIOS")
	c.add("another date of the firmware", "BIOS", edit(0, 0, text(biosDate, "01/01/1999")), "DMI bios-release-date")
	if len(c.f.structures(2)) > 0 {
		c.add("another board", "board", edit(2, 0, text(boardProduct, "Another")), "DMI baseboard-product-name")
		c.add("another revision of the board", "board", edit(2, 0, text(boardVersion, "0.1")), "DMI baseboard-version")
	}
	c.add("a serial number of another form", "system", edit(1, 0, text(systemSerial, "/"+c.m.Serial)), "serial number")
	if digit := strings.LastIndexAny(c.m.Serial, "0123456789"); digit >= 0 {
		next := c.m.Serial[:digit] + string('0'+(c.m.Serial[digit]-'0'+1)%10) + c.m.Serial[digit+1:]
		c.add("another serial number", "system", edit(1, 0, text(systemSerial, next)))
	}
}

// security changes TPM, Secure Boot, microcode and how errors of the memory are corrected, where the machine says them.
func (c *changer) security() {
	if c.spec.MemoryECC != "" {
		c.add("memory without error correction", "array", edit(16, 0, func(s *dmi.Structure) { s.Data[6] = 3 }), "memory error correction")
	}
	if c.f.text(tpmVersion) != "" {
		c.add("another TPM", tpmVersion, func(f files) { f.set(tpmVersion, "1\n") }, "TPM")
		c.add("no TPM", tpmVersion, func(f files) { delete(f, tpmVersion) }, "TPM")
	} else {
		c.add("another TPM", tpmVersion, func(f files) { f.set(tpmVersion, "2\n") }, "TPM")
	}
	if b := c.f[secureBoot].Data; len(b) == 5 {
		c.add("Secure Boot switched", secureBoot, func(f files) { f.set(secureBoot, string(b[:4])+string(rune(1-b[4]))) }, "Secure Boot")
	}
	if c.spec.FirmwareVer.Microcode != "" {
		c.add("older microcode", microcodeVersion, func(f files) { f.set(microcodeVersion, "0x0\n") }, "microcode")
		c.add("newer microcode", microcodeVersion, func(f files) { f.set(microcodeVersion, "0xffffffff\n") })
	}
}

// links changes the links of PCI Express devices.
func (c *changer) links() {
	for _, l := range c.m.Links {
		dir := c.f.target("sys/bus/pci/devices/" + l.Address)
		line := fmt.Sprintf("PCI link of %s (%s:%s)", l.Address, l.Device.Vendor, l.Device.Device)
		set := func(file, text string) func(files) { return func(f files) { f.set(dir+"/"+file, text+"\n") } }
		c.add("a slower PCI Express link", l.Address, set("current_link_speed", "1.0 GT/s PCIe"), line)
		c.add("a faster PCI Express link", l.Address, set("current_link_speed", "64.0 GT/s PCIe"))
		if l.Now.Lanes > 1 {
			c.add("a narrower PCI Express link", l.Address, set("current_link_width", "1"), line)
		}
	}
}

// own reports whether an address has the platform's prefix.
func (c *changer) own(mac string) bool {
	return len(c.v.MACPrefixes()) == 0 || strings.HasPrefix(mac, c.v.MACPrefixes()[0])
}

// ports returns the lines of ports that do not hold with these addresses.
func (c *changer) ports(macs []string) (lines []string) {
	var own []int64
	for _, mac := range macs {
		if c.own(mac) {
			n, err := strconv.ParseInt(strings.ReplaceAll(mac, ":", ""), 16, 64)
			if err != nil {
				panic(err)
			}
			own = append(own, n)
		}
	}
	slices.Sort(own)
	row := len(own) == 0 || len(slices.Compact(slices.Clone(own))) == len(own) && own[len(own)-1]-own[0] == int64(len(own)-1)
	if row != *c.spec.OUINicsSequential {
		lines = append(lines, "own addresses follow one another")
	}
	if len(own) != *c.spec.NumOUINics {
		lines = append(lines, "network ports with own address, "+map[bool]string{true: "any prefix",
			false: "prefix " + strings.Join(c.v.MACPrefixes(), " or ")}[len(c.v.MACPrefixes()) == 0])
	}
	if len(macs) != *c.spec.TotalNics {
		lines = append(lines, "network ports")
	}
	return lines
}

func (c *changer) macs() (out []string) {
	for _, p := range c.m.NICs {
		out = append(out, p.MAC)
	}
	return out
}

const adapter = "sys/devices/pci0000:00/0000:00:19.0/usb9/9-1"

// plug adds a network adapter on USB, of a kind that no specification names.
func plug(name, mac string) func(files) {
	return func(f files) {
		dir := adapter + "/9-1:1.0/net/" + name
		f.set(dir+"/type", "1\n")
		f.set(dir+"/address", mac+"\n")
		f.link(dir+"/device", adapter+"/9-1:1.0")
		f.link("sys/class/net/"+name, dir)
	}
}

// network ports that come, go and change their addresses.
func (c *changer) network() {
	macs := c.macs()
	foreign, next := "02:aa:bb:cc:dd:ee", "02:aa:bb:cc:dd:ef"
	if len(macs) > 0 {
		next = ""
		for _, mac := range macs {
			if c.own(mac) {
				next = mac[:len(mac)-2] + "fd"
			}
		}
	}
	if next != "" {
		c.add("a port added, own address", next, plug("eth9", next), c.ports(append(slices.Clone(macs), next))...)
	}
	if !c.own(foreign) {
		c.add("a port added, foreign address", foreign, plug("eth9", foreign), c.ports(append(slices.Clone(macs), foreign))...)
	}
	for _, link := range c.f.inside("class/net", "sys/devices") {
		dir := c.f.target(link)
		i := slices.Index(macs, c.f.text(dir+"/address"))
		if i < 0 || strings.Contains(dir, "/virtual/") {
			continue
		}
		with := func(mac string) []string {
			out := slices.Clone(macs)
			out[i] = mac
			return c.ports(out)
		}
		address := func(mac string) func(files) { return func(f files) { f.set(dir+"/address", mac+"\n") } }
		name := path.Base(link)
		c.add("a port removed", name, func(f files) { f.remove(dir) }, c.ports(slices.Delete(slices.Clone(macs), i, i+1))...)
		switch {
		case !c.own(macs[i]):
			c.add("another foreign address", name, address(foreign))
		case !c.own(foreign):
			c.add("a foreign address in place of an own one", name, address(foreign), with(foreign)...)
		}
		if n := *c.spec.NumOUINics; n > 1 && *c.spec.OUINicsSequential && c.own(macs[i]) {
			far := macs[i][:len(macs[i])-5] + "77:77"
			c.add("an own address out of order", name, address(far), with(far)...)
		}
	}
	for _, name := range []string{"br0", "bond0", "dummy0"} {
		dir := "sys/devices/virtual/net/" + name
		c.add("a port without hardware", name, func(f files) {
			f.set(dir+"/type", "1\n")
			f.set(dir+"/address", "52:54:00:99:99:99\n")
			f.link("sys/class/net/"+name, dir)
		})
	}
	c.add("a wireless port", "wlan0", both(plug("wlan0", foreign), func(f files) {
		f.set(adapter+"/9-1:1.0/net/wlan0/wireless/present", "\n")
	}))
}

// bus is one that devices are on.
type bus struct {
	name, list, vendor, device, class string
	shift                             int
	want                              []manifest.BusDevice
}

// line returns the line of a device of a directory, and nothing if the specification does not speak of it.
func (b bus) line(f files, dir string) (lines []string) {
	hex := func(name string) manifest.ID {
		n, err := strconv.ParseUint(strings.TrimPrefix(f.text(dir+"/"+name), "0x"), 16, 32)
		if err != nil {
			panic(err)
		}
		return manifest.ID(n >> map[bool]int{true: b.shift}[name == b.class])
	}
	for _, w := range b.want {
		if w.Vendor != hex(b.vendor) || w.Device != hex(b.device) || w.Class != hex(b.class) {
			continue
		}
		name := fmt.Sprintf("%s device %s:%s class %s", b.name, w.Vendor, w.Device, w.Class)
		if w.HumanDescription != "" {
			name += " (" + w.HumanDescription + ")"
		}
		lines = append(lines, name)
	}
	return lines
}

func (c *changer) buses() (pci, usb bus) {
	return bus{"PCI", "bus/pci/devices", "vendor", "device", "class", 8, c.spec.Devices.PCI},
		bus{"USB", "bus/usb/devices", "idVendor", "idProduct", "bDeviceClass", 0, c.spec.Devices.USB}
}

// lost returns the lines that do not hold once a directory and all below it is gone.
func (c *changer) lost(dir string) (lines []string) {
	pci, usb := c.buses()
	for _, b := range []bus{pci, usb} {
		for _, link := range c.f.inside(b.list, dir) {
			if at := c.f.target(link); c.f.text(at+"/"+b.vendor) != "" {
				lines = append(lines, b.line(c.f, at)...)
			}
		}
	}
	macs := c.macs()
	for _, link := range c.f.inside("class/net", dir) {
		if i := slices.Index(macs, c.f.text(c.f.target(link)+"/address")); i >= 0 {
			macs = slices.Delete(macs, i, i+1)
		}
	}
	lines = append(lines, c.ports(macs)...)
	for _, link := range c.f.inside("block", dir) {
		for _, d := range c.m.Disks {
			if d.Name == path.Base(link) {
				lines = append(lines, c.diskLine(d))
			}
		}
	}
	return lines
}

func (c *changer) devices(b bus) {
	add := func(slot, vendor, device, class string) func(files) {
		return func(f files) {
			dir := "sys/devices/pci0000:00/0000:00:1a.7/" + slot
			f.set(dir+"/"+b.vendor, vendor)
			f.set(dir+"/"+b.device, device)
			f.set(dir+"/"+b.class, class)
			f.link("sys/"+b.list+"/"+slot, dir)
		}
	}
	kind := func(s string) string { return "a " + b.name + " device " + s }
	for _, link := range c.f.inside(b.list, "sys/devices") {
		dir := c.f.target(link)
		if c.f.text(dir+"/"+b.vendor) == "" {
			continue // an interface
		}
		slot := path.Base(link)
		line := b.line(c.f, dir)
		c.add(kind("removed"), slot, func(f files) { f.remove(dir) }, c.lost(dir)...)
		c.add(kind("replaced"), slot, func(f files) { f.set(dir+"/"+b.device, "fffe\n") }, line...)
		c.add(kind("added, of a kind that is there"), slot,
			add("0000:7f:00.0", c.f.text(dir+"/"+b.vendor), c.f.text(dir+"/"+b.device), c.f.text(dir+"/"+b.class)), line...)
		if b.name == "PCI" {
			c.add(kind("in another slot"), slot, func(f files) {
				f.move(dir, path.Dir(dir)+"/0000:7e:00.0")
				f.link("sys/"+b.list+"/0000:7e:00.0", f.target(link))
				delete(f, link)
			})
		}
	}
	c.add(kind("added, of another kind"), "new", add("0000:7f:00.0", "10ec", "8168", "020000"[:map[string]int{"PCI": 6, "USB": 2}[b.name]]))
	if b.name == "PCI" {
		c.add(kind("added that must not be there"), "forbidden", add("0000:7f:00.0", "10de", "1eb8", "030200"),
			"PCI device 0x10de:0x1eb8 class 0x0302 (not allowed)")
	}
}

// recovery reports whether a disk is the recovery device.
func (c *changer) recovery(d hardware.Disk) bool {
	r := c.spec.Recovery
	return r != (manifest.Disk{}) && d.Size == r.Size && d.Model == r.Model && d.Vendor == r.Vendor
}

func (c *changer) diskLine(d hardware.Disk) string {
	if c.recovery(d) {
		return "recovery device"
	}
	return "main disks"
}

func (c *changer) disks() {
	for _, d := range c.m.Disks {
		link := "sys/block/" + d.Name
		dir := c.f.target(link)
		device := c.f.target(dir + "/device")
		kind := func(s string) string { return "a main disk " + s }
		lines := []string{"main disks"}
		removable := d.Removable || d.Bus == string(platform.USB)
		if c.recovery(d) {
			kind = func(s string) string { return "the recovery device " + s }
			lines = []string{"recovery device"}
			if !removable { // what is no recovery device is a main disk, unless it is a medium
				lines = append(lines, "main disks")
			}
		}
		size := func(n int64) func(files) { return func(f files) { f.set(dir+"/size", fmt.Sprint(n/512)) } }
		attribute := func(name, value string) func(files) {
			return func(f files) { f.set(device+"/"+name, value+"\n") }
		}
		c.add(kind("removed"), d.Name, func(f files) { f.remove(dir) }, lines[0])
		c.add(kind("of half the size"), d.Name, size(d.Size/2), lines...)
		name := "model"
		if d.Bus == string(platform.MMC) {
			name = "name"
		}
		if d.Model != "" {
			c.add(kind("of another model"), d.Name, attribute(name, "ANOTHER"), lines...)
		}
		switch page := "vpd_pg80"; {
		case d.Bus == string(platform.Virtio):
			c.add(kind("with another serial number"), d.Name, func(f files) { f.set(dir+"/serial", "OTHER") })
		case c.f.text(device+"/"+page) != "":
			c.add(kind("with another serial number"), d.Name, attribute(page, "\x00\x80\x00\x05OTHER"))
		case c.f.text(device+"/serial") != "":
			c.add(kind("with another serial number"), d.Name, attribute("serial", "OTHER"))
		}
		twin := func(f files) { f.put(dir, strings.TrimSuffix(dir, "/"+d.Name)+"/"+d.Name+"z", "z") }
		if c.recovery(d) {
			c.add("two recovery devices", d.Name, twin, lines...)
			continue
		}
		c.add("a main disk added", d.Name, twin, lines...)
		c.add(kind("of twice the size"), d.Name, size(2*d.Size), lines...)
		c.add(kind("larger by 0.4 %"), d.Name, size(d.Size+d.Size/250))
		if d.Vendor != "" {
			c.add(kind("of another vendor"), d.Name, attribute("vendor", "ANOTHER"), lines...)
		}
		if head, tail, ok := strings.Cut(dir, "/ata"); ok {
			_, tail, _ = strings.Cut(tail, "/")
			port := strings.TrimSuffix(dir, "/"+tail)
			c.add(kind("at another port"), d.Name, func(f files) { f.move(port, head+"/ata77") })
		}
	}
	w := &written{entries: maps.Clone(c.f), hosts: 90}
	w.stick("devices/pci0000:00/0000:00:19.1/usb8", "8-1", "090c:1000", "sdy", "Other", "Stick", "1", 3*layout.GiB)
	c.add("a USB stick plugged in", "sdy", func(f files) { maps.Copy(f, w.entries) })
}

// all makes all changes of a machine.
func (c *changer) all() []change {
	c.processors()
	c.memory()
	c.firmware()
	c.security()
	c.network()
	pci, usb := c.buses()
	c.devices(pci)
	c.links()
	c.devices(usb)
	c.disks()
	return c.out
}

// sum is how many changes were made, of how many a specification speaks, how many of those were named, and by which lines.
type sum struct {
	changes, spoken, named int
	lines                  map[string]bool
}

func (s *sum) add(x change, bad []string) {
	s.changes++
	if len(x.lines) > 0 {
		s.spoken++
		if slices.Equal(bad, x.lines) {
			s.named++
		}
	}
	for _, l := range bad {
		s.lines[short(l)] = true
	}
}

// mutate changes one thing at a time in a machine, and tells each change with the lines that do not hold then. It returns the lines of the
// machine as it is, which all hold.
func mutate(t *testing.T, w *written, tell func(change, []string)) []hardware.Line {
	c := &changer{f: w.entries, v: w.variant, spec: specify(t, w.entries, w.variant)}
	m, id, err := c.f.machine(w.variant)
	if err != nil {
		t.Fatal(err)
	}
	c.m = m
	lines := hardware.Compare(c.spec, m, id)
	if bad := wrong(lines); bad != nil {
		t.Errorf("%s: unchanged, and %q", w.name, bad)
	}
	for _, x := range c.all() {
		changed := maps.Clone(c.f)
		x.apply(changed)
		m, id, _ := changed.machine(w.variant) // what cannot be read is wrong
		bad := wrong(hardware.Compare(c.spec, m, id))
		if !slices.Equal(bad, x.lines) {
			t.Errorf("%s: %s (%s): %q do not hold, want %q", w.name, x.kind, x.what, bad, x.lines)
		}
		tell(x, bad)
	}
	return lines
}

// TestMutations changes one thing at a time in machines that were written down. Each change that a specification speaks of is named by its
// own lines, and by no other; where it does not speak of it, and where nothing is changed, all lines hold. It holds the tables of
// docs/qa.md; with GPROV_GENERATE=1 it writes them.
func TestMutations(t *testing.T) {
	rows := map[string]*sum{}
	for _, k := range kinds {
		rows[k] = &sum{lines: map[string]bool{}}
	}
	total := &sum{lines: map[string]bool{}}
	var list, table strings.Builder
	list.WriteString("| machine | written from | unchanged | changes | a specification speaks of | named |\n|---|---|---|---|---|---|\n")
	for _, w := range machines() {
		of := &sum{lines: map[string]bool{}}
		lines := mutate(t, w, func(x change, bad []string) {
			if rows[x.kind] == nil {
				t.Fatalf("%q has no row", x.kind)
			}
			rows[x.kind].add(x, bad)
			of.add(x, bad)
			total.add(x, bad)
		})
		fmt.Fprintf(&list, "| %s | %s | %s | %d | %d | %d |\n", w.name, w.from, hardware.Tally(lines), of.changes, of.spoken, of.named)
	}
	fmt.Fprintf(&list, "| all | | | %d | %d | %d |\n", total.changes, total.spoken, total.named)
	table.WriteString("| change | changes | a specification speaks of | named | by the lines |\n|---|---|---|---|---|\n")
	for _, k := range kinds {
		r := rows[k]
		if r.changes == 0 {
			t.Errorf("nothing is changed: %s", k)
		}
		names := strings.Join(slices.Sorted(maps.Keys(r.lines)), ", ")
		fmt.Fprintf(&table, "| %s | %d | %d | %d | %s |\n", k, r.changes, r.spoken, r.named, names)
	}
	page(t, "machines", list.String())
	page(t, "changes", table.String())
}

// TestMutationsHere does so with the machine that the test runs on.
func TestMutationsHere(t *testing.T) {
	entries, _, err := capture.Collect(os.DirFS("/sys"), os.DirFS("/proc"))
	if err != nil {
		t.Fatal(err)
	}
	here := newWritten("this machine", "", platform.Variant{NumDataDisks: 1, RecoveryMedia: platform.RecoveryMedia{Layout: platform.OnMain}})
	for _, e := range entries {
		here.entries[e.Name] = e
	}
	of := &sum{lines: map[string]bool{}}
	lines := mutate(t, here, of.add)
	t.Logf("%s, of %d changes a specification speaks of %d, and %d are named", hardware.Tally(lines), of.changes, of.spoken, of.named)
}

// TestCaptureIsWhole: what is read from a capture of a machine is what is read from the machine.
func TestCaptureIsWhole(t *testing.T) {
	all := machines()
	all[0].file("devices/platform/ipmi_bmc.0/firmware_revision", "1.5")
	for _, w := range all {
		want, _, err := files(w.entries).machine(w.variant)
		if err != nil {
			t.Fatal(err)
		}
		proc, sys := trees(w.entries)
		text, missed, err := capture.Take(sys, proc, "test")
		if err != nil || len(missed) > 0 {
			t.Fatalf("%v, %q", err, missed)
		}
		_, entries, err := capture.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		again := files{}
		for _, e := range entries {
			again[e.Name] = e
		}
		if got, _, err := again.machine(w.variant); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", w.name, err, got, want)
		}
		if w == all[0] && want.Firmware.IPMI != "1.05" {
			t.Errorf("IPMI %q", want.Firmware.IPMI)
		}
	}
}

// wrong returns the names of the lines that do not hold, sorted.
func wrong(lines []hardware.Line) (out []string) {
	for _, l := range lines {
		if l.Wrong() {
			out = append(out, l.Name)
		}
	}
	slices.Sort(out)
	return out
}

// short is the name of a line without what differs between machines.
func short(line string) string {
	for _, long := range []string{"PCI device", "PCI link", "USB device", "network ports with own address"} {
		if strings.HasPrefix(line, long) {
			return long
		}
	}
	return regexp.MustCompile(`\[\d+\]`).ReplaceAllString(line, "[n]")
}

// page fails unless a part of docs/qa.md is as it must be. With GPROV_GENERATE=1 it is written.
func page(t *testing.T, part, want string) {
	t.Helper()
	const name = "../../docs/qa.md"
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := fmt.Sprintf("<!-- %s -->\n", part), fmt.Sprintf("<!-- end of %s -->\n", part)
	head, rest, ok := strings.Cut(string(b), begin)
	have, tail, ok2 := strings.Cut(rest, end)
	switch {
	case !ok || !ok2:
		t.Fatalf("docs/qa.md has no part %s", part)
	case have == want:
	case os.Getenv("GPROV_GENERATE") == "":
		t.Error("docs/qa.md is not as this test has it: go generate ./unit/inventory")
	default:
		if err := os.WriteFile(name, []byte(head+begin+want+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
