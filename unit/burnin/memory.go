package burnin

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// pieceSize is how much memory is taken at once, bytes.
const pieceSize = 64 << 20

// maxBadWords is how many wrong words of memory are told.
const maxBadWords = 8

// pattern is what memory is filled with: the word at an address, which is counted through all that was taken.
type pattern struct {
	name string
	word func(at uint64) uint64
}

// patterns returns what a pass fills the memory with, one after the other. In 64 passes each bit of a word walks through each place.
func patterns(pass int) []pattern {
	constant := func(w uint64) func(uint64) uint64 { return func(uint64) uint64 { return w } }
	walking := func(at uint64) uint64 { return 1 << ((at/8 + uint64(pass)) % 64) }
	var key [8]byte
	rand.Read(key[:]) // never fails
	seed := binary.LittleEndian.Uint64(key[:])
	return []pattern{
		{"zeros", constant(0)}, {"ones", constant(^uint64(0))},
		{"0x55", constant(0x5555555555555555)}, {"0xaa", constant(0xaaaaaaaaaaaaaaaa)},
		{"addresses", func(at uint64) uint64 { return at }}, {"inverted addresses", func(at uint64) uint64 { return ^at }},
		{"a walking one", walking}, {"a walking zero", func(at uint64) uint64 { return ^walking(at) }},
		{"random", func(at uint64) uint64 { return mix(at ^ seed) }},
	}
}

// mix is the output function of SplitMix64: each bit of x changes half of the result.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// store is the memory that was taken.
type store struct {
	s      *stage
	pieces [][]byte
	size   int64

	mu  sync.Mutex
	bad []string
	n   int64 // wrong words, and places that cannot be reached
}

// memory fills all free memory with patterns and reads them back until the time is over, all of it with each pattern at least once.
func (s *stage) memory(ctx context.Context) {
	const name, expected = "burn-in memory", "no word wrong"
	m := &store{s: s}
	defer m.give()
	if err := m.take(); err != nil {
		s.add(name, err.Error(), expected, "free memory can be taken", false)
		return
	}
	began, length := time.Now(), time.Duration(s.want.MemoryMinutes)*s.parts.minute
	passes, moved := 0, int64(0)
	s.total.Store(2 * m.size * int64(len(patterns(0))))
	for (passes == 0 || time.Since(began) < length) && m.n == 0 && ctx.Err() == nil {
		for _, p := range patterns(passes) {
			if m.n > 0 || ctx.Err() != nil || passes > 0 && time.Since(began) >= length {
				break
			}
			m.each(ctx, func(words []uint64, at uint64) { m.fill(words, at, p) })
			if s.parts.rest(ctx); m.n > 0 {
				break
			}
			m.each(ctx, func(words []uint64, at uint64) { m.check(words, at, p, passes) })
			moved += 2 * m.size
			if took := time.Since(began); passes > 0 && took < length { // the bytes of a pass are no measure any more
				s.total.Store(length.Milliseconds())
				s.done.Store(took.Milliseconds())
			}
		}
		passes++
	}
	found := fmt.Sprintf("%d MiB, %d passes of %d patterns, no word wrong", m.size>>20, passes, len(patterns(0)))
	if m.n > 0 {
		found = fmt.Sprintf("%d wrong: %s", m.n, few(m.bad, maxBadWords))
	}
	if why := stopped(ctx); why != "" && m.n == 0 {
		s.note(name, found, why)
		return
	}
	s.add(name, found, expected, fmt.Sprintf("all that is free is filled and read back, for %s at least", length.Round(time.Second)), m.n == 0)
	if m.n == 0 {
		s.note("burn-in memory speed", speed(moved, time.Since(began)), "measured, writing and reading")
	}
}

// take takes the free memory but for a margin, which the unit itself needs.
func (m *store) take() error {
	free, err := m.s.parts.free()
	if err != nil {
		return fmt.Errorf("how much memory is free is not known: %w", err)
	}
	margin := min(max(free/16, 256<<20), free/2)
	size := int(min(pieceSize, free-margin)) &^ 4095
	for size > 0 && m.size+int64(size) <= free-margin {
		b, err := m.s.parts.take(size)
		if err != nil {
			if len(m.pieces) > 0 { // somebody else was faster
				break
			}
			return err
		}
		m.pieces = append(m.pieces, b)
		m.size += int64(size)
		if now, err := m.s.parts.free(); err != nil || now < margin {
			break
		}
	}
	if len(m.pieces) == 0 {
		return fmt.Errorf("%d bytes of memory are free, which is too little", free)
	}
	return nil
}

func (m *store) give() {
	for _, b := range m.pieces {
		if err := m.s.parts.give(b); err != nil {
			m.s.m.Log.Warn("memory cannot be given back", "err", err)
		}
	}
}

// each does something with each piece, several at a time. A piece that cannot be reached is wrong.
func (m *store) each(ctx context.Context, do func(words []uint64, at uint64)) {
	var next atomic.Int64
	all(runtime.GOMAXPROCS(0), func(int) error {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(m.pieces) || ctx.Err() != nil {
				return nil
			}
			b := m.pieces[i]
			at := uint64(i) * uint64(len(m.pieces[0]))
			err := guarded(func() error {
				do(unsafe.Slice((*uint64)(unsafe.Pointer(&b[0])), len(b)/8), at)
				return nil
			})
			if err != nil {
				m.wrong("at %#x: %v", at+inside(b, err), err)
			}
			m.s.done.Add(int64(len(b)))
		}
	})
}

// inside says where in b an address is that cannot be reached.
func inside(b []byte, err error) uint64 {
	start := uintptr(unsafe.Pointer(&b[0]))
	if a, ok := err.(badAddress); ok && a.addr >= start && a.addr < start+uintptr(len(b)) {
		return uint64(a.addr - start)
	}
	return 0
}

func (m *store) wrong(format string, a ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.n++; len(m.bad) < maxBadWords {
		m.bad = append(m.bad, fmt.Sprintf(format, a...))
	}
}

func (m *store) fill(words []uint64, at uint64, p pattern) {
	for i := range words {
		words[i] = p.word(at + 8*uint64(i))
	}
}

func (m *store) check(words []uint64, at uint64, p pattern, pass int) {
	for i, got := range words {
		if want := p.word(at + 8*uint64(i)); got != want {
			m.wrong("at %#x %#016x instead of %#016x (%s, pass %d)", at+8*uint64(i), got, want, p.name, pass+1)
		}
	}
}
