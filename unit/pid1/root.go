package pid1

import (
	"strings"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/unit/machine"
)

// RootBy is what real_root names a partition by.
type RootBy string

// The ways to name a partition, as the directories by-... below /dev/disk have them.
const (
	ByPARTUUID  RootBy = "partuuid"
	ByPARTLABEL RootBy = "partlabel"
	ByUUID      RootBy = "uuid"  // of the filesystem
	ByLABEL     RootBy = "label" // of the filesystem
	ByID        RootBy = "id"    // of the disk and the number of the partition, such as nvme-MODEL_SERIAL-part2
	ByPATH      RootBy = "path"  // of the disk's port and the number of the partition, such as pci-0000:00:1f.2-ata-1-part2
)

// Root names the partition of the main system for a unit whose recovery volume is missing. The zero value names none.
type Root struct {
	By    RootBy
	Ident string
}

// parseRoot reads TYPE=IDENT. What has another form names nothing.
func parseRoot(s string) Root {
	typ, ident, ok := strings.Cut(s, "=")
	by := RootBy(strings.ToLower(typ))
	if !ok || ident == "" {
		return Root{}
	}
	switch by {
	case ByPARTUUID, ByPARTLABEL, ByUUID, ByLABEL, ByID, ByPATH:
		return Root{by, ident}
	}
	return Root{}
}

// names says whether r names the partition p. probe says what the partition carries; it is only asked where that counts.
func (r Root) names(p machine.Found, probe func(path string) (filesystem.Info, error)) bool {
	onDisk := func(names []string) bool {
		for _, n := range names {
			if block.PartitionName(n, p.Partition.Number) == r.Ident {
				return true
			}
		}
		return false
	}
	switch r.By {
	case ByPARTUUID:
		return strings.EqualFold(p.Partition.UUID, r.Ident)
	case ByPARTLABEL:
		return p.Partition.Name == r.Ident
	case ByID:
		return onDisk(p.Disk.IDs())
	case ByPATH:
		return onDisk(p.Disk.Ports)
	case ByUUID, ByLABEL:
		info, err := probe(p.Path)
		if err != nil || info.Class != filesystem.FS {
			return false
		}
		if r.By == ByUUID {
			return info.UUID != "" && strings.EqualFold(info.UUID, r.Ident)
		}
		return info.Label == r.Ident
	}
	return false
}
