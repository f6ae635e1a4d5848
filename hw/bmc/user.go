package bmc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// The sizes of a password (section 22.30) and of a name (section 22.28), bytes. Not every controller takes the long password.
const (
	ShortPassword = 16
	LongPassword  = 20
	MaxName       = 16
)

// ErrFull means that there is no account left for another user.
var ErrFull = errors.New("the management controller has no free account")

// ErrPassword means that a controller does not have the password that it was given.
var ErrPassword = errors.New("the management controller does not have the password that it was given")

// ErrNoProof means that a controller says yes to a wrong password too: it says so to all, or it has cut the right one short.
var ErrNoProof = errors.New("the management controller does not tell a right password from a wrong one")

// ErrNoTest means that a controller cannot be asked whether it has a password.
var ErrNoTest = errors.New("the management controller cannot test a password")

// Commands about users (sections 22.26 to 22.30).
var (
	setUserAccess   = command{"Set User Access", netApp, 0x43}
	getUserAccess   = command{"Get User Access", netApp, 0x44}
	setUserName     = command{"Set User Name", netApp, 0x45}
	getUserName     = command{"Get User Name", netApp, 0x46}
	setUserPassword = command{"Set User Password", netApp, 0x47}
	testPassword    = command{"Test Password", netApp, 0x47}
)

// The privileges that matter here (section 6.8).
const (
	callback      = 1
	administrator = 4
	noAccess      = 15
)

// privilege returns the word for a privilege.
func privilege(n byte) string {
	if n == noAccess {
		return "none"
	}
	return word(n, "unknown", "callback", "user", "operator", Administrator, "oem")
}

// Administrator is the privilege of a user who may do everything.
const Administrator = "administrator"

// User is an account of a controller, as one channel has it.
type User struct {
	// ID is its number, from 1. The first one may have no name, and nobody can give it one.
	ID byte
	// Name is its name, or "".
	Name string
	// Enabled reports whether it can be used. A controller that does not say so has it enabled if it has a privilege.
	Enabled bool
	// Messaging reports whether it may send commands over this channel.
	Messaging bool
	// Fixed reports whether its name cannot be changed.
	Fixed bool
	// Privilege is its limit on this channel: "callback", "user", "operator", Administrator, "oem", "none" or "unknown".
	Privilege string
}

// Users returns all accounts as a channel has them.
func (c *Controller) Users(ctx context.Context, channel byte) ([]User, error) {
	var out []User
	for id, most := byte(1), byte(1); id <= most; id++ {
		r, err := c.do(ctx, getUserAccess, 4, channel, id)
		if refused(err, codeMissing, codeInvalidData) && id > 1 { // some say more accounts than they have
			break
		}
		if err != nil {
			return nil, err
		}
		most = r[0] & 0x3f
		u := User{ID: id, Messaging: r[3]&0x10 != 0, Privilege: privilege(r[3] & 0x0f), Fixed: id <= r[2]&0x3f}
		switch r[1] >> 6 {
		case 1:
			u.Enabled = true
		case 0: // not said
			limit := r[3] & 0x0f
			u.Enabled = u.Messaging && limit >= callback && limit != noAccess
		}
		name, err := c.do(ctx, getUserName, 0, id)
		if err != nil && !isRefusal(err) { // an account that was never used may have none
			return nil, err
		}
		u.Name = string(bytes.TrimRight(name, "\x00"))
		out = append(out, u)
	}
	return out, nil
}

// Choose returns the account for a user: the one that has the name, or else the first that is free. The first account of all, which has
// no name, is never free, and an account that is enabled without a name is not either. The error is ErrFull if there is none.
func Choose(users []User, name string) (User, error) {
	for _, u := range users {
		if u.Name == name {
			return u, nil
		}
	}
	for _, u := range users {
		if u.ID > 1 && u.Name == "" && !u.Fixed && !u.Enabled {
			return u, nil
		}
	}
	return User{}, fmt.Errorf("%w: %d are taken", ErrFull, len(users))
}

