package filesystem

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// generator makes tars of few names, so that entries meet: duplicates, changes of type, names below files and links.
type generator struct{ *rand.Rand }

func pick[T any](g generator, from ...T) T { return from[g.IntN(len(from))] }

func (g generator) name() string {
	long := strings.Repeat("n", pick(g, 200, 254, 255))
	if g.IntN(40) == 0 {
		long += "nn"
	}
	n := pick(g, "a", "b", "c", "d", "e", "f", "g", "\xff\xfe", "ü x", "a=b", "new\nline", "-", "%41", "...", long)
	for g.IntN(3) == 0 {
		n = pick(g, "d", "e", "p/q", "./d", "d//", "a", "s", long) + "/" + n
	}
	if g.IntN(150) == 0 {
		n = pick(g, "/", "../") + n
	}
	return n
}

// acl is one in the kernel's form, good or not.
func (g generator) acl() string {
	if g.IntN(6) == 0 {
		return pick(g, "", "x", "\x02\x00\x00\x00", "\x01\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff")
	}
	b := []byte{2, 0, 0, 0}
	tags := pick(g, []byte{1, 4, 32}, []byte{1, 2, 4, 16, 32}, []byte{1, 2, 2, 4, 8, 16, 32}, []byte{1, 2, 4, 32}, []byte{4, 1, 32}, []byte{1, 4}, []byte{1, 1, 4, 32}, []byte{1, 4, 16, 32}, []byte{1, 4, 64, 32})
	for i, tag := range tags {
		b = append(b, tag, 0, byte(g.IntN(8)), 0)
		if tag == 2 || tag == 8 {
			b = append(b, byte(i+1), 1, 0, 0)
		} else {
			b = append(b, 0xff, 0xff, 0xff, 0xff)
		}
	}
	return string(b)
}

func (g generator) records() map[string]string {
	out := map[string]string{}
	if g.IntN(4) > 0 {
		return out
	}
	for range 1 + g.IntN(3) {
		switch g.IntN(10) {
		case 0:
			out["SCHILY.xattr.system.posix_acl_"+pick(g, "access", "default")] = g.acl()
		case 1:
			out["SCHILY.acl."+pick(g, "access", "default")] = pick(g, "user::rw-,group::r--,other::r--", "user::rw-,user:7:rwx,group::r--,mask::rwx,other::---", "user::rw-,group::r--,group:adm:r-x:4,mask::r-x,other::---",
				"user::rw-,group::r--,group:adm:r-x,mask::r-x,other::---", "user::rw-,user:7:rwx,group::r--,other::---", "group::r--", " ")
		case 2:
			out["SCHILY.xattr.security.capability"] = pick(g, "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
				"\x01\x00\x00\x03\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xe8\x03\x00\x00", "\x01\x00\x00\x01\x00\x20\x00\x00\x00\x00\x00\x00", "short", "")
		case 3:
			out["SCHILY.xattr."+pick(g, "com.apple.provenance", "system.nfs4_acl", "btrfs.compression", "user.", "user", "trusted.", "x")] = "\x01\x02"
		case 4:
			out["SCHILY.xattr."+pick(g, "security.selinux", "security.ima", "security.evm", "security.SMACK64", "security.other")] = pick(g, "system_u:object_r:etc_t:s0\x00", "\x03\x02\x04", "\x01", "")
		case 5:
			out["RHT.security.selinux"] = "system_u:object_r:etc_t:s0"
		case 6:
			out["SCHILY.xattr.trusted.t"+strings.Repeat("m", g.IntN(300))] = "v"
		default:
			name := "SCHILY.xattr.user.n" + strings.Repeat("m", pick(g, 0, 1, 2, 3, 60, 240, 249, 249-g.IntN(2)+g.IntN(2)))
			out[name] = strings.Repeat("v", pick(g, 0, 1, 3, 40, 90, 500, 500, 2000, 3700+g.IntN(370), pick(g, 4020, 5000, 66000)))
		}
	}
	return out
}

