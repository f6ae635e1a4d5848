package release

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"sync"

	"github.com/mikelolasagasti/xz"

	"gprovision/model/release/lzma"
)

// What can be wrong with the compressed stream. Errors of reading the file itself wrap none of these.
var (
	// ErrNotXZ: the file does not begin or end like an xz file. A file that was cut anywhere is found so.
	ErrNotXZ = errors.New("not a complete xz file")
	// ErrNotSHA256: the stream is not protected by SHA-256.
	ErrNotSHA256 = errors.New("the xz stream is not checked by SHA-256 (make it with xz --check=sha256)")
	// ErrDamaged: a check does not hold.
	ErrDamaged = errors.New("the xz stream is damaged")
)

// Facts of the xz format, https://tukaani.org/xz/xz-file-format.txt (version 1.2.1): 2.1.1 stream header, 2.1.2 stream
// footer, 2.2 stream padding, 3.1 block header, 3.4 check, 4 index, 1.2 the numbers in both, 5.3.1 the filter
// LZMA2. Other numbers are little endian.
const (
	xzHeader   = 12 // bytes of a stream header, and of a stream footer
	checkSHA   = 0x0a
	shaBytes   = 32
	maxDict    = 64 << 20  // the dictionary of xz -9
	chunkBytes = 1 << 20   // what is decoded through a window is passed on in pieces of this size
	partBytes  = 256 << 10 // and what is decoded in one piece, in parts of at least this size
)

// Limits that keep a hostile file from using up the memory.
const (
	maxIndexBytes = 4 << 20   // of all indexes of a file
	maxStreams    = 1 << 16   //
	aheadBytes    = 128 << 20 // decoded and not yet read, or 16 MiB for each worker where that is more
	windowAhead   = 48 << 20  // the same, of blocks that are too large to be decoded in one piece
	jobsPerWorker = 3         // blocks on their way for each worker, where they are small
)

const (
	magicHeader = "\xfd7zXZ\x00"
	magicFooter = "YZ"
)

// CheckHeader looks at the first 12 bytes of an image: they must be those of an xz stream that is checked by SHA-256. Errors
// wrap ErrNotXZ, ErrNotSHA256 or ErrDamaged.
func CheckHeader(r io.ReaderAt) error {
	return checkHeader(r, 0)
}

func checkHeader(r io.ReaderAt, at int64) error {
	var b [xzHeader]byte
	if n, err := r.ReadAt(b[:], at); n < len(b) {
		if err == io.EOF {
			return fmt.Errorf("read xz header at byte %d: %w", at, ErrNotXZ)
		}
		return fmt.Errorf("read xz header at byte %d: %w", at, err)
	}
	switch {
	case string(b[:6]) != magicHeader:
		return fmt.Errorf("xz header at byte %d: %w", at, ErrNotXZ)
	case crc32.ChecksumIEEE(b[6:8]) != binary.LittleEndian.Uint32(b[8:]):
		return fmt.Errorf("checksum of xz header at byte %d: %w", at, ErrDamaged)
	case b[6] != 0 || b[7] != checkSHA:
		return fmt.Errorf("xz header at byte %d has flags %02x%02x: %w", at, b[6], b[7], ErrNotSHA256)
	}
	return nil
}

// block is one independently decodable part of the file.
type block struct {
	at       int64 // first byte in the file
	unpadded int64 // header, data and check
	size     int64 // decoded
}

func (b block) padded() int64 { return (b.unpadded + 3) &^ 3 }

// Reader delivers the decoded content of an image in order, while several workers decode its blocks.
//
// Read until io.EOF, and trust nothing before that. It is for one goroutine. Memory is bounded: with up to eight workers about
// 128 MiB of decoded data (with the builder's blocks of 8 MiB and two workers, 56), and for blocks that are larger than a share of
// that, each worker's dictionary (8 MiB at xz -6, never more than 64). A block of any size is decoded, but a single huge one by one
// worker only.
type Reader struct {
	src     io.ReaderAt
	blocks  []block
	size    int64
	streams int

	ctx    context.Context
	cancel context.CancelCauseFunc
	order  chan *job // in the order of the file
	wait   *sync.WaitGroup
	whole  int64 // blocks up to this size are decoded in one piece
	bufs   pool  // for those
	chunks pool  // for the others

	current *job
	part    part   // that is being read
	rest    []byte // of it
	err     error  // sticky
}

