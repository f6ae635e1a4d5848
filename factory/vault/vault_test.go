package vault

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"filippo.io/age"

	"gprovision/model/record"
)

// memory is a Keeper without rules.
type memory struct {
	ciphertexts [][]byte
	err         error
}

func (m *memory) AddSecret(_ context.Context, _ string, _ int64, seal func(uint64) ([]byte, error)) error {
	if m.err != nil {
		return m.err
	}
	b, err := seal(uint64(len(m.ciphertexts) + 1))
	m.ciphertexts = append(m.ciphertexts, b)
	return err
}

func (m *memory) ConfirmSecret(context.Context, string, int64, uint64) error { return m.err }

func keys(t *testing.T) ([]age.Identity, []age.Recipient) {
	t.Helper()
	private, public, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	ids, err := age.ParseIdentities(strings.NewReader(private.Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	to, err := ParseRecipients("# operators\n\n" + public + "\n")
	if err != nil || len(to) != 1 {
		t.Fatal(to, err)
	}
	return ids, to
}

func TestIssue(t *testing.T) {
	ids, to := keys(t)
	m := &memory{}
	v := New(m, to)
	seen := map[string]bool{}
	for gen := uint64(1); gen <= 50; gen++ {
		c, err := v.Issue(t.Context(), "S1", 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Validate(); err != nil || c.Generation != gen {
			t.Fatalf("generation %d: %v", c.Generation, err)
		}
		for _, s := range []string{c.OS.Reveal(), c.BIOS.Reveal(), c.IPMI.Reveal()} {
			if seen[s] || strings.ContainsAny(s, "0Oo1lI2Zz5Ss8B") || len(s) < 12 || len(s) > 16 {
				t.Errorf("bad password %q", s)
			}
			seen[s] = true
			if bytes.Contains(m.ciphertexts[gen-1], []byte(s)) {
				t.Error("password in the ciphertext")
			}
		}
		back, err := Open(ids, "S1", gen, m.ciphertexts[gen-1])
		if err != nil || back != c {
			t.Fatalf("open: %v", err)
		}
	}
	other, _ := keys(t)
	if _, err := Open(other, "S1", 1, m.ciphertexts[0]); err == nil {
		t.Error("another key opens it")
	}
	if _, err := Open(ids, "S2", 1, m.ciphertexts[0]); err == nil {
		t.Error("passed off for another unit")
	}
	if _, err := Open(ids, "S1", 2, m.ciphertexts[0]); err == nil {
		t.Error("passed off for another generation")
	}
	if _, err := Open(ids, "S1", 1, []byte("x")); err == nil {
		t.Error("garbage opens")
	}
}

func TestRefusals(t *testing.T) {
	if _, err := New(&memory{}, nil).Issue(t.Context(), "S1", 1); !errors.Is(err, ErrNoOperator) {
		t.Error(err)
	}
	_, to := keys(t)
	no := errors.New("no")
	c, err := New(&memory{err: no}, to).Issue(t.Context(), "S1", 1)
	if !errors.Is(err, no) || c != (record.Credentials{}) {
		t.Error(err, "credentials in spite of an error")
	}
	private, _, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{private.Reveal(), "age1xyz", "ssh-ed25519 AAAA"} {
		if _, err := ParseRecipients(bad); err == nil || strings.Contains(err.Error(), "AGE-SECRET") {
			t.Errorf("%v", err)
		}
	}
}

func FuzzParseRecipients(f *testing.F) {
	f.Add("age1qqqq\n# x\n")
	f.Fuzz(func(t *testing.T, s string) { ParseRecipients(s) })
}
