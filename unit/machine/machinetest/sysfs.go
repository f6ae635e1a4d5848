package machinetest

import (
	"fmt"
	"io/fs"
	"strings"
	"testing/fstest"
)

// Sysfs returns /proc and /sys of a machine. They are cut down from what Linux 6.1 shows in a QEMU q35 machine with
// two sockets of two processors each.
func Sysfs() (proc, sys fstest.MapFS) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s + "\n")} }
	var cpuinfo strings.Builder
	sys = fstest.MapFS{}
	for i := range 4 {
		fmt.Fprintf(&cpuinfo, "processor\t: %d\nvendor_id\t: AuthenticAMD\nmodel name\t: QEMU Virtual CPU version 2.5+\n\n", i)
		sys[fmt.Sprintf("devices/system/cpu/cpu%d/topology/physical_package_id", i)] = file(fmt.Sprint(i / 2))
	}
	sys["devices/system/cpu/cpufreq/boost"] = file("1")
	sys["devices/system/cpu/cpuidle/current_driver"] = file("none")
	proc = fstest.MapFS{"cpuinfo": file(cpuinfo.String()), "meminfo": file("MemTotal:        2030424 kB\nMemFree:         1817220 kB")}
	const network = "0x1041"
	for i, d := range [][3]string{{"0x8086", "0x29c0", "0x060000"}, {"0x1af4", network, "0x020000"}, {"0x1af4", network, "0x020000"}} {
		dir := fmt.Sprintf("devices/pci0000:00/0000:00:0%d.0", i)
		link := &fstest.MapFile{Mode: fs.ModeSymlink | 0o777, Data: []byte("../../../" + dir)}
		sys[fmt.Sprintf("bus/pci/devices/0000:00:0%d.0", i)] = link
		sys[dir+"/vendor"], sys[dir+"/device"], sys[dir+"/class"] = file(d[0]), file(d[1]), file(d[2])
	}
	const hub = "bus/usb/devices/usb1/"
	sys[hub+"idVendor"], sys[hub+"idProduct"], sys[hub+"bDeviceClass"] = file("1d6b"), file("0002"), file("09")
	sys["bus/usb/devices/1-0:1.0/bInterfaceClass"] = file("09")
	return proc, sys
}