// job is one block on its way. The worker fills out, sets err, then closes out.
type job struct {
	block block
	out   chan part
	err   error
}

// part is some decoded data. When it has been read, buf goes back to its pool, if there is one.
type part struct {
	data []byte
	buf  []byte
	pool *pool
}

// pool keeps buffers to use again.
type pool struct {
	free chan []byte
	size int64
}

func (p *pool) take() []byte {
	select {
	case b := <-p.free:
		return b
	default:
		return make([]byte, p.size)
	}
}

func (p *pool) give(b []byte) {
	select {
	case p.free <- b:
	default:
	}
}

// NewReader reads the indexes of all streams of an image of size bytes, checks its structure, and starts workers goroutines
// (at least one) that decode. Errors wrap ErrNotXZ, ErrNotSHA256 or ErrDamaged, or are those of reading. The caller calls
// Close, unless Read has returned an error, io.EOF too. When ctx ends, Read returns its error.
func NewReader(ctx context.Context, src io.ReaderAt, size int64, workers int) (*Reader, error) {
	r := &Reader{src: src, wait: &sync.WaitGroup{}}
	if err := r.readStreams(size); err != nil {
		return nil, err
	}
	workers = max(1, min(workers, len(r.blocks)))
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	ahead := int64(max(aheadBytes, workers*16<<20))
	r.whole = ahead / int64(workers+2)
	for _, b := range r.blocks {
		if b.size <= r.whole {
			r.bufs.size = max(r.bufs.size, b.size+lzma.Room)
		}
		r.chunks.size = max(r.chunks.size, min(b.size+1, chunkBytes))
	}
	// One more than these is on its way: the one that is being read.
	jobs := workers + 1
	if r.bufs.size > 0 {
		jobs = max(jobs, min(jobsPerWorker*workers, int(ahead/r.bufs.size)-1))
	}
	perJob := windowAhead / (jobs + 1) / chunkBytes
	r.bufs.free = make(chan []byte, jobs+1)
	r.chunks.free = make(chan []byte, (jobs+1)*perJob)
	r.order = make(chan *job, jobs)
	work := make(chan *job)
	r.wait.Go(func() { r.dispatch(work, perJob) })
	for range workers {
		r.wait.Go(func() { r.decodeAll(work) })
	}
	return r, nil
}

// Size is the number of bytes that Read delivers in all, as the indexes say. Each block is checked against it.
func (r *Reader) Size() int64 { return r.size }

// Blocks is the number of blocks: how many parts can be decoded in parallel.
func (r *Reader) Blocks() int { return len(r.blocks) }

// Streams is the number of xz streams that are joined in the file.
func (r *Reader) Streams() int { return r.streams }

// readStreams goes through the file from its end, as only the indexes say where the blocks are.
func (r *Reader) readStreams(end int64) error {
	if end < 0 {
		return fmt.Errorf("xz file of %d bytes: %w", end, ErrNotXZ)
	}
	if err := CheckHeader(r.src); err != nil {
		return err
	}
	if end%4 != 0 {
		return fmt.Errorf("xz file of %d bytes, not a multiple of 4: %w", end, ErrNotXZ)
	}
	budget := int64(maxIndexBytes)
	var perStream [][]block
	for end > 0 {
		var err error
		if end, err = r.skipPadding(end); err != nil {
			return err
		}
		blocks, start, used, err := r.readStream(end, budget)
		if err != nil {
			return err
		}
		budget -= used
		perStream = append(perStream, blocks)
		if len(perStream) > maxStreams {
			return fmt.Errorf("more than %d xz streams: %w", maxStreams, ErrDamaged)
		}
		end = start
	}
	r.streams = len(perStream)
	for i := len(perStream) - 1; i >= 0; i-- {
		for _, b := range perStream[i] {
			if r.size += b.size; r.size < 0 {
				return fmt.Errorf("decoded size: %w", ErrDamaged)
			}
			r.blocks = append(r.blocks, b)
		}
	}
	return nil
}

