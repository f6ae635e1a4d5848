package raid

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gprovision/model/edit"
)

const arrayUUID = "01234567-89ab-cdef-0123-456789abcdef"

// size of the test's members, bytes: no multiple of 64 KiB.
const size = 4<<20 + 4096

// sb is what a superblock of version 1 says.
type sb struct {
	level, disks int32
	events       uint64
	own          int
	roles        []uint16
	name         string
	clean        bool
}

// put1 writes a superblock of version 1 at an offset, as mdadm(8) does (struct mdp_superblock_1 of linux/raid/md_p.h).
func put1(disk []byte, at int64, s sb) {
	b := disk[at : at+4096]
	le.PutUint32(b, magic)
	le.PutUint32(b[4:], 1)
	copy(b[16:], []byte{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef})
	copy(b[32:64], s.name)
	le.PutUint32(b[72:], uint32(s.level))
	le.PutUint64(b[80:], 2048) // sectors in use of each member
	le.PutUint32(b[92:], uint32(s.disks))
	le.PutUint64(b[128:], 2048) // where data begin
	le.PutUint64(b[136:], 4096) // and how many
	le.PutUint64(b[144:], uint64(at/512))
	le.PutUint32(b[160:], uint32(s.own))
	copy(b[168:184], "member's own uuid")
	le.PutUint64(b[200:], s.events)
	if s.clean {
		le.PutUint64(b[208:], 1<<64-1)
	}
	le.PutUint32(b[220:], uint32(len(s.roles)))
	for i, r := range s.roles {
		le.PutUint16(b[256+2*i:], r)
	}
	le.PutUint32(b[216:], 0)
	var sum uint64
	words := b[:256+2*len(s.roles)]
	for len(words) >= 4 {
		sum, words = sum+uint64(le.Uint32(words)), words[4:]
	}
	if len(words) == 2 {
		sum += uint64(le.Uint16(words))
	}
	le.PutUint32(b[216:], uint32(sum)+uint32(sum>>32))
}

// put090 writes a superblock of version 0.90 (mdp_super_t).
func put090(disk []byte, order binary.ByteOrder, place, state uint32) {
	at := len(disk)&^65535 - 65536
	b := disk[at : at+4096]
	word := func(i int, v uint32) { order.PutUint32(b[4*i:], v) }
	for i, v := range map[int]uint32{0: magic, 2: 90, 5: 0x01234567, 7: 1, 10: 2, 13: 0x89abcdef, 14: 0x01234567, 15: 0x89abcdef, 33: 1, 34: 2, 992 + 3: place, 992 + 4: state} {
		word(i, v)
	}
	low := 39
	if order == binary.BigEndian {
		low = 40
	}
	word(low, 7)
	var sum uint64
	for i := range 1024 {
		sum += uint64(order.Uint32(b[4*i:]))
	}
	word(38, uint32(sum)+uint32(sum>>32))
}

var mirror = sb{level: 1, disks: 2, events: 9, own: 1, roles: []uint16{0, 1}, name: "host:gprov", clean: true}

