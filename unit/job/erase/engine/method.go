package engine

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"gprovision/hw/drive"
	"gprovision/model/erasure"
)

// sanitizeOf returns the way of a Sanitize, and 0 for any other method.
func sanitizeOf(m erasure.Method) drive.Erasure {
	switch m {
	case erasure.NVMeSanitizeCrypto, erasure.ATASanitizeCrypto, erasure.SCSISanitizeCrypto:
		return drive.CryptoErase
	case erasure.NVMeSanitizeBlock, erasure.ATASanitizeBlock, erasure.SCSISanitizeBlock:
		return drive.BlockErase
	case erasure.NVMeSanitizeOverwrite, erasure.ATASanitizeOverwrite, erasure.SCSISanitizeOverwrite:
		return drive.Overwrite
	}
	return 0
}

// sanitizes reports whether a method is a Sanitize, which a drive in failure mode takes.
func sanitizes(m erasure.Method) bool { return sanitizeOf(m) != 0 }

// pattern is what a drive is told to write where its Sanitize overwrites.
func pattern() drive.Pattern { return drive.Pattern{Passes: 1} }

// plan is the methods that may be tried, strongest first.
func (r *run) plan() []erasure.Method {
	e := r.out.Evidence
	offer := erasure.Offer{Media: e.Media, Path: e.Path, Part: e.Part, Locked: e.Locked}
	for _, m := range r.caps.Methods {
		offer.Methods = append(offer.Methods, erasure.Method(m)) // the names are the same
	}
	return erasure.Chain(offer)
}

// heard reports whether a drive's word is one that it has erased.
func heard(m erasure.Method, w erasure.Word) bool {
	v := erasure.Judge(erasure.Evidence{Method: m, Word: w}, "")
	return !slices.ContainsFunc(v.Reasons, func(r erasure.Reason) bool {
		return r == "word-missing" || r == "word-old" || r == "word-failed"
	})
}

// erase erases by a method, and leaves the drive's word in the turn. The error says that the method did not begin. One that a power cut
// came into is asked for, and started again unless it has ended well: twice, and an overwrite goes on where it was.
func (r *run) erase(m erasure.Method) error {
	turn, t := &r.s.Turn, &try{r.link}
	if turn.Sent && m != erasure.Overwrite {
		if turn.Word.SCSI != nil {
			turn.Word.SCSI.PowerLost = true
		}
		if err := t.listen(m); err != nil || heard(m, turn.Word) || turn.Starts >= 3 {
			return err
		}
		turn.Word = erasure.Word{}
		if !r.link.failed() {
			if err := r.refresh(); err != nil {
				return err
			}
		}
	}
	if err := t.start(m); err != nil {
		return err
	}
	return t.listen(m)
}

// sanitizeLog is what of the log counts.
func sanitizeLog(l drive.SanitizeLog) *erasure.SanitizeLog {
	return &erasure.SanitizeLog{Status: uint8(l.State()), Command: l.CDW10, Erased: l.GlobalDataErased(), Purged: l.Purged()}
}

// sanitizing reports whether a drive is busy with a Sanitize. In the media verification state it waits for its host.
func sanitizing(l drive.SanitizeLog) bool { return l.State() == drive.Sanitizing && !l.Verifying() }

// errStalled says that an operation did not end in its time.
var errStalled = errors.New("it does not end")

// progress is what a drive says of an operation.
type progress struct {
	running bool
	part    uint16
}

// try is the work of one method.
type try struct{ link *link }

// send says that the command may be sent from now on, and sends it.
func (t *try) send(m erasure.Method, name, arguments string, command func() error) error {
	if !t.link.state.Turn.Sent || m != erasure.Overwrite {
		t.link.state.Turn.Sent = true
		t.link.state.Turn.Starts++
		if err := t.link.store(); err != nil {
			return err
		}
	}
	return t.link.command(m, name, arguments, command)
}

// start sends the command of a method. Where that waits until the end the whole word is there then.
func (t *try) start(m erasure.Method) error {
	how, d := sanitizeOf(m), t.link.drive
	switch {
	case m == erasure.Overwrite:
		return t.overwrite()
	case d.NVMe != nil && how != 0:
		return t.sanitizeNVMe(m, d.NVMe, how)
	case d.NVMe != nil:
		return t.formatNVMe(m, d.NVMe)
	case d.ATA != nil && how != 0:
		word := &erasure.ATASanitizeWord{}
		err := t.link.again(func() error {
			s, err := d.ATA.SanitizeStatus()
			word.CompletedBefore = s.Completed
			return err
		})
		if err == nil { // else the drive's word cannot be heard
			t.link.state.Turn.Word.ATASanitize = word
		}
		return t.send(m, "SANITIZE DEVICE", how.String(), func() error { return d.ATA.Sanitize(t.link.permit, how, pattern()) })
	case d.ATA != nil:
		return t.secureErase(m, d.ATA)
	case d.MMC != nil:
		return t.eraseMMC(m, d.MMC)
	case how != 0:
		t.link.state.Turn.Word.SCSI = &erasure.SCSIWord{Immediate: true}
		return t.send(m, "SANITIZE", how.String()+", IMMED=1, AUSE=0", func() error {
			return d.SCSI.Sanitize(t.link.permit, how, pattern())
		})
	}
	t.link.state.Turn.Word.SCSI = &erasure.SCSIWord{Immediate: true}
	return t.send(m, "FORMAT UNIT", "FMTDATA=1, IMMED=1", func() error { return d.SCSI.Format(t.link.permit) })
}

