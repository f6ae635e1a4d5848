package filesystem

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// disk is a directory of this machine as the place of entries.
type disk struct {
	root    int // descriptor of the target
	buf     []byte
	writers *writers
	dropped *droppings

	// The directory that was used last: entries come sorted by directory.
	parent     int
	parentName string

	made *os.File // by create, until fill
}

func newDisk(root int, flush bool) *disk {
	d := &disk{root: root, parent: -1, buf: make([]byte, 256<<10)}
	d.writers = newWriters(root, flush, d.attributes)
	return d
}

// open opens a directory beneath the target without following any link.
func (d *disk) open(name string, flags int) (int, error) {
	how := &unix.OpenHow{
		Flags:   uint64(flags | unix.O_DIRECTORY | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(d.root, name, how)
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

func (d *disk) enter(dir string) error {
	if d.parent >= 0 && d.parentName == dir {
		return nil
	}
	fd, err := d.open(dir, unix.O_PATH)
	if err != nil {
		return err
	}
	d.forget()
	d.parent, d.parentName = fd, dir
	return nil
}

// at returns the open directory of name, and the last part of name. The descriptor stays the disk's.
func (d *disk) at(name string) (dir int, base string, err error) {
	parent, base := ".", name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		parent, base = name[:i], name[i+1:]
	}
	err = d.enter(parent)
	return d.parent, base, err
}

// forget closes the directory that was used last.
func (d *disk) forget() {
	if d.parent >= 0 {
		unix.Close(d.parent)
		d.parent = -1
	}
}

func (d *disk) kind(name string) (uint32, nodeID, error) {
	dir, base, err := d.at(name)
	if err != nil {
		return 0, nodeID{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0, nodeID{}, err
	}
	return st.Mode & unix.S_IFMT, nodeID{uint64(st.Dev), st.Ino}, nil
}

func (d *disk) mkdir(name string, mode uint32) error {
	dir, base, err := d.at(name)
	if err != nil {
		return err
	}
	if err := unix.Mkdirat(dir, base, mode); err != nil || mode&0o77 == 0 {
		return err
	}
	return chmodPath(dir, base, mode) // the umask may have taken bits away
}

func chmodPath(dir int, base string, mode uint32) error {
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open directory", Path: base, Err: err}
	}
	defer unix.Close(fd)
	return os.NewSyscallError("fchmod", unix.Fchmod(fd, mode))
}

func (d *disk) rmdir(name string) error { return d.unlinkat(name, unix.AT_REMOVEDIR) }

func (d *disk) unlink(name string) error { return d.unlinkat(name, 0) }

func (d *disk) unlinkat(name string, flags int) error {
	dir, base, err := d.at(name)
	if err != nil {
		return err
	}
	return unix.Unlinkat(dir, base, flags)
}

func (d *disk) symlink(to, name string) error {
	dir, base, err := d.at(name)
	if err != nil {
		return err
	}
	return unix.Symlinkat(to, dir, base)
}

func (d *disk) mknod(name string, mode uint32, dev int) error {
	dir, base, err := d.at(name)
	if err != nil {
		return err
	}
	return unix.Mknodat(dir, base, mode, dev)
}

func (d *disk) link(old, name string) error {
	parent, oldBase := ".", old
	if i := strings.LastIndexByte(old, '/'); i >= 0 {
		parent, oldBase = old[:i], old[i+1:]
	}
	oldDir, err := d.open(parent, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(oldDir)
	dir, base, err := d.at(name)
	if err != nil {
		return err
	}
	return unix.Linkat(oldDir, oldBase, dir, base, 0)
}

func (d *disk) create(name string) error {
	dir, base, err := d.at(name)
	if err != nil {
		return err
	}
	fd, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	d.made = os.NewFile(uintptr(fd), name)
	return nil
}

func (d *disk) fill(name string, h *tar.Header, a attributes, content io.Reader) error {
	f, written := d.made, h.Size
	var err error
	if sparse, ok := content.(*sparseContent); ok {
		written = sparse.left
		err = d.complete(f, name, a, d.copySparse(f, sparse))
	} else if h.Size > writerBytes {
		err = d.complete(f, name, a, d.copy(f, content, h.Size))
	} else {
		buf := d.writers.buffer()[:h.Size]
		if _, err = io.ReadFull(content, buf); err != nil {
			return errors.Join(fmt.Errorf("read content: %w", cutShort(err)), f.Close())
		}
		d.writers.write(pending{f, buf, name, a})
	}
	if err == nil {
		d.writers.wrote(written)
	}
	return err
}

// complete sets the attributes of a file that has its content, unless err says that it has not, and closes it.
func (d *disk) complete(f *os.File, name string, a attributes, err error) error {
	if err == nil {
		err = d.attributes(f, name, a)
	}
	return errors.Join(err, f.Close())
}

// copySparse writes the parts of a sparse file and leaves the holes out, however large they are.
func (d *disk) copySparse(f *os.File, content *sparseContent) error {
	for _, p := range content.parts {
		if _, err := f.Seek(p.At, io.SeekStart); err != nil {
			return err
		}
		if err := d.copy(f, content.tarContent, p.Size); err != nil {
			return err
		}
	}
	return f.Truncate(content.size)
}

// copy writes size bytes.
func (d *disk) copy(f *os.File, content io.Reader, size int64) error {
	for size > 0 {
		n, err := io.ReadFull(content, d.buf[:min(int64(len(d.buf)), size)])
		if err != nil {
			return fmt.Errorf("read content: %w", cutShort(err))
		}
		if _, err := f.Write(d.buf[:n]); err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// attributes sets those of an open file. It is called from several goroutines.
func (d *disk) attributes(f *os.File, name string, a attributes) error {
	return d.apply(-1, "", int(f.Fd()), name, a)
}

func (d *disk) set(name string, a attributes) error {
	dir, base, err := d.at(name)
	if err != nil {
		return err
	}
	return d.apply(dir, base, -1, name, a)
}

func (d *disk) setDir(name string, a attributes) error {
	d.forget()
	fd, err := d.open(name, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return d.apply(-1, "", fd, name, a)
}

// apply sets owner, mode, extended attributes and times, in this order: a change of the owner clears set-user-ID bits and
// capabilities. fd is the open file; for what must not be opened it is -1, and base in dir is the name.
func (d *disk) apply(dir int, base string, fd int, name string, a attributes) error {
	var err error
	if fd >= 0 {
		err = unix.Fchown(fd, a.uid, a.gid)
	} else {
		err = unix.Fchownat(dir, base, a.uid, a.gid, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return os.NewSyscallError("set owner", err)
	}
	if !a.symlink {
		if fd >= 0 {
			err = unix.Fchmod(fd, a.mode)
		} else {
			err = unix.Fchmodat(dir, base, a.mode, 0) // made by us just now, so no link is followed
		}
		if err != nil {
			return os.NewSyscallError("set mode", err)
		}
	}
	for _, x := range a.xattrs {
		if fd >= 0 {
			err = unix.Fsetxattr(fd, x.name, []byte(x.value), 0)
		} else {
			// There is no call with a directory's descriptor before Linux 6.13. The last part is not followed.
			err = unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", dir, base), x.name, []byte(x.value), 0)
		}
		if err != nil && kernelDecides(x.name) && (err == unix.EPERM || err == unix.EINVAL || err == unix.EOPNOTSUPP) {
			d.dropped.add(x.name, name)
			continue
		}
		if err != nil {
			return fmt.Errorf("set extended attribute %s: %w", x.name, err)
		}
	}
	flags := unix.AT_SYMLINK_NOFOLLOW
	if fd >= 0 {
		dir, base, flags = fd, "", unix.AT_EMPTY_PATH // utimensat knows this flag since Linux 5.8
	}
	return os.NewSyscallError("set times", unix.UtimesNanoAt(dir, base, a.times[:], flags))
}

func (d *disk) sync() error {
	fd, err := d.open(".", unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return os.NewSyscallError("syncfs", unix.Syncfs(fd))
}
