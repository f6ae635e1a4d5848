package bmc

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Commands about inventories (sections 34.1 and 34.2).
var (
	getFRUInfo = command{"Get FRU Inventory Area Info", netStorage, 0x10}
	readFRU    = command{"Read FRU Data", netStorage, 0x11}
)

// Inventory is what the maker wrote into the machine about board and product (Platform Management FRU Information Storage Definition
// v1.0, revision 1.3). What it does not have is "".
type Inventory struct {
	BoardMaker, BoardName, BoardSerial, BoardPart                         string
	ProductMaker, ProductName, ProductPart, ProductVersion, ProductSerial string
}

// ErrNoInventory means that a controller has no inventory, or an empty one.
var ErrNoInventory = errors.New("the management controller has no inventory")

// Inventory reads the controller's own inventory (device 0).
func (c *Controller) Inventory(ctx context.Context) (Inventory, error) {
	info, err := c.do(ctx, getFRUInfo, 3, 0)
	if refused(err, codeInvalidCommand, codeMissing) {
		return Inventory{}, fmt.Errorf("%w: %w", ErrNoInventory, err)
	}
	if err != nil {
		return Inventory{}, err
	}
	size, unit := int(info[0])|int(info[1])<<8, 1
	if info[2]&1 != 0 { // it counts words
		unit = 2
	}
	var data []byte
	const most = 4096 // larger ones hold other areas behind those of board and product
	for step := byte(16); len(data) < min(size*unit, most); {
		at := len(data) / unit
		r, err := c.do(ctx, readFRU, 1, 0, byte(at), byte(at>>8), min(step, byte(min(size-at, 255))))
		if refused(err, codeLength, codeTooMuch, codeTooLong) && step > 2 {
			step /= 2
			continue
		}
		if err != nil {
			return Inventory{}, err
		}
		n := min(int(r[0])*unit, len(r)-1)
		if n == 0 {
			break
		}
		data = append(data, r[1:1+n]...)
	}
	return ParseInventory(data)
}

// ParseInventory reads an inventory.
func ParseInventory(b []byte) (Inventory, error) {
	var i Inventory
	if len(b) < 8 || b[0]&0x0f != 1 {
		return i, ErrNoInventory
	}
	if sum(b[:8]) != 0 {
		return i, errors.New("the inventory of the management controller is damaged: the sum of its header is wrong")
	}
	for _, a := range []struct {
		name     string
		at, skip int
		fields   []*string
	}{
		{"board", int(b[3]) * 8, 6, []*string{&i.BoardMaker, &i.BoardName, &i.BoardSerial, &i.BoardPart}},
		{"product", int(b[4]) * 8, 3, []*string{&i.ProductMaker, &i.ProductName, &i.ProductPart, &i.ProductVersion, &i.ProductSerial}},
	} {
		if a.at == 0 {
			continue
		}
		area, err := areaOf(b, a.at)
		if err != nil {
			return i, fmt.Errorf("the inventory of the management controller is damaged: area of the %s: %w", a.name, err)
		}
		fields(area[a.skip:], a.fields)
	}
	return i, nil
}

// areaOf returns the area at an offset, with the header that board and product have.
func areaOf(b []byte, at int) ([]byte, error) {
	if at+8 > len(b) {
		return nil, errors.New("it lies behind the end")
	}
	n := int(b[at+1]) * 8
	if n < 8 || at+n > len(b) {
		return nil, errors.New("it reaches behind the end")
	}
	if b[at]&0x0f != 1 || sum(b[at:at+n]) != 0 {
		return nil, errors.New("its version or its sum is wrong")
	}
	return b[at : at+n], nil
}

// fields reads the fields of an area, each behind its type and length (section 13 of the FRU definition).
func fields(b []byte, to []*string) {
	for _, f := range to {
		const end = 0xc1
		if len(b) == 0 || b[0] == end {
			return
		}
		n := int(b[0] & 0x3f)
		if 1+n > len(b) {
			return
		}
		*f = strings.TrimSpace(fieldText(b[0]>>6, b[1:1+n]))
		b = b[1+n:]
	}
}

// fieldText decodes a field of one of the four types. Bytes that no text has become question marks.
func fieldText(kind byte, b []byte) string {
	var out strings.Builder
	switch kind {
	case 0: // binary
		fmt.Fprintf(&out, "%x", b)
	case 1: // BCD plus
		for _, c := range b {
			out.WriteByte("0123456789 -.???"[c>>4])
			out.WriteByte("0123456789 -.???"[c&0x0f])
		}
	case 2: // six bits each, packed from the lowest
		bits, n := 0, 0
		for _, c := range b {
			bits |= int(c) << n
			for n += 8; n >= 6; n -= 6 {
				out.WriteByte(byte(bits&0x3f) + ' ')
				bits >>= 6
			}
		}
	default:
		for _, c := range b {
			if c == 0 {
				break
			}
			if c < ' ' || c > '~' {
				c = '?'
			}
			out.WriteByte(c)
		}
	}
	return out.String()
}

func sum(b []byte) (s byte) {
	for _, c := range b {
		s += c
	}
	return s
}
