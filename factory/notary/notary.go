// Package notary takes the certificates of erases: it checks each by model/erasure, vouches for the unit's key that signed it, and enters
// it into the server's log.
//
// The keys by which it does that are its own: one signs statements over keys of units, one the checkpoints of the log. No unit obeys them.
// They are in the store, so a backup carries them, and whoever reads one can vouch and log in the name of this server.
//
// A certificate is entered once. The same again gets the same answer. Whose key signed it, and whether the unit's life ends with it,
// package store decides, in the same transaction. Witnesses are asked to cosign the log after that; whether they do or not, the certificate
// is taken. A log that turns out to be behind a checkpoint that it gave is closed, and another one
// is begun.
package notary

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/mod/sumdb/note"

	"gprovision/factory/store"
	"gprovision/model/erasure"
	"gprovision/model/ledger"
	"gprovision/model/record"
	"gprovision/model/secret"
)

// ErrCertificate means that a certificate does not hold, or is not that of whoever sends it.
var ErrCertificate = errors.New("the certificate does not hold")

// Notary takes certificates. It is safe for concurrent use.
type Notary struct {
	store     *store.DB
	log       *slog.Logger
	witnesses []Witness
}

// New returns a Notary that keeps all it has in a store, and has its log cosigned by witnesses. Which of them have not is logged; without
// any the logger may be nil.
func New(db *store.DB, log *slog.Logger, witnesses ...Witness) *Notary {
	return &Notary{db, log, witnesses}
}

// Sender is who brings a certificate.
type Sender struct {
	// Operator is the operator. It is empty if the unit itself sends the certificate.
	Operator string
	// Key is the key that the unit has signed its request with, if there is no operator. The certificate must be signed by it too.
	Key []byte
}

// Submit checks a certificate and stores it, with a statement over the unit's key and the proof that the log has it. The error wraps
// ErrCertificate for one that does not hold; store.ErrOtherErase, store.ErrNotEnrolled, store.ErrQuota and store.ErrDisk are those of
// AddErase.
func (n *Notary) Submit(ctx context.Context, s record.EraseSubmission, from Sender) (store.Erase, error) {
	c, err := erasure.ParseSigned(s.Certificate, s.Signature)
	if err != nil {
		return store.Erase{}, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	if from.Operator == "" && !bytes.Equal(from.Key, c.Key) {
		return store.Erase{}, fmt.Errorf("%w: it is signed by another key than the request", ErrCertificate)
	}
	if err := n.compare(ctx, s.Proof); err != nil {
		return store.Erase{}, err
	}
	in := store.EraseInput{
		Unit: c.Unit, PublicKey: c.Key, Run: c.Run, Outcome: string(c.Outcome), Level: string(c.Level), Certificate: s.Certificate,
		Signature: s.Signature, Operator: from.Operator, Accepted: s.Accepted && c.Ending() == erasure.Weaker, Drives: results(c),
	}
	if c.Recovery != nil {
		in.Recovery = string(c.Recovery.Outcome)
	}
	in.Ends = c.Ending() == erasure.Proved || in.Accepted
	e, err := n.store.AddErase(ctx, in, newKey, func(d store.EraseDoor) (voucher, proof []byte, number int64, err error) {
		return seal(d, c, s.Certificate)
	})
	if err != nil || e.Cosigned >= len(n.witnesses) {
		return e, err
	}
	if err := n.cosign(ctx); err != nil {
		n.log.Warn("witnesses have not cosigned the log", "reason", err.Error())
	}
	return n.store.Erase(ctx, e.Unit, e.ID)
}

// seal vouches for the key of a certificate and enters the certificate into the log.
func seal(d store.EraseDoor, c erasure.Certificate, file []byte) (voucher, proof []byte, number int64, err error) {
	units, err := note.NewSigner(d.Units.Private.Reveal())
	if err != nil {
		return nil, nil, 0, fmt.Errorf("read key %s: %w", d.Units.Name, err)
	}
	voucher, err = erasure.Voucher{Unit: c.Unit, Key: c.Key, Since: d.Key.Created}.Sign(units)
	if err != nil {
		return nil, nil, 0, err
	}
	log, err := open(d.Log, d.Records)
	if err != nil {
		return nil, nil, 0, err
	}
	if number, err = log.Append(erasure.Record(file)); err != nil {
		return nil, nil, 0, err
	}
	checkpoint, err := log.Checkpoint()
	if err != nil {
		return nil, nil, 0, err
	}
	p, err := log.Prove(number, checkpoint)
	return voucher, p.Marshal(), number, err
}

// open returns the log of a key.
func open(k store.NoteKey, records ledger.Store) (*ledger.Log, error) {
	signer, err := note.NewSigner(k.Private.Reveal())
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", k.Name, err)
	}
	return ledger.New(records, signer), nil
}

