// Package layout decides which partition goes where, on UEFI and on BIOS: on the recovery device, on a main disk, on the only
// disk of a unit that has both on one, and on the members of an array.
// It computes values; hw/partition and hw/filesystem put them on disks.
//
// All offsets and sizes are bytes. Partitions start and end on multiples of 1 MiB, and the last MiB of a disk stays free for
// the backup GPT.
package layout

import (
	"fmt"
	"slices"
	"strings"

	"gprovision/model/fault"
)

// Firmware is the kind of firmware that starts a unit.
type Firmware string

// The two kinds of firmware.
const (
	UEFI Firmware = "uefi"
	BIOS Firmware = "bios"
)

// Kind is the kind of a partition table.
type Kind string

// The kinds of partition tables. None is a disk without one.
const (
	None Kind = ""
	GPT  Kind = "gpt"
	MBR  Kind = "mbr"
)

// Role is what a partition is for.
type Role string

// The roles of partitions. Other is a partition that is not of this product.
const (
	Other    Role = ""
	ESP      Role = "esp"
	BIOSBoot Role = "bios-boot"
	Recovery Role = "recovery"
	Primary  Role = "primary"
	Data     Role = "data"   // data of the product, which a restore preserves
	Member   Role = "member" // of the array that carries the main system
	// DataMember is a member of a second array over the same disks, which carries the data and which a restore preserves.
	DataMember Role = "data-member"
)

// Partition types: a GUID in lower case for GPT (UEFI 2.10 table 5.7, discoverable partitions), two hex digits for MBR.
const (
	TypeESP      = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	TypeBIOSBoot = "21686148-6449-6e6f-744e-656564454649"
	TypeLinux    = "0fc63daf-8483-4772-8e79-3d69d8477de4"
	TypeRAID     = "a19d880f-05fc-4d3b-a006-743f0f84911e"
	TypeMBRLinux = "83"
	TypeMBRRAID  = "fd"
	// TypeStick is our own, of the partition of a recovery stick that holds the image.
	TypeStick = "76f1744c-e743-4c07-be71-4415f343f40d"
	// TypeData is that of partitions for everybody, which other systems show to a person too.
	TypeData = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
)

// EmergencyPrefix begins the name of each file that an emergency medium has for a unit. What follows, after one more underscore
// at most, is the name of the image as it was signed.
const EmergencyPrefix = "EmergencyFile_"

// StickLabel is the label of the ext4 partition of a recovery stick.
const StickLabel = "GPROVSTICK"

// StandInLabel is the label of the ext4 partition on a main disk that stands in for the recovery volume while the device of that is erased.
const StandInLabel = "GPROVSTANDIN"

// BundleLabel is the label of the FAT32 partition of a recovery stick that takes support bundles.
const BundleLabel = "SUPPORT"

// StickArg is the kernel argument by which the boot loader of a recovery stick says from which one it started: the GUID of its
// partition of the type TypeStick. On UEFI the EFI stub says it.
const StickArg = "gprov.stick"

// Sizes.
const (
	MiB          = 1 << 20
	GiB          = 1 << 30
	TiB          = 1 << 40
	ESPSize      = 512 * MiB
	BIOSBootSize = 1 * MiB
	MinRecovery  = 1 * GiB  // smallest recovery device that is accepted, ESP included
	MinPrimary   = 1 * GiB  // smallest main disk that is accepted, ESP included
	MinData      = 64 * MiB // smallest data partition that is accepted
)

// Table is a partition table.
type Table struct {
	Kind Kind `json:"kind"`
	// UUID is the disk's GUID in lower case (GPT), or its signature as 8 lower-case hex digits (MBR).
	UUID       string      `json:"uuid"`
	Partitions []Partition `json:"partitions"`
}

