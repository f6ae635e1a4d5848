package lzma

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/mikelolasagasti/xz"

	"gprovision/model/edit"
)

// compress makes LZMA2 data with the real program. options are those of its --lzma2.
func compress(t testing.TB, data []byte, options string) []byte {
	t.Helper()
	if _, err := exec.LookPath("xz"); err != nil {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal("program xz is missing")
		}
		t.Skip("program xz is missing")
	}
	cmd := exec.Command("xz", "-c", "--format=raw", "--lzma2="+options)
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("xz --lzma2=%s: %v", options, err)
	}
	return out
}

// decode decodes all of b. It returns also how many bytes of b were used.
func decode(d *Decoder, b, buf []byte, dict int, slide bool) (out []byte, used int, err error) {
	src := bytes.NewReader(b)
	d.Reset(src, buf, dict, slide)
	for {
		data, err := d.Next()
		if err == io.EOF {
			return out, len(b) - src.Len(), nil
		}
		if err != nil {
			return out, len(b) - src.Len(), err
		}
		out = append(out, data...)
	}
}

// samples are data of different kinds: what compresses well and badly, what makes xz store chunks and reset its state.
func samples(t testing.TB, n int) map[string][]byte {
	t.Helper()
	rnd := rand.New(rand.NewSource(7))
	random := make([]byte, n)
	rnd.Read(random)
	var text, far []byte
	for len(text) < n {
		text = fmt.Appendf(text, "line %d of %d: the quick brown fox %x\n", len(text), rnd.Intn(50), rnd.Intn(1<<20))
	}
	var mixed []byte
	for len(mixed) < n {
		switch k := rnd.Intn(40_000); rnd.Intn(4) {
		case 0:
			mixed = append(mixed, random[:min(k, n)]...)
		case 1:
			mixed = append(mixed, text[:min(k, n)]...)
		case 2:
			mixed = append(mixed, bytes.Repeat([]byte{byte(k)}, k)...)
		default:
			mixed = append(mixed, bytes.Repeat([]byte("abcdefghijklmnopq")[:1+k%17], k/17+1)...)
		}
	}
	far = append(append(append(far, random[:n/2]...), make([]byte, 10)...), random[:n/2]...)
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"random": random, "text": text[:n], "mixed": mixed[:n], "far": far[:n], "zeros": make([]byte, n),
		"program": program[:min(n, len(program))], "empty": nil, "one byte": {7}, "three bytes": {1, 1, 1},
	}
}

func TestAgainstXZ(t *testing.T) {
	options := []struct {
		text string
		dict int
	}{
		{"preset=6,dict=1MiB", 1 << 20},
		{"preset=0,dict=4KiB", 4 << 10},
		{"preset=1,dict=6KiB", 6 << 10},
		{"preset=3,lc=0,lp=4,pb=0,dict=1MiB", 1 << 20},
		{"preset=3,lc=4,lp=0,pb=4,dict=1MiB", 1 << 20},
		{"preset=3,lc=1,lp=3,pb=1,dict=64KiB", 64 << 10},
		{"preset=1,lc=0,lp=0,pb=3,dict=1MiB,mode=fast,nice=273", 1 << 20},
		{"preset=9e,dict=1MiB,nice=5", 1 << 20},
	}
	for i := range 10 {
		options = append(options, struct {
			text string
			dict int
		}{fmt.Sprintf("preset=%d,dict=4MiB", i), 4 << 20})
	}
	n := 150_000
	if !testing.Short() {
		n = 600_000
	}
	var d Decoder
	for name, data := range samples(t, n) {
		whole := make([]byte, len(data)+Room)
		for _, o := range options {
			packed := compress(t, data, o.text)
			out, used, err := decode(&d, packed, whole[:len(data)+Room], o.dict, false)
			if err != nil || used != len(packed) || !bytes.Equal(out, data) {
				t.Errorf("%s with %s: used %d of %d bytes, got %d of %d, %v", name, o.text, used, len(packed), len(out), len(data), err)
			}
			out, used, err = decode(&d, packed, make([]byte, Window(o.dict)), o.dict, true)
			if err != nil || used != len(packed) || !bytes.Equal(out, data) {
				t.Errorf("%s with %s through a window: used %d of %d bytes, got %d of %d, %v", name, o.text, used, len(packed), len(out), len(data), err)
			}
			if len(data) > 0 {
				if out, _, err := decode(&d, packed, whole[:len(data)-1+Room], o.dict, false); !errors.Is(err, ErrDamaged) || len(out) >= len(data) {
					t.Errorf("%s with %s into a short buffer: %d bytes, %v", name, o.text, len(out), err)
				}
			}
		}
	}
}

