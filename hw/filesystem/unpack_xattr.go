package filesystem

import (
	"archive/tar"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// xattr is one extended attribute.
type xattr struct{ name, value string }

const (
	paxXattr   = "SCHILY.xattr."
	paxACL     = "SCHILY.acl."
	paxSELinux = "RHT.security.selinux"
	aclPrefix  = "system.posix_acl_"
)

// attributes are what an entry has beside name and content.
type attributes struct {
	uid, gid int
	mode     uint32 // permissions
	symlink  bool   // has no mode of its own
	xattrs   []xattr
	times    [2]unix.Timespec // of access and of change of the content
}

// The extended attributes of one inode that MakeExt4 makes: some fit into it, the others into one block (ext4(5), "Extended
// attributes"; fs/ext4/xattr.h). What fits into the block alone always fits.
const (
	xattrBlock  = ext4Block - 32 - 4 // without its header and the zeros behind the last entry
	xattrInside = 256 - 128 - 32 - 4 - 4
)

// attributesOf returns the attributes of an entry as the filesystem gets them. It is the rule of what is kept, what is left out,
// which goes to dropped, and what is refused:
//
//   - An extended attribute of a name that ext4 has not (com.apple.provenance, system.nfs4_acl), one of the user's on what is neither
//     file nor directory, and an ACL where there can be none are left out: the running system could not show them.
//   - What ext4 has, but not in this size or form, is refused: a service may need it.
//   - Times outside of what ext4 can hold (1901 to 2446) become the nearest that it can hold, as the kernel does it.
func attributesOf(h *tar.Header, name string, dropped *droppings) (attributes, error) {
	const top = 1<<32 - 2 // the number above means "leave it"
	if h.Uid < 0 || int64(h.Uid) > top || h.Gid < 0 || int64(h.Gid) > top {
		return attributes{}, fmt.Errorf("owner %d:%d", h.Uid, h.Gid)
	}
	a := attributes{uid: h.Uid, gid: h.Gid, mode: uint32(h.Mode & 0o7777), symlink: h.Typeflag == tar.TypeSymlink}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse, tar.TypeDir, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	default:
		return attributes{}, fmt.Errorf("entry of unknown type %q", h.Typeflag)
	}
	access := h.AccessTime
	if access.IsZero() {
		access = h.ModTime
	}
	for i, t := range []time.Time{access, h.ModTime} {
		var err error
		if a.times[i], err = unix.TimeToTimespec(t); err != nil {
			return attributes{}, fmt.Errorf("time %v: %w", t, err)
		}
	}
	if len(h.PAXRecords) == 0 {
		return a, nil
	}
	all, err := xattrsOf(h)
	if err != nil {
		return attributes{}, err
	}
	for _, x := range all {
		if !holds(h.Typeflag, x.name) {
			dropped.add(x.name, name)
			continue
		}
		if err := x.check(); err != nil {
			return attributes{}, fmt.Errorf("extended attribute %s: %w", x.name, err)
		}
		a.xattrs = append(a.xattrs, x)
	}
	if n := a.xattrBytes(); n > xattrBlock {
		most := slices.MaxFunc(a.xattrs, func(a, b xattr) int { return cmp.Compare(len(a.value), len(b.value)) })
		return attributes{}, fmt.Errorf("its extended attributes take %d bytes, and ext4 has room for %d: shorten or remove %s, which has %d", n, xattrBlock, most.name, len(most.value))
	}
	return a, nil
}

// xattrBytes is what the extended attributes take in a block: each an entry of 16 bytes, the name without its namespace, the value,
// both on borders of four bytes.
func (a attributes) xattrBytes() int {
	n := 0
	for _, x := range a.xattrs {
		_, base, _ := strings.Cut(x.name, ".")
		n += 16 + (len(base)+3)&^3 + (len(x.value)+3)&^3
	}
	return n
}

// holds reports whether ext4 holds an extended attribute of this name at an entry of this type (xattr(7), "Namespaces").
func holds(kind byte, name string) bool {
	file := kind == tar.TypeReg || kind == tar.TypeCont || kind == tar.TypeGNUSparse
	space, base, _ := strings.Cut(name, ".")
	switch {
	case base == "":
		return false
	case name == aclPrefix+"access":
		return kind != tar.TypeSymlink
	case name == aclPrefix+"default":
		return kind == tar.TypeDir
	case space == "user":
		return file || kind == tar.TypeDir
	}
	return space == "trusted" || space == "security"
}

