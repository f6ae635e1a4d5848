package policy

import (
	"fmt"
	"slices"
)

// What a policy may say of an erase. The first value of each is what counts if it says nothing.
const (
	EraseAny   = ""      // any level is enough
	EraseClear = "clear" // NIST SP 800-88: against whoever reads the drive by its ordinary commands
	ErasePurge = "purge" // against a laboratory

	AcceptHold    = "hold"    // an outcome that is weaker than proved waits for a person
	AcceptRestore = "restore" // where nobody can press a key, the unit restores itself

	VerifySamples = "samples" // of each drive of 64 GiB and more; a smaller one is read as a whole
	VerifyFull    = "full"    // each drive is read as a whole

	DCOKeep    = "keep"    // what a device configuration overlay hides is not reached
	DCORestore = "restore" // such an overlay is taken away, for good

	OneDiskRanges = "ranges" // what shares a drive with the recovery volume is overwritten around it
	OneDiskWhole  = "whole"  // the whole drive is erased, if a person agreed twice; the unit cannot restore itself afterwards

	RecoveryKeep    = "keep"    // the free space of the recovery volume is overwritten
	RecoveryRebuild = "rebuild" // a recovery device of its own is erased as the main disks are, and made anew
)

// Erase is the part of a policy about erases.
type Erase struct {
	// Require is the level below which an erase has failed: EraseAny, EraseClear or ErasePurge.
	Require string `json:"require,omitempty"`
	// Accept is AcceptHold or AcceptRestore. Empty: AcceptHold.
	Accept string `json:"accept,omitempty"`
	// Verify is VerifySamples or VerifyFull. Empty: VerifySamples.
	Verify string `json:"verify,omitempty"`
	// DCO is DCOKeep or DCORestore. Empty: DCOKeep.
	DCO string `json:"dco,omitempty"`
	// OneDisk is OneDiskRanges or OneDiskWhole. Empty: OneDiskRanges.
	OneDisk string `json:"oneDisk,omitempty"`
	// Recovery is RecoveryKeep or RecoveryRebuild. Empty: RecoveryKeep.
	Recovery string `json:"recovery,omitempty"`
	// ShowMinutes is how long a proved erase is shown, if nobody presses a key. 0: until somebody does.
	ShowMinutes int `json:"showMinutes,omitempty"`
}

func (e Erase) validate() error {
	for _, c := range []struct {
		key, value string
		want       []string
	}{
		{"require", e.Require, []string{EraseClear, ErasePurge}},
		{"accept", e.Accept, []string{AcceptHold, AcceptRestore}},
		{"verify", e.Verify, []string{VerifySamples, VerifyFull}},
		{"dco", e.DCO, []string{DCOKeep, DCORestore}},
		{"oneDisk", e.OneDisk, []string{OneDiskRanges, OneDiskWhole}},
		{"recovery", e.Recovery, []string{RecoveryKeep, RecoveryRebuild}},
	} {
		if c.value != "" && !slices.Contains(c.want, c.value) {
			return fmt.Errorf("policy erase.%s is %q, want nothing, %q or %q", c.key, c.value, c.want[0], c.want[1])
		}
	}
	return nil
}

// show returns the keys of e as Policy.Show does.
func (e Erase) show() []Shown {
	says := func(key, value, otherwise string, means map[string]string) Shown {
		s := Shown{Key: "erase." + key, Value: value, Set: value != ""}
		if value == "" {
			s.Value = otherwise
		}
		s.Means = means[s.Value]
		return s
	}
	shown := Shown{"erase.showMinutes", "forever", false, "how long a proved erase is shown, unless a key is pressed"}
	if e.ShowMinutes != 0 {
		shown.Value, shown.Set = fmt.Sprintf("%d min", e.ShowMinutes), true
	}
	return []Shown{
		says("require", e.Require, "any", map[string]string{"any": "an erase of any level counts", EraseClear: "an erase below Clear has failed",
			ErasePurge: "an erase below Purge has failed"}),
		says("accept", e.Accept, AcceptHold, map[string]string{AcceptHold: "an erase that is weaker than proved waits for a person",
			AcceptRestore: "where nobody can press a key, a unit restores itself after an erase that is weaker than proved"}),
		says("verify", e.Verify, VerifySamples, map[string]string{
			VerifySamples: "samples of large drives are read after an erase, and all of small ones",
			VerifyFull:    "all drives are read as a whole after an erase"}),
		says("dco", e.DCO, DCOKeep, map[string]string{
			DCOKeep:    "what a device configuration overlay of an ATA drive hides is not erased",
			DCORestore: "a device configuration overlay of an ATA drive is taken away, for good, and what it hides is erased"}),
		says("oneDisk", e.OneDisk, OneDiskRanges, map[string]string{
			OneDiskRanges: "what shares a drive with the recovery volume is overwritten around it",
			OneDiskWhole:  "a drive with the recovery volume is erased as a whole, if a person agrees twice"}),
		says("recovery", e.Recovery, RecoveryKeep, map[string]string{
			RecoveryKeep:    "the free space of the recovery volume is overwritten",
			RecoveryRebuild: "a recovery device of its own is erased and made anew, by way of a main disk whose erase is proved"}),
		shown,
	}
}
