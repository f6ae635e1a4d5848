package engine

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"golang.org/x/crypto/chacha20"

	"gprovision/hw/drive"
	"gprovision/lab/simdrive"
	"gprovision/model/erasure"
)

// memory is a device in memory. Sectors of bad cannot be written.
type memory struct {
	mu     sync.Mutex
	data   []byte
	bad    map[int64]bool
	writes int
	syncs  int
}

const sector = 512

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return copy(p, m.data[off:]), nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	for at := off; at < off+int64(len(p)); at += sector {
		if m.bad[at/sector] {
			return 0, errors.New("a bad sector")
		}
	}
	return copy(m.data[off:], p), nil
}

func (m *memory) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.syncs++
	return nil
}

func (m *memory) area() Area {
	return Area{Blocks: m, Size: func() int64 { return int64(len(m.data)) }}
}

func overwriterOf(t testing.TB, pos *Position, requests int, areas ...Area) *overwriter {
	t.Helper()
	o, err := newOverwriter(derive([]byte("seed"), "stream"), pos)
	if err != nil {
		t.Fatal(err)
	}
	o.blocks, o.blockSize, o.requests = areas, sector, requests
	o.allowed, o.reached = func() error { return nil }, func() error { return nil }
	return o
}

// TestOverwrite writes two areas, with sectors that cannot be written, by one request at a time and by four.
func TestOverwrite(t *testing.T) {
	for _, requests := range []int{1, 4} {
		m := &memory{data: bytes.Repeat([]byte{0xaa}, 5<<20), bad: map[int64]bool{7: true, 8: true, 4099: true}}
		n := &memory{data: bytes.Repeat([]byte{0xbb}, 3<<20)}
		var pos Position
		part := Area{Blocks: n, Offset: 1 << 20, Size: func() int64 { return 1<<20 + sector }}
		if err := overwriterOf(t, &pos, requests, m.area(), part).run(context.Background()); err != nil {
			t.Fatal(err)
		}
		want := erasure.OverwriteWord{Sectors: 6<<11 + 1, Written: 6<<11 - 2, Flushed: true, ReadBack: 6<<11 - 2, Different: 3}
		if pos.Word != want {
			t.Errorf("%d requests: %+v, want %+v", requests, pos.Word, want)
		}
		if bad := []erasure.Range{{First: 7, Count: 2}, {First: 4099, Count: 1}}; !slices.Equal(pos.Unwritten, bad) {
			t.Errorf("%d requests: not written: %v", requests, pos.Unwritten)
		}
		for i, b := range m.data {
			if want := byte(0); b != want && !m.bad[int64(i/sector)] {
				t.Fatalf("%d requests: byte %d is %#x", requests, i, b)
			}
		}
		if n.data[1<<20-1] != 0xbb || n.data[1<<20] != 0 || n.data[2<<20+sector-1] != 0 || n.data[2<<20+sector] != 0xbb {
			t.Errorf("%d requests: it is not the range that was written", requests)
		}
	}
}

// TestOverwriteListsWhatFits counts blocks of ranges that no certificate has room for.
func TestOverwriteListsWhatFits(t *testing.T) {
	m := &memory{data: make([]byte, 1<<20), bad: map[int64]bool{}}
	for i := range int64(erasure.MaxList + 10) {
		m.bad[3*i] = true
	}
	var pos Position
	if err := overwriterOf(t, &pos, 1, m.area()).run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(pos.Unwritten) != erasure.MaxList || pos.More < 10 || pos.Word.Written >= pos.Word.Sectors {
		t.Errorf("%d ranges, %d more, %+v", len(pos.Unwritten), pos.More, pos.Word)
	}
}

