// Package usb says what the USB ports of a machine know and the kernel does not have yet: that something is connected which is no device so
// far, and that a storage device has no disk so far. So a wait for sticks ends on knowledge.
//
// It changes nothing on a port, and does not know what a device is used for.
package usb

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// State is what the ports say at one moment.
type State struct {
	// Ports reports whether there are any.
	Ports bool
	// Pending are what is on its way, by the kernel's names: ports with something connected that is no configured device yet, hubs with which the
	// kernel is busy, storage interfaces whose disk is not there yet, and new ones that no driver has taken.
	Pending []string
	// Storage reports whether a storage interface is among them: its device answers, and takes a while until it has a disk.
	Storage bool
	// Settling is how long it takes until the youngest hub knows what is connected to it, and the youngest disk has its partitions. 0: all
	// do.
	Settling time.Duration
}

// settle notes something that takes a while from when the kernel has it, and how long the kernel has had it.
func (s *State) settle(age, takes time.Duration) { s.Settling = max(s.Settling, takes-age) }

// settleTime is how long a hub needs to see what is connected, from when the kernel has it: power on its ports, and debouncing (USB 2.0, 7.1.7.3
// and 11.11: 100 ms each, with room).
const settleTime = 500 * time.Millisecond

// diskTime is how long a disk may take until its partitions are there, from when the kernel has it: the kernel reads the table in between
// (disk_scan_partitions in block/genhd.c), and says nothing of it in sysfs.
const diskTime = 500 * time.Millisecond

// driverTime is how long a driver may need to take a device, from when the kernel has that. Without one by then there is none.
const driverTime = 5 * time.Second

// Address is that of a device.
type Address struct {
	// Bus and Number are busnum and devnum in sysfs.
	Bus, Number int
}

// Doors are what Read needs of the machine beside sysfs.
type Doors struct {
	// Connected returns those of some ports of a hub, from 1, that say that something is connected, and an error where it could not ask all of
	// them; ErrBusy where the kernel talks to something at the hub. It is asked once for each hub.
	Connected func(hub Address, ports []int) ([]int, error)
	// Age is how long the kernel has had the device.
	Age func(a Address) (time.Duration, error)
	// DiskAge is how long the kernel has had the disk, such as sda.
	DiskAge func(disk string) (time.Duration, error)
}

// storage is the interface class of mass storage.
const storage = "08"

var (
	hubName  = regexp.MustCompile(`^(usb\d+|\d+-\d+(\.\d+)*)$`)
	portName = regexp.MustCompile(`-port(\d+)$`)
)

// Read reads the state. sys is /sys. Sources: Documentation/ABI/testing/sysfs-bus-usb; GetPortStatus in USB 2.0, 11.24.2.7.
func Read(sys fs.FS, doors Doors) State {
	const dir = "bus/usb/devices"
	var s State
	entries, err := fs.ReadDir(sys, dir)
	if err != nil {
		return s
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	s.Ports = len(names) > 0
	for _, name := range names {
		at := dir + "/" + name
		if text(sys, at+"/bInterfaceClass") == storage {
			switch {
			case !exists(sys, at+"/driver"):
				device, _, _ := strings.Cut(name, ":")
				if a, ok := address(sys, dir+"/"+device); ok {
					if age, err := doors.Age(a); err == nil && age < driverTime {
						s.Pending, s.Storage = append(s.Pending, name), true
					}
				}
			default:
				disks, missing := disksOf(sys, at)
				if missing {
					s.Pending, s.Storage = append(s.Pending, name), true
				}
				for _, d := range disks {
					if age, err := doors.DiskAge(d); err == nil {
						s.settle(age, diskTime)
					}
				}
			}
		}
		if hubName.MatchString(name) {
			s.hub(sys, at, name, names, doors)
		}
	}
	return s
}

// hub looks at the ports of a device, if it is a hub.
func (s *State) hub(sys fs.FS, at, name string, names []string, doors Doors) {
	ports, err := fs.Glob(sys, at+"/*/*-port*")
	if err != nil || len(ports) == 0 {
		return
	}
	h, ok := address(sys, at)
	if !ok {
		return
	}
	if age, err := doors.Age(h); err == nil {
		s.settle(age, settleTime)
	}
	var empty []int // those of which the kernel has nothing
	busy := false   // the kernel talks to what is connected to one, and lets nobody ask the hub until that answers (usb_lock_device in hub_event)
	byNumber := map[int]string{}
	for _, p := range ports {
		m := portName.FindStringSubmatch(path.Base(p))
		if m == nil {
			continue
		}
		child := name + "." + m[1]
		if bus, root := strings.CutPrefix(name, "usb"); root {
			child = bus + "-" + m[1]
		}
		// A device that is there has interfaces as soon as it is configured.
		if slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, child+":") }) {
			continue
		}
		if underWay(text(sys, p+"/state")) {
			s.Pending = append(s.Pending, path.Base(p))
			busy = true
			continue
		}
		if number, err := strconv.Atoi(m[1]); err == nil {
			empty = append(empty, number)
			byNumber[number] = path.Base(p)
		}
	}
	if len(empty) == 0 || busy {
		return
	}
	connected, err := doors.Connected(h, empty)
	if errors.Is(err, ErrBusy) {
		s.Pending = append(s.Pending, name)
		return
	}
	for _, number := range connected { // also beside another error: what does not answer says nothing
		if port := byNumber[number]; port != "" {
			s.Pending = append(s.Pending, port)
		}
	}
}

