package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"gprovision/forge/boot"
	"gprovision/model/release"
)

// SBOMSuffix is appended to an image's name to get the name of its bill of materials.
const SBOMSuffix = ".spdx.json"

// The parts of an SPDX document that are written. Field names and meaning: https://spdx.github.io/spdx-spec/v2.3/.
type spdxDocument struct {
	Version       string             `json:"spdxVersion"`
	DataLicense   string             `json:"dataLicense"`
	ID            string             `json:"SPDXID"`
	Name          string             `json:"name"`
	Namespace     string             `json:"documentNamespace"`
	Creation      spdxCreation       `json:"creationInfo"`
	Describes     []string           `json:"documentDescribes"`
	Packages      []spdxPackage      `json:"packages"`
	Relationships []spdxRelationship `json:"relationships"`
}

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	ID           string         `json:"SPDXID"`
	Name         string         `json:"name"`
	Version      string         `json:"versionInfo,omitempty"`
	FileName     string         `json:"packageFileName,omitempty"`
	Supplier     string         `json:"supplier,omitempty"`
	Location     string         `json:"downloadLocation"`
	Analyzed     bool           `json:"filesAnalyzed"`
	Homepage     string         `json:"homepage,omitempty"`
	SourceInfo   string         `json:"sourceInfo,omitempty"`
	Concluded    string         `json:"licenseConcluded"`
	Declared     string         `json:"licenseDeclared"`
	Copyright    string         `json:"copyrightText"`
	Purpose      string         `json:"primaryPackagePurpose,omitempty"`
	Checksums    []spdxChecksum `json:"checksums,omitempty"`
	ExternalRefs []spdxRef      `json:"externalRefs,omitempty"`
	Comment      string         `json:"comment,omitempty"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxRelationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

const (
	noAssertion = "NOASSERTION"
	imageID     = "SPDXRef-Image"
	bootID      = "SPDXRef-Boot"
)

// debian is one installed package, as dpkg knows it.
type debian struct {
	name, arch, version, source, sourceVersion, maintainer, homepage string
}

// installed reads dpkg's list of packages, sorted by name.
func installed(status []byte) []debian {
	var out []debian
	for para := range bytes.SplitSeq(status, []byte("\n\n")) {
		var d debian
		is := false
		for line := range strings.Lines(string(para)) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			switch key {
			case "Package":
				d.name = value
			case "Architecture":
				d.arch = value
			case "Version":
				d.version = value
			case "Status":
				is = strings.HasSuffix(value, " installed")
			case "Source":
				d.source, d.sourceVersion, _ = strings.Cut(value, " ")
				d.sourceVersion = strings.Trim(d.sourceVersion, "()")
			case "Maintainer":
				d.maintainer = value
			case "Homepage":
				d.homepage = value
			}
		}
		if d.name != "" && is {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b debian) int { return strings.Compare(a.key(), b.key()) })
	return slices.CompactFunc(out, func(a, b debian) bool { return a.key() == b.key() })
}

func (d debian) key() string { return d.name + " " + d.arch + " " + d.version }

var notID = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

// id is the package's identifier in the document. Two packages that differ in other characters alone get their place behind it.
func (d debian) id(number int) string {
	return fmt.Sprintf("SPDXRef-Package-%d-%s", number+1, notID.ReplaceAllString(d.name+"-"+d.arch, "-"))
}

// locator is the package URL: https://github.com/package-url/purl-spec, type deb.
func (d debian) locator(vendor, suite string) string {
	q := url.Values{}
	if d.arch != "" {
		q.Set("arch", d.arch)
	}
	if suite != "" {
		q.Set("distro", suite)
	}
	s := "pkg:deb/" + url.PathEscape(vendor) + "/" + purlEscape(d.name) + "@" + purlEscape(d.version)
	if len(q) > 0 {
		s += "?" + q.Encode()
	}
	return s
}

// purlEscape escapes all that stands for something in a package URL.
func purlEscape(s string) string {
	return strings.NewReplacer("+", "%2B", ":", "%3A", "@", "%40").Replace(url.PathEscape(s))
}

func (d debian) spdx(id, vendor, suite string) spdxPackage {
	p := spdxPackage{
		ID: id, Name: d.name, Version: d.version, Location: noAssertion, Concluded: noAssertion, Declared: noAssertion, Copyright: noAssertion,
		ExternalRefs: []spdxRef{{"PACKAGE-MANAGER", "purl", d.locator(vendor, suite)}},
	}
	if d.maintainer != "" {
		p.Supplier = "Organization: " + strings.NewReplacer("<", "(", ">", ")").Replace(d.maintainer)
	}
	if u, err := url.Parse(d.homepage); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
		p.Homepage = d.homepage
	}
	if d.source != "" {
		p.SourceInfo = strings.TrimSpace("built from Debian source package " + d.source + " " + d.sourceVersion)
	}
	return p
}

// osRelease reads ID and VERSION_CODENAME or VERSION_ID of etc/os-release.
func osRelease(b []byte) (vendor, suite string) {
	vendor = "debian"
	fields := map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok {
			fields[k] = strings.Trim(v, `"'`)
		}
	}
	if id := fields["ID"]; id != "" {
		vendor = id
	}
	if suite = fields["VERSION_CODENAME"]; suite == "" {
		suite = fields["VERSION_ID"]
	}
	return vendor, suite
}

