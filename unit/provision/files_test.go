package provision

import (
	"math"
	"strings"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/manifest"
	"gprovision/model/policy"
)

func TestCheckFiles(t *testing.T) {
	const (
		name = "WIDGET.LNX.SHINY.2026-11-22.0001.upd"
		url  = "http://h/files/"
	)
	sum := strings.Repeat("ab", 32)
	sum1 := strings.Repeat("ab", 20)
	image := manifest.File{Src: url + name, Sha256: sum, Size: 1 << 30}
	boot := manifest.File{Src: url + "norm_boot", Sha256: sum, Size: 64 << 20}
	with := func(fs ...manifest.File) []manifest.File { return append([]manifest.File{image, boot}, fs...) }
	tests := []struct {
		name  string
		sha1  bool
		files []manifest.File
		want  *fault.Fault
		says  string
	}{
		{"good", false, with(), nil, ""},
		{"more files", false, with(manifest.File{Src: url + "fr.data", Sha256: sum}, manifest.File{Src: url + "a", Dest: "extra/b", Sha256: sum}), nil, ""},
		{"places that are named", false, []manifest.File{{Src: url + name, Dest: "/Image/" + name, Sha256: sum}, {Src: url + "provision.bin", Dest: "norm_boot", Sha256: sum}}, nil, ""},
		{"nothing", false, nil, fault.ManifestIncomplete, "no image"},
		{"no image", false, []manifest.File{boot}, fault.ManifestIncomplete, "no image WIDGET.LNX.SHINY.*.upd"},
		{"image of another product", false, []manifest.File{{Src: url + "OTHER.LNX.SHINY.2026-11-22.0001.upd", Sha256: sum}, boot}, fault.ManifestIncomplete, "no image"},
		{"no boot artifact", false, []manifest.File{image}, fault.ManifestIncomplete, "norm_boot"},
		{"boot artifact elsewhere", false, []manifest.File{image, {Src: url + "norm_boot", Dest: "boot/norm_boot", Sha256: sum}}, fault.ManifestIncomplete, "norm_boot"},
		{"no hash", false, with(manifest.File{Src: url + "x"}), fault.HashMissing, "neither"},
		{"no hash where SHA-1 is allowed", true, with(manifest.File{Src: url + "x"}), fault.HashMissing, "neither"},
		{"SHA-1 alone", false, with(manifest.File{Src: url + "x", Sha1: sum1}), fault.HashMissing, "Sha1 alone"},
		{"SHA-1 alone and allowed", true, with(manifest.File{Src: url + "x", Sha1: sum1}), nil, ""},
		{"malformed hash", true, with(manifest.File{Src: url + "x", Sha256: "abcd", Sha1: sum1}), fault.HashMissing, "hex digits"},
		{"above the volume", false, with(manifest.File{Src: url + "x", Dest: "../x", Sha256: sum}), fault.ManifestSyntax, "../x"},
		{"above the volume by detour", false, with(manifest.File{Src: url + "x", Dest: "/a/../../x", Sha256: sum}), fault.ManifestSyntax, "not inside"},
		{"the volume itself", false, with(manifest.File{Src: url + "x", Dest: "/", Sha256: sum}), fault.ManifestSyntax, "not inside"},
		{"the unit's own state", false, with(manifest.File{Src: url + "x", Dest: "state/unit.json", Sha256: sum}), fault.ManifestSyntax, "state/unit.json"},
		{"the unit's own state by detour", false, with(manifest.File{Src: url + "x", Dest: "//extra/..//state/./admin.hash", Sha256: sum}), fault.ManifestSyntax, "state/admin.hash"},
		{"in place of the state", false, with(manifest.File{Src: url + "state", Sha256: sum}), fault.ManifestSyntax, "belongs to the unit"},
		{"a name that begins like the state", false, with(manifest.File{Src: url + "x", Dest: "state.txt", Sha256: sum}), nil, ""},
		{"image with a date that is none", false, with(manifest.File{Src: url + "WIDGET.LNX.SHINY.2026-02-30.0001.upd", Sha256: sum}), fault.ImageName, "2026-02-30"},
		{"image without a build number", false, with(manifest.File{Src: url + "WIDGET.LNX.SHINY.latest.upd", Sha256: sum}), fault.ImageName, "latest"},
		{"image renamed to a malformed name", false, []manifest.File{{Src: url + name, Dest: "Image/latest.upd", Sha256: sum}, boot}, fault.ImageName, "latest"},
		{"image where nobody looks", false, []manifest.File{{Src: url + name, Dest: "image/" + name, Sha256: sum}, boot}, fault.ManifestSyntax, "no restore looks"},
		{"too large", false, with(manifest.File{Src: url + "x", Sha256: sum, Size: 4 << 30}), fault.NoSpace, "does not fit"},
		{"too large in all", false, with(image, image, image), fault.NoSpace, "does not fit"},
		{"sizes beyond what can be counted", false, with(manifest.File{Src: url + "x", Sha256: sum, Size: math.MaxInt64}, manifest.File{Src: url + "y", Sha256: sum, Size: math.MaxInt64}), fault.NoSpace, "does not fit"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j, _ := testJob(t, policy.Policy{AllowSHA1: tt.sha1})
			j.manifest = &manifest.Manifest{Files: tt.files}
			err := j.checkFiles()
			if fault.Of(err) != tt.want || (err == nil) != (tt.want == nil) || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %v saying %q", err, tt.want, tt.says)
			}
		})
	}
}

// TestCheckFilesToTheByte fills the room that the volume has, and one byte more.
func TestCheckFilesToTheByte(t *testing.T) {
	j, _ := testJob(t, policy.Policy{})
	size := j.unit.Recovery.Table.Find(layout.Recovery).Size
	room := size - size/20
	sum := strings.Repeat("ab", 32)
	boot := manifest.File{Src: "http://h/norm_boot", Sha256: sum, Size: 1}
	for extra, want := range map[int64]*fault.Fault{0: nil, 1: fault.NoSpace} {
		j.manifest = &manifest.Manifest{Files: []manifest.File{boot, {Src: "http://h/WIDGET.LNX.SHINY.2026-11-22.0001.upd", Sha256: sum, Size: room - 1 + extra}}}
		if err := j.checkFiles(); fault.Of(err) != want {
			t.Errorf("%d bytes more than there is room: got %v, want %v", extra, err, want)
		}
	}
}

func TestImageWithoutSignature(t *testing.T) {
	s := serve(t, nil)
	f := manifest.File{Src: s.URL + "/WIDGET.LNX.SHINY.2026-11-22.0001.upd"}
	for allowed, want := range map[bool]*fault.Fault{false: fault.ImageUnsigned, true: nil} {
		j, _ := testJob(t, policy.Policy{AllowUnsigned: allowed})
		if err := j.fetchSignature(t.Context(), f, "unused"); fault.Of(err) != want {
			t.Errorf("unsigned allowed %t: got %v, want %v", allowed, err, want)
		}
	}
}