func (t *try) sanitizeNVMe(m erasure.Method, n *drive.NVMe, e drive.Erasure) error {
	o := drive.SanitizeOptions{Erasure: e, Pattern: pattern()}
	word := &erasure.NVMeSanitizeWord{}
	err := t.link.again(func() error {
		c, err := n.Controller()
		o.Purge, o.Verify = c.CanPurge(), c.CanVerify() && e != drive.Overwrite
		o.KeepAllocated = c.CanKeepAllocated() && !o.Verify
		word.PurgeRequired, word.NoDeallocate = o.Purge, o.KeepAllocated && !c.ModifiesAfter()
		return err
	})
	if err != nil {
		return err
	}
	if word.Command, err = o.Dword10(); err != nil {
		return err
	}
	err = t.link.again(func() error {
		l, err := n.SanitizeLog()
		if err == nil {
			word.Before = sanitizeLog(l)
		}
		return err
	})
	if err != nil && stops(err) {
		return err
	}
	t.link.state.Turn.Word.NVMeSanitize, t.link.state.Turn.Verify = word, o.Verify
	return t.send(m, "Sanitize", fmt.Sprintf("cdw10=%#010x", word.Command), func() error { return n.Sanitize(t.link.permit, o) })
}

// verify looks at the media in the media verification state, and ends that: the drive unmaps all blocks then.
func (t *try) verify(m erasure.Method, word *erasure.NVMeSanitizeWord) error {
	turn := &t.link.state.Turn
	if turn.Verified == nil {
		found := t.link.after()
		turn.Verified = &found
		if err := t.link.store(); err != nil {
			return err
		}
	}
	n := t.link.drive.NVMe
	err := t.link.command(m, "Sanitize", "exit media verification state", func() error { return n.EndVerification(t.link.permit) })
	if stops(err) {
		return err
	}
	_, err = t.link.watch(0, func() (progress, error) {
		l, err := n.SanitizeLog()
		if err == nil {
			word.After = sanitizeLog(l)
		}
		return progress{sanitizing(l), l.Progress}, err
	})
	return err
}

// eraseMMC erases all sectors of an eMMC: securely, or else with a Sanitize of the cells that nothing is mapped to then. The commands wait
// until they are done.
func (t *try) eraseMMC(m erasure.Method, c *drive.MMC) error {
	word, name, erase := &erasure.MMCWord{}, "ERASE", c.Erase
	if m == erasure.MMCSecureErase {
		name, erase = "SECURE ERASE", c.SecureErase
	}
	err := t.send(m, name, "all sectors of the user area", func() error { return erase(t.link.permit, t.link.bound(0)) })
	if word.Erased = err == nil; word.Erased && m == erasure.MMCSanitize {
		err = t.link.command(m, "SANITIZE", "SANITIZE_START=1", func() error { return c.Sanitize(t.link.permit, t.link.bound(0)) })
		word.Sanitized = err == nil
	}
	t.link.state.Turn.Word.MMC = word
	if stops(err) {
		return err
	}
	return nil
}

// formatNVMe formats each namespace. The word is one only if all commands were answered.
func (t *try) formatNVMe(m erasure.Method, n *drive.NVMe) error {
	var spaces []drive.Namespace
	err := t.link.again(func() error {
		c, err := n.Controller()
		if err == nil {
			spaces, err = t.link.namespaces(n, c)
		}
		return err
	})
	if err != nil {
		return err
	}
	word := &erasure.NVMeFormatWord{Namespaces: uint32(len(spaces))}
	ses := uint8(1)
	if m == erasure.NVMeFormatCrypto {
		ses = 2
	}
	for i, s := range spaces {
		err := t.send(m, "Format NVM", fmt.Sprintf("nsid=%d, SES=%d", s.ID, ses), func() error {
			return n.Format(t.link.permit, s, ses == 2, t.link.bound(0))
		})
		var status drive.StatusError
		switch {
		case err == nil, errors.As(err, &status):
		case stops(err) || i == 0:
			return err
		default:
			t.link.state.Turn.Word.NVMeFormat = word
			return nil
		}
		if err != nil && i == 0 {
			return err
		}
		word.Formats = append(word.Formats, erasure.NamespaceFormat{ID: s.ID, SES: ses, Status: status.Status})
	}
	t.link.state.Turn.Word.NVMeFormat = word
	return nil
}

