// Package signature signs and verifies files in the format of minisign: Ed25519 over the BLAKE2b-512 hash of the whole file,
// with a trusted comment that is signed too. A signature lies beside its file, with the ending ".minisig".
//
// The trusted comment says what was signed: "image NAME" for a release image, "manifest PRODUCT SERIAL" for a manifest, "artifact PREFIX
// BUILD" for a boot artifact, "erase-certificate UNIT RUN" for the certificate of an erase. The
// caller compares it with what it expects, or uses VerifyAs, so that an old signed file cannot be renamed into a new one.
//
// Debian's program minisign reads and writes the same files. Only prehashed signatures are made and accepted (its default);
// the old kind, that signs the file itself, is refused. The package reads no files: it gets text and readers.
// Format: https://jedisct1.github.io/minisign/, "File formats".
package signature

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"aead.dev/minisign"

	"gprovision/model/secret"
	"gprovision/model/source"
)

// Suffix is appended to a file's name to get the name of its signature.
const Suffix = ".minisig"

// MaxSize is the largest signature or key file, in bytes, that is looked at.
const MaxSize = 16 << 10

// What can be wrong with a signature. Errors of this package wrap one of these.
var (
	// ErrFormat: the text is no minisign signature or key.
	ErrFormat = errors.New("not in the format of minisign")
	// ErrNoKey: no trusted key has made the signature.
	ErrNoKey = errors.New("no trusted key has made this signature")
	// ErrSignature: a trusted key is named, but the signature does not hold: file or comment are damaged or forged.
	ErrSignature = errors.New("the signature does not hold")
	// ErrComment: the signature holds, but it is that of another file.
	ErrComment = errors.New("the signature is that of another file")
	// ErrPassphrase: the private key is encrypted, and the passphrase is missing or wrong.
	ErrPassphrase = errors.New("wrong or missing passphrase")
)

// ImageComment is the trusted comment for a release image. The name is the full one without ".upd".
func ImageComment(name string) string { return "image " + strings.TrimSuffix(name, ".upd") }

// ArtifactComment is the trusted comment for a boot artifact: that of the product whose images' names begin with prefix, with the build
// number that the artifact itself has.
func ArtifactComment(prefix string, build uint64) string {
	return fmt.Sprintf("artifact %s %d", strings.TrimSuffix(prefix, "."), build)
}

// ManifestComment is the trusted comment for a manifest of a product; the serial is that of the manifest, not of a unit.
func ManifestComment(product, serial string) string { return "manifest " + product + " " + serial }

// EraseComment is the trusted comment for the certificate of one run of an erase of a unit, which signs it by its own key.
func EraseComment(unit, run string) string { return "erase-certificate " + unit + " " + run }

// ParseManifestComment returns what ManifestComment was made of. The serial is its last word, of whatever form: ParseSerial reads it.
func ParseManifestComment(trusted string) (product, serial string, err error) {
	rest, ok := strings.CutPrefix(trusted, "manifest ")
	if at := strings.LastIndexByte(rest, ' '); ok && at > 0 && at < len(rest)-1 {
		return rest[:at], rest[at+1:], nil
	}
	return "", "", fmt.Errorf("the signature is for %q, want \"manifest PRODUCT SERIAL\"", trusted)
}

// ParseSerial reads the serial number of a manifest: decimal digits.
func ParseSerial(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64) // takes no sign and, with a base, no underscores
	if err != nil {
		return 0, fmt.Errorf("the manifest's serial number is %q, want a whole number", text)
	}
	return n, nil
}

// PublicKey is a key that checks signatures. The zero value checks nothing: no signature is from it.
type PublicKey struct {
	key minisign.PublicKey
	set bool
}

// ParsePublicKey reads the text of a .pub file, or its base64 line alone.
func ParsePublicKey(text string) (PublicKey, error) {
	line, err := lastLine(text)
	if err != nil {
		return PublicKey{}, fmt.Errorf("parse public key: %w", err)
	}
	var k PublicKey
	if err := k.key.UnmarshalText([]byte(line)); err != nil {
		return PublicKey{}, fmt.Errorf("parse public key: %w: %w", ErrFormat, err)
	}
	k.set = true
	return k, nil
}

