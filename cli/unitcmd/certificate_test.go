package unitcmd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gprovision/model/erasure"
	"gprovision/model/signature"
	"gprovision/unit/state"
)

// TestEraseCertificate: the certificate is printed, or copied with all that belongs to it, and replaces no file.
func TestEraseCertificate(t *testing.T) {
	f := newFake(t)
	if code := f.run("erase-certificate"); code != 1 || !strings.Contains(f.err.String(), "there is no certificate") {
		t.Errorf("without one: exit status %d: %s", code, f.err.String())
	}
	put := func(suffix, text string) error {
		return state.WriteEraseFile(f.volume(), state.CertificateFile+suffix, []byte(text))
	}
	if err := errors.Join(put("", "{}\n"), put(erasure.VoucherSuffix, "voucher")); err != nil {
		t.Fatal(err)
	}
	if code := f.run("erase-certificate"); code != 0 || f.out.String() != "{}\n" || len(f.ops) > 0 {
		t.Errorf("exit status %d, mounts %q: %q, %s", code, f.ops, f.out.String(), f.err.String())
	}
	out := filepath.Join(t.TempDir(), "SN-0001.json")
	if code := f.run("erase-certificate", "--out", out); code != 1 {
		t.Errorf("without its signature: exit status %d", code)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a certificate without its signature is copied")
	}
	if err := errors.Join(put(signature.Suffix, "signature"), os.Remove(out+erasure.VoucherSuffix)); err != nil {
		t.Fatal(err)
	}
	if code := f.run("erase-certificate", "-o", out); code != 0 {
		t.Errorf("exit status %d: %s", code, f.err.String())
	}
	for suffix, want := range map[string]string{"": "{}\n", signature.Suffix: "signature", erasure.VoucherSuffix: "voucher"} {
		if b, err := os.ReadFile(out + suffix); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", suffix, b, err)
		}
	}
	if _, err := os.Stat(out + erasure.ProofSuffix); err == nil {
		t.Error("a proof that is not there is copied")
	}
	if code := f.run("erase-certificate", "-o", out); code != 1 || !strings.Contains(f.err.String(), "is there already") {
		t.Errorf("twice: exit status %d: %s", code, f.err.String())
	}
}
