package boot

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"

	"gprovision/forge/plain"
)

// MissingError says that the root filesystem lacks something that the boot artifact needs.
type MissingError struct {
	// Path is what was looked for, without a leading slash.
	Path string
	// Package is the Debian package that has it, or empty.
	Package string
	// In is what was searched; empty: the root filesystem.
	In string
}

func (e *MissingError) Error() string {
	in := e.In
	if in == "" {
		in = "the root filesystem"
	}
	if e.Package == "" {
		return in + " has no /" + e.Path
	}
	return fmt.Sprintf("%s has no /%s: it is in the Debian package %s", in, e.Path, e.Package)
}

// Unwrap makes errors.Is with fs.ErrNotExist hold.
func (e *MissingError) Unwrap() error { return fs.ErrNotExist }

// Hint says what to do next.
func (e *MissingError) Hint() string {
	switch {
	case e.In != "":
		return "put it there, or leave --tools out so that it is taken from the root filesystem"
	case e.Package == "":
		return "install what has it into the root filesystem"
	}
	return fmt.Sprintf("install %s into the root filesystem", e.Package)
}

// rootFS is the index of a root filesystem: a directory, or a tar file. Paths have no leading slash. Symbolic links are
// followed inside it; nothing outside is ever read.
type rootFS struct {
	entries  map[string]*entry
	children map[string][]string
	file     *os.File // of a tar
	scratch  *os.File // unpacked copy of a compressed tar, deleted by Close
	holes    *os.File // the content of sparse files of a tar, deleted by Close
	holesEnd int64    // its length
}

type entry struct {
	mode   fs.FileMode
	link   string // target of a symbolic link
	size   int64
	offset int64    // of the content in file
	file   *os.File // the tar, or what the tar does not hold in one piece; nil: a file of a directory, or too large to be kept
	host   string   // path of the content, for a directory
}

// maxSparse is the largest sparse file of a tar that is kept, bytes: no file of a boot artifact is as large.
const maxSparse = 256 << 20

// openRootFS reads the index of the directory or tar file at name. A tar file may be compressed by gzip, xz or zstd; it is
// then unpacked into a temporary file first.
func openRootFS(ctx context.Context, name string) (*rootFS, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("open root filesystem: %w", err)
	}
	r := &rootFS{entries: map[string]*entry{".": {mode: fs.ModeDir | 0o755}}, children: map[string][]string{}}
	if st.IsDir() {
		err = r.indexDir(ctx, name)
	} else {
		err = r.indexTar(ctx, name)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read root filesystem %s: %w", name, err), r.Close())
	}
	for dir := range r.children {
		sort.Strings(r.children[dir])
	}
	return r, nil
}

// Close closes the tar file.
func (r *rootFS) Close() error {
	var err error
	if r.file != nil && r.file != r.scratch {
		err = r.file.Close()
	}
	for _, f := range []*os.File{r.scratch, r.holes} {
		if f != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}
	return err
}

func (r *rootFS) add(name string, e *entry) {
	if name == "." {
		return
	}
	if _, ok := r.entries[name]; !ok {
		dir := path.Dir(name)
		if _, ok := r.entries[dir]; !ok {
			r.add(dir, &entry{mode: fs.ModeDir | 0o755})
		}
		r.children[dir] = append(r.children[dir], name)
	}
	r.entries[name] = e
}

func (r *rootFS) indexDir(ctx context.Context, top string) error {
	return filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(top, p)
		if err != nil {
			return err
		}
		switch rel {
		case "proc", "sys", "dev", "run":
			r.add(rel, &entry{mode: fs.ModeDir | 0o755})
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := &entry{mode: info.Mode(), size: info.Size(), host: p}
		if e.mode.Type() == fs.ModeSymlink {
			if e.link, err = os.Readlink(p); err != nil {
				return err
			}
		}
		r.add(filepath.ToSlash(rel), e)
		return nil
	})
}

func (r *rootFS) indexTar(ctx context.Context, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	r.file = f
	if err := r.unpackTar(ctx); err != nil {
		return err
	}
	t, last := tar.NewReader(r.file), ""
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && last != "" {
			err = fmt.Errorf("behind /%s: %w", last, err)
		}
		if err != nil {
			return err
		}
		if err := r.addHeader(h, t); err != nil {
			return err
		}
		last = path.Clean("/" + h.Name)[1:]
	}
}

