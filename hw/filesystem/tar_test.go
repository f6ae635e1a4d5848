package filesystem

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/model/edit"
)

// sparseTar returns what GNU tar makes of a sparse file with the parts of script: "truncate -s 1T f".
func sparseTar(t testing.TB, script string, args ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	script = `set -e; cd "$1"; shift; ` + script + `; exec tar --numeric-owner --sort=name -cf - "$@" .`
	b, err := exec.Command("bash", append([]string{"-c", script, "-", dir}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestUnpackTerabyte unpacks files of a terabyte with some bytes at the beginning, in the middle and at the end: in seconds.
func TestUnpackTerabyte(t *testing.T) {
	unpackNeeds(t, true, "tar", "bash")
	const script = `truncate -s 1T big; printf begin | dd of=big conv=notrunc status=none; ` +
		`printf middle | dd of=big bs=1 seek=500000000000 conv=notrunc status=none; printf end | dd of=big bs=1 seek=1099511627773 conv=notrunc status=none; ` +
		`truncate -s 1T hole; for i in 1 2 3 4 5 6 7 8 9; do printf x$i | dd of=many bs=1 seek=${i}0000000000 conv=notrunc status=none; done`
	for name, args := range map[string][]string{
		"1.0": {"--format=posix", "--sparse"}, "0.1": {"--format=posix", "--sparse", "--sparse-version=0.1"},
		"0.0": {"--format=posix", "--sparse", "--sparse-version=0.0"}, "old": {"--format=gnu", "--sparse"},
	} {
		t.Run(name, func(t *testing.T) {
			archive := sparseTar(t, script, args...)
			target := t.TempDir()
			began := time.Now()
			s, err := Unpack(context.Background(), target, bytes.NewReader(archive), UnpackOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if d := time.Since(began); d > 10*time.Second {
				t.Errorf("it took %v", d)
			}
			if want := int64(2<<40 + 90000000002); s.Bytes != want || s.Files != 3 {
				t.Errorf("%d files of %d bytes, want 3 of %d", s.Files, s.Bytes, want)
			}
			for _, c := range []struct {
				file string
				size int64
				at   int64
				text string
			}{
				{"big", 1 << 40, 0, "begin\x00"}, {"big", 1 << 40, 500000000000, "middle\x00"}, {"big", 1 << 40, 1<<40 - 4, "\x00end"},
				{"hole", 1 << 40, 1 << 39, "\x00\x00"}, {"many", 90000000002, 70000000000, "x7\x00"}, {"many", 90000000002, 90000000000, "x9"},
			} {
				f, err := os.Open(filepath.Join(target, c.file))
				if err != nil {
					t.Fatal(err)
				}
				b := make([]byte, len(c.text))
				_, err = f.ReadAt(b, c.at)
				var st unix.Stat_t
				if err := errors.Join(err, unix.Fstat(int(f.Fd()), &st), f.Close()); err != nil {
					t.Fatal(err)
				}
				if string(b) != c.text || st.Size != c.size || st.Blocks > 1000 {
					t.Errorf("%s at %d: %q, want %q; %d bytes in %d sectors", c.file, c.at, b, c.text, st.Size, st.Blocks)
				}
			}
			_, err = Unpack(context.Background(), t.TempDir(), bytes.NewReader(archive), UnpackOptions{MaxBytes: 1 << 30})
			if err == nil || !strings.Contains(err.Error(), "more than") {
				t.Errorf("with a limit of 1 GiB: %v", err)
			}
		})
	}
}

// listing describes what a walk over an archive finds. Of each file some bytes are read, so that nothing takes long.
func listing(h *tar.Header, content io.Reader) string {
	var first bytes.Buffer
	_, err := io.CopyN(&first, content, 100_000)
	if err == io.EOF {
		err = nil
	}
	return fmt.Sprintf("%q %c %d %o %d:%d %v %q %q %x %v\n", h.Name, h.Typeflag, h.Size, h.Mode, h.Uid, h.Gid, h.ModTime, h.Linkname,
		h.PAXRecords["SCHILY.xattr.user.x"], sha256.Sum256(first.Bytes()), err != nil)
}

// theirs is the same walk with archive/tar alone.
func theirs(b []byte) (string, error) {
	var out strings.Builder
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return out.String(), nil
		}
		if err != nil {
			return out.String(), err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		out.WriteString(listing(h, r))
	}
}

func ours(b []byte) (string, error) {
	var out strings.Builder
	w := NewTarReader(bytes.NewReader(b))
	for {
		h, content, err := w.Next()
		if err == io.EOF {
			return out.String(), nil
		}
		if err != nil {
			return out.String(), err
		}
		out.WriteString(listing(h, content))
	}
}

func TestWalkTarAgainstArchiveTar(t *testing.T) {
	unpackNeeds(t, false, "tar", "bash")
	const script = `truncate -s 3M a; printf x | dd of=a bs=1 seek=2000000 conv=notrunc status=none; echo plain > b; mkdir d; ln -s x l; ln b c; ` +
		`n=$(printf 'n%.0s' $(seq 180)); mkdir $n; echo x > $n/$n; truncate -s 1M $n/hole`
	for _, args := range [][]string{
		{"--format=posix", "--sparse"}, {"--format=posix", "--sparse", "--sparse-version=0.0"}, {"--format=posix", "--sparse", "--sparse-version=0.1"},
		{"--format=gnu", "--sparse"}, {"--format=gnu"}, {"--format=posix", "--pax-option=globexthdr.name=g,comment=x"},
	} {
		b := sparseTar(t, script, args...)
		want, err := theirs(b)
		if err != nil || want == "" {
			t.Fatal(err)
		}
		if got, err := ours(b); err != nil || got != want {
			t.Errorf("%v: %v\n%s\nwant\n%s", args, err, got, want)
		}
		for n := 0; n < len(b); n += len(b)/150 | 1 { // cut anywhere
			_, want := theirs(b[:n])
			if _, err := ours(b[:n]); err == nil && want != nil {
				t.Errorf("%v, cut to %d bytes: no error, archive/tar: %v", args, n, want)
			}
		}
	}
}

// FuzzWalkTar compares with archive/tar. To be stricter is allowed.
func FuzzWalkTar(f *testing.F) {
	good := [][]byte{tarArchive(f, tarFile("a", "1"), tarSym("b", "/"), tarHard("c", "a"), tarDir("d/"), tarFile("d/e", "2"))}
	for _, args := range [][]string{{"--format=posix", "--sparse"}, {"--format=posix", "--sparse", "--sparse-version=0.0"}, {"--format=gnu", "--sparse"}} {
		good = append(good, sparseTar(f, `truncate -s 300K a; printf x | dd of=a bs=1 seek=200000 conv=notrunc status=none`, args...))
	}
	more, err := edit.Bases(os.DirFS("testdata/walktar"))
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
		b := edit.Tar(good[int(which)%len(good)], script)
		got, err := ours(b)
		if err != nil {
			return
		}
		want, err := theirs(b)
		if err != nil || got != want {
			t.Errorf("we find\n%s\narchive/tar\n%s%v", got, want, err)
		}
	})
}

// TestTarFormats: all formats of GNU tar are known by their first block, and what is wrong with a sparse file names it.
func TestTarFormats(t *testing.T) {
	for _, format := range []string{"v7", "ustar", "oldgnu", "gnu", "posix"} {
		b := sparseTar(t, "mkdir d; echo x > d/file", "--format="+format)
		if !IsTar(b) {
			t.Errorf("%s is not known", format)
		}
		if got, err := ours(b); err != nil || !strings.Contains(got, "file") {
			t.Errorf("%s: %s, %v", format, got, err)
		}
	}
	if IsTar([]byte(strings.Repeat("x", 512))) || IsTar(nil) {
		t.Error("text is no tar")
	}
	// A file of too many parts, in the form 1.0, whose map says so first.
	var b bytes.Buffer
	head := &tar.Header{Name: "d/GNUSparseFile.7/disk", Typeflag: tar.TypeReg, Size: 512, PAXRecords: map[string]string{
		hidden + "major": "1", hidden + "minor": "0", hidden + "name": "d/disk", hidden + "realsize": "1000000"}}
	if err := tar.NewWriter(&b).WriteHeader(head); err != nil {
		t.Fatal(err)
	}
	if err := showSparse(b.Bytes()); err != nil {
		t.Fatal(err)
	}
	b.WriteString("300000\n0\n1\n")
	b.Write(make([]byte, 2000))
	if _, err := ours(b.Bytes()); err == nil || !strings.Contains(err.Error(), `"d/disk"`) || !strings.Contains(err.Error(), "300000 parts, too many") {
		t.Error(err)
	}
}
