package nic

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// ErrNoNeighbour says that no port on the network is known to have an address.
var ErrNoNeighbour = errors.New("no port on this network has the address")

// Neighbours says which port has an address on a network that this machine is joined to, from the kernel's table of neighbours
// (ARP, RFC 826). Who sends frames with the port and the address of another one is taken for that other one. It is safe for
// concurrent use. Close it.
type Neighbours struct {
	nl    *netlink.Handle
	index int
}

// OpenNeighbours returns the neighbours at an interface, or at all interfaces for "". It belongs to the network namespace of the
// calling thread.
func OpenNeighbours(name string) (*Neighbours, error) {
	nl, err := netlink.NewHandle()
	if err != nil {
		return nil, fmt.Errorf("open table of neighbours: %w", err)
	}
	n := &Neighbours{nl: nl}
	if name != "" {
		l, err := nl.LinkByName(name)
		if err != nil {
			nl.Close()
			return nil, fmt.Errorf("open table of neighbours: interface %s: %w", name, err)
		}
		n.index = l.Attrs().Index
	}
	return n, nil
}

// Close ends the use of the table.
func (n *Neighbours) Close() { n.nl.Close() }

// Port returns the hardware address that has an IPv4 address, such as 52:54:00:12:34:56. It is ErrNoNeighbour for one that is not
// on this network, or that has not been spoken with lately.
func (n *Neighbours) Port(a netip.Addr) (string, error) {
	list, err := n.nl.NeighList(n.index, netlink.FAMILY_V4)
	if err != nil {
		return "", fmt.Errorf("read table of neighbours: %w", err)
	}
	const alive = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT
	port := ""
	for _, e := range list {
		ip, ok := netip.AddrFromSlice(e.IP)
		if !ok || ip.Unmap() != a.Unmap() || e.State&alive == 0 || len(e.HardwareAddr) != 6 {
			continue
		}
		if mac := e.HardwareAddr.String(); port != "" && port != mac {
			return "", fmt.Errorf("%w: two have %s", ErrNoNeighbour, a)
		} else {
			port = mac
		}
	}
	if port == "" {
		return "", fmt.Errorf("%w %s", ErrNoNeighbour, a)
	}
	return port, nil
}
