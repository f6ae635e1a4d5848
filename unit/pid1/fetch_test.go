package pid1

import (
	"testing"

	"gprovision/model/fault"
	"gprovision/model/manifest"
	"gprovision/model/policy"
)

// TestNewest: which image of a manifest a network recovery takes.
func TestNewest(t *testing.T) {
	const base = "https://x/files/"
	m := &manifest.Manifest{}
	for _, name := range []string{"norm_boot", "A.B.C.2026-11-21.0001.upd", "A.B.C.2026-11-22.0002.upd", "A.B.C.2026-11-22.0001.upd", "OTHER.B.C.2026-12-01.0001.upd", "A.B.C.2027.upd"} {
		m.Files = append(m.Files, manifest.File{Src: base + name})
	}
	if got, err := newest(m, "A.B.C.", policy.Policy{}); got != base+"A.B.C.2026-11-22.0002.upd" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := newest(m, "A.B.C.", policy.Policy{OldestBuild: "2026-11-23.0001"}); fault.Of(err) != fault.NoImage {
		t.Errorf("images that are too old: %q, %v", got, err)
	}
	if got, err := newest(&manifest.Manifest{}, "A.B.C.", policy.Policy{}); fault.Of(err) != fault.NoImage {
		t.Errorf("no image: %q, %v", got, err)
	}
}
