package signature

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestExternal: a signer that lies somewhere else is given the two messages of minisign's format and is not believed.
func TestExternal(t *testing.T) {
	pub, pair, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := PublicKeyOf(pub, 0x1122334455667788)
	if err != nil || key.ID() != "1122334455667788" {
		t.Fatal(key, err)
	}
	data, boom := []byte("data"), errors.New("boom")
	for name, tc := range map[string]struct {
		raw  func(part Part, message []byte) ([]byte, error)
		want error
	}{
		"good":           {func(_ Part, m []byte) ([]byte, error) { return ed25519.Sign(pair, m), nil }, nil},
		"another file":   {func(_ Part, m []byte) ([]byte, error) { return ed25519.Sign(pair, m[1:]), nil }, ErrSignature},
		"short":          {func(_ Part, m []byte) ([]byte, error) { return ed25519.Sign(pair, m)[:63], nil }, ErrSignature},
		"none":           {func(Part, []byte) ([]byte, error) { return nil, nil }, ErrSignature},
		"error":          {func(_ Part, m []byte) ([]byte, error) { return ed25519.Sign(pair, m), boom }, boom},
		"error at first": {func(p Part, m []byte) ([]byte, error) { return ed25519.Sign(pair, m), only(p == PartFile, boom) }, boom},
		"error at last":  {func(p Part, m []byte) ([]byte, error) { return ed25519.Sign(pair, m), only(p == PartComment, boom) }, boom},
	} {
		var parts []Part
		e, err := NewExternal(key, func(p Part, m []byte) ([]byte, error) { parts = append(parts, p); return tc.raw(p, m) })
		if err != nil || !e.Public().Equal(key) {
			t.Fatal(e.Public(), err)
		}
		sig, err := e.Sign(bytes.NewReader(data), "image x")
		if !errors.Is(err, tc.want) || (sig == nil) != (tc.want != nil) {
			t.Errorf("%s: %q, %v, want %v", name, sig, err, tc.want)
			continue
		}
		if tc.want != nil {
			continue
		}
		err = VerifyAs([]PublicKey{key}, sig, bytes.NewReader(data), "image x")
		if err != nil || !slices.Equal(parts, []Part{PartFile, PartComment}) {
			t.Errorf("%s: %v, asked for %v", name, err, parts)
		}
		if sig, err := e.Sign(bytes.NewReader(data), "two\nlines"); err == nil || sig != nil {
			t.Errorf("a comment of two lines is signed: %q", sig)
		}
		if sig, err := e.Sign(failing{boom}, "image x"); !errors.Is(err, boom) || sig != nil {
			t.Errorf("a file that cannot be read: %q, %v", sig, err)
		}
	}
	raw := func(Part, []byte) ([]byte, error) { return nil, nil }
	if _, err := NewExternal(PublicKey{}, raw); err == nil {
		t.Error("a signer without a public key")
	}
	if _, err := NewExternal(key, nil); err == nil {
		t.Error("a signer without a way to sign")
	}
	if sig, err := (External{}).Sign(bytes.NewReader(data), "image x"); err == nil || sig != nil {
		t.Errorf("no signer signs: %q, %v", sig, err)
	}
	if sig, err := (External{raw: raw}).Sign(bytes.NewReader(data), "image x"); !errors.Is(err, ErrFormat) || sig != nil {
		t.Errorf("a signer without a public key signs: %q, %v", sig, err)
	}
	if k, err := PublicKeyOf(pub[:31], 1); !errors.Is(err, ErrFormat) || k.set {
		t.Errorf("a key of 31 bytes: %v, %v", k, err)
	}
}

func only(yes bool, err error) error {
	if yes {
		return err
	}
	return nil
}

