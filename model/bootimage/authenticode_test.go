package bootimage

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"gprovision/model/edit"
)

// signer returns a new RSA key of that many bits and a certificate for it.
func signer(t testing.TB, bits int) (*rsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "test signer"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return key, c
}

func TestSignPE(t *testing.T) {
	key, cert := signer(t, 2048)
	_, other := signer(t, 2048)
	image := write(t, stub(1024), parts("BUILD_ID=7\n"))
	image = append(image, "odd"...) // data behind the sections, and a length that is no multiple of eight
	signed, err := SignPE(image, key, []*x509.Certificate{cert, other})
	if err != nil {
		t.Fatal(err)
	}
	again, err := SignPE(image, key, []*x509.Certificate{cert, other})
	if err != nil || !bytes.Equal(signed, again) {
		t.Errorf("two signatures differ (%v)", err)
	}
	got, err := Signatures(bytes.NewReader(signed), int64(len(signed)))
	if err != nil || len(got) != 1 || !got[0].Certificate.Equal(cert) {
		t.Fatalf("got %v, %v", got, err)
	}
	if !bytes.Contains(signed[len(image):], cert.Raw) || !bytes.Contains(signed[len(image):], other.Raw) {
		t.Error("a certificate does not go along")
	}
	if n, err := BuildNumber(bytes.NewReader(signed), int64(len(signed))); n != 7 || err != nil {
		t.Errorf("build number of the signed image: %d, %v", n, err)
	}
	if got, err := Signatures(bytes.NewReader(image), int64(len(image))); err != nil || got != nil {
		t.Errorf("not signed: got %v, %v", got, err)
	}
	if _, err := SignPE(signed, key, []*x509.Certificate{cert}); err == nil {
		t.Error("signed twice")
	}

	p, err := parsePE(sliceReader(signed), int64(len(signed)))
	if err != nil {
		t.Fatal(err)
	}
	checksum, directory := int(p.optional+64), int(p.optional+112+certificateTable*8)
	for at := 0; at < len(signed); at += 1 + at/64 {
		if at >= checksum && at < checksum+4 || at >= len(image) && at < len(image)+8 || at > len(signed)-8 {
			continue // not signed, or padding
		}
		bad := bytes.Clone(signed)
		bad[at] ^= 4
		s, err := Signatures(bytes.NewReader(bad), int64(len(bad)))
		if err == nil && len(s) > 0 && s[0].Certificate.Equal(cert) && at < len(image) {
			t.Errorf("byte %d changed (directory at %d): still fine", at, directory)
		}
	}
	for n := len(signed) - 1; n > 0; n -= 1 + n/50 {
		if s, err := Signatures(bytes.NewReader(signed[:n]), int64(n)); err == nil && len(s) > 0 {
			t.Errorf("cut to %d bytes: still fine", n)
		}
	}
}

