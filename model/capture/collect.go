package capture

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// largest is the size up to which a file is captured, in bytes. The tables of a large server have some ten thousands.
const largest = 256 << 10

// contents is what each capture says of itself.
const contents = `It has what the kernel shows of processors, memory, disks, network ports, PCI and USB devices, the tables of SMBIOS, and
the EFI variables that concern booting. It names serial numbers and addresses. It has no content of disks, no key and no password:
credentials for systemd that a virtual machine has in SMBIOS are blanked out.
`

// Take captures a machine from its /sys and /proc. by is who does it, one line. missed names files that are there and not in the capture.
func Take(sys, proc fs.FS, by string) (text []byte, missed []string, err error) {
	entries, missed, err := Collect(sys, proc)
	if err != nil {
		return nil, nil, err
	}
	text, err = Format("captured by "+by+"\n"+contents, entries)
	return text, missed, err
}

// credential is a text of SMBIOS by which systemd is given a secret (systemd.system-credentials(7)): what it is, and its value.
var credential = regexp.MustCompile(`(io\.systemd\.credential[^=\x00]*=)([^\x00]*)`)

// blank overwrites the credentials in the tables of SMBIOS, which keep their length.
func blank(tables []byte) []byte {
	return credential.ReplaceAllFunc(tables, func(b []byte) []byte {
		key, value, _ := bytes.Cut(b, []byte("="))
		return slices.Concat(key, []byte("="), bytes.Repeat([]byte("x"), len(value)))
	})
}

// Collect reads what a capture has from /sys and /proc. missed names files that are there and could not be read. EFI variables
// are those that concern booting, and disks are described, not read.
func Collect(sys, proc fs.FS) (entries []Entry, missed []string, err error) {
	k := &collector{seen: map[string]bool{}}
	for _, name := range []string{"cpuinfo", "meminfo", "version"} {
		k.file(proc, "proc/", name)
	}
	k.sys = sys
	k.dir("firmware/dmi/tables", nil)
	k.dir("class/dmi/id", nil)
	k.file(sys, "sys/", "class/tpm/tpm0/tpm_version_major")
	k.file(sys, "sys/", "devices/system/cpu/cpu0/microcode/version")
	k.file(sys, "sys/", "firmware/efi/fw_platform_size")
	k.dir("firmware/efi/efivars", efiVariables)
	for i, e := range k.entries {
		if e.Name == "sys/firmware/dmi/tables/DMI" {
			k.entries[i].Data = blank(e.Data)
		}
	}
	controllers, err := fs.Glob(sys, "devices/platform/ipmi_bmc*/firmware_revision")
	if err != nil {
		return nil, nil, fmt.Errorf("capture: %w", err)
	}
	for _, f := range controllers {
		k.file(sys, "sys/", f)
	}
	for i, class := range []string{"block", "class/net", "bus/pci/devices", "bus/usb/devices"} {
		list, err := fs.ReadDir(sys, class)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("capture: %w", err)
		}
		for _, e := range list {
			name := path.Join(class, e.Name())
			if skipped(e.Name()) {
				continue
			}
			real, ok := k.link(name)
			if !ok {
				continue
			}
			k.up(real)
			if i > 0 {
				continue
			}
			subs, err := fs.ReadDir(sys, real)
			if err != nil {
				k.missed = append(k.missed, "/sys/"+real)
			}
			for _, s := range subs {
				if s.IsDir() && (s.Name() == "queue" || strings.HasPrefix(s.Name(), e.Name())) {
					k.attributes(path.Join(real, s.Name()))
				}
			}
		}
	}
	// The tables say which logical processor is in which socket.
	cpus, err := fs.Glob(sys, "devices/system/cpu/cpu[0-9]*/topology/physical_package_id")
	if err != nil {
		return nil, nil, fmt.Errorf("capture: %w", err)
	}
	for _, f := range cpus {
		k.file(sys, "sys/", f)
	}
	return k.entries, k.missed, nil
}

