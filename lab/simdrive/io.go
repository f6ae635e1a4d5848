package simdrive

import (
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// Area is a part of a drive that is read and written as a block device opened with O_DIRECT: offsets and lengths are multiples of the
// sector size. The device is one, each namespace is one.
type Area struct {
	d     *Drive
	start int64
	size  func() int64 // sectors
}

// Device returns the device: the drive as far as the kernel knows its size, or its first namespace.
func (d *Drive) Device() *Area { return &Area{d, 0, func() int64 { return d.kernel }} }

// Namespace returns a namespace of an NVMe drive, from 1, whether it is attached or not.
func (d *Drive) Namespace(id int) *Area {
	areas := d.all()
	a := areas[id-1]
	return &Area{d, a.start, func() int64 { return a.end - a.start }}
}

// Size returns the size in bytes.
func (a *Area) Size() int64 { return a.size() * int64(a.d.c.SectorSize) }

// transfer begins a read or a write: alignment, range, power, time, and what keeps the drive from it.
func (a *Area) transfer(n int, off int64) error {
	sector := int64(a.d.c.SectorSize)
	if off < 0 || off%sector != 0 || int64(n)%sector != 0 {
		return unix.EINVAL
	}
	if err := a.d.live(50*time.Microsecond + time.Duration(n)*2); err != nil {
		return err
	}
	if a.d.closed() {
		return unix.EIO
	}
	return nil
}

// closed reports whether the drive refuses to read and write.
func (d *Drive) closed() bool {
	return d.running() || d.said == failed || d.ended == failed && d.c.Protocol == SCSI || d.ata.locked || d.locked
}

// ReadAt implements io.ReaderAt.
func (a *Area) ReadAt(p []byte, off int64) (int, error) {
	if off >= a.Size() {
		return 0, io.EOF
	}
	n := min(len(p), int(a.Size()-off))
	if err := a.transfer(n, off); err != nil {
		return 0, err
	}
	sector := a.d.c.SectorSize
	for at := 0; at < n; at += sector {
		lba := a.start + (off+int64(at))/int64(sector)
		if b, ok := a.d.cache[lba]; ok {
			copy(p[at:at+sector], b)
			continue
		}
		if !a.d.m.read(lba, p[at:at+sector]) {
			return at, unix.EIO
		}
		if a.d.f.OldFromCache {
			a.d.cache[lba] = append([]byte(nil), p[at:at+sector]...)
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements io.WriterAt.
func (a *Area) WriteAt(p []byte, off int64) (int, error) {
	if int64(len(p)) > a.Size()-off {
		return 0, unix.ENOSPC
	}
	if err := a.transfer(len(p), off); err != nil {
		return 0, err
	}
	if a.d.verifying {
		return 0, unix.EIO
	}
	sector := a.d.c.SectorSize
	for at := 0; at < len(p); at += sector {
		lba := a.start + (off+int64(at))/int64(sector)
		if a.d.bad[lba] {
			return at, unix.EIO
		}
		b := p[at : at+sector]
		if a.d.f.OldFromCache || a.d.f.CacheOnly {
			a.d.cache[lba] = append([]byte(nil), b...)
		}
		if !a.d.f.CacheOnly {
			a.d.m.write(lba, b, a.d.mark, a.d.c.Flash)
		}
		a.d.untouched = false
	}
	return len(p), nil
}

// Sync returns when what was written is on the medium.
func (a *Area) Sync() error { return a.transfer(0, 0) }

// Discard tells the drive that sectors are not needed any more. They are read as zeros then; the copies stay until the drive needs the
// room.
func (a *Area) Discard(off, n int64) error {
	sector := int64(a.d.c.SectorSize)
	switch {
	case !a.d.c.Flash:
		return unix.EOPNOTSUPP
	case n%sector != 0 || n > a.Size()-off:
		return unix.EINVAL
	}
	if err := a.transfer(0, off); err != nil {
		return err
	}
	a.d.m.put(a.start+off/sector, a.start+(off+n)/sector, fill{born: a.d.mark}, true)
	a.d.untouched = false
	return nil
}
