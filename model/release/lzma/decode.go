package lzma

import (
	"encoding/binary"
)

// Numbers of the LZMA model.
const (
	probInit  = 1 << 10 // a bit is 0 or 1 with the same probability
	probTotal = 1 << 11 //
	probShift = 5       // how fast a probability adapts
	rangeTop  = 1 << 24 // below it the range coder takes the next byte

	states     = 16 // 12 are used; a power of two needs no bounds check
	litStates  = 7  // states below it: the last symbol was a literal
	posStates  = 16
	slack      = 16 // matches are copied in steps of this many bytes, over their end
	literalLen = 0x300
)

// lengths is the model of the length of a match: one of three trees.
type lengths struct {
	choice  uint16
	choice2 uint16
	low     [posStates * 8]uint16
	mid     [posStates * 8]uint16
	high    [256]uint16
}

// model holds the probabilities and the state that goes with them.
type model struct {
	isMatch    [states * posStates]uint16
	isRep      [states]uint16
	isRep0     [states]uint16
	isRep1     [states]uint16
	isRep2     [states]uint16
	isRep0Long [states * posStates]uint16
	slot       [4][64]uint16
	special    [128]uint16
	align      [16]uint16
	match, rep lengths
	literal    [16 * literalLen]uint16

	state      uint
	reps       [4]uint // distances less one
	lc, lp, pb uint
}

func (m *model) reset() {
	fill := func(p []uint16) {
		for i := range p {
			p[i] = probInit
		}
	}
	fill(m.isMatch[:])
	fill(m.isRep[:])
	fill(m.isRep0[:])
	fill(m.isRep1[:])
	fill(m.isRep2[:])
	fill(m.isRep0Long[:])
	for i := range m.slot {
		fill(m.slot[i][:])
	}
	fill(m.special[:])
	fill(m.align[:])
	for _, l := range []*lengths{&m.match, &m.rep} {
		l.choice, l.choice2 = probInit, probInit
		fill(l.low[:])
		fill(l.mid[:])
		fill(l.high[:])
	}
	fill(m.literal[:literalLen<<(m.lc+m.lp)])
	m.state, m.reps = 0, [4]uint{}
}

// input is the compressed part of a chunk, with room behind it: an index of 16 bits is always inside.
type input [1 << 16]byte

// fresh takes a byte into the range coder if it needs one.
func fresh(rng, code uint64, in *input, at uint) (uint64, uint64, uint) {
	if rng < rangeTop {
		return rng << 8, code<<8 | uint64(in[uint16(at)]), at + 1
	}
	return rng, code, at
}

// adapt is what pick adds to the probability of a bit that is 0, so that the same shift serves both values.
const adapt = ^uint64(probTotal - 1<<probShift)

// pick decodes one bit with probability p without a branch: in a tree nobody could predict it. It returns the new range, code
// and probability, and 0 for a bit that is 1, all ones for a bit that is 0.
func pick(rng, code, p uint64) (uint64, uint64, uint16, uint64) {
	bound := (rng >> 11) * p
	code -= bound
	zero := uint64(int64(code) >> 63)
	rest := rng - bound
	return rest + zero&(bound-rest), code + zero&bound, uint16(p - uint64(int64(p+zero&adapt)>>probShift)), zero
}

// eight decodes a tree of eight levels: a literal. The result has its highest bit, 256, set. As a function of its own it has all
// it needs in registers.
//
//go:noinline
func eight(tree *[256]uint16, in *input, rng, code uint64, at uint) (uint64, uint64, uint, uint64) {
	var np uint16
	var zero, sym uint64
	p := uint64(tree[1])
	rng, code, at = fresh(rng, code, in, at)
	a, b := uint64(tree[2]), uint64(tree[3])
	rng, code, np, zero = pick(rng, code, p)
	tree[1] = np
	sym = 3 + zero
	p = b + zero&(a-b)
	rng, code, at = fresh(rng, code, in, at)
	a, b = uint64(tree[uint8(sym*2)]), uint64(tree[uint8(sym*2+1)])
	rng, code, np, zero = pick(rng, code, p)
	tree[uint8(sym)] = np
	sym = sym<<1 + 1 + zero
	p = b + zero&(a-b)
	rng, code, at = fresh(rng, code, in, at)
	a, b = uint64(tree[uint8(sym*2)]), uint64(tree[uint8(sym*2+1)])
	rng, code, np, zero = pick(rng, code, p)
	tree[uint8(sym)] = np
	sym = sym<<1 + 1 + zero
	p = b + zero&(a-b)
	rng, code, at = fresh(rng, code, in, at)
	a, b = uint64(tree[uint8(sym*2)]), uint64(tree[uint8(sym*2+1)])
	rng, code, np, zero = pick(rng, code, p)
	tree[uint8(sym)] = np
	sym = sym<<1 + 1 + zero
	p = b + zero&(a-b)
	rng, code, at = fresh(rng, code, in, at)
	a, b = uint64(tree[uint8(sym*2)]), uint64(tree[uint8(sym*2+1)])
	rng, code, np, zero = pick(rng, code, p)
	tree[uint8(sym)] = np
	sym = sym<<1 + 1 + zero
	p = b + zero&(a-b)
	rng, code, at = fresh(rng, code, in, at)
	a, b = uint64(tree[uint8(sym*2)]), uint64(tree[uint8(sym*2+1)])
	rng, code, np, zero = pick(rng, code, p)
	tree[uint8(sym)] = np
	sym = sym<<1 + 1 + zero
	p = b + zero&(a-b)
	rng, code, at = fresh(rng, code, in, at)
	a, b = uint64(tree[uint8(sym*2)]), uint64(tree[uint8(sym*2+1)])
	rng, code, np, zero = pick(rng, code, p)
	tree[uint8(sym)] = np
	sym = sym<<1 + 1 + zero
	p = b + zero&(a-b)
	rng, code, at = fresh(rng, code, in, at)
	rng, code, np, zero = pick(rng, code, p)
	tree[uint8(sym)] = np
	sym = sym<<1 + 1 + zero
	return rng, code, at, sym
}

