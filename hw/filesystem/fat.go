package filesystem

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"gprovision/model/layout"
)

// What every FAT32 has here (Microsoft's FAT specification, version 1.03, sections 3 to 5).
const (
	minClusters = 65525 // fewer would be a FAT16 (section 3.5)
	fatReserved = 32    // sectors before the first FAT
	fatCopies   = 2
	fatRoot     = 2 // cluster of the root directory, the first that there is
	fatInfo     = 1 // sector with what is free
	fatBackup   = 6 // sector of the copies of the first two
)

// MakeFAT32 makes an empty FAT32 filesystem in partition p of the disk d, with the label p.FSLabel (at most 11 characters, upper
// case) and the serial number p.FSUUID (XXXX-XXXX), and syncs. What was there is lost. It writes through the whole disk and
// needs no node of the partition; whoever has the partition open, or mounts it, must do so afterwards. The same partition gets the same
// bytes each time.
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
	unfit := func(r rune) bool {
		return r < ' ' || r > '~' || r >= 'a' && r <= 'z' || strings.ContainsRune(`"*+,./:;<=>?[\]|`, r)
	}
	if len(p.FSLabel) > 11 || strings.ContainsFunc(p.FSLabel, unfit) {
		return fmt.Errorf("label %q is not fit for FAT", p.FSLabel)
	}
	ss := int64(d.SectorSize())
	if ss != 512 && ss != 4096 {
		return fmt.Errorf("sectors of %d bytes", ss)
	}
	if p.Start < 0 || p.Size <= 0 || p.Start%ss != 0 || p.Size%ss != 0 || p.Start > d.Size()-p.Size {
		return fmt.Errorf("%d bytes at %d are not a part of the disk", p.Size, p.Start)
	}
	g, err := fatGeometryOf(p.Size, ss)
	if err != nil {
		return err
	}
	part := &region{d: d, start: p.Start, size: p.Size}
	// First and in one go: old data in front of the files would be taken for ours by who knows whom.
	root := (fatReserved + fatCopies*g.perFAT) * ss
	if err := part.clear(root + g.perCluster*ss); err != nil {
		return err
	}
	if p.FSLabel != "" {
		if _, err := part.WriteAt(labelEntry(p.FSLabel, ss), root); err != nil {
			return err
		}
	}
	fat := make([]byte, ss) // the first two entries are no clusters (section 4), the third one is the root directory's
	for i, v := range []uint32{0x0ffffff8, fatEnd, fatEnd} {
		le.PutUint32(fat[4*i:], v)
	}
	for i := range int64(fatCopies) {
		if _, err := part.WriteAt(fat, (fatReserved+i*g.perFAT)*ss); err != nil {
			return err
		}
	}
	boot, info := g.bootSector(ss, p.Start, id, p.FSLabel), g.infoSector(ss)
	for _, w := range []struct {
		at   int64
		data []byte
	}{{fatBackup + fatInfo, info}, {fatBackup, boot}, {fatInfo, info}, {0, boot}} {
		if _, err := part.WriteAt(w.data, w.at*ss); err != nil {
			return err
		}
	}
	return d.Sync()
}

func fatSerial(s string) (uint32, error) {
	n, err := strconv.ParseUint(strings.Replace(s, "-", "", 1), 16, 32)
	if err != nil || len(s) != 9 || s[4] != '-' {
		return 0, fmt.Errorf("serial number %q is not XXXX-XXXX", s)
	}
	return uint32(n), nil
}

// fatGeometry is what is where in a FAT32.
type fatGeometry struct {
	sectors    int64 // in all; what is behind them is not used
	perFAT     int64 // sectors of one FAT
	perCluster int64 // sectors of one cluster
	clusters   int64
}

