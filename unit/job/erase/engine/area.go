package engine

import (
	"errors"
	"fmt"
	"io"
	"unsafe"
)

// Blocks reads and writes the blocks of a device past the host's caches, as a file does that was opened with O_DIRECT: offsets, lengths
// and addresses of buffers are multiples of the block size.
type Blocks interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns when what was written is on the medium.
	Sync() error
}

// discarder is a device that can be told that blocks are not needed any more.
type discarder interface{ Discard(off, n int64) error }

// Area is a part of a drive that is to be erased.
type Area struct {
	Blocks Blocks
	// Offset is where it begins on the device, in bytes.
	Offset int64
	// Size is its length in bytes, asked for anew whenever a hidden area was opened.
	Size func() int64
}

// Zero writes zeros to all of it, and returns when they are on the medium.
func (a Area) Zero() error {
	b := aligned(1 << 20)
	for at, size := int64(0), a.Size(); at < size; at += int64(len(b)) {
		n := min(size-at, int64(len(b)))
		if k, err := a.Blocks.WriteAt(b[:n], a.Offset+at); int64(k) < n {
			return errors.Join(err, io.ErrShortWrite)
		}
	}
	return a.Blocks.Sync()
}

// view is several areas in a row.
type view []Area

func (v view) size() int64 {
	var n int64
	for _, a := range v {
		n += a.Size()
	}
	return n
}

// each calls do for the parts of n bytes at an offset: with their area, their offset on its device, and their place among the n bytes.
func (v view) each(off, n int64, do func(a Area, at, from, to int64) error) error {
	var done int64
	for _, a := range v {
		size := a.Size()
		if off >= size {
			off -= size
			continue
		}
		part := min(size-off, n-done)
		if part <= 0 {
			return nil
		}
		if err := do(a, a.Offset+off, done, done+part); err != nil {
			return err
		}
		done, off = done+part, 0
	}
	if done < n {
		return fmt.Errorf("%d bytes beyond the end: %w", n-done, io.ErrUnexpectedEOF)
	}
	return nil
}

// ReadAt implements io.ReaderAt; it reads all or returns an error.
func (v view) ReadAt(p []byte, off int64) (int, error) {
	err := v.each(off, int64(len(p)), func(a Area, at, from, to int64) error {
		if n, err := a.Blocks.ReadAt(p[from:to], at); int64(n) < to-from {
			return errors.Join(err, io.ErrUnexpectedEOF)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteAt implements io.WriterAt.
func (v view) WriteAt(p []byte, off int64) (int, error) {
	err := v.each(off, int64(len(p)), func(a Area, at, from, to int64) error {
		if n, err := a.Blocks.WriteAt(p[from:to], at); int64(n) < to-from {
			return errors.Join(err, io.ErrShortWrite)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Sync flushes each device.
func (v view) Sync() error {
	var all error
	for _, a := range v {
		all = errors.Join(all, a.Blocks.Sync())
	}
	return all
}

// discard tells each device that nothing of its areas is needed. The error is errors.ErrUnsupported where one cannot be told.
func (v view) discard() error {
	return v.each(0, v.size(), func(a Area, at, from, to int64) error {
		d, ok := a.Blocks.(discarder)
		if !ok {
			return errors.ErrUnsupported
		}
		return d.Discard(at, to-from)
	})
}

// aligned returns a buffer at an address that every device takes.
func aligned(n int) []byte {
	const page = 4096
	b := make([]byte, n+page)
	skip := -uintptr(unsafe.Pointer(&b[0])) & (page - 1)
	return b[skip : int(skip)+n : int(skip)+n]
}
