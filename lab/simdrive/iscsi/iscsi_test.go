package iscsi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"gprovision/hw/drive"
	"gprovision/lab/simdrive"
)

const name = "iqn.2026-11.test:drives"

// served is a target whose connections are known.
type served struct {
	t      *testing.T
	target *Target
	addr   string
	mu     sync.Mutex
	errs   []error
}

func serve(t *testing.T, drives ...Drive) *served {
	t.Helper()
	l, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	if !l.Addr().(*net.TCPAddr).IP.IsLoopback() {
		t.Fatalf("it listens on %s", l.Addr())
	}
	s := &served{t: t, target: NewTarget(name, drives...), addr: l.Addr().String()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.target.Serve(l, func(err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.errs = append(s.errs, err)
		})
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return s
}

// failed returns what connections have failed by.
func (s *served) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.errs...)
}

// initiator is the other side: PDUs made by hand.
type initiator struct {
	t    *testing.T
	conn net.Conn
	session
	tag uint32
}

func (s *served) dial() *initiator {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	i := &initiator{t: s.t, conn: conn}
	if i.session, err = login(conn, "iqn.2026-11.test:me", name); err != nil {
		s.t.Fatal(err)
	}
	return i
}

// send sends a PDU with the next tag and number, which is returned.
func (i *initiator) send(op, flags byte, lun int, change func(*pdu)) uint32 {
	i.t.Helper()
	i.tag++
	p := pdu{}
	p.head[0], p.head[1], p.head[atLUN], p.head[atLUN+1] = op, flags, byte(lun>>8), byte(lun)
	p.put(atTag, i.tag)
	p.put(atCmdSN, i.cmdSN)
	p.put(atExpStat, i.expStatSN)
	if op&0x40 == 0 && op != opDataOut {
		i.cmdSN++
	}
	change(&p)
	if _, err := i.conn.Write(p.bytes()); err != nil {
		i.t.Fatal(err)
	}
	return p.number(atTag)
}

func (i *initiator) receive(op byte) pdu {
	i.t.Helper()
	p, err := readPDU(i.conn, maxReceive)
	if err != nil {
		i.t.Fatal(err)
	}
	if p.opcode() != op {
		i.t.Fatalf("PDU %02Xh, want %02Xh: % X", p.opcode(), op, p.head)
	}
	if op != opDataIn && op != opReadyToMove {
		if p.number(atCmdSN) != i.expStatSN {
			i.t.Fatalf("StatSN %d, want %d", p.number(atCmdSN), i.expStatSN)
		}
		i.expStatSN++
	}
	if p.number(atExpStat) != i.cmdSN {
		i.t.Fatalf("ExpCmdSN %d, want %d", p.number(atExpStat), i.cmdSN)
	}
	return p
}

// SCSI makes the initiator a way to a drive: what hw/drive sends goes over the wire.
func (i *initiator) SCSI(lun int, c drive.SCSICommand) drive.SCSIResult {
	i.t.Helper()
	given := 0
	flags := map[drive.Direction]byte{drive.NoData: 0x80, drive.FromDrive: 0xc0, drive.ToDrive: 0xa0}[c.Direction]
	tag := i.send(opCommand, flags, lun, func(p *pdu) {
		copy(p.head[32:], c.CDB)
		p.put(atTransfer, uint32(len(c.Data)))
		if c.Direction == drive.ToDrive {
			given = min(len(c.Data), 1000)
			p.data = c.Data[:given]
		}
	})
	for c.Direction == drive.ToDrive && given < len(c.Data) {
		r := i.receive(opReadyToMove)
		off, n := int(r.number(atOffset)), int(r.number(atLength))
		if off != given || n > maxBurst {
			i.t.Fatalf("it asks for %d bytes at %d, and has %d", n, off, given)
		}
		for part := 0; n > 0; n -= part {
			part = min(n, 50_000)
			i.send(opDataOut, map[bool]byte{true: 0x80}[part == n], lun, func(p *pdu) {
				p.put(atTag, tag)
				p.put(atTransfer, r.number(atTransfer))
				p.put(atOffset, uint32(given))
				p.data = c.Data[given : given+part]
			})
			given += part
		}
	}
	got, number := 0, uint32(0)
	for {
		p, err := readPDU(i.conn, maxReceive)
		if err != nil {
			i.t.Fatal(err)
		}
		if p.number(atTag) != tag {
			i.t.Fatalf("tag %d, want %d", p.number(atTag), tag)
		}
		if p.opcode() == opDataIn {
			if int(p.number(atOffset)) != got || p.number(atDataSN) != number {
				i.t.Fatalf("data %d at %d, want %d at %d", p.number(atDataSN), p.number(atOffset), number, got)
			}
			number++
			got += copy(c.Data[got:], p.data)
			continue
		}
		if p.opcode() != opResponse || p.number(atCmdSN) != i.expStatSN {
			i.t.Fatalf("PDU %02Xh, StatSN %d, want %d", p.opcode(), p.number(atCmdSN), i.expStatSN)
		}
		i.expStatSN++
		r := drive.SCSIResult{Status: p.head[3], Residual: int(p.number(atLength))}
		if len(p.data) > 2 {
			r.Sense = p.data[2 : 2+int(binary.BigEndian.Uint16(p.data))]
		}
		if c.Direction == drive.FromDrive && got != len(c.Data)-r.Residual {
			i.t.Fatalf("%d bytes of %d, and a residual of %d", got, len(c.Data), r.Residual)
		}
		return r
	}
}

