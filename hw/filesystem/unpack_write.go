package filesystem

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	writerBytes = 256 << 10 // files up to this size are written by the writers
	flushBytes  = 64 << 20  // after so many bytes the device is given work
)

// writers write the content and the attributes of small files while the next entries are read. The unpacker itself makes every
// name, in the order of the archive; a writer has an open file and no name, so nothing it does depends on the order.
//
// They also let the device begin early: what is written stays in memory for seconds otherwise, and the device would idle while the
// processors decode, and they while it writes.
type writers struct {
	root  int // descriptor of the target
	flush bool
	set   func(*os.File, string, attributes) error

	work  chan pending
	free  chan []byte
	alive sync.WaitGroup // the writers
	open  sync.WaitGroup // files that are not complete

	mu  sync.Mutex
	err error // the first

	unflushed int64
	flushing  chan error // has room for one; a token is in it when no flush runs
}

// pending is a file that has been made and lacks its content and attributes.
type pending struct {
	file *os.File
	data []byte
	name string
	a    attributes
}

func newWriters(root int, flush bool, set func(*os.File, string, attributes) error) *writers {
	n := min(runtime.GOMAXPROCS(0), 4)
	w := &writers{root: root, flush: flush, set: set, work: make(chan pending, 2*n), free: make(chan []byte, 4*n), flushing: make(chan error, 1)}
	for range cap(w.free) {
		w.free <- nil
	}
	w.flushing <- nil
	for range n {
		w.alive.Go(w.run)
	}
	return w
}

// buffer returns a buffer of writerBytes. It comes back to the pool after write.
func (w *writers) buffer() []byte {
	if b := <-w.free; b != nil {
		return b
	}
	return make([]byte, writerBytes)
}

// write hands over a file. It is closed in any case.
func (w *writers) write(p pending) {
	w.open.Add(1)
	w.work <- p
}

func (w *writers) run() {
	for p := range w.work {
		_, err := p.file.Write(p.data)
		if err == nil {
			err = w.set(p.file, p.name, p.a)
		}
		if err = errors.Join(err, p.file.Close()); err != nil {
			w.fail(fmt.Errorf("unpack %q: %w", p.name, err))
		}
		w.free <- p.data[:writerBytes]
		w.open.Done()
	}
}

func (w *writers) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

// failure returns the first error of a writer.
func (w *writers) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// wait waits until all files are complete.
func (w *writers) wait() error {
	w.open.Wait()
	return w.failure()
}

// wrote counts bytes, and begins a flush when there are enough and none runs.
func (w *writers) wrote(n int64) {
	w.unflushed += n
	if !w.flush || w.unflushed < flushBytes {
		return
	}
	select {
	case err := <-w.flushing:
		if err != nil {
			w.fail(err)
		}
		w.unflushed = 0
		fd, err := unix.Openat(w.root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			w.flushing <- os.NewSyscallError("open target", err)
			return
		}
		go func() {
			defer unix.Close(fd)
			w.flushing <- os.NewSyscallError("syncfs", unix.Syncfs(fd))
		}()
	default:
	}
}

// end ends all goroutines and returns the first error.
func (w *writers) end() error {
	close(w.work)
	w.alive.Wait()
	if err := <-w.flushing; err != nil {
		w.fail(err)
	}
	return w.failure()
}
