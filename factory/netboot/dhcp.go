package netboot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"golang.org/x/sys/unix"

	"gprovision/factory/guard"
)

// DHCPConfig is what a DHCP server needs.
type DHCPConfig struct {
	// Interface is the network interface that it listens on. It answers on no other.
	Interface string
	// Address is the server's address with its network.
	Address netip.Prefix
	// HTTPPort is the port of the boot script and the files.
	HTTPPort int
	// Range is the range of addresses to hand out. nil makes the server a proxy, which names what to boot and hands
	// out no addresses.
	Range *Range
	Log   *slog.Logger
}

// DHCP answers network boot clients and, if it has a Range, all other clients too.
type DHCP struct {
	c          DHCPConfig
	leases     *leases
	odd        *seldom
	conn, pxec *net.UDPConn
}

// ListenDHCP opens ports 67 and 4011 on the interface. It needs root, or CAP_NET_BIND_SERVICE and CAP_NET_RAW.
func ListenDHCP(ctx context.Context, c DHCPConfig) (*DHCP, error) {
	d := newDHCP(c)
	if err := d.listen(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *DHCP) listen(ctx context.Context) error {
	conn, err := listen(ctx, d.c.Interface, 67)
	if err != nil {
		return fmt.Errorf("listen for DHCP on %s: %w", d.c.Interface, err)
	}
	pxec, err := listen(ctx, d.c.Interface, 4011)
	if err != nil {
		conn.Close()
		return fmt.Errorf("listen for PXE on %s: %w", d.c.Interface, err)
	}
	d.conn, d.pxec = conn, pxec
	return nil
}

func newDHCP(c DHCPConfig) *DHCP {
	d := &DHCP{c: c, odd: newSeldom(c.Log)}
	if c.Range != nil {
		d.leases = newLeases(*c.Range, c.Address.Addr())
	}
	return d
}

// listen opens a UDP port on one interface. It also receives broadcasts.
func listen(ctx context.Context, name string, port int) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		e := rc.Control(func(fd uintptr) {
			err = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), // other servers may use other interfaces
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
				unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, name),
			)
		})
		return errors.Join(e, err)
	}}
	pc, err := lc.ListenPacket(ctx, "udp4", fmt.Sprintf("0.0.0.0:%d", port))
	if err != nil {
		return nil, err
	}
	return pc.(*net.UDPConn), nil
}

