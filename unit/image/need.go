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

// ErrNoRoom means that the main system has no room for an image. It counts against that image only: there may be a
// smaller one.
var ErrNoRoom = errors.New("the release does not fit")

// What a restore adds to the release.
const (
	ownInodes = 512
	ownBlocks = 16 << 20 / 4096 // small files, the journal's directory, names
)

// Beside adds to the needs of a release what a restore puts beside it. artifact is the size of a boot artifact in
// bytes. A new artifact arrives beside the old one. On BIOS, kernel and initramfs lie on the main system a second
// time, and for a moment in two versions.
func Beside(need filesystem.Need, fw layout.Firmware, artifact int64) filesystem.Need {
	copies := int64(1)
	if fw == layout.BIOS {
		copies = 3
	}
	return filesystem.Need{Inodes: need.Inodes + ownInodes, Blocks: need.Blocks + ownBlocks + copies*(artifact/4096+1)}
}

// CheckRoom returns an error unless need (Beside) has room in an empty main system of that size. The error wraps
// ErrNoRoom.
func CheckRoom(need, room filesystem.Need) error {
	if need.Fits(room) {
		return nil
	}
	return fault.Because(fault.DiskTooSmall, fmt.Errorf("%w: it needs %d blocks of 4096 bytes and %d inodes, the main system has %d and %d", ErrNoRoom,
		need.Blocks, need.Inodes, room.Blocks, room.Inodes))
}

// Room returns what a main system of size bytes has room for. It returns need itself, without a closer look, if that
// is far below the limit or if size is 0, which means unknown.
func Room(ctx context.Context, run filesystem.Runner, size int64, need filesystem.Need) (filesystem.Need, error) {
	if size == 0 || need.Easily(size) {
		return need, nil
	}
	return filesystem.RoomOn(ctx, run, "", size)
}

// MainSize returns the size of a unit's main system by its record, in bytes. It is 0 if the record does not say.
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
