package provision

import (
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/manifest"
	"gprovision/model/platform"
	"gprovision/model/policy"
	"gprovision/site"
	"gprovision/unit/uplink"
)

const planned = `{
  "Files": [
    {"Src": "WIDGET.LNX.SHINY.2026-11-22.0001.upd", "Sha256": "` + sixtyFour + `", "Size": 700000000},
    {"Src": "https://10.0.0.9/kernel.efi", "Dest": "norm_boot", "Sha1": "0123456789abcdef0123456789abcdef01234567", "Size": 60000000},
    {"Src": "manual.pdf", "Dest": "/doc/manual.pdf", "Sha256": "` + sixtyFour + `"}
  ],
  "LogEndpoint": "10.0.2.2:8443",
  "ValidationData": [{"DevCodeName": "FOX", "MainDiskConfigs": [[{"Size": 8589934592}]], "Recovery": {"Size": 4294967296}}],
  "CustomPlatCfgSteps": [
    {"DevCodeName": "OWL", "ConfigSteps": [{"Name": "of others", "Commands": [{"Command": "false"}]}]},
    {"DevCodeName": "FOX", "ConfigSteps": [
      {"Name": "BIOS password", "When": "RunAfterPWSet", "Commands": [{"Command": "biosset {{.BiosPass}}", "ExitStatus": "ESDontCare"}]},
      {"Name": "firmware", "When": "RunAfterQA", "Files": [{"Src": "fw.txz", "Sha256": "` + sixtyFour + `", "Size": 9}],
       "Commands": [{"Command": "{{.DLDir}}/update"}, {"Command": "check"}]}
    ]}
  ]
}`

// TestPlanAsText shows the plans of units of each kind, whole, as they are shown before the first write.
func TestPlanAsText(t *testing.T) {
	virtio := func(name, serial string, gib int64) block.Disk {
		return block.Disk{Name: name, Bus: block.VirtIO, Serial: serial, Size: gib * layout.GiB}
	}
	for _, tc := range []struct {
		name     string
		firmware layout.Firmware
		variant  platform.Variant
		policy   policy.Policy
		signed   uplink.Signed
		disks    []block.Disk
	}{
		{name: "two-disks-uefi", firmware: layout.UEFI, variant: platform.Variant{NumDataDisks: 1, SwRaidlevel: -1},
			policy: policy.Policy{AllowSHA1: true, Keys: []string{"a key"}}, signed: uplink.Signed{Product: "WIDGET", Serial: "7"},
			disks: []block.Disk{virtio("vda", "R", 4), virtio("vdb", "M", 8), virtio("vdc", "SPARE", 32)}},
		{name: "one-disk-bios", firmware: layout.BIOS,
			variant: platform.Variant{NumDataDisks: 1, SwRaidlevel: -1, RecoveryMedia: platform.RecoveryMedia{Layout: platform.OnMain}},
			policy:  policy.Policy{AllowSHA1: true, AllowUnsigned: true},
			disks:   []block.Disk{{Name: "sda", Bus: block.SATA, Vendor: "ATA", Model: "BIG ONE", Serial: "M", Size: 16 * layout.GiB}}},
		{name: "array-with-data", firmware: layout.UEFI,
			variant: platform.Variant{NumDataDisks: 2, SwRaidlevel: 1,
				DataPartition: &platform.DataPartition{Label: "DATA", SystemSize: 4 * layout.GiB}},
			policy: policy.Policy{AllowSHA1: true}, signed: uplink.Signed{Product: "WIDGET", Serial: "8"},
			disks: []block.Disk{virtio("vda", "R", 4), virtio("vdb", "M1", 8), virtio("vdc", "M2", 8)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j, _ := testJob(t, tc.policy)
			j.Identity.Variant, j.Firmware = tc.variant, tc.firmware
			j.Identity.Variant.DevCodeName, j.Identity.Variant.Disksize = "FOX", tc.disks[len(tc.disks)-1].Size
			if len(tc.disks) == 3 {
				j.Identity.Variant.Disksize = 8 * layout.GiB
			}
			for i := range tc.disks {
				tc.disks[i].Path, tc.disks[i].SectorSize = "/dev/"+tc.disks[i].Name, 512
			}
			var err error
			if j.plan, err = newPlan(resolved(t, planned), j.rules(), tc.policy); err != nil {
				t.Fatal(err)
			}
			j.plan.Manifest, j.plan.Signed = "http://10.0.2.2/files/manufData.json", tc.signed
			n := 0
			ids := layout.IDs{UUID: func() string {
				n++
				return fmt.Sprintf("%08d-2222-4333-8444-555555555555", n)
			}}
			if err := j.plan.chooseDisks(j.Identity.Variant, tc.disks); err != nil {
				t.Fatal(err)
			}
			if err := j.plan.layOut(j.Machine, ids, time.Unix(0, 0)); err != nil {
				t.Fatal(err)
			}
			if err := j.plan.checkRoom(); err != nil {
				t.Fatal(err)
			}
			got := j.plan.String()
			want, err := os.ReadFile("testdata/plan-" + tc.name + ".txt")
			if diff := cmp.Diff(string(want), got); err != nil || diff != "" {
				t.Errorf("%v %s\nthe whole plan:\n%s", err, diff, got)
			}
		})
	}
}

