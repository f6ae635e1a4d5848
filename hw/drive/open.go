package drive

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// file is a drive of this machine: one open descriptor, which all commands go through.
type file struct {
	f       *os.File
	claimed bool
	nvme    bool
	mmc     bool
	sys     fs.FS // /sys
	proc    fs.FS // /proc
	number  func(path string) (Number, bool)
	ioctl   func(request uint, arg unsafe.Pointer) (uintptr, error) // of the descriptor
}

// Open opens a whole disk by its node and claims it (O_EXCL): the error is EBUSY while it, or a partition of it, is mounted or a member
// of an array, and until Close nobody can begin that. Opening without a claim, as block.OpenShared and block.OpenDirect do, stays
// possible. It needs root. Each command that is sent is told to tell, which may be nil.
func Open(path string, tell func(Exchange)) (*Drive, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return nil, fmt.Errorf("open drive: %w", err)
	}
	return use(f, true, tell)
}

// OpenShared opens a whole disk by its node to ask it, also while it is in use. No permit counts for it, so that nothing can be destroyed.
// The error is errors.ErrUnsupported for a disk that takes no commands, such as those of virtio.
func OpenShared(path string, tell func(Exchange)) (*Drive, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open drive: %w", err)
	}
	return use(f, false, tell)
}

func use(f *os.File, claimed bool, tell func(Exchange)) (*Drive, error) {
	d, err := speak(f, claimed, tell)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open drive %s: %w", f.Name(), err)
	}
	return d, nil
}

func speak(f *os.File, claimed bool, tell func(Exchange)) (*Drive, error) {
	dev := newFile(f, claimed)
	name, err := dev.name()
	if err != nil {
		return nil, err
	}
	dev.nvme = strings.HasPrefix(name, "nvme")
	kind, err := fs.ReadFile(dev.sys, "block/"+name+"/device/type")
	dev.mmc = strings.HasPrefix(name, "mmcblk") && err == nil && strings.TrimSpace(string(kind)) == "MMC" // an SD card is another thing
	d, err := On(dev, tell)
	if err != nil {
		return nil, err
	}
	d.close = f.Close
	return d, nil
}

func newFile(f *os.File, claimed bool) *file {
	return &file{
		f: f, claimed: claimed, sys: os.DirFS("/sys"), proc: os.DirFS("/proc"), number: numberOf,
		ioctl: func(request uint, arg unsafe.Pointer) (uintptr, error) {
			r, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(arg))
			if e != 0 {
				return r, e
			}
			return r, nil
		},
	}
}

// numberOf returns the number of the block device with a node.
func numberOf(path string) (Number, bool) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return Number{}, false
	}
	return Number{unix.Major(st.Rdev), unix.Minor(st.Rdev)}, true
}

// own returns the number of the open descriptor.
func (d *file) own() (Number, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.f.Fd()), &st); err != nil {
		return Number{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return Number{}, errors.New("not a block device")
	}
	return Number{unix.Major(st.Rdev), unix.Minor(st.Rdev)}, nil
}

// name returns the kernel's name of the disk, from the number of the open descriptor: a node may have any name.
func (d *file) name() (string, error) {
	n, err := d.own()
	if err != nil {
		return "", err
	}
	link, err := fs.ReadLink(d.sys, "dev/block/"+n.String())
	if err != nil {
		return "", err
	}
	name := path.Base(link)
	if _, err := fs.Stat(d.sys, "block/"+name); err != nil {
		return "", fmt.Errorf("%s is not a whole disk: %w", name, err)
	}
	return name, nil
}

// State reads what the machine knows, from the number of the open descriptor.
func (d *file) State() (State, error) {
	n, err := d.own()
	if err != nil {
		return State{}, err
	}
	name, err := d.name()
	if err != nil {
		return State{}, err
	}
	var size uint64
	if _, err := d.ioctl(unix.BLKGETSIZE64, unsafe.Pointer(&size)); err != nil {
		return State{}, fmt.Errorf("BLKGETSIZE64: %w", err)
	}
	s := State{Number: n, Size: int64(size), Claimed: d.claimed}
	if b, err := fs.ReadFile(d.sys, "block/"+name+"/nsid"); err == nil {
		id, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
		if err != nil {
			return State{}, fmt.Errorf("namespace of %s: %w", name, err)
		}
		s.NSID = uint32(id)
	}
	if link, err := fs.ReadLink(d.sys, "block/"+name); err == nil {
		s.USB = regexp.MustCompile(`/usb\d+/`).MatchString(link)
	}
	if d.mmc {
		if s.CID, err = readCID(d.sys, name); err != nil {
			return State{}, err
		}
	}
	s.Users, err = d.users(name)
	return s, err
}

