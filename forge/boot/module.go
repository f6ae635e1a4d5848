package boot

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
)

// wanted are the modules that an artifact holds, as directories (with a final slash) or patterns for files below kernel/: what is needed
// to reach disks, network ports, panels and the management controller of any unit. What they depend on comes along.
var wanted = []string{
	// Disks.
	"drivers/ata/", "drivers/nvme/host/", "drivers/scsi/", "drivers/message/fusion/", "drivers/block/virtio_blk", "drivers/virtio/",
	"drivers/mmc/", "drivers/md/", "drivers/pci/controller/vmd", "drivers/hv/", "drivers/block/xen-blkfront",
	// USB.
	"drivers/usb/core/", "drivers/usb/common/", "drivers/usb/host/", "drivers/usb/storage/",
	"drivers/hid/hid", "drivers/hid/hid-generic", "drivers/hid/usbhid/usbhid", "drivers/input/evdev", "drivers/input/misc/pcspkr",
	// Filesystems.
	"fs/ext4/", "fs/fat/", "fs/exfat/", "fs/efivarfs/", "fs/nls/nls_cp437", "fs/nls/nls_ascii", "fs/nls/nls_iso8859-1", "fs/nls/nls_utf8",
	"arch/x86/crypto/crc*", "crypto/crc*", "lib/libcrc32c",
	// Network.
	"drivers/net/ethernet/", "drivers/net/virtio_net", "drivers/net/net_failover",
	"drivers/net/phy/realtek", "drivers/net/phy/broadcom", "drivers/net/phy/marvell*", "drivers/net/phy/micrel", "drivers/net/phy/smsc",
	"drivers/net/phy/microchip*", "drivers/net/phy/at803x", "drivers/net/phy/aquantia", "drivers/net/phy/ax88796b", "drivers/net/phy/intel-xway",
	"drivers/net/phy/vitesse", "drivers/net/phy/bcm7xxx", "drivers/net/phy/motorcomm",
	"drivers/net/vmxnet3/", "drivers/net/hyperv/", "drivers/net/xen-netfront", "net/packet/",
	"drivers/net/usb/usbnet", "drivers/net/usb/r815*", "drivers/net/usb/asix", "drivers/net/usb/ax88179_178a", "drivers/net/usb/aqc111",
	"drivers/net/usb/cdc_ether", "drivers/net/usb/cdc_ncm", "drivers/net/usb/smsc*", "drivers/net/usb/lan78xx", "drivers/net/usb/dm9601", "drivers/net/usb/mcs7830",
	// Platform.
	"drivers/char/ipmi/", "drivers/char/virtio_console", "drivers/char/hw_random/", "drivers/watchdog/",
	// Displays with keys, and serial consoles, on USB.
	"drivers/usb/class/cdc-acm", "drivers/usb/serial/usbserial", "drivers/usb/serial/ftdi_sio", "drivers/usb/serial/cp210x",
	"drivers/usb/serial/pl2303", "drivers/usb/serial/ch341", "drivers/usb/serial/xr_serial",
	"drivers/mfd/lpc_ich", "drivers/i2c/busses/i2c-i801", "drivers/firmware/dmi-sysfs",
}

