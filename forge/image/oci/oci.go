// Package oci reads OCI images and what "docker save" writes, and gives their root filesystem as one tar stream.
//
// It reads an image layout in a directory, the same as a tar archive (docker save, buildah push oci-archive:, skopeo copy), and
// the older form of docker save without a layout. It takes the image for linux/amd64. Every blob is checked against its digest
// and size, every layer against the digest of its content too. Layers are plain, gzip or zstd. Nothing is unpacked to disk: the
// headers of all layers are read first, to find which entry wins each path, then the winners are copied.
//
// It talks to no daemon and no registry. The image's configuration (command, environment, user) is not for a whole system and
// is ignored. Formats: https://github.com/opencontainers/image-spec, image-layout.md, manifest.md, layer.md.
package oci

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"gprovision/forge/plain"
)

// What can be wrong with an image. Errors of this package wrap one of these, or are those of reading.
var (
	// ErrNotImage: there is no image of a known form.
	ErrNotImage = errors.New("not an OCI image layout, and not the output of docker save")
	// ErrDamaged: a blob is missing or not what its digest says, or a document cannot be read.
	ErrDamaged = errors.New("the OCI image is damaged")
	// ErrPlatform: the image is not made for linux/amd64.
	ErrPlatform = errors.New("the OCI image has no part for linux/amd64")
	// ErrSeveral: there are several images, and none was chosen.
	ErrSeveral = errors.New("there are several images in it")
	// ErrReference: no image has the name that was asked for.
	ErrReference = errors.New("no image in it has that name")
)

const (
	maxDocument = 16 << 20 // of an index, manifest or configuration
	maxLayers   = 1024
	maxNested   = 4 // indexes inside indexes
	refName     = "org.opencontainers.image.ref.name"
	imageName   = "io.containerd.image.name"
)

// descriptor names a blob. See descriptor.md.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
	Platform    *platform         `json:"platform"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant"`
}

// document is an index or a manifest: which one its fields tell.
type document struct {
	Manifests []descriptor `json:"manifests"`
	Config    descriptor   `json:"config"`
	Layers    []descriptor `json:"layers"`
}

type config struct {
	platform
	RootFS struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// Image is an image whose documents are read and checked.
type Image struct {
	// Digest is that of the manifest, or of the configuration for the old form of docker save.
	Digest string
	// Names are those that the archive gives the image.
	Names  []string
	layers []layer
	store  store
}

// layer is one blob, with the digest of its content when it is unpacked.
type layer struct {
	blob   string // name in the store
	digest string // of the blob; empty in the old form of docker save
	size   int64  // of the blob; -1: unknown
	diffID string
}

// store gives the files of a layout.
type store interface {
	open(name string) (io.ReadCloser, int64, error)
	Close() error
}

// IsLayout reports whether the directory is an image layout.
func IsLayout(dir string) bool {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false
	}
	defer root.Close()
	_, layout := root.Stat("oci-layout")
	_, saved := root.Stat("manifest.json")
	_, blobs := root.Stat("blobs")
	return layout == nil || saved == nil && blobs == nil
}

// OpenDir opens an image layout in a directory. With a reference (a tag, or a full name) that image is taken, else there must
// be one alone. The caller closes the image.
func OpenDir(dir, reference string) (*Image, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open OCI image: %w", err)
	}
	return load(dirStore{root}, dir, reference)
}

// OpenArchive opens an image in a tar archive; one that is compressed is unpacked into a temporary file without a name first.
// Arguments and result are those of OpenDir. A file that is no such archive is ErrNotImage.
func OpenArchive(ctx context.Context, file, reference string) (*Image, error) {
	s, err := openTarStore(ctx, file)
	if err != nil {
		return nil, fmt.Errorf("open OCI image %s: %w", file, err)
	}
	return load(s, file, reference)
}

func load(s store, name, reference string) (*Image, error) {
	im := &Image{store: s}
	if err := im.find(reference); err != nil {
		s.Close()
		return nil, fmt.Errorf("open OCI image %s: %w", name, err)
	}
	return im, nil
}

// Close closes the files of the image.
func (im *Image) Close() error { return im.store.Close() }

func (im *Image) find(reference string) error {
	index, err := im.read("index.json")
	switch {
	case err == nil:
		if _, err := im.read("oci-layout"); err != nil {
			return fmt.Errorf("oci-layout: %w", err)
		}
		return im.fromLayout(index, reference)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	saved, err := im.read("manifest.json")
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotImage
	}
	if err != nil {
		return err
	}
	return im.fromSaved(saved, reference)
}

// read reads a small file of the layout.
func (im *Image) read(name string) ([]byte, error) {
	f, _, err := im.store.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > maxDocument {
		return nil, fmt.Errorf("read %s: more than %d bytes: %w", name, maxDocument, ErrDamaged)
	}
	return b, nil
}

