package restore

import (
	"bytes"
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
	"gprovision/unit/image"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/keytest"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/state"
)

// TestTakeRecovery puts a recovery artifact with a higher build number on the recovery volume, which a stranger may have had in his
// hands. It starts the main system only if somebody vouches for it.
func TestTakeRecovery(t *testing.T) {
	const released, higher = "2026-11-05.0001", "2026-11-06.0001"
	meta := func(boot int) string {
		return fmt.Sprintf(`{"version":1,"name":"%s%s","build":1,"bytes":4000000,"bootBuild":%d}`, imagetest.Prefix, higher, boot)
	}
	other := keytest.New(t)
	evil := imagetest.BzImage(9000, "of a stranger")
	good := imagetest.BzImage(8, "of the company")
	for _, c := range []struct {
		name     string
		own      []byte
		prepare  func(f imagetest.Fixture, volume string)
		asked    bool
		unsigned bool
		taken    bool
	}{
		{"nobody vouches", evil, func(imagetest.Fixture, string) {}, false, false, false},
		{"nobody vouches, asked for", imagetest.BzImage(1, "old"), func(imagetest.Fixture, string) {}, true, false, false},
		{"nobody vouches, and unsigned images are allowed", evil, func(f imagetest.Fixture, volume string) {
			f.Put(t, imagetest.Prefix+higher+".upd", "", imagetest.WithArtifact(t, "", evil))
		}, false, true, false},
		{"its own signature", good, func(f imagetest.Fixture, volume string) {
			f.Sign(t, f.Key, volume, good, signature.ArtifactComment(imagetest.Prefix, 8))
		}, false, false, true},
		{"its own signature, asked for", imagetest.BzImage(1, "old"), func(f imagetest.Fixture, volume string) {
			f.Sign(t, f.Key, volume, imagetest.BzImage(1, "old"), signature.ArtifactComment(imagetest.Prefix, 1))
		}, true, false, true},
		{"a stranger's signature", evil, func(f imagetest.Fixture, volume string) {
			f.Sign(t, other, volume, evil, signature.ArtifactComment(imagetest.Prefix, 9000))
		}, false, false, false},
		{"the signature of another build", evil, func(f imagetest.Fixture, volume string) {
			f.Sign(t, f.Key, volume, good, signature.ArtifactComment(imagetest.Prefix, 9000))
		}, false, false, false},
		{"the signature of another product", good, func(f imagetest.Fixture, volume string) {
			f.Sign(t, f.Key, volume, good, signature.ArtifactComment("OTHER.LNX.FOX.", 8))
		}, false, false, false},
		{"the signature of an image over it", good, func(f imagetest.Fixture, volume string) {
			f.Sign(t, f.Key, volume, good, signature.ImageComment(imagetest.Prefix+higher))
		}, false, false, false},
		{"a signed image holds it", good, func(f imagetest.Fixture, volume string) {
			f.Put(t, imagetest.Prefix+higher+".upd", imagetest.Prefix+higher, imagetest.WithArtifact(t, meta(8), good))
		}, false, false, true},
		{"a signed image of the original system holds it", good, func(f imagetest.Fixture, volume string) {
			f.Put(t, imagetest.Prefix+higher+".upd", imagetest.Prefix+higher, imagetest.WithArtifact(t, "", good))
		}, false, false, true},
		{"an image with a stranger's signature holds it", evil, func(f imagetest.Fixture, volume string) {
			content := imagetest.WithArtifact(t, meta(9000), evil)
			f.Put(t, imagetest.Prefix+higher+".upd", "", content)
			f.Sign(t, other, filepath.Join(f.Dir, imagetest.Prefix+higher+".upd"), content, signature.ImageComment(imagetest.Prefix+higher))
		}, false, false, false},
		{"a signed image holds another one of that number", imagetest.BzImage(8, "of a stranger"), func(f imagetest.Fixture, volume string) {
			f.Put(t, imagetest.Prefix+higher+".upd", imagetest.Prefix+higher, imagetest.WithArtifact(t, meta(8), good))
		}, false, false, false},
		{"a signed image that is damaged", good, func(f imagetest.Fixture, volume string) {
			im := f.Put(t, imagetest.Prefix+higher+".upd", imagetest.Prefix+higher, imagetest.WithArtifact(t, meta(8), good))
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
			f := imagetest.New(t)
			volume := t.TempDir()
			f.Dir = filepath.Join(volume, state.ImageDir)
			root := t.TempDir()
			for _, d := range []string{f.Dir, filepath.Join(root, "boot")} {
				if err := os.MkdirAll(d, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			fresh := imagetest.BzImage(7, "of the release")
			artifact := filepath.Join(root, "boot/norm_boot")
			for path, b := range map[string][]byte{artifact: fresh, filepath.Join(volume, "norm_boot"): c.own} {
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c.prepare(f, filepath.Join(volume, "norm_boot"))
			n, err := release.ParseName(imagetest.Prefix+released+".upd", imagetest.Prefix)
			if err != nil {
				t.Fatal(err)
			}
			m := &machine.Machine{Log: slog.New(slog.DiscardHandler), Panel: panel.New(), Site: site.Stock(), Policy: policy.Policy{AllowUnsigned: c.unsigned}, Keys: []signature.PublicKey{f.Key.Public()}}
			m.Places.Recovery = volume
			j := &restoring{Machine: m, env: jobtest.Env(m), root: root, image: image.Image{Name: n},
				goal: goal{Unit: state.Unit{ImagePrefix: imagetest.Prefix}}}
			j.env.Survey.Args.KeepRecovery = c.asked
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

// TestSwappedArtifact: what was checked is not what is read when it is copied.
func TestSwappedArtifact(t *testing.T) {
	dir := t.TempDir()
	own, artifact := filepath.Join(dir, "own"), filepath.Join(dir, "norm_boot")
	for path, b := range map[string][]byte{own: imagetest.BzImage(8, "evil"), artifact: imagetest.BzImage(7, "")} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	j := &restoring{Machine: &machine.Machine{Log: slog.New(slog.DiscardHandler)}}
	err := j.take(own, artifact, machine.Artifact{Build: 8, Monolithic: true}, [32]byte{1})
	if err == nil || !strings.Contains(err.Error(), "another one") {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(artifact); err != nil || !bytes.Equal(b, imagetest.BzImage(7, "")) {
		t.Errorf("the artifact was replaced: %v", err)
	}
}
