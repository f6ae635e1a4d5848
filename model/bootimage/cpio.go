package bootimage

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sort"
	"strconv"
	"strings"
	"time"
)

// File is a file of an initramfs. Owner and group are always 0.
type File struct {
	// Name is a path without a leading slash, as fs.ValidPath has it.
	Name string
	// Mode has the type (regular, directory, symbolic link, character or block device) and the permissions, with setuid,
	// setgid and sticky.
	Mode fs.FileMode
	// Data is the content of a regular file, or the target of a symbolic link.
	Data []byte
	// Major and Minor are the numbers of a device.
	Major, Minor uint32
}

// Tree collects the files of an initramfs. The zero value is empty. Directories above a file are made with mode 0755.
type Tree struct {
	files map[string]File
}

// Add puts f into the tree. The same directory twice is one; anything else twice, a file below what is no directory, or a
// type that an initramfs cannot have is an error.
func (t *Tree) Add(f File) error {
	if !fs.ValidPath(f.Name) || f.Name == "." || strings.ContainsRune(f.Name, 0) {
		return fmt.Errorf("add to initramfs: bad path %q", f.Name)
	}
	if _, err := cpioMode(f.Mode); err != nil {
		return fmt.Errorf("add %s to initramfs: %w", f.Name, err)
	}
	if old, ok := t.files[f.Name]; ok && !(old.Mode.IsDir() && f.Mode.IsDir()) {
		return fmt.Errorf("add %s to initramfs: %w", f.Name, fs.ErrExist)
	}
	for dir := path.Dir(f.Name); dir != "."; dir = path.Dir(dir) {
		old, ok := t.files[dir]
		if ok && !old.Mode.IsDir() {
			return fmt.Errorf("add %s to initramfs: %s is not a directory", f.Name, dir)
		}
		if !ok {
			t.put(File{Name: dir, Mode: fs.ModeDir | 0o755})
		}
	}
	t.put(f)
	return nil
}

func (t *Tree) put(f File) {
	if t.files == nil {
		t.files = map[string]File{}
	}
	t.files[f.Name] = f
}

// Get returns the file with a name.
func (t *Tree) Get(name string) (File, bool) {
	f, ok := t.files[name]
	return f, ok
}

// Resolve returns name with symbolic links in its directories followed inside the tree, so that a file can be added where
// the running system will find it. The last part is not followed, and what is not there yet stays as it is.
func (t *Tree) Resolve(name string) (string, error) {
	todo := strings.Split(path.Clean("/" + name)[1:], "/")
	done := ""
	for links := 0; len(todo) > 0; {
		next := path.Join(done, todo[0])
		todo = todo[1:]
		f, ok := t.files[next]
		if !ok || f.Mode.Type() != fs.ModeSymlink || len(todo) == 0 {
			done = next
			continue
		}
		if links++; links > 40 {
			return "", fmt.Errorf("resolve %s in initramfs: too many links", name)
		}
		target := string(f.Data)
		if !path.IsAbs(target) {
			target = path.Join("/", done, target)
		}
		todo = append(strings.Split(path.Clean(target)[1:], "/"), todo...)
		done = ""
	}
	return done, nil
}

// Files returns all files, directories before what is in them.
func (t *Tree) Files() []File {
	out := make([]File, 0, len(t.files))
	for _, f := range t.files {
		out = append(out, f)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// Write writes the tree as a cpio archive in the kernel's form "newc" (Linux Documentation/driver-api/early-userspace/
// buffer-format.rst). All files get the time mtime. The same tree and time give the same bytes.
func (t *Tree) Write(w io.Writer, mtime time.Time) error {
	c := cpioWriter{w: bufio.NewWriterSize(w, 1<<16), mtime: mtime.Unix()}
	if c.mtime < 0 || c.mtime > 1<<32-1 {
		return fmt.Errorf("write initramfs: time %v does not fit", mtime)
	}
	for _, f := range t.Files() {
		if err := c.file(f); err != nil {
			return fmt.Errorf("write %s to initramfs: %w", f.Name, err)
		}
	}
	if err := c.entry(cpioTrailer, 0, 1, nil, 0, 0); err != nil {
		return err
	}
	return c.w.Flush()
}

const (
	cpioMagic   = "070701"
	cpioTrailer = "TRAILER!!!"
	cpioHeader  = 110
	maxCPIOName = 4096
)

type cpioWriter struct {
	w     *bufio.Writer
	n     int64
	inode uint32
	mtime int64
}

func (c *cpioWriter) file(f File) error {
	mode, err := cpioMode(f.Mode)
	if err != nil {
		return err
	}
	links := 1
	if f.Mode.IsDir() {
		links = 2
	}
	return c.entry(f.Name, mode, links, f.Data, f.Major, f.Minor)
}

func (c *cpioWriter) entry(name string, mode uint32, links int, data []byte, major, minor uint32) error {
	if int64(len(data)) > 1<<32-1 {
		return errors.New("more than 4 GiB")
	}
	inode, mtime := uint32(0), int64(0)
	if name != cpioTrailer {
		c.inode++
		inode, mtime = c.inode, c.mtime
	}
	head := fmt.Sprintf("%s%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", cpioMagic,
		inode, mode, 0, 0, links, mtime, len(data), 0, 0, major, minor, len(name)+1, 0)
	for _, s := range []string{head, name, "\x00"} {
		if err := c.write([]byte(s)); err != nil {
			return err
		}
	}
	if err := c.pad(); err != nil {
		return err
	}
	if err := c.write(data); err != nil {
		return err
	}
	return c.pad()
}

func (c *cpioWriter) write(b []byte) error {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return err
}

func (c *cpioWriter) pad() error { return c.write(make([]byte, (4-c.n%4)%4)) }

// Unix file types and bits (inode(7)).
const (
	unixType    = 0o170000
	unixDir     = 0o040000
	unixRegular = 0o100000
	unixLink    = 0o120000
	unixChar    = 0o020000
	unixBlock   = 0o060000
)

func cpioMode(m fs.FileMode) (uint32, error) {
	u := uint32(m.Perm())
	switch m.Type() {
	case 0:
		u |= unixRegular
	case fs.ModeDir:
		u |= unixDir
	case fs.ModeSymlink:
		u |= unixLink
	case fs.ModeDevice | fs.ModeCharDevice:
		u |= unixChar
	case fs.ModeDevice:
		u |= unixBlock
	default:
		return 0, fmt.Errorf("an initramfs has no files of mode %v", m)
	}
	for _, b := range []struct {
		mode fs.FileMode
		bit  uint32
	}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}} {
		if m&b.mode != 0 {
			u |= b.bit
		}
	}
	return u, nil
}

