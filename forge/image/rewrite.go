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
// attributes, holes and all else stay as they are. Entries that drop names are left out, with their content, and global PAX headers,
// which units do not obey and other programs would. The two blocks that end the archive are not written. It calls each for every
// entry that is copied.
//
// The archive must end with the stream: what GNU tar would not see must not hide behind the end.
func rewrite(w io.Writer, r io.Reader, drop map[string]bool, each func(h *tar.Header)) error {
	tr := filesystem.NewTarReader(r)
	buf := make([]byte, 1<<20)
	for {
		h, _, err := tr.Next()
		if err == io.EOF {
			return rest(r, buf)
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		name, err := filesystem.EntryName(h.Name)
		if err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, err)
		}
		if drop[name] {
			continue
		}
		each(h)
		if _, err := w.Write(tr.Head()); err != nil {
			return err
		}
		if _, err := io.CopyBuffer(writerOnly{w}, tr.Stored(), buf); err != nil {
			return fmt.Errorf("read %q: %w", h.Name, err)
		}
	}
}

// writerOnly hides all but Write, so that a copy goes through the buffer that it was given.
type writerOnly struct{ io.Writer }

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
