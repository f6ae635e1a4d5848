package cli

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gprovision/forge/boot"
	"gprovision/model/fault"
	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/site"
	"gprovision/unit/image"
)

// TestKeysPage does what docs/keys.md says, block by block, with the real commands. What a unit makes of it then is said by its own code, with
// the policy of the boot artifact that was built.
func TestKeysPage(t *testing.T) {
	imageNeeds(t, "bash", "xz", "zstd", "mke2fs", "e2fsck", "ldd")
	page, err := os.ReadFile("../docs/keys.md")
	if err != nil {
		t.Fatal(err)
	}
	dir, run := pageShell(t)
	blocks := regexp.MustCompile("(?s)\n```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 5 {
		t.Fatalf("docs/keys.md has %d blocks of commands, want 5", len(blocks))
	}
	const original, newest = "WIDGET.LNX.SHINY.2026-11-22.0001.upd", "WIDGET.LNX.SHINY.2026-12-15.0004.upd"
	// judge asks the code of a unit that runs the artifact of a build.
	judge := func(build, file string) error {
		t.Helper()
		f, err := os.Open(filepath.Join(dir, "norm_boot-"+build))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		in, err := boot.Inspect(f, st.Size())
		if err != nil {
			t.Fatal(err)
		}
		p := *in.Policy
		keys, err := signature.ParsePublicKeys(p.Keys)
		if err != nil {
			t.Fatal(err)
		}
		name, err := release.ParseName(file, site.Stock().Names.ImagePrefix)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "images", file)
		if st, err = os.Stat(path); err != nil {
			t.Fatal(err)
		}
		return image.Prove(context.Background(), image.Image{Path: path, Name: name, Size: st.Size()}, p, keys, nil)
	}
	good := func(what, build, image string) {
		t.Helper()
		if err := judge(build, image); err != nil {
			t.Errorf("%s: artifact %s and %s: %v", what, build, image, err)
		}
	}
	bad := func(what, build, image string) {
		t.Helper()
		if err := judge(build, image); fault.Of(err) != fault.ImageSignature {
			t.Errorf("%s: artifact %s and %s: %v, want %v", what, build, image, err, fault.ImageSignature)
		}
	}

	run(blocks[0][1])
	good("made", "1", original)
	run(blocks[1][1])
	const second, third = "WIDGET.LNX.SHINY.2026-12-01.0002.upd", "WIDGET.LNX.SHINY.2026-12-08.0003.upd"
	good("rotated: a unit of before takes the release", "1", second)
	good("rotated: what the old key signed stays good", "2", original)
	run(blocks[2][1])
	good("lost: a unit of before takes what the spare has signed", "2", third)
	good("lost: what the lost key signed stays good", "3", original)
	run(blocks[3][1])
	good("leaked: a unit of before takes the release that revokes", "3", newest)
	good("leaked: and so does one that never had an update", "1", newest)
	bad("revoked: the original is not restored", "4", original)
	bad("revoked: nor what was signed with the key since", "4", second)
	good("revoked: what the spare has signed is", "4", third)
	good("leaked: a unit without the release still trusts the key", "1", original)
	run(blocks[4][1])
	good("signed again: the original is restored", "4", original)
	good("signed again: also by a unit of before", "1", original)
	bad("signed again: and nothing else", "4", second)
	for _, name := range []string{"release-1.key", "release-2.key", "release-4.key"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
}

// pageShell returns a directory with a root filesystem, and what runs a block of commands of a page there, as a reader would: the result is what
// they printed.
func pageShell(t *testing.T) (dir string, run func(block string) string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	bin := t.TempDir()
	source := filepath.Join(t.TempDir(), "main.go")
	if err := errors.Join(os.Symlink(self, filepath.Join(bin, "gprov")), os.Symlink(self, filepath.Join(bin, "gprov-unit")), os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "init"), source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wholeRoot(t, filepath.Join(dir, "root"))
	return dir, func(block string) string {
		t.Helper()
		// The page's reader has init beside gprov, and the time to compress. A failed command behind ! would not end the shell.
		script := "gprov() { case \"$1 $2\" in 'boot build') set -- \"$@\" --no-bios --init " + bin + "/init;; 'image build') set -- \"$@\" --preset 0;; esac; command gprov \"$@\"; }\n" +
			"gprov-unit() { command gprov-unit \"$@\" --program " + bin + "/init; }\nset -e\n" +
			regexp.MustCompile(`(?m)^! (.*)$`).ReplaceAllString(block, "if $1; then exit 1; fi")
		cmd := exec.Command("bash", "-c", script)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "SOURCE_DATE_EPOCH=1795305600")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s\n%s", err, out, block)
		}
		return string(out)
	}
}

