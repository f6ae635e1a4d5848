package engine

import (
	"bytes"
	"context"
	"errors"

	"gprovision/model/erasure"
)

// marker is what writes the marks, a keyed stream in every block that stays until the erase, and looks for them afterwards.
func (l *link) marker(pos *Position) (*overwriter, error) {
	o, err := newOverwriter(derive(l.state.Seed, "marks"), pos)
	if err != nil {
		return nil, err
	}
	o.blocks, o.blockSize, o.requests, o.allowed, o.reached, o.marks = l.areas, int64(l.blockSize), l.env.Requests, l.allowed, l.store, true
	return o, nil
}

// mark marks all blocks, if all are to be read afterwards. That comes after the places were looked at: what they held is known all the
// same. Where too much cannot be marked the places alone count. The error is one that ends the erase.
func (r *run) mark() error {
	if !r.t.Full || r.s.Unmarked {
		return nil
	}
	o, err := r.link.marker(&r.s.Marks)
	if err != nil {
		return err
	}
	if r.s.Marks.Pass >= passZeros {
		return nil
	}
	o.settled = r.settled
	o.reached = func() error {
		p := r.s.Marks
		r.link.progress(sharedByMarks * (float64(p.Pass) + float64(p.Next)/float64(max(1, r.link.areas.size()))) / passZeros)
		return r.link.store()
	}
	if err := o.run(r.link.ctx); stops(err) {
		return err
	} else if err != nil || r.s.Marks.More > 0 || uint64(o.bad()) > r.link.blocks()/2 {
		r.s.Marks, r.s.Unmarked = Position{}, true
		if err := lookAgain(r); err != nil { // marks are where the places were
			return err
		}
	}
	return r.link.store()
}

// after looks at the places again, and at all blocks where they were marked.
func (l *link) after() erasure.Samples {
	s := l.sampler().after(l.state.Blocks, l.state.Samples)
	if l.state.Marks.Pass < passZeros || l.state.Blocks != l.blocks() {
		return s
	}
	o, err := l.marker(&Position{Pass: passLook, Unwritten: l.state.Marks.Unwritten})
	if err != nil {
		return s
	}
	f, err := o.lookAtAll(l.ctx, func(part float64) { l.progress(1 - sharedByLook + sharedByLook*part) })
	if err != nil { // what was read is not all
		return s
	}
	// A place that has its old content again is one where neither the mark nor the erase has reached.
	old := min(s.Random.Unchanged, f.places.Changed)
	f.places.Changed, f.places.Unchanged = f.places.Changed-old, f.places.Unchanged+old
	s.Random, s.Uninformative, s.Read = f.places, f.skipped, s.Blocks
	return s
}

// asBefore reports whether samples were found as before.
func asBefore(s erasure.Samples) bool { return s.Random.Unchanged > 0 || s.Ends.Unchanged > 0 }

// lookAtAll reads all blocks, and tells how much of them.
func (o *overwriter) lookAtAll(ctx context.Context, tell func(part float64)) (found, error) {
	var all found
	size := o.blocks.size()
	part := o.step(size)
	for at := int64(0); at < size; at += part {
		if err := ctx.Err(); err != nil {
			return found{}, err
		}
		all.add(o.part(at, min(size, at+part)))
		tell(float64(min(size, at+part)) / float64(size))
	}
	if n := all.places; n.Changed+n.Unchanged+n.Constant+n.Unreadable+all.skipped != erasure.Count(size/o.blockSize) {
		return found{}, errors.New("not all blocks were looked at")
	}
	return all, nil
}

// unmarked is a block that says nothing later, since its mark was not read back.
func (o *overwriter) unmarked(off int64) []erasure.Range {
	if !o.marks {
		return nil
	}
	return []erasure.Range{{First: erasure.Count(off / o.blockSize), Count: 1}}
}

// says reports whether a block was marked.
func (o *overwriter) says(block erasure.Count) bool {
	for _, r := range o.pos.Unwritten {
		if block >= r.First && block < r.First+r.Count {
			return false
		}
	}
	return true
}

// look reads bytes, halves of them where that fails, and says what became of the mark of each block.
func (o *overwriter) look(p, want []byte, off int64) found {
	n := int64(len(p))
	var f found
	if _, err := o.blocks.ReadAt(p, off); err != nil {
		if n > o.blockSize {
			half := max(1, n/2/o.blockSize) * o.blockSize
			f = o.look(p[:half], want[:half], off)
			f.add(o.look(p[half:], want[half:], off+half))
			return f
		}
		if _, err := o.blocks.ReadAt(p, off); err != nil {
			f.places.Unreadable++
			return f
		}
	}
	for at := int64(0); at < n; at += o.blockSize {
		switch b := p[at : at+o.blockSize]; {
		case !o.says(erasure.Count((off + at) / o.blockSize)):
			f.skipped++
		case bytes.Equal(b, want[at:at+o.blockSize]):
			f.places.Unchanged++
		case constant(b):
			f.places.Constant++
		default:
			f.places.Changed++
		}
	}
	return f
}
