package manifest

import (
	"fmt"
	"slices"
	"testing"
)

// TestBurnIn puts entries into a manifest, and wants those refused at their places that mean nothing, and no others.
func TestBurnIn(t *testing.T) {
	for text, want := range map[string][]string{
		`{"DevCodeName": "q", "ProcessorMinutes": 1}`:                                           nil,
		`{"DevCodeName": "q", "MemoryMinutes": 10080, "CelsiusMax": 150, "DiskCelsiusMax": 60}`: nil,
		`{"DevCodeName": "q", "Disks": "read"}`:                                                 nil,
		`{"DevCodeName": "q", "Disks": "write", "DiskMinutes": 600, "DiskMBpsMin": 100000}`:     nil,
		`{"DevCodeName": "q", "Disks": "read"}, {"DevCodeName": "r", "Disks": "read"}`:          nil,
		`{"DevCodeName": "q"}`:                                                          {"BurnIn[0]"},
		`{"DevCodeName": "q", "CelsiusMax": 90}`:                                        {"BurnIn[0]"},
		`{"DevCodeName": "q", "ProcessorMinutes": -1}`:                                  {"BurnIn[0].ProcessorMinutes"},
		`{"DevCodeName": "q", "ProcessorMinutes": 10081}`:                               {"BurnIn[0].ProcessorMinutes"},
		`{"DevCodeName": "q", "MemoryMinutes": -1}`:                                     {"BurnIn[0].MemoryMinutes"},
		`{"DevCodeName": "q", "Disks": "erase"}`:                                        {"BurnIn[0].Disks"},
		`{"DevCodeName": "q", "ProcessorMinutes": 1, "DiskMinutes": 5}`:                 {"BurnIn[0].Disks"},
		`{"DevCodeName": "q", "ProcessorMinutes": 1, "DiskMBpsMin": 5}`:                 {"BurnIn[0].Disks"},
		`{"DevCodeName": "q", "Disks": "read", "DiskMinutes": 10081}`:                   {"BurnIn[0].DiskMinutes"},
		`{"DevCodeName": "q", "Disks": "read", "DiskMBpsMin": 100001}`:                  {"BurnIn[0].DiskMBpsMin"},
		`{"DevCodeName": "q", "Disks": "read", "CelsiusMax": 151}`:                      {"BurnIn[0].CelsiusMax"},
		`{"DevCodeName": "q", "Disks": "read", "DiskCelsiusMax": -5}`:                   {"BurnIn[0].DiskCelsiusMax"},
		`{"DevCodeName": "q", "Disks": "read"}, {"DevCodeName": "q", "Disks": "write"}`: {"BurnIn[1]"},
	} {
		m, err := Parse(fmt.Appendf(nil, `{"BurnIn": [%s]}`, text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var got []string
		for _, r := range m.Refusals(Rules{Prefix: "X.", BootFile: "b"}) {
			if len(r.Path) > 6 && r.Path[:6] == "BurnIn" {
				got = append(got, r.Path)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: refused at %q, want %q", text, got, want)
		}
	}
	m, err := Parse([]byte(`{"BurnIn": [{"DevCodeName": "r", "Disks": "erase"}, {"DevCodeName": "q", "Disks": "write"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range m.Refusals(Rules{Prefix: "X.", BootFile: "b", Platform: "q"}) {
		if len(r.Path) > 6 && r.Path[:6] == "BurnIn" {
			t.Errorf("a unit of another platform is told %v", r)
		}
	}
	for code, want := range map[string]string{"q": "write", "r": "erase", "s": ""} {
		if b := m.BurnInFor(code); b.Disks != want || b.DevCodeName != code || b.Nothing() != (want == "") {
			t.Errorf("%s: %+v", code, b)
		}
	}
}
