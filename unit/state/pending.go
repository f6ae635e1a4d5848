package state

import (
	"errors"
	"gprovision/hw/durable"
	"io/fs"
	"os"
)

// Where an image arrives, and what a fetched one leaves to do.
const (
	FetchDir    = "fetch"              // images on their way; what lies there is not proven
	PendingFile = "state/pending.json" // Pending
)

// Pending is what the next normal boot has to do. The zero value is nothing.
type Pending struct {
	rest
	// Version is the format version.
	Version int `json:"version"`
	// RecoveryArtifact reports whether the recovery artifact on the volume is a new one that the recovery device shall boot.
	RecoveryArtifact bool `json:"recoveryArtifact,omitempty"`
}

func (Pending) validate() error { return nil }

// ReadPending returns what the next normal boot has to do. A volume without the file gives the zero value and no error.
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

// WritePending replaces what the next normal boot has to do. Nothing to do removes the file.
func (v *Volume) WritePending(p Pending) error {
	p.Version = 0
	if p == (Pending{}) {
		return v.inside(func(r *os.Root) error { return durable.RemoveIn(r, PendingFile) })
	}
	p.Version = Version
	return v.writeJSON(PendingFile, p, nil, 0o600)
}
