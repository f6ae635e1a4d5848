package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"gprovision/model/edit"
)

// runXZ compresses with the real program.
func runXZ(t testing.TB, data []byte, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("xz"); err != nil {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal("program xz is missing")
		}
		t.Skip("program xz is missing")
	}
	cmd := exec.Command("xz", append([]string{"-c"}, args...)...)
	cmd.Stdin = bytes.NewReader(data)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("xz %v: %v\n%s", args, err, stderr.String())
	}
	return out
}

// sample makes data that compresses a little.
func sample(n int) []byte {
	rnd := rand.New(rand.NewSource(1))
	words := make([][]byte, 500)
	for i := range words {
		words[i] = make([]byte, 3+rnd.Intn(30))
		rnd.Read(words[i])
	}
	b := make([]byte, 0, n+40)
	for len(b) < n {
		b = append(b, words[rnd.Intn(len(words))]...)
	}
	return b[:n]
}

func decodeAll(b []byte, workers int) ([]byte, error) {
	r, err := NewReader(context.Background(), bytes.NewReader(b), int64(len(b)), workers)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	out, err := io.ReadAll(r)
	if err == nil && int64(len(out)) != r.Size() {
		err = fmt.Errorf("Size is %d, got %d bytes", r.Size(), len(out))
	}
	return out, err
}

var sha = []string{"--check=sha256"}

