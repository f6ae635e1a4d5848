package burnin

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/model/hardware"
	"gprovision/model/manifest"
	"gprovision/unit/machine"
)

// How a disk is read and written: so many bytes at once, so many of these at the same time, and what is left alone at both ends, where a
// disk shows whether it is blank.
const (
	chunk    = 1 << 20
	inFlight = 8
	ends     = 8 << 20
)

// maxBadSectors is how many bad sectors of a disk are looked for. One that has more is bad enough.
const maxBadSectors = 32

// refuse adds a line for each main disk that is not blank: it would not be written to.
func (s *stage) refuse() {
	for _, d := range s.main {
		name := "burn-in disk " + d.Name
		const expected, rule = "nothing", "only a disk with nothing on it is written"
		blank, why, err := s.m.BlankDisk(d.Path)
		switch {
		case err != nil:
			s.add(name, err.Error(), expected, rule, false)
		case len(d.Partitions) > 0:
			s.add(name, fmt.Sprintf("%d partitions", len(d.Partitions)), expected, rule, false)
		case !blank:
			s.add(name, why, expected, rule, false)
		}
	}
}

// disks reads the main disks, or writes them and reads them back, all at the same time.
func (s *stage) disks(ctx context.Context) {
	results := make([]*surface, len(s.main))
	for i, d := range s.main {
		results[i] = &surface{s: s, disk: d}
		s.total.Add(d.Size)
		if s.want.Disks == manifest.BurnWrite {
			s.total.Add(max(0, d.Size-2*ends))
		}
	}
	errs := all(len(results), func(i int) error {
		if s.want.Disks == manifest.BurnWrite {
			return results[i].write(ctx)
		}
		return results[i].read(ctx)
	})
	for i, r := range results {
		s.lines = append(s.lines, r.lines(ctx, errs[i])...)
	}
}

// surface is the burn-in of one disk.
type surface struct {
	s    *stage
	disk block.Disk
	// stream makes the content of each place, where the disk is written.
	stream cipher.Block
	// timeout is whether its time was over before all was done.
	timeout bool

	passes []pass

	mu  sync.Mutex
	bad []sector
}

// pass is one way over the disk.
type pass struct {
	name        string
	done, total int64
	took        time.Duration
}

// sector is a place that cannot be read or written, or that does not have what was written to it.
type sector struct {
	number int64
	why    string
}

// read reads all sectors of the disk.
func (f *surface) read(ctx context.Context) (err error) {
	dev, err := f.s.m.Open(f.disk.Path, machine.Direct)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	ctx, stop := f.limit(ctx)
	defer stop()
	return f.over(ctx, "read", 0, dev.Size(), dev.SectorSize(), func(b []byte, off int64) error { return full(dev.ReadAt(b, off))(len(b)) })
}

