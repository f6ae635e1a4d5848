package erasure_test

import (
	"bytes"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gprovision/model/erasure"
	"gprovision/model/erasure/erasuretest"
)

// codesOf returns a certificate with its signature and codes.
func codesOf(t testing.TB, run byte, most int) (file, sig []byte, codes []string) {
	t.Helper()
	file, sig, err := erasuretest.Proved("S1", run).Sign(erasuretest.Key(1))
	if err == nil {
		codes, err = erasure.Codes(file, sig, most)
	}
	if err != nil {
		t.Fatal(err)
	}
	return file, sig, codes
}

// TestCodes: the codes of a certificate give it back, in any order, whole or not at all.
func TestCodes(t *testing.T) {
	file, sig, codes := codesOf(t, 1, 600)
	alphanumeric := regexp.MustCompile(`^[0-9A-Z $%*+./:-]{1,600}$`)
	for _, c := range codes {
		if !alphanumeric.MatchString(c) {
			t.Errorf("%q is not for a QR code", c)
		}
	}
	if len(codes) < 2 || len(codes) > 6 {
		t.Errorf("%d codes for %d bytes", len(codes), len(file))
	}
	back := func(codes ...string) error {
		f, s, err := erasure.ParseCodes(strings.Join(codes, "\n"))
		if err == nil && (!bytes.Equal(f, file) || !bytes.Equal(s, sig)) {
			t.Error("another certificate came back")
		}
		return err
	}
	reversed := slices.Clone(codes)
	slices.Reverse(reversed)
	if err := errors.Join(back(codes...), back(reversed...), back(append(codes, codes[0]+"  ")...)); err != nil {
		t.Error(err)
	}
	_, _, others := codesOf(t, 2, 600)
	damaged := slices.Clone(codes)
	damaged[0] = strings.Replace(damaged[0], "A", "B", 20)
	for what, c := range map[string][]string{
		"nothing": nil, "one is missing": codes[1:], "one of another certificate": append(slices.Clone(codes[1:]), others[0]), "damaged": damaged,
		"no code": append(slices.Clone(codes), "HELLO"), "number 0": {strings.Replace(codes[0], ":1/", ":0/", 1)},
		"number 99 of 1": {"GPROV-ERASE:99/1:01234567:A"}, "of 100": {"GPROV-ERASE:1/100:01234567:A"},
		"no number": {"GPROV-ERASE:x/y:01234567:A"}, "too much": {strings.Repeat("x", 4<<20)}, "empty": {"GPROV-ERASE:1/1:01234567:"},
	} {
		if err := back(c...); !errors.Is(err, erasure.ErrCodes) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := erasure.Codes(file, sig, 40); !errors.Is(err, erasure.ErrCodes) {
		t.Errorf("in more codes than there may be: %v", err)
	}
	bomb, err := erasure.Codes(bytes.Repeat([]byte("x"), 3<<20), sig, 4000)
	if err != nil {
		t.Fatal(err)
	}
	if err := back(bomb...); !errors.Is(err, erasure.ErrCodes) {
		t.Errorf("more than a certificate may have: %v", err)
	}
}

// FuzzParseCodes: whatever is pasted is refused or whole.
func FuzzParseCodes(f *testing.F) {
	_, _, codes := codesOf(f, 1, 600)
	f.Add(strings.Join(codes, "\n"))
	f.Add("GPROV-ERASE:1/1:01234567:A")
	f.Fuzz(func(t *testing.T, text string) {
		if _, _, err := erasure.ParseCodes(text); err != nil && !errors.Is(err, erasure.ErrCodes) {
			t.Error(err)
		}
	})
}
