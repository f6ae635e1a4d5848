package erasure

import (
	"slices"
	"strings"
	"testing"
)

// good returns evidence that is proved with a method, on what the method is for.
func good(m Method) Evidence {
	zero := Count(0)
	e := Evidence{
		Method: m, Media: Flash, Path: Direct, Reallocated: &zero, MediaVerified: true,
		Samples: Samples{
			Blocks: 1 << 30, Read: 5002, Reset: ResetDone, Ends: Places{Changed: 2}, Random: Places{Changed: 4000, Constant: 1000},
			Uninformative: 10,
		},
		Control: Control{Written: true, Reported: true, Zeroed: true},
	}
	switch m.find().kind {
	case kindNVMeSanitize:
		after := &SanitizeLog{Status: 1, Command: 0x204, Erased: true}
		e.Word.NVMeSanitize = &NVMeSanitizeWord{Command: 0x204, Before: &SanitizeLog{}, After: after}
	case kindNVMeFormat:
		e.Word.NVMeFormat = &NVMeFormatWord{Namespaces: 2, Formats: []NamespaceFormat{{ID: 1, SES: 1}, {ID: 2, SES: 2}}}
	case kindATASanitize:
		e.Word.ATASanitize = &ATASanitizeWord{Completed: true}
	case kindATASecurity:
		e.Word.ATASecurity = &ATASecurityWord{Good: true, Disabled: true}
	case kindSCSI:
		e.Word.SCSI = &SCSIWord{}
	case kindMMC:
		e.Word.MMC = &MMCWord{Erased: true, Sanitized: m == MMCSanitize}
	case kindTCG:
		e.Word.TCG = &TCGWord{Reverted: true, Unlocked: true}
	case kindOverwrite:
		e.Media, e.Path, e.MediaVerified = Rotating, Direct, false
		e.Word.Overwrite = &OverwriteWord{Sectors: 1 << 30, Written: 1 << 30, ReadBack: 1 << 30, Flushed: true}
	}
	return e
}

// TestGood: what erased well is proved at the level of its method, and nothing is to be said of it but of FORMAT UNIT.
func TestGood(t *testing.T) {
	for _, m := range methods() {
		v := Judge(good(m.name), "")
		want := Proved
		if m.name == SCSIFormatUnit {
			want = Weaker
		}
		if v.Outcome != want || v.Level != m.level || (want == Proved) != (len(v.Reasons) == 0) {
			t.Errorf("%s: %+v", m.name, v)
		}
	}
}

