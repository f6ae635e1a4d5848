package netboot

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"gprovision/factory/store"
	"gprovision/model/bootimage"
	"gprovision/model/edit"
)

var quiet = slog.New(slog.DiscardHandler)

func server(t *testing.T, r string) *DHCP {
	t.Helper()
	p := netip.MustParsePrefix("10.7.0.1/24")
	c := DHCPConfig{Interface: "x", Address: p, HTTPPort: 8080, Log: quiet}
	if r != "" {
		rg, err := ParseRange(r, p)
		if err != nil {
			t.Fatal(err)
		}
		c.Range = &rg
	}
	return newDHCP(c)
}

// ask returns a request of a client.
func ask(t *testing.T, n byte, typ dhcpv4.MessageType, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithMessageType(typ), dhcpv4.WithHwAddr(net.HardwareAddr{0x52, 0x54, 0, 0, 0, n})}, mods...)...)
	if err != nil {
		t.Fatal(err)
	}
	m, err = dhcpv4.FromBytes(m.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func class(s string, arch iana.Arch) dhcpv4.Modifier {
	return func(m *dhcpv4.DHCPv4) {
		m.UpdateOption(dhcpv4.OptClassIdentifier(s))
		m.UpdateOption(dhcpv4.OptClientArch(arch))
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, []byte{0, 1, 2, 3}))
	}
}

const pxeClass = "PXEClient:Arch:00007:UNDI:003001"

func TestProxy(t *testing.T) {
	d := server(t, "")
	for name, c := range map[string]struct {
		m    *dhcpv4.DHCPv4
		port bool
		file string
		want dhcpv4.MessageType
	}{
		"bios":             {ask(t, 1, dhcpv4.MessageTypeDiscover, class("PXEClient:Arch:00000:UNDI:002001", iana.INTEL_X86PC)), false, "undionly.kpxe", dhcpv4.MessageTypeOffer},
		"uefi":             {ask(t, 1, dhcpv4.MessageTypeDiscover, class(pxeClass, iana.EFI_X86_64)), false, "snponly.efi", dhcpv4.MessageTypeOffer},
		"uefi 9":           {ask(t, 1, dhcpv4.MessageTypeDiscover, class(pxeClass, iana.EFI_BC)), false, "snponly.efi", dhcpv4.MessageTypeOffer},
		"http":             {ask(t, 1, dhcpv4.MessageTypeDiscover, class("HTTPClient:Arch:00016:UNDI:003001", iana.EFI_X86_64_HTTP)), false, "http://10.7.0.1:8080/ipxe/snponly.efi", dhcpv4.MessageTypeOffer},
		"ipxe":             {ask(t, 1, dhcpv4.MessageTypeDiscover, class("PXEClient:Arch:00000", iana.INTEL_X86PC), dhcpv4.WithUserClass("iPXE", false)), false, "http://10.7.0.1:8080/boot.ipxe", dhcpv4.MessageTypeOffer},
		"ipxe by 175":      {ask(t, 1, dhcpv4.MessageTypeDiscover, class(pxeClass, iana.EFI_X86_64), dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(175), []byte{1}))), false, "http://10.7.0.1:8080/boot.ipxe", dhcpv4.MessageTypeOffer},
		"4011":             {ask(t, 1, dhcpv4.MessageTypeRequest, class(pxeClass, iana.EFI_X86_64)), true, "snponly.efi", dhcpv4.MessageTypeAck},
		"ordinary":         {ask(t, 1, dhcpv4.MessageTypeDiscover), false, "", 0},
		"other class":      {ask(t, 1, dhcpv4.MessageTypeDiscover, class("MSFT 5.0", iana.EFI_X86_64)), false, "", 0},
		"request on 67":    {ask(t, 1, dhcpv4.MessageTypeRequest, class(pxeClass, iana.EFI_X86_64)), false, "", 0},
		"discover on 4011": {ask(t, 1, dhcpv4.MessageTypeDiscover, class(pxeClass, iana.EFI_X86_64)), true, "", 0},
		"arm":              {ask(t, 1, dhcpv4.MessageTypeDiscover, class("PXEClient:Arch:00011", iana.EFI_ARM64)), false, "", 0},
	} {
		r, err := d.answer(c.m, c.port)
		if c.want == 0 {
			if r != nil || (err != nil) != (name == "arm") {
				t.Errorf("%s: answered %v %v", name, r, err)
			}
			continue
		}
		if err != nil || r == nil {
			t.Errorf("%s: %v %v", name, r, err)
			continue
		}
		if r.MessageType() != c.want || r.BootFileName != c.file || r.BootFileNameOption() != c.file || !r.YourIPAddr.IsUnspecified() || !r.ServerIPAddr.Equal(net.IPv4(10, 7, 0, 1)) ||
			!r.ServerIdentifier().Equal(net.IPv4(10, 7, 0, 1)) || !bytes.Equal(r.Options.Get(dhcpv4.OptionClientMachineIdentifier), []byte{0, 1, 2, 3}) || r.TransactionID != c.m.TransactionID {
			t.Errorf("%s: %s", name, r.Summary())
		}
		if id := r.ClassIdentifier(); id != "PXEClient" && name != "http" || name == "http" && id != "HTTPClient" {
			t.Errorf("%s: class %q", name, id)
		}
	}
}

