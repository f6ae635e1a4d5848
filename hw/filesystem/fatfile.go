package filesystem

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"gprovision/model/layout"
)

// Parts of a directory entry (Microsoft's FAT specification, section 6).
const (
	fatEntry     = 32
	fatVolumeID  = 0x08
	fatDirectory = 0x10
	fatArchive   = 0x20
	fatDate      = 0x21 // 1980-01-01, the first day there is
)

// fatEnd ends a chain of clusters.
const fatEnd = 0x0fffffff

var shortName = regexp.MustCompile(`^[A-Z0-9_-]{1,8}(\.[A-Z0-9_-]{1,3})?$`)

// PutFAT32 writes one file into the FAT32 filesystem of partition p that MakeFAT32 has just made, and syncs: for whoever builds a disk
// without mounting it. The name has slashes between directories, which are made; each part is a short one (8.3, upper case).
func PutFAT32(d Device, p layout.Partition, name string, content []byte) error {
	if err := putFAT32(d, p, strings.Split(name, "/"), content); err != nil {
		return fmt.Errorf("write %s into partition %d: %w", name, p.Number, err)
	}
	return d.Sync()
}

func putFAT32(d Device, p layout.Partition, names []string, content []byte) error {
	if int64(len(content)) > 1<<32-1 {
		return errors.New("FAT32 holds no file of 4 GiB")
	}
	for _, n := range names {
		if !shortName.MatchString(n) {
			return fmt.Errorf("%q is no short name", n)
		}
	}
	part, ss := &region{d: d, start: p.Start, size: p.Size}, int64(d.SectorSize())
	boot, info := make([]byte, ss), make([]byte, ss)
	if err := errors.Join(readFull(part, boot, 0), readFull(part, info, ss)); err != nil {
		return err
	}
	fatAt, perFAT, fats := int64(le.Uint16(boot[14:])), int64(le.Uint32(boot[36:])), int64(boot[16])
	data, cluster := (fatAt+fats*perFAT)*ss, int64(boot[13])*ss
	at := func(c uint32) int64 { return data + int64(c-2)*cluster }
	root, free := le.Uint32(boot[44:]), le.Uint32(info[488:])
	used := make([]byte, 4)
	if err := readFull(part, used, fatAt*ss+4*int64(root+1)); err != nil {
		return err
	}
	if le.Uint32(used) != 0 {
		return errors.New("there is something in the filesystem already")
	}

	var chain []uint32 // of the FAT, from the cluster behind the root directory on
	next := root + 1
	take := func(n int64) uint32 {
		first := next
		for range n - 1 {
			next++
			chain = append(chain, next)
		}
		next++
		chain = append(chain, fatEnd)
		return first
	}
	files := (int64(len(content)) + cluster - 1) / cluster
	if need := files + int64(len(names)) - 1; cluster == 0 || need > int64(free) || len(content) == 0 {
		return fmt.Errorf("%d bytes do not fit", len(content))
	}
	parent := root
	for i, n := range names {
		dir := make([]byte, cluster)
		if err := readFull(part, dir, at(parent)); err != nil {
			return err
		}
		slot := 0
		for slot < len(dir) && dir[slot] != 0 {
			slot += fatEntry
		}
		if slot+fatEntry > len(dir) {
			return errors.New("the directory is full")
		}
		own, writes := uint32(0), []byte(nil)
		if i == len(names)-1 {
			own, writes = take(files), content
			putEntry(dir[slot:], n, fatArchive, own, uint32(len(content)))
		} else {
			own, writes = take(1), make([]byte, cluster)
			putEntry(dir[slot:], n, fatDirectory, own, 0)
			up := parent
			if up == root {
				up = 0 // what the root directory is called from below
			}
			putEntry(writes, ".", fatDirectory, own, 0)
			putEntry(writes[fatEntry:], "..", fatDirectory, up, 0)
		}
		for at, b := range map[int64][]byte{at(own): writes, at(parent): dir} {
			if _, err := part.WriteAt(b, at); err != nil {
				return err
			}
		}
		parent = own
	}
	table := make([]byte, 4*len(chain))
	for i, v := range chain {
		le.PutUint32(table[4*i:], v)
	}
	for i := range fats {
		if _, err := part.WriteAt(table, (fatAt+i*perFAT)*ss+4*int64(root+1)); err != nil {
			return err
		}
	}
	le.PutUint32(info[488:], free-uint32(len(chain)))
	le.PutUint32(info[492:], next)
	for _, sector := range []int64{7, 1} {
		if _, err := part.WriteAt(info, sector*ss); err != nil {
			return err
		}
	}
	return nil
}

// putEntry writes a directory entry.
func putEntry(e []byte, name string, attributes byte, cluster, size uint32) {
	base, ext, _ := strings.Cut(name, ".")
	if base == "" {
		base, ext = name, "" // . and ..
	}
	copy(e, fmt.Sprintf("%-8s%-3s", base, ext))
	e[11] = attributes
	for _, date := range []int{16, 18, 24} {
		le.PutUint16(e[date:], fatDate)
	}
	le.PutUint16(e[20:], uint16(cluster>>16))
	le.PutUint16(e[26:], uint16(cluster))
	le.PutUint32(e[28:], size)
}
