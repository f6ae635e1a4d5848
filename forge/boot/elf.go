package boot

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// library is a file that a program needs at run time, and where it must lie.
type library struct {
	to   string // path in the initramfs
	from string // path in the root filesystem
	data []byte
}

// linker finds the shared libraries of programs in a root filesystem, as its dynamic loader would (ld.so(8)), but without
// its cache: a library in a directory that only the cache knows is put beside the C library.
type linker struct {
	root  *rootFS
	extra []string // directories of /etc/ld.so.conf
}

func newLinker(root *rootFS) *linker {
	return &linker{root: root, extra: ldConf(root, "etc/ld.so.conf", 0)}
}

func ldConf(root *rootFS, name string, depth int) []string {
	b, err := root.read(name, "")
	if err != nil || depth > 4 {
		return nil
	}
	var out []string
	for _, line := range strings.Split(string(b), "\n") {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && f[0] == "include":
			dir := path.Dir(strings.TrimPrefix(f[1], "/"))
			for _, n := range root.list(dir) {
				if ok, err := path.Match(path.Base(f[1]), n); err == nil && ok {
					out = append(out, ldConf(root, path.Join(dir, n), depth+1)...)
				}
			}
		case len(f) == 1 && path.IsAbs(f[0]):
			out = append(out, path.Clean(f[0])[1:])
		}
	}
	return out
}

// builtIn are the directories that Debian's loaders search without a cache, by kind of program.
var builtIn = map[elf.Machine][]string{
	elf.EM_X86_64: {"lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib"},
	elf.EM_386:    {"lib/i386-linux-gnu", "usr/lib/i386-linux-gnu", "lib32", "usr/lib32", "lib", "usr/lib"},
}

// isELF says whether b starts like a program or library.
func isELF(b []byte) bool { return bytes.HasPrefix(b, []byte(elf.ELFMAG)) }

// libraries returns the loader and all libraries that the program or library in b needs, of all levels. name is for errors.
func (l *linker) libraries(name string, b []byte) ([]library, error) {
	seen := map[string]bool{}
	var out []library
	if err := l.collect(name, path.Dir(name), b, seen, &out); err != nil {
		return nil, fmt.Errorf("find the libraries of %s: %w", name, err)
	}
	return out, nil
}

func (l *linker) collect(name, dir string, b []byte, seen map[string]bool, out *[]library) error {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer f.Close()
	if builtIn[f.Machine] == nil {
		return fmt.Errorf("%s is a program for %v", name, f.Machine)
	}
	interp, err := interpreter(f)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if interp != "" && !seen[interp] {
		seen[interp] = true
		data, err := l.root.read(interp, "libc6")
		if err != nil {
			return err
		}
		*out = append(*out, library{to: interp, from: interp, data: data})
	}
	needed, err := f.DynString(elf.DT_NEEDED)
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, soname := range needed {
		key := f.Machine.String() + soname
		if seen[key] || strings.HasPrefix(soname, "ld-linux") {
			continue
		}
		seen[key] = true
		lib, err := l.find(f, dir, soname)
		if err != nil {
			return fmt.Errorf("%s needs %s: %w", name, soname, err)
		}
		*out = append(*out, lib)
		if err := l.collect(lib.from, path.Dir(lib.from), lib.data, seen, out); err != nil {
			return err
		}
	}
	return nil
}

func interpreter(f *elf.File) (string, error) {
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		if p.Filesz > 4096 {
			return "", errors.New("the name of its loader is too long")
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return "", fmt.Errorf("read name of loader: %w", err)
		}
		return path.Clean("/" + strings.TrimRight(string(b), "\x00"))[1:], nil
	}
	return "", nil
}

// find looks for a library of f's kind.
func (l *linker) find(f *elf.File, dir, soname string) (library, error) {
	if strings.Contains(soname, "/") {
		data, err := l.root.read(soname, "")
		return library{to: path.Clean("/" + soname)[1:], from: soname, data: data}, err
	}
	std := builtIn[f.Machine]
	var own []string
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		paths, err := f.DynString(tag)
		if err != nil {
			continue
		}
		for _, p := range strings.Split(strings.Join(paths, ":"), ":") {
			p = strings.NewReplacer("$ORIGIN", "/"+dir, "${ORIGIN}", "/"+dir).Replace(p)
			if path.IsAbs(p) {
				own = append(own, path.Clean(p)[1:])
			}
		}
	}
	for i, d := range append(append(append([]string(nil), own...), std...), l.extra...) {
		from := path.Join(d, soname)
		data, err := l.root.read(from, "")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return library{}, err
		}
		g, err := elf.NewFile(bytes.NewReader(data))
		if err != nil || g.Machine != f.Machine || g.Class != f.Class {
			continue
		}
		to := from
		if i >= len(own)+len(std) { // known to the cache alone
			to = path.Join(l.home(f.Machine), soname)
		}
		return library{to: to, from: from, data: data}, nil
	}
	return library{}, &MissingError{Path: path.Join(std[1], soname)}
}

// home is the directory of the C library.
func (l *linker) home(m elf.Machine) string {
	for _, d := range builtIn[m] {
		if _, err := l.root.find("", path.Join(d, "libc.so.6")); err == nil {
			return d
		}
	}
	return builtIn[m][1]
}

// checkStatic says why b cannot be the init program of an initramfs.
func checkStatic(b []byte) error {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return err
	}
	defer f.Close()
	if f.Machine != elf.EM_X86_64 {
		return fmt.Errorf("it is a program for %v, want x86-64", f.Machine)
	}
	interp, err := interpreter(f)
	if err != nil {
		return err
	}
	if interp != "" {
		return fmt.Errorf("it is linked dynamically (it asks for /%s), build it with CGO_ENABLED=0", interp)
	}
	return nil
}
