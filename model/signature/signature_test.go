package signature

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"
	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/scrypt"

	"gprovision/model/secret"
)

func needTool(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatalf("program %s is missing", name)
		}
		t.Skipf("program %s is missing", name)
	}
	return p
}

func newKey(t testing.TB) PrivateKey {
	t.Helper()
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSignVerify(t *testing.T) {
	key, other := newKey(t), newKey(t)
	data := bytes.Repeat([]byte("0123456789"), 300_000)
	comment := ImageComment("WIDGET.LNX.SHINY.2026-11-22.0001.upd")
	if comment != "image WIDGET.LNX.SHINY.2026-11-22.0001" {
		t.Errorf("comment is %q", comment)
	}
	sig, err := key.Sign(bytes.NewReader(data), comment)
	if err != nil {
		t.Fatal(err)
	}
	trusted := []PublicKey{{}, other.Public(), key.Public()}
	got, err := Verify(trusted, sig, bytes.NewReader(data))
	if err != nil || got != comment {
		t.Fatalf("got %q, %v", got, err)
	}
	if err := VerifyAs(trusted, sig, bytes.NewReader(data), comment); err != nil {
		t.Error(err)
	}
	edited := func(old, new string) []byte { return bytes.Replace(sig, []byte(old), []byte(new), 1) }
	legacy := minisign.SignWithComments(key.key, data[:64], comment, "x")
	tests := []struct {
		name string
		keys []PublicKey
		sig  []byte
		data []byte
		want error
	}{
		{"no keys", nil, sig, data, ErrNoKey},
		{"zero key", []PublicKey{{}}, sig, data, ErrNoKey},
		{"other key", []PublicKey{other.Public()}, sig, data, ErrNoKey},
		{"changed data", trusted, sig, append([]byte("x"), data...), ErrSignature},
		{"cut data", trusted, sig, data[:len(data)-1], ErrSignature},
		{"no data", trusted, sig, nil, ErrSignature},
		{"changed comment", trusted, edited("2026", "2027"), data, ErrSignature},
		{"cut signature", trusted, sig[:len(sig)-20], data, ErrFormat},
		{"empty signature", trusted, nil, data, ErrFormat},
		{"huge signature", trusted, bytes.Repeat([]byte("x"), MaxSize+1), data, ErrFormat},
		{"old kind", trusted, legacy, data[:64], ErrFormat},
	}
	for _, tt := range tests {
		if _, err := Verify(tt.keys, tt.sig, bytes.NewReader(tt.data)); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		want := tt.want
		if tt.name == "changed comment" {
			want = ErrComment
		}
		if err := VerifyAs(tt.keys, tt.sig, bytes.NewReader(tt.data), comment); !errors.Is(err, want) {
			t.Errorf("%s: VerifyAs: got %v, want %v", tt.name, err, want)
		}
	}
	if err := VerifyAs(trusted, sig, bytes.NewReader(data), "image OTHER"); !errors.Is(err, ErrComment) {
		t.Errorf("other comment: %v", err)
	}
	// The untrusted comment may be as long as the file may be.
	long := edited("untrusted comment: ", "untrusted comment: "+strings.Repeat("x", MaxSize-len(sig)))
	if i, err := Parse(long); len(long) != MaxSize || err != nil || i.Trusted != comment {
		t.Errorf("a signature of %d bytes: %v, %v", len(long), i, err)
	}
	boom := errors.New("boom")
	if _, err := Verify(trusted, sig, failing{boom}); !errors.Is(err, boom) || errors.Is(err, ErrSignature) {
		t.Errorf("read error: %v", err)
	}
	for _, bad := range []string{"", "two\nlines", "tab\t", "ü", strings.Repeat("x", 2000)} {
		if _, err := key.Sign(bytes.NewReader(nil), bad); err == nil {
			t.Errorf("comment %q accepted", bad)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestKeyFiles(t *testing.T) {
	key := newKey(t)
	pub := key.Public()
	for _, text := range []string{pub.String(), string(pub.Text()), "\r\n" + pub.String() + "\r\n", strings.ReplaceAll(string(pub.Text()), "\n", "\r\n")} {
		got, err := ParsePublicKey(text)
		if err != nil || !got.Equal(pub) {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
	text, err := key.Text("")
	if err != nil {
		t.Fatal(err)
	}
	if Encrypted(string(text)) {
		t.Error("clear key says it is encrypted")
	}
	got, err := ParsePrivateKey(string(text), "")
	if err != nil || !got.Public().Equal(pub) {
		t.Fatalf("got %v, %v", got.Public(), err)
	}
	if s := fmt.Sprintf("%v %+v %#v %s %x", got, got, got, got, got); strings.Trim(s, " ") != strings.TrimSpace(strings.Repeat("[secret] ", 5)) {
		t.Errorf("a private key prints as %s", s)
	}
	for _, bad := range []string{"", "x", "untrusted comment: x", pub.String() + "\n" + pub.String(), string(text), "untrusted comment: x\n!!!!"} {
		if _, err := ParsePublicKey(bad); !errors.Is(err, ErrFormat) {
			t.Errorf("public key %q: %v", bad, err)
		}
	}
	// A private key whose public half was changed would leak itself with its first signature.
	lines := strings.Split(string(text), "\n")
	broken := lines[0] + "\n" + flip(t, lines[1], 62+40)
	if _, err := ParsePrivateKey(broken, ""); !errors.Is(err, ErrFormat) {
		t.Errorf("inconsistent key: %v", err)
	}
	if _, err := ParsePublicKeys([]string{pub.String(), "x"}); err == nil || !strings.Contains(err.Error(), "key 2:") {
		t.Errorf("bad key in list: %v", err)
	}
	long := strings.Repeat(" ", MaxSize-len(pub.String())) + pub.String()
	if _, err := ParsePublicKey(long); err != nil {
		t.Errorf("a key file of 16 KiB: %v", err)
	}
	for _, text := range []string{" " + long, "no comment\n" + pub.String()} {
		if k, err := ParsePublicKey(text); !errors.Is(err, ErrFormat) || k.set {
			t.Errorf("%d bytes: %v, %v", len(text), k, err)
		}
	}
	if keys, err := ParsePublicKeys([]string{pub.String()}); err != nil || len(keys) != 1 {
		t.Errorf("got %v, %v", keys, err)
	}
}

// TestPassphrase decrypts a key that was encrypted at low cost: minisign's own cost is a gigabyte and some seconds.
func TestPassphrase(t *testing.T) {
	key := newKey(t)
	text := cheaplyEncrypted(t, key, "correct horse")
	if !Encrypted(text) {
		t.Error("encrypted key says it is clear")
	}
	for _, wrong := range []secret.Secret{"", "wrong horse"} {
		if _, err := ParsePrivateKey(text, wrong); !errors.Is(err, ErrPassphrase) {
			t.Errorf("wrong passphrase: %v", err)
		}
	}
	got, err := ParsePrivateKey(text, "correct horse")
	if err != nil || !got.Public().Equal(key.Public()) {
		t.Errorf("got %v, %v", got.Public(), err)
	}
}

// cheaplyEncrypted does what minisign does, with the smallest cost of scrypt that the format can express.
func cheaplyEncrypted(t *testing.T, key PrivateKey, passphrase string) string {
	t.Helper()
	clear, err := key.Text("")
	if err != nil {
		t.Fatal(err)
	}
	line, err := lastLine(string(clear))
	if err != nil {
		t.Fatal(err)
	}
	b, err := base64.StdEncoding.DecodeString(line)
	if err != nil {
		t.Fatal(err)
	}
	const ops, mem = 1 << 15, 1 << 20 // N 1024, r 8, p 1
	binary.LittleEndian.PutUint16(b[2:], 0x6353)
	binary.LittleEndian.PutUint64(b[38:], ops)
	binary.LittleEndian.PutUint64(b[46:], mem)
	sum := blake2b.Sum256(append([]byte("Ed"), b[54:126]...))
	copy(b[126:], sum[:])
	stream, err := scrypt.Key([]byte(passphrase), b[6:38], 1024, 8, 1, 104)
	if err != nil {
		t.Fatal(err)
	}
	for i := range stream {
		b[54+i] ^= stream[i]
	}
	return "untrusted comment: x\n" + base64.StdEncoding.EncodeToString(b) + "\n"
}

func TestPassphraseAtFullCost(t *testing.T) {
	if os.Getenv("GPROV_NO_SKIP") != "1" {
		t.Skip("takes a gigabyte of memory and ten seconds; set GPROV_NO_SKIP=1 to run it")
	}
	key := newKey(t)
	text, err := key.Text("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParsePrivateKey(string(text), "correct horse")
	if err != nil || !got.Public().Equal(key.Public()) {
		t.Errorf("got %v, %v", got.Public(), err)
	}
}

// TestDebianMinisign holds our files against Debian's program, in both directions.
func TestDebianMinisign(t *testing.T) {
	minisign := needTool(t, "minisign")
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(minisign, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("minisign %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	data := bytes.Repeat([]byte("data"), 100_000)
	file := write("file", data)

	// Ours, checked by theirs.
	key := newKey(t)
	pub := write("our.pub", key.Public().Text())
	sig, err := key.Sign(bytes.NewReader(data), ManifestComment("WIDGET", "7"))
	if err != nil {
		t.Fatal(err)
	}
	write("file"+Suffix, sig)
	if out := run("-V", "-p", pub, "-m", file); !strings.Contains(out, "manifest WIDGET 7") {
		t.Errorf("minisign says %s", out)
	}
	// Our private key, used by theirs.
	text, err := key.Text("")
	if err != nil {
		t.Fatal(err)
	}
	priv := write("our.key", text)
	run("-S", "-s", priv, "-m", file, "-t", "image X", "-x", filepath.Join(dir, "sig2"))
	sig2, err := os.ReadFile(filepath.Join(dir, "sig2"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Verify([]PublicKey{key.Public()}, sig2, bytes.NewReader(data)); err != nil || got != "image X" {
		t.Errorf("got %q, %v", got, err)
	}
	// Their key and signature, used by ours.
	tpub, tkey := filepath.Join(dir, "their.pub"), filepath.Join(dir, "their.key")
	run("-G", "-W", "-p", tpub, "-s", tkey)
	run("-S", "-s", tkey, "-m", file, "-t", "image Y", "-x", filepath.Join(dir, "sig3"))
	run("-S", "-l", "-s", tkey, "-m", file, "-t", "image Y", "-x", filepath.Join(dir, "sig4"))
	read := func(p string) []byte {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	theirs, err := ParsePublicKey(string(read(tpub)))
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyAs([]PublicKey{theirs}, read(filepath.Join(dir, "sig3")), bytes.NewReader(data), "image Y"); err != nil {
		t.Error(err)
	}
	if _, err := Verify([]PublicKey{theirs}, read(filepath.Join(dir, "sig4")), bytes.NewReader(data)); !errors.Is(err, ErrFormat) {
		t.Errorf("signature of the old kind: %v", err)
	}
	tpriv, err := ParsePrivateKey(string(read(tkey)), secret.Secret(""))
	if err != nil || !tpriv.Public().Equal(theirs) {
		t.Fatalf("their private key: %v", err)
	}
	sig5, err := tpriv.Sign(bytes.NewReader(data), "image Z")
	if err != nil {
		t.Fatal(err)
	}
	write("sig5", sig5)
	run("-V", "-p", tpub, "-m", file, "-x", filepath.Join(dir, "sig5"))
	// And theirs refuses ours when the file is another.
	write("file", append(data, 'x'))
	if out, err := exec.Command(minisign, "-V", "-p", pub, "-m", file).CombinedOutput(); err == nil {
		t.Errorf("minisign accepts a changed file: %s", out)
	}
}

func FuzzVerify(f *testing.F) {
	key := newKey(f)
	sig, err := key.Sign(strings.NewReader("x"), "image X")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sig)
	f.Add([]byte("untrusted comment: x\n\ntrusted comment: y\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Verify([]PublicKey{key.Public()}, b, strings.NewReader("x"))
		if err == nil && got != "image X" {
			t.Errorf("accepts %q with comment %q", b, got)
		}
		if _, err := Verify([]PublicKey{key.Public()}, b, strings.NewReader("y")); err == nil {
			t.Errorf("accepts %q for other data", b)
		}
	})
}

func FuzzParsePublicKey(f *testing.F) {
	k := newKey(f).Public()
	f.Add(k.String())
	f.Add(string(k.Text()))
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParsePublicKey(s)
		if err != nil {
			return
		}
		again, err := ParsePublicKey(string(got.Text()))
		if err != nil || !again.Equal(got) {
			t.Errorf("%q: %v, %v", s, again, err)
		}
	})
}

func FuzzParsePrivateKey(f *testing.F) {
	text, err := newKey(f).Text("")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParsePrivateKey(s, "") // without a passphrase no costly decryption is tried
		if err != nil {
			return
		}
		sig, err := k.Sign(strings.NewReader("x"), "c")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Verify([]PublicKey{k.Public()}, sig, strings.NewReader("x")); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	})
}

// flip changes one bit of the decoded line at byte i.
func flip(t *testing.T, line string, i int) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(line)
	if err != nil {
		t.Fatal(err)
	}
	b[i] ^= 1
	return base64.StdEncoding.EncodeToString(b)
}
