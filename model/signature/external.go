package signature

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"aead.dev/minisign"
	"golang.org/x/crypto/blake2b"
)

// Part says which of the two messages of a signature is to be signed.
type Part string

// The two messages, in the order in which they are signed.
const (
	// PartFile is the BLAKE2b-512 hash of the file: 64 bytes.
	PartFile Part = "file"
	// PartComment is the signature of PartFile, 64 bytes, with the trusted comment behind it.
	PartComment Part = "comment"
)

// External signs with a private key that lies somewhere else, such as in an HSM. The zero value signs nothing.
type External struct {
	public PublicKey
	raw    func(Part, []byte) ([]byte, error)
}

// NewExternal returns a signer whose public half is key. raw returns the Ed25519 signature of a message (RFC 8032, pure, not
// prehashed), 64 bytes; it is called twice for each signature, and what it returns is verified.
func NewExternal(key PublicKey, raw func(part Part, message []byte) ([]byte, error)) (External, error) {
	if !key.set || raw == nil {
		return External{}, errors.New("external signer: a public key and a way to sign are needed")
	}
	return External{key, raw}, nil
}

// Public returns the public half.
func (e External) Public() PublicKey { return e.public }

// Sign is that of PrivateKey: it reads r to its end and returns the content of the .minisig file. A signature that does not
// hold under the public key is ErrSignature.
func (e External) Sign(r io.Reader, trusted string) ([]byte, error) {
	if e.raw == nil {
		return nil, errors.New("sign: there is no signer")
	}
	if err := checkComment(trusted); err != nil {
		return nil, err
	}
	h, err := blake2b.New512(nil)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if _, err := io.CopyBuffer(h, readerOnly{r}, make([]byte, 1<<20)); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	pub, err := e.public.bytes()
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	s := minisign.Signature{
		Algorithm: minisign.HashEdDSA, KeyID: e.public.key.ID(),
		TrustedComment: trusted, UntrustedComment: "signature from minisign key " + e.public.ID(),
	}
	sign := func(part Part, message []byte, to []byte) error {
		sig, err := e.raw(part, message)
		if err != nil {
			return fmt.Errorf("sign %s: %w", part, err)
		}
		if !ed25519.Verify(pub, message, sig) { // one of another length neither
			return fmt.Errorf("sign %s: the signer's answer is no signature by key %s: %w", part, e.public.ID(), ErrSignature)
		}
		copy(to, sig)
		return nil
	}
	if err := sign(PartFile, h.Sum(nil), s.Signature[:]); err != nil {
		return nil, err
	}
	if err := sign(PartComment, append(s.Signature[:], trusted...), s.CommentSignature[:]); err != nil {
		return nil, err
	}
	text, err := s.MarshalText()
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return text, nil
}

// bytes returns the 32 bytes of the Ed25519 key: base64 of "Ed", 8 bytes of identifier, key. A key that was never set has none.
func (k PublicKey) bytes() (ed25519.PublicKey, error) {
	raw, err := base64.StdEncoding.DecodeString(k.String())
	if err != nil || len(raw) != 2+8+ed25519.PublicKeySize {
		return nil, fmt.Errorf("public key: %w", ErrFormat)
	}
	return ed25519.PublicKey(raw[10:]), nil
}

// PublicKeyOf makes a public key of 32 bytes of an Ed25519 key, such as an HSM gives, with an identifier of the caller's choice.
func PublicKeyOf(key []byte, id uint64) (PublicKey, error) {
	if len(key) != ed25519.PublicKeySize {
		return PublicKey{}, fmt.Errorf("public key of %d bytes, want %d: %w", len(key), ed25519.PublicKeySize, ErrFormat)
	}
	raw := []byte("Ed")
	for i := range 8 {
		raw = append(raw, byte(id>>(8*i)))
	}
	return ParsePublicKey(base64.StdEncoding.EncodeToString(append(raw, key...)))
}

// checkComment returns an error unless a text can be a trusted comment.
func checkComment(trusted string) error {
	if trusted == "" || len(trusted) > 1024 || strings.IndexFunc(trusted, func(c rune) bool { return c < ' ' || c > '~' }) >= 0 {
		return fmt.Errorf("sign: trusted comment %q is not one line of printable ASCII", trusted)
	}
	return nil
}
