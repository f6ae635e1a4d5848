package filesystem

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits of the filesystems that MakeExt4 makes (ext4(5); fs/ext4/ext4.h).
const (
	ext4Block    = 4096
	maxFile      = (1<<32 - 1) * ext4Block // bytes
	maxLinks     = 65000                   // names of one file
	maxJudged    = 4 << 20                 // entries: what a Judge keeps of them lies in memory
	fastSymlink  = 60                      // from this length on a symbolic link has a block
	extentsBlock = 340                     // extents in one block
	extentsInode = 4                       // extents that need no block
)

// Need is what a tree takes of an ext4 filesystem that MakeExt4 made. Holes take nothing.
type Need struct {
	Inodes int64 `json:"inodes"`
	// Blocks of 4096 bytes: content, directories, long links, extended attributes, and the lists of where content lies.
	Blocks int64 `json:"blocks"`
}

// Bytes is Blocks as bytes.
func (n Need) Bytes() int64 { return n.Blocks * ext4Block }

// Judge decides about the entries of a tar what Unpack would: that they can be unpacked into an empty filesystem of MakeExt4, and
// what they need there. It is the unpacker with the model of a filesystem in the place of one, and writes nothing. What it takes,
// Unpack takes, as long as there is room and no device fails. It is stricter in one thing: it takes no more than four million
// entries.
type Judge struct {
	u       unpacker
	m       *model
	entries int
}

// NewJudge returns a Judge of one archive.
func NewJudge() *Judge {
	j := &Judge{m: newModel()}
	j.u = unpacker{place: j.m, dirs: map[string]attributes{}}
	return j
}

// Entry judges the next entry: what WalkTar or a TarReader gives, before anything of the content is read. Nothing is read from it.
func (j *Judge) Entry(h *tar.Header, content io.Reader) error {
	if j.entries++; j.entries > maxJudged {
		return fmt.Errorf("more than %d entries", maxJudged)
	}
	if err := j.u.entry(h, content); err != nil {
		return err
	}
	for name, a := range j.u.dirs { // one at the most
		delete(j.u.dirs, name)
		if err := j.m.setDir(name, a); err != nil {
			return err
		}
	}
	return nil
}

// Stats counts the entries so far, as Unpack does.
func (j *Judge) Stats() UnpackStats {
	s := j.u.stats
	s.Dropped = j.u.dropped.list()
	return s
}

// Need is the most that was needed at any time: a later entry of a name takes the place of the earlier one.
func (j *Judge) Need() Need { return j.m.most }

// JudgeTar reads a tar to its end and reports whether Unpack would take it, and what it needs. As Unpack it takes no empty archive, nor
// more than maxBytes (0: any number) in the sizes of all files together.
func JudgeTar(r io.Reader, maxBytes int64) (UnpackStats, Need, error) {
	j := NewJudge()
	j.u.options.MaxBytes = maxBytes
	err := WalkTar(r, func(h *tar.Header, content io.Reader) error {
		if err := j.Entry(h, content); err != nil {
			return fmt.Errorf("unpack %q: %w", h.Name, err)
		}
		return nil
	})
	if err == nil && j.entries == 0 {
		err = errors.New("unpack: the archive is empty")
	}
	return j.Stats(), j.Need(), err
}

// model is an ext4 filesystem that has names and sizes, and no content.
type model struct {
	root      *inode
	now, most Need
	last      uint64 // number of an inode

	// The directory that was used last: entries come sorted by directory.
	dir     *inode
	dirName string
}

// inode is one file, directory or other node.
type inode struct {
	number   uint64
	mode     uint32 // S_IFMT
	links    int
	blocks   int64 // that it takes, those of its names left out
	children map[string]*inode
	names    int64 // bytes that the names of the children take
	apart    bool  // its extended attributes have a block
}

func newModel() *model {
	m := &model{root: &inode{mode: unix.S_IFDIR, links: 1, children: map[string]*inode{}}}
	m.root.blocks = directoryBlocks(0)
	m.count(1, m.root.blocks)
	return m
}

// count adds to what is needed now.
func (m *model) count(inodes, blocks int64) {
	m.now.Inodes += inodes
	m.now.Blocks += blocks
	m.most.Inodes = max(m.most.Inodes, m.now.Inodes)
	m.most.Blocks = max(m.most.Blocks, m.now.Blocks)
}

func (m *model) enter(dir string) error {
	if m.dir != nil && m.dirName == dir {
		return nil
	}
	at := m.root
	if dir != "." {
		for p := range strings.SplitSeq(dir, "/") {
			next := at.children[p]
			switch {
			case next == nil:
				return &fs.PathError{Op: "open directory", Path: dir, Err: unix.ENOENT}
			case next.mode == unix.S_IFLNK:
				return fmt.Errorf("directory %q is reached through a symbolic link: %w", dir, ErrUnsafe)
			case next.mode != unix.S_IFDIR:
				return &fs.PathError{Op: "open directory", Path: dir, Err: unix.ENOTDIR}
			}
			at = next
		}
	}
	m.dir, m.dirName = at, strings.Clone(dir)
	return nil
}

