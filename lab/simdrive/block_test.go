package simdrive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"gprovision/hw/drive"
)

// moves is a command block of 16 bytes that moves blocks; those of 10 have the same operation codes without their upper half.
func moves(op byte, lba uint64, count uint32) []byte {
	b := make([]byte, 16)
	if b[0] = op; op < 0x80 {
		binary.BigEndian.PutUint32(b[2:], uint32(lba))
		binary.BigEndian.PutUint16(b[7:], uint16(count))
		return b
	}
	binary.BigEndian.PutUint64(b[2:], lba)
	binary.BigEndian.PutUint32(b[10:], count)
	return b
}

// told sends a command and returns its sense data, all of them zeros if the status is good.
func told(t *testing.T, d *Drive, cdb []byte, how drive.Direction, data []byte) (drive.Sense, int) {
	t.Helper()
	r, err := d.SCSI(drive.SCSICommand{CDB: cdb, Direction: how, Data: data})
	if err != nil {
		t.Fatalf("command %02Xh: %v", cdb[0], err)
	}
	sense, ok := drive.ParseSense(r.Sense)
	if r.Status != 0 && !ok {
		t.Fatalf("command %02Xh: status %02Xh without sense data", cdb[0], r.Status)
	}
	return sense, r.Residual
}

// TestBlocks writes and reads by commands, and asks what a kernel asks before.
func TestBlocks(t *testing.T) {
	for _, c := range []Config{SATAFlash(1), SCSIDisk(1)} {
		d := New(c, Faults{}, &Clock{})
		if c.Protocol == SCSI {
			if s, _ := told(t, d, moves(0x28, 0, 1), drive.FromDrive, make([]byte, 512)); s.Key != 6 || s.ASC != 0x29 {
				t.Errorf("the first command after power-on: %v", s)
			}
		}
		b := make([]byte, 8)
		if s, _ := told(t, d, []byte{0x25, 9: 0}, drive.FromDrive, b); s.Key != 0 || !bytes.Equal(b, []byte{0, 3, 0xff, 0xff, 0, 0, 2, 0}) {
			t.Errorf("READ CAPACITY: %v, % X", s, b)
		}
		long := make([]byte, 32)
		told(t, d, []byte{0x9e, 0x10, 13: 32, 15: 0}, drive.FromDrive, long)
		if thin := long[14]&0x80 != 0; thin != c.Flash || binary.BigEndian.Uint64(long) != 1<<18-1 {
			t.Errorf("READ CAPACITY (16): % X", long)
		}
		for _, op := range []byte{0x1a, 0x5a} {
			page := make([]byte, 64)
			s, residual := told(t, d, []byte{op, 0, 0x3f, 9: 0}, drive.FromDrive, page)
			if at := map[byte]int{0x1a: 4, 0x5a: 8}[op]; s.Key != 0 || page[at] != 8 || page[at+2] != 4 || residual != 64-at-20 {
				t.Errorf("MODE SENSE %02Xh: %v, % X", op, s, page)
			}
		}
		sent := len(d.Sent())
		for i, ops := range [][2]byte{{0x2a, 0x28}, {0x8a, 0x88}} {
			want, got := bytes.Repeat([]byte{byte(i + 1), 2, 3, 4}, 256), make([]byte, 1536)
			if s, _ := told(t, d, moves(ops[0], 5, 2), drive.ToDrive, want); s.Key != 0 {
				t.Errorf("%02Xh: %v", ops[0], s)
			}
			s, residual := told(t, d, moves(ops[1], 5, 2), drive.FromDrive, got)
			if s.Key != 0 || residual != 512 || !bytes.Equal(got[:1024], want) {
				t.Errorf("%02Xh: %v, %d bytes less", ops[1], s, residual)
			}
			direct := make([]byte, 1024)
			if _, err := d.Device().ReadAt(direct, 5*512); err != nil || !bytes.Equal(direct, want) {
				t.Errorf("read as a device: %v", err)
			}
		}
		for _, op := range []byte{0x35, 0x91} {
			if s, _ := told(t, d, moves(op, 0, 0), drive.NoData, nil); s.Key != 0 {
				t.Errorf("%02Xh: %v", op, s)
			}
		}
		for name, tt := range map[string]struct {
			cdb  []byte
			data int
			asc  byte
		}{
			"beyond the end": {moves(0x2a, 1<<18-1, 2), 1024, 0x21}, "far beyond": {moves(0x8a, 1<<63, 1), 512, 0x21},
		} {
			if s, _ := told(t, d, tt.cdb, drive.ToDrive, make([]byte, tt.data)); s.Key != 5 || s.ASC != tt.asc {
				t.Errorf("%s: %v", name, s)
			}
		}
		protected := moves(0x2a, 5, 2)
		protected[1] = 0x20
		if s, _ := told(t, d, protected, drive.ToDrive, make([]byte, 1024)); s.Key != 5 || s.ASC != 0x24 {
			t.Errorf("protection information: %v", s)
		}
		// One of the two sectors, since there are no more data; then all but a part of the second.
		one := bytes.Repeat([]byte("one!"), 128)
		part := make([]byte, 700)
		if s, residual := told(t, d, moves(0x2a, 5, 2), drive.ToDrive, one); s.Key != 0 || residual != -512 {
			t.Errorf("too few data: %v, %d bytes less", s, residual)
		}
		if s, residual := told(t, d, moves(0x28, 5, 2), drive.FromDrive, part); s.Key != 0 || residual != 700-1024 ||
			!bytes.Equal(part[:512], one) || part[512] != 2 || part[699] != 4 {
			t.Errorf("too little room: %v, %d bytes less", s, residual)
		}
		list := make([]byte, 24)
		binary.BigEndian.PutUint64(list[8:], 4)
		binary.BigEndian.PutUint32(list[16:], 4)
		s, _ := told(t, d, moves(0x42, 0, 0), drive.ToDrive, list)
		got := make([]byte, 512)
		told(t, d, moves(0x28, 5, 1), drive.FromDrive, got)
		if unmapped := bytes.Equal(got, make([]byte, 512)); unmapped != c.Flash || (s.Key == 0) != c.Flash {
			t.Errorf("UNMAP: %v, zeros: %t", s, unmapped)
		}
		if binary.BigEndian.PutUint32(list[16:], 1<<30); c.Flash {
			if s, _ := told(t, d, moves(0x42, 0, 0), drive.ToDrive, list); s.ASC != 0x21 {
				t.Errorf("UNMAP beyond the end: %v", s)
			}
		}
		if len(d.Sent()) != sent {
			t.Errorf("%d commands that move blocks are among those that were sent", len(d.Sent())-sent)
		}
		d.PowerCut()
		if _, err := d.SCSI(drive.SCSICommand{CDB: moves(0x28, 0, 1), Direction: drive.FromDrive, Data: got}); !errors.Is(err, ErrNoPower) {
			t.Errorf("without power: %v", err)
		}
	}
}

