package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/forge/tool"
	"gprovision/model/fault"
	"gprovision/model/release"
)

// xzSource returns the directory of the test files of xz's authors, from Debian's source package, kept in the user's cache. It
// comes from the host's own package sources, and nothing of the host's apt is changed.
func xzSource(t *testing.T) string {
	t.Helper()
	needs(t, false, "apt-get", "dpkg-source", "tar", "xz")
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "gprovision", "xz-utils-source")
	files := filepath.Join(dir, "tests", "files")
	if list, err := filepath.Glob(filepath.Join(files, "*.xz")); err == nil && len(list) > 0 {
		return files
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := fetchSource(ctx, t.TempDir(), dir); err != nil {
		skip(t, err.Error())
	}
	return files
}

// fetchSource downloads and unpacks the source package. An earlier failure leaves nothing behind.
func fetchSource(ctx context.Context, work, dir string) error {
	lists, err := filepath.Glob("/etc/apt/sources.list.d/*")
	if err != nil {
		return err
	}
	// The host's sources with the word for source packages, where they are Debian's.
	oneLine := regexp.MustCompile(`(?m)^deb\s`)
	types := regexp.MustCompile(`(?m)^Types:.*$`)
	for i, f := range append(lists, "/etc/apt/sources.list") {
		b, err := os.ReadFile(f)
		if err != nil || !bytes.Contains(b, []byte("debian")) || bytes.Contains(b, []byte("-security main")) && filepath.Ext(f) == ".list" {
			continue
		}
		b = types.ReplaceAll(oneLine.ReplaceAll(b, []byte("deb-src ")), []byte("Types: deb-src"))
		if err := os.WriteFile(filepath.Join(work, fmt.Sprintf("%d%s", i, filepath.Ext(f))), b, 0o644); err != nil {
			return err
		}
	}
	for _, d := range []string{"state/lists/partial", "cache/archives/partial", "src"} {
		if err := os.MkdirAll(filepath.Join(work, d), 0o755); err != nil {
			return err
		}
	}
	options := []string{"-q", "-o", "Dir::Etc::sourcelist=/dev/null", "-o", "Dir::Etc::sourceparts=" + work, "-o", "Dir::State::lists=" + work + "/state/lists",
		"-o", "Dir::Cache=" + work + "/cache", "-o", "APT::Sandbox::User=", "-o", "Acquire::Languages=none", "-o", "Acquire::IndexTargets::deb-src::Contents-dsc::DefaultEnabled=false"}
	for _, verb := range [][]string{{"update"}, {"source", "--download-only", "xz-utils"}} {
		cmd := exec.CommandContext(ctx, "apt-get", append(options, verb...)...)
		cmd.Dir = filepath.Join(work, "src")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w: %.500s", verb[0], err, out)
		}
	}
	dsc, err := filepath.Glob(filepath.Join(work, "src", "*.dsc"))
	if err != nil || len(dsc) == 0 {
		return errors.New("apt-get source brought nothing")
	}
	out := filepath.Join(work, "unpacked")
	if b, err := exec.CommandContext(ctx, "dpkg-source", "--no-check", "-x", dsc[0], out).CombinedOutput(); err != nil {
		return fmt.Errorf("dpkg-source: %w: %.500s", err, b)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	os.RemoveAll(dir)
	return os.CopyFS(dir, os.DirFS(out))
}

