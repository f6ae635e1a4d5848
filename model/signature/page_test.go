package signature

import (
	"errors"
	"os"
	"strings"
	"testing"

	"gprovision/model/page"
)

// TestPage: what docs/formats/signature.md says of key files and trusted comments.
func TestPage(t *testing.T) {
	docs := os.DirFS("../../docs")
	rows, err := page.Rows(docs, "formats/signature.md", "The *trusted comment*")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for _, row := range rows[1:] {
		kind, _, _ := strings.Cut(strings.TrimLeft(row[0], "["), "]")
		said[kind] = page.Codes(row[1])[0]
	}
	for kind, c := range map[string]string{
		"release image": ImageComment("NAME.upd"),
		"boot artifact": ArtifactComment("PREFIX.", 7),
		"manifest":      ManifestComment("PRODUCT", "SERIAL"),
		"certificate":   EraseComment("UNIT", "RUN"),
	} {
		if strings.Replace(said[kind], "BUILD", "7", 1) != c {
			t.Errorf("the page says %q of a %s, it is %q", said[kind], kind, c)
		}
	}

	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(k.Public().Text()), "\n")
	if got, err := ParsePublicKey(lines[1]); err != nil || !got.Equal(k.Public()) {
		t.Errorf("the second line of a public key's file is not the key: %v", err)
	}
	err = page.Says(docs, "formats/signature.md", "The second line is what goes into `keys`", "It has at most 16 KiB, as a key file has")
	if err != nil {
		t.Error(err)
	}
	sig, err := k.Sign(strings.NewReader("x"), "image x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(append(sig, make([]byte, 16<<10-len(sig)+1)...)); MaxSize != 16<<10 || !errors.Is(err, ErrFormat) {
		t.Errorf("a signature of more than 16 KiB: %v", err)
	}
}