// Partition is one entry of a Table.
type Partition struct {
	Role   Role   `json:"role,omitempty"`
	Number int    `json:"number"` // from 1
	Start  int64  `json:"start"`  // bytes from the start of the disk
	Size   int64  `json:"size"`   // bytes
	Type   string `json:"type"`   // see the Type constants
	// UUID is the partition's GUID in lower case (GPT), or SIGNATURE-NN as the kernel's PARTUUID has it (MBR).
	UUID string `json:"uuid"`
	// Name is the GPT partition name, at most 36 UTF-16 units. Empty on MBR.
	Name string `json:"name,omitempty"`
	// Active is the MBR boot flag.
	Active bool `json:"active,omitempty"`
	// FSUUID is the filesystem's UUID: 36 characters for ext4, XXXX-XXXX for FAT. Chosen by the plan, so that boot
	// entries stay right when a filesystem is made again.
	FSUUID string `json:"fsuuid,omitempty"`
	// FSLabel is the filesystem's label.
	FSLabel string `json:"fslabel,omitempty"`
}

// Find returns the partition with the given role, or nil.
func (t *Table) Find(r Role) *Partition {
	for i := range t.Partitions {
		if t.Partitions[i].Role == r {
			return &t.Partitions[i]
		}
	}
	return nil
}

// Device is what a layout must know of a disk.
type Device struct {
	Size       int64 // bytes
	SectorSize int   // logical, bytes
}

// Labels are the filesystem labels, which are the partition names too: those of recovery volume and main system are the
// Site's, that of the data partition is the platform's.
type Labels struct {
	Recovery string
	Primary  string
	Data     string
}

// IDs makes the identifiers of a new table. UUID returns a random UUID in lower case.
type IDs struct {
	UUID func() string
}

// Parts says what a main disk carries beside the main system. The zero value is the system alone.
type Parts struct {
	// Recovery is the size of a recovery volume on the main disk itself, bytes. 0: it has a device of its own.
	Recovery int64
	// Data reports whether there is a data partition, DataSize how large it is, bytes, and System how large the main system is. One of
	// the two sizes is 0: that partition gets what is left.
	Data             bool
	DataSize, System int64
	// Member reports whether the disk is a member of the array that carries the system; the data are then on an array too, and the sizes are
	// those of the members.
	Member bool
}

// ForRecovery lays out a recovery device of its own.
func ForRecovery(fw Firmware, d Device, l Labels, ids IDs) (Table, error) {
	if d.Size < MinRecovery {
		return Table{}, fault.Newf(fault.DiskTooSmall, "recovery device has %d bytes, want at least %d", d.Size, int64(MinRecovery))
	}
	return lay(fw, d, ids, []part{{Recovery, l.Recovery, 0}})
}

// ForStandIn lays out a main disk that carries nothing but what stands in for the recovery volume for a while, with room for size bytes.
// The rest of the disk stays free.
func ForStandIn(fw Firmware, d Device, size int64, ids IDs) (Table, error) {
	p := part{Recovery, StandInLabel, size}
	p.size = max(p.size, p.least())
	return lay(fw, d, ids, []part{p})
}

// ForMain lays out a main disk. The recovery volume comes first on it, where a boot loader for BIOS looks; then the system or
// the member, then the data.
func ForMain(fw Firmware, d Device, l Labels, p Parts, ids IDs) (Table, error) {
	if d.Size < MinPrimary {
		return Table{}, fault.Newf(fault.DiskTooSmall, "main disk has %d bytes, want at least %d", d.Size, int64(MinPrimary))
	}
	var parts []part
	if p.Recovery > 0 {
		parts = append(parts, part{Recovery, l.Recovery, p.Recovery})
	}
	if p.Member {
		parts = append(parts, part{Member, l.Primary, p.System})
	} else {
		parts = append(parts, part{Primary, l.Primary, p.System})
	}
	if p.Data {
		role := Data
		if p.Member {
			role = DataMember
		}
		parts = append(parts, part{role, l.Data, p.DataSize})
	}
	return lay(fw, d, ids, parts)
}

