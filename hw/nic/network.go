package nic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Lease is the configuration that one port got from a DHCP server.
type Lease struct {
	Port    Port
	Addr    netip.Prefix // of the port
	Gateway netip.Addr   // zero: none
	DNS     []netip.Addr
	Domain  string        // search domain; may be empty
	Server  netip.Addr    // the DHCP server
	Time    time.Duration // how long the address may be used; it is renewed before
	// Options are all options of the answer by number (RFC 2132), as bytes in network order.
	Options map[uint8][]byte
	// Boot reports whether it is the port that the machine was started from.
	Boot bool
}

// ResolvConf returns the text of /etc/resolv.conf for this lease. It is empty if there are no servers in it.
func (l Lease) ResolvConf() string {
	if len(l.DNS) == 0 {
		return ""
	}
	var b strings.Builder
	if l.Domain != "" {
		fmt.Fprintf(&b, "search %s\n", l.Domain)
	}
	for _, a := range l.DNS[:min(len(l.DNS), 3)] { // MAXNS of resolv.conf(5)
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	return b.String()
}

// Waiting times.
const (
	linkWait   = 15 * time.Second // for a cable, before DHCP is tried without one
	firstReply = 2 * time.Second  // for the first answer of a DHCP server; doubled with each of tries
	tries      = 3
	longestGap = 8 * time.Second // between two rounds on one port
)

// Network is a set of ports that are being configured, or are configured and kept so.
type Network struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	log    *slog.Logger

	mu      sync.Mutex
	changed chan struct{} // closed and replaced whenever a lease comes
	leases  map[string]Lease
	state   map[string]string // of each port, for the error
	ports   []Port
	boot    string
}

// Start raises all ports and asks for addresses on all of them at the same time, until ctx ends or Close is called. Leases
// are renewed. The port whose address is bootif (see NormalMAC; may be empty) is preferred: its default route goes first.
// Close must be called when the network is not needed any more, and waits for everything that Start began.
func Start(ctx context.Context, log *slog.Logger, ports []Port, bootif string) *Network {
	ctx, cancel := context.WithCancel(ctx)
	n := &Network{cancel: cancel, log: log, changed: make(chan struct{}), leases: map[string]Lease{}, state: map[string]string{}, ports: slices.Clone(ports), boot: NormalMAC(bootif)}
	for i, p := range n.ports {
		n.state[p.Name] = "not tried"
		metric := 200 + i
		if p.MAC == n.boot && n.boot != "" {
			metric = 100
		}
		n.wg.Add(1)
		go func() {
			defer n.wg.Done()
			n.serve(ctx, p, metric)
		}()
	}
	return n
}

// Close stops renewing and waits until nothing runs any more. Addresses and routes stay.
func (n *Network) Close() {
	n.cancel()
	n.wg.Wait()
}

// Wait returns the leases as soon as there is one, that of the boot port first. If ctx ends before, the error says
// for each port how far it got.
func (n *Network) Wait(ctx context.Context) ([]Lease, error) {
	if len(n.ports) == 0 {
		return nil, errors.New("there is no network port, or no driver for it")
	}
	for {
		n.mu.Lock()
		changed := n.changed
		n.mu.Unlock()
		if l := n.Leases(); len(l) > 0 {
			return l, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			n.mu.Lock()
			defer n.mu.Unlock()
			var s []string
			for _, p := range n.ports {
				s = append(s, fmt.Sprintf("%s (%s, %s): %s", p.Name, p.MAC, p.Driver, n.state[p.Name]))
			}
			return nil, fmt.Errorf("%s: %w", strings.Join(s, "; "), ctx.Err())
		}
	}
}

// Leases returns the leases that there are now: that of the boot port first, the others in the order of the ports.
func (n *Network) Leases() []Lease {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []Lease
	for _, p := range n.ports {
		l, ok := n.leases[p.Name]
		switch {
		case ok && l.Boot:
			out = slices.Insert(out, 0, l)
		case ok:
			out = append(out, l)
		}
	}
	return out
}

func (n *Network) say(p Port, state string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state[p.Name] = state
}

func (n *Network) took(l Lease) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leases[l.Port.Name] = l
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *Network) lost(p Port) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.leases, p.Name)
}

