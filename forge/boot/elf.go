package boot

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"gprovision/model/bootimage"
)

// library is a file that a program needs at run time, and where it must lie.
type library struct {
	to   string // path in the initramfs
	from string // path in root
	root *rootFS
	data []byte
}

// linker finds the shared libraries of programs in one or several root filesystems, as a dynamic loader would (ld.so(8)), but
// without its cache: a library in a directory that only the cache knows is put beside the C library. Of two root filesystems
// that have a library the first one counts, so that one set of libraries belongs to one C library. What lies in tree already
// counts before all.
type linker struct {
	roots []*rootFS
	extra [][]string // directories of /etc/ld.so.conf, for each root
	tree  *bootimage.Tree
}

func newLinker(tree *bootimage.Tree, roots ...*rootFS) *linker {
	l := &linker{roots: roots, tree: tree}
	for _, r := range roots {
		l.extra = append(l.extra, ldConf(r, "etc/ld.so.conf", 0))
	}
	return l
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
func builtIn() map[elf.Machine][]string {
	return map[elf.Machine][]string{
		elf.EM_X86_64: {"lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib"},
		elf.EM_386:    {"lib/i386-linux-gnu", "usr/lib/i386-linux-gnu", "lib32", "usr/lib32", "lib", "usr/lib"},
	}
}

// isELF reports whether b starts like a program or library.
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
	if builtIn()[f.Machine] == nil {
		return fmt.Errorf("%s is a program for %v", name, f.Machine)
	}
	interp, err := interpreter(f)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if interp != "" && !seen[interp] {
		seen[interp] = true
		lib, err := l.loader(f, interp)
		if err != nil {
			return err
		}
		*out = append(*out, lib)
	}
	needed, err := neededBy(f)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, soname := range needed {
		key := f.Machine.String() + soname
		if seen[key] {
			continue
		}
		seen[key] = true
		lib, err := l.find(f, dir, soname)
		if err != nil {
			return fmt.Errorf("%s needs %s: %w", name, soname, err)
		}
		if lib.root != nil {
			*out = append(*out, lib)
		}
		if err := l.collect(lib.from, path.Dir(lib.from), lib.data, seen, out); err != nil {
			return err
		}
	}
	return nil
}

// neededBy returns the names of the libraries that f needs itself, without the dynamic loader.
func neededBy(f *elf.File) ([]string, error) {
	needed, err := f.DynString(elf.DT_NEEDED)
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return nil, err
	}
	return slices.DeleteFunc(needed, func(n string) bool { return strings.HasPrefix(n, "ld-linux") }), nil
}

// loader finds the dynamic loader of a program.
func (l *linker) loader(f *elf.File, interp string) (library, error) {
	debianPackage := "libc6"
	if f.Machine == elf.EM_386 {
		debianPackage = "libc6-i386"
	}
	var err error
	for _, r := range l.roots {
		var data []byte
		if data, err = r.read(interp, debianPackage); err == nil {
			return library{to: interp, from: interp, root: r, data: data}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return library{}, err
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

// ownPaths are the directories that a program or library in dir names itself.
func ownPaths(f *elf.File, dir string) []string {
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
	return own
}

// sameKind reports whether data is a program or library of f's kind: a loader passes over all others.
func sameKind(f *elf.File, data []byte) bool {
	g, err := elf.NewFile(bytes.NewReader(data))
	return err == nil && g.Machine == f.Machine && g.Class == f.Class
}

// inTree looks where the loader of the running system will look. It returns nil if there is no library of f's kind.
func inTree(tree *bootimage.Tree, f *elf.File, dir, soname string) (name string, data []byte) {
	dirs := append(ownPaths(f, dir), builtIn()[f.Machine]...)
	if strings.Contains(soname, "/") {
		dirs = []string{""}
	}
	for _, d := range dirs {
		real, err := tree.Resolve(path.Join(d, soname))
		if err != nil {
			continue
		}
		if got, ok := tree.Get(real); ok && got.Mode.IsRegular() && sameKind(f, got.Data) {
			return real, got.Data
		}
	}
	return "", nil
}

// find looks for a library of f's kind. One that is in the tree already has no root.
func (l *linker) find(f *elf.File, dir, soname string) (library, error) {
	if name, data := inTree(l.tree, f, dir, soname); data != nil {
		return library{to: name, from: name, data: data}, nil
	}
	std := builtIn()[f.Machine]
	for n, r := range l.roots {
		if strings.Contains(soname, "/") {
			data, err := r.read(soname, "")
			if errors.Is(err, fs.ErrNotExist) && n+1 < len(l.roots) {
				continue
			}
			return library{to: path.Clean("/" + soname)[1:], from: soname, root: r, data: data}, err
		}
		own := ownPaths(f, dir)
		for i, d := range slices.Concat(own, std, l.extra[n]) {
			from := path.Join(d, soname)
			data, err := r.read(from, "")
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return library{}, err
			}
			if !sameKind(f, data) {
				continue
			}
			to := from
			if i >= len(own)+len(std) { // known to the cache alone
				to = path.Join(home(r, f.Machine), soname)
			}
			return library{to: to, from: from, root: r, data: data}, nil
		}
	}
	return library{}, &MissingError{Path: path.Join(std[1], soname)}
}

// home is the directory of the C library.
func home(r *rootFS, m elf.Machine) string {
	for _, d := range builtIn()[m] {
		if _, err := r.find("", path.Join(d, "libc.so.6")); err == nil {
			return d
		}
	}
	return builtIn()[m][1]
}

// linkable reports whether b is a program or shared library that runs on x86, 64 or 32 bits wide: no kernel module, no firmware.
func linkable(b []byte) bool {
	if !isELF(b) {
		return false
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	return err == nil && builtIn()[f.Machine] != nil && (f.Type == elf.ET_EXEC || f.Type == elf.ET_DYN)
}

// verifyLinks says which programs and libraries in the tree lack a loader or a library that they need.
func verifyLinks(tree *bootimage.Tree) error {
	var errs []error
	for _, file := range tree.Files() {
		if !file.Mode.IsRegular() || !linkable(file.Data) {
			continue
		}
		if err := verifyLink(tree, file); err != nil {
			errs = append(errs, fmt.Errorf("/%s %w", file.Name, err))
		}
	}
	return errors.Join(errs...)
}

func verifyLink(tree *bootimage.Tree, file bootimage.File) error {
	f, err := elf.NewFile(bytes.NewReader(file.Data))
	if err != nil {
		return err
	}
	defer f.Close()
	interp, err := interpreter(f)
	if err != nil {
		return err
	}
	if interp != "" {
		real, err := tree.Resolve(interp)
		if err != nil {
			return err
		}
		if got, ok := tree.Get(real); !ok || !sameKind(f, got.Data) {
			return fmt.Errorf("needs the loader /%s, which is not in the initramfs", interp)
		}
	}
	needed, err := neededBy(f)
	if err != nil {
		return err
	}
	for _, soname := range needed {
		if _, data := inTree(tree, f, path.Dir(file.Name), soname); data == nil {
			return fmt.Errorf("needs %s, which is not in the initramfs", soname)
		}
	}
	return nil
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
