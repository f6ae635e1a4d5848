package pid1

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"gprovision/model/fault"
	"gprovision/model/record"
	"gprovision/model/release"
	"gprovision/unit/decide"
	"gprovision/unit/image"
	"gprovision/unit/journal"
	"gprovision/unit/state"
)

// showDefect is how long a defect stays on the panels before the unit is started.
const showDefect = 3 * time.Second

// defect is what is wrong with a unit that is started all the same.
type defect struct {
	// say is the message of the log.
	say string
	// quiet says that it is on no panel: it concerns who cares for the unit, not who stands before it.
	quiet bool
	fault.Occurrence
}

// defects returns what is wrong with a unit whose main system is complete.
func defects(f *Found) []defect {
	var out []defect
	add := func(k *fault.Fault, say string, cause error) {
		out = append(out, defect{say: say, Occurrence: fault.Occurrence{Fault: k, Cause: cause}})
	}
	switch {
	case f.Recovery == decide.RecoveryDamaged:
		add(fault.RecoveryDamaged, "the recovery volume cannot be read: the unit starts without it", fmt.Errorf("%s", strings.Join(f.notesOf("recovery:"), "; ")))
	case f.Recovery == decide.RecoveryNewer:
		add(fault.RecoveryNewer, "the recovery volume is of a newer release: the unit starts without it", fmt.Errorf("%s", strings.Join(f.notesOf("recovery:"), "; ")))
	case f.Recovery == decide.RecoveryMissing:
		add(fault.NoRecovery, "the recovery volume is missing: the unit starts without it", nil)
	case f.RecoveryErrors:
		add(fault.RecoveryErrors, "the recovery volume has errors after its last repair: replace its device", fmt.Errorf("%s was repaired %d times", f.RecoveryPart.Path, f.RecoveryRepairs))
	}
	if f.badRequest != nil {
		add(fault.RequestDamaged, requestIgnored, f.badRequest)
	}
	if f.badOriginal != nil {
		out = append(out, defect{"the original image cannot be restored: a restore of it takes another one", true, fault.Occurrence{Fault: fault.OriginalUntrusted, Cause: f.badOriginal}})
	}
	for _, t := range f.tables {
		add(fault.TableDamaged, "a partition table is damaged: its copy is used", fmt.Errorf("on %s, the recorded one: %t", t.disk.Path, t.recorded))
	}
	if f.degraded {
		add(fault.ArrayDegraded, "the array of the main system lacks a disk: replace it", fmt.Errorf("members are on %s", strings.Join(f.members, " ")))
	}
	return out
}

const requestIgnored = "the request on the recovery volume is damaged: it is ignored"

// notesOf returns the notes that begin with a word.
func (f *Found) notesOf(word string) []string {
	var out []string
	for _, n := range f.Notes {
		if strings.HasPrefix(n, word) {
			out = append(out, n)
		}
	}
	return out
}

// judgeOriginal says what speaks against the image that the unit was provisioned with. Its content is not read.
func (u *unit) judgeOriginal(f *Found) error {
	if f.Unit.Original == "" {
		return nil
	}
	name, err := release.ParseName(f.Unit.Original, u.prefix(f))
	if err != nil {
		return fault.Because(fault.ImageName, err)
	}
	err = image.Glance(image.Image{Path: f.Volume.Path(state.ImageDir, f.Unit.Original), Name: name}, u.m.Policy, u.m.Keys)
	if errors.Is(err, fs.ErrNotExist) && fault.Of(err) != fault.ImageUnsigned {
		return nil
	}
	return err
}

// tellDefects shows what is wrong on the panels, logs it, and has the server told. It returns it for the running system. The server is
// told too that nothing is wrong: it has the defects of earlier boots.
func (u *unit) tellDefects(ctx context.Context, all []defect) []string {
	texts := []string{}
	for _, d := range all {
		if d.quiet {
			u.log.Warn(d.say, "code", d.Fault.Code, "hint", d.Fault.Hint, "err", fault.Detail(&d.Occurrence))
			texts = append(texts, d.Fault.Error())
			continue
		}
		u.log.Warn(d.say, "code", d.Fault.Code, "hint", d.Fault.Hint, "err", fault.Detail(&d.Occurrence), journal.ForPerson())
		texts = append(texts, d.Fault.Error())
		u.m.Panel.Fail(&d.Occurrence)
		u.pause(ctx, showDefect)
	}
	u.queue.Add(record.Event{Kind: record.KindFact, Source: record.Observed, Attrs: map[string]any{"name": record.FactDefects, "value": texts}})
	return texts
}

// setRequestAside keeps a damaged request from being found again at the next boot. writable says that the recovery volume is mounted so.
func (u *unit) setRequestAside(f *Found, writable bool) {
	if f.badRequest == nil || f.Recovery != decide.RecoveryFound {
		return
	}
	var err error
	if writable {
		err = f.Volume.SetRequestAside()
	} else {
		err = u.change(f, (*state.Volume).SetRequestAside)
	}
	if err != nil {
		u.log.Warn("the damaged request cannot be set aside", "err", err)
	}
}
