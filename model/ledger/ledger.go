// Package ledger is an append-only log: records go in at its end, and whoever keeps a checkpoint can tell if one was ever changed, removed
// or hidden. It makes checkpoints, proofs that a record is in the log, and proofs that a later log goes on from an earlier one, and checks
// them without the log.
//
// The tree is that of RFC 6962, by golang.org/x/mod/sumdb/tlog. Checkpoints are those of C2SP (tlog-checkpoint, signed-note): the first
// line is the log's origin, which is also the name of the key that signs, and witnesses may add signatures (tlog-cosignature), which are
// kept and can be checked. Proofs have the form of C2SP tlog-proof and of the requests of tlog-witness.
//
// It stores nothing itself: see Store. What a record means is for others to know. A record is never taken out again.
package ledger

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Limits of what is read.
const (
	// MaxCheckpoint is the largest size of a checkpoint in bytes: sixteen signatures of any kind.
	MaxCheckpoint = 128 << 10
	// MaxRecord is the largest size of a record in bytes.
	MaxRecord = 64 << 10
	// maxHashes is the largest number of hashes of a proof: no tree is higher.
	maxHashes = 63
)

// Errors of this package wrap one of these.
var (
	// ErrFormat says that a text is no checkpoint or no proof.
	ErrFormat = errors.New("not in the format of a log")
	// ErrNobody says that no key that is known has signed a checkpoint.
	ErrNobody = errors.New("no key of a log that is known has signed the checkpoint")
	// ErrProof says that a proof proves something else, or nothing.
	ErrProof = errors.New("the proof does not hold")
	// ErrBehind says that a log lacks what a checkpoint of it has: it was restored from a backup, or is another one. Such a log must be
	// given a new origin.
	ErrBehind = errors.New("the log does not have what this checkpoint has")
	// ErrMoved says that a record came in between: try again.
	ErrMoved = errors.New("the log has grown meanwhile")
)

// Store keeps the records and hashes of one log.
type Store interface {
	// ReadHashes returns stored hashes, in the numbering of tlog.StoredHashIndex.
	tlog.HashReader
	// Size returns how many records there are.
	Size() (int64, error)
	// Append stores record n with the hashes that follow those there are, all or nothing, through to the disk. The error wraps ErrMoved if
	// there are not n records.
	Append(n int64, record []byte, hashes []tlog.Hash) error
}

// Log is a log that can be written to. It may be used by several at once if its Store may.
type Log struct {
	store  Store
	signer note.Signer
}

// New returns the log in a store. The name of the signer is the log's origin.
func New(store Store, signer note.Signer) *Log { return &Log{store, signer} }

// Append adds a record and returns its number. It is in the log for good.
func (l *Log) Append(record []byte) (int64, error) {
	if len(record) > MaxRecord {
		return 0, fmt.Errorf("append a record of %d bytes, at most %d: %w", len(record), MaxRecord, ErrFormat)
	}
	n, err := l.store.Size()
	if err != nil {
		return 0, fmt.Errorf("append record: %w", err)
	}
	hashes, err := tlog.StoredHashes(n, record, l.store)
	if err != nil {
		return 0, fmt.Errorf("append record %d: %w", n, err)
	}
	if err := l.store.Append(n, record, hashes); err != nil {
		return 0, fmt.Errorf("append record %d: %w", n, err)
	}
	return n, nil
}

// Checkpoint returns a signed checkpoint of the log as it is.
func (l *Log) Checkpoint() ([]byte, error) {
	n, err := l.store.Size()
	if err != nil {
		return nil, fmt.Errorf("make checkpoint: %w", err)
	}
	root, err := tlog.TreeHash(n, l.store)
	if err != nil {
		return nil, fmt.Errorf("make checkpoint of %d records: %w", n, err)
	}
	c := Checkpoint{Origin: l.signer.Name(), Size: n, Root: root}
	b, err := note.Sign(&note.Note{Text: c.text()}, l.signer)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	return b, nil
}

// Prove returns the proof that record n is in the log, by a checkpoint of it that has the record.
func (l *Log) Prove(n int64, checkpoint []byte) (Proof, error) {
	c, err := readCheckpoint(checkpoint)
	if err == nil {
		err = l.Continues(c.Checkpoint)
	}
	if err != nil {
		return Proof{}, fmt.Errorf("prove record %d: %w", n, err)
	}
	if n < 0 || n >= c.Size {
		return Proof{}, fmt.Errorf("prove record %d of %d: %w", n, c.Size, ErrProof)
	}
	hashes, err := tlog.ProveRecord(c.Size, n, l.store)
	if err != nil {
		return Proof{}, fmt.Errorf("prove record %d: %w", n, err)
	}
	return Proof{n, hashes, checkpoint}, nil
}