// fatGeometryOf returns the geometry for so many bytes in sectors of ss bytes. Clusters are as large as mkfs.fat makes them.
func fatGeometryOf(size, ss int64) (fatGeometry, error) {
	cluster := int64(32 << 10)
	for _, c := range []struct{ most, cluster int64 }{{260 << 20, 512}, {8 << 30, 4 << 10}, {16 << 30, 8 << 10}, {32 << 30, 16 << 10}} {
		if size <= c.most {
			cluster = c.cluster
			break
		}
	}
	g := fatGeometry{sectors: size / ss, perCluster: max(cluster/ss, 1)}
	if g.sectors > 1<<32-1 {
		return g, errors.New("FAT32 counts no more than 2^32-1 sectors")
	}
	// A cluster takes four bytes in each FAT beside its own: the smallest FAT that has an entry for each cluster that is left.
	each := ss*g.perCluster + 4*fatCopies
	g.perFAT = (4*(g.sectors-fatReserved) + each - 1) / each
	g.clusters = (g.sectors - fatReserved - fatCopies*g.perFAT) / g.perCluster
	if more := g.clusters + 2 - g.perFAT*ss/4; more > 0 { // two entries of the FAT are of no cluster
		g.clusters -= more
		g.sectors -= more * g.perCluster
	}
	if g.clusters < minClusters {
		return g, fmt.Errorf("%d clusters are too few for FAT32", g.clusters)
	}
	return g, nil
}

// bootSector returns the first sector (sections 3.1 and 3.3), without code.
func (g fatGeometry) bootSector(ss, start int64, id uint32, label string) []byte {
	if label == "" {
		label = "NO NAME"
	}
	b := make([]byte, ss)
	copy(b, "\xeb\x58\x90MSWIN4.1") // a jump over all this, and the name that the specification advises
	le.PutUint16(b[11:], uint16(ss))
	b[13] = byte(g.perCluster)
	le.PutUint16(b[14:], fatReserved)
	b[16] = fatCopies
	b[21] = 0xf8            // a medium that stays
	le.PutUint16(b[24:], 1) // sectors of a track
	le.PutUint16(b[26:], 1) // heads
	le.PutUint32(b[28:], uint32(min(start/ss, 0xffffffff)))
	le.PutUint32(b[32:], uint32(g.sectors))
	le.PutUint32(b[36:], uint32(g.perFAT))
	le.PutUint32(b[44:], fatRoot)
	le.PutUint16(b[48:], fatInfo)
	le.PutUint16(b[50:], fatBackup)
	b[64] = 0x80 // drive number
	b[66] = 0x29 // the next three fields are there
	le.PutUint32(b[67:], id)
	copy(b[71:], fmt.Sprintf("%-11s%-8s", label, "FAT32"))
	b[510], b[511] = 0x55, 0xaa
	return b
}

// infoSector returns the sector with what is free (section 5): all but the root directory.
func (g fatGeometry) infoSector(ss int64) []byte {
	b := make([]byte, ss)
	copy(b, "RRaA")
	copy(b[484:], "rrAa")
	le.PutUint32(b[488:], uint32(g.clusters-1))
	le.PutUint32(b[492:], fatRoot)
	b[510], b[511] = 0x55, 0xaa
	return b
}

// labelEntry returns the first sector of a root directory that has nothing but the filesystem's label (section 6).
func labelEntry(label string, ss int64) []byte {
	b := make([]byte, ss)
	copy(b, fmt.Sprintf("%-11s", label))
	b[11] = fatVolumeID
	le.PutUint16(b[24:], fatDate)
	return b
}

// region is one partition of a disk.
type region struct {
	d           Device
	start, size int64
}

// ReadAt implements io.ReaderAt.
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

// WriteAt implements io.WriterAt. It writes nothing outside of the partition.
func (r *region) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || int64(len(p)) > r.size-off {
		return 0, fmt.Errorf("%d bytes at %d are outside of the partition", len(p), off)
	}
	return r.d.WriteAt(p, r.start+off)
}

// clear writes zeros over the first n bytes.
func (r *region) clear(n int64) error {
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < n; at += int64(len(zeros)) {
		if _, err := r.WriteAt(zeros[:min(n-at, int64(len(zeros)))], at); err != nil {
			return err
		}
	}
	return nil
}