// archive returns a tar, and what it is made of for a failing test.
func (g generator) archive(t *testing.T) ([]byte, []string) {
	t.Helper()
	var b bytes.Buffer
	w := NewTarWriter(&b)
	var list, before []string
	for range 1 + g.IntN(9) {
		h := &tar.Header{Name: g.name(), Mode: int64(g.IntN(0o10000)), Uid: pick(g, 0, 1000, 1<<32-2), Gid: pick(g, 0, 4, 1<<32-2),
			ModTime: time.Unix(pick(g, int64(0), 1_700_000_000, -1, -3_000_000_000, 20_000_000_000), int64(g.IntN(1e9))), PAXRecords: g.records()}
		if g.IntN(200) == 0 {
			h.Uid = 1<<32 - 1
		}
		content := ""
		h.Typeflag = pick[byte](g, tar.TypeReg, tar.TypeReg, tar.TypeReg, tar.TypeDir, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo, tar.TypeGNUSparse)
		switch h.Typeflag {
		case tar.TypeReg:
			content = strings.Repeat("x", pick(g, 0, 1, 4095, 4096, 4097, 300_000))
			h.Size = int64(len(content))
		case tar.TypeSymlink:
			h.Linkname = pick(g, "a", "/etc", "../..", strings.Repeat("l", 59), strings.Repeat("l", 60), strings.Repeat("l", 4095), strings.Repeat("l", 4095+g.IntN(2)))
		case tar.TypeLink:
			if h.Linkname = g.name(); len(list) > 0 && g.IntN(5) > 0 {
				h.Linkname = before[g.IntN(len(before))]
			}
		case tar.TypeChar, tar.TypeBlock:
			h.Devmajor, h.Devminor = pick(g, int64(1), 8, 254, 0xfff, 0xfff+int64(g.IntN(2))), pick(g, int64(0), 0xfffff)
		}
		var err error
		if h.Typeflag == tar.TypeGNUSparse {
			h.Size = pick(g, int64(1), 4096, 100_000, 1<<40, maxFile, maxFile+int64(g.IntN(2)))
			var parts []Extent
			stored := int64(0)
			for at := int64(g.IntN(9000)); at < min(h.Size, 1_000_000) && len(parts) < 400; at += 1 + int64(g.IntN(20_000)) {
				p := Extent{at, min(int64(1+g.IntN(9000)), h.Size-at)}
				parts, stored, at = append(parts, p), stored+p.Size, at+p.Size
			}
			err = w.WriteSparse(h, parts, strings.NewReader(strings.Repeat("s", int(stored))))
		} else {
			err = w.Write(h, strings.NewReader(content))
		}
		if err != nil {
			t.Fatalf("%+v: %v", h, err)
		}
		before = append(before, h.Name)
		list = append(list, fmt.Sprintf("%c %.40q (%d) -> %.40q size %d dev %d:%d attributes %.300q", h.Typeflag, h.Name, len(h.Name), h.Linkname, h.Size, h.Devmajor, h.Devminor, h.PAXRecords))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), list
}

// mountExt4 makes an ext4 filesystem as units have it, and mounts it.
func mountExt4(t *testing.T, size int64) string {
	t.Helper()
	unpackNeeds(t, true, "mke2fs", "mount", "losetup")
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	run := func(ctx context.Context, program string, args ...string) ([]byte, int, error) {
		out, err := exec.CommandContext(ctx, filepath.Base(program), args...).CombinedOutput()
		return out, 0, err
	}
	if err := MakeExt4(t.Context(), run, file, "PRIMARY", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "mounted")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	unpackRun(t, "mount", "-o", "loop", file, dir)
	t.Cleanup(func() { unpackRun(t, "umount", dir) })
	return dir
}

// used returns what is in use of the filesystem at dir.
func used(t *testing.T, dir string) Need {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return Need{int64(st.Files - st.Ffree), int64(st.Blocks - st.Bfree)}
}

