package partition_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gprovision/hw/partition"
	"gprovision/model/edit"
	"gprovision/model/layout"
)

// need skips the test if a program is not installed.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		skip(t, program+" is not installed")
	}
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("GPROV_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// disk is a sparse file as a partition.Device.
type disk struct {
	*os.File
	size   int64
	sector int
	writes []int64 // offsets, in order
}

func (d *disk) Size() int64     { return d.size }
func (d *disk) SectorSize() int { return d.sector }
func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	d.writes = append(d.writes, off)
	return d.File.WriteAt(p, off)
}

func sparse(t *testing.T, size int64, sector int) *disk {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return &disk{File: f, size: size, sector: sector}
}

// ids makes identifiers that are the same in each run.
func ids() layout.IDs {
	n := 0
	return layout.IDs{UUID: func() string {
		n++
		return fmt.Sprintf("%08x-0123-4567-89ab-cdef00112233", 0x1d1bd1a0+n)
	}}
}

func plan(t *testing.T, fw layout.Firmware, d *disk) layout.Table {
	t.Helper()
	tab, err := layout.ForMain(fw, layout.Device{Size: d.size, SectorSize: d.sector}, layout.Labels{Recovery: "RECOVERY", Primary: "PRIMARY"}, layout.Parts{}, ids())
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// onDisk is t without what a table on a disk does not hold.
func onDisk(t layout.Table) layout.Table {
	t.Partitions = append([]layout.Partition(nil), t.Partitions...)
	for i := range t.Partitions {
		p := &t.Partitions[i]
		p.Role, p.FSUUID, p.FSLabel = "", "", ""
	}
	return t
}

func TestRoundTrip(t *testing.T) {
	const gib = layout.GiB
	for _, c := range []struct {
		name   string
		fw     layout.Firmware
		size   int64
		sector int
		kind   layout.Kind
	}{
		{"uefi", layout.UEFI, 8 * gib, 512, layout.GPT},
		{"uefi 4Kn", layout.UEFI, 8 * gib, 4096, layout.GPT},
		{"uefi odd size", layout.UEFI, 8*gib + 512*7, 512, layout.GPT},
		{"uefi large", layout.UEFI, 6 * layout.TiB, 512, layout.GPT},
		{"bios", layout.BIOS, 8 * gib, 512, layout.MBR},
		{"bios large", layout.BIOS, 3 * layout.TiB, 512, layout.GPT},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := sparse(t, c.size, c.sector)
			code := bytes.Repeat([]byte{0x90}, partition.KeepBoot)
			if _, err := d.File.WriteAt(code, 0); err != nil {
				t.Fatal(err)
			}
			want := plan(t, c.fw, d)
			if want.Kind != c.kind {
				t.Fatalf("kind %s", want.Kind)
			}
			if err := partition.Write(d, want); err != nil {
				t.Fatal(err)
			}
			got, err := partition.Read(d)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(onDisk(want), got); diff != "" {
				t.Error(diff)
			}
			if err := partition.Verify(d, want); err != nil {
				t.Error(err)
			}
			b := make([]byte, partition.KeepBoot)
			if _, err := d.ReadAt(b, 0); err != nil || !bytes.Equal(b, code) {
				t.Errorf("boot code is not kept: %v", err)
			}
			if c.sector == 512 {
				judge(t, d, want)
			}
			want.Partitions[0].Name += "x"
			if err := partition.Verify(d, want); err == nil {
				t.Error("Verify accepts another table")
			}
		})
	}
}

