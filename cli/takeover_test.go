package cli

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"gprovision/factory"
	"gprovision/factory/api"
	"gprovision/factory/store"
	"gprovision/model/fault"
	"gprovision/model/record"
	"gprovision/model/secret"
	unitreport "gprovision/unit/report"
)

// segment is a station's network: a bridge with the server, and hosts on it, each in a network namespace of its own.
type segment struct {
	*testing.T
	srv netns.NsHandle
	run *serverRun
	dir string
	ca  *x509.CertPool
}

// host is a machine on the segment.
type host struct {
	s    *segment
	ns   netns.NsHandle
	port string // name of its port
	mac  string
}

// in runs f on a thread of its own inside a network namespace. Sockets that f opens stay there.
func in(t *testing.T, ns netns.NsHandle, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := netns.Set(ns)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// newNamespace makes a network namespace with its loopback up.
func newNamespace(t *testing.T) (ns netns.NsHandle) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		var err error
		if ns, err = netns.New(); err == nil {
			err = setUp("lo")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func setUp(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

func setAddress(name, cidr string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	old, err := netlink.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, o := range old {
		if err := netlink.AddrDel(l, &o); err != nil {
			return err
		}
	}
	return netlink.AddrAdd(l, a)
}

// newSegment starts gprov serve on a segment of its own.
func newSegment(t *testing.T, change func(*ServeCmd)) *segment {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	s := &segment{T: t, srv: newNamespace(t), dir: t.TempDir(), ca: x509.NewCertPool()}
	in(t, s.srv, func() error {
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "station"}}); err != nil {
			return err
		}
		if err := setUp("station"); err != nil {
			return err
		}
		return setAddress("station", "10.7.0.1/24")
	})
	data := filepath.Join(s.dir, "data")
	files := map[string][]byte{"provision.pxe": smallKernel(), "manufData.json": []byte("{}")}
	for name, b := range files {
		if err := os.MkdirAll(filepath.Join(data, factory.FilesDir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(data, factory.FilesDir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pass, key := filepath.Join(s.dir, "password"), filepath.Join(s.dir, "op")
	if err := os.WriteFile(pass, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&VaultKeygenCmd{Out: key}).Run(&Context{Context: t.Context(), Stdout: io.Discard, Stderr: io.Discard}); err != nil {
		t.Fatal(err)
	}
	c := &ServeCmd{Data: data, Interface: "station", NoNetboot: true, IPXE: s.dir, Manifest: "manufData.json", OperatorKey: []string{key + ".pub"}, AdminPasswordFile: pass, HTTPPort: 8080, HTTPSPort: 8443}
	if change != nil {
		change(c)
	}
	s.start(c)
	pem, err := os.ReadFile(filepath.Join(data, api.CAFile))
	if err != nil || !s.ca.AppendCertsFromPEM(pem) {
		t.Fatal(err)
	}
	return s
}

// start runs the server inside its namespace: what it opens at its start is opened on a thread that lives there.
func (s *segment) start(c *ServeCmd) {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out := &waiter{ready: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(s.srv)
		if err == nil {
			err = c.Run(&Context{Context: ctx, Stdout: out, Stderr: io.Discard})
		}
		done <- err
	}()
	select {
	case <-out.ready:
	case err := <-done:
		s.Fatal("the server ended:", err)
	}
	s.run = &serverRun{https: "10.7.0.1:8443", http: "10.7.0.1:8080", stop: cancel, done: done}
	s.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.Error(err)
		}
	})
}

// waiter notes that the server says it is ready.
type waiter struct {
	b     bytes.Buffer
	ready chan struct{}
	done  bool
}

func (w *waiter) Write(p []byte) (int, error) {
	w.b.Write(p)
	if !w.done && strings.Contains(w.b.String(), "\nready ") {
		w.done = true
		close(w.ready)
	}
	return len(p), nil
}

// smallKernel is a bzImage as far as headers go.
func smallKernel() []byte {
	b := make([]byte, 4096)
	b[0x1f1], b[0x211] = 2, 1
	copy(b[0x1fe:], "\x55\xaa")
	copy(b[0x202:], "HdrS\x0f\x02")
	b[0x20e], b[0x20f] = 0, 3
	copy(b[0x500:], "6.1.0-test (x@y) #7 SMP\x00")
	return b
}

// join puts a machine on the segment.
func (s *segment) join(name, mac, cidr string) *host {
	s.Helper()
	h := &host{s: s, ns: newNamespace(s.T), port: "p0", mac: mac}
	hw, err := net.ParseMAC(mac)
	if err != nil {
		s.Fatal(err)
	}
	in(s.T, s.srv, func() error {
		br, err := netlink.LinkByName("station")
		if err != nil {
			return err
		}
		near := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MasterIndex: br.Attrs().Index}, PeerName: h.port, PeerHardwareAddr: hw, PeerNamespace: netlink.NsFd(h.ns)}
		if err := netlink.LinkAdd(near); err != nil {
			return err
		}
		return setUp(name)
	})
	h.address(cidr)
	return h
}

