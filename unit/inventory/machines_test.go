package inventory

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing/fstest"

	"gprovision/model/capture"
	"gprovision/model/dmi"
	"gprovision/model/layout"
	"gprovision/model/platform"
)

// written is a machine that was written down, as what a capture of it has.
type written struct {
	// name and from are what docs/qa.md says of it.
	name, from string
	variant    platform.Variant
	entries    map[string]capture.Entry
	hosts      int // SCSI hosts
	virtios    int
}

func (w *written) file(name, text string) {
	w.entries["sys/"+name] = capture.Entry{Name: "sys/" + name, Data: []byte(text + "\n")}
}

func (w *written) link(name, target string) {
	up := strings.Repeat("../", strings.Count(name, "/"))
	w.entries["sys/"+name] = capture.Entry{Name: "sys/" + name, Link: up + target}
}

// processors are n logical ones of one model, in sockets.
func (w *written) processors(model string, n, sockets int) {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "processor\t: %d\nmodel name\t: %s\n\n", i, model)
		w.file(fmt.Sprintf("devices/system/cpu/cpu%d/topology/physical_package_id", i), fmt.Sprint(i*sockets/n))
	}
	w.entries["proc/cpuinfo"] = capture.Entry{Name: "proc/cpuinfo", Data: []byte(text.String())}
}

func (w *written) memory(megs int) {
	text := fmt.Sprintf("MemTotal: %d kB\nMemFree: 1000 kB\n", megs<<10)
	w.entries["proc/meminfo"] = capture.Entry{Name: "proc/meminfo", Data: []byte(text)}
}

// pci adds a device and returns its directory. parent is that of a bridge, or empty.
func (w *written) pci(parent, slot, id, class string) string {
	vendor, device, _ := strings.Cut(id, ":")
	if parent == "" {
		parent = "devices/pci0000:00"
	}
	dir := parent + "/" + slot
	w.file(dir+"/vendor", "0x"+vendor)
	w.file(dir+"/device", "0x"+device)
	w.file(dir+"/class", "0x"+class+"00")
	w.link(dir+"/subsystem", "bus/pci")
	w.link("bus/pci/devices/"+slot, dir)
	return dir
}

// express gives a device a link of PCI Express: what it runs at, and what the device can.
func (w *written) express(dir, speed string, width int, most string, widest int) string {
	w.file(dir+"/current_link_speed", speed+" GT/s PCIe")
	w.file(dir+"/current_link_width", fmt.Sprint(width))
	w.file(dir+"/max_link_speed", most+" GT/s PCIe")
	w.file(dir+"/max_link_width", fmt.Sprint(widest))
	return dir
}

// The files of what is on the board beside all that.
const (
	tpmVersion       = "sys/class/tpm/tpm0/tpm_version_major"
	secureBoot       = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
	microcodeVersion = "sys/devices/system/cpu/cpu0/microcode/version"
)

// security gives a machine a TPM 2.0, Secure Boot and a microcode revision.
func (w *written) security(on bool, microcode string) {
	w.file(strings.TrimPrefix(tpmVersion, "sys/"), "2")
	w.file(strings.TrimPrefix(microcodeVersion, "sys/"), microcode)
	state := "\x06\x00\x00\x00\x00"
	if on {
		state = "\x06\x00\x00\x00\x01"
	}
	w.entries[secureBoot] = capture.Entry{Name: secureBoot, Data: []byte(state)}
}

// port adds a network port below a device.
func (w *written) port(dir, name, mac string) {
	n := dir + "/net/" + name
	w.file(n+"/type", "1")
	w.file(n+"/address", mac)
	w.link(n+"/device", dir)
	w.link("class/net/"+name, n)
}

