package boot

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gprovision/forge/tool"
	"gprovision/model/bootimage"
	"gprovision/model/edit"
	"gprovision/model/policy"
)

// kernel returns the smallest file that has a bzImage's header.
func kernel(release string) []byte {
	b := make([]byte, 2048)
	b[0x1f1] = 1
	binary.LittleEndian.PutUint16(b[0x1fe:], 0xaa55)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x206:], 0x020f)
	binary.LittleEndian.PutUint16(b[0x20e:], 0x100)
	b[0x211] = 1
	copy(b[0x300:], release+" (x@y) #1 SMP\x00")
	return b
}

// module returns an ELF file with a section .modinfo.
func module(info ...string) []byte {
	data := []byte(strings.Join(info, "\x00") + "\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	h.Shoff = uint64(64 + len(data) + len(names))
	sections := []elf.Section64{{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: uint64(len(data))},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(64 + len(data)), Size: uint64(len(names))}}
	for _, v := range []any{h, data, names, sections} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

const release = "6.1.0-10-amd64"

// fakeRoot makes a root filesystem of kernels and modules that only look right, and of this machine's own EFI stub,
// e2fsprogs and GRUB.
func fakeRoot(t *testing.T) string {
	t.Helper()
	if _, err := tool.Need("zstd", "zstd"); err != nil {
		needs(t, err.Error())
	}
	root := t.TempDir()
	// Through os.Root: the links below lead to the right places inside the new root, and would lead to this machine's own
	// files from outside of it.
	in := openRoot(t, root)
	write := func(name string, data []byte) {
		t.Helper()
		if err := errors.Join(in.MkdirAll(filepath.Dir(name), 0o755), in.WriteFile(name, data, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc"} {
		if err := in.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64", "etc/os-release": "../usr/lib/os-release"} {
		if err := in.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	write("usr/lib/os-release", []byte("ID=debian\nBUILD_ID=theirs\nPRETTY_NAME=\"Debian 12\"\n"))
	for _, r := range []string{"6.1.0-9-amd64", release, "5.10.0-30-amd64"} {
		write("boot/vmlinuz-"+r, kernel(r))
		write("boot/config-"+r, []byte("CONFIG_BLK_DEV_INITRD=y\nCONFIG_RD_ZSTD=y\n"))
	}
	dir := "usr/lib/modules/" + release + "/"
	for name, info := range map[string][]string{
		"fs/ext4/ext4": {"license=GPL"}, "fs/jbd2/jbd2": nil, "crypto/crc32c_generic": nil, "arch/x86/crypto/crc32c-intel": nil,
		"drivers/net/ethernet/broadcom/bnx2":  {"firmware=bnx2/a.fw", "firmware=bnx2/none.fw"},
		"drivers/net/ethernet/qlogic/qed/qed": {"firmware=qed/none.bin"}, "drivers/net/ethernet/qlogic/qede/qede": nil, "drivers/gpu/drm/i915/i915": nil,
		"drivers/scsi/qla2xxx/qla2xxx": nil, "drivers/char/ipmi/ipmi_msghandler": nil, "lib/helper": nil,
	} {
		write(dir+"kernel/"+name+".ko", module(info...))
	}
	write(dir+"modules.dep", []byte(`kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko
kernel/fs/jbd2/jbd2.ko:
kernel/crypto/crc32c_generic.ko:
kernel/arch/x86/crypto/crc32c-intel.ko:
kernel/drivers/net/ethernet/broadcom/bnx2.ko:
kernel/drivers/net/ethernet/qlogic/qed/qed.ko:
kernel/drivers/net/ethernet/qlogic/qede/qede.ko: kernel/drivers/net/ethernet/qlogic/qed/qed.ko
kernel/drivers/gpu/drm/i915/i915.ko: kernel/lib/helper.ko
kernel/drivers/scsi/qla2xxx/qla2xxx.ko:
kernel/drivers/char/ipmi/ipmi_msghandler.ko:
kernel/lib/helper.ko:
`))
	write(dir+"modules.alias", []byte("# x\nalias pci:v000014E4d0000164A* bnx2\nalias crypto-thing helper\nalias pci:v00008086* i915\n"))
	write(dir+"modules.softdep", []byte("softdep ipmi_msghandler pre: crypto-thing\nsoftdep i915 pre: nobody\n"))
	write(dir+"modules.builtin", []byte("kernel/drivers/tty/serial/8250.ko\n"))
	write("usr/lib/firmware/bnx2/a.fw", []byte("firmware"))
	write("usr/lib/modules/6.1.0-9-amd64/modules.dep", nil)
	write("var/lib/dpkg/status", []byte("Package: e2fsprogs\nStatus: install ok installed\nVersion: 1.47.0-2\n\nPackage: linux-image-"+release+"\nVersion: 6.1.99-1\n\n"))
	write("var/lib/dpkg/info/e2fsprogs.list", []byte("/.\n/sbin\n/sbin/mke2fs\n/sbin/e2fsck\n/etc/mke2fs.conf\n"))
	write("var/lib/dpkg/info/linux-image-"+release+".list", []byte("/boot/vmlinuz-"+release+"\n"))

	own := []string{stubPath, "etc/mke2fs.conf", "usr/bin/grub-mkimage", "sbin/mke2fs", "sbin/e2fsck"}
	own = append(own, grubFiles(t)...)
	for _, name := range own {
		data, err := os.ReadFile("/" + name)
		if err != nil {
			needs(t, "systemd-boot-efi, grub-pc-bin, grub-common and e2fsprogs: "+err.Error())
		}
		write(name, data)
		if isELF(data) && !strings.HasPrefix(name, grubDir) {
			copyLibraries(t, name, write)
		}
	}
	return root
}

// openRoot opens dir for writing that cannot leave it.
func openRoot(t *testing.T, dir string) *os.Root {
	t.Helper()
	r, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func grubFiles(t *testing.T) []string {
	t.Helper()
	all, err := os.ReadDir("/" + grubDir)
	if err != nil {
		needs(t, "package grub-pc-bin")
	}
	var out []string
	for _, e := range all {
		out = append(out, filepath.Join(grubDir, e.Name()))
	}
	return out
}

// copyLibraries asks the machine's own dynamic loader.
func copyLibraries(t *testing.T, program string, write func(string, []byte)) {
	t.Helper()
	out, err := exec.Command("ldd", "/"+program).Output()
	if err != nil {
		t.Fatalf("ldd %s: %v", program, err)
	}
	for _, w := range strings.Fields(string(out)) {
		if !strings.HasPrefix(w, "/") {
			continue
		}
		data, err := os.ReadFile(w)
		if err != nil {
			t.Fatal(err)
		}
		write(w[1:], data)
	}
}

// staticProgram builds the smallest init program.
func staticProgram(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	src := filepath.Join(dir, "main.go")
	if err := os.WriteFile(src, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "init")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", out, src)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64", "GOOS=linux")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, msg)
	}
	return out
}

func options(t *testing.T, root string) Options {
	return Options{
		RootFS: root, Init: staticProgram(t), BuildNumber: 42, Time: time.Unix(1790000000, 0), Out: filepath.Join(t.TempDir(), "norm_boot"),
		Policy: policy.Policy{Version: 1, AllowUnsigned: true, BootArgs: "console=ttyS0"},
	}
}

func build(t *testing.T, o Options) (Report, []byte) {
	t.Helper()
	r, err := Build(t.Context(), nil, o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	return r, b
}

// unpacked returns the files of the artifact's initramfs by name.
func unpacked(t *testing.T, artifact []byte) map[string]bootimage.File {
	t.Helper()
	u, err := bootimage.ParseUKI(bytes.NewReader(artifact), int64(len(artifact)))
	if err != nil {
		t.Fatal(err)
	}
	plain, _, err := decompress(u.Initrd())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	files := map[string]bootimage.File{}
	err = bootimage.WalkCPIO(plain, func(f bootimage.File, _ int64, r io.Reader) error {
		f.Data, err = io.ReadAll(r)
		files[f.Name] = f
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestBuildOwnModules(t *testing.T) {
	o := options(t, fakeRoot(t))
	o.Modules = []string{"drivers/net/ethernet/qlogic/qede/", "drivers/scsi/qla2xxx/qla*"}
	_, b := build(t, o)
	files := unpacked(t, b)
	for _, name := range []string{"drivers/net/ethernet/qlogic/qed/qed.ko.zst", "drivers/net/ethernet/qlogic/qede/qede.ko.zst", "drivers/scsi/qla2xxx/qla2xxx.ko.zst"} {
		if _, ok := files["usr/lib/modules/"+release+"/kernel/"+name]; !ok {
			t.Errorf("no %s in the initramfs", name)
		}
	}
	o.Modules = []string{"drivers/net/ethernet/chelsio/"}
	if _, err := Build(t.Context(), slog.New(slog.DiscardHandler), o); err == nil || !strings.Contains(err.Error(), "chelsio") {
		t.Errorf("a pattern that nothing fits: %v", err)
	}
}

func TestBuild(t *testing.T) {
	root := fakeRoot(t)
	o := options(t, root)
	o.Provision, o.Revision = true, "0123456789ab" // the init program of this test has none itself
	r, b := build(t, o)
	if r.Kernel != release || r.Build != 42 || r.Compression != Zstd || r.Size != int64(len(b)) {
		t.Errorf("report is %+v", r)
	}
	u, err := bootimage.ParseUKI(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := u.BuildNumber(); n != 42 || err != nil || u.Uname() != release || u.Cmdline() != "console=ttyS0" || u.OSRelease()["ID"] != "debian" {
		t.Errorf("build %d (%v), uname %q, cmdline %q, os-release %q", n, err, u.Uname(), u.Cmdline(), u.OSRelease())
	}
	files := unpacked(t, b)
	dir := "usr/lib/modules/" + release + "/"
	for _, name := range []string{"init", "dev/console", bootimage.PolicyPath, bootimage.BuildPath,
		"usr/sbin/mke2fs", "usr/sbin/e2fsck",
		"etc/mke2fs.conf", bootimage.GRUBBootPath, bootimage.GRUBCorePath,
		"usr/lib64/ld-linux-x86-64.so.2", dir + "kernel/drivers/char/ipmi/ipmi_msghandler.ko.zst",
		dir + "kernel/lib/helper.ko.zst", dir + "kernel/arch/x86/crypto/crc32c-intel.ko.zst", "usr/lib/firmware/bnx2/a.fw"} {
		if _, ok := files[name]; !ok {
			t.Errorf("no %s in the initramfs", name)
		}
	}
	for _, name := range []string{dir + "kernel/drivers/gpu/drm/i915/i915.ko.zst", dir + "kernel/drivers/net/ethernet/qlogic/qed/qed.ko.zst",
		dir + "kernel/drivers/net/ethernet/qlogic/qede/qede.ko.zst", dir + "kernel/drivers/scsi/qla2xxx/qla2xxx.ko.zst",
		bootimage.PlatformsPath} {
		if _, ok := files[name]; ok {
			t.Errorf("%s is in the initramfs", name)
		}
	}
	if got := string(files["lib"].Data); got != "usr/lib" {
		t.Errorf("lib leads to %q", got)
	}
	if got := string(files[dir+"modules.alias"].Data); got != "alias pci:v000014E4d0000164A* bnx2\nalias crypto-thing helper\n" {
		t.Errorf("modules.alias is %q", got)
	}
	if got := string(files[dir+"modules.dep"].Data); !strings.Contains(got, "kernel/fs/ext4/ext4.ko.zst: kernel/fs/jbd2/jbd2.ko.zst\n") || strings.Contains(got, "i915") {
		t.Errorf("modules.dep is %q", got)
	}
	ext4, err := plainModule("ext4.ko.zst", files[dir+"kernel/fs/ext4/ext4.ko.zst"].Data)
	if want := module("license=GPL"); !bytes.Equal(ext4, want) || err != nil {
		t.Errorf("the module ext4 is %q, want %q, %v", ext4, want, err)
	}
	p, err := policy.Parse(files["etc/gprovision/policy.json"].Data)
	if err != nil || !p.Provision {
		t.Errorf("policy is %+v, %v", p, err)
	}
	var info bootimage.Build
	if err := json.Unmarshal(files[bootimage.BuildPath].Data, &info); err != nil || info.Number != 42 || info.Kernel != release ||
		!info.Time.Equal(o.Time) || info.Gprovision != o.Revision {
		t.Errorf("build.json is %+v, %v", info, err)
	}
	i := slices.IndexFunc(r.Tools, func(t bootimage.Tool) bool { return t.Path == "/sbin/mke2fs" })
	if i < 0 || r.Tools[i].Package != "e2fsprogs" || r.Tools[i].Version != "1.47.0-2" || len(r.Tools[i].SHA256) != 64 {
		t.Errorf("tools are %+v", r.Tools)
	}
	in, err := Inspect(bytes.NewReader(b), int64(len(b)))
	if err != nil || *in.Build != 42 || in.Initrd.Modules != r.Modules || in.Initrd.Unpacked != r.InitrdUnpacked || !in.Policy.Provision || in.Info.Kernel != release {
		t.Errorf("inspection is %+v, %v", in, err)
	}
	runTools(t, files)
}

// runTools runs the programs of the initramfs in it, to see that no library is missing.
func runTools(t *testing.T, files map[string]bootimage.File) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Log("not root: the tools are not run")
		return
	}
	dir := t.TempDir()
	in := openRoot(t, dir)
	names := make([]string, 0, len(files))
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		f := files[n]
		var err error
		switch f.Mode.Type() {
		case fs.ModeDir:
			err = in.Mkdir(n, 0o755)
		case fs.ModeSymlink:
			err = in.Symlink(string(f.Data), n)
		case 0:
			err = in.WriteFile(n, f.Data, f.Mode.Perm())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := in.WriteFile("disk", make([]byte, 8<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{{"/sbin/mke2fs", "-q", "-t", "ext4", "/disk"}, {"/sbin/e2fsck", "-f", "-n", "/disk"}} {
		cmd := exec.Command(c[0], c[1:]...)
		cmd.Dir, cmd.Env = "/", []string{}
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%q in the initramfs: %v: %s", c, err, out)
		}
	}
}

func TestBuildIsReproducible(t *testing.T) {
	root := fakeRoot(t)
	o := options(t, root)
	_, first := build(t, o)
	_, second := build(t, o)
	if !bytes.Equal(first, second) {
		t.Error("two builds differ")
	}
	o.NoBIOS = true
	_, first = build(t, o)
	index, err := openRootFS(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	defer index.Close()
	for _, c := range []struct{ name, flag string }{{"plain.tar", ""}, {"small.tar.xz", "--xz"}, {"small.tar.zst", "--zstd"}, {"small.tar.gz", "--gzip"}} {
		file := filepath.Join(t.TempDir(), c.name)
		args := []string{"--sort=name", "-C", root, "-cf", file, "."}
		if c.flag != "" {
			args = append([]string{c.flag}, args...)
		}
		cmd := exec.Command("tar", args...)
		cmd.Env = append(os.Environ(), "XZ_OPT=-0")
		if out, err := cmd.CombinedOutput(); err != nil {
			needs(t, fmt.Sprintf("tar with %s: %s", c.flag, out))
		}
		if c.flag == "" {
			o.RootFS = file
			if _, got := build(t, o); !bytes.Equal(got, first) {
				t.Errorf("%s gives other bytes than the directory", c.name)
			}
			continue
		}
		sameFiles(t, index, file)
	}
}

// sameFiles compares the files of a root filesystem with those of a tar file.
func sameFiles(t *testing.T, want *rootFS, file string) {
	t.Helper()
	got, err := openRootFS(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	for name, e := range want.entries {
		if !e.mode.IsRegular() {
			continue
		}
		a, aerr := want.read(name, "")
		b, berr := got.read(name, "")
		if aerr != nil || berr != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: %s differs (%v, %v)", file, name, aerr, berr)
		}
	}
}

func TestMissing(t *testing.T) {
	root := fakeRoot(t)
	o := options(t, root)
	o.Kernel = release
	for _, c := range []struct{ file, debianPackage string }{
		{stubPath, "systemd-boot-efi"},
		{"usr/sbin/e2fsck", "e2fsprogs"},
		{"etc/mke2fs.conf", "e2fsprogs"},
		{"usr/lib/os-release", "base-files"},
		{"usr/bin/grub-mkimage", "grub-common"},
		{grubDir + "/boot.img", "grub-pc-bin"},
		{"usr/lib/modules/" + release + "/modules.dep", "linux-image-" + release},
	} {
		p := filepath.Join(root, c.file)
		if err := os.Rename(p, p+".away"); err != nil {
			t.Fatal(err)
		}
		_, err := Build(t.Context(), slog.New(slog.DiscardHandler), o)
		if !strings.Contains(hintOf(err), c.debianPackage) {
			t.Errorf("%s: got %v, want an error that names %s", c.file, err, c.debianPackage)
		}
		if _, err := os.Stat(o.Out); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: something was written", c.file)
		}
		if err := os.Rename(p+".away", p); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(filepath.Join(root, "boot")); err != nil {
		t.Fatal(err)
	}
	o.Kernel = ""
	if _, err := Build(t.Context(), nil, o); !strings.Contains(hintOf(err), "linux-image-amd64") {
		t.Errorf("no kernel: got %v", err)
	}
	left, err := os.ReadDir(filepath.Dir(o.Out))
	if err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// hintOf returns the hint of an error, as the command shows it.
func hintOf(err error) string {
	for ; err != nil; err = errors.Unwrap(err) {
		if h, ok := err.(interface{ Hint() string }); ok {
			return h.Hint()
		}
	}
	return ""
}

func TestBuildOptions(t *testing.T) {
	root := fakeRoot(t)
	good := options(t, root)
	for name, change := range map[string]func(*Options){
		"dynamic init":   func(o *Options) { o.Init = "/sbin/mke2fs" },
		"script as init": func(o *Options) { o.Init = filepath.Join(root, "etc/mke2fs.conf") },
		"no such kernel": func(o *Options) { o.Kernel = "9.9" },
		"no policy":      func(o *Options) { o.Policy = policy.Policy{} },
		"bad key":        func(o *Options) { o.Policy.Keys = []string{"x"} },
		"bad table":      func(o *Options) { o.Platforms = []byte("{") },
		"no time":        func(o *Options) { o.Time = time.Time{} },
		"add nothing":    func(o *Options) { o.Add = []Addition{{From: "/no/such", To: "/x"}} },
		"add over init":  func(o *Options) { o.Add = []Addition{{From: "/etc/passwd", To: "/init"}} },
		"no rootfs":      func(o *Options) { o.RootFS = filepath.Join(root, "nowhere") },
		"rootfs no tar":  func(o *Options) { o.RootFS = filepath.Join(root, "etc/mke2fs.conf") },
	} {
		o := good
		change(&o)
		if _, err := Build(t.Context(), nil, o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(ctx, nil, good); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}

	o := good
	o.NoBIOS = true
	if err := os.Remove(filepath.Join(root, "boot/config-"+release)); err != nil {
		t.Fatal(err)
	}
	extra := filepath.Join(t.TempDir(), "extra")
	if err := os.MkdirAll(filepath.Join(extra, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(filepath.Join(root, "usr/bin/grub-mkimage"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"sub/tool": program, "data": []byte("data")} {
		if err := os.WriteFile(filepath.Join(extra, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	a, err := ParseAddition(extra + ":/lib/acme")
	if err != nil {
		t.Fatal(err)
	}
	o.Add = []Addition{a}
	r, b := build(t, o)
	if r.Compression != Gzip {
		t.Errorf("without the kernel's configuration: %s", r.Compression)
	}
	files := unpacked(t, b)
	lib := "libdevmapper.so.1.02.1" // of grub-mkimage
	found := slices.ContainsFunc(r.Tools, func(t bootimage.Tool) bool { return strings.HasSuffix(t.Path, lib) })
	if _, ok := files["usr/lib/acme/sub/tool"]; !ok || !found {
		t.Errorf("added file there: %v, its library there: %v", ok, found)
	}
	if _, ok := files[bootimage.GRUBCorePath]; ok {
		t.Error("boot loader for BIOS is there")
	}
}

func TestParseAddition(t *testing.T) {
	for in, want := range map[string]Addition{"/a/b": {"/a/b", "/a/b"}, "x:/y/../z": {"x", "/z"}, "/c:d": {"/c:d", "/c:d"}} {
		if got, err := ParseAddition(in); got != want || err != nil {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	if _, err := ParseAddition(":/x"); err == nil {
		t.Error("no error for an empty path")
	}
}

func TestOlder(t *testing.T) {
	order := []string{"5.10.0-30-amd64", "6.1.0-9-amd64", "6.1.0-10-amd64", "6.1.0-10-rt-amd64", "6.1.1", "6.6.32-rc3", "6.6.32-rc10", "6.6.32", "6.10.0", "06.11", "6.12~rc1-amd64", "6.12-rc2",
		"6.12.0-0.rc7.20251.fc44.x86_64", "6.12.0-200.fc44.x86_64", "6.12.0-300.fc44.x86_64"}
	for i, a := range order {
		for j, b := range order {
			if got := older(a, b); got != (i < j) {
				t.Errorf("older(%q, %q) = %v", a, b, got)
			}
		}
	}
}

func TestChooseKernel(t *testing.T) {
	const boot, beside = "boot/vmlinuz-", "beside"
	for name, tc := range map[string]struct {
		files   []string // "boot/vmlinuz-R", or "beside R": among its modules
		modules []string // releases with modules
		kernel  string
		want    string // release, or "error: TEXT"
		hint    string
	}{
		"numbers":             {files: []string{boot + "6.1.0-57-amd64", boot + "6.1.0-9-amd64"}, modules: []string{"6.1.0-57-amd64", "6.1.0-9-amd64"}, want: "6.1.0-57-amd64"},
		"a backup":            {files: []string{boot + "6.6.32", boot + "6.6.32.old", boot + "6.6.32.bak", boot + "6.6.32.dpkg-bak"}, modules: []string{"6.6.32"}, want: "6.6.32"},
		"backup of all":       {files: []string{boot + "6.6.32", boot + "6.6.32.old"}, modules: []string{"6.6.32", "6.6.32.old"}, want: "6.6.32"},
		"a candidate":         {files: []string{boot + "6.6.32", boot + "6.6.32-rc3"}, modules: []string{"6.6.32", "6.6.32-rc3"}, want: "6.6.32"},
		"of a later one":      {files: []string{boot + "6.6.32", boot + "6.7.0-rc3"}, modules: []string{"6.6.32", "6.7.0-rc3"}, want: "6.7.0-rc3"},
		"cloud":               {files: []string{boot + "6.1.0-57-amd64", boot + "6.1.0-58-cloud-amd64"}, modules: []string{"6.1.0-57-amd64", "6.1.0-58-cloud-amd64"}, want: "6.1.0-57-amd64"},
		"real-time":           {files: []string{boot + "6.1.0-57-amd64", boot + "6.1.0-57-rt-amd64"}, modules: []string{"6.1.0-57-amd64", "6.1.0-57-rt-amd64"}, want: "6.1.0-57-amd64"},
		"debug":               {files: []string{beside + " 6.5.6-300.fc39.x86_64", beside + " 6.5.6-300.fc39.x86_64+debug"}, want: "6.5.6-300.fc39.x86_64"},
		"rescue":              {files: []string{boot + "6.5.6-300.fc39.x86_64", boot + "0-rescue-0123456789abcdef"}, modules: []string{"6.5.6-300.fc39.x86_64"}, want: "6.5.6-300.fc39.x86_64"},
		"removed modules":     {files: []string{boot + "6.1.0-57-amd64", boot + "6.1.0-58-amd64"}, modules: []string{"6.1.0-57-amd64"}, want: "6.1.0-57-amd64"},
		"removed kernel":      {files: []string{boot + "6.1.0-57-amd64"}, modules: []string{"6.1.0-57-amd64", "6.1.0-58-amd64"}, want: "6.1.0-57-amd64"},
		"only cloud":          {files: []string{boot + "6.1.0-56-cloud-amd64", boot + "6.1.0-57-cloud-amd64"}, modules: []string{"6.1.0-56-cloud-amd64", "6.1.0-57-cloud-amd64"}, want: "6.1.0-57-cloud-amd64"},
		"cloud and real-time": {files: []string{boot + "6.1.0-57-cloud-amd64", boot + "6.1.0-57-rt-amd64"}, modules: []string{"6.1.0-57-cloud-amd64", "6.1.0-57-rt-amd64"}, want: "error: purposes of their own", hint: "--kernel (6.1.0-57-cloud-amd64, 6.1.0-57-rt-amd64)"},
		"beside its modules":  {files: []string{beside + " 6.9.1-arch1-1"}, want: "6.9.1-arch1-1"},
		"by name":             {files: []string{boot + "6.1.0-57-amd64", beside + " 6.9.1"}, modules: []string{"6.1.0-57-amd64"}, kernel: "6.1.0-57-amd64", want: "6.1.0-57-amd64"},
		"by name, beside":     {files: []string{boot + "6.1.0-57-amd64", beside + " 6.0.1"}, modules: []string{"6.1.0-57-amd64"}, kernel: "6.0.1", want: "6.0.1"},
		"by a wrong name":     {files: []string{boot + "6.1.0-57-amd64"}, modules: []string{"6.1.0-57-amd64"}, kernel: "6.9", want: "error: neither /boot/vmlinuz-6.9 nor /lib/modules/6.9/vmlinuz", hint: "6.1.0-57-amd64"},
		"without modules":     {files: []string{boot + "6.1.0-57-amd64", boot + "6.9"}, modules: []string{"6.1.0-57-amd64"}, kernel: "6.9", want: "error: has no modules", hint: "6.1.0-57-amd64"},
		"none with modules":   {files: []string{boot + "6.9"}, want: "error: no kernel of the root filesystem has modules", hint: "linux-image-6.9"},
		"none":                {want: "error: neither /boot/vmlinuz-* nor /lib/modules/*/vmlinuz", hint: "linux-image-amd64"},
	} {
		dir := t.TempDir()
		put := func(name string) {
			p := filepath.Join(dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte("CONFIG_BLK_DEV_INITRD=y\nCONFIG_RD_ZSTD=y\n"), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range tc.files {
			if r, ok := strings.CutPrefix(f, beside+" "); ok {
				put("usr/lib/modules/" + r + "/vmlinuz")
				put("usr/lib/modules/" + r + "/config")
				put("usr/lib/modules/" + r + "/modules.dep")
			} else {
				put(f)
			}
		}
		for _, r := range tc.modules {
			put("usr/lib/modules/" + r + "/modules.dep")
		}
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "usr/lib"), 0o755), os.Symlink("usr/lib", filepath.Join(dir, "lib"))); err != nil {
			t.Fatal(err)
		}
		r, err := openRootFS(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		k, err := chooseKernel(r, tc.kernel)
		if text, bad := strings.CutPrefix(tc.want, "error: "); bad {
			var ke *KernelError
			if !errors.As(err, &ke) || !strings.Contains(err.Error(), text) || !strings.Contains(ke.Hint(), tc.hint) || !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: got %q, %v", name, k.release, err)
			}
			continue
		}
		if err != nil || k.release != tc.want {
			t.Errorf("%s: got %q, %v, want %s", name, k.release, err, tc.want)
			continue
		}
		if strings.Contains(k.image, "lib/modules") {
			if c, err := chooseCompression(r, k); c != Zstd || err != nil {
				t.Errorf("%s: the configuration beside the modules leads to %s, %v", name, c, err)
			}
		}
	}
}

// TestCompression: a kernel says by its configuration whether it unpacks zstd.
func TestCompression(t *testing.T) {
	for config, want := range map[string]Compression{
		"CONFIG_BLK_DEV_INITRD=y\nCONFIG_RD_ZSTD=y\n":            Zstd,
		"CONFIG_BLK_DEV_INITRD=y\n# CONFIG_RD_ZSTD is not set\n": Gzip,
		"CONFIG_RD_ZSTD=y\n": "", // no initramfs at all
	} {
		r, err := openRootFS(t.Context(), writeTree(t, map[string][]byte{"boot/config-6.1": []byte(config)}))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := chooseCompression(r, kernelFile{release: "6.1", config: "boot/config-6.1"}); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %s, %v", config, got, err)
		}
	}
}

// smallOptions are options with programs that are headers alone, so that nearly nothing is compressed.
func smallOptions(t *testing.T, root string) Options {
	t.Helper()
	small := program(true, "", "")
	dir := writeTree(t, map[string][]byte{"init": small, "sbin/mke2fs": small, "sbin/e2fsck": small})
	return Options{
		RootFS: root, Tools: dir, NoBIOS: true, Init: filepath.Join(dir, "init"), BuildNumber: 42, Time: time.Unix(1790000000, 0),
		Out: filepath.Join(t.TempDir(), "norm_boot"), Policy: policy.Policy{Version: 1, AllowUnsigned: true},
	}
}

// TestWarnings: the log of a build says which drivers lack their firmware, which modules that were added to the kernel are left out, and
// what most units need and the kernel has no driver for. The report has the first two.
func TestWarnings(t *testing.T) {
	root := fakeRoot(t)
	in := openRoot(t, root)
	dir := "usr/lib/modules/" + release + "/"
	err := in.MkdirAll(dir+"updates/dkms", 0o755)
	if err == nil {
		err = in.WriteFile(dir+"updates/dkms/graphics.ko", module("alias=pci:v000010DE*"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	for file, more := range map[string]string{
		"modules.dep":   "updates/dkms/graphics.ko:\n",
		"modules.alias": "alias pci:v00001077d00001634* qede\nalias pci:v00001077d00002532* qla2xxx\n",
	} {
		old, err := in.ReadFile(dir + file)
		if err == nil {
			err = in.WriteFile(dir+file, append(old, more...), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	o := smallOptions(t, root)
	var log bytes.Buffer
	r, err := Build(t.Context(), slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})), o)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, l := range r.LeftOut {
		left = append(left, l.Name+" "+l.Drives+" "+l.Why)
	}
	if want := []string{"qede network ports firmware", "qla2xxx disks list", "graphics  other"}; !slices.Equal(left, want) {
		t.Errorf("left out %q, want %q", left, want)
	}
	said := log.String()
	for _, want := range []string{"module=qede", "module=graphics", "ahci (SATA disks), nvme (NVMe disks)"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
	if strings.Contains(said, "qla2xxx") || strings.Contains(said, "ext4 (") || strings.Count(said, "\n") != 3 {
		t.Errorf("it warns of more:\n%s", said)
	}
}

// calling returns a module that calls functions of the kernel.
func calling(info []string, calls ...string) []byte {
	modinfo := []byte(strings.Join(info, "\x00") + "\x00")
	names, symbols := []byte{0}, make([]byte, 24)
	for _, c := range calls {
		s := make([]byte, 24)
		binary.LittleEndian.PutUint32(s, uint32(len(names)))
		s[4] = 1 << 4 // global, of no section
		names, symbols = append(append(names, c...), 0), append(symbols, s...)
	}
	shnames := []byte("\x00.modinfo\x00.shstrtab\x00.symtab\x00.strtab\x00")
	var b bytes.Buffer
	at := uint64(64)
	sections := []elf.Section64{{}}
	add := func(name uint32, kind elf.SectionType, data []byte, link uint32, size uint64) {
		sections = append(sections, elf.Section64{Name: name, Type: uint32(kind), Off: at, Size: uint64(len(data)), Link: link, Entsize: size, Info: 1})
		at += uint64(len(data))
	}
	add(1, elf.SHT_PROGBITS, modinfo, 0, 0)
	add(10, elf.SHT_STRTAB, shnames, 0, 0)
	add(20, elf.SHT_SYMTAB, symbols, 4, 24)
	add(28, elf.SHT_STRTAB, names, 0, 0)
	h := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64, Shentsize: 64, Shnum: 5, Shstrndx: 2, Shoff: at}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	for _, v := range []any{h, modinfo, shnames, symbols, names, sections} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

// TestAddedModules is about drivers that DKMS, driver packages and weak-updates add: those that take the place of the kernel's own, and
// those that the kernel has none of.
func TestAddedModules(t *testing.T) {
	const dir = "lib/modules/6.1.0/"
	tree := map[string][]byte{}
	dep := ""
	add := func(file string, data []byte) {
		tree[dir+file] = data
		dep += file + ":\n"
	}
	add("updates/dkms/igb.ko", module("alias=pci:v00008086d000010C9*", "new"))
	tree[dir+"kernel/drivers/net/ethernet/intel/igb/igb.ko"] = module() // depmod names the preferred one alone
	add("extra/megaraid_sas/megaraid-sas.ko", module("alias=pci:v00001000*"))
	tree[dir+"kernel/drivers/scsi/megaraid/megaraid-sas.ko"] = module()
	add("updates/i915.ko", module("alias=pci:v00008086*"))
	tree[dir+"kernel/drivers/gpu/drm/i915/i915.ko"] = module()
	add("weak-updates/qla2xxx.ko", module("alias=pci:v00001077*"))
	tree[dir+"kernel/drivers/scsi/qla2xxx/qla2xxx.ko"] = module()
	add("updates/dkms/r8125.ko", calling([]string{"alias=pci:v000010ECd00008125*"}, "alloc_etherdev_mqs", "register_netdev"))
	add("updates/dkms/newraid.ko", calling([]string{"alias=pci:v0000ABCD*"}, "scsi_host_alloc"))
	add("updates/dkms/radio.ko", calling([]string{"alias=pci:v0000ABCE*"}, "register_netdev", "wiphy_register"))
	add("updates/dkms/zvol.ko", calling([]string{"alias=fs-zvol"}, "device_add_disk"))
	add("updates/dkms/graphics.ko", calling([]string{"alias=pci:v000010DE*"}, "drm_dev_register"))
	add("kernel/drivers/ata/ahci.ko", module())
	tree[dir+"modules.dep"], tree[dir+"modules.builtin"] = []byte(dep), nil
	tree[dir+"modules.alias"] = []byte("alias pci:v00001077* qla2xxx\nalias pci:v00008086* i915\n")
	r, err := openRootFS(t.Context(), writeTree(t, tree))
	if err != nil {
		t.Fatal(err)
	}
	m, err := readModules(r, "6.1.0")
	if err != nil {
		t.Fatal(err)
	}
	names, err := m.choose(nil)
	if want := []string{"ahci", "igb", "megaraid_sas", "newraid", "r8125"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("chose %q, %v, want %q", names, err, want)
	}
	files, _, err := m.load(names)
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]bool{}
	for _, f := range files {
		has[dir+f.path+zstdSuffix] = true
		if f.path == "updates/dkms/igb.ko" && !bytes.Contains(f.data, []byte("new")) {
			t.Error("the kernel's own igb, not the one that depmod prefers")
		}
	}
	if !has[dir+"updates/dkms/igb.ko"+zstdSuffix] || !strings.Contains(string(m.index(names)[0].data), "updates/dkms/igb.ko.zst:") {
		t.Errorf("files %v", has)
	}
	var left []string
	for _, l := range m.leftOut(func(name string) bool { return has[name] }) {
		left = append(left, l.Name+" "+l.Drives+" "+l.Why)
	}
	if want := []string{"graphics  other", "radio  other", "zvol  other", "qla2xxx disks list"}; !slices.Equal(left, want) {
		t.Errorf("left out %q, want %q", left, want)
	}
	// What is lost on the way is told, whatever was meant.
	delete(has, dir+"updates/dkms/r8125.ko"+zstdSuffix)
	if l := m.leftOut(func(name string) bool { return has[name] }); !slices.ContainsFunc(l, func(l LeftOut) bool { return l.Name == "r8125" && l.Drives == string(drivesPorts) }) {
		t.Errorf("r8125 is lost and not told: %v", l)
	}
	if names, err = m.choose([]string{"updates/dkms/graphics", "drivers/scsi/qla2xxx/"}); err != nil || !slices.Contains(names, "graphics") || !slices.Contains(names, "qla2xxx") {
		t.Errorf("asked for: %q, %v", names, err)
	}
	if got := m.lacking(); len(got) != 5 || strings.Contains(strings.Join(got, " "), "ahci") {
		t.Errorf("lacking %q", got)
	}
}

func TestRootStaysInside(t *testing.T) {
	root := t.TempDir()
	for link, target := range map[string]string{"up": "../../../../etc/passwd", "abs": "/etc/passwd", "loop": "loop", "sub": "."} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	r, err := openRootFS(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, n := range []string{"up", "abs", "loop", "../../../etc/passwd", "sub/sub/abs"} {
		if b, err := r.read(n, ""); err == nil {
			t.Errorf("%s gave %d bytes of this machine", n, len(b))
		}
	}
}

func TestTarWithHardLinks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "root.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	for _, h := range []*tar.Header{{Name: "./a/b", Typeflag: tar.TypeReg, Size: 5, Mode: 0o644}, {Name: "c", Typeflag: tar.TypeLink, Linkname: "./a/b"}} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	r, err := openRootFS(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := r.read("c", ""); string(b) != "hello" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if got := r.list("a"); !slices.Equal(got, []string{"b"}) {
		t.Errorf("list is %q", got)
	}
}

// TestTarsOfAllKinds packs one tree, whose files have holes, in the ways in which people pack root filesystems.
func TestTarsOfAllKinds(t *testing.T) {
	dir := t.TempDir()
	tree := filepath.Join(dir, "r")
	want := map[string][]byte{"etc/plain": []byte("plain"), "lib/holes.ko": make([]byte, 3<<20), "lib/all-hole": make([]byte, 1<<20), "lib/many": make([]byte, 8<<20)}
	copy(want["lib/holes.ko"][2<<20+17:], "in the middle")
	for at := 0; at < len(want["lib/many"]); at += 64 << 10 {
		want["lib/many"][at] = 'x'
	}
	for name, data := range want {
		p := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(p)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(data); at += 4096 { // what is zero becomes a hole
			if b := data[at:min(at+4096, len(data))]; !bytes.Equal(b, make([]byte, len(b))) {
				if _, err := f.WriteAt(b, int64(at)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := errors.Join(f.Truncate(int64(len(data))), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for _, how := range []string{
		"--format=v7", "--format=ustar", "--format=gnu", "--format=posix", "--format=gnu --sparse", "--format=posix --sparse",
		"--format=posix --sparse --sparse-version=0.0", "--format=posix --sparse --sparse-version=0.1", "-I pzstd", "-I zstd\x00--long=30", "-I zstd\x00--ultra\x00--long=31", "--gzip", "--xz",
	} {
		file := filepath.Join(dir, "r.tar")
		args := append([]string{"-C", tree, "-cf", file}, strings.Fields(how)...)
		for i, a := range args {
			args[i] = strings.ReplaceAll(a, "\x00", " ")
		}
		if out, err := exec.Command("tar", append(args, ".")...).CombinedOutput(); err != nil {
			if _, e := exec.LookPath("pzstd"); e != nil {
				needs(t, "pzstd")
			}
			t.Fatalf("tar %s: %v %s", how, err, out)
		}
		r, err := openRootFS(t.Context(), file)
		if err != nil {
			t.Errorf("tar %s: %v", how, err)
			continue
		}
		var temporary []string
		for _, f := range []*os.File{r.scratch, r.holes} {
			if f != nil {
				temporary = append(temporary, f.Name())
			}
		}
		if sparse := strings.Contains(how, "--sparse"); sparse != (r.holes != nil) {
			t.Errorf("tar %s: holes kept apart: %v", how, r.holes != nil)
		}
		for name, data := range want {
			if got, err := r.read(name, ""); !bytes.Equal(got, data) || err != nil {
				t.Errorf("tar %s: %s has %d bytes, %v", how, name, len(got), err)
			}
		}
		if err := r.Close(); err != nil {
			t.Errorf("tar %s: close: %v", how, err)
		}
		for _, name := range temporary {
			if _, err := os.Stat(name); err == nil {
				t.Errorf("tar %s: %s is left", how, name)
			}
		}
	}
}

// inspectable are artifacts of both forms with all files that Inspect reads, not compressed, so that changes reach them: a kernel that
// holds its initramfs, and a unified kernel image where Debian's stub is there.
func inspectable(t testing.TB) [][]byte {
	t.Helper()
	var tree bootimage.Tree
	for name, text := range map[string]string{
		bootimage.PolicyPath:    `{"version": 1, "allowUnsigned": true}`,
		bootimage.NamesPath:     `{"version": 1, "imagePrefix": "ACME.LNX.FOX."}`,
		bootimage.BuildPath:     `{"build": 7, "kernel": "6.1.0", "tools": [{"name": "init", "path": "/init", "sha256": "00"}]}`,
		bootimage.PlatformsPath: `{"Variants": []}`,
		bootimage.GRUBBootPath:  "boot", bootimage.GRUBCorePath: "core", "init": "#!", "lib/modules/6.1.0/a.ko": "module",
	} {
		if err := tree.Add(bootimage.File{Name: name, Mode: 0o755, Data: []byte(text)}); err != nil {
			t.Fatal(err)
		}
	}
	var archive, packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if err := errors.Join(tree.Write(&archive, time.Unix(1790000000, 0)), tree.Write(z, time.Unix(1790000000, 0)), z.Close()); err != nil {
		t.Fatal(err)
	}
	k := kernel(release)
	binary.LittleEndian.PutUint32(k[0x248:], uint32(len(k)-1024))
	binary.LittleEndian.PutUint32(k[0x24c:], uint32(packed.Len()))
	out := [][]byte{append(k, packed.Bytes()...)}
	if stub, err := os.ReadFile("/" + stubPath); err == nil {
		var b bytes.Buffer
		err := bootimage.WriteUKI(&b, stub, []bootimage.Part{{Name: bootimage.SectionOSRel, Data: []byte("BUILD_ID=7\n")},
			{Name: bootimage.SectionInitrd, Data: archive.Bytes()}, {Name: bootimage.SectionLinux, Data: kernel(release)}})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b.Bytes())
	}
	for i, b := range out {
		in, err := Inspect(bytes.NewReader(b), int64(len(b)))
		if err != nil || in.Policy == nil || in.Names == nil || in.Info == nil || in.Platforms == nil || in.GRUB.Core == nil {
			t.Fatalf("artifact %d to begin with: %+v, %v", i, in, err)
		}
	}
	return out
}

func FuzzInspect(f *testing.F) {
	good := append([][]byte{[]byte("MZ"), kernel(release)}, inspectable(f)...)
	for _, s := range edit.Scripts() {
		for i := range len(good) {
			f.Add(uint8(i), s)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, script []byte) {
		b := edit.Apply(good[int(which)%len(good)], script)
		_, _ = Inspect(bytes.NewReader(b), int64(len(b)))
	})
}

func needs(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("GPROV_NO_SKIP") == "1" {
		t.Fatalf("needs %s", what)
	}
	t.Skipf("needs %s", what)
}