// readCID reads the identification register of an eMMC.
func readCID(sys fs.FS, name string) (cid [16]byte, err error) {
	b, err := fs.ReadFile(sys, "block/"+name+"/device/cid")
	if err != nil {
		return cid, fmt.Errorf("identity of %s: %w", name, err)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(raw) != len(cid) {
		return cid, fmt.Errorf("identity of %s: %q", name, b)
	}
	return [16]byte(raw), nil
}

// users looks for holders in sysfs, mounts and swap of the disk, its partitions, and the other namespaces of an NVM subsystem.
func (d *file) users(name string) ([]string, error) {
	disks, err := d.siblings(name)
	if err != nil {
		return nil, err
	}
	var users []string
	ours := map[Number]bool{}
	for _, disk := range disks {
		entries, err := fs.ReadDir(d.sys, "block/"+disk)
		if err != nil {
			return nil, err
		}
		dirs := []string{"block/" + disk}
		for _, e := range entries {
			if _, err := fs.Stat(d.sys, "block/"+disk+"/"+e.Name()+"/partition"); err == nil {
				dirs = append(dirs, "block/"+disk+"/"+e.Name())
			}
		}
		for _, dir := range dirs {
			number, err := fs.ReadFile(d.sys, dir+"/dev")
			if err != nil && disk == name { // a hidden path of an NVMe disk has none
				return nil, err
			}
			if n, ok := parseNumber(strings.TrimSpace(string(number))); ok {
				ours[n] = true
			}
			holders, err := fs.ReadDir(d.sys, dir+"/holders")
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			for _, h := range holders {
				users = append(users, path.Base(dir)+" held by "+h.Name())
			}
		}
	}
	mounts, err := fs.ReadFile(d.proc, "self/mountinfo")
	if err != nil {
		return nil, err
	}
	swaps, err := fs.ReadFile(d.proc, "swaps")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return append(append(users, d.mounted(string(mounts), ours)...), d.swapped(string(swaps), ours)...), nil
}

// siblings returns the disk and, if it is a namespace, all namespaces of the same NVM subsystem.
func (d *file) siblings(name string) ([]string, error) {
	of := func(disk string) string {
		b, err := fs.ReadFile(d.sys, "block/"+disk+"/device/subsysnqn")
		if err != nil {
			return ""
		}
		return string(b)
	}
	disks := []string{name}
	subsystem := of(name)
	if subsystem == "" {
		return disks, nil
	}
	entries, err := fs.ReadDir(d.sys, "block")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name() != name && of(e.Name()) == subsystem {
			disks = append(disks, e.Name())
		}
	}
	return disks, nil
}

// mounted reads /proc/self/mountinfo (proc_pid_mountinfo(5)): the number is the third field, but for btrfs, whose source is behind the
// dash.
func (d *file) mounted(info string, ours map[Number]bool) []string {
	var out []string
	for line := range strings.Lines(info) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		n, ok := parseNumber(fields[2])
		used := ok && ours[n]
		if _, behind, found := strings.Cut(line, " - "); found {
			if f := strings.Fields(behind); len(f) > 1 && strings.HasPrefix(f[1], "/dev/") {
				n, ok := d.number(f[1])
				used = used || ok && ours[n]
			}
		}
		if used {
			out = append(out, "mounted at "+fields[4])
		}
	}
	return out
}

// swapped reads /proc/swaps, whose first line is a heading.
func (d *file) swapped(swaps string, ours map[Number]bool) []string {
	var out []string
	for line := range strings.Lines(swaps) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if n, ok := d.number(f[0]); ok && ours[n] {
			out = append(out, "swap on "+f[0])
		}
	}
	return out
}

func parseNumber(s string) (Number, bool) {
	major, minor, ok := strings.Cut(s, ":")
	a, err1 := strconv.ParseUint(major, 10, 32)
	b, err2 := strconv.ParseUint(minor, 10, 32)
	return Number{uint32(a), uint32(b)}, ok && err1 == nil && err2 == nil
}

