package image

import (
	"errors"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gprovision/forge/boot"
	"gprovision/hw/filesystem"
	"gprovision/model/page"
	"gprovision/model/policy"
	"gprovision/model/release"
)

// TestNumbersOfThePage: what docs/formats/release-image.md says, and is.
func TestNumbersOfThePage(t *testing.T) {
	for says, ok := range map[string]bool{
		"The builder writes blocks of 8 MiB": defaultBlock == 8<<20,
		"a file of 128 KiB or more has a hole in the image wherever it has 64 KiB of zeros or more, on borders of 4096 bytes": minSparse == 128<<10 && minHole == 64<<10 && zeroUnit == 4096,
		"(Where that makes 20,000 parts or more, holes are longer: 128 KiB, and so on.)":                                      filesystem.MaxExtents == 20_000,
	} {
		if !ok {
			t.Errorf("the page says %q, and it is not so", says)
		}
		if err := page.Says(os.DirFS("../../docs"), "formats/release-image.md", says); err != nil {
			t.Error(err)
		}
	}
}

// TestMetaOfThePage: the fields of imgmeta.json that docs/formats/release-image.md lists are those that there are.
func TestMetaOfThePage(t *testing.T) {
	b, err := os.ReadFile("../../docs/formats/release-image.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "The original's fields ")
	text, _, ok := strings.Cut(text, ". ")
	if !ok || release.MetaVersion != 1 || !strings.Contains(string(b), "Version: `version` of imgmeta.json, now 1;") {
		t.Fatal("the page does not list the fields, or has another version")
	}
	listed := page.Codes(text)
	var have []string
	for f := range reflect.TypeFor[release.Meta]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		have = append(have, name)
	}
	slices.Sort(listed)
	slices.Sort(have)
	if !slices.Equal(listed, have) {
		t.Errorf("the page has %q,\nimgmeta.json %q", listed, have)
	}
}

// TestAllAtOnce: what a boot artifact lacks is told with all else that is wrong, before anything is compressed.
func TestAllAtOnce(t *testing.T) {
	needs(t, false, "xz", "tar")
	files := goodFiles(t)
	delete(files, "boot/norm_boot")
	good := files["etc/shadow"]
	files["etc/shadow"] = "root:$y$abc:1\nadmin:!:1\n"
	packages := []string{"linux-image-amd64", "systemd-boot-efi", "base-files", "e2fsprogs", "grub-pc-bin", "grub-common"}
	o := Options{RootFS: writeTree(t, files), Out: t.TempDir(), Name: name(t, 1), Time: buildTime, Preset: "0",
		Boot: &boot.Options{BuildNumber: 1, Policy: policy.Policy{Version: 1, AllowUnsigned: true}},
		Progress: func(p Progress) {
			if p.Stage == "compress" {
				t.Error("something is compressed")
			}
		}}
	_, err := Build(t.Context(), nil, o)
	var c *ContractError
	if !errors.As(err, &c) {
		t.Fatal(err)
	}
	for _, want := range append(slices.Clone(packages), "account root has a password") {
		if !slices.ContainsFunc(c.Problems, func(p Problem) bool { return p.Hint != "" && strings.Contains(p.Text+p.Hint, want) }) {
			t.Errorf("%s is not among %v", want, err)
		}
	}
	// What is added counts, and then the artifact is all that is wrong.
	shadow := writeTree(t, map[string]string{"shadow": good})
	o.Add = []File{{Local: shadow + "/shadow", Dest: "/etc/shadow"}}
	_, err = Build(t.Context(), nil, o)
	var lack *boot.LackError
	if !errors.As(err, &lack) || errors.Is(err, ErrContract) {
		t.Fatal(err)
	}
	for _, want := range packages {
		if !strings.Contains(lack.Hint(), want) {
			t.Errorf("the hint %q does not name %s", lack.Hint(), want)
		}
	}
	if leftovers(t, o.Out) != 0 {
		t.Error("something is left")
	}
}

// TestAsksNobody: no daemon and no registry is asked for an OCI image: what reads it does not speak to a network.
func TestAsksNobody(t *testing.T) {
	seen := 0
	for _, dir := range []string{".", "oci"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range f.Imports {
				seen++
				if p := strings.Trim(i.Path.Value, `"`); p == "net" || strings.HasPrefix(p, "net/") && p != "net/url" {
					t.Errorf("%s imports %s", name, p)
				}
			}
		}
	}
	if seen == 0 {
		t.Error("nothing was looked at")
	}
}