// unit is a logical unit as hw/drive has it.
type unit struct {
	drive.Device // everything else
	i            *initiator
	lun          int
}

func (u unit) SCSI(c drive.SCSICommand) (drive.SCSIResult, error) { return u.i.SCSI(u.lun, c), nil }

func (u unit) Reset() error {
	u.i.send(0x40|opManage, 0x80|resetUnit, u.lun, func(*pdu) {})
	if p := u.i.receive(opManageAnswer); p.head[2] != manageDone {
		return fmt.Errorf("answer %d", p.head[2])
	}
	return nil
}

// rw is a command block of 10 bytes that moves sectors.
func rw(op byte, lba, count int) []byte {
	b := make([]byte, 10)
	b[0] = op
	binary.BigEndian.PutUint32(b[2:], uint32(lba))
	binary.BigEndian.PutUint16(b[7:], uint16(count))
	return b
}

// TestDrives asks an ATA and a SCSI drive who they are, writes, reads, resets and erases them, all over the wire.
func TestDrives(t *testing.T) {
	clock := &simdrive.Clock{}
	ata, scsi := simdrive.New(simdrive.SATAFlash(1), simdrive.Faults{}, clock), simdrive.New(simdrive.SCSIDisk(2), simdrive.Faults{}, clock)
	s := serve(t, ata, scsi)
	i := s.dial()
	for lun, sim := range []*simdrive.Drive{ata, scsi} {
		d, err := drive.On(unit{sim, i, lun}, nil)
		if err != nil {
			t.Fatal(err)
		}
		id, err := d.Identity()
		if err != nil || (d.ATA != nil) != (lun == 0) || id.Serial != []string{"A0002", "S0001"}[lun] {
			t.Fatalf("unit %d: %v, %v", lun, id, err)
		}
		if d.SCSI != nil { // it has its power-on to tell of first
			if _, err := d.SCSI.Capacity(); err != nil {
				t.Fatal(err)
			}
		}
		// More than a burst, so that it asks for data several times.
		want := bytes.Repeat([]byte("what is written is read "), 4096*150/24)
		if r := i.SCSI(lun, drive.SCSICommand{CDB: rw(0x2a, 8, len(want)/512), Direction: drive.ToDrive, Data: want}); r.Status != 0 {
			t.Fatalf("unit %d: write: %+v", lun, r)
		}
		got, direct := make([]byte, len(want)), make([]byte, len(want))
		if r := i.SCSI(lun, drive.SCSICommand{CDB: rw(0x28, 8, len(got)/512), Direction: drive.FromDrive, Data: got}); r.Status != 0 {
			t.Fatalf("unit %d: read: %+v", lun, r)
		}
		if _, err := sim.Device().ReadAt(direct, 8*512); err != nil || !bytes.Equal(got, want) || !bytes.Equal(direct, want) {
			t.Errorf("unit %d: other data are read than were written: %v", lun, err)
		}
		p, err := drive.NewPermit(id)
		if err != nil {
			t.Fatal(err)
		}
		if d.ATA != nil {
			err = d.ATA.Sanitize(p, drive.CryptoErase, drive.Pattern{})
		} else {
			err = d.SCSI.Sanitize(p, drive.Overwrite, drive.Pattern{Passes: 1})
		}
		if err != nil {
			t.Fatal(err)
		}
		s.target.Alone(func() { clock.Advance(30e9) })
		if d.SCSI != nil {
			if o, err := d.SCSI.Operation(); err != nil || !o.Sanitizing || o.Progress < 0x7000 || o.Progress > 0x9000 {
				t.Errorf("half-way: %+v, %v", o, err)
			}
			// A unit that is not ready says so, and what it is doing: a kernel waits then.
			r := i.SCSI(lun, drive.SCSICommand{CDB: rw(0x28, 8, 1), Direction: drive.FromDrive, Data: make([]byte, 512)})
			if sense, _ := drive.ParseSense(r.Sense); sense.Key != 2 || sense.ASC != 0x04 || sense.ASCQ != 0x1b || r.Residual != 512 {
				t.Errorf("a read meanwhile: %+v, %v", r, sense)
			}
		}
		s.target.Alone(func() { clock.Advance(60e9) })
		if err := d.Reset(p); err != nil {
			t.Error(err)
		}
		if r, _ := sim.Residue(); r != 0 {
			t.Errorf("unit %d: %d sectors are left", lun, r)
		}
	}
	i.send(opLogout, 0x80, 0, func(*pdu) {})
	if p := i.receive(opLogoutAnswer); p.head[2] != 0 {
		t.Errorf("logout is answered with %d", p.head[2])
	}
	if err := s.failed(); err != nil {
		t.Error(err)
	}
}