func TestFull(t *testing.T) {
	d := server(t, "10.7.0.100-10.7.0.102")
	must := func(r *dhcpv4.DHCPv4, err error) *dhcpv4.DHCPv4 {
		t.Helper()
		if err != nil || r == nil {
			t.Fatal(r, err)
		}
		return r
	}
	want := func(ip net.IP) dhcpv4.Modifier {
		return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(ip))
	}
	ours := dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 7, 0, 1)))
	offer := must(d.answer(ask(t, 1, dhcpv4.MessageTypeDiscover), false))
	if offer.MessageType() != dhcpv4.MessageTypeOffer || offer.YourIPAddr[3] < 100 || offer.BootFileName != "" || offer.IPAddressLeaseTime(0) != leaseTime || offer.SubnetMask().String() != "ffffff00" {
		t.Error(offer.Summary())
	}
	ack := must(d.answer(ask(t, 1, dhcpv4.MessageTypeRequest, ours, want(offer.YourIPAddr)), false))
	if ack.MessageType() != dhcpv4.MessageTypeAck || !ack.YourIPAddr.Equal(offer.YourIPAddr) {
		t.Error(ack.Summary())
	}
	// Another client may not have it, whatever it sends.
	if nak := must(d.answer(ask(t, 2, dhcpv4.MessageTypeRequest, ours, want(offer.YourIPAddr)), false)); nak.MessageType() != dhcpv4.MessageTypeNak {
		t.Error(nak.Summary())
	}
	if nak := must(d.answer(ask(t, 2, dhcpv4.MessageTypeRequest, want(net.IPv4(192, 168, 0, 1))), false)); nak.MessageType() != dhcpv4.MessageTypeNak {
		t.Error(nak.Summary())
	}
	// The client renews its lease.
	renew := ask(t, 1, dhcpv4.MessageTypeRequest, dhcpv4.WithClientIP(offer.YourIPAddr))
	ack = must(d.answer(renew, false))
	if ack.MessageType() != dhcpv4.MessageTypeAck || !destination(renew, ack, nil, false).IP.Equal(offer.YourIPAddr) {
		t.Error(ack.Summary())
	}
	pxe := must(d.answer(ask(t, 1, dhcpv4.MessageTypeDiscover, class(pxeClass, iana.EFI_X86_64)), false))
	if pxe.BootFileName != FileEFI || !pxe.YourIPAddr.Equal(offer.YourIPAddr) {
		t.Error(pxe.Summary())
	}
	two := must(d.answer(ask(t, 2, dhcpv4.MessageTypeDiscover), false))
	if r, err := d.answer(ask(t, 2, dhcpv4.MessageTypeDecline, want(two.YourIPAddr)), false); r != nil || err != nil {
		t.Error(r, err)
	}
	if again := must(d.answer(ask(t, 2, dhcpv4.MessageTypeDiscover), false)); again.YourIPAddr.Equal(two.YourIPAddr) {
		t.Error("declined, and offered again")
	}
}

