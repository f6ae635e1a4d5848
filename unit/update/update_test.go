package update

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/unit/image"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/keytest"
	"gprovision/unit/state"
)

const prefix = "WIDGET.LNX.SHINY."

// fixture is a recovery volume in a directory, and a directory with images.
type fixture struct {
	t      *testing.T
	key    signature.PrivateKey
	volume *state.Volume
	source string
	policy policy.Policy
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	key := keytest.New(t)
	f := &fixture{t, key, state.Open(t.TempDir()), t.TempDir(), policy.Policy{Version: 1}}
	f.write(f.volume.Path("norm_boot"), imagetest.BzImage(5, ""))
	return f
}

func (f *fixture) write(path string, b []byte) {
	f.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o600)); err != nil {
		f.t.Fatal(err)
	}
}

func name(version string) string { return prefix + version + ".upd" }

// image writes an image of that version with a boot artifact of that build. A build of 0 means no artifact. The image
// is signed under the name signedAs.
func (f *fixture) image(dir, version, signedAs string, build int) string {
	f.t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name string, content []byte) {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}); err != nil {
			f.t.Fatal(err)
		}
		w.Write(content)
	}
	add(release.MetaPath, []byte(`{"version":1,"name":"`+prefix+version+`","build":1,"bytes":4000000}`))
	if build > 0 {
		add("./boot/norm_boot", imagetest.BzImage(build, ""))
	}
	add("content", bytes.Repeat([]byte(version), 50_000))
	w.Close()
	content := imagetest.XZ(f.t, b.Bytes())
	path := filepath.Join(dir, name(version))
	f.write(path, content)
	if signedAs != "" {
		sig, err := f.key.Sign(bytes.NewReader(content), signature.ImageComment(prefix+signedAs))
		if err != nil {
			f.t.Fatal(err)
		}
		f.write(path+signature.Suffix, sig)
	}
	return path
}

func (f *fixture) take(source string, change ...func(*Options)) (Result, error) {
	return Take(f.t.Context(), f.options(source, change...))
}

func (f *fixture) takeUntil(ctx context.Context, source string, progress func(string, int64, int64)) (Result, error) {
	return Take(ctx, f.options(source, func(o *Options) { o.Progress = progress }))
}

func (f *fixture) options(source string, change ...func(*Options)) Options {
	o := Options{
		Source: source, Client: http.DefaultClient, Volume: f.volume, Policy: f.policy, Keys: []signature.PublicKey{f.key.Public()}, Prefix: prefix,
		BootFile: "norm_boot", Log: slog.New(slog.DiscardHandler), Progress: func(string, int64, int64) {}, Attempts: 1, Patience: time.Second,
	}
	for _, c := range change {
		c(&o)
	}
	return o
}

func (f *fixture) images() string {
	list, err := filepath.Glob(f.volume.Path(state.ImageDir, "*"))
	if err != nil {
		f.t.Fatal(err)
	}
	for i := range list {
		list[i] = strings.TrimPrefix(filepath.Base(list[i]), prefix)
	}
	return strings.Join(list, " ")
}

func (f *fixture) waiting() string {
	list, _ := filepath.Glob(f.volume.Path(state.FetchDir, "*"))
	for i := range list {
		list[i] = filepath.Base(list[i])
	}
	return strings.Join(list, " ")
}

