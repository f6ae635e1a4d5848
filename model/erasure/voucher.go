package erasure

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"gprovision/model/record"
)

// voucherTitle is the first line of each voucher: no other text that a server's key signs begins so.
const voucherTitle = "gprovision unit key v1"

// MaxVoucher is the largest size of a voucher in bytes.
const MaxVoucher = 16 << 10

// What can be wrong with a voucher.
var (
	// ErrNobody says that no key that is known has signed it.
	ErrNobody = errors.New("no key that is known vouches for it")
	// ErrVoucher says that it is damaged or forged, or no voucher.
	ErrVoucher = errors.New("no voucher that holds")
)

// Voucher is a server's statement that a key is that of a unit. Its form is a signed note (C2SP signed-note).
type Voucher struct {
	// Unit is the unit's name.
	Unit string
	// Key is its Ed25519 public key.
	Key ed25519.PublicKey
	// Since is when the server took the key for the unit's.
	Since time.Time
	// By is the name of the server's key.
	By string
}

// Text returns what is signed: four lines.
func (v Voucher) Text() string {
	return fmt.Sprintf("%s\nunit %s\nkey %s\nsince %s\n", voucherTitle, v.Unit, base64.StdEncoding.EncodeToString(v.Key),
		v.Since.UTC().Format(time.RFC3339))
}

// Sign returns the statement as a file, signed by the server's key.
func (v Voucher) Sign(signer note.Signer) ([]byte, error) {
	if err := record.CheckUnit(v.Unit); err != nil || len(v.Key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("sign voucher for %q and a key of %d bytes: %w", v.Unit, len(v.Key), errors.Join(ErrVoucher, err))
	}
	b, err := note.Sign(&note.Note{Text: v.Text()}, signer)
	if err != nil {
		return nil, fmt.Errorf("sign voucher: %w", err)
	}
	return b, nil
}

// OpenVoucher reads a statement that one of the known keys has signed. The error wraps ErrNobody if none of them has, else ErrVoucher.
func OpenVoucher(file []byte, known ...note.Verifier) (Voucher, error) {
	if len(file) > MaxVoucher {
		return Voucher{}, fmt.Errorf("voucher of %d bytes, at most %d: %w", len(file), MaxVoucher, ErrVoucher)
	}
	n, err := note.Open(file, note.VerifierList(known...))
	var nobody *note.UnverifiedNoteError
	if errors.As(err, &nobody) {
		return Voucher{}, fmt.Errorf("voucher: %w", ErrNobody)
	}
	if err != nil {
		return Voucher{}, fmt.Errorf("voucher: %w: %w", ErrVoucher, err)
	}
	v := Voucher{By: n.Sigs[0].Name}
	var key, since string
	for line := range strings.Lines(n.Text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch name {
		case "unit":
			v.Unit = value
		case "key":
			key = value
		case "since":
			since = value
		}
	}
	raw, err := base64.StdEncoding.DecodeString(key)
	at, errTime := time.Parse(time.RFC3339, since)
	v.Key, v.Since = raw, at
	err = errors.Join(err, errTime, record.CheckUnit(v.Unit))
	if err != nil || len(v.Key) != ed25519.PublicKeySize || v.Text() != n.Text {
		return Voucher{}, fmt.Errorf("voucher: the text is not that of one: %w", errors.Join(ErrVoucher, err))
	}
	return v, nil
}
