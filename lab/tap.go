package lab

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openTap makes a tap device with a name from the kernel in the calling thread's network namespace. The device goes when the
// file, and each copy of it, is closed. QEMU gets the file.
func openTap() (f *os.File, name string, err error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq("tap%d")
	if err != nil {
		_ = unix.Close(fd)
		return nil, "", fmt.Errorf("make tap device: %w", err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		_ = unix.Close(fd)
		return nil, "", fmt.Errorf("make tap device: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, "", fmt.Errorf("make tap device: %w", err)
	}
	return os.NewFile(uintptr(fd), "tap"), req.Name(), nil
}