// TestFilesOfXZ: what xz's authors ship as bad is refused, and what they ship as good is read if it is checked by SHA-256. Most of
// the files have other checks: they are refused for that alone, so the same blocks are tried under a header for SHA-256 in
// TestFilesOfXZWithSHA256.
func TestFilesOfXZ(t *testing.T) {
	dir := xzSource(t)
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, e := range list {
		kind, _, _ := strings.Cut(e.Name(), "-")
		if kind == "README" || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(b)
		switch {
		case err == nil && kind == "bad":
			t.Errorf("%s was accepted", e.Name())
		case err == nil:
			counts["accepted"]++
			want, xzErr := exec.Command("xz", "-dc", "--single-stream", filepath.Join(dir, e.Name())).Output()
			if all, allErr := exec.Command("xz", "-dc", filepath.Join(dir, e.Name())).Output(); allErr == nil {
				want, xzErr = all, nil
			}
			if xzErr != nil || !bytes.Equal(want, got) {
				t.Errorf("%s: %d bytes, xz has %d, %v", e.Name(), len(got), len(want), xzErr)
			}
		case errors.Is(err, release.ErrNotSHA256):
			counts["other check"]++
		case errors.Is(err, release.ErrNotXZ):
			counts["not xz"]++
		case errors.Is(err, release.ErrDamaged) && kind == "good" && strings.Contains(e.Name(), "sha256"):
			t.Errorf("%s: %v", e.Name(), err)
		case errors.Is(err, release.ErrDamaged):
			counts["damaged"]++
		default:
			t.Errorf("%s: %v", e.Name(), err)
		}
	}
	t.Logf("%v", counts)
	if counts["accepted"] == 0 || len(list) < 50 {
		t.Errorf("%d files, %v: these are not the files that were meant", len(list), counts)
	}
}

// TestFilesOfXZWithSHA256 gives the content of each good file another check by xz itself, and reads that; then it changes the
// result in each way in which the bad files are bad: a flipped bit anywhere, an end anywhere.
func TestFilesOfXZWithSHA256(t *testing.T) {
	dir := xzSource(t)
	list, err := filepath.Glob(filepath.Join(dir, "good-*.xz"))
	if err != nil || len(list) == 0 {
		t.Fatalf("%d files, %v", len(list), err)
	}
	tried := 0
	for _, f := range list {
		plain, err := exec.Command("xz", "-dc", f).Output()
		if err != nil || len(plain) > 4000 {
			continue
		}
		cmd := exec.Command("xz", "-zc", "--check=sha256", "--block-size=300")
		cmd.Stdin = bytes.NewReader(plain)
		packed, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decode(packed); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: %d bytes, want %d, %v", f, len(got), len(plain), err)
		}
		if tried++; tried > 3 {
			continue
		}
		for i := range packed {
			changed := bytes.Clone(packed)
			changed[i] ^= 1 << (i % 8)
			if _, err := decode(changed); err == nil {
				t.Errorf("%s: byte %d of %d flipped was accepted", f, i, len(packed))
			}
			if _, err := decode(packed[:i]); err == nil {
				t.Errorf("%s: cut at byte %d was accepted", f, i)
			}
		}
	}
	if tried == 0 {
		t.Error("nothing was tried")
	}
}

// TestFilesOfXZConverted puts the blocks of each file into our format, under a SHA-256 check, as they are: the headers and the
// data inside are what is good or bad about most files. Those without a readable index are left out.
func TestFilesOfXZConverted(t *testing.T) {
	dir := xzSource(t)
	list, err := filepath.Glob(filepath.Join(dir, "*.xz"))
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, f := range list {
		base := filepath.Base(f)
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := exec.Command("xz", "-dc", f).Output()
		if err != nil {
			plain = nil
		}
		converted, ok := convert(b, plain)
		if !ok {
			counts["left out"]++
			continue
		}
		got, err := decode(converted)
		switch {
		case strings.HasPrefix(base, "bad-") || strings.HasPrefix(base, "unsupported-"):
			if err == nil {
				t.Errorf("%s was accepted", base)
			} else if !errors.Is(err, release.ErrDamaged) {
				t.Errorf("%s: %v", base, err)
			}
			counts["refused"]++
		case err != nil:
			// A filter that images do not have may be refused, if it is said.
			if xz := exec.Command("xz", "-dc"); true {
				xz.Stdin = bytes.NewReader(converted)
				if out, xzErr := xz.Output(); xzErr == nil && !strings.Contains(base, "arm64") {
					t.Errorf("%s: %v, and xz reads %d bytes", base, err, len(out))
				}
			}
			counts["good, refused"]++
		case !bytes.Equal(got, plain):
			t.Errorf("%s: %d bytes, want %d", base, len(got), len(plain))
		default:
			counts["good, accepted"]++
		}
	}
	t.Logf("%v", counts)
	if counts["refused"] < 10 || counts["good, accepted"] < 10 {
		t.Errorf("%v: too few to say anything", counts)
	}
}

