package host

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// MountOptions say how something is mounted. The zero value: writable, nothing forbidden.
type MountOptions struct {
	ReadOnly bool
	// NoSUID, NoDev, NoExec and NoATime are the mount options of the same names (mount(2)).
	NoSUID, NoDev, NoExec, NoATime bool
	// Data are options of the filesystem itself, such as "mode=0755" or "errors=remount-ro".
	Data string
}

func (o MountOptions) flags() uintptr {
	var f uintptr
	for _, b := range []struct {
		on  bool
		bit uintptr
	}{{o.ReadOnly, unix.MS_RDONLY}, {o.NoSUID, unix.MS_NOSUID}, {o.NoDev, unix.MS_NODEV}, {o.NoExec, unix.MS_NOEXEC}, {o.NoATime, unix.MS_NOATIME}} {
		if b.on {
			f |= b.bit
		}
	}
	return f
}

// Mount mounts source, a device or a word, on the existing directory target. The module of the filesystem must be loaded
// (Modules.Filesystem): the kernel has nobody to ask for it in an initramfs.
func Mount(source, target, fstype string, o MountOptions) error {
	if err := unix.Mount(source, target, fstype, o.flags(), o.Data); err != nil {
		return fmt.Errorf("mount %s of %s on %s: %w", fstype, source, target, err)
	}
	return nil
}

// Remount changes the options of what is mounted on target.
func Remount(target string, o MountOptions) error {
	if err := unix.Mount("", target, "", o.flags()|unix.MS_REMOUNT, o.Data); err != nil {
		return fmt.Errorf("mount %s anew: %w", target, err)
	}
	return nil
}

// MoveMount moves the mount at source to the existing directory target.
func MoveMount(source, target string) error {
	if err := unix.Mount(source, target, "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move mount %s to %s: %w", source, target, err)
	}
	return nil
}

// Unmount unmounts what is mounted on target and writes back what is not yet on its device. It does not follow a symbolic
// link at target.
func Unmount(target string) error {
	if err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}

// UnmountLazy takes target out of the tree at once; the filesystem itself ends when its last user is gone. Use it only
// where Unmount has failed with EBUSY and nothing else will be written.
func UnmountLazy(target string) error {
	if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s lazily: %w", target, err)
	}
	return nil
}

// IsMountPoint reports whether the directory path is the root of a mount. It compares device numbers and mount identifiers, so
// a bind mount within one filesystem is seen too. A path that does not exist is no mount point.
func IsMountPoint(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_TYPE, &st)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("is %s a mount point: %w", path, err)
	}
	if st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 { // Linux 5.8
		return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
	}
	return false, fmt.Errorf("is %s a mount point: the kernel does not say", path)
}

// MountInfo is one line of /proc/self/mountinfo (proc(5)).
type MountInfo struct {
	// ID is unique among the mounts that exist.
	ID int
	// Major and Minor are the device number of files on the mount.
	Major, Minor uint32
	// Root is the directory of the filesystem that is mounted, "/" unless it is a bind mount.
	Root string
	// Target is the mount point.
	Target string
	// Type is the filesystem type.
	Type string
	// Source is the device, or a word of the filesystem's own.
	Source string
	// ReadOnly is set where the mount or its filesystem is read-only.
	ReadOnly bool
}

// Mounts returns what is mounted, in the order of mounting.
func Mounts() ([]MountInfo, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ParseMountInfo(f)
}

// ParseMountInfo reads the text of /proc/PID/mountinfo.
func ParseMountInfo(r io.Reader) ([]MountInfo, error) {
	var out []MountInfo
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		m, err := parseMountLine(s.Text())
		if err != nil {
			return nil, fmt.Errorf("parse mountinfo line %q: %w", s.Text(), err)
		}
		out = append(out, m)
	}
	return out, s.Err()
}

func parseMountLine(line string) (MountInfo, error) {
	left, right, ok := strings.Cut(line, " - ")
	l, r := strings.Fields(left), strings.Fields(right)
	if !ok || len(l) < 6 || len(r) < 2 {
		return MountInfo{}, errors.New("too few fields")
	}
	id, err := strconv.Atoi(l[0])
	if err != nil {
		return MountInfo{}, err
	}
	major, minor, _ := strings.Cut(l[2], ":")
	ma, err := strconv.ParseUint(major, 10, 32)
	if err != nil {
		return MountInfo{}, err
	}
	mi, err := strconv.ParseUint(minor, 10, 32)
	if err != nil {
		return MountInfo{}, err
	}
	m := MountInfo{ID: id, Major: uint32(ma), Minor: uint32(mi), Root: unescape(l[3]), Target: unescape(l[4]), Type: r[0], Source: unescape(r[1])}
	options := l[5]
	if len(r) > 2 {
		options += "," + r[2]
	}
	for _, o := range strings.Split(options, ",") {
		m.ReadOnly = m.ReadOnly || o == "ro"
	}
	return m, nil
}

