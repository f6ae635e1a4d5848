package erasure

import "fmt"

// Volume is what was done to the recovery volume, on which some files stay: those of the customer are unlinked, and its free space is
// overwritten from within, since old copies of files are there.
type Volume struct {
	// Name is the kernel's name of its partition. Model and Serial are what its device says of itself.
	Name   string `json:"name"`
	Model  string `json:"model"`
	Serial string `json:"serial"`
	// Bytes is the size of the partition.
	Bytes Count `json:"bytes"`
	// Filesystem is the kind of filesystem.
	Filesystem string `json:"filesystem"`
	// Unlinked is how many files were unlinked, at least.
	Unlinked Count `json:"unlinked"`
	// Free is how many bytes no file had after that.
	Free Count `json:"free"`
	// Filled is how many bytes were written to the free space, a keyed stream.
	Filled Count `json:"filled"`
	// Left is how many bytes no file had when no more could be written.
	Left Count `json:"left"`
	// Flushed reports that all that was written was also flushed.
	Flushed bool `json:"flushed"`
	// Uncached reports that it was read back past the page cache.
	Uncached bool `json:"uncached"`
	// ReadBack is how many bytes were read back as they were written, Different how many as something else.
	ReadBack  Count `json:"readBack"`
	Different Count `json:"different"`
	// Discarded is how many bytes the device was told afterwards that nobody needs. 0: it cannot be told.
	Discarded Count `json:"discarded"`
	// NotReached is what of it was not reached.
	NotReached []string `json:"notReached,omitempty"`
	// Outcome, Level and Reasons are those that JudgeVolume makes of it.
	Outcome Outcome  `json:"outcome"`
	Level   Level    `json:"level"`
	Reasons []Reason `json:"reasons,omitempty"`
}

// volumeLevel is what an overwrite from within reaches at best.
const volumeLevel = Clear

// volumeRules is the table of all rules for a Volume, the worst outcomes first. docs/formats/erase-certificate.md has the same table.
func volumeRules() []rule[Volume] {
	return []rule[Volume]{
		{Failed, "different", "something else was read from the free space than was written to it",
			func(v Volume, _ Level) bool { return v.Different > 0 }},
		{Failed, "below-required", "its level is below the one that the policy demands",
			func(_ Volume, require Level) bool { return volumeLevel.rank() < require.rank() }},

		{Unknown, "not-filled", "nothing was written to the free space",
			func(v Volume, _ Level) bool { return v.Free > 0 && v.Filled == 0 }},
		{Unknown, "not-read-back", "what was written to the free space was not flushed, or not all of it was read back from the medium",
			func(v Volume, _ Level) bool { return !v.Flushed || !v.Uncached || v.ReadBack+v.Different != v.Filled }},

		{Weaker, "left", "some of the free space could not be filled", func(v Volume, _ Level) bool { return v.Left > 0 }},
		{Weaker, "from-within", "a filesystem was filled from within: its journal, its tables and old names in its directories stay",
			func(Volume, Level) bool { return true }},
	}
}

// JudgeVolume makes the outcome of the recovery volume from what was done to it. require is the level that the policy demands; empty: none.
func JudgeVolume(v Volume, require Level) Verdict {
	return apply(volumeRules(), v, volumeLevel, require)
}

// Headline says in one line how main disks and recovery volume were erased, and how it ended with each part that is not seen to be cleared.
func (c Certificate) Headline() string {
	out := "main disks " + Result{c.Outcome, c.Level}.String()
	if c.Recovery != nil {
		out += ", recovery volume " + c.Recovery.String()
	}
	for _, p := range c.Parts {
		if p.State != Cleared {
			out += fmt.Sprintf(", %s %s", p.Name, p.State)
		}
	}
	return out
}

// String returns the outcome, with the level where that says something.
func (r Result) String() string {
	if r.Outcome == Proved || r.Outcome == Weaker {
		return fmt.Sprintf("%s (%s)", r.Outcome, r.Level)
	}
	return string(r.Outcome)
}
