package filesystem

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// UnpackOptions says how Unpack works. The zero value is right for a restore whose caller syncs.
type UnpackOptions struct {
	// Progress, if set, is called now and then (each mebibyte of the stream, and at the end) with the state so far.
	Progress func(UnpackStats)
	// MaxBytes is the greatest sum of the sizes of all files; holes count. 0: no limit.
	MaxBytes int64
	// Sync writes the target's filesystem to its device at the end (syncfs).
	Sync bool
}

// UnpackStats counts what Unpack did.
type UnpackStats struct {
	Read    int64 // bytes of the tar stream
	Bytes   int64 // sum of the sizes of the files written
	Entries int   // entries of the tar stream
	Files   int   // regular files among them
}

// ErrUnsafe says that a tar stream tried to leave its target, or to write through a symbolic link. Nothing was written outside.
var ErrUnsafe = errors.New("the archive tries to write outside its target")

// Unpack writes a tar stream into the directory target, normally the root of an empty mounted filesystem. It preserves
// owners (numbers), modes, times with nanoseconds, hard links, symbolic links, devices, FIFOs, holes of sparse files, ACLs,
// capabilities and other extended attributes; what the filesystem cannot hold is an error. Formats: ustar, PAX, GNU.
//
// It can never write outside target: absolute names and ".." are refused, and every name is resolved by the kernel beneath
// target without following symbolic links (openat2; Linux 5.8 has all that is used). A later entry of the same name replaces the earlier one.
//
// Holes are left out and not written as zeros: a file of terabytes without content takes no longer than an empty one.
//
// The stream is read to its end, so that a reader that checks its data at the end has done so. Joined archives are unpacked
// one after another. On an error the target is half-written: the caller throws it away. Owners and devices need root.
func Unpack(ctx context.Context, target string, r io.Reader, o UnpackOptions) (UnpackStats, error) {
	root, err := unix.Open(target, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return UnpackStats{}, fmt.Errorf("open target %s: %w", target, err)
	}
	defer unix.Close(root)
	u := &unpacker{
		root: root, options: o, parent: -1,
		dirs: map[string]*tar.Header{},
		buf:  make([]byte, 256<<10),
	}
	defer u.forget()
	u.in = &streamCounter{r: r, ctx: ctx, step: u.progress}
	u.writers = newWriters(root, o.Sync)
	err = u.run(ctx)
	u.stats.Read = u.in.n
	if e := u.writers.end(); err == nil {
		err = e
	}
	if err == nil && u.stats.Entries == 0 {
		err = errors.New("unpack: the archive is empty")
	}
	if err == nil && o.Sync {
		err = u.sync()
	}
	if err == nil && o.Progress != nil {
		o.Progress(u.stats)
	}
	return u.stats, err
}

type unpacker struct {
	root    int
	options UnpackOptions
	stats   UnpackStats
	in      *streamCounter
	dirs    map[string]*tar.Header // whose metadata is set at the end
	buf     []byte
	writers *writers

	// The directory that was used last: entries come sorted by directory.
	parent     int
	parentName string
}

func (u *unpacker) progress(n int64) {
	if u.options.Progress != nil {
		s := u.stats
		s.Read = n
		u.options.Progress(s)
	}
}

// run unpacks all entries, then sets the directories' metadata.
func (u *unpacker) run(ctx context.Context) error {
	err := WalkTar(u.in, func(h *tar.Header, content io.Reader) error {
		u.stats.Entries++
		if err := u.entry(h, content); err != nil {
			return fmt.Errorf("unpack %q: %w", h.Name, err)
		}
		return u.writers.failure()
	})
	if err != nil {
		return err
	}
	if err := u.writers.wait(); err != nil {
		return err
	}
	return u.finish(ctx)
}

