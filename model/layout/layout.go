// Package layout decides which partition goes where, for the recovery device and the main disk, on UEFI and on BIOS.
// It computes values; hw/partition and hw/filesystem put them on disks.
//
// All offsets and sizes are bytes. Partitions start and end on multiples of 1 MiB, and the last MiB of a disk stays free for
// the backup GPT.
package layout

import (
	"fmt"
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
)

// Partition types: a GUID in lower case for GPT (UEFI 2.10 table 5.7, discoverable partitions), two hex digits for MBR.
const (
	TypeESP      = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	TypeBIOSBoot = "21686148-6449-6e6f-744e-656564454649"
	TypeLinux    = "0fc63daf-8483-4772-8e79-3d69d8477de4"
	TypeMBRLinux = "83"
	// TypeStick is our own, of the partition of a recovery stick that holds the image.
	TypeStick = "76f1744c-e743-4c07-be71-4415f343f40d"
	// TypeData is that of partitions for everybody, which other systems show to a person too.
	TypeData = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
)

// EmergencyPrefix begins the name of each file that an emergency medium has for a unit. What follows, after one more underscore
// at most, is the name of the image as it was signed.
const EmergencyPrefix = "EmergencyFile_"

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
	MinRecovery  = 1 * GiB // smallest recovery device that is accepted, ESP included
	MinPrimary   = 1 * GiB // smallest main disk that is accepted, ESP included
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

// Labels are the names that a Site gives.
type Labels struct {
	Recovery string // filesystem label and partition name of the recovery volume
	Primary  string // the same of the main system
}

// IDs makes the identifiers of a new table. UUID returns a random UUID in lower case.
type IDs struct {
	UUID func() string
}

// ForRecovery lays out a recovery device of its own.
func ForRecovery(fw Firmware, d Device, l Labels, ids IDs) (Table, error) {
	return lay(fw, d, ids, Recovery, l.Recovery, MinRecovery)
}

// ForMain lays out the main disk.
func ForMain(fw Firmware, d Device, l Labels, ids IDs) (Table, error) {
	return lay(fw, d, ids, Primary, l.Primary, MinPrimary)
}

func lay(fw Firmware, d Device, ids IDs, role Role, label string, least int64) (Table, error) {
	if d.Size < least {
		return Table{}, fault.Newf(fault.DiskTooSmall, "%s disk has %d bytes, want at least %d", role, d.Size, least)
	}
	if fw == BIOS && d.SectorSize != 512 {
		return Table{}, fault.Newf(fault.Disk4KnBIOS, "logical sector size is %d bytes", d.SectorSize)
	}
	data := Partition{Role: role, Name: label, FSLabel: label, FSUUID: ids.UUID()}
	end := d.Size/MiB*MiB - MiB
	switch {
	case fw == UEFI:
		esp := Partition{Role: ESP, Number: 1, Start: MiB, Size: ESPSize, Type: TypeESP, UUID: ids.UUID(), Name: "ESP", FSLabel: "ESP", FSUUID: fatID(ids)}
		data.Number, data.Type, data.UUID = 2, TypeLinux, ids.UUID()
		data.Start = esp.Start + esp.Size
		data.Size = end - data.Start
		return Table{Kind: GPT, UUID: ids.UUID(), Partitions: []Partition{esp, data}}, nil
	case d.Size > 2*TiB:
		bb := Partition{Role: BIOSBoot, Number: 1, Start: MiB, Size: BIOSBootSize, Type: TypeBIOSBoot, UUID: ids.UUID(), Name: "BIOS boot"}
		data.Number, data.Type, data.UUID = 2, TypeLinux, ids.UUID()
		data.Start = bb.Start + bb.Size
		data.Size = end - data.Start
		return Table{Kind: GPT, UUID: ids.UUID(), Partitions: []Partition{bb, data}}, nil
	default:
		sig := ids.UUID()[:8]
		data.Number, data.Type, data.Name, data.Active = 1, TypeMBRLinux, "", true
		data.UUID = fmt.Sprintf("%s-%02x", sig, data.Number)
		data.Start = MiB
		data.Size = end - data.Start
		return Table{Kind: MBR, UUID: sig, Partitions: []Partition{data}}, nil
	}
}

func fatID(ids IDs) string {
	s := strings.ToUpper(ids.UUID()[:8])
	return s[:4] + "-" + s[4:]
}