// convert changes the check of an xz file of one stream to SHA-256. It reads the index, and takes the blocks as they are. Format:
// https://tukaani.org/xz/xz-file-format.txt.
func convert(b, plain []byte) ([]byte, bool) {
	if len(b) < 32 || !bytes.HasPrefix(b, []byte("\xfd7zXZ\x00")) || b[7] > 15 {
		return nil, false
	}
	oldCheck := []int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[b[7]]
	back := (int(binary.LittleEndian.Uint32(b[len(b)-8:])) + 1) * 4
	at := len(b) - 12 - back
	if string(b[len(b)-2:]) != "YZ" || at < 12 || b[at] != 0 {
		return nil, false
	}
	number := func(b []byte) (n, used int) {
		for i := 0; i < len(b) && i < 9; i++ {
			n |= int(b[i]&0x7f) << (7 * i)
			if b[i]&0x80 == 0 {
				return n, i + 1
			}
		}
		return 0, 0
	}
	put := func(b []byte, n int) []byte {
		for ; n >= 0x80; n >>= 7 {
			b = append(b, byte(n)|0x80)
		}
		return append(b, byte(n))
	}
	rest := b[at+1 : len(b)-12]
	count, used := number(rest)
	if used == 0 || count > 100 {
		return nil, false
	}
	rest = rest[used:]
	flags := []byte{0, 0x0a}
	out := binary.LittleEndian.AppendUint32(append([]byte("\xfd7zXZ\x00"), flags...), crc32.ChecksumIEEE(flags))
	index := put([]byte{0}, count)
	from := 12
	for range count {
		unpadded, n := number(rest)
		size, m := number(rest[n:])
		body := unpadded - oldCheck
		padded := (unpadded + 3) &^ 3
		if n == 0 || m == 0 || body < 9 || from+padded > at || size > 1<<20 {
			return nil, false
		}
		rest = rest[n+m:]
		out = append(out, b[from:from+body]...)
		for len(out)%4 != 0 {
			out = append(out, 0)
		}
		sum := sha256.Sum256(plain[:min(size, len(plain))])
		plain = plain[min(size, len(plain)):]
		out = append(out, sum[:]...)
		index = put(put(index, body+32), size)
		from += padded
	}
	if from != at {
		return nil, false
	}
	for len(index)%4 != 0 {
		index = append(index, 0)
	}
	index = binary.LittleEndian.AppendUint32(index, crc32.ChecksumIEEE(index))
	foot := append(binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1)), flags...)
	out = append(out, index...)
	out = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(foot))
	return append(append(out, foot...), "YZ"...), true
}

// decode reads a stream as a restore does.
func decode(b []byte) ([]byte, error) {
	r, err := release.NewReader(context.Background(), bytes.NewReader(b), int64(len(b)), 2)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	// A bomb among them would be found by its length.
	return io.ReadAll(io.LimitReader(r, 64<<20))
}

