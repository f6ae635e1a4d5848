package netboot

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gprovision/factory/guard"
)

// TFTP serves the iPXE binaries to firmware, read only. It implements RFC 1350 with the options blksize (RFC 2348),
// tsize and timeout (RFC 2349) and windowsize (RFC 7440). It is our own, because the library that we tried is
// unmaintained and has no limits. Only the names of Loaders exist here. Transfers are few and short, and end when a
// client falls silent.
type TFTP struct {
	dir     string
	address string // with the port that was opened
	conn    *net.UDPConn
	log     *slog.Logger

	odd  *seldom
	mu   sync.Mutex
	open []*opened // oldest first
	done sync.WaitGroup
}

// opened is a transfer that is under way.
type opened struct {
	peer *net.UDPAddr
	// answered reports whether the peer has acknowledged anything. That shows that the peer exists and wants the
	// file.
	answered atomic.Bool
	cancel   context.CancelFunc
}

const (
	tftpTransfers = 128
	tftpPerHost   = 4
	tftpFirst     = 3    // sends before the first acknowledgement: a machine that never asked gets no more
	tftpBlock     = 1468 // what fits into an Ethernet frame
	tftpWindow    = 32
	tftpRetries   = 6
)

// Operation and error codes of RFC 1350 and 2347.
const (
	opRead, opWrite, opData, opAck, opError, opOptions = 1, 2, 3, 4, 5, 6

	errUndefined, errNotFoundTFTP, errAccess, errIllegal = 0, 1, 2, 4
)

// ListenTFTP opens port 69 on an address. dir is the directory of iPXE binaries.
func ListenTFTP(address, dir string, log *slog.Logger) (*TFTP, error) {
	s := &TFTP{dir: dir, address: address, log: log, odd: newSeldom(log)}
	if err := s.listen(); err != nil {
		return nil, err
	}
	s.address = s.conn.LocalAddr().String()
	return s, nil
}

func (s *TFTP) listen() error {
	a, err := net.ResolveUDPAddr("udp4", s.address)
	if err != nil {
		return fmt.Errorf("listen for TFTP: %w", err)
	}
	if s.conn, err = net.ListenUDP("udp4", a); err != nil {
		return fmt.Errorf("listen for TFTP: %w", err)
	}
	return nil
}

