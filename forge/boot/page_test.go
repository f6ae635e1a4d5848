package boot

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"gprovision/model/bootimage"
	"gprovision/model/naming"
	"gprovision/model/page"
	"gprovision/model/platform"
)

const formatPage = "formats/boot-artifact.md"

// withAll builds an artifact that has all that one may have.
func withAll(t *testing.T) (Report, map[string]bootimage.File) {
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
	r, b := build(t, o)
	return r, unpacked(t, b)
}

// TestInitramfsOfThePage: each path that docs/formats/boot-artifact.md lists is in an artifact that has all, no file lies elsewhere but
// libraries, and build.json lists what the page says.
func TestInitramfsOfThePage(t *testing.T) {
	rep, files := withAll(t)
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
