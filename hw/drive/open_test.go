package drive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bytesAt returns the bytes that a structure points to.
func bytesAt(p unsafe.Pointer, n int) []byte { return unsafe.Slice((*byte)(p), n) }

// TestSGIO is the kernel's side of SG_IO.
func TestSGIO(t *testing.T) {
	var h sgHeader
	var cdb, sent []byte
	kernel := func(reply func(*sgHeader)) *file {
		return &file{ioctl: func(request uint, arg unsafe.Pointer) (uintptr, error) {
			if request != 0x2285 {
				t.Errorf("request %x", request)
			}
			k := (*sgHeader)(arg)
			cdb = append([]byte(nil), bytesAt(k.cmd, int(k.cmdLen))...)
			sent = nil
			if k.dataLen > 0 {
				sent = append(sent, bytesAt(k.data, int(k.dataLen))...)
			}
			reply(k)
			h = *k
			return 0, nil
		}}
	}
	d := kernel(func(k *sgHeader) {
		copy(bytesAt(k.data, 8), "answer")
		k.residual = 2
	})
	data := make([]byte, 8)
	r, err := d.SCSI(SCSICommand{CDB: []byte{0x12, 0, 0, 0, 8, 0}, Direction: FromDrive, Data: data, Timeout: time.Hour})
	if err != nil || r.Status != 0 || r.Residual != 2 || string(data[:6]) != "answer" || len(r.Sense) != 0 {
		t.Errorf("%+v %q %v", r, data, err)
	}
	if h.interfaceID != 'S' || h.direction != -3 || h.timeout != 3600000 || string(cdb) != "\x12\x00\x00\x00\x08\x00" {
		t.Errorf("%+v, % x", h, cdb)
	}
	d = kernel(func(k *sgHeader) {
		k.status, k.driverStatus, k.senseLen = 2, 8, 8
		copy(bytesAt(k.sense, 8), "\x72\x05\x20\x00\x00\x00\x00\x00")
	})
	r, err = d.SCSI(SCSICommand{CDB: []byte{4, 0x10, 0, 0, 0, 0}, Direction: ToDrive, Data: []byte{0, 2, 0, 0}})
	if err != nil || r.Status != 2 || len(r.Sense) != 8 || h.direction != -2 || h.timeout != 30000 || string(sent) != "\x00\x02\x00\x00" {
		t.Errorf("%+v %v, %+v, % x", r, err, h, sent)
	}
	r, err = kernel(func(*sgHeader) {}).SCSI(SCSICommand{CDB: make([]byte, 6)})
	if err != nil || r.Status != 0 || h.direction != -1 || h.data != nil {
		t.Errorf("%+v %v, %+v", r, err, h)
	}
	if _, err := kernel(func(k *sgHeader) { k.hostStatus = 3 }).SCSI(SCSICommand{CDB: make([]byte, 6)}); !errors.Is(err, ErrTimeout) {
		t.Errorf("a timeout: %v", err)
	}
	_, err = kernel(func(k *sgHeader) { k.hostStatus = 1 }).SCSI(SCSICommand{CDB: make([]byte, 6)})
	if err == nil || errors.Is(err, ErrTimeout) {
		t.Errorf("no connection: %v", err)
	}
	no := &file{ioctl: func(uint, unsafe.Pointer) (uintptr, error) { return 0, unix.ENOTTY }}
	if _, err := no.SCSI(SCSICommand{CDB: make([]byte, 6)}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("no SCSI device: %v", err)
	}
	if _, err := no.NVMe(NVMeCommand{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("no NVMe device: %v", err)
	}
	if _, err := (&file{nvme: true}).SCSI(SCSICommand{CDB: make([]byte, 6)}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("an NVMe device: %v", err)
	}
}

// TestNVMePassthru is the kernel's side of NVME_IOCTL_ADMIN_CMD.
func TestNVMePassthru(t *testing.T) {
	var got nvmePassthru
	reply, fails := uintptr(0), error(nil)
	d := &file{nvme: true, ioctl: func(request uint, arg unsafe.Pointer) (uintptr, error) {
		if request != 0xc0484e41 {
			t.Errorf("request %x", request)
		}
		p := (*nvmePassthru)(arg)
		got = *p
		p.result = 7
		return reply, fails
	}}
	data := make([]byte, 4096)
	c := NVMeCommand{Opcode: 6, NSID: 1, CDW10: 10, CDW11: 11, CDW12: 12, CDW13: 13, CDW14: 14, CDW15: 15, Data: data, Timeout: time.Second}
	r, err := d.NVMe(c)
	want := nvmePassthru{
		opcode: 6, nsid: 1, addr: uint64(uintptr(unsafe.Pointer(&data[0]))), dataLen: 4096,
		cdw10: 10, cdw11: 11, cdw12: 12, cdw13: 13, cdw14: 14, cdw15: 15, timeout: 1000,
	}
	if err != nil || r != (NVMeResult{Result: 7}) || got != want {
		t.Errorf("%+v %v\n%+v\nwant %+v", r, err, got, want)
	}
	reply = 0x4001
	if r, err := d.NVMe(NVMeCommand{Opcode: 0x84}); err != nil || r.Status != 0x4001 || got.addr != 0 || got.timeout != 30000 {
		t.Errorf("%+v %v, %+v", r, err, got)
	}
	fails = unix.EINTR
	if _, err := d.NVMe(NVMeCommand{Opcode: 0x84}); !errors.Is(err, ErrTimeout) {
		t.Errorf("%v", err)
	}
	fails = unix.EACCES
	if _, err := d.NVMe(NVMeCommand{Opcode: 0x84}); !errors.Is(err, unix.EACCES) {
		t.Errorf("%v", err)
	}
	if n := milliseconds(100 * 24 * time.Hour); n != 1<<32-1 {
		t.Errorf("a hundred days are %d", n)
	}
}

// TestControllers finds them with and without native multipath.
func TestControllers(t *testing.T) {
	link := func(to string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(to), Mode: fs.ModeSymlink} }
	sys := fstest.MapFS{
		"block/nvme0n1/device":   link("../../nvme0"),
		"block/nvme1n1/device":   link("../../nvme-subsys1"),
		"block/nvme2n1/x":        {},
		"nvme-subsys1/nvme1/x":   {},
		"nvme-subsys1/nvme2/x":   {},
		"nvme-subsys1/nvme1n1/x": {},
	}
	d := &file{sys: sys}
	for disk, want := range map[string][]string{"nvme0n1": {"nvme0"}, "nvme1n1": {"nvme1", "nvme2"}} {
		if got, err := d.controllers(disk); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v %v, want %v", disk, got, err, want)
		}
	}
	if got, err := d.controllers("nvme2n1"); err == nil {
		t.Errorf("%v", got)
	}
}

