// Package filesystem recognises what is on a disk or partition, makes ext4 and FAT32 filesystems, checks ext4, and unpacks a
// tar stream into a mounted one.
//
// It does not mount anything and starts no program by itself: mke2fs and e2fsck are run by a Runner that the caller passes in.
// What it reads from disks is treated as hostile.
package filesystem

import (
	"context"
	"io"
)

// Runner runs a program and waits for it. The path is absolute; nothing is searched. The output is standard output and standard
// error together. A program that ran to its end, with whatever exit status, gives no error; one that could not be started, was
// killed by a signal or by ctx does. host.Run is one.
type Runner func(ctx context.Context, path string, args ...string) (output []byte, exit int, err error)

// Device is what MakeFAT32 must know of a disk. block.Device is one.
type Device interface {
	io.ReaderAt
	io.WriterAt
	// Size is the size of the disk in bytes.
	Size() int64
	// SectorSize is the logical sector size in bytes: 512 or 4096.
	SectorSize() int
	// Sync returns when all that was written is on the medium.
	Sync() error
}

// The programs, where the initramfs has them.
const (
	Mke2fs = "/sbin/mke2fs"
	E2fsck = "/sbin/e2fsck"
)
