// Package challenge is the question that a unit asks before it opens its recovery shell to somebody without its password, or goes on after
// an erase that has failed, and the answer that support signs for it. Both are short enough to be read out and typed.
//
// A challenge is SERIAL/NONCE for the shell, and SERIAL/erase/DIGEST/NONCE for an erase: the unit's serial number, the digest of the
// certificate, and 80 random bits, made for one use. The answer is an Ed25519 signature (signature.PrivateKey.SignText) of a sentence with
// all of that, another one for each of the two, with a support key, and one byte that tells a typing error from a wrong answer. Both are
// written in Crockford's base32, in groups; case, blanks and dashes do not matter, and O, I and L are read as 0, 1 and 1.
//
// The package keeps nothing: that a challenge is answered only once is up to the unit.
package challenge

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"

	"gprovision/model/signature"
)

// ErrTyping says that a challenge or an answer is not one: a letter too many, too few or wrong.
var ErrTyping = errors.New("a typing error")

// partSize is that of a nonce and of a digest, in bytes; maxSerial is in characters.
const (
	partSize  = 10
	maxSerial = 256
)

// aboutErase stands between serial number and digest.
const aboutErase = "/erase"

// Challenge is the question of one unit. The zero value is none.
type Challenge struct {
	serial string
	digest string // of the certificate of an erase; empty: it is about the shell
	nonce  string // 16 characters of the alphabet, as digest
}

// New makes a fresh challenge for the shell of the unit with the serial number.
func New(serial string) Challenge {
	var b [partSize]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return Challenge{serial: serial, nonce: alphabet().EncodeToString(b[:])}
}

// NewErase makes a fresh challenge for the erase of the unit that has this certificate.
func NewErase(serial string, certificate []byte) Challenge {
	c := New(serial)
	c.digest = digest(certificate)
	return c
}

// Digest returns the first 80 bits of the SHA-256 of a file, in four groups of four characters: so that it can be written down.
func Digest(file []byte) string { return groups(digest(file), 4, "-") }

func digest(file []byte) string {
	sum := sha256.Sum256(file)
	return alphabet().EncodeToString(sum[:partSize])
}

// Parse reads what String wrote, as a person typed it. Errors wrap ErrTyping.
func Parse(s string) (Challenge, error) {
	serial, nonce, ok := cutLast(strings.TrimSpace(s), "/")
	digest := ""
	if rest, last, about := cutLast(serial, "/"); about && strings.HasSuffix(rest, aboutErase) {
		serial, digest = strings.TrimSuffix(rest, aboutErase), last
	}
	if !ok || serial == "" || len(serial) > maxSerial {
		return Challenge{}, fmt.Errorf("parse challenge: want SERIAL/LETTERS: %w", ErrTyping)
	}
	c := Challenge{serial: serial}
	if c.nonce, ok = part(nonce); !ok {
		return Challenge{}, fmt.Errorf("parse challenge: want 16 letters and digits at the end: %w", ErrTyping)
	}
	if digest != "" {
		if c.digest, ok = part(digest); !ok {
			return Challenge{}, fmt.Errorf("parse challenge: want 16 letters and digits behind %s: %w", aboutErase, ErrTyping)
		}
	}
	return c, nil
}

// part reads a nonce or a digest.
func part(s string) (string, bool) {
	b, err := decode(s)
	return alphabet().EncodeToString(b), err == nil && len(b) == partSize
}

// Serial is the unit's serial number.
func (c Challenge) Serial() string { return c.serial }

// Digest is that of the certificate of the erase that the challenge is about; it is empty for one about the shell.
func (c Challenge) Digest() string {
	if c.digest == "" {
		return ""
	}
	return groups(c.digest, 4, "-")
}

func (c Challenge) String() string {
	about := c.serial
	if c.digest != "" {
		about += aboutErase + "/" + c.Digest()
	}
	return about + "/" + groups(c.nonce, 4, "-")
}

// text is what is signed.
func (c Challenge) text() string {
	if c.digest != "" {
		return fmt.Sprintf("Go on after the erase of unit %q with the certificate %s, once, for the challenge %s. Version 1.", c.serial, c.digest,
			c.nonce)
	}
	return fmt.Sprintf("Open the recovery shell of unit %q, once, for the challenge %s. Version 1.", c.serial, c.nonce)
}

// Answer signs the challenge.
func (c Challenge) Answer(key signature.PrivateKey) (string, error) {
	sig, err := key.SignText(c.text())
	if err != nil {
		return "", fmt.Errorf("answer challenge: %w", err)
	}
	return groups(alphabet().EncodeToString(append(sig, check(sig))), 8, " "), nil
}

// Verify returns the key among keys whose owner answered the challenge. The error wraps ErrTyping or signature.ErrSignature.
func (c Challenge) Verify(keys []signature.PublicKey, answer string) (signature.PublicKey, error) {
	b, err := decode(answer)
	if err != nil || len(b) != ed25519.SignatureSize+1 || check(b[:ed25519.SignatureSize]) != b[ed25519.SignatureSize] {
		return signature.PublicKey{}, fmt.Errorf("read answer: %w", ErrTyping)
	}
	if c.nonce == "" {
		return signature.PublicKey{}, errors.New("verify answer: there was no challenge")
	}
	k, err := signature.VerifyText(keys, c.text(), b[:ed25519.SignatureSize])
	if err != nil {
		return k, fmt.Errorf("verify answer: %w", err)
	}
	return k, nil
}

func check(sig []byte) byte {
	sum := sha256.Sum256(sig)
	return sum[0]
}

func alphabet() *base32.Encoding {
	return base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)
}

// decode reads what a person typed.
func decode(s string) ([]byte, error) {
	if len(s) > 1024 {
		return nil, ErrTyping
	}
	s = strings.NewReplacer(" ", "", "\t", "", "-", "", "O", "0", "I", "1", "L", "1").Replace(strings.ToUpper(s))
	b, err := alphabet().DecodeString(s)
	if err != nil || alphabet().EncodeToString(b) != s { // bits left over at the end are zero
		return nil, ErrTyping
	}
	return b, nil
}

func groups(s string, n int, between string) string {
	var out []string
	for ; len(s) > n; s = s[n:] {
		out = append(out, s[:n])
	}
	return strings.Join(append(out, s), between)
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
