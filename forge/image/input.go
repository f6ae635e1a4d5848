package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
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

	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"

	"gprovision/forge/image/oci"
	"gprovision/forge/image/recipe"
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

// isArchive reports whether a tar holds an OCI image, or what docker save writes, not a root filesystem. Its first names tell.
func isArchive(ctx context.Context, name string) (bool, error) {
	r, err := openTar(ctx, name)
	if err != nil {
		return false, err
	}
	defer r.Close()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read tar: %w", err)
		}
		first, rest, _ := strings.Cut(strings.TrimPrefix(h.Name, "./"), "/")
		switch {
		case first == "":
			continue
		case first == "blobs" || (first == "oci-layout" || first == "index.json" || first == "manifest.json" || first == "repositories") && rest == "":
			return true, nil
		}
		// The old form of docker save: directories and a file named by digests.
		hexa := strings.TrimSuffix(first, ".json")
		return len(hexa) == 64 && strings.Trim(hexa, "0123456789abcdef") == "", nil
	}
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
	head, err := in.Peek(512)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		st, err := f.Stat()
		if err != nil {
			return nil, err
		}
		// The parallel reader takes SHA-256 only, and here any check will do.
		if r, err := release.NewReader(ctx, f, st.Size(), runtime.NumCPU()); err == nil {
			s.Reader, s.close = r, []func() error{r.Close, f.Close}
		} else if s.Reader, err = xz.NewReader(in, 0); err != nil {
			return nil, err
		}
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		if s.Reader, err = gzip.NewReader(in); err != nil {
			return nil, err
		}
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		d, err := zstd.NewReader(in, zstd.WithDecoderMaxMemory(1<<30))
		if err != nil {
			return nil, err
		}
		s.Reader, s.close = d, []func() error{func() error { d.Close(); return nil }, f.Close}
	case bytes.HasPrefix(head, []byte("BZh")):
		return nil, errors.New("a tar compressed with bzip2 cannot be read: use xz, gzip, zstd or none")
	default:
		// The word stands there in all of ustar, PAX and GNU.
		if len(head) < 512 || string(head[257:262]) != "ustar" {
			return nil, ErrInput
		}
		s.Reader = in
	}
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
