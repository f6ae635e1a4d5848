package nic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"gprovision/model/edit"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

func link(target string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte(target), Mode: os.ModeSymlink | 0o777}
}

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s + "\n")} }

// sysfs is cut down from a machine with a PCI port, a virtio port, a bridge, a wireless port and the loopback.
func sysfs() fstest.MapFS {
	m := fstest.MapFS{"bus/pci/drivers/e1000e/x": file(""), "bus/virtio/drivers/virtio_net/x": file("")}
	add := func(name, dir, typ, mac string) {
		m["class/net/"+name] = link("../../" + dir)
		m[dir+"/type"] = file(typ)
		m[dir+"/address"] = file(mac)
	}
	add("eth0", "devices/pci0000:00/0000:00:03.0/net/eth0", "1", "52:54:00:00:00:02")
	m["devices/pci0000:00/0000:00:03.0/driver"] = link("../../../bus/pci/drivers/e1000e")
	m["devices/pci0000:00/0000:00:03.0/subsystem"] = link("../../../bus/pci")
	m["devices/pci0000:00/0000:00:03.0/net/eth0/device"] = link("../..")
	m["devices/pci0000:00/0000:00:03.0/net/eth0/speed"] = file("1000")
	m["devices/pci0000:00/0000:00:04.0/virtio1/net/eth1/speed"] = file("-1")
	add("eth1", "devices/pci0000:00/0000:00:04.0/virtio1/net/eth1", "1", "52:54:00:00:00:01")
	m["devices/pci0000:00/0000:00:04.0/virtio1/driver"] = link("../../../../bus/virtio/drivers/virtio_net")
	m["devices/pci0000:00/0000:00:04.0/virtio1/subsystem"] = link("../../../../bus/virtio")
	m["devices/pci0000:00/0000:00:04.0/virtio1/net/eth1/device"] = link("../..")
	add("br0", "devices/virtual/net/br0", "1", "FE:54:00:00:00:01")
	add("lo", "devices/virtual/net/lo", "772", "00:00:00:00:00:00")
	add("wlan0", "devices/pci0000:00/0000:00:05.0/net/wlan0", "1", "52:54:00:00:00:09")
	m["devices/pci0000:00/0000:00:05.0/net/wlan0/wireless/x"] = file("")
	return m
}

func TestList(t *testing.T) {
	got, err := List(sysfs())
	if err != nil {
		t.Fatal(err)
	}
	want := []Port{
		{"eth1", "52:54:00:00:00:01", "virtio_net", "virtio", false, 0},
		{"eth0", "52:54:00:00:00:02", "e1000e", "pci", false, 1000},
		{"br0", "fe:54:00:00:00:01", "", "", true, 0},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if r := Real(got); len(r) != 2 {
		t.Errorf("real: %v", r)
	}
	if got, err := List(fstest.MapFS{}); got != nil || err != nil {
		t.Errorf("nothing there: %v, %v", got, err)
	}
	if _, err := List(os.DirFS("/sys")); err != nil {
		t.Errorf("this machine: %v", err)
	}
}

func TestNormalMAC(t *testing.T) {
	for in, want := range map[string]string{"52:54:00:AB:cd:01": "52:54:00:ab:cd:01", "01-52-54-00-ab-cd-01": "52:54:00:ab:cd:01", "52-54-00-ab-cd-01": "52:54:00:ab:cd:01", "": "", "1:2:3:4:5:6": "", "02-52-54-00-ab-cd-01": "", "gg:54:00:ab:cd:01": ""} {
		if got := NormalMAC(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func ack(t *testing.T, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(10, 9, 0, 7)), dhcpv4.WithNetmask(net.CIDRMask(24, 32))}, mods...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestParseLease(t *testing.T) {
	l, routes, err := parseLease(ack(t, dhcpv4.WithRouter(net.IPv4(10, 9, 0, 1)), dhcpv4.WithDNS(net.IPv4(10, 9, 0, 2), net.IPv4zero), dhcpv4.WithOption(dhcpv4.OptDomainName("a.example")), dhcpv4.WithLeaseTime(3600)))
	if err != nil || l.Addr.String() != "10.9.0.7/24" || l.Gateway.String() != "10.9.0.1" || l.Time != time.Hour || len(routes) != 1 {
		t.Errorf("%+v %v %v", l, routes, err)
	}
	if got := l.ResolvConf(); got != "search a.example\nnameserver 10.9.0.2\n" {
		t.Errorf("%q", got)
	}
	l, routes, err = parseLease(ack(t, dhcpv4.WithRouter(net.IPv4(10, 9, 0, 1)), dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(
		&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(10, 8, 0, 0).To4(), Mask: net.CIDRMask(16, 32)}, Router: net.IPv4zero},
		&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, Router: net.IPv4(10, 9, 0, 9)}))))
	if err != nil || l.Gateway.String() != "10.9.0.9" || len(routes) != 2 || routes[0].via.IsValid() || routes[0].to.String() != "10.8.0.0/16" || l.Time != 0 {
		t.Errorf("classless: %+v %v %v", l, routes, err)
	}
	l, _, err = parseLease(ack(t, dhcpv4.WithLeaseTime(1<<32-1), dhcpv4.WithOption(dhcpv4.OptDomainName("a b\nnameserver 6.6.6.6"))))
	if err != nil || l.Time != 0 || l.Domain != "" || l.ResolvConf() != "" {
		t.Errorf("for ever: %+v %v", l, err)
	}
	for _, bad := range []*dhcpv4.DHCPv4{ack(t, dhcpv4.WithYourIP(net.IPv4zero)), ack(t, dhcpv4.WithYourIP(net.IPv4bcast)), ack(t, dhcpv4.WithNetmask(net.IPMask{255, 0, 255, 0}))} {
		if l, _, err := parseLease(bad); err == nil {
			t.Errorf("accepted %+v", l)
		}
	}
}

