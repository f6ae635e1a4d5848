package image_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"gprovision/hw/filesystem"
	"gprovision/hw/raid"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/model/signature"
	"gprovision/unit/image"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/state"
)

// base and other are names of images, without .upd.
const base, other = imagetest.Prefix + "2026-11-01.0001", imagetest.Prefix + "2026-11-02.0001"

// TestGlance: a glance finds what speaks against an image, except for what is inside.
func TestGlance(t *testing.T) {
	f, stranger := imagetest.New(t), imagetest.New(t)
	good := imagetest.XZ(t, imagetest.Tar(t, ""))
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	overwrite := func(file string, b []byte) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		content  []byte
		signedAs string
		change   func(im image.Image)
		policy   policy.Policy
		want     *fault.Fault
	}{
		"signed":               {good, base, nil, policy.Policy{}, nil},
		"damaged inside":       {flipped, base, nil, policy.Policy{}, nil},
		"unsigned":             {good, "", nil, policy.Policy{}, fault.ImageUnsigned},
		"unsigned, allowed":    {good, "", nil, policy.Policy{AllowUnsigned: true}, nil},
		"of another name":      {good, other, nil, policy.Policy{AllowUnsigned: true}, fault.ImageSignature},
		"too old":              {good, base, nil, policy.Policy{OldestBuild: "2026-11-02.0001"}, fault.Policy},
		"a policy in disarray": {good, base, nil, policy.Policy{OldestBuild: "yesterday"}, fault.Policy},
		"no xz file":           {[]byte("some text, longer than a header"), base, nil, policy.Policy{}, fault.ImageCorrupt},
		"a stranger's signature": {good, "", func(im image.Image) {
			f.Sign(t, stranger.Key, im.Path, good, signature.ImageComment(base))
		}, policy.Policy{AllowUnsigned: true}, fault.ImageSignature},
		"no signature at all": {good, base, func(im image.Image) { overwrite(im.Path+signature.Suffix, []byte("no signature")) },
			policy.Policy{AllowUnsigned: true}, fault.ImageSignature},
		"a signature without end": {good, base, func(im image.Image) { overwrite(im.Path+signature.Suffix, make([]byte, signature.MaxSize+1)) },
			policy.Policy{AllowUnsigned: true}, fault.ImageCorrupt},
		"a link": {good, base, func(im image.Image) {
			if err := errors.Join(os.Rename(im.Path, im.Path+"2"), os.Symlink(im.Path+"2", im.Path)); err != nil {
				t.Fatal(err)
			}
		}, policy.Policy{}, fault.ImageCorrupt},
		"it is gone": {good, base, func(im image.Image) {
			if err := im.Remove(); err != nil {
				t.Fatal(err)
			}
		}, policy.Policy{}, fault.ImageCorrupt},
	} {
		f.Dir = t.TempDir()
		im := f.Put(t, base+".upd", c.signedAs, c.content)
		if c.change != nil {
			c.change(im)
		}
		if err := image.Glance(im, c.policy, []signature.PublicKey{f.Key.Public()}); fault.Of(err) != c.want || (err == nil) != (c.want == nil) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

// TestRemove: removing an image removes its signature and nothing else.
func TestRemove(t *testing.T) {
	f := imagetest.New(t)
	im := f.Put(t, base+".upd", base, []byte("x"))
	f.Put(t, other+".upd", other, []byte("x"))
	if err := im.Remove(); err != nil {
		t.Fatal(err)
	}
	if err := im.Remove(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is removed twice: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(f.Dir, "*"))
	file := filepath.Join(f.Dir, other+".upd")
	if want := []string{file, file + signature.Suffix}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left are %q, %v", left, err)
	}
	unsigned := f.Put(t, base+".upd", "", []byte("x"))
	if err := unsigned.Remove(); err != nil {
		t.Errorf("an image without a signature: %v", err)
	}
}

