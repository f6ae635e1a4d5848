package erase

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gprovision/model/challenge"
	"gprovision/model/erasure"
	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/model/record"
	"gprovision/model/step"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/job/erase/engine"
	"gprovision/unit/journal"
	"gprovision/unit/panel"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// wholePassword is the password of a Security Erase of a drive that has the recovery volume too. It is no secret: after a power cut only a
// person can take it away (docs/erase.md).
const wholePassword = "gprovision"

// whole is the erase of the drive that carries main system and recovery volume. A person at the machine has agreed to it. From the moment
// on that the drive is touched all that the erase has to know is in memory: a power cut ends it, and leaves a drive that nothing is started
// from. Until then the recovery volume says that it is to go on.
type whole struct {
	j *erasing
	// begun reports that the drive was touched.
	begun bool
}

// asksWhole reports whether the drive of the recovery volume is to be erased as a whole: a person has chosen that now, or before power
// went.
func asksWhole(f *survey.Findings) bool {
	if f.Choice.Kind == decide.ChooseErase {
		return f.Choice.Whole
	}
	return !f.EraseRequested() && f.Erasing.Erase != nil && f.Erasing.Erase.Whole
}

func (w *whole) run(ctx context.Context) job.Outcome {
	e := w.j.env
	err := w.begin(ctx)
	for err == nil {
		e.Began(record.JobErase)
		err = e.Run(ctx, record.JobErase, string(decide.Erase), w.steps())
		e.Ended(record.JobErase, err)
		if err != nil {
			break
		}
		if again := w.conclude(ctx); ctx.Err() != nil {
			err = ctx.Err()
		} else if !again {
			return job.Outcome{Kind: job.PowerOffNow}
		} else {
			err = w.anew()
		}
	}
	return stopped(err)
}

// steps returns the job as data. Nothing before erase-disks destroys anything.
func (w *whole) steps() []step.Step {
	out := []step.Step{
		{Name: "lock-others", Say: "Locking others", Run: w.j.lockOthers},
		{Name: "clear-mark", Say: "Clearing mark", Run: w.j.clearMark},
		{Name: "erase-disks", Say: "Erasing disks", Run: w.eraseDisks},
		dumpsStep(w.j),
		tpmStep(w.j),
		{Name: "certify", Say: "Certificate", Run: w.j.certify},
	}
	if w.begun {
		return out[2:]
	}
	return out
}

// begin plans the erase and takes from the recovery volume what it needs. It changes nothing unless the certificate can leave the unit.
func (w *whole) begin(ctx context.Context) error {
	j, m := w.j, w.j.env.Machine
	if m.Policy.Erase.OneDisk != policy.OneDiskWhole || !j.f.Unit.OneDisk() {
		return fault.Newf(fault.Policy, "this artifact does not erase the drive of the recovery volume as a whole")
	}
	request, _, err := j.asked()
	if err != nil {
		return err
	}
	j.entry = entry{ID: request.ID, By: request.By, Started: time.Now().UTC().Truncate(time.Second)}
	if j.entry.Plan, err = makePlan(m, j.f); err != nil {
		return err
	}
	j.entry.Drives = make([]progress, len(j.entry.Plan.Disks))
	j.connect(ctx)
	if err := w.findPlace(ctx); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(m.Places.Recovery), "erase-") // in memory, as all of init
	if err != nil {
		return err
	}
	memory, artifact := state.Open(dir), ""
	if err := j.book.change(func(v *state.Volume) (err error) { artifact, err = w.leave(v, memory); return err }); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	j.book.memory, j.book.artifact = memory, artifact
	return nil
}

// findPlace returns an error unless the certificate can leave the unit, or a person says that it need not.
func (w *whole) findPlace(ctx context.Context) error {
	j, p := w.j, w.j.env.Machine.Panel
	if len(j.f.Sticks) > 0 || canShow(p) || j.office.await(ctx) != nil {
		return nil
	}
	yes, err := p.Confirm(ctx, "No certificate",
		"No server answers and no recovery stick is plugged in: nobody will be able to prove the erase. Erase all the same?")
	if err != nil || !yes {
		return fault.Newf(fault.EraseNowhere, "no server answers, no recovery stick is plugged in, and no screen takes keys")
	}
	return nil
}

// leave copies what the erase needs to memory, and has the recovery volume say that it goes on. It returns the SHA-256 of the boot
// artifact.
func (w *whole) leave(v, memory *state.Volume) (string, error) {
	j := w.j
	key, err := v.ReadKey()
	if err != nil {
		return "", err
	}
	kept, err := j.passwords(v)
	if err != nil {
		return "", err
	}
	for i, s := range kept {
		err = errors.Join(err, writeJSON(memory, stateFile(i), s))
	}
	if err = errors.Join(err, memory.WriteKey(key), writeJSON(memory, runFile, j.entry)); err != nil {
		return "", err
	}
	return artifact(j.env.Machine, v), errors.Join(
		state.WriteErase(v, state.Erase{ID: j.entry.ID, By: j.entry.By, Started: j.entry.Started, Whole: true}), v.DeleteRequest())
}

// anew plans the same erase once more, of which nothing is known but in memory.
func (w *whole) anew() error {
	j := w.j
	r, err := state.NewRequest(state.KindErase, "", j.entry.By, time.Now())
	if err != nil {
		return err
	}
	j.entry.ID, j.entry.Started, j.entry.Drives = r.ID, r.Time.UTC().Truncate(time.Second), make([]progress, len(j.entry.Drives))
	j.parts = nil
	return j.write(j.book.memory, r, false)
}

