package provision

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"gprovision/model/edit"
	"gprovision/model/fault"
	"gprovision/model/hardware"
	"gprovision/model/manifest"
	"gprovision/model/platform"
	"gprovision/model/policy"
	"gprovision/model/record"
	"gprovision/model/source"
	"gprovision/site"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// obeyable is a manifest without anything wrong in it, for two platforms.
const obeyable = `{
  "Files": [
    {"Src": "WIDGET.LNX.SHINY.2026-11-22.0001.upd", "Sha256": "2222222222222222222222222222222222222222222222222222222222222222", "Size": 7},
    {"Src": "kernel.efi", "Dest": "norm_boot", "Sha256": "2222222222222222222222222222222222222222222222222222222222222222"}
  ],
  "LogEndpoint": "https://10.0.2.2:8443",
  "CredentialEndpoint": "pblog",
  "ValidationData": [
    {"DevCodeName": "A", "MainDiskConfigs": [[{"Size": 2000000000}]], "Recovery": {"Size": 8000000000}, "SerNumRegex": "^S", "DmiMatches": {"bios-version": "1"}},
    {"DevCodeName": "B", "MainDiskConfigs": [[{"Size": 1, "Quantity": 2}], [{"Size": 2}]]}
  ],
  "CustomPlatCfgSteps": [{"DevCodeName": "A", "ConfigSteps": [{"Name": "x", "Files": [{"Src": "a.sh", "Sha256": "2222222222222222222222222222222222222222222222222222222222222222"}], "Commands": [{"Command": "{{.DLDir}}/a.sh"}]}]}]
}`

// refusesFirst returns the fault with which a unit of a platform refuses a manifest before it touches a disk, by the code of the job itself.
func refusesFirst(t *testing.T, m *manifest.Manifest, code string) error {
	t.Helper()
	j := &provisioning{Machine: &machine.Machine{Site: site.Stock(), Policy: policy.Policy{AllowUnsigned: true, AllowSHA1: true}}}
	j.Identity.Variant.DevCodeName = code
	base, err := url.Parse("http://10.0.2.2/files/manufData.json")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Resolve(base); err != nil {
		return err
	}
	return manifest.Err(m.Refusals(j.rules()))
}

// goesOn does with a manifest that was not refused what the job does with it, up to the first disk.
func goesOn(t *testing.T, m *manifest.Manifest, code string) {
	t.Helper()
	if _, err := record.Endpoint(m.LogEndpoint); err != nil {
		t.Errorf("enrol: %v", err)
	}
	spec, err := m.SpecsFor(code)
	if err != nil {
		t.Errorf("check-hardware: %v", err)
	}
	disk := hardware.Disk{Candidate: platform.Candidate{Path: "/dev/sda", Size: 1}}
	hardware.Compare(spec, hardware.Machine{Disks: []hardware.Disk{disk}}, platform.Identity{})
	images := 0
	for _, f := range m.Files {
		if _, err := manifest.HashFor(f, true); err != nil {
			t.Errorf("write-files: %v", err)
		}
		place, err := f.Place("WIDGET.LNX.SHINY.")
		if err != nil || place == state.Dir || strings.HasPrefix(place, state.Dir+"/") {
			t.Errorf("write-files: %s, %v", place, err)
		}
		if strings.HasPrefix(place, state.ImageDir+"/") && f.IsImage("WIDGET.LNX.SHINY.") {
			images++
		}
	}
	if images == 0 {
		t.Error("write-files: no image")
	}
}

// agree checks one manifest in both ways.
func agree(t *testing.T, text string) (refused *fault.Fault) {
	t.Helper()
	m, err := manifest.Parse([]byte(text))
	if err != nil {
		return fault.Of(err)
	}
	problems := source.Join(manifest.Check([]byte(text), manifest.Rules{Prefix: "WIDGET.LNX.SHINY.", BootFile: "norm_boot"}))
	var first error
	for _, s := range m.ValidationData {
		if err := refusesFirst(t, m, s.DevCodeName); err != nil {
			if first == nil {
				first = err
			}
		} else {
			goesOn(t, m, s.DevCodeName)
		}
	}
	if first == nil && len(m.ValidationData) == 0 {
		first = refusesFirst(t, m, "A")
	}
	if first == nil && problems != nil {
		// Only steps of a platform without a specification can be wrong and concern nobody.
		if !slices.ContainsFunc(m.CustomPlatCfgSteps, func(p manifest.PlatformSteps) bool {
			return !slices.ContainsFunc(m.ValidationData, func(s manifest.Specs) bool { return s.DevCodeName == p.DevCodeName })
		}) {
			t.Errorf("check finds %v, and units obey it:\n%s", problems, text)
		}
	}
	if first != nil && problems == nil {
		t.Errorf("check finds nothing, and a unit says %v:\n%s", first, text)
	}
	return fault.Of(first)
}

