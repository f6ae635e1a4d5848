// Package bmc speaks to a machine's management controller (BMC) with messages of IPMI 2.0: through the kernel's device from inside of
// the machine, and over the network as far as a login goes.
//
// It knows the messages and nothing else: which account gets which password is the business of who calls. A password is in no error and
// in no text of this package. Sections and tables are those of the Intelligent Platform Management Interface Specification Second
// Generation v2.0, revision 1.1.
package bmc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// ErrNone is the error of a machine without a management controller.
var ErrNone = errors.New("this machine has no management controller")

// Exchange sends a request to a controller and returns the response, whose first byte is the completion code. It returns an error only
// where no response came.
type Exchange func(ctx context.Context, netFn, command byte, data []byte) ([]byte, error)

// Controller is a management controller. One caller at a time uses it.
type Controller struct {
	// Exchange is how messages reach it.
	Exchange Exchange
	// Login logs in to it over the network as an administrator. Login of this package does so for a real one.
	Login func(ctx context.Context, address netip.Addr, user, password string) error
	// Close lets it go.
	Close func() error
}

// Refusal is the answer of a controller that does not do what it was asked for.
type Refusal struct {
	// Command is the name of the command in the specification.
	Command string
	// Code is the completion code (table 5-2).
	Code byte
}

func (r *Refusal) Error() string {
	what := ""
	switch r.Code {
	case codeBusy:
		what = ", node busy"
	case codeInvalidCommand:
		what = ", invalid command"
	case codeTimeout:
		what = ", timeout"
	case codeCancelled:
		what = ", reservation cancelled"
	case codeMissing:
		what = ", not present"
	case codeInvalidData:
		what = ", invalid data field"
	case codePrivilege:
		what = ", insufficient privilege"
	case codeState:
		what = ", not supported in the present state"
	}
	return fmt.Sprintf("the management controller refuses %s: completion code 0x%02x%s", r.Command, r.Code, what)
}

// Completion codes (table 5-2), and those of Test Password (section 22.30).
const (
	codeBusy           = 0xc0
	codeInvalidCommand = 0xc1
	codeTimeout        = 0xc3
	codeCancelled      = 0xc5
	codeLength         = 0xc7
	codeTooMuch        = 0xc8
	codeTooLong        = 0xca
	codeMissing        = 0xcb
	codeInvalidData    = 0xcc
	codePrivilege      = 0xd4
	codeState          = 0xd5
	codeOtherPassword  = 0x80
	codeOtherSize      = 0x81
)

// refused reports whether err is a controller's refusal with one of the codes.
func refused(err error, codes ...byte) bool {
	var r *Refusal
	if !errors.As(err, &r) {
		return false
	}
	for _, c := range codes {
		if r.Code == c {
			return true
		}
	}
	return false
}

// command is one command of the specification (appendix G).
type command struct {
	name      string
	netFn, id byte
}

// How long a controller that is busy is asked again.
const (
	busyTries = 10
	busyPause = 200 * time.Millisecond
)

// do sends a command and returns the response behind its completion code, which has at least want bytes.
func (c *Controller) do(ctx context.Context, cmd command, want int, data ...byte) ([]byte, error) {
	for try := 1; ; try++ {
		r, err := c.Exchange(ctx, cmd.netFn, cmd.id, data)
		switch {
		case err != nil:
			return nil, fmt.Errorf("ask the management controller for %s: %w", cmd.name, err)
		case len(r) == 0:
			return nil, fmt.Errorf("ask the management controller for %s: the response is empty", cmd.name)
		case r[0] == codeBusy && try < busyTries:
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(busyPause):
			}
			continue
		case r[0] != 0:
			return nil, &Refusal{cmd.name, r[0]}
		case len(r)-1 < want:
			return nil, fmt.Errorf("ask the management controller for %s: the response has %d bytes, want %d", cmd.name, len(r)-1, want)
		}
		return r[1:], nil
	}
}

// Commands of the whole controller (sections 20, 22 and 28).
var (
	getDeviceID      = command{"Get Device ID", netApp, 0x01}
	getDeviceGUID    = command{"Get Device GUID", netApp, 0x08}
	getChassisStatus = command{"Get Chassis Status", netChassis, 0x01}
	chassisIdentify  = command{"Chassis Identify", netChassis, 0x04}
	setPowerRestore  = command{"Set Power Restore Policy", netChassis, 0x06}
	getChannelInfo   = command{"Get Channel Info", netApp, 0x42}
	getChannelAccess = command{"Get Channel Access", netApp, 0x41}
	getLANConfig     = command{"Get LAN Configuration Parameters", netTransport, 0x02}
)

// Network functions of requests (table 5-1).
const (
	netChassis   = 0x00
	netApp       = 0x06
	netStorage   = 0x0a
	netTransport = 0x0c
)

// Device says what a controller is.
type Device struct {
	// Firmware is its version as ipmitool prints it, such as "1.71", and Aux what the maker adds to that, in hexadecimal, or "".
	Firmware, Aux string
	// IPMI is the version of the interface, such as "2.0".
	IPMI string
	// Manufacturer is the maker's number (IANA enterprise number), and Product the maker's own.
	Manufacturer, Product int
	// Updating reports whether it is in the middle of an update of its firmware.
	Updating bool
	// GUID is its own identifier in hexadecimal as it was sent, or "".
	GUID string
}

