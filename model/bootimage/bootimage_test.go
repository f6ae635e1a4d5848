package bootimage

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"gprovision/model/edit"
)

// bzImage returns the smallest file that has a bzImage's header.
func bzImage(banner string) []byte {
	b := make([]byte, 2048)
	b[0x1f1] = 1
	binary.LittleEndian.PutUint16(b[0x1fe:], 0xaa55)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x206:], 0x020f)
	binary.LittleEndian.PutUint16(b[0x20e:], 0x100)
	b[0x211] = 1
	copy(b[0x300:], banner+"\x00")
	return b
}

const debianBanner = "6.1.0-26-amd64 (debian-kernel@lists.debian.org) #1 SMP PREEMPT_DYNAMIC Debian 6.1.112-1 (2024-09-30)"

// stub returns the smallest PE file that sections can be added to, with room for room more of them.
func stub(room int) []byte {
	const pe, opt = 0x80, 0x80 + 24
	table := opt + 112 + 16*8
	head := int(roundUp(int64(table+40+room*40), 512))
	if room == 0 {
		head = table + 40
	}
	b := make([]byte, head+512)
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[60:], pe)
	copy(b[pe:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[pe+4:], peMachineAMD64)
	binary.LittleEndian.PutUint16(b[pe+6:], 1)
	binary.LittleEndian.PutUint16(b[pe+20:], 112+16*8)
	binary.LittleEndian.PutUint16(b[opt:], pe32Plus)
	binary.LittleEndian.PutUint32(b[opt+32:], 4096)
	binary.LittleEndian.PutUint32(b[opt+36:], 512)
	binary.LittleEndian.PutUint32(b[opt+56:], 8192)
	binary.LittleEndian.PutUint32(b[opt+60:], uint32(head))
	binary.LittleEndian.PutUint32(b[opt+64:], 12345)
	binary.LittleEndian.PutUint32(b[opt+108:], 16)
	s := b[table:]
	copy(s, ".text")
	binary.LittleEndian.PutUint32(s[8:], 100)
	binary.LittleEndian.PutUint32(s[12:], 4096)
	binary.LittleEndian.PutUint32(s[16:], 512)
	binary.LittleEndian.PutUint32(s[20:], uint32(head))
	return b
}

func parts(osrel string) []Part {
	return []Part{
		{SectionOSRel, []byte(osrel)},
		{SectionUname, []byte("6.1.0-26-amd64")},
		{SectionCmdline, []byte("console=ttyS0 quiet")},
		{SectionInitrd, bytes.Repeat([]byte("initrd"), 1000)},
		{SectionLinux, bzImage(debianBanner)},
	}
}

