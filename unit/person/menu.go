package person

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"gprovision/model/release"
	"gprovision/unit/decide"
	"gprovision/unit/image"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/state"
	"gprovision/unit/survey"
	"gprovision/unit/volume"
)

// item is a row of the menu.
type item struct {
	label  string
	choice decide.ChoiceKind
	// warn is what a person must confirm. If it is empty, there is nothing to confirm.
	warn string
	// sub are the rows of a menu below this one. If there are none, the row is a choice.
	sub []item
}

// items returns the rows of the menu. f is nil as long as nothing can be surveyed.
func (p *Person) items(f *survey.Findings, provisions bool) []item {
	resume := "Resume normal boot"
	if p.Held {
		resume = "Try again"
	}
	out := []item{{resume, decide.ChooseResume, "", nil}, {"Power off", decide.ChoosePowerOff, "The unit will be off.", nil}}
	if f == nil || provisions {
		return out
	}
	lost := Loss(f)
	out = append(out,
		item{"Restore latest", decide.ChooseLatest, lost, nil},
		item{"Restore original", decide.ChooseOriginal, lost, nil},
		item{"Restore: choose image", decide.ChooseImage, lost, nil},
	)
	if f.Offer != nil {
		out = append(out, item{"Restore from medium", decide.ChooseMedium, lost, nil})
	}
	if canRebuild(f) {
		out = append(out, item{"Rebuild recovery", decide.ChooseRebuild, "", nil})
	}
	if f.Recovery == decide.RecoveryOtherBoard {
		warn := fmt.Sprintf("This mainboard (%s) will belong to the unit %s. Nothing is erased.", machine.EyesOf(p.Machine).Board(),
			f.Unit.Serial)
		out = append(out, item{"Adopt mainboard", decide.ChooseAdopt, warn, nil})
	}
	out = append(out, item{"Save support bundle", decide.ChooseSupport, "", nil})
	if p.Machine.Policy.Shell {
		out = append(out, item{"Recovery shell", decide.ChooseShell, "", nil})
	}
	if _, lines := p.Machine.Panel.Room(); lines > 0 && ended(f) { // a display shows no codes, and nobody types there
		out = append(out, item{"Show certificate", decide.ChooseCodes, "", nil})
		if p.canResolve(f) {
			out = append(out, item{"Resolve erase", decide.ChooseResolve, "", nil})
		}
	}
	return append(out, item{label: "Reset or erase", sub: resets(f)})
}

// resets are the rows of the menu below "Reset or erase", from what keeps most to what keeps least.
func resets(f *survey.Findings) []item {
	settings, system := "System and network settings will be lost.", "The system will be lost. Network settings stay."
	everything := "System, settings and all data on the main disks will be lost. Images and logs stay."
	data := " All data on the main disk too: there is no data partition."
	if f.Unit.HasData() {
		data = " The data partition stays."
	}
	settings, system = settings+data, system+data
	if f.Main == decide.MainForeign {
		settings, system, everything = Loss(f), Loss(f), Loss(f)
	}
	return []item{
		{label: "Reset settings", choice: decide.ChooseSettings, warn: settings},
		{label: "Reset system", choice: decide.ChooseLatest, warn: system},
		{label: "Reset everything", choice: decide.ChooseEverything, warn: everything},
		{label: "Erase all data", choice: decide.ChooseErase},
	}
}

// Loss returns the warning of what a restore destroys.
func Loss(f *survey.Findings) string {
	if f.Main == decide.MainForeign {
		return "The main disk holds data that is not of this unit. All of it will be lost."
	}
	return "All data on the main disk will be lost."
}

// Menu asks until a person has chosen something and confirmed it. If nobody answers, or the person gives up, it
// returns NoChoice. On an error it returns NoChoice too.
func (p *Person) Menu(ctx context.Context, f *survey.Findings, v *volume.Handle, provisions bool) (decide.Choice, error) {
	return p.choose(ctx, "Menu", p.items(f, provisions), f, v)
}

