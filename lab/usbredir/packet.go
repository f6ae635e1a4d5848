package usbredir

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The types of packets that are used here (section "USB redirection packet types" of the specification).
const (
	typeHello               = 0
	typeDeviceConnect       = 1
	typeReset               = 3
	typeInterfaceInfo       = 4
	typeEndpointInfo        = 5
	typeSetConfiguration    = 6
	typeGetConfiguration    = 7
	typeConfigurationStatus = 8
	typeSetAlternate        = 9
	typeGetAlternate        = 10
	typeAlternateStatus     = 11
	typeCancel              = 21
	typeControl             = 100
	typeBulk                = 101
)

// Status codes of packets.
const (
	statusSuccess   = 0
	statusCancelled = 1
	statusStall     = 4
)

// Capabilities, as bits of the hello packet's word.
const (
	capDeviceVersion = 1 << 1 // usb_redir_cap_connect_device_version
	capMaxPacketSize = 1 << 4 // usb_redir_cap_ep_info_max_packet_size
	capLongIDs       = 1 << 5 // usb_redir_cap_64bits_ids
	capLongBulk      = 1 << 6 // usb_redir_cap_32bits_bulk_length

	ourCapabilities = capDeviceVersion | capMaxPacketSize | capLongIDs | capLongBulk
)

// maxPacket bounds a packet. Linux's usb-storage transfers at most 1 MiB at once, and other systems less.
const maxPacket = 4 << 20

// ErrProtocol is the error of bytes that are no packets of the protocol, or not those of a peer that has what this package needs.
var ErrProtocol = errors.New("not the USB network redirection protocol")

// packet is one packet. Its body begins behind the main header.
type packet struct {
	kind uint32
	id   uint64
	body []byte
}

// readPacket reads a packet, whose id has eight bytes or, as in the hello packet, four.
func readPacket(r io.Reader, longID bool) (packet, error) {
	var head [16]byte
	n := 12
	if longID {
		n = 16
	}
	if _, err := io.ReadFull(r, head[:n]); err != nil {
		return packet{}, err
	}
	le := binary.LittleEndian
	p := packet{kind: le.Uint32(head[:])}
	if longID {
		p.id = le.Uint64(head[8:])
	} else {
		p.id = uint64(le.Uint32(head[8:]))
	}
	size := le.Uint32(head[4:])
	if size > maxPacket {
		return packet{}, fmt.Errorf("%w: packet %d of %d bytes", ErrProtocol, p.kind, size)
	}
	p.body = make([]byte, size)
	if _, err := io.ReadFull(r, p.body); err != nil {
		return packet{}, fmt.Errorf("read packet %d of %d bytes: %w", p.kind, size, io.ErrUnexpectedEOF)
	}
	return p, nil
}

// bytes returns the packet as it is sent.
func (p packet) bytes(longID bool) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, p.kind)
	b = le.AppendUint32(b, uint32(len(p.body)))
	if longID {
		b = le.AppendUint64(b, p.id)
	} else {
		b = le.AppendUint32(b, uint32(p.id))
	}
	return append(b, p.body...)
}

// hello returns the body of the hello packet: a name of 64 bytes, and the capabilities.
func hello(name string) []byte {
	b := make([]byte, 64, 68)
	copy(b[:63], name)
	return binary.LittleEndian.AppendUint32(b, ourCapabilities)
}

// parseHello reads the capabilities of the other side.
func parseHello(p packet) (capabilities uint32, err error) {
	if p.kind != typeHello || len(p.body) < 64 {
		return 0, fmt.Errorf("%w: packet %d of %d bytes in place of hello", ErrProtocol, p.kind, len(p.body))
	}
	if len(p.body) >= 68 {
		capabilities = binary.LittleEndian.Uint32(p.body[64:])
	}
	if missing := uint32(capDeviceVersion|capMaxPacketSize|capLongBulk) &^ capabilities; missing != 0 {
		return 0, fmt.Errorf("%w: the other side lacks capabilities %#x", ErrProtocol, missing)
	}
	return capabilities, nil
}

