package sysroot

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// networkFileCases returns .network files as people write them, good and bad. PORT is the name of a port.
func networkFileCases() []File {
	const head = "[Match]\nName=PORT\n\n[Network]\nDHCP=no\nLinkLocalAddressing=no\n"
	var nets []string
	for i := range 400 {
		nets = append(nets, fmt.Sprintf("d%03d.example", i))
	}
	long := strings.Join(nets, " ")
	texts := []struct{ name, text string }{
		{"plain", head},
		{"long line", head + "Domains=" + long + "\n"},
		{"CRLF", strings.ReplaceAll(head, "\n", "\r\n")},
		{"CR alone", strings.ReplaceAll(head, "\n", "\r")},
		{"byte order mark", "\ufeff" + head},
		{"no newline at the end", strings.TrimSuffix(head, "\n")},
		{"space before", "  [Match]\n  Name=PORT\n\t[Network]\n\tDHCP=no\n"},
		{"space behind", "[Match] \nName=PORT\t\n[Network]\t \nDHCP=no \n"},
		{"space around the sign", "[Match]\nName = PORT\n[Network]\nDHCP = no\n"},
		{"comments", "; a\n[Match]\n# b\nName=PORT\n;c\n[Network]\n  # d\nDHCP=no\n"},
		{"text behind a head", "[Match] # the port\nName=PORT\n"},
		{"continued", "[Match]\nName=\\\nPORT\n[Network]\nDHCP=no\n"},
		{"comment between continued lines", "[Match]\nName=\\\n# the port\nPORT\n[Network]\nDHCP=no\n"},
		{"empty line between continued lines", "[Match]\nName=\\\n\nPORT\n[Network]\nDHCP=no\n"},
		{"continued at the end", "[Match]\nName=PORT\\"},
		{"two backslashes", "[Match]\nName=PORT\n[Network]\nDescription=a\\\\\nDHCP=no\n"},
		{"X- key", head + "X-Owner=ops\n"},
		{"X- section", head + "[X-Ours]\nOwner=ops\n"},
		{"unknown section", head + "[Ours]\nOwner=ops\n"},
		{"unknown key", head + "Owner=ops\n"},
		{"no sign", head + "this line is a note\n"},
		{"no name before the sign", head + "=x\n"},
		{"before any section", "Owner=ops\n" + head},
		{"Latin-1 in a comment", "# f\xfcr den Lift\n" + head},
		{"Latin-1 in a value", head + "Description=f\xfcr\n"},
		{"Latin-1 in a head", head + "[f\xfcr]\n"},
		{"section twice", head + "[Route]\nGateway=10.0.0.1\n[Route]\nGateway=10.0.0.2\n[Match]\nName=PORT\n"},
		{"empty value", head + "DNS=\n"},
		{"open head", head + "[Route\nGateway=10.0.0.1\n"},
		{"empty head", head + "[]\n"},
		{"no match", "[Network]\nDHCP=no\n"},
		{"empty match", "[Match]\nName=\n[Network]\nDHCP=no\n"},
		{"match of nothing known", "[Match]\nOwner=PORT\n[Network]\nDHCP=no\n"},
		{"lower case", "[match]\nname=PORT\n[network]\ndhcp=no\n"},
		{"only a comment", "# later\n"},
	}
	var out []File
	for i, c := range texts {
		out = append(out, File{fmt.Sprintf("10-%02d %s.network", i, c.name), []byte(strings.ReplaceAll(c.text, "PORT", fmt.Sprintf("gp%d", i)))})
	}
	return out
}

// TestNetworkd asks systemd-networkd with which of the files it configures a port. Exactly those must be kept.
func TestNetworkd(t *testing.T) {
	const daemon = "/lib/systemd/systemd-networkd"
	for _, need := range []string{daemon, "unshare", "ip"} {
		if _, err := exec.LookPath(need); err != nil || os.Geteuid() != 0 {
			if os.Getenv("GPROV_NO_SKIP") == "1" {
				t.Fatalf("%s and the right to use it are missing", need)
			}
			t.Skipf("%s and the right to use it are missing", need)
		}
	}
	cases := networkFileCases()
	dir := t.TempDir()
	script := `set -e
mount --make-rprivate /
mount -t tmpfs none /run
mkdir -p /etc/systemd/network
mount -t tmpfs none /etc/systemd/network
cp "$1"/* /etc/systemd/network
chmod 644 /etc/systemd/network/*
mount -t sysfs -o ro none /sys
`
	for i, f := range append(cases, File{"99-other.network", []byte("[Match]\nName=gp*\n[Network]\nDHCP=no\nLinkLocalAddressing=no\n")}) {
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Content, 0o644); err != nil {
			t.Fatal(err)
		}
		if i < len(cases) {
			script += fmt.Sprintf("ip link add gp%d type veth peer name peer%d\n", i, i)
		}
	}
	script += "SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console SYSTEMD_LOG_COLOR=0 exec " + daemon + "\n"
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "unshare", "-n", "-m", "--fork", "--kill-child", "sh", "-c", script, "sh", dir)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	out, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	used := map[string]string{}
	line := regexp.MustCompile(`^(gp[0-9]+): Configuring with /etc/systemd/network/(.*)\.$`)
	var all strings.Builder
	for s := bufio.NewScanner(out); len(used) < len(cases) && s.Scan(); {
		all.WriteString(s.Text() + "\n")
		if m := line.FindStringSubmatch(s.Text()); m != nil {
			used[m[1]] = m[2]
		}
	}
	cancel()
	c.Wait()
	if len(used) < len(cases) {
		t.Fatalf("systemd-networkd configured %d of %d ports:\n%s", len(used), len(cases), all.String())
	}
	kept := 0
	for i, f := range cases {
		takes := used[fmt.Sprintf("gp%d", i)] == f.Name
		if err := CheckNetworkFile(f); takes != (err == nil) {
			t.Errorf("%s: systemd-networkd configures its port with it: %t; we: %v", f.Name, takes, err)
		}
		if takes {
			kept++
		}
	}
	if kept < 20 {
		t.Errorf("systemd-networkd takes %d files only:\n%s", kept, all.String())
	}
}