// at returns the directory of name, the last part of name, and what stands there, nil for nothing.
func (m *model) at(name string) (dir *inode, base string, there *inode, err error) {
	parent, base := ".", name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		parent, base = name[:i], name[i+1:]
	}
	if err := m.enter(parent); err != nil {
		return nil, "", nil, err
	}
	return m.dir, base, m.dir.children[base], nil
}

// put gives a node a name.
func (m *model) put(name string, n *inode) error {
	dir, base, there, err := m.at(name)
	if err != nil {
		return err
	}
	if there != nil {
		return unix.EEXIST
	}
	dir.children[strings.Clone(base)] = n
	m.resize(dir, nameBytes(base))
	if n.links++; n.links == 1 {
		m.last++
		n.number = m.last
		m.count(1, n.blocks)
	}
	return nil
}

// take takes a name away, and the node with its last one.
func (m *model) take(dir *inode, base string, n *inode) {
	delete(dir.children, base)
	m.resize(dir, -nameBytes(base))
	if n.links--; n.links == 0 {
		m.count(-1, -n.blocks)
	}
}

// resize changes the space that the names of a directory take.
func (m *model) resize(dir *inode, bytes int64) {
	dir.names += bytes
	change := directoryBlocks(dir.names) - directoryBlocks(dir.names-bytes)
	m.count(0, change)
	dir.blocks += change
}

// nameBytes is what an entry of a directory takes: eight bytes and the name, on a border of four bytes.
func nameBytes(base string) int64 { return 8 + int64(len(base)+3)&^3 }

// directoryBlocks is the number of blocks of a directory whose names take so many bytes. Its blocks are split when they are full, so
// they may be filled by half; the index has one block, and one for each 500 others.
func directoryBlocks(names int64) int64 {
	const room = ext4Block - 12 // without the checksum
	if names <= room-24 {       // the names "." and ".."
		return 1
	}
	n := (2*names + room - 1) / room
	return 1 + n + n/500
}

func (m *model) kind(name string) (uint32, nodeID, error) {
	_, _, n, err := m.at(name)
	if err != nil {
		return 0, nodeID{}, err
	}
	if n == nil {
		return 0, nodeID{}, unix.ENOENT
	}
	return n.mode, nodeID{0, n.number}, nil
}

func (m *model) mkdir(name string, _ uint32) error {
	return m.put(name, &inode{mode: unix.S_IFDIR, blocks: directoryBlocks(0), children: map[string]*inode{}})
}

func (m *model) rmdir(name string) error {
	dir, base, n, err := m.at(name)
	switch {
	case err != nil:
		return err
	case n == nil:
		return unix.ENOENT
	case n.mode != unix.S_IFDIR:
		return unix.ENOTDIR
	case len(n.children) > 0:
		return unix.ENOTEMPTY
	}
	m.take(dir, base, n)
	return nil
}

func (m *model) unlink(name string) error {
	dir, base, n, err := m.at(name)
	switch {
	case err != nil:
		return err
	case n == nil:
		return unix.ENOENT
	case n.mode == unix.S_IFDIR:
		return unix.EISDIR
	}
	m.take(dir, base, n)
	return nil
}

func (m *model) symlink(to, name string) error {
	n := &inode{mode: unix.S_IFLNK}
	if len(to) >= fastSymlink {
		n.blocks = 1
	}
	return m.put(name, n)
}

func (m *model) mknod(name string, mode uint32, _ int) error {
	return m.put(name, &inode{mode: mode & unix.S_IFMT})
}

func (m *model) link(old, name string) error {
	_, _, n, err := m.at(old)
	switch {
	case err != nil:
		return err
	case n == nil:
		return unix.ENOENT
	case n.links >= maxLinks:
		return unix.EMLINK
	}
	return m.put(name, n)
}

func (m *model) create(name string) error {
	return m.put(name, &inode{mode: unix.S_IFREG})
}

func (m *model) fill(name string, h *tar.Header, a attributes, content io.Reader) error {
	_, _, n, err := m.at(name)
	if err != nil {
		return err
	}
	blocks := (h.Size + ext4Block - 1) / ext4Block
	runs := int64(1)
	if s, ok := content.(*sparseContent); ok {
		blocks, runs = s.blocks()
	}
	// A large file may lie in pieces; eight mebibytes each is less than what the allocator gives on an empty filesystem.
	if runs += blocks * ext4Block / (8 << 20); runs > extentsInode {
		leaves := (runs + extentsBlock - 1) / extentsBlock
		blocks += leaves
		if leaves > extentsInode {
			blocks += (leaves + extentsBlock - 1) / extentsBlock
		}
	}
	n.blocks += blocks
	m.count(0, blocks)
	return m.set(name, a)
}

func (m *model) set(name string, a attributes) error {
	_, _, n, err := m.at(name)
	if err != nil {
		return err
	}
	m.attributes(n, a)
	return nil
}

func (m *model) setDir(name string, a attributes) error {
	if name == "." {
		m.attributes(m.root, a)
		return nil
	}
	return m.set(name, a)
}

// attributes counts the block that extended attributes take when they do not fit into the inode.
func (m *model) attributes(n *inode, a attributes) {
	apart := a.xattrBytes() > xattrInside
	if apart == n.apart {
		return
	}
	change := int64(1)
	if !apart {
		change = -1
	}
	n.apart, n.blocks = apart, n.blocks+change
	m.count(0, change)
}
