package edit

import (
	"archive/tar"
	"bytes"
	"io"
	"testing"
	"testing/fstest"
)

func TestApply(t *testing.T) {
	base := []byte("0123456789abcdef")
	for _, tt := range []struct {
		script []byte
		want   string
	}{
		{nil, "0123456789abcdef"},
		{[]byte{0, 0, 0}, "0123456789abcdef"},
		{[]byte{0, 0, 0, 2, 'x', 0}, "01x3456789abcdef"},
		{[]byte{1, 0, 0, 18, 1, 0}, "0133456789abcdef"}, // the place counts modulo the length
		{[]byte{2, 0, 0, 14, 21, 0}, "0123456789abcd\xff\xff"},
		{[]byte{3, 0, 0, 0, 1, 0}, "\x00\x00\x00\x01456789abcdef"},
		{[]byte{4, 0, 0, 8, 0, 0}, "01234567\x00\x00\x00\x00\x00\x00\x00\x00"},
		{[]byte{5, 0, 0, 1, 4, 4}, "00010" + "56789abcdef"},
		{[]byte{6, 0, 0, 3, 0, 0}, "012"},
		{[]byte{7, 0, 0, 1, 1, 10}, "0bcdef"},
		{[]byte{8, 0, 0, 1, 1, 2}, "012123456789abcdef"},
		{[]byte{6, 0, 0, 3, 0, 0, 0, 0, 0, 4, 'y', 0}, "0y2"},
		{[]byte{6, 0, 0, 0, 0, 0, 0, 0, 0, 4, 'y', 0}, "y"},
	} {
		if got := string(Apply(base, tt.script)); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.script, got, tt.want)
		}
	}
	if string(base) != "0123456789abcdef" {
		t.Errorf("the original was changed: %q", base)
	}
	for _, s := range Scripts() {
		Apply(base, s)
		Apply(nil, s)
	}
}

func TestTarSums(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "name", Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	b.Bytes()[0] = 'N'
	if _, err := tar.NewReader(bytes.NewReader(b.Bytes())).Next(); err == nil {
		t.Fatal("a wrong sum is accepted")
	}
	if h, err := tar.NewReader(bytes.NewReader(TarSums(b.Bytes()))).Next(); err != nil || h.Name != "Name" {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := io.ReadAll(bytes.NewReader(TarSums(nil))); err != nil {
		t.Error(err)
	}
}

func TestBases(t *testing.T) {
	dir := fstest.MapFS{"a": {Data: []byte("go test fuzz v1\n[]byte(\"x\\x00\\\"y\")\n")}, "b": {Data: []byte("go test fuzz v1\n[]byte(\"\")\n")}}
	got, err := Bases(dir)
	if err != nil || len(got) != 2 || string(got[0]) != "x\x00\"y" || len(got[1]) != 0 {
		t.Errorf("%q, %v", got, err)
	}
	dir["c"] = &fstest.MapFile{Data: []byte("go test fuzz v1\nuint8(1)\n")}
	if _, err := Bases(dir); err == nil {
		t.Error("another form is accepted")
	}
}
