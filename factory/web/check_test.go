package web

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"gprovision/model/record"
)

// TestHardwareCheck: the page shows all of the newest check and nothing else. What was not compared is not shown as
// ok.
func TestHardwareCheck(t *testing.T) {
	s := start(t)
	s.login()
	s.fill()
	n := uint64(0)
	line := func(boot string, attrs map[string]any) {
		n++
		if _, err := s.db.AddEvents(t.Context(), "SN 1/2", []record.Event{{Boot: boot, Seq: n, Time: time.Now(), Kind: record.KindQA, Source: record.Observed, Attrs: attrs}}); err != nil {
			t.Fatal(err)
		}
	}
	try := func(boot string, try, lines int) {
		for i := range lines {
			line(boot, map[string]any{"name": fmt.Sprintf("%s-%d-%03d", boot, try, i), "found": "1", "expected": "1", "rule": "equal", "checked": i%10 != 0, "ok": i%10 != 0, "try": try})
		}
	}
	page := func() string {
		st, text, _ := s.do("GET", "/units/SN%201%2F2", nil)
		if st != http.StatusOK {
			t.Fatal(st, text)
		}
		_, text, _ = strings.Cut(text, "<h2>Hardware check</h2>")
		text, _, _ = strings.Cut(text, "</table>")
		return text
	}
	try("b1", 1, 5)
	try("b2", 1, 20)
	try("b2", 2, 250)
	got := page()
	for i := range 250 {
		if !strings.Contains(got, fmt.Sprintf("b2-2-%03d", i)) {
			t.Fatalf("line %d is missing", i)
		}
	}
	if strings.Contains(got, "b2-1-") || strings.Contains(got, "b1-") {
		t.Error("lines of other checks are there too")
	}
	if !strings.Contains(got, "225 checked, 25 not checked") || strings.Count(got, ">not checked</span>") != 25 || strings.Count(got, ">ok</span>") != 225 {
		t.Errorf("counted wrongly: %.200s", got)
	}
	// A unit of version 0.1.0 reports ok for what it did not compare.
	line("b3", map[string]any{"name": "memory", "found": "8 GiB", "expected": "anything", "rule": "not specified", "ok": true})
	line("b3", map[string]any{"name": "disk", "found": "1", "expected": "2", "rule": "equal", "ok": false})
	if got := page(); !strings.Contains(got, "1 checked, 1 not checked") || strings.Count(got, ">differs</span>") != 1 || strings.Contains(got, ">ok</span>") {
		t.Errorf("an older unit: %s", got)
	}
}