// six is as eight, for a tree of six levels.
//
//go:noinline
func six(tree *[64]uint16, in *input, rng, code uint64, at uint) (uint64, uint64, uint, uint64) {
	var np uint16
	var zero, sym uint64
	p := uint64(tree[1])
	rng, code, at = fresh(rng, code, in, at)
	a, b := uint64(tree[2]), uint64(tree[3])
	rng, code, np, zero = pick(rng, code, p)
	tree[1] = np
	sym = 3 + zero
	p = b + zero&(a-b)
	rng, code, at = fresh(rng, code, in, at)
	a, b = uint64(tree[(sym*2)&63]), uint64(tree[(sym*2+1)&63])
	rng, code, np, zero = pick(rng, code, p)
	tree[(sym)&63] = np
	sym = sym<<1 + 1 + zero
	p = b + zero&(a-b)
	rng, code, at = fresh(rng, code, in, at)
	a, b = uint64(tree[(sym*2)&63]), uint64(tree[(sym*2+1)&63])
	rng, code, np, zero = pick(rng, code, p)
	tree[(sym)&63] = np
	sym = sym<<1 + 1 + zero
	p = b + zero&(a-b)
	rng, code, at = fresh(rng, code, in, at)
	a, b = uint64(tree[(sym*2)&63]), uint64(tree[(sym*2+1)&63])
	rng, code, np, zero = pick(rng, code, p)
	tree[(sym)&63] = np
	sym = sym<<1 + 1 + zero
	p = b + zero&(a-b)
	rng, code, at = fresh(rng, code, in, at)
	a, b = uint64(tree[(sym*2)&63]), uint64(tree[(sym*2+1)&63])
	rng, code, np, zero = pick(rng, code, p)
	tree[(sym)&63] = np
	sym = sym<<1 + 1 + zero
	p = b + zero&(a-b)
	rng, code, at = fresh(rng, code, in, at)
	rng, code, np, zero = pick(rng, code, p)
	tree[(sym)&63] = np
	sym = sym<<1 + 1 + zero
	return rng, code, at, sym
}

// three is as eight, for a tree of three levels.
//
//go:noinline
func three(tree *[8]uint16, in *input, rng, code uint64, at uint) (uint64, uint64, uint, uint64) {
	var np uint16
	var zero, sym uint64
	p := uint64(tree[1])
	rng, code, at = fresh(rng, code, in, at)
	a, b := uint64(tree[2]), uint64(tree[3])
	rng, code, np, zero = pick(rng, code, p)
	tree[1] = np
	sym = 3 + zero
	p = b + zero&(a-b)
	rng, code, at = fresh(rng, code, in, at)
	a, b = uint64(tree[(sym*2)&7]), uint64(tree[(sym*2+1)&7])
	rng, code, np, zero = pick(rng, code, p)
	tree[(sym)&7] = np
	sym = sym<<1 + 1 + zero
	p = b + zero&(a-b)
	rng, code, at = fresh(rng, code, in, at)
	rng, code, np, zero = pick(rng, code, p)
	tree[(sym)&7] = np
	sym = sym<<1 + 1 + zero
	return rng, code, at, sym
}