// TestNetworkFileCases checks the result of TestNetworkd on machines without systemd-networkd.
func TestNetworkFileCases(t *testing.T) {
	refused := map[string]bool{"text behind a head": true, "Latin-1 in a value": true, "Latin-1 in a head": true, "open head": true, "no match": true, "empty match": true, "lower case": true, "match of nothing known": true, "only a comment": true,
		"empty line between continued lines": true}
	for _, f := range networkFileCases() {
		_, name, _ := strings.Cut(strings.TrimSuffix(f.Name, ".network"), " ")
		if err := CheckNetworkFile(f); (err != nil) != refused[name] {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := "[NetDev]\nName=wg0\nKind=wireguard\n[WireGuard]\nPrivateKeyFile=/etc/wg.key\n[WireGuardPeer]\nPublicKey=x\nAllowedIPs=" + strings.Repeat("10.100.0.0/16,", 300) + "\n"
	for _, f := range []File{{"50 wg 0.netdev", []byte(long)}, {"Büro.network", []byte("[Match]\nName=a\n")}} {
		if err := CheckNetworkFile(f); err != nil {
			t.Error(err)
		}
		packed, err := PackNetwork([]File{f, own("x.network")})
		if err != nil {
			t.Fatal(err)
		}
		if got, refused, err := UnpackNetwork(packed); err != nil || len(refused) > 0 || got[0].Name != f.Name {
			t.Errorf("%s: %v, %v, %v", f.Name, got, refused, err)
		}
	}
}

// TestImageWithoutPorts: if the image's files configure no port, the unit still gets the defaults.
func TestImageWithoutPorts(t *testing.T) {
	for _, c := range []struct {
		name, text string // "": a link to /dev/null
		own        bool
	}{
		{"80-container-host0.network", "", false},
		{"50-lan.network", "[Match]\nName=eth0\n[Network]\nDHCP=yes\n", true},
		{"50-lan.network", "[Match]\nMACAddress=00:11:22:33:44:55\n[Network]\nAddress=10.0.0.2/24\n", true},
		{"50-any.network", "[Match]\nType=ether wlan\n[Network]\nDHCP=yes\n", true},
		{"50-any.network", "[Match]\nName=!wl*\n[Network]\nDHCP=yes\n", true},
		{"50-bond.network", "[Match]\nName=en* eth*\n[Network]\nBond=bond0\n", true},
		{"50-off.network", "[Match]\nName=eth*\n[Link]\nUnmanaged=yes\n", false},
		{"50-lo.network", "[Match]\nName=lo\n[Network]\nAddress=10.0.0.2/32\n", false},
		{"50-docker.network", "[Match]\nName=docker* veth*\n[Link]\nUnmanaged=true\n", false},
		{"50-docker.network", "[Match]\nName=docker0\n[Network]\nDHCP=no\n", false},
		{"50-wlan.network", "[Match]\nType=wlan\n[Network]\nDHCP=yes\n", false},
		{"50-bridge.network", "[Match]\nKind=bridge\n[Network]\nDHCP=yes\n", false},
		{"50-container.network", "[Match]\nVirtualization=container\nName=host0\n[Network]\nDHCP=yes\n", false},
		{"50-none.network", "[Network]\nDHCP=yes\n", false},
		{"50-note.network", "# nothing yet\n", false},
		{"50-lan.link", "[Match]\nName=eth0\n[Link]\nName=lan0\n", false},
	} {
		dir := image(t)
		put(t, dir, networkDir+"/"+c.name, c.text, 0o644)
		if c.text == "" {
			os.Remove(filepath.Join(dir, networkDir, c.name))
			symlink(t, dir, "/dev/null", networkDir+"/"+c.name)
		}
		if err := Configure(dir, slog.New(slog.DiscardHandler), config()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, networkDir, "90-ethernet.network")); (err != nil) != c.own {
			t.Errorf("%s %q: the defaults are there: %t, want %t", c.name, c.text, err == nil, !c.own)
		}
		if _, err := os.Lstat(filepath.Join(dir, networkDir, c.name)); err != nil {
			t.Errorf("the image's %s is gone: %v", c.name, err)
		}
	}
}
