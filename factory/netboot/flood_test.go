package netboot

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"gprovision/factory/guard"
)

// heard is a log that tests can read. It panics when it is to write a certain message, as a bug in a handler would.
type heard struct {
	mu    sync.Mutex
	b     bytes.Buffer
	panic string
	more  chan struct{} // holds something after each line
}

// wait waits until the log holds a text.
func (h *heard) wait(t *testing.T, text string) {
	t.Helper()
	late := time.After(20 * time.Second)
	for !strings.Contains(h.String(), text) {
		select {
		case <-h.more:
		case <-late:
			t.Fatalf("the log does not say %q:\n%s", text, h.String())
		}
	}
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.panic != "" && bytes.Contains(p, []byte(h.panic)) && !bytes.Contains(p, []byte("msg=panic")) {
		panic("a fault")
	}
	select {
	case h.more <- struct{}{}:
	default:
	}
	return h.b.Write(p)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.b.String()
}

func (h *heard) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(h, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// serveLoaders serves a file of a given size over TFTP on loopback.
func serveLoaders(t *testing.T, log *slog.Logger, size int) (*TFTP, *net.UDPAddr) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{FileEFI, FileBIOS} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := ListenTFTP("127.0.0.1:0", dir, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, s.conn.LocalAddr().(*net.UDPAddr)
}

// from opens a port on a loopback address.
func from(t *testing.T, host string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(host)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func rrq(name string, options ...string) []byte {
	return []byte("\x00\x01" + name + "\x00octet\x00" + strings.Join(append(options, ""), "\x00"))
}

// TestTFTPNames requests a file like firmware that reads past the end of the option with its name.
func TestTFTPNames(t *testing.T) {
	var log heard
	_, addr := serveLoaders(t, log.log(), 100)
	for name, found := range map[string]bool{
		"snponly.efi": true, "snponly.efi\xff": true, "undionly.kpxe\xff\xff": true, "/snponly.efi\x80": true,
		"snponly.efi\xffx": false, "\xffsnponly.efi": false, "\xff": false, "snponly.ef": false,
	} {
		c := from(t, "127.0.0.1")
		if _, err := c.WriteTo(rrq(name), addr); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 600)
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, peer, err := c.ReadFrom(b)
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if got := binary.BigEndian.Uint16(b) == opData; got != found {
			t.Errorf("%q: %q", name, b[:n])
		}
		c.WriteTo([]byte{0, 4, 0, 1}, peer)
	}
	for range 50 { // dropped requests are logged, but not again and again
		from(t, "127.0.0.1").WriteTo([]byte("\x00\x01no end"), addr)
	}
	c := from(t, "127.0.0.1")
	c.WriteTo(rrq("snponly.efi"), addr)
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, _, err := c.ReadFrom(make([]byte, 600)); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "TFTP packet dropped"); n != 1 {
		t.Errorf("%d lines about dropped packets", n)
	}
	if n := strings.Count(log.String(), "TFTP file not served"); n != 1 {
		t.Errorf("%d lines about files that are not there", n)
	}
}

// TestTFTPUnasked counts the packets to an address that sent one request and then fell silent, as if the address were
// forged. There may be three at most.
func TestTFTPUnasked(t *testing.T) {
	_, addr := serveLoaders(t, quiet, 100000)
	for name, packet := range map[string][]byte{"plain": rrq("snponly.efi"), "options": rrq("snponly.efi", "blksize", "1468", "windowsize", "32", "tsize", "0", "timeout", "1")} {
		c := from(t, "127.0.0.1")
		if _, err := c.WriteTo(packet, addr); err != nil {
			t.Fatal(err)
		}
		packets, size := 0, 0
		b := make([]byte, 2000)
		for {
			c.SetReadDeadline(time.Now().Add(3 * time.Second)) // two more than the pause between sends
			n, _, err := c.ReadFrom(b)
			if err != nil {
				break
			}
			packets, size = packets+1, size+n
		}
		if packets != tftpFirst || size > tftpFirst*516 {
			t.Errorf("%s: %d packets with %d bytes for %d", name, packets, size, len(packet))
		}
	}
}

// TestTFTPFlood opens transfers from many addresses and abandons them. Another client still gets its file, and no
// address has more than four transfers.
func TestTFTPFlood(t *testing.T) {
	s, addr := serveLoaders(t, quiet, 3000)
	for i := range 40 {
		for range 6 {
			if _, err := from(t, fmt.Sprintf("127.0.1.%d", i+1)).WriteTo(rrq("snponly.efi", "timeout", "10"), addr); err != nil {
				t.Fatal(err)
			}
		}
	}
	began := time.Now()
	c := from(t, "127.0.0.9")
	if _, err := c.WriteTo(rrq("snponly.efi"), addr); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 600)
	got := 0
	for want := uint16(1); ; {
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, peer, err := c.ReadFrom(b)
		if err != nil {
			t.Fatalf("the file does not come: %v", err)
		}
		if binary.BigEndian.Uint16(b[2:]) == want {
			got += n - 4
			want++
		}
		c.WriteTo([]byte{0, 4, b[2], b[3]}, peer)
		if n < 516 {
			break
		}
	}
	if took := time.Since(began); got != 3000 || took > 8*time.Second {
		t.Errorf("%d bytes after %v", got, took)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	count := map[string]int{}
	for _, o := range s.open {
		count[o.peer.IP.String()]++
	}
	for host, n := range count {
		if n > tftpPerHost {
			t.Errorf("%s has %d transfers", host, n)
		}
	}
	if len(s.open) > tftpTransfers {
		t.Errorf("%d transfers", len(s.open))
	}
}