// address gives the machine another address.
func (h *host) address(cidr string) {
	h.s.Helper()
	in(h.s.T, h.ns, func() error {
		if err := setUp(h.port); err != nil {
			return err
		}
		return setAddress(h.port, cidr)
	})
}

// pose makes the machine send with the port and the address of another one.
func (h *host) pose(mac, cidr string) {
	h.s.Helper()
	hw, err := net.ParseMAC(mac)
	if err != nil {
		h.s.Fatal(err)
	}
	in(h.s.T, h.ns, func() error {
		l, err := netlink.LinkByName(h.port)
		if err == nil {
			err = netlink.LinkSetHardwareAddr(l, hw)
		}
		return err
	})
	h.address(cidr)
}

// unplug takes the machine off the network.
func (h *host) unplug() {
	h.s.Helper()
	in(h.s.T, h.ns, func() error {
		l, err := netlink.LinkByName(h.port)
		if err == nil {
			err = netlink.LinkSetDown(l)
		}
		return err
	})
}

// dial connects from the machine.
func (h *host) dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = netns.Set(h.ns); err == nil {
			c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		}
	}()
	<-done
	return c, err
}

// script asks for a boot script as any program can, and returns its token, "" for none.
func (h *host) script(mac, serial string) string {
	h.s.Helper()
	c := &http.Client{Transport: &http.Transport{DialContext: h.dial, DisableKeepAlives: true}, Timeout: 20 * time.Second}
	resp, err := c.Get("http://" + h.s.run.http + "/boot.ipxe?platform=pcbios&mac=" + url.QueryEscape(mac) + "&serial=" + url.QueryEscape(serial))
	if err != nil {
		h.s.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || !strings.Contains(string(b), "provision.pxe") {
		h.s.Fatalf("%d %s %v", resp.StatusCode, b, err)
	}
	if m := regexp.MustCompile(` enrol=(\S+)`).FindStringSubmatch(string(b)); m != nil {
		return m[1]
	}
	return ""
}

// unit is the software of a unit on the machine, with a key of its own.
func (h *host) unit(serial string, seed byte) *unitreport.Client {
	h.s.Helper()
	c, err := unitreport.New(unitreport.Config{Endpoint: h.s.run.https, CA: h.s.ca, Unit: serial, Boot: fmt.Sprint("b", seed), Poll: time.Millisecond, Dial: h.dial,
		Key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))})
	if err != nil {
		h.s.Fatal(err)
	}
	h.s.Cleanup(c.Close)
	return c
}

// enrol is one request of a unit, with the ports that it says it has. The result is why it waits, "" if its key speaks for the unit.
func (h *host) enrol(c *unitreport.Client, token string, macs ...string) string {
	h.s.Helper()
	reason, err := c.Hello(h.s.Context(), record.EnrolRequest{Token: secret.Secret(token), SerialField: record.FirmwareSerial, MACs: macs})
	if err != nil {
		h.s.Fatal(err)
	}
	return reason
}

// operator asks the server as a person does, from the server's own machine.
func (s *segment) operator(method, path, body string, into any) int {
	s.Helper()
	h := &host{s: s, ns: s.srv}
	c := &http.Client{Transport: &http.Transport{DialContext: h.dial, DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: s.ca}}, Timeout: 20 * time.Second}
	r, err := http.NewRequestWithContext(s.Context(), method, "https://"+s.run.https+path, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	r.SetBasicAuth("admin", "correct horse")
	resp, err := c.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && into != nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		s.Fatal(string(b), err)
	}
	return resp.StatusCode
}

// approve approves the key of a unit that a panel shows.
func (s *segment) approve(unit, fingerprint string) {
	s.Helper()
	var d api.Detail
	s.operator("GET", "/v1/units/"+unit, "", &d)
	for _, e := range d.Enrolments {
		if e.Status == store.Pending && e.Fingerprint == fingerprint {
			path := fmt.Sprintf("/v1/units/%s/enrolments/%d/approve", unit, e.ID)
			if st := s.operator("POST", path, `{"fingerprint":"0000-0000-0000"}`, nil); st != http.StatusConflict {
				s.Error("approved by a fingerprint that is none of its keys:", st)
			}
			if st := s.operator("POST", path, fmt.Sprintf(`{"fingerprint":%q}`, fingerprint), nil); st != 200 {
				s.Fatal(st)
			}
			return
		}
	}
	s.Fatalf("no key %s waits: %+v", fingerprint, d.Enrolments)
}

