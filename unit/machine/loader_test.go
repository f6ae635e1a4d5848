package machine

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"gprovision/hw/efi"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/unit/state"
)

// diskInMemory is a disk that can refuse writes, or return other data than was written.
type diskInMemory struct {
	Device
	b            []byte
	sector       int
	broken, lies bool
}

func (d *diskInMemory) SectorSize() int { return d.sector }
func (d *diskInMemory) Sync() error     { return nil }
func (d *diskInMemory) Close() error    { return nil }

func (d *diskInMemory) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, d.b[off:])
	if d.lies && off > 0 {
		p[0] ^= 1
	}
	return n, nil
}

func (d *diskInMemory) WriteAt(p []byte, off int64) (int, error) {
	if d.broken {
		return 0, errors.New("the disk is broken")
	}
	return copy(d.b[off:], p), nil
}

// TestInstallLoader: GRUB is written to a disk only once. If a disk cannot have it, the person sees the code for what
// the driver returned.
func TestInstallLoader(t *testing.T) {
	boot, core := make([]byte, 512), make([]byte, 2048)
	boot[0x66], boot[510], boot[511] = 0xeb, 0x55, 0xaa
	binary.LittleEndian.PutUint16(core[510:], 0x820)
	files := filepath.Join(t.TempDir(), "usr/lib/gprov/grub")
	if err := os.MkdirAll(files, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"boot.img": boot, "core.img": core} {
		if err := os.WriteFile(filepath.Join(files, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	table := layout.Table{Kind: layout.MBR, Partitions: []layout.Partition{{Number: 1, Start: layout.MiB, Size: layout.MiB}}}
	for name, tt := range map[string]struct {
		change func(*diskInMemory)
		table  layout.Table
		want   *fault.Fault
	}{
		"good":           {func(*diskInMemory) {}, table, nil},
		"large sectors":  {func(d *diskInMemory) { d.sector = 4096 }, table, fault.Disk4KnBIOS},
		"no table":       {func(*diskInMemory) {}, layout.Table{}, fault.BootSetup},
		"a broken disk":  {func(d *diskInMemory) { d.broken = true }, table, fault.DiskWrite},
		"one that lies":  {func(d *diskInMemory) { d.lies = true }, table, fault.ReadBack},
		"blank sector 0": {func(d *diskInMemory) { d.b[510] = 0 }, table, fault.BootSetup},
	} {
		d := &diskInMemory{b: make([]byte, 2*layout.MiB), sector: 512}
		d.b[510], d.b[511] = 0x55, 0xaa
		tt.change(d)
		m := &Machine{Initramfs: filepath.Join(files, "../../../..")}
		m.Open = func(string, Access) (Device, error) { return d, nil }
		err := m.InstallLoader("/dev/sda", tt.table)
		if fault.Of(err) != tt.want || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		if d.broken = true; err == nil && m.InstallLoader("/dev/sda", tt.table) != nil {
			t.Errorf("%s: it is written again", name)
		}
	}
}

// TestEnsureEntriesFault: if the firmware keeps no boot entries, the unit cannot be made bootable.
func TestEnsureEntriesFault(t *testing.T) {
	table := layout.Table{Kind: layout.GPT, Partitions: []layout.Partition{
		{Role: layout.ESP, Number: 1, Start: layout.MiB, Size: layout.MiB, UUID: "11111111-2222-3333-4444-555555555555"},
		{Role: layout.Primary, Number: 2, Start: 2 * layout.MiB, Size: layout.MiB, FSUUID: "21111111-2222-3333-4444-555555555555"},
	}}
	u := state.Unit{Main: []state.Disk{{SectorSize: 512, Table: table}}, Recovery: state.Disk{SectorSize: 512, Table: table}}
	_, err := (&Machine{}).EnsureEntries(efi.New(filepath.Join(t.TempDir(), "none")), u)
	if fault.Of(err) != fault.BootSetup || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want %v", err, fault.BootSetup)
	}
}
