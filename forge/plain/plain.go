// Package plain reads what may be compressed, as tools write root filesystems, layers and archives: xz, gzip and zstd, in several
// members or frames, also those of pzstd, which begin with a frame to be skipped, and of zstd --long up to --long=31.
//
// It tells the format by the first bytes alone, never by a name. It decodes on one processor; package release has the reader of
// images.
package plain

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
)

// Format is how something is compressed.
type Format string

// The formats. None says that the first bytes are of no known one.
const (
	None  Format = ""
	XZ    Format = "xz"
	Gzip  Format = "gzip"
	Zstd  Format = "zstd"
	Bzip2 Format = "bzip2" // not read
)

// ErrFormat says that something is compressed in a way that is not read.
var ErrFormat = errors.New("compressed with bzip2, which is not read: use xz, gzip, zstd or none")

// maxWindow is the greatest window of zstd, that of --long=31: how much of what was decoded is kept in memory.
const maxWindow = 2 << 30

// Detect tells the format by the first bytes; six are enough.
func Detect(head []byte) Format {
	switch {
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		return XZ
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return Gzip
	case bytes.HasPrefix(head, []byte("BZh")):
		return Bzip2
	case len(head) >= 4:
		// RFC 8878, 3.1.1 and 3.1.2: a frame, and the sixteen numbers of frames to be skipped.
		if magic := binary.LittleEndian.Uint32(head); magic == 0xfd2fb528 || magic&^0xf == 0x184d2a50 {
			return Zstd
		}
	}
	return None
}

// Reader is what is inside. Close gives back the decoder and does not close what it reads.
type Reader struct {
	io.Reader
	Format Format
	close  func()
}

// NewReader returns a reader of what is inside in, or of in itself where that is not compressed.
func NewReader(in *bufio.Reader) (*Reader, error) {
	head, err := in.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	r := &Reader{Reader: in, Format: Detect(head), close: func() {}}
	switch r.Format {
	case XZ:
		r.Reader, err = xz.NewReader(in, 0)
	case Gzip:
		r.Reader, err = gzip.NewReader(in)
	case Zstd:
		var d *zstd.Decoder
		if d, err = zstd.NewReader(in, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1)); err == nil {
			r.Reader, r.close = d, d.Close
		}
	case Bzip2:
		return nil, ErrFormat
	default:
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", r.Format, err)
	}
	return r, nil
}

// Close ends the decoder.
func (r *Reader) Close() error {
	r.close()
	return nil
}
