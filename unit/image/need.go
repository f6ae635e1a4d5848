package image

import (
	"context"
	"errors"
	"fmt"
	"gprovision/hw/filesystem"
	"gprovision/hw/raid"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/unit/state"
)

// ErrNoRoom says that an image needs more than the main system has room for. It speaks against the image, as there may be a smaller one.
var ErrNoRoom = errors.New("the release does not fit")

// What a restore puts beside the release.
const (
	ownInodes = 512
	ownBlocks = 16 << 20 / 4096 // files of a few bytes, the journal's directory, names
)

// Beside adds to what a release needs what a restore puts beside it. artifact is the size of a boot artifact: on BIOS kernel and initramfs
// lie once more on the main system, and there are two of them for a moment; a new artifact arrives beside the old one.
func Beside(need filesystem.Need, fw layout.Firmware, artifact int64) filesystem.Need {
	copies := int64(1)
	if fw == layout.BIOS {
		copies = 3
	}
	return filesystem.Need{Inodes: need.Inodes + ownInodes, Blocks: need.Blocks + ownBlocks + copies*(artifact/4096+1)}
}

// CheckRoom returns an error unless need, see Beside, has room in an empty main system of that kind; the error wraps ErrNoRoom.
func CheckRoom(need, room filesystem.Need) error {
	if need.Fits(room) {
		return nil
	}
	return fault.Because(fault.DiskTooSmall, fmt.Errorf("%w: it needs %d blocks of 4096 bytes and %d inodes, the main system has %d and %d", ErrNoRoom,
		need.Blocks, need.Inodes, room.Blocks, room.Inodes))
}

// Room returns what a main system of size bytes will have room for. Where need is far from its limits, or the size is not known (0), it is
// not looked at closely.
func Room(ctx context.Context, run filesystem.Runner, size int64, need filesystem.Need) (filesystem.Need, error) {
	if size == 0 || need.Easily(size) {
		return need, nil
	}
	return filesystem.RoomOn(ctx, run, "", size)
}

// MainSize is how large the main system of a unit is by its record, bytes; 0: the record does not say.
func MainSize(u state.Unit) int64 {
	role := layout.Primary
	if u.Array != nil {
		role = layout.Member
	}
	least := int64(0)
	for i, d := range u.Main {
		p := d.Table.Find(role)
		if p == nil {
			return 0
		}
		if i == 0 || p.Size < least {
			least = p.Size
		}
	}
	if u.Array == nil {
		return least
	}
	return raid.Size(u.Array.Level, len(u.Main), least)
}
