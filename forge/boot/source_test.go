package boot

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"gprovision/model/bootimage"
	"gprovision/model/policy"
)

func TestParseConfig(t *testing.T) {
	got, err := parseConfig("x", []byte("# a comment\n\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"a \\\"b\\\"\"\nCONFIG_D=0x10\nCONFIG_E=-3\n"))
	want := []option{{"CONFIG_A", "y"}, {"CONFIG_B", "n"}, {"CONFIG_C", `"a \"b\""`}, {"CONFIG_D", "0x10"}, {"CONFIG_E", "-3"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"CONFIG_A", "CONFIG_A=", "A=y", "CONFIG_A=y\nCONFIG_A=n", "CONFIG_A=\"x", "CONFIG_A=y z"} {
		if _, err := parseConfig("x.config", []byte(bad)); err == nil || !strings.Contains(err.Error(), "x.config: line") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
	merged := mergeConfig(want, []option{{"CONFIG_B", "y"}, {"CONFIG_F", "n"}})
	if s := string(formatConfig(merged)); s != "CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=\"a \\\"b\\\"\"\nCONFIG_D=0x10\nCONFIG_E=-3\n# CONFIG_F is not set\n" {
		t.Errorf("merged: %q", s)
	}
}

func TestCheckConfig(t *testing.T) {
	want := []option{{"CONFIG_A", "y"}, {"CONFIG_B", "n"}, {"CONFIG_C", "y"}, {"CONFIG_D", "n"}, {"CONFIG_E", "4"}}
	if err := checkConfig(want, []option{{"CONFIG_A", "y"}, {"CONFIG_C", "y"}, {"CONFIG_D", "n"}, {"CONFIG_E", "4"}, {"CONFIG_Z", "y"}}); err != nil {
		t.Error(err)
	}
	var e *OptionError
	err := checkConfig(want, []option{{"CONFIG_A", "n"}, {"CONFIG_B", "y"}, {"CONFIG_E", "5"}})
	if !errors.As(err, &e) || !slices.Equal(e.Lines, []string{"CONFIG_A: want y, got n", "CONFIG_B: want n, got y", "CONFIG_C: want y, got not there", "CONFIG_E: want 4, got 5"}) {
		t.Errorf("got %v", err)
	}
}

// TestCuratedConfig holds what a unit cannot do without.
func TestCuratedConfig(t *testing.T) {
	name, text, err := newestConfig()
	if err != nil {
		t.Fatal(err)
	}
	if v, err := configVersion(name); err != nil || v == "" {
		t.Errorf("version %q, %v", v, err)
	}
	all, err := parseConfig(name, text)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range append(all, option{"CONFIG_MODULES", "n"}) {
		if o.value == "m" {
			t.Errorf("%s is a module", o.name)
		}
	}
	for _, n := range []string{"BLK_DEV_INITRD", "VIRTIO_PCI", "VIRTIO_BLK", "VIRTIO_NET", "BLK_DEV_NVME", "SATA_AHCI", "BLK_DEV_SD", "USB_STORAGE", "USB_XHCI_HCD",
		"EXT4_FS", "VFAT_FS", "EFIVAR_FS", "E1000E", "IGB", "IXGBE", "R8169", "BLK_DEV_MD", "MD_RAID1", "MD_RAID456", "IPMI_SI", "IPMI_DEVICE_INTERFACE", "WATCHDOG",
		"SERIAL_8250_CONSOLE", "USB_ACM", "USB_SERIAL_FTDI_SIO", "EFI_STUB", "KERNEL_ZSTD", "IA32_EMULATION", "EFI_PARTITION", "DEVTMPFS", "TMPFS", "CGROUPS"} {
		if !slices.Contains(all, option{"CONFIG_" + n, "y"}) {
			t.Errorf("CONFIG_%s is not y", n)
		}
	}
	for in, want := range map[string]string{"/x/linux-6.1.config": "6.1", "linux-6.12.3.config": "6.12.3", "linux.config": "", "6.1": "", "linux-6.config": ""} {
		if got, err := configVersion(in); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
}

// fakeSource makes a tree that has of a kernel's build only the targets that are used. CONFIG_BROKEN never takes effect, and
// CONFIG_LIES makes a kernel with another number.
func fakeSource(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	template := bytes.Replace(kernel("RELEASE"), []byte(" (x@y) #1 SMP"), []byte(" (@USER@) #@NUMBER@ SMP @TIME@"), 1)
	makefile := `VERSION = 6
PATCHLEVEL = 1
SUBLEVEL = 192
release = 6.1.192$(shell sed -n 's/^CONFIG_LOCALVERSION="\(.*\)"$$/\1/p' $(O)/.config)
allnoconfig:
	@grep -v CONFIG_BROKEN $(KCONFIG_ALLCONFIG) > $(O)/.config
	@echo '  HOSTCC  scripts/kconfig/conf'
kernelrelease:
	@echo $(release)
bzImage:
	@test "$(ARCH)" = x86_64
	@mkdir -p $(O)/arch/x86/boot
	@echo '  CC      init/main.o'
	@echo run >> $(O)/runs
	@LC_ALL=C sed -e 's/RELEASE/$(release)/; s/@USER@/$(KBUILD_BUILD_USER)@$(KBUILD_BUILD_HOST)/; s/@TIME@/$(KBUILD_BUILD_TIMESTAMP)/' \
		-e "s/@NUMBER@/$$(grep -q CONFIG_LIES $(O)/.config && echo 1 || echo $(KBUILD_BUILD_VERSION))/" kernel.template > $(O)/arch/x86/boot/bzImage
	@cat $(O)/$$(sed -n 's/^CONFIG_INITRAMFS_SOURCE="\(.*\)"$$/\1/p' $(O)/.config) >> $(O)/arch/x86/boot/bzImage
`
	for name, data := range map[string][]byte{"Makefile": []byte(makefile), "kernel.template": template} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// kernelOptions are for a kernel of fakeSource with tools that only look right.
func kernelOptions(t *testing.T) KernelOptions {
	t.Helper()
	for _, n := range []string{"make", "gcc", "ld", "flex", "bison", "bc", "zstd", "tar", "xz"} {
		if _, err := exec.LookPath(n); err != nil {
			needs(t, "program "+n)
		}
	}
	tools := writeTree(t, map[string][]byte{"sbin/mke2fs": program(true, loader64, ""), "sbin/e2fsck": program(true, loader64, ""),
		"lib64/ld-linux-x86-64.so.2": program(true, "", ""), "etc/mke2fs.conf": []byte("[defaults]\n")})
	return KernelOptions{Source: fakeSource(t), Cache: t.TempDir(), LocalVersion: "-norm_boot", Options: Options{
		Tools: tools, NoBIOS: true, Init: staticProgram(t), BuildNumber: 300, Time: time.Unix(1790000000, 0), Out: filepath.Join(t.TempDir(), "norm_boot"),
		Policy: policy.Policy{Version: 1, AllowUnsigned: true, BootArgs: `console=ttyS0 x="y"`},
	}}
}

func TestBuildKernel(t *testing.T) {
	o := kernelOptions(t)
	var phases []string
	o.Progress = func(p KernelProgress) {
		if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
			phases = append(phases, p.Phase)
		}
	}
	r, err := BuildKernel(t.Context(), nil, o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	i, err := bootimage.Parse(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := i.BuildNumber(); n != 300 || err != nil || i.Form != bootimage.FormBzImage || i.Kernel.Banner != "6.1.192-norm_boot (gprovision@gprovision) #300 SMP Mon Sep 21 14:13:20 UTC 2026" {
		t.Errorf("build %d, %v, banner %q", n, err, i.Kernel.Banner)
	}
	if r.Kernel != "6.1.192-norm_boot" || r.Build != 300 || r.Size != int64(len(b)) || r.InitrdUnpacked == 0 || r.Modules != 0 {
		t.Errorf("report is %+v", r)
	}
	if !slices.Equal(phases, []string{"configure", "initramfs", "compile", "write"}) {
		t.Errorf("phases are %q", phases)
	}
	dirs, err := filepath.Glob(filepath.Join(o.Cache, "build-*[0-9a-f]"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("build directories are %q, %v", dirs, err)
	}
	config, err := os.ReadFile(filepath.Join(dirs[0], ".config"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`CONFIG_LOCALVERSION="-norm_boot"`, `CONFIG_INITRAMFS_SOURCE="initramfs.cpio"`, "# CONFIG_MODULES is not set", `CONFIG_CMDLINE="console=ttyS0 x=\"y\""`, "CONFIG_EXT4_FS=y"} {
		if !strings.Contains(string(config), want+"\n") {
			t.Errorf("no %s in the configuration", want)
		}
	}
	files := map[string]bool{}
	err = bootimage.WalkCPIO(bytes.NewReader(b[bytes.Index(b, []byte("070701")):]), func(f bootimage.File, _ int64, _ io.Reader) error {
		files[f.Name] = true
		return nil
	})
	if err != nil || !files["init"] || !files["sbin/mke2fs"] || !files["etc/gprovision/policy.json"] {
		t.Errorf("initramfs has %v, %v", files, err)
	}

	// Again, with other bytes in no way, in the same directory; and from a tar file, without --source, in another.
	if _, err := BuildKernel(t.Context(), nil, o); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(o.Out); err != nil || !bytes.Equal(again, b) {
		t.Errorf("the second build differs, %v", err)
	}
	o.usrSrc = t.TempDir()
	if out, err := exec.Command("tar", "-C", filepath.Dir(o.Source), "-cJf", filepath.Join(o.usrSrc, "linux-source-6.1.tar.xz"), filepath.Base(o.Source)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	o.Source, phases = "", nil
	if _, err := BuildKernel(t.Context(), nil, o); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(o.Out); err != nil || !bytes.Equal(again, b) || phases[0] != "unpack" {
		t.Errorf("the build from a tar file differs, %v, %v", phases, err)
	}
	if dirs, err = filepath.Glob(filepath.Join(o.Cache, "build-*[0-9a-f]")); err != nil || len(dirs) != 2 {
		t.Errorf("build directories are %q, %v", dirs, err)
	}
}

func TestBuildKernelRefuses(t *testing.T) {
	good := kernelOptions(t)
	config := func(name, text string) string {
		p := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, c := range map[string]struct {
		change func(*KernelOptions)
		text   string
	}{
		"option":        {func(o *KernelOptions) { o.Config = config("linux-6.1.config", "CONFIG_BROKEN=y\n") }, "CONFIG_BROKEN: want y, got not there"},
		"bad fragment":  {func(o *KernelOptions) { o.Config = config("linux-6.1.config", "EXT4=y\n") }, "line 1"},
		"fragment name": {func(o *KernelOptions) { o.Config = config("my.config", "") }, "linux-6.1.config"},
		"wrong number":  {func(o *KernelOptions) { o.Config = config("linux-6.1.config", "CONFIG_LIES=y\n") }, "build number 1"},
		"no source":     {func(o *KernelOptions) { o.Source, o.usrSrc = "", t.TempDir() }, "no source of Linux 6.1"},
		"no such":       {func(o *KernelOptions) { o.Source = filepath.Join(t.TempDir(), "x") }, "find the source"},
		"empty tree":    {func(o *KernelOptions) { o.Source = t.TempDir() }, "no Linux source tree"},
		"local version": {func(o *KernelOptions) { o.LocalVersion = "a b" }, "local version"},
		"kernel":        {func(o *KernelOptions) { o.Kernel = "6.1" }, "by its source"},
		"boot loader":   {func(o *KernelOptions) { o.NoBIOS = false }, "boot loader for BIOS"},
		"no tools":      {func(o *KernelOptions) { o.Tools = "" }, "no root filesystem"},
		"jobs":          {func(o *KernelOptions) { o.Jobs = -1 }, "jobs"},
	} {
		o := good
		c.change(&o)
		if _, err := BuildKernel(t.Context(), nil, o); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: got %v", name, err)
		}
		if _, err := os.Stat(o.Out); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: something was written", name)
		}
	}
	o := good
	o.Source, o.usrSrc = "", t.TempDir()
	var missing *SourceError
	if _, err := BuildKernel(t.Context(), nil, o); !errors.As(err, &missing) || !strings.Contains(missing.Hint(), "linux-source-6.1") {
		t.Errorf("no source: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := BuildKernel(ctx, nil, good); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestInspectEmbedded takes a kernel apart that holds an initramfs among other things.
func TestInspectEmbedded(t *testing.T) {
	var tree bootimage.Tree
	for name, data := range map[string]string{"init": "TRAILER!!! 070701", "usr/sbin/mke2fs": "xx", "lib/libc.so.6": "yyy", "etc/gprovision/policy.json": `{"version": 1, "allowUnsigned": true}`} {
		if err := tree.Add(bootimage.File{Name: name, Mode: 0o755, Data: []byte(data)}); err != nil {
			t.Fatal(err)
		}
	}
	var archive bytes.Buffer
	if err := tree.Write(&archive, time.Unix(1790000000, 0)); err != nil {
		t.Fatal(err)
	}
	inside := append([]byte("code 070701 and more text, which is no archive: "), archive.Bytes()...)
	inside = append(inside, "data behind the archive"...)
	pack := map[string]func() []byte{
		"zstd": func() []byte {
			w, err := zstd.NewWriter(nil)
			if err != nil {
				t.Fatal(err)
			}
			return append(w.EncodeAll(inside, nil), 1, 2, 3, 4)
		},
		"gzip": func() []byte {
			var b bytes.Buffer
			w := gzip.NewWriter(&b)
			if _, err := w.Write(inside); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		},
	}
	for kind, payload := range pack {
		p := payload()
		k := kernel("6.1.192")
		binary.LittleEndian.PutUint32(k[0x248:], uint32(len(k)-1024))
		binary.LittleEndian.PutUint32(k[0x24c:], uint32(len(p)))
		k = append(k, p...)
		in, err := Inspect(bytes.NewReader(k), int64(len(k)))
		if err != nil || in.Initrd == nil {
			t.Fatalf("%s: %+v, %v", kind, in, err)
		}
		if in.Initrd.Files != 4 || in.Policy == nil || !in.Policy.AllowUnsigned || in.Release != "6.1.192" || *in.Build != 1 {
			t.Errorf("%s: %+v %+v", kind, in, in.Initrd)
		}
		want := []InspectedPart{{"configuration", 1, 37}, {"init", 1, 17}, {"libraries", 1, 3}, {"programs", 1, 2}}
		if !slices.Equal(in.Initrd.Parts, want) {
			t.Errorf("%s: parts are %+v", kind, in.Initrd.Parts)
		}
	}
	k := kernel("6.1.192")
	if in, err := Inspect(bytes.NewReader(k), int64(len(k))); err != nil || in.Initrd != nil {
		t.Errorf("no payload: %+v, %v", in, err)
	}
}

// debianSource are options for a kernel from Debian's source package, with a cache that stays.
func debianSource(t *testing.T) KernelOptions {
	t.Helper()
	o := kernelOptions(t)
	if _, err := os.Stat("/usr/src/linux-source-6.1.tar.xz"); err != nil {
		needs(t, "package linux-source-6.1")
	}
	o.Source, o.Cache = "", os.Getenv("GPROV_KERNEL_CACHE")
	return o
}

// TestSmallKernel compiles a kernel of a few options from Debian's source package, which it finds by the name of the configuration.
func TestSmallKernel(t *testing.T) {
	if testing.Short() {
		t.Skip("compiling a kernel takes a minute: not with -short")
	}
	o := debianSource(t)
	o.Config = filepath.Join("testdata", "linux-6.1.config")
	o.Policy.BootArgs = "console=ttyS0"
	r, err := BuildKernel(t.Context(), nil, o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	in, err := Inspect(bytes.NewReader(b), int64(len(b)))
	if err != nil || *in.Build != 300 || in.Release != r.Kernel || !strings.HasPrefix(in.Release, "6.1.") || !strings.HasSuffix(in.Release, "-norm_boot") || in.Initrd == nil || in.Policy == nil || !in.Policy.AllowUnsigned {
		t.Fatalf("inspection is %+v, %v", in, err)
	}
	t.Logf("%s: %d bytes", r.Kernel, r.Size)
}