func TestLeases(t *testing.T) {
	now := time.Unix(1000, 0)
	fresh := func() *leases {
		l := newLeases(Range{netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("10.7.0.4")}, netip.MustParseAddr("10.7.0.1"))
		l.now = func() time.Time { return now }
		return l
	}
	l := fresh()
	got := map[string]netip.Addr{}
	for _, hw := range []string{"a", "b", "c"} {
		ip, err := l.offer(hw, netip.Addr{})
		if err != nil || !l.confirm(hw, ip) {
			t.Fatal(ip, err)
		}
		for other, o := range got {
			if o == ip {
				t.Errorf("%s and %s share %s", hw, other, ip)
			}
		}
		if ip == l.self {
			t.Error("gives away the server's address")
		}
		got[hw] = ip
	}
	if _, err := l.offer("d", netip.Addr{}); err != errNoAddress {
		t.Error(err)
	}
	if ip, _ := l.offer("a", got["b"]); ip != got["a"] {
		t.Error("another address for the same client")
	}
	now = now.Add(2 * leaseTime) // all have expired, but are remembered
	if ip, _ := l.offer("b", netip.Addr{}); ip != got["b"] {
		t.Error("the address changed after it expired")
	}
	if _, err := l.offer("d", netip.Addr{}); err != nil {
		t.Error("an expired one is not given to others:", err)
	}
	// The hardware address determines the first choice, so a restart changes nothing.
	x, y := fresh(), fresh()
	a, _ := x.offer("52:54:00:00:00:09", netip.Addr{})
	b, _ := y.offer("52:54:00:00:00:09", netip.Addr{})
	if a != b {
		t.Error(a, b)
	}
	x.decline("52:54:00:00:00:09", a)
	if again, _ := x.offer("52:54:00:00:00:09", a); again == a {
		t.Error("declined, and offered again")
	}
	x.release("nobody")
	if x.confirm("z", netip.MustParseAddr("10.7.1.1")) {
		t.Error("an address outside of the range")
	}
}

func TestParseRange(t *testing.T) {
	p := netip.MustParsePrefix("10.7.0.1/24")
	for _, bad := range []string{"", "10.7.0.5", "10.7.0.9-10.7.0.5", "10.7.0.5-10.8.0.9", "10.7.0.0-10.7.0.9", "10.7.0.9-10.7.0.255", "::1-::2"} {
		if r, err := ParseRange(bad, p); err == nil {
			t.Errorf("%q: %v", bad, r)
		}
	}
	if r, err := ParseRange(" 10.7.0.5 - 10.7.0.5", p); err != nil || r.size() != 1 {
		t.Error(r, err)
	}
}

func FuzzDHCP(f *testing.F) {
	m, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest))
	if err != nil {
		f.Fatal(err)
	}
	good := m.ToBytes()
	for _, s := range edit.Scripts() {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, script []byte, pxe bool) {
		m, err := parse(edit.Apply(good, script))
		if err != nil {
			return
		}
		for _, r := range []string{"", "10.7.0.100-10.7.0.110"} {
			if reply, _ := server(t, r).answer(m, pxe); reply != nil {
				reply.ToBytes()
				destination(m, reply, &net.UDPAddr{}, pxe)
			}
		}
	})
}

// startTFTP serves a directory on loopback and returns the address.
func startTFTP(t *testing.T, dir string) string {
	t.Helper()
	s, err := ListenTFTP("127.0.0.1:0", dir, quiet)
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
	return s.conn.LocalAddr().String()
}

