package filesystem

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/filesystem/fat32"

	"gprovision/model/layout"
)

// minClusters is what makes a FAT a FAT32 (Microsoft's FAT specification, section 3.5).
const minClusters = 65525

// MakeFAT32 makes an empty FAT32 filesystem in partition p of the disk d, with the label p.FSLabel (at most 11 characters, upper
// case) and the serial number p.FSUUID (XXXX-XXXX), and syncs. What was there is lost. It writes through the whole disk and
// needs no node of the partition; whoever has the partition open, or mounts it, must do so afterwards.
//
// The partition must be large enough for FAT32: about 34 MiB with sectors of 512 bytes, 260 MiB with 4096.
func MakeFAT32(d Device, p layout.Partition) error {
	if err := makeFAT32(d, p); err != nil {
		return fmt.Errorf("make FAT32 in partition %d: %w", p.Number, err)
	}
	return nil
}

func makeFAT32(d Device, p layout.Partition) error {
	id, err := fatSerial(p.FSUUID)
	if err != nil {
		return err
	}
	if len(p.FSLabel) > 11 || strings.ToUpper(p.FSLabel) != p.FSLabel || strings.ContainsAny(p.FSLabel, `"*+,./:;<=>?[\]|`) {
		return fmt.Errorf("label %q is not fit for FAT", p.FSLabel)
	}
	ss := int64(d.SectorSize())
	if p.Start < 0 || p.Size <= 0 || p.Start%ss != 0 || p.Size%ss != 0 || p.Start > d.Size()-p.Size {
		return fmt.Errorf("%d bytes at %d are not a part of the disk", p.Size, p.Start)
	}
	part := &region{d: d, start: p.Start, size: p.Size}
	// Old data in the reserved sectors would be taken for ours by who knows whom.
	if _, err := part.WriteAt(make([]byte, 32*ss), 0); err != nil {
		return err
	}
	if _, err := fat32.Create(part, p.Size, 0, ss, p.FSLabel, true); err != nil {
		return err
	}
	return finish(part, ss, p.Start, id)
}

func fatSerial(s string) (uint32, error) {
	n, err := strconv.ParseUint(strings.Replace(s, "-", "", 1), 16, 32)
	if err != nil || len(s) != 9 || s[4] != '-' {
		return 0, fmt.Errorf("serial number %q is not XXXX-XXXX", s)
	}
	return uint32(n), nil
}

// finish puts in what the library leaves out: serial number, place of the partition on the disk, and the count of free
// clusters. Sectors 6 and 7 are the copies of 0 and 1.
func finish(part *region, ss, start int64, id uint32) error {
	boot, info := make([]byte, ss), make([]byte, ss)
	if err := readFull(part, boot, 0); err != nil {
		return err
	}
	if err := readFull(part, info, ss); err != nil {
		return err
	}
	reserved, fats, perFAT := int64(le.Uint16(boot[14:])), int64(boot[16]), int64(le.Uint32(boot[36:]))
	clusters := (int64(le.Uint32(boot[32:])) - reserved - fats*perFAT) / max(int64(boot[13]), 1)
	if more := clusters + 2 - perFAT*ss/4; more > 0 { // the library counts two more than its FAT has entries for
		clusters -= more
		le.PutUint32(boot[32:], le.Uint32(boot[32:])-uint32(more*int64(boot[13])))
	}
	if clusters < minClusters {
		return fmt.Errorf("%d clusters are too few for FAT32", clusters)
	}
	le.PutUint32(boot[28:], uint32(min(start/ss, 0xffffffff)))
	le.PutUint32(boot[67:], id)
	le.PutUint32(info[488:], uint32(clusters-1)) // the root directory has one
	le.PutUint32(info[492:], 2)
	for _, w := range []struct {
		at   int64
		data []byte
	}{{7, info}, {6, boot}, {1, info}, {0, boot}} {
		if _, err := part.WriteAt(w.data, w.at*ss); err != nil {
			return err
		}
	}
	return part.d.Sync()
}

// region shows one partition of a disk to the filesystem library.
type region struct {
	d           Device
	start, size int64
	pos         int64
}

func (r *region) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= r.size {
		return 0, io.EOF
	}
	n := min(int64(len(p)), r.size-off)
	got, err := r.d.ReadAt(p[:n], r.start+off)
	if err == nil && got < len(p) {
		err = io.EOF
	}
	return got, err
}

func (r *region) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || int64(len(p)) > r.size-off {
		return 0, fmt.Errorf("%d bytes at %d are outside of the partition", len(p), off)
	}
	return r.d.WriteAt(p, r.start+off)
}

func (r *region) Read(p []byte) (int, error) {
	n, err := r.ReadAt(p, r.pos)
	r.pos += int64(n)
	return n, err
}

func (r *region) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += r.pos
	case io.SeekEnd:
		off += r.size
	}
	if off < 0 {
		return r.pos, fs.ErrInvalid
	}
	r.pos = off
	return off, nil
}

func (r *region) Close() error                            { return nil }
func (r *region) Stat() (fs.FileInfo, error)              { return regionInfo{r.size}, nil }
func (r *region) Sys() (*os.File, error)                  { return nil, backend.ErrNotSuitable }
func (r *region) Writable() (backend.WritableFile, error) { return r, nil }
func (r *region) Path() string                            { return "" }

type regionInfo struct{ size int64 }

func (i regionInfo) Name() string       { return "partition" }
func (i regionInfo) Size() int64        { return i.size }
func (i regionInfo) Mode() fs.FileMode  { return 0o600 }
func (i regionInfo) ModTime() time.Time { return time.Time{} }
func (i regionInfo) IsDir() bool        { return false }
func (i regionInfo) Sys() any           { return nil }
