// Package vault makes the passwords of units and gives them to one enrolled key. It stores them encrypted with age to
// the operators' public keys, so that only an operator can read them. The private keys are never on the server.
//
// Package store enforces the rules, each in one transaction. Every request gets a new generation. A confirmed
// generation is final for its key. A completed unit gets none until an operator releases it. This package keeps no
// password after returning it.
package vault

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"

	"filippo.io/age"

	"gprovision/model/record"
	"gprovision/model/secret"
)

// ErrNoOperator means that there is no operator's key to encrypt to.
var ErrNoOperator = errors.New("the server has no operator key (--operator-key): it gives no credentials that nobody could ever read")

// Lengths of passwords, in characters. There are 47 different characters, so 12 of them have 66 bits.
const (
	osLength   = 16
	biosLength = 12 // much firmware accepts no more, and some accepts no capitals
	ipmiLength = record.MaxIPMIPassword
)

// The characters of passwords. Those that are easily confused on paper or a screen are left out (0 O o, 1 l I, 2 Z z,
// 5 S s, 8 B).
const (
	letters = "abcdefghijkmnpqrtuvwxyACDEFGHJKLMNPQRTUVWXY34679"
	simple  = "abcdefghijkmnpqrtuvwxy34679"
)

// Keeper stores ciphertexts. *store.DB is one.
type Keeper interface {
	AddSecret(ctx context.Context, unit string, enrolment int64, seal func(generation uint64) ([]byte, error)) error
	ConfirmSecret(ctx context.Context, unit string, enrolment int64, generation uint64) error
}

// Vault makes and keeps credentials. It is safe for concurrent use.
type Vault struct {
	keep       Keeper
	recipients []age.Recipient
}

// New returns a Vault that encrypts to recipients. Without recipients it makes no credentials.
func New(keep Keeper, recipients []age.Recipient) *Vault { return &Vault{keep, recipients} }

// Ready returns ErrNoOperator if there are no recipients, and nil otherwise.
func (v *Vault) Ready() error {
	if len(v.recipients) == 0 {
		return ErrNoOperator
	}
	return nil
}

// Issue makes new credentials for the unit and its key. The errors are ErrNoOperator and those of Keeper.
func (v *Vault) Issue(ctx context.Context, unit string, enrolment int64) (record.Credentials, error) {
	if err := v.Ready(); err != nil {
		return record.Credentials{}, err
	}
	var c record.Credentials
	err := v.keep.AddSecret(ctx, unit, enrolment, func(generation uint64) (_ []byte, err error) {
		if c, err = generate(generation); err != nil {
			return nil, err
		}
		return Seal(v.recipients, unit, c)
	})
	if err != nil {
		return record.Credentials{}, err
	}
	return c, nil
}

// Confirm makes a generation final for its key. The errors are those of Keeper.
func (v *Vault) Confirm(ctx context.Context, unit string, enrolment int64, generation uint64) error {
	return v.keep.ConfirmSecret(ctx, unit, enrolment, generation)
}

func generate(generation uint64) (record.Credentials, error) {
	c := record.Credentials{Generation: generation}
	for _, p := range []struct {
		into     *secret.Secret
		n        int
		alphabet string
	}{{&c.OS, osLength, letters}, {&c.BIOS, biosLength, simple}, {&c.IPMI, ipmiLength, letters}} {
		s, err := Password(p.n, p.alphabet)
		if err != nil {
			return record.Credentials{}, err
		}
		*p.into = s
	}
	return c, nil
}

// Password returns n random characters of an alphabet, each equally likely. An empty alphabet means the usual one,
// which has no characters that look alike.
func Password(n int, alphabet string) (secret.Secret, error) {
	if alphabet == "" {
		alphabet = letters
	}
	b := make([]byte, n)
	for i := range b {
		k, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			return "", fmt.Errorf("make password: %w", err)
		}
		b[i] = alphabet[k.Int64()]
	}
	return secret.Secret(b), nil
}

// sealed is the plaintext in a ciphertext.
type sealed struct {
	Unit        string          `json:"unit"`
	Credentials json.RawMessage `json:"credentials"`
}

// Seal encrypts the credentials of a unit to recipients.
func Seal(to []age.Recipient, unit string, c record.Credentials) ([]byte, error) {
	wire, err := c.Wire()
	if err != nil {
		return nil, err
	}
	plain, err := json.Marshal(sealed{unit, wire})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		return nil, fmt.Errorf("encrypt credentials: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("encrypt credentials: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encrypt credentials: %w", err)
	}
	return out.Bytes(), nil
}

// Open decrypts the credentials of a unit. It is an error if the ciphertext belongs to another unit or generation, so
// that the server cannot swap them. Generation 0 accepts any.
func Open(with []age.Identity, unit string, generation uint64, ciphertext []byte) (record.Credentials, error) {
	r, err := age.Decrypt(bytes.NewReader(ciphertext), with...)
	if err != nil {
		return record.Credentials{}, fmt.Errorf("decrypt credentials: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, 64<<10))
	if err != nil {
		return record.Credentials{}, fmt.Errorf("decrypt credentials: %w", err)
	}
	var s sealed
	if json.Unmarshal(plain, &s) != nil {
		return record.Credentials{}, errors.New("decrypt credentials: the content has another form")
	}
	c, err := record.ParseCredentials(s.Credentials)
	if err != nil {
		return record.Credentials{}, err
	}
	if s.Unit != unit || generation != 0 && c.Generation != generation {
		return record.Credentials{}, fmt.Errorf("the ciphertext belongs to unit %q, generation %d", s.Unit, c.Generation)
	}
	return c, nil
}

// ParseRecipients parses age recipients ("age1..."), one per line. It ignores empty lines and lines that start with
// #.
func ParseRecipients(text string) ([]age.Recipient, error) {
	if strings.Contains(text, "AGE-SECRET-KEY-") {
		return nil, errors.New("this is a private key: it must never come near the server; give the public one (age1...)")
	}
	var out []age.Recipient
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		r, err := age.ParseX25519Recipient(line)
		if err != nil {
			return nil, fmt.Errorf("operator key %q: %w", line, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// NewKey makes an operator's key pair. It returns the text of the private key file, and the public key.
func NewKey() (private secret.Secret, public string, err error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", "", fmt.Errorf("make operator key: %w", err)
	}
	return secret.Secret("# public key: " + id.Recipient().String() + "\n" + id.String() + "\n"), id.Recipient().String(), nil
}
