package manifest

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"gprovision/model/fault"
	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/model/source"
)

// OwnDir is the directory of the recovery volume that belongs to the unit itself: no file of a manifest goes there.
const OwnDir = "state"

// ownDirs are directories that the unit has on its recovery volume, where a file of that name would be in the way, and ownFiles are files,
// beside BootFile and its signature, where a directory would be.
func ownDirs() []string  { return []string{"boot", "erase", "fetch", "log", "lost+found", imageDir} }
func ownFiles() []string { return []string{"fr.data"} }

// maxName is the largest length of the name of a file, bytes: the filesystem has 255, and units add endings of their own.
const maxName = 200

// maxPlace is the largest length of a place on the recovery volume, bytes.
const maxPlace = 1000

// badName says why no file can have a name, as a part of a place.
func badName(name string) string {
	switch {
	case len(name) > maxName:
		return fmt.Sprintf("the name of the file has %d bytes, want at most %d", len(name), maxName)
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Sprintf("the name of the file, %q, has control characters", name)
	}
	return ""
}

// Rules is what a unit, or whoever speaks for units, knows when it judges a manifest.
type Rules struct {
	// Prefix is how the names of images begin, with the final dot, and BootFile is the name of the boot artifact.
	Prefix, BootFile string
	// AllowSHA1 accepts files that have a SHA-1 hash alone.
	AllowSHA1 bool
	// Platform is the DevCodeName of the unit; "" judges for the units of all platforms that the manifest names.
	Platform string
}

// Refusal is why a unit does not obey a manifest.
type Refusal struct {
	// Path is the place in the manifest, such as "Files[0]".
	Path string
	// Fault is the code that the unit shows.
	Fault *fault.Fault
	// Text says what is wrong, Hint what to do.
	Text, Hint string
}

// Error returns path and text.
func (r Refusal) Error() string { return r.Path + ": " + r.Text }

// Err returns the first refusal as a fault, or nil.
func Err(rs []Refusal) error {
	if len(rs) == 0 {
		return nil
	}
	return fault.Because(rs[0].Fault, rs[0])
}

// Refusals returns why units refuse a manifest, whatever their hardware is: Check has all of it, and a unit obeys no manifest that has
// one. What is wrong in a way that Parse refuses is not looked at again.
func (m *Manifest) Refusals(r Rules) []Refusal {
	var out []Refusal
	add := func(f *fault.Fault, path, text, hint string) { out = append(out, Refusal{path, f, text, hint}) }
	incomplete := func(path, text, hint string) { add(fault.ManifestIncomplete, path, text, hint) }

	m.files(r.Platform, func(path string, f File) {
		if _, err := HashFor(f, r.AllowSHA1); err != nil {
			add(fault.HashMissing, path, fault.Detail(err), "make the hashes with 'gprov manifest make'")
		}
		if why := badName(f.Base()); why != "" {
			add(fault.ManifestSyntax, path, why, "give the file another name on the server")
		}
	})
	m.placed(r, add)

	switch _, err := m.Server(); {
	case m.LogEndpoint == "":
		incomplete("LogEndpoint", "the key is missing: a unit has nobody to report to", "write the address of the factory server")
	case err != nil:
		incomplete("LogEndpoint", err.Error(), "write host:port, or https://host:port")
	}
	if m.CredentialEndpoint != "" && m.CredentialEndpoint != Vault {
		incomplete("CredentialEndpoint", fmt.Sprintf("no secret store is known as %q", m.CredentialEndpoint), `write "pblog" for the factory server's own vault`)
	}
	named := map[string]bool{}
	for i, f := range m.StashFiles {
		at := fmt.Sprintf("StashFiles[%d]", i)
		if named[f.Base()] {
			add(fault.ManifestSyntax, at, fmt.Sprintf("another file of the store has the name %q", f.Base()), "remove one of them")
		}
		named[f.Base()] = true
	}
	if m.ApplianceJsonUrl != "" {
		incomplete("ApplianceJsonUrl", "the appliance table comes from the boot artifact, and from nowhere else", "build the artifact with that table, and remove the key")
	}
	m.specified(r, incomplete)
	return out
}

