package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"gprovision/forge/image"
	"gprovision/model/signature"
	"gprovision/site"
)

// imageRun parses args as gprov does and runs the verb in this process.
func imageRun(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var verbs struct {
		Image ImageCmd `cmd:""`
		Keys  KeysCmd  `cmd:""`
	}
	var out, errs bytes.Buffer
	k, err := kong.New(&verbs, kong.Name("gprov"), kong.Writers(&out, &errs), kong.Exit(func(int) { t.Errorf("%v: kong wants to exit", args) }))
	if err != nil {
		t.Fatal(err)
	}
	verb, err := k.Parse(args)
	if err != nil {
		return "", "", &UsageError{err}
	}
	c := &Context{Context: context.Background(), Stdout: &out, Stderr: &errs, Site: site.Stock(), Version: "test"}
	err = verb.Run(c)
	return out.String(), errs.String(), err
}

// imageRoot makes the smallest root filesystem that can be an image.
func imageRoot(t *testing.T, files map[string]string) string {
	t.Helper()
	kernel := make([]byte, 4096)
	kernel[0x1fe], kernel[0x1ff], kernel[0x206], kernel[0x207], kernel[0x211] = 0x55, 0xaa, 0x0f, 0x02, 1
	copy(kernel[0x202:], "HdrS")
	kernel[0x20f] = 0x02
	copy(kernel[0x400:], "6.1.0 (x@y) #57 SMP\x00")
	all := map[string]string{
		"usr/lib/systemd/systemd": "x", "usr/lib/systemd/systemd-networkd": "x", "etc/systemd/x": "", "dev/x": "", "bin/sh": "x", "boot/norm_boot": string(kernel),
		"etc/passwd": "root:x:0:0::/root:/bin/sh\nadmin:x:1:1::/home/admin:/bin/sh\n", "etc/shadow": "root:!:1\nadmin:!:1\n", "etc/group": "admin:x:1:\n",
	}
	for k, v := range files {
		all[k] = v
	}
	dir := t.TempDir()
	for n, content := range all {
		p := filepath.Join(dir, n)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func imageNeeds(t *testing.T, programs ...string) {
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

func TestImageVerbs(t *testing.T) {
	imageNeeds(t, "xz", "tar")
	if os.Geteuid() != 0 {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal("files get their owners: needs root")
		}
		t.Skip("files get their owners: needs root")
	}
	t.Setenv("SOURCE_DATE_EPOCH", "1795305600") // 2026-11-22 00:00 UTC
	dir := t.TempDir()
	p := func(n string) string { return filepath.Join(dir, n) }
	good := func(args ...string) string {
		t.Helper()
		out, errs, err := imageRun(t, args...)
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, errs)
		}
		if strings.Contains(out+errs, "\x1b") {
			t.Errorf("%v: colours or bars without a terminal: %q", args, out+errs)
		}
		return out
	}
	bad := func(want string, hint bool, args ...string) {
		t.Helper()
		out, _, err := imageRun(t, args...)
		var h *HintError
		var u *UsageError
		if err == nil || !strings.Contains(err.Error(), want) || errors.As(err, &h) != hint || errors.As(err, &u) {
			t.Errorf("%v: got %v (%T), want %q with hint %t", args, err, err, want, hint)
		}
		if out != "" {
			t.Errorf("%v: printed %q", args, out)
		}
	}
	usage := func(args ...string) {
		t.Helper()
		var u *UsageError
		if _, _, err := imageRun(t, args...); !errors.As(err, &u) {
			t.Errorf("%v: got %v, want a usage error", args, err)
		}
	}

	good("keys", "new", "--out", p("k"))
	if st, err := os.Stat(p("k.key")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("private key: %v, %v", st.Mode(), err)
	}
	bad("is there already", true, "keys", "new", "--out", p("k"))
	var key struct {
		Key, KeyID string
		Encrypted  bool
	}
	if err := json.Unmarshal([]byte(good("keys", "new", "--out", p("other"), "--json")), &key); err != nil || len(key.KeyID) != 16 || key.Encrypted {
		t.Errorf("%+v, %v", key, err)
	}

	root := imageRoot(t, nil)
	name := "WIDGET.LNX.SHINY.2026-11-22.0042.upd"
	img := p("out/" + name)
	out := good("image", "build", "--rootfs", root, "--out", p("out"), "--build", "42", "--key", p("k.key"), "--preset", "0")
	if !strings.HasPrefix(out, "made "+img+"\n") || !strings.Contains(out, "boot build  57") {
		t.Errorf("build says %s", out)
	}
	var res image.Result
	if err := json.Unmarshal([]byte(good("image", "build", "--rootfs", root, "--out", p("out"), "--name", name, "--key", p("k.key"), "--preset", "0", "--json")), &res); err != nil || !res.Unchanged || res.Meta.Build != 42 {
		t.Errorf("again: %+v, %v", res, err)
	}
	if out := good("image", "verify", img); !strings.HasPrefix(out, "good ") || !strings.Contains(out, "not whose it is") {
		t.Errorf("verify without key says %s", out)
	}
	if out := good("image", "verify", img, "--key", p("other.pub"), "--key", p("k.pub")); !strings.Contains(out, "trusted, by key") {
		t.Errorf("verify says %s", out)
	}
	bad("no trusted key", true, "image", "verify", img, "--key", key.Key)
	bad("parse public key", true, "image", "verify", img, "--key", p("k.key"))
	bad("no such file", false, "image", "verify", img, "--key", p("none"))
	var rep image.Report
	if err := json.Unmarshal([]byte(good("image", "verify", img, "--key", p("k.pub"), "--json")), &rep); err != nil || !rep.Trusted {
		t.Errorf("%+v, %v", rep, err)
	}
	if out := good("image", "inspect", img); !strings.Contains(out, "image WIDGET.LNX.SHINY.2026-11-22.0042") {
		t.Errorf("inspect says %s", out)
	}
	if err := json.Unmarshal([]byte(good("image", "inspect", img, "--json")), &rep); err != nil || rep.Meta.BootBuild != 57 {
		t.Errorf("%+v, %v", rep, err)
	}
	if out := good("image", "extract", img, "--into", p("into"), "--key", p("k.pub")); !strings.HasPrefix(out, "extracted ") {
		t.Errorf("extract says %s", out)
	}
	if b, err := os.ReadFile(p("into/etc/group")); err != nil || string(b) != "admin:x:1:\n" {
		t.Errorf("%q, %v", b, err)
	}
	bad("not empty", true, "image", "extract", img, "--into", p("into"))

	// Another one, unsigned, then signed; a malformed one; the list.
	second := p("out/WIDGET.LNX.SHINY.2026-11-22.0043.upd")
	good("image", "build", "--rootfs", root, "--out", p("out"), "--build", "43", "--preset", "0", "--add", p("k.pub")+":/etc/key.pub")
	bad("is not signed", true, "image", "verify", second, "--key", p("k.pub"))
	if out := good("image", "sign", "--key", p("k.key"), second, img); strings.Count(out, "signed ") != 2 {
		t.Errorf("sign says %s", out)
	}
	good("image", "verify", second, "--key", p("k.pub"))
	if err := os.WriteFile(p("out/bad.upd"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(good("image", "list", p("out"))), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], filepath.Base(second)) || !strings.Contains(lines[2], "never chosen") {
		t.Errorf("list says %s", strings.Join(lines, "\n"))
	}
	var list struct{ Images []image.Listed }
	if err := json.Unmarshal([]byte(good("image", "list", p("out"), "--json")), &list); err != nil || len(list.Images) != 3 {
		t.Errorf("%+v, %v", list, err)
	}
	if out := good("image", "list", t.TempDir(), "--json"); out != "{\n  \"version\": 1,\n  \"images\": []\n}\n" {
		t.Errorf("empty list: %s", out)
	}

	// What does not hold.
	data, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.MkdirAll(p("bad"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p("bad/"+name), data, 0o600); err != nil {
		t.Fatal(err)
	}
	bad("damaged", true, "image", "verify", p("bad/"+name))
	bad("wrong name", false, "image", "verify", p("k.pub"))
	bad("damaged", true, "image", "sign", "--key", p("k.key"), writeAs(t, p("bad/WIDGET.LNX.SHINY.2026-11-22.0001.upd"), "text"))
	bad("parse private key", true, "image", "sign", "--key", p("k.pub"), img)
	bad("there is another image", true, "image", "build", "--rootfs", root, "--out", p("out"), "--build", "42", "--preset", "0", "--source", "other")
	bad("2 problems", true, "image", "build", "--rootfs", imageRoot(t, map[string]string{"etc/shadow": "root::1\nadmin:$y$x:1\n"}), "--out", p("out"), "--build", "44")
	bad(p("none.upd"), false, "image", "verify", p("none.upd"))
	bad(p("out/"+strings.Replace(name, "0042", "0041", 1)), false, "image", "verify", p("out/"+strings.Replace(name, "0042", "0041", 1)))
	making := []string{"image", "build", "--rootfs", root, "--out", p("out"), "--build", "46", "--kernel", "9.9"}
	usage(making...)
	unsigned := writeAs(t, p("policy.json"), `{"version": 1, "allowUnsigned": true}`)
	made := append(making, "--policy", unsigned, "--init", p("k.pub"), "--build-number", "7")
	bad("neither /boot/vmlinuz-9.9 nor /lib/modules/9.9/vmlinuz", true, made...)
	bad("no such file", false, "image", "build", "--rootfs", p("none"), "--out", p("out"), "--build", "44")
	if _, errs, err := imageRun(t, "image", "build", "--rootfs", imageRoot(t, map[string]string{"etc/shadow": "root::1\nadmin:!:1\n"}), "--out", p("out"), "--build", "44", "--allow-incomplete"); err != nil || !strings.Contains(errs, "warning: /etc/shadow") {
		t.Errorf("incomplete: %v, %s", err, errs)
	}

	usage("image", "build", "--rootfs", root, "--out", p("out"))
	usage("image", "build", "--rootfs", root, "--out", p("out"), "--build", "1", "--name", name)
	usage("image", "build", "--rootfs", root, "--out", p("out"), "--build", "x")
	usage("image", "build", "--rootfs", root, "--out", p("out"), "--name", "x.upd")
	usage("image", "build", "--rootfs", root, "--out", p("out"), "--build", "1", "--add", "x")
	usage("image", "build", "--rootfs", root)
	usage("image", "verify")
	usage("keys", "new")
	t.Setenv("SOURCE_DATE_EPOCH", "now")
	usage("image", "build", "--rootfs", root, "--out", p("out"), "--build", "1")
}

// TestImageKeys signs with keys that are not files: in the environment, and behind a program.
func TestImageKeys(t *testing.T) {
	imageNeeds(t, "xz", "tar", "openssl", "sh")
	t.Setenv("SOURCE_DATE_EPOCH", "1795305600")
	dir := t.TempDir()
	p := func(n string) string { return filepath.Join(dir, n) }
	root := imageRoot(t, nil)
	img := p("out/WIDGET.LNX.SHINY.2026-11-22.0001.upd")
	good := func(args ...string) string {
		t.Helper()
		out, errs, err := imageRun(t, args...)
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, errs)
		}
		return out
	}
	good("keys", "new", "--out", p("k"))
	text, err := os.ReadFile(p("k.key"))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GPROV_SIGNING_KEY", string(text))
	if out := good("image", "build", "--rootfs", root, "--out", p("out"), "--build", "1", "--preset", "0"); !strings.Contains(out, "materials") || !strings.Contains(out, "sha256") {
		t.Errorf("build says %s", out)
	}
	good("image", "verify", img, "--key", p("k.pub"))
	if err := os.Remove(img + ".minisig"); err != nil {
		t.Fatal(err)
	}
	good("image", "sign", img)
	good("image", "verify", img, "--key", p("k.pub"))
	t.Setenv("GPROV_SIGNING_KEY", "no key")
	var h *HintError
	if _, _, err := imageRun(t, "image", "sign", img); !errors.As(err, &h) || !strings.Contains(err.Error(), "GPROV_SIGNING_KEY") || strings.Contains(err.Error(), "no key") {
		t.Errorf("a bad key in the environment: %v", err)
	}
	t.Setenv("GPROV_SIGNING_KEY", "")

	// A program with a key of its own.
	for _, args := range [][]string{{"genpkey", "-algorithm", "ed25519", "-out", p("hsm.pem")}, {"pkey", "-in", p("hsm.pem"), "-pubout", "-out", p("hsm.pub.pem")},
		{"genpkey", "-algorithm", "x25519", "-out", p("x.pem")}, {"pkey", "-in", p("x.pem"), "-pubout", "-out", p("x.pub.pem")}} {
		if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	good("keys", "public", p("hsm.pub.pem"), "--out", p("hsm.pub"))
	for _, args := range [][]string{{p("hsm.pub.pem"), "--out", p("hsm.pub")}, {p("hsm.pem"), "--out", p("n1")}, {p("x.pub.pem"), "--out", p("n2")}, {p("none"), "--out", p("n3")}} {
		if _, _, err := imageRun(t, append([]string{"keys", "public"}, args...)...); err == nil {
			t.Errorf("keys public %v was done", args)
		}
	}
	program := writeAs(t, p("sign program"), "#!/bin/sh\nf=$(mktemp); cat > $f; openssl pkeyutl -sign -rawin -inkey \"$1\" -in $f; s=$?; rm $f; exit $s\n")
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	signer := "'" + program + "' " + p("hsm.pem")
	var signed struct{ Signatures []image.Signature }
	if err := json.Unmarshal([]byte(good("image", "sign", "--signer", signer, "--signer-key", p("hsm.pub"), "--json", img)), &signed); err != nil || len(signed.Signatures) != 1 {
		t.Errorf("%v, %v", signed, err)
	}
	good("image", "verify", img, "--key", p("hsm.pub"))
	if _, _, err := imageRun(t, "image", "sign", "--signer", signer, "--signer-key", p("k.pub"), img); !errors.Is(err, signature.ErrSignature) {
		t.Errorf("another key than the program's: %v", err)
	}
	good("image", "verify", img, "--key", p("hsm.pub")) // the old signature is still there
	for _, args := range [][]string{{"--signer", "x"}, {"--signer-key", p("k.pub")}, {"--signer", "x", "--signer-key", p("k.pub"), "--key", p("k.key")}, {"--signer", "'x", "--signer-key", p("k.pub")}, nil} {
		var u *UsageError
		if _, _, err := imageRun(t, append([]string{"image", "sign", img}, args...)...); !errors.As(err, &u) {
			t.Errorf("sign %v: %v", args, err)
		}
	}
	var u *UsageError
	if _, _, err := imageRun(t, "image", "build", "--rootfs", root, "--out", p("out"), "--build", "2", "--init", "x"); !errors.As(err, &u) {
		t.Errorf("--init without --policy: %v", err)
	}
}

