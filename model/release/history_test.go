package release

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestHistory(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	var h History
	if !h.Check("A") {
		t.Error("an unknown image may be chosen")
	}
	h.Imaging("A.upd", false, at)
	h.Imaging("B", true, at)
	for range 4 {
		h.Boot("A", false, 0, at, "")
	}
	if h.ImageResults[0].Image != "A" || h.ImageResults[1].Image != "B" || len(h.ImageResults) != 2 {
		t.Errorf("order: %+v", h.ImageResults)
	}
	if !h.Check("A") {
		t.Error("5 failures are allowed")
	}
	h.Boot("A", false, 1, at, "it hangs")
	h.Boot("A", true, 0, at, "it runs")
	if h.Check("A") || h.Check("A.upd") || !h.Check("B") {
		t.Error("6 failures are too many")
	}
	r, ok := h.Find("A.upd")
	want := []string{"Imaging @ 2026-11-22T10:00:00Z, success: false", "Boot @ 2026-11-22T10:00:00Z, success: false",
		"Boot @ 2026-11-22T10:00:00Z, success: false, severity: 1, notes: it hangs",
		"Boot @ 2026-11-22T10:00:00Z, success: true, severity: 0, notes: it runs"}
	if !ok || r.Notes[0] != want[0] || r.Notes[1] != want[1] || r.Notes[5] != want[2] || r.Notes[6] != want[3] || r.BootFailures != 5 ||
		r.BootAttempts != 6 {
		t.Errorf("record: %+v", r)
	}
	b, err := h.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseHistory(b)
	if err != nil || fmt.Sprint(again) != fmt.Sprint(h) {
		t.Errorf("got %+v, %v", again, err)
	}
	h.Forgive("A")
	if !h.Check("A") {
		t.Error("not forgiven")
	}
	if b, err := (History{}).Marshal(); err != nil || !strings.Contains(string(b), `"ImageResults": []`) {
		t.Errorf("empty: %s, %v", b, err)
	}
	if !strings.HasPrefix(BadHistory(at), HistoryFile+"_bad2026") {
		t.Error(BadHistory(at))
	}
}

func TestHistoryIsDefensive(t *testing.T) {
	original := `{"ImageResults":[{"Image":"WIDGET.LNX.SHINY.2018-04-26.6940","ImagingAttempts":1,"Notes":["Imaging @ 2018-04-26T10:00:00Z, success: true"],"New":1}]}`
	h, err := ParseHistory([]byte(original))
	if err != nil || len(h.ImageResults) != 1 || h.ImageResults[0].ImagingAttempts != 1 {
		t.Errorf("original: %+v, %v", h, err)
	}
	for _, bad := range []string{"", "{", "[]", `{"ImageResults":[{"Image":""}]}`, `{"ImageResults":[{"Image":"A"},{"Image":"A"}]}`,
		`{"ImageResults":[{"Image":"A","BootFailures":-1}]}`, `{"ImageResults":7}`, strings.Repeat(" ", MaxHistory+1)} {
		if _, err := ParseHistory([]byte(bad)); err == nil {
			t.Errorf("accepted: %.50s", bad)
		}
	}
	h, err = ParseHistory([]byte(`{"ImageResults":[{"Image":"A","BootFailures":18446744073709551615,"ImagingFailures":6}]}`))
	if err != nil || h.Check("A") {
		t.Errorf("failures wrap round: %+v, %v", h, err)
	}
	h.Boot("A", false, 9, time.Now(), "")
	if h.Check("A") {
		t.Error("failures wrap round when counting")
	}
	for i := range 2 * maxRecords {
		h.Imaging(fmt.Sprint("image", i), true, time.Now())
	}
	for range 2 * maxNotes {
		h.Boot("B", true, 1, time.Now(), strings.Repeat("ü", maxNote))
	}
	if len(h.ImageResults) != maxRecords || len(h.ImageResults[0].Notes) != maxNotes {
		t.Errorf("%d records, %d notes", len(h.ImageResults), len(h.ImageResults[0].Notes))
	}
	b, err := h.Marshal()
	if err != nil || len(b) > MaxHistory {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// TestHistoryIsBounded: of a history that is too large what was used last stays, in the file and in what is read from one.
func TestHistoryIsBounded(t *testing.T) {
	var h History
	for i := range maxRecords {
		r := Result{Image: fmt.Sprint("image", i)}
		for n := range maxNotes * 3 / 2 {
			if i < 100 {
				r.Notes = append(r.Notes, fmt.Sprint(n, strings.Repeat("x", 700)))
			}
		}
		h.ImageResults = append(h.ImageResults, r)
	}
	b, err := h.Marshal()
	if err != nil || len(b) > MaxHistory || len(h.ImageResults[99].Notes) == 0 {
		t.Fatalf("%d bytes, %v; notes of the record that was given: %d", len(b), err, len(h.ImageResults[99].Notes))
	}
	got, err := ParseHistory(b)
	if err != nil || len(got.ImageResults) != maxRecords {
		t.Fatalf("%d images, %v", len(got.ImageResults), err)
	}
	for i, r := range got.ImageResults[:100] {
		if want := maxNotes; i < 50 && (len(r.Notes) != want || !strings.HasPrefix(r.Notes[want-1], "95x")) || i >= 50 && len(r.Notes) > 0 {
			t.Errorf("image %d has %d notes", i, len(r.Notes))
		}
	}
	more := got
	more.ImageResults = append(more.ImageResults, Result{Image: "never"})
	for i := range more.ImageResults {
		more.ImageResults[i].Notes = nil
	}
	if b, err = more.Marshal(); err != nil {
		t.Fatal(err)
	}
	if got, err = ParseHistory(b); err != nil || len(got.ImageResults) != maxRecords {
		t.Errorf("%d images, %v", len(got.ImageResults), err)
	}
}

func FuzzParseHistory(f *testing.F) {
	f.Add([]byte(`{"ImageResults":[{"Image":"A","BootFailures":1,"Notes":["x"]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHistory(b)
		if err != nil {
			return
		}
		h.Boot("A", false, 1, time.Time{}, "n")
		out, err := h.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(out) {
			t.Errorf("%s", out)
		}
		if len(out) <= MaxHistory {
			if _, err := ParseHistory(out); err != nil {
				t.Errorf("%s: %v", out, err)
			}
		}
	})
}
