package drive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Device is an open drive, as the protocols of this package need it: the ways to reach the drive, and what the machine knows of it. The
// real one is made by [Open]; a simulated one implements the same.
type Device interface {
	// NVMe sends an admin command and waits until the drive has completed it. The error says that there is no answer of the drive; a status
	// that is not success is no error. A device that is no NVMe drive returns an error that is errors.ErrUnsupported.
	NVMe(c NVMeCommand) (NVMeResult, error)
	// SCSI sends a command block and waits until the drive has completed it, likewise.
	SCSI(c SCSICommand) (SCSIResult, error)
	// MMC sends commands to an eMMC, with none of anybody else's between them, and waits until it has completed them, likewise. It returns
	// the card status of each (R1).
	MMC(cs ...MMCCommand) ([]uint32, error)
	// Reset resets the controller of an NVMe drive, or a SCSI device.
	Reset() error
	// State says what the machine knows of the device at this moment.
	State() (State, error)
}

// ErrTimeout says that a drive did not complete a command in time. The command may still be going on.
var ErrTimeout = errors.New("the drive did not answer in time")

// Direction is where the data of a command go.
type Direction int

// The directions of data.
const (
	NoData Direction = iota
	FromDrive
	ToDrive
)

// defaultTimeout is for commands that only ask.
const defaultTimeout = 30 * time.Second

// NVMeCommand is an admin command, by its fields (NVMe 4.1, Submission Queue Entry). Identifier and data pointer are put in by who sends
// it.
type NVMeCommand struct {
	Opcode  byte
	NSID    uint32
	CDW10   uint32
	CDW11   uint32
	CDW12   uint32
	CDW13   uint32
	CDW14   uint32
	CDW15   uint32
	Data    []byte        // to the drive where bit 0 of the opcode is set, else from it
	Timeout time.Duration // 0: half a minute
}

// Submission returns the 64 bytes of the submission queue entry, with zeros for identifier and pointers.
func (c NVMeCommand) Submission() [64]byte {
	var b [64]byte
	b[0] = c.Opcode
	binary.LittleEndian.PutUint32(b[4:], c.NSID)
	for i, w := range []uint32{c.CDW10, c.CDW11, c.CDW12, c.CDW13, c.CDW14, c.CDW15} {
		binary.LittleEndian.PutUint32(b[40+4*i:], w)
	}
	return b
}

// NVMeResult is what a completion says (NVMe 4.2, Completion Queue Entry).
type NVMeResult struct {
	// Status is the status field without the phase tag: code in bits 7:0, type in bits 10:8, do not retry in bit 14. 0 is success.
	Status uint16
	// Result is Dword 0.
	Result uint32
}

// StatusError is an NVMe command that a drive did not complete with success.
type StatusError struct {
	Opcode byte
	Status uint16
}

func (e StatusError) Error() string {
	return fmt.Sprintf("NVMe command %02Xh: status type %Xh, code %02Xh", e.Opcode, e.Status>>8&7, e.Status&0xff)
}

// SCSICommand is a command block with its data.
type SCSICommand struct {
	CDB       []byte
	Direction Direction
	Data      []byte
	Timeout   time.Duration // 0: half a minute
}

// SCSIResult is how a command ended.
type SCSIResult struct {
	// Status is the SCSI status (SAM, STATUS codes): 00h good, 02h check condition, 08h busy, 18h reservation conflict.
	Status byte
	// Sense is the sense data, empty unless there are some.
	Sense []byte
	// Residual is how much less data were transferred than asked for.
	Residual int
}

// The statuses that are told apart.
const (
	statusGood           = 0x00
	statusCheckCondition = 0x02
)

// SenseError is a SCSI command that a drive did not complete with good status.
type SenseError struct {
	Opcode byte
	Status byte
	Sense  Sense
}

func (e SenseError) Error() string {
	if e.Status != statusCheckCondition {
		return fmt.Sprintf("SCSI command %02Xh: status %02Xh", e.Opcode, e.Status)
	}
	return fmt.Sprintf("SCSI command %02Xh: %s", e.Opcode, e.Sense)
}

// MMCCommand is a command to an eMMC.
type MMCCommand struct {
	Index    uint32 // such as 38
	Argument uint32
	Data     []byte        // what comes from the drive
	Write    bool          // it changes something
	Busy     bool          // its response is R1b: the drive is busy until it has done it
	Timeout  time.Duration // of one that is Busy; 0: as the kernel has it
}

// frame returns the five bytes that go over the wire before the checksum (eMMC, command token).
func (c MMCCommand) frame() []byte {
	return binary.BigEndian.AppendUint32([]byte{0x40 | byte(c.Index)}, c.Argument)
}

// Exchange is one command that was sent, and what came back: for a record of what was done to a drive. Data are not part of it, since a
// password may be among them.
type Exchange struct {
	// Command is the submission queue entry (64 bytes), the command block, or index and argument of commands to an eMMC, five bytes each.
	Command []byte
	// Answer is the status: two bytes of an NVMe completion, big endian; the SCSI status, and the sense data behind it; four bytes of each
	// card status.
	Answer []byte
	// Err is why there is no answer.
	Err error
}

// observed is a device that tells somebody of each command.
type observed struct {
	Device
	tell func(Exchange)
}

func (o observed) NVMe(c NVMeCommand) (NVMeResult, error) {
	r, err := o.Device.NVMe(c)
	s := c.Submission()
	o.tell(Exchange{s[:], binary.BigEndian.AppendUint16(nil, r.Status), err})
	return r, err
}

func (o observed) SCSI(c SCSICommand) (SCSIResult, error) {
	r, err := o.Device.SCSI(c)
	o.tell(Exchange{append([]byte(nil), c.CDB...), append([]byte{r.Status}, r.Sense...), err})
	return r, err
}

func (o observed) MMC(cs ...MMCCommand) ([]uint32, error) {
	r, err := o.Device.MMC(cs...)
	e := Exchange{Err: err}
	for _, c := range cs {
		e.Command = append(e.Command, c.frame()...)
	}
	for _, s := range r {
		e.Answer = binary.BigEndian.AppendUint32(e.Answer, s)
	}
	o.tell(e)
	return r, err
}