func TestSignPERefuses(t *testing.T) {
	key, cert := signer(t, 2048)
	_, other := signer(t, 2048)
	weak, weakCert := signer(t, 1024)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	image := write(t, stub(1024), parts("BUILD_ID=7\n"))
	one := []*x509.Certificate{cert}
	for name, err := range map[string]error{
		"no PE file":        second(SignPE([]byte("MZ"), key, one)),
		"no certificate":    second(SignPE(image, key, nil)),
		"no key":            second(SignPE(image, nil, one)),
		"other certificate": second(SignPE(image, key, []*x509.Certificate{other})),
		"short key":         second(SignPE(image, weak, []*x509.Certificate{weakCert})),
		"other kind of key": second(SignPE(image, curve, one)),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	p, err := parsePE(sliceReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	gap := bytes.Clone(image)
	last := p.table + int64(len(p.sections)-1)*sectionHeader
	binary.LittleEndian.PutUint32(gap[last+20:], binary.LittleEndian.Uint32(gap[last+20:])-8)
	if err := second(SignPE(gap, key, one)); err == nil {
		t.Error("overlapping sections: no error")
	}
}

func second(_ []byte, err error) error { return err }

// TestSignPEAgainstSbverify lets sbsigntool judge our signatures and us judge its own, on Debian's EFI stub.
func TestSignPEAgainstSbverify(t *testing.T) {
	for _, tool := range []string{"sbsign", "sbverify"} {
		if _, err := exec.LookPath(tool); err != nil {
			needs(t, "package sbsigntool")
		}
	}
	s, err := os.ReadFile("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
	if err != nil {
		needs(t, "package systemd-boot-efi: "+err.Error())
	}
	key, cert := signer(t, 3072)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	file := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path(name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) error {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err == nil && bytes.Contains(out, []byte("warning")) {
			err = errors.New("it warns")
		}
		if err != nil {
			t.Logf("%s: %v: %s", name, err, out)
		}
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	_, other := signer(t, 2048)
	file("key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	file("cert", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	file("other", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.Raw}))
	image := write(t, s, parts("BUILD_ID=7\n"))
	file("uki", image)
	ours, err := SignPE(image, key, []*x509.Certificate{cert})
	if err != nil {
		t.Fatal(err)
	}
	file("ours", ours)
	if err := run("sbverify", "--cert", path("cert"), path("ours")); err != nil {
		t.Errorf("sbverify does not take our signature: %v", err)
	}
	if err := exec.Command("sbverify", "--cert", path("other"), path("ours")).Run(); err == nil {
		t.Error("sbverify takes it for another certificate too")
	}
	ours[len(image)/2] ^= 1
	file("changed", ours)
	if err := exec.Command("sbverify", "--cert", path("cert"), path("changed")).Run(); err == nil {
		t.Error("sbverify takes a changed file")
	}
	if err := run("sbsign", "--key", path("key"), "--cert", path("cert"), "--output", path("theirs"), path("uki")); err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadFile(path("theirs"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Signatures(bytes.NewReader(theirs), int64(len(theirs))); err != nil || len(got) != 1 || !got[0].Certificate.Equal(cert) {
		t.Errorf("signature of sbsign: got %v, %v", got, err)
	}
}

// TestSignKernel signs a kernel that is a PE file too, as one with an EFI stub is, and lets sbsigntool judge it.
func TestSignKernel(t *testing.T) {
	if _, err := exec.LookPath("sbverify"); err != nil {
		needs(t, "package sbsigntool")
	}
	const setup = 1024 // the headers of both, the banner behind
	kernel := bzImage("6.1.0 (me@there) #300 SMP")
	pe := stub(0)
	copy(kernel, pe[:0x1f0])
	head := binary.LittleEndian.Uint32(pe[60:]) + 24
	binary.LittleEndian.PutUint32(kernel[head+60:], setup)
	section := kernel[head+112+16*8:]
	binary.LittleEndian.PutUint32(section[8:], uint32(len(kernel)-setup))
	binary.LittleEndian.PutUint32(section[16:], uint32(len(kernel)-setup))
	binary.LittleEndian.PutUint32(section[20:], setup)

	key, cert := signer(t, 2048)
	signed, err := SignPE(kernel, key, []*x509.Certificate{cert})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Signatures(bytes.NewReader(signed), int64(len(signed))); err != nil || len(got) != 1 || !got[0].Certificate.Equal(cert) {
		t.Errorf("signatures are %v, %v", got, err)
	}
	i, err := Parse(bytes.NewReader(signed), int64(len(signed)))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := i.BuildNumber(); err != nil || n != 300 || i.Form != FormBzImage {
		t.Errorf("form %s, build %d, %v", i.Form, n, err)
	}
	dir := t.TempDir()
	file, certFile := filepath.Join(dir, "kernel"), filepath.Join(dir, "cert")
	for name, b := range map[string][]byte{file: signed, certFile: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("sbverify", "--cert", certFile, file).CombinedOutput(); err != nil || bytes.Contains(out, []byte("warning")) {
		t.Errorf("sbverify: %v: %s", err, out)
	}
}

func FuzzSignatures(f *testing.F) {
	key, cert := signer(f, 2048)
	var b bytes.Buffer
	if err := WriteUKI(&b, stub(1024), parts("BUILD_ID=7\n")); err != nil {
		f.Fatal(err)
	}
	signed, err := SignPE(b.Bytes(), key, []*x509.Certificate{cert})
	if err != nil {
		f.Fatal(err)
	}
	good := [][]byte{b.Bytes(), signed, signed[:len(signed)-100]}
	more, err := edit.Bases(os.DirFS("testdata/signatures"))
	if err != nil {
		f.Fatal(err)
	}
	good = append(good, more...)
	for _, s := range edit.Scripts() {
		for i := range len(good) {
			f.Add(uint8(i), s)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, script []byte) {
		b := edit.Apply(good[int(which)%len(good)], script)
		_, _ = Signatures(bytes.NewReader(b), int64(len(b)))
	})
}