// TestBlocksRefused reads and writes where that does not go.
func TestBlocksRefused(t *testing.T) {
	erased := func(c Config, f Faults, m drive.Method) *Drive {
		b := newBench(t, c, f)
		if _, err := b.start(m); err != nil {
			t.Fatal(err)
		}
		b.clock.Advance(30 * time.Second)
		return b.sim
	}
	ended := func(c Config, f Faults, m drive.Method) *Drive {
		d := erased(c, f, m)
		d.clock.Advance(time.Hour)
		return d
	}
	encrypts := SCSIDisk(1)
	encrypts.Encrypts = true
	lockedDrive := New(encrypts, Faults{Locked: true}, &Clock{})
	lockedDrive.scsi.attention = false
	bad := New(SATADisk(1), Faults{BadSectors: 1 << 18}, &Clock{})
	for name, tt := range map[string]struct {
		d              *Drive
		op             byte
		key, asc, ascq byte
	}{
		"SCSI, sanitizing":        {erased(SCSIDisk(1), Faults{}, drive.SCSISanitizeOverwrite), 0x28, 2, 0x04, 0x1b},
		"SCSI, formatting":        {erased(SCSIDisk(1), Faults{}, drive.SCSIFormatUnit), 0x2a, 2, 0x04, 0x04},
		"SCSI, failed":            {ended(SCSIDisk(1), Faults{FailAtEnd: true}, drive.SCSISanitizeOverwrite), 0x28, 3, 0x31, 0x03},
		"SCSI, locked":            {lockedDrive, 0x28, 7, 0x20, 0x02},
		"SCSI, cannot be read":    {ended(SCSIDisk(1), Faults{Unreadable: true}, drive.SCSISanitizeOverwrite), 0x28, 3, 0x11, 0},
		"ATA, sanitizing":         {erased(SATADisk(1), Faults{}, drive.ATASanitizeOverwrite), 0x28, 0x0b, 0, 0},
		"ATA, failed":             {ended(SATADisk(1), Faults{FailAtEnd: true}, drive.ATASanitizeOverwrite), 0x2a, 0x0b, 0, 0},
		"ATA, cannot be written":  {bad, 0x2a, 3, 0x0c, 0},
		"ATA, is read, not wrote": {bad, 0x28, 0, 0, 0},
	} {
		how := drive.FromDrive
		if tt.op == 0x2a {
			how = drive.ToDrive
		}
		if s, _ := told(t, tt.d, moves(tt.op, 7, 1), how, make([]byte, 512)); s.Key != tt.key || s.ASC != tt.asc || s.ASCQ != tt.ascq {
			t.Errorf("%s: %v", name, s)
		}
	}
}

