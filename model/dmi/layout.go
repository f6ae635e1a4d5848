package dmi

import "sync"

// layouts are the fields of each type: DSP0134 version 3.5, section 7.(N+1) for type N.
var layouts = sync.OnceValue(func() map[int][]row {
	none16 := map[int]string{0xffff: absent}
	unknown0 := map[int]string{0: unknown}
	unknown8000 := map[int]string{0x8000: unknown}
	unknown255 := map[int]string{0: outOfSpec, 0xff: unknown}
	temperature := probe("temperature-location", 10, "%.1f deg C", 1000, "%.3f deg C")
	return map[int][]row{
		0: {
			least(0x12), text("Vendor", 4), text("Version", 5), text("Release Date", 8),
			field("Address", biosAddress), field("Runtime Size", biosRuntime), field("ROM Size", biosROM),
			{name: "Characteristics", value: empty, list: biosCharacteristics},
			least(0x18), field("BIOS Revision", revision(0x14)), field("Firmware Revision", revision(0x16)),
		},
		1: {
			least(8), text("Manufacturer", 4), text("Product Name", 5), text("Version", 6), text("Serial Number", 7),
			least(0x19), field("UUID", systemUUID), enum("Wake-up Type", "wake-up", 0x18, 0, 0),
			least(0x1b), text("SKU Number", 0x19), text("Family", 0x1a),
		},
		2: {
			least(8), text("Manufacturer", 4), text("Product Name", 5), text("Version", 6), text("Serial Number", 7),
			least(9), text("Asset Tag", 8),
			least(0xa), set("Features", "board", 9, 1),
			least(0xe), text("Location In Chassis", 0xa), handle("Chassis Handle", 0xb, nil), enum("Type", "board", 0xd, 0, 0),
			{need: behind(0xf, 0xe, 2)}, counted("Contained Object Handles", handleList(0xe, 0xf), byteAt(0xe)),
		},
		3: {
			least(9), text("Manufacturer", 4), enum("Type", "chassis", 5, 0, 7), field("Lock", flag(5, 7, "Present", "Not Present")),
			text("Version", 6), text("Serial Number", 7), text("Asset Tag", 8),
			least(0xd), enum("Boot-up State", "chassis-state", 9, 0, 0), enum("Power Supply State", "chassis-state", 0xa, 0, 0),
			enum("Thermal State", "chassis-state", 0xb, 0, 0), enum("Security Status", "chassis-security", 0xc, 0, 0),
			least(0x11), wide("OEM Information", 0xd, 0, ""),
			least(0x13), byteNumber("Height", 0x11, "%d U", map[int]string{0: "Unspecified"}), byteNumber("Number Of Power Cords", 0x12, "%d",
				map[int]string{0: "Unspecified"}),
			least(0x15), {need: chassisEnd(0)}, counted("Contained Elements", chassisElements, byteAt(0x13)),
			{need: chassisEnd(1)}, field("SKU Number", func(s Structure) string { return s.str(s.u8(chassisEnd(0)(s))) }),
		},
		4: {
			least(0x1a), text("Socket Designation", 4), enum("Type", "processor", 5, 0, 0), field("Family", processorFamily), text("Manufacturer",
				7),
			field("ID", processorID), {several: processorSignature, names: []string{"Signature", "Flags"}},
			text("Version", 0x10), field("Voltage", voltages(0x11)), number("External Clock", 0x12, "%d MHz", unknown0),
			number("Max Speed", 0x14, "%d MHz", unknown0), number("Current Speed", 0x16, "%d MHz", unknown0), field("Status", processorStatus),
			enum("Upgrade", "processor-upgrade", 0x19, 0, 0),
			least(0x20), field("L1 Cache Handle", cacheHandle(0x1a, 1)), field("L2 Cache Handle", cacheHandle(0x1c, 2)), field("L3 Cache Handle",
				cacheHandle(0x1e, 3)),
			least(0x23), text("Serial Number", 0x20), text("Asset Tag", 0x21), text("Part Number", 0x22),
			least(0x28), field("Core Count", cores(0x23, 0x2a)), field("Core Enabled", cores(0x24, 0x2c)), field("Thread Count", cores(0x25, 0x2e)),
			lines("Characteristics", processorCharacteristics),
		},
		5: {
			least(0xf), enum("Error Detecting Method", "error-detection", 4, 0, 0), set("Error Correcting Capabilities", "controller-correction", 5,
				1),
			enum("Supported Interleave", "interleave", 6, 0, 0), enum("Current Interleave", "interleave", 7, 0, 0),
			field("Maximum Memory Module Size", moduleLimit(nil)), field("Maximum Total Memory Size", moduleLimit(byteAt(0xe))),
			set("Supported Speeds", "controller-speed", 9, 2), set("Supported Memory Types", "module", 0xb, 2), field("Memory Module Voltage",
				voltages(0xd)),
			{need: behind(0xf, 0xe, 2)}, counted("Associated Memory Slots", handleList(0xe, 0xf), byteAt(0xe)),
			{need: behind(0x10, 0xe, 2)}, lines("Enabled Error Correcting Capabilities", func(s Structure) []string {
				return bitNames("controller-correction", uint64(s.u8(0xf+2*s.u8(0xe))))
			}),
		},
		6: {
			least(0xc), text("Socket Designation", 4), field("Bank Connections", banks), byteNumber("Current Speed", 6, "%d ns", unknown0),
			inline("Type", "module", 7), field("Installed Size", moduleSize(9)), field("Enabled Size", moduleSize(0xa)), field("Error Status",
				moduleErrors),
		},
		7: {
			least(0xf), text("Socket Designation", 4), field("Configuration", cacheConfiguration), enum("Operational Mode", "cache-mode", 5, 8, 2),
			enum("Location", "cache-location", 5, 5, 2), field("Installed Size", cacheSize(9, 0x17)), field("Maximum Size", cacheSize(7, 0x13)),
			set("Supported SRAM Types", "sram", 0xb, 2), inline("Installed SRAM Type", "sram", 0xd),
			least(0x13), byteNumber("Speed", 0xf, "%d ns", unknown0), enum("Error Correction Type", "cache-correction", 0x10, 0, 0),
			enum("System Type", "cache-type", 0x11, 0, 0), enum("Associativity", "associativity", 0x12, 0, 0),
		},
		8: {
			least(9), text("Internal Reference Designator", 4), enum("Internal Connector Type", "connector", 5, 0, 0),
			text("External Reference Designator", 6), enum("External Connector Type", "connector", 7, 0, 0), enum("Port Type", "port", 8, 0, 0),
		},
		9: {
			least(0xc), text("Designation", 4), field("Type", slotType), enum("Current Usage", "slot-usage", 7, 0, 0), enum("Length", "slot-length",
				8, 0, 0),
			field("ID", slotID), {name: "Characteristics", value: slotHeading, list: slotCharacteristics},
			least(0x11), field("Bus Address", busAddress(0xd)),
			least(0x13), byteNumber("Data Bus Width", 0x11, "%d", nil), byteNumber("Peer Devices", 0x12, "%d", nil),
			{need: behind(0x13, 0x12, 5)}, {several: slotPeers, names: []string{"Peer Device %d"}},
			{need: behind(0x17, 0x12, 5)}, field("PCI Express Generation", slotGeneration), field("Slot Physical Width", slotWidth), field("Pitch",
				slotPitch),
			{need: behind(0x18, 0x12, 5)}, field("Height", func(s Structure) string { return named("slot-height", s.u8(0x17+5*s.u8(0x12))) }),
		},
		10: {{several: onBoardDevices, names: []string{"Type", "Status", "Description"}}},
		11: {least(5), {several: numberedStrings("String"), names: []string{"String %d"}}},
		12: {least(5), {several: numberedStrings("Option"), names: []string{"Option %d"}}},
		13: {
			least(0x16), field("Language Description Format", languageFormat), counted("Installable Languages", languages, byteAt(4)),
			text("Currently Installed Language", 0x15),
		},
		14: {least(5), text("Name", 4), counted("Items", groupItems, func(s Structure) int { return (len(s.Data) - 5) / 3 })},
		15: {
			least(0x14), number("Area Length", 4, "%d bytes", nil), handle("Header Start Offset", 6, nil), field("Header Length", logHeader),
			handle("Data Start Offset", 8, nil), enum("Access Method", "log-method", 0xa, 0, 0), field("Access Address", logAddress),
			field("Status", logStatus),
			wide("Change Token", 0xc, 0, ""),
			least(0x17), enum("Header Format", "log-header", 0x14, 0, 0), byteNumber("Supported Log Type Descriptors", 0x15, "%d", nil),
			{several: logDescriptors, names: []string{"Descriptor %d", "Data Format %d"}},
		},
		16: {
			least(0xf), enum("Location", "array-location", 4, 0, 0), enum("Use", "array-use", 5, 0, 0), enum("Error Correction Type",
				"array-correction", 6, 0, 0),
			field("Maximum Capacity", arrayCapacity), handle("Error Information Handle", 0xb, errorHandles()), number("Number Of Devices", 0xd,
				"%d", nil),
		},
		17: memoryDevice(),
		18: {
			least(0x17), enum("Type", "memory-error", 4, 0, 0), enum("Granularity", "memory-granularity", 5, 0, 0), enum("Operation",
				"memory-operation", 6, 0, 0),
			wide("Vendor Syndrome", 7, 0, unknown), wide("Memory Array Address", 0xb, 1<<31, unknown), wide("Device Address", 0xf, 1<<31, unknown),
			wide("Resolution", 0x13, 1<<31, unknown),
		},
		19: {
			least(0xf), field("Starting Address", mappedStart(0xf)), field("Ending Address", mappedEnd(0xf)), field("Range Size", mappedSize(0xf)),
			handle("Physical Array Handle", 0xc, nil), byteNumber("Partition Width", 0xe, "%d", nil),
		},
		20: {
			least(0x13), field("Starting Address", mappedStart(0x13)), field("Ending Address", mappedEnd(0x13)), field("Range Size",
				mappedSize(0x13)),
			handle("Physical Device Handle", 0xc, nil), handle("Memory Array Mapped Address Handle", 0xe, nil),
			byteNumber("Partition Row Position", 0x10, "%d", unknown255), byteNumber("Interleave Position", 0x11, "%d", map[int]string{0: absent,
				0xff: unknown}),
			byteNumber("Interleaved Data Depth", 0x12, "%d", map[int]string{0: absent, 0xff: unknown}),
		},
		21: {least(7), enum("Type", "pointing", 4, 0, 0), enum("Interface", "pointing-interface", 5, 0, 0), byteNumber("Buttons", 6, "%d", nil)},
		22: {
			least(0x10), text("Location", 4), text("Manufacturer", 5), field("Manufacture Date", batteryOwn(6)), field("Serial Number",
				batteryOwn(7)), text("Name", 8),
			field("Chemistry", batteryChemistry), field("Design Capacity", batteryCapacity), number("Design Voltage", 0xc, "%d mV", unknown0),
			text("SBDS Version", 0xe),
			byteNumber("Maximum Error", 0xf, "%d%%", map[int]string{0xff: unknown}),
			least(0x1a), field("SBDS Serial Number", unless(7, func(s Structure) string { return worded(s.u16(0x10), "%04X", nil) })),
			field("SBDS Manufacture Date", unless(6, batteryDate)), field("SBDS Chemistry", batterySmartChemistry), wide("OEM-specific Information",
				0x16, 0, ""),
		},
		23: {
			least(0xd), field("Status", flag(4, 0, "Enabled", "Disabled")), field("Watchdog Timer", flag(4, 5, "Present", "Not Present")),
			{need: ifBit(4, 5)}, enum("Boot Option", "boot-option", 4, 1, 2), enum("Boot Option On Limit", "boot-option", 4, 3, 2),
			number("Reset Count", 5, "%d", map[int]string{0xffff: unknown}), number("Reset Limit", 7, "%d", map[int]string{0xffff: unknown}),
			number("Timer Interval", 9, "%d min", map[int]string{0xffff: unknown}), number("Timeout", 0xb, "%d min",
				map[int]string{0xffff: unknown}),
		},
		24: {
			least(5), enum("Power-On Password Status", "security", 4, 6, 2), enum("Keyboard Password Status", "security", 4, 4, 2),
			enum("Administrator Password Status", "security", 4, 2, 2), enum("Front Panel Reset Status", "security", 4, 0, 2),
		},
		25: {least(9), field("Next Scheduled Power-on", powerOn)},
		26: probe("probe-location", 1000, "%.3f V", 10, "%.1f mV"),
		27: {
			least(0xc), handle("Temperature Probe Handle", 4, none16), enum("Type", "cooling", 6, 0, 5), enum("Status", "probe-status", 6, 5, 3),
			byteNumber("Cooling Unit Group", 7, "%d", map[int]string{0: absent}), wide("OEM-specific Information", 8, 0, ""),
			least(0xe), number("Nominal Speed", 0xc, "%d rpm", map[int]string{0x8000: "Unknown Or Non-rotating"}),
			least(0xf), text("Description", 0xe),
		},
		28: temperature,
		29: probe("probe-location", 1000, "%.3f A", 10, "%.1f mA"),
		30: {
			least(6), text("Manufacturer Name", 4), field("Inbound Connection", flag(5, 0, "Enabled", "Disabled")), field("Outbound Connection",
				flag(5, 1, "Enabled", "Disabled")),
		},
		31: {
			least(0x1c), field("Checksum", integrityChecksum), field("16-bit Entry Point Address", integrityEntry),
			wide("32-bit Entry Point Address", 0xc, 0, ""),
		},
		32: {least(0xb), enum("Status", "boot-status", 0xa, 0, 0)},
		33: {
			least(0x1f), enum("Type", "memory-error", 4, 0, 0), enum("Granularity", "memory-granularity", 5, 0, 0), enum("Operation",
				"memory-operation", 6, 0, 0),
			wide("Vendor Syndrome", 7, 0, unknown), field("Memory Array Address", errorAddress(0xb)), field("Device Address", errorAddress(0x13)),
			wide("Resolution", 0x1b, 1<<31, unknown),
		},
		34: {
			least(0xb), text("Description", 4), enum("Type", "management", 5, 0, 0), wide("Address", 6, 0, ""), enum("Address Type",
				"management-address", 0xa, 0, 0),
		},
		35: {
			least(0xb), text("Description", 4), handle("Management Device Handle", 5, nil), handle("Component Handle", 7, nil),
			handle("Threshold Handle", 9, none16),
		},
		36: {
			least(0x10), field("Lower Non-critical Threshold", threshold(4)), field("Upper Non-critical Threshold", threshold(6)),
			field("Lower Critical Threshold", threshold(8)),
			field("Upper Critical Threshold", threshold(0xa)), field("Lower Non-recoverable Threshold", threshold(0xc)),
			field("Upper Non-recoverable Threshold", threshold(0xe)),
		},
		37: {
			least(7), enum("Type", "channel", 4, 0, 0), byteNumber("Maximal Load", 5, "%d", nil), byteNumber("Devices", 6, "%d", nil),
			{need: behind(7, 6, 3)}, {several: channelDevices, names: []string{"Device %d Load", "Device %d Handle"}},
		},
		38: {
			least(0x10), enum("Interface Type", "ipmi", 4, 0, 0), field("Specification Version",
				func(s Structure) string { return nibbles(s.u8(5)) }),
			field("I2C Slave Address", func(s Structure) string { return worded(s.u8(6)>>1, "0x%02x", nil) }),
			field("NV Storage Device", ipmiStorage(true)), field("NV Storage Device Address", ipmiStorage(false)), field("Base Address", ipmiBase),
			least(0x12), {several: ipmiInterrupt, names: []string{"Register Spacing", "Interrupt Polarity", "Interrupt Trigger Mode"}},
			byteNumber("Interrupt Number", 0x11, "%d", map[int]string{0: absent}),
		},
		39: {
			least(0x10), byteNumber("Power Unit Group", 4, "%d", map[int]string{0: absent}), text("Location", 5), text("Name", 6),
			text("Manufacturer", 7), text("Serial Number", 8),
			text("Asset Tag", 9), text("Model Part Number", 0xa), text("Revision", 0xb), number("Max Power Capacity", 0xc, "%d W", unknown8000),
			field("Status", supplyStatus), enum("Type", "supply", 0xe, 10, 4), enum("Input Voltage Range Switching", "supply-switching", 0xe, 3, 4),
			field("Plugged", flag(0xe, 2, "No", "Yes")), field("Hot Replaceable", flag(0xe, 0, "Yes", "No")),
			least(0x16), handle("Input Voltage Probe Handle", 0x10, none16), handle("Cooling Device Handle", 0x12, none16),
			handle("Input Current Probe Handle", 0x14, none16),
		},
		40: {least(0xb), {several: additional, names: []string{"Referenced Handle", "Referenced Offset", "String", "Value"}}},
		41: {
			least(0xb), text("Reference Designation", 4), enum("Type", "onboard", 5, 0, 7), field("Status", flag(5, 7, "Enabled", "Disabled")),
			byteNumber("Type Instance", 6, "%d", nil), field("Bus Address", busAddress(7)),
		},
		42: {{several: hostInterface, names: hostInterfaceNames()}},
		43: {
			least(0x1b), field("Vendor ID", tpmVendor), field("Specification Version", func(s Structure) string {
				return dotted(s.u8(8),
					s.u8(9))
			}), field("Firmware Revision", tpmFirmware),
			text("Description", 0x12), {name: "Characteristics", value: empty, list: tpmCharacteristics},
			least(0x1f), wide("OEM-specific Information", 0x1b, 0, ""),
		},
		45: {
			least(0x18), text("Firmware Component Name", 4), text("Firmware Version", 5), text("Firmware ID", 7), text("Release Date", 9),
			text("Manufacturer", 0xa),
			text("Lowest Supported Firmware Version", 0xb), field("Image Size", byteSize(0xc)), {name: "Characteristics", value: empty,
				list: firmwareCharacteristics},
			enum("State", "firmware-state", 0x16, 0, 0),
			{need: behind(0x18, 0x17, 2)}, counted("Associated Components", handleList(0x17, 0x18), byteAt(0x17)),
		},
		126: {}, // inactive
		127: {}, // the end of the tables
	}
})