// eightBeside decodes a literal where a match has just ended: the byte that would have continued it, same, says which of three
// trees is taken, as long as the bits are equal to its own.
//
//go:noinline
func eightBeside(tree *[literalLen]uint16, in *input, rng, code uint64, at uint, same uint64) (uint64, uint64, uint, uint64) {
	var np uint16
	var zero uint64
	sym, offset := uint64(1), uint64(0x100)
	for range 8 {
		same <<= 1
		bit := same & offset
		p := &tree[offset+bit+sym]
		rng, code, at = fresh(rng, code, in, at)
		rng, code, np, zero = pick(rng, code, uint64(*p))
		*p = np
		sym = sym<<1 + 1 + zero
		offset &= bit ^ zero
	}
	return rng, code, at, sym
}

// symbols decodes a chunk: it fills out from pos to limit, from the compressed bytes in d.in, of which used are filled. It
// returns false for damaged data.
func (d *Decoder) symbols(out []byte, start, end int, used uint) bool {
	in, m := &d.in, &d.model
	if in[0] != 0 {
		return false
	}
	rng, code, at := uint64(1<<32-1), uint64(binary.BigEndian.Uint32(in[1:])), uint(5)
	if code == rng {
		return false
	}
	pos, limit := uint(start), uint(end)
	if limit+slack > uint(len(out)) || pos > limit {
		return false
	}
	// The position since the dictionary was reset is what the model uses. begin may be far before out.
	phase := uint(-d.begin)
	state, rep0, rep1, rep2, rep3 := m.state, m.reps[0], m.reps[1], m.reps[2], m.reps[3]
	pbMask, lpMask, lc := uint(1)<<m.pb-1, uint(1)<<m.lp-1, m.lc&15
	dict := d.dict
	last := uint64(0)
	if pos+phase > 0 && pos > 0 {
		last = uint64(out[pos-1])
	}
	var bound, p, zero, sym uint64
	var np uint16

	for pos < limit {
		ps := (pos + phase) & pbMask
		i := uint8(state<<4 | ps)
		rng, code, at = fresh(rng, code, in, at)
		p = uint64(m.isMatch[i])
		bound = (rng >> 11) * p
		if code < bound {
			rng = bound
			m.isMatch[i] = uint16(p + (probTotal-p)>>probShift)
			n := ((pos+phase)&lpMask)<<lc + uint(last)>>(8-lc&15)
			tree := (*[literalLen]uint16)(m.literal[n*literalLen:])
			if state < litStates {
				rng, code, at, sym = eight((*[256]uint16)(tree[:]), in, rng, code, at)
				state = afterLiteral[state&15]
			} else {
				if rep0 >= pos {
					return false
				}
				rng, code, at, sym = eightBeside(tree, in, rng, code, at, uint64(out[pos-rep0-1]))
				state = afterLiteral[state&15]
			}
			last = sym & 0xff
			out[pos] = byte(sym)
			pos++
			continue
		}
		rng -= bound
		code -= bound
		m.isMatch[i] = uint16(p - p>>probShift)

		rng, code, at = fresh(rng, code, in, at)
		p = uint64(m.isRep[state&15])
		bound = (rng >> 11) * p
		var size *lengths
		if code < bound {
			rng = bound
			m.isRep[state&15] = uint16(p + (probTotal-p)>>probShift)
			rep3, rep2, rep1 = rep2, rep1, rep0
			size = &m.match
		} else {
			rng -= bound
			code -= bound
			m.isRep[state&15] = uint16(p - p>>probShift)
			rng, code, at = fresh(rng, code, in, at)
			p = uint64(m.isRep0[state&15])
			bound = (rng >> 11) * p
			if code < bound {
				rng = bound
				m.isRep0[state&15] = uint16(p + (probTotal-p)>>probShift)
				rng, code, at = fresh(rng, code, in, at)
				p = uint64(m.isRep0Long[i])
				bound = (rng >> 11) * p
				if code < bound {
					rng = bound
					m.isRep0Long[i] = uint16(p + (probTotal-p)>>probShift)
					if rep0 >= min(pos+phase, dict) || rep0 >= pos {
						return false
					}
					state = afterShortRep[state&15]
					out[pos] = out[pos-rep0-1]
					last = uint64(out[pos])
					pos++
					continue
				}
				rng -= bound
				code -= bound
				m.isRep0Long[i] = uint16(p - p>>probShift)
			} else {
				rng -= bound
				code -= bound
				m.isRep0[state&15] = uint16(p - p>>probShift)
				rng, code, at = fresh(rng, code, in, at)
				p = uint64(m.isRep1[state&15])
				bound = (rng >> 11) * p
				if code < bound {
					rng = bound
					m.isRep1[state&15] = uint16(p + (probTotal-p)>>probShift)
					rep0, rep1 = rep1, rep0
				} else {
					rng -= bound
					code -= bound
					m.isRep1[state&15] = uint16(p - p>>probShift)
					rng, code, at = fresh(rng, code, in, at)
					p = uint64(m.isRep2[state&15])
					bound = (rng >> 11) * p
					if code < bound {
						rng = bound
						m.isRep2[state&15] = uint16(p + (probTotal-p)>>probShift)
						rep0, rep1, rep2 = rep2, rep0, rep1
					} else {
						rng -= bound
						code -= bound
						m.isRep2[state&15] = uint16(p - p>>probShift)
						rep0, rep1, rep2, rep3 = rep3, rep0, rep1, rep2
					}
				}
			}
			size = &m.rep
		}

		// The length, less two.
		var n uint
		rng, code, at = fresh(rng, code, in, at)
		p = uint64(size.choice)
		bound = (rng >> 11) * p
		if code < bound {
			rng = bound
			size.choice = uint16(p + (probTotal-p)>>probShift)
			tree := (*[8]uint16)(size.low[ps&15<<3:])
			rng, code, at, sym = three(tree, in, rng, code, at)
			n = uint(sym) - 8
		} else {
			rng -= bound
			code -= bound
			size.choice = uint16(p - p>>probShift)
			rng, code, at = fresh(rng, code, in, at)
			p = uint64(size.choice2)
			bound = (rng >> 11) * p
			if code < bound {
				rng = bound
				size.choice2 = uint16(p + (probTotal-p)>>probShift)
				tree := (*[8]uint16)(size.mid[ps&15<<3:])
				rng, code, at, sym = three(tree, in, rng, code, at)
				n = uint(sym)
			} else {
				rng -= bound
				code -= bound
				size.choice2 = uint16(p - p>>probShift)
				sym = 1
				for sym < 256 {
					rng, code, at = fresh(rng, code, in, at)
					rng, code, np, zero = pick(rng, code, uint64(size.high[uint8(sym)]))
					size.high[uint8(sym)] = np
					sym = sym<<1 + 1 + zero
				}
				n = uint(sym) - 256 + 16
			}
		}

		if size == &m.match {
			state = afterMatch[state&15]
			tree := &m.slot[min(n, 3)]
			rng, code, at, sym = six(tree, in, rng, code, at)
			slot := uint(sym) & 63
			rep0 = slot
			if slot >= 4 {
				bits := slot>>1 - 1
				rep0 = (2 | slot&1) << bits
				if slot < 14 {
					// A tree that is read from its low end; the trees lie one behind the other.
					base := rep0 - slot
					sym = 1
					for k := range bits {
						j := (base + uint(sym)) & 127
						rng, code, at = fresh(rng, code, in, at)
						rng, code, np, zero = pick(rng, code, uint64(m.special[j]))
						m.special[j] = np
						sym = sym<<1 + 1 + zero
						rep0 += uint(1+zero) << k
					}
				} else {
					high := uint(0)
					for range bits - 4 {
						rng, code, at = fresh(rng, code, in, at)
						rng >>= 1
						code -= rng
						zero = uint64(int64(code) >> 63)
						code += zero & rng
						high = high<<1 + uint(1+zero)
					}
					rep0 += high << 4
					sym = 1
					for k := range uint(4) {
						rng, code, at = fresh(rng, code, in, at)
						rng, code, np, zero = pick(rng, code, uint64(m.align[sym&15]))
						m.align[sym&15] = np
						sym = sym<<1 + 1 + zero
						rep0 += uint(1+zero) << k
					}
				}
			}
		} else {
			state = afterRep[state&15]
		}

		n += 2
		if rep0 >= min(pos+phase, dict) || rep0 >= pos || n > limit-pos {
			return false
		}
		from, stop := pos-rep0-1, pos+n
		switch {
		case rep0 >= 15:
			for pos < stop {
				to, with := out[pos:pos+16], out[from:from+16]
				a, b := binary.LittleEndian.Uint64(with), binary.LittleEndian.Uint64(with[8:])
				binary.LittleEndian.PutUint64(to, a)
				binary.LittleEndian.PutUint64(to[8:], b)
				pos += 16
				from += 16
			}
		case rep0 == 0:
			b := out[from]
			to := out[pos:stop]
			for k := range to {
				to[k] = b
			}
		case rep0 >= 7:
			for pos < stop {
				binary.LittleEndian.PutUint64(out[pos:pos+8], binary.LittleEndian.Uint64(out[from:from+8]))
				pos += 8
				from += 8
			}
		default:
			to, with := out[pos:stop], out[from:stop]
			for k := range to {
				to[k] = with[k]
			}
		}
		pos = stop
		last = uint64(out[pos-1])
	}
	_, code, at = fresh(rng, code, in, at)
	m.state, m.reps = state, [4]uint{rep0, rep1, rep2, rep3}
	return code == 0 && at == used
}