// skipPadding returns the end of the stream before the zeros that end at end. They come in fours.
func (r *Reader) skipPadding(end int64) (int64, error) {
	var buf [4096]byte
	for end > 0 {
		part := buf[:min(int64(len(buf)), end)]
		if err := r.readAt(part, end-int64(len(part))); err != nil {
			return 0, err
		}
		for i := len(part); i > 0; i -= 4 {
			if binary.LittleEndian.Uint32(part[i-4:]) != 0 {
				return end - int64(len(part)-i), nil
			}
		}
		end -= int64(len(part))
	}
	return 0, fmt.Errorf("only zeros: %w", ErrNotXZ)
}

// readStream reads the stream that ends at end. It returns its blocks, where it starts, and how many bytes its index has.
func (r *Reader) readStream(end, budget int64) (blocks []block, start, indexBytes int64, err error) {
	fail := func(what string, kind error) ([]block, int64, int64, error) {
		return nil, 0, 0, fmt.Errorf("xz stream that ends at byte %d: %s: %w", end, what, kind)
	}
	if end < 2*xzHeader+8 {
		return fail("too short", ErrNotXZ)
	}
	var foot [xzHeader]byte
	if err := r.readAt(foot[:], end-xzHeader); err != nil {
		return nil, 0, 0, err
	}
	if string(foot[10:]) != magicFooter {
		return fail("no footer", ErrNotXZ)
	}
	if crc32.ChecksumIEEE(foot[4:10]) != binary.LittleEndian.Uint32(foot[:]) {
		return fail("checksum of the footer", ErrDamaged)
	}
	if foot[8] != 0 || foot[9] != checkSHA {
		return fail("flags in the footer", ErrNotSHA256)
	}
	indexBytes = (int64(binary.LittleEndian.Uint32(foot[4:])) + 1) * 4
	if indexBytes > budget {
		return fail(fmt.Sprintf("index of %d bytes is too large", indexBytes), ErrDamaged)
	}
	indexAt := end - xzHeader - indexBytes
	if indexAt < xzHeader {
		return fail("index does not fit in", ErrDamaged)
	}
	index := make([]byte, indexBytes)
	if err := r.readAt(index, indexAt); err != nil {
		return nil, 0, 0, err
	}
	blocks, total, ok := parseIndex(index)
	if !ok {
		return fail("index", ErrDamaged)
	}
	start = indexAt - total - xzHeader
	if start < 0 {
		return fail("blocks do not fit in", ErrDamaged)
	}
	if err := checkHeader(r.src, start); err != nil {
		return nil, 0, 0, err
	}
	at := start + xzHeader
	for i := range blocks {
		blocks[i].at = at
		at += blocks[i].padded()
	}
	return blocks, start, indexBytes, nil
}

// parseIndex parses an index with its checksum, of whole fours of bytes. total is the number of bytes that the blocks take in the file.
func parseIndex(index []byte) (blocks []block, total int64, ok bool) {
	if len(index) < 8 || index[0] != 0 {
		return nil, 0, false
	}
	body, sum := index[:len(index)-4], index[len(index)-4:]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(sum) {
		return nil, 0, false
	}
	rest := body[1:]
	count, rest, ok := number(rest)
	// Each record takes two bytes or more.
	if !ok || count > int64(len(rest)/2) {
		return nil, 0, false
	}
	blocks = make([]block, 0, count)
	for range count {
		var b block
		if b.unpadded, rest, ok = number(rest); !ok {
			return nil, 0, false
		}
		if b.size, rest, ok = number(rest); !ok {
			return nil, 0, false
		}
		// The smallest block: a header of 8, one byte of data, the check.
		if b.unpadded < 8+1+shaBytes || b.unpadded > 1<<61 {
			return nil, 0, false
		}
		if total += b.padded(); total > 1<<61 {
			return nil, 0, false
		}
		blocks = append(blocks, b)
	}
	if len(rest) > 3 || len(bytes.Trim(rest, "\x00")) != 0 {
		return nil, 0, false
	}
	return blocks, total, true
}

// number reads a multibyte integer (format, 1.2), which has at most 63 bits.
func number(b []byte) (n int64, rest []byte, ok bool) {
	for i := 0; i < len(b) && i < 9; i++ {
		n |= int64(b[i]&0x7f) << (7 * i)
		if b[i]&0x80 == 0 {
			return n, b[i+1:], i == 0 || b[i] != 0
		}
	}
	return 0, nil, false
}

