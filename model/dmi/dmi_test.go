package dmi

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestKeywords compares each keyword with dmidecode -s, over tables with and without what it stands for.
func TestKeywords(t *testing.T) {
	var whole, bare, short Tables
	for _, typ := range []int{0, 1, 2, 3, processor, processor, processor} {
		s := preset(typ)
		for i, at := range []int{4, 5, 6, 7, 8} {
			if typ != processor {
				s.Data[at] = byte(i + 1)
			}
		}
		switch typ {
		case 0:
			copy(s.Data[0x14:], []byte{1, 2, 3, 4})
		case 1:
			s.Data[0x19], s.Data[0x1a] = 6, 2
		case 3:
			s.Data[5] = 0x97
		case processor:
			s.Data[6], s.Data[7], s.Data[0x10], s.Data[0x16] = 0xb3, 1, 99, 0x10
		}
		whole = append(whole, s)
		bare = append(bare, preset(typ))
		s = s.clone()
		s.Data = s.Data[:map[bool]int{true: 8, false: 9}[typ == 1]] // dmidecode reads a UUID behind the end of a structure
		short = append(short, s)
	}
	whole[5].Data[0x18] = 0 // an empty socket
	whole = append(whole, whole[2].with(4, 3))
	count := 0
	for _, tables := range []Tables{whole, bare, short, nil} {
		for _, version := range []int{0x204, 0x305} {
			for i := range tables {
				tables[i].Version = version
				tables[i].Data[0], tables[i].Data[1] = byte(tables[i].Type), byte(len(tables[i].Data))
			}
			file := dump(t, tables, version)
			for _, k := range Keywords() {
				lines := strings.Split(strings.TrimRight(dmidecode(t, "-s", k, "--from-dump", file), "\n"), "\n")
				typ, _, _ := KeywordField(k)
				of := tables.Of(typ)
				if len(lines) == len(of) { // dmidecode prints all structures: of processors those that are there, of others the first count
					if typ == processor {
						for i := len(of) - 1; i >= 0; i-- {
							if !of[i].Populated() {
								lines = slices.Delete(lines, i, i+1)
							}
						}
					} else {
						lines = lines[:1]
					}
				}
				for i := range lines {
					lines[i] = strings.TrimSpace(lines[i])
				}
				if got, want := tables.Keyword(k), strings.Join(lines, "\n"); got != want {
					t.Errorf("version %#x, %d structures, %s: %q, dmidecode prints %q", version, len(tables), k, got, want)
				} else if got != "" {
					count++
				}
			}
		}
	}
	t.Logf("%d values compared", count)
	if count < 100 {
		t.Error("that is too few")
	}
	if got := (Tables{}).Keyword("no-such"); got != "" {
		t.Errorf("%q", got)
	}
}

// TestAllKeywords compares the list of keywords with the one that dmidecode prints.
func TestAllKeywords(t *testing.T) {
	dmidecode(t, "--version") // it is there
	out, err := exec.Command("dmidecode", "-s").CombinedOutput()
	if err == nil {
		t.Error("dmidecode has another way to list them")
	}
	var theirs []string
	for line := range strings.Lines(string(out)) {
		if k, ok := strings.CutPrefix(line, "  "); ok {
			theirs = append(theirs, strings.TrimSpace(k))
		}
	}
	if !slices.Equal(theirs, Keywords()) {
		t.Errorf("dmidecode has %q", theirs)
	}
}

func TestUnknown(t *testing.T) {
	for _, k := range Keywords() {
		typ, field, ok := KeywordField(k)
		if why := Unknown(Keyword, k); why != "" || !ok || !Known(typ, field) {
			t.Errorf("%s: %s, %d %s", k, why, typ, field)
		}
	}
	for _, f := range []struct {
		typ  int
		name string
		near string
	}{
		{17, "Size", "-"}, {17, " Size: ", "-"}, {11, "String 1", "-"}, {11, "String 255", "-"}, {9, "Peer Device 3", "-"}, {255, "Strings",
			"-"}, {44, "Header and Data", "-"},
		{37, "Device 2 Handle", "-"}, {42, "Redfish Service Port", "-"},
		{17, "size", `"Size"`}, {17, "Sized", `"Size"`}, {11, "String 0", `"String #"`}, {11, "String 256", `"String #"`}, {11, "String 01",
			`"String #"`},
		{0, "Verndor", `"Vendor"`}, {1, "Zebra", "no field \"Zebra\""}, {127, "Strings", ""}, {256, "Strings", ""}, {Keyword, "system-uid",
			`"system-uuid"`}, {Keyword, "Vendor", "no keyword"},
	} {
		why := Unknown(f.typ, f.name)
		if (why == "") != (f.near == "-") || why != "" && !strings.Contains(why, f.near) {
			t.Errorf("%d %q: %q", f.typ, f.name, why)
		}
	}
}

// FuzzFields takes any bytes for a structure of any type.
func FuzzFields(f *testing.F) {
	for typ := range 47 {
		s := preset(typ)
		f.Add(byte(typ), uint16(0x305), s.Data[4:], "one\x00two")
		f.Add(byte(typ), uint16(0x204), s.Data[4:min(7, len(s.Data))], "")
	}
	f.Fuzz(func(t *testing.T, typ byte, version uint16, data []byte, texts string) {
		s := Structure{Type: int(typ), Version: int(version), Data: append(make([]byte, 4), data[:min(len(data), 251)]...)}
		if texts != "" {
			s.Strings = strings.Split(texts, "\x00")
		}
		for _, field := range s.Fields() {
			if !Known(s.Type, field.Name) {
				t.Errorf("type %d: %q is not known", typ, field.Name)
			}
			if strings.ContainsFunc(field.Text(), func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
				t.Errorf("type %d, %s: %q", typ, field.Name, field.Text())
			}
		}
		for _, k := range Keywords() {
			Tables{s}.Keyword(k)
		}
	})
}
