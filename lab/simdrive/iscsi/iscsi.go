// Package iscsi serves drives to a kernel, or to whoever else speaks iSCSI (RFC 7143): each command block goes to the drive as it is, and
// status, sense data and resets are those of the drive. It is made for simulated drives, so that a real kernel is between them and what
// erases them.
//
// It is the part of a target that one initiator in the lab needs: normal sessions of one connection, error recovery level 0, no
// authentication, no digests, no discovery. It listens on the loopback address only.
package iscsi

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"gprovision/hw/drive"
)

// Drive is what is served as a logical unit. A drive.Device is one.
type Drive interface {
	SCSI(c drive.SCSICommand) (drive.SCSIResult, error)
	Reset() error
}

// Target is drives under one name, each a logical unit, from 0. Their commands are carried out one after another.
type Target struct {
	name   string
	mu     sync.Mutex
	drives []Drive
}

// NewTarget returns a target with a name such as iqn.2026-11.example:drives.
func NewTarget(name string, drives ...Drive) *Target { return &Target{name: name, drives: drives} }

// Listen listens on the loopback address, on a port that is free.
func Listen() (net.Listener, error) { return net.Listen("tcp4", "127.0.0.1:0") }

// Serve serves whoever connects until the listener is closed, and returns when all connections have ended. A connection that fails is told
// to failed, which may be called from several goroutines.
func (t *Target) Serve(l net.Listener, failed func(error)) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				failed(fmt.Errorf("accept: %w", err))
			}
			return
		}
		all.Go(func() {
			defer c.Close()
			if err := t.Connection(c); err != nil {
				failed(err)
			}
		})
	}
}

// Alone lets do have the drives while no command of an initiator reaches them.
func (t *Target) Alone(do func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	do()
}

// patience is how long a drive may take for a command: the timer is the initiator's.
const patience = 365 * 24 * time.Hour

// run carries out a command. There is nobody at a logical unit that is not there, but it can be asked what is.
func (t *Target) run(lun int, c drive.SCSICommand) (drive.SCSIResult, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	answer := func(b []byte) (drive.SCSIResult, error) {
		return drive.SCSIResult{Residual: len(c.Data) - copy(c.Data, b)}, nil
	}
	there := lun >= 0 && lun < len(t.drives)
	switch {
	case c.CDB[0] == 0xa0: // REPORT LUNS
		b := make([]byte, 8+8*len(t.drives))
		b[2], b[3] = byte(8*len(t.drives)>>8), byte(8*len(t.drives))
		for i := range t.drives {
			if b[9+8*i] = byte(i); i > 255 { // flat addressing: Linux takes its first bits for a part of the number
				b[8+8*i] = 0x40 | byte(i>>8)
			}
		}
		return answer(b)
	case !there && c.CDB[0] == 0x12: // INQUIRY
		return answer([]byte{0x7f, 0, 6, 2, 31, 35: 0})
	case !there:
		return drive.SCSIResult{Status: 2, Sense: []byte{0x72, 5, 0x25, 0, 0, 0, 0, 0}}, nil // logical unit not supported
	}
	c.Timeout = patience
	return t.drives[lun].SCSI(c)
}

// reset resets one logical unit, or all.
func (t *Target) reset(lun int, all bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs error
	for i, d := range t.drives {
		if all || i == lun {
			errs = errors.Join(errs, d.Reset())
		}
	}
	return errs
}

// connection is one session.
type connection struct {
	t        *Target
	to       io.Writer
	terms    terms
	greeted  bool // the first login request was answered
	declared bool // the initiator knows what this side receives
	full     bool // it is logged in
	ended    bool
	status   uint32 // StatSN
	expected uint32 // ExpCmdSN
	transfer uint32 // the last target transfer tag
	// tasks are the commands that wait for data, and those that the drive does not answer, by the initiator's tag.
	tasks map[uint32]*task
}

// task is a command under way.
type task struct {
	tag     uint32
	lun     int
	unit    [8]byte // the same as it goes over the wire
	command drive.SCSICommand
	have    int    // bytes of the data to the drive that are there
	round   int    // where the data end that were asked for
	ask     uint32 // by which target transfer tag
	sent    uint32 // PDUs that were numbered by DataSN or R2TSN
}