// TestDamagedInside: if an image cannot be unpacked up to its boot artifact, the image is bad and not the disk, even
// though its signature is good. The image is removed, and the next call fetches it again.
func TestDamagedInside(t *testing.T) {
	const version = "2026-11-06.0001"
	whole := func(f *fixture) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		artifact := append(imagetest.BzImage(7, ""), bytes.Repeat([]byte("kernel"), 100_000)...)
		if err := w.WriteHeader(&tar.Header{Name: "boot/norm_boot", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(artifact))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(artifact); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for _, c := range []struct {
		name  string
		image func(*fixture) []byte
	}{
		{"the archive ends within the artifact", func(f *fixture) []byte { return imagetest.XZ(t, whole(f)[:300_000]) }},
		{"a block is damaged", func(f *fixture) []byte {
			b := imagetest.XZ(t, whole(f))
			b[len(b)/2] ^= 0xff
			return b
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			content := c.image(f)
			source := filepath.Join(f.source, name(version))
			f.write(source, content)
			sig, err := f.key.Sign(bytes.NewReader(content), signature.ImageComment(prefix+version))
			if err != nil {
				t.Fatal(err)
			}
			f.write(source+signature.Suffix, sig)
			_, err = f.take(source)
			if fault.Of(err) != fault.ImageCorrupt {
				t.Errorf("got %v, want %s", err, fault.ImageCorrupt.Code)
			}
			if left := f.waiting(); strings.Contains(left, ".upd") || f.images() != "" {
				t.Errorf("left are %q and %q", left, f.images())
			}
		})
	}
}

// TestSourceUnreadable: a source that cannot be read is not blamed on the unit's disk.
func TestSourceUnreadable(t *testing.T) {
	f := newFixture(t)
	source := f.image(f.source, "2026-11-07.0001", "2026-11-07.0001", 7)
	if err := os.Remove(source); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(source, 0o755); err != nil { // it can be opened but not read
		t.Fatal(err)
	}
	if _, err := f.take(source); fault.Of(err) != fault.Download {
		t.Errorf("got %v, want %s", err, fault.Download.Code)
	}
}

func TestTake(t *testing.T) {
	f := newFixture(t)
	server := httptest.NewServer(http.FileServer(http.Dir(f.source)))
	defer server.Close()
	for _, c := range []struct {
		name     string
		version  string
		signedAs string
		build    int
		policy   func(*policy.Policy)
		want     *fault.Fault
	}{
		{"good", "2026-11-02.0001", "2026-11-02.0001", 7, nil, nil},
		{"not signed", "2026-11-03.0001", "", 7, nil, fault.ImageUnsigned},
		{"not signed, and allowed", "2026-11-03.0001", "", 7, func(p *policy.Policy) { p.AllowUnsigned = true }, nil},
		{"renamed", "2026-11-04.0001", "2026-11-02.0001", 7, nil, fault.ImageSignature},
		{"too old", "2026-11-01.0001", "2026-11-01.0001", 7, func(p *policy.Policy) { p.OldestBuild = "2026-11-01.0002" }, fault.Policy},
		{"no boot artifact", "2026-11-05.0001", "2026-11-05.0001", 0, nil, fault.ImageCorrupt},
	} {
		for _, local := range []bool{true, false} {
			os.RemoveAll(f.volume.Path(state.ImageDir))
			f.policy = policy.Policy{Version: 1}
			if c.policy != nil {
				c.policy(&f.policy)
			}
			source := f.image(f.source, c.version, c.signedAs, c.build)
			if c.signedAs == "" {
				os.Remove(source + signature.Suffix)
			}
			if !local {
				source = server.URL + "/" + name(c.version) + "?token=1"
			}
			r, err := f.take(source)
			if fault.Of(err) != c.want || (err == nil) != (c.want == nil) {
				t.Errorf("%s, file %v: %v", c.name, local, err)
			}
			placed := f.images()
			if c.want != nil && placed != "" || c.want == nil && !strings.Contains(placed, c.version+".upd") || err == nil && r.Image != name(c.version) {
				t.Errorf("%s, file %v: on the volume are %q", c.name, local, placed)
			}
			if left := f.waiting(); err == nil && left != "" || strings.Contains(left, ".upd") {
				t.Errorf("%s, file %v: left is %q", c.name, local, left)
			}
		}
	}
	for _, name := range []string{"nonsense.upd", "ACME.LNX.FOX.2026-11-22.0001.upd"} { // the second belongs to another product
		if _, err := f.take(filepath.Join(f.source, name)); fault.Of(err) != fault.ImageName {
			t.Errorf("a wrong name, %s: %v", name, err)
		}
	}
	if _, err := f.take(server.URL + "/" + name("2026-12-01.0001")); fault.Of(err) != fault.ImageUnsigned {
		t.Errorf("not there: %v", err)
	}
}

func TestTakeDamaged(t *testing.T) {
	f := newFixture(t)
	source := f.image(f.source, "2026-11-02.0001", "2026-11-02.0001", 7)
	b, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	good := slices.Clone(b)
	b[len(b)/2] ^= 1
	f.write(source, b)
	if _, err := f.take(source); fault.Of(err) != fault.ImageSignature {
		t.Errorf("damaged: %v", err)
	}
	if f.images() != "" || strings.Contains(f.waiting(), ".upd") {
		t.Errorf("a damaged image is on the volume: %q, %q", f.images(), f.waiting())
	}
	// A good image replaces a damaged one on the volume, and the failures of that are forgotten.
	f.image(f.volume.Path(state.ImageDir), "2026-11-02.0001", "2026-11-02.0001", 7)
	f.write(f.volume.Path(state.ImageDir, name("2026-11-02.0001")), b)
	f.write(source, good)
	var h release.History
	for range 7 {
		h.Imaging(name("2026-11-02.0001"), false, time.Now())
	}
	hb, _ := h.Marshal()
	f.write(f.volume.Path(state.HistoryFile), hb)
	if r, err := f.take(source); err != nil || r.Present {
		t.Errorf("%+v, %v", r, err)
	}
	if hb, err = f.volume.ReadHistory(); err != nil {
		t.Fatal(err)
	}
	if h, err = release.ParseHistory(hb); err != nil || !h.Check(name("2026-11-02.0001")) {
		t.Errorf("history: %+v, %v", h, err)
	}
	if r, err := f.take(source); err != nil || !r.Present {
		t.Errorf("again: %+v, %v", r, err)
	}
}

func TestRecoveryArtifact(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct {
		version string
		build   int
		want    bool
	}{{"2026-11-02.0001", 4, false}, {"2026-11-03.0001", 5, false}, {"2026-11-04.0001", 6, true}, {"2026-11-05.0001", 6, false}} {
		f.volume.WritePending(state.Pending{})
		r, err := f.take(f.image(f.source, c.version, c.version, c.build))
		if err != nil || r.Recovery != c.want {
			t.Errorf("build %d: %+v, %v", c.build, r, err)
		}
		if p, err := f.volume.ReadPending(); err != nil || p.RecoveryArtifact != c.want {
			t.Errorf("build %d: %+v, %v", c.build, p, err)
		}
	}
	if b, err := os.ReadFile(f.volume.Path("norm_boot")); err != nil || !bytes.Equal(b, imagetest.BzImage(6, "")) {
		t.Errorf("recovery artifact: %v", err)
	}
	// The power failed after the image was put in place. The same command does the rest.
	f.write(f.volume.Path("norm_boot"), imagetest.BzImage(1, ""))
	if r, err := f.take(filepath.Join(f.source, name("2026-11-05.0001"))); err != nil || !r.Present || !r.Recovery {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestRoom(t *testing.T) {
	f := newFixture(t)
	images := f.volume.Path(state.ImageDir)
	for _, v := range []string{"2026-11-01.0001", "2026-11-02.0001", "2026-11-03.0001", "2026-11-04.0001", "2026-11-05.0001", "2026-11-06.0001"} {
		f.image(images, v, v, 1)
	}
	for _, stray := range []string{"Image/" + name("2026-11-07.0001") + ".part", "Image/x.part.json", "fetch/" + name("2026-10-07.0001") + ".part", "fetch/x/y"} {
		f.write(f.volume.Path(stray), []byte("x"))
	}
	r, err := state.NewRequest(state.KindRestore, name("2026-11-03.0001"), "test", time.Now())
	if err == nil {
		err = f.volume.WriteRequest(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.take(f.image(f.source, "2026-11-08.0001", "2026-11-08.0001", 1), func(o *Options) {
		o.Original, o.Running = name("2026-11-02.0001"), name("2026-11-04.0001")
	})
	if err != nil || !slices.Equal(got.Removed, []string{name("2026-11-05.0001")}) {
		t.Errorf("%+v, %v", got, err)
	}
	if left := f.images(); strings.Contains(left, "2026-11-05") || strings.Contains(left, ".part") || !strings.Contains(left, "2026-11-08") || f.waiting() != "" {
		t.Errorf("on the volume are %q and %q", left, f.waiting())
	}
}

// TestNoSpace: what would fill the volume is refused before any of it arrives.
func TestNoSpace(t *testing.T) {
	f := newFixture(t)
	f.image(f.volume.Path(state.ImageDir), "2026-11-01.0001", "2026-11-01.0001", 1)
	source := f.image(f.source, "2026-11-02.0001", "2026-11-02.0001", 7)
	server := httptest.NewServer(http.FileServer(http.Dir(f.source)))
	defer server.Close()
	for _, from := range []string{source, server.URL + "/" + name("2026-11-02.0001")} {
		if _, err := f.take(from, func(o *Options) { o.Reserve = 1 << 60 }); fault.Of(err) != fault.NoSpace {
			t.Errorf("%s: %v", from, err)
		}
		if f.waiting() != "" || f.images() != "2026-11-01.0001.upd 2026-11-01.0001.upd.minisig" {
			t.Errorf("%s: on the volume are %q and %q", from, f.images(), f.waiting())
		}
	}
}

// TestInterrupted: a broken connection, or a power cut at any place, costs only another call.
func TestInterrupted(t *testing.T) {
	f := newFixture(t)
	source := f.image(f.source, "2026-11-02.0001", "2026-11-02.0001", 7)
	whole, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	cut := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, signature.Suffix) {
			http.ServeFile(w, r, source+signature.Suffix)
			return
		}
		w.Header().Set("ETag", `"1"`)
		if cut {
			w.Header().Set("Content-Length", fmt.Sprint(len(whole)))
			w.Write(whole[:len(whole)/2])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(whole))
	}))
	defer server.Close()
	address := server.URL + "/" + name("2026-11-02.0001")
	if _, err := f.take(address); fault.Of(err) != fault.DownloadTruncated {
		t.Fatalf("cut: %v", err)
	}
	if got := f.waiting(); !strings.Contains(got, ".upd.part.json") || f.images() != "" {
		t.Errorf("waiting: %q, images: %q", got, f.images())
	}
	cut = false
	if r, err := f.take(address); err != nil || r.Resumed == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	// It is complete but not yet proven.
	os.RemoveAll(f.volume.Path(state.ImageDir))
	f.write(f.volume.Path(state.FetchDir, name("2026-11-02.0001")), whole)
	server.Config.Handler = http.NotFoundHandler()
	if r, err := f.take(source); err != nil || r.Present {
		t.Errorf("%+v, %v", r, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Take(ctx, f.options(source)); err == nil {
		t.Error("cancelled, and done all the same")
	}
	if !strings.Contains(f.images(), "2026-11-02.0001.upd") {
		t.Error("a call that was cancelled lost the image")
	}
}

// TestCancelledAnywhere cancels a call at every place where it checks for that, again and again on the same volume.
// No image is ever in place without being good. The last call, which nothing disturbs, does the rest.
func TestCancelledAnywhere(t *testing.T) {
	f := newFixture(t)
	source := f.image(f.source, "2026-11-02.0001", "2026-11-02.0001", 7)
	whole, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		http.FileServer(http.Dir(f.source)).ServeHTTP(w, r)
	}))
	defer server.Close()
	for _, from := range []string{source, server.URL + "/" + name("2026-11-02.0001")} {
		given := 0
		for n := 0; ; n++ {
			ctx, cancel := context.WithCancel(t.Context())
			calls := 0
			_, err := f.takeUntil(ctx, from, func(string, int64, int64) {
				if calls++; calls > n {
					cancel()
				}
			})
			cancel()
			if err == nil && calls <= n {
				break
			}
			if err != nil {
				given++
			}
			placed, readErr := os.ReadFile(f.volume.Path(state.ImageDir, name("2026-11-02.0001")))
			if readErr == nil && (!bytes.Equal(placed, whole) || !strings.Contains(f.images(), ".upd.minisig")) {
				t.Fatalf("given up after %d: on the volume are %q, and the image has %d bytes", n, f.images(), len(placed))
			}
			if n%2 == 0 { // with and without what the previous call left
				os.RemoveAll(f.volume.Path(state.FetchDir))
			}
			if n > 10_000 {
				t.Fatal("it does not end")
			}
			os.RemoveAll(f.volume.Path(state.ImageDir))
		}
		if given < 3 {
			t.Errorf("%s: given up %d times only", from, given)
		}
		if !strings.Contains(f.images(), "2026-11-02.0001.upd") || f.waiting() != "" {
			t.Errorf("%s: at the end are %q and %q", from, f.images(), f.waiting())
		}
		if b, err := os.ReadFile(f.volume.Path("norm_boot")); err != nil || !bytes.Equal(b, imagetest.BzImage(7, "")) {
			t.Errorf("%s: recovery artifact: %v", from, err)
		}
		f.write(f.volume.Path("norm_boot"), imagetest.BzImage(5, ""))
		os.RemoveAll(f.volume.Path(state.ImageDir))
	}
}

