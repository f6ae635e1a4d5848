// Package keytest makes keys and signatures for tests of code that checks them.
package keytest

import (
	"strings"
	"testing"

	"gprovision/model/signature"
)

// New returns a random key.
func New(t testing.TB) signature.PrivateKey {
	t.Helper()
	k, err := signature.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Sign returns the signature of k over content, with a trusted comment.
func Sign(t testing.TB, k signature.PrivateKey, content, comment string) string {
	t.Helper()
	sig, err := k.Sign(strings.NewReader(content), comment)
	if err != nil {
		t.Fatal(err)
	}
	return string(sig)
}