// kernelDecides reports whether it depends on the kernel's security modules, not on the filesystem, if an extended attribute can be
// set. A label that this kernel refuses has no meaning for it.
func kernelDecides(name string) bool {
	return strings.HasPrefix(name, "security.") && name != capability
}

const capability = "security.capability"

// check says what the kernel would refuse in an extended attribute whose name it takes.
func (x xattr) check() error {
	switch {
	case len(x.name) > 255:
		return fmt.Errorf("a name of %d bytes, at most 255", len(x.name))
	case strings.IndexByte(x.name, 0) >= 0:
		return errors.New("a name with a zero byte")
	case strings.HasPrefix(x.name, aclPrefix):
		return checkACL(x.value)
	case x.name == capability:
		return checkCapability(x.value)
	}
	return nil
}

// checkCapability checks the form of file capabilities as the kernel does (security/commoncap.c, cap_convert_nscap): revision 2 of 20
// bytes, or 3 of 24 bytes with the user of a namespace. Empty is none.
func checkCapability(v string) error {
	if v == "" {
		return nil
	}
	revision := byte(0)
	if len(v) >= 4 {
		revision = v[3]
	}
	if revision == 2 && len(v) == 20 || revision == 3 && len(v) == 24 && v[20:] != "\xff\xff\xff\xff" {
		return nil
	}
	return fmt.Errorf("file capabilities of revision %d in %d bytes", revision, len(v))
}

// Dropped is an extended attribute that Unpack leaves out: ext4 cannot hold it there, or the kernel has nothing for it.
type Dropped struct {
	Attribute string `json:"attribute"`
	Entries   int    `json:"entries"` // that had it
	First     string `json:"first"`   // name of the first of them
}

// maxDropped bounds the memory for names that an archive makes up; those above it are counted as one.
const maxDropped = 100

// droppings counts what is left out. It may be used by several goroutines.
type droppings struct {
	mu   sync.Mutex
	seen map[string]*Dropped
}

func (d *droppings) add(attribute, entry string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seen == nil {
		d.seen = map[string]*Dropped{}
	}
	if d.seen[attribute] == nil && len(d.seen) >= maxDropped {
		attribute = "others"
	}
	if d.seen[attribute] == nil {
		d.seen[attribute] = &Dropped{Attribute: strings.Clone(attribute), First: strings.Clone(entry)}
	}
	d.seen[attribute].Entries++
}

// list returns them, ordered by name.
func (d *droppings) list() []Dropped {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []Dropped
	for _, k := range slices.Sorted(maps.Keys(d.seen)) {
		out = append(out, *d.seen[k])
	}
	return out
}

// xattrsOf returns the extended attributes of an entry, ordered by name. GNU tar writes an ACL as text, and with --xattrs also
// as the kernel's own form; the latter is taken when both are there.
func xattrsOf(h *tar.Header) ([]xattr, error) {
	var out []xattr
	for key, value := range h.PAXRecords {
		switch {
		case strings.HasPrefix(key, paxXattr):
			name := key[len(paxXattr):]
			if strings.Contains(name, "%") {
				// GNU tar replaces these two characters in the name (xheader.c).
				name = strings.NewReplacer("%3D", "=", "%25", "%").Replace(name)
			}
			out = append(out, xattr{name, value})
		case key == paxACL+"access" || key == paxACL+"default":
			name := aclPrefix + key[len(paxACL):]
			if _, ok := h.PAXRecords[paxXattr+name]; ok || strings.TrimSpace(value) == "" {
				continue
			}
			if !holds(h.Typeflag, name) { // it is left out, whatever it says
				out = append(out, xattr{name, ""})
				continue
			}
			b, err := parseACL(value)
			if err != nil {
				return nil, err
			}
			out = append(out, xattr{name, string(b)})
		case key == paxSELinux:
			if _, ok := h.PAXRecords[paxXattr+"security.selinux"]; !ok {
				out = append(out, xattr{"security.selinux", value})
			}
		}
	}
	slices.SortFunc(out, func(a, b xattr) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.value, b.value)) })
	return out, nil
}