// unwanted are parts of wanted directories that no unit needs: storage networks; cards and chips that were gone before x86-64
// machines with the firmware of section 2 of the specification came, such as parallel SCSI and 10 Mbit/s ports; ports that
// only clouds, blade chassis and converged adapters for storage networks have; PC cards; tests. Options.Modules brings any of them
// back.
var unwanted = []string{
	// Storage networks and what else is no local disk.
	"drivers/scsi/bfa/", "drivers/scsi/be2iscsi/", "drivers/scsi/bnx2fc/", "drivers/scsi/bnx2i/", "drivers/scsi/csiostor/", "drivers/scsi/cxgbi/",
	"drivers/scsi/elx/", "drivers/scsi/fcoe/", "drivers/scsi/fnic/", "drivers/scsi/libfc/", "drivers/scsi/lpfc/", "drivers/scsi/pcmcia/",
	"drivers/scsi/qedf/", "drivers/scsi/qedi/", "drivers/scsi/qla2xxx/", "drivers/scsi/qla4xxx/", "drivers/scsi/snic/", "drivers/scsi/scsi_debug",
	"drivers/scsi/*iscsi*", "drivers/scsi/st", "drivers/scsi/ch", "drivers/scsi/sr_mod", "drivers/scsi/ses", "drivers/scsi/scsi_transport_srp",
	"drivers/scsi/device_handler/", "drivers/message/fusion/mptctl", "drivers/message/fusion/mptfc", "drivers/message/fusion/mptlan", "drivers/scsi/pm8001/",
	"drivers/nvme/host/nvme-rdma", "drivers/nvme/host/nvme-tcp", "drivers/nvme/host/nvme-fc", "drivers/nvme/host/nvme-fabrics",
	"drivers/md/bcache/", "drivers/md/persistent-data/", "drivers/md/dm-*", "drivers/md/raid1-*", "drivers/md/md-cluster",
	// Parallel SCSI, parallel ATA, and RAID cards of that time.
	"drivers/scsi/aic7xxx/", "drivers/scsi/aic94xx/", "drivers/scsi/sym53c8xx_2/", "drivers/scsi/esas2r/", "drivers/scsi/ipr", "drivers/scsi/qla1280",
	"drivers/scsi/advansys", "drivers/scsi/BusLogic", "drivers/scsi/dc395x", "drivers/scsi/atp870u", "drivers/scsi/initio", "drivers/scsi/wd719x",
	"drivers/scsi/qlogicfas*", "drivers/scsi/am53c974", "drivers/scsi/esp_scsi", "drivers/scsi/dmx3191d", "drivers/scsi/a100u2w", "drivers/scsi/fdomain*", "drivers/scsi/imm",
	"drivers/scsi/ppa", "drivers/scsi/ips", "drivers/scsi/megaraid", "drivers/scsi/megaraid/megaraid_mbox", "drivers/scsi/megaraid/megaraid_mm",
	"drivers/scsi/myrb", "drivers/scsi/myrs", "drivers/scsi/pmcraid", "drivers/scsi/3w-xxxx", "drivers/scsi/stex", "drivers/scsi/xen-scsifront",
	"drivers/ata/pata_[^a]*", "drivers/ata/pata_a[^c]*",
	// Ports.
	"drivers/net/ethernet/3com/", "drivers/net/ethernet/8390/", "drivers/net/ethernet/adaptec/", "drivers/net/ethernet/alteon/", "drivers/net/ethernet/amazon/",
	"drivers/net/ethernet/amd/[^x]*", "drivers/net/ethernet/brocade/", "drivers/net/ethernet/cisco/", "drivers/net/ethernet/dec/",
	"drivers/net/ethernet/dlink/", "drivers/net/ethernet/fealnx", "drivers/net/ethernet/fujitsu/", "drivers/net/ethernet/google/",
	"drivers/net/ethernet/huawei/", "drivers/net/ethernet/intel/ixgb/", "drivers/net/ethernet/intel/e100", "drivers/net/ethernet/mellanox/mlxsw/",
	"drivers/net/ethernet/microsoft/", "drivers/net/ethernet/myricom/", "drivers/net/ethernet/natsemi/", "drivers/net/ethernet/neterion/",
	"drivers/net/ethernet/netronome/", "drivers/net/ethernet/nvidia/", "drivers/net/ethernet/packetengines/", "drivers/net/ethernet/sis/", "drivers/net/ethernet/silan/",
	"drivers/net/ethernet/smsc/", "drivers/net/ethernet/sun/", "drivers/net/ethernet/tehuti/", "drivers/net/ethernet/ti/", "drivers/net/ethernet/xircom/",
	"drivers/net/ethernet/cavium/", "drivers/net/ethernet/chelsio/", "drivers/net/ethernet/emulex/", "drivers/net/ethernet/intel/fm10k/",
	"drivers/net/ethernet/mellanox/mlx4/", "drivers/net/ethernet/qlogic/netxen/", "drivers/net/ethernet/qlogic/qlcnic/",
	"drivers/net/ethernet/qlogic/qla3xxx", "drivers/net/ethernet/sfc/", "drivers/net/ethernet/agere/", "drivers/net/ethernet/rdc/",
	"drivers/net/ethernet/broadcom/b44", "drivers/net/ethernet/broadcom/cnic", "drivers/net/ethernet/micrel/ksz884x",
	// Cards and the rest.
	"drivers/mmc/core/mmc_test", "drivers/mmc/core/sdio_uart", "drivers/mmc/host/vub300", "drivers/mmc/host/ushc", "drivers/mmc/host/tifm_sd",
	"drivers/mmc/host/cb710-mmc", "drivers/mmc/host/sdricoh_cs", "drivers/mmc/host/wbsd", "drivers/mmc/host/toshsd", "drivers/mmc/host/via-sdmmc",
	"drivers/usb/host/sl811*", "drivers/usb/host/u132*", "drivers/usb/host/isp116x*", "drivers/usb/host/isp1362*", "drivers/usb/host/fotg210*",
	"drivers/usb/host/max3421*", "drivers/usb/host/oxu210hp*", "drivers/usb/host/r8a66597*", "drivers/usb/storage/ums-*",
	"drivers/watchdog/pcwd*", "drivers/watchdog/wdt_pci", "drivers/watchdog/mei_wdt", "crypto/tcrypt",
}

