package filesystem

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// NotedErrors reports whether the kernel has noted errors in the ext4 filesystem in r: bit 1 of s_state, a little-endian 16-bit
// number at byte 0x3a of the superblock, which begins at byte 1024 (Linux Documentation/filesystems/ext4/super.rst). Such a
// filesystem mounts, and must be checked first.
func NotedErrors(r io.ReaderAt) (bool, error) {
	var b [2]byte
	if _, err := r.ReadAt(b[:], 1024+0x3a); err != nil {
		return false, fmt.Errorf("read the state of the superblock: %w", err)
	}
	return binary.LittleEndian.Uint16(b[:])&2 != 0, nil
}

// AwaitsReplay reports whether the ext4 filesystem in r has a journal that is to be replayed, since it was not unmounted: bit 2 of
// s_feature_incompat (INCOMPAT_RECOVER), a little-endian 32-bit number at byte 0x60 of the superblock (Linux
// Documentation/filesystems/ext4/super.rst). A mount replays it, a read-only one too: what was synced may be in the journal alone.
func AwaitsReplay(r io.ReaderAt) (bool, error) {
	var b [4]byte
	if _, err := r.ReadAt(b[:], superblock+0x60); err != nil {
		return false, fmt.Errorf("read the features of the superblock: %w", err)
	}
	return binary.LittleEndian.Uint32(b[:])&4 != 0, nil
}

// Where a superblock is, in bytes, and its size. The first copy that MakeExt4 leaves is at the start of the second group of blocks.
const (
	superblock     = 1024
	superblockSize = 1024
	superblockCopy = 32768 * 4096
)

// SoundExt4 reports whether the first superblock in r is one of ext4 whose checksum holds. One without a checksum is believed.
func SoundExt4(r io.ReaderAt) (bool, error) {
	b := make([]byte, superblockSize)
	if n, err := r.ReadAt(b, superblock); n < len(b) {
		return false, fmt.Errorf("read the superblock: %w", err)
	}
	return soundExt4(b), nil
}

// ExtCopy returns what the copy of an ext4 superblock says that CheckExt4 takes when the first one is lost. ok is false if there is
// none that holds: its checksum, its own place (block 32768 of 4096 bytes) and its group number are compared. It proves only that
// such a filesystem was once here: whether it still is, the first superblock says (SoundExt4). size is that of r in bytes.
func ExtCopy(r io.ReaderAt, size int64) (info Info, ok bool, err error) {
	if size < superblockCopy+superblockSize {
		return info, false, nil
	}
	b := make([]byte, superblockSize)
	if n, err := r.ReadAt(b, superblockCopy); n < len(b) {
		return info, false, fmt.Errorf("read the copy of the superblock: %w", err)
	}
	const blocks4096, firstCopy = 2, 1 // s_log_block_size, s_block_group_nr (super.rst, as above)
	if !soundExt4(b) || le.Uint32(b[0x18:]) != blocks4096 || le.Uint16(b[0x5a:]) != firstCopy {
		return info, false, nil
	}
	return Info{Type: "ext4", Class: FS, Offset: superblockCopy, UUID: uuid(b[0x68:0x78]), Label: clean(b[0x78:0x88])}, true, nil
}

// soundExt4 checks magic number and checksum of a superblock: crc32c over all that stands before it, without the inversion at the end
// (Linux Documentation/filesystems/ext4/super.rst, s_checksum; metadata_csum is bit 10 of s_feature_ro_compat).
func soundExt4(b []byte) bool {
	if le.Uint16(b[0x38:]) != 0xef53 {
		return false
	}
	if le.Uint32(b[0x64:])&0x400 == 0 {
		return true
	}
	return ^crc32.Checksum(b[:0x3fc], crc32.MakeTable(crc32.Castagnoli)) == le.Uint32(b[0x3fc:])
}