// TestTFTP fetches with the client of another implementation, with and without options, and checks what the two
// agreed on.
func TestTFTP(t *testing.T) {
	client, err := exec.LookPath("atftp")
	if err != nil {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal("needs package atftp")
		}
		t.Skip("needs package atftp")
	}
	dir, to := t.TempDir(), filepath.Join(t.TempDir(), "got")
	for _, size := range []int{0, 511, 512, 1468 * 3, 300000} {
		data := bytes.Repeat([]byte("iPXE!\n"), size/6+1)[:size]
		if err := os.WriteFile(filepath.Join(dir, FileEFI), data, 0o600); err != nil {
			t.Fatal(err)
		}
		host, port, err := net.SplitHostPort(startTFTP(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		for name, tt := range map[string]struct{ ask, agreed []string }{
			"plain":   {nil, nil},
			"size":    {[]string{"tsize 0"}, []string{fmt.Sprintf("tsize: %d,", size)}},
			"large":   {[]string{"blksize 1468"}, []string{"blksize: 1468,"}},
			"huge":    {[]string{"blksize 9000"}, []string{"blksize: 1468,"}},
			"windows": {[]string{"blksize 1024", "windowsize 16"}, []string{"blksize: 1024,", "windowsize: 16,"}},
		} {
			args := []string{"--get", "--remote-file", FileEFI, "--local-file", to, "--trace", "--tftp-timeout", "2"}
			for _, o := range tt.ask {
				args = append(args, "--option", o)
			}
			said, err := exec.CommandContext(t.Context(), client, append(args, host, port)...).CombinedOutput()
			if err != nil {
				t.Errorf("%d %s: %v: %s", size, name, err, said)
				continue
			}
			if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d %s: %d bytes, %v", size, name, len(got), err)
			}
			_, agreed, _ := strings.Cut(string(said), "received OACK <")
			agreed, _, _ = strings.Cut(agreed, ">")
			for _, want := range tt.agreed {
				if !strings.Contains(agreed, want) {
					t.Errorf("%d %s: agreed on %q, want %s", size, name, agreed, want)
				}
			}
			if tt.agreed == nil && agreed != "" {
				t.Errorf("%d %s: agreed on %q, and nothing was asked for", size, name, agreed)
			}
		}
	}
}

// TestTFTPRefusals sends requests that are refused, byte by byte.
func TestTFTPRefusals(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := startTFTP(t, dir)
	for packet, code := range map[string]uint16{
		"\x00\x01secret\x00octet\x00":           errNotFoundTFTP,
		"\x00\x01../../etc/passwd\x00octet\x00": errNotFoundTFTP,
		"\x00\x01ipxe.efi\x00octet\x00":         errNotFoundTFTP, // not installed
		"\x00\x02ipxe.efi\x00octet\x00":         errAccess,
	} {
		conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		to, err := net.ResolveUDPAddr("udp4", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.WriteTo([]byte(packet), to); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 600)
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, _, err := conn.ReadFrom(b)
		if err != nil || n < 5 || binary.BigEndian.Uint16(b) != opError || binary.BigEndian.Uint16(b[2:]) != code {
			t.Errorf("%q: %q %v", packet, b[:n], err)
		}
		conn.Close()
	}
}

// TestTFTPLoss loses packets of a window. The transfer continues after the last one that arrived.
func TestTFTPLoss(t *testing.T) {
	serverConn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer serverConn.Close()
	client, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	data := make([]byte, 70000*8) // block numbers wrap around
	for i := range data {
		data[i] = byte(i / 8)
	}
	s := &tftpSend{conn: serverConn, peer: client.LocalAddr().(*net.UDPAddr), data: data, block: 8, window: 64, pause: 200 * time.Millisecond, answered: &atomic.Bool{}}
	done := make(chan error, 1)
	go func() { done <- s.run(nil) }()
	var got []byte
	b := make([]byte, 600)
	for n, lost := 1, 0; ; {
		client.SetReadDeadline(time.Now().Add(5 * time.Second))
		k, from, err := client.ReadFromUDP(b)
		if err != nil {
			t.Fatal(err)
		}
		block := binary.BigEndian.Uint16(b[2:])
		if lost++; lost%20011 == 0 || block != uint16(n) {
			if block == uint16(n) || lost%7 == 0 { // a gap: acknowledge what is here
				client.WriteTo([]byte{0, 4, byte((n - 1) >> 8), byte(n - 1)}, from)
			}
			continue
		}
		got = append(got, b[4:k]...)
		if n%64 == 0 || k < 12 {
			client.WriteTo([]byte{0, 4, byte(n >> 8), byte(n)}, from)
		}
		if k < 12 {
			break
		}
		n++
	}
	if err := <-done; err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
	}
}