// TestText: the signature of a text is that of no other text, of no other key, and of no file.
func TestText(t *testing.T) {
	key, other := newKey(t), newKey(t)
	sig, err := key.SignText("text")
	if err != nil {
		t.Fatal(err)
	}
	for _, keys := range [][]PublicKey{{key.Public()}, {{}, other.Public(), key.Public()}} {
		if k, err := VerifyText(keys, "text", sig); err != nil || !k.Equal(key.Public()) {
			t.Errorf("%d keys: %v, %v", len(keys), k, err)
		}
	}
	unset := key.Public()
	unset.set = false
	for name, tc := range map[string]struct {
		keys []PublicKey
		text string
		sig  []byte
	}{
		"another text": {[]PublicKey{key.Public()}, "texts", sig},
		"another key":  {[]PublicKey{other.Public()}, "text", sig},
		"no key":       {[]PublicKey{{}, unset}, "text", sig},
		"no keys":      {nil, "text", sig},
		"cut":          {[]PublicKey{key.Public()}, "text", sig[:63]},
		"longer":       {[]PublicKey{key.Public()}, "text", append(slices.Clone(sig), 0)},
		"none":         {[]PublicKey{key.Public()}, "text", nil},
	} {
		if k, err := VerifyText(tc.keys, tc.text, tc.sig); !errors.Is(err, ErrSignature) || k.set {
			t.Errorf("%s: %v, %v", name, k, err)
		}
	}
	without := key
	without.set = false
	for _, k := range []PrivateKey{{}, without} {
		if sig, err := k.SignText("text"); err == nil || sig != nil {
			t.Errorf("no key signs: %x, %v", sig, err)
		}
	}
}

// TestNoKey: what was never set signs nothing, is written nowhere and equals no key.
func TestNoKey(t *testing.T) {
	key := newKey(t)
	without := key
	without.set = false
	for _, k := range []PrivateKey{{}, without} {
		if sig, err := k.Sign(strings.NewReader("x"), "image x"); err == nil || sig != nil {
			t.Errorf("signs: %q, %v", sig, err)
		}
		if b, err := k.Text(""); err == nil || b != nil {
			t.Errorf("is written: %q, %v", b, err)
		}
		if k.Public().set || k.Public().String() != "" || k.Public().Equal(key.Public()) {
			t.Errorf("has the public half %v", k.Public())
		}
	}
	unset := key.Public()
	unset.set = false
	if sig, err := key.Sign(strings.NewReader("x"), "image x"); err != nil {
		t.Fatal(err)
	} else if _, err := Verify([]PublicKey{unset}, sig, strings.NewReader("x")); !errors.Is(err, ErrNoKey) {
		t.Errorf("a key that was never set verifies: %v", err)
	}
	if other := newKey(t).Public(); other.Equal(key.Public()) || !key.Public().Equal(key.Public()) {
		t.Error("keys are compared wrongly")
	}
	if sig, err := key.Sign(failing{errors.ErrUnsupported}, "image x"); !errors.Is(err, errors.ErrUnsupported) || sig != nil {
		t.Errorf("a file that cannot be read: %q, %v", sig, err)
	}
}

// TestComments: what a trusted comment may be, and what one of a manifest says.
func TestComments(t *testing.T) {
	key := newKey(t)
	for text, good := range map[string]bool{
		"~": true, " ": true, strings.Repeat("x", 1024): true, strings.Repeat("x", 1025): false, "\x1f": false, "\x7f": false,
	} {
		if _, err := key.Sign(strings.NewReader(""), text); (err == nil) != good {
			t.Errorf("comment %.10q, %d bytes: %v", text, len(text), err)
		}
	}
	for text, want := range map[string][2]string{
		"manifest WIDGET 7": {"WIDGET", "7"}, "manifest A B 7": {"A B", "7"}, "manifest W x": {"W", "x"},
		"manifest WIDGET ": {}, "manifest WIDGET": {}, "manifest  7": {}, "image WIDGET 7": {}, "manifest": {}, "": {},
	} {
		product, serial, err := ParseManifestComment(text)
		if product != want[0] || serial != want[1] || (err == nil) != (want[0] != "") {
			t.Errorf("%q: %q, %q, %v", text, product, serial, err)
		}
	}
	for text, want := range map[string]uint64{"0": 0, "7": 7, "18446744073709551615": 1<<64 - 1} {
		if n, err := ParseSerial(text); n != want || err != nil {
			t.Errorf("serial %q: %d, %v", text, n, err)
		}
	}
	for _, text := range []string{"", "-1", "+1", "1_0", "0x1", "x", "18446744073709551616"} {
		if n, err := ParseSerial(text); err == nil || n != 0 {
			t.Errorf("serial %q: %d", text, n)
		}
	}
}
