package cli

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"

	"gprovision/model/erasure"
)

// pdfText returns the words of a document in their order, and its number of pages, by the structure of the file (ISO 32000-1, 7.3.8, 9.4).
func pdfText(t *testing.T, file []byte) (words string, pages int) {
	t.Helper()
	if !bytes.HasPrefix(file, []byte("%PDF-1.")) || !bytes.HasSuffix(bytes.TrimSpace(file), []byte("%%EOF")) {
		t.Fatalf("no PDF: %.40q", file)
	}
	stream := regexp.MustCompile(`(?s)/FlateDecode.*?stream\r?\n(.*?)\r?\nendstream`)
	text := regexp.MustCompile(`\(((?:[^()\\]|\\.)*)\) ?Tj`)
	var b strings.Builder
	for _, m := range stream.FindAllSubmatch(file, -1) {
		r, err := zlib.NewReader(bytes.NewReader(m[1]))
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range text.FindAllSubmatch(content, -1) {
			b.Write(s[1])
			b.WriteByte(' ')
		}
	}
	return strings.Join(strings.Fields(b.String()), " "), len(regexp.MustCompile(`/Type ?/Page\b`).FindAll(file, -1))
}

// TestEraseReportPDF: the document says what the page for browsers says, on as many pages as it needs, and the same bytes each time.
func TestEraseReportPDF(t *testing.T) {
	long := certificate()
	for i := range 60 {
		long.NotReached = append(long.NotReached, fmt.Sprintf("thing %d {nb} (in brackets) %s", i, strings.Repeat("x", 150)))
	}
	failed := certificate()
	failed.Drives[0].Evidence.Samples.Random = erasure.Places{Constant: 4000, Unchanged: 1000}
	for name, c := range map[string]struct {
		certificate erasure.Certificate
		args        []string
		least       int // pages
		says        []string
	}{
		"proved": {certificate(), all(), 1, []string{
			"Erase of unit WX-0001", "The data of all main disks is proved to be gone", "proved: the data is gone, at level clear", "ACME <b>9</b>",
			"vouched for by factory.example/units", "record 0 of 1 of factory.example/log", "zeros may be unmapped blocks",
			"TPM 2.0", "the firmware is asked to clear it at the next start", "cleared, and that was seen",
			"5000 say that the data is gone", "Not reached boot areas", "Stays on the unit the images",
			"Recovery volume: proved by a weaker method only", "7 files unlinked", "Not reached the journal", "Format NVM ses=1",
		}},
		"nobody vouches": {certificate(), nil, 1, []string{
			"does not prove that the data is gone", "a unit nobody vouches for", "not yet logged",
		}},
		"failed": {failed, all(), 1, []string{
			"does not prove that the data is gone: it is not proved", "failed: data is left",
			"at least one sample was found as it was before",
		}},
		"long": {long, all(), 3, []string{`thing 59 {nb} \(in brackets\)`}},
	} {
		e := newEraseCase(t, c.certificate)
		code, out, errs := e.run(append([]string{"report", "c.json", "--pdf"}, c.args...)...)
		if code != 0 || errs != "" {
			t.Fatalf("%s: status %d: %s", name, code, errs)
		}
		words, pages := pdfText(t, []byte(out))
		if pages < c.least {
			t.Errorf("%s: %d pages, want %d", name, pages, c.least)
		}
		for _, s := range append(c.says, fmt.Sprintf("page 1 of %d", pages), fmt.Sprintf("page %d of %d", pages, pages)) {
			if !strings.Contains(words, s) {
				t.Errorf("%s: the document does not say %q:\n%s", name, s, words)
			}
		}
		if _, again, _ := e.run(append([]string{"report", "c.json", "--pdf"}, c.args...)...); again != out {
			t.Errorf("%s: another document for the same certificate", name)
		}
	}
	e := newEraseCase(t, certificate())
	for _, args := range [][]string{{"report", "c.json"}, {"report", "c.json", "--pdf", "--html"}} {
		if code, out, errs := e.run(args...); code != 2 || out != "" || !strings.Contains(errs, "--html or --pdf") {
			t.Errorf("%v: status %d: %s", args, code, errs)
		}
	}
}