func FuzzTFTPRequest(f *testing.F) {
	f.Add([]byte("\x00\x01ipxe.efi\x00octet\x00blksize\x001468\x00tsize\x000\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := parseRequest(b)
		if err != nil {
			return
		}
		s := &tftpSend{block: 512, window: 1}
		if p := s.accept(q.options); len(p) > 516 || s.block < 8 || s.block > tftpBlock || s.window < 1 || s.window > tftpWindow {
			t.Errorf("%q: %q %+v", b, p, s)
		}
	})
}

// units answers the boot script's questions.
type units struct {
	unit   store.Unit
	err    error
	tokens map[string]store.Token
}

func (u *units) FindUnit(context.Context, string, string) (store.Unit, error) { return u.unit, u.err }

func (u *units) AddToken(_ context.Context, token string, t store.Token) error {
	u.tokens[token] = t
	return nil
}

// testUKI makes a file with the headers of a boot artifact.
func testUKI(t *testing.T, cmdline string) []byte {
	t.Helper()
	kernel := make([]byte, 4096)
	kernel[0x1f1], kernel[0x211] = 2, 1
	copy(kernel[0x1fe:], "\x55\xaa")
	copy(kernel[0x202:], "HdrS\x0f\x02")
	binary.LittleEndian.PutUint16(kernel[0x20e:], 0x300)
	copy(kernel[0x500:], "6.1.0-test (x@y) #7 SMP\x00")
	var b bytes.Buffer
	parts := []bootimage.Part{{Name: bootimage.SectionOSRel, Data: []byte("BUILD_ID=7\n")}, {Name: bootimage.SectionLinux, Data: kernel}, {Name: bootimage.SectionInitrd, Data: []byte("initramfs")}}
	if cmdline != "" {
		parts = append(parts, bootimage.Part{Name: bootimage.SectionCmdline, Data: []byte(cmdline)})
	}
	stub, err := os.ReadFile("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
	if err != nil {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal("the Debian package systemd-boot-efi is missing")
		}
		t.Skip("the Debian package systemd-boot-efi is missing")
	}
	if err := bootimage.WriteUKI(&b, stub, parts); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type bootTest struct {
	*testing.T
	dir   string
	units *units
	url   string
	// port is the port that the network shows.
	port    string
	portErr error
}

func newBoot(t *testing.T) *bootTest {
	b := &bootTest{T: t, port: "52:54:00:00:00:01", dir: t.TempDir(), units: &units{err: store.ErrNotFound, tokens: map[string]store.Token{}}}
	if err := os.MkdirAll(filepath.Join(b.dir, "files", "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.write("files/manufData.json", "{}")
	h, err := NewHTTP(HTTPConfig{Base: "http://10.7.0.1:8080", Files: filepath.Join(b.dir, "files"), IPXE: b.dir, Units: b.units, Log: quiet,
		Port: func(netip.Addr) (string, error) { return b.port, b.portErr }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	mux := http.NewServeMux()
	h.Register(mux)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	b.url = srv.URL
	return b
}

func (b *bootTest) write(name, text string) {
	b.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
}

func (b *bootTest) get(path string, header ...string) (int, string, http.Header) {
	b.Helper()
	r, err := http.NewRequestWithContext(b.Context(), "GET", b.url+path, nil)
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

const query = "/boot.ipxe?mac=52%3A54%3A00%3A00%3A00%3A01&serial=SN%201&uuid=x&platform="

func TestScript(t *testing.T) {
	b := newBoot(t)
	b.write("files/"+Artifact, string(testUKI(t, "console=ttyS0,115200 quiet\n")))
	if _, s, _ := b.get("/boot.ipxe"); s != "#!ipxe\nchain --replace http://10.7.0.1:8080/boot.ipxe?mac=${netX/mac}&serial=${serial:uristring}&uuid=${uuid}&platform=${platform}\n" {
		t.Error(s)
	}
	_, s, _ := b.get(query + "efi")
	line := regexp.MustCompile(`(?m)^kernel http://10\.7\.0\.1:8080/provision\.pxe console=ttyS0,115200 quiet mfgurl=http://10\.7\.0\.1:8080/files/manufData\.json enrol=([0-9a-f]{32}) BOOTIF=52:54:00:00:00:01 \|\| goto failed$`)
	m := line.FindStringSubmatch(s)
	if m == nil || strings.Contains(s, "\ninitrd") || !strings.HasPrefix(s, "#!ipxe\n") {
		t.Fatal(s)
	}
	if tok, ok := b.units.tokens[m[1]]; !ok || tok.MAC != "52:54:00:00:00:01" || tok.Serial != "SN 1" || tok.Expires.Sub(tok.Created) != TokenLife {
		t.Errorf("%+v", tok)
	}
	_, s, _ = b.get(query + "pcbios")
	if !strings.Contains(s, "kernel http://10.7.0.1:8080/provision.pxe/vmlinuz console") || !strings.Contains(s, "\ninitrd http://10.7.0.1:8080/provision.pxe/initrd ||") {
		t.Error(s)
	}
	if _, s, _ := b.get("/boot.ipxe?mac=nonsense%0Akernel%20evil${x}"); strings.Contains(s, "\nkernel") || strings.Contains(s, "$") {
		t.Error(s)
	}
	b.units.unit, b.units.err = store.Unit{ID: "SN 1", Provisioned: time.Now()}, nil
	if _, s, _ := b.get(query + "efi"); !strings.HasSuffix(s, "\nexit 1\n") || strings.Contains(s, "enrol") {
		t.Error(s)
	}
	b.units.unit.Released = time.Now()
	if _, s, _ := b.get(query + "efi"); !strings.Contains(s, "enrol=") {
		t.Error(s)
	}
}

// TestScriptOfAnotherPort requests a script with the port of another machine, and from where the network shows no
// port. There is a script, because some networks show none, but it has no token.
func TestScriptOfAnotherPort(t *testing.T) {
	for name, change := range map[string]func(*bootTest){
		"another port":    func(b *bootTest) { b.port = "52:54:00:00:00:02" },
		"behind a router": func(b *bootTest) { b.portErr = io.ErrUnexpectedEOF },
	} {
		b := newBoot(t)
		b.write("files/"+Artifact, string(testUKI(t, "")))
		change(b)
		if _, s, _ := b.get(query + "efi"); strings.Contains(s, "enrol=") || len(b.units.tokens) > 0 || !strings.Contains(s, " BOOTIF=52:54:00:00:00:01 ") {
			t.Errorf("%s: %s", name, s)
		}
	}
	// A text that stands for no serial number is none.
	b := newBoot(t)
	b.write("files/"+Artifact, string(testUKI(t, "")))
	b.get(strings.Replace(query, "SN%201", "To%20Be%20Filled%20By%20O.E.M.", 1) + "efi")
	for _, tok := range b.units.tokens {
		if tok.Serial != "" {
			t.Errorf("%+v", tok)
		}
	}
	if len(b.units.tokens) != 1 {
		t.Error("no token")
	}
}

// TestScriptTrouble checks that a unit shows what is missing on the server, and asks again.
func TestScriptTrouble(t *testing.T) {
	for name, prepare := range map[string]func(*bootTest){
		"no file provision.pxe":  func(*bootTest) {},
		"is not a boot artifact": func(b *bootTest) { b.write("files/"+Artifact, "hello") },
		"no manifest manufData.json": func(b *bootTest) {
			b.write("files/"+Artifact, string(testUKI(b.T, "")))
			os.Remove(filepath.Join(b.dir, "files/manufData.json"))
		},
		"cannot be passed on":               func(b *bootTest) { b.write("files/"+Artifact, string(testUKI(b.T, "a=${net0/mac}"))) },
		"the server has trouble of its own": func(b *bootTest) { b.units.err = io.ErrUnexpectedEOF },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBoot(t)
			prepare(b)
			_, s, _ := b.get(query + "efi")
			if !strings.Contains(s, name) || !strings.Contains(s, "chain --replace http://10.7.0.1:8080/boot.ipxe?mac=52%3A54%3A00%3A00%3A00%3A01&platform=efi&serial=SN+1") || len(b.units.tokens) > 0 {
				t.Error(s)
			}
		})
	}
}

func TestFiles(t *testing.T) {
	b := newBoot(t)
	b.write("secret", "no")
	b.write("files/sub/a.upd", "0123456789")
	if err := os.Symlink("../../secret", filepath.Join(b.dir, "files/sub/link")); err != nil {
		t.Fatal(err)
	}
	st, s, h := b.get("/files/sub/a.upd")
	tag := h.Get("ETag")
	if st != 200 || s != "0123456789" || tag == "" || h.Get("Accept-Ranges") != "bytes" {
		t.Error(st, s, h)
	}
	if st, s, _ := b.get("/files/sub/a.upd", "Range", "bytes=4-", "If-Range", tag); st != 206 || s != "456789" {
		t.Error(st, s)
	}
	b.write("files/sub/a.upd", "abcdefghij")
	if st, s, _ := b.get("/files/sub/a.upd", "Range", "bytes=4-", "If-Range", tag); st != 200 || s != "abcdefghij" {
		t.Error("resumed in another file:", st, s)
	}
	resp, err := http.Head(b.url + "/files/sub/a.upd")
	if err != nil || resp.ContentLength != 10 {
		t.Error(resp, err)
	}
	for _, p := range []string{"/files/", "/files/sub", "/files/sub/", "/files/sub/link", "/files/..%2fsecret", "/files/%2e%2e/secret", "/files/sub%2f..%2f..%2fsecret", "/files//secret", "/files/a%00b", "/ipxe/secret", "/ipxe/..%2fsecret", "/provision.pxe", "/provision.pxe/initrd"} {
		if st, s, _ := b.get(p); st != 404 || strings.Contains(s, "no\n") || s == "no" {
			t.Errorf("%s: %d %q", p, st, s)
		}
	}
	b.write(FileEFI, "loader")
	if st, s, _ := b.get("/ipxe/" + FileEFI); st != 200 || s != "loader" {
		t.Error(st, s)
	}
	uki := string(testUKI(t, "x"))
	b.write("files/"+Artifact, uki)
	if st, s, _ := b.get("/provision.pxe"); st != 200 || s != uki {
		t.Error(st, len(s))
	}
	if st, s, _ := b.get("/provision.pxe/initrd"); st != 200 || s != "initramfs" {
		t.Error(st, s)
	}
	if st, s, _ := b.get("/provision.pxe/initrd", "Range", "bytes=4-"); st != 206 || s != "ramfs" {
		t.Error(st, s)
	}
	if st, s, _ := b.get("/provision.pxe/vmlinuz"); st != 200 || len(s) != 4096 || !strings.Contains(s, "HdrS") {
		t.Error(st, len(s))
	}
	if st, _, _ := b.get("/provision.pxe/other"); st != 404 {
		t.Error(st)
	}
}

func TestTooManyScripts(t *testing.T) {
	b := newBoot(t)
	slow := false
	for range 30 {
		st, _, _ := b.get(query + "efi")
		slow = slow || st == 429
	}
	if !slow {
		t.Error("no limit")
	}
}
