package filesystem

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Extent is a part of a sparse file that is no hole, in bytes.
type Extent struct{ At, Size int64 }

// MaxExtents is how many parts a sparse file in a tar may have. The list of them is read into memory.
const MaxExtents = 20000

// hidden is what hideSparse makes of sparsePrefix. Package archive/tar writes such records, and none with the prefix itself.
const hidden = "gNU.sparse."

// TarWriter writes a tar in the PAX format, and sparse files with their holes left out, in the form 1.0 of GNU tar: "Storing Sparse
// Files" in its manual, https://www.gnu.org/software/tar/manual/html_node/PAX-1.html. The same entries give the same bytes.
type TarWriter struct {
	w io.Writer
}

// NewTarWriter returns a TarWriter.
func NewTarWriter(w io.Writer) *TarWriter { return &TarWriter{w} }

// Write writes an entry. Where content comes from WalkTar or a TarReader, the holes of a sparse file stay holes.
func (t *TarWriter) Write(h *tar.Header, content io.Reader) error {
	if s, ok := content.(*sparseContent); ok {
		return t.WriteSparse(h, s.parts, s.tarContent)
	}
	out := plainHeader(h)
	if headerOnly(out.Typeflag) {
		out.Size = 0
	}
	tw := tar.NewWriter(t.w)
	if err := tw.WriteHeader(out); err != nil {
		return err
	}
	if out.Size > 0 {
		if n, err := io.CopyN(tw, content, out.Size); err != nil {
			return fmt.Errorf("content of %d bytes ends after %d: %w", out.Size, n, cutShort(err))
		}
	}
	return tw.Flush()
}

// WriteSparse writes a regular file of h.Size bytes of which only parts are no holes. data delivers their content, one after another.
func (t *TarWriter) WriteSparse(h *tar.Header, parts []Extent, data io.Reader) error {
	stored := int64(0)
	for _, p := range parts {
		if p.Size < 0 || p.Size > math.MaxInt64-stored {
			return errors.New("sizes of a sparse file")
		}
		stored += p.Size
	}
	if k := len(parts) - 1; k < 0 || parts[k].At+parts[k].Size < h.Size {
		parts = append(slices.Clone(parts), Extent{h.Size, 0}) // from which GNU tar knows how long the file is
	}
	if !fits(parts, h.Size, stored) || len(parts) > MaxExtents {
		return fmt.Errorf("a sparse file of %d bytes in %d parts, which do not fit or are more than %d", h.Size, len(parts), MaxExtents)
	}
	var list bytes.Buffer
	fmt.Fprintln(&list, len(parts))
	for _, p := range parts {
		fmt.Fprintf(&list, "%d\n%d\n", p.At, p.Size)
	}
	list.Write(make([]byte, -list.Len()&(tarBlock-1)))
	out := plainHeader(h)
	out.Typeflag = tar.TypeReg
	if out.PAXRecords == nil {
		out.PAXRecords = map[string]string{}
	}
	for key, value := range map[string]string{"major": "1", "minor": "0", "name": h.Name, "realsize": strconv.FormatInt(h.Size, 10)} {
		out.PAXRecords[hidden+key] = value
	}
	// What does not know the records unpacks the list and the parts under this name.
	out.Name = path.Join(path.Dir(h.Name), "GNUSparseFile.0", path.Base(h.Name))
	out.Size = int64(list.Len()) + stored
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(out); err != nil {
		return err
	}
	if err := showSparse(head.Bytes()); err != nil {
		return err
	}
	for _, b := range []*bytes.Buffer{&head, &list} {
		if _, err := t.w.Write(b.Bytes()); err != nil {
			return err
		}
	}
	if n, err := io.CopyN(t.w, data, stored); err != nil {
		return fmt.Errorf("content of %d bytes ends after %d: %w", stored, n, cutShort(err))
	}
	_, err := t.w.Write(make([]byte, -stored&(tarBlock-1)))
	return err
}

// plainHeader returns a copy in the PAX format, without the records of a sparse file.
func plainHeader(h *tar.Header) *tar.Header {
	out := *h
	out.Format = tar.FormatPAX
	out.PAXRecords = maps.Clone(h.PAXRecords)
	maps.DeleteFunc(out.PAXRecords, func(k, _ string) bool { return strings.HasPrefix(k, hidden) || strings.HasPrefix(k, sparsePrefix) })
	if out.Typeflag == tar.TypeGNUSparse || out.Typeflag == tar.TypeCont {
		out.Typeflag = tar.TypeReg
	}
	return &out
}

// showSparse gives the records of a sparse file in a PAX header, which hideSparse would hide, their right names. The sum of a header
// is about its own block, not about the records.
func showSparse(head []byte) error {
	size, err := tarNumber(head[124:136])
	if err != nil || head[156] != tar.TypeXHeader || tarBlock+size > int64(len(head)) {
		return tar.ErrHeader
	}
	body := head[tarBlock : tarBlock+size]
	for len(body) > 0 {
		digits, _, ok := bytes.Cut(body, []byte{' '})
		n, err := strconv.Atoi(string(digits))
		if !ok || err != nil || n > len(body) || n <= len(digits) {
			return tar.ErrHeader
		}
		if record := body[len(digits)+1 : n]; bytes.HasPrefix(record, []byte(hidden)) {
			record[0] = sparsePrefix[0]
		}
		body = body[n:]
	}
	return nil
}

// Close ends the archive. It does not close the writer below.
func (t *TarWriter) Close() error { return tar.NewWriter(t.w).Close() }