func putNumber(b []byte, n int64) []byte {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

// readAt fills b. The end of the file inside it means that the file is shorter than it was.
func (r *Reader) readAt(b []byte, at int64) error {
	n, err := r.src.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == io.EOF {
		err = ErrNotXZ
	}
	return fmt.Errorf("read %d bytes at byte %d: %w", len(b), at, err)
}

// dispatch hands the blocks to the workers, never more than fit into order.
func (r *Reader) dispatch(work chan<- *job, perJob int) {
	defer close(work)
	defer close(r.order)
	for _, b := range r.blocks {
		parts := int64(max(perJob, 1))
		if b.size <= r.whole {
			parts = b.size/partBytes + 1
		}
		j := &job{block: b, out: make(chan part, parts)}
		select {
		case r.order <- j:
		case <-r.ctx.Done():
			return
		}
		select {
		case work <- j:
		case <-r.ctx.Done():
			return
		}
	}
}

// decodeAll is a worker.
func (r *Reader) decodeAll(work <-chan *job) {
	d := &decoder{in: bufio.NewReaderSize(nil, 128<<10), hash: sha256.New()}
	for j := range work {
		j.err = r.decode(d, j)
		close(j.out)
		if r.ctx.Err() != nil {
			return
		}
	}
}

// decoder is what a worker keeps from block to block.
type decoder struct {
	in     *bufio.Reader
	hash   hash.Hash
	lzma   lzma.Decoder
	window []byte     // for blocks that are too large to be decoded in one piece
	xz     *xz.Reader // for blocks with other filters than LZMA2
}

// decode decodes one block. Blocks with LZMA2 alone, as all builders make them, are decoded by package lzma.
func (r *Reader) decode(d *decoder, j *job) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decode block at byte %d: panic: %v: %w", j.block.at, p, ErrDamaged)
		}
	}()
	h, err := r.readBlockHeader(j.block)
	switch {
	case err != nil:
	case !h.plain:
		err = r.decodeFiltered(d, j)
	case j.block.size <= r.whole:
		err = r.decodeWhole(d, j, h)
	default:
		err = r.decodeWindow(d, j, h)
	}
	if err != nil {
		return fmt.Errorf("decode block at byte %d: %w", j.block.at, err)
	}
	return nil
}

// blockHeader is what a block's header says (format, 3.1).
type blockHeader struct {
	bytes int64 // its length
	plain bool  // LZMA2 is the only filter
	dict  int   // bytes of its dictionary
}

// filterLZMA2 is the number of the filter LZMA2 (format, 5.3.1).
const filterLZMA2 = 0x21

func (r *Reader) readBlockHeader(b block) (blockHeader, error) {
	var buf [1024]byte
	if err := r.readAt(buf[:1], b.at); err != nil {
		return blockHeader{}, err
	}
	h := blockHeader{bytes: (int64(buf[0]) + 1) * 4}
	if buf[0] == 0 || h.bytes+1+shaBytes > b.unpadded {
		return h, fmt.Errorf("size of the header: %w", ErrDamaged)
	}
	if err := r.readAt(buf[:h.bytes], b.at); err != nil {
		return h, err
	}
	return h, h.parse(buf[:h.bytes], b)
}

// parse parses a header whose length is known, and compares it with what the index says of the block.
func (h *blockHeader) parse(buf []byte, b block) error {
	body, sum := buf[:len(buf)-4], buf[len(buf)-4:]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(sum) {
		return fmt.Errorf("checksum of the header: %w", ErrDamaged)
	}
	flags, rest := body[1], body[2:]
	if flags&0x3c != 0 {
		return fmt.Errorf("flags %#x of the header: %w", flags, ErrDamaged)
	}
	next := func() (n int64, ok bool) {
		n, rest, ok = number(rest)
		return n, ok
	}
	for _, size := range []struct {
		flag byte
		want int64
	}{{0x40, b.unpadded - h.bytes - shaBytes}, {0x80, b.size}} {
		if flags&size.flag == 0 {
			continue
		}
		if n, ok := next(); !ok || n != size.want {
			return fmt.Errorf("the header says %d bytes, the index %d: %w", n, size.want, ErrDamaged)
		}
	}
	if flags&3 != 0 {
		return nil
	}
	id, ok1 := next()
	props, ok2 := next()
	if !ok1 || !ok2 || id != filterLZMA2 || props != 1 || len(rest) < 1 || rest[0] > 40 {
		return fmt.Errorf("filter %#x: %w", id, ErrDamaged)
	}
	dict := (2 | int64(rest[0]&1)) << (rest[0]/2 + 11)
	if dict > maxDict {
		return fmt.Errorf("dictionary of more than %d MiB: %w", maxDict>>20, ErrDamaged)
	}
	h.dict, h.plain = int(dict), true
	if len(bytes.Trim(rest[1:], "\x00")) != 0 {
		return fmt.Errorf("padding of the header: %w", ErrDamaged)
	}
	return nil
}

