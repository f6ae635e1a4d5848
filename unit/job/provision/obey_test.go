package provision

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gprovision/model/edit"
	"gprovision/model/fault"
	"gprovision/model/hardware"
	"gprovision/model/layout"
	"gprovision/model/manifest"
	"gprovision/model/platform"
	"gprovision/model/policy"
	"gprovision/model/signature"
	"gprovision/model/source"
	"gprovision/site"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
	"gprovision/unit/uplink"
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

// reads returns the plan that a unit of a platform makes of a manifest before it looks at a disk, or why it makes none.
func reads(t *testing.T, m *manifest.Manifest, code string) (Plan, error) {
	t.Helper()
	lax := policy.Policy{AllowUnsigned: true, AllowSHA1: true}
	j := &provisioning{Machine: &machine.Machine{Site: site.Stock(), Policy: lax, Serial: "SN-1"}}
	j.Identity.Variant.DevCodeName = code
	base, err := url.Parse("http://10.0.2.2/files/manufData.json")
	if err != nil {
		t.Fatal(err)
	}
	full, err := m.Resolve(base)
	if err != nil {
		return Plan{}, err
	}
	known := manifest.Variables{RecoveryDir: "/mnt/recovery", Serial: j.Serial}
	return readPlan(uplink.Manifest{Written: m, Full: full}, j.rules(), j.Policy, known)
}

// places is a filesystem of empty files, as ext4 makes them: true is a directory.
type places map[string]bool

// put makes a file, and the directories above it.
func (t places) put(name string) error {
	var above string
	parts := strings.Split(name, "/")
	for i, part := range parts {
		above = path.Join(above, part)
		dir, there := t[above]
		switch last := i == len(parts)-1; {
		case len(part) > 255 || strings.Contains(part, "\x00") || part == "" || part == "." || part == "..":
			return fmt.Errorf("%q: %w", name, syscall.EINVAL)
		case there && dir == last:
			return fmt.Errorf("%q: %w, or %w", name, syscall.EISDIR, syscall.ENOTDIR)
		default:
			t[above] = !last
		}
	}
	return nil
}