// TestUnits lists the units, and asks one that is not there.
func TestUnits(t *testing.T) {
	clock := &simdrive.Clock{}
	ata, scsi := simdrive.New(simdrive.SATADisk(1), simdrive.Faults{}, clock), simdrive.New(simdrive.SCSIDisk(1), simdrive.Faults{}, clock)
	i := serve(t, ata, scsi).dial()
	list := make([]byte, 64)
	r := i.SCSI(7, drive.SCSICommand{CDB: []byte{0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0}, Direction: drive.FromDrive, Data: list})
	if r.Status != 0 || r.Residual != 64-24 || !bytes.Equal(list[:24], []byte{3: 16, 17: 1, 23: 0}) {
		t.Errorf("%+v: % X", r, list)
	}
	b := make([]byte, 36)
	r = i.SCSI(2, drive.SCSICommand{CDB: []byte{0x12, 0, 0, 0, 36, 0}, Direction: drive.FromDrive, Data: b})
	if r.Status != 0 || b[0] != 0x7f {
		t.Errorf("INQUIRY of no unit: %+v, %02Xh", r, b[0])
	}
	r = i.SCSI(2, drive.SCSICommand{CDB: make([]byte, 6)})
	if sense, _ := drive.ParseSense(r.Sense); r.Status != 2 || sense.Key != 5 || sense.ASC != 0x25 {
		t.Errorf("TEST UNIT READY of no unit: %+v", r)
	}
}

// silent is a drive that does not answer some commands.
type silent struct {
	Drive
	resets int
}

func (s *silent) SCSI(c drive.SCSICommand) (drive.SCSIResult, error) {
	if c.CDB[0] == 0 {
		return drive.SCSIResult{}, drive.ErrTimeout
	}
	return s.Drive.SCSI(c)
}

func (s *silent) Reset() error { s.resets++; return s.Drive.Reset() }

