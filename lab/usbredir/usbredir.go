// Package usbredir plays a USB stick for a virtual machine, one that may be as slow as real ones: it is connected at power-on, which the port
// says, and answers later, or never. QEMU's own sticks answer at once. It speaks the USB network redirection protocol 0.7 (usbredir's
// docs/usb-redirection-protocol.md, https://gitlab.freedesktop.org/spice/usbredir) to QEMU's device usb-redir, as the side that has the device. All
// numbers on the wire are little-endian.
//
// The stick is one of USB 2.0 with bulk-only transport, one unit, and sectors of 512 bytes. It knows nothing of what is on it.
package usbredir

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Stage is how far a stick comes before it falls silent.
type Stage int

// The stages.
const (
	// Ready: it answers all.
	Ready Stage = iota
	// Starting: it has its descriptors, and answers no SCSI command yet, as one whose flash controller starts.
	Starting
	// Connected: the port says that it is there, and it answers no request.
	Connected
)

// Stick is a stick, which goes on from one power-on to the next. It is safe for concurrent use.
type Stick struct {
	image  Image
	size   int64
	serial string

	mu    sync.Mutex
	stage Stage
	moved chan struct{} // closed when the stage changes
}

// NewStick returns a stick that answers all. size is that of the image, bytes, and a multiple of 512.
func NewStick(image Image, size int64, serial string) (*Stick, error) {
	if size <= 0 || size%sectorSize != 0 {
		return nil, fmt.Errorf("a stick of %d bytes: want whole sectors of %d", size, sectorSize)
	}
	return &Stick{image: image, size: size, serial: serial, moved: make(chan struct{})}, nil
}

// Set sets how far the stick comes. What was held up and is allowed now is answered.
func (s *Stick) Set(stage Stage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stage != s.stage {
		s.stage = stage
		close(s.moved)
		s.moved = make(chan struct{})
	}
}

func (s *Stick) now() (Stage, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stage, s.moved
}

// Serve plugs the stick into the machine at the other end of c and serves it until that is gone, which is no error. It does not close c, and
// ends only when reading from c ends.
func (s *Stick) Serve(c io.ReadWriter) error {
	if _, err := c.Write(packet{kind: typeHello, body: hello("gprovision")}.bytes(false)); err != nil {
		return fmt.Errorf("greet: %w", err)
	}
	first, err := readPacket(c, false)
	if err != nil {
		return ended(err)
	}
	capabilities, err := parseHello(first)
	if err != nil {
		return err
	}
	p := &plugged{to: c, longID: capabilities&capLongIDs != 0, dev: storage{image: s.image, size: s.size, serial: s.serial}}
	if err := errors.Join(p.describe(), p.send(typeDeviceConnect, 0, connect())); err != nil {
		return err
	}
	packets, stop := make(chan packet), make(chan struct{})
	defer close(stop)
	read := make(chan error, 1)
	go func() {
		for {
			x, err := readPacket(c, p.longID)
			if err != nil {
				read <- err
				return
			}
			select {
			case packets <- x:
			case <-stop:
				return
			}
		}
	}()
	for {
		stage, moved := s.now()
		if err := p.work(stage); err != nil {
			return ended(err)
		}
		select {
		case x := <-packets:
			if err := p.take(x); err != nil {
				return ended(err)
			}
		case err := <-read:
			return ended(err)
		case <-moved:
		}
	}
}

// ended makes the end of the other side none.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, net.ErrClosed) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
		return nil
	}
	return err
}

// plugged is a stick in one machine.
type plugged struct {
	to     io.Writer
	longID bool
	dev    storage
	config byte
	// waiting are the requests that were not answered yet, in their order. Those of one endpoint are answered in it.
	waiting []packet
}

func (p *plugged) send(kind uint32, id uint64, body []byte) error {
	_, err := p.to.Write(packet{kind, id, body}.bytes(p.longID))
	return err
}

// describe sends what interfaces and endpoints there are.
func (p *plugged) describe() error {
	return errors.Join(p.send(typeInterfaceInfo, 0, interfaceInfo()), p.send(typeEndpointInfo, 0, endpointInfo()))
}

