package filesystem

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// probes are all that is known, in the order in which Probe prefers within a class. Sources: the on-disk formats as documented
// by each project, and the places that libblkid of util-linux looks at.
var probes = []func(*view) []Info{
	probeMD, probeMD090, probeIMSM, probeDDF, probeLVM, probeZFS, probeBcache, probeDRBD,
	probeLUKS, probeBitLocker,
	probeExt, probeFAT, probeExFAT, probeNTFS, probeXFS, probeBtrfs, probeF2FS, probeSquash, probeISO, probeUDF, probeFixed,
	probeSwap,
	probeGPT, probeMBR,
}

var le = binary.LittleEndian

func one(i Info) []Info { return []Info{i} }

// probeMD finds members of md arrays with metadata 1.0 (near the end), 1.1 (at the start) and 1.2 (4 KiB behind it): struct
// mdp_superblock_1 of linux/raid/md_p.h.
func probeMD(v *view) []Info {
	const magic = "\xfc\x4e\x2b\xa9"
	for _, off := range []int64{0, 4096, (v.size/512 - 16) &^ 7 * 512} {
		b := v.at(off, 256)
		if b == nil || string(b[:4]) != magic || le.Uint32(b[4:]) != 1 {
			continue
		}
		return one(Info{Type: "md", Class: Member, Offset: off, UUID: uuid(b[16:32]), Label: clean(b[32:64])})
	}
	return nil
}

// probeMD090 finds members of md arrays with metadata 0.90, in the byte order of whoever made them: mdp_super_t of linux/raid/md_p.h.
func probeMD090(v *view) []Info {
	off := v.size&^65535 - 65536
	b := v.at(off, 64)
	if b == nil || (string(b[:4]) != "\xfc\x4e\x2b\xa9" && string(b[:4]) != "\xa9\x2b\x4e\xfc") {
		return nil
	}
	id := append(append([]byte(nil), b[20:24]...), b[52:64]...)
	if b[0] == 0xfc { // four little-endian words
		for i := 0; i < 16; i += 4 {
			id[i], id[i+1], id[i+2], id[i+3] = id[i+3], id[i+2], id[i+1], id[i]
		}
	}
	return one(Info{Type: "md", Class: Member, Offset: off, UUID: uuid(id)})
}

// probeIMSM finds Intel firmware RAID: the last but one sector (struct imsm_super of mdadm's super-intel.c).
func probeIMSM(v *view) []Info {
	for _, ss := range []int64{512, 4096} {
		if off := v.size/ss*ss - 2*ss; v.has(off, "Intel Raid ISM Cfg Sig. ") {
			return one(Info{Type: "imsm", Class: Member, Offset: off})
		}
	}
	return nil
}

// probeDDF finds SNIA disk data format (Common RAID Disk Data Format 2.0): the anchor in the last sector, or 257 sectors from the end.
func probeDDF(v *view) []Info {
	for _, back := range []int64{512, 257 * 512, 4096} {
		if off := v.size - back; v.has(off, "\xde\x11\xde\x11") || v.has(off, "\x11\xde\x11\xde") {
			return one(Info{Type: "ddf", Class: Member, Offset: off})
		}
	}
	return nil
}

// probeLVM finds physical volumes of LVM2: a label in one of the first four sectors (LVM2 lib/label/label.h, struct label_header;
// lib/format_text/layout.h, struct pv_header).
func probeLVM(v *view) []Info {
	for off := int64(0); off < 4*512; off += 512 {
		if !v.has(off, "LABELONE") || !v.has(off+24, "LVM2 001") {
			continue
		}
		i := Info{Type: "lvm", Class: Member, Offset: off}
		if b := v.at(off, 512); b != nil {
			if at := le.Uint32(b[20:]); at <= 512-32 { // the physical volume's header; its first field is the identifier
				if s := clean(b[at : at+32]); len(s) == 32 {
					i.UUID = strings.Join([]string{s[:6], s[6:10], s[10:14], s[14:18], s[18:22], s[22:26], s[26:]}, "-")
				}
			}
		}
		return one(i)
	}
	return nil
}

// probeZFS finds members of ZFS pools: uberblocks in the second half of four labels of 256 KiB, two at each end (ZFS On-Disk Specification,
// chapter 1).
func probeZFS(v *view) []Info {
	const label = 256 << 10
	end := v.size / label * label
	b := make([]byte, label/2) // for all four: most of what a probe reads
	for _, at := range []int64{0, label, end - 2*label, end - label} {
		if at < 0 || !v.read(b, at+label/2) {
			continue
		}
		for off := 0; off+1024 <= len(b); off += 1024 {
			if le.Uint64(b[off:]) == 0x00bab10c || binary.BigEndian.Uint64(b[off:]) == 0x00bab10c {
				return one(Info{Type: "zfs", Class: Member, Offset: at + label/2 + int64(off)})
			}
		}
	}
	return nil
}