// eraseDisks erases the drive. One whose erase ends early is begun again at once: there is no other boot that could.
func (w *whole) eraseDisks(ctx context.Context) (err error) {
	w.begun = true
	for range tries {
		if err = w.j.eraseDisks(ctx); err == nil || ctx.Err() != nil {
			break
		}
	}
	return err
}

// firstBlock is how much of a recovery device is taken away first, in bytes: what BIOS firmware would start the rest of a boot loader by.
const firstBlock = 4096

// hide takes the partition tables away from a drive, so that nothing is found on it however far its erase comes.
func (d *desk) hide(t engine.Target) error {
	allowed := d.allowed
	if t.Drive != nil {
		allowed = func() error { return t.Drive.Check(t.Permit) }
	}
	for i := range d.p.Disks {
		ends := []span{{d.size(i) - margin, margin}, {0, margin}}
		if d.p.Role == erasure.RecoveryVolume {
			ends = slices.Insert(ends, 0, span{0, firstBlock})
		}
		for _, s := range ends {
			if err := allowed(); err != nil {
				return err
			}
			if err := (engine.Area{Blocks: blocks{d, i}, Offset: s.Start, Size: func() int64 { return s.Size }}).Zero(); err != nil {
				return err
			}
		}
	}
	return nil
}

// conclude shows how the erase has ended until a person has seen it. again reports whether the person wants it once more.
func (w *whole) conclude(ctx context.Context) (again bool) {
	j, m := w.j, w.j.env.Machine
	c, file, sig, err := j.book.certificate(j.entry.ID)
	if err != nil {
		return w.failed(ctx, fault.Because(fault.EraseUnknown, err))
	}
	places := w.bringAway(ctx, c, file, sig)
	if places == nil {
		places = []string{"nowhere"}
	}
	digest := challenge.Digest(file)
	where := fmt.Sprintf("certificate %s: %s", digest, strings.Join(places, ", "))
	m.Log.Info("erase certificate", "run", c.Run, "outcome", string(c.Outcome), "erased", string(c.Level),
		"reached", strings.Join(places, ", "), journal.ForPerson())
	switch c.Outcome {
	case erasure.Proved:
		said := panel.View{Job: "erase", Message: fmt.Sprintf("Erased: %s, nothing is left on this unit; %s", c.Headline(), where)}
		awaitKey(ctx, m.Panel, time.Duration(m.Policy.Erase.ShowMinutes)*time.Minute, func() { m.Panel.Show(said) }, nil)
		return false
	case erasure.Weaker:
		m.Panel.Forget()
		j.env.ShowFailure("the erase is weaker than proved",
			panel.WithNote(fault.Newf(fault.EraseWeaker, "%s; %s; nothing is left on this unit", reasons(c), where), digest))
		if awaitPress(ctx, m.Panel); ctx.Err() == nil {
			j.submit(ctx, file, sig, true)
		}
		return false
	case erasure.Failed:
		return w.failed(ctx, panel.WithNote(fault.Newf(fault.EraseFailed, "%s; %s", reasons(c), where), digest))
	}
	return w.failed(ctx, panel.WithNote(fault.Newf(fault.EraseUnknown, "%s; %s", reasons(c), where), digest))
}

// failed shows why the erase is no good, and lets a person choose. Nothing else would remember it.
func (w *whole) failed(ctx context.Context, why error) (again bool) {
	p := w.j.env.Machine.Panel
	p.Forget()
	w.j.env.ShowFailure("the erase is no good", why)
	for {
		if awaitPress(ctx, p); ctx.Err() != nil {
			return false
		}
		i, err := p.Ask(ctx, panel.Question{
			Title: "Erase failed", Text: "Data may be left on this unit.", Options: []string{"Erase again", "Power off"},
		})
		if err == nil {
			return i == 0
		}
	}
}

// awaitPress waits until a key is pressed, however long: where nobody can press one it may be plugged in.
func awaitPress(ctx context.Context, p *panel.Board) {
	select {
	case <-p.Pressed():
	case <-ctx.Done():
	}
}

// canShow reports whether a console can show codes to a person.
func canShow(p *panel.Board) bool {
	_, lines := p.Room()
	return lines > 0
}

// bringAway brings the certificate to where the unit does not take it along. As long as it is nowhere a person is asked.
func (w *whole) bringAway(ctx context.Context, c erasure.Certificate, file, sig []byte) []string {
	j, p := w.j, w.j.env.Machine.Panel
	for ctx.Err() == nil {
		if places := j.takeAway(ctx, c, file, sig); len(places) > 0 {
			return places
		}
		q := panel.Question{
			Title: "Certificate nowhere", Text: "It has reached no server. Plug in a recovery stick.",
			Options: []string{"Try again", "Go on without"},
		}
		if canShow(p) {
			q.Options = append(q.Options, "Show codes")
		}
		i, err := p.Ask(ctx, q)
		switch {
		case errors.Is(err, panel.ErrNoInput):
			if err := j.env.Await(ctx, time.Minute); err != nil { // a stick, a key, a while
				return nil
			}
		case err == nil && i == 1:
			return nil
		case err == nil && i == 2:
			if showCodes(ctx, j.env.Machine, file, sig) {
				return []string{"codes on the screen"}
			}
		}
		w.lookForSticks()
	}
	return nil
}

// lookForSticks looks for recovery sticks that were plugged in meanwhile.
func (w *whole) lookForSticks() {
	j := w.j
	disks, err := j.env.Machine.Disks()
	if err != nil {
		j.env.Machine.Log.Warn("sticks cannot be looked for", "err", err)
		return
	}
	own := map[string]bool{}
	for _, d := range j.entry.Plan.Disks {
		own[d.disk().Name] = true
	}
	j.f.Sticks = j.env.Survey.Finder(j.f.Names).Sticks(disks, own)
}
