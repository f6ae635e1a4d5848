package boot

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gprovision/model/bootimage"
	"gprovision/model/platform"
)

// program returns an ELF file of x86, 32 or 64 bits wide, with a loader (or none: a library) and the libraries that it needs.
func program(wide bool, interp, runpath string, needed ...string) []byte {
	names := []byte{0}
	text := func(s string) uint64 {
		at := len(names)
		names = append(append(names, s...), 0)
		return uint64(at)
	}
	var dyn []uint64
	for _, n := range needed {
		dyn = append(dyn, uint64(elf.DT_NEEDED), text(n))
	}
	if runpath != "" {
		dyn = append(dyn, uint64(elf.DT_RUNPATH), text(runpath))
	}
	dyn = append(dyn, uint64(elf.DT_NULL), 0)
	var b bytes.Buffer
	put := func(v ...any) {
		for _, v := range v {
			if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
				panic(err)
			}
		}
	}
	kind, progs := elf.ET_DYN, 0
	if interp != "" {
		kind, progs = elf.ET_EXEC, 1
	}
	if wide {
		head := uint64(64 + progs*56)
		dynAt := head + uint64(len(interp)+1+len(names))
		h := elf.Header64{Type: uint16(kind), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Shoff: dynAt + uint64(8*len(dyn)), Ehsize: 64, Phentsize: 56, Phnum: uint16(progs), Shentsize: 64, Shnum: 3}
		copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
		put(h)
		if progs == 1 {
			put(elf.Prog64{Type: uint32(elf.PT_INTERP), Off: head, Filesz: uint64(len(interp) + 1), Memsz: uint64(len(interp) + 1)})
		}
		put([]byte(interp+"\x00"), names, dyn, []elf.Section64{{},
			{Type: uint32(elf.SHT_DYNAMIC), Off: dynAt, Size: uint64(8 * len(dyn)), Link: 2, Entsize: 16},
			{Type: uint32(elf.SHT_STRTAB), Off: head + uint64(len(interp)+1), Size: uint64(len(names))}})
		return b.Bytes()
	}
	short := make([]uint32, len(dyn))
	for i, v := range dyn {
		short[i] = uint32(v)
	}
	head := uint32(52 + progs*32)
	dynAt := head + uint32(len(interp)+1+len(names))
	h := elf.Header32{Type: uint16(kind), Machine: uint16(elf.EM_386), Version: 1, Phoff: 52, Shoff: dynAt + uint32(4*len(dyn)), Ehsize: 52, Phentsize: 32, Phnum: uint16(progs), Shentsize: 40, Shnum: 3}
	copy(h.Ident[:], elf.ELFMAG+"\x01\x01\x01")
	put(h)
	if progs == 1 {
		put(elf.Prog32{Type: uint32(elf.PT_INTERP), Off: head, Filesz: uint32(len(interp) + 1), Memsz: uint32(len(interp) + 1)})
	}
	put([]byte(interp+"\x00"), names, short, []elf.Section32{{},
		{Type: uint32(elf.SHT_DYNAMIC), Off: dynAt, Size: uint32(4 * len(dyn)), Link: 2, Entsize: 8},
		{Type: uint32(elf.SHT_STRTAB), Off: head + uint32(len(interp)+1), Size: uint32(len(names))}})
	return b.Bytes()
}

const (
	loader64 = "/lib64/ld-linux-x86-64.so.2"
	loader32 = "/lib/ld-linux.so.2"
)

