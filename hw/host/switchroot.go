package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Statfs magic numbers (statfs(2)) of what an initramfs can be.
const (
	ramfsMagic = 0x858458f6
	tmpfsMagic = 0x01021994
)

// moved are the mounts that the next root gets from the initramfs.
var moved = []string{"/dev", "/proc", "/sys", "/run"}

// SwitchRoot makes root the root directory and replaces this process by the program init found in it, with the arguments
// args and the environment env. root must be a mount point and must hold the directories dev, proc, sys and run (missing ones
// are made). init is a path inside root; symbolic links are resolved inside root.
//
// The mounts /dev, /proc, /sys and /run move along; every other mount of the caller must be gone. If the old root is an
// initramfs, its files are deleted, which frees their memory. Everything that can be checked is checked before the first
// change. On success it does not return. An error after the first change says so: the caller can then only reboot.
func SwitchRoot(root, init string, args, env []string) error {
	root = filepath.Clean(root)
	is, err := IsMountPoint(root)
	if err != nil {
		return err
	}
	if !is {
		return fmt.Errorf("switch root to %s: it is not a mount point", root)
	}
	if err := checkInit(root, init); err != nil {
		return fmt.Errorf("switch root to %s: %w", root, err)
	}
	old, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("switch root: open old root: %w", err)
	}
	defer unix.Close(old)
	if err := prepare(root); err != nil {
		return fmt.Errorf("switch root to %s: %w", root, err)
	}
	if err := change(root, old); err != nil {
		return fmt.Errorf("switch root to %s, half done: %w", root, err)
	}
	if err := unix.Exec(init, append([]string{init}, args...), env); err != nil {
		return fmt.Errorf("switch root to %s, all but done: start %s: %w", root, init, err)
	}
	return nil
}

// prepare makes the directories that receive moved mounts. A symbolic link in their place is an error: it could lead
// outside root.
func prepare(root string) error {
	r, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer r.Close()
	for _, dir := range moved {
		name := dir[1:]
		st, err := r.Lstat(name)
		if errors.Is(err, os.ErrNotExist) {
			if err := r.Mkdir(name, 0o755); err != nil {
				return fmt.Errorf("make the directory %s, which is missing: %w", dir, err)
			}
			continue
		}
		if err != nil {
			return err
		}
		if !st.IsDir() {
			return fmt.Errorf("%s is not a directory", dir)
		}
	}
	return nil
}

func change(root string, old int) error {
	for _, dir := range moved {
		is, err := IsMountPoint(dir)
		if err != nil {
			return err
		}
		if !is {
			continue
		}
		if err := MoveMount(dir, filepath.Join(root, dir)); err != nil {
			return err
		}
	}
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("enter %s: %w", root, err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move mount %s to /: %w", root, err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter new root: %w", err)
	}
	freeInitramfs(old)
	return nil
}

// checkInit says why the program init cannot be started in root.
func checkInit(root, init string) error {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(dir, init, &how)
	if err != nil {
		return fmt.Errorf("find %s: %w", init, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("find %s: %w", init, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 {
		return fmt.Errorf("%s is not a program: mode %#o", init, st.Mode)
	}
	return nil
}

// freeInitramfs deletes the files of the old root if, and only if, that is kept in memory. It stays on one filesystem and
// ignores errors: what is left costs memory, nothing more.
func freeInitramfs(root int) {
	var fs unix.Statfs_t
	if unix.Fstatfs(root, &fs) != nil || (uint32(fs.Type) != ramfsMagic && uint32(fs.Type) != tmpfsMagic) {
		return
	}
	var st unix.Stat_t
	if unix.Fstat(root, &st) != nil {
		return
	}
	// A second descriptor, since os.File closes the one that it gets.
	fd, err := unix.Openat(root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	emptyDir(fd, st.Dev)
}

// emptyDir deletes what is in the directory fd and on the device dev, and closes fd.
func emptyDir(fd int, dev uint64) {
	d := os.NewFile(uintptr(fd), "old root")
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return
	}
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Dev != dev {
			continue
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			_ = unix.Unlinkat(fd, name, 0)
			continue
		}
		if sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err == nil {
			emptyDir(sub, dev)
		}
		_ = unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
	}
}