func TestRead(t *testing.T) {
	at10 := int64(size/512-16) &^ 7 * 512
	want := Member{UUID: arrayUUID, Host: "host", Name: "gprov", Level: 1, Disks: 2, Place: 1, Active: 2, Events: 9, Clean: true}
	old := Member{Format: V090, UUID: arrayUUID, Level: 1, Disks: 2, Place: 1, Active: 2, Events: 7, Clean: true}
	with := func(m Member, change func(*Member)) Member { change(&m); return m }
	for _, c := range []struct {
		name string
		disk func(b []byte)
		want Member
	}{
		{"1.2", func(b []byte) { put1(b, 4096, mirror) }, with(want, func(m *Member) { m.Format = V12 })},
		{"1.1", func(b []byte) { put1(b, 0, mirror) }, with(want, func(m *Member) { m.Format = V11 })},
		{"1.0", func(b []byte) { put1(b, at10, mirror) }, with(want, func(m *Member) { m.Format = V10 })},
		{"1.2, one member is gone", func(b []byte) {
			s := mirror
			s.roles = []uint16{0xfffe, 1, 0xffff}
			s.clean = false
			put1(b, 4096, s)
		}, with(want, func(m *Member) { m.Format, m.Active, m.Clean = V12, 1, false })},
		{"1.2, a spare", func(b []byte) {
			s := mirror
			s.own, s.roles = 2, []uint16{0, 1, 0xffff}
			put1(b, 4096, s)
		}, with(want, func(m *Member) { m.Format, m.Place = V12, Spare })},
		{"0.90", func(b []byte) { put090(b, le, 1, 6) }, old},
		{"0.90 of another byte order", func(b []byte) { put090(b, binary.BigEndian, 1, 6) }, old},
		{"0.90, failed", func(b []byte) { put090(b, le, 1, 1) }, with(old, func(m *Member) { m.Place = Faulty })},
		{"IMSM", func(b []byte) { copy(b[size-1024:], "Intel Raid ISM Cfg Sig. 1.3.00") }, Member{Format: IMSM, Name: "Intel Raid ISM Cfg Sig. 1.3.00", Place: Spare}},
		{"DDF", func(b []byte) { copy(b[size-512:], "\xde\x11\xde\x11....LSI\x01") }, Member{Format: DDF, Name: "LSI", Place: Spare}},
		{"nothing", func([]byte) {}, Member{}},
		{"bad checksum", func(b []byte) { put1(b, 4096, mirror); b[4096+33] ^= 1 }, Member{}},
		{"copied to another place", func(b []byte) { put1(b, 8192, mirror); copy(b[4096:], b[8192:8192+4096]) }, Member{}},
		{"too many roles", func(b []byte) { put1(b, 4096, mirror); le.PutUint32(b[4096+220:], 1<<30) }, Member{}},
		{"no place for it", func(b []byte) {
			s := mirror
			s.roles = []uint16{0, 9}
			put1(b, 4096, s)
		}, Member{}},
	} {
		b := make([]byte, size)
		c.disk(b)
		got, err := Read(bytes.NewReader(b), size)
		if c.want == (Member{}) {
			if !errors.Is(err, ErrNone) {
				t.Errorf("%s: got %+v, %v", c.name, got, err)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%s: got %+v, %v, want %+v", c.name, got, err, c.want)
		}
		if got.String() == "" || strings.ContainsAny(got.String(), "\x00\n") {
			t.Errorf("%s: described as %q", c.name, got)
		}
	}
	if _, err := Read(io.NewSectionReader(bytes.NewReader(nil), 0, 0), size); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("a disk that cannot be read gives %v", err)
	}
}

// TestReadAsMdadm lets mdadm read what the tests write: the layout of the superblocks is not ours alone.
func TestReadAsMdadm(t *testing.T) {
	mdadm, err := exec.LookPath("mdadm")
	if err != nil {
		skip(t, "mdadm is not installed (Debian package mdadm)")
	}
	if os.Geteuid() != 0 {
		skip(t, "loop devices need root")
	}
	for name, put := range map[string]func([]byte){
		"1.2":     func(b []byte) { put1(b, 4096, mirror) },
		"1.1":     func(b []byte) { put1(b, 0, mirror) },
		"1.0":     func(b []byte) { put1(b, int64(size/512-16)&^7*512, mirror) },
		"0.90.00": func(b []byte) { put090(b, le, 1, 6) },
	} {
		b := make([]byte, size)
		put(b)
		file := filepath.Join(t.TempDir(), "member")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		loop, err := exec.Command("losetup", "-f", "--show", file).Output()
		if err != nil {
			skip(t, "no loop device: "+err.Error())
		}
		dev := strings.TrimSpace(string(loop))
		out, err := exec.Command(mdadm, "--examine", dev).CombinedOutput()
		if derr := exec.Command("losetup", "-d", dev).Run(); derr != nil {
			t.Error(derr)
		}
		text := strings.Join(strings.Fields(string(out)), " ")
		for _, want := range []string{"Version : " + name, "UUID : 01234567:89abcdef:01234567:89abcdef", "Raid Level : raid1", "Raid Devices : 2", "- correct", "State : clean"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: mdadm does not say %q: %v: %s", name, want, err, out)
			}
		}
	}
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("GPROV_NO_SKIP") == "1" {
		t.Fatal("GPROV_NO_SKIP=1, but: " + why)
	}
	t.Skip(why)
}

