package erasure

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Part is something of a unit that holds secrets and is no drive, such as its TPM. It changes the outcome of no drive.
type Part struct {
	// Name says what it is, such as "TPM 2.0 (INTC)".
	Name string `json:"name"`
	// Commands are all that was sent to clear it, in order.
	Commands []PartCommand `json:"commands,omitempty"`
	// Told reports that it said itself that it was cleared.
	Told bool `json:"told"`
	// Requested reports that the firmware was asked to clear it at the next start, and that this start did not come yet.
	Requested bool `json:"requested"`
	// Seen is what was looked at before and afterwards.
	Seen []Sight `json:"seen,omitempty"`
	// State is what follows from the others.
	State PartState `json:"state"`
}

// PartCommand is a command to a part, or a request to the firmware.
type PartCommand struct {
	Name string `json:"name"`
	// Status is what came of it.
	Status string `json:"status"`
	// At is when that was, in UTC, in whole seconds.
	At time.Time `json:"at"`
}

// Sight is one thing of a part that was looked at before and afterwards.
type Sight struct {
	// What was looked at, such as "key of the storage hierarchy".
	What string `json:"what"`
	// Found is what became of it.
	Found Found `json:"found"`
}

// Found is what became of something.
type Found string

// What can become of it.
const (
	FoundGone    Found = "gone"    // it was there before, and is not there now
	FoundLeft    Found = "left"    // it is there as before
	FoundUnknown Found = "unknown" // it could not be looked at, before or afterwards
)

// PartState says how it ended with a part.
type PartState string

// The states. Only the first is shown as done.
const (
	Cleared    PartState = "cleared"   // that was seen
	Requested  PartState = "requested" // the firmware is to do it
	NotCleared PartState = "failed"    // something of it is left, or nothing was done
	NotSeen    PartState = "unknown"   // it says so itself, and nobody has seen it
)

// partRule says which state a part has when something holds of it.
type partRule struct {
	state    PartState
	sentence string
	holds    func(Part) bool
}

// partRules are in the order in which they count: the first one that holds.
func partRules() []partRule {
	found := func(f Found) func(Part) bool {
		return func(p Part) bool { return slices.ContainsFunc(p.Seen, func(s Sight) bool { return s.Found == f }) }
	}
	gone, left := found(FoundGone), found(FoundLeft)
	return []partRule{
		{Cleared, "cleared, and that was seen", func(p Part) bool { return gone(p) && !left(p) }},
		{Requested, "the firmware is asked to clear it at the next start; that was not seen", func(p Part) bool { return p.Requested }},
		{NotCleared, "not cleared", func(p Part) bool { return left(p) || !p.Told }},
		{NotSeen, "it says that it is cleared, and nobody has seen that", func(Part) bool { return true }},
	}
}

// Judged returns the part with the state that follows.
func (p Part) Judged() Part {
	for _, r := range slices.Backward(partRules()) {
		if r.holds(p) {
			p.State = r.state
		}
	}
	return p
}

// Sentence says in plain English how it ended, without a full stop.
func (s PartState) Sentence() string {
	for _, r := range partRules() {
		if r.state == s {
			return r.sentence
		}
	}
	return "a state that this version does not know: " + string(s)
}

// check returns an error if what p names is not what it must be.
func (p Part) check() error {
	if p.Name == "" {
		return errors.New("a part has no name")
	}
	for _, s := range p.Seen {
		if !slices.Contains([]Found{FoundGone, FoundLeft, FoundUnknown}, s.Found) {
			return fmt.Errorf("part %q: %s: found %q", p.Name, s.What, s.Found)
		}
	}
	return nil
}