// part is a partition to lay out. One of a table has the size 0: it gets what the others leave.
type part struct {
	role  Role
	label string
	size  int64
}

// least is the smallest size of a partition that is worth having, bytes.
func (p part) least() int64 {
	if p.role == Data || p.role == DataMember {
		return MinData
	}
	return MinPrimary / 4
}

func lay(fw Firmware, d Device, ids IDs, parts []part) (Table, error) {
	if fw == BIOS && d.SectorSize != 512 {
		return Table{}, fault.Newf(fault.Disk4KnBIOS, "logical sector size is %d bytes", d.SectorSize)
	}
	var t Table
	at := int64(MiB)
	add := func(p Partition, size int64) {
		p.Number, p.Start, p.Size = len(t.Partitions)+1, at, size
		at += size
		t.Partitions = append(t.Partitions, p)
	}
	switch {
	case fw == UEFI:
		t.Kind = GPT
		add(Partition{Role: ESP, Type: TypeESP, UUID: ids.UUID(), Name: "ESP", FSLabel: "ESP", FSUUID: fatID(ids)}, ESPSize)
	case d.Size > 2*TiB:
		t.Kind = GPT
		add(Partition{Role: BIOSBoot, Type: TypeBIOSBoot, UUID: ids.UUID(), Name: "BIOS boot"}, BIOSBootSize)
	default:
		t.Kind = MBR
	}
	t.UUID = ids.UUID()
	if t.Kind == MBR {
		t.UUID = t.UUID[:8]
	}
	rest := d.Size/MiB*MiB - MiB - at
	for _, p := range parts {
		rest -= up(p.size)
	}
	for i, p := range parts {
		size := up(p.size)
		if size == 0 {
			size = rest
		}
		if size < p.least() {
			return Table{}, fault.Newf(fault.DiskTooSmall, "a disk of %d bytes leaves %d for the partition %q", d.Size, size, p.role)
		}
		add(t.partition(p, i == 0, ids), size)
	}
	if end := d.Size/MiB*MiB - MiB; at > end {
		return Table{}, fault.Newf(fault.DiskTooSmall, "the partitions need %d bytes, the disk has %d", at+MiB, d.Size)
	}
	return t, nil
}

// partition describes a part as the kind of the table wants it; first says that it is the first one for an operating system.
func (t *Table) partition(p part, first bool, ids IDs) Partition {
	out := Partition{Role: p.role, Type: TypeLinux, Name: p.label}
	member := p.role == Member || p.role == DataMember
	if member {
		out.Type = TypeRAID
	} else {
		out.FSLabel, out.FSUUID = p.label, ids.UUID()
	}
	if t.Kind == GPT {
		out.UUID = ids.UUID()
		return out
	}
	out.Type, out.Name, out.Active = TypeMBRLinux, "", first
	if member {
		out.Type = TypeMBRRAID
	}
	out.UUID = fmt.Sprintf("%s-%02x", t.UUID, len(t.Partitions)+1)
	return out
}

// up rounds a size up to a multiple of 1 MiB.
func up(n int64) int64 { return (n + MiB - 1) / MiB * MiB }

// same reports whether the partition q of a disk is p.
func (p Partition) same(q Partition) bool {
	return p.Number == q.Number && p.Start == q.Start && p.Size == q.Size && p.Type == q.Type && p.UUID == q.UUID
}

// On reports whether a disk carries the table t: kind, identifier, and each partition with number, place, type and identifier. The
// table of a disk knows no roles.
func (t Table) On(disk Table) bool {
	if disk.Kind != t.Kind || disk.UUID != t.UUID || len(disk.Partitions) != len(t.Partitions) {
		return false
	}
	for _, p := range t.Partitions {
		if !slices.ContainsFunc(disk.Partitions, p.same) {
			return false
		}
	}
	return true
}

func fatID(ids IDs) string {
	s := strings.ToUpper(ids.UUID()[:8])
	return s[:4] + "-" + s[4:]
}
