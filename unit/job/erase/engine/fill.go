package engine

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"gprovision/model/erasure"
)

// Filled is what became of free space that was filled.
type Filled struct {
	// Written is how many bytes were written.
	Written erasure.Count
	// Flushed reports that all of them are on the medium.
	Flushed bool
	// ReadBack is how many were read back as they were written, Different how many as something else. The others could not be read.
	ReadBack, Different erasure.Count
	// Why says why there is not more of it, empty if the filesystem was full.
	Why string
}

// Fill writes the keyed stream to a file until its filesystem is full, and reads it back. The file has blocks of blockSize bytes; free is
// how much there may be to write, for progress, which is told how much is done, from 0 to 1. The error is that of the context.
func Fill(ctx context.Context, file Blocks, blockSize, free int64, random io.Reader, progress func(part float64)) (out Filled, err error) {
	key := make([]byte, 32)
	if _, err := io.ReadFull(random, key); err != nil {
		return out, fmt.Errorf("make the key of the stream: %w", err)
	}
	o, err := newOverwriter(key, &Position{})
	if err != nil {
		return out, err
	}
	var size int64
	o.blocks, o.blockSize = view{{Blocks: file, Size: func() int64 { return size }}}, blockSize
	buf, want := aligned(chunk), aligned(chunk)
	moved := func(at, of int64, from float64) { progress(from + min(1, float64(at)/float64(max(1, of)))/2) }
	for piece := int64(chunk); piece >= blockSize; moved(size, free, 0) {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		o.stream(buf[:piece], size)
		n, err := file.WriteAt(buf[:piece], size)
		size += int64(n) / blockSize * blockSize
		switch {
		case err == nil:
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EFBIG):
			piece /= 2
		default:
			out.Why, piece = err.Error(), 0
		}
	}
	out.Written = erasure.Count(size)
	if err := file.Sync(); err != nil {
		out.Why = err.Error()
		return out, nil
	}
	out.Flushed = true
	for at := int64(0); at < size; at += chunk {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		n := min(chunk, size-at)
		o.stream(want[:n], at)
		f := o.compare(buf[:n], want[:n], at)
		out.ReadBack += f.readBack * erasure.Count(blockSize)
		out.Different += f.different * erasure.Count(blockSize)
		moved(at+n, size, 0.5)
	}
	return out, nil
}
