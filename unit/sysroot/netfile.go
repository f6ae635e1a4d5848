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

// setting is one assignment in a systemd file.
type setting struct{ Section, Name, Value string }

// maxLine is the longest line that systemd accepts, in bytes (LONG_LINE_MAX).
const maxLine = 1 << 20

// parseSettings parses a file as systemd does (systemd.syntax(7), config_parse of version 252). It skips what systemd
// skips with a warning. An error is what makes systemd refuse the file. TestNetworkd compares it with
// systemd-networkd.
func parseSettings(b []byte) ([]setting, error) {
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
			return nil // systemd logs this and goes on
		}
		out = append(out, setting{section, name, strings.Trim(value, blanks)})
		return nil
	}
	var begun strings.Builder // a line continued on the next
	going := false
	for _, line := range strings.Split(lineEnds.Replace(string(b)), "\n") {
		if len(line) > maxLine || begun.Len() > maxLine {
			return nil, fmt.Errorf("a line has more than %d bytes", maxLine)
		}
		line = strings.TrimLeft(line, blanks)
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue // even between continued lines, which an empty line would end
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

// lineEnds turns every line ending that systemd knows into a newline.
var lineEnds = strings.NewReplacer("\r\n", "\n", "\n\r", "\n", "\r", "\n")

// matches are the settings of [Match] that tie a file to a machine or a port (systemd.network(5), systemd.link(5)).
var matches = [...]string{"MACAddress", "PermanentMACAddress", "Path", "Driver", "Type", "Kind", "Name", "OriginalName", "Property", "WLANInterfaceType", "SSID",
	"BSSID", "Host", "Virtualization", "KernelCommandLine", "KernelVersion", "Version", "Credential", "Architecture", "Firmware"}

// blanks is white space as systemd defines it.
const blanks = " \t\n\r"

// CheckNetworkFile returns an error if a network file must not be kept. Its name must be one of systemd-networkd's,
// it must not be too large, and systemd must accept it. It must have what makes it a file of its kind
// (systemd.network(5), systemd.link(5), systemd.netdev(5)). It must not hold a key, because the recovery volume keeps
// no secrets. An empty file is fine: it hides another file with its name.
func CheckNetworkFile(f File) error {
	if err := checkNetworkFile(f); err != nil {
		return fmt.Errorf("network file %q: %w", f.Name, err)
	}
	return nil
}

// isNetworkName reports whether systemd-networkd or udev would read a file with that name in its own directory.
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
	all, err := parseSettings(f.Content)
	if err != nil {
		return err
	}
	has := map[string]bool{}
	for _, o := range all {
		if o.isSecret() {
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

// isSecret reports whether a setting is a key of an encrypted link, WireGuard or MACsec (systemd.netdev(5)).
func (o setting) isSecret() bool {
	if o.Value == "" {
		return false
	}
	return o.Name == "PrivateKey" || o.Name == "PresharedKey" || o.Name == "Password" || o.Name == "Key" && strings.HasPrefix(o.Section, "MACsec")
}

// configuresPort reports whether a .network file configures an Ethernet port, as far as one can tell without the machine.
func configuresPort(f File) bool {
	all, err := parseSettings(f.Content)
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
			return false // the system itself makes such a link
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

// virtualPorts are prefixes of the names of ports that no hardware has.
var virtualPorts = [...]string{"veth", "ve-", "vb-", "vt-", "vz-", "docker", "podman", "cni", "virbr", "vnet", "tap", "tun", "wg", "dummy", "wl", "ww", "ip6tnl", "sit"}

// isPort reports whether a name pattern can match an Ethernet port.
func isPort(pattern string) bool {
	return pattern != "lo" && !slices.ContainsFunc(virtualPorts[:], func(v string) bool { return strings.HasPrefix(pattern, v) })
}
