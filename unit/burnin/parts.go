package burnin

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/unit/inventory"
)

// parts are the parts of a machine that a burn-in works on, and how it reaches them.
type parts struct {
	// minute is how long a minute is.
	minute time.Duration
	// cores lists the logical processors, pin binds the calling thread to one, and round computes on it.
	cores func() ([]int, error)
	pin   func(core int) error
	round func(core int, work []byte, n int) [sha256.Size]byte
	// free says how many bytes of memory are free. take takes n bytes of it, and give gives them back.
	free func() (int64, error)
	take func(n int) ([]byte, error)
	give func([]byte) error
	// rest lets what is in the memory lie for a while.
	rest func(ctx context.Context)
}

// restTime is how long a pattern lies in the memory before it is read: bits that fade do so then.
const restTime = time.Second

func realParts(proc fs.FS) parts {
	return parts{
		minute: time.Minute,
		cores:  allowed,
		pin:    pin,
		round:  func(_ int, work []byte, n int) [sha256.Size]byte { return round(work, n) },
		free: func() (int64, error) {
			mib, err := inventory.Memory(proc, "MemAvailable")
			return int64(mib) << 20, err
		},
		take: func(n int) ([]byte, error) {
			b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
			if err != nil {
				return nil, fmt.Errorf("take %d bytes of memory: %w", n, err)
			}
			return b, nil
		},
		give: unix.Munmap,
		rest: func(ctx context.Context) {
			t := time.NewTimer(restTime)
			defer t.Stop()
			select {
			case <-t.C:
			case <-ctx.Done():
			}
		},
	}
}
