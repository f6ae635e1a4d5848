package image

import (
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

	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"

	"gprovision/forge/tool"
	"gprovision/model/release"
)

// ErrInput says that the root filesystem is given in a form that cannot be read.
var ErrInput = errors.New("not a directory with a root filesystem, and not a tar of one (plain, or compressed with xz, gzip or zstd)")

// input is a root filesystem that can be read as a tar stream, more than once.
type input struct {
	open func(context.Context) (io.ReadCloser, error)
	size int64 // of the file, 0 for a directory
}

// openInput looks at path: a directory or a tar.
func openInput(log *slog.Logger, path string) (*input, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read root filesystem: %w", err)
	}
	switch {
	case st.IsDir():
		if _, err := os.Stat(filepath.Join(path, "oci-layout")); err == nil {
			return nil, fmt.Errorf("read root filesystem %s: an OCI image cannot be read yet, only a directory or a tar", path)
		}
		return &input{open: func(ctx context.Context) (io.ReadCloser, error) { return packDirectory(ctx, log, path), nil }}, nil
	case st.Mode().IsRegular():
		// A wrong kind of file is found before any work is done.
		r, err := openTar(context.Background(), path)
		if err != nil {
			return nil, fmt.Errorf("read root filesystem %s: %w", path, err)
		}
		defer r.Close()
		return &input{open: func(ctx context.Context) (io.ReadCloser, error) { return openTar(ctx, path) }, size: st.Size()}, nil
	}
	return nil, fmt.Errorf("read root filesystem %s: %w", path, ErrInput)
}

// tarArgs make GNU tar keep all that an image keeps, and give the same bytes for the same tree.
func tarArgs(dir string) []string {
	return []string{"--create", "--format=posix", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--sparse", "--sort=name",
		"--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime", "--one-file-system", "--file=-", "--directory=" + dir, "."}
}

// packed is the output of a running GNU tar. Its error comes with the end of the stream; Close ends the program.
type packed struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

func packDirectory(ctx context.Context, log *slog.Logger, dir string) io.ReadCloser {
	ctx, cancel := context.WithCancel(ctx)
	pr, pw := io.Pipe()
	p := &packed{PipeReader: pr, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		err := tool.Run(ctx, log, tool.Command{Name: "tar", Package: "tar", Args: tarArgs(dir), Stdout: pw})
		if err != nil {
			err = fmt.Errorf("pack %s (all of it must be readable: root is needed for most root filesystems): %w", dir, err)
		}
		pw.CloseWithError(err)
	}()
	return p
}

// Close ends the program, whether it was done or not.
func (p *packed) Close() error {
	p.cancel()
	p.PipeReader.Close()
	<-p.done
	return nil
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
			return nil, fmt.Errorf("%w; a recipe cannot be read yet", ErrInput)
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