// wholeRoot makes a root filesystem that can be an image and a boot artifact, with this machine's own EFI stub and e2fsprogs.
func wholeRoot(t *testing.T, dir string) {
	t.Helper()
	if err := os.CopyFS(dir, os.DirFS(imageRoot(t, nil))); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "boot")); err != nil {
		t.Fatal(err)
	}
	in, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for link, target := range map[string]string{"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"} {
		if err := in.MkdirAll(target, 0o755); err != nil {
			t.Fatal(err)
		}
		// What lies in a directory of the link's name moves to where it leads.
		files, err := os.ReadDir(filepath.Join(dir, link))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		for _, f := range files {
			if err := in.Rename(filepath.Join(link, f.Name()), filepath.Join(target, f.Name())); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(in.RemoveAll(link), in.Symlink(target, link)); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string, data []byte) {
		t.Helper()
		if err := errors.Join(in.MkdirAll(filepath.Dir(name), 0o755), in.WriteFile(name, data, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	const release = "6.1.0-10-amd64"
	kernel := make([]byte, 2048)
	kernel[0x1f1] = 1
	binary.LittleEndian.PutUint16(kernel[0x1fe:], 0xaa55)
	copy(kernel[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(kernel[0x206:], 0x020f)
	binary.LittleEndian.PutUint16(kernel[0x20e:], 0x100)
	kernel[0x211] = 1
	copy(kernel[0x300:], release+" (x@y) #1 SMP\x00")
	write("boot/vmlinuz-"+release, kernel)
	write("boot/config-"+release, []byte("CONFIG_BLK_DEV_INITRD=y\nCONFIG_RD_ZSTD=y\n"))
	write("usr/lib/os-release", []byte("ID=debian\n"))
	write("etc/os-release", []byte("ID=debian\n"))
	modules := "usr/lib/modules/" + release + "/"
	names := []string{"kernel/fs/ext4/ext4.ko", "kernel/crypto/crc32c_generic.ko"}
	for _, name := range names {
		write(modules+name, moduleFile(t))
	}
	write(modules+"modules.dep", []byte(strings.Join(names, ":\n")+":\n"))
	for _, name := range []string{"modules.alias", "modules.softdep", "modules.builtin"} {
		write(modules+name, nil)
	}
	for _, name := range []string{"usr/lib/systemd/boot/efi/linuxx64.efi.stub", "etc/mke2fs.conf", "sbin/mke2fs", "sbin/e2fsck"} {
		data, err := os.ReadFile("/" + name)
		if err != nil {
			if os.Getenv("GPROV_NO_SKIP") == "1" {
				t.Fatal(err)
			}
			t.Skipf("packages systemd-boot-efi and e2fsprogs: %v", err)
		}
		write(name, data)
		if !bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
			continue
		}
		out, err := exec.Command("ldd", "/"+name).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, library := range strings.Fields(string(out)) {
			if !strings.HasPrefix(library, "/") {
				continue
			}
			if data, err = os.ReadFile(library); err != nil {
				t.Fatal(err)
			}
			write(library[1:], data)
		}
	}
}

// moduleFile is the smallest ELF file that has a kernel module's .modinfo.
func moduleFile(t *testing.T) []byte {
	t.Helper()
	info, names := []byte("license=GPL\x00"), []byte("\x00.modinfo\x00.shstrtab\x00")
	h := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2, Shoff: uint64(64 + len(info) + len(names))}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	sections := []elf.Section64{{}, {Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: uint64(len(info))},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(64 + len(info)), Size: uint64(len(names))}}
	var b bytes.Buffer
	for _, v := range []any{h, info, names, sections} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}
