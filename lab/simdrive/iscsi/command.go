package iscsi

import (
	"errors"
	"fmt"

	"gprovision/hw/drive"
)

// maxLength is the most that a command may move, bytes.
const maxLength = 16 << 20

// command begins a command. One whose data are there is carried out.
func (c *connection) command(p pdu) error {
	t := &task{tag: p.number(atTag), lun: p.lun(), unit: [8]byte(p.head[atLUN:atTag])}
	t.command.CDB = append([]byte(nil), p.head[32:48]...)
	length := p.number(atTransfer)
	read, write := p.head[1]&0x40 != 0, p.head[1]&0x20 != 0
	switch {
	case c.tasks[t.tag] != nil:
		return fmt.Errorf("command %02Xh: there is a task with the tag %08Xh", t.command.CDB[0], t.tag)
	case read && write, !p.final(), length > maxLength:
		return fmt.Errorf("command %02Xh: data both ways, unasked, or more than %d bytes", t.command.CDB[0], maxLength)
	case len(p.data) > 0 && (!write || !c.terms.immediate || len(p.data) > min(c.terms.first, int(length))):
		return fmt.Errorf("command %02Xh: %d bytes of data come with it", t.command.CDB[0], len(p.data))
	case read:
		t.command.Direction = drive.FromDrive
	case write:
		t.command.Direction = drive.ToDrive
	}
	if read || write {
		t.command.Data = make([]byte, length)
	}
	t.have = copy(t.command.Data, p.data)
	if write && t.have < len(t.command.Data) {
		c.tasks[t.tag] = t
		return c.ask(t)
	}
	return c.carryOut(t)
}

// ask asks for the next data of a task.
func (c *connection) ask(t *task) error {
	c.transfer++
	t.ask, t.round = c.transfer, min(len(t.command.Data), t.have+c.terms.burst)
	a := &pdu{}
	a.head[0], a.head[1] = opReadyToMove, 0x80
	a.put(atTag, t.tag)
	a.put(atTransfer, t.ask)
	c.window(a, c.status)
	a.put(atDataSN, t.sent)
	a.put(atOffset, uint32(t.have))
	a.put(atLength, uint32(t.round-t.have))
	copy(a.head[atLUN:], t.unit[:])
	t.sent++
	return c.send(a)
}

// more takes data to a drive.
func (c *connection) more(p pdu) error {
	t := c.tasks[p.number(atTag)]
	if t == nil { // it was aborted meanwhile
		return nil
	}
	end := t.have + len(p.data)
	if p.number(atTransfer) != t.ask || p.number(atOffset) != uint32(t.have) || end > t.round || p.final() != (end == t.round) {
		return fmt.Errorf("command %02Xh: data of another place than was asked for", t.command.CDB[0])
	}
	t.have += copy(t.command.Data[t.have:], p.data)
	switch {
	case end < t.round:
		return nil
	case end < len(t.command.Data):
		return c.ask(t)
	}
	delete(c.tasks, t.tag)
	return c.carryOut(t)
}

// carryOut has the drive carry out a command, and answers. A drive that does not answer leaves the task as it is, until the initiator
// aborts it.
func (c *connection) carryOut(t *task) error {
	r, err := c.t.run(t.lun, t.command)
	switch {
	case errors.Is(err, drive.ErrTimeout):
		c.tasks[t.tag] = t
		return nil
	case err != nil:
		return fmt.Errorf("command %02Xh: %w", t.command.CDB[0], err)
	}
	if t.command.Direction == drive.FromDrive {
		if err := c.deliver(t, t.command.Data[:len(t.command.Data)-min(max(0, r.Residual), len(t.command.Data))]); err != nil {
			return err
		}
	}
	a := &pdu{}
	a.head[0], a.head[1], a.head[3] = opResponse, 0x80, r.Status
	switch {
	case r.Residual > 0: // underflow
		a.head[1] |= 0x02
		a.put(atLength, uint32(r.Residual))
	case r.Residual < 0: // overflow
		a.head[1] |= 0x04
		a.put(atLength, uint32(-r.Residual))
	}
	a.put(atTag, t.tag)
	c.number(a)
	a.put(atDataSN, t.sent)
	if len(r.Sense) > 0 {
		a.data = append([]byte{byte(len(r.Sense) >> 8), byte(len(r.Sense))}, r.Sense...)
	}
	return c.send(a)
}

// deliver sends what came from a drive, in sequences of at most a burst.
func (c *connection) deliver(t *task, data []byte) error {
	for off := 0; off < len(data); {
		left := c.terms.burst - off%c.terms.burst
		n := min(len(data)-off, c.terms.send, left)
		a := &pdu{data: data[off : off+n]}
		a.head[0] = opDataIn
		if n == left || off+n == len(data) {
			a.head[1] = 0x80
		}
		a.put(atTag, t.tag)
		a.put(atTransfer, noTag)
		c.window(a, 0)
		a.put(atDataSN, t.sent)
		a.put(atOffset, uint32(off))
		t.sent++
		off += n
		if err := c.send(a); err != nil {
			return err
		}
	}
	return nil
}
