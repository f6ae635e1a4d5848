// Package imagetest makes release images for tests of code that reads them. They are as the builder makes them, but
// small.
package imagetest

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gprovision/hw/host"
	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/unit/image"
	"gprovision/unit/keytest"
)

// Prefix is the start of the names of the images.
const Prefix = "WIDGET.LNX.SHINY."

// Fixture is a directory of images and the key that signs them.
type Fixture struct {
	Dir string
	Key signature.PrivateKey
}

// New returns a fixture with a key of its own, in an empty directory.
func New(t *testing.T) Fixture {
	t.Helper()
	return Fixture{t.TempDir(), keytest.New(t)}
}

// Put writes an image and signs it under the name signedAs. If that is empty, the image is not signed.
func (f Fixture) Put(t *testing.T, name, signedAs string, content []byte) image.Image {
	t.Helper()
	path := filepath.Join(f.Dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if signedAs != "" {
		sig, err := f.Key.Sign(bytes.NewReader(content), signature.ImageComment(signedAs))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+signature.Suffix, sig, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n, err := release.ParseName(name, Prefix)
	if err != nil {
		t.Fatal(err)
	}
	return image.Image{Path: path, Name: n, Size: int64(len(content))}
}

// Sign puts a signature beside the file at path.
func (f Fixture) Sign(t *testing.T, key signature.PrivateKey, path string, content []byte, comment string) {
	t.Helper()
	sig, err := key.Sign(bytes.NewReader(content), comment)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+signature.Suffix, sig, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Unsign removes the signature of an image, if there is one.
func (f Fixture) Unsign(t *testing.T, im image.Image) {
	t.Helper()
	if err := os.Remove(im.Path + signature.Suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

// XZ compresses b as the builder does. If the program is missing, the test is skipped, or fails with GPROV_NO_SKIP=1.
func XZ(t *testing.T, b []byte) []byte {
	t.Helper()
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, exit, err := host.Run(t.Context(), "xz", "--check=sha256", "--block-size=65536", "-T2", "-1", plain)
	if err != nil && os.Getenv("GPROV_NO_SKIP") != "1" {
		t.Skip("the program xz cannot be started (Debian package xz-utils): ", err)
	}
	if err != nil || exit != 0 {
		t.Fatalf("xz (Debian package xz-utils): %v, exit code %d: %s", err, exit, out)
	}
	out, err = os.ReadFile(plain + ".xz")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Tar returns a tar archive of one file, after an imgmeta.json unless meta is empty.
func Tar(t *testing.T, meta string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct{ name, text string }{{release.MetaPath, meta}, {"release", strings.Repeat("release ", 100_000)}} {
		if f.text == "" {
			continue
		}
		h := tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644, Uid: os.Geteuid(), Gid: os.Getegid(), Size: int64(len(f.text))}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// WithArtifact returns a tar archive of /boot/norm_boot, after an imgmeta.json unless meta is empty.
func WithArtifact(t *testing.T, meta string, artifact []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct {
		name string
		data []byte
	}{{release.MetaPath, []byte(meta)}, {"boot/norm_boot", artifact}} {
		if len(f.data) == 0 {
			continue
		}
		if err := w.WriteHeader(&tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return XZ(t, b.Bytes())
}

// System returns the tar archive of a release with a few files.
func System(t *testing.T, base string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(h tar.Header, content string) {
		h.Uid, h.Gid, h.Size = os.Geteuid(), os.Getegid(), int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	meta := fmt.Sprintf(`{"version":1,"name":%q,"build":1,"bytes":4000000}`, base)
	put(tar.Header{Name: release.MetaPath, Typeflag: tar.TypeReg, Mode: 0o644}, meta)
	for _, d := range []string{"boot/", "etc/", "home/", "var/", "usr/"} {
		put(tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755}, "")
	}
	for name, text := range map[string]string{
		"boot/norm_boot": string(BzImage(7, "")), "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nadmin:x:1001:1001::/home/admin:/bin/bash\n",
		"etc/group": "root:x:0:\nadmin:x:1001:\n", "etc/shadow": "root:*:19000:0:99999:7:::\nadmin:!:19000:0:99999:7:::\n",
		"etc/hosts": "127.0.0.1\tlocalhost\n", "usr/program": strings.Repeat("program ", 1000),
	} {
		put(tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, text)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// BzImage returns the smallest file with a bzImage header and a build number. body makes two of them differ.
func BzImage(build int, body string) []byte {
	b := make([]byte, 2048, 4096)
	b[0x1f1] = 1
	binary.LittleEndian.PutUint16(b[0x1fe:], 0xaa55)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x206:], 0x020f)
	binary.LittleEndian.PutUint16(b[0x20e:], 0x100)
	b[0x211] = 1
	copy(b[0x300:], fmt.Sprintf("6.1.0-norm_boot (builder@host) #%d SMP Thu Jan 1 00:00:00 UTC 2026\x00", build))
	return append(b, body...)
}
