package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gprovision/model/bootimage"
)

// TestSBOM holds the bill of materials against the rules of SPDX 2.3 that its JSON schema and its text make: fields, their
// values, identifiers that lead somewhere. https://spdx.github.io/spdx-spec/v2.3/.
func TestSBOM(t *testing.T) {
	needs(t, false, "xz", "tar")
	files := goodFiles(t)
	files["var/lib/dpkg/status"] = `Package: libstdc++6
Status: install ok installed
Maintainer: A Person <a@example.org>
Architecture: amd64
Source: gcc-12 (12.2.0-14)
Version: 1:12.2.0-14+deb12u1~x
Homepage: http://gcc.gnu.org/

Package: base-files
Status: install ok installed
Maintainer: B
Architecture: amd64
Version: 12.4

Package: gone
Status: deinstall ok config-files
Version: 3
`
	files["usr/lib/os-release"] = "ID=debian\nVERSION_CODENAME=bookworm\nVERSION_ID=\"12\"\n"
	key := newKey(t)
	res, err := Build(context.Background(), nil, Options{RootFS: writeTree(t, files), Out: t.TempDir(), Name: name(t, 1), Time: buildTime, Builder: "1.2", Preset: "0", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if res.SBOM != res.File+".spdx.json" {
		t.Errorf("SBOM is %s", res.SBOM)
	}
	b, err := os.ReadFile(res.SBOM)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	only := func(what string, m map[string]any, allowed string) {
		t.Helper()
		for k := range m {
			if !slices.Contains(strings.Fields(allowed), k) {
				t.Errorf("%s has a field %s", what, k)
			}
		}
	}
	text := func(m map[string]any, k, pattern string) string {
		t.Helper()
		s, _ := m[k].(string)
		if !regexp.MustCompile(`\A(?:` + pattern + `)\z`).MatchString(s) {
			t.Errorf("%s is %q, want %s", k, s, pattern)
		}
		return s
	}
	only("document", doc, "spdxVersion dataLicense SPDXID name documentNamespace creationInfo documentDescribes packages relationships")
	text(doc, "spdxVersion", "SPDX-2.3")
	text(doc, "dataLicense", "CC0-1.0")
	text(doc, "SPDXID", "SPDXRef-DOCUMENT")
	text(doc, "documentNamespace", "https://[^# ]+"+res.SHA256)
	creation := doc["creationInfo"].(map[string]any)
	text(creation, "created", `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
	if c := creation["creators"].([]any); len(c) != 1 || c[0] != "Tool: gprov-1.2" {
		t.Errorf("creators %v", c)
	}
	ids := map[string]map[string]any{"SPDXRef-DOCUMENT": nil}
	byName := map[string]map[string]any{}
	for _, p := range doc["packages"].([]any) {
		p := p.(map[string]any)
		only("package", p, "SPDXID name versionInfo packageFileName supplier downloadLocation filesAnalyzed homepage sourceInfo licenseConcluded licenseDeclared copyrightText primaryPackagePurpose checksums externalRefs comment")
		id := text(p, "SPDXID", `SPDXRef-[A-Za-z0-9.-]+`)
		if _, twice := ids[id]; twice {
			t.Errorf("identifier %s twice", id)
		}
		ids[id] = p
		byName[text(p, "name", ".+")] = p
		for _, k := range []string{"downloadLocation", "licenseConcluded", "licenseDeclared"} {
			text(p, k, "NOASSERTION")
		}
		text(p, "primaryPackagePurpose", "|OTHER|INSTALL|ARCHIVE|FIRMWARE|APPLICATION|FRAMEWORK|LIBRARY|CONTAINER|SOURCE|DEVICE|OPERATING_SYSTEM|FILE")
		if p["filesAnalyzed"] != false {
			t.Errorf("%s: files analysed", id)
		}
	}
	for _, r := range doc["relationships"].([]any) {
		r := r.(map[string]any)
		only("relationship", r, "spdxElementId relationshipType relatedSpdxElement")
		text(r, "relationshipType", "DESCRIBES|CONTAINS|GENERATED_FROM")
		for _, end := range []string{"spdxElementId", "relatedSpdxElement"} {
			if _, ok := ids[r[end].(string)]; !ok {
				t.Errorf("%v leads nowhere", r)
			}
		}
	}
	lib := byName["libstdc++6"]
	if lib == nil || byName["gone"] != nil || byName["base-files"] == nil || len(ids) != 5 {
		t.Fatalf("packages %v", byName)
	}
	if ref := lib["externalRefs"].([]any)[0].(map[string]any); ref["referenceLocator"] != "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2.0-14%2Bdeb12u1~x?arch=amd64&distro=bookworm" || ref["referenceCategory"] != "PACKAGE-MANAGER" || ref["referenceType"] != "purl" {
		t.Errorf("package URL %v", ref)
	}
	if lib["supplier"] != "Organization: A Person (a@example.org)" || lib["sourceInfo"] != "built from Debian source package gcc-12 12.2.0-14" {
		t.Errorf("%v", lib)
	}
	image := byName["WIDGET.LNX.SHINY"]
	if image == nil || image["packageFileName"] != filepath.Base(res.File) || image["checksums"].([]any)[0].(map[string]any)["checksumValue"] != res.SHA256 {
		t.Errorf("image %v", image)
	}
	if boot := byName["norm_boot"]; boot == nil || boot["versionInfo"] != "300" {
		t.Errorf("boot artifact %v", boot)
	}
	// Without one: none is left from before.
	o := Options{RootFS: writeTree(t, files), Out: filepath.Dir(res.File), Name: name(t, 2), Time: buildTime, Preset: "0", NoSBOM: true}
	stale := filepath.Join(o.Out, o.Name.String()+SBOMSuffix)
	if err := os.WriteFile(stale, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if res, err := Build(context.Background(), nil, o); err != nil || res.SBOM != "" {
		t.Errorf("%+v, %v", res, err)
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("a bill of another image is left: %v", err)
	}
}

// artifactWith is a boot artifact in the form of a kernel, with that build.json inside.
func artifactWith(t *testing.T, info bootimage.Build) []byte {
	t.Helper()
	text, err := json.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	var tree bootimage.Tree
	if err := tree.Add(bootimage.File{Name: bootimage.BuildPath, Mode: 0o644, Data: text}); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if err := errors.Join(tree.Write(z, buildTime), z.Close()); err != nil {
		t.Fatal(err)
	}
	k := bootArtifact(t, 300)
	binary.LittleEndian.PutUint32(k[0x248:], uint32(len(k)-5*512)) // behind the first part of five sectors
	binary.LittleEndian.PutUint32(k[0x24c:], uint32(packed.Len()))
	return append(k, packed.Bytes()...)
}

// TestSBOMOfTheBootArtifact: each file of others inside the boot artifact is in the bill of materials, with its hash and the package it
// came from: that of the root filesystem where it is the same version, else one of its own.
func TestSBOMOfTheBootArtifact(t *testing.T) {
	needs(t, false, "xz", "tar")
	files := goodFiles(t)
	files["var/lib/dpkg/status"] = "Package: e2fsprogs\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.47.0-2\n"
	hash := func(c string) string { return strings.Repeat(c, 64) }
	files["boot/norm_boot"] = string(artifactWith(t, bootimage.Build{Number: 300, Tools: []bootimage.Tool{
		{Name: "mke2fs", Path: "/sbin/mke2fs", Package: "e2fsprogs", Version: "1.47.0-2", SHA256: hash("a")},
		{Name: "mdadm", Path: "/sbin/mdadm", Package: "mdadm", Version: "4.2-5", SHA256: hash("b")},
		{Name: "init", Path: "/init", Version: "0123456789ab", SHA256: hash("c")},
	}}))
	res, err := Build(t.Context(), nil, Options{RootFS: writeTree(t, files), Out: t.TempDir(), Name: name(t, 1), Time: buildTime, Preset: "0"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(res.SBOM)
	if err != nil {
		t.Fatal(err)
	}
	var doc spdxDocument
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for _, p := range doc.Packages {
		names[p.ID] = strings.TrimSpace(p.Name + " " + p.Version)
		if len(p.Checksums) == 1 && p.ID != imageID {
			names[p.ID] += " " + p.Checksums[0].Algorithm + " " + p.Checksums[0].Value[:1]
		}
	}
	var got []string
	for _, r := range doc.Relationships {
		if r.From != doc.ID && r.From != imageID {
			got = append(got, names[r.From]+" "+r.Type+" "+names[r.To])
		}
	}
	want := []string{
		"norm_boot 300 CONTAINS /sbin/mke2fs SHA256 a", "norm_boot 300 CONTAINS e2fsprogs 1.47.0-2",
		"/sbin/mke2fs SHA256 a GENERATED_FROM e2fsprogs 1.47.0-2",
		"norm_boot 300 CONTAINS /sbin/mdadm SHA256 b", "norm_boot 300 CONTAINS mdadm 4.2-5", "/sbin/mdadm SHA256 b GENERATED_FROM mdadm 4.2-5",
		"norm_boot 300 CONTAINS /init SHA256 c",
	}
	if !slices.Equal(got, want) || len(doc.Packages) != 7 {
		t.Errorf("%d packages, relations\n%q, want\n%q", len(doc.Packages), got, want)
	}
}

func TestInstalled(t *testing.T) {
	if got := installed(nil); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if v, s := osRelease([]byte("ID=\"ubuntu\"\nVERSION_ID=24.04\n")); v != "ubuntu" || s != "24.04" {
		t.Errorf("%s %s", v, s)
	}
	if v, s := osRelease(nil); v != "debian" || s != "" {
		t.Errorf("%s %s", v, s)
	}
}