// EntryName returns the name of a tar entry, or of the target of a hard link, relative to where the archive is unpacked: parts
// joined by single slashes, or ".". Absolute names and names with ".." are refused; that error wraps ErrUnsafe.
func EntryName(name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return "", fmt.Errorf("absolute name: %w", ErrUnsafe)
	}
	var parts []string
	for p := range strings.SplitSeq(name, "/") {
		switch p {
		case "", ".":
		case "..":
			return "", fmt.Errorf("name with ..: %w", ErrUnsafe)
		default:
			if strings.IndexByte(p, 0) >= 0 {
				return "", fmt.Errorf("name with a zero byte: %w", ErrUnsafe)
			}
			parts = append(parts, p)
		}
	}
	if len(parts) == 0 {
		if name == "" {
			return "", errors.New("empty name")
		}
		return ".", nil
	}
	return strings.Join(parts, "/"), nil
}

// open opens a directory beneath the target without following any link.
func (u *unpacker) open(name string, flags int) (int, error) {
	how := &unix.OpenHow{
		Flags:   uint64(flags | unix.O_DIRECTORY | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(u.root, name, how)
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR, unix.EAGAIN:
		case unix.ELOOP, unix.EXDEV:
			return -1, fmt.Errorf("directory %q is reached through a symbolic link: %w", name, ErrUnsafe)
		default:
			return -1, &fs.PathError{Op: "open directory", Path: name, Err: err}
		}
	}
}

// at returns the open directory of name, made if need be, and the last part of name. The descriptor stays the unpacker's.
func (u *unpacker) at(name string) (dir int, base string, err error) {
	parent, base := ".", name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		parent, base = name[:i], name[i+1:]
	}
	if u.parent >= 0 && u.parentName == parent {
		return u.parent, base, nil
	}
	fd, err := u.open(parent, unix.O_PATH)
	if errors.Is(err, unix.ENOENT) {
		if err = u.makeAll(parent); err == nil {
			fd, err = u.open(parent, unix.O_PATH)
		}
	}
	if err != nil {
		return -1, "", err
	}
	u.forget()
	u.parent, u.parentName = fd, parent
	return fd, base, nil
}

// makeAll makes the directories of name that are not there, as nobody described them: mode 0755.
func (u *unpacker) makeAll(name string) error {
	dir, base, err := u.at(name)
	if err != nil {
		return err
	}
	if err := unix.Mkdirat(dir, base, 0o755); err != nil && err != unix.EEXIST {
		return &fs.PathError{Op: "make directory", Path: name, Err: err}
	}
	return chmodPath(dir, base, 0o755)
}

func chmodPath(dir int, base string, mode uint32) error {
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open directory", Path: base, Err: err}
	}
	defer unix.Close(fd)
	return os.NewSyscallError("fchmod", unix.Fchmod(fd, mode))
}

// forget closes the directory that was used last.
func (u *unpacker) forget() {
	if u.parent >= 0 {
		unix.Close(u.parent)
		u.parent = -1
	}
}

// remove takes away what stands in the way of name.
func (u *unpacker) remove(dir int, base, name string) error {
	err := unix.Unlinkat(dir, base, 0)
	if err == unix.EISDIR || err == unix.EPERM {
		if err = unix.Unlinkat(dir, base, unix.AT_REMOVEDIR); err == nil {
			delete(u.dirs, name)
		}
	}
	if err == unix.ENOENT {
		err = nil
	}
	return os.NewSyscallError("remove what stands there", err)
}

// place calls create, and once more after removing what stands there.
func (u *unpacker) place(dir int, base, name string, create func() error) error {
	err := create()
	if err != unix.EEXIST {
		return err
	}
	if err := u.remove(dir, base, name); err != nil {
		return err
	}
	return create()
}