func writeTree(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	in := openRoot(t, dir)
	for name, data := range files {
		if err := in.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := in.WriteFile(name, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestLinkerKnowsClasses has a 32-bit and a 64-bit library of the same name: each program gets its own.
func TestLinkerKnowsClasses(t *testing.T) {
	root, err := openRootFS(t.Context(), writeTree(t, map[string][]byte{
		"lib64/ld-linux-x86-64.so.2":            program(true, "", ""),
		"lib/ld-linux.so.2":                     program(false, "", ""),
		"usr/lib/x86_64-linux-gnu/libacme.so.1": program(true, "", "", "libc.so.6"),
		"lib/x86_64-linux-gnu/libc.so.6":        program(true, "", "", "ld-linux-x86-64.so.2"),
		"lib/i386-linux-gnu/libc.so.6":          program(false, "", "", "ld-linux.so.2"),
		"usr/lib/i386-linux-gnu/libacme.so.1":   program(false, "", "", "libc.so.6"),
		"usr/lib/libodd.so":                     program(true, "", ""), // of the wrong kind for the 32-bit program
		"opt/acme/lib32/libodd.so":              program(false, "", ""),
		"etc/ld.so.conf":                        []byte("include /etc/ld.so.conf.d/*.conf\n"),
		"etc/ld.so.conf.d/acme.conf":            []byte("/opt/acme/lib32 # ours\n"),
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	tree := &bootimage.Tree{}
	b := &builder{root: root, tools: root, tree: tree, link: newLinker(tree, root), packages: map[*rootFS]*packages{root: readPackages(root)}}
	for name, data := range map[string][]byte{
		"usr/bin/wide":   program(true, loader64, "", "libacme.so.1"),
		"usr/bin/narrow": program(false, loader32, "", "libacme.so.1", "libodd.so"),
	} {
		if err := b.put(name, 0o755, data); err != nil {
			t.Fatal(err)
		}
		b.own = append(b.own, name)
	}
	if err := verifyLinks(tree); err == nil || !strings.Contains(err.Error(), "/usr/bin/narrow needs the loader /lib/ld-linux.so.2") || !strings.Contains(err.Error(), "/usr/bin/wide") {
		t.Errorf("before: got %v", err)
	}
	if err := b.addOwnLibraries(); err != nil {
		t.Fatal(err)
	}
	if err := verifyLinks(tree); err != nil {
		t.Errorf("after: %v", err)
	}
	var got []string
	for _, f := range tree.Files() {
		if f.Mode.IsRegular() {
			got = append(got, f.Name)
		}
	}
	want := []string{"lib/i386-linux-gnu/libc.so.6", "lib/i386-linux-gnu/libodd.so", "lib/ld-linux.so.2", "lib/x86_64-linux-gnu/libc.so.6", "lib64/ld-linux-x86-64.so.2",
		"usr/bin/narrow", "usr/bin/wide", "usr/lib/i386-linux-gnu/libacme.so.1", "usr/lib/x86_64-linux-gnu/libacme.so.1"}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("files are\n%q, want\n%q", got, want)
	}
}

// TestLinkerOrder: of two libraries of one name that which was added counts, then that of the tools, then that of the root filesystem.
func TestLinkerOrder(t *testing.T) {
	roots := make([]*rootFS, 2)
	for i, more := range [][]string{{"liba.so", "libb.so"}, {"liba.so", "libb.so", "libc.so"}} {
		files := map[string][]byte{}
		for _, n := range more {
			files["usr/lib/"+n] = append(program(true, "", ""), byte('0'+i))
		}
		r, err := openRootFS(t.Context(), writeTree(t, files))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		roots[i] = r
	}
	var tree bootimage.Tree
	if err := tree.Add(bootimage.File{Name: "usr/lib/liba.so", Mode: 0o755, Data: program(true, "", "")}); err != nil {
		t.Fatal(err)
	}
	libs, err := newLinker(&tree, roots...).libraries("bin/x", program(true, "", "", "liba.so", "libb.so", "libc.so"))
	if err != nil || len(libs) != 2 {
		t.Fatalf("got %d libraries, %v", len(libs), err)
	}
	for i, want := range []string{"libb.so", "libc.so"} {
		if l := libs[i]; l.to != "usr/lib/"+want || l.root != roots[i] {
			t.Errorf("library %d is %s of root %d", i, l.to, slices.Index(roots, l.root))
		}
	}
}

// TestAddedLibraries adds a program and its own library, which no root filesystem has.
func TestAddedLibraries(t *testing.T) {
	root := fakeRoot(t)
	o := options(t, root)
	o.NoBIOS = true
	dir := writeTree(t, map[string][]byte{
		"bin/tool":       program(true, loader64, "$ORIGIN/../lib", "libown.so", "libc.so.6"),
		"lib/libown.so":  program(true, "", "", "libc.so.6"),
		"fw/blob.elf":    {0x7f, 'E', 'L', 'F', 2, 1, 1, 0},
		"share/readme":   []byte("hello"),
		"bin/script":     []byte("#!/bin/sh\n"),
		"other/tool.bad": program(true, loader64, "", "libnowhere.so.9"),
	})
	for _, n := range []string{"fw/blob.elf", "share/readme"} {
		if err := os.Chmod(filepath.Join(dir, n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "bin/tool"), 0o755|fs.ModeSetuid|fs.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"bin", "lib", "fw", "share"} {
		o.Add = append(o.Add, Addition{From: filepath.Join(dir, n), To: "/opt/acme/" + n})
	}
	r, b := build(t, o)
	files := unpacked(t, b)
	if f := files["opt/acme/lib/libown.so"]; !f.Mode.IsRegular() {
		t.Error("the library is not there")
	}
	if mode := files["opt/acme/bin/tool"].Mode; mode != 0o755 {
		t.Errorf("the program has the mode %v", mode)
	}
	i := slices.IndexFunc(r.Tools, func(t bootimage.Tool) bool { return t.Path == "/opt/acme/bin/tool" })
	if i < 0 || r.Tools[i].Name != "tool" || len(r.Tools[i].SHA256) != 64 {
		t.Errorf("tools are %+v", r.Tools)
	}
	o.Add = []Addition{{From: filepath.Join(dir, "other"), To: "/opt"}}
	if _, err := Build(t.Context(), nil, o); err == nil || !strings.Contains(err.Error(), "libnowhere.so.9") {
		t.Errorf("missing library: got %v", err)
	}
}

func TestTools(t *testing.T) {
	root := fakeRoot(t)
	o := options(t, root)
	o.NoBIOS = true
	mke2fs := append(program(true, loader64, "", "libt.so.1"), "\x001.99.7\x00"...)
	tools := map[string][]byte{"mke2fs": mke2fs, "sbin/e2fsck": program(true, loader64, "", "libt.so.1"), "lib/libt.so.1": program(true, "", ""),
		"lib64/ld-linux-x86-64.so.2": program(true, "", "")}
	o.Tools = writeTree(t, tools)
	r, b := build(t, o)
	files := unpacked(t, b)
	if !bytes.Equal(files["usr/sbin/mke2fs"].Data, mke2fs) {
		t.Error("mke2fs is not that of the tools")
	}
	if _, ok := files["usr/lib/libt.so.1"]; !ok {
		t.Error("its library is missing")
	}
	for name := range files {
		if strings.Contains(name, "libext2fs") {
			t.Errorf("%s is there", name)
		}
	}
	i := slices.IndexFunc(r.Tools, func(t bootimage.Tool) bool { return t.Path == "/mke2fs" })
	if i < 0 || r.Tools[i].Version != "1.99.7" || r.Tools[i].Package != "" {
		t.Errorf("tools are %+v", r.Tools)
	}
	i = slices.IndexFunc(r.Tools, func(t bootimage.Tool) bool { return t.Path == "/etc/mke2fs.conf" })
	if i < 0 || r.Tools[i].Package != "e2fsprogs" {
		t.Errorf("mke2fs.conf is not that of the root filesystem: %+v", r.Tools)
	}
	file := filepath.Join(t.TempDir(), "tools.tar")
	if out, err := exec.Command("tar", "-C", o.Tools, "-cf", file, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	o.Tools = file
	if _, again := build(t, o); !bytes.Equal(again, b) {
		t.Error("the same tools in a tar file give other bytes")
	}
	delete(tools, "sbin/e2fsck")
	o.Tools = writeTree(t, tools)
	_, err := Build(t.Context(), nil, o)
	if err == nil || !strings.Contains(err.Error(), o.Tools+" has no /sbin/e2fsck") {
		t.Errorf("missing tool: got %v", err)
	}
}

func TestOwnVersion(t *testing.T) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	_ = ownVersion(self) // a Go program: its module's version, none for a test
	for text, want := range map[string]string{"\x001.2.3\x00x": "1.2.3", "\x00v1.2\x00": "1.2", "\x001.2\x00\x001.3\x00": "", "1.2": "", "\x001.2-rc1\x00 \x001.2-rc1\x00": "1.2-rc1"} {
		if got := ownVersion([]byte(elf.ELFMAG + text)); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestVerifyLinksIgnoresModules(t *testing.T) {
	var tree bootimage.Tree
	for name, data := range map[string][]byte{"m.ko": module("license=GPL"), "cut": []byte(elf.ELFMAG), "text": []byte("x")} {
		if err := tree.Add(bootimage.File{Name: name, Mode: fs.FileMode(0o755), Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	if err := verifyLinks(&tree); err != nil {
		t.Error(err)
	}
}

// TestRAID: mdadm comes along where a platform has an array, and only there.
func TestRAID(t *testing.T) {
	root := fakeRoot(t)
	o := options(t, root)
	o.NoBIOS = true
	table := *platform.Default()
	v := table.Variants[0]
	v.DevCodeName, v.DmiProdName, v.NumDataDisks, v.SwRaidlevel = "array", "array", 2, 1
	table.Variants = append(slices.Clone(table.Variants), v)
	var err error
	if o.Platforms, err = json.Marshal(table); err != nil {
		t.Fatal(err)
	}
	var missing *MissingError
	if _, err := Build(t.Context(), nil, o); !errors.As(err, &missing) || missing.Package != "mdadm" {
		t.Errorf("without mdadm: %v", err)
	}
	tools := map[string][]byte{"lib64/ld-linux-x86-64.so.2": program(true, "", "")}
	for _, name := range []string{"mke2fs", "e2fsck", "mdadm"} {
		tools["sbin/"+name] = program(true, loader64, "")
	}
	o.Tools = writeTree(t, tools)
	_, b := build(t, o)
	if f := unpacked(t, b)["usr/sbin/mdadm"]; !bytes.Equal(f.Data, tools["sbin/mdadm"]) {
		t.Error("the artifact for an array has no mdadm")
	}
	o.Platforms = nil
	_, b = build(t, o)
	if _, ok := unpacked(t, b)["usr/sbin/mdadm"]; ok {
		t.Error("an artifact without array has mdadm")
	}
}