// TestTFTPEvicts: a client that has not answered loses its place before one in the middle of a file.
func TestTFTPEvicts(t *testing.T) {
	ended := map[int]bool{}
	open := func(host string, port int, answered bool) *opened {
		o := &opened{peer: &net.UDPAddr{IP: net.ParseIP(host), Port: port}, cancel: func() { ended[port] = true }}
		o.answered.Store(answered)
		return o
	}
	s := &TFTP{}
	for i := 1; i <= tftpPerHost; i++ {
		s.enter(open("10.0.0.1", i, i == 1))
	}
	if s.enter(open("10.0.0.1", 4, false)) {
		t.Error("a repeated request is answered twice")
	}
	s.enter(open("10.0.0.1", 5, false))
	if len(ended) != 1 || !ended[2] {
		t.Errorf("ended are %v", ended)
	}
	s = &TFTP{}
	clear(ended)
	for i := range tftpTransfers {
		s.enter(open(fmt.Sprintf("10.0.1.%d", i), i, i < 3))
	}
	s.enter(open("10.0.0.9", 999, false))
	if len(ended) != 1 || !ended[3] || len(s.open) != tftpTransfers {
		t.Errorf("ended are %v", ended)
	}
}

// TestTFTPPanic: the code of a transfer panics. The next client is served.
func TestTFTPPanic(t *testing.T) {
	log := &heard{panic: "TFTP file not served", more: make(chan struct{}, 1)}
	_, addr := serveLoaders(t, log.log(), 100)
	from(t, "127.0.0.1").WriteTo(rrq("nothing"), addr)
	log.wait(t, "msg=panic")
	c := from(t, "127.0.0.1")
	c.WriteTo(rrq("snponly.efi"), addr)
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, _, err := c.ReadFrom(make([]byte, 600)); err != nil {
		t.Error(err)
	}
}

// TestDHCPPackets: a packet without the end option gets an answer. The server goes on after an unreadable packet and
// after a panic, and logs that once.
func TestDHCPPackets(t *testing.T) {
	log := &heard{panic: "network boot", more: make(chan struct{}, 1)}
	d := newDHCP(DHCPConfig{Address: netip.MustParsePrefix("10.7.0.1/24"), HTTPPort: 8080, Log: log.log()})
	var err error
	if d.conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	if d.pxec, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- d.Serve(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	m, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithHwAddr(net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003016")), dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 7})))
	if err != nil {
		t.Fatal(err)
	}
	whole := m.ToBytes()
	end := bytes.LastIndexByte(whole, 255)
	c := from(t, "127.0.0.1")
	ask := func(b []byte) []byte {
		t.Helper()
		if _, err := c.WriteTo(b, d.pxec.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 2000)
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		return buf[:n]
	}
	c.WriteTo(whole, d.pxec.LocalAddr()) // panics
	for range 5 {
		c.WriteTo([]byte("no DHCP"), d.pxec.LocalAddr())
	}
	log.wait(t, "DHCP packet dropped")
	log.mu.Lock()
	log.panic = ""
	log.mu.Unlock()
	for name, b := range map[string][]byte{"whole": whole, "without an end": whole[:end]} {
		reply, err := dhcpv4.FromBytes(ask(b))
		if err != nil {
			t.Fatal(name, err)
		}
		// Read it like a client that goes on to the next zero byte.
		if got := string(reply.Options.Get(dhcpv4.OptionBootfileName)); got != FileEFI+"\x00" || reply.BootFileName != FileEFI {
			t.Errorf("%s: file %q, %q", name, got, reply.BootFileName)
		}
	}
	if s := log.String(); strings.Count(s, "DHCP packet dropped") != 1 || strings.Count(s, "msg=panic") != 1 {
		t.Error(s)
	}
}

// TestServeAgain: TFTP answers on its port again after its loop ended.
func TestServeAgain(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileEFI), make([]byte, 10), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := ListenTFTP("127.0.0.1:0", dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	to := s.conn.LocalAddr()
	for start := range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx) }()
		c := from(t, "127.0.0.1")
		buf := make([]byte, 100)
		n := 0
		for range 100 { // the port may not be open yet
			if _, err := c.WriteTo([]byte("\x00\x01"+FileEFI+"\x00octet\x00"), to); err != nil {
				continue
			}
			c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			if n, _, err = c.ReadFrom(buf); err == nil {
				break
			}
		}
		if n != 14 {
			t.Errorf("start %d: %d bytes, %v", start, n, err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestDHCPLoopPanics: a panic of one loop ends the other, and is reported as a panic, so that the service is started
// again.
func TestDHCPLoopPanics(t *testing.T) {
	d := server(t, "10.7.0.100-10.7.0.110")
	d.odd = nil // used as soon as a packet cannot be read
	var err error
	for _, c := range []**net.UDPConn{&d.conn, &d.pxec} {
		if *c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			t.Fatal(err)
		}
	}
	d.pxec.SetReadDeadline(time.Now())
	if err := d.Serve(t.Context()); !errors.Is(err, guard.ErrPanic) {
		t.Error(err)
	}
	if d.conn != nil || d.pxec != nil {
		t.Error("the ports are not opened anew")
	}
}