// sbom writes the bill of materials of an image with the given hash (SHA-256, hexadecimal) and size: the image, the Debian
// packages of its root filesystem, the boot artifact, and the files of others inside that.
func (t *tree) sbom(meta release.Meta, hash string, size int64) ([]byte, error) {
	vendor, suite := osRelease(t.files[osReleaseFile])
	doc := spdxDocument{
		Version: "SPDX-2.3", DataLicense: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: meta.ImgName,
		// It is a name, not an address; the hash makes it another one for every image.
		Namespace: "https://spdx.org/spdxdocs/" + url.PathEscape(meta.Name) + "-" + hash,
		Creation:  spdxCreation{meta.Time.UTC().Format(time.RFC3339), []string{strings.TrimSuffix("Tool: gprov-"+meta.BinVer, "-")}},
		Describes: []string{imageID},
	}
	doc.Packages = append(doc.Packages, spdxPackage{
		ID: imageID, Name: strings.TrimSuffix(meta.ImgName, "."+lastPart(meta.Name)+release.Suffix), Version: meta.Name, FileName: meta.ImgName, Location: noAssertion,
		Concluded: noAssertion, Declared: noAssertion, Copyright: noAssertion, Purpose: "OPERATING_SYSTEM",
		Checksums: []spdxChecksum{{"SHA256", hash}}, Comment: fmt.Sprintf("%d bytes", size),
	})
	relate := func(from, kind, to string) {
		doc.Relationships = append(doc.Relationships, spdxRelationship{from, kind, to})
	}
	relate(doc.ID, "DESCRIBES", imageID)
	ids := map[string]string{} // by name and version
	number := 0
	for _, d := range installed(t.files[dpkgFile]) {
		id := d.id(number)
		number++
		ids[d.name+" "+d.version] = id
		doc.Packages = append(doc.Packages, d.spdx(id, vendor, suite))
		relate(imageID, "CONTAINS", id)
	}
	if t.boot == nil {
		return marshalSBOM(doc)
	}
	in, err := boot.Inspect(t.boot, t.bootLen)
	if err != nil {
		// What is no boot artifact was complained about, and let through on request.
		return marshalSBOM(doc)
	}
	p := spdxPackage{ID: bootID, Name: "norm_boot", FileName: "/" + bootFile, Location: noAssertion, Concluded: noAssertion, Declared: noAssertion, Copyright: noAssertion, Purpose: "FIRMWARE"}
	if in.Build != nil {
		p.Version = fmt.Sprint(*in.Build)
	}
	p.Comment = "boot artifact, " + string(in.Form) + ", kernel " + in.Banner
	doc.Packages = append(doc.Packages, p)
	relate(imageID, "CONTAINS", bootID)
	if in.Info == nil {
		return marshalSBOM(doc)
	}
	related := map[string]bool{}
	for i, f := range in.Info.Tools {
		// Files of SPDX need a SHA-1; a package for one file does not.
		file := spdxPackage{
			ID: fmt.Sprintf("SPDXRef-BootFile-%d", i+1), Name: f.Path, FileName: f.Path, Location: noAssertion,
			Concluded: noAssertion, Declared: noAssertion, Copyright: noAssertion, Purpose: "FILE", Checksums: []spdxChecksum{{"SHA256", f.SHA256}},
		}
		doc.Packages = append(doc.Packages, file)
		relate(bootID, "CONTAINS", file.ID)
		if f.Package == "" {
			continue
		}
		// The same package as in the root filesystem where it is the same version; else one of its own.
		id, ok := ids[f.Package+" "+f.Version]
		if !ok {
			d := debian{name: f.Package, version: f.Version}
			id = d.id(number)
			number++
			ids[f.Package+" "+f.Version] = id
			doc.Packages = append(doc.Packages, d.spdx(id, vendor, suite))
		}
		if !related[id] {
			related[id] = true
			relate(bootID, "CONTAINS", id)
		}
		relate(file.ID, "GENERATED_FROM", id)
	}
	return marshalSBOM(doc)
}

// lastPart is date and build number of a full name.
func lastPart(name string) string {
	n, err := release.ParseName(name+release.Suffix, "")
	if err != nil {
		return ""
	}
	return n.Version()
}

func marshalSBOM(doc spdxDocument) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(doc); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
