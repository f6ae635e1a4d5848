package dmi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// dump is a file such as dmidecode --dump-bin writes: an entry point of 64 bits, padded to 32 bytes, and the tables.
func dump(t testing.TB, structures []Structure, version int) string {
	t.Helper()
	var tables []byte
	for i, s := range structures {
		tables = append(tables, byte(s.Type), byte(len(s.Data)))
		tables = binary.LittleEndian.AppendUint16(tables, uint16(i))
		tables = append(tables, s.Data[4:]...)
		for _, text := range s.Strings {
			tables = append(append(tables, text...), 0)
		}
		if len(s.Strings) == 0 {
			tables = append(tables, 0)
		}
		tables = append(tables, 0)
	}
	tables = append(tables, 127, 4, 0xff, 0xfe, 0, 0)
	e := append([]byte("_SM3_\x00\x18"), byte(version>>8), byte(version), 0, 1, 0)
	e = binary.LittleEndian.AppendUint32(e, uint32(len(tables)))
	e = binary.LittleEndian.AppendUint64(e, 32)
	for _, b := range e[:5] {
		e[5] -= b
	}
	for _, b := range e[6:] {
		e[5] -= b
	}
	name := filepath.Join(t.TempDir(), "dump")
	if err := os.WriteFile(name, append(append(e, make([]byte, 32-len(e))...), tables...), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func dmidecode(t testing.TB, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("dmidecode"); err != nil {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	out, err := exec.Command("dmidecode", args...).Output()
	if err != nil {
		t.Fatalf("dmidecode %q: %v", args, err)
	}
	return string(out)
}

// printed is what dmidecode prints of each structure: its lines without their indentation and without titles.
func printed(out string) [][]string {
	var all [][]string
	for line := range strings.Lines(out) {
		switch {
		case strings.HasPrefix(line, "Handle 0x"):
			all = append(all, nil)
		case strings.HasPrefix(line, "\t") && len(all) > 0:
			all[len(all)-1] = append(all[len(all)-1], oneBlank(line))
		}
	}
	return all[:len(all)-1] // the end of the tables
}

// oneBlank takes the blanks off the ends of a value, which this package does not give.
func oneBlank(line string) string {
	name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
	if !ok {
		return name
	}
	return name + ": " + strings.TrimSpace(value)
}

// ours is the same of this package.
func ours(s Structure) []string {
	var out []string
	for _, f := range s.Fields() {
		out = append(out, oneBlank(f.Name+": "+f.Value))
		for _, item := range f.List {
			out = append(out, oneBlank(item))
		}
	}
	return out
}

// judge compares all structures, and returns how many lines were compared, and which fields.
func judge(t *testing.T, structures []Structure, version int, seen map[string]bool) (count int) {
	t.Helper()
	theirs := printed(dmidecode(t, "--from-dump", dump(t, structures, version)))
	if len(theirs) != len(structures) {
		t.Fatalf("dmidecode shows %d of %d structures", len(theirs), len(structures))
	}
	wrong := map[string]int{}
	for i, s := range structures {
		s.Version = version
		binary.LittleEndian.PutUint16(s.Data[2:], uint16(i)) // as dump writes it
		s.Data[0], s.Data[1] = byte(s.Type), byte(len(s.Data))
		got, want := ours(s), theirs[i]
		if s.Type == 37 && len(got) > 5 { // dmidecode shows the next device in place of each, and bytes behind the structure for the last one
			got, want = slices.Concat(got[:3], values(got[5:])), slices.Concat(want[:3], values(want[3:len(want)-2]))
		}
		if diff := firstDifference(got, want); diff != "" {
			name, _, _ := strings.Cut(diff, ": ")
			if wrong[fmt.Sprint(s.Type, name)]++; wrong[fmt.Sprint(s.Type, name)] == 1 {
				t.Errorf("version %#x, type %d, % x: %s", version, s.Type, s.Data, diff)
			}
		}
		count += len(theirs[i])
		for _, f := range s.Fields() {
			seen[fmt.Sprintf("%d %s", s.Type, pattern(f.Name))] = true
		}
	}
	return count
}

func values(lines []string) []string {
	var out []string
	for _, l := range lines {
		_, v, _ := strings.Cut(l, ": ")
		out = append(out, v)
	}
	return out
}

func firstDifference(got, want []string) string {
	for i := range max(len(got), len(want)) {
		var g, w string
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			return fmt.Sprintf("%q, dmidecode has %q", g, w)
		}
	}
	return ""
}

func words() []string {
	return []string{"one", " two ", "three\x01\xe9\x7f", "four", "5", "six", "7", "8", "n"}
}

// preset is a structure of a type with zeros, but for what must be there so that it has all its fields.
func preset(typ int) Structure {
	lengths := []int{0x1a, 0x1b, 0x13, 0x1c, 0x30, 0x15, 0xc, 0x1b, 9, 0x1d, 8, 5, 5, 0x16, 0xb, 0x1b, 0x17, 0x5c, 0x17, 0x1f, 0x23, 7, 0x1a,
		0xd, 5, 9, 0x16, 0xf, 0x16, 0x16, 6, 0x1c, 0x14, 0x1f,
		0xb, 0xb, 0x10, 0xd, 0x12, 0x16, 0x12, 0xb, 0x82, 0x1f, 0xa, 0x1c, 9}
	n := 0x20
	if typ < len(lengths) {
		n = lengths[typ]
	}
	s := Structure{Type: typ, Data: make([]byte, n), Strings: words()}
	for at, v := range map[int]map[int]byte{
		2: {0xe: 2}, 3: {0x13: 2, 0x14: 3}, 4: {6: 0xb, 0x18: 0x41}, 5: {0xe: 2}, 9: {0x12: 1}, 11: {4: 3}, 12: {4: 3}, 13: {4: 3}, 15: {0x15: 2,
			0x16: 2},
		17: {0xc: 1}, 23: {4: 0x20}, 37: {6: 2}, 38: {0x10: 8}, 40: {4: 2, 5: 6, 11: 7},
		42: {4: 0x40, 5: 9, 6: 3, 15: 1, 16: 4, 17: 95, 18 + 16: 1, 18 + 17: 1, 18 + 50: 1, 18 + 51: 1, 18 + 90: 2, 18 + 91: 'h', 18 + 92: 'o'},
		45: {0x17: 2},
	}[typ] {
		s.Data[at] = v
	}
	return s
}

// mutable is where the bytes end that may be anything: dmidecode prints the host's name as it is, line feeds too.
func mutable(s Structure) int {
	if s.Type == 42 {
		return 18 + 91
	}
	return len(s.Data)
}

func (s Structure) clone() Structure {
	s.Data = bytes.Clone(s.Data)
	return s
}

func (s Structure) with(at int, v byte) Structure {
	s = s.clone()
	s.Data[at] = v
	return s
}

// TestDmidecode holds the decoder against dmidecode, which reads the same structures from a file: each type, each value of each byte, each
// length, several versions.
func TestDmidecode(t *testing.T) {
	seen := map[string]bool{}
	total := 0
	var all []Structure
	for typ := range 47 {
		base := preset(typ)
		for at := 4; at < mutable(base); at++ {
			for _, v := range []byte{0, 1, 2, 3, 4, 7, 8, 0x10, 0x40, 0x7f, 0x80, 0xfe, 0xff} {
				all = append(all, base.with(at, v))
			}
		}
		for v := range 256 { // each byte has each value
			same, other := base.clone(), base.clone()
			for at := 4; at < mutable(base); at++ {
				if base.Data[at] == 0 {
					same.Data[at], other.Data[at] = byte(v), byte(v+7*at)
				}
			}
			all = append(all, same, other)
		}
	}
	for family := range 0x210 {
		s := preset(processor)
		copy(s.Data[6:], []byte{0xfe, 1, 0x73, 0x0f, 0x61, 0x41, 0xff, 0x00, 0x21})
		binary.LittleEndian.PutUint16(s.Data[0x28:], uint16(family))
		all = append(all, s)
	}
	for _, version := range []string{"Pentium III MMX", "Intel(R) Core(TM)2 Duo", "Intel(R) Pentium(R) 4", "Genuine Intel(R) CPU U1400",
		"Genuine Intel(R) CPU U1400x", "AMD Athlon(TM) XP",
		"AMD Athlon(tm)", "AMD Opteron(tm)", "Dual-Core AMD Opteron(tm) 1", "Intel", "AMD", "intel corp", "AuthenticAMD"} {
		for _, family := range []byte{1, 2, 0xbe} {
			s := preset(processor).with(6, family).with(7, 1).with(0x10, 1).with(9, 0x4f)
			s.Strings = []string{version}
			all = append(all, s)
		}
	}
	total += judge(t, all, 0x305, seen)

	// All bytes at once, all values at each place.
	all = nil
	r := rand.New(rand.NewPCG(1, 2))
	for typ := range 47 {
		for range 24 {
			s := preset(typ)
			for at := 4; at < mutable(s); at++ {
				if s.Data[at] == 0 || r.IntN(8) == 0 {
					s.Data[at] = byte(r.Uint32())
					switch r.IntN(6) {
					case 0:
						s.Data[at] = 0xff
					case 1:
						s.Data[at] = 0
					}
				}
			}
			all = append(all, s)
		}
	}
	for _, version := range []int{0x200, 0x202, 0x204, 0x205, 0x206, 0x207, 0x208, 0x300, 0x301, 0x302, 0x303, 0x305} {
		total += judge(t, all, version, seen)
	}

	// Short and long ones.
	all = nil
	for typ := range 256 {
		if typ == 127 {
			continue
		}
		for n := 4; n < 0x70; n++ {
			if typ > 46 && n%16 != 0 {
				continue
			}
			for _, fill := range []int{0, 1, 0xff} {
				s := preset(typ)
				s.Data = append(s.Data, make([]byte, 256)...)[:n]
				for at := 4; at < min(n, mutable(s)); at++ {
					if s.Data[at] == 0 && fill > 0 {
						s.Data[at] = byte(fill + at%9*(fill%2)*(2-fill&2))
					}
				}
				if n%7 == 0 {
					s.Strings = nil
				}
				all = append(all, s)
				if typ > 46 {
					break
				}
			}
		}
	}
	total += judge(t, all, 0x305, seen)

	t.Logf("%d lines compared", total)
	for typ := range 256 {
		for _, n := range Names(typ) {
			if !seen[fmt.Sprintf("%d %s", typ, n)] {
				t.Errorf("type %d: the field %q was never seen", typ, n)
			}
		}
	}
}
