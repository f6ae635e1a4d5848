// Package naming defines the names that a company gives its product: how its images are called, the labels of its units' volumes,
// and how a restored system's host name begins. They lie in the initramfs of a boot artifact as /etc/gprovision/names.json:
// forge/boot writes the file, unit/pid1 obeys it. It belongs to the artifact and is signed with it, as the policy is.
//
// Names never prove anything. A unit keeps those that it was provisioned with in its own record.
//
// The format is described in docs/formats/names.md.
package naming

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"gprovision/model/layout"
	"gprovision/model/release"
	"gprovision/model/source"
)

// Version is the format version that this package writes. Parse reads it and all older ones.
const Version = 1

// MaxSize is the most bytes that such a file may have.
const MaxSize = 64 << 10

// The most bytes of a label and of a host prefix. An ext4 superblock has 16 bytes for the label (s_volume_name); the same name as the
// name of a GPT partition may have 36 units of UTF-16 (UEFI 2.10, table 5-6). A host name has 63 (RFC 1035, 2.3.4), half of
// which stays for the serial number.
const (
	maxLabel = 16
	maxHost  = 32
	maxImage = 100
)

// Names are what a company may call things. An empty one is the default of whoever reads them: that of the Site.
type Names struct {
	// Version is the version of the format.
	Version int `json:"version"`
	// ImagePrefix is the first three parts of an image's name, with the final dot.
	ImagePrefix string `json:"imagePrefix,omitempty"`
	// RecoveryLabel is the label of the recovery volume's filesystem, and the name of its partition. The running system has it
	// mounted at /mnt/LABEL.
	RecoveryLabel string `json:"recoveryLabel,omitempty"`
	// PrimaryLabel is that of the main system.
	PrimaryLabel string `json:"primaryLabel,omitempty"`
	// HostPrefix is how a restored system's host name begins, before the serial number.
	HostPrefix string `json:"hostPrefix,omitempty"`
}

// Or returns n with what is empty in it taken from others.
func (n Names) Or(others Names) Names {
	return Names{
		Version:       cmp.Or(n.Version, others.Version),
		ImagePrefix:   cmp.Or(n.ImagePrefix, others.ImagePrefix),
		RecoveryLabel: cmp.Or(n.RecoveryLabel, others.RecoveryLabel),
		PrimaryLabel:  cmp.Or(n.PrimaryLabel, others.PrimaryLabel),
		HostPrefix:    cmp.Or(n.HostPrefix, others.HostPrefix),
	}
}

// Parse reads names. Unknown keys are ignored. The result has passed Validate.
func Parse(b []byte) (Names, error) {
	if len(b) > MaxSize {
		return Names{}, fmt.Errorf("parse names: %d bytes, want at most %d", len(b), MaxSize)
	}
	b, err := source.Decode(b)
	if err != nil {
		return Names{}, fmt.Errorf("parse names: %w", err)
	}
	var n Names
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&n); err != nil {
		return Names{}, fmt.Errorf("parse names: %w", err)
	}
	if d.More() {
		return Names{}, errors.New("parse names: data after the end")
	}
	return n, n.Validate()
}

// problem is what is wrong with the value of a key.
type problem struct{ key, text, hint string }

// wrong returns all that is wrong with n.
func (n Names) wrong() []problem {
	var out []problem
	add := func(key, hint, format string, args ...any) {
		out = append(out, problem{key, fmt.Sprintf(format, args...), hint})
	}
	if n.Version < 1 || n.Version > Version {
		add("version", "", "version %d is not known, the newest is %d", n.Version, Version)
	}
	if n.ImagePrefix != "" {
		if err := release.CheckPrefix(n.ImagePrefix); err != nil {
			add("imagePrefix", "PRODUCT.OS.PLATFORM. with the final dot; letters, digits, dashes and underscores", "%v", err)
		} else if len(n.ImagePrefix) > maxImage {
			add("imagePrefix", "", "it has %d characters, want at most %d", len(n.ImagePrefix), maxImage)
		}
	}
	for _, l := range []struct{ key, label string }{{"recoveryLabel", n.RecoveryLabel}, {"primaryLabel", n.PrimaryLabel}} {
		switch {
		case l.label == "":
		case len(l.label) > maxLabel:
			add(l.key, "", "label %q has %d bytes, and ext4 has room for %d", l.label, len(l.label), maxLabel)
		case !isLabel(l.label):
			add(l.key, "it is part of a path in the running system", "label %q is not letters, digits, dashes, dots and underscores with a letter or digit in front", l.label)
		case slices.ContainsFunc(ownLabels(), func(own string) bool { return strings.EqualFold(own, l.label) }):
			add(l.key, "", "label %q is that of another partition", l.label)
		}
	}
	if n.RecoveryLabel != "" && strings.EqualFold(n.RecoveryLabel, n.PrimaryLabel) {
		add("primaryLabel", "", "label %q is that of the recovery volume too", n.PrimaryLabel)
	}
	if n.HostPrefix != "" && !isHost(n.HostPrefix) {
		add("hostPrefix", "such as acme-", "%q is not 1 to %d of the characters a-z, 0-9 and -, with no dash in front (RFC 1123, 2.1)", n.HostPrefix, maxHost)
	}
	return out
}

// ownLabels are those of the partitions that are called the same everywhere: ESPs and sticks.
func ownLabels() []string { return []string{"ESP", layout.StickLabel, layout.BundleLabel} }

var (
	label = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	host  = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
)

func isLabel(s string) bool { return label.MatchString(s) }

func isHost(s string) bool { return len(s) <= maxHost && host.MatchString(s) }

// Validate returns an error unless n can be used.
func (n Names) Validate() error {
	var errs []error
	for _, w := range n.wrong() {
		errs = append(errs, fmt.Errorf("names: %s: %s", w.key, w.text))
	}
	return errors.Join(errs...)
}

// Check reads names as Parse does, only more strictly: for whoever builds an artifact, a key that is not known is a typing error.
// It returns all that is wrong; keys that begin with an underscore are comments. The names are of use if no problem is more than a
// warning.
func Check(b []byte) (Names, []source.Problem) {
	if len(b) > MaxSize {
		return Names{}, []source.Problem{{Text: fmt.Sprintf("%d bytes, want at most %d", len(b), MaxSize)}}
	}
	txt, err := source.Parse(b)
	if err != nil {
		var p source.Problem
		if !errors.As(err, &p) {
			p.Text = err.Error()
		}
		return Names{}, []source.Problem{p}
	}
	ps := append(txt.Match(Names{}), txt.Unknown(Names{})...)
	if source.Join(ps) != nil {
		return Names{}, ps
	}
	var n Names
	if err := json.Unmarshal(txt.Bytes(), &n); err != nil {
		return Names{}, append(ps, source.Problem{Line: txt.Line(""), Text: err.Error()})
	}
	for _, w := range n.wrong() {
		ps = append(ps, source.Problem{Line: txt.Line(w.key), Path: w.key, Text: w.text, Hint: w.hint})
	}
	return n, ps
}

// Marshal returns n as indented JSON.
func (n Names) Marshal() ([]byte, error) {
	b, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}
