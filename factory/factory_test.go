package factory

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"gprovision/factory/limit"
	"gprovision/factory/login"
	"gprovision/factory/store"
	"gprovision/factory/vault"
	"gprovision/model/secret"
)

// local is the configuration of a server that answers only this machine.
func local(t *testing.T) Config {
	t.Helper()
	return Config{Data: filepath.Join(t.TempDir(), "data"), NoNetboot: true, Address: "127.0.0.2", IPXE: t.TempDir(),
		FirstPassword: func(secret.Secret) error { return nil }, Log: slog.New(slog.DiscardHandler)}
}

// served serves s until the test ends or stop is called. stop returns the error of Serve.
func served(t *testing.T, s *Server) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	stop = func() error {
		cancel()
		err := <-done
		done <- err
		return err
	}
	t.Cleanup(func() { stop() })
	return stop
}

func get(t *testing.T, c *http.Client, url string) (*http.Response, []byte) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

// TestServe starts a server on free ports, talks to it both ways, ends it, and starts another in its place.
func TestServe(t *testing.T) {
	c := local(t)
	c.Problems = func() []string { return []string{"the files are odd"} }
	s, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	stop := served(t, s)
	if a := s.Station.Addr(); s.Station.String() != "127.0.0.2/32" || s.HTTP.Addr() != a || s.HTTPS.Addr() != a ||
		s.HTTP.Port() == 0 || s.HTTPS.Port() == 0 || s.HTTP == s.HTTPS {
		t.Errorf("it listens at %v and %v of %v", s.HTTP, s.HTTPS, s.Station)
	}
	pool := x509.NewCertPool()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if _, ca := get(t, client, "http://"+s.HTTP.String()+"/ca.pem"); !pool.AppendCertsFromPEM(ca) {
		t.Fatalf("no CA: %s", ca)
	}
	if resp, _ := get(t, client, "http://"+s.HTTP.String()+"/"); resp.Header.Get("Location") != "https://"+s.HTTPS.String()+"/" {
		t.Error("the way to the dashboard is", resp.Header.Get("Location"))
	}
	for path, want := range map[string]int{"/v1/time": 200, "/login": 200, "/": 303, "/boot.ipxe": 200} {
		resp, b := get(t, client, "https://"+s.HTTPS.String()+path)
		if resp.StatusCode != want || resp.Header.Get("Strict-Transport-Security") == "" {
			t.Errorf("%s: %d, want %d: %s", path, resp.StatusCode, want, b)
		}
	}
	if resp, _ := get(t, client, "http://"+s.HTTP.String()+"/v1/time"); resp.StatusCode != 404 {
		t.Error("the API answers without encryption")
	}
	ps := strings.Join(s.Problems(), "\n")
	for _, want := range []string{"provision.pxe is missing", "the files are odd", vault.ErrNoOperator.Error()} {
		if !strings.Contains(ps, want) {
			t.Errorf("no problem %q in %q", want, ps)
		}
	}

	if _, err := New(t.Context(), c); !errors.Is(err, ErrInUse) {
		t.Error("a second server on the same data:", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	for _, a := range []string{s.HTTP.String(), s.HTTPS.String()} {
		if l, err := net.Listen("tcp", a); err != nil {
			t.Error("it is still open:", err)
		} else {
			l.Close()
		}
	}
	c.HTTPPort, c.HTTPSPort = int(s.HTTP.Port()), int(s.HTTPS.Port())
	again, err := New(t.Context(), c)
	if err != nil {
		t.Fatal("in place of the one that ended:", err)
	}
	if again.HTTP != s.HTTP || again.HTTPS != s.HTTPS {
		t.Errorf("it listens at %v and %v, told to at %v and %v", again.HTTP, again.HTTPS, s.HTTP, s.HTTPS)
	}
	if err := served(t, again)(); err != nil {
		t.Error(err)
	}
}

// TestNewRefuses: one sentence says what is wrong, and has its kind. Nothing stays open.
func TestNewRefuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	made := local(t)
	if err := Init(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	open := func() int {
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	for name, tt := range map[string]struct {
		change func(*Config)
		kind   error // nil: none
		want   string
	}{
		"nothing":          {func(c *Config) { c.Address = "" }, ErrConfig, "--interface"},
		"netboot nowhere":  {func(c *Config) { c.NoNetboot = false }, ErrConfig, "--interface"},
		"address":          {func(c *Config) { c.Address = "::1" }, ErrConfig, `--address "::1": want an IPv4 address`},
		"interface":        {func(c *Config) { c.Interface = "none0" }, nil, "interface none0"},
		"not its address":  {func(c *Config) { c.Interface, c.Address = "lo", "192.0.2.1" }, nil, "does not have the address 192.0.2.1"},
		"no witnesses":     {func(c *Config) { c.Witnesses = "/nowhere/file" }, ErrConfig, "--witnesses: open /nowhere/file"},
		"bad witnesses":    {func(c *Config) { c.Witnesses = "factory_test.go" }, ErrConfig, "--witnesses factory_test.go: read witnesses"},
		"HTTPS address":    {func(c *Config) { c.HTTPSAddresses = []string{"x"} }, ErrConfig, `--https-address "x": want an IP address`},
		"foreign address":  {func(c *Config) { c.HTTPSAddresses = []string{"192.0.2.1"} }, ErrPort, "192.0.2.1"},
		"HTTP port taken":  {func(c *Config) { c.HTTPPort = port }, ErrPort, "address already in use"},
		"HTTPS port taken": {func(c *Config) { c.HTTPSPort = port }, ErrPort, "address already in use"},
		"no port":          {func(c *Config) { c.HTTPPort = 70000 }, ErrPort, "invalid port"},
		"operator key":     {func(c *Config) { c.OperatorKeys = []string{"age1x"} }, nil, "--operator-key"},
		"private key":      {func(c *Config) { c.OperatorKeys = []string{"AGE-SECRET-KEY-1"} }, nil, "private key"},
		"no operator key":  {func(c *Config) { c.OperatorKeys = []string{"/nowhere"} }, os.ErrNotExist, "--operator-key"},
		"manifest":         {func(c *Config) { c.Manifest = "../x" }, nil, "inside the directory of files"},
		"password":         {func(c *Config) { c.AdminPasswordFile = "/dev/null" }, nil, "password of admin from /dev/null"},
		"nobody to tell":   {func(c *Config) { c.Data, c.FirstPassword = t.TempDir(), nil }, ErrConfig, "no operator"},
		"data":             {func(c *Config) { c.Data = "/dev/null/x" }, nil, "data directory"},
	} {
		t.Run(name, func(t *testing.T) {
			c := made
			tt.change(&c)
			before := open()
			_, err := New(t.Context(), c)
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.kind != nil && !errors.Is(err, tt.kind) {
				t.Fatalf("%v, want %v: %s", err, tt.kind, tt.want)
			}
			for _, k := range []error{ErrConfig, ErrInUse, ErrPort, ErrOtherDHCP} {
				if k != tt.kind && errors.Is(err, k) {
					t.Errorf("%v is one of %v", err, k)
				}
			}
			if after := open(); after != before {
				t.Errorf("%d files were open before, and are %d now", before, after)
			}
		})
	}
}

// TestFirstPassword: the first operator's password is told once, before it is set. One in a file counts at each
// start.
func TestFirstPassword(t *testing.T) {
	c := local(t)
	var told []secret.Secret
	cut := errors.New("the terminal is gone")
	c.FirstPassword = func(p secret.Secret) error { told = append(told, p); return cut }
	logins := func() int {
		db, err := store.Open(t.Context(), filepath.Join(c.Data, StoreFile))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		n, err := db.Logins(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	valid := func(p secret.Secret) bool {
		db, err := store.Open(t.Context(), filepath.Join(c.Data, StoreFile))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		l, err := login.New(db, login.Cost)
		if err != nil {
			t.Fatal(err)
		}
		return l.Check(t.Context(), login.Admin, p, "") == nil
	}
	if err := Init(t.Context(), c); !errors.Is(err, cut) || logins() != 0 {
		t.Error("a password that nobody knows is set:", err)
	}
	cut = nil
	for range 2 {
		if err := Init(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if len(told) != 2 || told[0] == told[1] || !valid(told[1]) || valid(told[0]) {
		t.Errorf("told %d times, the last one holds: %v", len(told), valid(told[1]))
	}
	c.AdminPasswordFile = filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(c.AdminPasswordFile, []byte("correct horse\r\nsecond line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Init(t.Context(), c); err != nil || !valid("correct horse") {
		t.Error("the password from the file:", err)
	}
}

// TestCheck: the results of a check before the set-up, after it, and beside a running server.
func TestCheck(t *testing.T) {
	c := local(t)
	c.FirstPassword = func(secret.Secret) error { return nil }
	c.Problems = func() []string { return []string{"the files are odd"} }
	var kinds []error
	check := func() string {
		var b bytes.Buffer
		kinds = nil
		Check(t.Context(), c, Report{
			Say: func(what string, err error) {
				word := "ok "
				if err != nil {
					word, kinds = "bad ", append(kinds, err)
				}
				b.WriteString(word + what + "\n")
			},
			Note: func(text string) { b.WriteString("note " + text + "\n") },
		})
		return b.String()
	}
	is := func(kind error) bool {
		return slices.ContainsFunc(kinds, func(err error) bool { return errors.Is(err, kind) })
	}

	got := check()
	if !strings.Contains(got, "bad data directory and CA\nbad operator keys\n") || !is(ErrNotMade) || !is(vault.ErrNoOperator) {
		t.Errorf("before the set-up:\n%s%v", got, kinds)
	}
	if _, err := os.Stat(c.Data); err == nil {
		t.Error("a check makes the directory")
	}
	if err := Init(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	well := "ok data directory and CA\nok database\nbad operator keys\n" + strings.Repeat("bad files\n", 5) +
		"ok directory of files\nok station network 127.0.0.2/32\n"
	if got := check(); got != well+"ok HTTP port 0\nok HTTPS port 0 of 127.0.0.2\nok HTTPS port 0 of 127.0.0.1\n" {
		t.Errorf("after it:\n%s%v", got, kinds)
	}
	s, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	stop := served(t, s)
	note := "note a server is running on this directory; its ports are not checked\n"
	if got := check(); got != strings.Replace(well, "ok database", note+"ok database", 1) {
		t.Errorf("while one runs:\n%s%v", got, kinds)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}

	taken, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c.HTTPPort, c.HTTPSAddresses, c.AdminPasswordFile = taken.Addr().(*net.TCPAddr).Port, []string{"x"}, "/dev/null"
	if got := check(); !is(ErrPort) || !is(ErrConfig) || !strings.Contains(got, "bad password file") {
		t.Errorf("with settings that are wrong:\n%s%v", got, kinds)
	}
	c.Address, c.OperatorKeys = "", []string{"/nowhere"}
	if got := check(); !strings.HasSuffix(got, "note no --interface: network not checked\n") || !is(os.ErrNotExist) {
		t.Errorf("without an address:\n%s%v", got, kinds)
	}
}

// TestNetboot: two servers on one cable are to hand out addresses. The second is refused and releases its ports.
// Beside the first it may only name what to boot.
func TestNetboot(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	runtime.LockOSThread() // for good: the thread ends with the test
	here := func() netns.NsHandle {
		ns, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close() })
		return ns
	}
	port := func(name, address string) {
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		a, err := netlink.ParseAddr(address)
		if err := errors.Join(err, netlink.AddrAdd(l, a), netlink.LinkSetUp(l)); err != nil {
			t.Fatal(err)
		}
	}
	second := here()
	here()
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "p1"}, PeerName: "p2", PeerNamespace: netlink.NsFd(second)}
	if err := netlink.LinkAdd(cable); err != nil {
		t.Fatal(err)
	}
	c := local(t)
	c.NoNetboot, c.Address, c.HTTPSAddresses = false, "", []string{"0.0.0.0"}
	c.Interface, c.DHCPRange = "p1", "10.7.0.100-10.7.0.110"
	port("lo", "127.0.0.1/8")
	port("p1", "10.7.0.1/24")

	wrong := c
	wrong.DHCPRange = "10.8.0.1-10.8.0.2"
	if _, err := New(t.Context(), wrong); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "10.7.0.0/24") {
		t.Error("a range of another network:", err)
	}
	s, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if s.Station.String() != "10.7.0.1/24" {
		t.Error(s.Station)
	}
	stop := served(t, s)

	if err := netns.Set(second); err != nil {
		t.Fatal(err)
	}
	port("lo", "127.0.0.1/8")
	port("p2", "10.7.0.2/24")
	c.Interface, c.Data = "p2", c.Data+"2"
	if _, err := New(t.Context(), c); !errors.Is(err, ErrOtherDHCP) || err.Error() != "another DHCP server (10.7.0.1) answers on p2" {
		t.Error("two that give out addresses:", err)
	}
	var said []error
	Check(t.Context(), c, Report{Say: func(what string, err error) {
		if strings.HasPrefix(what, "UDP port") && err != nil {
			t.Errorf("%s: %v", what, err)
		}
		said = append(said, err)
	}, Note: func(text string) { t.Log(text) }})
	if last := said[len(said)-1]; !errors.Is(last, ErrOtherDHCP) {
		t.Error("the check does not see it:", last)
	}
	c.DHCPRange = ""
	beside, err := New(t.Context(), c)
	if err != nil {
		t.Fatal("beside the first one:", err)
	}
	if err := served(t, beside)(); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	said = nil
	Check(t.Context(), c, Report{Say: func(_ string, err error) { said = append(said, err) }, Note: func(text string) { t.Log(text) }})
	if last := said[len(said)-1]; !errors.Is(last, ErrNoDHCP) {
		t.Error("nobody gives out addresses, and the check finds", last)
	}
}

// TestConnectionsAreBounded: both HTTP services close the oldest connection of an address that opens more than its share.
func TestConnectionsAreBounded(t *testing.T) {
	s, err := New(t.Context(), local(t))
	if err != nil {
		t.Fatal(err)
	}
	served(t, s)
	for name, c := range map[string]struct {
		at     string
		around func(net.Conn) net.Conn
	}{
		"HTTP": {s.HTTP.String(), func(c net.Conn) net.Conn { return c }},
		"HTTPS": {s.HTTPS.String(), func(c net.Conn) net.Conn {
			return tls.Client(c, &tls.Config{InsecureSkipVerify: true})
		}},
	} {
		var oldest, newest net.Conn
		for range limit.MaxConnsPerHost + 1 {
			if newest, err = net.Dial("tcp", c.at); err != nil {
				t.Fatal(err)
			}
			defer newest.Close()
			if oldest == nil {
				oldest = newest
			}
		}
		newest = c.around(newest)
		if _, err := io.WriteString(newest, "GET /nothing HTTP/1.0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(newest); err != nil || !bytes.Contains(b, []byte(" 404 ")) {
			t.Errorf("%s: the newest connection gets %q, %v", name, b, err)
		}
		// It is closed before the newest is accepted. A server without the limit would wait for its request.
		oldest.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := oldest.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the oldest connection is still open: %v", name, err)
		}
	}
}
