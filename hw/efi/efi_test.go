package efi

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"gprovision/hw/partition"
	"gprovision/model/layout"
)

// vector is Boot0003 of a unit that runs: description "Normal Boot", a file on a GPT partition, arguments "a=b".
const vector = "010000004800" + "4e006f0072006d0061006c00200042006f006f0074000000" +
	"04012a00" + "01000000" + "0008000000000000" + "0040060000000000" + "67452301ab89efcd0123456789abcdef" + "0202" +
	"04041a00" + "5c006e006f0072006d005f0062006f006f0074000000" + "7fff0400" + "61003d006200"

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func entry(name string, disk int) Entry {
	return Entry{
		Description: name, Path: `\EFI\BOOT\BOOTX64.EFI`, SectorSize: 512,
		Partition: layout.Partition{Number: 1, Start: layout.MiB, Size: layout.ESPSize, UUID: fmt.Sprintf("0123456%x-89ab-cdef-0123-456789abcdef", disk)},
	}
}

func TestVector(t *testing.T) {
	raw := unhex(t, vector)
	o, err := ParseLoadOption(raw)
	if err != nil {
		t.Fatal(err)
	}
	disk, ok := o.HardDrive()
	where := partition.FormatGUID(disk.Signature)
	if !ok || o.Description != "Normal Boot" || o.Attributes&Active == 0 || o.File() != `\norm_boot` || decodeText(o.Optional) != "a=b" ||
		disk.Number != 1 || disk.Start != 0x800 || disk.Size != 0x64000 || where != "01234567-89ab-cdef-0123-456789abcdef" {
		t.Errorf("%+v, %+v", o, disk)
	}
	got, err := o.Encode()
	if err != nil || !bytes.Equal(got, raw) {
		t.Errorf("%x %v", got, err)
	}
	made, err := Entry{
		Description: "Normal Boot", Path: `\norm_boot`, Args: "a=b", SectorSize: 512,
		Partition: layout.Partition{Number: 1, Start: 0x800 * 512, Size: 0x64000 * 512, UUID: "01234567-89ab-cdef-0123-456789abcdef"},
	}.option()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := made.Encode(); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("%x %v", got, err)
	}
}

func TestSectorSize(t *testing.T) {
	e := entry("x", 1)
	e.SectorSize = 4096
	o, err := e.option()
	if err != nil {
		t.Fatal(err)
	}
	if h, ok := o.HardDrive(); !ok || h.Start != 256 || h.Size != layout.ESPSize/4096 {
		t.Errorf("%+v", h)
	}
}

// store is a directory that stands for efivarfs and counts what is written.
type store struct {
	*Vars
	writes []string
}

func newStore(t *testing.T) *store {
	t.Helper()
	s := &store{Vars: New(t.TempDir())}
	s.getFlags = func(*os.File) (int, error) { return 0, nil }
	s.setFlags = func(*os.File, int) error { return errors.New("not expected") }
	s.write = func(path string, data []byte) error {
		s.writes = append(s.writes, strings.TrimSuffix(filepath.Base(path), "-"+Global))
		return os.WriteFile(path, data, 0o600)
	}
	return s
}

func (s *store) put(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(s.path(name, Global), append([]byte{7, 0, 0, 0}, data...), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *store) putEntry(t *testing.T, n uint16, e Entry, change func(*LoadOption)) {
	t.Helper()
	o, err := e.option()
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&o)
	}
	b, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	s.put(t, bootName(n), b)
}

// show is the state as text: the order, and each entry.
func (s *store) show(t *testing.T) string {
	t.Helper()
	order, _, err := s.order()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := s.Entries()
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprintf("%04X", order)
	for _, e := range entries {
		h, _ := e.HardDrive()
		out += fmt.Sprintf(" %04X=%s@%x", e.Number, e.Description, h.Signature[0]&15)
	}
	return out
}

