package person

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"gprovision/model/release"
	"gprovision/unit/decide"
	"gprovision/unit/image"
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
}

// items returns the rows of the menu. f is nil as long as nothing can be surveyed.
func (p *Person) items(f *survey.Findings, provisions bool) []item {
	resume := "Resume normal boot"
	if p.Held {
		resume = "Try again"
	}
	out := []item{{resume, decide.ChooseResume, ""}, {"Power off", decide.ChoosePowerOff, "The unit will be off."}}
	if f == nil || provisions {
		return out
	}
	lost := Loss(f)
	out = append(out,
		item{"Restore latest", decide.ChooseLatest, lost},
		item{"Restore original", decide.ChooseOriginal, lost},
		item{"Restore: choose image", decide.ChooseImage, lost},
	)
	if f.Offer != nil {
		out = append(out, item{"Restore from medium", decide.ChooseMedium, lost})
	}
	if canRebuild(f) {
		out = append(out, item{"Rebuild recovery", decide.ChooseRebuild, ""})
	}
	out = append(out, item{"Save support bundle", decide.ChooseSupport, ""})
	if p.Machine.Policy.Shell {
		out = append(out, item{"Recovery shell", decide.ChooseShell, ""})
	}
	return out
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
	none := decide.Choice{}
	items := p.items(f, provisions)
	q := panel.Question{Title: "Menu", Timeout: panel.AskTimeout}
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
		if it.choice == decide.ChooseImage {
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
