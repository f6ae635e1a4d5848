package block

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNoPlace says that a file does not lie on its device in one plain piece.
var ErrNoPlace = errors.New("the file does not lie on its device in one piece")

const (
	fiemapRequest = 0xc020660b // FS_IOC_FIEMAP of linux/fs.h
	fiemapLast    = 0x1
	fiemapMerged  = 0x1000
)

// fiemap is struct fiemap with room for one extent (linux/fiemap.h). Numbers are those of the machine.
type fiemap struct {
	start, length                  uint64
	flags, mapped, count, reserved uint32
	logical, physical, extent      uint64
	reserved64                     [2]uint64
	extentFlags                    uint32
	reserved32                     [3]uint32
}

// Place returns at which byte of its filesystem's device the first n bytes of f lie. The error is ErrNoPlace if they lie in
// several pieces, in a form of their own (compressed, encrypted, within other data), or not there yet.
func Place(f *os.File, n int64) (int64, error) {
	m := fiemap{length: uint64(n), count: 1}
	if err := ioctl(f, fiemapRequest, unsafe.Pointer(&m)); err != nil {
		return 0, fmt.Errorf("find the place of %s: %w", f.Name(), err)
	}
	if m.mapped != 1 || m.logical != 0 || m.extent < uint64(n) || m.extentFlags&^(fiemapLast|fiemapMerged) != 0 || m.physical == 0 || m.physical > 1<<62 {
		return 0, fmt.Errorf("find the place of %s: %w", f.Name(), ErrNoPlace)
	}
	return int64(m.physical), nil
}

// WriteBlock writes b to a device past the page cache, and returns when the medium has it: one request. Offset and length must be
// multiples of the sector size. Nobody else may have the device: it must not be mounted.
func WriteBlock(path string, b []byte, off int64) error {
	f, err := openFile(path, os.O_WRONLY|unix.O_DIRECT|unix.O_DSYNC|unix.O_EXCL)
	if err != nil {
		return fmt.Errorf("write block: %w", err)
	}
	raw := make([]byte, len(b)+4096)
	skip := -int64(uintptr(unsafe.Pointer(&raw[0]))) & 4095
	copy(raw[skip:], b)
	_, err = f.WriteAt(raw[skip:][:len(b)], off)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write block: %w", err)
	}
	return nil
}
