// Package ledgertest has a witness for tests, which signs what it is given. It shares no code with package ledger.
package ledgertest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
)

// Cosigner is a witness (C2SP tlog-cosignature, Ed25519).
type Cosigner struct {
	// Name is that of its key.
	Name string
	// Seed is what its key is made of.
	Seed byte
	// Time is that of its signatures, in seconds of Unix.
	Time uint64
}

// NewCosigner returns a witness of the end of November 2026.
func NewCosigner(name string, seed byte) Cosigner { return Cosigner{name, seed, 1_796_000_000} }

func (c Cosigner) private() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{c.Seed}, ed25519.SeedSize))
}

// parts returns the type with the key, and the first bytes of its digest.
func (c Cosigner) parts() (raw, hash []byte) {
	raw = append([]byte{4}, c.private().Public().(ed25519.PublicKey)...)
	sum := sha256.Sum256(append([]byte(c.Name+"\n"), raw...))
	return raw, sum[:4:4]
}

// Key returns its public key in the form of a note's verifier key.
func (c Cosigner) Key() string {
	raw, hash := c.parts()
	return fmt.Sprintf("%s+%x+%s", c.Name, hash, base64.StdEncoding.EncodeToString(raw))
}

// Line signs a checkpoint, whoever has signed it already.
func (c Cosigner) Line(checkpoint []byte) string {
	text, _, _ := strings.Cut(string(checkpoint), "\n\n")
	_, sig := c.parts()
	sig = binary.BigEndian.AppendUint64(sig, c.Time)
	sig = append(sig, ed25519.Sign(c.private(), fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s\n", c.Time, text))...)
	return fmt.Sprintf("— %s %s\n", c.Name, base64.StdEncoding.EncodeToString(sig))
}