// probeBcache finds bcache and bcachefs by the magic numbers of their superblocks (struct cache_sb of Linux's bcache, struct bch_sb of
// bcachefs).
func probeBcache(v *view) []Info {
	b := v.at(4096, 56)
	if b == nil {
		return nil
	}
	switch string(b[24:40]) {
	case "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81":
		return one(Info{Type: "bcache", Class: Member, Offset: 4096, UUID: uuid(b[40:56])})
	case "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef":
		return one(Info{Type: "bcachefs", Class: FS, Offset: 4096, UUID: uuid(b[40:56])})
	}
	return nil
}

// probeDRBD finds the metadata that DRBD keeps inside of its backing device, in the last 4 KiB (struct meta_data_on_disk of Linux's
// drivers/block/drbd).
func probeDRBD(v *view) []Info {
	off := v.size&^4095 - 4096
	for _, magic := range []string{"\x83\x74\x02\x6c", "\x83\x74\x02\x6b", "\x83\x74\x02\x6d"} {
		if v.has(off+60, magic) {
			return one(Info{Type: "drbd", Class: Member, Offset: off})
		}
	}
	return nil
}

// probeLUKS finds LUKS 1 and 2 by their binary headers (LUKS On-Disk Format Specification 1.2.3; LUKS2 On-Disk Format
// Specification, binary header). The second header of LUKS 2 is at one of ten places.
func probeLUKS(v *view) []Info {
	places := []int64{0, 0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000, 0x100000, 0x200000, 0x400000}
	for _, off := range places {
		magic := "SKUL\xba\xbe"
		if off == 0 {
			magic = "LUKS\xba\xbe"
		}
		if !v.has(off, magic) {
			continue
		}
		i := Info{Type: "luks", Class: Crypt, Offset: off}
		if b := v.at(off, 512); b != nil {
			i.UUID = clean(b[168:208])
			if binary.BigEndian.Uint16(b[6:]) == 2 {
				i.Label = clean(b[24:72])
			}
		}
		return one(i)
	}
	return nil
}

// probeBitLocker finds BitLocker by the name in its first sector, as libblkid does: there is no published format.
func probeBitLocker(v *view) []Info {
	if v.has(3, "-FVE-FS-") {
		return one(Info{Type: "bitlocker", Class: Crypt})
	}
	return nil
}

// probeExt finds ext2, ext3 and ext4: the superblock at 1024 (Linux Documentation/filesystems/ext4/super.rst, s_magic, s_rev_level,
// s_log_block_size, the features, s_uuid, s_volume_name).
func probeExt(v *view) []Info {
	b := v.at(1024, 1024)
	if b == nil || le.Uint16(b[0x38:]) != 0xef53 || le.Uint32(b[0x4c:]) > 1 || le.Uint32(b[0x18:]) > 6 {
		return nil
	}
	compat, incompat := le.Uint32(b[0x5c:]), le.Uint32(b[0x60:])
	i := Info{Type: "ext2", Class: FS, Offset: 1024, UUID: uuid(b[0x68:0x78]), Label: clean(b[0x78:0x88])}
	switch {
	case incompat&0x8 != 0: // the journal of another one
		i.Type = "jbd"
	case compat&0x4 != 0 || incompat&^0x16 != 0: // has a journal, or something that ext2 never had
		i.Type = "ext4"
	}
	return one(i)
}

// probeFAT finds FAT12, FAT16 and FAT32 by what every reader of them must find in the first sector (Microsoft's FAT specification,
// sections 3.1 to 3.3; the label of the root directory: section 6).
func probeFAT(v *view) []Info {
	b := v.at(0, 512)
	if b == nil || b[510] != 0x55 || b[511] != 0xaa || b[0] != 0xe9 && b[0] != 0xeb {
		return nil
	}
	sector, cluster := int64(le.Uint16(b[11:])), int64(b[13])
	reserved, fats, media := int64(le.Uint16(b[14:])), int64(b[16]), b[21]
	if sector < 512 || sector > 4096 || sector&(sector-1) != 0 || cluster == 0 || cluster&(cluster-1) != 0 ||
		reserved == 0 || fats < 1 || fats > 2 || media != 0xf0 && media < 0xf8 {
		return nil
	}
	i := Info{Type: "vfat", Class: FS}
	perFAT, entries := int64(le.Uint16(b[22:])), int64(le.Uint16(b[17:]))
	var rootAt, rootSize int64
	ext := b[36:]
	if perFAT == 0 { // FAT32
		perFAT = int64(le.Uint32(b[36:]))
		ext = b[64:]
		root := int64(le.Uint32(b[44:]))
		rootAt = (reserved + fats*perFAT + (root-2)*cluster) * sector
		rootSize = cluster * sector
		if perFAT == 0 || root < 2 {
			return nil
		}
	} else {
		rootAt, rootSize = (reserved+fats*perFAT)*sector, entries*32
		if entries == 0 {
			return nil
		}
	}
	if ext[2] == 0x29 || ext[2] == 0x28 { // serial number and label are there
		id := le.Uint32(ext[3:])
		i.UUID = fmt.Sprintf("%04X-%04X", id>>16, id&0xffff)
	}
	if ext[2] == 0x29 {
		i.Label = fatName(ext[7:18])
	}
	for d := v.at(rootAt, min(rootSize, 64<<10)); len(d) >= 32 && d[0] != 0; d = d[32:] {
		if d[0] != 0xe5 && d[11]&0x3f == 0x08 { // the label that people set
			i.Label = fatName(d[:11])
			break
		}
	}
	return one(i)
}

