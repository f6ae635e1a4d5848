package image

import (
	"crypto/sha256"
	"io"
	"runtime"
	"sync"

	"gprovision/model/fault"
)

// proofChunk is how many bytes of an image share one hash.
const proofChunk = 256 << 10

// Proof is what an image was when its signature was checked: the hash of each chunk. The checksums inside an xz file
// detect damage only. A malicious medium could return another good image on the second read.
type Proof struct {
	size   int64
	hashes [][sha256.Size]byte
	chunk  []byte // the chunk being filled
}

// Write takes the next bytes of the image.
func (p *Proof) Write(b []byte) (int, error) {
	n := len(b)
	p.size += int64(n)
	for len(b) > 0 {
		k := min(len(b), proofChunk-len(p.chunk))
		p.chunk, b = append(p.chunk, b[:k]...), b[k:]
		if len(p.chunk) == proofChunk {
			p.closeChunk()
		}
	}
	return n, nil
}

// closeChunk closes a chunk, including the last one.
func (p *Proof) closeChunk() {
	if len(p.chunk) > 0 {
		p.hashes = append(p.hashes, sha256.Sum256(p.chunk))
		p.chunk = p.chunk[:0]
	}
}

// Reader returns a reader of f that returns only proven content. Several goroutines may read from it. The proof of an
// unsigned image is nil: then Reader returns f itself.
func (p *Proof) Reader(f io.ReaderAt) io.ReaderAt {
	if p == nil {
		return f
	}
	return &provenReader{f: f, Proof: p, recent: make([]provenChunk, 2*runtime.NumCPU()+2)}
}

// provenReader caches the chunks that were read last, because each decoder reads its own part in small pieces from
// start to end.
type provenReader struct {
	f io.ReaderAt
	*Proof

	mu     sync.Mutex
	recent []provenChunk
	next   int // index of the oldest in recent
}

// provenChunk never changes.
type provenChunk struct {
	index int64
	data  []byte
}

// ReadAt implements io.ReaderAt. The error is fault.ImageCorrupt if the content is not what was proven.
func (r *provenReader) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) {
		at := off + int64(n)
		if at < 0 || at >= r.size {
			return n, io.EOF
		}
		data, err := r.readChunk(at / proofChunk)
		if err != nil {
			return n, err
		}
		n += copy(b[n:], data[at%proofChunk:])
	}
	return n, nil
}

func (r *provenReader) readChunk(index int64) ([]byte, error) {
	r.mu.Lock()
	for _, c := range r.recent {
		if c.index == index && c.data != nil {
			r.mu.Unlock()
			return c.data, nil
		}
	}
	r.mu.Unlock()
	at := index * proofChunk
	data := make([]byte, min(proofChunk, r.size-at))
	if n, err := r.f.ReadAt(data, at); n < len(data) {
		return nil, fault.Newf(fault.ImageCorrupt, "read %d bytes at byte %d: %w", len(data), at, err)
	}
	if sha256.Sum256(data) != r.hashes[index] {
		return nil, fault.Newf(fault.ImageCorrupt, "what is read at byte %d is not what the signature was checked for", at)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recent[r.next] = provenChunk{index, data}
	r.next = (r.next + 1) % len(r.recent)
	return data, nil
}