// firmwareOnly are modules that do not drive their devices without firmware from a file (their probe functions end with the error of
// request_firmware). They belong into an artifact only if the root filesystem has one of the files that they name.
var firmwareOnly = []string{"drivers/net/ethernet/broadcom/bnx2", "drivers/net/ethernet/broadcom/bnx2x/", "drivers/net/ethernet/qlogic/qed/",
	"drivers/net/ethernet/qlogic/qede/"}

// modules chooses the modules of one kernel.
type modules struct {
	root  *rootFS
	dir   string              // lib/modules/RELEASE
	files map[string]string   // by name, below dir: those that depmod prefers, which may lie outside of kernel/
	place map[string]string   // the path below kernel/ by which the lists judge a module: of the kernel's own one of that name; empty: none
	added map[string]drives   // what the modules drive that the kernel has no one of its own for
	needs map[string][]string // names
	soft  map[string][]string // names and aliases, those before and after alike
	named map[string][]string // modules by alias, for aliases without wildcards
	lines map[string][]string // the lines of modules.alias and modules.softdep, by file
	built []byte
}

// moduleFile is a module for the initramfs, or a file of their index.
type moduleFile struct {
	path string // below the directory of modules
	data []byte
}

func readModules(root *rootFS, release string) (*modules, error) {
	m := &modules{root: root, dir: "lib/modules/" + release, files: map[string]string{}, place: map[string]string{}, added: map[string]drives{},
		needs: map[string][]string{}, soft: map[string][]string{}, named: map[string][]string{}, lines: map[string][]string{}}
	dep, err := root.read(m.dir+"/modules.dep", "linux-image-"+release)
	if err != nil {
		return nil, err
	}
	for _, line := range split(dep) {
		file, needs, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("parse modules.dep: line %q", line)
		}
		file = strings.TrimPrefix(strings.TrimPrefix(file, "/usr"), "/"+m.dir+"/") // as older ones of depmod wrote it
		name := moduleName(file)
		m.files[name] = file
		for _, n := range strings.Fields(needs) {
			m.needs[name] = append(m.needs[name], moduleName(n))
		}
	}
	for _, f := range []string{"modules.alias", "modules.softdep"} {
		b, err := root.read(m.dir+"/"+f, "")
		if err != nil {
			continue
		}
		for _, line := range split(b) {
			m.lines[f] = append(m.lines[f], line)
			w := strings.Fields(line)
			switch {
			case len(w) == 3 && w[0] == "alias":
				m.named[normal(w[1])] = append(m.named[normal(w[1])], normal(w[2]))
			case len(w) > 2 && w[0] == "softdep":
				m.soft[normal(w[1])] = append(m.soft[normal(w[1])], w[2:]...)
			}
		}
	}
	if m.built, err = root.read(m.dir+"/modules.builtin", "linux-image-"+release); err != nil {
		return nil, err
	}
	return m, m.findPlaces()
}

