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

	"golang.org/x/sys/unix"
)

// UnpackOptions says how Unpack works. The zero value is right for a caller that syncs.
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
	// Dropped are the extended attributes that were left out. It is set at the end.
	Dropped []Dropped
}

// ErrUnsafe says that a tar stream tried to leave its target, or to write through a symbolic link. Nothing was written outside.
var ErrUnsafe = errors.New("the archive tries to write outside its target")

// Unpack writes a tar stream into the directory target, normally the root of an empty mounted filesystem. It preserves
// owners (numbers), modes, times with nanoseconds, hard links, symbolic links, devices, FIFOs, holes of sparse files, ACLs,
// capabilities and other extended attributes. Attributes that ext4 has no place for are left out and counted; what it holds in another
// size or form only is an error. A Judge decides the same without writing. Formats: ustar, PAX, GNU, v7.
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
	d := newDisk(root, o.Sync)
	defer d.forget()
	u := &unpacker{place: d, options: o, dirs: map[string]attributes{}}
	d.dropped = &u.dropped
	u.in = &streamCounter{r: r, ctx: ctx, step: u.progress}
	err = u.run(ctx, d.writers)
	u.stats.Read = u.in.n
	if e := d.writers.end(); err == nil {
		err = e
	}
	if err == nil && u.stats.Entries == 0 {
		err = errors.New("unpack: the archive is empty")
	}
	if err == nil && o.Sync {
		err = d.sync()
	}
	u.stats.Dropped = u.dropped.list()
	if err == nil && o.Progress != nil {
		o.Progress(u.stats)
	}
	return u.stats, err
}

// place is where entries are put: a directory of this machine, or the model of one that a Judge has. Names are those of EntryName,
// and errors those of the system calls. Whatever depends on what stands there already is decided by the unpacker, from these errors.
type place interface {
	// enter checks that a directory is there and is reached through no symbolic link (ErrUnsafe).
	enter(dir string) error
	// kind returns the type of what a name is, S_IFMT, and what tells it from all others.
	kind(name string) (mode uint32, id nodeID, err error)
	mkdir(name string, mode uint32) error
	rmdir(name string) error
	unlink(name string) error
	symlink(to, name string) error
	mknod(name string, mode uint32, dev int) error
	link(old, name string) error
	// create makes an empty file, and fill, which follows it at once, gives it its content and attributes.
	create(name string) error
	fill(name string, h *tar.Header, a attributes, content io.Reader) error
	// set gives what is neither a file nor a directory its attributes, setDir a directory.
	set(name string, a attributes) error
	setDir(name string, a attributes) error
}

// nodeID is the device and the number of an inode.
type nodeID struct{ device, inode uint64 }

// unpacker puts the entries of a tar into a place.
type unpacker struct {
	place
	options UnpackOptions
	stats   UnpackStats
	in      *streamCounter
	dirs    map[string]attributes // set at the end
	dropped droppings
}

func (u *unpacker) progress(n int64) {
	if u.options.Progress != nil {
		s := u.stats
		s.Read = n
		u.options.Progress(s)
	}
}

// run unpacks all entries, then sets the directories' metadata.
func (u *unpacker) run(ctx context.Context, w *writers) error {
	err := WalkTar(u.in, func(h *tar.Header, content io.Reader) error {
		if err := u.entry(h, content); err != nil {
			return fmt.Errorf("unpack %q: %w", h.Name, err)
		}
		return w.failure()
	})
	if err != nil {
		return err
	}
	if err := w.wait(); err != nil {
		return err
	}
	return u.finish(ctx)
}

// EntryName returns the name of a tar entry, or of the target of a hard link, relative to where the archive is unpacked: parts
// joined by single slashes, or ".". Absolute names and names with ".." are refused; that error wraps ErrUnsafe. So are names that no
// path of Linux can have.
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
			if len(p) > unix.NAME_MAX {
				return "", fmt.Errorf("a part of %d bytes, at most %d: %w", len(p), unix.NAME_MAX, unix.ENAMETOOLONG)
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
	if name = strings.Join(parts, "/"); len(name) >= unix.PathMax {
		return "", fmt.Errorf("%d bytes, at most %d: %w", len(name), unix.PathMax-1, unix.ENAMETOOLONG)
	}
	return name, nil
}

// makeParent makes the directories above a name that are not there, as nobody described them: mode 0755.
func (u *unpacker) makeParent(name string) error {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return nil
	}
	dir := name[:i]
	err := u.enter(dir)
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err := u.makeParent(dir); err != nil {
		return err
	}
	if err := u.mkdir(dir, 0o755); err != nil && err != unix.EEXIST {
		return &fs.PathError{Op: "make directory", Path: dir, Err: err}
	}
	return u.enter(dir)
}

// remove takes away what stands in the way of name.
func (u *unpacker) remove(name string) error {
	err := u.unlink(name)
	if err == unix.EISDIR || err == unix.EPERM {
		if err = u.rmdir(name); err == nil {
			delete(u.dirs, name)
		}
	}
	switch err {
	case nil, unix.ENOENT:
		return nil
	case unix.ENOTEMPTY:
		return fmt.Errorf("a directory that is not empty stands there: %w", err)
	}
	return os.NewSyscallError("remove what stands there", err)
}