// Serve answers until ctx ends, and closes the ports. It may be called again. It then reopens the ports and still
// knows the leases. After a panic the error wraps guard.ErrPanic.
func (d *DHCP) Serve(ctx context.Context) error {
	if d.conn == nil {
		if err := d.listen(ctx); err != nil {
			return err
		}
	}
	conn, pxec := d.conn, d.pxec
	closeBoth := func() { conn.Close(); pxec.Close() }
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()
	errs := make(chan error, 2)
	for _, c := range []*net.UDPConn{conn, pxec} {
		go func() {
			errs <- guard.Call(d.c.Log, "DHCP", func() error { return d.loop(ctx, c, c == pxec) })
		}()
	}
	err := <-errs
	closeBoth()
	err = errors.Join(err, <-errs)
	d.conn, d.pxec = nil, nil
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Close closes the ports if Serve was not called. After Serve it does nothing.
func (d *DHCP) Close() error {
	if d.conn == nil {
		return nil
	}
	return errors.Join(d.conn.Close(), d.pxec.Close())
}

func (d *DHCP) loop(ctx context.Context, conn *net.UDPConn, pxePort bool) error {
	buf := make([]byte, 4096)
	for {
		n, peer, err := conn.ReadFromUDP(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil { // the interface may be down for a while
			d.odd.Warn("DHCP requests cannot be read", err.Error())
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			continue
		}
		guard.Call(d.c.Log, "DHCP", func() error {
			d.packet(conn, peer, buf[:n], pxePort)
			return nil
		})
	}
}

// parse parses a packet. RFC 2132 requires the end option, but some clients leave it out. Their packets are parsed as
// if they had one.
func parse(b []byte) (*dhcpv4.DHCPv4, error) {
	m, err := dhcpv4.FromBytes(b)
	if err != nil {
		if whole, e := dhcpv4.FromBytes(append(bytes.Clone(b), dhcpv4.OptionEnd.Code())); e == nil {
			return whole, nil
		}
	}
	return m, err
}

// packet answers one packet.
func (d *DHCP) packet(conn *net.UDPConn, peer *net.UDPAddr, b []byte, pxePort bool) {
	m, err := parse(b)
	if err != nil {
		d.odd.Warn("DHCP packet dropped", err.Error(), "from", peer.String(), "bytes", len(b))
		return
	}
	reply, err := d.answer(m, pxePort)
	if err != nil {
		d.c.Log.Warn("DHCP request not answered", "client", m.ClientHWAddr.String(), "error", err.Error())
	}
	if reply == nil {
		return
	}
	to := destination(m, reply, peer, pxePort)
	if _, err := conn.WriteToUDP(reply.ToBytes(), to); err != nil {
		d.c.Log.Warn("DHCP answer not sent", "client", m.ClientHWAddr.String(), "to", to.String(), "error", err.Error())
	}
}

// destination returns the address that an answer is sent to (RFC 2131 section 4.1). A client without an address always gets a broadcast: a
// unicast would need an ARP entry for an address that no machine has yet, and clients accept both.
func destination(m, reply *dhcpv4.DHCPv4, peer *net.UDPAddr, pxePort bool) *net.UDPAddr {
	switch {
	case pxePort && !peer.IP.IsUnspecified():
		return peer
	case !m.GatewayIPAddr.IsUnspecified() && m.GatewayIPAddr != nil:
		return &net.UDPAddr{IP: m.GatewayIPAddr, Port: 67}
	case reply.MessageType() != dhcpv4.MessageTypeNak && m.ClientIPAddr != nil && !m.ClientIPAddr.IsUnspecified():
		return &net.UDPAddr{IP: m.ClientIPAddr, Port: 68}
	}
	return &net.UDPAddr{IP: net.IPv4bcast, Port: 68}
}

// answer returns the answer to a request, or nil for none.
func (d *DHCP) answer(m *dhcpv4.DHCPv4, pxePort bool) (*dhcpv4.DHCPv4, error) {
	if m.OpCode != dhcpv4.OpcodeBootRequest || len(m.ClientHWAddr) == 0 {
		return nil, nil
	}
	who := classify(m)
	switch t := m.MessageType(); {
	case pxePort && t == dhcpv4.MessageTypeRequest && who != other:
		return d.answerAsProxy(m, who, dhcpv4.MessageTypeAck)
	case pxePort:
		return nil, nil
	case d.leases != nil:
		return d.answerAsServer(m, who)
	case t == dhcpv4.MessageTypeDiscover && who != other:
		return d.answerAsProxy(m, who, dhcpv4.MessageTypeOffer)
	}
	return nil, nil // a proxy never answers a REQUEST on port 67: that one is for the real server
}

func (d *DHCP) ip() net.IP { return d.c.Address.Addr().AsSlice() }

func (d *DHCP) url(path string) string {
	return fmt.Sprintf("http://%s:%d%s", d.c.Address.Addr(), d.c.HTTPPort, path)
}

// bootOptions returns the options that tell a client what to boot. ok is false for a client that we have nothing to
// boot for.
func (d *DHCP) bootOptions(m *dhcpv4.DHCPv4, who client) (mods []dhcpv4.Modifier, ok bool) {
	file := ""
	switch who {
	case biosPXE:
		file = FileBIOS
	case efiPXE:
		file = FileEFI
	case efiHTTP:
		file = d.url("/ipxe/" + FileEFI)
	case ipxe:
		file = d.url("/boot.ipxe")
	default:
		return nil, false
	}
	d.c.Log.Info("network boot", "client", m.ClientHWAddr.String(), "kind", who.String(), "file", file)
	option := file
	if who == biosPXE || who == efiPXE {
		option += "\x00" // as other servers send it: some firmware reads up to this byte, or past the end of the option
	}
	mods = []dhcpv4.Modifier{
		dhcpv4.WithServerIP(d.ip()),
		dhcpv4.WithOption(dhcpv4.OptBootFileName(option)),
		func(r *dhcpv4.DHCPv4) { r.BootFileName = file },
	}
	if who == biosPXE || who == efiPXE {
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptTFTPServerName(d.c.Address.Addr().String())))
	}
	if who == efiHTTP { // UEFI 2.8 section 24.7.3.3: an answer for HTTP boot must have this class
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("HTTPClient")))
	}
	return mods, true
}

