// Package edit changes known good bytes as a short script says, for fuzz tests of formats whose smallest good file has kilobytes. The
// fuzzer of package testing makes each input that shows something new smaller, for up to a minute, and with a whole file as its input it
// does nothing else: twelve tries in ten seconds. With a script it makes thousands, and all of them begin at something that is good.
//
// It has nothing to do with what a unit or a server does.
package edit

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// step is the length of one change in a script: what, where (three bytes), and two values.
const step = 6

// numbers are those at which programs err.
func numbers() []uint64 {
	return []uint64{0, 1, 2, 7, 8, 0x7f, 0x80, 0xff, 0x100, 511, 512, 513, 4095, 4096, 0x7fff, 0x8000, 0xffff, 0x10000, 1 << 20, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 32, 1 << 40, 1<<63 - 1, 1 << 63, 1<<64 - 1}
}

// Apply returns a copy of base with the changes of a script. Every script is valid; what is left over at its end does nothing.
func Apply(base, script []byte) []byte {
	out := append([]byte(nil), base...)
	for ; len(script) >= step; script = script[step:] {
		if len(out) == 0 {
			out = append(out, 0)
		}
		at := int(script[1])<<16 | int(script[2])<<8 | int(script[3])
		at %= len(out)
		value, count := script[4], int(script[5])
		number := numbers()[int(value)%len(numbers())]
		switch script[0] % 9 {
		case 0:
			out[at] = value
		case 1:
			out[at] ^= value
		case 2:
			out = put(out, at, binary.LittleEndian.AppendUint32(nil, uint32(number)))
		case 3:
			out = put(out, at, binary.BigEndian.AppendUint32(nil, uint32(number)))
		case 4:
			out = put(out, at, binary.LittleEndian.AppendUint64(nil, number))
		case 5: // digits, as tar and cpio have them
			out = put(out, at, fmt.Appendf(nil, "%0*o", count%12, number))
		case 6:
			out = out[:at]
		case 7: // remove
			out = append(out[:at], out[min(len(out), at+count*int(value|1)):]...)
		case 8: // say twice
			part := append([]byte(nil), out[at:min(len(out), at+count*int(value|1))]...)
			out = append(out[:at], append(part, out[at:]...)...)
		}
		if len(out) > len(base)+1<<20 {
			return out
		}
	}
	return out
}

func put(b []byte, at int, value []byte) []byte {
	copy(b[at:], value)
	return b
}

// Scripts are some scripts to begin with: nothing, and one change of each kind.
func Scripts() [][]byte {
	out := [][]byte{nil}
	for kind := range byte(9) {
		out = append(out, []byte{kind, 0, 1, kind * 7, kind * 3, 8})
	}
	return out
}

// Tar is Apply for a tar; a script that changes something leaves the sums of its headers right.
func Tar(base, script []byte) []byte {
	out := Apply(base, script)
	if len(script) < step {
		return out
	}
	return TarSums(out)
}

// Bases reads files of the form in which package testing keeps inputs of fuzz tests, each of one []byte: more to begin with.
func Bases(dir fs.FS) ([][]byte, error) {
	var out [][]byte
	entries, err := fs.ReadDir(dir, ".")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		b, err := fs.ReadFile(dir, e.Name())
		if err != nil {
			return nil, err
		}
		_, value, _ := strings.Cut(strings.TrimSpace(string(b)), "\n[]byte(")
		text, err := strconv.Unquote(strings.TrimSuffix(value, ")"))
		if err != nil {
			return nil, fmt.Errorf("%s is no input of a fuzz test with one []byte: %w", e.Name(), err)
		}
		out = append(out, []byte(text))
	}
	return out, nil
}

// TarSums mends the sums in the headers of a tar, in place, so that a changed header is looked at and not refused for its sum. A header
// is known by its magic.
func TarSums(b []byte) []byte {
	for at := 0; at+512 <= len(b); at += 512 {
		h := b[at : at+512]
		if string(h[257:262]) != "ustar" {
			continue
		}
		sum := 8 * int(' ')
		for i, c := range h {
			if i < 148 || i >= 156 {
				sum += int(c)
			}
		}
		copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	}
	return b
}