// control is a control transfer (usb_redir_control_packet_header, ten bytes): the setup packet in USB's terms, and what goes with it.
type control struct {
	endpoint, request, requestType, status uint8
	value, index, length                   uint16
	data                                   []byte
}

const (
	controlHeader = 10
	bulkHeader    = 10
	in            = 0x80 // direction of endpoints and requests
)

func parseControl(b []byte) (control, error) {
	if len(b) < controlHeader {
		return control{}, fmt.Errorf("%w: a control packet of %d bytes", ErrProtocol, len(b))
	}
	le := binary.LittleEndian
	c := control{b[0], b[1], b[2], b[3], le.Uint16(b[4:]), le.Uint16(b[6:]), le.Uint16(b[8:]), b[controlHeader:]}
	if c.endpoint&in != 0 && len(c.data) > 0 || c.endpoint&in == 0 && len(c.data) != int(c.length) {
		return control{}, fmt.Errorf("%w: a control packet to endpoint %#x of length %d with %d bytes", ErrProtocol, c.endpoint, c.length, len(c.data))
	}
	return c, nil
}

func (c control) bytes() []byte {
	le := binary.LittleEndian
	b := []byte{c.endpoint, c.request, c.requestType, c.status}
	b = le.AppendUint16(b, c.value)
	b = le.AppendUint16(b, c.index)
	b = le.AppendUint16(b, c.length)
	return append(b, c.data...)
}

// bulk is a bulk transfer (usb_redir_bulk_packet_header, ten bytes with long lengths).
type bulk struct {
	endpoint, status uint8
	stream           uint32
	length           int
	data             []byte
}

func parseBulk(b []byte) (bulk, error) {
	if len(b) < bulkHeader {
		return bulk{}, fmt.Errorf("%w: a bulk packet of %d bytes", ErrProtocol, len(b))
	}
	le := binary.LittleEndian
	x := bulk{b[0], b[1], le.Uint32(b[4:]), int(le.Uint16(b[2:])) | int(le.Uint16(b[8:]))<<16, b[bulkHeader:]}
	if x.endpoint&in != 0 && len(x.data) > 0 || x.endpoint&in == 0 && len(x.data) != x.length || x.length > maxPacket {
		return bulk{}, fmt.Errorf("%w: a bulk packet to endpoint %#x of length %d with %d bytes", ErrProtocol, x.endpoint, x.length, len(x.data))
	}
	return x, nil
}

func (x bulk) bytes() []byte {
	le := binary.LittleEndian
	b := []byte{x.endpoint, x.status}
	b = le.AppendUint16(b, uint16(x.length))
	b = le.AppendUint32(b, x.stream)
	b = le.AppendUint16(b, uint16(x.length>>16))
	return append(b, x.data...)
}

// speedHigh is that of a USB 2.0 stick.
const speedHigh = 2

// connect is the body of the packet that says what is plugged in.
func connect() []byte {
	b := []byte{speedHigh, 0, 0, 0} // class, subclass and protocol are those of the interface
	for _, v := range []uint16{vendorID, productID, deviceVersion} {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return b
}

// interfaceInfo is the body of the packet about the interfaces: one, of mass storage.
func interfaceInfo() []byte {
	b := make([]byte, 4+4*32)
	b[0] = 1
	b[4+32], b[4+2*32], b[4+3*32] = classStorage, subclassSCSI, protocolBulkOnly
	return b
}

// endpointInfo is the body of the packet about the endpoints; outgoing ones have the places 0 to 15, incoming ones 16 to 31.
func endpointInfo() []byte {
	const control, bulk, invalid = 0, 2, 255
	b := make([]byte, 3*32, 5*32)
	size := [32]uint16{}
	for i := range size {
		b[i] = invalid
	}
	for _, i := range []int{0, 16} {
		b[i], size[i] = control, 64
	}
	for _, i := range []int{endpointOut, endpointIn&^in + 16} {
		b[i], size[i] = bulk, bulkPacket
	}
	for _, s := range size {
		b = binary.LittleEndian.AppendUint16(b, s)
	}
	return b
}
