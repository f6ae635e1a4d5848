package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"gprovision/hw/filesystem"
)

// rewrite copies the entries of a tar to w, byte for byte: their headers are read, but not written anew, so that extended
// attributes, holes and all else stay as they are. Entries that drop names are left out, with their content. The two blocks
// that end the archive are not written. It calls each for every entry that is copied.
//
// The archive must end with the stream: what GNU tar would not see must not hide behind the end.
func rewrite(w io.Writer, r io.Reader, drop map[string]bool, each func(h *tar.Header)) error {
	t := &tap{r: r}
	tr := tar.NewReader(t)
	buf := make([]byte, 1<<20)
	var to io.Writer // of the entry before, for its padding
	for {
		before := t.n
		t.keep, t.to = &bytes.Buffer{}, nil
		h, err := tr.Next()
		raw := t.keep.Bytes()
		t.keep = nil
		if pad := int(-before & 511); to != nil && pad > 0 {
			if len(raw) < pad {
				return fmt.Errorf("read tar: %w", io.ErrUnexpectedEOF)
			}
			if _, err := to.Write(raw[:pad]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return rest(t, buf)
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		raw = raw[min(int(-before&511), len(raw)):]
		if len(raw) > maxHeader {
			return fmt.Errorf("entry %q has a header of %d bytes, at most %d", h.Name, len(raw), maxHeader)
		}
		to = w
		if h.Typeflag != tar.TypeXGlobalHeader {
			name, err := filesystem.EntryName(h.Name)
			if err != nil {
				return fmt.Errorf("entry %q: %w", h.Name, err)
			}
			if drop[name] {
				to = io.Discard
			} else {
				each(h)
			}
		}
		if _, err := to.Write(raw); err != nil {
			return err
		}
		t.to = to
		if isSparse(h) {
			left, ok := sparseLeft(h, raw)
			if !ok {
				return fmt.Errorf("read %q: the sizes of a sparse file do not fit", h.Name)
			}
			// The tar.Reader would give all the zeros of the holes: a terabyte of them takes its time. What the archive holds is
			// copied instead, and a new tar.Reader goes on behind it.
			for _, n := range []int64{left, -(t.n + left) & 511} {
				if _, err := io.CopyBuffer(io.Discard, &exactly{r: t, n: n}, buf); err != nil {
					return fmt.Errorf("read %q: %w", h.Name, err)
				}
			}
			tr = tar.NewReader(t)
			continue
		}
		if _, err := io.CopyBuffer(io.Discard, readerOnly{tr}, buf); err != nil {
			return fmt.Errorf("read %q: %w", h.Name, err)
		}
	}
}

// sparseLeft returns how many bytes of content the archive holds behind the headers of a sparse file. raw is what the tar.Reader
// read: in the PAX format 1.0 that includes the map at the beginning of the content. Sizes that do not fit: false.
//
// Facts: https://www.gnu.org/software/tar/manual/html_node/Sparse-Formats.html.
func sparseLeft(h *tar.Header, raw []byte) (int64, bool) {
	for len(raw) >= 512 {
		size, ok := blockSize(raw)
		if !ok {
			return 0, false
		}
		switch raw[156] {
		case 'x', 'g', 'L', 'K': // headers before the header
			skip := 512 + (size+511)&^511
			if skip > int64(len(raw)) {
				return 0, false
			}
			raw = raw[skip:]
		case 'S': // with a map in blocks of its own, which the size leaves out
			return size, true
		default:
			if s, ok := h.PAXRecords["size"]; ok {
				n, err := strconv.ParseInt(s, 10, 64)
				if err != nil || n < 0 {
					return 0, false
				}
				size = n
			}
			read := int64(len(raw) - 512)
			return size - read, size >= read
		}
	}
	return 0, false
}

// isSparse reports whether the holes of a file are left out in the archive.
func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// blockSize reads the size field of a header block: octal, or base 256 where the first bit is set.
func blockSize(block []byte) (int64, bool) {
	f := block[124:136]
	if f[0]&0x80 == 0 {
		n, err := strconv.ParseInt(strings.Trim(string(f), " \x00"), 8, 64)
		return n, err == nil && n >= 0
	}
	n := int64(f[0] & 0x7f)
	for _, b := range f[1:] {
		if n >= 1<<54 {
			return 0, false
		}
		n = n<<8 | int64(b)
	}
	return n, true
}

// exactly gives the next n bytes of a reader, which must have them.
type exactly struct {
	r io.Reader
	n int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.n)])
	if e.n -= int64(n); err == io.EOF && e.n > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// maxHeader is the greatest size of the headers of one entry: long names, extended attributes, the map of a sparse file.
const maxHeader = 16 << 20

// rest reads the stream to its end, which must be zeros.
func rest(r io.Reader, buf []byte) error {
	for {
		n, err := r.Read(buf)
		if len(bytes.Trim(buf[:n], "\x00")) > 0 {
			return errors.New("read tar: there is data behind the end of the archive")
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
	}
}

// tap sees the bytes that a tar.Reader takes: headers are kept, content goes to a writer. A tar.Reader never reads ahead.
type tap struct {
	r    io.Reader
	n    int64
	keep *bytes.Buffer
	to   io.Writer
}

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.n += int64(n)
	if t.keep != nil {
		if t.keep.Len()+n > 2*maxHeader {
			return 0, fmt.Errorf("a header of more than %d bytes", maxHeader)
		}
		t.keep.Write(p[:n])
	}
	if t.to != nil && n > 0 {
		if _, err := t.to.Write(p[:n]); err != nil {
			return 0, err
		}
	}
	return n, err
}

type readerOnly struct{ io.Reader }
