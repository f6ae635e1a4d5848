// Package release knows release images, the .upd files: their names and order, the compressed stream and its checks, the
// description inside (imgmeta.json), the history of what became of each, and which of them to keep.
//
// An image is an xz-compressed tar of a root filesystem. NewReader gives the tar: it decodes all blocks in parallel, delivers
// them in order, and checks everything that the format can check. The package does not read tar entries beyond the first, does
// not verify signatures (package signature does), and opens no files: it gets readers.
package release

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Suffix ends the name of every release image.
const Suffix = ".upd"

// ErrName says that a file name is not that of a release image.
var ErrName = errors.New("not the name of a release image, which is PRODUCT.OS.PLATFORM.YYYY-MM-DD.NNNN.upd")

// Name is the parsed name of a release image, such as WIDGET.LNX.SHINY.2026-11-22.0001.upd.
type Name struct {
	// Prefix is the first three parts with the final dot: "WIDGET.LNX.SHINY.". Empty in a Name from ParseVersion.
	Prefix string
	// Date is midnight UTC of a day that the calendar has.
	Date time.Time
	// Build is compared as an integer: 10 is after 9.
	Build uint64
	// Digits is how many digits the build number has in the name, for String to give the very same name. 0: at least four.
	Digits int
}

// ParseName parses a file name without directories. With a prefix ("WIDGET.LNX.SHINY.") only names that begin with it are
// accepted; with an empty one any three parts. Errors wrap ErrName and say what is wrong.
func ParseName(file, prefix string) (Name, error) {
	bad := func(format string, args ...any) (Name, error) {
		return Name{}, fmt.Errorf("image name %q: %s: %w", file, fmt.Sprintf(format, args...), ErrName)
	}
	if len(file) > 255 {
		return bad("%d characters, at most 255", len(file))
	}
	rest, ok := strings.CutSuffix(file, Suffix)
	if !ok {
		return bad("no %s at its end", Suffix)
	}
	if prefix != "" && !strings.HasPrefix(rest, prefix) {
		return bad("it does not begin with %s", prefix)
	}
	parts := strings.Split(rest, ".")
	if len(parts) != 5 {
		return bad("%d parts before %s, want 5", len(parts), Suffix)
	}
	for _, p := range parts[:3] {
		if !plain(p) {
			return bad("part %q: want letters, digits, - and _", p)
		}
	}
	n, err := ParseVersion(parts[3] + "." + parts[4])
	if err != nil {
		return bad("%v", err)
	}
	n.Prefix = strings.Join(parts[:3], ".") + "."
	if prefix != "" && n.Prefix != prefix {
		return bad("it does not begin with %s", prefix)
	}
	return n, nil
}

// ParseVersion parses the end of a name alone, "2026-11-22.0001", as policy.OldestBuild holds it. The result has no prefix.
func ParseVersion(s string) (Name, error) {
	date, build, ok := strings.Cut(s, ".")
	if !ok {
		return Name{}, fmt.Errorf("version %q has no build number", s)
	}
	day, err := time.Parse("2006-01-02", date)
	if err != nil || day.Year() == 0 {
		return Name{}, fmt.Errorf("date %q is not a day of the calendar, as YYYY-MM-DD", date)
	}
	if build == "" || len(build) > 20 || strings.Trim(build, "0123456789") != "" {
		return Name{}, fmt.Errorf("build number %q is not one of 1 to 20 digits", build)
	}
	b, err := strconv.ParseUint(build, 10, 64)
	if err != nil {
		return Name{}, fmt.Errorf("build number %s is too large", build)
	}
	return Name{Date: day, Build: b, Digits: len(build)}, nil
}

// CheckPrefix returns an error unless p can be the prefix of image names: three parts, each followed by a dot.
func CheckPrefix(p string) error {
	parts := strings.Split(p, ".")
	if len(parts) != 4 || parts[3] != "" || !plain(parts[0]) || !plain(parts[1]) || !plain(parts[2]) {
		return fmt.Errorf("image prefix %q is not three parts, each followed by a dot, such as \"WIDGET.LNX.SHINY.\"", p)
	}
	return nil
}

func plain(s string) bool {
	if s == "" {
		return false
	}
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// String returns the file name, with ".upd".
func (n Name) String() string { return n.Base() + Suffix }

// Base returns the full name without ".upd": what a signature's trusted comment and imgmeta.json carry.
func (n Name) Base() string { return n.Prefix + n.Version() }

// Version returns date and build number, "2026-11-22.0001". It is what ParseVersion parses.
func (n Name) Version() string {
	digits := n.Digits
	if digits == 0 {
		digits = 4
	}
	return fmt.Sprintf("%s.%0*d", n.Date.Format("2006-01-02"), digits, n.Build)
}

// Compare orders by date, then by build number; the prefix does not matter. Negative: n is older than other.
func (n Name) Compare(other Name) int {
	if c := n.Date.Compare(other.Date); c != 0 {
		return c
	}
	return cmp.Compare(n.Build, other.Build)
}

// Sort orders names, newest first. Names that compare equal are ordered by their text, so the result is always the same.
func Sort(names []Name) {
	slices.SortFunc(names, func(a, b Name) int {
		if c := b.Compare(a); c != 0 {
			return c
		}
		return strings.Compare(a.String(), b.String())
	})
}

// ParseNames parses the names of the files of a directory. It returns the images, newest first, and an error for each file
// that ends in ".upd" and has a malformed name: such a file is reported and never chosen. Other files are passed over.
func ParseNames(files []string, prefix string) (names []Name, malformed []error) {
	for _, f := range files {
		if !strings.HasSuffix(f, Suffix) {
			continue
		}
		n, err := ParseName(f, prefix)
		if err != nil {
			malformed = append(malformed, err)
			continue
		}
		names = append(names, n)
	}
	Sort(names)
	return names, malformed
}

// Retain says which images to keep and which to delete, so that space can be made: kept are the original (the oldest), the
// running one (its file name; empty: unknown) and the newest n. With fewer than one, n is one. Both results are ordered newest
// first; drop is best deleted from its end.
func Retain(names []Name, running string, n int) (keep, drop []Name) {
	sorted := slices.Clone(names)
	Sort(sorted)
	for i, name := range sorted {
		if i < max(n, 1) || i == len(sorted)-1 || name.String() == running {
			keep = append(keep, name)
		} else {
			drop = append(drop, name)
		}
	}
	return keep, drop
}
