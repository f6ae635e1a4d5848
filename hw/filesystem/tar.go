package filesystem

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Package archive/tar reads the headers of an entry, and nothing else: it delivers the holes of a sparse file as zeros, and a
// hole may have terabytes. What is taken from it is the map of a sparse file, in all four forms that GNU tar writes (GNU tar
// manual, appendix D.2; the old one in its tar.h), so that Unpack can leave holes out.

const (
	tarBlock     = 512
	maxTarHeader = 1 << 20 // of the content of one extended header, and of a map
	maxTarGroup  = 4 << 20 // of all headers of one entry
)

// WalkTar calls visit for each entry of a tar stream, and of archives that are joined to it, and reads r to its end: what
// Unpack unpacks, and nothing else. Global PAX headers are left out. The content is valid until visit returns; holes are zeros
// in it.
func WalkTar(r io.Reader, visit func(h *tar.Header, content io.Reader) error) error {
	for r != nil {
		w := NewTarReader(r)
		for {
			h, content, err := w.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return fmt.Errorf("read tar: %w", err)
			}
			if err := visit(h, content); err != nil {
				return err
			}
		}
		var err error
		if r, err = afterEnd(r); err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
	}
	return nil
}

// IsTar reports whether b, 512 bytes or more, begins with the header of a tar, of any format back to that of Unix V7: what tells is the
// sum that all have, and the end of an archive that is empty.
func IsTar(b []byte) bool {
	if len(b) < tarBlock {
		return false
	}
	block := (*[tarBlock]byte)(b)
	sum, err := tarNumber(block[148:156])
	return allZeroBytes(block[:]) || err == nil && sum > 0 && sum == tarSum(block)
}

// afterEnd skips the zeros behind the end of an archive and returns a reader of the archive that follows, or nil.
func afterEnd(r io.Reader) (io.Reader, error) {
	block := make([]byte, tarBlock)
	for {
		n, err := io.ReadFull(r, block)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return nil, err
		}
		if !allZeroBytes(block[:n]) {
			if n < len(block) {
				return nil, errors.New("garbage behind the end of the archive")
			}
			return io.MultiReader(strings.NewReader(string(block)), r), nil
		}
		if err != nil {
			return nil, nil
		}
	}
}

// TarReader reads the entries of one archive, and holes as what they are.
type TarReader struct {
	r       io.Reader
	group   []byte // headers of the entry, as archive/tar gets them
	raw     []byte // as they are in the archive, with the map of a sparse file
	content *tarContent
	pad     int64 // behind the content
}

// NewTarReader returns a TarReader. It reads no more of r than it needs.
func NewTarReader(r io.Reader) *TarReader { return &TarReader{r: r} }

// Head returns the headers of the entry that Next returned, byte for byte, with the map of a sparse file. They are valid until the next
// call.
func (w *TarReader) Head() []byte { return w.raw }

// Stored returns the content of the entry that Next returned as it is in the archive, without holes, and with what fills its last
// block. It takes the place of the reader that Next returned.
func (w *TarReader) Stored() io.Reader {
	pad := w.pad
	w.pad = 0
	return io.MultiReader(w.content, &tarContent{r: w.r, left: pad})
}

// Next returns the next entry, io.EOF behind the last one. Global PAX headers are left out. The content is valid until the next call;
// holes are zeros in it.
func (w *TarReader) Next() (*tar.Header, io.Reader, error) {
	if w.content != nil {
		if _, err := io.Copy(io.Discard, w.content); err != nil {
			return nil, nil, err
		}
		if n, err := io.CopyN(io.Discard, w.r, w.pad); err != nil && (err != io.EOF || n > 0) {
			return nil, nil, cutShort(err)
		}
	}
	w.group, w.raw = w.group[:0], w.raw[:0]
	var pax []paxRecord
	for {
		block, err := w.block()
		if err == io.EOF && len(w.group) > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, nil, err
		}
		at := len(w.group)
		switch block[156] {
		case tar.TypeXHeader, tar.TypeXGlobalHeader, tar.TypeGNULongName, tar.TypeGNULongLink:
			size, err := tarNumber(block[124:136])
			if err != nil || size > maxTarHeader || int64(at)+size > maxTarGroup {
				return nil, nil, fmt.Errorf("extended header of %d bytes: %w", size, tar.ErrHeader)
			}
			w.group = append(w.group, block[:]...)
			body := len(w.group)
			w.group = append(w.group, make([]byte, (size+tarBlock-1)/tarBlock*tarBlock)...)
			if _, err := io.ReadFull(w.r, w.group[body:]); err != nil {
				return nil, nil, cutShort(err)
			}
			w.raw = append(w.raw, w.group[at:]...)
			switch block[156] {
			case tar.TypeXGlobalHeader:
				if _, err := tar.NewReader(bytes.NewReader(w.group[at:])).Next(); err != nil {
					return nil, nil, err
				}
				w.group, w.raw, pax = w.group[:0], w.raw[:0], nil
			case tar.TypeXHeader:
				if pax, err = hideSparse(w.group[body : int64(body)+size]); err != nil {
					return nil, nil, err
				}
			}
			continue
		}
		h, sparse, err := w.entry(block, pax)
		if err != nil {
			name := lastOf(pax, "name")
			if name == "" {
				field, _, _ := bytes.Cut(block[:100], []byte{0})
				name = string(field)
			}
			return nil, nil, fmt.Errorf("entry %q: %w", name, err)
		}
		if sparse {
			return h, &sparseContent{tarContent: w.content, size: h.Size}, nil
		}
		return h, w.content, nil
	}
}

