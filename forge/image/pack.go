package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/hw/filesystem"
)

const (
	// minSparse is the size from which on a file may have holes in an image, and minHole that of the smallest hole. Both are a matter of
	// what a hole saves: 64 KiB of zeros are some bytes when they are compressed.
	minSparse = 128 << 10
	minHole   = 64 << 10
	// zeroUnit is the border of holes, as on ext4.
	zeroUnit = 4096
)

// packing is a tar of a directory that is being written. Its error comes with the end of the stream.
type packing struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

// packDirectory packs a directory into a tar: sorted by name, owners as numbers, with hard links, devices, ACLs and the other extended
// attributes that ext4 has. Other filesystems that are mounted inside are left out, and sockets. No time is later than clamp, if that is
// set.
//
// What comes out depends on the tree alone, not on the filesystem it lies on: holes are where long runs of zeros are, whether or not
// the file has a hole there. Holes of the file only tell where nothing need be read.
func packDirectory(ctx context.Context, dir string, clamp time.Time) io.ReadCloser {
	ctx, cancel := context.WithCancel(ctx)
	pr, pw := io.Pipe()
	p := &packing{PipeReader: pr, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		err := packTree(ctx, pw, dir, clamp)
		if err != nil {
			err = fmt.Errorf("pack %s (all of it must be readable: root is needed for most root filesystems): %w", dir, err)
		}
		pw.CloseWithError(err)
	}()
	return p
}

// Close ends the packing, whether it was done or not.
func (p *packing) Close() error {
	p.cancel()
	p.PipeReader.Close()
	<-p.done
	return nil
}

type packer struct {
	ctx   context.Context
	w     *filesystem.TarWriter
	clamp time.Time
	links map[inodeID]string // first names of files with several
	buf   []byte
}

type inodeID struct{ device, inode uint64 }

func packTree(ctx context.Context, w io.Writer, dir string, clamp time.Time) error {
	p := &packer{ctx: ctx, w: filesystem.NewTarWriter(w), clamp: clamp, links: map[inodeID]string{}, buf: make([]byte, 1<<20)}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if err := p.directory(f, ".", &st, uint64(st.Dev)); err != nil {
		return err
	}
	return p.w.Close()
}

// directory writes a directory and all below it, as long as that is on the same device.
func (p *packer) directory(f *os.File, name string, st *unix.Stat_t, device uint64) error {
	h, err := p.header(name+"/", st, fmt.Sprintf("/proc/self/fd/%d/.", f.Fd()))
	if err != nil {
		return err
	}
	if err := p.w.Write(h, nil); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if uint64(st.Dev) != device {
		return nil
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		if p.ctx.Err() != nil {
			return context.Cause(p.ctx)
		}
		if err := p.entry(f, n, path.Join(name, n), device); err != nil {
			return err
		}
	}
	return nil
}