// fatName is a label as FAT keeps it. Bytes above 7f are of some code page and become question marks.
func fatName(b []byte) string {
	s := []byte(string(b))
	for i, c := range s {
		if c >= 0x80 {
			s[i] = '?'
		}
	}
	if t := clean(s); t != "NO NAME" {
		return t
	}
	return ""
}

// probeExFAT finds exFAT by its boot sector (Microsoft's exFAT specification, section 3.1: FileSystemName, VolumeSerialNumber).
func probeExFAT(v *view) []Info {
	if !v.has(3, "EXFAT   ") {
		return nil
	}
	i := Info{Type: "exfat", Class: FS}
	if b := v.at(100, 4); b != nil {
		i.UUID = fmt.Sprintf("%04X-%04X", le.Uint16(b[2:]), le.Uint16(b))
	}
	return one(i)
}

// probeNTFS finds NTFS by its first sector, or by the copy in its last one (Linux fs/ntfs3/ntfs.h, struct NTFS_BOOT).
func probeNTFS(v *view) []Info {
	for _, off := range []int64{0, v.size - 512} {
		if !v.has(off+3, "NTFS    ") {
			continue
		}
		i := Info{Type: "ntfs", Class: FS, Offset: off}
		if b := v.at(off+0x48, 8); b != nil {
			i.UUID = fmt.Sprintf("%016X", le.Uint64(b))
		}
		return one(i)
	}
	return nil
}

// probeXFS finds XFS by its superblock (Linux fs/xfs/libxfs/xfs_format.h, struct xfs_dsb: sb_magicnum, sb_uuid, sb_fname).
func probeXFS(v *view) []Info {
	if b := v.at(0, 512); b != nil && string(b[:4]) == "XFSB" {
		return one(Info{Type: "xfs", Class: FS, UUID: uuid(b[32:48]), Label: clean(b[108:120])})
	}
	return nil
}

// probeBtrfs finds btrfs by its first superblock (struct btrfs_super_block of Linux: fsid, magic, label).
func probeBtrfs(v *view) []Info {
	if b := v.at(0x10000, 1024); b != nil && string(b[0x40:0x48]) == "_BHRfS_M" {
		return one(Info{Type: "btrfs", Class: FS, Offset: 0x10000, UUID: uuid(b[0x20:0x30]), Label: clean(b[0x12b : 0x12b+256])})
	}
	return nil
}

// probeF2FS finds F2FS by a superblock (Linux include/linux/f2fs_fs.h, struct f2fs_super_block: magic, uuid, volume_name).
func probeF2FS(v *view) []Info {
	for _, off := range []int64{1024, 4096 + 1024} { // two copies, in blocks of 4 KiB
		if b := v.at(off, 124+1024); b != nil && le.Uint32(b) == 0xf2f52010 {
			return one(Info{Type: "f2fs", Class: FS, Offset: off, UUID: uuid(b[108:124]), Label: utf16Text(b[124:], le)})
		}
	}
	return nil
}

// probeSquash finds squashfs by its magic number, in either byte order (Linux fs/squashfs/squashfs_fs.h, SQUASHFS_MAGIC).
func probeSquash(v *view) []Info {
	if v.has(0, "hsqs") || v.has(0, "sqsh") {
		return one(Info{Type: "squashfs", Class: FS})
	}
	return nil
}

// probeISO finds ISO 9660 by its first volume descriptor (ECMA-119 section 8.4).
func probeISO(v *view) []Info {
	b := v.at(0x8000, 2048)
	if b == nil || string(b[1:6]) != "CD001" {
		return nil
	}
	i := Info{Type: "iso9660", Class: FS, Offset: 0x8000, Label: clean(b[40:72])}
	for _, at := range []int{830, 813} { // when it was changed, or made: ECMA-119 section 8.4.26
		d := string(b[at : at+16])
		if strings.Trim(d, "0123456789") == "" && strings.Trim(d, "0") != "" {
			i.UUID = strings.Join([]string{d[:4], d[4:6], d[6:8], d[8:10], d[10:12], d[12:14], d[14:16]}, "-")
			break
		}
	}
	return one(i)
}

