package qrtext

import (
	"errors"
	"image/color"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/boombuler/barcode/qr"
)

// modules reads what Draw has drawn: whether each module is dark, the light ones around it left out.
func modules(t *testing.T, lines []string) [][]bool {
	t.Helper()
	side := utf8.RuneCountInString(lines[0])
	all := make([][]bool, 2*len(lines))
	for i, l := range lines {
		if utf8.RuneCountInString(l) != side {
			t.Fatalf("line %d has another width than the first", i)
		}
		for _, c := range l {
			all[2*i] = append(all[2*i], c != '█' && c != '▀')
			all[2*i+1] = append(all[2*i+1], c != '█' && c != '▄')
		}
	}
	var out [][]bool
	for y, row := range all[:side] {
		for x, dark := range row {
			if edge := x < quiet || y < quiet || x >= side-quiet || y >= side-quiet; edge && dark {
				t.Fatalf("the module %d, %d around the code is dark", x, y)
			}
		}
		if y >= quiet && y < side-quiet {
			out = append(out, row[quiet:side-quiet])
		}
	}
	return out
}

// TestDraw: each module is where the encoder has it, with the three patterns in the corners by which readers find a code.
func TestDraw(t *testing.T) {
	for i, n := range capacities() {
		text := strings.Repeat("A1:/", n/4+1)[:n]
		lines, err := Draw(text)
		if err != nil {
			t.Fatal(err)
		}
		got := modules(t, lines)
		if side := 21 + 4*i; len(got) != side || len(got[0]) != side {
			t.Fatalf("%d characters take %d modules, want those of version %d", n, len(got), i+1)
		}
		code, err := qr.Encode(text, qr.L, qr.AlphaNumeric)
		if err != nil {
			t.Fatal(err)
		}
		for y, row := range got {
			for x, dark := range row {
				if want := code.At(x, y) == color.Black; dark != want {
					t.Fatalf("version %d: the module %d, %d is drawn dark: %t", i+1, x, y, dark)
				}
			}
		}
		last := len(got) - 1
		for k := range 7 { // the outer ring of the finder patterns
			if !got[0][k] || !got[6][k] || !got[k][0] || !got[0][last-k] || !got[last][k] || got[7][k] || got[last-7][k] {
				t.Fatalf("version %d has no finder patterns", i+1)
			}
		}
		if room := Room(21+4*i+2*quiet, len(lines)); room != n {
			t.Errorf("on a screen of its size there is room for %d characters, want %d", room, n)
		}
		if room := Room(20+4*i+2*quiet, len(lines)); room >= n {
			t.Errorf("on a screen that is too narrow there is room for %d characters", room)
		}
	}
	if _, err := Draw(strings.Repeat("A", 4297)); !errors.Is(err, ErrSize) {
		t.Error("too long:", err)
	}
	if _, err := Draw("small letters"); err == nil {
		t.Error("what is not of the set was drawn")
	}
	if room := Room(10, 10); room != 0 {
		t.Error("room on no screen:", room)
	}
}
