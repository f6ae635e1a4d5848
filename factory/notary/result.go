package notary

import (
	"slices"
	"time"

	"gprovision/factory/store"
	"gprovision/model/erasure"
)

// good is the status of a command that a drive took, as certificates of our units have it.
const good = "good"

// results returns what became of each method on each drive, in the order in which they were tried. It names neither unit nor serial number.
func results(c erasure.Certificate) []store.DriveResult {
	var out []store.DriveResult
	for _, d := range c.Drives {
		var methods []erasure.Method
		for _, command := range d.Commands {
			if !slices.Contains(methods, command.Method) {
				methods = append(methods, command.Method)
			}
		}
		for i, m := range methods {
			first := slices.IndexFunc(d.Commands, func(c erasure.Command) bool { return c.Method == m })
			until := c.Ended // looking at the samples is part of it
			if i+1 < len(methods) {
				next := slices.IndexFunc(d.Commands, func(c erasure.Command) bool { return c.Method == methods[i+1] })
				until = d.Commands[next].Started
			}
			took := max(0, until.Sub(d.Commands[first].Started))
			out = append(out, store.DriveResult{
				Model: d.Model, Firmware: d.Firmware, Bus: d.Bus, Method: string(m), Result: result(d, m), Seconds: int64(took / time.Second),
			})
		}
	}
	return out
}

// result says what became of one method. Of a method that another one followed a certificate has no more than the commands.
func result(d erasure.Drive, m erasure.Method) string {
	if m != d.Evidence.Method {
		refused := func(c erasure.Command) bool { return c.Method == m && c.Status != good }
		if slices.ContainsFunc(d.Commands, refused) {
			return store.MethodRefused
		}
		return store.MethodNotEnough
	}
	// The level that the policy demands says nothing of the drive.
	switch v := erasure.Judge(d.Evidence, ""); {
	case v.Outcome == erasure.Proved:
		return store.MethodProved
	case v.Outcome == erasure.Weaker:
		return store.MethodWeaker
	case slices.Contains(v.Reasons, "unchanged") && !slices.ContainsFunc(v.Reasons, saidSo):
		return store.MethodLied
	}
	return store.MethodNotEnough
}

// saidSo reports whether a reason is that the drive did not say that all is well.
func saidSo(r erasure.Reason) bool {
	return slices.Contains([]erasure.Reason{"failure-mode", "word-failed", "word-missing", "word-old"}, r)
}