// judge lets sgdisk and sfdisk have a look at d.
func judge(t *testing.T, d *disk, want layout.Table) {
	t.Helper()
	need(t, "sgdisk")
	need(t, "sfdisk")
	if want.Kind == layout.GPT {
		out, err := exec.Command("sgdisk", "-v", d.Name()).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "No problems found") {
			t.Errorf("sgdisk -v: %v\n%s", err, out)
		}
	}
	if out, err := exec.Command("sfdisk", "-V", d.Name()).CombinedOutput(); err != nil || !strings.Contains(string(out), "No errors detected") {
		t.Errorf("sfdisk -V: %v\n%s", err, out)
	}
	out, err := exec.Command("sfdisk", "-J", d.Name()).Output()
	if err != nil {
		t.Fatalf("sfdisk -J: %v", err)
	}
	var j struct {
		Table struct {
			Label, ID  string
			Partitions []struct {
				Node, Type, UUID, Name string
				Start, Size            int64
				Bootable               bool
			}
		} `json:"partitiontable"`
	}
	if err := json.Unmarshal(out, &j); err != nil {
		t.Fatal(err)
	}
	got := layout.Table{Kind: layout.GPT, UUID: strings.ToLower(j.Table.ID)}
	if j.Table.Label == "dos" {
		got.Kind, got.UUID = layout.MBR, strings.TrimPrefix(j.Table.ID, "0x")
	}
	for i, p := range j.Table.Partitions {
		q := layout.Partition{Number: i + 1, Start: p.Start * int64(d.sector), Size: p.Size * int64(d.sector),
			Type: strings.ToLower(p.Type), UUID: strings.ToLower(p.UUID), Name: p.Name, Active: p.Bootable}
		if got.Kind == layout.MBR {
			q.UUID = fmt.Sprintf("%s-%02x", got.UUID, i+1)
		}
		got.Partitions = append(got.Partitions, q)
	}
	if diff := cmp.Diff(onDisk(want), got); diff != "" {
		t.Errorf("sfdisk sees another table: %s", diff)
	}
}

// TestLoop4096 shows a 4Kn table to sgdisk and sfdisk through a loop device: they take a file for a disk of 512 byte sectors.
func TestLoop4096(t *testing.T) {
	if os.Getuid() != 0 {
		skip(t, "needs root")
	}
	need(t, "losetup")
	d := sparse(t, 2*layout.GiB, 4096)
	want := plan(t, layout.UEFI, d)
	if err := partition.Write(d, want); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "-f", "--show", "-b", "4096", d.Name()).CombinedOutput()
	if err != nil {
		skip(t, fmt.Sprintf("losetup: %s", out))
	}
	dev := strings.TrimSpace(string(out))
	defer exec.Command("losetup", "-d", dev).Run()
	f, err := os.Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	judge(t, &disk{File: f, size: d.size, sector: 4096}, want)
}

func TestGolden(t *testing.T) {
	d := sparse(t, 2*layout.GiB, 512)
	if err := partition.Write(d, plan(t, layout.UEFI, d)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1024+256)
	if _, err := d.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	// By the tables of UEFI 2.10 sections 5.2.3, 5.3.2 and 5.3.3.
	for _, g := range []struct {
		at   int
		want string
	}{
		{446, "00000200eeffffff01000000ffff3f00"}, // protective entry
		{510, "55aa"},
		{512, "4546492050415254" + "00000100" + "5c000000"},
		{512 + 24, "0100000000000000" + "ffff3f0000000000" + "2200000000000000" + "deff3f0000000000"},
		{512 + 72, "0200000000000000" + "80000000" + "80000000"},
		{1024, "28732ac11ff8d211ba4b00a0c93ec93b"},
		{1024 + 32, "0008000000000000" + "ff07100000000000" + "0000000000000000" + "450053005000" + "0000"},
	} {
		n := len(g.want) / 2
		if got := fmt.Sprintf("%x", b[g.at:g.at+n]); got != g.want {
			t.Errorf("at %d: %s, want %s", g.at, got, g.want)
		}
	}
}

func TestOrder(t *testing.T) {
	d := sparse(t, 2*layout.GiB, 512)
	tab := plan(t, layout.UEFI, d)
	if err := partition.Write(d, tab); err != nil {
		t.Fatal(err)
	}
	want := []int64{d.size - 33*512, d.size - 512, 1024, 512, 0}
	if diff := cmp.Diff(want, d.writes); diff != "" {
		t.Error(diff)
	}
}