// SetUser makes a user an administrator of a channel with a password, and returns its account. It may be repeated, and cut off: done
// again it ends in the same state. The account is enabled last.
func (c *Controller) SetUser(ctx context.Context, channel byte, name, password string) (User, error) {
	if name == "" || len(name) > MaxName {
		return User{}, fmt.Errorf("the name of the user has %d bytes, want 1 to %d", len(name), MaxName)
	}
	field, err := passwordField(password)
	if err != nil {
		return User{}, err
	}
	users, err := c.Users(ctx, channel)
	if err != nil {
		return User{}, err
	}
	u, err := Choose(users, name)
	if err != nil {
		return User{}, err
	}
	if u.Name != name { // the same name again is an error for many
		if _, err := c.do(ctx, setUserName, 0, append([]byte{u.ID}, pad(name, MaxName)...)...); err != nil {
			return User{}, err
		}
	}
	const set, enable = 2, 1
	if _, err := c.do(ctx, setUserPassword, 0, field(u.ID, set)...); err != nil {
		return User{}, err
	}
	const change, linkAuth, messaging = 0x80, 0x20, 0x10
	if _, err := c.do(ctx, setUserAccess, 0, change|linkAuth|messaging|channel&0x0f, u.ID, administrator, 0); err != nil {
		return User{}, err
	}
	if _, err := c.do(ctx, setUserPassword, 0, field(u.ID, enable)...); err != nil {
		return User{}, err
	}
	u.Name, u.Enabled, u.Messaging, u.Privilege = name, true, true, Administrator
	return u, nil
}

// passwordField returns what makes the data of Set User Password for an account and an operation.
func passwordField(password string) (func(id, operation byte) []byte, error) {
	size, long := ShortPassword, byte(0)
	if len(password) > ShortPassword {
		size, long = LongPassword, 0x80
	}
	if password == "" || len(password) > LongPassword {
		return nil, fmt.Errorf("the password has %d bytes, want 1 to %d", len(password), LongPassword)
	}
	return func(id, operation byte) []byte { return append([]byte{id | long, operation}, pad(password, size)...) }, nil
}

// pad returns a text with zeros behind it. It is at most n long.
func pad(s string, n int) []byte { return append([]byte(s), make([]byte, n-len(s))...) }

// TestPassword proves that an account has a password: the controller says yes to it, and no to another one that differs in its last byte,
// so that neither one which says yes to everything nor one that cuts passwords short passes. The error is ErrPassword, ErrNoProof or
// ErrNoTest.
func (c *Controller) TestPassword(ctx context.Context, id byte, password string) error {
	if err := c.hasPassword(ctx, id, password); err != nil {
		return err
	}
	wrong := []byte(password)
	if end := &wrong[len(wrong)-1]; *end == 'x' {
		*end = 'y'
	} else {
		*end = 'x'
	}
	switch err := c.hasPassword(ctx, id, string(wrong)); {
	case errors.Is(err, ErrPassword):
		return nil
	case err == nil:
		return ErrNoProof
	default:
		return err
	}
}

func (c *Controller) hasPassword(ctx context.Context, id byte, password string) error {
	field, err := passwordField(password)
	if err != nil {
		return err
	}
	const test = 3
	_, err = c.do(ctx, testPassword, 0, field(id, test)...)
	switch {
	case refused(err, codeOtherPassword, codeOtherSize):
		return ErrPassword
	case refused(err, codeInvalidCommand, codeInvalidData, codeState):
		return fmt.Errorf("%w: %w", ErrNoTest, err)
	}
	return err
}

// DisableUser makes an account useless, and reads that it is.
func (c *Controller) DisableUser(ctx context.Context, channel, id byte) error {
	const disable = 0
	data := append([]byte{id, disable}, make([]byte, ShortPassword)...)
	if _, err := c.do(ctx, setUserPassword, 0, data...); err != nil {
		return err
	}
	users, err := c.Users(ctx, channel)
	if err != nil {
		return err
	}
	for _, u := range users {
		if u.ID == id && u.Enabled {
			return fmt.Errorf("account %d of the management controller is still enabled after it was disabled", id)
		}
	}
	return nil
}