// unknownLayout is that of types that are not known.
func unknownLayout() []row {
	return []row{
		{name: "Header and Data", value: empty, list: hexLines},
		{several: rawStrings, names: []string{"Strings"}},
	}
}

func memoryDevice() []row {
	unknown0 := map[int]string{0: unknown}
	width := map[int]string{0: unknown, 0xffff: unknown}
	return []row{
		least(0x15), handle("Array Handle", 4, nil), handle("Error Information Handle", 6, errorHandles()), number("Total Width", 8, "%d bits",
			width),
		number("Data Width", 0xa, "%d bits", width), field("Size", memorySize), enum("Form Factor", "memory-form", 0xe, 0, 0),
		byteNumber("Set", 0xf, "%d", map[int]string{0: none, 0xff: unknown}), text("Locator", 0x10), text("Bank Locator", 0x11),
		enum("Type", "memory", 0x12, 0, 0), inline("Type Detail", "memory-detail", 0x13),
		{need: ifModule}, least(0x17), field("Speed", memorySpeed(0x15, 0x54)),
		least(0x1b), text("Manufacturer", 0x17), text("Serial Number", 0x18), text("Asset Tag", 0x19), text("Part Number", 0x1a),
		least(0x1c), field("Rank", func(s Structure) string { return worded(s.u8(0x1b)&0xf, "%d", unknown0) }),
		least(0x22), field("Configured Memory Speed", memorySpeed(0x20, 0x58)),
		least(0x28), field("Minimum Voltage", memoryVoltage(0x22)), field("Maximum Voltage", memoryVoltage(0x24)), field("Configured Voltage",
			memoryVoltage(0x26)),
		least(0x34), enum("Memory Technology", "memory-technology", 0x28, 0, 0), field("Memory Operating Mode Capability", memoryMode),
		text("Firmware Version", 0x2b),
		field("Module Manufacturer ID", manufacturerID(0x2c)), number("Module Product ID", 0x2e, "0x%04X", unknown0),
		field("Memory Subsystem Controller Manufacturer ID", manufacturerID(0x30)), number("Memory Subsystem Controller Product ID", 0x32,
			"0x%04X", unknown0),
		least(0x3c), field("Non-Volatile Size", byteSize(0x34)),
		least(0x44), field("Volatile Size", byteSize(0x3c)),
		least(0x4c), field("Cache Size", byteSize(0x44)),
		least(0x54), field("Logical Size", byteSize(0x4c)),
	}
}

// probe is the layout of types 26, 28 and 29. Values are divided by scale, the resolution by fine.
func probe(location string, scale float64, format string, fine float64, fineFormat string) []row {
	return []row{
		least(0x14), text("Description", 4), enum("Location", location, 5, 0, 5), enum("Status", "probe-status", 5, 5, 3),
		field("Maximum Value", scaled(6, scale, format)), field("Minimum Value", scaled(8, scale, format)),
		field("Resolution", scaledUnsigned(0xa, fine, fineFormat)), field("Tolerance", scaled(0xc, scale, format)),
		field("Accuracy", scaledUnsigned(0xe, 100, "%.2f%%")), wide("OEM-specific Information", 0x10, 0, ""),
		least(0x16), field("Nominal Value", scaled(0x14, scale, format)),
	}
}

func errorHandles() map[int]string { return map[int]string{0xfffe: "Not Provided", 0xffff: "No Error"} }
