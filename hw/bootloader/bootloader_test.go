package bootloader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/layout"
)

// disk is a disk in memory that may lose power after some writes.
type disk struct {
	b      []byte
	sector int
	writes int // left; negative: no end
	lies   bool
}

var errPower = errors.New("power is gone")

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, d.b[off:])
	if d.lies {
		p[0] ^= 1
	}
	return n, nil
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	if d.writes == 0 {
		return 0, errPower
	}
	d.writes--
	return copy(d.b[off:], p), nil
}

func (d *disk) SectorSize() int { return d.sector }
func (d *disk) Sync() error     { return nil }

func newDisk() *disk {
	d := &disk{b: make([]byte, 4<<20), sector: 512, writes: -1}
	copy(d.b[codeEnd:], bytes.Repeat([]byte{0xcc}, 70))
	d.b[510], d.b[511] = 0x55, 0xaa
	return d
}

func images(core byte) Images {
	boot := make([]byte, 512)
	boot[510], boot[511], boot[driveCheck], boot[0] = 0x55, 0xaa, 0xeb, 0xee
	c := bytes.Repeat([]byte{core}, 100*512-3)
	binary.LittleEndian.PutUint16(c[blocklistAt+10:], loadSegment)
	return Images{Boot: boot, Core: c}
}

var (
	mbrTable = layout.Table{Kind: layout.MBR, Partitions: []layout.Partition{{Number: 1, Start: layout.MiB, Size: 2 * layout.MiB}}}
	gptTable = layout.Table{Kind: layout.GPT, Partitions: []layout.Partition{
		{Number: 1, Start: layout.MiB, Size: layout.MiB, Type: layout.TypeBIOSBoot}, {Number: 2, Start: 2 * layout.MiB, Size: layout.MiB}}}
)

func TestInstall(t *testing.T) {
	for _, c := range []struct {
		name          string
		table         layout.Table
		first, second uint64 // places of core.img, sectors
	}{
		{"MBR", mbrTable, 1, 1 + 2047/2},
		{"GPT", gptTable, 2048, 2048 + 1024},
	} {
		d := newDisk()
		before := append([]byte(nil), d.b[codeEnd:512]...)
		if err := Verify(d, c.table, images(1)); err == nil {
			t.Errorf("%s: verified before it was installed", c.name)
		}
		for i, at := range []uint64{c.first, c.second, c.first} {
			im := images(byte(i + 1))
			if err := Install(d, c.table, im); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if err := Verify(d, c.table, im); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if got := binary.LittleEndian.Uint64(d.b[kernelAt:]); got != at {
				t.Errorf("%s: round %d leads to sector %d, want %d", c.name, i, got, at)
			}
			if got := binary.LittleEndian.Uint64(d.b[at*512+blocklistAt:]); got != at+1 {
				t.Errorf("%s: core.img goes on at %d, want %d", c.name, got, at+1)
			}
			if got := binary.LittleEndian.Uint16(d.b[at*512+blocklistAt+8:]); got != 99 {
				t.Errorf("%s: core.img has %d more sectors, want 99", c.name, got)
			}
		}
		if !bytes.Equal(d.b[codeEnd:512], before) {
			t.Errorf("%s: the partition table was touched", c.name)
		}
		d.b[c.first*512+5000] ^= 1
		if err := Verify(d, c.table, images(3)); err == nil {
			t.Errorf("%s: a damaged core.img was verified", c.name)
		}
	}
}

// TestPowerCut cuts the power before each write: what was installed before still verifies, or the new one does.
func TestPowerCut(t *testing.T) {
	for cut := range 3 {
		d := newDisk()
		if err := Install(d, mbrTable, images(1)); err != nil {
			t.Fatal(err)
		}
		d.writes = cut
		err := Install(d, mbrTable, images(2))
		if (err != nil) != (cut < 2) || err != nil && !errors.Is(err, errPower) {
			t.Fatalf("cut after %d writes: %v", cut, err)
		}
		if Verify(d, mbrTable, images(1)) != nil && Verify(d, mbrTable, images(2)) != nil {
			t.Errorf("cut after %d writes: the disk does not boot", cut)
		}
		d.writes = -1
		if err := Install(d, mbrTable, images(2)); err != nil {
			t.Fatal(err)
		}
		if err := Verify(d, mbrTable, images(2)); err != nil {
			t.Error(err)
		}
	}
}

