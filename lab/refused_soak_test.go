//go:build soak

package lab_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gprovision/lab"
	"gprovision/model/challenge"
	"gprovision/model/layout"
	"gprovision/model/signature"
)

// TestSoakStickRefuses has a person at the menu choose what cannot be done: a recovery volume that is to be rebuilt though nothing of the
// unit is left, and a support bundle without a stick. Both are refused with their codes, nothing is written, and the menu comes again.
func TestSoakStickRefuses(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	t.Run("rebuild", func(t *testing.T) {
		u := l.fork(t, network(t), layout.BIOS, startsFirst, "recovery", "main")
		l.recoveryStick(t, u)
		start(t, u)
		at := pick(t, u, 0, "Rebuild recovery")
		expect(t, u, bootPatience, lab.All(lab.Msg("recovery volume is not rebuilt"), lab.Field("code", "G253")))
		shown(t, u, shown(t, u, at, "G253"), "\nMenu")
		u.Cut()
		for _, name := range []string{"recovery", "main"} {
			blank := filepath.Join(u.Dir, "blank")
			run(t, "rm", "-f", blank)
			run(t, "truncate", "-s", map[string]string{"recovery": "4G", "main": "8G"}[name], blank)
			run(t, "qemu-img", "compare", "-F", "raw", filepath.Join(u.Dir, name+".qcow2"), blank)
		}
	})
	t.Run("bundle", func(t *testing.T) {
		u := l.fork(t, network(t), layout.BIOS, nil)
		start(t, u)
		expect(t, u, bootPatience, lab.Msg("grace time"))
		keys(t, u, "x")
		at := pick(t, u, 0, "Save support bundle")
		expect(t, u, bootPatience, lab.All(lab.Msg("support bundle cannot be saved"), lab.Field("code", "G255")))
		pick(t, u, shown(t, u, at, "G255"), "Resume normal boot")
		whole(t, up(t, u), "2")
	})
}

// TestSoakRecoveryShellChallenge opens the recovery shell with an answer that support signs. Neither a typing error, nor an answer of another
// key, nor one to an earlier challenge opens it.
func TestSoakRecoveryShellChallenge(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	n, p := network(t), product(t, l.tiny)
	support, err := signature.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := signature.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	p.Policy.SupportKeys = []string{support.Public().String()}
	for _, name := range []string{lab.BootFile, lab.ProvisionFile, lab.ManifestFile, lab.ManifestFile + ".minisig"} {
		if err := os.Remove(p.Path(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Artifacts(t.Context(), logger(t), l.debian, l.init, 1); err != nil {
		t.Fatal(err)
	}
	image, err := p.Release(t.Context(), logger(t), l.tinyRoot(2), 3, "0", nil) // its artifact starts the main disk
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Manifest([]string{image}, nil); err != nil {
		t.Fatal(err)
	}
	l.serve(t, n, p)
	u := newUnit(t, n, config(layout.BIOS, lab.VirtIO))
	start(t, u)
	if _, err := live(u); err != nil {
		t.Fatal(err)
	}
	up(t, u)

	const prompt = "password of this unit, or nothing to answer the challenge"
	// open goes to the shell's door in the next boot. It returns the challenge, and where its text ends on the console.
	open := func(at int) (challenge.Challenge, int) {
		t.Helper()
		if err := u.Tell(map[string]any{"do": "reboot"}); err != nil {
			t.Fatal(err)
		}
		expect(t, u, bootPatience, lab.Msg("grace time"))
		keys(t, u, " ")
		at = shown(t, u, pick(t, u, at, "Recovery shell"), "challenge: ")
		end := shown(t, u, at, prompt)
		line, _, _ := strings.Cut(u.Console()[at:end], "\n")
		c, err := challenge.Parse(line)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if c.Serial() != serial {
			t.Errorf("the challenge is of %q", c.Serial())
		}
		return c, end
	}
	// answer types an answer instead of a password.
	answer := func(at int, text string) int {
		t.Helper()
		keys(t, u, enter)
		return say(t, u, at, "answer to "+serial+"/", text+enter)
	}
	sign := func(c challenge.Challenge, key signature.PrivateKey) string {
		t.Helper()
		text, err := c.Answer(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}

	c, at := open(len(u.Console()))
	right := sign(c, support)
	at = shown(t, u, answer(at, strings.Replace(right, right[:1], map[bool]string{true: "1", false: "0"}[right[0] == '0'], 1)), "a typing error")
	at = shown(t, u, at, prompt)
	at = shown(t, u, answer(at, sign(c, stranger)), signature.ErrSignature.Error())
	at = shown(t, u, at, prompt)
	seen(t, u, 0, lab.Msg("recovery shell opened"), "shell for a wrong answer")
	at = answer(at, right)
	expect(t, u, time.Minute, lab.All(lab.Msg("recovery shell opened"), lab.Field("by", "support key "+support.Public().ID())))
	at = shown(t, u, at, "recovery shell: ")
	keys(t, u, "unit"+enter)
	at = shown(t, u, at, "serial number "+serial)
	at = say(t, u, at, "recovery shell: ", "exit"+enter) // keys that are pressed before it asks do not count
	up(t, u)

	other, at := open(at)
	if other == c {
		t.Error("a challenge was made twice")
	}
	at = shown(t, u, answer(at, right), signature.ErrSignature.Error())
	at = shown(t, u, at, prompt)
	answer(at, "")
	expect(t, u, time.Minute, lab.Msg("recovery shell is not opened"))
	whole(t, up(t, u), "2")
	seen(t, u, 1, lab.Msg("recovery shell opened"), "shell")
}