// drives is what a module drives.
type drives string

// What modules drive, as far as it matters here.
const (
	drivesDisks drives = "disks"
	drivesPorts drives = "network ports"
	drivesOther drives = ""
)

// findPlaces finds out how modules are judged that lie outside of kernel/, where DKMS, driver packages and weak-updates put theirs: by
// the place of the kernel's own module of that name, or by what they drive.
func (m *modules) findPlaces() error {
	var outside []string
	for name, file := range m.files {
		if m.place[name] = file; !strings.HasPrefix(file, "kernel/") {
			outside = append(outside, name)
		}
	}
	if len(outside) == 0 {
		return nil
	}
	slices.Sort(outside)
	real, _, err := m.root.resolve(m.dir)
	if err != nil {
		return err
	}
	own := map[string]string{}
	for p := range m.root.entries {
		if rest, ok := strings.CutPrefix(p, real+"/"); ok && strings.HasPrefix(rest, "kernel/") && strings.Contains(path.Base(rest), ".ko") {
			own[moduleName(rest)] = rest
		}
	}
	for _, name := range outside {
		if m.place[name] = own[name]; own[name] != "" {
			continue
		}
		data, err := m.plain(m.files[name])
		if err != nil {
			return err
		}
		if m.added[name], err = whatDrives(data); err != nil {
			return fmt.Errorf("read module %s: %w", m.files[name], err)
		}
	}
	return nil
}

// diskCalls and portCalls are functions of the kernel that only drivers of disk controllers and of wired network ports call, radioCalls those of
// drivers of wireless ones and of other buses that look like ports.
var (
	diskCalls = []string{"scsi_host_alloc", "scsi_add_host_with_dma", "ata_host_alloc", "ata_host_alloc_pinfo", "ata_host_activate", "ata_host_register",
		"ata_pci_bmdma_init_one", "ata_pci_sff_init_one", "ahci_host_activate", "nvme_init_ctrl", "mmc_alloc_host", "mmc_add_host", "sdhci_alloc_host", "sdhci_add_host",
		"device_add_disk", "blk_mq_alloc_tag_set", "__blk_mq_alloc_disk", "__blk_alloc_disk", "usb_stor_probe1", "ufshcd_alloc_host"}
	portCalls = []string{"register_netdev", "register_netdevice", "alloc_etherdev_mqs", "devm_alloc_etherdev_mqs", "alloc_netdev_mqs", "usbnet_probe",
		"phy_driver_register", "phy_drivers_register", "__mdiobus_register"}
	radioCalls = []string{"ieee80211_alloc_hw_nm", "ieee80211_register_hw", "wiphy_new_nm", "wiphy_register", "cfg80211_scan_done", "alloc_candev_mqs", "register_candev", "wwan_register_ops",
		"drm_dev_register", "drm_dev_alloc", "hci_register_dev"}
	// hardware are the kinds of aliases by which the kernel asks for the driver of a device.
	hardware = []string{"pci:", "usb:", "acpi", "virtio:", "vmbus:", "platform:", "mdio:", "of:", "sdio:", "xen:", "scsi:", "nvme", "pnp:", "dmi"}
)

// whatDrives says what a module drives, by what it calls and by the devices that it asks for.
func whatDrives(module []byte) (drives, error) {
	info, err := modinfo(module)
	if err != nil {
		return drivesOther, err
	}
	if !slices.ContainsFunc(info["alias"], isHardware) {
		return drivesOther, nil
	}
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return drivesOther, err
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return drivesOther, err
	}
	calls := map[string]bool{}
	for _, s := range symbols {
		if s.Section == elf.SHN_UNDEF {
			calls[s.Name] = true
		}
	}
	any := func(names []string) bool { return slices.ContainsFunc(names, func(n string) bool { return calls[n] }) }
	switch {
	case any(radioCalls):
		return drivesOther, nil
	case any(diskCalls):
		return drivesDisks, nil
	case any(portCalls):
		return drivesPorts, nil
	}
	return drivesOther, nil
}

