package erase

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gprovision/hw/tpm"
	"gprovision/model/erasure"
	"gprovision/model/step"
	"gprovision/unit/journal"
)

// chip is a TPM (tpm.TPM).
type chip interface {
	Look() (tpm.Facts, error)
	Clear() error
	Request() (says string, err error)
}

// clearing is how far the TPM is.
type clearing struct {
	// Before is what it said of itself before anything was sent, as far as that could be read.
	Before tpm.Facts `json:"before"`
	// Part is what goes into the certificate; nil until its clear has ended once.
	Part *erasure.Part `json:"part,omitempty"`
}

func tpmStep(j *erasing) step.Step {
	return step.Step{Name: "clear-tpm", Say: "Clearing TPM", Run: func(context.Context) error { return clearTPM(j) }}
}

// clearTPM clears the TPM, if there is one: what customers have sealed by it opens nothing then. By the lockout hierarchy first; if it is
// not seen to be cleared, the firmware is asked to do it at the next start. At each further boot of the erase it is looked at again.
// Whatever it does, the erase goes on.
func clearTPM(j *erasing) error {
	m, c := j.env.Machine, j.entry.TPM
	fresh := c == nil
	t, err := j.findTPM()
	switch {
	case fresh && t == nil && err == nil:
		return nil
	case fresh:
		c = &clearing{}
		if err == nil {
			if c.Before, err = t.Look(); err != nil {
				m.Log.Warn("the TPM does not say all of itself", "err", err)
			}
		}
		if err := j.note(func() { j.entry.TPM = c }); err != nil {
			return err
		}
	case c.Part != nil && c.Part.State == erasure.Cleared:
		return nil
	}
	part := erasure.Part{Name: chipName(c.Before)}
	if c.Part != nil {
		part.Commands = slices.Clone(c.Part.Commands)
	}
	if t == nil {
		part.Commands = append(part.Commands, sent("look", errors.Join(errors.New("the TPM is not there"), err), ""))
	} else {
		clearChip(t, c.Before, fresh, &part)
	}
	part = part.Judged()
	m.Log.Info("TPM", "name", part.Name, "state", string(part.State), "seen", fmt.Sprint(part.Seen), "commands", fmt.Sprint(part.Commands),
		journal.ForPerson())
	return j.note(func() { j.entry.TPM = &clearing{Before: c.Before, Part: &part} })
}

// clearChip clears a TPM, unless it is not the first to try and sees that an earlier boot has done so, or the firmware. It writes down what
// it did, and what it saw.
func clearChip(t chip, before tpm.Facts, fresh bool, part *erasure.Part) {
	look := func() bool {
		now, err := t.Look()
		if err != nil {
			part.Commands = append(part.Commands, sent("look", err, ""))
		}
		part.Seen = compare(before, now, err == nil)
		return part.Judged().State == erasure.Cleared
	}
	if !fresh && look() {
		return
	}
	err := t.Clear()
	part.Told = err == nil
	part.Commands = append(part.Commands, sent("TPM2_Clear", err, "good"))
	if look() {
		return
	}
	says, err := t.Request()
	part.Requested = err == nil
	part.Commands = append(part.Commands, sent("request to the firmware", err, "it is pending: "+says))
}

// sent is a command with what came of it.
func sent(name string, err error, good string) erasure.PartCommand {
	c := erasure.PartCommand{Name: name, Status: erasure.Printable(good), At: time.Now().UTC().Truncate(time.Second)}
	if err != nil {
		c.Status = erasure.Printable(err.Error())
	}
	return c
}

// chipName says what a TPM is.
func chipName(f tpm.Facts) string {
	if f.Maker == "" {
		return "TPM"
	}
	return erasure.Printable(fmt.Sprintf("TPM 2.0 (%s)", f.Maker))
}

// compare says what became of a TPM. Where its key could not be seen before, only the count of its resets can tell. Passwords that are
// there now are as before: nobody has set any since.
func compare(before, now tpm.Facts, read bool) []erasure.Sight {
	key, resets := erasure.FoundUnknown, erasure.FoundUnknown
	switch {
	case !read || len(before.Key) == 0 || len(now.Key) == 0:
	case bytes.Equal(before.Key, now.Key):
		key = erasure.FoundLeft
	default:
		key = erasure.FoundGone
	}
	if read && now.Resets < before.Resets {
		resets = erasure.FoundGone
	}
	out := []erasure.Sight{{What: "key of the storage hierarchy", Found: key}, {What: "count of resets", Found: resets}}
	if read && (now.Owner || now.Endorsement || now.Lockout) {
		out = append(out, erasure.Sight{What: "passwords of hierarchies", Found: erasure.FoundLeft})
	}
	if read && slices.ContainsFunc(now.Persistent, func(h uint32) bool { return slices.Contains(before.Persistent, h) }) {
		out = append(out, erasure.Sight{What: "persistent objects", Found: erasure.FoundLeft})
	}
	return out
}
