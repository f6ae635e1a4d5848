package filesystem

import (
	"archive/tar"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// xattr is one extended attribute.
type xattr struct{ name, value string }

const (
	paxXattr   = "SCHILY.xattr."
	paxACL     = "SCHILY.acl."
	paxSELinux = "RHT.security.selinux"
	aclPrefix  = "system.posix_acl_"
)

// xattrsOf returns the extended attributes of an entry, ordered by name. GNU tar writes an ACL as text, and with --xattrs also
// as the kernel's own form; the latter is taken when both are there.
func xattrsOf(h *tar.Header) ([]xattr, error) {
	var out []xattr
	for key, value := range h.PAXRecords {
		switch {
		case strings.HasPrefix(key, paxXattr):
			// GNU tar replaces these two characters in the name (xheader.c).
			name := strings.NewReplacer("%3D", "=", "%25", "%").Replace(key[len(paxXattr):])
			if !xattrAllowed(name) {
				return nil, fmt.Errorf("extended attribute %q", name)
			}
			out = append(out, xattr{name, value})
		case key == paxACL+"access" || key == paxACL+"default":
			name := aclPrefix + key[len(paxACL):]
			if _, ok := h.PAXRecords[paxXattr+name]; ok || strings.TrimSpace(value) == "" {
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
	slices.SortFunc(out, func(a, b xattr) int { return cmp.Compare(a.name, b.name) })
	return out, nil
}

// xattrAllowed reports whether an archive may set the attribute.
func xattrAllowed(name string) bool {
	if len(name) > 255 || strings.IndexByte(name, 0) >= 0 {
		return false
	}
	if name == aclPrefix+"access" || name == aclPrefix+"default" {
		return true
	}
	for _, p := range []string{"user.", "trusted.", "security."} {
		if len(name) > len(p) && strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
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
