package block

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gprovision/hw/partition"
	"gprovision/model/layout"
)

// Device is an open disk, partition or image file. Reads and writes go through the page cache; OpenDirect reads past it.
// ReadAt and WriteAt may be called at the same time; the other methods may not.
type Device struct {
	path     string
	file     *os.File
	size     int64
	sector   int
	physical int
	special  bool   // a block device, not an image file
	sys      string // where sysfs is
	rescan   func() error
	change   func(op int32, p unix.BlkpgPartition) error
}

// Open opens a block device or an image file, which then has sectors of 512 bytes. The caller closes it.
//
// For writing, a block device is opened exclusively: the error is EBUSY if it or one of its partitions is mounted or a member of
// an array, and until Close nobody else gets it or its partitions, mke2fs and mount included. Since the kernel may go on using a device for
// some tens of milliseconds after umount(2) has returned, EBUSY is the answer only if that lasts a second.
func Open(path string, write bool) (*Device, error) {
	flags := os.O_RDONLY
	if write {
		flags = os.O_RDWR | unix.O_EXCL
	}
	return open(path, flags, 0)
}

// OpenShared opens a disk for writing without a claim, also while partitions of it are mounted. It is for what lies outside
// all partitions, such as a boot loader. The caller closes it.
func OpenShared(path string) (*Device, error) { return open(path, os.O_RDWR, 0) }

// OpenUncached opens a disk for reading past the page cache (O_DIRECT): offsets, lengths and addresses of buffers are multiples of the
// sector size. The caller closes it.
func OpenUncached(path string) (*Device, error) { return open(path, os.O_RDONLY|unix.O_DIRECT, 0) }

// OpenImage opens an image file as a disk with the given sector size, 512 or 4096. The caller closes it.
func OpenImage(path string, write bool, sectorSize int) (*Device, error) {
	if sectorSize != 512 && sectorSize != 4096 {
		return nil, fmt.Errorf("open %s: sector size of %d bytes is not supported", path, sectorSize)
	}
	flags := os.O_RDONLY
	if write {
		flags = os.O_RDWR | unix.O_EXCL
	}
	return open(path, flags, sectorSize)
}

// claimWait is how long it is tried to open a device that is in use.
const claimWait = time.Second

// openFile opens a file, and a device as soon as it is free.
func openFile(path string, flags int) (*os.File, error) {
	end := time.Now().Add(claimWait)
	for {
		f, err := os.OpenFile(path, flags, 0)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return f, err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func open(path string, flags int, sector int) (*Device, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open disk: %w", err)
	}
	d := &Device{path: path, sys: "/sys"}
	switch {
	case info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0:
		d.special = true
	case info.Mode().IsRegular():
	default:
		return nil, fmt.Errorf("open disk %s: not a block device nor a file", path)
	}
	if !d.special {
		flags &^= unix.O_EXCL
	}
	if d.file, err = openFile(path, flags); err != nil {
		return nil, fmt.Errorf("open disk: %w", err)
	}
	if err := d.measure(sector); err != nil {
		d.file.Close()
		return nil, fmt.Errorf("open disk %s: %w", path, err)
	}
	d.rescan = func() error { return ioctl(d.file, unix.BLKRRPART, nil) }
	d.change = d.blkpg
	return d, nil
}

func (d *Device) measure(sector int) error {
	if !d.special {
		info, err := d.file.Stat()
		if err != nil {
			return err
		}
		d.size, d.sector, d.physical = info.Size(), 512, 512
		if sector != 0 {
			d.sector, d.physical = sector, sector
		}
		return nil
	}
	if sector != 0 {
		return errors.New("not an image file")
	}
	var size uint64
	if err := ioctl(d.file, unix.BLKGETSIZE64, unsafe.Pointer(&size)); err != nil {
		return fmt.Errorf("BLKGETSIZE64: %w", err)
	}
	var logical, physical int32
	if err := ioctl(d.file, unix.BLKSSZGET, unsafe.Pointer(&logical)); err != nil {
		return fmt.Errorf("BLKSSZGET: %w", err)
	}
	if err := ioctl(d.file, unix.BLKPBSZGET, unsafe.Pointer(&physical)); err != nil {
		return fmt.Errorf("BLKPBSZGET: %w", err)
	}
	d.size, d.sector, d.physical = int64(size), int(logical), int(physical)
	return nil
}

func ioctl(f *os.File, request uint, arg unsafe.Pointer) error {
	for {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(arg))
		switch e {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return e
	}
}

// Path returns the path that the device was opened by.
func (d *Device) Path() string { return d.path }

// Size returns the size in bytes, as it was when the device was opened.
func (d *Device) Size() int64 { return d.size }

// SectorSize returns the logical sector size in bytes.
func (d *Device) SectorSize() int { return d.sector }

// PhysicalSectorSize returns the physical sector size in bytes: 4096 on a disk that emulates 512.
func (d *Device) PhysicalSectorSize() int { return d.physical }

// ReadAt implements io.ReaderAt.
func (d *Device) ReadAt(p []byte, off int64) (int, error) { return d.file.ReadAt(p, off) }

// WriteAt implements io.WriterAt. It refuses to write behind the end, so that an image file does not grow.
func (d *Device) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || int64(len(p)) > d.size-off {
		return 0, fmt.Errorf("write %s: %d bytes at %d are outside of %d bytes", d.path, len(p), off, d.size)
	}
	return d.file.WriteAt(p, off)
}

