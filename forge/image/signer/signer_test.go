package signer

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"crypto/ed25519"

	"gprovision/model/signature"
)

func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("GPROV_NO_SKIP") == "1" {
				t.Fatalf("program %s is missing", p)
			}
			t.Skipf("program %s is missing", p)
		}
	}
}

func script(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sign")
	if err := os.WriteFile(file, []byte("#!/bin/sh\nset -e\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestProgram signs with OpenSSL in the place of an HSM, and lets minisign's own program verify.
func TestProgram(t *testing.T) {
	needs(t, "openssl", "minisign", "sh", "base64")
	dir := t.TempDir()
	key, pub := filepath.Join(dir, "k.pem"), filepath.Join(dir, "p.pem")
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("openssl", "genpkey", "-algorithm", "ed25519", "-out", key)
	run("openssl", "pkey", "-in", key, "-pubout", "-out", pub)
	text, err := os.ReadFile(pub)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	public, err := signature.PublicKeyOf(parsed.(ed25519.PublicKey), 0x1122334455667788)
	if err != nil || public.ID() != "1122334455667788" {
		t.Fatalf("%s, %v", public.ID(), err)
	}
	sign := `f=$(mktemp); trap 'rm -f $f' EXIT; cat > $f; echo $GPROV_KEY_ID $GPROV_SIGN_PART $(stat -c %s $f) >> ` + dir + `/log
openssl pkeyutl -sign -rawin -inkey "$1" -in $f`
	content := filepath.Join(dir, "file")
	if err := os.WriteFile(content, bytes.Repeat([]byte("x"), 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "m.pub"), public.Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	docs, err := os.ReadFile("../../../docs/formats/release-image.md")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(docs), "With OpenSSL in the place of an HSM:\n\n```\n#!/bin/sh\n")
	shown, _, ok := strings.Cut(shown, "```")
	if !ok {
		t.Fatal("docs/formats/release-image.md shows no program")
	}
	for _, form := range []string{sign, shown, sign + " | base64 -w0; echo", sign + " | base64"} {
		s, err := Program(context.Background(), nil, []string{script(t, form), key}, public)
		if err != nil {
			t.Fatal(err)
		}
		if form != sign && strings.HasSuffix(form, "base64") {
			// In several lines: refused.
			if _, err := s.Sign(strings.NewReader("x"), "image X"); err != nil && !errors.Is(err, ErrAnswer) {
				t.Errorf("%v", err)
			}
			continue
		}
		f, err := os.Open(content)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := s.Sign(f, "image X")
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(content+".minisig", sig, 0o600); err != nil {
			t.Fatal(err)
		}
		if out := run("minisign", "-V", "-p", filepath.Join(dir, "m.pub"), "-m", content); !strings.Contains(out, "image X") {
			t.Errorf("minisign says %s", out)
		}
		if got, err := signature.Verify([]signature.PublicKey{public}, sig, bytes.NewReader(bytes.Repeat([]byte("x"), 100_000))); err != nil || got != "image X" {
			t.Errorf("%q, %v", got, err)
		}
	}
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil || !strings.HasPrefix(string(log), "1122334455667788 file 64\n1122334455667788 comment 71\n") {
		t.Errorf("the program saw %q, %v", log, err)
	}

	// What is no signature by the key.
	for what, text := range map[string]string{
		"external signer": "cat >/dev/null; echo no key here >&2; exit 3",
		"64 bytes":        "cat >/dev/null; echo hello",
		"no signature by": "cat >/dev/null; head -c 64 /dev/zero",
	} {
		s, err := Program(context.Background(), nil, []string{script(t, text)}, public)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Sign(strings.NewReader("x"), "image X"); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := s.Sign(strings.NewReader("x"), "two\nlines"); err == nil {
			t.Error("a comment of two lines was signed")
		}
	}
	if _, err := Program(context.Background(), nil, nil, public); err == nil {
		t.Error("no program")
	}
	if _, err := Program(context.Background(), nil, []string{"true"}, signature.PublicKey{}); err == nil {
		t.Error("no key")
	}
	if _, err := signature.PublicKeyOf([]byte("short"), 1); !errors.Is(err, signature.ErrFormat) {
		t.Errorf("short key: %v", err)
	}
	if _, err := (signature.External{}).Sign(strings.NewReader(""), "image X"); err == nil {
		t.Error("the zero value signs")
	}
}
