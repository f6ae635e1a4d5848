// Package lzma decodes LZMA2, the compression inside an xz block, at the speed that a restore needs. It knows nothing of xz: no
// headers, no checks, no filters. The caller sees to those.
//
// A Decoder decodes into a buffer that is dictionary and result at once, so that nothing is copied through a window: for a
// block whose size is known the buffer holds all of it; for a larger one it slides. The output is always that of the data given,
// or an error; what is damaged may be found late, so nothing is trusted before the check of the block.
//
// Sources: lzma-specification.txt of the LZMA SDK for what is inside a chunk; lib/xz/xz_dec_lzma2.c of Linux for the chunks.
package lzma

import (
	"errors"
	"fmt"
	"io"
)

// ErrDamaged: the data is not LZMA2. An error of the reader is never wrapped in it.
var ErrDamaged = errors.New("damaged LZMA2 data")

// maxChunk is how many bytes one chunk decodes to, at most (21 bits).
const maxChunk = 1 << 21

// Room is how much larger than its content the buffer of a Decoder must be.
const Room = slack

// afterLiteral, afterMatch, afterRep and afterShortRep are the next state of the model.
var (
	afterLiteral  = [states]uint{0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 4, 5}
	afterMatch    = [states]uint{7, 7, 7, 7, 7, 7, 7, 10, 10, 10, 10, 10}
	afterRep      = [states]uint{8, 8, 8, 8, 8, 8, 8, 11, 11, 11, 11, 11}
	afterShortRep = [states]uint{9, 9, 9, 9, 9, 9, 9, 11, 11, 11, 11, 11}
)

// Decoder decodes one block after another. The zero value is ready for Reset. It takes about 100 KiB.
type Decoder struct {
	in    input
	model model
	src   io.Reader
	buf   []byte
	pos   int  // end of what is decoded in buf
	begin int  // where the dictionary began, counted in buf; negative when that has slid out
	dict  uint // bytes that a match may reach back

	slide               bool
	needDict, needProps bool
	done                bool
}

// Reset begins a block: LZMA2 data from src, which should be buffered, with a dictionary of dict bytes, decoded into buf. Without
// slide nothing ever moves in buf, which must be the size of the block plus Room; with it the block may be of any size, and buf has
// at least Window(dict) bytes. A block that does not fit gives ErrDamaged.
func (d *Decoder) Reset(src io.Reader, buf []byte, dict int, slide bool) {
	d.src, d.buf, d.dict, d.slide = src, buf, uint(dict), slide
	d.pos, d.begin, d.done = 0, 0, false
	d.needDict, d.needProps = true, true
}

// Window is the size of a buffer for a block of any size with a dictionary of dict bytes.
func Window(dict int) int { return dict + 2*maxChunk + Room }

// Next decodes one chunk and returns the new bytes, a part of the buffer. They stay valid until the next call, and
// without slide until Reset. io.EOF is the end of the LZMA2 data: src is read no further than there, apart
// from what it buffers. Errors wrap ErrDamaged, or are those of src; one that ends too soon gives io.ErrUnexpectedEOF.
func (d *Decoder) Next() ([]byte, error) {
	if d.done {
		return nil, io.EOF
	}
	control, err := d.bytes(1)
	if err != nil {
		return nil, err
	}
	c := control[0]
	switch {
	case c == 0:
		d.done = true
		return nil, io.EOF
	case c >= 0xe0 || c == 1:
		d.begin, d.needDict, d.needProps = d.pos, false, true
	case d.needDict:
		return nil, fmt.Errorf("chunk without a dictionary: %w", ErrDamaged)
	case c == 2 || c >= 0x80:
	default:
		return nil, fmt.Errorf("chunk of type %#x: %w", c, ErrDamaged)
	}
	if c < 0x80 {
		return d.stored()
	}
	head, err := d.bytes(4)
	if err != nil {
		return nil, err
	}
	size := (int(c&0x1f)<<16 | int(head[0])<<8 | int(head[1])) + 1
	packed := (int(head[2])<<8 | int(head[3])) + 1
	switch {
	case c >= 0xc0:
		props, err := d.bytes(1)
		if err != nil {
			return nil, err
		}
		if !d.model.properties(props[0]) {
			return nil, fmt.Errorf("properties %#x: %w", props[0], ErrDamaged)
		}
		d.needProps = false
	case d.needProps:
		return nil, fmt.Errorf("chunk without properties: %w", ErrDamaged)
	}
	if c >= 0xa0 {
		d.model.reset()
	}
	if packed < 5 {
		return nil, fmt.Errorf("chunk of %d bytes: %w", packed, ErrDamaged)
	}
	if err := d.room(size); err != nil {
		return nil, err
	}
	if _, err := d.fill(d.in[:packed]); err != nil {
		return nil, err
	}
	if !d.symbols(d.buf, d.pos, d.pos+size, uint(packed)) {
		return nil, fmt.Errorf("chunk of %d bytes: %w", packed, ErrDamaged)
	}
	d.pos += size
	return d.buf[d.pos-size : d.pos], nil
}

// stored takes a chunk that is not compressed.
func (d *Decoder) stored() ([]byte, error) {
	head, err := d.bytes(2)
	if err != nil {
		return nil, err
	}
	size := (int(head[0])<<8 | int(head[1])) + 1
	if err := d.room(size); err != nil {
		return nil, err
	}
	part, err := d.fill(d.buf[d.pos : d.pos+size])
	if err != nil {
		return nil, err
	}
	d.pos += size
	return part, nil
}

// bytes reads n bytes, at most 16.
func (d *Decoder) bytes(n int) ([]byte, error) {
	return d.fill(d.in[:n])
}

func (d *Decoder) fill(b []byte) ([]byte, error) {
	if _, err := io.ReadFull(d.src, b); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b, nil
}

// room makes room for size more bytes. What is further back than the dictionary goes.
func (d *Decoder) room(size int) error {
	if d.pos+size+Room <= len(d.buf) {
		return nil
	}
	gone := d.pos - int(d.dict)
	if !d.slide || gone <= 0 || d.pos-gone+size+Room > len(d.buf) {
		return fmt.Errorf("block is longer than its buffer: %w", ErrDamaged)
	}
	copy(d.buf, d.buf[gone:d.pos])
	d.pos -= gone
	d.begin -= gone
	return nil
}

// properties takes over the byte with the numbers lc, lp and pb.
func (m *model) properties(b byte) bool {
	if b > (4*5+4)*9+8 {
		return false
	}
	m.pb, b = uint(b/45), b%45
	m.lp, m.lc = uint(b/9), uint(b%9)
	return m.lc+m.lp <= 4
}
