package lcd

import (
	"fmt"
	"strings"
)

// Columns is the width of both models.
const Columns = 20

// Model is a kind of LCD.
type Model uint8

// The models. Boxes of the XES635 series are 635s.
const (
	Model631 Model = iota + 1 // 2 rows, four keys, signs beside them
	Model635                  // 4 rows, six keys, four lamps
)

// ParseModel reads what an LCD answers to CmdVersion. Everything of the maker that is no 635 is treated as a 631, whose
// commands all of them know; an answer that is not of the maker is an error.
func ParseModel(version string) (Model, error) {
	v := strings.ToUpper(version)
	switch {
	case strings.HasPrefix(v, "CFA635"), strings.HasPrefix(v, "XES635"):
		return Model635, nil
	case strings.HasPrefix(v, "CFA"):
		return Model631, nil
	}
	return 0, fmt.Errorf("no Crystalfontz LCD: its version is %q", version)
}

// String returns "631" or "635".
func (m Model) String() string {
	switch m {
	case Model631:
		return "631"
	case Model635:
		return "635"
	}
	return "none"
}

// Rows is the number of lines.
func (m Model) Rows() int {
	if m == Model635 {
		return 4
	}
	return 2
}

// KeyMask is all keys of the model, for Conn.ReportKeys.
func (m Model) KeyMask() byte {
	if m == Model635 {
		return 0x3f
	}
	return 0x0f
}

// Key is a key of an LCD.
type Key uint8

// The keys: six of the 635, then the four of the 631 by their places.
const (
	KeyUp Key = iota + 1
	KeyDown
	KeyLeft
	KeyRight
	KeyEnter
	KeyExit
	KeyUL
	KeyUR
	KeyLL
	KeyLR
)

// String returns the key's name.
func (k Key) String() string {
	names := [...]string{"none", "up", "down", "left", "right", "enter", "exit", "upper left", "upper right", "lower left", "lower right"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("key %d", k)
}

// Role is what a key means while something is chosen.
type Role uint8

// The roles.
const (
	Previous Role = iota + 1
	Next
	Choose
	Cancel
)

// Role returns what k means while something is chosen. On a 631 the keys of the left side go back and forth, those of the
// right side choose and cancel. 0 for what is no key.
func (k Key) Role() Role {
	switch k {
	case KeyUp, KeyLeft, KeyUL:
		return Previous
	case KeyDown, KeyRight, KeyLL:
		return Next
	case KeyEnter, KeyUR:
		return Choose
	case KeyExit, KeyLR:
		return Cancel
	}
	return 0
}

// Mask is the bit of k in CmdReportKeys and CmdPollKeys, 0 for what is no key.
func (k Key) Mask() byte {
	masks := [...]byte{0, 0x01, 0x20, 0x08, 0x10, 0x02, 0x04, 0x01, 0x02, 0x04, 0x08}
	if int(k) < len(masks) {
		return masks[k]
	}
	return 0
}

// Keys are those of the model.
func (m Model) Keys() []Key {
	if m == Model635 {
		return []Key{KeyUp, KeyDown, KeyLeft, KeyRight, KeyEnter, KeyExit}
	}
	return []Key{KeyUL, KeyUR, KeyLL, KeyLR}
}

// KeyEvent is a key that was pressed or released.
type KeyEvent struct {
	Key     Key
	Release bool
}

// Code is the byte that reports the event: 1 to 6 and 7 to 12 on a 635, 13 to 16 and 17 to 20 on a 631.
func (e KeyEvent) Code() byte {
	c := byte(e.Key)
	if e.Key >= KeyUL {
		if c += 6; e.Release {
			c += 4
		}
	} else if e.Release {
		c += 6
	}
	return c
}

// keyEvent is the event with that code.
func keyEvent(code byte) (KeyEvent, bool) {
	switch {
	case code >= 1 && code <= 6:
		return KeyEvent{Key: Key(code)}, true
	case code >= 7 && code <= 12:
		return KeyEvent{Key: Key(code - 6), Release: true}, true
	case code >= 13 && code <= 16:
		return KeyEvent{Key: Key(code - 6)}, true
	case code >= 17 && code <= 20:
		return KeyEvent{Key: Key(code - 10), Release: true}, true
	}
	return KeyEvent{}, false
}

// Sign is a symbol beside a key of the 631.
type Sign byte

// The signs of CmdLegend.
const (
	SignBlank Sign = iota
	SignX
	SignCheck
	SignUp
	SignDown
	SignRight
	SignLeft
	SignPlus
	SignMinus
	SignNone
)

// Legend says what the keys do: the signs at upper left, upper right, lower left and lower right. The zero value is no legend.
// A 631 shows it in the three right columns of both rows. A 635 has its signs printed on the keys; there only up and down are
// shown, in the last column, since they report whether there is more in that direction.
type Legend [4]Sign

// The legends of menus (up and down) and of questions (left and right), by which directions lead on.
var (
	LegendUpDown    = Legend{SignUp, SignCheck, SignDown, SignX}
	LegendDown      = Legend{SignBlank, SignCheck, SignDown, SignX}
	LegendUp        = Legend{SignUp, SignCheck, SignBlank, SignX}
	LegendChoose    = Legend{SignBlank, SignCheck, SignBlank, SignX}
	LegendLeftRight = Legend{SignLeft, SignCheck, SignRight, SignX}
	LegendRight     = Legend{SignBlank, SignCheck, SignRight, SignX}
	LegendLeft      = Legend{SignLeft, SignCheck, SignBlank, SignX}
)

// data is what CmdLegend sends.
func (l Legend) data() []byte {
	if l == (Legend{}) {
		return []byte{0}
	}
	return []byte{1, byte(l[0]), byte(l[1]), byte(l[2]), byte(l[3])}
}

// Width is how many columns of a line are left beside the legend.
func (l Legend) Width(m Model) int {
	switch {
	case l == (Legend{}):
		return Columns
	case m == Model631:
		return Columns - 3
	case l[0] == SignUp || l[2] == SignDown:
		return Columns - 1
	}
	return Columns
}

// CursorStyle is how the cursor looks.
type CursorStyle byte

// The styles of CmdCursorStyle.
const (
	CursorHidden CursorStyle = iota
	CursorBlinkingBlock
	CursorUnderscore
	CursorBlinkingUnderscore
	CursorInvertingBlock
)
