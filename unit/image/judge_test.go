package image_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/unit/image"
	"gprovision/unit/image/imagetest"
)

// TestProveUnpackable: an image that no restore could unpack is found out before anything is destroyed for it. A
// signed image that states its needs was judged by whoever made it, so it is not decoded.
func TestProveUnpackable(t *testing.T) {
	f := imagetest.New(t)
	base := imagetest.Prefix + "2026-11-01.0001"
	make := func(meta string, bad bool) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		head := fmt.Sprintf(`{"version":1,"name":%q,"build":1,"bytes":800000%s}`, base, meta)
		if meta != "none" {
			if err := w.WriteHeader(&tar.Header{Name: release.MetaPath, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(head))}); err != nil {
				t.Fatal(err)
			}
			io.WriteString(w, head)
		}
		h := &tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644}
		if bad {
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.note": strings.Repeat("v", 5000)}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return imagetest.XZ(t, b.Bytes())
	}
	for _, tt := range []struct {
		name   string
		meta   string
		bad    bool
		signed bool
		want   *fault.Fault
	}{
		{"good, not signed", "", false, false, nil},
		{"good, signed, not judged", "", false, true, nil},
		{"good, of the original system", "none", false, true, nil},
		{"bad, not signed", "", true, false, fault.ImageCorrupt},
		{"bad, not signed, said to be judged", `,"inodes":5,"blocks":5`, true, false, fault.ImageCorrupt},
		{"bad, signed, not judged", "", true, true, fault.ImageCorrupt},
		{"bad, of the original system", "none", true, true, fault.ImageCorrupt},
		{"signed and judged: not decoded", `,"inodes":5,"blocks":5`, true, true, nil},
	} {
		signedAs := ""
		if tt.signed {
			signedAs = base
		}
		im := f.Put(t, base+".upd", signedAs, make(tt.meta, tt.bad))
		if !tt.signed {
			f.Unsign(t, im)
		}
		if err := image.Prove(t.Context(), im, policy.Policy{AllowUnsigned: true}, []signature.PublicKey{f.Key.Public()}, func(int64) {}); fault.Of(err) != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
