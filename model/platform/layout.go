package platform

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"gprovision/model/layout"
	"gprovision/model/source"
)

var dataLabel = regexp.MustCompile(`^[A-Za-z0-9._-]{1,16}$`)

// systemDirs are directories that a data partition would hide: what the system itself consists of, and what a restore writes.
var systemDirs = []string{"/", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys", "/usr", "/var"}

// refused finds disks that nobody can lay out, so that no unit is built in a way that its table does not say.
func (v *Variant) refused(at string, txt *source.Text) []Problem {
	var ps []Problem
	add := func(key, text, hint string) {
		p := source.Under(at, key)
		ps = append(ps, Problem{Line: txt.Line(p), Path: p, Text: text, Hint: hint})
	}
	switch v.RecoveryMedia.Layout {
	case "", OwnDevice:
	case OnMain:
		if v.NumDataDisks > 1 || v.HasRAID() {
			add("RecoveryMedia.Layout", "a recovery volume on the main disk needs a unit with one main disk and no RAID", "give the recovery volume a device of its own")
		}
	default:
		add("RecoveryMedia.Layout", fmt.Sprintf("the layout %q is not known", v.RecoveryMedia.Layout), "use device or partition")
	}
	d := v.DataPartition
	if d == nil {
		return ps
	}
	if !dataLabel.MatchString(d.Label) {
		add("DataPartition.Label", fmt.Sprintf("%q is not 1 to 16 letters, digits, dashes, dots and underscores", d.Label), "")
	}
	if !path.IsAbs(d.Mount) || path.Clean(d.Mount) != d.Mount || len(d.Mount) > 255 || strings.ContainsFunc(d.Mount, func(r rune) bool { return r <= ' ' || r > '~' }) {
		add("DataPartition.Mount", fmt.Sprintf("%q is not an absolute path of printable ASCII characters", d.Mount), "use one such as /data")
	}
	for _, dir := range systemDirs {
		if d.Mount == dir {
			add("DataPartition.Mount", fmt.Sprintf("a data partition at %s would hide the system", dir), "use one such as /data")
		}
	}
	switch {
	case d.Size < 0 || d.SystemSize < 0 || (d.Size == 0) == (d.SystemSize == 0):
		add("DataPartition", "want either Size or SystemSize, in bytes", "the other of the two gets what is left of the disk")
	case d.Size > 0 && d.Size < layout.MinData:
		add("DataPartition.Size", fmt.Sprintf("%d bytes, want at least %d", d.Size, int64(layout.MinData)), "")
	}
	return ps
}
