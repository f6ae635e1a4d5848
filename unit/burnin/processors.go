package burnin

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// workSize is how much memory a round works on, bytes: more than the nearest caches have.
const workSize = 1 << 20

// rounds are the results that the rounds must have, in hex.
var rounds = []string{
	"57668ab3fdc4812a41bfe88b65fc30efa77045b50d7fccc7c44699930b91bb73",
	"bebde7daf027aa8665913fa295cec9e8e882818cf202c7b9b40ea5b0584586e6",
	"9af9b92c3de6b9b6ba62332650d73c09854b5d6d6aae0c5d0055e7f755ec806f",
	"09e0c6c7ab186a2e76aa3bab41be8faac3bcc2541f7c25d6263c504ede230fab",
	"a066c3238aabb7df4b6e0eb3bebfe72e27e1ae9b548a266993dcb2e415402074",
	"c217d50d3f7c1e6330b2b411721f05f72169d42b3fd9c9f60b3e5b85dba44dae",
	"e68812a621606873c2953161d043f2d0e163a9bebf02bde2a1e8727b0d393d88",
	"e0c57238973b1ea61df85b829e7adf06638a90a8433eadb19f7e99c45fa4c224",
}

// round computes: AES, SHA-2, CRC, integers and floating point. Its result depends on n alone, and is the same on all processors: no
// product is fused with a sum.
func round(work []byte, n int) [sha256.Size]byte {
	key := sha256.Sum256(binary.LittleEndian.AppendUint64([]byte("burn-in"), uint64(n)))
	c, err := aes.NewCipher(key[:])
	if err != nil {
		return [sha256.Size]byte{} // a key of 32 bytes is one
	}
	clear(work)
	cipher.NewCTR(c, key[:aes.BlockSize]).XORKeyStream(work, work)
	sum := sha512.Sum512(work)
	result := sha256.New()
	result.Write(sum[:])
	result.Write(binary.LittleEndian.AppendUint32(nil, crc32.Checksum(work, crc32.MakeTable(crc32.Castagnoli))))
	result.Write(binary.LittleEndian.AppendUint64(nil, integers(work)))
	result.Write(binary.LittleEndian.AppendUint64(nil, math.Float64bits(floats(work))))
	result.Write(work)
	return [sha256.Size]byte(result.Sum(nil))
}

// integers mixes the words of b by multiplications, divisions, shifts and counts.
func integers(b []byte) uint64 {
	h := uint64(len(b))
	for i := 0; i+16 <= len(b); i += 16 {
		x, y := binary.LittleEndian.Uint64(b[i:]), binary.LittleEndian.Uint64(b[i+8:])
		high, low := bits.Mul64(x^h, y|1)
		q, r := bits.Div64(high%(y|1), low, y|1)
		h = bits.RotateLeft64(h^q, int(r&63)) + uint64(bits.OnesCount64(x)) + bits.ReverseBytes64(r)
	}
	return h
}

// floats multiplies matrices made of b.
func floats(b []byte) float64 {
	const n = 64
	at := func(i int) float64 { return float64(int16(binary.LittleEndian.Uint16(b[2*i%len(b):]))) / 1024 }
	var x, y [n * n]float64
	for i := range x {
		x[i], y[i] = at(i), at(n*n+i)
	}
	total := 0.0
	for range 4 {
		var z [n * n]float64
		for i := range n {
			for k := range n {
				f := x[i*n+k]
				for j := range n {
					z[i*n+j] += float64(f * y[k*n+j])
				}
			}
		}
		for i := range z {
			x[i] = math.Sqrt(math.Abs(z[i])) / float64(1+float64(i%7))
			total = float64(total/2) + x[i]
		}
	}
	return total
}

// allowed returns the numbers of the logical processors that this process may use.
func allowed() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("list processors: %w", err)
	}
	var out []int
	for i := range len(set) * bits.UintSize {
		if set.IsSet(i) {
			out = append(out, i)
		}
	}
	return out, nil
}

// pin binds the calling thread to a logical processor.
func pin(core int) error {
	var set unix.CPUSet
	set.Set(core)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("bind to processor %d: %w", core, err)
	}
	return nil
}

// processors lets each logical processor compute for the time, and compares each result with the known one.
func (s *stage) processors(ctx context.Context) {
	const name = "burn-in processors"
	cores, err := s.parts.cores()
	if err != nil {
		s.add(name, err.Error(), "all compute", "all processors are found", false)
		return
	}
	length := time.Duration(s.want.ProcessorMinutes) * s.parts.minute
	began := time.Now()
	s.total.Store(length.Milliseconds())
	var count atomic.Int64
	errs := all(len(cores), func(i int) error {
		runtime.LockOSThread() // never unlocked: the thread ends with the worker, and its binding with it
		if err := s.parts.pin(cores[i]); err != nil {
			return err
		}
		work := make([]byte, workSize)
		for n := 0; n == 0 || time.Since(began) < length && ctx.Err() == nil; n++ {
			k := n % len(rounds)
			if got := s.parts.round(cores[i], work, k); hex.EncodeToString(got[:]) != rounds[k] {
				return fmt.Errorf("wrong result in round %d", n)
			}
			count.Add(1)
			s.done.Store(min(time.Since(began), length).Milliseconds())
		}
		return nil
	})
	var bad []string
	for i, err := range errs {
		if err != nil {
			bad = append(bad, fmt.Sprintf("processor %d: %v", cores[i], err))
		}
	}
	took := time.Since(began)
	found := fmt.Sprintf("%d processors, %d rounds, none wrong", len(cores), count.Load())
	if len(bad) > 0 {
		found = few(bad, 5)
	}
	if why := stopped(ctx); why != "" && len(bad) == 0 {
		s.note(name, found, why)
		return
	}
	rule := fmt.Sprintf("each computes for %s, each result is the known one", length.Round(time.Second))
	s.add(name, found, "none wrong", rule, len(bad) == 0)
	if len(bad) == 0 {
		rate := float64(count.Load()) / took.Seconds() / float64(len(cores))
		s.note("burn-in processor speed", fmt.Sprintf("%.1f rounds/s on each", rate), "measured")
	}
}