// usb adds a device below a controller or a hub and returns its directory.
func (w *written) usb(dir, name, id, class string) string {
	vendor, device, _ := strings.Cut(id, ":")
	dir += "/" + name
	w.file(dir+"/idVendor", vendor)
	w.file(dir+"/idProduct", device)
	w.file(dir+"/bDeviceClass", class)
	w.link("bus/usb/devices/"+name, dir)
	return dir
}

// disk adds a disk: at is where its node is, and device its SCSI device or controller.
func (w *written) disk(name, at, device string, size int64, attributes map[string]string) {
	dir := at + "/block/" + name
	if strings.HasPrefix(name, "nvme") {
		dir = at + "/" + name
	}
	w.file(dir+"/size", fmt.Sprint(size/512))
	w.file(dir+"/removable", "0")
	w.file(dir+"/queue/logical_block_size", "512")
	w.link(dir+"/device", device)
	w.link("block/"+name, dir)
	for k, v := range attributes {
		if v != "" {
			w.file(device+"/"+k, v)
		}
	}
}

func (w *written) virtioDisk(dir, name, serial string, size int64) {
	w.virtios++
	device := fmt.Sprintf("%s/virtio%d", dir, w.virtios)
	w.disk(name, device, device, size, nil)
	w.file(device+"/block/"+name+"/serial", serial)
}

func (w *written) nvme(dir string, n int, model, serial string, size int64) {
	device := fmt.Sprintf("%s/nvme/nvme%d", dir, n)
	w.disk(fmt.Sprintf("nvme%dn1", n), device, device, size, map[string]string{"model": model, "serial": serial})
}

// scsi adds a disk behind an ATA port, or behind a USB interface.
func (w *written) scsi(dir, name, vendor, model, serial string, size int64) {
	w.hosts++
	device := fmt.Sprintf("%s/host%d/target%d:0:0/%d:0:0:0", dir, w.hosts, w.hosts, w.hosts)
	page := string([]byte{0, 0x80, 0, byte(len(serial))}) + serial
	w.disk(name, device, device, size, map[string]string{"vendor": vendor, "model": model, "vpd_pg80": page})
}

// stick adds a USB stick to a port.
func (w *written) stick(dir, name, id, disk, vendor, model, serial string, size int64) {
	usb := w.usb(dir, name, id, "00")
	w.file(usb+"/serial", serial)
	w.scsi(usb+"/"+name+":1.0", disk, vendor, model, serial, size)
	node := w.resolve("block/" + disk)
	w.file(node+"/removable", "1")
}

// resolve returns where a link of /sys leads.
func (w *written) resolve(name string) string {
	return path.Join(path.Dir(name), w.entries["sys/"+name].Link)
}

// trees returns what a capture has as /proc and /sys.
func trees(entries map[string]capture.Entry) (proc, sys fstest.MapFS) {
	proc, sys = fstest.MapFS{}, fstest.MapFS{"block": {Mode: fs.ModeDir | 0o555}}
	for name, e := range entries {
		f := &fstest.MapFile{Data: e.Data, Mode: 0o444}
		if e.Link != "" {
			f = &fstest.MapFile{Data: []byte(e.Link), Mode: fs.ModeSymlink | 0o777}
		}
		if rest, ok := strings.CutPrefix(name, "sys/"); ok {
			sys[rest] = f
		} else if rest, ok := strings.CutPrefix(name, "proc/"); ok {
			proc[rest] = f
		}
	}
	return proc, sys
}

// structure is one of SMBIOS, size bytes long: numbers are bytes at offsets, texts strings.
func structure(typ, size int, numbers map[int][]byte, texts map[int]string) dmi.Structure {
	s := dmi.Structure{Type: typ, Data: make([]byte, size), Version: 0x300}
	s.Data[0], s.Data[1] = byte(typ), byte(size)
	for at, b := range numbers {
		copy(s.Data[at:], b)
	}
	for _, at := range slices.Sorted(maps.Keys(texts)) {
		if texts[at] == "" {
			continue
		}
		s.Strings = append(s.Strings, texts[at])
		s.Data[at] = byte(len(s.Strings))
	}
	return s
}

