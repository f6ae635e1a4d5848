package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"gprovision/model/manifest"
	"gprovision/model/signature"
	"gprovision/model/source"
	"gprovision/site"
)

// calling parses a command line with the verbs about manifests and platforms, runs it, and returns what it printed.
func calling(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var grammar struct {
		Manifest ManifestCmd `cmd:""`
		Platform PlatformCmd `cmd:""`
	}
	k, err := kong.New(&grammar, kong.Exit(func(int) { t.Fatalf("kong ended the program: %q", args) }))
	if err != nil {
		t.Fatal(err)
	}
	verb, err := k.Parse(args)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	var o, e bytes.Buffer
	c := &Context{Context: context.Background(), Stdout: &o, Stderr: &e, Site: site.Stock(), Version: "test"}
	err = verb.Run(c)
	return o.String(), e.String(), err
}

func put(t *testing.T, name, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

const testSpecs = `[
{"DevCodeName": "QEMU", "MainDiskConfigs": [[{"Size": 8589934592, "SizeTolerancePct": 1}]]},
{"DevCodeName": "OTHER", "MainDiskConfigs": [[{"Size": 1}]]}
]`

func TestManifestMake(t *testing.T) {
	dir := t.TempDir()
	image := put(t, filepath.Join(dir, "files", "images", "WIDGET.LNX.SHINY.2026-11-22.0001.upd"), "an image")
	boot := put(t, filepath.Join(dir, "files", "a b.efi"), "a kernel")
	specs := put(t, filepath.Join(dir, "specs.json"), testSpecs)
	k, err := signature.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	text, err := k.Text("")
	if err != nil {
		t.Fatal(err)
	}
	key := put(t, filepath.Join(dir, "product.key"), string(text))
	out := filepath.Join(dir, "files", "manufData.json")
	args := []string{"manifest", "make", "--out", out, "--image", image, "--boot", boot, "--specs", specs, "--platform", "QEMU", "--log-endpoint", "https://10.0.0.1:8443", "--key", key, "--product", "WIDGET", "--serial", "7"}
	if _, stderr, err := calling(t, args...); err != nil || stderr != "" {
		t.Fatalf("%v\n%s", err, stderr)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	// printf 'an image' | sha256sum
	if f := m.Files[0]; f.Src != "images/WIDGET.LNX.SHINY.2026-11-22.0001.upd" || f.Sha256 != "a5df3fde7b200c3fa2791144c7e05c5c2bced4c6ad863d3a4cf76c972c1712f9" || f.Size != 8 {
		t.Errorf("image: %+v", f)
	}
	if f := m.Files[1]; f.Src != "a%20b.efi" || f.Dest != "norm_boot" {
		t.Errorf("boot: %+v", f)
	}
	if len(m.ValidationData) != 1 || m.CredentialEndpoint != "pblog" {
		t.Errorf("%+v", m)
	}
	sig, err := os.ReadFile(out + ".minisig")
	if err != nil {
		t.Fatal(err)
	}
	if err := signature.VerifyAs([]signature.PublicKey{k.Public()}, sig, bytes.NewReader(b), "manifest WIDGET 7"); err != nil {
		t.Error(err)
	}
	t.Run("minisign", func(t *testing.T) {
		tool, err := exec.LookPath("minisign")
		if err != nil {
			if os.Getenv("GPROV_NO_SKIP") == "1" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
		got, err := exec.Command(tool, "-Vm", out, "-P", k.Public().String()).CombinedOutput()
		if err != nil || !strings.Contains(string(got), "manifest WIDGET 7") {
			t.Errorf("%v: %s", err, got)
		}
	})
	if stdout, _, err := calling(t, "manifest", "check", out); err != nil || !strings.Contains(stdout, "is good") {
		t.Errorf("%v: %s", err, stdout)
	}

	// The image changes; making the manifest from itself measures it again. Without a key the old signature goes.
	put(t, image, "another image")
	if _, stderr, err := calling(t, "manifest", "make", "--from", out, "--out", out); err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	b, err = os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = manifest.Parse(b); err != nil || m.Files[0].Size != 13 || m.LogEndpoint != "https://10.0.0.1:8443" || m.Files[1].Dest != "norm_boot" {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := os.Stat(out + ".minisig"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old signature is still there: %v", err)
	}
}

func TestManifestMakeRefuses(t *testing.T) {
	dir := t.TempDir()
	image := put(t, filepath.Join(dir, "files", "WIDGET.LNX.SHINY.2026-11-22.0001.upd"), "x")
	specs := put(t, filepath.Join(dir, "specs.json"), testSpecs)
	bad := put(t, filepath.Join(dir, "bad.json"), "[\n{\"RamMegs\": \"x\"}]")
	outside := put(t, filepath.Join(dir, "elsewhere"), "x")
	out := filepath.Join(dir, "files", "manufData.json")
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"incomplete", []string{"--image", image}, "would refuse"},
		{"outside", []string{"--file", outside}, "is not inside of"},
		{"image name", []string{"--image", outside}, "is not named like an image"},
		{"platform", []string{"--image", image, "--specs", specs, "--platform", "X"}, `no entry for the platform "X"`},
		{"specs", []string{"--specs", bad}, "line 2: ValidationData[0].RamMegs"},
		{"key alone", []string{"--key", outside}, "--product and --serial"},
		{"a serial that is no number", []string{"--key", outside, "--product", "p", "--serial", "b7"}, "whole number"},
		{"no key", []string{"--key", outside, "--product", "p", "--serial", "1"}, "parse private key"},
		{"missing", []string{"--image", filepath.Join(dir, "files", "WIDGET.LNX.SHINY.2026-11-22.0002.upd")}, "no such file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := calling(t, append([]string{"manifest", "make", "--out", out}, tt.args...)...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("a manifest was written")
			}
		})
	}
	var u *UsageError
	if _, _, err := calling(t, "manifest", "make", "--out", out, "--key", outside); !errors.As(err, &u) {
		t.Errorf("%v is no usage error", err)
	}
	if _, _, err := calling(t, "manifest", "make", "--out", out, "--image", image, "--allow-incomplete"); err != nil {
		t.Error(err)
	}
}

func TestManifestCheck(t *testing.T) {
	file := put(t, filepath.Join(t.TempDir(), "m.json"), "{\n\"Files\": [],\n\"LogEndpoint\": \"http://a:1\",\n\"CredentialEndpoint\": \"pblog\",\n\"ValidationData\": 7}")
	stdout, _, err := calling(t, "manifest", "check", file)
	if err == nil || !strings.Contains(stdout, file+":5: ValidationData: found a number, want a list\n") {
		t.Errorf("%v\n%s", err, stdout)
	}
	stdout, _, err = calling(t, "manifest", "check", "--json", file)
	var answer struct{ Problems []source.Problem }
	if e := json.Unmarshal([]byte(stdout), &answer); e != nil || err == nil || len(answer.Problems) != 1 || answer.Problems[0].Line != 5 {
		t.Errorf("%v, %v: %s", e, err, stdout)
	}
	if _, _, err := calling(t, "manifest", "check", file+"x"); err == nil {
		t.Error("a file that is not there is good")
	}
}
