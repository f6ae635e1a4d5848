package machinetest

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/host"
	"gprovision/model/bootimage"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/site"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/state"
)

// The sizes of a unit's disks.
const (
	RecoverySize = 2 * layout.GiB
	MainSize     = 8 * layout.GiB
)

// Serial is the serial number of the unit on a rig.
const Serial = "SN-0001"

// Original is the image that the unit is provisioned with, without .upd.
const Original = imagetest.Prefix + "2026-11-22.0001"

// Kind is a kind of unit.
type Kind struct {
	Firmware layout.Firmware
	OneDisk  bool // the recovery volume is on the main disk
	Mirror   bool // the main system is on an array of two disks
	Data     bool // with a data partition
}

func (k Kind) variant() platform.Variant {
	bus := []platform.Bus{platform.Virtio}
	v := platform.Variant{DevCodeName: "VIRT", NumDataDisks: 1, Disksize: MainSize, SwRaidlevel: -1}
	v.RecoveryMedia.Bus, v.MainDisk.Bus = bus, bus
	if k.OneDisk {
		v.RecoveryMedia.Layout = platform.OnMain
	}
	if k.Mirror {
		v.NumDataDisks, v.SwRaidlevel = 2, 1
	}
	if k.Data {
		v.DataPartition = &platform.DataPartition{Label: "DATA", Mount: "/data", Size: layout.GiB}
	}
	return v
}

// NewUnit returns a machine with blank disks: vda for the recovery volume, vdb for the main system, for a mirror also
// vdc, and sda, a stick that belongs to somebody.
func NewUnit(t *testing.T, k Kind) *Rig {
	t.Helper()
	r := New(t)
	r.kind = k
	if !k.OneDisk {
		r.AddDisk(block.Disk{Name: "vda", Bus: block.VirtIO, Serial: "RECOVERY", Size: RecoverySize})
	}
	r.AddDisk(block.Disk{Name: "vdb", Bus: block.VirtIO, Serial: "MAIN", Size: MainSize})
	if k.Mirror {
		r.AddDisk(block.Disk{Name: "vdc", Bus: block.VirtIO, Serial: "MAIN2", Size: MainSize})
	}
	r.AddDisk(block.Disk{Name: "sda", Bus: block.USB, Removable: true, Serial: "SOMEBODY'S", Size: layout.GiB})
	return r
}

// Fit turns m into the unit of a machine of NewUnit, with its doors, its firmware, its platform and a boot loader for
// BIOS.
func Fit(r *Rig, m *machine.Machine) {
	r.t.Helper()
	m.Doors, m.Firmware, m.Identity.Variant, m.Serial = r.Doors(), r.kind.Firmware, r.kind.variant(), Serial
	m.Sys = fstest.MapFS{"class/net": {Mode: os.ModeDir}, "block": {Mode: os.ModeDir}}
	m.Initramfs = filepath.Join(r.dir, "initramfs")
	WithLoader(r.t, m)
}

// WithLoader puts the boot loader for BIOS into m's initramfs, in the form of bootloader.Images.
func WithLoader(t *testing.T, m *machine.Machine) {
	t.Helper()
	first, second := filepath.Join(m.Initramfs, bootimage.GRUBBootPath), filepath.Join(m.Initramfs, bootimage.GRUBCorePath)
	boot, core := make([]byte, 512), make([]byte, 4096)
	boot[510], boot[511], boot[0x66] = 0x55, 0xaa, 0xeb
	binary.LittleEndian.PutUint16(core[0x1fe:], 0x820)
	if err := errors.Join(os.MkdirAll(filepath.Dir(first), 0o755), os.WriteFile(first, boot, 0o600),
		os.WriteFile(second, core, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// Machine returns the unit of a machine of NewUnit in the form that a job gets. Its policy allows unsigned images.
func Machine(r *Rig) *machine.Machine {
	r.t.Helper()
	m := &machine.Machine{Log: slog.New(slog.DiscardHandler), Site: site.Stock(), Panel: panel.New(), BootID: "b1"}
	m.Policy.AllowUnsigned = true
	Fit(r, m)
	return m
}

// Provision brings m's machine, of NewUnit, to the state after a provisioning and before the first restore. The
// recovery volume is filled and requests the restore. The main disks are blank. It returns the unit's record.
func Provision(r *Rig, m *machine.Machine) state.Unit {
	r.t.Helper()
	device, u := laidOut(r, m)
	table := u.Recovery.Table
	err := m.WriteTable(device.Path, table)
	if err == nil {
		err = m.Format(r.t.Context(), device.Path, table, []layout.Role{layout.ESP, layout.Recovery})
	}
	if err == nil {
		err = m.Mount(block.PartitionPath(device.Path, table.Find(layout.Recovery).Number), m.Places.Recovery, "ext4", host.MountOptions{})
	}
	if err != nil {
		r.t.Fatal(err)
	}
	v := state.Open(m.Places.Recovery)
	for _, d := range []string{state.ImageDir, state.LogDir, state.Dir} {
		if err := os.MkdirAll(v.Path(d), 0o700); err != nil {
			r.t.Fatal(err)
		}
	}
	request, err := state.NewRequest(state.KindRestore, state.Latest, state.ByProvisioning, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	if err := errors.Join(
		v.WriteKey(state.NewKey()),
		v.WriteHash("$2b$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"),
		os.WriteFile(v.Path(m.Site.Names.BootFile), imagetest.BzImage(7, ""), 0o600),
		os.WriteFile(v.Path(state.ImageDir, Original+".upd"), imagetest.XZ(r.t, imagetest.System(r.t, Original)), 0o600),
		m.PutRecoveryArtifact(u, v.Path()),
		v.WriteUnit(u),
		v.WriteRequest(request),
		m.Unmount(m.Places.Recovery),
	); err != nil {
		r.t.Fatal(err)
	}
	return u
}

// laidOut lays out the disks of a unit and returns its recovery device and its record.
func laidOut(r *Rig, m *machine.Machine) (block.Disk, state.Unit) {
	r.t.Helper()
	disks, err := m.Disks()
	if err != nil {
		r.t.Fatal(err)
	}
	named := map[string]block.Disk{}
	for _, d := range disks {
		named[d.Name] = d
	}
	ids := machine.NewIDs()
	u := state.Unit{Serial: m.Serial, Platform: "VIRT", Firmware: m.Firmware, ImagePrefix: imagetest.Prefix, Original: Original + ".upd"}
	main := func(name string, volume int64) {
		table, err := m.LayMain(named[name], volume, ids)
		if err != nil {
			r.t.Fatal(err)
		}
		u.Main = append(u.Main, machine.DiskRecord(named[name], table))
	}
	if r.kind.OneDisk {
		main("vdb", RecoverySize)
		u.Recovery = u.Main[0]
		return named["vdb"], u
	}
	device := named["vda"]
	table, err := layout.ForRecovery(m.Firmware, layout.Device{Size: device.Size, SectorSize: device.SectorSize}, m.Labels(), ids)
	if err != nil {
		r.t.Fatal(err)
	}
	u.Recovery = machine.DiskRecord(device, table)
	main("vdb", 0)
	if r.kind.Mirror {
		main("vdc", 0)
		u.Array = &state.Array{Level: 1, UUID: ids.UUID(), FSUUID: ids.UUID(), FSLabel: m.Labels().Primary}
		if r.kind.Data {
			u.DataArray = &state.Array{Level: 1, UUID: ids.UUID(), FSUUID: ids.UUID(), FSLabel: m.Labels().Data}
		}
	}
	return device, u
}
