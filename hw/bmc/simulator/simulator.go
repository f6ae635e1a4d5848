// Package simulator is a management controller without hardware, at the level of its messages. What is wrong with it is data: Faults.
//
// It knows the commands that package bmc sends, and answers each other with "invalid command". What it keeps is there to look at. It has
// no port on a network: its Login compares what it was given.
package simulator

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"gprovision/hw/bmc"
)

// Accounts is how many users a controller has room for.
const Accounts = 10

// Faults are what is wrong with a controller.
type Faults struct {
	// Silent is the error that every command ends with, as where the driver gets no answer. It is nil for none.
	Silent error
	// NoLAN takes its port away.
	NoLAN bool
	// NoAddress leaves that port without an address.
	NoAddress bool
	// Unreachable lets nobody log in.
	Unreachable bool
	// RefusePassword refuses each new password.
	RefusePassword bool
	// Keep is how many bytes of a password it keeps. It is 0 for all.
	Keep int
	// Forget takes a new password, and keeps the old one.
	Forget bool
	// Full has no account left.
	Full bool
	// TestLies says yes to every test of a password.
	TestLies bool
	// NoTest does not know the test of a password.
	NoTest bool
	// Stubborn keeps accounts enabled.
	Stubborn bool
	// Busy is how many commands it refuses first, because it is busy.
	Busy int
	// Arrives is how many events come while its log is being cleared, each of which cancels the reservation.
	Arrives int
	// Erasing is how often it says that the clearing of its log goes on.
	Erasing int
	// NoInventory leaves it without an inventory.
	NoInventory bool
}

// Account is one user as the controller keeps it.
type Account struct {
	Name, Password string
	Enabled        bool
	// Access is the last byte of Get User Access: messaging and privilege.
	Access byte
}

// Controller is a controller without hardware.
type Controller struct {
	// Faults may be changed between commands.
	Faults Faults

	mu          sync.Mutex
	accounts    [Accounts + 1]Account // from 1
	log         []bmc.LogRecord
	next        int
	reservation byte
	polls       int
	restore     byte
	light       bool
	asked       []string
}

// New returns a controller as it comes from a factory: with a user ADMIN that has the password ADMIN, three events, and a power restore
// policy of "previous".
func New() *Controller {
	c := &Controller{restore: byte(bmc.AsBefore)}
	c.accounts[2] = Account{Name: "ADMIN", Password: "ADMIN", Enabled: true, Access: 0x34}
	for range 3 {
		c.event()
	}
	return c
}

// Clone returns another controller that is as this one.
func (c *Controller) Clone() *Controller {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &Controller{Faults: c.Faults, accounts: c.accounts, log: append([]bmc.LogRecord(nil), c.log...), next: c.next,
		reservation: c.reservation, polls: c.polls, restore: c.restore, light: c.light}
}

// event adds an event of the system. The caller holds the lock, or has the controller alone.
func (c *Controller) event() {
	c.next++
	c.log = append(c.log, bmc.LogRecord{byte(c.next), byte(c.next >> 8), 0x02, 0, 0, 0, 0x65, 0x20, 0, 0x04, 0x01, 0x30, 0x6f, 0xa1})
}

// What the simulated controller is.
const (
	Firmware = "1.71"
	MAC      = "02:00:5e:00:53:01"
)

// Address is the address of its port.
func Address() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, 9}) }

// Open returns the controller as its user has it.
func (c *Controller) Open() *bmc.Controller {
	return &bmc.Controller{Exchange: c.Exchange, Login: c.Login, Close: func() error { return nil }}
}

// Login takes a login of an account that may administer, at the controller's address.
func (c *Controller) Login(_ context.Context, address netip.Addr, user, password string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Faults.Unreachable || address != Address() {
		return bmc.ErrNoAnswer
	}
	for _, a := range c.accounts {
		if a.Name == user && a.Enabled && a.Access&0x1f == 0x14 && a.Password == password {
			return nil
		}
	}
	return bmc.ErrPassword
}

// Account returns the account with a name.
func (c *Controller) Account(name string) (Account, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.accounts[1:] {
		if a.Name == name {
			return a, true
		}
	}
	return Account{}, false
}

// Light reports whether the identify light is on.
func (c *Controller) Light() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.light
}

// Events is how many events the log has.
func (c *Controller) Events() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.log)
}

// Restore is the power restore policy.
func (c *Controller) Restore() bmc.Restore {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bmc.Restore(c.restore)
}

// Asked returns all commands so far, each as network function, command and data in hexadecimal. Passwords are left out.
func (c *Controller) Asked() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.asked...)
}

