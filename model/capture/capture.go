// Package capture is the format in which a machine's sysfs, DMI tables, EFI variables and /proc are kept: one text file that
// can be read, compared, mailed and used as a test fixture.
//
// It is a txtar archive: a comment, then for each entry a line "-- NAME --" and its content. NAME is the path without its
// leading slash, such as "sys/class/net/eth0/address". Two prefixes say more: "link:" for a symbolic link, whose content is its
// target, and "base64:" for content that is not plain text. The first line of the comment is "gprov capture 1", the
// version of the format.
//
// Take makes one from file systems that are passed in. The package does not look at what the files mean.
package capture

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/tools/txtar"
)

// header is the first line of a capture.
const header = "gprov capture 1"

// Entry is one file or symbolic link.
type Entry struct {
	// Name is the path without a leading slash; it passes fs.ValidPath.
	Name string
	// Link is the target of a symbolic link. Empty: it is a file.
	Link string
	// Data is the content of a file.
	Data []byte
}

// Format returns the entries, sorted by name, as one text. The comment may have several lines.
func Format(comment string, entries []Entry) ([]byte, error) {
	sorted := slices.Clone(entries)
	slices.SortStableFunc(sorted, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	a := txtar.Archive{Comment: []byte(header + "\n")}
	for line := range strings.Lines(comment) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "--") {
			line = "  " + strings.TrimLeft(line, "-")
		}
		a.Comment = append(a.Comment, line+"\n"...)
	}
	for _, e := range sorted {
		if err := check(e); err != nil {
			return nil, fmt.Errorf("write capture: %w", err)
		}
		switch {
		case e.Link != "":
			a.Files = append(a.Files, txtar.File{Name: "link:" + e.Name, Data: []byte(e.Link + "\n")})
		case plain(e.Data):
			a.Files = append(a.Files, txtar.File{Name: e.Name, Data: e.Data})
		default:
			a.Files = append(a.Files, txtar.File{Name: "base64:" + e.Name, Data: wrap(base64.StdEncoding.EncodeToString(e.Data))})
		}
	}
	return txtar.Format(&a), nil
}

func check(e Entry) error {
	if !fs.ValidPath(e.Name) || e.Name == "." || e.Name != strings.TrimSpace(e.Name) || strings.ContainsAny(e.Name, "\r\n") || strings.HasPrefix(e.Name, "link:") || strings.HasPrefix(e.Name, "base64:") || !utf8.ValidString(e.Name) {
		return fmt.Errorf("the name %q cannot be kept", e.Name)
	}
	if e.Link != strings.TrimSpace(e.Link) || strings.ContainsAny(e.Link, "\r\n\x00") || strings.HasPrefix(e.Link, "-- ") || !utf8.ValidString(e.Link) {
		return fmt.Errorf("%s: the link to %q cannot be kept", e.Name, e.Link)
	}
	return nil
}

// plain reports whether data comes back unchanged from a txtar archive.
func plain(data []byte) bool {
	if len(data) == 0 {
		return true
	}
	s := string(data)
	return utf8.ValidString(s) && !strings.ContainsAny(s, "\x00\r") && strings.HasSuffix(s, "\n") && !strings.HasPrefix(s, "-- ") && !strings.Contains(s, "\n-- ")
}

// wrap breaks s into lines of 76 characters.
func wrap(s string) []byte {
	var out []byte
	for len(s) > 76 {
		out = append(append(out, s[:76]...), '\n')
		s = s[76:]
	}
	return append(append(out, s...), '\n')
}

// Parse reads a capture. A name that occurs twice is an error.
func Parse(b []byte) (comment string, entries []Entry, err error) {
	a := txtar.Parse(b)
	first, rest, _ := strings.Cut(string(a.Comment), "\n")
	switch got := strings.TrimSpace(first); {
	case got == header:
	case strings.HasPrefix(got, "gprov capture "):
		return "", nil, fmt.Errorf("read capture: %q is a newer version than %q", got, header)
	default:
		return "", nil, errors.New("read capture: the first line is not \"" + header + "\"")
	}
	seen := map[string]bool{}
	for _, f := range a.Files {
		e := Entry{Name: f.Name, Data: f.Data}
		if name, ok := strings.CutPrefix(f.Name, "link:"); ok {
			e = Entry{Name: name, Link: strings.TrimSpace(string(f.Data))}
			if e.Link == "" {
				return "", nil, fmt.Errorf("read capture: the link %s has no target", name)
			}
		} else if name, ok := strings.CutPrefix(f.Name, "base64:"); ok {
			data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(f.Data)), ""))
			if err != nil {
				return "", nil, fmt.Errorf("read capture: %s: %w", name, err)
			}
			e = Entry{Name: name, Data: data}
		}
		if err := check(e); err != nil {
			return "", nil, fmt.Errorf("read capture: %w", err)
		}
		if seen[e.Name] {
			return "", nil, fmt.Errorf("read capture: %s occurs twice", e.Name)
		}
		seen[e.Name] = true
		entries = append(entries, e)
	}
	for _, e := range entries {
		for p := path.Dir(e.Name); p != "."; p = path.Dir(p) {
			if seen[p] {
				return "", nil, fmt.Errorf("read capture: %s is inside of %s, which is no directory", e.Name, p)
			}
		}
	}
	return rest, entries, nil
}