// ParsePublicKeys parses several keys, such as those of a policy. The first bad one ends it.
func ParsePublicKeys(texts []string) ([]PublicKey, error) {
	var keys []PublicKey
	for i, t := range texts {
		k, err := ParsePublicKey(t)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// String returns the base64 line of the key, as a policy holds it.
func (k PublicKey) String() string {
	if !k.set {
		return ""
	}
	return k.key.String()
}

// ID returns the 16 hexadecimal digits by which minisign calls the key. They are a hint, not a proof.
func (k PublicKey) ID() string { return fmt.Sprintf("%016X", k.key.ID()) }

// Text returns the content of a .pub file.
func (k PublicKey) Text() []byte {
	return fmt.Appendf(nil, "untrusted comment: minisign public key %s\n%s\n", k.ID(), k)
}

// Equal reports whether both are the same key.
func (k PublicKey) Equal(other PublicKey) bool { return k.set == other.set && k.key.Equal(other.key) }

// PrivateKey is a key that signs. It prints as "[secret]".
type PrivateKey struct {
	key minisign.PrivateKey
	set bool
}

// NewKey makes a key from the operating system's random numbers.
func NewKey() (PrivateKey, error) {
	_, k, err := minisign.GenerateKey(nil)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("make key: %w", err)
	}
	return PrivateKey{key: k, set: true}, nil
}

// ParsePrivateKey reads the text of a .key file (minisign's own *.key too). A key without encryption needs no passphrase and
// ignores it; for an encrypted one the error wraps ErrPassphrase if the passphrase is missing or wrong. Decrypting takes
// about a gigabyte of memory and some seconds: minisign chose it so.
func ParsePrivateKey(text string, passphrase secret.Secret) (PrivateKey, error) {
	line, err := lastLine(text)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("parse private key: %w", err)
	}
	k := PrivateKey{set: true}
	if Encrypted(text) {
		if passphrase.Empty() {
			return PrivateKey{}, fmt.Errorf("parse private key: it is encrypted: %w", ErrPassphrase)
		}
		k.key, err = minisign.DecryptKey(passphrase.Reveal(), []byte(line))
		if err != nil {
			return PrivateKey{}, fmt.Errorf("parse private key: %w: %w", ErrPassphrase, err)
		}
	} else if err := k.key.UnmarshalText([]byte(line)); err != nil {
		return PrivateKey{}, fmt.Errorf("parse private key: %w: %w", ErrFormat, err)
	}
	if !k.consistent() {
		return PrivateKey{}, fmt.Errorf("parse private key: its halves do not belong together: %w", ErrFormat)
	}
	return k, nil
}

// consistent reports whether the public half belongs to the private one. Signing with a wrong public half would give the
// private one away.
func (k PrivateKey) consistent() bool {
	pair, ok := k.pair()
	return ok && bytes.Equal(ed25519.NewKeyFromSeed(pair.Seed()), pair)
}

// pair returns the Ed25519 key.
func (k PrivateKey) pair() (ed25519.PrivateKey, bool) {
	text, err := k.key.MarshalText()
	if err != nil {
		return nil, false
	}
	line, err := lastLine(string(text))
	if err != nil {
		return nil, false
	}
	raw, err := base64.StdEncoding.DecodeString(line)
	// 2+2+2 algorithms, 32 salt, 8+8 cost, 8 identifier: then 32 seed, 32 public, 32 checksum.
	const seed = 62
	if err != nil || len(raw) < seed+ed25519.PrivateKeySize {
		return nil, false
	}
	return ed25519.PrivateKey(raw[seed : seed+ed25519.PrivateKeySize]), true
}

// Encrypted reports whether the text of a .key file needs a passphrase.
func Encrypted(text string) bool {
	line, err := lastLine(text)
	return err == nil && minisign.IsEncrypted([]byte(line))
}

// Text returns the content of a .key file: encrypted with the passphrase, or in the clear if that is empty.
func (k PrivateKey) Text(passphrase secret.Secret) ([]byte, error) {
	if !k.set {
		return nil, errors.New("write private key: there is none")
	}
	var text []byte
	var err error
	if passphrase.Empty() {
		text, err = k.key.MarshalText()
	} else {
		text, err = minisign.EncryptKey(passphrase.Reveal(), k.key)
	}
	if err != nil {
		return nil, fmt.Errorf("write private key: %w", err)
	}
	return append(text, '\n'), nil
}

// Public returns the public half.
func (k PrivateKey) Public() PublicKey {
	p, ok := k.key.Public().(minisign.PublicKey)
	return PublicKey{key: p, set: ok && k.set}
}

// String returns "[secret]".
func (k PrivateKey) String() string { return secret.Hidden }

// GoString returns "[secret]".
func (k PrivateKey) GoString() string { return secret.Hidden }