// TestRoom: what a release and a restore need, and what a main system has room for.
func TestRoom(t *testing.T) {
	need := filesystem.Need{Inodes: 100, Blocks: 1000}
	const artifact = 40 << 20
	uefi, bios := image.Beside(need, layout.UEFI, artifact), image.Beside(need, layout.BIOS, artifact)
	if uefi.Blocks < need.Blocks+artifact/4096 || uefi.Inodes <= need.Inodes {
		t.Errorf("there is no place for a new boot artifact: %+v", uefi)
	}
	if bios.Blocks < uefi.Blocks+2*artifact/4096 { // GRUB's own copies, old and new
		t.Errorf("there is no place for what GRUB starts: %+v", bios)
	}
	if err := image.CheckRoom(need, need); err != nil {
		t.Errorf("what fits exactly: %v", err)
	}
	for _, room := range []filesystem.Need{{Inodes: 99, Blocks: 1000}, {Inodes: 100, Blocks: 999}} {
		if err := image.CheckRoom(need, room); fault.Of(err) != fault.DiskTooSmall || !errors.Is(err, image.ErrNoRoom) {
			t.Errorf("%+v in %+v: %v", need, room, err)
		}
	}
	asked := false
	run := func(context.Context, string, ...string) ([]byte, int, error) { asked = true; return nil, 1, nil }
	for _, size := range []int64{0, 1 << 40} { // unknown; large beyond doubt
		if room, err := image.Room(t.Context(), run, size, need); err != nil || !need.Fits(room) || asked {
			t.Errorf("%d bytes: %+v, asked %t, %v", size, room, asked, err)
		}
	}
	if _, err := image.Room(t.Context(), run, 4<<20, need); err == nil || !asked {
		t.Errorf("a small disk is not looked at: %v", err)
	}
}

// TestMainSize: the size of the main system by the record.
func TestMainSize(t *testing.T) {
	disk := func(role layout.Role, gib int64) state.Disk {
		return state.Disk{Table: layout.Table{Partitions: []layout.Partition{{Role: layout.ESP, Size: 1}, {Role: role, Size: gib * layout.GiB}}}}
	}
	mirror := &state.Array{Level: 1}
	for _, c := range []struct {
		unit state.Unit
		want int64
	}{
		{state.Unit{Main: []state.Disk{disk(layout.Primary, 8)}}, 8 * layout.GiB},
		{state.Unit{Main: []state.Disk{disk(layout.Member, 8)}}, 0},
		{state.Unit{Array: mirror, Main: []state.Disk{disk(layout.Member, 8), disk(layout.Member, 6)}}, raid.Size(1, 2, 6*layout.GiB)},
		{state.Unit{Array: mirror, Main: []state.Disk{disk(layout.Member, 8), disk(layout.Primary, 6)}}, 0},
	} {
		if got := image.MainSize(c.unit); got != c.want {
			t.Errorf("%+v: %d bytes, want %d", c.unit, got, c.want)
		}
	}
}

