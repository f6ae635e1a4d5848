package signature

import (
	"errors"
	"strings"
	"testing"

	"gprovision/model/secret"
	"gprovision/model/source"
)

// TestByteOrderMark is about key files that an editor of Windows has saved.
func TestByteOrderMark(t *testing.T) {
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	private, err := k.Text(secret.Secret(""))
	if err != nil {
		t.Fatal(err)
	}
	wide := func(text string) string { // UTF-16, little-endian, as PowerShell's > writes it
		return "\xff\xfe" + strings.ReplaceAll(strings.Join(strings.Split(text, ""), "\x00")+"\x00", "\n\x00", "\r\x00\n\x00")
	}
	for _, text := range []string{string(k.Public().Text()), k.Public().String()} {
		if got, err := ParsePublicKey("\xef\xbb\xbf" + text); err != nil || !got.Equal(k.Public()) {
			t.Errorf("with a mark: %v", err)
		}
		if _, err := ParsePublicKey(wide(text)); !errors.Is(err, source.ErrUTF16) {
			t.Errorf("in UTF-16: %v", err)
		}
	}
	if got, err := ParsePrivateKey("\xef\xbb\xbf"+string(private), secret.Secret("")); err != nil || !got.Public().Equal(k.Public()) {
		t.Errorf("private, with a mark: %v", err)
	}
}