func with(args ...string) []string { return append(append([]string{}, sha...), args...) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestReaderAgainstXZ(t *testing.T) {
	checkLeaks(t)
	data := sample(1_600_000)
	a, b := data[:600_000], data[600_000:]
	zeros := func(n int) []byte { return make([]byte, n) }
	many := runXZ(t, data, with("-0", "-T2", "--block-size=100KiB")...)
	tests := []struct {
		name    string
		file    []byte
		want    []byte
		streams int
		blocks  int // 0: not looked at
	}{
		{"many blocks", many, data, 1, 16},
		{"many blocks with sizes left out", runXZ(t, data, with("-0", "-T1", "--block-size=100KiB")...), data, 1, 16},
		{"one block", runXZ(t, data, with("-1", "-T1")...), data, 1, 1},
		{"two streams", join(runXZ(t, a, with("-0", "--block-size=1MiB")...), runXZ(t, b, with("-0")...)), data, 2, 0},
		{"stream padding", join(runXZ(t, a, with("-0")...), zeros(8192+4), runXZ(t, b, with("-0")...), zeros(8)), data, 2, 0},
		{"empty stream between", join(runXZ(t, a, with("-0")...), runXZ(t, nil, with("-0")...), runXZ(t, b, with("-0")...)), data, 3, 2},
		{"no data", runXZ(t, nil, with("-0")...), nil, 1, 0},
		{"x86 filter", runXZ(t, data, with("--x86", "--lzma2=preset=0")...), data, 1, 1},
		{"delta filter", runXZ(t, data, with("--delta=dist=4", "--lzma2=preset=0")...), data, 1, 1},
		{"one byte blocks", runXZ(t, data[:100], with("-0", "--block-size=1")...), data[:100], 1, 100},
		{"block list", runXZ(t, data, with("-0", "-T2", "--block-list=100KiB,1MiB,0")...), data, 1, 0},
		{"64 MiB dictionary", runXZ(t, data, with("-0", "--lzma2=preset=0,dict=64MiB")...), data, 1, 1},
	}
	for _, tt := range tests {
		for _, workers := range []int{0, 1, 3, 100} {
			got, err := decodeAll(tt.file, workers)
			if err != nil || !bytes.Equal(got, tt.want) {
				t.Errorf("%s, %d workers: %d bytes, equal %t, %v", tt.name, workers, len(got), bytes.Equal(got, tt.want), err)
			}
		}
		r, err := NewReader(context.Background(), bytes.NewReader(tt.file), int64(len(tt.file)), 2)
		if err != nil {
			t.Fatal(err)
		}
		if r.Streams() != tt.streams || tt.blocks != 0 && r.Blocks() != tt.blocks {
			t.Errorf("%s: %d streams, %d blocks", tt.name, r.Streams(), r.Blocks())
		}
		r.Close()
	}

	refused := []struct {
		name string
		file []byte
		want error
	}{
		{"crc64", runXZ(t, a, "-0"), ErrNotSHA256},
		{"no check", runXZ(t, a, "-0", "--check=none"), ErrNotSHA256},
		{"second stream crc32", join(runXZ(t, a, with("-0")...), runXZ(t, b, "-0", "--check=crc32")), ErrNotSHA256},
		{"first stream crc32", join(runXZ(t, a, "-0", "--check=crc32"), runXZ(t, b, with("-0")...)), ErrNotSHA256},
		{"odd padding", join(many, zeros(3)), ErrNotXZ},
		{"garbage behind", join(many, []byte("garbage!")), ErrNotXZ},
		{"garbage before", join([]byte("garbage!"), many), ErrNotXZ},
		{"garbage between", join(many, []byte("garbage!"), many), ErrNotXZ},
		{"empty file", nil, ErrNotXZ},
		{"zeros", zeros(4096), ErrNotXZ},
		{"text", []byte(strings.Repeat("hello wo", 100)), ErrNotXZ},
		{"lzma alone", runXZ(t, a, "-0", "--format=lzma"), ErrNotXZ},
		{"192 MiB dictionary", runXZ(t, a, with("-0", "--lzma2=preset=0,dict=192MiB")...), ErrDamaged},
		{"only a header", many[:12], ErrNotXZ},
	}
	for _, tt := range refused {
		if _, err := decodeAll(tt.file, 2); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestReaderFindsEveryChange flips a bit of each byte that is not compressed data, and of some that are, and cuts the file at
// every block edge and in the middle of each part. A file as the real program makes it: three blocks, and a second stream.
func TestReaderFindsEveryChange(t *testing.T) {
	checkLeaks(t)
	data := sample(600)
	second := runXZ(t, data[:100], with("-0")...)
	file := join(runXZ(t, data, with("-0", "-T2", "--block-size=200")...), make([]byte, 4), second)
	want := append(append([]byte{}, data...), data[:100]...)
	r, err := NewReader(context.Background(), bytes.NewReader(file), int64(len(file)), 2)
	if err != nil {
		t.Fatal(err)
	}
	blocks := r.blocks
	r.Close()
	if len(blocks) != 4 {
		t.Fatalf("%d blocks", len(blocks))
	}
	same := 0
	for i := range file {
		changed := bytes.Clone(file)
		changed[i] ^= 1 << (i % 8)
		// Some bits of the properties of LZMA change nothing in short data: then it is the right data, with its right hash.
		if got, err := decodeAll(changed, 2); err == nil && !bytes.Equal(got, want) {
			t.Errorf("bit %d of byte %d of %d flipped: no error and other data", i%8, i, len(file))
		} else if err == nil {
			same++
		}
	}
	if same > len(blocks)*2 {
		t.Errorf("%d changes make no difference", same)
	}
	for n := range file {
		_, err := decodeAll(file[:n], 2)
		// Without the last stream and the padding before it, or with whole fours of the padding, it is a complete file.
		whole := n == len(file)-len(second) || n == len(file)-len(second)-4
		if whole != (err == nil) {
			t.Errorf("cut to %d of %d bytes: %v", n, len(file), err)
		}
	}
	for _, b := range blocks[1:] {
		if _, err := decodeAll(file[:b.at], 2); !errors.Is(err, ErrNotXZ) && !errors.Is(err, ErrDamaged) {
			t.Errorf("cut at a block edge: %v", err)
		}
	}
	// Two blocks exchanged: each is right in itself. Their sizes are alike, so only the data is in another order: the format
	// has no check against that, and the signature is what finds it. What must not happen is a crash.
	swapped := bytes.Clone(file)
	copy(swapped[blocks[0].at:], file[blocks[1].at:blocks[1].at+blocks[1].padded()])
	decodeAll(swapped, 2)
}

func TestReaderOrderAndBackPressure(t *testing.T) {
	checkLeaks(t)
	data := sample(6_000_000)
	file := runXZ(t, data, with("-0", "-T2", "--block-size=128KiB")...)
	r, err := NewReader(context.Background(), bytes.NewReader(file), int64(len(file)), 4)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	buf := make([]byte, 7001)
	for i := 0; ; i++ {
		n, err := r.Read(buf)
		h.Write(buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if i%50 == 0 {
			runtime.Gosched()
		}
	}
	if n, err := r.Read(buf); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d, %v", n, err)
	}
	if sum := sha256.Sum256(data); !bytes.Equal(h.Sum(nil), sum[:]) {
		t.Error("data differs")
	}
}

func TestReaderClose(t *testing.T) {
	data := sample(4_000_000)
	file := runXZ(t, data, with("-0", "-T2", "--block-size=256KiB")...)
	t.Run("early", func(t *testing.T) {
		checkLeaks(t)
		for n := range 20 {
			r, err := NewReader(context.Background(), bytes.NewReader(file), int64(len(file)), 3)
			if err != nil {
				t.Fatal(err)
			}
			io.CopyN(io.Discard, r, int64(n)*100_000)
			r.Close()
			r.Close()
			if _, err := r.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		}
	})
	t.Run("context", func(t *testing.T) {
		checkLeaks(t)
		ctx, cancel := context.WithCancel(context.Background())
		r, err := NewReader(ctx, bytes.NewReader(file), int64(len(file)), 3)
		if err != nil {
			t.Fatal(err)
		}
		io.CopyN(io.Discard, r, 100_000)
		cancel()
		if _, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("error", func(t *testing.T) {
		checkLeaks(t)
		broken := bytes.Clone(file)
		broken[len(broken)/2] ^= 1
		for _, b := range [][]byte{broken} {
			if _, err := decodeAll(b, 2); !errors.Is(err, ErrDamaged) {
				t.Errorf("got %v", err)
			}
		}
		boom := errors.New("boom")
		for at := range 3 {
			src := &failingAt{bytes.NewReader(file), int64(len(file)) * int64(at) / 3, boom}
			r, err := NewReader(context.Background(), src, int64(len(file)), 2)
			if err == nil {
				_, err = io.Copy(io.Discard, r)
			}
			if !errors.Is(err, boom) || errors.Is(err, ErrDamaged) {
				t.Errorf("read error at third %d: %v", at, err)
			}
		}
	})
}

// failingAt fails for each read that touches the byte at.
type failingAt struct {
	r   io.ReaderAt
	at  int64
	err error
}

func (f *failingAt) ReadAt(b []byte, off int64) (int, error) {
	if off <= f.at && f.at < off+int64(len(b)) {
		return 0, f.err
	}
	return f.r.ReadAt(b, off)
}

// TestReaderBoundsMemory decodes 400 MB of zeros with a reader that stops: no more than the window may be held.
func TestReaderBoundsMemory(t *testing.T) {
	checkLeaks(t)
	one := runXZ(t, make([]byte, 100<<20), with("-0")...)
	file := join(one, one, one, one)
	r, err := NewReader(context.Background(), bytes.NewReader(file), int64(len(file)), 4)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.CopyN(io.Discard, r, 1<<20); err != nil {
		t.Fatal(err)
	}
	for _, j := range []*job{r.current} {
		if c := cap(j.out); c*chunkBytes > windowAhead {
			t.Errorf("a block of 100 MiB may hold %d chunks", c)
		}
	}
	if n, err := io.Copy(io.Discard, r); err != nil || n != 400<<20-1<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapSys > 400<<20 {
		t.Errorf("the heap grew to %d MB", m.HeapSys/1e6)
	}
}

// TestHostileIndex: an index may claim anything; its checksum is no secret.
func TestHostileIndex(t *testing.T) {
	for _, b := range []block{{unpadded: 1 << 61, size: 10}, {unpadded: 50, size: 1 << 62}, {unpadded: 41, size: 1 << 40}, {unpadded: 1, size: 1}} {
		head, tail := envelope(b)
		for _, mid := range []int{0, 44, 52, 4096} {
			file := join(head, make([]byte, mid), tail)
			if _, err := decodeAll(file, 2); err == nil {
				t.Errorf("%+v with %d bytes: no error", b, mid)
			}
		}
	}
}

func checkLeaks(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for i := 0; runtime.NumGoroutine() > before; i++ {
			if i == 1000 {
				buf := make([]byte, 1<<16)
				t.Errorf("%d goroutines before, %d after\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
				return
			}
			// The last thing a goroutine does is not visible to who waits for it.
			runtime.Gosched()
			if i > 500 {
				<-time.After(time.Millisecond)
			}
		}
	})
}

func FuzzReader(f *testing.F) {
	data := sample(400)
	good := [][]byte{runXZ(f, data, with("-0", "--block-size=100")...), join(runXZ(f, data, with("-0")...), make([]byte, 4), runXZ(f, data, with("-0")...)), []byte(magicHeader)}
	more, err := edit.Bases(os.DirFS("testdata/reader"))
	if err != nil {
		f.Fatal(err)
	}
	good = append(good, more...)
	for _, s := range edit.Scripts() {
		for i := range len(good) {
			f.Add(uint8(i), s)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, script []byte) {
		b := edit.Apply(good[int(which)%len(good)], script)
		r, err := NewReader(context.Background(), bytes.NewReader(b), int64(len(b)), 2)
		if err != nil {
			return
		}
		defer r.Close()
		n, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20))
		if err == nil && n < 1<<20 && n != r.Size() {
			t.Errorf("%d bytes of %d without an error", n, r.Size())
		}
	})
}

// BenchmarkReader decodes the file that GPROV_BENCH_XZ names, or a made one.
func BenchmarkReader(b *testing.B) {
	name := os.Getenv("GPROV_BENCH_XZ")
	if name == "" {
		name = filepath.Join(b.TempDir(), "x")
		if err := os.WriteFile(name, runXZ(b, sample(64<<20), with("-0", "-T2", "--block-size=4MiB")...), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for _, workers := range []int{1, runtime.NumCPU()} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			for range b.N {
				f, err := os.Open(name)
				if err != nil {
					b.Fatal(err)
				}
				st, err := f.Stat()
				if err != nil {
					b.Fatal(err)
				}
				r, err := NewReader(context.Background(), f, st.Size(), workers)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(r.Size())
				if _, err := io.Copy(io.Discard, r); err != nil {
					b.Fatal(err)
				}
				f.Close()
			}
		})
	}
}
