package sysroot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"gprovision/unit/state"
)

// How names are resolved. A system has links between its own directories. For example, /var/log may be an absolute
// link to a data partition. Here such links lead where they lead when the system runs: its root is the root, and they
// never lead out of it. The kernel resolves them relative to the root's descriptor (openat2(2), RESOLVE_IN_ROOT,
// Linux 5.6 and later), so that ".." at the top stays inside too.
//
// If a link dangles, the directory that it names is made. A link in a circle leads nowhere in the running system
// either, and is replaced. Some directories lose their content at each boot. A file that is a link into one of those
// is written in place of the link.

// maxLinks limits how many links one name may go through. It is the kernel's own limit.
const maxLinks = 40

// volatileDirs are mount points of the running system. The running system never sees what lies below them on the
// disk.
var volatileDirs = [...]string{"run", "dev", "proc", "sys", "tmp"}

// openAt opens a name inside the system.
func (s *System) openAt(name string, flags int) (int, error) {
	how := &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(int(s.top.Fd()), name, how)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil {
			return -1, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return fd, nil
	}
}

// exists reports whether a name exists. It follows links.
func (s *System) exists(name string) bool {
	fd, err := s.openAt(name, unix.O_PATH)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// openDir opens an existing directory. The caller closes it.
func (s *System) openDir(name string) (*os.Root, error) {
	fd, err := s.openAt(name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return rootOf(fd, name)
}

// makeDir opens a directory. It makes a missing one with the given mode, and missing parents with mode 0755. The caller
// closes it.
func (s *System) makeDir(name string, mode uint32) (*os.Root, error) {
	fd, err := s.makeDirAt(name, mode, maxLinks)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return rootOf(fd, name)
}

func rootOf(fd int, name string) (*os.Root, error) {
	r, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", name, err)
	}
	return r, nil
}

// makeDirAt is make for a descriptor. Names are not cleaned: ".." after a link is the parent of the link's target.
func (s *System) makeDirAt(name string, mode uint32, links int) (int, error) {
	fd, err := s.openAt(name, unix.O_PATH|unix.O_DIRECTORY)
	if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ELOOP) {
		return fd, err
	}
	if links == 0 {
		return -1, &fs.PathError{Op: "make directory", Path: name, Err: unix.ELOOP}
	}
	above, base := path.Split(strings.TrimRight(name, "/"))
	if base == "" || base == "." || base == ".." {
		if above == "" {
			return -1, err
		}
		if err := s.withDirMade(above, links-1, func(int) error { return nil }); err != nil {
			return -1, err
		}
		return s.openAt(name, unix.O_PATH|unix.O_DIRECTORY)
	}
	target := ""
	loop := errors.Is(err, unix.ELOOP)
	err = s.withDirMade(above, links-1, func(parent int) error {
		err := mkdir(parent, base, mode)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		if loop {
			if err := unix.Unlinkat(parent, base, 0); err != nil {
				return err
			}
			return mkdir(parent, base, mode)
		}
		b := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(parent, base, b)
		if err == nil {
			target = string(b[:n])
		}
		return err
	})
	switch {
	case err != nil:
		return -1, &fs.PathError{Op: "make directory", Path: name, Err: err}
	case target == "":
		return s.openAt(name, unix.O_PATH|unix.O_DIRECTORY)
	case !path.IsAbs(target):
		target = above + target
	}
	return s.makeDirAt(target, mode, links-1)
}

// withDirMade calls do with the descriptor of a directory, which is made if it is missing.
func (s *System) withDirMade(name string, links int, do func(fd int) error) error {
	if name == "" {
		return do(int(s.top.Fd()))
	}
	fd, err := s.makeDirAt(name, 0o755, links)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return do(fd)
}

// mkdir makes a directory with exactly that mode.
func mkdir(parent int, base string, mode uint32) error {
	if err := unix.Mkdirat(parent, base, mode); err != nil {
		return err
	}
	fd, err := unix.Openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fchmod(fd, mode)
}

