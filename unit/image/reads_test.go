package image_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/unit/image"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/state"
)

// TestProgress: who waits for a proof sees how much of the file was read, up to its end, and can stop it.
func TestProgress(t *testing.T) {
	f := imagetest.New(t)
	keys := []signature.PublicKey{f.Key.Public()}
	for i, signedAs := range []string{"", imagetest.Prefix + "2026-11-02.0001"} {
		im := f.Put(t, fmt.Sprintf("%s2026-11-%02d.0001.upd", imagetest.Prefix, i+1), signedAs, imagetest.XZ(t, imagetest.Tar(t, "")))
		var seen []int64
		err := image.Prove(t.Context(), im, policy.Policy{AllowUnsigned: true}, keys, func(n int64) { seen = append(seen, n) })
		if err != nil || len(seen) < 2 || !slices.Contains(seen, im.Size) || slices.Max(seen) > im.Size {
			t.Errorf("%q: %v, of %d bytes %v", signedAs, err, im.Size, seen)
		}
		ctx, stop := context.WithCancel(t.Context())
		err = image.Prove(ctx, im, policy.Policy{AllowUnsigned: true}, keys, func(int64) { stop() })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%q, stopped: %v", signedAs, err)
		}
		stop()
	}
}

// counted is a file that counts how often it is read.
type counted struct {
	io.ReaderAt
	n atomic.Int64
}

func (c *counted) ReadAt(b []byte, at int64) (int, error) {
	c.n.Add(1)
	return c.ReaderAt.ReadAt(b, at)
}

// TestReadOnce: what is read in small pieces through a proof is read and hashed once, and nothing is read before its beginning.
func TestReadOnce(t *testing.T) {
	f := imagetest.New(t)
	base := imagetest.Prefix + "2026-11-01.0001"
	im := f.Put(t, base+".upd", base, imagetest.XZ(t, imagetest.Tar(t, "")))
	was, _, err := image.Proven(t.Context(), im, policy.Policy{}, []signature.PublicKey{f.Key.Public()}, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(im.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	c := &counted{ReaderAt: file}
	r := was.Reader(c)
	for at := range im.Size {
		if n, err := r.ReadAt(make([]byte, 1), at); n != 1 || err != nil {
			t.Fatalf("byte %d: %d, %v", at, n, err)
		}
	}
	if want := (im.Size + chunk - 1) / chunk; c.n.Load() != want {
		t.Errorf("%d reads, want %d", c.n.Load(), want)
	}
	if n, err := r.ReadAt(make([]byte, 1), -1); n != 0 || err == nil {
		t.Errorf("before the beginning: %d, %v", n, err)
	}
}

// TestProofInPieces: in which pieces an image was read for its signature makes no difference to its proof.
func TestProofInPieces(t *testing.T) {
	content := make([]byte, 3*chunk)
	for i := range content {
		content[i] = byte(i >> 9)
	}
	for _, piece := range []int{1000, chunk - 1, chunk, chunk + 1, 2 * chunk, 3 * chunk} {
		var p image.Proof
		for b := range slices.Chunk(content, piece) {
			if n, err := p.Write(b); n != len(b) || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
		}
		b := make([]byte, len(content))
		if _, err := p.Reader(bytes.NewReader(content)).ReadAt(b, 0); err != nil || !bytes.Equal(b, content) {
			t.Errorf("in pieces of %d: %v", piece, err)
		}
	}
}

// TestRemoveInVain: what cannot be removed or listed is told.
func TestRemoveInVain(t *testing.T) {
	f := imagetest.New(t)
	im := f.Put(t, base+".upd", "", nil)
	if err := os.MkdirAll(filepath.Join(im.Path+signature.Suffix, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"the signature stays", "the image is gone"} {
		if im.Remove() == nil {
			t.Errorf("%s, and that is no error", what)
		}
	}
	if err := os.WriteFile(filepath.Join(f.Dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := image.List(filepath.Join(f.Dir, "file"), imagetest.Prefix, false); err == nil {
		t.Error("the images of a file")
	}
}

// TestGoBackFarther: one that only failed is not gone back to, nor one that was removed.
func TestGoBackFarther(t *testing.T) {
	name := func(n uint64) release.Name {
		return release.Name{Prefix: "A.B.C.", Date: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), Build: n}
	}
	var h release.History
	for n, good := range map[uint64]bool{9: true, 4: false} {
		h.Boot(name(n).Base(), good, 0, time.Unix(0, 0), "")
	}
	if got := image.GoBack([]release.Name{name(4), name(3), name(2)}, h, name(3).Base()); got != name(2).String() {
		t.Errorf("got %q", got)
	}
	h.Boot(name(2).Base(), true, 0, time.Unix(0, 0), "")
	for range release.MaxFailures + 1 {
		h.Imaging(name(2).Base(), false, time.Unix(0, 0))
	}
	if got := image.GoBack([]release.Name{name(3), name(2), name(1)}, h, name(3).Base()); got != name(1).String() {
		t.Errorf("got %q, though it cannot be written", got)
	}
}

// TestNeeds: what a restore puts beside a release, and how large a main system is by the record.
func TestNeeds(t *testing.T) {
	none := image.Beside(filesystem.Need{}, layout.UEFI, 0)
	for fw, want := range map[layout.Firmware]int64{layout.UEFI: 10, layout.BIOS: 3*11 - 1} {
		got := image.Beside(filesystem.Need{Inodes: 5, Blocks: 7}, fw, 10*4096+5)
		if got.Blocks-none.Blocks != want+7 || got.Inodes-none.Inodes != 5 {
			t.Errorf("%s: %+v, beside nothing %+v", fw, got, none)
		}
	}
	disk := func(role layout.Role, size int64) state.Disk {
		return state.Disk{Table: layout.Table{Partitions: []layout.Partition{{Role: role, Size: size}}}}
	}
	for i, c := range []struct {
		u    state.Unit
		want int64
	}{
		{state.Unit{Main: []state.Disk{disk(layout.Primary, 5)}}, 5}, {state.Unit{}, 0}, {state.Unit{Main: []state.Disk{disk(layout.ESP, 5)}}, 0},
		{state.Unit{Array: &state.Array{}, Main: []state.Disk{disk(layout.Member, 5), disk(layout.Primary, 5)}}, 0},
	} {
		if got := image.MainSize(c.u); got != c.want {
			t.Errorf("%d: %d, want %d", i, got, c.want)
		}
	}
	small := []state.Disk{disk(layout.Member, 9<<30), disk(layout.Member, 4<<30), disk(layout.Member, 8<<30)}
	least := []state.Disk{small[1], small[1], small[1]}
	array := &state.Array{Level: 5}
	if a, b := image.MainSize(state.Unit{Array: array, Main: small}), image.MainSize(state.Unit{Array: array, Main: least}); a != b || a == 0 {
		t.Errorf("an array is %d bytes, with its smallest disks %d", a, b)
	}
	if err := image.CheckRoom(filesystem.Need{Blocks: 2}, filesystem.Need{Blocks: 1, Inodes: 1}); fault.Of(err) != fault.DiskTooSmall {
		t.Errorf("no room: %v", err)
	}
}
