package drive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// extCSD makes the data of a drive of 8 GiB.
func extCSD() []byte {
	b := make([]byte, 512)
	binary.LittleEndian.PutUint32(b[212:], 8<<30/512)
	b[192], b[231], b[226], b[168], b[221], b[224] = 8, 1<<6|1<<4, 32, 4, 16, 1
	b[143], b[154] = 2, 1
	copy(b[254:], "FW12    ")
	return b
}

func TestParseExtCSD(t *testing.T) {
	x, err := ParseExtCSD(extCSD())
	if err != nil || x.Revision != 8 || x.Sectors != 16<<20 || x.Boot != 4<<20 || x.RPMB != 512<<10 || x.Firmware != "FW12" {
		t.Errorf("%+v %v", x, err)
	}
	if !x.CanSanitize() || !x.CanTrim() || x.General != (2+1<<16)*16<<19 {
		t.Errorf("%d bytes of general purpose partitions", x.General)
	}
	for _, b := range [][]byte{nil, make([]byte, 511), make([]byte, 512)} {
		if _, err := ParseExtCSD(b); err == nil {
			t.Errorf("%d bytes are none", len(b))
		}
	}
}

// TestMMCBytes holds each command of eMMC: index with the start bits, and argument.
func TestMMCBytes(t *testing.T) {
	tests := []struct {
		name string
		data func([]byte)
		do   func(*MMC) error
		want string
	}{
		{"EXT_CSD", func([]byte) {}, func(m *MMC) error { _, err := m.ExtCSD(); return err }, "4800000000"},
		{"trim", func([]byte) {}, func(m *MMC) error { return m.Erase(Permit{}, time.Hour) }, "6300000000" + "6400ffffff" + "6600000001"},
		{"erase of groups", func(b []byte) { b[231] = 1 << 6 }, func(m *MMC) error { return m.Erase(Permit{}, time.Hour) },
			"6300000000" + "6400ffffff" + "6600000000"},
		{"addresses in bytes", func(b []byte) { copy(b[212:], []byte{0, 0, 16, 0}) },
			func(m *MMC) error { return m.Erase(Permit{}, time.Hour) }, "6300000000" + "641ffffe00" + "6600000001"},
		{"secure erase", func(b []byte) { b[231] = 1 }, func(m *MMC) error { return m.SecureErase(Permit{}, time.Hour) },
			"6300000000" + "6400ffffff" + "6680000000"},
		{"sanitize", func([]byte) {}, func(m *MMC) error { return m.Sanitize(Permit{}, time.Hour) }, "4603a50101"},
	}
	for _, tt := range tests {
		status := uint32(0x900)
		dev := &scripted{mmc: func(cs ...MMCCommand) ([]uint32, error) {
			if cs[0].Index == mmcSendExtCSD {
				b := extCSD()
				tt.data(b)
				copy(cs[0].Data, b)
				return []uint32{0x900}, nil
			}
			out := make([]uint32, len(cs))
			out[len(cs)-1] = status
			return out, nil
		}}
		if err := tt.do(&MMC{dev, allow}); err != nil || dev.sent[len(dev.sent)-1] != tt.want {
			t.Errorf("%s: sent %q, want %s (error %v)", tt.name, dev.sent, tt.want, err)
		}
		status |= 1 << 27 // ERASE_PARAM
		if err := tt.do(&MMC{dev, allow}); tt.name != "EXT_CSD" && !errors.As(err, &MMCError{}) {
			t.Errorf("%s with an error: %v", tt.name, err)
		}
	}
}

// TestMMCIdentity reads who an eMMC is, and what of it no method reaches.
func TestMMCIdentity(t *testing.T) {
	dev := &scripted{mmc: func(cs ...MMCCommand) ([]uint32, error) { copy(cs[0].Data, extCSD()); return []uint32{0x900}, nil }}
	copy(dev.state.CID[:], "\x15\x01\x00ABCDEF\x10\x12\x34\xab\xcd\x77\x01")
	d, err := On(dev, nil)
	if err != nil || d.MMC == nil {
		t.Fatalf("%+v %v", d, err)
	}
	id, err := d.Identity()
	if err != nil || id.Model != "ABCDEF" || id.Serial != "0x1234abcd" {
		t.Errorf("%+v %v", id, err)
	}
	c, err := d.Capabilities()
	if err != nil || !reflect.DeepEqual(c.Methods, []Method{MMCSanitize}) || len(c.Unreached) != 3 || c.Hidden == 0 {
		t.Errorf("%+v %v", c, err)
	}
	if _, known, err := d.Locking(); known || err != nil {
		t.Errorf("%t %v", known, err)
	}
}