// secureErase erases by SECURITY ERASE UNIT, with a password that is stored before it is set, and is taken away whatever happens.
func (t *try) secureErase(m erasure.Method, a *drive.ATA) error {
	var id drive.Identify
	if err := t.link.again(func() (err error) { id, err = a.Identify(); return err }); err != nil {
		return err
	}
	if len(t.link.state.Password) == 0 { // else an older one could not be taken away, and may still be set
		t.link.state.Password = slices.Clone(t.link.password)
	}
	if len(t.link.state.Password) == 0 {
		b := make([]byte, 16)
		if _, err := io.ReadFull(t.link.env.Random, b); err != nil {
			return fmt.Errorf("%w: read random bytes: %w", errStop, err)
		}
		t.link.state.Password = fmt.Appendf(nil, "%x", b)
	}
	p, err := drive.NewPassword(t.link.state.Password)
	if err != nil {
		return err
	}
	enhanced, estimate := m == erasure.ATASecurityEnhanced, id.Security.EraseTime
	if enhanced {
		estimate = id.Security.EnhancedTime
	}
	if err := t.send(m, "SECURITY SET PASSWORD", "user, high", func() error { return a.SetPassword(t.link.permit, p) }); err != nil {
		return errors.Join(err, t.link.clearPassword())
	}
	err = t.link.command(m, "SECURITY ERASE UNIT", fmt.Sprintf("user, enhanced=%t", enhanced), func() error {
		return a.SecureErase(t.link.permit, p, enhanced, t.link.bound(estimate))
	})
	word := &erasure.ATASecurityWord{Good: err == nil}
	_ = t.link.again(func() error {
		id, err := a.Identify()
		word.Disabled = err == nil && !id.Security.Enabled
		return err
	})
	t.link.state.Turn.Word.ATASecurity = word
	if e := t.link.clearPassword(); stops(e) {
		return e
	}
	if stops(err) {
		return err
	}
	return nil
}

// overwrite writes every block from here.
func (t *try) overwrite() error {
	turn := &t.link.state.Turn
	o, err := newOverwriter(derive(t.link.state.Seed, "stream"), &turn.Position)
	if err != nil {
		return err
	}
	o.blocks, o.blockSize, o.requests, o.allowed = t.link.areas, int64(t.link.blockSize), t.link.env.Requests, t.link.allowed
	o.reached = func() error {
		p := turn.Position
		t.link.tell((float64(p.Pass) + float64(p.Next)/float64(max(1, t.link.areas.size()))) / passesDone)
		return t.link.store()
	}
	if !turn.Sent {
		if err := t.link.allowed(); err != nil {
			return err
		}
		err := t.link.command(erasure.Overwrite, "discard", "all blocks", t.link.areas.discard)
		if stops(err) {
			return err
		}
	}
	err = t.send(erasure.Overwrite, "write", "keyed stream, read back, zeros", func() error { return o.run(t.link.ctx) })
	word := turn.Position.Word
	turn.Word.Overwrite = &word
	if stops(err) {
		return err
	}
	return nil
}

// listen waits until an operation in the background is over and completes the drive's word.
func (t *try) listen(m erasure.Method) error {
	var seen, verifying bool
	var err error
	switch w := t.link.state.Turn.Word; {
	case w.NVMeSanitize != nil:
		seen, err = t.link.watch(t.estimate(m), func() (progress, error) {
			l, err := t.link.drive.NVMe.SanitizeLog()
			if err == nil {
				w.NVMeSanitize.After = sanitizeLog(l)
			}
			verifying = err == nil && l.Verifying()
			return progress{sanitizing(l), l.Progress}, err
		})
		w.NVMeSanitize.SeenInProgress = w.NVMeSanitize.SeenInProgress || seen || verifying
		if verifying && err == nil {
			err = t.verify(m, w.NVMeSanitize)
		}
	case w.ATASanitize != nil:
		seen, err = t.link.watch(0, func() (progress, error) {
			s, err := t.link.drive.ATA.SanitizeStatus()
			w.ATASanitize.InProgress, w.ATASanitize.Completed = s.InProgress, s.Completed
			return progress{s.InProgress, s.Progress}, err
		})
		w.ATASanitize.SeenInProgress = w.ATASanitize.SeenInProgress || seen
	case w.SCSI != nil:
		seen, err = t.link.watch(0, func() (progress, error) {
			o, err := t.link.drive.SCSI.Operation()
			w.SCSI.SeenFailed = w.SCSI.SeenFailed || o.SanitizeFailed || o.FormatFailed
			w.SCSI.NoSense = err == nil && o.Idle
			return progress{o.Sanitizing || o.Formatting, o.Progress}, err
		})
		w.SCSI.SeenInProgress = w.SCSI.SeenInProgress || seen
		if !seen {
			t.link.ready(true)
		}
	case sanitizes(m):
		t.link.ready(true) // nobody passes on what the drive says
	}
	if stops(err) {
		return err
	}
	return nil
}

// estimate is how long an NVMe drive says that a sanitize operation takes, 0 if it does not say.
func (t *try) estimate(m erasure.Method) time.Duration {
	l, err := t.link.drive.NVMe.SanitizeLog()
	if err != nil {
		return 0
	}
	return map[erasure.Method]time.Duration{
		erasure.NVMeSanitizeCrypto: l.CryptoErase, erasure.NVMeSanitizeBlock: l.BlockErase, erasure.NVMeSanitizeOverwrite: l.Overwrite,
	}[m]
}