func word(n int) []byte { return binary.LittleEndian.AppendUint16(nil, uint16(n)) }

// Offsets in structures (DMTF DSP0134 sections 7.1 to 7.5 and 7.18).
const (
	biosVersion, biosDate                               = 0x05, 0x08
	systemSerial                                        = 0x07
	boardProduct, boardVersion                          = 0x05, 0x06
	moduleSize, moduleLocator, moduleSpeed, modulePart  = 0x0c, 0x10, 0x15, 0x1a
	moduleSerial, moduleConfigured, processorVersion, _ = 0x18, 0x20, 0x10, 0
)

// names are the texts of a machine: BIOS vendor, version and date; system manufacturer, product, version, serial number, SKU; board
// manufacturer, product, version, serial number.
type names struct {
	bios, system, board []string
}

func texts(first int, values []string) map[int]string {
	out := map[int]string{}
	for i, v := range values {
		out[first+i] = v
	}
	return out
}

// tables writes the tables of a machine; a processor is its version, a module its locator, size in MiB, speed, part and serial number.
func (w *written) tables(n names, processors []string, modules []module) {
	system := texts(0x04, n.system[:4])
	system[0x19] = n.system[4]
	all := []dmi.Structure{
		structure(0, 0x18, nil, map[int]string{0x04: n.bios[0], biosVersion: n.bios[1], biosDate: n.bios[2]}),
		structure(1, 0x1b, map[int][]byte{0x08: []byte("0123456789abcdef"), 0x18: {6}}, system),
		structure(2, 0x0f, map[int][]byte{0x0d: {10}}, texts(0x04, n.board)),
	}
	for i, p := range processors {
		all = append(all, structure(4, 0x2a, map[int][]byte{0x05: {3}, 0x14: word(2500), 0x16: word(2000), 0x18: {0x41}},
			map[int]string{0x04: fmt.Sprintf("CPU %d", i), processorVersion: p}))
	}
	all = append(all, structure(16, 0x17, map[int][]byte{0x04: {3}, 0x05: {3}, 0x06: {6}, 0x0d: word(len(modules))}, nil)) // multi-bit ECC
	for _, m := range modules {
		all = append(all, m.structure())
	}
	w.setTables(all)
}

// module is a memory module, or an empty slot if its size is 0.
type module struct {
	locator      string
	megs, speed  int
	part, serial string
}

func (m module) structure() dmi.Structure {
	text := map[int]string{moduleLocator: m.locator}
	if m.megs > 0 {
		text[modulePart], text[moduleSerial] = m.part, m.serial
	}
	return structure(17, 0x28, map[int][]byte{0x08: word(72), 0x0a: word(64), moduleSize: word(min(m.megs, 0x7fff)), 0x0e: {9}, 0x12: {0x1a},
		moduleSpeed: word(m.speed), 0x1c: binary.LittleEndian.AppendUint32(nil, uint32(m.megs)), moduleConfigured: word(m.speed)}, text)
}

func (w *written) setTables(all []dmi.Structure) { setTables(w.entries, all) }

// setTables writes an entry point of 64 bits (DSP0134 section 5.2.2) and structures.
func setTables(entries map[string]capture.Entry, all []dmi.Structure) {
	var b []byte
	for i, s := range append(slices.Clone(all), dmi.Structure{Type: 127, Data: []byte{127, 4, 0, 0}}) {
		at := len(b)
		b = append(b, s.Data...)
		binary.LittleEndian.PutUint16(b[at+2:], uint16(i))
		for _, text := range s.Strings {
			b = append(append(b, text...), 0)
		}
		if len(s.Strings) == 0 {
			b = append(b, 0)
		}
		b = append(b, 0)
	}
	e := append([]byte("_SM3_\x00\x18"), 3, 0, 0, 1, 0)
	e = binary.LittleEndian.AppendUint32(e, uint32(len(b)))
	e = binary.LittleEndian.AppendUint64(e, 0x1000)
	for i, v := range e {
		if i != 5 {
			e[5] -= v
		}
	}
	const dir = "sys/firmware/dmi/tables/"
	entries[dir+"DMI"] = capture.Entry{Name: dir + "DMI", Data: b}
	entries[dir+"smbios_entry_point"] = capture.Entry{Name: dir + "smbios_entry_point", Data: e}
}

