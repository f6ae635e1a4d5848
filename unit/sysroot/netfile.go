package sysroot

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// setting is one assignment of a file of systemd.
type setting struct{ Section, Name, Value string }

// maxLine is the longest line that systemd reads, in bytes (LONG_LINE_MAX).
const maxLine = 1 << 20

// settings reads a file as systemd reads it (systemd.syntax(7), config_parse of version 252): what it takes is taken, what it passes over
// with a warning is passed over, and what makes it refuse the file is an error. TestNetworkd holds that against systemd-networkd.
func settings(b []byte) ([]setting, error) {
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	var out []setting
	section, known := "", false
	assign := func(line string) error {
		line = strings.Trim(line, blanks)
		if line == "" {
			return nil
		}
		if !utf8.ValidString(line) {
			return errors.New("a line is not UTF-8")
		}
		if line[0] == '[' {
			if line[len(line)-1] != ']' {
				return fmt.Errorf("%.60q is not the head of a section", line)
			}
			section, known = line[1:len(line)-1], true
			return nil
		}
		name, value, found := strings.Cut(line, "=")
		if name = strings.Trim(name, blanks); !found || name == "" || !known {
			return nil // systemd says so in its log and goes on
		}
		out = append(out, setting{section, name, strings.Trim(value, blanks)})
		return nil
	}
	var begun strings.Builder // a line that goes on
	going := false
	for _, line := range strings.Split(lineEnds.Replace(string(b)), "\n") {
		if len(line) > maxLine || begun.Len() > maxLine {
			return nil, fmt.Errorf("a line has more than %d bytes", maxLine)
		}
		line = strings.TrimLeft(line, blanks)
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue // also between the parts of one line; an empty one ends it
		}
		if odd := (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1; odd {
			begun.WriteString(line[:len(line)-1] + " ")
			going = true
			continue
		}
		if going {
			line = begun.String() + line
			begun.Reset()
			going = false
		}
		if err := assign(line); err != nil {
			return nil, err
		}
	}
	if going {
		if err := assign(begun.String()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// lineEnds makes each way to end a line that systemd knows the same one.
var lineEnds = strings.NewReplacer("\r\n", "\n", "\n\r", "\n", "\r", "\n")

// matches are the settings of [Match] by which a file is one for some machine or port (systemd.network(5), systemd.link(5)).
var matches = [...]string{"MACAddress", "PermanentMACAddress", "Path", "Driver", "Type", "Kind", "Name", "OriginalName", "Property", "WLANInterfaceType", "SSID",
	"BSSID", "Host", "Virtualization", "KernelCommandLine", "KernelVersion", "Version", "Credential", "Architecture", "Firmware"}

// blanks is what systemd takes for white space.
const blanks = " \t\n\r"

// CheckNetworkFile says why a file may not be kept: its name is none of systemd-networkd's, it is too large, systemd would refuse it,
// it lacks what makes it one (systemd.network(5), systemd.link(5), systemd.netdev(5)), or it holds a key: the recovery
// volume keeps no secrets. An empty file, which hides another of its name, may.
func CheckNetworkFile(f File) error {
	if err := checkNetworkFile(f); err != nil {
		return fmt.Errorf("network file %q: %w", f.Name, err)
	}
	return nil
}

// isNetworkName reports whether a file of that name is one of systemd-networkd's or udev's, in its own directory.
func isNetworkName(name string) bool {
	return len(name) <= 128 && networkSuffix(name) && name[0] != '.' && utf8.ValidString(name) &&
		!strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '/' })
}

func checkNetworkFile(f File) error {
	if !isNetworkName(f.Name) {
		return errors.New("its name is not one of a .network, .link or .netdev file")
	}
	if len(f.Content) > maxNetworkFile {
		return fmt.Errorf("more than %d bytes", maxNetworkFile)
	}
	if bytes.ContainsFunc(f.Content, func(r rune) bool { return r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == 0x7f }) {
		return errors.New("it is not plain text")
	}
	if len(bytes.TrimSpace(f.Content)) == 0 {
		return nil
	}
	all, err := settings(f.Content)
	if err != nil {
		return err
	}
	has := map[string]bool{}
	for _, o := range all {
		if o.isKey() {
			return fmt.Errorf("[%s] %s is a secret, which the recovery volume does not keep; name a file instead", o.Section, o.Name)
		}
		if o.Value != "" {
			has[o.Section+"."+o.Name] = true
		}
	}
	if path.Ext(f.Name) == ".netdev" {
		if !has["NetDev.Name"] || !has["NetDev.Kind"] {
			return errors.New("[NetDev] lacks Name or Kind")
		}
		return nil
	}
	if !slices.ContainsFunc(matches[:], func(m string) bool { return has["Match."+m] }) {
		return errors.New("it has no [Match], or nothing in it")
	}
	return nil
}

// isKey reports whether a setting is a key of an encrypted link: WireGuard's or MACsec's (systemd.netdev(5)).
func (o setting) isKey() bool {
	if o.Value == "" {
		return false
	}
	return o.Name == "PrivateKey" || o.Name == "PresharedKey" || o.Name == "Password" || o.Name == "Key" && strings.HasPrefix(o.Section, "MACsec")
}

// configures reports whether a .network file configures an Ethernet port, as far as that shows without the machine.
func configures(f File) bool {
	all, err := settings(f.Content)
	if err != nil {
		return false
	}
	match := false
	for _, o := range all {
		switch {
		case o.Section == "Link" && o.Name == "Unmanaged" && slices.Contains([]string{"1", "yes", "y", "true", "t", "on"}, strings.ToLower(o.Value)):
			return false
		case o.Section != "Match" || o.Value == "":
		case o.Name == "Virtualization" && o.Value == "container":
			return false
		case o.Name == "Kind" && !strings.HasPrefix(o.Value, "!"):
			return false // made by the system itself
		case o.Name == "Type" && !strings.HasPrefix(o.Value, "!") && !slices.Contains(strings.Fields(o.Value), "ether"):
			return false
		case o.Name == "Name" && !strings.HasPrefix(o.Value, "!") && !slices.ContainsFunc(strings.Fields(o.Value), isPort):
			return false
		default:
			match = true
		}
	}
	return match
}

// virtualPorts are beginnings of the names of ports that hardware does not have.
var virtualPorts = [...]string{"veth", "ve-", "vb-", "vt-", "vz-", "docker", "podman", "cni", "virbr", "vnet", "tap", "tun", "wg", "dummy", "wl", "ww", "ip6tnl", "sit"}

// isPort reports whether the pattern of a name can be that of an Ethernet port.
func isPort(pattern string) bool {
	return pattern != "lo" && !slices.ContainsFunc(virtualPorts[:], func(v string) bool { return strings.HasPrefix(pattern, v) })
}
