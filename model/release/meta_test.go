package release

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"gprovision/model/edit"
)

func tarOf(t testing.TB, entries ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		name, content, file := strings.Cut(e, "=")
		h := &tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}
		if file {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(content))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestMeta(t *testing.T) {
	m := Meta{BinVer: "1", ImgName: "x.upd", Version: MetaVersion, Name: prefix + "2026-11-22.0007", Build: 7, Time: time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC),
		Source: "rootfs.tar", BootBuild: 300, Entries: 5, Bytes: 6, Packages: Packages{1, "ab"}}
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range [][]byte{
		tarOf(t, MetaPath+"="+string(b), "etc/"),
		tarOf(t, "./", "./etc/", "./"+MetaPath+"="+string(b)),
		tarOf(t, "other/"+MetaPath+"="+string(b)),
	} {
		got, err := ReadMeta(bytes.NewReader(file))
		if err != nil || fmt.Sprint(got) != fmt.Sprint(m) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	// The end of what is searched is inside of what says how long the name of a directory is.
	long := []string{"a/", "b/"}
	for i := range 600 {
		long = append(long, fmt.Sprint(i, strings.Repeat("ü", 300), "/"))
	}
	far := make([]string, 0, 3000)
	for i := range 3000 {
		far = append(far, fmt.Sprintf("d%d/", i))
	}
	for _, file := range [][]byte{
		tarOf(t, "bin/x=y", MetaPath+"="+string(b)),
		tarOf(t, "etc/"),
		tarOf(t, "x"+MetaPath+"="+string(b)),
		tarOf(t, append(far, MetaPath+"={}")...),
		tarOf(t, append(long, MetaPath+"={}")...),
		tarOf(t, MetaPath+"="+strings.Repeat(" ", maxMeta+1)),
		nil,
	} {
		if _, err := ReadMeta(bytes.NewReader(file)); !errors.Is(err, ErrNoMeta) {
			t.Errorf("got %v", err)
		}
	}
	for _, file := range [][]byte{tarOf(t, MetaPath+"={"), tarOf(t, MetaPath+`={"version":99}`), []byte(strings.Repeat("x", 2000))} {
		if _, err := ReadMeta(bytes.NewReader(file)); err == nil || errors.Is(err, ErrNoMeta) {
			t.Errorf("got %v", err)
		}
	}
	n, _ := ParseName(m.Name+Suffix, prefix)
	if err := m.CheckName(n); err != nil {
		t.Error(err)
	}
	other := m
	other.Build++
	if err := other.CheckName(n); !errors.Is(err, ErrRenamed) {
		t.Errorf("of another build: %v", err)
	}
	n.Build++
	if err := m.CheckName(n); !errors.Is(err, ErrRenamed) {
		t.Errorf("renamed: %v", err)
	}
	if err := (Meta{ImgName: "x"}).CheckName(n); err != nil {
		t.Errorf("original image: %v", err)
	}
}

// TestJudged: what an image needs is believed only if all of it is said, in a version that says it.
func TestJudged(t *testing.T) {
	for text, want := range map[string]bool{`{"version":1,"inodes":1,"blocks":1}`: true, `{"version":1,"inodes":1}`: false,
		`{"version":1,"blocks":1}`: false, `{"inodes":1,"blocks":1}`: false, `{"version":1,"inodes":-1,"blocks":1}`: false,
		"{}" + strings.Repeat(" ", maxMeta-2): false} {
		if m, err := ParseMeta([]byte(text)); err != nil || m.Judged() != want {
			t.Errorf("%.60s: %+v, %v", text, m, err)
		}
	}
	for _, text := range []string{"{}" + strings.Repeat(" ", maxMeta-1), `{"version":-1}`, `{"version":2}`, `{"version":"1"}`} {
		if _, err := ParseMeta([]byte(text)); err == nil {
			t.Errorf("accepted: %.60s", text)
		}
	}
	for bytes, want := range map[int64]int64{0: maxMeta, -5: maxMeta, 7: maxMeta + 7, math.MaxInt64: math.MaxInt64} {
		if got := (Meta{Version: 1, Bytes: bytes}).MaxBytes(); got != want {
			t.Errorf("of %d bytes: at most %d, want %d", bytes, got, want)
		}
	}
	if got := (Meta{Bytes: 5}).MaxBytes(); got != 0 {
		t.Errorf("of the original system: at most %d", got)
	}
}

func FuzzReadMeta(f *testing.F) {
	good := [][]byte{tarOf(f, MetaPath+`={"ImgName":"x","version":1}`), tarOf(f, "etc/", "x=y")}
	more, err := edit.Bases(os.DirFS("testdata/readmeta"))
	if err != nil {
		f.Fatal(err)
	}
	good = append(good, more...)
	for _, s := range edit.Scripts() {
		for i := range len(good) {
			f.Add(uint8(i), s)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, script []byte) {
		m, err := ReadMeta(bytes.NewReader(edit.Tar(good[int(which)%len(good)], script)))
		if err != nil {
			return
		}
		if _, err := m.Marshal(); err != nil && m.Time.Year() >= 0 && m.Time.Year() <= 9999 {
			t.Error(err)
		}
	})
}