func TestInstallRefuses(t *testing.T) {
	change := func(f func(*Images)) Images {
		im := images(1)
		f(&im)
		return im
	}
	small := layout.Table{Kind: layout.MBR, Partitions: []layout.Partition{{Start: 63 * 512}}}
	for _, c := range []struct {
		name  string
		disk  func(*disk)
		table layout.Table
		im    Images
		want  *fault.Fault
	}{
		{"4Kn", func(d *disk) { d.sector = 4096 }, mbrTable, images(1), fault.Disk4KnBIOS},
		{"small gap", nil, small, images(1), fault.BootSetup},
		{"no BIOS boot partition", nil, layout.Table{Kind: layout.GPT}, images(1), fault.BootSetup},
		{"no table", nil, layout.Table{}, images(1), fault.BootSetup},
		{"blank sector 0", func(d *disk) { d.b[510] = 0 }, mbrTable, images(1), fault.BootSetup},
		{"short boot.img", nil, mbrTable, change(func(i *Images) { i.Boot = i.Boot[:440] }), fault.BootSetup},
		{"foreign boot.img", nil, mbrTable, change(func(i *Images) { i.Boot[driveCheck] = 0 }), fault.BootSetup},
		{"foreign core.img", nil, mbrTable, change(func(i *Images) { i.Core[blocklistAt+10] = 0 }), fault.BootSetup},
		{"empty core.img", nil, mbrTable, change(func(i *Images) { i.Core = nil }), fault.BootSetup},
		{"bad disk", func(d *disk) { d.lies = true }, mbrTable, images(1), fault.ReadBack},
		{"write error", func(d *disk) { d.writes = 0 }, mbrTable, images(1), fault.DiskWrite},
	} {
		d := newDisk()
		if c.disk != nil {
			c.disk(d)
		}
		if err := Install(d, c.table, c.im); fault.Of(err) != c.want {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

// TestImagesOfDebian installs the boot.img of Debian's package, with a core.img made by its tool.
func TestImagesOfDebian(t *testing.T) {
	boot, err := os.ReadFile("/usr/lib/grub/i386-pc/boot.img")
	if err != nil {
		needs(t, "package grub-pc-bin")
	}
	out := filepath.Join(t.TempDir(), "core.img")
	if msg, err := exec.Command("grub-mkimage", "-O", "i386-pc", "-p", "/boot/grub", "-o", out, "biosdisk", "part_msdos", "ext2").CombinedOutput(); err != nil {
		needs(t, "grub-mkimage: "+string(msg))
	}
	core, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	d := newDisk()
	im := Images{Boot: boot, Core: core}
	if err := Install(d, gptTable, im); err != nil {
		t.Fatal(err)
	}
	if err := Verify(d, gptTable, im); err != nil {
		t.Error(err)
	}
}

// configs are configurations that cover all that the writers can write.
func configs() map[string][]byte {
	e := Entry{Title: "Normal $(reboot) it's", Kernel: "/boot/gprov/0123/vmlinuz", Initrd: "/boot/gprov/0123/initrd",
		Args: "console=tty0 console=ttyS1,38400n8 a=$b;c quiet"}
	fallback := e
	fallback.Fallback = "11111111-2222-3333-4444-555555555555"
	menu := fallback
	menu.Forced = "FACTORY_RESTORE=1"
	monolithic := fallback
	monolithic.Initrd = ""
	return map[string][]byte{
		"main with menu":     MainConfig(menu),
		"recovery with menu": RecoveryConfig(Recovery{Main: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", Mark: "/boot.normal", Entry: menu}),
		"main":               MainConfig(e), "main with fallback": MainConfig(fallback), "main, monolithic": MainConfig(monolithic),
		"recovery": RecoveryConfig(Recovery{Main: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", Mark: "/boot.normal", Entry: e}),
	}
}

func TestConfig(t *testing.T) {
	for name, c := range configs() {
		for _, want := range []string{
			"serial --unit=1 --speed=38400;", "linux '/boot/gprov/0123/vmlinuz' 'console=tty0' 'console=ttyS1,38400n8' 'a=$b;c' 'quiet';",
			`echo 'gprovision: Normal $(reboot) it'\''s'`,
		} {
			if !strings.Contains(string(c), want) {
				t.Errorf("%s: no %q in\n%s", name, want, c)
			}
		}
		if got := strings.Contains(string(c), "initrd"); got == strings.Contains(name, "monolithic") {
			t.Errorf("%s: it has the command initrd: %v\n%s", name, got, c)
		}
	}
	if c := string(MainConfig(Entry{Title: "x\nreboot", Kernel: "/k\n", Initrd: "/i"})); strings.Contains(c, "\nreboot\n") || strings.Contains(c, "serial") {
		t.Errorf("a title can be a command, or a serial port is used that nobody named:\n%s", c)
	}
}

// TestMenu: the argument of a forced restore stands in one place only, the entry of that name, and that is not the first one.
func TestMenu(t *testing.T) {
	for name, c := range configs() {
		text := string(c)
		menu := strings.HasSuffix(name, "with menu")
		want := 0
		if menu {
			want = 1
		}
		if n := strings.Count(text, "FACTORY_RESTORE"); n != want {
			t.Errorf("%s: the argument is there %d times, want %d", name, n, want)
		}
		if strings.Contains(text, "sleep --interruptible") != menu || strings.Contains(text, "menuentry") != menu {
			t.Errorf("%s: a menu, or a wait for a key, where there is none, or none where there is one:\n%s", name, text)
		}
		if _, rest, _ := strings.Cut(text, "menuentry '"+ForcedTitle+"' --unrestricted {"); menu && (!strings.Contains(rest, "FACTORY_RESTORE") ||
			!strings.Contains(text, "set default=0\nset timeout=60\nmenuentry '"+NormalTitle+"' --unrestricted {")) {
			t.Errorf("%s: the first entry is not the normal boot, or the second does not force a restore:\n%s", name, text)
		}
	}
}

// TestConfigLocks: the first commands of each configuration lock GRUB's command line, none opens it again, and the entries start without a
// password all the same.
func TestConfigLocks(t *testing.T) {
	for name, c := range configs() {
		var commands []string
		for line := range strings.Lines(string(c)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				commands = append(commands, line)
			}
		}
		text := strings.Join(commands, "\n")
		if !strings.HasPrefix(text, "set superusers=nobody\nexport superusers\n") || strings.Count(text, "superusers") != 2 || strings.Contains(text, "\nnormal") {
			t.Errorf("%s: not locked first, or opened again:\n%s", name, text)
		}
		if n := strings.Count(text, "menuentry "); n != strings.Count(text, "' --unrestricted {") {
			t.Errorf("%s: not each of the %d entries starts:\n%s", name, n, text)
		}
	}
}

// TestConfigOfDebian lets GRUB's own parser read the configurations.
func TestConfigOfDebian(t *testing.T) {
	if _, err := exec.LookPath("grub-script-check"); err != nil {
		needs(t, "package grub-common")
	}
	for name, c := range configs() {
		cmd := exec.Command("grub-script-check")
		cmd.Stdin = bytes.NewReader(c)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s\n%s", name, err, out, c)
		}
	}
}

func TestEntryCheck(t *testing.T) {
	good := Entry{Title: "x", Kernel: "/a", Initrd: "/b", Args: "a=b c"}
	for _, e := range []Entry{good, {Title: "x", Kernel: "/a", Args: "a=b c"}} {
		if err := e.Check(); err != nil {
			t.Error(err)
		}
	}
	for name, change := range map[string]func(*Entry){
		"relative": func(e *Entry) { e.Kernel = "a" }, "space": func(e *Entry) { e.Initrd = "/a b" }, "quote": func(e *Entry) { e.Args = `a="b c"` },
		"newline": func(e *Entry) { e.Args = "a\nb" }, "uuid": func(e *Entry) { e.Fallback = "x y" },
	} {
		e := good
		change(&e)
		if err := e.Check(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSerialConsole(t *testing.T) {
	for args, want := range map[string][3]int{
		"":                                  {0, 0, 0},
		"console=tty0":                      {0, 0, 0},
		"console=ttyS0":                     {0, 9600, 1},
		"console=ttyS2,115200n8 console=x":  {2, 115200, 1},
		"console=ttyS0 console=ttyS1,57600": {1, 57600, 1},
		"console=ttyS9,9600":                {0, 0, 0},
		"console=ttyUSB0,9600":              {0, 0, 0},
	} {
		unit, speed, ok := serialConsole(args)
		if unit != want[0] || speed != want[1] || ok != (want[2] == 1) {
			t.Errorf("%q: got %d, %d, %v", args, unit, speed, ok)
		}
	}
}

func needs(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("GPROV_NO_SKIP") == "1" {
		t.Fatalf("needs %s", what)
	}
	t.Skipf("needs %s", what)
}