func write(t *testing.T, stub []byte, p []Part) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := WriteUKI(&b, stub, p); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUKI(t *testing.T) {
	b := write(t, stub(5), parts("ID=gprovision\nBUILD_ID=\"42\"\n"))
	u, err := ParseUKI(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := u.BuildNumber(); n != 42 || err != nil {
		t.Errorf("build number %d, %v", n, err)
	}
	if u.Cmdline() != "console=ttyS0 quiet" || u.Uname() != "6.1.0-26-amd64" || u.OSRelease()["ID"] != "gprovision" {
		t.Errorf("texts are %q %q %q", u.Cmdline(), u.Uname(), u.OSRelease())
	}
	initrd, err := io.ReadAll(u.Initrd())
	if err != nil || !bytes.Equal(initrd, bytes.Repeat([]byte("initrd"), 1000)) {
		t.Errorf("initrd has %d bytes, %v", len(initrd), err)
	}
	linux, err := io.ReadAll(u.Linux())
	if err != nil || !bytes.Equal(linux, bzImage(debianBanner)) {
		t.Errorf("linux has %d bytes, %v", len(linux), err)
	}
	checkGeometry(t, u)
}

// checkGeometry checks what a PE loader asks for.
func checkGeometry(t *testing.T, u *UKI) {
	t.Helper()
	end := uint32(0)
	for _, s := range u.Sections() {
		ours := s.Name == SectionOSRel || s.Name == SectionUname || s.Name == SectionCmdline || s.Name == SectionInitrd || s.Name == SectionLinux
		if s.VirtualAddress < end || ours && (s.VirtualAddress%max(u.pe.sectionAlign, pageSize) != 0 || s.Offset%u.pe.fileAlign != 0) {
			t.Errorf("section %+v does not fit behind %#x", s, end)
		}
		end = s.VirtualAddress + s.VirtualSize
	}
	if u.pe.sizeOfImage < end || u.pe.sizeOfImage%u.pe.sectionAlign != 0 {
		t.Errorf("image of %#x bytes in memory, sections end at %#x", u.pe.sizeOfImage, end)
	}
	if last := u.Sections()[len(u.Sections())-1]; last.Name != SectionLinux {
		t.Errorf("last section is %s", last.Name)
	}
}

func TestWriteUKIRefuses(t *testing.T) {
	signed := stub(5)
	binary.LittleEndian.PutUint64(signed[0x80+24+112+32:], 1)
	for name, c := range map[string]struct {
		stub  []byte
		parts []Part
	}{
		"no room":       {stub(0), parts("")[1:]},
		"signed":        {signed, parts("A=b")},
		"twice":         {stub(5), []Part{{".a", []byte("x")}, {".a", []byte("x")}}},
		"name too long": {stub(5), []Part{{".ninebyte", []byte("x")}}},
		"empty":         {stub(5), []Part{{".a", nil}}},
		"there already": {stub(5), []Part{{".text", []byte("x")}}},
		"not a PE":      {[]byte("MZ"), parts("")},
	} {
		if err := WriteUKI(io.Discard, c.stub, c.parts); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestParseUKIRefuses(t *testing.T) {
	whole := write(t, stub(5), parts("A=b\n"))
	twice := write(t, stub(5), append([]Part{{".other", []byte("x")}}, parts("A=b\n")...))
	copy(twice[bytes.Index(twice, []byte(".other")):], SectionInitrd+"\x00")
	for name, b := range map[string][]byte{
		"empty":        nil,
		"stub alone":   stub(5),
		"text":         []byte("hello"),
		"cut":          whole[:len(whole)-600],
		"twice":        twice,
		"no initrd":    write(t, stub(5), parts("A=b\n")[4:]),
		"bad kernel":   write(t, stub(5), []Part{{SectionInitrd, []byte("x")}, {SectionLinux, []byte("x")}}),
		"large .osrel": write(t, stub(5), parts(strings.Repeat("A", maxText+1))),
	} {
		if _, err := ParseUKI(bytes.NewReader(b), int64(len(b))); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := ParseUKI(bytes.NewReader(stub(5)), int64(len(stub(5)))); !errors.Is(err, ErrNotUKI) {
		t.Errorf("stub alone: %v", err)
	}
}

func TestBuildNumber(t *testing.T) {
	for _, c := range []struct {
		name string
		file []byte
		want uint64
		err  error
	}{
		{"BUILD_ID", write(t, stub(5), parts("BUILD_ID=7\n")), 7, nil},
		{"BUILD_ID of 64 bits", write(t, stub(5), parts("BUILD_ID=18446744073709551615\n")), 1<<64 - 1, nil},
		{"no BUILD_ID: the banner", write(t, stub(5), parts("ID=x\n")), 1, nil},
		{"a number that goes on with a dash", bzImage("6.8.0-45-generic (buildd@lcy02) #45-Ubuntu SMP"), 45, nil},
		{"a banner of 64 bits", bzImage("6.1.0 (me@there) #18446744073709551615"), 1<<64 - 1, nil},
		{"bzImage", bzImage("5.4.0 (me@there) #300 SMP PREEMPT_DYNAMIC Thu Jan 1 00:00:00 UTC 2026"), 300, nil},
		{"bzImage of Ubuntu", bzImage("6.8.0-45-generic (buildd@lcy02) #45~22.04.1-Ubuntu SMP"), 0, ErrNoBuild},
		{"bzImage without a banner", bzImage("6.1.0"), 0, ErrNoBuild},
		{"neither", []byte("hello"), 0, ErrNotBzImage},
	} {
		got, err := BuildNumber(bytes.NewReader(c.file), int64(len(c.file)))
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: got %d, %v; want %d, %v", c.name, got, err, c.want, c.err)
		}
	}
	for _, bad := range []string{"BUILD_ID=x\n", "BUILD_ID=-1\n", "BUILD_ID=\n", "BUILD_ID=99999999999999999999\n", "BUILD_ID=\"1\n"} {
		b := write(t, stub(5), parts(bad))
		if n, err := BuildNumber(bytes.NewReader(b), int64(len(b))); err == nil {
			t.Errorf("%q: got %d", bad, n)
		}
	}
}

func TestOSRelease(t *testing.T) {
	m, err := ParseOSRelease([]byte("# c\n\nA=1\nB='x y'\nC=\"a\\\"b\\$c\\d\"\nD=a\\ b\nA=2\n"))
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]string{"A": "2", "B": "x y", "C": `a"b$c\d`, "D": "a b"} {
		if m[k] != want {
			t.Errorf("%s is %q, want %q", k, m[k], want)
		}
	}
	for _, bad := range []string{"A", "=b", "A=b c", "A='b", "A=b\\", "A B=c"} {
		if m, err := ParseOSRelease([]byte(bad)); err == nil {
			t.Errorf("%q: got %q", bad, m)
		}
	}
}

// TestStubOfDebian adds sections to a real stub and asks binutils what it sees.
func TestStubOfDebian(t *testing.T) {
	const file = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
	s, err := os.ReadFile(file)
	if err != nil {
		needs(t, "package systemd-boot-efi: "+err.Error())
	}
	b := write(t, s, parts("BUILD_ID=7\n"))
	u, err := ParseUKI(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	checkGeometry(t, u)
	if _, err := exec.LookPath("objcopy"); err != nil {
		needs(t, "objcopy")
	}
	dir := t.TempDir()
	name := filepath.Join(dir, "uki.efi")
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range parts("BUILD_ID=7\n") {
		out := filepath.Join(dir, "section")
		if msg, err := exec.Command("objcopy", "-O", "binary", "--dump-section", p.Name+"="+out, name, filepath.Join(dir, "copy")).CombinedOutput(); err != nil {
			t.Fatalf("objcopy: %v: %s", err, msg)
		}
		got, err := os.ReadFile(out)
		if err != nil || !bytes.Equal(bytes.TrimRight(got, "\x00"), bytes.TrimRight(p.Data, "\x00")) {
			t.Errorf("objcopy reads %d bytes of %s, want %d: %v", len(got), p.Name, len(p.Data), err)
		}
	}
}

// TestSigning lets sbsigntool sign an image and verify it: its idea of the file's structure is that of the firmware.
func TestSigning(t *testing.T) {
	s, err := os.ReadFile("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
	if err != nil {
		needs(t, "package systemd-boot-efi: "+err.Error())
	}
	for _, tool := range []string{"sbsign", "sbverify"} {
		if _, err := exec.LookPath(tool); err != nil {
			needs(t, "package sbsigntool")
		}
	}
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"key":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		"cert": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		"uki":  write(t, s, parts("BUILD_ID=7\n")),
	} {
		if err := os.WriteFile(path(name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"sbsign", "--key", path("key"), "--cert", path("cert"), "--output", path("signed"), path("uki")},
		{"sbverify", "--cert", path("cert"), path("signed")},
	} {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil || bytes.Contains(out, []byte("warning")) {
			t.Errorf("%s: %v: %s", args[0], err, out)
		}
	}
	signed, err := os.ReadFile(path("signed"))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := BuildNumber(bytes.NewReader(signed), int64(len(signed))); n != 7 || err != nil {
		t.Errorf("build number of the signed image: %d, %v", n, err)
	}
	if err := WriteUKI(io.Discard, signed, []Part{{".more", []byte("x")}}); err == nil {
		t.Error("a signed image got another section")
	}
}

func tree(t *testing.T) *Tree {
	t.Helper()
	var tr Tree
	for _, f := range []File{
		{Name: "usr/lib/b/c", Mode: 0o644, Data: []byte("hello")},
		{Name: "usr/lib", Mode: fs.ModeDir | 0o755},
		{Name: "lib", Mode: fs.ModeSymlink | 0o777, Data: []byte("usr/lib")},
		{Name: "dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Major: 5, Minor: 1},
		{Name: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{Name: "init", Mode: 0o755, Data: []byte("#!")},
		{Name: "empty", Mode: 0o600},
	} {
		if err := tr.Add(f); err != nil {
			t.Fatal(err)
		}
	}
	return &tr
}

func archive(t *testing.T, tr *Tree) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tr.Write(&b, time.Unix(1700000000, 0)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestCPIO(t *testing.T) {
	a := archive(t, tree(t))
	if !bytes.Equal(a, archive(t, tree(t))) {
		t.Error("the same tree gives different bytes")
	}
	two := append(append(append([]byte(nil), a...), make([]byte, 512)...), a...)
	var got strings.Builder
	err := WalkCPIO(bytes.NewReader(two), func(f File, size int64, r io.Reader) error {
		data, err := io.ReadAll(r)
		if err != nil || int64(len(data)) != size {
			t.Errorf("%s: %d bytes, %v", f.Name, len(data), err)
		}
		fmt.Fprintf(&got, "%v %s %q %d:%d\n", f.Mode, f.Name, data, f.Major, f.Minor)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	const once = `drwxr-xr-x dev "" 0:0
Dcrw------- dev/console "" 5:1
-rw------- empty "" 0:0
-rwxr-xr-x init "#!" 0:0
Lrwxrwxrwx lib "usr/lib" 0:0
dtrwxrwxrwx tmp "" 0:0
drwxr-xr-x usr "" 0:0
drwxr-xr-x usr/lib "" 0:0
drwxr-xr-x usr/lib/b "" 0:0
-rw-r--r-- usr/lib/b/c "hello" 0:0
`
	if got.String() != once+once {
		t.Errorf("got\n%s", got.String())
	}
	for _, n := range []int{1, 100, len(a) / 2, len(a) - 4} {
		if err := WalkCPIO(bytes.NewReader(a[:n]), func(File, int64, io.Reader) error { return nil }); err == nil {
			t.Errorf("cut at %d: no error", n)
		}
	}
}

// TestCPIOOfLibarchive lets bsdtar read our archive.
func TestCPIOOfLibarchive(t *testing.T) {
	if _, err := exec.LookPath("bsdtar"); err != nil {
		needs(t, "bsdtar of package libarchive-tools")
	}
	cmd := exec.Command("bsdtar", "--numeric-owner", "-tvf", "-")
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	cmd.Stdin = bytes.NewReader(archive(t, tree(t)))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := strings.Join(strings.Fields(string(out)), " ")
	for _, want := range []string{
		"crw------- 1 0 0 5,1 Nov 14 2023 dev/console", "lib -> usr/lib", "drwxrwxrwt 2 0 0", "-rw-r--r-- 1 0 0 5 Nov 14 2023 usr/lib/b/c",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestTree(t *testing.T) {
	tr := tree(t)
	for _, f := range []File{
		{Name: "/abs", Mode: 0o644}, {Name: "a/../b", Mode: 0o644}, {Name: "init", Mode: 0o644}, {Name: "init/x", Mode: 0o644},
		{Name: "tmp", Mode: 0o644}, {Name: "socket", Mode: fs.ModeSocket}, {Name: "."}, {Name: "a\x00b"},
	} {
		if err := tr.Add(f); err == nil {
			t.Errorf("added %q", f.Name)
		}
	}
	if err := tr.Add(File{Name: "loop", Mode: fs.ModeSymlink | 0o777, Data: []byte("loop/x")}); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{"/lib/b/c": "usr/lib/b/c", "lib": "lib", "new/x": "new/x", "/lib/../lib/x": "usr/lib/x"} {
		if got, err := tr.Resolve(in); got != want || err != nil {
			t.Errorf("Resolve(%q) = %q, %v", in, got, err)
		}
	}
	if _, err := tr.Resolve("loop/a"); err == nil {
		t.Error("resolved a circle")
	}
}

func FuzzUKI(f *testing.F) {
	var b bytes.Buffer
	if err := WriteUKI(&b, stub(5), parts("BUILD_ID=7\n")); err != nil {
		f.Fatal(err)
	}
	good := [][]byte{b.Bytes(), bzImage(debianBanner), stub(0)}
	more, err := edit.Bases(os.DirFS("testdata/uki"))
	if err != nil {
		f.Fatal(err)
	}
	good = append(good, more...)
	for _, s := range debianStub() {
		var b bytes.Buffer
		if err := WriteUKI(&b, s, parts("BUILD_ID=7\n")); err != nil {
			f.Fatal(err)
		}
		good = append(good, b.Bytes())
	}
	for _, s := range edit.Scripts() {
		for i := range len(good) {
			f.Add(uint8(i), s)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, script []byte) {
		b := edit.Apply(good[int(which)%len(good)], script)
		i, err := Parse(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		_, _ = i.BuildNumber()
		if i.UKI != nil {
			if _, err := io.Copy(io.Discard, i.UKI.Initrd()); err != nil {
				t.Errorf("accepted, but its initrd cannot be read: %v", err)
			}
			_, _, _ = i.UKI.Uname(), i.UKI.Cmdline(), i.UKI.OSRelease()
		}
	})
}

// debianStub is the EFI stub of Debian, or nothing on a machine without it: more for a fuzz test to begin with.
func debianStub() [][]byte {
	s, err := os.ReadFile("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
	if err != nil {
		return nil
	}
	return [][]byte{s}
}

func FuzzWriteUKI(f *testing.F) {
	good := [][]byte{stub(5), stub(0)}
	more, err := edit.Bases(os.DirFS("testdata/writeuki"))
	if err != nil {
		f.Fatal(err)
	}
	good = append(append(good, more...), debianStub()...)
	for _, s := range edit.Scripts() {
		for i := range len(good) {
			f.Add(uint8(i), s)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, script []byte) {
		var b bytes.Buffer
		if WriteUKI(&b, edit.Apply(good[int(which)%len(good)], script), parts("BUILD_ID=7\n")) != nil {
			return
		}
		if n, err := BuildNumber(bytes.NewReader(b.Bytes()), int64(b.Len())); err == nil && n != 7 {
			t.Errorf("build number is %d", n)
		}
	})
}

func FuzzBzImage(f *testing.F) {
	good := [][]byte{bzImage(debianBanner)}
	more, err := edit.Bases(os.DirFS("testdata/bzimage"))
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
		if k, err := ParseBzImage(bytes.NewReader(b), int64(len(b))); err == nil {
			_, _ = k.BuildNumber()
		}
	})
}

func FuzzOSRelease(f *testing.F) {
	f.Add("A=1\nB='x y'\nC=\"a\\\"b\"\n")
	f.Fuzz(func(t *testing.T, s string) { _, _ = ParseOSRelease([]byte(s)) })
}

func FuzzCPIO(f *testing.F) {
	var tr Tree
	if err := tr.Add(File{Name: "a/b", Mode: 0o644, Data: []byte("hello")}); err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	if err := tr.Write(&b, time.Unix(0, 0)); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = WalkCPIO(bytes.NewReader(b), func(File, int64, io.Reader) error { return nil })
	})
}

func needs(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("GPROV_NO_SKIP") == "1" {
		t.Fatalf("needs %s", what)
	}
	t.Skipf("needs %s", what)
}

// TestParseBuild: artifacts of all versions are read, those without a revision and those with keys that this version does not know.
func TestParseBuild(t *testing.T) {
	for text, want := range map[string]Build{
		`{"build":7,"kernel":"6.1"}`:                 {Number: 7, Kernel: "6.1"},
		`{"build":7,"gprovision":"0a","later":true}`: {Number: 7, Gprovision: "0a"},
	} {
		b, err := ParseBuild([]byte(text))
		if err != nil || b.Number != want.Number || b.Kernel != want.Kernel || b.Gprovision != want.Gprovision {
			t.Errorf("%s gives %+v, %v", text, b, err)
		}
	}
	for _, bad := range []string{"", "[]", `{"build":-1}`, `{"time":1}`} {
		if b, err := ParseBuild([]byte(bad)); err == nil {
			t.Errorf("%q gives %+v", bad, b)
		}
	}
}

// FuzzParseBuild: what is read is written again as it was.
func FuzzParseBuild(f *testing.F) {
	f.Add([]byte(`{"build":7,"time":"2026-09-21T14:13:20Z","kernel":"6.1","gprovision":"0a","tools":[{"name":"a","path":"/a","sha256":"0"}]}`))
	f.Add([]byte(`{"build":18446744073709551615,"later":true,"tools":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := ParseBuild(b)
		if err != nil {
			return
		}
		text, err := json.Marshal(first)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseBuild(text); err != nil || !reflect.DeepEqual(again, first) {
			t.Errorf("%s gives %+v, %v, want %+v", text, again, err, first)
		}
	})
}