// serve keeps one port configured until ctx ends.
func (n *Network) serve(ctx context.Context, p Port, metric int) {
	log := n.log.With("port", p.Name, "mac", p.MAC)
	gap := time.Second
	for ctx.Err() == nil {
		err := n.round(ctx, log, p, metric)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			n.say(p, err.Error())
			log.Info("no address yet", "error", err)
		} else {
			gap = time.Second
		}
		pause(ctx, gap)
		gap = min(2*gap, longestGap)
	}
}

// round gets one lease and keeps it as long as that goes well. It returns nil when a lease it had ended.
func (n *Network) round(ctx context.Context, log *slog.Logger, p Port, metric int) error {
	link, err := netlink.LinkByName(p.Name)
	if err != nil {
		return fmt.Errorf("find the port: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("raise the port: %w", err)
	}
	n.say(p, "waiting for a link")
	linked, err := waitUp(ctx, link.Attrs().Index, linkWait)
	if err != nil {
		return err
	}
	n.say(p, "link is up, waiting for a DHCP server")
	if !linked {
		n.say(p, "no link: is there a cable?")
	}
	c, err := nclient4.New(p.Name, nclient4.WithTimeout(firstReply), nclient4.WithRetry(tries))
	if err != nil {
		return fmt.Errorf("open a socket for DHCP: %w", err)
	}
	defer c.Close()
	raw, err := request(ctx, c)
	if err != nil && !linked {
		return errors.New("no link: is there a cable?")
	}
	if err != nil {
		return fmt.Errorf("link is up, but no answer from a DHCP server: %w", err)
	}
	l, err := n.use(link, p, metric, raw)
	if err != nil {
		return err
	}
	log.Info("address", "addr", l.Addr, "gateway", l.Gateway, "server", l.Server, "lease", l.Time)
	n.say(p, "configured")
	n.took(l)
	for {
		if l.Time <= 0 { // for ever
			<-ctx.Done()
			return nil
		}
		end := time.Now().Add(l.Time)
		wait := l.Time / 2 // T1 of RFC 2131
		for renewed := false; !renewed; {
			if !pause(ctx, wait) {
				return nil
			}
			next, err := c.Renew(ctx, raw)
			if ctx.Err() != nil {
				return nil
			}
			var nak *nclient4.ErrNak
			if errors.As(err, &nak) || time.Now().After(end) {
				log.Warn("lease ended", "error", err)
				n.lost(p)
				return drop(link, l)
			}
			if err != nil {
				log.Info("lease not renewed yet", "error", err)
				wait = max(time.Until(end)/2, time.Second)
				continue
			}
			if l, err = n.use(link, p, metric, next); err != nil {
				return err
			}
			raw, renewed = next, true
			n.took(l)
		}
	}
}

// request does discover, offer, request and acknowledge. Offers without an address, as proxies send them, are passed over.
func request(ctx context.Context, c *nclient4.Client) (*nclient4.Lease, error) {
	discover, err := dhcpv4.NewDiscovery(c.InterfaceAddr(),
		dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(nclient4.MaxMessageSize)),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionDomainNameServer,
			dhcpv4.OptionDomainName, dhcpv4.OptionNTPServers))
	if err != nil {
		return nil, err
	}
	real := func(m *dhcpv4.DHCPv4) bool { return m.YourIPAddr != nil && !m.YourIPAddr.IsUnspecified() }
	offer, err := c.SendAndRead(ctx, c.RemoteAddr(), discover, nclient4.IsAll(nclient4.IsMessageType(dhcpv4.MessageTypeOffer), real))
	if err != nil {
		return nil, err
	}
	return c.RequestFromOffer(ctx, offer)
}

// use puts the lease on the port.
func (n *Network) use(link netlink.Link, p Port, metric int, raw *nclient4.Lease) (Lease, error) {
	l, routes, err := parseLease(raw.ACK)
	if err != nil {
		return Lease{}, err
	}
	l.Port, l.Boot = p, n.boot != "" && p.MAC == n.boot
	addr := &netlink.Addr{IPNet: ipNet(l.Addr)}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return Lease{}, fmt.Errorf("set the address %s: %w", l.Addr, err)
	}
	for _, r := range routes {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(r.to), Priority: metric, Scope: netlink.SCOPE_LINK}
		if r.via.IsValid() {
			route.Gw, route.Scope = r.via.AsSlice(), netlink.SCOPE_UNIVERSE
			if !l.Addr.Contains(r.via) {
				route.SetFlag(netlink.FLAG_ONLINK)
			}
		}
		if err := netlink.RouteReplace(route); err != nil {
			return Lease{}, fmt.Errorf("set the route to %s: %w", r.to, err)
		}
	}
	return l, nil
}

