package manifest

import (
	"bytes"
	"errors"
	"io"
	"net/url"
	"os"
	"strings"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/source"
)

const (
	prefix = "WIDGET.LNX.SHINY."
	one    = "1111111111111111111111111111111111111111"
	two    = "2222222222222222222222222222222222222222222222222222222222222222"
)

// stock is what units of the stock site know.
var stock = Rules{Prefix: prefix, BootFile: "norm_boot"}

// sample is shaped like the sample document of the original system.
const sample = `{
  "_comment": "written by hand",
  "_comment": "twice, which comments may",
  "Files": [
    {"Src": "http://10.0.2.2:8080/WIDGET.LNX.SHINY.2026-11-22.0001.upd", "Sha1": "` + one + `", "Sha256": "` + two + `", "Size": 7},
    {"Src": "norm_boot", "Sha256": "` + two + `"},
    {"Src": "/extra/a%20b.txt", "Sha256": "` + two + `", "Dest": "extra/file.txt"}
  ],
  "LogEndpoint": "https://10.0.2.2:65432/",
  "CredentialEndpoint": "pblog",
  "ValidationData": [
    {
      "DevCodeName": "QEMU-mfg-test",
      "CPUInfo": {"Model": "QEMU Virtual CPU version 2.5+", "Cores": 4, "Sockets": 4},
      "RamMegs": 1234,
      "Recovery": {"Size": 10737418240, "SizeTolerancePct": 1, "Vendor": "QEMU", "Model": "QEMU HARDDISK"},
      "MainDiskConfigs": [
        [{"Size": 30000000000, "SizeTolerancePct": 1, "Vendor": "ATA", "Model": "root30g", "Quantity": 2}],
        [{"Size": 2147483648, "SizeTolerancePct": 1, "Vendor": "ATA", "Model": "root2g"}]
      ],
      "OUINicsSequential": true, "NumOUINics": 1, "TotalNics": 0,
      "Devices": {"PCI": [{"Vendor": "0x8086", "Device": "0x1237", "Class": "0x0600", "Quantity": 1}]},
      "SerNumRegex": "^S",
      "DmiMatches": {"bios-version": "1", "2[1] Version": "x", "_note": "comment"}
    }
  ],
  "CustomPlatCfgSteps": [
    {"DevCodeName": "QEMU-mfg-test", "ConfigSteps": [
      {"Name": "Example step", "When": "RunAfterImaging", "Files": [{"Src": "sampleCmd.sh", "Sha256": "` + two + `"}],
       "Commands": [{"Command": "chmod +x {{.DLDir}}/sampleCmd.sh"}, {"Command": "{{.DLDir}}/sampleCmd.sh", "ExitStatus": "DontCare", "AddPath": "/bin"}]},
      {"Name": "Another step", "When": "afterpwset", "Verbose": true, "Commands": [{"Command": "ls {{.RecoveryDir}} {{if .Serial}}{{.Serial | printf \"%q\"}}{{end}}", "ExitStatus": "ESMustFail"}]},
      {"Name": "Early", "Commands": [{"Command": "true"}]}
    ]}
  ],
  "unknown": {"key": [1, 2]}
}`

