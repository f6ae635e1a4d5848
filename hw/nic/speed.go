package nic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// settings is struct ethtool_link_settings with room for three masks of at most 127 words (linux/ethtool.h).
type settings [48 + 3*4*127]byte

// Where the fields are.
const (
	settingsWords = 15 // words of one mask; below 0: how many the kernel wants
	settingsMasks = 48 // the first one: what the port can do
)

// Fastest returns how many megabits a second a port can do at most, whether it has a link or not: the fastest of the link modes that its
// driver says it supports (ETHTOOL_GLINKSETTINGS). The error is errors.ErrUnsupported where the driver does not say, as that of virtio.
func Fastest(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("speed of %s: %w", name, err)
	}
	defer unix.Close(fd)
	mbps, err := fastest(func(s *settings) error {
		request := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(s)}
		if len(name) >= len(request.name) {
			return unix.ENODEV
		}
		copy(request.name[:], name)
		var pin runtime.Pinner
		defer pin.Unpin()
		pin.Pin(s)
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); e != 0 {
			return e
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("speed of %s: %w", name, err)
	}
	return mbps, nil
}

// fastest asks twice: the kernel answers a request without masks with how many words it wants (linux/ethtool.h, "handshake").
func fastest(ask func(*settings) error) (int, error) {
	var s settings
	binary.NativeEndian.PutUint32(s[:], unix.ETHTOOL_GLINKSETTINGS)
	if err := ask(&s); errors.Is(err, unix.EOPNOTSUPP) {
		return 0, fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	} else if err != nil {
		return 0, err
	}
	words := -int(int8(s[settingsWords]))
	if words <= 0 {
		return 0, fmt.Errorf("the kernel wants masks of %d words", words)
	}
	s = settings{}
	binary.NativeEndian.PutUint32(s[:], unix.ETHTOOL_GLINKSETTINGS)
	s[settingsWords] = byte(words)
	if err := ask(&s); err != nil {
		return 0, err
	}
	most := 0
	for bit := range 32 * words {
		if binary.NativeEndian.Uint32(s[settingsMasks+bit/32*4:])>>(bit%32)&1 != 0 {
			most = max(most, modeSpeed(bit))
		}
	}
	if most == 0 {
		return 0, errors.ErrUnsupported
	}
	return most, nil
}

// modeSpeed returns the megabits a second of a link mode, or 0 if it is none, or one that is not known (linux/ethtool.h, enum
// ethtool_link_mode_bit_indices).
func modeSpeed(bit int) int {
	for _, r := range []struct{ first, last, mbps int }{
		{0, 1, 10}, {2, 3, 100}, {4, 5, 1_000}, {12, 12, 10_000}, {15, 15, 2_500}, {17, 17, 1_000}, {18, 20, 10_000}, {21, 22, 20_000},
		{23, 26, 40_000}, {27, 30, 56_000}, {31, 33, 25_000}, {34, 35, 50_000}, {36, 39, 100_000}, {40, 40, 50_000}, {41, 41, 1_000},
		{42, 46, 10_000}, {47, 47, 2_500}, {48, 48, 5_000}, {52, 56, 50_000}, {57, 61, 100_000}, {62, 66, 200_000}, {67, 67, 100},
		{68, 68, 1_000}, {69, 73, 400_000}, {75, 79, 100_000}, {80, 84, 200_000}, {85, 89, 400_000}, {90, 91, 100}, {92, 92, 10},
	} {
		if bit >= r.first && bit <= r.last {
			return r.mbps
		}
	}
	return 0
}
