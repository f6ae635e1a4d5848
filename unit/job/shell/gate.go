package shell

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gprovision/model/challenge"
	"gprovision/model/fault"
	"gprovision/model/secret"
	"gprovision/model/signature"
	"gprovision/unit/sysroot"
)

// MaxTries is how many wrong passwords in a row lock the shell.
const MaxTries = 10

// maxDelay is the longest wait before a password is looked at.
const maxDelay = time.Minute

// Terminal is the person's console.
type Terminal struct {
	// Line asks for a line and returns what was typed and on which panel. Of a secret nothing is shown.
	Line func(ctx context.Context, prompt string, secret bool) (text, panel string, err error)
	// Print writes text to a panel. An empty name means all of them.
	Print func(panel, text string)
}

// Gate is what stands before the shell.
type Gate struct {
	Terminal Terminal
	// Serial is the unit's serial number.
	Serial string
	// Hash is that of the unit's own password. It is empty if that is not known.
	Hash string
	// Keys are the support keys of the policy.
	Keys []signature.PublicKey
	// Tries and SetTries read and write how many wrong passwords were typed in a row. They outlive a boot.
	Tries    func() (int, error)
	SetTries func(int) error
	// Sleep waits. It ends early with the error of ctx.
	Sleep func(ctx context.Context, d time.Duration) error
}

// Open lets a person in who has the unit's password, or an answer to the challenge that it makes and shows. It returns the panel
// and who it is, for the log. The error is fault.Policy where neither is possible, fault.ShellLocked when the last possible try
// failed, or that of the terminal: the person gave up.
//
// A try is counted before it is looked at, so that switching off does not help, and each costs twice the time of the one before.
func (g Gate) Open(ctx context.Context) (panel, who string, err error) {
	c := challenge.New(g.Serial)
	g.Terminal.Print("", fmt.Sprintf("\nRecovery shell of unit %s\nchallenge: %s\n", g.Serial, c))
	for {
		closed, err := g.closed()
		if err != nil && len(g.Keys) == 0 {
			return "", "", err
		}
		text := ""
		if err == nil {
			text, panel, err = g.Terminal.Line(ctx, "password of this unit, or nothing to answer the challenge", true)
			if err != nil {
				return "", "", err
			}
		} else {
			g.Terminal.Print("", "No password is taken: "+err.Error()+"\n")
		}
		switch {
		case text != "":
			err = g.password(ctx, closed, secret.Secret(text))
			who = "the unit's password"
		case len(g.Keys) == 0:
			err = fault.Newf(fault.Policy, "the policy has no support keys: nobody can answer")
		default:
			if text, panel, err = g.Terminal.Line(ctx, "answer to "+c.String(), false); err != nil {
				return "", "", err
			}
			if text == "" {
				return "", "", errors.New("nothing was typed")
			}
			who, err = g.answer(c, text)
		}
		if err == nil {
			if err := g.SetTries(0); err != nil {
				g.Terminal.Print(panel, "The wrong tries cannot be forgotten: "+err.Error()+"\n")
			}
			return panel, who, nil
		}
		if ctx.Err() != nil {
			return "", "", ctx.Err()
		}
		g.Terminal.Print(panel, err.Error()+"\n")
	}
}

// closed returns how many wrong passwords were typed, or why none is taken.
func (g Gate) closed() (int, error) {
	if g.Hash == "" {
		return 0, fault.Newf(fault.Policy, "the hash of the unit's password cannot be read")
	}
	n, err := g.Tries()
	if err != nil {
		return 0, fault.Newf(fault.ShellLocked, "earlier tries cannot be read: %w", err)
	}
	if n >= MaxTries {
		return n, fault.Newf(fault.ShellLocked, "%d wrong passwords were typed", n)
	}
	return n, nil
}

// password looks at a password. failed is how many were wrong before.
func (g Gate) password(ctx context.Context, failed int, p secret.Secret) error {
	if err := g.SetTries(failed + 1); err != nil {
		return fault.Newf(fault.ShellLocked, "the try cannot be counted, so it is not looked at: %w", err)
	}
	if err := g.Sleep(ctx, delay(failed)); err != nil {
		return err
	}
	return sysroot.CheckPassword(g.Hash, p)
}

// delay is the time that a try takes after so many wrong ones.
func delay(failed int) time.Duration {
	if failed == 0 {
		return 0
	}
	return min(maxDelay, time.Second<<min(failed, 10))
}

func (g Gate) answer(c challenge.Challenge, text string) (who string, err error) {
	k, err := c.Verify(g.Keys, text)
	if err != nil {
		return "", err
	}
	return "support key " + k.ID(), nil
}
