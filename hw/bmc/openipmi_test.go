package bmc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The second opinion: OpenIPMI's simulator, whose controller knows nothing of this package, and ipmitool, which reads over the network what
// was set from inside.

// need skips a test without a program.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// judge is a running ipmi_sim.
type judge struct {
	t       *testing.T
	address string // of its port on the network
	*Controller
}

// startJudge starts ipmi_sim with an inventory and two events, and connects to it as QEMU does.
func startJudge(t *testing.T, fru []byte) *judge {
	t.Helper()
	need(t, "ipmi_sim")
	need(t, "ipmitool")
	dir := t.TempDir()
	lan, serial := freePort(t, "udp"), freePort(t, "tcp")
	data := fmt.Sprintf("% x", fru)
	for name, text := range map[string]string{
		"lan.conf": fmt.Sprintf(`name "judge"
set_working_mc 0x20
startlan 1
  addr 127.0.0.1 %s
  priv_limit admin
  allowed_auths_admin none md2 md5 straight
  guid a123456789abcdefa123456789abcdef
endlan
serial 15 127.0.0.1 %s codec VM
user 1 false "" "test" user 10 none md2 md5 straight
user 2 true "ADMIN" "ADMIN" admin 10 none md2 md5 straight
`, lan, serial),
		"commands": fmt.Sprintf(`mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
mc_add_fru_data 0x20 0 %d data 0x%s
sel_enable 0x20 1000 0x0a
mc_enable 0x20
sel_add 0x20 2 0 0 0 0x65 0x20 0 4 1 0x30 0x6f 0xa1 0 0
sel_add 0x20 2 0 0 0 0x66 0x20 0 4 1 0x31 0x6f 0xa2 0 0
`, len(fru), strings.ReplaceAll(data, " ", " 0x")),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	said := &bytes.Buffer{}
	cmd := exec.CommandContext(t.Context(), "ipmi_sim", "-n", "-c", dir+"/lan.conf", "-f", dir+"/commands", "-s", dir)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("ipmi_sim: %s", said)
		}
	})
	j := &judge{t: t, address: "127.0.0.1:" + lan}
	deadline := time.Now().Add(20 * time.Second)
	for {
		c, err := net.Dial("tcp", "127.0.0.1:"+serial)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			v := &vmCodec{conn: c, in: bufio.NewReader(c)}
			j.Controller = &Controller{Exchange: v.exchange}
			return j
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func freePort(t *testing.T, network string) string {
	t.Helper()
	var a net.Addr
	if network == "udp" {
		c, err := net.ListenPacket(network, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		a = c.LocalAddr()
	} else {
		l, err := net.Listen(network, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		a = l.Addr()
	}
	_, port, err := net.SplitHostPort(a.String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// tool runs ipmitool over the network as a user.
func (j *judge) tool(user, password string, args ...string) (string, error) {
	j.t.Helper()
	_, port, err := net.SplitHostPort(j.address)
	if err != nil {
		j.t.Fatal(err)
	}
	args = append([]string{"-I", "lanplus", "-C", "3", "-H", "127.0.0.1", "-p", port, "-U", user, "-E", "-R", "2"}, args...)
	cmd := exec.CommandContext(j.t.Context(), "ipmitool", args...)
	cmd.Env = append(os.Environ(), "IPMI_PASSWORD="+password)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// vmCodec is QEMU's way to an external controller (hw/ipmi/ipmi_bmc_extern.c): number, network function, command and data with a
// checksum; three bytes are escaped.
type vmCodec struct {
	conn net.Conn
	in   *bufio.Reader
	last byte
}

const (
	vmMessage, vmCommand, vmEscape = 0xa0, 0xa1, 0xaa
)

func (v *vmCodec) exchange(ctx context.Context, netFn, command byte, data []byte) ([]byte, error) {
	v.last++
	body := append([]byte{v.last, netFn << 2, command}, data...)
	body = append(body, -sum(body))
	var out []byte
	for _, b := range body {
		if b == vmMessage || b == vmCommand || b == vmEscape {
			out = append(out, vmEscape, b|0x10)
		} else {
			out = append(out, b)
		}
	}
	if err := v.conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := v.conn.Write(append(out, vmMessage)); err != nil {
		return nil, err
	}
	for {
		var in []byte
		for {
			b, err := v.in.ReadByte()
			if err != nil {
				return nil, err
			}
			if b == vmCommand { // about power and resets
				in = nil
				continue
			}
			if b == vmMessage {
				break
			}
			if b == vmEscape {
				if b, err = v.in.ReadByte(); err != nil {
					return nil, err
				}
				b &^= 0x10
			}
			in = append(in, b)
		}
		if len(in) < 5 || in[0] != v.last {
			continue
		}
		if sum(in) != 0 {
			return nil, errors.New("a checksum of ipmi_sim is wrong")
		}
		return in[3 : len(in)-1], nil
	}
}

// TestOpenIPMI sets up a controller that is not ours, and hears what it and ipmitool say of that.
func TestOpenIPMI(t *testing.T) {
	want := Inventory{BoardMaker: "ACME", BoardName: "Board", BoardSerial: "B-1", BoardPart: "P-7",
		ProductMaker: "ACME", ProductName: "Widget", ProductPart: "W-1", ProductVersion: "r2", ProductSerial: "S-1"}
	j := startJudge(t, testFRU(0xc0))
	ctx := t.Context()

	d, err := j.Device(ctx)
	if err != nil || d.Firmware != "9.08" || d.IPMI != "2.0" || d.Manufacturer != 0x1291 || d.Product != 0xf02 || d.Updating {
		t.Errorf("it is %+v, %v", d, err)
	}
	if got, err := j.Inventory(ctx); err != nil || got != want {
		t.Errorf("its inventory is %+v, %v", got, err)
	}
	for _, set := range [][]string{{"macaddr", "02:00:5e:00:53:07"}, {"ipsrc", "static"}, {"ipaddr", "192.0.2.9"},
		{"netmask", "255.255.255.0"}, {"defgw", "ipaddr", "192.0.2.1"}} {
		if out, err := j.tool("ADMIN", "ADMIN", append([]string{"lan", "set", "1"}, set...)...); err != nil {
			t.Fatalf("ipmitool %q: %v\n%s", set, err, out)
		}
	}
	lans, err := j.LANs(ctx)
	wantLAN := LAN{Channel: 1, MAC: "02:00:5e:00:53:07", Address: netip.MustParseAddr("192.0.2.9"), Mask: netip.MustParseAddr("255.255.255.0"),
		Gateway: netip.MustParseAddr("192.0.2.1"), Source: "static", Access: "always"}
	if err != nil || len(lans) != 1 || lans[0] != wantLAN {
		t.Fatalf("its ports are %+v, %v", lans, err)
	}

	const password = "sixteen bytes.01"
	u, err := j.SetUser(ctx, 1, "operator", password)
	if err != nil || u.ID != 3 {
		t.Fatalf("account %+v: %v", u, err)
	}
	// It says yes to each test of a password. That is found out, and a login says more.
	if err := j.TestPassword(ctx, u.ID, password); !errors.Is(err, ErrNoProof) {
		t.Errorf("the test of a password: %v", err)
	}
	if err := loginAt(ctx, j.address, "operator", password); err != nil {
		t.Errorf("login: %v", err)
	}
	out, err := j.tool("operator", password, "user", "list", "1")
	if err != nil || !strings.Contains(out, "3   operator ") || !strings.Contains(out, "ADMINISTRATOR") {
		t.Errorf("ipmitool: %v\n%s", err, out)
	}
	// It cuts a password of 20 bytes short, and says nothing.
	if _, err := j.SetUser(ctx, 1, "operator", "the twenty bytes one"); err != nil {
		t.Error(err)
	}
	if err := loginAt(ctx, j.address, "operator", "the twenty bytes one"); !errors.Is(err, ErrPassword) {
		t.Errorf("a password that was cut short: %v", err)
	}
	if _, err := j.SetUser(ctx, 1, "operator", password); err != nil {
		t.Error(err)
	}
	for name, who := range map[string][2]string{"wrong password": {"operator", "sixteen bytes.00"}, "no such user": {"nobody", "x"}} {
		if err := loginAt(ctx, j.address, who[0], who[1]); !errors.Is(err, ErrPassword) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := j.DisableUser(ctx, 1, 2); err != nil {
		t.Errorf("disable: %v", err)
	}
	if err := loginAt(ctx, j.address, "ADMIN", "ADMIN"); !errors.Is(err, ErrPassword) {
		t.Errorf("a user that is disabled logs in: %v", err)
	}
	if out, err := j.tool("ADMIN", "ADMIN", "mc", "info"); err == nil {
		t.Errorf("ipmitool logs in as one that is disabled:\n%s", out)
	}

	records, n, err := j.Log(ctx, 10)
	if err != nil || n != 2 || len(records) != 2 || records[1][13] != 0xa2 {
		t.Errorf("its log has %d: %v, %v", n, records, err)
	}
	if records, n, err := j.Log(ctx, 1); err != nil || n != 2 || len(records) != 1 {
		t.Errorf("one record of %d: %v, %v", n, records, err)
	}
	if err := j.ClearLog(ctx); err != nil {
		t.Errorf("clear: %v", err)
	}
	if out, err := j.tool("operator", password, "sel", "info"); err != nil || !strings.Contains(out, "Entries          : 0") {
		t.Errorf("ipmitool: %v\n%s", err, out)
	}
	for _, p := range []Restore{TurnOn, AsBefore, StayOff} {
		if err := j.SetPowerRestore(ctx, p); err != nil && !isRefusal(err) { // this one keeps its own policy
			t.Errorf("power: %v", err)
		}
	}
	for _, d := range []time.Duration{LongestLight, 0} {
		if err := j.Identify(ctx, d); err != nil && !isRefusal(err) {
			t.Errorf("light for %s: %v", d, err)
		}
	}
}

// TestNobodyAnswers: at an address where nobody is, a login says so, and not that the password is wrong.
func TestNobodyAnswers(t *testing.T) {
	if err := loginAt(t.Context(), "127.0.0.1:"+freePort(t, "udp"), "operator", "x"); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("it says %v", err)
	}
	c, err := net.ListenPacket("udp", "127.0.0.1:0") // one that takes all and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := loginAt(ctx, c.LocalAddr().String(), "operator", "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it says %v", err)
	}
}
