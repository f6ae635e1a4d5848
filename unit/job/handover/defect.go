package handover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"gprovision/model/fault"
	"gprovision/model/record"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/journal"
	"gprovision/unit/survey"
)

// showDefect is how long a defect stays on the panels before the unit is started.
const showDefect = 3 * time.Second

// defect is what is wrong with a unit that is started all the same.
type defect struct {
	// say is the message of the log.
	say string
	// quiet reports whether it is on no panel: it concerns who cares for the unit, not who stands before it.
	quiet bool
	fault.Occurrence
}

// defects returns what is wrong with a unit whose main system is complete.
func defects(f *survey.Findings) []defect {
	var out []defect
	add := func(k *fault.Fault, say string, cause error) {
		out = append(out, defect{say: say, Occurrence: fault.Occurrence{Fault: k, Cause: cause}})
	}
	why := errors.New(strings.Join(notesOf(f, "recovery:"), "; "))
	switch {
	case f.Recovery == decide.RecoveryDamaged:
		add(fault.RecoveryDamaged, "the recovery volume cannot be read: the unit starts without it", why)
	case f.Recovery == decide.RecoveryNewer:
		add(fault.RecoveryNewer, "the recovery volume is of a newer release: the unit starts without it", why)
	case f.Recovery == decide.RecoveryOtherBoard:
		add(fault.OtherBoard, "the recovery volume is of a unit with another mainboard: the unit starts without it", why)
	case f.Recovery == decide.RecoveryOtherFirmware:
		add(fault.OtherFirmware, "the recovery volume is of a unit for the other kind of firmware: the unit starts without it", why)
	case f.Recovery == decide.RecoveryMissing:
		add(fault.NoRecovery, "the recovery volume is missing: the unit starts without it", nil)
	case f.RecoveryErrors:
		add(fault.RecoveryErrors, "the recovery volume has errors after its last repair: replace its device",
			fmt.Errorf("%s was repaired %d times", f.RecoveryPart.Path, f.RecoveryRepairs))
	}
	if f.BadRequest != nil {
		add(fault.RequestDamaged, job.RequestIgnored, f.BadRequest)
	}
	if f.BadOriginal != nil {
		out = append(out, defect{"the original image cannot be restored: a restore of it takes another one", true,
			fault.Occurrence{Fault: fault.OriginalUntrusted, Cause: f.BadOriginal}})
	}
	for _, t := range f.Tables {
		add(fault.TableDamaged, "a partition table is damaged: its copy is used",
			fmt.Errorf("on %s, the recorded one: %t", t.Disk.Path, t.Recorded))
	}
	if f.Degraded {
		add(fault.ArrayDegraded, "the array of the main system lacks a disk: replace it",
			fmt.Errorf("members are on %s", strings.Join(f.Members, " ")))
	}
	return out
}

// notesOf returns the notes that begin with a word.
func notesOf(f *survey.Findings, word string) []string {
	var out []string
	for _, n := range f.Notes {
		if strings.HasPrefix(n, word) {
			out = append(out, n)
		}
	}
	return out
}

// tellDefects shows what is wrong on the panels, logs it, and has the server told. It returns it for the running system. The server is
// told too that nothing is wrong: it has the defects of earlier boots.
func tellDefects(ctx context.Context, e job.Env, all []defect) []string {
	m, texts := e.Machine, []string{}
	for _, d := range all {
		texts = append(texts, d.Fault.Error())
		if d.quiet {
			m.Log.Warn(d.say, "code", d.Fault.Code, "hint", d.Fault.Hint, "err", fault.Detail(&d.Occurrence))
			continue
		}
		e.ShowFailure(d.say, &d.Occurrence, "hint", d.Fault.Hint)
		m.Panel.Pause(ctx, showDefect)
	}
	m.Log.Info("fact", journal.Kind(record.KindFact), "name", record.FactDefects, "value", texts)
	return texts
}