// ProveGrowth returns the proof that a checkpoint of the log goes on from an earlier size.
func (l *Log) ProveGrowth(old int64, checkpoint []byte) (Growth, error) {
	c, err := readCheckpoint(checkpoint)
	if err == nil {
		err = l.Continues(c.Checkpoint)
	}
	if err != nil {
		return Growth{}, fmt.Errorf("prove growth from %d: %w", old, err)
	}
	if old < 0 || old > c.Size {
		return Growth{}, fmt.Errorf("prove growth from %d to %d: %w", old, c.Size, ErrProof)
	}
	var hashes tlog.TreeProof
	if old > 0 {
		if hashes, err = tlog.ProveTree(c.Size, old, l.store); err != nil {
			return Growth{}, fmt.Errorf("prove growth from %d to %d: %w", old, c.Size, err)
		}
	}
	return Growth{old, hashes, checkpoint}, nil
}

// Continues returns an error unless the log has all that a checkpoint has, as it has it. The error wraps ErrBehind.
func (l *Log) Continues(c Checkpoint) error {
	n, err := l.store.Size()
	if err != nil {
		return fmt.Errorf("compare log with checkpoint: %w", err)
	}
	if c.Origin != l.signer.Name() || c.Size > n {
		return fmt.Errorf("%q has %d records, the checkpoint of %q has %d: %w", l.signer.Name(), n, c.Origin, c.Size, ErrBehind)
	}
	root, err := tlog.TreeHash(c.Size, l.store)
	if err != nil {
		return fmt.Errorf("compare log with checkpoint: %w", err)
	}
	if root != c.Root {
		return fmt.Errorf("the first %d records are others: %w", c.Size, ErrBehind)
	}
	return nil
}

// Checkpoint says what a log was at one time: its size, and a hash that no other content has.
type Checkpoint struct {
	// Origin names the log.
	Origin string
	// Size is how many records it has.
	Size int64
	// Root is the hash of all of them.
	Root tlog.Hash
	// Others are the names of signatures that were not checked, such as those of witnesses.
	Others []string
}

func (c Checkpoint) text() string { return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, c.Root) }

// OpenCheckpoint reads a checkpoint that one of the known keys has signed: the one with the name of its origin. The error wraps ErrNobody
// if none has, else ErrFormat.
func OpenCheckpoint(file []byte, known ...note.Verifier) (Checkpoint, error) {
	c, err := readCheckpoint(file, known...)
	if err != nil {
		return Checkpoint{}, err
	}
	if !c.signed {
		return Checkpoint{}, fmt.Errorf("checkpoint of %q: %w", c.Origin, ErrNobody)
	}
	return c.Checkpoint, nil
}

// opened is a checkpoint and whether a key that is known has signed it in the name of its origin.
type opened struct {
	Checkpoint
	signed bool
}

// readCheckpoint reads a checkpoint, by whomever it is signed.
func readCheckpoint(file []byte, known ...note.Verifier) (opened, error) {
	if len(file) > MaxCheckpoint {
		return opened{}, fmt.Errorf("checkpoint of %d bytes, at most %d: %w", len(file), MaxCheckpoint, ErrFormat)
	}
	n, err := note.Open(file, note.VerifierList(known...))
	var nobody *note.UnverifiedNoteError
	if errors.As(err, &nobody) {
		n, err = nobody.Note, nil
	}
	if err != nil {
		return opened{}, fmt.Errorf("checkpoint: %w: %w", ErrFormat, err)
	}
	lines := strings.Split(n.Text, "\n") // the last one is empty: a note's text ends with a line break
	if len(lines) < 4 || lines[0] == "" {
		return opened{}, fmt.Errorf("checkpoint of %d lines: %w", len(lines)-1, ErrFormat)
	}
	var c opened
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return opened{}, fmt.Errorf("checkpoint of %.40q records: %w", lines[1], ErrFormat)
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil || root.String() != lines[2] {
		return opened{}, fmt.Errorf("checkpoint with root %.60q: %w", lines[2], ErrFormat)
	}
	for _, extension := range lines[3 : len(lines)-1] {
		if extension == "" {
			return opened{}, fmt.Errorf("checkpoint with an empty line: %w", ErrFormat)
		}
	}
	c.Origin, c.Size, c.Root = lines[0], size, root
	for _, s := range n.Sigs {
		c.signed = c.signed || s.Name == c.Origin
	}
	for _, s := range n.UnverifiedSigs {
		c.Others = append(c.Others, s.Name)
	}
	return c, nil
}