func newWritten(name, from string, v platform.Variant) *written {
	v.DevCodeName, v.SerNumField = "Q", "system-serial-number"
	return &written{name: name, from: from, variant: v, entries: map[string]capture.Entry{}}
}

func usbRecovery(oui ...string) platform.Variant {
	return platform.Variant{NumDataDisks: 1, NICInfo: platform.NICInfo{MACPrefix: oui},
		RecoveryMedia: platform.RecoveryMedia{ValidateRDMethod: platform.ValidateUSB, Size: 8 * layout.GiB}}
}

// machines are the machines that are changed. The PCI numbers of QEMU are in its docs/specs/pci-ids.rst and hw/; those of other makers in
// the PCI ID repository.
func machines() []*written {
	return []*written{q35(), i440fx(), q35Large(), apu2(), smallServer(), largeServer()}
}

func q35() *written {
	v := platform.Variant{NumDataDisks: 1, NICInfo: platform.NICInfo{MACPrefix: []string{"52:54:00"}},
		RecoveryMedia: platform.RecoveryMedia{Size: 4 * layout.GiB}}
	w := newWritten("QEMU q35, UEFI, virtio", "QEMU 7.2, `-machine q35`, its SMBIOS as it was read", v)
	w.processors("QEMU Virtual CPU version 2.5+", 4, 2)
	w.memory(103)
	for name, file := range map[string]string{"smbios_entry_point": "qemu.entry", "DMI": "qemu.dmi"} {
		b, err := os.ReadFile("../../hw/smbios/testdata/" + file)
		if err != nil {
			panic(err)
		}
		w.entries["sys/firmware/dmi/tables/"+name] = capture.Entry{Name: "sys/firmware/dmi/tables/" + name, Data: b}
	}
	w.pci("", "0000:00:00.0", "8086:29c0", "0600")
	w.pci("", "0000:00:01.0", "1234:1111", "0300")
	w.port(w.pci("", "0000:00:02.0", "1af4:1041", "0200"), "eth0", "52:54:00:12:34:56")
	w.port(w.pci("", "0000:00:03.0", "1af4:1041", "0200"), "eth1", "52:54:00:12:34:57")
	w.virtioDisk(w.pci("", "0000:00:04.0", "1af4:1042", "0100"), "vda", "V-1", 16*layout.GiB)
	w.virtioDisk(w.pci("", "0000:00:05.0", "1af4:1042", "0100"), "vdb", "V-2", 4*layout.GiB)
	w.pci("", "0000:00:1f.0", "8086:2918", "0601")
	w.pci("", "0000:00:1f.2", "8086:2922", "0106")
	w.pci("", "0000:00:1f.3", "8086:2930", "0c05")
	w.file("firmware/efi/fw_platform_size", "64")
	return w
}

