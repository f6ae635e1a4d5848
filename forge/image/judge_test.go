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

	"gprovision/model/fault"
	"gprovision/model/release"
)

// TestUnpackable: what units could not unpack is not built, does not verify, and is not signed; what is built can be extracted.
func TestUnpackable(t *testing.T) {
	needs(t, true, "xz")
	record := func(key, value string) *tar.Header {
		return &tar.Header{Name: "usr/bin/other", Typeflag: tar.TypeReg, Mode: 0o755, PAXRecords: map[string]string{key: value}}
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
