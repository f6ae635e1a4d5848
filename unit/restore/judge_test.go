package restore

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/model/signature"
)

// TestProveUnpackable: an image that no restore could unpack is known before anything is destroyed for it. A signed one that says what
// it needs was judged by who made it, and is not decoded.
func TestProveUnpackable(t *testing.T) {
	f := newFixture(t)
	base := prefix + "2026-11-01.0001"
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
		return xz(t, b.Bytes())
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
		im := f.put(t, base+".upd", signedAs, make(tt.meta, tt.bad))
		if !tt.signed {
			f.unsign(t, im)
		}
		if err := Prove(t.Context(), im, policy.Policy{AllowUnsigned: true}, []signature.PublicKey{f.key.Public()}, func(int64) {}); fault.Of(err) != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// unsign removes the signature of an image, if there is one.
func (f fixture) unsign(t *testing.T, im Image) {
	t.Helper()
	if err := os.Remove(im.Path + signature.Suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}