// TestImageListRetention lists what retention would delete, and checks all images whole.
func TestImageListRetention(t *testing.T) {
	imageNeeds(t, "xz", "tar")
	t.Setenv("SOURCE_DATE_EPOCH", "1795305600")
	root, out := imageRoot(t, nil), t.TempDir()
	for _, n := range []string{"1", "2", "3", "4", "5"} {
		if _, errs, err := imageRun(t, "image", "build", "--rootfs", root, "--out", out, "--build", n, "--preset", "0"); err != nil {
			t.Fatalf("%v: %s", err, errs)
		}
	}
	pruned := func(args ...string) string {
		t.Helper()
		text, _, err := imageRun(t, append([]string{"image", "list", out, "--json"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		var list struct{ Images []image.Listed }
		if err := json.Unmarshal([]byte(text), &list); err != nil || len(list.Images) != 5 {
			t.Fatalf("%v, %v", list, err)
		}
		var b strings.Builder
		for _, l := range list.Images {
			if l.Prune {
				b.WriteString(strings.TrimSuffix(l.File, ".upd")[len(l.Name)-1:])
			}
		}
		return b.String()
	}
	if got := pruned(); got != "32" {
		t.Errorf("pruned %s, want 3 and 2", got)
	}
	if got := pruned("--keep", "3"); got != "2" {
		t.Errorf("with --keep 3: %s", got)
	}
	if got := pruned("--running", "WIDGET.LNX.SHINY.2026-11-22.0002.upd"); got != "3" {
		t.Errorf("with --running: %s", got)
	}
	if text, _, err := imageRun(t, "image", "list", out, "--verify"); err != nil || strings.Count(text, "good, not signed") != 5 || strings.Count(text, "retention would delete") != 2 {
		t.Errorf("%v\n%s", err, text)
	}
	bad := filepath.Join(out, "WIDGET.LNX.SHINY.2026-11-22.0004.upd")
	b, err := os.ReadFile(bad)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	writeAs(t, bad, string(b))
	var h *HintError
	if text, _, err := imageRun(t, "image", "list", out, "--verify"); !errors.As(err, &h) || !strings.Contains(err.Error(), "1 of 5") || !strings.Contains(text, "never chosen") {
		t.Errorf("%v\n%s", err, text)
	}
	var rep image.Report
	text, _, err := imageRun(t, "image", "inspect", "--boot", "--json", filepath.Join(out, "WIDGET.LNX.SHINY.2026-11-22.0005.upd"))
	if err == nil {
		err = json.Unmarshal([]byte(text), &rep)
	}
	if err != nil || rep.Boot == nil || *rep.Boot.Build != 57 || rep.Ratio < 1 || !strings.HasPrefix(rep.Boot.Kernel, "6.1.0") {
		t.Errorf("%+v, %v", rep, err)
	}
	if text, _, err := imageRun(t, "image", "inspect", "--boot", filepath.Join(out, "WIDGET.LNX.SHINY.2026-11-22.0005.upd")); err != nil || !strings.Contains(text, "build 57") || !strings.Contains(text, " to 1)") {
		t.Errorf("%v\n%s", err, text)
	}
}

func writeAs(t *testing.T, name, content string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestKeysPassphrase(t *testing.T) {
	if _, err := passphraseFrom(writeAs(t, filepath.Join(t.TempDir(), "p"), "\nsecond\n")); err == nil {
		t.Error("an empty first line was accepted")
	}
	pass, err := passphraseFrom(writeAs(t, filepath.Join(t.TempDir(), "p"), "correct horse\r\nsecond\n"))
	if err != nil || pass.Reveal() != "correct horse" {
		t.Errorf("got %v", err)
	}
	if os.Getenv("GPROV_NO_SKIP") != "1" {
		t.Skip("takes a gigabyte of memory and ten seconds; set GPROV_NO_SKIP=1 to run it")
	}
	dir := t.TempDir()
	file := writeAs(t, filepath.Join(dir, "p"), "correct horse\n")
	if _, _, err := imageRun(t, "keys", "new", "--out", filepath.Join(dir, "k"), "--passphrase-file", file); err != nil {
		t.Fatal(err)
	}
	c := &Context{Context: context.Background(), Stderr: io.Discard}
	if _, err := readPrivateKey(c, filepath.Join(dir, "k.key"), file); err != nil {
		t.Error(err)
	}
	if _, err := readPrivateKey(c, filepath.Join(dir, "k.key"), writeAs(t, filepath.Join(dir, "q"), "wrong\n")); !errors.Is(err, signature.ErrPassphrase) {
		t.Errorf("wrong passphrase: %v", err)
	}
	t.Setenv("GPROV_SIGNING_PASSPHRASE", "correct horse")
	if _, err := readPrivateKey(c, filepath.Join(dir, "k.key"), ""); err != nil {
		t.Errorf("the passphrase of the environment: %v", err)
	}
}

func TestImageProgressOnATerminal(t *testing.T) {
	var errs bytes.Buffer
	s := newStages(&Context{Context: context.Background(), Stderr: &errs, Terminal: true})
	for i := range int64(11) {
		s.progress(image.Progress{Stage: "one", Done: i, Total: 0})
		s.progress(image.Progress{Stage: "two", Done: i, Total: 10})
	}
	s.end(nil)
	s = newStages(&Context{Context: context.Background(), Stderr: &errs, Terminal: true})
	s.progress(image.Progress{Stage: "three", Done: 1, Total: 10})
	s.end(errors.New("x"))
	newStages(&Context{Context: context.Background(), Stderr: &errs, Terminal: true}).end(nil)
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 694_000_000: "694.0 MB", 1 << 62: "4611.7 PB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