// skipped reports whether a block device is a virtual one that nobody wants in a capture.
func skipped(name string) bool {
	return slices.ContainsFunc([]string{"loop", "ram", "zram"}, func(p string) bool {
		rest, ok := strings.CutPrefix(name, p)
		return ok && strings.Trim(rest, "0123456789") == ""
	})
}

// efiVariables are the variables that concern booting. Others may hold secrets.
var efiVariables = regexp.MustCompile(`^(Boot[0-9A-F]{4}|BootOrder|BootNext|BootCurrent|SecureBoot|SetupMode|OsIndications(Supported)?|PlatformLang)-8be4df61-93ca-11d2-aa0d-00e098032b8c$`)

// attributeNames are the files of a device's directory that are captured.
func attributeNames() []string {
	return []string{
		"addr_assign_type", "address", "bDeviceClass", "class", "cid", "current_link_speed", "current_link_width", "dev", "dev_id", "device",
		"hidden", "idProduct", "idVendor", "logical_block_size", "manfid", "manufacturer", "max_link_speed", "max_link_width", "modalias",
		"model", "name", "numa_node", "operstate", "partition", "physical_block_size", "product", "removable", "rev", "revision", "ro",
		"rotational", "serial", "size", "speed", "start", "subsystem_device", "subsystem_vendor", "transport", "type", "uevent", "vendor",
		"vpd_pg80", "vpd_pg83", "wwid",
	}
}

type collector struct {
	sys     fs.FS
	seen    map[string]bool
	entries []Entry
	missed  []string
}

func (k *collector) add(e Entry) {
	if !k.seen[e.Name] {
		k.seen[e.Name] = true
		k.entries = append(k.entries, e)
	}
}

// file captures one file, if it is there and not too large.
func (k *collector) file(fsys fs.FS, prefix, name string) {
	if k.seen[prefix+name] {
		return
	}
	info, err := fs.Lstat(fsys, name)
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	b, err := fs.ReadFile(fsys, name)
	switch {
	case errors.Is(err, fs.ErrPermission), len(b) > largest:
		k.missed = append(k.missed, "/"+prefix+name)
	case err == nil:
		k.add(Entry{Name: prefix + name, Data: b})
	}
}

// dir captures the files of a directory whose names match; nil: all.
func (k *collector) dir(name string, match *regexp.Regexp) {
	list, err := fs.ReadDir(k.sys, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.missed = append(k.missed, "/sys/"+name)
	}
	for _, e := range list {
		if match == nil || match.MatchString(e.Name()) {
			k.file(k.sys, "sys/", path.Join(name, e.Name()))
		}
	}
}

// link captures a symbolic link and returns where it leads.
func (k *collector) link(name string) (string, bool) {
	target, err := fs.ReadLink(k.sys, name)
	if err != nil || target == "" || path.IsAbs(target) {
		return "", false
	}
	k.add(Entry{Name: "sys/" + name, Link: target})
	real := path.Join(path.Dir(name), target)
	return real, fs.ValidPath(real)
}

// attributes captures the known files and links of one directory.
func (k *collector) attributes(dir string) {
	if k.seen["in "+dir] {
		return
	}
	k.seen["in "+dir] = true
	for _, a := range attributeNames() {
		k.file(k.sys, "sys/", path.Join(dir, a))
	}
	for _, l := range []string{"device", "driver", "subsystem"} {
		k.link(path.Join(dir, l))
	}
	for _, name := range []string{"wireless", "phy80211"} { // a port with one of these is wireless
		if _, err := fs.Stat(k.sys, path.Join(dir, name)); err == nil {
			k.add(Entry{Name: "sys/" + path.Join(dir, name, "present"), Data: []byte("\n")})
		}
	}
}

// up captures a device and all devices that it hangs on.
func (k *collector) up(dir string) {
	for ; dir != "." && dir != "devices" && strings.HasPrefix(dir, "devices/"); dir = path.Dir(dir) {
		k.attributes(dir)
	}
}
