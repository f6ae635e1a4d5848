package manifest

import (
	"slices"
	"strings"
	"testing"
)

// TestDiff changes one thing in the sample and compares what Diff says.
func TestDiff(t *testing.T) {
	for _, tt := range []struct {
		name, old, new string
		want           []string
	}{
		{"the form alone", "\n", " ", nil},
		{"a comment", "written by hand", "by another one", nil},
		{"the server", "10.0.2.2:65432", "10.0.2.3:65432",
			[]string{`all units: manifest: LogEndpoint: "https://10.0.2.2:65432/" -> "https://10.0.2.3:65432/"`}},
		{"content of a file", `"norm_boot", "Sha256": "22`, `"norm_boot", "Sha256": "23`,
			[]string{`all units: file norm_boot: Sha256: "22` + two[2:] + `" -> "23` + two[2:] + `"`}},
		{"a file is new", `"Files": [`, `"Files": [{"Src": "new.txt", "Sha256": "` + two + `", "Size": 1},`,
			[]string{`all units: file new.txt is new: Sha256 "` + two + `", Size 1, Src "new.txt"`}},
		{"a file goes elsewhere", `"extra/file.txt"`, `"other/file.txt"`, []string{
			`all units: file extra/file.txt is gone: Sha256 "` + two + `", Src "/extra/a%20b.txt"`,
			`all units: file other/file.txt is new: Sha256 "` + two + `", Src "/extra/a%20b.txt"`}},
		{"another image first", `"Files": [`, `"Files": [{"Src": "` + prefix + `2026-11-23.0001.upd", "Sha256": "` + two + `"},`, []string{
			`all units: file Image/WIDGET.LNX.SHINY.2026-11-23.0001.upd is new: Sha256 "` + two + `", Src "WIDGET.LNX.SHINY.2026-11-23.0001.upd"`,
			`all units: manifest: first image: "WIDGET.LNX.SHINY.2026-11-22.0001.upd" -> "WIDGET.LNX.SHINY.2026-11-23.0001.upd"`}},
		{"a port more", `"TotalNics": 0`, `"TotalNics": 2`, []string{`platform QEMU-mfg-test: specification: TotalNics: 0 -> 2`}},
		{"a key is gone", `"SerNumRegex": "^S",`, ``, []string{`platform QEMU-mfg-test: specification: SerNumRegex: "^S" -> nothing`}},
		{"a disk", `"Model": "root2g"`, `"Model": "root3g"`,
			[]string{`platform QEMU-mfg-test: specification: MainDiskConfigs[1][0].Model: "root2g" -> "root3g"`}},
		{"a DMI value", `"bios-version": "1"`, `"bios-version": "2"`,
			[]string{`platform QEMU-mfg-test: specification: DmiMatches.bios-version: "1" -> "2"`}},
		{"a command", `"true"`, `"false"`,
			[]string{`platform QEMU-mfg-test: step "Early" at RunBeforeQA: step.Commands[0].Command: "true" -> "false"`}},
		{"another place", `"afterpwset"`, `"beforepwset"`, []string{
			`platform QEMU-mfg-test: step "Another step" at RunAfterPWSet is gone: `,
			`platform QEMU-mfg-test: step "Another step" at RunBeforePWSet is new: `}},
		{"a burn-in", `"unknown": {`, `"BurnIn": [{"DevCodeName": "X", "Disks": "read"}], "unknown": {`,
			[]string{`platform X: burn-in is new: DevCodeName "X", Disks "read"`}},
		{"a controller", `"unknown": {`, `"BMC": [{"DevCodeName": "X", "User": "u"}], "unknown": {`,
			[]string{`platform X: management controller is new: DevCodeName "X", User "u"`}},
		{"the store", `"unknown": {`, `"StashFiles": [{"Src": "http://h/a.txz", "Sha256": "` + two + `"}], "unknown": {`,
			[]string{`all units: file of the store a.txz is new: Sha256 "` + two + `", Src "http://h/a.txz"`}},
	} {
		s := strings.Replace(sample, tt.old, tt.new, 1)
		if s == sample {
			t.Fatalf("%s: nothing replaced", tt.name)
		}
		a, err := Parse([]byte(sample))
		if err != nil {
			t.Fatal(err)
		}
		b, err := Parse([]byte(s))
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		var got []string
		for _, c := range Diff(a, b, prefix) {
			got = append(got, c.String())
		}
		if !slices.EqualFunc(got, tt.want, strings.HasPrefix) {
			t.Errorf("%s: got\n%s", tt.name, strings.Join(got, "\n"))
		}
		// The other way around there are as many, and of a manifest to itself none.
		if n := len(Diff(b, a, prefix)); n != len(tt.want) || len(Diff(b, b, prefix)) != 0 {
			t.Errorf("%s: the other way around %d changes, to itself %d", tt.name, n, len(Diff(b, b, prefix)))
		}
	}
	// Steps run in their order.
	two := Manifest{CustomPlatCfgSteps: []PlatformSteps{{DevCodeName: "A", ConfigSteps: []Step{{Name: "x"}, {Name: "y"}}}}}
	turned := Manifest{CustomPlatCfgSteps: []PlatformSteps{{DevCodeName: "A", ConfigSteps: []Step{{Name: "y"}, {Name: "x"}}}}}
	if got := Diff(&two, &turned, prefix); len(got) != 2 || got[0].String() != `platform A: step "x" at RunBeforeQA: place: 1 -> 2` {
		t.Errorf("steps in another order: %v", got)
	}
}