// unescape undoes the octal escapes that the kernel uses for space, tab, newline and backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// early are the mounts of every boot, in order.
var early = []struct {
	source, target, fstype string
	options                MountOptions
}{
	{"proc", "/proc", "proc", MountOptions{NoSUID: true, NoDev: true, NoExec: true}},
	{"sysfs", "/sys", "sysfs", MountOptions{NoSUID: true, NoDev: true, NoExec: true}},
	{"devtmpfs", "/dev", "devtmpfs", MountOptions{NoSUID: true, Data: "mode=0755"}},
	{"devpts", "/dev/pts", "devpts", MountOptions{NoSUID: true, NoExec: true, Data: "gid=5,mode=620,ptmxmode=000"}},
	{"tmpfs", "/run", "tmpfs", MountOptions{NoSUID: true, NoDev: true, Data: "mode=0755"}},
}

// EarlyMounts mounts /proc, /sys, /dev, /dev/pts and /run, and makes the links in /dev that programs expect. What is mounted
// already stays as it is, so it may be repeated. It goes on after an error and returns all of them: without /run a caller can
// still say why.
func EarlyMounts() error {
	var errs []error
	for _, m := range early {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			errs = append(errs, err)
			continue
		}
		if is, err := IsMountPoint(m.target); err == nil && is {
			continue
		}
		if err := Mount(m.source, m.target, m.fstype, m.options); err != nil {
			errs = append(errs, err)
		}
	}
	for _, l := range [][2]string{{"/proc/self/fd", "/dev/fd"}, {"fd/0", "/dev/stdin"}, {"fd/1", "/dev/stdout"}, {"fd/2", "/dev/stderr"}} {
		if err := os.Symlink(l[0], l[1]); err != nil && !errors.Is(err, fs.ErrExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// EFIVars is where the variables of UEFI firmware are mounted.
const EFIVars = "/sys/firmware/efi/efivars"

// MountEFIVars mounts the variables of UEFI firmware on EFIVars, writable, and loads the module for them. On a machine that
// was not started by UEFI it does nothing and returns false.
func MountEFIVars(m *Modules) (bool, error) {
	if _, err := os.Stat("/sys/firmware/efi"); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if is, err := IsMountPoint(EFIVars); err != nil || is {
		return is, err
	}
	if err := m.Filesystem("efivarfs"); err != nil {
		return false, err
	}
	if err := Mount("efivarfs", EFIVars, "efivarfs", MountOptions{NoSUID: true, NoDev: true, NoExec: true}); err != nil {
		return false, err
	}
	return true, nil
}

// SetConsoleLevel sets how severe a kernel message must be to be printed on the console: below level, where 0 is an
// emergency and 7 is debugging (/proc/sys/kernel/printk, syslog(2)). The messages stay in the kernel's buffer.
func SetConsoleLevel(level int) error {
	if err := os.WriteFile("/proc/sys/kernel/printk", []byte(strconv.Itoa(level)), 0); err != nil {
		return fmt.Errorf("set level of kernel messages: %w", err)
	}
	return nil
}

// UnmountBelow unmounts everything that is mounted below dir, and dir itself, the newest mount first. What is busy is
// unmounted lazily after its filesystem was made read-only where that is possible; the error names it.
func UnmountBelow(dir string) error {
	all, err := Mounts()
	if err != nil {
		return err
	}
	dir = filepath.Clean(dir)
	var errs []error
	for i := len(all) - 1; i >= 0; i-- {
		t := all[i].Target
		if t != dir && !strings.HasPrefix(t, strings.TrimSuffix(dir, "/")+"/") {
			continue
		}
		if err := Unmount(t); err != nil {
			errs = append(errs, err)
			_ = Remount(t, MountOptions{ReadOnly: true})
			_ = UnmountLazy(t)
		}
	}
	return errors.Join(errs...)
}