// TestJoinedChunks joins what xz made from several data with several models: resets of the dictionary and of the properties in
// the middle of a block, with stored chunks between.
func TestJoinedChunks(t *testing.T) {
	var packed, want []byte
	random := samples(t, 9000)["random"]
	for i, o := range []string{"preset=1,lc=4,dict=1MiB", "preset=0,lc=0,lp=2,pb=0,dict=1MiB", "preset=6,dict=1MiB"} {
		data := append(bytes.Repeat([]byte(o), 1000+i), random[i:]...)
		p := compress(t, data, o)
		packed = append(packed, p[:len(p)-1]...)
		// A stored chunk with a dictionary of its own, and one that goes on with it.
		packed = append(append(packed, 1, 0, 2), "new"...)
		packed = append(append(packed, 2, 0, 2), "old"...)
		want = append(append(want, data...), "newold"...)
	}
	packed = append(packed, 0)
	var d Decoder
	out, used, err := decode(&d, packed, make([]byte, len(want)+Room), 1<<20, false)
	if err != nil || used != len(packed) || !bytes.Equal(out, want) {
		t.Errorf("used %d of %d, got %d of %d bytes, %v", used, len(packed), len(out), len(want), err)
	}
	for i, bad := range []string{"", "\x02\x00\x00a\x00", "\x80\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00", "\x01\x00\x00a\xa0\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00",
		"\x03\x00\x00a\x00", "\xe0\x00\x00\x00\x04\xe1\x00\x00\x00\x00\x00\x00", "\xe0\x00\x00\x00\x04\x26\x00\x00\x00\x00\x00\x00", "\x01\x00\x05a"} {
		if out, _, err := decode(&d, []byte(bad), make([]byte, 1000), 4096, false); err == nil || len(out) > 1 {
			t.Errorf("bad data %d: %q, %v", i, out, err)
		}
	}
}

// TestDamage changes and cuts LZMA2 data. There is no check inside, so other data may come out; but it never panics, never
// gives more than fits, and agrees with another decoder on what is damaged.
func TestDamage(t *testing.T) {
	packed := compress(t, []byte(strings.Repeat("some text that repeats, ", 20)+"\x00\x01\x02"+strings.Repeat("z", 300)), "preset=6,dict=4KiB")
	buf := make([]byte, most+Room)
	for i := range packed {
		for bit := range 8 {
			b := bytes.Clone(packed)
			b[i] ^= 1 << bit
			compare(t, b, buf)
		}
		compare(t, packed[:i], buf)
	}
}

func FuzzDecoder(f *testing.F) {
	good := [][]byte{nil}
	for _, o := range []string{"preset=0,dict=4KiB", "preset=6,lc=1,lp=2,pb=3,dict=4KiB"} {
		for _, name := range []string{"random", "text", "mixed", "far", "zeros", "one byte"} {
			good = append(good, compress(f, samples(f, 3000)[name], o))
		}
	}
	for _, s := range edit.Scripts() {
		for i := range len(good) {
			f.Add(uint8(i), s)
		}
	}
	buf := make([]byte, most+Room)
	f.Fuzz(func(t *testing.T, which uint8, script []byte) {
		compare(t, edit.Apply(good[int(which)%len(good)], script), buf)
	})
}

// most is more than compare decodes.
const most = 5 << 20

// compare decodes b with this package in both ways and with package xz, into which it puts an envelope. buf has most+Room bytes.
func compare(t *testing.T, b, buf []byte) {
	t.Helper()
	const dict = 4096
	var d Decoder
	window := buf[:Window(dict)]
	got, used, err := decode(&d, b, buf, dict, false)
	strict := d.in[0] != 0 || binary.BigEndian.Uint32(d.in[1:]) == 1<<32-1
	through, used2, err2 := decode(&d, b, window, dict, true)
	if len(got) > most-maxChunk {
		return
	}
	if !bytes.Equal(got, through) || used != used2 || (err == nil) != (err2 == nil) {
		t.Fatalf("whole: %d bytes, used %d, %v; through a window: %d, %d, %v", len(got), used, err, len(through), used2, err2)
	}

	file := append([]byte("\xfd7zXZ\x00"), 0, 0)
	file = binary.LittleEndian.AppendUint32(file, crc32.ChecksumIEEE([]byte{0, 0}))
	head := []byte{2, 0, 0x21, 1, 0, 0, 0, 0}
	file = append(binary.LittleEndian.AppendUint32(append(file, head...), crc32.ChecksumIEEE(head)), b[:used]...)
	unpadded := len(file) - 12
	if err == nil {
		for len(file)%4 != 0 {
			file = append(file, 0)
		}
		tail := binary.AppendUvarint(binary.AppendUvarint([]byte{0, 1}, uint64(unpadded)), uint64(len(got)))
		for len(tail)%4 != 0 {
			tail = append(tail, 0)
		}
		file = binary.LittleEndian.AppendUint32(append(file, tail...), crc32.ChecksumIEEE(tail))
		foot := binary.LittleEndian.AppendUint32(nil, uint32(len(tail)/4))
		foot = append(foot, 0, 0)
		file = append(binary.LittleEndian.AppendUint32(file, crc32.ChecksumIEEE(foot)), foot...)
		file = append(file, "YZ"...)
	}
	var other []byte
	z, otherErr := xz.NewReader(bufio.NewReader(bytes.NewReader(file)), 1<<20)
	if otherErr == nil {
		other, otherErr = io.ReadAll(z)
	}
	switch {
	case err == nil:
		if otherErr != nil || !bytes.Equal(got, other) {
			t.Fatalf("%d bytes without an error; package xz: %d bytes, %v", len(got), len(other), otherErr)
		}
	case !bytes.HasPrefix(other, got):
		t.Fatalf("%d bytes, then %v; package xz: %d bytes, which differ, %v", len(got), err, len(other), otherErr)
	case errors.Is(err, ErrDamaged) && !strict && (otherErr == io.EOF || errors.Is(otherErr, io.ErrUnexpectedEOF)):
		t.Fatalf("%v; package xz: not damaged, %v", err, otherErr)
	}
}