func FuzzParseLease(f *testing.F) {
	m, err := dhcpv4.New(dhcpv4.WithYourIP(net.IPv4(10, 9, 0, 7)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(net.IPv4(10, 9, 0, 1)), dhcpv4.WithDNS(net.IPv4(1, 2, 3, 4)),
		dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(10, 8, 0, 0).To4(), Mask: net.CIDRMask(16, 32)}, Router: net.IPv4zero})))
	if err != nil {
		f.Fatal(err)
	}
	good := m.ToBytes()
	for _, s := range edit.Scripts() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		m, err := dhcpv4.FromBytes(edit.Apply(good, script))
		if err != nil {
			return
		}
		l, routes, err := parseLease(m)
		if err != nil {
			return
		}
		if !l.Addr.IsValid() || !l.Addr.Addr().Is4() {
			t.Fatalf("address %v", l.Addr)
		}
		ipNet(l.Addr)
		for _, r := range routes {
			if !r.to.IsValid() {
				t.Fatalf("route %v", r)
			}
		}
		if strings.Count(l.ResolvConf(), "\n") > 4 {
			t.Fatalf("%q", l.ResolvConf())
		}
	})
}

func TestNoPorts(t *testing.T) {
	_, err := configure(t.Context(), slog.New(slog.DiscardHandler), nil, "", time.Second)
	if err == nil || !strings.Contains(err.Error(), "no network port") {
		t.Error(err)
	}
}

// skip skips a test for want of something, or fails it where nothing may be skipped.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("GPROV_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// TestNamespace runs itself again in a network namespace of its own, and inside is the test.
func TestNamespace(t *testing.T) {
	if os.Getenv("GPROV_NIC_INSIDE") != "" {
		inside(t)
		return
	}
	if os.Getuid() != 0 {
		skip(t, "network namespaces need root")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestNamespace$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), "GPROV_NIC_INSIDE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil {
		if errors.Is(err, syscall.EPERM) {
			skip(t, "this machine does not allow network namespaces")
		}
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "--- PASS: TestNamespace") {
		t.Errorf("it did not run:\n%s", out)
	}
}

// server is a DHCP server in the second namespace. It answers no discovery while it is deaf.
type server struct {
	deaf     atomic.Bool
	requests atomic.Int32
	lease    uint32
}

func (s *server) handle(ip net.IP) server4.Handler {
	return func(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
		reply, err := dhcpv4.NewReplyFromRequest(m,
			dhcpv4.WithServerIP(ip), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(ip)),
			dhcpv4.WithYourIP(net.IPv4(ip[0], ip[1], ip[2], 50)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
			dhcpv4.WithRouter(ip), dhcpv4.WithDNS(ip), dhcpv4.WithLeaseTime(s.lease))
		if err != nil {
			return
		}
		switch m.MessageType() {
		case dhcpv4.MessageTypeDiscover:
			proxy, _ := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithServerIP(ip), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(ip)), dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer))
			conn.WriteTo(proxy.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 68}) // an offer without an address, as a proxy sends it
			if s.deaf.Load() {
				return
			}
			reply.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeOffer))
		case dhcpv4.MessageTypeRequest:
			s.requests.Add(1)
			reply.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeAck))
		default:
			return
		}
		conn.WriteTo(reply.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 68})
	}
}