// TestOutcomes has a line for each thing that can be wrong with one of the two witnesses or with the control.
func TestOutcomes(t *testing.T) {
	type change func(*Evidence)
	sanitize := func(f func(*NVMeSanitizeWord)) change { return func(e *Evidence) { f(e.Word.NVMeSanitize) } }
	ata := func(w ATASanitizeWord) change { return func(e *Evidence) { e.Word.ATASanitize = &w } }
	scsi := func(w SCSIWord) change { return func(e *Evidence) { e.Word.SCSI = &w } }
	count := func(n Count) *Count { return &n }
	const none = Reason("")
	for _, c := range []struct {
		what    string
		method  Method
		change  change
		require Level
		outcome Outcome
		reason  Reason
	}{
		// The outcome is per device and names its level; the policy's level fails below it.
		{"nothing ran", "", func(e *Evidence) {}, "", Failed, "no-method"},
		{"no method of ours", "format-c", func(e *Evidence) {}, "", Failed, "no-method"},
		{"clear is enough", Overwrite, func(e *Evidence) {}, Clear, Proved, none},
		{"clear is not enough", Overwrite, func(e *Evidence) {}, Purge, Failed, "below-required"},
		{"purge is enough", ATASanitizeBlock, func(e *Evidence) {}, Purge, Proved, none},
		{"purge for clear", ATASanitizeBlock, func(e *Evidence) {}, Clear, Proved, none},
		{"Format is no purge", NVMeFormatCrypto, func(e *Evidence) {}, Purge, Failed, "below-required"},
		{"the drive is locked", NVMeFormatUser, func(e *Evidence) { e.Locked = true }, "", Failed, "locked"},
		{"the drive stays in failure mode", SCSISanitizeBlock, func(e *Evidence) { e.FailureMode = true }, "", Failed, "failure-mode"},

		// An overwrite is proved on rotating media without reallocated sectors only.
		{"overwrite of flash", Overwrite, func(e *Evidence) { e.Media = Flash }, "", Weaker, "overwrite"},
		{"overwrite of who knows what", Overwrite, func(e *Evidence) { e.Media = UnknownMedia }, "", Weaker, "overwrite"},
		{"overwrite behind USB", Overwrite, func(e *Evidence) { e.Path = USB }, "", Weaker, "overwrite"},
		{"overwrite of virtio", Overwrite, func(e *Evidence) { e.Path = Virtual }, "", Weaker, "overwrite"},
		{"overwrite of a volume", Overwrite, func(e *Evidence) { e.Path = RAID }, "", Weaker, "overwrite"},
		{"overwrite, reallocated", Overwrite, func(e *Evidence) { e.Reallocated = count(1) }, "", Weaker, "reallocated"},
		{"overwrite, reallocated or not", Overwrite, func(e *Evidence) { e.Reallocated = nil }, "", Weaker, "reallocated"},
		{"sanitize, reallocated", ATASanitizeOverwrite, func(e *Evidence) { e.Reallocated = count(9) }, "", Proved, none},
		{"sanitize behind USB", SCSISanitizeBlock, func(e *Evidence) { e.Path = USB }, "", Proved, none},
		{"ranges", Overwrite, func(e *Evidence) { e.Part = true }, "", Weaker, "part"},
		{"hidden sectors", Overwrite, func(e *Evidence) { e.Hidden = 1 }, "", Weaker, "hidden"},
		{"format unit", SCSIFormatUnit, func(e *Evidence) {}, "", Weaker, "format-unit"},

		// NVMe Sanitize: the log before and after, SSTAT 1 or 4, the parameters echoed, global data erased, PRGD where PREQ was sent.
		{"SSTAT 4", NVMeSanitizeBlock, sanitize(func(w *NVMeSanitizeWord) { w.After.Status = 4 }), "", Proved, none},
		{"SSTAT 0", NVMeSanitizeBlock, sanitize(func(w *NVMeSanitizeWord) { w.After.Status = 0 }), "", Unknown, "word-missing"},
		{"SSTAT 2", NVMeSanitizeBlock, sanitize(func(w *NVMeSanitizeWord) { w.After.Status = 2 }), "", Unknown, "word-missing"},
		{"SSTAT 3", NVMeSanitizeBlock, sanitize(func(w *NVMeSanitizeWord) { w.After.Status = 3 }), "", Failed, "word-failed"},
		{"SSTAT 5", NVMeSanitizeBlock, sanitize(func(w *NVMeSanitizeWord) { w.After.Status = 5 }), "", Unknown, "word-missing"},
		{"no log before", NVMeSanitizeBlock, sanitize(func(w *NVMeSanitizeWord) { w.Before = nil }), "", Unknown, "word-missing"},
		{"no log after", NVMeSanitizeBlock, sanitize(func(w *NVMeSanitizeWord) { w.After = nil }), "", Unknown, "word-missing"},
		{"another command", NVMeSanitizeBlock, sanitize(func(w *NVMeSanitizeWord) { w.After.Command++ }), "", Unknown, "word-missing"},
		{"another one failed", NVMeSanitizeBlock, sanitize(func(w *NVMeSanitizeWord) { w.After.Command, w.After.Status = 1, 3 }), "", Unknown,
			"word-missing"},
		{"not erased", NVMeSanitizeBlock, sanitize(func(w *NVMeSanitizeWord) { w.After.Erased = false }), "", Unknown, "word-missing"},
		{"PREQ without PRGD", NVMeSanitizeBlock, sanitize(func(w *NVMeSanitizeWord) { w.PurgeRequired = true }), "", Unknown, "word-missing"},
		{"PREQ with PRGD", NVMeSanitizeBlock, sanitize(func(w *NVMeSanitizeWord) { w.PurgeRequired, w.After.Purged = true, true }),
			"", Proved, none},
		{"old completed", NVMeSanitizeBlock, sanitize(func(w *NVMeSanitizeWord) { *w.Before = *w.After }), "", Unknown, "word-old"},
		{"old completed, 4", NVMeSanitizeBlock, sanitize(func(w *NVMeSanitizeWord) { *w.Before = *w.After; w.Before.Status = 4 }), "", Unknown,
			"word-old"},
		{"old completed, in progress", NVMeSanitizeBlock, sanitize(func(w *NVMeSanitizeWord) { *w.Before = *w.After; w.SeenInProgress = true }),
			"", Proved, none},
		{"old completed of other parameters", NVMeSanitizeBlock, sanitize(func(w *NVMeSanitizeWord) { w.Before.Status, w.Before.Command = 1, 2 }),
			"", Proved, none},
		{"the word of another method", NVMeSanitizeBlock, func(e *Evidence) { e.Word = good(ATASanitizeBlock).Word },
			"", Unknown, "word-missing"},

		// Format: status 0 with SES 1 or 2 for each namespace.
		{"SES 0", NVMeFormatUser, func(e *Evidence) { e.Word.NVMeFormat.Formats[1].SES = 0 }, "", Unknown, "word-missing"},
		{"a namespace left out", NVMeFormatUser, func(e *Evidence) { e.Word.NVMeFormat.Namespaces = 3 }, "", Unknown, "word-missing"},
		{"one namespace twice", NVMeFormatUser, func(e *Evidence) { e.Word.NVMeFormat.Formats[1].ID = 1 }, "", Unknown, "word-missing"},
		{"no namespace", NVMeFormatUser, func(e *Evidence) { *e.Word.NVMeFormat = NVMeFormatWord{} }, "", Unknown, "word-missing"},
		{"one failed", NVMeFormatUser, func(e *Evidence) { e.Word.NVMeFormat.Formats[0].Status = 0x10a }, "", Failed, "word-failed"},

		// ATA Sanitize: completed without error, not in progress.
		{"in progress", ATASanitizeCrypto, ata(ATASanitizeWord{InProgress: true, Completed: true}), "", Unknown, "word-missing"},
		{"with an error", ATASanitizeCrypto, ata(ATASanitizeWord{SeenInProgress: true}), "", Failed, "word-failed"},
		{"completed before", ATASanitizeCrypto, ata(ATASanitizeWord{CompletedBefore: true, Completed: true}), "", Unknown, "word-old"},
		{"completed again", ATASanitizeCrypto, ata(ATASanitizeWord{CompletedBefore: true, SeenInProgress: true, Completed: true}),
			"", Proved, none},

		// Security Erase: good status, and security disabled in IDENTIFY.
		{"bad status", ATASecurityEnhanced, func(e *Evidence) { e.Word.ATASecurity.Good = false }, "", Failed, "word-failed"},
		{"password left", ATASecurityNormal, func(e *Evidence) { e.Word.ATASecurity.Disabled = false }, "", Unknown, "word-missing"},

		// SCSI: GOOD with IMMED=0, or in progress seen and then no sense, never the failed one; lost by a power cut.
		{"at once, and nothing seen", SCSISanitizeBlock, scsi(SCSIWord{Immediate: true, NoSense: true}), "", Unknown, "word-missing"},
		{"at once, then in progress", SCSISanitizeBlock, scsi(SCSIWord{Immediate: true, SeenInProgress: true}), "", Unknown, "word-missing"},
		{"at once, then done", SCSISanitizeBlock, scsi(SCSIWord{Immediate: true, SeenInProgress: true, NoSense: true}), "", Proved, none},
		{"check condition", SCSISanitizeBlock, scsi(SCSIWord{Status: 2}), "", Failed, "word-failed"},
		{"failed seen", SCSISanitizeBlock, scsi(SCSIWord{Immediate: true, SeenInProgress: true, NoSense: true, SeenFailed: true}), "", Failed,
			"word-failed"},
		{"power lost", SCSISanitizeBlock, scsi(SCSIWord{PowerLost: true}), "", Unknown, "word-missing"},

		// Overwrite: every write and flush completed, and the keyed stream read back.
		{"a sector not written", Overwrite, func(e *Evidence) { e.Word.Overwrite.Written-- }, "", Failed, "word-failed"},
		{"not flushed", Overwrite, func(e *Evidence) { e.Word.Overwrite.Flushed = false }, "", Failed, "word-failed"},
		{"read back as something else", Overwrite, func(e *Evidence) { e.Word.Overwrite.Different = 1 }, "", Failed, "word-failed"},
		{"not all read back", Overwrite, func(e *Evidence) { e.Word.Overwrite.ReadBack-- }, "", Unknown, "word-missing"},
		{"nothing written", Overwrite, func(e *Evidence) { *e.Word.Overwrite = OverwriteWord{Flushed: true} }, "", Unknown, "word-missing"},
		{"eMMC without sanitize", MMCSanitize, func(e *Evidence) { e.Word.MMC.Sanitized = false }, "", Failed, "word-failed"},
		{"eMMC without erase", MMCSanitize, func(e *Evidence) { e.Word.MMC.Erased = false }, "", Failed, "word-failed"},
		{"eMMC that failed to erase securely", MMCSecureErase, func(e *Evidence) { e.Word.MMC.Erased = false }, "", Failed, "word-failed"},
		{"eMMC erased securely is no purge", MMCSecureErase, func(*Evidence) {}, Purge, Failed, "below-required"},
		{"revert failed", TCGRevert, func(e *Evidence) { e.Word.TCG.Reverted = false }, "", Failed, "word-failed"},
		{"locking enabled", TCGRevert, func(e *Evidence) { e.Word.TCG.Unlocked = false }, "", Unknown, "word-missing"},

		// Ours: first and last block, informative places, changed, unchanged (one of them: failed), constant, unreadable (over 1 %: weaker).
		{"one unchanged", NVMeSanitizeCrypto, func(e *Evidence) { e.Samples.Random.Unchanged = 1 }, "", Failed, "unchanged"},
		{"the last block unchanged", NVMeSanitizeCrypto, func(e *Evidence) { e.Samples.Ends = Places{Changed: 1, Unchanged: 1} }, "", Failed,
			"unchanged"},
		{"all changed", NVMeSanitizeCrypto, func(e *Evidence) { e.Samples.Random = Places{Changed: MinSamples} }, "", Proved, none},
		{"all constant", NVMeSanitizeCrypto, func(e *Evidence) { e.Samples.Random = Places{Constant: MinSamples} }, "", Proved, none},
		{"one too few", NVMeSanitizeCrypto, func(e *Evidence) { e.Samples.Random = Places{Changed: MinSamples - 1} }, "", Weaker, "few-samples"},
		{"all that a small disk has", ATASanitizeBlock, func(e *Evidence) { e.Samples.Blocks, e.Samples.Random = 100, Places{Changed: 100} }, "",
			Proved, none},
		{"not all that it has", ATASanitizeBlock, func(e *Evidence) { e.Samples.Blocks, e.Samples.Random = 100, Places{Changed: 99} }, "", Weaker,
			"few-samples"},
		{"no samples", NVMeSanitizeCrypto, func(e *Evidence) { e.Samples.Random = Places{} }, "", Unknown, "no-samples"},
		{"nothing readable", NVMeSanitizeCrypto, func(e *Evidence) { e.Samples.Random = Places{Unreadable: 5000} }, "", Unknown, "no-samples"},
		{"1 % unreadable", NVMeSanitizeCrypto, func(e *Evidence) { e.Samples.Random = Places{Changed: 9898, Unreadable: 100} }, "", Proved, none},
		{"over 1 % unreadable", NVMeSanitizeCrypto, func(e *Evidence) { e.Samples.Random = Places{Changed: 9897, Unreadable: 100} }, "", Weaker,
			"unreadable"},
		{"no last block", NVMeSanitizeCrypto, func(e *Evidence) { e.Samples.Ends = Places{Changed: 1} }, "", Unknown, "no-ends"},
		{"one block in all", ATASanitizeBlock, func(e *Evidence) {
			e.Samples.Blocks, e.Samples.Ends, e.Samples.Random = 1, Places{Changed: 1}, Places{Changed: 1}
		}, "", Proved, none},
		{"no block at all", ATASanitizeBlock, func(e *Evidence) { e.Samples.Blocks, e.Samples.Ends = 0, Places{} }, "", Unknown, "no-ends"},
		{"there is no reset", NVMeSanitizeCrypto, func(e *Evidence) { e.Samples.Reset = ResetNone }, "", Proved, none},
		{"reset failed", NVMeSanitizeCrypto, func(e *Evidence) { e.Samples.Reset = ResetFailed }, "", Unknown, "no-reset"},
		{"nobody knows of a reset", NVMeSanitizeCrypto, func(e *Evidence) { e.Samples.Reset = "" }, "", Unknown, "no-reset"},
		{"written before", NVMeSanitizeCrypto, func(e *Evidence) { e.Samples.WrittenBefore = true }, "", Unknown, "written-before"},

		// No deallocation where it can be asked for, media verification where offered; else a remark.
		{"zeros may be unmapped", NVMeFormatUser, func(e *Evidence) { e.MediaVerified = false }, "", Proved, "unmapped"},
		{"no zeros", NVMeFormatUser, func(e *Evidence) {
			e.MediaVerified, e.Samples.Random.Constant = false, 0
			e.Samples.Random.Changed = 5000
		}, "",
			Proved, none},
		{"kept mapped", NVMeSanitizeBlock, func(e *Evidence) { e.MediaVerified, e.Word.NVMeSanitize.NoDeallocate = false, true },
			"", Proved, none},
		{"asked to keep, and did not", NVMeSanitizeBlock, func(e *Evidence) {
			e.MediaVerified, e.Word.NVMeSanitize.NoDeallocate, e.Word.NVMeSanitize.After.Status = false, true, 4
		}, "", Proved, "unmapped"},
		{"zeros of a rotating disk", ATASanitizeOverwrite, func(e *Evidence) { e.MediaVerified, e.Media = false, Rotating }, "", Proved, none},

		// The negative control: a fresh canary is written, reported, and zeroed again.
		{"control not written", NVMeSanitizeCrypto, func(e *Evidence) { e.Control.Written = false }, "", Unknown, "control"},
		{"control not reported", NVMeSanitizeCrypto, func(e *Evidence) { e.Control.Reported = false }, "", Unknown, "control"},
		{"control left", NVMeSanitizeCrypto, func(e *Evidence) { e.Control.Zeroed = false }, "", Unknown, "control"},

		// The worst counts.
		{"weak and unknown", Overwrite, func(e *Evidence) { e.Media, e.Control.Reported = Flash, false }, "", Unknown, "overwrite"},
		{"unknown and failed", Overwrite, func(e *Evidence) { e.Samples.Random.Unchanged, e.Control.Reported = 1, false }, "", Failed, "control"},
	} {
		e := good(c.method)
		c.change(&e)
		v := Judge(e, c.require)
		if v.Outcome != c.outcome || v.Level != c.method.Level() {
			t.Errorf("%s: %s %s, want %s: %q", c.what, v.Outcome, v.Level, c.outcome, v.Reasons)
		}
		if c.reason == none && len(v.Reasons) > 0 || c.reason != none && !slices.Contains(v.Reasons, c.reason) {
			t.Errorf("%s: the reasons are %q, want %q", c.what, v.Reasons, c.reason)
		}
	}
}

