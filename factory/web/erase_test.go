package web

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"gprovision/factory/store"
	"gprovision/model/erasure"
	"gprovision/model/erasure/erasuretest"
	"gprovision/model/record"
)

// erased makes a unit whose key is erasuretest.Key(1), told of a drive, with certificates of three outcomes.
func (s *site) erased() {
	s.Helper()
	const unit, mac = "SN-0055", "52:54:00:00:00:55"
	now := time.Now()
	err := s.db.AddToken(s.Context(), "erased", store.Token{MAC: mac, Serial: unit, Created: now, Expires: now.Add(time.Hour)})
	if err == nil {
		_, _, err = s.db.Enrol(s.Context(), store.EnrolInput{
			Unit: unit, PublicKey: erasuretest.Public(1), Token: "erased", Boot: "b", Platform: "WIDGET-1U", MACs: []string{mac},
		})
	}
	if err == nil {
		b := record.EraseBefore{Run: erasuretest.Run(1), Name: "nvme0n1", State: []byte(`{"model":"<b>"}`)}
		err = s.db.AddDriveBefore(s.Context(), unit, b)
	}
	if err != nil {
		s.Fatal(err)
	}
	for i, c := range []erasure.Certificate{erasuretest.Failed(unit, 1), erasuretest.Weaker(unit, 2), erasuretest.Proved(unit, 3)} {
		if status, page, _ := s.bring(c, s.form(), i == 1, nil); status != 200 || !strings.Contains(page, "<h1>SN-0055</h1>") {
			s.Fatal(status, page)
		}
	}
}

// bring uploads a certificate, as files or as the texts of QR codes.
func (s *site) bring(c erasure.Certificate, form string, asCodes bool, change func(*record.EraseSubmission)) (int, string, *http.Response) {
	s.Helper()
	file, sig, err := c.Sign(erasuretest.Key(1))
	if err != nil {
		s.Fatal(err)
	}
	q := record.EraseSubmission{Certificate: file, Signature: sig}
	if change != nil {
		change(&q)
	}
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	m.WriteField("form", form)
	if q.Accepted {
		m.WriteField("accepted", "yes")
	}
	if asCodes {
		codes, err := erasure.Codes(q.Certificate, q.Signature, 900)
		if err != nil {
			s.Fatal(err)
		}
		m.WriteField("codes", strings.Join(codes, "\r\n"))
		q.Certificate, q.Signature = nil, nil
	}
	for name, content := range map[string][]byte{"certificate": q.Certificate, "signature": q.Signature, "proof": q.Proof} {
		if content == nil {
			continue
		}
		part, err := m.CreateFormFile(name, name)
		if err == nil {
			_, err = part.Write(content)
		}
		if err != nil {
			s.Fatal(err)
		}
	}
	if err := m.Close(); err != nil {
		s.Fatal(err)
	}
	r, err := http.NewRequestWithContext(s.Context(), "POST", s.url+"/erases", &b)
	if err != nil {
		s.Fatal(err)
	}
	r.Header.Set("Content-Type", m.FormDataContentType())
	resp, err := s.c.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	return resp.StatusCode, string(page), resp
}

// TestErases: certificates are uploaded and shown with their outcome, of which only what is proved is green; the page of drives names
// neither units nor serial numbers; and the files that are downloaded prove what the page says.
func TestErases(t *testing.T) {
	s := start(t)
	s.login()
	s.erased()
	_, page, _ := s.do("GET", "/units/SN-0055", nil)
	badges := regexp.MustCompile(`<span class="badge (\w+)">(proved|weaker|failed)</span>`).FindAllStringSubmatch(page, -1)
	if len(badges) != 3 || badges[0][1] != "good" || badges[1][1] != "wait" || badges[2][1] != "bad" {
		t.Errorf("%q", badges)
	}
	for _, want := range []string{
		`recovery volume <span class="wait">weaker</span>`,
		"brought by admin", "ended the unit's life", "record 2 of", "{&#34;model&#34;:&#34;&lt;b&gt;&#34;}", erasuretest.Run(2),
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page of the unit does not say %q:\n%s", want, page)
		}
	}
	u, err := s.db.Unit(t.Context(), "SN-0055")
	if err != nil || u.Enrolled {
		t.Error("the proved erase ended nothing:", err)
	}
	link := regexp.MustCompile(`/units/SN-0055/erases/\d+/certificate`).FindString(page)
	var files erasure.Files
	for name, into := range map[string]*[]byte{
		"certificate": &files.Certificate, "signature": &files.Signature, "voucher": &files.Voucher, "proof": &files.Proof,
	} {
		st, body, resp := s.do("GET", strings.Replace(link, "certificate", name, 1), nil)
		if st != 200 || !strings.Contains(resp.Header.Get("Content-Disposition"), "SN-0055-03030303.json") {
			t.Error(name, st, resp.Header)
		}
		*into = []byte(body)
	}
	if c, err := erasure.Verify(files, erasure.Keys{}); err != nil || c.Certificate.Outcome != erasure.Proved {
		t.Error(err)
	}
	if st, _, _ := s.do("GET", strings.Replace(link, "certificate", "else", 1), nil); st != 404 {
		t.Error(st)
	}

	_, page, _ = s.do("GET", "/erases", nil)
	for _, want := range []string{
		"ACME &lt;b&gt;9&lt;/b&gt;", "FW-1", "nvme-format-crypto", `<span class="bad">1</span>`, "1m30s", "/log&#43;",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page of drives does not say %q:\n%s", want, page)
		}
	}
	for _, not := range []string{"SN-0055", "SERIAL"} {
		if strings.Contains(page, not) {
			t.Errorf("the page of drives says %q", not)
		}
	}

	for what, change := range map[string]func(*record.EraseSubmission){
		"the certificate does not hold":             func(q *record.EraseSubmission) { q.Signature = nil },
		"another certificate of this run":           func(*record.EraseSubmission) {},
		"the file certificate has more than":        func(q *record.EraseSubmission) { q.Certificate = make([]byte, erasure.MaxCertificate+1) },
		"the file signature has more than":          func(q *record.EraseSubmission) { q.Signature = make([]byte, 1<<20) },
		"not in the format of an erase certificate": func(q *record.EraseSubmission) { q.Certificate = []byte("{}") },
	} {
		other := erasuretest.Proved("SN-0055", 3)
		other.Platform = "else"
		if status, page, _ := s.bring(other, s.form(), false, change); status < 400 || !strings.Contains(page, what) {
			t.Errorf("%s: %d %s", what, status, page)
		}
	}
	if status, _, _ := s.bring(erasuretest.Proved("SN-0055", 4), "forged", false, nil); status != http.StatusForbidden {
		t.Error("a forged form:", status)
	}
	status, page, _ := s.bring(erasuretest.Proved("SN-0055", 4), s.form(), false, nil)
	if status != 409 || !strings.Contains(page, "does not speak for this unit") {
		t.Error("a key that was revoked:", status)
	}
}