// TestOverwriteIsReadBack fails unless an overwrite that did not reach the medium is told.
func TestOverwriteIsReadBack(t *testing.T) {
	m := &memory{data: make([]byte, 2<<20)}
	var pos Position
	o := overwriterOf(t, &pos, 1, m.area())
	o.reached = func() error {
		if pos.Pass == passReadBack && pos.Next == 0 {
			m.data[1<<20+5*sector] ^= 1
		}
		return nil
	}
	if err := o.run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if pos.Word.Different != 1 || heard(erasure.Overwrite, erasure.Word{Overwrite: &pos.Word}) {
		t.Errorf("%+v", pos.Word)
	}
}

// TestOverwriteGoesOn stops an overwrite after each of its stored states and goes on from there: nothing is done twice that was finished.
func TestOverwriteGoesOn(t *testing.T) {
	stop := errors.New("stop")
	m := &memory{data: make([]byte, 4<<20)}
	var pos Position
	runs := 0
	for ; pos.Pass < passesDone; runs++ {
		last := pos
		o := overwriterOf(t, &pos, 1, m.area())
		o.reached = func() error { return stop }
		if err := o.run(context.Background()); err != nil && !errors.Is(err, stop) {
			t.Fatal(err)
		}
		if pos.Pass == last.Pass && pos.Next == last.Next {
			t.Fatalf("it stays at %+v", pos)
		}
	}
	if !heard(erasure.Overwrite, erasure.Word{Overwrite: &pos.Word}) || runs != 3*(4+1) || m.writes != 2*4 {
		t.Errorf("%+v after %d runs and %d writes", pos.Word, runs, m.writes)
	}
}

// TestNothingIsWrittenWithoutPermit fails if a drive that is in use, or is another one, gets so much as a canary.
func TestNothingIsWrittenWithoutPermit(t *testing.T) {
	for name, spoil := range map[string]func(*rig){
		"in use":      func(g *rig) { g.sim.SetUsers("mounted at /") },
		"not claimed": func(g *rig) { g.sim.SetClaimed(false) },
		"no permit":   func(g *rig) { g.permit = drive.Permit{} },
	} {
		for _, c := range []simdrive.Config{simdrive.NVMeDisk(1), simdrive.SATADisk(1), simdrive.SCSIDisk(1)} {
			c = small(c, 100)
			g := newRig(t, c, simdrive.Faults{})
			before, _ := g.sim.Residue()
			spoil(g)
			res, err, _ := g.run(context.Background())
			if !errors.Is(err, drive.ErrNotPermitted) || res.Drive.Outcome != erasure.Failed || res.Drive.Evidence.Method != "" {
				t.Errorf("%s: %v, %s %+v", name, err, res.Drive.Outcome, res.Drive.Evidence)
			}
			if after, _ := g.sim.Residue(); after != before {
				t.Errorf("%s: %d sectors of %d are left", name, after, before)
			}
			valid(t, res.Drive)
		}
	}
}

// TestRequestsInFlight overwrites a simulated drive by eight requests at once.
func TestRequestsInFlight(t *testing.T) {
	c := small(simdrive.SATADisk(1), 1<<15)
	c.Methods = nil
	g := newRig(t, c, simdrive.Faults{})
	g.requests = 8
	if res := g.finish(); res.Drive.Outcome != erasure.Proved {
		t.Errorf("%s %q", res.Drive.Outcome, res.Drive.Reasons)
	}
}

// BenchmarkStream compares the two ciphers that the keyed stream could be made of.
func BenchmarkStream(b *testing.B) {
	buf := aligned(chunk)
	b.Run("AES-CTR", func(b *testing.B) {
		o := overwriterOf(b, &Position{}, 1)
		b.SetBytes(chunk)
		for b.Loop() {
			o.stream(buf, 1<<40)
		}
	})
	b.Run("ChaCha20", func(b *testing.B) {
		b.SetBytes(chunk)
		for b.Loop() {
			c, err := chacha20.NewUnauthenticatedCipher(make([]byte, 32), make([]byte, 12))
			if err != nil {
				b.Fatal(err)
			}
			clear(buf)
			c.XORKeyStream(buf, buf)
		}
	})
}