// answerAsProxy answers as a proxy: the answer names what to boot, but has no address. OVMF, SeaBIOS with iPXE, and iPXE
// accept this form. Option 43 with discovery control 8 tells PXE firmware to load the file without further requests.
func (d *DHCP) answerAsProxy(m *dhcpv4.DHCPv4, who client, t dhcpv4.MessageType) (*dhcpv4.DHCPv4, error) {
	mods, ok := d.bootOptions(m, who)
	if !ok {
		if who == foreign {
			return nil, fmt.Errorf("network boot client of another architecture: %v", m.ClientArch())
		}
		return nil, nil
	}
	mods = append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(t),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(d.ip())),
		dhcpv4.WithOptionCopied(m, dhcpv4.OptionClientMachineIdentifier),
	}, mods...)
	if who != efiHTTP {
		mods = append(mods,
			dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient")),
			dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, []byte{6, 1, 8, 255})))
	}
	return dhcpv4.NewReplyFromRequest(m, mods...)
}

// answerAsServer answers as the only DHCP server of the network (RFC 2131 section 4.3).
func (d *DHCP) answerAsServer(m *dhcpv4.DHCPv4, who client) (*dhcpv4.DHCPv4, error) {
	hw := m.ClientHWAddr.String()
	wish, _ := netip.AddrFromSlice(m.RequestedIPAddress().To4())
	mods := []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(d.ip())),
		dhcpv4.WithNetmask(net.CIDRMask(d.c.Address.Bits(), 32)),
		dhcpv4.WithOptionCopied(m, dhcpv4.OptionClientMachineIdentifier),
	}
	if boot, ok := d.bootOptions(m, who); ok {
		mods = append(mods, boot...)
	}
	grant := func(t dhcpv4.MessageType, ip netip.Addr) (*dhcpv4.DHCPv4, error) {
		return dhcpv4.NewReplyFromRequest(m, append(mods, dhcpv4.WithMessageType(t), dhcpv4.WithYourIP(ip.AsSlice()),
			dhcpv4.WithLeaseTime(uint32(leaseTime/time.Second)))...)
	}
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		ip, err := d.leases.offer(hw, wish)
		if err != nil {
			return nil, err
		}
		return grant(dhcpv4.MessageTypeOffer, ip)
	case dhcpv4.MessageTypeRequest:
		if id := m.ServerIdentifier(); id != nil && !id.Equal(d.ip()) {
			d.leases.release(hw) // the client took another server's offer
			return nil, nil
		}
		if !wish.IsValid() || wish.IsUnspecified() { // renewing
			wish, _ = netip.AddrFromSlice(m.ClientIPAddr.To4())
		}
		if d.leases.confirm(hw, wish) {
			d.c.Log.Info("lease", "client", hw, "address", wish.String(), "name", m.HostName())
			return grant(dhcpv4.MessageTypeAck, wish)
		}
		return dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(dhcpv4.MessageTypeNak), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(d.ip())))
	case dhcpv4.MessageTypeInform:
		return dhcpv4.NewReplyFromRequest(m, append(mods, dhcpv4.WithMessageType(dhcpv4.MessageTypeAck))...)
	case dhcpv4.MessageTypeRelease:
		d.leases.release(hw)
	case dhcpv4.MessageTypeDecline:
		d.leases.decline(hw, wish)
		d.c.Log.Warn("address is in use by another machine", "address", wish.String(), "client", hw)
	}
	return nil, nil
}

// ProbeDHCP requests an address on the interface, as a client does, and returns the first server to answer. ok is
// false if none answers within three seconds. It does not take the address.
func ProbeDHCP(ctx context.Context, name string) (server netip.Addr, ok bool, err error) {
	c, err := nclient4.New(name, nclient4.WithTimeout(time.Second), nclient4.WithRetry(2))
	if err != nil {
		return netip.Addr{}, false, fmt.Errorf("look for DHCP servers on %s: %w", name, err)
	}
	defer c.Close()
	offer, err := c.DiscoverOffer(ctx)
	if ctx.Err() != nil {
		return netip.Addr{}, false, ctx.Err()
	}
	if errors.Is(err, nclient4.ErrNoResponse) {
		return netip.Addr{}, false, nil
	}
	if err != nil {
		return netip.Addr{}, false, fmt.Errorf("look for DHCP servers on %s: %w", name, err)
	}
	server, _ = netip.AddrFromSlice(offer.ServerIdentifier().To4())
	return server, true, nil
}
