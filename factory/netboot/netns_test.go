package netboot

import (
	"context"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// network is two machines joined by a cable. This one has the port srv (10.7.0.1/24), the other the port unit.
type network struct {
	t          *testing.T
	srv, other netns.NsHandle
}

// inNetwork moves the test's thread to the first machine.
func inNetwork(t *testing.T) *network {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	runtime.LockOSThread()
	old, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	n := &network{t: t}
	if n.other, err = netns.New(); err != nil {
		t.Fatal(err)
	}
	if n.srv, err = netns.New(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.srv.Close()
		n.other.Close()
		if err := netns.Set(old); err == nil {
			runtime.UnlockOSThread() // otherwise the thread is thrown away
		}
		old.Close()
	})
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "srv"}, PeerName: "unit", PeerNamespace: netlink.NsFd(n.other)}); err != nil {
		t.Fatal(err)
	}
	up(t, "lo", "srv")
	addAddress(t, "srv", "10.7.0.1/24")
	n.asUnit(func() { up(t, "lo", "unit") })
	return n
}

// asUnit runs f on the other machine. Sockets that f opens stay there.
func (n *network) asUnit(f func()) {
	n.t.Helper()
	if err := netns.Set(n.other); err != nil {
		n.t.Fatal(err)
	}
	defer func() {
		if err := netns.Set(n.srv); err != nil {
			n.t.Fatal(err)
		}
	}()
	f()
}

func up(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func addAddress(t *testing.T, name, cidr string) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr(cidr)
	if err == nil {
		err = netlink.AddrAdd(l, a)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// serveDHCP runs a server on srv. Its sockets are opened on this thread, and so in the namespace.
func serveDHCP(t *testing.T, full string) {
	t.Helper()
	station, err := InterfaceAddress("srv", netip.Addr{})
	if err != nil || station.String() != "10.7.0.1/24" {
		t.Fatal(station, err)
	}
	c := DHCPConfig{Interface: "srv", Address: station, HTTPPort: 8080, Log: quiet}
	if full != "" {
		r, err := ParseRange(full, station)
		if err != nil {
			t.Fatal(err)
		}
		c.Range = &r
	}
	d, err := ListenDHCP(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- d.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func (n *network) client(t *testing.T) (c *nclient4.Client) {
	t.Helper()
	n.asUnit(func() {
		var err error
		if c, err = nclient4.New("unit", nclient4.WithTimeout(time.Second), nclient4.WithRetry(3)); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// probe looks for DHCP servers from the other machine.
func (n *network) probe(t *testing.T) (server netip.Addr, found bool) {
	t.Helper()
	n.asUnit(func() {
		var err error
		if server, found, err = ProbeDHCP(t.Context(), "unit"); err != nil {
			t.Fatal(err)
		}
	})
	return server, found
}

// TestFullOnTheWire leases an address to a real client, as to a unit's init or its networkd.
func TestFullOnTheWire(t *testing.T) {
	n := inNetwork(t)
	if _, found, err := ProbeDHCP(t.Context(), "srv"); err != nil || found {
		t.Fatal("another server before ours is there:", err)
	}
	serveDHCP(t, "10.7.0.100-10.7.0.110")
	c := n.client(t)
	lease, err := c.Request(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ip := lease.ACK.YourIPAddr
	if ip[3] < 100 || ip[3] > 110 {
		t.Error(lease.ACK.Summary())
	}
	again, err := c.Request(t.Context())
	if err != nil || !again.ACK.YourIPAddr.Equal(ip) {
		t.Error(again, err)
	}
	if err := c.Release(again); err != nil {
		t.Error(err)
	}
	server, found := n.probe(t)
	if !found || server.String() != "10.7.0.1" {
		t.Error("the probe does not see a server that is there:", server, found)
	}
}

// TestProxyOnTheWire sends requests like firmware, and like an ordinary client, which must get no answer.
func TestProxyOnTheWire(t *testing.T) {
	n := inNetwork(t)
	serveDHCP(t, "")
	offer, err := n.client(t).DiscoverOffer(t.Context(), class(pxeClass, iana.EFI_X86_64))
	if err != nil {
		t.Fatal(err)
	}
	if offer.BootFileName != FileEFI || !offer.YourIPAddr.IsUnspecified() {
		t.Error(offer.Summary())
	}
	if server, found := n.probe(t); found {
		t.Error("a proxy answers an ordinary client:", server)
	}
	// The second step of PXE firmware is a request to port 4011, from the address that the real server gave it.
	var conn *net.UDPConn
	n.asUnit(func() {
		addAddress(t, "unit", "10.7.0.2/24")
		if conn, err = net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(10, 7, 0, 1), Port: 4011}); err != nil {
			t.Fatal(err)
		}
	})
	defer conn.Close()
	q := ask(t, 6, dhcpv4.MessageTypeRequest, class(pxeClass, iana.EFI_X86_64))
	if _, err := conn.Write(q.ToBytes()); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 2048)
	k, err := conn.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := dhcpv4.FromBytes(b[:k]); err != nil || r.MessageType() != dhcpv4.MessageTypeAck || r.BootFileName != FileEFI || r.TransactionID != q.TransactionID {
		t.Error(r, err)
	}
}
