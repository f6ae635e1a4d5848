package erase

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gprovision/model/challenge"
	"gprovision/model/erasure"
	"gprovision/model/qrtext"
	"gprovision/model/signature"
	"gprovision/unit/job"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
)

// askSupport shows a challenge for this erase to the person, until support has answered it or the person gives up. It returns the
// identifier of the key that did, "" if none.
func askSupport(ctx context.Context, e job.Env, c erasure.Certificate, file []byte) string {
	m := e.Machine
	keys, err := signature.ParsePublicKeys(m.Policy.SupportKeys)
	if err != nil {
		m.Log.Warn("supportKeys of the policy", "err", err)
		return ""
	}
	q := challenge.NewErase(m.Serial, file)
	e.Print("", fmt.Sprintf("\nErase of unit %s: %s. %s\nSupport may have it go on: the certificate stays as it is.\nchallenge: %s\n",
		m.Serial, c.Outcome, reasons(c), q))
	for {
		text, console, err := m.Panel.Line(ctx, "answer to "+q.String(), false)
		if err != nil || text == "" {
			m.Log.Warn("support has not resolved the erase", "err", err, journal.ForPerson())
			return ""
		}
		k, err := q.Verify(keys, text)
		if err == nil {
			m.Log.Warn("support has resolved the erase", "run", c.Run, "outcome", string(c.Outcome), "by", k.ID(), "console", console,
				journal.ForPerson())
			return k.ID()
		}
		e.Print(console, err.Error()+"\n")
	}
}

// offer says how the certificate is shown as codes, if it is.
func offer(codes func(), how string) string {
	if codes == nil {
		return ""
	}
	return " (" + how + ")"
}

// awaitKey shows something and waits until a person has pressed a key, at most for a while; 0: as long as it takes. Where nobody can press
// one it does not wait. C shows the codes, if there are any, and it goes on waiting.
func awaitKey(ctx context.Context, p *panel.Board, most time.Duration, show, codes func()) {
	p.Forget()
	show()
	if !p.HasKeys() {
		return
	}
	var end <-chan time.Time
	if most > 0 {
		t := time.NewTimer(most)
		defer t.Stop()
		end = t.C
	}
	for {
		select {
		case k := <-p.Pressed():
			if codes == nil || k.Key != 'c' && k.Key != 'C' {
				return
			}
			codes()
		case <-end:
			return
		case <-ctx.Done():
			return
		}
	}
}

// codeRoom is the largest number of characters in one code: a camera has to tell its modules apart.
const codeRoom = 900

// showCodes shows the certificate as QR codes, one at a time, until the person goes back. It reports whether they were shown.
func showCodes(ctx context.Context, m *machine.Machine, file, sig []byte) bool {
	q := panel.Question{Title: "Certificate", Timeout: time.Hour}
	codes, err := erasure.Codes(file, sig, min(qrtext.Room(m.Panel.Room()), codeRoom))
	for i, text := range codes {
		var picture []string
		if picture, err = qrtext.Draw(text); err != nil {
			break
		}
		q.Options, q.Pictures = append(q.Options, fmt.Sprintf("Code %d of %d", i+1, len(codes))), append(q.Pictures, picture)
	}
	if err == nil {
		_, err = m.Panel.Ask(ctx, q)
	}
	if err != nil && !errors.Is(err, panel.ErrCancelled) {
		m.Log.Warn("the certificate is not shown as codes", "err", err, journal.ForPerson())
		return false
	}
	return true
}
