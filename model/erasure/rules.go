package erasure

// Reason says in one word why an outcome is what it is. The words are part of the format of certificates.
type Reason string

// Sentence returns what a reason means, in plain English without a full stop.
func (r Reason) Sentence() string {
	for _, x := range rules() {
		if x.reason == r {
			return x.sentence
		}
	}
	for _, x := range volumeRules() {
		if x.reason == r {
			return x.sentence
		}
	}
	return "a reason that this version does not know: " + string(r)
}

// rule says which outcome something has at best when something holds of the evidence E.
type rule[E any] struct {
	outcome  Outcome
	reason   Reason
	sentence string
	holds    func(e E, require Level) bool
}

// apply makes the verdict on what reaches a level.
func apply[E any](rules []rule[E], e E, level, require Level) Verdict {
	v := Verdict{Outcome: Proved, Level: level}
	for _, r := range rules {
		if !r.holds(e, require) {
			continue
		}
		v.Reasons = append(v.Reasons, r.reason)
		if r.outcome.rank() > v.Outcome.rank() {
			v.Outcome = r.outcome
		}
	}
	return v
}

// rules is the table of all rules, the worst outcomes first. docs/formats/erase-certificate.md has the same table.
func rules() []rule[Evidence] {
	return []rule[Evidence]{
		{Failed, "no-method", "no method erased it", func(e Evidence, _ Level) bool { return e.Method.find().name == "" }},
		{Failed, "locked", "the drive is locked and needs its PSID", func(e Evidence, _ Level) bool { return e.Locked }},
		{Failed, "failure-mode", "its Sanitize failed, and the drive takes nothing but another one",
			func(e Evidence, _ Level) bool { return e.FailureMode }},
		{Failed, "unchanged", "at least one sample was found as it was before",
			func(e Evidence, _ Level) bool { return e.Samples.Random.Unchanged > 0 || e.Samples.Ends.Unchanged > 0 }},
		{Failed, "word-failed", "the drive said that it failed", func(e Evidence, _ Level) bool { return e.word() == wordFailed }},
		{Failed, "below-required", "its level is below the one that the policy demands",
			func(e Evidence, require Level) bool { return e.Method.Level().rank() < require.rank() }},

		{Unknown, "word-missing", "the drive did not say that it has erased", func(e Evidence, _ Level) bool { return e.word() == wordMissing }},
		{Unknown, "word-old", "the drive said the same before it was told to erase",
			func(e Evidence, _ Level) bool { return e.word() == wordOld }},
		{Unknown, "no-samples", "no sample says that the data is gone", func(e Evidence, _ Level) bool { return e.Samples.Random.clean() == 0 }},
		{Unknown, "no-ends", "the first or the last block was not looked at",
			func(e Evidence, _ Level) bool { return e.Samples.Ends.all() < min(2, max(1, e.Samples.Blocks)) }},
		{Unknown, "no-reset", "the samples may come from a cache, since the controller was not reset",
			func(e Evidence, _ Level) bool { return e.Samples.Reset != ResetDone && e.Samples.Reset != ResetNone }},
		{Unknown, "written-before", "something was written before the samples were read",
			func(e Evidence, _ Level) bool { return e.Samples.WrittenBefore }},
		{Unknown, "control", "the reader of the samples was not seen to find what is there",
			func(e Evidence, _ Level) bool {
				return e.Control != Control{Written: true, Reported: true, Zeroed: true}
			}},

		{Weaker, "few-samples", "fewer samples than are needed say that the data is gone",
			func(e Evidence, _ Level) bool { return e.Samples.Random.clean() < min(MinSamples, e.Samples.Blocks) }},
		{Weaker, "unreadable", "more than one in a hundred samples could not be read", func(e Evidence, _ Level) bool {
			bad := e.Samples.Random.Unreadable + e.Samples.Ends.Unreadable
			return bad*100 > e.Samples.Random.all()+e.Samples.Ends.all()
		}},
		{Weaker, "overwrite", "an overwrite reaches every place of rotating disks only, behind no bridge, controller or hypervisor",
			func(e Evidence, _ Level) bool {
				return e.Method == Overwrite && (e.Media != Rotating || e.Path != Direct)
			}},
		{Weaker, "reallocated", "sectors that the drive has replaced, or may have, are not overwritten",
			func(e Evidence, _ Level) bool {
				return e.Method == Overwrite && (e.Reallocated == nil || *e.Reallocated > 0)
			}},
		{Weaker, "part", "only parts of it were erased, since the recovery volume is on it too",
			func(e Evidence, _ Level) bool { return e.Part }},
		{Weaker, "hidden", "sectors that the drive hides were not reached", func(e Evidence, _ Level) bool { return e.Hidden > 0 }},
		{Weaker, "format-unit", "FORMAT UNIT promises less than SANITIZE", func(e Evidence, _ Level) bool { return e.Method == SCSIFormatUnit }},

		{Proved, "unmapped", "zeros may be unmapped blocks; nobody outside can see the cells", func(e Evidence, _ Level) bool {
			return e.Media != Rotating && e.Samples.Random.Constant > 0 && !e.MediaVerified && !e.Word.keptBlocks()
		}},
	}
}