const victimMAC, firstMAC, secondMAC = "52:54:00:00:07:01", "52:54:00:00:07:02", "52:54:00:00:07:03"

// TestTakeover has a unit and two attackers on the factory network. They know its serial number and its port, and ask for whatever the
// server gives.
func TestTakeover(t *testing.T) {
	s := newSegment(t, nil)
	victim := s.join("victim", victimMAC, "10.7.0.50/24")
	first := s.join("first", firstMAC, "10.7.0.60/24")
	second := s.join("second", secondMAC, "10.7.0.61/24")

	// Naming another's port in a request is no proof of having it.
	if tok := first.script(victimMAC, "SN-1"); tok != "" {
		t.Error("a token for a port that did not ask")
	}
	token := victim.script(victimMAC, "SN-1")
	if token == "" {
		t.Fatal("no token for the port that asks")
	}
	// The kernel gets another address than iPXE had.
	victim.address("10.7.0.77/24")
	unit := victim.unit("SN-1", 1)
	thief, other := first.unit("SN-1", 2), second.unit("SN-1", 3)
	own := first.script(firstMAC, "SN-1") // one for its own port, for the unit's serial number
	if own == "" {
		t.Fatal("no token")
	}
	if reason := victim.enrol(unit, token, victimMAC); reason != "" {
		t.Fatal(reason)
	}
	for _, claim := range [][]string{nil, {firstMAC}, {firstMAC, victimMAC}, {victimMAC}} {
		if reason := first.enrol(thief, own, claim...); !strings.Contains(reason, "operator") {
			t.Errorf("the attacker speaks for the unit with a token of its own port, naming %v: %q", claim, reason)
		}
		if reason := second.enrol(other, token, claim...); !strings.Contains(reason, "operator") { // which it has seen on the wire
			t.Errorf("the attacker speaks for the unit with a token that was used: %q", reason)
		}
	}
	for name, c := range map[string]*unitreport.Client{"first": thief, "second": other} {
		if _, err := c.Credentials(t.Context()); fault.Of(err) != fault.ServerRefused {
			t.Errorf("the %s attacker gets credentials: %v", name, err)
		}
	}
	cr, err := unit.Credentials(t.Context())
	if err != nil {
		t.Fatal("the unit is locked out:", err)
	}

	// A forger of port and address, while the unit is not there: it gets a token, and after the unit has credentials that is worth nothing.
	victim.unplug()
	unit.Close() // connections of the old addresses lead nowhere
	other.Close()
	second.pose(victimMAC, "10.7.0.50/24")
	forged := second.script(victimMAC, "SN-1")
	if reason := second.enrol(other, forged, victimMAC); !strings.Contains(reason, "has got its credentials") {
		t.Errorf("the forger speaks for the unit: %q", reason)
	}
	other.Close()
	second.pose(secondMAC, "10.7.0.61/24")
	victim.address("10.7.0.50/24")
	if err := unit.Confirm(t.Context(), cr.Generation); err != nil {
		t.Fatal("the unit is locked out:", err)
	}
	done := record.Event{Boot: "b1", Seq: 1, Time: time.Now(), Kind: record.KindState, Source: record.Observed, Attrs: record.State{Job: record.JobProvision, Phase: record.Succeeded, Percent: -1}.Attrs()}
	if _, err := unit.Send(t.Context(), []record.Event{done}); err != nil {
		t.Fatal(err)
	}
	var v store.Secret
	if st := s.operator("POST", "/v1/units/SN-1/credentials/read", "{}", &v); st != 200 || v.Generation != cr.Generation || v.Fingerprint != unit.Fingerprint() {
		t.Errorf("the operator reads other credentials: %d %+v", st, v)
	}
	// A complete unit takes no key at all.
	if _, err := thief.Hello(t.Context(), record.EnrolRequest{Token: secret.Secret(own), MACs: []string{firstMAC}}); fault.Of(err) != fault.EnrolRefused {
		t.Error(err)
	}
}