// TestJudgeVolume: each rule of the recovery volume, which is at most weaker, and does not lower the main disks.
func TestJudgeVolume(t *testing.T) {
	for what, c := range map[string]struct {
		change  func(*Volume)
		require Level
		outcome Outcome
		reasons []Reason
	}{
		"all of it":           {func(*Volume) {}, "", Weaker, []Reason{"from-within"}},
		"clear is demanded":   {func(*Volume) {}, Clear, Weaker, []Reason{"from-within"}},
		"purge is demanded":   {func(*Volume) {}, Purge, Failed, []Reason{"below-required", "from-within"}},
		"some is left":        {func(v *Volume) { v.Left = 1 }, "", Weaker, []Reason{"left", "from-within"}},
		"nothing was free":    {func(v *Volume) { v.Free, v.Filled, v.ReadBack = 0, 0, 0 }, "", Weaker, []Reason{"from-within"}},
		"nothing was written": {func(v *Volume) { v.Filled, v.ReadBack = 0, 0 }, "", Unknown, []Reason{"not-filled", "from-within"}},
		"not flushed":         {func(v *Volume) { v.Flushed = false }, "", Unknown, []Reason{"not-read-back", "from-within"}},
		"from the cache":      {func(v *Volume) { v.Uncached = false }, "", Unknown, []Reason{"not-read-back", "from-within"}},
		"not all read":        {func(v *Volume) { v.ReadBack-- }, "", Unknown, []Reason{"not-read-back", "from-within"}},
		"something else": {func(v *Volume) { v.ReadBack, v.Different = v.ReadBack-1, 1 }, "", Failed,
			[]Reason{"different", "from-within"}},
	} {
		s := sample()
		c.change(s.Volume)
		s.Require, s.Drives = c.require, s.Drives[:1]
		got := s.Judged()
		if got.Volume.Outcome != c.outcome || !slices.Equal(got.Volume.Reasons, c.reasons) || got.Volume.Level != Clear {
			t.Errorf("%s: %s %s %q", what, got.Volume.Outcome, got.Volume.Level, got.Volume.Reasons)
		}
		if got.Outcome != Proved || got.Level != Purge || *got.Recovery != (Result{c.outcome, Clear}) || s.Volume.Outcome != "" {
			t.Errorf("%s: %s, and the volume that was given has %q", what, got.Headline(), s.Volume.Outcome)
		}
	}
	s := sample()
	if h := s.Judged().Headline(); h != "main disks proved (clear), recovery volume weaker (clear), TPM 2.0 (ACME) requested" {
		t.Error(h)
	}
	s.Volume, s.Drives = nil, s.Drives[:1]
	s.Drives[0].Evidence.Method, s.Drives[0].Evidence.Word = "", Word{}
	if h := s.Judged().Headline(); h != "main disks failed, TPM 2.0 (ACME) requested" {
		t.Error(h)
	}
}