// placed judges where files go.
func (m *Manifest) placed(r Rules, add func(f *fault.Fault, path, text, hint string)) {
	images, artifacts := 0, 0
	first, above := map[string]string{}, map[string]string{} // which file is at a place, and which is below a directory
	for _, dir := range ownDirs() {
		above[dir] = "the unit's own files"
	}
	for _, name := range append(ownFiles(), r.BootFile+signature.Suffix) {
		first[name] = "the unit's own file"
	}
	for i, f := range m.Files {
		at := fmt.Sprintf("Files[%d]", i)
		p, err := f.Place(r.Prefix)
		if err != nil {
			add(fault.ManifestSyntax, at, fault.Detail(err), "write a path without ..")
			continue
		}
		if why := inTheWay(p, first, above); why != "" {
			add(fault.ManifestSyntax, at, why, "write another Dest, or remove one of them")
			continue
		}
		first[p] = at
		for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
			above[dir] = at
		}
		if p == OwnDir || strings.HasPrefix(p, OwnDir+"/") {
			add(fault.ManifestSyntax, at, fmt.Sprintf("it goes to %s, which belongs to the unit itself", p), "write another Dest")
		}
		if p == r.BootFile {
			artifacts++
		}
		if !f.IsImage(r.Prefix) {
			continue
		}
		images++
		if _, err := release.ParseName(path.Base(p), r.Prefix); err != nil {
			add(fault.ImageName, at, err.Error(), "name it "+r.Prefix+"YYYY-MM-DD.NNNN"+release.Suffix)
		} else if path.Dir(p) != imageDir {
			add(fault.ManifestSyntax, at, fmt.Sprintf("the image goes to %s, where no restore looks for it", p), "leave Dest out")
		}
	}
	if images == 0 {
		add(fault.ManifestIncomplete, "Files", "there is no image: no name begins with "+r.Prefix+" and ends in "+release.Suffix, "add an image")
	}
	if artifacts == 0 {
		add(fault.ManifestIncomplete, "Files", "there is no boot artifact: no file goes to "+r.BootFile, "add one, with Dest "+r.BootFile+" if it has another name")
	}
}

// inTheWay says why no file can be put at a place: what is there, below it, or above it.
func inTheWay(p string, first, above map[string]string) string {
	if len(p) > maxPlace {
		return fmt.Sprintf("the place has %d bytes, want at most %d", len(p), maxPlace)
	}
	for _, part := range strings.Split(p, "/") {
		if why := badName(part); why != "" {
			return why
		}
	}
	if before := first[p]; strings.HasPrefix(before, "Files") {
		return "it goes to " + p + ", as " + before + " does"
	}
	if before := above[p]; before != "" {
		return fmt.Sprintf("it goes to %s, which is a directory with %s", p, before)
	}
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if before := first[dir]; before != "" {
			return fmt.Sprintf("it goes to %s, and %s is no directory but %s", p, dir, before)
		}
	}
	return ""
}

