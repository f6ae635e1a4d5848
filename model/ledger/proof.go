package ledger

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// proofTitle is the first line of a proof of a record.
const proofTitle = "c2sp.org/tlog-proof@v1"

// MaxProof is the largest size of a proof in bytes.
const MaxProof = MaxCheckpoint + 16<<10

// Proof proves that a record is in a log. The file ends with ".tlog-proof".
type Proof struct {
	// Index is the number of the record, from 0.
	Index int64
	// Hashes lead from the record to the root.
	Hashes tlog.RecordProof
	// Checkpoint is one of the log that has the record, as it was signed.
	Checkpoint []byte
}

// Marshal returns the file (C2SP tlog-proof).
func (p Proof) Marshal() []byte {
	return marshal(fmt.Sprintf("%s\nindex %d\n", proofTitle, p.Index), p.Hashes, p.Checkpoint)
}

// ParseProof reads what Marshal wrote, or another program. It proves nothing yet. A line of extra data is passed over: it is not part of
// what is proved.
func ParseProof(file []byte) (Proof, error) {
	head, hashes, checkpoint, err := parse(file)
	if err != nil {
		return Proof{}, err
	}
	if len(head) == 3 && strings.HasPrefix(head[1], "extra ") {
		head = append(head[:1:1], head[2])
	}
	if len(head) != 2 || head[0] != proofTitle {
		return Proof{}, fmt.Errorf("proof: it does not begin with %s: %w", proofTitle, ErrFormat)
	}
	n, err := number(head[1], "index ")
	return Proof{n, hashes, checkpoint}, err
}

// Verify returns the checkpoint, signed by one of the known keys, that has the record. The error wraps ErrProof if it has not, ErrNobody
// or ErrFormat.
func (p Proof) Verify(record []byte, known ...note.Verifier) (Checkpoint, error) {
	c, err := OpenCheckpoint(p.Checkpoint, known...)
	if err != nil {
		return Checkpoint{}, err
	}
	if err := tlog.CheckRecord(p.Hashes, c.Size, c.Root, p.Index, tlog.RecordHash(record)); err != nil {
		return Checkpoint{}, fmt.Errorf("record %d of %d: %w: %w", p.Index, c.Size, ErrProof, err)
	}
	return c, nil
}

// Growth proves that a log goes on from what it was.
type Growth struct {
	// Old is the earlier size.
	Old int64
	// Hashes lead from the earlier root to the later one.
	Hashes tlog.TreeProof
	// Checkpoint is the later one, as it was signed.
	Checkpoint []byte
}

// Marshal returns the text in which a witness is asked to cosign (C2SP tlog-witness).
func (g Growth) Marshal() []byte {
	return marshal(fmt.Sprintf("old %d\n", g.Old), g.Hashes, g.Checkpoint)
}

// ParseGrowth reads what Marshal wrote. It proves nothing yet.
func ParseGrowth(file []byte) (Growth, error) {
	head, hashes, checkpoint, err := parse(file)
	if err != nil {
		return Growth{}, err
	}
	if len(head) != 1 {
		return Growth{}, fmt.Errorf("proof of growth: it does not begin with the old size: %w", ErrFormat)
	}
	n, err := number(head[0], "old ")
	return Growth{n, hashes, checkpoint}, err
}

// Verify returns the later checkpoint, signed by one of the known keys, if the log goes on from the earlier one. The error wraps ErrProof
// if it does not, ErrNobody or ErrFormat.
func (g Growth) Verify(old Checkpoint, known ...note.Verifier) (Checkpoint, error) {
	c, err := OpenCheckpoint(g.Checkpoint, known...)
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Origin != old.Origin || g.Old != old.Size {
		return Checkpoint{}, fmt.Errorf("growth of %q from %d, and the earlier checkpoint has %d of %q: %w", c.Origin, g.Old, old.Size,
			old.Origin, ErrProof)
	}
	if old.Size == 0 { // every log goes on from the empty one
		if root, err := tlog.TreeHash(0, nil); err != nil || old.Root != root || len(g.Hashes) > 0 {
			return Checkpoint{}, fmt.Errorf("growth from an empty log that is none: %w", ErrProof)
		}
		return c, nil
	}
	if err := tlog.CheckTree(g.Hashes, c.Size, c.Root, old.Size, old.Root); err != nil {
		return Checkpoint{}, fmt.Errorf("growth from %d to %d: %w: %w", old.Size, c.Size, ErrProof, err)
	}
	return c, nil
}

func marshal(head string, hashes []tlog.Hash, checkpoint []byte) []byte {
	b := []byte(head)
	for _, h := range hashes {
		b = append(b, h.String()+"\n"...)
	}
	return append(append(b, '\n'), checkpoint...)
}

// parse splits a proof: the lines before the hashes, the hashes, the checkpoint behind the first empty line.
func parse(file []byte) (head []string, hashes []tlog.Hash, checkpoint []byte, err error) {
	if len(file) > MaxProof {
		return nil, nil, nil, fmt.Errorf("proof of %d bytes, at most %d: %w", len(file), MaxProof, ErrFormat)
	}
	text, checkpoint, ok := bytes.Cut(file, []byte("\n\n"))
	if !ok {
		return nil, nil, nil, fmt.Errorf("proof without a checkpoint: %w", ErrFormat)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		h, err := tlog.ParseHash(line)
		switch {
		case err == nil && h.String() == line:
			hashes = append(hashes, h)
		case len(hashes) == 0:
			head = append(head, line)
		default:
			return nil, nil, nil, fmt.Errorf("proof with the line %.60q: %w", line, ErrFormat)
		}
	}
	if len(hashes) > maxHashes || len(head) > 3 {
		return nil, nil, nil, fmt.Errorf("proof of %d hashes, at most %d: %w", len(hashes), maxHashes, ErrFormat)
	}
	return head, hashes, checkpoint, nil
}

// number reads a line of a name and a number.
func number(line, name string) (int64, error) {
	text, ok := strings.CutPrefix(line, name)
	n, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil || n < 0 || strconv.FormatInt(n, 10) != text {
		return 0, fmt.Errorf("proof with the line %.60q, want %sNUMBER: %w", line, name, ErrFormat)
	}
	return n, nil
}
