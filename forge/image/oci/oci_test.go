package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"gprovision/model/edit"
)

func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("GPROV_NO_SKIP") == "1" {
				t.Fatalf("program %s is missing", p)
			}
			t.Skipf("program %s is missing", p)
		}
	}
}

var when = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

// item is an entry of a layer: "dir/", "name=content", "name->target", "name=>hard link".
func item(t testing.TB, w *tar.Writer, s string) {
	t.Helper()
	h := &tar.Header{Name: s, Mode: 0o644, ModTime: when}
	content := ""
	switch {
	case strings.HasSuffix(s, "/"):
		h.Typeflag, h.Mode = tar.TypeDir, 0o755
	case strings.Contains(s, "=>"):
		h.Typeflag = tar.TypeLink
		h.Name, h.Linkname, _ = strings.Cut(s, "=>")
	case strings.Contains(s, "->"):
		h.Typeflag = tar.TypeSymlink
		h.Name, h.Linkname, _ = strings.Cut(s, "->")
	default:
		h.Typeflag = tar.TypeReg
		h.Name, content, _ = strings.Cut(s, "=")
		h.Size = int64(len(content))
		if content != "" {
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": "y\x00z"}
			h.Format = tar.FormatPAX
		}
	}
	if err := w.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
}

func layerTar(t testing.TB, items ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, s := range items {
		item(t, w, s)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func pack(t testing.TB, how int, b []byte) ([]byte, string) {
	t.Helper()
	var out bytes.Buffer
	switch how % 3 {
	case 1:
		w := gzip.NewWriter(&out)
		w.Write(b)
		w.Close()
		return out.Bytes(), "application/vnd.oci.image.layer.v1.tar+gzip"
	case 2:
		w, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(b)
		w.Close()
		return out.Bytes(), "application/vnd.oci.image.layer.v1.tar+zstd"
	}
	return b, "application/vnd.oci.image.layer.v1.tar"
}

// layout is an image layout as a map of files.
type layout map[string][]byte

func (l layout) blob(b []byte, mediaType string) map[string]any {
	d := digest(b)
	l["blobs/sha256/"+strings.TrimPrefix(d, "sha256:")] = b
	return map[string]any{"mediaType": mediaType, "digest": d, "size": len(b)}
}

func (l layout) json(t testing.TB, v any, mediaType string) map[string]any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return l.blob(b, mediaType)
}

// image adds an image and returns its descriptor. The layers are compressed each in another way.
func (l layout) image(t testing.TB, arch string, layers ...[]byte) map[string]any {
	t.Helper()
	var ids []string
	var descs []any
	for i, b := range layers {
		ids = append(ids, digest(b))
		packed, kind := pack(t, i, b)
		descs = append(descs, l.blob(packed, kind))
	}
	c := l.json(t, map[string]any{"os": "linux", "architecture": arch, "rootfs": map[string]any{"type": "layers", "diff_ids": ids}}, "application/vnd.oci.image.config.v1+json")
	return l.json(t, map[string]any{"schemaVersion": 2, "config": c, "layers": descs}, "application/vnd.oci.image.manifest.v1+json")
}

func (l layout) index(t testing.TB, manifests ...map[string]any) layout {
	t.Helper()
	b, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": manifests})
	if err != nil {
		t.Fatal(err)
	}
	l["index.json"] = b
	l["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	return l
}

func (l layout) dir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for n, b := range l {
		p := filepath.Join(dir, n)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (l layout) tar(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var names []string
	for n := range l {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		if to, ok := strings.CutPrefix(string(l[n]), "link:"); ok {
			w.WriteHeader(&tar.Header{Name: n, Typeflag: tar.TypeSymlink, Linkname: to})
			continue
		}
		if err := w.WriteHeader(&tar.Header{Name: n, Typeflag: tar.TypeReg, Size: int64(len(l[n])), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		w.Write(l[n])
	}
	w.Close()
	return b.Bytes()
}

func named(d map[string]any, arch, name string) map[string]any {
	out := map[string]any{}
	for k, v := range d {
		out[k] = v
	}
	if arch != "" {
		out["platform"] = map[string]any{"os": "linux", "architecture": arch}
	}
	if name != "" {
		out["annotations"] = map[string]any{"org.opencontainers.image.ref.name": name}
	}
	return out
}

// content lists what a merged stream has: "name kind content".
func content(t testing.TB, im *Image) ([]string, error) {
	t.Helper()
	defer im.Close()
	r, err := im.Open(context.Background())
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var out []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(h.Name, "/")
		switch h.Typeflag {
		case tar.TypeDir:
			out = append(out, name+"/")
		case tar.TypeSymlink:
			out = append(out, name+"->"+h.Linkname)
		case tar.TypeLink:
			out = append(out, name+"=>"+h.Linkname)
		default:
			out = append(out, name+"="+string(b))
			if len(b) > 0 && h.PAXRecords["SCHILY.xattr.user.x"] != "y\x00z" {
				t.Errorf("%s: its extended attribute is lost: %v", name, h.PAXRecords)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

func TestMerge(t *testing.T) {
	tests := []struct {
		name   string
		layers [][]string
		want   []string
	}{
		{"one", [][]string{{"./", "./a/", "./a/b=1", "c->a"}}, []string{"./", "a/", "a/b=1", "c->a"}},
		{"replace", [][]string{{"a=1", "b=1"}, {"a=2"}}, []string{"a=2", "b=1"}},
		{"whiteout", [][]string{{"d/", "d/a=1", "d/b=1"}, {"d/", "d/.wh.a="}}, []string{"d/", "d/b=1"}},
		{"whiteout of a directory", [][]string{{"d/", "d/a=1", "x=1"}, {".wh.d="}}, []string{"x=1"}},
		{"whiteout, then again", [][]string{{"d/", "d/a=1"}, {".wh.d=", "d/", "d/n=2"}}, []string{"d/", "d/n=2"}},
		{"whiteout is for lower layers only", [][]string{{"a=1"}, {"a=2", ".wh.a="}}, []string{"a=2"}},
		{"whiteout of nothing there", [][]string{{"a=1"}, {".wh.b=", "q/.wh.c="}}, []string{"a=1"}},
		{"opaque", [][]string{{"d/", "d/a=1", "d/s/", "d/s/x=1"}, {"d/", "d/n=2", "d/.wh..wh..opq="}}, []string{"d/", "d/n=2"}},
		{"aufs files", [][]string{{"a=1", ".wh..wh.plnk/", ".wh..wh.aufs=", ".wh..wh.plnk/5=x"}}, []string{"a=1"}},
		{"file for directory", [][]string{{"d/", "d/a=1"}, {"d=2"}}, []string{"d=2"}},
		{"directory for file", [][]string{{"d=1"}, {"d/", "d/a=2"}}, []string{"d/", "d/a=2"}},
		{"directory stays", [][]string{{"d/", "d/a=1"}, {"d/", "d/b=2"}}, []string{"d/", "d/a=1", "d/b=2"}},
		{"hard link", [][]string{{"a=1", "b=>a"}}, []string{"a=1", "b=>a"}},
		{"hard link to a lower layer", [][]string{{"a=1"}, {"b=>a"}}, []string{"a=1", "b=>a"}},
		{"one name of two replaced", [][]string{{"a=1", "b=>a", "c=>a"}, {"a=2"}}, []string{"a=2", "b=1", "c=>b"}},
		{"one name of two gone", [][]string{{"a=1", "b=>a"}, {".wh.a="}}, []string{"b=1"}},
		{"through a link", [][]string{{"usr/", "usr/lib/", "lib->usr/lib"}, {"lib/x=1", "lib/.wh.y="}}, []string{"lib->usr/lib", "usr/", "usr/lib/", "usr/lib/x=1"}},
		{"whiteout through a link", [][]string{{"usr/", "usr/y=1", "lib->/usr"}, {"lib/.wh.y="}}, []string{"lib->/usr", "usr/"}},
		{"link out of the top", [][]string{{"l->../../../etc", "etc/"}, {"l/x=1"}}, []string{"etc/", "etc/x=1", "l->../../../etc"}},
		{"absolute names", [][]string{{"/", "/a/", "/a/b=1"}}, []string{"./", "a/", "a/b=1"}},
		{"empty layer", [][]string{{"a=1"}, {}}, []string{"a=1"}},
		{"same name twice in a layer", [][]string{{"a=1", "a=2"}}, []string{"a=2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var layers [][]byte
			for _, l := range tt.layers {
				layers = append(layers, layerTar(t, l...))
			}
			l := layout{}
			im, err := OpenDir(l.index(t, l.image(t, "amd64", layers...)).dir(t), "")
			if err != nil {
				t.Fatal(err)
			}
			got, err := content(t, im)
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %q, %v\nwant %q", got, err, tt.want)
			}
		})
	}
}

func TestMergeRefuses(t *testing.T) {
	for _, layers := range [][][]string{
		{{"../x=1"}}, {{"a/../../x=1"}}, {{"b=>a"}}, {{"b=>../a"}}, {{"d/"}, {"b=>d"}}, {{"f=1", "f/x=1"}}, {{"l->l", "l/x=1"}}, {{".wh.="}}, {{"./->x"}},
	} {
		var raw [][]byte
		for _, l := range layers {
			raw = append(raw, layerTar(t, l...))
		}
		l := layout{}
		im, err := OpenDir(l.index(t, l.image(t, "amd64", raw...)).dir(t), "")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := content(t, im); !errors.Is(err, ErrDamaged) {
			t.Errorf("%q: got %q, %v", layers, got, err)
		}
	}
}

// TestMergeAgainstDisk applies random layers to a directory, one after another as container engines do, and compares.
func TestMergeAgainstDisk(t *testing.T) {
	needs(t, "tar")
	r := rand.New(rand.NewPCG(1, 2))
	names := []string{"a", "b", "c"}
	for round := range 40 {
		dir := t.TempDir()
		var layers [][]byte
		for n := range 1 + r.IntN(4) {
			var items, gone []string
			made := map[string]bool{} // files of this layer
			for range 1 + r.IntN(6) {
				p := names[r.IntN(3)] + "x/" + names[r.IntN(3)]
				dirname := path.Dir(p)
				if !made[dirname] {
					made[dirname] = true
					if r.IntN(4) == 0 && n > 0 {
						items = append(items, dirname+"/", dirname+"/.wh..wh..opq=")
						os.RemoveAll(filepath.Join(dir, dirname))
					} else {
						items = append(items, dirname+"/")
					}
				}
				if made[p] {
					continue
				}
				made[p] = true
				switch r.IntN(5) {
				case 0:
					items = append(items, dirname+"/.wh."+path.Base(p)+"=")
					gone = append(gone, p)
				case 1:
					items = append(items, p+"->"+names[r.IntN(3)])
				case 2:
					items = append(items, p+"/", p+"/deep="+fmt.Sprint(round, n))
				default:
					items = append(items, p+"="+fmt.Sprint(round, n))
				}
			}
			raw := layerTar(t, items...)
			layers = append(layers, raw)
			for _, g := range gone {
				os.RemoveAll(filepath.Join(dir, g))
			}
			cmd := exec.Command("tar", "-x", "--exclude=.wh.*", "-C", dir)
			// Container engines make room for what is of another kind; GNU tar does not always.
			for _, it := range items {
				name, _, _ := strings.Cut(strings.TrimSuffix(strings.SplitN(it, "->", 2)[0], "/"), "=")
				st, err := os.Lstat(filepath.Join(dir, name))
				if err == nil && !(st.IsDir() && strings.HasSuffix(it, "/")) && !strings.Contains(name, ".wh.") {
					os.RemoveAll(filepath.Join(dir, name))
				}
			}
			cmd.Stdin = bytes.NewReader(raw)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		var want []string
		filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			rel, _ := filepath.Rel(dir, p)
			switch {
			case rel == ".":
			case d.IsDir():
				want = append(want, rel+"/")
			case d.Type() == fs.ModeSymlink:
				to, _ := os.Readlink(p)
				want = append(want, rel+"->"+to)
			default:
				b, _ := os.ReadFile(p)
				want = append(want, rel+"="+string(b))
			}
			return err
		})
		slices.Sort(want)
		l := layout{}
		im, err := OpenDir(l.index(t, l.image(t, "amd64", layers...)).dir(t), "")
		if err != nil {
			t.Fatal(err)
		}
		got, err := content(t, im)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("round %d: got %q, %v\nwant %q", round, got, err, want)
		}
	}
}

// TestMergeHoles: a sparse file of a layer takes no time and no space, in each form that tools write.
func TestMergeHoles(t *testing.T) {
	needs(t, "tar", "truncate")
	dir := t.TempDir()
	if out, err := exec.Command("bash", "-c", `cd "$1" && truncate -s 1T lastlog && echo middle | dd of=lastlog bs=1 seek=500000000000 conv=notrunc status=none && ln lastlog second`, "-", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, args := range [][]string{{"--format=gnu"}, {"--format=posix"}, {"--format=posix", "--sparse-version=0.1"}, {"--format=posix", "--sparse-version=0.0"}} {
		raw, err := exec.Command("tar", append(args, "--sparse", "-c", "-C", dir, "lastlog", "second")...).Output()
		if err != nil {
			t.Fatal(err)
		}
		l := layout{}
		im, err := OpenDir(l.index(t, l.image(t, "amd64", raw, layerTar(t, ".wh.lastlog="))).dir(t), "")
		if err != nil {
			t.Fatal(err)
		}
		defer im.Close()
		r, err := im.Open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var out bytes.Buffer
		if _, err := io.Copy(&out, r); err != nil || out.Len() > 1<<20 {
			t.Fatalf("%v: %d bytes, %v", args, out.Len(), err)
		}
		into := t.TempDir()
		cmd := exec.Command("bash", "-c", `tar -x -C "$1" && cmp -n 100 -i 499999999950 "$1/second" "$2/lastlog" && test $(stat -c %s "$1/second") = 1099511627776 && test $(stat -c %b "$1/second") -lt 100`, "-", into, dir)
		cmd.Stdin = &out
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
}

// TestArtifacts: what lies beside the image and is none is passed over, and what is broken matters only where it is meant.
func TestArtifacts(t *testing.T) {
	const manifest = "application/vnd.oci.image.manifest.v1+json"
	l := layout{}
	image := named(l.image(t, "amd64", layerTar(t, "a=1")), "", "product:1.2")
	chart := l.json(t, map[string]any{"schemaVersion": 2, "config": l.blob([]byte("name: chart\n"), "application/vnd.cncf.helm.config.v1+json"), "layers": []any{}}, manifest)
	list := l.json(t, map[string]any{"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": []any{}}, "application/vnd.oci.artifact.manifest.v1+json")
	untyped := l.json(t, map[string]any{"blobs": []any{}}, "")
	empty := l.json(t, map[string]any{"schemaVersion": 2, "artifactType": "text/plain", "config": l.blob([]byte("{}"), "application/vnd.oci.empty.v1+json"), "layers": []any{}}, manifest)
	gone := map[string]any{"mediaType": manifest, "digest": digest([]byte("gone")), "size": 4}
	for _, tt := range []struct {
		name      string
		manifests []map[string]any
		reference string
		want      error
	}{
		{"a chart", []map[string]any{chart, image}, "", nil},
		{"a bill of materials", []map[string]any{image, list, untyped, empty}, "", nil},
		{"broken, another is meant", []map[string]any{gone, image}, "product:1.2", nil},
		{"broken, nothing is chosen", []map[string]any{gone, image}, "", ErrDamaged},
		{"broken, and it is meant", []map[string]any{named(gone, "", "product:2.0"), image}, "product:2.0", ErrDamaged},
		{"no image", []map[string]any{chart, list}, "", ErrDamaged},
	} {
		im, err := OpenDir(l.index(t, tt.manifests...).dir(t), tt.reference)
		if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err == nil {
			if got, err := content(t, im); err != nil || !slices.Equal(got, []string{"a=1"}) {
				t.Errorf("%s: %q, %v", tt.name, got, err)
			}
		}
	}
}

func TestForms(t *testing.T) {
	ctx := context.Background()
	layer := layerTar(t, "a=1")
	write := func(b []byte) string {
		t.Helper()
		f := filepath.Join(t.TempDir(), "x.tar")
		if err := os.WriteFile(f, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	good := func(what string, im *Image, err error, want string) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		if got, err := content(t, im); err != nil || !slices.Equal(got, []string{"a=" + want}) {
			t.Errorf("%s: got %q, %v", what, got, err)
		}
	}
	two := layout{}
	two.index(t, named(two.image(t, "arm64", layerTar(t, "a=arm")), "arm64", "v1"), named(two.image(t, "amd64", layer), "amd64", "v1"),
		named(two.image(t, "amd64", layerTar(t, "a=2")), "", "v2"))
	archive := two.tar(t)
	dir := two.dir(t)
	for _, ref := range []string{"v1", "v2"} {
		im, err := OpenDir(dir, ref)
		good("directory "+ref, im, err, ref[1:])
		im, err = OpenArchive(ctx, write(archive), ref)
		good("archive "+ref, im, err, ref[1:])
		for how := 1; how < 3; how++ {
			packed, _ := pack(t, how, archive)
			im, err = OpenArchive(ctx, write(packed), ref)
			good("packed archive "+ref, im, err, ref[1:])
		}
	}
	if _, err := OpenDir(dir, ""); !errors.Is(err, ErrSeveral) {
		t.Errorf("several: %v", err)
	}
	if _, err := OpenDir(dir, "v3"); !errors.Is(err, ErrReference) {
		t.Errorf("unknown reference: %v", err)
	}
	// An index in an index, with an attestation beside the image, as buildx writes.
	nested := layout{}
	inner := nested.json(t, map[string]any{"schemaVersion": 2, "manifests": []any{named(nested.image(t, "amd64", layer), "amd64", ""), named(nested.image(t, "amd64"), "unknown", "")}}, "application/vnd.oci.image.index.v1+json")
	im, err := OpenDir(nested.index(t, named(inner, "", "latest")).dir(t), "latest")
	good("nested", im, err, "1")
	only := layout{}
	if _, err := OpenDir(only.index(t, named(only.image(t, "arm64", layer), "arm64", "")).dir(t), ""); !errors.Is(err, ErrPlatform) {
		t.Errorf("arm64 alone: %v", err)
	}
	only = layout{}
	if _, err := OpenDir(only.index(t, only.image(t, "arm64", layer)).dir(t), ""); !errors.Is(err, ErrPlatform) {
		t.Errorf("arm64 without a platform in the index: %v", err)
	}

	// docker save before it wrote layouts; one layer is a link to another.
	c, err := json.Marshal(map[string]any{"os": "linux", "architecture": "amd64", "rootfs": map[string]any{"diff_ids": []string{digest(layer), digest(layer)}}})
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(digest(c), "sha256:") + ".json"
	saved := layout{name: c, "aaa/layer.tar": layer, "bbb/layer.tar": []byte("link:../aaa/layer.tar"), "aaa/json": []byte("{}"),
		"manifest.json": []byte(`[{"Config":"` + name + `","RepoTags":["product:1.2"],"Layers":["aaa/layer.tar","bbb/layer.tar"]}]`)}
	for _, ref := range []string{"", "product:1.2", "1.2"} {
		im, err := OpenArchive(ctx, write(saved.tar(t)), ref)
		good("saved", im, err, "1")
	}
	saved["aaa/layer.tar"] = layerTar(t, "a=9")
	im, err = OpenArchive(ctx, write(saved.tar(t)), "")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := content(t, im); !errors.Is(err, ErrDamaged) {
		t.Errorf("saved, another layer: %q, %v", got, err)
	}
	if _, err := OpenArchive(ctx, write(layerTar(t, "bin/", "bin/sh=x")), ""); !errors.Is(err, ErrNotImage) {
		t.Errorf("a root filesystem: %v", err)
	}
	if _, err := OpenDir(t.TempDir(), ""); !errors.Is(err, ErrNotImage) {
		t.Errorf("an empty directory: %v", err)
	}
	if IsLayout(t.TempDir()) || !IsLayout(dir) {
		t.Error("IsLayout")
	}
}

// TestDamage changes each blob in turn, cuts it, and takes it away.
func TestDamage(t *testing.T) {
	fresh := func() layout {
		l := layout{}
		return l.index(t, l.image(t, "amd64", layerTar(t, "a=1"), layerTar(t, "b=2"), layerTar(t, "c=3")))
	}
	var names []string
	for n := range fresh() {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		for what, edit := range map[string]func([]byte) []byte{
			"flipped": func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b },
			"cut":     func(b []byte) []byte { return b[:len(b)-1] },
			"longer":  func(b []byte) []byte { return append(bytes.Clone(b), 0) },
			"gone":    func([]byte) []byte { return nil },
		} {
			if n == "oci-layout" || n == "index.json" && what == "flipped" {
				continue
			}
			l := fresh()
			if l[n] = edit(l[n]); l[n] == nil {
				delete(l, n)
			}
			im, err := OpenDir(l.dir(t), "")
			if err == nil {
				_, err = content(t, im)
			}
			if err == nil || !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotImage) {
				t.Errorf("%s %s: %v", n, what, err)
			}
		}
	}
	// A layout may not lead out of its directory.
	l := fresh()
	dir := l.dir(t)
	outside := filepath.Join(t.TempDir(), "index.json")
	if err := os.Rename(filepath.Join(dir, "index.json"), outside); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "index.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDir(dir, ""); err == nil {
		t.Error("a link out of the layout was followed")
	}
	// Stopped in the middle.
	im, err := OpenDir(fresh().dir(t), "")
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := im.Open(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	r, err := im.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
}

func FuzzLayout(f *testing.F) {
	l := layout{}
	l.index(f, named(l.image(f, "amd64", layerTar(f, "a=1", "b=>a", "d/", "d/x->..")), "amd64", "v1"))
	good := [][]byte{l.tar(f), layout{"manifest.json": []byte(`[{"Config":"c","Layers":["l"]}]`), "c": []byte(`{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["` + digest(nil) + `"]}}`), "l": nil}.tar(f)}
	for _, s := range edit.Scripts() {
		for i := range len(good) {
			f.Add(uint8(i), s)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, script []byte) {
		b := edit.Tar(good[int(which)%len(good)], script)
		file := filepath.Join(t.TempDir(), "x.tar")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		im, err := OpenArchive(context.Background(), file, "")
		if err != nil {
			return
		}
		defer im.Close()
		r, err := im.Open(context.Background())
		if err != nil {
			return
		}
		defer r.Close()
		io.Copy(io.Discard, r)
	})
}

// FuzzMerge feeds a layer that is no tar, or a strange one, over a plain one.
func FuzzMerge(f *testing.F) {
	good := layerTar(f, "a=1", ".wh.b=", "d/.wh..wh..opq=", "l->d", "l/x=>a")
	base := layerTar(f, "d/", "d/x=1", "b=1")
	for _, s := range edit.Scripts() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		b := edit.Tar(good, script)
		l := layout{}
		im, err := OpenDir(l.index(t, l.image(t, "amd64", base, b)).dir(t), "")
		if err != nil {
			t.Fatal(err)
		}
		defer im.Close()
		r, err := im.Open(context.Background())
		if err != nil {
			return
		}
		defer r.Close()
		seen := map[string]bool{}
		tr := tar.NewReader(r)
		for {
			h, err := tr.Next()
			if err != nil {
				return
			}
			name := strings.TrimSuffix(h.Name, "/")
			if seen[name] || strings.HasPrefix(name, "/") || slices.Contains(strings.Split(name, "/"), "..") {
				t.Errorf("entry %q", h.Name)
			}
			seen[name] = true
		}
	})
}