// begin points the decoder at the data of a block.
func (r *Reader) begin(d *decoder, b block, h blockHeader, buf []byte, slide bool) *source {
	src := &source{r: io.NewSectionReader(r.src, b.at+h.bytes, b.unpadded-h.bytes-shaBytes)}
	d.in.Reset(src)
	d.hash.Reset()
	d.lzma.Reset(d.in, buf, h.dict, slide)
	return src
}

// next decodes some more, up to io.EOF, and hashes it. left is what the index says must still come.
func (d *decoder) next(src *source, left int64) ([]byte, error) {
	data, err := d.lzma.Next()
	switch {
	case err == io.EOF:
		if left != 0 {
			return nil, fmt.Errorf("shorter than its index says: %w", ErrDamaged)
		}
		if _, err := d.in.ReadByte(); err != io.EOF {
			return nil, src.explain(errors.New("data behind its end"))
		}
		return nil, io.EOF
	case err != nil:
		return nil, src.explain(err)
	case int64(len(data)) > left:
		return nil, fmt.Errorf("longer than its index says: %w", ErrDamaged)
	}
	d.hash.Write(data)
	return data, nil
}

// check compares the hash of what was decoded with the one behind the block, and looks at the padding between.
func (r *Reader) check(d *decoder, b block) error {
	var tail [3 + shaBytes]byte
	at := b.at + b.unpadded - shaBytes
	rest := tail[:b.at+b.padded()-at]
	if err := r.readAt(rest, at); err != nil {
		return err
	}
	pad := len(rest) - shaBytes
	if len(bytes.Trim(rest[:pad], "\x00")) != 0 {
		return fmt.Errorf("padding: %w", ErrDamaged)
	}
	if !bytes.Equal(d.hash.Sum(nil), rest[pad:]) {
		return fmt.Errorf("SHA-256: %w", ErrDamaged)
	}
	return nil
}

