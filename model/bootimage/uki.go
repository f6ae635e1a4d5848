package bootimage

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// UKI is a unified kernel image. Its methods read from the reader that ParseUKI got.
type UKI struct {
	r      io.ReaderAt
	pe     *peFile
	kernel *BzImage
	texts  map[string]string
}

// maxText bounds the sections that are text, bytes.
const maxText = 64 << 10

// ParseUKI reads the headers and the small sections of a unified kernel image of size bytes. ErrNotUKI if it is something
// else; another error if it is damaged: a section beyond the end, a section twice, no kernel in .linux, no initramfs.
func ParseUKI(r io.ReaderAt, size int64) (*UKI, error) {
	p, err := parsePE(r, size)
	if errors.Is(err, errNotPE) {
		return nil, fmt.Errorf("%w: %w", ErrNotUKI, err)
	}
	if err != nil {
		return nil, fmt.Errorf("parse unified kernel image: %w", err)
	}
	u := &UKI{r: r, pe: p, texts: map[string]string{}}
	found := map[string]bool{}
	for _, s := range p.sections {
		switch s.Name {
		case SectionLinux, SectionInitrd, SectionOSRel, SectionUname, SectionCmdline:
		default:
			continue
		}
		if found[s.Name] {
			return nil, fmt.Errorf("parse unified kernel image: section %s is there twice", s.Name)
		}
		found[s.Name] = true
		if s.VirtualSize > s.RawSize {
			return nil, fmt.Errorf("parse unified kernel image: section %s has %d of %d bytes", s.Name, s.RawSize, s.VirtualSize)
		}
		if s.Name == SectionLinux || s.Name == SectionInitrd {
			continue
		}
		if s.Size() > maxText {
			return nil, fmt.Errorf("parse unified kernel image: section %s has %d bytes, want at most %d", s.Name, s.Size(), maxText)
		}
		b := make([]byte, s.Size())
		if err := readAt(r, size, b, int64(s.Offset)); err != nil {
			return nil, fmt.Errorf("read section %s: %w", s.Name, err)
		}
		u.texts[s.Name] = strings.TrimRight(string(b), "\x00")
	}
	if !found[SectionLinux] {
		return nil, fmt.Errorf("%w: no section %s", ErrNotUKI, SectionLinux)
	}
	if !found[SectionInitrd] {
		return nil, fmt.Errorf("parse unified kernel image: no section %s", SectionInitrd)
	}
	k := u.Linux()
	if u.kernel, err = ParseBzImage(k, k.Size()); err != nil {
		return nil, fmt.Errorf("parse section %s: %w", SectionLinux, err)
	}
	return u, nil
}

// Sections returns all sections of the file, the stub's own too, in the order of the section table.
func (u *UKI) Sections() []Section { return append([]Section(nil), u.pe.sections...) }

// Linux returns the kernel, a bzImage. Each call returns a new reader at its start.
func (u *UKI) Linux() *io.SectionReader { return u.section(SectionLinux) }

// Initrd returns the initramfs, as compressed as it is. Each call returns a new reader at its start.
func (u *UKI) Initrd() *io.SectionReader { return u.section(SectionInitrd) }

func (u *UKI) section(name string) *io.SectionReader {
	for _, s := range u.pe.sections {
		if s.Name == name {
			return io.NewSectionReader(u.r, int64(s.Offset), s.Size())
		}
	}
	return io.NewSectionReader(u.r, 0, 0)
}

// OSReleaseBootArgs is the name in .osrel of the kernel arguments of an artifact that has no .cmdline: with Secure Boot a stub
// that finds .cmdline takes no arguments from who starts it, and a provisioning artifact gets its manifest by argument.
const OSReleaseBootArgs = "GPROVISION_BOOT_ARGS"

// Cmdline returns the kernel arguments that belong to the artifact: section .cmdline, else GPROVISION_BOOT_ARGS of .osrel, which
// whoever starts the artifact must pass on. "" if there is none of both.
func (u *UKI) Cmdline() string {
	if s, ok := u.texts[SectionCmdline]; ok {
		return strings.TrimRight(s, "\n")
	}
	return u.OSRelease()[OSReleaseBootArgs]
}

// QuoteOSRelease returns s as the value of a line of an os-release file.
func QuoteOSRelease(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(s) + `"`
}

// Uname returns the kernel's release, such as "6.1.0-26-amd64": section .uname, else the first word of the kernel's banner.
func (u *UKI) Uname() string {
	if s := strings.TrimSpace(u.texts[SectionUname]); s != "" {
		return s
	}
	return u.kernel.Release()
}

// OSRelease returns the variables of section .osrel, nil if there is none or it cannot be parsed.
func (u *UKI) OSRelease() map[string]string {
	m, err := ParseOSRelease([]byte(u.texts[SectionOSRel]))
	if err != nil {
		return nil
	}
	return m
}

// BuildNumber returns BUILD_ID of .osrel, else the number in the kernel's banner. A BUILD_ID that is there and is not a
// decimal number is an error. ErrNoBuild if there is none of both.
func (u *UKI) BuildNumber() (uint64, error) {
	m, err := ParseOSRelease([]byte(u.texts[SectionOSRel]))
	if err != nil {
		return 0, fmt.Errorf("read build number: %w", err)
	}
	id, ok := m["BUILD_ID"]
	if !ok {
		return u.kernel.BuildNumber()
	}
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read build number: BUILD_ID is %q, want a decimal number", id)
	}
	return n, nil
}

// ParseOSRelease reads the variables of an os-release file (os-release(5)): NAME=value, with the quoting of a shell. Of a
// name that is there twice the last one counts.
func ParseOSRelease(b []byte) (map[string]string, error) {
	m := map[string]string{}
	for i, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, raw, ok := strings.Cut(line, "=")
		if !ok || name == "" || strings.ContainsAny(name, " \t\"'\\") {
			return nil, fmt.Errorf("parse os-release: line %d: want NAME=VALUE", i+1)
		}
		v, err := unquote(raw)
		if err != nil {
			return nil, fmt.Errorf("parse os-release: line %d: %w", i+1, err)
		}
		m[name] = v
	}
	return m, nil
}

// unquote undoes the quoting of one shell word.
func unquote(s string) (string, error) {
	var b strings.Builder
	quote := byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quote == '\'' && c == '\'', quote == '"' && c == '"':
			quote = 0
		case quote == '\'':
			b.WriteByte(c)
		case c == '\\':
			i++
			if i == len(s) {
				return "", errors.New("backslash at the end")
			}
			if quote == '"' && !strings.ContainsRune("\\\"$`", rune(s[i])) {
				b.WriteByte('\\')
			}
			b.WriteByte(s[i])
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case quote == 0 && (c == ' ' || c == '\t'):
			return "", errors.New("space outside of quotes")
		default:
			b.WriteByte(c)
		}
	}
	if quote != 0 {
		return "", errors.New("quote that does not end")
	}
	return b.String(), nil
}