// TestOpen refuses what is no disk, and changes nothing on it.
func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, path + "x", "/dev/null"} {
		if d, err := Open(p, nil); err == nil {
			t.Errorf("%s: %+v", p, d)
		}
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "data" {
		t.Errorf("%q %v", b, err)
	}
}

// TestObserved tells of each command and not of its data.
func TestObserved(t *testing.T) {
	var got []Exchange
	dev := &scripted{
		nvme: func(c NVMeCommand) (NVMeResult, error) { return NVMeResult{Status: 0x4002}, nil },
		scsi: func(c SCSICommand) (SCSIResult, error) { return SCSIResult{Status: 2, Sense: []byte{0x72, 5}}, nil },
	}
	o := observed{dev, func(e Exchange) { got = append(got, e) }}
	if err := (&ATA{o, allow}).SetPassword(Permit{}, password(t)); err == nil {
		t.Error("it was refused")
	}
	if err := (&NVMe{o, allow}).ExitFailureMode(Permit{}); err == nil {
		t.Error("it was refused")
	}
	submission := "84" + strings.Repeat("00", 39) + "01" + strings.Repeat("00", 23)
	want := "[{850a060000000100000000000000f100 027205 <nil>} {" + submission + " 4002 <nil>}]"
	var text []string
	for _, e := range got {
		text = append(text, fmt.Sprintf("{%x %x %v}", e.Command, e.Answer, e.Err))
	}
	if fmt.Sprint(text) != want {
		t.Errorf("%v\nwant %s", text, want)
	}
	if s := fmt.Sprintf("%v %+v %#v %s", password(t), password(t), password(t), password(t)); s != "[secret] [secret] [secret] [secret]" {
		t.Error(s)
	}
}