// take takes a packet. What is to be answered waits for work.
func (p *plugged) take(x packet) error {
	switch x.kind {
	case typeReset:
		p.dev.reset()
	case typeCancel:
		return p.cancel(x.id)
	case typeControl, typeBulk, typeSetConfiguration, typeGetConfiguration, typeSetAlternate, typeGetAlternate:
		p.waiting = append(p.waiting, x)
		if len(p.waiting) > 1024 {
			return fmt.Errorf("%w: more than 1024 requests wait", ErrProtocol)
		}
	case typeHello:
		return fmt.Errorf("%w: hello twice", ErrProtocol)
	}
	return nil // filters, acknowledgements and streams are nothing to a stick
}

// cancel answers a request that the other side does not want any more; one that was answered has its answer on the way.
func (p *plugged) cancel(id uint64) error {
	i := slices.IndexFunc(p.waiting, func(x packet) bool { return x.id == id })
	if i < 0 {
		return nil
	}
	x := p.waiting[i]
	p.waiting = slices.Delete(p.waiting, i, i+1)
	switch x.kind {
	case typeControl:
		c, err := parseControl(x.body)
		if err != nil {
			return err
		}
		c.status, c.length, c.data = statusCancelled, 0, nil
		return p.send(x.kind, x.id, c.bytes())
	case typeBulk:
		b, err := parseBulk(x.body)
		if err != nil {
			return err
		}
		b.status, b.length, b.data = statusCancelled, 0, nil
		return p.send(x.kind, x.id, b.bytes())
	}
	return nil // the rest cannot be cancelled
}

// work answers what waits and may be answered at a stage, until nothing moves any more.
func (p *plugged) work(stage Stage) error {
	for again := true; again; {
		again = false
		stuck := map[byte]bool{} // endpoints whose first request cannot be answered yet
		for i := 0; i < len(p.waiting); i++ {
			x := p.waiting[i]
			endpoint := byte(0)
			if x.kind == typeBulk && len(x.body) > 0 {
				endpoint = x.body[0]
			}
			if stuck[endpoint] {
				continue
			}
			done, err := p.answer(x, stage)
			if err != nil {
				return err
			}
			if !done {
				stuck[endpoint] = true
				continue
			}
			p.waiting = slices.Delete(p.waiting, i, i+1)
			i--
			again = true
		}
	}
	return nil
}

// answer answers one request. done is false if it has to wait.
func (p *plugged) answer(x packet, stage Stage) (done bool, err error) {
	if stage == Connected {
		return false, nil
	}
	switch x.kind {
	case typeControl:
		c, err := parseControl(x.body)
		if err != nil {
			return false, err
		}
		data, ok := p.dev.control(c)
		switch {
		case !ok:
			c.status, c.length, c.data = statusStall, 0, nil
		case c.endpoint&in != 0:
			c.status, c.length, c.data = statusSuccess, uint16(len(data)), data
		default:
			c.status, c.data = statusSuccess, nil
		}
		return true, p.send(x.kind, x.id, c.bytes())
	case typeBulk:
		b, err := parseBulk(x.body)
		if err != nil {
			return false, err
		}
		return p.bulk(x.id, b, stage)
	case typeSetConfiguration:
		if len(x.body) < 1 {
			return false, fmt.Errorf("%w: no configuration to set", ErrProtocol)
		}
		p.config = x.body[0]
		p.dev.reset()
		return true, errors.Join(p.describe(), p.send(typeConfigurationStatus, x.id, []byte{statusSuccess, p.config}))
	case typeGetConfiguration:
		return true, p.send(typeConfigurationStatus, x.id, []byte{statusSuccess, p.config})
	}
	if len(x.body) < 1 {
		return false, fmt.Errorf("%w: no interface is named", ErrProtocol)
	}
	return true, p.send(typeAlternateStatus, x.id, []byte{statusSuccess, x.body[0], 0}) // there is one setting
}

func (p *plugged) bulk(id uint64, b bulk, stage Stage) (done bool, err error) {
	ok, ready := false, true
	switch b.endpoint {
	case endpointOut:
		if stage == Starting && p.dev.phase == awaitCommand && isCommand(b.data) {
			return false, nil
		}
		if ok, err = p.dev.out(b.data); err != nil {
			return false, err
		}
		b.data = nil
	case endpointIn:
		if b.data, ok, ready = p.dev.in(b.length); !ready {
			return false, nil
		}
		b.length = len(b.data)
	}
	b.status = statusSuccess
	if !ok {
		b.status, b.length, b.data = statusStall, 0, nil
	}
	return true, p.send(typeBulk, id, b.bytes())
}