// Serve answers until ctx ends, and closes the port. It may be called again: it then reopens the port.
func (s *TFTP) Serve(ctx context.Context) error {
	if s.conn == nil {
		if err := s.listen(); err != nil {
			return err
		}
	}
	conn := s.conn
	defer func() {
		conn.Close()
		s.done.Wait() // the transfers use the connection
		s.conn = nil
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	buf := make([]byte, 2048)
	for {
		n, peer, err := conn.ReadFromUDP(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			s.odd.Warn("TFTP requests cannot be read", err.Error()) // the interface may be down for a while
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			continue
		}
		guard.Call(s.log, "TFTP", func() error {
			s.begin(ctx, peer, buf[:n])
			return nil
		})
	}
}

// Close closes the port if Serve was not called. After Serve it does nothing.
func (s *TFTP) Close() error {
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}

// begin starts the transfer that a packet asks for.
func (s *TFTP) begin(ctx context.Context, peer *net.UDPAddr, packet []byte) {
	q, err := parseRequest(packet)
	if err != nil {
		s.odd.Warn("TFTP packet dropped", err.Error(), "client", peer.String())
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	o := &opened{peer: peer, cancel: cancel}
	if !s.enter(o) {
		cancel()
		return
	}
	s.done.Add(1)
	go func() {
		defer s.done.Done()
		defer s.leave(o)
		guard.Call(s.log, "TFTP", func() error {
			s.transfer(ctx, o, q)
			return nil
		})
	}()
}

// enter adds a transfer. If its address has too many transfers, or there are too many in total, the oldest ends to
// make room, and among those one without any acknowledgement ends first. enter returns false for a repeated request
// that is already being answered.
func (s *TFTP) enter(o *opened) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine := func(x *opened) bool { return x.peer.IP.Equal(o.peer.IP) }
	count := 0
	for _, x := range s.open {
		if mine(x) {
			if x.peer.Port == o.peer.Port && !x.answered.Load() {
				return false
			}
			count++
		}
	}
	if count >= tftpPerHost {
		s.evict(mine)
	} else if len(s.open) >= tftpTransfers {
		s.evict(func(*opened) bool { return true })
	}
	s.open = append(s.open, o)
	return true
}

// evict ends the oldest of the transfers that of selects. The caller holds mu.
func (s *TFTP) evict(of func(*opened) bool) {
	i := slices.IndexFunc(s.open, func(x *opened) bool { return of(x) && !x.answered.Load() })
	if i < 0 {
		i = slices.IndexFunc(s.open, of)
	}
	s.open[i].cancel()
	s.open = slices.Delete(s.open, i, i+1)
}

func (s *TFTP) leave(o *opened) {
	o.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = slices.DeleteFunc(s.open, func(x *opened) bool { return x == o })
}

// request is a read or write request.
type request struct {
	op      uint16
	name    string
	options map[string]string // names in lower case
}

// parseRequest parses a request packet: op, name, mode, and pairs of option and value, each ended by a zero byte.
func parseRequest(b []byte) (request, error) {
	if len(b) < 4 || b[len(b)-1] != 0 {
		return request{}, errors.New("malformed TFTP request")
	}
	q := request{op: binary.BigEndian.Uint16(b), options: map[string]string{}}
	if q.op != opRead && q.op != opWrite {
		return request{}, errors.New("not a TFTP request")
	}
	f := bytes.Split(b[2:len(b)-1], []byte{0})
	if len(f) < 2 || len(f) > 34 {
		return request{}, errors.New("malformed TFTP request")
	}
	q.name = string(f[0])
	for i := 2; i+1 < len(f); i += 2 {
		q.options[strings.ToLower(string(f[i]))] = string(f[i+1])
	}
	return q, nil
}

func (s *TFTP) transfer(ctx context.Context, o *opened, q request) {
	peer := o.peer
	local := &net.UDPAddr{IP: s.conn.LocalAddr().(*net.UDPAddr).IP}
	conn, err := net.ListenUDP("udp4", local) // a port of its own: the transfer's identifier
	if err != nil {
		s.log.Warn("TFTP transfer not started", "client", peer.String(), "error", err.Error())
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	refuse := func(code uint16, text string) {
		conn.WriteToUDP(errorPacket(code, text), peer)
	}
	name := loaderName(q.name)
	switch {
	case q.op == opWrite:
		refuse(errAccess, "read only")
		return
	case !slices.Contains(Loaders(), name):
		s.odd.Warn("TFTP file not served", "no such file", "client", peer.String(), "name", q.name)
		refuse(errNotFoundTFTP, "no such file")
		return
	}
	data, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.log.Error("TFTP file cannot be read", "name", name, "error", err.Error())
		refuse(errNotFoundTFTP, "no such file")
		return
	}
	t := &tftpSend{conn: conn, peer: peer, data: data, block: 512, window: 1, pause: time.Second, answered: &o.answered}
	start := time.Now()
	switch err := t.run(q.options); {
	case err == nil:
		s.log.Info("TFTP file sent", "client", peer.String(), "name", name, "bytes", len(data), "elapsed", time.Since(start).Round(time.Millisecond).String())
	case errors.Is(err, errAborted):
		// Firmware asks for the size first, and drops that transfer at once.
		s.log.Debug("TFTP transfer ended by the client", "client", peer.String(), "name", name)
	case ctx.Err() != nil:
		s.log.Debug("TFTP transfer made room for another", "client", peer.String(), "name", name)
	case !o.answered.Load():
		s.odd.Warn("TFTP transfer failed", err.Error(), "client", peer.String(), "name", name)
	default:
		s.log.Warn("TFTP transfer failed", "client", peer.String(), "name", name, "error", err.Error())
	}
}

// loaderName returns the name that a client means. Some clients read the name from a DHCP answer without checking its
// length, and send what follows it, such as the option code 255.
func loaderName(name string) string {
	end := len(name)
	for end > 0 && name[end-1] > '~' {
		end--
	}
	return strings.TrimLeft(name[:end], "/\\.")
}

// errAborted means that the client has ended a transfer.
var errAborted = errors.New("the client ended the transfer")

// tftpSend is the sending of one file.
type tftpSend struct {
	conn   *net.UDPConn
	peer   *net.UDPAddr
	data   []byte
	block  int
	window int
	pause  time.Duration // before a packet is sent again
	// answered reports whether the client has acknowledged something.
	answered *atomic.Bool
}

// tries returns how often to send a packet. It is less often until the client has acknowledged something.
func (t *tftpSend) tries() int {
	if t.answered.Load() {
		return tftpRetries
	}
	return tftpFirst
}

func (t *tftpSend) run(options map[string]string) error {
	if oack := t.accept(options); oack != nil {
		if err := t.exchange([][]byte{oack}, 0, 0); err != nil {
			return err
		}
	}
	blocks := len(t.data)/t.block + 1 // the last one is shorter, and may be empty
	for acked := 0; acked < blocks; {
		n := min(t.window, blocks-acked)
		packets := make([][]byte, n)
		for i := range n {
			k := acked + i // blocks count from 1 on the wire
			part := t.data[k*t.block : min((k+1)*t.block, len(t.data))]
			p := binary.BigEndian.AppendUint16(nil, opData)
			p = binary.BigEndian.AppendUint16(p, uint16(k+1))
			packets[i] = append(p, part...)
		}
		if err := t.exchange(packets, acked, acked+n); err != nil {
			return err
		}
		acked += n
	}
	return nil
}

// accept applies the options that it knows. It returns the packet that confirms them, or nil if there are none.
func (t *tftpSend) accept(options map[string]string) []byte {
	p := binary.BigEndian.AppendUint16(nil, opOptions)
	add := func(name string, v int) {
		p = append(p, name+"\x00"+strconv.Itoa(v)+"\x00"...)
	}
	for _, name := range []string{"blksize", "tsize", "timeout", "windowsize"} {
		text, ok := options[name]
		v, err := strconv.Atoi(text)
		if !ok || err != nil || v < 0 {
			continue
		}
		switch {
		case name == "tsize":
			add(name, len(t.data))
		case name == "blksize" && v >= 8:
			t.block = min(v, tftpBlock)
			add(name, t.block)
		case name == "timeout" && v >= 1 && v <= 255:
			t.pause = time.Duration(min(v, 10)) * time.Second
			add(name, v)
		case name == "windowsize" && v >= 1:
			t.window = min(v, tftpWindow)
			add(name, t.window)
		}
	}
	if len(p) == 2 {
		return nil
	}
	return p
}

// exchange sends packets until the last one, block last, is acknowledged. base is the number of the block before the
// first one. After an acknowledgement of an earlier block of the window it continues after that block (RFC 7440).
func (t *tftpSend) exchange(packets [][]byte, base, last int) error {
	acked := base
	buf := make([]byte, 2048)
	for tries := 0; tries < t.tries(); tries++ {
		for _, p := range packets[max(0, acked-base):] {
			if _, err := t.conn.WriteToUDP(p, t.peer); err != nil {
				return err
			}
		}
		deadline := time.Now().Add(t.pause)
		for again := false; !again; {
			t.conn.SetReadDeadline(deadline)
			n, from, err := t.conn.ReadFromUDP(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
			if !from.IP.Equal(t.peer.IP) || from.Port != t.peer.Port {
				t.conn.WriteToUDP(errorPacket(5, "unknown transfer"), from)
				continue
			}
			if n < 4 {
				continue
			}
			switch binary.BigEndian.Uint16(buf) {
			case opError:
				return errAborted
			case opAck:
				block := int(binary.BigEndian.Uint16(buf[2:]))
				// Block numbers wrap at 65536: find the one near the window.
				k := acked + int(int16(uint16(block)-uint16(acked)))
				if k >= acked && k <= last {
					t.answered.Store(true)
				}
				switch {
				case k == last:
					return nil
				case k > acked && k < last: // part of the window arrived
					acked, again, tries = k, true, -1
				}
				// A repeated acknowledgement gets no answer. That would double every packet (RFC 1123 section
				// 4.2.3.1).
			default:
				t.conn.WriteToUDP(errorPacket(errIllegal, "illegal operation"), t.peer)
				return errors.New("the client sent something else than an acknowledgement")
			}
		}
	}
	return errors.New("the client fell silent")
}

func errorPacket(code uint16, text string) []byte {
	p := binary.BigEndian.AppendUint16(nil, opError)
	p = binary.BigEndian.AppendUint16(p, code)
	return append(append(p, text...), 0)
}
