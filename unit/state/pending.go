package state

import (
	"errors"
	"io/fs"
	"os"

	"gprovision/hw/durable"
)

// Where images arrive, and what they leave to do.
const (
	FetchDir    = "fetch"              // images in transit, not yet proven
	PendingFile = "state/pending.json" // Pending
)

// Pending is the work left for the next normal boot. The zero value means none.
type Pending struct {
	rest
	// Version is the format version.
	Version int `json:"version"`
	// RecoveryArtifact reports whether the volume has a new recovery artifact that the recovery device does not boot
	// yet.
	RecoveryArtifact bool `json:"recoveryArtifact,omitempty"`
}

func (Pending) validate() error { return nil }

// ReadPending returns the work left for the next normal boot. If the file is missing, it returns the zero value and
// no error.
func (v *Volume) ReadPending() (Pending, error) {
	b, err := v.read(PendingFile, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return Pending{}, nil
	}
	if err != nil {
		return Pending{}, err
	}
	return parse[Pending](PendingFile, b)
}

// WritePending replaces the work left for the next normal boot. If there is none, it removes the file.
func (v *Volume) WritePending(p Pending) error {
	p.Version = 0
	if p == (Pending{}) {
		return v.inside(func(r *os.Root) error { return durable.RemoveIn(r, PendingFile) })
	}
	p.Version = Version
	return v.writeJSON(PendingFile, p, nil, 0o600)
}