// Completion codes (table 5-2).
const (
	busy           = 0xc0
	invalidCommand = 0xc1
	cancelled      = 0xc5
	badLength      = 0xc7
	missing        = 0xcb
	invalidData    = 0xcc
	otherPassword  = 0x80
)

// Exchange answers a command.
func (c *Controller) Exchange(ctx context.Context, netFn, command byte, data []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if c.Faults.Silent != nil {
		return nil, c.Faults.Silent
	}
	shown := data
	if netFn == 0x06 && command == 0x47 && len(data) > 2 {
		shown = data[:2]
	}
	c.asked = append(c.asked, fmt.Sprintf("%02x %02x %x", netFn, command, shown))
	if c.Faults.Busy > 0 {
		c.Faults.Busy--
		return []byte{busy}, nil
	}
	answer, want := c.handler(netFn, command)
	switch {
	case answer == nil:
		return []byte{invalidCommand}, nil
	case len(data) < want:
		return []byte{badLength}, nil
	}
	return answer(data), nil
}

// handler returns what answers a command, and how many bytes of data that needs.
func (c *Controller) handler(netFn, command byte) (func([]byte) []byte, int) {
	switch int(netFn)<<8 | int(command) {
	case 0x0001:
		return func([]byte) []byte { return []byte{0, 1 | c.restore<<5, 0, 0x40} }, 0
	case 0x0004:
		return func(d []byte) []byte { c.light = d[0] > 0; return []byte{0} }, 1
	case 0x0006:
		return func(d []byte) []byte { c.restore = d[0]; return []byte{0, 7} }, 1
	case 0x0601:
		return func([]byte) []byte {
			return []byte{0, 0x20, 0x81, 0x01, 0x71, 0x02, 0xbf, 0x7c, 0x2a, 0, 0x01, 0x02, 0xde, 0xad, 0xbe, 0xef}
		}, 0
	case 0x0608:
		return func([]byte) []byte { return append([]byte{0}, "a controller's I"...) }, 0
	case 0x0641:
		return func(d []byte) []byte { return []byte{0, 0x02, 0x04} }, 2
	case 0x0642:
		return c.channel, 1
	case 0x0643:
		return c.setAccess, 3
	case 0x0644:
		return c.access, 2
	case 0x0645:
		return c.setName, 17
	case 0x0646:
		return c.name, 1
	case 0x0647:
		return c.password, 2
	case 0x0a10:
		return func([]byte) []byte { return c.inventory([]byte{0, byte(len(fru())), 0, 0}) }, 1
	case 0x0a11:
		return c.readInventory, 4
	case 0x0a40:
		return func([]byte) []byte { return append([]byte{0, 0x51, byte(len(c.log)), 0}, make([]byte, 11)...) }, 0
	case 0x0a42:
		return func([]byte) []byte { c.reservation++; c.polls = c.Faults.Erasing; return []byte{0, c.reservation, 0} }, 0
	case 0x0a43:
		return c.entry, 6
	case 0x0a47:
		return c.clear, 6
	case 0x0c02:
		return c.lan, 4
	}
	return nil, 0
}

func (c *Controller) channel(d []byte) []byte {
	if d[0] != 1 || c.Faults.NoLAN {
		return []byte{missing}
	}
	return []byte{0, 1, 4, 1, 0x80, 0xf2, 0x1b, 0, 0, 0}
}

func (c *Controller) lan(d []byte) []byte {
	value := map[byte][]byte{3: {192, 0, 2, 9}, 4: {2}, 5: {0x02, 0, 0x5e, 0, 0x53, 1}, 6: {255, 255, 255, 0}, 12: {192, 0, 2, 1},
		20: {0x2a, 0x80}}[d[1]]
	if c.Faults.NoAddress && d[1] == 3 {
		value = make([]byte, 4)
	}
	if d[0] != 1 || value == nil {
		return []byte{otherPassword} // parameter not supported
	}
	return append([]byte{0, 0x11}, value...)
}

// account returns the account with a number, or nil. A controller that is full has a user in each.
func (c *Controller) account(id byte) *Account {
	id &= 0x3f
	if id < 1 || id > Accounts {
		return nil
	}
	if a := &c.accounts[id]; c.Faults.Full && id > 1 && a.Name == "" {
		*a = Account{Name: fmt.Sprintf("user%d", id), Enabled: true, Access: 0x34}
	}
	return &c.accounts[id]
}

func (c *Controller) access(d []byte) []byte {
	a := c.account(d[1])
	if a == nil || d[0] != 1 {
		return []byte{invalidData}
	}
	status := byte(0x80)
	if a.Enabled {
		status = 0x40
	}
	return []byte{0, Accounts, status | 1, 1, a.Access}
}

