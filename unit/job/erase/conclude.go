package erase

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"gprovision/model/challenge"
	"gprovision/model/erasure"
	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/journal"
	"gprovision/unit/panel"
	"gprovision/unit/state"
)

// conclude shows how an erase has ended, and has the unit restore itself where nothing is left open.
func (j *erasing) conclude(ctx context.Context) job.Outcome {
	c, file, sig, err := j.book.certificate(j.entry.ID)
	if err != nil {
		return job.Hold(fault.Because(fault.EraseUnknown, fmt.Errorf("the certificate cannot be read: %w", err)))
	}
	by, ending := j.entry.ResolvedBy, c.Ending()
	switch {
	case j.f.Choice.Kind == decide.ChooseResolve && by == "" && (ending == erasure.Failed || ending == erasure.Unknown):
		by = askSupport(ctx, j.env, c, file)
	case j.f.Choice.Kind == decide.ChooseCodes:
		showCodes(ctx, j.env.Machine, file, sig)
	}
	places := j.takeAway(ctx, c, file, sig)
	m := j.env.Machine
	digest := challenge.Digest(file)
	where := fmt.Sprintf("certificate %s: %s", digest, strings.Join(places, ", "))
	var codes func() // nil: they are of no use, or nobody could see them
	if _, lines := m.Panel.Room(); lines > 0 && len(places) == 1 {
		codes = func() { showCodes(ctx, j.env.Machine, file, sig) }
	}
	m.Log.Info("erase certificate", "run", c.Run, "outcome", string(c.Outcome), "erased", string(c.Level), "says", c.Headline(),
		"reached", strings.Join(places, ", "), journal.ForPerson())
	switch ending {
	case erasure.Proved:
		said := panel.View{Job: "erase", Message: fmt.Sprintf("Erased: %s; %s%s", c.Headline(), where, offer(codes, "C shows it as codes"))}
		awaitKey(ctx, m.Panel, time.Duration(m.Policy.Erase.ShowMinutes)*time.Minute, func() { m.Panel.Show(said) }, codes)
	case erasure.Weaker:
		why := panel.WithNote(fault.Newf(fault.EraseWeaker, "%s; %s%s", reasons(c), where, offer(codes, "C shows it as codes")), digest)
		if !m.Panel.HasKeys() && m.Policy.Erase.Accept != policy.AcceptRestore {
			return job.Hold(why)
		}
		awaitKey(ctx, m.Panel, 0, func() { j.env.ShowFailure("the erase is weaker than proved", why) }, codes)
		if ctx.Err() == nil {
			j.submit(ctx, file, sig, true)
		}
	default:
		kind := fault.EraseUnknown
		if ending == erasure.Failed {
			kind = fault.EraseFailed
		}
		if by == "" {
			return job.Hold(panel.WithNote(fault.Newf(kind, "%s; %s%s", reasons(c), where, offer(codes, "the menu shows it as codes")), digest))
		}
	}
	if ctx.Err() != nil {
		return job.Hold(fault.Because(fault.EraseStopped, ctx.Err()))
	}
	if j.f.StandIn {
		return goOn(j, by)
	}
	if err := j.book.change(func(v *state.Volume) error { return j.resolve(v, ending, by) }); err != nil {
		return job.Hold(fault.Because(fault.RecoveryDamaged, err))
	}
	return job.Outcome{Kind: job.RebootNow}
}

// resolve asks for the restore first, so that nothing is ever started from a disk that was erased. by is the support key that had it go on,
// "" if the outcome does not need one.
func (j *erasing) resolve(v *state.Volume, o erasure.Outcome, by string) error {
	r, err := state.NewRequest(state.KindRestore, state.Latest, "the erase "+j.entry.ID, time.Now())
	if err != nil {
		return err
	}
	if err := v.WriteRequest(r); err != nil {
		return err
	}
	e := j.state(o)
	e.Resolved, e.ResolvedBy = true, by
	if by != "" {
		e.ResolvedAt = time.Now().UTC().Truncate(time.Second)
	}
	return state.WriteErase(v, e)
}

// certificate reads the certificate of an erase.
func (b *book) certificate(id string) (c erasure.Certificate, file, sig []byte, err error) {
	err = b.view(func(v *state.Volume) (err error) {
		if file, err = state.ReadEraseFile(v, certificateFile); err != nil {
			return err
		}
		if sig, err = state.ReadEraseFile(v, signatureFile); err != nil {
			return err
		}
		c, err = erasure.ParseSigned(file, sig)
		return err
	})
	if err == nil && c.Run != run(id) {
		err = fmt.Errorf("it is of the run %s", c.Run)
	}
	return c, file, sig, err
}

// reasons says how the erase ended and what is missing, drive by drive.
func reasons(c erasure.Certificate) string {
	out := []string{c.Headline()}
	for _, d := range c.Drives {
		var why []string
		for _, r := range d.Reasons {
			why = append(why, string(r))
		}
		out = append(out, fmt.Sprintf("%s %s: %s", d.Name, d.Outcome, strings.Join(why, ", ")))
	}
	return strings.Join(out, "; ")
}

// takeAway brings the certificate to where the unit does not take it along, and returns the places that it reached.
func (j *erasing) takeAway(ctx context.Context, c erasure.Certificate, file, sig []byte) []string {
	var places []string
	if j.book.memory == nil {
		places = append(places, "recovery volume")
	}
	if j.submit(ctx, file, sig, false) {
		places = append(places, "server")
	}
	files := map[string][]byte{"": file, ".minisig": sig}
	err := j.book.view(func(v *state.Volume) error {
		for _, end := range []string{".voucher", ".tlog-proof"} {
			if b, err := state.ReadEraseFile(v, certificateFile+end); err == nil {
				files[end] = b
			}
		}
		return nil
	})
	m := j.env.Machine
	if err != nil {
		m.Log.Warn("what the server says to the certificate cannot be read", "err", err)
	}
	for _, s := range j.f.Sticks {
		err := m.SetReadOnly(s.Disk.Path, false)
		for _, end := range slices.Sorted(maps.Keys(files)) {
			if err == nil {
				err = s.Save(m, "erase-"+c.Run[:8]+".json"+end, files[end])
			}
		}
		if err != nil {
			m.Log.Warn("the certificate cannot be saved to a recovery stick", "stick", s.Disk.Name, "err", err)
			continue
		}
		places = append(places, "stick "+s.Disk.Name)
	}
	return places
}