// Sync returns when all that was written is on the medium.
func (d *Device) Sync() error { return d.file.Sync() }

// Close closes the device without syncing. An exclusive claim ends.
func (d *Device) Close() error { return d.file.Close() }

// SetReadOnly makes the kernel refuse, or take again, writes to the device from anybody (BLKROSET). It needs root, lasts until
// it is changed or the machine restarts, and works on a device that is open for reading. Writers that have the device open
// already are not stopped by every kernel. An image file gives an error.
func (d *Device) SetReadOnly(on bool) error {
	if !d.special {
		return fmt.Errorf("set %s read-only: not a block device", d.path)
	}
	var v int32
	if on {
		v = 1
	}
	if err := ioctl(d.file, unix.BLKROSET, unsafe.Pointer(&v)); err != nil {
		return fmt.Errorf("set %s read-only=%t: %w", d.path, on, err)
	}
	return nil
}

// nodeWait is how long RereadTable waits for the nodes of new partitions.
const nodeWait = 5 * time.Second

// RereadTable makes the partitions that the kernel has those that are on the disk, and returns when their nodes are there. It
// syncs first. The kernel is asked to do it by itself (BLKRRPART); where it cannot, because it knows no such tables or does
// not scan such disks, partitions are removed and added one by one (BLKPG). A partition that is in use and would have to go
// gives an error (EBUSY). On an image file it does nothing.
func (d *Device) RereadTable() error {
	if err := d.file.Sync(); err != nil {
		return fmt.Errorf("read partitions of %s again: %w", d.path, err)
	}
	if !d.special {
		return nil
	}
	want, err := partition.Read(d)
	if err != nil {
		return fmt.Errorf("read partitions of %s again: %w", d.path, err)
	}
	asked := d.rescan()
	if err := d.adjust(want); err != nil {
		return fmt.Errorf("read partitions of %s again: %w", d.path, errors.Join(err, asked))
	}
	disk, err := filepath.EvalSymlinks(d.path)
	if err != nil {
		return fmt.Errorf("wait for partitions of %s: %w", d.path, err)
	}
	end := time.Now().Add(nodeWait)
	for _, p := range want.Partitions {
		node := PartitionPath(disk, p.Number)
		for {
			_, err := os.Stat(node)
			if err == nil {
				break
			}
			if time.Now().After(end) {
				return fmt.Errorf("wait for partitions of %s: %w", d.path, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

// adjust changes what the kernel has where it differs from want. An extended partition is left alone: the kernel has its
// first sectors only.
func (d *Device) adjust(want layout.Table) error {
	have, err := d.known()
	if err != nil {
		return err
	}
	keep := map[int]bool{}
	for _, h := range have {
		w := find(want, h.Number)
		if w != nil && (extended(*w) || w.Start == h.Start && w.Size == h.Size) {
			keep[h.Number] = true
			continue
		}
		if err := d.change(unix.BLKPG_DEL_PARTITION, unix.BlkpgPartition{Pno: int32(h.Number)}); err != nil {
			return fmt.Errorf("remove partition %d: %w", h.Number, err)
		}
	}
	for _, w := range want.Partitions {
		if keep[w.Number] || extended(w) {
			continue
		}
		if err := d.change(unix.BLKPG_ADD_PARTITION, unix.BlkpgPartition{Pno: int32(w.Number), Start: w.Start, Length: w.Size}); err != nil {
			return fmt.Errorf("add partition %d: %w", w.Number, err)
		}
	}
	return nil
}

func find(t layout.Table, number int) *layout.Partition {
	for i := range t.Partitions {
		if t.Partitions[i].Number == number {
			return &t.Partitions[i]
		}
	}
	return nil
}

func extended(p layout.Partition) bool { return p.Type == "05" || p.Type == "0f" || p.Type == "85" }

// known returns the partitions of this disk that the kernel has.
func (d *Device) known() ([]Partition, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.file.Fd()), &st); err != nil {
		return nil, err
	}
	link := filepath.Join(d.sys, "dev/block", fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	dir, err := filepath.EvalSymlinks(link)
	if err != nil {
		return nil, err
	}
	return partitions(os.DirFS(filepath.Dir(dir)), filepath.Base(dir), filepath.Base(dir))
}

// blkpg adds or removes one partition (linux/blkpg.h).
func (d *Device) blkpg(op int32, p unix.BlkpgPartition) error {
	arg := unix.BlkpgIoctlArg{Op: op, Datalen: int32(unsafe.Sizeof(p)), Data: (*byte)(unsafe.Pointer(&p))}
	return ioctl(d.file, unix.BLKPG, unsafe.Pointer(&arg))
}