// specified judges what the manifest says of platforms.
func (m *Manifest) specified(r Rules, incomplete func(path, text, hint string)) {
	seen := map[string]bool{}
	for i, s := range m.ValidationData {
		at := fmt.Sprintf("ValidationData[%d]", i)
		switch {
		case r.Platform != "" && s.DevCodeName != r.Platform:
			continue
		case s.DevCodeName == "":
			incomplete(source.Under(at, "DevCodeName"), "the key is missing", "it is the name that the appliance table has")
		case seen[s.DevCodeName]:
			incomplete(at, fmt.Sprintf("there is an entry for %q already", s.DevCodeName), "remove one of them")
			continue
		}
		seen[s.DevCodeName] = true
		s.judge(at, incomplete)
	}
	switch {
	case len(m.ValidationData) == 0:
		incomplete("ValidationData", "there is no specification: no unit would pass", "add one for each platform")
	case r.Platform != "" && !seen[r.Platform]:
		incomplete("ValidationData", fmt.Sprintf("there is no entry for the platform %q", r.Platform), "add one")
	}
	steps := map[string]bool{}
	for i, p := range m.CustomPlatCfgSteps {
		if r.Platform != "" && p.DevCodeName != r.Platform {
			continue
		}
		if steps[p.DevCodeName] {
			incomplete(fmt.Sprintf("CustomPlatCfgSteps[%d]", i), fmt.Sprintf("there are steps for %q already", p.DevCodeName), "put the steps into the first one")
		}
		steps[p.DevCodeName] = true
	}
	controllers := map[string]bool{}
	for i, b := range m.BMC {
		if r.Platform != "" && b.DevCodeName != r.Platform {
			continue
		}
		at := fmt.Sprintf("BMC[%d]", i)
		if controllers[b.DevCodeName] {
			incomplete(at, fmt.Sprintf("there is an entry for %q already", b.DevCodeName), "remove one of them")
		}
		controllers[b.DevCodeName] = true
		b.judge(at, incomplete)
	}
	burnt := map[string]bool{}
	for i, b := range m.BurnIn {
		if r.Platform != "" && b.DevCodeName != r.Platform {
			continue
		}
		at := fmt.Sprintf("BurnIn[%d]", i)
		if burnt[b.DevCodeName] {
			incomplete(at, fmt.Sprintf("there is an entry for %q already", b.DevCodeName), "remove one of them")
		}
		burnt[b.DevCodeName] = true
		b.judge(at, incomplete)
	}
}

// judge finds what no controller can fulfil, and what would lock everybody out.
func (b BMC) judge(at string, incomplete func(path, text, hint string)) {
	badUser := func(s string) bool {
		return s == "" || len(s) > MaxBMCUser || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
	}
	if b.User != "" && badUser(b.User) {
		incomplete(source.Under(at, "User"), fmt.Sprintf("%q is not 1 to %d printable characters without spaces", b.User, MaxBMCUser), "")
	}
	for i, name := range b.Disable {
		p := fmt.Sprintf("%s[%d]", source.Under(at, "Disable"), i)
		switch {
		case badUser(name):
			incomplete(p, fmt.Sprintf("%q is not 1 to %d printable characters without spaces", name, MaxBMCUser), "")
		case b.User == "":
			incomplete(p, "nobody else gets a password, so that nobody might get in any more", "write a User")
		case name == b.User:
			incomplete(p, "this is the User who gets the password", "remove it here")
		}
	}
	if !slices.Contains(powerRestores(), b.PowerRestore) {
		hint := "write one of " + strings.Join(powerRestores()[1:], ", ")
		incomplete(source.Under(at, "PowerRestore"), fmt.Sprintf("%q is not known", b.PowerRestore), hint)
	}
}

// judge finds what no machine can fulfil.
func (s Specs) judge(at string, incomplete func(path, text, hint string)) {
	if s.Recovery != (Disk{}) && s.Recovery.Size < 1<<30 {
		incomplete(source.Under(at, "Recovery.Size"), fmt.Sprintf("%d bytes, want at least 1 GiB", s.Recovery.Size), "")
	}
	if len(s.MainDiskConfigs) == 0 {
		incomplete(source.Under(at, "MainDiskConfigs"), "there is no list of main disks: no unit would pass", "add at least one alternative with one disk")
	}
	for i, alt := range s.MainDiskConfigs {
		p := fmt.Sprintf("%s[%d]", source.Under(at, "MainDiskConfigs"), i)
		if len(alt) == 0 {
			incomplete(p, "the alternative has no disks", "")
		}
		for j, d := range alt {
			if d.Size == 0 {
				incomplete(fmt.Sprintf("%s[%d].Size", p, j), "the size is missing", "the size as 'blockdev --getsize64' prints it")
			}
		}
	}
	s.parts(at, incomplete)
	for _, f := range []struct{ name, want string }{{"FRU", s.FirmwareVer.FRU}, {"SDR", s.FirmwareVer.SDR}, {"ME", s.FirmwareVer.ME}} {
		if f.want != "" {
			incomplete(source.Under(at, "FirmwareVer."+f.name), "this version of the firmware cannot be read, so no unit would pass", "leave it empty")
		}
	}
}
