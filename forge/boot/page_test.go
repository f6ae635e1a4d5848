package boot

import (
	"bytes"
	"crypto/sha256"
	"debug/pe"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/model/bootimage"
	"gprovision/model/naming"
	"gprovision/model/page"
	"gprovision/model/platform"
	"gprovision/model/policy"
)

const formatPage = "formats/boot-artifact.md"

// withAll builds an artifact that has all that one may have.
func withAll(t *testing.T) (Report, []byte) {
	t.Helper()
	root := fakeRoot(t)
	in := openRoot(t, root)
	for name, data := range map[string][]byte{
		"usr/sbin/mdadm":                    program(true, "", ""),
		"etc/ssl/certs/ca-certificates.crt": []byte("certificates"),
	} {
		if err := in.MkdirAll(name[:strings.LastIndexByte(name, '/')], 0o755); err != nil {
			t.Fatal(err)
		}
		if err := in.WriteFile(name, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o := options(t, root)
	o.Names = naming.Names{Version: 1, ImagePrefix: "ACME.LNX.FOX."}
	table := *platform.Default()
	v := table.Variants[0]
	v.DevCodeName, v.DmiProdName, v.NumDataDisks, v.SwRaidlevel = "array", "array", 2, 1
	table.Variants = append(slices.Clone(table.Variants), v)
	var err error
	if o.Platforms, err = json.Marshal(table); err != nil {
		t.Fatal(err)
	}
	return build(t, o)
}

// TestSectionsOfThePage: the sections of an artifact are those of the page, in its order behind those of the stub.
func TestSectionsOfThePage(t *testing.T) {
	rows, err := page.Rows(os.DirFS("../../docs"), formatPage, "## Unified kernel image")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, row := range rows[1:] {
		want = append(want, page.Codes(row[0])...)
	}
	o := smallOptions(t, fakeRoot(t))
	for args, want := range map[string][]string{
		"console=ttyS0": want,
		"":              slices.DeleteFunc(slices.Clone(want), func(n string) bool { return n == bootimage.SectionCmdline }),
	} {
		o.Policy.BootArgs = args
		_, b := build(t, o)
		u, err := bootimage.ParseUKI(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range u.Sections()[len(stubSections(t)):] {
			got = append(got, s.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("with arguments %q the sections are %q, want %q", args, got, want)
		}
	}
}

// stubSections are those of the EFI stub itself.
func stubSections(t *testing.T) []*pe.Section {
	t.Helper()
	f, err := pe.Open("/" + stubPath)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return f.Sections
}

// TestBuildOfThePage: the page shows each field of build.json, and no other.
func TestBuildOfThePage(t *testing.T) {
	text, err := os.ReadFile("../../docs/" + formatPage)
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(text), "```json\n")
	shown, _, ok := strings.Cut(shown, "```")
	if !ok {
		t.Fatal("the page shows no build.json")
	}
	var b bootimage.Build
	d := json.NewDecoder(strings.NewReader(shown))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		t.Fatal(err)
	}
	for _, v := range []reflect.Value{reflect.ValueOf(b), reflect.ValueOf(append(b.Tools, bootimage.Tool{})[0])} {
		for f, value := range v.Fields() {
			if value.IsZero() {
				t.Errorf("the page does not show %s", f.Name)
			}
		}
	}
}

// TestPackagesOfThePage: the packages that must be in a root filesystem are those that an empty one is said to lack, and the programs that
// compile a kernel are those of the page.
func TestPackagesOfThePage(t *testing.T) {
	docs := os.DirFS("../../docs")
	rows, err := page.Rows(docs, formatPage, "## What must be in the root filesystem")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{"base-files": true} // has os-release: each Debian has it
	for _, row := range rows[1:] {
		for p := range strings.SplitSeq(row[0], ", ") {
			listed[p] = true
		}
	}
	root := writeTree(t, map[string][]byte{"etc/hostname": []byte("x")})
	table := *platform.Default()
	v := table.Variants[0]
	v.DevCodeName, v.DmiProdName, v.NumDataDisks, v.SwRaidlevel = "array", "array", 2, 1
	table.Variants = append(slices.Clone(table.Variants), v)
	o := Options{RootFS: root, BuildNumber: 1, Time: time.Unix(1790000000, 0), Out: filepath.Join(t.TempDir(), "x"),
		Policy: policy.Policy{Version: 1, AllowUnsigned: true}}
	if o.Platforms, err = json.Marshal(table); err != nil {
		t.Fatal(err)
	}
	_, err = Build(t.Context(), nil, o)
	var lack *LackError
	if !errors.As(err, &lack) {
		t.Fatal(err)
	}
	said := strings.TrimSuffix(strings.TrimPrefix(lack.Hint(), "install "), " into the root filesystem")
	for p := range strings.SplitSeq(said, ", ") {
		if !listed[p] {
			t.Errorf("the page does not name %s", p)
		}
		delete(listed, p)
	}
	if len(listed) > 0 {
		t.Errorf("the page names %v, which is not asked for: %s", listed, lack.Hint())
	}
	text := err.Error()
	if hintOf(err) != lack.Hint() || !strings.Contains(text, "neither /boot/vmlinuz-*") || !strings.Contains(text, "linuxx64.efi.stub") {
		t.Errorf("it says %v, with the hint %q", err, hintOf(err))
	}
	var names []string
	for _, c := range compilers() {
		names = append(names, c.debianPackage)
	}
	names = slices.Insert(names, 6, "libelf-dev") // no program
	says := "It needs " + strings.Join(names[:9], ", ") + " and " + names[9] + " on the building host"
	if err := page.Says(docs, formatPage, says); err != nil {
		t.Error(err)
	}
}

// TestKernelOptionsOfThePage: what the page says of the configuration of a kernel that is compiled.
func TestKernelOptionsOfThePage(t *testing.T) {
	for _, c := range []struct {
		locked   bool
		args     string
		has, not []option
	}{
		{false, "", []option{{"CONFIG_INITRAMFS_SOURCE", `"initramfs.cpio"`}, {"CONFIG_INITRAMFS_COMPRESSION_NONE", "y"},
			{"CONFIG_MODULES", "n"}}, []option{{"CONFIG_CMDLINE_BOOL", "y"}, {"CONFIG_CMDLINE_OVERRIDE", "y"}}},
		{false, "quiet", []option{{"CONFIG_CMDLINE_BOOL", "y"}, {"CONFIG_CMDLINE", `"quiet"`}}, []option{{"CONFIG_CMDLINE_OVERRIDE", "y"}}},
		{true, "quiet", []option{{"CONFIG_CMDLINE", `"quiet"`}, {"CONFIG_CMDLINE_OVERRIDE", "y"}}, nil},
		{true, "", []option{{"CONFIG_CMDLINE_BOOL", "y"}, {"CONFIG_CMDLINE", `"rdinit=/init"`}, {"CONFIG_CMDLINE_OVERRIDE", "y"}}, nil},
	} {
		k := kernelBuilder{builder: &builder{}}
		k.o.Policy = policy.Policy{Locked: c.locked, BootArgs: c.args}
		own := k.own()
		for _, o := range c.has {
			if !slices.Contains(own, o) {
				t.Errorf("locked %t, arguments %q: no %s in %v", c.locked, c.args, o, own)
			}
		}
		for _, o := range c.not {
			if slices.Contains(own, o) {
				t.Errorf("locked %t, arguments %q: %s", c.locked, c.args, o)
			}
		}
	}
}

// TestInitramfsOfThePage: each path that docs/formats/boot-artifact.md lists is in an artifact that has all, no file lies elsewhere but
// libraries, and build.json lists what the page says.
func TestInitramfsOfThePage(t *testing.T) {
	rep, artifact := withAll(t)
	files := unpacked(t, artifact)
	tree := &bootimage.Tree{}
	for _, f := range files {
		if err := tree.Add(f); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := page.Rows(os.DirFS("../../docs"), formatPage, "## Initramfs")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	var below []string
	for _, row := range rows[1:] {
		dir := ""
		for _, name := range page.Codes(row[0]) {
			if !strings.HasPrefix(name, "/") {
				name = dir + name // core.img beside boot.img
			}
			dir = name[:strings.LastIndexByte(name, '/')+1]
			real, err := tree.Resolve(strings.TrimSuffix(strings.ReplaceAll(name, "RELEASE", release), "/"))
			if err != nil {
				t.Fatal(err)
			}
			f, ok := files[real]
			if !ok {
				t.Errorf("the page has %s, the artifact does not", name)
			}
			listed[real] = true
			if strings.HasSuffix(name, "/") {
				below = append(below, real+"/")
			} else if row[1] == "empty" {
				if !f.Mode.IsDir() {
					t.Errorf("%s is no directory", name)
				}
				below = append(below, real+"\x00") // nothing lies there
			}
		}
	}
	lists := func(data []byte) bool {
		sum := fmt.Sprintf("%x", sha256.Sum256(data))
		return slices.ContainsFunc(rep.Tools, func(t bootimage.Tool) bool { return t.SHA256 == sum })
	}
	for name, f := range files {
		library := strings.Contains(name, ".so")
		switch {
		case f.Mode.Type() == fs.ModeDir || f.Mode.Type() == fs.ModeSymlink:
		case !library && !listed[name] && !slices.ContainsFunc(below, func(dir string) bool { return strings.HasPrefix(name, dir) }):
			t.Errorf("the artifact has %s, the page does not", name)
		case f.Mode.IsRegular():
			own := strings.HasPrefix(name, "etc/gprovision/") || strings.Contains(name, "/modules/") ||
				strings.HasSuffix(name, "ca-certificates.crt")
			if lists(f.Data) == own {
				t.Errorf("tools of build.json lists %s: %t", name, !own)
			}
		}
	}
	builtin := "usr/lib/modules/" + release + "/modules.builtin"
	if !bytes.Equal(files[builtin].Data, []byte("kernel/drivers/tty/serial/8250.ko\n")) {
		t.Errorf("modules.builtin is not whole: %q", files[builtin].Data)
	}
}

// TestModulesOfThePage: what the page says comes along does, and what it says stays out does.
func TestModulesOfThePage(t *testing.T) {
	for says, places := range map[string][]string{
		"what is needed to reach disks (SATA, NVMe, SCSI, virtio, USB, MMC, md), network ports, panels (USB serial) and the management": {
			"drivers/ata/ahci", "drivers/nvme/host/nvme", "drivers/scsi/sd_mod", "drivers/block/virtio_blk", "drivers/scsi/virtio_scsi",
			"drivers/usb/storage/usb-storage", "drivers/usb/host/xhci-pci", "drivers/mmc/host/sdhci-pci", "drivers/md/raid1",
			"drivers/net/ethernet/intel/igb/igb", "drivers/net/virtio_net", "drivers/usb/class/cdc-acm", "drivers/usb/serial/ftdi_sio",
			"drivers/char/ipmi/ipmi_si", "fs/ext4/ext4"},
		"Storage networks, PC cards, graphics, sound and wireless stay out": {
			"-drivers/scsi/qla2xxx/qla2xxx", "-drivers/scsi/lpfc/lpfc", "-drivers/nvme/host/nvme-tcp", "-drivers/scsi/pcmcia/qlogic_cs",
			"-drivers/ata/pata_pcmcia", "-drivers/gpu/drm/i915/i915", "-sound/pci/hda/snd-hda-intel",
			"-drivers/net/wireless/intel/iwlwifi/iwlwifi"},
		"and so do parallel SCSI and ATA, network chips of the time before x86-64": {"-drivers/scsi/aic7xxx/aic7xxx",
			"-drivers/scsi/sym53c8xx_2/sym53c8xx", "-drivers/ata/pata_via", "-drivers/net/ethernet/3com/3c59x",
			"-drivers/net/ethernet/8390/ne2k-pci"},
		"ports that only clouds, blade chassis and converged adapters for storage networks have": {"-drivers/net/ethernet/amazon/ena/ena",
			"-drivers/net/ethernet/google/gve/gve", "-drivers/net/ethernet/cisco/enic/enic"},
	} {
		if err := page.Says(os.DirFS("../../docs"), formatPage, says); err != nil {
			t.Error(err)
		}
		for _, p := range places {
			name, out := strings.CutPrefix(p, "-")
			file := "kernel/" + name + ".ko"
			if got := fits(file, wanted) && !fits(file, unwanted); got == out {
				t.Errorf("%s comes along: %t; %q", name, got, says)
			}
		}
	}
}

// TestDriversOfThePage: the drivers that the page says are left out, or come along with their firmware only, are.
func TestDriversOfThePage(t *testing.T) {
	for says, places := range map[string][]string{
		"(Chelsio, Solarflare, Cavium, Emulex, ConnectX-3, QLogic's older ones)": {"chelsio/cxgb4/cxgb4", "sfc/sfc", "cavium/thunder/nicvf",
			"emulex/benet/be2net", "mellanox/mlx4/mlx4_core", "qlogic/netxen/netxen_nic", "qlogic/qlcnic/qlcnic"},
		"(`bnx2`, `bnx2x`, `qed`)": {"broadcom/bnx2", "broadcom/bnx2x/bnx2x", "qlogic/qed/qed"},
	} {
		if err := page.Says(os.DirFS("../../docs"), formatPage, says); err != nil {
			t.Error(err)
		}
		for _, p := range places {
			file := "kernel/drivers/net/ethernet/" + p + ".ko"
			if !fits(file, wanted) || fits(file, unwanted) == fits(file, firmwareOnly) {
				t.Errorf("%s: %q does not speak of it", file, says)
			}
		}
	}
	want := []string{"ahci (SATA disks)", "nvme (NVMe disks)", "sd_mod (SATA, SCSI and USB disks)", "xhci_hcd (USB)",
		"usb_storage (USB disks)", "ext4 (the filesystem of units)"}
	if lacks := (&modules{}).lacking(); !slices.Equal(lacks, want) {
		t.Errorf("a kernel without drivers lacks %q", lacks)
	}
	err := page.Says(os.DirFS("../../docs"), formatPage, "a kernel without AHCI, NVMe, SCSI disks, USB, USB storage or ext4")
	if err != nil {
		t.Error(err)
	}
}

// TestArgumentsOfThePage: a locked policy may not have a choice of docs/kernel-arguments.md in its bootArgs.
func TestArgumentsOfThePage(t *testing.T) {
	rows, err := page.Rows(os.DirFS("../../docs"), "kernel-arguments.md", "# Kernel arguments")
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, row := range rows[1:] {
		name, _, _ := strings.Cut(page.Codes(row[0])[0], "=")
		switch name {
		case "real_root", "gprov.stick": // where the artifact was started from: they count
		case "FACTORY_RESTORE": // for one boot, by hand: no policy has it
		default:
			said = append(said, name)
		}
	}
	have := choices()
	slices.Sort(said)
	slices.Sort(have)
	if !slices.Equal(said, have) {
		t.Errorf("the page has %v,\nthe code %v", said, have)
	}
}
