package sysroot

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"gprovision/model/secret"
)

// ErrPassword says that a password is not the one that was hashed.
var ErrPassword = errors.New("wrong password")

// CheckPassword compares password with hash. The error wraps ErrPassword if it is another one. It knows the hashes that
// HashPassword makes; another kind is an error of its own.
func CheckPassword(hash string, password secret.Secret) error {
	if !strings.HasPrefix(hash, "$2b$") {
		return errors.New("check password: its hash is not bcrypt")
	}
	if password.Empty() { // HashPassword makes none of it
		return fmt.Errorf("check password: %w", ErrPassword)
	}
	err := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password.Reveal()))
	if errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) || errors.Is(err, bcrypt.ErrPasswordTooLong) {
		return fmt.Errorf("check password: %w", ErrPassword)
	}
	if err != nil {
		return fmt.Errorf("check password: %w", err)
	}
	return nil
}