// TestMMCMethods fails unless an eMMC is told what it says that it knows, and no Secure Erase where that destroys it.
func TestMMCMethods(t *testing.T) {
	for _, tt := range []struct {
		features byte
		cid      string
		want     []Method
		obstacle string
	}{
		{1<<6 | 1<<4, "", []Method{MMCSanitize}, ""},
		{1<<6 | 1<<4 | 1, "", []Method{MMCSanitize, MMCSecureErase}, ""},
		{1<<4 | 1, "", []Method{MMCSecureErase}, "older than Sanitize"},
		{1 << 4, "", nil, "older than Sanitize"},
		{1, "\x15\x01\x00MAG4FA", nil, "destroy"},
		{1, "\x13\x01\x00MAG4FA", []Method{MMCSecureErase}, "older than Sanitize"},
		{1<<6 | 1, "\x15\x01\x00VZL00M", []Method{MMCSanitize}, "destroy"},
		{1, "\x02\x01\x00SEM16G", nil, "way of its own"},
	} {
		dev := &scripted{mmc: func(cs ...MMCCommand) ([]uint32, error) {
			b := extCSD()
			b[231] = tt.features
			copy(cs[0].Data, b)
			return []uint32{0x900}, nil
		}}
		copy(dev.state.CID[:], tt.cid)
		c, err := (&MMC{dev, allow}).capabilities()
		if err != nil || !reflect.DeepEqual(c.Methods, tt.want) || !strings.Contains(strings.Join(c.Obstacles, "; "), tt.obstacle) ||
			(len(c.Obstacles) == 0) != (tt.obstacle == "") {
			t.Errorf("features %02x, %q: %q, %q, %v", tt.features, tt.cid, c.Methods, c.Obstacles, err)
		}
	}
}

// TestMMCIoctl is the kernel's side of MMC_IOC_MULTI_CMD.
func TestMMCIoctl(t *testing.T) {
	var n uint64
	var got [4]mmcCommand
	fails := error(nil)
	d := &file{mmc: true, ioctl: func(request uint, arg unsafe.Pointer) (uintptr, error) {
		if request != 0xc008b301 {
			t.Errorf("request %x", request)
		}
		n = *(*uint64)(arg)
		cmds := (*[4]mmcCommand)(unsafe.Add(arg, 8))
		got = *cmds
		for i := range cmds[:n] {
			cmds[i].response[0] = uint32(100 + i)
		}
		return 0, fails
	}}
	r, err := d.MMC(MMCCommand{Index: 35, Write: true}, MMCCommand{Index: 38, Argument: 7, Write: true, Busy: true, Timeout: time.Minute})
	if err != nil || fmt.Sprint(r) != "[100 101]" || n != 2 {
		t.Errorf("%v %v, %d commands", r, err, n)
	}
	want := [4]mmcCommand{{write: 1, opcode: 35, flags: 0x95}, {write: 1, opcode: 38, argument: 7, flags: 0x49d, commandTimeout: 60000}}
	if got != want {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	b := make([]byte, 512)
	if _, err := d.MMC(MMCCommand{Index: 8, Data: b}); err != nil || got[0].data != uint64(uintptr(unsafe.Pointer(&b[0]))) ||
		got[0].flags != 0xb5 || got[0].blockSize != 512 || got[0].blocks != 1 || got[0].write != 0 {
		t.Errorf("%+v %v", got[0], err)
	}
	fails = unix.ETIMEDOUT
	if _, err := d.MMC(MMCCommand{Index: 6}); !errors.Is(err, ErrTimeout) {
		t.Errorf("a timeout: %v", err)
	}
	if _, err := d.MMC(make([]MMCCommand, 5)...); err == nil {
		t.Error("five commands at once")
	}
	if _, err := (&file{}).MMC(MMCCommand{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("no eMMC: %v", err)
	}
	if err := d.Reset(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("reset: %v", err)
	}
	if _, err := d.SCSI(SCSICommand{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("SCSI: %v", err)
	}
}

// TestMMCInSysfs reads the identification register as sysfs shows it.
func TestMMCInSysfs(t *testing.T) {
	for text, want := range map[string]bool{
		"150100414243444546101234abcd7701\n": true, "": false, "15": false, "x50100414243444546101234abcd7701": false,
	} {
		cid, err := readCID(fstest.MapFS{"block/mmcblk0/device/cid": {Data: []byte(text)}}, "mmcblk0")
		if (err == nil) != want || want && (cid[0] != 0x15 || cid[15] != 1) {
			t.Errorf("%q: %x %v", text, cid, err)
		}
	}
}