// instead calls create, and once more after removing what stands there.
func (u *unpacker) instead(name string, create func() error) error {
	err := create()
	if err != unix.EEXIST {
		return err
	}
	if err := u.remove(name); err != nil {
		return err
	}
	return create()
}

// entry puts one entry into the place.
func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	u.stats.Entries++
	name, err := EntryName(h.Name)
	if err != nil {
		return err
	}
	if name == "." && h.Typeflag != tar.TypeDir {
		return fmt.Errorf("the target itself is said to be something else than a directory: %w", ErrUnsafe)
	}
	if h.Typeflag == tar.TypeLink {
		return u.hardLink(name, h.Linkname)
	}
	a, err := attributesOf(h, name, &u.dropped)
	if err != nil {
		return err
	}
	if name == "." {
		u.dirs[name] = a
		return nil
	}
	if err := u.makeParent(name); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.directory(name, a)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return u.file(name, h, a, content)
	case tar.TypeSymlink:
		if n := len(h.Linkname); n == 0 || n >= unix.PathMax || strings.IndexByte(h.Linkname, 0) >= 0 {
			return fmt.Errorf("symbolic link to a name of %d bytes", n)
		}
		if err := u.instead(name, func() error { return u.symlink(h.Linkname, name) }); err != nil {
			return fmt.Errorf("make symbolic link: %w", err)
		}
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if h.Devmajor < 0 || h.Devmajor > 0xfff || h.Devminor < 0 || h.Devminor > 0xfffff {
			return fmt.Errorf("device number %d:%d", h.Devmajor, h.Devminor)
		}
		mode, dev := uint32(unix.S_IFIFO), 0
		if h.Typeflag != tar.TypeFifo {
			mode, dev = unix.S_IFBLK, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))
		}
		if h.Typeflag == tar.TypeChar {
			mode = unix.S_IFCHR
		}
		if err := u.instead(name, func() error { return u.mknod(name, mode|0o600, dev) }); err != nil {
			return fmt.Errorf("make device: %w", err)
		}
	}
	return u.set(name, a)
}

// directory makes a directory, or takes the one that is there; its attributes are set at the end.
func (u *unpacker) directory(name string, a attributes) error {
	err := u.mkdir(name, 0o700)
	if err == unix.EEXIST {
		mode, _, e := u.kind(name)
		if e != nil {
			return os.NewSyscallError("fstatat", e)
		}
		if mode == unix.S_IFDIR {
			u.dirs[name] = a
			return nil
		}
		if e := u.remove(name); e != nil {
			return e
		}
		err = u.mkdir(name, 0o700)
	}
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	u.dirs[name] = a
	return nil
}

// file writes a regular file.
func (u *unpacker) file(name string, h *tar.Header, a attributes, content io.Reader) error {
	if u.options.MaxBytes > 0 && h.Size > u.options.MaxBytes-u.stats.Bytes {
		return fmt.Errorf("the archive holds more than %d bytes", u.options.MaxBytes)
	}
	if h.Size > maxFile {
		return fmt.Errorf("a file of %d bytes, at most %d: %w", h.Size, int64(maxFile), unix.EFBIG)
	}
	if err := u.instead(name, func() error { return u.create(name) }); err != nil {
		return fmt.Errorf("make file: %w", err)
	}
	if err := u.fill(name, h, a, content); err != nil {
		return err
	}
	u.stats.Files++
	u.stats.Bytes += h.Size
	return nil
}

// hardLink makes a hard link. A symbolic link as its target is linked itself, not followed.
func (u *unpacker) hardLink(name, to string) error {
	old, err := EntryName(to)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", to, err)
	}
	if old == name {
		return errors.New("hard link to itself")
	}
	parent := "."
	if i := strings.LastIndexByte(old, '/'); i >= 0 {
		parent = old[:i]
	}
	if err := u.enter(parent); err != nil {
		return fmt.Errorf("hard link to %q: %w", to, err)
	}
	if err := u.makeParent(name); err != nil {
		return err
	}
	mode, id, err := u.kind(old)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", to, err)
	}
	if mode == unix.S_IFDIR {
		return fmt.Errorf("hard link to %q: it is a directory", to)
	}
	if _, have, err := u.kind(name); err == nil && have == id {
		return nil
	}
	if err := u.instead(name, func() error { return u.link(old, name) }); err != nil {
		return fmt.Errorf("hard link to %q: %w", to, err)
	}
	return nil
}

// finish sets the metadata of all directories, the deepest first: a directory may forbid to enter it.
func (u *unpacker) finish(ctx context.Context) error {
	names := make([]string, 0, len(u.dirs))
	for n := range u.dirs {
		if n != "." {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	slices.Reverse(names)
	if _, ok := u.dirs["."]; ok {
		names = append(names, ".")
	}
	for _, n := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := u.setDir(n, u.dirs[n]); err != nil {
			return fmt.Errorf("unpack %q: %w", n, err)
		}
	}
	return nil
}

func cutShort(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
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