// document reads a blob that is JSON, and checks it against its descriptor.
func (im *Image) document(d descriptor, into any) error {
	name, h, err := blobName(d.Digest)
	if err != nil {
		return err
	}
	b, err := im.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob %s is not there: %w", d.Digest, ErrDamaged)
	}
	if err != nil {
		return err
	}
	h.Write(b)
	if int64(len(b)) != d.Size || hexOf(h) != digestHex(d.Digest) {
		return fmt.Errorf("blob %s has another content: %w", d.Digest, ErrDamaged)
	}
	return parse(b, d.Digest, into)
}

func parse(b []byte, name string, into any) error {
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s: %w: %w", name, ErrDamaged, err)
	}
	return nil
}

// blobName returns where a blob lies, and the hash that checks it.
func blobName(digest string) (string, hash.Hash, error) {
	kind, hexa, _ := strings.Cut(digest, ":")
	var h hash.Hash
	switch kind {
	case "sha256":
		h = sha256.New()
	case "sha512":
		h = sha512.New()
	default:
		return "", nil, fmt.Errorf("digest %q is of an unknown kind: %w", digest, ErrDamaged)
	}
	if b, err := hex.DecodeString(hexa); err != nil || len(b) != h.Size() || strings.ToLower(hexa) != hexa {
		return "", nil, fmt.Errorf("digest %q: %w", digest, ErrDamaged)
	}
	return "blobs/" + kind + "/" + hexa, h, nil
}