// probeUDF looks for the descriptor of UDF in the volume recognition sequence (ECMA-167 part 2).
func probeUDF(v *view) []Info {
	for _, block := range []int64{2048, 512, 4096} {
		for off := int64(0x8000); off < 0x8000+16*block; off += block {
			if v.has(off+1, "NSR02") || v.has(off+1, "NSR03") {
				return one(Info{Type: "udf", Class: FS, Offset: off})
			}
		}
	}
	return nil
}

// probeFixed finds what has one signature at one place, and is not looked into: the places that libblkid looks at.
func probeFixed(v *view) []Info {
	var out []Info
	for _, s := range []struct {
		name  string
		off   int64
		magic string
	}{
		{"refs", 0, "\x00\x00\x00ReFS\x00"}, {"apfs", 32, "NXSB"}, {"hfsplus", 1024, "H+\x00\x04"}, {"hfsplus", 1024, "HX\x00\x05"},
		{"jfs", 0x8000, "JFS1"}, {"reiserfs", 0x10034, "ReIsErFs"}, {"reiserfs", 0x10034, "ReIsEr2Fs"},
		{"reiserfs", 0x10034, "ReIsEr3Fs"}, {"reiserfs", 0x2034, "ReIsErFs"}, {"reiserfs", 0x10000, "ReIsEr4"},
		{"erofs", 1024, "\xe2\xe1\xf5\xe0"}, {"cramfs", 0, "\x45\x3d\xcd\x28"}, {"cramfs", 0, "\x28\xcd\x3d\x45"},
		{"nilfs2", 1024 + 4, "\x00\x00\x34\x34"}, {"gfs2", 0x10000, "\x01\x16\x19\x70"}, {"ocfs2", 0x800, "OCFSV2"},
		{"ocfs2", 0x400, "OCFSV2"}, {"ocfs2", 0x1000, "OCFSV2"}, {"ocfs2", 0x2000, "OCFSV2"}, {"vmfs", 0x100000, "\x0d\xd0\x01\xc0"},
	} {
		if v.has(s.off, s.magic) {
			out = append(out, Info{Type: s.name, Class: FS, Offset: s.off})
		}
	}
	return out
}

// probeSwap finds swap space and suspended systems, whose signature ends the first page of whatever size (Linux include/linux/swap.h,
// union swap_header).
func probeSwap(v *view) []Info {
	for _, page := range []int64{4096, 8192, 16384, 32768, 65536} {
		b := v.at(page-10, 10)
		if b == nil {
			return nil
		}
		i := Info{Type: "suspend", Class: Swap, Offset: page - 10}
		switch s := string(b); {
		case s == "SWAPSPACE2" || s == "SWAP-SPACE":
			i.Type = "swap"
		case !strings.HasPrefix(s, "S1SUSPEND") && !strings.HasPrefix(s, "S2SUSPEND") && !strings.HasPrefix(s, "ULSUSPEND") && s != "LINHIB0001":
			continue
		}
		if h := v.at(1024, 44); h != nil {
			i.UUID, i.Label = uuid(h[12:28]), clean(h[28:44])
		}
		return one(i)
	}
	return nil
}

// probeGPT finds either header of a GPT, for sectors of 512 and 4096 bytes (UEFI 2.10 table 5.5).
func probeGPT(v *view) []Info {
	var out []Info
	for _, off := range []int64{512, 4096, v.size/512*512 - 512, v.size/4096*4096 - 4096} {
		if !v.has(off, "EFI PART") {
			continue
		}
		i := Info{Type: "gpt", Class: Table, Offset: off}
		if b := v.at(off+56, 16); b != nil {
			i.UUID = fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
		}
		out = append(out, i)
	}
	return out
}

// probeMBR finds a master boot record (UEFI 2.10 tables 5.1 and 5.2). The first sector of FAT and NTFS ends like one.
func probeMBR(v *view) []Info {
	b := v.at(0, 512)
	if b == nil || b[510] != 0x55 || b[511] != 0xaa {
		return nil
	}
	used := false
	for e := b[446:510]; len(e) > 0; e = e[16:] {
		if e[0]&0x7f != 0 {
			return nil
		}
		used = used || e[4] != 0
	}
	if !used && (len(probeFAT(v)) > 0 || len(probeExFAT(v)) > 0 || v.has(3, "NTFS    ") || v.has(3, "-FVE-FS-")) {
		return nil
	}
	return one(Info{Type: "mbr", Class: Table, UUID: fmt.Sprintf("%08x", le.Uint32(b[440:]))})
}