func i440fx() *written {
	w := newWritten("QEMU pc, BIOS, IDE", "QEMU 7.2, `-machine pc`", usbRecovery("52:54:00"))
	w.processors("QEMU Virtual CPU version 2.5+", 1, 1)
	w.memory(486)
	w.tables(names{[]string{"SeaBIOS", "1.16.2-debian-1.16.2-1", "04/01/2014"},
		[]string{"QEMU", "Standard PC (i440FX + PIIX, 1996)", "pc-i440fx-7.2", "SN-0002", ""}, []string{"QEMU", "small", "r1", "B-2"}},
		[]string{"pc-i440fx-7.2"}, []module{{"DIMM 0", 512, 0, "PN-1", "M-2"}})
	w.pci("", "0000:00:00.0", "8086:1237", "0600")
	w.pci("", "0000:00:01.0", "8086:7000", "0601")
	ide := w.pci("", "0000:00:01.1", "8086:7010", "0101")
	w.scsi(ide+"/ata1", "sda", "ATA", "QEMU HARDDISK", "QM00001", 8*layout.GiB)
	w.pci("", "0000:00:01.3", "8086:7113", "0680")
	w.port(w.pci("", "0000:00:03.0", "8086:100e", "0200"), "eth0", "52:54:00:12:34:56")
	hub := w.usb(w.pci("", "0000:00:04.0", "1b36:000d", "0c03"), "usb1", "1d6b:0002", "09")
	w.stick(hub, "1-1", "46f4:0001", "sdb", "QEMU", "QEMU HARDDISK", "1-0000:00:04.0-1", 8*layout.GiB)
	return w
}

func q35Large() *written {
	v := usbRecovery("52:54:00")
	v.NumDataDisks = 2
	w := newWritten("QEMU q35, two sockets, NVMe, igb", "QEMU 8.0, `-machine q35 -smp 8,sockets=2`", v)
	w.processors("Intel Xeon Processor (Skylake)", 8, 2)
	w.memory(15990)
	w.tables(names{[]string{"EFI Development Kit II / OVMF", "edk2-20230524", "05/24/2023"},
		[]string{"QEMU", "Standard PC (Q35 + ICH9, 2009)", "pc-q35-8.0", "SN-0003", "SKU-3"}, []string{"QEMU", "large", "r2", "B-3"}},
		[]string{"pc-q35-8.0", "pc-q35-8.0"}, []module{{"DIMM 0", 8192, 2400, "PN-8", "M-3"}, {"DIMM 1", 8192, 2400, "PN-8", "M-4"}})
	w.pci("", "0000:00:00.0", "8086:29c0", "0600")
	for i := range 2 {
		bridge := w.pci("", fmt.Sprintf("0000:00:0%d.0", i+1), "1b36:000c", "0604")
		w.port(w.pci(bridge, fmt.Sprintf("0000:0%d:00.0", i+1), "8086:10c9", "0200"), fmt.Sprintf("eth%d", i),
			fmt.Sprintf("52:54:00:00:00:%02x", i+0xff-1))
	}
	for i := range 2 {
		w.nvme(w.pci("", fmt.Sprintf("0000:00:0%d.0", i+3), "1b36:0010", "0108"), i, "QEMU NVMe Ctrl", fmt.Sprintf("N-%d", i), 32*layout.GiB)
	}
	hub := w.usb(w.pci("", "0000:00:05.0", "1b36:000d", "0c03"), "usb1", "1d6b:0003", "09")
	w.stick(hub, "1-1", "46f4:0001", "sda", "QEMU", "QEMU HARDDISK", "S-1", 8*layout.GiB)
	w.file("firmware/efi/fw_platform_size", "64")
	return w
}

