package machinetest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// memory returns a directory that exists until the test ends. It is in memory if possible: a sync there costs
// nothing, and here it shows nothing.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "gprov-rig-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// errEnd is the end of a device.
var errEnd = io.EOF

// Tree describes the content of a directory, one line per file: mode, name, and the hash of the content or the target
// of the link.
func Tree(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		what := ""
		switch info.Mode().Type() {
		case 0:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what = fmt.Sprintf("%x", sha256.Sum256(b))
		case fs.ModeSymlink:
			if what, err = os.Readlink(path); err != nil {
				return err
			}
		}
		fmt.Fprintf(&out, "%s %s %s\n", info.Mode(), strings.TrimPrefix(path, dir), what)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return out.String()
}

// copyTree copies the content of a directory, with modes, to another existing directory.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		dest := filepath.Join(to, strings.TrimPrefix(path, from))
		switch info.Mode().Type() {
		case fs.ModeDir:
			if err := os.MkdirAll(dest, 0o700); err != nil {
				return err
			}
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, dest)
		case 0:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if err := os.WriteFile(dest, b, 0o600); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s is a %s", path, info.Mode())
		}
		return os.Chmod(dest, info.Mode())
	})
}

// copySparse copies a file and keeps its holes.
func copySparse(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	size, err := in.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return err
		}
		if at, err = unix.Seek(int(in.Fd()), data, unix.SEEK_HOLE); err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, data), io.NewSectionReader(in, data, at-data)); err != nil {
			return err
		}
	}
	return out.Truncate(size)
}

// writeSparse writes b to a file at an offset. Where b is zero it leaves a hole, without looking at what was there: a wipe of a disk is
// most of what a job writes.
func writeSparse(f *os.File, b []byte, off int64) (int, error) {
	const chunk = 64 << 10
	zero := make([]byte, chunk)
	for n := 0; n < len(b); {
		end := n
		for end < len(b) && bytes.Equal(b[end:min(end+chunk, len(b))], zero[:min(chunk, len(b)-end)]) {
			end = min(end+chunk, len(b))
		}
		if end > n {
			const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
			if err := unix.Fallocate(int(f.Fd()), mode, off+int64(n), int64(end-n)); err != nil {
				if _, err := f.WriteAt(b[n:end], off+int64(n)); err != nil { // a filesystem without holes
					return n, err
				}
			}
			n = end
			continue
		}
		end = min(n+chunk, len(b))
		if _, err := f.WriteAt(b[n:end], off+int64(n)); err != nil {
			return n, err
		}
		n = end
	}
	return len(b), nil
}

// Bytes identifies the content of a disk, except for the bytes from from to to. It is a hash of everything that is
// not zero, with its place.
func (r *Rig) Bytes(name string, from, to int64) string {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := os.Open(filepath.Join(r.dir, "dev", name))
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	const chunk = 4096
	h, b, zero := sha256.New(), make([]byte, chunk), make([]byte, chunk)
	for at := int64(0); ; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return fmt.Sprintf("%x", h.Sum(nil))
		}
		if err != nil {
			r.t.Fatal(err)
		}
		if at, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE); err != nil {
			r.t.Fatal(err)
		}
		for ; data < at; data += chunk {
			n, err := f.ReadAt(b, data)
			if err != nil && !errors.Is(err, io.EOF) {
				r.t.Fatal(err)
			}
			if (data < from || data >= to) && !bytes.Equal(b[:n], zero[:n]) {
				fmt.Fprintf(h, "%d %x\n", data, b[:n])
			}
		}
	}
}
