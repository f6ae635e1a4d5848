// Package nic finds the network ports of a machine and gives them addresses by DHCP, all ports at once.
//
// It does not rename ports, does not run DHCP over IPv6, and does not know what the network is used for. Addresses and routes
// stay when it stops: only the renewal of leases ends.
package nic

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Port is an Ethernet port.
type Port struct {
	// Name is the kernel's name, such as "eth0".
	Name string
	// MAC is the address in lower case with colons, from /sys/class/net/NAME/address.
	MAC string
	// Driver is the name of the kernel driver, such as "e1000e". Empty: none.
	Driver string
	// Bus is the kernel's name of the bus, such as "pci", "usb" or "virtio". Empty for virtual ports.
	Bus string
	// Virtual reports whether there is no hardware behind it: bridges, veth, bonds.
	Virtual bool
	// Speed is how many megabits a second its link runs at, from /sys/class/net/NAME/speed. 0: there is no link, or the driver does not say.
	Speed int
}

// arphrdEther is ARPHRD_ETHER of <linux/if_arp.h>.
const arphrdEther = "1"

// List returns the Ethernet ports below /sys/class/net, sorted by MAC address. sys is /sys; symbolic links in it must work, as they
// do in os.DirFS and fstest.MapFS. Wireless ports are left out: there is nothing to join them to a network with.
func List(sys fs.FS) ([]Port, error) {
	entries, err := fs.ReadDir(sys, "class/net")
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, fmt.Errorf("list network ports: %w", err)
	}
	var out []Port
	for _, e := range entries {
		dir := path.Join("class/net", e.Name())
		if text(sys, dir+"/type") != arphrdEther || exists(sys, dir+"/wireless") || exists(sys, dir+"/phy80211") {
			continue
		}
		p := Port{
			Name:   e.Name(),
			MAC:    strings.ToLower(text(sys, dir+"/address")),
			Driver: linkBase(sys, dir+"/device/driver"),
			Bus:    linkBase(sys, dir+"/device/subsystem"),
		}
		if n, err := strconv.Atoi(text(sys, dir+"/speed")); err == nil { // -1 is not known; without a link it cannot be read
			p.Speed = max(n, 0)
		}
		if target, err := fs.ReadLink(sys, dir); err == nil {
			p.Virtual = strings.Contains(target, "devices/virtual/")
		} else {
			p.Virtual = !exists(sys, dir+"/device")
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Port) int {
		if c := strings.Compare(a.MAC, b.MAC); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out, nil
}

// Real returns the ports that have hardware behind them.
func Real(ports []Port) []Port {
	return slices.DeleteFunc(slices.Clone(ports), func(p Port) bool { return p.Virtual })
}

// NormalMAC returns a MAC address in lower case with colons. It takes colons or dashes, and the form of the kernel argument BOOTIF
// as PXELINUX writes it, with the hardware type in front ("01-52-54-00-12-34-56"). Anything else gives "".
func NormalMAC(s string) string {
	parts := strings.FieldsFunc(strings.ToLower(strings.TrimSpace(s)), func(r rune) bool { return r == ':' || r == '-' })
	if len(parts) == 7 && parts[0] == "01" {
		parts = parts[1:]
	}
	if len(parts) != 6 {
		return ""
	}
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 16, 8); err != nil || len(p) != 2 {
			return ""
		}
	}
	return strings.Join(parts, ":")
}

func text(sys fs.FS, name string) string {
	b, err := fs.ReadFile(sys, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func exists(sys fs.FS, name string) bool {
	_, err := fs.Stat(sys, name)
	return err == nil
}

func linkBase(sys fs.FS, name string) string {
	target, err := fs.ReadLink(sys, name)
	if err != nil {
		return ""
	}
	return path.Base(target)
}
