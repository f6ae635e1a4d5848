package image

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"gprovision/forge/image/oci"
	"gprovision/forge/image/recipe"
	"gprovision/forge/plain"
	"gprovision/hw/filesystem"
	"gprovision/model/release"
)

// ErrInput says that the root filesystem is given in a form that cannot be read.
var ErrInput = errors.New("not a directory with a root filesystem, not a tar of one (plain, or compressed with xz, gzip or zstd), not an OCI image, and not a recipe (.yaml)")

// input is a root filesystem that can be read as a tar stream, more than once. The caller closes it.
type input struct {
	kind string // "directory", "tar", "oci", "recipe"
	open func(context.Context) (io.ReadCloser, error)
	// path is the directory or tar; empty for an OCI image.
	path  string
	close []func() error
}

// Close gives back what was opened, and deletes what was made on the way.
func (in *input) Close() error {
	var first error
	for _, c := range slices.Backward(in.close) {
		if err := c(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// openInput looks at the root filesystem: a directory, a tar, an OCI image or a recipe, which is made.
func openInput(ctx context.Context, log *slog.Logger, o Options, say func(Progress)) (_ *input, err error) {
	name := o.RootFS
	st, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("read root filesystem: %w", err)
	}
	in := &input{kind: "tar", path: name}
	in.open = func(ctx context.Context) (io.ReadCloser, error) { return openTar(ctx, in.path) }
	var im *oci.Image
	switch ext := strings.ToLower(filepath.Ext(name)); {
	case st.IsDir() && oci.IsLayout(name):
		im, err = oci.OpenDir(name, o.Reference)
	case st.IsDir():
		in.kind = "directory"
		in.open = func(ctx context.Context) (io.ReadCloser, error) { return packDirectory(ctx, name, o.Clamp), nil }
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("read root filesystem %s: %w", name, ErrInput)
	case ext == ".yaml" || ext == ".yml":
		in.kind = "recipe"
		err = in.cook(ctx, log, o, say)
	default:
		var archive bool
		// A wrong kind of file is found before any work is done.
		if archive, err = isArchive(ctx, name); err == nil && archive {
			im, err = oci.OpenArchive(ctx, name, o.Reference)
		}
	}
	if err == nil && o.Reference != "" && im == nil {
		err = errors.New("only an OCI image can have a reference")
	}
	if err != nil {
		in.Close()
		return nil, fmt.Errorf("read root filesystem %s: %w", name, err)
	}
	if im != nil {
		in.kind, in.path, in.open = "oci", "", im.Open
		in.close = append(in.close, im.Close)
	}
	return in, nil
}

// isArchive reports whether a tar holds an OCI image, or what docker save and those who write the same form write, not a root filesystem.
//
// Tools write the files of an image in any order: layers first, or the configuration, under names with digests or without. So what tells
// is that nothing stands at the top that no such archive has, and that a document is there which names the rest.
func isArchive(ctx context.Context, name string) (bool, error) {
	r, err := openTar(ctx, name)
	if err != nil {
		return false, err
	}
	defer r.Close()
	tr := filesystem.NewTarReader(r)
	for {
		h, _, err := tr.Next()
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read tar: %w", err)
		}
		switch top, below, _ := strings.Cut(strings.TrimPrefix(h.Name, "./"), "/"); {
		case top == "" || top == ".":
		case below == "" && (top == "oci-layout" || top == "index.json" || top == "manifest.json" || top == "repositories"):
			return true, nil
		case !ofArchive(top, below, h.Typeflag):
			return false, nil
		}
	}
}

// ofArchive reports whether an archive with an image may have this: blobs, a directory or a file that is named by a digest ("HEX",
// "sha256:HEX", "HEX.json", "HEX.tar", "HEX.tar.gz"), or the configuration.
func ofArchive(top, below string, kind byte) bool {
	if top == "blobs" || below == "" && kind != tar.TypeDir && top == "config.json" {
		return true
	}
	digest, _, _ := strings.Cut(top, ".")
	for _, algorithm := range []string{"sha256:", "sha512:"} {
		digest = strings.TrimPrefix(digest, algorithm)
	}
	return (len(digest) == 64 || len(digest) == 128) && strings.Trim(digest, "0123456789abcdef") == ""
}

// cook makes the root filesystem of a recipe, as a tar without compression in the directory for temporary files.
func (in *input) cook(ctx context.Context, log *slog.Logger, o Options, say func(Progress)) error {
	f, err := os.Open(o.RootFS)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, recipe.MaxSize+1))
	if err != nil {
		return err
	}
	r, err := recipe.Parse(text)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "gprov-rootfs-")
	if err != nil {
		return err
	}
	in.close = append(in.close, func() error { return os.RemoveAll(dir) })
	in.path = filepath.Join(dir, "rootfs.tar")
	say(Progress{"make root filesystem", 0, 0})
	return r.Make(ctx, log, recipe.MakeOptions{Dir: filepath.Dir(o.RootFS), Out: in.path, Time: o.Time})
}

// settle gives a path that the builder of boot artifacts can read. An OCI image is written into a temporary tar, which is then
// the input.
func (in *input) settle(ctx context.Context) (string, error) {
	if in.path != "" {
		return in.path, nil
	}
	f, err := os.CreateTemp("", "gprov-rootfs-*.tar")
	if err != nil {
		return "", err
	}
	in.close = append(in.close, func() error { return os.Remove(f.Name()) })
	defer f.Close()
	r, err := in.open(ctx)
	if err != nil {
		return "", err
	}
	defer r.Close()
	if _, err := io.Copy(f, r); err != nil {
		return "", err
	}
	in.path = f.Name()
	in.open = func(ctx context.Context) (io.ReadCloser, error) { return openTar(ctx, in.path) }
	return in.path, f.Close()
}

// stream is a decoded file.
type stream struct {
	io.Reader
	close []func() error
}

// Close closes the decoder and the file.
func (s *stream) Close() error {
	var first error
	for _, c := range s.close {
		if err := c(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// openTar opens a tar, compressed or not.
func openTar(ctx context.Context, path string) (_ io.ReadCloser, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	s := &stream{close: []func() error{f.Close}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	in := bufio.NewReaderSize(f, 1<<20)
	head, err := in.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if plain.Detect(head) == plain.XZ {
		st, err := f.Stat()
		if err != nil {
			return nil, err
		}
		// The parallel reader takes SHA-256 only, and here any check will do.
		if r, err := release.NewReader(ctx, f, st.Size(), runtime.NumCPU()); err == nil {
			s.Reader, s.close = r, []func() error{r.Close, f.Close}
		}
	}
	if s.Reader == nil {
		r, err := plain.NewReader(in)
		if err != nil {
			return nil, err
		}
		s.Reader, s.close = r, []func() error{r.Close, f.Close}
	}
	content := bufio.NewReaderSize(s.Reader, 64<<10)
	if head, err = content.Peek(512); err != nil && err != io.EOF {
		return nil, err
	}
	if !filesystem.IsTar(head) {
		return nil, ErrInput
	}
	s.Reader = content
	s.Reader = &bound{ctx: ctx, r: s.Reader}
	return s, nil
}

// bound ends a stream when ctx ends.
type bound struct {
	ctx context.Context
	r   io.Reader
}

func (b *bound) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, context.Cause(b.ctx)
	}
	return b.r.Read(p)
}
