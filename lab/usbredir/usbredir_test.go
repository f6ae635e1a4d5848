package usbredir

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// memory is an image in memory.
type memory []byte

func (m memory) ReadAt(b []byte, at int64) (int, error) {
	if n := copy(b, m[at:]); n < len(b) {
		return n, io.EOF
	}
	return len(b), nil
}

func (m memory) WriteAt(b []byte, at int64) (int, error) { return copy(m[at:], b), nil }

// host is the side that has the machine.
type host struct {
	t    *testing.T
	c    net.Conn
	id   uint64
	tag  uint32
	tell chan error
}

// plug plugs a stick in and reads what it says of itself.
func plug(t *testing.T, s *Stick) *host {
	t.Helper()
	ours, theirs := net.Pipe()
	h := &host{t: t, c: ours, tell: make(chan error, 1)}
	go func() { h.tell <- s.Serve(theirs) }()
	h.c.SetDeadline(time.Now().Add(20 * time.Second))
	p, err := readPacket(h.c, false)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := parseHello(p); err != nil || c != ourCapabilities {
		t.Fatalf("hello with capabilities %#x, %v", c, err)
	}
	if _, err := h.c.Write(packet{kind: typeHello, body: hello("test")}.bytes(false)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		kind uint32
		size int
	}{{typeInterfaceInfo, 132}, {typeEndpointInfo, 160}, {typeDeviceConnect, 10}} {
		if p := h.receive(); p.kind != want.kind || len(p.body) != want.size {
			t.Fatalf("packet %d of %d bytes, want %+v", p.kind, len(p.body), want)
		}
	}
	t.Cleanup(func() {
		h.c.Close()
		if err := <-h.tell; err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *host) receive() packet {
	h.t.Helper()
	p, err := readPacket(h.c, true)
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

// ask sends a packet without waiting for its answer.
func (h *host) ask(kind uint32, body []byte) uint64 {
	h.t.Helper()
	h.id++
	if _, err := h.c.Write(packet{kind, h.id<<32 | 7, body}.bytes(true)); err != nil {
		h.t.Fatal(err)
	}
	return h.id<<32 | 7
}

func (h *host) answer(kind uint32, id uint64) []byte {
	h.t.Helper()
	p := h.receive()
	if p.kind != kind || p.id != id {
		h.t.Fatalf("packet %d, id %#x; want %d, %#x", p.kind, p.id, kind, id)
	}
	return p.body
}

// get fetches with a control request to the host.
func (h *host) get(requestType, request uint8, value, length uint16) (status uint8, data []byte) {
	h.t.Helper()
	c := control{endpoint: in, requestType: requestType, request: request, value: value, length: length}
	body := h.answer(typeControl, h.ask(typeControl, c.bytes()))
	return body[3], body[controlHeader:]
}

func (h *host) out(data []byte) (status uint8) {
	h.t.Helper()
	return h.answer(typeBulk, h.ask(typeBulk, bulk{endpoint: endpointOut, length: len(data), data: data}.bytes()))[1]
}

func (h *host) in(n int) (status uint8, data []byte) {
	h.t.Helper()
	b := h.answer(typeBulk, h.ask(typeBulk, bulk{endpoint: endpointIn, length: n}.bytes()))
	return b[1], b[bulkHeader:]
}

// wrapper is a command block wrapper.
func (h *host) wrapper(toHost bool, length int, command ...byte) []byte {
	h.tag++
	le := binary.LittleEndian
	b := le.AppendUint32([]byte("USBC"), h.tag)
	b = le.AppendUint32(b, uint32(length))
	b = append(b, 0, 0, byte(len(command)))
	if toHost {
		b[12] = in
	}
	return append(b, append(command, make([]byte, 16-len(command))...)...)
}

// status reads the end of a command.
func (h *host) status() (failed bool, residue int) {
	h.t.Helper()
	st, b := h.in(13)
	if st != statusSuccess || len(b) != 13 || string(b[:4]) != "USBS" || binary.LittleEndian.Uint32(b[4:]) != h.tag {
		h.t.Fatalf("status %d, %x in place of the end of command %d", st, b, h.tag)
	}
	return b[12] != 0, int(binary.LittleEndian.Uint32(b[8:]))
}

// fetch runs a command that sends data to the host.
func (h *host) fetch(length int, command ...byte) (data []byte, failed bool, residue int) {
	h.t.Helper()
	if st := h.out(h.wrapper(true, length, command...)); st != statusSuccess {
		h.t.Fatalf("command %x: status %d", command, st)
	}
	_, data = h.in(length)
	failed, residue = h.status()
	return data, failed, residue
}

func newStick(t *testing.T) (*Stick, memory) {
	t.Helper()
	m := make(memory, 100*sectorSize)
	for i := range m {
		m[i] = byte(i / sectorSize)
	}
	s, err := NewStick(m, int64(len(m)), "S1")
	if err != nil {
		t.Fatal(err)
	}
	return s, m
}

// TestStick enumerates a stick as a system does, reads and writes, and has commands that fail.
func TestStick(t *testing.T) {
	s, m := newStick(t)
	h := plug(t, s)
	if st, b := h.get(0x80, 6, 0x0100, 8); st != statusSuccess || len(b) != 8 || b[0] != 18 || b[7] != 64 {
		t.Errorf("the first 8 bytes of the device: %d, %x", st, b)
	}
	if _, b := h.get(0x80, 6, 0x0100, 64); len(b) != 18 {
		t.Errorf("device: %x", b)
	}
	if _, b := h.get(0x80, 6, 0x0200, 255); len(b) != 32 || b[2] != 32 || b[14] != classStorage || b[20] != endpointIn || b[27] != endpointOut {
		t.Errorf("configuration: %x", b)
	}
	if _, b := h.get(0x80, 6, 0x0303, 255); string(b) != "\x06\x03S\x001\x00" {
		t.Errorf("serial number: %q", b)
	}
	if st, b := h.get(0x80, 6, 0x0f00, 5); st != statusStall || len(b) > 0 {
		t.Errorf("a descriptor that there is not: %d, %x", st, b)
	}
	if _, b := h.get(0xa1, 0xfe, 0, 1); !bytes.Equal(b, []byte{0}) {
		t.Errorf("units: %x", b)
	}
	id := h.ask(typeSetConfiguration, []byte{1})
	if a, b := h.receive(), h.receive(); a.kind != typeInterfaceInfo || b.kind != typeEndpointInfo {
		t.Errorf("packets %d, %d", a.kind, b.kind)
	}
	if b := h.answer(typeConfigurationStatus, id); !bytes.Equal(b, []byte{statusSuccess, 1}) {
		t.Errorf("configuration: %x", b)
	}
	if b := h.answer(typeAlternateStatus, h.ask(typeSetAlternate, []byte{0, 0})); !bytes.Equal(b, []byte{statusSuccess, 0, 0}) {
		t.Errorf("setting: %x", b)
	}

	if b, failed, residue := h.fetch(36, 0x12, 0, 0, 0, 36, 0); len(b) != 36 || b[1] != 0x80 || failed || residue != 0 {
		t.Errorf("inquiry: %x, failed %t, residue %d", b, failed, residue)
	}
	if b, failed, residue := h.fetch(255, 0x12, 0, 0, 0, 255, 0); len(b) != 36 || failed || residue != 255-36 {
		t.Errorf("a long inquiry: %x, failed %t, residue %d", b, failed, residue)
	}
	if b, failed, _ := h.fetch(255, 0x12, 1, 0x80, 0, 255, 0); len(b) > 0 || !failed {
		t.Errorf("a page that there is not: %x", b)
	}
	if b, _, _ := h.fetch(18, 0x03, 0, 0, 0, 18, 0); len(b) != 18 || b[2] != 5 || b[12] != 0x24 {
		t.Errorf("sense: %x", b)
	}
	if b, _, _ := h.fetch(8, 0x25); !bytes.Equal(b, []byte{0, 0, 0, 99, 0, 0, 2, 0}) {
		t.Errorf("capacity: %x", b)
	}
	if b, _, residue := h.fetch(32, 0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32); len(b) != 32 || b[7] != 99 || b[10] != 2 || residue != 0 {
		t.Errorf("long capacity: %x", b)
	}
	if b, failed, residue := h.fetch(192, 0x1a, 0, 0x3f, 0, 192, 0); len(b) != 4 || failed || residue != 188 {
		t.Errorf("mode: %x", b)
	}
	if b, failed, _ := h.fetch(2*sectorSize, 0x28, 0, 0, 0, 0, 40, 0, 0, 2, 0); failed || !bytes.Equal(b, m[40*sectorSize:42*sectorSize]) {
		t.Errorf("read: failed %t, %d bytes", failed, len(b))
	}
	if b, failed, residue := h.fetch(2*sectorSize, 0x28, 0, 0, 0, 0, 99, 0, 0, 2, 0); !failed || len(b) > 0 || residue != 2*sectorSize {
		t.Errorf("read behind the end: failed %t, %d bytes, residue %d", failed, len(b), residue)
	}
	if st := h.out(h.wrapper(false, 0, 0)); st != statusSuccess {
		t.Error(st)
	}
	if failed, residue := h.status(); failed || residue != 0 {
		t.Errorf("test unit ready: failed %t, residue %d", failed, residue)
	}
	h.out(h.wrapper(false, sectorSize, 0x2a, 0, 0, 0, 0, 7, 0, 0, 1, 0))
	data := bytes.Repeat([]byte{0xaa}, sectorSize)
	h.out(data[:100])
	h.out(data[100:])
	if failed, residue := h.status(); failed || residue != 0 || !bytes.Equal(m[7*sectorSize:8*sectorSize], data) || m[8*sectorSize] != 8 || m[7*sectorSize-1] != 6 {
		t.Errorf("write: failed %t, residue %d", failed, residue)
	}
	h.out(h.wrapper(false, sectorSize, 0x2a, 0, 0, 0, 1, 0, 0, 0, 1, 0)) // behind the end: its data is taken and thrown away
	h.out(data)
	if failed, residue := h.status(); !failed || residue != sectorSize {
		t.Errorf("write behind the end: failed %t, residue %d", failed, residue)
	}

	// What is no command stalls both directions until the reset.
	if st := h.out([]byte("no command")); st != statusStall {
		t.Error(st)
	}
	if st, _ := h.in(13); st != statusStall {
		t.Error(st)
	}
	if st := h.out(h.wrapper(false, 0, 0)); st != statusStall {
		t.Error(st)
	}
	reset := control{requestType: 0x21, request: 0xff}
	if b := h.answer(typeControl, h.ask(typeControl, reset.bytes())); b[3] != statusSuccess {
		t.Errorf("reset: %x", b)
	}
	if st := h.out(h.wrapper(false, 0, 0)); st != statusSuccess {
		t.Error(st)
	}
	h.status()
}

// TestSlow: what a stick holds up is answered when it is let go on, and not before; what the machine gave up is cancelled.
func TestSlow(t *testing.T) {
	device := control{endpoint: in, requestType: 0x80, request: 6, value: 0x0100, length: 18}
	s, _ := newStick(t)
	s.Set(Connected)
	h := plug(t, s)
	given := h.ask(typeControl, device.bytes())
	if _, err := h.c.Write(packet{kind: typeCancel, id: given}.bytes(true)); err != nil {
		t.Fatal(err)
	}
	if b := h.answer(typeControl, given); b[3] != statusCancelled { // the first answer at all
		t.Errorf("%x", b)
	}
	held := h.ask(typeControl, device.bytes())
	s.Set(Starting)
	if b := h.answer(typeControl, held); b[3] != statusSuccess || len(b) != controlHeader+18 {
		t.Errorf("%x", b)
	}
	if _, err := h.c.Write(packet{kind: typeCancel, id: held}.bytes(true)); err != nil { // crossed the answer
		t.Fatal(err)
	}
	command := h.ask(typeBulk, bulk{endpoint: endpointOut, length: 31, data: h.wrapper(true, 36, 0x12, 0, 0, 0, 36, 0)}.bytes())
	fetch := h.ask(typeBulk, bulk{endpoint: endpointIn, length: 36}.bytes())
	if st, _ := h.get(0x80, 6, 0x0100, 18); st != statusSuccess { // the answer to this comes first
		t.Error(st)
	}
	s.Set(Ready)
	if b := h.answer(typeBulk, command); b[1] != statusSuccess {
		t.Errorf("%x", b)
	}
	if b := h.answer(typeBulk, fetch); b[1] != statusSuccess || len(b) != bulkHeader+36 {
		t.Errorf("%x", b)
	}
	h.status()
}

// TestRefused: who is no peer that has what is needed is told so.
func TestRefused(t *testing.T) {
	poor := hello("old")
	binary.LittleEndian.PutUint32(poor[64:], capLongIDs)
	for name, b := range map[string][]byte{
		"no hello":          packet{kind: typeReset}.bytes(false),
		"no capabilities":   packet{kind: typeHello, body: poor}.bytes(false),
		"a huge packet":     {0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
		"hello twice":       append(packet{kind: typeHello, body: hello("x")}.bytes(false), packet{kind: typeHello, body: hello("x")}.bytes(true)...),
		"a short control":   append(packet{kind: typeHello, body: hello("x")}.bytes(false), packet{kind: typeControl, body: []byte{0}}.bytes(true)...),
		"data that is less": append(packet{kind: typeHello, body: hello("x")}.bytes(false), packet{kind: typeBulk, body: bulk{endpoint: endpointOut, length: 9}.bytes()}.bytes(true)...),
	} {
		s, _ := newStick(t)
		if err := s.Serve(wire{bytes.NewReader(b), io.Discard}); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewStick(memory{}, 700, ""); err == nil {
		t.Error("a stick of 700 bytes")
	}
}

type wire struct {
	io.Reader
	io.Writer
}

// FuzzPackets: whatever the machine sends, the stick ends with an error of the protocol or at the end of the bytes, and writes nothing
// outside of its image.
func FuzzPackets(f *testing.F) {
	h := &host{}
	f.Add([]byte(nil), uint8(0))
	f.Add(bulk{endpoint: endpointOut, length: 31, data: h.wrapper(true, 36, 0x12, 0, 0, 0, 36, 0)}.bytes(), uint8(typeBulk))
	f.Add(bulk{endpoint: endpointOut, length: 31, data: h.wrapper(true, 512, 0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0)}.bytes(), uint8(typeBulk))
	f.Add(control{endpoint: in, requestType: 0x80, request: 6, value: 0x0200, length: 9}.bytes(), uint8(typeControl))
	f.Add([]byte{1}, uint8(typeSetConfiguration))
	m := make(memory, 4*sectorSize)
	f.Fuzz(func(t *testing.T, b []byte, kind uint8) {
		// Two of the same, so that data follows a command, and a fetch behind both.
		p := &plugged{to: io.Discard, longID: true, dev: storage{image: m, size: int64(len(m)), serial: "S"}}
		for _, x := range []packet{{uint32(kind), 1, b}, {uint32(kind), 2, b}, {typeBulk, 3, bulk{endpoint: endpointIn, length: 64}.bytes()}} {
			err := p.take(x)
			if err == nil {
				err = p.work(Ready)
			}
			if err != nil {
				if !errors.Is(err, ErrProtocol) {
					t.Error(err)
				}
				return
			}
		}
		if x, err := readPacket(bytes.NewReader(b), true); err == nil && !bytes.Equal(x.bytes(true), b[:len(x.body)+16]) {
			t.Errorf("%x is read as %+v", b, x)
		}
	})
}