func hexOf(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

func digestHex(digest string) string {
	_, h, _ := strings.Cut(digest, ":")
	return h
}

// candidate is an image that could be meant.
type candidate struct {
	descriptor
	names  []string
	broken error // why it cannot be read; that matters only where it is the one that was meant
}

func (im *Image) fromLayout(index []byte, reference string) error {
	var top document
	if err := parse(index, "index.json", &top); err != nil {
		return err
	}
	var all []candidate
	other := false
	if err := im.collect(top, nil, 0, &all, &other); err != nil {
		return err
	}
	chosen, err := choose(all, reference, other)
	if err != nil {
		return err
	}
	var m document
	if err := im.document(chosen.descriptor, &m); err != nil {
		return err
	}
	var c config
	if err := im.document(m.Config, &c); err != nil {
		return err
	}
	if !c.fits() {
		return fmt.Errorf("it is for %s/%s: %w", c.OS, c.Architecture, ErrPlatform)
	}
	if len(m.Layers) > maxLayers || len(m.Layers) != len(c.RootFS.DiffIDs) {
		return fmt.Errorf("%d layers, and %d in the configuration: %w", len(m.Layers), len(c.RootFS.DiffIDs), ErrDamaged)
	}
	for i, l := range m.Layers {
		name, _, err := blobName(l.Digest)
		if err != nil {
			return err
		}
		if strings.Contains(l.MediaType, "encrypted") {
			return fmt.Errorf("layer %d is encrypted: decrypt the image first", i+1)
		}
		im.layers = append(im.layers, layer{name, l.Digest, l.Size, c.RootFS.DiffIDs[i]})
	}
	im.Digest, im.Names = chosen.Digest, chosen.names
	return nil
}

// ofImage reports whether a descriptor can be that of an image, of an index, or of the configuration of an image. What has another
// type is something else that lies in the layout: a chart, a signature, a bill of materials. Some tools leave the type out.
func ofImage(d descriptor) bool {
	switch d.MediaType {
	case "", "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.config.v1+json",
		"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.container.image.v1+json":
		return true
	}
	return false
}

// collect gathers the manifests for our platform, through indexes in indexes. What is no image is passed over: artifacts in forms of
// their own, and manifests whose configuration is not that of an image (manifest.md, "Guidelines for Artifact Usage").
func (im *Image) collect(d document, names []string, depth int, all *[]candidate, other *bool) error {
	if depth > maxNested {
		return fmt.Errorf("indexes are nested more than %d deep: %w", maxNested, ErrDamaged)
	}
	for _, m := range d.Manifests {
		names := slices.Clone(names)
		for _, k := range []string{imageName, refName} {
			if v := m.Annotations[k]; v != "" {
				names = append(names, v)
			}
		}
		if !ofImage(m) {
			continue
		}
		// Attestations of how an image was built stand beside it as images for an unknown platform.
		if m.Platform != nil && !m.Platform.fits() || m.Annotations["vnd.docker.reference.type"] != "" {
			*other = true
			continue
		}
		var doc document
		broken := im.document(m, &doc)
		if broken == nil && len(doc.Manifests) > 0 {
			if err := im.collect(doc, names, depth+1, all, other); err != nil {
				return err
			}
			continue
		}
		if broken == nil && (doc.Config.Digest == "" || !ofImage(doc.Config)) {
			continue
		}
		if broken == nil && m.Platform == nil {
			var c config
			if broken = im.document(doc.Config, &c); broken == nil && !c.fits() {
				*other = true
				continue
			}
		}
		if i := slices.IndexFunc(*all, func(c candidate) bool { return c.Digest == m.Digest }); i >= 0 {
			(*all)[i].names = append((*all)[i].names, names...)
			continue
		}
		*all = append(*all, candidate{m, names, broken})
	}
	return nil
}

func (p *platform) fits() bool { return p.OS == "linux" && p.Architecture == "amd64" }

func choose(all []candidate, reference string, other bool) (candidate, error) {
	if reference != "" {
		var names []string
		all = slices.DeleteFunc(all, func(c candidate) bool {
			names = append(names, c.names...)
			return !slices.ContainsFunc(c.names, func(n string) bool { return sameReference(n, reference) })
		})
		if len(all) == 0 {
			return candidate{}, fmt.Errorf("%q, there are %s: %w", reference, strings.Join(names, ", "), ErrReference)
		}
	}
	for _, c := range all {
		if c.broken != nil {
			return candidate{}, c.broken
		}
	}
	switch {
	case len(all) == 0 && other:
		return candidate{}, ErrPlatform
	case len(all) == 0:
		return candidate{}, fmt.Errorf("no image in its index: %w", ErrDamaged)
	case len(all) > 1:
		var names []string
		for _, c := range all {
			names = append(names, strings.Join(append(c.names, c.Digest), " "))
		}
		return candidate{}, fmt.Errorf("%s: %w", strings.Join(names, "; "), ErrSeveral)
	}
	return all[0], nil
}

// sameReference compares a name with what was asked for: a full name, or its tag alone.
func sameReference(name, want string) bool {
	return name == want || strings.HasSuffix(name, "/"+want) || strings.HasSuffix(name, ":"+want)
}

// fromSaved reads the form of docker save before it wrote layouts.
func (im *Image) fromSaved(b []byte, reference string) error {
	var list []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := parse(b, "manifest.json", &list); err != nil {
		return err
	}
	var all []candidate
	for i, m := range list {
		all = append(all, candidate{descriptor{Digest: fmt.Sprint(i)}, m.RepoTags, nil})
	}
	chosen, err := choose(all, reference, false)
	if err != nil {
		return err
	}
	m := list[slices.IndexFunc(all, func(c candidate) bool { return c.Digest == chosen.Digest })]
	raw, err := im.read(m.Config)
	if err != nil {
		return fmt.Errorf("configuration %s: %w: %w", m.Config, ErrDamaged, err)
	}
	var c config
	if err := parse(raw, m.Config, &c); err != nil {
		return err
	}
	if !c.fits() {
		return fmt.Errorf("it is for %s/%s: %w", c.OS, c.Architecture, ErrPlatform)
	}
	// The file's name is its digest: "HEX.json", or "blobs/sha256/HEX".
	sum := sha256.Sum256(raw)
	im.Digest = "sha256:" + hex.EncodeToString(sum[:])
	if name := strings.TrimPrefix(strings.TrimSuffix(path.Base(m.Config), ".json"), "sha256:"); len(name) == 64 && "sha256:"+name != im.Digest {
		return fmt.Errorf("configuration %s has another content: %w", m.Config, ErrDamaged)
	}
	if len(m.Layers) > maxLayers || len(m.Layers) != len(c.RootFS.DiffIDs) {
		return fmt.Errorf("%d layers, and %d in the configuration: %w", len(m.Layers), len(c.RootFS.DiffIDs), ErrDamaged)
	}
	for i, l := range m.Layers {
		im.layers = append(im.layers, layer{blob: l, size: -1, diffID: c.RootFS.DiffIDs[i]})
	}
	im.Names = m.RepoTags
	return nil
}

// layerReader gives the tar of a layer. The end of its stream is an error if a digest does not fit.
type layerReader struct {
	io.Reader // unpacked
	close     []func() error
	blob      *measured
	content   *measured
	layer     layer
}

// measured hashes and counts what is read.
type measured struct {
	r   io.Reader
	ctx context.Context
	h   hash.Hash
	n   int64
}

func (m *measured) Read(p []byte) (int, error) {
	if m.ctx.Err() != nil {
		return 0, context.Cause(m.ctx)
	}
	n, err := m.r.Read(p)
	m.h.Write(p[:n])
	m.n += int64(n)
	return n, err
}

// openLayer opens the tar of a layer.
func (im *Image) openLayer(ctx context.Context, l layer) (_ *layerReader, err error) {
	f, _, err := im.store.open(l.blob)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w: %w", l.blob, ErrDamaged, err)
	}
	out := &layerReader{layer: l, close: []func() error{f.Close}}
	defer func() {
		if err != nil {
			out.Close()
		}
	}()
	out.blob = &measured{r: f, ctx: ctx, h: sha256.New()}
	if l.digest != "" {
		if _, out.blob.h, err = blobName(l.digest); err != nil {
			return nil, err
		}
	}
	_, content, err := blobName(l.diffID)
	if err != nil {
		return nil, err
	}
	in := bufio.NewReaderSize(out.blob, 256<<10)
	decoded, err := plain.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w: %w", l.blob, ErrDamaged, err)
	}
	out.close = append([]func() error{decoded.Close}, out.close...)
	out.content = &measured{r: decoded, ctx: ctx, h: content}
	out.Reader = out.content
	return out, nil
}