// said is what a drive's word comes to.
type said int

const (
	wordMissing said = iota
	wordOld
	wordFailed
	wordGood
)

// word returns what the drive's word on the method comes to.
func (e Evidence) word() said {
	w := e.Word
	switch k := e.Method.find().kind; {
	case k == kindNVMeSanitize && w.NVMeSanitize != nil:
		return w.NVMeSanitize.said()
	case k == kindNVMeFormat && w.NVMeFormat != nil:
		return w.NVMeFormat.said()
	case k == kindATASanitize && w.ATASanitize != nil:
		return w.ATASanitize.said()
	case k == kindATASecurity && w.ATASecurity != nil:
		return both(w.ATASecurity.Good, w.ATASecurity.Disabled)
	case k == kindSCSI && w.SCSI != nil:
		return w.SCSI.said()
	case k == kindMMC && w.MMC != nil:
		return both(w.MMC.Erased && (w.MMC.Sanitized || e.Method == MMCSecureErase), true)
	case k == kindTCG && w.TCG != nil:
		return both(w.TCG.Reverted, w.TCG.Unlocked)
	case k == kindOverwrite && w.Overwrite != nil:
		return w.Overwrite.said()
	}
	return wordMissing
}

// both is the word of a command that was good or not, and of a state that confirms it or not.
func both(good, confirmed bool) said {
	switch {
	case !good:
		return wordFailed
	case !confirmed:
		return wordMissing
	}
	return wordGood
}

// completed reports whether the log says that a Sanitize ended well.
func (l SanitizeLog) completed() bool { return l.Status == 1 || l.Status == 4 }

func (w NVMeSanitizeWord) said() said {
	switch {
	case w.Before == nil || w.After == nil || w.After.Command != w.Command:
		return wordMissing
	case w.After.Status == 3:
		return wordFailed
	case !w.After.completed() || !w.After.Erased || w.PurgeRequired && !w.After.Purged:
		return wordMissing
	case w.Before.completed() && w.Before.Command == w.Command && !w.SeenInProgress:
		return wordOld
	}
	return wordGood
}

// keptBlocks reports whether an NVMe drive was told to keep its blocks mapped, and says that it did.
func (w Word) keptBlocks() bool {
	s := w.NVMeSanitize
	return s != nil && s.NoDeallocate && s.After != nil && s.After.Status == 1
}

func (w NVMeFormatWord) said() said {
	done := map[uint32]bool{}
	for _, f := range w.Formats {
		if f.Status != 0 {
			return wordFailed
		}
		if f.SES == 1 || f.SES == 2 {
			done[f.ID] = true
		}
	}
	return both(true, w.Namespaces > 0 && uint64(len(done)) >= uint64(w.Namespaces))
}

func (w ATASanitizeWord) said() said {
	switch {
	case w.InProgress:
		return wordMissing
	case !w.Completed:
		return wordFailed
	case w.CompletedBefore && !w.SeenInProgress:
		return wordOld
	}
	return wordGood
}

func (w SCSIWord) said() said {
	return both(w.Status == 0 && !w.SeenFailed, !w.PowerLost && (!w.Immediate || w.SeenInProgress && w.NoSense))
}

func (w OverwriteWord) said() said {
	return both(w.Written == w.Sectors && w.Flushed && w.Different == 0, w.Sectors > 0 && w.ReadBack == w.Sectors)
}
