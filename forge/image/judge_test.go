package image

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/page"
	"gprovision/model/release"
)

// TestUnpackable: what units could not unpack is not built, does not verify, and is not signed; what is built can be extracted.
func TestUnpackable(t *testing.T) {
	needs(t, true, "xz")
	record := func(key, value string) *tar.Header {
		return &tar.Header{Name: "usr/bin/other", Typeflag: tar.TypeReg, Mode: 0o755, PAXRecords: map[string]string{key: value}}
	}
	deep := strings.Repeat(strings.Repeat("d", 99)+"/", 40)
	const acl = "user::rw-,user:7:rw-,group::r--,mask::rw-,other::---"
	of := func(kind byte, name, key, value string) []*tar.Header {
		return []*tar.Header{{Typeflag: kind, Name: name, Linkname: "x", Mode: 0o755, PAXRecords: map[string]string{"SCHILY." + key: value}}}
	}
	for what, tt := range map[string]struct {
		entries []*tar.Header
		says    string // nothing: it is good
		warns   string
	}{
		"a plain file":                        {[]*tar.Header{{Name: "f", Typeflag: tar.TypeReg}}, "", ""},
		"an ACL with a name and no number":    {[]*tar.Header{record("SCHILY.acl.access", "user::rw-,group::r--,group:adm:r-x,mask::r-x,other::---")}, "--xattrs-include", ""},
		"an ACL without a mask":               {[]*tar.Header{record("SCHILY.acl.access", "user::rw-,user:7:rw-,group::r--,other::---")}, "mask", ""},
		"a long attribute of XFS":             {[]*tar.Header{record("SCHILY.xattr.user.note", strings.Repeat("a", 5000))}, "shorten or remove user.note", ""},
		"an attribute of macOS":               {[]*tar.Header{record("SCHILY.xattr.com.apple.provenance", "\x01\x02")}, "", "com.apple.provenance"},
		"attributes of NFS":                   {[]*tar.Header{record("SCHILY.xattr.system.nfs4_acl", "\x00\x00")}, "", "system.nfs4_acl"},
		"a user's attribute of a device":      {of(tar.TypeChar, "n", "xattr.user.x", "y"), "", "user.x"},
		"an ACL of a link":                    {of(tar.TypeSymlink, "l", "acl.access", acl), "", "acl_access"},
		"a default ACL of a file":             {[]*tar.Header{record("SCHILY.acl.default", acl)}, "", "acl_default"},
		"a default ACL of a directory":        {of(tar.TypeDir, "d/", "acl.default", acl), "", ""},
		"a path of 4095 bytes":                {[]*tar.Header{{Name: deep + strings.Repeat("n", 95), Typeflag: tar.TypeReg}}, "", ""},
		"a path of 4096 bytes":                {[]*tar.Header{{Name: deep + strings.Repeat("n", 96), Typeflag: tar.TypeReg}}, "at most 4095", ""},
		"a user's attribute of a link":        {[]*tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "x", PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}}}, "", "user.x"},
		"capabilities of an unknown revision": {[]*tar.Header{record("SCHILY.xattr.security.capability", "\x00\x00\x00\x09")}, "revision 9", ""},
		"a link in the place of a directory":  {[]*tar.Header{{Name: "d/", Typeflag: tar.TypeDir}, {Name: "d/x", Typeflag: tar.TypeReg}, {Name: "d", Typeflag: tar.TypeSymlink, Linkname: "e"}}, "not empty", ""},
		"a name of 256 bytes":                 {[]*tar.Header{{Name: strings.Repeat("n", 256), Typeflag: tar.TypeReg}}, "at most 255", ""},
		"a device number of 13 bits":          {[]*tar.Header{{Name: "n", Typeflag: tar.TypeChar, Devmajor: 0x1000}}, "device number", ""},
		"an owner that means none":            {[]*tar.Header{{Name: "f", Typeflag: tar.TypeReg, Uid: 1<<32 - 1}}, "owner", ""},
		"/etc as a link":                      {[]*tar.Header{{Name: "etc", Typeflag: tar.TypeSymlink, Linkname: "usr/etc"}}, "not empty", ""},
	} {
		t.Run(what, func(t *testing.T) {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			head := &tar.Header{Name: release.MetaPath, Typeflag: tar.TypeReg, Size: 2}
			for i, h := range append([]*tar.Header{head}, tt.entries...) {
				if err := w.WriteHeader(h); err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					io.WriteString(w, "{}")
				}
			}
			w.Close()
			dir := t.TempDir()
			in := filepath.Join(dir, "in.tar")
			if err := os.WriteFile(in, b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			bad := func(did string, err error) {
				t.Helper()
				if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%s: %v, want %q", did, err, tt.says)
				}
			}
			res, err := Build(context.Background(), nil, Options{RootFS: in, Out: filepath.Join(dir, "out"), Name: name(t, 1), Preset: "0", AllowIncomplete: true})
			bad("build", err)
			if tt.warns != "" {
				warned := false
				for _, p := range res.Warnings {
					warned = warned || strings.Contains(p.Text, tt.warns)
				}
				if !warned {
					t.Errorf("warnings %+v, want one of %s", res.Warnings, tt.warns)
				}
			}
			if err == nil && (!res.Meta.Judged() || res.Meta.Inodes < 3) {
				t.Errorf("%+v", res.Meta)
			}
			// An image that something else has made.
			file := filepath.Join(dir, name(t, 2).String())
			cmd := exec.Command("xz", "--check=sha256", "-0", "--stdout", in)
			packed, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, packed, 0o600); err != nil {
				t.Fatal(err)
			}
			rep, err := Verify(context.Background(), file, CheckOptions{})
			bad("verify", err)
			if err != nil && fault.Of(err) != fault.ImageCorrupt {
				t.Errorf("verify: %v", err)
			}
			_, err = Sign(context.Background(), file, newKey(t), nil)
			bad("sign", err)
			if tt.says != "" {
				return
			}
			if (len(rep.Dropped) > 0) != (tt.warns != "") || rep.Need == nil || rep.Need.Inodes > res.Meta.Inodes || rep.Need.Blocks > res.Meta.Blocks {
				t.Errorf("verify: %+v, need %+v, built %+v", rep, rep.Need, res.Meta)
			}
			for i, f := range []string{file, res.File} {
				into := filepath.Join(dir, "into", string(rune('a'+i)))
				if _, err := Extract(context.Background(), f, into, CheckOptions{}); err != nil {
					t.Errorf("extract: %v", err)
				}
			}
		})
	}
}