// resolved reads a manifest as it is read at an address of a station.
func resolved(t *testing.T, text string) *manifest.Manifest {
	t.Helper()
	m, err := manifest.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	base, err := url.Parse("http://10.0.2.2/files/manufData.json")
	if err != nil {
		t.Fatal(err)
	}
	full, err := m.Resolve(base)
	if err != nil {
		t.Fatal(err)
	}
	return full
}

// TestPlanSaysNoSecret: the address of a manifest may have a password, and the plan goes to logs.
func TestPlanSaysNoSecret(t *testing.T) {
	j, _ := testJob(t, policy.Policy{AllowUnsigned: true, AllowSHA1: true})
	j.Identity.Variant.DevCodeName = "FOX"
	s := serve(t, map[string]string{"/m.json": strings.Replace(planned, `"CustomPlat`, `"_CustomPlat`, 1)})
	j.env.Survey.Args.ManifestURL = strings.Replace(s.URL, "http://", "http://user:hunter2@", 1) + "/m.json"
	if err := j.obeyManifest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(j.plan.Files[0].Src, "hunter2") {
		t.Errorf("the file would be fetched without the password, from %s", j.plan.Files[0].Src)
	}
	if got := j.plan.String(); strings.Contains(got, "hunter2") || !strings.Contains(got, "/manual.pdf") {
		t.Errorf("the plan says\n%s", got)
	}
}

// TestPlanRoom: files that do not fit on the recovery volume end the job before anything is written.
func TestPlanRoom(t *testing.T) {
	j, _ := testJob(t, policy.Policy{}) // its recovery device has 4 GiB
	for size, want := range map[int64]*fault.Fault{1 * layout.GiB: nil, 2 * layout.GiB: fault.NoSpace, 4 * layout.GiB: fault.NoSpace} {
		j.plan.Files = []File{{Src: "http://h/a", Size: size}, {Src: "http://h/b", Size: size}}
		if err := j.plan.checkRoom(); fault.Of(err) != want {
			t.Errorf("two files of %d bytes: %v", size, err)
		}
	}
}

// TestPlanRefuses: what Refusals lets pass, and a plan cannot be made of, is an error all the same.
func TestPlanRefuses(t *testing.T) {
	names := site.Stock().Names
	for name, tc := range map[string]struct {
		old, new string
		want     *fault.Fault
	}{
		"good":             {"", "", nil},
		"no server":        {`"10.0.2.2:8443"`, `""`, fault.ManifestIncomplete},
		"another platform": {`{"DevCodeName": "FOX", "Main`, `{"DevCodeName": "HEN", "Main`, fault.ManifestIncomplete},
		"no hash":          {`"Dest": "/doc/manual.pdf", "Sha256"`, `"Dest": "/doc/manual.pdf", "_"`, fault.HashMissing},
		"an image's name":  {`2026-11-22.0001`, `2026-13-22.0001`, fault.ImageName},
		"a step's hash":    {`"Src": "fw.txz", "Sha256"`, `"Src": "fw.txz", "_"`, fault.HashMissing},
	} {
		text := strings.Replace(planned, tc.old, tc.new, 1)
		rules := manifest.Rules{Platform: "FOX", Prefix: names.ImagePrefix, BootFile: names.BootFile, AllowSHA1: true}
		_, err := newPlan(resolved(t, text), rules, policy.Policy{})
		if fault.Of(err) != tc.want {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}
