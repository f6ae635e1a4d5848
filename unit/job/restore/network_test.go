package restore

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/manifest"
	"gprovision/model/policy"
	"gprovision/model/signature"
	"gprovision/model/step"
	"gprovision/unit/keytest"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/state"
)

// TestNewest: which image of a manifest a network recovery takes.
func TestNewest(t *testing.T) {
	const base = "https://x/files/"
	m := &manifest.Manifest{}
	for _, name := range []string{"norm_boot", "A.B.C.2026-11-21.0001.upd", "A.B.C.2026-11-22.0002.upd", "A.B.C.2026-11-22.0001.upd",
		"OTHER.B.C.2026-12-01.0001.upd", "A.B.C.2027.upd"} {
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

// TestTrackStages: each stage of a step begins anew, and its end is seen.
func TestTrackStages(t *testing.T) {
	var seen [][2]int64
	unit := &machine.Machine{Panel: panel.New()}
	screen := &script.Panel{}
	unit.Panel.Add("script", screen)
	err := step.Run(t.Context(), []step.Step{{Name: "fetch", Run: func(ctx context.Context) error {
		_, stop := trackStages(ctx, unit)
		stop() // a step that fails before it moves
		show, stop := trackStages(ctx, unit)
		show("fetch", 1, 0)
		show("fetch", 50, 60)
		show("check", 20, 100)
		stop()
		return nil
	}}}, func(e step.Event) {
		if e.State == step.Moved {
			seen = append(seen, [2]int64{e.Progress.Done, e.Progress.Total})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range [][2]int64{{50, 60}, {20, 100}} {
		if !slices.Contains(seen, want) {
			t.Errorf("%v was not seen: %v", want, seen)
		}
	}
	if err := unit.Panel.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p := screen.Last().Progress; p == nil || p.Done != 20 || p.Total != 100 {
		t.Errorf("the panels show %+v", p)
	}
}

// TestFetchable: a network recovery obeys no manifest that is older than one that the unit has used.
func TestFetchable(t *testing.T) {
	key := keytest.New(t)
	const text = `{"Files":[{"Src":"A.B.C.2026-11-22.0001.upd","Sha256":"2222222222222222222222222222222222222222222222222222222222222222"}]}`
	sig := keytest.Sign(t, key, text, signature.ManifestComment("WIDGET", "7"))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, map[bool]string{false: text, true: sig}[strings.HasSuffix(r.URL.Path, signature.Suffix)])
	}))
	defer s.Close()
	m := &machine.Machine{Log: slog.New(slog.DiscardHandler), Policy: policy.Policy{NetworkRecovery: s.URL + "/m.json"},
		Keys: []signature.PublicKey{key.Public()}}
	for serial, want := range map[string]*fault.Fault{"6": nil, "7": nil, "8": fault.ManifestRefused} {
		address, signed, err := fetchable(t.Context(), m, s.Client(), "A.B.C.", state.Manifests{}.Used("WIDGET", serial))
		if fault.Of(err) != want || want == nil && (err != nil || signed.Serial != "7" || address != s.URL+"/A.B.C.2026-11-22.0001.upd") {
			t.Errorf("%s was used: %q %+v %v", serial, address, signed, err)
		}
	}
}
