package lab_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gprovision/lab"
	"gprovision/model/signature"
)

// TestProduct makes everything a server needs, with the tiny program in the place of init.
func TestProduct(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a root filesystem: not with -short")
	}
	if os.Geteuid() != 0 {
		skip(t, "mmdebstrap needs root")
	}
	root, err := debianRoot()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	dir := workDir(t, 1<<30)
	tiny := filepath.Join(dir, "tiny")
	if err := lab.BuildTiny(t.Context(), log, tiny); err != nil {
		t.Fatal(err)
	}
	p, err := lab.NewProduct(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Artifacts(t.Context(), log, root, tiny, 7); err != nil {
		t.Fatal(err)
	}
	tinyTar := filepath.Join(dir, "tiny.tar")
	var b bytes.Buffer
	if err := lab.TinyRoot(&b, tiny, "1", nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tinyTar, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	name, err := p.Release(t.Context(), log, tinyTar, 1, "0", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Manifest([]string{name}, nil); err != nil {
		t.Fatal(err)
	}
	key, err := signature.ParsePublicKey(p.Policy.Keys[0])
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{name: "image " + strings.TrimSuffix(name, ".upd"), lab.ManifestFile: "manifest QEMU 1"} {
		content, err := os.ReadFile(p.Path(file))
		if err != nil {
			t.Fatal(err)
		}
		sig, err := os.ReadFile(p.Path(file + signature.Suffix))
		if err != nil {
			t.Fatal(err)
		}
		if err := signature.VerifyAs([]signature.PublicKey{key}, sig, bytes.NewReader(content), want); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	q, err := p.Copy(filepath.Join(dir, "copy"))
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Replace(name, []byte("other")); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(p.Path(name)); err != nil || st.Size() < 1000 {
		t.Errorf("replacing a file of a copy changed the original: %v", err)
	}
}
