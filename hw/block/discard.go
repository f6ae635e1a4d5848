package block

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// How Discard goes on: pieces grow until one takes about as long as a person waits for a number to change, and nothing is judged before
// the disk has shown for a moment how fast it is.
const (
	firstPiece = 4 << 20
	mostPiece  = 1 << 30
	pieceTime  = 250 * time.Millisecond
	judgeAfter = time.Second
)

// Discarded is what Discard did.
type Discarded struct {
	// Bytes were discarded, from the beginning on.
	Bytes int64
	// Why says why it was not all; empty: it was.
	Why string
}

// Discard tells the disk that nothing on the device is needed any more (BLKDISCARD), which makes flash faster and last longer, and nothing else:
// so it is no error that a disk cannot do it, and it is left where it would take longer than bound. Some cards need minutes. It is done in
// pieces; progress, which may be nil, is told after each how many bytes are done. What was on the device is lost.
func (d *Device) Discard(ctx context.Context, bound time.Duration, progress func(done int64)) (done Discarded) {
	if !d.special {
		return Discarded{Why: "not a block device"}
	}
	return discard(ctx, d.size, bound, time.Now, func(at, n int64) error {
		return ioctl(d.file, unix.BLKDISCARD, unsafe.Pointer(&[2]uint64{uint64(at), uint64(n)}))
	}, progress)
}

func discard(ctx context.Context, size int64, bound time.Duration, now func() time.Time, drop func(at, n int64) error, progress func(done int64)) (done Discarded) {
	begin, piece := now(), int64(firstPiece)
	for done.Bytes < size {
		if ctx.Err() != nil {
			done.Why = context.Cause(ctx).Error()
			return done
		}
		n, before := min(piece, size-done.Bytes), now()
		switch err := drop(done.Bytes, n); {
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY):
			done.Why = "the disk cannot do it"
			return done
		case err != nil:
			done.Why = err.Error()
			return done
		}
		took := now().Sub(before)
		done.Bytes += n
		if progress != nil {
			progress(done.Bytes)
		}
		so := now().Sub(begin)
		rest := time.Duration(float64(so) * float64(size-done.Bytes) / float64(done.Bytes))
		if done.Bytes < size && (so > bound || so > judgeAfter && so+rest > bound) {
			done.Why = fmt.Sprintf("it would take %s more", rest.Round(time.Second))
			return done
		}
		switch {
		case took < pieceTime:
			piece = min(2*piece, mostPiece)
		case took > 4*pieceTime:
			piece = max(piece/2, firstPiece)
		}
	}
	return done
}
