package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"

	"golang.org/x/sys/unix"
)

// WriteLog is the log of all that was written to a disk, in the order in which the disk had done it: the format of Linux's
// dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst), as QEMU's blklogwrites filter writes it too. All numbers
// in it are little-endian.
type WriteLog struct {
	// Entries are all that the log has, oldest first.
	Entries []WriteEntry

	log io.ReaderAt
}

// WriteEntry is one request that a disk has done.
type WriteEntry struct {
	// Offset and Size are the bytes of the disk that were written or discarded; Size is 0 for what only flushes.
	Offset, Size int64
	// Flush: all entries before this one are safe from a power cut. FUA: this entry is. Discard: the bytes read as zeros now.
	Flush, FUA, Discard bool
	// End is where the entry ends in the log, bytes: a log of that length holds it.
	End int64

	data int64 // where the written bytes begin in the log
}

const (
	writeLogMagic   = 0x6a736677736872
	writeLogVersion = 1
	// maxWriteEntries bounds what a log that lies may cost.
	maxWriteEntries = 1 << 24
)

const (
	logFlush = 1 << iota
	logFUA
	logDiscard
	logMark
	logMetadata // QEMU never sets it
	logFlags    = 1<<iota - 1
)

// ErrWriteLog is the error of bytes that are not a write log.
var ErrWriteLog = errors.New("not a write log")

// ReadWriteLog reads the log of a disk of the given size, bytes. An entry that is cut off at the end of the log, as a power cut
// leaves it, ends it. The reader is used by Apply too.
func ReadWriteLog(log io.ReaderAt, size, disk int64) (*WriteLog, error) {
	le := binary.LittleEndian
	var super [28]byte
	if _, err := log.ReadAt(super[:], 0); err != nil {
		return nil, fmt.Errorf("%w: read its head: %w", ErrWriteLog, err)
	}
	sector := int64(le.Uint32(super[24:]))
	if le.Uint64(super[:]) != writeLogMagic || le.Uint64(super[8:]) != writeLogVersion {
		return nil, fmt.Errorf("%w: magic number %#x, version %d", ErrWriteLog, le.Uint64(super[:]), le.Uint64(super[8:]))
	}
	if sector < 512 || sector > 1<<16 || bits.OnesCount64(uint64(sector)) != 1 {
		return nil, fmt.Errorf("%w: sectors of %d bytes", ErrWriteLog, sector)
	}
	l := &WriteLog{log: log}
	for at := sector; at+sector <= size; {
		var head [32]byte
		if _, err := log.ReadAt(head[:], at); err != nil {
			return nil, fmt.Errorf("read write log at %d: %w", at, err)
		}
		start, n, flags := le.Uint64(head[:]), le.Uint64(head[8:]), le.Uint64(head[16:])
		if start == 0 && n == 0 && flags == 0 {
			break // a place that was kept for an entry which never came
		}
		if flags&^logFlags != 0 || n > uint64(disk/sector) || start > uint64(disk/sector)-n || len(l.Entries) == maxWriteEntries {
			return nil, fmt.Errorf("%w: entry %d at %d: %d sectors at %d of a disk with %d, flags %#x", ErrWriteLog, len(l.Entries), at, n, start, disk/sector, flags)
		}
		e := WriteEntry{Offset: int64(start) * sector, Size: int64(n) * sector, Flush: flags&logFlush != 0, FUA: flags&logFUA != 0, Discard: flags&logDiscard != 0}
		e.data = at + sector
		e.End = e.data
		if !e.Discard {
			e.End += e.Size
		}
		if e.End > size {
			break
		}
		l.Entries = append(l.Entries, e)
		at = e.End
	}
	return l, nil
}

// Within returns how many entries lie in the first n bytes of the log: those that a disk had done when its log was that long.
func (l *WriteLog) Within(n int64) int {
	lo, hi := 0, len(l.Entries)
	for lo < hi {
		if mid := (lo + hi) / 2; l.Entries[mid].End <= n {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// Flushed returns how many of the first n entries are safe from a power cut behind them, apart from those with FUA.
func (l *WriteLog) Flushed(n int) int {
	for n > 0 && !l.Entries[n-1].Flush {
		n--
	}
	return n
}

// Apply writes the entries from one number up to another, without that, to a copy of the disk. keep says which; nil: all. What is
// discarded becomes a hole in the file.
func (l *WriteLog) Apply(disk *os.File, from, to int, keep func(WriteEntry) bool) error {
	for _, e := range l.Entries[from:to] {
		if e.Size == 0 || keep != nil && !keep(e) {
			continue
		}
		if e.Discard {
			if err := unix.Fallocate(int(disk.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, e.Offset, e.Size); err != nil {
				return fmt.Errorf("discard %d bytes at %d: %w", e.Size, e.Offset, err)
			}
			continue
		}
		if _, err := io.Copy(io.NewOffsetWriter(disk, e.Offset), io.NewSectionReader(l.log, e.data, e.Size)); err != nil {
			return fmt.Errorf("write %d bytes at %d: %w", e.Size, e.Offset, err)
		}
	}
	return nil
}