// TestSignedArtifact: the signature beside a boot artifact covers this product, this build number and every byte.
func TestSignedArtifact(t *testing.T) {
	f, stranger := imagetest.New(t), imagetest.New(t)
	artifact := imagetest.BzImage(8, "")
	for name, c := range map[string]struct {
		key     signature.PrivateKey
		of      []byte
		comment string
		want    bool
	}{
		"good":            {f.Key, artifact, signature.ArtifactComment(imagetest.Prefix, 8), true},
		"another build":   {f.Key, artifact, signature.ArtifactComment(imagetest.Prefix, 9), false},
		"another product": {f.Key, artifact, signature.ArtifactComment("OTHER.LNX.FOX.", 8), false},
		"another key":     {stranger.Key, artifact, signature.ArtifactComment(imagetest.Prefix, 8), false},
		"other bytes":     {f.Key, imagetest.BzImage(8, "x"), signature.ArtifactComment(imagetest.Prefix, 8), false},
	} {
		file := filepath.Join(t.TempDir(), "norm_boot")
		if err := os.WriteFile(file, artifact, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := image.SignedArtifact(file, 8, imagetest.Prefix, []signature.PublicKey{f.Key.Public()}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: without a signature: %v", name, err)
		}
		f.Sign(t, c.key, file, c.of, c.comment)
		sum, err := image.SignedArtifact(file, 8, imagetest.Prefix, []signature.PublicKey{f.Key.Public()})
		if (err == nil) != c.want || c.want && sum != sha256.Sum256(artifact) {
			t.Errorf("%s: %x, %v", name, sum, err)
		}
	}
}

// TestHolds: a signed image vouches for a file in it. An image that claims to hold another build is not even read.
func TestHolds(t *testing.T) {
	f := imagetest.New(t)
	artifact := imagetest.BzImage(8, "")
	meta := func(boot int) string {
		return fmt.Sprintf(`{"version":1,"name":%q,"build":1,"bytes":4000000,"bootBuild":%d}`, base, boot)
	}
	damaged := func(b []byte) []byte { b = bytes.Clone(b); b[len(b)-1] ^= 1; return b }
	holding := func(meta string) []byte { return imagetest.WithArtifact(t, meta, artifact) }
	const file = "/boot/norm_boot"
	sum := sha256.Sum256(artifact)
	for name, c := range map[string]struct {
		content  []byte
		signedAs string
		file     string
		sum      [sha256.Size]byte
		want     bool
		read     bool
		fails    bool
	}{
		"holds it":           {holding(meta(8)), base, file, sum, true, true, false},
		"an original image":  {holding(""), base, file, sum, true, true, false},
		"at another place":   {holding(meta(8)), base, "/boot/other", sum, false, true, false},
		"another content":    {holding(meta(8)), base, file, sha256.Sum256(nil), false, true, false},
		"another build":      {holding(meta(9)), base, file, sum, false, false, false},
		"unsigned":           {holding(meta(8)), "", file, sum, false, false, false},
		"signed for another": {holding(meta(8)), other, file, sum, false, false, true},
		"damaged":            {damaged(holding(meta(8))), base, file, sum, false, true, true},
	} {
		f.Dir = t.TempDir()
		im := f.Put(t, base+".upd", c.signedAs, c.content)
		began, ended := false, false
		begin := func() (func(int64), func()) { began = true; return func(int64) {}, func() { ended = true } }
		keys := []signature.PublicKey{f.Key.Public()}
		got, err := image.Holds(t.Context(), im, policy.Policy{AllowUnsigned: true}, keys, c.file, 8, c.sum, begin)
		if got != c.want || (err != nil) != c.fails || began != c.read || ended != began {
			t.Errorf("%s: holds it %t, read %t, ended %t, %v", name, got, began, ended, err)
		}
	}
}

// TestEachFile: the files of an image come with absolute paths, until the caller has enough.
func TestEachFile(t *testing.T) {
	f := imagetest.New(t)
	im := f.Put(t, base+".upd", "", imagetest.XZ(t, imagetest.System(t, base)))
	file, err := os.Open(im.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var names []string
	all := func(name string, size int64, r io.Reader) (bool, error) {
		if n, err := io.Copy(io.Discard, r); n != size || err != nil {
			t.Errorf("%s has %d of %d bytes, %v", name, n, size, err)
		}
		names = append(names, name)
		return true, nil
	}
	err = image.EachFile(t.Context(), file, im, all)
	if err != nil || !slices.Contains(names, "/boot/norm_boot") || slices.Contains(names, "/etc") {
		t.Errorf("files %q, %v", names, err)
	}
	n, enough := 0, errors.New("enough")
	for _, end := range []error{nil, enough} {
		err := image.EachFile(t.Context(), file, im, func(string, int64, io.Reader) (bool, error) { n++; return false, end })
		if !errors.Is(err, end) {
			t.Errorf("got %v", err)
		}
	}
	if n != 2 {
		t.Errorf("asked %d times, want twice", n)
	}
}
