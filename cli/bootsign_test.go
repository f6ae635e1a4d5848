package cli

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gprovision/model/secret"
	"gprovision/model/signature"
)

// TestBootSign signs an artifact, for the product that is named and the build number that it has.
func TestBootSign(t *testing.T) {
	dir := t.TempDir()
	b := make([]byte, 2048, 4096)
	b[0x1f1] = 1
	binary.LittleEndian.PutUint16(b[0x1fe:], 0xaa55)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x206:], 0x020f)
	binary.LittleEndian.PutUint16(b[0x20e:], 0x100)
	b[0x211] = 1
	copy(b[0x300:], "6.1.0-norm_boot (builder@host) #7 SMP Thu Jan 1 00:00:00 UTC 2026\x00")
	k, err := signature.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	text, err := k.Text(secret.Secret(""))
	if err != nil {
		t.Fatal(err)
	}
	file, key, other := filepath.Join(dir, "norm_boot"), filepath.Join(dir, "product.key"), filepath.Join(dir, "notes.txt")
	for path, content := range map[string][]byte{file: b, key: text, other: []byte("no artifact")} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := bootRun(t, "sign", "--key", key, "--product", "ACME.LNX.FOX.", file)
	if err != nil || !strings.Contains(out, `"artifact ACME.LNX.FOX 7"`) {
		t.Fatalf("%s, %v", out, err)
	}
	sig, err := os.ReadFile(file + signature.Suffix)
	if err != nil {
		t.Fatal(err)
	}
	if err := signature.VerifyAs([]signature.PublicKey{k.Public()}, sig, strings.NewReader(string(b)), signature.ArtifactComment("ACME.LNX.FOX", 7)); err != nil {
		t.Error(err)
	}
	if _, err := bootRun(t, "sign", "--key", key, "--product", "ACME.LNX.FOX.", other); err == nil {
		t.Error("what is no artifact was signed")
	}
	if _, err := bootRun(t, "sign", file); err == nil {
		t.Error("signed without a key")
	}
}
