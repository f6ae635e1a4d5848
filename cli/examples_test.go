package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/alecthomas/kong"

	"gprovision/forge/image/recipe"
	"gprovision/model/capture"
	"gprovision/model/manifest"
	"gprovision/model/platform"
)

const examples = "../docs/examples"

// TestExamples checks each file of docs/examples by its verb, without a warning, and that they belong together.
func TestExamples(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(examples, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	image := put(t, filepath.Join(dir, "WIDGET.LNX.SHINY.2026-11-22.0001.upd"), "an image")
	boot := put(t, filepath.Join(dir, "norm_boot"), "a kernel")
	verbs := map[string]func(name string) (string, error){
		"manufData.json": func(name string) (string, error) {
			out, _, err := calling(t, "manifest", "check", name)
			return out, err
		},
		"appliance.json": func(name string) (string, error) {
			out, _, err := calling(t, "platform", "check", name)
			return out, err
		},
		"specs.json": func(name string) (string, error) {
			out := filepath.Join(dir, "manufData.json")
			_, warned, err := calling(t, "manifest", "make", "--out", out, "--image", image, "--boot", boot, "--specs", name,
				"--log-endpoint", "https://10.0.0.1:8443")
			return warned + out + " is good", err
		},
		"policy.json": func(name string) (string, error) {
			var grammar struct {
				Policy PolicyCmd `cmd:""`
			}
			k, err := kong.New(&grammar)
			if err != nil {
				return "", err
			}
			verb, err := k.Parse([]string{"policy", "check", "--json", name})
			if err != nil {
				return "", err
			}
			var out strings.Builder
			err = verb.Run(&Context{Context: t.Context(), Stdout: &out, Stderr: &out})
			if strings.Contains(out.String(), `"problems": []`) {
				return name + " is good", err
			}
			return out.String(), err
		},
		"recipe.yaml": func(name string) (string, error) { // what 'gprov image build' does before it fetches anything
			b, err := os.ReadFile(name)
			if err == nil {
				_, err = recipe.Parse(b)
			}
			return name + " is good", err
		},
		"README.md": func(name string) (string, error) { return name + " is good", nil },
	}
	files, err := os.ReadDir(examples)
	if err != nil || len(files) != len(verbs) {
		t.Errorf("%d files, and verbs for %d: %v", len(files), len(verbs), err)
	}
	for _, f := range files {
		name := filepath.Join(examples, f.Name())
		check := verbs[f.Name()]
		if check == nil {
			t.Errorf("nothing checks %s", name)
			continue
		}
		if out, err := check(name); err != nil || !strings.HasSuffix(strings.TrimSpace(out), "is good") || strings.Contains(out, "warning") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		if f.Name() != "README.md" && !strings.Contains(string(page), "]("+f.Name()+")") {
			t.Errorf("README.md does not name %s", f.Name())
		}
	}
	// Manifest, specifications and table speak of the same platforms.
	b, err1 := os.ReadFile(filepath.Join(examples, "manufData.json"))
	a, err2 := os.ReadFile(filepath.Join(examples, "appliance.json"))
	m, err3 := manifest.Parse(b)
	table, err4 := platform.Parse(a)
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range table.Variants {
		s, err := m.SpecsFor(v.DevCodeName)
		if err != nil || s.Recovery.Size != v.RecoveryMedia.Size || s.MainDiskConfigs[0][0].Count() != v.NumDataDisks {
			t.Errorf("%s: %+v, %v", v.DevCodeName, s, err)
		}
	}
}

func TestManifestDiff(t *testing.T) {
	old := filepath.Join(examples, "manufData.json")
	b, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	now := put(t, filepath.Join(t.TempDir(), "manufData.json"), strings.Replace(string(b), `"TotalNics": 2`, `"TotalNics": 3`, 1))
	const says = "platform FOX-1: specification: TotalNics: 2 -> 3\n"
	if out, _, err := calling(t, "manifest", "diff", old, now); err != nil || out != says {
		t.Errorf("%v\n%s", err, out)
	}
	out, _, err := calling(t, "manifest", "diff", "--json", old, now)
	var answer struct{ Changes []manifest.Change }
	if e := json.Unmarshal([]byte(out), &answer); e != nil || err != nil || len(answer.Changes) != 1 || answer.Changes[0].Platform != "FOX-1" {
		t.Errorf("%v, %v: %s", e, err, out)
	}
	if out, _, err := calling(t, "manifest", "diff", old, old); err != nil || out != "nothing changes for any unit\n" {
		t.Errorf("%v\n%s", err, out)
	}
	if _, _, err := calling(t, "manifest", "diff", old, filepath.Join(examples, "recipe.yaml")); err == nil {
		t.Error("a recipe is a manifest")
	}
}

// TestManifestSpecs: the specification that is written from a capture fits the machine that was captured, and a manifest can be made of it.
func TestManifestSpecs(t *testing.T) {
	sys := machine()
	sys["devices/system/cpu/cpu0/topology/physical_package_id"] = &fstest.MapFile{Data: []byte("0\n")}
	entries, _, err := capture.Collect(sys, fstest.MapFS{
		"cpuinfo": {Data: []byte("processor: 0\nmodel name: A CPU\nprocessor: 1\nmodel name: A CPU\n")},
		"meminfo": {Data: []byte("MemTotal: 2030424 kB\n")}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := capture.Format("", entries)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	fox, out := put(t, filepath.Join(dir, "fox.txt"), string(b)), filepath.Join(dir, "specs.json")
	if _, stderr, err := calling(t, "manifest", "specs", fox, "--out", out); err != nil || stderr != "" {
		t.Fatalf("%v\n%s", err, stderr)
	}
	if b, err = os.ReadFile(out); err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse([]byte(`{"ValidationData":[` + string(b) + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.SpecsFor("QEMU")
	if err != nil || s.CPUInfo != (manifest.CPU{Model: "A CPU", Cores: 2, Sockets: 1}) || s.RamMegs != 1982 || *s.TotalNics != 1 ||
		s.Recovery.Size != 4<<30 || len(s.MainDiskConfigs) != 1 || s.MainDiskConfigs[0][0].Size != 8<<30 {
		t.Errorf("%+v, %v\n%s", s, err, b)
	}
	image := put(t, filepath.Join(dir, "WIDGET.LNX.SHINY.2026-11-22.0001.upd"), "x")
	boot := put(t, filepath.Join(dir, "norm_boot"), "x")
	_, stderr, err := calling(t, "manifest", "make", "--out", filepath.Join(dir, "m.json"), "--image", image, "--boot", boot,
		"--specs", out, "--log-endpoint", "h:1")
	if err != nil {
		t.Errorf("%v\n%s", err, stderr)
	}
	// Another disk, another platform, and what there is not.
	stdout, _, err := calling(t, "manifest", "specs", fox, "--recovery", "vda")
	if err != nil {
		t.Fatal(err)
	}
	if m, err = manifest.Parse([]byte(`{"ValidationData":[` + stdout + `]}`)); err != nil || m.ValidationData[0].Recovery.Size != 8<<30 {
		t.Errorf("%v\n%s", err, stdout)
	}
	const asks = "which disk is the recovery device is not known"
	stdout, stderr, err = calling(t, "manifest", "specs", fox, "--platform", "QEMU-mfg-test")
	if err != nil || !strings.Contains(stdout, `"DevCodeName": "QEMU-mfg-test"`) || !strings.Contains(stderr, asks) {
		t.Errorf("%v\n%s\n%s", err, stdout, stderr)
	}
	for _, args := range [][]string{{"--recovery", "vdz"}, {"--platform", "WOLF"}, {"--platforms", filepath.Join(dir, "none")}} {
		if _, _, err := calling(t, append([]string{"manifest", "specs", fox}, args...)...); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
