package decide

import (
	"gprovision/unit/state"
)

// ChoiceKind is the kind of a choice by a person at the machine.
type ChoiceKind string

// The choices. NoChoice means that nobody chose anything.
const (
	NoChoice       ChoiceKind = ""
	ChooseResume   ChoiceKind = "resume"
	ChoosePowerOff ChoiceKind = "power-off"
	ChooseLatest   ChoiceKind = "restore-latest"
	ChooseOriginal ChoiceKind = "restore-original"
	ChooseImage    ChoiceKind = "restore-image"
	ChooseShell    ChoiceKind = "shell"
	ChooseSupport  ChoiceKind = "support-bundle"
	ChooseMedium   ChoiceKind = "restore-medium"
	ChooseRebuild  ChoiceKind = "rebuild"
	ChooseErase    ChoiceKind = "erase"
	ChooseResolve  ChoiceKind = "resolve-erase"
	ChooseCodes    ChoiceKind = "show-certificate"
	ChooseAdopt    ChoiceKind = "adopt-mainboard"
	// ChooseSettings and ChooseEverything are restores of the newest image, as the requests of these kinds.
	ChooseSettings   ChoiceKind = "reset-settings"
	ChooseEverything ChoiceKind = "reset-everything"
)

// Choice is what a person at the machine chose. A choice that destroys something has been confirmed.
type Choice struct {
	Kind ChoiceKind
	// Image is the file name of the image. It is set for ChooseImage only.
	Image string
	// Whole reports whether the person agreed that an erase reaches the recovery volume too. It is set for ChooseErase only.
	Whole bool
}

// Asked returns the kind of a request for the chosen restore and the image that it names, in the form of state.Request.
// ok is false if the choice is not a restore.
func (c Choice) Asked() (kind, image string, ok bool) {
	switch c.Kind {
	case ChooseLatest:
		return state.KindRestore, state.Latest, true
	case ChooseOriginal:
		return state.KindRestore, state.Original, true
	case ChooseImage:
		return state.KindRestore, c.Image, true
	case ChooseSettings:
		return state.KindRestoreSettings, state.Latest, true
	case ChooseEverything:
		return state.KindRestoreEverything, state.Latest, true
	}
	return "", "", false
}

// choseRestore reports whether a person chose a restore.
func choseRestore(f Facts) bool {
	_, _, ok := f.Choice.Asked()
	return ok
}