func TestSample(t *testing.T) {
	m, err := Parse([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	if ps := Check([]byte(sample), stock); len(ps) > 0 {
		t.Errorf("problems: %v", ps)
	}
	s, err := m.SpecsFor("QEMU-mfg-test")
	if err != nil || s.CPUInfo.Cores != 4 || s.MainDiskConfigs[0][0].Count() != 2 || s.MainDiskConfigs[1][0].Count() != 1 || *s.TotalNics != 0 || s.Devices.PCI[0].Vendor != 0x8086 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := m.SpecsFor("x"); fault.Of(err) != fault.ManifestIncomplete {
		t.Error(err)
	}
	for w, want := range map[When]string{RunAfterImaging: "Example step", RunAfterPWSet: "Another step", RunBeforeQA: "Early", RunAfterQA: ""} {
		var got []string
		for _, s := range m.StepsFor("QEMU-mfg-test", w) {
			got = append(got, s.Name)
		}
		if strings.Join(got, ",") != want {
			t.Errorf("%s: %q", w, got)
		}
	}
	c := m.StepsFor("QEMU-mfg-test", RunAfterImaging)[0].Commands
	if c[0].ExitStatus != ESMustSucceed || c[1].ExitStatus != ESDontCare {
		t.Errorf("exit status: %v %v", c[0].ExitStatus, c[1].ExitStatus)
	}
	for i, want := range []string{"Image/WIDGET.LNX.SHINY.2026-11-22.0001.upd", "norm_boot", "extra/file.txt"} {
		if got, err := m.Files[i].Place(prefix); err != nil || got != want {
			t.Errorf("place %d: %q, %v", i, got, err)
		}
	}

	base, _ := url.Parse("http://192.168.1.1:81/files/manufData.json")
	r, err := m.Resolve(base)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"http://10.0.2.2:8080/WIDGET.LNX.SHINY.2026-11-22.0001.upd", "http://192.168.1.1:81/files/norm_boot", "http://192.168.1.1:81/extra/a%20b.txt"} {
		if r.Files[i].Src != want {
			t.Errorf("Src %d: %s", i, r.Files[i].Src)
		}
	}
	if got := r.CustomPlatCfgSteps[0].ConfigSteps[0].Files[0].Src; got != "http://192.168.1.1:81/files/sampleCmd.sh" {
		t.Error(got)
	}
	if m.CustomPlatCfgSteps[0].ConfigSteps[0].Files[0].Src != "sampleCmd.sh" {
		t.Error("Resolve changed the original")
	}
	if r.Files[2].Base() != "a b.txt" {
		t.Errorf("base: %q", r.Files[2].Base())
	}
}

// original is the sample manifest of the system that this one replaces, with its placeholders filled in.
func original(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/original.json")
	if err != nil {
		t.Fatal(err)
	}
	return []byte(strings.NewReplacer("YYYY-MM-DD.NNNN", "2006-01-02.1234", "KName", "norm_boot", "CredEndpt", Vault,
		"updsum", one, "ksum", one, "mfgsum", one, "cmdsum", one).Replace(string(b)))
}

// TestOriginal: the sample of the system that this one replaces is good as it is. That its hashes are SHA-1 and its server's address is
// plain HTTP are warnings: units speak https to that server.
func TestOriginal(t *testing.T) {
	b := original(t)
	ps := Check(b, stock)
	var warned []string
	for _, p := range ps {
		warned = append(warned, p.Path)
	}
	want := "Files[0] Files[1] LogEndpoint StashFiles[0] CustomPlatCfgSteps[0].ConfigSteps[0].Files[0]"
	if err := source.Join(ps); err != nil || strings.Join(warned, " ") != want {
		t.Errorf("check says %v", ps)
	}
	m, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := m.Server(); err != nil || s != "https://10.0.2.2:65432" {
		t.Errorf("the server is %s, %v", s, err)
	}
	if len(m.StashFiles) != 1 || !m.StashFiles[0].Archive() || m.Files[0].Archive() {
		t.Errorf("the store has %+v", m.StashFiles)
	}
}

func TestPlace(t *testing.T) {
	for dest, want := range map[string]string{"/abs/x": "abs/x", "a//b": "a/b", "../x": "", "a/../../x": "", "..": "", "/": "", "a/..": ""} {
		got, err := File{Src: "f", Dest: dest}.Place(prefix)
		if (err == nil) != (want != "") || got != want {
			t.Errorf("%q: %q, %v", dest, got, err)
		}
	}
}

func TestHashFor(t *testing.T) {
	tests := []struct {
		f     File
		allow bool
		want  string
	}{
		{File{Sha256: two, Sha1: one}, false, "sha256:" + two},
		{File{Sha256: strings.ToUpper(strings.Replace(two, "2", "a", 3))}, true, "sha256:aaa" + two[3:]},
		{File{Sha1: one}, true, "sha1:" + one},
		{File{Sha1: one}, false, ""},
		{File{}, true, ""},
		{File{Sha256: "12"}, true, ""},
	}
	for _, tt := range tests {
		h, err := HashFor(tt.f, tt.allow)
		if tt.want == "" {
			if fault.Of(err) != fault.HashMissing {
				t.Errorf("%+v: %v", tt.f, err)
			}
			continue
		}
		if err != nil || h.String() != tt.want || h.New().Size() != len(h.Sum) {
			t.Errorf("%+v: %v %v", tt.f, h, err)
		}
	}
}

func TestDMIKey(t *testing.T) {
	for in, want := range map[string]DMIKey{
		"bios-version": {Keyword: "bios-version"}, "2 Serial Number": {Type: 2, Field: "Serial Number"}, "17[3] Size:": {Type: 17, Index: 3, Field: "Size"},
		"17[15] Memory Subsystem Controller Product ID": {Type: 17, Index: 15, Field: "Memory Subsystem Controller Product ID"},
		"200 Strings": {Type: 200, Field: "Strings"},
		"":            {}, "2": {}, "x y": {}, "2[a] y": {}, "300 y": {}, "2 :": {},
		"2 Colour": {}, "bios": {}, "BIOS-version": {}, "127 Strings": {},
	} {
		got, err := ParseDMIKey(in)
		if got != want || (err == nil) != (want != DMIKey{}) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for in, near := range map[string]string{"bios-versoin": `"bios-version"`, "17 size": `"Size"`, "2[1] Serial number": `"Serial Number"`,
		"11 Strings 2": `"String #"`} {
		if _, err := ParseDMIKey(in); err == nil || !strings.Contains(err.Error(), near) {
			t.Errorf("%q: %v, without %s", in, err, near)
		}
	}
}

// TestProblems changes one thing in the sample and compares what Check says, and whether Parse refuses it.
func TestProblems(t *testing.T) {
	tests := []struct {
		name, old, new, want string
		refused              bool
	}{
		{"syntax", `"Src": "norm_boot",`, `"Src": "norm_boot"`, "line 6: not valid JSON", true},
		{"type", `"RamMegs": 1234`, `"RamMegs": "1234"`, "line 15: ValidationData[0].RamMegs: found a string, want a whole number", true},
		{"list", `"MainDiskConfigs": [`, `"MainDiskConfigs": [{},`, "line 17: ValidationData[0].MainDiskConfigs[0]: found an object, want a list", true},
		{"when", `"afterpwset"`, `"later"`, `line 31: CustomPlatCfgSteps[0].ConfigSteps[1].When: "later" is not known`, true},
		{"exit status", `"DontCare"`, `"Perhaps"`, `line 30: CustomPlatCfgSteps[0].ConfigSteps[0].Commands[1].ExitStatus: "Perhaps" is not known`, true},
		{"sha256", `"Src": "norm_boot", "Sha256": "22`, `"Src": "norm_boot", "Sha256": "2`, "line 6: Files[1].Sha256: ", true},
		{"no hash", `"Src": "norm_boot", "Sha256": "` + two + `"`, `"Src": "norm_boot"`, "line 6: Files[1]: norm_boot has neither", false},
		{"sha1 alone", `"Sha256": "` + two + `", "Size": 7`, `"Size": 7`, "line 5: Files[0]: warning: the file has SHA-1 alone", false},
		{"address", `"norm_boot"`, `"ftp://x/norm_boot"`, "line 6: Files[1].Src: ", true},
		{"no boot artifact", `"Src": "norm_boot"`, `"Src": "kernel"`, "line 4: Files: there is no boot artifact", false},
		{"image elsewhere", `"Size": 7}`, `"Size": 7, "Dest": "extra/WIDGET.LNX.SHINY.2026-11-22.0001.upd"}`, "line 5: Files[0]: the image goes to extra/", false},
		{"image name", `SHINY.2026-11-22`, `SHINY.2026-11-32`, "line 5: Files[0]: ", false},
		{"the unit's own directory", `"extra/file.txt"`, `"state/unit.json"`, "line 7: Files[2]: it goes to state/unit.json, which belongs to the unit itself", false},
		{"two files of the store", `"unknown": {`, `"StashFiles": [{"Src": "x", "Sha256": "` + two + `"},
			{"Src": "y/x", "Sha256": "` + two + `"}], "unknown": {`,
			"line 36: StashFiles[1]: another file of the store has the name", false},
		{"a file of the store without a hash", `"unknown": {`, `"StashFiles": [{"Src": "x"}], "unknown": {`,
			"line 35: StashFiles[0]: x has neither", false},
		{"another table", `"unknown": {`, `"ApplianceJsonUrl": "http://h/appliance.json", "unknown": {`, "line 35: ApplianceJsonUrl: ", false},
		{"address with a path", `65432/"`, `65432/v1"`, "line 9: LogEndpoint: ", false},
		{"no address", `"/extra/a%20b.txt"`, `""`, "line 7: Files[2].Src: the address is missing", true},
		{"outside", `"extra/file.txt"`, `"../../etc/passwd"`, "line 7: Files[2].Dest: ", true},
		{"same place", `"extra/file.txt"`, `"/norm_boot"`, "line 7: Files[2]: it goes to norm_boot, as Files[1] does", false},
		{"no image", `SHINY.2026`, `DULL.2026`, "line 4: Files: there is no image", false},
		{"no server", `"LogEndpoint": "https://10.0.2.2:65432/",`, ``, "line 1: LogEndpoint: the key is missing", false},
		{"plain", `"https://10`, `"http://10`, "line 9: LogEndpoint: warning: units speak https", false},
		{"foreign vault", `"pblog"`, `"other"`, "line 10: CredentialEndpoint: no secret store is known", false},
		{"vault not named", `"CredentialEndpoint": "pblog",`, ``, "line 1: CredentialEndpoint: warning: the key is missing", false},
		{"two specifications", `"ValidationData": [`, `"ValidationData": [{"DevCodeName": "QEMU-mfg-test", "MainDiskConfigs": [[{"Size": 1}]]},`, "line 12: ValidationData[1]: there is an entry", false},
		{"recovery", `"Recovery": {"Size": 10737418240`, `"Recovery": {"Size": 1073741`, "line 16: ValidationData[0].Recovery.Size: 1073741 bytes, want at least 1 GiB", false},
		{"regexp", `"^S"`, `"(S"`, "line 23: ValidationData[0].SerNumRegex: not a regular expression", true},
		{"dmi", `"2[1] Version"`, `"2[x] Version"`, "line 24: ValidationData[0].DmiMatches.2[x] Version: ", true},
		{"too long a step", `"Verbose": true`, `"Minutes": 1441`, "line 31: CustomPlatCfgSteps[0].ConfigSteps[1].Minutes: want 1 to 1440", true},
		{"no time", `"Verbose": true`, `"Minutes": -1`, "line 31: CustomPlatCfgSteps[0].ConfigSteps[1].Minutes: want 1 to 1440", true},
		{"template", `{{.RecoveryDir}}`, `{{.Recovery}}`, "line 31: CustomPlatCfgSteps[0].ConfigSteps[1].Commands[0].Command: the variable .Recovery is not known", true},
		{"template over two words", `{{.RecoveryDir}}`, `{{if .Serial}}a b{{end}}`, "line 31: CustomPlatCfgSteps[0].ConfigSteps[1].Commands[0].Command: the word ", true},
		{"template syntax", `{{.RecoveryDir}}`, `{{.RecoveryDir}`, "line 31: CustomPlatCfgSteps[0].ConfigSteps[1].Commands[0].Command: not a template", true},
		{"a value that is not there", `{{.RecoveryDir}}`, `{{index .Serial 99}}`,
			"line 31: CustomPlatCfgSteps[0].ConfigSteps[1].Commands[0]: template: ", true},
		{"a password before its time", `"Command": "true"`, `"Command": "{{.OSPass}}"`,
			"line 32: CustomPlatCfgSteps[0].ConfigSteps[2].Commands[0]: the command is empty", true},
		{"a file without a name", `"/extra/a%20b.txt"`, `"/extra/."`, "line 7: Files[2].Src: the address names no file", true},
		{"a long name", `"extra/file.txt"`, `"` + strings.Repeat("n", maxName+1) + `"`,
			"line 7: Files[2]: the name of the file has 201 bytes", false},
		{"a long place", `"extra/file.txt"`, `"` + strings.Repeat("d/", maxPlace/2) + `x"`, "line 7: Files[2]: the place has 1001 bytes", false},
		{"a zero byte", `sampleCmd.sh"`, `sample%00Cmd.sh"`,
			"line 29: CustomPlatCfgSteps[0].ConfigSteps[0].Files[0]: the name of the file", false},
		{"below a file", `"extra/file.txt"`, `"norm_boot/x"`, "line 7: Files[2]: it goes to norm_boot/x, and norm_boot is no directory", false},
		{"below a signature", `"extra/file.txt"`, `"norm_boot.minisig/x"`, "line 7: Files[2]: it goes to norm_boot.minisig/x, and ", false},
		{"below the restore data", `"extra/file.txt"`, `"fr.data/x"`, "line 7: Files[2]: it goes to fr.data/x, and ", false},
		{"a directory of the unit", `"extra/file.txt"`, `"log"`, "line 7: Files[2]: it goes to log, which is a directory", false},
		{"a directory with another file", `"extra/file.txt"}`, `"extra/file.txt"}, {"Src": "x", "Sha256": "` + two + `", "Dest": "extra"}`,
			"line 7: Files[3]: it goes to extra, which is a directory with Files[2]", false},
		{"a directory of another file", `"extra/file.txt"`, `"Image"`, "line 7: Files[2]: it goes to Image, which is a directory", false},
		{"id", `"0x8086"`, `"0x18086"`, "line 22: ValidationData[0].Devices.PCI[0].Vendor: ", true},
		{"firmware", `"SerNumRegex": "^S"`, `"FirmwareVer": {"ME": "1"}`, "line 23: ValidationData[0].FirmwareVer.ME: ", false},
		{"empty alternative", `"MainDiskConfigs": [`, `"MainDiskConfigs": [[],`, "line 17: ValidationData[0].MainDiskConfigs[0]: the alternative has no disks", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := strings.Replace(sample, tt.old, tt.new, 1)
			if s == sample {
				t.Fatal("nothing replaced")
			}
			ps := Check([]byte(s), stock)
			if len(ps) != 1 && tt.name != "outside" {
				t.Errorf("got %d problems: %v", len(ps), ps)
			}
			if len(ps) == 0 || !strings.HasPrefix(ps[0].String(), tt.want) {
				t.Errorf("got %v, want %s", ps, tt.want)
			}
			_, err := Parse([]byte(s))
			if tt.refused && fault.Of(err) != fault.ManifestSyntax || !tt.refused && err != nil {
				t.Errorf("Parse: %v", err)
			}
			if tt.refused && !strings.Contains(err.Error(), "line ") {
				t.Errorf("no line in %v", err)
			}
		})
	}
	if ps := Check([]byte(`{}`), stock); len(ps) != 5 {
		t.Errorf("empty: %v", ps)
	}
	huge := append([]byte(sample), bytes.Repeat([]byte(" "), MaxSize)...)
	if ps := Check(huge, stock); len(ps) != 1 || !strings.Contains(ps[0].Text, "units read at most") {
		t.Errorf("a huge one: %v", ps)
	}
	for _, s := range []string{"", "x", "[]", "null1"} {
		if _, err := Parse([]byte(s)); fault.Of(err) != fault.ManifestSyntax {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestMake(t *testing.T) {
	m, err := Parse([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	content := map[string]string{"norm_boot": "kernel", "sampleCmd.sh": "#!/bin/sh"}
	out, err := Make(m, func(f File) (io.ReadCloser, error) {
		c, ok := content[f.Src]
		if !ok {
			return nil, nil
		}
		return io.NopCloser(strings.NewReader(c)), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// printf kernel | sha256sum; printf kernel | sha1sum
	want := File{Src: "norm_boot", Sha256: "6923dd1bc0460082c5d55a831908c24a282860b7f1cd6c2b79cf1bc8857c639c", Sha1: "c65a0fb7e74ffd2c9fc3a0f9aacb0f6a24b0a68b", Size: 6}
	if got := out.Files[1]; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if out.Files[0] != m.Files[0] {
		t.Error("a file that cannot be opened was changed")
	}
	if out.CustomPlatCfgSteps[0].ConfigSteps[0].Files[0].Size != 9 || m.CustomPlatCfgSteps[0].ConfigSteps[0].Files[0].Size != 0 {
		t.Error("files of steps")
	}
	boom := errors.New("boom")
	if _, err := Make(m, func(File) (io.ReadCloser, error) { return nil, boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
	b, err := out.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if ps := Check(b, stock); len(ps) > 0 {
		t.Errorf("what was written: %v\n%s", ps, b)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"files":[{"src":"a","SHA256":"` + two + `"}],"CustomPlatCfgSteps":[{"ConfigSteps":[{"When":"QA","Commands":[{"Command":"{{range 9}}{{.}}{{end}}"}]}]}]}`))
	f.Add([]byte(`{"ValidationData":[{"Devices":{"USB":[]}}]}`))
	f.Add([]byte(`{"ValidationData":[{"DmiMatches":{"1[2] x":"y"},"Devices":{"USB":[{"Vendor":"010","Class":"0b1"}]}}]}`))
	base, _ := url.Parse("http://h/m.json")
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		ps := Check(b, stock)
		if err != nil {
			if source.Join(ps) == nil {
				t.Fatalf("Parse says %v, Check nothing", err)
			}
			return
		}
		out, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(out)
		if err != nil {
			t.Fatalf("cannot read what was written: %v\n%s", err, out)
		}
		second, err := again.Marshal()
		if err != nil || !bytes.Equal(out, second) {
			t.Fatalf("not stable: %v\n%s\n%s", err, out, second)
		}
		if r, err := m.Resolve(base); err == nil {
			for _, x := range r.Files {
				if !strings.HasPrefix(x.Src, "http") {
					t.Fatalf("resolved to %q", x.Src)
				}
			}
		}
		for _, x := range m.Files {
			if p, err := x.Place(prefix); err == nil && (strings.HasPrefix(p, "/") || p == ".." || strings.HasPrefix(p, "../")) {
				t.Fatalf("place %q", p)
			}
			HashFor(x, true)
		}
	})
}