// TestACLsOfGNUTar: of the ways in which GNU tar packs ACLs one keeps the numbers, and the other is refused with the words that help.
func TestACLsOfGNUTar(t *testing.T) {
	needs(t, true, "xz", "tar", "setfacl", "getfacl")
	src, dir := t.TempDir(), t.TempDir()
	shell(t, `echo x > "$1/f"; setfacl -m u:daemon:rw "$1/f"`, src)
	for i, c := range []struct {
		args string
		good bool
	}{{"--acls", false}, {"--xattrs --xattrs-include='*'", true}} {
		file := filepath.Join(dir, "x.tar")
		shell(t, `tar --format=posix `+c.args+` -C "$1" -cf "$2" .`, src, file)
		res, err := Build(t.Context(), nil, Options{RootFS: file, Out: dir, Name: name(t, i+1), Preset: "0", AllowIncomplete: true})
		if (err == nil) != c.good || err != nil && !strings.Contains(err.Error(), "--xattrs-include=*'") {
			t.Errorf("%s: %v", c.args, err)
		}
		if err != nil {
			continue
		}
		into := filepath.Join(dir, "into")
		if _, err := Extract(t.Context(), res.File, into, CheckOptions{}); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("getfacl", "-n", filepath.Join(into, "f")).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "user:1:rw-") {
			t.Errorf("%s: %v\n%s", c.args, err, out)
		}
	}
}

// TestManyHoles: sparse files in as many parts as docs/formats/release-image.md says, in each form of GNU tar's.
func TestManyHoles(t *testing.T) {
	needs(t, false, "tar")
	err := page.Says(os.DirFS("../../docs"), "formats/release-image.md",
		"A sparse file may have 15,000 parts, and 30,000 in the forms that GNU tar writes by default")
	if err != nil {
		t.Error(err)
	}
	dir := t.TempDir()
	for _, c := range []struct {
		parts int
		args  []string
	}{
		{15_000, []string{"--format=posix", "--sparse-version=0.0"}},
		{15_000, []string{"--format=posix", "--sparse-version=0.1"}},
		{30_000, []string{"--format=gnu"}},
		{30_000, []string{"--format=posix"}},
	} {
		f, err := os.Create(filepath.Join(dir, "many"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range int64(c.parts) {
			if _, err := f.WriteAt([]byte("x"), i*8192+4096); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		raw, err := exec.Command("tar", append(c.args, "--sparse", "-c", "-C", dir, "many")...).Output()
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) > c.parts*7000 {
			t.Fatalf("%v: %d bytes: the file has no holes here", c.args, len(raw))
		}
		stats, _, err := filesystem.JudgeTar(bytes.NewReader(raw), 0)
		if err != nil || stats.Bytes != int64(c.parts)*8192-4095 {
			t.Errorf("%v: %+v, %v", c.args, stats, err)
		}
	}
}

// TestStreams: an image in several streams is read, and one whose last stream is missing is found out: each stream that is left is whole.
func TestStreams(t *testing.T) {
	needs(t, false, "xz")
	meta := release.Meta{Version: 1, Name: name(t, 1).Base(), Build: 1, Entries: 2, Bytes: 2}
	text, err := meta.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var parts [][]byte // one entry in each, the end of the tar in the last
	for _, e := range []struct{ name, content string }{{release.MetaPath, string(text)}, {"a", "1"}, {"b", "2"}} {
		if err := w.WriteHeader(&tar.Header{Name: e.name, Typeflag: tar.TypeReg, Size: int64(len(e.content)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, e.content)
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, bytes.Clone(b.Bytes()))
		b.Reset()
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	parts = append(parts, b.Bytes())
	var whole []byte
	var ends []int
	for _, p := range parts {
		cmd := exec.Command("xz", "--check=sha256", "-0", "--stdout")
		cmd.Stdin = bytes.NewReader(p)
		packed, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		whole = append(whole, packed...)
		ends = append(ends, len(whole))
	}
	file := filepath.Join(t.TempDir(), name(t, 1).String())
	verify := func(n int) error {
		t.Helper()
		if err := os.WriteFile(file, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Verify(t.Context(), file, CheckOptions{})
		return err
	}
	if err := verify(len(whole)); err != nil {
		t.Error(err)
	}
	for _, n := range []int{ends[0], ends[1], ends[1] + 4, ends[3] - 4, ends[3] - 1} {
		if err := verify(n); fault.Of(err) != fault.ImageCorrupt {
			t.Errorf("cut at byte %d of %d, streams end at %d: %v", n, len(whole), ends, err)
		}
	}
}