// Device asks for what the controller is (sections 20.1 and 20.8).
func (c *Controller) Device(ctx context.Context) (Device, error) {
	r, err := c.do(ctx, getDeviceID, 11)
	if err != nil {
		return Device{}, err
	}
	d := Device{
		Firmware: fmt.Sprintf("%d.%02x", r[2]&0x7f, r[3]), Updating: r[2]&0x80 != 0, IPMI: fmt.Sprintf("%d.%d", r[4]&0x0f, r[4]>>4),
		Manufacturer: int(r[6]) | int(r[7])<<8 | int(r[8]&0x0f)<<16, Product: int(r[9]) | int(r[10])<<8,
	}
	if len(r) >= 15 {
		d.Aux = fmt.Sprintf("%x", r[11:15])
	}
	switch g, err := c.do(ctx, getDeviceGUID, 16); {
	case err == nil:
		d.GUID = fmt.Sprintf("%x", g[:16])
	case !isRefusal(err):
		return d, err
	}
	return d, nil
}

func isRefusal(err error) bool {
	var r *Refusal
	return errors.As(err, &r)
}

// Restore is what a machine does when its power comes back.
type Restore byte

// The policies of Set Power Restore Policy (section 28.8).
const (
	StayOff  Restore = 0
	AsBefore Restore = 1
	TurnOn   Restore = 2
	Unknown  Restore = 3
)

func (p Restore) String() string {
	switch p {
	case StayOff:
		return "always-off"
	case AsBefore:
		return "previous"
	case TurnOn:
		return "always-on"
	default:
		return "unknown"
	}
}

// PowerRestore asks for what the machine does when its power comes back (section 28.2).
func (c *Controller) PowerRestore(ctx context.Context) (Restore, error) {
	r, err := c.do(ctx, getChassisStatus, 3)
	if err != nil {
		return Unknown, err
	}
	return Restore(r[0] >> 5 & 3), nil
}

// SetPowerRestore sets it, and reads it again.
func (c *Controller) SetPowerRestore(ctx context.Context, p Restore) error {
	if _, err := c.do(ctx, setPowerRestore, 1, byte(p)); err != nil {
		return err
	}
	switch got, err := c.PowerRestore(ctx); {
	case err != nil:
		return err
	case got != p:
		return fmt.Errorf("the power restore policy is %s after it was set to %s", got, p)
	}
	return nil
}

// LongestLight is how long the identify light stays on at most.
const LongestLight = 255 * time.Second

// Identify lights the identify light for a while, or puts it out with 0 (section 28.5).
func (c *Controller) Identify(ctx context.Context, d time.Duration) error {
	_, err := c.do(ctx, chassisIdentify, 0, byte(min(d, LongestLight).Seconds()))
	return err
}

// LAN is a controller's port on a network. An address that is not set is the zero value.
type LAN struct {
	// Channel is its number.
	Channel byte
	// MAC is its hardware address, in lower case with colons, or "".
	MAC string
	// Address, Mask and Gateway are those of IPv4.
	Address, Mask, Gateway netip.Addr
	// Source is where the address comes from: "static", "dhcp", "bios", "other" or "unknown".
	Source string
	// VLAN is the tag of its frames. It is 0 for none.
	VLAN int
	// Access is when the port takes sessions: "disabled", "pre-boot", "always", "shared" or "unknown".
	Access string
}

// LANs returns the controller's ports on networks (sections 22.24, 22.23 and 23.2). Channels that do not answer are none.
func (c *Controller) LANs(ctx context.Context) ([]LAN, error) {
	var out []LAN
	for n := byte(1); n <= 0x0b; n++ { // table 6-1: the channels whose medium differs between machines
		r, err := c.do(ctx, getChannelInfo, 2, n)
		if isRefusal(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		const lan8023 = 4 // table 6-3
		if r[1]&0x7f != lan8023 || r[0]&0x0f != n {
			continue
		}
		l, err := c.readLAN(ctx, n)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// readLAN reads the configuration of one port (table 23-4). What the controller refuses stays empty.
func (c *Controller) readLAN(ctx context.Context, channel byte) (LAN, error) {
	l := LAN{Channel: channel, Source: "unknown", Access: "unknown"}
	address := func(to *netip.Addr) func([]byte) {
		return func(b []byte) {
			if a := netip.AddrFrom4([4]byte(b)); !a.IsUnspecified() {
				*to = a
			}
		}
	}
	for _, p := range []struct {
		parameter byte
		size      int
		take      func([]byte)
	}{
		{3, 4, address(&l.Address)}, {6, 4, address(&l.Mask)}, {12, 4, address(&l.Gateway)},
		{4, 1, func(b []byte) { l.Source = word(b[0]&0x0f, "unknown", "static", "dhcp", "bios", "other") }},
		{5, 6, func(b []byte) {
			if mac := net.HardwareAddr(b).String(); mac != "00:00:00:00:00:00" {
				l.MAC = mac
			}
		}},
		{20, 2, func(b []byte) {
			if b[1]&0x80 != 0 {
				l.VLAN = int(b[0]) | int(b[1]&0x0f)<<8
			}
		}},
	} {
		r, err := c.do(ctx, getLANConfig, 1+p.size, channel, p.parameter, 0, 0)
		if isRefusal(err) {
			continue
		}
		if err != nil {
			return l, err
		}
		p.take(r[1 : 1+p.size])
	}
	const present = 0x80 // of the two settings, stored and present
	r, err := c.do(ctx, getChannelAccess, 2, channel, present)
	if err == nil {
		l.Access = word(r[0]&0x07, "disabled", "pre-boot", "always", "shared")
	} else if !isRefusal(err) {
		return l, err
	}
	return l, nil
}

// word returns the word with a number, or "unknown".
func word(n byte, words ...string) string {
	if int(n) < len(words) {
		return words[n]
	}
	return "unknown"
}