// milliseconds is a timeout as the kernel takes it.
func milliseconds(t time.Duration) uint32 {
	if t <= 0 {
		t = defaultTimeout
	}
	return uint32(min(t.Milliseconds(), 1<<32-1))
}

// The requests of Linux, linux/nvme_ioctl.h, scsi/sg.h and linux/mmc/ioctl.h.
const (
	nvmeIoctlAdminCmd = 0xc0484e41 // _IOWR('N', 0x41, struct nvme_passthru_cmd)
	nvmeIoctlReset    = 0x4e44     // _IO('N', 0x44)
	sgIO              = 0x2285
	sgSCSIReset       = 0x2284
	mmcIocMultiCmd    = 0xc008b301 // _IOWR(MMC_BLOCK_MAJOR, 1, struct mmc_ioc_multi_cmd)
)

// nvmePassthru is struct nvme_passthru_cmd.
type nvmePassthru struct {
	opcode, flags                            uint8
	_                                        uint16
	nsid, cdw2, cdw3                         uint32
	metadata, addr                           uint64
	metadataLen, dataLen                     uint32
	cdw10, cdw11, cdw12, cdw13, cdw14, cdw15 uint32
	timeout, result                          uint32
}

// NVMe sends an admin command. The kernel returns the status as the result of the call.
func (d *file) NVMe(c NVMeCommand) (NVMeResult, error) {
	if !d.nvme {
		return NVMeResult{}, errors.ErrUnsupported
	}
	p := &nvmePassthru{
		opcode: c.Opcode, nsid: c.NSID, dataLen: uint32(len(c.Data)), timeout: milliseconds(c.Timeout),
		cdw10: c.CDW10, cdw11: c.CDW11, cdw12: c.CDW12, cdw13: c.CDW13, cdw14: c.CDW14, cdw15: c.CDW15,
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	if len(c.Data) > 0 {
		pin.Pin(&c.Data[0])
		p.addr = uint64(uintptr(unsafe.Pointer(&c.Data[0])))
	}
	r, err := d.ioctl(nvmeIoctlAdminCmd, unsafe.Pointer(p))
	if errors.Is(err, unix.ETIMEDOUT) || errors.Is(err, unix.EINTR) { // the kernel cancels what times out
		return NVMeResult{}, fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	return NVMeResult{Status: uint16(r), Result: p.result}, err
}

// sgHeader is struct sg_io_hdr.
type sgHeader struct {
	interfaceID, direction            int32
	cmdLen, senseMax                  uint8
	iovecs                            uint16
	dataLen                           uint32
	data, cmd, sense                  unsafe.Pointer
	timeout, flags                    uint32
	packID                            int32
	user                              unsafe.Pointer
	status, masked, message, senseLen uint8
	hostStatus, driverStatus          uint16
	residual                          int32
	duration, info                    uint32
}

// SCSI sends a command block by SG_IO.
func (d *file) SCSI(c SCSICommand) (SCSIResult, error) {
	if d.nvme || d.mmc {
		return SCSIResult{}, errors.ErrUnsupported
	}
	sense := make([]byte, 252)
	h := &sgHeader{
		interfaceID: 'S', cmdLen: uint8(len(c.CDB)), senseMax: uint8(len(sense)), dataLen: uint32(len(c.Data)), timeout: milliseconds(c.Timeout),
		direction: map[Direction]int32{NoData: -1, ToDrive: -2, FromDrive: -3}[c.Direction],
		cmd:       unsafe.Pointer(&c.CDB[0]), sense: unsafe.Pointer(&sense[0]),
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(h.cmd)
	pin.Pin(h.sense)
	if len(c.Data) > 0 {
		h.data = unsafe.Pointer(&c.Data[0])
		pin.Pin(h.data)
	}
	_, err := d.ioctl(sgIO, unsafe.Pointer(h))
	switch {
	case errors.Is(err, unix.ENOTTY):
		return SCSIResult{}, fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	case err != nil:
		return SCSIResult{}, err
	}
	return h.result(sense)
}

// result tells an answer of the drive from one of the kernel (scsi/scsi_status.h): host status 3 is a timeout.
func (h *sgHeader) result(sense []byte) (SCSIResult, error) {
	r := SCSIResult{Status: h.status, Sense: sense[:min(len(sense), int(h.senseLen))], Residual: int(h.residual)}
	switch h.hostStatus {
	case 0:
		return r, nil
	case 3:
		return r, ErrTimeout
	}
	return r, fmt.Errorf("the kernel could not send it: host status %02Xh, driver status %02Xh", h.hostStatus, h.driverStatus)
}

// mmcCommand is struct mmc_ioc_cmd.
type mmcCommand struct {
	write, app                       int32
	opcode, argument                 uint32
	response                         [4]uint32
	flags, blockSize, blocks         uint32
	sleepMin, sleepMax               uint32 // microseconds after the command
	dataTimeout, commandTimeout, pad uint32 // nanoseconds, milliseconds
	data                             uint64
}

// The flags of a response (linux/mmc/core.h): R1 and R1b with their SPI forms, and a command with data.
const (
	mmcR1   = 0x15 | 0x80
	mmcR1b  = 0x1d | 0x80 | 0x400
	mmcADTC = 1 << 5
)

// MMC sends commands by MMC_IOC_MULTI_CMD: the kernel lets no other come between them.
func (d *file) MMC(cs ...MMCCommand) ([]uint32, error) {
	if !d.mmc {
		return nil, errors.ErrUnsupported
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	request := struct {
		n    uint64
		cmds [4]mmcCommand
	}{n: uint64(len(cs))}
	if len(cs) > len(request.cmds) {
		return nil, fmt.Errorf("%d commands at once", len(cs))
	}
	for i, c := range cs {
		k := mmcCommand{opcode: c.Index, argument: c.Argument, flags: mmcR1}
		if c.Write {
			k.write = 1
		}
		if c.Busy {
			k.flags, k.commandTimeout = mmcR1b, uint32(min(c.Timeout.Milliseconds(), 1<<31-1))
		}
		if len(c.Data) > 0 {
			pin.Pin(&c.Data[0])
			k.flags, k.blockSize, k.blocks, k.data = k.flags|mmcADTC, 512, uint32(len(c.Data)/512), uint64(uintptr(unsafe.Pointer(&c.Data[0])))
		}
		request.cmds[i] = k
	}
	if _, err := d.ioctl(mmcIocMultiCmd, unsafe.Pointer(&request)); err != nil {
		if errors.Is(err, unix.ETIMEDOUT) {
			err = fmt.Errorf("%w: %w", ErrTimeout, err)
		}
		return nil, err
	}
	var out []uint32
	for _, k := range request.cmds[:len(cs)] {
		out = append(out, k.response[0])
	}
	return out, nil
}

// Reset resets the controllers of an NVM subsystem through their own nodes, or a SCSI device and nothing above it.
func (d *file) Reset() error {
	if d.mmc {
		return errors.ErrUnsupported
	}
	if !d.nvme {
		kind := int32(1 | 0x100) // SG_SCSI_RESET_DEVICE, SG_SCSI_RESET_NO_ESCALATE
		_, err := d.ioctl(sgSCSIReset, unsafe.Pointer(&kind))
		return err
	}
	name, err := d.name()
	if err != nil {
		return err
	}
	controllers, err := d.controllers(name)
	if err != nil {
		return err
	}
	for _, c := range controllers {
		f, err := os.Open("/dev/" + c)
		if err != nil {
			return err
		}
		_, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), nvmeIoctlReset, 0)
		f.Close()
		if e != 0 {
			return fmt.Errorf("%s: %w", c, e)
		}
	}
	return nil
}

// controllers returns the names of the controllers that a namespace is reached by: with native multipath its device in sysfs is the NVM
// subsystem.
func (d *file) controllers(name string) ([]string, error) {
	controller := regexp.MustCompile(`^nvme\d+$`)
	link, err := fs.ReadLink(d.sys, "block/"+name+"/device")
	if err != nil {
		return nil, err
	}
	if c := path.Base(link); controller.MatchString(c) {
		return []string{c}, nil
	}
	entries, err := fs.ReadDir(d.sys, "block/"+name+"/device")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if controller.MatchString(e.Name()) {
			out = append(out, e.Name())
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s has no controller", name)
	}
	return out, nil
}
