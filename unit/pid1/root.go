package pid1

import (
	"strings"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
)

// namesPart reports whether r names the partition p. probe says what the partition carries; it is only asked where that counts.
func namesPart(r decide.Root, p machine.Found, probe func(path string) (filesystem.Info, error)) bool {
	onDisk := func(names []string) bool {
		for _, n := range names {
			if block.PartitionName(n, p.Partition.Number) == r.Ident {
				return true
			}
		}
		return false
	}
	switch r.By {
	case decide.ByPARTUUID:
		return strings.EqualFold(p.Partition.UUID, r.Ident)
	case decide.ByPARTLABEL:
		return p.Partition.Name == r.Ident
	case decide.ByID:
		return onDisk(p.Disk.IDs())
	case decide.ByPATH:
		return onDisk(p.Disk.Ports)
	case decide.ByUUID, decide.ByLABEL:
		info, err := probe(p.Path)
		if err != nil || info.Class != filesystem.FS {
			return false
		}
		if r.By == decide.ByUUID {
			return info.UUID != "" && strings.EqualFold(info.UUID, r.Ident)
		}
		return info.Label == r.Ident
	}
	return false
}