// TestReasons: each rule has a word and a sentence of its own, and the worst come first.
func TestReasons(t *testing.T) {
	words, sentences, before := map[Reason]bool{}, map[string]bool{}, Failed
	for _, r := range rules() {
		if words[r.reason] || sentences[r.sentence] || r.reason == "" || strings.HasSuffix(r.sentence, ".") || r.reason.Sentence() != r.sentence {
			t.Errorf("%q: %q", r.reason, r.sentence)
		}
		if words[r.reason], sentences[r.sentence] = true, true; r.outcome.rank() > before.rank() {
			t.Errorf("%s stands behind better outcomes", r.reason)
		}
		before = r.outcome
	}
	before = Failed
	for _, r := range volumeRules() {
		if r.reason.Sentence() != r.sentence || r.outcome.rank() > before.rank() {
			t.Errorf("%q: %q", r.reason, r.sentence)
		}
		before = r.outcome
	}
	if s := Reason("new").Sentence(); !strings.Contains(s, "new") {
		t.Errorf("a reason that nobody knows: %q", s)
	}
}

func TestCombine(t *testing.T) {
	all := []Outcome{Proved, Weaker, Unknown, Failed, "else"}
	for i, a := range all {
		for j, b := range all {
			o, l := Combine([]Verdict{{Outcome: a, Level: Purge}, {Outcome: b, Level: Clear}, {Outcome: a, Level: Purge}})
			if o != all[max(i, j)] || l != Clear {
				t.Errorf("%s and %s: %s %s", a, b, o, l)
			}
		}
	}
	if o, l := Combine([]Verdict{{Proved, Purge, nil}, {Proved, "", nil}}); o != Proved || l != "" {
		t.Errorf("a level that is missing: %s %s", o, l)
	}
	if o, _ := Combine(nil); o != Unknown {
		t.Errorf("nothing: %s", o)
	}
}

func TestCount(t *testing.T) {
	for text, want := range map[string]Count{"0": 0, "7": 7, "18446744073709551615": 1<<64 - 1} {
		var c Count
		if err := c.UnmarshalText([]byte(text)); err != nil || c != want {
			t.Errorf("%s: %d, %v", text, c, err)
		}
		if b, err := c.MarshalText(); err != nil || string(b) != text {
			t.Errorf("%s: written as %s, %v", text, b, err)
		}
	}
	for _, text := range []string{"", "-1", "+1", "01", "1.0", "1e3", "0x1", "18446744073709551616", " 1"} {
		var c Count
		if err := c.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: %d", text, c)
		}
	}
}
