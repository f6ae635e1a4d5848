package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"gprovision/forge/boot"
	"gprovision/model/bootimage"
	"gprovision/model/policy"
)

// bootRun parses args as gprov does and runs the verb in this process.
func bootRun(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var verbs struct {
		Boot BootCmd `cmd:""`
	}
	var out bytes.Buffer
	k, err := kong.New(&verbs, kong.Name("gprov"), kong.Writers(&out, &out), kong.Exit(func(int) { t.Errorf("%v: kong wants to exit", args) }))
	if err != nil {
		t.Fatal(err)
	}
	verb, err := k.Parse(append([]string{"boot"}, args...))
	if err != nil {
		return "", &UsageError{err}
	}
	err = verb.Run(&Context{Context: context.Background(), Stdout: &out, Stderr: &out})
	return out.String(), err
}

func TestBootBuildRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	policy := file("policy.json", `{"version": 1, "allowUnsigned": true}`)
	init := file("init", "")
	empty := filepath.Join(dir, "root")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	good := []string{"build", "--rootfs", empty, "--out", filepath.Join(dir, "out"), "--policy", policy, "--init", init}
	for name, c := range map[string]struct {
		number, epoch string
		args          []string
		usage         bool
		text          string
	}{
		"no build number":     {args: good, usage: true, text: "no build number"},
		"build number a word": {number: "x", args: good, usage: true},
		"bad time":            {number: "1", epoch: "now", args: good, usage: true, text: "SOURCE_DATE_EPOCH"},
		"no policy":           {number: "1", args: []string{"build", "--rootfs", empty, "--out", "x"}, usage: true, text: "--policy"},
		"policy not there":    {number: "1", args: append(good, "--policy", filepath.Join(dir, "no")), text: "read policy"},
		"bad policy":          {number: "1", args: append(good, "--policy", init), text: "is refused"},
		"bad addition":        {number: "1", args: append(good, "--add", ":/x"), usage: true, text: "--add"},
		"no kernel":           {number: "1", epoch: "1790000000", args: good, text: "neither /boot/vmlinuz-*"},
	} {
		t.Setenv("BUILD_NUMBER", c.number)
		if c.number == "" {
			if err := os.Unsetenv("BUILD_NUMBER"); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("SOURCE_DATE_EPOCH", c.epoch)
		_, err := bootRun(t, c.args...)
		var usage *UsageError
		if err == nil || errors.As(err, &usage) != c.usage || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	t.Setenv("BUILD_NUMBER", "1")
	t.Setenv("SOURCE_DATE_EPOCH", "1790000000")
	_, err := bootRun(t, good...)
	var hint *HintError
	if !errors.As(err, &hint) || !strings.Contains(hint.Hint, "linux-image-amd64") {
		t.Errorf("no hint in %v", err)
	}
}

// TestBootTime: the time of an artifact is that of SOURCE_DATE_EPOCH, else the present.
func TestBootTime(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1790000000")
	if at, err := bootTime(); err != nil || at.Unix() != 1790000000 {
		t.Errorf("%v, %v", at, err)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "")
	before := time.Now()
	if at, err := bootTime(); err != nil || at.Before(before.Add(-time.Second)) || at.After(time.Now()) {
		t.Errorf("%v, %v", at, err)
	}
}

func TestBootInspect(t *testing.T) {
	if _, err := bootRun(t, "inspect", "/dev/null"); err == nil {
		t.Error("no error for an empty file")
	}
	build := uint64(7)
	var out bytes.Buffer
	in := boot.Inspection{Form: "uki", Build: &build, Banner: "6.1.0", Cmdline: "quiet", Initrd: &boot.InspectedInitrd{Size: 1e6, Modules: 3}}
	if err := printInspection(&Context{Stdout: &out}, "norm_boot", in); err != nil {
		t.Fatal(err)
	}
	in.Policy = &policy.Policy{Version: 1, Locked: true}
	in.Info = &bootimage.Build{Gprovision: "0123456789ab"}
	out.Reset()
	if err := printInspection(&Context{Stdout: &out}, "norm_boot", in); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"    * locked", "      keepImages", "init of gprovision 0123456789ab", "build    7", "cmdline  quiet", "1.0 MB", "3 modules"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