// TestLargeFiles: a file over 8 GiB and one of a tebibyte, both nearly all holes, and names of 255 bytes. Nothing of this may
// take long.
func TestLargeFiles(t *testing.T) {
	needs(t, false, "xz", "tar")
	src := t.TempDir()
	long := strings.Repeat("n", 255)
	if err := os.Mkdir(filepath.Join(src, long), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, long, long), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(long+"/"+long, filepath.Join(src, "link")); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int64{"nine": 9 << 30, "tera": 1 << 40} {
		f, err := os.Create(filepath.Join(src, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int64{0, size / 2, size - 3} {
			if _, err := f.WriteAt([]byte("mid"), at); err != nil {
				if errors.Is(err, unix.EFBIG) {
					skip(t, fmt.Sprintf("the filesystem of the test's directory has no files of %d bytes", size))
				}
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	out := t.TempDir()
	build := func(in string, n int) Result {
		t.Helper()
		res, err := Build(context.Background(), nil, Options{RootFS: in, Out: out, Name: name(t, n), Time: buildTime, Preset: "0", AllowIncomplete: true, Source: "x"})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	res := build(src, 1)
	if res.Meta.Bytes != 9<<30+1<<40+1 || res.Decoded > 1<<20 {
		t.Errorf("%d bytes of files, %d of tar", res.Meta.Bytes, res.Decoded)
	}
	if _, err := Verify(context.Background(), res.File, CheckOptions{}); err != nil {
		t.Error(err)
	}
	// The other forms of sparse files.
	for i, args := range [][]string{{"--format=gnu"}, {"--format=posix", "--sparse-version=0.0"}, {"--format=posix", "--sparse-version=0.1"}} {
		file := filepath.Join(t.TempDir(), "x.tar")
		if err := tool.Run(context.Background(), nil, tool.Command{Name: "tar", Args: append(args, "--sparse", "-cf", file, "-C", src, ".")}); err != nil {
			t.Fatal(err)
		}
		res := build(file, i+2)
		if _, err := Verify(context.Background(), res.File, CheckOptions{}); err != nil || res.Meta.Bytes != 9<<30+1<<40+1 {
			t.Errorf("%v: %d bytes, %v", args, res.Meta.Bytes, err)
		}
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	listing, err := exec.Command("sh", "-c", `xz -dc "$1" | tar tvf -`, "-", res.File).CombinedOutput()
	if err != nil || !strings.Contains(string(listing), " 1099511627776 ") || !strings.Contains(string(listing), long+"/"+long) {
		t.Errorf("%v: %s", err, listing)
	}
}

// TestBomb: an image whose imgmeta.json promises less than is inside, and one that has more inside than there is space.
func TestBomb(t *testing.T) {
	needs(t, false, "xz")
	dir := t.TempDir()
	make := func(n int, size int64, meta *release.Meta) string {
		t.Helper()
		pr, pw := io.Pipe()
		go func() {
			w := tar.NewWriter(pw)
			if meta != nil {
				b, err := meta.Marshal()
				if err != nil {
					pw.CloseWithError(err)
				}
				w.WriteHeader(&tar.Header{Name: release.MetaPath, Typeflag: tar.TypeReg, Size: int64(len(b))})
				w.Write(b)
			}
			w.WriteHeader(&tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Size: size})
			io.CopyN(w, zeros{}, size)
			pw.CloseWithError(w.Close())
		}()
		file := filepath.Join(dir, name(t, n).String())
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := tool.Run(context.Background(), nil, tool.Command{Name: "xz", Args: []string{"-0", "-T2", "--check=sha256", "-c"}, Stdin: pr, Stdout: f}); err != nil {
			t.Fatal(err)
		}
		return file
	}
	promised := release.Meta{Version: 1, Name: name(t, 1).Base(), Build: 1, Entries: 1, Bytes: 1000}
	file := make(1, 32<<20, &promised)
	into := filepath.Join(dir, "into")
	if _, err := Extract(context.Background(), file, into, CheckOptions{}); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("extract says %v", err)
	}
	if st, err := os.Stat(filepath.Join(into, "zeros")); err == nil && st.Size() > 0 {
		t.Errorf("%d bytes were written", st.Size())
	}
	if _, err := Verify(context.Background(), file, CheckOptions{}); fault.Of(err) != fault.ImageCorrupt {
		t.Errorf("verify says %v", err)
	}
	// The index says how much is inside, and every block is held against it: nothing needs to be decoded.
	if os.Geteuid() != 0 {
		return
	}
	small := filepath.Join(dir, "small")
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=16m"); err != nil {
		skip(t, fmt.Sprintf("mount a small filesystem: %v", err))
	}
	defer unix.Unmount(small, unix.MNT_DETACH)
	if _, err := Extract(context.Background(), make(2, 32<<20, nil), small, CheckOptions{}); !errors.Is(err, ErrNoSpace) {
		t.Errorf("extract into little space says %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestReplacedEntries: duplicate names, and a device, a link and a directory where a file was, outside and inside.
func TestReplacedEntries(t *testing.T) {
	needs(t, true, "xz")
	outside := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(outside, []byte("whole"), 0o600); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(h tar.Header, content string) {
		t.Helper()
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, content)
	}
	put(tar.Header{Name: "a", Typeflag: tar.TypeReg}, "1")
	put(tar.Header{Name: "a", Typeflag: tar.TypeReg}, "2")
	put(tar.Header{Name: "dev", Typeflag: tar.TypeReg}, "file")
	put(tar.Header{Name: "dev", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, "")
	put(tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: outside}, "")
	put(tar.Header{Name: "l", Typeflag: tar.TypeReg}, "mine")
	put(tar.Header{Name: "d", Typeflag: tar.TypeReg}, "file")
	put(tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, "")
	put(tar.Header{Name: "d/x", Typeflag: tar.TypeReg}, "deep")
	put(tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "a"}, "")
	w.Close()
	in := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(in, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	res, err := Build(context.Background(), nil, Options{RootFS: in, Out: t.TempDir(), Name: name(t, 1), Time: buildTime, Preset: "0", AllowIncomplete: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(context.Background(), res.File, CheckOptions{}); err != nil {
		t.Error(err)
	}
	into := t.TempDir()
	if _, err := Extract(context.Background(), res.File, into, CheckOptions{}); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[string]string{"a": "2", "l": "mine", "d/x": "deep", "h": "2"} {
		if got, err := os.ReadFile(filepath.Join(into, n)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", n, got, err)
		}
	}
	if st, err := os.Lstat(filepath.Join(into, "dev")); err != nil || st.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("dev: %v, %v", st, err)
	}
	if got, err := os.ReadFile(outside); err != nil || string(got) != "whole" {
		t.Errorf("outside: %q, %v", got, err)
	}
}

// TestReproducible builds with one CPU and with all of them, in processes of their own: the bytes are the same.
func TestReproducible(t *testing.T) {
	if at := os.Getenv("GPROV_TEST_BUILD"); at != "" {
		in, out, _ := strings.Cut(at, ":")
		res, err := Build(context.Background(), nil, Options{RootFS: in, Out: out, Name: name(t, 1), Time: buildTime, Clamp: buildTime, Preset: "1", BlockSize: 256 << 10})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("CPUs %d, blocks %d\n", runtime.NumCPU(), res.Blocks)
		return
	}
	needs(t, false, "xz", "tar", "taskset")
	files := goodFiles(t)
	var text strings.Builder
	for i := range 200_000 {
		fmt.Fprintf(&text, "line %d of a text %x\n", i, i*i*2654435761)
	}
	files["usr/share/text"] = text.String()
	first, second := writeTree(t, files), writeTree(t, files)
	// Newer than SOURCE_DATE_EPOCH, and not the same in both.
	if err := os.Chtimes(filepath.Join(second, "usr/share/text"), time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(first, "usr/share/text"), time.Now().Add(-time.Minute), time.Now().Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The source's name is in imgmeta.json.
	same := filepath.Join(t.TempDir(), "root")
	var want, wantSBOM []byte
	for i, args := range [][]string{{"taskset", "-c", "0", self}, {self}, {"env", "GOMAXPROCS=1", self}, {"env", "GOMAXPROCS=8", self}} {
		out := t.TempDir()
		os.Remove(same)
		if err := os.Symlink([]string{first, second}[i%2], same); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(args[0], append(args[1:], "-test.run=^TestReproducible$", "-test.v")...)
		cmd.Env = append(os.Environ(), "GPROV_TEST_BUILD="+same+":"+out, "TMPDIR="+t.TempDir())
		log, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, log)
		}
		got, err := os.ReadFile(filepath.Join(out, name(t, 1).String()))
		if err != nil {
			t.Fatal(err)
		}
		sbom, err := os.ReadFile(filepath.Join(out, name(t, 1).String()+SBOMSuffix))
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want, wantSBOM = got, sbom
		}
		if !bytes.Equal(got, want) || !bytes.Equal(sbom, wantSBOM) {
			t.Errorf("%v: other bytes, %d and %d\n%s", args, len(got), len(want), log)
		}
	}
}