// compare closes the log that is in use if it is behind a checkpoint of it that comes with a proof: then this server is what it was some
// time ago. What is no proof, or that of another log, says nothing.
func (n *Notary) compare(ctx context.Context, proof []byte) error {
	if len(proof) == 0 {
		return nil
	}
	keys, err := n.store.NoteKeys(ctx, newKey)
	if err != nil {
		return err
	}
	p, err := ledger.ParseProof(proof)
	if err != nil {
		return nil
	}
	for _, k := range keys {
		if k.Kind != store.LogKey || !k.Closed.IsZero() {
			continue
		}
		v, err := note.NewVerifier(k.Public)
		if err != nil {
			return fmt.Errorf("read key %s: %w", k.Name, err)
		}
		c, err := ledger.OpenCheckpoint(p.Checkpoint, v)
		if err != nil {
			continue
		}
		log, err := open(k, n.store.Log(ctx, k.Name))
		if err != nil {
			return err
		}
		err = log.Continues(c)
		if errors.Is(err, ledger.ErrBehind) {
			return n.store.CloseLog(ctx, k.Name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Keys returns the public halves of the keys, those of closed logs too.
func (n *Notary) Keys(ctx context.Context) (record.NoteKeys, error) {
	keys, err := n.store.NoteKeys(ctx, newKey)
	out := record.NoteKeys{Units: []string{}, Log: []string{}}
	for _, k := range keys {
		if k.Kind == store.LogKey {
			out.Log = append(out.Log, k.Public)
		} else {
			out.Units = append(out.Units, k.Public)
		}
	}
	return out, err
}

// Checkpoint returns a checkpoint of the log that is in use, for whoever wants to compare it later, or to cosign it. For an old size of at
// least 0 it returns the proof that the log goes on from there, with the checkpoint, in the form in which a witness is asked. The error
// wraps ledger.ErrProof if the log is smaller than that.
func (n *Notary) Checkpoint(ctx context.Context, old int64) ([]byte, error) {
	log, _, err := n.current(ctx)
	if err != nil {
		return nil, err
	}
	checkpoint, err := log.Checkpoint()
	if err != nil || old < 0 {
		return checkpoint, err
	}
	g, err := log.ProveGrowth(old, checkpoint)
	if err != nil {
		return nil, err
	}
	return g.Marshal(), nil
}

// current returns the log that is in use, and its name.
func (n *Notary) current(ctx context.Context) (*ledger.Log, string, error) {
	keys, err := n.store.NoteKeys(ctx, newKey)
	if err != nil {
		return nil, "", err
	}
	for _, k := range keys {
		if k.Kind == store.LogKey && k.Closed.IsZero() {
			log, err := open(k, n.store.Log(ctx, k.Name))
			return log, k.Name, err
		}
	}
	return nil, "", fmt.Errorf("log: %w", store.ErrNotFound)
}

// newKey makes a key. Its name is one that no other server has, and no other log: it holds random digits.
func newKey(kind store.NoteKind) (store.NoteKey, error) {
	b := make([]byte, 8)
	rand.Read(b) // never fails: on an error crypto/rand ends the program
	k := store.NoteKey{Kind: kind, Name: fmt.Sprintf("gprovision.factory/%s/%s", hex.EncodeToString(b), kind)}
	private, public, err := note.GenerateKey(rand.Reader, k.Name)
	if err != nil {
		return store.NoteKey{}, fmt.Errorf("make key %s: %w", k.Name, err)
	}
	k.Private, k.Public = secret.Secret(private), public
	return k, nil
}
