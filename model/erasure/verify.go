package erasure

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/note"

	"gprovision/model/ledger"
)

// The endings of the files that lie beside a certificate, with that of its signature, signature.Suffix.
const (
	// VoucherSuffix is that of a server's statement over the unit's key.
	VoucherSuffix = ".voucher"
	// ProofSuffix is that of the proof that it is in a log.
	ProofSuffix = ".tlog-proof"
)

// Files are a certificate and what goes with it. What is not there is empty.
type Files struct {
	// Certificate is the file, Signature its detached signature by the unit's key.
	Certificate, Signature []byte
	// Voucher is a server's statement over the unit's key.
	Voucher []byte
	// Proof proves that the certificate is in a log.
	Proof []byte
	// Checkpoint is one of that log that somebody has from elsewhere, alone or as a proof of growth from that of Proof.
	Checkpoint []byte
}

// Keys are those that whoever checks believes.
type Keys struct {
	// Servers are those by which servers vouch for keys of units.
	Servers []note.Verifier
	// Logs are those of logs.
	Logs []note.Verifier
	// Witnesses are those of witnesses of these logs.
	Witnesses []*ledger.Witness
}

// Checked is what a check found. What it holds is so.
type Checked struct {
	// Certificate is what the unit says.
	Certificate Certificate
	// Voucher is who vouches for the unit's key, nothing if nobody does.
	Voucher *Voucher
	// NotVouched says why nobody does.
	NotVouched string
	// Logged is a checkpoint of the log that has the certificate, nothing if none is known to have it.
	Logged *ledger.Checkpoint
	// Index is its number there.
	Index int64
	// NotLogged says why none is known.
	NotLogged string
	// Compared reports that the log goes on to Files.Checkpoint, or is there already.
	Compared bool
	// NotCompared says why that is not known.
	NotCompared string
	// Cosigned are the witnesses that are known and have seen that the log, with the certificate in it, only grows.
	Cosigned []ledger.Cosignature
}

// Record returns what a log holds of a certificate: its name and hash, and nothing that it says.
func Record(certificate []byte) []byte {
	return fmt.Appendf(nil, "gprovision erase certificate v1\n%x\n", sha256.Sum256(certificate))
}

// ErrForked says that a log shows some a content and others another one.
var ErrForked = errors.New("the log shows different contents to different people")

// Verify checks a certificate and all that goes with it, offline. What is missing, or made by a key that is not known, is said in the
// answer; what is there and does not hold is an error.
func Verify(f Files, keys Keys) (Checked, error) {
	c, err := ParseSigned(f.Certificate, f.Signature)
	if err != nil {
		return Checked{}, err
	}
	out := Checked{Certificate: c}
	for _, check := range []func(Files, Keys) error{out.vouched, out.logged, out.compared, out.cosigned} {
		if err := check(f, keys); err != nil {
			return Checked{}, err
		}
	}
	return out, nil
}

func (c *Checked) vouched(f Files, keys Keys) error {
	if len(f.Voucher) == 0 {
		c.NotVouched = "there is no statement of a server over its key"
		return nil
	}
	v, err := OpenVoucher(f.Voucher, keys.Servers...)
	switch {
	case errors.Is(err, ErrNobody):
		c.NotVouched = "the statement over its key is signed by no server that is known"
		return nil
	case err != nil:
		return err
	case v.Unit != c.Certificate.Unit || !bytes.Equal(v.Key, c.Certificate.Key):
		return fmt.Errorf("the statement is over another key, that of %q: %w", v.Unit, ErrVoucher)
	}
	c.Voucher = &v
	return nil
}

func (c *Checked) logged(f Files, keys Keys) error {
	if len(f.Proof) == 0 {
		c.NotLogged = "there is no proof that a log has it"
		return nil
	}
	p, err := ledger.ParseProof(f.Proof)
	if err != nil {
		return err
	}
	at, err := p.Verify(Record(f.Certificate), keys.Logs...)
	switch {
	case errors.Is(err, ledger.ErrNobody):
		c.NotLogged = "the proof that a log has it is signed by no log that is known"
		return nil
	case err != nil:
		return err
	}
	c.Logged, c.Index = &at, p.Index
	return nil
}

func (c *Checked) compared(f Files, keys Keys) error {
	if len(f.Checkpoint) == 0 {
		c.NotCompared = "there is no other checkpoint to compare with"
		return nil
	}
	if c.Logged == nil {
		c.NotCompared = "the certificate is in no log that is known"
		return nil
	}
	if g, err := ledger.ParseGrowth(f.Checkpoint); err == nil {
		if _, err := g.Verify(*c.Logged, keys.Logs...); err != nil {
			return fmt.Errorf("%w: %w", ErrForked, err)
		}
		c.Compared = true
		return nil
	}
	other, err := ledger.OpenCheckpoint(f.Checkpoint, keys.Logs...)
	switch {
	case err != nil:
		return err
	case other.Origin != c.Logged.Origin:
		c.NotCompared = "the other checkpoint is that of another log"
	case other.Size != c.Logged.Size:
		c.NotCompared = "the other checkpoint has another size, and no proof that one goes on from the other"
	case other.Root != c.Logged.Root:
		return fmt.Errorf("two checkpoints of %d records of %q: %w", other.Size, other.Origin, ErrForked)
	default:
		c.Compared = true
	}
	return nil
}

// cosigned finds the witnesses that have signed the checkpoint of the proof, or the other one, which goes on from it.
func (c *Checked) cosigned(f Files, keys Keys) error {
	if c.Logged == nil {
		return nil
	}
	p, err := ledger.ParseProof(f.Proof)
	if err != nil {
		return err
	}
	checkpoints := [][]byte{p.Checkpoint}
	if g, err := ledger.ParseGrowth(f.Checkpoint); c.Compared && err == nil {
		checkpoints = append(checkpoints, g.Checkpoint)
	} else if c.Compared {
		checkpoints = append(checkpoints, f.Checkpoint)
	}
	c.Cosigned, err = ledger.Cosigners(keys.Witnesses, checkpoints...)
	return err
}

// ErrNotProved says that a certificate is genuine as far as it goes, and does not prove that the data is gone.
var ErrNotProved = errors.New("it is not proved that the data is gone")

// Holds returns an error unless the data of the main disks is proved to be gone, by a unit that somebody vouches for. With logged a log
// must have the certificate as well, and with compared go on to the other checkpoint; so many witnesses must have cosigned. The error wraps
// ErrNotProved.
func (c Checked) Holds(logged, compared bool, witnesses int) error {
	switch {
	case c.Certificate.Outcome != Proved:
		return fmt.Errorf("%w: the outcome is %s", ErrNotProved, c.Certificate.Outcome)
	case c.Voucher == nil:
		return fmt.Errorf("%w: signed by a unit nobody vouches for (%s)", ErrNotProved, c.NotVouched)
	case logged && c.Logged == nil:
		return fmt.Errorf("%w to whoever needs a log: not yet logged (%s)", ErrNotProved, c.NotLogged)
	case compared && !c.Compared:
		return fmt.Errorf("%w to whoever needs the log compared: %s", ErrNotProved, c.NotCompared)
	case len(c.Cosigned) < witnesses:
		return fmt.Errorf("%w to whoever needs witnesses: %d of those that are known have cosigned, and %d are demanded", ErrNotProved,
			len(c.Cosigned), witnesses)
	}
	return nil
}
