package medium

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gprovision/hw/block"
	"gprovision/hw/host"
	"gprovision/model/layout"
	"gprovision/model/signature"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
)

// ports are the USB ports of a machine in memory.
type ports struct {
	*machinetest.Rig
	t   *testing.T
	m   *machine.Machine
	key signature.PrivateKey
}

func newPorts(t *testing.T) ports {
	t.Helper()
	r := machinetest.NewUnit(t, machinetest.Kind{Firmware: layout.UEFI})
	p := ports{r, t, machinetest.Machine(r), imagetest.New(t).Key}
	p.m.Policy.AllowUnsigned, p.m.Keys = false, []signature.PublicKey{p.key.Public()}
	return p
}

// part is a partition of a plugged-in disk. It has ext4 if the identifier is one of ext4, and FAT otherwise.
type part struct{ kind, fsUUID, label string }

// plug plugs in a disk.
func (p ports) plug(d block.Disk, parts ...part) block.Disk {
	p.t.Helper()
	d.Size = layout.GiB
	d.Path = p.AddDisk(d)
	table := layout.Table{Kind: layout.GPT, UUID: machine.NewIDs().UUID()}
	for i, q := range parts {
		role := layout.ESP // FAT
		if len(q.fsUUID) > 9 {
			role = layout.Data
		}
		table.Partitions = append(table.Partitions, layout.Partition{
			Number: i + 1, Start: layout.MiB + int64(i)*100*layout.MiB, Size: 100 * layout.MiB, Type: q.kind, UUID: machine.NewIDs().UUID(),
			Role: role, FSUUID: q.fsUUID, FSLabel: q.label,
		})
	}
	err := p.m.WriteTable(d.Path, table)
	if err == nil {
		err = p.m.Format(p.t.Context(), d.Path, table, []layout.Role{layout.ESP, layout.Data})
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return d
}

// image writes an image to the root of a filesystem.
func (p ports) image(fsUUID, base string) {
	p.t.Helper()
	dir := p.Volume(fsUUID)
	if dir == "" {
		p.t.Fatalf("no disk carries %s", fsUUID)
	}
	s := stick{p.t, dir, p.key}
	s.image(layout.EmergencyPrefix+base, base, p.key)
}

// look switches the machine on and returns its disks.
func (p ports) look(fault func(n int, call string) error) (Finder, []block.Disk) {
	p.t.Helper()
	p.Start(fault)
	disks, err := p.m.Disks()
	if err != nil {
		p.t.Fatal(err)
	}
	return Finder{Eyes: machine.EyesOf(p.m), Names: p.m.Site.Names}, disks
}

// left checks that nothing is still mounted, and that no directory is left.
func (p ports) left() {
	p.t.Helper()
	if list, err := os.ReadDir(p.m.Places.Medium); err != nil && !errors.Is(err, os.ErrNotExist) || len(list) > 0 {
		p.t.Errorf("left are %v, %v", list, err)
	}
}

const (
	onExt4   = "0f4bd1a3-0000-4000-8000-00000000000" // identifier of an ext4 filesystem, without its last digit
	newest   = prefix + "2026-11-22.0001.upd"
	usbImage = prefix + "2026-11-21.0001.upd"
)

// TestFind: media are plugged-in disks with an image for this unit, on FAT or ext4. The unit's own disks do not
// count, nor filesystems with the label of one of its volumes. Nothing is written to any disk.
func TestFind(t *testing.T) {
	p := newPorts(t)
	usb := func(name string) block.Disk { return block.Disk{Name: name, Bus: block.USB} }
	p.plug(usb("sdb"), part{layout.TypeData, "0000-000B", "PHOTOS"})
	p.image("0000-000B", newest)
	s := stick{t, p.Volume("0000-000B"), p.key}
	s.write(layout.EmergencyPrefix+"command.json", []byte("{}"))
	p.plug(usb("sdc"), part{layout.TypeStick, "0000-001C", "STICK"}, part{layout.TypeData, "0000-002C", layout.BundleLabel})
	p.image("0000-001C", usbImage)
	p.plug(block.Disk{Name: "sdd", Bus: block.SCSI, Removable: true}, part{layout.TypeLinux, onExt4 + "d", "DISK"})
	p.image(onExt4+"d", usbImage)
	for _, d := range []struct{ name, digit, label string }{
		{"sde", "e", p.m.Site.Names.Recovery}, {"sdf", "f", p.m.Site.Names.Primary}, {"sdg", "6", "MINE"}, {"sdh", "7", "BROKEN"},
	} {
		p.plug(usb(d.name), part{layout.TypeLinux, onExt4 + d.digit, d.label})
		p.image(onExt4+d.digit, newest)
	}
	p.plug(block.Disk{Name: "sdi", Bus: block.SATA}, part{layout.TypeData, "0000-000A", "INSIDE"})
	p.image("0000-000A", newest)
	p.plug(usb("sdj"), part{layout.TypeData, "0000-0009", "EMPTY"})
	whole := p.AddDisk(block.Disk{Name: "sdk", Bus: block.USB, Size: layout.GiB}) // without a table
	if err := p.m.MakeExt4(t.Context(), whole, "WHOLE", onExt4+"2"); err != nil {
		t.Fatal(err)
	}
	dir, done, err := mount(t.TempDir(), func(dir string) error { return p.m.Mount(whole, dir, "ext4", host.MountOptions{}) }, p.m.Unmount)
	if err != nil {
		t.Fatal(err)
	}
	stick{t, dir, p.key}.image(layout.EmergencyPrefix+newest, newest, p.key)
	if err := done(); err != nil {
		t.Fatal(err)
	}

	f, disks := p.look(func(_ int, call string) error {
		if strings.HasPrefix(call, "mount /dev/sdh1") {
			return syscall.EIO
		}
		return nil
	})
	found, notes := f.Find(t.Context(), disks, map[string]bool{"sdg": true})
	var got []string
	for _, m := range found {
		line := filepath.Base(m.Path) + " " + m.Type
		if m.Stick {
			line += " stick"
		}
		for _, file := range m.Files {
			line += " " + file.Name.String()
		}
		for _, r := range m.Refused {
			line += " not " + r.File
		}
		got = append(got, line)
	}
	want := []string{
		"sdb1 vfat " + newest + " not " + layout.EmergencyPrefix + "command.json", "sdc1 vfat stick " + usbImage, "sdd1 ext4 " + usbImage,
		"sdk ext4 " + newest,
	}
	if !slices.Equal(got, want) {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "sdh1") {
		t.Errorf("notes %q", notes)
	}
	if w := p.Written(); len(w) > 0 {
		t.Errorf("written to are %s", w)
	}
	p.left()

	// The image of a medium is read in place.
	dir, done, err = Mount(f.Eyes, found[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(found[0].Files[0].Image(dir).Path); err != nil {
		t.Error(err)
	}
	if err := done(); err != nil {
		t.Error(err)
	}
	p.left()
	p.Fail(func(_ int, call string) error {
		if strings.HasPrefix(call, "mount") {
			return syscall.ENODEV
		}
		return nil
	})
	if found, notes := f.Find(t.Context(), disks, nil); len(found) > 0 || len(notes) == 0 {
		t.Errorf("without a driver: %+v, %q", found, notes)
	}
}

// TestSticks: the sticks are those of gprov stick make whose partitions the kernel knows. A support bundle goes to
// the partition meant for it, and to no other stick.
func TestSticks(t *testing.T) {
	p := newPorts(t)
	usb := func(name string) block.Disk { return block.Disk{Name: name, Bus: block.USB} }
	p.plug(usb("sdb"), part{layout.TypeData, "0000-000B", layout.BundleLabel})
	p.plug(usb("sdc"), part{layout.TypeStick, "0000-001C", "STICK"}, part{layout.TypeData, "0000-002C", layout.BundleLabel})
	p.plug(usb("sdd"), part{layout.TypeStick, "0000-001D", "STICK"}, part{layout.TypeData, "0000-002D", "PHOTOS"})
	p.plug(usb("sde"), part{layout.TypeStick, "0000-001E", "STICK"})
	p.plug(block.Disk{Name: "sdf", Bus: block.SATA}, part{layout.TypeStick, "0000-001F", "STICK"})
	f, disks := p.look(nil)
	for i := range disks {
		if disks[i].Name == "sde" {
			disks[i].Partitions = nil // the kernel has not read them yet
		}
	}
	sticks := f.Sticks(disks, nil)
	if len(sticks) != 2 || sticks[0].Disk.Name != "sdc" || sticks[1].Disk.Name != "sdd" {
		t.Fatalf("sticks %+v", sticks)
	}
	if own := f.Sticks(disks, map[string]bool{"sdc": true}); len(own) != 1 || own[0].Disk.Name != "sdd" {
		t.Errorf("with a disk of the unit's own: %+v", own)
	}
	if err := sticks[0].Save(p.m, "bundle.tar", []byte("logs")); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(p.Volume("0000-002C"), "bundle.tar")); err != nil || string(b) != "logs" {
		t.Errorf("the bundle is %q, %v", b, err)
	}
	if err := sticks[1].Save(p.m, "bundle.tar", nil); err == nil || !strings.Contains(err.Error(), layout.BundleLabel) {
		t.Errorf("a stick without a place for bundles: %v", err)
	}
	p.left()
	p.Fail(func(_ int, call string) error {
		if strings.HasPrefix(call, "mount") {
			return syscall.EIO
		}
		return nil
	})
	if err := sticks[0].Save(p.m, "x", nil); !errors.Is(err, syscall.EIO) {
		t.Errorf("a stick that cannot be mounted: %v", err)
	}
	p.left()
}