// checkACL checks the kernel's form of an ACL as the kernel does (fs/posix_acl.c, posix_acl_from_xattr and posix_acl_valid): owner,
// named users, group, named groups, mask, others, in this order, the mask where there is a name. Empty is none.
func checkACL(v string) error {
	b := []byte(v)
	if len(b) == 0 {
		return nil
	}
	if len(b) < 4 || (len(b)-4)%8 != 0 || binary.LittleEndian.Uint32(b) != aclVersion {
		return fmt.Errorf("an ACL of %d bytes that is not of version %d", len(b), aclVersion)
	}
	b = b[4:]
	if len(b) == 0 {
		return nil
	}
	// order has the place of each tag, and whether there may be more of them.
	order := map[uint16]int{aclUserObj: 0, aclUser: 1, aclGroupObj: 2, aclGroup: 3, aclMask: 4, aclOther: 5}
	count := map[uint16]int{}
	last := -1
	for ; len(b) > 0; b = b[8:] {
		tag, perm, id := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])
		at, ok := order[tag]
		named := tag == aclUser || tag == aclGroup
		if !ok || perm > 7 || named && id == aclNoID || at < last || at == last && !named {
			return errors.New("an ACL whose entries are not in order or not known")
		}
		last = at
		count[tag]++
	}
	if count[aclUserObj] == 0 || count[aclGroupObj] == 0 || count[aclOther] == 0 || count[aclUser]+count[aclGroup] > 0 && count[aclMask] == 0 {
		return errors.New("an ACL without an entry for owner, group, others or the mask")
	}
	return nil
}

// Tags of the kernel's form of an ACL (include/uapi/linux/posix_acl.h, posix_acl_xattr.h). All numbers are little endian.
const (
	aclVersion  = 2
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
	aclNoID     = 0xffffffff
)

// parseACL turns an ACL's text, such as "user::rw-,user:1001:r--,group::r--,mask::r--,other::---", into the kernel's form. A
// user or group is a number, or a name with the number behind the permissions, as star writes it ("user:lp:r--:7").
func parseACL(text string) ([]byte, error) {
	type entry struct {
		tag, perm uint16
		id        uint32
	}
	var list []entry
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '\n' }) {
		if line, _, _ = strings.Cut(line, "#"); strings.TrimSpace(line) == "" {
			continue
		}
		bad := func() ([]byte, error) { return nil, fmt.Errorf("ACL entry %q", line) }
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 3 || len(f) > 4 {
			return bad()
		}
		e := entry{id: aclNoID}
		switch f[0] + ":" {
		case "user:", "u:":
			e.tag = aclUserObj
		case "group:", "g:":
			e.tag = aclGroupObj
		case "mask:", "m:":
			e.tag = aclMask
		case "other:", "o:":
			e.tag = aclOther
		default:
			return bad()
		}
		if f[1] != "" {
			if e.tag != aclUserObj && e.tag != aclGroupObj {
				return bad()
			}
			e.tag <<= 1
			n, err := strconv.ParseUint(f[1], 10, 32)
			if err != nil && len(f) == 4 {
				n, err = strconv.ParseUint(f[3], 10, 32)
			}
			if err != nil && len(f) == 3 {
				return nil, fmt.Errorf("ACL entry %q has a name without its number: pack with 'tar --xattrs --xattrs-include=*', which keeps the numbers", line)
			}
			if err != nil || n == aclNoID {
				return bad()
			}
			e.id = uint32(n)
		}
		for _, c := range f[2] {
			switch c {
			case 'r':
				e.perm |= 4
			case 'w':
				e.perm |= 2
			case 'x':
				e.perm |= 1
			case '-':
			default:
				return bad()
			}
		}
		list = append(list, e)
	}
	slices.SortStableFunc(list, func(a, b entry) int { return cmp.Or(cmp.Compare(a.tag, b.tag), cmp.Compare(a.id, b.id)) })
	out := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range list {
		out = binary.LittleEndian.AppendUint16(out, e.tag)
		out = binary.LittleEndian.AppendUint16(out, e.perm)
		out = binary.LittleEndian.AppendUint32(out, e.id)
	}
	return out, nil
}
