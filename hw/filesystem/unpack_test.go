package filesystem

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/model/edit"
)

// unpackNeeds skips without root or a program.
func unpackNeeds(t *testing.T, root bool, programs ...string) {
	t.Helper()
	why := ""
	if root && os.Geteuid() != 0 {
		why = "needs root"
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			why = "program " + p + " is missing"
		}
	}
	if why == "" {
		return
	}
	if os.Getenv("GPROV_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// tarItem is one entry of a made archive.
type tarItem struct {
	tar.Header
	content string
}

func tarFile(name, content string) tarItem {
	return tarItem{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, content}
}
func tarDir(name string) tarItem {
	return tarItem{Header: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}}
}
func tarSym(name, to string) tarItem {
	return tarItem{Header: tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to, Mode: 0o777}}
}
func tarHard(name, to string) tarItem {
	return tarItem{Header: tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to, Mode: 0o644}}
}
func tarNode(name string, kind byte) tarItem {
	return tarItem{Header: tar.Header{Name: name, Typeflag: kind, Mode: 0o600, Devmajor: 1, Devminor: 3}}
}

func tarArchive(t testing.TB, items ...tarItem) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		h := i.Header
		h.Size = int64(len(i.content))
		h.Uid, h.Gid = os.Geteuid(), os.Getegid()
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1_700_000_000, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, i.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUnpackHostile(t *testing.T) {
	tests := []struct {
		name  string
		items []tarItem
		want  error  // nil: any error, if ok is false
		ok    bool   // unpacks
		tree  string // what is inside then
	}{
		{"parent", []tarItem{tarFile("../x", "bad")}, ErrUnsafe, false, ""},
		{"parent inside", []tarItem{tarDir("a/"), tarFile("a/../../x", "bad")}, ErrUnsafe, false, ""},
		{"parent that stays inside", []tarItem{tarDir("a/"), tarFile("a/../x", "bad")}, ErrUnsafe, false, ""},
		{"absolute", []tarItem{tarFile("/x", "bad")}, ErrUnsafe, false, ""},
		{"link to parent, then a file through it", []tarItem{tarSym("a", ".."), tarFile("a/x", "bad")}, ErrUnsafe, false, ""},
		{"absolute link, then a file through it", []tarItem{tarSym("a", "OUTSIDE"), tarFile("a/x", "bad")}, ErrUnsafe, false, ""},
		{"link inside, then a file through it", []tarItem{tarDir("b/"), tarSym("a", "b"), tarFile("a/x", "bad")}, ErrUnsafe, false, ""},
		{"link to link", []tarItem{tarSym("b", "OUTSIDE"), tarSym("a", "b"), tarFile("a/x", "bad")}, ErrUnsafe, false, ""},
		{"directory below a link", []tarItem{tarSym("a", "OUTSIDE"), tarDir("a/d/")}, ErrUnsafe, false, ""},
		{"link below a link", []tarItem{tarSym("a", "OUTSIDE"), tarSym("a/x", "y")}, ErrUnsafe, false, ""},
		{"hard link below a link", []tarItem{tarFile("f", "1"), tarSym("a", "OUTSIDE"), tarHard("a/x", "f")}, ErrUnsafe, false, ""},
		{"directory over a link", []tarItem{tarSym("a", "OUTSIDE"), tarDir("a/"), tarFile("a/x", "1")}, nil, true, "a/ a/x=1"},
		{"file over a link", []tarItem{tarSym("a", "OUTSIDE/victim"), tarFile("a", "1")}, nil, true, "a=1"},
		{"hard link to outside", []tarItem{tarHard("a", "../victim"), tarFile("a", "bad")}, ErrUnsafe, false, ""},
		{"hard link to absolute", []tarItem{tarHard("a", "OUTSIDE/victim"), tarFile("a", "bad")}, ErrUnsafe, false, ""},
		{"hard link through a link", []tarItem{tarSym("d", "OUTSIDE"), tarHard("a", "d/victim")}, ErrUnsafe, false, ""},
		{"hard link to a link", []tarItem{tarSym("l", "OUTSIDE/victim"), tarHard("a", "l"), tarFile("a", "1")}, nil, true, "a=1 l->OUTSIDE/victim"},
		{"hard link to nothing", []tarItem{tarHard("a", "b")}, nil, false, ""},
		{"hard link to a directory", []tarItem{tarDir("d/"), tarHard("a", "d")}, nil, false, ""},
		{"hard link to itself", []tarItem{tarFile("a", "1"), tarHard("a", "./a")}, nil, false, ""},
		{"hard link twice", []tarItem{tarFile("a", "1"), tarHard("b", "a"), tarHard("b", "a")}, nil, true, "a=1 b=1"},
		{"duplicate behind a hard link", []tarItem{tarFile("a", "1"), tarHard("b", "a"), tarFile("b", "2")}, nil, true, "a=1 b=2"},
		{"duplicate file", []tarItem{tarFile("a", "long content"), tarFile("a", "1")}, nil, true, "a=1"},
		{"file over an empty directory", []tarItem{tarDir("a/"), tarFile("a", "1")}, nil, true, "a=1"},
		{"file over a full directory", []tarItem{tarFile("a/x", "1"), tarFile("a", "1")}, nil, false, ""},
		{"file below a file", []tarItem{tarFile("a", "1"), tarFile("a/x", "1")}, nil, false, ""},
		{"FIFO over a file", []tarItem{tarFile("a", "1"), tarNode("a", tar.TypeFifo)}, nil, true, "a|"},
		{"file over a FIFO", []tarItem{tarNode("a", tar.TypeFifo), tarFile("a", "1")}, nil, true, "a=1"},
		{"target as a link", []tarItem{tarSym("./", "OUTSIDE")}, ErrUnsafe, false, ""},
		{"target as a directory", []tarItem{tarDir("./"), tarFile("./a", "1")}, nil, true, "a=1"},
		{"odd names", []tarItem{tarFile("./a//b/./c", "1"), tarFile("...", "2"), tarFile("a/..b", "3")}, nil, true, "...=2 a/ a/..b=3 a/b/ a/b/c=1"},
		{"directory that is replaced", []tarItem{tarDir("d/"), tarFile("d", "1")}, nil, true, "d=1"},
		{"directory that is replaced by a link", []tarItem{tarDir("d/"), tarSym("d", "OUTSIDE")}, nil, true, "d->OUTSIDE"},
		{"link to proc", []tarItem{tarSym("p", "/proc/self/root"), tarFile("p/tmp/x", "bad")}, ErrUnsafe, false, ""},
		{"empty", nil, nil, false, ""},
		{"attribute that no ext4 has", []tarItem{{tar.Header{Name: "a", Typeflag: tar.TypeReg, Mode: 0o644, PAXRecords: map[string]string{"SCHILY.xattr.com.apple.provenance": "x"}}, ""}}, nil, true, "a="},
		{"attribute that is too long", []tarItem{{tar.Header{Name: "a", Typeflag: tar.TypeReg, Mode: 0o644, PAXRecords: map[string]string{"SCHILY.xattr.user.note": strings.Repeat("a", 5000)}}, ""}}, nil, false, ""},
		{"long name", []tarItem{tarFile(strings.Repeat("n", 256), "")}, unix.ENAMETOOLONG, false, ""},
		{"wrong ACL", []tarItem{{tar.Header{Name: "a", Typeflag: tar.TypeReg, Mode: 0o644, PAXRecords: map[string]string{"SCHILY.acl.access": "user:nobody:rwx"}}, ""}}, nil, false, ""},
		{"unknown type", []tarItem{{tar.Header{Name: "a", Typeflag: 'M'}, ""}}, nil, false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			outside := t.TempDir()
			if err := os.WriteFile(filepath.Join(outside, "victim"), []byte("safe"), 0o600); err != nil {
				t.Fatal(err)
			}
			target := filepath.Join(outside, "target")
			if err := os.Mkdir(target, 0o755); err != nil {
				t.Fatal(err)
			}
			items := slices.Clone(tt.items)
			for i := range items {
				items[i].Linkname = strings.Replace(items[i].Linkname, "OUTSIDE", outside, 1)
			}
			file := tarArchive(t, items...)
			_, _, judged := JudgeTar(bytes.NewReader(file), 0)
			_, err := Unpack(context.Background(), target, bytes.NewReader(file), UnpackOptions{})
			if fmt.Sprint(judged) != fmt.Sprint(err) {
				t.Errorf("judged %v, unpacked %v", judged, err)
			}
			if (err == nil) != tt.ok || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("got %v", err)
			}
			if got := treeNames(t, target); tt.ok && strings.ReplaceAll(got, outside, "OUTSIDE") != tt.tree {
				t.Errorf("inside: %s\nwant %s", got, tt.tree)
			}
			os.RemoveAll(target)
			if got := treeNames(t, outside); got != "victim=safe" {
				t.Errorf("outside: %s", got)
			}
			if st, err := os.Stat(filepath.Join(outside, "victim")); err != nil || st.Mode() != 0o600 {
				t.Errorf("victim: %v, %v", st.Mode(), err)
			}
		})
	}
}

