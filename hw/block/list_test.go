package block_test

import (
	"io/fs"
	"os"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"gprovision/hw/block"
)

// tree is a sysfs with a link in /sys/block for each device.
func tree(devices map[string]map[string]string) fstest.MapFS {
	m := fstest.MapFS{"block": {Mode: fs.ModeDir | 0o755}}
	for dev, files := range devices {
		name := dev[len(dev)-len(lastName(dev)):]
		m["block/"+name] = &fstest.MapFile{Mode: fs.ModeSymlink | 0o777, Data: []byte("../" + dev)}
		for f, data := range files {
			m[dev+"/"+f] = &fstest.MapFile{Data: []byte(data), Mode: 0o444}
		}
	}
	return m
}

func lastName(p string) string {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i] == '/' {
			return p[i+1:]
		}
	}
	return p
}

func machine() fstest.MapFS {
	m := tree(map[string]map[string]string{
		"devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda": {
			"size": "41943040\n", "queue/logical_block_size": "512\n", "queue/physical_block_size": "4096\n", "queue/rotational": "1\n",
			"removable": "0\n", "ro": "0\n", "device/model": "ST20000NM007D-3D\n", "device/vendor": "ATA     \n",
			"device/vpd_pg80": "\x00\x80\x00\x08ZVT0A1B2trailing", "device/wwid": "naa.5000c500a1b2c3d4\n",
			"sda1/partition": "1\n", "sda1/start": "2048\n", "sda1/size": "8192\n",
			"sda10/partition": "10\n", "sda10/start": "20480\n", "sda10/size": "16\n",
			"sda2/partition": "2\n", "sda2/start": "10240\n", "sda2/size": "4096\n",
			"stat": "0 0\n", "holders/x": "",
		},
		"devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/host4/target4:0:0/4:0:0:0/block/sdb": {
			"size": "15728640\n", "queue/logical_block_size": "512\n", "removable": "1\n", "ro": "1\n",
			"device/model": "Ultra\x1b[31m  Fit\n", "device/vendor": "SanDisk\n",
		},
		"devices/pci0000:00/0000:00:14.0/usb1/1-3/1-3:1.0/host5/target5:0:0/5:0:0:0/block/sdc": {
			"size": "0\n", "device/model": "Card Reader\n",
		},
		"devices/pci0000:00/0000:00:05.0/virtio3/host6/target6:0:0/6:0:0:1/block/sdd": {"size": "2048\n", "device/vendor": "QEMU\n"},
		"devices/pci0000:00/0000:00:1d.0/0000:01:00.0/nvme/nvme0/nvme0n1":             {"size": "2048\n", "queue/logical_block_size": "4096\n", "queue/physical_block_size": "4096\n", "wwid": "eui.0025385b71b0\n", "device/model": "SSD 980\n", "device/serial": "S649\n", "nsid": "1\n", "nvme0n1p1/partition": "1\n", "nvme0n1p1/start": "256\n", "nvme0n1p1/size": "1024\n"},
		"devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n1":                         {"size": "2048\n", "device/model": "Multi\n", "device/serial": "M1\n"},
		"devices/pci0000:00/0000:00:1e.0/0000:02:00.0/nvme/nvme1/nvme1c1n1":           {"size": "2048\n", "hidden": "1\n"},
		"devices/pci0000:00/0000:00:02.0/virtio1/block/vda":                           {"size": "4096\n", "serial": "main-disk\n", "device/vendor": "0x1af4\n"},
		"devices/platform/soc/mmc_host/mmc0/mmc0:0001/block/mmcblk0":                  {"size": "4096\n", "device/name": "DG4016\n", "device/serial": "0xdeadbeef\n"},
		"devices/platform/soc/mmc_host/mmc0/mmc0:0001/block/mmcblk0/mmcblk0boot0":     {"size": "4096\n"},
		"devices/pci0000:00/0000:00:1f.2/ata2/host1/target1:0:0/1:0:0:0/block/sr0":    {"size": "4096\n"},
		"devices/virtual/block/loop0":                                                 {"size": "4096\n"},
		"devices/virtual/block/zram0":                                                 {"size": "4096\n"},
	})
	m["devices/pci0000:00/0000:00:14.0/usb1/1-2/idVendor"] = &fstest.MapFile{Data: []byte("0781\n")}
	m["devices/pci0000:00/0000:00:14.0/usb1/1-2/serial"] = &fstest.MapFile{Data: []byte("4C53000\n")}
	m["class/ata_port/ata1/port_no"] = &fstest.MapFile{Data: []byte("3\n")}
	return m
}