// goesOn does with a manifest that was not refused what the job does with it later, as far as that needs no machine: it compares hardware,
// makes the files of the recovery volume beside those of the unit, and the files of each step, and fills in what its commands say.
func goesOn(t *testing.T, p Plan) {
	t.Helper()
	disk := hardware.Disk{Candidate: platform.Candidate{Path: "/dev/sda", Size: 1}}
	hardware.Compare(p.Spec, hardware.Machine{Disks: []hardware.Disk{disk}}, platform.Identity{})
	volume := places{}
	put := func(place string) {
		t.Helper()
		for _, name := range []string{place, place + ".part.json"} { // the longest ending that a unit adds
			if err := volume.put(name); err != nil {
				t.Errorf("write-files: %v", err)
			}
		}
	}
	for _, own := range []string{state.KeyFile, state.LogDir + "/x.log", "fetch/x", "boot/x", "lost+found/x", "erase/x"} {
		put(own)
	}
	images := 0
	for _, f := range p.Files {
		if !f.stashed() && (f.Place == state.Dir || strings.HasPrefix(f.Place, state.Dir+"/")) {
			t.Errorf("write-files: %s", f.Place)
		}
		if _, there := volume[f.Place]; there && f.stashed() {
			t.Errorf("write-files: %s is there", f.Place)
		}
		if strings.HasPrefix(f.Place, state.ImageDir+"/") && f.Image != nil {
			images++
		}
		put(f.Place)
		if f.Signature != "" {
			put(f.Place + signature.Suffix)
		}
	}
	put("fr.data")
	if images == 0 {
		t.Error("write-files: no image")
	}
	for _, s := range p.Steps {
		dir, v := places{}, manifest.Variables{Serial: "SN-1", RecoveryDir: "/mnt/recovery"}
		if len(s.Files) > 0 {
			v.DLDir = "/tmp/step-7"
		}
		if s.When >= manifest.RunBeforePWSet {
			v.OSPass, v.BiosPass, v.IpmiPass = "abcd-efgh-ijkl-mnop", "abcdefghijkl", "abcdefghijklmnop"
		}
		for _, f := range s.Files {
			if err := dir.put(f.Name); err != nil {
				t.Errorf("step %q: %v", s.Name, err)
			}
		}
		for _, c := range s.Commands {
			if got, err := c.Fill(v); err != nil || got.Argv[0] == "" {
				t.Errorf("step %q: %q, %v", s.Name, got, err)
			}
		}
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
		if p, err := reads(t, m, s.DevCodeName); err == nil {
			goesOn(t, p)
		} else if first == nil {
			first = err
		}
	}
	if first == nil && len(m.ValidationData) == 0 {
		_, first = reads(t, m, "A")
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
		{"a server as old manifests name it", "https://10.0.2.2:8443", "http://10.0.2.2:8443", nil},
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
		{"files of the unit's store", `"CredentialEndpoint"`,
			`"StashFiles": [{"Src": "x", "Sha1": "1111111111111111111111111111111111111111"}], "CredentialEndpoint"`, nil},
		{"files of the unit's store with one name", `"CredentialEndpoint"`, `"StashFiles": [{"Src": "x", "Sha256": "` + sixtyFour + `"},
			{"Src": "/x", "Sha256": "` + sixtyFour + `"}], "CredentialEndpoint"`, fault.ManifestSyntax},
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

// TestCheckSpeaksForMutants changes good manifests in one to three of their values, keys, types, numbers or strings, and holds the same.
func TestCheckSpeaksForMutants(t *testing.T) {
	mutants := 6000
	if testing.Short() {
		mutants = 1000
	}
	good, refused := 0, map[*fault.Fault]int{}
	bases := []string{obeyable, string(newGoods(t).manifest(t, "https://10.0.2.2:8443"))}
	for seed := range mutants {
		text := mutant(t, bases[seed%2], uint64(seed))
		if f := agree(t, text); f == nil {
			good++
		} else {
			refused[f]++
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	// It says something only where both happen often, and for several reasons.
	if good < mutants/10 || good > mutants*9/10 || len(refused) < 4 {
		t.Errorf("%d of %d are good, the others are refused for %v", good, mutants, refused)
	}
}

// mutant returns a manifest that was changed at one to three places.
func mutant(t *testing.T, text string, seed uint64) string {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 13))
	var m any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	for range 1 + r.IntN(3) {
		if all := leaves(m, func(x any) { m = x }); len(all) > 0 && r.IntN(2) == 0 { // each string as often as any other
			all[r.IntN(len(all))](func(s string) any { return changeString(r, s) })
		} else {
			m = change(r, m)
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// leaves returns a way to change each string inside of v.
func leaves(v any, set func(any)) (out []func(func(string) any)) {
	switch v := v.(type) {
	case string:
		return []func(func(string) any){func(f func(string) any) { set(f(v)) }}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			out = append(out, leaves(v[k], func(x any) { v[k] = x })...)
		}
	case []any:
		for i := range v {
			out = append(out, leaves(v[i], func(x any) { v[i] = x })...)
		}
	}
	return out
}

// change changes one value somewhere inside of v, or v itself.
func change(r *rand.Rand, v any) any {
	if r.IntN(8) > 0 { // further in
		switch v := v.(type) {
		case map[string]any:
			if keys := slices.Sorted(maps.Keys(v)); len(keys) > 0 {
				k := keys[r.IntN(len(keys))]
				switch r.IntN(16) {
				case 0:
					delete(v, k)
				case 1:
					v[strings.ToLower(k)], v[k] = v[k], nil
				case 2: // a value goes to another key
					v[k] = v[keys[r.IntN(len(keys))]]
				default:
					v[k] = change(r, v[k])
				}
				return v
			}
		case []any:
			if len(v) > 0 {
				i := r.IntN(len(v))
				switch r.IntN(12) {
				case 0:
					return slices.Delete(v, i, i+1)
				case 1:
					return append(v, v[i])
				default:
					v[i] = change(r, v[i])
				}
				return v
			}
		}
	}
	if s, ok := v.(string); ok && r.IntN(3) > 0 {
		return changeString(r, s)
	}
	if n, ok := v.(float64); ok && r.IntN(3) > 0 {
		return []any{n + 1, n * 2, -n, n / 3, 0, 1 << 62, 1e300}[r.IntN(7)]
	}
	return []any{nil, true, "", "x", 0, 1, -1, 1.5, 1 << 40, []any{}, map[string]any{}, []any{map[string]any{}}, "A", "B"}[r.IntN(14)]
}

// changeString changes a string: what stands in manifests, what addresses, places, templates and hashes break at, or some of its
// characters.
func changeString(r *rand.Rand, s string) string {
	words := []string{
		".", "..", "/", "a/..", "a/../b", "./norm_boot", "//h/norm_boot", "http:", "http://h", "http://h/", "http:x", "ftp://h/x", "?x",
		"#x", "http://h/x?y=%2F", "a%2Fb", "a%00b", "%2e%2e", "a b", "norm_boot", "norm_boot/x", "norm_boot.minisig/x", "Image",
		"Image/x", "log", "log/x", "state", "state/x", "/state", "erase", "fetch", "boot", "lost+found", "fr.data/x",
		"WIDGET.LNX.SHINY.2026-11-22.0001.upd", "WIDGET.LNX.SHINY.2026-11-22.1.upd", "x/WIDGET.LNX.SHINY.2026-11-22.0002.upd",
		"WIDGET.LNX.SHINY.2026-11-22.0001.upd/.", strings.Repeat("n", 210), strings.Repeat("d/", 600) + "x", strings.Repeat("1", 40),
		strings.Repeat("2", 64), "{{.DLDir}}", "{{.DLDir}}/a.sh", "{{.OSPass}}", "x {{.BiosPass}}", "{{index .Serial 40}}",
		"{{len .Serial 1}}", "{{if .OSPass}}x{{end}}", "{{template \"x\"}}", "{{range 3}}x{{end}}", "{{with .Serial}}{{.}}{{end}}", "'",
		"a 'b c'", "\x00", "{{", "}}", "10.0.2.2:8443", "https://h:1/x", "http://h:1", "pblog", "(", "bios-version", "2[1] Version",
		"300 x", "RunAfterQA", "beforepwset", "Must fail", "0x10000", "always-on",
	}
	switch at := r.IntN(len(s) + 1); r.IntN(8) {
	case 0:
		return s[:at] + string(rune(r.IntN(0x80))) + s[at:]
	case 1:
		return s[:at]
	default:
		return words[r.IntN(len(words))]
	}
}

func FuzzCheckSpeaksForMutants(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { agree(t, mutant(t, obeyable, seed)) })
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

// TestOnlyChecked: a provisioning that is only tried judges all, shows its plan, and writes nothing, also where somebody has mistyped what
// it is to leave out.
func TestOnlyChecked(t *testing.T) {
	g := newGoods(t)
	b := newBench(t, g, machinetest.Kind{Firmware: layout.UEFI})
	for value, says := range map[string]string{decide.StopAfterValidate: "only checked", "no-write-files": `"no-write-files"`} {
		err := b.provision(nil, func(j *provisioning) { j.env.Survey.Args.MfgTest = value })
		if fault.Of(err) != fault.OnlyChecked || !strings.Contains(err.Error(), says) || b.destroys || len(b.Written()) > 0 {
			t.Errorf("%s: %v, written to are %s", value, err, b.Written())
		}
		if !strings.Contains(b.log.String(), "all data is lost") {
			t.Errorf("%s: no plan is shown:\n%s", value, b.log)
		}
	}
	if err := b.provision(nil); err != nil {
		t.Errorf("without the argument: %v", err)
	}
}