// drop takes the address of a lease that ended away, and with it its routes.
func drop(link netlink.Link, l Lease) error {
	if err := netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(l.Addr)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove the address %s: %w", l.Addr, err)
	}
	return nil
}

type route struct {
	to  netip.Prefix
	via netip.Addr // zero: on the link itself
}

// parseLease reads what a server acknowledged. Classless routes (RFC 3442), where there are some, replace the router.
func parseLease(ack *dhcpv4.DHCPv4) (Lease, []route, error) {
	ip, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || !ip.IsGlobalUnicast() && !ip.IsLinkLocalUnicast() {
		return Lease{}, nil, fmt.Errorf("the server gives %v, which is no address for a port", ack.YourIPAddr)
	}
	bits := 24
	if mask := ack.SubnetMask(); mask != nil {
		ones, size := mask.Size()
		if size != 32 || ones == 0 {
			return Lease{}, nil, fmt.Errorf("the server gives the network mask %v", net.IP(mask))
		}
		bits = ones
	}
	l := Lease{Addr: netip.PrefixFrom(ip, bits), Domain: hostText(ack.DomainName()), Time: ack.IPAddressLeaseTime(0), Options: map[uint8][]byte{}}
	if l.Time >= (1<<32-1)*time.Second {
		l.Time = 0
	}
	if l.Time > 0 {
		l.Time = max(l.Time, 4*time.Second)
	}
	for code, v := range ack.Options {
		l.Options[code] = slices.Clone(v)
	}
	if s, ok := netip.AddrFromSlice(ack.ServerIdentifier().To4()); ok {
		l.Server = s
	}
	for _, d := range ack.DNS() {
		if a, ok := netip.AddrFromSlice(d.To4()); ok && !a.IsUnspecified() {
			l.DNS = append(l.DNS, a)
		}
	}
	var routes []route
	if cr := ack.ClasslessStaticRoute(); len(cr) > 0 {
		for _, r := range cr {
			to, ok1 := netip.AddrFromSlice(r.Dest.IP.To4())
			via, ok2 := netip.AddrFromSlice(r.Router.To4())
			ones, size := r.Dest.Mask.Size()
			if !ok1 || !ok2 || size != 32 {
				continue
			}
			x := route{to: netip.PrefixFrom(to, ones).Masked(), via: via}
			if via.IsUnspecified() {
				x.via = netip.Addr{}
			}
			if ones == 0 {
				l.Gateway = x.via
			}
			routes = append(routes, x)
		}
	} else {
		for _, r := range ack.Router() {
			if via, ok := netip.AddrFromSlice(r.To4()); ok && !via.IsUnspecified() {
				l.Gateway = via
				routes = append(routes, route{to: netip.PrefixFrom(netip.IPv4Unspecified(), 0), via: via})
				break
			}
		}
	}
	return l, routes, nil
}

// hostText returns s if it can stand in resolv.conf, else "".
func hostText(s string) string {
	s = strings.TrimRight(s, "\x00")
	if strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_')
	}) {
		return ""
	}
	return s
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// waitUp returns true when the port can pass packets, and false after limit. Some drivers never say that they can.
func waitUp(ctx context.Context, index int, limit time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	updates := make(chan netlink.LinkUpdate, 16)
	if err := netlink.LinkSubscribe(updates, ctx.Done()); err != nil {
		cancel()
		return false, fmt.Errorf("watch the port: %w", err)
	}
	defer func() {
		cancel()
		for range updates { // until the watcher is gone
		}
	}()
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return false, fmt.Errorf("look at the port: %w", err)
	}
	if up(link.Attrs()) {
		return true, nil
	}
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				return false, nil
			}
			if u.Link != nil && u.Attrs().Index == index && up(u.Attrs()) {
				return true, nil
			}
		case <-ctx.Done():
			return false, nil
		}
	}
}

func up(a *netlink.LinkAttrs) bool {
	return a.OperState == netlink.OperUp || a.OperState == netlink.OperUnknown && a.RawFlags&unix.IFF_LOWER_UP != 0
}

// pause waits for d and reports whether ctx still goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