// TestForger is what a forger of port and address can do, before a unit has credentials: take its place. The unit then needs a person,
// who sees on the unit's panel which key is its own, and the forger's passwords are read by nobody.
func TestForger(t *testing.T) {
	s := newSegment(t, nil)
	forger := s.join("forger", firstMAC, "10.7.0.60/24")
	forger.pose(victimMAC, "10.7.0.50/24")
	thief := forger.unit("SN-1", 2)
	if reason := forger.enrol(thief, forger.script(victimMAC, "SN-1"), victimMAC); reason != "" {
		t.Fatal(reason)
	}
	cr, err := thief.Credentials(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := thief.Confirm(t.Context(), cr.Generation); err != nil {
		t.Fatal(err)
	}
	forger.unplug()
	victim := s.join("victim", victimMAC, "10.7.0.51/24")
	unit := victim.unit("SN-1", 1)
	if reason := victim.enrol(unit, victim.script(victimMAC, "SN-1"), victimMAC); !strings.Contains(reason, "has got its credentials") {
		t.Fatal(reason)
	}
	s.approve("SN-1", unit.Fingerprint())
	if reason := victim.enrol(unit, "", victimMAC); reason != "" {
		t.Fatal(reason)
	}
	if st := s.operator("POST", "/v1/units/SN-1/credentials/read", "{}", nil); st != http.StatusNotFound {
		t.Error("the operator reads the forger's passwords:", st)
	}
	mine, err := unit.Credentials(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var v store.Secret
	if st := s.operator("POST", "/v1/units/SN-1/credentials/read", "{}", &v); st != 200 || v.Generation != mine.Generation || v.Fingerprint != unit.Fingerprint() {
		t.Errorf("%d %+v", st, v)
	}
	// On the server's own machine it says whose they are.
	var out, errOut bytes.Buffer
	c := &Context{Context: t.Context(), Stdout: &out, Stderr: &errOut}
	data := VaultSource{Data: filepath.Join(s.dir, "data"), Operator: "admin"}
	if err := (&VaultListCmd{VaultSource: data, Unit: "SN-1"}).Run(c); err != nil || !strings.Contains(out.String(), thief.Fingerprint()+", set nowhere") || !strings.Contains(out.String(), unit.Fingerprint()+"\n") {
		t.Error(out.String(), err)
	}
	out.Reset()
	if err := (&VaultReadCmd{VaultSource: data, Identity: filepath.Join(s.dir, "op.key"), Generation: cr.Generation, Unit: "SN-1"}).Run(c); err != nil || !strings.Contains(errOut.String(), thief.Fingerprint()+", which does not speak") {
		t.Error(errOut.String(), err)
	}
}

// TestEnrolByPerson is the same with a server that takes no key without a person: the forger gets nothing.
func TestEnrolByPerson(t *testing.T) {
	s := newSegment(t, func(c *ServeCmd) { c.Enrol = "approve" })
	forger := s.join("forger", firstMAC, "10.7.0.60/24")
	forger.pose(victimMAC, "10.7.0.50/24")
	thief := forger.unit("SN-1", 2)
	if reason := forger.enrol(thief, forger.script(victimMAC, "SN-1"), victimMAC); !strings.Contains(reason, "without a person") {
		t.Fatal(reason)
	}
	if _, err := thief.Credentials(t.Context()); fault.Of(err) != fault.ServerRefused {
		t.Error(err)
	}
	forger.unplug()
	victim := s.join("victim", victimMAC, "10.7.0.51/24")
	unit := victim.unit("SN-1", 1)
	victim.enrol(unit, victim.script(victimMAC, "SN-1"), victimMAC)
	var d api.Detail
	s.operator("GET", "/v1/units/SN-1", "", &d)
	if st := s.operator("POST", fmt.Sprintf("/v1/units/SN-1/enrolments/%d/approve", d.Enrolments[0].ID), "", nil); st != http.StatusConflict {
		t.Error("approved without a fingerprint:", st)
	}
	s.approve("SN-1", unit.Fingerprint())
	if reason := victim.enrol(unit, ""); reason != "" {
		t.Error(reason)
	}
	if _, err := unit.Credentials(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestFloodOfScripts has an attacker that asks for scripts and enrolments without an end, from one address. Another machine boots and
// enrols meanwhile. What many addresses can do is tried on the store.
func TestFloodOfScripts(t *testing.T) {
	s := newSegment(t, nil)
	attacker := s.join("attacker", firstMAC, "10.7.0.60/24")
	c := &http.Client{Transport: &http.Transport{DialContext: attacker.dial}, Timeout: 20 * time.Second}
	refused := 0
	for i := range 60 {
		resp, err := c.Get("http://" + s.run.http + fmt.Sprintf("/boot.ipxe?mac=%s&serial=SN-%d", firstMAC, i))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusTooManyRequests {
			refused++
		}
	}
	c.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: s.ca}
	slow := 0
	for range 60 {
		resp, err := c.Post("https://"+s.run.https+"/v1/enrol", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusTooManyRequests {
			slow++
		}
	}
	if refused == 0 || slow == 0 {
		t.Error("one address has no limit", refused, slow)
	}
	victim := s.join("victim", victimMAC, "10.7.0.50/24")
	unit := victim.unit("SN-1", 1)
	if reason := victim.enrol(unit, victim.script(victimMAC, "SN-1"), victimMAC); reason != "" {
		t.Error(reason)
	}
	if _, err := unit.Credentials(t.Context()); err != nil {
		t.Error(err)
	}
}
