package release

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"testing"
)

// sum puts the checksum of b[from:to] at b[at:].
func sum(b []byte, from, to, at int) {
	binary.LittleEndian.PutUint32(b[at:], crc32.ChecksumIEEE(b[from:to]))
}

// TestForged: who changes a file makes its checksums right again. What the parts say of each other must hold all the same, and be
// nothing that a builder does not make.
func TestForged(t *testing.T) {
	checkLeaks(t)
	data := sample(600)
	sizes, bare := runXZ(t, data, with("-0", "-T2", "--block-size=1MiB")...), runXZ(t, data, with("-0", "-T1")...)
	for name, c := range map[string]struct {
		file   []byte
		change func(b []byte)
		kind   error
		say    string
	}{
		"stream flags, reserved byte": {bare, func(b []byte) { b[6] = 1; sum(b, 6, 8, 8) }, ErrNotSHA256, "flags 010a"},
		"stream flags, another check": {bare, func(b []byte) { b[7] = 4; sum(b, 6, 8, 8) }, ErrNotSHA256, "flags 0004"},
		"footer, reserved byte":       {bare, func(b []byte) { b[8] = 1; sum(b, 4, 10, 0) }, ErrNotSHA256, "flags in the footer"},
		"footer, another check":       {bare, func(b []byte) { b[9] = 4; sum(b, 4, 10, 0) }, ErrNotSHA256, "flags in the footer"},
		"footer, an index larger than the file": {bare, func(b []byte) { b[5] = 1; sum(b, 4, 10, 0) }, ErrDamaged,
			"index does not fit in"},
		"footer, an index of 8 MiB":     {bare, func(b []byte) { b[6] = 32; sum(b, 4, 10, 0) }, ErrDamaged, "is too large"},
		"header, none":                  {bare, func(b []byte) { b[0] = 0 }, ErrDamaged, "size of the header"},
		"header, longer than the block": {bare, func(b []byte) { b[0] = 255 }, ErrDamaged, "size of the header"},
		"header, reserved flags":        {bare, func(b []byte) { b[1] = 4; sum(b, 0, 8, 8) }, ErrDamaged, "flags 0x4"},
		"header, another filter":        {bare, func(b []byte) { b[2] = 0x20; sum(b, 0, 8, 8) }, ErrDamaged, "filter 0x20"},
		"header, two properties":        {bare, func(b []byte) { b[3] = 2; sum(b, 0, 8, 8) }, ErrDamaged, "filter 0x21"},
		"header, no such property":      {bare, func(b []byte) { b[4] = 41; sum(b, 0, 8, 8) }, ErrDamaged, "filter 0x21"},
		"header, 4 GiB":                 {bare, func(b []byte) { b[4] = 40; sum(b, 0, 8, 8) }, ErrDamaged, "more than 64 MiB"},
		"header, 96 MiB":                {bare, func(b []byte) { b[4] = 29; sum(b, 0, 8, 8) }, ErrDamaged, "more than 64 MiB"},
		"header, padding":               {bare, func(b []byte) { b[7] = 1; sum(b, 0, 8, 8) }, ErrDamaged, "padding of the header"},
		"header, another length of data": {sizes, func(b []byte) { b[2] ^= 1; sum(b, 0, headed(b), headed(b)) }, ErrDamaged,
			"the header says"},
		"header, another length decoded": {sizes, func(b []byte) { b[4] ^= 1; sum(b, 0, headed(b), headed(b)) }, ErrDamaged,
			"the header says"},
	} {
		b := bytes.Clone(c.file)
		part := b // of the file, where the change counts from
		switch kind, _, _ := strings.Cut(name, ","); kind {
		case "footer":
			part = b[len(b)-xzHeader:]
		case "header":
			part = b[xzHeader:]
		}
		c.change(part)
		if _, err := decodeAll(b, 1); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What is not forged is taken, the largest dictionary with it.
	large := bytes.Clone(bare)
	large[xzHeader+4] = 28
	sum(large[xzHeader:], 0, 8, 8)
	for _, b := range [][]byte{sizes, bare, large} {
		if got, err := decodeAll(b, 1); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	// A file that has become shorter since somebody asked how long it is.
	if _, err := NewReader(t.Context(), bytes.NewReader(bare[:len(bare)-4]), int64(len(bare)), 1); !errors.Is(err, ErrNotXZ) {
		t.Errorf("cut: %v", err)
	}
}

// headed is where the checksum of a block's header is.
func headed(b []byte) int { return (int(b[0])+1)*4 - 4 }

// TestIndex: an index is taken only as the format has it.
func TestIndex(t *testing.T) {
	large := func(n ...int64) (b []byte) {
		b = append(b, 0, byte(len(n)))
		for _, n := range n {
			b = append(putNumber(b, n), 1)
		}
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
		return b
	}
	for name, c := range map[string]struct {
		body  []byte
		total int64 // below zero: it is not taken
	}{
		"no block":               {[]byte{0, 0, 0, 0}, 0},
		"the smallest block":     {[]byte{0, 1, 41, 5}, 44},
		"two blocks":             {[]byte{0, 2, 41, 5, 44, 1, 0, 0}, 88},
		"padding":                {[]byte{0, 1, 41, 0x85, 1, 0, 0, 0}, 44},
		"large blocks":           {large(1<<60, 1<<60), 1 << 61},
		"a large block":          {large(1 << 61), 1 << 61},
		"nothing":                {nil, -1},
		"not an index":           {[]byte{1, 1, 41, 5}, -1},
		"too small a block":      {[]byte{0, 1, 40, 5}, -1},
		"fewer blocks than said": {[]byte{0, 2, 41, 5}, -1},
		"a count of 2^62":        {[]byte{0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40, 0, 0}, -1},
		"no size":                {[]byte{0, 1, 0xa9, 0x80, 0x80, 0x01, 0x80, 0x80}, -1},
		"a cut number":           {[]byte{0, 1, 0xa9, 0x80}, -1},
		"too much padding":       {[]byte{0, 1, 41, 5, 0, 0, 0, 0}, -1},
		"padding that says more": {[]byte{0, 1, 41, 0x85, 1, 0, 0, 1}, -1},
		"too large a block":      {large(1<<61 + 1), -1},
		"too much in all":        {large(1<<60, 1<<60, 41), -1},
		"all there can be":       {large(math.MaxInt64, math.MaxInt64), -1},
	} {
		index := append(slices.Clone(c.body), 0, 0, 0, 0)
		sum(index, 0, len(c.body), len(c.body))
		blocks, total, ok := parseIndex(index)
		if ok != (c.total >= 0) || ok && (total != c.total || len(blocks) != int(c.body[1])) {
			t.Errorf("%s: %d blocks of %d bytes, %t", name, len(blocks), total, ok)
		}
		index[len(index)-1] ^= 1
		if _, _, ok := parseIndex(index); ok {
			t.Errorf("%s: taken with a wrong checksum", name)
		}
	}
}

// TestNumber: a number has one form only, of nine bytes at most.
func TestNumber(t *testing.T) {
	for _, n := range []int64{0, 1, 127, 128, 16383, 16384, 1 << 62, math.MaxInt64} {
		b := putNumber(nil, n)
		if got, rest, ok := number(append(b, 7)); !ok || got != n || !bytes.Equal(rest, []byte{7}) {
			t.Errorf("%d: %d, %x, %t", n, got, rest, ok)
		}
		if _, _, ok := number(b[:len(b)-1]); ok {
			t.Errorf("%d: taken though it is cut", n)
		}
	}
	for _, b := range [][]byte{{0x80, 0}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}} {
		if n, _, ok := number(b); ok {
			t.Errorf("%x is %d", b, n)
		}
	}
}

// TestPadding: the zeros between a block's data and its check are zeros, and are there.
func TestPadding(t *testing.T) {
	data, padded := sample(600), 0
	for n := range 4 {
		file := runXZ(t, data[:500+n], with("-0", "-T1")...)
		r, err := NewReader(t.Context(), bytes.NewReader(file), int64(len(file)), 1)
		if err != nil {
			t.Fatal(err)
		}
		b := r.blocks[0]
		r.Close()
		for at := b.at + b.unpadded - shaBytes; at < b.at+b.padded()-shaBytes; at++ {
			changed := bytes.Clone(file)
			changed[at] = 1
			if _, err := decodeAll(changed, 1); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "padding") {
				t.Errorf("byte %d of the padding: %v", at, err)
			}
		}
		if b.padded() > b.unpadded {
			padded++
		}
	}
	if padded == 0 {
		t.Error("no file has padding")
	}
}
