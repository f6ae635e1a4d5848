// Package qrtext draws QR codes with the characters of a text screen, two modules in one character, for machines that have nothing else to
// give a file away by. It reads none.
package qrtext

import (
	"errors"
	"fmt"
	"image/color"
	"strings"

	"github.com/boombuler/barcode/qr"
)

// quiet is how many light modules are around a code (ISO/IEC 18004, 9.1).
const quiet = 4

// ErrSize says that a text does not fit into a code.
var ErrSize = errors.New("too much for a QR code")

// capacities returns how many characters of the alphanumeric set fit into each version from 1, at error correction level L (ISO/IEC 18004,
// table 7).
func capacities() []int {
	return []int{
		25, 47, 77, 114, 154, 195, 224, 279, 335, 395, 468, 535, 619, 667, 758, 854, 938, 1046, 1153, 1249, 1352, 1460, 1588, 1704, 1853, 1990,
		2132, 2223, 2369, 2520, 2677, 2840, 3009, 3183, 3351, 3537, 3729, 3927, 4087, 4296,
	}
}

// Room returns how many characters of the alphanumeric set a code may have that is drawn on so many columns and lines, 0 if none fits.
func Room(columns, lines int) int {
	room := 0
	for i, n := range capacities() {
		if side := 21 + 4*i + 2*quiet; side <= columns && (side+1)/2 <= lines {
			room = n
		}
	}
	return room
}

// Draw returns the lines of a code for a text of the alphanumeric set: light modules are drawn, since screens are dark. The error wraps
// ErrSize if the text is too long.
func Draw(text string) ([]string, error) {
	if most := capacities()[len(capacities())-1]; len(text) > most {
		return nil, fmt.Errorf("%d characters, at most %d: %w", len(text), most, ErrSize)
	}
	code, err := qr.Encode(text, qr.L, qr.AlphaNumeric)
	if err != nil {
		return nil, fmt.Errorf("make QR code: %w", err)
	}
	side := code.Bounds().Dx()
	light := func(x, y int) bool {
		x, y = x-quiet, y-quiet
		return x < 0 || y < 0 || x >= side || y >= side || color.GrayModel.Convert(code.At(x, y)).(color.Gray).Y > 127
	}
	var out []string
	for y := 0; y < side+2*quiet; y += 2 {
		var line strings.Builder
		for x := range side + 2*quiet {
			switch upper, lower := light(x, y), light(x, y+1) && y+1 < side+2*quiet; {
			case upper && lower:
				line.WriteRune('█')
			case upper:
				line.WriteRune('▀')
			case lower:
				line.WriteRune('▄')
			default:
				line.WriteByte(' ')
			}
		}
		out = append(out, line.String())
	}
	return out, nil
}