// Connection serves one connection until the initiator logs out or is gone, which is no error.
func (t *Target) Connection(conn io.ReadWriter) error {
	c := &connection{
		t: t, to: conn, status: 1, tasks: map[uint32]*task{},
		terms: terms{send: usualSend, burst: maxBurst, first: firstBurst, immediate: true},
	}
	r := bufio.NewReader(conn)
	for !c.ended {
		p, err := readPDU(r, maxReceive)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = c.take(p)
		}
		if err != nil {
			return fmt.Errorf("iscsi: %w", err)
		}
	}
	return nil
}

// take answers a PDU.
func (c *connection) take(p pdu) error {
	op := p.opcode()
	if c.full == (op == opLogin) {
		return fmt.Errorf("PDU %02Xh comes out of turn", op)
	}
	if op == opLogin {
		return c.login(p)
	}
	if op != opDataOut && !p.immediate() {
		if n := p.number(atCmdSN); n != c.expected {
			return fmt.Errorf("PDU %02Xh has the number %d, not %d", op, n, c.expected)
		}
		c.expected++
	}
	switch op {
	case opCommand:
		return c.command(p)
	case opDataOut:
		return c.more(p)
	case opManage:
		return c.manage(p)
	case opNopOut:
		return c.nop(p)
	case opLogout:
		c.ended = true
		return c.send(c.answer(opLogoutAnswer, p))
	}
	a := c.answer(opReject, p)
	a.put(atTag, noTag)
	a.head[2], a.data = 0x05, p.head[:] // command not supported
	return c.send(a)
}

// answer begins the answer to a PDU, which has its tag.
func (c *connection) answer(op byte, p pdu) *pdu {
	a := &pdu{}
	a.head[0], a.head[1] = op, 0x80
	copy(a.head[atTag:], p.head[atTag:atTransfer])
	c.number(a)
	return a
}

// number puts the numbers into a PDU that has one of its own.
func (c *connection) number(a *pdu) {
	c.window(a, c.status)
	c.status++
}

// window puts a StatSN into a PDU, and which commands may come.
func (c *connection) window(a *pdu, status uint32) {
	a.put(atCmdSN, status)
	a.put(atExpStat, c.expected)
	a.put(atMaxCmdSN, c.expected+31)
}

func (c *connection) send(p *pdu) error {
	_, err := c.to.Write(p.bytes())
	return err
}

// nop answers a NOP-Out that wants an answer, with its own data.
func (c *connection) nop(p pdu) error {
	if p.number(atTag) == noTag {
		return nil
	}
	a := c.answer(opNopIn, p)
	copy(a.head[atLUN:], p.head[atLUN:atTag])
	a.put(atTransfer, noTag)
	a.data = p.data[:min(len(p.data), c.terms.send)]
	return c.send(a)
}

// The functions of a request to manage tasks, and the answers (RFC 7143, 11.5.1, 11.6.1).
const (
	abortTask       = 1
	abortTaskSet    = 2
	clearTaskSet    = 4
	resetUnit       = 5
	resetTargetWarm = 6
	resetTargetCold = 7

	manageDone    = 0
	manageNoTask  = 1
	manageNoUnit  = 2
	manageUnknown = 5
	manageRefused = 255
)

// manage ends tasks and resets drives. Tasks that were ended are not answered.
func (c *connection) manage(p pdu) error {
	lun, answer := p.lun(), byte(manageDone)
	end := func(all bool) {
		for tag, t := range c.tasks {
			if all || t.lun == lun {
				delete(c.tasks, tag)
			}
		}
	}
	switch what := p.head[1] & 0x7f; what {
	case abortTask:
		if _, ok := c.tasks[p.number(atTransfer)]; !ok {
			answer = manageNoTask
		}
		delete(c.tasks, p.number(atTransfer))
	case abortTaskSet, clearTaskSet:
		end(false)
	case resetUnit, resetTargetWarm, resetTargetCold:
		end(what != resetUnit)
		if what == resetUnit && (lun < 0 || lun >= len(c.t.drives)) {
			answer = manageNoUnit
		} else if err := c.t.reset(lun, what != resetUnit); err != nil {
			answer = manageRefused
		}
	default:
		answer = manageUnknown
	}
	a := c.answer(opManageAnswer, p)
	a.head[2] = answer
	return c.send(a)
}
