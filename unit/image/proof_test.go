package image_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand"
	"os"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/unit/image"
	"gprovision/unit/image/imagetest"
)

// chunk is how many bytes of an image share one hash.
const chunk = 256 << 10

// TestLyingMedium: on the second read, the medium returns another image that is just as good.
func TestLyingMedium(t *testing.T) {
	f := imagetest.New(t)
	name := imagetest.Prefix + "2026-11-01.0001"
	noise := make([]byte, 3*chunk)
	rand.New(rand.NewSource(1)).Read(noise)
	judged := fmt.Sprintf(`{"version":1,"name":%q,"build":1,"bytes":800000,"inodes":4,"blocks":300}`, name) // so that it is not decoded
	content := bytes.Join([][]byte{imagetest.XZ(t, imagetest.Tar(t, judged)), imagetest.XZ(t, noise)}, nil)
	im := f.Put(t, name+".upd", name, content)
	was, _, err := image.Proven(t.Context(), im, policy.Policy{}, []signature.PublicKey{f.Key.Public()}, func(int64) {})
	if err != nil || was == nil {
		t.Fatalf("%v, %v", was, err)
	}
	read := func() ([]byte, error) {
		file, err := os.Open(im.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		r, err := release.NewReader(t.Context(), was.Reader(file), im.Size, 2)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	}
	if got, err := read(); err != nil || !bytes.HasSuffix(got, noise) {
		t.Fatalf("the same image: %d bytes, %v", len(got), err)
	}
	put := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(im.Path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	noise[0] ^= 1
	other := bytes.Join([][]byte{imagetest.XZ(t, imagetest.Tar(t, judged)), imagetest.XZ(t, noise)}, nil)
	if len(other) != len(content) {
		t.Fatalf("%d bytes, want %d", len(other), len(content))
	}
	put(other)
	if got, err := read(); err == nil || fault.Of(err) != fault.ImageCorrupt {
		t.Errorf("another image: %d bytes, %v", len(got), err)
	}
	for at := 0; at < len(content); at += chunk / 2 {
		b := bytes.Clone(content)
		b[at] ^= 1
		put(b)
		if _, err := read(); err == nil || fault.Of(err) != fault.ImageCorrupt {
			t.Errorf("byte %d changed: %v", at, err)
		}
	}
	put(content[:len(content)-1])
	if _, err := read(); err == nil || fault.Of(err) != fault.ImageCorrupt {
		t.Errorf("a byte less: %v", err)
	}
	// The same bytes come back, at any place and length.
	r := was.Reader(bytes.NewReader(content))
	for _, c := range []struct{ off, n int }{{0, len(content)}, {chunk - 1, 2}, {len(content) - 1, 1}, {5, chunk}} {
		b := make([]byte, c.n)
		if n, err := r.ReadAt(b, int64(c.off)); n != c.n || err != nil || !bytes.Equal(b, content[c.off:c.off+c.n]) {
			t.Errorf("%d bytes at %d: %d, %v", c.n, c.off, n, err)
		}
	}
	if n, err := r.ReadAt(make([]byte, 10), int64(len(content)-3)); n != 3 || err != io.EOF {
		t.Errorf("over the end: %d, %v", n, err)
	}
}