func (r *Reader) send(j *job, p part) error {
	select {
	case j.out <- p:
		return nil
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

// decodeWhole decodes a block into a buffer that holds all of it. Nothing is copied: Read gets parts of the buffer while the
// rest is decoded.
func (r *Reader) decodeWhole(d *decoder, j *job, h blockHeader) error {
	buf := r.bufs.take()
	src := r.begin(d, j.block, h, buf[:j.block.size+lzma.Room], false)
	from, to := int64(0), int64(0)
	for {
		data, err := d.next(src, j.block.size-to)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if to += int64(len(data)); to-from >= partBytes {
			if to == j.block.size {
				continue // the last part is sent below
			}
			if err := r.send(j, part{data: buf[from:to]}); err != nil {
				return err
			}
			from = to
		}
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
	}
	if err := r.check(d, j.block); err != nil {
		return err
	}
	return r.send(j, part{buf[from:to], buf, &r.bufs})
}

// decodeWindow decodes a block of any size through a window, and copies what comes out.
func (r *Reader) decodeWindow(d *decoder, j *job, h blockHeader) error {
	if need := lzma.Window(int(min(int64(h.dict), j.block.size))); len(d.window) < need {
		d.window = make([]byte, need)
	}
	src := r.begin(d, j.block, h, d.window, true)
	left, chunk, n := j.block.size, r.chunks.take(), 0
	for {
		data, err := d.next(src, left)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		left -= int64(len(data))
		for len(data) > 0 {
			if n == len(chunk) {
				if err := r.send(j, part{chunk, chunk, &r.chunks}); err != nil {
					return err
				}
				chunk, n = r.chunks.take(), 0
			}
			k := copy(chunk[n:], data)
			n += k
			data = data[k:]
		}
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
	}
	if err := r.check(d, j.block); err != nil {
		return err
	}
	return r.send(j, part{chunk[:n], chunk, &r.chunks})
}

// decodeFiltered decodes a block with other filters. The xz package reads whole files only, so the block gets a header, an index
// and a footer of its own; that package then checks the block's header, its padding, its SHA-256 and both its sizes.
func (r *Reader) decodeFiltered(d *decoder, j *job) (err error) {
	src := &source{r: io.NewSectionReader(r.src, j.block.at, j.block.padded())}
	head, tail := envelope(j.block)
	d.in.Reset(io.MultiReader(bytes.NewReader(head), src, bytes.NewReader(tail)))
	if d.xz == nil {
		d.xz, err = xz.NewReader(d.in, maxDict)
	} else {
		err = d.xz.Reset(d.in)
	}
	if err != nil {
		d.xz = nil
		return src.explain(err)
	}
	left := j.block.size
	for {
		chunk := r.chunks.take()
		n, err := io.ReadFull(d.xz, chunk)
		if left -= int64(n); left < 0 {
			return fmt.Errorf("longer than its index says: %w", ErrDamaged)
		}
		if n > 0 {
			if err := r.send(j, part{chunk[:n], chunk, &r.chunks}); err != nil {
				return err
			}
		}
		switch {
		case src.err != nil:
			return src.explain(err)
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			if left != 0 {
				return fmt.Errorf("shorter than its index says: %w", ErrDamaged)
			}
			return nil
		case err != nil:
			return src.explain(err)
		}
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
	}
}

// source remembers an error of reading the file, to tell it from damage.
type source struct {
	r   *io.SectionReader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

func (s *source) explain(err error) error {
	if s.err != nil {
		return fmt.Errorf("read: %w", s.err)
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// envelope returns what makes a complete xz file of one block: a stream header before it, index and footer behind it.
func envelope(b block) (head, tail []byte) {
	flags := []byte{0, checkSHA}
	head = append([]byte(magicHeader), flags...)
	head = binary.LittleEndian.AppendUint32(head, crc32.ChecksumIEEE(flags))

	tail = putNumber(putNumber([]byte{0, 1}, b.unpadded), b.size)
	for len(tail)%4 != 0 {
		tail = append(tail, 0)
	}
	tail = binary.LittleEndian.AppendUint32(tail, crc32.ChecksumIEEE(tail))
	foot := binary.LittleEndian.AppendUint32(nil, uint32(len(tail)/4-1))
	foot = append(foot, flags...)
	tail = binary.LittleEndian.AppendUint32(tail, crc32.ChecksumIEEE(foot))
	tail = append(tail, foot...)
	return head, append(tail, magicFooter...)
}

// Read delivers the next bytes. io.EOF means that every check of every block and stream held. Errors wrap ErrDamaged, or are
// those of reading the file or of the context.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, r.err
	}
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if err := r.next(); err != nil {
			r.err = err
			r.stop(err)
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// next gets the next part.
func (r *Reader) next() error {
	if r.part.pool != nil {
		r.part.pool.give(r.part.buf)
	}
	r.part = part{}
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	if r.current == nil {
		select {
		case j, ok := <-r.order:
			if !ok {
				if r.ctx.Err() != nil {
					return context.Cause(r.ctx)
				}
				return io.EOF
			}
			r.current = j
		case <-r.ctx.Done():
			return context.Cause(r.ctx)
		}
	}
	select {
	case p, ok := <-r.current.out:
		if ok {
			r.part, r.rest = p, p.data
			return nil
		}
		err := r.current.err
		r.current = nil
		return err
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

func (r *Reader) stop(why error) {
	r.cancel(why)
	r.wait.Wait()
	r.current, r.part, r.rest = nil, part{}, nil
}

// Close ends all workers and waits for them. It may be called at any time, and again. It does not close the file.
func (r *Reader) Close() error {
	if r.err == nil {
		r.err = fs.ErrClosed
	}
	r.stop(r.err)
	return nil
}