// TestTranslation has what a SAT layer says of an ATA drive: page 89h has its IDENTIFY DEVICE data, and both commands of the pass-through.
func TestTranslation(t *testing.T) {
	d := New(SATAFlash(1), Faults{}, &Clock{})
	page, long, short := make([]byte, 600), make([]byte, 512), make([]byte, 512)
	if s, residual := told(t, d, []byte{0x12, 1, 0x89, 2, 88, 0}, drive.FromDrive, page); s.Key != 0 || residual != 600-572 {
		t.Errorf("page 89h: %v, %d bytes less", s, residual)
	}
	told(t, d, []byte{0x85, 4 << 1, 0x0e, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xec, 0}, drive.FromDrive, long)
	told(t, d, []byte{0xa1, 4 << 1, 0x0e, 0, 1, 0, 0, 0, 0, 0xec, 0, 0}, drive.FromDrive, short)
	id, err := drive.ParseIdentify(long)
	if err != nil || id.Serial != "A0002" || !bytes.Equal(long, short) || !bytes.Equal(long, page[60:572]) || page[56] != 0xec {
		t.Errorf("%v, %v: page 89h has % X", id.Serial, err, page[:64])
	}
	for _, cdb := range [][]byte{{0x85, 4 << 1, 0x0e, 14: 0xec, 15: 0}, {0x85, 3 << 1, 0x20, 14: 0xec, 15: 0}} {
		if s, _ := told(t, d, cdb, drive.FromDrive, make([]byte, 100)); s.Key != 5 || s.ASC != 0x24 {
			t.Errorf("too few data: %v", s)
		}
	}
	pages := make([]byte, 16)
	told(t, d, []byte{0x12, 1, 0, 0, 16, 0}, drive.FromDrive, pages)
	for _, p := range pages[4 : 4+pages[3]] {
		b := make([]byte, 600)
		if s, _ := told(t, d, []byte{0x12, 1, p, 2, 88, 0}, drive.FromDrive, b); s.Key != 0 || b[1] != p {
			t.Errorf("page %02Xh is listed: %v", p, s)
		}
	}
	if pages[3] != 7 {
		t.Errorf("pages % X", pages)
	}
}
