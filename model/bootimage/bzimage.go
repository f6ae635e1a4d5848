package bootimage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// BzImage is what the header of a Linux kernel for x86 says (Linux Documentation/arch/x86/boot.rst).
type BzImage struct {
	// Protocol is the version of the boot protocol, 0x020f for 2.15.
	Protocol uint16
	// Banner is the version string, "RELEASE (BUILDER) #BUILD ...". Empty if the kernel has none.
	Banner string
	// SetupSize is the length of the real-mode part, bytes.
	SetupSize int64
	// Relocatable reports whether the kernel may be loaded anywhere.
	Relocatable bool
	// Handover reports whether the kernel can be started as a 64-bit EFI program (XLF_EFI_HANDOVER_64).
	Handover bool
	// InitSize is how much memory the kernel needs from where it is loaded until it knows its memory map, bytes. 0: older
	// than protocol 2.10.
	InitSize uint32
	// PayloadOffset and PayloadSize say where in the file the compressed kernel is, bytes. Size 0: older than protocol 2.08.
	PayloadOffset, PayloadSize int64
}

// ParseBzImage reads the header of a bzImage of size bytes. ErrNotBzImage if it is something else.
func ParseBzImage(r io.ReaderAt, size int64) (*BzImage, error) {
	var h [0x268]byte
	if err := readAt(r, size, h[:], 0); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotBzImage, err)
	}
	if binary.LittleEndian.Uint16(h[0x1fe:]) != 0xaa55 || string(h[0x202:0x206]) != "HdrS" {
		return nil, ErrNotBzImage
	}
	k := &BzImage{Protocol: binary.LittleEndian.Uint16(h[0x206:])}
	const loadedHigh = 1
	if k.Protocol < 0x0200 || h[0x211]&loadedHigh == 0 {
		return nil, fmt.Errorf("%w: boot protocol %#x, flags %#x", ErrNotBzImage, k.Protocol, h[0x211])
	}
	sectors := int64(h[0x1f1])
	if sectors == 0 {
		sectors = 4
	}
	k.SetupSize = (sectors + 1) * 512
	if k.SetupSize > size {
		return nil, fmt.Errorf("%w: its first part of %d bytes is cut off", ErrNotBzImage, k.SetupSize)
	}
	if k.Protocol >= 0x0205 {
		k.Relocatable = h[0x234] != 0
	}
	if k.Protocol >= 0x0208 {
		k.PayloadOffset = k.SetupSize + int64(binary.LittleEndian.Uint32(h[0x248:]))
		k.PayloadSize = int64(binary.LittleEndian.Uint32(h[0x24c:]))
		if k.PayloadOffset+k.PayloadSize > size {
			return nil, fmt.Errorf("%w: its payload ends at %d, it has %d bytes", ErrNotBzImage, k.PayloadOffset+k.PayloadSize, size)
		}
	}
	if k.Protocol >= 0x020a {
		k.InitSize = binary.LittleEndian.Uint32(h[0x260:])
	}
	if k.Protocol >= 0x020b {
		k.Handover = binary.LittleEndian.Uint16(h[0x236:])&(1<<3) != 0
	}
	if at := int64(binary.LittleEndian.Uint16(h[0x20e:])); at != 0 {
		at += 0x200
		if at >= k.SetupSize {
			return nil, fmt.Errorf("%w: its version string is at %#x, outside of the first part", ErrNotBzImage, at)
		}
		b := make([]byte, min(k.SetupSize-at, 1024))
		if err := readAt(r, size, b, at); err != nil {
			return nil, fmt.Errorf("read kernel version: %w", err)
		}
		b, _, _ = bytes.Cut(b, []byte{0})
		k.Banner = strings.ToValidUTF8(string(b), "?")
	}
	return k, nil
}

// Release returns the first word of the banner, such as "6.1.0-26-amd64".
func (k *BzImage) Release() string {
	release, _, _ := strings.Cut(k.Banner, " ")
	return release
}

// BuildNumber returns the number behind # in the banner. ErrNoBuild if there is none.
func (k *BzImage) BuildNumber() (uint64, error) { return BannerBuild(k.Banner) }
