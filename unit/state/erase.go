package state

import (
	"errors"
	"time"

	"gprovision/model/erasure"
)

// EraseFile says how far the last erase of the unit is, and how it ended.
const EraseFile = "state/erase.json" // Erase

// Erase is the last erase of the unit. An erase that is not resolved comes before everything else that a unit could do.
type Erase struct {
	rest
	// Version is the format version.
	Version int `json:"version"`
	// ID is that of the request that asked for it. The certificate names it as its run.
	ID string `json:"id"`
	// By says who asked, as in the request.
	By string `json:"by,omitempty"`
	// Started is when it began, by the unit's clock.
	Started time.Time `json:"started"`
	// Whole reports whether a person at the machine agreed that the drive of the recovery volume is erased as a whole.
	Whole bool `json:"whole,omitempty"`
	// StandIn is the identifier of the partition that this file lies on, where that stands in for the recovery volume while the
	// device of that is erased. The volume counts as long as it says so.
	StandIn string `json:"standIn,omitempty"`
	// Outcome is how it ended. It is empty as long as it goes on.
	Outcome erasure.Outcome `json:"outcome,omitempty"`
	// Resolved reports whether nothing is left to do or to show of it: it was proved and shown, or a person or the policy
	// has accepted its outcome.
	Resolved bool `json:"resolved,omitempty"`
	// ResolvedBy is the identifier of the support key whose owner had the unit go on after an outcome that is no better than
	// unknown. It is empty where nobody did.
	ResolvedBy string `json:"resolvedBy,omitempty"`
	// ResolvedAt is when, by the unit's clock.
	ResolvedAt time.Time `json:"resolvedAt,omitzero"`
}

func (e Erase) validate() error {
	switch e.Outcome {
	case "", erasure.Proved, erasure.Weaker, erasure.Unknown, erasure.Failed:
	default:
		return errors.New("outcome is not known")
	}
	switch {
	case !isID(e.ID):
		return errors.New("id is not 8 to 64 hexadecimal digits")
	case e.Resolved && e.Outcome == "":
		return errors.New("an erase without an outcome is resolved")
	case e.Resolved && e.StandIn != "":
		return errors.New("an erase is resolved whose volume stands in for another")
	case e.ResolvedBy != "" && !e.Resolved:
		return errors.New("an erase that is not resolved names who did that")
	}
	return errors.Join(printable("by", e.By, 256), printable("resolvedBy", e.ResolvedBy, 64), printable("standIn", e.StandIn, 64))
}

// ReadErase returns the last erase of the unit.
func ReadErase(v *Volume) (Erase, error) {
	b, err := v.read(EraseFile, maxSmall)
	if err != nil {
		return Erase{}, err
	}
	return parse[Erase](EraseFile, b)
}

// WriteErase replaces the state of the last erase.
func WriteErase(v *Volume, e Erase) error {
	e.Version = Version
	return v.writeJSON(EraseFile, e, e.validate(), 0o600)
}