func FuzzRead(f *testing.F) {
	// Only the superblock itself is changed, and put where it belongs.
	var good [][]byte
	at := []int{4096, 64 << 10, 0}
	for i, put := range []func([]byte){func(b []byte) { put1(b, 4096, mirror) }, func(b []byte) { put090(b, le, 1, 6) }, func(b []byte) { put1(b, 0, mirror) }} {
		b := make([]byte, 128<<10)
		put(b)
		good = append(good, b[at[i]:at[i]+4096])
	}
	for _, s := range edit.Scripts() {
		for i := range len(good) {
			f.Add(uint8(i), s)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, script []byte) {
		i := int(which) % len(good)
		b := make([]byte, 128<<10)
		copy(b[at[i]:], edit.Apply(good[i], script))
		m, err := Read(bytes.NewReader(b), int64(len(b)))
		if err != nil && !errors.Is(err, ErrNone) {
			t.Fatal(err)
		}
		if err == nil && !m.Foreign() && (m.UUID == "" || m.Place >= m.Disks || m.Active > m.Disks || m.Active < 0) {
			t.Fatalf("%+v", m)
		}
	})
}

// part is a member of an array for tests.
func part(path string, level, disks, active, place int, events uint64) Part {
	return Part{Member: Member{UUID: arrayUUID, Level: level, Disks: disks, Active: active, Place: place, Events: events}, Path: path}
}

func TestFind(t *testing.T) {
	parts := func(level, disks int, places ...int) []Part {
		var out []Part
		for _, p := range places {
			out = append(out, part(string(rune('a'+p)), level, disks, disks, p, 5))
		}
		return out
	}
	for _, c := range []struct {
		name             string
		parts            []Part
		used             string
		complete, enough bool
	}{
		{"none", nil, "", false, false},
		{"mirror", parts(1, 2, 1, 0), "ab", true, true},
		{"half a mirror", parts(1, 2, 1), "b", false, true},
		{"half a mirror, as before", []Part{part("b", 1, 2, 1, 1, 5)}, "b", true, true},
		{"one that was away", []Part{part("a", 1, 2, 2, 0, 3), part("b", 1, 2, 1, 1, 9)}, "b", true, true},
		{"one event behind", []Part{part("a", 1, 2, 2, 0, 8), part("b", 1, 2, 2, 1, 9)}, "ab", true, true},
		{"a copy of a member", []Part{part("a", 1, 2, 2, 0, 9), part("x", 1, 2, 2, 0, 9), part("b", 1, 2, 2, 1, 9)}, "ab", true, true},
		{"a spare", append(parts(1, 2, 0, 1), part("s", 1, 2, 2, Spare, 5)), "ab", true, true},
		{"stripes", parts(0, 2, 0), "a", false, false},
		{"RAID 5, one is gone", parts(5, 3, 0, 2), "ac", false, true},
		{"RAID 5, two are gone", parts(5, 3, 2), "c", false, false},
		{"RAID 6, two are gone", parts(6, 4, 0, 3), "ad", false, true},
		{"RAID 6, three are gone", parts(6, 4, 3), "d", false, false},
		{"RAID 10, one of each pair", parts(10, 4, 1, 2), "bc", false, true},
		{"RAID 10, a pair is gone", parts(10, 4, 2, 3), "cd", false, false},
		{"RAID 10 of three, one is gone", parts(10, 3, 0, 1), "ab", false, true},
		{"RAID 10 of three, two are gone", parts(10, 3, 1), "b", false, false},
		{"linear", parts(-1, 2, 0, 1), "ab", true, true},
	} {
		a := Find(append(c.parts, Part{Member: Member{UUID: "another", Disks: 9, Events: 99}}, Part{Member: Member{Format: IMSM}}), arrayUUID)
		used := ""
		for _, p := range a.Parts {
			used += p.Path
		}
		if used != c.used || a.Complete() != c.complete || a.Enough() != c.enough || len(a.Parts)+len(a.Stale) != len(c.parts) {
			t.Errorf("%s: used %q, complete %t, enough %t, stale %d", c.name, used, a.Complete(), a.Enough(), len(a.Stale))
		}
	}
	if a := Find([]Part{{Member: Member{Format: DDF}}}, ""); a.Enough() || len(a.Parts) > 0 {
		t.Errorf("firmware RAID makes the array %+v", a)
	}
}