// inside runs in a fresh network namespace. A second namespace, at the other ends of three pairs of ports, has DHCP servers on
// two of them.
func inside(t *testing.T) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	runtime.LockOSThread()
	inner, err := netns.Get()
	check(err)
	outer, err := netns.New() // and this thread is in it now
	check(err)
	slow, fast := &server{lease: 4}, &server{lease: 3600}
	slow.deaf.Store(true)
	for i, s := range []*server{slow, fast, nil} {
		far, near := fmt.Sprintf("far%d", i), fmt.Sprintf("near%d", i)
		check(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: far}, PeerName: near, PeerNamespace: netlink.NsFd(inner)}))
		l, err := netlink.LinkByName(far)
		check(err)
		if s == nil {
			continue // the far end of the third pair stays down: no link
		}
		check(netlink.LinkSetUp(l))
		ip := net.IPv4(10, 77, byte(i), 1).To4()
		check(netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(24, 32)}}))
		srv, err := server4.NewServer(far, nil, s.handle(ip))
		check(err)
		go srv.Serve()
		t.Cleanup(func() { srv.Close() })
	}
	check(netns.Set(inner))
	outer.Close()
	runtime.UnlockOSThread()

	var ports []Port
	for i := range 3 {
		l, err := netlink.LinkByName(fmt.Sprintf("near%d", i))
		check(err)
		ports = append(ports, Port{Name: l.Attrs().Name, MAC: l.Attrs().HardwareAddr.String()})
	}
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n := Start(ctx, slog.New(slog.NewTextHandler(os.Stderr, nil)), ports, ports[0].MAC)
	first, err := n.Wait(ctx)
	check(err)
	if len(first) != 1 || first[0].Port.Name != "near1" || first[0].Addr != netip.MustParsePrefix("10.77.1.50/24") || first[0].Boot || len(first[0].Options) == 0 || len(first[0].DNS) != 1 {
		t.Errorf("first: %+v", first)
	}
	slow.deaf.Store(false)
	eventually(t, "the boot port comes too, and is first in the list", func() bool {
		l := n.Leases()
		return len(l) == 2 && l[0].Port.Name == "near0" && l[0].Boot && l[1].Port.Name == "near1"
	})
	routes, err := netlink.RouteGet(net.IPv4(8, 8, 8, 8))
	check(err)
	if got := routes[0].Gw.String(); got != "10.77.0.1" {
		t.Errorf("the default route goes over %s, want the boot port's", got)
	}
	eventually(t, "the short lease is renewed", func() bool { return slow.requests.Load() >= 2 })
	n.mu.Lock()
	state := n.state["near2"]
	n.mu.Unlock()
	if !strings.Contains(state, "link") {
		t.Errorf("the port without a link says %q", state)
	}
	n.Close()
	eventually(t, "nothing is left running", func() bool { return runtime.NumGoroutine() <= before })

	ctx, stop := context.WithCancel(t.Context())
	const patience = 5 * time.Second
	began, had := time.Now(), slow.requests.Load()
	_, err = configure(ctx, slog.New(slog.DiscardHandler), ports[:1], "", patience)
	check(err)
	eventually(t, "a lease is renewed when the patience for the first one is long over", func() bool {
		return time.Since(began) > 2*patience || slow.requests.Load() >= had+5
	})
	if got := slow.requests.Load() - had; got < 4 { // of 4 s, asked for again each 2 s
		t.Errorf("in %s a lease was asked for %d times", 2*patience, got)
	}
	stop()
	eventually(t, "nothing is left running", func() bool { return runtime.NumGoroutine() <= before })

	_, err = configure(t.Context(), slog.New(slog.DiscardHandler), ports[2:], "", 300*time.Millisecond)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "near2") {
		t.Errorf("no link: %v", err)
	}
	slow.deaf.Store(true)
	_, err = configure(t.Context(), slog.New(slog.DiscardHandler), []Port{ports[0], ports[2]}, "", time.Second)
	far := regexp.MustCompile(`near0 \([^)]*\): link is up.*; near2 \([^)]*\): .*link`)
	if err == nil || !far.MatchString(err.Error()) || strings.Count(err.Error(), "link is up") != 1 {
		t.Errorf("of each port it has to say how far it got: %v", err)
	}
	eventually(t, "nothing is left running", func() bool { return runtime.NumGoroutine() <= before })
}

// eventually fails the test unless f becomes true within 20 s.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); !f(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// configure is Start and Wait, as a job does it: when there is no address in time, everything ends.
func configure(ctx context.Context, log *slog.Logger, ports []Port, bootif string, patience time.Duration) ([]Lease, error) {
	n := Start(ctx, log, ports, bootif)
	patient, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	leases, err := n.Wait(patient)
	if err != nil {
		n.Close()
		return nil, err
	}
	return leases, nil
}
