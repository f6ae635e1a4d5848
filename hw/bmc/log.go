package bmc

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Commands about the system event log (sections 31.2 to 31.9).
var (
	getSELInfo  = command{"Get SEL Info", netStorage, 0x40}
	reserveSEL  = command{"Reserve SEL", netStorage, 0x42}
	getSELEntry = command{"Get SEL Entry", netStorage, 0x43}
	clearSEL    = command{"Clear SEL", netStorage, 0x47}
)

// LogRecord is one record of the system event log as it is stored (table 32-1): its number in the first two bytes, its type in the third;
// for an event of the system the time as seconds since 1970 in the four behind it.
type LogRecord [16]byte

// String returns the number, the time where the record has one, and all bytes in hexadecimal.
func (r LogRecord) String() string {
	when := ""
	const system, oem = 0x02, 0xdf // types up to the last of the maker's own that have a time
	if r[2] == system || r[2] >= 0xc0 && r[2] <= oem {
		when = " " + time.Unix(int64(r[3])|int64(r[4])<<8|int64(r[5])<<16|int64(r[6])<<24, 0).UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%d%s %x", int(r[0])|int(r[1])<<8, when, r[:])
}

// Log reads the system event log, at most so many records, and returns how many it has.
func (c *Controller) Log(ctx context.Context, most int) (records []LogRecord, count int, err error) {
	info, err := c.do(ctx, getSELInfo, 14)
	if err != nil {
		return nil, 0, err
	}
	count = int(info[1]) | int(info[2])<<8
	const first, last = 0x0000, 0xffff
	for next := first; count > 0 && next != last && len(records) < most; {
		// Without a reservation: the whole record is read at once.
		r, err := c.do(ctx, getSELEntry, 18, 0, 0, byte(next), byte(next>>8), 0, 0xff)
		if refused(err, codeMissing) && next == first { // it became empty
			break
		}
		if err != nil {
			return records, count, err
		}
		before := next
		next = int(r[0]) | int(r[1])<<8
		records = append(records, LogRecord(r[2:18]))
		if next == before {
			return records, count, errors.New("the management controller's event log goes in a circle")
		}
	}
	return records, count, nil
}

// How long the clearing of a log may take.
const (
	clearTries = 5
	clearPolls = 150
	clearPause = 200 * time.Millisecond
)

// ClearLog clears the system event log, and waits until that is done. An event that comes in between cancels the reservation, and then it
// begins anew.
func (c *Controller) ClearLog(ctx context.Context) error {
	const initiate, status, complete = 0xaa, 0x00, 1
	for try := 1; ; try++ {
		id, err := c.do(ctx, reserveSEL, 2)
		if refused(err, codeInvalidCommand) { // it has no reservations
			id, err = []byte{0, 0}, nil
		}
		if err != nil {
			return err
		}
		request := []byte{id[0], id[1], 'C', 'L', 'R', initiate}
		for polls := 0; ; polls++ {
			var r []byte
			if r, err = c.do(ctx, clearSEL, 1, request...); err != nil {
				break
			}
			if r[0]&0x0f == complete {
				return nil
			}
			if polls == clearPolls {
				return errors.New("the management controller does not end to clear its event log")
			}
			request[5] = status
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(clearPause):
			}
		}
		if try == clearTries || !refused(err, codeCancelled) {
			return err
		}
	}
}
