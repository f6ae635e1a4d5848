package erasure

import (
	"fmt"
	"strconv"
)

// Count is a number that may be above 2^53: in JSON it is always a string of decimal digits, so that no reader of numbers rounds it.
type Count uint64

// MarshalText returns the digits.
func (c Count) MarshalText() ([]byte, error) { return strconv.AppendUint(nil, uint64(c), 10), nil }

// UnmarshalText reads the digits as MarshalText writes them, without a sign, zeros in front or anything else.
func (c *Count) UnmarshalText(b []byte) error {
	n, err := strconv.ParseUint(string(b), 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != string(b) {
		return fmt.Errorf("number %.40q, want decimal digits", b)
	}
	*c = Count(n)
	return nil
}
