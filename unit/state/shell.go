package state

import (
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// Files of the recovery shell and of emergency media.
const (
	ShellFile  = "state/shell.json"  // Tries
	MediumFile = "state/medium.json" // Medium
)

// Tries counts wrong passwords at the recovery shell. The zero value is that of a new unit.
type Tries struct {
	rest
	// Version is the format version.
	Version int `json:"version"`
	// Failed is the number of wrong passwords in a row.
	Failed int `json:"failed"`
	// Good is the Counts.LastGood at which Failed was counted. A later good boot resets the count.
	Good time.Time `json:"good,omitzero"`
}

// ReadTries returns the tries since the last good boot. If the file is missing, there are none, and no error.
func (v *Volume) ReadTries() (Tries, error) {
	b, err := v.read(ShellFile, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return Tries{}, nil
	}
	if err != nil {
		return Tries{}, err
	}
	t, err := parse[Tries](ShellFile, b)
	if err != nil {
		return Tries{}, err
	}
	if c, err := v.ReadCounts(); err == nil && !c.LastGood.Equal(t.Good) {
		return Tries{}, nil
	}
	return t, nil
}

// WriteTries replaces the number of tries.
func (v *Volume) WriteTries(failed int) error {
	c, err := v.ReadCounts()
	if err != nil {
		c = Counts{}
	}
	var t Tries
	if b, err := v.read(ShellFile, maxSmall); err == nil {
		if t, err = parse[Tries](ShellFile, b); errors.Is(err, ErrNewer) {
			return fmt.Errorf("write %s: %w", ShellFile, err)
		}
	}
	t.Version, t.Failed, t.Good = Version, failed, c.LastGood
	return v.writeJSON(ShellFile, t, t.validate(), 0o600)
}

func (t Tries) validate() error {
	if t.Failed < 0 || t.Failed > maxCount {
		return fmt.Errorf("failed is out of range")
	}
	return nil
}

// Medium is the emergency medium of the unit's last restore.
type Medium struct {
	rest
	// Version is the format version.
	Version int `json:"version"`
	// ID identifies the image on the medium. It is the ID of the request that the restore fulfilled.
	ID string `json:"id"`
	// Image is the image's file name.
	Image string `json:"image"`
	// Removed reports whether a later boot did not find the medium. If it comes back after that, it is a new request.
	Removed bool `json:"removed,omitempty"`
}

// ReadMedium returns the medium of the last restore. The error wraps fs.ErrNotExist if there was none.
func (v *Volume) ReadMedium() (Medium, error) {
	b, err := v.read(MediumFile, maxSmall)
	if err != nil {
		return Medium{}, err
	}
	return parse[Medium](MediumFile, b)
}

// WriteMedium replaces what ReadMedium returns.
func (v *Volume) WriteMedium(m Medium) error {
	m.Version = Version
	return v.writeJSON(MediumFile, m, m.validate(), 0o600)
}

func (m Medium) validate() error {
	if !isID(m.ID) {
		return fmt.Errorf("id is not 8 to 64 hexadecimal digits")
	}
	if !isImage(m.Image) {
		return fmt.Errorf("image is not the name of an image")
	}
	return nil
}