func (c *Controller) setAccess(d []byte) []byte {
	a := c.account(d[1])
	if a == nil || d[0]&0x0f != 1 {
		return []byte{invalidData}
	}
	if d[0]&0x80 != 0 {
		a.Access = d[0] & 0x70
	}
	a.Access = a.Access&0xf0 | d[2]&0x0f
	return []byte{0}
}

func (c *Controller) name(d []byte) []byte {
	a := c.account(d[0])
	if a == nil {
		return []byte{invalidData}
	}
	return append([]byte{0}, append([]byte(a.Name), make([]byte, bmc.MaxName-len(a.Name))...)...)
}

func (c *Controller) setName(d []byte) []byte {
	a, name := c.account(d[0]), strings.TrimRight(string(d[1:]), "\x00")
	if a == nil || d[0] == 1 || a.Name == name {
		return []byte{invalidData}
	}
	a.Name = name
	return []byte{0}
}

func (c *Controller) password(d []byte) []byte {
	a, size := c.account(d[0]), bmc.ShortPassword
	if d[0]&0x80 != 0 {
		size = bmc.LongPassword
	}
	if a == nil || d[1] > 3 {
		return []byte{invalidData}
	}
	if d[1] < 2 { // disable, enable
		if !c.Faults.Stubborn {
			a.Enabled = d[1] == 1
		}
		return []byte{0}
	}
	if len(d) < 2+size {
		return []byte{badLength}
	}
	password := strings.TrimRight(string(d[2:2+size]), "\x00")
	if n := c.Faults.Keep; n > 0 && n < len(password) {
		password = password[:n]
	}
	switch {
	case d[1] == 2 && c.Faults.RefusePassword:
		return []byte{invalidData}
	case d[1] == 2 && c.Faults.Forget:
	case d[1] == 2:
		a.Password = password
	case c.Faults.NoTest:
		return []byte{invalidData}
	case !c.Faults.TestLies && a.Password != password:
		return []byte{otherPassword}
	}
	return []byte{0}
}

func (c *Controller) inventory(answer []byte) []byte {
	if c.Faults.NoInventory {
		return []byte{missing}
	}
	return answer
}

func (c *Controller) readInventory(d []byte) []byte {
	at, n, all := int(d[1])|int(d[2])<<8, int(d[3]), fru()
	if n > 8 {
		return []byte{0xca} // more than it returns at once
	}
	if at >= len(all) {
		return []byte{0xc9}
	}
	part := all[at:min(at+n, len(all))]
	return c.inventory(append([]byte{0, byte(len(part))}, part...))
}

// fru is the inventory of a board and a product.
func fru() []byte {
	area := func(head []byte, texts ...string) []byte {
		b := append([]byte{1, 0}, head...)
		for _, t := range texts {
			b = append(append(b, 0xc0|byte(len(t))), t...)
		}
		b = append(b, 0xc1)
		for len(b)%8 != 7 {
			b = append(b, 0)
		}
		b[1] = byte(len(b)+1) / 8
		return closed(b)
	}
	board := area([]byte{0x19, 0, 0, 0}, "ACME", "Board 7", "B-0001", "P-7")
	product := area([]byte{0x19}, "ACME", "Widget", "W-1", "rev 2", "S-0001")
	head := closed([]byte{1, 0, 0, 1, 1 + byte(len(board)/8), 0, 0})
	return append(append(head, board...), product...)
}

// closed returns b with the byte that makes its sum 0.
func closed(b []byte) []byte {
	var s byte
	for _, x := range b {
		s -= x
	}
	return append(b, s)
}

func (c *Controller) entry(d []byte) []byte {
	id, i := int(d[2])|int(d[3])<<8, 0
	for id != 0 && i < len(c.log) && int(c.log[i][0])|int(c.log[i][1])<<8 != id {
		i++
	}
	if i >= len(c.log) {
		return []byte{missing}
	}
	after := []byte{0xff, 0xff}
	if i+1 < len(c.log) {
		after = c.log[i+1][:2]
	}
	return append(append([]byte{0}, after...), c.log[i][:]...)
}

func (c *Controller) clear(d []byte) []byte {
	if c.Faults.Arrives > 0 {
		c.Faults.Arrives--
		c.event()
		c.reservation++
	}
	switch {
	case d[0] != c.reservation || d[1] != 0:
		return []byte{cancelled}
	case string(d[2:5]) != "CLR":
		return []byte{invalidData}
	case c.polls > 0:
		c.polls--
		return []byte{0, 0}
	}
	c.log = nil
	return []byte{0, 1}
}
