package sysroot

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"gprovision/hw/durable"
	"gprovision/model/secret"
	"gprovision/unit/state"
)

// Admin is the account that gets the unit's own password.
const Admin = "admin"

// hashCost is the cost of bcrypt. Passwords are random, so a higher cost would only make slow machines slower.
const hashCost = 10

// HashPassword returns the hash of a password in the form of /etc/shadow. It is bcrypt, "$2b$", which libxcrypt, and
// so Debian's login, accepts (crypt(5)). The password must have 1 to 72 bytes and no control characters: nobody could
// type those at a login.
func HashPassword(password secret.Secret) (string, error) {
	p := password.Reveal()
	if p == "" {
		return "", errors.New("hash password: it is empty")
	}
	for i := range len(p) {
		if p[i] < ' ' || p[i] == 0x7f {
			return "", errors.New("hash password: it has a control character")
		}
	}
	h, err := bcrypt.GenerateFromPassword([]byte(p), hashCost)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	// The library writes $2a$. Up to 72 bytes that is the same function as $2b$. The newer name says that the old
	// bugs of other implementations are not in it.
	return strings.Replace(string(h), "$2a$", "$2b$", 1), nil
}

// SetPassword makes hash the password of a user of the image. The user must be in /etc/passwd. A missing line in
// /etc/shadow is added. All other lines stay as they are. This unlocks an account that was locked or had no password.
func (s *System) SetPassword(user, hash string) error {
	if len(user) > 32 || !userForm.MatchString(user) {
		return fmt.Errorf("name of the user %q has a wrong form", user)
	}
	if !state.IsPasswordHash(hash) {
		return errors.New("not a password hash of crypt(3)")
	}
	passwd, err := s.read("etc/passwd")
	if err != nil {
		return err
	}
	fresh, found := setField(passwd, user, "x")
	if !found {
		return fmt.Errorf("user %s: %w", user, ErrNoAccount)
	}
	shadow, err := s.read("etc/shadow")
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	shadow, found = setField(shadow, user, hash)
	if !found {
		if len(shadow) > 0 && shadow[len(shadow)-1] != '\n' {
			shadow = append(shadow, '\n')
		}
		// No date of the last change: the clock may be wrong, and 0 would mean "change it now".
		shadow = append(shadow, user+":"+hash+"::0:99999:7:::\n"...)
	}
	if missing {
		o := durable.Owner{Mode: 0o600}
		if gid, err := s.group("shadow"); err == nil {
			o = durable.Owner{Mode: 0o640, GID: gid}
		}
		err = s.writeAs("etc/shadow", shadow, o)
	} else {
		err = s.write("etc/shadow", shadow, 0o600)
	}
	if err != nil {
		return err
	}
	// This comes last. Without the x, or with an empty field, login would not look in /etc/shadow.
	if string(fresh) != string(passwd) {
		return s.write("etc/passwd", fresh, 0o644)
	}
	return nil
}

// Password returns the hash of a user's password. It is an error if the user cannot log in with a password, because
// the account is locked or has none.
func (s *System) Password(user string) (hash string, err error) {
	shadow, err := s.read("etc/shadow")
	if err != nil {
		return "", err
	}
	for _, l := range strings.Split(string(shadow), "\n") {
		if f := strings.Split(l, ":"); len(f) > 1 && f[0] == user {
			if !state.IsPasswordHash(f[1]) {
				return "", fmt.Errorf("user %s has no password of crypt(3)", user)
			}
			return f[1], nil
		}
	}
	return "", fmt.Errorf("user %s: %w", user, ErrNoAccount)
}

// setField replaces the second field of a user's line.
func setField(b []byte, user, value string) (out []byte, found bool) {
	lines := strings.Split(string(b), "\n")
	for i, l := range lines {
		f := strings.Split(l, ":")
		if len(f) > 1 && f[0] == user {
			f[1] = value
			lines[i] = strings.Join(f, ":")
			found = true
		}
	}
	return []byte(strings.Join(lines, "\n")), found
}
