package boot

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"path"
	"regexp"
	"strings"

	"gprovision/model/bootimage"
)

// packages knows which Debian package of a root filesystem has a file.
type packages struct {
	version map[string]string // by package name
	owner   map[string]string // package name by path, as the package lists it
}

// readPackages reads dpkg's status and lists. A root filesystem without dpkg has no packages.
func readPackages(root *rootFS) *packages {
	p := &packages{version: map[string]string{}, owner: map[string]string{}}
	status, err := root.read("var/lib/dpkg/status", "")
	if err != nil {
		return p
	}
	name := ""
	for _, line := range strings.Split(string(status), "\n") {
		if v, ok := strings.CutPrefix(line, "Package: "); ok {
			name = v
		}
		if v, ok := strings.CutPrefix(line, "Version: "); ok {
			p.version[name] = v
		}
	}
	const info = "var/lib/dpkg/info"
	for _, file := range root.list(info) {
		owner, ok := strings.CutSuffix(file, ".list")
		if !ok {
			continue
		}
		owner, _, _ = strings.Cut(owner, ":")
		b, err := root.read(path.Join(info, file), "")
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(b), "\n") {
			if len(line) > 1 {
				p.owner[line[1:]] = owner
			}
		}
	}
	return p
}

// tool describes a file. With merged directories a package may list it with or without usr/, and under the name that a
// link leads to. Without packages (nil) the file is described alone.
func (p *packages) tool(root *rootFS, name string, data []byte) bootimage.Tool {
	sum := sha256.Sum256(data)
	t := bootimage.Tool{Name: path.Base(name), Path: "/" + name, SHA256: hex.EncodeToString(sum[:])}
	if p == nil {
		t.Version = ownVersion(data)
		return t
	}
	names := []string{name}
	if real, _, err := root.resolve(name); err == nil {
		names = append(names, real)
	}
	for _, n := range names {
		for _, m := range []string{n, "usr/" + n, strings.TrimPrefix(n, "usr/")} {
			if owner, ok := p.owner[m]; ok {
				t.Package, t.Version = owner, p.version[owner]
				return t
			}
		}
	}
	t.Version = ownVersion(data)
	return t
}

// ownVersion returns the version that a program holds: of its Go module, or the one string in it that looks like a version,
// such as "1.47.0". Empty if there is none, or more than one.
func ownVersion(data []byte) string {
	if !isELF(data) {
		return ""
	}
	if info, err := buildinfo.Read(bytes.NewReader(data)); err == nil {
		if v := info.Main.Version; v != "" && v != "(devel)" {
			return v
		}
		return ""
	}
	found := ""
	for _, m := range versionText.FindAllSubmatch(data, -1) {
		if v := string(m[1]); found == "" {
			found = v
		} else if v != found {
			return ""
		}
	}
	return found
}

var versionText = regexp.MustCompile(`\x00v?([0-9]{1,4}\.[0-9]{1,4}(?:\.[0-9]{1,4}){0,2}(?:-[0-9a-z]{1,8})?)\x00`)