// block reads a header block and checks its sum; io.EOF where two blocks of zeros end the archive, or where r ends.
func (w *TarReader) block() (*[tarBlock]byte, error) {
	var b [tarBlock]byte
	if _, err := io.ReadFull(w.r, b[:]); err != nil {
		return nil, err
	}
	if allZeroBytes(b[:]) {
		if _, err := io.ReadFull(w.r, b[:]); err != nil {
			return nil, err
		}
		if !allZeroBytes(b[:]) {
			return nil, fmt.Errorf("one block of zeros: %w", tar.ErrHeader)
		}
		return nil, io.EOF
	}
	return &b, nil
}

// entry parses an entry with the header block b and what stands before it, and prepares its content.
func (w *TarReader) entry(b *[tarBlock]byte, pax []paxRecord) (h *tar.Header, sparse bool, err error) {
	w.raw = append(w.raw, b[:]...)
	oldGNU := b[156] == tar.TypeGNUSparse
	var parts []Extent
	var realSize int64
	if oldGNU {
		if string(b[257:265]) != "ustar  \x00" {
			return nil, false, tar.ErrHeader
		}
		if realSize, err = tarNumber(b[483:495]); err != nil {
			return nil, false, err
		}
		if parts, err = w.oldMap(b); err != nil {
			return nil, false, err
		}
		plain := *b
		plain[156] = tar.TypeReg
		if err := fixSum(&plain, b); err != nil {
			return nil, false, err
		}
		b = &plain
	}
	w.group = append(w.group, b[:]...)
	if h, err = tar.NewReader(bytes.NewReader(w.group)).Next(); err != nil {
		if err == io.EOF {
			err = tar.ErrHeader
		}
		return nil, false, err
	}
	w.content = &tarContent{r: w.r}
	if !headerOnly(h.Typeflag) {
		w.content.left = h.Size
	}
	w.pad = -w.content.left & (tarBlock - 1)
	form := sparseForm(pax)
	switch {
	case oldGNU:
		h.Typeflag = tar.TypeGNUSparse
		h.Size = realSize
	case form == noSparse:
		return h, false, nil
	default:
		if name := lastOf(pax, "name"); name != "" {
			h.Name = name
		}
		size := lastOf(pax, "size")
		if size == "" {
			size = lastOf(pax, "realsize")
		}
		if size != "" {
			if h.Size, err = strconv.ParseInt(size, 10, 64); err != nil {
				return nil, false, tar.ErrHeader
			}
		}
		if form == sparse1x0 {
			parts, err = w.readMap()
		} else {
			parts, err = textMap(pax)
		}
		if err != nil {
			return nil, false, err
		}
	}
	if headerOnly(h.Typeflag) || !fits(parts, h.Size, w.content.left) {
		return nil, false, fmt.Errorf("map of a sparse file: %w", tar.ErrHeader)
	}
	w.content.parts = parts
	return h, true, nil
}

func headerOnly(kind byte) bool {
	switch kind {
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
		return true
	}
	return false
}

// tarContent delivers the bytes of an entry that are in the archive.
type tarContent struct {
	r     io.Reader
	left  int64
	parts []Extent // of a sparse file: where those bytes belong
}

