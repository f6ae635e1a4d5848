package filesystem

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// What ext4 keeps back from everybody for its own lists: a fiftieth of the blocks, at most this many (fs/ext4/super.c,
// ext4_calculate_resv_clusters).
const maxKeptBack = 4096

// firstInode is how many inodes an empty filesystem has in use.
const firstInode = 11

// RoomOn returns what an ext4 filesystem of MakeExt4 on a partition of size bytes has room for. It asks mke2fs itself: what a filesystem
// takes for itself depends on the version and the configuration of that program. The filesystem is made in a sparse file below
// dir, which should be in memory; it takes about 70 MiB there for each TiB.
func RoomOn(ctx context.Context, run Runner, dir string, size int64) (Need, error) {
	dir, err := os.MkdirTemp(dir, "room-")
	if err != nil {
		return Need{}, err
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "disk")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return Need{}, err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return Need{}, err
	}
	if err := MakeExt4(ctx, run, name, "ROOM", "00000000-0000-4000-8000-000000000000"); err != nil {
		return Need{}, err
	}
	var b [1024]byte // the superblock: Linux Documentation/filesystems/ext4/super.rst
	if _, err := f.ReadAt(b[:], 1024); err != nil {
		return Need{}, fmt.Errorf("read superblock: %w", err)
	}
	le := binary.LittleEndian
	if le.Uint16(b[0x38:]) != 0xef53 || le.Uint32(b[0x18:]) != 2 {
		return Need{}, fmt.Errorf("mke2fs made no ext4 filesystem with blocks of %d bytes", ext4Block)
	}
	total := int64(le.Uint32(b[0x4:])) | int64(le.Uint32(b[0x150:]))<<32
	free := int64(le.Uint32(b[0xc:])) | int64(le.Uint32(b[0x158:]))<<32
	return Need{Inodes: int64(le.Uint32(b[0x10:])), Blocks: max(0, free-min(total/50, maxKeptBack))}, nil
}

// RoomIn returns what the mounted filesystem at dir, an ext4 one of MakeExt4, would have room for if it were empty.
func RoomIn(dir string) (Need, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Need{}, fmt.Errorf("look at filesystem %s: %w", dir, err)
	}
	blocks := int64(st.Blocks) * st.Bsize / ext4Block
	inodes := int64(st.Files) - firstInode
	if inodes < 0 { // a filesystem that makes them as it needs them
		inodes = math.MaxInt64
	}
	return Need{Inodes: inodes, Blocks: max(0, blocks-min(blocks/50, maxKeptBack))}, nil
}

// Fits reports whether what needs n fits into room.
func (n Need) Fits(room Need) bool { return n.Inodes <= room.Inodes && n.Blocks <= room.Blocks }

// Easily reports whether n is so small beside a partition of size bytes that it fits whatever mke2fs takes for itself: half of the
// bytes, and as few inodes as it makes for the largest disks.
func (n Need) Easily(size int64) bool {
	const bytesPerInode = 65536 // of the type "huge" in mke2fs.conf
	return size >= 1<<30 && n.Blocks <= size/ext4Block/2 && n.Inodes <= size/bytesPerInode/2
}