// locate finds where the content of a file lies. It follows links and returns the directory and the name in it. With
// make, it makes a missing directory. The link itself is the place if it leads in a circle or to a directory, or,
// with make, into a volatile directory. The caller closes the directory.
func (s *System) locate(name string, make bool) (*os.Root, string, error) {
	open := func(dir string) (int, error) {
		if dir == "" {
			dir = "."
		}
		if make {
			return s.makeDirAt(dir, 0o755, maxLinks)
		}
		return s.openAt(dir, unix.O_PATH|unix.O_DIRECTORY)
	}
	result := func(name string) (*os.Root, string, error) {
		dir, base := path.Split(name)
		fd, err := open(dir)
		if err != nil {
			return nil, "", err
		}
		defer unix.Close(fd)
		r, err := rootOf(fd, dir)
		return r, base, err
	}
	at := name
	for range maxLinks {
		dir, base := path.Split(at)
		if base == "" || base == "." || base == ".." {
			return result(name) // a link to a directory
		}
		if make && at != name && isVolatileName(at) {
			return result(name)
		}
		fd, err := open(dir)
		if err != nil {
			return nil, "", err
		}
		b := [unix.PathMax]byte{}
		n, err := unix.Readlinkat(fd, base, b[:])
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
			unix.Close(fd)
			return nil, "", &fs.PathError{Op: "readlink", Path: at, Err: err}
		}
		if err != nil { // not a link
			defer unix.Close(fd)
			if make && at != name && (s.isVolatile(fd) || isDir(fd, base)) {
				return result(name)
			}
			r, err := rootOf(fd, dir)
			return r, base, err
		}
		unix.Close(fd)
		if target := string(b[:n]); path.IsAbs(target) {
			at = target
		} else {
			at = dir + target
		}
	}
	return result(name)
}

// isDir reports whether a name in a directory is itself a directory, and not a link to one.
func isDir(fd int, base string) bool {
	var st unix.Stat_t
	return unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// isVolatileName reports whether a name starts with a volatile directory.
func isVolatileName(name string) bool {
	if !path.IsAbs(name) {
		return false
	}
	first, _, _ := strings.Cut(strings.TrimLeft(name, "/"), "/")
	for _, d := range volatileDirs {
		if first == d {
			return true
		}
	}
	return false
}

// isVolatile reports whether a directory is a volatile one or below one.
func (s *System) isVolatile(fd int) bool {
	var top unix.Stat_t
	if err := unix.Fstat(int(s.top.Fd()), &top); err != nil {
		return false
	}
	var dirs []unix.Stat_t
	for _, d := range volatileDirs {
		var st unix.Stat_t
		if x, err := s.openAt(d, unix.O_PATH|unix.O_DIRECTORY); err == nil {
			if unix.Fstat(x, &st) == nil {
				dirs = append(dirs, st)
			}
			unix.Close(x)
		}
	}
	same := func(a, b unix.Stat_t) bool { return a.Dev == b.Dev && a.Ino == b.Ino }
	at, err := unix.Dup(fd)
	for range 256 {
		var st unix.Stat_t
		if err != nil || unix.Fstat(at, &st) != nil || same(st, top) {
			break
		}
		for _, d := range dirs {
			if same(st, d) {
				unix.Close(at)
				return true
			}
		}
		up, e := unix.Openat(at, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(at)
		at, err = up, e
	}
	if err == nil {
		unix.Close(at)
	}
	return false
}

// read returns the content of a file. It follows links.
func (s *System) read(name string) ([]byte, error) { return s.readFile(name, maxFile) }

func (s *System) readFile(name string, most int64) ([]byte, error) {
	dir, base, err := s.locate(name, false)
	if errors.Is(err, unix.ELOOP) {
		err = &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if st, err := dir.Lstat(base); err == nil && st.Mode()&fs.ModeSymlink != 0 { // links in a circle
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	return state.ReadFile(dir, base, most)
}

// replace calls do with the directory and the name under which the content of a file belongs.
func (s *System) replace(name string, do func(dir *os.Root, base string) error) error {
	dir, base, err := s.locate(name, true)
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(dir, base)
}