func TestSize(t *testing.T) {
	const g = 1 << 30
	for _, c := range []struct {
		level, n int
		want     int64 // times a member's room
	}{{0, 3, 3}, {1, 2, 1}, {5, 4, 3}, {6, 4, 2}, {10, 4, 2}, {10, 2, 1}, {5, 2, 0}, {6, 3, 0}, {1, 1, 0}, {4, 3, 0}} {
		if got := Size(c.level, c.n, g+256<<20); got != c.want*g {
			t.Errorf("level %d, %d members: %d bytes", c.level, c.n, got)
		}
	}
	if Size(1, 2, 100<<20) != 0 {
		t.Error("members of 100 MiB are enough")
	}
}

// TestMdadm holds what mdadm is asked to do.
func TestMdadm(t *testing.T) {
	var got []string
	exit := 0
	run := func(_ context.Context, path string, args ...string) ([]byte, int, error) {
		got = append([]string{path}, args...)
		return []byte("mdadm: it is\n busy"), exit, nil
	}
	ctx := t.Context()
	if err := Create(ctx, run, Plan{Device: "/dev/md0", Level: 10, UUID: arrayUUID, Name: "gprov", Members: []string{"/dev/sdb1", "/dev/sda1"}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{Mdadm, "--create", "/dev/md0", "--run", "--metadata=1.2", "--name=gprov", "--uuid=01234567:89abcdef:01234567:89abcdef", "--level=10", "--raid-devices=2", "--bitmap=internal", "--layout=n2"} {
		if !slices.Contains(got, want) {
			t.Errorf("create: %q has no %s", got, want)
		}
	}
	if n := len(got); got[n-2] != "/dev/sdb1" || got[n-1] != "/dev/sda1" {
		t.Errorf("members are %q", got)
	}
	a := Array{UUID: arrayUUID, Parts: []Part{{Path: "/dev/sdb1"}}, Stale: []Part{{Path: "/dev/sda1"}}}
	if err := Assemble(ctx, run, "/dev/md0", a); err != nil || !slices.Contains(got, "--run") || !slices.Contains(got, "/dev/sdb1") || slices.Contains(got, "/dev/sda1") {
		t.Errorf("assemble: %q, %v", got, err)
	}
	exit = 1
	if err := Stop(ctx, run, "/dev/md0"); err == nil || !strings.Contains(err.Error(), "it is busy") {
		t.Errorf("got %v", err)
	}
	if got := Conf("/dev/md0", arrayUUID); got != "ARRAY /dev/md0 metadata=1.2 UUID=01234567:89abcdef:01234567:89abcdef\n" {
		t.Errorf("mdadm.conf has %q", got)
	}
}

func TestState(t *testing.T) {
	sys := t.TempDir()
	if yes, err := Running(sys, "/dev/md0"); yes || err != nil || Known(sys, "/dev/md0") {
		t.Errorf("without md: %t, %v", yes, err)
	}
	dir := filepath.Join(sys, "block/md0/md")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for state, want := range map[string][2]bool{"clear": {false, false}, "inactive": {true, false}, "read-auto": {true, true}, "clean": {true, true}} {
		if err := os.WriteFile(filepath.Join(dir, "array_state"), []byte(state+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if yes, err := Running(sys, "/dev/md0"); yes != want[1] || err != nil || Known(sys, "/dev/md0") != want[0] {
			t.Errorf("%s: %t, %v", state, yes, err)
		}
	}
}