// choose is Menu for some of its rows.
func (p *Person) choose(ctx context.Context, title string, items []item, f *survey.Findings, v *volume.Handle) (decide.Choice, error) {
	none := decide.Choice{}
	q := panel.Question{Title: title, Timeout: panel.AskTimeout}
	for _, it := range items {
		q.Options = append(q.Options, it.label)
	}
	for {
		i, err := p.Machine.Panel.Ask(ctx, q)
		if errors.Is(err, panel.ErrTimeout) || errors.Is(err, panel.ErrCancelled) {
			return none, nil
		}
		if err != nil {
			return none, err
		}
		q.Default = i
		it := items[i]
		c := decide.Choice{Kind: it.choice}
		title := it.label
		switch {
		case it.sub != nil:
			if c, err = p.choose(ctx, it.label, it.sub, f, v); err != nil || c.Kind != decide.NoChoice {
				return c, err
			}
			continue
		case it.choice == decide.ChooseErase:
			c, yes, err := p.confirmErase(ctx, f)
			if err != nil {
				return none, err
			}
			if yes {
				return c, nil
			}
			continue
		case it.choice == decide.ChooseImage:
			if c.Image, err = p.askImage(ctx, f, v); errors.Is(err, errNoImage) {
				continue
			} else if err != nil {
				return none, err
			}
			title = "Restore " + Short(c.Image, f.Names.ImagePrefix)
		}
		if it.warn == "" {
			return c, nil
		}
		yes, err := p.Machine.Panel.Confirm(ctx, title, it.warn)
		if err != nil {
			return none, err
		}
		if yes {
			return c, nil
		}
	}
}

// errNoImage means that the person chose no image.
var errNoImage = errors.New("no image was chosen")

// askImage lets a person choose an image from the recovery volume. It returns errNoImage if there are no images or no
// answer.
func (p *Person) askImage(ctx context.Context, f *survey.Findings, v *volume.Handle) (string, error) {
	q := panel.Question{Title: "Choose image", Timeout: panel.AskTimeout}
	var names []string
	if f.Recovery == decide.RecoveryFound {
		err := v.View(func(v *state.Volume) error {
			images, _, err := image.List(v.Path(state.ImageDir), f.Names.ImagePrefix, false)
			history := p.history(v)
			for _, im := range images {
				name := im.Name.String()
				names = append(names, name)
				q.Options = append(q.Options, Describe(name, f.Names.ImagePrefix, f, history))
			}
			return err
		})
		if err != nil {
			p.Machine.Log.Warn("images cannot be listed", "err", err)
		}
	}
	if len(names) == 0 {
		q.Title, q.Text, q.Options = "No image", "The recovery volume has no image, or is missing.", []string{"Back"}
	}
	i, err := p.Machine.Panel.Ask(ctx, q)
	switch {
	case errors.Is(err, panel.ErrTimeout), errors.Is(err, panel.ErrCancelled), err == nil && len(names) == 0:
		return "", errNoImage
	case err != nil:
		return "", err
	}
	return names[i], nil
}

// history reads the history of the images. If it cannot be read, no image is marked.
func (p *Person) history(v *state.Volume) release.History {
	h, err := v.History()
	if err != nil {
		p.Machine.Log.Warn("history cannot be read", "err", err)
	}
	return h
}

// Short returns an image's name without the parts that all images share.
func Short(name, prefix string) string {
	return strings.TrimSuffix(strings.TrimPrefix(name, prefix), release.Suffix)
}

// Describe returns an image's line in the menu.
func Describe(name, prefix string, f *survey.Findings, h release.History) string {
	var marks []string
	if strings.TrimSuffix(name, release.Suffix) == f.Mark.Release { // the mark has the name without the suffix
		marks = append(marks, "running")
	}
	if name == f.Unit.Original {
		marks = append(marks, "original")
	}
	if !h.Check(name) {
		marks = append(marks, "failed often")
	}
	if len(marks) == 0 {
		return Short(name, prefix)
	}
	return fmt.Sprintf("%s (%s)", Short(name, prefix), strings.Join(marks, ", "))
}

// canRebuild reports whether the recovery volume is lost and a recovery stick with an image is plugged in.
func canRebuild(f *survey.Findings) bool {
	_, _, ok := f.StickImage()
	return ok && f.Recovery.Lost()
}