func TestEnsure(t *testing.T) {
	const normal, recovery = "Normal Boot", "Recovery"
	want := []Entry{entry(normal, 1), entry(recovery, 2)}
	foreign := func(n uint16) func(*testing.T, *store) {
		return func(t *testing.T, s *store) { s.putEntry(t, n, entry("Windows", 9), nil) }
	}
	order := func(n ...uint16) func(*testing.T, *store) {
		return func(t *testing.T, s *store) { s.put(t, "BootOrder", encodeOrder(n)) }
	}
	have := func(n uint16, e Entry, change func(*LoadOption)) func(*testing.T, *store) {
		return func(t *testing.T, s *store) { s.putEntry(t, n, e, change) }
	}
	type prep = []func(*testing.T, *store)
	for _, c := range []struct {
		name   string
		prep   prep
		ours   []string
		want   string
		change Change
	}{
		{name: "nothing there", want: "[0000 0001] 0000=Normal Boot@1 0001=Recovery@2",
			change: Change{Written: []string{"Boot0000", "Boot0001", "BootOrder"}}},
		{name: "foreign entries", prep: prep{foreign(0), foreign(2), order(2, 0)},
			want: "[0001 0003 0002 0000] 0000=Windows@9 0001=Normal Boot@1 0002=Windows@9 0003=Recovery@2", change: Change{Written: []string{"Boot0001", "Boot0003", "BootOrder"}}},
		{name: "a number in the order only", prep: prep{order(0)}, want: "[0001 0002 0000] 0001=Normal Boot@1 0002=Recovery@2",
			change: Change{Written: []string{"Boot0001", "Boot0002", "BootOrder"}}},
		{name: "only the order is wrong", prep: prep{foreign(0), have(5, want[0], nil), have(4, want[1], nil), order(0, 4, 5)},
			want: "[0005 0004 0000] 0000=Windows@9 0004=Recovery@2 0005=Normal Boot@1", change: Change{Written: []string{"BootOrder"}}},
		{name: "another disk", prep: prep{have(3, entry(normal, 7), nil), have(4, want[1], nil), order(3, 4)},
			want: "[0003 0004] 0003=Normal Boot@1 0004=Recovery@2", change: Change{Written: []string{"Boot0003"}}},
		{name: "duplicates", prep: prep{have(1, entry(normal, 7), nil), have(2, want[0], nil), have(3, want[0], nil), have(4, want[1], nil), foreign(9), order(1, 3, 2, 9, 4)},
			want: "[0003 0004 0009] 0003=Normal Boot@1 0004=Recovery@2 0009=Windows@9", change: Change{Written: []string{"BootOrder"}, Deleted: []string{"Boot0001", "Boot0002"}}},
		{name: "an old name of ours", prep: prep{have(8, entry("Data Erase", 1), nil), have(1, want[0], nil), have(2, want[1], nil), order(1, 2)}, ours: []string{"Data Erase"},
			want: "[0001 0002] 0001=Normal Boot@1 0002=Recovery@2", change: Change{Deleted: []string{"Boot0008"}}},
		{name: "not active", prep: prep{have(1, want[0], func(o *LoadOption) { o.Attributes = 0 }), have(2, want[1], nil), order(1, 2)},
			want: "[0001 0002] 0001=Normal Boot@1 0002=Recovery@2", change: Change{Written: []string{"Boot0001"}}},
		{name: "only in the menu", prep: prep{have(1, want[0], func(o *LoadOption) { o.Attributes |= categoryApp }), have(2, want[1], nil), order(1, 2)},
			want: "[0001 0002] 0001=Normal Boot@1 0002=Recovery@2", change: Change{Written: []string{"Boot0001"}}},
		{name: "other arguments", prep: prep{have(1, want[0], func(o *LoadOption) { o.Optional = encodeText("x") }), have(2, want[1], nil), order(1, 2)},
			want: "[0001 0002] 0001=Normal Boot@1 0002=Recovery@2", change: Change{Written: []string{"Boot0001"}}},
		{name: "firmware put nodes before ours", prep: prep{have(1, want[0], func(o *LoadOption) {
			o.Path = append([]Node{{2, 1, unhexMust("d041030a00000000")}, {1, 1, []byte{0, 5}}}, o.Path...)
			o.Attributes |= 2
		}), have(2, want[1], nil), order(1, 2)}, want: "[0001 0002] 0001=Normal Boot@1 0002=Recovery@2"},
		{name: "garbage is foreign", prep: prep{func(t *testing.T, s *store) { s.put(t, "Boot0000", []byte("Normal Boot")) }, order(0)},
			want: "[0001 0002 0000] 0000=@0 0001=Normal Boot@1 0002=Recovery@2", change: Change{Written: []string{"Boot0001", "Boot0002", "BootOrder"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			for _, p := range c.prep {
				p(t, s)
			}
			got, err := Ensure(s.Vars, want, c.ours...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.change, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.change.Written, s.writes); diff != "" {
				t.Error(diff)
			}
			if state := s.show(t); state != c.want {
				t.Errorf("%s\nwant %s", state, c.want)
			}
			s.writes = nil
			if got, err := Ensure(s.Vars, want, c.ours...); err != nil || !got.Empty() || s.writes != nil {
				t.Errorf("second time: %+v %v %v", got, s.writes, err)
			}
		})
	}
}

// TestMenuOnly: an entry for the firmware's menu is last, behind what others have put into the order, and is of the category that no
// firmware starts by itself. One that lost the category is a danger and is written anew.
func TestMenuOnly(t *testing.T) {
	forced := entry("Forced Factory Restore", 2)
	forced.MenuOnly = true
	want := []Entry{entry("Normal Boot", 1), forced, entry("Recovery", 2)}
	s := newStore(t)
	s.putEntry(t, 5, entry("Windows", 9), nil)
	s.putEntry(t, 7, forced, func(o *LoadOption) { o.Attributes = Active })
	s.put(t, "BootOrder", encodeOrder([]uint16{7, 5}))
	for range 2 {
		if _, err := Ensure(s.Vars, want); err != nil {
			t.Fatal(err)
		}
		if got := s.show(t); got != "[0000 0001 0005 0007] 0000=Normal Boot@1 0001=Recovery@2 0005=Windows@9 0007=Forced Factory Restore@2" {
			t.Error(got)
		}
	}
	entries, err := s.Entries()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if only := e.Attributes == Active|categoryApp; only != (e.Description == forced.Description) {
			t.Errorf("%s has the attributes %#x", e.Description, e.Attributes)
		}
	}
	if len(s.writes) != 4 {
		t.Errorf("wrote %v", s.writes)
	}
	if _, err := s.Started(); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	s.put(t, "BootCurrent", []byte{7, 0})
	if d, err := s.Started(); err != nil || d != forced.Description {
		t.Error(d, err)
	}
	if _, err := s.StartedFrom(); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for id, good := range map[string]bool{"8B9D0E0A-3D2B-4E51-9A51-0C3A6C1F2E11": true, "": false, "8B9D0E0A": false} {
		if err := os.WriteFile(s.path("LoaderDevicePartUUID", Loader), append(make([]byte, 4), encodeText(id+"\x00")...), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := s.StartedFrom(); (err == nil) != good || good && got != strings.ToLower(id) {
			t.Errorf("%q: %q, %v", id, got, err)
		}
	}
	s.put(t, "BootCurrent", []byte{8, 0})
	if _, err := s.Started(); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func unhexMust(s string) []byte { b, _ := hex.DecodeString(s); return b }

// TestInterrupted stops after each write and starts again: the end is the same.
func TestInterrupted(t *testing.T) {
	want := []Entry{entry("Normal Boot", 1), entry("Recovery", 2)}
	stop := errors.New("power is gone")
	for cut := range 4 {
		s := newStore(t)
		s.putEntry(t, 0, entry("Windows", 9), nil)
		s.putEntry(t, 1, entry("Normal Boot", 7), nil)
		s.putEntry(t, 2, entry("Normal Boot", 8), nil)
		s.Vars.put("BootOrder", encodeOrder([]uint16{2, 1, 0}), &Change{})
		s.writes = nil
		whole := s.write
		s.write = func(path string, data []byte) error {
			if len(s.writes) == cut {
				return stop
			}
			return whole(path, data)
		}
		if _, err := Ensure(s.Vars, want); cut < 3 && !errors.Is(err, stop) {
			t.Errorf("cut %d: %v", cut, err)
		}
		order, _, err := s.order()
		if err != nil || len(order) < 2 {
			t.Errorf("cut %d: order %v %v", cut, order, err)
		}
		s.write = whole
		if _, err := Ensure(s.Vars, want); err != nil {
			t.Error(err)
		}
		if got := s.show(t); got != "[0002 0003 0000] 0000=Windows@9 0002=Normal Boot@1 0003=Recovery@2" {
			t.Errorf("cut %d: %s", cut, got)
		}
	}
}

func TestEnsureRefused(t *testing.T) {
	good := entry("x", 1)
	for name, change := range map[string]func(*Entry){
		"no description": func(e *Entry) { e.Description = "" },
		"NUL":            func(e *Entry) { e.Args = "a\x00b" },
		"MBR partition":  func(e *Entry) { e.Partition.UUID = "0badcafe-01" },
		"no sector size": func(e *Entry) { e.SectorSize = 0 },
		"number":         func(e *Entry) { e.Partition.Number = 0 },
		"slashes":        func(e *Entry) { e.Path = "EFI/BOOT" },
	} {
		s := newStore(t)
		e := good
		change(&e)
		if _, err := Ensure(s.Vars, []Entry{good, e}); err == nil || s.writes != nil {
			t.Errorf("%s: %v, wrote %v", name, err, s.writes)
		}
	}
	s := newStore(t)
	if _, err := Ensure(s.Vars, []Entry{good, good}); err == nil {
		t.Error("wanted twice")
	}
	if _, err := Ensure(New(filepath.Join(t.TempDir(), "none")), []Entry{good}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestNumbers(t *testing.T) {
	s := newStore(t)
	if _, err := s.Current(); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	s.put(t, "BootCurrent", []byte{0x0a, 0})
	if n, err := s.Current(); err != nil || n != 10 {
		t.Error(n, err)
	}
	s.put(t, "BootCurrent", []byte{1})
	if _, err := s.Current(); err == nil {
		t.Error("one byte is taken")
	}
	s.put(t, "BootOrder", []byte{1, 0, 2})
	if got, damaged, err := s.order(); !damaged || err != nil || !slices.Equal(got, []uint16{1}) {
		t.Errorf("an odd BootOrder: %v, %v", got, err)
	}
	// It is written again, also where its numbers are right already.
	want := []Entry{entry("Normal Boot", 1), entry("Recovery", 2)}
	if _, err := Ensure(s.Vars, want); err != nil {
		t.Fatal(err)
	}
	_, whole, err := s.Get("BootOrder", Global)
	if err != nil {
		t.Fatal(err)
	}
	for _, odd := range [][]byte{append(slices.Clone(whole), 0), {1}} {
		s.put(t, "BootOrder", odd)
		if c, err := Ensure(s.Vars, want); err != nil || !slices.Contains(c.Written, "BootOrder") {
			t.Errorf("BootOrder %x: %+v, %v", odd, c, err)
		}
		if _, b, err := s.Get("BootOrder", Global); err != nil || len(b)%2 != 0 || !bytes.HasPrefix(b, whole[:2]) {
			t.Errorf("BootOrder %x becomes %x, %v", odd, b, err)
		}
		if c, err := Ensure(s.Vars, want); err != nil || !c.Empty() {
			t.Errorf("again: %+v, %v", c, err)
		}
	}
}

func TestNames(t *testing.T) {
	s := newStore(t)
	for _, name := range []string{"Boot000a", "Boot00001", "BootOrder", "BootNext", "Boot", "Driver0001", "BootZZZZ", "Boot+001"} {
		s.put(t, name, unhex(t, vector))
	}
	os.WriteFile(filepath.Join(s.dir, "Boot0001-01234567-89ab-cdef-0123-456789abcdef"), append([]byte{7, 0, 0, 0}, unhex(t, vector)...), 0o600)
	os.WriteFile(s.path("Boot0002", Global), nil, 0o600) // deleted, but its file is still there
	s.put(t, "Boot000B", unhex(t, vector))
	got, err := s.Entries()
	if err != nil || len(got) != 1 || got[0].Number != 11 || decodeText(got[0].Optional) != "a=b" {
		t.Errorf("%+v %v", got, err)
	}
}

// TestImmutable plays the kernel: a file with the flag cannot be written or removed.
func TestImmutable(t *testing.T) {
	s := newStore(t)
	flags := map[string]int{}
	s.getFlags = func(f *os.File) (int, error) { return flags[f.Name()], nil }
	s.setFlags = func(f *os.File, v int) error { flags[f.Name()] = v; return nil }
	write := s.write
	s.write = func(path string, data []byte) error {
		if flags[path]&immutable != 0 {
			return os.ErrPermission
		}
		return write(path, data)
	}
	const name = "LoaderEntryOneShot"
	if wrote, err := s.Set(name, Global, bootVar, []byte("one")); !wrote || err != nil {
		t.Fatal(wrote, err)
	}
	path := s.path(name, Global)
	flags[path] = immutable | 0x80
	if wrote, err := s.Set(name, Global, bootVar, []byte("two")); !wrote || err != nil {
		t.Fatal(wrote, err)
	}
	if flags[path] != immutable|0x80 {
		t.Errorf("flags are %#x afterwards", flags[path])
	}
	if wrote, err := s.Set(name, Global, bootVar, []byte("two")); wrote || err != nil {
		t.Error("the same was written again", err)
	}
	if _, b, err := s.Get(name, Global); err != nil || string(b) != "two" {
		t.Errorf("%q %v", b, err)
	}
	if err := s.Delete(name, Global); err != nil || flags[path]&immutable != 0 {
		t.Error(err)
	}
}

// TestImmutableHere uses the flag of the file system that holds temporary files, where it has one.
func TestImmutableHere(t *testing.T) {
	v := New(t.TempDir())
	if _, err := v.Set("Test", Global, bootVar, []byte("old")); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(v.path("Test", Global))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flags, err := v.getFlags(f)
	if err != nil {
		t.Logf("no flags here: %v", err)
		return
	}
	if err := v.setFlags(f, flags|immutable); err != nil {
		t.Logf("no immutable flag here: %v", err)
		return
	}
	defer v.Delete("Test", Global)
	if err := os.Remove(f.Name()); !errors.Is(err, unix.EPERM) {
		t.Errorf("the flag does nothing: %v", err)
	}
	if wrote, err := v.Set("Test", Global, bootVar, []byte("new")); !wrote || err != nil {
		t.Error(wrote, err)
	}
	if now, err := v.getFlags(f); err != nil || now != flags|immutable {
		t.Errorf("%#x %v", now, err)
	}
	if err := v.Delete("Test", Global); err != nil {
		t.Error(err)
	}
	if _, _, err := v.Get("Test", Global); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestPresent(t *testing.T) {
	if Present(fstest.MapFS{"firmware/acpi/x": {}}) || !Present(fstest.MapFS{"firmware/efi/fw_platform_size": {}}) {
		t.Error("wrong")
	}
}

func TestParseRefused(t *testing.T) {
	good := unhex(t, vector)
	for n := range good {
		if n >= len(good)-6 { // the arguments may have any length
			continue
		}
		if o, err := ParseLoadOption(good[:n]); !errors.Is(err, ErrSyntax) {
			t.Errorf("cut at %d: %v %v", n, o, err)
		}
	}
	// A node shorter than its header.
	short := slices.Clone(good)
	short[30+2] = 3
	if _, err := ParseLoadOption(short); !errors.Is(err, ErrSyntax) {
		t.Error(err)
	}
}

func FuzzParseLoadOption(f *testing.F) {
	f.Add(unhex(f, vector))
	f.Add([]byte("\x01\x00\x00\x00\x04\x00\x00\x00\x7f\xff\x04\x00"))
	f.Add([]byte("\x01\x00\x00\x00\x08\x00\x00\x00\x7f\xff\x04\x00more"))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseLoadOption(b)
		if err != nil {
			return
		}
		_ = o.File()
		o.HardDrive()
		if strings.ContainsRune(o.Description, 0xfffd) { // half a surrogate pair is not kept
			return
		}
		got, err := o.Encode()
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("%x becomes %x, %v", b, got, err)
		}
	})
}

func TestSecureBoot(t *testing.T) {
	const file = "firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
	for _, tt := range []struct {
		name      string
		sys       fstest.MapFS
		on, known bool
	}{
		{"BIOS", fstest.MapFS{}, false, false},
		{"on", fstest.MapFS{file: {Data: []byte{6, 0, 0, 0, 1}}}, true, true},
		{"off", fstest.MapFS{file: {Data: []byte{6, 0, 0, 0, 0}}}, false, true},
		{"deleted", fstest.MapFS{file: {Data: []byte{}}}, false, false},
	} {
		if on, known := SecureBoot(tt.sys); on != tt.on || known != tt.known {
			t.Errorf("%s: %t %t", tt.name, on, known)
		}
	}
}