// Format writes "[secret]" for every verb.
func (k PrivateKey) Format(f fmt.State, _ rune) { io.WriteString(f, secret.Hidden) }

// Sign reads r to its end and returns the content of the .minisig file. The trusted comment is one line of printable ASCII.
func (k PrivateKey) Sign(r io.Reader, trusted string) ([]byte, error) {
	if !k.set {
		return nil, errors.New("sign: there is no private key")
	}
	if err := checkComment(trusted); err != nil {
		return nil, err
	}
	m := minisign.NewReader(r)
	if _, err := io.CopyBuffer(io.Discard, readerOnly{m}, make([]byte, 1<<20)); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return m.SignWithComments(k.key, trusted, "signature from minisign key "+k.Public().ID()), nil
}

// Info is what a signature says of itself. Nothing of it is proven: only Verify proves it.
type Info struct {
	// KeyID is the identifier of the key that is said to have signed, as PublicKey.ID gives it.
	KeyID string
	// Trusted is the trusted comment.
	Trusted string
}

// Parse reads a .minisig file without verifying it.
func Parse(sig []byte) (Info, error) {
	s, err := parse(sig)
	if err != nil {
		return Info{}, err
	}
	return Info{KeyID: fmt.Sprintf("%016X", s.KeyID), Trusted: s.TrustedComment}, nil
}

func parse(sig []byte) (minisign.Signature, error) {
	var s minisign.Signature
	if len(sig) > MaxSize {
		return s, fmt.Errorf("parse signature of %d bytes: %w", len(sig), ErrFormat)
	}
	if err := s.UnmarshalText(sig); err != nil {
		return s, fmt.Errorf("parse signature: %w: %w", ErrFormat, err)
	}
	if s.Algorithm != minisign.HashEdDSA {
		return s, fmt.Errorf("parse signature: it is of the old kind, not prehashed (minisign -l): %w", ErrFormat)
	}
	return s, nil
}

// Verify reads r to its end and returns the trusted comment if sig is the signature of exactly that content by one of keys.
// A signature that no key can have made is refused before r is read. The error is one of reading r, or wraps ErrFormat,
// ErrNoKey or ErrSignature. The caller compares the comment.
func Verify(keys []PublicKey, sig []byte, r io.Reader) (trusted string, err error) {
	s, err := parse(sig)
	if err != nil {
		return "", err
	}
	// Identifiers are not unique: an attacker can make a key with any.
	var candidates []PublicKey
	for _, k := range keys {
		if k.set && k.key.ID() == s.KeyID {
			candidates = append(candidates, k)
		}
	}
	if len(candidates) == 0 {
		return "", fmt.Errorf("verify signature by key %016X: %w", s.KeyID, ErrNoKey)
	}
	m := minisign.NewReader(r)
	if _, err := io.CopyBuffer(io.Discard, readerOnly{m}, make([]byte, 1<<20)); err != nil {
		return "", fmt.Errorf("verify signature: %w", err)
	}
	for _, k := range candidates {
		if m.Verify(k.key, sig) {
			return s.TrustedComment, nil
		}
	}
	return "", fmt.Errorf("verify signature by key %016X: %w", s.KeyID, ErrSignature)
}

// VerifyAs is Verify for a file of which the caller knows what its trusted comment must be. A signature with another comment
// is refused before r is read; that error wraps ErrComment.
func VerifyAs(keys []PublicKey, sig []byte, r io.Reader, want string) error {
	s, err := parse(sig)
	if err != nil {
		return err
	}
	if s.TrustedComment != want {
		return fmt.Errorf("verify signature: it says %q, want %q: %w", s.TrustedComment, want, ErrComment)
	}
	_, err = Verify(keys, sig, r)
	return err
}

// lastLine returns the base64 line of a key file: the only line, or the second one below an untrusted comment.
func lastLine(text string) (string, error) {
	if len(text) > MaxSize {
		return "", fmt.Errorf("%d bytes: %w", len(text), ErrFormat)
	}
	decoded, err := source.Decode([]byte(text))
	if err != nil {
		return "", fmt.Errorf("%w: %w", err, ErrFormat)
	}
	var lines []string
	for line := range strings.Lines(string(decoded)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	switch {
	case len(lines) == 1:
		return lines[0], nil
	case len(lines) == 2 && strings.HasPrefix(lines[0], "untrusted comment:"):
		return lines[1], nil
	}
	return "", fmt.Errorf("want an untrusted comment and one line of base64: %w", ErrFormat)
}

// readerOnly keeps io.Copy from taking shortcuts round the buffer's size.
type readerOnly struct{ io.Reader }
