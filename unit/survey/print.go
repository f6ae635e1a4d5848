package survey

import (
	"fmt"
	"io"

	"gprovision/model/policy"
	"gprovision/unit/decide"
)

// Print writes the findings, and the decision that follows from them with the policy p if nobody at the machine
// chooses anything.
func Print(w io.Writer, f *Findings, p policy.Policy) {
	facts := f.Facts
	facts.Choice, facts.ShellAsked = decide.Choice{}, false
	medium := string(f.Medium)
	if medium == "" {
		medium = "none"
	}
	fmt.Fprintf(w, "recovery volume: %s\nmain system: %s, mark of %q\nrequest pending: %v\nmedium: %s\nwithout the shell: %s\n",
		f.Recovery, f.Main, f.Mark.Release, f.RestoreRequested(), medium, decide.Decide(facts, p))
	for _, n := range f.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
}