// treeNames lists a tree in one line.
func treeNames(t *testing.T, root string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, p)
		switch {
		case err != nil:
			return err
		case rel == ".":
		case e.IsDir():
			out = append(out, rel+"/")
		case e.Type() == fs.ModeSymlink:
			to, _ := os.Readlink(p)
			out = append(out, rel+"->"+to)
		case e.Type().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			out = append(out, rel+"="+string(b))
		default:
			out = append(out, rel+"|")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func TestUnpackMetadataWithoutPrivileges(t *testing.T) {
	when := time.Unix(1_600_000_000, 123_456_789)
	deep := tarItem{Header: tar.Header{Name: "locked/", Typeflag: tar.TypeDir, Mode: 0o500, ModTime: when, Format: tar.FormatPAX}}
	file := tarFile("locked/f", "hello")
	file.Mode, file.ModTime, file.Format = 0o4751, when, tar.FormatPAX
	file.PAXRecords = map[string]string{"SCHILY.xattr.user.a%3Db%25": "v\x00w"}
	link := tarSym("locked/s", "nowhere")
	link.ModTime, link.Format = when, tar.FormatPAX
	target := t.TempDir()
	old := unix.Umask(0o077)
	var calls []UnpackStats
	s, err := Unpack(context.Background(), target, bytes.NewReader(tarArchive(t, deep, file, link, tarFile("implied/x", "y"))),
		UnpackOptions{Sync: true, Progress: func(s UnpackStats) { calls = append(calls, s) }})
	unix.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	if s.Entries != 4 || s.Files != 2 || s.Bytes != 6 || s.Read == 0 || len(calls) == 0 || !reflect.DeepEqual(calls[len(calls)-1], s) {
		t.Errorf("stats %+v, calls %+v", s, calls)
	}
	for name, mode := range map[string]fs.FileMode{"locked": fs.ModeDir | 0o500, "locked/f": fs.ModeSetuid | 0o751, "implied": fs.ModeDir | 0o755, "implied/x": 0o644} {
		st, err := os.Lstat(filepath.Join(target, name))
		if err != nil || st.Mode() != mode {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	for _, name := range []string{"locked", "locked/f", "locked/s"} {
		if st, err := os.Lstat(filepath.Join(target, name)); err != nil || !st.ModTime().Equal(when) {
			t.Errorf("%s: %v, %v", name, st.ModTime(), err)
		}
	}
	var b [10]byte
	n, err := unix.Getxattr(filepath.Join(target, "locked/f"), "user.a=b%", b[:])
	if err != nil || string(b[:n]) != "v\x00w" {
		t.Errorf("attribute %q, %v", b[:max(n, 0)], err)
	}
	os.Chmod(filepath.Join(target, "locked"), 0o700)
}

func TestUnpackStreams(t *testing.T) {
	a, b := tarArchive(t, tarFile("a", "1")), tarArchive(t, tarFile("b", "2"))
	ctx := context.Background()
	run := func(r io.Reader, o UnpackOptions) (string, error) {
		dir := t.TempDir()
		_, err := Unpack(ctx, dir, r, o)
		return treeNames(t, dir), err
	}
	zeros := make([]byte, 10240)
	if got, err := run(io.MultiReader(bytes.NewReader(a), bytes.NewReader(zeros), bytes.NewReader(b)), UnpackOptions{}); err != nil || got != "a=1 b=2" {
		t.Errorf("joined archives: %s, %v", got, err)
	}
	if _, err := run(io.MultiReader(bytes.NewReader(a), strings.NewReader("garbage")), UnpackOptions{}); err == nil {
		t.Error("garbage behind the end")
	}
	if _, err := run(bytes.NewReader(a[:512]), UnpackOptions{}); err == nil {
		t.Error("cut archive")
	}
	boom := errors.New("boom")
	if _, err := run(io.MultiReader(bytes.NewReader(a), unpackFailing{boom}), UnpackOptions{}); !errors.Is(err, boom) {
		t.Errorf("an error behind the end of the archive: %v", err)
	}
	if _, err := run(bytes.NewReader(tarArchive(t, tarFile("a", "12345"), tarFile("b", "12345"))), UnpackOptions{MaxBytes: 9}); err == nil || !strings.Contains(err.Error(), "more than 9 bytes") {
		t.Errorf("limit: %v", err)
	}
	if _, err := run(bytes.NewReader(tarArchive(t, tarFile("a", "12345"), tarFile("b", "12345"))), UnpackOptions{MaxBytes: 10}); err != nil {
		t.Error(err)
	}
	if _, err := Unpack(ctx, filepath.Join(t.TempDir(), "missing"), bytes.NewReader(a), UnpackOptions{}); err == nil {
		t.Error("target is missing")
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := Unpack(done, t.TempDir(), bytes.NewReader(a), UnpackOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

type unpackFailing struct{ err error }

func (f unpackFailing) Read([]byte) (int, error) { return 0, f.err }

// TestUnpackAgainstGNUTar makes a tree with everything in it, packs it with GNU tar in several formats, and compares what we
// unpack with what GNU tar unpacks, and with the tree.
func TestUnpackAgainstGNUTar(t *testing.T) {
	unpackNeeds(t, true, "tar", "setfattr", "setfacl", "setcap")
	src := t.TempDir()
	script := `set -e
cd "$1"
mkdir -p bin etc/deep/er dev locked acl
echo hello > bin/hello; chown 1001:1002 bin/hello; chmod 6751 bin/hello
ln bin/hello bin/hello2; ln bin/hello etc/deep/hello3
cp /bin/true bin/cap; setcap cap_net_raw,cap_sys_time=ep bin/cap
ln -s hello bin/link; ln -s /etc/passwd etc/abs; ln -s ../../../../etc/shadow etc/up
chown -h 7:8 bin/link; touch -h -d '2001-02-03 04:05:06.123456789' bin/link
ln bin/link bin/hardlinked-link
mknod dev/null c 1 3; mknod dev/sda b 8 0; mknod dev/big c 511 1048575; mkfifo dev/fifo; chmod 666 dev/null; chown 5:6 dev/fifo
setfattr -n trusted.dev -v x dev/null
truncate -s 50M etc/sparse; echo middle | dd of=etc/sparse bs=1 seek=20000000 conv=notrunc status=none
truncate -s 1M etc/hole; head -c 300000 /dev/zero > etc/zeros; head -c 100001 /dev/urandom > etc/random
setfattr -n user.one -v 'a value' etc/random; setfattr -n user.bin -v 0x0001ff etc/random; setfattr -n trusted.t -v t etc/deep
echo acl > acl/f; setfacl -m u:1001:rwx,u:17:r,g:1002:r-x acl/f; setfacl -m d:u:1001:rwx,d:o::- acl; mkdir acl/sub; echo x > acl/sub/x
n=$(printf 'n%.0s' $(seq 200)); mkdir $n; mkdir $n/$n; echo long > $n/$n/$n
echo x > "etc/name with spaces and ü and	tab"
printf x > $'etc/new\nline'
chmod 1777 etc/deep/er; chmod 0500 locked; echo in > locked/in; chmod 0 locked/in
touch -d '1969-12-31 23:00:00' etc/old 2>/dev/null || true
touch -d '2030-01-01 00:00:00.000000001' etc/deep locked bin .
`
	if out, err := exec.Command("bash", "-c", script, "-", src).CombinedOutput(); err != nil {
		t.Fatalf("make tree: %v\n%s", err, out)
	}
	want := treeManifest(t, src)
	formats := map[string][]string{
		"builder": {"--format=posix", "--xattrs", "--xattrs-include=*", "--acls", "--sort=name"},
		"sparse":  {"--format=posix", "--xattrs", "--xattrs-include=*", "--acls", "--sort=name", "--sparse"},
		"text":    {"--format=posix", "--xattrs", "--xattrs-include=*", "--xattrs-exclude=system.*", "--acls", "--sparse"},
		"0.0":     {"--format=posix", "--xattrs", "--xattrs-include=*", "--acls", "--sparse", "--sparse-version=0.0"},
		"0.1":     {"--format=posix", "--xattrs", "--xattrs-include=*", "--acls", "--sparse", "--sparse-version=0.1"},
		"gnu":     {"--format=gnu", "--sparse"},
	}
	for name, args := range formats {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "x.tar")
			unpackRun(t, "tar", append(append([]string{"-C", src, "--numeric-owner"}, args...), "-cf", file, ".")...)
			ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
			for _, d := range []string{ours, theirs} {
				if err := os.Mkdir(d, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			unpackRun(t, "tar", "-C", theirs, "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "-xpf", file)
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			s, err := Unpack(context.Background(), ours, f, UnpackOptions{})
			if err != nil {
				t.Fatal(err)
			}
			st, _ := f.Stat()
			if s.Read != st.Size() {
				t.Errorf("read %d of %d bytes", s.Read, st.Size())
			}
			got := treeManifest(t, ours)
			treeDiff(t, "GNU tar", treeManifest(t, theirs), got)
			if name != "gnu" {
				treeDiff(t, "the tree", want, got)
			}
			var a, b unix.Stat_t
			if err := unix.Stat(filepath.Join(ours, "etc/sparse"), &a); err != nil {
				t.Fatal(err)
			}
			if err := unix.Stat(filepath.Join(theirs, "etc/sparse"), &b); err != nil {
				t.Fatal(err)
			}
			if a.Blocks > b.Blocks+8 {
				t.Errorf("the sparse file takes %d sectors, with GNU tar %d", a.Blocks, b.Blocks)
			}
		})
	}
}

func unpackRun(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func treeDiff(t *testing.T, what string, want, got []string) {
	t.Helper()
	if slices.Equal(want, got) {
		return
	}
	for _, l := range want {
		if !slices.Contains(got, l) {
			t.Errorf("%s has, we have not: %s", what, l)
		}
	}
	for _, l := range got {
		if !slices.Contains(want, l) {
			t.Errorf("%s has not, we have: %s", what, l)
		}
	}
}

// treeManifest describes everything about a tree, one line for each file.
func treeManifest(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	groups := map[uint64]string{} // first name of each inode
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		size, content := st.Size, ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			size = 0
		case unix.S_IFLNK:
			content, _ = os.Readlink(p)
		case unix.S_IFREG:
			f, err := os.Open(p)
			if err != nil {
				return err
			}
			h := sha256.New()
			if _, err := io.Copy(h, f); err != nil {
				return err
			}
			f.Close()
			content = fmt.Sprintf("%x", h.Sum(nil)[:8])
		}
		same := rel
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if groups[st.Ino] == "" {
				groups[st.Ino] = rel
			}
			same = groups[st.Ino]
		}
		var attrs []string
		buf := make([]byte, 65536)
		n, err := unix.Llistxattr(p, buf)
		if err != nil {
			return err
		}
		for _, a := range strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
			if a == "" {
				continue
			}
			v := make([]byte, 65536)
			m, err := unix.Lgetxattr(p, a, v)
			if err != nil {
				return err
			}
			attrs = append(attrs, fmt.Sprintf("%s=%x", a, v[:m]))
		}
		slices.Sort(attrs)
		out = append(out, fmt.Sprintf("%q mode %o owner %d:%d size %d rdev %x mtime %d.%09d same %q content %s attrs %v",
			rel, st.Mode, st.Uid, st.Gid, size, st.Rdev, st.Mtim.Sec, st.Mtim.Nsec, same, content, attrs))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestParseACL(t *testing.T) {
	unpackNeeds(t, false, "setfacl")
	dir := t.TempDir()
	for _, text := range []string{
		"user::rw-\nuser:1001:rwx\nuser:17:r--\ngroup::r--\ngroup:1002:r-x\nmask::rwx\nother::---\n",
		"u::rw-,g::r--,o::---,u:7:r--,m::rw-",
		"user::rwx,user:lp:rw-:7,group::r-x,mask::rwx,other::r-x",
	} {
		ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
		for _, f := range []string{ours, theirs} {
			if err := os.WriteFile(f, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		unpackRun(t, "setfacl", "--set", strings.ReplaceAll(strings.NewReplacer("\n", ",", "lp:rw-:7", "7:rw-").Replace(strings.TrimSpace(text)), ",,", ","), theirs)
		b, err := parseACL(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Setxattr(ours, "system.posix_acl_access", b, 0); err != nil {
			t.Fatalf("the kernel refuses %q: %v", text, err)
		}
		var x, y [500]byte
		n, err1 := unix.Getxattr(ours, "system.posix_acl_access", x[:])
		m, err2 := unix.Getxattr(theirs, "system.posix_acl_access", y[:])
		if err1 != nil || err2 != nil || !bytes.Equal(x[:n], y[:m]) {
			t.Errorf("%q: %x, %v\nsetfacl: %x, %v", text, x[:max(n, 0)], err1, y[:max(m, 0)], err2)
		}
	}
	for _, bad := range []string{"user", "user::q", "who::r", "mask:7:r", "user:nobody:r", "user:4294967295:r", "a:b:c:d:e"} {
		if _, err := parseACL(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	good := [][]byte{tarArchive(f, tarFile("a", "1"), tarSym("b", "/"), tarHard("c", "a"), tarDir("d/"), tarFile("d/e", "2")),
		tarArchive(f, tarItem{tar.Header{Name: "a", Typeflag: tar.TypeReg, Mode: 0o644, PAXRecords: map[string]string{"SCHILY.acl.access": "user::rwx"}}, ""})}
	more, err := edit.Bases(os.DirFS("testdata/unpack"))
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
		outside := t.TempDir()
		target := filepath.Join(outside, "target")
		if err := os.Mkdir(target, 0o755); err != nil {
			t.Fatal(err)
		}
		_, _, judged := JudgeTar(bytes.NewReader(b), 1<<20)
		_, err := Unpack(context.Background(), target, bytes.NewReader(b), UnpackOptions{MaxBytes: 1 << 20})
		if judged == nil && err != nil && os.Geteuid() == 0 {
			t.Errorf("judged good, and %v", err)
		}
		list, err := os.ReadDir(outside)
		if err != nil || len(list) != 1 {
			t.Errorf("outside: %v, %v", list, err)
		}
	})
}

func FuzzParseACL(f *testing.F) {
	f.Add("user::rw-,user:1001:r--,group::r--,mask::r--,other::---")
	f.Fuzz(func(t *testing.T, s string) {
		b, err := parseACL(s)
		if err == nil && len(b)%8 != 4 {
			t.Errorf("%q: %x", s, b)
		}
	})
}