// TestJudge holds that Judge and Unpack are of one mind about generated archives, and that what was said to be needed is enough.
func TestJudge(t *testing.T) {
	rounds := 1500
	if testing.Short() {
		rounds = 150
	}
	tiers := map[string]func(*testing.T) string{
		"ext4":                func(t *testing.T) string { return mountExt4(t, 2<<30) },
		"temporary directory": func(t *testing.T) string { unpackNeeds(t, true); return t.TempDir() },
	}
	for tier, place := range tiers {
		t.Run(tier, func(t *testing.T) {
			top := place(t)
			good, dropped := 0, 0
			for seed := range uint64(rounds) {
				file, list := generator{rand.New(rand.NewPCG(seed, 1))}.archive(t)
				_, need, judged := JudgeTar(bytes.NewReader(file), 0)
				dir := filepath.Join(top, "tree")
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				before := used(t, top)
				before.Inodes, before.Blocks = before.Inodes-1, before.Blocks-1 // the directory itself
				stats, err := Unpack(context.Background(), dir, bytes.NewReader(file), UnpackOptions{Sync: true})
				if (judged == nil) != (err == nil) {
					t.Fatalf("seed %d: judged %v\nunpacked %v\n%s", seed, judged, err, strings.Join(list, "\n"))
				}
				if got := used(t, top); tier == "ext4" && err == nil && (got.Inodes-before.Inodes > need.Inodes || got.Blocks-before.Blocks > need.Blocks) {
					t.Errorf("seed %d: uses %d inodes and %d blocks, judged %+v\n%s", seed, got.Inodes-before.Inodes, got.Blocks-before.Blocks, need, strings.Join(list, "\n"))
				}
				if err == nil {
					good++
					dropped += len(stats.Dropped)
				}
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
			}
			if good < rounds/4 || good > rounds*4/5 || dropped == 0 {
				t.Errorf("of %d archives %d were good, %d attributes dropped: the generator shows nothing", rounds, good, dropped)
			}
		})
	}
}

// TestTimes: a time that ext4 does not hold becomes the nearest that it does, with the years that docs/formats/release-image.md names.
func TestTimes(t *testing.T) {
	dir := mountExt4(t, 2<<30)
	var b bytes.Buffer
	w := NewTarWriter(&b)
	want := map[string]int64{}
	for name, c := range map[string][2]int64{
		"1868": {-3_200_000_000, -1 << 31}, "1902": {-2_140_000_000, -2_140_000_000}, "2445": {15_000_000_000, 15_000_000_000},
		"2603": {20_000_000_000, 1<<34 - 1<<31 - 1},
	} {
		want[name] = c[1]
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, ModTime: time.Unix(c[0], 0)}
		if err := w.Write(h, strings.NewReader("")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Unpack(t.Context(), dir, &b, UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, sec := range want {
		st, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || st.ModTime().Unix() != sec {
			t.Errorf("a file of %s has the time %v, want %v, %v", name, st.ModTime().UTC(), time.Unix(sec, 0).UTC(), err)
		}
	}
	if low, high := time.Unix(want["1868"], 0).UTC().Year(), time.Unix(want["2603"], 0).UTC().Year(); low != 1901 || high != 2446 {
		t.Errorf("from %d to %d", low, high)
	}
}

// TestNeed holds that large trees need what was said, and not half of it.
func TestNeed(t *testing.T) {
	many := func(n int, name, content string) []tarItem {
		var out []tarItem
		for i := range n {
			out = append(out, tarFile(fmt.Sprintf(name, i), content))
		}
		return out
	}
	var tree []tarItem
	for i := range 300 {
		tree = append(tree, many(20, fmt.Sprintf("usr/share/p%d/f%%d", i), strings.Repeat("c", 100+i*40))...)
	}
	short := many(20000, "s%d", "")
	for i := range short {
		short[i].Linkname, short[i].Typeflag = "t", tar.TypeSymlink
	}
	cases := map[string][]tarItem{
		"many small files":                many(8000, "dir/f%d", "x"),
		"long names in one directory":     many(6000, "dir/"+strings.Repeat("n", 240)+"%d", ""),
		"links in one directory":          short,
		"files of all sizes":              tree,
		"large files":                     many(4, "big%d", strings.Repeat("b", 20<<20)),
		"names in an order of their hash": append(many(3000, "d/%d-a", ""), many(3000, "d/%d-b", "")...),
	}
	if testing.Short() {
		cases = map[string][]tarItem{"files of all sizes": tree[:2000]}
	}
	for name, items := range cases {
		t.Run(name, func(t *testing.T) {
			dir := mountExt4(t, 2<<30)
			file := tarArchive(t, items...)
			before := used(t, dir)
			before.Inodes, before.Blocks = before.Inodes-1, before.Blocks-1 // the root itself
			_, need, err := JudgeTar(bytes.NewReader(file), 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Unpack(t.Context(), dir, bytes.NewReader(file), UnpackOptions{Sync: true}); err != nil {
				t.Fatal(err)
			}
			got := used(t, dir)
			got.Inodes, got.Blocks = got.Inodes-before.Inodes, got.Blocks-before.Blocks
			if got.Inodes != need.Inodes || got.Blocks > need.Blocks || got.Blocks < need.Blocks/2 {
				t.Errorf("uses %+v, judged %+v", got, need)
			}
		})
	}
}
