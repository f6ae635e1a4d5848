package filesystem

import (
	"encoding/binary"
	"fmt"
	"io"
)

// NotedErrors says whether the kernel has noted errors in the ext4 filesystem in r: bit 1 of s_state, a little-endian 16-bit
// number at byte 0x3a of the superblock, which begins at byte 1024 (Linux Documentation/filesystems/ext4/super.rst). Such a
// filesystem mounts, and must be checked first.
func NotedErrors(r io.ReaderAt) (bool, error) {
	var b [2]byte
	if _, err := r.ReadAt(b[:], 1024+0x3a); err != nil {
		return false, fmt.Errorf("read the state of the superblock: %w", err)
	}
	return binary.LittleEndian.Uint16(b[:])&2 != 0, nil
}
