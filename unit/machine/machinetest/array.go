package machinetest

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// mdadm imitates the parts of mdadm(8) that hw/raid uses. It writes one member after another, so the power may be cut
// in between.
func (r *Rig) mdadm(args []string) ([]byte, int, error) {
	verb, device := args[0], args[1]
	var uuid string
	var level int
	var members []string
	for _, a := range args[2:] {
		switch key, value, _ := strings.Cut(a, "="); {
		case key == "--uuid":
			uuid = strings.ReplaceAll(value, ":", "")
		case key == "--level":
			level, _ = strconv.Atoi(value)
		case !strings.HasPrefix(a, "-"):
			members = append(members, a)
		}
	}
	inUse := func(path string) bool {
		for _, m := range r.mounts {
			if m.source == path {
				return true
			}
		}
		for _, a := range r.store.arrays {
			if slices.Contains(a.members, path) {
				return true
			}
		}
		return false
	}
	switch verb {
	case "--stop":
		if r.store.arrays[device] == nil || inUse(device) {
			return []byte("it does not run, or is in use"), 1, nil
		}
		r.store.end(device)
		return nil, 0, nil
	case "--create":
		if level != 1 || r.store.arrays[device] != nil || slices.ContainsFunc(members, inUse) {
			return []byte("it is no mirror, or runs, or a member is in use"), 1, nil
		}
		for place, m := range members {
			if err := r.passed("mdadm writes %s", m); err != nil {
				return nil, 0, err
			}
			r.store.writes(m)
			if err := r.store.put(m, superblock1(uuid, place, len(members)), 4096); err != nil {
				return nil, 0, err
			}
		}
	case "--assemble":
		for _, m := range members {
			b, err := r.store.member(m)
			if err != nil || strings.ReplaceAll(b.UUID, "-", "") != uuid {
				return fmt.Appendf(nil, "%s is no member: %v", m, err), 1, nil
			}
		}
		if r.store.arrays[device] != nil || slices.ContainsFunc(members, inUse) {
			return []byte("it runs, or a member is in use"), 1, nil
		}
	default:
		return nil, 0, fmt.Errorf("mdadm %s is not imitated", args)
	}
	return nil, 0, r.store.begin(device, members)
}

// superblock1 returns a superblock of version 1.2 for one place of a mirror (struct mdp_superblock_1 in
// linux/raid/md_p.h).
func superblock1(uuid string, place, disks int) []byte {
	le, b := binary.LittleEndian, make([]byte, 4096)
	le.PutUint32(b, 0xa92b4efc)
	le.PutUint32(b[4:], 1)
	if id, err := hex.DecodeString(uuid); err == nil {
		copy(b[16:32], id)
	}
	le.PutUint32(b[72:], 1) // level
	le.PutUint32(b[92:], uint32(disks))
	le.PutUint64(b[144:], 8)             // the superblock's own sector
	le.PutUint32(b[160:], uint32(place)) // its own index among the roles
	le.PutUint64(b[200:], 1)             // events
	le.PutUint64(b[208:], 1<<64-1)       // in sync
	le.PutUint32(b[220:], uint32(disks))
	end := 256 + 2*disks
	for i := range disks {
		le.PutUint16(b[256+2*i:], uint16(i))
	}
	var sum uint64
	for i := 0; i+4 <= end; i += 4 {
		sum += uint64(le.Uint32(b[i:]))
	}
	if end%4 == 2 {
		sum += uint64(le.Uint16(b[end-2:]))
	}
	le.PutUint32(b[216:], uint32(sum)+uint32(sum>>32))
	return b
}