// entry writes what is called base in the directory dir.
func (p *packer) entry(dir *os.File, base, name string, device uint64) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	name = "./" + name
	switch kind := st.Mode & unix.S_IFMT; kind {
	case unix.S_IFSOCK:
		return nil
	case unix.S_IFDIR:
		fd, err := unix.Openat(int(dir.Fd()), base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: name, Err: err}
		}
		f := os.NewFile(uintptr(fd), name)
		defer f.Close()
		return p.directory(f, name, &st, device)
	}
	h, err := p.header(name, &st, fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), base))
	if err != nil {
		return err
	}
	if st.Nlink > 1 {
		id := inodeID{uint64(st.Dev), st.Ino}
		if first, ok := p.links[id]; ok {
			h.Typeflag, h.Linkname, h.Size, h.PAXRecords = tar.TypeLink, first, 0, nil
			return p.w.Write(h, nil)
		}
		p.links[id] = name
	}
	if h.Typeflag != tar.TypeReg {
		return p.w.Write(h, nil)
	}
	fd, err := unix.Openat(int(dir.Fd()), base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if err := p.file(f, h); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// file writes a regular file, with holes where it has long runs of zeros.
func (p *packer) file(f *os.File, h *tar.Header) error {
	if h.Size < minSparse {
		return p.w.Write(h, f)
	}
	parts, err := p.parts(f, h.Size)
	if err != nil {
		return err
	}
	if len(parts) == 1 && parts[0].Size == h.Size {
		return p.w.Write(h, io.NewSectionReader(f, 0, h.Size))
	}
	var data []io.Reader
	for _, e := range parts {
		data = append(data, io.NewSectionReader(f, e.At, e.Size))
	}
	return p.w.WriteSparse(h, parts, io.MultiReader(data...))
}

// parts returns the parts of a file that are no holes in an image. They depend on the content alone.
func (p *packer) parts(f *os.File, size int64) ([]filesystem.Extent, error) {
	var fine []filesystem.Extent // all units that are not zeros
	for at := int64(0); at < size; {
		if p.ctx.Err() != nil {
			return nil, context.Cause(p.ctx)
		}
		data, err := f.Seek(at, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO): // a hole to the end
			data = size
		case err != nil: // a filesystem that knows no holes
			data = at
		}
		at = max(at, data/zeroUnit*zeroUnit)
		end := size
		if hole, err := f.Seek(at, unix.SEEK_HOLE); err == nil {
			end = min(size, (max(at+1, hole)+zeroUnit-1)/zeroUnit*zeroUnit)
		}
		n, err := f.ReadAt(p.buf[:min(int64(len(p.buf)), max(0, end-at))], at)
		if err != nil && err != io.EOF {
			return nil, err
		}
		if n == 0 && at < size {
			return nil, io.ErrUnexpectedEOF
		}
		for b := p.buf[:n]; len(b) > 0; {
			unit := b[:min(zeroUnit, len(b))]
			if len(bytes.TrimLeft(unit, "\x00")) > 0 {
				if k := len(fine) - 1; k >= 0 && fine[k].At+fine[k].Size == at {
					fine[k].Size += int64(len(unit))
				} else {
					fine = append(fine, filesystem.Extent{At: at, Size: int64(len(unit))})
				}
			}
			at, b = at+int64(len(unit)), b[len(unit):]
		}
	}
	for hole := int64(minHole); ; hole *= 2 {
		if parts := coarse(fine, size, hole); len(parts) < filesystem.MaxExtents {
			return parts, nil
		}
	}
}

// coarse fills all holes that are shorter than hole, at the beginning and the end too.
func coarse(fine []filesystem.Extent, size, hole int64) []filesystem.Extent {
	var out []filesystem.Extent
	for _, e := range fine {
		k := len(out) - 1
		switch {
		case k < 0 && e.At < hole:
			out = append(out, filesystem.Extent{At: 0, Size: e.At + e.Size})
		case k >= 0 && e.At-out[k].At-out[k].Size < hole:
			out[k].Size = e.At + e.Size - out[k].At
		default:
			out = append(out, e)
		}
	}
	if k := len(out) - 1; k >= 0 && size-out[k].At-out[k].Size < hole {
		out[k].Size = size - out[k].At
	}
	return out
}

// header describes what is at the path, which st is of.
func (p *packer) header(name string, st *unix.Stat_t, at string) (*tar.Header, error) {
	h := &tar.Header{Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), ModTime: time.Unix(st.Mtim.Unix())}
	if !p.clamp.IsZero() && h.ModTime.After(p.clamp) {
		h.ModTime = p.clamp
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFLNK:
		to, err := os.Readlink(at)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, to
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
	default:
		return nil, fmt.Errorf("%s: type %o", name, st.Mode&unix.S_IFMT)
	}
	var err error
	if h.PAXRecords, err = xattrRecords(at); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return h, nil
}

// xattrRecords reads the extended attributes of a file, without following a link, in the form of a tar. Those that only this
// filesystem knows, such as btrfs.compression, are not part of the tree.
func xattrRecords(at string) (map[string]string, error) {
	list, err := growing(func(b []byte) (int, error) { return unix.Llistxattr(at, b) })
	if errors.Is(err, unix.EOPNOTSUPP) || len(list) == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	out := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if !ofTree(name) {
			continue
		}
		value, err := growing(func(b []byte) (int, error) { return unix.Lgetxattr(at, name, b) })
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read extended attribute %s: %w", name, err)
		}
		// As GNU tar writes the two characters that a record cannot have in its name.
		out["SCHILY.xattr."+strings.NewReplacer("%", "%25", "=", "%3D").Replace(name)] = string(value)
	}
	return out, nil
}

// ofTree reports whether an extended attribute belongs to the tree, and not to the filesystem it lies on.
func ofTree(name string) bool {
	space, _, _ := strings.Cut(name, ".")
	return space == "user" || space == "trusted" || space == "security" || strings.HasPrefix(name, "system.posix_acl_")
}

// growing calls a system call with a buffer until that is large enough.
func growing(call func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := call(nil)
		if err != nil || n == 0 {
			return nil, err
		}
		b := make([]byte, n)
		n, err = call(b)
		if errors.Is(err, unix.ERANGE) {
			continue
		}
		return b[:max(n, 0)], err
	}
}