func (c *tarContent) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if err == io.EOF {
		err = nil
		if c.left > 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

// sparseContent delivers a sparse file with its holes. Unpack takes the parts themselves.
type sparseContent struct {
	*tarContent
	at, size int64
}

func (s *sparseContent) Read(p []byte) (int, error) {
	if s.at == s.size {
		return 0, io.EOF
	}
	for len(s.parts) > 0 && s.at == s.parts[0].At+s.parts[0].Size {
		s.parts = s.parts[1:]
	}
	if len(s.parts) > 0 && s.at >= s.parts[0].At {
		n, err := s.tarContent.Read(p[:min(int64(len(p)), s.parts[0].At+s.parts[0].Size-s.at)])
		s.at += int64(n)
		return n, err
	}
	end := s.size
	if len(s.parts) > 0 {
		end = s.parts[0].At
	}
	n := int(min(int64(len(p)), end-s.at))
	clear(p[:n])
	s.at += int64(n)
	return n, nil
}

// blocks returns how many blocks of ext4 the content that is not yet read takes, and in how many runs.
func (s *sparseContent) blocks() (blocks, runs int64) {
	next := int64(0) // block behind the last one
	for _, p := range s.parts {
		if p.Size == 0 {
			continue
		}
		first, end := p.At/ext4Block, (p.At+p.Size-1)/ext4Block+1
		if first > next || runs == 0 {
			runs++
		}
		blocks += end - max(first, next)
		next = end
	}
	return blocks, runs
}

// fits reports whether parts are in order inside of size bytes, and hold stored bytes together.
func fits(parts []Extent, size, stored int64) bool {
	end := int64(0)
	for _, p := range parts {
		if p.At < end || p.Size < 0 || p.At > math.MaxInt64-p.Size || p.Size > stored {
			return false
		}
		end = p.At + p.Size
		stored -= p.Size
	}
	return stored == 0 && end <= size
}

// oldMap reads the map of the old GNU format: four parts in the header itself, further ones in blocks of their own behind it.
func (w *TarReader) oldMap(b *[tarBlock]byte) ([]Extent, error) {
	var parts []Extent
	area, more := b[386:482], b[482]
	for {
		for ; len(area) > 0 && area[0] != 0; area = area[24:] {
			at, err := tarNumber(area[:12])
			if err != nil {
				return nil, err
			}
			size, err := tarNumber(area[12:24])
			if err != nil {
				return nil, err
			}
			parts = append(parts, Extent{at, size})
		}
		if more == 0 {
			return parts, nil
		}
		if len(parts)*24 > maxTarHeader {
			return nil, fmt.Errorf("the map of a sparse file has more than %d bytes, too many holes: %w", maxTarHeader, tar.ErrHeader)
		}
		var ext [tarBlock]byte
		if _, err := io.ReadFull(w.r, ext[:]); err != nil {
			return nil, cutShort(err)
		}
		w.raw = append(w.raw, ext[:]...)
		area, more = ext[:504], ext[504]
	}
}

// readMap reads the map of version 1.0 from the beginning of the content: decimal numbers, each on a line, to the end of a block.
func (w *TarReader) readMap() ([]Extent, error) {
	var text []byte
	lines, want := 0, 1
	var count int64
	for lines < want {
		if len(text) >= maxTarHeader {
			return nil, fmt.Errorf("the map of a sparse file has more than %d bytes, too many holes: %w", maxTarHeader, tar.ErrHeader)
		}
		text = append(text, make([]byte, tarBlock)...)
		fresh := text[len(text)-tarBlock:]
		if _, err := io.ReadFull(w.content, fresh); err != nil {
			return nil, cutShort(err)
		}
		lines += bytes.Count(fresh, []byte{'\n'})
		if want == 1 && lines > 0 {
			first, _, _ := bytes.Cut(text, []byte{'\n'})
			var err error
			if count, err = strconv.ParseInt(string(first), 10, 64); err != nil || count < 0 {
				return nil, fmt.Errorf("map of a sparse file: %w", tar.ErrHeader)
			}
			if count > maxTarHeader/4 {
				return nil, fmt.Errorf("a sparse file in %d parts, too many: %w", count, tar.ErrHeader)
			}
			want = 1 + 2*int(count)
		}
	}
	w.raw = append(w.raw, text...)
	numbers := strings.Split(string(text), "\n")[1:want]
	return extents(numbers)
}

// textMap returns the map of version 0.0, whose numbers are records in turn, or of 0.1, where they are in one.
func textMap(pax []paxRecord) ([]Extent, error) {
	var numbers []string
	for _, r := range pax {
		if r.key == "offset" || r.key == "numbytes" {
			if (r.key == "numbytes") != (len(numbers)%2 == 1) {
				return nil, fmt.Errorf("map of a sparse file: %w", tar.ErrHeader)
			}
			numbers = append(numbers, r.value)
		}
	}
	if m := lastOf(pax, "map"); m != "" && len(numbers) == 0 {
		numbers = strings.Split(m, ",")
	}
	if n, err := strconv.Atoi(lastOf(pax, "numblocks")); err != nil || 2*n != len(numbers) {
		return nil, fmt.Errorf("map of a sparse file: %w", tar.ErrHeader)
	}
	return extents(numbers)
}

func extents(numbers []string) ([]Extent, error) {
	if len(numbers)%2 != 0 {
		return nil, fmt.Errorf("map of a sparse file: %w", tar.ErrHeader)
	}
	var parts []Extent
	for ; len(numbers) > 0; numbers = numbers[2:] {
		at, err := strconv.ParseInt(numbers[0], 10, 64)
		size, err2 := strconv.ParseInt(numbers[1], 10, 64)
		if err != nil || err2 != nil {
			return nil, fmt.Errorf("map of a sparse file: %w", tar.ErrHeader)
		}
		parts = append(parts, Extent{at, size})
	}
	return parts, nil
}

// paxRecord is a record GNU.sparse.KEY=VALUE.
type paxRecord struct{ key, value string }

const sparsePrefix = "GNU.sparse."

// hideSparse returns the records about sparse files in the content of a PAX header, and renames them there, so that archive/tar
// takes the file for a plain one.
func hideSparse(body []byte) ([]paxRecord, error) {
	var out []paxRecord
	for len(body) > 0 {
		digits, _, ok := bytes.Cut(body, []byte{' '})
		n, err := strconv.ParseUint(string(digits), 10, 31)
		if !ok || err != nil || int(n) > len(body) || int(n) < len(digits)+3 || body[n-1] != '\n' {
			return nil, fmt.Errorf("PAX record: %w", tar.ErrHeader)
		}
		record := body[len(digits)+1 : n-1]
		if bytes.HasPrefix(record, []byte(sparsePrefix)) {
			key, value, ok := strings.Cut(string(record[len(sparsePrefix):]), "=")
			if !ok {
				return nil, fmt.Errorf("PAX record: %w", tar.ErrHeader)
			}
			out = append(out, paxRecord{key, value})
			record[0] = 'g'
		}
		body = body[n:]
	}
	return out, nil
}

// lastOf returns the value of the last record with the key, "" if there is none.
func lastOf(pax []paxRecord, key string) string {
	value := ""
	for _, r := range pax {
		if r.key == key {
			value = r.value
		}
	}
	return value
}

// The forms of a sparse file in a PAX archive.
const (
	noSparse = iota
	sparse0x // the map is in the PAX records
	sparse1x0
)

func sparseForm(pax []paxRecord) int {
	major, minor := lastOf(pax, "major"), lastOf(pax, "minor")
	switch {
	case major == "1" && minor == "0":
		return sparse1x0
	case major == "0" && (minor == "0" || minor == "1"):
		return sparse0x
	case major == "" && minor == "" && (lastOf(pax, "map") != "" || lastOf(pax, "offset") != ""):
		return sparse0x
	}
	return noSparse
}

// tarNumber reads a number of a header block: octal digits, or, where the first bit is set, the bytes of a binary number (GNU).
// No number here may be negative.
func tarNumber(b []byte) (int64, error) {
	if b[0]&0x80 == 0 {
		s := strings.Trim(string(b), " \x00")
		if s == "" {
			return 0, nil
		}
		n, err := strconv.ParseInt(s, 8, 64)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("number %q: %w", b, tar.ErrHeader)
		}
		return n, nil
	}
	n := int64(b[0] & 0x7f)
	for _, c := range b[1:] {
		if n > math.MaxInt64>>8 {
			return 0, fmt.Errorf("number %x: %w", b, tar.ErrHeader)
		}
		n = n<<8 | int64(c)
	}
	return n, nil
}

// fixSum gives b the right sum if that of the block was, which it was made from, was right.
func fixSum(b, was *[tarBlock]byte) error {
	n, err := tarNumber(was[148:156])
	if err != nil || n != tarSum(was) {
		return fmt.Errorf("sum of the header: %w", tar.ErrHeader)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", tarSum(b)))
	return nil
}

// tarSum adds up the bytes of a header block, those of the sum itself as spaces.
func tarSum(b *[tarBlock]byte) int64 {
	n := int64(8 * ' ')
	for i, c := range b {
		if i < 148 || i >= 156 {
			n += int64(c)
		}
	}
	return n
}
