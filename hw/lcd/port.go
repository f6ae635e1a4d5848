package lcd

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"go.bug.st/serial"
	"golang.org/x/sys/unix"
)

// ErrInUse is returned for a port that another process drives.
var ErrInUse = errors.New("another process uses the port")

// Port is a serial port with the line settings of the LCDs: 115200 baud, 8 bits, no parity, no flow control, and no other meaning
// to any byte. Close ends a Read that waits.
type Port struct {
	serial.Port
	lock *os.File
	once sync.Once
}

// OpenPort opens a device such as "/dev/ttyACM0" and locks it (flock) against others that do so too; if one has it, the error is
// ErrInUse. It does not become the controlling terminal, and a modem line is not waited for. Close it.
func OpenPort(device string) (*Port, error) {
	lock, err := os.OpenFile(device, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EBUSY) { // TIOCEXCL, which root overrides
		err = fmt.Errorf("%w: %w", ErrInUse, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open port of LCD: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, fmt.Errorf("lock %s: %w", device, err)
	}
	p, err := serial.Open(device, &serial.Mode{BaudRate: 115200, DataBits: 8, Parity: serial.NoParity, StopBits: serial.OneStopBit})
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("open %s: %w", device, err)
	}
	// What is left of earlier talk would be damage to the first packets.
	if err := errors.Join(p.ResetInputBuffer(), p.ResetOutputBuffer()); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", device, err), p.Close(), lock.Close())
	}
	return &Port{Port: p, lock: lock}, nil
}

// Close closes the port and gives the lock up.
func (p *Port) Close() error {
	err := error(nil)
	p.once.Do(func() { err = errors.Join(p.Port.Close(), p.lock.Close()) })
	return err
}
