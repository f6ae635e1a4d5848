package bmc

import (
	"strings"
	"testing"
)

// testFRU returns an inventory with a board and a product. Its texts have the type in the upper two bits of kind.
func testFRU(kind byte) []byte {
	closed := func(b []byte) []byte { return append(b, -sum(b)) }
	area := func(head []byte, texts ...string) []byte {
		b := append([]byte{1, 0}, head...)
		for _, t := range texts {
			b = append(append(b, kind|byte(len(t))), t...)
		}
		b = append(b, 0xc1)
		for len(b)%8 != 7 {
			b = append(b, 0)
		}
		b[1] = byte(len(b)+1) / 8
		return closed(b)
	}
	board := area([]byte{0x19, 1, 2, 3}, "ACME", "Board", "B-1", "P-7")
	product := area([]byte{0x19}, "ACME", "Widget", "W-1", "r2", "S-1")
	return append(append(closed([]byte{1, 0, 0, 1, 1 + byte(len(board)/8), 0, 0}), board...), product...)
}

// TestFieldText holds the four types against examples of the FRU definition and by hand.
func TestFieldText(t *testing.T) {
	for _, tc := range []struct {
		kind byte
		in   string
		want string
	}{
		{0, "\x01\xab", "01ab"},
		{1, "\x12\xab\xc0", "12 -.0"},
		{2, "\x29\xdc\xa6", "IPMI"}, // section 13.2: the example
		{3, "plain\x00rest", "plain"},
		{3, "a\x01\xffb", "a??b"},
	} {
		if got := fieldText(tc.kind, []byte(tc.in)); got != tc.want {
			t.Errorf("type %d of %x is %q, want %q", tc.kind, tc.in, got, tc.want)
		}
	}
}

// TestDamagedInventory changes each byte of an inventory: it is refused, or the bytes are those behind the areas.
func TestDamagedInventory(t *testing.T) {
	good := testFRU(0xc0)
	if _, err := ParseInventory(good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 0x10
		if got, err := ParseInventory(bad); err == nil {
			t.Errorf("byte %d changed: %+v", i, got)
		}
		if _, err := ParseInventory(good[:i]); err == nil {
			t.Errorf("cut to %d bytes: it passes", i)
		}
	}
}

func FuzzParseInventory(f *testing.F) {
	f.Add(testFRU(0xc0))
	f.Add(testFRU(0x80))
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := ParseInventory(b)
		odd := func(r rune) bool { return r < ' ' || r > '~' }
		if err == nil && strings.ContainsFunc(i.BoardMaker+i.BoardName+i.ProductName+i.ProductSerial, odd) {
			t.Errorf("a text that is no text: %+v", i)
		}
	})
}
