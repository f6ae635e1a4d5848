package manifest

import (
	"fmt"
	"strings"
	"testing"
)

// TestNonsense puts one value that means nothing into a specification that is fine, and wants it refused at its place.
func TestNonsense(t *testing.T) {
	text := func(key, value string) string {
		return fmt.Sprintf(`{"ValidationData": [{"DevCodeName": "q", "MainDiskConfigs": [[{"Size": 1}]], %q: %s}]}`, key, value)
	}
	refused := func(key, value string) (paths []string) {
		t.Helper()
		m, err := Parse([]byte(text(key, value)))
		if err != nil {
			t.Fatalf("%s %s: %v", key, value, err)
		}
		for _, r := range m.Refusals(Rules{Prefix: "X.", BootFile: "b"}) {
			if strings.HasPrefix(r.Path, "ValidationData") {
				paths = append(paths, strings.TrimPrefix(r.Path, "ValidationData[0]."))
			}
		}
		return paths
	}
	for _, tt := range []struct{ key, value, path string }{
		{"DiskHealth", `{"UsedPctMax": -1}`, "DiskHealth.UsedPctMax"},
		{"DiskHealth", `{"UsedPctMax": 255}`, "DiskHealth.UsedPctMax"},
		{"DiskHealth", `{"SparePctMin": 0}`, "DiskHealth.SparePctMin"},
		{"DiskHealth", `{"SparePctMin": 101}`, "DiskHealth.SparePctMin"},
		{"DiskHealth", `{"CelsiusMax": 0}`, "DiskHealth.CelsiusMax"},
		{"DiskHealth", `{"CelsiusMax": 310}`, "DiskHealth.CelsiusMax"},
		{"DiskHealth", `{"PowerOnHoursMax": -1}`, "DiskHealth.PowerOnHoursMax"},
		{"DiskHealth", `{"StartsMax": -1}`, "DiskHealth.StartsMax"},
		{"DiskHealth", `{"ReallocatedMax": -1}`, "DiskHealth.ReallocatedMax"},
		{"DiskHealth", `{"PendingMax": -1}`, "DiskHealth.PendingMax"},
		{"DiskHealth", `{"UncorrectableMax": -1}`, "DiskHealth.UncorrectableMax"},
		{"DiskHealth", `{"LinkErrorsMax": -1}`, "DiskHealth.LinkErrorsMax"},
		{"DiskHealth", `{"WrittenGiBMax": -1}`, "DiskHealth.WrittenGiBMax"},
		{"Ports", `[{"Driver": "igb"}]`, "Ports[0]"},
		{"Ports", `[{"CanMbps": -1}]`, "Ports[0]"},
		{"Ports", `[{"CanMbps": 1000}, {"FullSpeed": true, "LinkMbps": -1}]`, "Ports[1]"},
		{"MemoryModules", `[{"SizeMiB": 0}]`, "MemoryModules[0]"},
		{"MemoryModules", `[{"SizeMiB": 1, "SpeedMTs": -1}]`, "MemoryModules[0]"},
		{"MemoryModules", `[{"SizeMiB": 1, "Quantity": 1001}]`, "MemoryModules[0]"},
		{"MemoryECC", `"ECC"`, "MemoryECC"},
		{"TPM", `"2"`, "TPM"},
		{"SecureBoot", `"yes"`, "SecureBoot"},
		{"FirmwareVer", `{"Microcode": "new"}`, "FirmwareVer.Microcode"},
		{"Devices", `{"PCI": [{"Vendor": "1", "Device": "1", "Class": "1", "Quantity": 1, "LinkMTs": 8, "LinkLanes": 64}]}`, "Devices.PCI[0]"},
		{"Devices", `{"PCI": [{"Vendor": "1", "Device": "1", "Class": "1", "Quantity": 1, "LinkMTs": -1}]}`, "Devices.PCI[0]"},
		{"Devices", `{"USB": [{"Vendor": "1", "Device": "1", "Class": "1", "Quantity": 1, "FullLink": true}]}`, "Devices.USB[0]"},
	} {
		if got := refused(tt.key, tt.value); len(got) != 1 || got[0] != tt.path {
			t.Errorf("%s %s: refused at %q, want %q", tt.key, tt.value, got, tt.path)
		}
	}
	for _, tt := range []struct{ key, value string }{
		{"DiskHealth", `{"NotFailing": true, "UsedPctMax": 0, "SparePctMin": 1, "CelsiusMax": 70, "PowerOnHoursMax": 0, "StartsMax": 0,
			"ReallocatedMax": 0, "PendingMax": 0, "UncorrectableMax": 0, "LinkErrorsMax": 0, "WrittenGiBMax": 0}`},
		{"Ports", `[{"CanMbps": 1000}, {"Driver": "igb", "LinkMbps": 100}, {"FullSpeed": true}]`},
		{"MemoryModules", `[{"SizeMiB": 8192, "Slot": "DIMM*", "SpeedMTs": 2400, "Type": "DDR4", "Part": "x", "ECC": true, "Quantity": 2}]`},
		{"MemoryECC", `"Single-bit ECC"`}, {"TPM", `"none"`}, {"SecureBoot", `"off"`}, {"FirmwareVer", `{"Microcode": "0xffff0001"}`},
		{"Devices", `{"PCI": [{"Vendor": "1", "Device": "1", "Class": "1", "Quantity": 1, "LinkMTs": 8000, "LinkLanes": 16, "FullLink": true}]}`},
	} {
		if got := refused(tt.key, tt.value); got != nil {
			t.Errorf("%s %s: refused at %q", tt.key, tt.value, got)
		}
		m, err := Parse([]byte(text(tt.key, tt.value)))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := m.Marshal(); err != nil || !strings.Contains(string(b), tt.key) {
			t.Errorf("%s is lost: %v\n%s", tt.key, err, b)
		}
	}
}
