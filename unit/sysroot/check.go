package sysroot

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"gprovision/model/secret"
)

// ErrPassword means that a password does not match the hash.
var ErrPassword = errors.New("wrong password")

// CheckPassword compares a password with a hash. The error wraps ErrPassword if they do not match. It knows only the
// hashes that HashPassword makes. Any other kind is a different error.
func CheckPassword(hash string, password secret.Secret) error {
	if !strings.HasPrefix(hash, "$2b$") {
		return errors.New("check password: its hash is not bcrypt")
	}
	if password.Empty() { // HashPassword never hashes an empty one
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
