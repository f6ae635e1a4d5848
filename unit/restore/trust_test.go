package restore

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/site"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/state"
)

// bzImage returns the smallest file that has a bzImage's header, with a build number. body tells two of them apart.
func bzImage(build int, body string) []byte {
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

// withArtifact is a tar of /boot/norm_boot, behind an imgmeta.json unless meta is empty.
func withArtifact(t *testing.T, meta string, artifact []byte) []byte {
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
	return xz(t, b.Bytes())
}

// TestTakeRecovery puts a recovery artifact with a higher build number on the recovery volume, which a stranger may have had in his
// hands. It starts the main system only if somebody vouches for it.
func TestTakeRecovery(t *testing.T) {
	const released, higher = "2026-11-05.0001", "2026-11-06.0001"
	meta := func(boot int) string {
		return fmt.Sprintf(`{"version":1,"name":"%s%s","build":1,"bytes":4000000,"bootBuild":%d}`, prefix, higher, boot)
	}
	other, err := signature.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	evil := bzImage(9000, "of a stranger")
	good := bzImage(8, "of the company")
	for _, c := range []struct {
		name     string
		own      []byte
		prepare  func(f fixture, volume string)
		asked    bool
		unsigned bool
		taken    bool
	}{
		{"nobody vouches", evil, func(fixture, string) {}, false, false, false},
		{"nobody vouches, asked for", bzImage(1, "old"), func(fixture, string) {}, true, false, false},
		{"nobody vouches, and unsigned images are allowed", evil, func(f fixture, volume string) {
			f.put(t, prefix+higher+".upd", "", withArtifact(t, "", evil))
		}, false, true, false},
		{"its own signature", good, func(f fixture, volume string) {
			f.sign(t, f.key, volume, good, signature.ArtifactComment(prefix, 8))
		}, false, false, true},
		{"its own signature, asked for", bzImage(1, "old"), func(f fixture, volume string) {
			f.sign(t, f.key, volume, bzImage(1, "old"), signature.ArtifactComment(prefix, 1))
		}, true, false, true},
		{"a stranger's signature", evil, func(f fixture, volume string) {
			f.sign(t, other, volume, evil, signature.ArtifactComment(prefix, 9000))
		}, false, false, false},
		{"the signature of another build", evil, func(f fixture, volume string) {
			f.sign(t, f.key, volume, good, signature.ArtifactComment(prefix, 9000))
		}, false, false, false},
		{"the signature of another product", good, func(f fixture, volume string) {
			f.sign(t, f.key, volume, good, signature.ArtifactComment("OTHER.LNX.FOX.", 8))
		}, false, false, false},
		{"the signature of an image over it", good, func(f fixture, volume string) {
			f.sign(t, f.key, volume, good, signature.ImageComment(prefix+higher))
		}, false, false, false},
		{"a signed image holds it", good, func(f fixture, volume string) {
			f.put(t, prefix+higher+".upd", prefix+higher, withArtifact(t, meta(8), good))
		}, false, false, true},
		{"a signed image of the original system holds it", good, func(f fixture, volume string) {
			f.put(t, prefix+higher+".upd", prefix+higher, withArtifact(t, "", good))
		}, false, false, true},
		{"an image with a stranger's signature holds it", evil, func(f fixture, volume string) {
			content := withArtifact(t, meta(9000), evil)
			f.put(t, prefix+higher+".upd", "", content)
			f.sign(t, other, filepath.Join(f.dir, prefix+higher+".upd"), content, signature.ImageComment(prefix+higher))
		}, false, false, false},
		{"a signed image holds another one of that number", bzImage(8, "of a stranger"), func(f fixture, volume string) {
			f.put(t, prefix+higher+".upd", prefix+higher, withArtifact(t, meta(8), good))
		}, false, false, false},
		{"a signed image that is damaged", good, func(f fixture, volume string) {
			im := f.put(t, prefix+higher+".upd", prefix+higher, withArtifact(t, meta(8), good))
			b, err := os.ReadFile(im.Path)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)-1] ^= 1
			if err := os.WriteFile(im.Path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}, false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			volume := t.TempDir()
			f.dir = filepath.Join(volume, state.ImageDir)
			root := t.TempDir()
			for _, d := range []string{f.dir, filepath.Join(root, "boot")} {
				if err := os.MkdirAll(d, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			fresh := bzImage(7, "of the release")
			artifact := filepath.Join(root, "boot/norm_boot")
			for path, b := range map[string][]byte{artifact: fresh, filepath.Join(volume, "norm_boot"): c.own} {
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c.prepare(f, filepath.Join(volume, "norm_boot"))
			n, err := release.ParseName(prefix+released+".upd", prefix)
			if err != nil {
				t.Fatal(err)
			}
			m := &machine.Machine{Log: slog.New(slog.DiscardHandler), Panel: panel.New(), Site: site.Stock(), Policy: policy.Policy{AllowUnsigned: c.unsigned}, Keys: []signature.PublicKey{f.key.Public()}}
			j := &job{Machine: m, root: root, image: Image{Name: n}, Options: Options{Recovery: volume, KeepRecovery: c.asked, Unit: state.Unit{ImagePrefix: prefix}}}
			if err := j.takeRecovery(t.Context(), artifact, machine.Artifact{Build: 7, Monolithic: true}); err != nil {
				t.Fatal(err)
			}
			want := fresh
			if c.taken {
				want = c.own
			}
			if b, err := os.ReadFile(artifact); err != nil || !bytes.Equal(b, want) {
				t.Errorf("taken: %t, want %t (%v)", !bytes.Equal(b, fresh), c.taken, err)
			}
			left, err := os.ReadDir(filepath.Dir(artifact))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range left {
				if e.Name() != "norm_boot" && e.Name() != "norm_boot"+signature.Suffix {
					t.Errorf("%s is left", e.Name())
				}
			}
		})
	}
}

// sign puts a signature beside the file at path.
func (f fixture) sign(t *testing.T, key signature.PrivateKey, path string, content []byte, comment string) {
	t.Helper()
	sig, err := key.Sign(bytes.NewReader(content), comment)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+signature.Suffix, sig, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSwappedArtifact: what was checked is not what is read when it is copied.
func TestSwappedArtifact(t *testing.T) {
	dir := t.TempDir()
	own, artifact := filepath.Join(dir, "own"), filepath.Join(dir, "norm_boot")
	for path, b := range map[string][]byte{own: bzImage(8, "evil"), artifact: bzImage(7, "")} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	j := &job{Machine: &machine.Machine{Log: slog.New(slog.DiscardHandler)}}
	err := j.take(own, artifact, machine.Artifact{Build: 8, Monolithic: true}, [32]byte{1})
	if err == nil || !strings.Contains(err.Error(), "another one") {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(artifact); err != nil || !bytes.Equal(b, bzImage(7, "")) {
		t.Errorf("the artifact was replaced: %v", err)
	}
}