// TestUnsignedArtifact: the boot artifact of an unsigned image does not become the recovery artifact just because of
// its own number.
func TestUnsignedArtifact(t *testing.T) {
	f := newFixture(t)
	f.policy.AllowUnsigned = true
	have, err := os.ReadFile(f.volume.Path("norm_boot"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.take(f.image(f.source, "2026-11-06.0001", "", 1000))
	if err != nil || r.Recovery {
		t.Errorf("%+v, %v", r, err)
	}
	if b, err := os.ReadFile(f.volume.Path("norm_boot")); err != nil || !bytes.Equal(b, have) {
		t.Errorf("the recovery artifact is another one: %v", err)
	}
	if p, err := f.volume.ReadPending(); err != nil || p.RecoveryArtifact {
		t.Errorf("%+v, %v", p, err)
	}
	// A unit without a recovery artifact takes what there is: otherwise it could restore nothing.
	f.write(f.volume.Path("norm_boot"), []byte("damaged"))
	if r, err := f.take(filepath.Join(f.source, name("2026-11-06.0001"))); err != nil || !r.Recovery {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestLookInsideAgain: if an image differs from the proven one when its boot artifact is extracted, it gives none.
func TestLookInsideAgain(t *testing.T) {
	f := newFixture(t)
	source := f.image(f.source, "2026-11-07.0001", "2026-11-07.0001", 4)
	evil, err := os.ReadFile(f.image(t.TempDir(), "2026-11-07.0001", "", 9))
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(source); err != nil || st.Size() != int64(len(evil)) {
		t.Fatalf("the two images are to have the same size: %v", err)
	}
	changed := false
	_, err = f.takeUntil(t.Context(), source, func(stage string, done, total int64) {
		if stage == "look inside" && !changed {
			changed = true
			f.write(f.volume.Path(state.FetchDir, name("2026-11-07.0001")), evil)
		}
	})
	if !changed || err != nil && fault.Of(err) != fault.ImageCorrupt {
		t.Errorf("changed %t: got %v", changed, err)
	}
	if b, err := os.ReadFile(f.volume.Path("norm_boot")); err != nil || bytes.Equal(b, imagetest.BzImage(9, "")) {
		t.Errorf("the recovery artifact comes from an image that nobody proved: %v", err)
	}
}

// TestTooLarge: an image that no restore could write to the main disk is refused, and nothing of it is kept.
func TestTooLarge(t *testing.T) {
	f := newFixture(t)
	source := f.image(f.source, "2026-11-02.0001", "2026-11-02.0001", 7)
	room := func(blocks int64) func(*Options) {
		return func(o *Options) {
			o.Room = func(context.Context, filesystem.Need) (filesystem.Need, error) {
				return filesystem.Need{Inodes: 1 << 20, Blocks: blocks}, nil
			}
		}
	}
	if _, err := f.take(source, room(4000)); fault.Of(err) != fault.DiskTooSmall || !errors.Is(err, image.ErrNoRoom) {
		t.Errorf("got %v", err)
	}
	if f.images() != "" || strings.Contains(f.waiting(), ".upd") {
		t.Errorf("on the volume are %q and %q", f.images(), f.waiting())
	}
	if _, err := f.take(source, room(1<<20)); err != nil {
		t.Error(err)
	}
	if _, err := f.take(source, room(4000)); fault.Of(err) != fault.DiskTooSmall { // a smaller disk has replaced the old one
		t.Errorf("got %v", err)
	}
}

// TestResignedOriginal: the key of an original image was revoked. The image is fetched again with a signature by a
// key that stays, and replaces the one on the volume. Before the revocation the old one is good enough and stays.
func TestResignedOriginal(t *testing.T) {
	f := newFixture(t)
	const version = "2026-11-01.0001"
	placed := f.image(f.volume.Path(state.ImageDir), version, version, 5)
	leaked := f.key.Public()
	key := keytest.New(t)
	f.key = key
	source := f.image(f.source, version, version, 5)
	resigned, err := os.ReadFile(source + signature.Suffix)
	if err != nil {
		t.Fatal(err)
	}
	original := func(o *Options) { o.Original = name(version) }
	for _, c := range []struct {
		when    string
		keys    []signature.PublicKey
		present bool
	}{
		{"before the revocation", []signature.PublicKey{leaked, key.Public()}, true},
		{"after the revocation", []signature.PublicKey{key.Public()}, false},
		{"once more", []signature.PublicKey{key.Public()}, true},
	} {
		r, err := f.take(source, original, func(o *Options) { o.Keys = c.keys })
		if err != nil || r.Present != c.present {
			t.Fatalf("%s: %+v, %v, want present %t", c.when, r, err, c.present)
		}
	}
	if got, err := os.ReadFile(placed + signature.Suffix); err != nil || !bytes.Equal(got, resigned) {
		t.Errorf("the signature on the volume is not the new one: %v", err)
	}
}