func apu2() *written {
	v := platform.Variant{NumDataDisks: 1, NICInfo: platform.NICInfo{MACPrefix: []string{"00:0d:b9"}},
		RecoveryMedia: platform.RecoveryMedia{Bus: []platform.Bus{platform.MMC}, Size: 7948206080}}
	w := newWritten("PC Engines apu2c4",
		"what coreboot and the maker publish of the board; PCI numbers and values of the board from memory", v)
	w.processors("AMD GX-412TC SOC", 4, 1)
	w.memory(3936)
	w.tables(names{[]string{"coreboot", "v4.17.0.3", "01/20/2023"}, []string{"PC Engines", "apu2", "1.0", "1234567", "4 GB"},
		[]string{"PC Engines", "apu2", "1.0", "1234567"}}, []string{"AMD GX-412TC SOC"},
		[]module{{"DIMM 0", 4096, 1333, "K4B4G0846D-BYK0", "00000000"}})
	w.pci("", "0000:00:00.0", "1022:1566", "0600")
	for i := range 3 {
		bridge := w.pci("", fmt.Sprintf("0000:00:02.%d", i+2), "1022:1439", "0604")
		w.port(w.pci(bridge, fmt.Sprintf("0000:0%d:00.0", i+1), "8086:157b", "0200"), fmt.Sprintf("eth%d", i),
			fmt.Sprintf("00:0d:b9:4a:00:%02x", i+0x10))
	}
	xhci := w.pci("", "0000:00:10.0", "1022:7814", "0c03")
	w.usb(xhci, "usb1", "1d6b:0002", "09")
	w.usb(xhci, "usb2", "1d6b:0003", "09")
	sata := w.pci("", "0000:00:11.0", "1022:7801", "0106")
	w.scsi(sata+"/ata1", "sda", "ATA", "SATA SSD", "67F407301111", 16013942784)
	w.usb(w.usb(w.pci("", "0000:00:13.0", "1022:7808", "0c03"), "usb3", "1d6b:0002", "09"), "3-1", "0438:7900", "09")
	card := w.pci("", "0000:00:14.7", "1022:7813", "0805") + "/mmc_host/mmc0/mmc0:0001"
	w.disk("mmcblk0", card, card, 7948206080, map[string]string{"name": "SL08G", "serial": "0x1234abcd"})
	w.pci("", "0000:00:14.3", "1022:780e", "0601")
	return w
}

func smallServer() *written {
	v := platform.Variant{NumDataDisks: 2, NICInfo: platform.NICInfo{MACPrefix: []string{"ac:1f:6b"}},
		RecoveryMedia: platform.RecoveryMedia{ValidateRDMethod: platform.ValidateSATA, Size: 64023257088}}
	w := newWritten("Supermicro X10SDV, Xeon D",
		"what the board's manual names; PCI numbers and values of the board from memory", v)
	w.processors("Intel(R) Xeon(R) CPU D-1528 @ 1.90GHz", 12, 1)
	w.memory(32048)
	w.tables(names{[]string{"American Megatrends Inc.", "2.1", "11/22/2019"},
		[]string{"Supermicro", "SYS-E200-8D", "0123456789", "S215378X7B01234", "To be filled by O.E.M."},
		[]string{"Supermicro", "X10SDV-6C+-TLN4F", "1.03", "UM178S012345"}}, []string{"Intel(R) Xeon(R) CPU D-1528 @ 1.90GHz"},
		[]module{{"DIMMA1", 16384, 2133, "36ASF2G72PZ-2G1A2", "0F2B6D11"}, {"DIMMA2", 0, 0, "", ""},
			{"DIMMB1", 16384, 2133, "36ASF2G72PZ-2G1A2", "0F2B6D12"}, {"DIMMB2", 0, 0, "", ""}})
	w.pci("", "0000:00:00.0", "8086:6f00", "0600")
	gigabit := w.pci("", "0000:00:1c.0", "8086:8c10", "0604")
	ten := w.pci("", "0000:00:02.0", "8086:6f04", "0604")
	for i := range 2 {
		w.port(w.express(w.pci(gigabit, fmt.Sprintf("0000:05:00.%d", i), "8086:1521", "0200"), "5.0", 2, "5.0", 4), fmt.Sprintf("eth%d", i),
			fmt.Sprintf("ac:1f:6b:7b:2c:%02x", i+0x10))
		w.port(w.pci(ten, fmt.Sprintf("0000:03:00.%d", i), "8086:15ad", "0200"), fmt.Sprintf("eth%d", i+2),
			fmt.Sprintf("ac:1f:6b:7b:2c:%02x", i+0x12))
	}
	w.pci(w.pci("", "0000:00:1c.4", "8086:8c18", "0604"), "0000:07:00.0", "1a03:2000", "0300")
	sata := w.pci("", "0000:00:1f.2", "8086:8c02", "0106")
	w.scsi(sata+"/ata1", "sda", "ATA", "Samsung SSD 860", "S3Z9NB0K111111A", 500107862016)
	w.scsi(sata+"/ata2", "sdb", "ATA", "Samsung SSD 860", "S3Z9NB0K111112B", 500107862016)
	w.scsi(sata+"/ata5", "sdc", "ATA", "SuperMicro SSD", "SMC0515D9171", 64023257088)
	hub := w.usb(w.pci("", "0000:00:14.0", "8086:8c31", "0c03"), "usb1", "1d6b:0002", "09")
	w.usb(w.usb(hub, "1-14", "0557:7000", "09"), "1-14.1", "0557:2419", "00") // the BMC's hub and keyboard
	w.security(true, "0x700001c")
	w.file("firmware/efi/fw_platform_size", "64")
	return w
}

