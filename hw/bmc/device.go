package bmc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Modules are the drivers behind the kernel's device.
func Modules() []string { return []string{"ipmi_si", "ipmi_ssif", "ipmi_devintf"} }

// ipmiTable is the SMBIOS structure "IPMI Device Information" (DSP0134 section 7.39).
const ipmiTable = 38

// Announced reports whether the firmware says that the machine has a controller: in the SMBIOS tables, or as the device IPI0001 of ACPI
// (appendix C3 of the specification). sys is /sys, and has says which structures SMBIOS has.
func Announced(sys fs.FS, has func(structure int) bool) bool {
	if has(ipmiTable) {
		return true
	}
	found, err := fs.Glob(sys, "bus/acpi/devices/IPI0001:*")
	return err == nil && len(found) > 0
}

// Ready reports whether the kernel has found a controller and offers its device.
func Ready(sys fs.FS) bool {
	_, err := fs.Stat(sys, "class/ipmi/ipmi0")
	return err == nil
}

// Path is the kernel's device of the first controller.
const Path = "/dev/ipmi0"

// patience is how long one command may take. The kernel's own driver gives up after some five seconds and says so in a completion code.
const patience = 20 * time.Second

// Open opens the controller behind a device of the kernel. The error is ErrNone if there is no such device.
func Open(path string) (*Controller, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	d := &device{file: f, raw: raw}
	return &Controller{Exchange: d.exchange, Login: Login, Close: f.Close}, nil
}

// device is the kernel's device. The structures and numbers are those of linux/ipmi.h.
type device struct {
	file *os.File
	raw  syscall.RawConn
	last int64
}

type ipmiMsg struct {
	netFn, cmd uint8
	size       uint16
	data       *byte
}

type ipmiReq struct {
	addr     *ipmiAddr
	addrSize uint32
	id       int64
	msg      ipmiMsg
}

type ipmiRecv struct {
	kind     int32
	addr     *ipmiAddr
	addrSize uint32
	id       int64
	msg      ipmiMsg
}

// ipmiAddr is struct ipmi_system_interface_addr.
type ipmiAddr struct {
	kind    int32
	channel int16
	_       uint8 // the unit within the controller
}

const (
	systemInterface = 0x0c // IPMI_SYSTEM_INTERFACE_ADDR_TYPE
	bmcChannel      = 0x0f // IPMI_BMC_CHANNEL
	maxMessage      = 1024 // of a response, more than the 272 of IPMI_MAX_MSG_LENGTH
)

// ioc returns the number of an ioctl of the device (asm-generic/ioctl.h).
func ioc(direction, number, size uintptr) uintptr { return direction<<30 | size<<16 | 'i'<<8 | number }

// exchange is an Exchange. The kernel sends the message again where that is due.
func (d *device) exchange(ctx context.Context, netFn, command byte, data []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(patience)
	if t, ok := ctx.Deadline(); ok && t.Before(deadline) {
		deadline = t
	}
	if err := d.file.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = d.file.SetReadDeadline(time.Now())
		close(ended)
	})
	defer func() {
		if !stop() {
			<-ended // or it would end the next command
		}
	}()
	d.last++
	addr := &ipmiAddr{kind: systemInterface, channel: bmcChannel}
	req := &ipmiReq{addr: addr, addrSize: uint32(unsafe.Sizeof(*addr)), id: d.last,
		msg: ipmiMsg{netFn: netFn, cmd: command, size: uint16(len(data)), data: unsafe.SliceData(data)}}
	var sent error
	err := d.raw.Control(func(fd uintptr) {
		const send = 13 // IPMICTL_SEND_COMMAND
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, fd, ioc(2, send, unsafe.Sizeof(*req)), uintptr(unsafe.Pointer(req))); e != 0 {
			sent = e
		}
	})
	runtime.KeepAlive(req)
	if err = errors.Join(err, sent); err != nil {
		return nil, fmt.Errorf("send to %s: %w", d.file.Name(), err)
	}
	var out []byte
	var received error
	err = d.raw.Read(func(fd uintptr) (done bool) {
		for {
			buf := make([]byte, maxMessage)
			recv := &ipmiRecv{addr: &ipmiAddr{}, addrSize: uint32(unsafe.Sizeof(*addr)), msg: ipmiMsg{size: maxMessage, data: &buf[0]}}
			const receive = 11 // IPMICTL_RECEIVE_MSG_TRUNC
			_, _, e := unix.Syscall(unix.SYS_IOCTL, fd, ioc(3, receive, unsafe.Sizeof(*recv)), uintptr(unsafe.Pointer(recv)))
			runtime.KeepAlive(recv)
			switch {
			case e == unix.EAGAIN:
				return false
			case e == unix.EINTR:
			case e != 0:
				received = e
				return true
			case recv.id == req.id && recv.kind == 1: // IPMI_RESPONSE_RECV_TYPE; others are late answers
				out = buf[:min(int(recv.msg.size), maxMessage)]
				return true
			}
		}
	})
	if cause := ctx.Err(); cause != nil {
		return nil, cause
	}
	if err = errors.Join(err, received); err != nil {
		return nil, fmt.Errorf("receive from %s: %w", d.file.Name(), err)
	}
	return out, nil
}
