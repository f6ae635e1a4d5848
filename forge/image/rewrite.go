package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"

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
		if _, err := io.CopyBuffer(io.Discard, readerOnly{tr}, buf); err != nil {
			return fmt.Errorf("read %q: %w", h.Name, err)
		}
	}
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