func isHardware(alias string) bool {
	return slices.ContainsFunc(hardware, func(p string) bool { return strings.HasPrefix(alias, p) })
}

func split(b []byte) []string {
	var out []string
	for _, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return out
}

func normal(name string) string { return strings.ReplaceAll(name, "-", "_") }

func moduleName(file string) string {
	base := path.Base(file)
	if i := strings.Index(base, ".ko"); i >= 0 {
		base = base[:i]
	}
	return normal(base)
}

// fits reports whether a module's file is meant by a list: by a directory, or by a pattern of path.Match for its name.
func fits(file string, list []string) bool {
	stem, _, _ := strings.Cut(strings.TrimPrefix(file, "kernel/"), ".ko")
	stem = normal(stem)
	for _, w := range list {
		w = normal(w)
		if strings.HasSuffix(w, "/") {
			if strings.HasPrefix(stem, w) {
				return true
			}
			continue
		}
		if ok, err := path.Match(w, stem); err == nil && ok {
			return true
		}
	}
	return false
}

// choose returns the names of the modules that belong into an artifact, with all that they need, sorted. own are further
// directories and patterns, as in the lists above, that the artifact must have; one that no module fits is an error.
func (m *modules) choose(own []string) ([]string, error) {
	chosen := map[string]bool{}
	var add func(name string)
	add = func(name string) {
		name = normal(name)
		if chosen[name] {
			return
		}
		if _, ok := m.files[name]; !ok {
			for _, n := range m.named[name] {
				add(n)
			}
			return
		}
		chosen[name] = true
		for _, n := range m.needs[name] {
			add(n)
		}
		for _, n := range m.soft[name] {
			if n != "pre:" && n != "post:" {
				add(n)
			}
		}
	}
	for name, place := range m.place {
		switch {
		case fits(m.files[name], own), place != "" && fits(place, own):
			add(name)
		case place == "":
			if m.added[name] != drivesOther {
				add(name)
			}
		case fits(place, unwanted), !fits(place, wanted):
		case fits(place, firmwareOnly):
			usable, err := m.hasFirmware(name)
			if err != nil {
				return nil, err
			}
			if usable {
				add(name)
			}
		default:
			add(name)
		}
	}
	for _, w := range own {
		found := func(file string) bool { return file != "" && fits(file, []string{w}) }
		if !slices.ContainsFunc(slices.Collect(maps.Values(m.files)), found) && !slices.ContainsFunc(slices.Collect(maps.Values(m.place)), found) {
			return nil, fmt.Errorf("no module of the root filesystem fits %s below %s or its kernel/", w, m.dir)
		}
	}
	return slices.Sorted(maps.Keys(chosen)), nil
}

// hasFirmware reports whether the root filesystem has a file of the firmware that a module of the list firmwareOnly, or one that it
// needs, names.
func (m *modules) hasFirmware(name string) (bool, error) {
	for _, n := range append([]string{name}, m.needs[name]...) {
		file := m.files[n]
		if !fits(m.place[n], firmwareOnly) {
			continue
		}
		data, err := m.plain(file)
		if err != nil {
			return false, err
		}
		blobs, err := firmwareNames(data)
		if err != nil {
			return false, fmt.Errorf("read module %s: %w", file, err)
		}
		for _, blob := range blobs {
			if p, _ := m.firmware(blob); p != "" {
				return true, nil
			}
		}
	}
	return false, nil
}

// firmware returns the path and content of a firmware file of the root filesystem, which may be compressed. There is none: "".
func (m *modules) firmware(blob string) (string, []byte) {
	for _, suffix := range []string{"", ".xz", ".zst"} {
		p := path.Join("lib/firmware", blob) + suffix
		if b, err := m.root.read(p, ""); err == nil {
			return p, b
		}
	}
	return "", nil
}

