package platform

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gprovision/model/page"
)

// TestPage holds docs/formats/appliance.md against the types: each key is on the page, and no other; and what the page calls needed is
// what a table may not lack.
func TestPage(t *testing.T) {
	docs := os.DirFS("../../docs")
	listed := func(heading string) (all, needed []string) {
		t.Helper()
		rows, err := page.Rows(docs, "formats/appliance.md", heading)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if r[0] == "key" {
				if len(all) > 0 {
					break // the next table
				}
				continue
			}
			all = append(all, page.Codes(r[0])...)
			if r[1] == "yes" {
				needed = append(needed, page.Codes(r[0])...)
			}
		}
		return all, needed
	}
	keys := func(v any, prefix string) (out []string) {
		for f := range reflect.TypeOf(v).Fields() {
			if f.Type == reflect.TypeFor[MainDisk]() {
				out = append(out, f.Name+".Bus")
			} else if f.IsExported() {
				out = append(out, prefix+f.Name)
			}
		}
		return out
	}
	all, needed := listed("## Variant")
	media, _ := listed("`RecoveryMedia`:")
	data, _ := listed("`DataPartition`, on")
	for _, tc := range []struct {
		what       string
		page, have []string
	}{{"variant", all, keys(Variant{}, "")}, {"RecoveryMedia", media, keys(RecoveryMedia{}, "")}, {"DataPartition", data, keys(DataPartition{}, "")}} {
		slices.Sort(tc.page)
		slices.Sort(tc.have)
		if !slices.Equal(tc.page, tc.have) {
			t.Errorf("%s: the page has %v,\nthe type %v", tc.what, tc.page, tc.have)
		}
	}
	for _, name := range keys(NICInfo{}, "") {
		if err := page.Says(docs, "formats/appliance.md", "`"+name+"`"); err != nil {
			t.Error(err)
		}
	}

	// A table without one key is wrong where the page says so.
	whole := `{"Familyname":"f","DevCodeName":"d","DmiMbMfg":"m","DmiProdName":"p","DmiProdModelRegex":".*","SerNumField":"system-serial-number","NICInfo":{"SharedDiagPorts":[],"WANIndex":0,"DefaultNamesNoDiag":[]},
		"NumDataDisks":1,"Disksize":8000000000,"SwRaidlevel":-1,"RecoveryMedia":{"ValidateRDMethod":"usb","Size":4000000000,"FsType":"ext4"},"Lcd":"none","Console":"ttyS0","BootArgs":"quiet","GraceSeconds":1,"DiskTTol":5}`
	for _, key := range append(all, "") {
		var v map[string]any
		if err := json.Unmarshal([]byte(whole), &v); err != nil {
			t.Fatal(err)
		}
		delete(v, key)
		b, err := json.Marshal(map[string]any{"Variants": []any{v}})
		if err != nil {
			t.Fatal(err)
		}
		ps := Check(b)
		missing := slices.ContainsFunc(ps, func(p Problem) bool { return strings.HasSuffix(p.Path, key) && p.Text == "the key is missing" })
		if missing != slices.Contains(needed, key) {
			t.Errorf("without %q: %v", key, ps)
		}
	}

	if ps := Check([]byte(`{"Variants":[` + strings.Replace(whole, `,"FsType":"ext4"`, "", 1) + `]}`)); len(ps) != 1 || !strings.HasSuffix(ps[0].Path, "RecoveryMedia.FsType") {
		t.Errorf("without FsType: %v", ps)
	}

	// The numbers.
	if v := (Variant{}); v.TargetTolerance() != 5 || v.SetTolerance() != 1 {
		t.Errorf("the tolerances are %d and %d percent", v.TargetTolerance(), v.SetTolerance())
	}
	w := Variant{RecoveryMedia: RecoveryMedia{ValidateRDMethod: ValidateUSB, Size: 1000}}
	for size, fits := range map[int64]bool{950: true, 949: false, 1050: true, 1051: false} {
		if _, err := ChooseRecovery(w, nil, []Candidate{{Path: "a", Size: size, Bus: "usb"}}); (err == nil) != fits {
			t.Errorf("a recovery device of %d for 1000: %v", size, err)
		}
	}
	if err := page.Says(docs, "formats/appliance.md", "tolerance of `Disksize` in percent; 0: 5", "main disks of one unit may differ; 0: 1", "size in bytes and tolerance (0: 5)"); err != nil {
		t.Error(err)
	}
}
