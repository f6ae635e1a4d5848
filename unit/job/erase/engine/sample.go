package engine

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"gprovision/model/erasure"
)

// digestSize is the length of what is kept of a place, in bytes. Zeros stand for a place that says nothing.
const digestSize = 8

// derive makes a key for one use of the seed.
func derive(seed []byte, use string) []byte {
	h := hmac.New(sha256.New, seed)
	h.Write([]byte(use))
	return h.Sum(nil)
}

// sampler looks at secret places of a drive before and after an erase. That places are looked at uncached is up to the blocks.
type sampler struct {
	blocks    Blocks
	blockSize int
	seed      []byte
	key       []byte // of the digests
	buf       []byte
}

func newSampler(b Blocks, blockSize int, seed []byte) *sampler {
	return &sampler{blocks: b, blockSize: blockSize, seed: seed, key: derive(seed, "digests"), buf: aligned(blockSize)}
}

// places returns the ends, which are canaries, and behind them the random places. One that is an end too is a canary.
func (s *sampler) places(blocks uint64) (ends, random []erasure.Place) {
	for _, b := range erasure.Ends(blocks) {
		ends = append(ends, erasure.Place{Block: b, Canary: true})
	}
	random = erasure.Choose(erasure.Seed(s.seed), blocks, erasure.DefaultSamples)
	for i := range random {
		random[i].Canary = random[i].Canary || slices.ContainsFunc(ends, func(e erasure.Place) bool { return e.Block == random[i].Block })
	}
	return ends, random
}

// read reads a block into the sampler's buffer, twice if it has to.
func (s *sampler) read(block uint64) error {
	_, err := s.blocks.ReadAt(s.buf, int64(block)*int64(s.blockSize))
	if err != nil {
		_, err = s.blocks.ReadAt(s.buf, int64(block)*int64(s.blockSize))
	}
	return err
}

// digest returns what is kept of a block with the given content.
func (s *sampler) digest(block uint64, content []byte) []byte {
	h := hmac.New(sha256.New, s.key)
	h.Write(binary.LittleEndian.AppendUint64(nil, block))
	h.Write(content)
	d := h.Sum(nil)[:digestSize]
	if constant(d) {
		d[0]++
	}
	return d
}

// canary makes the random content that a place gets, in the sampler's buffer.
func (s *sampler) canary(block uint64, use string) []byte {
	c, err := aes.NewCipher(derive(s.seed, use))
	if err != nil {
		panic(err) // a key of 32 bytes is one
	}
	var iv [16]byte
	binary.LittleEndian.PutUint64(iv[:], block)
	clear(s.buf)
	cipher.NewCTR(c, iv[:]).XORKeyStream(s.buf, s.buf)
	return s.buf
}

// write writes a block, twice if it has to.
func (s *sampler) write(block uint64, content []byte) error {
	_, err := s.blocks.WriteAt(content, int64(block)*int64(s.blockSize))
	if err != nil {
		_, err = s.blocks.WriteAt(content, int64(block)*int64(s.blockSize))
	}
	return err
}

// before chooses places, writes canaries, and returns what is kept of each place. A canary that is not read back says nothing; settled is
// called before that.
func (s *sampler) before(blocks uint64, settled func() error) ([]byte, error) {
	ends, random := s.places(blocks)
	places := slices.Concat(ends, random)
	out := make([]byte, digestSize*len(places))
	at := func(i int) []byte { return out[digestSize*i : digestSize*(i+1)] }
	for i, p := range places {
		if !p.Canary {
			if err := s.read(p.Block); err == nil && !constant(s.buf) {
				copy(at(i), s.digest(p.Block, s.buf))
				continue
			}
		}
		if err := s.write(p.Block, s.canary(p.Block, "canaries")); err == nil {
			copy(at(i), s.digest(p.Block, s.buf))
		}
	}
	if err := s.blocks.Sync(); err != nil {
		return nil, err
	}
	if err := settled(); err != nil {
		return nil, err
	}
	for i, p := range places {
		if !constant(at(i)) && s.look(p.Block, at(i)) != unchanged {
			clear(at(i))
		}
	}
	return out, nil
}

// refresh keeps what the places hold now, in place of what was kept of them. One that is constant, or cannot be read, gets its canary. One
// that can be neither read nor written stays as it was. What is not there any more when settled has returned says nothing. The error is one
// of settled, and ends the erase.
func (s *sampler) refresh(blocks uint64, kept []byte, settled func() error) error {
	ends, random := s.places(blocks)
	places := slices.Concat(ends, random)
	at := func(i int) []byte { return kept[digestSize*i : digestSize*(i+1)] }
	var seen []int
	for i, p := range places {
		err := s.read(p.Block)
		if err != nil || constant(s.buf) {
			switch write := s.write(p.Block, s.canary(p.Block, "canaries")); {
			case write != nil && err != nil:
				continue
			case write != nil:
				clear(at(i))
				continue
			}
		}
		copy(at(i), s.digest(p.Block, s.buf))
		seen = append(seen, i)
	}
	err := s.blocks.Sync()
	if err == nil {
		err = settled()
	}
	if stops(err) {
		return err
	}
	for _, i := range seen {
		if err != nil || s.look(places[i].Block, at(i)) != unchanged {
			clear(at(i))
		}
	}
	return nil
}

// finding is what a place is after an erase.
type finding int

const (
	changed finding = iota
	unchanged
	isConstant
	unreadable
)

// look reads a place and compares it with what was kept of it.
func (s *sampler) look(block uint64, kept []byte) finding {
	switch err := s.read(block); {
	case err != nil:
		return unreadable
	case hmac.Equal(s.digest(block, s.buf), kept):
		return unchanged
	case constant(s.buf):
		return isConstant
	}
	return changed
}

// after looks at all places again.
func (s *sampler) after(blocks uint64, kept []byte) erasure.Samples {
	ends, random := s.places(blocks)
	out := erasure.Samples{Blocks: erasure.Count(blocks), Read: erasure.Count(min(blocks, uint64(len(ends)+len(random))))}
	for i, p := range slices.Concat(ends, random) {
		counts := &out.Random
		if i < len(ends) {
			counts = &out.Ends
		}
		d := kept[digestSize*i : digestSize*(i+1)]
		if constant(d) {
			if i >= len(ends) {
				out.Uninformative++
			}
			continue
		}
		switch s.look(p.Block, d) {
		case unchanged:
			counts.Unchanged++
		case isConstant:
			counts.Constant++
		case unreadable:
			counts.Unreadable++
		default:
			counts.Changed++
		}
	}
	return out
}

// control writes a fresh canary to a secret place, looks at it in the way of all places, and zeros it again. It tries four places, since
// one may be a sector that cannot be written.
func (s *sampler) control(blocks uint64) erasure.Control {
	var out erasure.Control
	key := derive(s.seed, "places of the control")
	for i := range 4 {
		block := binary.LittleEndian.Uint64(key[8*i:]) % max(1, blocks)
		d := s.digest(block, s.canary(block, "control"))
		if s.write(block, s.buf) != nil || s.blocks.Sync() != nil {
			continue
		}
		out.Written = true
		out.Reported = s.look(block, d) == unchanged
		clear(s.buf)
		out.Zeroed = s.write(block, s.buf) == nil && s.blocks.Sync() == nil && s.look(block, d) == isConstant
		break
	}
	return out
}

// constant reports whether all bytes are the same.
func constant(b []byte) bool {
	for _, c := range b {
		if c != b[0] {
			return false
		}
	}
	return true
}