// plain returns a module's file, decompressed.
func (m *modules) plain(file string) ([]byte, error) {
	raw, err := m.root.read(m.dir+"/"+file, "")
	if err != nil {
		return nil, err
	}
	data, err := plainModule(file, raw)
	if err != nil {
		return nil, fmt.Errorf("unpack module %s: %w", file, err)
	}
	return data, nil
}

// load returns the chosen modules, not compressed, and the firmware files that they name and the root filesystem has.
func (m *modules) load(names []string) (files []moduleFile, firmware []library, err error) {
	have := map[string]bool{}
	for _, name := range names {
		file := m.files[name]
		data, err := m.plain(file)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, moduleFile{path: plainName(file), data: data})
		blobs, err := firmwareNames(data)
		if err != nil {
			return nil, nil, fmt.Errorf("read module %s: %w", file, err)
		}
		for _, blob := range blobs {
			if p, b := m.firmware(blob); p != "" && !have[p] {
				have[p] = true
				firmware = append(firmware, library{to: p, from: p, data: b})
			}
		}
	}
	return files, firmware, nil
}

// index returns the files that hw/host reads, cut down to the chosen modules.
func (m *modules) index(names []string) []moduleFile {
	chosen := map[string]bool{}
	var dep, soft, alias bytes.Buffer
	for _, name := range names {
		chosen[name] = true
	}
	for _, name := range names {
		dep.WriteString(plainName(m.files[name]) + zstdSuffix + ":")
		for _, n := range m.needs[name] {
			dep.WriteString(" " + plainName(m.files[n]) + zstdSuffix)
		}
		dep.WriteByte('\n')
	}
	for _, line := range m.lines["modules.softdep"] {
		if w := strings.Fields(line); len(w) > 2 && chosen[normal(w[1])] {
			soft.WriteString(line + "\n")
		}
	}
	for _, line := range m.lines["modules.alias"] {
		if w := strings.Fields(line); len(w) == 3 && chosen[normal(w[2])] {
			alias.WriteString(line + "\n")
		}
	}
	return []moduleFile{{"modules.dep", dep.Bytes()}, {"modules.softdep", soft.Bytes()}, {"modules.alias", alias.Bytes()}, {"modules.builtin", m.built}}
}

// plainName is the name of a module's file once it is not compressed.
func plainName(file string) string {
	stem, _, _ := strings.Cut(file, ".ko")
	return stem + ".ko"
}

// maxModule bounds what a compressed module may grow to, bytes.
const maxModule = 256 << 20

func plainModule(name string, b []byte) ([]byte, error) {
	var r io.Reader
	switch path.Ext(name) {
	case ".ko":
		return b, nil
	case ".gz":
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		r = z
	case ".xz":
		z, err := xz.NewReader(bufio.NewReader(bytes.NewReader(b)), 0)
		if err != nil {
			return nil, err
		}
		r = z
	case ".zst":
		z, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		r = z
	default:
		return nil, errors.New("compression is not known")
	}
	out, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err == nil && len(out) > maxModule {
		err = fmt.Errorf("more than %d bytes", maxModule)
	}
	return out, err
}

// firmwareNames returns the files that a module may ask for.
func firmwareNames(module []byte) ([]string, error) {
	info, err := modinfo(module)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(info["firmware"], func(name string) bool { return strings.Contains(name, "..") }), nil
}

// modinfo returns what a module says of itself in its section .modinfo: "key=value", ended by zero bytes.
func modinfo(module []byte) (map[string][]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string][]string{}
	s := f.Section(".modinfo")
	if s == nil {
		return out, nil
	}
	b, err := s.Data()
	if err != nil {
		return nil, err
	}
	for _, v := range strings.Split(string(b), "\x00") {
		if key, value, ok := strings.Cut(v, "="); ok {
			out[key] = append(out[key], value)
		}
	}
	return out, nil
}