// TestCheckSpeaksForUnits: what 'gprov manifest check' finds good is obeyed, and what it does not is refused, with a code, before anything
// else is done.
func TestCheckSpeaksForUnits(t *testing.T) {
	if manifest.OwnDir != state.Dir {
		t.Errorf("the unit's own directory is %s, and manifests keep away from %s", state.Dir, manifest.OwnDir)
	}
	for _, tc := range []struct {
		name, old, new string
		want           *fault.Fault
	}{
		{"good", "", "", nil},
		{"plain server", "https://10.0.2.2:8443", "http://10.0.2.2:8443", fault.PlainSecrets},
		{"server with a path", "10.0.2.2:8443", "10.0.2.2:8443/log", fault.ManifestIncomplete},
		{"no server", `"LogEndpoint": "https://10.0.2.2:8443",`, ``, fault.ManifestIncomplete},
		{"another vault", `"pblog"`, `"https://vault"`, fault.ManifestIncomplete},
		{"no vault named", `"CredentialEndpoint": "pblog",`, ``, nil},
		{"image elsewhere", `"Size": 7`, `"Size": 7, "Dest": "extra/WIDGET.LNX.SHINY.2026-11-22.0001.upd"`, fault.ManifestSyntax},
		{"image with an impossible date", "2026-11-22", "2026-02-30", fault.ImageName},
		{"no image", "WIDGET", "GADGET", fault.ManifestIncomplete},
		{"no boot artifact", `"Dest": "norm_boot", `, ``, fault.ManifestIncomplete},
		{"the unit's own directory", `"Dest": "norm_boot"`, `"Dest": "state/unit.json"`, fault.ManifestSyntax},
		{"another appliance table", `"CredentialEndpoint"`, `"ApplianceJsonUrl": "http://h/a.json", "CredentialEndpoint"`, fault.ManifestIncomplete},
		{"files of a secret store", `"CredentialEndpoint"`, `"StashFiles": [{"Src": "x", "Sha1": "1111111111111111111111111111111111111111"}], "CredentialEndpoint"`, fault.ManifestIncomplete},
		{"firmware that cannot be read", `"SerNumRegex": "^S"`, `"FirmwareVer": {"ME": "1"}`, fault.ManifestIncomplete},
		{"a controller", `"CredentialEndpoint"`,
			`"BMC": [{"DevCodeName": "A", "User": "operator", "Disable": ["ADMIN"], "PowerRestore": "previous"}], "CredentialEndpoint"`, nil},
		{"a controller twice", `"CredentialEndpoint"`,
			`"BMC": [{"DevCodeName": "A"}, {"DevCodeName": "A"}], "CredentialEndpoint"`, fault.ManifestIncomplete},
		{"a long user", `"CredentialEndpoint"`,
			`"BMC": [{"DevCodeName": "A", "User": "seventeen.letters"}], "CredentialEndpoint"`, fault.ManifestIncomplete},
		{"the user disabled", `"CredentialEndpoint"`,
			`"BMC": [{"DevCodeName": "A", "User": "x", "Disable": ["x"]}], "CredentialEndpoint"`, fault.ManifestIncomplete},
		{"nobody but those disabled", `"CredentialEndpoint"`,
			`"BMC": [{"DevCodeName": "A", "Disable": ["x"]}], "CredentialEndpoint"`, fault.ManifestIncomplete},
		{"a name with a space", `"CredentialEndpoint"`,
			`"BMC": [{"DevCodeName": "A", "User": "x", "Disable": ["a b"]}], "CredentialEndpoint"`, fault.ManifestIncomplete},
		{"another power policy", `"CredentialEndpoint"`,
			`"BMC": [{"DevCodeName": "A", "PowerRestore": "on"}], "CredentialEndpoint"`, fault.ManifestIncomplete},
		{"firmware of a controller", `"SerNumRegex": "^S"`, `"FirmwareVer": {"IPMI": "1.71"}`, nil},
		{"a specification twice", `"DevCodeName": "B", "MainDisk`, `"DevCodeName": "A", "MainDisk`, fault.ManifestIncomplete},
		{"a hash is missing", `"Src": "a.sh", "Sha256": "2222222222222222222222222222222222222222222222222222222222222222"`, `"Src": "a.sh"`, fault.HashMissing},
		{"a file of a step without a name", `"Src": "a.sh"`, `"Src": ".", "Dest": "x"`, fault.ManifestSyntax},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Replace(obeyable, tc.old, tc.new, 1)
			if tc.old != "" && text == obeyable {
				t.Fatal("nothing replaced")
			}
			if got := agree(t, text); got != tc.want {
				t.Errorf("refused with %v, want %v", got, tc.want)
			}
		})
	}
}

func FuzzCheckSpeaksForUnits(f *testing.F) {
	good := []string{obeyable, `{"ValidationData":[{}]}`}
	for _, s := range edit.Scripts() {
		for i := range good {
			f.Add(uint8(i), s)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, script []byte) {
		agree(t, string(edit.Apply([]byte(good[int(which)%len(good)]), script)))
	})
}