// TestIDs: the names of udev.
func TestIDs(t *testing.T) {
	for _, tc := range []struct {
		d    block.Disk
		want []string
	}{
		{block.Disk{Bus: block.NVMe, Model: "SSD 980", Serial: "S649", WWN: "eui.0025385b71b0"}, []string{"nvme-SSD_980_S649", "nvme-eui.0025385b71b0"}},
		{block.Disk{Bus: block.VirtIO, Serial: "main"}, []string{"virtio-main"}},
		{block.Disk{Bus: block.VirtIO}, nil},
		{block.Disk{Bus: block.SATA, Model: "QEMU HARDDISK", Serial: "MAIN", WWN: "naa.5000c500a1b2c3d4"}, []string{"ata-QEMU_HARDDISK_MAIN", "wwn-0x5000c500a1b2c3d4"}},
		{block.Disk{Bus: block.SCSI, WWN: "naa.5000c500a1b2c3d4"}, []string{"wwn-0x5000c500a1b2c3d4", "scsi-35000c500a1b2c3d4"}},
	} {
		if diff := cmp.Diff(tc.want, tc.d.IDs()); diff != "" {
			t.Errorf("%s: %s", tc.d.Bus, diff)
		}
	}
}

func TestList(t *testing.T) {
	got, err := block.List(machine())
	if err != nil {
		t.Fatal(err)
	}
	want := []block.Disk{
		{Name: "mmcblk0", Path: "/dev/mmcblk0", Size: 2 << 20, SectorSize: 512, PhysicalSectorSize: 512, Bus: block.MMC, Model: "DG4016", Serial: "0xdeadbeef"},
		{Name: "nvme0n1", Path: "/dev/nvme0n1", Size: 1 << 20, SectorSize: 4096, PhysicalSectorSize: 4096, Bus: block.NVMe, Model: "SSD 980", Serial: "S649", WWN: "eui.0025385b71b0", Ports: []string{"pci-0000:01:00.0-nvme-1"},
			Partitions: []block.Partition{{Name: "nvme0n1p1", Path: "/dev/nvme0n1p1", Number: 1, Start: 128 << 10, Size: 512 << 10}}},
		{Name: "nvme1n1", Path: "/dev/nvme1n1", Size: 1 << 20, SectorSize: 512, PhysicalSectorSize: 512, Bus: block.NVMe, Model: "Multi", Serial: "M1"},
		{Name: "sda", Path: "/dev/sda", Size: 20 << 30, SectorSize: 512, PhysicalSectorSize: 4096, Bus: block.SATA, Model: "ST20000NM007D-3D", Vendor: "ATA", Ports: []string{"pci-0000:00:1f.2-ata-3", "pci-0000:00:1f.2-ata-3.0"},
			Serial: "ZVT0A1B2", WWN: "naa.5000c500a1b2c3d4", Rotational: true, Partitions: []block.Partition{
				{Name: "sda1", Path: "/dev/sda1", Number: 1, Start: 1 << 20, Size: 4 << 20},
				{Name: "sda2", Path: "/dev/sda2", Number: 2, Start: 5 << 20, Size: 2 << 20},
				{Name: "sda10", Path: "/dev/sda10", Number: 10, Start: 10 << 20, Size: 8 << 10},
			}},
		{Name: "sdb", Path: "/dev/sdb", Size: 7680 << 20, SectorSize: 512, PhysicalSectorSize: 512, Bus: block.USB, Model: "Ultra[31m Fit", Vendor: "SanDisk", Serial: "4C53000", Removable: true, ReadOnly: true,
			Ports: []string{"pci-0000:00:14.0-usb-0:2:1.0-scsi-0:0:0:0"}},
		{Name: "sdd", Path: "/dev/sdd", Size: 1 << 20, SectorSize: 512, PhysicalSectorSize: 512, Bus: block.SCSI, Vendor: "QEMU", Ports: []string{"pci-0000:00:05.0-scsi-0:0:0:1"}},
		{Name: "vda", Path: "/dev/vda", Size: 2 << 20, SectorSize: 512, PhysicalSectorSize: 512, Bus: block.VirtIO, Serial: "main-disk", Ports: []string{"pci-0000:00:02.0", "virtio-pci-0000:00:02.0"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got, err = block.List(machine(), "loop")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want)+1 || got[0].Name != "loop0" {
		t.Errorf("loop0 is not listed: %v", got)
	}
}

// TestListHere takes the sysfs of the machine that runs the test.
func TestListHere(t *testing.T) {
	if _, err := os.Stat("/sys/block"); err != nil {
		skip(t, "no sysfs")
	}
	disks, err := block.List(os.DirFS("/sys"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range disks {
		t.Logf("%+v", d)
	}
}

func TestPartitionPath(t *testing.T) {
	for disk, want := range map[string]string{"/dev/sda": "/dev/sda3", "/dev/nvme0n1": "/dev/nvme0n1p3", "/dev/mmcblk0": "/dev/mmcblk0p3", "/dev/vdb": "/dev/vdb3"} {
		if got := block.PartitionPath(disk, 3); got != want {
			t.Errorf("%s: %s", disk, got)
		}
	}
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("GPROV_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}