// TestManage aborts commands that a drive does not answer, and resets it. Others are answered meanwhile.
func TestManage(t *testing.T) {
	quiet := &silent{Drive: simdrive.New(simdrive.SCSIDisk(1), simdrive.Faults{}, &simdrive.Clock{})}
	s := serve(t, quiet)
	i := s.dial()
	ask := func() uint32 { return i.send(opCommand, 0x80, 0, func(*pdu) {}) }
	manage := func(what byte, lun int, of uint32) byte {
		i.send(0x40|opManage, 0x80|what, lun, func(p *pdu) { p.put(atTransfer, of) })
		p := i.receive(opManageAnswer)
		return p.head[2]
	}
	first, second := ask(), ask()
	b := make([]byte, 36)
	if r := i.SCSI(0, drive.SCSICommand{CDB: []byte{0x12, 0, 0, 0, 36, 0}, Direction: drive.FromDrive, Data: b}); r.Status != 0 {
		t.Errorf("another command: %+v", r)
	}
	for _, tt := range []struct {
		what   byte
		lun    int
		of     uint32
		want   byte
		resets int
	}{
		{abortTask, 0, first, manageDone, 0}, {abortTask, 0, first, manageNoTask, 0}, {resetUnit, 5, noTag, manageNoUnit, 0},
		{3, 0, noTag, manageUnknown, 0}, {resetUnit, 0, noTag, manageDone, 1}, {abortTask, 0, second, manageNoTask, 1},
		{resetTargetWarm, 9, noTag, manageDone, 2},
	} {
		if got := manage(tt.what, tt.lun, tt.of); got != tt.want || quiet.resets != tt.resets {
			t.Errorf("function %d of unit %d: answer %d after %d resets, want %d after %d", tt.what, tt.lun, got, quiet.resets, tt.want, tt.resets)
		}
	}
	i.send(0x40|opNopOut, 0x80, 0, func(p *pdu) { p.put(atTransfer, noTag); p.data = []byte("hello") })
	if p := i.receive(opNopIn); string(p.data) != "hello" || p.number(atTransfer) != noTag {
		t.Errorf("% X %q", p.head, p.data)
	}
	i.send(0x04, 0x80, 0, func(*pdu) {}) // a text request
	if p := i.receive(opReject); p.head[2] != 5 || len(p.data) != headSize {
		t.Errorf("% X", p.head)
	}
	if err := s.failed(); err != nil {
		t.Error(err)
	}
}

// TestNotTaken ends a connection by what no initiator sends.
func TestNotTaken(t *testing.T) {
	command := func(flags byte, length uint32, data int) func(i *initiator) {
		return func(i *initiator) {
			i.send(opCommand, flags, 0, func(p *pdu) { p.put(atTransfer, length); p.data = make([]byte, data) })
		}
	}
	tests := map[string]func(i *initiator){
		"out of turn":        func(i *initiator) { i.send(0x40|opLogin, 0x87, 0, func(*pdu) {}) },
		"another number":     func(i *initiator) { i.cmdSN++; i.send(opCommand, 0x80, 0, func(*pdu) {}) },
		"both ways":          command(0xe0, 512, 0),
		"unasked":            command(0x20, 512, 0),
		"too long":           command(0xc0, maxLength+1, 0),
		"data with a read":   command(0xc0, 512, 512),
		"more than it says":  command(0xa0, 512, 513),
		"too much in a PDU":  func(i *initiator) { i.conn.Write([]byte{0x40, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 47: 0}) },
		"ends in the middle": func(i *initiator) { i.conn.Write([]byte{0x40, 0x80}); i.conn.Close() },
		"of another place": func(i *initiator) {
			tag := i.send(opCommand, 0xa0, 0, func(p *pdu) { p.put(atTransfer, 1024) })
			r := i.receive(opReadyToMove)
			i.send(opDataOut, 0x80, 0, func(p *pdu) {
				p.put(atTag, tag)
				p.put(atTransfer, r.number(atTransfer))
				p.put(atOffset, 512)
				p.data = make([]byte, 512)
			})
		},
	}
	for want, send := range tests {
		s := serve(t, simdrive.New(simdrive.SATADisk(1), simdrive.Faults{}, &simdrive.Clock{}))
		i := s.dial()
		send(i)
		if p, err := readPDU(i.conn, maxReceive); err == nil {
			t.Errorf("%s: it is answered: % X", want, p.head)
		}
		for range 1000 { // the error comes when the connection is closed already
			if s.failed() != nil {
				break
			}
		}
	}
}

