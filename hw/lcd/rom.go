package lcd

import (
	"strings"
	"unicode/utf8"
)

// rom are the characters of both models that are not where ASCII has them (data sheets, "character generator ROM"; the range of
// ASCII follows the alphabet of GSM 03.38).
func rom() map[byte]rune {
	return map[byte]rune{
		0x10: '►', 0x11: '◄', 0x12: '⏫', 0x13: '⏬', 0x14: '«', 0x15: '»', 0x16: '↖', 0x17: '↗', 0x18: '↙', 0x19: '↘',
		0x1a: '▲', 0x1b: '▼', 0x1c: '↵', 0x1d: '^', 0x1e: 'ˇ', 0x1f: '█',
		0x24: '¤', 0x40: '¡', 0x5b: 'Ä', 0x5c: 'Ö', 0x5d: 'Ñ', 0x5e: 'Ü', 0x5f: '§', 0x60: '¿',
		0x7b: 'ä', 0x7c: 'ö', 0x7d: 'ñ', 0x7e: 'ü', 0x7f: 'à',
		0x96: '“', 0x97: '”', 0xa0: '@', 0xa2: '$', 0xc4: '_', 0xce: '~', 0xfa: '[', 0xfb: '\\', 0xfc: ']', 0xfd: '{', 0xfe: '|', 0xff: '}',
	}
}

// Encode turns text into the characters of the LCD, one byte each. What it does not have becomes a question mark; control
// characters become blanks.
func Encode(s string) []byte {
	table := rom()
	codes := make(map[rune]byte, len(table))
	for c, r := range table {
		codes[r] = c
	}
	out := make([]byte, 0, len(s))
	for _, r := range s {
		c, special := codes[r]
		_, taken := table[byte(r)]
		switch {
		case special:
			out = append(out, c)
		case r == '`', r == '’', r == '‘':
			out = append(out, '\'')
		case r < ' ' || r == 0x7f:
			out = append(out, ' ')
		case r < utf8.RuneSelf && !taken:
			out = append(out, byte(r))
		case r == '–', r == '—':
			out = append(out, '-')
		default:
			out = append(out, '?')
		}
	}
	return out
}

// Decode turns characters of the LCD into text: what a person sees. Codes that this package never writes become '�'.
func Decode(b []byte) string {
	table := rom()
	var s strings.Builder
	for _, c := range b {
		r, special := table[c]
		switch {
		case special:
			s.WriteRune(r)
		case c >= ' ' && c < utf8.RuneSelf:
			s.WriteByte(c)
		default:
			s.WriteRune(utf8.RuneError)
		}
	}
	return s.String()
}
