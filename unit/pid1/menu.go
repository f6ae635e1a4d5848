package pid1

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"gprovision/hw/console"
	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/unit/decide"
	"gprovision/unit/image"
	"gprovision/unit/journal"
	"gprovision/unit/panel"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// person is what init knows of the person at the machine.
type person struct {
	ttys []*console.TTY
	// grace is when the grace time ends; zero before it began.
	grace time.Time
	// held says that the unit has held in this boot.
	held bool
	// wanted says that the menu is to be shown.
	wanted bool
}

// keys returns the keys of a console, or nil where the policy takes none from it.
func (u *unit) keys(t *console.TTY) <-chan panel.Key {
	kind := policy.Serial
	if console.IsScreen(t.Name()) {
		kind = policy.Keyboard
	}
	if !u.m.Policy.Takes(kind) {
		return nil
	}
	if err := t.Raw(); err != nil {
		u.log.Warn("console takes no keys", "device", t.Name(), "err", err)
		return nil
	}
	u.ttys = append(u.ttys, t)
	return panel.Typed(console.Keys(t))
}

// leave gives consoles and display to the installed system as they were; enter takes them again if that does not start.
func (u *unit) leave(ctx context.Context, root string) {
	u.consoles((*console.TTY).Restore)
	u.startSplash(ctx, root)
}

func (u *unit) enter() {
	u.consoles((*console.TTY).Raw)
	u.endSplash()
}

func (u *unit) consoles(do func(*console.TTY) error) {
	for _, t := range u.ttys {
		if err := do(t); err != nil {
			u.log.Warn("console", "device", t.Name(), "err", err)
		}
	}
}

// invite begins the grace time, once in a boot: it is zero where no panel has keys, and in a boot that provisions.
func (u *unit) invite() {
	if !u.grace.IsZero() {
		return
	}
	u.grace = time.Now()
	if !u.m.Panel.HasKeys() || u.provisions() {
		return
	}
	d := u.m.Policy.Grace()
	if s := u.m.Identity.Variant.GraceSeconds; s > 0 {
		d = time.Duration(s) * time.Second
	}
	u.grace = u.grace.Add(d)
	u.log.Info("grace time", "seconds", int(d/time.Second))
	u.m.Panel.Message("Press a key for menu")
}

func (u *unit) provisions() bool { return u.m.Policy.Provision && u.args.ManifestURL != "" }

// consult waits until the grace time is over and shows the menu if a person pressed a key: in that time, before it, or while the
// unit held. It reports whether the menu was shown: then what f says may be old.
func (u *unit) consult(ctx context.Context, f *survey.Findings) (bool, error) {
	u.wanted = u.wanted || u.offerMenu(f)
	select {
	case <-u.m.Panel.Pressed(): // also one pressed while the grace time went by unwatched
		u.wanted = true
	default:
	}
	t := time.NewTimer(time.Until(u.grace))
	defer t.Stop()
	for !u.wanted {
		select {
		case <-u.m.Panel.Pressed():
			u.wanted = true
			continue
		case <-t.C:
		case <-ctx.Done():
			return false, ctx.Err()
		}
		break
	}
	if !u.wanted {
		return false, nil
	}
	u.wanted = false
	u.log.Info("menu")
	c, err := u.menu(ctx, f)
	if err != nil {
		u.log.Warn("menu", "err", err)
	}
	if c.Kind == decide.NoChoice { // whoever opened the menu and chose nothing wants what comes by itself
		c.Kind = decide.ChooseResume
	}
	u.log.Info("choice", "choice", string(c.Kind), "image", c.Image, journal.ForPerson())
	u.memory.Choice = c
	return true, nil
}

// item is a row of the menu.
type item struct {
	label  string
	choice decide.ChoiceKind
	// warn is what a person has to confirm; "" needs no confirmation.
	warn string
}

// items returns the menu; f is nil while nothing can be gathered. A data erase will have its place at the end.
func (u *unit) items(f *survey.Findings) []item {
	resume := "Resume normal boot"
	if u.held {
		resume = "Try again"
	}
	out := []item{{resume, decide.ChooseResume, ""}, {"Power off", decide.ChoosePowerOff, "The unit will be off."}}
	if f == nil || u.provisions() {
		return out
	}
	lost := loss(f)
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
	if u.m.Policy.Shell {
		out = append(out, item{"Recovery shell", decide.ChooseShell, ""})
	}
	return out
}

