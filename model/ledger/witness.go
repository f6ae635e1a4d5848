package ledger

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// algCosignature is the type of the keys that cosign (C2SP tlog-cosignature, Ed25519).
const algCosignature = 4

// Witness is the key of a witness: somebody who signs a checkpoint of a log only if it goes on from all that they have signed before. What
// enough of them have signed the log shows to everybody alike.
type Witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

// ParseWitness reads a key in the form of a note's verifier key, NAME+HASH+BASE64, of type 4 (C2SP signed-note, tlog-cosignature). Those of
// type 6 (ML-DSA) are not known here.
func ParseWitness(vkey string) (*Witness, error) {
	name, rest, _ := strings.Cut(vkey, "+")
	digits, text, _ := strings.Cut(rest, "+")
	hash, err := strconv.ParseUint(digits, 16, 32)
	raw, err2 := base64.StdEncoding.DecodeString(text)
	if err != nil || err2 != nil || name == "" || len(strings.Fields(name)) != 1 || len(digits) != 8 || len(raw) != 1+ed25519.PublicKeySize ||
		raw[0] != algCosignature {
		return nil, fmt.Errorf("%.80q is no key of a witness, NAME+HASH+BASE64 of type %d: %w", vkey, algCosignature, ErrFormat)
	}
	sum := sha256.Sum256(slices.Concat([]byte(name+"\n"), raw))
	if binary.BigEndian.Uint32(sum[:]) != uint32(hash) {
		return nil, fmt.Errorf("the key of the witness %.80q is damaged: %w", name, ErrFormat)
	}
	return &Witness{name, uint32(hash), raw[1:]}, nil
}

// Name returns the name of the witness.
func (w *Witness) Name() string { return w.name }

// KeyHash returns the number by which its signatures are found.
func (w *Witness) KeyHash() uint32 { return w.hash }

// Verify reports whether a signature is one of the witness, at the time that is in it, on the text of a checkpoint.
func (w *Witness) Verify(text, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize || sig[0] >= 0x80 {
		return false
	}
	said := fmt.Appendf(nil, "cosignature/v1\ntime %d\n", binary.BigEndian.Uint64(sig))
	return ed25519.Verify(w.key, append(said, text...), sig[8:])
}

// Cosignature says that a witness has signed a checkpoint.
type Cosignature struct {
	// Witness is its name.
	Witness string
	// Time is when it did, by its own clock. Then it knew of no larger log.
	Time time.Time
}

// Cosigners returns which of some witnesses have signed one of some checkpoints at least. A key that is there under several names is one
// witness. What others have signed is passed over, also the log itself. The error wraps ErrFormat if a signature of one of the witnesses
// does not hold.
func Cosigners(witnesses []*Witness, checkpoints ...[]byte) ([]Cosignature, error) {
	var out []Cosignature
	seen := map[string]bool{}
	for _, checkpoint := range checkpoints {
		sigs, err := cosigned(checkpoint, witnesses)
		if err != nil {
			return nil, err
		}
		for _, s := range sigs {
			i := slices.IndexFunc(witnesses, func(w *Witness) bool { return w.name == s.Name && w.hash == s.Hash })
			raw, err := base64.StdEncoding.DecodeString(s.Base64)
			if err != nil || len(raw) < 12 {
				return nil, fmt.Errorf("cosignature of %q: %w", s.Name, ErrFormat)
			}
			if key := string(witnesses[i].key); !seen[key] {
				seen[key] = true
				out = append(out, Cosignature{s.Name, time.Unix(int64(binary.BigEndian.Uint64(raw[4:])), 0).UTC()})
			}
		}
	}
	return out, nil
}

// Lines returns what the answer of a witness adds to a checkpoint: its own lines, if they hold. Others are left out.
func (w *Witness) Lines(checkpoint, answer []byte) ([]byte, error) {
	sigs, err := cosigned(slices.Concat(checkpoint, answer), []*Witness{w})
	if err != nil {
		return nil, err
	}
	var out []byte
	for _, s := range sigs {
		out = fmt.Appendf(out, "— %s %s\n", s.Name, s.Base64)
	}
	if out == nil {
		return nil, fmt.Errorf("the answer has no signature of %q: %w", w.name, ErrFormat)
	}
	return out, nil
}

// cosigned returns the signatures of witnesses on a checkpoint. They all hold.
func cosigned(checkpoint []byte, witnesses []*Witness) ([]note.Signature, error) {
	if _, err := readCheckpoint(checkpoint); err != nil {
		return nil, err
	}
	var known []note.Verifier
	for i, w := range witnesses {
		if !slices.ContainsFunc(witnesses[:i], func(o *Witness) bool { return o.name == w.name && o.hash == w.hash }) {
			known = append(known, w)
		}
	}
	n, err := note.Open(checkpoint, note.VerifierList(known...))
	var nobody *note.UnverifiedNoteError
	switch {
	case errors.As(err, &nobody):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("checkpoint: %w: %w", ErrFormat, err)
	}
	return n.Sigs, nil
}