// finish reads the layer to its end and checks its digests.
func (l *layerReader) finish() error {
	if _, err := io.Copy(io.Discard, l.content); err != nil {
		return l.broken(err)
	}
	// What stands behind the compressed stream counts too.
	if _, err := io.Copy(io.Discard, l.blob); err != nil {
		return l.broken(err)
	}
	if l.layer.digest != "" && (hexOf(l.blob.h) != digestHex(l.layer.digest) || l.blob.n != l.layer.size) {
		return fmt.Errorf("layer %s has another content: %w", l.layer.digest, ErrDamaged)
	}
	if hexOf(l.content.h) != digestHex(l.layer.diffID) {
		return fmt.Errorf("layer %s: its tar has not the digest %s: %w", l.layer.blob, l.layer.diffID, ErrDamaged)
	}
	return nil
}

// broken names the layer in an error of reading it.
func (l *layerReader) broken(err error) error {
	if ctx := l.blob.ctx; ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("layer %s: %w: %w", l.layer.blob, ErrDamaged, err)
}

// Close closes the decoder and the file.
func (l *layerReader) Close() error {
	var first error
	for _, c := range l.close {
		if err := c(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// dirStore is a layout in a directory. Links cannot lead out of it.
type dirStore struct{ root *os.Root }

func (d dirStore) open(name string) (io.ReadCloser, int64, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

func (d dirStore) Close() error { return d.root.Close() }

// tarStore is a layout in a tar archive.
type tarStore struct {
	file  *os.File
	files map[string]span
}

// span is where a file of the archive lies, or what it is a link to.
type span struct {
	at, size int64
	link     string
}

func openTarStore(ctx context.Context, name string) (_ *tarStore, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	s := &tarStore{file: f, files: map[string]span{}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := s.plain(ctx); err != nil {
		return nil, err
	}
	tr := tar.NewReader(s.file)
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		h, err := tr.Next()
		if err == io.EOF {
			return s, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read tar: %w: %w", ErrDamaged, err)
		}
		name := path.Clean("/" + h.Name)[1:]
		switch h.Typeflag {
		case tar.TypeReg:
			// archive/tar reads whole blocks and no more, so the file stands where the content begins.
			at, err := s.file.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			s.files[name] = span{at: at, size: h.Size}
		case tar.TypeSymlink:
			s.files[name] = span{link: path.Clean("/" + path.Join(path.Dir(name), h.Linkname))[1:]}
		case tar.TypeLink:
			s.files[name] = span{link: path.Clean("/" + h.Linkname)[1:]}
		}
		if len(s.files) > 1<<16 {
			return nil, fmt.Errorf("more than %d files: %w", 1<<16, ErrNotImage)
		}
	}
}

// plain replaces the file by an unpacked copy if it is compressed.
func (s *tarStore) plain(ctx context.Context) error {
	in := bufio.NewReaderSize(s.file, 1<<20)
	decoded, err := plain.NewReader(in)
	if err != nil {
		return err
	}
	defer decoded.Close()
	if decoded.Format == plain.None {
		_, err := s.file.Seek(0, io.SeekStart)
		return err
	}
	f, err := os.CreateTemp("", "gprov-oci-")
	if err != nil {
		return err
	}
	old := s.file
	s.file = f
	defer old.Close()
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	if _, err := io.Copy(f, &measured{r: decoded, ctx: ctx, h: sha256.New()}); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

func (s *tarStore) open(name string) (io.ReadCloser, int64, error) {
	name = path.Clean("/" + name)[1:]
	for range 8 {
		e, ok := s.files[name]
		if !ok {
			return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		if e.link == "" {
			return io.NopCloser(io.NewSectionReader(s.file, e.at, e.size)), e.size, nil
		}
		name = e.link
	}
	return nil, 0, &fs.PathError{Op: "open", Path: name, Err: errors.New("too many links")}
}

func (s *tarStore) Close() error { return s.file.Close() }