// entry writes one entry.
func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	name, err := EntryName(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("the target itself is said to be something else than a directory: %w", ErrUnsafe)
		}
		u.dirs[name] = h
		return nil
	}
	dir, base, err := u.at(name)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		err := unix.Mkdirat(dir, base, 0o700)
		if err == unix.EEXIST {
			var st unix.Stat_t
			if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return os.NewSyscallError("fstatat", err)
			}
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				u.dirs[name] = h
				return nil
			}
			if err := u.remove(dir, base, name); err != nil {
				return err
			}
			err = unix.Mkdirat(dir, base, 0o700)
		}
		if err != nil {
			return os.NewSyscallError("mkdirat", err)
		}
		u.dirs[name] = h
		return nil
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return u.file(dir, base, name, h, content)
	case tar.TypeLink:
		return u.link(name, h.Linkname)
	case tar.TypeSymlink:
		err := u.place(dir, base, name, func() error { return unix.Symlinkat(h.Linkname, dir, base) })
		if err != nil {
			return os.NewSyscallError("symlinkat", err)
		}
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[h.Typeflag]
		if h.Devmajor < 0 || h.Devmajor > 0xfff || h.Devminor < 0 || h.Devminor > 0xfffff {
			return fmt.Errorf("device number %d:%d", h.Devmajor, h.Devminor)
		}
		dev := 0
		if h.Typeflag != tar.TypeFifo {
			dev = int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))
		}
		err := u.place(dir, base, name, func() error { return unix.Mknodat(dir, base, kind|0o600, dev) })
		if err != nil {
			return os.NewSyscallError("mknodat", err)
		}
	default:
		return fmt.Errorf("entry of unknown type %q", h.Typeflag)
	}
	return attributes(dir, base, -1, h)
}