// loss says what a restore destroys.
func loss(f *survey.Findings) string {
	if f.Main == decide.MainForeign {
		return "The main disk holds data that is not of this unit. All of it will be lost."
	}
	return "All data on the main disk will be lost."
}

// menu asks until a person has chosen something and confirmed it. That nobody answers, or gives up, is NoChoice; so is an error,
// which is returned beside it.
func (u *unit) menu(ctx context.Context, f *survey.Findings) (decide.Choice, error) {
	none := decide.Choice{}
	items := u.items(f)
	q := panel.Question{Title: "Menu", Timeout: panel.AskTimeout}
	for _, it := range items {
		q.Options = append(q.Options, it.label)
	}
	for {
		i, err := u.m.Panel.Ask(ctx, q)
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
			if c.Image, err = u.askImage(ctx, f); errors.Is(err, errNoImage) {
				continue
			} else if err != nil {
				return none, err
			}
			title = "Restore " + short(c.Image, u.prefix(f))
		}
		if it.warn == "" {
			return c, nil
		}
		yes, err := u.m.Panel.Confirm(ctx, title, it.warn)
		if err != nil {
			return none, err
		}
		if yes {
			return c, nil
		}
	}
}

// errNoImage says that no image was chosen.
var errNoImage = errors.New("no image was chosen")

// askImage lets a person choose an image of the recovery volume. Without images, or an answer, it is errNoImage.
func (u *unit) askImage(ctx context.Context, f *survey.Findings) (string, error) {
	q := panel.Question{Title: "Choose image", Timeout: panel.AskTimeout}
	var names []string
	if f.Recovery == decide.RecoveryFound {
		err := u.volume.View(func(v *state.Volume) error {
			images, _, err := image.List(v.Path(state.ImageDir), u.prefix(f), false)
			history := u.history(v)
			for _, im := range images {
				name := im.Name.String()
				names = append(names, name)
				q.Options = append(q.Options, describe(name, u.prefix(f), f, history))
			}
			return err
		})
		if err != nil {
			u.log.Warn("images cannot be listed", "err", err)
		}
	}
	if len(names) == 0 {
		q.Title, q.Text, q.Options = "No image", "The recovery volume has no image, or is missing.", []string{"Back"}
	}
	i, err := u.m.Panel.Ask(ctx, q)
	switch {
	case errors.Is(err, panel.ErrTimeout), errors.Is(err, panel.ErrCancelled), err == nil && len(names) == 0:
		return "", errNoImage
	case err != nil:
		return "", err
	}
	return names[i], nil
}

func (u *unit) prefix(f *survey.Findings) string { return f.Names.ImagePrefix }

// history reads the history of the images. One that cannot be read marks none of them.
func (u *unit) history(v *state.Volume) release.History {
	h, err := v.History()
	if err != nil {
		u.log.Warn("history cannot be read", "err", err)
	}
	return h
}

// short is an image's name without what all of them share.
func short(name, prefix string) string {
	return strings.TrimSuffix(strings.TrimPrefix(name, prefix), release.Suffix)
}

// describe is an image's line in the menu.
func describe(name, prefix string, f *survey.Findings, h release.History) string {
	var marks []string
	if strings.TrimSuffix(name, release.Suffix) == f.Mark.Release { // the mark has it without
		marks = append(marks, "running")
	}
	if name == f.Unit.Original {
		marks = append(marks, "original")
	}
	if !h.Check(name) {
		marks = append(marks, "failed often")
	}
	if len(marks) == 0 {
		return short(name, prefix)
	}
	return fmt.Sprintf("%s (%s)", short(name, prefix), strings.Join(marks, ", "))
}

// requestOf returns the request for a restore that a person chose; ok is false for all other choices.
func requestOf(c decide.Choice) (r state.Request, ok bool, err error) {
	image, ok := c.Asked()
	if !ok {
		return r, false, nil
	}
	r, err = state.NewRequest(state.KindRestore, image, "a person at the machine", time.Now())
	return r, err == nil, err
}

// keepRequest writes a request to the recovery volume: a restore that is cut off is then taken up again, with the same image.
func (u *unit) keepRequest(v *state.Volume, r state.Request) error {
	err := v.WriteRequest(r)
	if errors.Is(err, syscall.ENOSPC) {
		u.log.Warn("the recovery volume is full: a restore that is cut off is not taken up by itself", "err", err)
		return nil
	}
	return err
}