// TestLogin refuses those who want what this target has not.
func TestLogin(t *testing.T) {
	s := serve(t)
	for target, want := range map[string]string{"iqn.2026-11.test:other": "status 0203h", "x\x00SessionType=Discovery": "status 0209h",
		name + "\x00AuthMethod=CHAP": "status 0201h", name + "\x00DataDigest=CRC32C": "status 0201h", name + "\x00nonsense": "status 0200h",
		name + "\x00MaxBurstLength=7": "status 0201h"} {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = login(conn, "iqn.2026-11.test:me", target); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", target, err, want)
		}
		conn.Close()
	}
	keys := map[string]string{"MaxBurstLength": "1024", "FirstBurstLength": "99999999", "ImmediateData": "No", "InitialR2T": "No",
		"OFMarker": "Yes", "X-Own": "1", "DefaultTime2Wait": "2", "MaxConnections": "8", "HeaderDigest": "CRC32C,None"}
	want := map[string]string{"MaxBurstLength": "1024", "FirstBurstLength": "65536", "ImmediateData": "No", "InitialR2T": "Yes",
		"OFMarker": "No", "X-Own": "NotUnderstood", "DefaultTime2Wait": "2", "MaxConnections": "1", "HeaderDigest": "None"}
	c := &connection{t: s.target}
	for k, v := range keys {
		if got, err := c.key(k, v); err != nil || got != want[k] {
			t.Errorf("%s=%s is answered with %q, %v", k, v, got, err)
		}
	}
	if c.terms.burst != 1024 || c.terms.first != firstBurst || c.terms.immediate {
		t.Errorf("the terms are %+v", c.terms)
	}
}

// TestLibiscsi lets another implementation of the initiator judge: QEMU's, with its tests.
func TestLibiscsi(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	if _, err := exec.LookPath("iscsi-test-cu"); err != nil {
		if os.Getenv("GPROV_NO_SKIP") != "" {
			t.Fatal("iscsi-test-cu is not installed (Debian package libiscsi-bin)")
		}
		t.Skip("iscsi-test-cu is not installed (Debian package libiscsi-bin)")
	}
	clock := &simdrive.Clock{}
	s := serve(t, simdrive.New(simdrive.SCSIDisk(1), simdrive.Faults{}, clock), simdrive.New(simdrive.SATAFlash(1), simdrive.Faults{}, clock))
	for lun, want := range []string{"SAS disk", "Lab SSD"} {
		url := fmt.Sprintf("iscsi://%s/%s/%d", s.addr, name, lun)
		if out, err := exec.Command("iscsi-inq", url).CombinedOutput(); err != nil || !bytes.Contains(out, []byte(want)) {
			t.Errorf("iscsi-inq: %v\n%s", err, out)
		}
		for _, family := range []string{"ALL.Read10", "ALL.Read16", "ALL.Write10", "ALL.Write16", "ALL.ReadCapacity10", "ALL.TestUnitReady",
			"iSCSI.iSCSIResiduals"} {
			out, err := exec.Command("iscsi-test-cu", "--dataloss", "--test="+family, url).CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("passed")) {
				t.Errorf("iscsi-test-cu, %s of unit %d: %v\n%s", family, lun, err, out)
			}
		}
	}
	if err := s.failed(); err != nil {
		t.Error(err)
	}
}

// FuzzConnection gives a connection what nobody sends. Whatever it is, the target answers or ends the connection.
func FuzzConnection(f *testing.F) {
	said := &talk{}
	_, _ = login(said, "iqn.2026-11.test:me", name)
	f.Add(said.out.Bytes())
	command := pdu{}
	command.head[0], command.head[1] = opCommand, 0xc0
	command.put(atTransfer, 512)
	command.put(atCmdSN, 1)
	for _, cdb := range [][]byte{rw(0x28, 0, 1), {0x12, 1, 0x89, 2, 0}, {0x85, 4 << 1, 0x0e, 14: 0xec}, {0xa1, 4 << 1, 0x0e, 9: 0xec}} {
		copy(command.head[32:], append(cdb, make([]byte, 16-len(cdb))...))
		f.Add(append(slices.Clone(said.out.Bytes()), command.bytes()...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		clock := &simdrive.Clock{}
		config := simdrive.SATAFlash(1)
		config.Sectors = 64
		scsi := simdrive.SCSIDisk(1)
		scsi.Sectors = 64
		target := NewTarget(name, simdrive.New(config, simdrive.Faults{}, clock), simdrive.New(scsi, simdrive.Faults{}, clock))
		_ = target.Connection(&talk{in: bytes.NewReader(b)})
	})
}

// talk is a connection whose other side says the same whatever it hears.
type talk struct {
	in  *bytes.Reader
	out bytes.Buffer
}

func (t *talk) Read(p []byte) (int, error) {
	if t.in == nil {
		return 0, errors.New("nobody is there")
	}
	return t.in.Read(p)
}

func (t *talk) Write(p []byte) (int, error) { return t.out.Write(p) }
