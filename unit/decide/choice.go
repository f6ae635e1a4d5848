package decide

import (
	"gprovision/unit/state"
)

// ChoiceKind is what a person at the machine chose.
type ChoiceKind string

// The choices. The empty one is that nobody chose anything.
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
)

// Choice is what a person at the machine chose, and confirmed where that destroys something.
type Choice struct {
	Kind ChoiceKind
	// Image is the file name of the image, for ChooseImage.
	Image string
}

// Asked returns which image a request for a chosen restore names, as state.Request has it. ok is false for all other choices.
func (c Choice) Asked() (name string, ok bool) {
	switch c.Kind {
	case ChooseLatest:
		return state.Latest, true
	case ChooseOriginal:
		return state.Original, true
	case ChooseImage:
		return c.Image, true
	}
	return "", false
}

// chosen reports whether a person wants a restore.
func chosen(f Facts) bool {
	_, ok := f.Choice.Asked()
	return ok
}