func fileMode(u uint32) fs.FileMode {
	m := fs.FileMode(u & 0o777)
	switch u & unixType {
	case unixRegular:
	case unixDir:
		m |= fs.ModeDir
	case unixLink:
		m |= fs.ModeSymlink
	case unixChar:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case unixBlock:
		m |= fs.ModeDevice
	default:
		m |= fs.ModeIrregular
	}
	if u&0o4000 != 0 {
		m |= fs.ModeSetuid
	}
	if u&0o2000 != 0 {
		m |= fs.ModeSetgid
	}
	if u&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	return m
}

// WalkCPIO reads an archive of the form "newc" and calls visit for each entry with its content. Data of f is nil: content
// comes from r, which holds size bytes and is valid until visit returns. Several archives one after the other, with zero
// bytes between them, are one, as they are for the kernel. An archive without its trailer is an error.
func WalkCPIO(r io.Reader, visit func(f File, size int64, r io.Reader) error) error {
	c := cpioReader{r: bufio.NewReaderSize(r, 1<<16)}
	open := true // no trailer yet
	for {
		if !open {
			if err := c.skipZeros(); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
		f, size, err := c.header()
		if err != nil {
			return fmt.Errorf("read initramfs at byte %d: %w", c.n, err)
		}
		if f.Name == cpioTrailer {
			open = false
			continue
		}
		open = true
		content := &io.LimitedReader{R: &c, N: size}
		if err := visit(f, size, content); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, content); err != nil {
			return fmt.Errorf("read %s in initramfs: %w", f.Name, err)
		}
		if content.N > 0 {
			return fmt.Errorf("read %s in initramfs: %w", f.Name, io.ErrUnexpectedEOF)
		}
		if err := c.pad(); err != nil {
			return fmt.Errorf("read %s in initramfs: %w", f.Name, err)
		}
	}
}

type cpioReader struct {
	r *bufio.Reader
	n int64
}

func (c *cpioReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *cpioReader) full(p []byte) error {
	n, err := io.ReadFull(c.r, p)
	c.n += int64(n)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (c *cpioReader) pad() error {
	var b [4]byte
	return c.full(b[:(4-c.n%4)%4])
}

func (c *cpioReader) skipZeros() error {
	for {
		b, err := c.r.ReadByte()
		if err != nil {
			return err
		}
		if b != 0 {
			return c.r.UnreadByte()
		}
		c.n++
	}
}

func (c *cpioReader) header() (File, int64, error) {
	var h [cpioHeader]byte
	if err := c.full(h[:]); err != nil {
		return File{}, 0, err
	}
	if string(h[:6]) != cpioMagic {
		return File{}, 0, fmt.Errorf("magic %q, want %q", h[:6], cpioMagic)
	}
	var v [13]uint32
	for i := range v {
		n, err := strconv.ParseUint(string(h[6+8*i:14+8*i]), 16, 32)
		if err != nil {
			return File{}, 0, fmt.Errorf("header field %d: %w", i, err)
		}
		v[i] = uint32(n)
	}
	const mode, size, major, minor, nameSize = 1, 6, 9, 10, 11
	if v[nameSize] == 0 || v[nameSize] > maxCPIOName {
		return File{}, 0, fmt.Errorf("name of %d bytes", v[nameSize])
	}
	name := make([]byte, v[nameSize])
	if err := c.full(name); err != nil {
		return File{}, 0, err
	}
	if err := c.pad(); err != nil {
		return File{}, 0, err
	}
	f := File{Name: strings.TrimRight(string(name), "\x00"), Mode: fileMode(v[mode]), Major: v[major], Minor: v[minor]}
	return f, int64(v[size]), nil
}