// file writes a regular file.
func (u *unpacker) file(dir int, base, name string, h *tar.Header, content io.Reader) error {
	if u.options.MaxBytes > 0 && h.Size > u.options.MaxBytes-u.stats.Bytes {
		return fmt.Errorf("the archive holds more than %d bytes", u.options.MaxBytes)
	}
	fd := -1
	err := u.place(dir, base, name, func() (err error) {
		fd, err = unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	f := os.NewFile(uintptr(fd), name)
	written := h.Size
	if sparse, ok := content.(*sparseContent); ok {
		written = sparse.left
		err = complete(f, h, u.copySparse(f, sparse))
	} else if h.Size > writerBytes {
		err = complete(f, h, u.copy(f, content, h.Size))
	} else {
		buf := u.writers.buffer()[:h.Size]
		if _, err = io.ReadFull(content, buf); err != nil {
			return errors.Join(fmt.Errorf("read content: %w", cutShort(err)), f.Close())
		}
		u.writers.write(pending{f, buf, h})
	}
	if err != nil {
		return err
	}
	u.writers.wrote(written)
	u.stats.Files++
	u.stats.Bytes += h.Size
	return nil
}

// complete sets the attributes of a file that has its content, unless err says that it has not, and closes it.
func complete(f *os.File, h *tar.Header, err error) error {
	if err == nil {
		err = attributes(-1, "", int(f.Fd()), h)
	}
	return errors.Join(err, f.Close())
}

func cutShort(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// copySparse writes the parts of a sparse file and leaves the holes out, however large they are.
func (u *unpacker) copySparse(f *os.File, content *sparseContent) error {
	for _, p := range content.parts {
		if _, err := f.Seek(p.at, io.SeekStart); err != nil {
			return err
		}
		if err := u.copy(f, content.tarContent, p.size); err != nil {
			return err
		}
	}
	return f.Truncate(content.size)
}

// copy writes size bytes.
func (u *unpacker) copy(f *os.File, content io.Reader, size int64) error {
	for size > 0 {
		n, err := io.ReadFull(content, u.buf[:min(int64(len(u.buf)), size)])
		if err != nil {
			return fmt.Errorf("read content: %w", cutShort(err))
		}
		if _, err := f.Write(u.buf[:n]); err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

func allZeroBytes(b []byte) bool {
	for len(b) >= 8 {
		if b[0]|b[1]|b[2]|b[3]|b[4]|b[5]|b[6]|b[7] != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// link makes a hard link. A symbolic link as its target is linked itself, not followed.
func (u *unpacker) link(name, to string) error {
	old, err := EntryName(to)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", to, err)
	}
	if old == name {
		return errors.New("hard link to itself")
	}
	oldParent, oldBase := ".", old
	if i := strings.LastIndexByte(old, '/'); i >= 0 {
		oldParent, oldBase = old[:i], old[i+1:]
	}
	oldDir, err := u.open(oldParent, unix.O_PATH)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", to, err)
	}
	defer unix.Close(oldDir)
	dir, base, err := u.at(name)
	if err != nil {
		return err
	}
	var have, want unix.Stat_t
	if err := unix.Fstatat(oldDir, oldBase, &want, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("hard link to %q: %w", to, err)
	}
	if want.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Errorf("hard link to %q: it is a directory", to)
	}
	if unix.Fstatat(dir, base, &have, unix.AT_SYMLINK_NOFOLLOW) == nil && have.Dev == want.Dev && have.Ino == want.Ino {
		return nil
	}
	err = u.place(dir, base, name, func() error { return unix.Linkat(oldDir, oldBase, dir, base, 0) })
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", to, err)
	}
	return nil
}

// attributes sets owner, mode, extended attributes and times, in this order: a change of the owner clears set-user-ID bits and
// capabilities. fd is the open file; for what must not be opened it is -1, and base in dir is the name.
func attributes(dir int, base string, fd int, h *tar.Header) error {
	const top = 1<<32 - 2 // the number above means "leave it"
	if h.Uid < 0 || int64(h.Uid) > top || h.Gid < 0 || int64(h.Gid) > top {
		return fmt.Errorf("owner %d:%d", h.Uid, h.Gid)
	}
	var err error
	if fd >= 0 {
		err = unix.Fchown(fd, h.Uid, h.Gid)
	} else {
		err = unix.Fchownat(dir, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return os.NewSyscallError("set owner", err)
	}
	if h.Typeflag != tar.TypeSymlink {
		mode := uint32(h.Mode & 0o7777)
		if fd >= 0 {
			err = unix.Fchmod(fd, mode)
		} else {
			err = unix.Fchmodat(dir, base, mode, 0) // made by us just now, so no link is followed
		}
		if err != nil {
			return os.NewSyscallError("set mode", err)
		}
	}
	attrs, err := xattrsOf(h)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		if fd >= 0 {
			err = unix.Fsetxattr(fd, a.name, []byte(a.value), 0)
		} else {
			// There is no call with a directory's descriptor before Linux 6.13. The last part is not followed.
			err = unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", dir, base), a.name, []byte(a.value), 0)
		}
		if err != nil {
			return fmt.Errorf("set extended attribute %s: %w", a.name, err)
		}
	}
	return setTimes(dir, base, fd, h)
}

func setTimes(dir int, base string, fd int, h *tar.Header) error {
	access := h.AccessTime
	if access.IsZero() {
		access = h.ModTime
	}
	ts := make([]unix.Timespec, 2)
	for i, t := range []time.Time{access, h.ModTime} {
		var err error
		if ts[i], err = unix.TimeToTimespec(t); err != nil {
			return fmt.Errorf("time %v: %w", t, err)
		}
	}
	flags := unix.AT_SYMLINK_NOFOLLOW
	if fd >= 0 {
		dir, base, flags = fd, "", unix.AT_EMPTY_PATH // utimensat knows this flag since Linux 5.8
	}
	return os.NewSyscallError("set times", unix.UtimesNanoAt(dir, base, ts, flags))
}

// finish sets the metadata of all directories, the deepest first: a directory may forbid to enter it.
func (u *unpacker) finish(ctx context.Context) error {
	u.forget()
	names := make([]string, 0, len(u.dirs))
	for n := range u.dirs {
		if n != "." {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	slices.Reverse(names)
	if u.dirs["."] != nil {
		names = append(names, ".")
	}
	for _, n := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := u.finishDir(n, u.dirs[n]); err != nil {
			return fmt.Errorf("unpack %q: %w", n, err)
		}
	}
	return nil
}

func (u *unpacker) finishDir(name string, h *tar.Header) error {
	fd, err := u.open(name, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return attributes(-1, "", fd, h)
}

func (u *unpacker) sync() error {
	fd, err := u.open(".", unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return os.NewSyscallError("syncfs", unix.Syncfs(fd))
}

// streamCounter counts what is read, ends with ctx, and calls step each mebibyte.
type streamCounter struct {
	r    io.Reader
	ctx  context.Context
	n    int64
	said int64
	step func(int64)
}

func (c *streamCounter) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.n-c.said >= 1<<20 {
		c.said = c.n
		c.step(c.n)
	}
	return n, err
}
