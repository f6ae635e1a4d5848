// Package netboot boots units over the network. It provides DHCP (as a proxy beside another server, or with a range
// of its own), TFTP for the first stage, HTTP for everything else, and the iPXE script that decides what a unit
// boots.
//
// A unit boots like this: firmware (PXE or UEFI HTTP boot) -> DHCP names iPXE -> TFTP or HTTP transfers it -> iPXE
// asks DHCP again and gets the address of boot.ipxe -> the script boots the provisioning artifact with a one-time
// token, or returns to the firmware, which boots from disk. Only the tokens are secret. A unit boots what is signed,
// or what it trusts because it trusts the station's network.
//
// The package stores nothing itself. As a proxy it answers only requests about booting. Before it gets a range of its
// own, the caller must use ProbeDHCP: there must be no other DHCP server.
package netboot

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// Names of the first stages in the directory of iPXE binaries. Both use the network card through the firmware that
// loaded them, and return it in good order when the script exits. ipxe.efi has drivers of its own. It has been seen
// to hang at that point.
const (
	FileBIOS = "undionly.kpxe"
	FileEFI  = "snponly.efi"
)

// Loaders returns the names of the only files that TFTP serves, and HTTP below /ipxe/. They come from the Debian package ipxe.
func Loaders() []string {
	return []string{FileBIOS, FileEFI, "ipxe.efi", "ipxe.pxe", "undionly.kkpxe"}
}

// client is the kind of program that sends a DHCP request.
type client int

const (
	other   client = iota // an ordinary client
	biosPXE               // PXE firmware of a BIOS, or a UEFI one with its compatibility module
	efiPXE                // PXE firmware of UEFI, x86-64
	efiHTTP               // UEFI HTTP boot, x86-64
	ipxe                  // iPXE, from a ROM or from our TFTP
	foreign               // a network boot client of another architecture
)

func (c client) String() string {
	return [...]string{"ordinary", "PXE BIOS", "PXE UEFI", "HTTP UEFI", "iPXE", "foreign architecture"}[c]
}

// classify returns the kind of program that sends a request. Facts: RFC 4578 (93 architecture, 97 machine identifier), UEFI 2.8 section
// 24.7 (class HTTPClient), ipxe.org/howto/dhcpd (77 "iPXE", 175).
func classify(m *dhcpv4.DHCPv4) client {
	class := m.ClassIdentifier()
	pxe, http := strings.HasPrefix(class, "PXEClient"), strings.HasPrefix(class, "HTTPClient")
	if !pxe && !http {
		return other
	}
	if m.Options.Has(dhcpv4.GenericOptionCode(175)) || strings.Contains(string(m.Options.Get(dhcpv4.OptionUserClassInformation)), "iPXE") {
		return ipxe
	}
	for _, a := range m.ClientArch() {
		switch {
		case pxe && a == iana.INTEL_X86PC:
			return biosPXE
		case pxe && (a == iana.EFI_X86_64 || a == iana.EFI_BC):
			return efiPXE
		case http && a == iana.EFI_X86_64_HTTP:
			return efiHTTP
		}
	}
	return foreign
}

// Range is the addresses that the server gives out, both ends included.
type Range struct{ From, To netip.Addr }

// ParseRange parses "A-B", two IPv4 addresses of the given network.
func ParseRange(s string, in netip.Prefix) (Range, error) {
	a, b, ok := strings.Cut(s, "-")
	from, err1 := netip.ParseAddr(strings.TrimSpace(a))
	to, err2 := netip.ParseAddr(strings.TrimSpace(b))
	if !ok || err1 != nil || err2 != nil || !from.Is4() || !to.Is4() {
		return Range{}, fmt.Errorf("DHCP range %q, want two IPv4 addresses as FROM-TO", s)
	}
	in = in.Masked()
	if !in.Contains(from) || !in.Contains(to) || to.Less(from) {
		return Range{}, fmt.Errorf("DHCP range %s: both ends must lie in %s, the lower one first", s, in)
	}
	if from == in.Addr() || to == broadcast(in) {
		return Range{}, fmt.Errorf("DHCP range %s holds the network's own or its broadcast address", s)
	}
	return Range{from, to}, nil
}

func (r Range) contains(a netip.Addr) bool { return !a.Less(r.From) && !r.To.Less(a) }

// size returns the number of addresses.
func (r Range) size() uint32 { return number(r.To) - number(r.From) + 1 }

func (r Range) at(i uint32) netip.Addr { return address(number(r.From) + i) }

func number(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func address(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

func broadcast(p netip.Prefix) netip.Addr {
	return address(number(p.Masked().Addr()) | uint32(1<<(32-p.Bits())-1))
}

// InterfaceAddress returns an IPv4 address of an interface with its network: wanted or, if that is not valid, the first one.
func InterfaceAddress(name string, wanted netip.Addr) (netip.Prefix, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("interface %s: %w", name, err)
	}
	addrs, err := i.Addrs()
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("interface %s: %w", name, err)
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || !p.Addr().Is4() {
			continue
		}
		if !wanted.IsValid() || p.Addr() == wanted {
			return p, nil
		}
	}
	if wanted.IsValid() {
		return netip.Prefix{}, fmt.Errorf("interface %s does not have the address %s", name, wanted)
	}
	return netip.Prefix{}, fmt.Errorf("interface %s has no IPv4 address", name)
}