// write writes a stream of its own to the disk between its ends, if the disk is still blank, and reads all of it back.
func (f *surface) write(ctx context.Context) (err error) {
	d, err := machine.OpenDrive(f.s.m, f.disk.Path, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	blank, why, err := filesystem.Blank(d.Device, d.Size())
	if err == nil && !blank {
		err = fmt.Errorf("the disk is not blank any more: %s", why)
	}
	if err != nil {
		return err
	}
	key := make([]byte, 32)
	rand.Read(key) // never fails
	if f.stream, err = aes.NewCipher(key); err != nil {
		return err
	}
	from, to, sector := int64(ends), (d.Size()-ends)&^(chunk-1), d.SectorSize()
	before, err := outside(d.Blocks, from, to, d.Size())
	if err != nil {
		return err
	}
	ctx, stop := f.limit(ctx)
	defer stop()
	if err := f.over(ctx, "write", from, to, sector, func(b []byte, off int64) error {
		f.content(b, off)
		return full(d.Blocks.WriteAt(b, off))(len(b))
	}); err != nil {
		return err
	}
	if err := d.Blocks.Sync(); err != nil {
		return err
	}
	if err := f.over(ctx, "read back", 0, d.Size(), sector, func(b []byte, off int64) error {
		if err := full(d.Blocks.ReadAt(b, off))(len(b)); err != nil || off < from || off >= to {
			return err
		}
		want := make([]byte, len(b))
		if f.content(want, off); !bytes.Equal(b, want) {
			return errOther
		}
		return nil
	}); err != nil {
		return err
	}
	after, err := outside(d.Blocks, from, to, d.Size())
	if err == nil && before != after {
		err = errEnds
	}
	return err
}

// outside returns the hash of what lies outside of a part of the disk.
func outside(r io.ReaderAt, from, to, size int64) (sum [sha256.Size]byte, err error) {
	h, b := sha256.New(), aligned(chunk)
	for _, part := range [][2]int64{{0, min(from, size)}, {max(from, to), size}} {
		for off := part[0]; off < part[1]; off += chunk {
			n := min(chunk, part[1]-off)
			if err := full(r.ReadAt(b[:n], off))(int(n)); err != nil {
				return sum, fmt.Errorf("read at byte %d: %w", off, err)
			}
			h.Write(b[:n])
		}
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// errEnds is the error of a disk that has written elsewhere than it was told to.
var errEnds = errors.New("its ends are changed, and only its middle was written")

// errOther is the error of a place that does not have what was written to it.
var errOther = errors.New("other content than was written")

// limit returns the context of a disk that has a limit of time.
func (f *surface) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if f.s.want.DiskMinutes == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, time.Duration(f.s.want.DiskMinutes)*f.s.parts.minute, errTime)
}

// errTime is why a disk is not gone over whole.
var errTime = errors.New("the time is over")

// content fills b with what belongs at an offset, a multiple of the cipher's block size.
func (f *surface) content(b []byte, off int64) {
	var counter [aes.BlockSize]byte
	binary.BigEndian.PutUint64(counter[8:], uint64(off)/aes.BlockSize)
	clear(b)
	cipher.NewCTR(f.stream, counter[:]).XORKeyStream(b, b)
}

// full returns the error of a transfer that must be whole.
func full(n int, err error) func(want int) error {
	return func(want int) error {
		if n == want {
			return nil
		}
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
}

// over does something with each chunk of a part of the disk, in order, several at a time. What fails is done again sector by sector, to
// know which ones are bad.
func (f *surface) over(ctx context.Context, name string, from, to int64, size int, do func(b []byte, off int64) error) error {
	p := pass{name: name, total: max(0, to-from)}
	began := time.Now()
	var next, done atomic.Int64
	errs := all(inFlight, func(int) error {
		b := aligned(chunk)
		for ctx.Err() == nil {
			off := from + chunk*(next.Add(1)-1)
			if off >= to || f.tooBad() {
				return nil
			}
			n := min(chunk, to-off)
			if do(b[:n], off) != nil {
				for at := int64(0); at < n && !f.tooBad() && ctx.Err() == nil; at += int64(size) {
					if err := do(b[at:][:min(int64(size), n-at)], off+at); err != nil {
						f.isBad((off+at)/int64(size), name, err)
					}
				}
			}
			done.Add(n)
			f.s.done.Add(n)
		}
		return nil
	})
	p.done, p.took = done.Load(), time.Since(began)
	f.passes = append(f.passes, p)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if errors.Is(context.Cause(ctx), errTime) && p.done < p.total {
		f.timeout = true
	}
	return nil
}

func (f *surface) isBad(number int64, doing string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bad = append(f.bad, sector{number, fmt.Sprintf("%s: %v", doing, err)})
}

func (f *surface) tooBad() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.bad) >= maxBadSectors
}

// lines returns what was found.
func (f *surface) lines(ctx context.Context, err error) (out []hardware.Line) {
	l := hardware.Line{Name: "burn-in disk " + f.disk.Name, Expected: "no bad sector", Checked: true, Rule: "all sectors are read"}
	if f.s.want.Disks == manifest.BurnWrite {
		l.Rule = "all sectors are read; all but 8 MiB at both ends are written before, and have what was written"
	}
	slices.SortFunc(f.bad, func(a, b sector) int { return int(a.number - b.number) })
	var bad, done []string
	for _, b := range f.bad {
		bad = append(bad, fmt.Sprintf("sector %d (%s)", b.number, b.why))
	}
	for _, p := range f.passes {
		done = append(done, fmt.Sprintf("%s %d of %d MiB", p.name, p.done>>20, p.total>>20))
	}
	l.Found = few(done, len(done)) + ", no bad sector"
	switch {
	case err != nil:
		l.Found = few(append([]string{err.Error()}, bad...), maxBadSectors/4)
	case len(bad) > 0:
		l.Found = fmt.Sprintf("%d bad: %s", len(bad), few(bad, maxBadSectors/4))
	case f.timeout:
		l.Found, l.Expected = few(done, len(done)), fmt.Sprintf("all of it within %d minutes", f.s.want.DiskMinutes)
	case ctx.Err() != nil:
		l.Checked, l.Rule = false, stopped(ctx)
	default:
		l.OK = true
	}
	out = append(out, l)
	if !l.OK {
		return out
	}
	for _, p := range f.passes {
		m := hardware.Line{Name: fmt.Sprintf("burn-in disk %s, %s", f.disk.Name, p.name), Found: speed(p.done, p.took), Rule: "measured"}
		if least := f.s.want.DiskMBpsMin; least > 0 && p.total > 0 {
			m.Expected, m.Rule = fmt.Sprintf("%d MB/s", least), "at least, on the whole"
			m.Checked, m.OK = true, perSecond(p.done, p.took) >= int64(least)
		}
		out = append(out, m)
	}
	return out
}

// aligned returns n bytes that a device can be read to past all caches.
func aligned(n int) []byte {
	const align = 4096
	raw := make([]byte, n+align)
	skip := -int(uintptr(unsafe.Pointer(&raw[0]))) & (align - 1)
	return raw[skip:][:n]
}
