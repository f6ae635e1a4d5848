package boot

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"gprovision/model/bootimage"
)

// signerFiles makes a key and a certificate for it, as PEM files.
func signerFiles(t *testing.T) (key, cert string) {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "acme db"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key, cert = filepath.Join(dir, "db.key"), filepath.Join(dir, "db.pem")
	for name, b := range map[string]*pem.Block{key: {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}, cert: {Type: "CERTIFICATE", Bytes: der}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return key, cert
}

func TestSignedBuild(t *testing.T) {
	if _, err := exec.LookPath("sbverify"); err != nil {
		needs(t, "package sbsigntool")
	}
	key, cert := signerFiles(t)
	o := options(t, fakeRoot(t))
	o.NoBIOS = true
	o.Policy.Locked = true
	var err error
	if o.Signer, o.Certificates, err = ReadSigner(key, cert); err != nil {
		t.Fatal(err)
	}
	r, b := build(t, o)
	if r.Signer != "CN=acme db" || r.Size != int64(len(b)) {
		t.Errorf("report is %+v", r)
	}
	if out, err := exec.Command("sbverify", "--cert", cert, o.Out).CombinedOutput(); err != nil || bytes.Contains(out, []byte("warning")) {
		t.Errorf("sbverify: %v: %s", err, out)
	}
	in, err := Inspect(bytes.NewReader(b), int64(len(b)))
	if err != nil || len(in.Signatures) != 1 || in.Signatures[0].Subject != "CN=acme db" || !in.Policy.Locked || in.Cmdline != "console=ttyS0" {
		t.Errorf("inspection is %+v, %v", in, err)
	}
	if _, again := build(t, o); !bytes.Equal(b, again) {
		t.Error("two signed builds differ")
	}
	bad := bytes.Clone(b)
	bad[len(bad)/2] ^= 1
	if _, err := Inspect(bytes.NewReader(bad), int64(len(bad))); err == nil {
		t.Error("a changed file passes")
	}

	// A provisioning artifact gets its manifest by argument: no .cmdline, which would make the stub drop it.
	o.Policy.Locked, o.Provision = false, true
	o.Policy.BootArgs = `console=ttyS0 acme="a $b"`
	_, b = build(t, o)
	u, err := bootimage.ParseUKI(bytes.NewReader(b), int64(len(b)))
	if err != nil || u.Cmdline() != o.Policy.BootArgs {
		t.Errorf("cmdline %q, %v", u.Cmdline(), err)
	}
	for _, s := range u.Sections() {
		if s.Name == bootimage.SectionCmdline {
			t.Error("a signed provisioning artifact has .cmdline")
		}
	}
}

func TestReadSigner(t *testing.T) {
	key, cert := signerFiles(t)
	_, other := signerFiles(t)
	chain := filepath.Join(t.TempDir(), "chain")
	var text []byte
	for _, f := range []string{cert, other} {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, b...)
	}
	if err := os.WriteFile(chain, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if k, c, err := ReadSigner(key, chain); err != nil || k == nil || len(c) != 2 || c[0].Equal(c[1]) {
		t.Errorf("a file with two certificates: %d, %v", len(c), err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	encrypted := filepath.Join(t.TempDir(), "encrypted")
	for name, text := range map[string]string{empty: "", encrypted: string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}))} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ key, cert, text string }{{empty, cert, "no private key"}, {key, empty, "holds none"}, {encrypted, cert, "encrypted"}, {empty + "x", cert, "no such file"}, {key, empty + "x", "no such file"}} {
		if _, _, err := ReadSigner(c.key, c.cert); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s, %s: got %v", c.key, c.cert, err)
		}
	}
}

func TestLocked(t *testing.T) {
	for _, c := range []struct {
		locked, provision, signed bool
		args, cmdline, text       string
	}{
		{args: "console=ttyS0", cmdline: "console=ttyS0"},
		{},
		{locked: true, cmdline: "rdinit=/init"},
		{locked: true, args: "quiet", cmdline: "quiet"},
		{provision: true, args: "quiet", cmdline: "quiet"},
		{provision: true, signed: true, args: "quiet"},
		{locked: true, provision: true, text: "could never provision"},
		{locked: true, args: "quiet mfgurl=http://x/", text: "ignores mfgurl"},
		{locked: true, args: "DATA_ERASE=1", text: "ignores DATA_ERASE"},
		{args: "init=/bin/sh", text: "not this one"},
		{args: "rdinit=/bin/sh", text: "is /init"},
		{args: "initrd=x", text: "inside the artifact"},
		{args: "mfgurl=http://x/", cmdline: "mfgurl=http://x/"},
	} {
		o := Options{}
		o.Policy.Locked, o.Policy.Provision, o.Policy.BootArgs = c.locked, c.provision, c.args
		if c.signed {
			o.Signer = &rsa.PrivateKey{}
		}
		err := o.checkLocked()
		if (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: got %v", c, err)
		}
		if got := o.cmdline(); err == nil && got != c.cmdline {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}

// TestBuildOnAnyNumberOfCores builds with one core and with several.
func TestBuildOnAnyNumberOfCores(t *testing.T) {
	o := options(t, fakeRoot(t))
	extra := filepath.Join(t.TempDir(), "data")
	data := make([]byte, 9<<20) // more than one window of the compressor
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	if err := os.WriteFile(extra, data, 0o644); err != nil {
		t.Fatal(err)
	}
	o.Add = []Addition{{From: extra, To: "/opt/data"}}
	o.NoBIOS = true
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	_, one := build(t, o)
	runtime.GOMAXPROCS(4)
	_, four := build(t, o)
	if !bytes.Equal(one, four) {
		t.Error("the number of cores makes a difference")
	}
}
