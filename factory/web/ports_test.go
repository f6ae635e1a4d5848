package web

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"gprovision/factory/store"
)

// TestKeysAndPorts decides about keys and ports on the pages. Text from a unit is shown as text.
func TestKeysAndPorts(t *testing.T) {
	s := start(t)
	s.fill()
	s.login()
	form := s.form()
	key := func(unit string, seed byte) store.Enrolment {
		t.Helper()
		e, _, err := s.db.Enrol(t.Context(), store.EnrolInput{Unit: unit, PublicKey: append(make([]byte, 31), seed), Boot: "b", Remote: "10.7.0.7" + evil, MACs: []string{"52:54:00:00:00:77"}})
		if err != nil || e.Status != store.Pending {
			t.Fatal(e, err)
		}
		return e
	}
	first, second := key("SN-0010", 1), key("SN-0010", 2)
	_, page, _ := s.do("GET", "/units/SN-0010", nil)
	for _, e := range []store.Enrolment{first, second} {
		if !strings.Contains(page, e.Fingerprint) {
			t.Errorf("the page does not show %s", e.Fingerprint)
		}
	}
	if strings.Contains(page, evil) || !strings.Contains(page, "there is no token") {
		t.Error(page)
	}
	if st, _, _ := s.do("POST", fmt.Sprintf("/units/SN-0010/enrolments/%d/approve", first.ID), url.Values{"form": {form}, "fingerprint": {second.Fingerprint}}); st != 409 {
		t.Error("approved with the fingerprint of another key:", st)
	}
	if st, page, _ := s.do("POST", fmt.Sprintf("/units/SN-0010/enrolments/%d/reject", first.ID), url.Values{"form": {form}}); st != 200 || strings.Contains(page, "waits for approval: <span class=\"mono\">"+first.Fingerprint) {
		t.Error(st, page)
	}
	if st, page, _ := s.do("POST", fmt.Sprintf("/units/SN-0010/enrolments/%d/approve", second.ID), url.Values{"form": {form}, "fingerprint": {second.Fingerprint}}); st != 200 || !strings.Contains(page, second.Fingerprint) || !strings.Contains(page, "approved the key") {
		t.Error(st, page)
	}

	_, page, _ = s.do("GET", "/ports", nil)
	if !strings.Contains(page, "52:54:00:00:00:77") || !strings.Contains(page, `href="/units/SN-0010"`) {
		t.Error(page)
	}
	if st, page, _ := s.do("POST", "/ports/share", url.Values{"form": {form}, "mac": {" 52-54-00-00-00-77 "}, "note": {evil}}); st != 200 || strings.Contains(page, evil) || !strings.Contains(page, "&lt;script&gt;") {
		t.Error(st, page)
	}
	if st, _, _ := s.do("POST", "/ports/share", url.Values{"form": {"forged"}, "mac": {"52:54:00:00:00:78"}}); st != 403 {
		t.Error(st)
	}
	if st, _, _ := s.do("POST", "/ports/share", url.Values{"form": {form}, "mac": {"x"}}); st != 409 {
		t.Error(st)
	}
	if st, page, _ := s.do("POST", "/ports/52:54:00:00:00:77/unshare", url.Values{"form": {form}}); st != 200 || strings.Contains(page, "52:54:00:00:00:77") {
		t.Error(st, page)
	}
	if st, page, _ := s.do("POST", "/ports/52:54:00:00:00:00/release", url.Values{"form": {form}}); st != 200 || strings.Contains(page, "52:54:00:00:00:00") {
		t.Error(st, page)
	}
	if st, _, _ := s.do("POST", "/ports/52:54:00:00:00:00/release", url.Values{"form": {form}}); st != 404 {
		t.Error(st)
	}
	if st, page, _ := s.do("POST", "/units/SN-0010/join", url.Values{"form": {form}, "serial": {"BOARD-1"}, "mac": {""}}); st != 200 || !strings.Contains(page, "Also known as") || !strings.Contains(page, "BOARD-1") {
		t.Error(st, page)
	}
}

// TestFingerprintIsTyped: on a server where a person must approve each key, that person types what the unit shows.
func TestFingerprintIsTyped(t *testing.T) {
	s := start(t)
	s.web.ByPerson = true
	s.login()
	e, _, err := s.db.Enrol(t.Context(), store.EnrolInput{Unit: "S1", PublicKey: make([]byte, 32), Boot: "b", ByPerson: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, page, _ := s.do("GET", "/units/S1", nil); !strings.Contains(page, `<input name="fingerprint" required`) || strings.Contains(page, `name="fingerprint" value=`) {
		t.Error(page)
	}
	path := fmt.Sprintf("/units/S1/enrolments/%d/approve", e.ID)
	if st, _, _ := s.do("POST", path, url.Values{"form": {s.form()}}); st != 409 {
		t.Error("approved without a fingerprint:", st)
	}
	if st, _, _ := s.do("POST", path, url.Values{"form": {s.form()}, "fingerprint": {strings.ToLower(strings.ReplaceAll(e.Fingerprint, "-", ""))}}); st != 200 {
		t.Error(st)
	}
	if k, err := s.db.ActiveKey(t.Context(), "S1"); err != nil || k.ID != e.ID {
		t.Error(k, err)
	}
}