func (r *rootFS) addHeader(h *tar.Header, content io.Reader) error {
	name := path.Clean("/" + h.Name)[1:]
	if name == "" {
		return nil
	}
	e := &entry{mode: h.FileInfo().Mode(), size: h.Size}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		if h.Typeflag == tar.TypeGNUSparse || h.PAXRecords["GNU.sparse.major"] != "" || h.PAXRecords["GNU.sparse.map"] != "" {
			if err := r.keepSparse(e, content); err != nil {
				return fmt.Errorf("/%s: %w", name, err)
			}
			break
		}
		// archive/tar reads whole blocks and seeks over content, so the file stands where the content starts.
		at, err := r.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		e.file, e.offset = r.file, at
	case tar.TypeLink:
		old, ok := r.entries[path.Clean("/" + h.Linkname)[1:]]
		if !ok {
			return fmt.Errorf("hard link %s to %s, which is not there", h.Name, h.Linkname)
		}
		e = old
	case tar.TypeSymlink:
		e.link = h.Linkname
	}
	r.add(name, e)
	return nil
}

// keepSparse writes the content of a sparse file, which the tar holds in pieces, into a temporary file. Blocks of zeros become holes there.
func (r *rootFS) keepSparse(e *entry, content io.Reader) error {
	if e.size > maxSparse {
		return nil
	}
	if r.holes == nil {
		f, err := os.CreateTemp("", "rootfs-sparse-*")
		if err != nil {
			return err
		}
		r.holes = f
	}
	e.file, e.offset = r.holes, r.holesEnd
	block, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := r.holesEnd; ; {
		n, err := io.ReadFull(content, block)
		if n > 0 && !bytes.Equal(block[:n], zeros[:n]) {
			if _, err := r.holes.WriteAt(block[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			r.holesEnd += e.size
			return r.holes.Truncate(r.holesEnd)
		}
		if err != nil {
			return err
		}
	}
}

// unpackTar replaces r.file by an unpacked copy if it is compressed.
func (r *rootFS) unpackTar(ctx context.Context) error {
	in := bufio.NewReaderSize(r.file, 1<<20)
	decoded, err := plain.NewReader(in)
	if err != nil {
		return err
	}
	defer decoded.Close()
	if decoded.Format == plain.None {
		_, err := r.file.Seek(0, io.SeekStart)
		return err
	}
	f, err := os.CreateTemp("", "rootfs-*.tar")
	if err != nil {
		return err
	}
	old := r.file
	r.file, r.scratch = f, f
	defer old.Close()
	if _, err := io.Copy(f, &contextReader{ctx, decoded}); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// resolve follows the symbolic links in name, the last part too, and returns the path of what is there in the end.
func (r *rootFS) resolve(name string) (string, *entry, error) {
	todo := strings.Split(path.Clean("/" + name)[1:], "/")
	done := "."
	for links := 0; len(todo) > 0; {
		if todo[0] == "" {
			todo = todo[1:]
			continue
		}
		next := path.Join(done, todo[0])
		todo = todo[1:]
		e, ok := r.entries[next]
		if !ok {
			return "", nil, &MissingError{Path: name}
		}
		if e.mode.Type() != fs.ModeSymlink {
			done = next
			continue
		}
		if links++; links > 40 {
			return "", nil, fmt.Errorf("too many symbolic links at /%s", name)
		}
		target := e.link
		if !path.IsAbs(target) {
			target = path.Join("/", done, target)
		}
		todo = append(strings.Split(path.Clean(target)[1:], "/"), todo...)
		done = "."
	}
	return done, r.entries[done], nil
}

// read returns the content of a regular file. What is missing is a *MissingError that names debianPackage.
func (r *rootFS) read(name, debianPackage string) ([]byte, error) {
	_, e, err := r.resolve(name)
	var missing *MissingError
	if errors.As(err, &missing) {
		return nil, &MissingError{Path: name, Package: debianPackage}
	}
	if err != nil {
		return nil, err
	}
	if !e.mode.IsRegular() {
		return nil, fmt.Errorf("/%s in the root filesystem is not a file", name)
	}
	if e.host != "" {
		return os.ReadFile(e.host)
	}
	if e.file == nil {
		return nil, fmt.Errorf("/%s in the root filesystem is a sparse file of %d bytes, want at most %d", name, e.size, maxSparse)
	}
	b := make([]byte, e.size)
	if _, err := io.ReadFull(io.NewSectionReader(e.file, e.offset, e.size), b); err != nil {
		return nil, fmt.Errorf("read /%s in the root filesystem: %w", name, err)
	}
	return b, nil
}

// find returns the first of names that is a regular file. If there is none: a *MissingError for the first name.
func (r *rootFS) find(debianPackage string, names ...string) (string, error) {
	for _, n := range names {
		if _, e, err := r.resolve(n); err == nil && e.mode.IsRegular() {
			return n, nil
		}
	}
	return "", &MissingError{Path: names[0], Package: debianPackage}
}

// list returns the names in a directory, without the directory, sorted. A directory that is not there is empty.
func (r *rootFS) list(dir string) []string {
	real, _, err := r.resolve(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, c := range r.children[real] {
		out = append(out, path.Base(c))
	}
	return out
}