func largeServer() *written {
	v := usbRecovery("3c:ec:ef")
	v.NumDataDisks, v.RecoveryMedia.Size = 2, 8004304896
	w := newWritten("two-socket EPYC server, 16 of 32 modules",
		"composed in the shape of published output of dmidecode and lspci, values from memory", v)
	w.processors("AMD EPYC 7302 16-Core Processor", 64, 2)
	w.memory(515700)
	var modules []module
	for i := range 32 {
		m := module{locator: fmt.Sprintf("P%d DIMM %d", i/16, i%16+1)}
		if i%2 == 0 {
			m.megs, m.speed, m.part, m.serial = 32<<10, 2933, "M393A4K40DB2-CVF", fmt.Sprintf("440FEB%02X", i)
		}
		modules = append(modules, m)
	}
	w.tables(names{[]string{"American Megatrends Inc.", "R23", "07/14/2021"},
		[]string{"Example", "R282", "0100", "GJG2N0001", "01234567890123456789AB"},
		[]string{"Example", "MZ92-FS0-00", "01000300", "JG2N0001"}}, []string{"AMD EPYC 7302 16-Core Processor",
		"AMD EPYC 7302 16-Core Processor"}, modules)
	w.pci("", "0000:00:00.0", "1022:1480", "0600")
	for i := range 2 {
		bridge := w.pci("", fmt.Sprintf("0000:00:0%d.1", i+1), "1022:1483", "0604")
		w.nvme(w.express(w.pci(bridge, fmt.Sprintf("0000:0%d:00.0", i+1), "144d:a808", "0108"), "8.0", 4, "8.0", 4), i,
			"SAMSUNG MZQLB960HAJR-00007", fmt.Sprintf("S437NA0N%d", i), 960197124096)
		card := w.pci("", fmt.Sprintf("0000:00:0%d.2", i+3), "1022:1483", "0604")
		for k := range 2 {
			w.port(w.pci(card, fmt.Sprintf("0000:4%d:00.%d", i, k), []string{"8086:1572", "8086:1521"}[i], "0200"), fmt.Sprintf("eth%d", 2*i+k),
				fmt.Sprintf([]string{"3c:fd:fe:00:00:%02x", "3c:ec:ef:00:00:%02x"}[i], 2*i+k))
		}
	}
	w.pci("", "0000:00:06.0", "1a03:2000", "0300")
	hub := w.usb(w.pci("", "0000:00:07.3", "1022:148c", "0c03"), "usb1", "1d6b:0002", "09")
	w.stick(hub, "1-2", "0781:5571", "sda", "SanDisk", "Cruzer Fit", "4C530001", 8004304896)
	w.usb(hub, "1-1", "046b:ff10", "00")
	w.security(false, "0x8301055")
	w.file("firmware/efi/fw_platform_size", "64")
	return w
}
