package challenge

import (
	"errors"
	"strings"
	"testing"

	"gprovision/model/signature"
)

func newKey(t *testing.T) signature.PrivateKey {
	t.Helper()
	k, err := signature.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAnswer(t *testing.T) {
	own, other := newKey(t), newKey(t)
	keys := []signature.PublicKey{other.Public(), own.Public()}
	c := New("SN/0001")
	shown, err := Parse(" SN/0001/" + strings.ToLower(strings.TrimPrefix(c.String(), "SN/0001/")) + "\n")
	if err != nil || shown != c || shown.Serial() != "SN/0001" {
		t.Fatalf("%q reads back as %v, %v", c, shown, err)
	}
	answer, err := shown.Answer(own)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(c, answer)
	if n := len(strings.Fields(answer)); n != 13 {
		t.Errorf("the answer has %d groups, want 13", n)
	}
	// As a person types it.
	typed := strings.NewReplacer("0", "o", "1", "l", " ", "-").Replace(strings.ToLower(answer))
	for _, a := range []string{answer, typed, strings.ReplaceAll(answer, " ", "")} {
		if k, err := c.Verify(keys, a); err != nil || !k.Equal(own.Public()) {
			t.Errorf("answer %q: %v", a, err)
		}
	}
	for name, err := range map[string]error{
		"another challenge": second(New("SN/0001").Verify(keys, answer)),
		"another unit":      second(Challenge{serial: "SN/0002", nonce: c.nonce}.Verify(keys, answer)),
		"an unknown key":    second(c.Verify(keys[:1], answer)),
		"no keys":           second(c.Verify(nil, answer)),
	} {
		if !errors.Is(err, signature.ErrSignature) {
			t.Errorf("%s: %v, want ErrSignature", name, err)
		}
	}
	if _, err := (Challenge{}).Verify(keys, answer); err == nil {
		t.Error("no challenge was answered")
	}
	wrong := []byte(answer)
	if wrong[3]++; wrong[3] > '9' {
		wrong[3] = '2'
	}
	for _, a := range []string{"", "U", string(wrong), answer[:50], answer + "0", strings.Repeat("0", 5000)} {
		if _, err := c.Verify(keys, a); !errors.Is(err, ErrTyping) {
			t.Errorf("answer %.20q: %v, want ErrTyping", a, err)
		}
	}
	for _, s := range []string{"", "/", "SN", "SN/", "/0000-0000-0000-0000", "SN/0000-0000-0000-000", "SN/0000-0000-0000-00000", strings.Repeat("x", 300) + "/0000-0000-0000-0000"} {
		if _, err := Parse(s); !errors.Is(err, ErrTyping) {
			t.Errorf("challenge %.20q: %v, want ErrTyping", s, err)
		}
	}
}

// TestAnswerOfAnErase: an answer holds for one unit, one certificate and one challenge, and opens no shell; nor does one of the shell do
// anything for an erase.
func TestAnswerOfAnErase(t *testing.T) {
	key := newKey(t)
	keys := []signature.PublicKey{key.Public()}
	c := NewErase("SN/0001", []byte("certificate"))
	if c.Digest() != Digest([]byte("certificate")) || c.Digest() == Digest([]byte("another")) || len(c.Digest()) != 19 {
		t.Errorf("the digest is %q", c.Digest())
	}
	shown, err := Parse(c.String())
	if err != nil || shown != c || shown.Serial() != "SN/0001" {
		t.Fatalf("%q reads back as %v, %v", c, shown, err)
	}
	answer, err := shown.Answer(key)
	if err != nil {
		t.Fatal(err)
	}
	if k, err := c.Verify(keys, answer); err != nil || !k.Equal(key.Public()) {
		t.Error(err)
	}
	shell := Challenge{serial: c.serial, nonce: c.nonce}
	ofShell, err := shell.Answer(key)
	if err != nil {
		t.Fatal(err)
	}
	other := c
	other.digest = digest([]byte("another"))
	for name, err := range map[string]error{
		"the shell":           second(shell.Verify(keys, answer)),
		"an answer for that":  second(c.Verify(keys, ofShell)),
		"another unit":        second(Challenge{serial: "SN/0002", digest: c.digest, nonce: c.nonce}.Verify(keys, answer)),
		"another certificate": second(other.Verify(keys, answer)),
		"a second time":       second(NewErase("SN/0001", []byte("certificate")).Verify(keys, answer)),
		"a shell of that name": second(Challenge{serial: c.serial + aboutErase + "/" + c.digest, nonce: c.nonce}.Verify(keys,
			answer)),
		"an unknown key": second(c.Verify([]signature.PublicKey{newKey(t).Public()}, answer)),
	} {
		if !errors.Is(err, signature.ErrSignature) {
			t.Errorf("%s: %v, want ErrSignature", name, err)
		}
	}
	const zeros = "0000-0000-0000-0000"
	for _, s := range []string{"SN/erase/0000-0000-0000-000/" + zeros, "SN/erase/" + zeros + "/", "/erase/" + zeros + "/" + zeros} {
		if _, err := Parse(s); !errors.Is(err, ErrTyping) {
			t.Errorf("challenge %.20q: %v, want ErrTyping", s, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func FuzzVerify(f *testing.F) {
	f.Add("SN-1/0000-0000-0000-0000", "00000000 00000000")
	f.Add("SN-1/erase/0000-0000-0000-0000/0000-0000-0000-0000", "00000000 00000000")
	f.Fuzz(func(t *testing.T, question, answer string) {
		c, err := Parse(question)
		if err != nil {
			return
		}
		if again, err := Parse(c.String()); err != nil || again != c {
			t.Fatalf("%q reads back as %v, %v", c, again, err)
		}
		if _, err := c.Verify(nil, answer); err == nil {
			t.Fatal("an answer without a key was accepted")
		}
	})
}