// underWay reports whether the state of a port, a file since Linux 6.5, is that of a device on its way to be configured
// (usb_state_string in drivers/usb/common/common.c).
func underWay(state string) bool {
	switch state {
	case "attached", "powered", "reconnecting", "unauthenticated", "default", "addressed":
		return true
	}
	return false
}

// address returns the address of a device.
func address(sys fs.FS, at string) (Address, bool) {
	bus, err := strconv.Atoi(text(sys, at+"/busnum"))
	number, err2 := strconv.Atoi(text(sys, at+"/devnum"))
	return Address{bus, number}, err == nil && err2 == nil
}

// disksOf returns the block devices of a storage interface. missing reports whether it may get a disk yet: nothing was found on it so far,
// or a disk (SCSI type 0) that is no block device so far. What is no disk, such as an optical drive, is not waited for.
func disksOf(sys fs.FS, at string) (disks []string, missing bool) {
	found, err := fs.Glob(sys, at+"/host*/target*/*/type")
	if err != nil || len(found) == 0 {
		return nil, err == nil
	}
	for _, f := range found {
		blocks, err := fs.Glob(sys, path.Dir(f)+"/block/*")
		missing = missing || err == nil && len(blocks) == 0 && text(sys, f) == "0"
		for _, b := range blocks {
			disks = append(disks, path.Base(b))
		}
	}
	return disks, missing
}

func text(sys fs.FS, name string) string {
	b, err := fs.ReadFile(sys, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func exists(sys fs.FS, name string) bool {
	_, err := fs.Stat(sys, name)
	return err == nil
}

// Machine returns the doors of this machine, by the nodes of usbfs below dev, which is /dev.
func Machine(dev string) Doors {
	node := func(h Address) string {
		return filepath.Join(dev, "bus/usb", fmt.Sprintf("%03d/%03d", h.Bus, h.Number))
	}
	return Doors{
		Connected: func(h Address, ports []int) ([]int, error) { return connected(node(h), ports) },
		Age:       func(a Address) (time.Duration, error) { return age(node(a)) },
		DiskAge:   func(disk string) (time.Duration, error) { return age(filepath.Join(dev, disk)) },
	}
}

// age is how long a node has been there: devtmpfs makes it when the kernel has the device. The time of its last change is none of the
// content's (mtime), which usbfs sets at each control transfer (usbdev_do_ioctl in drivers/usb/core/devio.c).
func age(node string) (time.Duration, error) {
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		return 0, err
	}
	d := time.Since(time.Unix(st.Ctim.Unix()))
	if d < 0 { // the clock was set back: it is not known
		return 0, fmt.Errorf("%s is of the future", node)
	}
	return d, nil
}

// controlTransfer is struct usbdevfs_ctrltransfer of linux/usbdevice_fs.h.
type controlTransfer struct {
	requestType, request uint8
	value, index, length uint16
	timeout              uint32 // ms
	data                 unsafe.Pointer
}

// The ioctl USBDEVFS_CONTROL, and the request GetPortStatus: class, to something else than device, interface or endpoint, device to host.
const (
	usbdevfsControl = 0xc0000000 | uint(unsafe.Sizeof(controlTransfer{}))<<16 | 'U'<<8
	getPortStatus   = 0xa3
	portConnection  = 1 << 0
	answerTime      = 200 // ms
)

// connected asks a hub for the status of ports. It ends at the first that gets no answer: each one takes time. A port that the hub refuses
// to talk about (a stall, EPIPE) is left out.
func connected(node string, ports []int) (out []int, err error) {
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for _, port := range ports {
		yes, err := askPort(f, port)
		switch {
		case errors.Is(err, unix.EPIPE):
		case err != nil:
			return out, fmt.Errorf("ask %s for the status of port %d: %w", node, port, err)
		case yes:
			out = append(out, port)
		}
	}
	return out, nil
}

func askPort(hub *os.File, port int) (connected bool, err error) {
	var status [4]byte
	c := controlTransfer{requestType: getPortStatus, index: uint16(port), length: uint16(len(status)), timeout: answerTime, data: unsafe.Pointer(&status)}
	n, _, e := unix.Syscall(unix.SYS_IOCTL, hub.Fd(), uintptr(usbdevfsControl), uintptr(unsafe.Pointer(&c)))
	runtime.KeepAlive(&c)
	if e != 0 {
		return false, e
	}
	if int(n) < len(status) {
		return false, io.ErrUnexpectedEOF
	}
	return status[0]&portConnection != 0, nil
}