func TestBackup(t *testing.T) {
	for _, c := range []struct {
		name      string
		at, at2   int64 // bytes that are damaged; from the end if negative
		damaged   bool
		thenBlank bool
	}{
		{name: "first header", at: 512 + 60},
		{name: "first entries", at: 1024 + 16},
		{name: "last header", at: -512 + 60},
		{name: "both headers", at: 512 + 60, at2: -512 + 60, damaged: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := sparse(t, 2*layout.GiB, 512)
			want := plan(t, layout.UEFI, d)
			if err := partition.Write(d, want); err != nil {
				t.Fatal(err)
			}
			for _, at := range []int64{c.at, c.at2} {
				if at == 0 {
					continue
				}
				if at < 0 {
					at += d.size
				}
				if _, err := d.WriteAt([]byte{0xff, 0xee, 0xdd}, at); err != nil {
					t.Fatal(err)
				}
			}
			got, err := partition.Read(d)
			if c.damaged {
				if !errors.Is(err, partition.ErrDamaged) {
					t.Fatalf("%v %v", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(onDisk(want), got); diff != "" {
				t.Error(diff)
			}
			if err := partition.Verify(d, want); !errors.Is(err, partition.ErrDamaged) {
				t.Errorf("Verify: %v", err)
			}
			if err := partition.Write(d, want); err != nil {
				t.Fatal(err)
			}
			if err := partition.Verify(d, want); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestForeign reads tables that sfdisk made.
func TestForeign(t *testing.T) {
	need(t, "sfdisk")
	for _, c := range []struct {
		name, script string
		want         layout.Table
	}{
		{"dos", "label: dos\nlabel-id: 0x0badcafe\nstart=2048, size=8192, type=83, bootable\nstart=10240, size=40960, type=5\nstart=12288, size=2048, type=83\nstart=16384, size=4096, type=82\nstart=22528, size=2048, type=c\n",
			layout.Table{Kind: layout.MBR, UUID: "0badcafe", Partitions: []layout.Partition{
				{Number: 1, Start: 2048 * 512, Size: 8192 * 512, Type: "83", UUID: "0badcafe-01", Active: true},
				{Number: 2, Start: 10240 * 512, Size: 40960 * 512, Type: "05", UUID: "0badcafe-02"},
				{Number: 5, Start: 12288 * 512, Size: 2048 * 512, Type: "83", UUID: "0badcafe-05"},
				{Number: 6, Start: 16384 * 512, Size: 4096 * 512, Type: "82", UUID: "0badcafe-06"},
				{Number: 7, Start: 22528 * 512, Size: 2048 * 512, Type: "0c", UUID: "0badcafe-07"},
			}}},
		{"gpt with a gap", "label: gpt\nlabel-id: 01234567-89AB-CDEF-0123-456789ABCDEF\n3 : start=2048, size=8192, type=L, uuid=A2D11B1D-D90F-E941-BBB5-A98BAC570B2A, name=\"Größe\"\n",
			layout.Table{Kind: layout.GPT, UUID: "01234567-89ab-cdef-0123-456789abcdef", Partitions: []layout.Partition{
				{Number: 3, Start: 2048 * 512, Size: 8192 * 512, Type: layout.TypeLinux, UUID: "a2d11b1d-d90f-e941-bbb5-a98bac570b2a", Name: "Größe"},
			}}},
		{"dos without partitions", "label: dos\nlabel-id: 0x00000001\n", layout.Table{Kind: layout.MBR, UUID: "00000001"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := sparse(t, 64*layout.MiB, 512)
			cmd := exec.Command("sfdisk", "-q", d.Name())
			cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
			cmd.Stdin = strings.NewReader(c.script)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			got, err := partition.Read(d)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMBRErasesGPT(t *testing.T) {
	d := sparse(t, 2*layout.GiB, 512)
	if err := partition.Write(d, plan(t, layout.UEFI, d)); err != nil {
		t.Fatal(err)
	}
	want := plan(t, layout.BIOS, d)
	if err := partition.Write(d, want); err != nil {
		t.Fatal(err)
	}
	judge(t, d, want)
	b := make([]byte, 8)
	for _, at := range []int64{512, d.size - 512} {
		if _, err := d.ReadAt(b, at); err != nil || !bytes.Equal(b, make([]byte, 8)) {
			t.Errorf("at %d: %q %v", at, b, err)
		}
	}
}

func TestNone(t *testing.T) {
	d := sparse(t, 64*layout.MiB, 512)
	got, err := partition.Read(d)
	if err != nil || got.Kind != layout.None {
		t.Errorf("empty disk: %v %v", got, err)
	}
	need(t, "mkfs.vfat")
	if out, err := exec.Command("mkfs.vfat", d.Name()).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got, err = partition.Read(d)
	if err != nil || got.Kind != layout.None {
		t.Errorf("FAT without a table: %v %v", got, err)
	}
	if got, err := partition.Read(sparse(t, 100, 512)); err != nil || got.Kind != layout.None {
		t.Errorf("tiny disk: %v %v", got, err)
	}
}

func TestWipe(t *testing.T) {
	for _, c := range []struct{ head, tail int64 }{{layout.MiB, layout.MiB}, {3 * layout.MiB, 100}, {100 * layout.MiB, layout.MiB}, {40 * layout.MiB, 40 * layout.MiB}} {
		d := sparse(t, 64*layout.MiB, 512)
		full := bytes.Repeat([]byte{1}, int(d.size))
		if _, err := d.File.WriteAt(full, 0); err != nil {
			t.Fatal(err)
		}
		if err := partition.Wipe(d, c.head, c.tail); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(d.Name())
		if err != nil {
			t.Fatal(err)
		}
		clear(full[:min(c.head, d.size)])
		clear(full[max(0, d.size-c.tail):])
		if !bytes.Equal(got, full) {
			t.Errorf("wipe %d %d is not right", c.head, c.tail)
		}
	}
}

func TestRefused(t *testing.T) {
	d := sparse(t, 64*layout.MiB, 512)
	id := "a2d11b1d-d90f-e941-bbb5-a98bac570b2a"
	gpt := func(ps ...layout.Partition) layout.Table {
		return layout.Table{Kind: layout.GPT, UUID: id, Partitions: ps}
	}
	mbr := func(ps ...layout.Partition) layout.Table {
		return layout.Table{Kind: layout.MBR, UUID: "12345678", Partitions: ps}
	}
	good := layout.Partition{Number: 1, Start: layout.MiB, Size: layout.MiB, Type: layout.TypeLinux, UUID: id}
	with := func(f func(*layout.Partition)) layout.Partition { p := good; f(&p); return p }
	for name, tab := range map[string]layout.Table{
		"no kind":         {},
		"number 0":        gpt(with(func(p *layout.Partition) { p.Number = 0 })),
		"number 129":      gpt(with(func(p *layout.Partition) { p.Number = 129 })),
		"number 5 on MBR": mbr(with(func(p *layout.Partition) { p.Number, p.Type = 5, "83" })),
		"twice":           gpt(good, good),
		"overlap":         gpt(good, with(func(p *layout.Partition) { p.Number, p.Start = 2, layout.MiB+512 })),
		"in the header":   gpt(with(func(p *layout.Partition) { p.Start = 512 * 33 })),
		"in the backup":   gpt(with(func(p *layout.Partition) { p.Size = 63*layout.MiB - 512*32 })),
		"overflow":        gpt(with(func(p *layout.Partition) { p.Size = 1<<63 - 512 })),
		"empty":           gpt(with(func(p *layout.Partition) { p.Size = 0 })),
		"half a sector":   gpt(with(func(p *layout.Partition) { p.Start++ })),
		"type":            gpt(with(func(p *layout.Partition) { p.Type = "83" })),
		"no identifier":   gpt(with(func(p *layout.Partition) { p.UUID = "" })),
		"name":            gpt(with(func(p *layout.Partition) { p.Name = strings.Repeat("x", 37) })),
		"MBR type":        mbr(good),
		"MBR extended":    mbr(with(func(p *layout.Partition) { p.Type = "05" })),
		"MBR sector 0":    mbr(with(func(p *layout.Partition) { p.Start, p.Type = 0, "83" })),
		"signature":       {Kind: layout.MBR, UUID: "1234"},
	} {
		if err := partition.Write(d, tab); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if len(d.writes) != 0 {
		t.Errorf("refused tables were written at %v", d.writes)
	}
}

func TestReadError(t *testing.T) {
	want := errors.New("bad sector")
	d := &broken{err: want}
	if _, err := partition.Read(d); !errors.Is(err, want) {
		t.Error(err)
	}
}

type broken struct {
	disk
	err error
}

func (b *broken) ReadAt([]byte, int64) (int, error) { return 0, b.err }
func (b *broken) Size() int64                       { return layout.GiB }
func (b *broken) SectorSize() int                   { return 512 }

func TestGUID(t *testing.T) {
	const text = "1d1bd1a2-0fd9-41e9-bbb5-a98bac570b2a"
	g, err := partition.ParseGUID(strings.ToUpper(text))
	if err != nil || fmt.Sprintf("%x", g) != "a2d11b1dd90fe941bbb5a98bac570b2a" {
		t.Errorf("%x %v", g, err)
	}
	if s := partition.FormatGUID(g); s != text {
		t.Error(s)
	}
	for _, s := range []string{"", text[1:], strings.ReplaceAll(text, "-", "0"), strings.Replace(text, "1", "\x11", 1)} {
		if _, err := partition.ParseGUID(s); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
}

// memory is a disk in memory whose data may be shorter than its size.
type memory struct {
	data   []byte
	size   int64
	sector int
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= m.size {
		return 0, io.EOF
	}
	clear(p)
	if off < int64(len(m.data)) {
		copy(p, m.data[off:])
	}
	return int(min(int64(len(p)), m.size-off)), nil
}
func (m *memory) WriteAt(p []byte, off int64) (int, error) { return 0, errors.ErrUnsupported }
func (m *memory) Size() int64                              { return m.size }
func (m *memory) SectorSize() int                          { return m.sector }
func (m *memory) Sync() error                              { return nil }

func FuzzRead(f *testing.F) {
	var good [][]byte
	for _, sector := range []int{512, 4096} {
		for _, fw := range []layout.Firmware{layout.UEFI, layout.BIOS} {
			file, err := os.Create(filepath.Join(f.TempDir(), "seed"))
			if err != nil {
				f.Fatal(err)
			}
			d := &disk{File: file, size: 2 * layout.GiB, sector: sector}
			file.Truncate(d.size)
			tab, err := layout.ForMain(fw, layout.Device{Size: d.size, SectorSize: sector}, layout.Labels{Primary: "P"}, layout.Parts{}, ids())
			if err != nil {
				continue
			}
			if err := partition.Write(d, tab); err != nil {
				f.Fatal(err)
			}
			b := make([]byte, 6*sector)
			file.ReadAt(b, 0)
			file.Close()
			good = append(good, b)
		}
	}
	loop := make([]byte, 4096)
	loop[510], loop[511], loop[446+4] = 0x55, 0xaa, 5
	binary.LittleEndian.PutUint32(loop[446+8:], 1)
	binary.LittleEndian.PutUint32(loop[446+12:], 100)
	copy(loop[512:], loop[:512])
	good = append(good, loop)
	for _, s := range edit.Scripts() {
		for i := range len(good) {
			f.Add(uint8(i), s)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, script []byte) {
		base := good[int(which)%len(good)]
		data, large := edit.Apply(base, script), len(base) == 6*4096
		d := &memory{data: data, size: 2 * layout.GiB, sector: 512}
		if large {
			d.sector = 4096
		}
		tab, err := partition.Read(d)
		if err != nil {
			return
		}
		for _, p := range tab.Partitions {
			if p.Start < 0 || p.Size <= 0 || p.Start > d.size-p.Size || p.Number < 1 {
				t.Errorf("impossible partition %+v", p)
			}
		}
	})
}
